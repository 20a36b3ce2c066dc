"""Tests of --fail-if, and of the search for the highest rate on a queue whose latency is known."""

import math

import pytest
from samples import sample_run, sample_statistics

from engine import objectives
from engine.objectives import FIELDS, MOST_RUNS, Found, Tried, failing, next_rate, parse_condition
from engine.words import Problem


@pytest.mark.parametrize(
    "text, parts",
    [
        ("p99>0.1", ("p99", ">", 0.1)),
        (" p95 >= 80ms ", ("p95", ">=", 0.08)),
        ("failed-share>1%", ("failed-share", ">", 0.01)),
        ("throughput<200", ("throughput", "<", 200)),
        ("p99.9<=.5s", ("p99.9", "<=", 0.5)),
    ],
)
def test_a_condition_is_read(text, parts):
    assert parse_condition(text) == pytest.approx((*parts, text.strip()))


@pytest.mark.parametrize("text", ("p99", "p99>", "p98>1", "failed>1ms", "throughput<2%", "p99>1%", "p99=>1", "p99>-1"))
def test_what_is_no_condition_is_a_problem(text):
    with pytest.raises(Problem):
        parse_condition(text)


GOOD = "last>4s", "mean<2", "throughput<4", "failed>0", "failed-share>1%"
BAD = "last>=4s", "median>2.4", "throughput<4.1", "requests==16", "answered<=16", "max>3.9"
NOT_KNOWN = "p99>3.9", "p99<9"  # unless the longest of all is within it: p99>4


@pytest.mark.parametrize("conditions, lines", [((*GOOD, "p99>4"), 0), (BAD, len(BAD)), (NOT_KNOWN, len(NOT_KNOWN))])
def test_a_condition_that_is_met_is_a_line(conditions, lines):
    assert len(failing(sample_run(), [parse_condition(one) for one in conditions])) == lines


def test_nothing_answered_is_no_success_and_every_figure_can_be_asked():
    nothing = sample_run(latency_s=None, answered=0, failed=16, sent=0)
    assert len(failing(nothing, [parse_condition(text) for text in ("p50>9", "mean>9", "failed-share>1%")])) == 3
    many = sample_run(latency_s=sample_statistics(p90=1.0, p95=1.0, p99=1.0, p999=1.0))
    assert failing(many, [parse_condition(f"{name}<0") for name in FIELDS]) == []


def search(highest, first, jitter=0.0):
    """Of a queue whose latency is 0.05 / (1 - rate / limit), and 0.1 at the highest rate."""
    tried, rate = [], first
    while not isinstance(rate, Found):
        load = rate / (2 * highest) * (1 + jitter * (-1) ** len(tried))
        tried.append(Tried(rate, 0.05 / (1 - load) if load < 1 else 9.0, min(rate, 2 * highest), rate))
        rate = next_rate(0.1, tried)
    return rate, tried


@pytest.mark.parametrize("first", (5, 50, 90, 100, 110, 150, 400, 4000))
@pytest.mark.parametrize("jitter", (0.0, 0.02))
def test_the_highest_rate_is_found_from_any_first_guess(first, jitter):
    found, tried = search(100, first, jitter)
    assert found.low == pytest.approx(100, rel=0.1) and found.runs == len(tried) <= MOST_RUNS
    assert [run.rate for run in tried if run.holds(0.1)].count(found.low) >= 2
    lowest_failed = found.varies_from or found.high
    assert all(run.rate >= lowest_failed > found.low for run in tried if not run.holds(0.1))


def test_no_rate_is_above_one_that_failed():
    luck = [Tried(100.0, 0.09, 100.0, 100.0), Tried(90.0, 0.2, 90.0, 90.0)]
    assert next_rate(0.1, luck) < 90


def test_where_a_lower_rate_failed_than_one_that_held_the_answer_spans_both():
    rates = {80.0: 0.05, 90.0: 0.2, 100.0: 0.09, 110.0: 0.3, 86.0: 0.06}
    tried = [Tried(rate, latency_s, rate, rate) for rate, latency_s in [*rates.items(), (86.0, 0.06)]]
    assert next_rate(0.1, tried) == Found(86.0, 110.0, 6, varies_from=90.0)


@pytest.mark.parametrize("bad", ({"failed": 1}, {"served": 0.8}, {"grows": True}, {"latency_s": 0.11}))
def test_a_run_holds_only_if_nothing_speaks_against_it(bad):
    good = Tried(50.0, 0.01, 50.0, 50.0)
    assert good.holds(0.1) and not good._replace(**bad).holds(0.1)


def test_a_search_without_an_end_says_so(monkeypatch):
    monkeypatch.setattr(objectives, "MOST_RUNS", 2)
    held, broke = ([Tried(rate, latency_s, rate, rate) for rate in (1.0, 2.0)] for latency_s in (0.01, 9.0))
    assert next_rate(0.1, held) == Found(2.0, math.inf, 2)
    assert next_rate(0.1, broke) == Found(0.0, 1.0, 2)
