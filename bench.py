#!/usr/bin/env python3
"""bench.py - why a Flask or FastAPI service gets slow under concurrent I/O.

A server has S slots: requests that it works on at the same moment. A burst of
n requests that each wait t takes ceil(n / S) x t, and throughput is at most
S / t. bench.py starts a real server, prints that prediction, sends the
requests, says why measured and predicted differ, and shows the access log in
batches.

Our own servers
    python bench.py --target flask-gunicorn          16 requests to each path
    python bench.py --target all                     every server, one table
    python bench.py --target fastapi-uvicorn --path /io -n 100
    python bench.py --target flask-gunicorn --workers 8 --task-time 0.2
    python bench.py --target flask-gunicorn --serve  start it, send nothing
    python bench.py --list                           the targets

Your own service
    python bench.py --app main:app --path /items -n 100     start it and look
    python bench.py --app main:app --path /items --probe    how many at a time?
    python bench.py --run 'uvicorn main:app --port {port}' -n 100
    python bench.py --url http://127.0.0.1:8000/ -n 5000 -c 500 -k
    python bench.py --app main:app --find-rate --p99 0.1    the highest rate
    python bench.py --app main:app -n 1000 -c 10 --fail-if 'p99>0.1'     for CI

On paper: nothing is started
    python bench.py -n 100 --slots 40 --wait 1              a burst
    python bench.py -c 200 --slots 16 --wait 50ms           users
    python bench.py --rate 256 --wait 50ms --p99 0.1        how many slots?

Kinds of load
    no -c     a burst: all requests at once, a connection each
    -c N      a closed loop: each of N users sends again when it has an answer.
              A stall of the server stops the sending, too
    --rate R  an open loop: requests leave when they are due, whatever the
              server does, and latency counts from when they were due
    --ramp    a closed loop whose number of users changes over time

Times are written 300ms, 0.3s or 0.3; in --ramp with their unit.

A run of a server that bench.py starts leaves all that it has in a folder under
logs/; --json writes all runs into one file, --html into one page. Failed
requests are in no percentile; a p99 needs 100 answers.

Exit code: 0 every request was answered (2xx, 3xx), 1 some requests failed,
--fail-if was met, an objective (--p99) or --until was not kept, --find-rate
found no rate, or a server ended under --serve, 2 wrong usage or a missing
package, 3 the server did not start, 129, 130 or 143 (128 + the signal)
interrupted; what was measured until then is reported. Python 3.10 or newer,
nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -P and -I leave it out

from engine import (
    advice,
    calibrate,
    changes,
    objectives,
    options,
    plans,
    repeats,
    report,
    report_before,
    report_changes,
    report_sizes,
    report_where,
    search,
    send,
    sizes,
    where,
)
from engine.access_log import AccessLog
from engine.database import BooksDatabase, database_for
from engine.execute import Announce, Place, execute
from engine.files import (
    NO_MANUAL,
    STDOUT,
    Document,
    Printer,
    check_folder,
    clean_logs,
    run_folder,
    say,
    shown,
    tell,
    write_json,
    writing,
)
from engine.launch import Launch, check_packages, versions_of
from engine.live import LiveLog, has_line
from engine.loads import Open
from engine.machine import about_machine, check_file_limit, pin
from engine.progress import line_says
from engine.run import Plan, Run
from engine.server import RunningServer, start_server, stop_server, why_it_ended
from engine.signals import Interrupted, signals
from engine.views import Views
from engine.words import Problem, plural, slots_text

OF_THE_LOAD = (  # and of the service: options that --try cannot change
    "target", "app", "run", "path", "requests", "time_limit", "concurrency", "rate", "ramp", "think", "workload",
    "requests_from",
)  # fmt: skip
NO_SERVICE = (
    "which service? add --target NAME (see --list), --app MODULE:APP, --run 'COMMAND {port}' or --url URL;"
    " or on paper --slots and --wait"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the options and do what they ask; the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    with signals.handled():
        try:
            return run(argv)
        except Problem as problem:
            say(f"bench.py: {problem}")
            return problem.exit_code
        except (Interrupted, KeyboardInterrupt):
            say("bench.py: interrupted")
            return signals.exit_code or 130


def run(argv: Sequence[str]) -> int:
    check_folder()
    asked = parse(argv)
    if asked.list:
        tell(report.targets_list(asked))
    elif asked.is_paper:
        on_paper(asked)
    elif asked.clean_logs:
        removed = clean_logs(asked.logs)
        tell(f"{plural(removed, 'run folder')} older than a week removed from {shown(asked.logs)}")
    elif not any((asked.target, asked.app, asked.run, asked.url)):
        if argv:
            raise Problem(NO_SERVICE)
        tell(__doc__ or NO_MANUAL)
    else:
        return serve(asked) if asked.serve else Bench(asked, ["bench.py", *argv]).run()
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options of a command line, checked. Raises Problem."""
    return options.parse(argv, __doc__ or "")


# ---------------------------------------------------------------- on paper


def on_paper(asked: argparse.Namespace) -> None:
    """What the arguments give, without a server."""
    if asked.objective:
        objective_s, percentile = asked.objective
        if getattr(asked.wait, "distribution", "constant") != "constant":
            raise Problem(
                "sizes are found for a wait that is always the same; for a drawn one, try --slots N --arrivals poisson"
            )
        cpus = min(asked.cpus or asked.workers, asked.workers)  # a process computes on one at a time
        found = sizes.Asked(asked.rate, float(asked.wait), objective_s, percentile, asked.cpu_time or 0.0, cpus)
        tell(report_sizes.size_text(sizes.size(found), asked.workers))
        return
    (plan,) = plans.plans_of(asked)
    is_assumed = not (asked.wait or asked.task_time)
    tell(report.on_paper_text(*plans.on_paper(plan, asked.split), is_assumed))


# ---------------------------------------------------------------- runs


def compares(asked: argparse.Namespace) -> bool:
    """Whether several runs are measured to be set beside each other."""
    return bool(asked.repeats or "all" in asked.target or len(set(asked.target)) > 1)


class Bench:
    """Every run that one command line asks for, in one document."""

    def __init__(self, asked: argparse.Namespace, command: list[str]) -> None:
        self.asked, self.argv = asked, command[1:]
        self.check_tries()
        self.plans = plans.plans_of(asked)
        self.launches = [plan.launch for plan in self.plans if plan.launch]
        check_packages(self.launches)
        if asked.url:
            send.resolve(self.plans[0])
        loads = [Open()] if asked.find_rate else [plan.load for plan in self.plans]
        check_file_limit(max(load.most_under_way for load in loads), any(load.is_scheduled for load in loads))
        if asked.client_cpus:
            pin(0, asked.client_cpus)
        self.has_answer = True  # a rate was found, and the objective kept
        self.views = Views(asked.html, asked.trace, [asked.json])
        self.document = Document(command, versions_of(self.launches), asked.json)
        paths = asked.json, asked.html, asked.trace
        self.printer = Printer(next((path for path in paths if path in STDOUT), None))
        self.in_full = asked.verbose or not compares(asked)
        self.printer.show(report_before.header(about_machine(), self.document.head["versions"]))

    def run(self) -> int:
        """All plans, one after the other; the exit code."""
        asked = self.asked
        needs_database = any(launch.pool for launch in self.launches)
        folder = run_folder(asked.logs, "postgres") if needs_database else asked.logs
        try:
            with database_for(self.launches, asked.database_url, folder, asked.client_cpus) as database:
                self.all(database)
            self.document.is_complete = not signals.received
        finally:
            self.document.write(is_last=True)
            self.views.write(self.document.head, self.document.runs, self.document.is_complete)
        return self.exit_code()

    def check_tries(self) -> None:
        """Raises Problem where a change that is to be tried cannot be made, before anything is started."""
        for words in self.asked.tries:
            changed = parse([*self.argv, *shlex.split(words)]) if words != "auto" else self.asked
            for name in OF_THE_LOAD:
                if getattr(changed, name) != getattr(self.asked, name):
                    what = name.replace("_", "-")
                    raise Problem(
                        f"--try {words!r}: --{what} makes it another load or service, and no change of this one"
                    )
            if self.asked.target:  # an app of the user's is asked only once
                plans.plans_of(changed)

    @property
    def shows_no_rows(self) -> bool:
        """Probes and searches show lines of their own."""
        return bool(self.asked.quiet or self.asked.probe or self.asked.find_rate)

    def all(self, database: BooksDatabase | None) -> None:
        """Every plan. Of several there is a table, row by row; or last, where each run is shown in full."""
        asked = self.asked
        plans = repeats.in_turn(self.plans, asked.repeats or 1)
        if len(plans) > 1 and not self.in_full and not self.shows_no_rows:
            self.printer.show(f"\n{report.ROWS}")
        try:
            for number, plan in enumerate(plans):
                with line_says(f"run {number + 1} of {len(plans)}" if len(plans) > 1 else ""):
                    self.one(plan, database)
                    self.change(number, database)
                signals.is_held = False
                if signals.received:
                    break
        finally:  # what was measured stands, whatever became of the next run
            if table := self.last_table():
                self.show_of_all(f"\n{table}")

    def show_of_all(self, text: str) -> None:
        """What several runs show together; a page has it, too."""
        self.printer.show(text)
        self.views.notes.append(text)

    def last_table(self) -> str:
        """Of several runs, after all of them; empty: there is none, or its rows have been shown."""
        asked, runs = self.asked, self.document.runs
        if asked.repeats:
            return report.repeats_table(repeats.rows_of_repeats(runs))
        is_due = runs and len(self.plans) > 1 and self.in_full and not self.shows_no_rows
        return "" if not is_due else "\n".join([report.ROWS, *map(report.row, runs)])

    def exit_code(self) -> int:
        """Says on stderr which --fail-if is met, and by which run. A change that is tried may be worse."""
        asked, runs, went_wrong = self.asked, self.document.runs, not self.has_answer
        for number, found in enumerate(runs, 1):
            which = f"run {number}, {report.name_of_part(found)}: " if len(runs) > 1 else ""
            for line in objectives.failing(found, () if found.plan.tried else asked.fail_if):
                went_wrong = True
                say(f"bench.py: {which}{line}")
        if not asked.find_rate:  # whose runs go beyond what holds
            went_wrong = went_wrong or any(map(objectives.has_failed, runs))
        return signals.exit_code or int(went_wrong)

    def one(self, plan: Plan, database: BooksDatabase | None) -> None:
        """One plan: a run, a probe, or a search for a rate. Its folder keeps the report, too."""
        asked, here = self.asked, list[Run]()
        folder = run_folder(asked.logs, f"{plan.target}{plan.path}") if plan.launch else None
        place = Place(folder, asked.server_cpus, database)

        def show(text: str) -> None:
            self.printer.show(text)
            if asked.probe or asked.find_rate:
                self.views.notes.append(text)
            if folder:
                with contextlib.suppress(OSError), (folder / "report.txt").open("ab") as out:
                    out.write(f"{text}\n".encode("utf-8", "backslashreplace"))

        def bring_home(found: Run) -> None:
            """Save each run as soon as there is one: in the document, and in the run's own folder."""
            here.append(found)
            self.document.runs.append(found)
            if asked.probe or asked.find_rate:
                self.views.keep(found, None, report.name_of_part(found), is_part=True)
            self.document.save()
            if folder and folder.is_dir():
                write_json(folder / "run.json", self.document.as_json(here))
            elif folder:
                say(f"bench.py: {folder} was deleted during the run, with its logs")

        if asked.probe:
            timeout_s = asked.timeout or min(plan.timeout_s, max(5.0, 0.7 * asked.budget[1]))
            search.probe(
                dataclasses.replace(plan, timeout_s=timeout_s, is_own_timeout=True),
                place,
                bring_home,
                show,
                asked.budget,
            )
        elif asked.find_rate:
            self.has_answer &= search.find_rate(plan, place, bring_home, show, asked.objective, asked.run_s)
        else:
            self.once(plan, place, show, bring_home)

    def once(self, plan: Plan, place: Place, show: Announce, bring_home: search.BringHome) -> None:
        """A run, with the access log as it grows where that is of use."""
        shows = self.in_full and not self.asked.quiet
        if shows and self.printer.is_terminal and plan.load.steady_count == plan.load.requests:
            place = dataclasses.replace(place, live=functools.partial(LiveLog, out=self.printer.out))
        keeps = bool(self.asked.json or self.views.are_asked)
        found, log = execute(plan, place, show if shows else lambda _: None, keeps)
        self.views.keep(found, log)
        bring_home(found)
        show(self.after(found, None if place.live else log))

    def change(self, number: int, database: BooksDatabase | None) -> None:
        """The load of the last run once more with each change that is to be tried."""
        if not self.asked.tries or signals.received or not self.document.runs:
            return
        first = self.document.runs[-1]
        figure = changes.figure_of_change(first)
        as_it_is = first.prediction.of(figure), first.measured.of(figure), first.measured.failed
        rows = [changes.Change("as it is", *as_it_is)]
        tried = [changes.advised(first) if words == "auto" else words for words in self.asked.tries]
        try:
            for words in dict.fromkeys(tried):
                if not words:
                    self.printer.show(report_changes.NO_CHANGE)
                    continue
                with contextlib.suppress(Interrupted):  # before its load
                    rows.append(self.changed(words, number, first, database))
                if signals.received:
                    break
        finally:  # what was tried stands, whatever became of the next change
            self.show_of_all(report_changes.changes_table(rows, figure))

    def changed(self, words: str, number: int, first: Run, database: BooksDatabase | None) -> changes.Change:
        """One change: predicted, then measured."""
        plan = plans.plans_of(parse([*self.argv, *shlex.split(words)]))[number]
        plan = dataclasses.replace(
            changes.with_threads_of(plan, words, first.plan),
            load=first.plan.load,
            mix_seed=first.plan.mix_seed,
            first_number=len(self.document.runs) * repeats.APART,
            tried=words,
        )
        waits = dataclasses.replace(plan, wait_s=plan.wait_s or first.plan.wait_s)
        plan = dataclasses.replace(
            plan, deal=calibrate.with_deal(waits, self.asked.logs, set(self.asked.server_cpus)).deal
        )
        due_s = changes.expected_s(plan, words, first)
        self.printer.show(report_changes.change_text(words, due_s, plan))
        folder = run_folder(self.asked.logs, f"{plan.target}{plan.path}-{words}")
        found, log = execute(plan, Place(folder, self.asked.server_cpus, database))
        self.views.keep(found, log, report.name_of_part(found), is_part=True)
        self.document.runs.append(found)
        self.document.save()
        write_json(folder / "run.json", self.document.as_json([found]))
        figure = changes.figure_of_change(first)
        return changes.Change(words, due_s, found.measured.of(figure), found.measured.failed)

    def after(self, found: Run, log: AccessLog | None) -> str:
        """The report of a run that has ended."""
        text = report.result(found, log) if self.in_full else report.row(found)
        if self.asked.quiet:
            text = report.verdict_of_target(found)
        if found.measured.until and not found.measured.until.reached:
            self.has_answer = False
        if self.asked.objective and found.measured.answered:
            told = advice.advice_for(found, self.asked.objective)
            self.has_answer = self.has_answer and told.is_kept
            text += "\n\n" + report_sizes.advice_text(told, found)
        return text


# ---------------------------------------------------------------- in the foreground


def serve(asked: argparse.Namespace) -> int:
    """Start the server, show its log as it grows, until it ends or a signal comes."""
    plan, *others = plans.plans_of(asked)
    if any(one.target != plan.target for one in others):
        raise Problem("--serve starts one server: say one --target")
    assert plan.launch
    launch: Launch = plan.launch
    check_packages([launch])
    folder = run_folder(asked.logs, launch.name)
    with database_for([launch], asked.database_url, folder, set()) as database:
        url = database.about["database_url"] if database else ""
        server = start_server(launch, folder, asked.server_cpus, url)
        try:
            each = slots_text(launch.slots_per_worker)
            workers = plural(launch.workers, "worker")
            scheme = "https" if plan.tls else "http"
            tell(f"{scheme}://127.0.0.1:{server.port}{plan.path}  {workers}, slots of each: {each}; Ctrl-C stops it")
            if sys.stdin and sys.stdin.isatty():
                tell("Enter shows where the requests stand, while another program sends them.")
            with (server.access_log or server.server_log).open() as log:
                while not server.ended:
                    with writing("the log", sys.stdout):
                        print(log.read(), end="", flush=True)
                    if has_line(0.1):
                        show_where(server, launch)
            say(f"bench.py: the server ended: {why_it_ended(server.server_log)}")
            return 1
        except (Interrupted, KeyboardInterrupt):
            return 0
        finally:
            stop_server(server)


def show_where(server: RunningServer, launch: Launch) -> None:
    """Look for a second where the requests stand."""
    samples: list[Mapping[str, Any]] = []
    if server.samples:
        with server.samples.into(samples):
            time.sleep(1)
    found = where.where_now(samples, server.code)
    tell(
        report_where.table_now(found, launch.takes_more(found.requests))
        if found
        else "No request is seen in a handler."
    )


if __name__ == "__main__":
    sys.exit(main())
