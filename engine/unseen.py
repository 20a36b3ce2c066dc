"""Whether requests keep what limits them for much longer than by themselves, and what they wait for meanwhile was not
seen. Pure."""

from __future__ import annotations

import math

from engine.audit import are_unlike, longer_handlers, takes_longer
from engine.band import much_longer_s
from engine.limit import HALF, LOOP
from engine.places import Limit, Resource
from engine.run import Explanation, Run
from engine.verdict import is_held_after, is_servers, seen_limit, waiting_inside


def slower_than_alone_s(run: Run) -> float | None:
    """How long a request takes by itself, where it was seen to keep what limits much longer than that: what it waits
    for meanwhile was not seen. None: not so, or not known."""
    limit, plan = limit_but_for_cpu(run), run.plan
    if not (limit and plan.wait_s) or limit.resource == LOOP or varies(run) or is_held_after(run) or limit.parts > 1:
        return None  # by itself a request has all of its parts at once, and here one after the other
    in_log_s = longer_handlers(run)["handled_s"] if is_servers(limit) and takes_longer(run) else 0.0
    held_s = limit.held_s or in_log_s
    return plan.wait_s if held_s > much_longer_s(plan.busy_s) and not is_seen_inside(run, limit, held_s) else None


def is_seen_inside(run: Run, limit: Limit, held_s: float) -> bool:
    """Whether at least half of what a request takes longer than by itself is a wait that was seen."""
    if not is_servers(limit) or not run.inside or not run.inside.where:
        return False
    waited_s = held_s * waiting_inside(run.inside.where) / (limit.slots or math.inf)
    return waited_s >= HALF * (held_s - run.plan.busy_s)


def varies(run: Run) -> bool:
    """Whether what a request takes by itself says little of others."""
    plan, estimate = run.plan, run.verdict.estimate
    is_drawn = plan.distribution != "constant" or any(map(are_unlike, run.measured.alone))
    is_drawn = is_drawn or bool(estimate and estimate.doubt == "unlike-lone-requests")
    # Of a split some processes were idle in the end; after a first byte the handler goes on.
    return is_drawn or run.verdict.explained_by is Explanation.SPLIT or plan.first_byte


def limit_but_for_cpu(run: Run) -> Limit | None:
    """What the requests were seen to wait for, unless CPU time is the first of what limits."""
    is_cpu = any(one.resource in (Resource.CPU, Resource.MACHINE) for one in run.verdict.limits[:1])
    return None if is_cpu else seen_limit(run)


def is_not_known(run: Run) -> bool:
    """Whether the server's slots are taken only because something that was not seen keeps the requests."""
    limit = seen_limit(run)
    return bool(limit and is_servers(limit) and slower_than_alone_s(run))
