"""Every sentence that you read about a run, before it and after it. Values come in, text goes out; 79 columns.

Words for single values are in report_words.py, tables in tables.py. Read a new sentence aloud: one thought each.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator, Mapping, Sequence

from engine import tables
from engine.access_log import AccessLog
from engine.launch import launch_target
from engine.machine import Machine
from engine.model import Forecast
from engine.report_verdict import answers_text, bottleneck, estimate, slots_seen_text, verdict, warnings
from engine.report_words import (
    EXPLANATIONS,
    HANDLER_WORDS,
    LETTERS,
    PROBE_ENDS,
    load_words,
    numbers,
    requests_s,
    said,
    stacked,
)
from engine.run import Plan, Prediction, Run
from engine.sizes import POSTGRES_CONNECTIONS, Asked, Size, settings_for
from engine.targets import SEEDED_BOOKS, TARGETS
from engine.words import MARGIN, duration, per_cent, plural, rate, section, slots_text

# ---------------------------------------------------------------- before the run


def header(machine: Machine, versions: Mapping[str, str]) -> str:
    """Where all this is measured."""
    packages = ", ".join(map(" ".join, versions.items()))
    cpus = f"{plural(machine.cpus, 'CPU')} ({machine.cpu or 'model not known'}, {machine.kernel})"
    return section("machine", f"{machine.system}, {cpus}; {packages}")


def title(plan: Plan) -> str:
    return f"{plan.target}  {f'workload {plan.workload}' if plan.workload else f'{plan.method} {plan.path}'}"


def search(plan: Plan, what: str) -> str:
    """The target, what is sent, and our server's command line with what overrules what in it."""
    launch = plan.launch
    lines = [section("server", " ".join(launch.command("PORT", launch.app)))] if launch else []
    notes = launch.notes if launch else ()
    return stacked("\n" + title(plan) + "\n", section("load", what), *lines, *(section("note", one) for one in notes))


def what_is_sent(plan: Plan) -> str:
    """The target, the load, and the server's command line."""
    load, lone = plan.load, plan.lone_requests
    many = f"up to {lone} requests, one after the other, show" if lone > 1 else "1 request by itself shows"
    warm = f"Before the run, {plural(plan.warm_up, 'request')} warm the server up (not counted)."
    waits = f"Each request waits {duration(plan.wait_s)}"
    waits += f" on average (distribution: {plan.distribution})" * (plan.distribution != "constant")
    waits += f" and computes for {duration(plan.cpu_time_s)}" * bool(plan.cpu_time_s)
    in_parts = plan.is_target and plan.subtasks > 1 and plan.wait_s == plan.task_time_s / plan.subtasks
    return search(plan, said(
        load_words(load),
        load.is_steady and ("Connections are kept." if plan.keep_alive else "Each request opens a connection."),
        plan.processes > 1 and f"{plan.processes} client processes send them.",
        plan.wait_s and f"{waits}.",
        in_parts and f"({plan.subtasks} subtasks of a task of {duration(plan.task_time_s)}, awaited together.)",
        plan.warm_up and warm,
        lone and f"Before the run, {many} what a single one costs (not counted).",
    ))  # fmt: skip


def what_is_predicted(plan: Plan, prediction: Prediction) -> str:
    """Slots, closed form, and the expected figures; or what would have to be known."""
    why = (
        "as stated"
        if plan.slots_stated
        else plan.launch.why_slots
        if plan.launch
        else "not known; the answers will show them"
    )
    if plan.slots_known:
        each, total = slots_text(plan.slots_per_worker), slots_text(plan.slots)
        why = f"{plural(plan.workers, 'worker')} x {each} = {total}: {why}"
    alone = f"A lone request takes {duration(plan.wait_s)}. The prediction takes this as the wait."
    return stacked(
        plan.wait_is_measured and section("alone", alone),
        section("slots", f"{why}."),
        section("prediction", prediction_text(plan, prediction)),
        what_is_expected(plan, prediction),
    ).rstrip() + "\n"  # fmt: skip


def prediction_text(plan: Plan, prediction: Prediction) -> str:
    """The closed form in a sentence, and where it does not hold."""
    each = ", ".join(f"{duration(at_s)} for {HANDLER_WORDS[one]}" for one, at_s in prediction.possibilities.items())
    if each:
        return f"The result depends on the kind of handler, which is not known. The last answer comes after {each}."
    if plan.wait_s == 0:
        return "None: the handler waits for nothing, so CPU time decides, not slots."
    if not prediction.form or plan.slots is None:
        return "None: it needs the number of slots and the wait of a request (--slots, --wait)."
    letters = [words for letter, words in LETTERS.items() if letter in re.findall(r"\b\w\b", prediction.form)]
    return said(f"{prediction.form}, for {numbers(letters)}.", *conditions(plan, prediction, plan.slots))


def conditions(plan: Plan, prediction: Prediction, slots: float) -> Iterator[object]:
    """What the closed form means for each request, or why it is not all."""
    load, handler, t = plan.load, plan.launch and plan.launch.handler, duration(plan.busy_s)
    if plan.cpu_time_s * min(slots, load.most_under_way) > plan.busy_s * min(plan.workers, plan.cpus):
        yield f"CPU time decides here: {duration(plan.cpu_time_s)} per request."
    elif plan.passes[-1] < max(plan.passes):
        yield "But a request needs a slot twice, and queues twice: the first answer comes when all have run once."
    elif handler == "blocking":
        yield "An answer leaves only when the event loop is free, so any answer may come as late as the last one."
    elif not load.is_steady and slots >= load.requests:
        yield "There is a slot for each request."
    elif not load.is_steady:
        yield f"Counted from 0, request k starts after floor(k / {slots:g}) x {t} and is answered {t} later."
    if (load.offered_load(slots, plan.busy_s) or 0.0) > 1:
        yield "More is sent than the slots allow: the queue grows until the end."
    if prediction.p99_if_longer_s:
        yield f"This is near the limit: with a 2 % longer wait the p99 is {duration(prediction.p99_if_longer_s)}."
    if plan.keep_alive and plan.most_connections < load.most_under_way:
        yield f"The server serves at most {plan.most_connections:g} kept connections at a time; the others wait."


def what_is_expected(plan: Plan, prediction: Prediction) -> str:
    """The figures, and the time that a slot is held where lone requests have shown it; ends with an empty line."""
    busy_s, held_s = plan.busy_s, plan.held_s or 0.0
    alone, least = duration(2 * held_s - busy_s), duration(busy_s)
    text = f"A lone request takes {alone}. It holds its slot for {least} to {alone}; {duration(held_s)} is assumed."
    figures = [(name, getattr(prediction, f"{name}_s")) for name in ("mean", "median", "p95", "p99")]
    latency = ", ".join(f"{name} {duration(value_s)}" for name, value_s in figures if value_s is not None)
    expected = said(
        prediction.throughput_rps and f"{requests_s(prediction.throughput_rps)};",
        latency and f"latency {latency};",
        f"the last answer after {duration(prediction.makespan_s)}.",
    )  # fmt: skip
    return stacked(plan.held_s and section("alone", text), prediction.is_known and section("expected", expected)) + "\n"


# ---------------------------------------------------------------- after the run


def result(run: Run, log: AccessLog | None) -> str:
    """All that is printed after the last answer: the verdict first, then the evidence."""
    limits, steady, path = bottleneck(run), run.plan.load.is_steady, run.inside and run.inside.access_log
    first = [section("verdict", verdict(run)), warnings(run), estimate(run), limits and section("bottleneck", limits)]
    head = section("access log", f"{path}  (the time is when the handler started)")
    of_burst = log and log.lines and f"{head}\n{tables.log_table(log, run.plan.wait_s or 0.1)}", tables.batch_table(run)
    evidence = tables.phase_table(run), intervals(run), tables.stage_table(run), tables.histogram_table(run)
    return stacked(
        stacked(*first),
        *(() if steady else of_burst),
        stacked(tables.figure_table(run), drift(run)),
        *(evidence if steady or not run.prediction.is_known else ()),
        stacked(counts(run), steady and checks(run)),
        between="\n\n",
    )  # fmt: skip


def drift(run: Run) -> str:
    """Why users get other latencies than the prediction gives them; empty where they do not."""
    of, spread_s = run.prediction, run.prediction.spread_s or 0.0
    text = "Predicted for users that start at the same moment. In practice they drift apart, and all latencies approach"
    return section("", f"{text} {duration(spread_s)}.") if 0 < 1.01 * spread_s < (of.p95_s or 0.0) else ""


def intervals(run: Run) -> str:
    """Between what a percentile lies, of those that are known only roughly."""
    latency = run.measured.latency_s
    wide = [
        f"{name.replace('p999', 'p99.9')} {duration(low_s)} {f'to {duration(high_s)}' if high_s else 'or more'}"
        for name, (low_s, high_s) in (latency.intervals.items() if latency else ())
        if not high_s or high_s > 1.25 * low_s
    ]
    return section("", f"95 % confidence intervals of the latency: {', '.join(wide)}.") if wide else ""


def counts(run: Run) -> str:
    """Requests, log lines, workers and the database, to be added up."""
    measured, inside = run.measured, run.inside
    lost = (measured.due or 0) - measured.sent
    late = measured.finished_after_limit
    text = f"{measured.sent} sent = {measured.answered} answered + {measured.failed} failed"
    text += f"; {late} of the answers came after the time limit" * bool(late)
    text += f"; {measured.due} were due, {lost} of them never sent" * (lost > 0)
    if not inside:
        return section("counts", text)
    workers, books = ", ".join(f"{worker} {n}" for worker, n in inside.requests_of_workers.items()), inside.database
    workers += f" (at most {inside.slots_seen} at a time in one worker)" * bool(inside.slots_seen)
    text += "" if inside.log_lines is None else f"; {inside.log_lines} log lines"
    rows = books and f"{books.rows} rows = {SEEDED_BOOKS} at first + {books.rows - SEEDED_BOOKS} created"
    database = books and (books.error or f"{rows}; {books.statements} SQL statements; Postgres {books.version}")
    return stacked(
        workers and section("workers", workers), section("counts", text), database and section("database", database)
    )  # fmt: skip


def checks(run: Run) -> str:
    """Figures by which you can check the throughput: Little's law, connections, CPU time."""
    measured, total, under_way = run.measured, run.measured.phases_s["total"], run.measured.mean_in_flight
    begun_and_ended = measured.sent + measured.answered - measured.finished_after_limit
    turnover_rps, latency_s = begun_and_ended / 2 / (measured.window_s or math.inf), total.mean if total else 0.0
    last_s = measured.measured_s or math.inf
    agree = "agree" if abs(turnover_rps * latency_s - under_way) <= 0.1 * under_way + 0.1 else "do NOT agree"
    law = f"{rate(turnover_rps)} x {duration(latency_s)} = {turnover_rps * latency_s:.1f} requests under way"
    server = "" if measured.server_cpu_s is None else f", server {per_cent(measured.server_cpu_s / last_s)}"
    spun_s = measured.client_spun_s
    spun = f" ({per_cent(spun_s / last_s)} in waiting until a request is due)" * (spun_s > 0.005 * last_s)
    return stacked(
        section("check", f"Little's law: {law}; counted: {under_way:.1f}. They {agree}."),
        section("connections", f"{measured.sockets_opened} opened; {measured.body_bytes} bytes of bodies received"),
        section("CPU time", f"client {per_cent(measured.client_cpu_s / last_s)} of a CPU{spun}{server}"),
    )  # fmt: skip


# ---------------------------------------------------------------- several targets


def verdict_of_target(run: Run) -> str:
    """The only line of a run with --quiet."""
    return section("verdict", f"{run.plan.target} {run.plan.path}: {verdict(run)}")


NAME = 34  # columns of target and path


def row_before(plan: Plan, prediction: Prediction) -> str:
    """One run of several, before it."""
    name, predicted = f"{plan.target} {plan.path}", duration(prediction.of(plan.load.judged_by[0]))
    name += f"\n{'':{NAME}}" * (len(name) > NAME)
    return f"{name:{NAME}}{slots_text(plan.slots):>9}{predicted:>10}"


def row_after(run: Run) -> str:
    """And after it: what was measured, and what explains it."""
    explained, failed = run.verdict.explained_by, run.measured.failed
    result = explained.value if explained else f"{failed} failed" if failed else "-"
    return f"{duration(run.measured.of(run.plan.load.judged_by[0])):>9} {result}"


def comparison(runs: Sequence[Run]) -> str:
    """A line for each run, and what the words in the last column mean."""
    rows = [row_before(run.plan, run.prediction) + row_after(run) for run in runs]
    shown = {run.verdict.explained_by for run in runs}
    return stacked(
        f"{'target, path':{NAME}}{'slots':>9}{'predicted':>10}{'measured':>9} result",
        *rows,
        "\nPredicted and measured is the last answer of a burst, else the mean latency.",
        *(f"  {one.value:18}{text}" for one, text in EXPLANATIONS.items() if one in shown),
    )  # fmt: skip


def targets_list(defaults: argparse.Namespace) -> str:
    """What --list prints: each target's command line, and the slots of each path. defaults: of the options."""
    rows = []
    for name, target in TARGETS.items():
        launches = [launch_target(name, route, defaults) for route in target.routes]
        rows += [f"\n{name}", section("  server", " ".join(launches[0].command("PORT", "APP")))]
        for route, launch in zip(target.routes, launches, strict=True):
            slots = slots_text((launch.slots_per_worker or 0) * launch.workers)
            rows.append(section("  slots", f"{slots} for {route.path}: {launch.why_slots}"))
    return stacked(*rows)


# ---------------------------------------------------------------- several loads on one server


def probe_plan(most_requests: int, most_s: float) -> str:
    """What a probe sends."""
    return (
        "a probe: bursts of 10, 20, 40, ... requests, until the answers show how many the server works on at a time."
        f" It sends at most {most_requests} requests in {duration(most_s)}, and stops when a request fails."
    )


def probe_line(run: Run) -> str:
    """One burst of a probe."""
    found, measured = run.verdict.estimate, run.measured
    head = f"{measured.sent} at once, {measured.answered} answered in {duration(measured.measured_s)}."
    return section(
        "burst", said(head, f"{measured.failed} failed." if measured.failed else found and slots_seen_text(found))
    )


def probe_result(run: Run, why_it_ended: str) -> str:
    """What a probe has found, and why it ended."""
    found, plan, failed = run.verdict.estimate, run.plan, run.measured.failed
    agree = "agree" if found and found.slots == plan.slots else f"do NOT agree: they give {slots_text(plan.slots)}"
    return "\n" + stacked(
        section("verdict", said(
            answers_text(run) if failed or not found else slots_seen_text(found),
            found and found.is_certain and plan.slots_known and not failed and f"The settings {agree}.",
            f"The probe ended because {PROBE_ENDS[why_it_ended]}.",
        )),
        warnings(run),
        estimate(run, always=True),
    )  # fmt: skip


def find_rate_plan(objective_s: float, percentile: int) -> str:
    """What a search for a rate sends."""
    wanted = f"the p{percentile} of the latency is at most {duration(objective_s)}"
    return f"runs at different rates, with requests at random moments, to find the highest rate at which {wanted}."


def first_rate_text(
    plan: Plan, rate_rps: float, objective_s: float, percentile: int, most_runs: int, run_s: float
) -> str:
    """Where a search for a rate begins, and why there."""
    why = f"None: the slots or the wait are not known. The search begins at 70 % of what 8 users get, {rate(rate_rps)}."
    if plan.slots and plan.wait_s:
        slots = f"With {slots_text(plan.slots)} slots of {duration(plan.wait_s)}"
        why = f"{slots}, the p{percentile} is {duration(objective_s)} at {rate(rate_rps)}. The search begins there."
    return section("prediction", f"{why} It takes at most {most_runs} runs of {duration(run_s)}.") + "\n"


def tried_line(run: Run, rate_rps: float, percentile: int, latency_s: float, holds: bool) -> str:
    """One run of a search for a rate."""
    failed = f", {run.measured.failed} failed" * bool(run.measured.failed)
    rates = f"{rate(rate_rps):>9} sent, {rate(run.measured.throughput_rps):>9} answered"
    return f"{rates}, p{percentile} {duration(latency_s):>8}: {'fast enough' if holds else 'too slow'}{failed}"


def found_rate(
    rate_rps: float, low: float, high: float, runs: int, last_run: Run, objective_s: float, percentile: int
) -> str:  # fmt: skip
    """The highest rate that holds, and what limits it there."""
    between = f"at least {rate(low)}" if high == math.inf else f"between {rate(low)} and {rate(high)}"
    text = f"The p{percentile} is at most {duration(objective_s)} up to {rate(rate_rps)} ({between}, by {runs} runs)."
    return "\n" + stacked(section("verdict", text), section("bottleneck", bottleneck(last_run)))


# ---------------------------------------------------------------- sizes, and predictions on paper


def size_text(found: Size, workers: int) -> str:
    """How many slots: the number, what it gives, what is near, then the settings of each kind of server."""
    need, goal = int(found.fits.slots), f"p{found.percentile:g} of at most {duration(found.objective_s)}"
    waits = f"Each waits {duration(found.wait_s)}" + f" and computes for {duration(found.cpu_s)}" * bool(found.cpu_s)
    rows = [f"{'':{MARGIN}}{'slots':>6}{'load':>8}{'p50':>9}{'p95':>9}{'p99':>9}"]
    near = {"one fewer": found.below, "the size": found.fits, "one more": found.above, "20 % more": found.more_traffic}
    for name, at in near.items():
        times = "".join(f"{duration(at.latency_s.get(percentile)):>9}" for percentile in (50, 95, 99))
        held = "fast enough" if at.holds else "too slow" if at.latency_s else "the queue grows"
        rows.append(f"{name:{MARGIN}}{at.slots:>6g}{per_cent(at.load):>8}{times}  {held}")
    asked = Asked(found.rate_rps / workers, found.wait_s, found.objective_s, found.percentile, found.cpu_s)
    settings = []
    for one in settings_for(need, workers, asked.slots()):
        queues = "" if one.is_shared else " (a queue for each process)"
        settings.append(f"{one.server}{queues}\n    {one.settings}\n    {one.note}")
    each = math.ceil(need / workers)
    enough = said(
        f"{need} in one queue. On average {found.rate_rps * asked.held_s:.3g} of them are busy.",
        found.cpu_s and f"The CPUs are {per_cent(found.cpu_busy)} busy.",
        f"{need} are enough until a request takes {duration(found.longest_s)} by itself.",
        f"20 % more requests/s need {found.slots_for_more or 'more CPUs'}.",
    )
    pools = (
        f"If a request holds a database connection while it waits, each process needs {each} connections. That is"
        f" {each * workers} in all; Postgres allows {POSTGRES_CONNECTIONS} by default."
    )
    wanted = f"{found.rate_rps:g} requests/s at random moments. {waits}. Wanted: a {goal}."
    head = stacked(section("asked", wanted), section("slots", enough))
    return stacked(head, stacked(*rows), stacked(*settings), section("pools", pools), between="\n\n")


def on_paper_text(plan: Plan, prediction: Prediction, forecast: Forecast) -> str:
    """A prediction without a server: closed form, expected figures, and the rounds or tenths."""
    form = section("closed form", prediction_text(plan, prediction))
    return stacked(form, what_is_expected(plan, prediction), tables.forecast_table(forecast))
