#!/usr/bin/env python3
"""bench.py - why a Flask or FastAPI service gets slow under concurrent I/O.

A server has S slots: requests it works on at the same moment. A burst of n
requests that each wait t takes ceil(n / S) x t, and throughput is at most S / t.
bench.py starts a real server, prints that prediction, sends the requests, says
why measured and predicted differ, and shows the access log in batches.

    python bench.py --target flask-gunicorn          16 requests to each path
    python bench.py --target all                     every server, one table
    python bench.py --target fastapi-uvicorn --path /io -n 100
    python bench.py --target flask-gunicorn --workers 8 --task-time 0.2
    python bench.py --list                           the targets

    python bench.py --app main:app --path /items -n 100     your own service
    python bench.py --app main:app --path /items --probe    how many at a time?
    python bench.py --url http://127.0.0.1:8000/ -n 5000 -c 500 -k
    python bench.py --app main:app --find-rate --p99 0.1    the highest rate
    python bench.py --app main:app --fail-if 'p99>0.1'      for CI: exit code 1

No -c sends all requests at once (the burst); -c N keeps N under way (closed
loop); --rate sends on schedule whatever the server does (open loop); --ramp
changes the number of users over time. load.py's manual says what each shows.

How it works: slots.py predicts, serve.py starts the server and reads its log,
load.py sends, limits.py reads the answers, explain.py says what they say. All
that a run leaves is in logs/; --json writes it, after each run. Exit code: 0
all answered (2xx), 1 some requests failed or --fail-if, 2 wrong usage or a
missing package, 3 the server did not start, 130 or 143 (128 + the signal)
interrupted: what was measured is reported. Python 3.10 or newer, nothing else.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.metadata
import math
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

import explain
import limits
import load
import objectives
import serve
import slots
from explain import Finding, Plan, Run
from load import Kind, section

PROBE_REQUESTS, PROBE_S = 2000, 60.0  # what a probe may spend, if nobody says otherwise
PYTHON = sys.version_info[:2]
PROBLEMS = (slots.Problem, load.Problem)  # load.py works alone, and so has its own

# ---------------------------------------------------------------- workloads


class Workload(NamedTuple):
    kinds: tuple[Kind, ...]
    stages: tuple[tuple[float, int], ...]  # seconds, users at their end
    wait_s: float | None = None


# The three workloads of "Async FastAPI, Measured" (bilouro, 2026), as its k6 scripts have them.
READ_BOOK = Kind(0.70, "GET", "/v1/books/{id}")
WORKLOADS = {
    "read": Workload((READ_BOOK,), ((15, 50), (15, 200), (20, 500), (20, 1000), (20, 1000))),
    "mixed": Workload(
        (
            READ_BOOK,
            Kind(0.25, "POST", "/v1/books", '{"title":"New","author":"Bench","year":2026,"isbn":"bench-{n}"}'),
            Kind(0.05, "PATCH", "/v1/books/{id}", '{"year":1999}'),
        ),
        ((15, 100), (20, 300), (25, 500), (20, 500)),
    ),
    "fanout": Workload((Kind(1.0, "GET", "/v1/sleep?ms=50"),), ((15, 50), (20, 200), (25, 500), (20, 500)), 0.05),
}


# ---------------------------------------------------------------- from the options to plans


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = load.Parser(
        prog="bench.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = serve.add_options(parser).add_argument
    add("--target", action="append", default=[], metavar="NAME", help="what to start; several times, or `all`")
    add("--url", type=load.pattern(r"\S+", "a URL without white space"), help="a server that runs already, http only")
    add("--path", action="append", default=[], type=load.pattern(load.PATH, "a path: / and no white space"),
        help="several times")  # fmt: skip
    add("--slots", type=load.number(int, 1, 100_000), metavar="N", help="of --app and --url: you know how many it has")
    add(
        "--wait",
        type=load.number(float, 0.0001, 3600),
        metavar="S",
        help="of --app and --url: how long a request waits",
    )
    add("--probe", action="store_true", help="double the burst until the answers show how many at a time; -n and -t are"
        f" then its budget ({PROBE_REQUESTS} requests, {PROBE_S:g} s)")  # fmt: skip
    add("--workload", choices=WORKLOADS, help="requests of the Books API that vary, with their ramp, kept connections")
    add("--scale", type=load.number(float, 0.001, 100), metavar="X", help="make the workload's stages X as long")
    add = parser.add_argument_group("objectives").add_argument
    for per_cent in (50, 95, 99):
        add(f"--p{per_cent}", type=load.number(float, 1e-4, 3600), metavar="S",
            help=f"{per_cent} %% of the requests within S: with --rate, what that needs")  # fmt: skip
    add("--find-rate", action="store_true", help="the highest rate of random arrivals that keeps the objective")
    add("--fail-if", action="append", default=[], type=objectives.parse_condition, metavar="'p99>0.1'",
        help="exit code 1 then; also failed>0, throughput<200; several times")  # fmt: skip
    load.add_options(parser)
    return check_arguments(parser.parse_args(serve.join_values(argv)))


def check_arguments(options: argparse.Namespace) -> argparse.Namespace:
    """What argparse cannot say: which options go together. Fills in the defaults that depend on others."""
    if sum(map(bool, (options.target, options.app, options.url))) > 1:
        raise slots.Problem("--target, --app and --url exclude each other")
    if (options.slots or options.wait) and not (options.app or options.url):
        raise slots.Problem("--slots and --wait go with --app and --url: what a target has is known")
    asked = [(getattr(options, f"p{per_cent}"), per_cent) for per_cent in (50, 95, 99)]
    asked = [(objective_s, per_cent) for objective_s, per_cent in asked if objective_s]
    options.objective = asked[0] if asked else None
    if len(asked) > 1:
        raise slots.Problem("--p50, --p95 and --p99 exclude each other")
    if asked and not (options.rate or options.find_rate):
        raise slots.Problem(f"--p{asked[0][1]} goes with --rate, or with --find-rate")
    if options.find_rate and (not asked or options.rate or options.concurrency or options.ramp or options.requests
                              or options.workload or options.probe):  # fmt: skip
        raise slots.Problem("--find-rate goes with --p99 (or --p95, --p50), and without -n, -c, --rate, --ramp,"
                            " --workload and --probe: it sends runs of its own")  # fmt: skip
    if options.find_rate:
        options.run_s, options.time_limit = min(options.time_limit or objectives.WITHIN_S, 60.0), None
    if options.probe:
        if options.concurrency or options.rate or options.ramp or options.workload:
            raise slots.Problem("--probe sends bursts of its own: without -c, --rate, --ramp and --workload")
        options.budget = options.requests or PROBE_REQUESTS, options.time_limit or PROBE_S
        options.requests, options.time_limit = PROBE_REQUESTS, None
    if options.server and not options.app:
        raise slots.Problem("--server goes with --app; a target has its own")
    if options.url:
        starts = ("path", "workers", "threads", "server_args", "pool_size", "database_url", "server_cpus", "access_log")
        if ignored := [name for name in starts if getattr(options, name)]:
            raise slots.Problem(f"--{ignored[0].replace('_', '-')} does not go with --url: that server runs already,"
                                " and the URL has the path")  # fmt: skip
    if options.url and options.cpu_time:
        raise slots.Problem("--cpu-time is for our own targets: what your service computes is its own")
    if options.app and (options.pool_size or options.database_url):
        raise slots.Problem("--pool-size and --database-url are for our own targets: your app has settings of its own")
    if options.scale and not options.workload:
        raise slots.Problem("--scale goes with --workload")
    if options.workload:
        if not options.target or options.path or options.data is not None or options.body_file or options.method:
            raise slots.Problem("--workload goes with a --target, and without --path, -m, -p and --data")
        options.keep_alive = True
        if not (options.requests or options.concurrency or options.rate or options.ramp):
            stages = WORKLOADS[options.workload].stages
            options.ramp = tuple((stage_s * (options.scale or 1.0), users) for stage_s, users in stages)
    load.check_options(options)
    return options


def make_plans(options: argparse.Namespace) -> list[Plan]:
    """One plan for each target and path, or a Problem that says which name or number is wrong."""
    if options.url:
        host, port, path = load.split_url(options.url)
        traffic = load.traffic_of(options, host, port, path)
        plans = [Plan(options.url, traffic, wait_s=stated_wait_s(options), stated_slots=options.slots)]
    elif options.app:
        plans = [plan_app(options, path) for path in options.path or ["/"]]
    else:
        plans = plan_targets(options)
    cpus, shared = processors(options)
    plans = [dataclasses.replace(plan, cpus=cpus, client_on_server_cpus=shared) for plan in plans]
    if options.timeout:
        return plans
    return [
        dataclasses.replace(plan, traffic=dataclasses.replace(plan.traffic, timeout_s=default_timeout_s(plan)))
        for plan in plans
    ]


def stated_wait_s(options: argparse.Namespace) -> float | None:
    given = options.wait or options.task_time
    return None if given is None else float(given)


def processors(options: argparse.Namespace) -> tuple[int, bool]:
    """How many CPUs the server may use, and whether the client has to share them, as there are no others for it."""
    ours = set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    server, client = options.server_cpus or ours, options.client_cpus or ours
    return len(server), len(server | client) == 1


def default_timeout_s(plan: Plan) -> float:
    """Twice the time in which one worker alone would serve all that can be under way, and 10 s; 40 s if not known."""
    each, waiting = plan.launch.slots_per_worker if plan.launch else None, plan.traffic.pace.most_under_way
    if each is None or not plan.wait_s or waiting == math.inf:
        return load.TIMEOUT_S
    return max(load.TIMEOUT_S, 10 + 2 * slots.rounds(int(waiting), each) * plan.wait_s)


def plan_app(options: argparse.Namespace, path: str) -> Plan:
    launch, traffic = serve.launch_app(options, options.method, path), load.traffic_of(options, path=path)
    warm_up = min(32, 4 * launch.workers) if options.warmup is None else options.warmup
    traffic = dataclasses.replace(traffic, warm_up=warm_up)
    return Plan(launch.app, traffic, launch, wait_s=stated_wait_s(options), stated_slots=options.slots)


def plan_targets(options: argparse.Namespace) -> list[Plan]:
    plans, every = [], "all" in options.target
    for name in serve.TARGETS if every else options.target:
        if name not in serve.TARGETS:
            raise slots.Problem(f"unknown target {name!r}; the targets are: all, {', '.join(serve.TARGETS)}")
        target = serve.TARGETS[name]
        if options.workload:
            if not target.pool:
                raise slots.Problem(f"{name} has no workloads: they are of the Books API (flask-books, fastapi-books)")
            paths = [WORKLOADS[options.workload].kinds[0].path.replace("{id}", "1")]
        else:
            paths = options.path or [route.path for route in target.routes]
        for path in paths:
            of_any_book = re.sub(r"/\d+$", "/1", path.partition("?")[0])
            route = next((route for route in target.routes if route.path == of_any_book), None)
            if route:
                plans.append(plan_target(name, route, path, options, strict=not every))
            elif not every:
                known = ", ".join(route.path for route in target.routes)
                raise slots.Problem(f"{name} has no path {path!r}; it has: {known}")
    if not plans:
        raise slots.Problem(f"no target has the path {options.path[0]!r}; see --list")
    return plans


def plan_target(name: str, route: serve.Route, path: str, options: argparse.Namespace, strict: bool) -> Plan:
    traffic, workload = load.traffic_of(options, path=path), options.workload
    if workload:
        traffic = dataclasses.replace(traffic, kinds=WORKLOADS[workload].kinds, ids=serve.SEEDED_BOOKS)
    launch, task_time_s = serve.launch_target(name, route, options, strict), float(options.task_time or 1.0)
    wait_s = wait_of(route, path, task_time_s, options.subtasks)
    if workload:
        wait_s = WORKLOADS[workload].wait_s
    return Plan(
        name, traffic, launch, task_time_s, options.subtasks, wait_s, cpu_time_s=options.cpu_time or 0.0,
        distribution=getattr(options.task_time, "distribution", "constant"), workload=workload,
    )  # fmt: skip


def wait_of(route: serve.Route, path: str, task_time_s: float, subtasks: int) -> float | None:
    """What a request to this route waits, in seconds; None: not known beforehand."""
    if route.waits == "ms":
        ms = re.search(r"[?&]ms=(\d+)", path)
        return int(ms[1]) / 1000 if ms else 0.05
    share = {"task": 1, "subtask": 1 / subtasks, "nothing": 0}.get(route.waits)
    return None if share is None else share * task_time_s


# ---------------------------------------------------------------- run


Announce = Callable[[str], None]  # shows what is known, as soon as it is


@dataclass
class Site:
    """Where the requests go: a server of ours that runs now, or somebody's."""

    address: tuple[Any, ...]
    server: serve.RunningServer | None = None
    access_log: Path | None = None
    output: Path | None = None  # the server's log
    log_begins: int = 0  # where in the access log this run begins


class Sent(NamedTuple):
    """What one load left."""

    measured: load.Measured
    log: serve.AccessLog | None
    other_cpu_s: float | None  # what other programs used meanwhile
    server_ended: bool


@contextmanager
def site_for(plan: Plan, options: argparse.Namespace, database: serve.Database | None) -> Iterator[Site]:
    """Start the server if it is ours, and stop it in the end. From there on signals are held back, until the caller
    has brought home what there is to report."""
    launch, traffic = plan.launch, plan.traffic
    if not launch:
        address = load.resolve(traffic.host, traffic.port)
        load.signals.is_held = True
        yield Site(address)
        return
    access_log, output = serve.new_log_files(options.logs, f"{plan.target}{traffic.path}", datetime.now())
    url = ""
    if launch.pool and database:
        if "error" in (answer := database.ask("reset")):  # every run starts from the same rows
            raise slots.Problem(f"the database: {answer['error']}")
        url = database.about["database_url"]
    server = serve.start_server(launch, access_log, output, options.server_cpus, url)
    load.signals.is_held = True
    try:
        yield Site(("127.0.0.1", server.port), server, access_log if launch.wrap else None, output)
    finally:
        serve.stop_server(server)


def send(plan: Plan, site: Site) -> Sent:
    """One load, with the counters and the access log of it."""
    traffic = dataclasses.replace(plan.traffic, port=site.address[1])
    if site.access_log:
        site.log_begins = site.access_log.stat().st_size
    if not site.server:
        return Sent(load.measure(traffic, site.address), None, None, False)
    before_s = serve.machine_cpu_s()
    cpu_s = functools.partial(serve.group_cpu_s, site.server.guard.pid)
    measured = load.measure(traffic, site.address, bool(site.access_log), cpu_s)
    other_s = None
    if before_s is not None and measured.server_cpu_s is not None:
        used_s = (serve.machine_cpu_s() or 0.0) - before_s
        other_s = round(max(0.0, used_s - measured.server_cpu_s - measured.client_cpu_s), 2)
    ended, log = site.server.ends_within(0.2 if any(measured.exchanges.error) else 0.0), None
    if site.access_log:
        answered = sum(1 for status in measured.exchanges.status if status)
        log = serve.wait_for_log(site.access_log, answered, site.log_begins)
        if measured.numbers:  # of several client processes: a request's number is not its place
            place = {str(number): str(i) for i, number in enumerate(measured.numbers)}
            log = log._replace(
                lines=[line._replace(request=place.get(line.request, line.request)) for line in log.lines]
            )
    return Sent(measured, log, other_s, ended)


def as_started(plan: Plan, site: Site) -> Plan:
    """With AnyIO's limit as it stands in the process of a user's app."""
    if not plan.launch or plan.launch.is_target or not site.access_log:
        return plan
    threads = serve.anyio_threads(site.access_log)
    return dataclasses.replace(plan, launch=dataclasses.replace(plan.launch, anyio_threads=threads))


def send_before(plan: Plan, site: Site) -> tuple[Plan, list[float], int]:
    """Warm-up and lone requests: the plan with the wait that they show, how long each lone one took, how many in all.

    Lone requests end after half a second, and with the first that is not answered well.
    """
    traffic = dataclasses.replace(plan.traffic, warm_up=0, keep_alive=False, port=site.address[1])
    sent, lone_s = 0, list[float]()
    if plan.wait_s is None and plan.traffic.warm_up:
        sent = plan.traffic.warm_up
        load.measure(dataclasses.replace(traffic, pace=load.Pace(sent, sent)), site.address)
        plan = dataclasses.replace(plan, traffic=dataclasses.replace(plan.traffic, warm_up=0))
    for _ in range(explain.lone_requests(plan)):
        found = load.measure(dataclasses.replace(traffic, pace=load.Pace(1, 1)), site.address).exchanges
        sent += 1
        if not 200 <= found.status[0] < 300:
            break
        lone_s.append(found.answered_s[0] - found.started_s[0])
        if sum(lone_s) > 0.5 or load.signals.received:
            break
    if plan.wait_s is None and lone_s:
        plan = dataclasses.replace(plan, wait_s=round(statistics.median(lone_s), 6), wait_is_measured=True)
    return plan if plan.traffic.pace.mode == "burst" else explain.with_overhead(plan, lone_s), lone_s, sent


def execute(
    plan: Plan, options: argparse.Namespace, database: serve.Database | None = None, announce: Announce | None = None
) -> tuple[Run, serve.AccessLog | None]:
    """Start the server if it is ours, predict, send, stop the server; the run's record and its access log."""
    when, show = datetime.now().isoformat(" ", "seconds"), announce or (lambda _: None)
    own_app = plan.launch is not None and not plan.launch.is_target  # what it is shows once it has started
    known = not own_app and (plan.wait_s is not None or not explain.lone_requests(plan))
    described = explain.describe(plan)
    show(explain.render_prediction(described) if known else explain.render_what_is_sent(described))
    with site_for(plan, options, database) as site:
        plan, lone_s, sent_before = send_before(as_started(plan, site), site)
        if not known:
            described = explain.describe(plan)
            show(explain.render_what_is_predicted(described))
        elif plan.held_s:
            described = explain.describe(plan)
            show(explain.render_what_is_expected(described))
        sent = send(plan, site)
    books: explain.BooksSeen | None = None
    if (
        plan.launch and plan.launch.pool and database
    ):  # only now, as the app has given back its connections, is it exact
        books = books_seen(database)
    return finished(plan, described, site, sent, lone_s, sent_before, when, options, books), sent.log


def probe(
    plan: Plan, options: argparse.Namespace, database: serve.Database | None, bring_home: Callable[[Run], None],
    show: Announce,
) -> None:  # fmt: skip
    """Bursts, each twice the one before, until the answers are unmistakable or the budget is spent."""
    budget, budget_s = options.budget
    timeout_s = options.timeout or min(plan.traffic.timeout_s, max(5.0, 0.7 * budget_s))
    plan = dataclasses.replace(plan, traffic=dataclasses.replace(plan.traffic, timeout_s=timeout_s))
    done: list[limits.Burst] = []
    what = (
        "a probe: bursts of 10, 20, 40, ... requests, until the answers show how many at a time; in all at most"
        f" {budget} requests and {budget_s:g} s, and none after one that fails"
    )
    show(explain.render_search(explain.describe(plan), what))
    with site_for(plan, options, database) as site:
        began_s = time.perf_counter()
        plan, lone_s, used = send_before(as_started(plan, site), site)
        size, why = limits.next_burst(done, budget - used, budget_s)
        while size and not load.signals.received:
            plan = dataclasses.replace(plan, traffic=dataclasses.replace(plan.traffic, pace=load.Pace(size)))
            described, when = explain.describe(plan), datetime.now().isoformat(" ", "seconds")
            run = finished(plan, described, site, send(plan, site), lone_s, used, when, options)
            if not (found := run["estimate"]):
                break
            done.append(limits.Burst(size, run["failed"], run["measured_s"], found))
            left_s = budget_s - (time.perf_counter() - began_s) + sum(burst.took_s for burst in done)
            size, why = limits.next_burst(done, budget - used, left_s)
            if not size and not run["failed"]:
                run["estimate"] = explain.with_suspects(limits.conclude(done), run, packages_of(plan), PYTHON)
                explain.judge(run)
            bring_home(run)
            show(explain.render_burst(run))
    if done:
        show(explain.render_found(run, why))


def find_rate(
    plan: Plan, options: argparse.Namespace, database: serve.Database | None, bring_home: Callable[[Run], None],
    show: Announce,
) -> None:  # fmt: skip
    """Runs of random arrivals, the first at the predicted rate, until the highest one that holds shows."""
    objective_s, per_cent = options.objective
    what = "random arrivals, run after run, until the highest rate that keeps the objective shows"
    show(explain.render_search(explain.describe(plan), what))
    with site_for(plan, options, database) as site:
        plan, lone_s, used = send_before(as_started(plan, site), site)
        plan = explain.with_overhead(plan, lone_s)
        first = first_rate(plan, site, objective_s, per_cent)
        show(explain.render_first_rate(plan, first, objective_s, per_cent, objectives.MOST_RUNS, options.run_s))
        tried: list[objectives.Tried] = []
        rate: float | objectives.Found = objectives.next_rate(first, objective_s, tried)
        while isinstance(rate, float) and not load.signals.received:
            pace = poisson_pace(rate, options.run_s, seed=len(tried) + 1)
            plan = dataclasses.replace(plan, traffic=dataclasses.replace(plan.traffic, pace=pace))
            described, when = explain.describe(plan), datetime.now().isoformat(" ", "seconds")
            run = finished(plan, described, site, send(plan, site), lone_s, used, when, options)
            bring_home(run)
            tried.append(objectives.Tried(rate, latency_at(run, per_cent), run["throughput_rps"], run["failed"]))
            show(explain.render_tried(run, rate, per_cent, tried[-1].latency_s, tried[-1].holds(objective_s)))
            rate = objectives.next_rate(first, objective_s, tried)
    if isinstance(rate, objectives.Found):
        show(explain.render_found_rate(rate.rate, rate.low, rate.high, rate.runs, run, objective_s, per_cent, used))


def first_rate(plan: Plan, site: Site, objective_s: float, per_cent: int) -> float:
    """The predicted rate; where slots or wait are not known, 70 % of what a second of eight users gets."""
    if plan.slots and plan.wait_s and plan.slots < math.inf:
        held_s = max(plan.wait_s + plan.cpu_time_s, plan.held_s)
        return slots.highest_rate(int(plan.slots), held_s, objective_s, per_cent)
    traffic = dataclasses.replace(plan.traffic, pace=load.Pace(concurrency=8, time_limit_s=1.0), port=site.address[1])
    found = load.measure(dataclasses.replace(traffic, warm_up=8), site.address).exchanges
    return max(1.0, 0.7 * sum(200 <= status < 300 for status in found.status))


def poisson_pace(rate: float, run_s: float, seed: int) -> load.Pace:
    schedule = load.poisson_schedule(rate, math.inf, run_s, seed)
    return load.Pace(len(schedule), rate=rate, time_limit_s=run_s, schedule=schedule, seed=seed)


def latency_at(run: Run, per_cent: int) -> float:
    """The percentile; the longest of all, if there are too few for it."""
    latency = run["latency_s"]
    if not latency:
        return math.inf
    return {50: latency["median"], 95: latency["p95"], 99: latency["p99"]}[per_cent] or latency["max"]


def finished(
    plan: Plan, described: explain.RunPlan, site: Site, sent: Sent, lone_s: list[float], sent_before: int, when: str,
    options: argparse.Namespace, books: explain.BooksSeen | None = None,
) -> Run:  # fmt: skip
    """The record of a load, with all that can be said of it."""
    measured, log, exchanges = sent.measured, sent.log, sent.measured.exchanges
    failed = sent.server_ended or any(exchanges.error) or any(status >= 500 for status in exchanges.status)
    from_log, process_of = explain.summarise_log(plan, described, log, exchanges.sent_s)
    finding: Finding = {
        **described,
        **load.summarise(plan.traffic, measured),
        **from_log,
        "when": when,
        "access_log": load.shown(site.access_log) if site.access_log else None,
        "server_log": load.shown(site.output) if site.output else None,
        "server_said": serve.telling_line(site.output) if failed and site.output else None,
        "server_ended": sent.server_ended,
        "lone_s": min(lone_s, default=None),
        "other_cpu_s": sent.other_cpu_s,
        "band": None,
        "limits": [],
        "estimate": None,
        "explained_by": None,
        "warnings": [],
    }
    finding["warmed_up"] += sent_before
    finding["band"] = explain.band_of(finding, timer_s())
    launch = plan.launch
    holds = bool(launch and launch.holds_while_queueing)
    threads = serve.anyio_threads(site.access_log) if site.access_log else slots.ANYIO_THREADS
    finding["estimate"] = explain.estimate_of(
        finding, exchanges, measured.begun_s, lone_s, packages_of(plan), PYTHON, holds, threads, process_of
    )
    explain.judge(finding)
    run = cast(Run, finding)  # which may have more
    if books:
        run["database"] = books
        run["warnings"] += explain.audit_books(run)
    if plan.traffic.pace.mode == "burst" or options.json:
        run["exchanges"] = explain.columns_of(measured, log, explain.predicted_answers(plan, process_of))
    return run


def packages_of(plan: Plan) -> frozenset[str] | None:
    """What the service may have imported: as the app says, else all that this Python has; None: not known."""
    if not plan.launch:
        return None
    return installed_packages() if plan.launch.imported is None else frozenset(plan.launch.imported)


@functools.cache
def installed_packages() -> frozenset[str]:
    """The distributions of this Python, which is the server's too."""
    names = (found.metadata["Name"] for found in importlib.metadata.distributions())
    return frozenset(name.lower().replace("_", "-") for name in names if name)


def books_seen(database: serve.Database) -> explain.BooksSeen:
    answer = database.ask("stats")
    if "error" in answer:
        return {"error": answer["error"]}
    return {
        "rows": answer["rows"], "statements": answer["statements"], "connections": answer["connections"],
        "version": database.about["version"],
    }  # fmt: skip


def timer_s() -> float:
    """How late a process wakes that sleeps for a millisecond: the worst of ten."""
    late_s = 0.0
    for _ in range(10):
        begun_s = time.perf_counter()
        time.sleep(0.001)
        late_s = max(late_s, time.perf_counter() - begun_s - 0.001)
    return late_s


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    with load.signals.handled():
        try:
            options = parse_arguments(argv)
            if options.list:
                load.tell(serve.render_targets())
                return 0
            if not (options.target or options.app or options.url):
                load.tell(f"{__doc__}\nTargets: {', '.join(serve.TARGETS)}")
                return 0
            return bench(options, ["bench.py", *argv])
        except PROBLEMS as problem:
            load.say(f"bench.py: {problem}")
            return problem.exit_code
        except (load.Interrupted, KeyboardInterrupt):
            load.say("bench.py: interrupted")
            return load.signals.exit_code or 130


def bench(options: argparse.Namespace, command: list[str]) -> int:
    plans = make_plans(options)
    launches = [plan.launch for plan in plans if plan.launch]
    serve.check_packages(launches)
    if options.url:
        load.resolve(plans[0].traffic.host, plans[0].traffic.port)
    load.prepare(options, [plan.traffic.pace for plan in plans])
    document = load.new_document(command, serve.versions_of(launches))
    output, printer = load.JsonFile(options.json), load.Printer(options.json)
    output.write(document)
    in_full = options.verbose or not ("all" in options.target or len(set(options.target)) > 1)
    try:
        printer.show(explain.render_header(document))
        with serve.database_for(launches, options.database_url, options.logs, options.client_cpus) as database:
            for plan in plans:

                def bring_home(run: Run) -> None:
                    document["runs"].append(run)
                    output.write(document)

                if options.probe or options.find_rate:
                    (probe if options.probe else find_rate)(plan, options, database, bring_home, printer.show)
                else:
                    run_once(plan, options, database, bring_home, printer, in_full)
                load.signals.is_held = False
                if load.signals.received:
                    break
        if len(plans) > 1 and not (options.quiet or options.probe or options.find_rate):
            printer.show("\n" + explain.render_comparison(document["runs"]))
    finally:
        document["complete"] = not load.signals.received and len(document["runs"]) >= len(plans)
        output.write(document, is_last=True)
    reasons = [line for run in document["runs"] for line in objectives.failing(run, options.fail_if)]
    for line in reasons:
        load.say(f"bench.py: {line}")
    return load.signals.exit_code or (1 if reasons or any(run["failed"] for run in document["runs"]) else 0)


def run_once(
    plan: Plan, options: argparse.Namespace, database: serve.Database | None, bring_home: Callable[[Run], None],
    printer: load.Printer, in_full: bool,
) -> None:  # fmt: skip
    if not (options.quiet or in_full):
        printer.show(explain.render_start_of_line(explain.describe(plan)))
    run, log = execute(plan, options, database, printer.show if in_full and not options.quiet else None)
    bring_home(run)
    show_after(run, log, options, printer, in_full)
    if options.objective and run["wait_s"] and run["answered"] and options.rate:
        objective_s, per_cent = options.objective
        cpu_s = (run["server_cpu_s"] or 0.0) / run["answered"]
        needed = slots.size(options.rate, run["wait_s"], objective_s, per_cent, cpu_s, max(1, plan.cpus))
        printer.show("\n" + slots.render_size(needed, plan.workers))


def show_after(
    run: Run, log: serve.AccessLog | None, options: argparse.Namespace, printer: load.Printer, in_full: bool
) -> None:
    if options.quiet:
        printer.show(section("verdict", f"{run['target']} {run['path']}: {explain.render_verdict(run)}"))
    elif in_full:
        printer.show(explain.render_result(run, log))
    else:
        printer.show(explain.render_end_of_line(run))


if __name__ == "__main__":
    sys.exit(main())
