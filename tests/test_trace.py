"""The trace: every request is in it, no lane has two events that overlap, predicted stands beside measured."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise

import pytest
from samples import LOADS, sample_plan, sample_run
from test_page import EVIL, HEAD, columns_of, made_run

import bench
from engine import trace as trace_module
from engine.page import Shown
from engine.run import Columns
from engine.trace import trace


def checked(text: str) -> dict[str, dict[str, list[dict]]]:
    """The events of each lane of each process, by name. None overlap, none ends before it begins."""
    document = json.loads(text, parse_constant=pytest.fail)
    names, lanes = {}, defaultdict(list)
    for one in document["traceEvents"]:
        key = one["pid"], one["tid"]
        if one["ph"] == "M" and one["name"] in ("process_name", "thread_name"):
            assert key not in names
            names[key] = one["args"]["name"]
        elif one["ph"] == "X":
            assert type(one["ts"]) is int and type(one["dur"]) is int and one["ts"] >= 0 and one["dur"] >= 0
            lanes[key].append(one)
    found = defaultdict(dict)
    for (pid, tid), events in lanes.items():
        events.sort(key=lambda one: (one["ts"], one["ts"] + one["dur"]))
        assert all(one["ts"] + one["dur"] <= after["ts"] for one, after in pairwise(events))
        assert names[pid, tid] not in found[names[pid, 0]]
        found[names[pid, 0]][names[pid, tid]] = events
    return found


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_every_request_waits_and_is_worked_on_in_a_lane(load):
    found = checked(trace(HEAD, [Shown(made_run(load=load, exchanges=columns_of(40)))]))
    (measured,) = (lanes for name, lanes in found.items() if name.startswith("measured"))
    assert {name for name in measured if "slot" in name} == {f"worker{k} slot 1" for k in range(4)}
    events = [one for lane in measured.values() for one in lane]
    assert sorted(one["name"] for one in events if one["cat"] == "request") == sorted(
        f"#{k} request" for k in range(40)
    )
    assert sum(one["cat"] == "waits" for one in events) == 40


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_the_prediction_has_a_lane_for_each_slot(load):
    found = checked(trace(HEAD, [Shown(made_run(load=load))]))
    (predicted,) = (lanes for name, lanes in found.items() if name.startswith("predicted"))
    assert 0 < sum(name.startswith("slot") for name in predicted) <= 4


def test_what_is_predicted_from_another_run_has_no_lanes():
    found = checked(trace(HEAD, [Shown(made_run(), is_part=True)]))
    assert [name.partition(":")[0] for name in found] == ["measured"]


def test_without_a_log_a_request_is_one_event_and_failures_say_why():
    columns = columns_of(8, handler_started_s=(), worker=(), error=[None] * 7 + ["timeout"], status=[500] + [200] * 7)
    (measured, *_) = checked(trace(HEAD, [Shown(made_run(exchanges=columns))])).values()
    events = {one["args"].get("error"): one for lane in measured.values() for one in lane}
    assert {None, "timeout", "status 500"} == {*events} and all(name.startswith("request") for name in measured)


def test_times_of_two_clocks_do_not_overlap_or_run_backwards():
    """A handler that the log puts before its request, or that ends after its answer."""
    columns = columns_of(40, handler_started_s=[-0.001] * 20 + [9.0] * 19 + [None], worker=["worker0"] * 40)
    checked(trace(HEAD, [Shown(made_run(exchanges=columns))]))


def test_of_very_many_requests_some_are_left_out(monkeypatch):
    monkeypatch.setattr(trace_module, "MOST_TRACED", 10)
    text = trace(HEAD, [Shown(made_run(exchanges=columns_of(40)))], False)
    about = json.loads(text)["otherData"]
    assert about["requests_left_out"] == 30 and about["complete"] is False
    checked(text)


def test_nothing_kept_is_an_empty_trace():
    assert json.loads(trace(HEAD, []))["traceEvents"] == []
    checked(
        trace(HEAD, [Shown(sample_run(exchanges=Columns((), (), (), (), (), (), ()), plan=sample_plan(slots=None)))])
    )
    checked(trace(HEAD, [Shown(made_run(exchanges=None, target=EVIL))]))


@pytest.mark.parametrize("load", ["-n 24", "-n 60 -c 12", "--rate 60 -t 1", "--ramp 0.5s:4,0.5s:8"])
def test_the_trace_of_a_run_of_every_load(load, tmp_path, capsys):
    line = f"--target flask-gunicorn-threads --path /io --task-time 0.05 {load} --trace {tmp_path}/x.json"
    bench.main([*line.split(), "--logs", str(tmp_path / "logs"), "-q"])
    found = checked((tmp_path / "x.json").read_text())
    measured, predicted = found.values()
    slots = [name for name in measured if "slot" in name]
    assert 1 <= len(slots) <= 16 and all(name.startswith("worker") for name in slots)
    assert sum(name.startswith("slot") for name in predicted) <= 16
