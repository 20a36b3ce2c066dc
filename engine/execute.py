"""One run: start the server if it is ours, send lone requests, predict, send the load, stop, judge.

Everything here is in the order in which it happens. `announce` shows the prediction before the first request leaves.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from engine import access_log, estimate, plans, report, send, summary, verdict
from engine.access_log import AccessLog
from engine.client import Outcome, is_success
from engine.database import BooksDatabase, books_seen
from engine.files import shown
from engine.launch import installed_packages
from engine.loads import Burst, Load
from engine.machine import timer_s
from engine.run import Database, Facts, Inside, Plan, Prediction, Run
from engine.server import RunningServer, group_cpu_s, start_server, stop_server, telling_lines
from engine.signals import signals
from engine.words import Problem

LONE_S = 0.5  # lone requests end after so long

Announce = Callable[[str], None]


@dataclass
class Site:
    """Where the requests go: a server of ours that runs now, or one that ran before."""

    address: tuple[Any, ...]
    server: RunningServer | None = None

    @property
    def log(self) -> Path | None:
        return self.server.access_log if self.server else None


@contextmanager
def site_for(
    plan: Plan, cpus: set[int], folder: Path | None, database: BooksDatabase | None, live: bool = False
) -> Iterator[Site]:
    """Start the server if it is ours, and stop it in the end. From there on signals are held back, until the caller
    has brought home what there is to report."""
    launch = plan.launch
    if not launch or not folder:
        address = send.resolve(plan.host, plan.port)
        signals.is_held = True
        yield Site(address)
        return
    url = ""
    if launch.pool and database:
        if "error" in (answer := database.ask("reset")):  # every run starts from the same rows
            raise Problem(f"the database: {answer['error']}")
        url = database.about["database_url"]
    server = start_server(launch, folder, cpus, url, live)
    signals.is_held = True
    try:
        yield Site(("127.0.0.1", server.port), server)
    finally:
        stop_server(server)


def as_started(plan: Plan, site: Site) -> Plan:
    """With AnyIO's limit as it stands in the process of a user's app."""
    if not plan.launch or plan.is_target or not site.log or plan.slots_stated:
        return plan
    launch = dataclasses.replace(plan.launch, anyio_threads=access_log.anyio_threads(site.log))
    return plans.with_launch(plan, launch)


@dataclass(frozen=True)
class Before:
    """What was sent before the run, in no figure."""

    sent: int = 0
    created: int = 0
    lone_s: tuple[float, ...] = ()


def send_before(plan: Plan, site: Site) -> tuple[Plan, Before]:
    """Warm up, then send lone requests: the plan with what they show.

    Lone requests end after half a second, and with the first that is not answered with a 2xx.
    """
    warm = send.warm_up(plan, site.address) if plan.warm_up else None
    lone_s: list[float] = []
    sent, created = 0, 0
    alone = dataclasses.replace(plan, load=Burst(1), keep_alive=False, processes=1)
    for _ in range(plan.lone_requests):
        found = send.measure(alone, site.address).exchanges
        sent += 1
        created += found.status[0] == 201
        if not is_success(found.status[0], found.error[0]):
            break
        lone_s.append(found.answered_s[0] - found.started_s[0])
        if sum(lone_s) > LONE_S or signals.received:
            break
    if warm:
        sent, created = sent + len(warm.status), created + warm.status.count(201)
    return plans.with_lone_requests(plan, lone_s), Before(sent, created, tuple(lone_s))


@dataclass(frozen=True)
class Sent:
    """What one load left."""

    outcome: Outcome
    log: AccessLog | None
    server_ended: bool


def send_load(plan: Plan, site: Site) -> Sent:
    """One load, with the counters and the access log of it."""
    server, log = site.server, site.log
    begins = log.stat().st_size if log else 0
    if not server:
        return Sent(send.measure(plan, site.address), None, False)
    cpu_s = functools.partial(group_cpu_s, server.guard.pid)
    outcome = send.measure(plan, site.address, numbered=log is not None, server_cpu_s=cpu_s)
    ended = server.ends_within(0.2 if any(outcome.exchanges.error) else 0.0)
    if not log:
        return Sent(outcome, None, ended)
    answered = sum(1 for status in outcome.exchanges.status if status)
    found = access_log.wait_for_log(log, answered, begins)
    if outcome.numbers:  # of several client processes: a request's number is not its place
        place = {str(number): str(i) for i, number in enumerate(outcome.numbers)}
        lines = [line._replace(request=place.get(line.request, line.request)) for line in found.lines]
        found = found._replace(lines=lines)
    return Sent(outcome, found, ended)


def execute(
    plan: Plan, cpus: set[int], folder: Path | None, database: BooksDatabase | None = None,
    announce: Announce | None = None, live: Callable[[Path], Any] | None = None, keep_exchanges: bool = True,
) -> tuple[Run, AccessLog | None]:  # fmt: skip
    """Start the server if it is ours, predict, send, stop, judge; the run's record and its access log.

    cpus: to pin the server to. live: shows the access log as it grows; called with its path just before the load.
    """
    when, show = now(), announce or (lambda _: None)
    is_known = plan.is_target or (plan.launch is None and (plan.wait_s is not None or not plan.lone_requests))
    prediction = plans.predict(plan)
    show(report.what_is_sent(plan))
    if is_known:
        show(report.what_is_predicted(plan, prediction))
    with site_for(plan, cpus, folder, database, live is not None) as site:
        plan, before = send_before(as_started(plan, site), site)
        if not is_known or plan.held_s:
            prediction = plans.predict(plan)
            show((report.what_is_expected if is_known else report.what_is_predicted)(plan, prediction))
        watched = live(site.log) if live and site.log else None
        sent = send_load(plan, site)
        if watched:
            watched.stop()
    books = None
    if plan.launch and plan.launch.pool and database:  # only now that the app has given back its connections
        books = books_seen(database)
    return judged(plan, prediction, site, sent, before, when, books, keep_exchanges), sent.log


def judged(
    plan: Plan, prediction: Prediction, site: Site, sent: Sent, before: Before, when: str,
    books: Database | None = None, keep_exchanges: bool = True,
) -> Run:  # fmt: skip
    """The record of a load, with all that can be said of it."""
    outcome = sent.outcome
    process_of = processes_of(sent.log, plan.workers)
    inside = inside_of(site, sent, books) if site.server else None
    measured = summary.summarise(
        plan, outcome, warmed_up=before.sent, created_before=before.created, lone_s=min(before.lone_s, default=None)
    )
    split = split_prediction(plan, sent.log, process_of, measured.sent)
    facts = Facts(plan, prediction, split, measured, inside)
    columns = summary.columns_of(outcome, *handlers_of(sent, measured.sent), predicted_answers(plan, process_of))
    found = estimate.estimate_of(facts, columns, before.lone_s, packages_of(plan))
    is_burst = plan.load.steady_count == plan.load.requests
    return Run(
        plan, prediction, split, measured, inside, verdict=verdict.judge(facts, found, timer_s()), when=when,
        exchanges=columns if keep_exchanges or is_burst else None,
    )  # fmt: skip


def inside_of(site: Site, sent: Sent, books: Database | None) -> Inside:
    """What the server's side knows of the run."""
    server, log, exchanges = site.server, sent.log, sent.outcome.exchanges
    assert server
    went_wrong = sent.server_ended or any(exchanges.error) or any(status >= 500 for status in exchanges.status)
    inside = Inside(
        access_log=shown(server.access_log) if server.access_log else None, server_log=shown(server.server_log),
        server_ended=sent.server_ended, server_said=telling_lines(server.server_log) if went_wrong else (),
        database=books,
    )  # fmt: skip
    if not log or not server.access_log:
        return inside
    counts = Counter(line.pid for line in log.lines)
    return dataclasses.replace(
        inside, log_lines=len(log.lines),
        requests_of_workers={name: counts[pid] for pid, name in access_log.name_workers(log).items()},
        slots_seen=access_log.slots_seen(log.lines), slots_held=access_log.slots_held(log.lines, exchanges.sent_s),
        handler_s=sum(line.duration_s for line in log.lines),
        anyio_threads=access_log.anyio_threads(server.access_log),
    )  # fmt: skip


def processes_of(log: AccessLog | None, workers: int) -> list[int]:
    """Which process took each request, in the order of sending; a request without a log line: each in turn."""
    if log is None:
        return []
    number_of = {pid: number for number, pid in enumerate(access_log.name_workers(log))}
    by_request = {int(line.request): number_of[line.pid] for line in log.lines}
    return [by_request.get(i, i % workers) for i in range(max(by_request, default=-1) + 1)]


def split_prediction(plan: Plan, log: AccessLog | None, process_of: Sequence[int], sent: int) -> Prediction | None:
    """The prediction once more, given which worker took which request; None with one queue, or where it is not known.

    Requests without a log line failed before a process took them: more than one in twenty, and the split is not known.
    """
    if log is None or plan.workers == 1 or plan.shared_queue or len(log.lines) < 0.95 * sent:
        return None
    if not plan.slots_known or len(access_log.name_workers(log)) > plan.workers:
        return None
    return plans.predict(plan, process_of)


def predicted_answers(plan: Plan, process_of: Sequence[int]) -> list[float]:
    """When each request should have been answered, given which process took which, where the log tells it."""
    several = plan.workers > 1 and not plan.shared_queue
    forecast = plans.forecast_of(plan, process_of if several else ())
    return forecast.answered_s if forecast else []


def handlers_of(sent: Sent, requests: int) -> tuple[list[str | None], list[float | None]]:
    """Of each request: the worker's name, and when its handler started, on the client's clock."""
    if not sent.log:
        return [], []
    names = access_log.name_workers(sent.log)
    by_request = {int(line.request): line for line in sent.log.lines}
    lines = [by_request.get(i) for i in range(requests)]
    return [names[line.pid] if line else None for line in lines], [line.started_s if line else None for line in lines]


def packages_of(plan: Plan) -> frozenset[str] | None:
    """What the service may have imported: as the app says, else all that this Python has; None: not known."""
    if not plan.launch:
        return None
    return installed_packages() if plan.launch.imported is None else frozenset(plan.launch.imported)


def with_load(plan: Plan, load: Load) -> Plan:
    return dataclasses.replace(plan, load=load)


def now() -> str:
    return datetime.now().isoformat(" ", "seconds")
