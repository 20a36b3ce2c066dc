"""Reports: values and shape, never the exact sentences."""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
import string

import pytest

from engine import report, report_verdict, report_words
from engine.loads import Burst, Closed, Figure, Open, Ramp
from engine.machine import Machine
from engine.report_words import WARNINGS
from engine.run import (
    Band,
    Database,
    Estimate,
    Explanation,
    Limit,
    Prediction,
    Resource,
    Seen,
    Stall,
    Suspect,
    Verdict,
    Warned,
)
from engine.sizes import Asked, size
from tests.samples import LOADS, sample_estimate, sample_measured, sample_plan, sample_prediction, sample_run
from tests.test_tables import sample_log

FACTS = {  # an example of every fact of a warning
    "failed": 25, "sent": 55, "errors": {"HTTP 500": 20, "timed out": 5}, "most": "HTTP 500", "due": 60, "late": 12,
    "overflows": 2819, "retransmissions": 649, "busy": 0.93, "processes": 2, "more_processes": 4, "lag_s": 0.02,
    "latency_s": 0.2, "sockets": 99, "expected": 10, "late_bodies": 7, "under_way": 9.123, "asked": 20, "lines": 54,
    "said": ["it is full"], "log": "logs/run/server.log", "shares": [50, 27, 15, 8], "off": [["makespan_s", 2.0, 1.0]],
    "slots": 5, "each": 2, "of": 40, "predicted": math.inf, "alone_s": 0.3, "wait_s": 0.05, "share": 0.31,
    "throughput_rps": 400.0, "ceiling_rps": 320.0, "rows": 10_010, "created": 11, "statements": 99,
}  # fmt: skip
SLOTS = Limit(Resource.SLOTS, 1.0, 4.0, 4, 1.0)
CPU = Limit(Resource.CPU, 0.02, 837.3, held_s=0.00239, cpus=2)
BAND = Band(0.0044, 0.00016, 0.0001, 2, 0.0193, 0.0193)
SUSPECT = Suspect("SQLAlchemy's pool", "pool_size + max_overflow", "5 + 10", "pool/impl.py:75", 15, 2, 15, 30.0)
STALL = Stall(0.06, 2.05, 40, 15, 2.0)


def warned(key: str) -> Warned:
    name, _, kind = key.partition(" ")
    facts = {name for _, name, _, _ in string.Formatter().parse(WARNINGS[key]) if name} - {"because"}
    return Warned(name, {name: FACTS[name] for name in facts} | ({"kind": kind, "slots": 5} if kind else {}))


def sample_verdict(explained: Explanation | None = Explanation.PREDICTION, **changes: object) -> Verdict:
    return dataclasses.replace(Verdict(explained, (SLOTS, CPU), None, BAND, ()), **changes)


def texts_of(run) -> str:
    log = sample_log(4) if run.inside else None
    return "\n".join([report.result(run, log), report.comparison([run, run]), report.probe_line(run)])


# ---------------------------------------------------------------- every value has its words


@pytest.mark.parametrize(
    "table, keys",
    [
        (report_words.EXPLANATIONS, Explanation),
        (report_words.FIGURES, Figure),
        (report_words.RESOURCES, Resource),
        (report_words.SEEN, Seen),
    ],
)
def test_no_word_is_missing_and_none_is_left_over(table, keys):
    assert set(table) == set(keys) and all(table.values())


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_every_load_has_words(load):
    assert "16" in report_words.load_words(load) or "4" in report_words.load_words(load)


@pytest.mark.parametrize("key", WARNINGS)
def test_every_warning_shows_its_facts(key):
    one = warned(key)
    text = report_verdict.warning_text(one)
    assert text.endswith(".") and "{" not in text and "None" not in text
    for name, value in one.facts.items():
        if isinstance(value, int) and name not in ("more_processes", "each"):
            assert re.search(rf"\b{value}\b", text), (name, text)


def test_failures_name_a_cause_by_what_happened_most():
    causes = {most: report_verdict.warning_text(Warned("failed-requests", FACTS | {"said": [], "most": most}))
              for most in ("HTTP 500", "HTTP 404", "timed out", "broken")}  # fmt: skip
    assert causes["HTTP 500"] == causes["HTTP 404"] and len(set(causes.values())) == 3
    assert "it is full" in report_verdict.warning_text(Warned("failed-requests", FACTS))


# ---------------------------------------------------------------- the shape of a report

RUNS = {
    "as predicted": sample_run(verdict=sample_verdict()),
    **{one.value: sample_run(verdict=sample_verdict(one)) for one in Explanation},
    "split": sample_run(split_prediction=sample_prediction(makespan_s=5.0), verdict=sample_verdict(Explanation.SPLIT)),
    "failures": sample_run(failed=7, verdict=sample_verdict(None, limits=(), warnings=(warned("failed-requests"),))),
    "stopped": sample_run(stopped="SIGINT", verdict=sample_verdict(None)),
    "no answer": sample_run(latency_s=None, answered=0, failed=16, histogram=[], verdict=sample_verdict(None)),
    "stall": sample_run(
        failed=7, verdict=sample_verdict(None, estimate=dataclasses.replace(sample_estimate(None), stall=STALL))
    ),
    "not known": sample_run(
        prediction=Prediction(possibilities={"def": 4.1, "async": 1.0, "blocking": 16.0}), slots_known=False,
        slots=None, verdict=sample_verdict(None, estimate=sample_estimate(4, suspects=(SUSPECT,) * 3)),
    ),
    "range": sample_run(
        prediction=Prediction(), slots_known=False,
        verdict=sample_verdict(None, estimate=Estimate(Seen.SLOTS, 4, 3, 6, doubt="no-clear-rounds", alone_s=1.0)),
    ),
    "closed": sample_run(load=LOADS["closed"], verdict=sample_verdict()),
    "open": sample_run(load=LOADS["open"], lag_s=sample_measured().latency_s, due=20, verdict=sample_verdict()),
    "ramp": sample_run(load=LOADS["ramp"], verdict=sample_verdict()),
    "url": sample_run(inside=None, verdict=sample_verdict(None)),
    "books": sample_run(database=Database(10_011, 16, version="16.2"), verdict=sample_verdict()),
    "every warning": sample_run(verdict=sample_verdict(warnings=tuple(map(warned, WARNINGS)))),
}  # fmt: skip


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_verdict_comes_first_and_79_columns_hold_all(run):
    text = texts_of(run)
    assert text.startswith("verdict") and text.count("\nverdict") == 0
    assert max(map(len, text.split("\n"))) <= 79
    assert not re.search(r"None|nan|\binf\b|[{}]|Explanation\.|Resource\.| \n|\.\.$", text), text
    assert "\n\n\n" not in text and not re.search(r"(?i)\b(who|whoever|whose|nobody|somebody)\b", text)


# ---------------------------------------------------------------- what is in it


def test_burst_shows_prediction_measured_time_log_and_batches():
    text = report.result(RUNS["as predicted"], sample_log(4))
    for value in ("4 s", "+0.0 %", "5 %", "4.4 ms", "100 %", "837 requests/s", "access.log", "16 sent", "worker3 4"):
        assert value in re.sub(r"\s+", " ", text), value
    assert text.count("[pid-worker2]") == 4 and re.search(r"^ +4  12-15 ", text, re.MULTILINE)


def test_split_shows_both_predictions():
    assert "4 s" in (text := report.verdict(RUNS["split"])) and "5 s" in text


def test_unknown_handler_is_told_by_its_time_and_the_slots_by_the_answers():
    text = report.verdict(RUNS["not known"])
    assert report_words.HANDLER_WORDS["def"] in text and "4" in text
    assert "3 to 6" in report.verdict(RUNS["range"])


def test_estimate_is_shown_where_the_prediction_fails_or_if_asked_for():
    run = sample_run(verdict=sample_verdict(estimate=sample_estimate(4)))
    assert report.estimate(run) == "" and "4" in report.estimate(run, always=True)
    other = dataclasses.replace(run, verdict=sample_verdict(Explanation.OTHER_SLOTS, estimate=sample_estimate(4)))
    assert report.estimate(other)
    text = re.sub(r"\s+", " ", report.estimate(RUNS["not known"]))
    for value in ("SQLAlchemy's pool", "5 + 10", "pool_size + max_overflow", "30 s", "pool/impl.py:75", "2 workers"):
        assert value in text, value
    assert "55 requests" in re.sub(r"\s+", " ", report.estimate(RUNS["stall"]))


@pytest.mark.parametrize(
    "limits, words",
    [
        ((), []),
        ((SLOTS, CPU), ["4 slots of 1 s", "4 requests/s", "837 requests/s"]),
        ((Limit(Resource.POOL, 0.9, 300.0, 15, 0.05),), ["15 connections of 50 ms", "300 requests/s", "90 %"]),
        ((CPU, SLOTS), ["2.39 ms", "2 CPUs"]),
        ((Limit(Resource.CLIENT, 1.0, held_s=0.001, shares_cpus=True),), ["client"]),
        ((Limit(Resource.BACKLOG, 1.0), SLOTS), ["backlog", "4 requests/s"]),
        ((Limit(Resource.ARRIVALS, 1.0), SLOTS), ["4 requests/s"]),
    ],
)
def test_bottleneck(limits, words):
    text = report.bottleneck(sample_run(verdict=sample_verdict(limits=limits)))
    assert bool(text) == bool(limits) and all(word in text for word in words), text
    assert "at 0 " not in text and "allow 0" not in text


# ---------------------------------------------------------------- before the run


def test_header_names_machine_and_versions():
    text = report.header(Machine("Linux x86_64", 2, "AMD EPYC", "6.18"), {"Python": "3.11.7", "flask": "3.1.3"})
    assert all(word in text for word in ("Linux x86_64", "2 CPUs", "AMD EPYC", "6.18", "flask 3.1.3"))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({}, ["flask-gunicorn GET /io", "16 requests", "1 s", "--workers 4"]),
        ({"workload": "mixed"}, ["mixed"]),
        ({"warm_up": 32, "lone_requests": 5}, ["32 requests", "5 requests"]),
        ({"wait_s": 0.05, "cpu_time_s": 0.002, "distribution": "exp"}, ["50 ms", "2 ms", "exp"]),
        ({"wait_s": 0.5, "subtasks": 2}, ["2 subtasks"]),
        ({"load": Closed(time_limit_s=10.0, think_s=2.0, concurrency=20), "processes": 2}, ["20 users", "10 s", "2 s"]),
        ({"load": Open(time_limit_s=10.0, rate_rps=300.0)}, ["3000 requests", "300/s"]),
        ({"load": Ramp(stages=((1.0, 50), (2.0, 200)))}, ["50 in 1 s", "200 in 2 s"]),
    ],
)
def test_what_is_sent(changes, words):
    text = re.sub(r"\s+", " ", report.what_is_sent(sample_plan(**changes)))
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    "plan, prediction, words",
    [
        ({}, {}, ["4 workers x 1 = 4", "ceil(16 / 4)", "floor(k / 4)", "2.5 s"]),
        ({"wait_is_measured": True, "wait_s": 0.103}, {}, ["103 ms"]),
        ({"slots": math.inf, "slots_per_worker": math.inf}, {}, ["no limit"]),
        ({"held_s": 1.05}, {}, ["1.1 s", "1.05 s"]),
        ({"load": Open(rate_rps=9.0)}, {"p99_if_longer_s": 7.0}, ["grows", "7 s"]),
        ({"wait_s": 0.0}, {}, ["CPU time"]),
        ({"keep_alive": True, "most_connections": 10, "load": Burst(16)}, {}, ["10 kept connections"]),
        ({"cpu_time_s": 2.0}, {}, ["2 s per request"]),
        ({"slots": None, "slots_known": False}, {"form": None}, ["--slots"]),
    ],
)
def test_what_is_predicted(plan, prediction, words):
    text = re.sub(r"\s+", " ", report.what_is_predicted(sample_plan(**plan), sample_prediction(**prediction)))
    assert all(word in text for word in words), text


# ---------------------------------------------------------------- other reports


def test_comparison_has_a_row_for_each_run_and_a_legend_for_each_result():
    text = report.comparison([RUNS["as predicted"], RUNS["other-slots"], RUNS["failures"]])
    assert "7 failed" in text
    assert text.count("other-slots") == 2 == text.count("prediction")
    long = sample_run(path="/a-path-that-is-longer-than-its-column")
    assert long.plan.path in report.comparison([long])


def test_probe_and_search_for_a_rate():
    run = sample_run(verdict=sample_verdict(estimate=sample_estimate(4)))
    assert "--workers 4" in report.search(run.plan, report.probe_plan(2000, 60.0))
    for why in report_words.PROBE_ENDS:
        assert "4 requests" in report.probe_result(run, why)
    assert "100 ms" in report.find_rate_plan(0.1, 99)
    assert "35.2/s" in report.first_rate_text(run.plan, 35.2, 0.1, 99, 12, 10.0)
    assert report.tried_line(run, 35.2, 99, 0.08, True) != report.tried_line(run, 35.2, 99, 0.08, False)
    found = report.found_rate(38.0, 37.5, 38.6, 6, run, 0.1, 99)
    assert all(word in found for word in ("p99", "100 ms", "38/s", "37.5/s", "38.6/s", "837 requests/s"))


def test_size_names_the_slots_and_what_is_near():
    text = report.size_text(size(Asked(256, 0.05, 0.1)), 4)
    for value in (" 14 ", " 15 ", " 16 ", "92.2 ms", "--threads 4", "total_tokens = 5", "16 in all"):
        assert value in re.sub(r"\s+", " ", text), value
    assert max(map(len, text.split("\n"))) <= 79


def test_on_paper_has_form_figures_and_rounds():
    plan = sample_plan(launch=None)
    text = report.on_paper_text(plan, sample_prediction(), plan.load.forecast(plan.service, 1.0))
    assert "ceil(16 / 4)" in text and "2.5 s" in text and text.count("\n            4") == 4


def test_list_has_every_path(monkeypatch):
    monkeypatch.setattr(report, "TARGETS", {"fastapi-uvicorn": report.TARGETS["fastapi-uvicorn"]})
    names = ("pool_size", "task_time", "cpu_time", "workers", "threads", "access_log")
    text = report.targets_list(argparse.Namespace(**dict.fromkeys(names), server_args="", subtasks=2))
    assert all(word in text for word in ("fastapi-uvicorn", "40 for /io", "no limit for /async-io", "--host 127.0.0.1"))
