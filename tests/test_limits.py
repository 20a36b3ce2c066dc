"""Tests of the known limits: which of them fits a number, a server, what is installed, and a time-out."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from samples import LAUNCH, sample_estimate, sample_facts
from servers import target_of

from engine.execute import packages_of
from engine.limits import KNOWN, suspects
from engine.targets import SERVERS


def named(slots, processes=None, server="", handler="def", installed=(), failed_after_s=(), settings=8, **changes):
    """The suspects for a number; without a server it is one that we have not started. settings: the slots of them."""
    launch = replace(LAUNCH, server=server, handler=handler) if server else None
    facts = sample_facts(launch=launch, slots=settings, workers=processes or 1, all_cpus=changes.pop("cpus", 2))
    each = slots // processes if processes else None
    found = sample_estimate(slots, **{"processes": processes, "each": each} | changes)
    return suspects(found, facts, installed, failed_after_s)


@pytest.mark.parametrize(
    "first, in_processes, slots, processes, server, handler, installed",
    [
        ("SQLAlchemy's pool", 1, 15, None, "", "", []),
        ("SQLAlchemy's pool", 4, 60, 4, "", "", []),
        ("AnyIO threads", 4, 160, None, "", "", []),
        ("AnyIO threads", 1, 40, 1, "gunicorn-uvicorn", "def", ["anyio"]),
        ("asyncio.to_thread", 1, 6, 1, "uvicorn", "async", ["anyio"]),
        ("a blocked event loop", 1, 1, 1, "uvicorn", "blocking", ["anyio"]),
        ("waitress's threads", 1, 4, 1, "waitress", "def", ["waitress", "psycopg-pool"]),
        ("psycopg's pool (also Django's)", 1, 4, 1, "uvicorn", "async", ["psycopg-pool", "waitress"]),
        ("gunicorn's sync worker", 4, 4, 4, "gunicorn", "def", ["gunicorn"]),
        ("asyncpg's pool", 1, 10, 1, "uvicorn", "async", ["asyncpg"]),
        ("aiohttp's connections", 1, 100, 1, "uvicorn", "async", ["aiohttp"]),
        ("PgBouncer's pool", 1, 20, 8, "uvicorn", "def", []),
    ],
)
def test_the_likeliest_limit_comes_first(first, in_processes, slots, processes, server, handler, installed):
    found = named(slots, processes, server, handler, installed, settings=slots)
    assert 1 <= len(found) <= 3
    assert (found[0].name, found[0].slots, found[0].processes) == (first, slots, in_processes)


def test_without_a_number_or_a_package_nothing_is_suspected():
    assert named(15, 1, "gunicorn", installed=["flask", "requests"]) == () == named(None)


@pytest.mark.parametrize("first, slots, after_s", [("httpx", 100, 5.1), ("aiohttp", 100, 301), ("redis", 50, 20)])
def test_of_limits_with_the_same_number_the_time_out_tells_which(first, slots, after_s):
    assert named(slots, 1, failed_after_s=[after_s] * 5)[0].name.startswith(first)


def test_a_certain_number_that_is_no_default_may_have_been_set():
    own = {"installed": ["sqlalchemy", "httpx", "gunicorn", "anyio", "redis"], "server": "gunicorn-threads"}
    found = named(7, 1, **own)
    assert [one.name.split("'")[0] for one in found] == ["SQLAlchemy", "httpx", "redis"]
    assert {(one.slots, one.set_to) for one in found} == {(7, 7)}
    assert {(one.slots, one.set_to) for one in named(14, 2, **own)} == {(14, 7)}
    assert named(7, 1, settings=7, **own) == ()  # these are the settings' own
    assert named(7, 1) == ()  # nothing is known of what is there
    for vague in ({"low": 8}, {"high": None}):
        assert not any(one.set_to for one in named(9, 1, **own, **vague))


@pytest.mark.parametrize("settings, is_named", [(4, True), (8, False), (3, False)])
def test_a_servers_own_limit_is_suspected_at_what_it_is_set_to(settings, is_named):
    found = named(4, 1, "waitress", installed=["waitress"], settings=settings)
    assert any(one.name == "waitress's threads" for one in found) == is_named
    assert any(one.name == "waitress's threads" for one in named(4, 1))


@pytest.mark.parametrize("cpus, threads", [(1, 5), (2, 6), (8, 12), (28, 32), (64, 32)])
def test_asyncios_threads_follow_the_cpus(cpus, threads):
    assert "asyncio.to_thread" in {one.name for one in named(threads, 1, "uvicorn", "async", cpus=cpus)}


@pytest.mark.parametrize(
    "name, path, slots, suspected",
    [
        ("limits-handlers", "/def", 40, ["AnyIO threads"]),
        ("limits-handlers", "/executor", 13, []),  # as set, but of no pool: the app has none
        ("limits-pools", "/depends", 15, ["SQLAlchemy's pool"]),
        ("limits-pools", "/depends", 13, ["SQLAlchemy's pool"]),
    ],
)
def test_of_our_own_apps_only_what_they_import_is_suspected(name, path, slots, suspected):
    launch = target_of(name, path=path)
    facts = sample_facts(launch=launch, slots=None, workers=1, all_cpus=2)
    found = suspects(sample_estimate(slots), facts, packages_of(facts.plan) or ())
    assert [one.name for one in found] == suspected


def test_every_row_can_be_met():
    assert {*SERVERS, "asgi", "def", "async"}.issuperset(itertools.chain(*(one.needs for one in KNOWN)))
    assert all(one.name and one.setting and one.source and one.default for one in KNOWN)
