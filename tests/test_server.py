"""Servers start, say why they do not, leave the user's app as it is, and nothing of them is left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from servers import ANSWER, alive, ask, launch_of, ps, running, wait_until, write_files

from engine.access_log import name_workers, wait_for_log
from engine.launch import INSIDE
from engine.machine import allowed_cpus
from engine.server import (
    RunningServer,
    free_port,
    group_cpu_s,
    guarded,
    start_server,
    stop_server,
    telling_lines,
    why_it_ended,
)
from engine.words import Problem


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The user's own folder, which is the present one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---------------------------------------------------------------- what a server's log says

TRACEBACK = """Traceback (most recent call last):
  File "/app/main.py", line 7, in view
    raise KeyError("couldn't get a connection")
          ^^^^^^^^^^^^^
"""
POOL_LIMIT = "sqlalchemy.exc.TimeoutError: QueuePool limit of size 5 overflow 10 reached, connection timed out"
GUNICORN = "[2026-11-20 17:04:15 +0000] [7] "
TOLD = [
    ("", []),
    ("INFO:     Started server process [1]\n127.0.0.1:5 - \"GET / HTTP/1.1\" 500\nthe server was ended", []),
    (f"{TRACEBACK}errors.SoldOut: no tickets\n", ["errors.SoldOut: no tickets"]),  # by its place, not by its name
    (f"{TRACEBACK}KeyError: 1\n\nDuring handling of the above exception, another exception occurred:\n\n"
     f"{TRACEBACK}RuntimeError: no\n", ["KeyError: 1", "RuntimeError: no"]),
    (f"{TRACEBACK}KeyError: 1\n{TRACEBACK}ValueError: 2\n{TRACEBACK}KeyError: 3\n", ["ValueError: 2", "KeyError: 3"]),
    (f"{TRACEBACK}{POOL_LIMIT}\n" + "".join(f"{TRACEBACK}{name}Error: x\n" for name in "ABC"),
     ["BError: x", "CError: x", POOL_LIMIT]),
    (f"{GUNICORN}[ERROR] Error handling request /\n{TRACEBACK}SystemExit: 1\n"
     f"{GUNICORN}[CRITICAL] WORKER TIMEOUT (pid:7)\n", ["WORKER TIMEOUT (pid:7)"]),
    (f"{GUNICORN}[INFO] Worker (pid:7) was sent SIGTERM!\n", []),  # in every stop
    (f"{GUNICORN}[ERROR] Exception in worker process\n{TRACEBACK}ImportError: no flask\n"
     f"{GUNICORN}[ERROR] Worker (pid:7) exited with code 3.\n{GUNICORN}[ERROR] Shutting down: Master\n"
     f"{GUNICORN}[ERROR] Reason: Worker failed to boot.\n", ["ImportError: no flask"]),
    ("ERROR:    [Errno 98] error while attempting to bind on address ('::1', 80): address already in use\n",
     ["[Errno 98] error while attempting to bind on address ('::1', 80): address already in use"]),
    (f"{TRACEBACK}BrokenPipeError: [Errno 32] Broken pipe\nERROR:shop:no more stock\n", ["no more stock"]),
    (f"[2026-11-20 17:04:15,123] ERROR in app: Exception on / [GET]\n{TRACEBACK}KeyError: 1", ["KeyError: 1"]),
    ("INFO:     Application startup complete.\nINFO: 3 errors of 4 are known\nWARNING:root:slow\n", []),
    ("could not fetch: couldn't get a connection after 30.00 sec\n",
     ["could not fetch: couldn't get a connection after 30.00 sec"]),
    ("  + Exception Group Traceback (most recent call last):\n  |   File \"x\", line 1\n"
     "  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)\n  +-+---------------- 1 -----------\n"
     "    | Traceback (most recent call last):\n    |   File \"x\", line 2\n    | shop.Gone: sold\n"
     "    +------------------------------------\n", ["shop.Gone: sold"]),
]  # fmt: skip


@pytest.mark.parametrize(("log", "lines"), TOLD)
def test_the_last_different_errors_are_found_in_a_servers_log(tmp_path, log, lines):
    (tmp_path / "server.log").write_text(log)
    assert list(telling_lines(tmp_path / "server.log")) == lines


@pytest.mark.parametrize(
    ("log", "why"),
    [
        ("", "it said nothing"),
        (
            "Usage: x\n\nError: No option: --bogus\nthe server ended with exit code 2\n",
            "Error: No option: --bogus; the server ended with exit code 2",
        ),
        ("the server was ended by SIGKILL\n", "the server was ended by SIGKILL"),
        ("INFO:     Child process [7] died\n", "Child process [7] died"),
        (
            f"{TRACEBACK}KeyError: 1\nthe server ended with exit code 1\n",
            "KeyError: 1; the server ended with exit code 1",
        ),
    ],
)
def test_why_a_server_ended_is_its_last_error_or_its_last_word(tmp_path, log, why):
    path = tmp_path / "server.log"
    path.write_text(log)
    assert why_it_ended(path) == f"{why} (see {path})"


# ---------------------------------------------------------------- a user's app on its real server


@pytest.mark.parametrize(
    ("app", "files", "text"),
    [
        ("main:create_app(2, debug=True)", {"main.py": f"{ANSWER}\ndef create_app(m, debug): return answer(m + debug)"},
         "3"),
        ("flask_sync:app", {"flask_sync.py": f"{ANSWER}\napp = answer('the name of ours')"}, "the name of ours"),
        ("main:app", {"main.py": f"{ANSWER}\nimport engine, guard\napp = answer(engine.x + guard.x)",
                      "engine.py": "x = 'my own '", "guard.py": "x = 'modules'"}, "my own modules"),
    ],
)  # fmt: skip
def test_an_app_is_found_by_every_name_that_a_server_would_take(folder, app, files, text):
    write_files(folder, files)
    with running(launch_of("--server waitress", app), folder) as server:
        assert ask(server.port) == (200, text)
        log = wait_for_log(server.access_log, 1)
    assert [(line.status, line.request) for line in log.lines] == [("200", "0")]


FACTORIES = {
    "web.py": "from flask import Flask\ndef create_app(text):\n    app = Flask('web')\n"
              "    @app.route('/')\n    def index(): return text\n    return app",
    "api.py": "from fastapi import FastAPI\ndef create_app(text):\n    app = FastAPI()\n"
              "    @app.get('/')\n    def index(): return text\n    return app",
}  # fmt: skip


@pytest.mark.parametrize(
    ("app", "server"), [("web", "flask-dev"), ("api", "gunicorn-uvicorn"), ("api", "hypercorn"), ("api", "granian")]
)
def test_an_app_factory_of_each_framework_runs_on_its_servers(folder, app, server):
    write_files(folder, FACTORIES)
    with running(launch_of(f"--server {server}", f"{app}:create_app('made')"), folder) as it:
        assert ask(it.port)[1].strip('"') == "made"
        assert len(wait_for_log(it.access_log, 1).lines) == 1


def test_the_environment_of_the_users_app_is_as_it_was(folder, monkeypatch):
    write_files(folder, {"main.py": f"{ANSWER}\nimport json, os, elsewhere\napp = answer(json.dumps(dict(os.environ)))",
                         "lib/elsewhere.py": ""})  # fmt: skip
    for name in ("DATABASE_URL", "POOL_SIZE", "TASK_TIME", "SUBTASKS", "APP", "HOME"):
        monkeypatch.setenv(name, "mine")
    monkeypatch.setenv("PYTHONPATH", str(folder / "lib"))
    with running(launch_of("--server gunicorn"), folder) as server:
        seen = json.loads(ask(server.port)[1])
    ours = {"PYTHONPATH", "PYTHONUNBUFFERED", "SERVER_SOFTWARE"}
    changed = {name for name in seen if seen[name] != os.environ.get(name)}
    assert {name for name in changed if not name.startswith("BENCH_")} <= ours


@pytest.mark.parametrize("kind", ["gunicorn", "gunicorn-asgi"])
def test_a_preloaded_app_has_its_workers_and_no_ghost(folder, kind):
    api = f"{FACTORIES['api.py']}\napp = create_app('x')"
    write_files(folder, {
        "gunicorn.conf.py": "workers = 2\npreload_app = True",
        "main.py": api if kind == "gunicorn-asgi" else f"{ANSWER}\napp = answer('x')",
    })  # fmt: skip
    with running(launch_of(f"--server {kind}"), folder) as server:
        assert "x" in ask(server.port)[1]
        log = wait_for_log(server.access_log, 1)
        masters = {int(pid) for pid in re.findall(r"\[(\d+)\] \[INFO\] Listening", server.server_log.read_text())}
    assert len(log.ready) == len(set(log.ready)) == len(name_workers(log)) == 2
    assert masters and not masters & set(log.ready)


def test_a_server_that_goes_elsewhere_still_logs_here_in_our_zone_and_opens_no_control_socket(folder, monkeypatch):
    for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(folder))
    setting = "import os, time\nos.environ['TZ'] = 'Asia/Tokyo'\ntime.tzset()\n"  # as Django does
    text = "answer(time.strftime('%Z') + os.path.basename(os.getcwd()))"
    write_files(folder, {"sub/main.py": f"{setting}{ANSWER}\napp = {text}"})
    with running(launch_of("--server gunicorn --server-args '--chdir sub'"), folder) as server:
        assert ask(server.port)[1] == "JSTsub"
        (line,) = wait_for_log(server.access_log, 1).lines
        assert [path for path in folder.rglob("*") if path.is_socket() or "gunicorn" in path.name] == []
    assert abs((datetime.fromisoformat(line.stamp) - datetime.now()).total_seconds()) < 60


def test_the_cpu_seconds_of_a_server_are_those_of_all_its_processes(tmp_path):
    if not Path("/proc/self/stat").exists():
        pytest.skip("/proc is Linux's")
    spin = "import time\nwhile time.process_time() < 0.4: pass\n"
    script = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {spin!r}])\n{spin}print(1)\ntime.sleep(60)"
    output = tmp_path / "out"
    process = guarded([sys.executable, "-u", "-c", script], output, dict(os.environ))
    try:
        wait_until(output.read_text, 30)
        assert 0.75 < group_cpu_s(process.pid) < 5  # those of children that have ended, too
    finally:
        stop_server(RunningServer(process, 0, None, output))
    assert group_cpu_s(process.pid) is None


# ---------------------------------------------------------------- an app that cannot start

NO_DATABASE = """
from contextlib import asynccontextmanager
from fastapi import FastAPI
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
NO_MODULE = "ModuleNotFoundError: No module named 'no_such_thing'"


@pytest.mark.parametrize(
    ("main", "line", "message"),
    [
        ("import no_such_thing", "uvicorn --workers 2", NO_MODULE),
        ("import no_such_thing", "waitress", NO_MODULE),
        ("import no_such_thing", "flask-dev", NO_MODULE),
        ("import sys; sys.exit(0)", "uvicorn --workers 2", "SystemExit: 0"),  # it would be started for ever
        ("def app(", "gunicorn", r"SyntaxError: '\(' was never closed \(main.py, line 1\)"),
        ("raise ValueError('two\\nlines')", "gunicorn --server-args --preload", "ValueError: two lines"),
        (NO_DATABASE, "uvicorn --workers 2", "RuntimeError: no database"),
        (NO_DATABASE, "gunicorn-asgi", "RuntimeError: no database"),
        ("import os; os.abort()", "gunicorn", "was sent SIGABRT!"),
        ("import os; os.abort()", "uvicorn", "was ended by SIGABRT"),
        (BUSY_PORT, "gunicorn --workers 2", "Address already in use"),
        ("async def app(scope, receive, send): pass", "uvicorn --server-args --bogus", "No such option"),
    ],
)
def test_an_app_that_cannot_start_is_named_in_one_line_at_once(folder, main, line, message):
    (folder / "main.py").write_text(main.replace("PORT", str(free_port())))
    begun_s = time.monotonic()
    with pytest.raises(Problem, match=message) as caught, running(launch_of(f"--server {line}"), folder):
        pass
    assert caught.value.exit_code == 3 and time.monotonic() - begun_s < 20
    assert "server.log)" in str(caught.value) and "\n" not in str(caught.value)


# ---------------------------------------------------------------- the end

START = f"""
import sys, time
sys.path[:0] = [{str(INSIDE.parents[1])!r}, {str(Path(__file__).parent)!r}]
from pathlib import Path
from servers import launch_of, start_server
start_server(launch_of("--server gunicorn --workers 2"), Path("."), {{min({allowed_cpus()!r})}})
print("started", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("ended", ["parent", "guard", "server"])
def test_no_process_is_left_however_one_of_them_is_killed(folder, ended):
    (folder / "main.py").write_text(f"{ANSWER}\napp = answer('x')")
    parent = subprocess.Popen([sys.executable, "-c", START], stdout=subprocess.PIPE)
    try:
        assert parent.stdout.readline() == b"started\n"
        workers = [int(pid) for pid in re.findall(r"pid-(\d+)\] ready", (folder / "access.log").read_text())]
        (master,) = {int(ps("ppid", pid)) for pid in workers}
        guard = int(ps("ppid", master))
        os.kill({"parent": parent.pid, "guard": guard, "server": master}[ended], signal.SIGKILL)
        wait_until(lambda: not any(map(alive, (*workers, master, guard))))
    finally:
        parent.kill()
        parent.wait()


def test_a_server_that_ends_by_itself_is_noticed_and_a_stop_is_complete(folder):
    (folder / "main.py").write_text(
        f"{ANSWER}\nimport os, threading\nthreading.Timer(1, lambda: os._exit(4)).start()\napp = answer('x')"
    )
    server = start_server(launch_of("--server waitress"), folder, set())
    assert not server.ended
    assert server.ends_within(20)
    stop_server(server)
    assert "the server ended with exit code 4" in server.server_log.read_text()
