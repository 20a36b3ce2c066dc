"""limits - limits that nobody set: four published figures, and the setting that each of them is.

A  four handlers that wait the same take 20, 25 and 84 rounds: asyncio's threads are not FastAPI's
B  threads and database connections stop each other from threads + connections requests on
C  gunicorn's --threads does nothing for a worker that runs an event loop
D  figures that cannot be: the table of one handler under the name of another

Each is predicted from slots before it is run; what limits it is found from the answers alone.
"""

from __future__ import annotations

import contextlib
import math
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, cast

import bench
import slots
from explain import words_of
from limits import Estimate
from slots import ANYIO_THREADS, NO_LIMIT, plural
from suites import (
    Document,
    Programs,
    Suite,
    ToolRun,
    Variant,
    compare,
    entries_of,
    figures,
    fits,
    median_run,
    runs_of,
    short,
    spread,
    spread_of,
    table,
    typical,
)

WITH_SETTINGS = "bench.py with settings in the environment"


# ---------------------------------------------------------------- A: four handlers, one number each


class Handler(NamedTuple):
    path: str
    limit: str  # its name
    slots_there: float | None  # of the published machine
    published_s: float | None
    threads: int = 0  # that asyncio is given; 0: as Python has it

    @property
    def variant(self) -> str:
        return f"A {self.path}" + (f", {self.threads} threads" if self.threads else "")


POST_A = (
    '"FastAPI: Performance results differ between run_in_threadpool() and run_in_executor()" (Stack Overflow 77935269)'
)
REQUESTS_A, USERS_A, WAIT_A_S = 1000, 50, 3.0  # as published: ab -n 1000 -c 50, each waits 3 s
BURST = 100
HANDLERS = (
    Handler("/async", "none: it awaits", NO_LIMIT, 63.5),
    Handler("/def", "AnyIO's 40 threads", ANYIO_THREADS, 78.6),
    Handler("/threadpool", "AnyIO's 40 threads", ANYIO_THREADS, None),
    Handler("/executor", "asyncio's own threads, min(32, CPUs + 4)", None, None),
    Handler("/executor", "asyncio's own threads, as on the 8 CPUs there", 12, 256.2, threads=12),
)


def predicted_a_s(document: Document, handler: Handler) -> float:
    if handler.threads:
        return slots.burst_s(BURST, handler.threads, float(document["values"]["t"]))
    return document["predictions"][handler.variant] or math.nan


def row_a(document: Document, handler: Handler) -> list[str]:
    there, measured = "-", list(figures(document, handler.variant, "measured_s").values())
    if handler.slots_there and handler.published_s:
        there = f"{slots.burst_s(REQUESTS_A, min(USERS_A, handler.slots_there), WAIT_A_S):.0f} s"
    predicted_s = predicted_a_s(document, handler)
    return [
        handler.variant.removeprefix("A "),
        f"{handler.published_s} s" if handler.published_s else "-",
        there,
        f"{short(predicted_s)} s",
        spread(measured, " s"),
        f"{sum(fits(measured_s, predicted_s) for measured_s in measured)} of {len(measured)}",
    ]


# ---------------------------------------------------------------- B: two pools, one stall


class Pools(NamedTuple):
    """A burst of n on so many threads, and a connection pool of so many."""

    threads: int
    connections: int
    n: int
    path: str = "/depends"
    cure: str = ""

    @property
    def variant(self) -> str:
        return f"B {self.threads} + {self.connections}, n = {self.n}{self.cure and f', {self.cure}'}"

    @property
    def stalls(self) -> bool:
        """The rule of two pools: no thread is free for who has a connection, and no connection for who has a thread."""
        return not self.cure and self.n >= self.threads + self.connections

    @property
    def settings(self) -> dict[str, str]:
        return {"THREADS": str(self.threads), "POOL_SIZE": str(self.connections), "MAX_OVERFLOW": "0"}


SIZES = ((40, 15), (15, 15), (10, 20))
POOLS = (
    *(Pools(threads, pool, threads + pool + more) for threads, pool in SIZES for more in (-1, 0)),
    Pools(40, 15, 100, "/untyped", "no response model"),
    Pools(40, 15, 100, "/with", "session inside the handler"),
)
POSTS_B = (
    "fastapi/full-stack-fastapi-template #104 (100 at once: 47 answered, 53 failed), uhh-lt/dats #217 (above 50 at once"
    ' "everything grinds to a halt for 30 seconds, then a few requests error out"), fastapi/fastapi #3205 and #5122'
)


class PoolRun(ToolRun, total=False):
    """failed: in another way than by the pool's timeout."""

    answered: int
    timed_out: int  # answered 500
    estimate: Estimate | None
    said: str | None  # the line of the server's log that tells most


def pool_runs(document: Document, pools: Pools) -> list[PoolRun]:
    return [cast(PoolRun, entry["run"]) for entry in entries_of(document, pools.variant)]


def as_predicted_b(pools: Pools, run: PoolRun, timeout_s: float) -> bool:
    """A stall lasts the pool's timeout, and ends in failures; without one all are answered before it."""
    if run.get("timed_out", 0) or run["failed"] or run["requests"] != pools.n:
        return pools.stalls and not run["failed"] and run["measured_s"] >= timeout_s
    return not pools.stalls and run["measured_s"] < timeout_s


def row_b(document: Document, pools: Pools) -> list[str]:
    runs, timeout_s = pool_runs(document, pools), float(document["values"]["p"])
    good = sum(as_predicted_b(pools, run, timeout_s) for run in runs)
    times = [run["measured_s"] for run in runs]
    failed = [run.get("timed_out", 0) for run in runs]
    predicted = f"stalls for {timeout_s:g} s, some fail" if pools.stalls else "all answered"
    return [pools.variant.removeprefix("B "), predicted, spread(times, " s"), spread(failed), f"{good} of {len(runs)}"]


def said_of_stall(document: Document) -> str:
    """The line that names it in the server's log."""
    said = [run.get("said") for pools in POOLS if pools.stalls for run in pool_runs(document, pools)]
    line = next((line for line in said if line), None)
    return f" The server's log says: `{line.partition(' (Background')[0]}`." if line else ""


# ---------------------------------------------------------------- C: --threads that does nothing


class Workers(NamedTuple):
    path: str
    workers: int
    threads: int
    published: int | None  # requests answered in 60 s

    @property
    def variant(self) -> str:
        return f"C {self.path}, {plural(self.workers, 'worker')} x {plural(self.threads, 'thread')}"

    @property
    def slots(self) -> float:
        return NO_LIMIT if self.path.startswith("/async") else self.workers * ANYIO_THREADS


POST_C = "ajndkr/fastapi-concurrency-tests (2023), wrk -c 100 -d 60s, each waits 10 s"
ROUNDS_C, USERS_C = 5, 100  # the answers of the sixth round come when the minute is over
WORKERS = (
    Workers("/io", 1, 1, 200), Workers("/io", 1, 4, 200), Workers("/io", 4, 1, 500), Workers("/io", 4, 4, None),
    Workers("/async-io", 1, 1, 500),
)  # fmt: skip
PAIRS_C = ((WORKERS[1], WORKERS[0]), (WORKERS[3], WORKERS[2]), (WORKERS[2], WORKERS[0]))


def row_c(document: Document, row: Workers) -> list[str]:
    runs = runs_of(document, row.variant)
    middle = median_run(runs)
    shares = sorted(middle["requests_of_workers"].values(), reverse=True) if middle else []
    explained = dict.fromkeys(run.get("explained_by") or "nothing" for run in runs.values())
    return [
        row.variant.removeprefix("C "),
        str(row.published or "-"),
        f"{ROUNDS_C * min(USERS_C, row.slots):.0f}",
        f"{short(document['predictions'][row.variant] or math.nan)} s",
        spread([run["measured_s"] for run in runs.values()], " s"),
        " + ".join(map(str, shares)),
        ", ".join(explained),
    ]


def ratio_c(document: Document, a: Workers, b: Workers) -> list[str]:
    """The time of a by that of b."""
    predicted = [document["predictions"][row.variant] or math.nan for row in (a, b)]
    measured = compare(*(figures(document, row.variant, "measured_s") for row in (a, b)))
    names = " : ".join(row.variant.removeprefix("C /io, ") for row in (a, b))
    return [names, short(predicted[0] / predicted[1]), measured]


# ---------------------------------------------------------------- D: figures that cannot be

POST_D = "amirberenji1995/technical-blog, async-or-sync.md"
USERS_D = (10, 100)
PATHS_D = {"/def": "`def` with time.sleep", "/blocking": "`async def` with time.sleep"}


def variant_d(path: str, users: int) -> str:
    """A burst of 100 on /def is in case A already."""
    return "A /def" if (path, users) == ("/def", BURST) else f"D {path}, {users} users"


def row_d(document: Document, path: str, users: int) -> list[str]:
    variant = variant_d(path, users)
    wait_s = float(document["values"]["t" if variant[0] == "A" else "d"])
    predicted_s = document["predictions"][variant] or math.nan
    measured = figures(document, variant, "measured_s").values()
    published = f"{users} t" if path == "/def" else "-"
    fitting = sum(fits(measured_s, predicted_s) for measured_s in measured)
    return [
        f"{PATHS_D[path]}, {users} users",
        published,
        f"{short(predicted_s / wait_s)} t",
        spread([measured_s / wait_s for measured_s in measured], " t"),
        f"{fitting} of {len(measured)}",
    ]


# ---------------------------------------------------------------- named from the answers alone


def row_named(document: Document, variant: str, limit: str) -> list[str]:
    """What the answers of each repeat say of the slots, the name that comes first, and what it is."""
    estimates = [cast(PoolRun, entry["run"]).get("estimate") for entry in entries_of(document, variant)]
    found = [estimate for estimate in estimates if estimate]
    words = dict.fromkeys(words_of(estimate) for estimate in found)
    first = dict.fromkeys(suspect["what"] for estimate in found for suspect in estimate["suspects"][:1])
    return [variant, "; ".join(words) or "-", "; ".join(first) or "-", limit]


def rows_named(document: Document) -> list[list[str]]:
    limits = {handler.variant: handler.limit for handler in HANDLERS}
    limits |= {pools.variant: f"{pools.threads} threads and {pools.connections} connections" for pools in POOLS}
    limits |= {row.variant: "AnyIO's 40 threads a worker" for row in WORKERS[:4]}
    limits |= {variant_d("/blocking", users): "a blocked event loop" for users in USERS_D}
    return [row_named(document, variant, limit) for variant, limit in limits.items()]


# ---------------------------------------------------------------- run: with settings that bench.py has no option for


@contextlib.contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """What a server that is started meanwhile inherits."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


SETTINGS = {pools.variant: pools.settings for pools in POOLS} | {
    handler.variant: {"EXECUTOR_THREADS": str(handler.threads)} for handler in HANDLERS if handler.threads
}


def run_with_settings(document: Document, variant: Variant, concurrency: int, logs: Path) -> PoolRun:
    """One run of bench.py. What the pool's timeout fails is foretold, and no failure of the run."""
    values, before = document["values"], set(logs.glob("*.log"))
    options = bench.parse_arguments(shlex.split(variant.arguments.format(c=concurrency, **values)))
    options.logs = logs
    settings = SETTINGS[variant.name] | ({"POOL_TIMEOUT": values["p"]} if variant.name.startswith("B") else {})
    with environment(settings):
        run, _ = bench.execute(bench.make_plans(options)[0], options)
    timed_out = run["errors"].get("HTTP 500", 0)
    found: PoolRun = {
        "throughput_rps": run["throughput_rps"], "requests": run["sent"], "failed": run["failed"] - timed_out,
        "client_cpu_s": run["client_cpu_s"], "measured_s": run["measured_s"], "pinned": False,
        "answered": run["answered"], "timed_out": timed_out, "said": run["server_said"],
        "estimate": run["estimate"],
    }  # fmt: skip
    for log in set(logs.glob("*.log")) - before if not found["failed"] else ():
        log.unlink()
    return found


def seconds(variant: Variant, _: int, values: Mapping[str, str]) -> float:
    """Of the runs with settings, which nothing predicts."""
    if variant.name.startswith("A"):
        return slots.burst_s(BURST, 12, float(values["t"]))
    return max(0.5, *(float(values["p"]) + 0.5 for pools in POOLS if pools.variant == variant.name and pools.stalls), 0)


# ---------------------------------------------------------------- all of them


def foretell(document: Document) -> list[str]:
    """Every prediction, before the first run."""
    lines = [f"{handler.variant}: {short(predicted_a_s(document, handler))} s" for handler in HANDLERS]
    timeout = f"{document['values']['p']} s"
    lines += [f"{pools.variant}: {f'stalls for {timeout}' if pools.stalls else 'all answered'}" for pools in POOLS]
    for name, predicted_s in document["predictions"].items():
        if name[0] in "CD":
            lines.append(f"{name}: {short(predicted_s or math.nan)} s")
    return [f"predicted  {line}" for line in lines]


def tables(document: Document) -> str:
    values = document["values"]
    return "\n\n".join([
        f"**A. Four handlers, one number each.** Published: {POST_A}, ab -n {REQUESTS_A} -c {USERS_A}, each waits"
        f" {WAIT_A_S:g} s; what the slots give for that beside it. Run again: {BURST} at once, each waits {values['t']}"
        " s.",
        table(["handler", "published", "slots give", "predicted here", "measured", "fits"],
              [row_a(document, handler) for handler in HANDLERS]),
        f"**B. Two pools, one stall.** Published: {POSTS_B}. A `def` handler with a response model, whose session is a"
        " dependency with `yield`; threads + connections as given, the defaults being 40 + 15; the pool's timeout is"
        f" {values['p']} s here, 30 s by default. Predicted: all is well up to threads + connections - 1 requests at"
        f" once.{said_of_stall(document)}",
        table(["threads + connections", "predicted", "last answer", "failed", "as predicted"],
              [row_b(document, pools) for pools in POOLS]),
        f"**C. `--threads` that does nothing.** Published: {POST_C}: requests answered; gunicorn with uvicorn's worker."
        f" Run again: 400 requests of {USERS_C} users, each waits {values['s']} s. *Explained by* the prediction,"
        " by the split (the share that each worker took), or by CPU time.",
        table(["handler, settings", "published", "slots give", "predicted here", "measured", "shares", "explained by"],
              [row_c(document, row) for row in WORKERS]),
        table(["time of /io", "predicted", "measured"], [ratio_c(document, *pair) for pair in PAIRS_C]),
        f"**D. Figures that cannot be.** Published: {POST_D}: a `def` handler that sleeps for t = 1 s, 10 and 100"
        " users, 10 and 100 s and 1 request/s, in a test of 30 s. That is one slot, so the handler of the last two"
        " rows; and nobody sees 100 s within 30. Run again: all at once, until the last answer.",
        table(["handler", "published", "predicted", "measured", "fits"],
              [row_d(document, path, users) for path in PATHS_D for users in USERS_D]),
        "**Named from the answers alone**: how many at a time, and which limit comes first for it.",
        table(["run", "found", "named", "it is"], rows_named(document), 4),
    ])  # fmt: skip


def headline(document: Document) -> list[str]:
    """The four findings, each with a figure of its table."""
    threads, executor = (spread_of(document, f"A {path}", "estimate.slots") for path in ("/def", "/executor"))
    below, at = (typical(row_b(document, pools)[2]) for pools in POOLS[:2])
    same = typical(ratio_c(document, *PAIRS_C[0])[2])
    blocked = typical(row_d(document, "/blocking", 10)[3])
    return [
        f"The same wait is served {typical(threads)} at a time in a `def` handler, {typical(executor)} at a time by"
        " asyncio.to_thread.",
        f"40 threads and a pool of 15 answer 54 requests at once in {below}; one more, and the last answer takes {at}"
        f" with a pool timeout of {document['values']['p']} s (30 s by default).",
        f"Four times gunicorn's --threads on uvicorn's worker: {same} of the time. A handler that blocks the event loop"
        f" takes {blocked} for 10 requests.",
    ]


VARIANTS = (
    *(
        Variant(
            handler.variant,
            f"--target limits-handlers --path {handler.path} -n {BURST} --task-time {{t}} --warmup 8",
            "A",
            program=WITH_SETTINGS if handler.threads else "",
        )
        for handler in HANDLERS
    ),
    *(
        Variant(
            pools.variant,
            f"--target limits-pools --path {pools.path} -n {pools.n} --task-time 0.1 --warmup 4",
            f"B {pools.threads}",
            program=WITH_SETTINGS,
        )
        for pools in POOLS
    ),
    *(
        Variant(
            row.variant,
            f"--target fastapi-gunicorn --path {row.path} --workers {row.workers} -n 400 -c {USERS_C} --task-time {{s}}"
            + (f" --warmup 16 --server-args='--threads {row.threads}'" if row.threads > 1 else " --warmup 16"),
            "C",
        )
        for row in WORKERS
    ),
    *(
        Variant(
            variant_d(path, users),
            f"--target limits-handlers --path {path} -n {users} --task-time {{d}} --warmup 4",
            "D",
        )
        for path in PATHS_D
        for users in USERS_D
        if variant_d(path, users)[0] == "D"
    ),
)
SUITE = Suite(
    title="limits that nobody set: published figures, and the setting that each of them is",
    source="Each was predicted from slots before it was run.",
    variants=VARIANTS,
    full={"t": "0.3", "s": "0.5", "d": "0.1", "p": "2"},
    quick={"t": "0.1", "s": "0.2", "d": "0.05", "p": "1"},
    bodies={path: {"task_time": 0.01} for path in ("/async", "/def", "/threadpool", "/executor", "/blocking", "/io",
                                                  "/async-io")},
    tables=tables,
    headline=headline,
    seconds=seconds,
    foretell=foretell,
    programs=Programs(lambda _: True, run_with_settings, dict),
)  # fmt: skip
