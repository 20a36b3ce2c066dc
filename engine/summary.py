"""What the raw times of a run come to: every figure of run.Measured, and the columns of run.Columns.

Statistics are of successes only (2xx and 3xx): a refused or timed-out request says nothing about how long an answer
takes. It is counted by name instead. Everything is pure; times of events are seconds since the run began.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import compress, islice
from statistics import fmean, median
from typing import Any

from engine.client import ERRORS, Exchanges, Outcome, is_success
from engine.kinds import KindMeasured
from engine.loads import Load
from engine.model import Stages
from engine.run import Columns, Level, Measured, Plan, Second
from engine.stats import Statistics, histogram, statistics_of
from engine.until import drift_of, until_of
from engine.workload import drawn

MOST_KINDS = 12  # with figures of their own
SYN_RETRY_S = 0.9  # Linux sends a lost SYN again after 1 s, then 2 and 4 s later (TCP_TIMEOUT_INIT)
DELAYED_ACK_S = (0.038, 0.048)  # Linux holds back an ACK for 40 ms (TCP_DELACK_MIN), and timers come late
REDIRECTS = {301, 302, 303, 307, 308}
GIVEN_UP = {"timed out", "interrupted"}  # by the client
SMALL_BYTES = 16_384  # a body that needs no time by itself

Ends = list[tuple[float, float, int]]  # of each request: its end, when it was due, whether it is good; on the clock


def due_times(load: Load, outcome: Outcome) -> Sequence[float]:
    """When each request should have left; without a schedule, as it did."""
    rows = outcome.exchanges
    if not load.is_scheduled:
        return rows.started_s
    return [outcome.begun_s + load.due_s(number) for number in outcome.numbers or range(len(rows.status))]


def time_under_way(started_s: Sequence[float], answered_s: Sequence[float], end_s: float) -> float:
    """How long requests were under way until then, all added up."""
    return sum(min(b, end_s) - a for a, b in zip(started_s, answered_s, strict=True) if a < end_s)


def errors_of(rows: Exchanges, bad: Sequence[int]) -> Counter[str]:
    """How many requests failed in which way."""
    return Counter(ERRORS[rows.error[i]] or f"HTTP {rows.status[i]}" for i in bad)


def summarise(plan: Plan, outcome: Outcome) -> Measured:
    """Every figure of a run.

    Throughput counts until the last request has ended, or the time limit if that was sooner; of a schedule not before
    it ends, or ten requests at 1/s would be answered at ten in nine seconds; and with the pause of the users after it.
    """
    rows, begun_s, load = outcome.exchanges, outcome.begun_s, plan.load
    started_s, first_byte_s, answered_s = rows.started_s, rows.first_byte_s, rows.answered_s
    good = bytes(map(is_success, rows.status, rows.error))
    bad = [i for i, is_good in enumerate(good) if not is_good]
    sent, answered = len(good), sum(good)
    due_s = due_times(load, outcome)
    ended_s = max(answered_s, default=begun_s) - begun_s
    window_s = min(ended_s if outcome.is_short else load.goes_on_s(ended_s, sent), load.time_limit_s)
    measured_s = ended_s if load.is_scheduled else max(ended_s, window_s)
    in_window = sum(at - begun_s <= window_s for at in compress(answered_s, good))
    under_way_s = time_under_way(started_s, answered_s, begun_s + window_s)

    def spans(begin: Sequence[float], end: Sequence[float]) -> list[float]:
        return [b - a for a, b in compress(zip(begin, end, strict=True), good)]

    connects_s, latencies_s = spans(started_s, connected(plan, rows)), spans(due_s, answered_s)
    # A failed request took at least as long as the client waited for it, and counts as slower than any that was
    # answered. To leave them out flatters an overloaded server: the slowest are the time-outs.
    slowest_s = max(latencies_s, default=0.0)
    at_least_s = [*latencies_s, *(max(answered_s[i] - due_s[i], slowest_s) for i in bad)]
    ends = [*zip(answered_s, due_s, good, strict=True)]
    return Measured(
        sent=sent,
        answered=answered,
        failed=sent - answered,
        errors=errors_of(rows, bad),
        due=sent if outcome.is_short and load.is_scheduled else load.due_in_all,
        measured_s=measured_s,
        window_s=window_s,
        finished_after_limit=answered - in_window,
        throughput_rps=in_window / (window_s or math.inf),
        slow_connects=how_many(connects_s, SYN_RETRY_S),
        late_bodies=late_bodies(spans(first_byte_s, answered_s), sum(compress(rows.body_bytes, good))),
        latency_s=statistics_of(latencies_s),
        at_least_s=statistics_of(at_least_s) if bad else None,
        phases_s=phases(plan, rows, good),
        lag_s=statistics_of(spans(due_s, started_s)) if load.is_scheduled else None,
        histogram=histogram(latencies_s),
        per_second=per_second(ends, begun_s),
        levels=levels(ends, begun_s, begun_s + window_s, getattr(load, "stages", ())),
        kinds=of_kinds(plan, ends, outcome.numbers),
        mean_in_flight=under_way_s / (window_s or math.inf),
        created=rows.status.count(201),
        redirected=sum(one in REDIRECTS for one in rows.status),
        unended=unended(rows),
        never_answered=never_answered(rows, slowest_s),
        body_bytes=sum(compress(rows.body_bytes, good)),
        sockets_opened=outcome.sockets_opened,
        client_cpu_s=outcome.client_cpu_s,
        client_spun_s=outcome.spun_s,
        kernel=outcome.kernel,
        stopped=outcome.stopped,
        server_cpu_s=outcome.server_cpu_s,
        other_cpu_s=other_cpu_s(outcome, measured_s, plan.all_cpus),
        sockets_resent=outcome.sockets_resent,
        client_stalled_s=outcome.stalled_s,
        last_answer_s=max(compress(answered_s, good), default=math.nan) - begun_s if answered else None,
        **in_their_order(plan, latencies_s, spans(due_s, started_s), bool(outcome.stopped)),
    )


def phases(plan: Plan, rows: Exchanges, good: bytes) -> dict[str, Statistics | None]:
    """The parts of an answer's time; good: which requests were answered."""
    connected_s = connected(plan, rows)

    def spent(begin: Sequence[float], end: Sequence[float]) -> Statistics | None:
        return statistics_of([b - a for a, b in compress(zip(begin, end, strict=True), good)])

    return {
        "connect": spent(rows.started_s, connected_s),
        "tls": spent(connected_s, rows.sent_s) if plan.tls else None,
        "waiting": spent(rows.sent_s, rows.first_byte_s),
        "processing": spent(rows.sent_s, rows.answered_s),
        "receiving": spent(rows.first_byte_s, rows.answered_s),
        "total": spent(rows.started_s, rows.answered_s),
    }


def connected(plan: Plan, rows: Exchanges) -> Sequence[float]:
    """When each request had a connection, over TLS before the handshake; on a kept one: when it was sent."""
    if not plan.tls:
        return rows.sent_s
    return [at_s or sent_s for at_s, sent_s in zip(rows.connected_s, rows.sent_s, strict=True)]


def other_cpu_s(outcome: Outcome, measured_s: float, all_cpus: int) -> float | None:
    """CPU seconds of other programs in the measured time, which is a part of the time that they were counted in."""
    if outcome.other_cpu_s is None:
        return None
    share = outcome.other_cpu_s / (all_cpus * outcome.counted_s or math.inf)
    return min(1.0, share) * all_cpus * measured_s


def in_their_order(
    plan: Plan, latencies_s: Sequence[float], lags_s: Sequence[float], is_stopped: bool
) -> dict[str, Any]:
    """What latencies say in the order in which they were due: drift, and how exactly a figure is known."""
    # Users get out of step by and by, which moves the median, but not the mean.
    middle = median if plan.load.is_scheduled else fmean
    goes_on = plan.load.is_scheduled or plan.load.steady_count  # latency follows the users of a ramp
    first = 0 if plan.load.is_scheduled else plan.load.steady_count or 0  # of each user: they are a burst
    drift = drift_of(latencies_s[first:], middle) if goes_on and plan.load.is_steady else None
    late = is_late(lags_s, latencies_s)
    until = until_of(plan.until, latencies_s, late, bool(drift), is_stopped) if plan.until else None
    return {"drift": drift, "until": until}


def is_late(lags_s: Sequence[float], latencies_s: Sequence[float]) -> bool:
    """Whether requests left so late that latency is no longer the server's."""
    lags = sorted(lags_s) or [0.0]
    return lags[len(lags) * 99 // 100] > 0.2 * max(latencies_s, default=0.0)


def unended(rows: Exchanges) -> int:
    """How many answers had begun when the time was over."""
    late = ERRORS.index("timed out")
    return sum(error == late and at_s > 0 for error, at_s in zip(rows.error, rows.first_byte_s, strict=True))


def never_answered(rows: Exchanges, slowest_s: float) -> int:
    """How many connections were given up without any answer, after three times as long as the slowest answer took.

    Only the first request of a connection has a time of sending, unless it was answered: see Exchanges.finish().
    """
    columns = zip(rows.started_s, rows.sent_s, rows.first_byte_s, rows.answered_s, rows.error, strict=True)
    return sum(
        ERRORS[error] in GIVEN_UP and sent_s > 0 and not first_s > 0 and end_s - begin_s > 3 * slowest_s
        for begin_s, sent_s, first_s, end_s, error in columns
    )


def how_many(spans_s: Sequence[float], low_s: float, high_s: float = math.inf) -> int:
    """How many lie between two times."""
    return sum(low_s < span_s < high_s for span_s in spans_s)


def late_bodies(spans_s: Sequence[float], body_bytes: int) -> int:
    """How many small bodies ended as long after their first byte as Linux holds back an ACK."""
    is_small = body_bytes < SMALL_BYTES * len(spans_s)
    return how_many(spans_s, *DELAYED_ACK_S) if is_small else 0


def per_second(ends: Ends, begun_s: float) -> list[Second]:
    """For each second of the run: answers, failures, and the mean latency (of a schedule: from due) of the answers in
    it. A second in which nothing ended is there too: that is what a stall looks like."""
    counts, sums_s = Counter[tuple[int, int]](), defaultdict[int, float](float)
    for end, due, is_good in ends:
        second = int(end - begun_s)
        counts[second, is_good] += 1
        sums_s[second] += is_good * (end - due)
    return [
        Second(i, counts[i, 1], counts[i, 0], sums_s[i] / (counts[i, 1] or 1))
        for i in range(max(sums_s, default=-1) + 1)
    ]


def levels(ends: Ends, begun_s: float, over_s: float, stages: Stages) -> list[Level]:
    """For each stage of a ramp that began before the run was over, of what was answered during it (the last one: or
    after it): counts, rate, latency."""
    found, end_s = [], begun_s
    for number, (stage_s, users) in enumerate(stages, 1):
        begin_s, end_s = end_s, end_s + stage_s
        if begin_s >= over_s:  # it did not begin
            break
        until_s = end_s if number < len(stages) and end_s < over_s else math.inf
        of_stage = [one for one in ends if begin_s <= one[0] < until_s]
        latencies_s = [end - due for end, due, is_good in of_stage if is_good]
        rate_rps = sum(is_good and end < end_s for end, _, is_good in of_stage) / (min(end_s, over_s) - begin_s)
        failed = len(of_stage) - len(latencies_s)
        found.append(Level(users, len(latencies_s), failed, rate_rps, statistics_of(latencies_s)))
    return found


def of_kinds(plan: Plan, ends: Ends, numbers: Sequence[int]) -> list[KindMeasured]:
    """The figures of each kind in a mix; of many the most frequent ones, and the rest together.

    numbers: of the requests in the run; empty: as they stand.
    """
    if not plan.kinds:
        return []
    kind_of = list(islice(drawn(plan), 1 + max(numbers, default=len(ends) - 1)))
    shown = MOST_KINDS - (len(plan.kinds) > MOST_KINDS)
    names = [kind.name or f"{kind.method} {kind.path}" for kind in plan.kinds[:shown]]
    groups: list[Ends] = [[] for _ in names]
    if len(plan.kinds) > shown:
        names, groups = [*names, f"{len(plan.kinds) - shown} others"], [*groups, []]
    for number, end in zip(numbers or range(len(ends)), ends, strict=True):
        groups[min(kind_of[number], shown)].append(end)
    return list(map(of_kind, names, groups))


def of_kind(name: str, ends: Ends) -> KindMeasured:
    latencies_s = [end - due for end, due, is_good in ends if is_good]
    answered = len(latencies_s)
    return KindMeasured(name, len(ends), answered, len(ends) - answered, statistics_of(latencies_s))


def columns_of(
    outcome: Outcome,
    workers: Sequence[str | None],
    handler_started_s: Sequence[float | None],
    predicted_answered_s: Sequence[float],
) -> Columns:
    """The raw times of every request. Given are: the worker of each request, when its handler started (on the client's
    clock), and when it should have been answered (since the run began); empty: not known."""
    rows, sent = outcome.exchanges, len(outcome.exchanges.status)

    def since(times_s: Sequence[float | None]) -> list[float | None]:
        return [round(at - outcome.begun_s, 6) if at else None for at in times_s]

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
        [*predicted_answered_s, *[None] * sent][:sent] if predicted_answered_s else (),
    )
