"""What a run must not exceed, and the highest rate that it holds.

parse_condition() and failing() are --fail-if: for a CI job, a reason a line. next_rate() is --find-rate: given the
runs so far, the rate to try next, or the answer. Nothing here sends, reads or waits.
"""

import math
import operator
import re
from collections.abc import Sequence
from typing import NamedTuple

from engine.run import Measured, Run
from engine.words import Problem, duration, per_cent, plural

# ---------------------------------------------------------------- conditions: --fail-if 'p99>0.1'

FIELDS = {  # of Statistics, or of Measured
    "p50": "median", "median": "median", "p90": "p90", "p95": "p95", "p99": "p99", "p99.9": "p999", "mean": "mean",
    "min": "min", "max": "max", "last": "measured_s", "throughput": "throughput_rps", "requests": "sent",
    "answered": "answered", "failed": "failed", "failed-share": "failed",
}  # fmt: skip
NUMBERS = ("throughput", "requests", "answered", "failed")  # the others are times, and a share
UNITS = {"": 1.0, "s": 1.0, "ms": 0.001, "%": 0.01}
OPERATORS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le, "==": operator.eq}


class Condition(NamedTuple):
    figure: str  # a key of FIELDS
    operator: str
    value: float  # seconds, requests/s, requests, or a share
    text: str


def parse_condition(text: str) -> Condition:
    """ "p99>0.1", "p95>=80ms", "failed>0", "failed-share>1%", "throughput<200". Raises Problem: a line that says how.

    >>> parse_condition("p99 > 100ms")[:3]
    ('p99', '>', 0.1)
    """
    match = re.fullmatch(r"\s*([a-z][a-z0-9.-]*)\s*(>=|<=|==|>|<)\s*(\d+\.?\d*|\.\d+)\s*(ms|s|%|)\s*", text)
    if not match:
        raise Problem(f"{text!r} is no condition like p99>0.1, failed>0 or throughput<200")
    name, sign, number, unit = match.groups()
    if name not in FIELDS:
        raise Problem(f"{text!r}: {name!r} is no figure of a run; there are {', '.join(FIELDS)}")
    if unit and (name in NUMBERS or (unit == "%") != (name == "failed-share")):
        raise Problem(f"{text!r}: {name} is not measured in {unit}")
    return Condition(name, sign, float(number) * UNITS[unit], text.strip())


def figure_of(measured: Measured, name: str) -> float | None:
    """None: nothing was sent or answered, or too little for that percentile."""
    if name == "failed-share":
        return measured.failed / measured.sent if measured.sent else None
    value: float | None = getattr(measured, FIELDS[name], None)
    return getattr(measured.latency_s, FIELDS[name], value)


def figure_text(name: str, value: float) -> str:
    if name in NUMBERS:
        return f"{value:.10g}"
    return per_cent(value) if name == "failed-share" else duration(value)


def failing(run: Run, conditions: Sequence[Condition]) -> list[str]:
    """A line for each condition that is met, with the figure; none: the run is good.

    What cannot be said is no success: 50 answers have no p99, unless all are within the objective.
    """
    lines = []
    for name, sign, limit, text in conditions:
        is_met, value, longest = OPERATORS[sign], figure_of(run.measured, name), figure_of(run.measured, "max")
        if value is not None and is_met(value, limit):
            lines.append(f"{name} is {figure_text(name, value)} ({text})")
        elif value is None and (not longest or sign[0] != ">" or is_met(longest, limit)):
            answers = plural(run.measured.answered, "answer")
            lines.append(f"{name} is not known: {answers} are too few for it ({text})")
    return lines


# ---------------------------------------------------------------- the highest rate: --find-rate --p99 0.1

MOST_RUNS = 8
LEAST_RUNS = 5
CLOSE = 0.04  # the rate is known when what holds and what does not are so close together


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


def next_rate(objective_s: float, tried: Sequence[Tried]) -> float | Found:
    """The rate to try after these runs, or the answer.

    Moves outward until the objective lies between two runs, and closes in. Chance can let a rate hold and a lower one
    not: then the answer lies between these two.
    """
    held, broke = ([run for run in tried if run.holds(objective_s) == holds] for holds in (True, False))
    low, high = max(held, default=Tried(0.0, 0.0, 0.0)), min(broke, default=Tried(math.inf, math.inf, math.inf))
    rate, near = crossing(low, high, objective_s), high.rate <= low.rate * (1 + CLOSE)
    least, most = sorted((low.rate, high.rate))
    if len(tried) >= (LEAST_RUNS if near else MOST_RUNS):
        return Found(rate, least, most, len(tried))
    if len(tried) in (len(held), len(broke)):  # all held, or none did
        step = 1 + CLOSE * 3.0 ** (len(tried) - 1)
        return low.rate * step or min(high.rate / step, 0.97 * high.throughput_rps)  # at most what the server can do
    if near:  # once more on both sides: chance decides between rates so close together
        return least / 1.02 if len(held) < len(broke) else most * 1.02
    room = 0.25 * (most - least)
    return min(max(rate, least + room), most - room)


def crossing(low: Tried, high: Tried, objective_s: float) -> float:
    """The rate at which the latency meets the objective, between one that held and one that did not.

    On a straight line of 1 / latency over the rate: so it is of a queue whose latency grows like 1 / (1 - load).
    """
    if not low.rate or high.rate == math.inf:
        return low.rate
    held, broke = 1 / low.latency_s, 0.0 if high.failed else 1 / high.latency_s
    return low.rate + (high.rate - low.rate) * (held - 1 / objective_s) / (held - broke)
