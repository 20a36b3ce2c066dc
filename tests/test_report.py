"""Reports: values and shape, never the exact sentences."""

import argparse
import math
import re
from dataclasses import replace

import pytest

from engine import report, report_before, report_sizes, report_verdict, report_where, report_words
from engine.loads import Closed, Figure, Open, Ramp
from engine.machine import Machine
from engine.objectives import Found, Tried
from engine.places import Limit, Resource, Spot, State
from engine.run import Band, Database, Explanation, Prediction, Seen, Stall, Suspect, Verdict, Warned
from engine.sizes import AtSize, Size
from tests.samples import LOADS, sample_estimate, sample_plan, sample_prediction, sample_run, sample_where
from tests.test_tables import sample_log

NUMBERS = """
    failed sent redirected unended due late overflows busy more_processes lag_s latency_s sockets expected late_bodies
    under_way asked lines slots each of alone_s wait_s share rows created statements shortest_s stalled_s
    handled_s assumed_s cpu throttled_s cpus restarts last_s first_s usual_s requests least_s most_s warm_up warmed
    never opened answered passes
"""
FACTS = dict.fromkeys(NUMBERS.split(), 7) | {
    "errors": {"HTTP 500": 20, "timed out": 5}, "predicted": math.inf, "said": ["it is full"],
    "log": "logs/run/server.log", "named": [["python", 1.2, False], ["postgres", 0.3, True]], "shares": [50, 27, 15, 8],
    "asked": "GET /items", "line": "app.py:3", "pool": "SQLAlchemy's pool", "kept": 5, "most": "HTTP 500",
}  # fmt: skip
SLOTS, CPU = Limit(Resource.SLOTS, 1.0, 4.0, 4, 1.0), Limit(Resource.CPU, 0.02, 837.3, held_s=0.00239, cpus=2)
LIMITS = [
    CPU, Limit(Resource.MACHINE, 0.98, cpus=2), Limit(Resource.POOL, 0.9, 300.0, 15, 0.05),
    Limit(Resource.CLIENT, 1.0, held_s=0.001),
    Limit(Resource.BACKLOG, 1.0), Limit(Resource.ARRIVALS, 1.0), Limit(Resource.NONE, 0.0),
]  # fmt: skip
AT_15 = AtSize(15, 0.853, {50: 0.05, 95: 0.07, 99: 0.093}, True)
SIZE = Size(
    256, 0.05, 0.1, below=replace(AT_15, slots=14, holds=False), fits=AT_15, above=replace(AT_15, slots=16),
    more_traffic=replace(AT_15, latency_s={}, holds=False), slots_for_more=18, longest_s=0.052,
)  # fmt: skip
SUSPECT = Suspect("SQLAlchemy's pool", "pool_size + max_overflow", "5 + 10", "pool/impl.py:75", 15, 2, 15, 30.0)


SEEN = Limit("SQLAlchemy's pool", 1.0, 75.0, 15, 0.2, line="app/db.py:12", waiting=25.0, setting="pool_size 5")
BAND = Band(0.0044, 0.00016, 0.0001, 2, 16, 0.0193, 0.0193)


def judged(explained=Explanation.PREDICTION, limits=(SLOTS, CPU), estimate=None, warnings=(), **changes):
    return sample_run(**changes, verdict=Verdict(explained, limits, estimate, BAND, warnings))


def warned(key):
    name, _, kind = key.partition(" ")
    return Warned(name, FACTS | {"kind": kind})


RUNS = {
    **{one.value: judged(one, estimate=sample_estimate(4)) for one in Explanation},
    **{name: judged(load=load) for name, load in LOADS.items()},
    **{key: judged(warnings=[warned(key)]) for key in report_words.WARNINGS},
    **{f"{one.resource.value} full": judged(limits=(one, SLOTS)) for one in LIMITS},
    "split": judged(Explanation.SPLIT, split_prediction=sample_prediction(makespan_s=5.0)),
    "failures": judged(None, failed=7, limits=()),
    "stopped": judged(None, stopped="SIGINT"),
    "no answer": judged(None, latency_s=None, answered=0, failed=16, histogram=[]),
    "stall": judged(None, failed=7, estimate=sample_estimate(None, stall=Stall(0.06, 2.05))),
    "not known": judged(
        None, prediction=Prediction(possibilities={"def": 4.1, "async": 1.0}), slots_known=False, slots=None,
        estimate=sample_estimate(4, suspects=(SUSPECT,)),
    ),
    "range": judged(None, prediction=Prediction(), estimate=sample_estimate(4, low=3, high=6, doubt="no-clear-rounds")),
    "url": judged(None, inside=None),
    "seen": judged(Explanation.INSIDE, where=sample_where(limit=replace(SEEN, next_slots=40))),
    "standstill": judged(None, failed=7, where=sample_where(circle=("a lock", "AnyIO's threads"), circle_at=41)),
    "books": judged(database=Database(10_011, 16, version="16.2")),
}  # fmt: skip


def reported(name):
    run = RUNS[name]
    return "\n".join([report.result(run, sample_log(4) if run.inside else None), report.ROWS, report.row(run)])


@pytest.mark.parametrize("name", RUNS)
def test_verdict_comes_first_and_79_columns_hold_all(name):
    text = reported(name)
    assert text.startswith("verdict") and max(map(len, text.split("\n"))) <= 79
    assert not re.search(r"None|nan|\binf\b|[{}]|Explanation\.|Resource\.| \n|\.\.$|\n\n\n|\nverdict", text), text
    assert not re.search(r"(?i)\b(who|whoever|whose|nobody|somebody)\b", text)


def test_a_limit_is_guessed_only_where_nothing_could_be_seen():
    answers = {"slots_known": False, "slots": None, "estimate": sample_estimate(4, suspects=(SUSPECT,))}
    assert "suspect" in report.result(judged(None, **answers), None)
    assert "suspect" not in report.result(judged(None, where=sample_where(), **answers), None)


@pytest.mark.parametrize(
    "resource, words",
    [
        ("a semaphore (threading.Semaphore)", "wait for a semaphore"),
        ("a lock (stock.lock)", "wait for a lock"),
        ("the lock of a log handler (Slow)", "wait for a lock"),
        ("a thread of a ThreadPoolExecutor", "wait for a thread"),
        ("AnyIO's threads", "wait for a thread"),
        ("SQLAlchemy's pool", "wait for a connection"),
        ("a LifoQueue", "wait for a queue"),
    ],
)
def test_what_requests_wait_for_is_said_in_a_word(resource, words):
    assert report_where.doing(Spot(5.0, State.WAITING, resource=resource)) == words


def test_no_word_is_missing_and_none_is_left_over():
    for table, keys in {"FIGURES": Figure, "SEEN": Seen}.items():
        assert set(getattr(report_words, table)) == {one.value for one in keys}


def test_the_words_of_a_limit_state_no_time_as_it_was_not_measured():
    assert [words for words in report_words.RESOURCES.values() if re.search(r"\d|second|minute", words)] == []


def test_failures_name_a_cause_by_what_happened_most():
    facts = [
        FACTS | {"said": [], "most": most, "unended": 0}
        for most in ("HTTP 500", "HTTP 502", "HTTP 404", "timed out", "broken")
    ]
    causes = [report_verdict.warning_text(Warned("failed-requests", one)) for one in facts]
    assert causes[0] == causes[1] and len(set(causes)) == 4


def test_estimate_is_left_out_where_the_prediction_holds_unless_it_is_asked_for():
    shown = {name for name in RUNS if "\nestimate" in reported(name)}
    assert {"other-slots", "nothing", "not known"} < shown and not shown & {"prediction", "split", "cpu"}
    assert report.estimate(RUNS["prediction"], always=True)


# ---------------------------------------------------------------- the figures in each text


def sent(**changes):
    return report_before.what_is_sent(sample_plan(**changes))


def predicted(changes, **of_prediction):
    return report_before.what_is_predicted(sample_plan(**changes), sample_prediction(**of_prediction))


RUN, PLAN = RUNS["prediction"], sample_plan(launch=None)
NAMES = ("anyio_threads", "pool_size", "task_time", "cpu_time", "workers", "threads", "access_log", "cert")
TEXTS = {
    "4 s|+0.0 %|5 %|4.4 ms|100 %|837 requests/s|access.log|16 sent|worker3 4|4 slots, each held 1 s": (
        reported("prediction")
    ),
    "4 s|5 s|given the split": reported("split"),
    "4 requests|SQLAlchemy's pool|5 + 10|pool_size|30 s|impl.py:75|2 workers": reported("not known"),
    "3 to 6 requests": reported("range"),
    "7 of 16|7 failed": reported("failures"),
    "7 connections|7 overflows": reported("backlog-overflow"),
    "50, 27, 15, 8": reported("uneven-split"),
    "7 at a time (7 per worker)|no limit": reported("other-slots inside"),
    "up to 7 s": reported("late-sends"),
    "15 connections, each held 50 ms, allow 300 requests/s|90 %": reported("pool full"),
    "2.39 ms|2 CPUs": reported("cpu full"),
    "it is full|logs/run/server.log": reported("server-ended"),
    "10011 rows|16 SQL": reported("books"),
    "Little's law|p99.9": reported("open"),
    "Linux|2 CPUs|AMD|6.18|flask 3.1.3": report_before.header(Machine("Linux", 2, "AMD", "6.18"), {"flask": "3.1.3"}),
    "flask-gunicorn GET /io|16 requests|1 s|--workers 4": sent(),
    "mixed|32 requests|up to 12": sent(workload="mixed", warm_up=32, lone_requests=5),
    "50 ms|2 ms|exp": sent(wait_s=0.05, cpu_time_s=0.002, distribution="exp"),
    "2 subtasks": sent(wait_s=0.5),
    "20 users|10 s|2 s|2 client": sent(load=Closed(time_limit_s=10.0, think_s=2.0, concurrency=20), processes=2),
    "3000 requests|300/s": sent(load=Open(time_limit_s=10.0, rate_rps=300.0)),
    "50 in 1 s|200 in 2 s": sent(load=Ramp(stages=((1.0, 50), (2.0, 200)))),
    "4 workers x 1 = 4|ceil(16 / 4)|floor(k / 4)|2.5 s": predicted({}),
    "request by itself": predicted({"wait_is_measured": True}),
    "no limit": predicted({"slots": math.inf, "slots_per_worker": math.inf}),
    "1.1 s|1.07 s": predicted({"held_s": 1.075}),
    "grows|7 s": predicted({"load": Open(rate_rps=9.0)}, p99_if_longer_s=7.0),
    "not slots": predicted({"wait_s": 0.0}),
    "10 kept connections": predicted({"keep_alive": True, "most_connections": 10}),
    "2 s per request": predicted({"cpu_time_s": 2.0}),
    "--slots": predicted({"slots": None, "slots_known": False}, form=None),
    "2000 requests in 60 s": report_before.search(PLAN, report.probe_plan(2000, 60.0), report.find_rate_plan(0.1, 99)),
    "16 at once|4 requests": report.probe_line(RUN),
    "16 users|4 requests/s|35.2/s|9 s": report.first_rate_text(RUN, 4.0, 35.2, 0.1, 99, 9.0),
    "120 ms|35.2/s|too slow": report.tried_line(Tried(35.0, 0.12, 35.0, 35.2), 0.1, 99),
    "p99|100 ms|3.75/s|3.86/s|837 requests/s": report.found_rate(Found(3.75, 3.86, 6), RUN, 0.1, 99),
    " 14 | 15 | 16 |93 ms|--threads 4|total_tokens = 5|16 in all": report_sizes.size_text(SIZE, 4),
    "2.5 s|4 3 s 4 s": report.on_paper_text(PLAN, sample_prediction(), PLAN.load.forecast(PLAN.service, 1.0)),
    "fastapi-uvicorn|40 for /io|no limit for /async-io|--host 127.0.0.1": report.targets_list(
        argparse.Namespace(**dict.fromkeys(NAMES), server_args="", subtasks=2, start_timeout=30, env=[])
    ),
    **{why: report.probe_result(RUN, key) for key, why in report_words.PROBE_ENDS.items()},
}  # fmt: skip


@pytest.mark.parametrize("words", TEXTS)
def test_text_has_the_figures(words):
    text = re.sub(r"\s+", " ", TEXTS[words])
    assert [word for word in words.split("|") if word not in text] == [] and max(
        map(len, TEXTS[words].split("\n"))
    ) <= 79


@pytest.mark.parametrize("late, is_checked", [(0, True), (8, False)])
def test_littles_law_is_not_checked_where_many_answers_came_after_the_time_limit(late, is_checked):
    text = report.checks(sample_run(load=LOADS["closed"], finished_after_limit=late))
    assert ("Little's law" in text) == is_checked and "CPU time" in text
