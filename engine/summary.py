"""What the raw times of a run come to: every figure of run.Measured, and the columns of run.Columns.

Statistics are of successes only (2xx): a refused or timed-out request says nothing about how long an answer takes. It
is counted by name instead. Everything is pure; times of events are seconds since the run began.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from engine.client import ERRORS, Exchanges, Outcome, is_success
from engine.loads import Load, Open, Ramp
from engine.model import Stages
from engine.run import Columns, Level, Measured, Plan, Second
from engine.stats import Statistics, histogram, statistics_of

SYN_RETRY_S = 0.9  # Linux sends a lost SYN again after 1 s, then 2 and 4 s later (TCP_TIMEOUT_INIT)
DELAYED_ACK_S = (0.035, 0.1)  # Linux holds back an ACK for 40 ms (TCP_DELACK_MIN), and timers come late


def summarise(
    plan: Plan, outcome: Outcome, *, warmed_up: int = 0, created_before: int = 0, lone_s: float | None = None
) -> Measured:
    """Every figure of a run. created_before: answers with 201 before the run.

    Throughput counts until the last answer, or the time limit if that was sooner; of a schedule not before it ends, or
    ten requests at 1/s would be answered at ten in nine seconds.
    """
    rows, begun_s, load, due_s = outcome.exchanges, outcome.begun_s, plan.load, due_times(plan.load, outcome)
    started_s, sent_s, first_byte_s, answered_s = rows.started_s, rows.sent_s, rows.first_byte_s, rows.answered_s
    good = bytes(map(is_success, rows.status, rows.error))
    sent, answered = len(good), sum(good)
    measured_s = max(answered_s, default=begun_s) - begun_s
    window_s = measured_s
    if isinstance(load, Open) and not outcome.stopped:
        window_s = max(measured_s, load.requests / load.rate_rps)
    window_s = min(window_s, load.time_limit_s)
    end_s = begun_s + window_s
    in_window = sum(at - begun_s <= window_s for at in itertools.compress(answered_s, good))
    under_way_s = sum(min(b, end_s) - a for a, b in zip(started_s, answered_s, strict=True) if a < end_s)

    def spans(begin: Sequence[float], end: Sequence[float]) -> list[float]:
        return [b - a for a, b in itertools.compress(zip(begin, end, strict=True), good)]

    connects_s, waits_s, latencies_s = spans(started_s, sent_s), spans(sent_s, first_byte_s), spans(due_s, answered_s)
    bodies_s = spans(first_byte_s, answered_s)
    return Measured(
        sent=sent,
        answered=answered,
        failed=sent - answered,
        errors=failures(rows),
        due=sent if outcome.stopped and load.is_scheduled else load.due_in_all,
        measured_s=round(measured_s, 6),
        window_s=round(window_s, 6),
        finished_after_limit=answered - in_window,
        throughput_rps=in_window / window_s if window_s else 0.0,
        slow_connects=sum(connect_s > SYN_RETRY_S for connect_s in connects_s),
        slow_waits=slow_waits(connects_s, waits_s),
        late_bodies=sum(DELAYED_ACK_S[0] < body_s < DELAYED_ACK_S[1] for body_s in bodies_s),
        latency_s=statistics_of(latencies_s),
        at_least_s=at_least(due_s, answered_s, good) if answered < sent else None,
        phases_s={
            "connect": statistics_of(connects_s),
            "waiting": statistics_of(waits_s),
            "processing": statistics_of(spans(sent_s, answered_s)),
            "total": statistics_of(spans(started_s, answered_s)),
        },
        lag_s=statistics_of(spans(due_s, started_s)) if load.is_scheduled else None,
        histogram=histogram(latencies_s),
        per_second=per_second(answered_s, due_s, good, begun_s),
        levels=levels(rows, good, begun_s, load.stages) if isinstance(load, Ramp) else [],
        mean_in_flight=under_way_s / (window_s or math.nan),
        created=rows.status.count(201) + created_before,
        body_bytes=sum(itertools.compress(rows.body_bytes, good)),
        sockets_opened=outcome.sockets_opened,
        client_cpu_s=round(outcome.client_cpu_s, 6),
        client_spun_s=round(outcome.spun_s, 6),
        kernel=outcome.kernel,
        stopped=outcome.stopped,
        warmed_up=warmed_up,
        lone_s=lone_s,
        server_cpu_s=outcome.server_cpu_s,
        other_cpu_s=outcome.other_cpu_s,
    )


def due_times(load: Load, outcome: Outcome) -> Sequence[float]:
    """When each request should have left, on the client's clock: when it was due, or without a schedule as it did."""
    started_s = outcome.exchanges.started_s
    if not load.is_scheduled:
        return started_s
    return [outcome.begun_s + load.due_s(number) for number in outcome.numbers or range(len(started_s))]


def failures(rows: Exchanges) -> dict[str, int]:
    """How many requests failed, by the name of the failure."""
    ends = zip(rows.status, rows.error, strict=True)
    return Counter(ERRORS[error] or f"HTTP {status}" for status, error in ends if not is_success(status, error))


def at_least(due_s: Sequence[float], answered_s: Sequence[float], good: bytes) -> Statistics | None:
    """Latency with the failed requests in it: each took at least as long as the client waited for it, and counts as
    slower than any that was answered. To leave them out flatters an overloaded server: the slowest are the time-outs.
    """
    spans_s = [end - due for due, end in zip(due_s, answered_s, strict=True)]
    slowest_s = max(itertools.compress(spans_s, good), default=0.0)
    return statistics_of([s if is_good else max(s, slowest_s) for s, is_good in zip(spans_s, good, strict=True)])


def slow_waits(connects_s: Sequence[float], waits_s: Sequence[float]) -> int:
    """How many first requests of a connection waited longer than the fastest by more than TCP's first retry.

    Where the listen queue had no room, the connect often succeeds, and the wait shows before the first byte. On a
    kept connection there is no connect: 0.0.
    """
    firsts_s = [wait_s for connect_s, wait_s in zip(connects_s, waits_s, strict=True) if connect_s]
    late_s = min(firsts_s, default=0.0) + SYN_RETRY_S
    return sum(wait_s > late_s for wait_s in firsts_s)


def per_second(answered_s: Sequence[float], due_s: Sequence[float], good: bytes, begun_s: float) -> list[Second]:
    """For each second of the run: answers, failures, and the mean latency (of a schedule: from due) of the answers in
    it. A second in which nothing ended is there too: that is what a stall looks like."""
    ends = Counter[int](), Counter[int]()
    sums_s: dict[int, float] = defaultdict(float)
    for end, due, is_good in zip(answered_s, due_s, good, strict=True):
        second = int(end - begun_s)
        ends[is_good][second] += 1
        sums_s[second] += is_good * (end - due)
    failed, answered = ends
    return [
        Second(i, answered[i], failed[i], round(sums_s[i] / (answered[i] or 1), 6))
        for i in range(max(sums_s, default=-1) + 1)
    ]


def levels(rows: Exchanges, good: bytes, begun_s: float, stages: Stages) -> list[Level]:
    """For each stage of a ramp, of what was answered during it (the last one: or after it): counts, rate, latency."""
    ends_s, answered_s = list(itertools.accumulate((s for s, _ in stages), initial=begun_s))[1:], rows.answered_s
    found = []
    for number, (stage_s, users) in enumerate(stages):
        of_stage = [i for i, at in enumerate(answered_s) if bisect.bisect(ends_s[:-1], at) == number]
        latencies_s = [answered_s[i] - rows.started_s[i] for i in of_stage if good[i]]
        in_time = sum(answered_s[i] < ends_s[number] for i in of_stage if good[i])
        n = len(latencies_s)
        found.append(Level(users, n, len(of_stage) - n, in_time / stage_s, statistics_of(latencies_s)))
    return found


def columns_of(
    outcome: Outcome,
    workers: Sequence[str | None],
    handler_started_s: Sequence[float | None],
    predicted_answered_s: Sequence[float],
) -> Columns:
    """The raw times of every request. Given are: the worker of each request, when its handler started (on the client's
    clock), and when it should have been answered (since the run began); empty: not known."""
    rows, begun_s = outcome.exchanges, outcome.begun_s

    def since(times_s: Sequence[float | None]) -> list[float | None]:
        return [round(at - begun_s, 6) if at else None for at in times_s]

    sent = len(rows.status) if predicted_answered_s else 0
    predicted = [round(at, 6) for at in predicted_answered_s[:sent]]
    return Columns(
        since(rows.started_s),
        since(rows.sent_s),
        since(rows.first_byte_s),
        since(rows.answered_s),
        [status or None for status in rows.status],
        [ERRORS[error] or None for error in rows.error],
        rows.body_bytes,
        workers,
        since(handler_started_s),
        [*predicted, *[None] * (sent - len(predicted))],
    )
