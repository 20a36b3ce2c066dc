"""Which resources were in use in the samples of a server's processes, how much of the time, and until when. Pure.

engine/inside/wrap/_bench_sampler.py has the format of a sample.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.limit import HALF, LOOP, MOSTLY
from engine.places import Resource

Line = Mapping[str, Any]  # as a sampler wrote it: a sample, or a last word
Row = Mapping[str, Any]
LEAST_ALIKE = 5  # samples of a process with as many requests
PAUSE_S = 0.05  # between two samples of a process
MOST_OF = 0.6  # of the samples of a process


def persistent(samples: Sequence[Line]) -> tuple[str, ...]:
    """The resources that are waited for in most of the samples of a process.

    A burst arrives everywhere at once: what only its first moments wait for does not limit it.
    """
    found: set[str] = set()
    for own in by_process(samples).values():
        waited = Counter(
            name for one in own for name in {resource_of(row)[0] for row in one["rows"] if row["resource"]}
        )
        found |= {name for name, count in waited.items() if count >= MOST_OF * len(own)}
    return tuple(sorted(found))


def passed_at_once(samples: Sequence[Line], last_s: float) -> frozenset[str]:
    """The resources that requests waited for together: at the end of a wait that was long nearly as many as ever, and
    none after it. Where each had it for a time, they would have become fewer. last_s: of the answers."""
    found: set[str] = set()
    for own in by_process(samples).values():
        names = {resource_of(row)[0] for one in own for row in one["rows"] if row["resource"]}
        found |= {name for name in names if ends_at_once([(one["at"], waiting_for(one, name)) for one in own], last_s)}
    return frozenset(found)


def ends_at_once(waiting: Sequence[tuple[float, float]], last_s: float) -> bool:
    """waiting: moments, and how many requests wait."""
    moments_s = [at_s for at_s, count in waiting if count]
    if not moments_s:
        return False
    after_s = min((at_s for at_s, _ in waiting if at_s > moments_s[-1]), default=last_s)
    is_long = moments_s[-1] - moments_s[0] >= LONG * (after_s - moments_s[-1])
    at_end, most = dict(waiting)[moments_s[-1]], max(count for _, count in waiting)
    return is_long and most >= LEAST_TOGETHER and at_end >= MOSTLY * most


LONG = 3  # times as long as the time between two samples
LEAST_TOGETHER = 4  # requests


def waiting_for(sample: Line, name: str) -> float:
    return float(sum(row["n"] for row in sample["rows"] if resource_of(row)[0] == name))


def waited_at(samples: Sequence[Line], which: Callable[[float, float], float]) -> dict[Any, float]:
    """When each resource was seen to be waited for, the first (min) or the last time (max): by its name, and by its
    name and object."""
    found: dict[Any, float] = {}
    for one in samples:
        at_s: float = one["at"]
        for name, owner, *_ in map(resource_of, one["rows"]):
            for key in (name, (name, owner)):
                found[key] = which(at_s, found.get(key, at_s))
    return found


def busy_shares(samples: Sequence[Line], slots: float | None) -> dict[str, float]:
    """In how many samples each resource was waited for, so that it was fully in use: in the process where that was
    least. Of the server's slots: in how many as many requests were inside."""
    of_processes = by_process(samples).values()
    each = slots_of_each(slots, len(of_processes))
    counts = [Counter(name for one in own for name in in_use(one, each)) for own in of_processes]
    names = {name for one in counts for name in one}
    return {name: min(one[name] / len(own) for one, own in zip(counts, of_processes, strict=True)) for name in names}


def left_over(samples: Sequence[Line], slots: float | None) -> dict[str, float]:
    """When the first process had a resource left over, at the end of a burst: about a pause after it was last seen to
    be fully in use there. slots: of the server, if known."""
    of_processes = by_process(samples).values()
    each = slots_of_each(slots, len(of_processes))
    last: dict[str, float] = {}
    for own in of_processes:
        in_process = {name: one["at"] + PAUSE_S for one in own for name in in_use(one, each)}
        last |= {name: min(at_s, last.get(name, math.inf)) for name, at_s in in_process.items()}
    return last


def slots_of_each(slots: float | None, processes: int) -> float:
    return (slots or math.inf) / max(1, processes)


def in_use(sample: Line, slots: float) -> set[str]:
    """What is fully in use in a sample. slots: of the process."""
    found = {name for name in (resource_of(row)[0] for row in sample["rows"]) if name}
    if any(row["on_loop"] for row in sample["rows"]):
        found.add(LOOP)
    return found | {Resource.SLOTS.value} if in_sample(sample) >= slots - HALF else found


def constant_inside(samples: Sequence[Line]) -> float | None:
    """How many requests the processes had inside in nearly all samples; None: that varied, or an event loop works on
    them: it computes for one at a time, and that is no slot."""
    if any(row["on_loop"] for one in samples for row in one["rows"]):
        return None
    if any(one["inside"] > in_sample(one) + 1 for one in samples):  # not each of them has a place
        return None
    found = 0
    for own in by_process(samples).values():
        ((inside, count),) = Counter(round(in_sample(one)) for one in own).most_common(1)
        if count < max(LEAST_ALIKE, MOSTLY * len(own)):
            return None
        found += inside
    return found or None


COMPUTES = 0.1  # of the CPU time of all processes
MORE_THAN_ONE = 1.3  # CPUs that a process used between two samples, at two moments


CpuTimes = Mapping[int, tuple[float, float]]  # process -> CPU seconds of its own, and of children that have ended


def cpus_seen(before_s: CpuTimes, after_s: CpuTimes, samples: Sequence[Line], all_cpus: int) -> int:
    """On how many CPUs a server was seen to compute at a time: so many of its processes computed, or one without
    Python's lock. Of processes that have ended it is not known how many there were at a time: all_cpus, unless it is 0.

    >>> cpus_seen({1: (0, 0), 2: (5, 0), 3: (0, 0)}, {1: (0.01, 0), 2: (6, 0), 3: (0.9, 0)}, [], 8)
    2
    """
    none_yet = (0.0, 0.0)
    used = [tuple(map(operator.sub, after_s[pid], before_s.get(pid, none_yet))) for pid in after_s]
    least_s = COMPUTES * sum(map(sum, used))
    if all_cpus and any(ended_s > least_s for _, ended_s in used):
        return all_cpus
    processes: int = sum(own_s > least_s for own_s, _ in used)
    rates: list[float] = [rate for own in by_process(samples).values() for rate in rates_of(own)]
    second: float = sorted([0.0, 0.0, *rates])[-2]
    return max(processes, math.ceil(second) if second > MORE_THAN_ONE else 0)


def rates_of(own: Sequence[Line]) -> list[float]:
    """On how many CPUs a process has computed between its samples."""
    told = [one for one in own if "cpu" in one]
    pairs = itertools.pairwise(told)
    return [this["cpu"] / (this["at"] - last["at"]) for last, this in pairs if this["at"] > last["at"]]


def in_sample(sample: Line) -> float:
    return float(sum(row["n"] for row in sample["rows"]))


def by_process(samples: Sequence[Line]) -> dict[int, list[Line]]:
    found: dict[int, list[Line]] = defaultdict(list)
    for one in samples:
        found[one["pid"]].append(one)
    return found


def resource_of(row: Row) -> Sequence[Any]:
    """Name, id, size, used, setting."""
    return row["resource"] or (None, None, None, None, None)
