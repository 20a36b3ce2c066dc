#!/usr/bin/env python3
"""sweep.py - many bench.py runs: one JSON file first, then tables and pictures out of that file.

    python sweep.py io            "Flask Sync vs. Async": six endpoints, 100 requests each, predicted and measured
    python sweep.py ab            "Architecture Flask vs FastAPI": seven servers, 5000 requests at c = 1, 500, 1000
    python sweep.py why           counter-experiments: one changed setting each, the prediction first
    python sweep.py books         "Async FastAPI, Measured": a Books API on Postgres, and what its 3.7 x is
    python sweep.py client        what bench.py's own client costs, beside ab, wrk, hey and Locust
    python sweep.py io --quick    a first look: short task times, one repeat, within 90 s

    python sweep.py io --resume logs/20261121-101500-sweep-io.json      go on where it was interrupted
    python sweep.py report FILE                                         the Markdown again, nothing is run
    python sweep.py report FILE --csv runs.csv --pictures logs/         a line a run; SVG and PNG
    python sweep.py picture logs/example/run.json                       the waterfall of one run of bench.py --json

How it works: each repeat runs every variant once, those that are compared next
to each other, in an order shuffled with the printed seed, each on a freshly
started server, with a pause between. Before anything is timed, each app must
answer one request with status 200 and the expected JSON. Each finished run is in
the JSON file at once, so that an interruption, kill -9 included, costs only the
run under way. Tables and pictures are made from that file alone.

How to read it: a figure is the median of the repeats, in brackets the least and
the most. A ratio is the median of the ratios within each repeat. Where the
spreads of the two overlap, it says "too noisy to tell".

JSON, pictures, and the logs of runs that failed go under logs/. Pictures need
matplotlib (pip install matplotlib), nothing else does. Exit code: 0 fine, 1 some
requests failed, 2 wrong usage or a missing package, 3 a server did not start.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import functools
import http.client
import importlib
import io
import json
import os
import random
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import bench

Document = dict[str, Any]  # what the JSON file holds, see new_document()
Run = dict[str, Any]  # what bench.execute() returns, without the raw columns

# ---------------------------------------------------------------- suites

COOL_DOWN_S = 0.5  # between two servers: closed sockets and dying workers are gone by then
START_STOP_S = 1.5  # of a server, for the first estimate of the time left


class Published(NamedTuple):
    """What a post states about a variant; concurrency 0 is a burst."""

    concurrency: int
    rps: float
    latency_ms: str = ""  # p50 / p99 / max


class Variant(NamedTuple):
    name: str
    arguments: str  # of bench.py (suite client: of the tool); {n} {c} {t} are filled in
    group: str = ""  # variants of one group are compared, so they run next to each other
    concurrency: tuple[int, ...] = (0,)
    published: tuple[Published, ...] = ()


class Suite(NamedTuple):
    title: str
    source: str
    variants: tuple[Variant, ...]
    full: dict[str, str]  # what {n} and {t} stand for
    quick: dict[str, str]
    repeats: int = 3


def can_pin() -> bool:
    """Whether the server can have CPU 0 and the client CPU 1, each for itself."""
    return hasattr(os, "sched_getaffinity") and {0, 1} <= os.sched_getaffinity(0)


POST_A = '"Flask Sync vs. Async" (belinhacbr, 2024)'
POST_B = '"Architecture Flask vs FastAPI" (Stack Overflow)'

IO = Suite(
    "six endpoints with 4 workers each, a burst of 100 requests",
    f"Published: {POST_A}, with a task of 1 s.",
    tuple(
        Variant(f"{framework} {path}", f"--target {target} --path {path} -n {{n}} --task-time {{t}} --warmup 8",
                published=(Published(0, rps),))
        for framework, target, figures in (
            ("Flask", "flask-gunicorn", (4.0, 4.0, 8.3)),
            ("FastAPI", "fastapi-uvicorn-workers", (48.3, 93.5, 175.4)),
        )
        for path, rps in zip(("/io", "/async-io", "/async-io-multi"), figures, strict=True)
    ),
    {"n": "100", "t": "1"}, {"n": "100", "t": "0.2"},
)  # fmt: skip
IO_RATIOS = (  # of requests/s or of time; what the post says of it
    ("Flask /async-io", "Flask /io", "throughput_rps", "no gain"),
    ("Flask /async-io-multi", "Flask /io", "throughput_rps", "twice"),
    ("FastAPI /async-io", "FastAPI /io", "throughput_rps", "almost twice"),
    ("FastAPI /io", "Flask /io", "measured_s", "under 10 % of the time"),
)

AB_BASE = {1: "Flask, development server", 500: "Flask, development server", 1000: "Flask, waitress"}  # as published
AB_PUBLISHED = {
    "Flask, development server": (Published(1, 5000 / 5.541), Published(500, 179.68, "136 / 27765 / 27819")),
    "Flask, waitress": (Published(1000, 1469.47, "660 / 750 / 754"),),
    "FastAPI, uvicorn": (Published(1, 5000 / 2.681), Published(500, 3200.62, "150 / 199 / 203")),
    "FastAPI, uvicorn, 4 workers": (Published(1000, 4359.68, "184 / 514 / 533"),),
    "FastAPI, gunicorn, 4 uvicorn workers": (
        Published(1, 5000 / 1.615), Published(500, 8665.48, "53 / 116 / 127"),
        Published(1000, 7891.28, "116 / 230 / 243"),
    ),
}  # fmt: skip
AB = Suite(
    "one line of JSON, ApacheBench's way: a new connection for each request",
    f"Published: {POST_B}, 5000 requests. Ratios are of requests/s, to the server that was published at that c.",
    (
        *(
            Variant(name, f"--target {target} -n {{n}} -c {{c}} --warmup 200 --timeout 100", "hello", (1, 500, 1000),
                    AB_PUBLISHED.get(name, ()))
            for name, target in (
                ("Flask, development server", "flask-hello-dev"),
                ("Flask, waitress", "flask-hello-waitress"),
                ("Flask, gunicorn, 4 sync workers", "flask-hello-gunicorn"),
                ("FastAPI, uvicorn", "fastapi-hello-uvicorn"),
                ("FastAPI, uvicorn, 4 workers", "fastapi-hello-uvicorn-workers"),
                ("FastAPI, gunicorn, 4 uvicorn workers", "fastapi-hello-gunicorn"),
                ("FastAPI, gunicorn, 4 asgi workers", "fastapi-hello-gunicorn-asgi"),
            )
        ),
        Variant("time.sleep in async def", "--target fastapi-blocking -n 6 --task-time {t} --warmup 1", "sleep"),
        Variant("await asyncio.sleep", "--target fastapi-fixed -n 6 --task-time {t} --warmup 1", "sleep"),
    ),
    {"n": "5000", "t": "1"}, {"n": "1000", "t": "0.2"},
)  # fmt: skip


class Experiment(NamedTuple):
    """One changed setting. expects: how a repeat is judged, see as_predicted()."""

    name: str
    believed: str
    changed: str
    before: str
    after: str
    predicts: str  # {before} and {after}: what the slots give with an even split, in seconds
    expects: str
    explains: str


EXPERIMENTS = (
    Experiment(
        "AnyIO's limit",
        f"`async def` makes FastAPI twice as fast as `def`, as in {POST_A}",
        "AnyIO's limit of threads for `def` handlers, 40 -> 100",
        "--target fastapi-uvicorn-workers --path /io -n 100 --task-time {t} --warmup 8",
        "--target fastapi-threads --path /io -n 100 --task-time {t} --warmup 8",
        "more than {before:g} s, as some worker takes more than 40 -> {after:g} s",
        "split",
        "the second round is the limit of 40 threads met by an uneven split, not the price of `def`",
    ),
    Experiment(
        "gthread's accept",
        "4 workers with 4 threads each serve 16 requests at a time, whatever arrives",
        "gunicorn's --worker-connections, 1000 -> 4",
        "--target flask-gunicorn-threads --path /io -n 64 --task-time {t} --warmup 8",
        "--target flask-gunicorn-threads --path /io -n 64 --task-time {t} --warmup 8"
        " --server-args='--worker-connections 4'",
        "more than {before:g} s, as some worker takes more than 16 -> {after:g} s",
        "split",
        "a worker accepts connections that it has no thread for, and they wait there while others have threads free",
    ),
    Experiment(
        "listen backlog",
        f"Flask itself is slow for 1 % of the requests, as in {POST_B}, p50 136 ms and p99 27.8 s",
        "the development server's listen backlog, 128 -> 4096",
        "--target flask-hello-dev -n {n} -c 500 --warmup 200 --timeout 100",
        "--target flask-hello-dev-backlog -n {n} -c 500 --warmup 200 --timeout 100",
        "overflows of the listen queue -> none, and p99 less than half",
        "tail",
        "the tail is TCP trying again after about 1, 3 and 7 s because the listen queue was full",
    ),
    Experiment(
        "workers",
        "a sync framework is slow at concurrent I/O",
        "gunicorn's --workers, 1 -> 8",
        "--target flask-gunicorn --path /io -n 16 --workers 1 --task-time {t}",
        "--target flask-gunicorn --path /io -n 16 --workers 8 --task-time {t}",
        "{before:g} s -> {after:g} s",
        "slots",
        "the time is ceil(n / slots) x t, and a sync worker is one slot",
    ),
    Experiment(
        "subtasks",
        "`async def` makes a Flask view faster",
        "the subtasks that the same `async def` view awaits together, 1 -> 8",
        "--target flask-gunicorn --path /async-io-multi -n 16 --subtasks 1 --task-time {t} --warmup 8",
        "--target flask-gunicorn --path /async-io-multi -n 16 --subtasks 8 --task-time {t} --warmup 8",
        "{before:g} s -> {after:g} s",
        "slots",
        "only awaiting several things within one request gains time; the view holds its worker either way",
    ),
    Experiment(
        "threads, not async",
        "only an event loop can wait for 100 requests at the same time",
        "FastAPI's `async def` on one uvicorn -> Flask's `def` on one gunicorn worker with 100 threads",
        "--target fastapi-uvicorn --path /async-io -n 100 --task-time {t} --warmup 8",
        "--target flask-gunicorn-threads --path /io -n 100 --workers 1 --threads 100 --task-time {t} --warmup 8",
        "{before:g} s -> {after:g} s, no change",
        "slots",
        "100 slots are 100 slots, whether they are threads or coroutines",
    ),
    Experiment(
        "the same 40 slots",
        "FastAPI serves the same blocking `def` handler faster than Flask",
        "FastAPI with AnyIO's 40 threads -> Flask on one gunicorn worker with 40 threads",
        "--target fastapi-uvicorn --path /io -n 80 --task-time {t} --warmup 8",
        "--target flask-gunicorn-threads --path /io -n 80 --workers 1 --threads 40 --task-time {t} --warmup 8",
        "{before:g} s -> {after:g} s, no change",
        "slots",
        "the framework does not matter to a wait: the same slots take the same time",
    ),
)
WHY = Suite(
    "counter-experiments: if the explanation is right, changing only that setting must move the figure",
    "Each was predicted from the slots before it was run.",
    tuple(
        Variant(f"{experiment.name}, {when}", arguments, experiment.name)
        for experiment in EXPERIMENTS
        for when, arguments in (("before", experiment.before), ("after", experiment.after))
    ),
    {"n": "5000", "t": "1"}, {"n": "2000", "t": "0.2"},
)  # fmt: skip


class Tool(NamedTuple):
    """A load generator: its command line, what it takes to keep connections or not, and its output, a regex each."""

    command: str
    kept: str
    new: str
    rps: str
    requests: str
    failed: str


TOOLS = {
    "ab": Tool("ab -q -t {t} -n 1000000 -c {c} {kind} {url}", "-k", "", r"Requests per second: +([\d.]+)",
               r"Complete requests: +(\d+)", r"(?:Failed requests|Non-2xx responses): +(\d+)"),
    "bench.py": Tool("{python} {bench} --url {url} -t {t} -c {c} {kind} --json {json}", "-k", "", "", "", ""),
    "wrk": Tool("wrk -t1 -d {t}s -c {c} {kind} {url}", "", "-H 'Connection: close'", r"Requests/sec: +([\d.]+)",
                r"(\d+) requests in", r"(?:Non-2xx or 3xx responses: |connect |read |write |timeout )(\d+)"),
    "hey": Tool("hey -z {t}s -c {c} {kind} {url}", "", "-disable-keepalive", r"Requests/sec:\s+([\d.]+)",
                r"\[200\]\s+(\d+) responses", r"\[[1345]\d\d\]\s+(\d+) responses|\[(\d+)\]\s+Get "),
    "locust": Tool("locust -f {locustfile} --headless --only-summary -u {c} -r {c} -t {t}s --host {host} {kind}",
                   "--tags kept", "--tags new",
                   r"Aggregated.*?\|.*?\| +([\d.]+)", r"Aggregated +(\d+)", r"Aggregated +\d+ +(\d+)\("),
}  # fmt: skip
CLIENT = Suite(
    "what the load generators themselves cost",
    "CPU a request: of the whole process, its start included; of bench.py while it sends, as its own JSON says.",
    tuple(Variant(f"{name}, {kind}", name, kind, (50, 500)) for kind in ("kept", "new") for name in TOOLS),
    {"t": "3"}, {"t": "1"},
    repeats=5,
)  # fmt: skip

POST_C = '"Async FastAPI, Measured" (bilouro, 2026)'
FLASK_60 = "--workers 4 --threads 15 --pool-size 15"
# Postgres and the client share one CPU, the app has the other: the same budget for both frameworks.
PINNED = "--server-cpus 0 --client-cpus 1 --scale {t} --warmup 200" if can_pin() else "--scale {t} --warmup 200"


class BooksPublished(NamedTuple):
    rps: float
    p50_ms: float
    p95_ms: float


BOOKS_PUBLISHED = {
    "read, Flask": BooksPublished(1476, 276, 789),
    "read, FastAPI": BooksPublished(1692, 165, 938),
    "mixed, Flask": BooksPublished(1326, 232, 422),
    "mixed, FastAPI": BooksPublished(1413, 171, 593),
    "fanout, Flask": BooksPublished(265, 905, 2615),
    "fanout, FastAPI": BooksPublished(992, 226, 733),
}
BOOKS_EQUAL = {  # the fan-out again, with other slots; what is said of it
    "fanout, Flask": "4 workers x 4 threads, pool 4 (as published)",
    "fanout, FastAPI": "4 workers, pool 15 (as published)",
    "fanout, FastAPI with 16": "4 workers, pool 4",
    "fanout, Flask with 60": "4 workers x 15 threads, pool 15",
    "fanout, Flask, one process": "1 worker x 60 threads, pool 60",
    "fanout, FastAPI, one process": "1 worker, pool 60",
}
BOOKS_RATIOS = (
    ("fanout, FastAPI", "fanout, Flask", "as published: 60 slots to 16"),
    ("fanout, FastAPI with 16", "fanout, Flask", "16 slots each"),
    ("fanout, FastAPI", "fanout, Flask with 60", "60 slots each"),
    ("fanout, FastAPI, one process", "fanout, Flask, one process", "60 slots each, in one process"),
)
BOOKS = Suite(
    "a Books API on Postgres, with k6's ramps of virtual users",
    f"Published: {POST_C}; its Flask figure of `mixed` counts each redirected POST twice.",
    tuple(
        Variant(name, f"--target {target} {settings} --workload {name.split(',')[0]} {PINNED}", name.split(",")[0])
        for name, target, settings in (
            ("read, Flask", "flask-books", ""),
            ("read, FastAPI", "fastapi-books", ""),
            ("mixed, Flask", "flask-books", ""),
            ("mixed, FastAPI", "fastapi-books", ""),
            ("fanout, Flask", "flask-books", ""),
            ("fanout, FastAPI", "fastapi-books", ""),
            ("fanout, FastAPI with 16", "fastapi-books", "--pool-size 4"),
            ("fanout, Flask with 60", "flask-books", FLASK_60),
            ("fanout, Flask, one process", "flask-books", "--workers 1 --threads 60 --pool-size 60"),
            ("fanout, FastAPI, one process", "fastapi-books", "--workers 1 --pool-size 60"),
        )
    ),
    {"t": "1"}, {"t": "0.02"},
)  # fmt: skip

SUITES = {"io": IO, "ab": AB, "why": WHY, "books": BOOKS, "client": CLIENT}
BODIES: dict[str, dict[str, Any]] = {  # what an app must answer, by path, before it is timed
    "/": {"message": "hello"},
    "/io": {"task_time": 0.01},
    "/async-io": {"task_time": 0.01},
    "/async-io-multi": {"task_time": 0.01, "subtasks": 2},
    "/sleep": {"task_time": 0.01},
    "/v1/sleep?ms=50": {"slept_ms": 50},
    "/v1/books/1": {"id": 1, "title": "Book 1", "author": "Author 1", "year": 1901, "isbn": "seed-00000001"},
}


# ---------------------------------------------------------------- the document

Cell = tuple[str, int, int]  # variant, concurrency, repeat: one run


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


def cell_of(entry: dict[str, Any]) -> Cell:
    return entry["variant"], entry["concurrency"], entry["repeat"]


def remaining(document: Document) -> list[Cell]:
    done = {cell_of(entry) for entry in document["runs"]}
    return [cell for cell in map(tuple, document["order"]) if cell not in done]


def variant_named(document: Document, name: str) -> Variant:
    return next(variant for variant in SUITES[document["suite"]].variants if variant.name == name)


def plan_of(document: Document, variant: Variant, concurrency: int) -> tuple[bench.Plan, argparse.Namespace]:
    arguments = variant.arguments.format(c=concurrency, **document["values"])
    options = bench.parse_arguments(shlex.split(arguments))
    return bench.make_plans(options)[0], options


def plans_of(document: Document) -> list[bench.Plan]:
    """The plan of every variant at every concurrency; none for suite client, whose variants are other programs."""
    if document["suite"] == "client":
        return []
    cells = dict.fromkeys((name, c) for name, c, _ in document["order"])
    return [plan_of(document, variant_named(document, name), c)[0] for name, c in cells]


def new_document(
    name: str, quick: bool, repeats: int | None, seed: int, command: str, scale: str | None = None
) -> Document:
    suite = SUITES[name]
    variants = [variant for variant in suite.variants if name != "client" or program(variant.arguments)]
    document: Document = {
        "suite": name,
        "when": datetime.now().isoformat(" ", "seconds"),
        "command": command,
        "machine": bench.about_machine(),
        "versions": {},
        "seed": seed,
        "quick": quick,
        "values": (suite.quick if quick else suite.full) | ({"t": scale} if scale else {}),
        "order": order_of(variants, repeats or (1 if quick else suite.repeats), seed),
        "predictions": {},  # made before anything is run: {variant: seconds that a run takes, null: not known}
        "runs": [],  # {variant, concurrency, repeat, wall_s, run}, in the order in which they ended
    }
    document["versions"] = versions(document)
    if name != "client":
        plans = {variant.name: plan_of(document, variant, variant.concurrency[0])[0] for variant in variants}
        document["predictions"] = {name: bench.describe(plan)["predicted_s"] for name, plan in plans.items()}
    return document


NEEDED = {"when", "command", "machine", "versions", "seed", "quick", "predictions"}
OF_A_RUN = {"measured_s", "throughput_rps", "requests", "failed"}


def load(path: Path) -> Document:
    """Read a sweep's file, or a Problem that says in a line why it is none."""
    try:
        document = json.loads(path.read_text())
        known = {variant.name for variant in SUITES[document["suite"]].variants}
        order = [(name, c, repeat) for name, c, repeat in document["order"]]
        cells = [cell_of(entry) for entry in document["runs"]]
        complete = document.keys() >= NEEDED and all(entry["run"].keys() >= OF_A_RUN for entry in document["runs"])
        fits = known >= {name for name, _, _ in order} and set(order) >= set(cells) and len(cells) == len(set(cells))
    except OSError as error:
        raise bench.Problem(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise bench.Problem(f"{path} is not a file of sweep.py") from None
    if not (order and complete and fits):
        raise bench.Problem(f"{path} does not fit suite {document['suite']} of this sweep.py")
    return document


def save(document: Document, path: Path) -> None:
    """Replace the file in one step: whoever is killed in between leaves the one before it."""
    temporary = path.with_name(path.name + ".part")
    text = json.dumps(document | {"runs": []}, indent=1)
    runs = ",\n".join(json.dumps(entry) for entry in document["runs"])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text.replace('"runs": []', f'"runs": [\n{runs}\n]') + "\n")
        os.replace(temporary, path)
    except OSError as error:
        raise bench.Problem(f"cannot write {path}: {error.strerror}") from None


# ---------------------------------------------------------------- run

BULKY = ("exchanges", "per_second", "histogram", "phases_s", "access_log", "server_log")


def slim(run: Run) -> Run:
    """The run without raw columns, but with what the pictures need: when the answers of a burst came, sorted."""
    kept = {key: value for key, value in run.items() if key not in BULKY or (run["failed"] and key.endswith("_log"))}
    if "exchanges" in run:
        kept["answered_s"] = sorted(round(at_s, 4) for at_s in run["exchanges"]["answered_s"] if at_s is not None)
    return kept


def run_target(
    document: Document, variant: Variant, concurrency: int, logs: Path, database: bench.Database | None
) -> Run:
    plan, options = plan_of(document, variant, concurrency)
    options.logs, options.database = logs, database
    run, _ = bench.execute(plan, options)
    if not run["failed"]:
        for log in (run["access_log"], run["server_log"]):
            if log:
                Path(log).unlink(missing_ok=True)
    return slim(run)


def check_contract(plan: bench.Plan, logs: Path, database: bench.Database | None) -> None:
    """One request to the app: status 200 and the expected JSON, or a Problem. A wrong answer's figures mean nothing."""
    plan = dataclasses.replace(plan, task_time_s=0.01, subtasks=2, workers=1)
    access_log, output = bench.new_log_files(logs, f"contract {plan.target}{plan.path}", datetime.now())
    url = database.about["database_url"] if database else ""
    server = bench.start_server(plan, access_log, output, set(), url)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("GET", plan.path)
        answer = connection.getresponse()
        status, body = answer.status, answer.read()
        connection.close()
    except (OSError, http.client.HTTPException) as error:
        raise bench.Problem(f"{plan.target} {plan.path}: no answer to a first request: {error}", 1) from None
    finally:
        bench.stop_server(server)
    with contextlib.suppress(ValueError):
        if status == 200 and BODIES[plan.path].items() <= json.loads(body).items():
            access_log.unlink()
            output.unlink()
            return
    raise bench.Problem(f"{plan.target} {plan.path} answered {status} {body[:80]!r}, not 200 {BODIES[plan.path]}", 1)


NGINX = """worker_processes 1; pid nginx.pid; error_log stderr; daemon off;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000; default_type application/json;
client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t; uwsgi_temp_path t; scgi_temp_path t;
server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 200 '{{"message":"hello"}}'; }} }} }}
"""
STUB = """
import asyncio
HEAD = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: 19\\r\\n"
class Stub(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data):
        close = b"connection: close" in data.lower() or b"HTTP/1.0" in data and b"eep-" not in data
        kept = b"Connection: close\\r\\n" if close else b"Connection: keep-alive\\r\\n"
        self.transport.write((HEAD + kept + b'\\r\\n{{"message":"hello"}}') * max(1, data.count(b"\\r\\n\\r\\n")))
        if close: self.transport.close()
async def main(): await (await asyncio.get_running_loop().create_server(
    Stub, "127.0.0.1", {port}, backlog=4096)).serve_forever()
asyncio.run(main())
"""
LOCUSTFILE = """
from locust import FastHttpUser, tag, task
class User(FastHttpUser):
    network_timeout = 10
    @tag("kept")
    @task
    def kept(self): self.client.get("/")
    @tag("new")
    @task
    def new(self): self.client.get("/", headers={"Connection": "close"})
"""


def program(name: str) -> str | None:
    return name if name == "bench.py" else shutil.which(name)


def start_stub(directory: Path) -> bench.RunningServer:
    """nginx with one worker, else a stub in Python, under bench.py's guard: it dies with this process."""
    port = bench.free_port()
    (directory / "nginx.conf").write_text(NGINX.format(port=port))
    (directory / "stub.py").write_text(STUB.format(port=port))
    nginx = shutil.which("nginx")
    command = [nginx, "-p", f"{directory}/", "-c", "nginx.conf"] if nginx else [sys.executable, f"{directory}/stub.py"]
    with (directory / "server.log").open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, str(bench.HERE / "bench.py"), "--guard", *command],
            stdin=subprocess.PIPE, stdout=sink, stderr=sink, start_new_session=True,
        )  # fmt: skip
    server = bench.RunningServer(process, port, directory / "server.log", None)
    try:
        if can_pin():
            bench.pin(process.pid, {0})
        deadline = time.monotonic() + 10
        while not bench.accepts(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise bench.Problem(f"the server did not start: {server.output.read_text()[-500:]}", 3)
            time.sleep(0.02)
    except BaseException:
        bench.stop_server(server)
        raise
    return server


def run_tool(document: Document, variant: Variant, concurrency: int, logs: Path, _: bench.Database | None) -> Run:
    """One load generator against nginx: what it reports, and the CPU time that it used."""
    tool = TOOLS[variant.arguments]
    logs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=logs) as name:
        directory = Path(name)
        (directory / "locustfile.py").write_text(LOCUSTFILE)
        server = start_stub(directory)
        host = f"http://127.0.0.1:{server.port}"
        try:
            command = tool.command.format(
                c=concurrency, t=document["values"]["t"],
                kind=tool.kept if variant.group == "kept" else tool.new,
                url=f"{host}/", host=host, python=shlex.quote(sys.executable),
                bench=shlex.quote(str(bench.HERE / "bench.py")), json=directory / "run.json",
                locustfile=directory / "locustfile.py",
            )  # fmt: skip
            begun_s = time.perf_counter()
            output, cpu_s = run_child(shlex.split(command), directory / "out")
            wall_s = time.perf_counter() - begun_s
        finally:
            bench.stop_server(server)
        if variant.arguments == "bench.py":
            run = json.loads((directory / "run.json").read_text())["runs"][0]
            keys = ("throughput_rps", "client_cpu_s", "measured_s", "failed")
            return {"requests": run["sent"], "pinned": can_pin()} | {key: run[key] for key in keys}
    return parse_tool(tool, output, command) | {"client_cpu_s": cpu_s, "measured_s": wall_s, "pinned": can_pin()}


def parse_tool(tool: Tool, output: str, command: str = "") -> Run:
    """What a load generator printed: requests/s, how many requests, how many of them failed."""
    rps, requests = re.search(tool.rps, output), re.search(tool.requests, output)
    if not rps or not requests or requests[1] == "0":
        last = (output.strip().splitlines() or ["nothing"])[-1]
        raise bench.Problem(f"cannot read the output of `{command}`; it ends with: {last[:200]}", 1)
    failed = sum(int(count) for found in re.finditer(tool.failed, output) for count in found.groups() if count)
    return {"throughput_rps": float(rps[1]), "requests": int(requests[1]), "failed": failed}


def run_child(command: list[str], output: Path) -> tuple[str, float]:
    """Run a program on CPU 1; what it printed, and the CPU seconds that it used."""
    pin = functools.partial(os.sched_setaffinity, 0, {1}) if can_pin() else None
    with output.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL, preexec_fn=pin)
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    return output.read_text(errors="replace"), usage.ru_utime + usage.ru_stime


def versions(document: Document) -> dict[str, str]:
    found = bench.versions_of(plans_of(document))
    if document["suite"] == "client":
        for name, flag in (("nginx", "-v"), ("ab", "-V"), ("wrk", "-v"), ("locust", "-V")):
            if shutil.which(name):
                said = subprocess.run([name, flag], capture_output=True, text=True)
                match = re.search(r"\d+\.\d[\w.]*", said.stdout + said.stderr)
                found[name] = match[0] if match else "?"
    return found


def time_left_s(document: Document) -> float:
    """What the missing runs will take: as their variant took before, else what was predicted for it."""
    walls: dict[tuple[str, int], list[float]] = {}
    for entry in document["runs"]:
        walls.setdefault((entry["variant"], entry["concurrency"]), []).append(entry["wall_s"])
    tool_s = float(document["values"]["t"])
    total_s = 0.0
    for name, c, _ in remaining(document):
        predicted_s = document["predictions"].get(name)
        if document["suite"] == "books":  # a ramp takes as long as its stages
            predicted_s = sum(stage_s for stage_s, _ in bench.WORKLOADS[name.partition(",")[0]].stages) * tool_s
        expected_s = START_STOP_S + (tool_s if predicted_s is None else predicted_s)
        total_s += statistics.median(walls.get((name, c), [expected_s])) + COOL_DOWN_S
    return total_s


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def sweep(document: Document, path: Path) -> None:
    """Do what remains of the document's order; after each run the file is complete."""
    logs, todo, plans = path.with_suffix(""), remaining(document), plans_of(document)
    run_once = run_tool if document["suite"] == "client" else run_target
    bench.check_packages(plans)
    bench.check_file_limit(max((plan.pace.most_under_way for plan in plans), default=0))
    save(document, path)
    say(f"seed {document['seed']}; each finished run is in {bench.shown(path)}")
    apps = {(plan.server, plan.app, plan.path): plan for plan in plans if todo}
    if apps:
        say(f"first one request to each of {len(apps)} apps: status and body")
    # One Postgres for the whole sweep where the suite needs one; bench.execute() puts its rows back before each run.
    shared = bench.parse_arguments(["--client-cpus", "1"] if can_pin() else [])
    shared.logs = logs
    with bench.database_for(plans, shared):
        if shared.database and can_pin():
            bench.pin(0, {1})
        for plan in apps.values():
            check_contract(plan, logs, shared.database)
        for name, c, repeat in todo:
            left_s = time_left_s(document)
            left = f"{left_s / 60:.0f} min" if left_s > 90 else f"{left_s:.0f} s"
            number = f"[{len(document['runs']) + 1}/{len(document['order'])}]"
            say(f"{number} {name}{f', c = {c}' if c else ''}, repeat {repeat}; about {left} left")
            time.sleep(COOL_DOWN_S)
            begun_s = time.perf_counter()
            run = run_once(document, variant_named(document, name), c, logs, shared.database)
            wall_s = round(time.perf_counter() - begun_s, 2)
            document["runs"].append({"variant": name, "concurrency": c, "repeat": repeat, "wall_s": wall_s, "run": run})
            save(document, path)
    with contextlib.suppress(OSError):
        logs.rmdir()  # empty unless a run failed


# ---------------------------------------------------------------- statistics


def look_up(run: Run, key: str) -> float | None:
    """A figure of a run, by its path: "latency_s.p99"."""
    value: Any = run
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def figures(document: Document, variant: str, key: str, concurrency: int = 0) -> dict[int, float]:
    """The figure of every repeat that has it."""
    found = {}
    for entry in sorted(document["runs"], key=lambda entry: entry["repeat"]):
        value = look_up(entry["run"], key)
        if (entry["variant"], entry["concurrency"]) == (variant, concurrency) and value is not None:
            found[entry["repeat"]] = value
    return found


def runs_of(document: Document, variant: str, concurrency: int = 0) -> dict[int, Run]:
    return {
        entry["repeat"]: entry["run"]
        for entry in sorted(document["runs"], key=lambda entry: entry["repeat"])
        if (entry["variant"], entry["concurrency"]) == (variant, concurrency)
    }


def short(value: float) -> str:
    """Three significant digits, no exponent.

    >>> short(1234.6), short(25.04), short(1.0), short(0.08312), short(46)
    ('1235', '25.0', '1.00', '0.0831', '46')
    """
    if abs(value) >= 100 or value == 0 or isinstance(value, int):
        return f"{value:.0f}"
    return f"{value:#.3g}"


def spread(values: Sequence[float], unit: str = "") -> str:
    """The median, and the least and the most.

    >>> spread([2.04, 2.02, 2.03], " s"), spread([2.0]), spread([0, 0]), spread([])
    ('2.03 s (2.02-2.04)', '2.00', '0', '-')
    """
    if not values:
        return "-"
    counts = all(isinstance(value, int) for value in values)
    middle = statistics.median(values)
    median = short(round(middle) if counts else middle) + unit
    if len(values) == 1 or (counts and min(values) == max(values)):
        return median
    return f"{median} ({short(min(values))}-{short(max(values))})"


def paired(a: dict[int, float], b: dict[int, float]) -> list[float]:
    """a / b within each repeat that has both: what changed between the repeats is in neither.

    >>> paired({1: 4.0, 2: 6.0, 3: 1.0}, {1: 2.0, 2: 3.0})
    [2.0, 2.0]
    """
    return [a[repeat] / b[repeat] for repeat in sorted(a.keys() & b.keys()) if b[repeat]]


def compare(a: dict[int, float], b: dict[int, float]) -> str:
    """The ratio a / b with its spread, and what cannot be said of it because the spreads of a and b overlap.

    >>> compare({1: 2.0, 2: 2.2}, {1: 1.0, 2: 1.0})
    '2.10 (2.00-2.20)'
    >>> compare({1: 2.0, 2: 1.0}, {1: 1.0, 2: 1.5})
    '1.33 (0.667-2.00), too noisy to tell'
    >>> compare({1: 1.0, 2: 1.01}, {1: 1.01, 2: 1.0})
    '1.00 (0.990-1.01), the same'
    """
    ratios = paired(a, b)
    text = spread(ratios)
    if len(ratios) > 1 and min(a.values()) <= max(b.values()) and min(b.values()) <= max(a.values()):
        same = all(abs(ratio - 1) <= bench.TOLERANCE for ratio in ratios)
        text += ", the same" if same else ", too noisy to tell"
    return text


def as_predicted(expects: str, before: Run, after: Run) -> bool:
    """Whether one repeat of an experiment went as predicted.

    slots: both took what their slots give. split: only the second did; the first is explained by its uneven split.
    tail: the listen queue overflowed only before, and p99 fell to less than half.
    """
    if before["failed"] or after["failed"]:
        return False
    if expects == "tail":
        overflows = [run["kernel"].get("ListenOverflows", 0) for run in (before, after)]
        p99_s = [look_up(run, "latency_s.p99") or run["latency_s"]["max"] for run in (before, after)]
        return overflows[0] > 0 == overflows[1] and p99_s[1] < p99_s[0] / 2
    if not bench.fits(after["measured_s"], after["predicted_s"]):
        return False
    if expects == "split":
        uneven = not bench.fits(before["measured_s"], before["predicted_s"])
        return uneven and bench.fits(before["measured_s"], before["split_predicted_s"] or 0.0)
    return bench.fits(before["measured_s"], before["predicted_s"])


def split_answers(split: Sequence[int], slots: float, wait_s: float) -> list[float]:
    """When a burst is answered, given how many requests each worker took; sorted.

    >>> split_answers([3, 1], 2, 1.0)
    [1.0, 1.0, 1.0, 2.0]
    """
    return sorted(at_s for n in split for at_s in bench.predict(n, 1, slots, wait_s).answered_s)


def median_run(runs: dict[int, Run]) -> Run | None:
    """The run whose time is the median of the repeats (of an even number, the lower)."""
    ordered = sorted(runs.values(), key=lambda run: run["measured_s"])
    return ordered[(len(ordered) - 1) // 2] if ordered else None


# ---------------------------------------------------------------- tables


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Markdown; the first columns to the left, figures to the right."""
    rule = ["---" if i < left else "---:" for i in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])


def by_split(run: Run) -> float:
    """What a burst should take given the shares of the workers; without a log nobody knows them: an even split."""
    return run["split_predicted_s"] or run["predicted_s"]


def io_tables(document: Document) -> str:
    rows, taken = [], []
    for variant in IO.variants:
        runs = list(runs_of(document, variant.name).values())
        fitting = sum(not run["failed"] and bench.fits(run["measured_s"], by_split(run)) for run in runs)
        rows.append([
            variant.name,
            short(variant.published[0].rps),
            spread([run["requests"] / run["predicted_s"] for run in runs[:1]]),
            spread([run["requests"] / by_split(run) for run in runs]),
            spread([run["throughput_rps"] for run in runs]),
            f"{fitting} of {len(runs)}",
        ])  # fmt: skip
    compared = []
    for a, b, key, says in IO_RATIOS:
        published = [variant_named(document, name).published[0].rps for name in (a, b)]
        runs_a, runs_b = runs_of(document, a), runs_of(document, b)
        pairs = [(runs_a[repeat], runs_b[repeat]) for repeat in sorted(runs_a.keys() & runs_b.keys())]
        even = [x["predicted_s"] / y["predicted_s"] for x, y in pairs[:1]]
        split = [by_split(x) / by_split(y) for x, y in pairs]
        seconds = key == "measured_s"
        compared.append([
            f"{a} : {b}, {'time' if seconds else 'requests/s'}",
            f"{short(published[1] / published[0] if seconds else published[0] / published[1])} ({says})",
            *(spread(ratios if seconds else [1 / ratio for ratio in ratios]) for ratios in (even, split)),
            compare(figures(document, a, key), figures(document, b, key)),
        ])  # fmt: skip
    threads, above = bench.ANYIO_THREADS, 0
    for repeat, run in runs_of(document, "FastAPI /io").items():
        shares = sorted(run["requests_of_workers"].values(), reverse=True)
        above += shares[:1] > [threads]
        rounds = bench.rounds(shares[0], threads) if shares else 0
        taken.append([str(repeat), " + ".join(map(str, shares)), str(rounds), f"{short(run['measured_s'])} s"])
    return "\n\n".join([
        "Requests/s of 100 at once, until the last answer. *Even*: predicted if every worker took the same share."
        " *Split*: predicted from the shares that they took. *Fits*: runs within 5 % + 100 ms of that.",
        table(["endpoint", "published", "even", "split", "measured", "fits"], rows),
        table(["ratio", "published", "even", "split", "measured"], compared),
        f"FastAPI `/io` has {4 * threads} threads in its 4 workers, enough for 100 requests. But the kernel hands the"
        f" burst out unevenly, and of more than {threads} in one worker some wait for a second round: so in {above} of"
        f" {bench.plural(len(taken), 'repeat')}.",
        table(["repeat", "FastAPI `/io`: requests of each worker", "rounds", "measured"], taken, 2),
    ])  # fmt: skip


def milliseconds(document: Document, variant: str, c: int) -> str:
    """p50 / p99 / max, medians of the repeats."""
    cells = []
    for key in ("median", "p99", "max"):
        values = figures(document, variant, f"latency_s.{key}", c).values()
        cells.append(short(statistics.median(values) * 1000) if values else "-")
    return " / ".join(cells)


def ab_tables(document: Document) -> str:
    parts, tails = [], []
    hello = [variant for variant in AB.variants if variant.group == "hello"]
    header = ["server", "published ratio", "measured ratio", "requests/s", "published p50 / p99 / max ms",
              "measured p50 / p99 / max ms", "listen overflows", "SYN again"]  # fmt: skip
    for c, base in AB_BASE.items():
        published = {variant.name: p for variant in hello for p in variant.published if p.concurrency == c}
        rows = []
        for name in (variant.name for variant in hello):
            stated = published.get(name)
            rps, base_rps = (figures(document, server, "throughput_rps", c) for server in (name, base))
            latency = milliseconds(document, name, c)
            overflows, retries = (
                spread(list(figures(document, name, f"kernel.{counter}", c).values()))
                for counter in ("ListenOverflows", "TCPSynRetrans")
            )
            ratio = "1" if name == base else compare(rps, base_rps)
            said = [short(stated.rps / published[base].rps), stated.latency_ms] if stated else ["", ""]
            rows.append([name, said[0], ratio, spread(list(rps.values())), said[1], latency, overflows, retries])
            if overflows not in ("0", "-"):
                tails.append(f"- {name}, c = {c}: {overflows} overflows and {retries} repeated SYNs; {latency} ms.")
        parts += [f"c = {c}; ratios of requests/s to {base}", table(header, rows)]
    if tails:
        parts.append("A tail of seconds beside a median of milliseconds is TCP trying again, after about 1, 3 and"
                     " 7 s, because the listen queue was full; it is not the framework computing:")  # fmt: skip
        parts.append("\n".join(tails))
    rows = []
    for name in (variant.name for variant in AB.variants if variant.group == "sleep"):
        times_s, typical = figures(document, name, "measured_s"), median_run(runs_of(document, name))
        answered = ", ".join(f"{at_s:.2f}" for at_s in typical["answered_s"]) if typical else "-"
        rows.append(
            [f"`{name}`", f"{document['predictions'][name]:g} s", spread(list(times_s.values()), " s"), answered]
        )
    parts.append("The question behind the post: six requests to one worker of FastAPI.")
    return "\n\n".join([*parts, table(["handler", "predicted", "measured", "answered at, s"], rows)])


def experiment_line(document: Document, experiment: Experiment) -> tuple[str, list[str]]:
    """One experiment: its sentence, and its row in the table."""
    names = [f"{experiment.name}, {when}" for when in ("before", "after")]
    before, after = (runs_of(document, name) for name in names)
    repeats = sorted(before.keys() & after.keys())
    good = sum(as_predicted(experiment.expects, before[repeat], after[repeat]) for repeat in repeats)
    key = "latency_s.p99" if experiment.expects == "tail" else "measured_s"
    values = [figures(document, name, key) for name in names]
    happened = " -> ".join(spread(list(value.values()), " s") for value in values)
    if experiment.expects == "tail":
        counts = [list(figures(document, name, "kernel.ListenOverflows").values()) for name in names]
        happened = f"p99 {happened}, overflows {' -> '.join(map(spread, counts))}"
    if not repeats:
        verdict = "not run yet."
    elif good == len(repeats):
        times = "the one repeat" if good == 1 else f"all {good} repeats"
        verdict = f"as predicted in {times}. So {experiment.explains}."
    else:
        verdict = (
            f"**NOT as predicted in {len(repeats) - good} of {len(repeats)} repeats**: these runs do not show that"
        )
        verdict += f" {experiment.explains}."
    sentence = (
        f"**{experiment.name}.** Believed: {experiment.believed}. Changed: {experiment.changed}."
        f" Predicted: {prediction_of(document, experiment)}. Happened: {happened}, {verdict}"
    )
    cells = [spread(list(value.values()), " s") for value in values]
    return sentence, [experiment.name, *cells, spread(paired(*values[::-1])), f"{good} of {len(repeats)}"]


def prediction_of(document: Document, experiment: Experiment) -> str:
    before, after = (document["predictions"][f"{experiment.name}, {when}"] for when in ("before", "after"))
    return experiment.predicts.format(before=before, after=after)


def why_tables(document: Document) -> str:
    lines = [experiment_line(document, experiment) for experiment in EXPERIMENTS]
    rows = [row for _, row in lines]
    head = table(["experiment", "before", "after", "after : before", "as predicted"], rows)
    note = ("Time until the last answer, as predicted if within 5 % + 100 ms of what the slots give; for the listen"
            " backlog, the 99th percentile of latency.")  # fmt: skip
    return "\n\n".join([head, note, "\n".join(f"- {sentence}" for sentence, _ in lines)])


def client_tables(document: Document) -> str:
    parts, names = [], dict.fromkeys(name for name, _, _ in document["order"])
    server = "nginx" if "nginx" in document["versions"] else "a stub in Python, which is slower than most clients"
    pinned = any(entry["run"].get("pinned") for entry in document["runs"])
    where = "the server on CPU 0, the client on CPU 1" if pinned else "nothing was pinned to a CPU"
    parts.append(f"Against {server}, one process, 19 bytes of JSON; {where}.")
    for kind, title in (("kept", "Connections kept"), ("new", "A new connection for each request")):
        rows = []
        for variant in CLIENT.variants:
            for c in variant.concurrency if variant.group == kind and variant.name in names else ():
                runs = runs_of(document, variant.name, c)
                ab = f"ab, {kind}"
                rps, ab_rps = (figures(document, name, "throughput_rps", c) for name in (variant.name, ab))
                cpu_us = [run["client_cpu_s"] / (run["requests"] or 1) * 1e6 for run in runs.values()]
                rows.append([
                    str(c), variant.arguments, spread(list(rps.values())),
                    "1" if variant.name == ab else compare(rps, ab_rps), spread(cpu_us),
                    str(sum(run["failed"] for run in runs.values())),
                ])  # fmt: skip
        rows.sort(key=lambda row: int(row[0]))
        header = ["c", "client", "requests/s", "ratio to ab", "CPU us a request", "failed"]
        parts += [f"{title}:", table(header, rows, 2)]
    return "\n\n".join(parts)


def ramp_rps(stages: Sequence[Sequence[float]], slots: float, wait_s: float) -> float:
    """Predicted answers/s over a whole ramp: at each moment min(users, slots) / t.

    >>> round(ramp_rps([(10, 40)], 16, 0.05))  # 0 to 40 users in 10 s: the 16 slots are full after 4 s
    260
    """
    ramp, total_s = bench.Pace(stages=tuple((s, int(u)) for s, u in stages)), sum(s for s, _ in stages)
    steps = 10_000
    users = (ramp.limits(total_s * (step + 0.5) / steps)[1] for step in range(steps))
    return sum(min(at_once, slots) for at_once in users) / steps / wait_s


def books_tables(document: Document) -> str:
    rows, levels, equal, database = [], [], [], Counter[str]()
    for variant in BOOKS.variants:
        runs = list(runs_of(document, variant.name).values())
        rps = figures(document, variant.name, "throughput_rps")
        for run in runs:
            database.update({"runs": 1, "requests": run["sent"] + run["warmed_up"], "created": run["created"],
                             "statements": run["database"]["statements"] or 0,
                             "more rows": run["database"]["rows"] - bench.SEEDED_BOOKS})  # fmt: skip
        if stated := BOOKS_PUBLISHED.get(variant.name):
            p50, p95 = (figures(document, variant.name, f"latency_s.{p}").values() for p in ("median", "p95"))
            rows.append([
                variant.name, short(stated.rps), spread(list(rps.values())), short(stated.p50_ms),
                spread([at_s * 1000 for at_s in p50]), short(stated.p95_ms), spread([at_s * 1000 for at_s in p95]),
            ])  # fmt: skip
            for place, level in enumerate(runs[0]["levels"] if runs else ()):
                at_level = [run["levels"][place] for run in runs]
                seconds = [[look_up(one, f"latency_s.{p}") for one in at_level] for p in ("median", "p95")]
                cells = [spread([at_s * 1000 for at_s in of_p if at_s]) for of_p in seconds]
                rps_of_level = spread([one["throughput_rps"] for one in at_level])
                levels.append([variant.name, str(level["users"]), rps_of_level, *cells])
        if variant.name in BOOKS_EQUAL and runs:
            slots, wait_s = runs[0]["slots"], runs[0]["wait_s"]
            predicted = ramp_rps(runs[0]["stages"], slots, wait_s)
            plateau = [run["levels"][-1]["throughput_rps"] for run in runs]
            equal.append([
                variant.name, BOOKS_EQUAL[variant.name], str(slots), short(predicted), spread(list(rps.values())),
                short(slots / wait_s), spread(plateau),
            ])  # fmt: skip
    compared = []
    for a, b, says in BOOKS_RATIOS:
        runs_a, runs_b = runs_of(document, a), runs_of(document, b)
        if runs_a and runs_b:
            first_a, first_b = next(iter(runs_a.values())), next(iter(runs_b.values()))
            ratio = first_a["slots"] / first_b["slots"]
            known = a in BOOKS_PUBLISHED and b in BOOKS_PUBLISHED
            published = short(BOOKS_PUBLISHED[a].rps / BOOKS_PUBLISHED[b].rps) if known else ""
            measured = compare(figures(document, a, "throughput_rps"), figures(document, b, "throughput_rps"))
            compared.append([f"{a} : {b}", says, published, short(ratio), measured])
    pinned = any("--server-cpus" in variant.arguments for variant in BOOKS.variants)
    return "\n\n".join([
        ("The app on CPU 0; Postgres and the client on CPU 1: the same budget for both." if pinned
         else "Nothing was pinned to a CPU.")
        + " Requests/s are of whole ramps, answers (2xx) only; kept connections, after a warm-up.",
        table(["workload", "published requests/s", "measured", "published p50 ms", "measured", "published p95 ms",
               "measured"], rows),
        "What the ratio of the fan-out is: a request waits 50 ms in Postgres, so throughput is slots / 50 ms. *Ramp*:"
        " predicted as min(users, slots) / t at each moment. *Last stage*: at 500 users, where all slots are full.",
        table(["fan-out", "setting", "slots", "ramp, predicted", "measured", "S / t", "last stage, measured"],
              equal, 2),
        table(["ratio of requests/s", "", "published", "slots", "measured"], compared, 2),
        "Percentiles of a ramp pool all its levels; here they are apart:",
        table(["workload", "to users", "requests/s", "p50 ms", "p95 ms"], levels),
        f"The database's own count, over {database['runs']} runs: {database['statements']} SQL statements for"
        f" {database['requests']} requests; {database['more rows']} rows more for {database['created']} POSTs answered"
        " 201.",
    ])  # fmt: skip


TABLES: dict[str, Callable[[Document], str]] = {
    "io": io_tables, "ab": ab_tables, "why": why_tables, "books": books_tables, "client": client_tables,
}  # fmt: skip


def render(document: Document) -> str:
    """The whole report, as Markdown."""
    suite, done = SUITES[document["suite"]], len(document["runs"])
    repeats = max(repeat for _, _, repeat in document["order"])
    found = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    machine = document["machine"]
    failed = [entry for entry in document["runs"] if entry["run"]["failed"]]
    notes = [
        f"`{document['command']}`, {document['when']}, seed {document['seed']}; {machine['system']},"
        f" {bench.plural(machine['cpus'], 'CPU')}; {found}.",
        f"{suite.source} {bench.plural(repeats, 'repeat')}: "
        + ("no spread is known." if repeats == 1 else "median (least-most)."),
    ]
    if document["quick"]:
        changed = {name: value for name, value in document["values"].items() if value != suite.full[name]}
        values = ", ".join(f"{name} = {value} instead of {suite.full[name]}" for name, value in changed.items())
        notes.append(f"**A quick look** (--quick): {values}. Not for quoting: only ratios can be compared.")
    elif document["values"] != suite.full:
        notes.append(f"Stages shortened: --scale {document['values']['t']}.")
    if done < len(document["order"]):
        notes.append(f"**Unfinished**: {done} of {len(document['order'])} runs.")
    if failed:
        notes.append("**Failed requests** in: " + ", ".join(
            f"{entry['variant']} (c = {entry['concurrency']}, repeat {entry['repeat']}: {entry['run']['failed']})"
            for entry in failed) + ".")  # fmt: skip
    return "\n\n".join([f"## Suite {document['suite']}: {suite.title}", *notes, TABLES[document["suite"]](document)])


CSV_COLUMNS = (
    "requests", "predicted_s", "split_predicted_s", "measured_s", "throughput_rps", "latency_s.median", "latency_s.p99",
    "latency_s.max", "failed", "kernel.ListenOverflows", "kernel.TCPSynRetrans", "client_cpu_s", "server_cpu_s",
)  # fmt: skip


def render_csv(document: Document) -> str:
    """A line a run, in the order in which they ran."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["suite", "variant", "concurrency", "repeat", *CSV_COLUMNS, "requests_of_workers"])
    for entry in document["runs"]:
        shares = "+".join(map(str, entry["run"].get("requests_of_workers", {}).values()))
        cells = ["" if (value := look_up(entry["run"], key)) is None else value for key in CSV_COLUMNS]
        rows.writerow([document["suite"], *cell_of(entry), *cells, shares])
    return out.getvalue()


# ---------------------------------------------------------------- pictures

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"  # Okabe and Ito: for the colour-blind too
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
        raise bench.Problem(
            f"pictures need matplotlib; install it with: {sys.executable} -m pip install matplotlib"
        ) from None


def io_staircase(document: Document, figure: Any) -> None:
    """Response time of request n of a burst: predicted as a thin line, measured on it."""
    looks = (("o", BLUE, 6.5, "none"), ("x", RED, 4, RED), ("s", GREEN, 3, GREEN))
    panels = figure.subplots(1, 2, sharey=True)
    for panel, title in zip(panels, ("Flask, 4 gunicorn workers", "FastAPI, 4 uvicorn workers"), strict=True):
        names = [variant.name for variant in IO.variants if variant.name.split()[0] == title.split(",")[0]]
        for place, (name, (marker, colour, size, face)) in enumerate(zip(names, looks, strict=True)):
            run = median_run(runs_of(document, name))
            if not run:
                continue
            request = range(1, run["requests"] + 1)
            wait_s, each = run["wait_s"], bench.unlimited(run["slots_per_worker"])
            even = bench.predict(run["requests"], 1, bench.unlimited(run["slots"]), wait_s).answered_s
            shares = sorted(run["requests_of_workers"].values(), reverse=True)
            actual = split_answers(shares, each, wait_s)
            panel.plot(request, even, drawstyle="steps-mid", color="black", linewidth=0.8, zorder=3)
            if actual and actual[-1] > 1.5 * even[-1]:
                panel.plot(range(1, len(actual) + 1), actual, drawstyle="steps-mid", color="black", linestyle=":",
                           linewidth=1.4, zorder=3)  # fmt: skip
                panel.annotate(f"{name.split()[1]}: the workers took {' + '.join(map(str, shares))},\n"
                               f"and more than {each} in one need another round",
                               (actual.count(wait_s), actual[-1]),
                               (0.98, 0.72), textcoords="axes fraction", ha="right",
                               arrowprops={"arrowstyle": "->", "color": "#555555"})  # fmt: skip
            shown = slice(place, None, 3)
            panel.plot(list(request)[shown], run["answered_s"][shown], linestyle="", marker=marker, markersize=size,
                       color=colour, markerfacecolor=face, label=name.partition(" ")[2])  # fmt: skip
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("request n of the burst, in the order of answers")
        panel.plot([], [], color="black", linewidth=0.8, label="predicted, even split")
        panel.plot([], [], color="black", linestyle=":", linewidth=1.2, label="predicted, actual split")
    label_log(panels[0].yaxis)
    panels[0].set_ylabel("response time, s (log scale)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, handletextpad=0.4, columnspacing=1.2)


def label_log(axis: Any) -> None:
    """A log scale with plain numbers at 1, 2 and 5 of each decade in view; at 1 alone if it shows many decades."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = axis.get_view_interval()
    ticks = [step * 10.0**power for power in range(-4, 6) for step in ((1, 2, 5) if high < 200 * low else (1,))]
    ticks = [tick for tick in ticks if low <= tick <= high]
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_ticks([], minor=True)


def io_split(document: Document, figure: Any) -> None:
    """Why FastAPI /io needs a second round: how many requests each worker took, and the line of 40 threads."""
    panel, runs = figure.subplots(), runs_of(document, "FastAPI /io")
    waiting: dict[str, Any] = {"color": ORANGE, "hatch": "////", "edgecolor": "black", "linewidth": 0.5}
    limit, ticks = bench.ANYIO_THREADS, []
    for group, (repeat, run) in enumerate(runs.items()):
        shares = sorted(run["requests_of_workers"].values(), reverse=True)
        for i, share in enumerate(shares):
            x = group * (len(shares) + 1) + i
            panel.bar(x, min(share, limit), color=BLUE, width=0.85)
            if share > limit:
                panel.bar(x, share - limit, bottom=limit, width=0.85, **waiting)
            panel.text(x, share + 1, str(share), ha="center", va="bottom")
        ticks.append((group * (len(shares) + 1) + (len(shares) - 1) / 2, f"repeat {repeat}\n{run['measured_s']:.2f} s"))
    panel.axhline(limit, color="black", linestyle="--", linewidth=1)
    panel.text(1, limit + 1, f"{limit} threads", ha="right", va="bottom", transform=panel.get_yaxis_transform())
    panel.set_xlim(-0.8, panel.dataLim.xmax * 1.12 + 0.3)  # with room for that label
    panel.set_xticks([x for x, _ in ticks], [label for _, label in ticks])
    panel.grid(axis="x", visible=False)
    panel.set_ylim(0, 1.15 * max(50, panel.dataLim.ymax))
    panel.set_ylabel("requests that a worker took")
    panel.set_xlabel("each bar a worker; below: time until the last of the 100 answers")
    panel.bar(0, 0, color=BLUE, label="first round")
    panel.bar(0, 0, label="has to wait for a thread", **waiting)
    figure.legend(loc="outside upper center", ncols=2)


def ab_latency(document: Document, figure: Any) -> None:
    """p50, p99 and max of each server at c = 500, on a log axis: the tail is another story than the middle."""
    panel = figure.subplots()
    names = [variant.name for variant in AB.variants if variant.group == "hello"][::-1]
    looks = (("median", "p50", "o", BLUE), ("p99", "p99", "s", ORANGE), ("max", "max", "^", RED))
    for place, (key, label, marker, colour) in enumerate(looks):
        for row, name in enumerate(names):
            values_ms = [value * 1000 for value in figures(document, name, f"latency_s.{key}", 500).values()]
            if values_ms:
                y = row + (1 - place) * 0.2
                panel.plot([min(values_ms), max(values_ms)], [y, y], color=colour, linewidth=1.2)
                panel.plot(statistics.median(values_ms), y, marker=marker, color=colour, markersize=6, linestyle="",
                           markeredgecolor="black", markeredgewidth=0.5, label=label if row == 0 else None)  # fmt: skip
    for row, name in enumerate(names):
        overflows = list(figures(document, name, "kernel.ListenOverflows", 500).values())
        if max(overflows, default=0):
            panel.text(0.01, row - 0.38, f"{short(statistics.median(overflows))} listen-queue overflows",
                       transform=panel.get_yaxis_transform(), fontsize=8)  # fmt: skip
    panel.set_yticks(range(len(names)), [name.replace(", ", ",\n", 1) for name in names])
    panel.set_ylim(-0.6, len(names) - 0.4)
    label_log(panel.xaxis)
    panel.set_xlabel("latency at c = 500, ms (log scale); line: least to most of the repeats")
    figure.legend(loc="outside upper center", ncols=3)


def why_moves(document: Document, figure: Any) -> None:
    """Each experiment before and after, and where the slots say that both should be."""
    panel = figure.subplots()
    rows = EXPERIMENTS[::-1]
    for row, experiment in enumerate(rows):
        names = [f"{experiment.name}, {when}" for when in ("before", "after")]
        key = "latency_s.p99" if experiment.expects == "tail" else "measured_s"
        spots: list[tuple[float, float]] = []
        for name, face, label in zip(names, ("white", BLUE), ("before", "after"), strict=True):
            y = row + (0.12 if label == "before" else -0.12)
            values, predicted_s = list(figures(document, name, key).values()), document["predictions"][name]
            if predicted_s and not (experiment.expects == "split" and label == "before"):
                panel.plot([predicted_s] * 2, [y - 0.2, y + 0.2], color="black", linewidth=2, zorder=1,
                           label="predicted from the slots" if row == 0 and label == "after" else None)  # fmt: skip
            if values:
                spots.append((statistics.median(values), y))
                panel.plot([min(values), max(values)], [y, y], color=BLUE, linewidth=1.2)
                panel.plot(*spots[-1], marker="o", markersize=7, color=BLUE, markerfacecolor=face, linestyle="",
                           label=label if row == 0 else None, zorder=2)  # fmt: skip
        if len(spots) == 2 and abs(spots[0][0] / spots[1][0] - 1) > 0.1:
            panel.annotate("", xy=spots[1], xytext=spots[0], zorder=0,
                           arrowprops={"arrowstyle": "->", "color": "#777777", "shrinkA": 4, "shrinkB": 4})  # fmt: skip
    panel.set_yticks(range(len(rows)), [experiment.name for experiment in rows])
    panel.set_ylim(-0.6, len(rows) - 0.4)
    panel.grid(axis="y", visible=False)
    label_log(panel.xaxis)
    panel.set_xlabel("time until the last answer, s (log scale); listen backlog: p99 of latency")
    handles = dict(zip(*panel.get_legend_handles_labels()[::-1], strict=True))
    labels = [label for label in ("before", "after", "predicted from the slots") if label in handles]
    figure.legend([handles[label] for label in labels], labels, loc="outside upper center", ncols=3)


def waterfall(run: Run, figure: Any) -> None:
    """One row a worker, one bar a request: waiting for a slot pale, in its handler solid."""
    panel, columns = figure.subplots(), run["exchanges"]
    by_worker: dict[str, list[tuple[float, float, float]]] = {}
    for worker, sent, started, answered in zip(
        columns["worker"], columns["started_s"], columns["handler_started_s"], columns["answered_s"], strict=True
    ):
        if worker is not None and None not in (sent, started, answered):
            by_worker.setdefault(worker, []).append((started, sent, answered))
    y, ticks = 0.0, []
    gap = max(1.5, 0.02 * len(columns["worker"]))  # no lane is lower than its label
    for worker, bars in sorted(by_worker.items(), key=lambda item: (len(item[0]), item[0])):
        ticks.append((y + (len(bars) - 1) / 2, f"{worker}: {len(bars)}"))
        for started, sent, answered in sorted(bars):
            panel.barh(y, started - sent, left=sent, color="#c6dcec", height=0.8, linewidth=0)
            panel.barh(y, answered - started, left=started, color=BLUE, height=0.8, linewidth=0)
            y += 1
        y += gap
    panel.set_ylim(y - gap, -1)
    panel.set_xlim(0, run["measured_s"] * 1.02)
    panel.set_yticks([at for at, _ in ticks], [label for _, label in ticks])
    panel.grid(axis="y", visible=False)
    panel.set_xlabel("time since the burst was sent, s; beside each worker: how many requests it took")
    panel.set_title(f"{run['target']} {run['path']}: {run['requests']} requests at once", fontsize=9, loc="left")
    panel.barh(0, 0, color="#c6dcec", label="waiting for a slot")
    panel.barh(0, 0, color=BLUE, label="in its handler")
    figure.legend(loc="outside lower center", ncols=2)


def books_slots(document: Document, figure: Any) -> None:
    """The fan-out with other slots: measured as bars, what the slots allow over the whole ramp as a line."""
    panel = figure.subplots()
    names = [name for name in BOOKS_EQUAL if runs_of(document, name)][::-1]
    for row, name in enumerate(names):
        run, rps = (
            next(iter(runs_of(document, name).values())),
            list(figures(document, name, "throughput_rps").values()),
        )
        predicted, median = ramp_rps(run["stages"], run["slots"], run["wait_s"]), statistics.median(rps)
        framework = ("#c6dcec", "///") if "Flask" in name else (BLUE, "")
        panel.barh(row, median, color=framework[0], hatch=framework[1], height=0.6, edgecolor="black", linewidth=0.6)
        panel.plot([min(rps), max(rps)], [row, row], color="black", linewidth=1)
        panel.plot([predicted] * 2, [row - 0.42, row + 0.42], color=RED, linewidth=2.5,
                   label="predicted from the slots" if not row else None)  # fmt: skip
    panel.set_yticks(range(len(names)), [f"{'Flask' if 'Flask' in name else 'FastAPI'}, {BOOKS_EQUAL[name]}"
                                         .replace(" (as published)", "*") for name in names])  # fmt: skip
    panel.grid(axis="y", visible=False)
    panel.set_xlabel("answers/s over the whole ramp; * as published")
    figure.legend(loc="outside upper center")


PICTURES: dict[str, tuple[tuple[str, float, Callable[[Document, Any], None]], ...]] = {  # name, height in inches, how
    "io": (("staircase", 4.0, io_staircase), ("split", 3.4, io_split)),
    "ab": (("latency", 4.4, ab_latency),),
    "why": (("moves", 3.8, why_moves),),
    "books": (("slots", 3.2, books_slots),),
    "client": (),
}


def draw(subject: Any, height: float, how: Callable[[Any, Any], None], stem: Path) -> list[Path]:
    """Write one picture as SVG and as PNG, 7 inches wide: 700 pixels at blog size, 1400 in the PNG."""
    matplotlib = matplotlib_or_problem()
    files = [stem.with_name(f"{stem.name}.{kind}") for kind in ("svg", "png")]
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=(7, height), layout="constrained")
        how(subject, figure)
        try:
            stem.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(files[0], metadata={"Date": None})
            figure.savefig(files[1], dpi=200)
        except OSError as error:
            raise bench.Problem(f"cannot write {error.filename}: {error.strerror}") from None
    return files


def draw_all(document: Document, path: Path, directory: Path) -> None:
    for name, height, how in PICTURES[document["suite"]]:
        for file in draw(document, height, how, directory / f"{path.stem}-{name}"):
            say(f"picture {bench.shown(file)}")


def draw_waterfalls(path: Path, directory: Path) -> None:
    """A picture of each burst in a document of bench.py --json."""
    try:
        runs = [run for run in json.loads(path.read_text())["runs"] if any(run["exchanges"]["worker"])]
        assert runs
    except OSError as error:
        raise bench.Problem(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AssertionError):
        raise bench.Problem(f"{path} holds no burst of bench.py --json with its access log") from None
    for run in runs:
        name = re.sub(r"[^A-Za-z0-9]+", "-", f"{run['target']}{run['path']}").strip("-")
        height = min(12.0, 1.5 + 0.09 * len(run["exchanges"]["worker"]) + 0.15 * len(set(run["exchanges"]["worker"])))
        for file in draw(run, height, waterfall, directory / f"{path.stem}-{name}-waterfall"):
            say(f"picture {bench.shown(file)}")


# ---------------------------------------------------------------- main


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = bench.Parser(
        prog="sweep.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="what", required=True, metavar="SUITE|report|picture")
    for name, suite in SUITES.items():
        add = commands.add_parser(name, help=suite.title, allow_abbrev=False).add_argument
        add("--quick", action="store_true", help="short task times, one repeat")
        repeats = f"of each variant ({suite.repeats}; quick: 1)"
        add("--repeats", type=bench.number(int, 1, 100), metavar="N", help=repeats)
        if name == "books":
            scale = bench.pattern(r"0?\.\d+|[1-9]\d*(\.\d+)?", "a positive number")
            add("--scale", type=scale, metavar="X", help="make the stages X as long (1; quick: 0.02)")
        add("--seed", type=bench.number(int, 0, 2**31), metavar="N", help="of the order (default: drawn, and printed)")
        add("--resume", type=Path, metavar="FILE", help="go on with an interrupted sweep, as it was begun")
        add("--logs", type=Path, default=bench.HERE / "logs", metavar="DIR", help="where everything goes (logs/)")
    add = commands.add_parser("report", help="tables and pictures of a sweep's file", allow_abbrev=False).add_argument
    add("file", type=Path, metavar="FILE")
    add("--csv", type=Path, metavar="FILE", help="write a line a run")
    add("--pictures", type=Path, metavar="DIR", help="write SVG and PNG there")
    add = commands.add_parser("picture", help="waterfall of a run of bench.py --json", allow_abbrev=False).add_argument
    add("file", type=Path, metavar="RUN.json")
    add("--pictures", type=Path, default=bench.HERE / "logs", metavar="DIR", help="write SVG and PNG there (logs/)")
    return parser.parse_args(argv)


def begin(options: argparse.Namespace, command: str) -> tuple[Document, Path]:
    """A new document and where it goes, or the one to go on with."""
    if not options.resume:
        seed = random.randrange(10_000) if options.seed is None else options.seed
        scale = getattr(options, "scale", None)
        document = new_document(options.what, options.quick, options.repeats, seed, command, scale)
        return document, options.logs.resolve() / f"{datetime.now():%Y%m%d-%H%M%S}-sweep-{options.what}.json"
    if options.quick or options.repeats or options.seed is not None:
        raise bench.Problem("--resume goes on as the sweep was begun: without --quick, --repeats and --seed")
    document = load(options.resume)
    if document["suite"] != options.what:
        raise bench.Problem(f"{options.resume} is of suite {document['suite']}, not {options.what}")
    if (document["machine"], document["versions"]) != (bench.about_machine(), versions(document)):
        raise bench.Problem(f"{options.resume} is from another machine or other versions; begin a new sweep")
    return document, options.resume.resolve()


def run_suite(options: argparse.Namespace, command: str) -> int:
    document, path = begin(options, command)
    resume = f"python sweep.py {options.what} --resume {shlex.quote(bench.shown(path))}"
    if document["suite"] == "why":
        for experiment in EXPERIMENTS:
            say(f"predicted  {experiment.name}: {prediction_of(document, experiment)}")
    try:
        sweep(document, path)
    except KeyboardInterrupt:
        say(f"sweep.py: interrupted; nothing is left running; go on with: {resume}")
        return 130
    except bench.Problem as problem:
        raise bench.Problem(f"{problem}; go on with: {resume}" if path.exists() else str(problem),
                            problem.exit_code) from None  # fmt: skip
    print(render(document))
    try:
        draw_all(document, path, path.parent)
    except bench.Problem as problem:
        say(f"sweep.py: {problem}")
    return 1 if any(entry["run"]["failed"] for entry in document["runs"]) else 0


def report(options: argparse.Namespace) -> int:
    document = load(options.file)
    print(render(document))
    if options.csv:
        try:
            options.csv.write_text(render_csv(document))
        except OSError as error:
            raise bench.Problem(f"cannot write {options.csv}: {error.strerror}") from None
    if options.pictures:
        draw_all(document, options.file, options.pictures)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv:
        print(__doc__)
        return 0
    try:
        options = parse_arguments(argv)
        if options.what == "report":
            return report(options)
        if options.what == "picture":
            draw_waterfalls(options.file, options.pictures)
            return 0
        return run_suite(options, shlex.join(["sweep.py", *argv]))
    except bench.Problem as problem:
        say(f"sweep.py: {problem}")
        return problem.exit_code
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
