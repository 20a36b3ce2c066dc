"""The tables of a report: log and batches of a burst, figures, phases, stages, histogram. Values in, 79 columns out.

A table says what its numbers are in its first line. An empty text means that there is nothing to show.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from engine.access_log import AccessLog, LogLine, name_workers
from engine.model import Forecast
from engine.run import Run
from engine.words import MARGIN, duration, milliseconds, shortened

FIRST, LAST = 14, 4  # rows of a long table that are shown
MOST_BATCHES = 12  # of about one request each
BAR = 21  # columns

# ---------------------------------------------------------------- the access log and its batches


def live_line(line: LogLine, worker: str) -> str:
    """One line of the access log, as it appears during a run and in the report."""
    return f"  [{line.stamp}] [pid-{worker}] {line.method} {line.path}"


def log_table(log: AccessLog, wait_s: float) -> str:
    """The log in the order in which handlers started, workers by name; a blank line begins a new batch."""
    workers, rows, previous_s = name_workers(log), [], math.inf
    for line in log.lines:
        gap = "\n" * (line.started_s - previous_s > wait_s / 4)
        rows.append(gap + live_line(line, workers[line.pid]))
        previous_s = line.started_s
    return "\n".join(shortened(rows, FIRST, LAST, "more line"))


class Batch(NamedTuple):
    """Requests answered together; times in seconds since the burst began; None: not known."""

    requests: list[int]
    started_s: float | None
    answered_s: float
    predicted_s: float | None


def due_before_the_run(run: Run) -> list[float]:
    """When each answer of a burst was due, sorted; empty where that is not known. Nothing of the run is in it."""
    plan = run.plan
    if not plan.slots_known or not plan.wait_s or plan.distribution != "constant":
        return []
    return sorted(plan.load.forecast(plan.service, plan.busy_s).answered_s)


def batches(run: Run) -> list[Batch]:
    """The answers of a burst in groups: a gap of a quarter of the wait (or of the fastest answer) begins a new one.

    Answers that come one by one make no groups; then each batch is a tenth of them, in the order of the answers.
    """
    columns = run.exchanges
    if not columns:
        return []
    ends = zip(columns.answered_s, columns.error, strict=True)
    answered = sorted((at, i) for i, (at, error) in enumerate(ends) if at is not None and not error)
    due_s = [*due_before_the_run(run), *[None] * len(answered)]
    found = []
    for begin, end in itertools.pairwise([*firsts([at for at, _ in answered], run.plan.wait_s), len(answered)]):
        numbers = sorted(i for _, i in answered[begin:end])
        started = [columns.handler_started_s[i] for i in numbers] if columns.handler_started_s else []
        first_s = min((at for at in started if at is not None), default=None)
        found.append(Batch(numbers, first_s, answered[end - 1][0], due_s[end - 1]))
    return found


def firsts(answered_s: Sequence[float], wait_s: float | None) -> list[int]:
    """The place of the first answer of each batch."""
    gap_s = (wait_s or min(answered_s, default=0.0)) / 4
    places = [k for k, at in enumerate(answered_s) if not k or at - answered_s[k - 1] > gap_s]
    if len(places) > MOST_BATCHES and len(answered_s) < 2 * len(places):
        return [len(answered_s) * tenth // 10 for tenth in range(10)]
    return places


def batch_table(run: Run) -> str:
    """A row for each batch; in the bar `.` is the wait for a slot, `#` the time in it."""
    found = batches(run)
    end_s = max((max(batch.answered_s, batch.predicted_s or 0.0) for batch in found), default=0.0)
    rows = []
    for batch in found:
        start, end = (round((at_s or 0.0) / end_s * BAR) for at_s in (batch.started_s, batch.answered_s))
        times = "".join(f"{duration(at_s):>10}" for at_s in batch[1:])
        bar = "." * start + "#" * (end - start)
        rows.append(f"{len(batch.requests):10}  {ranges(batch.requests, 13):13}{times} |{bar:{BAR}}|")
    head = f"{'batches':{MARGIN}}{'requests':13}{'started':>10}{'answered':>10}{'predicted':>10}  0 s"
    return "\n".join([f"{head}{duration(end_s):>{BAR - 3}}", *shortened(rows, FIRST, LAST, "more row")] if rows else [])


def ranges(numbers: Sequence[int], width: int) -> str:
    """
    >>> ranges([0, 1, 2, 5], 13), ranges(range(0, 20, 2), 13)
    ('0-2,5', '0,2,4,6,8,1..')
    """
    parts = []
    for _, group in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        members = [number for _, number in group]
        parts.append("-".join(map(str, sorted({members[0], members[-1]}))))
    text = ",".join(parts)
    return text if len(text) <= width else text[: width - 2] + ".."


# ---------------------------------------------------------------- figures


def figure_table(run: Run) -> str:
    """Predicted and measured, a line each."""
    latency, measured, split = run.measured.latency_s, run.measured, run.split_prediction
    if not latency or not run.prediction.is_known:
        return ""
    rows = [f"{'ms':18}{'req/s':>9}{'mean':>9}{'median':>9}{'p95':>9}{'p99':>9}{'last answer':>13}"]

    def add(name: str, rps: float | None, last_s: float | None, *times_s: float | None) -> None:
        requests_s = f"{rps:.4g}" if rps else "-"
        rows.append(f"{name:18}{requests_s:>9}{''.join(map(milliseconds, times_s))}{duration(last_s):>13}")

    for name, of in ("predicted", run.prediction), ("given the split", split):
        if of and (of is not split or split != run.prediction):
            add(name, of.throughput_rps, of.makespan_s, of.mean_s, of.median_s, of.p95_s, of.p99_s)
    times_s = latency.mean, latency.median, latency.p95, latency.p99
    add("measured", measured.throughput_rps, measured.measured_s, *times_s)
    return "\n".join(rows)


def phase_table(run: Run) -> str:
    """ApacheBench's phases in ms, those that take time; of a schedule also the latency, and the lag in sending."""
    measured, latency = run.measured, run.measured.latency_s
    if not latency:
        return ""
    found = measured.phases_s | {"lag": measured.lag_s, "at least": measured.at_least_s}
    if run.plan.load.is_scheduled:
        found["latency"] = latency
    high = ("p90", "p95", "p99") if latency.p999 is None else ("p95", "p99", "p999")
    names = "min", "mean", "sd", "median", *high, "max"
    rows = [f"{'ms':{MARGIN}}" + "".join(f"{name.replace('p999', 'p99.9'):>8}" for name in names)]
    for phase, of in found.items():
        if of and of.max:
            rows.append(f"{phase:{MARGIN}}" + "".join(milliseconds(getattr(of, name), 8) for name in names))
    return "\n".join(rows)


def stage_table(run: Run) -> str:
    """What was answered during each stage of a ramp."""
    rows = [f"{'stages':{MARGIN}}{'answers':>10}{'failed':>10}{'req/s':>10}{'median ms':>12}{'p95 ms':>12}"]
    for level in run.measured.levels:
        of = level.latency_s
        times = milliseconds(of.median, 12) + milliseconds(of.p95, 12) if of else ""
        counts = f"{level.answered:10}{level.failed:10}{level.throughput_rps:10.1f}"
        rows.append(f"{f'to {level.users}':{MARGIN}}{counts}{times}")
    return "\n".join(rows if run.measured.levels else [])


def histogram_table(run: Run) -> str:
    """How many latencies lie between each bound and the one before."""
    rows, most = [], max((count for _, count in run.measured.histogram), default=0)
    for bound_s, count in run.measured.histogram:
        rows.append(f"up to {duration(bound_s):>8}{count:>9}  |{'#' * math.ceil(count / most * 40)}")
    return "\n".join(rows)


def forecast_table(forecast: Forecast) -> str:
    """The rounds of a burst; otherwise a row for each tenth of the requests, in the order of sending."""
    rounds = Counter(zip(map(duration, forecast.started_s), map(duration, forecast.answered_s), strict=True))
    rows: list[tuple[str, ...]] = [("requests", "started", "answered")]
    rows += [(str(n), *times) for times, n in rounds.items()]
    if any(forecast.arrived_s) or len(rounds) > 24:
        rows, n = [("request", "sent", "started", "answered", "mean latency", "longest")], len(forecast.arrived_s)
        for begin, end in itertools.pairwise(sorted({n * tenth // 10 for tenth in range(11)})):
            latencies_s = [forecast.answered_s[i] - forecast.arrived_s[i] for i in range(begin, end)]
            first_s = [column[begin] for column in forecast]
            rows.append((str(begin), *map(duration, [*first_s, fmean(latencies_s), max(latencies_s)])))
    return "\n".join("".join(f"{cell:>13}" for cell in row) for row in rows)


# ---------------------------------------------------------------- colour


def in_colour(text: str) -> str:
    """Paint a report for a terminal: waiting pale, work green, what needs attention yellow."""
    bars = re.compile(r"\|(\.*)(#*)( *)\|$", re.MULTILINE)
    text = bars.sub(lambda m: f"|\033[2m{m[1]}\033[0;32m{m[2]}\033[0m{m[3]}|", text)
    text = re.sub(r"^(\w[\w ]{0,11}) (?=\S| )", lambda m: f"\033[1m{m[1]}\033[0m ", text, flags=re.MULTILINE)
    return re.sub(r"^\033\[1mwarning", "\033[1;33mwarning", text, flags=re.MULTILINE)
