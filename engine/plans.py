"""From options to plans, and from a plan to its prediction. A prediction never sees what its run measured."""

from __future__ import annotations

import argparse
import math
import re
import statistics
import urllib.parse
from collections.abc import Sequence
from dataclasses import replace

from engine import model
from engine.launch import Launch, launch_app, launch_command, launch_target
from engine.listeners import listeners, slots_by_command
from engine.loads import Burst, Closed, Load, Open, Ramp
from engine.machine import about_machine, allowed_cpus
from engine.model import Forecast, Wait
from engine.options import PATH
from engine.run import Kind, Plan, Prediction
from engine.stats import figures_of
from engine.targets import HANDLERS, SEEDED_BOOKS, TARGETS, WORKLOADS, Route, TaskTime
from engine.verdict import most_overhead_s
from engine.words import Problem

TIMEOUT_S = 40.0  # pools and gunicorn's workers give up after 30 s: their word for it is better than our time-out
MOST_PREDICTED = 300_000  # requests that are predicted one by one: a second
LONE_REQUESTS = 3  # one after the other before a run; 1 where a request takes long
LONG_WAIT_S = 0.3
LEARNING_REQUESTS = 5  # the same where the wait is not known
STEEP = 1.02  # an open loop near its limit is also predicted with a wait that is so much longer
STEEP_LOAD = 0.9


# ---------------------------------------------------------------- from options to plans


def load_of(options: argparse.Namespace) -> Load:
    """The load that the options ask for. Raises Problem."""
    requests = options.requests or (math.inf if options.time_limit else 16)
    limit_s = options.time_limit or math.inf
    if options.concurrency:
        return Closed(requests, limit_s, options.think, options.concurrency)
    if options.ramp:
        return Ramp(requests, limit_s, options.think, options.ramp)
    if options.arrivals == "poisson":
        if min(requests, limit_s * options.rate) > 10_000_000:
            raise Problem("--arrivals poisson: at most 10 million requests")
        return Open.poisson(options.rate, requests, limit_s, options.seed)
    if options.rate:
        return Open(requests, limit_s, rate_rps=options.rate)
    return Burst(requests)


def plans_of(options: argparse.Namespace) -> list[Plan]:
    """One plan for each target and path. Raises Problem with the name or the number that is wrong."""
    if options.is_paper:
        return [plan_on_paper(options)]
    if options.url:
        host, port, path = split_url(options.url)
        plan = replace(plan_of(options, options.url, path), host=host, port=port)
        plans = [with_stated_slots(with_listeners(plan), options.slots)]
    elif options.app:
        plans = [plan_app(options, path, launch_app(options, options.method, path)) for path in options.path or ["/"]]
    elif options.run:
        plans = [plan_app(options, path, launch_command(options.run)) for path in options.path or ["/"]]
    else:
        plans = plan_targets(options)
    return [finished(plan, options) for plan in plans]


def plan_of(options: argparse.Namespace, name: str, path: str, wait: TaskTime | None = None) -> Plan:
    """What every plan takes from the options. wait: what a request waits, if that is known and not stated."""
    wait, load = options.wait or options.task_time or wait, load_of(options)
    return Plan(
        name, path=path, load=load, method=options.method, headers=tuple(options.header), body=options.body,
        keep_alive=options.keep_alive, warm_up=options.warmup or 0,
        processes=int(min(options.processes, load.most_under_way)), wait_s=None if wait is None else float(wait),
        distribution=wait.distribution if wait else "constant",
    )  # fmt: skip


def plan_app(options: argparse.Namespace, path: str, launch: Launch) -> Plan:
    """The user's own service, started here."""
    plan = plan_of(options, launch.app or launch.name, path)
    if options.warmup is None:
        plan = replace(plan, warm_up=min(32, 4 * launch.workers))
    return with_stated_slots(with_launch(plan, launch), options.slots)


def plan_targets(options: argparse.Namespace) -> list[Plan]:
    """Of `all`, a target without the path is left out; of a named one that is a mistake."""
    plans, every = [], "all" in options.target
    for name in TARGETS if every else options.target:
        if name not in TARGETS:
            raise Problem(f"unknown target {name!r}; the targets are: all, {', '.join(TARGETS)}")
        routes = {route.path: route for route in TARGETS[name].routes}
        for path in paths_of(name, options):
            route = routes.get(re.sub(r"/\d+$", "/1", path.partition("?")[0]))
            if route:
                plans.append(plan_target(name, route, path, options, strict=not every))
            elif not every:
                raise Problem(f"{name} has no path {path!r}; it has: {', '.join(routes)}")
    if not plans:
        raise Problem(f"no target has the path {options.path[0]!r}; see --list")
    return plans


def paths_of(name: str, options: argparse.Namespace) -> list[str]:
    """The paths that are asked for, else all that the target has."""
    if not options.workload:
        return options.path or [route.path for route in TARGETS[name].routes]
    if not TARGETS[name].pool:
        raise Problem(f"{name} has no workloads: they are of the Books API (flask-books, fastapi-books)")
    return [WORKLOADS[options.workload].kinds[0][2].replace("{id}", "1")]


def plan_target(name: str, route: Route, path: str, options: argparse.Namespace, strict: bool = True) -> Plan:
    launch = launch_target(name, route, options, strict)
    task_time_s, plan = float(options.task_time or 1), plan_of(options, name, path, TaskTime(1))
    plan = replace(
        plan, task_time_s=task_time_s, subtasks=options.subtasks, cpu_time_s=options.cpu_time or 0.0,
        wait_s=wait_of(route, path, task_time_s, options.subtasks),
    )  # fmt: skip
    if options.workload:
        workload = WORKLOADS[options.workload]
        kinds = tuple(Kind(*kind) for kind in workload.kinds)
        headers = (*plan.headers, "Content-Type: application/json")
        plan = replace(
            plan, workload=options.workload, headers=headers, kinds=kinds, ids=SEEDED_BOOKS, wait_s=workload.wait_s
        )
    return with_launch(plan, launch)


def wait_of(route: Route, path: str, task_time_s: float, subtasks: int) -> float | None:
    """What a request to this route waits, in seconds; None: not known beforehand."""
    if route.waits == "ms":
        ms = re.search(r"[?&]ms=(\d+)", path)
        return int(ms[1]) / 1000 if ms else 0.05
    return {"task": task_time_s, "subtask": task_time_s / subtasks, "nothing": 0.0}.get(route.waits)


def plan_on_paper(options: argparse.Namespace) -> Plan:
    """A prediction without a server: --slots of each process, or no limit."""
    each = options.slots or math.inf
    return replace(
        plan_of(options, "on paper", "/", TaskTime(1)), workers=options.workers, slots_per_worker=each,
        server_slots=each, slots=each * options.workers, slots_known=True, shared_queue=options.one_queue,
        passes=(1.0,) + (0.0,) * (options.passes - 1),
    )  # fmt: skip


# ---------------------------------------------------------------- what a plan needs to be complete


def with_launch(plan: Plan, launch: Launch) -> Plan:
    """The plan with a server, and the slots that its settings and the handler give."""
    each = launch.slots_per_worker
    return replace(
        plan, launch=launch, workers=launch.workers, slots_per_worker=each, server_slots=launch.server_slots,
        slots=None if each is None else each * launch.workers, slots_known=each is not None,
        shared_queue=launch.shared_queue, passes=launch.passes or HANDLERS[launch.handler].passes,
        most_connections=launch.open_connections,
    )  # fmt: skip


def with_listeners(plan: Plan) -> Plan:
    """The plan with the processes that listen on its port of this machine, and the slots that their settings give."""
    if not plan.host.startswith(("127.", "localhost")):
        return plan
    found = listeners(plan.port)
    slots = slots_by_command(found)
    plan = replace(plan, listeners=found)
    if not slots:
        return plan
    return replace(
        plan, workers=slots.workers, slots_per_worker=slots.each, slots=slots.each * slots.workers, slots_known=True,
        shared_queue=slots.one_queue,
    )  # fmt: skip


def with_stated_slots(plan: Plan, slots: int | None) -> Plan:
    """The plan with slots that the user states: one queue for all processes."""
    if not slots:
        return plan
    return replace(plan, workers=1, slots_per_worker=slots, slots=slots, slots_known=True, slots_stated=True)


def finished(plan: Plan, options: argparse.Namespace) -> Plan:
    """The plan with the machine, its lone requests, and a time-out that no queue of its own exceeds."""
    ours = allowed_cpus()
    server, client = set(options.server_cpus or ours), set(options.client_cpus or ours)
    return replace(
        plan, cpus=len(server), client_on_server_cpus=len(server | client) == 1, all_cpus=about_machine().cpus,
        lone_requests=lone_requests(plan), timeout_s=options.timeout or default_timeout_s(plan),
    )  # fmt: skip


def lone_requests(plan: Plan) -> int:
    """How many requests are sent one after the other, to learn what a single one costs here."""
    if plan.wait_s is None and not plan.is_target:
        return LEARNING_REQUESTS
    if not plan.launch or not plan.wait_s:
        return 0
    return LONE_REQUESTS if plan.busy_s <= LONG_WAIT_S else 1


def default_timeout_s(plan: Plan) -> float:
    """Twice the time in which one worker alone would serve all that can be under way, and 10 s; at least 40 s."""
    each = plan.launch.slots_per_worker if plan.launch else None
    waiting = plan.load.most_under_way
    if each is None or not plan.wait_s or waiting == math.inf:
        return TIMEOUT_S
    return max(TIMEOUT_S, 10 + 2 * model.rounds(int(waiting), each) * plan.wait_s)


def split_url(url: str) -> tuple[str, int, str]:
    """Host, port and path of an http URL. Raises Problem."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = 80 if parts.port is None else parts.port
    except ValueError as error:
        raise Problem(f"{url!r}: {error}") from None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme == "https":
        raise Problem("https:// is not supported: measure the http port behind the TLS, or TLS is what you measure")
    if parts.scheme != "http" or not parts.hostname or parts.username is not None or not port:
        raise Problem(f"{url!r} is not of the form http://host:port/path")
    if not re.fullmatch(PATH, path) or not re.fullmatch(r"[0-9A-Za-z.:_-]+", parts.hostname):
        raise Problem(f"{url!r}: only printable ASCII, other characters percent-encoded")
    return parts.hostname, port, path


# ---------------------------------------------------------------- what lone requests show


def with_lone_requests(plan: Plan, lone_s: Sequence[float]) -> Plan:
    """The plan with what lone requests have shown: the wait where it was not known, and how long a slot is held.

    A request holds its slot for at least t + s and at most the latency of a lone request, of which the connection and
    the parsing need no slot: the middle, which is at most half of that overhead off. Of a burst only the rounds count,
    so it keeps t + s. Nothing is taken from lone requests that take so long that their wait must be another one.
    """
    if plan.wait_s is None and lone_s:
        plan = replace(plan, wait_s=round(statistics.median(lone_s), 6), wait_is_measured=True)
    return with_overhead(plan, lone_s) if plan.load.is_steady else plan


def with_overhead(plan: Plan, lone_s: Sequence[float]) -> Plan:
    alone_s, wait_s = min(lone_s, default=0.0), plan.wait_s
    if not wait_s or plan.distribution != "constant":
        return plan
    if not plan.busy_s < alone_s <= plan.busy_s + most_overhead_s(wait_s):
        return plan
    return replace(plan, held_s=round((plan.busy_s + alone_s) / 2, 6))


# ---------------------------------------------------------------- from a plan to its prediction


def held_for(plan: Plan, as_lone_requests_show: bool = True) -> float:
    """How long a request holds its slot: t + s, or as measured; but at least its share of the CPUs, S s / P.

    That is the second resource in one number: X = S / max(t + s, S s / P) = min(S / (t + s), P / s).
    """
    share_s = 0.0
    if plan.cpu_time_s:
        at_once = min(plan.slots or 1, plan.load.most_under_way)
        share_s = at_once * plan.cpu_time_s / min(plan.workers, plan.cpus)  # a Python process computes on one CPU
    return max(plan.busy_s, (plan.held_s or 0.0) if as_lone_requests_show else 0.0, share_s)


def forecast_of(plan: Plan, process_of: Sequence[int] = (), factor: float = 1.0) -> Forecast | None:
    """Start and answer of every request; None where slots or wait are not known, or there are too many to predict.

    process_of: which process takes request i, where that is known afterwards; else each process in turn. It may end
    before the requests do, as the last requests may have failed before a process took them. factor: of the waits.
    """
    wait_s, load, slots = plan.wait_s, plan.load, plan.slots
    if slots is None or not wait_s:
        return None
    held_s = held_for(plan) * factor
    if min(load.most_requests, load.time_limit_s / held_s * min(slots, load.most_under_way)) > MOST_PREDICTED:
        return None
    kept = plan.most_connections if plan.keep_alive else math.inf
    return load.forecast(plan.service, waits_of(plan, held_s), process_of, kept)


def waits_of(plan: Plan, held_s: float) -> Wait:
    """How long each request holds its slot: drawn by its number where the plan says so."""
    if plan.distribution == "constant":
        return held_s
    wait_s, distribution = plan.wait_s or 0.0, plan.distribution
    return lambda number: model.drawn_wait_s(wait_s, distribution, number) + held_s - wait_s


def on_paper(plan: Plan, split: Sequence[int]) -> tuple[Plan, Prediction, Forecast]:
    """Every request of a plan without a server. split: how many requests or users each process gets; the plan and the
    closed form are then those of the fullest process, which decides."""
    waits = waits_of(plan, plan.busy_s)
    if not split:
        forecast = plan.load.forecast(plan.service, waits)
        return plan, prediction_of(plan, forecast), forecast
    forecast = plan.load.forecast_split(plan.service, waits, split)
    fullest = plan.load.of_process(max(split))
    form = f"the fullest process: {fullest.formula(plan.slots_per_worker or 1, plan.busy_s)}"
    prediction = replace(prediction_of(plan, forecast), form=form)
    return replace(plan, load=fullest, slots=plan.slots_per_worker), prediction, forecast


def prediction_for(plan: Plan, process_of: Sequence[int] = ()) -> Prediction:
    """What the client will measure. Everything that is not known is None."""
    if not plan.slots_known or not plan.wait_s:
        return Prediction(possibilities=possibilities(plan))
    return prediction_of(plan, forecast_of(plan, process_of))


def prediction_of(plan: Plan, forecast: Forecast | None) -> Prediction:
    """The figures of a forecast, with the closed form beside it. Only where slots and wait are known."""
    slots, load = plan.slots or math.inf, plan.load
    held_s = held_for(plan, as_lone_requests_show=False)
    busy = min(slots, load.most_under_way)
    figures = Prediction(makespan_s=load.last_answer_s(slots, held_s))
    if forecast:
        figures = Prediction(**figures_of(forecast, load.time_limit_s))
    return replace(
        figures, spread_s=load.spread_s(slots, plan.busy_s) if forecast else None,
        ceiling_rps=busy / held_s if busy < math.inf else None, form=load.formula(slots, held_s),
        p99_if_longer_s=p99_if_longer_s(plan, slots),
    )  # fmt: skip


def p99_if_longer_s(plan: Plan, slots: float) -> float | None:
    """An open loop close to its limit: the p99 if each request took 2 % longer. Else None."""
    offered = plan.load.offered_load(slots, held_for(plan))
    if offered is None or not STEEP_LOAD <= offered <= 1:
        return None
    forecast = forecast_of(plan, factor=STEEP)
    return figures_of(forecast, plan.load.time_limit_s)["p99_s"] if forecast else None


HANDLERS_MAY_BE = ("def", "async", "blocking")  # of an ASGI app that does not say


def possibilities(plan: Plan) -> dict[str, float]:
    """When the last answer would come, for each kind of handler that it can be; empty where that is known."""
    launch, load = plan.launch, plan.load
    if not launch or plan.slots_known or not plan.wait_s or load.last_answer_s(1, plan.wait_s) is None:
        return {}
    found = {}
    for handler in HANDLERS_MAY_BE:
        if launch.handlers and handler not in launch.handlers:
            continue
        forecast = forecast_of(with_launch(plan, replace(launch, handler=handler)))
        if forecast and forecast.answered_s:
            found[handler] = round(max(forecast.answered_s), 6)
    return found
