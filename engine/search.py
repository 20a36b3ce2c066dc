"""Several loads on one server: how many requests at a time (--probe), and the highest rate (--find-rate)."""

import dataclasses
import math
import time
from collections.abc import Callable

from engine import estimate, objectives, plans, report, send, sizes, verdict
from engine.client import is_success
from engine.execute import Announce, Before, Place, Site, judged, now, send_before, send_load, site_for
from engine.loads import Burst, Closed, Load, Open
from engine.machine import timer_s
from engine.run import Plan, Run
from engine.signals import signals

BringHome = Callable[[Run], None]


def one_run(plan: Plan, load: Load, site: Site, before: Before) -> Run:
    """One load on a server that runs."""
    plan = dataclasses.replace(plan, load=load)
    return judged(plan, plans.prediction_for(plan), site, send_load(plan, site), before, now())


def probe(plan: Plan, place: Place, bring_home: BringHome, show: Announce, budget: tuple[int, float]) -> None:
    """Bursts, each twice the one before, until the answers are unmistakable or the budget is spent."""
    most_requests, most_s = budget
    done, seen, size, why = list[estimate.Probed](), list[tuple[str, float | None] | None](), 10, None
    show(report.search(plan, report.probe_plan(most_requests, most_s)))
    with site_for(plan, place) as site:
        end_s = time.perf_counter() + most_s
        plan, before = send_before(plan, site)
        left = most_requests - before.sent
        size = max(1, min(size, left))
        while not why and not signals.received:
            run = one_run(plan, Burst(size), site, before)
            if found := run.verdict.estimate:
                done.append(estimate.Probed(size, run.measured.failed, run.measured.measured_s, found))
                size, left = 2 * size, left - size
                seen.append((limit.resource, limit.slots) if (limit := verdict.seen_limit(run)) else None)
                is_seen = size > 20 and seen[-1] and seen[-1] == seen[-2]
                why = "seen" if is_seen else estimate.why_over(done, left, end_s - time.perf_counter())
            else:
                why = "stopped"
            if why and done and not run.measured.failed:
                run = dataclasses.replace(run, verdict=verdict.judge(run, estimate.conclude(done), timer_s()))
            bring_home(run)
            show(report.probe_line(run))
    if done:
        show(report.probe_result(run, why or "stopped"))


def find_rate(
    plan: Plan, place: Place, bring_home: BringHome, show: Announce, objective: tuple[float, int], run_s: float
) -> None:
    """Runs of random arrivals, the first at the predicted rate, until the highest rate that holds shows."""
    objective_s, percentile = objective
    show(report.search(plan, report.find_rate_plan(objective_s, percentile)))
    with site_for(plan, place) as site:
        plan, before = send_before(plan, site)
        plan = plans.with_overhead(plan, before.lone_s)
        first = first_rate(plan, site, objective_s, percentile)
        show(report.first_rate_text(plan, first, objective_s, percentile, run_s))
        tried: list[objectives.Tried] = []
        rate: float | objectives.Found = first
        while isinstance(rate, float) and not signals.received:
            run = one_run(plan, Open.poisson(rate, math.inf, run_s, seed=len(tried) + 1), site, before)
            bring_home(run)
            measured, latency_s = run.measured, latency_at(run, percentile)
            tried.append(objectives.Tried(rate, latency_s, measured.throughput_rps, measured.failed))
            show(report.tried_line(tried[-1], objective_s, percentile))
            if not measured.answered:
                break
            rate = objectives.next_rate(objective_s, tried)
    if tried and not measured.answered:
        show(report.no_rate(run))
    elif isinstance(rate, objectives.Found):
        show(report.found_rate(rate, run, objective_s, percentile))


def first_rate(plan: Plan, site: Site, objective_s: float, percentile: int) -> float:
    """The predicted rate; where slots or wait are not known, 70 % of what a second of eight users gets."""
    if plan.slots and plan.wait_s and plan.slots < math.inf:
        return sizes.highest_rate(plan.slots, max(plan.busy_s, plan.held_s or 0.0), objective_s, percentile)
    users = dataclasses.replace(plan, load=Closed(time_limit_s=1.0, concurrency=8), warm_up=8)
    send.warm_up(users, site.address)
    found = send.measure(users, site.address).exchanges
    return max(1.0, 0.7 * sum(map(is_success, found.status, found.error)))


def latency_at(run: Run, percentile: int) -> float:
    """The percentile; the longest of all, if there are too few answers for it."""
    found, longest = (objectives.figure_of(run.measured, name) for name in (f"p{percentile}", "max"))
    return found or longest or math.inf
