"""The line that moves on a terminal while a load is sent: how far it is, latency so far, the time left, and what runs
before it have shown. In a pipe there is none.

It must not cost the latency that it shows: the client takes at most SAMPLED answers twice a second for it.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from engine.loads import Load, Part
from engine.stats import nearest_rank
from engine.words import duration, rate

CLEAR = "\r\033[K"  # a terminal's line
SAMPLED = 500  # answers: sorting them takes some 0.1 ms
SAMPLE_EVERY_S = 0.5

TakeSample = Callable[[], Sequence[float]]


def sample_of(rows: Any, sent: int, part: Part, begun_s: float) -> array[float]:
    """Latencies of answers so far, evenly spread over the run. rows: a client's columns; of a schedule, latency counts
    from when a request was due."""
    found, load = array("d"), part.load
    for i in range(0, sent, sent // SAMPLED + 1):
        if rows.answered_s[i] and not rows.error[i]:
            number = i * part.processes + part.k
            from_s = begun_s + load.due_s(number) if load.is_scheduled else rows.started_s[i]
            found.append(rows.answered_s[i] - from_s)
    return found


def left_s(load: Load, elapsed_s: float, done: float) -> float | None:
    """How long it still takes, if it goes on as it did; 0: all is sent; None: not known.

    >>> left_s(Load(100), 2.0, 50), left_s(Load(math.inf, 10.0), 2.0, 50), left_s(Load(100), 2.0, 0)
    (2.0, 8.0, None)
    """
    if load.is_scheduled and load.most_requests < math.inf:
        return max(0.0, load.due_s(int(load.most_requests) - 1) - elapsed_s)
    by_limit_s = max(0.0, load.time_limit_s - elapsed_s)
    by_count_s = (load.requests - done) * elapsed_s / done if done else math.inf
    found_s = min(by_limit_s, by_count_s)
    return None if found_s == math.inf else found_s


@dataclass(frozen=True)
class Progress:
    """How far a load is. median_s, p99_s: of the answers so far; None: there are too few."""

    elapsed_s: float
    sent: int
    under_way: int
    left_s: float | None
    median_s: float | None = None
    p99_s: float | None = None


def progress_text(found: Progress, about: str = "", columns: float = math.inf) -> str:
    """One line, without its least important parts where it has no room for them. about: what the load is for."""
    rps = (found.sent - found.under_way) / (found.elapsed_s or math.inf)
    parts = {"rate": rate(rps), "under way": f"{found.under_way} under way", "sent": f"{found.sent} sent"}
    if found.median_s is not None:
        parts["p50"] = f"p50 {duration(found.median_s)}"
    if found.p99_s is not None:
        parts["p99"] = f"p99 {duration(found.p99_s)}"
    if found.left_s is not None:
        parts["left"] = f"{math.ceil(found.left_s)} s left" if found.left_s else "waiting for answers"
    begin, end = f"{found.elapsed_s:6.1f} s  ", f"; {about}" if about else ""
    for name in ("", "sent", "p50", "under way"):
        parts.pop(name, "")
        line = begin + ", ".join(parts.values()) + end
        if len(line) < columns:
            break
    return line


# ---------------------------------------------------------------- the terminal


class Terminal:
    """Standard error, if it is a terminal that can write over a line. about: see line_says()."""

    about = ""

    @property
    def is_there(self) -> bool:
        with contextlib.suppress(OSError, ValueError, AttributeError):  # stderr is closed, or there is none
            return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        return False

    @property
    def columns(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return os.get_terminal_size(sys.stderr.fileno()).columns or 80
        return 80

    def show(self, text: str) -> None:
        """In place of the last line. A longer one would wrap, and what has wrapped cannot be cleared."""
        self.write(CLEAR + text[: self.columns - 1])

    def clear(self) -> None:
        self.write(CLEAR)

    def write(self, text: str) -> None:
        if self.is_there:
            with contextlib.suppress(OSError, ValueError):
                print(text, end="", file=sys.stderr, flush=True)


terminal = Terminal()


@contextlib.contextmanager
def line_says(text: str) -> Iterator[None]:
    """The line says so, too, in this block: what the loads of it are for, and what those before have shown."""
    before, terminal.about = terminal.about, ", ".join(filter(None, [terminal.about, text]))
    try:
        yield
    finally:
        terminal.about = before


class MovingLine:
    """Of one load. It is told some ten times a second what is sent and under way."""

    def __init__(self, load: Load) -> None:
        self.load, self.is_shown = load, terminal.is_there
        self.sample: Sequence[float] = ()
        self.next_sample_s = SAMPLE_EVERY_S

    def show(self, begun_s: float, sent: int, under_way: int, take_sample: TakeSample) -> None:
        """begun_s: on the clock perf_counter."""
        if not self.is_shown:
            return
        elapsed_s = perf_counter() - begun_s
        if elapsed_s >= self.next_sample_s:
            self.sample, self.next_sample_s = sorted(take_sample()), elapsed_s + SAMPLE_EVERY_S
        median_s, p99_s = (nearest_rank(self.sample, share) for share in (50, 99))
        left = left_s(self.load, elapsed_s, sent - under_way)
        found = Progress(elapsed_s, sent, under_way, left, median_s, p99_s)
        terminal.show(progress_text(found, terminal.about, terminal.columns))
