"""Statistics against the standard library and binomial sums; the figures of a forecast."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model import Forecast, Service, predict
from engine.stats import figures_of, histogram, interval_ranks, nearest_rank, statistics_of


@pytest.mark.parametrize(
    ("n", "per_cent", "value"),
    [(100, 99, 99), (99, 99, None), (10, 90, 9), (9, 90, None), (20, 95, 19), (1000, 99, 990), (1000, 99.9, 999),
     (2, 50, 1), (1, 50, None)],
)  # fmt: skip
def test_a_percentile_is_a_measured_value_or_nothing(n, per_cent, value):
    assert nearest_rank(range(1, n + 1), per_cent) == value


@given(st.lists(st.floats(0.0001, 100), min_size=1, max_size=300))
def test_statistics_are_those_of_the_sample(values):
    found = statistics_of(list(values))
    assert (found.min, found.median, found.max) == (min(values), statistics.median(values), max(values))
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    assert (found.mean, found.sd) == pytest.approx((statistics.fmean(values), sd), abs=1e-9)
    assert sum(count for _, count in histogram(values)) == len(values)


@pytest.mark.parametrize("n", [1, 7, 10, 100, 367, 1000])
@pytest.mark.parametrize("per_cent", [50.0, 90.0, 99.0, 99.9])
def test_an_interval_covers_the_percentile_in_95_of_100_samples_and_no_narrower_one_does(n, per_cent):
    p = per_cent / 100
    chances = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    low, high = interval_ranks(n, per_cent)
    assert sum(chances[:low]) <= 0.025 < sum(chances[: low + 1])
    assert sum(chances[high:]) <= 0.025 and (high == 1 or sum(chances[high - 1 :]) > 0.025)


def test_small_samples_have_fewer_percentiles_and_open_intervals():
    assert statistics_of([]) is None and statistics_of([*range(999)]).p999 is None
    ten, thousand = statistics_of([*range(1, 11)]), statistics_of([*range(1, 1001)])
    assert (ten.median, ten.p90, ten.p95, thousand.p999) == (5.5, 9, None, 999)
    expected = {"median": (469, 532), "p99": (983, 997), "p999": (997, None)}  # a thousand values do not bound the last
    assert thousand.intervals | expected == thousand.intervals


@pytest.mark.parametrize(
    ("latencies_s", "bars"),
    [
        ([], []),
        ([0.001], [(0.001, 1)]),  # a bound belongs to the bar below it
        ([0.02, 0.0011], [(0.002, 1), (0.005, 0), (0.01, 0), (0.02, 1)]),
        ([0.00001], [(0.0001, 1)]),
        ([1e9], [(5000.0, 1)]),
    ],
)
def test_the_bars_of_a_histogram(latencies_s, bars):
    assert histogram(latencies_s) == bars


def test_the_figures_of_a_forecast():
    forecast = predict([0.0] * 200, Service((10.0,)), 1.0)
    assert figures_of(forecast) == {
        "throughput_rps": 10.0, "mean_s": 10.5, "median_s": 10.5, "p95_s": 19.0, "p99_s": 20.0, "makespan_s": 20.0
    }  # fmt: skip
    assert figures_of(forecast, 5.0)["throughput_rps"] == 10.0 and figures_of(Forecast([], [], [])) == {}
