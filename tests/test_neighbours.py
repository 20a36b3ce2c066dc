"""Who else computes, by process; which of them the service is connected to; a container's limit."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import run_bench
from servers import write_files

from engine import machine, neighbours
from engine.neighbours import Usage

on_linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="/proc is Linux's")


def test_ours_is_what_we_have_started_and_the_rest_is_named_by_its_share(monkeypatch):
    monkeypatch.setattr(neighbours, "peers_of", lambda _: set())
    before = {1: Usage("init", 0, 5.0), 2: Usage("bench", 1, 1.0), 3: Usage("server", 2, 1.0), 4: Usage("db", 1, 7.0)}
    after = before | {
        2: Usage("bench", 1, 2.0), 3: Usage("server", 2, 9.0), 4: Usage("db", 1, 8.0), 5: Usage("db", 4, 0.5),
        6: Usage("worker", 3, 3.0), 7: Usage("other", 1, 0.01), 1: Usage("init", 0, 5.02),
    }  # fmt: skip
    found = neighbours.neighbours(before, after, 2.0, [2])
    assert [(one.name, one.cpus, one.is_connected) for one in found] == [("db", 0.75, False)]


def test_a_process_that_changes_its_name_has_not_computed_all_of_its_time_just_now(monkeypatch):
    monkeypatch.setattr(neighbours, "peers_of", lambda _: set())
    before, after = {2: Usage("kworker/0:2-events", 1, 900.0)}, {2: Usage("kworker/0:2-flush", 1, 900.5)}
    assert [one.cpus for one in neighbours.neighbours(before, after, 1.0, [])] == [0.5]
    assert [one.cpus for one in neighbours.neighbours(before, {2: Usage("other", 1, 0.5)}, 1.0, [])] == [0.5]


BURNS = "import time\nend = time.time() + 20\nwhile time.time() < end: pass"
CONNECTED = """
import socket, sys, threading
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
def burn(sock):
    while sock.recv(1) == b"x":
        sum(range(2_000_000))
        sock.sendall(b"y")
while True:
    threading.Thread(target=burn, args=(listener.accept()[0],), daemon=True).start()
"""
ASKS = """
import os, socket, threading
from flask import Flask
app, lock = Flask(__name__), threading.Lock()
behind = socket.create_connection(("127.0.0.1", int(os.environ["BEHIND"])))
@app.get("/")
def asks():
    with lock:
        behind.sendall(b"x")
        behind.recv(1)
    return ""
"""


@on_linux
def test_a_program_beside_is_named_and_one_that_works_for_the_service_is_no_stranger(tmp_path, monkeypatch):
    write_files(tmp_path, {"asks.py": ASKS})
    monkeypatch.chdir(tmp_path)
    with subprocess.Popen([sys.executable, "-c", CONNECTED], stdout=subprocess.PIPE, text=True,
                          start_new_session=True) as behind:  # fmt: skip
        try:
            monkeypatch.setenv("BEHIND", behind.stdout.readline().strip())
            # It is a child of this process, and so ours, unless it is given away.
            monkeypatch.setattr(neighbours, "family", lambda processes, roots: ours(processes, roots, behind.pid))
            (run,) = run_bench(tmp_path, "--app", "asks:app", "-n", "40", "-c", "2", "--threads", "2")[1]["runs"]
        finally:
            behind.kill()
    assert any(one["is_connected"] for one in run["measured"]["neighbours"])


FAMILY = neighbours.family


def ours(processes, roots, stranger):
    return FAMILY(processes, roots) - {stranger}


def test_threads_of_the_kernel_are_named_together(tmp_path, monkeypatch):
    for pid, name, flags, ticks in ((7, "kworker/0:2-events", 0x04208060, 30), (8, "odd) (name", 0x00400000, 20)):
        (tmp_path / f"{pid}").mkdir()
        (tmp_path / f"{pid}/stat").write_text(
            f"{pid} ({name}) S 2 0 0 0 -1 {flags} 0 0 0 0 {ticks} 10 0 0 20 0 1 0 5\n"
        )
    (tmp_path / "9").mkdir()  # it has ended
    monkeypatch.setattr(neighbours, "PROC", tmp_path)
    ticks_s = os.sysconf("SC_CLK_TCK")
    assert neighbours.usage() == {7: Usage("kernel threads", 2, 40 / ticks_s), 8: Usage("odd) (name", 2, 30 / ticks_s)}


@on_linux
def test_a_reading_is_cheap():
    neighbours.usage()
    begun_s = time.process_time()
    neighbours.usage()
    assert time.process_time() - begun_s < 0.2 and os.getpid() in neighbours.usage()


@pytest.mark.parametrize("outer, inner, limit", [
    ("max 100000", "max 100000", float("inf")), ("150000 100000", "max 100000", 1.5),
    ("400000 100000", "50000 100000", 0.5),
])  # fmt: skip
def test_the_limit_of_a_container_is_the_least_around_it(tmp_path, monkeypatch, outer, inner, limit):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for folder, text in ((tmp_path / "a", outer), (tmp_path / "a" / "b", inner)):
        (folder / "cpu.max").write_text(f"{text}\n")
        (folder / "cpu.stat").write_text("usage_usec 7\nthrottled_usec 9\n")
    monkeypatch.setattr(machine, "cgroup_folders", lambda: [tmp_path / "a" / "b", tmp_path / "a"])
    assert machine.cpu_limit() == limit and machine.throttled_us() == 9


@on_linux
def test_workers_that_are_replaced_in_the_run_are_counted(tmp_path, monkeypatch):
    write_files(tmp_path, {"plain.py": "from flask import Flask\napp = Flask(__name__)\napp.get('/')(lambda: '')\n"})
    monkeypatch.chdir(tmp_path)
    how = ["--app", "plain:app", "-n", "60", "-c", "4", "--workers", "2", "--server-args", "--max-requests 15"]
    (run,) = run_bench(tmp_path, *how)[1]["runs"]
    assert run["inside"]["restarts"] >= 2
    assert "restarts" in {one["id"] for one in run["verdict"]["warnings"]}


def test_connections_that_a_server_has_no_room_for_are_named(tmp_path, monkeypatch):
    """waitress counts two sockets of its own: a limit of 6 serves 4 users."""
    app = "import time\nfrom flask import Flask\napp = Flask(__name__)\n"
    write_files(tmp_path, {"slow.py": app + "@app.get('/')\ndef slow():\n    time.sleep(0.05)\n    return ''\n"})
    monkeypatch.chdir(tmp_path)
    how = ["--run", "waitress-serve --listen=127.0.0.1:{port} --connection-limit 6 slow:app", "-k"]
    (run,) = run_bench(tmp_path, *how, "-c", "9", "-t", "2", "--timeout", "1.5", "--warmup", "0")[1]["runs"]
    (facts,) = [one["facts"] for one in run["verdict"]["warnings"] if one["id"] == "starved"]
    assert facts["opened"] - facts["never"] == 4
