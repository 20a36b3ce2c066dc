"""Does a run fit its prediction, what explains it, what limited it, what must its reader know?  Values, no sentences.

A figure fits within 5 % and a band: what this machine adds to a prediction, measured (the overhead of each round, CPU
time, its timer). Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from engine import model
from engine.audit import (
    client_busy,
    connected_cpus,
    connects_again,
    longer_handlers,
    warnings_of_alone,
    warnings_of_client,
    warnings_of_database,
    warnings_of_machine,
)
from engine.estimate import doubted, first_true, taken_by_others
from engine.limit import LOOP
from engine.loads import Figure
from engine.places import Limit, Resource, State
from engine.run import Band, Estimate, Explanation, Facts, Plan, Prediction, Run, Verdict, Warned

TOLERANCE = 0.05  # of a prediction, beside the band
BUSY = 0.8  # a resource that is in use for so large a share of the time is full


def judge(facts: Facts, estimate: Estimate | None, timer_s: float) -> Verdict:
    """The verdict on a run. timer_s: how late a sleeping process wakes on this machine."""
    band, estimate = band_of(facts, timer_s), doubted(estimate, facts)
    explained = explain(facts, estimate, band)
    other = None
    if explained is Explanation.OTHER_SLOTS:
        other = slots_of_log(facts) or slots_of_answers(facts, estimate)
    limits = () if facts.measured.failed else limits_of(facts, estimate, other)  # else the rates say nothing
    warnings = *warnings_of(facts), *why_not_as_predicted(facts, explained, band, other)
    return Verdict(explained, limits, estimate, band, warnings)


# ---------------------------------------------------------------- figures and their band


def band_of(facts: Facts, timer_s: float) -> Band | None:
    """What this machine adds to a prediction; None where the wait is not known, or nothing was answered."""
    plan, measured, latency = facts.plan, facts.measured, facts.measured.latency_s
    answered = measured.answered
    if not (plan.wait_s and answered and latency):
        return None
    alone_s = min(measured.lone_s or math.inf, latency.min)
    added_s = alone_s - plan.busy_s if plan.distribution == "constant" else 0.0
    overhead_s = min(max(0.0, added_s), most_overhead_s(plan.wait_s))
    cpus = max(1.0, min(plan.workers, plan.cpus, answered / most_of_one(facts)))  # a process computes on one at a time
    free = 1 - min(0.5, taken_by_others(facts))
    cpu_all_s = ((measured.server_cpu_s or 0.0) / cpus + measured.client_cpu_s) / free
    cpu_s = cpu_all_s / answered
    in_a_row = max(1.0, (facts.prediction.mean_s or plan.wait_s) / plan.busy_s)  # rounds of an average request
    rounds = model.rounds(measured.sent, plan.slots or math.inf)
    in_turn = at_once(facts) + rounds
    if cpu_all_s > (facts.prediction.makespan_s or math.inf):  # there is no time for waits between them
        in_turn = max(in_turn, answered)
    makespan_s = timer_s + rounds * overhead_s + in_turn * cpu_s
    latency_s = timer_s + in_a_row * overhead_s + at_once(facts) * cpu_s
    return Band(overhead_s, timer_s, cpu_s, cpus, in_turn, makespan_s, latency_s)


def most_overhead_s(wait_s: float) -> float:
    """What a machine may add to a wait; more than that is a longer wait, not an overhead."""
    return 0.2 * wait_s + 0.005


def at_once(facts: Facts) -> float:
    """How many requests shared the CPUs."""
    return min(facts.plan.slots or math.inf, facts.plan.load.most_under_way, facts.measured.sent)


def shares_of(facts: Facts) -> list[int]:
    """How many requests each worker took; empty: not known."""
    return list(facts.inside.requests_of_workers.values()) if facts.inside else []


def most_of_one(facts: Facts) -> int:
    """The most requests that one worker took; 1: not known."""
    return max([1, *shares_of(facts)])


class Compared(NamedTuple):
    """One figure of a run beside its prediction; it fits between least and most."""

    figure: Figure
    measured: float
    predicted: float
    least: float
    most: float

    @property
    def fits(self) -> bool:
        return self.least <= self.measured <= self.most


def compared(facts: Facts, prediction: Prediction, band: Band, with_cpu: bool) -> list[Compared]:
    """The figures that the load is judged by. with_cpu: the band with the CPU time in it, or without."""
    cpu_s = 0.0 if with_cpu else band.cpu_s
    last_s = band.makespan_s - cpu_s * band.in_turn
    more_s = max(0.0, band.latency_s - cpu_s * at_once(facts))
    found = []
    for figure in facts.plan.load.judged_by:
        measured, predicted = facts.measured.of(figure), prediction.of(figure)
        if measured is None or not predicted:
            continue
        slack = {Figure.P95: 2, Figure.P99: 3}.get(figure, 1) * TOLERANCE * predicted
        low, high = prediction.range_of(figure) or (predicted, predicted)
        least, most = low * (1 - TOLERANCE), high + slack
        if figure is Figure.THROUGHPUT:
            room = least / (1 + more_s / (prediction.mean_s or math.inf)), most
        elif figure is Figure.P95:  # between users in step and users that have drifted apart
            room = (prediction.spread_s or predicted) * (1 - TOLERANCE) - more_s, most + more_s
        else:  # no cost makes anything faster
            room = least - band.timer_s, most + (last_s if figure is Figure.LAST_ANSWER else more_s)
        found.append(Compared(figure, measured, predicted, *room))
    return found


# ---------------------------------------------------------------- what explains it


def explain(facts: Facts, estimate: Estimate | None, band: Band | None) -> Explanation | None:
    """What the figures agree with: the prediction; the same given the split; one of the two with the CPU time that was
    used, unless other slots were seen. Else what may be the reason, or nothing.

    None: nothing was predicted, or requests failed.
    """
    predicted, split = facts.prediction, facts.split_prediction
    if facts.measured.failed or facts.measured.stopped or not band or not compared(facts, predicted, band, False):
        return None
    if slots_of_log(facts) and not seen_limit(facts):
        return Explanation.OTHER_SLOTS
    tries = (
        (Explanation.PREDICTION, predicted, False),
        (Explanation.SPLIT, split, False),
        (Explanation.CPU, predicted, True),
        (Explanation.SPLIT, split, True),
    )
    seen = seen_limit(facts)
    other_was_seen = seen and (seen.slots or 0) != facts.plan.slots
    for explanation, prediction, with_cpu in tries:
        if with_cpu and other_was_seen:
            break
        if prediction and all(figure.fits for figure in compared(facts, prediction, band, with_cpu)):
            return explanation
    return reason_of(facts, estimate)


def seen_limit(facts: Facts) -> Limit | None:
    """What the requests were seen to wait for, inside the server's processes."""
    return facts.inside.where.limit if facts.inside and facts.inside.where else None


def slower_than_alone_s(run: Run) -> float | None:
    """How long a request takes by itself, where it was seen to keep what limits much longer than that: what it waits
    for meanwhile was not seen. None: not so, or not known."""
    limit, plan, estimate = seen_limit(run), run.plan, run.verdict.estimate
    varies = plan.distribution != "constant" or (estimate and estimate.doubt == "unlike-lone-requests")
    if not (limit and limit.held_s and plan.wait_s) or limit.resource == LOOP or varies or is_held_after(run):
        return None
    return plan.wait_s if limit.held_s > 1.5 * plan.busy_s + 0.02 else None


def is_servers(limit: Limit) -> bool:
    """Whether it is the server that has so many, and not the handlers."""
    return limit.resource == Resource.SLOTS or limit.resource.startswith("AnyIO")


def reason_of(facts: Facts, estimate: Estimate | None) -> Explanation:
    """What may be the reason that no figure agrees with a prediction."""
    plan, alone_s = facts.plan, facts.measured.lone_s or 0.0
    client = {warned.id for warned in warnings_of_client(facts)}
    reasons = {
        "sooner": is_faster(facts) and not slots_of_answers(facts, estimate),
        "cpu": cpu_busy(facts) >= BUSY and not is_faster(facts),
        "inside": waits_inside(facts),
        "after-answer": is_held_after(facts),
        "restarts": facts.inside and facts.inside.restarts,
        "connected": connected_cpus(facts) >= BUSY,
        "longer-handlers": takes_longer(facts),
        "busy-machine": taken_by_others(facts) > 0.3,
        "other-slots": slots_of_answers(facts, estimate),
        **{
            one: one in client
            for one in ("client-stalled", "backlog-overflow", "client-limit", "late-sends", "delayed-ack")
        },
        "longer-wait": plan.wait_s and alone_s > 1.1 * plan.wait_s + plan.cpu_time_s + 0.02,
    }
    return Explanation(first_true(reasons) or "nothing")


def waits_inside(facts: Facts) -> bool:
    """Whether requests were seen to wait for something else than the server's slots."""
    limit = seen_limit(facts)
    return bool(limit and limit.resource != Resource.SLOTS)


def is_held_after(facts: Facts) -> bool:
    """Whether requests keep their slots after the answer, so that others wait for these."""
    limit, where = seen_limit(facts), facts.inside and facts.inside.where
    return bool(limit and where and any(one.state is State.ANSWERED and one.requests >= 0.5 for one in where.places))


def takes_longer(facts: Facts) -> bool:
    """Whether the handlers took much longer under the load than by themselves, as the log has it, and not for CPU: the
    server used too little of it, even if others took the rest."""
    plan, measured, inside = facts.plan, facts.measured, facts.inside
    if not (inside and inside.handler_s and inside.log_lines and plan.wait_s and plan.distribution == "constant"):
        return False
    added_s = longer_handlers(facts)["handled_s"] - plan.busy_s
    # A request that shares the CPUs waits for the CPU time of all that are at work, at most ten times as long.
    cpu_s = 10 * at_once(facts) * (measured.server_cpu_s or math.inf) / measured.answered
    return added_s > max(0.2 * plan.busy_s + 0.02, cpu_s)


def is_faster(facts: Facts) -> bool:
    """Whether answers came sooner than predicted: nothing that is busy does that."""
    figure = facts.plan.load.judged_by[0]
    measured, predicted = facts.measured.of(figure), facts.prediction.if_even.get(figure, facts.prediction.of(figure))
    return bool(measured and predicted and measured < predicted * (1 - TOLERANCE))


def cpu_busy(facts: Facts) -> float:
    """The share of the CPU time that the server's processes could have, less what other programs took, and used."""
    cpus = processors(facts) * (1 - min(0.8, taken_by_others(facts)))
    return (facts.measured.server_cpu_s or 0.0) / (cpus * facts.measured.measured_s or math.inf)


def processors(facts: Facts) -> int:
    """CPUs that the server's processes can use: a Python process computes on one at a time, unless it was seen to use
    more, as libraries can that give back Python's lock."""
    plan, measured = facts.plan, facts.measured
    used = (measured.server_cpu_s or 0.0) / (measured.measured_s or math.inf)
    return max(1, plan.cpus if used > 1.05 * plan.workers else min(plan.workers, plan.cpus))


class OtherSlots(NamedTuple):
    """Other slots than the prediction has.

    kind: what shows them. held: a worker had so many requests in its handlers whenever a waiting request started.
    seen-more: it had so many at a time. never-more: it never had more, of `of` requests that were sent to it.
    answers: the answers came so many at a time. inside: the same, while a worker had `of` requests in its handlers.
    """

    kind: str
    slots: int
    predicted: float | None  # by the settings: of a worker if the log shows the slots, of all if the answers do
    of: int
    each: int | None = None  # of one process, where the answers show it


def slots_of_log(facts: Facts) -> OtherSlots | None:
    """Where the log shows other slots than the prediction has; None: no such thing.

    The log counts the requests in a handler. A limit inside of it does not show there, so that more requests than slots
    are no contradiction where the slots were stated, or belong to a pool.
    """
    plan, inside = facts.plan, facts.inside
    if not inside:
        return None
    predicted, each = plan.slots_per_worker or math.inf, plan.server_slots or math.inf
    held, seen, most = inside.slots_held, inside.slots_seen or 0, most_of_one(facts)
    behind = predicted if len(inside.requests_of_workers) == 1 else math.inf  # a pool's, or stated, which is for all
    if held is not None and (held < behind < math.inf if predicted < each == math.inf else held != each):
        return OtherSlots("held", held, plan.slots_per_worker, most)
    kind = first_true({"seen-more": seen > each, "never-more": never_more(facts, seen, min(each, behind))})
    return OtherSlots(kind, seen, plan.slots_per_worker, most) if kind else None


def never_more(facts: Facts, seen: int, due: float) -> bool:
    """Whether a worker never had as many requests of a burst as are due, but took more, which could have begun before
    the first had ended."""
    cpu_s, wait_s = (
        (facts.measured.server_cpu_s or math.inf) / max(1, facts.measured.answered),
        facts.plan.wait_s or 0.0,
    )
    is_short = longer_handlers(facts)["handled_s"] < 0.5 * wait_s  # the handler ends long before the answer: a stream
    could_begin = not facts.plan.load.is_steady and due * cpu_s < 0.5 * wait_s and not is_short
    return could_begin and 0 < seen < due <= most_of_one(facts)


def slots_of_answers(facts: Facts, estimate: Estimate | None) -> OtherSlots | None:
    """As slots_of_log(), of all processes together, where the answers leave no doubt: they show a limit inside the
    handlers too, of which the settings know nothing."""
    if not estimate or not estimate.is_certain or estimate.low == facts.plan.slots:
        return None
    seen = (facts.inside and facts.inside.slots_seen) or 0
    kind = "inside" if seen > (estimate.each or math.inf) else "answers"
    return OtherSlots(kind, estimate.low, facts.plan.slots, seen, estimate.each)


# ---------------------------------------------------------------- what limited it

FULL, NOT_FULL = 3, 4  # how a resource is placed: it can have limited the run, or not; before those:
# 0 the backlog, which shows in the tail, whatever else is busy; 1 the client; 2 CPU, of the server or of both, as a
# request that waits for it holds a slot meanwhile
Placed = tuple[int, Limit]


def limits_of(facts: Facts, estimate: Estimate | None, other: OtherSlots | None) -> tuple[Limit, ...]:
    """What limited the run, and what would be next; most binding first."""
    if not facts.measured.answered:
        return (Limit(Resource.NONE, 0.0),)
    seen = seen_limit(facts)
    by_answers = not facts.plan.slots_known or (other and other.kind in ("answers", "inside"))
    slots = limit_of_answers(facts, estimate) if estimate and by_answers else limit_of_slots(facts)
    slots = [(FULL, seen)] if seen else slots
    found = [limit_of_client(facts), *slots, *limit_of_cpu(facts), *limit_of_machine(facts)]
    if connects_again(facts):
        found.append((0, Limit(Resource.BACKLOG, 1.0)))
    found.sort(key=lambda one: (one[0], -one[1].busy))
    limits = tuple(limit for _, limit in found)
    return limits if found[0][0] != NOT_FULL else (offered(facts), *limits)


def limit_of_answers(facts: Facts, estimate: Estimate) -> list[Placed]:
    """The slots that the answers show, if they leave no doubt."""
    slots, wait_s, measured = estimate.low, facts.plan.wait_s, facts.measured
    if not wait_s or not estimate.is_certain:
        return []
    busy = min(1.0, measured.answered * wait_s / (slots * measured.measured_s))
    return [(FULL, Limit(Resource.SLOTS, busy, slots / wait_s, slots, wait_s, from_answers=True))]


def limit_of_slots(facts: Facts) -> list[Placed]:
    """The slots of the settings, or the pool behind them."""
    plan, measured, slots, is_pool = facts.plan, facts.measured, facts.plan.slots, has_pool(facts.plan)
    if not slots or not plan.wait_s or are_contradicted(facts, slots):
        return []
    logged_s = facts.inside and not is_pool and facts.inside.handler_s
    busy = (logged_s or measured.answered * plan.busy_s) / (slots * measured.measured_s)
    handled_s = longer_handlers(facts)["handled_s"]
    held_s = handled_s if takes_longer(facts) or handled_s > 1.5 * plan.busy_s else plan.busy_s
    limit = Limit(Resource.POOL if is_pool else Resource.SLOTS, min(1.0, busy), slots / held_s, slots, held_s)
    return [(FULL if have_waited(facts, slots, busy) else NOT_FULL, limit)]


def are_contradicted(facts: Facts, slots: float) -> bool:
    """Whether more was served than these slots and this wait allow, or fewer were there, as workers were replaced."""
    is_more = facts.measured.throughput_rps > slots / facts.plan.busy_s * (1 + TOLERANCE)
    return is_more or bool(facts.inside and facts.inside.restarts)


def has_pool(plan: Plan) -> bool:
    """Whether the slots are those of a pool of database connections."""
    return bool(plan.launch and plan.launch.pool == plan.slots_per_worker != plan.launch.threads)


def have_waited(facts: Facts, slots: float, busy: float) -> bool:
    """Whether requests have waited for a slot."""
    plan, measured = facts.plan, facts.measured
    if plan.load.is_steady:
        return busy >= 0.85 or measured.mean_in_flight > 1.05 * slots
    return measured.sent > slots or most_of_one(facts) > (plan.slots_per_worker or math.inf)


def limit_of_cpu(facts: Facts) -> list[Placed]:
    if facts.measured.server_cpu_s is None:
        return []
    busy, cpus, held_s = cpu_busy(facts), processors(facts), facts.measured.server_cpu_s / facts.measured.answered
    limit = Limit(Resource.CPU, min(1.0, busy), cpus / held_s if held_s else None, held_s=held_s, cpus=cpus)
    return [(2 if busy >= BUSY else NOT_FULL, limit)]


def limit_of_machine(facts: Facts) -> list[Placed]:
    """The CPUs that client and server share, where neither of them is busy by itself."""
    cpus, measured = facts.plan.shared_cpus, facts.measured
    share = (measured.client_cpu_s + (measured.server_cpu_s or 0.0)) / (cpus * measured.measured_s or math.inf)
    if share <= 0.85 * (1 - taken_by_others(facts)) or taken_by_others(facts) > 0.3:  # then it is the others
        return []
    return [(2, Limit(Resource.MACHINE, min(1.0, share), cpus=cpus))]


def limit_of_client(facts: Facts) -> Placed:
    """held_s: CPU seconds of the client for a request."""
    measured, processes, busy = facts.measured, facts.plan.processes, client_busy(facts)
    held_s = measured.client_cpu_s / measured.sent
    limit = Limit(Resource.CLIENT, min(1.0, busy), processes / held_s if held_s else None, held_s=held_s)
    return 1 if busy >= BUSY else NOT_FULL, limit


def offered(facts: Facts) -> Limit:
    """Where no resource was full: what was offered was the limit, or nothing that we can see."""
    load, rate_rps = facts.plan.load, facts.plan.load.offered_load(1, 1.0)  # of a schedule
    latency_s = facts.measured.latency_s.mean if facts.measured.latency_s else math.inf
    # Users get all that they ask for as long as an answer takes no longer than one to a request by itself.
    is_served = bool(load.is_steady and facts.plan.wait_s and latency_s < 1.5 * facts.plan.busy_s + 0.01)
    if rate_rps is not None:
        is_served = facts.measured.throughput_rps >= 0.9 * rate_rps
    return Limit(Resource.ARRIVALS, 1.0, rate_rps) if is_served else Limit(Resource.NONE, 0.0)


# ---------------------------------------------------------------- what to warn of


def warnings_of(facts: Facts) -> Iterator[Warned]:
    """What a reader must know before believing the run, whatever explains it."""
    measured, inside, sent = facts.measured, facts.inside, facts.measured.sent
    if inside and inside.server_ended:
        said = {"said": list(inside.server_said), "log": inside.server_log}
        yield Warned("server-ended", {"failed": measured.failed, "sent": sent} | said)
    else:
        yield from warnings_of_client(facts)
    if inside and inside.log_lines is not None and not measured.answered <= inside.log_lines <= sent:
        yield Warned("log-lines", {"lines": inside.log_lines, "sent": sent})
    if inside and inside.restarts:
        yield Warned("restarts", {"restarts": inside.restarts})
    if measured.drift:
        yield Warned("drift", {"first_s": measured.drift.first_s, "last_s": measured.drift.last_s})
    yield from warnings_of_machine(facts)
    yield from warnings_of_alone(facts)
    yield from warnings_of_database(facts)


def why_not_as_predicted(
    facts: Facts, explained: Explanation | None, band: Band | None, other: OtherSlots | None
) -> Iterator[Warned]:
    """The warning that an explanation needs. off: the figures that do not fit, as (figure, measured, predicted)."""
    figures = compared(facts, facts.prediction, band, False) if band else []
    off = {"off": [[one.figure.value, one.measured, one.predicted] for one in figures if not one.fits]}
    plan, measured, latency = facts.plan, facts.measured, facts.measured.latency_s
    shortest_s = latency.min if latency and plan.distribution == "constant" else None
    found: dict[Explanation, Warned] = {
        Explanation.SPLIT: Warned("uneven-split", off | {"shares": shares_of(facts)}),
        Explanation.NOTHING: Warned("unexplained", off),
        Explanation.SOONER: Warned(
            "sooner", off | {"shortest_s": shortest_s, "wait_s": plan.wait_s, "slots": plan.slots}
        ),
        Explanation.CONNECTED: Warned("connected", {"cpus": connected_cpus(facts)}),
        Explanation.LONGER_HANDLERS: Warned("longer-handlers", longer_handlers(facts)),
        Explanation.LONGER_WAIT: Warned("longer-wait", off | {"alone_s": measured.lone_s, "wait_s": plan.wait_s}),
    }
    if explained in found:
        yield found[explained]
    elif explained is Explanation.OTHER_SLOTS and other:
        yield Warned("other-slots", other._asdict())
