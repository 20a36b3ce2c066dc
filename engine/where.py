"""Where the requests of a run stand: the samples of the server's processes, put together into places. Pure.

engine/inside/wrap/_bench_sampler.py has the format of a sample. Every request is at one place of a sample: it waits for
something that other requests hold, it is worked on, it blocks the event loop, it is answered already, or no process has
seen it yet.
"""

from __future__ import annotations

import itertools
import json
import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, median
from typing import Any

from engine.in_use import (
    PAUSE_S,
    Line,
    Row,
    busy_shares,
    by_process,
    constant_inside,
    in_sample,
    left_over,
    passed_at_once,
    persistent,
    resource_of,
    waited_at,
)
from engine.limit import HALF, LOOP, SQLITE, Answers, as_known, limit_in, owners_of, requests_in
from engine.places import Computing, Opening, Spot, State, Where, line_of, named
from engine.standstill import circle_of

UnderWay = Callable[[float], int]  # how many requests the client had under way at a moment
FULL = 0.9  # of the most requests: a sample with so many counts
LEAST = 3  # samples of a process; with fewer, those that are half full count too
UNSETTLED = 0.2  # of a sample's requests: so many on their way, and it is left out if there are others
MORE = 1.1  # times the requests under way are more than can be
FEW = 0.05  # requests: what is seen as rarely is no place
BELOW = 5  # innermost frames that are kept
SILENCE_S, LONG_SILENCE_S = 0.5, 2.0
OFTEN = 0.2  # of the samples: connections are opened again and again
BEFORE = "before the handler"  # as the sampler calls it
OF_ALL_PROCESSES = (SQLITE, "a lock on a file", "a lock of several processes", "a semaphore of several processes")


def where_of(
    lines: Sequence[Line], began_s: Sequence[float], ended_s: Sequence[float], folder: str, is_burst: bool,
    slots: float | None = None, good_s: Sequence[float] | None = None,
    refuses: bool = False, first_byte_s: Sequence[float] = (), threads_first: bool = False,
) -> Where | None:  # fmt: skip
    """The places of all processes while the load was fullest; None without samples.

    lines: what the samplers wrote. began_s, ended_s: when the client sent each request, and when it had its answer.
    folder: of the app; its files are named from there. slots: as the server's settings give them. good_s: of ended_s,
    where requests failed: none, as nothing can be said then of how long anything is held. refuses: the server
    answers some of the requests at once instead of letting them wait. threads_first: a request needs a thread of AnyIO
    before any code of the app runs for it.
    """
    under_way = counter_of(began_s, ended_s)
    samples = [one for one in with_rows(lines) if under_way(one["at"])]
    silent = in_silence(samples, began_s, ended_s)
    full = fullest(silent or samples, under_way)
    if not full:
        return None
    requests, half = fmean(under_way(one["at"]) for one in full), half_full(samples, under_way, min(ended_s))
    blocking = blocking_places(half, lines, folder)
    unanswered = fmean(counter_of(began_s, first_byte_s or ended_s)(one["at"]) for one in full)
    not_begun = min(unanswered, max(0.0, requests - begun_in(full)))
    seen = as_known(with_nothing(places_of(full, lines, folder), threads_first), len(full))
    spots = all_places(requests, seen, blocking, not_begun)
    blocked = most_blocked(half)
    later = after_third(samples, began_s, ended_s)
    opening = opened_anew(later, folder)
    found = Where(
        len(full), cost_of(samples), requests, tuple(spots), persistent(half), blocked, opening=opening,
        computing=computing_in(samples, lines, folder),
        blocks=() if is_burst else tuple(places_of(on_loop(later), lines, folder)),
    )  # fmt: skip
    if silent and good_s is not None and (circle := circle_of(spots)):  # it ends as requests fail, or not at all
        return replace(found, circle=tuple(circle), circle_at=enough_for(circle, requests))
    slots = None if refuses else slots or constant_inside(full)
    answers = Answers(
        sorted(ended_s if good_s is None else good_s), is_burst, waited_at(samples, min), len(by_process(samples)),
        busy_shares(later, slots), left_over(samples, slots), waited_at(samples, max),
        passed_at_once(samples, max(ended_s)),
    )  # fmt: skip
    return replace(found, limit=limit_in(found, blocking, answers, (began_s, ended_s), slots))


def with_nothing(spots: Iterable[Spot], threads_first: bool) -> list[Spot]:
    """The places, where requests that wait for their first thread of AnyIO have nothing."""

    def is_first(one: Spot) -> bool:
        return threads_first and one.phase == BEFORE and (one.resource or "").startswith("AnyIO")

    return [replace(one, has_nothing=is_first(one)) for one in spots]


def enough_for(circle: Mapping[str, float | None], requests: float) -> float | None:
    """How many requests make a circle of these sizes; None where that is more than there were."""
    enough = total(circle.values()) or math.inf
    return enough if enough < requests + 1 else None


def begun_in(samples: Sequence[Line]) -> float:
    """How many requests the app has, wherever they stand: not each has a place, as where they share a thread."""
    return float(sum(fmean(one["inside"] for one in own) for own in by_process(samples).values()))


def all_places(requests: float, spots: Sequence[Spot], blocking: Sequence[Spot], not_begun: float) -> list[Spot]:
    """The places that were seen, most requests first; then what blocks the event loop, where it did so only later.

    What the client has under way beside them has been seen by no process; or its answer is on its way. not_begun: how
    many no app has, and have no byte of their answer.
    """
    queued = min(not_begun, requests - requests_in(spots, *{*State} - {State.ANSWERED}))
    unseen = [Spot(queued, State.QUEUED)] if queued > max(0.5, 0.02 * requests) else []
    known = {(spot.line, spot.state) for spot in spots}
    later = [one for one in blocking if one.share >= HALF and (one.line, one.state) not in known]
    return sorted([*spots, *unseen], key=lambda spot: -spot.requests) + later


def where_now(lines: Sequence[Line], folder: str) -> Where | None:
    """The same of samples taken while other clients send, of whose requests nothing else is known."""
    samples = with_rows(lines)
    if not samples:
        return None
    inside = sum({one["pid"]: one["inside"] for one in samples}.values())
    return where_of(lines, [samples[0]["at"]] * inside, [samples[-1]["at"] + 1] * inside, folder, True, good_s=[])


# ---------------------------------------------------------------- samples


def counter_of(began_s: Iterable[float], ended_s: Iterable[float]) -> UnderWay:
    begins, ends = sorted(began_s), sorted(ended_s)
    return lambda at_s: bisect_right(begins, at_s) - bisect_left(ends, at_s)


def in_silence(samples: Sequence[Line], began_s: Sequence[float], ended_s: Sequence[float]) -> list[Line]:
    """The samples from a time in which no request was answered, if that was long: two seconds; or half a second, if
    that is a third of the run."""
    times = sorted([min(began_s, default=0.0), *ended_s])
    gap_s, from_s = max(((after - before, before) for before, after in itertools.pairwise(times)), default=(0.0, 0.0))
    if gap_s < max(SILENCE_S, min(LONG_SILENCE_S, (times[-1] - times[0]) / 3)):
        return []
    return [one for one in samples if from_s + gap_s / 4 <= one["at"] <= from_s + gap_s]


def fullest(samples: Sequence[Line], under_way: UnderWay) -> list[Line]:
    """The samples with nearly the most requests, of the client and in their process."""
    found = with_most(samples, under_way)
    full = well_filled(found, FULL, under_way)
    # Some processes may have been full while others were not.
    return found if seen_of(full) > MORE * max((under_way(one["at"]) for one in full), default=0) else full


def well_filled(samples: Sequence[Line], share: float, under_way: UnderWay) -> list[Line]:
    """The samples that have at least this share of the most requests that their process has in one, or of all."""
    most = {pid: max(map(in_sample, own)) for pid, own in by_process(samples).items()}
    return [one for one in samples if in_sample(one) >= share * min(most[one["pid"]], under_way(one["at"]))]


def with_most(samples: Sequence[Line], under_way: UnderWay) -> list[Line]:
    """The samples with nearly the most requests of the client."""
    samples = [one for one in samples if about_to_run(one) <= UNSETTLED * in_sample(one)] or samples
    most = max((under_way(one["at"]) for one in samples), default=0)
    found = [one for one in samples if under_way(one["at"]) >= FULL * most]
    if len(found) < LEAST * len(by_process(samples)):
        found = [one for one in samples if under_way(one["at"]) >= most / 2]
    return found


def seen_of(samples: Sequence[Line]) -> float:
    """How many requests without an answer all processes have, each on average."""
    counts = [
        [sum(row["n"] for row in one["rows"] if not row["answered"]) for one in own]
        for own in by_process(samples).values()
    ]
    return float(sum(map(fmean, counts)))


def half_full(samples: Sequence[Line], under_way: UnderWay, first_s: float) -> list[Line]:
    """The samples of a load that is at least half full, from the first answer on where there are some."""
    most = max(under_way(one["at"]) for one in samples)
    # Where a burst has not arrived yet, it is not full in its processes.
    arrived = [one for one in well_filled(samples, HALF, under_way) if in_sample(one)]
    found = [one for one in arrived if under_way(one["at"]) > most / 2] or list(samples)
    later = [one for one in found if one["at"] >= first_s]
    return later if len(later) >= LEAST * len(by_process(later)) > 0 else found


def after_third(samples: Sequence[Line], began_s: Sequence[float], ended_s: Sequence[float]) -> list[Line]:
    """The samples of the last two thirds of a load, until its last request was sent."""
    first_s, last_s = min(began_s), max(began_s)
    return [one for one in samples if first_s + (max(ended_s) - first_s) / 3 <= one["at"] <= last_s]


def opened_anew(samples: Sequence[Line], folder: str) -> Opening | None:
    """The connections that requests open again and again, long after the load began; None where they do not."""
    rows = [row for one in samples for row in one["rows"] if row["opens"]]
    moments = sum(any(row["opens"] for row in one["rows"]) for one in samples)
    if moments < max(LEAST, OFTEN * len(samples)):
        return None
    usual, requests = max(rows, key=lambda row: row["n"]), sum(row["n"] for row in rows)
    pool, kept, most = usual["opens"]
    at_a_time = requests / len(samples) * len(by_process(samples))
    return Opening(pool, kept, most, at_a_time, line_of(usual["app"], folder))


def about_to_run(sample: Line) -> float:
    """The requests of a sample that wait for nothing but their turn."""
    return float(sum(row["n"] for row in sample["rows"] if resource_of(row)[0] == LOOP))


def blocked_share(samples: Sequence[Line]) -> float:
    """In how many samples of a process its event loop runs something, and does not wait: 0 to 1."""
    return fmean(float(any(row["on_loop"] for row in one["rows"])) for one in samples)


def most_blocked(samples: Sequence[Line]) -> float:
    """The same of the process where that is most: in so many samples, and for so much of the time. 0 to 1."""
    return max(min(blocked_share(own), blocked_time(own)) for own in by_process(samples).values())


def blocked_time(samples: Sequence[Line]) -> float:
    """For how much of the time that is, where each sample stands for the time until the next one: 0 to 1."""
    spans_s = [after["at"] - one["at"] for one, after in itertools.pairwise(samples)]
    spans_s.append(median(spans_s or [1.0]))
    running = [any(row["on_loop"] for row in one["rows"]) for one in samples]
    return float(sum(span_s for span_s, runs in zip(spans_s, running, strict=True) if runs) / sum(spans_s))


def cost_of(samples: Sequence[Line]) -> float:
    """Of a CPU, 0 to 1, while samples were taken."""
    took_s: float = max(one["at"] for one in samples) - min(one["at"] for one in samples)
    cost_s: float = sum(one["cost"] for one in samples)
    return cost_s / max(took_s, 0.1)


# ---------------------------------------------------------------- places


def with_rows(lines: Sequence[Line]) -> list[Line]:
    """The samples, of all lines."""
    return [one for one in lines if "rows" in one]


def computing_in(samples: Sequence[Line], lines: Sequence[Line], folder: str) -> Computing:
    """What used the CPU in the samples that know it."""
    busy = [one for one in samples if one["cpu"]]
    places = sorted(places_of(busy, lines, folder), key=lambda spot: -spot.cpu_s)
    return Computing(len(busy), sum(one["cpu"] for one in busy), tuple(spot for spot in places if spot.cpu_s))


def blocking_places(samples: Sequence[Line], lines: Sequence[Line], folder: str) -> list[Spot]:
    return [one for one in places_of(samples, lines, folder) if one.state is State.BLOCKING]


def on_loop(samples: Sequence[Line]) -> list[Line]:
    """The samples with no other rows than what an event loop runs just then."""
    return [{**one, "rows": [row for row in one["rows"] if row["on_loop"]]} for one in samples]


def places_of(samples: Sequence[Line], lines: Sequence[Line], folder: str) -> list[Spot]:
    """The places of all processes; sizes and use of what each process has of its own are added up."""
    made = defaultdict[int, dict[str, Any]](dict)  # of each process, file and line where an object was made, by its id
    for one in lines:
        made[one["pid"]].update(one.get("made", {}))
    groups: dict[object, dict[int, list[Spot]]] = defaultdict(lambda: defaultdict(list))
    present = present_shares(by_process(with_rows(lines)))
    for pid, own in by_process(samples).items():
        for spot in spots_of(own, folder, made[pid]):
            size = spot.size
            spot = replace(at_times(spot, present[pid]), size_of_each=size)
            at = spot.line or stands_at(spot)
            groups[(spot.state, at, spot.resource, spot.size_line, size)][pid].append(spot)
    return [together([*same.values()], len(present)) for same in groups.values()]


def stands_at(spot: Spot) -> object:
    """Where requests stand that are not in the code of the app."""
    return spot.phase, spot.handler, None if spot.phase else spot.below[-1:]


def present_shares(samples: Mapping[int, Sequence[Line]]) -> dict[int, float]:
    """For how much of the time each process was there: all of it, unless some ended before others began."""
    spans = {pid: (min(one["at"] for one in own), max(one["at"] for one in own)) for pid, own in samples.items()}
    first_s, last_s = min(at for at, _ in spans.values()), max(at for _, at in spans.values())
    if max(at for at, _ in spans.values()) <= min(at for _, at in spans.values()):
        return dict.fromkeys(spans, 1.0)
    return {pid: (end_s - start_s + PAUSE_S) / (last_s - first_s + PAUSE_S) for pid, (start_s, end_s) in spans.items()}


def at_times(spot: Spot, share: float) -> Spot:
    """A place in a process that was there for a part of the time only."""
    if share == 1.0:
        return spot
    size, used = ((value or 0.0) * share if value is not None else None for value in (spot.size, spot.used))
    scaled = {name: share * getattr(spot, name) for name in ("requests", "most", "tasks", "there")}
    return replace(spot, size=size, used=used, **scaled)


def total(sizes: Iterable[float | None]) -> float | None:
    """The sum; None if one is not known."""
    known = list(sizes)
    return None if None in known else sum(filter(None, known))


def together(of_processes: Sequence[Sequence[Spot]], processes: int) -> Spot:
    """One place in several processes of all, with all objects that requests wait for there."""
    same = [spot for own in of_processes for spot in own]
    sums = {name: sum(getattr(one, name) for one in same) for name in ("requests", "cpu_s", "most", "tasks", "there")}
    found = replace(
        same[0], processes=len(of_processes), objects=max(len(owners_of(own)) for own in of_processes) or 1,
        share=max(one.share for one in same), owners=owners_of(same), **sums,
    )  # fmt: skip
    if found.resource in OF_ALL_PROCESSES:
        return found
    each = [max(own, key=lambda one: one.size_of_each or 0.0).size_of_each for own in of_processes]
    return replace(
        found, size=total(one.size for one in same), used=total(one.used for one in same),
        size_of_each=each[0] if processes > 1 else None,
    )  # fmt: skip


def spots_of(samples: Sequence[Line], folder: str, made: Mapping[str, Any]) -> list[Spot]:
    """The places of one process, with the mean number of requests at each.

    made: file and line where an object was made, by its id.
    """
    is_blocked = blocked_share(samples) > 0.5
    groups, seen_in = defaultdict[str, list[Row]](list), defaultdict[str, set[int]](set)
    for number, row in ((number, row) for number, one in enumerate(samples) for row in one["rows"]):
        key = str((state_of(row, is_blocked), place_of(row), resource_of(row)[:2]))
        groups[key].append(row)
        seen_in[key].add(number)
    found = []
    for key, same in groups.items():
        spot = spot_of(same, state_of(same[0], is_blocked), folder)
        requests, share = sum(row["n"] for row in same) / len(samples), len(seen_in[key]) / len(samples)
        if at := made.get(str(resource_of(same[0])[1])):
            spot = replace(spot, size_line=line_of(at, folder))
        if requests >= FEW or spot.state in (State.BLOCKING, State.BESIDE):
            spot = replace(spot, requests=requests, share=share, cpu_s=sum(row["cpu_s"] for row in same))
            tasks, there = (sum(row[name] for row in same) / len(samples) for name in ("parts", "there"))
            found.append(replace(spot, tasks=tasks, there=there))
    return found


def place_of(row: Row) -> object:
    """Where its requests stand: in the code of the app, or beside it."""
    return row["app"] or (row["phase"], row["handler"], None if row["phase"] else row["below"][-1:])


def state_of(row: Row, is_blocked: bool) -> State:
    if row["on_loop"] and is_blocked:
        return State.BLOCKING
    if not row["n"]:
        return State.BESIDE
    if row["answered"]:
        return State.ANSWERED
    return State.WAITING if row["resource"] else State.WORKING


def spot_of(rows: Sequence[Row], state: State, folder: str) -> Spot:
    """What rows of one place have in common: the frames that most of them have, sizes as they were on average."""
    first = rows[0]
    name, _, size, _, setting = resource_of(rows[-1])
    return Spot(
        0.0, state, line_of(first["app"], folder), first["app"] and first["app"][2],
        tuple(f"{line_of(frame, folder)} {frame[2]}" for frame in usual_frames(rows)[-BELOW:]),
        first["phase"], line_of(first["handler"], folder), name, setting or None, size, use_of(rows),
        held_to=first["held_to"],
        through=tuple(f"{named(file, folder)} {function}" for file, _, function, *_ in first["through"]),
        most=max(row["n"] for row in rows),
        is_after=all(row["answered"] for row in rows),
        parts=sum(row["parts"] for row in rows) / (sum(row["calls"] for row in rows) or 1),
        owners=frozenset({resource_of(first)[1]} - {None}),
        calls=calls_of(rows),
    )  # fmt: skip


def calls_of(rows: Sequence[Row]) -> tuple[tuple[int, int | None], ...]:
    """The lines on the way to a place, where all rows came the same way."""
    same, *others = {tuple((line, *end) for _, line, _, *end in row["through"]) for row in rows}
    return () if others else tuple((line, *end, None)[:2] for line, *end in same)


def usual_frames(rows: Sequence[Row]) -> list[Any]:
    """The frames below the app that most of the requests have."""
    weights: Counter[str] = Counter()
    for row in rows:
        weights[json.dumps(row["below"])] += row["n"] or 1
    return list(json.loads(weights.most_common(1)[0][0]))


def use_of(rows: Sequence[Row]) -> float | None:
    """How much of a resource was in use in the middle; None: not known."""
    used = [use for row in rows if (use := resource_of(row)[3]) is not None]
    return median(used) if used else None
