"""users - "Python: Load Test with FastAPI - Sync vs Async": 10,000 users of 1 to 16 workers.

What the post saw: `await asyncio.sleep(1)` takes 4.67 s in one worker and 1.25 s in six; `time.sleep(1)` in a `def`
takes 13 s even in sixteen; and of requests that block the event loop 81 % fail. It explains the second by "a blocking
call ties up a worker process". Then 16 workers would answer 16 requests/s; its own table has 566.

Why: a worker has 40 threads for `def` handlers, so 16 have 640 slots, and 10,000 users wait 10,000/640 s. What awaits
has no slots, but each request computes for half a millisecond, and one process answers no more than one CPU can
compute. What blocks the event loop has one slot in each worker: the number that was answered before the time-out of
60 s tells how many workers there were, which the post does not say.
"""

import math
from typing import NamedTuple

from engine.targets import ANYIO_THREADS
from suites.common import RPS, Json, Repeats, Suite, SweepDocument, Values, Variant, look_up, table, tally

POST = '"Python: Load Test with FastAPI - Sync vs Async" (Carlos Pena, 2025)'
WORKERS = 16
PUBLISHED_DEF = 566, 13.12
PUBLISHED_ANSWERED = 1903  # of 9992, in 60 s
STEADY_RPS, STEADY_S = "measured.levels.1.throughput_rps", "measured.levels.1.latency_s.mean"
MEAN_DUE_S, MEAN_S = "prediction.mean_s", "measured.latency_s.mean"
TOLERANCE_OF_ANSWERS = 0.05  # of a number of answers


class Published(NamedTuple):
    """published: requests/s and the mean latency in seconds; None: the post has no such run."""

    name: str
    arguments: str
    published: tuple[float, float] | None
    limit: str


ASYNC_IN = (
    "--target fastapi-uvicorn-workers --path /async-io --ramp {up}s:{few},{stay}s:{few} -k --task-time {t} --warmup 32"
)
ONE = Published("async def, 1 worker", f"{ASYNC_IN} --workers 1", (2044, 4.67), "the CPU time of one process")
SIX = Published("async def, 6 workers", f"{ASYNC_IN} --workers 6", (7638, 1.25), "the CPUs, or the users")
DEF_IN = (
    f"--target fastapi-uvicorn-workers --workers {WORKERS} --path /io -c {{users}} -n {{n}} -k --task-time {{t}}"
    " --warmup 64"
)
DEF = Published(f"def, {WORKERS} workers", DEF_IN, PUBLISHED_DEF, f"{WORKERS} x {ANYIO_THREADS} threads")
MORE = Published(f"def, {WORKERS} workers, --anyio-threads 60", f"{DEF_IN} --anyio-threads 60", None,
           f"{WORKERS} x 60 threads")  # fmt: skip
ROWS = ONE, SIX, DEF, MORE
# The post's handler awaits for half of its time, then blocks for the other half.
BLOCKED = Variant(
    f"async def that blocks, {WORKERS} workers",
    f"--target limits-handlers --workers {WORKERS} --path /half-blocking -n {{users}} --timeout {{timeout}}"
    " --task-time {t}",
    may_fail=True,
)

# ---------------------------------------------------------------- what is due


def due_before(timeout_s: float, wait_s: float, workers: int, users: int) -> int:
    """How many requests are answered before the time-out, if each awaits half of its wait and blocks its worker's event
    loop for the other half: the first of each worker after a whole wait, then one after each half.

    >>> due_before(60, 1, 16, 10_000)
    1904
    """
    return min(users, workers * math.floor((timeout_s - wait_s) / (wait_s / 2) + 1))


def due_in(values: Values) -> int:
    return due_before(float(values["timeout"]), float(values["t"]), WORKERS, int(values["users"]))


def workers_from(answered: float, timeout_s: float, wait_s: float) -> float:
    """The same, solved for the workers.

    >>> workers_from(1903, 60, 1)
    15.99...
    """
    return answered / due_before(timeout_s, wait_s, 1, 10**9)


def is_as_predicted(run: Json) -> bool:
    """Within the band of the slots, of the shares that the workers took, or of the CPU time that was used."""
    return not run["measured"]["failed"] and look_up(run, "verdict.explained_by") in ("prediction", "split", "cpu")


# ---------------------------------------------------------------- tables


def good_runs(document: SweepDocument, row: Published) -> str:
    return tally(is_as_predicted(run) for run in document.runs_of(row.name).values())


def def_row(document: SweepDocument, row: Published) -> list[object]:
    def figure(path: str) -> Repeats:
        return document.figure(row.name, path)

    published_rps, published_s = row.published or (None, None)
    return [
        row.name, published_rps, figure("prediction.throughput_rps"), figure("split_prediction.throughput_rps"),
        figure(RPS), published_s, figure(MEAN_DUE_S), figure("split_prediction.mean_s"), figure(MEAN_S),
        good_runs(document, row), row.limit,
    ]  # fmt: skip


def async_row(document: SweepDocument, row: Published) -> list[object]:
    """Little's law: users over throughput is what each user waits, whatever the reason."""
    assert row.published
    published_rps, published_s = row.published
    users, measured = float(document.values["few"]), document.figure(row.name, STEADY_RPS)
    by_law = Repeats({repeat: users / rps for repeat, rps in measured.items()})
    return [
        row.name, published_rps, 10_000 / published_rps, published_s, measured, by_law,
        document.figure(row.name, STEADY_S), good_runs(document, row), row.limit,
    ]  # fmt: skip


def blocked_row(document: SweepDocument) -> list[object]:
    answered, due = document.figure(BLOCKED.name, "measured.answered"), due_in(document.values)
    good = tally(abs(one - due) <= TOLERANCE_OF_ANSWERS * due for one in answered.values())
    late, reset = (document.figure(BLOCKED.name, f"measured.errors.{error}") for error in ("timed out", "reset"))
    return [BLOCKED.name, PUBLISHED_ANSWERED, due, answered, good, late, reset, "the event loop of each worker"]


def tables(document: SweepDocument) -> str:
    values = document.values
    return "\n\n".join([
        f"Published: {POST}, k6, 10,000 users, each on a connection of its own that is kept; the handler waits 1 s."
        f" Run again: {values['users']} users, each waits {values['t']} s; {values['n']} requests. *Split*: with as"
        " many users in each worker as the kernel gave it. *As predicted*: within the band of the slots, of the split,"
        " or of the CPU time that was used.",
        table("handler | published requests/s | slots give | split | measured | published mean, s | slots give | split"
              " | measured | as predicted | limit", (def_row(document, row) for row in (DEF, MORE))),
        f"What awaits has no slots: each user would wait {values['t']} s. But users / (requests/s) is the latency,"
        f" and requests/s are what the CPUs can compute. Run again with {values['few']} users, in the last"
        f" {values['stay']} s of the run, when all of them are there.",
        table("handler | published requests/s | 10,000 users over them, s | published mean, s | measured requests/s"
              f" | {values['few']} users over them, s | measured mean, s | as predicted | limit",
              (async_row(document, row) for row in (ONE, SIX))),
        f"{values['users']} at once, on a handler that awaits half of its wait and blocks the event loop for the other"
        f" half; the client waits {values['timeout']} s at most. *Due*: the first answer of each worker after a whole"
        " wait, then one after each half. *As predicted*: within 5 %. All others got no answer: the client gave them up"
        " after that time (*timed out*), or their connection was reset.",
        table("handler | published: answered in 60 s | due | answered | as predicted | timed out | reset | limit",
              [blocked_row(document)]),
    ])  # fmt: skip


def headline(document: SweepDocument) -> list[str]:
    """The three figures of the post, and what each is. None after a first look, which has other users and waits."""
    values, figure = document.values, document.figure
    if values != SUITE.full:
        return []
    found, more = (figure(row.name, RPS).typical for row in (DEF, MORE))
    due_s, mean_s = (figure(DEF.name, path).typical for path in (MEAN_DUE_S, MEAN_S))
    answered = figure(BLOCKED.name, "measured.answered").typical
    return [
        f"The post says that a blocking call ties up a worker. Then {WORKERS} workers would answer {WORKERS} a second;"
        f" it has {PUBLISHED_DEF[0]}. Each worker has {ANYIO_THREADS} threads, and {WORKERS * ANYIO_THREADS} slots give"
        f" 10,000 users a mean latency of {due_s} s: published {PUBLISHED_DEF[1]} s, measured {mean_s} s at {found}"
        f" requests/s, and {more} with 60 threads each.",
        "A handler that only awaits for 1 s took 4.67 s in one worker: 10,000 users over 2044 requests/s, all that one"
        f" process can compute, are {10_000 / 2044:.2f} s. Here {values['few']} users got"
        f" {figure(ONE.name, STEADY_RPS).typical} requests/s and a mean of {figure(ONE.name, STEADY_S).typical} s.",
        f"Of a handler that blocks, {PUBLISHED_ANSWERED} requests were answered in 60 s. That is"
        f" {workers_from(PUBLISHED_ANSWERED, 60, 1):.1f} workers, which the post does not say; with {WORKERS},"
        f" {due_in(values)} are due and {answered} were answered here.",
    ]  # fmt: skip


SUITE = Suite(
    '"Python: Load Test with FastAPI - Sync vs Async": 10,000 users of 1 to 16 workers',
    "15 runs, about 13 min; --quick 5 runs, 1 min",
    f"{POST}, k6.",
    tables,
    headline,
    variants=(*(Variant(row.name, row.arguments) for row in ROWS), BLOCKED),
    full={"users": "10000", "n": "29200", "few": "4000", "up": "8", "stay": "12", "t": "1", "timeout": "60"},
    quick={"users": "800", "n": "2400", "few": "400", "up": "1", "stay": "2", "t": "0.2", "timeout": "3"},
)
