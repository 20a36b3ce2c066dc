"""One run explained: stalls, possibilities, what the app says of itself, what the user knows."""

from __future__ import annotations

import dataclasses
from array import array
from typing import Any

import pytest

import bench
import explain
import load
import serve
import slots


def exchanges_of(ends: list[tuple[float, int]]) -> load.Exchanges:
    """A burst at time 0, each request ended at a time with a status."""
    found = load.Exchanges()
    for at_s, status in ends:
        for column in load.Exchanges.COLUMNS:
            getattr(found, column).append({"status": status, "body_bytes": 2, "error": 0}.get(column, 0.0))
        found.started_s[-1] = found.sent_s[-1] = 1e-9
        found.first_byte_s[-1] = found.answered_s[-1] = at_s
    assert isinstance(found.answered_s, array)
    return found


def run_of(**changes: Any) -> Any:
    plan = bench.make_plans(bench.parse_arguments(["--url", "http://127.0.0.1/", "-n", "10"]))[0]
    return {**explain.describe(plan), "failed": 5, "sent": 10, "lone_s": 0.1, "server_said": None} | changes


@pytest.mark.parametrize(
    ("ends", "stall"),
    [
        ([(0.1, 200)] * 5 + [(2.0, 500)] * 3 + [(2.1, 200)] * 2, (0.1, 2.0)),
        ([(2.0, 500)] * 5 + [(2.1, 200)] * 5, (0.0, 2.0)),
        ([(0.1, 200), (0.5, 200), (1.0, 200), (1.5, 200), (2.0, 500)], None),  # others are served all the time
        ([(0.1, 500)] * 10, None),  # it fails at once
        ([(0.1, 500)] + [(1.2, 200)] * 9, None),  # before the silence, not at its end
        ([(2.0, 200)] * 5 + [(2.1, 500)] * 5, (0.0, 2.0)),  # who is freed first may be answered first
        ([(0.1, 200)] * 5 + [(1.15, 500)] * 5, (0.1, 1.15)),
        ([(0.1, 200)] * 5 + [(1.05, 500)] * 5, None),  # less than ten times what a lone one takes
        ([(2.0, 200)] * 5 + [(2.5, 500)] * 5, None),  # it was slow, and failed for its own reasons
    ],
)
def test_a_stall_is_a_silence_that_a_failure_ends(ends, stall):
    assert explain.stall_of(run_of(), exchanges_of(ends), 0.0) == stall


def test_two_pools_are_named_with_their_threshold_only_if_the_log_says_their_sizes():
    says = (
        "sqlalchemy.exc.TimeoutError: QueuePool limit of size 5 overflow 10 reached, connection timed out, timeout 2.00"
    )
    evidence, suspect = explain.two_pools(run_of(server_said=says, sent=100), (0.1, 2.1), 40, holds=True)
    assert "from 100 ms to 2.10 s" in evidence
    assert "40 threads + 15 connections = 55 at once" in suspect["what"] and "the app says so" in suspect["what"]
    assert "ceil(100 / 15) rounds, 700 ms" in suspect["predicted_effect"]
    assert suspect["default"] == "pool time-out 2.00 s"
    _, suspect = explain.two_pools(run_of(), (0.0, 30.0), 40, holds=False)
    assert "15" not in suspect["what"] and "it begins at threads + connections" in suspect["what"]
    assert suspect["default"] == "a time-out of 30.00 s"


APP = serve.Launch("main:app", "uvicorn", "main:app", is_target=False)
BURST = load.Traffic(pace=load.Pace(100))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, {"a `def` handler": 0.3, "an `async def` that awaits": 0.1, "one that blocks": 10.0}),
        ({"handlers": ("async", "blocking")}, {"an `async def` that awaits": 0.1, "one that blocks": 10.0}),
        ({"workers": 2}, {"a `def` handler": 0.2, "an `async def` that awaits": 0.1, "one that blocks": 5.0}),
        ({"handler": "def"}, {}),
    ],
)
def test_what_cannot_be_known_is_predicted_for_each_possibility(changes, found):
    plan = explain.Plan("main:app", BURST, dataclasses.replace(APP, **changes), wait_s=0.1)
    assert explain.possibilities(plan) == pytest.approx(found)


def test_what_the_app_says_decides_its_slots_and_passes():
    turns = ["before", "handler", "after"]
    says: Any = {"kind": "asgi", "framework": "fastapi", "handler": "def", "thread_passes": turns,
                 "yield_dependencies": 1, "packages": ["sqlalchemy", "psycopg_pool"]}  # fmt: skip
    launch = serve.as_it_says(APP, says)
    assert (launch.slots_per_worker, launch.passes, launch.holds_while_queueing) == (40, (0.0, 1.0, 0.0), True)
    assert set(launch.imported or ()) == {"anyio", "sqlalchemy", "psycopg-pool", "uvicorn"}
    assert serve.as_it_says(APP, says | {"thread_passes": ["handler"]}).holds_while_queueing is False
    assert serve.as_it_says(APP, says | {"handler": "async"}).slots_per_worker is None
    assert dataclasses.replace(launch, anyio_threads=7).slots_per_worker == 7
    of_django = says | {"framework": "django", "thread_passes": []}
    assert serve.as_it_says(APP, of_django).slots_per_worker == slots.NO_LIMIT
    assert serve.as_it_says(APP, of_django | {"handler": "async"}).slots_per_worker is None
    on_gunicorn = dataclasses.replace(APP, server="gunicorn")
    assert serve.as_it_says(on_gunicorn, of_django | {"kind": "wsgi"}).slots_per_worker == 1
    in_asyncio = serve.as_it_says(APP, says | {"framework": "quart", "thread_passes": []}).slots_per_worker
    assert in_asyncio == serve.HANDLERS["async in asyncio's threads"][0]


def test_stated_slots_and_waits_are_predicted_with():
    (plan,) = bench.make_plans(
        bench.parse_arguments(["--url", "http://127.0.0.1/", "-n", "100", "--slots", "15", "--wait", "0.1"])
    )
    described = explain.describe(plan)
    assert described["prediction"] and described["prediction"]["makespan_s"] == pytest.approx(0.7)
    assert described["predicted_s"] == pytest.approx(slots.burst_s(100, 15, 0.1))


def test_what_may_be_suspected_is_what_the_app_says_it_imported():
    plan = explain.Plan("main:app", BURST, dataclasses.replace(APP, imported=("sqlalchemy", "uvicorn")))
    assert bench.packages_of(plan) == {"sqlalchemy", "uvicorn"}
    assert {"pytest"} <= (bench.packages_of(dataclasses.replace(plan, launch=APP)) or set())
    assert bench.packages_of(dataclasses.replace(plan, launch=None)) is None
