"""Ordinary loads, options and commands, of which the report said something false, or that ended in the wrong way."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import os
import pty
import signal
import subprocess
import sys
import threading
import time

import pytest
from commands import BENCH, command, run_bench
from samples import sample_columns, sample_facts, sample_measured, sample_plan, sample_run, sample_statistics
from servers import wait_until, write_files

import bench
from engine import band, listeners, live, plans, report, report_before, report_sizes, search, summary, tables, verdict
from engine.advice import Advice, Cure, advice_for
from engine.before import Before
from engine.launch import launch_command
from engine.listeners import Listener
from engine.live import LiveLog
from engine.loads import Burst, Closed, Open
from engine.options import parse
from engine.places import Limit, Resource
from engine.signals import signals
from engine.sizes import Asked, size
from engine.words import Problem

LOGS = "--logs", "logs"
SLOTS = Limit(Resource.SLOTS.value, 1.0, 40.0, 16.0, 0.4, line="app.py:5", waiting=24.0)
SLEEPS = """
import time
from flask import Flask

app = Flask(__name__)

@app.get("/")
def index():
    time.sleep({})
    return ""
"""
SOME_ARE_SLOW = """
import itertools, time
from flask import Flask

app, numbers = Flask(__name__), itertools.count()

@app.get("/")
def index():
    time.sleep(0.6 if next(numbers) % 10 == 9 else 0.04)
    return ""
"""


def plan_of(*words):
    (plan,) = plans.plans_of(parse([*words]))
    return plan


# ---------------------------------------------------------------- what is predicted


@pytest.mark.parametrize(
    "load, differs",
    [
        ("--slots 40 -c 20 -n 80", False),  # fewer than five for each user, and still what the closed form gives
        ("--slots 4 -c 50 -t 10", True),
        ("--slots 4 -c 50 -t 3000", False),
        ("--slots 4 -c 50 -n 100", True),
        ("--slots 4 --ramp 5s:20", True),
        ("--slots 40 -c 20 --think 5 -t 10", True),
    ],
)
def test_figures_are_said_to_differ_from_the_closed_form_where_they_do(load, differs):
    plan = plan_of(*load.split(), "--wait", "1")
    prediction = plans.prediction_for(plan)
    rps, mean_s = plan.load.once_under_way(plan.slots, 1.0)
    is_far = abs(prediction.mean_s / mean_s - 1) > 0.02 or abs(prediction.throughput_rps / rps - 1) > 0.02
    assert is_far == differs
    assert ("figures differ" in report_before.prediction_text(plan, prediction)) == differs


def test_users_that_pause_at_the_end_are_part_of_the_load():
    plan = plan_of("--slots", "40", "--wait", "0.1", "-c", "20", "--think", "5", "-t", "10")
    assert plans.prediction_for(plan).throughput_rps == pytest.approx(4.0)
    by_count = plan_of("--slots", "40", "--wait", "0.1", "-c", "20", "--think", "5", "-n", "40")
    assert plans.prediction_for(by_count).throughput_rps == pytest.approx(40 / 5.2)


def test_drawn_waits_are_said_to_be_drawn_and_approach_no_latency():
    plan = plan_of("--target", "fastapi-uvicorn", "--path", "/io", "--task-time", "200ms:exp", "-c", "20")
    prediction = plans.prediction_for(plan)
    assert (
        prediction.spread_s is None
        and plans.prediction_for(dataclasses.replace(plan, distribution="constant")).spread_s
    )
    burst = dataclasses.replace(plan, load=Burst(16))  # with a slot for each
    assert "t is a mean" in report_before.prediction_text(burst, plans.prediction_for(burst))
    drawn = dataclasses.replace(plan, load=Burst(100))
    assert "request k starts" not in report_before.prediction_text(drawn, plans.prediction_for(drawn))


def test_cpu_time_that_decides_is_in_what_users_approach():
    plan = plan_of(
        "--target", "fastapi-uvicorn", "--path", "/io", "--task-time", "50ms", "--cpu-time", "10ms", "-c", "40"
    )
    prediction = plans.prediction_for(dataclasses.replace(plan, cpus=1))
    assert prediction.spread_s == pytest.approx(prediction.mean_s, rel=0.1)


def test_more_users_than_requests_are_as_many_as_send():
    load = Closed(50, concurrency=100)
    assert load.spread_s(4, 0.1) == Closed(50, concurrency=50).spread_s(4, 0.1)
    plan = plan_of("--slots", "4", "--wait", "0.1", "-c", "100", "-n", "50")
    prediction = plans.prediction_for(plan)
    measured = sample_measured(latency_s=sample_statistics(p95=prediction.p95_s, mean=prediction.mean_s, min=0.1))
    facts = sample_facts(plan=plan, prediction=prediction, measured=measured)
    (p95,) = [
        one for one in band.compared(facts, prediction, band.band_of(facts, 0.002), False) if one.figure == "p95_s"
    ]
    assert p95.fits


# ---------------------------------------------------------------- what was measured


@pytest.mark.parametrize("grows, found", [(0.0, False), (0.01, True)])
def test_the_first_requests_of_the_users_are_no_drift(grows, found):
    first = [0.1 * (k // 4 + 1) for k in range(200)]
    then = [5.0 + grows * k for k in range(400)]
    plan = sample_plan(load=Closed(600, concurrency=200))
    assert bool(summary.in_their_order(plan, first + then, [0.0], False)["drift"]) == found


def test_a_burst_without_a_log_has_bars_that_do_not_say_work():
    columns = sample_columns()
    with_log = dataclasses.replace(columns, handler_started_s=[i // 4 + 0.0 for i in range(16)])
    assert "#" not in tables.batch_table(sample_run(exchanges=columns), None)
    assert "#" in tables.batch_table(sample_run(exchanges=with_log), None)


@pytest.mark.parametrize("late, is_over", [(10, False), (30, True)])
def test_what_is_under_way_at_the_end_in_any_case_is_no_overload(late, is_over):
    load = Open(50, 5.0, 0.0, 10.0)
    run = sample_run(load=load, sent=50, answered=50, window_s=5.0, finished_after_limit=late)
    assert ("In an overload" in report.checks(run)) == is_over


def test_littles_law_is_left_out_where_most_are_under_way_at_the_end():
    load = Open(10, 1.0, 0.0, 10.0)
    run = sample_run(load=load, sent=10, answered=10, window_s=1.0, finished_after_limit=10, wait_s=2.0)
    assert "Little" not in report.checks(run)


@pytest.mark.parametrize("arrivals", ["constant", "poisson"])
def test_sizes_for_random_moments_say_so_where_the_load_was_another(arrivals):
    load = Open(500, 10.0, 0.0, 50.0, arrivals)
    found = Advice(99, 0.15, 2.6, False, Cure.SLOTS, SLOTS, 8, size(Asked(50, 0.1, 0.15, 99)))
    text = report_sizes.advice_text(found, sample_run(load=load))
    assert ("evenly spaced" in text) == (arrivals == "constant")


def test_a_closed_loop_that_until_ends_is_compared_with_what_it_sent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, {"waits.py": SLEEPS.format(0.1)})
    how = ["--app", "waits:app", "--server", "gunicorn-threads", "--threads", "4", "-c", "40", "--until", "p50+-20%"]
    _, document = run_bench(tmp_path, *how, "-t", "60")
    (run,) = document["runs"]
    measured, prediction = run["measured"], run["prediction"]
    assert measured["until"]["reached"] and measured["measured_s"] < 30
    assert prediction["makespan_s"] == pytest.approx(measured["measured_s"], rel=0.3)
    assert run["verdict"]["explained_by"] != "sooner"


HANDLERS = sample_statistics(median=1.0)


def test_handlers_of_which_most_take_as_long_as_alone_do_not_take_longer():
    late = {"measured_s": 6.0, "handler_s": 16 * 1.6, "server_cpu_s": 0.04}
    found = {
        name: verdict.judge(sample_facts(**late, handlers=times), None, 0.002).explained_by
        for name, times in (("some", HANDLERS), ("most", sample_statistics(median=1.6)), ("not known", None))
    }
    assert found == {"some": "different-times", "most": "longer-handlers", "not known": "longer-handlers"}


def test_requests_of_which_some_take_longer_are_not_said_to_take_longer_under_the_load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, {"some.py": SOME_ARE_SLOW})
    how = ["--app", "some:app", "--server", "gunicorn-threads", "--threads", "4", "-n", "100"]
    (run,) = run_bench(tmp_path, *how)[1]["runs"]
    assert run["verdict"]["explained_by"] == "different-times"
    assert run["verdict"]["limits"][0]["resource"] == "none"  # whether they wait for each other is not known


@pytest.mark.parametrize("p95_s, cure", [(1.05, Cure.SLOTS), (1.9, Cure.UNKNOWN)])
def test_sizes_are_advised_where_requests_take_the_same_time(p95_s, cure):
    slots = Limit(Resource.SLOTS.value, 1.0, 4.0, 4, 1.0, waiting=9.0)
    late = {
        "latency_s": sample_statistics(p99=9.0),
        "load": Open(1000, rate_rps=5.0),
        "handlers": sample_statistics(median=1.0, p95=p95_s),
    }
    run = sample_run(**late, where=None, server_cpu_s=0.01, answered=1000, sent=1000)
    run = dataclasses.replace(run, verdict=dataclasses.replace(run.verdict, limits=(slots,)))
    assert advice_for(run, (2.0, 99)).cure is cure


# ---------------------------------------------------------------- a probe, and a search for a rate


def full_run(**changes):
    return sample_run(**({"load": Closed(concurrency=32), "throughput_rps": 300.0, "last_answer_s": 4.0} | changes))


@pytest.mark.parametrize(
    "changes, objective_s, why",
    [
        ({"slots": 16, "wait_s": 0.05}, 0.2, ""),
        ({"slots": 16, "wait_s": 0.05}, 0.04, "too-short"),
        ({"slots": None, "wait_s": 0.05}, 0.2, "no-slots"),
        ({"slots": math.inf, "wait_s": 0.05}, 0.2, "slots-for-all"),
        ({"slots": 16, "wait_s": 0.05, "answered": 0, "throughput_rps": 0.0, "last_answer_s": None}, 0.2, "not-seen"),
        ({"slots": 16, "wait_s": None}, 0.2, "not-seen"),
        ({"slots": 16, "wait_s": 0.05, "handlers": sample_statistics(median=0.05, p95=0.4)}, 0.2, "different"),
    ],
)
def test_why_no_rate_is_predicted(changes, objective_s, why):
    run = full_run(**changes)
    rate, found = search.predicted_rate(run, objective_s, 99)
    assert (found, rate is None) == (why, bool(why))
    text = report.first_rate_text(run, 300.0, 10.0, objective_s, 99, 10.0, found)
    assert ("None." in text) == bool(why)


def test_processes_with_queues_of_their_own_have_a_lower_rate_than_one_queue():
    one, four = (
        search.predicted_rate(
            full_run(slots=16, wait_s=0.05, workers=4, shared_queue=is_shared, throughput_rps=320.0), 0.1, 99
        )[0]
        for is_shared in (True, False)
    )
    assert four < 0.8 * one


def test_a_full_load_counts_what_is_answered_after_its_time():
    assert search.rate_of_all(full_run(answered=160, throughput_rps=26.7, last_answer_s=4.0)) == 40.0
    assert search.rate_of_all(full_run(answered=0, throughput_rps=0.0, last_answer_s=None)) == 0


@pytest.mark.parametrize("alone_s, requests", [(0.1, 10), (5.0, 4), (60.0, 2), (None, 10)])
def test_the_first_burst_of_a_probe_can_be_answered_in_time(alone_s, requests):
    assert search.first_burst(Before(lone_s=[alone_s] if alone_s else []), 30.0) == requests


def test_a_rate_is_not_searched_for_that_no_request_can_keep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, {"waits.py": SLEEPS.format(0.1)})
    found = command(*BENCH, "--app", "waits:app", "--find-rate", "--p99", "0.1", *LOGS)
    assert found.returncode == 2 and "by itself" in found.stderr and "Traceback" not in found.stderr


def test_a_search_may_open_as_many_files_as_are_allowed(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(bench, "check_file_limit", lambda *limits: asked.append(limits))
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, {"waits.py": SLEEPS.format(0.1)})
    bench.Bench(parse(["--app", "waits:app", "--find-rate", "--p99", "0.1"]), ["bench.py"])
    bench.Bench(parse(["--app", "waits:app", "-n", "20"]), ["bench.py"])
    assert [(most, bool(is_scheduled)) for most, is_scheduled in asked] == [(math.inf, True), (20, False)]


# ---------------------------------------------------------------- commands and options


def test_a_change_may_be_written_with_an_equals_sign_or_in_short():
    words = ["--target", "flask-gunicorn", "--try", "--workers=8", "--try", "-k", "--try", "-k --workers 2"]
    assert parse(words).tries == ["--workers=8", "-k", "-k --workers 2"]


@pytest.mark.parametrize(
    "words",
    [
        ["--app", "one:app", "--app=two:app"],
        ["http://127.0.0.1:1/a", "http://127.0.0.1:1/b"],
        ["--url", "http://127.0.0.1:1/", "--data", "@body.json"],
    ],
)
def test_what_would_go_unused_is_refused(words):
    with pytest.raises(Problem, match=r"only once|-p body.json"):
        parse(words)


def test_what_is_there_and_cannot_be_run_is_no_missing_program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, {"start.sh": "#!/bin/sh\nsleep 9\n"})
    for program, hint in (("./start.sh", r"chmod \+x"), ("./stop.sh", "there is no program")):
        with pytest.raises(Problem, match=hint):
            launch_command(parse(["--run", f"{program} {{port}}"]))


def test_an_app_that_does_not_load_behind_a_command_is_no_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, {"broken.py": "import time, no_such_package\n"})
    run = "gunicorn -b 127.0.0.1:{port} broken:app"
    found = command(*BENCH, "--run", run, "--json", "out.json", *LOGS, cwd=tmp_path)
    assert found.returncode == 3 and "no_such_package" in found.stderr
    assert "FAILED" not in found.stdout


def test_a_command_that_listens_elsewhere_is_said_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = command(*BENCH, "--run", "sleep 60 {port}", "--start-timeout", "1", *LOGS, cwd=tmp_path)
    assert found.returncode == 3 and "nothing accepts connections" in found.stderr and "0 workers" not in found.stderr


@pytest.mark.parametrize("connections, slots", [("", 98), (" --connection-limit=200", 120)])
def test_waitress_has_a_limit_of_connections_by_default(connections, slots):
    words = f"waitress-serve --listen=127.0.0.1:8000 --threads=120{connections} w:app".split()
    found = listeners.slots_by_command([Listener(7, 1, 121, tuple(words))])
    assert found and found.each == slots


def test_a_hang_up_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.handled():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) == signals.handle
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_standard_input_that_has_ended_or_cannot_be_read_is_waited_for(monkeypatch):
    ended, unreadable = (os.fdopen(os.open(os.devnull, how), "r") for how in (os.O_RDONLY, os.O_WRONLY))
    for stdin in (ended, unreadable, None):
        monkeypatch.setattr(sys, "stdin", stdin)
        live.has_line(0.05)  # sees the end
        began_s = time.perf_counter()
        assert not live.has_line(0.2)
        assert time.perf_counter() - began_s > 0.15


def test_the_terminal_of_another_job_is_not_read(monkeypatch):
    ours, theirs = pty.openpty()
    with os.fdopen(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        monkeypatch.setattr(os, "tcgetpgrp", lambda _: os.getpgrp() + 1)
        os.write(ours, b"a line\n")
        assert live.is_in_background() and not live.has_line(0.05)
    os.close(ours)


def test_a_live_log_goes_where_the_report_goes(tmp_path, capsys):
    path, out = tmp_path / "access.log", io.StringIO()
    path.write_bytes(b"")
    shown = LiveLog(path, out)
    path.write_text("[2026-11-20 17:04:15.123] [pid-7] starts GET /io #1\n")
    wait_until(lambda: shown.shown == 1)
    shown.stop()
    assert "/io" in out.getvalue() and not capsys.readouterr().out


def test_a_document_on_standard_output_is_one_on_a_terminal_too(tmp_path):
    ours, theirs = pty.openpty()
    words = ["--target", "flask-gunicorn", "--path", "/io", "--task-time", "50ms", "-n", "8", "--json", "-", *LOGS]
    with subprocess.Popen([*BENCH, *words], stdout=subprocess.PIPE, stderr=theirs, cwd=tmp_path) as ran:
        os.close(theirs)
        shown: list[bytes] = []

        def read():
            with contextlib.suppress(OSError):  # so Linux ends a terminal
                while part := os.read(ours, 4096):
                    shown.append(part)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            out, _ = ran.communicate(timeout=60)
        finally:
            ran.kill()
        reader.join(5)
        os.close(ours)
    assert json.loads(out)["runs"] and b"GET /io" in b"".join(shown)
