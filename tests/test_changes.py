"""Changes of the settings: what they will do, by what limited the run before; and on real servers, what they do."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

import pytest
from commands import run_bench
from samples import LAUNCH, sample_plan, sample_run, sample_statistics, sample_where
from servers import write_files

import bench
from engine.changes import advised, expected_s
from engine.loads import Closed
from engine.page import lead
from engine.places import Limit, Resource
from engine.run import Verdict


def run_with(resource, slots, held_s=1.0, **changes):
    limit = Limit(resource, 1.0, slots / held_s, slots, held_s)
    return sample_run(where=sample_where(limit=limit), verdict=Verdict(None, (limit,), None, None, ()), **changes)


@pytest.mark.parametrize(
    "last_s, options, slots, workers, first",
    [
        (2.0, "--workers 8", 8, 8, run_with(Resource.SLOTS.value, 4)),
        (2.0, "--workers 8", 160, 8, run_with("a semaphore", 4)),  # one in each process
        (4.0, "--workers 8", 160, 8, run_with("SQLite's write lock", 4)),
        (4.0, "--threads 40", 160, 4, run_with("a semaphore", 4)),  # threads do not help it
        (8.0, "--threads 2", 2, 4, run_with("a semaphore", 4)),  # but fewer of them harm
        (None, "--env POOL=9", 4, 4, run_with("a semaphore", 4)),
        (None, "--threads 2", None, 4, run_with("AnyIO's threads", 4)),
    ],
)
def test_a_change_is_predicted_from_what_was_seen(last_s, options, slots, workers, first):
    plan = sample_plan(slots=slots, workers=workers, slots_known=slots is not None)
    assert expected_s(plan, options, first) == last_s


@pytest.mark.parametrize(
    "options, resource",
    [
        ("--workers 8", Resource.SLOTS.value),
        ("--workers 8", "a lock (lock)"),
        ("--anyio-threads 80", "AnyIO's threads"),
        (None, "SQLite's write lock"),
        (None, Resource.CPU.value),  # of all CPUs
    ],
)
def test_what_is_advised_is_more_of_what_limits(options, resource):
    assert advised(run_with(resource, 4, launch=LAUNCH)) == options


APP = """
import threading, time
from fastapi import FastAPI
app, pool = FastAPI(), threading.Semaphore(5)
@app.get("/")
def holds():
    with pool:
        time.sleep(0.2)
"""


def test_a_change_that_helps_and_one_that_does_not_are_predicted_on_a_real_server(tmp_path, monkeypatch, capsys):
    write_files(tmp_path, {"main.py": APP})
    monkeypatch.chdir(tmp_path)
    tries = ["--try", "auto", "--try", "--anyio-threads 80", "--try", "--workers 2"]  # the last is what auto is
    code, document = run_bench(tmp_path, "--app", "main:app", "-n", "40", *tries)
    took_s = [run["measured"]["measured_s"] for run in document["runs"]]
    assert [run["plan"]["tried"] for run in document["runs"]] == ["", "--workers 2", "--anyio-threads 80"]
    assert code == 0
    said = re.findall(r"(?m)^try  .*: ([\d.]+) (ms|s) is predicted", capsys.readouterr().out)
    due_s = [float(number) * (0.001 if unit == "ms" else 1) for number, unit in said]
    assert due_s == pytest.approx([took_s[0] / 2, took_s[0]], rel=0.1)
    assert took_s[2] == pytest.approx(due_s[1], rel=0.1)
    assert 0.9 * due_s[0] < took_s[1] < 1.1 * took_s[0]  # the kernel deals the requests, more or less evenly


@pytest.mark.parametrize("words, says", [
    ("--run 'uvicorn main:app --port {port}' --try '--workers 2'", "does not go with"),
    ("--target flask-waitress --path /io --try '--workers 2'", "no --workers"),
    ("--target flask-waitress --path /io --try '--nothing 2'", "--nothing"),
])  # fmt: skip
def test_a_change_that_cannot_be_made_is_said_before_anything_is_started(tmp_path, capsys, words, says):
    assert bench.main([*shlex.split(words), "--logs", str(tmp_path / "logs")]) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    "first",
    [
        run_with("a semaphore", 4, held_s=0.5),  # this would end in half of the time that was measured
        run_with("a semaphore", 4, held_s=1.1, wait_s=0.3),  # what it waits for meanwhile was not seen
        run_with(Resource.MACHINE, 4),  # it depends on the client, too
    ],
)
def test_where_what_was_seen_does_not_give_the_run_itself_no_change_is_predicted(first):
    assert expected_s(sample_plan(slots=8, workers=8), "--workers 8", first) is None


def test_of_computing_each_process_is_a_slot():
    limits = (Limit(Resource.CPU, 1.0, held_s=0.25, cpus=1),)
    computes = sample_run(
        where=sample_where(limit=None), verdict=Verdict(None, limits, None, None, ()), workers=1, slots_per_worker=16,
        server_slots=16, slots=16, server_cpu_s=4.0,
    )  # fmt: skip
    plans = [sample_plan(slots=16 * n, slots_per_worker=16, server_slots=16, workers=n) for n in (1, 2, 4)]
    due_s = [expected_s(plan, f"--workers {plan.workers}", computes) for plan in plans]
    assert due_s == pytest.approx([4.75, 2.75, 2.75])  # 16 x 0.25 s on one CPU and on two, and what the last one waits


USERS = Closed(time_limit_s=10.0, concurrency=60)


@pytest.mark.parametrize("processes, due_s", [(1, 1.26), (2, 0.63)])
def test_the_wait_for_cpu_time_is_no_time_that_a_thread_is_needed(processes, due_s):
    """60 users and 40 threads, one CPU and 21 ms of it for a request."""
    limits = Limit(Resource.CPU, 1.0, 48.0, held_s=0.021, cpus=1), Limit("AnyIO's threads", 1.0, 48.0, 40, 0.83)
    first = sample_run(
        where=sample_where(limit=limits[1]), verdict=Verdict(None, limits, None, None, ()), workers=1, wait_s=0.021,
        slots=40, slots_per_worker=40, server_slots=40, load=USERS,
        latency_s=sample_statistics(mean=1.26), throughput_rps=48.0,
    )  # fmt: skip
    plan = replace(first.plan, workers=processes, slots=40 * processes, cpus=2)
    assert expected_s(plan, f"--workers {processes}", first) == pytest.approx(due_s, rel=0.1)


@pytest.mark.parametrize("cpus, due_s", [(1, 0.21), (2, 0.105)])
def test_more_threads_give_no_more_than_the_cpu_that_is_the_next_limit(cpus, due_s):
    """20 users; 10.5 ms of CPU time in 42 ms: of a process that was seen to use one CPU, or two."""
    limits = Limit(Resource.SLOTS, 1.0, 24.0, 1, 0.042), Limit(Resource.CPU, 0.25, 95.0, held_s=0.0105, cpus=cpus)
    first = sample_run(
        where=sample_where(limit=limits[0]), verdict=Verdict(None, limits, None, None, ()), workers=1, wait_s=0.042,
        slots=1, slots_per_worker=1, server_slots=1, load=replace(USERS, concurrency=20),
        latency_s=sample_statistics(mean=0.84), throughput_rps=24.0,
    )  # fmt: skip
    plan = replace(first.plan, slots=8, slots_per_worker=8, server_slots=8, cpus=2)
    assert expected_s(plan, "--threads 8", first) == pytest.approx(due_s, rel=0.1)


def test_of_a_run_with_failures_nothing_is_predicted_and_what_it_waited_for_is_advised():
    first = run_with("a semaphore", 4, failed=1, launch=LAUNCH)
    first = replace(first, verdict=replace(first.verdict, limits=()))
    assert expected_s(sample_plan(slots=8), "--workers 8", first) is None
    assert advised(first) == "--workers 8"
    assert "a semaphore" in lead(first).lower() and "not known" not in lead(first)
