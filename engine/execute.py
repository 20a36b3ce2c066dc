"""One run: start the server if it is ours, send lone requests, predict, send the load, stop, judge.

Everything here is in the order in which it happens. `announce` shows the prediction before the first request leaves.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from engine import access_log, estimate, plans, report_before, report_changes, send, summary, verdict, victim, where
from engine.access_log import AccessLog, LogLine, name_workers
from engine.before import Before, Site, send_again, send_before
from engine.calibrate import with_deal
from engine.client import Outcome, is_success
from engine.database import BooksDatabase, books_seen
from engine.files import LOGS, shown
from engine.in_use import cpus_seen
from engine.launch import installed_versions
from engine.limit import LOOP
from engine.listeners import all_run_apps, cpu_s_of
from engine.machine import timer_s
from engine.neighbours import Neighbour, neighbours, usage
from engine.places import Resource, Where
from engine.report_words import told
from engine.run import Columns, Database, Facts, Inside, Measured, Plan, Prediction, Run
from engine.server import cpu_by_process, group_cpu_s, last_words, start_server, stop_server, telling_lines
from engine.signals import signals
from engine.stats import statistics_of

Announce = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """Where a run happens. folder: of its logs; None: the server is not ours. cpus: to pin the server to."""

    folder: Path | None = None
    cpus: Sequence[int] = ()
    database: BooksDatabase | None = None
    live: Callable[[Path], Any] | None = None  # shows the access log as it grows


@contextmanager
def site_for(plan: Plan, place: Place) -> Iterator[Site]:
    """Start the server if it is ours, and stop it in the end. From there on signals are held back, until the caller
    has brought home what there is to report."""
    if not plan.launch or not place.folder:
        address = send.resolve(plan)
        signals.is_held = True
        yield Site(address)
        return
    url = ""
    if plan.launch.pool and place.database:
        place.database.ask("reset")  # every run starts from the same rows
        url = place.database.url
    server = start_server(plan.launch, place.folder, set(place.cpus), url, place.live is not None)
    signals.is_held = True
    try:
        if plan.tls:  # says why its certificate is not to be trusted
            send.resolve(dataclasses.replace(plan, port=server.port))
        yield Site(("127.0.0.1", server.port), server)
    finally:
        stop_server(server)


# ---------------------------------------------------------------- the load


@dataclass(frozen=True)
class Sent:
    """What one load left."""

    outcome: Outcome
    log: AccessLog | None
    server_ended: bool
    where: Where | None = None
    victim: Outcome | None = None
    sampling_s: float = 0.0  # CPU seconds of the server's processes that went into samples
    neighbours: tuple[Neighbour, ...] = ()
    cpus: int = 0  # as in run.Inside


def send_load(plan: Plan, site: Site) -> Sent:
    """One load, with the counters and the access log of it."""
    server, log = site.server, site.log
    if not server:
        pids = [one.pid for one in plan.listeners if all_run_apps(plan.listeners)]
        with named_neighbours(pids) as named:
            outcome = send.measure(plan, site.address, server_cpu_s=lambda: cpu_s_of(pids) if pids else None)
        return Sent(outcome, None, False, neighbours=tuple(named))
    begins = len(access_log.text_of(log, "latin-1")) if log else 0
    before_s = cpu_by_process(server.guard.pid)
    group_s = functools.partial(group_cpu_s, server.guard.pid)
    samples: list[Mapping[str, Any]] = []
    sender_of = functools.partial(send.sender_of, address=site.address)
    sampled = server.samples.into(samples) if server.samples else nullcontext()
    with named_neighbours([]) as named, sampled, victim.asked_beside(plan, sender_of) as beside:
        outcome = send.measure(plan, site.address, numbered=log is not None, server_cpu_s=group_s)
    after_s = cpu_by_process(server.guard.pid)
    ended = server.ends_within(0.2 if any(outcome.exchanges.error) else 0.0)
    if not log:
        return Sent(outcome, None, ended)
    found = access_log.wait_for_log(log, sum(map(bool, outcome.exchanges.status)), begins)
    found = by_place(found, outcome.numbers)
    cpus = cpus_seen(before_s, after_s, samples, 0 if found.late else plan.cpus)
    return Sent(
        outcome, found, ended, where_in(samples, plan, outcome, server.code), beside[0] if beside else None,
        sum(one.get("cost", 0.0) for one in samples), tuple(named), cpus,
    )  # fmt: skip


@contextmanager
def named_neighbours(pids: Sequence[int]) -> Iterator[list[Neighbour]]:
    """Fills the list, when the block ends, with the other programs that computed in it.

    pids: of a server that ran before.
    """
    named = list[Neighbour]()
    before, begun_s = usage(), time.perf_counter()
    yield named
    took_s = time.perf_counter() - begun_s
    named += neighbours(before, usage(), took_s, [os.getpid(), *pids])


def by_place(log: AccessLog, numbers: Sequence[int]) -> AccessLog:
    """The log with the place of each request in the columns as its number, which is another of several processes."""
    place = {str(number): str(i) for i, number in enumerate(numbers)}
    return log._replace(lines=[line._replace(request=place.get(line.request, line.request)) for line in log.lines])


def where_in(samples: Sequence[Mapping[str, Any]], plan: Plan, outcome: Outcome, code: str) -> Where | None:
    """Where the requests of a load stood, as the server's processes saw it."""
    sent = outcome.exchanges
    began_s = [at_s for at_s in sent.started_s if at_s]
    first_byte_s = [
        first_s or end_s for first_s, end_s in zip(sent.first_byte_s, sent.answered_s, strict=True) if end_s
    ]
    found = where.where_of(
        samples, began_s, [at_s for at_s in sent.answered_s if at_s], code, not plan.load.is_steady,
        None if plan.slots_stated else plan.slots, None if all(map(is_success, sent.status, sent.error)) else [],
        refuses=503 in sent.status,
        first_byte_s=first_byte_s,
        threads_first=needs_thread_first(plan),
    )  # fmt: skip
    limit = found and found.limit
    if not found or not limit or len(plan.kinds) < 2 or limit.resource in (Resource.SLOTS, LOOP):
        return found
    # Which kinds need it is not known, so that the rate of all does not tell how long it is held.
    return dataclasses.replace(found, limit=dataclasses.replace(limit, held_s=None, ceiling_rps=None))


def needs_thread_first(plan: Plan) -> bool:
    """Whether the app says that no code of its own runs before a request has a thread."""
    launch = plan.launch
    return launch is not None and not plan.kinds and launch.handler == "def" and launch.goes_first


def logs_of(place: Place) -> Path:
    """The folder of the folders of runs."""
    return place.folder.parent if place.folder else LOGS


def execute(
    plan: Plan, place: Place, show: Announce = lambda _: None, keep_exchanges: bool = True
) -> tuple[Run, AccessLog | None]:
    """Start the server if it is ours, predict, send, stop, judge; the run's record and its access log."""

    def tell(text: str) -> None:
        show(told("deal", text))

    when = now()
    plan = with_deal(plan, logs_of(place), set(place.cpus), tell)
    is_known = is_known_before(plan)
    prediction = plans.prediction_for(plan)
    show(report_before.what_is_sent(plan))
    if is_known:
        show(report_before.what_is_predicted(plan, prediction))
    with site_for(plan, place) as site:
        plan, before = send_before(plan, site)
        plan = with_deal(plan, logs_of(place), set(place.cpus), tell)
        if not is_known or plan.held_s:
            prediction = plans.prediction_for(plan)
            show((report_before.what_is_expected if is_known else report_before.what_is_predicted)(plan, prediction))
        if plan.victim:
            show(report_changes.victim_expected(plan, victim.predicted_victim(plan, before.victim_s)))
        if plan.deal:
            before = send_again(plan, site, before)
        watched = place.live(site.log) if place.live and site.log else None
        sent = send_load(plan, site)
        if watched:
            watched.stop()
    books = books_of(plan, place)  # only now that the app has given back its connections
    return judged(plan, prediction, site, sent, before, when, books, keep_exchanges), sent.log


def is_known_before(plan: Plan) -> bool:
    """Whether the prediction needs no request to be sent."""
    return plan.is_target or (plan.launch is None and (plan.wait_s is not None or not plan.lone_requests))


def books_of(plan: Plan, place: Place) -> Database | None:
    """What the Books API has left in its database; None: the plan uses none."""
    return books_seen(place.database) if plan.launch and plan.launch.pool and place.database else None


# ---------------------------------------------------------------- after the load


def judged(
    plan: Plan, prediction: Prediction, site: Site, sent: Sent, before: Before, when: str,
    books: Database | None = None, keep_exchanges: bool = True,
) -> Run:  # fmt: skip
    """The record of a load, with all that can be said of it."""
    outcome, log, requests = sent.outcome, sent.log, len(sent.outcome.exchanges.status)
    of_sent = plan
    if outcome.is_cut:  # the first of its requests say little of all of them
        of_sent = dataclasses.replace(plan, load=plan.load.first(requests))
        prediction = plans.prediction_for(of_sent)
    names = name_workers(log) if log else {}
    lines = lines_of_requests(log, requests) if log else []
    process_of = deal_of(plan, names, lines)
    split = plans.prediction_for(of_sent, process_of) if process_of and plan.slots_known else None
    keep_exchanges = keep_exchanges or plan.load.steady_count == plan.load.requests
    columns = None
    if keep_exchanges or requests <= estimate.MOST_ESTIMATED:  # of a million requests they take some seconds
        columns = all_columns(of_sent, outcome, names, lines, process_of)
    measured = measured_with(plan, sent, before)
    facts = Facts(plan, prediction, split, measured, inside_of(site, sent, names, books) if site.server else None)
    found = estimate.estimate_of(facts, columns, before.lone_s, packages_of(plan)) if columns else None
    return Run(
        **vars(facts), verdict=verdict.judge(facts, found, timer_s()), when=when,
        exchanges=columns if keep_exchanges else None,
        victim=victim.victim_of(plan, sent.victim, before.victim_s),
    )  # fmt: skip


def lines_of_requests(log: AccessLog, requests: int) -> list[LogLine | None]:
    """The line of each request, by its number; None: it has none."""
    by_request = {int(line.request): line for line in log.lines}
    return [by_request.get(i) for i in range(requests)]


def measured_with(plan: Plan, sent: Sent, before: Before) -> Measured:
    """The figures of a run, with what was sent before it, less what it costs to look into the server."""
    measured = summary.summarise(plan, sent.outcome)
    return dataclasses.replace(
        measured, warmed_up=before.sent, created=measured.created + before.created,
        lone_s=min(before.lone_s, default=None), alone=before.alone,
        server_cpu_s=None if measured.server_cpu_s is None else max(0.0, measured.server_cpu_s - sent.sampling_s),
        other_cpu_s=without_connected(measured, sent.neighbours), neighbours=sent.neighbours,
    )  # fmt: skip


def without_connected(measured: Measured, found: Sequence[Neighbour]) -> float | None:
    """CPU seconds of other programs without those that the service is connected to: they work for it."""
    connected = sum(one.cpus for one in found if one.is_connected)
    return measured.other_cpu_s and max(0.0, measured.other_cpu_s - connected * measured.measured_s)


def deal_of(plan: Plan, names: dict[int, str], lines: Sequence[LogLine | None]) -> list[int]:
    """Which process took each request; empty where there is one queue, or where it is not known.

    A request without a line failed before a process took it: more than one in twenty, and the deal is not known.
    """
    is_known = len(lines) - list(lines).count(None) >= 0.95 * len(lines) and len(names) <= plan.workers
    if plan.workers == 1 or plan.shared_queue or not is_known:
        return []
    number_of = {pid: number for number, pid in enumerate(names)}
    return [number_of[line.pid] if line else i % plan.workers for i, line in enumerate(lines)]


def all_columns(
    plan: Plan, outcome: Outcome, names: dict[int, str], lines: Sequence[LogLine | None], process_of: Sequence[int]
) -> Columns:
    """The raw times of every request, with what the server's log and the prediction say of it."""
    forecast = plans.forecast_of(plan, process_of)
    workers = [names[line.pid] if line else None for line in lines]
    started_s = [line.started_s if line else None for line in lines]
    return summary.columns_of(outcome, workers, started_s, forecast.answered_s if forecast else [])


def inside_of(site: Site, sent: Sent, names: dict[int, str], books: Database | None) -> Inside:
    """What the server's side knows of the run."""
    server, log, exchanges = site.server, sent.log, sent.outcome.exchanges
    assert server
    said = what_went_wrong(server.server_log, sent)
    inside = Inside(
        None, shown(server.server_log), sent.server_ended, said, database=books, where=sent.where, cpus=sent.cpus
    )
    if not log or not server.access_log:
        return inside
    counts = Counter(line.pid for line in log.lines)
    held = [line for line in log.lines if not line.parts]  # the others give back their slot between two parts
    times_s = [line.duration_s for line in held]
    return dataclasses.replace(
        inside, access_log=shown(server.access_log), log_lines=len(log.lines),
        requests_of_workers={name: counts[pid] for pid, name in names.items()},
        restarts=log.late,
        slots_seen=access_log.slots_seen(held), slots_held=access_log.slots_held(held, exchanges.sent_s),
        handler_s=sum(times_s) if held else None, handlers=statistics_of(times_s),
        anyio_threads=access_log.anyio_threads(server.access_log),
    )  # fmt: skip


def what_went_wrong(server_log: Path, sent: Sent) -> tuple[str, ...]:
    """Lines of the server's log that say it; empty where nothing did."""
    if sent.server_ended:
        return last_words(server_log)
    is_bad = any(sent.outcome.exchanges.error) or max(sent.outcome.exchanges.status, default=0) >= 500
    return telling_lines(server_log) if is_bad else ()


def packages_of(plan: Plan) -> frozenset[str] | None:
    """What the service may have imported: as the app says, else all that this Python has; None: not known."""
    launch = plan.launch
    if not launch:
        return None
    if launch.is_target:
        return frozenset([*launch.packages, "anyio"])  # which comes with FastAPI
    return frozenset(installed_versions()) if launch.imported is None else frozenset(launch.imported)


def now() -> str:
    return datetime.now().isoformat(" ", "seconds")
