"""Does a run fit its prediction, what explains it, what limited it, what must its reader know? Values only. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from engine.audit import (
    client_busy,
    connected_cpus,
    connects_again,
    cpu_busy,
    goes_as_alone,
    is_mostly_beside,
    longer_handlers,
    only_some_take_longer,
    share_beside,
    takes_longer,
    usual_s,
    warnings_of_alone,
    warnings_of_client,
    warnings_of_database,
    warnings_of_machine,
)
from engine.band import TOLERANCE, band_of, compared, most_of_one, much_longer_s, shares_of
from engine.estimate import TAKEN, doubted, first_true, processors, taken_by_others
from engine.limit import LOOP, requests_in
from engine.places import Limit, Resource, Spot, State, Where
from engine.run import Band, Estimate, Explanation, Facts, Prediction, Run, Verdict, Warned

MANY = 0.1  # of the requests
AS_PREDICTED = (Explanation.PREDICTION, Explanation.SPLIT, Explanation.CPU)
BESIDE = 0.15  # of the CPU time: so much by no request, and a rate that CPU allows is not known
BUSY = 0.8  # a resource that is in use for so large a share of the time is full


def judge(facts: Facts, estimate: Estimate | None, timer_s: float) -> Verdict:
    """The verdict on a run. timer_s: how late a sleeping process wakes on this machine."""
    band, estimate = band_of(facts, timer_s), doubted(estimate, facts)
    explained = explain(facts, estimate, band)
    other = None
    if explained is Explanation.OTHER_SLOTS:
        other = slots_of_log(facts) or slots_of_answers(facts, estimate)
    limits = () if facts.measured.failed else limits_of(facts, estimate, other, explained)  # else rates say nothing
    warnings = *warnings_of(facts), *why_not_as_predicted(facts, explained, band, other)
    return Verdict(explained, limits, estimate, band, warnings)


# ---------------------------------------------------------------- what explains it


def explain(facts: Facts, estimate: Estimate | None, band: Band | None) -> Explanation | None:
    """What the figures agree with: the prediction; the same given the split; one of the two with the CPU time that was
    used, unless other slots were seen. Else what may be the reason, or nothing.

    None: nothing was predicted, or requests failed.
    """
    if facts.measured.failed or facts.measured.stopped or not band:
        return None
    if not compared(facts, facts.prediction, band, False):
        return None
    if slots_of_log(facts) and not seen_limit(facts):
        return Explanation.OTHER_SLOTS
    return agreement(facts, band) or reason_of(facts, estimate)


def agreement(facts: Facts, band: Band) -> Explanation | None:
    """Which prediction the figures agree with, if one."""
    tries = (
        (Explanation.PREDICTION, facts.prediction, False),
        (Explanation.SPLIT, facts.split_prediction, False),
        (Explanation.CPU, facts.prediction, True),
        (Explanation.SPLIT, facts.split_prediction, True),
    )
    seen = seen_limit(facts)
    other_was_seen = seen and (seen.slots or 0) != facts.plan.slots
    for explanation, prediction, with_cpu in tries:
        if with_cpu and (other_was_seen or some_wait_inside(facts) or is_mostly_beside(facts)):
            break
        if prediction and all(figure.fits for figure in compared(facts, prediction, band, with_cpu)):
            is_mostly_cpu = with_cpu and explains_little(facts, prediction)
            return Explanation.CPU if is_mostly_cpu else explanation
    return None


def explains_little(facts: Facts, prediction: Prediction) -> bool:
    """Whether a prediction is nearer to the one that was made than to what was measured."""
    figure = facts.plan.load.judged_by[0]
    measured, made, this = facts.measured.of(figure), facts.prediction.of(figure), prediction.of(figure)
    if not measured or not made or not this:
        return False
    return abs(this - made) < abs(measured - this)


def some_wait_inside(facts: Facts) -> bool:
    """Whether a good part of the requests was seen to wait for what others hold, be it the limit or not."""
    where = facts.inside.where if facts.inside else None
    return bool(where and waiting_inside(where) > MANY * where.requests)


def waiting_inside(where: Where) -> float:
    """How many requests wait for what others hold, but for the server's slots."""
    inside = [one for one in where.places if one.resource != LOOP and not is_servers(one)]
    return requests_in(inside, State.WAITING)


def seen_limit(facts: Facts) -> Limit | None:
    """What the requests were seen to wait for, inside the server's processes."""
    return facts.inside.where.limit if facts.inside and facts.inside.where else None


def binding(run: Run) -> Limit | None:
    """What the requests were seen to wait for, where that is what limits."""
    limit = seen_limit(run)
    return limit if limit in run.verdict.limits else None


def is_servers(limit: Limit | Spot) -> bool:
    """Whether it is the server that has so many, and not the handlers."""
    return limit.resource == Resource.SLOTS or (limit.resource or "").startswith("AnyIO")


def reason_of(facts: Facts, estimate: Estimate | None) -> Explanation:
    """What may be the reason that no figure agrees with a prediction."""
    plan, alone_s = facts.plan, facts.measured.lone_s or 0.0
    client = {warned.id for warned in warnings_of_client(facts)}
    reasons = {
        "sooner": is_faster(facts) and not slots_of_answers(facts, estimate),
        "cpu": is_full_of_work(facts) and not is_faster(facts) and not computes_beside(facts),
        "inside": waits_inside(facts),
        "after-answer": is_held_after(facts),
        "opened-anew": opens_anew(facts),
        "restarts": facts.inside and facts.inside.restarts,
        "connected": connected_cpus(facts) >= BUSY,
        "different-times": only_some_take_longer(facts),
        "longer-handlers": takes_longer(facts),
        "busy-machine": taken_by_others(facts) > TAKEN,
        "other-slots": slots_of_answers(facts, estimate),
        **{
            one: one in client
            for one in ("client-stalled", "backlog-overflow", "client-limit", "late-sends", "delayed-ack")
        },
        "longer-wait": plan.wait_s and alone_s > 1.1 * plan.wait_s + plan.cpu_time_s + 0.02,
    }
    return Explanation(first_true(reasons) or "nothing")


def waits_inside(facts: Facts) -> bool:
    """Whether requests were seen to wait for something else than the slots that were predicted."""
    limit, plan = seen_limit(facts), facts.plan
    if not limit or limit.resource == Resource.SLOTS:
        return False
    return limit.slots != plan.slots or not (is_servers(limit) or plan.slots_stated)


def is_held_after(facts: Facts) -> bool:
    """Whether requests keep their slots after the answer, so that others wait for these."""
    return bool(seen_limit(facts)) and some_are_answered(facts)


def some_are_answered(facts: Facts) -> bool:
    """Whether requests were seen that keep what they have after their answer."""
    where = facts.inside and facts.inside.where
    return bool(where and any(one.state is State.ANSWERED and one.requests >= 0.5 for one in where.places))


def opens_anew(facts: Facts) -> bool:
    """Whether the requests that opened a connection for a pool that does not keep it are at least half of those that
    were under way beyond the prediction."""
    where, latency, predicted_s = facts.inside and facts.inside.where, facts.measured.latency_s, facts.prediction.mean_s
    if not (where and where.opening and latency and predicted_s and facts.plan.load.is_steady):
        return False
    return 0 < 0.5 * facts.measured.throughput_rps * (latency.mean - predicted_s) <= where.opening.requests


def is_faster(facts: Facts) -> bool:
    """Whether answers came sooner than predicted: nothing that is busy does that."""
    figure = facts.plan.load.judged_by[0]
    measured, predicted = facts.measured.of(figure), facts.prediction.if_even.get(figure, facts.prediction.of(figure))
    return bool(measured and predicted and measured < predicted * (1 - TOLERANCE))


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
    held, seen, most = held_in_log(facts), inside.slots_seen or 0, most_of_one(facts)
    behind = predicted if len(inside.requests_of_workers) == 1 else math.inf  # a pool's, or stated, which is for all
    if held is not None and (held < behind < math.inf if predicted < each == math.inf else held != each):
        return OtherSlots("held", held, plan.slots_per_worker, most)
    kind = first_true({"seen-more": seen > each, "never-more": never_more(facts, seen, min(each, behind))})
    return OtherSlots(kind, seen, plan.slots_per_worker, most) if kind else None


def held_in_log(facts: Facts) -> int | None:
    """The slots of a worker by its log; None: not known. All users there are, or all but the one that waits, are no
    slots: that one may wait for CPU time. Of requests that keep a slot after the answer the log has no line."""
    held, users = facts.inside.slots_held if facts.inside else None, facts.plan.load.steady_count
    return None if held is None or users in (held, held + 1) or some_are_answered(facts) else held


def never_more(facts: Facts, seen: int, due: float) -> bool:
    """Whether a worker never had as many requests of a burst as are due, but took more, which could have begun before
    the first had ended."""
    cpu_s = (facts.measured.server_cpu_s or math.inf) / max(1, facts.measured.answered)
    wait_s = facts.plan.wait_s or 0.0
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


def limits_of(
    facts: Facts, estimate: Estimate | None, other: OtherSlots | None, explained: Explanation | None = None
) -> tuple[Limit, ...]:
    """What limited the run, and what would be next; most binding first."""
    if not facts.measured.answered:
        return (Limit(Resource.NONE, 0.0),)
    seen, is_no_limit = seen_limit(facts), explained is Explanation.PREDICTION and waits_inside(facts)
    by_answers = not facts.plan.slots_known or (other and other.kind in ("answers", "inside"))
    slots = limit_of_answers(facts, estimate) if estimate and by_answers else limit_of_slots(facts)
    slots = [(FULL, seen)] if seen and not is_no_limit else slots  # it cost no time that was not predicted
    if takes_longer(facts) and not is_held_after(facts):  # what keeps the handlers is the limit, and was not seen
        slots = [(place, one) for place, one in slots if one.resource != Resource.SLOTS]
    backlog = [(0, Limit(Resource.BACKLOG, 1.0))] * bool(connects_again(facts))
    found = [limit_of_client(facts), *slots, *limit_of_cpu(facts), *limit_of_machine(facts), *backlog]
    found.sort(key=lambda one: (one[0], -one[1].busy))
    limits = tuple(limit for _, limit in found)
    return limits if found[0][0] != NOT_FULL else (offered(facts, explained), *limits)


def limit_of_answers(facts: Facts, estimate: Estimate) -> list[Placed]:
    """The slots that the answers show, if they leave no doubt."""
    slots, wait_s, measured = estimate.low, estimate.held_s or facts.plan.wait_s, facts.measured
    if not wait_s or not estimate.is_certain:
        return []
    busy = min(1.0, measured.answered * wait_s / (slots * measured.measured_s))
    return [(FULL, Limit(Resource.SLOTS, busy, slots / wait_s, slots, wait_s, from_answers=True))]


def limit_of_slots(facts: Facts) -> list[Placed]:
    """The slots of the settings, or the pool behind them."""
    plan, measured, slots, launch = facts.plan, facts.measured, facts.plan.slots, facts.plan.launch
    is_pool = bool(launch and launch.pool == plan.slots_per_worker != launch.threads)  # of database connections
    is_known = slots and plan.wait_s and not are_contradicted(facts, slots) and not some_are_answered(facts)
    if not slots or not is_known or are_enough(facts, slots):
        return []
    logged_s = facts.inside and not is_pool and len(plan.passes) == 1 and facts.inside.handler_s
    busy = (logged_s or measured.answered * plan.busy_s) / (slots * measured.measured_s)
    held_s = held_by_handler_s(facts)
    limit = Limit(Resource.POOL if is_pool else Resource.SLOTS, min(1.0, busy), slots / held_s, slots, held_s)
    return [(FULL if have_waited(facts, slots, busy) else NOT_FULL, limit)]


def are_enough(facts: Facts, slots: float) -> bool:
    """Whether none had to wait for a slot, and what keeps them so long is something else."""
    is_uneven = not facts.plan.load.is_steady and most_of_one(facts) > (facts.plan.slots_per_worker or math.inf)
    is_longer = held_by_handler_s(facts) > much_longer_s(facts.plan.busy_s)
    return facts.plan.load.most_under_way <= slots and is_longer and not is_uneven


def held_by_handler_s(facts: Facts) -> float:
    """How long a request holds a slot of the server: as long as is planned, or as its handler was seen to take."""
    handled_s, planned_s = longer_handlers(facts)["handled_s"], facts.plan.busy_s
    return max(handled_s, planned_s) if facts.inside and len(facts.plan.passes) == 1 else planned_s


def are_contradicted(facts: Facts, slots: float) -> bool:
    """Whether more was served than these slots and this wait allow, or fewer were there, as workers were replaced."""
    is_more = facts.measured.throughput_rps > slots / facts.plan.busy_s * (1 + TOLERANCE)
    return is_more or bool(facts.inside and facts.inside.restarts)


def have_waited(facts: Facts, slots: float, busy: float) -> bool:
    """Whether requests have waited for a slot."""
    plan, measured = facts.plan, facts.measured
    if plan.load.is_steady:
        return busy >= 0.85 or measured.mean_in_flight > 1.05 * slots
    return measured.sent > slots or most_of_one(facts) > (plan.slots_per_worker or math.inf)


def limit_of_cpu(facts: Facts) -> list[Placed]:
    if facts.measured.server_cpu_s is None or computes_beside(facts):
        return []
    busy, cpus, held_s = cpu_busy(facts), processors(facts), facts.measured.server_cpu_s / facts.measured.answered
    limit = Limit(Resource.CPU, min(1.0, busy), cpus / held_s if held_s else None, held_s=held_s, cpus=cpus)
    if share_beside(facts) > BESIDE:  # of which it is not known whether it grows with the requests
        limit = Limit(Resource.CPU, min(1.0, busy), cpus=cpus)
    return [(2 if is_full_of_work(facts) else NOT_FULL, limit)]


def is_full_of_work(facts: Facts) -> bool:
    return cpu_busy(facts) >= BUSY and not goes_as_alone(facts)


def computes_beside(facts: Facts) -> bool:
    """Whether most of the CPU time was seen to be of no request, while requests wait for something inside."""
    return waits_inside(facts) and is_mostly_beside(facts)


def limit_of_machine(facts: Facts) -> list[Placed]:
    """The CPUs that client and server share, where neither of them is busy by itself."""
    cpus, measured = facts.plan.shared_cpus, facts.measured
    share = (measured.client_cpu_s + (measured.server_cpu_s or 0.0)) / (cpus * measured.measured_s or math.inf)
    if share <= 0.85 * (1 - taken_by_others(facts)) or taken_by_others(facts) > TAKEN:  # then it is the others
        return []
    return [(2, Limit(Resource.MACHINE, min(1.0, share), cpus=cpus))]


def limit_of_client(facts: Facts) -> Placed:
    """held_s: CPU seconds of the client for a request."""
    measured, processes, busy = facts.measured, facts.plan.processes, client_busy(facts)
    held_s = measured.client_cpu_s / measured.sent
    limit = Limit(Resource.CLIENT, min(1.0, busy), processes / held_s if held_s else None, held_s=held_s)
    return 1 if busy >= BUSY else NOT_FULL, limit


def offered(facts: Facts, explained: Explanation | None) -> Limit:
    """Where no resource was full: what was offered was the limit, or nothing that we can see."""
    load, rate_rps = facts.plan.load, facts.plan.load.offered_load(1, 1.0)  # of a schedule
    latency_s = facts.measured.latency_s.mean if facts.measured.latency_s else math.inf
    # Users get all that they ask for as long as an answer takes no longer than one to a request by itself.
    is_served = bool(load.is_steady and facts.plan.wait_s and latency_s < 1.2 * facts.plan.busy_s + 0.01)
    is_served = is_served and explained in (None, Explanation.SOONER, *AS_PREDICTED)
    if rate_rps is not None:
        is_served = facts.measured.throughput_rps >= 0.9 * rate_rps and not facts.measured.drift
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
    if opening := inside and inside.where and inside.where.opening:
        yield Warned("opened-anew", vars(opening))
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
            "sooner",
            off | {"shortest_s": shortest_s, "wait_s": plan.wait_s, "slots": plan.slots, "passes": len(plan.passes)},
        ),
        Explanation.CONNECTED: Warned("connected", {"cpus": connected_cpus(facts)}),
        Explanation.LONGER_HANDLERS: Warned("longer-handlers", longer_handlers(facts)),
        Explanation.DIFFERENT_TIMES: Warned("different-times", longer_handlers(facts) | {"usual_s": usual_s(facts)}),
        Explanation.LONGER_WAIT: Warned("longer-wait", off | {"alone_s": measured.lone_s, "wait_s": plan.wait_s}),
    }
    if explained in found:
        yield found[explained]
    elif explained is Explanation.OTHER_SLOTS and other:
        yield Warned("other-slots", other._asdict())
