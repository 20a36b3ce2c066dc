"""The limit of open files, and what the system tells."""

from __future__ import annotations

import math
import os
import resource
import sys

import pytest

from engine import machine
from engine.words import Problem


@pytest.fixture
def file_limit(monkeypatch):
    """A soft and a hard limit that only machine.py sees and changes."""
    limits = [1024, 4096]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.__setitem__(slice(None), new))
    return limits


@pytest.mark.parametrize(
    ("most_under_way", "is_scheduled", "soft"),
    [
        (100, False, 1024),
        (960, False, 1024),
        (961, False, 1025),
        (2000, False, 2064),
        (math.inf, True, 4096),  # a schedule opens what it needs
        (300, True, 1024),
        (50_000, True, 4096),
    ],
)
def test_the_soft_limit_of_open_files_is_raised_as_far_as_a_load_needs_it(
    file_limit, most_under_way, is_scheduled, soft
):
    machine.check_file_limit(most_under_way, is_scheduled)
    assert file_limit == [soft, 4096]


def test_an_unlimited_hard_limit_is_no_number_to_ask_for(file_limit):
    file_limit[1] = resource.RLIM_INFINITY
    machine.check_file_limit(math.inf, True)
    assert file_limit[0] == 65_536


def test_a_load_beyond_the_hard_limit_is_refused_before_it_begins(file_limit):
    with pytest.raises(Problem, match="5000 requests at once"):
        machine.check_file_limit(5000, False)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_a_process_can_be_pinned_and_impossible_cpus_are_a_problem():
    before = machine.allowed_cpus()
    try:
        machine.pin(0, {min(before)})
        assert machine.allowed_cpus() == {min(before)}
        with pytest.raises(Problem):
            machine.pin(0, {9999})
    finally:
        machine.pin(0, before)


def test_the_system_tells_of_itself():
    assert machine.about_machine().cpus == os.cpu_count() and 0 <= machine.timer_s() < 5
    counters, with_server = machine.counters(None), machine.counters(1.0)
    assert not counters.keys() & {"server", "others"}
    if sys.platform == "linux":
        assert with_server["server"] == 1.0 and with_server["others"] > 0
        assert 0 <= counters["TCPSynRetrans"] <= with_server["TCPSynRetrans"]
