"""What the README promises, on real servers with short waits.

A busy machine makes every time longer, so that no time here has an upper bound but in ratios and figures of a CPU's
idle work: counts, order, batches and lower bounds are what is asserted.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import bench
from engine import estimate
from engine.access_log import wait_for_log
from engine.objectives import MOST_RUNS
from engine.signals import signals
from engine.targets import TARGETS
from tests.commands import BENCH, ROOT, command, run_bench
from tests.servers import alive, ask, wait_until, write_files
from tests.stubs import OK, keep_answering, reset, stub

GUNICORN = ("--target", "flask-gunicorn", "--path", "/io")
TIMES = ("started", "handler_started", "answered")
QUICK = ("--task-time", "0.2")
WAITRESS = ("--app", "main:app", "--server", "waitress")
MAIN = """
import time
def app(environ, start_response):
    time.sleep(0.05)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A user's folder, with an app and a module that has the name of one of ours."""
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, {"main.py": MAIN, "plans.py": "raise SystemExit('not this one')"})
    return tmp_path


# ---------------------------------------------------------------- our own servers


@pytest.mark.parametrize(
    ("target", "path"), [(name, route.path) for name, target in TARGETS.items() for route in target.routes]
)
def test_every_target_answers_all_logs_each_request_once_and_fits_or_says_why(tmp_path, capsys, target, path):
    code, document = run_bench(tmp_path, "--target", target, "--path", path, "-n", "13", *QUICK)
    (run,) = document["runs"]
    plan, measured, inside, columns = run["plan"], run["measured"], run["inside"], run["exchanges"]
    assert (code, measured["answered"], document["complete"]) == (0, 13, True)
    assert run["verdict"]["explained_by"] != "nothing" or run["verdict"]["warnings"]
    if "-hello-" in target:
        assert (inside["access_log"], inside["log_lines"]) == (None, None)
    else:
        log = wait_for_log(Path(inside["access_log"]), 0)
        assert sorted(int(line.request) for line in log.lines) == list(range(13))
        assert len(inside["requests_of_workers"]) == plan["workers"] == len(log.ready)
        assert plan["server_slots"] is None or inside["slots_seen"] <= plan["server_slots"]
        for begun_s, start_s, end_s in zip(*(columns[f"{name}_s"] for name in TIMES), strict=True):
            assert begun_s - 0.001 <= start_s <= end_s - 0.99 * (plan["wait_s"] or 0.0)
    assert measured["measured_s"] >= 0.99 * ((run["split_prediction"] or run["prediction"])["makespan_s"] or 0.0)
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line) <= 79 and "\033" not in out
    assert {"run.json", "report.txt"} < {path.name for path in Path(inside["server_log"]).parent.iterdir()}


@pytest.mark.parametrize(
    ("target", "path", "requests", "sizes"),
    [
        ("flask-gunicorn", "/io", 16, [4, 4, 4, 4]),
        ("fastapi-uvicorn", "/io", 100, [40, 40, 20]),
        ("fastapi-uvicorn", "/async-io", 200, [200]),
        ("flask-gunicorn-gevent", "/io", 100, [100]),
        ("fastapi-blocking", "/sleep", 3, [1, 1, 1]),
    ],
)
def test_the_access_log_is_shown_in_batches_of_the_slots(tmp_path, capsys, target, path, requests, sizes):
    arguments = ("--target", target, "--path", path, "-n", str(requests), "--task-time", "0.6")
    _, document = run_bench(tmp_path, *arguments)
    started_s = sorted(document["runs"][0]["exchanges"]["handler_started_s"])
    jumps = [i for i in range(1, requests) if started_s[i] - started_s[i - 1] > 0.3]
    assert [end - begin for begin, end in zip([0, *jumps], [*jumps, requests], strict=True)] == sizes
    log = capsys.readouterr().out.partition("access log")[2].partition("batches")[0]
    assert requests > 20 or [n for block in log.split("\n\n") if (n := block.count("[pid-worker"))] == sizes


@pytest.mark.parametrize(
    ("load", "sent"),
    [
        ("-c 8 -n 24 --warmup 8", 24),
        ("-c 4 -n 40 -k --processes 2", 40),
        ("--rate 40 -n 20 --arrivals poisson --seed 3", 20),
        ("--ramp 0.3s:4,0.3s:0", None),
    ],
)
def test_each_kind_of_load_is_predicted_measured_and_logged(tmp_path, load, sent):
    code, document = run_bench(tmp_path, *GUNICORN, *load.split(), "--task-time", "50ms", "--server-cpus", "0")
    (run,) = document["runs"]
    measured = run["measured"]
    assert code == 0 and measured["answered"] == run["inside"]["log_lines"] == (sent or measured["sent"])
    assert measured["throughput_rps"] < 1.05 * run["prediction"]["ceiling_rps"] == pytest.approx(84, rel=0.06)
    assert run["prediction"]["mean_s"] >= 0.05 <= measured["latency_s"]["min"] + 0.001


def test_several_targets_are_a_row_each(tmp_path, capsys):
    targets = ("--target", "fastapi-blocking", "--target", "fastapi-fixed")
    _, document = run_bench(tmp_path, *targets, "-n", "6", *QUICK)
    assert [run["inside"]["slots_seen"] for run in document["runs"]] == [1, 6]
    out = capsys.readouterr().out
    assert "access log" not in out and out.count("fastapi-blocking") == out.count("fastapi-fixed") == 1


# ---------------------------------------------------------------- your own service


def test_an_app_in_any_folder_is_predicted_from_its_server_and_lone_requests(folder):
    done = command(*BENCH, *WAITRESS, "-n", "12", "--json", "-", "--logs", "logs", "-q", cwd=folder)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert run["plan"]["wait_is_measured"] and run["plan"]["slots"] == 4
    assert run["prediction"]["makespan_s"] == pytest.approx(3 * run["plan"]["wait_s"])
    assert run["inside"]["access_log"].startswith("logs/") and run["inside"]["log_lines"] == 12


def test_a_url_is_measured_and_its_failures_set_the_exit_code(tmp_path):
    with stub(keep_answering, reset) as (host, port):
        line = f"--url http://{host}:{port}/x?y=1 -n 10 -c 1 --wait 1ms"
        code, document = run_bench(tmp_path, *line.split())
    (run,) = document["runs"]
    assert (code, run["measured"]["errors"], run["measured"]["answered"]) == (1, {"reset": 5}, 5)
    assert (run["plan"]["path"], run["inside"]) == ("/x?y=1", None)


@pytest.mark.parametrize(("condition", "code"), [("p99>10s", 0), ("answered<21", 1), ("p99>0.01ms", 1)])
def test_a_condition_that_is_met_is_exit_code_1_and_a_reason(tmp_path, capsys, condition, code):
    with stub(keep_answering) as (host, port):
        arguments = ("--url", f"http://{host}:{port}/", "-n", "20", "--fail-if", "failed>0", "--fail-if", condition)
        assert run_bench(tmp_path, *arguments)[0] == code
    err = capsys.readouterr().err
    assert err.count("\n") == code and (not code or condition in err)


def test_a_probe_finds_the_slots_of_a_server(folder, monkeypatch):
    monkeypatch.setattr(estimate, "taken_by_others", lambda _: 0.0)  # other tests run beside this one
    code, document = run_bench(folder, *WAITRESS, "--path", "/", "--probe", "-n", "300")
    found = document["runs"][-1]["verdict"]["estimate"]
    assert (code, found["slots"]) == (0, 4) and len(document["runs"]) > 1
    assert sum(run["measured"]["sent"] for run in document["runs"]) <= 300


def test_a_search_for_a_rate_is_a_few_runs_of_random_arrivals(folder):
    code, document = run_bench(folder, *WAITRESS, "--find-rate", "--p50", "0.2", "-t", "0.5")
    loads = [run["plan"]["load"]["arrivals"] for run in document["runs"]]
    assert code == 0 and 3 <= len(loads) <= MOST_RUNS and {*loads} == {"poisson"}
    assert len(list((folder / "logs").iterdir())) == 1


def test_a_search_in_which_nothing_succeeds_says_so_after_one_run(tmp_path, capsys):
    arguments = ("--find-rate", "--p50", "0.2", "-t", "0.5", "-m", "POST")
    code, document = run_bench(tmp_path, "--target", "fastapi-hello-uvicorn", *arguments)
    assert (code, len(document["runs"])) == (1, 1) and "no request succeeded" in capsys.readouterr().out


# ---------------------------------------------------------------- in the foreground, and on paper


@pytest.mark.parametrize("name", signals.NAMES)
def test_a_server_in_the_foreground_says_where_it_is_shows_its_log_and_goes(tmp_path, name):
    words = (*BENCH, *GUNICORN, "--serve", "--task-time", "0.01", "--logs", str(tmp_path))
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        port = int(re.match(r"http://127\.0\.0\.1:(\d+)/io ", process.stdout.readline())[1])
        workers = [int(re.search(r"\[pid-(\d+)\] ready", process.stdout.readline())[1]) for _ in range(4)]
        assert ask(port, "/io")[0] == 200
        assert "GET /io 200" in process.stdout.readline()
        process.send_signal(getattr(signal, name))
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, "")
    wait_until(lambda: not any(map(alive, workers)))


def test_enter_shows_where_the_requests_of_another_program_stand(tmp_path):
    words = (*BENCH, *GUNICORN, "--serve", "--task-time", "1", "--logs", str(tmp_path))
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        port = int(re.match(r"http://127\.0\.0\.1:(\d+)/io ", process.stdout.readline())[1])
        clients = [threading.Thread(target=ask, args=(port, "/io")) for _ in range(8)]
        for client in clients:
            client.start()
        process.stdin.write("\n")
        process.stdin.flush()
        while "flask_sync.py:" not in (line := process.stdout.readline()):
            assert line
        for client in clients:
            client.join()
    finally:
        process.kill()
        process.communicate()


def test_a_server_that_ends_by_itself_is_said_to(folder):
    (folder / "main.py").write_text(f"{MAIN}\nimport os, threading\nthreading.Timer(1, lambda: os._exit(4)).start()")
    done = command(*BENCH, *WAITRESS, "--serve", "--logs", "logs", cwd=folder)
    assert done.returncode == 1 and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        ("-n 100 --slots 40 --wait 1", ["100 / 40", "3 s"]),
        ("--split 41,44,11,4 --slots 40 --wait 1 --workers 4", ["2 s"]),
        ("-c 200 --slots 16 --wait 50ms", ["625 ms", "320"]),
        ("--rate 384 -t 10 --slots 16 --wait 0.05", ["12.04 s"]),
        ("--rate 256 --wait 50ms --p99 0.1", ["15", "gunicorn", "waitress", "uvicorn"]),
        ("", ["S slots", "--list", "Exit code"]),
        ("--help", ["--keep-alive", "--find-rate"]),
        ("--list", [*TARGETS, "gunicorn --bind 127.0.0.1:PORT --workers 4 --threads 4"]),
    ],
)
def test_what_needs_no_server_says_its_numbers(capsys, line, numbers):
    try:
        assert bench.main(line.split()) == 0
    except SystemExit as end:  # --help
        assert not end.code
    out, err = capsys.readouterr()
    assert [number for number in numbers if number not in out] == [] and not err
    assert max(map(len, out.splitlines())) <= 79


# ---------------------------------------------------------------- endings


@pytest.mark.parametrize(
    ("load", "name", "code"),
    [("-n 60", "SIGINT", 130), ("--rate 100 -t 60", "SIGHUP", 129), ("-c 4 -t 60 -k --processes 2", "SIGTERM", 143)],
)
def test_a_signal_ends_a_load_with_its_figures(load, name, code):
    answered, end = [], threading.Event()

    def answer_thirty(sock):
        while sock.recv(65536):
            if len(answered) >= 30:
                end.wait(60)
            answered.append(sock)
            sock.sendall(OK)

    with stub(answer_thirty) as (host, port):
        words = f"--url http://{host}:{port}/ --wait 20ms {load} --json -".split()
        process = subprocess.Popen([*BENCH, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            wait_until(lambda: len(answered) >= 30)
            process.send_signal(getattr(signal, name))
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
            end.set()
    document = json.loads(out)  # a pipe gets one document however the run ends
    (run,) = document["runs"]
    measured = run["measured"]
    assert (process.returncode, document["complete"], measured["stopped"]) == (code, False, name) and name in err
    assert measured["sent"] == measured["answered"] + measured["failed"] == len(run["exchanges"]["status"])
    assert measured["answered"] > 0 and measured["errors"].keys() <= {"interrupted"}
    assert measured["due"] in (None, measured["sent"])  # what was due after the signal was not


@pytest.mark.parametrize("flag", ["-O", "-OO"])
def test_it_runs_without_assertions_and_docstrings(flag):
    words = [sys.executable, flag, str(ROOT / "bench.py")]
    with stub(keep_answering) as (host, port):
        for more in (["--url", f"http://{host}:{port}/", "--data", "é"], []):
            done = command(*words, *more, env=os.environ | {"LC_ALL": "C"})
            assert (done.returncode, done.stderr) == (0, "")
