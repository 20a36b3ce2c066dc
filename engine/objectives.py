"""What a run must not exceed, and the highest rate that it holds.

parse_condition() and failing() are --fail-if: for a CI job, a reason a line. next_rate() is --find-rate: given the
runs so far, the rate to try next, or the answer. Nothing here sends, reads or waits.
"""

import math
import operator
import re
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from engine.run import Measured, Run
from engine.words import Problem, duration, per_cent, plural

# ---------------------------------------------------------------- conditions: --fail-if 'p99>0.1'

FIELDS = {  # of Statistics, or of Measured
    "p50": "median", "median": "median", "p90": "p90", "p95": "p95", "p99": "p99", "p99.9": "p999", "mean": "mean",
    "min": "min", "max": "max", "last": "last_answer_s", "throughput": "throughput_rps", "requests": "sent",
    "answered": "answered", "failed": "failed", "failed-share": "failed",
}  # fmt: skip
NUMBERS = ("throughput", "requests", "answered", "failed")  # the others are times, and a share
ASKED_S = 10.0  # a latency of so many seconds without a unit may be meant in ms
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
    if name == "failed-share" and float(number) * UNITS[unit] > 1:
        raise Problem(f"{text!r}: a share is from 0 to 1, or in per cent: 5 % is 5% or 0.05")
    if name not in (*NUMBERS, "last") and not unit and float(number) >= ASKED_S:
        raise Problem(f"{text!r}: {number} seconds? write {number}ms or {number}s")
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

MOST_RUNS = 12
LONGER = 3  # times the others: a run that confirms a rate, as a short one sees few of the bursts that chance brings
STEP = 0.08  # outward, twice as far each time
CLOSE = 0.05  # the rate is known when what holds and what does not are so close together
SERVED = 0.9  # of what is sent: a server that answers less than that falls behind
GROWS = 1.5  # times the median latency of the first third is that of the last: the queue grows
LEAST_GROWTH = 0.02  # seconds a second, at least: less than chance does, or 2 % too many requests


class Tried(NamedTuple):
    """One run of random arrivals at a rate."""

    rate: float  # that was aimed at
    latency_s: float  # the percentile of the objective; or the longest of all, see is_longest
    throughput_rps: float
    sent_rps: float
    failed: int = 0
    served: float = 1.0  # of what was due: the share that was answered by the end of the schedule
    grows: bool = False  # latency grows over the run, so that a longer one has a longer latency
    is_longest: bool = False  # too few were answered for the percentile

    def holds(self, objective_s: float) -> bool:
        return not self.failed and self.served >= SERVED and not self.grows and self.latency_s <= objective_s


class Found(NamedTuple):
    """The highest rate that held, in two runs, and the lowest above which none did. low 0: none held. high inf: none
    failed."""

    low: float
    high: float
    runs: int
    varies_from: float | None = None  # the lowest rate that failed once, though a higher one held


def has_failed(run: Run) -> bool:
    """Whether a request has, or one to the victim."""
    return bool(run.measured.failed or (run.victim and run.victim.failed))


def bracket(objective_s: float, tried: Sequence[Tried]) -> tuple[float, float]:
    """The highest rate that held so far (0: none), below the lowest that did not (inf: none)."""
    high = min((run.rate for run in tried if not run.holds(objective_s)), default=math.inf)
    return max((run.rate for run in tried if run.rate < high), default=0.0), high


def found_by(objective_s: float, tried: Sequence[Tried]) -> Found:
    """What these runs show together."""
    low, failed = bracket(objective_s, tried)
    highest = max((run.rate for run in tried if run.holds(objective_s)), default=0.0)
    high = min((run.rate for run in tried if run.rate > highest), default=math.inf)
    return Found(low, high, len(tried), failed if failed < high else None)


def followed(rate: float, tried: Sequence[Tried]) -> float:
    """A little below what the server could follow at a rate; inf: it answered nothing."""
    served = (0.95 * run.throughput_rps for run in tried if run.rate == rate and run.throughput_rps)
    return min(served, default=math.inf)


def next_rate(objective_s: float, tried: Sequence[Tried]) -> float | Found:
    """The rate to try after these runs, or the answer.

    A rate at which one run failed does not hold, nor does a higher one, whatever chance let hold there. Moves outward
    until the objective lies between two rates, closes in, and confirms the lower one by a second, longer run.
    """
    low, high = bracket(objective_s, tried)
    held = [run.rate for run in tried if run.rate < high]
    is_near = high <= low * (1 + CLOSE)
    if len(tried) >= MOST_RUNS or (is_near and held.count(low) > 1):
        return found_by(objective_s, tried)
    if not held:
        return min(0.8 * high, followed(high, tried))
    if high == math.inf:
        return low * min(2.0, 1 + STEP * 2.0 ** len(tried))
    return low if is_near else math.sqrt(low * high)


def grows(latencies_s: Sequence[float], run_s: float = 0.0) -> bool:
    """Whether latency grows over a run: of the last third of the requests, in the order in which they were due, it is
    longer than of the middle third, and much longer than of the first. run_s: how long the requests were sent.

    >>> grows([1, 1, 1, 2, 2, 2, 3, 3, 3]), grows([1, 1, 1, 3, 3, 3, 1, 1, 1])
    (True, False)
    """
    third = len(latencies_s) // 3
    if not third:
        return False
    first_s, middle_s, last_s = (median(latencies_s[k * third : (k + 1) * third]) for k in range(3))
    return first_s < middle_s < last_s > GROWS * first_s and last_s - first_s > LEAST_GROWTH * run_s * 2 / 3
