"""How exactly a percentile is known: coverage by simulated queues, drift, and a real server."""

from __future__ import annotations

import math
import random

import pytest
from commands import run_bench
from servers import write_files

import bench
from engine.model import Service, poisson_schedule, predict
from engine.until import Wanted, Watch, drift_of, interval_of, is_exact, parse_until, until_of
from engine.words import Problem


def queue(count, seed, load=0.8, slots=16, wait_s=0.02):
    """Latencies of random arrivals at slots that are so busy."""
    found = predict(poisson_schedule(load * slots / wait_s, count, math.inf, seed), Service((slots,)), wait_s)
    return [end_s - begin_s for begin_s, end_s in zip(found.arrived_s, found.answered_s, strict=True)]


@pytest.mark.parametrize(
    "percentile, count, runs", [(50, 10_000, 40), (95, 10_000, 40), (None, 10_000, 40), (99, 50_000, 20)]
)
def test_the_interval_has_the_true_figure_in_it_though_neighbours_wait_for_each_other(percentile, count, runs):
    many = sorted(queue(200_000, 1))
    true_s = many[math.ceil(percentile / 100 * len(many)) - 1] if percentile else sum(many) / len(many)
    found = [interval_of(queue(count, seed), percentile) for seed in range(10, 10 + runs)]
    known = [one for one in found if one]
    inside = sum(low_s <= true_s * (1 + 1e-9) and true_s <= high_s * (1 + 1e-9) for low_s, high_s in known)
    assert len(known) > runs / 2 and inside >= 0.9 * len(known)


def test_an_interval_that_ends_the_run_by_being_narrow_is_still_right():
    many = sorted(queue(200_000, 1))
    true_s, right, wanted = many[math.ceil(0.95 * len(many)) - 1], 0, Wanted(95, 0.1)
    for seed in range(20):
        latencies_s, watch = queue(20_000, 100 + seed), Watch(wanted)
        count = next((n for n in range(200, 20_000, 100) if watch.is_over(latencies_s[:n])), 20_000)
        low_s, high_s = interval_of(latencies_s[:count], 95)
        right += low_s <= true_s <= high_s
        assert is_exact((low_s, high_s), wanted) or count == 20_000
    assert right >= 17


def test_latency_that_grows_drifts_and_a_busy_queue_does_not():
    dice = random.Random(1)
    assert drift_of([0.05 + k / 20_000 + dice.random() / 50 for k in range(2000)]).last_s > 0.1
    assert drift_of([0.1 - k / 40_000 for k in range(2000)]).last_s < 0.08
    assert sum(bool(drift_of(queue(3000, seed))) for seed in range(60)) <= 1
    assert drift_of([0.1, 0.2] * 50) is None  # too few


def test_why_it_is_not_reached():
    wanted = Wanted(99, 0.01)
    assert until_of(wanted, queue(900, 1), False, False).reason == "too-few"
    assert until_of(wanted, queue(20_000, 1), False, False).reason == "time"
    assert until_of(wanted, [0.1] * 9800 + [0.2 + k / 1000 for k in range(200)], False, False).reason == "uneven"
    assert until_of(Wanted(50, 0.5), queue(5000, 1), True, False).reason == "client"
    assert until_of(Wanted(50, 0.5), [k / 1000 for k in range(5000)], False, True).reason == "drift"
    assert until_of(Wanted(50, 0.5), queue(5000, 1), False, False).reached


@pytest.mark.parametrize("text", ["p99", "p99±", "p99±0%", "p200±5%", "max±5%", "p99+5%", "p100±5%"])
def test_what_is_no_precision_is_said(text):
    with pytest.raises(Problem):
        parse_until(text)


APP = """
import itertools, time
from flask import Flask
app, count = Flask(__name__), itertools.count()
@app.get("/steady")
def steady():
    time.sleep(0.01)
    return ""
@app.get("/grows")
def grows():
    time.sleep(0.005 + next(count) / 20_000)
    return ""
"""


def test_a_load_ends_once_the_figure_is_known_and_not_where_latency_grows(tmp_path, monkeypatch):
    write_files(tmp_path, {"main.py": APP})
    monkeypatch.chdir(tmp_path)
    how = ["--app", "main:app", "--threads", "8", "--path"]
    code, document = run_bench(tmp_path, *how, "/steady", "--rate", "100", "--until", "p50+-60%", "-t", "20", "-q")
    (run,) = document["runs"]
    measured = run["measured"]
    # Beside other programs its latency may drift, and the client be late.
    until = measured["until"]
    assert code == (not until["reached"]) and (until["reached"] or until["reason"] in ("drift", "client"))
    assert 200 <= measured["sent"] < 1500 and measured["due"] == measured["sent"]
    code, document = run_bench(tmp_path, *how, "/grows", "--rate", "100", "--until", "p50±1%", "-t", "5", "-q")
    until = document["runs"][0]["measured"]["until"]
    assert (code, until["reached"], until["reason"]) == (1, False, "drift")
    (run,) = run_bench(tmp_path, *how, "/grows", "-c", "8", "-n", "600", "-q")[1]["runs"]
    assert run["measured"]["drift"]  # of a closed loop, too
    assert bench.main([*how, "/steady", "-n", "9", "--until", "p50±1%"]) == 2
