"""What limits the requests, or lets nothing go on: read from the places where they stand. Pure."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import linear_regression
from typing import Any, NamedTuple

from engine.order import is_before, is_in, is_outside_of, number_of, where_in_file
from engine.places import Limit, Resource, Spot, State, Where
from engine.stats import passes_by_burst, passes_by_load

LOOP = "the event loop"  # as the sampler calls what a task waits for that could run
ITSELF = "an answer of this very server"
SQLITE = "SQLite's write lock"
RESULT = "a result"  # and what something of no request gives
TIMED = "with a time limit"  # as the sampler calls the setting of what is waited for no longer than that
FREES_ALL = re.compile(r"a future of|an? \w*(Event|Barrier)$")  # that wait for it, at once
CONDITION = re.compile(r"an? \w*Condition$")  # may free one or all
MOSTLY, HALF = 0.8, 0.5  # of the samples
FEW = 0.02  # of the requests
GOES_ON = (State.WORKING, State.BLOCKING, State.ANSWERED)
LATE_S = 0.05  # for a sample that came late
LEAST_FULL = 3  # samples that have to show all slots taken
ALWAYS = 0.9  # of the samples: so often in use that the rate of answers tells how long it is held
LEAST_HAD, EVEN = 0.6, 0.8  # requests that go on; and of the most that go on, the mean
IN_USE = 0.75  # of a resource, at least, by the requests that can have it; else something else has the rest
ALSO_BLOCKS = 0.15  # of the samples
LEAST_MORE, MORE = 2, 1.25  # samples, and times its size, that show that more have a semaphore than it was made for
SOONER = 0.8  # of the time that requests of a burst wait for another resource: what they wait for no longer is over
UNSEEN = 0.25  # of a request: a mean misses some that are just on their way


class Answers(NamedTuple):
    """When requests were answered, sorted; on the clock of the samples."""

    times_s: Sequence[float]
    of_burst: bool
    since_s: Mapping[Any, float] = {}  # when a resource was first waited for: by its name, or name and object
    processes: int = 1
    busy: Mapping[str, float] = {}  # of a load that goes on: the share of the time that a resource was fully in use
    until_s: Mapping[str, float] = {}  # when the first process had a resource left over, at the end of a burst
    last_s: Mapping[Any, float] = {}  # when it was last waited for, as since_s
    at_once: frozenset[str] = frozenset()  # resources that requests waited for together, see in_use.py

    def none(self) -> Answers:
        """Where they do not show how long a slot is held."""
        return self._replace(times_s=[])


def requests_in(spots: Iterable[Spot], *states: State) -> float:
    """How many requests are in these states."""
    return sum(spot.requests for spot in spots if spot.state in states)


# ---------------------------------------------------------------- the limit


def limit_in(
    where: Where, blocking: Sequence[Spot], answers: Answers, sent: tuple[Sequence[float], Sequence[float]],
    slots: float | None,
) -> Limit | None:  # fmt: skip
    """The limit; without a holding time where more was served than that would allow, or requests pass by.

    sent: when each request began and ended.
    """
    limit, times_s = limit_of(where, blocking, answers, slots), answers.times_s
    if not limit or not limit.ceiling_rps or not times_s:
        return limit
    # The first requests find free slots, and what is held after the answer delays only those behind them.
    is_exceeded = (len(times_s) - (limit.slots or 0)) / (times_s[-1] - min(sent[0])) > 1.02 * limit.ceiling_rps
    # But each request needs one of the server's slots.
    passes_by = passes_by_burst(*sent, limit.held_s or 0.0) if answers.of_burst else passes_by_load(*sent)
    is_passed = limit.resource != Resource.SLOTS and passes_by
    return replace(limit, held_s=None, ceiling_rps=None) if is_exceeded or is_passed else limit


def limit_of(where: Where, blocks: Sequence[Spot], answers: Answers, slots: float | None = None) -> Limit | None:
    """The resource that requests wait for and whose holders wait for no other; None: none is seen.

    Where resources are held one inside another, that is the one that the fewest hold. blocks: the places that block an
    event loop. slots: of the server's settings: they are the limit where so many requests are
    worked on, and the others have not been accepted.
    """
    if where.blocked >= MOSTLY and (blocking := blocking_place(blocks)):
        return limit_of_blocking(blocking, blocks, where.blocked, answers)
    past = {spot: holders(where.places, spot) for spot in waiting_places(where)}
    needed = {spot: count for spot, count in past.items() if not spot.is_given_up}
    queued = slots and queue_for(where, slots)
    if needed or (past and not queued):
        return limit_of_waiting(where, needed or past, answers)
    return limit_at(queued, slots or 1.0, Resource.SLOTS.value, answers) if queued else None


def limit_of_blocking(most: Spot, blocks: Sequence[Spot], blocked: float, answers: Answers) -> Limit:
    """The event loop that lines of the app block; the one that does most of it, and how many others do, too. blocked:
    how often it is. Without a line where that is mostly something else; without a time where that is a good part."""
    others = [one for one in blocks if one is not most and is_line(one) and one.share >= ALSO_BLOCKS]
    by_lines = sum(one.share for one in (most, *others))
    # The rate of answers is not that of what blocks for no request, or after an answer.
    known = answers.none() if most.is_after or not most.requests else answers
    if by_lines < HALF * blocked:
        return replace(limit_at(most, 1.0 * most.processes, LOOP, known), line=None)
    known = known if by_lines >= MOSTLY * blocked else answers.none()
    return replace(limit_at(most, 1.0 * most.processes, LOOP, known), more_lines=len(others))


def limit_of_waiting(where: Where, past: Mapping[Spot, float], answers: Answers) -> Limit:
    """What the fewest requests have, of all that requests wait for. past: how many have what each place waits for."""
    past = without_others(where.places, past, answers)
    fewest = min(past.values())
    spot = max((one for one, slots in past.items() if slots == fewest), key=lambda one: one.requests)
    is_passed = is_passed_at_once(spot, answers)
    if spot.is_given_up or is_passed or not is_had(where.places, spot):
        return Limit(
            spot.resource or "", 1.0, line=spot.line, waiting=spot.requests, setting=spot.setting, is_sized=is_passed
        )
    found = limit_of_shared(where, spot, fewest, answers)
    more = min((slots for slots in past.values() if slots > fewest), default=None)
    return replace(found, next_slots=more, objects=objects_at(where.places, spot))


def is_passed_at_once(spot: Spot, answers: Answers) -> bool:
    """Whether what a lock is for was done once for all that waited, as a cache is filled."""
    is_of_answered = answers.of_burst and bool(answers.times_s)
    return is_of_answered and is_lock(spot.resource or "") and spot.resource in answers.at_once


def limit_of_shared(where: Where, spot: Spot, slots: float, answers: Answers) -> Limit:
    """What requests wait for at a place, and so many have; of a part of it, where they have several at a time or
    something else has the rest."""
    parts = min(parts_of(where.places, spot), spot.size or math.inf)
    has_others, is_of_many = has_other_holders(where.places, spot), is_one_of_many(where.places, spot)
    is_in_parts = parts > 1 and spot.size is not None and not has_others and not is_of_many
    slots = (spot.size or 1.0) / parts if is_in_parts else max(1.0, round(2 * slots) / 2)
    if is_of_many or (has_others and parts > 1) or is_unclear(where, spot, answers):
        answers = answers.none()
    found = limit_at(spot, slots, spot.resource or "", answers)
    if has_others:
        return replace(found, slots=float(round(can_have(where.places, spot))), is_sized=False, size=spot.size)
    return found if spot.size is None else replace(found, size_of_each=spot.size_of_each, parts=parts)


def without_others(spots: Sequence[Spot], past: Mapping[Spot, float], answers: Answers) -> dict[Spot, float]:
    """Without places whose resource requests have before, after or beside that of another place, which limits: under a
    load that goes on the one with the longer queue; of a burst the later one, as it has a queue only where it is
    slower, or what is waited for far longer. And without those whose holders mostly wait for another one."""

    def waited_s(spot: Spot) -> float:
        names: list[Any] = [(spot.resource, owner) for owner in spot.owners] or [spot.resource]
        return max(answers.last_s.get(one, 0.0) for one in names) - min(answers.since_s.values(), default=0.0)

    def is_behind(one: Spot, other: Spot) -> bool:
        if answers.of_burst and are_in_turn(one, other):
            return number_of(other) > number_of(one)
        return waited_s(other) > waited_s(one) if answers.of_burst else other.requests > one.requests

    def is_over_before(one: Spot, other: Spot) -> bool:
        return answers.of_burst and waited_s(one) < SOONER * waited_s(other) - LATE_S

    def have_both(one: Spot, other: Spot) -> bool:
        is_inside = one.held_to is not None and is_in(one, other, one.held_to)
        return is_inside and other.requests >= HALF * past[one]

    def limits(other: Spot, one: Spot) -> bool:
        if have_both(one, other) or have_both(other, one):
            return have_both(one, other)
        is_with = are_in_turn(one, other) or (is_beside(one) and is_beside(other))
        is_elsewhere = (
            is_outside(spots, other, one) and other.requests > one.requests and not is_over_before(other, one)
        )
        return is_over_before(one, other) or (is_with and is_behind(one, other)) or is_elsewhere

    left = {one: slots for one, slots in past.items() if not any(limits(other, one) for other in past)}
    return left or dict(past)


def is_beside(waiting: Spot) -> bool:
    """Whether the requests at a place are at others, too: in more of their tasks or threads than they have there."""
    return waiting.requests < 0.9 * waiting.tasks / waiting.parts


def are_in_turn(one: Spot, other: Spot) -> bool:
    """Whether a function has a resource, gives it back, and only then takes the other one: by the source of the app, or
    as more requests wait for the later one than can have the first."""
    if one.line == other.line or where_in_file(one) != where_in_file(other):
        return False
    first, later = sorted((one, other), key=number_of)
    if first.held_to and later.held_to:
        return not is_in(first, later, first.held_to)
    return first.size is not None and later.requests > first.size + HALF


def is_outside(spots: Sequence[Spot], first: Spot, other: Spot) -> bool:
    """Whether those at another place do not have what is waited for at the first: as many as can have it are seen in
    the function that takes it, and those at the other place are not in that."""
    function = first.through[-1:]
    if not function or first.size is None or {*function} & {*other.through}:
        return False
    inside = [one for one in spots if {*function} & {*one.through} and one.resource != first.resource]
    after = [one for one in inside if not is_before(one, first)]
    return sum(max(one.requests, one.tasks) for one in after) >= first.size - HALF


def is_had(spots: Sequence[Spot], waiting: Spot) -> bool:
    """Whether requests have what others wait for, and give it back. Else something that is no request gives it, as to a
    queue of work or a bucket of tokens."""
    if waiting.size is not None:
        return waiting.size > 0
    return waiting.resource != RESULT and requests_in(going_on(spots, waiting), *State) >= LEAST_HAD


def queue_for(where: Where, slots: float) -> Spot | None:
    """The requests that no process has accepted, while as many are worked on as there are slots; None: not so."""
    queued = requests_in(where.places, State.QUEUED)
    inside = requests_in(where.places, *State) - queued
    is_full = where.samples >= LEAST_FULL and where.requests > slots and round(inside) == slots
    return Spot(queued, State.QUEUED, size=slots) if is_full and queued > FEW * where.requests else None


def waiting_places(where: Where) -> list[Spot]:
    """Where more than a few requests wait for something that others hold."""
    many = max(HALF, FEW * where.requests)
    waiting = [spot for spot in where.places if spot.state is State.WAITING and spot.resource in where.persistent]
    # Few can wait for what is taken where they have another resource, which the others wait for.
    inner = {one for one in waiting for other in waiting if other.held_to and is_in(other, one, other.held_to)}
    return [one for one in waiting if one.requests >= (HALF if one in inner else many) and one.resource != LOOP]


def holders(spots: Sequence[Spot], waiting: Spot) -> float:
    """How many requests have what those at a place wait for: its size, in requests; else those that are seen to go on,
    inside of the same function of the app as the waiting ones if there are such."""
    if has_other_holders(spots, waiting):
        return max(1.0, round(can_have(spots, waiting)))
    if waiting.size is not None and not is_one_of_many(spots, waiting):
        return waiting.size / parts_of(spots, waiting)
    inside = going_on(spots, waiting)
    most = max((one.most for one in inside), default=0.0)
    return max(1.0, round(most), math.ceil(that_have(inside, waiting) - UNSEEN))


def that_have(inside: Sequence[Spot], waiting: Spot) -> float:
    """How many requests go on at these places: in a function that waits for it a request has it in one task or thread,
    and all of it there, whatever else it does beside that."""
    if not all({*waiting.through} & {*one.through} for one in inside):
        return requests_in(inside, *State)
    return sum(max(one.requests, one.there) for one in inside)


def as_known(spots: Sequence[Spot], samples: int) -> list[Spot]:
    """Semaphores without a size where, by the source of the app, clearly more requests have them at a time; and what
    is waited for no longer than some time, where clearly more go on, some of them without it. Writes to SQLite as work
    where no request goes on that may have its lock: they may be to other databases."""
    found = []
    for one in spots:
        if have_more(spots, one, samples):
            one = replace(one, size=None, used=None, made_size=one.size)
        elif one.setting == TIMED and is_more(requests_in(going_on(spots, one), *State), one):
            one = replace(one, size=None, used=None, is_given_up=True)
        elif one.resource == SQLITE and one.size is None and not is_had(spots, one):
            one = replace(one, state=State.WORKING, resource=None)
        found.append(one)
    return found


def have_more(spots: Sequence[Spot], waiting: Spot, samples: int) -> bool:
    if not waiting.held_to or samples < LEAST_MORE or is_lock(waiting.resource or ""):
        return False
    have = [one for one in spots if is_in(waiting, one, waiting.held_to)]
    if any(one.processes > waiting.processes for one in have):  # of others, where none waits: they have their own
        return False
    return is_more(requests_in(have, *State), waiting)


def is_more(requests: float, waiting: Spot) -> bool:
    """Whether there are clearly more than can have what is waited for."""
    size = math.inf if waiting.size is None else waiting.size
    return requests > max(size + 1, MORE * size) - UNSEEN


def parts_of(spots: Sequence[Spot], waiting: Spot) -> float:
    """How much of a resource a request has at a time: as many tasks or threads as it works in."""
    go_on, resource = going_on(spots, waiting), waiting.resource or ""
    inside = [one for one in go_on if {*waiting.through} & {*one.through}]
    # Of threads it has as many as it works in, also where its own code has taken what others wait for only once; not
    # more than there are, as others are of another executor.
    most = waiting.size or math.inf
    if resource.startswith("a thread of"):  # in which the way to the function is not seen
        inside = inside or go_on
    threads = [min(one.tasks, most) / one.requests for one in inside if one.requests >= HALF]
    parts = [one.parts for one in inside if one.requests >= HALF]
    return max([1.0, waiting.parts, *(threads if resource.startswith(("AnyIO", "a thread of")) else parts)])


def going_on(spots: Sequence[Spot], waiting: Spot) -> list[Spot]:
    """Where requests go on that may have what others wait for; and of those, in the innermost function of the app that
    has waiting ones, too, if there are such."""
    go_on = [one for one in spots if one.state in GOES_ON and not one.resource]
    go_on = [one for one in go_on if not is_outside_of(one, waiting)]
    named = ([one for one in go_on if function in one.through] for function in reversed(waiting.through))
    return next(filter(None, named), go_on)


def is_taken_again(spots: Sequence[Spot], waiting: Spot) -> bool:
    """Whether a request waits for a resource at several places, or has AnyIO's threads for several functions."""
    places = {(one.phase, one.handler, one.line) for one in spots if one.resource == waiting.resource}
    in_threads = {one.through[0] for one in spots if one.state is State.WORKING and one.through}
    return len(places) > 1 or (len(in_threads) > 1 and (waiting.resource or "").startswith("AnyIO"))


def is_unclear(where: Where, waiting: Spot, answers: Answers) -> bool:
    """Whether it is not seen which requests have a resource, or the answers do not say when it is given back."""
    is_for_all = CONDITION.match(waiting.resource or "") and holders(where.places, waiting) <= 1
    is_uncounted = waiting.size is None and (
        is_for_all or goes_on_at_lines(where.places, waiting) > 1 or is_uneven(where.places, waiting)
    )
    # No request has it for a part of the time, or not each request gets it.
    is_not_had = waiting.resource == SQLITE or waiting.setting == TIMED
    # It is had in some processes only, while the answers come from all.
    is_of_some = waiting.size_of_each is not None and waiting.processes < answers.processes
    return (
        is_uncounted
        or is_not_had
        or is_of_some
        or (answers.of_burst and (is_followed(where) or is_held_otherwise(where, waiting)))
    )


def is_followed(where: Where) -> bool:
    """Whether a burst waits, later than at its fullest, for what may be what limits; AnyIO's threads come first."""
    seen = {one.resource for one in waiting_places(where)}
    return any(name not in seen and name != LOOP and not name.startswith("AnyIO") for name in where.persistent)


def is_uneven(spots: Sequence[Spot], waiting: Spot) -> bool:
    """Whether at times clearly fewer go on than at other times: some need more than one of what they wait for."""
    return that_have(going_on(spots, waiting), waiting) < EVEN * holders(spots, waiting)


def goes_on_at_lines(spots: Sequence[Spot], waiting: Spot) -> int:
    """At how many lines those go on that may have what others wait for: at some of them they may have given it back."""
    return len({one.line for one in going_on(spots, waiting) if one.requests >= HALF})


def is_held_otherwise(where: Where, waiting: Spot) -> bool:
    """Whether the answers of a burst do not say when a slot is given back: it is after the answer, or taken again."""
    ends_late = requests_in(where.places, State.ANSWERED) > FEW * where.requests
    return ends_late or is_taken_again(where.places, waiting)


def is_one_of_many(spots: Iterable[Spot], waiting: Spot) -> bool:
    """Whether at the same line others wait for another object of the kind, so that the numbers of one are not all."""
    return objects_at(spots, waiting) > 1


def objects_at(spots: Iterable[Spot], waiting: Spot) -> int:
    """How many objects of the kind are waited for at the same line, in one process."""
    same = [one for one in spots if (one.line, one.resource) == (waiting.line, waiting.resource)]
    known = len(owners_of(same)) / max(one.processes for one in same)
    return math.ceil(known) or sum(one.objects for one in same)


def owners_of(spots: Iterable[Spot]) -> frozenset[int]:
    """The objects that requests wait for at any of these places."""
    return frozenset(owner for one in spots for owner in one.owners)


def has_other_holders(spots: Sequence[Spot], waiting: Spot) -> bool:
    """Whether a good part of a resource is held by something else than requests: lost, or kept by another thread."""
    size, have = waiting.size or 0.0, can_have(spots, waiting)
    is_waited_for_once = sum(one.resource == waiting.resource for one in spots) == 1
    is_used = waiting.used is None or waiting.used > size - HALF
    return is_waited_for_once and is_used and have < IN_USE * size and size - have >= 1


def can_have(spots: Sequence[Spot], waiting: Spot) -> float:
    """How many can have what those at a place wait for: the tasks and threads of all requests that do not."""
    begun = [one for one in spots if one.state is not State.QUEUED and not one.has_nothing]
    others = [one for one in begun if one.resource != waiting.resource]
    return sum(max(one.requests, one.tasks) for one in others if not is_outside_of(one, waiting))


def is_line(spot: Spot) -> bool:
    return bool(spot.line and not spot.resource)


def blocking_place(spots: Sequence[Spot]) -> Spot | None:
    """The line of the app that blocks the event loop most; None: there is no such line."""
    return max((one for one in spots if is_line(one)), key=lambda one: one.share, default=None)


def limit_at(spot: Spot, slots: float, resource: str, answers: Answers) -> Limit:
    if FREES_ALL.match(resource):
        return Limit(resource, 1.0, line=spot.line, waiting=spot.requests, is_sized=False)
    is_full = answers.of_burst or answers.busy.get(resource, 1.0) >= ALWAYS
    held_s = holding_time_s(slots, answers, resource) if is_full else None
    return Limit(
        resource, 1.0, slots / held_s if held_s else None, slots, held_s, line=spot.line, waiting=spot.requests,
        setting=spot.setting, size_line=spot.size_line, is_sized=spot.size is not None,
    )  # fmt: skip


def holding_time_s(slots: float, answers: Answers, resource: str = "") -> float | None:
    """How long a request holds a slot: slots over the rate of answers, at which slots are given back.

    None: too few answers; or the first comes so long after requests began to wait that they must need a slot more than
    once.

    >>> holding_time_s(2, Answers([1.0, 1.0, 2.0, 2.0, 3.0], True))
    1.0
    """
    times, since_s = steady_answers(slots, answers, resource), answers.since_s.get(resource)
    if len(times) < 2 * slots or times[-1] <= times[0]:
        return None
    # A line through all answers: they may come in rounds of any size, and the first and the last may be cut.
    held_s = slots / linear_regression(times, range(len(times))).slope
    is_late = answers.of_burst and since_s is not None and times[0] - since_s > 1.5 * held_s + LATE_S
    return None if is_late else held_s


def steady_answers(slots: float, answers: Answers, resource: str) -> Sequence[float]:
    """Of a burst the full rounds, until a process has nothing left to do; of other loads what comes after a third of
    the time."""
    times = answers.times_s
    if answers.of_burst:
        until_s = answers.until_s.get(resource, math.inf) if answers.processes > 1 else math.inf
        all_full = bisect_right(times, until_s)
        return times[: all_full // round(slots) * round(slots)]
    return [at_s for at_s in times if at_s >= times[0] + (times[-1] - times[0]) / 3]


def is_lock(name: str) -> bool:
    """Whether a resource of this name is one that one at a time can have."""
    return name.startswith(("a lock", "the lock")) or name == SQLITE
