"""A change of the settings that is tried: what it will do, predicted from the run before, and which one to try. Pure.

The prediction stands on what the requests were seen to wait for in the first run. A limit inside the handlers stays as
it was in each process; the server's own slots are those of the changed settings.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, replace
from typing import Literal

from engine.advice import beside_s
from engine.launch import Launch
from engine.loads import Figure
from engine.places import Limit, Resource
from engine.plans import prediction_for, with_launch
from engine.run import Plan, Run
from engine.unseen import slower_than_alone_s
from engine.verdict import binding, is_held_after, is_servers, seen_limit
from engine.where import OF_ALL_PROCESSES

NEAR = 1.4  # times
KNOWN = {"--workers", "--threads", "--anyio-threads", "--pool-size"}  # what others change is not known beforehand


@dataclass(frozen=True)
class Change:
    """What was tried, and what came of it; the first is the run as it was. None: not known."""

    options: str
    predicted_s: float | None
    measured_s: float | None
    failed: int = 0  # requests; then its times say nothing


def figure_of_change(run: Run) -> Figure:
    """What runs are compared by: the last answer of a burst, else the mean latency."""
    return Figure.MEAN if run.plan.load.is_steady else Figure.LAST_ANSWER


def expected_s(plan: Plan, options: str, first: Run) -> float | None:
    """The figure that the changed settings will give; None: it cannot be known from the first run.

    plan: with the changed settings.
    """
    asked = {word.partition("=")[0] for word in shlex.split(options) if word.startswith("-")}
    is_known = asked <= KNOWN and not is_out_of_cpus(first)
    if not is_known or first.measured.failed or slower_than_alone_s(first) or not is_reproduced(first):
        return None
    return due_with(plan, first)


def due_with(plan: Plan, first: Run) -> float | None:
    """The figure with the settings of a plan, by what was seen in the first run; None: not known."""
    limit = binding(first)
    slots, wait_s = slots_with(plan, limit, first.plan.workers), held_s_of(limit, first)
    if not slots or not wait_s or any(one.is_used_beside for one in first.verdict.limits[:1]):
        return None
    if is_cpu_first(first):  # then what limits is mostly held while a request waits for CPU
        wait_s = min(wait_s, first.plan.wait_s or wait_s)
    due_s = due_on(plan, slots, wait_s, beside_s(first), first)
    for limit in first.verdict.limits:
        if limit.resource == Resource.CPU and limit.held_s and due_s:
            due_s = max(due_s, due_by_cpu(plan, limit, wait_s, first) or due_s)
    return due_s


def due_by_cpu(plan: Plan, cpu: Limit, wait_s: float, first: Run) -> float | None:
    """The CPUs that the processes can use are slots, too, which a request has for a part of its time."""
    cpus, cpu_s = min(plan.cpus, plan.workers * max(1, (cpu.cpus or 1) // first.plan.workers)), cpu.held_s or 0.0
    return due_on(replace(plan, workers=cpus, deal=None), cpus, cpu_s, max(0.0, wait_s - cpu_s), first)


def is_cpu_first(first: Run) -> bool:
    return any(one.resource == Resource.CPU for one in first.verdict.limits[:1])


def due_on(plan: Plan, slots: float, wait_s: float, rest_s: float, first: Run) -> float | None:
    """The figure with so many slots, each held for wait_s, where a request takes rest_s besides."""
    found = prediction_for(as_seen(plan, slots, wait_s, rest_s, first)).of(figure_of_change(first))
    return found and with_rest_s(found, rest_s, first, slots)


def is_out_of_cpus(first: Run) -> bool:
    """Whether client and server used up the machine: what a change does then depends on both."""
    limits = first.verdict.limits
    return bool(limits and limits[0].resource == Resource.MACHINE)


def is_reproduced(first: Run) -> bool:
    """Whether what was seen in the first run gives the first run itself: else something is missing in it."""
    due_s, measured_s = due_with(first.plan, first), first.measured.of(figure_of_change(first))
    return bool(due_s and measured_s and 1 / NEAR < due_s / measured_s < NEAR)


def as_seen(plan: Plan, slots: float, wait_s: float, rest_s: float, first: Run) -> Plan:
    """The plan with so many slots, each held as long as was seen; a user does the rest of a request in his pause."""
    limit, load = binding(first), first.plan.load
    workers = 1 if limit and limit.resource in OF_ALL_PROCESSES else plan.workers
    each = slots / workers
    return replace(
        plan, load=replace(load, think_s=load.think_s + max(0.0, rest_s)), wait_s=wait_s, wait_is_measured=True,
        cpu_time_s=0.0, slots=slots, slots_per_worker=each, server_slots=each,
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


def doubled(launch: Launch, setting: Literal["workers", "threads"]) -> str | None:
    """The option that gives twice as many; None: this server has no such setting."""
    now = {"workers": launch.workers, "threads": launch.threads}[setting]
    return f"--{setting} {2 * now}" if setting in launch.kind.settings else None


def is_not_changed(run: Run, limit: Limit | None) -> bool:
    """Whether more of what limits is of no use, or what it does cannot be known."""
    is_beside = any(one.is_used_beside for one in run.verdict.limits[:1])
    is_event = bool(limit and limit.slots is None)  # that ends the wait of all
    return is_beside or is_event or bool(slower_than_alone_s(run)) or is_out_of_cpus(run)


def advised(run: Run) -> str | None:
    """The options that give twice as much of what limits the run; None: it cannot be changed from outside."""
    limit = seen_limit(run) if run.measured.failed else binding(run)
    launch, limits, is_cpu = run.plan.launch, run.verdict.limits, is_cpu_first(run)
    if not launch or launch.run or not (limit or is_cpu) or is_not_changed(run, limit):
        return None
    twice = doubled(launch, "workers")
    threads = (None if launch.is_full_before_threads else doubled(launch, "threads")) or twice
    options = {
        Resource.CPU.value: twice if launch.workers < run.plan.cpus else None,
        Resource.SLOTS.value: threads,
        "AnyIO's threads": f"--anyio-threads {2 * launch.anyio_threads}",
        **dict.fromkeys(OF_ALL_PROCESSES),
    }
    return options.get(limits[0].resource if is_cpu or not limit else limit.resource, twice)
