#!/usr/bin/env python3
"""sweep.py - many runs: one JSON file first, then tables and pictures out of that file.

    python sweep.py io            "Flask Sync vs. Async": six endpoints, 100 requests each, predicted and measured
    python sweep.py ab            "Architecture Flask vs FastAPI": seven servers, 5000 requests at c = 1, 500, 1000
    python sweep.py why           counter-experiments, one queue or four: the prediction first
    python sweep.py books         "Async FastAPI, Measured": a Books API on Postgres, and what its 3.7 x is
    python sweep.py client        what bench.py's own client costs, beside ab, wrk, hey and Locust
    python sweep.py limits        limits of default settings: published figures, and the setting that each of them is
    python sweep.py blog.toml     your own variants, of any app: examples/blog.toml is one
    python sweep.py io --quick    a first look: short task times, one repeat, within 90 s
    python sweep.py --list        the suites with the time that they take

    python sweep.py io --resume logs/20261121-101500-sweep-io/sweep-io.json     go on where it was interrupted
    python sweep.py report FILE [FILE ...]                              the Markdown again, nothing is run
    python sweep.py report FILE --pictures logs/                        its pictures, as SVG and PNG
    python sweep.py report logs/books_stats.csv --slots 16              a run of Locust, the prediction beside it
    python sweep.py compare A.json B.json [--fail-if-worse]             two files of sweep.py, or two of bench.py

How it works: each repeat runs every variant once. Variants that are compared run next to each other; all else is
shuffled with the printed seed. Each run has a freshly started server, with a pause between. Each finished run is in the
JSON file at once, so an interruption, kill -9 included, costs only the run under way. Tables and pictures are made from
that file alone.

How to read it: a figure is the median of the repeats, in brackets the least and the most. A ratio is the median of the
ratios within each repeat. Where the spreads of the two overlap, it says "too noisy to tell".

What belongs to one post (its figures, variants, tables, pictures) is its file in suites/. JSON, pictures, and the logs
of runs that failed go into a folder under logs/. Pictures need matplotlib (pip install matplotlib), nothing else does.
Exit code: 0 fine, 1 some requests failed (compare: worse), 2 wrong usage or a missing package, 3 a server did not
start, 130 or 143 interrupted.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import platform
import random
import shlex
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from engine import options, plans
from engine.database import BooksDatabase, database_for
from engine.execute import execute
from engine.files import LOGS, run_folder, say, shown, tell, write_json, writing
from engine.launch import check_packages, versions_of
from engine.loads import Burst
from engine.machine import about_machine, allowed_cpus, pin
from engine.run import Plan, to_json
from engine.signals import Interrupted, signals
from engine.words import Problem, plural, section
from suites import ab, books, client, comparison, io, limits, locust, own, why
from suites.common import Cell, Document, Json, Suite, Variant, can_pin

SUITES = {
    "io": io.SUITE, "ab": ab.SUITE, "why": why.SUITE, "books": books.SUITE, "client": client.SUITE,
    "limits": limits.SUITE,
}  # fmt: skip
COOL_DOWN_S = 0.5  # between two servers: closed sockets and dying workers are gone by then

# ---------------------------------------------------------------- the document


def order_of(variants: Sequence[Variant], repeats: int, seed: int) -> list[Cell]:
    """Every variant at every concurrency once in each repeat; what is compared stays together; all else is shuffled."""
    draw, order = random.Random(seed).random, list[Cell]()
    for repeat in range(1, repeats + 1):
        places = defaultdict[tuple[str, int], float](draw)  # of the groups
        cells = [(places[one.group, c], draw(), one.name, c) for one in variants for c in one.concurrency]
        order += [(name, c, repeat) for _, _, name, c in sorted(cells)]
    return order


def cell_of(entry: Json) -> Cell:
    return entry["variant"], entry["concurrency"], entry["repeat"]


def remaining(document: Document) -> list[Cell]:
    done = set(map(cell_of, document.runs))
    return [cell for cell in document.order if cell not in done]


def suite_named(name: str, asked: Any) -> Suite:
    return own.suite(asked) if asked else SUITES[name]


def variant_named(document: Document, name: str) -> Variant:
    variants = suite_named(document.suite, document.asked).variants
    return next(variant for variant in variants if variant.name == name)


@functools.cache  # as gunicorn itself is asked what it makes of some options, which takes a moment
def planned(arguments: str) -> tuple[Plan, argparse.Namespace]:
    found = options.parse(shlex.split(arguments))
    return plans.plans_of(found)[0], found


def plan_of(variant: Variant, values: dict[str, str], concurrency: int) -> tuple[Plan, argparse.Namespace]:
    plan, found = planned(variant.arguments.format(c=concurrency, **values))
    if plan.launch:
        env = tuple((name, value.format(**values)) for name, value in variant.env)
        plan = replace(plan, launch=replace(plan.launch, env=plan.launch.env + env))
    return plan, found


def new_document(
    name: str, quick: bool = False, repeats: int = 0, seed: int = 0, scale: str = "", command: str = "", asked: Any = None
) -> Document:
    """A sweep with nothing run yet, but everything predicted. Raises Problem."""
    suite = suite_named(name, asked)
    values = (suite.quick if quick else suite.full) | ({"t": scale} if scale else {})
    programs = suite.programs()
    there = [variant for variant in suite.variants if not variant.program or variant.program in programs]
    every = {one: plan_of(one, values, one.concurrency[-1])[0] for one in there if not one.program}
    launches = [plan.launch for plan in every.values() if plan.launch]
    check_packages(launches)
    return Document(
        name,
        datetime.now().isoformat(" ", "seconds"),
        command,
        asdict(about_machine()),
        {"Python": platform.python_version(), **versions_of(launches), **programs},
        seed,
        quick,
        values,
        order_of(there, repeats or (1 if quick else suite.repeats), seed),
        {one.name: plans.predict(plan).makespan_s for one, plan in every.items() if not one.env},
        [],
        asked,
    )


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """A file may be something else, or lack, deep down, what its report needs: one line says so."""
    try:
        yield
    except OSError as error:
        raise Problem(f"cannot read {error.filename or path}: {error.strerror}") from None
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, StopIteration, RuntimeError) as error:
        why_not = f"{type(error).__name__} {' '.join(str(error).split())[:200]}"
        raise Problem(f"{path} is no such file as this sweep.py reads, or was changed by hand: {why_not}") from None


def read(path: Path) -> Document:
    """A sweep's file. Raises Problem, in a line."""
    with readable(path):
        document = Document.of(json.loads(path.read_text()))
        for name in {name for name, _, _ in [*document.order, *map(cell_of, document.runs)]}:
            variant_named(document, name)
    return document


# ---------------------------------------------------------------- run


def run_target(variant: Variant, values: dict[str, str], c: int, folder: Path, database: BooksDatabase | None) -> Json:
    """One run as bench.py does it: its record without raw columns, but with what the pictures need."""
    plan, found = plan_of(variant, values, c)
    cpus = allowed_cpus()
    try:
        if found.client_cpus:
            pin(0, found.client_cpus)
        run, _ = execute(plan, found.server_cpus, folder, database, keep_exchanges=False)
    finally:
        if found.client_cpus:
            pin(0, cpus)
    # With one queue the split decides nothing: the prediction stands for both.
    record: Json = to_json(replace(run, exchanges=None, split_prediction=run.split_prediction or run.prediction))
    for name in ("per_second", "histogram", "phases_s"):
        del record["measured"][name]
    if run.exchanges and isinstance(plan.load, Burst):
        record["answered_s"] = sorted(round(at_s, 4) for at_s in run.exchanges.answered_s if at_s is not None)
    return record


def sweep(document: Document, path: Path) -> None:
    """Do what remains of the document's order. After each run the file is complete; logs stay if requests failed."""
    suite, values = suite_named(document.suite, document.asked), document.values
    launches = [plan_of(variant, values, 1)[0].launch for variant in suite.variants if not variant.program]
    # One Postgres for the whole sweep where the suite needs one; its rows are put back before each run.
    cpus = {1} if can_pin() else set[int]()
    with database_for([launch for launch in launches if launch], None, path.parent, cpus) as database:
        for name, c, repeat in remaining(document):
            at_c = f", c = {c}" if c else ""
            say(f"[{len(document.runs) + 1}/{len(document.order)}] {name}{at_c}, repeat {repeat}")
            time.sleep(COOL_DOWN_S)
            variant, folder, begun_s = variant_named(document, name), run_folder(path.parent, name), time.perf_counter()
            if variant.program and suite.run_program:
                run = suite.run_program(document, variant, c, folder)
            else:
                run = run_target(variant, values, c, folder, database)
            if signals.received:  # it was cut short
                raise Interrupted
            signals.is_held = False
            wall_s = round(time.perf_counter() - begun_s, 2)
            document.runs.append({"variant": name, "concurrency": c, "repeat": repeat, "wall_s": wall_s, "run": run})
            write_json(path, asdict(document))
            if not run["measured"]["failed"]:
                shutil.rmtree(folder)


# ---------------------------------------------------------------- report


def failed_in(document: Document) -> list[str]:
    """The runs with failed requests that were not foretold, in words."""
    return [
        f"{entry['variant']} (repeat {entry['repeat']}: {entry['run']['measured']['failed']})"
        for entry in document.runs
        if entry["run"]["measured"]["failed"] and not variant_named(document, entry["variant"]).may_fail
    ]


def render(document: Document) -> str:
    """The whole report, as Markdown."""
    suite, done, planned_runs = suite_named(document.suite, document.asked), len(document.runs), len(document.order)
    repeats = max(repeat for _, _, repeat in document.order)
    versions = ", ".join(f"{name} {version}" for name, version in document.versions.items())
    parts = [
        f"## Suite {document.suite}: {suite.title}",
        " ".join(suite.headline(document)) if done else "",
        f"{comparison.about(asdict(document))}, seed {document.seed}; {versions}.",
        f"{suite.source} {plural(repeats, 'repeat')}: "
        + ("no spread is known." if repeats == 1 else "median (least-most)."),
    ]
    if document.quick:
        parts.append(f"**A quick look** (--quick), not for quoting: {document.values} instead of {suite.full}.")
    elif document.values != suite.full:
        parts.append(f"Stages shortened: --scale {document.values['t']}.")
    if done < planned_runs:
        parts.append(f"**Unfinished**: {done} of {planned_runs} runs.")
    if failed := failed_in(document):
        parts.append(f"**Failed requests** in {', '.join(failed)}.")
    return "\n\n".join(filter(None, [*parts, suite.tables(document)]))


STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "sweep.py",  # the same data make the same file
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
}


def draw(document: Document, path: Path, folder: Path) -> None:
    """Each picture of a sweep as SVG and as PNG, 7 inches wide: 700 pixels at blog size, 1400 in the PNG."""
    try:  # found at run time only: everything but the pictures works without it
        matplotlib: Any = importlib.import_module("matplotlib")
        figure: Any = importlib.import_module("matplotlib.figure")
    except ImportError:
        raise Problem(f"pictures need matplotlib: {sys.executable} -m pip install matplotlib") from None
    for name, height_in, draw_picture in suite_named(document.suite, document.asked).pictures:
        with matplotlib.rc_context(STYLE), readable(path):
            drawing = figure.Figure(figsize=(7, height_in), layout="constrained")
            draw_picture(document, drawing)
            for kind, metadata in (("svg", {"Date": None}), ("png", {})):
                file = folder / f"{path.stem}-{name}.{kind}"
                with writing(str(file)):
                    folder.mkdir(parents=True, exist_ok=True)
                    drawing.savefig(file, dpi=200, metadata=metadata)
                say(f"picture {shown(file)}")


# ---------------------------------------------------------------- main


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Raises Problem."""
    parser = options.Parser(prog="sweep.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("what", nargs="?", help="a suite, a file of variants (.toml), report, or compare")
    add("files", type=Path, nargs="*", help="of report and compare")
    add("--list", action="store_true", help="name the suites and the time that they take")
    add("--quick", action="store_true", help="short task times, one repeat")
    add("--repeats", type=options.number(int, 1, 100), default=0, help="of each variant (quick: 1)")
    add("--seed", type=options.number(int, 0, 2**31), default=random.randrange(10_000), help="of the order (drawn)")
    add("--scale", type=options.pattern(r"0?\.\d+|[1-9]\d*(\.\d+)?", "a positive number"), help="of suite books: make the"
        " stages so many times as long")  # fmt: skip
    add("--resume", type=Path, help="go on with the file of an interrupted sweep, as it was begun")
    add("--logs", type=Path, default=LOGS, help="the folder where everything goes (logs/)")
    add("--pictures", type=Path, help="of report: the folder for SVG and PNG")
    add("--slots", type=options.FEW, help="of a report on Locust: all slots of the server")
    add("--wait", type=options.number(float, 1e-4, 3600), help="... what a request waits in s, if not known")
    add("--fail-if-worse", action="store_true", help="of compare: exit code 1 if B is worse, beyond all spread")
    return parser.parse_args(argv)


def begin(asked_for: argparse.Namespace, command: str) -> tuple[Document, Path]:
    """A new document and where it goes, or the one to go on with. Raises Problem."""
    logs, resume, name = asked_for.logs.absolute(), asked_for.resume and asked_for.resume.absolute(), asked_for.what
    asked = None
    if name.endswith(".toml"):
        file = Path(name).absolute()
        name, asked = file.stem, own.read(file)
        os.chdir(file.parent)  # where your apps are
    elif name not in SUITES:
        raise Problem(f"unknown suite {name!r}; there are {', '.join(SUITES)}, a .toml file, report and compare")
    fresh = new_document(name, asked_for.quick, asked_for.repeats, asked_for.seed, asked_for.scale, command, asked)
    if not resume:
        path = run_folder(logs, f"sweep-{name}") / f"sweep-{name}.json"
        write_json(path, asdict(fresh))
        return fresh, path
    document = read(resume)
    for what in ("suite", "asked", "machine", "versions"):
        if getattr(document, what) != getattr(fresh, what):
            raise Problem(f"{resume.name} was begun with another {what}; begin a new sweep")
    return document, resume


def run_suite(asked_for: argparse.Namespace, command: str) -> int:
    document, path = begin(asked_for, command)
    resume = f"go on with: python sweep.py {shlex.quote(asked_for.what)} --resume {shlex.quote(str(path))}"
    say(f"seed {document.seed}; each finished run is in {path}")
    for name, predicted_s in document.predictions.items():
        say(f"predicted  {name}: {predicted_s or 0:.3g} s" * bool(predicted_s))
    try:
        sweep(document, path)
    except (Interrupted, KeyboardInterrupt):
        say(f"sweep.py: interrupted; nothing is left running; {resume}")
        raise
    except Problem as problem:
        raise Problem(f"{problem}; {resume}", problem.exit_code) from None
    tell(render(document))
    try:
        draw(document, path, path.parent)
    except Problem as problem:
        say(f"sweep.py: {problem}")
    return 1 if failed_in(document) else 0


def report(asked_for: argparse.Namespace) -> int:
    documents, texts = dict[Path, Document](), list[str]()
    for file in asked_for.files:
        runs = locust.files_in(file)
        if not runs:
            documents[file] = read(file)
        with readable(file):
            texts += [locust.render(locust.read(run), asked_for.slots, asked_for.wait) for run in runs]
            texts += [] if runs else [render(documents[file])]
    tell("\n\n".join(texts))
    for file, document in documents.items():
        if asked_for.pictures:
            draw(document, file, asked_for.pictures)
    return 0


def compare(asked_for: argparse.Namespace) -> int:
    if len(asked_for.files) != 2:
        raise Problem("compare takes two files")
    with readable(asked_for.files[0]):
        a, b = (json.loads(file.read_text()) for file in asked_for.files)
        lines = comparison.compared(a, b)
        tell(comparison.render(a, b, lines))
    worse = comparison.worse(lines) if asked_for.fail_if_worse else []
    for line in worse:
        say(f"sweep.py: worse: {line}")
    return 1 if worse else 0


def main(argv: Sequence[str] | None = None) -> int:
    argv, home = list(sys.argv[1:] if argv is None else argv), os.getcwd()
    with signals.handled():
        try:
            asked_for = parse(argv)
            if asked_for.what in ("report", "compare"):
                return (report if asked_for.what == "report" else compare)(asked_for)
            if asked_for.what:
                return run_suite(asked_for, shlex.join(["sweep.py", *argv]))
            titles = [section(name, f"{suite.title} ({suite.takes})") for name, suite in SUITES.items()]
            tell("\n".join(titles) if asked_for.list else __doc__ or "")
            return 0
        except Problem as problem:
            say(f"sweep.py: {problem}")
            return problem.exit_code
        except (Interrupted, KeyboardInterrupt):
            return signals.exit_code or 130
        finally:
            os.chdir(home)


if __name__ == "__main__":
    sys.exit(main())
