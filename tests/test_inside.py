"""Looking inside whatever starts the service: --run, the processes behind a --url, and what a sampler leaves alone."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys

import pytest
from commands import BENCH
from servers import alive, wait_until, write_files

WSGI = """
import threading, time
seats = threading.BoundedSemaphore(3)
def app(environ, start_response):
    with seats:
        time.sleep(0.1)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
ASGI = """
import asyncio, sys
from fastapi import FastAPI
app = FastAPI()
seats = asyncio.Semaphore(3)
async def seat():
    async with seats:
        await asyncio.sleep(0.1)
@app.get("/")
async def index():
    await seat()
if __name__ == "__main__":
    import uvicorn
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]))
"""
DJANGO = """
import sys, threading, time
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpResponse
from django.urls import path
settings.configure(DEBUG=True, ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x")
seats = threading.BoundedSemaphore(3)
def index(request):
    with seats:
        time.sleep(0.1)
    return HttpResponse("ok")
urlpatterns = [path("", index)]
if __name__ == "__main__":
    execute_from_command_line(sys.argv)
"""
FLASK = """
import threading, time
from flask import Flask
app = Flask(__name__)
seats = threading.Semaphore(3)
@app.get("/")
def index():
    with seats:
        time.sleep(0.1)
    return "ok"
"""
PATCHED = """
import time
from gevent.lock import BoundedSemaphore
seats = BoundedSemaphore(3)
def app(environ, start_response):
    with seats:
        time.sleep(0.1)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
FORKS = """
import os, threading, time
seats = threading.BoundedSemaphore(3)
def app(environ, start_response):
    with seats:
        time.sleep(0.1)
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
MODULES = {"plain": WSGI, "coroutine": ASGI, "manage": DJANGO, "small": FLASK, "patched": PATCHED, "forks": FORKS}
FILES = {
    **{f"{name}.py": text for name, text in MODULES.items()},
    "start.sh": f"exec {shlex.quote(sys.executable)} -m uvicorn --port $1 coroutine:app",
    "sitecustomize.py": "import builtins\nbuiltins.mine = 'mine'",
}
PYTHON = f"{shlex.quote(sys.executable)} -m "


def run(folder, *arguments):
    write_files(folder, FILES)
    command = [*BENCH, "-n", "36", "--logs", "logs", "--json", "run.json", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "run.json").read_text())["runs"][0]


def lines_of(text):
    """Where requests wait in it, and where they hold what the others wait for."""
    line = next(number for number, line in enumerate(text.splitlines(), 1) if "with seats" in line)
    return line, line + 1


@pytest.mark.parametrize(
    "name, command",
    [
        ("plain", f"{PYTHON}gunicorn -b 127.0.0.1:{{port}} --threads 12 plain:app"),
        ("plain", f"{PYTHON}waitress --listen 127.0.0.1:{{port}} --threads 12 plain:app"),
        ("small", f"{PYTHON}flask --app small run --port {{port}}"),
        ("manage", f"{shlex.quote(sys.executable)} manage.py runserver --noreload 127.0.0.1:{{port}}"),
        ("coroutine", f"{shlex.quote(sys.executable)} coroutine.py {{port}}"),
        ("coroutine", "sh start.sh {port}"),
        ("coroutine", f"{PYTHON}hypercorn -b 127.0.0.1:{{port}} coroutine:app"),
        ("coroutine", f"{PYTHON}granian --interface asgi --host 127.0.0.1 --port {{port}} coroutine:app"),
        ("coroutine", f"{PYTHON}gunicorn -b 127.0.0.1:{{port}} -k asgi coroutine:app"),
        ("coroutine", f"{PYTHON}gunicorn -b 127.0.0.1:{{port}} -k uvicorn_worker.UvicornWorker coroutine:app"),
        ("coroutine", f"{PYTHON}uvicorn --port {{port}} --loop uvloop coroutine:app"),
        ("patched", f"{PYTHON}gunicorn -b 127.0.0.1:{{port}} -k gevent --preload patched:app"),
        ("forks", f"{PYTHON}gunicorn -b 127.0.0.1:{{port}} --threads 12 forks:app"),
    ],
    ids=lambda text: " ".join(text.replace("{port}", "").split()[-3:]),
)
def test_whatever_starts_the_service_the_line_is_seen(tmp_path, name, command):
    if "uvloop" in command:
        pytest.importorskip("uvloop")
    few = ("-n", "9") if "runserver" in command else ()  # its listen queue holds ten
    found = run(tmp_path, "--run", command, *few)
    waits, works = (f"{name}.py:{line}" for line in lines_of(MODULES[name]))
    (limit, *_) = found["verdict"]["limits"]
    assert (limit["line"], limit["slots"]) == (waits, 3)
    assert works in {place["line"] for place in found["inside"]["where"]["places"] if place["state"] == "working"}


def test_the_users_own_sitecustomize_runs_and_its_command_must_have_a_port(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    program = "assert mine == 'mine'; import waitress, plain; waitress.serve"
    code = f"{program}(plain.app, listen='127.0.0.1:{{port}}', threads=12)"
    found = run(tmp_path, "--run", f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}")
    assert found["verdict"]["limits"][0]["slots"] == 3
    for wrong in ("no-such-program {port}", "uvicorn main:app"):
        done = subprocess.run([*BENCH, "--run", wrong], capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.count("\n") == 1


@pytest.mark.skipif(not os.path.exists("/proc/net/tcp"), reason="Linux only")
def test_the_processes_behind_a_url_are_known(tmp_path):
    write_files(tmp_path, FILES)
    port = 8000 + os.getpid() % 1000
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "-b",
        f"127.0.0.1:{port}",
        "--workers",
        "2",
        "--threads",
        "3",
        "plain:app",
    ]
    server = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(2):
            while "Booting worker" not in server.stderr.readline():
                pass
        found = run(tmp_path, "--url", f"http://127.0.0.1:{port}/")
    finally:
        server.terminate()
        server.communicate()
    assert len(found["plan"]["listeners"]) == 3 and "gunicorn" in " ".join(found["plan"]["listeners"][0]["command"])
    assert (found["plan"]["workers"], found["plan"]["slots"], found["plan"]["slots_known"]) == (2, 6, True)
    assert found["measured"]["server_cpu_s"] > 0 and found["inside"] is None


def test_nothing_is_left_of_a_command_when_the_benchmark_is_killed(tmp_path):
    write_files(tmp_path, FILES)
    command = f"{PYTHON}uvicorn --port {{port}} --workers 2 coroutine:app"
    bench = subprocess.Popen([*BENCH, "--run", command, "-c", "4", "-t", "60", "--logs", "logs"], cwd=tmp_path)
    log = tmp_path / "logs"
    text = wait_until(lambda: "".join(path.read_text() for path in log.glob("*/access.log") if path.stat().st_size))
    pids = {int(line.partition("pid-")[2].partition("]")[0]) for line in text.splitlines()}
    bench.send_signal(signal.SIGKILL)
    bench.wait()
    wait_until(lambda: not any(map(alive, pids)))
    assert pids
