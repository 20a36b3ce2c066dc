"""The four kinds of load: what may leave, when that changes, the forecast, and the closed form with its numbers."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.loads import Burst, Closed, Open, Part, Ramp
from engine.model import NO_LIMIT, Service

STAGES = ((2.0, 10), (2.0, 4))
POISSON = Open(3, schedule_s=(0.1, 0.5, 0.9))
FOUR = Service((1,) * 4)


@pytest.mark.parametrize(
    ("load", "most_under_way", "most_requests", "due"),
    [
        (Burst(16), 16, 16, None),
        (Ramp(stages=((1.0, 5), (1.0, 2))), 5, math.inf, None),
        (Open(time_limit_s=1.1, rate_rps=3.0), math.inf, 4, 4),
        (Open(time_limit_s=0.3, rate_rps=10.0), math.inf, 3, 3),
        (Open(3, 0.9, schedule_s=POISSON.schedule_s), 3, 2, 2),
    ],
)
def test_a_load_knows_its_size(load, most_under_way, most_requests, due):
    assert (load.most_under_way, load.most_requests, load.due_in_all) == (most_under_way, most_requests, due)


@pytest.mark.parametrize(
    ("load", "elapsed_s", "limits", "next_s"),
    [
        (Burst(16), 0.0, (16, math.inf), math.inf),
        (Open(time_limit_s=0.7, rate_rps=4.0), 0.6, (3, math.inf), 0.7),
        (POISSON, 0.5, (2, math.inf), 0.9),
        (Ramp(stages=STAGES), 0.0, (math.inf, 0), 0.02),
        (Ramp(stages=STAGES), 1.0, (math.inf, 5), 1.02),
        (Ramp(time_limit_s=3.5, stages=STAGES), 3.49, (math.inf, 6), 3.5),
    ],
)
def test_what_may_leave_and_when_that_changes(load, elapsed_s, limits, next_s):
    part = Part(load)
    assert part.limits(elapsed_s) == limits and part.next_change_s(elapsed_s) == pytest.approx(next_s)


@given(st.integers(1, 5), st.floats(0, 6), st.integers(0, 40))
def test_the_parts_of_a_load_are_the_load(processes, elapsed_s, n):
    drawn = Open.poisson(5.0, n, math.inf, seed=n)
    for load in (Burst(n), Closed(n, concurrency=n + 1), Ramp(n, stages=STAGES), Open(n, rate_rps=7.0), drawn):
        parts = [Part(load, k, processes) for k in range(processes)]
        assert sum(part.requests for part in parts) == load.requests
        for whole, *dealt in zip(load.limits(elapsed_s), *(part.limits(elapsed_s) for part in parts), strict=True):
            assert (sum(dealt) == whole and max(dealt) - min(dealt) <= 1) or whole == math.inf
        if load.is_scheduled:  # no process sleeps beyond the next request that is due
            assert min(part.next_change_s(elapsed_s) for part in parts) == Part(load).next_change_s(elapsed_s)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 12)), min_size=1, max_size=4).map(tuple))
def test_the_forecast_of_a_ramp_has_the_users_that_it_allows(stages):
    """Up at once, down as soon as a request of 50 ms is answered."""
    load = Ramp(stages=stages)
    forecast = load.forecast(Service((NO_LIMIT,)), 0.05)
    spans = list(zip(forecast.arrived_s, forecast.answered_s, strict=True))
    for step in range(int(sum(stage_s for stage_s, _ in stages) / 0.0737)):
        moment_s = step * 0.0737 + 0.001
        under_way = sum(arrived_s <= moment_s < answered_s for arrived_s, answered_s in spans)
        _, *allowed = (load.limits(max(0.0, moment_s - back * 0.051 / 50))[1] for back in range(-1, 51))
        assert allowed[0] <= under_way <= max(allowed)


@pytest.mark.parametrize(
    ("load", "answered_s"),
    [
        (Burst(6), [1, 1, 1, 1, 2, 2]),
        (Closed(6, concurrency=2), [1, 1, 2, 2, 3, 3]),
        (Open(6, 1.2, rate_rps=2.0), [1.0, 1.5, 2.0]),
        (Ramp(time_limit_s=1.5, stages=((1.0, 2), (1.0, 2))), [1, 1.5, 2]),
    ],
)
def test_a_forecast_is_the_loads_own(load, answered_s):
    assert load.forecast(FOUR, 1.0).answered_s == answered_s


def test_a_forecast_follows_the_deal_the_split_and_the_connections_that_are_served():
    two = Service((1, 1))
    assert Burst(4).forecast(two, 1.0, [0, 0, 0, 1]).answered_s == [1, 2, 3, 1]
    assert Burst(4).forecast(two, 1.0, [0, 0]).answered_s == [1, 2, 3, 1]  # the others: to each in turn
    for load in (Burst(4), Closed(4, concurrency=4)):
        assert max(load.forecast(two, 1.0, [0, 0, 1, 0], keeps=True).answered_s) == 3
    served = Closed(4, concurrency=4).served(2).forecast(Service((4,)), 1.0)
    assert served.answered_s == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("load", "numbers"),
    [
        (Burst(100), ["100 / 16", "350 ms"]),
        (Closed(concurrency=200), ["200 x 50 ms / 16", "625 ms"]),
        (Open(rate_rps=256.0), ["256 x 50 ms / 16", "0.8"]),
    ],
)
def test_a_formula_shows_its_numbers(load, numbers):
    assert [number for number in numbers if number not in load.formula(16, 0.05)] == []
