"""Does a run fit its prediction, what explains it, what limited it, what must its reader know?  Values, no sentences.

A figure fits within 5 % and a band: what this machine adds to a prediction, measured (the overhead of each round, CPU
time, its timer). Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from engine import model
from engine.audit import has_overflowed, warnings_of_client, warnings_of_database
from engine.estimate import taken_by_others
from engine.loads import Figure
from engine.run import Band, Estimate, Explanation, Facts, Inside, Limit, Plan, Prediction, Resource, Verdict, Warned

TOLERANCE = 0.05  # of a prediction, beside the band
SEEN_BY_CLIENT = (  # reasons that are warnings of the client's, too
    Explanation.BACKLOG, Explanation.CLIENT, Explanation.LATE_SENDS, Explanation.DELAYED_ACK,
)  # fmt: skip


def judge(facts: Facts, estimate: Estimate | None, timer_s: float) -> Verdict:
    """The verdict on a run. timer_s: how late a sleeping process wakes on this machine."""
    band = band_of(facts, timer_s)
    other = slots_of_log(facts)
    explained = explain(facts, estimate, band, other)
    if explained is Explanation.OTHER_SLOTS:
        other = other or slots_of_answers(facts, estimate)
    limits = () if facts.measured.failed else limits_of(facts, estimate, explained, other)  # else the rates say nothing
    return Verdict(explained, limits, estimate, band, tuple(warnings_of(facts, explained, band, other)))


# ---------------------------------------------------------------- figures and their band


def band_of(facts: Facts, timer_s: float) -> Band | None:
    """What this machine adds to a prediction; None where the wait is not known, or nothing was answered."""
    plan, measured, latency = facts.plan, facts.measured, facts.measured.latency_s
    answered = measured.answered
    if not plan.wait_s or not answered or not latency:
        return None
    alone_s = min(measured.lone_s or math.inf, latency.min)
    least_s = plan.busy_s if plan.distribution == "constant" else alone_s
    overhead_s = min(max(0.0, alone_s - least_s), most_overhead_s(plan.wait_s))
    most = max(workers_of(facts).values(), default=0)  # of one process, which computes on one CPU at a time
    cpus = max(1.0, min(plan.workers, plan.cpus, answered / most if most else math.inf))
    free = 1 - min(0.5, taken_by_others(measured, plan.all_cpus))
    cpu_all_s = ((measured.server_cpu_s or 0.0) / cpus + measured.client_cpu_s) / free
    cpu_s = cpu_all_s / answered
    in_a_row = max(1.0, (facts.prediction.mean_s or plan.wait_s) / plan.busy_s)  # rounds of an average request
    rounds = model.rounds(measured.sent, plan.slots or math.inf)
    makespan_s = timer_s + rounds * overhead_s + cpu_all_s
    return Band(overhead_s, timer_s, cpu_s, cpus, makespan_s, timer_s + in_a_row * overhead_s + at_once(facts) * cpu_s)


def most_overhead_s(wait_s: float) -> float:
    """What a machine may add to a wait; more than that is a longer wait, not an overhead."""
    return 0.2 * wait_s + 0.005


def at_once(facts: Facts) -> float:
    """How many requests shared the CPUs."""
    plan, sent = facts.plan, facts.measured.sent
    return min(plan.slots or math.inf, plan.load.most_under_way, sent)


def workers_of(facts: Facts) -> dict[str, int]:
    return facts.inside.requests_of_workers if facts.inside else {}


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
    last_s = band.makespan_s - cpu_s * facts.measured.answered
    more_s = max(0.0, band.latency_s - cpu_s * at_once(facts))
    found = []
    for figure in facts.plan.load.judged_by:
        measured, predicted = facts.measured.of(figure), prediction.of(figure)
        if measured is None or not predicted:
            continue
        slack = TOLERANCE * predicted
        least, most = predicted - slack - band.timer_s, predicted + slack + more_s  # no cost makes anything faster
        if figure is Figure.LAST_ANSWER:
            most += last_s - more_s
        elif figure is Figure.P99:
            most += 0.1 * predicted
        elif figure is Figure.THROUGHPUT:
            mean_s = prediction.mean_s or math.inf
            least, most = (predicted - slack) * mean_s / (mean_s + more_s), predicted + slack
        elif figure is Figure.P95:  # between users in step and users that have drifted apart
            ends = sorted(((prediction.spread_s or predicted) * (1 - TOLERANCE), predicted * (1 + 2 * TOLERANCE)))
            least, most = ends[0] - more_s, ends[1] + more_s
        found.append(Compared(figure, measured, predicted, least, most))
    return found


# ---------------------------------------------------------------- what explains it


def explain(
    facts: Facts, estimate: Estimate | None, band: Band | None, of_log: OtherSlots | None
) -> Explanation | None:
    """What the figures agree with: the prediction; the same given the split; one of the two with the CPU time that was
    used. Else what may be the reason, or nothing. None: nothing was predicted, or requests failed."""
    measured, predicted = facts.measured, facts.prediction
    ended = measured.failed or measured.stopped or (facts.inside and facts.inside.server_ended)
    if ended or not band or not compared(facts, predicted, band, False):
        return None
    if of_log:
        return Explanation.OTHER_SLOTS
    tries = [(Explanation.PREDICTION, predicted, False), (Explanation.CPU, predicted, True)]
    if split := facts.split_prediction:
        tries = [tries[0], (Explanation.SPLIT, split, False), tries[1], (Explanation.SPLIT, split, True)]
    for explanation, prediction, with_cpu in tries:
        if all(figure.fits for figure in compared(facts, prediction, band, with_cpu)):
            return explanation
    return reason_of(facts, estimate)


def reason_of(facts: Facts, estimate: Estimate | None) -> Explanation:
    """What may be the reason that no figure agrees with a prediction."""
    plan, measured = facts.plan, facts.measured
    client = {warned.id for warned in warnings_of_client(facts)}
    reasons: dict[Explanation, object] = {
        Explanation.CPU: cpu_busy(facts) >= 0.8,
        Explanation.BUSY_MACHINE: taken_by_others(measured, plan.all_cpus) > 0.3,
        Explanation.OTHER_SLOTS: slots_of_answers(facts, estimate),
    }
    reasons |= {reason: reason in client for reason in SEEN_BY_CLIENT}
    waits_longer = plan.wait_s and (measured.lone_s or 0.0) > 1.1 * plan.wait_s + plan.cpu_time_s + 0.02
    reasons[Explanation.LONGER_WAIT] = waits_longer
    return next((reason for reason, is_true in reasons.items() if is_true), Explanation.NOTHING)


def cpu_busy(facts: Facts) -> float:
    """The share of the CPU time that the server's processes could have, less what other programs took, and used."""
    plan, measured = facts.plan, facts.measured
    cpus = processors(plan) * (1 - min(0.8, taken_by_others(measured, plan.all_cpus)))
    return (measured.server_cpu_s or 0.0) / (cpus * measured.measured_s or math.inf)


def processors(plan: Plan) -> int:
    """CPUs that the server's processes can use: a Python process computes on one at a time."""
    return max(1, min(plan.workers, plan.cpus))


class OtherSlots(NamedTuple):
    """Other slots than the prediction has.

    kind: what shows them. held: a worker had so many requests in its handlers whenever a waiting request started.
    seen-more: it had so many at a time. never-more: it never had more, of `of` requests that were sent to it.
    answers: the answers came so many at a time. inside: the same, while a worker had `of` requests in its handlers.
    """

    kind: str
    slots: int
    predicted: float | None  # by the settings: of a worker if the log shows the slots, of all if the answers do
    of: int | None = None
    each: int | None = None  # of one process, where the answers show it
    processes: int | None = None


def slots_of_log(facts: Facts) -> OtherSlots | None:
    """Where the log shows other slots than the prediction has; None: no such thing.

    The log counts the requests in a handler. A limit inside of it does not show there, so that more requests than slots
    are no contradiction where the slots were stated, or belong to a pool.
    """
    plan, inside = facts.plan, facts.inside or Inside(None, "", False, ())
    each, predicted = plan.server_slots or math.inf, plan.slots_per_worker
    held, seen, workers = inside.slots_held, inside.slots_seen or 0, inside.requests_of_workers
    behind = predicted if len(workers) == 1 and predicted else math.inf  # a pool's, or stated, which is for all
    is_behind = each == math.inf and predicted not in (None, math.inf)
    if held is not None and (held < behind < math.inf if is_behind else held != each):
        return OtherSlots("held", held, predicted)
    if seen > each:
        return OtherSlots("seen-more", seen, predicted)
    return never_more(facts, inside, min(each, behind))


def never_more(facts: Facts, inside: Inside, due: float) -> OtherSlots | None:
    """Fewer requests in the handlers of a worker than the `due` slots, although more were sent to it at once."""
    plan, measured = facts.plan, facts.measured
    seen, most = inside.slots_seen or 0, max(inside.requests_of_workers.values(), default=0)
    if plan.load.is_steady or not 0 < seen < due <= most:
        return None
    cpu_s = (measured.server_cpu_s or math.inf) / max(1, measured.answered)
    all_could_begin = due * cpu_s < 0.5 * (plan.wait_s or 0.0)  # before the first had ended
    return OtherSlots("never-more", seen, plan.slots_per_worker, of=most) if all_could_begin else None


def slots_of_answers(facts: Facts, estimate: Estimate | None) -> OtherSlots | None:
    """As slots_of_log(), of all processes together, where the answers leave no doubt: they show a limit inside the
    handlers too, of which the settings know nothing."""
    if not estimate or not estimate.is_certain or not estimate.slots or estimate.slots == facts.plan.slots:
        return None
    own = estimate.slots if facts.plan.workers == 1 else estimate.each
    seen = (facts.inside and facts.inside.slots_seen) or 0
    kind, of = ("inside", seen) if own and seen > own else ("answers", None)
    return OtherSlots(kind, estimate.slots, facts.plan.slots, of, estimate.each, estimate.processes)


# ---------------------------------------------------------------- what limited it


class Ranked(NamedTuple):
    limit: Limit
    is_full: bool  # it can have limited the run


def limits_of(
    facts: Facts, estimate: Estimate | None, explained: Explanation | None, other: OtherSlots | None
) -> tuple[Limit, ...]:
    """What limited the run, and what would be next; most binding first."""
    if not facts.measured.answered:
        return (Limit(Resource.NONE, 0.0),)
    found = [Ranked(Limit(Resource.BACKLOG, 1.0), True)] if has_overflowed(facts) else []
    by_answers = not facts.plan.slots_known or (other and other.kind in ("answers", "inside"))
    slots = limit_of_answers(facts, estimate) if by_answers and estimate else limit_of_slots(facts)
    found += [one for one in (slots, limit_of_cpu(facts, explained), limit_of_client(facts)) if one]
    if not any(one.is_full for one in found):
        found.append(Ranked(offered(facts), True))
    return tuple(one.limit for one in sorted(found, key=lambda one: place_of(one, cpu_busy(facts))))


def place_of(one: Ranked, busy: float) -> tuple[bool, int, float]:
    """To sort by. busy: the CPUs of the server.

    A backlog shows in the tail, whatever else is busy; and a request that waits for a CPU holds a slot meanwhile.
    """
    first = {Resource.BACKLOG: 0, Resource.CLIENT: 1} | ({Resource.CPU: 2} if busy >= 0.8 else {})
    return not one.is_full, first.get(one.limit.resource, 3) if one.is_full else 0, -one.limit.busy


def limit_of_answers(facts: Facts, estimate: Estimate) -> Ranked | None:
    """The slots that the answers show, if they leave no doubt."""
    slots, wait_s, measured = estimate.slots, facts.plan.wait_s, facts.measured
    if not slots or not wait_s or not estimate.is_certain:
        return None
    most = max(workers_of(facts).values(), default=0)
    busy = max(measured.answered / slots, most / (estimate.each or slots)) * wait_s / measured.measured_s
    return Ranked(Limit(Resource.SLOTS, min(1.0, busy), slots / wait_s, slots, wait_s, from_answers=True), True)


def limit_of_slots(facts: Facts) -> Ranked | None:
    """The slots of the settings, or the pool behind them."""
    plan, measured, launch, slots = facts.plan, facts.measured, facts.plan.launch, facts.plan.slots
    if not slots or not plan.wait_s:
        return None
    each = plan.slots_per_worker or math.inf
    is_pool = bool(launch and launch.pool == each != launch.threads)
    logged_s = facts.inside.handler_s if facts.inside and not is_pool else None
    held_s = measured.answered * plan.busy_s if logged_s is None else logged_s
    busy = held_s / (slots * measured.measured_s)
    is_full = busy >= 0.85 or measured.mean_in_flight > 1.05 * slots
    if not plan.load.is_steady:  # some of a burst have waited
        shares = [] if plan.shared_queue else workers_of(facts).values()
        is_full = measured.sent > slots or max(shares, default=0) > each
    resource = Resource.POOL if is_pool else Resource.SLOTS
    return Ranked(Limit(resource, min(1.0, busy), slots / plan.busy_s, slots, plan.busy_s), is_full)


def limit_of_cpu(facts: Facts, explained: Explanation | None) -> Ranked | None:
    if facts.measured.server_cpu_s is None:
        return None
    busy, cpus, held_s = cpu_busy(facts), processors(facts.plan), facts.measured.server_cpu_s / facts.measured.answered
    limit = Limit(Resource.CPU, min(1.0, busy), cpus / held_s if held_s else None, held_s=held_s, cpus=cpus)
    return Ranked(limit, busy >= 0.8 or explained is Explanation.CPU)


def limit_of_client(facts: Facts) -> Ranked:
    """held_s: CPU seconds of the client for a request."""
    plan, measured = facts.plan, facts.measured
    cpu_s, held_s = measured.client_cpu_s, measured.client_cpu_s / measured.sent
    busy = cpu_s / measured.measured_s
    full = 0.85 * (1 - taken_by_others(measured, plan.all_cpus))
    if plan.client_on_server_cpus and busy + (measured.server_cpu_s or 0.0) / measured.measured_s > full:
        return Ranked(Limit(Resource.CLIENT, 1.0, held_s=held_s, shares_cpus=True), True)
    return Ranked(Limit(Resource.CLIENT, min(1.0, busy), 1 / held_s if held_s else None, held_s=held_s), busy >= 0.8)


def offered(facts: Facts) -> Limit:
    """Where no resource was full: what was offered was the limit, or nothing that we can see."""
    load = facts.plan.load
    rate_rps = load.offered_load(1, 1.0)  # of a schedule
    if rate_rps is not None and facts.measured.throughput_rps >= 0.9 * rate_rps:
        return Limit(Resource.ARRIVALS, 1.0, rate_rps)
    if rate_rps is None and load.is_steady and facts.plan.wait_s:
        return Limit(Resource.ARRIVALS, 1.0)
    return Limit(Resource.NONE, 0.0)


# ---------------------------------------------------------------- what to warn of


def warnings_of(
    facts: Facts, explained: Explanation | None, band: Band | None, other: OtherSlots | None
) -> list[Warned]:
    """Everything that a reader must know before believing the run."""
    plan, measured, inside = facts.plan, facts.measured, facts.inside
    sent, found = measured.sent, list[Warned]()
    if inside and inside.server_ended:
        counts = {"failed": measured.failed, "sent": sent}
        found.append(Warned("server-ended", counts | {"said": list(inside.server_said), "log": inside.server_log}))
    else:
        found += warnings_of_client(facts)
    if inside and inside.log_lines not in (None, sent):
        found.append(Warned("log-lines", {"lines": inside.log_lines, "sent": sent}))
    found += why_not_as_predicted(facts, explained, band, other)
    if (share := taken_by_others(measured, plan.all_cpus)) > 0.15:
        found.append(Warned("busy-machine", {"share": share}))
    ceiling_rps, rps = facts.prediction.ceiling_rps, measured.throughput_rps
    if ceiling_rps and rps > ceiling_rps * (1 + TOLERANCE) and measured.measured_s > 1:
        waits = {"wait_s": plan.wait_s, "wait_is_measured": plan.wait_is_measured}
        found.append(Warned("above-ceiling", {"throughput_rps": rps, "ceiling_rps": ceiling_rps} | waits))
    return [*found, *warnings_of_database(facts)]


def why_not_as_predicted(
    facts: Facts, explained: Explanation | None, band: Band | None, other: OtherSlots | None
) -> Sequence[Warned]:
    """The warning that an explanation needs. off: the figures that do not fit, as (figure, measured, predicted)."""
    figures = compared(facts, facts.prediction, band, False) if band else []
    off = [[one.figure.value, one.measured, one.predicted] for one in figures if not one.fits]
    of_explanation: dict[Explanation, tuple[str, dict[str, Any]]] = {
        Explanation.SPLIT: ("uneven-split", {"shares": list(workers_of(facts).values()), "off": off}),
        Explanation.NOTHING: ("unexplained", {"off": off}),
        Explanation.OTHER_SLOTS: ("other-slots", other._asdict() if other else {}),
        Explanation.LONGER_WAIT: (
            "longer-wait", {"alone_s": facts.measured.lone_s, "wait_s": facts.plan.wait_s, "off": off},
        ),
    }  # fmt: skip
    return [Warned(*of_explanation[explained])] if explained in of_explanation else []
