"""A cheap request beside the load: predicted by the queue that it stands in, and measured on real servers."""

from __future__ import annotations

import dataclasses

import pytest
from commands import run_bench
from samples import LAUNCH, sample_plan
from servers import write_files

from engine.loads import Closed
from engine.model import Service, predict, wait_behind
from engine.run import Deal
from engine.victim import predicted_victim

USERS = Closed(time_limit_s=10.0, concurrency=10)
UVICORN = dataclasses.replace(LAUNCH, server="uvicorn", workers=1)


@pytest.mark.parametrize("at_s, wait_s", [(0.0, 2.0), (0.5, 1.5), (1.5, 0.5), (2.5, 0.0), (9.0, 0.0)])
def test_one_more_request_waits_for_those_before_it(at_s, wait_s):
    rounds = predict([0.0] * 5, Service((2,)), 1.0)  # 2, 2, 1: then a slot is free
    assert wait_behind(rounds, 2, at_s) == wait_s
    assert wait_behind(rounds, 6, at_s) == 0.0


@pytest.mark.parametrize(
    "handler, victim, slots, median_s",
    [
        ("def", "def", 40, 0.01),  # there is a thread for each
        ("def", "def", 5, 1.4),  # in rounds: behind five that wait and five that are worked on
        ("def", "async", 5, 0.01),
        ("blocking", "async", 1, 9.1),
        ("async", "def", 5, 0.01),
        (None, "def", 5, None),
        ("def", None, 5, None),
    ],
)
def test_a_victim_waits_if_it_needs_the_same_slots(handler, victim, slots, median_s):
    launch = dataclasses.replace(UVICORN, handler=handler)
    plan = sample_plan(
        launch=launch, load=USERS, victim="/x", victim_handler=victim, workers=1, slots=slots, slots_per_worker=slots
    )
    found = predicted_victim(plan, 0.01)
    assert (found and found.median_s) == (median_s and pytest.approx(median_s, abs=0.2))


def test_each_process_has_a_median_of_its_own():
    launch = dataclasses.replace(UVICORN, handler="def", workers=2)
    users = dataclasses.replace(USERS, concurrency=3)
    plan = sample_plan(
        launch=launch, load=users, victim="/x", victim_handler="def", workers=2, slots=2, slots_per_worker=1,
        shared_queue=False,
    )  # fmt: skip
    even = predicted_victim(plan, 0.01)
    assert len(even.of_processes_s) == 2 and even.range_s is None
    dealt = dataclasses.replace(plan, deal=Deal(((0.9, 0.1),), "2026-01-01", 3.0, 100, ((0,) * 9 + (1,),)))
    favourite_s, other_s = predicted_victim(dealt, 0.01).of_processes_s
    assert other_s < 0.1 and favourite_s > 1.0  # nearly all three are behind one slot
    low_s, high_s = predicted_victim(dealt, 0.01).range_s
    assert low_s <= other_s and favourite_s <= high_s


APP = """
import time
from fastapi import FastAPI
app = FastAPI()
app.get("/slow")(lambda: time.sleep(0.5))
app.get("/def")(lambda: "x")
@app.get("/async")
async def cheap():
    return "x"
"""


@pytest.mark.parametrize("path, waits", [("/def", True), ("/async", False)])
def test_a_cheap_request_waits_behind_the_slow_ones(tmp_path, monkeypatch, path, waits):
    write_files(tmp_path, {"main.py": APP})
    monkeypatch.chdir(tmp_path)
    line = ["--app", "main:app", "--path", "/slow", "--anyio-threads", "10", "-c", "30", "-t", "3", "--victim", path]
    code, document = run_bench(tmp_path, *line)
    found = document["runs"][0]["victim"]
    assert code == 0 and (found["path"], found["failed"]) == (path, 0) and 10 <= found["answered"] <= 50
    assert (found["prediction"]["median_s"] > 0.5) == (found["latency_s"]["median"] > 0.5) == waits


@pytest.mark.parametrize("workers", ["1", "4"])
def test_those_that_a_burst_ends_before_have_waited_as_predicted(tmp_path, monkeypatch, capsys, workers):
    """The first of them are answered, and these have waited longest."""
    write_files(tmp_path, {"slow.py": SLOW})
    monkeypatch.chdir(tmp_path)
    line = ["--app", "slow:app", "--path", "/slow", "-n", "16", "--workers", workers, "--victim", "/health"]
    found = run_bench(tmp_path, *line)[1]["runs"][0]["victim"]
    median_s = (found["median_of_all_s"] or [found["latency_s"]["median"]])[0]
    assert 0.7 < median_s / found["prediction"]["median_s"] < 1.2
    said = capsys.readouterr().out
    assert "NOT as predicted" not in said[said.rindex("\nvictim ") :]


SLOW = """
import time
from flask import Flask
app = Flask(__name__)
app.get("/slow", endpoint="slow")(lambda: time.sleep(0.3) or "x")
app.get("/health", endpoint="health")(lambda: "ok")
"""
