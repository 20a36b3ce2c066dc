"""The servers: what is read out of their logs, how they start, and that nothing is left of them."""

from __future__ import annotations

import contextlib
import doctest
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import bench
import serve

HERE = Path(__file__).parent
QUICK = ["--task-time", "0.2"]


def run_bench(tmp_path: Path, *arguments: str) -> tuple[int, Any]:
    """bench.main in this process, its logs and JSON under tmp_path; the exit code and the document."""
    document = tmp_path / "out.json"
    code = bench.main([*arguments, "--logs", str(tmp_path), "--json", str(document)])
    return code, json.loads(document.read_text())


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(serve).failed == 0


# ---------------------------------------------------------------- the access log and what is read out of it


def log_line(request: int, pid: int, started_s: float, duration_s: float = 1.0) -> serve.LogLine:
    return serve.LogLine("stamp", pid, "GET", "/io", "200", duration_s, str(request), started_s)


@pytest.mark.parametrize(
    ("line", "request_id"),
    [
        ("[2026-11-20 17:04:15.123] [pid-4711] GET /io 200 1.0012s #7 @5123.456789", "7"),
        ("[2026-11-20 17:04:15.123] [pid-1] POST /v1/x?a=%20b - 0.0s #- @1", None),
        ("[2026-11-20 17:04:15.123] [pid-1] GET  404 0.0s # @1.5", None),
        ("[2026-11-20 17:04:15.123] [pid-4711] ready", None),
        ("[2026-11-20 17:04:15.123] [pid-4711] GET /io 200 1.00", None),
    ],
)
def test_a_log_line_is_read_whole_or_not_at_all(line, request_id):
    assert [found.request for found in serve.parse_access_log(line).lines] == (
        [] if request_id is None else [request_id]
    )


def test_the_log_is_put_in_the_order_of_starting():
    text = "\n".join(f"[s] [pid-1] GET /io 200 1.0s #{i} @{at}" for i, at in enumerate([3.0, 1.0, 2.0]))
    assert [line.request for line in serve.parse_access_log(text).lines] == ["1", "2", "0"]


# ---------------------------------------------------------------- faults


def test_a_missing_package_is_named_with_the_pip_command(capsys, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gevent" else find_spec(name))
    assert bench.main(["--target", "flask-gunicorn-gevent"]) == 2
    err = capsys.readouterr().err
    assert "gevent" in err and "-m pip install -r requirements-all.txt" in err


def test_a_server_that_cannot_start_shows_the_end_of_its_log(tmp_path, capsys, monkeypatch):
    (tmp_path / "wrap").symlink_to(serve.APPS / "wrap")
    monkeypatch.setattr(serve, "APPS", tmp_path)  # no app there
    code = bench.main(["--target", "flask-gunicorn", "--path", "/io", "--logs", str(tmp_path)])
    err = capsys.readouterr().err
    assert code == 3
    assert "ModuleNotFoundError" in err and ".server.log" in err and err.count("\n") == 1
    assert list(tmp_path.glob("*.server.log"))


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody has reaped yet does not."""
    stat = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(stat) and not stat.startswith("Z")


def wait_until(condition, timeout_s: float = 10.0):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout_s} s")


@contextlib.contextmanager
def bench_process(tmp_path, *arguments):
    """bench.py as a process of its own, and the pids of the four ready workers of its flask-gunicorn."""
    command = [
        sys.executable,
        str(HERE / "bench.py"),
        "--target",
        "flask-gunicorn",
        "--path",
        "/io",
        "--logs",
        tmp_path,
    ]
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def four_ready():
        pids = [pid for log in tmp_path.glob("*.access.log") for pid in serve.ready_workers(log.read_text())]
        return pids if len(pids) == 4 else None

    try:
        yield process, wait_until(four_ready)
    finally:
        process.kill()
        process.wait()


def test_a_killed_worker_fails_its_requests_and_no_others(tmp_path):
    document = tmp_path / "out.json"
    with bench_process(tmp_path, "--task-time", "1", "--json", str(document)) as (process, workers):
        time.sleep(0.6)
        os.kill(workers[0], signal.SIGKILL)
        process.communicate(timeout=30)
    run = json.loads(document.read_text())["runs"][0]
    assert process.returncode == 1
    assert run["failed"] >= 1 and run["answered"] + run["failed"] == 16
    assert run["answered"] >= 12 and set(run["errors"]) <= {"reset", "closed"}
    assert run["log_lines"] == run["answered"]
    assert {"failed-requests", "log-lines"} <= {warning["id"] for warning in run["warnings"]}


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGKILL", -9)])
def test_however_bench_ends_no_server_is_left(tmp_path, name, code):
    with bench_process(tmp_path, "--task-time", "20") as (process, workers):
        time.sleep(0.3)
        process.send_signal(getattr(signal, name))
        _, err = process.communicate(timeout=10)
    assert process.returncode == code
    assert "Traceback" not in err
    wait_until(lambda: not any(map(alive, workers)), 5.0)
    assert list(tmp_path.glob("*.access.log"))
