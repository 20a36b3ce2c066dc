"""Whether nothing goes on any more, as requests hold what others need and wait for what these hold. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.limit import FEW, HALF, ITSELF, LOOP, is_lock, owners_of, requests_in
from engine.order import is_in
from engine.places import Spot, State


def size_of_one(spot: Spot) -> float | None:
    """The size of one lock, or of that of one process, where several of a name were added up."""
    return 1.0 if is_lock(spot.resource or "") else spot.size_of_each or spot.size


def requests_for(resource: str, spots: Iterable[Spot]) -> float:
    return sum(spot.requests for spot in spots if spot.resource == resource)


def name_among(spots: Iterable[Spot], of: Spot) -> str:
    """The resource that requests wait for at a place; with where it was made, if they wait for others of that name."""
    made_at = {one.size_line for one in spots if one.resource == of.resource and one.size_line}
    return f"{of.resource} made at {of.size_line}" if len(made_at) > 1 and of.size_line else of.resource or ""


def one_works(spots: Iterable[Spot]) -> bool:
    """Whether at least one request is worked on most of the time."""
    return any(spot.state is State.WORKING and not spot.resource and spot.requests >= HALF for spot in spots)


def is_stuck(spot: Spot) -> bool:
    """Whether requests that were accepted wait there for what others hold."""
    return spot.state is not State.QUEUED and bool(spot.resource) and spot.resource != LOOP


def circle_of(spots: Sequence[Spot]) -> dict[str, float | None]:
    """The resources of a standstill with their sizes, whose sum is how many requests make one; empty: something goes
    on, or the holders are not seen.

    Nothing goes on, and what is waited for is held by requests that wait, too.
    """
    stuck = [spot for spot in spots if is_stuck(spot)]
    holding = [spot for spot in stuck if not spot.has_nothing]
    sizes = {name_among(spots, spot): size_of_one(spot) for spot in holding}
    blocking = [name_among(spots, spot) for spot in stuck if spot.state is State.BLOCKING]
    if blocking:  # whatever has what the loop's thread waits for cannot go on, as the loop does not
        return {LOOP: 1.0, blocking[0]: sizes[blocking[0]]}
    if one_works(spots) or requests_in(stuck, *State) < (1 - FEW) * requests_in(spots, *{*State} - {State.QUEUED}):
        return {}
    return {ITSELF: round(requests_for(ITSELF, stuck))} if ITSELF in sizes else of_each_other(holding, sizes)


def of_each_other(holding: Sequence[Spot], sizes: dict[str, float | None]) -> dict[str, float | None]:
    """The resources, if requests that have them wait for them."""
    if [*sizes.values()] == [1.0]:  # which request has a single lock is not seen
        return sizes | {"another one of these": 1.0} if have_each_other(holding) else {}
    return sizes if len(holding) > 1 else {}


def have_each_other(waiting: Sequence[Spot]) -> bool:
    """Whether requests wait for several locks, inside of with statements that took one of them."""
    outer = [one for one in waiting if one.held_to is not None]
    inside = [one for one in waiting if any(is_in(by, one, by.held_to or 0) for by in outer)]
    return requests_in(inside, *State) >= len(owners_of(inside)) > 1
