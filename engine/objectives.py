"""What a run must not exceed, and the highest rate that it holds.

parse_condition() and failing() are --fail-if: for a CI job, a reason a line. next_rate() is --find-rate: given the
runs so far, the rate to try next, or the answer. Nothing here sends, reads or waits.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from statistics import StatisticsError, linear_regression
from typing import NamedTuple

from engine.run import Measured, Run
from engine.words import Problem, duration, per_cent, plural

# ---------------------------------------------------------------- conditions: --fail-if 'p99>0.1'


class Measure(NamedTuple):
    """What a figure is measured in: its units, with what each is multiplied by, and how it is shown."""

    units: dict[str, float]
    show: Callable[[float], str]


TIME = Measure({"": 1.0, "s": 1.0, "ms": 0.001}, duration)
NUMBER = Measure({"": 1.0}, "{:.10g}".format)
SHARE = Measure({"": 1.0, "%": 0.01}, per_cent)
LATENCIES = {  # name -> field of Statistics
    "p50": "median", "median": "median", "p90": "p90", "p95": "p95", "p99": "p99", "p99.9": "p999", "mean": "mean",
    "min": "min", "max": "max",
}  # fmt: skip


def latency(field: str) -> Callable[[Measured], float | None]:
    """None: nothing was answered, or too little for that percentile."""
    return lambda run: getattr(run.latency_s, field, None)


FIGURES: dict[str, tuple[Measure, Callable[[Measured], float | None]]] = {
    **{name: (TIME, latency(field)) for name, field in LATENCIES.items()},
    "last": (TIME, lambda run: run.measured_s),
    "throughput": (NUMBER, lambda run: run.throughput_rps),
    "requests": (NUMBER, lambda run: run.sent),
    "answered": (NUMBER, lambda run: run.answered),
    "failed": (NUMBER, lambda run: run.failed),
    "failed-share": (SHARE, lambda run: run.failed / run.sent if run.sent else None),
}
OPERATORS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    ">": (operator.gt, "more than"),
    ">=": (operator.ge, "not below"),
    "<": (operator.lt, "less than"),
    "<=": (operator.le, "not above"),
    "==": (operator.eq, "exactly"),
}


class Condition(NamedTuple):
    figure: str  # a key of FIGURES
    operator: str
    value: float  # seconds, requests/s, requests, or a share
    text: str


def parse_condition(text: str) -> Condition:
    """ "p99>0.1", "p95>=80ms", "failed>0", "failed-share>1%", "throughput<200". Raises Problem: a line that says how.

    >>> parse_condition("p99 > 100ms")[:3]
    ('p99', '>', 0.1)
    """
    match = re.fullmatch(r"\s*([a-z][a-z0-9.-]*)\s*(>=|<=|==|>|<)\s*(\d+\.?\d*|\.\d+)\s*(ms|s|%)?\s*", text)
    if not match:
        raise Problem(f"{text!r} is no condition like p99>0.1, failed>0 or throughput<200")
    name, sign, number, unit = match[1], match[2], float(match[3]), match[4] or ""
    if name not in FIGURES:
        raise Problem(f"{text!r}: {name!r} is no figure of a run; there are {', '.join(FIGURES)}")
    units = FIGURES[name][0].units
    if unit not in units:
        raise Problem(f"{text!r}: {name} is not measured in {unit}")
    return Condition(name, sign, number * units[unit], text.strip())


def failing(run: Run, conditions: Sequence[Condition]) -> list[str]:
    """A line for each condition that is met, with the figure; none: the run is good.

    What cannot be said is no success: 50 answers have no p99, unless all are within the objective.
    """
    lines = []
    for name, sign, limit, text in conditions:
        (measure, figure), (holds, words) = FIGURES[name], OPERATORS[sign]
        value = figure(run.measured)
        bound = FIGURES["max"][1](run.measured) if value is None and name.startswith("p") else None
        if bound is not None and sign in (">", ">=") and not holds(bound, limit):
            continue  # the longest of all is within it, and so is any percentile
        if value is None:
            answers = plural(run.measured.answered, "answer")
            lines.append(f"{name} is not known: {answers} are too few for it ({text})")
        elif holds(value, limit):
            lines.append(f"{name} is {measure.show(value)}, {words} {measure.show(limit)} ({text})")
    return lines


# ---------------------------------------------------------------- the highest rate: --find-rate --p99 0.1

MOST_RUNS = 8
LEAST_RUNS = 5
CLOSE = 0.04  # the rate is known when what holds and what does not are so close together
WITHIN_S = 10.0  # of a run


class Tried(NamedTuple):
    """One run of random arrivals at a rate."""

    rate: float
    latency_s: float  # the percentile of the objective; the longest of all, if there are too few for it
    throughput_rps: float
    failed: int = 0

    def holds(self, objective_s: float) -> bool:
        return not self.failed and self.latency_s <= objective_s


class Found(NamedTuple):
    """The highest rate, between what held and what did not. low 0: none held. high inf: none failed to."""

    rate: float
    low: float
    high: float
    runs: int


def next_rate(first: float, objective_s: float, tried: Sequence[Tried], most_runs: int = MOST_RUNS) -> float | Found:
    """The rate to try next, or the answer. first: as predicted.

    Begins there, moves by 4, 12, 36 % and so on until the objective lies between two runs, and closes in. A run that
    the server cannot follow says what it can: its throughput. Chance can let a rate hold and a lower one not: then the
    answer lies between these two.
    """
    if not tried:
        return first
    held, broke = ([run.rate for run in tried if run.holds(objective_s) == holds] for holds in (True, False))
    low, high = max(held, default=0.0), min(broke, default=math.inf)
    near = high <= low * (1 + CLOSE)
    if len(tried) >= (LEAST_RUNS if near else most_runs):
        rate = crossing(tried, objective_s, low, high) if held and broke else low
        return Found(rate, min(low, high, rate), max(low, high, rate), len(tried))
    if not held or not broke:
        return outward(tried, low, high)
    if near and len(held) < len(broke):  # once more on both sides: chance decides between rates so close together
        return min(low, high) / 1.02
    if near:
        return max(low, high) * 1.02
    room = 0.25 * abs(high - low)
    return min(max(crossing(tried, objective_s, low, high), low + room), high - room)


def outward(tried: Sequence[Tried], low: float, high: float) -> float:
    """The next rate while all runs held, or none did."""
    step = 1 + CLOSE * 3.0 ** (len(tried) - 1)
    if low:
        return low * step
    slowest = next(run for run in tried if run.rate == high)
    follows = slowest.throughput_rps >= 0.97 * high
    return high / step if follows else min(high / step, 0.97 * slowest.throughput_rps)


def crossing(tried: Sequence[Tried], objective_s: float, low: float, high: float) -> float:
    """The rate at which the latency meets the objective, of all runs that came near it. low held, high did not.

    By least squares of 1 / latency over the rate: of a queue whose latency grows like 1 / (1 - load) that is a line.
    """
    near = [run for run in tried if objective_s / 3 <= run.latency_s <= 3 * objective_s and not run.failed]
    try:
        slope, at_zero = linear_regression([run.rate for run in near], [1 / run.latency_s for run in near])
    except StatisticsError:  # too few, or all at one rate
        return (low + high) / 2
    if slope >= 0:  # nothing but chance
        return (low + high) / 2
    rate = (1 / objective_s - at_zero) / slope
    return min(max(rate, 0.95 * min(low, high)), 1.05 * max(low, high))
