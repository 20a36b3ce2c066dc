"""Measure once how this machine's kernel deals connections to the processes of a server, on a small app of ours.

It takes up to a minute and a half, and is kept in logs/deals.json with machine, kernel, versions and day.
BENCH_DEALS names another file; where it is empty, nothing is measured, and each process gets its turn.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from engine import send
from engine.access_log import text_of, wait_for_log
from engine.before import lone_plan
from engine.deals import as_order, as_shares, is_dealt
from engine.files import LOGS, run_folder, write_json
from engine.launch import Launch, installed_versions
from engine.loads import Burst, Closed, Load, Open
from engine.machine import AT_START, about_machine, allowed_cpus
from engine.plans import lone_requests_of
from engine.run import Deal, Plan
from engine.server import RunningServer, start_server, stop_server
from engine.words import Problem

MEASURED_S = 3.0
BURSTS = 12  # in all
BURST_WAIT_S = 0.05  # at most: the deal of a burst is over before the first answer
SEED = 1_000_003  # of other schedules than those that are predicted
MOST_SENT = 3000


def file_of_deals() -> Path | None:
    """Where calibrations are kept; None: they are not wanted."""
    named = os.environ.get("BENCH_DEALS", f"{LOGS / 'deals.json'}")
    return Path(named) if named else None


def with_deal(plan: Plan, logs: Path, server_cpus: set[int], tell: Callable[[str], None] = lambda _: None) -> Plan:
    """The plan with the deal that is to be expected, measured now if it was not before. Without where it does not
    decide, or cannot be measured. server_cpus: that the server is pinned to; empty: to none."""
    file = file_of_deals()
    load = short_load(plan)
    if plan.deal or not file or not load or not is_dealt(plan):
        return plan
    key = f"{machine_key(server_cpus)}; {question_of(plan)}"
    known = kept_in(file)
    kept = kept_deal(known.get(key))
    if not kept:
        tell("Measuring how the kernel deals connections (once; up to a minute and a half).")
        try:
            kept = measured_deal(plan, load, logs, server_cpus)
        except Problem:
            return plan
        known = kept_in(file) | {key: dataclasses.asdict(kept)}
        with contextlib.suppress(OSError, Problem):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, known)
    return dataclasses.replace(plan, deal=kept)


def kept_in(file: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(file.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def kept_deal(kept: Any) -> Deal | None:
    """None: there is none, or it is not one of ours."""
    with contextlib.suppress(KeyError, TypeError):
        shares, orders = (tuple(map(tuple, kept[name])) for name in ("shares", "orders"))
        return Deal(shares, kept["when"], kept["load"], kept["requests"], orders)
    return None


def machine_key(server_cpus: set[int]) -> str:
    """What the deal depends on besides the server and the load."""
    machine, client, server = about_machine(), sorted(allowed_cpus()), sorted(server_cpus or AT_START)
    others = f" and {server}" * (server != client)
    return f"{machine.kernel}, {machine.cpu}, CPUs {client}{others}"


def question_of(plan: Plan) -> str:
    """What a calibration depends on besides the machine. Loads that differ by less than a tenth have one."""
    launch, load = plan.launch, plan.load
    assert launch and plan.wait_s
    amount = getattr(load, "rate_rps", 0.0) or load.most_under_way
    versions = " ".join(f"{name} {installed_versions().get(name, '')}" for name in launch.kind.packages)
    wait = "-" if load.kind == "burst" else f"{plan.wait_s:.1g}"
    words = [f"{launch.server} ({versions})", f"{launch.workers} x {launch.threads}", *launch.server_args]
    return " ".join([*words, *["TLS"] * bool(launch.tls_files), load.kind, f"{amount:.2g}", wait])


def short_load(plan: Plan, start: int = 0) -> Load | None:
    """A load of the same kind that takes some seconds, another one for each start of the server; None: of a kind whose
    deal changes while it goes on."""
    load = plan.load
    if isinstance(load, Open):
        return Open.poisson(load.rate_rps, MOST_SENT, MEASURED_S, SEED + start)
    if isinstance(load, Closed):
        return Closed(MOST_SENT, MEASURED_S, load.think_s, load.concurrency)
    return Burst(min(load.requests, MOST_SENT)) if isinstance(load, Burst) else None


def small_app(launch: Launch, wait_s: float) -> Launch:
    """The same server, with the same settings, for one of our apps that waits as long."""
    names = {"workers": launch.workers, "threads": launch.threads}
    settings = tuple((name, names[name]) for name in launch.kind.settings)
    is_wsgi = launch.kind.wrapper != "asgi"
    arguments = launch.server_args
    if launch.kind.command[0] == "gunicorn" and launch.connections != launch.kind.connections:
        arguments = (*arguments, "--worker-connections", f"{launch.connections}")
    handler = {1: "blocking", math.inf: "async"}.get(launch.server_slots or 0.0, "def")
    app = "flask_sync:app" if is_wsgi else "fastapi_async:app" if handler == "async" else "fastapi_sync:app"
    return dataclasses.replace(
        launch, name="deal", app=app, is_target=True, settings=settings, server_args=arguments, started_as="", pool=0,
        env=(("TASK_TIME", f"{wait_s}"), ("SUBTASKS", "1"), ("TASK_DISTRIBUTION", "constant"), ("CPU_TIME", "0")),
        wrap=True,
    )  # fmt: skip


def short_plan(plan: Plan, load: Load, wait_s: float) -> Plan:
    """A load of a small app on the same server."""
    assert plan.launch
    launch = small_app(plan.launch, wait_s)
    path = "/async-io" if launch.app == "fastapi_async:app" else "/io"
    return Plan(
        "deal", launch, path=path, load=load, wait_s=wait_s, timeout_s=10.0, tls=plan.tls,
        workers=launch.workers, all_cpus=plan.all_cpus, cpus=plan.cpus,
    )  # fmt: skip


def orders_of_start(plan: Plan, loads: int, logs: Path, server_cpus: set[int]) -> list[tuple[int, ...]]:
    """The order in which processes took requests, of each of several loads on a server that is started for them."""
    assert plan.launch
    server = start_server(plan.launch, run_folder(logs, "deal"), server_cpus)
    try:
        # As before a run. After a warm-up by many at once the favourites of gunicorn's threads are others: of 4 x 4 the
        # last got 19 % of the connections, not 15 %. After two idle seconds they are others, too.
        for _ in range(lone_requests_of(plan)):
            send.measure(lone_plan(plan), ("127.0.0.1", server.port))
        return [order_in(server, plan) for _ in range(loads)]
    finally:
        stop_server(server)


def measured_deal(plan: Plan, load: Load, logs: Path, server_cpus: set[int]) -> Deal:
    """Raises Problem where the server does not start."""
    assert plan.launch and plan.wait_s
    is_burst = isinstance(load, Burst)
    short = short_plan(plan, load, min(plan.wait_s, BURST_WAIT_S) if is_burst else plan.wait_s)
    launch = short.launch
    assert launch
    starts = starts_for(launch.workers, is_burst)
    loads = BURSTS // starts if is_burst else 1
    of_starts = [dataclasses.replace(short, load=short_load(plan, start) or load) for start in range(starts)]
    orders = [order for one in of_starts for order in orders_of_start(one, loads, logs, server_cpus)]
    slots = plan.slots or math.inf
    busy = load.offered_load(slots, plan.wait_s)
    shares = [as_shares([order.count(process) for process in range(launch.workers)]) for order in orders]
    return Deal(
        tuple(shares), f"{date.today()}", load.most_under_way / slots if busy is None else busy,
        int(min(load.most_requests, MOST_SENT)), () if is_burst else tuple(orders),
    )  # fmt: skip


def starts_for(workers: int, is_burst: bool) -> int:
    """How often the server is started. Shares differ from start to start: of four processes the favourite had 33 to
    38 % in 22 runs, which at 80 % of the load is 5 to 21 % more than it can do, so that the p99 is known to a factor of
    three. Fewer starts find too narrow a range.
    """
    if is_burst:
        return 4
    return 6 if workers == 2 else 16


def order_in(server: RunningServer, short: Plan) -> tuple[int, ...]:
    """Which process took each request of one load, in the order in which they were started."""
    log = server.access_log
    assert log
    begins = len(text_of(log, "latin-1"))
    sampled = server.samples.into([]) if server.samples else contextlib.nullcontext()  # as in the run that is predicted
    with sampled:
        outcome = send.measure(short, ("127.0.0.1", server.port), numbered=True)
    lines = wait_for_log(log, len(outcome.exchanges.status), begins).lines
    if not lines:
        raise Problem("no request was answered")
    return as_order([line.pid for line in sorted(lines, key=lambda line: int(line.request))])
