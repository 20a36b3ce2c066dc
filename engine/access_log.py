"""Read the access log of a run: its lines, its workers, and what they say of the slots.

engine/inside/wrap/_bench_log_line.py has the format of the lines, for the side that writes them and for this one.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from engine.inside.wrap._bench_log_line import REQUEST_LINE, START_LINE, WORD_LINE
from engine.targets import ANYIO_THREADS

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


class AccessLog(NamedTuple):
    lines: list[LogLine]  # of numbered requests, in the order in which their handlers started
    ready: list[int]  # the pids of the workers that said they were ready


def parse_access_log(text: str) -> AccessLog:
    """Its requests and its workers; a request without a number (a warm-up, another client's) is left out.

    >>> parse_access_log("[2026-11-20 17:04:15.123] [pid-7] GET /io 200 1.0012s #3 @5.5").lines[0].duration_s
    1.0012
    """
    lines = (
        LogLine(m[1], int(m[2]), m[3], m[4], m[5], float(m[6]), m[7], float(m[8]))
        for m in map(REQUEST_LINE.fullmatch, text.splitlines())
        if m and m["request"].isdigit()
    )
    return AccessLog(sorted(lines, key=lambda line: line.started_s), ready_workers(text))


def started_lines(text: str) -> list[LogLine]:
    """The numbered requests whose handlers have started, as a live log says it: without status and duration."""
    found = map(START_LINE.fullmatch, text.splitlines())
    return [LogLine(m[1], int(m[2]), m[3], m[4], "", 0.0, m[5], 0.0) for m in found if m]


def ready_workers(text: str) -> list[int]:
    """The pids that said they were ready, less those that forked afterwards: a master with a preloaded app."""
    said = WORD_LINE.findall(text)
    masters = {pid for pid, word, _ in said if word == "forks"}
    return [int(pid) for pid, word, _ in said if word == "ready" and pid not in masters]


def anyio_threads(path: Path) -> int:
    """AnyIO's limit, as the first worker found it when it had started."""
    said = WORD_LINE.findall(path.read_text(errors="replace"))
    return next((int(threads) for _, word, threads in said if word == "threads"), ANYIO_THREADS)


def wait_for_log(path: Path, expected: int, begins: int = 0) -> AccessLog:
    """Read the access log, its requests from byte `begins` on, and wait a moment for the expected number of lines."""
    deadline_s = time.perf_counter() + LAST_LINE_S
    while True:
        text = path.read_bytes()
        log = parse_access_log(text[begins:].decode(errors="replace"))
        if len(log.lines) >= expected or time.perf_counter() > deadline_s:
            return log._replace(ready=ready_workers(text.decode(errors="replace")))
        time.sleep(0.02)


def name_workers(log: AccessLog) -> dict[int, str]:
    """worker0, worker1, ... by pid, as a reader of the log meets them; last those without requests."""
    pids = dict.fromkeys([*(line.pid for line in log.lines), *log.ready])
    return {pid: f"worker{number}" for number, pid in enumerate(pids)}


# ---------------------------------------------------------------- slots, as the log shows them


def slots_seen(lines: Sequence[LogLine]) -> int | None:
    """The most requests that one worker had in its handlers at the same moment; None without any.

    Counted at the middle of each request: for a few milliseconds one request ends while the next begins, and that must
    not count both.
    """
    times = times_of_workers(lines)
    middles = ((line.pid, line.started_s + line.duration_s / 2) for line in lines)
    seen = (bisect_right(times[pid][0], at_s) - bisect_left(times[pid][1], at_s) for pid, at_s in middles)
    return max(seen, default=None)


def slots_held(lines: Sequence[LogLine], sent_s: Sequence[float]) -> int | None:
    """How many requests a worker had in its handlers whenever a request started that had waited; None if that varies.

    sent_s: when each request left, on the clock of the log. A request that waited for a slot starts as another one
    ends, so that all slots are taken. A request that waited for CPU time starts beside any number of others.
    """
    times, held = times_of_workers(lines), Counter[int]()
    for line in lines:
        number = int(line.request)
        if number < len(sent_s) and line.started_s - sent_s[number] > line.duration_s / 2:
            starts_s, ends_s = times[line.pid]
            held[bisect_right(starts_s, line.started_s) - bisect_right(ends_s, line.started_s)] += 1
    ((slots, count),) = held.most_common(1) or [(0, 0)]
    return slots if count >= 3 and count >= 0.8 * held.total() else None


def times_of_workers(lines: Sequence[LogLine]) -> dict[int, tuple[list[float], list[float]]]:
    """By the pid of each worker: when its requests started, and when they ended, both sorted."""
    workers: dict[int, tuple[list[float], list[float]]] = {}
    for line in lines:
        starts_s, ends_s = workers.setdefault(line.pid, ([], []))
        insort(starts_s, line.started_s)
        insort(ends_s, line.started_s + line.duration_s)
    return workers
