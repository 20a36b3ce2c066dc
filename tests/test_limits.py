"""Tests of the known limits: which of them fits a number, a server, what is installed, and a time-out."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from engine.limits import ASYNCIO_THREADS, KNOWN, suspects
from engine.run import Seen, Suspect
from engine.targets import SERVERS
from tests.samples import sample_estimate


def named(slots: int | None, changes: dict[str, Any] | None = None, **more: Any) -> tuple[Suspect, ...]:
    found = sample_estimate(slots, **{"processes": None} | (changes or {}))
    return suspects(found, more.pop("requests", 200), 0.2, more.pop("cpus", 2), **more)


@pytest.mark.parametrize(
    ("slots", "processes", "server", "handler", "installed", "first", "in_processes"),
    [
        (15, None, "", "", None, "SQLAlchemy's pool", 1),
        (60, 4, "", "", None, "SQLAlchemy's pool", 4),
        (160, None, "uvicorn", "def", None, "AnyIO threads", 4),
        (40, 1, "gunicorn-uvicorn", "def", {"anyio"}, "AnyIO threads", 1),
        (6, 1, "uvicorn", "async", {"anyio"}, "asyncio.to_thread", 1),
        (1, 1, "uvicorn", "blocking", {"anyio"}, "a blocked event loop", 1),
        (4, 1, "waitress", "def", {"waitress", "psycopg-pool"}, "waitress's threads", 1),
        (4, 1, "uvicorn", "async", {"psycopg-pool", "waitress"}, "psycopg's pool (also Django's)", 1),
        (4, 4, "gunicorn", "def", {"gunicorn"}, "gunicorn's sync worker", 4),
        (10, 1, "uvicorn", "async", {"asyncpg"}, "asyncpg's pool", 1),
        (100, 1, "uvicorn", "async", {"aiohttp"}, "aiohttp's connections", 1),
        (20, 8, "", "", set(), "PgBouncer's pool", 1),
    ],
)
def test_the_likeliest_limit_comes_first(slots, processes, server, handler, installed, first, in_processes):
    each = slots // processes if processes and slots % processes == 0 else None
    found = named(slots, {"processes": processes, "each": each}, server=server, handler=handler, installed=installed)
    assert 1 <= len(found) <= 3
    assert (found[0].name, found[0].slots, found[0].processes) == (first, slots, in_processes)


def test_what_is_not_there_is_not_suspected_and_what_fails_at_once_does_not_queue():
    assert named(15, installed={"flask", "requests"}) == ()
    assert "redis 8's pool" not in {one.name for one in named(100)}
    refused = named(None, requests=120, failed_after_s=[0.01] * 20)
    assert (refused[0].name, refused[0].fails_after_s) == ("redis 8's pool", 0)
    assert named(None, requests=20, failed_after_s=[0.01] * 20) == ()  # a server that serves none has an error
    assert named(None, {"seen": Seen.NONE}) == () == named(None)


@pytest.mark.parametrize(("slots", "after_s", "first"), [(100, 5.1, "httpx"), (100, 301, "aiohttp"), (50, 20, "redis")])
def test_of_limits_with_the_same_number_the_time_out_tells_which(slots, after_s, first):
    assert named(slots, {"processes": 1}, failed_after_s=[after_s] * 5)[0].name.startswith(first)


def test_a_certain_number_that_is_no_default_may_have_been_set():
    there = {"sqlalchemy", "httpx", "gunicorn", "anyio", "redis"}
    own = {"installed": there, "server": "gunicorn-threads", "handler": "def"}
    found = named(7, {"processes": 1, "each": 7}, settings_allow=8, **own)
    assert [one.name.split("'")[0] for one in found] == ["SQLAlchemy", "httpx", "redis"]
    assert {(one.slots, one.set_to) for one in found} == {(7, 7)}
    assert {(one.slots, one.set_to) for one in named(14, {"processes": 2, "each": 7}, **own)} == {(14, 7)}
    assert named(7, {"processes": 1}, settings_allow=7, **own) == ()  # these are the settings' own
    assert named(7, {"processes": 1}) == ()  # nothing is known of what is there
    for vague in ({"low": 8}, {"high": None}):
        assert not any(one.set_to for one in named(9, vague, **own))


@pytest.mark.parametrize(("settings", "is_named"), [(math.inf, True), (4, True), (8, False), (3, False)])
def test_a_servers_own_limit_is_suspected_at_what_it_is_set_to(settings, is_named):
    for slots, changes in ((4, {"processes": 1}), (None, {"processes": 1, "seen": Seen.SLOTS, "high": 17})):
        found = named(slots, changes, installed={"waitress"}, server="waitress", settings_allow=settings)
        assert any(one.name == "waitress's threads" for one in found) == is_named


def test_asyncios_threads_follow_the_cpus():
    (executor,) = [one for one in KNOWN if one.default == ASYNCIO_THREADS]
    assert [executor.number(cpus) for cpus in (1, 2, 8, 28, 64)] == [5, 6, 12, 32, 32]


def test_every_row_can_be_met():
    servers = {*SERVERS, "asgi", "def", "async"}
    assert servers.issuperset(itertools.chain(*(one.needs for one in KNOWN)))
    assert all(one.name and one.setting and one.source for one in KNOWN)
