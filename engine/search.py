"""Several loads on one server: how many requests at a time (--probe), and the highest rate (--find-rate)."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

from engine import estimate, objectives, plans, report, send, sizes, verdict
from engine.client import is_success
from engine.execute import Announce, Before, Place, Site, judged, now, send_before, send_load, site_for
from engine.loads import Burst, Closed, Load, Open
from engine.machine import timer_s
from engine.run import Plan, Run
from engine.signals import signals

LEAST_TIMEOUT_S = 1.0

BringHome = Callable[[Run], None]


def one_run(plan: Plan, load: Load, site: Site, before: Before) -> Run:
    """One load on a server that runs."""
    plan = dataclasses.replace(plan, load=load)
    return judged(plan, plans.prediction_for(plan), site, send_load(plan, site), before, now())


def probe(plan: Plan, place: Place, bring_home: BringHome, show: Announce, budget: tuple[int, float]) -> None:
    """Bursts, each twice the one before, until the answers are unmistakable or the budget is spent."""
    most_requests, most_s = budget
    runs, why = list[Run](), None
    show(report.search(plan, report.probe_plan(most_requests, most_s)))
    with site_for(plan, place) as site:
        end_s = time.perf_counter() + most_s
        plan, before = send_before(plan, site)
        left = most_requests - before.sent
        while not why and not signals.received:
            timeout_s = min(plan.timeout_s, max(LEAST_TIMEOUT_S, end_s - time.perf_counter()))
            burst = Burst(max(1, min(10 * 2 ** len(runs), left)))
            run = one_run(dataclasses.replace(plan, timeout_s=timeout_s), burst, site, before)
            runs.append(run)
            left -= run.measured.sent
            if why := why_probe_ends(runs, left, end_s - time.perf_counter()):
                run = concluded(runs)
            bring_home(run)
            show(report.probe_line(run))
    if runs:
        show(report.probe_result(run, why or "stopped"))


def why_probe_ends(runs: Sequence[Run], left: int, left_s: float) -> str | None:
    """As estimate.why_over(); and where a burst was stopped, or two of them showed the same limit inside the server."""
    last, seen = runs[-1], [verdict.seen_limit(run) for run in runs[-2:]]
    shown = [(limit.resource, limit.slots) for limit in seen if limit]
    if last.measured.stopped:
        return "stopped"
    if last.measured.sent > 10 and shown[1:] and shown[0] == shown[1]:
        return "seen"
    return estimate.why_over(bursts_of(runs), left, left_s)


def concluded(runs: Sequence[Run]) -> Run:
    """The last burst, with what all of them show together."""
    last, bursts = runs[-1], bursts_of(runs)
    if last.measured.failed or last.measured.stopped or not bursts:
        return last
    return dataclasses.replace(last, verdict=verdict.judge(last, estimate.conclude(bursts), timer_s()))


def bursts_of(runs: Sequence[Run]) -> list[estimate.Probed]:
    return [
        estimate.Probed(run.measured.sent, run.measured.failed, run.measured.measured_s, run.verdict.estimate)
        for run in runs
        if run.verdict.estimate
    ]


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
