"""Statistics against the standard library and binomial sums; the figures of a forecast."""

from __future__ import annotations

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
    assert found.mean == pytest.approx(statistics.fmean(values))
    assert found.sd == pytest.approx(statistics.stdev(values) if len(values) > 1 else 0.0, abs=1e-9)
    assert sum(count for _, count in histogram(values)) == len(values)


def test_small_samples_have_no_percentiles():
    found = statistics_of([float(i) for i in range(1, 11)])
    assert (found.p90, found.p95, found.median) == (9.0, None, 5.5)
    assert statistics_of([]) is None


@pytest.mark.parametrize("n", [1, 7, 10, 100, 367, 1000])
@pytest.mark.parametrize("per_cent", [50.0, 90.0, 99.0, 99.9])
def test_an_interval_covers_the_percentile_in_95_of_100_samples_and_no_narrower_one_does(n, per_cent):
    chances = [math.comb(n, k) * (per_cent / 100) ** k * (1 - per_cent / 100) ** (n - k) for k in range(n + 1)]
    low, high = interval_ranks(n, per_cent)
    assert sum(chances[:low]) <= 0.025 < sum(chances[: low + 1])
    assert sum(chances[high:]) <= 0.025 and (high == 1 or sum(chances[high - 1 :]) > 0.025)


def test_an_interval_ends_in_measured_values():
    found = statistics_of([i / 1000 for i in range(1, 1001)])
    assert found.p999 == 0.999 and statistics_of([0.1] * 999).p999 is None
    assert found.intervals["median"] == (0.469, 0.532)
    assert found.intervals["p99"] == (0.983, 0.997)
    assert found.intervals["p999"] == (0.997, None)  # a thousand values do not bound it


@pytest.mark.parametrize(
    ("latencies_s", "bars"),
    [
        ([], []),
        ([0.001], [(0.001, 1)]),  # a bound belongs to the bar below it
        ([0.0011, 0.02], [(0.002, 1), (0.005, 0), (0.01, 0), (0.02, 1)]),
        ([0.00001], [(0.0001, 1)]),
        ([1e9], [(5000.0, 1)]),
    ],
)
def test_the_bars_of_a_histogram(latencies_s, bars):
    assert histogram(latencies_s) == bars


def test_the_figures_of_a_forecast():
    forecast = predict([0.0] * 200, Service((10.0,)), 1.0)
    found = figures_of(forecast)
    assert (found["median_s"], found["p95_s"], found["p99_s"], found["makespan_s"]) == (10.5, 19.0, 20.0, 20.0)
    assert (found["mean_s"], found["throughput_rps"]) == (10.5, 10.0)
    assert figures_of(forecast, 5.0)["throughput_rps"] == 10.0
    assert figures_of(Forecast([], [], [])) == {}
