"""A change of the settings that is tried: what it will do, predicted from the run before, and which one to try. Pure.

The prediction stands on what the requests were seen to wait for in the first run. A limit inside the handlers stays as
it was in each process; the server's own slots are those of the changed settings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from engine.advice import beside_s
from engine.loads import Figure
from engine.places import Limit, Resource
from engine.plans import prediction_for, with_launch
from engine.run import Plan, Run
from engine.verdict import is_held_after, is_servers, seen_limit, slower_than_alone_s
from engine.where import OF_ALL_PROCESSES

UNKNOWN = ("--env", "--server-args", "--server")  # what they change is not known beforehand


@dataclass(frozen=True)
class Change:
    """What was tried, and what came of it; the first is the run as it was. None: not known."""

    options: str
    predicted_s: float | None
    measured_s: float | None


def figure_of_change(run: Run) -> Figure:
    """What runs are compared by: the last answer of a burst, else the mean latency."""
    return Figure.MEAN if run.plan.load.is_steady else Figure.LAST_ANSWER


def expected_s(plan: Plan, options: str, first: Run) -> float | None:
    """The figure that the changed settings will give; None: it cannot be known from the first run.

    plan: with the changed settings.
    """
    limit = seen_limit(first)
    slots = None if any(word in options for word in UNKNOWN) else slots_with(plan, limit, first.plan.workers)
    wait_s = held_s_of(limit, first)
    if not slots or not wait_s or slower_than_alone_s(first):
        return None
    rest_s = beside_s(first)
    found = prediction_for(as_seen(plan, slots, wait_s, rest_s, first)).of(figure_of_change(first))
    return found and with_rest_s(found, rest_s, first, slots)


def as_seen(plan: Plan, slots: float, wait_s: float, rest_s: float, first: Run) -> Plan:
    """The plan with so many slots, each held as long as was seen; a user does the rest of a request in his pause."""
    limit, limits, load = seen_limit(first), first.verdict.limits, first.plan.load
    is_cpu = limits and limits[0].resource == Resource.CPU
    cpu_s = (first.measured.server_cpu_s or 0.0) / (first.measured.answered or math.inf) if is_cpu else 0.0
    workers = 1 if limit and limit.resource in OF_ALL_PROCESSES else plan.workers
    each = slots / workers
    return replace(
        plan, load=replace(load, think_s=load.think_s + max(0.0, rest_s)), wait_s=max(wait_s - cpu_s, 0.0001),
        wait_is_measured=True, cpu_time_s=cpu_s, slots=slots, slots_per_worker=each, server_slots=each,
        slots_known=True, workers=workers,
    )  # fmt: skip


def with_rest_s(found_s: float, rest_s: float, first: Run, slots: float) -> float:
    """The figure with what a request takes besides. A user does not wait for what is held after the answer, unless all
    of it is taken."""
    users = first.plan.load.steady_count
    return found_s if rest_s < 0 and users and users > slots else found_s + rest_s


def with_threads_of(plan: Plan, options: str, first: Plan) -> Plan:
    """The plan with AnyIO's threads as the app itself had set them in the first run, unless the options set them."""
    if not plan.launch or not first.launch or "--anyio-threads" in options:
        return plan
    return with_launch(plan, replace(plan.launch, anyio_threads=first.launch.anyio_threads))


def held_s_of(limit: Limit | None, first: Run) -> float | None:
    """How long a request has what limits; of the server's slots, as long as it takes. None: not known."""
    if limit and (limit.held_s or not is_servers(limit) or is_held_after(first)):
        return limit.held_s
    return first.plan.wait_s


def slots_with(plan: Plan, limit: Limit | None, workers_before: int) -> float | None:
    """With the changed settings: of the server, or of what is inside; None: not known."""
    server = plan.slots if plan.slots is not None else math.inf
    if limit is None or limit.slots is None:
        return plan.slots
    if is_servers(limit):
        return plan.slots
    processes = 1.0 if limit.resource in OF_ALL_PROCESSES else plan.workers / workers_before
    return min(server, limit.slots * processes)


def advised(run: Run) -> str | None:
    """The options that give twice as much of what limits the run; None: it cannot be changed from outside."""
    limit, launch, limits = seen_limit(run), run.plan.launch, run.verdict.limits
    is_cpu = limits and limits[0].resource == Resource.CPU
    if not launch or launch.run or not (limit or is_cpu) or slower_than_alone_s(run):
        return None
    twice = f"--workers {2 * launch.workers}" if "workers" in launch.kind.settings else None
    threads = f"--threads {2 * launch.threads}" if "threads" in launch.kind.settings else twice
    options = {
        Resource.CPU.value: twice if launch.workers < run.plan.cpus else None,
        Resource.SLOTS.value: threads,
        "AnyIO's threads": f"--anyio-threads {2 * launch.anyio_threads}",
        **dict.fromkeys(OF_ALL_PROCESSES),
    }
    return options.get(limits[0].resource if is_cpu or not limit else limit.resource, twice)
