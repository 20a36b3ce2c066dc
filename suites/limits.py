"""limits - limits of default settings: four published figures, and the setting that each of them is.

A  four handlers that wait the same take 20, 25 and 84 rounds: asyncio's threads are not FastAPI's
B  threads and database connections stop each other: not below threads + connections requests
C  gunicorn's --threads does nothing for a worker that runs an event loop
D  figures that cannot be: the table of one handler under the name of another

Each is predicted from slots before it is run. Then the slots are read once more, from the answers alone.
"""

from typing import Any, NamedTuple

from engine.targets import ANYIO_THREADS
from suites.common import FITS_WITHIN, TIME_S, Json, Suite, SweepDocument, Variant, fits, look_up, table, tally

# ---------------------------------------------------------------- cases


class Case(NamedTuple):
    """One run. limit: what makes the published figure. due_t: when the last answer is due, in waits {t}, where settings
    in env leave nothing to predict for bench.py."""

    name: str
    arguments: str
    limit: str
    published: str = "-"
    env: tuple[tuple[str, str], ...] = ()
    due_t: float = 0.0
    stalls: bool = False

    def as_predicted(self, run: Json, due_s: float | None, timeout_s: float) -> Any:
        """A stall lasts the pool's time-out, and then only that fails requests. All else takes as long as predicted,
        or is explained by the split or by CPU time; where nothing is predicted it ends before that time-out."""
        measured = run["measured"]
        took_s, failed = measured["measured_s"], measured["failed"]
        if self.stalls:
            return took_s >= timeout_s and 0 < failed == measured["errors"].get("HTTP 500")
        explained = look_up(run, "verdict.explained_by") in ("split", "cpu")
        low_s, high_s = look_up(run, "prediction.makespan_range_s") or (0.0, 0.0)  # of several processes
        return not failed and (
            explained or low_s <= took_s <= high_s or (fits(took_s, due_s) if due_s else took_s < timeout_s)
        )


ANYIO, BLOCKED, NONE = f"AnyIO's {ANYIO_THREADS} threads", "a blocked event loop", "none: it awaits"


def pools(threads: int, connections: int, n: int, path: str = "/depends", cure: str = "") -> Case:
    """A burst on so many threads, and a connection pool of so many.

    The rule of two pools: with threads + connections requests all threads may be taken by requests that wait for a
    connection, while those that have one wait for a thread. Whether it comes to that just there depends on what
    comes first: a request that arrives, or one that has a connection and needs a thread for its answer. With twice the
    connections all have arrived before the second round of them ends. After a cure there is no stall.
    """
    env = ("THREADS", str(threads)), ("POOL_SIZE", str(connections)), ("MAX_OVERFLOW", "0"), ("POOL_TIMEOUT", "{p}")
    return Case(f"B {threads} + {connections}, n = {n}{cure}",
                f"--target limits-pools --path {path} -n {n} --task-time 0.1 --warmup 4",
                f"{threads} threads and {connections} connections", env=env,
                stalls=not cure and n >= threads + 2 * connections)  # fmt: skip


HANDLERS = "--target limits-handlers --warmup 8 -n 100 --task-time {t} --path"
SHORT_HANDLERS = "--target limits-handlers --warmup 8 --task-time {d}"
WORKERS = "--target fastapi-gunicorn --warmup 16 -n 400 -c 100 --task-time {s}"
A_DEF = Case("A /def", f"{HANDLERS} /def", ANYIO, "78.6 s; its slots give 75 s")
A_EXECUTOR = Case("A /executor", f"{HANDLERS} /executor", "asyncio's own threads, min(32, CPUs + 4)")
B_54, B_70 = pools(40, 15, 54), pools(40, 15, 70)
C_1 = Case("C /io, 1 worker x 1 thread", f"{WORKERS} --path /io --workers 1 --server-args='--threads 1'", ANYIO,
           "200 answered; its slots give 200")  # fmt: skip
C_4 = Case("C /io, 1 worker x 4 threads", f"{WORKERS} --path /io --workers 1 --server-args='--threads 4'", ANYIO,
           "200 answered; its slots give 200")  # fmt: skip
D_10 = Case("D /blocking, 10 users", f"{SHORT_HANDLERS} --path /blocking -n 10", BLOCKED)
PARTS = {  # what was published, and what is run again
    "**A. Four handlers, one number each.** Published: \"FastAPI: Performance results differ between"
    " run_in_threadpool() and run_in_executor()\" (Stack Overflow 77935269), ab -n 1000 -c 50, each waits 3 s. Run"
    " again: 100 at once, each waits {t} s.": (
        Case("A /async", f"{HANDLERS} /async", NONE, "63.5 s; its slots give 60 s"),
        A_DEF,
        Case("A /threadpool", f"{HANDLERS} /threadpool", ANYIO),
        A_EXECUTOR,
        Case("A /executor, 12 threads", f"{HANDLERS} /executor", "asyncio's own threads, as on the 8 CPUs there",
             "256.2 s; its slots give 252 s", env=(("EXECUTOR_THREADS", "12"),), due_t=9),
    ),
    "**B. Two pools, one stall.** Published: fastapi/full-stack-fastapi-template #104 (100 at once: 47 answered,"
    " 53 failed), uhh-lt/dats #217 (above 50 at once \"everything grinds to a halt for 30 seconds, then a few requests"
    " error out\"), fastapi/fastapi #3205 and #5122. A `def` handler with a response model, whose session is a"
    " dependency with `yield`; threads + connections as given, the defaults being 40 + 15; the pool's time-out is {p} s"
    " here, 30 s by default. Predicted: all is well up to threads + connections - 1 requests at once. From there"
    " on a stall can come. With threads + twice the connections it does: nothing is answered until the time-out, and"
    " some requests fail.": (
        B_54, B_70, pools(15, 15, 29), pools(15, 15, 45), pools(10, 20, 29), pools(10, 20, 50),
        pools(40, 15, 100, "/untyped", ", no response model"),
        pools(40, 15, 100, "/with", ", session inside the handler"),
    ),
    "**C. `--threads` that does nothing.** Published: ajndkr/fastapi-concurrency-tests (2023), wrk -c 100 -d 60s,"
    " each waits 10 s: requests answered; gunicorn with uvicorn's worker. Run again: 400 requests of 100 users, each"
    " waits {s} s.": (
        C_1,
        C_4,
        Case("C /io, 4 workers x 1 thread", f"{WORKERS} --path /io --workers 4 --server-args='--threads 1'", ANYIO,
             "500 answered; its slots give 500"),
        Case("C /io, 4 workers x 4 threads", f"{WORKERS} --path /io --workers 4 --server-args='--threads 4'", ANYIO),
        Case("C /async-io, 1 worker x 1 thread", f"{WORKERS} --path /async-io --workers 1 --server-args='--threads 1'",
             NONE, "500 answered; its slots give 500"),
    ),
    "**D. Figures that cannot be.** Published: amirberenji1995/technical-blog, async-or-sync.md: a `def` handler"
    " that sleeps for t = 1 s, 10 and 100 users, 10 t and 100 t, in a test of 30 s. That is one slot, so the handler of"
    " the last two rows; and no client sees 100 s within 30. Run again, all at once: t = {d} s. (For 100 users on"
    " `/def` see A.)": (
        Case("D /def, 10 users", f"{SHORT_HANDLERS} --path /def -n 10", ANYIO, "10 t"),
        D_10,
        Case("D /blocking, 100 users", f"{SHORT_HANDLERS} --path /blocking -n 100", BLOCKED),
    ),
}  # fmt: skip

# ---------------------------------------------------------------- tables


def seen(estimate: Json) -> str:
    """How many at a time the answers show, in words, and the known limit that comes first for that number."""
    low, high, stall, suspects = (estimate[name] for name in ("low", "high", "stall", "suspects"))
    if stall:
        return f"no answer for {stall['until_s'] - stall['from_s']:.0f} s"
    many = f"{low} to {high} at a time" if high != low else f"{low} at a time"
    words = {"none": f"no limit up to {low} at a time", "unknown": "not known"}
    text = words.get(estimate["seen"], many if high else f"at least {low} at a time")
    return f"{text}: {suspects[0]['name']}?" if suspects else text


def due_of(document: SweepDocument, case: Case) -> float | None:
    """When the last answer is due; None: not known."""
    return case.due_t * float(document.values["t"]) or document.predictions.get(case.name)


def judge_case(document: SweepDocument, case: Case) -> list[Any]:
    """Whether each repeat went as predicted."""
    due_s, timeout_s = due_of(document, case), float(document.values["p"])
    return [case.as_predicted(run, due_s, timeout_s) for run in document.runs_of(case.name).values()]


def row(document: SweepDocument, case: Case) -> list[object]:
    estimates = [look_up(run, "verdict.estimate") for run in document.runs_of(case.name).values()]
    return [
        case.name,
        case.published,
        "a stall" if case.stalls else due_of(document, case),
        document.figure(case.name, TIME_S),
        document.figure(case.name, "measured.failed"),
        tally(judge_case(document, case)),
        "; ".join(dict.fromkeys(seen(estimate) for estimate in estimates if estimate)),
        case.limit,
    ]


def tables(document: SweepDocument) -> str:
    header = ("run | published | predicted, s | last answer, s | failed | as predicted | seen in the answers alone"
              " | it is")  # fmt: skip
    parts = [
        "*As predicted*: within 5 % + 100 ms, or in the range that was predicted for several workers, or explained by"
        " the split (the share that each worker took) or by CPU time; of a stall, that it lasts the pool's time-out and"
        " only that fails requests."
    ]
    for text, cases in PARTS.items():
        parts += [text.format(**document.values), table(header, (row(document, case) for case in cases))]
    return "\n\n".join(parts)


def headline(document: SweepDocument) -> list[str]:
    """The four findings, each with a figure of its table. The slots are those of the settings, if the runs fit them."""
    handlers = A_DEF, A_EXECUTOR
    threads, executor = (document.figure(case.name, "plan.slots").typical for case in handlers)
    below, at, one, four, blocked = (document.figure(case.name, TIME_S) for case in (B_54, B_70, C_1, C_4, D_10))
    is_same = all(abs(ratio - 1) <= FITS_WITHIN for ratio in (four / one).values())
    slots = (
        f"Requests run {threads} at a time in a `def` handler, {executor} at a time in asyncio.to_thread (min(32,"
        " CPUs + 4))."
    )
    return [
        *[slots] * all(all(judge_case(document, case)) for case in handlers),
        f"40 threads and a pool of 15 answer 54 requests at once in {below.typical} s. Of 70 the last answer"
        f" takes {at.typical} s with a pool time-out of {document.values['p']} s (30 s by default).",
        f"gunicorn's --threads {'does nothing for' if is_same else 'and'} uvicorn workers: with 4 instead of 1 the run"
        f" takes {four.typical} s instead of {one.typical} s. A handler that blocks the event loop serves 10 waits of"
        f" {document.values['d']} s in {blocked.typical} s.",
    ]


SUITE = Suite(
    "limits of default settings: published figures, and the setting that each of them is",
    "63 runs, about 6 min; --quick 21 runs, 1 min",
    "Each was predicted from slots before it was run.",
    tables,
    headline,
    variants=tuple(
        Variant(case.name, case.arguments, part, env=case.env, may_fail=case.stalls)
        for part, cases in PARTS.items()
        for case in cases
    ),
    full={"t": "0.3", "s": "0.5", "d": "0.1", "p": "2"},
    quick={"t": "0.1", "s": "0.2", "d": "0.05", "p": "1"},
)
