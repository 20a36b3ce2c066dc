"""How many slots for an objective, against queueing theory."""

from dataclasses import replace

import pytest

from engine import sizes
from engine.sizes import Asked, size
from engine.words import Problem

ASKED = Asked(256, 0.05, 0.1)


@pytest.mark.parametrize(
    ("asked", "need"),
    [(ASKED, 15), (Asked(256, 0.05, 0.06), 20), (Asked(1000, 0.05, 0.06), 59), (Asked(100, 0.2, 0.25), 27),
     (replace(ASKED, cpu_s=0.001, cpus=4), 16)],
)  # fmt: skip
def test_a_size_holds_its_objective_and_one_slot_fewer_does_not(asked, need):
    found = size(asked)
    assert (found.below.slots, found.fits.slots, found.above.slots) == (need - 1, need, need + 1)
    assert found.fits.latency_s[99] <= asked.objective_s and not found.below.holds


@pytest.mark.parametrize(
    ("rate_rps", "slots", "exact_s"),
    [(9.0, 1, (0.4013, 1.5129, 2.2898)), (8.0, 1, (0.2276, 0.7620, 1.1356)), (128.0, 16, (0.1, 0.1314, 0.1543)),
     (144.0, 16, (0.1055, 0.1778, 0.2264)), (900.0, 100, (0.1, 0.1088, 0.1170))],
)  # fmt: skip
def test_latencies_are_those_of_the_exact_distribution(rate_rps, slots, exact_s):
    """Of requests of 0.1 s; exact by Franx, "A simple solution for the M/D/c waiting time distribution", 2001."""
    found = Asked(rate_rps, 0.1, 1.0).at(slots)
    assert [found.latency_s[percentile] for percentile in (50, 95, 99)] == pytest.approx(exact_s, rel=0.006)


def test_more_traffic_and_longer_requests_break_a_size():
    found = size(ASKED)
    assert not found.more_traffic.holds and found.slots_for_more == size(replace(ASKED, rate_rps=307.2)).fits.slots
    assert size(replace(ASKED, wait_s=found.longest_s)).fits.slots == 15
    assert size(replace(ASKED, wait_s=1.02 * found.longest_s)).fits.slots > 15


@pytest.mark.parametrize(
    "asked",
    [replace(ASKED, objective_s=0.04), Asked(2000, 0.05, 0.1, cpu_s=0.001), Asked(980, 0.05, 0.1, cpu_s=0.001),
     Asked(1e6, 5, 6)],
)  # fmt: skip
def test_what_is_impossible_is_a_problem(asked):
    with pytest.raises(Problem):
        size(asked)


def test_the_highest_rate_holds_and_a_little_more_does_not():
    rate = sizes.highest_rate(40, 0.05, 0.06)
    assert [Asked(factor * rate, 0.05, 0.06).at(40).holds for factor in (1, 1.01)] == [True, False]
    with pytest.raises(Problem):
        sizes.highest_rate(40, 0.05, 0.04)
