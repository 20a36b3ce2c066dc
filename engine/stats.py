"""Statistics of latencies: nearest rank, how sure a percentile is, a histogram; and the figures of a forecast.

A percentile is always a measured value, and there is none where the sample is too small for it. Everything is pure;
times are seconds.
"""

from __future__ import annotations

import bisect
import functools
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from engine.model import Forecast

PERCENTILES = {"median": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9}
BOUNDS_S = [round(step * 10.0**power, 4) for power in range(-4, 4) for step in (1, 2, 5)]  # of a histogram


@dataclass(frozen=True)
class Statistics:
    """Of some times in seconds, to a microsecond. None: the sample is too small (p99 needs 100 values, p999 1000).

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
    return None if n * (100 - per_cent) < 100 - 1e-9 else ordered[max(1, math.ceil(round(per_cent * n / 100, 6))) - 1]


@functools.lru_cache(256)
def interval_ranks(n: int, per_cent: float) -> tuple[int, int]:
    """The two ranks of n values (0: below all, n + 1: above all) between which the true percentile lies in 95 of 100
    samples, whatever the distribution.

    The number of values below the percentile is binomial. Source: David and Nagaraja, Order Statistics, section 7.1.
    It takes the values for independent. Those of one run depend on each other, so the real doubt is larger.

    >>> interval_ranks(100, 50), interval_ranks(100, 99)
    ((40, 61), (97, 101))
    """
    p = per_cent / 100
    k = max(0, int(n * p - 10 * math.sqrt(n * p * (1 - p)) - 10))  # chances further out add nothing
    log_chance = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    chance = math.exp(log_chance + k * math.log(p) + (n - k) * math.log1p(-p))  # of exactly k values below it
    below, low = chance, 0
    while below < 0.975:
        if below <= 0.025:
            low = k + 1
        chance *= (n - k) / (k + 1) * p / (1 - p)
        k += 1
        below += chance
    return low, k + 1


def statistics_of(values: list[float]) -> Statistics | None:
    """Statistics of some seconds; None of none. Sorts the list that it is given, which can hold a million values."""
    if not values:
        return None
    values.sort()
    n, mean = len(values), statistics.fmean(values)
    # statistics.stdev counts in fractions: half a minute for a million values.
    variance = math.fsum((value - mean) ** 2 for value in values) / max(1, n - 1)
    ranked = {name: nearest_rank(values, per_cent) for name, per_cent in PERCENTILES.items()}
    ranked["median"] = median = statistics.median(values)
    intervals: dict[str, tuple[float, float | None]] = {}
    for name, value in ranked.items():
        if value is not None:
            low, high = interval_ranks(n, PERCENTILES[name])
            intervals[name] = round(values[max(low, 1) - 1], 6), round(values[high - 1], 6) if high <= n else None
    _, p90, p95, p99, p999 = (None if value is None else round(value, 6) for value in ranked.values())
    low_s, mean_s, sd_s, median_s, high_s = (
        round(value, 6) for value in (values[0], mean, math.sqrt(variance), median, values[-1])
    )
    return Statistics(low_s, mean_s, sd_s, median_s, p90, p95, p99, p999, high_s, intervals)


def histogram(latencies_s: Sequence[float]) -> list[tuple[float, int]]:
    """(upper bound in seconds, count) in steps of 1, 2, 5, so that a tail of seconds shows beside many milliseconds.

    >>> histogram([0.0003, 0.0009, 0.0011])
    [(0.0005, 1), (0.001, 1), (0.002, 1)]
    """
    counts = Counter(min(bisect.bisect_left(BOUNDS_S, latency_s), len(BOUNDS_S) - 1) for latency_s in latencies_s)
    return [(BOUNDS_S[i], counts[i]) for i in range(min(counts), max(counts) + 1)] if counts else []


class Figures(TypedDict):
    """Fields of run.Prediction. None: nothing is sent, or a percentile that says no more than the maximum."""

    throughput_rps: float | None
    mean_s: float | None
    median_s: float | None
    p95_s: float | None
    p99_s: float | None
    makespan_s: float | None


def figures_of(forecast: Forecast, time_limit_s: float = math.inf) -> Figures:
    """The figures of a forecast. As in a run with a time limit, throughput counts the answers within it.

    >>> figures_of(Forecast([0.0, 0.0], [0.0, 1.0], [1.0, 2.0]))["throughput_rps"]
    1.0
    """
    latencies_s = sorted(end - begin for begin, end in zip(forecast.arrived_s, forecast.answered_s, strict=True))
    makespan_s = max(forecast.answered_s, default=0.0)
    window_s = min(makespan_s, time_limit_s)
    in_time = sum(answered_s <= window_s for answered_s in forecast.answered_s)
    return {
        "throughput_rps": in_time / window_s if window_s else None,
        "mean_s": statistics.fmean(latencies_s) if latencies_s else None,
        "median_s": statistics.median(latencies_s) if latencies_s else None,
        "p95_s": nearest_rank(latencies_s, 95),
        "p99_s": nearest_rank(latencies_s, 99),
        "makespan_s": makespan_s if latencies_s else None,
    }
