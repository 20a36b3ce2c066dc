"""The line that moves on a terminal: what it says, that it fits, and that a pipe sees nothing of it."""

from __future__ import annotations

import array
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from types import SimpleNamespace

import pytest
from commands import BENCH, command

from engine.loads import Burst, Closed, Open, Part, Ramp
from engine.progress import CLEAR, SAMPLED, MovingLine, Progress, left_s, line_says, progress_text, sample_of

FULL = Progress(12.34, 1234, 12, 7.2, 0.02, 0.031)


def rows_of(latencies_s, begun_s=100.0, every_s=0.01, failed=()):
    started_s = [begun_s + i * every_s for i in range(len(latencies_s))]
    answered_s = [at + took if took else 0.0 for at, took in zip(started_s, latencies_s, strict=True)]
    return SimpleNamespace(
        started_s=started_s, answered_s=array.array("d", answered_s), error=[i in failed for i in range(len(started_s))]
    )


@pytest.mark.parametrize(
    ("load", "elapsed_s", "done", "left"),
    [
        (Burst(100), 1.0, 0, None),  # nothing is known before the first answer
        (Burst(100), 1.0, 25, 3.0),
        (Closed(time_limit_s=10, concurrency=4), 4.0, 0, 6.0),
        (Closed(100, time_limit_s=10, concurrency=4), 4.0, 80, 1.0),
        (Closed(100, time_limit_s=10, concurrency=4), 4.0, 10, 6.0),
        (Closed(concurrency=4, time_limit_s=10), 11.0, 10, 0.0),
        (Closed(concurrency=4), 11.0, 10, None),  # until Ctrl-C
        (Open(rate_rps=10, time_limit_s=5), 1.0, 3, 3.9),
        (Open(11, rate_rps=10), 0.5, 0, 0.5),
        (Open(11, rate_rps=10), 2.0, 9, 0.0),
        (Open(rate_rps=10), 2.0, 9, None),
        (Ramp(time_limit_s=8, stages=((8.0, 4),)), 2.0, 9, 6.0),
    ],
)
def test_the_time_left(load, elapsed_s, done, left):
    assert left_s(load, elapsed_s, done) == (left if left is None else pytest.approx(left))


@pytest.mark.parametrize(
    ("found", "columns", "says", "says_not"),
    [
        (FULL, 80, ["12.3 s", "1234 sent", "12 under way", "99/s", "p50 20 ms", "p99 31 ms", "8 s left"], []),
        (FULL, 70, ["p50 20 ms", "p99 31 ms", "8 s left"], ["sent"]),
        (FULL, 50, ["p99 31 ms", "8 s left"], ["sent", "p50"]),
        (Progress(0.0, 0, 0, None), 80, ["0 under way", "0/s"], ["p50", "p99", "left", "nan", "None"]),
        (Progress(2.0, 10, 3, 0.0), 80, ["waiting for answers"], [" left"]),
    ],
)
def test_the_line_says_the_most_important_where_it_is_narrow(found, columns, says, says_not):
    text = progress_text(found, columns=columns)
    assert len(text) < columns
    assert [part for part in says if part not in text] == [part for part in says_not if part in text] == []


def test_what_the_runs_before_have_shown_is_said_with_it():
    assert progress_text(FULL, "120/s held, 160/s did not", 100).endswith("; 120/s held, 160/s did not")


def test_a_sample_is_small_spread_over_the_run_and_without_failures():
    found = sample_of(rows_of([0.01] * 50_000 + [0.03] * 50_000), 100_000, Part(Closed()), 100.0)
    assert SAMPLED / 2 < len(found) <= SAMPLED and 0.4 < sum(one > 0.02 for one in found) / len(found) < 0.6
    assert len(sample_of(rows_of([0.01, 0.0, 0.01, 0.01], failed={2}), 4, Part(Closed()), 100.0)) == 2
    assert list(sample_of(rows_of([]), 0, Part(Closed()), 100.0)) == []


def test_latency_of_a_schedule_counts_from_when_a_request_was_due():
    late = rows_of([0.01] * 3, every_s=0.2)  # due every 0.1 s
    assert sample_of(late, 3, Part(Open(rate_rps=10)), 100.0) == pytest.approx([0.01, 0.11, 0.21])
    second_of_two = sample_of(rows_of([0.01] * 2, every_s=0.2), 2, Part(Open(rate_rps=10), 1, 2), 99.9)
    assert second_of_two == pytest.approx([0.01, 0.01])


# ---------------------------------------------------------------- the terminal


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show(line, sent=510, take=lambda: [0.02] * 200, before_s=2.0):
    line.show(time.perf_counter() - before_s, sent, 10, take)


def test_on_a_terminal_the_line_is_written_over_and_latencies_are_taken_seldom(monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream := FakeTerminal())
    monkeypatch.setenv("TERM", "xterm")
    line, taken = MovingLine(Closed(1000, concurrency=10)), []
    with line_says("run 1 of 2"), line_says(""), line_says("full load"):
        for before_s in (2.0, 2.1, 2.2):
            show(line, take=lambda: taken.append(1) or [0.02] * 200, before_s=before_s)
    show(line)
    assert stream.getvalue().count(CLEAR) == 4 and "\n" not in stream.getvalue() and len(taken) == 1
    first, *_, last = stream.getvalue().split(CLEAR)[1:]
    assert "p99 20 ms" in first and first.endswith("; run 1 of 2, full load") and last.endswith("left")
    stream.close()
    show(line)  # a stream that is gone costs nothing


@pytest.mark.parametrize(("stream", "term"), [(io.StringIO(), "xterm"), (None, "xterm"), (FakeTerminal(), "dumb")])
def test_elsewhere_nothing_is_written_and_no_latency_looked_at(monkeypatch, stream, term):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", term)
    show(MovingLine(Burst(10)), take=lambda: pytest.fail("it was"))
    assert not stream or not stream.getvalue()


def on_a_terminal(columns, *words):
    """What a command writes on a terminal so wide."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {"TERM": "xterm"})
    os.close(theirs)
    text = b""
    try:
        while data := os.read(ours, 65536):
            text += data
    except OSError:  # Linux says so that the other end is closed
        pass
    finally:
        process.wait(60)
        os.close(ours)
    return text.decode().replace("\r\n", "\n")


BURST = [*BENCH, "--target", "flask-gunicorn", "--path", "/io", "--task-time", "0.4", "-n", "8"]


def test_a_burst_on_a_terminal_keeps_its_lines_apart(tmp_path):
    text = on_a_terminal(60, *BURST, "--logs", str(tmp_path))
    moving = re.findall(r"\r\x1b\[K([^\r\n\x1b]*)", text)
    assert any("under way" in one for one in moving) and all(len(one) < 60 for one in moving if "under way" in one)
    logged = [line for line in text.split("\n") if "[pid-worker" in line]
    assert len(logged) == 8
    assert all(re.sub(r".*\r\x1b\[K", "", line).startswith("  [") for line in logged), "on a line of its own"


def test_a_burst_in_a_pipe_shows_no_line_that_moves(tmp_path):
    result = command(*BURST, "--logs", str(tmp_path))
    assert result.returncode == 0 and not result.stderr and "\r" not in result.stdout and "\x1b" not in result.stdout
