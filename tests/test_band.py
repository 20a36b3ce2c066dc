"""Tests of the band of the run of samples.py: 16 requests at once on four sync workers, four rounds of a second."""

from __future__ import annotations

import dataclasses

import pytest
from samples import BAND, LOADS, sample_facts, sample_statistics

from engine.band import band_of, compared
from engine.run import Prediction


def test_the_band_is_what_this_machine_adds():
    band = band_of(sample_facts(lone_s=1.01, latency_s=sample_statistics(min=1.02)), 0.001)
    assert band and dataclasses.astuple(band) == pytest.approx((0.01, 0.001, 0.01875, 2, 8, 0.191, 0.101))
    assert band_of(sample_facts(wait_s=None), 0.001) is None is band_of(sample_facts(answered=0), 0.001)
    drawn = band_of(sample_facts(distribution="exp", lone_s=1.5), 0.001)
    assert drawn and drawn.overhead_s == 0.0  # a wait that is drawn costs none


@pytest.mark.parametrize("shares, cpus", [((10, 6), 1.6), ((16, 0), 1), ((8, 8), 2), ((), 2)])
def test_a_process_computes_on_one_cpu(shares, cpus):
    band = band_of(sample_facts(requests_of_workers=dict(enumerate(shares))), 0.001)
    assert band and (band.cpus, band.cpu_s) == pytest.approx((cpus, (0.4 / cpus + 0.1) / 16))


@pytest.mark.parametrize(
    "kind, with_cpu, rooms",
    [
        ("burst", False, [3.798, 4.29]),
        ("burst", True, [3.798, 4.37]),
        ("closed", False, [0.378, 0.5, 9.5 * 0.4 / 0.48, 10.5, 0.3475, 0.63]),  # mean, throughput, p95
        ("ramp", True, [0.378, 0.52, 9.5 * 0.4 / 0.5, 10.5]),
        ("open", True, [0.378, 0.52, 0.568, 0.79]),  # mean, p99
    ],
)
def test_the_room_that_a_prediction_has(kind, with_cpu, rooms):
    facts = sample_facts(load=LOADS[kind], latency_s=sample_statistics(p95=0.5, p99=0.6))
    found = compared(facts, Prediction(10.0, 0.4, 0.4, 0.5, 0.6, 4.0, spread_s=0.45), BAND, with_cpu)
    assert [end for one in found for end in (one.least, one.most)] == pytest.approx(rooms)
    assert [(one.figure, one.measured) for one in found] == [
        (figure, facts.measured.of(figure)) for figure in LOADS[kind].judged_by
    ]
