"""The times of every request of a run as page.py and trace.py draw them, measured and predicted, and lanes for them.

Pure. Times are seconds since the run began.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from engine.access_log import AccessLog
from engine.plans import forecast_of
from engine.run import Columns, Run

Row = TypeVar("Row")


class Timed(NamedTuple):
    """One request. started_s: its handler; None: not known, or it never started. due_s: in a schedule; its latency
    counts from then."""

    number: int
    sent_s: float
    started_s: float | None
    ended_s: float  # of the handler, where the log says it; else the answer
    answered_s: float  # or when it failed
    worker: str | None = None
    error: str | None = None  # of one that failed
    due_s: float | None = None


def measured_of(run: Run, log: AccessLog | None = None) -> list[Timed]:
    """Every request that was sent and has an end; empty where their times were not kept."""
    columns = run.exchanges
    if not columns:
        return []
    durations_s = {int(line.request): line.duration_s for line in log.lines} if log else {}
    started_of = dict(enumerate(columns.handler_started_s)).get
    worker_of = dict(enumerate(columns.worker)).get
    found = []
    for i, (sent_s, answered_s) in enumerate(zip(columns.started_s, columns.answered_s, strict=True)):
        if sent_s is not None and answered_s is not None:
            times_s = within(sent_s, started_of(i), durations_s.get(i), answered_s)
            due_s = run.plan.load.due_s(i) if run.plan.load.is_scheduled else None
            found.append(Timed(i, sent_s, *times_s, answered_s, worker_of(i), error_of(columns, i), due_s))
    return found


def within(
    sent_s: float, started_s: float | None, duration_s: float | None, answered_s: float
) -> tuple[float | None, float]:
    """Start and end of a handler. Two processes see them: none lies before the request or after its answer."""
    if started_s is None:
        return None, answered_s
    started_s = min(max(started_s, sent_s), answered_s)
    return started_s, answered_s if duration_s is None else min(answered_s, started_s + duration_s)


def error_of(columns: Columns, i: int) -> str | None:
    status = columns.status[i] or 0
    return columns.error[i] or (f"status {status}" if status >= 400 else None)


def predicted_of(run: Run) -> list[Timed]:
    """Every request as it was predicted before the run; empty where slots or wait are not known."""
    forecast = forecast_of(run.plan) if run.prediction.is_known else None
    rows = zip(*forecast, strict=True) if forecast else []
    return [Timed(i, sent_s, started_s, end_s, end_s) for i, (sent_s, started_s, end_s) in enumerate(rows)]


def sampled(rows: Sequence[Row], most: int) -> list[Row]:
    """At most so many, spread evenly over all, with the first and the last.

    >>> sampled(range(9), 3)
    [0, 4, 8]
    """
    if len(rows) <= most:
        return list(rows)
    return [rows[round(k * (len(rows) - 1) / (most - 1))] for k in range(most)]


def lanes_of(spans: Sequence[tuple[float, float]]) -> list[int]:
    """A lane for each span (begin, end), in as few lanes as there are spans at a time; in a lane none overlap.

    >>> lanes_of([(0, 2), (1, 3), (2, 4)])
    [0, 1, 0]
    """
    lanes, free, used = [0] * len(spans), list[int](), list[tuple[float, int]]()
    count = 0
    for i in sorted(range(len(spans)), key=spans.__getitem__):
        begin, end = spans[i]
        while used and used[0][0] <= begin:
            heapq.heappush(free, heapq.heappop(used)[1])
        if not free:
            heapq.heappush(free, count)
            count += 1
        lanes[i] = heapq.heappop(free)
        heapq.heappush(used, (end, lanes[i]))
    return lanes
