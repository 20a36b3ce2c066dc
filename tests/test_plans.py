"""From a command line to its plan, and from the plan to its prediction."""

import math
from dataclasses import replace

import pytest

from engine import plans
from engine.loads import Burst, Closed, Open, Ramp
from engine.model import poisson_schedule
from engine.options import parse
from engine.plans import TIMEOUT_S, forecast_of, plans_of
from engine.run import Plan
from engine.targets import WORKLOADS

URL, GUNICORN = "--url http://127.0.0.1/ ", "--target flask-gunicorn --path /io "
FASTAPI = "--target fastapi-uvicorn --path /io "


def plan_of(line: str) -> Plan:
    (plan,) = plans_of(parse(line.split()))
    return plan


@pytest.mark.parametrize(
    ("line", "load"),
    [
        ("", Burst(16)),
        ("-c 5", Closed(time_limit_s=10.0, concurrency=5)),
        ("--rate 5", Open(time_limit_s=10.0, rate_rps=5.0)),
        ("-c 5 -n 7 -t 3 --think 0.5", Closed(7, 3.0, 0.5, 5)),
        ("--ramp 2s:3,3s:5", Ramp(time_limit_s=5.0, stages=((2.0, 3), (3.0, 5)))),
        ("--ramp 2s:3 -t 1 -n 9", Ramp(9, 1.0, stages=((2.0, 3),))),
        ("--rate 5 -n 3 --arrivals poisson --seed 7",
         Open(3, math.inf, 0.0, 5.0, "poisson", 7, tuple(poisson_schedule(5.0, 3, math.inf, 7)))),
    ],
)  # fmt: skip
def test_the_load_that_options_ask_for(line, load):
    assert plan_of(URL + line).load == load


@pytest.mark.parametrize(
    ("url", "parts"), [("http://a:81/x?y=1", ("a", 81, "/x?y=1")), ("http://[::1]:8/", ("::1", 8, "/"))]
)
def test_the_parts_of_a_url(url, parts):
    plan = plan_of(f"--url {url}")
    assert (plan.host, plan.port, plan.path) == parts


@pytest.mark.parametrize(
    ("line", "timeout_s"),
    [
        (GUNICORN + "-n 15", TIMEOUT_S),
        (GUNICORN + "-n 16", 42.0),
        (FASTAPI + "-n 1000", 60.0),
        (GUNICORN + "-s 3", 3.0),
    ],
)
def test_a_request_may_take_twice_as_long_as_one_worker_alone_would(line, timeout_s):
    assert plan_of(line).timeout_s == timeout_s


@pytest.mark.parametrize(
    ("route", "wait_s"),
    [
        ("flask-gunicorn --path /async-io-multi", 0.2),
        ("flask-hello-gunicorn --path /", 0.0),
        ("flask-books --path /v1/sleep?ms=70", 0.07),
        ("flask-books --path /v1/sleep", 0.05),
        ("flask-books --path /v1/books/7", None),
        ("flask-books --workload fanout", 0.05),
    ],
)
def test_what_a_request_waits_on_each_route(route, wait_s):
    plan = plan_of(f"--target {route} --task-time 0.6 --subtasks 3")
    assert plan.wait_s == (None if wait_s is None else pytest.approx(wait_s))
    assert plan.lone_requests == (0 if not wait_s else 1 if wait_s > 0.3 else plans.LONE_REQUESTS)


def test_a_workload_is_its_kinds_on_its_ramp():
    plan = plan_of("--target fastapi-books --workload mixed --scale 0.5")
    assert [kind.weight for kind in plan.kinds] == [kind[0] for kind in WORKLOADS["mixed"].kinds]
    assert isinstance(plan.load, Ramp) and plan.load.time_limit_s == 40 and plan.keep_alive


@pytest.mark.parametrize(
    ("line", "last_s", "ceiling_rps", "slots"),
    [
        (GUNICORN, 4.0, 4.0, 4),
        (GUNICORN + "-n 10 -c 9", 3.0, 4.0, 4),
        (GUNICORN + "--rate 3", 29 / 3 + 1, 4.0, 4),
        (GUNICORN + "--task-time 0.5 --cpu-time 0.5", 4.0, 4.0, 4),
        ("--target fastapi-uvicorn --path /async-io", 1.0, 16.0, math.inf),
        ("--target flask-hello-gunicorn", None, None, 4),
        (URL + "--task-time 1", None, None, None),
        (URL + "--task-time 1 --slots 3", 6.0, 3.0, 3),
        ("-n 100 --slots 40 --wait 1", 3.0, 40.0, 40),
        ("--split 41,44,11,4 --slots 40 --wait 1", 2.0, 100.0, 160),
        ("-n 12 --slots 4 --workers 2 --one-queue --wait 1", 2.0, 8.0, 8),
    ],
)
def test_the_prediction_of_a_plan(line, last_s, ceiling_rps, slots):
    asked = parse(line.split())
    (plan,) = plans_of(asked)
    plan = replace(plan, cpus=4)
    prediction = plans.prediction_for(plan)
    if asked.is_paper:
        _, prediction, _ = plans.on_paper(plan, asked.split)
    assert prediction.makespan_s == (last_s and pytest.approx(last_s))
    assert prediction.ceiling_rps == (ceiling_rps and pytest.approx(ceiling_rps))
    assert plan.slots == slots


@pytest.mark.parametrize(
    ("cpu_time_s", "cpus", "workers", "each", "held_s"),
    [
        (0.5, 4, 4, 1, 1.5),
        (0.5, 2, 4, 4, 16 * 0.5 / 2),  # no faster than the CPUs allow
        (0.5, 9, 4, 4, 16 * 0.5 / 4),  # a process computes on one at a time
    ],
)
def test_a_request_holds_its_slot_for_its_wait_and_its_share_of_the_cpus(cpu_time_s, cpus, workers, each, held_s):
    plan = Plan("x", wait_s=1.0, cpu_time_s=cpu_time_s, cpus=cpus, workers=workers, slots=workers * each)
    assert plans.held_for(plan) == held_s


def test_a_forecast_follows_the_deal_and_the_connections_of_the_server():
    threads = plan_of("--target flask-gunicorn-threads --path /io --workers 2 --threads 2 -n 8")
    assert forecast_of(threads, [0, 0, 0, 1, 0, 0, 0, 1]).answered_s == [1.0, 1.0, 2.0, 1.0, 2.0, 3.0, 3.0, 1.0]
    assert forecast_of(threads, factor=1.5).answered_s == [1.5] * 4 + [3.0] * 4
    waitress = "--target flask-waitress --path /io -c 200 -n 200"
    under_way = [forecast_of(plan_of(line)).arrived_s.count(0.0) for line in (waitress, waitress + " -k")]
    assert under_way == [200, 98]  # of 100, two are its own sockets
    assert forecast_of(plan_of(GUNICORN + "-n 1000000")) is None  # too many to predict one by one
    assert plans.prediction_for(plan_of(GUNICORN + "-n 1000000")).makespan_s == 250_000


def test_where_the_handler_is_not_known_each_kind_has_its_own_last_answer():
    plan = plan_of(FASTAPI + "-n 100")
    unknown = plans.with_launch(plan, replace(plan.launch, handler=None))
    assert plans.prediction_for(unknown).possibilities == {"def": 3.0, "async": 1.0, "blocking": 100.0}
    assert plans.prediction_for(plan).possibilities == {}


# ---------------------------------------------------------------- what lone requests show


@pytest.mark.parametrize(
    ("lone_s", "held_s"),
    [
        ([0.0516, 0.052], 0.05145),  # of what the shortest takes beyond 51 ms, wait and CPU time, most
        ([0.05], None),  # less than it computes and waits: nothing is learnt
        ([0.067], None),  # another wait
    ],
)
def test_a_lone_request_shows_how_long_a_slot_is_held(lone_s, held_s):
    plan = replace(plan_of(GUNICORN + "-c 4"), wait_s=0.05, cpu_time_s=0.001)
    found = plans.with_lone_requests(plan, lone_s)
    assert found == replace(plan, held_s=held_s and pytest.approx(held_s, abs=1e-6))
    assert plans.held_for(found) >= (held_s or 0.051)
    for other in (replace(plan, distribution="exp"), replace(plan, load=Burst())):
        assert plans.with_lone_requests(other, lone_s).held_s is None


def test_a_wait_that_is_not_known_is_the_middle_of_the_lone_requests():
    plan = plan_of(URL + "-c 4")
    assert plan.lone_requests == 5
    for lone_s, wait_s in (([0.3, 0.1, 0.2], 0.2), ([0.1, 0.2], 0.15), ([], None)):
        found = plans.with_lone_requests(plan, lone_s)
        assert (found.wait_s, found.wait_is_measured) == (wait_s, wait_s is not None)


def test_an_open_loop_near_its_limit_also_has_the_p99_of_a_longer_wait():
    near, far = (plans.prediction_for(plan_of(GUNICORN + f"--rate {rate} -t 100")) for rate in (3.96, 3))
    assert near.p99_if_longer_s > near.p99_s and far.p99_if_longer_s is None
