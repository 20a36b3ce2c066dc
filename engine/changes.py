"""A change of the settings that is tried: what it will do, predicted from the run before, and which one to try. Pure.

The prediction stands on what the requests were seen to wait for in the first run. A limit inside the handlers stays as
it was in each process; the server's own slots are those of the changed settings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from engine.loads import Figure
from engine.places import Limit, Resource
from engine.plans import prediction_for, with_launch
from engine.run import Plan, Run
from engine.verdict import is_servers, seen_limit, slower_than_alone_s
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
    cpu_s = (first.measured.server_cpu_s or 0.0) / (first.measured.answered or math.inf)
    is_cpu = first.verdict.limits and first.verdict.limits[0].resource == Resource.CPU
    workers = 1 if limit and limit.resource in OF_ALL_PROCESSES else plan.workers
    each = slots / workers
    known = replace(
        plan, load=first.plan.load, wait_s=max(wait_s - cpu_s * bool(is_cpu), 0.0001), wait_is_measured=True,
        cpu_time_s=cpu_s if is_cpu else 0.0, slots=slots, slots_per_worker=each, server_slots=each, slots_known=True,
        workers=workers,
    )  # fmt: skip
    return prediction_for(known).of(figure_of_change(first))


def with_threads_of(plan: Plan, options: str, first: Plan) -> Plan:
    """The plan with AnyIO's threads as the app itself had set them in the first run, unless the options set them."""
    if not plan.launch or not first.launch or "--anyio-threads" in options:
        return plan
    return with_launch(plan, replace(plan.launch, anyio_threads=first.launch.anyio_threads))


def held_s_of(limit: Limit | None, first: Run) -> float | None:
    return limit.held_s if limit and limit.held_s else first.plan.wait_s


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
