"""Settings, apps and loads for which a figure or a sentence before the run, or an advice after it, would be false."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest
from commands import run_bench
from samples import LOADS, sample_facts, sample_plan, sample_run, sample_where
from servers import write_files

import bench
import sweep
from engine import page, plans, report, report_sizes, report_verdict
from engine.advice import Advice, Cure, processes_for
from engine.changes import due_with
from engine.deals import is_dealt
from engine.estimate import processors
from engine.launch import Launch, given_to_server, launch_app
from engine.listeners import Listener
from engine.loads import Burst, Closed
from engine.objectives import Tried, parse_condition
from engine.options import parse
from engine.places import Limit, Resource
from engine.report_before import conditions
from engine.run import Band, Deal, Explanation, Verdict
from engine.sizes import Asked, size
from engine.words import Problem

BAND = Band(0.001, 0.001, 0.001, 1.0, 4, 0.1, 0.1)
CPU = Limit(Resource.CPU, 1.0, 80.0, held_s=0.012, cpus=1)
APP = """
from fastapi import Depends, FastAPI

app = FastAPI()

def get_db():
    yield 1

@app.get("/orders")
def orders():
    return []

@app.post("/orders")
async def new_order():
    return {}

@app.get("/health")
async def health(db=Depends(get_db)):
    return {}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    write_files(tmp_path, {"told_app.py": APP})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan_of(*words):
    (plan,) = plans.plans_of(parse([*words]))
    return plan


@pytest.mark.parametrize("more, one_queue", [((), True), (("--server-args", "--reuse-port"), False)])
def test_with_reuse_port_each_worker_has_a_queue_of_its_own(more, one_queue):
    plan = plan_of("--target", "flask-gunicorn", "--path", "/io", *more)
    assert (plan.shared_queue, plan.slots) == (one_queue, 4)


def test_with_one_thread_gunicorns_workers_are_sync():
    plan = plan_of("--target", "flask-gunicorn-threads", "--path", "/io", "--threads", "1")
    assert plan.shared_queue and plan.launch.server == "gunicorn"


def test_the_parent_of_the_workers_is_no_worker(monkeypatch):
    found = [Listener(7, 1, 1, ("uvicorn", "a:app", "--reload")), Listener(8, 7, 1, ("python", "-c", "spawn"))]
    monkeypatch.setattr(plans, "listeners", lambda *_: tuple(found))
    assert plan_of("--url", "http://127.0.0.1:1/").workers == 1


def test_what_more_processes_than_cpus_do_is_known_with_a_deal():
    deal = Deal(((0.4, 0.3, 0.2, 0.1),), "2026-11-28", 0.8, 100, ((0, 1, 2, 3),))
    changes = {"workers": 4, "slots": 160.0, "slots_per_worker": 40.0, "deal": deal, "cpus": 2, "wait_s": 0.05}
    verdict = Verdict(Explanation.CPU, (CPU,), None, None, ())
    first = sample_run(load=LOADS["closed"], verdict=verdict, server_cpu_s=16 * 0.02, shared_queue=False, **changes)
    assert due_with(first.plan, first) > 0


@pytest.mark.parametrize("load, figure", [("closed", "10 %"), ("open", "15 %")])
def test_the_room_of_a_percentile_is_the_one_that_is_said(load, figure):
    verdict = Verdict(Explanation.PREDICTION, (), None, BAND, ())
    text = report_verdict.allowed(sample_run(load=LOADS[load], verdict=verdict))
    assert figure in text and "range" not in text


def test_the_room_beyond_a_range_is_said_to_be_that():
    verdict = Verdict(Explanation.PREDICTION, (), None, BAND, ())
    ranged = dataclasses.replace(sample_facts().prediction, makespan_range_s=(1.0, 9.0))
    assert "range" in report_verdict.allowed(sample_run(prediction=ranged, verdict=verdict))
    assert "range" not in report_verdict.allowed(sample_run(verdict=verdict))


def test_the_handler_is_that_of_the_method_that_is_sent(here):
    (here / "posts.toml").write_text('[[kinds]]\nname = "new"\nmethod = "POST"\npath = "/orders"\nbody = "{}"\n')
    assert plan_of("--app", "told_app:app", "--workload", "posts.toml", "-c", "9").launch.handler != "def"
    assert plan_of("--app", "told_app:app", "--path", "/orders", "-c", "9").launch.handler == "def"


@pytest.mark.parametrize("each, requests, is_it", [(40, 16, False), (40, 50, True), (math.inf, 50, False)])
def test_a_deal_decides_only_where_a_worker_can_be_full(each, requests, is_it):
    launch = Launch("x", "uvicorn", "x:app", workers=4)
    plan = sample_plan(launch=launch, load=Burst(requests), slots_per_worker=each, workers=4, shared_queue=False)
    assert is_dealt(plan) == is_it


def test_what_a_command_of_the_users_starts_computes_on_as_many_cpus():
    launch = Launch("x", "command", "", run="x {port}", is_target=False)
    assert processors(sample_facts(launch=launch, workers=1, cpus=2)) == 2


def test_where_cpu_time_is_the_limit_the_advice_names_no_slots():
    slots = Limit(Resource.SLOTS.value, 1.0, 133.0, 8.0, 0.06)
    run = sample_run(
        verdict=Verdict(Explanation.CPU, (CPU, slots), None, None, ()), where=sample_where(limit=slots), wait_s=0.05
    )
    text = report_sizes.cure_text(Advice(99, 0.1, 0.4, False, Cure.PROCESSES, slots, 2), run)
    assert "CPU" in text and "slots" not in text


@pytest.mark.parametrize(
    "words, slots",
    [
        ("--target limits-handlers --path /threadpool --anyio-threads 80", 80),
        ("--target limits-handlers --path /threadpool", 40),
        ("--target fastapi-threads --path /io --workers 1 --anyio-threads 50", 50),
        ("--target fastapi-threads --path /io --workers 1", 100),
        ("--target limits-pools --path /with --anyio-threads 8", 8),
    ],
)
def test_anyios_threads_are_as_many_as_asked_for(words, slots):
    plan = plan_of(*words.split())
    assert plan.slots == slots and (slots == 100 or "40" not in plan.launch.why_slots or slots == 40)


@pytest.mark.parametrize("option", ["--run", "--try"])
def test_a_quote_that_does_not_end_is_one_line(option, capsys):
    service = [] if option == "--run" else ["--target", "flask-gunicorn", "--path", "/io"]
    assert bench.main([*service, option, "uvicorn a:app --port {port} --header 'x"]) == 2
    assert "quotation" in capsys.readouterr().err


def test_a_worker_class_of_the_users_needs_no_package_of_ours():
    launch = Launch("x", "gunicorn-uvicorn", "x:app", is_target=False, started_as="gunicorn")
    assert launch.packages == ["gunicorn"]


@pytest.mark.parametrize("server, args", [("hypercorn", "-c h.toml"), ("uvicorn", "--env-file .env")])
def test_processes_from_a_file_that_is_not_read_are_not_guessed(server, args):
    with pytest.raises(Problem):
        given_to_server(Launch("x", server, "x:app", server_args=tuple(args.split())))


@pytest.mark.parametrize("more", [(), ("--server-args", "--no-reload")])
def test_flasks_reloader_is_no_worker(tmp_path, monkeypatch, more):
    write_files(
        tmp_path,
        {"shop.py": "from flask import Flask\n\napp = Flask(__name__)\n\n@app.get('/')\ndef index():\n    return ''\n"},
    )
    monkeypatch.chdir(tmp_path)
    how = ["--app", "shop:app", "--server", "flask-dev", "--env", "FLASK_DEBUG=1", "-n", "9", *more]
    (run,) = run_bench(tmp_path, *how)[1]["runs"]
    assert run["inside"]["requests_of_workers"] == {"worker0": 9}


def test_a_page_leads_with_what_the_report_says_is_not_known():
    limit = Limit("AnyIO's threads", 1.0, 50.0, 40.0, 0.8, line="app.py:5", waiting=60.0)
    verdict = Verdict(Explanation.INSIDE, (limit,), None, None, ())
    run = sample_run(verdict=verdict, where=sample_where(limit=limit, places=()), wait_s=0.022, slots=40.0)
    assert "not known" in page.lead(run)


def test_a_victim_with_a_dependency_that_needs_a_thread_shares_the_threads(here):
    words = ("--app", "told_app:app", "--path", "/orders", "-c", "50", "--victim", "/health")
    assert plan_of(*words).victim_handler == "def"
    assert launch_app(parse([*words]), "GET", "/health").handler != "def"


# ---------------------------------------------------------------- loads and figures


@pytest.mark.parametrize(
    "words",
    [
        "--target fastapi-uvicorn --path /io --rate 10 --task-time 50ms --cpu-time 10ms",
        "--target fastapi-uvicorn --path /async-io --rate 10 --task-time 50ms --cpu-time 10ms",
        "--target fastapi-uvicorn --path /io -c 100 --think 10s -t 30 --task-time 50ms --cpu-time 10ms",
    ],
)
def test_what_the_cpus_keep_up_with_takes_no_longer(words):
    assert plans.prediction_for(plan_of(*words.split())).median_s == pytest.approx(0.06, rel=0.1)


def test_where_the_cpus_are_full_a_request_shares_them():
    words = "--target fastapi-uvicorn --path /io -c 100 -t 30 --task-time 50ms --cpu-time 10ms"
    plan = plan_of(*words.split())
    assert plans.prediction_for(plan).throughput_rps == pytest.approx(100, rel=0.1)


def test_a_request_may_take_as_long_as_is_predicted(here):
    plan = dataclasses.replace(plan_of("--app", "told_app:app", "-n", "60", "--slots", "1"), lone_requests=1)
    asked = [dataclasses.replace(plan, is_own_timeout=is_own) for is_own in (False, True)]
    learnt, own = (plans.with_lone_requests(one, [1.0]) for one in asked)
    assert learnt.timeout_s > 60 and own.timeout_s == 40


def test_processes_that_were_not_tried_are_not_advised():
    with pytest.raises(Problem, match="more than"):
        processes_for(Asked(20.0, 0.5, 0.6, 99))


@pytest.mark.parametrize("more, grows", [("", False), ("-t 60", True)])
def test_a_schedule_of_fewer_requests_than_slots_has_no_queue(more, grows):
    plan = plan_of(*f"--rate 2 --slots 40 --wait 30s {more}".split())
    assert ("the queue grows" in conditions(plan, plans.prediction_for(plan), 40)) == grows


def test_a_figure_of_few_answers_is_called_the_longest():
    few, many = (Tried(3.0, 2.7, 3.0, 3.0, is_longest=is_longest) for is_longest in (True, False))
    assert "longest" in report.tried_line(few, 3.0, 99) and "p99" not in report.tried_line(few, 3.0, 99)
    assert "p99" in report.tried_line(many, 3.0, 99)


def test_throughput_of_a_schedule_is_counted_until_its_end():
    plan = plan_of(*["--rate", "1", "--slots", "4", "--wait", "50ms"])
    assert plans.prediction_for(plan).throughput_rps == pytest.approx(1.0)


@pytest.mark.parametrize("text", ["failed-share>5", "failed-share>10"])
def test_a_share_is_no_more_than_one(text):
    with pytest.raises(Problem, match="share"):
        parse_condition(text)
    assert parse_condition("failed-share>5%").value == 0.05


def test_a_rate_that_held_is_not_forgotten():
    failed = sample_run(failed=16, answered=0, errors={"timed out": 16}, latency_s=None)
    some, none = (" ".join(report.no_rate(failed, held_rps).split()) for held_rps in (30.0, 0.0))
    assert "30/s had held" in some and "had held" not in none


def test_users_that_pause_take_longer():
    assert Closed(400_000, concurrency=200, think_s=0.1).last_answer_s(math.inf, 0.05) == pytest.approx(299.9)
    assert Closed(40, concurrency=20, think_s=5.0).last_answer_s(2, 1.0) == pytest.approx(20)


def test_pools_of_processes_with_queues_of_their_own_are_larger():
    text = " ".join(report_sizes.size_text(size(Asked(256, 0.05, 0.1, 99)), 4).split())
    (alone,) = map(int, re.findall(r"16 in all, or (\d+) where each process", text))
    assert 16 < alone <= 24 and f"{alone} in all" in text.partition("pools")[0]


@pytest.mark.parametrize(
    "words, says",
    [
        ("--app told_app:app --cpu-time 20ms", "--cpu-time"),
        ("--app told_app:app --subtasks 4", "--subtasks"),
        ("--target flask-waitress --target flask-dev --path /io --serve", "one --target"),
        ("--target flask-waitress --path /io --rate 9 --until p10+-5%", "p50 to"),
    ],
)
def test_what_would_do_nothing_is_refused(here, capsys, words, says):
    assert bench.main(words.split()) == 2 and says in capsys.readouterr().err


@pytest.mark.parametrize("words", ["io books", "--resume x.json"])
def test_a_sweep_says_what_it_does_not_do(capsys, words):
    assert sweep.main(words.split()) == 2 and capsys.readouterr().err.count("\n") == 1
