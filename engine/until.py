"""How exactly a percentile is known, and whether latency drifts; of latencies in the order in which they were due.

Neighbours in a queue wait for each other, so that n latencies say less than n independent ones would. The share of
them that lies above the percentile is taken of BATCHES parts of the run, one after the other; how much these differ
tells how sure the share is, and so between which order statistics the percentile lies. Source: Heidelberger and Lewis,
"Quantile estimation in dependent sequences", 1984, in its simplest form. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

from engine.words import Problem

BATCHES = 20
# The 97.5 % point of Student's t with 19 degrees of freedom; and wider by so much, as parts that follow each other are
# not quite independent, and a run that ends where its interval is narrow ends too early by chance.
T = 2.093 * 1.4
WIDER = 1.4  # while it is sent: of many looks the one that ends it shows too narrow an interval by chance
LEAST_BEYOND = 30  # latencies above the percentile
DRIFTS_Z = 3.3  # of Mann's test: 1 in 1000 by chance
DRIFTS_BY = 1.2  # of the medians of the last quarter to the first, or the other way round
LEAST_DRIFT = 200  # latencies


@dataclass(frozen=True)
class Wanted:
    """How exactly a figure is asked for."""

    percentile: float | None  # None: the mean
    share: float  # half of the interval, of the figure

    @property
    def name(self) -> str:
        return f"p{self.percentile:g}" if self.percentile else "mean"


@dataclass(frozen=True)
class Until:
    """What came of it."""

    figure: str
    share: float
    reached: bool
    interval_s: tuple[float, float] | None  # 95 %; None: too few requests
    requests: int
    reason: str = ""  # why it was not reached: "too-few", "uneven", "drift", "client", "time", "stopped"


@dataclass(frozen=True)
class Drift:
    """The latency of the first and of the last quarter of a run in which it grows or falls all the time."""

    first_s: float
    last_s: float


def parse_until(text: str) -> Wanted:
    """ "p99±10%", "p95+-5%", "mean±2%". Raises Problem.

    >>> parse_until("p99 +- 10 %")
    Wanted(percentile=99.0, share=0.1)
    """
    found = re.fullmatch(r"\s*(?:p(\d\d(?:\.\d)?)|mean)\s*(?:±|\+-|\+/-)\s*(\d+(?:\.\d+)?)\s*%\s*", text)
    if not found or not 0 < float(found[2]) <= 100 or (found[1] and not 50 <= float(found[1]) < 99.9001):
        raise Problem(f"{text!r} is not of the form p99±10% (also +-), with p50 to p99.9, or mean")
    return Wanted(float(found[1]) if found[1] else None, float(found[2]) / 100)


def interval_of(
    latencies_s: Sequence[float], percentile: float | None, wider: float = 1.0
) -> tuple[float, float] | None:
    """95 % interval of a percentile, or of the mean; None: too few to tell, or those beyond the percentile are all at
    a few moments. wider: times so wide.

    >>> interval_of([0.1] * 400, 50)
    (0.1, 0.1)
    """
    size = len(latencies_s) // BATCHES
    if size < 2:
        return None
    if percentile is None:
        parts = [fmean(part) for part in in_batches(latencies_s, size)]
        half_s = wider * half_of(parts)
        return fmean(parts) - half_s, fmean(parts) + half_s
    share, ordered = percentile / 100, sorted(latencies_s)
    at_s = ordered[math.ceil(share * len(ordered)) - 1]
    room = wider * half_of([fmean(one <= at_s for one in part) for part in in_batches(latencies_s, size)])
    if not has_enough(len(ordered), percentile) or share + room >= 1:
        return None
    low, high = (math.ceil(max(0.0, share + sign * room) * len(ordered)) - 1 for sign in (-1, 1))
    return ordered[max(0, low)], ordered[min(len(ordered) - 1, high)]


def has_enough(count: int, percentile: float | None) -> bool:
    """Whether so many latencies have enough beyond the percentile."""
    return percentile is not None and count * (1 - percentile / 100) >= LEAST_BEYOND


def half_of(parts: Sequence[float]) -> float:
    """Half of the 95 % interval of what is the mean of these parts."""
    return T * stdev(parts) / math.sqrt(BATCHES)


def in_batches(values: Sequence[float], size: int) -> list[Sequence[float]]:
    return [values[k * size : (k + 1) * size] for k in range(BATCHES)]


def is_exact(interval_s: tuple[float, float] | None, wanted: Wanted) -> bool:
    """Whether it is as narrow as asked: half of it, of its middle."""
    if not interval_s:
        return False
    low_s, high_s = interval_s
    return high_s - low_s <= wanted.share * (high_s + low_s)


def drift_of(latencies_s: Sequence[float], middle: Callable[[Sequence[float]], float] = median) -> Drift | None:
    """Whether latency goes one way for all of a run; None: it does not, or there are too few. Mann's test of the
    middles of BATCHES parts: how many pairs of them go up, less those that go down.

    >>> drift_of([k / 1000 for k in range(1000)])
    Drift(first_s=0.1245, last_s=0.8745)
    """
    if len(latencies_s) < LEAST_DRIFT:
        return None
    middles = [middle(part) for part in in_batches(latencies_s, len(latencies_s) // BATCHES)]
    ups = sum((b > a) - (b < a) for i, a in enumerate(middles) for b in middles[i + 1 :])
    z = abs(ups) / math.sqrt(BATCHES * (BATCHES - 1) * (2 * BATCHES + 5) / 18)
    quarter = BATCHES // 4
    first_s, last_s = fmean(middles[:quarter]), fmean(middles[-quarter:])
    is_much = max(first_s, last_s) > DRIFTS_BY * min(first_s, last_s)
    return Drift(round(first_s, 6), round(last_s, 6)) if z > DRIFTS_Z and is_much else None


class Watch:
    """Asks now and then whether a figure is as exact as wanted: as often as the answers grow by a sixth. It must be so
    twice in a row, since chance makes one of many intervals narrow."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted, self.next, self.in_a_row = wanted, 200, 0

    def is_over(self, latencies_s: Sequence[float]) -> bool:
        if len(latencies_s) < self.next:
            return False
        self.next = len(latencies_s) * 7 // 6
        is_now = is_exact(interval_of(latencies_s, self.wanted.percentile, WIDER), self.wanted)
        self.in_a_row = self.in_a_row + 1 if is_now else 0
        return self.in_a_row > 1


def until_of(
    wanted: Wanted, latencies_s: Sequence[float], is_late: bool, has_drift: bool, is_stopped: bool = False
) -> Until:
    """What came of it. is_late: the client was too slow to be believed. has_drift: latency goes one way. is_stopped:
    the run ended before its time."""
    interval_s = interval_of(latencies_s, wanted.percentile)
    reached = is_exact(interval_s, wanted)
    reason = ""
    if has_drift:
        reached, reason = False, "drift"
    elif is_late:
        reached, reason = False, "client"
    elif not reached:
        is_uneven = has_enough(len(latencies_s), wanted.percentile)
        ended = "stopped" if is_stopped else "time"
        reason = ended if interval_s else "uneven" if is_uneven else "too-few"
    return Until(wanted.name, wanted.share, reached, interval_s, len(latencies_s), reason)
