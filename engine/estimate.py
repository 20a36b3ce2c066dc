"""How many requests did a server work on at a time?  Read from the answers alone, for servers that nothing else tells.

Two judges: rounds (at S slots all requests held one for the same time, at any other number some did not), and "every
request was answered like a lone one". What they cannot tell is unknown, with the reason: a key of DOUBTS in
report_words.py. A number is certain only if rounds and throughput show the same one for
three rounds, beside lone requests that are alike, and nothing speaks against it. Pure: the same answers give the same
estimate.
"""

from __future__ import annotations

import itertools
import math
import operator
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import NamedTuple

from engine.limits import suspects
from engine.listeners import all_run_apps
from engine.places import State
from engine.run import Columns, Estimate, Facts, Seen, Stall

MOST_ESTIMATED = 20_000  # answers that are looked at: some seconds
SHOWN_ROUNDS = 6
TAKEN = 0.3  # of all CPUs: so much by other programs, and it is these that make a run slow
Times = Sequence[float]  # seconds
Exchange = tuple[float, float]  # when a request began, and when it ended: seconds since the run began


def estimate_slots(
    at_once: int,
    good: Sequence[Exchange],
    failed_after_s: Times = (),
    *,
    lone_s: Times = (),
    processes: int | None = None,
    cpu_s: float = 0.0,
) -> Estimate:
    """How many requests the server worked on at a time. The first judge that knows its case decides.

    at_once: requests of the burst, or users of the closed loop. good: the requests that succeeded. failed_after_s: how
    long after sending each of the others failed, sorted. lone_s: how long lone requests took. processes: of the
    server; None: not known. cpu_s: CPU seconds of the server for all requests; 0: not known.

    >>> estimate_slots(7, [(0.0, at_s) for at_s in (1, 1, 2, 2, 3, 3, 4)], lone_s=[1.0, 1.0]).slots
    2
    """
    sent, answered = (sorted(one[i] for one in good) for i in (0, 1))
    wait_s = fmean(lone_s or [math.nan])
    jitter = stdev(lone_s) / wait_s if len(lone_s) > 1 else 0.1
    rounds, alone_s = rounds_of(answered, 0.3 * wait_s), wait_s if lone_s else None
    found = Estimate(Seen.UNKNOWN, None, 1, None, processes, rounds=rounds, alone_s=alone_s)
    reasons = {
        # All after the same time, which is longer than a wait: a time-out, which says nothing against the answers.
        "failures": failed_after_s and not 2 * wait_s <= failed_after_s[0] >= failed_after_s[-1] / 1.15,
        "few-answers": len(answered) < 4,
        "no-lone-request": not lone_s,
        "short-wait": wait_s < 0.005,  # too short to tell waiting from CPU
        "unlike-lone-requests": jitter > 0.5,  # none can be compared with them
        "cpu": cpu_s / (processes or 1) > 0.7 * max(answered, default=0.0),
    }
    if doubt := first_true(reasons):
        return replace(found, doubt=doubt)
    return first_judge(found, at_once, sent, answered, lone_s, jitter)


def first_true(reasons: Mapping[str, object]) -> str | None:
    """The first key whose value is true; None: no such key."""
    return next((reason for reason, is_true in reasons.items() if is_true), None)


def first_judge(found: Estimate, at_once: int, sent: Times, answered: Times, lone_s: Times, jitter: float) -> Estimate:
    """What the first judge says that knows the case. sent and answered are sorted, each by itself.

    jitter: standard deviation over mean of the lone requests.
    """
    wait_s, n = fmean(lone_s), len(answered)
    error = 3 * max(jitter, 0.005) / math.sqrt(len(lone_s))  # of the mean: three standard errors
    usual_s = wait_s * (1 + error) + 0.003
    latencies = sorted(map(operator.sub, answered, sent))
    if fmean(latencies) <= 1.15 * usual_s and latencies[-1] <= usual_s * (1 + max(0.35, 4 * jitter)):
        # A limit, if there is one, is not below what was under way; what is beyond the wait was spent in a queue.
        without_queue = min(1.0, (1.05 * min(lone_s) + 0.003) / latencies[95 * n // 100])
        return replace(found, seen=Seen.NONE, low=max(1, int(bisect_left(sent, answered[0]) * without_queue)))
    if answered[0] - sent[0] > 1.4 * usual_s:  # two passes through the slots, a blocked loop, or shared CPU
        return replace(found, doubt="held-back")
    late_s = answered[0] - wait_s  # it accepts all requests before it serves the first
    sent = [max(at_s, late_s) for at_s in sent]
    fit = fitting(sent, answered, min(n // 2, at_once - max(1, at_once // 10)))
    if not fit:
        return replace(found, doubt="no-clear-rounds")
    through = fit.slots * wait_s / fmean(holds(sent, answered, fit.slots, n))
    # A busy server needs time in which it begins or ends a request, and its slot does not wait.
    room = through * (0.04 + error + 2 * jitter / math.sqrt(n) + (0.003 + 0.0005 * fit.slots) / wait_s)
    return by_rounds(found, fit, sent, answered, through, room)


# ---------------------------------------------------------------- the judges


def by_rounds(found: Estimate, fit: Fit, sent: Times, answered: Times, through: float, room: float) -> Estimate:
    """Rounds of one size, as throughput x wait has it too, give or take `room`."""
    slots, processes, n = fit.slots, found.processes or 1, len(answered)
    rounds = math.ceil(n / slots)
    last_s = sent[0] + fit.held_s * (rounds + 3 * fit.spread * math.sqrt(rounds) + 0.5)
    is_burst = sent[-1] - sent[0] < fit.held_s  # the users of a closed loop may be split unevenly
    is_uneven = answered[-1] > last_s if is_burst else found.processes != 1
    is_off = abs(slots - through) > room
    reasons = {
        "rounds-and-throughput-disagree": is_off,
        "fewer-than-three-rounds": n < 3 * slots,
        "uneven-processes": slots % processes or (is_uneven and found.processes != 1),
        "uneven-rounds": is_uneven,
    }
    doubt = first_true(reasons)
    return replace(
        found, seen=Seen.SLOTS, slots=slots, low=min(slots, max(1, round(through))) if is_off else slots,
        high=None if doubt else slots,
        each=None if slots % processes else found.processes and slots // processes,
        held_s=fit.held_s, by_throughput=through, doubt=doubt,
    )  # fmt: skip


# ---------------------------------------------------------------- arithmetic of rounds


def rounds_of(answered: Times, gap_s: float) -> tuple[tuple[int, float], ...]:
    """Answer times, sorted, cut where nothing came for `gap_s`: of each of the first rounds its answers and mean time.

    >>> rounds_of([1.0, 1.0, 2.0], 0.3)
    ((2, 1.0), (1, 2.0))
    """
    rounds: list[list[float]] = []
    for at_s in answered:
        if not rounds or at_s - rounds[-1][-1] > gap_s:
            rounds.append([])
        rounds[-1].append(at_s)
    return tuple((len(times), fmean(times)) for times in rounds[:SHOWN_ROUNDS])


def holds(sent: Times, answered: Times, slots: int, first: int) -> list[float]:
    """How long each of the first answers held a slot, if there were so many slots: the model's recursion, backwards.

    sent, answered: seconds, each sorted by itself. With S slots, the k-th start is the later of the k-th request and
    the (k-S)-th answer. Sorted so, it does not matter in which order a pool serves. With too few slots some seem to
    hold one for no time, with too many for two times as long.

    >>> holds([0, 0, 0, 0], [1, 1, 2, 2], 2, 4), holds([0, 0, 0, 0], [1, 1, 2, 2], 1, 4)
    ([1, 1, 1, 1], [1, 0, 1, 0])
    """
    return [answered[k] - (max(sent[k], answered[k - slots]) if k >= slots else sent[k]) for k in range(first)]


class Fit(NamedTuple):
    """A number of slots, and how equally long all requests held one of so many."""

    spread: float  # standard deviation of the holding times over their mean
    slots: int
    held_s: float


def fitting(sent: Times, answered: Times, most: int) -> Fit | None:
    """The number of slots up to `most` at which the first three rounds are the most alike; None: no clear rounds, or
    another number explains the answers nearly as well.

    >>> fitting([0, 0, 0, 0], [1, 1, 2, 2], 3)
    Fit(spread=0.0, slots=2, held_s=1.0)
    """
    tried = [Fit(math.inf, 0, 0.0)] * 2
    for slots in range(1, most + 1):
        held = holds(sent, answered, slots, min(len(answered), max(3 * slots, 12)))
        mean_s = max(fmean(held), 1e-9)
        deviation_s = math.dist(held, [mean_s] * len(held)) / math.sqrt(len(held))  # pstdev is exact, and slow
        tried.append(Fit(deviation_s / mean_s, slots, mean_s))
    best, second, *_ = sorted(tried)
    return best if best.spread <= 0.13 and second.spread > 1.5 * best.spread + 0.005 else None


# ---------------------------------------------------------------- of a run


def estimate_of(
    facts: Facts, columns: Columns, lone_s: Times, installed: Collection[str] | None = None
) -> Estimate | None:
    """The slots from the answers of a run, and the limits that may be behind them.

    columns: the times of its requests. lone_s: latencies of lone requests before it. installed: distributions that
    the service has; None: not known. None for a load without a steady number of requests, and of a run that was
    stopped or is too large.
    """
    measured, launch, count = facts.measured, facts.plan.launch, facts.plan.load.steady_count
    if not count or measured.stopped or not 0 < measured.sent <= MOST_ESTIMATED:
        return None
    if taken_by_others(facts) > TAKEN:
        return Estimate(Seen.UNKNOWN, None, 1, None, doubt="busy-machine")
    good, failed = exchanges_of(columns)
    failed_after_s = sorted(end_s - begin_s for begin_s, end_s in failed)
    processes = processes_of(facts) if launch or all_run_apps(facts.plan.listeners) else None
    found = estimate_slots(
        count, good, failed_after_s, lone_s=lone_s, processes=processes, cpu_s=measured.server_cpu_s or 0.0
    )
    likely = suspects(found, facts, installed or (), failed_after_s)
    return replace(found, suspects=likely, stall=stall_of(facts, good, failed))


def processes_of(facts: Facts) -> int:
    """Of the server. What a user's own command starts, the access log tells."""
    plan, inside, launch = facts.plan, facts.inside, facts.plan.launch
    if launch and launch.run and inside and not inside.restarts:
        return max(1, len(inside.requests_of_workers))
    return launch.workers if launch and plan.slots_stated else plan.workers


def processors(facts: Facts) -> int:
    """CPUs that the server's processes can use: a Python process computes on one at a time, unless it was seen to use
    more, as libraries can that give back Python's lock, or to have others compute."""
    plan, measured = facts.plan, facts.measured
    used = (measured.server_cpu_s or 0.0) / (measured.measured_s or math.inf)
    processes = max(processes_of(facts), facts.inside.cpus if facts.inside else 0)
    return max(1, plan.cpus if used > 1.05 * processes else min(processes, plan.cpus))


def exchanges_of(columns: Columns) -> tuple[list[Exchange], list[Exchange]]:
    """The requests that succeeded, and the others."""
    good, failed = list[Exchange](), list[Exchange]()
    for begin_s, end_s, status in zip(columns.started_s, columns.answered_s, columns.status, strict=True):
        (good if 200 <= (status or 0) < 400 else failed).append((begin_s or 0.0, end_s or 0.0))
    return good, failed


def taken_by_others(facts: Facts) -> float:
    """The share of all CPUs, 0 to 1, that other programs used during the run; 0 where that is not known."""
    share = (facts.measured.other_cpu_s or 0.0) / (facts.plan.all_cpus * facts.measured.measured_s or math.inf)
    assert 0 <= share <= 1 + 1e-9, share
    return share


def stall_of(facts: Facts, good: Sequence[Exchange], failed: Sequence[Exchange]) -> Stall | None:
    """A silence in a burst, although requests waited, until some of them failed; None: no such time.

    A pool that serves others while some wait in vain has answers all the time. Resources whose holders wait for each
    other have none until a time-out frees one.
    """
    times = sorted([0.0, *(end_s for _, end_s in [*good, *failed])])
    gap_s, from_s = max((after - before, before) for before, after in itertools.pairwise(times))
    until_s, lone_s = from_s + gap_s, facts.measured.lone_s or math.inf
    frees = any(until_s - 0.001 <= end_s <= 1.1 * until_s for _, end_s in failed)
    if facts.plan.load.is_steady or not frees or gap_s <= max(10 * lone_s, 0.5):
        return None
    return Stall(from_s, until_s)


# ---------------------------------------------------------------- probe: several bursts


class Probed(NamedTuple):
    """A burst of a probe: how many at once, how many of them failed, how long it took, what it says."""

    requests: int
    failed: int
    took_s: float
    found: Estimate


def why_over(done: Sequence[Probed], left: int, left_s: float) -> str | None:
    """Why the probe ends after these bursts: a key of PROBE_ENDS in report_words.py; None: it does not.

    Bursts are doubled until two agree, or the budget does not allow more. Of it so many requests and seconds are left.
    """
    last, certain = done[-1], [one.found.slots for one in done if one.found.is_certain]
    ends = {
        "failures": last.failed,
        "agree": certain[-2:] == [last.found.slots] * 2,
        "cpu": [one.found.doubt for one in done[-2:]] == ["cpu", "cpu"],
        "scatter": last.found.slots and last.requests > 10 * (last.found.high or math.inf),
        "budget": 2 * last.requests > left,
        "budget-of-time": 2 * last.took_s > left_s,
    }
    return first_true(ends)


def conclude(done: Sequence[Probed]) -> Estimate:
    """Of the bursts of a probe the estimate that says most: the last certain one, unless the last burst contradicts."""
    found = [one.found for one in done]
    low, high = found[-1].low, found[-1].high or math.inf
    return [found[-1], *(one for one in found if one.is_certain and low <= one.low <= high)][-1]


def doubted(estimate: Estimate | None, facts: Facts) -> Estimate | None:
    """The slots that the answers show, but not for certain where far more requests were seen to be worked on."""
    where = facts.inside and facts.inside.where
    at_work = sum(one.requests for one in where.places if one.state is State.WORKING) if where else 0.0
    if not estimate or not estimate.is_certain or at_work <= 2 * estimate.low + 1:
        return estimate
    return replace(estimate, high=None, doubt="all-at-work", suspects=())
