#!/usr/bin/env python3
"""sweep.py - many runs: one JSON file first, then tables and pictures out of it.

    python sweep.py io        "Flask Sync vs. Async": six endpoints, 100 requests
    python sweep.py ab        "Architecture Flask vs FastAPI": seven servers
    python sweep.py why       counter-experiments, one queue or four
    python sweep.py books     "Async FastAPI, Measured": a Books API on Postgres
    python sweep.py client    what bench.py's own client costs; ab, wrk, Locust
    python sweep.py limits    limits of default settings, and which each is
    python sweep.py blog.toml your own variants: examples/blog.toml is one
    python sweep.py io --quick                a first look, in a minute
    python sweep.py --list                    the suites, and how long they take

    python sweep.py io --resume FILE          go on where it was interrupted
    python sweep.py report FILE ...           the Markdown again, nothing is run
    python sweep.py report FILE --pictures logs/           SVG and PNG
    python sweep.py report logs/books_stats.csv --slots 16     a run of Locust
    python sweep.py compare A.json B.json [--fail-if-worse]    of sweep.py, or of
                                                               bench.py --json

How it works: each repeat runs every variant once. Variants that are compared run
next to each other; all else is shuffled with the printed seed. Each run has a
freshly started server, with a pause between. Each finished run is in the JSON
file at once, so an interruption, kill -9 included, costs only the run under way.
Tables and pictures are made from that file alone.

How to read it: a figure is the median of the repeats, in brackets the least and
the most. A ratio is the median of the ratios within each repeat. Where the
spreads of the two overlap, it says "too noisy to tell"; or "the same" where
each ratio is within 5 % of 1.

What belongs to one post (its figures, variants, tables, pictures) is its file in
suites/. JSON, pictures, and the logs of runs that failed go into a folder under
logs/. Pictures need matplotlib (pip install matplotlib), nothing else does. Exit
code: 0 fine, 1 some requests failed (compare: worse, or it cannot be told), 2
wrong usage or a missing package, 3 a server did not start, 129, 130 or 143
interrupted.
"""

import argparse
import functools
import importlib
import json
import random
import shlex
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -P and -I leave it out

from engine import options, plans
from engine.arguments import FEW, number, seconds
from engine.database import BooksDatabase, database_for
from engine.execute import Place, execute
from engine.files import LOGS, NO_MANUAL, check_folder, heading, run_folder, say, tell, write_json, writing
from engine.json_form import to_json
from engine.launch import Launch, check_packages, versions_of
from engine.machine import allowed_cpus, check_file_limit, pin
from engine.repeats import APART, repeated
from engine.run import Plan
from engine.signals import Interrupted, signals
from engine.views import Views
from engine.words import Problem, per_cent, plural, section
from suites import ab, books, client, comparison, io, limits, locust, own, users, why
from suites.common import CAN_PIN, Cell, Json, Suite, SweepDocument, Values, Variant, answers_of, as_text

SUITES = {
    "io": io.SUITE, "ab": ab.SUITE, "why": why.SUITE, "books": books.SUITE, "client": client.SUITE,
    "limits": limits.SUITE, "users": users.SUITE,
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


def suite_of(document: SweepDocument) -> Suite:
    return own.suite(document.asked) if document.asked else SUITES[document.suite]


def variants_of(document: SweepDocument) -> dict[str, Variant]:
    return {variant.name: variant for variant in suite_of(document).variants}


@functools.cache  # as gunicorn itself is asked what it makes of some options, which takes a moment
def planned(arguments: str, seed: int) -> tuple[Plan, argparse.Namespace]:
    """With the sweep's seed, so that all variants have the same random arrivals, unless one has a seed of its own."""
    words = shlex.split(arguments)
    found = options.parse(words)
    if not any(word.partition("=")[0] == "--seed" for word in words):
        found.seed = seed
    return plans.plans_of(found)[0], found


def plan_for(variant: Variant, values: Values, concurrency: int, seed: int = 0) -> tuple[Plan, argparse.Namespace]:
    # In the arguments of your own variants nothing is filled in.
    plan, found = planned(variant.arguments.format(c=concurrency, **values) if values else variant.arguments, seed)
    if plan.launch:
        env = tuple((name, value.format(**values)) for name, value in variant.env)
        plan = replace(plan, launch=replace(plan.launch, env=plan.launch.env + env))
    return plan, found


def launches_of(suite: Suite, values: Values, seed: int) -> list[Launch]:
    every = (plan_for(variant, values, 1, seed)[0].launch for variant in suite.variants if not variant.program)
    return [launch for launch in every if launch]


def predictions_of(variants: Sequence[Variant], values: Values, seed: int) -> dict[str, float | None]:
    """When the last answer is due, of each variant by its name; of bench.py's own settings only."""
    ours = [one for one in variants if not one.program and not one.env]
    due = {one.name: plan_for(one, values, one.concurrency[-1], seed)[0] for one in ours}
    return {name: plans.prediction_for(plan).makespan_s for name, plan in due.items()}


def new_document(asked_for: argparse.Namespace, name: str, command: str = "", asked: Any = None) -> SweepDocument:
    """A sweep with nothing run yet, but everything predicted. Raises Problem."""
    suite, quick, scale = own.suite(asked) if asked else SUITES[name], asked_for.quick, asked_for.scale
    if scale and "scale" not in suite.full:
        raise Problem("--scale goes with suite books")
    values = (suite.quick if quick else suite.full) | ({"scale": f"{scale:g}"} if scale else {})
    programs = suite.programs()
    there = [variant for variant in suite.variants if not variant.program or variant.program in programs]
    launches = launches_of(suite, values, asked_for.seed)
    check_packages(launches)
    return SweepDocument(
        **heading(command, versions_of(launches) | programs),
        suite=name,
        seed=asked_for.seed,
        quick=quick,
        values=values,
        order=order_of(there, asked_for.repeats or (1 if quick else suite.repeats), asked_for.seed),
        predictions=predictions_of(there, values, asked_for.seed),
        runs=[],
        asked=asked,
    )


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """A file may be something else, or lack, deep down, what its report needs: one line says so."""
    try:
        yield
    except OSError as error:
        raise Problem(f"cannot read {error.filename or path}: {error.strerror}") from None
    except Problem:
        raise
    except Exception as error:
        why_not = f"{type(error).__name__} {' '.join(str(error).split())[:200]}"
        raise Problem(f"{path} is no such file as this sweep.py reads, or was changed by hand: {why_not}") from None


def read(path: Path) -> SweepDocument:
    """A sweep's file. Raises Problem, in a line."""
    with readable(path):
        document = SweepDocument(**json.loads(path.read_text()))
        document.order = [(name, c, repeat) for name, c, repeat in document.order]
        for name, _, _ in document.order:
            variants_of(document)[name]
    return document


# ---------------------------------------------------------------- run


def run_target(
    document: SweepDocument, variant: Variant, c: int, repeat: int, folder: Path, database: BooksDatabase | None,
    views: Views,
) -> Json:  # fmt: skip
    """One run as bench.py does it: its record without raw columns, but with what the pictures need."""
    plan, found = plan_for(variant, document.values, c, document.seed)
    if document.asked:  # within a repeat the variants have the same arrivals; and no two runs send the same numbers
        plan = replace(repeated(plan, repeat - 1), first_number=len(document.runs) * APART)
    check_file_limit(plan.load.most_under_way, plan.load.is_scheduled)
    cpus = allowed_cpus()
    if found.client_cpus:
        pin(0, found.client_cpus)
    run, log = execute(plan, Place(folder, found.server_cpus, database), keep_exchanges=views.are_asked)
    views.keep(run, log, variant.name)
    if found.client_cpus:
        pin(0, cpus)
    # With one queue the split decides nothing: the prediction stands for both.
    record: Json = to_json(replace(run, exchanges=None, split_prediction=run.split_prediction or run.prediction))
    for name in ("per_second", "histogram", "phases_s"):
        del record["measured"][name]
    if run.exchanges and plan.load.steady_count == plan.load.requests:  # of a burst
        record["answered_s"] = answers_of(run.exchanges)
    return record


def sweep(document: SweepDocument, path: Path, views: Views) -> None:
    """Do what remains of the document's order. After each run the file is complete; logs stay if requests failed."""
    suite, values, seed = suite_of(document), document.values, document.seed
    # One Postgres for the whole sweep where the suite needs one; its rows are put back before each run.
    with database_for(launches_of(suite, values, seed), None, path.parent, {1} if CAN_PIN else set()) as database:
        for name, c, repeat in document.order[len(document.runs) :]:
            say(f"[{len(document.runs) + 1}/{len(document.order)}] {name}{f', c = {c}' if c else ''}, repeat {repeat}")
            time.sleep(COOL_DOWN_S)
            variant, folder = variants_of(document)[name], run_folder(path.parent, name)
            if variant.program and suite.run_program:
                run = suite.run_program(document, variant, c, folder)
            else:
                run = run_target(document, variant, c, repeat, folder, database, views)
            if signals.received:  # it was cut short
                raise Interrupted
            signals.is_held = False
            document.runs.append({"variant": name, "concurrency": c, "repeat": repeat, "run": run})
            write_json(path, asdict(document))
            if not run["measured"]["failed"]:
                shutil.rmtree(folder)


# ---------------------------------------------------------------- report


def failed_in(document: SweepDocument) -> list[str]:
    """The runs with failed requests that were not foretold, in words."""
    return [
        f"{as_text(entry['variant'])} (repeat {entry['repeat']}: {entry['run']['measured']['failed']})"
        for entry in document.runs
        if entry["run"]["measured"]["failed"] and not variants_of(document)[entry["variant"]].may_fail
    ]


def not_whole(values: Values, full: Values) -> str:
    """What is not as in a whole sweep; empty: nothing."""
    others = [f"{name} = {value} instead of {full[name]}" for name, value in values.items() if value != full[name]]
    return f"**Not a whole sweep**: {', '.join(others)}." if others else ""


def render(document: SweepDocument) -> str:
    """The whole report, as Markdown."""
    suite, done, in_all, failed = suite_of(document), len(document.runs), len(document.order), failed_in(document)
    repeats = max(repeat for _, _, repeat in document.order)
    versions = ", ".join(f"{name} {version}" for name, version in document.versions.items())
    parts = [
        f"## Suite {document.suite}: {as_text(suite.title)}",
        " ".join(suite.headline(document)) if done == in_all else f"**Unfinished**: {done} of {in_all} runs.",
        f"{comparison.about(asdict(document))}, seed {document.seed}; {versions}.",
        f"{suite.source} {plural(repeats, 'repeat')}: median (least-most).".strip(),
        not_whole(document.values, suite.full),
        f"**Failed requests** in {', '.join(failed)}." * bool(failed),
        suite.tables(document),
    ]
    return "\n\n".join(filter(None, parts))


STYLE = {
    # C0 to C3 by Okabe and Ito, for the colour-blind, too; C4 is pale
    "axes.prop_cycle": "cycler('color', ['0072B2', 'E69F00', '009E73', 'D55E00', 'c6dcec'])",
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a name may have a $
    "svg.hashsalt": "sweep.py",  # the same data make the same file
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
}


def draw_pictures(document: SweepDocument, path: Path, folder: Path) -> None:
    """Each picture of a sweep as SVG and as PNG, 7 inches wide: 700 pixels at blog size, 1400 in the PNG."""
    try:  # found at run time only: everything but the pictures works without it
        pyplot: Any = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        raise Problem(f"pictures need matplotlib: {sys.executable} -m pip install matplotlib") from None
    for name, height_in, draw_picture in suite_of(document).pictures:
        with pyplot.rc_context(STYLE):
            drawing = pyplot.Figure(figsize=(7, height_in), layout="constrained")
            draw_picture(document, drawing)
            for kind in ("svg", "png"):
                file = folder / f"{path.stem}-{name}.{kind}"
                with writing(str(file)):
                    folder.mkdir(parents=True, exist_ok=True)
                    drawing.savefig(file, dpi=200, metadata={"Date": None})


# ---------------------------------------------------------------- main


FAIL_IF_WORSE = (
    "of compare: exit code 1 if B is worse, beyond all spread or by failed requests, or if it cannot be told"
)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Raises Problem."""
    parser = options.Parser("sweep.py", None, __doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("what", nargs="?", help="a suite, a file of variants (.toml), report, or compare")
    add("files", type=Path, nargs="*", help="of report and compare")
    add("--list", action="store_true", help="name the suites and the time that they take")
    add("--quick", action="store_true", help="short task times, one repeat")
    add("--repeats", type=number(int, 1, 100), default=0, help="of each variant (quick: 1)")
    add("--seed", type=number(int, 0, 2**31), default=random.randrange(10_000), help="of order and arrivals (drawn)")
    add("--scale", type=number(float, 0.001, 100), help="of suite books: make the stages so many times as long")
    add("--resume", type=Path, help="go on with the file of an interrupted sweep, as it was begun")
    add("--logs", type=Path, default=LOGS, help="the folder where everything goes (logs/)")
    add("--pictures", type=Path, help="of report: the folder for SVG and PNG")
    add("--html", help="of a suite: write its runs as one page (resumed: those from then on)")
    add("--trace", help="of a suite: write the times of every request as a trace for Perfetto")
    add("--slots", type=FEW, help="of a report on Locust: all slots of the server")
    add("--wait", type=seconds(1e-4, 3600), help="... what a request waits in s, if not known")
    add("--fail-if-worse", action="store_true", help=FAIL_IF_WORSE)
    return parser.parse_intermixed_args(argv)


def begin(asked_for: argparse.Namespace, command: str) -> tuple[SweepDocument, Path]:
    """A new document and where it goes, or the one to go on with. Raises Problem."""
    logs, resume, name = asked_for.logs.absolute(), asked_for.resume and asked_for.resume.absolute(), asked_for.what
    asked = None
    if name.endswith(".toml"):
        file = Path(name).absolute()
        name, asked = file.stem, own.read_variants(file)
    elif name not in SUITES:
        raise Problem(f"unknown suite {name!r}; there are {', '.join(SUITES)}, a .toml file, report and compare")
    fresh = new_document(asked_for, name, command, asked)
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
    if asked_for.files:
        raise Problem("one suite at a time; files go with report and compare")
    views = Views(asked_for.html, asked_for.trace)
    document, path = begin(asked_for, command)
    say(f"seed {document.seed}; each finished run is in {path}")
    for name, predicted_s in document.predictions.items():
        if predicted_s:
            say(f"predicted  {name}: {predicted_s:.3g} s")
    try:
        sweep(document, path, views)
    finally:
        head = {name: getattr(document, name) for name in ("when", "command", "machine", "versions")}
        views.write(head, views.runs, len(document.runs) == len(document.order))
        if len(document.runs) < len(document.order):
            again = f"python sweep.py {shlex.quote(asked_for.what)} --resume {shlex.quote(str(path))}"
            say(f"sweep.py: ended early; nothing is left running; go on with: {again}")
    tell(render(document))
    try:
        draw_pictures(document, path, path.parent)
    except Problem as problem:
        say(f"sweep.py: {problem}")
    return 1 if failed_in(document) else 0


def report(asked_for: argparse.Namespace) -> int:
    if not asked_for.files:
        raise Problem("report takes a file, or several")
    for file in asked_for.files:
        with readable(file):
            texts = [locust.locust_report(run, asked_for.slots, asked_for.wait) for run in locust.files_in(file)]
            if not texts:
                document = read(file)
                texts = [render(document)]
                if asked_for.pictures:
                    draw_pictures(document, file, asked_for.pictures)
        tell("\n\n".join(texts) + "\n")
    return 0


def compare(asked_for: argparse.Namespace) -> int:
    if len(asked_for.files) != 2:
        raise Problem("compare takes two files")
    documents = []
    for file in asked_for.files:
        with readable(file):
            documents.append(json.loads(file.read_text()))
            comparison.runs_of(documents[-1])
    with readable(asked_for.files[1]):
        text, rows = comparison.comparison_report(*documents)
    tell(text)
    if not asked_for.fail_if_worse:
        return 0
    before, now = comparison.failed_share(*documents), comparison.failed_share(*reversed(documents))
    reasons = [f"worse: {per_cent(now)} of the requests failed, {per_cent(before)} before"] * (now > before)
    reasons += [why for row in rows if (why := why_not_kept(row))]
    for why in reasons:
        say(f"sweep.py: {why}")
    return 1 if reasons else 0


def why_not_kept(row: Sequence[Any]) -> str:
    """Why a row of a comparison fails --fail-if-worse; empty: it does not."""
    name, figure, *sides, ratio, is_now = row
    if is_now == "worse":
        return f"worse: {name}: {figure} is {ratio} times what it was"
    if once := [side for side, repeats in zip("AB", sides, strict=True) if len(repeats) == 1]:
        return f"cannot tell: {name}: {figure} was measured once in {' and '.join(once)}; use bench.py --repeats 6"
    return ""


def do(asked_for: argparse.Namespace, command: str) -> int:
    """What is asked for; the exit code. Raises Problem."""
    if asked_for.what == "report":
        return report(asked_for)
    if asked_for.what == "compare":
        return compare(asked_for)
    if asked_for.what:
        return run_suite(asked_for, command)
    if asked_for.resume:
        raise Problem("--resume goes with its suite")
    titles = [section(name, f"{suite.title} ({suite.takes})") for name, suite in SUITES.items()]
    tell("\n".join(titles) if asked_for.list else __doc__ or NO_MANUAL)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    with signals.handled():
        try:
            check_folder()
            return do(parse(argv), shlex.join(["sweep.py", *argv]))
        except Problem as problem:
            say(f"sweep.py: {problem}")
            return problem.exit_code
        except (Interrupted, KeyboardInterrupt):
            return signals.exit_code or 130


if __name__ == "__main__":
    sys.exit(main())
