#!/usr/bin/env python3
"""sweep.py - many bench.py runs: one JSON file first, then tables and pictures out of that file.

    python sweep.py io            "Flask Sync vs. Async": six endpoints, 100 requests each, predicted and measured
    python sweep.py ab            "Architecture Flask vs FastAPI": seven servers, 5000 requests at c = 1, 500, 1000
    python sweep.py why           counter-experiments, one queue or four: the prediction first
    python sweep.py books         "Async FastAPI, Measured": a Books API on Postgres, and what its 3.7 x is
    python sweep.py client        what bench.py's own client costs, beside ab, wrk, hey and Locust
    python sweep.py limits        limits that nobody set: published figures, and the setting that each of them is
    python sweep.py size --rate 256 --wait 0.05 --p99 0.1      the size that slots.py gives, proven on real servers
    python sweep.py blog.toml     your own variants, of any app: examples/blog.toml is one
    python sweep.py io --quick    a first look: short task times, one repeat, within 90 s
    python sweep.py --list        the suites with the time that they take

    python sweep.py io --resume logs/20261121-101500-sweep-io.json      go on where it was interrupted
    python sweep.py report FILE [FILE ...]                              the Markdown again, nothing is run
    python sweep.py report FILE --csv runs.csv --pictures logs/         a line a run; SVG and PNG
    python sweep.py report logs/books_stats.csv --slots 16              a run of Locust, the prediction beside it
    python sweep.py compare A.json B.json [--fail-if-worse]             two files of sweep.py, or two of bench.py
    python sweep.py picture RUN.json      one run of bench.py --json: the waterfall of a burst, else every latency

How it works: each repeat runs every variant once, those that are compared next
to each other, in an order shuffled with the printed seed, each on a freshly
started server, with a pause between. Before anything is timed, each app must
answer one request with status 200 and the expected JSON. Each finished run is in
the JSON file at once, so that an interruption, kill -9 included, costs only the
run under way. Tables and pictures are made from that file alone.

How to read it: a figure is the median of the repeats, in brackets the least and
the most. A ratio is the median of the ratios within each repeat. Where the
spreads of the two overlap, it says "too noisy to tell". `report` and `compare`
take the files of bench.py --json, too.

What belongs to one post (its figures, variants, tables, pictures) is its file in
suites/. JSON, pictures, and the logs of runs that failed go under logs/. Pictures
need matplotlib (pip install matplotlib), nothing else does. Exit code: 0 fine, 1
some requests failed (compare: worse), 2 wrong usage or a missing package, 3 a server did not
start, 130 or 143 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import functools
import http.client
import importlib
import json
import os
import platform
import random
import re
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any, cast

import bench
import load
import serve
import slots
from explain import Plan, Run, describe
from load import say, shown
from slots import Problem, plural
from suites import (
    Cell,
    Document,
    Entry,
    Figure,
    Suite,
    ToolRun,
    Variant,
    ab,
    books,
    can_pin,
    client,
    comparison,
    io,
    limits,
    locust,
    look_up,
    own,
    pictures_of_runs,
    size,
    why,
)

SUITES: dict[str, Suite] = {
    "io": io.SUITE,
    "ab": ab.SUITE,
    "why": why.SUITE,
    "books": books.SUITE,
    "client": client.SUITE,
    "limits": limits.SUITE,
}
MADE: dict[str, Callable[[Any], Suite]] = {"size": size.suite, "own": own.suite}  # of what the user asks
COOL_DOWN_S = 0.5  # between two servers: closed sockets and dying workers are gone by then
START_STOP_S = 1.5  # of a server, for the first estimate of the time left

# ---------------------------------------------------------------- the document: order and plans


def order_of(variants: Sequence[Variant], repeats: int, seed: int) -> list[Cell]:
    """Every variant at every concurrency once in each repeat; what is compared stays together; all else is shuffled."""
    shuffle = random.Random(seed).shuffle
    order: list[Cell] = []
    for repeat in range(1, repeats + 1):
        groups: dict[tuple[str, int], list[Cell]] = {}
        for variant in variants:
            for c in variant.concurrency:
                groups.setdefault((variant.group, c), []).append((variant.name, c, repeat))
        names = list(groups)
        shuffle(names)
        for name in names:
            shuffle(groups[name])
            order += groups[name]
    return order


def cell_of(entry: Entry) -> Cell:
    return entry["variant"], entry["concurrency"], entry["repeat"]


def remaining(document: Document) -> list[Cell]:
    done = {cell_of(entry) for entry in document["runs"]}
    return [cell for cell in document["order"] if cell not in done]


def suite_of(document: Document) -> Suite:
    name = document["suite"]
    return MADE[name](document["asked"]) if name in MADE else SUITES[name]


def variant_named(document: Document, name: str) -> Variant:
    return next(variant for variant in suite_of(document).variants if variant.name == name)


def plan_of(document: Document, variant: Variant, concurrency: int, repeat: int = 1) -> tuple[Plan, argparse.Namespace]:
    arguments = variant.arguments.format(c=concurrency, repeat=repeat, **document["values"])
    plan, options = planned(arguments)
    if plan.launch:
        plan = dataclasses.replace(plan, launch=dataclasses.replace(plan.launch, env=plan.launch.env + variant.env))
    return plan, argparse.Namespace(**vars(options))


@functools.cache  # as gunicorn itself is asked what it makes of some options, which takes a moment
def planned(arguments: str) -> tuple[Plan, argparse.Namespace]:
    options = bench.parse_arguments(shlex.split(arguments))
    return bench.make_plans(options)[0], options


def plans_of(document: Document) -> list[Plan]:
    """The plan of every variant at every concurrency, as far as bench.py runs it."""
    cells = dict.fromkeys((name, c) for name, c, _ in document["order"])
    variants = [(variant_named(document, name), c) for name, c in cells]
    return [plan_of(document, variant, c)[0] for variant, c in variants if not variant.program]


def launches_of(plans: Sequence[Plan]) -> list[serve.Launch]:
    return [plan.launch for plan in plans if plan.launch]


def versions_of(document: Document) -> dict[str, str]:
    programs = suite_of(document).programs
    return {
        "Python": platform.python_version(),
        **serve.versions_of(launches_of(plans_of(document))),
        **(programs.versions() if programs else {}),
    }


def new_document(
    name: str, quick: bool, repeats: int | None, seed: int, command: str, scale: str | None = None, asked: Any = None
) -> Document:
    suite = MADE[name](asked) if name in MADE else SUITES[name]
    is_there = suite.programs.is_there if suite.programs else bool
    variants = [variant for variant in suite.variants if not variant.program or is_there(variant.program)]
    document: Document = {
        "suite": name,
        "when": datetime.now().isoformat(" ", "seconds"),
        "command": command,
        "machine": load.about_machine(),
        "versions": {},
        "seed": seed,
        "quick": quick,
        "values": (suite.quick if quick else suite.full) | ({"t": scale} if scale else {}),
        "order": order_of(variants, repeats or (1 if quick else suite.repeats), seed),
        "predictions": {},
        "runs": [],
    }
    if asked is not None:
        document["asked"] = asked
    document["versions"] = versions_of(document)
    for variant in variants:
        if not variant.program:
            plan, _ = plan_of(document, variant, variant.concurrency[0])
            document["predictions"][variant.name] = describe(plan)["predicted_s"]
    return document


def time_left_s(document: Document) -> float:
    """What the missing runs will take: as their variant took before, else as predicted, else as its suite guesses."""
    walls: dict[tuple[str, int], list[float]] = {}
    for entry in document["runs"]:
        walls.setdefault((entry["variant"], entry["concurrency"]), []).append(entry["wall_s"])
    total_s = 0.0
    for name, c, _ in remaining(document):
        expected_s = document["predictions"].get(name)
        if expected_s is None:
            expected_s = suite_of(document).seconds(variant_named(document, name), c, document["values"])
        total_s += statistics.median(walls.get((name, c), [START_STOP_S + expected_s])) + COOL_DOWN_S
    return total_s


def duration(value_s: float) -> str:
    return f"{value_s / 60:.0f} min" if value_s > 90 else f"{value_s:.0f} s"


def render_list() -> str:
    """The suites, and how long each takes."""
    lines = []
    for name, suite in SUITES.items():
        full, quick = (new_document(name, is_quick, None, 0, "") for is_quick in (False, True))
        takes = [f"{plural(len(d['order']), 'run')}, about {duration(time_left_s(d))}" for d in (full, quick)]
        lines.append(load.section(name, suite.title))
        lines.append(load.section("", f"{takes[0]}; --quick: {takes[1]}"))
    return "\n".join(lines)


# ---------------------------------------------------------------- the document: its file

NEEDED = {"when", "command", "machine", "versions", "seed", "quick", "predictions"}
OF_A_RUN = {"measured_s", "throughput_rps", "requests", "failed"}


def read(path: Path) -> Document:
    """Read a sweep's file, or a Problem that says in a line why it is none."""
    try:
        document = json.loads(path.read_text())
        known = {variant.name for variant in suite_of(document).variants}
        order = [(name, c, repeat) for name, c, repeat in document["order"]]
        cells = [cell_of(entry) for entry in document["runs"]]
        complete = document.keys() >= NEEDED and all(entry["run"].keys() >= OF_A_RUN for entry in document["runs"])
        fits = known >= {name for name, _, _ in order} and set(order) >= set(cells) and len(cells) == len(set(cells))
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Problem(f"{path} is not a file of sweep.py, nor of bench.py") from None
    if not (order and complete and fits):
        raise Problem(f"{path} does not fit suite {document['suite']} of this sweep.py")
    return cast(Document, document | {"order": order})


@contextlib.contextmanager
def readable(path: Path, what: str) -> Iterator[None]:
    """A file may have all that read() asks for and still lack, deeper down, what its report needs: one line says so."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, StopIteration, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise Problem(f"{path} is not {what}, or was changed by hand: {type(error).__name__} {said}") from None


def save(document: Document, path: Path) -> None:
    """Replace the file in one step: whoever is killed in between leaves the one before it."""
    temporary = path.with_name(path.name + ".part")
    text = json.dumps({**document, "runs": []}, indent=1)
    runs = ",\n".join(json.dumps(entry) for entry in document["runs"])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text.replace('"runs": []', f'"runs": [\n{runs}\n]') + "\n")
        os.replace(temporary, path)
    except OSError as error:
        raise Problem(f"cannot write {path}: {error.strerror}") from None


# ---------------------------------------------------------------- run

BULKY = ("exchanges", "per_second", "histogram", "phases_s", "access_log", "server_log")


def slim(run: Run) -> Run:
    """The run without raw columns, but with what the pictures need: when the answers of a burst came, sorted."""
    kept = {key: value for key, value in run.items() if key not in BULKY or (run["failed"] and key.endswith("_log"))}
    if "exchanges" in run:
        kept["answered_s"] = sorted(round(at_s, 4) for at_s in run["exchanges"]["answered_s"] if at_s is not None)
    return cast(Run, kept)


@contextlib.contextmanager
def pinned(cpus: set[int]) -> Iterator[None]:
    """Keep this process on the CPUs that a variant asks for, while it runs."""
    if not cpus:
        yield
        return
    before = os.sched_getaffinity(0)
    serve.pin(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def run_target(
    document: Document, variant: Variant, concurrency: int, logs: Path, database: serve.Database | None, repeat: int = 1
) -> Run:
    """One run of bench.py; its logs stay only if requests failed."""
    plan, options = plan_of(document, variant, concurrency, repeat)
    options.logs, before = logs, set(logs.glob("*.log"))
    with pinned(options.client_cpus):
        run, _ = bench.execute(plan, options, database)
    if not run["failed"]:
        for log in set(logs.glob("*.log")) - before:
            log.unlink()
    return slim(run)


def check_contract(
    plan: Plan, bodies: dict[str, dict[str, object]], logs: Path, database: serve.Database | None
) -> None:
    """One request to the app: status 200 and the expected JSON, or a Problem. A wrong answer's figures mean nothing.

    Of an app whose answer nobody knows, somebody's own: any status from 200 to 299.
    """
    assert plan.launch
    launch, path, expected = plan.launch, plan.traffic.path, bodies.get(plan.traffic.path)
    if launch.is_target:
        settings = {name: 1 if name == "workers" else n for name, n in launch.settings}
        environment = (("TASK_TIME", "0.01"), ("SUBTASKS", "2"))
        launch = dataclasses.replace(launch, workers=1, settings=tuple(settings.items()), env=environment)
    access_log, output = serve.new_log_files(logs, f"contract {plan.target}{path}", datetime.now())
    url = database.about["database_url"] if database else ""
    server = serve.start_server(launch, access_log, output, set(), url)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=plan.traffic.timeout_s)
        headers = dict(header.split(": ", 1) for header in plan.traffic.headers)
        connection.request(plan.traffic.method, path, plan.traffic.body or None, headers)
        answer = connection.getresponse()
        status, body = answer.status, answer.read()
        connection.close()
    except (OSError, http.client.HTTPException) as error:
        raise Problem(f"{plan.target} {path}: no answer to a first request: {error}", 1) from None
    finally:
        serve.stop_server(server)
    with contextlib.suppress(ValueError):
        good = 200 <= status < 300 if expected is None else expected.items() <= json.loads(body).items()
        if good and (status == 200 or expected is None):
            access_log.unlink()
            output.unlink()
            return
    raise Problem(f"{plan.target} {path} answered {status} {body[:80]!r}, not 200 {expected or ''}".rstrip(), 1)


def run_cell(document: Document, cell: Cell, logs: Path, database: serve.Database | None) -> Entry:
    name, c, repeat = cell
    variant, programs = variant_named(document, name), suite_of(document).programs
    begun_s = time.perf_counter()
    run: Run | ToolRun
    if variant.program and programs:
        run = programs.run(document, variant, c, logs)
    else:
        run = run_target(document, variant, c, logs, database, repeat)
    wall_s = round(time.perf_counter() - begun_s, 2)
    return {"variant": name, "concurrency": c, "repeat": repeat, "wall_s": wall_s, "run": run}


def sweep(document: Document, path: Path) -> None:
    """Do what remains of the document's order; after each run the file is complete."""
    logs, todo, plans = path.with_suffix(""), remaining(document), plans_of(document)
    launches = launches_of(plans)
    serve.check_packages(launches)
    for plan in plans:
        load.check_file_limit(plan.traffic.pace)
    save(document, path)
    say(f"seed {document['seed']}; each finished run is in {shown(path)}")
    apps = {(plan.launch.server, plan.launch.app, plan.traffic.path): plan for plan in plans if plan.launch and todo}
    if apps:
        say(f"first one request to each of {len(apps)} apps: status and body")
    # One Postgres for the whole sweep where the suite needs one; bench.execute() puts its rows back before each run.
    with serve.database_for(launches, None, logs, {1} if can_pin() else set()) as database:
        for plan in apps.values():
            check_contract(plan, suite_of(document).bodies, logs, database)
        for cell in todo:
            name, c, repeat = cell
            number = f"[{len(document['runs']) + 1}/{len(document['order'])}]"
            left = duration(time_left_s(document))
            say(f"{number} {name}{f', c = {c}' if c else ''}, repeat {repeat}; about {left} left")
            time.sleep(COOL_DOWN_S)
            entry = run_cell(document, cell, logs, database)
            if not load.signals.received:  # else it was cut short
                document["runs"].append(entry)
                save(document, path)
            load.signals.is_held = False
            if load.signals.received:
                raise load.Interrupted
    with contextlib.suppress(OSError):
        for log in logs.glob("*.postgres.log"):
            if not log.stat().st_size:
                log.unlink()
        logs.rmdir()  # empty unless a run failed


# ---------------------------------------------------------------- report


def render(document: Document) -> str:
    """The whole report, as Markdown."""
    suite, done = suite_of(document), len(document["runs"])
    repeats = max(repeat for _, _, repeat in document["order"])
    found = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    failed = [entry for entry in document["runs"] if entry["run"]["failed"]]
    notes = [
        f"`{document['command']}`, {document['when']}, seed {document['seed']};"
        f" {load.render_machine(document['machine'])}; {found}.",
        f"{suite.source} {plural(repeats, 'repeat')}: ".lstrip()
        + ("no spread is known." if repeats == 1 else "median (least-most)."),
    ]
    if document["quick"]:
        changed = {name: value for name, value in document["values"].items() if value != suite.full.get(name, value)}
        values = ", ".join(f"{name} = {value} instead of {suite.full[name]}" for name, value in changed.items())
        notes.append(f"**A quick look** (--quick): {values}. Not for quoting: only ratios can be compared.")
    elif suite.has_scale and document["values"] != suite.full:
        notes.append(f"Stages shortened: --scale {document['values']['t']}.")
    if done < len(document["order"]):
        notes.append(f"**Unfinished**: {done} of {len(document['order'])} runs.")
    if failed:
        notes.append("**Failed requests** in: " + ", ".join(
            f"{entry['variant']} (c = {entry['concurrency']}, repeat {entry['repeat']}: {entry['run']['failed']})"
            for entry in failed) + ".")  # fmt: skip
    headline = [" ".join(suite.headline(document))] if document["runs"] else []
    title = f"## Suite {document['suite']}: {suite.title}"
    return "\n\n".join([title, *filter(None, headline), *notes, suite.tables(document)])


CSV_COLUMNS = (
    "requests", "predicted_s", "split_predicted_s", "measured_s", "throughput_rps", "latency_s.median", "latency_s.p99",
    "latency_s.max", "failed", "kernel.ListenOverflows", "kernel.TCPSynRetrans", "client_cpu_s", "server_cpu_s",
)  # fmt: skip


def render_csv(documents: Sequence[Document]) -> str:
    """A line a run, in the order in which they ran."""
    out = StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["suite", "variant", "concurrency", "repeat", *CSV_COLUMNS, "requests_of_workers"])
    for document in documents:
        for entry in document["runs"]:
            shares = cast("dict[str, int]", entry["run"].get("requests_of_workers", {}))
            cells = ["" if (value := look_up(entry["run"], key)) is None else value for key in CSV_COLUMNS]
            rows.writerow([document["suite"], *cell_of(entry), *cells, "+".join(map(str, shares.values()))])
    return out.getvalue()


# ---------------------------------------------------------------- pictures

STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "sweep.py",  # the same data make the same file
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
}


def matplotlib_or_problem() -> Any:
    """The optional package, found at run time only: everything but the pictures works without it."""
    try:
        importlib.import_module("matplotlib.figure")
        return importlib.import_module("matplotlib")
    except ImportError:
        raise Problem(
            f"pictures need matplotlib; install it with: {sys.executable} -m pip install matplotlib"
        ) from None


def draw(height_in: float, how: Callable[[Figure], None], stem: Path) -> None:
    """Write one picture as SVG and as PNG, 7 inches wide: 700 pixels at blog size, 1400 in the PNG."""
    matplotlib = matplotlib_or_problem()
    svg, png = (stem.with_name(f"{stem.name}.{kind}") for kind in ("svg", "png"))
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=(7, height_in), layout="constrained")
        how(figure)
        try:
            stem.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(svg, dpi=200, metadata={"Date": None})
            figure.savefig(png, dpi=200)
        except OSError as error:
            raise Problem(f"cannot write {error.filename}: {error.strerror}") from None
    for file in (svg, png):
        say(f"picture {shown(file)}")


def draw_all(document: Document, path: Path, directory: Path) -> None:
    for picture in suite_of(document).pictures:
        draw(picture.height_in, functools.partial(picture.draw, document), directory / f"{path.stem}-{picture.name}")


def draw_runs(path: Path, directory: Path) -> None:
    """A picture of each run in a document of bench.py --json."""
    wrong = Problem(f"{path} holds no run of bench.py --json with its raw times (of a burst, with its access log too)")
    try:
        runs = json.loads(path.read_text())["runs"]
        pictures = [(run, found) for run in runs if (found := pictures_of_runs.picture_of(run))]
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise wrong from None
    if not pictures:
        raise wrong
    for run, (kind, height_in, how) in pictures:
        name = re.sub(r"[^A-Za-z0-9]+", "-", f"{run['target']}{run['path']}").strip("-")
        with readable(path, "a file of bench.py --json"):
            draw(height_in, functools.partial(how, run), directory / f"{path.stem}-{name}-{kind}")


# ---------------------------------------------------------------- main


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = load.Parser(
        prog="sweep.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--list", action="store_true", help="name the suites and the time that they take")
    commands = parser.add_subparsers(dest="what", metavar="SUITE|FILE.toml|report|compare|picture")
    logs = serve.HERE / "logs"
    for name in (*SUITES, *MADE):
        suite = SUITES.get(name)
        add = commands.add_parser(name, help=suite.title if suite else MADES[name], allow_abbrev=False).add_argument
        if name == "own":
            add("file", type=Path, metavar="FILE", help="a TOML or JSON file of variants")
        else:
            add("--quick", action="store_true", help="short task times, one repeat")
        if name == "size":
            add_size_options(add)
        add("--repeats", type=slots.number(int, 1, 100), metavar="N", help="of each variant (quick: 1)")
        if suite and suite.has_scale:
            scale = load.pattern(r"0?\.\d+|[1-9]\d*(\.\d+)?", "a positive number")
            quick = f"make the stages X as long ({suite.full['t']}; quick: {suite.quick['t']})"
            add("--scale", type=scale, metavar="X", help=quick)
        add("--seed", type=slots.number(int, 0, 2**31), metavar="N", help="of the order (default: drawn, and printed)")
        add("--resume", type=Path, metavar="FILE", help="go on with an interrupted sweep, as it was begun")
        add("--logs", type=Path, default=logs, metavar="DIR", help="where everything goes (logs/)")
    add = commands.add_parser("report", help="tables and pictures of sweeps' files", allow_abbrev=False).add_argument
    add("files", type=Path, nargs="+", metavar="FILE")
    add("--csv", type=Path, metavar="FILE", help="write a line a run")
    add("--pictures", type=Path, metavar="DIR", help="write SVG and PNG there")
    add("--slots", type=slots.number(int, 1, 100_000), metavar="S", help="of a Locust run: all slots of the server")
    add(
        "--wait", type=slots.number(float, 1e-4, 3600), metavar="T", help="... what a request waits, if not known, in s"
    )
    add("--access-log", type=Path, metavar="FILE", help="... the server's, to count its requests")
    add = commands.add_parser("picture", help="of a run of bench.py --json", allow_abbrev=False).add_argument
    add("file", type=Path, metavar="RUN.json")
    add("--pictures", type=Path, default=logs, metavar="DIR", help="write SVG and PNG there (logs/)")
    add = commands.add_parser("compare", help="two files, run by run", allow_abbrev=False).add_argument
    add("files", type=Path, nargs=2, metavar="FILE")
    add("--fail-if-worse", action="store_true", help="exit code 1 if B is worse, beyond all spread")
    of_variants = argv and argv[0].endswith((".toml", ".json"))
    options = parser.parse_args(["own", *argv] if of_variants else argv)
    if not options.what and not options.list:
        parser.error("say which suite, report, compare or picture; --list names the suites")
    return options


MADES = {"size": "the size that slots.py gives, proven", "own": "your own variants; or: sweep.py FILE.toml"}


def add_size_options(add: Callable[..., object]) -> None:
    time_s = slots.number(float, 0.001, 3600)
    add("--rate", type=slots.number(float, 0.01, 1e5), metavar="R", help="requests/s at random")
    add("--wait", type=time_s, metavar="S", help="what a request waits")
    for percentile in size.KEYS:
        add(f"--p{percentile}", type=time_s, metavar="S", help="the objective: one of them")
    add("--cpu", type=slots.number(float, 0, 60), default=0.0, metavar="S", help="what a request computes (0)")


def asked_of(options: argparse.Namespace) -> size.Asked | own.Asked | None:
    """What the suite is to be made of. Raises Problem."""
    if options.what == "own":
        return own.read(options.file)
    if options.what != "size":
        return None
    objectives = [(p, value) for p in size.KEYS if (value := getattr(options, f"p{p}")) is not None]
    if not options.rate or not options.wait or len(objectives) != 1:
        raise Problem("size needs --rate, --wait and one of --p99, --p95, --p50")
    ((percentile, objective_s),) = objectives
    return {"rate": options.rate, "wait_s": options.wait, "objective_s": objective_s, "percentile": percentile,
            "cpu_s": options.cpu}  # fmt: skip


def begin(options: argparse.Namespace, command: str) -> tuple[Document, Path]:
    """A new document and where it goes, or the one to go on with."""
    quick = getattr(options, "quick", False)
    if not options.resume:
        seed = random.randrange(10_000) if options.seed is None else options.seed
        scale, asked = getattr(options, "scale", None), asked_of(options)
        document = new_document(options.what, quick, options.repeats, seed, command, scale, asked)
        name = re.sub(r"[^A-Za-z0-9]+", "-", options.file.stem) if options.what == "own" else options.what
        return document, options.logs / f"{datetime.now():%Y%m%d-%H%M%S}-sweep-{name}.json"
    if quick or options.repeats or options.seed is not None:
        raise Problem("--resume goes on as the sweep was begun: without --quick, --repeats and --seed")
    document = read(options.resume)
    if document["suite"] != options.what:
        raise Problem(f"{options.resume} is of suite {document['suite']}, not {options.what}")
    if options.what == "own" and document["asked"] != own.read(options.file):
        raise Problem(f"{options.file.name} is another than {options.resume} was begun with; begin a new sweep")
    is_here = document["machine"].items() <= load.about_machine().items()
    if not is_here or document["versions"] != versions_of(document):
        raise Problem(f"{options.resume} is from another machine or other versions; begin a new sweep")
    return document, options.resume


def run_suite(options: argparse.Namespace, command: str) -> int:
    document, path = begin(options, command)
    file = f" {shlex.quote(shown(options.file))}" if options.what == "own" else f" {options.what}"
    resume = f"python sweep.py{file} --resume {shlex.quote(shown(path))}"
    for line in suite_of(document).foretell(document):
        say(line)
    try:
        sweep(document, path)
    except (load.Interrupted, KeyboardInterrupt):
        say(f"sweep.py: interrupted; nothing is left running; go on with: {resume}")
        return load.signals.exit_code or 130
    except bench.PROBLEMS as problem:
        raise Problem(f"{problem}; go on with: {resume}" if path.exists() else str(problem),
                      problem.exit_code) from None  # fmt: skip
    load.tell(render(document))
    try:
        draw_all(document, path, path.parent)
    except Problem as problem:
        say(f"sweep.py: {problem}")
    return 1 if any(entry["run"]["failed"] for entry in document["runs"]) else 0


def report(options: argparse.Namespace) -> int:
    documents, texts, of_locust = list[Document](), list[str](), [locust.files_in(file) for file in options.files]
    check_report(options, sum(map(len, of_locust)))
    for file, runs in zip(options.files, of_locust, strict=True):
        if runs:
            texts += [render_locust(run, options) for run in runs]
            continue
        found = comparison.bench_document(file)
        with readable(file, "a file of this sweep.py, or of this bench.py"):
            documents.append(comparison.as_sweep(found) if found else read(file))
            texts.append(comparison.render_bench(found, file.name) if found else render(documents[-1]))
            render_csv(documents[-1:])
    load.tell("\n\n".join(texts))
    if options.csv:
        try:
            options.csv.write_text(render_csv(documents))
        except OSError as error:
            raise Problem(f"cannot write {options.csv}: {error.strerror}") from None
    if options.pictures:
        files = [file for file, runs in zip(options.files, of_locust, strict=True) if not runs]
        for document, file in zip(documents, files, strict=True):
            with readable(file, "a file of this sweep.py"):
                if document["suite"] == comparison.BENCH:
                    draw_runs(file, options.pictures)
                else:
                    draw_all(document, file, options.pictures)
    return 0


def check_report(options: argparse.Namespace, runs_of_locust: int) -> None:
    if (options.slots or options.wait or options.access_log) and not runs_of_locust:
        raise Problem("--slots, --wait and --access-log go with the _stats.csv of a Locust run")
    if options.access_log and runs_of_locust > 1:
        raise Problem(f"--access-log is of one run of Locust; here are {runs_of_locust}")


def render_locust(file: Path, options: argparse.Namespace) -> str:
    try:
        text = options.access_log and options.access_log.read_text(errors="replace")
    except OSError as error:
        raise Problem(f"cannot read {options.access_log}: {error.strerror}") from None
    log = None if text is None else serve.parse_access_log(text)
    with readable(file, "of `locust --csv`, with what is beside it,"):
        return locust.render(locust.read(file), options.slots, options.wait, log)


def compare(options: argparse.Namespace) -> int:
    a, b = map(comparison.read, options.files)
    with readable(options.files[0], "like the other"):
        lines = comparison.compared(a, b)
        load.tell(comparison.render(a, b, lines))
        worse = comparison.worse(lines) if options.fail_if_worse else []
    for line in worse:
        say(f"sweep.py: worse: {line}")
    return 1 if worse else 0


def run(argv: Sequence[str]) -> int:
    options = parse_arguments(argv)
    if options.list:
        load.tell(render_list())
        return 0
    if options.what == "report":
        return report(options)
    if options.what == "compare":
        return compare(options)
    if options.what == "picture":
        draw_runs(options.file, options.pictures)
        return 0
    command = shlex.join(["sweep.py", *argv])
    options.logs, options.resume = options.logs.resolve(), options.resume and options.resume.resolve()
    if options.what != "own":
        return run_suite(options, command)
    options.file = options.file.resolve()
    with own.working_in(options.file.parent):  # where its apps are
        return run_suite(options, command)


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    with load.signals.handled():
        try:
            if argv:
                return run(argv)
            load.tell(__doc__)
            return 0
        except bench.PROBLEMS as problem:
            say(f"sweep.py: {problem}")
            return problem.exit_code
        except (load.Interrupted, KeyboardInterrupt):
            return load.signals.exit_code or 130


if __name__ == "__main__":
    sys.exit(main())
