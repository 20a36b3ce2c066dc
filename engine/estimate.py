"""How many requests did a server work on at a time?  Read from the answers alone, for servers that nothing else tells.

Three judges: rounds (at S slots all requests held one for the same time, at any other number some did not), throughput
x wait (S = X t, Little's law), and "every request was answered like a lone one". What they cannot tell is unknown, with
the reason as a key of DOUBTS. A number is certain only if rounds and throughput show the same one for three rounds,
beside lone requests that are alike, and nothing speaks against it. Pure: the same answers give the same estimate.
"""

from __future__ import annotations

import itertools
import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import NamedTuple

from engine.limits import suspects
from engine.run import Columns, Estimate, Facts, Measured, Seen, Stall
from engine.targets import ANYIO_THREADS

MOST_ESTIMATED = 20_000  # answers that are looked at: some seconds
SHOWN_ROUNDS = 6
DOUBTS = (  # why a number is not certain, or why there is none; report.py has a text for each
    # There is no number.
    "failures",  # and not all of them after one time-out
    "few-answers",
    "no-lone-request",
    "short-wait",  # a lone request takes less than 5 ms: too short to tell waiting from CPU
    "unlike-lone-requests",  # they took such different times that none can be compared with them
    "cpu",  # the server's CPUs were busy most of the time
    "held-back",  # even the first answer was late: two passes through the slots, a blocked loop, or shared CPU
    "flowing",  # the first round is much smaller than throughput x wait: CPU, a lock, or a limit for part of a request
    "less-than-one-slot",  # a rate limit, or lone requests that were slower than the others
    "busy-machine",  # other programs had the CPUs
    # There is one, or a least one.
    "fewer-than-three-rounds",
    "uneven-processes",  # no multiple of the processes, smaller last rounds, or users that may be split unevenly
    "rounds-and-throughput-disagree",
    "no-clear-rounds",
)


def estimate(
    at_once: int,
    sent_s: Sequence[float],
    answered_s: Sequence[float],
    *,
    lone_s: Sequence[float] = (),
    failed_after_s: Sequence[float] = (),
    processes: int | None = None,
    cpu_s: float | None = None,
) -> Estimate:
    """How many requests the server worked on at a time. The first judge that knows its case decides.

    at_once: requests of the burst, or users of the closed loop. sent_s and answered_s: of each request that succeeded.
    lone_s: how long lone requests took. failed_after_s: how long after sending each of the others failed. processes:
    of the server. cpu_s: CPU seconds of the server for one request. None: not known.

    >>> estimate(7, [0.0] * 7, [1, 1, 2, 2, 3, 3, 4], lone_s=[1.0, 1.0]).slots
    2
    """
    begin_s = min(sent_s, default=0.0)
    sent, answered = (sorted(at - begin_s for at in times) for times in (sent_s, answered_s))
    wait_s, failed = fmean(lone_s) if lone_s else math.nan, sorted(failed_after_s)
    jitter = stdev(lone_s) / wait_s if len(lone_s) > 1 else 0.1
    found = Estimate(Seen.UNKNOWN, None, 1, None, processes, rounds=rounds_of(answered, 0.3 * wait_s), alone_s=wait_s)
    reasons = {
        "failures": failed and not is_time_out(failed, answered, wait_s),
        "few-answers": len(answered) < 4,
        "no-lone-request": not lone_s,
        "short-wait": wait_s < 0.005,
        "unlike-lone-requests": jitter > 0.5,
        "cpu": (cpu_s or 0.0) * len(answered) / (processes or 1) > 0.7 * max(answered, default=0.0),
    }
    if doubt := next((reason for reason, is_true in reasons.items() if is_true), None):
        return replace(found, doubt=doubt, alone_s=wait_s if lone_s else None)
    latencies = sorted(end - begin for begin, end in zip(sent_s, answered_s, strict=True))
    return first_judge(
        found, at_once, sent, answered, latencies, jitter, 3 * max(jitter, 0.005) / math.sqrt(len(lone_s))
    )


def first_judge(
    found: Estimate, at_once: int, sent: list[float], answered: list[float], latencies: list[float], jitter: float,
    error: float,
) -> Estimate:  # fmt: skip
    """What the first judge says that knows the case. The times are sorted, each by itself; in seconds.

    jitter: standard deviation over mean of the lone waits. error: relative, of their mean, three standard errors.
    """
    wait_s = found.alone_s or math.nan
    usual_s = wait_s * (1 + error) + 0.003
    if fmean(latencies) <= 1.15 * usual_s and latencies[-1] <= usual_s * (1 + max(0.35, 4 * jitter)):
        # A limit, if there is one, is not below what was under way; what is beyond the wait was spent in a queue.
        under_way = max(k + 1 - bisect_right(answered, at_s) for k, at_s in enumerate(sent))
        slow_s = latencies[95 * len(latencies) // 100]
        low = int(min(at_once, under_way) * min(1.0, (1.05 * wait_s + 0.003) / slow_s))
        return replace(found, seen=Seen.NONE, low=max(1, low))
    if answered[0] > 1.4 * usual_s:
        return replace(found, doubt="held-back")
    late_s = max(0.0, answered[0] - wait_s)  # it accepts all requests before it serves the first
    sent = [max(at_s, late_s) for at_s in sent]
    work = work_of(sent, answered, wait_s, error + 2 * jitter / math.sqrt(len(answered)))
    first = bisect_right(answered, sent[0] + 1.3 * wait_s)  # requests of the first round
    return by_rounds(found, at_once, sent, answered, work) or by_throughput(found, at_once, len(answered), first, work)


def is_time_out(failed: Sequence[float], answered: Sequence[float], wait_s: float) -> bool:
    """Whether all failures came after the same time, and no answer came long after that."""
    limit_s = failed[0]
    steady = 2 * wait_s <= limit_s and failed[-1] <= 1.15 * limit_s
    return steady and bool(answered) and answered[0] <= 0.9 * limit_s and answered[-1] <= limit_s + 1.5 * wait_s


# ---------------------------------------------------------------- the judges


def by_rounds(
    found: Estimate, at_once: int, sent: Sequence[float], answered: Sequence[float], work: Work
) -> Estimate | None:
    """Rounds of one size, as throughput x wait has it too; None if there are none."""
    n, processes = len(answered), found.processes or 1
    fit = fitting(sent, answered, min(n // 2, at_once - max(1, at_once // 10)))
    if not fit or fit.spread > 0.13 or not fit.is_clear:
        return None
    slots = fit.slots
    each = slots // processes if found.processes and slots % processes == 0 else None
    found = replace(
        found, seen=Seen.SLOTS, slots=slots, low=slots, each=each, held_s=fit.held_s, by_throughput=work.slots
    )
    if not work.least <= slots <= work.most:
        low, high = min(slots, work.slots), max(slots, work.slots)
        return replace(found, low=low, high=high, doubt="rounds-and-throughput-disagree")
    is_burst, rounds = sent[-1] - sent[0] < fit.held_s, math.ceil(n / slots)
    last_s = sent[0] + fit.held_s * (rounds + 3 * fit.spread * math.sqrt(rounds) + 0.5)
    even = answered[-1] <= last_s if is_burst else found.processes == 1
    if n < 3 * slots:
        return replace(found, doubt="fewer-than-three-rounds")
    if slots % processes or not even:
        return replace(found, doubt="uneven-processes")
    return replace(found, high=slots)


def by_throughput(found: Estimate, at_once: int, answers: int, first: int, work: Work) -> Estimate:
    """Throughput x wait: all that is left if there are no clear rounds. Never certain. first: of the first round."""
    if work.most == 1 or first < 0.6 * work.least:
        return replace(found, doubt="less-than-one-slot" if work.most == 1 else "flowing")
    found = replace(found, low=max(1, min(work.least, first)))
    if work.slots > answers / 3 or work.most >= at_once:
        return replace(found, doubt="fewer-than-three-rounds")
    found = replace(found, seen=Seen.SLOTS, by_throughput=work.slots)
    if found.processes != 1:  # one of them may have had little to do
        return replace(found, doubt="uneven-processes")
    return replace(found, slots=work.slots, high=work.most, doubt="no-clear-rounds")


# ---------------------------------------------------------------- arithmetic of rounds


def rounds_of(answered: Sequence[float], gap_s: float) -> tuple[tuple[int, float], ...]:
    """Answer times, sorted, cut where nothing came for `gap_s`: of each of the first rounds its answers and mean time.

    >>> rounds_of([1.0, 1.0, 2.0], 0.3)
    ((2, 1.0), (1, 2.0))
    """
    cuts = [i for i in range(1, len(answered)) if answered[i] - answered[i - 1] > gap_s]
    edges = [0, *cuts, len(answered)] if answered else []
    return tuple(
        (end - begin, fmean(answered[begin:end])) for begin, end in itertools.pairwise(edges[: SHOWN_ROUNDS + 1])
    )


def holds(sent: Sequence[float], answered: Sequence[float], slots: int, first: int) -> list[float]:
    """How long each of the first answers held a slot, if there were so many slots: the model's recursion, backwards.

    sent, answered: seconds, each sorted by itself. With S slots, the k-th start is the later of the k-th request and
    the (k-S)-th answer. Sorted so, it does not matter in which order a pool serves. With too few slots some seem to
    hold one for no time, with too many for two times as long.

    >>> holds([0, 0, 0, 0], [1, 1, 2, 2], 2, 4), holds([0, 0, 0, 0], [1, 1, 2, 2], 1, 4)
    ([1, 1, 1, 1], [1, 0, 1, 0])
    """
    return [answered[k] - (max(sent[k], answered[k - slots]) if k >= slots else sent[k]) for k in range(first)]


class Fit(NamedTuple):
    slots: int  # with it all requests held a slot for the most equal time
    held_s: float
    spread: float  # standard deviation of the holding times over their mean
    is_clear: bool  # no other number explains the answers nearly as well


def fitting(sent: Sequence[float], answered: Sequence[float], most: int) -> Fit | None:
    """Try each number of slots up to `most` on the first three rounds that it would make; None if there is none."""
    tried: list[tuple[float, int, float]] = []
    for slots in range(1, most + 1):
        held = holds(sent, answered, slots, min(len(answered), max(3 * slots, 12)))
        mean_s = max(fmean(held), 1e-9)
        deviation_s = math.dist(held, [mean_s] * len(held)) / math.sqrt(len(held))  # pstdev is exact, and slow
        tried.append((deviation_s / mean_s, slots, mean_s))
    tried.sort()
    if not tried:
        return None
    spread, slots, held_s = tried[0]
    return Fit(slots, held_s, spread, len(tried) == 1 or tried[1][0] > 1.5 * spread + 0.005)


class Work(NamedTuple):
    """Throughput x wait without its edges: with so many slots the mean request held one for as long as a lone request
    takes. In the saturated middle this is Little's law, S = X t."""

    slots: int
    least: int
    most: int  # 1: even one slot would have been idle


def work_of(sent: Sequence[float], answered: Sequence[float], wait_s: float, error: float) -> Work:
    """error: relative, of wait_s. The most leaves room for the time in which a request is begun or ended, and its slot
    does not wait: busy servers seem to have fewer slots.

    >>> work_of([0.0] * 6, [1.0, 1.0, 2.0, 2.0, 3.0, 3.0], 1.0, 0.0)
    Work(slots=2, least=2, most=3)
    """
    n = len(answered)

    def slots_for(held_s: float) -> int:
        return 1 + bisect_left(range(1, n), held_s, key=lambda slots: fmean(holds(sent, answered, slots, n)))

    least = slots_for(wait_s * (0.96 - error))
    most = slots_for(wait_s * (1.04 + error) + 0.003 + 0.0005 * least)
    return Work(slots_for(0.98 * wait_s), least, most)


# ---------------------------------------------------------------- of a run


def estimate_of(
    facts: Facts, columns: Columns, lone_s: Sequence[float], installed: Collection[str] | None = None
) -> Estimate | None:
    """The slots from the answers of a run, and the limits that may be behind them.

    columns: the times of its requests. lone_s: latencies of lone requests before it. installed: distributions that
    the service has; None: not known. None for a load without a steady number of requests, and of a run that was
    stopped or is too large.
    """
    plan, measured, launch = facts.plan, facts.measured, facts.plan.launch
    count = plan.load.steady_count
    if not count or not 0 < measured.sent <= MOST_ESTIMATED or measured.stopped:
        return None
    ended = ends_of(columns)
    sent, answered = ([row[column] for row in ended if row[2]] for column in (0, 1))
    failed_after_s = [end - begin for begin, end, is_good in ended if not is_good]
    found = estimate(
        count, sent, answered, lone_s=lone_s, failed_after_s=failed_after_s,
        processes=launch.workers if launch else None, cpu_s=(measured.server_cpu_s or 0.0) / max(1, len(sent)),
    )  # fmt: skip
    if taken_by_others(measured, plan.all_cpus) > 0.3:
        return replace(found, low=1, high=None, doubt="busy-machine")
    found = with_suspects(found, facts, installed, failed_after_s)
    return replace(found, stall=stall_of(facts, ended))


def ends_of(columns: Columns) -> list[tuple[float, float, bool]]:
    """Of each request when it began, when it ended, and whether it succeeded."""
    times = zip(columns.started_s, columns.answered_s, columns.status, strict=True)
    return [(begin or 0.0, end or 0.0, 200 <= (status or 0) < 300) for begin, end, status in times]


def with_suspects(
    found: Estimate, facts: Facts, installed: Collection[str] | None, failed_after_s: Sequence[float] = ()
) -> Estimate:
    """The estimate with the limits that may be behind it; none where other programs have blurred the times."""
    plan, measured, launch = facts.plan, facts.measured, facts.plan.launch
    if found.doubt == "busy-machine":
        return found
    server = handler = ""
    if launch:
        server, handler = launch.server, (launch.handler or "".join(launch.handlers[:1])).partition(" ")[0]
    likely = suspects(
        found, measured.sent, measured.lone_s or plan.wait_s or 0.0, plan.all_cpus,
        installed=installed if launch else None, server=server, handler=handler, failed_after_s=failed_after_s,
        settings_allow=plan.slots or math.inf,
    )  # fmt: skip
    return replace(found, suspects=likely)


def taken_by_others(measured: Measured, all_cpus: int) -> float:
    """The share of all CPUs, 0 to 1, that other programs used during the run; 0 where that is not known."""
    share = (measured.other_cpu_s or 0.0) / (all_cpus * measured.measured_s or math.inf)
    return min(1.0, max(0.0, share))


POOL_SAYS = re.compile(r"QueuePool limit of size (\d+) overflow (\d+) reached.*timeout ([\d.]+)")


def stall_of(facts: Facts, ended: Sequence[tuple[float, float, bool]]) -> Stall | None:
    """A silence, although requests waited, until some of them failed; None: no such time.

    A pool that serves others while some wait in vain has answers all the time. Two pools that wait for each other
    (AnyIO's threads and SQLAlchemy's connections, of FastAPI's `def` handlers with a session as dependency) have
    none until a time-out frees one. ended: when each request began and ended, in seconds, and whether it succeeded.
    Source: fastapi/routing.py serialize_response(), sqlalchemy/pool/impl.py.
    """
    measured = facts.measured
    if facts.plan.load.steady_count != measured.sent or not (measured.failed and measured.lone_s):
        return None
    times = sorted([0.0, *(end for _, end, _ in ended)])
    gap_s, from_s = max((after - before, before) for before, after in itertools.pairwise(times))
    until_s = from_s + gap_s
    frees = any(-0.001 <= end - until_s <= 0.1 * until_s for _, end, is_good in ended if not is_good)
    if not frees or gap_s <= max(10 * measured.lone_s, 0.5):
        return None
    return with_pools(Stall(from_s, until_s), facts)


def with_pools(stall: Stall, facts: Facts) -> Stall:
    """The stall with the sizes of the two pools, where the app may have them and its log names one."""
    inside, launch = facts.inside, facts.plan.launch
    if not inside or not launch or not launch.holds_while_queueing:
        return stall
    if not (says := POOL_SAYS.search("\n".join(inside.server_said))):
        return stall
    size, overflow, timeout_s = says.groups()
    threads, connections = inside.anyio_threads or ANYIO_THREADS, int(size) + int(overflow)
    return replace(stall, threads=threads, connections=connections, pool_timeout_s=float(timeout_s))


# ---------------------------------------------------------------- probe: several bursts


class Probed(NamedTuple):
    """A burst of a probe: how many at once, how many of them failed, how long it took, what it says."""

    requests: int
    failed: int
    took_s: float
    found: Estimate


def next_burst(
    done: Sequence[Probed], budget: int = 2000, budget_s: float = 60.0, wait_s: float = 0.0
) -> tuple[int | None, str]:
    """The size of the next burst, or None at the end; and why: a key of report.py.

    first, not-enough; at the end lone-too-long, failures, agree, cpu, scatter, budget, budget-of-time. Bursts are
    doubled until two agree, or the budget (requests, seconds) does not allow more. wait_s: what a lone request takes:
    the first burst must end within the budget even if one is served at a time.
    """
    if not done:
        first = min(10, int(budget_s / max(wait_s, 1e-9)))
        return (first, "first") if first >= 4 else (None, "lone-too-long")
    last, size = done[-1], 2 * done[-1].requests
    certain = [one.found.slots for one in done if one.found.is_certain]
    ends = {
        "failures": last.failed > 0,
        "agree": last.found.is_certain and certain[-2:] == [last.found.slots] * 2,
        "cpu": [one.found.doubt for one in done[-2:]] == ["cpu", "cpu"],
        "scatter": bool(last.found.slots) and last.requests > 10 * (last.found.high or math.inf),
        "budget": sum(burst.requests for burst in done) + size > budget,
        "budget-of-time": sum(burst.took_s for burst in done) + 2 * last.took_s > budget_s,
    }
    why = next((reason for reason, is_true in ends.items() if is_true), "not-enough")
    return (size if why == "not-enough" else None), why


def conclude(done: Sequence[Probed]) -> Estimate:
    """Of the bursts of a probe the estimate that says most: the last certain one, unless the last burst contradicts."""
    last, certain = done[-1].found, [one.found for one in done if one.found.is_certain]
    agreeing = [found for found in certain if last.low <= (found.slots or 0) <= (last.high or math.inf)]
    return [last, *agreeing][-1]
