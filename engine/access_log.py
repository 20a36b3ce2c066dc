"""Read the access log of a run: its lines, its workers, and what they say of the slots.

engine/inside/wrap/_bench_log_line.py has the format of the lines, for the side that writes them and for this one.
"""

from __future__ import annotations

import contextlib
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from engine.inside.wrap._bench_log_line import REQUEST_LINE, WORD_LINE
from engine.targets import ANYIO_THREADS

LEAST_HELD_S = 0.002  # handlers that mostly end sooner tell nothing of slots
LAST_LINE_S = 1.0  # how long after the answer its line may come


class LogLine(NamedTuple):
    """One request, as its handler's process saw it."""

    stamp: str
    pid: int
    method: str
    path: str
    status: str
    duration_s: float
    request: str  # the X-Request-Id that came with it
    started_s: float  # perf_counter of the system, comparable between processes
    parts: int = 0  # of its body, each made in one of AnyIO's threads


class AccessLog(NamedTuple):
    lines: list[LogLine]  # of numbered requests, in the order in which their handlers started
    ready: list[int]  # the pids of the workers that said they were ready
    late: int = 0  # of these: after the byte where the requests begin


def request_lines(text: str, starts: bool = False) -> list[LogLine]:
    """The requests of a log, in the order of starting; one without a number (another client's) is left out.

    starts: those whose handlers have started, as a live log says it, without status and duration.

    >>> request_lines("[2026-11-20 17:04:15.123] [pid-7] GET /io 200 1.0012s #3 @5.5")[0].duration_s
    1.0012
    """
    lines = [
        LogLine(m[1], int(m[2]), m[3], m[4], m[5] or "", float(m[6] or 0), m[7], float(m[8] or 0), int(m[9] or 0))
        for m in map(REQUEST_LINE.fullmatch, text.splitlines())
        if m and m[7] != "-" and (m[8] is None) == starts
    ]
    return sorted(lines, key=lambda line: line.started_s)


def ready_workers(text: str) -> list[int]:
    """The pids that said they were ready, less those that forked afterwards: a master with a preloaded app."""
    last_words = {int(pid): word for pid, word, _ in WORD_LINE.findall(text)}
    return [pid for pid, word in last_words.items() if word == "ready"]


def anyio_threads(path: Path) -> int:
    """AnyIO's limit, as the first worker found it when it had started."""
    said = WORD_LINE.findall(text_of(path))
    return next((int(threads) for _, word, threads in said if word == "threads"), ANYIO_THREADS)


def parts_of_body(path: Path) -> int:
    """In how many parts the last body was made, each in one of AnyIO's threads; 0: in none."""
    found = [m for m in map(REQUEST_LINE.fullmatch, text_of(path).splitlines()) if m and m[8]]
    return int(found[-1][9] or 0) if found else 0


def text_of(log: Path, encoding: str = "utf-8") -> str:
    """What a log says; nothing if it has been deleted: the client's figures are there all the same."""
    with contextlib.suppress(FileNotFoundError):
        return log.read_text(encoding, errors="replace")
    return ""


def wait_for_log(path: Path, expected: int, begins: int = 0) -> AccessLog:
    """Read the access log, its requests from byte `begins` on, and wait a moment for the expected number of lines."""
    deadline_s = time.perf_counter() + LAST_LINE_S
    while True:
        text = text_of(path, "latin-1")  # a character is a byte
        lines = request_lines(text[begins:])
        if len(lines) >= expected or time.perf_counter() > deadline_s:
            late = {*ready_workers(text[begins:])} - {*ready_workers(text[:begins])}
            return AccessLog(lines, ready_workers(text), len(late))
        time.sleep(0.02)


def name_workers(log: AccessLog) -> dict[int, str]:
    """worker0, worker1, ... by pid, as a reader of the log meets them; last those without requests."""
    pids = [*(line.pid for line in log.lines), *log.ready]
    return {pid: f"worker{number}" for number, pid in enumerate(dict.fromkeys(pids))}


# ---------------------------------------------------------------- slots, as the log shows them


def slots_seen(lines: Sequence[LogLine]) -> int | None:
    """The most requests that one worker had in its handlers at the same moment; None without any.

    Counted a little after the start of each request, or at its middle: for a few milliseconds one request ends while
    the next begins, and that must not count both.
    """
    begun = [
        (line.pid, line.started_s + max(line.duration_s / 10, min(line.duration_s / 2, BEGINS_S))) for line in lines
    ]
    return max([1, *in_handlers(lines, begun)]) if lines else None


BEGINS_S = 0.01


def slots_held(lines: Sequence[LogLine], sent_s: Sequence[float]) -> int | None:
    """How many requests a worker had in its handlers whenever a request started that had waited; None if that varies.

    sent_s: when each request left, on the clock of the log. A request that waited for a slot starts as another one
    ends, so that all slots are taken. A request that waited for CPU time starts beside any number of others. Handlers
    that end at once tell nothing.
    """
    if not lines or median(line.duration_s for line in lines) < LEAST_HELD_S:
        return None
    waited = [
        (line.pid, line.started_s)
        for line in lines
        if (number := int(line.request)) < len(sent_s) and line.started_s - sent_s[number] > line.duration_s / 2
    ]
    held = Counter(in_handlers(lines, waited))
    ((slots, count),) = held.most_common(1) or [(0, 0)]
    return slots if count >= max(3, 0.8 * len(waited)) else None


def in_handlers(lines: Sequence[LogLine], moments: Sequence[tuple[int, float]]) -> list[int]:
    """How many requests a worker, named by its pid, had in its handlers at each moment.

    As many as had started less those that had ended. Those of workers with lower pids are in both numbers.
    """
    starts = sorted((line.pid, line.started_s) for line in lines)
    ends = sorted((line.pid, line.started_s + line.duration_s) for line in lines)
    return [bisect_right(starts, moment) - bisect_right(ends, moment) for moment in moments]
