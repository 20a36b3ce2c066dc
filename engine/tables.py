"""The tables of a report: log and batches of a burst, figures, phases, stages, histogram. Values in, 79 columns out.

A table says what its numbers are in its first line. An empty text means that there is nothing to show.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence

from engine.access_log import AccessLog, LogLine, name_workers
from engine.model import Forecast
from engine.run import Prediction, Run
from engine.words import MARGIN, duration, milliseconds, shortened

FIRST, LAST = 10, 4  # rows of a long table that are shown
MOST_BATCHES = 12  # of about one request each
BAR = 22  # columns

# ---------------------------------------------------------------- the access log and its batches


def live_line(line: LogLine, worker: str) -> str:
    """One line of the access log, as it appears during a run and in the report."""
    return f"  [{line.stamp}] [pid-{worker}] {line.method} {line.path}"


def log_table(log: AccessLog, wait_s: float) -> str:
    """The log in the order in which handlers started, workers by name; a blank line begins a new batch.

    Of a long log: the begin of the first two batches, and the end.
    """
    workers, rows, before_s = name_workers(log), list[str](), math.inf
    for line in log.lines:
        blank = "\n" * (line.started_s - before_s > wait_s / 4)
        rows.append(blank + live_line(line, workers[line.pid]))
        before_s = line.started_s
    second = next((k for k, row in enumerate(rows) if row[0] == "\n"), len(rows))
    shown = shortened(rows[:second], FIRST, 0, "more line") + shortened(rows[second:], FIRST, LAST, "more line")
    return "\n".join(shown)


def batches(run: Run) -> list[list[tuple[float, int]]]:
    """The answers of a burst, (seconds since it began, number of the request), in groups that came together."""
    columns, latency = run.exchanges, run.measured.latency_s
    if not columns or not latency:
        return []
    answered = sorted((at_s, i) for i, at_s in enumerate(columns.answered_s) if at_s and not columns.error[i])
    begins = begins_of([at_s for at_s, _ in answered], (run.plan.wait_s or latency.min) / 4)
    return [answered[begin:end] for begin, end in itertools.pairwise([*begins, len(answered)])]


def begins_of(answered_s: Sequence[float], gap_s: float) -> list[int]:
    """The place of the first answer of each batch: after a longer gap.

    Answers that come one by one make no batches; then each batch is a tenth of them.
    """
    n = len(answered_s)
    begins = [k for k in range(n) if not k or answered_s[k] - answered_s[k - 1] > gap_s]
    if len(begins) > MOST_BATCHES and n < 2 * len(begins):
        return [n * tenth // 10 for tenth in range(10)]
    return begins


def batch_table(run: Run, forecast: Forecast | None) -> str:
    """A row for each batch; in the bar `.` is the wait for a slot, `#` the time in it, `-` either: not known.

    forecast: as it was made before the run, so that "predicted" knows nothing of what was measured.
    """
    found, done, rows = batches(run), 0, []
    due_s = sorted(forecast.answered_s)[: sum(map(len, found))] if forecast else []
    if not found or not run.exchanges:
        return ""
    end_s = max([found[-1][-1][0], *due_s[-1:]])
    start_of = dict(enumerate(run.exchanges.handler_started_s)).get
    for batch in found:
        done += len(batch)
        started_s = min(filter(None, (start_of(i) for _, i in batch)), default=None)
        times_s = started_s, batch[-1][0], due_s[done - 1] if due_s else None
        bar = bar_of(started_s, batch[-1][0], end_s)
        rows.append(f"{len(batch):20}{''.join(f'{duration(at_s):>11}' for at_s in times_s)}  |{bar:{BAR}}|")
    head = f"batches     requests    started   answered  predicted   0 s{duration(end_s):>{BAR - 3}}"
    return "\n".join([head, *shortened(rows, FIRST, LAST, "more row")])


def bar_of(started_s: float | None, ended_s: float, last_s: float) -> str:
    """
    >>> bar_of(1.0, 2.0, 4.0), bar_of(None, 2.0, 4.0)
    ('......#####', '-----------')
    """
    start, end = (round((at_s or 0.0) / last_s * BAR) for at_s in (started_s, ended_s))
    return "-" * end if started_s is None else f"{'.' * start}{'#' * (end - start)}"


# ---------------------------------------------------------------- figures


def compared_figures(run: Run) -> dict[str, Prediction]:
    """Predicted, where that is known, and measured, by name; empty where nothing was answered."""
    measured, latency = run.measured, run.measured.latency_s
    if not latency:
        return {}
    times_s = latency.mean, latency.median, latency.p95, latency.p99, measured.last_answer_s
    split = {"given the split": run.split_prediction} if run.split_prediction else {}
    predicted = {"predicted": run.prediction} if run.prediction.is_known else {}
    return {**predicted, **split, "measured": Prediction(measured.throughput_rps, *times_s)}


def figure_table(run: Run) -> str:
    """Predicted and measured, a line each."""
    figures = compared_figures(run)
    if "predicted" not in figures:  # the table of phases has what was measured
        return ""
    rows = ["ms                    req/s     mean   median      p95      p99  last answer"]
    for name, of in figures.items():
        times = "".join(map(milliseconds, (of.mean_s, of.median_s, of.p95_s, of.p99_s)))
        rps = f"{of.throughput_rps:.4g}" if of.throughput_rps else "-"
        rows.append(f"{name:18}{rps:>9}{times}{duration(of.makespan_s):>13}")
    return "\n".join(rows)


PHASE_FIGURES = ("min", "mean", "sd", "median", "p95", "p99", "p999", "max")


def phase_table(run: Run) -> str:
    """ApacheBench's phases in ms, those that take time; of a schedule also the latency, and the lag in sending."""
    measured = run.measured
    phases = measured.phases_s | {"lag": measured.lag_s, "at least": measured.at_least_s}
    if run.plan.load.is_scheduled:
        phases["latency"] = measured.latency_s
    rows = ["ms               min    mean      sd  median     p95     p99   p99.9     max"]
    for phase, of in phases.items():
        if of and of.max:
            rows.append(f"{phase:{MARGIN}}{''.join(milliseconds(getattr(of, name), 8) for name in PHASE_FIGURES)}")
    return "\n".join(rows if measured.latency_s else [])


def kind_table(run: Run) -> str:
    """The figures of each kind of request in a mix."""
    kinds = run.measured.kinds
    if not kinds:
        return ""
    lines = [f"{'kind of request':36}{'sent':>8}{'failed':>8}{'median':>9}{'p95':>9}{'p99':>9}"]
    for one in kinds:
        latency = one.latency_s
        times = (latency.median, latency.p95, latency.p99) if latency else (None,) * 3
        name = one.name if len(one.name) <= 35 else f"{one.name[:32]}..."
        lines.append(f"{name:36}{one.sent:>8}{one.failed:>8}{''.join(f'{duration(value):>9}' for value in times)}")
    return "\n".join(lines)


def stage_table(run: Run) -> str:
    """What was answered during each stage of a ramp."""
    rows = ["stages         answers    failed     req/s   median ms      p95 ms"]
    for level in run.measured.levels:
        of = level.latency_s
        times = f"{milliseconds(of.median, 12)}{milliseconds(of.p95, 12)}" if of else ""
        counts = f"{level.answered:10}{level.failed:10}{level.throughput_rps:10.1f}"
        rows.append(f"{f'to {level.users}':{MARGIN}}{counts}{times}")
    return "\n".join(rows if run.measured.levels else [])


def histogram_table(run: Run) -> str:
    """How many latencies lie between each bound and the one before."""
    found = run.measured.histogram
    most = max((count for _, count in found), default=0)
    return "\n".join(f"up to {duration(at_s):>8}{n:>9}  |{'#' * math.ceil(n / most * 40)}" for at_s, n in found)


def forecast_table(forecast: Forecast) -> str:
    """The rounds of a burst; otherwise ten of the requests, in the order of sending."""
    arrived_s, started_s, answered_s = forecast
    rounds = Counter(zip(map(duration, started_s), map(duration, answered_s), strict=True))
    rows = [f"{n:13}{start:>13}{end:>13}" for (start, end), n in rounds.items()]
    if not any(arrived_s) and len(rows) <= 24:
        return "\n".join(["     requests      started     answered", *rows])
    rows = ["      request         sent      started     answered      latency"]
    for i in sorted({len(arrived_s) * tenth // 10 for tenth in range(10)}):
        times_s = arrived_s[i], started_s[i], answered_s[i], answered_s[i] - arrived_s[i]
        rows.append(f"{i:13}{''.join(f'{duration(at_s):>13}' for at_s in times_s)}")
    return "\n".join(rows)


# ---------------------------------------------------------------- colour


def in_colour(text: str) -> str:
    """Paint a report for a terminal: waiting pale, work green, what needs attention yellow."""
    bars = re.compile(r"\|(\.*)(#*)( *)\|$", re.MULTILINE)
    text = bars.sub(lambda m: f"|\033[2m{m[1]}\033[0;32m{m[2]}\033[0m{m[3]}|", text)
    names = re.compile(r"^(\w[\w ]{0,11}) (?=\S| )", re.MULTILINE)
    return names.sub(lambda m: f"\033[1{';33' * m[1].startswith('warning')}m{m[1]}\033[0m ", text)
