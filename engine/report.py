"""The report of a run, put together, and those of several runs, a probe, a rate search, a prediction on paper. Values
come in, text goes out; 79 columns.

What is shown before a run is in report_before.py. Verdict, places, changes and sizes have modules of their own, as have
the words for single values (report_words.py) and the tables (tables.py). Read a new sentence aloud: one thought each.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from engine import tables
from engine.access_log import AccessLog
from engine.estimate import first_true
from engine.launch import launch_target
from engine.loads import Figure
from engine.model import Forecast
from engine.objectives import LONGER, MOST_RUNS, SERVED, Found, Tried
from engine.plans import forecast_of
from engine.repeats import SURE, Repeated
from engine.report_before import prediction_text, what_is_expected
from engine.report_changes import victim_text
from engine.report_verdict import answers_text, bottleneck, estimate, slots_seen_text, verdict, warnings
from engine.report_where import seen_in_short, seen_slots, where
from engine.report_words import EXPLANATIONS, LOADS, PROBE_ENDS, requests_s, said, stacked, told, until_text
from engine.run import Explanation, Plan, Prediction, Run
from engine.targets import TARGETS
from engine.unseen import is_not_known
from engine.verdict import AS_PREDICTED, seen_limit
from engine.words import duration, path_or_workload, per_cent, plural, rate, slots_text

# ---------------------------------------------------------------- after the run


OF_SENT = "The figures that are predicted are for these requests, not for all that might have been sent."


def ended_by_until(run: Run) -> bool:
    """Whether a load ended as soon as a figure was known."""
    measured, load = run.measured, run.plan.load
    is_short = measured.sent < load.most_requests and measured.window_s < load.time_limit_s
    return bool(measured.until and is_short and not measured.stopped and run.prediction.mean_s)


def result(run: Run, log: AccessLog | None) -> str:
    """All that is printed after the last answer: the verdict first, then the evidence."""
    steady = run.plan.load.is_steady
    in_detail = steady or not run.prediction.is_known
    return stacked(
        stacked(told("verdict", verdict(run)), until(run), warnings(run), estimate(run), bottleneck(run)),
        not steady and batches_text(run, log),
        stacked(where(run), victim_text(run)),
        stacked(tables.figure_table(run), of_figures(run)),
        tables.kind_table(run),
        in_detail and tables.phase_table(run),
        tables.stage_table(run),
        in_detail and tables.histogram_table(run),
        stacked(counts(run), steady and checks(run)),
        between="\n\n",
    )


def until(run: Run, name: str = "until") -> str:
    """What came of --until."""
    found = run.measured.until
    return told(name, found and until_text(found), ended_by_until(run) and OF_SENT)


def batches_text(run: Run, log: AccessLog | None) -> str:
    """The access log of a burst, and when its answers were predicted and came."""
    path = run.inside and f"{run.inside.access_log}  (the time is when the handler started)"
    lines = log and stacked(told("access log", path), tables.log_table(log, run.plan.wait_s or 0.1))
    return stacked(lines, tables.batch_table(run, forecast_of(run.plan)), between="\n\n")


def of_figures(run: Run) -> str:
    """Why users get other latencies than the prediction gives them, and how exactly the p99 is known."""
    latency, spread_s = run.measured.latency_s, run.prediction.spread_s or 0.0
    low, high = latency.intervals.get("p99", (0.0, None)) if latency else (0.0, None)
    return told(
        "",
        run.verdict.explained_by in AS_PREDICTED
        and 0 < 1.01 * spread_s < (run.prediction.p95_s or 0.0)
        and "The prediction is for users that start at the same moment. In practice they drift apart, and all latencies"
        f" approach {duration(spread_s)}.",
        stream_text(run),
        low
        and f"95 % confidence interval of the p99: {duration(low)} {f'to {duration(high)}' if high else 'or more'}.",
    )


def stream_text(run: Run) -> str:
    """First and last byte, where they are apart: the answer is a stream, or large."""
    first, last = (run.measured.phases_s[name] for name in ("waiting", "processing"))
    if run.plan.first_byte:
        return "An answer counts as complete with its first byte, and is then ended."
    if not first or not last or last.median - first.median < max(0.005, 0.1 * last.median):
        return ""
    return (
        f"The first byte came after {duration(first.median)} (p95 {duration(first.p95)}), the last after"
        f" {duration(last.median)} (p95 {duration(last.p95)})."
    )


def counts(run: Run) -> str:
    """Requests, log lines, workers and the database, to be added up."""
    measured, inside, late = run.measured, run.inside, run.measured.finished_after_limit
    requests = f"{measured.sent} sent = {measured.answered} answered + {measured.failed} failed."
    after = late and f"{plural(late, 'answer')} came after the time limit."
    if not inside:
        return told("counts", requests, after)
    books, lines = inside.database, inside.log_lines
    return stacked(
        told(
            "workers",
            ", ".join(f"{worker} {n}" for worker, n in inside.requests_of_workers.items()),
            inside.slots_seen and f"(at most {inside.slots_seen} at a time in one worker)",
            lines is not None and lines < measured.sent and "Only requests that have ended are in the log.",
        ),
        told("counts", requests, after, lines is not None and f"The access log has {plural(lines, 'line')}."),
        told("database", books and (books.error or f"{books.rows} rows; {books.statements} SQL statements.")),
    )


def has_one_rate(run: Run) -> bool:
    """Whether Little's law can be checked: not where requests failed, which the rate counts and the mean does not;
    where users come and go; or where many requests got their last, long answer only after the time limit."""
    load, measured = run.plan.load, run.measured
    after_s = measured.finished_after_limit * (measured.latency_s.max if measured.latency_s else 0.0)
    is_cut = after_s > 0.05 * measured.window_s * measured.mean_in_flight
    if load.is_scheduled:
        is_cut = under_way_by_themselves(run) > 0.5 * measured.sent
    return not measured.failed and (load.is_scheduled or bool(load.steady_count)) and not is_cut


def under_way_by_themselves(run: Run) -> float:
    """How many requests of a schedule are under way at a time where none waits for another; 0.0: not a schedule."""
    total = run.measured.phases_s["total"]
    return run.plan.load.offered_load(1.0, run.plan.busy_s or (total.min if total else 0.0)) or 0.0


def checks(run: Run) -> str:
    """Figures by which you can check the throughput: Little's law, connections, CPU time."""
    measured, total, under_way = run.measured, run.measured.phases_s["total"], run.measured.mean_in_flight
    if not total:
        return ""
    turnover_rps = (measured.sent + measured.answered - measured.finished_after_limit) / 2 / measured.window_s
    by_law, last_s, server_s = turnover_rps * total.mean, measured.measured_s, measured.server_cpu_s
    at_the_end = 1.5 * under_way_by_themselves(run) + 0.1 * measured.sent  # without an overload, at most
    is_over = run.plan.load.is_scheduled and measured.finished_after_limit > at_the_end
    agree = "agree" if abs(by_law - under_way) <= 0.1 * under_way + 0.1 else "do NOT agree"
    law = f"Little's law: {rate(turnover_rps)} x {duration(total.mean)} = {by_law:.1f} requests under way."
    return stacked(
        has_one_rate(run) and told("check", f"{law} Counted: {under_way:.1f}. They {agree}.", is_over and OVERLOADED),
        told(
            "connections", f"{measured.sockets_opened} opened; {measured.body_bytes} bytes of response bodies received"
        ),
        told(
            "CPU time",
            f"Client {per_cent((measured.client_cpu_s - measured.client_spun_s) / last_s)} of a CPU.",
            server_s is not None and f"Server {per_cent(server_s / last_s)}.",
            connected_text(run),
        ),
    )


def connected_text(run: Run) -> str:
    """What programs used that work for the service."""
    names = [f"{one.name} {per_cent(one.cpus)}" for one in run.measured.neighbours if one.is_connected]
    return f"The service is connected to {', '.join(names)}." if names else ""


OVERLOADED = "In an overload they need not agree, as the queue grows until the end."


# ---------------------------------------------------------------- several targets


def repeats_table(rows: Sequence[Repeated]) -> str:
    """Medians, with the least and the most; empty: no repeat was completed."""
    if not rows:
        return ""
    lines = [f"{'target, path':34}{'figure':>12}{'predicted':>11}{'median':>9}   least to most"]
    many = max(one.repeats for one in rows)
    for one in rows:
        shown = rate if one.figure is Figure.THROUGHPUT else duration
        name, figure = f"{one.target} {one.path}"[:33], SHORT_FIGURES[one.figure.value]
        times = f"{shown(one.predicted) if one.predicted else '-':>11}{shown(one.median):>9}"
        few = f" (of {one.repeats})" * (one.repeats < many)
        lines.append(f"{name:34}{figure:>12}{times}   {shown(one.least)} to {shown(one.most)}{few}")
    said_of = (
        f"{plural(many, 'repeat')}: the true median is between least and most in {in_cases(many):.3g} of 100 cases."
        if many >= SURE
        else f"{plural(many, 'repeat')}: least and most are no interval yet; of {SURE} they are (97 %)."
    )
    fewer = f"Where fewer repeats have a figure, their number stands in brackets; below {SURE} it is no interval."
    return stacked(*lines, "", said(said_of, any(one.repeats < many for one in rows) and fewer))


def in_cases(repeats: int) -> float:
    """In how many of 100 cases the true median is not below, or above, all of so many values."""
    return min(99.9, 100 - 200 / 2.0**repeats)


SHORT_FIGURES = {
    "makespan_s": "last answer", "mean_s": "mean", "throughput_rps": "throughput", "p95_s": "p95", "p99_s": "p99",
}  # fmt: skip


def verdict_of_target(run: Run) -> str:
    """All that is shown of a run with --quiet."""
    return stacked(
        told("verdict", f"{name_of_run(run.plan)}: {verdict(run)}", seen_in_short(run)), until(run), warnings(run)
    )


ROWS = """\
The times are the last answer of a burst, or the mean latency of another load.
A remark below a run says why it is not as predicted.

target, path                                 slots predicted  measured"""


def row(run: Run) -> str:
    """One run of several, with a remark if it is not as predicted; ROWS is the head."""
    plan, measured, explained = run.plan, run.measured, run.verdict.explained_by
    figure = plan.load.judged_by[0]
    times = f"{duration(run.prediction.of(figure)):>10}{duration(measured.of(figure)):>10}"
    remark = f"    {measured.failed} failed." if measured.failed else ""
    if explained not in (None, Explanation.PREDICTION):
        remark = f"    {EXPLANATIONS[explained.value]}"
    figures = f"{name_of_run(plan):40}{slots_text(plan.slots):>10}{times}"
    return stacked(figures, remark, until(run, "    until"))


def targets_list(defaults: argparse.Namespace) -> str:
    """What --list prints: the slots of each path, and the command line. defaults: of the options."""
    rows = []
    for name, target in TARGETS.items():
        rows.append(f"\n{name}")
        for route in target.routes:
            launch = launch_target(name, route, defaults)
            each = launch.slots_per_worker
            slots = slots_text(None if each is None else each * launch.workers)
            rows.append(told("  slots", f"{slots} for {route.path}: {launch.why_slots}"))
        rows.append(told("  server", *launch.command("PORT", "APP")))
    return "\n".join(rows)


# ---------------------------------------------------------------- several loads on one server


def probe_plan(most_requests: int, most_s: float) -> str:
    """What a probe sends."""
    return (
        "A probe: bursts of 10, 20, 40, ... requests (fewer where they take long), until the answers show how many the"
        " server works on at a time."
        f" It sends at most {most_requests} requests in {duration(most_s)}, and stops when a request fails."
    )


def probe_line(run: Run) -> str:
    """One burst of a probe."""
    found, measured = run.verdict.estimate, run.measured
    return told(
        "burst",
        f"{measured.sent} at once, {measured.answered} answered"
        f"{f' in {duration(measured.last_answer_s)}' * bool(measured.answered)}.",
        f"{measured.failed} failed." if measured.failed else seen_in_short(run) or (found and slots_seen_text(found)),
    )


def probe_so_far(runs: Sequence[Run]) -> str:
    """What the bursts of a probe have shown, for the line on a terminal; empty: nothing yet."""
    found = runs[-1].verdict.estimate if runs else None
    if not found or found.says_nothing or not found.low:
        return ""
    return f"so far {found.low if found.is_certain else f'at least {found.low}'} at a time"


def probed_slots(run: Run) -> float | None:
    """What was seen inside, else what the answers show without doubt; None: neither."""
    found, seen = run.verdict.estimate, seen_limit(run)
    if seen and not is_not_known(run):
        return seen_slots(seen)
    return found.slots if found and found.is_certain else None


def name_of_part(run: Run) -> str:
    """A burst of a probe, a run of a rate search, or a change that is tried, as a page calls it."""
    what = run.plan.tried or LOADS[run.plan.load.kind](run.plan.load).split(". ")[0].rstrip(".")
    return f"{name_of_run(run.plan)}, {what}"


def name_of_run(plan: Plan) -> str:
    return f"{plan.target} {path_or_workload(plan.path, plan.workload)}"


def probe_result(run: Run, why_it_ended: str) -> str:
    """What a probe has found, and why it ended."""
    found, plan, failed, slots = run.verdict.estimate, run.plan, run.measured.failed, probed_slots(run)
    other = f"do NOT agree: they give {slots_text(plan.slots)}"
    shown = seen_in_short(run) or (found and slots_seen_text(found))
    text = told(
        "verdict",
        shown if shown and not failed else answers_text(run),
        slots and plan.slots_known and not failed and f"The settings {'agree' if slots == plan.slots else other}.",
        f"The probe ended because {PROBE_ENDS[why_it_ended]}.",
    )
    return "\n" + stacked(text, warnings(run), estimate(run, always=True), where(run))


def find_rate_plan(objective_s: float, percentile: int) -> str:
    """What a search for a rate sends."""
    wanted = f"the p{percentile} of the latency is at most {duration(objective_s)}"
    return f"Runs at different rates, with requests at random moments, to find the highest rate at which {wanted}."


def first_rate_text(
    full: Run, full_rps: float, rate_rps: float, objective_s: float, percentile: int, run_s: float, why_none: str = ""
) -> str:
    """What a full load got, and where the search for a rate begins. why_none: why no rate is predicted."""
    limit, users = seen_in_short(full), full.plan.load.most_under_way
    equally = ", if all processes get as much" * (full.plan.workers > 1 and not full.plan.shared_queue)
    known = f"The p{percentile} is at most {duration(objective_s)} at {rate(rate_rps)}{equally}."
    return stacked(
        told("full load", f"{users:g} users get {requests_s(full_rps)}. {limit}"),
        told(
            "prediction",
            f"None. {NO_RATE[why_none]}" if why_none else known,
            f"The search begins {f'at {rate(rate_rps)}' if why_none else 'there'}.",
            f"It makes at most {MOST_RUNS} runs of {duration(run_s)}. A run that confirms a rate is {LONGER} times as"
            " long.",
        )
        + "\n",
    )


NO_RATE = {
    "slots-for-all": "The server has a slot for each request, so that slots set no limit.",
    "no-slots": "It is not known how many requests are worked on at a time.",
    "not-seen": "How long a request keeps what the others wait for was not seen.",
    "different": "Requests wait for different times, and it is made for a wait that is always the same.",
    "too-short": "Under the full load a request takes longer than that, even without the wait for others.",
}


def tried_line(tried: Tried, objective_s: float, percentile: int) -> str:
    """One run of a search for a rate."""
    failed = f", {tried.failed} failed" * bool(tried.failed)
    due, sent, answered = map(rate, (tried.rate, tried.sent_rps, tried.throughput_rps))
    rates = f"{due:>7} due, {sent:>7} sent, {answered:>7} answered"
    reasons = {
        "fast enough": tried.holds(objective_s),
        "not all answered": tried.failed,
        "too slow": tried.latency_s > objective_s,
        "the server falls behind": tried.served < SERVED,
        "latency grows": True,
    }
    holds = first_true(reasons)
    name = "longest" if tried.is_longest else f"p{percentile}"
    return f"{rates}, {name} {duration(tried.latency_s):>8}: {holds}{failed}"


def rates_so_far(low: float, high: float) -> str:
    """Between which rates a search is, for the line on a terminal."""
    held, failed = f"{rate(low)} held" if low else "", f"{rate(high)} did not" if high < math.inf else ""
    return ", ".join(filter(None, [held, failed])) or "first rate"


def found_rate(found: Found, full: Run, objective_s: float, percentile: int) -> str:
    """The highest rate that holds, and what limits a full load, unless requests cost more there than at that rate."""
    kept = f"{rate(found.low)} held, with a p{percentile} of at most {duration(objective_s)}"
    text = f"{kept}. {rate(found.high)} did not ({found.runs} runs)."
    if found.varies_from:
        text = f"{text} Between them it differs from run to run: {rate(found.varies_from)} did not hold once."
    if not found.low and found.varies_from:
        text = f"No rate is sure to hold: {rate(found.varies_from)} did not, though a higher one once did."
    elif not found.low:
        text = f"No rate held, not even {rate(found.high)}."
    elif found.high == math.inf:
        text = f"{kept}. It is the highest that was tried ({found.runs} runs)."
    allowed_rps = full.verdict.limits[0].ceiling_rps if full.verdict.limits else None
    is_wrong = allowed_rps is not None and allowed_rps < found.low
    return "\n" + stacked(told("verdict", text), not is_wrong and stacked(bottleneck(full), where(full)))


def search_stopped(signal: str) -> str:
    """That a search for a rate was interrupted."""
    return "\n" + told("verdict", f"Not known: the search was interrupted ({signal}).")


def no_rate(last_run: Run, held_rps: float) -> str:
    """Why a search found no rate: nothing was answered with a 2xx. held_rps: a rate that held before; 0: none."""
    held = f"{rate(held_rps)} had held before." * bool(held_rps)
    text = f"No rate was found, as no request{' of the last run' * bool(held_rps)} succeeded."
    return "\n" + stacked(told("verdict", text, held), warnings(last_run))


# ---------------------------------------------------------------- on paper


def on_paper_text(plan: Plan, prediction: Prediction, forecast: Forecast, is_assumed: bool = False) -> str:
    """A prediction without a server: closed form, expected figures, and the rounds or tenths. is_assumed: the wait was
    not stated."""
    wait = (
        is_assumed
        and f"t is not stated, so each request is assumed to wait {duration(plan.wait_s)}. State it with --wait."
    )
    form = told("closed form", prediction_text(plan, prediction))
    return stacked(told("assumed", wait), form, what_is_expected(plan, prediction), tables.forecast_table(forecast))
