"""Every figure of a run, computed by hand from a few raw times."""

from __future__ import annotations

import math
from typing import Any

import pytest

from engine.client import ERRORS, Exchanges, Outcome
from engine.loads import Burst, Closed, Load, Open, Ramp
from engine.run import Level, Plan, Second
from engine.stats import statistics_of
from engine.summary import columns_of, summarise

BEGUN_S = 1024.0  # with times that are sums of powers of two, every figure is exact
ROWS = [  # started, sent, first byte, answered (seconds since the run began; 0.0: never), status, error, body bytes
    (0.0, 0.125, 0.25, 0.5, 200, "", 10),
    (0.0, 1.0, 1.1875, 1.25, 201, "", 20),  # a slow connect, a late body
    (0.5, 0.5, 0.875, 1.0, 500, "", 40),
    (0.5, 0.625, 0.0, 1.5, 0, "timed out", 0),
    (1.0, 1.125, 3.0, 3.5, 200, "", 80),  # a slow wait; it comes after the time limit of 2 s
]


def outcome(rows: list[tuple[Any, ...]] = ROWS, **changes: Any) -> Outcome:
    """What a client would have left that began at 1024 s on the clock."""
    found = Exchanges()
    found.grow()
    for i, (started, sent, first, answered, status, error, size) in enumerate(rows):
        found.started_s[i], found.answered_s[i] = BEGUN_S + started, BEGUN_S + answered
        found.sent_s[i] = BEGUN_S + sent if sent else 0.0
        found.first_byte_s[i] = BEGUN_S + first if first else 0.0
        found.status[i], found.error[i], found.body_bytes[i] = status, ERRORS.index(error), size
    found.finish(len(rows))
    left = Outcome(found, BEGUN_S, 1.25, 7, {"ListenOverflows": 3}, server_cpu_s=0.75, spun_s=0.5)
    return left._replace(**changes)


def short(*rows: tuple[float, float, int]) -> Outcome:
    """Of rows of (sent, answered, status); status 0: it was reset."""
    return outcome([(sent, 0.0, 0.0, end, status, "" if status else "reset", 2) for sent, end, status in rows])


def summary(load: Load, left: Outcome):
    return summarise(Plan("x", load=load), left)


def test_every_figure_of_a_closed_loop_is_as_computed_by_hand():
    run = summary(Closed(time_limit_s=2.0, concurrency=2), outcome(other_cpu_s=0.2))
    expected = {
        "sent": 5, "answered": 3, "failed": 2, "errors": {"HTTP 500": 1, "timed out": 1}, "due": None, "stopped": None,
        "measured_s": 3.5, "window_s": 2.0, "finished_after_limit": 1, "throughput_rps": 2 / 2.0, "lag_s": None,
        "created": 1, "slow_connects": 1, "slow_waits": 1, "late_bodies": 1,
        "body_bytes": 110, "mean_in_flight": (0.5 + 1.25 + 0.5 + 1.0 + 1.0) / 2.0, "sockets_opened": 7,
        "client_cpu_s": 1.25, "client_spun_s": 0.5, "server_cpu_s": 0.75, "other_cpu_s": 0.2,
        "kernel": {"ListenOverflows": 3}, "levels": [], "histogram": [(0.5, 1), (1, 0), (2, 1), (5, 1)],
        "latency_s": statistics_of([0.5, 1.25, 2.5]),
        "at_least_s": statistics_of([0.5, 1.25, 2.5, 2.5, 2.5]),
        "phases_s": {
            "connect": statistics_of([0.125, 1.0, 0.125]), "waiting": statistics_of([0.125, 0.1875, 1.875]),
            "processing": statistics_of([0.375, 0.25, 2.375]), "total": statistics_of([0.5, 1.25, 2.5]),
        },
        "per_second": [Second(0, 1, 0, 0.5), Second(1, 1, 2, 1.25), Second(2, 0, 0, 0.0), Second(3, 1, 0, 2.5)],
    }  # fmt: skip
    assert {name: getattr(run, name) for name in expected} == expected


def test_an_open_loop_counts_from_due():
    load = Open(time_limit_s=5.0, rate_rps=4.0)
    run = summary(load, outcome())
    assert run.latency_s == statistics_of([0.5, 1.25 - 0.25, 3.5 - 1.0])
    assert run.lag_s == statistics_of([0.0, -0.25, 0.0])
    assert (run.due, run.throughput_rps, run.finished_after_limit) == (20, 3 / 5.0, 0)
    assert run.per_second[1].mean_latency_s == 1.0
    run = summary(load, outcome(stopped="SIGINT"))
    assert (run.due, run.throughput_rps, run.stopped) == (5, 3 / 3.5, "SIGINT")
    run = summary(load, outcome(numbers=[0, 1, 2, 3, 8]))  # of several client processes
    assert run.latency_s == statistics_of([0.5, 1.25 - 0.25, 3.5 - 2.0])
    poisson = Open(5, math.inf, rate_rps=4.0, arrivals="poisson", schedule_s=(0.0, 0.125, 0.25, 0.375, 0.5))
    assert summary(poisson, outcome()).latency_s == statistics_of([0.5, 1.125, 3.0])


def test_every_stage_of_a_ramp_has_its_answers_and_its_failures():
    first, last = summary(Ramp(time_limit_s=3.0, stages=((1.0, 2), (2.0, 5))), outcome()).levels
    assert first == Level(2, 1, 0, 1.0, statistics_of([0.5]))
    assert last == Level(5, 2, 2, 0.5, statistics_of([1.25, 2.5]))  # the last answer came after it


def test_nothing_sent_is_a_summary_too():
    run = summary(Burst(), outcome([]))
    assert (run.sent, run.answered, run.throughput_rps, run.per_second) == (0, 0, 0.0, [])
    assert (run.latency_s, run.histogram, run.measured_s) == (None, [], 0.0)


@pytest.mark.parametrize(
    ("load", "rows", "throughput_rps"),
    [
        (Closed(4), [(i, i + 1, 200) for i in range(4)], 1.0),
        (Closed(4), [(i, i + 1, 500 if i == 3 else 200) for i in range(4)], 0.75),
        (Closed(time_limit_s=2.5), [(i, i + 1, 200) for i in range(3)], 2 / 2.5),  # the third came after the limit
        (Open(2, rate_rps=0.5), [(0, 0.1, 200), (2, 2.1, 200)], 0.5),  # not two answers in 2.1 s
        (Open(time_limit_s=4, rate_rps=0.5), [(0, 0.1, 200), (2, 2.1, 200)], 0.5),
        (Open(4, rate_rps=2.0), [(0, 9, 200)] * 3 + [(1.5, 10, 200)], 0.4),  # a queue that is served late
    ],
)
def test_throughput_counts_the_answers_in_its_window_by_the_length_of_the_window(load, rows, throughput_rps):
    assert summary(load, short(*rows)).throughput_rps == pytest.approx(throughput_rps)


def test_failed_requests_are_slower_than_any_answer_in_at_least():
    rows = [(0.0, 0.125, 200)] * 80 + [(0.0, 0.001, 0)] * 10 + [(0.0, 2.0, 0)] * 10  # 10 refused at once, 10 timed out
    run = summary(Burst(100), short(*rows))
    assert (run.latency_s.p95, run.latency_s.max) == (0.125, 0.125)
    assert (run.at_least_s.median, run.at_least_s.p95, run.at_least_s.max) == (0.125, 2.0, 2.0)
    assert summary(Burst(80), short(*rows[:80])).at_least_s is None


def test_rounds_of_a_second_on_kept_connections_are_no_slow_waits():
    rows = [(i, 0.0, 0.0, i + 1.0, 200, "", 2) for i in range(3)]
    run = summary(Closed(3), outcome(rows))
    assert (run.slow_connects, run.slow_waits, run.late_bodies) == (0, 0, 0)


def test_the_columns_of_a_run_have_times_since_it_began():
    handler_started_s = [BEGUN_S + 0.25, None, BEGUN_S + 0.75, None, BEGUN_S + 1.5]
    columns = columns_of(outcome(), ["w0", None, "w0", None, "w1"], handler_started_s, [0.5, 1.0])
    assert columns.started_s == [0.0, 0.0, 0.5, 0.5, 1.0] and columns.answered_s == [0.5, 1.25, 1.0, 1.5, 3.5]
    assert (columns.first_byte_s, columns.sent_s[3]) == ([0.25, 1.1875, 0.875, None, 3.0], 0.625)
    assert (columns.status, list(columns.body_bytes)) == ([200, 201, 500, None, 200], [10, 20, 40, 0, 80])
    assert columns.error == [None, None, None, "timed out", None]
    assert (columns.worker[4], columns.handler_started_s) == ("w1", [0.25, None, 0.75, None, 1.5])
    assert columns.predicted_answered_s == [0.5, 1.0, None, None, None]
    assert not columns_of(outcome(), (), (), ()).predicted_answered_s
    assert columns_of(outcome(), (), (), [0.5] * 9).predicted_answered_s == [0.5] * 5
