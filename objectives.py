"""objectives.py - what a run must not exceed, and the highest rate that it holds.

parse_condition() and failing() are --fail-if: for a CI job, a reason a line. next_rate() is --find-rate: given the
runs so far, the rate to try next, or the answer. Nothing here sends, reads or waits.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from slots import Problem, plural, seconds

# ---------------------------------------------------------------- conditions: --fail-if 'p99>0.1'

FIGURES = {  # name -> where a run has it
    "p50": "latency_s.median", "median": "latency_s.median", "p90": "latency_s.p90", "p95": "latency_s.p95",
    "p99": "latency_s.p99", "p99.9": "latency_s.p999", "mean": "latency_s.mean", "min": "latency_s.min",
    "max": "latency_s.max", "last": "measured_s", "throughput": "throughput_rps", "requests": "sent",
    "answered": "answered", "failed": "failed", "failed-share": "",
}  # fmt: skip
TIMES = ("latency_s", "measured_s")
OPERATORS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    ">": (operator.gt, "more than"), ">=": (operator.ge, "not below"), "<": (operator.lt, "less than"),
    "<=": (operator.le, "not above"), "==": (operator.eq, "exactly"),
}  # fmt: skip
UNITS = {"": 1.0, "s": 1.0, "ms": 0.001, "%": 0.01}


class Condition(NamedTuple):
    figure: str  # a key of FIGURES
    operator: str
    value: float  # seconds, requests/s, requests, or a share
    text: str

    @property
    def is_time(self) -> bool:
        return FIGURES[self.figure].startswith(TIMES)


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
    condition = Condition(name, sign, number * UNITS[unit], text.strip())
    allowed = ("", "s", "ms") if condition.is_time else ("", "%") if name == "failed-share" else ("",)
    if unit not in allowed:
        raise Problem(f"{text!r}: {name} is not measured in {unit}")
    return condition


def figure_of(run: Mapping[str, Any], name: str) -> float | None:
    """None: nothing was answered, or too few were for that percentile."""
    if name == "failed-share":
        return run["failed"] / run["sent"] if run["sent"] else None
    value: Any = run
    for key in FIGURES[name].split("."):
        value = None if value is None else value.get(key)
    return None if value is None else float(value)


def failing(run: Mapping[str, Any], conditions: Sequence[Condition]) -> list[str]:
    """A line for each condition that is met, with the figure; none: the run is good.

    What cannot be said is no success: of 50 answers nobody knows a p99, unless all are within the objective.
    """
    lines = []
    for condition in conditions:
        holds, words = OPERATORS[condition.operator]
        value = figure_of(run, condition.figure)
        bound = figure_of(run, "max") if value is None and condition.figure.startswith("p") else None
        if bound is not None and condition.operator in (">", ">=") and not holds(bound, condition.value):
            continue  # the longest of all is within it, and so is any percentile
        if value is None:
            answered = plural(int(run["answered"]), "answer")
            lines.append(f"{condition.figure} is not known: {answered} are too few for it ({condition.text})")
        elif holds(value, condition.value):
            found, limit = (show(amount, condition) for amount in (value, condition.value))
            lines.append(f"{condition.figure} is {found}, {words} {limit} ({condition.text})")
    return lines


def show(value: float, condition: Condition) -> str:
    if condition.figure == "failed-share":
        return f"{value:.3g}" if value and value < 0.0001 else f"{value:.2%}"
    return seconds(value) if condition.is_time else f"{value:.4g}" if value % 1 else f"{value:.0f}"


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
    held: list[float] = [run.rate for run in tried if run.holds(objective_s)]
    broke = [run.rate for run in tried if not run.holds(objective_s)]
    low, high = max(held, default=0.0), min(broke, default=math.inf)
    near = bool(held and broke) and high <= low * (1 + CLOSE)
    if (near and len(tried) >= LEAST_RUNS) or len(tried) >= most_runs:
        rate = crossing(tried, objective_s) if held and broke else low
        return Found(rate, min(low, high, rate), max(low, high, rate), len(tried))
    step = 1 + CLOSE * 3.0 ** (len(tried) - 1)
    if not broke:
        return low * step
    slowest = next(run for run in tried if run.rate == high)
    if not held:
        follows = slowest.throughput_rps >= 0.97 * high
        return high / step if follows else min(high / step, 0.97 * slowest.throughput_rps)
    rate, room = crossing(tried, objective_s), 0.25 * abs(high - low)
    if near:  # once more on both sides: chance decides between rates so close together
        return min(low, high) / 1.02 if len(held) < len(broke) else max(low, high) * 1.02
    return min(max(rate, low + room), high - room)


def crossing(tried: Sequence[Tried], objective_s: float) -> float:
    """The rate at which the latency meets the objective, of all runs that came near it.

    By least squares of 1 / latency over the rate: of a queue whose latency grows like 1 / (1 - load) that is a line.
    """
    near = [run for run in tried if objective_s / 3 <= run.latency_s <= 3 * objective_s and not run.failed]
    held = max(run.rate for run in tried if run.holds(objective_s))
    broke = min(run.rate for run in tried if not run.holds(objective_s))
    middle = (held + broke) / 2
    mean_rate = sum(run.rate for run in near) / max(1, len(near))
    mean = sum(1 / run.latency_s for run in near) / max(1, len(near))
    across = sum((run.rate - mean_rate) ** 2 for run in near)
    slope = sum((run.rate - mean_rate) * (1 / run.latency_s - mean) for run in near) / (across or math.inf)
    if slope >= 0:  # too few, or nothing but chance
        return middle
    rate = mean_rate + (1 / objective_s - mean) / slope
    return min(max(rate, 0.95 * min(held, broke)), 1.05 * max(held, broke))
