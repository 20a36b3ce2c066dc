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
    python bench.py --url http://127.0.0.1:8000/ -n 5000 -c 500 -k
    python bench.py --app main:app --find-rate --p99 0.1    the highest rate
    python bench.py --app main:app --fail-if 'p99>0.1'      for CI: exit code 1

On paper: nothing is started
    python bench.py -n 100 --slots 40 --wait 1              a burst
    python bench.py -c 200 --slots 16 --wait 50ms           users
    python bench.py --rate 256 --wait 50ms --p99 0.1        how many slots?

Kinds of load
    no -c     a burst: all requests at once, a connection each
    -c N      a closed loop: each of N users sends again when it has its answer.
              A stall of the server stops the sending, too
    --rate R  an open loop: requests leave when they are due, whatever the
              server does, and latency counts from when they were due
    --ramp    a closed loop whose number of users changes over time

Everything that a run leaves is in its folder under logs/; --json writes all
runs into one file. Failed requests are in no percentile; a p99 needs 100
answers.

Exit code: 0 every request was answered with a 2xx, 1 some requests failed or
--fail-if was met, 2 wrong usage or a missing package, 3 the server did not
start, 129, 130 or 143 (128 + the signal) interrupted; what was measured until
then is reported. Python 3.10 or newer, nothing else.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from engine import objectives, options, plans, report, search, send, sizes
from engine.access_log import AccessLog
from engine.database import BooksDatabase, database_for
from engine.execute import execute
from engine.files import Document, Printer, run_folder, say, shown, tell, write_json
from engine.launch import Launch, check_packages, versions_of
from engine.live import LiveLog
from engine.machine import about_machine, check_file_limit, pin
from engine.run import Plan, Run
from engine.server import start_server, stop_server, why_it_ended
from engine.signals import Interrupted, signals
from engine.words import Problem, plural, slots_text


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
    asked = parse(argv)
    if asked.list:
        tell(report.targets_list(asked))
        return 0
    if asked.is_paper:
        on_paper(asked)
        return 0
    if not (asked.target or asked.app or asked.url):
        tell(__doc__ or "")
        return 0
    if asked.serve:
        return serve(asked)
    return Bench(asked, ["bench.py", *argv]).run()


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options of a command line, checked. Raises Problem."""
    return options.parse(argv, __doc__ or "")


# ---------------------------------------------------------------- on paper


def on_paper(asked: argparse.Namespace) -> None:
    """What the arguments give, without a server."""
    if asked.objective:
        objective_s, percentile = asked.objective
        cpus = asked.cpus or asked.workers
        found = sizes.Asked(asked.rate, float(asked.wait), objective_s, percentile, asked.cpu_time or 0.0, cpus)
        tell(report.size(sizes.size(found), asked.workers))
        return
    (plan,) = plans.plans_of(asked)
    forecast = plans.forecast_on_paper(plan, asked.split)
    tell(report.on_paper(plan, plans.prediction_of(plan, forecast), forecast))


# ---------------------------------------------------------------- runs


class Bench:
    """Every run that one command line asks for, on one document."""

    def __init__(self, asked: argparse.Namespace, command: list[str]) -> None:
        self.asked = asked
        self.plans = plans.plans_of(asked)
        self.launches = [plan.launch for plan in self.plans if plan.launch]
        check_packages(self.launches)
        if asked.url:
            send.resolve(self.plans[0].host, self.plans[0].port)
        for plan in self.plans:
            check_file_limit(plan.load.most_under_way, plan.load.is_scheduled)
        if asked.client_cpus:
            pin(0, asked.client_cpus)
        self.document = Document(command, versions_of(self.launches), asked.json)
        self.printer = Printer(asked.json)
        several_targets = "all" in asked.target or len(set(asked.target)) > 1
        self.in_full = asked.verbose or not several_targets

    def run(self) -> int:
        self.printer.show(report.header(about_machine(), self.document.head["versions"]))
        try:
            folder = run_folder(self.asked.logs, "postgres") if any(one.pool for one in self.launches) else None
            with database_for(
                self.launches, self.asked.database_url, folder, self.asked.client_cpus
            ) if folder else nullcontext() as database:  # fmt: skip
                for plan in self.plans:
                    self.one(plan, database)
                    signals.is_held = False
                    if signals.received:
                        break
            if len(self.plans) > 1 and not (self.asked.quiet or self.asked.probe or self.asked.find_rate):
                self.printer.show("\n" + report.comparison(self.document.runs))
        finally:
            self.document.is_complete = not signals.received and len(self.document.runs) >= len(self.plans)
            self.document.write(is_last=True)
        return self.exit_code()

    def one(self, plan: Plan, database: BooksDatabase | None) -> None:
        """One plan: a run, a probe, or a search for a rate."""
        asked = self.asked
        folder = run_folder(asked.logs, f"{plan.target}{plan.path}") if plan.launch else None
        bring_home = self.bring_home_to(folder)
        if asked.probe:
            search.probe(plan, asked.server_cpus, folder, database, bring_home, self.printer.show, asked.budget,
                         asked.timeout)  # fmt: skip
        elif asked.find_rate:
            search.find_rate(plan, asked.server_cpus, folder, database, bring_home, self.printer.show, asked.objective,
                             asked.run_s)  # fmt: skip
        else:
            self.one_run(plan, folder, database, bring_home)

    def one_run(
        self, plan: Plan, folder: Path | None, database: BooksDatabase | None, bring_home: Callable[[Run], None]
    ) -> None:
        asked, shows = self.asked, self.in_full and not self.asked.quiet
        if not (asked.quiet or self.in_full):
            self.printer.show(report.row_before(plan, plans.predict(plan)))
        live = LiveLog if shows and self.printer.is_terminal and plan.load.steady_count == plan.load.requests else None
        found, log = execute(
            plan, asked.server_cpus, folder, database, self.printer.show if shows else None, live, bool(asked.json)
        )
        bring_home(found)
        self.show_after(found, None if live else log)
        if asked.objective and found.plan.wait_s and found.measured.answered:
            self.printer.show("\n" + report.size(size_of(found, asked.objective), plan.workers))

    def show_after(self, found: Run, log: AccessLog | None) -> None:
        if self.asked.quiet:
            self.printer.show(report.verdict_of_target(found))
        elif self.in_full:
            self.printer.show(report.result(found, log))
        else:
            self.printer.show(report.row_after(found))

    def bring_home_to(self, folder: Path | None) -> Callable[[Run], None]:
        """What saves each run as soon as there is one: in the document, and in the run's own folder."""
        here: list[Run] = []

        def bring_home(found: Run) -> None:
            here.append(found)
            self.document.runs.append(found)
            self.document.write()
            if folder:
                write_json(folder / "run.json", self.document.as_json(here))

        return bring_home

    def exit_code(self) -> int:
        runs = self.document.runs
        reasons = [line for found in runs for line in objectives.failing(found, self.asked.fail_if)]
        for line in reasons:
            say(f"bench.py: {line}")
        return signals.exit_code or (1 if reasons or any(found.measured.failed for found in runs) else 0)


def size_of(found: Run, objective: tuple[float, int]) -> sizes.Size:
    """The slots that the run's own rate needs for an objective."""
    objective_s, percentile = objective
    plan, measured = found.plan, found.measured
    cpu_s = (measured.server_cpu_s or 0.0) / measured.answered
    rate_rps = (plan.load.due_in_all or 0) / plan.load.time_limit_s
    rate_rps = getattr(plan.load, "rate_rps", rate_rps)
    return sizes.size(sizes.Asked(rate_rps, plan.wait_s or 0.0, objective_s, percentile, cpu_s, max(1, plan.cpus)))


# ---------------------------------------------------------------- in the foreground


def serve(asked: argparse.Namespace) -> int:
    """Start the server, show its log as it grows, until it ends or a signal comes."""
    (plan, *_) = plans.plans_of(asked)
    assert plan.launch
    launch: Launch = plan.launch
    check_packages([launch])
    folder = run_folder(asked.logs, launch.name)
    with database_for([launch], asked.database_url, folder, set()) as database:
        url = database.about["database_url"] if database else ""
        server = start_server(launch, folder, asked.server_cpus, url)
        try:
            each = slots_text(launch.slots_per_worker)
            tell(f"http://127.0.0.1:{server.port}{plan.path}  {plural(launch.workers, 'worker')}, slots of each: {each};"
                 f" log in {shown(folder)}; Ctrl-C stops it")  # fmt: skip
            with (server.access_log or server.server_log).open() as log:
                while not server.ended:
                    print(log.read(), end="", flush=True)
                    time.sleep(0.1)
            say(f"bench.py: the server ended: {why_it_ended(server.server_log)}")
            return 1
        except (Interrupted, KeyboardInterrupt):
            return 0
        finally:
            stop_server(server)


if __name__ == "__main__":
    sys.exit(main())
