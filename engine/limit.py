"""What limits the requests, or lets nothing go on: read from the places where they stand. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import linear_regression
from typing import NamedTuple

from engine.places import Limit, Resource, Spot, State, Where

LOOP = "the event loop"  # as the sampler calls what a task waits for that could run
ITSELF = "an answer of this very server"
MOSTLY, HALF = 0.8, 0.5  # of the samples
FEW = 0.02  # of the requests
LATE_S = 0.05  # for a sample that came late
UNSEEN = 0.25  # of a request: a mean misses some that are just on their way


class Answers(NamedTuple):
    """When requests were answered, sorted; on the clock of the samples."""

    times_s: Sequence[float]
    of_burst: bool
    since_s: Mapping[str, float] = {}  # when a resource was first waited for
    processes: int = 1


def requests_in(spots: Iterable[Spot], *states: State) -> float:
    """How many requests are in these states."""
    return sum(spot.requests for spot in spots if spot.state in states)


def total(sizes: Iterable[float | None]) -> float | None:
    """The sum; None if one is not known."""
    known = list(sizes)
    return None if None in known else sum(filter(None, known))


# ---------------------------------------------------------------- the limit


def limit_of(where: Where, blocks: Sequence[Spot], answers: Answers, slots: float | None = None) -> Limit | None:
    """The resource that requests wait for and whose holders wait for no other; None: none is seen.

    Where resources are held one inside another, that is the one that the fewest hold. blocks: the places that block an
    event loop. slots: of the server's settings: they are the limit where so many requests are
    worked on, and the others have not been accepted.
    """
    if where.blocked >= MOSTLY and (blocking := blocking_place(blocks)):
        return limit_at(blocking, 1.0 * blocking.processes, LOOP, answers)
    past = {spot: holders(where.places, spot) for spot in waiting_places(where)}
    if not past:
        queued = slots and queue_for(where, slots)
        return limit_at(queued, slots or 1.0, Resource.SLOTS.value, answers) if queued else None
    fewest = min(past.values())
    spot = max((one for one, slots in past.items() if slots == fewest), key=lambda one: one.requests)
    # Answers say nothing of when a slot of a burst is given back, if that is after the answer.
    ends_late = answers.of_burst and requests_in(where.places, State.ANSWERED) > FEW * where.requests
    known = answers._replace(times_s=[]) if ends_late else answers
    found = limit_at(spot, max(1.0, round(2 * fewest) / 2), spot.resource or "", known)
    return replace(found, next_slots=min((slots for slots in past.values() if slots > fewest), default=None))


def queue_for(where: Where, slots: float) -> Spot | None:
    """The requests that no process has accepted, while as many are worked on as there are slots; None: not so."""
    queued = requests_in(where.places, State.QUEUED)
    inside = requests_in(where.places, *State) - queued
    return Spot(queued, State.QUEUED, size=slots) if queued > FEW * where.requests and round(inside) == slots else None


def waiting_places(where: Where) -> list[Spot]:
    """Where more than a few requests wait for something that others hold."""
    least = max(0.5, FEW * where.requests)
    waiting = [spot for spot in where.places if spot.state is State.WAITING and spot.resource in where.persistent]
    return [spot for spot in waiting if spot.requests >= least and spot.resource != LOOP]


def holders(spots: Sequence[Spot], waiting: Spot) -> float:
    """How many requests have what those at a place wait for: its size, in requests; else those that are seen to go on,
    inside of the same function of the app as the waiting ones if there are such."""
    go_on = [one for one in spots if one.state in (State.WORKING, State.BLOCKING, State.ANSWERED) and not one.resource]
    if waiting.size is not None:
        parts = max([waiting.parts, *(one.parts for one in go_on if one.requests >= HALF)])
        return waiting.size / parts
    named = ([one for one in go_on if function in one.through] for function in reversed(waiting.through))
    inside = next(filter(None, named), go_on)
    most = max((one.most for one in inside), default=0.0)
    return max(1.0, round(most), math.ceil(requests_in(inside, *State) - UNSEEN))


def blocking_place(spots: Sequence[Spot]) -> Spot | None:
    """The line of the app that blocks the event loop in most samples; None: there is no such line."""
    found = [one for one in spots if one.line and not one.resource and one.share >= HALF]
    return max(found, key=lambda one: one.share, default=None)


def limit_at(spot: Spot, slots: float, resource: str, answers: Answers) -> Limit:
    if re.search("[Ff]uture|Event", resource):  # it frees all that wait for it at once
        return Limit(resource, 1.0, line=spot.line, waiting=spot.requests, is_sized=False)
    held_s = holding_time_s(slots, answers, answers.since_s.get(resource))
    return Limit(
        resource, 1.0, slots / held_s if held_s else None, slots, held_s, line=spot.line, waiting=spot.requests,
        setting=spot.setting, size_line=spot.size_line, is_sized=spot.size is not None,
    )  # fmt: skip


def holding_time_s(slots: float, answers: Answers, since_s: float | None = None) -> float | None:
    """How long a request holds a slot: slots over the rate of answers, at which slots are given back.

    Of a burst the full rounds count, and of several processes the first half, as one of them may have nothing left to
    do; of other loads what comes after a third of the time. None: too few answers; or the first comes so long after
    requests began to wait that they must need a slot more than once.

    >>> holding_time_s(2, Answers([1.0, 1.0, 2.0, 2.0, 3.0], True))
    1.0
    """
    times = list(answers.times_s)
    if answers.of_burst:
        times = times[: len(times) // (1 if answers.processes < 2 else 2) // round(slots) * round(slots)]
    elif times:
        times = [at_s for at_s in times if at_s >= times[0] + (times[-1] - times[0]) / 3]
    if len(times) < 2 * slots or times[-1] <= times[0]:
        return None
    rate_rps: float = linear_regression(times, range(len(times))).slope
    held_s = slots / rate_rps if rate_rps > 0 else math.inf
    is_late = answers.of_burst and since_s is not None and times[0] - since_s > 1.5 * held_s + LATE_S
    return None if is_late or held_s == math.inf else held_s


# ---------------------------------------------------------------- a standstill


def circle_of(spots: Sequence[Spot]) -> dict[str, float | None]:
    """The resources of a standstill with their sizes, whose sum is how many requests make one; empty: something goes
    on, or the holders are not seen.

    Nothing goes on, and what is waited for is held by requests that wait, too.
    """
    inside = [spot for spot in spots if spot.state is not State.QUEUED]
    stuck = [spot for spot in inside if spot.resource and spot.resource != LOOP]
    sizes = {spot.resource or "": spot.size for spot in stuck}
    blocking = [spot.resource or "" for spot in stuck if spot.state is State.BLOCKING]
    if blocking:  # whatever has what the loop's thread waits for cannot go on, as the loop does not
        return {LOOP: 1.0, blocking[0]: sizes[blocking[0]]}
    if requests_in(stuck, *State) < (1 - FEW) * requests_in(inside, *State):
        return {}
    if ITSELF in sizes:
        return {ITSELF: float(round(requests_in(stuck, *State)))}
    return sizes if len(stuck) > 1 else {}
