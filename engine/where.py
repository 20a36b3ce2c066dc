"""Where the requests of a run stand: the samples of the server's processes, put together into places. Pure.

engine/inside/wrap/_bench_sampler.py has the format of a sample. Every request is at one place of a sample: it waits for
something that other requests hold, it is worked on, it blocks the event loop, it is answered already, or no process has
seen it yet.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, linear_regression, median
from typing import Any

from engine.places import Limit, Spot, State, Where

Sample = Mapping[str, Any]
Row = Mapping[str, Any]
FULL = 0.9  # of the most requests: a sample with so many counts
LEAST = 3  # samples of a process; with fewer, those that are half full count too
FEW = 0.05  # requests: what is seen as rarely is no place
BELOW = 5  # innermost frames that are kept
SILENCE_S = 0.5


def counter_of(began_s: Iterable[float], ended_s: Iterable[float]) -> Callable[[float], int]:
    """How many requests the client had under way at a moment."""
    begins, ends = sorted(began_s), sorted(ended_s)
    return lambda at_s: bisect_right(begins, at_s) - bisect_left(ends, at_s)


def where_of(
    lines: Sequence[Mapping[str, Any]], began_s: Sequence[float], ended_s: Sequence[float], folder: str, is_burst: bool
) -> Where | None:
    """The places of all processes while the load was fullest; None without samples.

    lines: what the samplers wrote. began_s, ended_s: when the client sent each request, and when it had its answer.
    folder: of the app; its files are named from there.
    """
    under_way = counter_of(began_s, ended_s)
    samples = [one for one in lines if "rows" in one and under_way(one["at"])]
    silence_s = silence_of(began_s, ended_s)
    silent = [one for one in samples if silence_s and silence_s[0] <= one["at"] <= silence_s[1]]
    full = fullest(silent or samples, under_way)
    if not full:
        return None
    of_process: dict[int, list[Sample]] = defaultdict(list)
    for one in full:
        of_process[one["pid"]].append(one)
    made = {(one["pid"], key): at for one in lines for key, at in one.get("made", {}).items()}
    spots = [spot for found in of_process.values() for spot in spots_of(found, folder, made)]
    requests = fmean(under_way(one["at"]) for one in full)
    spots = sorted(of_all_processes([*spots, *queued(requests, spots)]), key=lambda spot: -spot.requests)
    took_s = max(one["at"] for one in samples) - min(one["at"] for one in samples)
    cost = sum(one["cost"] for one in samples) / max(took_s, 0.1)
    found = Where(len(full), cost, requests, tuple(spots), max(map(blocked_share, of_process.values())))
    if silent and (circle := circle_of(spots)):
        return replace(found, circle=tuple(circle), circle_at=total(circle.values()))
    return replace(found, limit=limit_of(found, sorted(ended_s), is_burst))


def queued(requests: float, spots: Sequence[Spot]) -> list[Spot]:
    """Those of the client's requests that no process has seen."""
    rest = requests - sum(spot.requests for spot in spots if spot.state is not State.ANSWERED)
    return [Spot(rest, State.QUEUED)] if rest > max(0.5, 0.02 * requests) else []


def silence_of(began_s: Sequence[float], ended_s: Sequence[float]) -> tuple[float, float] | None:
    """From when to when no request was answered, if that was for long: half a second, and a third of the run."""
    times = sorted([min(began_s), *ended_s])
    gap_s, from_s = max((after - before, before) for before, after in itertools.pairwise(times))
    is_long = gap_s > max(SILENCE_S, (times[-1] - times[0]) / 3)
    return (from_s + gap_s / 4, from_s + gap_s) if is_long else None


def fullest(samples: Sequence[Sample], under_way: Callable[[float], int]) -> list[Sample]:
    """The samples with nearly the most requests, of the client and in their process."""
    most = max((under_way(one["at"]) for one in samples), default=0)
    found = [one for one in samples if under_way(one["at"]) >= FULL * most]
    if len(found) < LEAST * len({one["pid"] for one in samples}):
        found = [one for one in samples if under_way(one["at"]) >= most / 2]
    inside: dict[int, float] = defaultdict(float)
    for one in found:
        inside[one["pid"]] = max(inside[one["pid"]], in_sample(one))
    return [one for one in found if in_sample(one) >= FULL * min(inside[one["pid"]], under_way(one["at"]))]


def in_sample(sample: Sample) -> float:
    return float(sum(row["n"] for row in sample["rows"]))


def spots_of(samples: Sequence[Sample], folder: str, made: Mapping[Any, Any]) -> list[Spot]:
    """The places of one process, with the mean number of requests at each."""
    rows = [row for one in samples for row in one["rows"]]
    is_blocked = blocked_share(samples) > 0.5
    groups: dict[object, list[Row]] = defaultdict(list)
    for row in rows:
        stands_at = row["app"] or (row["below"], row["handler"])
        groups[str((state_of(row, is_blocked), stands_at, (row["resource"] or [])[:2]))].append(row)
    found = []
    for same in groups.values():
        requests = sum(row["n"] for row in same) / len(samples)
        spot = spot_of(same, state_of(same[0], is_blocked), folder)
        if (resource := same[0]["resource"]) and (at := made.get((samples[0]["pid"], str(resource[1])))):
            spot = replace(spot, size_line=f"{named(at[0], folder)}:{at[1]}")
        if requests >= FEW or spot.state is State.BLOCKING:
            share = len(same) / len(samples)
            found.append(replace(spot, requests=requests, share=share, cpu_s=sum(row["cpu_s"] for row in same)))
    return found


def blocked_share(samples: Sequence[Sample]) -> float:
    """In how many samples of a process its event loop runs something, and does not wait: 0 to 1."""
    return fmean(any(row["on_loop"] for row in one["rows"]) for one in samples)


def state_of(row: Row, is_blocked: bool) -> State:
    if row["answered"]:
        return State.ANSWERED
    if row["on_loop"] and is_blocked:
        return State.BLOCKING
    return State.WAITING if row["resource"] else State.WORKING


def spot_of(rows: Sequence[Row], state: State, folder: str) -> Spot:
    """What rows of one place have in common: the frames that most of them have, sizes as they were on average."""
    weights: Counter[str] = Counter()
    for row in rows:
        weights[json.dumps(row["below"])] += row["n"] or 1
    frames = json.loads(weights.most_common(1)[0][0])[-BELOW:]
    below = tuple(f"{named(file, folder)}:{line} {function}" for file, line, function in frames)
    spot = Spot(0.0, state, below=below)
    if app := rows[0]["app"]:
        spot = replace(spot, line=f"{named(app[0], folder)}:{app[1]}", function=app[2])
    elif handler := rows[0]["handler"]:
        spot = replace(spot, handler=f"{named(handler[0], folder)}:{handler[1]}")
    if not (resource := rows[0]["resource"]):
        return spot
    name, _, size, _, setting = resource
    used = [row["resource"][3] for row in rows if row["resource"][3] is not None]
    return replace(
        spot, resource=name, size=size, setting=setting or None, used=median(used) if used else None
    )  # fmt: skip


def named(file: str, folder: str) -> str:
    """A file as a reader knows it: from the app's folder, or from where packages are."""
    if file.startswith(os.path.join(folder, "")) and "-packages/" not in file:
        return os.path.relpath(file, folder)
    return re.sub(r".*(?:-packages|/python3\.\d+)/", "", file)


def of_all_processes(spots: Sequence[Spot]) -> list[Spot]:
    """The same place of several processes as one; sizes and use of one resource in each are added up."""
    groups: dict[object, list[Spot]] = defaultdict(list)
    for spot in spots:
        groups[(spot.state, spot.line, spot.resource, spot.handler, None if spot.line else spot.below)].append(spot)
    found = []
    for same in groups.values():
        sizes, used = [one.size for one in same], [one.used for one in same]
        found.append(
            replace(
                same[0],
                requests=sum(one.requests for one in same),
                cpu_s=sum(one.cpu_s for one in same),
                size=None if None in sizes else sum(filter(None, sizes)),
                processes=len(same),
                used=None if None in used else sum(filter(None, used)),
            )
        )
    return found


# ---------------------------------------------------------------- what limits, and what stands still

MOSTLY = 0.8
ITSELF = "an answer of this very server"
LOOP = "the event loop"  # as the sampler calls what a task waits for that could run


def past(spots: Sequence[Spot], waiting: Spot) -> float:
    """How many requests have what those at a place wait for: its size, else all that are seen to go on."""
    if waiting.size is not None:
        return waiting.size
    goes_on = (State.WORKING, State.BLOCKING, State.ANSWERED)
    return sum(spot.requests for spot in spots if spot.state in goes_on and not spot.resource)


def limit_of(where: Where, answered_s: Sequence[float], is_burst: bool) -> Limit | None:
    """The resource that requests wait for and whose holders wait for no other; None: none is seen.

    Where resources are held one inside another, that is the one that the fewest hold. answered_s is sorted.
    """
    spots, least = where.places, max(0.5, 0.02 * where.requests)
    waiting = [one for one in spots if one.state is State.WAITING and one.resource != LOOP and one.requests >= least]
    if where.blocked >= MOSTLY and (blocking := blocking_place(spots)):
        return limit_at(blocking, 1.0 * blocking.processes, LOOP, answered_s, is_burst)
    if not waiting:
        return None
    fewest = min(past(spots, one) for one in waiting)
    spot = max((one for one in waiting if past(spots, one) == fewest), key=lambda one: one.requests)
    # Answers say nothing of when a slot of a burst is given back, if that is after the answer.
    ends_late = is_burst and sum(one.requests for one in spots if one.state is State.ANSWERED) > least
    found = limit_at(spot, max(1.0, round(fewest)), spot.resource or "", [] if ends_late else answered_s, is_burst)
    return replace(
        found, next_slots=min((past(spots, one) for one in waiting if past(spots, one) > fewest), default=None)
    )


def blocking_place(spots: Sequence[Spot]) -> Spot | None:
    """The line of the app that blocks the event loop most often; None: the loop is blocked by no code of the app."""
    found = [one for one in spots if one.state is State.BLOCKING and not one.resource and one.line]
    return max(found, key=lambda one: one.share, default=None)


def limit_at(spot: Spot, slots: float, resource: str, answered_s: Sequence[float], is_burst: bool) -> Limit:
    held_s = holding_time_s(slots, answered_s, is_burst)
    return Limit(
        resource, 1.0, slots / held_s if held_s else None, slots, held_s, line=spot.line, waiting=spot.requests,
        setting=spot.setting, size_line=spot.size_line,
    )  # fmt: skip


def holding_time_s(slots: float, answered_s: Sequence[float], is_burst: bool) -> float | None:
    """How long a request holds a slot: slots over the rate of answers, at which slots are given back.

    answered_s: sorted. Of a burst the full rounds count, of other loads what comes after a third of the time. None: too
    few answers.

    >>> holding_time_s(2, [1.0, 1.0, 2.0, 2.0, 3.0], True)
    1.0
    """
    if not answered_s:
        return None
    begins_s = 0.0 if is_burst else answered_s[0] + (answered_s[-1] - answered_s[0]) / 3
    last = len(answered_s) // round(slots) * round(slots) if is_burst else len(answered_s)
    counted = [(at_s, k) for k, at_s in enumerate(answered_s[:last]) if at_s >= begins_s]
    if len(counted) < 2 * slots or counted[-1][0] <= counted[0][0]:
        return None
    rate_rps: float = linear_regression(*zip(*counted, strict=True)).slope
    return slots / rate_rps if rate_rps > 0 else None


def circle_of(spots: Sequence[Spot]) -> dict[str, float | None]:
    """The resources of a standstill with their sizes, whose sum is how many requests make one; empty: something goes
    on, or the holders are not seen.

    Nothing goes on, and what is waited for is held by requests that wait, too.
    """
    inside = [spot for spot in spots if spot.state is not State.QUEUED]
    blocking = [spot for spot in inside if spot.state is State.BLOCKING and spot.resource]
    if blocking:  # whatever has what the loop's thread waits for cannot go on, as the loop does not
        return {LOOP: 1.0, blocking[0].resource or "": blocking[0].size}
    stuck = [spot for spot in inside if spot.resource and spot.resource != LOOP]
    goes_on = sum(spot.requests for spot in inside if spot not in stuck)
    if goes_on > 0.02 * sum(spot.requests for spot in inside):
        return {}
    if any(spot.resource == ITSELF for spot in stuck):
        return {ITSELF: float(round(sum(spot.requests for spot in stuck)))}
    return {spot.resource or "": spot.size for spot in stuck} if len(stuck) > 1 else {}


def total(sizes: Iterable[float | None]) -> float | None:
    """The sum; None if one is not known."""
    known = list(sizes)
    return None if None in known else sum(filter(None, known))
