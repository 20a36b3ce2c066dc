#!/usr/bin/env python3
"""bench.py - why a Flask or FastAPI service gets slow under concurrent I/O.

A server has S slots: requests it works on at the same moment. A burst of n
requests that each wait t takes ceil(n / S) x t, and throughput is at most S / t.
bench.py starts a real server, prints that prediction, sends the requests, says
why measured and predicted differ, and shows the access log in batches.

    python bench.py --target flask-gunicorn          16 requests to each path
    python bench.py --target all                     every server, one table
    python bench.py --target fastapi-uvicorn --path /io -n 100
    python bench.py --target flask-gunicorn --workers 8 --task-time 0.2
    python bench.py --list                           the targets

    python bench.py --app main:app --server uvicorn --path /items -n 100
    python bench.py --url http://127.0.0.1:8000/ -n 5000 -c 500 -k

No -c sends all requests at once (the burst); -c N keeps N under way (closed
loop); --rate sends on schedule whatever the server does (open loop); --ramp
changes the number of users over time. load.py's manual says what each shows.

How it works: slots.py predicts, serve.py starts the server and reads its log,
load.py sends. Everything a run leaves is in logs/; --json writes all of it, after
each run. Exit code: 0 all answered (2xx), 1 some requests failed, 2 wrong usage
or a missing package, 3 the server did not start, 130 or 143 interrupted: what
was measured until then is reported. Python 3.10 or newer, nothing else.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import math
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, TypedDict, cast

import load
import serve
import slots
from load import Kind, Traffic, Warned, plural, seconds, section
from serve import LogLine
from slots import NO_LIMIT

PROBLEMS = (slots.Problem, load.Problem)  # load.py works alone, and so has its own
TOLERANCE, TOLERANCE_S = 0.05, 0.1  # a prediction fits within 5 % + 100 ms

# ---------------------------------------------------------------- the plan of a run


class Workload(NamedTuple):
    kinds: tuple[Kind, ...]
    stages: tuple[tuple[float, int], ...]  # seconds, users at their end
    wait_s: float | None = None


# The three workloads of "Async FastAPI, Measured" (bilouro, 2026), as its k6 scripts have them.
READ_BOOK = Kind(0.70, "GET", "/v1/books/{id}")
WORKLOADS = {
    "read": Workload((READ_BOOK,), ((15, 50), (15, 200), (20, 500), (20, 1000), (20, 1000))),
    "mixed": Workload(
        (
            READ_BOOK,
            Kind(0.25, "POST", "/v1/books", '{"title":"New","author":"Bench","year":2026,"isbn":"bench-{n}"}'),
            Kind(0.05, "PATCH", "/v1/books/{id}", '{"year":1999}'),
        ),
        ((15, 100), (20, 300), (25, 500), (20, 500)),
    ),
    "fanout": Workload((Kind(1.0, "GET", "/v1/sleep?ms=50"),), ((15, 50), (20, 200), (25, 500), (20, 500)), 0.05),
}


@dataclass(frozen=True)
class Plan:
    """One run, before it: what to start, what to send, and how long a request waits."""

    target: str  # the name to show
    traffic: Traffic
    launch: serve.Launch | None = None  # None: it runs already
    task_time_s: float = 1.0
    subtasks: int = 2
    wait_s: float | None = None  # what one request waits: the task time, a subtask's share of it; None: not known
    workload: str | None = None

    @property
    def slots(self) -> float | None:
        """Of all processes together; None: not known."""
        each = self.launch.slots_per_worker if self.launch else None
        return None if each is None or self.launch is None else each * self.launch.workers

    @property
    def why_slots(self) -> str:
        return self.launch.why_slots if self.launch else "not known for a server that was not started here"


class RunPlan(load.Described):
    """What is known before the first request is sent: the plan and the prediction."""

    target: str
    server: str | None
    server_command: str
    handler: str | None
    workers: int
    threads: int
    slots_known: bool
    slots_per_worker: int | None  # null: no limit, or not known
    slots: int | None
    why_slots: str
    notes: list[str]  # what overrules what in the server's settings
    task_time_s: float
    subtasks: int
    pool: int
    workload: str | None
    wait_s: float | None
    predicted_s: float | None  # how long everything should take; null: not known
    ceiling_rps: float | None  # what throughput cannot exceed: S / t


class LogSummary(TypedDict):
    """What only the server's side knows; null and empty without a log."""

    log_lines: int | None
    requests_of_workers: dict[str, int]
    split_predicted_s: float | None  # as predicted_s, given who took how many
    slots_seen: int | None  # the most that one worker had in its handlers at a time


class RunColumns(load.Columns, total=False):
    worker: Sequence[str | None]
    handler_started_s: Sequence[float | None]


class BooksSeen(TypedDict, total=False):
    """What Postgres counted in the run, or why it cannot say."""

    rows: int
    statements: int | None
    connections: int
    version: str
    error: str


class Finding(RunPlan, load.Summary, LogSummary):
    """All that every run has; all times in seconds, those of events since the run began."""

    when: str
    access_log: str | None
    server_log: str | None
    server_said: str | None  # the line of the server's log that tells most, where requests failed
    server_ended: bool  # by itself, in the run
    warnings: list[Warned]


class Run(Finding, total=False):
    """One run, as JSON has it."""

    database: BooksSeen
    exchanges: RunColumns  # every request's raw times; of a burst, and where JSON is asked for
    answered_s: list[float]  # what sweep.py keeps of them: the answers' times, sorted


def describe(plan: Plan) -> RunPlan:
    """The plan and its prediction, ready for JSON."""
    pace, wait_s, launch = plan.traffic.pace, plan.wait_s, plan.launch
    each, total = launch.slots_per_worker if launch else None, plan.slots
    predicted_s = ceiling_rps = None
    if total is not None and wait_s:
        busy = min(total, pace.most_under_way)  # slots that this load can fill
        if pace.mode in ("burst", "closed") and pace.requests < math.inf:
            predicted_s = slots.burst_s(int(pace.requests), busy if busy < pace.requests else total, wait_s)
        if busy < math.inf:
            ceiling_rps = busy / wait_s
    return {
        **load.describe(plan.traffic),
        "target": plan.target,
        "server": launch.server if launch else None,
        "server_command": " ".join(launch.command("PORT", launch.app)) if launch else "",
        "handler": launch.handler if launch else None,
        "workers": launch.workers if launch else 1,
        "threads": launch.threads if launch else 1,
        "slots_known": each is not None,
        "slots_per_worker": load.finite(each),
        "slots": load.finite(total),
        "why_slots": plan.why_slots,
        "notes": list(launch.notes) if launch else [],
        "task_time_s": plan.task_time_s,
        "subtasks": plan.subtasks,
        "pool": launch.pool if launch else 0,
        "workload": plan.workload,
        "wait_s": wait_s,
        "predicted_s": predicted_s,
        "ceiling_rps": ceiling_rps,
    }


def unlimited(number: int | None) -> float:
    return NO_LIMIT if number is None else number


def fits(measured_s: float, predicted_s: float) -> bool:
    return abs(measured_s - predicted_s) <= predicted_s * TOLERANCE + TOLERANCE_S


# ---------------------------------------------------------------- after the run: log, batches, audit


def summarise_log(plan: RunPlan, log: serve.AccessLog | None) -> LogSummary:
    if log is None:
        return {"log_lines": None, "requests_of_workers": {}, "split_predicted_s": None, "slots_seen": None}
    workers, counts = serve.name_workers(log), Counter(line.pid for line in log.lines)
    split_s = None
    if plan["predicted_s"] is not None and plan["wait_s"]:
        split_s = slots.split_burst_s(list(counts.values()), unlimited(plan["slots_per_worker"]), plan["wait_s"])
    return {
        "log_lines": len(log.lines),
        "requests_of_workers": {worker: counts[pid] for pid, worker in workers.items()},
        "split_predicted_s": split_s,
        "slots_seen": slots_seen(log.lines),
    }


def slots_seen(lines: Sequence[LogLine]) -> int | None:
    """The most requests that one worker had in its handlers at the same moment; None without any.

    Counted at the middle of each request, where the few milliseconds in which one ends and the next begins do not
    count both.
    """
    most = 0
    under_way: Counter[int] = Counter()
    events = []
    for line in lines:
        events.append((line.started_s, 0, line.pid))
        events.append((line.started_s + line.duration_s / 2, 1, line.pid))
        events.append((line.started_s + line.duration_s, 2, line.pid))
    for _, kind, pid in sorted(events):
        under_way[pid] += (1, 0, -1)[kind]
        most = max(most, under_way[pid] if kind == 1 else 0)
    return most or None


def columns_of(measured: load.Measured, log: serve.AccessLog | None) -> RunColumns:
    workers = serve.name_workers(log) if log else {}
    by_request = {int(line.request): line for line in log.lines} if log else {}
    logged = [by_request.get(i) for i in range(len(measured.exchanges.status))]
    return {
        **load.columns_of(measured),
        "worker": [workers[line.pid] if line else None for line in logged],
        "handler_started_s": [round(line.started_s - measured.begun_s, 6) if line else None for line in logged],
    }


class Batch(NamedTuple):
    """Requests answered together; times in seconds since the burst began; NaN: not known."""

    requests: list[int]
    started_s: float
    answered_s: float
    predicted_s: float


def batches(run: Run) -> list[Batch]:
    """Group a burst's answers: a gap of a quarter of the wait (or of the fastest answer) begins a new batch."""
    columns = run["exchanges"]
    answered = sorted(
        (at, i)
        for i, (at, error) in enumerate(zip(columns["answered_s"], columns["error"], strict=True))
        if at is not None and not error
    )
    gap_s = (run["wait_s"] or (answered[0][0] if answered else 0.0)) / 4
    groups: list[list[tuple[float, int]]] = []
    for at, i in answered:
        if not groups or at - groups[-1][-1][0] > gap_s:
            groups.append([])
        groups[-1].append((at, i))
    predicted = [math.nan] * len(answered)
    if run["predicted_s"] is not None and run["wait_s"]:
        predicted = [(i // unlimited(run["slots"]) + 1) * run["wait_s"] for i in range(len(answered))]
    found, position = [], 0
    for group in groups:
        position += len(group)
        started = [columns["handler_started_s"][i] for _, i in group]
        first_s = min((s for s in started if s is not None), default=math.nan)
        found.append(Batch(sorted(i for _, i in group), first_s, group[-1][0], predicted[position - 1]))
    return found


def size_of_rounds(found: Sequence[Batch]) -> int | None:
    """The slots that a burst's batches show: three full ones of one size, a smaller last one at most, one wait apart.

    Fewer can be chance, and a server that is busy computing answers in batches too, neither of one size nor regular.
    """
    sizes, ends_s = [len(batch.requests) for batch in found], [batch.answered_s for batch in found]
    full = sizes.count(sizes[0]) if sizes else 0
    regular = full >= 3 and len(set(sizes[:-1])) == 1 and sizes[-1] <= sizes[0]
    if regular and all(0.8 < ends_s[k] / ends_s[0] / (k + 1) < 1.25 for k in range(len(ends_s))):
        return sizes[0]
    return None


SIZES_MEAN = {  # what answers in rounds of that size can mean, and on which server
    1: ("a sync worker, or an event loop that a blocking call stops", tuple(serve.SERVERS)),
    4: ("waitress's default of 4 threads", ("waitress",)),
    slots.ANYIO_THREADS: (
        "AnyIO's limit for `def` handlers and dependencies (FastAPI, Starlette)",
        ("uvicorn", "gunicorn-uvicorn", "gunicorn-asgi"),
    ),
}


def meaning_of(size: int, run: Run) -> str:
    meaning, servers = SIZES_MEAN.get(size, ("", ()))
    return f": {meaning}" if meaning and (run["server"] is None or run["server"] in servers) else ""


def audit(run: Run) -> list[Warned]:
    """What load.py's audit finds, and what only shows beside the prediction and the server's log."""
    warnings = [] if run["server_ended"] else load.audit(run)

    def warn(identifier: str, symptom: str, cause: str, next_step: str) -> None:
        warnings.append({"id": identifier, "symptom": symptom, "cause": cause, "next": next_step})

    sent, measured_s, predicted_s, split_s = (
        run["sent"],
        run["measured_s"],
        run["predicted_s"],
        run["split_predicted_s"],
    )
    if run["server_ended"]:
        warn("server-ended", f"the server ended in the run; {run['failed']} of {sent} requests failed",
             run["server_said"] or "somebody stopped or killed it", f"read {run['server_log']}")  # fmt: skip
    elif run["failed"]:
        for warned in warnings:
            if warned["id"] == "failed-requests" and run["server_log"]:
                warned["next"] = f"read {run['server_log']}"
                warned["cause"] = f"the server says: {run['server_said']}" if run["server_said"] else warned["cause"]
    if run["log_lines"] is not None and run["log_lines"] != sent:
        warn("log-lines", f"{run['log_lines']} access-log lines for {sent} requests",
             "a handler that did not end, or a request that reached none, writes no line",
             "look for a killed or restarted worker in the server log")  # fmt: skip
    if not run["failed"] and predicted_s is not None and not fits(measured_s, predicted_s):
        symptom = f"{measured_s:.2f} s instead of {predicted_s:.2f} s"
        if split_s is not None and fits(measured_s, split_s):
            warn("uneven-split", symptom, f"the workers took uneven shares: {shares(run)}",
                 "for gunicorn threads, --worker-connections equal to --threads; else more slots in fewer processes",
            )  # fmt: skip
        else:
            warn("unexplained", symptom, "CPU time, uneven shares of the connections, or another limit",
                 "repeat on an idle machine, with a longer --task-time")  # fmt: skip
    if run["ceiling_rps"] and run["throughput_rps"] > run["ceiling_rps"] * (1 + TOLERANCE) and measured_s > 1:
        warn("above-ceiling", f"{run['throughput_rps']:.1f} requests/s, above S / t = {run['ceiling_rps']:.1f}",
             "requests wait less than the task time says, or there are more slots than assumed",
             "check --task-time against the minimum of the total time")  # fmt: skip
    database = run.get("database")
    if database and "rows" in database and not run["failed"]:
        if database["rows"] != serve.SEEDED_BOOKS + run["created"]:
            warn("rows", f"{database['rows']} rows for {serve.SEEDED_BOOKS} seeded and {run['created']} created",
                 "a POST was answered 201 and not kept, or kept and not answered", "read the server log")  # fmt: skip
        if not database["connections"] and database["statements"] not in (None, sent + run["warmed_up"]):
            warn("statements", f"{database['statements']} SQL statements for {sent + run['warmed_up']} requests",
                 "somebody else used the database, or a request was answered without it",
                 "use a database of its own")  # fmt: skip
    return warnings


def shares(run: Run) -> str:
    return " + ".join(str(count) for count in run["requests_of_workers"].values())


# ---------------------------------------------------------------- render

LOG_SHOWN = 24  # lines of the access log, and batches, that a report shows at most


def render_header(document: load.Document) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    machine = document["machine"]
    return section("machine", f"{machine['system']}, {plural(machine['cpus'], 'CPU')}; {versions}")


def render_formula(run: RunPlan) -> str:
    """The prediction with its numbers, or why there is none."""
    total, n = run["slots"], run["requests"]
    if run["wait_s"] == 0:
        return "none: the handler waits for nothing, so that CPU time decides, not slots."
    if not run["slots_known"] or not run["wait_s"]:
        return "none: it needs the slots and the task time."
    wait = seconds(run["wait_s"])
    if run["mode"] == "burst":
        if total is None:
            text = f"all {n} wait side by side: {wait}."
        else:
            text = (
                f"ceil({n} / {total}) x {wait} = {seconds(run['predicted_s'] or 0)}. Request n, counted from 0,"
                f" starts at floor(n / {total}) x {wait} and is answered {wait} after that."
            )
    elif run["ceiling_rps"] is None:
        text = f"no limit from slots: every request waits {wait}, however many there are."
    else:
        busy = run["ceiling_rps"] * run["wait_s"]
        text = f"throughput is at most S / t = {busy:g} / {wait} = {run['ceiling_rps']:g} requests/s."
        if run["concurrency"] is not None and busy < (total or math.inf):
            text += f" ({run['concurrency']} under way fill no more slots.)"
        if run["predicted_s"] is not None:
            text += f" All {n} take ceil({n} / {busy:g}) x {wait} = {seconds(run['predicted_s'])}."
        if run["rate_rps"] and run["rate_rps"] > run["ceiling_rps"]:
            text += f" {run['rate_rps']:g} a second are due: the queue grows without end."
    if run["handler"] == "blocking":
        text += " But an answer leaves only when the event loop is free: any may come as late as the last."
    return text


def render_load(run: RunPlan) -> str:
    text = load.render_load(run)
    if run["wait_s"]:
        text += f"; each waits {seconds(run['wait_s'])}"
        if run["subtasks"] > 1 and run["wait_s"] * run["subtasks"] == run["task_time_s"]:
            text += f" ({run['subtasks']} subtasks of a {seconds(run['task_time_s'])} task, awaited together)"
    return text


def render_prediction(run: RunPlan, warm_up: int = 0) -> str:
    """What is printed before the first request is sent."""
    why = run["why_slots"]
    if run["slots_known"]:
        each = "no limit" if run["slots_per_worker"] is None else str(run["slots_per_worker"])
        total = "no limit" if run["slots"] is None else str(run["slots"])
        why = f"{plural(run['workers'], 'worker')} x {each} = {total}: {why}"
    what = f"workload {run['workload']}" if run["workload"] else f"{run['method']} {run['path']}"
    warming = f"; before it {plural(warm_up, 'request')} to warm up, not counted" if warm_up else ""
    parts = [f"{run['target']}  {what}", "", section("load", render_load(run) + warming)]
    if run["server"]:
        parts.append(section("server", run["server_command"]))
    parts += [section("note", note) for note in run["notes"]]
    return "\n".join([*parts, section("slots", why), section("prediction", render_formula(run))])


def render_log(log: serve.AccessLog, wait_s: float) -> str:
    """The access log as a reader wants it: in the order of starting, workers by name, a blank line between batches."""
    workers = serve.name_workers(log)
    shown_lines, previous_s = [], None
    for line in log.lines:
        if previous_s is not None and line.started_s - previous_s > wait_s / 4:
            shown_lines.append("")
        previous_s = line.started_s
        shown_lines.append(f"  [{line.stamp}] [pid-{workers[line.pid]}] {line.method} {line.path}")
    if len(shown_lines) > LOG_SHOWN:
        left_out = sum(map(bool, shown_lines[LOG_SHOWN - 6 : -4]))
        shown_lines[LOG_SHOWN - 6 : -4] = [f"  ... {plural(left_out, 'more line')}"]
    return "\n".join(shown_lines)


def ranges(numbers: Sequence[int], width: int) -> str:
    """[0, 1, 2, 5] -> "0-2,5", cut at width."""
    parts = []
    for _, group in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        members = [number for _, number in group]
        parts.append(str(members[0]) if len(members) == 1 else f"{members[0]}-{members[-1]}")
    text = ",".join(parts)
    return text if len(text) <= width else text[: width - 2] + ".."


def render_batches(run: Run) -> str:
    found = batches(run)
    end_s = max([run["measured_s"], *(batch.predicted_s for batch in found if batch.predicted_s == batch.predicted_s)])
    width = 21

    def column(at_s: float) -> int:
        return round(at_s / end_s * width) if at_s == at_s else 0

    def cell(at_s: float) -> str:
        return f"{at_s:8.2f} s" if at_s == at_s else f"{'-':>10}"

    rows = [
        f"{'batches':12}{'requests':13}{'started':>10}{'answered':>10}{'predicted':>10}  0 s{end_s:>{width - 5}.2f} s"
    ]
    for batch in found:
        start = column(batch.started_s)
        bar = ("." * start + "#" * (column(batch.answered_s) - start)).ljust(width)
        cells = cell(batch.started_s) + cell(batch.answered_s) + cell(batch.predicted_s)
        rows.append(f"{len(batch.requests):10}  {ranges(batch.requests, 13):13}{cells} |{bar}|")
    if len(rows) > LOG_SHOWN:
        rows[LOG_SHOWN - 6 : -4] = [f"{'':12}... {len(rows) - LOG_SHOWN + 2} more batches"]
    return "\n".join(rows)


def difference(measured_s: float, predicted_s: float) -> str:
    return f"{(measured_s / predicted_s - 1) * 100:+.1f} %"


def render_verdict(run: Run) -> str:
    measured_s, predicted_s, split_s = run["measured_s"], run["predicted_s"], run["split_predicted_s"]
    warned = {warning["id"] for warning in run["warnings"]}
    verdict = load.render_verdict(run)
    if run["failed"] or run["stopped"] or run["server_ended"]:
        return verdict
    if predicted_s is not None:
        verdict = (
            f"predicted {predicted_s:.2f} s, measured {measured_s:.2f} s ({difference(measured_s, predicted_s)}): "
        )
        if "uneven-split" in warned:
            verdict += (
                f"the split explains it. The workers took {shares(run)}; given that, the slowest needs"
                f" {split_s:.2f} s ({difference(measured_s, split_s or math.nan)})"
            )
        else:
            verdict += "not explained, see below" if "unexplained" in warned else "as predicted"
    elif run["ceiling_rps"]:
        verdict += f"; throughput is {run['throughput_rps'] / run['ceiling_rps']:.0%} of its ceiling S / t"
    elif run["mode"] == "burst" and run["wait_s"] != 0:
        found = batches(run)
        if size := size_of_rounds(found):
            verdict += f"; they came in rounds of {size}{meaning_of(size, run)}"
        elif len(found) == 1 and run["answered"] > 1:
            verdict += "; they came all at once: no limit was met"
    return verdict


def render_result(run: Run, log: serve.AccessLog | None) -> str:
    """What is printed after the last answer: the verdict first, then the evidence."""
    parts = [section("verdict", render_verdict(run)), *load.render_warnings(run["warnings"]), ""]
    if run["mode"] == "burst" and run["answered"]:
        if log and log.lines:
            parts += [section("access log", f"{run['access_log']}  (stamped when the handler starts)"),
                      render_log(log, run["wait_s"] or 0.1), ""]  # fmt: skip
        parts += [render_batches(run), ""]
    if run["mode"] != "burst" or not run["predicted_s"]:
        parts += load.render_evidence(run)
    if run["requests_of_workers"]:
        took = ", ".join(f"{worker} {count}" for worker, count in run["requests_of_workers"].items())
        seen = f" (at most {run['slots_seen']} at a time in one worker)" if run["slots_seen"] else ""
        parts.append(section("workers", f"{took}{seen}"))
    lines = "" if run["log_lines"] is None else f"; {run['log_lines']} log lines"
    parts.append(section("counts", load.render_counts(run) + lines))
    database = run.get("database")
    if database and "error" in database:
        parts.append(section("database", database["error"]))
    elif database:
        text = (
            f"{database['rows']} rows = {serve.SEEDED_BOOKS} seeded + {database['rows'] - serve.SEEDED_BOOKS} created"
        )
        parts.append(
            section("database", f"{text}; {database['statements']} SQL statements; Postgres {database['version']}")
        )
    if run["mode"] != "burst":
        parts += load.render_audit(run)
    return "\n".join(parts)


def time_of(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def render_start_of_line(run: RunPlan) -> str:
    """One run of many, before it."""
    total = ("no limit" if run["slots"] is None else str(run["slots"])) if run["slots_known"] else "?"
    return f"{run['target'][:30]:31}{run['path'][:15]:16}{total:>8}{time_of(run['predicted_s']):>10}"


def render_end_of_line(run: Run) -> str:
    """And after it."""
    named = [warned["id"] for warned in run["warnings"]]
    return f"{time_of(run['measured_s']):>9}  {', '.join(named)}".rstrip()


def render_comparison(runs: Sequence[Run]) -> str:
    """One line a run, for everything that was asked for in one command."""
    rows = [f"{'target':31}{'path':16}{'slots':>8} predicted{'measured':>9}{'per s':>7}"]
    for run in runs:
        known = run if run["split_predicted_s"] is None else {**run, "predicted_s": run["split_predicted_s"]}
        failed = f"  {run['failed']} failed" if run["failed"] else ""
        rows.append(f"{render_start_of_line(known)}{time_of(run['measured_s']):>9}{run['throughput_rps']:7.0f}{failed}")
    if any(run["split_predicted_s"] is not None for run in runs):
        rows.append("predicted: given how the connections were split over the workers")
    return "\n".join(rows)


# ---------------------------------------------------------------- from the options to plans


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = load.Parser(
        prog="bench.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = serve.add_options(parser).add_argument
    add("--target", action="append", default=[], metavar="NAME", help="what to start; several times, or `all`")
    add("--url", type=load.pattern(r"\S+", "a URL without white space"), help="a server that runs already, http only")
    add("--path", action="append", default=[], type=load.pattern(load.PATH, "a path: / and no white space"),
        help="several times")  # fmt: skip
    add("--workload", choices=WORKLOADS, help="requests of the Books API that vary, with their ramp, kept connections")
    add("--scale", type=load.number(float, 0.001, 100), metavar="X", help="make the workload's stages X as long")
    load.add_options(parser)
    return check_arguments(parser.parse_args(serve.join_values(argv)))


def check_arguments(options: argparse.Namespace) -> argparse.Namespace:
    """What argparse cannot say: which options go together. Fills in the defaults that depend on others."""
    if sum(map(bool, (options.target, options.app, options.url))) > 1:
        raise slots.Problem("--target, --app and --url exclude each other")
    if options.server and not options.app:
        raise slots.Problem("--server goes with --app; a target has its own")
    if options.url:
        starts = ("path", "workers", "threads", "server_args", "pool_size", "database_url", "server_cpus", "access_log")
        if ignored := [name for name in starts if getattr(options, name)]:
            raise slots.Problem(f"--{ignored[0].replace('_', '-')} does not go with --url: that server runs already,"
                                " and the URL has the path")  # fmt: skip
    if options.app and (options.pool_size or options.database_url):
        raise slots.Problem("--pool-size and --database-url are for our own targets: your app has settings of its own")
    if options.scale and not options.workload:
        raise slots.Problem("--scale goes with --workload")
    if options.workload:
        if not options.target or options.path or options.data is not None or options.body_file or options.method:
            raise slots.Problem("--workload goes with a --target, and without --path, -m, -p and --data")
        options.keep_alive = True
        if not (options.requests or options.concurrency or options.rate or options.ramp):
            stages = WORKLOADS[options.workload].stages
            options.ramp = tuple((stage_s * (options.scale or 1.0), users) for stage_s, users in stages)
    load.check_options(options)
    return options


def make_plans(options: argparse.Namespace) -> list[Plan]:
    """One plan for each target and path, or a Problem that says which name or number is wrong."""
    if options.url:
        host, port, path = load.split_url(options.url)
        plans = [Plan(options.url, load.traffic_of(options, host, port, path), wait_s=options.task_time)]
    elif options.app:
        launch, paths = serve.launch_app(options), options.path or ["/"]
        warm_up = min(32, 4 * launch.workers) if options.warmup is None else options.warmup
        plans = [
            Plan(options.app, dataclasses.replace(load.traffic_of(options, path=path), warm_up=warm_up), launch,
                 wait_s=options.task_time)
            for path in paths
        ]  # fmt: skip
    else:
        plans = plan_targets(options)
    if options.timeout:
        return plans
    return [dataclasses.replace(plan, traffic=dataclasses.replace(plan.traffic, timeout_s=default_timeout_s(plan)))
            for plan in plans]  # fmt: skip


def default_timeout_s(plan: Plan) -> float:
    """Twice the time in which one worker alone would serve all that can be under way, and 10 s; 30 s if not known."""
    each, waiting = plan.launch.slots_per_worker if plan.launch else None, plan.traffic.pace.most_under_way
    if each is None or not plan.wait_s or waiting == math.inf:
        return load.TIMEOUT_S
    return max(load.TIMEOUT_S, 10 + 2 * slots.rounds(int(waiting), each) * plan.wait_s)


def plan_targets(options: argparse.Namespace) -> list[Plan]:
    plans, every = [], "all" in options.target
    for name in serve.TARGETS if every else options.target:
        if name not in serve.TARGETS:
            raise slots.Problem(f"unknown target {name!r}; the targets are: all, {', '.join(serve.TARGETS)}")
        target = serve.TARGETS[name]
        if options.workload:
            if not target.pool:
                raise slots.Problem(f"{name} has no workloads: they are of the Books API (flask-books, fastapi-books)")
            paths = [WORKLOADS[options.workload].kinds[0].path.replace("{id}", "1")]
        else:
            paths = options.path or [route.path for route in target.routes]
        for path in paths:
            of_any_book = re.sub(r"/\d+$", "/1", path.partition("?")[0])
            route = next((route for route in target.routes if route.path == of_any_book), None)
            if route:
                plans.append(plan_target(name, route, path, options, strict=not every))
            elif not every:
                known = ", ".join(route.path for route in target.routes)
                raise slots.Problem(f"{name} has no path {path!r}; it has: {known}")
    if not plans:
        raise slots.Problem(f"no target has the path {options.path[0]!r}; see --list")
    return plans


def plan_target(name: str, route: serve.Route, path: str, options: argparse.Namespace, strict: bool) -> Plan:
    traffic, workload = load.traffic_of(options, path=path), options.workload
    if workload:
        traffic = dataclasses.replace(traffic, kinds=WORKLOADS[workload].kinds, ids=serve.SEEDED_BOOKS)
    launch, task_time_s = serve.launch_target(name, route, options, strict), options.task_time or 1.0
    wait_s = wait_of(route, path, task_time_s, options.subtasks)
    if workload:
        wait_s = WORKLOADS[workload].wait_s
    return Plan(name, traffic, launch, task_time_s, options.subtasks, wait_s, workload)


def wait_of(route: serve.Route, path: str, task_time_s: float, subtasks: int) -> float | None:
    """What a request to this route waits, in seconds; None: not known beforehand."""
    if route.waits == "ms":
        ms = re.search(r"[?&]ms=(\d+)", path)
        return int(ms[1]) / 1000 if ms else 0.05
    share = {"task": 1, "subtask": 1 / subtasks, "nothing": 0}.get(route.waits)
    return None if share is None else share * task_time_s


# ---------------------------------------------------------------- run


def execute(
    plan: Plan, options: argparse.Namespace, database: serve.Database | None = None
) -> tuple[Run, serve.AccessLog | None]:
    """Start the server if it is ours, send, stop the server; the run's record and its access log.

    Signals are held back from the first request on, until the caller has brought the run home.
    """
    when = datetime.now().isoformat(" ", "seconds")
    launch, log, books, ended = plan.launch, None, None, False
    access_log = output = said = None
    if not launch:
        address = load.resolve(plan.traffic.host, plan.traffic.port)
        load.signals.is_held = True  # from here on there is something to report
        measured = load.measure(plan.traffic, address)
    else:
        access_log, output = serve.new_log_files(options.logs, f"{plan.target}{plan.traffic.path}", datetime.now())
        url = ""
        if launch.pool and database:
            if "error" in (answer := database.ask("reset")):  # every run starts from the same rows
                raise slots.Problem(f"the database: {answer['error']}")
            url = database.about["database_url"]
        server = serve.start_server(launch, access_log, output, options.server_cpus, url)
        load.signals.is_held = True
        try:
            traffic = dataclasses.replace(plan.traffic, port=server.port)
            cpu_s = functools.partial(serve.group_cpu_s, server.guard.pid)
            measured = load.measure(traffic, ("127.0.0.1", server.port), launch.wrap, cpu_s)
            ended = server.ended
            if launch.wrap:
                log = serve.wait_for_log(access_log, sum(1 for status in measured.exchanges.status if status))
        finally:
            serve.stop_server(server)
        if launch.pool and database:  # only now, when the app has given back its connections, are counters exact
            books = database.ask("stats")
        if ended or any(measured.exchanges.error) or any(status >= 500 for status in measured.exchanges.status):
            said = serve.telling_line(output)
    described = describe(plan)
    finding: Finding = {
        **described,
        **load.summarise(plan.traffic, measured),
        **summarise_log(described, log),
        "when": when,
        "access_log": load.shown(access_log) if access_log and launch and launch.wrap else None,
        "server_log": load.shown(output) if output else None,
        "server_said": said,
        "server_ended": ended,
        "warnings": [],
    }
    run = cast(Run, finding)  # which may have more
    if books is not None and database:
        version = database.about["version"]
        run["database"] = {"error": books["error"]} if "error" in books else {
            "rows": books["rows"], "statements": books["statements"], "connections": books["connections"],
            "version": version,
        }  # fmt: skip
    run["warnings"] = audit(run)
    if plan.traffic.pace.mode == "burst" or options.json:
        run["exchanges"] = columns_of(measured, log)
    return run, log


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    with load.signals.handled():
        try:
            options = parse_arguments(argv)
            if options.list:
                print(serve.render_targets())
                return 0
            if not (options.target or options.app or options.url):
                print(f"{__doc__}\nTargets: {', '.join(serve.TARGETS)}")
                return 0
            return bench(options, ["bench.py", *argv])
        except PROBLEMS as problem:
            load.say(f"bench.py: {problem}")
            return problem.exit_code
        except (load.Interrupted, KeyboardInterrupt):
            load.say("bench.py: interrupted")
            return load.signals.exit_code or 130


def bench(options: argparse.Namespace, command: list[str]) -> int:
    plans = make_plans(options)
    launches = [plan.launch for plan in plans if plan.launch]
    serve.check_packages(launches)
    if options.url:
        load.resolve(plans[0].traffic.host, plans[0].traffic.port)
    load.prepare(options, [plan.traffic.pace for plan in plans])
    document = load.new_document(command, serve.versions_of(launches))
    output, printer = load.JsonFile(options.json), load.Printer(options.json)
    output.write(document)
    in_full = options.verbose or not ("all" in options.target or len(set(options.target)) > 1)
    try:
        printer.show(render_header(document))
        with serve.database_for(launches, options.database_url, options.logs, options.client_cpus) as database:
            for plan in plans:
                show_before(plan, options, printer, in_full)
                run, log = execute(plan, options, database)
                document["runs"].append(run)
                output.write(document)
                show_after(run, log, options, printer, in_full)
                load.signals.is_held = False
                if load.signals.received:
                    break
        if len(plans) > 1 and not options.quiet:
            printer.show("\n" + render_comparison(document["runs"]))
    finally:
        document["complete"] = not load.signals.received and len(document["runs"]) == len(plans)
        output.write(document, last=True)
    return load.signals.exit_code or (1 if any(run["failed"] for run in document["runs"]) else 0)


def show_before(plan: Plan, options: argparse.Namespace, printer: load.Printer, in_full: bool) -> None:
    if options.quiet:
        return
    if in_full:
        printer.show("\n" + render_prediction(describe(plan), plan.traffic.warm_up) + "\n")
    else:
        printer.show(render_start_of_line(describe(plan)))


def show_after(
    run: Run, log: serve.AccessLog | None, options: argparse.Namespace, printer: load.Printer, in_full: bool
) -> None:
    if options.quiet:
        printer.show(section("verdict", f"{run['target']} {run['path']}: {render_verdict(run)}"))
    elif in_full:
        printer.show(render_result(run, log))
    else:
        printer.show(render_end_of_line(run))


if __name__ == "__main__":
    sys.exit(main())
