"""The limit of open files, and what the system tells."""

import math
import os
import resource
import sys

import pytest

from engine import machine
from engine.words import Problem


@pytest.mark.parametrize(
    ("most_under_way", "is_scheduled", "hard", "soft"),
    [
        (100, False, 4096, 1024),
        (960, False, 4096, 1024),
        (961, False, 4096, 1025),
        (2000, False, 4096, 2064),
        (math.inf, True, 4096, 4096),  # a schedule opens what it needs
        (300, True, 4096, 1024),
        (50_000, True, 4096, 4096),
        (math.inf, True, resource.RLIM_INFINITY, 65_536),  # which is no number to ask for
        (5000, False, 4096, None),
    ],
)
def test_the_soft_limit_of_open_files_is_raised_as_far_as_a_load_needs_it(
    monkeypatch, most_under_way, is_scheduled, hard, soft
):
    limits = [1024, hard]  # that only machine.py sees and changes
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.__setitem__(slice(None), new))
    try:
        machine.check_file_limit(most_under_way, is_scheduled)
        assert limits == [soft, hard]
    except Problem:
        assert soft is None


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
    if sys.platform == "linux":
        names, counters = {"ListenOverflows", "TCPSynRetrans", "throttled_us"}, machine.counters(1.0)
        assert machine.counters(None).keys() == names and counters.keys() == names | {"server", "others"}
        assert counters["server"] == 1.0 and min(counters.values()) >= 0
