"""What the pure parts said of some hundreds of situations when somebody last looked, in tests/recorded.json.

The other tests say what is right; this one says what a change changes. Threshold by threshold, operator by operator,
somebody's verdict depends on it: look at what is different, and if it is better, record it:

    python test_recorded.py
"""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import io
import json
import math
import random
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast
from unittest import mock

import pytest

import bench
import explain
import limits
import load
import objectives
import serve
import slots
from test_estimate import Stub, share_cpus

RECORDED = Path(__file__).with_name("tests") / "recorded.json"
BY = f"Python {sys.version_info[0]}.{sys.version_info[1]} on {sys.platform}"
PACKAGES = frozenset(("sqlalchemy", "anyio", "fastapi", "uvicorn", "httpx", "psycopg-pool", "gunicorn"))


def rounded(value: Any) -> Any:
    """Without the digits in which two versions of Python or two machines may differ."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


# ---------------------------------------------------------------- the situations


def a_stub(dice: random.Random) -> Stub:
    processes = dice.choice((1, 1, 1, 2, 4))
    return Stub(
        (dice.choice((0, 1, 2, 3, 4, 7, 10, 15, 16, 30)),) * processes,
        dice.choice((0.02, 0.05, 0.1, 0.3, 1.0)) if dice.random() < 0.98 else 0.004,
        dice.choice((0.0, 0.0, 0.02, 0.05, 0.1, 0.2, 0.3)),
        dice.random() < 0.5,
        tuple(dice.expovariate(1) for _ in range(processes)) if dice.random() < 0.5 else (),
        dice.choice(("fifo", "fifo", "random", "lifo")),
        dice.choice(((1.0,), (1.0,), (1.0, 0.0), (0.5, 0.5), (0.1, 0.9), (0.7, 0.3))),
        dice.choice((0.0, 0.0, 0.0002, 0.001, 0.005)),
        timeout_s=dice.choice((0.25, 2.0)) if dice.random() < 0.06 else math.inf,
    )


def estimates(dice: random.Random) -> Any:
    """Answers of a server, and the estimate of its slots from them with the suspects."""
    stub, count = a_stub(dice), dice.choice((5, 10, 20, 40, 80, 80, 120, 120, 160)) if dice.random() < 0.97 else 3
    users = dice.choice((0, 0, 0, 0, min(count, 8), min(count, 30)))
    if dice.random() < 0.1:
        answers = share_cpus(count, dice.choice((4, 40, 1000)), stub.wait_s, dice.choice((1, 2, 4)), dice)
    else:
        answers = stub.serve(count, dice, users)
    sent_s, answered_s, failed_s = answers
    distortion = dice.choice(
        ("",) * 12 + ("late", "late", "stall", "together", "rate", "a part", "some fail", "time-out")
    )
    begin_s = stub.wait_s * dice.choice((0.3, 0.6, 1.0, 1.5, 3.0))
    if distortion == "late":  # the first is, or all are
        answered_s = [at + begin_s * (at > dice.choice((0.0, min(answered_s, default=0.0)))) for at in answered_s]
    elif distortion == "stall":
        answered_s = [at + begin_s * (at > 3.5 * stub.wait_s) for at in answered_s]
    elif distortion == "together" and answered_s:
        answered_s = [max(answered_s) + dice.uniform(0, 0.1) * stub.wait_s for _ in answered_s]
    elif distortion == "rate":
        answered_s = [stub.wait_s * dice.choice((1, 1, 1.02)) + begin_s / 5 * i for i in range(len(sent_s))]
    elif distortion == "a part":
        free, part = [0.0] * (stub.slots[0] or 5), dice.choice((0.3, 0.5, 0.8, 0.95))
        for i, at_s in enumerate(sent_s):
            heapq.heappush(free, max(at_s + stub.wait_s * (1 - part), heapq.heappop(free)) + stub.wait_s * part)
            answered_s[i] = max(free) if i < len(free) else sorted(free)[-1]
    elif distortion == "some fail":
        failed_s = sorted([*failed_s, *(dice.choice((0.01, stub.wait_s, 2.0, 5.0, 30.0)) for _ in range(3))])
    elif distortion == "time-out":
        failed_s = [at * 1.01 for at in [max(answered_s, default=1.0)] * dice.choice((1, 9))]
    unlike = dice.choice((1, 1, 1, 1, 1, 1, 1, 0.5, 0.8, 1.3, 2.0))
    lone_s = [one * unlike for one in stub.lone(dice)]
    processes, cpu_s = dice.choice((None, None, len(stub.slots))), dice.choice((None, stub.cpu_s, stub.wait_s * 0.25))
    found = limits.estimate(
        "closed" if users else "burst", users or count, sent_s, answered_s,
        lone_s=lone_s if dice.random() < 0.9 else [], failed_after_s=failed_s, processes=processes, cpu_s=cpu_s,
    )  # fmt: skip
    server, handler = dice.choice(("", "uvicorn", "waitress", "gunicorn")), dice.choice(("", "def", "async"))
    found["suspects"] = limits.suspects(
        found, count, stub.wait_s, dice.choice((1, 2, 8)), installed=dice.choice((None, PACKAGES)), server=server,
        handler=handler, failed_after_s=failed_s,
    )  # fmt: skip
    range_ = f"{found['slots']} ({found['low']}-{found['high']})"
    return [found["kind"], range_, *(one["what"] for one in found["suspects"][:1])], found


def probes(dice: random.Random) -> Any:
    """What a probe does next after some bursts, and what it concludes."""
    stub, done = a_stub(dice)._replace(timeout_s=math.inf), list[limits.Burst]()
    lone_s, budget, budget_s = stub.lone(dice), dice.choice((150, 400, 700)), dice.choice((2.0, 10.0, 60.0))
    size, why = limits.next_burst(done, budget, budget_s, stub.wait_s)
    while size:
        sent_s, answered_s, failed_s = stub.serve(size, dice)
        found = limits.estimate("burst", size, sent_s, answered_s, lone_s=lone_s, processes=len(stub.slots))
        done.append(limits.Burst(size, len(failed_s) + (dice.random() < 0.05), max(answered_s), found))
        size, why = limits.next_burst(done, budget, budget_s, stub.wait_s)
    concluded = limits.conclude(done) if done else None
    sizes = [burst.requests for burst in done]
    return [why, sizes, concluded and f"{concluded['slots']} ({concluded['low']}-{concluded['high']})"], concluded


def a_plan(dice: random.Random) -> explain.Plan:
    names = [name for name in serve.TARGETS if not name.startswith(("limits-", "flask-books", "fastapi-books"))]
    words, wait_s = ["--url", "http://127.0.0.1/"], dice.choice((0.02, 0.05, 0.2, 1.0))
    if dice.random() < 0.75:
        name = dice.choice(names)
        route = dice.choice(serve.TARGETS[name].routes)
        words = ["--target", name, "--path", route.path]
        if "hello" not in name:
            words += ["--task-time", str(wait_s)]
            if route.draws and dice.random() < 0.2:
                words += ["--cpu-time", dice.choice(("0.001", "0.01"))]
        if "threads" in serve.SERVERS[serve.TARGETS[name].server].options and dice.random() < 0.5:
            words += ["--threads", dice.choice(("1", "2", "8"))]
        if "workers" in serve.SERVERS[serve.TARGETS[name].server].options and dice.random() < 0.5:
            words += ["--workers", dice.choice(("1", "2", "3"))]
    elif dice.random() < 0.7:
        words += ["--wait", str(wait_s), *dice.choice(([], ["--slots", dice.choice(("1", "5", "15"))]))]
    rate, users = dice.choice((5, 20, 100)), dice.choice((1, 4, 9, 30))
    load_of: list[list[Any]] = [
        *[["-n", dice.choice((1, 4, 10, 16, 30, 64, 120))] for _ in range(4)],
        ["-c", users, "-n", users * dice.choice((1, 3, 10))], ["-c", users, "-t", dice.choice((1, 3)), "-k"],
        ["-c", users, "-n", 60, "--think", dice.choice((0.01, 0.5))],
        ["--rate", rate, "-n", dice.choice((10, 60, 200))], ["--ramp", "1s:2,1s:8,1s:0"],
        ["--rate", rate, "-t", 2, "--arrivals", "poisson", "--seed", 5],
    ]  # fmt: skip
    plan = bench.make_plans(bench.parse_arguments([*words, *map(str, dice.choice(load_of))]))[0]
    if plan.launch or dice.random() < 0.3:
        return plan
    launch = serve.Launch("main:app", dice.choice(("uvicorn", "hypercorn")), "main:app", is_target=False,
                          workers=dice.choice((1, 2, 4)), handler=dice.choice((None, None, "def", "async", "blocking")),
                          handlers=dice.choice(((), ("async", "blocking"))), imported=tuple(PACKAGES))  # fmt: skip
    return dataclasses.replace(plan, target="main:app", launch=launch, wait_s=plan.wait_s or dice.choice((None, 0.05)))


def runs(dice: random.Random) -> Any:
    """A run as bench.py reports it: the plan, an invented server behind it, and everything that is said of both."""
    plan = a_plan(dice)
    if dice.random() < 0.15:
        plan = dataclasses.replace(plan, cpus=1, client_on_server_cpus=True)
    wait_s = plan.wait_s or 0.05
    extra_s = dice.choice((0.001, 0.005, 0.02))
    lone_s = [wait_s + extra_s * dice.uniform(0.8, 1.2) for _ in range(explain.lone_requests(plan))]
    if plan.traffic.pace.mode != "burst":
        plan = explain.with_overhead(plan, lone_s)
    described = explain.describe(plan)
    true_slots = dice.choice((plan.slots_per_worker or 10, plan.slots_per_worker or 10, 3, slots.NO_LIMIT))
    service = slots.Service((true_slots,) * plan.workers, bool(plan.launch and plan.launch.shared_queue))
    pace, hold_s = plan.traffic.pace, wait_s * dice.choice((1, 1, 1, 1.04, 1.3)) + extra_s
    most = int(min(pace.due_in_all if pace.rate else pace.requests, 300))
    shares = [dice.expovariate(1) for _ in range(plan.workers)] if dice.random() < 0.6 else [1.0] * plan.workers
    process_of = dice.choices(range(plan.workers), shares, k=most)
    if pace.mode == "burst" or pace.rate:
        due_s = [pace.due_s(i) for i in range(most)] if pace.rate else [0.0] * most
        true = slots.predict(due_s, service, hold_s, process_of)
    else:
        users: Any = pace.stages or int(pace.concurrency)
        true = slots.predict_users(users, service, hold_s, requests=most, time_limit_s=pace.time_limit_s,
                                   think_s=pace.think_s, process_of=process_of)  # fmt: skip
        most = len(true.answered_s)
    exchanges, begun_s, lines = load.Exchanges(), 50.0, list[serve.LogLine]()
    fails, noise_s = dice.choice((0.0,) * 8 + (0.05, 1.0)), dice.choice((0.0001, 0.002))
    slow = dice.choice((0,) * 8 + (0.05,))
    for i, (sent_s, started_s, answered_s) in enumerate(zip(*true, strict=True)):
        connect_s, noise = noise_s / 3 + (dice.random() < slow) * 1.0, abs(dice.gauss(0, noise_s))
        error, status = 0, 200
        if dice.random() < fails:
            error = dice.choice((0, load.ERRORS.index("timed out")))
            status = 0 if error else 500
        at_s = begun_s + answered_s + noise + (connect_s if slow else 0.0)
        row = (begun_s + sent_s, begun_s + sent_s + connect_s, 0.0 if error else at_s, at_s, 2, status, error)
        for column, value in zip(load.Exchanges.COLUMNS, row, strict=True):
            getattr(exchanges, column).append(value)
        pid = 700 + (process_of[i] if i < len(process_of) else 0)
        lines.append(serve.LogLine("s", pid, "GET", plan.traffic.path, str(status or 200), answered_s - started_s,
                                   str(i), begun_s + started_s))  # fmt: skip
    last_s = max(true.answered_s, default=0.0)
    server_cpu_s = dice.choice((None, 0.0, 0.0005 * most, 0.0005 * most, 0.005 * most, 0.9 * last_s))
    client_cpu_s = dice.choice((0.0001 * most,) * 8 + (0.9 * last_s,))
    measured = load.Measured(
        exchanges, begun_s, client_cpu_s, dice.choice((most, pace.most_under_way, 1)),
        {"ListenOverflows": dice.choice((0, 0, 3)), "TCPSynRetrans": 0}, server_cpu_s=server_cpu_s,
        stopped=dice.choice(("",) * 15 + ("SIGINT",)),
    )  # fmt: skip
    lines.sort(key=lambda line: line.started_s)
    log = None
    if plan.launch and plan.launch.wrap:
        lost = dice.choice((0.0, 0.0, 0.0, 0.03))
        lines = [line for line in lines if dice.random() >= lost]
        log = serve.AccessLog(lines, sorted({line.pid for line in lines}))
    other_cpu_s = dice.choice((None, 0.0, 0.0, 0.0, 0.2 * last_s, 1.5 * last_s))
    sent = bench.Sent(measured, log, other_cpu_s, server_ended=dice.random() < 0.03)
    site = bench.Site(("127.0.0.1", 9000))
    options = bench.parse_arguments(["--url", "http://127.0.0.1/", "--json", "-"])
    run = bench.finished(plan, described, site, sent, lone_s, len(lone_s), "then", options)
    text = explain.render_prediction(described) + explain.render_what_is_predicted(described)
    text += explain.render_what_is_expected(described) if plan.held_s else ""
    text += explain.render_result(run, log) + explain.render_burst(run) + explain.render_found(run, "two bursts agree")
    text += explain.render_start_of_line(described) + explain.render_end_of_line(run)
    first = run["limits"][0]["resource"] if run["limits"] else None
    what = [run["explained_by"], first, [one["id"] for one in run["warnings"]]]
    return [f"{plan.target} {plan.traffic.path} {pace.mode}", *what], [text, run]


def sizes(dice: random.Random) -> Any:
    """How many slots, what rate; and what slots.py prints for some arguments."""
    rate, wait_s, cpu_s = dice.choice((2.0, 20.0, 256.0)), dice.choice((0.01, 0.05, 0.2)), dice.choice((0.0, 0.001))
    objective_s, per_cent, cpus = wait_s * dice.choice((1.2, 2, 5)), dice.choice((50, 95, 99)), dice.choice((1, 2, 4))
    processes = dice.choice((1, 2, 4))
    try:
        asked = slots.size(rate, wait_s, objective_s, per_cent, cpu_s, cpus)
        needed, answer = asked.fits.slots, slots.render_size(asked, processes)
    except slots.Problem as problem:
        needed, answer = 0, str(problem)
    best = slots.highest_rate(dice.choice((1, 4, 16)), wait_s, objective_s, per_cent)
    words = ["--slots", dice.choice(("1", "3", "40")), "--wait", str(wait_s), *dice.choice((
        ["-n", "50"], ["--split", "30,12,0"], ["-c", "20", "-n", "90"], ["-c", "9", "-n", "50", "--think", "0.1"],
        ["--rate", "30", "-n", "80"], ["--rate", "90", "-n", "100", "--arrivals", "poisson", "--seed", "3"],
        ["--ramp", "1s:3,2s:9", ], ["-n", "40", "--passes", "2"], ["-n", "40", "--workers", "3"],
        ["-n", "40", "--distribution", "exp"], ["-c", "12", "-n", "70", "--workers", "4", "--one-queue"],
    ))]  # fmt: skip
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        assert slots.main(words) == 0
    return [needed, best, " ".join(words)], [answer, shown.getvalue()]


def rates(dice: random.Random) -> Any:
    """A search for the highest rate, on a server whose latency is a curve with some noise."""
    most, noise, first = dice.choice((40.0, 280.0)), dice.choice((0.0, 0.05, 0.3)), dice.choice((0.4, 0.95, 1.3, 3))
    tried, rate = list[objectives.Tried](), objectives.next_rate(first * most, 0.1, [])
    while isinstance(rate, float):
        latency_s = 0.05 + (0.01 / (1 - rate / most / 1.2) if rate < 1.2 * most else 5.0)
        latency_s *= 1 + dice.uniform(-noise, noise)
        throughput = min(rate, 1.2 * most) * dice.choice((1, 0.98, 0.9))
        tried.append(objectives.Tried(rate, latency_s, throughput, int(dice.random() < 0.1)))
        rate = objectives.next_rate(first * most, 0.1, tried, dice.choice((6, 8)))
    return [f"{rate.rate:.4g} ({rate.low:.4g}-{rate.high:.4g}) in {rate.runs}"], [tried, rate]


SITUATIONS: dict[Callable[[random.Random], Any], int] = {estimates: 400, probes: 40, runs: 300, sizes: 60, rates: 40}


@contextlib.contextmanager
def nowhere_in_particular() -> Iterator[None]:
    """The same machine, Python and packages everywhere."""
    with (
        mock.patch.object(bench, "processors", lambda _: (2, False)),
        mock.patch.object(bench, "timer_s", lambda: 0.0002),
        mock.patch.object(bench, "installed_packages", lambda: PACKAGES),
        mock.patch.object(bench, "PYTHON", (3, 11)),
        mock.patch.object(load, "about_machine", lambda: {"cpus": 2}),
    ):
        yield


def situations_of(group: Callable[[random.Random], Any]) -> list[list[Any]]:
    """[short words, a checksum of everything] of each situation, as JSON has them."""
    found = []
    with nowhere_in_particular():
        for number in range(SITUATIONS[group]):
            words, everything = group(random.Random(f"{group.__name__} {number}"))
            whole = json.dumps(rounded(everything), sort_keys=True)
            found.append([*rounded(words), zlib.crc32(whole.encode())])
    return cast(list[list[Any]], json.loads(json.dumps(found)))


@pytest.mark.parametrize("group", SITUATIONS, ids=lambda group: group.__name__)
def test_what_is_said_is_what_was_said(group: Callable[[random.Random], Any]) -> None:
    recorded = json.loads(RECORDED.read_text())
    before, now = recorded[group.__name__], situations_of(group)
    assert len(before) == len(now)
    if recorded["by"] != BY:  # a last digit may be another one there
        before, now = ([row[:-1] for row in rows] for rows in (before, now))
    changed = [f"{number}: {a}  now: {b}" for number, (a, b) in enumerate(zip(before, now, strict=True)) if a != b]
    what_to_do = f"{len(changed)} of {len(now)} are different; look, then: python test_recorded.py"
    assert not changed, "\n".join([what_to_do, *changed[:20]])


def record() -> None:
    groups = {group.__name__: situations_of(group) for group in SITUATIONS}
    lines = [
        f" {json.dumps(name)}: [\n" + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n ]"
        for name, rows in groups.items()
    ]
    RECORDED.write_text("{\n" + ",\n".join([f' "by": {json.dumps(BY)}', *lines]) + "\n}\n")


if __name__ == "__main__":
    sys.exit(record())
