"""Tests of --fail-if, and of the search for the highest rate on a queue whose latency is known."""

from __future__ import annotations

import math

import pytest

from engine.objectives import FIGURES, Found, Tried, crossing, failing, next_rate, parse_condition
from engine.words import Problem
from tests.samples import sample_run, sample_statistics


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("p99>0.1", ("p99", ">", 0.1)),
        (" p95 >= 80ms ", ("p95", ">=", 0.08)),
        ("failed-share>1%", ("failed-share", ">", 0.01)),
        ("throughput<200", ("throughput", "<", 200)),
        ("p99.9<=.5s", ("p99.9", "<=", 0.5)),
    ],
)
def test_a_condition_is_read(text, parts):
    assert parse_condition(text)[:3] == pytest.approx(parts) and parse_condition(text).text == text.strip()


@pytest.mark.parametrize("text", ("p99", "p99>", "p98>1", "failed>1ms", "throughput<2%", "p99>1%", "p99=>1", "p99>-1"))
def test_what_is_no_condition_is_a_problem(text):
    with pytest.raises(Problem):
        parse_condition(text)


@pytest.mark.parametrize(
    ("condition", "lines"),
    [
        ("last>4s", 0), ("last>=4s", 1), ("median>2.4", 1), ("mean<2", 0), ("throughput<4", 0), ("throughput<4.1", 1),
        ("failed>0", 0), ("requests==16", 1), ("answered<=16", 1), ("failed-share>1%", 0), ("max>3.9", 1),
        ("p99>4", 0),  # not known, but the longest of all is within it
        ("p99>3.9", 1),  # not known
        ("p99<9", 1),
    ],
)  # fmt: skip
def test_a_condition_that_is_met_is_a_line(condition, lines):
    assert len(failing(sample_run(), [parse_condition(condition)])) == lines


def test_nothing_answered_is_no_success_and_every_figure_can_be_asked():
    nothing = sample_run(latency_s=None, answered=0, failed=16, sent=0)
    asked = [parse_condition(text) for text in ("p50>9", "mean>9", "failed-share>1%")]
    assert len(failing(nothing, asked)) == 3
    many = sample_run(latency_s=sample_statistics(p90=1.0, p95=1.0, p99=1.0, p999=1.0))
    assert failing(many, [parse_condition(f"{name}<0") for name in FIGURES]) == []


def search(highest: float, first: float, jitter: float = 0.0) -> tuple[Found, list[Tried]]:
    """Of a queue whose latency is 0.05 / (1 - rate / limit), and 0.1 at the highest rate."""
    tried: list[Tried] = []
    while not isinstance(rate := next_rate(first, 0.1, tried), Found):
        load = rate / (2 * highest) * (1 + jitter * (-1) ** len(tried))
        tried.append(Tried(rate, 0.05 / (1 - load) if load < 1 else 9.0, min(rate, 2 * highest)))
    return rate, tried


@pytest.mark.parametrize("first", (50, 90, 100, 110, 150, 400))
def test_the_highest_rate_is_found_from_any_first_guess(first):
    found, tried = search(100, first)
    assert found.rate == pytest.approx(100, rel=0.05) and found.runs == len(tried) <= 8
    assert found.low <= found.rate <= found.high
    rough, _ = search(100, first, jitter=0.02)
    assert rough.rate == pytest.approx(100, rel=0.12)


def test_a_search_without_an_end_says_so():
    held = [Tried(rate, 0.01, rate) for rate in (1.0, 2.0)]
    assert next_rate(1.0, 0.1, held, most_runs=2) == Found(2.0, 2.0, math.inf, 2)
    broke = [Tried(rate, 9.0, rate) for rate in (2.0, 1.0)]
    assert next_rate(1.0, 0.1, broke, most_runs=2) == Found(0.0, 0.0, 1.0, 2)
    assert next_rate(1.0, 0.1, [Tried(100.0, 9.0, 50.0)]) == pytest.approx(0.97 * 50)  # what the server can follow
    assert not Tried(1.0, 0.01, 1.0, failed=1).holds(0.1)


def test_chance_gives_the_middle():
    assert crossing([Tried(1.0, 0.1, 1.0), Tried(2.0, 0.05, 2.0)], 0.1, 1.0, 2.0) == 1.5
    assert crossing([], 0.1, 1.0, 2.0) == 1.5
