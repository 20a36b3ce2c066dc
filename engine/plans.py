"""From options to plans, and from a plan to its prediction. A prediction never sees what its run measured."""

import argparse
import itertools
import math
import operator
import os
import re
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from engine import model
from engine.band import most_overhead_s
from engine.deals import with_ranges
from engine.kinds import Kind
from engine.launch import Launch, launch_app, launch_command, launch_target
from engine.listeners import address_of, all_run_apps, listeners, slots_by_command, workers_among
from engine.loads import Burst, Closed, Load, Open, Ramp
from engine.machine import AT_START, about_machine, cpu_limit
from engine.model import Forecast, Wait
from engine.run import Plan, Prediction
from engine.stats import figures_for
from engine.targets import HANDLERS, TARGETS, WORKLOADS, Route, TaskTime
from engine.tls import Tls
from engine.words import Problem
from engine.workload import MOST_TIMED, PLACEHOLDER, drawn

TIMEOUT_S = 40.0  # pools and gunicorn's workers give up after 30 s: their word for it is better than our time-out
MOST_PREDICTED = 300_000  # requests that are predicted one by one: a second
LONE_REQUESTS = 8  # one after the other before a run; 1 where a request takes long
LONG_WAIT_S = 0.3
HELD_OF_OVERHEAD = 0.75  # as measured: with it the p99 that the split gives fits 4 x 4 threads best, at 80 % of them
SHORT_WAIT_S = 0.005  # what takes less is mostly CPU time, and no wait to predict with
LEARNING_REQUESTS = 5  # the same where the wait is not known
STEEP = 1.02  # an open loop near its limit is also predicted with a wait that is so much longer
STEEP_LOAD = 0.9


# ---------------------------------------------------------------- from options to plans


def load_of(options: argparse.Namespace) -> Load:
    """The load that the options ask for. Raises Problem."""
    requests, limit_s = options.requests or math.inf, options.time_limit or math.inf
    if options.ramp:
        limit_s = min(limit_s, sum(stage_s for stage_s, _ in options.ramp))
        return Ramp(requests, limit_s, options.think, options.ramp)
    if requests == limit_s == math.inf:
        limit_s = 10.0
    if options.concurrency:
        return Closed(requests, limit_s, options.think, options.concurrency)
    if not options.rate:
        return Burst(options.requests or 16)
    if options.arrivals != "poisson":
        return Open(requests, limit_s, rate_rps=options.rate)
    return Open.poisson(options.rate, requests, limit_s, options.seed)


def plans_of(options: argparse.Namespace) -> list[Plan]:
    """One plan for each target and path. Raises Problem with the name or the number that is wrong."""
    if options.is_paper:
        return [paper_plan(options)]
    if options.url:
        host, port, path = split_url(options.url)
        plans = [with_listeners(plan_of(options, options.url, path, host=host, port=port))]
    elif options.app:
        plans = [plan_app(options, path, launch_app(options, options.method, path)) for path in options.path or ["/"]]
    elif options.run:
        plans = [plan_app(options, path, launch_command(options)) for path in options.path or ["/"]]
    else:
        plans = plan_targets(options)
    return [finished(with_mix(plan, options), options) for plan in plans]


def with_mix(plan: Plan, options: argparse.Namespace) -> Plan:
    """The plan with the kinds of request that a file has."""
    mix = options.mix
    if not mix:
        return plan
    plan = replace(
        plan, kinds=mix.kinds, order=mix.order, mix_seed=options.seed, login=mix.login, mix_note=mix.note,
        workload=mix.name, distribution="mix" if plan.distribution == "constant" else plan.distribution,
    )  # fmt: skip
    if options.app and plan.launch:
        found = [launch_app(options, kind.method, bare(kind.path)) for kind in mix.kinds[:MOST_TIMED]]
        return with_launch(plan, in_common(plan.launch, found))
    return plan


def in_common(launch: Launch, of_kinds: Sequence[Launch]) -> Launch:
    """What is known of the handlers of all kinds: slots and passes, as far as these are the same."""
    if len({one.handler for one in of_kinds}) > 1:
        return replace(launch, handler=None, handlers=())
    return replace(launch, passes=(1.0,)) if len({one.passes for one in of_kinds}) > 1 else launch


def bare(path: str) -> str:
    """A path with ones for its placeholders."""
    return PLACEHOLDER.sub("1", path)


def paper_plan(options: argparse.Namespace) -> Plan:
    """Of a server that only the options know."""
    each = options.slots or math.inf
    return plan_of(
        options, "on paper", "/", workers=options.workers, slots_per_worker=each, server_slots=each,
        slots=each * options.workers, slots_known=True, shared_queue=options.one_queue,
        passes=(1.0,) + (0.0,) * (options.passes - 1),
    )  # fmt: skip


def plan_of(options: argparse.Namespace, name: str, path: str, **more: Any) -> Plan:
    """What every plan takes from the options, and more. A target waits 1 s if nothing else is said."""
    wait, load = options.wait or options.task_time, load_of(options)
    if not (options.app or options.run or options.url):
        wait = wait or TaskTime(1)
    if wait:
        more = {"wait_s": float(wait), "distribution": wait.distribution} | more
    return Plan(
        name, path=path, load=load, method=options.method, headers=tuple(options.header), body=options.body,
        victim=options.victim or "", any_status=options.any_status,
        first_byte=options.first_byte, until=options.until, tls=tls_of(options), keep_alive=options.keep_alive,
        warm_up=options.warmup or 0,
        processes=int(min(options.processes, load.most_under_way)), **more,
    )  # fmt: skip


def tls_of(options: argparse.Namespace) -> Tls | None:
    """How the server's certificate is checked; None: plain http. Raises Problem."""
    if options.cert:
        return Tls(os.path.abspath(options.cert), is_own=True, is_checked=not options.insecure)
    if (options.url or "").startswith("https://"):
        return Tls(str(options.cacert or ""), is_checked=not options.insecure)
    if options.cacert or options.insecure:
        raise Problem("--cacert and --insecure go with a URL that begins with https://")
    return None


def plan_app(options: argparse.Namespace, path: str, launch: Launch) -> Plan:
    """The user's own service, started here."""
    plan = with_launch(plan_of(options, launch.app or launch.name, path), launch)
    if options.victim and options.app:
        victim = launch_app(options, "GET", options.victim)
        likely = "def" if "def" in victim.handlers else next(iter(victim.handlers), None)  # a dependency needs a thread
        plan = replace(plan, victim_handler=victim.handler or likely)
    return replace(plan, warm_up=warm_up_of(plan)) if options.warmup is None else plan


def warm_up_of(plan: Plan) -> int:
    """So many requests reach every worker, if nothing else is said."""
    return min(32, 4 * plan.workers)


def plan_targets(options: argparse.Namespace) -> list[Plan]:
    """Of `all`, a target without the path is left out; of a named one that is a mistake."""
    plans, every = [], "all" in options.target
    for name in TARGETS if every else options.target:
        if name not in TARGETS:
            raise Problem(f"unknown target {name!r}; the targets are: all, {', '.join(TARGETS)}")
        routes = {route.path: route for route in TARGETS[name].routes}
        for path in options.path or routes:
            if route := routes.get(re.sub(r"/\d+$", "/1", path.partition("?")[0])):
                plans.append(plan_target(name, route, path, options, strict=not every))
            elif not every:
                raise Problem(f"{name} has no path {path!r}; it has: {', '.join(routes)}")
    if not plans:
        raise Problem(f"no target has the path {options.path[0]!r}; see --list")
    return plans


def plan_target(name: str, route: Route, path: str, options: argparse.Namespace, strict: bool) -> Plan:
    launch, workload = launch_target(name, route, options, strict), WORKLOADS.get(options.workload)
    task_time_s, subtasks = float(options.task_time or 1), options.subtasks
    wait_s = workload.wait_s if workload else wait_of(route, path, task_time_s, subtasks)
    plan = plan_of(
        options, name, path, task_time_s=task_time_s, subtasks=subtasks, cpu_time_s=options.cpu_time or 0.0,
        wait_s=wait_s, workload=options.workload,
        kinds=tuple(Kind(*kind) for kind in workload.kinds) if workload else (),
    )  # fmt: skip
    routes = {route.path: route.handler for route in TARGETS[name].routes}
    return with_launch(replace(plan, victim_handler=routes.get(options.victim)), launch)


def wait_of(route: Route, path: str, task_time_s: float, subtasks: int) -> float | None:
    """What a request to this route waits, in seconds; None: not known beforehand."""
    if route.waits == "ms":
        ms = re.search(r"[?&]ms=(\d+)", path)
        return int(ms[1]) / 1000 if ms else 0.05
    return {"task": task_time_s, "subtask": task_time_s / subtasks, "nothing": 0.0}.get(route.waits)


# ---------------------------------------------------------------- what a plan needs to be complete


def with_launch(plan: Plan, launch: Launch) -> Plan:
    """The plan with a server, and the slots that its settings and the handler give."""
    each = launch.slots_per_worker
    return replace(
        plan, launch=launch, workers=launch.workers, slots_per_worker=each, server_slots=launch.server_slots,
        slots=None if each is None else each * launch.workers, slots_known=each is not None,
        shared_queue=launch.shared_queue, passes=launch.passes or HANDLERS[launch.handler].passes,
        most_connections=launch.open_connections * launch.workers,
    )  # fmt: skip


def with_parts(plan: Plan, parts: int) -> Plan:
    """The plan where the body comes from a `def` generator: each part needs one of AnyIO's threads again, the last one
    only to say that there is no more."""
    launch = plan.launch
    if not launch or plan.is_target or plan.slots_stated or parts < 2:
        return plan
    passes = (0.0,) * (launch.handler == "def") + (1 / (parts - 1),) * (parts - 1) + (0.0,)
    return with_launch(plan, replace(launch, handler="def", handlers=(), passes=passes, body_parts=parts))


def with_body_outside(plan: Plan) -> Plan:
    """The plan where the body of a `def` handler's answer is sent by the event loop: it holds no thread meanwhile."""
    launch = plan.launch
    if not launch or launch.handler != "def" or plan.is_target or plan.slots_stated:
        return plan
    return with_launch(plan, replace(launch, handler="async body of a def", handlers=()))


def with_listeners(plan: Plan) -> Plan:
    """The plan with the processes that listen on its port of this machine, and the slots that their settings give."""
    if not plan.host.startswith(("127.", "localhost", "::1")):
        return plan
    found = listeners(address_of(plan.host, plan.port), plan.port)
    slots = slots_by_command(found)
    plan = replace(plan, listeners=found)
    if not slots:  # what does not run apps itself may pass requests on to any number of processes
        return replace(plan, workers=len(workers_among(found)) if all_run_apps(found) else 1)
    return replace(
        plan, workers=slots.workers, slots_per_worker=slots.each, slots=slots.each * slots.workers, slots_known=True,
        shared_queue=slots.one_queue,
    )  # fmt: skip


def lone_requests_of(plan: Plan) -> int:
    """How many requests are sent one after the other, before the load."""
    if plan.launch and plan.wait_s:
        return LONE_REQUESTS if plan.busy_s <= LONG_WAIT_S else 1
    return LEARNING_REQUESTS if plan.wait_s is None and not plan.is_target else 0


def finished(plan: Plan, options: argparse.Namespace) -> Plan:
    """The plan with the slots that the user states, the machine, its lone requests (sent one after the other, to learn
    what a single one costs here), and a time-out that no queue of its own exceeds."""
    if each := options.slots:  # one queue for all processes
        plan = replace(plan, workers=1, slots_per_worker=each, slots=each, slots_known=True, slots_stated=True)
    server, client = set(options.server_cpus or AT_START), set(options.client_cpus or AT_START)
    limit = max(1, int(min(cpu_limit(), 10_000)))  # of a container, for client and server together
    return replace(
        plan, cpus=min(len(server), limit), shared_cpus=min(limit, len(server | client)) * bool(server & client),
        all_cpus=about_machine().cpus, cpu_limit=cpu_limit(), lone_requests=lone_requests_of(plan),
        warm_up_if_cold=warm_up_of(plan) if options.warmup is None and not plan.launch else 0,
        timeout_s=options.timeout or default_timeout_s(plan), is_own_timeout=bool(options.timeout),
    )  # fmt: skip


def default_timeout_s(plan: Plan) -> float:
    """Twice the time in which one worker alone would serve all that can be under way, and 10 s; at least 40 s."""
    each, waiting = plan.slots_per_worker, plan.load.most_under_way
    if not each or not plan.wait_s or waiting == math.inf:
        return TIMEOUT_S
    return max(TIMEOUT_S, 10 + 2 * model.rounds(int(waiting), each) * held_for(plan))


def split_url(url: str) -> tuple[str, int, str]:
    """Host, port and path of an http or https URL. Raises Problem."""
    match = re.fullmatch(r"https?://(\[[\dA-Fa-f:.]+\]|[\w.-]+)(:\d+)?([/?][!-~]*)?", url.partition("#")[0], re.ASCII)
    if "://" not in url:
        raise Problem(f"{url!r} has no http:// in front")
    if not match or not 0 < int((match[2] or ":80")[1:]) < 65536:
        raise Problem(f"{url!r} is not http://host:port/path in printable ASCII")
    host, port, path = match.groups("")
    default = 443 if url.startswith("https:") else 80
    return host.strip("[]"), int(port[1:] or default), path if path.startswith("/") else f"/{path}"


# ---------------------------------------------------------------- what lone requests show


def with_lone_requests(plan: Plan, lone_s: Sequence[float]) -> Plan:
    """The plan with what lone requests have shown: the wait where it was not known, and how long a slot is held.

    A request holds its slot for at least t + s and at most the latency of a lone request. See held_share(): the middle
    where a slot runs the handler only, more where it reads and writes, too. Of a burst only the rounds count, so it
    keeps t + s. Nothing is taken from lone requests that take so long that their wait must be another one.
    """
    found = with_kinds(plan) if plan.kind_waits_s else with_wait(plan, lone_s)
    return found if plan.is_own_timeout else replace(found, timeout_s=max(plan.timeout_s, default_timeout_s(found)))


def with_wait(plan: Plan, lone_s: Sequence[float]) -> Plan:
    alone_s = statistics.median(lone_s or [0.0])
    if plan.wait_s is None and alone_s >= SHORT_WAIT_S:
        plan = replace(plan, wait_s=round(alone_s, 6), wait_is_measured=True)
    return with_overhead(plan, lone_s) if plan.load.is_steady else plan


def with_kinds(plan: Plan) -> Plan:
    """The plan with the mean wait of its mix, where that is more than CPU time."""
    mean_s = mean_wait_s(plan.kinds, plan.kind_waits_s)
    return replace(plan, wait_s=mean_s, wait_is_measured=True) if mean_s >= SHORT_WAIT_S else plan


def mean_wait_s(kinds: Sequence[Kind], waits_s: Sequence[float]) -> float:
    """Of a request of a mix, whose kinds wait so long."""
    weights = [kind.weight for kind in kinds]
    total_s: float = sum(map(operator.mul, weights, waits_s))
    return round(total_s / sum(weights), 6)


def with_overhead(plan: Plan, lone_s: Sequence[float]) -> Plan:
    alone_s, busy_s = min(lone_s, default=0.0), plan.busy_s
    known = plan.wait_s and plan.distribution == "constant"
    if known and busy_s < alone_s <= busy_s + most_overhead_s(plan.wait_s or 0.0):
        plan = replace(plan, held_s=round(busy_s + held_share(plan) * (alone_s - busy_s), 6))
    return plan


def held_share(plan: Plan) -> float:
    """For how much of what a request takes beside t + s it holds its slot."""
    reads_and_writes = plan.launch and plan.launch.kind.slots in ("threads", 1)
    return HELD_OF_OVERHEAD if reads_and_writes else 0.5


# ---------------------------------------------------------------- from a plan to its prediction


def held_for(plan: Plan, as_lone_requests_show: bool = True) -> float:
    """How long a request holds its slot: t + s, or as measured; but at least its share of the CPUs.

    That is the second resource in one number: X = S / max(t + s, S s / P) = min(S / (t + s), P / s).
    """
    return max(plan.busy_s, (plan.held_s or 0.0) if as_lone_requests_show else 0.0, share_of_cpus_s(plan))


def share_of_cpus_s(plan: Plan) -> float:
    """How long a request computes among all that have a slot and share the CPUs, S s / P; 0 where the CPUs keep up with
    what is sent."""
    load, each_s, cpus = plan.load, plan.cpu_time_s, min(plan.workers, plan.cpus)  # a Python process computes on one
    sent_rps = load.offered_load(1.0, 1.0) if load.is_scheduled else math.inf
    if not each_s or (sent_rps or 0.0) * each_s <= cpus:
        return 0.0
    # Of users that pause, so many are not thinking if they get P / s.
    most = load.most_requests if load.is_scheduled else load.most_under_way - load.think_s * cpus / each_s
    return max(0.0, min(plan.slots or 1, most)) * each_s / cpus


def forecast_of(plan: Plan, process_of: Sequence[int] = (), factor: float = 1.0) -> Forecast | None:
    """Start and answer of every request; None where slots or wait are not known, or there are too many to predict.

    process_of: which process takes request i, where that is known afterwards; else each process in turn. It may end
    before the requests do, as the last requests may have failed before a process took them. factor: of the waits.
    """
    load, slots, held_s = plan.load, plan.slots, held_for(plan) * factor
    if slots is None or not plan.wait_s:
        return None
    if min(load.most_requests, load.time_limit_s / held_s * min(slots, load.most_under_way)) > MOST_PREDICTED:
        return None
    if plan.keep_alive:
        load = load.served(plan.most_connections)
    return load.forecast(plan.service, waits_of(plan, held_s), process_of)


def waits_of(plan: Plan, held_s: float) -> Wait:
    """How long each request holds its slot: drawn by its number where the plan says so."""
    if plan.distribution == "constant":
        return held_s
    wait_s, distribution = plan.wait_s or 0.0, plan.distribution
    if plan.kinds and plan.kind_waits_s:
        waits_s, kinds, known = plan.kind_waits_s, drawn(plan), list[int]()
        factor = held_s / (wait_s or 1.0)

        def wait_of_kind(number: int) -> float:
            known.extend(itertools.islice(kinds, max(0, number + 1 - len(known))))
            return waits_s[known[number]] * factor

        return wait_of_kind
    return lambda number: model.drawn_wait_s(wait_s, distribution, number) + held_s - wait_s


def on_paper(plan: Plan, split: Sequence[int]) -> tuple[Plan, Prediction, Forecast]:
    """Every request of a plan without a server. split: how many requests or users each process gets; the plan and the
    closed form are then those of the fullest process, which decides."""
    deal = model.spread_evenly(split)
    forecast = plan.load.forecast(plan.service, waits_of(plan, plan.busy_s), deal, keeps=bool(deal))
    prediction = prediction_of(plan, forecast)
    if split:
        plan = replace(plan, load=plan.load.of_process(max(split)), slots=plan.slots_per_worker)
        form = plan.load.formula(plan.slots or 1, plan.busy_s)
        prediction = replace(prediction, form=f"the fullest process: {form}")
    return plan, prediction, forecast


def prediction_for(plan: Plan, process_of: Sequence[int] = ()) -> Prediction:
    """What the client will measure. Everything that is not known is None."""
    if not plan.slots_known or not plan.wait_s:
        return Prediction(possibilities=possibilities(plan))
    prediction = prediction_of(plan, forecast_of(plan, process_of))
    if process_of:
        return prediction

    def predict(dealt: Sequence[int]) -> Prediction | None:
        forecast = forecast_of(plan, dealt)
        return Prediction(**figures_for(plan.load, forecast)) if forecast else None

    return with_ranges(prediction, plan, predict)


def prediction_of(plan: Plan, forecast: Forecast | None) -> Prediction:
    """The figures of a forecast, with the closed form beside it. Only where slots and wait are known."""
    slots, load = plan.slots or math.inf, plan.load
    held_s = held_for(plan, as_lone_requests_show=False)
    figures: dict[str, Any] = {"makespan_s": load.last_answer_s(slots, held_s)}
    if forecast:
        figures = figures_for(load, forecast) | {
            "spread_s": load.spread_s(slots, held_s) if plan.distribution == "constant" else None
        }
    busy = min(slots, load.most_under_way)
    return Prediction(
        **figures, ceiling_rps=busy / held_s if busy < math.inf else None, form=load.formula(slots, held_s),
        p99_if_longer_s=p99_if_longer_s(plan, slots),
    )  # fmt: skip


def p99_if_longer_s(plan: Plan, slots: float) -> float | None:
    """An open loop close to its limit: the p99 if each request took 2 % longer. Else None."""
    offered = plan.load.offered_load(slots, held_for(plan)) or 0.0
    forecast = forecast_of(plan, factor=STEEP) if STEEP_LOAD <= offered <= 1 else None
    return figures_for(plan.load, forecast)["p99_s"] if forecast else None


def possibilities(plan: Plan) -> dict[str, float]:
    """When the last answer would come, for each kind of handler that it can be; empty where that is known."""
    launch, load = plan.launch, plan.load
    if not launch or launch.run or plan.slots_known or not plan.wait_s or load.last_answer_s(1, plan.wait_s) is None:
        return {}
    found = {}
    for handler in launch.handlers or ("def", "async", "blocking"):
        if forecast := forecast_of(with_launch(plan, replace(launch, handler=handler))):
            found[handler] = round(max(forecast.answered_s), 6)
    return found
