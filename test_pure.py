"""What does no I/O, figure by figure: a whole summary computed by hand, and each threshold from both of its sides.

The other tests look at what the figures are for; these notice when an operator or a constant in them changes.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

import bench
import explain
import load
import serve
import slots
from test_load import plain_run

BEGUN_S = 100.0

# ---------------------------------------------------------------- a summary by hand

ROWS = [  # started, sent, first byte, answered (seconds since the run began), status, error, body bytes
    (0.0, 0.1, 0.3, 0.5, 200, "", 10),
    (0.0, 1.0, 1.2, 1.25, 201, "", 20),  # a slow connect, a late body
    (0.5, 0.5, 0.9, 1.0, 500, "", 40),
    (0.5, 0.6, 0.0, 1.5, 0, "timed out", 0),
    (1.0, 1.1, 3.0, 3.5, 200, "", 80),  # a slow wait; it comes after the time limit
]


def measured(**changes: Any) -> load.Measured:
    exchanges, warm_up = load.Exchanges(), load.Exchanges()
    exchanges.grow()
    warm_up.grow()
    for i, (started, sent, first, answered, status, error, size) in enumerate(ROWS):
        exchanges.started_s[i], exchanges.sent_s[i] = BEGUN_S + started, BEGUN_S + sent
        exchanges.first_byte_s[i] = BEGUN_S + first if first else 0.0
        exchanges.answered_s[i] = BEGUN_S + answered
        exchanges.status[i], exchanges.error[i], exchanges.body_bytes[i] = status, load.ERRORS.index(error), size
    for i in range(3):
        warm_up.status[i] = 201 if i else 200
    exchanges.finish(len(ROWS))
    warm_up.finish(3)
    found = load.Measured(exchanges, BEGUN_S, 1.25, 7, {"ListenOverflows": 3}, warm_up, server_cpu_s=0.75, spun_s=0.5)
    return found._replace(**changes)


class statistics:
    """Equal to the statistics of these values."""

    def __init__(self, *values: float) -> None:
        mean = sum(values) / len(values)
        sd = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
        ordered = sorted(values)
        self.expected = {"min": ordered[0], "mean": mean, "sd": sd, "median": ordered[len(values) // 2],
                         "max": ordered[-1]}  # fmt: skip

    def __eq__(self, found: Any) -> bool:
        few = found["p90"] is found["p95"] is found["p99"] is None
        return few and all(found[name] == pytest.approx(value, abs=2e-6) for name, value in self.expected.items())


def test_every_figure_of_a_closed_loop_is_as_computed_by_hand():
    run = load.summarise(load.Traffic(pace=load.Pace(concurrency=2, time_limit_s=2.0)), measured())
    expected = {
        "sent": 5, "answered": 3, "failed": 2, "errors": {"HTTP 500": 1, "timed out": 1}, "due": None, "stopped": None,
        "measured_s": 3.5, "finished_after_limit": 1, "throughput_rps": 2 / 2.0,
        "latency_s": statistics(0.5, 1.25, 2.5), "lag_s": None,
        "histogram": [(0.5, 1), (1, 0), (2, 1), (5, 1)],
        "warmed_up": 3, "created": 1 + 2, "slow_connects": 1, "slow_waits": 1, "late_bodies": 1, "body_bytes": 110,
        "mean_in_flight": pytest.approx((0.5 + 1.25 + 0.5 + 1.0 + 1.0) / 2.0),
        "sockets_opened": 7, "client_cpu_s": 1.25, "client_spun_s": 0.5, "server_cpu_s": 0.75,
        "kernel": {"ListenOverflows": 3}, "levels": [],
        "phases_s": {
            "connect": statistics(0.1, 1.0, 0.1), "waiting": statistics(0.2, 0.2, 1.9),
            "processing": statistics(0.4, 0.25, 2.4), "total": statistics(0.5, 1.25, 2.5),
        },
        "per_second": [
            {"second": 0, "answered": 1, "failed": 0, "mean_latency_s": 0.5},
            {"second": 1, "answered": 1, "failed": 2, "mean_latency_s": 1.25},
            {"second": 2, "answered": 0, "failed": 0, "mean_latency_s": 0.0},
            {"second": 3, "answered": 1, "failed": 0, "mean_latency_s": 2.5},
        ],
    }  # fmt: skip
    assert {name: run[name] for name in expected} == expected  # type: ignore[literal-required]


def test_an_open_loop_counts_from_due():
    run = load.summarise(load.Traffic(pace=load.Pace(rate=4.0, time_limit_s=5.0)), measured())
    assert run["latency_s"] == statistics(0.5, 1.25 - 0.25, 3.5 - 1.0)
    assert run["lag_s"] == statistics(0.0, -0.25, 0.0)
    assert (run["due"], run["throughput_rps"], run["finished_after_limit"]) == (20, 3 / 5.0, 0)
    assert run["per_second"][1]["mean_latency_s"] == 1.0
    run = load.summarise(load.Traffic(pace=load.Pace(rate=4.0, time_limit_s=5.0)), measured(stopped="SIGINT"))
    assert (run["due"], run["throughput_rps"], run["stopped"]) == (5, 3 / 3.5, "SIGINT")


def test_every_stage_of_a_ramp_has_its_answers_and_its_failures():
    run = load.summarise(load.Traffic(pace=load.Pace(stages=((1.0, 2), (2.0, 5)), time_limit_s=3.0)), measured())
    first, last = run["levels"]
    assert (first["users"], first["answered"], first["failed"], first["throughput_rps"]) == (2, 1, 0, 1.0)
    assert (last["users"], last["answered"], last["failed"], last["throughput_rps"]) == (5, 2, 2, 0.5)
    assert last["latency_s"] and (last["latency_s"]["min"], last["latency_s"]["max"]) == (1.25, 2.5)


def test_nothing_sent_is_a_summary_too():
    nothing = load.Exchanges()
    run = load.summarise(load.Traffic(), measured(exchanges=nothing))
    assert (run["sent"], run["answered"], run["throughput_rps"], run["per_second"]) == (0, 0, 0.0, [])
    assert (run["latency_s"], run["histogram"], run["measured_s"]) == (None, [], 0.0)


# ---------------------------------------------------------------- the thresholds of the audit


@pytest.mark.parametrize(
    ("identifier", "at", "beyond"),
    [
        ("never-left", {"due": 1000}, {"due": 1001}),
        ("backlog-overflow", {"kernel": {"ListenOverflows": 1}}, {"kernel": {"ListenOverflows": 1}, "slow_waits": 1}),
        ("backlog-overflow", {"slow_waits": 1}, {"slow_connects": 1}),
        ("client-limit", {"client_cpu_s": 8.0}, {"client_cpu_s": 8.1}),
        ("client-limit", {"client_cpu_s": 8.5, "client_spun_s": 0.6}, {"client_cpu_s": 8.5, "client_spun_s": 0.4}),
        ("client-limit", {"client_cpu_s": 16.0, "processes": 2}, {"client_cpu_s": 16.2, "processes": 2}),
        ("client-limit", {"client_cpu_s": 0.49, "measured_s": 0.5}, {"client_cpu_s": 0.5, "measured_s": 0.51}),
        ("no-keep-alive", {"keep_alive": True, "sockets_opened": 12}, {"keep_alive": True, "sockets_opened": 13}),
        ("delayed-ack", {"late_bodies": 100}, {"late_bodies": 101}),
        ("little", {"mean_in_flight": 9.0}, {"mean_in_flight": 8.9}),
        ("little", {"mean_in_flight": 5.0, "sent": 100}, {"mean_in_flight": 5.0, "sent": 101}),
    ],
)
def test_a_warning_begins_where_it_says(identifier, at, beyond):
    warned_at, warned_beyond = ([w["id"] for w in load.audit(plain_run(**changes))] for changes in (at, beyond))
    assert identifier not in warned_at
    assert identifier in warned_beyond


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 1000),
        ({"keep_alive": True}, 10),
        ({"keep_alive": True, "sent": 4}, 4),
        ({"keep_alive": True, "mode": "ramp", "stages": [(1, 5), (1, 9), (1, 2)]}, 9),
        ({"keep_alive": True, "mode": "open"}, None),
        ({"mode": "open"}, 1000),
    ],
)
def test_the_sockets_that_a_run_should_need(changes, expected):
    assert load.sockets_expected(plain_run(**changes)) == expected


# ---------------------------------------------------------------- pacing


@pytest.mark.parametrize(
    ("pace", "mode", "most_under_way"),
    [
        (load.Pace(16), "burst", 16),
        (load.Pace(16, 4), "closed", 4),
        (load.Pace(3, 4), "closed", 3),
        (load.Pace(rate=5.0), "open", math.inf),
        (load.Pace(stages=((1.0, 5), (1.0, 2))), "ramp", 5),
    ],
)
def test_a_pace_names_itself_and_the_most_it_has_under_way(pace, mode, most_under_way):
    assert (pace.mode, pace.most_under_way) == (mode, most_under_way)


@pytest.mark.parametrize(
    ("pace", "elapsed_s", "limits", "next_s"),
    [
        (load.Pace(16), 0.0, (16, math.inf), math.inf),
        (load.Pace(16, 4, time_limit_s=2.0), 1.0, (16, 4), 2.0),
        (load.Pace(rate=4.0), 0.0, (1, math.inf), 0.25),
        (load.Pace(rate=4.0), 0.6, (3, math.inf), 0.75),
        (load.Pace(rate=4.0, time_limit_s=0.7), 0.6, (3, math.inf), 0.7),
        (load.Pace(2, rate=4.0), 0.6, (2, math.inf), math.inf),
        (load.Pace(rate=4.0, schedule=(0.1, 0.5, 0.9), requests=3), 0.5, (2, math.inf), 0.9),
        (load.Pace(stages=((2.0, 10), (2.0, 4))), 0.0, (math.inf, 0), 0.02),
        (load.Pace(stages=((2.0, 10), (2.0, 4))), 1.0, (math.inf, 5), 1.02),
        (load.Pace(stages=((2.0, 10), (2.0, 4))), 2.0, (math.inf, 10), 2.02),
        (load.Pace(stages=((2.0, 10), (2.0, 4))), 3.0, (math.inf, 7), 3.02),
        (load.Pace(stages=((2.0, 10), (2.0, 4)), time_limit_s=3.5), 3.49, (math.inf, 6), 3.5),
        (load.Pace(stages=((2.0, 10), (2.0, 4))), 9.0, (math.inf, 4), 9.02),
        (load.Pace(7, 5, share=(1, 2)), 0.0, (3, 2), math.inf),
    ],
)
def test_what_a_pace_allows_and_when_it_changes(pace, elapsed_s, limits, next_s):
    assert pace.limits(elapsed_s) == limits
    assert pace.next_change_s(elapsed_s) == pytest.approx(next_s)


def test_when_a_request_is_due_and_how_many_are():
    assert [load.Pace(rate=4.0, share=(1, 3)).due_s(i) for i in range(3)] == [0.25, 1.0, 1.75]
    assert load.Pace(rate=4.0, schedule=(0.1, 0.5, 0.9), share=(1, 2)).due_s(0) == 0.5
    assert load.Pace(rate=4.0, schedule=(0.1, 0.5, 0.9), time_limit_s=0.9).due_in_all == 2
    assert load.Pace(rate=3.0, time_limit_s=1.1).due_in_all == 4
    assert load.Pace(rate=10.0, time_limit_s=0.3).due_in_all == 3


# ---------------------------------------------------------------- statistics and URLs


def test_statistics_of_an_even_number_of_values():
    found = load.statistics_of([4.0, 1.0, 3.0, 2.0])
    assert found and (found["median"], found["mean"], found["p90"]) == (2.5, 2.5, None)
    assert found["sd"] == pytest.approx(1.290994)
    alone = load.statistics_of([7.0])
    assert alone and (alone["sd"], alone["median"], alone["min"], alone["max"]) == (0.0, 7.0, 7.0, 7.0)
    ten = load.statistics_of([float(i) for i in range(1, 11)])
    assert ten and (ten["p90"], ten["p95"]) == (9.0, None)


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
    assert load.histogram(latencies_s) == bars


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://a", ("a", 80, "/")),
        ("http://a:81", ("a", 81, "/")),
        ("http://a/x?y=1", ("a", 80, "/x?y=1")),
        ("http://[::1]:8/", ("::1", 8, "/")),
        ("http://a/x?", ("a", 80, "/x")),
    ],
)
def test_the_parts_of_a_url(url, parts):
    assert load.split_url(url) == parts


@pytest.mark.parametrize(
    ("kind", "least", "most", "fit", "unfit"),
    [(int, 1, 3, ["1", "3"], ["0", "4", "1.5", "x"]), (float, 0.5, 2, ["0.5", "2"], ["0.49", "2.01", "nan", "inf"])],
)
def test_a_number_has_bounds_that_belong_to_it(kind, least, most, fit, unfit):
    for module in (load, slots):
        convert = module.number(kind, least, most)
        assert [convert(text) for text in fit] == [kind(text) for text in fit]
        for text in unfit:
            with pytest.raises(Exception, match="is not a"):
                convert(text)


@pytest.mark.parametrize(("text", "fits"), [("86400s:100000", True), ("86401s:1", False), ("1s:100001", False)])
def test_the_bounds_of_a_stage(text, fits):
    if fits:
        assert load.stages(text) == ((86400.0, 100000),)
    else:
        with pytest.raises(Exception, match="a stage takes up to"):
            load.stages(text)
    assert slots.stages("1s:100000") == ((1.0, 100000),)
    with pytest.raises(Exception, match="is not like"):
        slots.stages("1s:100001")


@pytest.mark.parametrize(("processes", "next_step"), [(1, "add --processes 2"), (2, "use more CPUs")])
def test_who_has_cpus_left_is_told_to_use_them(monkeypatch, processes, next_step):
    monkeypatch.setattr(load.os, "cpu_count", lambda: 2)
    (warned,) = load.audit(plain_run(client_cpu_s=18.0, processes=processes))
    assert warned["id"] == "client-limit" and next_step in warned["next"]


def test_the_percentile_of_few_values_is_one_of_them():
    assert slots.nearest_rank([1.0, 2.0], 50) == 1.0 and load.nearest_rank([1.0, 2.0], 50) == 1.0
    assert slots.nearest_rank([1.0], 50) is None and load.nearest_rank([1.0], 50) is None


# ---------------------------------------------------------------- options and plans


def plan_of(*arguments: str) -> explain.Plan:
    (plan,) = bench.make_plans(bench.parse_arguments(list(arguments)))
    return plan


URL = ("--url", "http://127.0.0.1/")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (URL, {"requests": 16, "concurrency": math.inf, "time_limit_s": math.inf, "rate": None}),
        ((*URL, "-n", "5"), {"requests": 5, "time_limit_s": math.inf}),
        ((*URL, "-c", "5"), {"requests": math.inf, "concurrency": 5, "time_limit_s": 10.0}),
        ((*URL, "-c", "5", "-n", "7"), {"requests": 7, "concurrency": 5, "time_limit_s": math.inf}),
        ((*URL, "-c", "5", "-n", "7", "-t", "3"), {"requests": 7, "time_limit_s": 3.0}),
        ((*URL, "--rate", "5"), {"rate": 5.0, "time_limit_s": 10.0, "schedule": ()}),
        ((*URL, "--ramp", "2s:3,3s:5"), {"stages": ((2.0, 3), (3.0, 5)), "time_limit_s": 5.0}),
        ((*URL, "--ramp", "2s:3", "-t", "1"), {"time_limit_s": 1.0}),
        ((*URL, "-c", "5", "--think", "0.5"), {"think_s": 0.5}),
        ((*URL, "--rate", "5", "-n", "3", "--arrivals", "poisson", "--seed", "7"), {"requests": 3, "seed": 7}),
        ((*URL, "--rate", "5", "-n", "3", "--arrivals", "constant"), {"requests": 3, "seed": None, "schedule": ()}),
    ],
)
def test_the_pace_that_options_ask_for(arguments, expected):
    pace = plan_of(*arguments).traffic.pace
    assert {name: getattr(pace, name) for name in expected} == expected


def test_what_options_leave_out():
    traffic = plan_of(*URL).traffic
    assert (traffic.host, traffic.port, traffic.path, traffic.method) == ("127.0.0.1", 80, "/", "GET")
    assert (traffic.timeout_s, traffic.keep_alive, traffic.body) == (load.TIMEOUT_S, False, b"")
    assert plan_of(*URL, "--data", "x").traffic.method == "POST"
    assert load.Traffic() == load.Traffic("127.0.0.1", 80, "GET", "/", (), b"", load.BURST, False, 40.0)


@pytest.mark.parametrize(
    ("arguments", "timeout_s"),
    [
        (("--target", "flask-gunicorn", "--path", "/io"), 10 + 2 * 16 * 1.0),
        (("--target", "flask-gunicorn", "--path", "/io", "-n", "15"), load.TIMEOUT_S),
        (("--target", "flask-gunicorn", "--path", "/io", "-n", "16"), 42.0),
        (("--target", "fastapi-uvicorn", "--path", "/io", "-n", "1000"), 10 + 2 * 25 * 1.0),
        (("--target", "flask-gunicorn", "--path", "/io", "-s", "3"), 3.0),
    ],
)
def test_a_request_may_take_twice_as_long_as_one_worker_alone_would(arguments, timeout_s):
    assert plan_of(*arguments).traffic.timeout_s == timeout_s


@pytest.mark.parametrize(
    ("target", "path", "wait_s"),
    [
        ("flask-gunicorn", "/io", 0.6),
        ("flask-gunicorn", "/async-io-multi", 0.2),
        ("flask-hello-gunicorn", "/", 0.0),
        ("flask-books", "/v1/sleep?ms=70", 0.07),
        ("flask-books", "/v1/sleep", 0.05),
        ("flask-books", "/v1/books/1", None),
    ],
)
def test_what_a_request_waits_on_each_route(target, path, wait_s):
    plan = plan_of("--target", target, "--path", path, "--task-time", "0.6", "--subtasks", "3")
    assert plan.wait_s == (None if wait_s is None else pytest.approx(wait_s))


def test_the_command_line_has_what_was_asked_for_and_else_the_targets_own():
    launch = plan_of("--target", "flask-gunicorn-threads", "--path", "/io", "--workers", "2").launch
    assert launch and dict(launch.settings) == {"workers": 2, "threads": 4}
    assert dict(launch.env)["TASK_TIME"] == "1.0" and dict(launch.env)["SUBTASKS"] == "2"
    assert (launch.pool, launch.wrap) == (0, True)
    launch = plan_of("--target", "flask-hello-waitress", "--threads", "3").launch
    assert launch and (dict(launch.settings), launch.wrap) == ({"threads": 3}, False)
    launch = plan_of("--target", "flask-hello-waitress", "--access-log").launch
    assert launch and (dict(launch.settings), launch.wrap) == ({"threads": 4}, True)
    launch = plan_of("--target", "fastapi-books", "--path", "/v1/sleep", "--pool-size", "3").launch
    assert launch and (launch.pool, launch.workers) == (3, 4)
    launch = plan_of("--target", "fastapi-books", "--path", "/v1/sleep").launch
    assert launch and launch.pool == 15
    launch = serve.Launch("x", "uvicorn", "x:app")
    assert (launch.workers, launch.threads, launch.connections, launch.pool, launch.wrap) == (1, 1, 1000, 0, True)
    assert launch.is_target


@pytest.mark.parametrize(("text", "seconds"), [("1", 1.0), ("50ms", 0.05), ("2s", 2.0), (".5", 0.5), ("1ms", 0.001),
                                               ("3600", 3600.0)])  # fmt: skip
def test_a_task_time_is_read(text, seconds):
    assert serve.task_time(text) == seconds


@pytest.mark.parametrize("text", ["0", "0.0009", "3601", "-1", "1m", "x", "1:uniform", ""])
def test_a_task_time_that_is_none_is_refused(text):
    with pytest.raises(Exception, match="is not a time"):
        serve.task_time(text)


def test_cpus_are_read_as_a_set():
    assert serve.cpu_set("0,3,3") == {0, 3}


def test_a_wait_that_a_number_can_be_drawn_for_keeps_its_mean():
    assert slots.rounds(0, 4) == 0 and slots.rounds(9, 4) == 3 and slots.burst_s(9, 4, 0.5) == 1.5


# ---------------------------------------------------------------- before a run: the prediction of a plan

GUNICORN = ("--target", "flask-gunicorn", "--path", "/io")


@pytest.mark.parametrize(
    ("arguments", "predicted_s", "ceiling_rps", "slots_found"),
    [
        ((*GUNICORN,), 4.0, 4.0, 4),
        ((*GUNICORN, "-n", "17"), 5.0, 4.0, 4),
        ((*GUNICORN, "-n", "3"), 1.0, 3.0, 4),
        ((*GUNICORN, "-n", "10", "-c", "2"), 5.0, 2.0, 4),
        ((*GUNICORN, "-n", "10", "-c", "9"), 3.0, 4.0, 4),
        ((*GUNICORN, "--rate", "3"), None, 4.0, 4),
        ((*GUNICORN, "--task-time", "0.5", "--cpu-time", "0.5"), 4.0, 4.0, 4),
        (("--target", "fastapi-uvicorn", "--path", "/async-io"), 1.0, 16.0, None),
        (("--target", "flask-hello-gunicorn"), None, None, 4),
        ((*URL, "--task-time", "1"), None, None, None),
    ],
)
def test_the_prediction_of_a_plan(monkeypatch, arguments, predicted_s, ceiling_rps, slots_found):
    plan = plan_of(*arguments)
    if plan.cpu_time_s:
        plan = explain.dataclasses.replace(plan, cpus=4)
    described = explain.describe(plan)
    assert (described["predicted_s"], described["ceiling_rps"]) == (predicted_s, ceiling_rps)
    assert described["slots"] == slots_found
    if predicted_s and described["mode"] == "burst" and described["prediction"]:
        assert described["prediction"]["makespan_s"] == pytest.approx(predicted_s)


@pytest.mark.parametrize(
    ("each", "changes", "held_s"),
    [
        (1, {}, 1.0),
        (1, {"cpu_time_s": 0.5, "cpus": 4}, 1.5),
        (4, {"cpu_time_s": 0.5, "cpus": 2}, 4 * 4 * 0.5 / 2),  # no faster than the CPUs allow
        (4, {"cpu_time_s": 0.5, "cpus": 9}, 4 * 4 * 0.5 / 4),  # a process computes on one at a time
        (1, {"cpu_time_s": 0.5, "cpus": 1}, 4 * 0.5),
    ],
)
def test_a_request_holds_its_slot_for_its_wait_and_its_share_of_the_cpus(each, changes, held_s):
    plan = explain.dataclasses.replace(plan_of(*GUNICORN), **changes)
    assert explain.held_for(plan, each, 1.0) == held_s


def test_a_forecast_is_the_plans_own():
    forecast = explain.forecast_of(plan_of(*GUNICORN, "-n", "6"))
    assert forecast and list(forecast.answered_s) == [1.0] * 4 + [2.0] * 2
    forecast = explain.forecast_of(plan_of(*GUNICORN, "-n", "6", "-c", "2"))
    assert forecast and sorted(forecast.answered_s) == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
    forecast = explain.forecast_of(plan_of(*GUNICORN, "-n", "6", "--rate", "2", "--workers", "1"))
    assert forecast and list(forecast.answered_s) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert list(forecast.arrived_s) == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert explain.forecast_of(plan_of(*URL)) is None
    threads = plan_of(
        "--target", "flask-gunicorn-threads", "--path", "/io", "--workers", "2", "--threads", "1", "-n", "4"
    )
    split = explain.forecast_of(threads, [0, 0, 0, 1])
    assert split and list(split.answered_s) == [1.0, 2.0, 3.0, 1.0]
    waitress = plan_of("--target", "flask-waitress", "--path", "/io", "-k", "-c", "200")
    assert explain.served_connections(waitress) == 100
    assert explain.served_connections(plan_of("--target", "flask-waitress", "--path", "/io", "-c", "200")) == math.inf


def test_the_figures_of_a_forecast():
    forecast = slots.predict([0.0] * 200, slots.Service((10.0,)), 1.0)
    found = slots.expected(forecast, math.inf)
    assert (found["median_s"], found["p95_s"], found["p99_s"], found["makespan_s"]) == (10.5, 19.0, 20.0, 20.0)
    assert (found["mean_s"], found["throughput_rps"]) == (10.5, 10.0)
    assert slots.expected(forecast, 5.0)["throughput_rps"] == 10.0


# ---------------------------------------------------------------- after a run: the log, the batches, the limits


def log_of(*lines: tuple[int, int, float, float]) -> serve.AccessLog:
    """(request, pid, start, duration) of each."""
    return serve.AccessLog(
        [serve.LogLine("s", pid, "GET", "/io", "200", took_s, str(number), start_s)
         for number, pid, start_s, took_s in lines], sorted({pid for _, pid, _, _ in lines})
    )  # fmt: skip


def test_what_the_log_tells_of_a_run():
    plan = plan_of("--target", "flask-gunicorn-threads", "--path", "/io", "--workers", "2", "--threads", "1", "-n", "4")
    log = log_of((0, 7, 0.0, 1.0), (3, 8, 0.0, 1.0), (1, 7, 1.0, 1.0), (2, 7, 2.0, 1.5))
    found, process_of = explain.summarise_log(plan, explain.describe(plan), log, [0.0] * 4)
    assert process_of == [0, 0, 0, 1]
    assert found["requests_of_workers"] == {"worker0": 3, "worker1": 1}
    assert (found["log_lines"], found["slots_seen"], found["handler_s"]) == (4, 1, 4.5)
    assert found["split_predicted_s"] == 3.0
    log = log_of((0, 7, 0.0, 1.0), (2, 8, 0.0, 1.0))  # two failed before a worker took them
    found, process_of = explain.summarise_log(plan, explain.describe(plan), log, [0.0] * 4)
    assert (process_of, found["split_predicted_s"], found["requests_of_workers"]) == (
        [0, 1, 1], 2.0, {"worker0": 1, "worker1": 1},
    )  # fmt: skip
    assert found["split_prediction"] == explain.describe(plan)["prediction"]
    assert explain.predicted_answers(plan, [1, 1]) == [1.0, 2.0, 1.0, 3.0]  # the others in turn
    many = plan_of(
        *("--target", "flask-gunicorn-threads", "--path", "/io"), "--workers", "2", "--threads", "1", "-n", "40"
    )
    for logged, last_s in ((38, 39.0), (37, 20.0)):
        log = log_of(*((i, 7, float(i), 1.0) for i in range(logged)))
        assert explain.summarise_log(many, explain.describe(many), log, [0.0] * 40)[0]["split_predicted_s"] == last_s
    assert explain.summarise_log(plan, explain.describe(plan), log_of(), [])[1] == []
    found, process_of = explain.summarise_log(plan, explain.describe(plan), None, [])
    assert (found["log_lines"], found["slots_seen"], process_of) == (None, None, [])


@pytest.mark.parametrize(
    ("starts", "held"),
    [
        ([0.0, 0.0, 1.0, 1.0, 2.0, 2.0], 2),
        ([0.0, 1.0, 2.0, 3.0], 1),
        ([0.0, 0.0, 0.0], None),  # nobody waited
        ([0.0, 0.0, 1.0, 1.0], None),  # too few
    ],
)
def test_the_slots_that_those_who_waited_found_taken(starts, held):
    lines = log_of(*((i, 1, start, 1.0) for i, start in enumerate(starts))).lines
    assert explain.slots_held(lines, [0.0] * len(starts)) == held


def finding(**changes: Any) -> Any:
    """A burst of 16 on four sync workers, answered in four rounds of a second."""
    plan = plan_of(*GUNICORN)
    exchanges, log = load.Exchanges(), log_of(*((i, i % 4, i // 4 * 1.0, 1.0) for i in range(16)))
    for i in range(16):
        row = (0.0, 0.0, i // 4 + 1.0, i // 4 + 1.0, 2, 200, 0)
        for column, value in zip(load.Exchanges.COLUMNS, row, strict=True):
            getattr(exchanges, column).append(value)
    sent = load.Measured(exchanges, 0.0, 0.1, 16, {}, load.Exchanges(), server_cpu_s=0.4)
    described = explain.describe(plan)
    from_log, process_of = explain.summarise_log(plan, described, log, [0.0] * 16)
    nothing = dict.fromkeys(("server_log", "server_said", "explained_by", "band", "lone_s", "other_cpu_s", "estimate"))
    columns = explain.columns_of(sent, log, explain.predicted_answers(plan, process_of))
    return {**described, **load.summarise(plan.traffic, sent), **from_log, **nothing, "server_ended": False,
            "exchanges": columns, "cpus": 2, "all_cpus": 2, "client_on_server_cpus": False} | changes  # fmt: skip


def test_the_batches_of_a_burst():
    found = explain.batches(finding())
    assert [(batch.requests, batch.started_s, batch.answered_s, batch.predicted_s) for batch in found] == [
        (list(range(4 * i, 4 * i + 4)), float(i), i + 1.0, i + 1.0) for i in range(4)
    ]
    columns = finding()["exchanges"]
    assert columns["worker"] == [f"worker{i % 4}" for i in range(16)]
    assert columns["handler_started_s"] == [float(i // 4) for i in range(16)]
    assert columns["predicted_answered_s"] == [i // 4 + 1.0 for i in range(16)]


def test_the_band_that_a_prediction_is_read_with():
    band = explain.band_of(finding(lone_s=1.01, latency_s=finding()["latency_s"] | {"min": 1.02}), 0.001)
    assert band and band["overhead_s"] == 0.01
    assert (band["cpu_s"], band["cpus"]) == (pytest.approx((0.4 / 2 + 0.1) / 16, abs=1e-6), 2)
    assert band["makespan_s"] == pytest.approx(0.001 + 4 * 0.01 + 0.3)
    assert band["latency_s"] == pytest.approx(0.001 + 2.5 * 0.01 + 4 * 0.3 / 16)
    uneven = explain.band_of(finding(requests_of_workers={"worker0": 10, "worker1": 6}, workers=2), 0.001)
    assert uneven and (uneven["cpus"], uneven["cpu_s"]) == (1.6, pytest.approx((0.4 / 1.6 + 0.1) / 16, abs=1e-6))
    one = explain.band_of(finding(requests_of_workers={"worker0": 16, "worker1": 0}), 0.001)
    assert one and one["cpus"] == 1
    unlogged = explain.band_of(finding(requests_of_workers={}), 0.001)
    assert unlogged and unlogged["cpus"] == 2
    assert explain.band_of(finding(wait_s=None), 0.001) is None
    assert explain.band_of(finding(answered=0), 0.001) is None


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({}, "slots"),
        ({"slow_connects": 3}, "backlog"),
        ({"slow_waits": 3, "kernel": {"ListenOverflows": 3}}, "backlog"),
        ({"slow_waits": 3, "kernel": {"ListenOverflows": 1}}, "slots"),  # of somebody else, and rounds of a second
        ({"slow_waits": 3}, "slots"),
        ({"server_cpu_s": 7.0}, "cpu"),
        ({"client_cpu_s": 3.5}, "client"),
        ({"slots": None, "wait_s": None}, "none"),
    ],
)
def test_what_limited_a_run(changes, first):
    assert explain.limits_of(finding(**changes))[0]["resource"] == first


def test_the_figures_of_the_limits():
    found = {limit["resource"]: limit for limit in explain.limits_of(finding())}
    assert (found["slots"]["busy"], found["slots"]["ceiling_rps"]) == (1.0, 4.0)
    assert (found["cpu"]["busy"], found["cpu"]["ceiling_rps"]) == (0.05, 80.0)
    assert (found["client"]["busy"], found["client"]["ceiling_rps"]) == (0.025, 160.0)
    assert explain.cpu_busy(finding(server_cpu_s=2.0, workers=1)) == 0.5
    assert explain.taken_by_others(finding(other_cpu_s=2.0)) == 0.25
    assert explain.taken_by_others(finding(other_cpu_s=None)) == 0.0


@pytest.mark.parametrize(
    ("database", "identifiers"),
    [
        ({"rows": 10_000, "statements": 16, "connections": 0}, []),
        ({"rows": 10_001, "statements": 16, "connections": 0}, ["rows"]),
        ({"rows": 10_000, "statements": 17, "connections": 0}, ["statements"]),
        ({"rows": 10_000, "statements": 17, "connections": 1}, []),  # who is still there has not reported all
        ({"rows": 10_000, "statements": None, "connections": 0}, []),
        ({"error": "gone"}, []),
    ],
)
def test_the_database_is_counted_against_the_requests(database, identifiers):
    assert [warned["id"] for warned in explain.audit_books(finding(database=database))] == identifiers
    assert explain.audit_books(finding(database={**database, "rows": 1}, failed=1)) == []


BAND = {"overhead_s": 0.01, "timer_s": 0.002, "cpu_s": 0.005, "cpus": 2, "makespan_s": 0.3, "latency_s": 0.1}
PREDICTED = {"throughput_rps": 10.0, "mean_s": 0.4, "median_s": 0.4, "p95_s": 0.5, "p99_s": 0.6, "makespan_s": 4.0,
             "spread_s": 0.45}  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "with_cpu", "expected"),
    [
        ("burst", False, [("last answer", 4 - 0.2 - 0.002, 4 + 0.2 + 0.3 - 0.005 * 16)]),
        ("burst", True, [("last answer", 4 - 0.2 - 0.002, 4 + 0.2 + 0.3)]),
        ("closed", True, [("mean", 0.378, 0.4 + 0.02 + 0.1), ("requests/s", 9.5 * 0.4 / 0.5, 10.5),
                          ("p95", 0.45 * 0.95 - 0.1, 0.5 * 1.1 + 0.1)]),
        ("closed", False, [("mean", 0.378, 0.4 + 0.02 + 0.08), ("requests/s", 9.5 * 0.4 / 0.48, 10.5),
                           ("p95", 0.45 * 0.95 - 0.08, 0.5 * 1.1 + 0.08)]),
        ("ramp", True, [("mean", 0.378, 0.52), ("requests/s", 9.5 * 0.4 / 0.5, 10.5)]),
        ("open", True, [("mean", 0.378, 0.52), ("p99", 0.6 - 0.03 - 0.002, 0.6 + 0.03 + 0.1 + 0.06)]),
    ],
)  # fmt: skip
def test_the_room_that_a_prediction_has(mode, with_cpu, expected):
    latency = finding()["latency_s"] | {"p95": 0.5, "p99": 0.6}
    run = finding(mode=mode, latency_s=latency)
    found = explain.compared(run, PREDICTED, BAND, with_cpu)  # type: ignore[arg-type]
    assert [(f.name, pytest.approx(f.least), pytest.approx(f.most)) for f in found] == expected
    assert found[0].measured == (4.0 if mode == "burst" else run["latency_s"]["mean"])


def shows(slots: int, **changes: Any) -> Any:
    """A certain estimate, but for the changes."""
    return {"slots": slots, "low": slots, "high": slots, "processes": 1, "each": None, "kind": "slots",
            "evidence": [], "suspects": []} | changes  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "explained"),
    [
        ({}, "prediction"),
        ({"failed": 1}, None),
        ({"stopped": "SIGINT"}, None),
        ({"server_ended": True}, None),
        ({"prediction": None}, None),
        ({"slots_held": 3}, "other-slots"),
        ({"slots_held": None}, "prediction"),
        ({"measured_s": 4.47}, "cpu"),
        ({"measured_s": 3.0}, "nothing"),
        ({"measured_s": 5.0, "split_prediction": PREDICTED | {"makespan_s": 5.0}}, "split"),
        ({"measured_s": 5.5, "split_prediction": PREDICTED | {"makespan_s": 5.0}}, "split"),  # with its CPU time
        ({"measured_s": 6.0, "server_cpu_s": 10.0}, "cpu"),
        ({"measured_s": 6.0, "other_cpu_s": 5.0}, "busy-machine"),
        ({"measured_s": 6.0, "slow_connects": 1}, "backlog-overflow"),
        ({"measured_s": 6.0, "lone_s": 1.2}, "longer-wait"),
        ({"measured_s": 6.0, "lone_s": 1.11}, "nothing"),
        ({"measured_s": 6.0, "estimate": shows(3)}, "other-slots"),
        ({"measured_s": 6.0, "estimate": shows(3), "other_cpu_s": 5.0}, "busy-machine"),
        ({"measured_s": 6.0, "estimate": shows(4)}, "nothing"),  # as many as predicted with
        ({"measured_s": 6.0, "estimate": shows(3, high=None)}, "nothing"),  # or more
        ({"measured_s": 6.0, "estimate": shows(3, low=2), "workers": 1}, "other-slots"),  # whichever of the two
        ({"measured_s": 6.0, "estimate": shows(3, low=2)}, "nothing"),  # or processes with uneven shares
        ({"measured_s": 6.0, "estimate": shows(3, low=2, high=4), "workers": 1}, "nothing"),
        ({"measured_s": 6.0, "estimate": shows(6, low=5, high=7), "workers": 1}, "other-slots"),
        ({"measured_s": 4.0, "estimate": shows(3)}, "prediction"),
    ],
)
def test_what_explains_a_run(changes, explained):
    run = finding(band=BAND | {"makespan_s": 0.3}, split_prediction=None) | changes
    assert explain.explained_by(run) == explained


@pytest.mark.parametrize(
    ("changes", "verdict", "symptom"),
    [
        ({}, "a limit inside the handler, of 3", "while a worker had up to 8 requests in its handlers"),
        ({"slots_seen": 3}, "its slots are 3", "the answers came 3 at a time; predicted with 8"),
        ({"slots_seen": None}, "its slots are 3", "the answers came 3 at a time; predicted with 8"),
        ({"estimate": shows(12), "workers": 2}, "its slots are 12", "the answers came 12 at a time; predicted with 8"),
        (
            {"estimate": shows(12, each=6, processes=2), "workers": 2},
            "a limit inside the handler, of 12, 6 in each of 2 processes",
            "12 at a time, 6 in each of 2 processes, while a worker had up to 8 requests in its handlers",
        ),
    ],
)
def test_answers_that_contradict_the_settings_say_so(changes, verdict, symptom):
    run = finding(band=BAND, split_prediction=None, estimate=shows(3), slots_held=None, slots_seen=8, slots=8,
                  slots_per_worker=8, server_slots=8, workers=1, measured_s=6.0)  # fmt: skip
    run |= changes
    explain.judge(run)
    assert run["explained_by"] == "other-slots" and verdict in explain.render_verdict(run)
    assert [symptom in warned["symptom"] for warned in run["warnings"] if warned["id"] == "other-slots"] == [True]
    slots_row = next(limit for limit in run["limits"] if limit["resource"] == "slots")
    assert slots_row["ceiling_rps"] == run["estimate"]["slots"] and "as the answers show" in slots_row["evidence"]
    assert slots_row["busy"] == round(min(1.0, 16 / (run["estimate"]["slots"] * 6)), 3)


def test_where_nothing_was_known_the_answers_slots_are_the_limit():
    unknown = {"slots_known": False, "slots": None, "slots_per_worker": None, "prediction": None}
    run = finding(**unknown, estimate=shows(4), slots_seen=16, workers=1, server_slots=None, slots_held=None)
    explain.judge(run)
    assert run["limits"][0]["resource"] == "slots" and run["limits"][0]["ceiling_rps"] == 4.0
    run["estimate"] = shows(4, high=None)
    explain.judge(run)
    assert run["limits"][0]["resource"] == "none"


@pytest.mark.parametrize(
    ("changes", "slots_found", "kind"),
    [
        ({}, 4, "slots"),
        ({"mode": "open"}, None, None),
        ({"stopped": "SIGINT"}, None, None),
        ({"sent": 0}, None, None),
        ({"sent": explain.MOST_ESTIMATED + 1}, None, None),
    ],
)
def test_slots_are_estimated_of_bursts_and_users(changes, slots_found, kind):
    exchanges = load.Exchanges()
    for i in range(16):
        row = (50.0, 50.0, 51.0 + i // 4, 51.0 + i // 4, 2, 200, 0)
        for column, value in zip(load.Exchanges.COLUMNS, row, strict=True):
            getattr(exchanges, column).append(value)
    found = explain.estimate_of(finding(**changes), exchanges, 50.0, [1.0, 1.0], frozenset(), (3, 11))
    assert (found and (found["slots"], found["kind"])) == (kind and (slots_found, kind))


def test_a_drawn_wait_is_the_forecasts_wait_and_costs_no_overhead():
    plan = plan_of(*GUNICORN, "-n", "4", "--task-time", "1:exp", "--cpu-time", "0.25")
    plan = explain.dataclasses.replace(plan, cpus=4)
    forecast = explain.forecast_of(plan)
    waits_s = [slots.drawn_wait_s(1.0, "exp", i) + 0.25 for i in range(4)]
    assert forecast and list(forecast.answered_s) == pytest.approx(waits_s)
    band = explain.band_of(finding(distribution="exp", lone_s=1.5), 0.001)
    assert band and band["overhead_s"] == 0.0


def test_batches_of_a_server_that_is_not_known_are_told_by_its_fastest_answer():
    found = explain.batches(finding(wait_s=None, predicted_s=None))
    assert [len(batch.requests) for batch in found] == [4, 4, 4, 4]
    assert all(math.isnan(batch.predicted_s) for batch in found)
    columns = finding()["exchanges"] | {"error": ["reset"] * 15 + [None], "answered_s": [1.0] * 15 + [4.0]}
    assert [batch.requests for batch in explain.batches(finding(exchanges=columns))] == [[15]]


def test_the_slots_are_as_busy_as_the_handlers_say_or_as_the_waits_come_to():
    def busy(**changes: Any) -> tuple[str, float]:
        found = explain.limits_of(finding(**changes))
        return next((limit["resource"], limit["busy"]) for limit in found if limit["resource"] in ("slots", "pool"))

    assert busy(handler_s=8.0) == ("slots", 0.5)
    assert busy(handler_s=None) == ("slots", 1.0)
    assert busy(handler_s=8.0, pool=1) == ("slots", 0.5)  # its one thread is as few
    assert busy(handler_s=8.0, pool=1, threads=4) == ("pool", 1.0)


def waits_at_most(x_s: float, rate: float, wait_s: float) -> float:
    """P(W <= x) in M/D/1, by Erlang's formula of 1909: an alternating sum, exact for small x."""
    terms = []
    for k in range(int(x_s / wait_s) + 1):
        a = rate * (x_s - k * wait_s)
        terms.append((-a) ** k / math.factorial(k) * math.exp(a))
    return (1 - rate * wait_s) * math.fsum(terms)


@pytest.mark.parametrize(("rate", "wait_s"), [(0.5, 1.0), (4.0, 0.2), (18.0, 0.05)])
def test_one_slot_and_random_arrivals_are_as_erlang_computed_them(rate, wait_s):
    queue, load_of_slot = slots.RandomArrivals(rate, wait_s, 1), rate * wait_s
    for times in (0.0, 0.3, 0.99, 1.0, 1.7, 2.5, 4.2):
        assert queue.wait_cdf(times * wait_s) == pytest.approx(waits_at_most(times * wait_s, rate, wait_s), abs=1e-9)
    assert queue.mean_wait_s == pytest.approx(load_of_slot * wait_s / (2 * (1 - load_of_slot)))
    for per_cent in (50, 95):
        found_s = queue.wait_quantile_s(per_cent)
        assert found_s == 0.0 or queue.wait_cdf(found_s) == pytest.approx(per_cent / 100)
    assert queue.wait_quantile_s(100 * (1 - load_of_slot) * 0.99) == 0.0


@pytest.mark.parametrize("size", [1, 9, 10, 26, 255, 4096])
def test_a_chunks_size_is_hexadecimal(size):
    parser = load.ResponseParser()
    body = b"%x;note=1\r\n%b\r\n0\r\nX-Trailer: 1\r\n\r\n" % (size, b"x" * size)
    assert parser.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    assert (parser.status, parser.body_bytes, parser.keep_alive) == (200, size, True)


@pytest.mark.parametrize(("much", "too_large"), [(load.MAX_HEAD_BYTES, False), (load.MAX_HEAD_BYTES + 1, True)])
def test_heads_and_trailers_have_room_up_to_their_limit(much, too_large):
    start = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: "
    head = start + b"x" * (much - len(start) - 4) + b"\r\n\r\n"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    trailer = b"X: " + b"x" * (much - 3) + b"\r\n\r\n"
    for pieces in ([head[:9], head[9:]], [chunked, trailer]):
        parser = load.ResponseParser()
        if too_large:
            with pytest.raises(load.HTTPError):
                [parser.feed(piece) for piece in pieces]
        else:
            assert [parser.feed(piece) for piece in pieces] == [False, True]


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, None),
        ({"slots_held": 4}, None),
        ({"slots_held": 3}, 3),
        ({"slots_held": 5}, 5),
        ({"slots_held": None, "slots_seen": 4}, None),
        ({"slots_held": None, "slots_seen": 5}, 5),  # more than there can be
        ({"slots_held": None, "slots_seen": 3}, 3),  # fewer, with more to do
        ({"slots_held": None, "slots_seen": 3, "mode": "closed"}, None),
        ({"slots_held": None, "slots_seen": 3, "requests_of_workers": {"worker0": 3}}, None),
        ({"slots_held": None, "slots_seen": 3, "requests_of_workers": {"worker0": 4}}, 3),
        ({"slots_held": None, "slots_seen": 3, "server_cpu_s": 1.99}, 3),  # the fourth could begin
        ({"slots_held": None, "slots_seen": 3, "server_cpu_s": 2.01}, None),
        ({"slots_held": None, "slots_seen": 3, "server_cpu_s": None}, None),
        ({"slots_held": None, "slots_seen": 0}, None),
        # no limit on who enters: what is stated, or a pool, is behind it
        ({"slots_held": 40, "slots_seen": 40, "server_slots": 40, "slots_per_worker": 15}, None),
        ({"slots_held": None, "slots_seen": 40, "server_slots": 40, "slots_per_worker": 15}, None),
        ({"slots_held": None, "slots_seen": 10, "server_slots": 40, "slots_per_worker": 15}, 10),
        ({"slots_held": 40, "slots_seen": 40, "server_slots": None, "slots_per_worker": 15}, None),
        ({"slots_held": 14, "server_slots": None, "slots_per_worker": 15}, 14),
        ({"slots_held": None, "slots_seen": 40, "server_slots": None, "slots_per_worker": 15}, None),
        ({"slots_held": None, "slots_seen": 14, "server_slots": None, "slots_per_worker": 15}, 14),
        ({"slots_held": 40, "server_slots": None, "slots_per_worker": None}, 40),
        ({"slots_held": 4, "server_slots": None, "slots_per_worker": 8, "requests_of_workers": {"a": 8, "b": 8}}, None),
    ],
)
def test_the_log_shows_whether_the_slots_are_others(changes, shown):
    base = {"slots_held": None, "slots_seen": 4, "server_slots": 4, "slots_per_worker": 4, "wait_s": 1.0,
            "server_cpu_s": 0.1, "requests_of_workers": {"worker0": 16}, "answered": 16}  # fmt: skip
    found = explain.slots_of_log(finding(**base | changes))
    assert (found and found[0]) == shown


@pytest.mark.parametrize(
    ("lone_s", "held_s"),
    [
        ([0.0516, 0.052], 0.0513),  # the middle of 51 ms, wait and CPU, and of the shortest
        ([0.0510001], 0.051),
        ([0.05], 0.0),  # less than it computes and waits: nothing is learnt
        ([0.066], 0.0585),
        ([0.067], 0.0),  # another wait
        ([], 0.0),
    ],
)
def test_at_a_fixed_rate_a_slot_is_held_for_longer_than_the_wait(lone_s, held_s):
    plan = dataclasses.replace(plan_of(*GUNICORN), wait_s=0.05, cpu_time_s=0.001)
    found = explain.with_overhead(plan, lone_s)
    assert found == dataclasses.replace(plan, held_s=pytest.approx(held_s, abs=1e-6))
    assert explain.with_overhead(dataclasses.replace(plan, distribution="exp"), lone_s).held_s == 0.0
    assert explain.with_overhead(dataclasses.replace(plan, wait_s=None), lone_s).wait_s is None
    assert explain.held_for(found, 1, 0.05) == pytest.approx(max(0.051, held_s), abs=1e-6)


def test_the_time_that_a_slot_is_held_is_in_the_prediction_and_said():
    plan = plan_of("--target", "flask-waitress", "--path", "/io", "--task-time", "0.05", "--rate", "96", "-n", "960")
    as_it_is = explain.describe(plan)
    held = explain.describe(dataclasses.replace(plan, held_s=0.051))
    assert (as_it_is["held_s"], held["held_s"]) == (None, 0.051)
    last = [run["prediction"]["p99_s"] for run in (as_it_is, held)]
    assert last == [pytest.approx(0.05 + 949 * (0.05 / 4 - 1 / 96), abs=0.06),
                    pytest.approx(0.051 + 949 * (0.051 / 4 - 1 / 96), abs=0.06)]  # fmt: skip
    assert "a request takes 52 ms: it holds its slot for 50 ms to that, 51 ms taken" in " ".join(
        explain.render_prediction(held).split()
    )
    assert "alone, not counted" in explain.render_prediction(held) and "alone  " not in explain.render_prediction(
        as_it_is
    )


def test_nothing_is_suspected_where_other_programs_had_the_cpus():
    found: Any = {"slots": 4, "low": 4, "high": 4, "kind": "slots", "each": None, "processes": 1, "evidence": []}
    run = finding(lone_s=1.0, server="waitress", handler="def")
    named = explain.with_suspects(found, run, frozenset({"waitress"}), (3, 11))["suspects"]
    assert [suspect["setting"] for suspect in named] == ["--threads"]
    busy = finding(lone_s=1.0, server="waitress", handler="def", other_cpu_s=0.31 * 2 * 4)
    assert explain.with_suspects(found, busy, frozenset({"waitress"}), (3, 11))["suspects"] == []
