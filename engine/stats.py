"""Statistics of latencies: nearest rank, how sure a percentile is, a histogram; and the figures of a forecast.

A percentile is always a measured value, and there is none where the sample is too small for it. Everything is pure;
times are seconds.
"""

import bisect
import functools
import math
import operator
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.loads import Load
from engine.model import Forecast

PERCENTILES = {"median": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9}
BOUNDS_S = [round(step * 10.0**power, 4) for power in range(-4, 4) for step in (1, 2, 5)]  # of a histogram


@dataclass(frozen=True)
class Statistics:
    """Of some times in seconds. None: the sample is too small (p99 needs 100 values, p999 1000).

    sd: the standard deviation of the sample, 0.0 of a single value.
    intervals: of the median and each percentile that is given, the two values between which the true one lies with
    95 % confidence; None as the upper end: it may be above all values.
    """

    min: float
    mean: float
    sd: float
    median: float
    p90: float | None
    p95: float | None
    p99: float | None
    p999: float | None
    max: float
    intervals: dict[str, tuple[float, float | None]]


def nearest_rank(ordered: Sequence[float], per_cent: float) -> float | None:
    """The percentile by nearest rank: value number ceil(p / 100 x n), counted from 1.

    None where it would say no more than the maximum because no value can lie above it: n < 100 / (100 - p).

    >>> nearest_rank(range(1, 101), 99), nearest_rank(range(1, 100), 99)
    (99, None)
    """
    n = len(ordered)
    return None if n * (100 - per_cent) < 100 - 1e-9 else ordered[math.ceil(round(per_cent * n / 100, 6)) - 1]


@functools.lru_cache(256)
def interval_ranks(n: int, per_cent: float) -> tuple[int, int]:
    """The two ranks of n values (0: below all, n + 1: above all) between which the true percentile lies in 95 of 100
    samples, whatever the distribution.

    The number of values below the percentile is binomial. Source: David and Nagaraja, Order Statistics, section 7.1.
    It takes the values for independent. Those of one run depend on each other, so the real doubt is larger.

    >>> interval_ranks(100, 50), interval_ranks(100, 99)
    ((40, 61), (97, 101))
    """
    p, low, below = per_cent / 100, 0, 0.0  # below: the chance that fewer than k + 1 values are below the percentile
    k = max(0, int(n * p - 10 * math.sqrt(n * p * (1 - p)) - 10)) - 1  # chances further out add nothing
    while below < 0.975:
        k += 1
        if below <= 0.025:
            low = k
        ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)  # their logarithm
        below += math.exp(ways + k * math.log(p) + (n - k) * math.log1p(-p))
    return low, k + 1


def statistics_of(seconds: Sequence[float]) -> Statistics | None:
    """Statistics of some seconds; None of none."""
    if not seconds:
        return None
    values = sorted(seconds)
    n, mean = len(values), statistics.fmean(values)
    # statistics.stdev counts in fractions: half a minute for a million values.
    sd = math.dist(values, [mean] * n) / math.sqrt(max(1, n - 1))
    ranked: dict[str, Any] = {name: nearest_rank(values, per_cent) for name, per_cent in PERCENTILES.items()}
    intervals = {}
    for name, value in ranked.items():
        if value is not None:
            low, high = interval_ranks(n, PERCENTILES[name])
            intervals[name] = values[max(low, 1) - 1], values[high - 1] if high <= n else None
    ranked["median"] = statistics.median(values)
    return Statistics(min=values[0], mean=mean, sd=sd, max=values[-1], intervals=intervals, **ranked)


def histogram(latencies_s: Sequence[float]) -> list[tuple[float, int]]:
    """(upper bound in seconds, count) in steps of 1, 2, 5, so that a tail of seconds shows beside many milliseconds.

    >>> histogram([0.0003, 0.0009, 0.0011])
    [(0.0005, 1), (0.001, 1), (0.002, 1)]
    """
    bars = Counter(bisect.bisect_left(BOUNDS_S, latency_s, hi=len(BOUNDS_S) - 1) for latency_s in latencies_s)
    return [(BOUNDS_S[i], bars[i]) for i in range(min(bars), max(bars) + 1)] if bars else []


def figures_of(forecast: Forecast, time_limit_s: float = math.inf, goes_on_s: float = 0.0) -> dict[str, Any]:
    """Fields of run.Prediction, of a forecast; none if nothing is sent. As in a run with a time limit, throughput
    counts the answers within it, and at least until goes_on_s, as the load goes on until then. None: a percentile that
    says no more than the maximum.

    >>> figures_of(Forecast([0.0, 0.0], [0.0, 1.0], [1.0, 2.0]))["throughput_rps"]
    1.0
    """
    arrived_s, _, answered_s = forecast
    latencies_s = sorted(map(operator.sub, answered_s, arrived_s))
    if not latencies_s:
        return {}
    makespan_s = max(answered_s)
    window_s = min(max(makespan_s, goes_on_s), time_limit_s)
    return {
        "throughput_rps": sum(end_s <= window_s for end_s in answered_s) / window_s if window_s else None,
        "mean_s": statistics.fmean(latencies_s),
        "median_s": statistics.median(latencies_s),
        "p95_s": nearest_rank(latencies_s, 95),
        "p99_s": nearest_rank(latencies_s, 99),
        "makespan_s": makespan_s,
    }


def figures_for(load: Load, forecast: Forecast) -> dict[str, Any]:
    """Fields of a prediction, of the forecast of a load."""
    sent, last_s = len(forecast.answered_s), max(forecast.answered_s, default=0.0)
    return figures_of(forecast, load.time_limit_s, load.goes_on_s(last_s, sent))


PASSES_BY = 0.2  # of the latency that a tenth exceeds: what a tenth does not need


def passes_by_load(began_s: Sequence[float], ended_s: Sequence[float]) -> bool:
    """Whether a good part of the requests of a load that goes on is answered far sooner than others: then not each of
    them needs what others wait for, and the rate of answers does not tell how long that is held."""
    later = sorted(range(len(began_s)), key=began_s.__getitem__)[len(began_s) // 3 :]
    latencies_s = sorted(ended_s[i] - began_s[i] for i in later)
    return latencies_s[len(later) // 10] < PASSES_BY * latencies_s[len(later) * 9 // 10]


def passes_by_burst(began_s: Sequence[float], ended_s: Sequence[float], held_s: float) -> bool:
    """The same of a burst: some are answered long before one that has what others wait for could have been."""
    latencies_s = sorted(map(operator.sub, ended_s, began_s))
    return bool(latencies_s[len(latencies_s) // 10] < held_s / 2)
