"""What a reader must know before believing a run, from the side of client, machine and database: ids and numbers.

report_words.py has the symptom, the likely cause and the next step of each id. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from engine.alone import Alone, is_far
from engine.band import at_once
from engine.estimate import TAKEN, processors, taken_by_others
from engine.run import Facts, Measured, Warned
from engine.targets import SEEDED_BOOKS

MOST_WARM_UP = 200  # requests that a warning advises to send first

AS_ALONE = 1.1  # times
IDLE_S = 1.0  # a pause in which a server may close a kept connection: they do after 2 s or more
LARGE_BODY_BYTES = 16_384  # more than a receiver takes at once


def warnings_of_client(facts: Facts) -> Iterator[Warned]:
    """What was off in the sending, and in what came back."""
    yield from of_failures(facts)
    yield from of_speed(facts)
    yield from of_stalls(facts)
    yield from of_connections(facts)


def of_failures(facts: Facts) -> Iterator[Warned]:
    measured, inside, sent, errors = facts.measured, facts.inside, facts.measured.sent, facts.measured.errors
    if measured.failed:
        counts = {
            "failed": measured.failed,
            "sent": sent,
            "errors": errors,
            "most": max(errors, key=errors.__getitem__),
            "unended": measured.unended,
            "unserved": unserved(facts),
            "stands": bool(inside and inside.where and inside.where.circle),
            "pauses": facts.plan.keep_alive and facts.plan.load.think_s >= IDLE_S,
        }
        said = {"said": list(inside.server_said), "log": inside.server_log} if inside else {}
        yield Warned("failed-requests", counts | said)
    if (measured.due or 0) > sent:
        yield Warned("never-left", {"due": measured.due, "sent": sent})
    if facts.plan.keep_alive and is_starved(measured) and not unserved(facts):
        counts = {"never": measured.never_answered, "opened": measured.sockets_opened, "answered": measured.answered}
        yield Warned("starved", counts)
    if measured.redirected:
        yield Warned("redirects", {"redirected": measured.redirected, "sent": sent})
    if late := connects_again(facts):
        overflows = measured.kernel.get("ListenOverflows", 0)
        yield Warned("backlog-overflow", {"late": late, "overflows": overflows})


def unserved(facts: Facts) -> int:
    """How many kept connections got no answer at all, as the server had taken as many as it serves at a time."""
    plan, users = facts.plan, facts.plan.load.steady_count or 0
    beyond = int(max(0.0, users - plan.most_connections)) if plan.keep_alive else 0
    return min(beyond, facts.measured.errors.get("timed out", 0))


def is_starved(measured: Measured) -> bool:
    """Whether some connections got answer upon answer, and the others none. One alone may have met a slow request."""
    others = measured.sockets_opened - measured.never_answered
    return measured.never_answered > 1 and others > 0 and measured.answered >= 5 * others


def of_speed(facts: Facts) -> Iterator[Warned]:
    """Whether the client was fast enough."""
    plan, measured, clients = facts.plan, facts.measured, facts.plan.processes
    busy = client_busy(facts)
    if busy > 0.8 and measured.measured_s > 0.5:
        more = 2 * clients if clients < plan.all_cpus else 0  # 0: no CPU is left
        yield Warned("client-limit", {"busy": busy, "processes": clients, "more_processes": more})
    if measured.lag_s and measured.latency_s:
        lag_s, latency_s = (of.p99 or of.max for of in (measured.lag_s, measured.latency_s))
        if lag_s > min(0.01, max(0.0005, 0.1 * latency_s)):
            yield Warned("late-sends", {"lag_s": lag_s, "latency_s": latency_s})


def client_busy(facts: Facts) -> float:
    """The share of a CPU that each client process used, without its waiting awake; 0 where nothing was sent."""
    measured = facts.measured
    return (measured.client_cpu_s - measured.client_spun_s) / facts.plan.processes / (measured.measured_s or math.inf)


def of_stalls(facts: Facts) -> Iterator[Warned]:
    """Whether the client ran all the time: what came while it did not counts as later than it was."""
    stalled_s, latency = facts.measured.client_stalled_s, facts.measured.latency_s
    if latency and stalled_s > max(0.1, 0.1 * latency.max):
        yield Warned("client-stalled", {"stalled_s": stalled_s})


def of_connections(facts: Facts) -> Iterator[Warned]:
    plan, measured, sent = facts.plan, facts.measured, facts.measured.sent
    # Sockets that are needed: one for each request under way, and the client closes those of failed requests itself. A
    # schedule opens what it needs.
    expected = min(plan.load.most_under_way, sent) + measured.failed
    keeps = plan.keep_alive and not plan.first_byte  # of a stream that was cut the client closes the connection
    if keeps and not plan.load.is_scheduled and measured.sockets_opened > 1.1 * expected + 1:
        yield Warned("no-keep-alive", {"sockets": measured.sockets_opened, "sent": sent, "expected": expected})
    if measured.late_bodies > 0.1 * sent:
        yield Warned("delayed-ack", {"late_bodies": measured.late_bodies})
    asked, under_way = plan.load.steady_count or 0, measured.mean_in_flight
    if under_way < 0.9 * asked and 10 * asked < sent and not measured.failed and not plan.load.think_s:
        yield Warned("little", {"under_way": under_way, "asked": asked})


def connects_again(facts: Facts) -> int:
    """How many connections waited for TCP to try again, as the server's listen queue was full.

    Linux counts for each connection what was sent again: also where the connect succeeded, and the wait came before the
    first byte. Of a large body that says nothing: what a full receiver does not take is sent again. There, and
    elsewhere, a connect that takes longer than TCP's first retry shows it.
    """
    is_large = len(facts.plan.body) > LARGE_BODY_BYTES
    return max(0 if is_large else facts.measured.sockets_resent, facts.measured.slow_connects)


def warnings_of_alone(facts: Facts) -> Iterator[Warned]:
    """What the requests by themselves showed: a first one that was cold; or that no two took the same time."""
    plan, of_kinds = facts.plan, facts.measured.alone
    if cold := [one for one in of_kinds if one.cold and not are_unlike(one)]:
        most = max(cold, key=lambda one: one.first_s)
        # How many connections a schedule opens at a time is not known before it.
        at_once = 0 if plan.load.is_scheduled else min(plan.load.most_under_way, facts.measured.sent, MOST_WARM_UP)
        more = {"cold": most.cold, "first_s": most.first_s, "usual_s": most.usual_s, "line": most.first_line}
        warmed = plan.warm_up or plan.warm_up_if_cold
        yield Warned(
            "cold", more | {"asked": most.asked, "warmed": warmed, "warm_up": int(at_once) if at_once > warmed else 0}
        )
    if plan.wait_is_measured and (unlike := [one for one in of_kinds if are_unlike(one)]):
        most = max(unlike, key=lambda one: one.most_s)
        more = {"requests": most.requests - most.cold, "least_s": most.least_s, "most_s": most.most_s}
        yield Warned(
            "unlike-alone", more | {"asked": most.asked, "wait_s": plan.wait_s if len(of_kinds) == 1 else None}
        )


def are_unlike(alone: Alone) -> bool:
    return not alone.are_alike and is_far(alone.most_s, alone.least_s)


def connected_cpus(facts: Facts) -> float:
    """How many CPUs the programs used that the service is connected to: a database on the same machine, for example."""
    return sum(one.cpus for one in facts.measured.neighbours if one.is_connected)


def warnings_of_machine(facts: Facts) -> Iterator[Warned]:
    """Which other programs computed, and whether a container held the run back."""
    measured = facts.measured
    if (share := taken_by_others(facts)) > 0.15:
        named = [[one.name, one.cpus, one.is_connected] for one in measured.neighbours]
        yield Warned("busy-machine", {"share": share, "named": named})
    if (throttled_s := measured.kernel.get("throttled_us", 0) / 1e6) > 0.02 * measured.measured_s:
        yield Warned("throttled", {"throttled_s": throttled_s, "cpus": facts.plan.cpu_limit})


def longer_handlers(facts: Facts) -> dict[str, float]:
    """The figures of that warning."""
    measured, inside = facts.measured, facts.inside
    handled_s = inside.handler_s / inside.log_lines if inside and inside.handler_s and inside.log_lines else 0.0
    used = (measured.server_cpu_s or 0.0) / (measured.measured_s or math.inf)
    return {"handled_s": handled_s, "assumed_s": facts.plan.busy_s, "cpu": used}


def takes_longer(facts: Facts) -> bool:
    """Whether the handlers took much longer under the load than by themselves, on average."""
    return added_in_handlers(facts, longer_handlers(facts)["handled_s"])


def only_some_take_longer(facts: Facts) -> bool:
    """Whether that is so, and half of them did not: these may take as long by themselves."""
    of_most_s = min(longer_handlers(facts)["handled_s"], usual_s(facts))
    return takes_longer(facts) and not added_in_handlers(facts, of_most_s)


def usual_s(facts: Facts) -> float:
    """Half of the requests were in their handlers for so long, or shorter; infinite: not known."""
    times = facts.inside and facts.inside.handlers
    return times.median if times else math.inf


def added_in_handlers(facts: Facts, handled_s: float) -> bool:
    """Whether that is much longer than by itself, and not for CPU: the server used too little of it, even if others
    took the rest."""
    plan, measured, inside = facts.plan, facts.measured, facts.inside
    is_known = inside and inside.handler_s and inside.log_lines and plan.wait_s and plan.distribution == "constant"
    if not is_known or plan.first_byte:  # after which the handler goes on
        return False
    # A request that shares the CPUs waits for the CPU time of all that are at work, at most ten times as long.
    cpu_s = 10 * at_once(facts) * (measured.server_cpu_s or math.inf) / measured.answered
    return handled_s - plan.busy_s > max(0.2 * plan.busy_s + 0.02, cpu_s)


def warnings_of_database(facts: Facts) -> Iterator[Warned]:
    """The requests against what Postgres counted."""
    measured = facts.measured
    database, asked = facts.inside and facts.inside.database, measured.sent + measured.warmed_up
    if not database or database.error or measured.failed:
        return
    if database.rows != SEEDED_BOOKS + measured.created:
        yield Warned("rows", {"rows": database.rows, "created": measured.created})
    # A connection that is still there has not reported all of its statements, and victims have executed some, too.
    if not database.connections and not facts.plan.victim and database.statements not in (None, asked):
        yield Warned("statements", {"statements": database.statements, "asked": asked})


def share_beside(facts: Facts) -> float:
    """The share of the CPU time, 0 to 1, that was seen to be of no request: of threads and tasks of the app's own."""
    computing = facts.inside and facts.inside.where and facts.inside.where.computing
    if not computing or not computing.cpu_s:
        return 0.0
    beside_s = sum(spot.cpu_s for spot in computing.places if not spot.requests)
    return beside_s / max(computing.cpu_s, sum(spot.cpu_s for spot in computing.places))  # not all of it was seen


def cpu_busy(facts: Facts) -> float:
    """The share of the CPU time that the server's processes could have, less what other programs took, and used."""
    others = taken_by_others(facts)
    cpus = processors(facts) * (1.0 if others > TAKEN else 1 - others)  # of much it is the others that limit
    return (facts.measured.server_cpu_s or 0.0) / (cpus * facts.measured.measured_s or math.inf)


def goes_as_alone(facts: Facts) -> bool:
    """Whether those that have what limits take no longer than a request by itself: then no CPU time adds to it."""
    limit, busy_s = facts.inside and facts.inside.where and facts.inside.where.limit, facts.plan.busy_s
    if not limit or not limit.held_s or not busy_s:
        return False
    cpu_s = (facts.measured.server_cpu_s or 0.0) / max(1, facts.measured.answered)
    return cpu_s < limit.held_s / 2 and limit.held_s < AS_ALONE * busy_s


def is_mostly_beside(facts: Facts) -> bool:
    """Whether that is most of it."""
    return share_beside(facts) > 0.5
