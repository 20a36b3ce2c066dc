"""One run: every target on its real server, what the report says of it, the README, and the plan of the house.

Times are never asserted tighter than a busy machine can hold: counts, order, batches and ratios are.
"""

from __future__ import annotations

import ast
import doctest
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bench
import explain
import load
import serve
import sweep
from test_load import keep_answering, reset, stub
from test_serve import QUICK, log_line, run_bench

HERE = Path(__file__).parent


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(bench).failed == 0


# ---------------------------------------------------------------- the plan of the house

SCRIPTS = ("slots", "serve", "load", "bench")


def imported_by(path: Path) -> set[str]:
    """The top-level names of the modules that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize(
    ("script", "ours"),
    [
        ("slots", set()),
        ("load", {"load_processes"}),  # in a function: only where --processes asks for it
        ("load_processes", {"load"}),
        ("serve", {"slots"}),
        ("limits", set()),
        ("explain", {"slots", "limits", "serve", "load"}),
        ("objectives", {"slots"}),
        ("bench", {"slots", "limits", "objectives", "serve", "load", "explain"}),
    ],
)
def test_no_import_runs_upwards_and_the_scripts_need_only_python(script, ours):
    imported = imported_by(HERE / f"{script}.py")
    assert imported - set(sys.stdlib_module_names) == ours


def test_load_needs_no_other_file_until_it_is_asked_for_several_processes():
    code = "import load, sys; sys.exit('load_processes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=HERE).returncode == 0


def test_the_suites_import_nothing_above_them():
    above = {"sweep"} | {path.stem for path in HERE.glob("test_*.py")}
    for path in (HERE / "suites").glob("*.py"):
        assert not imported_by(path) & above


def test_slots_can_neither_read_a_clock_nor_open_anything():
    allowed = {"__future__", "argparse", "bisect", "collections", "dataclasses", "functools", "heapq", "itertools",
               "math", "random", "re", "statistics", "sys", "textwrap", "typing"}  # fmt: skip
    assert imported_by(HERE / "slots.py") <= allowed
    calls = {node.func.id for node in ast.walk(ast.parse((HERE / "slots.py").read_text()))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip
    assert not calls & {"open", "exec", "eval", "__import__", "input"}


def test_no_script_imports_an_app():
    apps = {path.stem for path in (HERE / "apps").glob("*.py")}
    for path in [*HERE.glob("*.py"), *(HERE / "suites").glob("*.py")]:
        if not path.name.startswith("test_"):
            assert not imported_by(path) & apps


@pytest.mark.parametrize("script", ["load.py", "slots.py"])
def test_a_script_alone_in_an_empty_folder_works(tmp_path, script):
    (tmp_path / script).write_bytes((HERE / script).read_bytes())
    arguments = ["-n", "100", "--slots", "40", "--wait", "1"]
    with stub(keep_answering) as (host, port):
        if script == "load.py":
            arguments = [f"http://{host}:{port}/", "-n", "50", "-c", "5", "-k"]
        command = [sys.executable, "-I", script, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"load.py": "50 sent = 50 answered + 0 failed", "slots.py": "ceil(100 / 40)"}[script] in done.stdout


# ---------------------------------------------------------------- what is read out of the log and the batches


@pytest.mark.parametrize(
    ("lines", "seen"),
    [
        ([], None),
        ([log_line(0, 1, 0.0), log_line(1, 1, 0.999)], 1),  # the end of one and the start of the next overlap a bit
        ([log_line(0, 1, 0.0), log_line(1, 2, 0.0)], 1),
        ([log_line(i, 1, i // 40 * 1.0) for i in range(100)], 40),
    ],
)
def test_slots_seen_is_the_most_that_one_worker_held_at_a_time(lines, seen):
    assert explain.slots_seen(lines) == seen


@pytest.mark.parametrize(
    ("numbers", "text"), [([0, 1, 2, 5], "0-2,5"), ([7], "7"), ([], ""), (range(0, 40, 2), "0,2,4,6,8..")]
)
def test_request_numbers_are_shortened(numbers, text):
    assert explain.ranges(numbers, 11) == text


# ---------------------------------------------------------------- audit


def plain_run(**changes) -> Any:
    """A run that nothing is wrong with, but for the changes: ten users, each answered after 0.1 s, for ten seconds."""
    (plan,) = bench.make_plans(bench.parse_arguments(["--url", "http://127.0.0.1/", "-n", "1000", "-c", "10"]))
    exchanges = load.Exchanges()
    for i in range(1000):
        for column, value in zip(load.Exchanges.COLUMNS, (i / 100, i / 100, i / 100 + 0.1, i / 100 + 0.1, 2, 200, 0),
                                 strict=True):  # fmt: skip
            getattr(exchanges, column).append(value)
    measured = load.Measured(exchanges, 0.0, client_cpu_s=1.0, sockets_opened=1000, kernel={}, warm_up=load.Exchanges())
    from_log = {"log_lines": 1000, "requests_of_workers": {"worker0": 1000}, "slots_held": None, "slots_seen": None}
    nothing = dict.fromkeys(("server_log", "server_said", "explained_by", "band", "lone_s", "other_cpu_s"))
    described = explain.describe(plan)
    summary = load.summarise(plan.traffic, measured)
    return {**described, **summary, **from_log, **nothing, "server_ended": False} | changes


@pytest.mark.parametrize(
    ("changes", "identifiers"),
    [
        ({}, []),
        ({"failed": 3, "answered": 997, "errors": {"reset": 3}}, ["failed-requests"]),
        ({"log_lines": 998}, ["log-lines"]),
        ({"log_lines": None}, []),
        ({"explained_by": "prediction"}, []),
        ({"explained_by": "nothing"}, ["unexplained"]),
        ({"explained_by": "split"}, ["uneven-split"]),
        ({"explained_by": "cpu"}, []),
        ({"explained_by": "other-slots", "slots_held": 7}, ["other-slots"]),
        ({"explained_by": "longer-wait", "lone_s": 0.8, "wait_s": 0.5}, ["longer-wait"]),
        ({"other_cpu_s": 3.0, "all_cpus": 2}, []),
        ({"other_cpu_s": 4.0, "all_cpus": 2}, ["busy-machine"]),
        ({"ceiling_rps": 80.0}, ["above-ceiling"]),
        ({"ceiling_rps": 100.0}, []),
        ({"kernel": {"ListenOverflows": 5, "TCPSynRetrans": 2}, "slow_waits": 3}, ["backlog-overflow"]),
        ({"kernel": {"ListenOverflows": 5, "TCPSynRetrans": 2}}, []),  # of somebody else's sockets
        ({"kernel": {"ListenOverflows": 0, "TCPSynRetrans": 2}}, []),
        ({"slow_connects": 2}, ["backlog-overflow"]),
        ({"client_cpu_s": 9.0}, ["client-limit"]),
        ({"lag_s": {"p99": 0.002, "max": 0.4}}, []),
        ({"lag_s": {"p99": 0.02, "max": 0.4}}, ["late-sends"]),
        ({"keep_alive": True}, ["no-keep-alive"]),
        ({"keep_alive": True, "sockets_opened": 10}, []),
        ({"mean_in_flight": 5.0}, ["little"]),
        ({"late_bodies": 50}, []),
        ({"late_bodies": 150}, ["delayed-ack"]),
    ],
)
def test_the_audit_names_what_is_wrong(changes, identifiers):
    warnings = explain.audit(plain_run(**changes))
    assert [warning["id"] for warning in warnings] == identifiers
    assert all(warning["cause"] and warning["next"] for warning in warnings)


# ---------------------------------------------------------------- any server


def test_a_url_is_measured_and_its_failures_set_the_exit_code(tmp_path, capsys):
    with stub(keep_answering) as (host, port):
        code, document = run_bench(tmp_path, "--url", f"http://{host}:{port}/x?y=1", "-n", "200", "-c", "10", "-k")
    run = document["runs"][0]
    assert (code, run["answered"], run["sockets_opened"], run["path"]) == (0, 200, 10, "/x?y=1")
    assert run["predicted_s"] is None and run["slots_known"] is False
    assert {"latency_s", "throughput_rps", "client_cpu_s", "per_second"} <= set(run)
    out = capsys.readouterr().out
    assert "closed loop" in out and "p99" in out
    with stub(keep_answering, reset) as (host, port):
        code, document = run_bench(tmp_path, "--url", f"http://{host}:{port}", "-n", "10", "-c", "1")
    assert (code, document["runs"][0]["errors"]) == (1, {"reset": 5})


OWN_APP = """
import time
def app(environ, start_response):
    time.sleep(0.2)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def test_an_app_in_any_folder_is_predicted_from_its_server_and_a_lone_request(tmp_path):
    (tmp_path / "main.py").write_text(OWN_APP)
    (tmp_path / "access_log.py").write_text("raise SystemExit('not this one')")
    command = [sys.executable, str(HERE / "bench.py"), "--app", "main:app", "--server", "waitress", "-n", "12"]
    command += ["--json", "out.json", "--logs", "logs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = " ".join(done.stdout.split())
    assert "before it 4 requests to warm up and up to 5 requests alone, to learn how long one takes" in report
    assert re.search(r"ceil\(12 / 4\) x 2\d\d", report)
    run = json.loads((tmp_path / "out.json").read_text())["runs"][0]
    assert [len(batch.requests) for batch in explain.batches(run)] == [4, 4, 4]
    assert (run["log_lines"], run["access_log"][:5]) == (12, "logs/")
    assert 5 <= run["warmed_up"] <= 9 and run["wait_is_measured"]


def test_a_load_on_a_target_is_compared_with_its_ceiling(tmp_path, capsys):
    arguments = ["--path", "/io", "-c", "8", "-n", "24", "--warmup", "8", *QUICK]
    code, document = run_bench(tmp_path, "--target", "flask-gunicorn", *arguments)
    run = document["runs"][0]
    assert (code, run["answered"], run["log_lines"]) == (0, 24, 24)  # the warm-up is in no count
    assert run["ceiling_rps"] == pytest.approx(20.0)
    assert run["predicted_s"] == pytest.approx(1.2)
    assert run["throughput_rps"] < 21
    assert run["prediction"]["spread_s"] == pytest.approx(0.4)
    held_s = run["held_s"] or 0.2  # as a request alone showed it
    assert 0.2 <= held_s < 0.225
    assert run["prediction"]["mean_s"] == pytest.approx(held_s * (4 + 20 * 2) / 24)  # the first four find a slot free
    assert run["limits"][0]["resource"] == "slots"
    assert "S / t = 4 / 200 ms = 20 requests/s; mean latency c t / S" in " ".join(capsys.readouterr().out.split())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="pinning is Linux only")
def test_the_server_can_be_pinned(tmp_path):
    arguments = ["--path", "/io", "-n", "4", "--server-cpus", "0", *QUICK]
    code, _ = run_bench(tmp_path, "--target", "flask-gunicorn", *arguments)
    assert code == 0


# ---------------------------------------------------------------- every target on its real server

PATHS = [(name, route.path) for name, target in serve.TARGETS.items() for route in target.routes]


@pytest.mark.parametrize(("target", "path"), PATHS)
def test_every_target_answers_all_and_logs_each_request_once(tmp_path, capsys, target, path):
    code, document = run_bench(tmp_path, "--target", target, "--path", path, "-n", "13", *QUICK)
    (run,) = document["runs"]
    columns = run["exchanges"]
    assert (code, run["answered"], run["failed"], run["errors"]) == (0, 13, 0, {})
    assert {len(column) for column in columns.values()} == {13}
    if "-hello-" in target:
        assert (run["access_log"], run["log_lines"], run["requests_of_workers"]) == (None, None, {})
    else:
        log = serve.parse_access_log(Path(run["access_log"]).read_text())
        assert sorted(int(line.request) for line in log.lines) == list(range(13))
        assert sum(run["requests_of_workers"].values()) == 13
        assert len(run["requests_of_workers"]) == run["workers"] == len(log.ready)
        if run["slots_per_worker"] is not None and not run["handler"].startswith(
            "async in"
        ):  # which wait in the handler
            assert run["slots_seen"] <= run["slots_per_worker"]
        for i in range(13):  # a handler cannot start before its request is begun, nor end after the answer
            assert columns["started_s"][i] - 0.001 <= columns["handler_started_s"][i]
            assert columns["handler_started_s"][i] + (run["wait_s"] or 0.0) * 0.99 <= columns["answered_s"][i]
    assert run["measured_s"] >= (run["split_predicted_s"] or 0.0) * 0.99
    output = capsys.readouterr().out
    assert max(len(line) for line in output.splitlines() if str(tmp_path) not in line) <= 79
    assert "\033" not in output


def test_flask_gunicorn_answers_four_at_a_time(tmp_path, capsys):
    _, document = run_bench(tmp_path, "--target", "flask-gunicorn", *QUICK)
    io, async_io, multi = document["runs"]
    for run in (io, async_io, multi):
        assert run["requests_of_workers"] == {f"worker{i}": 4 for i in range(4)}
        assert [batch.requests for batch in explain.batches(run)] == [
            [0, 1, 2, 3],
            [4, 5, 6, 7],
            [8, 9, 10, 11],
            [12, 13, 14, 15],
        ]
    assert 0.5 < async_io["measured_s"] / io["measured_s"] < 2
    assert 0.2 < multi["measured_s"] / io["measured_s"] < 0.9


@pytest.mark.parametrize(
    ("target", "path", "requests", "sizes"),
    [
        ("fastapi-uvicorn", "/io", 100, [40, 40, 20]),
        ("fastapi-uvicorn", "/async-io", 200, [200]),
        ("flask-gunicorn-gevent", "/io", 100, [100]),
        ("flask-waitress", "/io", 16, [4, 4, 4, 4]),
    ],
)
def test_the_batches_have_the_size_of_the_slots(tmp_path, target, path, requests, sizes):
    arguments = ["--target", target, "--path", path, "-n", str(requests), "--task-time", "1"]
    _, document = run_bench(tmp_path, *arguments)
    assert [len(batch.requests) for batch in explain.batches(document["runs"][0])] == sizes


def test_a_blocked_loop_serves_one_at_a_time_and_its_fix_all_at_once(tmp_path, capsys):
    arguments = ["--target", "fastapi-blocking", "--target", "fastapi-fixed", "-n", "6", *QUICK]
    _, document = run_bench(tmp_path, *arguments)
    blocking, fixed = document["runs"]
    assert (blocking["slots_seen"], fixed["slots_seen"]) == (1, 6)
    assert blocking["measured_s"] / fixed["measured_s"] > 3
    out = capsys.readouterr().out  # a line a run, then the table
    assert out.count("access log") == 0 and out.count("fastapi-blocking") == out.count("fastapi-fixed") == 2


def test_workers_threads_and_subtasks_change_the_server(tmp_path):
    arguments = ["--workers", "2", "--threads", "3", "--path", "/io", "-n", "6", *QUICK]
    _, document = run_bench(tmp_path, "--target", "flask-gunicorn-threads", *arguments)
    assert document["runs"][0]["slots"] == 6
    arguments = ["--workers", "1", "--subtasks", "4", "--path", "/async-io-multi", "-n", "2", *QUICK]
    _, document = run_bench(tmp_path, "--target", "flask-gunicorn", *arguments)
    assert document["runs"][0]["predicted_s"] == pytest.approx(0.1)


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "nginx"], "unknown target 'nginx'"),
        (["--target", "flask-gunicorn", "--path", "/nope"], "no path '/nope'; it has: /io,"),
        (["--target", "flask-gunicorn", "-n", "0"], "-n/--requests: '0' is not a whole number from 1"),
        (["--target", "flask-gunicorn", "-n", "ten"], "'ten' is not a whole number"),
        (["--target", "flask-gunicorn", "--task-time", "nan"], "'nan' is not a time from"),
        (["--target", "flask-gunicorn", "--workers", "-1"], "'-1' is not a whole number"),
        (["--target", "flask-dev", "--workers", "2"], "has no --workers"),
        (["--target", "flask-gunicorn", "--threads", "2"], "has no --threads"),
        (["--unknown"], "unrecognized arguments: --unknown"),
        (["--target", "flask-dev", "-n", "9999999"], "ulimit -Hn"),
        (["--url", "https://127.0.0.1/"], "https:// is not supported"),
        (["--url", "ftp://127.0.0.1/"], "is not of the form http://host:port/path"),
        (["--url", "http://a:b@127.0.0.1/"], "is not of the form http://host:port/path"),
        (["--url", "http://127.0.0.1:99999/"], "Port out of range"),
        (["--url", "http://127.0.0.1/a b"], "is not a URL without white space"),
        (["--url", "http://127.0.0.1/\r\nX: y"], "is not a URL without white space"),
        (["--url", "http://127.0.0.1/\xe9"], "percent-encoded"),
        (["--url", "http://no.such.host.invalid/"], "cannot resolve"),
        (["--url", "http://127.0.0.1/", "-H", "X: a\r\nY: b"], "is not one header line"),
        (["--url", "http://127.0.0.1/", "-H", "X y: a"], "is not one header line"),
        (["--url", "http://127.0.0.1/", "-H", "Content-Length: 4"], "set by this client itself"),
        (["--url", "http://127.0.0.1/", "-m", "GET /x"], "is not an HTTP method"),
        (["--url", "http://127.0.0.1/", "-c", "1", "--rate", "1"], "exclude each other"),
        (["--url", "http://127.0.0.1/", "--target", "flask-dev"], "exclude each other"),
        (["--url", "http://127.0.0.1/", "-t", "5"], "-t needs -n, -c, --rate or --ramp"),
        (["--url", "http://127.0.0.1/", "--ramp", "5:3"], "is not stages like"),
        (["--url", "http://127.0.0.1/", "--ramp", "0s:3"], "a stage takes up to"),
        (["--url", "http://127.0.0.1/", "-p", "/nonexistent"], "cannot read /nonexistent"),
        (["--url", "http://127.0.0.1/", "--client-cpus", "x"], "is not CPU numbers"),
        (["--app", "main"], "is not of the form module:app"),
        (["--app", "main", "--server", "uvicorn"], "is not of the form module:app"),
        (["--target", "flask-dev", "--server", "uvicorn"], "--server goes with --app"),
        (["--target", "flask-dev", "--path", "/a b"], "is not a path"),
        (["--target", "flask-dev", "--json", "/nonexistent/x.json"], "/nonexistent/x.json"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(capsys, arguments, message):
    assert bench.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err and len(err.splitlines()) == 1


def test_no_arguments_print_the_manual_and_the_targets(capsys):
    assert bench.main([]) == 0
    out = capsys.readouterr().out
    assert "S slots" in out and "flask-gunicorn" in out
    assert bench.main(["--list"]) == 0
    assert "gunicorn --bind 127.0.0.1:PORT --workers 4" in capsys.readouterr().out


# ---------------------------------------------------------------- README

README = (HERE / "README.md").read_text()


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_report_in_the_readme_is_the_committed_run():
    document = json.loads((HERE / "logs/example/run.json").read_text())
    (run,) = document["runs"]
    log = serve.parse_access_log((HERE / run["access_log"]).read_text())
    report = [explain.render_header(document), explain.render_prediction(run), explain.render_result(run, log)]
    assert "\n".join(report) + "\n" in code_blocks("text")
    assert run["log_lines"] == len(log.lines) == 16


def test_every_figure_of_the_readmes_results_is_in_the_committed_report():
    reported = set(re.findall(r"\d[\d.,]*\d|\d", (HERE / "logs/example/report.md").read_text()))
    results = "".join(re.findall(r"^## (?:Findings|Three posts|How far).*?(?=^## )", README, re.MULTILINE | re.DOTALL))
    prose = re.sub(r"```.*?```|`[^`]*`|\[[^]]*\]\([^)]*\)|^## [^\n]*", "", results, flags=re.MULTILINE | re.DOTALL)
    figures = re.findall(r"\d[\d.,]*\d|\d", prose)
    assert len(figures) > 25
    assert [figure for figure in figures if figure not in reported] == []


def test_the_headline_of_every_committed_suite_stands_in_the_readme():
    flowing = " ".join(README.split())
    for file in (HERE / "logs/example").glob("sweep-*.json"):
        document = sweep.read(file)
        assert [line for line in sweep.suite_of(document).headline(document) if line not in flowing] == []


def test_the_readme_can_be_read_in_three_minutes():
    assert len(README.splitlines()) <= 220


def test_the_code_that_the_readme_shows_is_in_the_apps():
    for block in code_blocks("python"):
        assert any(block in app.read_text() for app in (HERE / "apps").glob("*.py"))


def test_every_picture_of_the_readme_is_there():
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert pictures
    for picture in pictures:
        assert (HERE / picture).read_text().startswith("<?xml")


def test_the_readme_lists_every_target():
    for name in serve.TARGETS:
        assert f"`{name}`" in README
