"""The servers: what is read out of their logs, what the user's settings make of them, how they start, and that nothing
is left of them."""

from __future__ import annotations

import contextlib
import doctest
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import bench
import explain
import serve
import slots

HERE = Path(__file__).parent
QUICK = ["--task-time", "0.2"]


def run_bench(tmp_path: Path, *arguments: str) -> tuple[int, Any]:
    """bench.main in this process, its logs and JSON under tmp_path; the exit code and the document."""
    document = tmp_path / "out.json"
    code = bench.main([*arguments, "--logs", str(tmp_path), "--json", str(document)])
    return code, json.loads(document.read_text())


def write_files(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def launch_of(*arguments: str) -> serve.Launch:
    """What bench.py makes of a command line with --app."""
    options = bench.parse_arguments(list(arguments))
    return serve.launch_app(options)


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[serve.RunningServer]:
    """A user's app on its real server, from the present folder."""
    launch = launch_of("--app", *arguments)
    server = serve.start_server(launch, *serve.new_log_files(Path("logs"), "test", datetime.now()), set())
    try:
        yield server
    finally:
        serve.stop_server(server)


def answer_of(server: serve.RunningServer) -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/", headers={"X-Request-Id": "0"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.read().decode()


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The user's own folder, which is the present one; no setting of a server in the environment."""
    for name in ("WEB_CONCURRENCY", "GUNICORN_CMD_ARGS", "UVICORN_WORKERS", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


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


def test_every_field_of_a_log_line_is_read():
    text = "[2026-11-20 17:04:15.123] [pid-4711] POST /io?a=1 201 1.0012s #7 @5123.456789\n"
    (line,) = serve.parse_access_log(text).lines
    assert line == ("2026-11-20 17:04:15.123", 4711, "POST", "/io?a=1", "201", 1.0012, "7", 5123.456789)


def test_the_log_is_put_in_the_order_of_starting():
    text = "\n".join(f"[s] [pid-1] GET /io 200 1.0s #{i} @{at}" for i, at in enumerate([3.0, 1.0, 2.0]))
    assert [line.request for line in serve.parse_access_log(text).lines] == ["1", "2", "0"]


@pytest.mark.parametrize(
    ("said", "ready"),
    [
        ("1 ready, 2 ready", [1, 2]),
        ("1 ready, 1 forks, 2 ready, 1 forks, 3 ready", [2, 3]),  # a master with a preloaded app is no worker
        ("1 failed ValueError: ready", []),
        ("12 GET /ready 200 0.1s #- @1", []),
    ],
)
def test_a_worker_is_ready_when_it_says_so_and_does_not_fork(said, ready):
    text = "".join(f"[stamp] [pid-{line.partition(' ')[0]}] {line.partition(' ')[2]}\n" for line in said.split(", "))
    assert serve.ready_workers(text) == ready


def test_workers_are_numbered_as_the_log_shows_them_and_the_idle_ones_come_last():
    log = serve.AccessLog([log_line(0, 30, 1.0), log_line(1, 10, 2.0), log_line(2, 30, 3.0)], [10, 20, 30])
    assert serve.name_workers(log) == {30: "worker0", 10: "worker1", 20: "worker2"}


def test_the_log_is_waited_for_until_it_has_every_line(tmp_path):
    path = tmp_path / "access.log"
    path.write_text("[s] [pid-1] ready\n[s] [pid-1] GET /io 200 1.0s #0 @1.0\n")
    assert len(serve.wait_for_log(path, 1).lines) == 1
    begun_s = time.monotonic()
    assert len(serve.wait_for_log(path, 2).lines) == 1  # a line that never comes ends the waiting, too
    assert 0.9 < time.monotonic() - begun_s < 5


TRACEBACK = """Traceback (most recent call last):
  File "/app/main.py", line 7, in view
    raise KeyError("couldn't get a connection")
          ^^^^^^^^^^^^^
"""
POOL_LIMIT = "sqlalchemy.exc.TimeoutError: QueuePool limit of size 5 overflow 10 reached, connection timed out"
CHAIN = f"{TRACEBACK}KeyError: 'user'\n\nDuring handling of the above exception, another exception occurred:\n\n"


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("", None),
        ("INFO:     Started server process [1]\n127.0.0.1:5 - \"GET / HTTP/1.1\" 500\nthe server was ended", None),
        (f"{TRACEBACK}KeyError: 'user'", "KeyError: 'user'"),
        (f"{TRACEBACK}errors.SoldOut: no tickets\n", "errors.SoldOut: no tickets"),  # by its place, not by its name
        (f"{CHAIN}{TRACEBACK}RuntimeError: no such user\n", "RuntimeError: no such user"),
        (f"{TRACEBACK}KeyError: 1\n{TRACEBACK}ValueError: 2\n{TRACEBACK}KeyError: 3\n", "KeyError: 1"),  # the frequent
        (f"{TRACEBACK}KeyError: 'user'\n{TRACEBACK}{POOL_LIMIT}\n{TRACEBACK}KeyError: 'user'\n", POOL_LIMIT),
        (f"[2026-11-20 17:04:15 +0000] [7] [ERROR] Error handling request /\n{TRACEBACK}SystemExit: 1\n"
         "[2026-11-20 17:04:15 +0000] [5] [CRITICAL] WORKER TIMEOUT (pid:7)\n", "WORKER TIMEOUT (pid:7)"),
        ("[2026-11-20 17:04:15 +0000] [5] [WARNING] Worker (pid:7) was sent SIGSEGV!\n",
         "Worker (pid:7) was sent SIGSEGV!"),
        ("[2026-11-20 17:04:15 +0000] [5] [INFO] Worker (pid:7) was sent SIGTERM!\n", None),  # in every stop
        ("[2026-11-20 17:04:15 +0000] [5] [ERROR] Worker (pid:7) was sent SIGKILL! Perhaps out of memory?\n",
         "Worker (pid:7) was sent SIGKILL! Perhaps out of memory?"),
        (f"[2026-11-20 17:04:15 +0000] [7] [ERROR] Exception in worker process\n{TRACEBACK}ImportError: no flask\n"
         "[2026-11-20 17:04:15 +0000] [7] [INFO] Worker exiting (pid: 7)\n"
         "[2026-11-20 17:04:15 +0000] [5] [ERROR] Worker (pid:7) exited with code 3.\n"
         "[2026-11-20 17:04:15 +0000] [5] [ERROR] Shutting down: Master\n"
         "[2026-11-20 17:04:15 +0000] [5] [ERROR] Reason: Worker failed to boot.\n", "ImportError: no flask"),
        ("[2026-11-20 17:04:15 +0000] [5] [ERROR] Connection in use: ('127.0.0.1', 80)\n",
         "Connection in use: ('127.0.0.1', 80)"),
        ("ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 80): address already in use\n",
         "[Errno 98] error while attempting to bind on address ('127.0.0.1', 80): address already in use"),
        (f"ERROR:    Exception in ASGI application\n{TRACEBACK}asyncio.exceptions.CancelledError\n",
         "asyncio.exceptions.CancelledError"),
        (f"{TRACEBACK}BrokenPipeError: [Errno 32] Broken pipe\n{TRACEBACK}BrokenPipeError: [Errno 32] Broken pipe\n"
         "ERROR:shop:no more stock\n", "no more stock"),
        ("2026-11-20 17:04:15,123 ERROR in app: order 7 is unknown\n", "order 7 is unknown"),
        ("[2026-11-20 17:04:15,123] ERROR in app: Exception on / [GET]\n" + TRACEBACK + "KeyError: 1", "KeyError: 1"),
        ("INFO:     Application startup complete.\nINFO: 3 errors of 4 are known\nWARNING:root:slow\n", None),
        ("could not fetch: couldn't get a connection after 30.00 sec\n",
         "could not fetch: couldn't get a connection after 30.00 sec"),
        ("  + Exception Group Traceback (most recent call last):\n  |   File \"x\", line 1\n"
         "  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)\n  +-+---------------- 1 -----------\n"
         "    | Traceback (most recent call last):\n    |   File \"x\", line 2\n    | shop.Gone: sold\n"
         "    +------------------------------------\n", "shop.Gone: sold"),
    ],
)  # fmt: skip
def test_the_line_that_tells_why_is_found_in_a_servers_log(tmp_path, log, line):
    (tmp_path / "x.server.log").write_text(log)
    assert serve.telling_line(tmp_path / "x.server.log") == line


def test_a_log_that_is_not_there_tells_nothing(tmp_path):
    assert serve.telling_line(tmp_path / "x.server.log") is None
    assert serve.why_it_ended(tmp_path / "x.server.log") == f"see {tmp_path / 'x.server.log'}"


@pytest.mark.parametrize(
    ("log", "why"),
    [
        ("", "it said nothing"),
        ("Usage: x\n\nError: No option: --bogus\nthe server ended with exit code 2\n", "Error: No option: --bogus"),
        ("the server was ended by SIGKILL\n", "the server was ended by SIGKILL"),
        ("INFO:     Child process [7] died\n", "Child process [7] died"),
        (f"{TRACEBACK}KeyError: 1\nthe server ended with exit code 1\n", "KeyError: 1"),
    ],
)  # fmt: skip
def test_why_a_server_ended_is_its_error_or_its_last_word(tmp_path, log, why):
    (tmp_path / "x").write_text(log)
    assert serve.why_it_ended(tmp_path / "x") == f"{why} (see {tmp_path / 'x'})"


# ---------------------------------------------------------------- what to start


@pytest.mark.parametrize(
    ("argv", "joined"),
    [
        (["--server-args", "-k gthread"], ["--server-args=-k gthread"]),
        (["-n", "1", "--server-args", "--preload", "-c", "2"], ["-n", "1", "--server-args=--preload", "-c", "2"]),
        (["--server-args=-k x", "-n", "1"], ["--server-args=-k x", "-n", "1"]),
        (["-n", "1", "--server-args"], ["-n", "1", "--server-args"]),
        ([], []),
    ],
)
def test_a_value_that_begins_with_a_dash_is_a_value(argv, joined):
    assert serve.join_values(argv) == joined


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--a", "1", "--b=2", "-k", "x", "y"], [("--a", "1"), ("--b", "2")]),
        (["--a"], [("--a", "")]),
        (["--a=b=c", "--d"], [("--a", "b=c"), ("--d", "")]),
        ([], []),
    ],
)
def test_the_options_of_a_command_line_are_found(arguments, found):
    assert list(serve.option_values(arguments)) == found


@pytest.mark.parametrize(
    ("server", "handler", "changes", "slots_each"),
    [
        ("flask-dev", None, {}, slots.NO_LIMIT),
        ("waitress", None, {"threads": 4}, 4),
        ("gunicorn", None, {"threads": 4}, 1),
        ("gunicorn-threads", None, {"threads": 7}, 7),
        ("gunicorn-threads", None, {"threads": 7, "connections": 5}, 5),
        ("gunicorn-gevent", None, {"connections": 50}, 50),
        ("uvicorn", None, {}, None),
        ("uvicorn", "def", {}, 40),
        ("uvicorn", "async", {}, slots.NO_LIMIT),
        ("uvicorn", "blocking", {}, 1),
        ("uvicorn", "async", {"pool": 15}, 15),
        ("gunicorn-threads", "def", {"threads": 4, "pool": 15}, 4),
        ("gunicorn-threads", "def", {"threads": 40, "pool": 15}, 15),
    ],
)
def test_a_process_has_the_slots_of_its_server_its_handler_or_its_pool(server, handler, changes, slots_each):
    launch = serve.Launch("x", server, "x:app", handler=handler, **changes)
    assert launch.slots_per_worker == slots_each
    assert launch.why_slots and "{" not in launch.why_slots


@pytest.mark.parametrize(
    ("app", "is_target", "server", "pool", "packages"),
    [
        ("flask_sync:app", True, "gunicorn", 0, ["flask", "asgiref", "gunicorn"]),
        ("fastapi_books:app", True, "uvicorn", 15, ["fastapi", "uvicorn", "psycopg", "psycopg-pool"]),
        ("flask_sync:app", False, "gunicorn", 0, ["gunicorn"]),  # a user's module may be called so
        ("fastapi_main:app", False, "gunicorn-uvicorn", 0, ["gunicorn", "uvicorn-worker", "uvicorn"]),
    ],
)
def test_the_packages_are_those_of_the_server_and_of_our_own_apps(app, is_target, server, pool, packages):
    assert serve.Launch("x", server, app, is_target, pool=pool).packages == packages


APP = ["--app", "main:app", "--server"]
ONE = {"workers": 1, "threads": 1}


@pytest.mark.parametrize(
    ("arguments", "environment", "config", "expected"),
    [
        (["gunicorn"], {}, "", ONE | {"server": "gunicorn", "slots_per_worker": 1}),
        (["gunicorn", "--server-args", "-k gthread --threads 3"], {}, "",
         {"workers": 1, "threads": 3, "server": "gunicorn-threads", "slots_per_worker": 3}),
        (["gunicorn", "--server-args", "-w 3"], {}, "", {"workers": 3, "threads": 1}),
        (["gunicorn", "--workers", "2", "--server-args", "-w 3"], {}, "", {"workers": 3}),
        (["gunicorn", "--server-args", "-k gevent --worker-connections 7"], {}, "",
         {"server": "gunicorn-gevent", "slots_per_worker": 7}),
        (["gunicorn-threads"], {}, "", {"workers": 1, "threads": 4}),
        (["gunicorn-threads", "--threads", "9"], {}, "", {"threads": 9}),
        (["gunicorn-threads"], {}, "threads = 8", {"threads": 8, "notes": ("gunicorn.conf.py says threads = 8",)}),
        (["gunicorn-threads", "--threads", "2"], {}, "threads = 8",
         {"threads": 2, "notes": ("gunicorn.conf.py says threads = 8, overruled: 2 is in force",)}),
        (["gunicorn-threads", "--server-args", "-k gevent"], {}, "", {"server": "gunicorn-gevent"}),
        (["gunicorn-threads", "--server-args", "--worker-connections 2"], {}, "", {"slots_per_worker": 2}),
        (["gunicorn"], {}, "workers = 3\nworker_class = 'gthread'\nthreads = 5",
         {"server": "gunicorn-threads", "workers": 3, "threads": 5, "slots_per_worker": 5}),
        (["gunicorn"], {}, "worker_class = 'gunicorn.workers.gthread.ThreadWorker'\nthreads = 5",
         {"server": "gunicorn-threads", "threads": 5}),
        (["gunicorn"], {}, "worker_class = 'uvicorn_worker.UvicornWorker'", {"server": "gunicorn-uvicorn"}),
        (["gunicorn"], {}, "bind = '0.0.0.0:8000'\npreload_app = True",
         {"notes": ("gunicorn.conf.py says preload_app = True", "gunicorn.conf.py says bind = '0.0.0.0:8000',"
                    " overruled: it listens on a free port of 127.0.0.1")}),
        (["gunicorn", "--workers", "2"], {}, "workers = 5",
         {"workers": 2, "notes": ("gunicorn.conf.py says workers = 5, overruled: 2 is in force",)}),
        (["gunicorn"], {"WEB_CONCURRENCY": "3"}, "", {"workers": 3}),
        (["gunicorn"], {"GUNICORN_CMD_ARGS": "--workers 4 --threads 2"}, "",
         {"workers": 4, "threads": 2, "server": "gunicorn-threads"}),
        (["uvicorn"], {}, "", ONE | {"slots_per_worker": None}),
        (["uvicorn", "--workers", "3"], {}, "", {"workers": 3}),
        (["uvicorn", "--workers", "3", "--server-args", "--workers=5"], {}, "", {"workers": 5}),
        (["uvicorn", "--server-args", "--workers 5"], {"WEB_CONCURRENCY": "2"}, "", {"workers": 5}),
        (["uvicorn"], {"WEB_CONCURRENCY": "2"}, "", {"workers": 2}),
        (["uvicorn"], {"WEB_CONCURRENCY": "2", "UVICORN_WORKERS": "3"}, "", {"workers": 3}),
        (["waitress"], {}, "", {"threads": 4, "slots_per_worker": 4}),
        (["waitress", "--threads", "6"], {}, "", {"threads": 6, "open_connections": 100}),
        (["waitress", "--server-args", "--connection-limit 7"], {}, "", {"threads": 4, "open_connections": 7}),
        (["flask-dev"], {}, "", {"slots_per_worker": slots.NO_LIMIT, "open_connections": 0}),
        (["flask-dev", "--server-args", "--without-threads"], {}, "", {"slots_per_worker": 1, "workers": 1}),
        (["hypercorn", "--server-args", "--workers=3"], {}, "", {"workers": 3}),
        (["granian", "--server-args", "--workers 2"], {}, "", {"workers": 2}),
        (["waitress", "--server-args", "--threads=9"], {}, "", {"threads": 9, "slots_per_worker": 9}),
        (["waitress"], {"WEB_CONCURRENCY": "3"}, "workers = 7", {"workers": 1}),
    ],
)  # fmt: skip
def test_every_setting_of_the_user_is_in_the_prediction(folder, monkeypatch, arguments, environment, config, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if config:
        (folder / "gunicorn.conf.py").write_text(config)
    launch = launch_of(*APP, *arguments)
    assert {name: getattr(launch, name) for name in expected} == expected


def test_a_configuration_file_is_read_where_the_user_says_it_is(folder):
    write_files(folder, {"conf/prod.py": "workers = 3", "gunicorn.conf.py": "workers = 2", "sub/gunicorn.conf.py": "x"})
    launch = launch_of(*APP, "gunicorn", "--server-args", "-c conf/prod.py")
    assert (launch.workers, launch.notes) == (3, ("prod.py says workers = 3",))
    launch = launch_of(*APP, "gunicorn", "--server-args", "--chdir sub")
    assert (launch.workers, launch.notes) == (2, ("gunicorn.conf.py says workers = 2",))  # gunicorn reads it first


def test_what_overrules_what_is_in_the_report_and_the_settings_of_targets_are_asked_for_too(folder, monkeypatch):
    (folder / "gunicorn.conf.py").write_text("workers = 3\nbind = '0.0.0.0:80'")
    (plan,) = bench.make_plans(bench.parse_arguments([*APP, "gunicorn"]))
    report = " ".join(explain.render_prediction(explain.describe(plan)).split())
    assert "gunicorn.conf.py says workers = 3" in report and "bind = '0.0.0.0:80', overruled" in report
    assert "3 workers x 1 = 3" in report
    options = ["--target", "flask-gunicorn", "--path", "/io"]
    (plan,) = bench.make_plans(bench.parse_arguments(options))
    assert (plan.slots, plan.launch.notes) == (4, ())  # it runs in apps/, where that file is not
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--threads 3")
    (plan,) = bench.make_plans(bench.parse_arguments(options))
    assert plan.slots == 12
    (plan,) = bench.make_plans(bench.parse_arguments([*options, "--server-args", "--threads 5"]))
    assert plan.slots == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*APP, "gunicorn", "--server-args", "--access-logformat '"], "No closing quotation"),
        ([*APP, "gunicorn", "--server-args", "--bogus"], "unrecognized arguments: --bogus"),
        ([*APP, "gunicorn", "--server-args", "-k tornado"], "worker class 'tornado' is not one that we know"),
        ([*APP, "gunicorn", "--server-args", "--daemon"], "the server must end with the run"),
        ([*APP, "gunicorn", "--server-args", "-D"], "told to be a daemon"),
        ([*APP, "uvicorn", "--server-args", "--port 8000"], "--port: the server gets a free port"),
        ([*APP, "uvicorn", "--server-args", "--factory"], "module:create_app()"),
        ([*APP, "uvicorn", "--server-args", "--lifespan=off"], "--lifespan off"),
        ([*APP, "uvicorn", "--server-args", "--workers many"], "uvicorn's workers: 'many' is not a whole number"),
        ([*APP, "waitress", "--server-args", "--threads"], "waitress's threads: '' is not a whole number"),
        ([*APP, "waitress", "--workers", "2"], "has no --workers"),
        ([*APP, "gunicorn", "--pool-size", "2"], "your app has settings of its own"),
        ([*APP, "gunicorn", "--database-url", "x"], "your app has settings of its own"),
        (["--app", "main:create_app(", "--server", "uvicorn"], "not of the form"),
        (["--url", "http://127.0.0.1:9/", "--path", "/x"], "--path does not go with --url"),
        (["--url", "http://127.0.0.1:9/", "--workers", "2"], "--workers does not go with --url"),
        (["--url", "http://127.0.0.1:9/", "--threads", "2"], "--threads does not go with --url"),
        (["--url", "http://127.0.0.1:9/", "--server-args", "-x"], "--server-args does not go with --url"),
        (["--url", "http://127.0.0.1:9/", "--pool-size", "2"], "--pool-size does not go with --url"),
        (["--url", "http://127.0.0.1:0/"], "is not of the form http://host:port/path"),
        (["--target", "flask-gunicorn", "--logs", "a-file"], "--logs a-file is not a folder"),
        (["--target", "flask-gunicorn", "--logs", "a-file/below"], "cannot write logs to a-file/below"),
        (["--target", "flask-gunicorn", "--logs", "/proc/read-only"], "cannot write logs to /proc/read-only"),
        (["--target", "flask-gunicorn", "--pool-size", "2"], "has no --pool-size"),
        (["--target", "flask-gunicorn", "--server-cpus", "0-3"], "is not CPU numbers"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line_and_exit_code_2(folder, capsys, arguments, message):
    (folder / "a-file").write_text("")
    assert bench.main(arguments) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_a_daemon_in_a_configuration_file_is_refused(folder, capsys):
    (folder / "gunicorn.conf.py").write_text("daemon = True")
    assert bench.main([*APP, "gunicorn"]) == 2
    assert "told to be a daemon" in capsys.readouterr().err


def test_braces_in_server_args_go_to_the_server_as_they_are(folder):
    launch = launch_of(*APP, "gunicorn", "--server-args", "--access-logformat '%({x}i)s'")
    assert launch.command(80, "a:b")[-3:] == ["--access-logformat", "%({x}i)s", "a:b"]


def test_a_log_never_takes_the_place_of_another(tmp_path):
    when = datetime(2026, 11, 20, 17, 4, 15)
    names = [serve.new_log_files(tmp_path, "main:app/x?y", when)[0].name for _ in range(3)]
    assert names == [f"20261120-170415-main-app-x-y{suffix}.access.log" for suffix in ("", "-2", "-3")]
    assert [path.suffixes for path in serve.new_log_files(tmp_path, "p", when, ".postgres.log")] == [
        [".postgres", ".log"], [".server", ".log"]]  # fmt: skip


# ---------------------------------------------------------------- a user's app on its real server

ANSWER = """
def answer(text):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [str(text).encode()]
    return app
"""


@pytest.mark.parametrize(
    ("app", "files", "text"),
    [
        ("pkg.mod:ns.sub", {"pkg/mod.py": f"{ANSWER}\nclass ns:\n    sub = staticmethod(answer('dotted'))"}, "dotted"),
        ("main:create_app()", {"main.py": f"{ANSWER}\ndef create_app(mode='plain'): return answer(mode)"}, "plain"),
        ("main:create_app('production')", {"main.py": f"{ANSWER}\ndef create_app(m): return answer(m)"}, "production"),
        ("main:create_app(2, debug=True)", {"main.py": f"{ANSWER}\ndef create_app(m, debug): return answer(m + debug)"},
         "3"),
        ("flask_shop:app", {"flask_shop.py": f"{ANSWER}\napp = answer('a name like ours')"}, "a name like ours"),
        ("flask_sync:app", {"flask_sync.py": f"{ANSWER}\napp = answer('the name of ours')"}, "the name of ours"),
        ("main:app", {"main.py": f"{ANSWER}\nimport access_log, postgres, slots, serve\n"
                                  "app = answer(access_log.x + slots.x)",
                      "access_log.py": "x = 'my own '", "slots.py": "x = 'modules'", "postgres.py": "", "serve.py": ""},
         "my own modules"),
    ],
)  # fmt: skip
def test_an_app_is_found_by_every_name_that_a_server_would_take(folder, app, files, text):
    write_files(folder, files)
    with started(app, "--server", "waitress") as server:
        assert answer_of(server) == text
        log = serve.wait_for_log(server.access_log, 1)
    assert [(line.status, line.request) for line in log.lines] == [("200", "0")]


def test_an_app_factory_of_each_framework_runs_on_its_servers(folder):
    write_files(folder, {
        "web.py": "from flask import Flask\ndef create_app(text):\n    app = Flask('web')\n"
                  "    @app.route('/')\n    def index(): return text\n    return app",
        "api.py": "from fastapi import FastAPI\ndef create_app(text):\n    app = FastAPI()\n"
                  "    @app.get('/')\n    def index(): return text\n    return app",
    })  # fmt: skip
    for app, server in [("web", "flask-dev"), ("web", "gunicorn"), ("api", "uvicorn"), ("api", "gunicorn-uvicorn")]:
        with started(f"{app}:create_app('made')", "--server", server) as running:
            assert answer_of(running).strip('"') == "made"


def test_the_environment_of_the_users_app_is_as_it_was(folder, monkeypatch):
    mine = {"DATABASE_URL": "postgres://mine", "POOL_SIZE": "7", "TASK_TIME": "9", "SUBTASKS": "5", "APP": "shop",
            "ACCESS_LOG": "/var/log/mine", "CPU_TIME": "3", "HOME": str(folder)}  # fmt: skip
    for name, value in mine.items():
        monkeypatch.setenv(name, value)
    (folder / "main.py").write_text(f"{ANSWER}\nimport json, os\napp = answer(json.dumps(dict(os.environ)))")
    with started("main:app", "--server", "waitress", "--task-time", "0.2", "--subtasks", "3") as server:
        seen = json.loads(answer_of(server))
    assert {name: seen.get(name) for name in mine} == mine
    ours = {"BENCH_APP", "BENCH_LOG", "PYTHONPATH", "PYTHONUNBUFFERED"}
    assert {name for name in seen if seen[name] != os.environ.get(name)} <= ours


def test_a_users_python_path_comes_with_the_app(folder, monkeypatch):
    write_files(
        folder, {"main.py": f"{ANSWER}\nimport elsewhere\napp = answer(elsewhere.x)", "lib/elsewhere.py": "x = 'lib'"}
    )
    monkeypatch.setenv("PYTHONPATH", str(folder / "lib"))
    with started("main:app", "--server", "gunicorn") as server:
        assert answer_of(server) == "lib"


@pytest.mark.parametrize("kind", ["gunicorn", "gunicorn-threads", "gunicorn-uvicorn", "gunicorn-asgi"])
def test_a_preloaded_app_has_its_workers_and_no_ghost(folder, kind):
    api = "from fastapi import FastAPI\napp = FastAPI()\n@app.get('/')\ndef index(): return 'x'"
    is_asgi = kind in ("gunicorn-uvicorn", "gunicorn-asgi")
    write_files(folder, {
        "gunicorn.conf.py": "workers = 2\npreload_app = True",
        "main.py": api if is_asgi else f"{ANSWER}\napp = answer('x')",
    })  # fmt: skip
    with started("main:app", "--server", kind) as server:
        assert "x" in answer_of(server)
        log = serve.wait_for_log(server.access_log, 1)
        masters = {int(pid) for pid in re.findall(r"\[(\d+)\] \[INFO\] Listening", server.output.read_text())}
    assert len(log.ready) == len(set(log.ready)) == len(serve.name_workers(log)) == 2
    assert masters and not masters & set(log.ready)


def test_a_log_folder_is_found_from_wherever_the_server_goes(folder):
    write_files(folder, {"sub/main.py": f"{ANSWER}\nimport os\napp = answer(os.path.basename(os.getcwd()))"})
    with started("main:app", "--server", "gunicorn", "--server-args", "--chdir sub") as server:
        assert answer_of(server) == "sub"
        assert len(serve.wait_for_log(server.access_log, 1).lines) == 1
    assert list((folder / "logs").glob("*.access.log"))


def test_gunicorn_opens_no_control_socket_beside_the_users_own(folder, monkeypatch):
    for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(folder))
    (folder / "main.py").write_text(f"{ANSWER}\napp = answer('x')")
    with started("main:app", "--server", "gunicorn") as server:
        answer_of(server)
        assert [path for path in folder.rglob("*") if path.is_socket() or "gunicorn" in path.name] == []


def test_stamps_stay_in_the_zone_of_the_report_whatever_the_app_does_to_it(folder, monkeypatch):
    setting = "import os, time\nos.environ['TZ'] = 'Asia/Tokyo'\ntime.tzset()\n"  # as Django does
    (folder / "main.py").write_text(f"{setting}{ANSWER}\napp = answer(time.strftime('%Z'))")
    with started("main:app", "--server", "gunicorn") as server:
        assert answer_of(server) == "JST"
        (line,) = serve.wait_for_log(server.access_log, 1).lines
    assert abs((datetime.fromisoformat(line.stamp) - datetime.now()).total_seconds()) < 60


def test_the_cpu_seconds_of_a_server_are_those_of_all_its_processes(tmp_path):
    if not Path("/proc/self/stat").exists():
        pytest.skip("/proc is Linux's")
    spin = "import time\nwhile time.process_time() < 0.6: pass\n"
    script = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {spin!r}])\n{spin}print(1)\ntime.sleep(60)"
    output = tmp_path / "out"
    process = serve.guarded([sys.executable, "-u", "-c", script], output, dict(os.environ))
    try:
        wait_until(lambda: output.read_text(), 30)
        assert 1.1 < serve.group_cpu_s(process.pid) < 5  # those of children that have ended, too
    finally:
        serve.stop_server(serve.RunningServer(process, 0, output, None))
    assert serve.group_cpu_s(process.pid) is None


# ---------------------------------------------------------------- an app that fails

API = "from contextlib import asynccontextmanager\nfrom fastapi import FastAPI\n"
LIFESPAN = f"""{API}
@asynccontextmanager
async def life(app):
    raise RuntimeError('no database')
    yield
app = FastAPI(lifespan=life)"""
BUSY_PORT = """
import socket
sock = socket.socket()
sock.bind(("127.0.0.1", PORT))
sock.listen()
def app(environ, start_response): pass
"""


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (
            "import no_such_thing",
            ["gunicorn", "--workers", "2"],
            "ModuleNotFoundError: No module named 'no_such_thing'",
        ),
        ("import no_such_thing", ["uvicorn", "--workers", "2"], "ModuleNotFoundError: No module named 'no_such_thing'"),
        ("import no_such_thing", ["waitress"], "ModuleNotFoundError: No module named 'no_such_thing'"),
        ("import no_such_thing", ["flask-dev"], "ModuleNotFoundError: No module named 'no_such_thing'"),
        ("import sys; sys.exit('no SECRET')", ["gunicorn"], "SystemExit: no SECRET"),
        ("import sys; sys.exit(0)", ["uvicorn", "--workers", "2"], "SystemExit: 0"),  # it would be started for ever
        ("def app(", ["gunicorn"], "SyntaxError: '(' was never closed (main.py, line 1)"),
        ("x = 1", ["uvicorn"], "AttributeError: module 'main' has no attribute 'app'"),
        ("raise ValueError('two\\nlines')", ["gunicorn", "--server-args", "--preload"], "ValueError: two lines"),
        (LIFESPAN, ["uvicorn"], "RuntimeError: no database"),
        (LIFESPAN, ["uvicorn", "--workers", "2"], "RuntimeError: no database"),
        (LIFESPAN, ["gunicorn-asgi"], "RuntimeError: no database"),
        ("import os; os.abort()", ["gunicorn"], "was sent SIGABRT!"),
        ("import os; os.abort()", ["uvicorn"], "was ended by SIGABRT"),
        ("import os; os.abort()", ["uvicorn", "--workers", "2"], "died"),
        (BUSY_PORT, ["gunicorn", "--workers", "2"], "Address already in use"),
        ("app = 1", ["uvicorn", "--server-args", "--bogus"], "No such option"),
    ],
)
def test_an_app_that_cannot_start_is_named_in_one_line_at_once(folder, capsys, main, arguments, message):
    (folder / "main.py").write_text(main.replace("PORT", str(serve.free_port())))
    begun_s = time.monotonic()
    assert bench.main([*APP, *arguments, "--logs", "logs"]) == 3
    assert time.monotonic() - begun_s < 15
    err = capsys.readouterr().err
    assert message in err and ".server.log)" in err and err.count("\n") == 1


def test_without_a_server_to_ask_an_app_that_does_not_load_says_why_itself(folder, capsys):
    (folder / "main.py").write_text("import no_such_thing")
    assert bench.main(["--app", "main:app", "--logs", "logs"]) == 3
    err = capsys.readouterr().err
    assert "ModuleNotFoundError: No module named 'no_such_thing'" in err and err.count("\n") == 1


RAISES = """
import os, signal, sys, time
class SoldOut(Exception): pass
def app(environ, start_response):
    if environ.get("HTTP_X_REQUEST_ID"):
        ACTION
    start_response("200 OK", [])
    return [b"ok"]
"""
POOL = (
    "from fastapi import FastAPI\nimport psycopg_pool\napp = FastAPI()\n@app.get('/')\nasync def index():\n    raise "
)


@pytest.mark.parametrize(
    ("main", "arguments", "sentence"),
    [
        (RAISES.replace("ACTION", "raise SoldOut('no tickets')"), ["gunicorn"], "SoldOut: no tickets"),
        (RAISES.replace("ACTION", "raise SoldOut('no tickets')"), ["waitress"], "SoldOut: no tickets"),
        (RAISES.replace("ACTION", "raise SoldOut('no tickets')"), ["gunicorn-gevent"], "SoldOut: no tickets"),
        (RAISES.replace("ACTION", "print('QueuePool limit of size 5 overflow 10 reached', file=sys.stderr); 1 / 0"),
         ["gunicorn"], "QueuePool limit of size 5 overflow 10 reached"),
        (POOL + "psycopg_pool.PoolTimeout('couldn\\'t get a connection after 30.00 sec')", ["uvicorn"],
         "psycopg_pool.PoolTimeout: couldn't get a connection after 30.00 sec"),
        (POOL + "ValueError('sold out')", ["gunicorn-asgi"], "ValueError: sold out"),
        (RAISES.replace("ACTION", "os.kill(os.getpid(), signal.SIGKILL)"), ["gunicorn"],
         "was sent SIGKILL! Perhaps out of memory?"),
        (RAISES.replace("ACTION", "time.sleep(20)"), ["gunicorn", "--server-args", "--timeout 1"], "WORKER TIMEOUT"),
        (RAISES.replace("ACTION", "os._exit(4)"), ["waitress"], "the server ended in the run"),
        ("from flask import Flask\napp = Flask('x')\n@app.route('/')\ndef index(): return {}['price']", ["flask-dev"],
         "KeyError: 'price'"),
        ("async def app(scope, receive, send): pass", ["gunicorn"], "missing 1 required positional argument: 'send'"),
    ],
)  # fmt: skip
def test_the_first_lines_of_a_report_on_an_app_that_fails_say_why(folder, capsys, main, arguments, sentence):
    (folder / "main.py").write_text(main)
    assert bench.main([*APP, *arguments, "-n", "2", "--logs", "logs"]) == 1
    out, err = capsys.readouterr()
    report = out[out.index("\nverdict") :].strip().splitlines()[:10]
    assert sentence in " ".join(" ".join(report).split()), report
    assert err == ""


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


# ---------------------------------------------------------------- serve.py itself


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


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_server_in_the_foreground_says_where_it_is_shows_its_log_and_goes(tmp_path, name):
    command = [sys.executable, str(HERE / "serve.py"), "flask-gunicorn", "--task-time", "0.01", "--logs", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        url = re.match(r"(http://127\.0\.0\.1:\d+/io)  4 workers, 1 each; Ctrl-C stops it\n", line)[1]
        workers = [int(re.search(r"\[pid-(\d+)\] ready", process.stdout.readline())[1]) for _ in range(4)]
        with urllib.request.urlopen(url, timeout=10) as response:
            assert response.status == 200
        assert "GET /io 200" in process.stdout.readline()
        process.send_signal(getattr(signal, name))
        _, err = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, err) == (0, "")
    assert not any(map(alive, workers))  # when it has gone, so have they


def test_a_server_that_ends_by_itself_is_said_to(folder):
    (folder / "main.py").write_text(
        "import os, threading\nthreading.Timer(1, lambda: os._exit(4)).start()\ndef app(e, s): pass"
    )
    command = [sys.executable, str(HERE / "serve.py"), "--app", "main:app", "--server", "waitress", "--logs", "logs"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "the server ended" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nginx"], 2, "unknown target 'nginx'"),
        (["flask-gunicorn", "--path", "/nope"], 2, "no path '/nope'"),
        (["flask-gunicorn", "--app", "x:y"], 2, "say which target"),
        (["--workers", "2"], 2, "say which target"),
        (["--app", "no_such_module:app", "--server", "gunicorn", "--logs", "logs"], 3, "ModuleNotFoundError"),
        (["flask-gunicorn", "--logs", "/dev/null"], 2, "is not a folder"),
    ],
)
def test_what_serve_cannot_do_is_one_line(folder, capsys, arguments, code, message):
    assert serve.main(arguments) == code
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and out == ""


def test_the_manual_and_the_list_show_every_target(capsys):
    assert serve.main([]) == serve.main(["--list"]) == 0
    out = capsys.readouterr().out
    assert all(out.count(name) >= 2 for name in serve.TARGETS)
    assert "gunicorn --bind 127.0.0.1:PORT --workers 4 --threads 4 APP" in out
    assert re.search(r"/io +160 slots +AnyIO", out) and re.search(r"/async-io +no limit", out)


@pytest.mark.parametrize(
    "command",
    [
        *("serve.py --list", "serve.py", "bench.py --help", "bench.py --list", "bench.py", "load.py", "load.py --help"),
        *("sweep.py", "sweep.py --list", "sweep.py report logs/example/sweep-ab.json", "slots.py"),
        *("slots.py --help", "slots.py --slots 4 --wait 1 -n 16", "slots.py --rate 256 --wait 0.05 --p99 0.1"),
    ],
)
@pytest.mark.parametrize(("redirect", "code"), [("| true", 0), (">&-", 0), ("> /dev/full", 2)])
def test_an_output_that_nobody_reads_is_no_traceback(command, redirect, code):
    script = f"set -o pipefail; cd {HERE}; {sys.executable} {command} {redirect}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=30)
    assert done.returncode == code
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert done.stderr.count("\n") == (1 if code else 0)
