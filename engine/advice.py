"""Was an objective kept, and what would keep it: more slots, a larger pool, more processes, or nothing of that kind.

It stands on what was measured in the run and on what the requests were seen to wait for. A number that the run has just
shown not to be enough is never advised. Pure.
"""

from __future__ import annotations

import bisect
import functools
import math
from dataclasses import dataclass, replace
from enum import Enum

from engine.band import much_longer_s
from engine.estimate import processes_of
from engine.limit import LOOP, is_lock, requests_in
from engine.objectives import figure_of
from engine.places import Limit, Resource, State
from engine.run import Run
from engine.sizes import Asked, Size, size, too_short
from engine.unseen import slower_than_alone_s
from engine.verdict import binding, is_held_after, is_servers
from engine.where import OF_ALL_PROCESSES
from engine.words import Problem, duration

MOST_PROCESSES = 256
UNSEEN = "how long each request needs what it waits for was not seen"


class Unknown(Exception):
    """No number can be told, with the reason."""


class Cure(str, Enum):
    """What has to grow."""

    SLOTS = "slots"  # the server's own: threads, workers
    RESOURCE = "resource"  # what the requests wait for inside the handlers
    PROCESSES = "processes"  # each has one of it
    NONE = "none"  # it was kept with what there is
    NOTHING = "nothing"  # no number helps; `why` says it
    UNKNOWN = "unknown"  # what was slow was not seen, or `why`


@dataclass(frozen=True)
class Advice:
    percentile: int
    objective_s: float
    measured_s: float | None  # that percentile; None: too few answers for it
    is_kept: bool
    cure: Cure
    limit: Limit | None = None  # what has to grow
    need: int | None = None  # how many of it
    size: Size | None = None  # with what is near it
    why: str = ""


def advice_for(run: Run, objective: tuple[float, int]) -> Advice:
    """What the run says of an objective (seconds, percentile). Only of random or regular arrivals at a rate."""
    objective_s, percentile = objective
    measured_s, longest_s = (figure_of(run.measured, name) for name in (f"p{percentile}", "max"))
    are_in_time = (measured_s or longest_s or math.inf) <= objective_s
    is_kept = are_in_time and not run.measured.failed
    limit, asked = binding(run), asked_of(run, objective)
    told = functools.partial(Advice, percentile, objective_s, measured_s, is_kept)
    if is_kept:  # fewer were not tried, and how requests differ from each other is not known
        return told(Cure.NONE, limit)
    if are_in_time:
        return told(Cure.UNKNOWN, limit, why="no answer was too late, but requests failed")
    try:
        cure, need, found = cure_of(run, limit, asked)
    except Unknown as problem:
        return told(Cure.UNKNOWN, limit, why=f"{problem}")
    except Problem as problem:
        return told(Cure.NOTHING, limit, why=f"{problem}")
    if need and need <= there_are(run, cure):  # this many were just measured not to be enough
        cure, need, found = Cure.UNKNOWN, None, None
    return told(cure, limit, need, found)


def there_are(run: Run, cure: Cure) -> float:
    """How many there are now of what has to grow."""
    limit = binding(run)
    now = limit.slots if limit else run.plan.slots
    return processes_of(run) if cure is Cure.PROCESSES else now or math.inf


def asked_of(run: Run, objective: tuple[float, int]) -> Asked:
    """The question about the run's own rate; a request holds what it was seen to wait for as long as was seen."""
    plan, measured, limit = run.plan, run.measured, binding(run)
    rate_rps, cpu_s = plan.load.offered_load(1.0, 1.0) or 0.0, (measured.server_cpu_s or 0.0) / measured.answered
    held_s = limit.held_s if limit and limit.held_s else (plan.wait_s or 0.0) + cpu_s
    objective_s, percentile = objective
    left_s = max(0.001, objective_s - rest_s(run))
    cpus = min(plan.cpus, processes_of(run))  # a Python process computes on one at a time
    return Asked(rate_rps, max(0.0, held_s - cpu_s), left_s, percentile, cpu_s=min(cpu_s, held_s), cpus=cpus)


def beside_s(run: Run) -> float:
    """How long a request takes, by itself, beside the time for which it has what limits the run; below 0: it keeps that
    after its answer. 0 where it is not known."""
    limit, alone_s = binding(run), run.plan.wait_s
    if not (limit and limit.held_s and alone_s) or limit.resource == Resource.SLOTS:
        return 0.0
    rest_s = alone_s - limit.held_s
    is_seen = rest_s > 0.05 * alone_s or is_held_after(run)
    return rest_s if is_seen and run.plan.distribution == "constant" else 0.0


def rest_s(run: Run) -> float:
    """Of the objective, what is not for the wait and the holding time; below 0: it is held after the answer."""
    limit = binding(run)
    return 0.0 if grows_with_server(run, limit) else beside_s(run)


def cure_of(run: Run, limit: Limit | None, asked: Asked) -> tuple[Cure, int | None, Size | None]:
    """What has to grow, and to how many. Raises Problem, with the reason, where no number is enough, and Unknown."""
    name, limits = limit.resource if limit else "", run.verdict.limits
    if name in OF_ALL_PROCESSES:
        raise Problem(f"all processes share {name}: no number of threads or processes helps")
    if limits and limits[0].resource == Resource.CPU:
        if limits[0].is_used_beside:
            raise Unknown("CPU time is the limit, and requests that were under way did not use a good part of it")
        return Cure.PROCESSES, processes_for_cpu(replace(asked, cpus=run.plan.cpus)), None
    if run.plan.distribution not in ("constant", "mix") or len(set(run.plan.kind_waits_s)) > 1:
        raise Unknown(DIFFERENT)
    check_objective(run, asked)
    if grows_with_server(run, limit) and differ(run):
        raise Unknown(DIFFERENT)
    if why := why_unknown(run, limit, asked):
        raise Unknown(why)
    if limit and is_one_at_a_time(limit):
        return Cure.PROCESSES, processes_for(asked), None
    if grows_with_server(run, limit):
        found = size(asked)
        return Cure.SLOTS, int(found.fits.slots), found
    processes = objects_of(limit)
    found = size(replace(asked, rate_rps=asked.rate_rps / processes, cpus=max(1, asked.cpus // processes)))
    return Cure.RESOURCE, processes * int(found.fits.slots), found


DIFFERENT = "requests wait for different times, and sizes are found for a wait that is always the same"


def differ(run: Run) -> bool:
    """Whether some requests are in their handlers for much longer than most, as the log has it."""
    times = run.inside and run.inside.handlers
    return bool(times and (times.p95 or times.max) > much_longer_s(times.median))


def objects_of(limit: Limit | None) -> int:
    """How many there are of what the requests wait for, one in each process: a request cannot change the process."""
    return round((limit.slots or 0) / limit.size_of_each) or 1 if limit and limit.size_of_each else 1


def check_objective(run: Run, asked: Asked) -> None:
    """Raises Problem where a lone request takes longer already."""
    alone_s, objective_s = run.plan.wait_s or 0.0, asked.objective_s + rest_s(run)
    if alone_s > objective_s:
        raise too_short(objective_s, alone_s)


def grows_with_server(run: Run, limit: Limit | None) -> bool:
    """Whether it is the server that has to grow, whose slots are held as long as an answer takes."""
    return not limit or (is_servers(limit) and not is_held_after(run))


def why_unknown(run: Run, limit: Limit | None, asked: Asked) -> str:
    """Why no number can be told; empty: it can."""
    alone_s = run.plan.wait_s or 0.0
    if not limit:
        return why_nothing_seen(run, alone_s)
    if limit.parts > 1:
        return "a request has several of what others wait for at a time"
    if limit.size:
        return "something else than requests has a part of what they wait for"
    if slower_than_alone_s(run) or (limit.held_s and alone_s <= asked.objective_s < asked.held_s):
        held, alone = duration(limit.held_s), duration(alone_s)
        return f"under this load a request has it for {held}, by itself it takes {alone}: what slows it was not seen"
    return "" if limit.held_s or grows_with_server(run, limit) else UNSEEN


def why_nothing_seen(run: Run, alone_s: float) -> str:
    """The same where no request was seen to wait: a good part of them may have been answered, and still worked on."""
    where = run.inside and run.inside.where
    if where and requests_in(where.places, State.ANSWERED) > 0.1 * where.requests:
        return "requests keep something after their answer, and for how long was not seen"
    return "" if alone_s else UNSEEN


def is_one_at_a_time(limit: Limit) -> bool:
    """Whether a process has only one of it."""
    return limit.resource == LOOP or is_lock(limit.resource)


def processes_for(asked: Asked) -> int:
    """Of processes that serve one request at a time, each with a queue of its own. Raises Problem."""
    if asked.objective_s < asked.held_s:
        size(asked)  # says why none is enough

    def holds(processes: int) -> bool:
        return Asked(asked.rate_rps / processes, asked.held_s, asked.objective_s, asked.percentile).at(1).holds

    need = 1 + bisect.bisect_left(range(1, MOST_PROCESSES + 1), True, key=holds)
    if need > MOST_PROCESSES:
        raise Problem(f"more than {MOST_PROCESSES} processes would be needed, as each has a queue of its own")
    return need


def processes_for_cpu(asked: Asked) -> int:
    """Of processes that compute on one CPU each. Raises Problem where the CPUs are too few."""
    need = max(1, math.ceil(asked.rate_rps * asked.cpu_s / 0.8))
    if need > asked.cpus:
        raise Problem(f"{need} CPUs are needed for this rate, and the server has {asked.cpus:g}")
    return need
