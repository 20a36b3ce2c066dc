"""Every figure of a run, computed by hand from a few raw times."""

from __future__ import annotations

import math
from typing import Any

import pytest

from engine.client import ERRORS, Exchanges, Outcome
from engine.json_form import to_json
from engine.loads import Burst, Closed, Load, Open, Ramp
from engine.run import Level, Measured, Plan, Second
from engine.stats import statistics_of
from engine.summary import columns_of, summarise

BEGUN_S = 1024.0  # with times that are sums of powers of two, every figure is exact
NEVER = -BEGUN_S
ROWS = [  # started, sent, first byte, answered (seconds since the run began), body bytes, status, error
    (0.0, 0.125, 0.25, 0.5, 10, 200, ""),
    (0.0, 1.0, 1.1875, 1.25, 20, 201, ""),  # a slow connect, a late body
    (0.5, 0.5, 0.875, 1.0, 40, 500, ""),
    (0.5, 0.625, NEVER, 1.5, 0, 0, "timed out"),
    (1.0, 1.125, 3.0, 3.5, 80, 200, ""),  # a slow wait; it comes after the time limit of 2 s
]


def outcome(rows: list[tuple[Any, ...]] = ROWS, **changes: Any) -> Outcome:
    """What a client would have left that began at 1024 s on the clock."""
    found = Exchanges()
    found.grow()
    for i, (*row, error) in enumerate(rows):
        for column, value in zip(vars(found).values(), [*row, ERRORS.index(error), 0.0], strict=True):
            column[i] = value + BEGUN_S if column.typecode == "d" and column is not found.connected_s else value
    found.finish(len(rows))
    left = Outcome(
        found, BEGUN_S, 1.25, 7, {"ListenOverflows": 3}, server_cpu_s=0.75, spun_s=0.5, sockets_resent=2, stalled_s=0.25
    )
    return left._replace(**changes)


def summary(load: Load, left: Outcome) -> Measured:
    return summarise(Plan("x", load=load), left)


def short(*rows: tuple[float, float, int]) -> Outcome:
    """Of rows of (sent, answered, status); status 0: it was reset."""
    return outcome([(sent, NEVER, NEVER, end, 2, status, "" if status else "reset") for sent, end, status in rows])


def test_every_figure_of_a_closed_loop_is_as_computed_by_hand():
    run = summary(Closed(time_limit_s=2.0, concurrency=2), outcome(other_cpu_s=0.2, counted_s=7.0))
    assert run == Measured(
        sent=5, answered=3, failed=2, errors={"HTTP 500": 1, "timed out": 1}, due=None, stopped=None, measured_s=3.5,
        window_s=2.0, finished_after_limit=1, throughput_rps=2 / 2.0, lag_s=None, created=1, redirected=0, unended=0,
        never_answered=0, slow_connects=1, late_bodies=0, sockets_resent=2, client_stalled_s=0.25, last_answer_s=3.5,
        body_bytes=110, mean_in_flight=(0.5 + 1.25 + 0.5 + 1.0 + 1.0) / 2.0,
        sockets_opened=7, client_cpu_s=1.25, client_spun_s=0.5, server_cpu_s=0.75, other_cpu_s=0.1,
        kernel={"ListenOverflows": 3}, levels=[], kinds=[], histogram=[(0.5, 1), (1, 0), (2, 1), (5, 1)],
        latency_s=statistics_of([0.5, 1.25, 2.5]), at_least_s=statistics_of([0.5, 1.25, 2.5, 2.5, 2.5]),
        phases_s={
            "connect": statistics_of([0.125, 1.0, 0.125]), "tls": None,
            "waiting": statistics_of([0.125, 0.1875, 1.875]),
            "processing": statistics_of([0.375, 0.25, 2.375]),
            "receiving": statistics_of([0.25, 0.0625, 0.5]), "total": statistics_of([0.5, 1.25, 2.5]),
        },
        per_second=[Second(0, 1, 0, 0.5), Second(1, 1, 2, 1.25), Second(2, 0, 0, 0.0), Second(3, 1, 0, 2.5)],
    )  # fmt: skip


CONSTANT = Open(time_limit_s=5.0, rate_rps=4.0)
POISSON = Open(5, math.inf, rate_rps=4.0, arrivals="poisson", schedule_s=(0.0, 0.125, 0.25, 0.375, 0.5))


@pytest.mark.parametrize(
    ("load", "changes", "latencies_s", "due", "throughput_rps"),
    [
        (CONSTANT, {}, [0.5, 1.25 - 0.25, 3.5 - 1.0], 20, 3 / 5.0),
        (CONSTANT, {"stopped": "SIGINT"}, [0.5, 1.0, 2.5], 5, 3 / 3.5),
        # Of several client processes, the fifth row is not the fifth request.
        (CONSTANT, {"numbers": [0, 1, 2, 3, 8]}, [0.5, 1.0, 3.5 - 2.0], 20, 3 / 5.0),
        (POISSON, {}, [0.5, 1.125, 3.0], 5, 3 / 3.5),
    ],
)
def test_an_open_loop_counts_from_due(load, changes, latencies_s, due, throughput_rps):
    run = summary(load, outcome(**changes))
    assert (run.latency_s, run.due, run.throughput_rps) == (statistics_of(latencies_s), due, throughput_rps)
    assert (run.stopped, run.finished_after_limit) == (changes.get("stopped"), 0)
    assert run.per_second[1].mean_latency_s == latencies_s[1]
    assert run.lag_s == statistics_of([*map(float.__sub__, latencies_s, [0.5, 1.25, 2.5])])


def test_every_stage_of_a_ramp_has_its_answers_and_its_failures():
    assert summary(Ramp(time_limit_s=3.0, stages=((1.0, 2), (2.0, 5))), outcome()).levels == [
        Level(2, 1, 0, 1.0, statistics_of([0.5])),
        Level(5, 2, 2, 0.5, statistics_of([1.25, 2.5])),  # the last answer came after it
    ]


@pytest.mark.parametrize(
    ("load", "ends_s", "throughput_rps"),
    [
        (Closed(4), [1, 2, 3, 4], 1.0),
        (Closed(4), [1, 2, 3, -4], 0.75),
        (Closed(time_limit_s=2.5), [1, 2, 3], 2 / 2.5),  # the third came after the limit
        (Open(2, rate_rps=0.5), [0.1, 2.1], 0.5),  # not two answers in 2.1 s
        (Open(time_limit_s=4, rate_rps=0.5), [0.1, 2.1], 0.5),
        (Open(4, rate_rps=2.0), [9, 9, 9, 10], 0.4),  # a queue that is served late
        (Burst(), [], 0.0),  # nothing sent is a summary too
    ],
)
def test_throughput_counts_the_answers_in_its_window_by_the_length_of_the_window(load, ends_s, throughput_rps):
    """Below 0: a failure."""
    run = summary(load, short(*((0.0, abs(end_s), 200 if end_s > 0 else 500) for end_s in ends_s)))
    assert run.throughput_rps == pytest.approx(throughput_rps) and bool(run.per_second) == bool(ends_s)
    assert run.slow_connects == run.late_bodies == 0  # on kept connections there are none


def test_failed_requests_are_slower_than_any_answer_in_at_least():
    rows = [(0.0, 0.125, 200)] * 80 + [(0.0, 0.001, 0)] * 10 + [(0.0, 2.0, 0)] * 10  # 10 refused at once, 10 timed out
    run = summary(Burst(100), short(*rows))
    assert run.latency_s == statistics_of([0.125] * 80)
    assert run.at_least_s == statistics_of([0.125] * 90 + [2.0] * 10)
    assert summary(Burst(80), short(*rows[:80])).at_least_s is None


def test_an_answer_without_an_address_is_no_redirect():
    assert summary(Burst(5), short(*((0.0, 1.0, status) for status in (304, 300, 302, 308, 200)))).redirected == 2


def test_the_columns_of_a_run_have_times_since_it_began():
    workers, handler_started_s = ["w0", None, "w0", None, "w1"], [BEGUN_S + 0.25, None, None, None, BEGUN_S + 1.5]
    columns = to_json(columns_of(outcome(), workers, handler_started_s, [0.5, 1.0]))
    assert list(zip(*columns.values(), strict=True)) == [
        (0.0, 0.125, 0.25, 0.5, 200, None, 10, "w0", 0.25, 0.5),
        (0.0, 1.0, 1.1875, 1.25, 201, None, 20, None, None, 1.0),
        (0.5, 0.5, 0.875, 1.0, 500, None, 40, "w0", None, None),
        (0.5, 0.625, None, 1.5, None, "timed out", 0, None, None, None),
        (1.0, 1.125, 3.0, 3.5, 200, None, 80, "w1", 1.5, None),
    ]
    assert not columns_of(outcome(), (), (), ()).predicted_answered_s
    assert columns_of(outcome(), (), (), [0.5] * 9).predicted_answered_s == [0.5] * 5


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 2),  # one was given up after the time-out, one as the run was interrupted
        ({"sent": NEVER}, 0),  # on a connection that had got answers, or was never accepted
        ({"first": 0.5}, 0),  # its answer had begun
        ({"end": 1.4}, 0),  # the slowest answer of the others took nearly as long
        ({"error": "reset"}, 0),  # the server gave it up
    ],
)
def test_connections_without_any_answer_are_those_that_waited_far_longer_than_others(changes, count):
    of = {"sent": 0.125, "first": NEVER, "end": 3.0} | changes
    errors = [changes.get("error", name) for name in ("timed out", "interrupted")]
    unanswered = [(0.0, of["sent"], of["first"], of["end"], 0, 0, error) for error in errors]
    answered = [(0.0, 0.125, 0.25, 0.5, 10, 200, "")] * 5
    assert summary(Closed(concurrency=3), outcome([*answered, *unanswered])).never_answered == count


@pytest.mark.parametrize("order, drifts", [(lambda k: k % 7, False), (lambda k: k // 60, True)])
def test_only_what_grows_in_the_order_of_the_schedule_is_a_drift(order, drifts):
    """The same latencies, mixed or one after the other: sorted they would always grow."""
    latencies_s = [0.125 * (1 + order(k)) for k in range(420)]
    left = outcome([(k / 8, k / 8, NEVER, k / 8 + latency_s, 2, 200, "") for k, latency_s in enumerate(latencies_s)])
    run = summary(Open(420, rate_rps=8.0), left)
    assert run.latency_s == statistics_of(latencies_s) and bool(run.drift) == drifts
