"""Requests that wait for each other: who waits for whom, at which lines, from how many on; and that the cures help."""

from __future__ import annotations

import contextlib
import json

import pytest
from commands import ROOT

import bench

SERVICES = ROOT / "tests/services"
UVICORN, GUNICORN = ("--app", "standstills:app"), ("--app", "standstills_wsgi:app", "--threads", "16")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(SERVICES)
    monkeypatch.syspath_prepend(str(SERVICES))

    def run_path(path, *options):
        with contextlib.redirect_stdout(None):
            bench.main([*options, "--path", path, "--logs", f"{tmp_path}", "--json", f"{tmp_path}/run.json", "-q"])
        return json.loads((tmp_path / "run.json").read_text())["runs"][0]

    return run_path


def lines_of(path):
    """The marked lines of a service."""
    return {
        f"{file.name}:{number}"
        for file in SERVICES.glob("standstills*.py")
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if line.endswith(f"# {path}")
    }


def made_at(pool):
    """A pool of the WSGI service as it is named where there are several."""
    lines = (SERVICES / "standstills_wsgi.py").read_text().splitlines()
    number = next(number for number, line in enumerate(lines, 1) if line.startswith(f"{pool} = "))
    return f"SQLAlchemy's pool made at standstills_wsgi.py:{number}"


@pytest.mark.parametrize(
    "path, options, circle, circle_at",
    [
        ("two-pools", (*UVICORN, "-n", "70"), {"AnyIO's threads", "SQLAlchemy's pool"}, 55),
        ("lock", (*UVICORN, "-n", "90", "-s", "1.5"), {"AnyIO's threads", "a lock (lock)"}, 41),
        ("await", (*UVICORN, "-n", "5", "-s", "1.5"), {"the event loop", "a lock (lock)"}, 2),
        ("session", (*UVICORN, "-n", "30", "-s", "3"), {"the event loop", "SQLAlchemy's pool"}, 16),
        ("connections", (*GUNICORN, "-n", "16"), {"SQLAlchemy's pool"}, 5),
        ("twice", (*UVICORN, "-n", "60"), {"SQLAlchemy's pool"}, 15),  # 20 wait for a thread, and have no connection
        ("either-order", (*GUNICORN, "-n", "16"), {made_at("orders"), made_at("stocks")}, 7),
        ("itself", (*GUNICORN, "-n", "20"), {"an answer of this very server"}, 16),
    ],
)
def test_a_standstill_is_named_by_its_circle(run, path, options, circle, circle_at):
    found = run(f"/{path}", *options)["inside"]["where"]
    assert (set(found["circle"]), found["circle_at"]) == (circle, circle_at)
    waited_for = {name.partition(" made at ")[0] for name in circle}
    seen = {place["line"] for place in found["places"] if place["resource"] in waited_for and place["line"]}
    assert seen == lines_of(path)
    if path == "two-pools":  # and the handler whose requests have a connection and wait for a thread
        assert any((place["handler"] or "").startswith("standstills.py:") for place in found["places"])


def test_of_permits_that_are_lost_there_is_no_circle(run):
    assert run("/lost", *UVICORN, "-n", "100", "-s", "2")["inside"]["where"]["circle"] == []


@pytest.mark.parametrize(
    "path, options",
    [
        ("two-pools/cured", (*UVICORN, "-n", "70")),
        ("lock/cured", (*UVICORN, "-n", "50")),
        ("await/cured", (*UVICORN, "-n", "5")),
        ("session/cured", (*UVICORN, "-n", "30")),
        ("connections/cured", (*GUNICORN, "-n", "16")),
        ("connections/larger", (*GUNICORN, "-n", "16")),
        ("price", (*GUNICORN, "-n", "20")),
    ],
)
def test_each_cure_that_is_printed_helps(run, path, options):
    found = run(f"/{path}", *options)
    assert (found["measured"]["failed"], found["inside"]["where"]["circle"]) == (0, [])
