"""The access log: what the server's process writes is what the benchmark reads, and what it says of the slots."""

from __future__ import annotations

import os
import time

import pytest

from engine.access_log import (
    AccessLog,
    LogLine,
    anyio_threads,
    name_workers,
    ready_workers,
    request_lines,
    slots_held,
    slots_seen,
    wait_for_log,
)
from engine.inside.wrap._bench_log_line import log_line, quoted


def line_of(request: int, pid: int, started_s: float, duration_s: float = 1.0) -> LogLine:
    return LogLine("stamp", pid, "GET", "/io", "200", duration_s, str(request), started_s)


def said(*words: str) -> str:
    """Lines of a log: "7 ready" is what process 7 says."""
    return "".join(f"[stamp] [pid-{word.partition(' ')[0]}] {word.partition(' ')[2]}\n" for word in words)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (("POST", "/io?a=1", "7"), ("POST", "/io?a=1", "7")),
        (("GET", "/a b\n[x] \u20ac", "12"), ("GET", "/a%20b%0A%5Bx%5D%20%E2%82%AC", "12")),
        (("GE T", "/" + "x" * 3000, "3"), ("GE%20T", "/" + "x" * 1999, "3")),
        (("GET", "/", "1 #2 @3"), None),  # no number of ours
    ],
)
def test_what_is_written_is_read_whatever_a_client_sends(sent, read):
    text, number = quoted(*sent)
    text = log_line(f"{text} 201 1.0012s #{number} @5123.456789", 1_700_000_000.5).decode()
    assert text.index("\n") == len(text) - 1
    lines = request_lines(text)
    assert [(line.method, line.path, line.request) for line in lines] == [read] * bool(read)
    for line in lines:
        assert (line.pid, *line[4:6], line.started_s) == (os.getpid(), "201", 1.0012, 5123.456789)
        assert line.stamp.endswith(".500")


def test_the_log_is_put_in_the_order_of_starting_and_half_a_line_is_none():
    text = "\n".join(f"[s] [pid-1] GET /io 200 1.0s #{i} @{at}" for i, at in enumerate([3.0, 1.0, 2.0]))
    assert [line.request for line in request_lines(f"{text}\n[s] [pid-4711] GET /io 200 1.00")] == list("120")


@pytest.mark.parametrize(
    ("words", "ready"),
    [
        (["1 ready", "2 ready"], [1, 2]),
        (["1 ready", "1 forks", "2 ready", "1 forks", "3 ready"], [2, 3]),  # a master with a preloaded app
        (["1 failed ValueError: ready"], []),
        (["12 GET /ready 200 0.1s #- @1"], []),
    ],
)
def test_a_worker_is_ready_when_it_says_so_and_does_not_fork(words, ready):
    assert ready_workers(said(*words)) == ready


def test_the_threads_are_those_that_the_app_has_set_else_anyios_own(tmp_path):
    path = tmp_path / "access.log"
    path.write_text(said("7 ready"))
    assert anyio_threads(path) == 40
    path.write_text(said("7 threads 100", "7 ready"))
    assert anyio_threads(path) == 100


def test_workers_are_numbered_as_the_log_shows_them_and_the_idle_ones_come_last():
    log = AccessLog([line_of(0, 30, 1.0), line_of(1, 10, 2.0), line_of(2, 30, 3.0)], [10, 20, 30])
    assert name_workers(log) == {30: "worker0", 10: "worker1", 20: "worker2"}


def test_the_log_is_waited_for_until_it_has_every_line(tmp_path):
    path, text = tmp_path / "access.log", said("1 ready", "1 GET /io 200 1.0s #0 @1.0")
    path.write_text(text + said("1 GET /io 200 1.0s #1 @1.0"))
    assert len(wait_for_log(path, 2).lines) == 2
    log = wait_for_log(path, 1, begins=len(text))  # of a later run
    assert ([line.request for line in log.lines], log.ready) == (["1"], [1])
    begun_s = time.monotonic()
    assert len(wait_for_log(path, 3).lines) == 2  # a line that never comes ends the waiting, too
    assert time.monotonic() - begun_s > 0.9


# ---------------------------------------------------------------- slots


@pytest.mark.parametrize(
    ("lines", "seen"),
    [
        ([], None),
        ([(1, 0.0), (1, 0.1), (1, 0.2)], 3),
        ([(1, 0.0), (2, 0.1), (1, 0.2), (2, 0.3)], 2),  # of one worker
        ([(1, 0.0), (1, 0.999), (1, 1.998)], 1),  # the end of one and the start of the next overlap for a moment
    ],
)
def test_slots_seen_are_the_most_requests_in_one_worker_at_the_same_moment(lines, seen):
    assert slots_seen([line_of(i, pid, at_s) for i, (pid, at_s) in enumerate(lines)]) == seen


def test_a_request_that_takes_no_measurable_time_is_seen():
    assert slots_seen([line_of(0, 1, 1.0, 0.0)]) == 1


def in_rounds(requests: int, slots: int, jitter_s: float = 0.0) -> list[LogLine]:
    return [line_of(i, 1, i // slots + i % slots * jitter_s) for i in range(requests)]


def test_slots_held_are_read_where_waiting_requests_start():
    burst = [0.0] * 100
    assert slots_held(in_rounds(16, 4), burst) == 4
    two_workers = [line._replace(pid=int(line.request) % 2) for line in in_rounds(16, 4)]
    assert slots_held(two_workers, burst) == 2
    assert slots_held(in_rounds(4, 4), burst) is None  # no request waited
    assert slots_held([*in_rounds(4, 4), line_of(4, 1, 1.0)], burst) is None  # too few
    varying = [line_of(i, 1, 3.0 + 0.2 * i, 1.0 + 0.35 * i) for i in range(12)]  # as if they waited for CPU time
    assert slots_held(varying, burst) is None
