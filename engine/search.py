"""Several loads on one server: how many requests at a time (--probe), and the highest rate (--find-rate)."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from statistics import median

from engine import advice, estimate, objectives, plans, report, report_before, send, sizes, verdict
from engine.before import Before, Site, latency_s, lone_plan, send_before
from engine.execute import Announce, Place, judged, now, send_load, site_for
from engine.loads import Burst, Closed, Load, Open
from engine.machine import timer_s
from engine.progress import line_says
from engine.run import Plan, Run
from engine.signals import signals
from engine.unseen import is_not_known
from engine.words import Problem, duration

LEAST_TIMEOUT_S = 1.0
MOST_USERS, FULL_S = 200, 3.0  # of the load that fills the server
OF_FULL_LOAD = 0.7  # of what that gets, where the search begins if no rate can be predicted
SETTLE_S = 10.0  # after a run, at most
RUNS_OF_LONE = 3  # times as long as a request takes is the shortest run
FITS = 0.8  # of the time that is left: what a first burst takes that is served one request after the other

BringHome = Callable[[Run], None]


def one_run(plan: Plan, load: Load, site: Site, before: Before) -> Run:
    """One load on a server that runs."""
    plan = dataclasses.replace(plan, load=load)
    return judged(plan, plans.prediction_for(plan), site, send_load(plan, site), before, now())


def probe(plan: Plan, place: Place, bring_home: BringHome, show: Announce, budget: tuple[int, float]) -> None:
    """Bursts, each twice the one before, until the answers are unmistakable or the budget is spent."""
    most_requests, most_s = budget
    runs, why = list[Run](), None
    show(report_before.search(plan, report.probe_plan(most_requests, most_s)))
    with site_for(plan, place) as site:
        end_s = time.perf_counter() + most_s
        plan, before = send_before(plan, site)
        check_time_left(end_s - time.perf_counter(), before, most_s)
        left = most_requests - before.sent
        while not why and not signals.received:
            timeout_s = min(plan.timeout_s, max(LEAST_TIMEOUT_S, end_s - time.perf_counter()))
            size = 2 * runs[-1].measured.sent if runs else first_burst(before, timeout_s)
            burst = Burst(max(1, min(size, left)))
            with line_says(report.probe_so_far(runs)):
                run = one_run(dataclasses.replace(plan, timeout_s=timeout_s), burst, site, before)
            runs.append(run)
            left -= run.measured.sent
            if why := why_probe_ends(runs, left, end_s - time.perf_counter()):
                run = concluded(runs)
            bring_home(run)
            show(report.probe_line(run))
    if runs:
        show(report.probe_result(run, why or "stopped"))


def first_burst(before: Before, timeout_s: float) -> int:
    """Ten requests, or as many as are answered in time even if each waits for all of the others."""
    return min(10, max(2, int(FITS * timeout_s / max(before.lone_s, default=0.001))))


def check_time_left(left_s: float, before: Before, most_s: float) -> None:
    """Raises Problem where a burst could not be answered in the time that is left."""
    alone_s = max(before.lone_s, default=0.0)
    if before.lone_s and left_s < 2 * alone_s:
        raise Problem(
            f"a request takes {duration(alone_s)} by itself, so that too little is left for a burst of the"
            f" {duration(most_s)} that --probe may take: give it more with -t, such as -t {math.ceil(20 * alone_s)}"
        )


def why_probe_ends(runs: Sequence[Run], left: int, left_s: float) -> str | None:
    """As estimate.why_over(); and where a burst was stopped, or two of them showed the same limit inside the server."""
    last, shown = runs[-1], [limit_shown(run) for run in runs[-2:]]
    if last.measured.stopped:
        return "stopped" if signals.received else "failures"
    if are_same(shown) and last.measured.sent > 10 and not last.measured.failed:
        return "seen"
    return estimate.why_over(bursts_of(runs), left, left_s)


def are_same(shown: Sequence[tuple[str, float | None] | None]) -> bool:
    """Whether two bursts show the same resource, and nearly the same number of it."""
    if len(shown) < 2 or not shown[0] or not shown[1] or shown[0][0] != shown[1][0]:
        return False
    return math.isclose(shown[0][1] or 0.0, shown[1][1] or 0.0, rel_tol=0.05)


def limit_shown(run: Run) -> tuple[str, float | None] | None:
    """What limits inside the server, and its size; None: that is not known."""
    limit = verdict.seen_limit(run)
    return (limit.resource, limit.slots) if limit and not is_not_known(run) else None


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
) -> bool:
    """Runs of random arrivals, until the highest rate that holds is between two of them. False: no rate was found."""
    objective_s, percentile = objective
    show(report_before.search(plan, report.find_rate_plan(objective_s, percentile)))
    tried = list[objectives.Tried]()
    with site_for(plan, place) as site:
        plan, before = send_before(plan, site)
        plan = plans.with_overhead(plan, before.lone_s)
        run_s = max(run_s, RUNS_OF_LONE * alone_in_time_s(before, objective_s))
        with line_says("full load"):
            full = full_load(plan, site, before)
        predicted, why_none = predicted_rate(full, objective_s, percentile)
        first = predicted or OF_FULL_LOAD * (rate_of_all(full) or 1.0)
        rate: float | objectives.Found = first
        show(report.first_rate_text(full, rate_of_all(full), first, objective_s, percentile, run_s, why_none))
        while isinstance(rate, float) and not signals.received:
            so_far = report.rates_so_far(*objectives.bracket(objective_s, tried))
            with line_says(f"settling, {so_far}"):
                settle(plan, site, before)
            is_again = any(one.rate == rate for one in tried)
            time_s = run_s * (objectives.LONGER if is_again else 1)
            with line_says(so_far):
                run = one_run(plan, Open.poisson(rate, math.inf, time_s, seed=len(tried) + 1), site, before)
            bring_home(run)
            if run.measured.stopped and signals.received:
                break
            tried.append(tried_at(rate, run, percentile))
            show(report.tried_line(tried[-1], objective_s, percentile))
            if not run.measured.answered:
                break
            rate = objectives.next_rate(objective_s, tried)
    if signals.received:
        show(report.search_stopped(signals.name))
    elif tried and not run.measured.answered:
        show(report.no_rate(run, objectives.bracket(objective_s, tried)[0]))
    elif isinstance(rate, objectives.Found):
        show(report.found_rate(rate, full, objective_s, percentile))
    return isinstance(rate, objectives.Found) and rate.low > 0


def alone_in_time_s(before: Before, objective_s: float) -> float:
    """How long a request takes by itself, at least. Raises Problem where that is longer than the objective."""
    alone_s = min(before.lone_s, default=0.0)
    if alone_s > objective_s:
        raise sizes.too_short(objective_s, alone_s)
    return alone_s


def full_load(plan: Plan, site: Site, before: Before) -> Run:
    """What a closed loop of many users gets: no rate above it can hold, and where they wait is the limit."""
    slots = plan.slots if plan.slots and plan.slots < MOST_USERS / 2 else MOST_USERS / 2
    time_s = max(FULL_S, RUNS_OF_LONE * max(before.lone_s, default=0.0))
    return one_run(plan, Closed(time_limit_s=time_s, concurrency=max(8, int(2 * slots))), site, before)


def rate_of_all(full: Run) -> float:
    """What a full load got, requests/s, with the answers after its time limit: all that was sent is answered."""
    measured = full.measured
    return max(measured.throughput_rps, measured.answered / (measured.last_answer_s or math.inf))


def predicted_rate(full: Run, objective_s: float, percentile: int) -> tuple[float | None, str]:
    """Of the slots that were seen, at most what a full load got; None: not known, and why."""
    limit, plan = verdict.binding(full), full.plan
    slots, held_s = (limit.slots, limit.held_s) if limit else (plan.slots, max(plan.busy_s, plan.held_s or 0.0))
    most_rps = rate_of_all(full)
    left_s = objective_s - advice.beside_s(full)
    reasons = {
        "slots-for-all": slots == math.inf,
        "no-slots": not slots,
        "not-seen": not held_s or not most_rps,
        "too-short": left_s < (held_s or 0.0),
        "different": advice.grows_with_server(full, limit) and advice.differ(full),
    }
    why = estimate.first_true(reasons)
    if why or not slots or not held_s:
        return None, why or "not-seen"
    queues = queues_of(full)
    each_rps = sizes.highest_rate(max(1, slots // queues), held_s, left_s, percentile)
    return min(0.95 * most_rps, queues * each_rps), ""


def queues_of(full: Run) -> int:
    """In how many queues requests wait for what limits, one for each process."""
    limit = verdict.binding(full)
    if limit and not verdict.is_servers(limit):
        return advice.objects_of(limit)
    return 1 if full.plan.shared_queue else full.plan.workers


def settle(plan: Plan, site: Site, before: Before) -> None:
    """Wait until a lone request takes as long as it did before the first run: the queue of the last one is served."""
    alone, end_s = lone_plan(plan), time.perf_counter() + SETTLE_S
    usual_s = 1.5 * max(before.lone_s, default=math.inf) + 0.01
    while time.perf_counter() < end_s and not signals.received:
        sent = send.measure(alone, site.address).exchanges
        if sent.answered_s and latency_s(sent, plan) < usual_s:
            return
        time.sleep(0.1)


def tried_at(rate: float, run: Run, percentile: int) -> objectives.Tried:
    latency_s, measured = latency_at(run, percentile), run.measured
    columns, load = run.exchanges, run.plan.load
    assert columns
    latencies_s = [end_s - load.due_s(i) for i, end_s in enumerate(columns.answered_s) if end_s]
    usual_s = median(latencies_s or [0.0])  # what was due so late may be under way at the end
    due = sum(load.due_s(i) <= load.time_limit_s - usual_s for i in range(measured.sent))
    served = min(1.0, (measured.answered - measured.finished_after_limit) / max(1, due))
    return objectives.Tried(
        rate,
        latency_s,
        measured.throughput_rps,
        (measured.due or 0) / load.time_limit_s,
        measured.failed,
        served,
        objectives.grows(latencies_s, load.time_limit_s),
        objectives.figure_of(measured, f"p{percentile}") is None,
    )


def latency_at(run: Run, percentile: int) -> float:
    """The percentile; the longest of all, if there are too few answers for it."""
    found, longest = (objectives.figure_of(run.measured, name) for name in (f"p{percentile}", "max"))
    return found or longest or math.inf
