"""One queue or four: the same 16 slots at the same load, and what each arrangement of them does to the slowest 1 %.

gunicorn's sync workers accept a connection only when they are idle: all requests wait in one queue, the kernel's. Its
threaded workers accept whatever arrives: each has a queue of its own, and a request in a long one stays there while
other workers idle. --worker-connections equal to --threads gives the one queue back. Part of suite why.
"""

import functools
import math
import random
import statistics
from typing import Any, NamedTuple

from engine.model import Service, poisson_schedule, predict
from engine.stats import figures_of
from suites.common import (
    P99_S,
    PREDICTED,
    Drawing,
    Json,
    Repeats,
    SweepDocument,
    Variant,
    draw_rows,
    look_up,
    table,
    tally,
)

# ---------------------------------------------------------------- arrangements

SLOTS, HELD_S, RATE, SEED = 16, 0.05, 256.0, 1  # 80 % of S / t
DEALS = 200  # simulated ways to deal the requests out at random
LOAD = f"--path /io --rate {RATE:g} --arrivals poisson --seed {SEED} -n {{m}} --task-time {HELD_S} --warmup 32"
GUNICORN_THREADS = "--target flask-gunicorn-threads"
TOLERANCE_OF_P99, TOLERANCE_OF_SPLIT = 0.15, 0.25  # of a figure that few requests decide
GIVEN_S = "split_prediction.p99_s"


class Arrangement(NamedTuple):
    """queues: the slots behind each queue."""

    name: str
    queues: tuple[int, ...]
    arguments: str


GTHREAD = "-k gthread --threads 1"  # of one thread gunicorn makes a sync worker, unless it is told otherwise
ONE = Arrangement("1 x 16 threads", (16,), f"{GUNICORN_THREADS} --workers 1 --threads 16")
FOUR = Arrangement("4 x 4 threads", (4,) * 4, f"{GUNICORN_THREADS} --workers 4 --threads 4")
FOUR_AS_ONE = Arrangement("4 x 4 threads, --worker-connections 4", (16,),
                          f"{FOUR.arguments} --server-args '--worker-connections 4'")  # fmt: skip
ARRANGEMENTS = (
    Arrangement("16 sync workers", (16,), "--target flask-gunicorn --workers 16"),
    ONE,
    Arrangement("2 x 8 threads", (8, 8), f"{GUNICORN_THREADS} --workers 2 --threads 8"),
    FOUR,
    Arrangement("16 x 1 threads", (1,) * 16, f"{GUNICORN_THREADS} --workers 16 --server-args '{GTHREAD}'"),
    FOUR_AS_ONE,
    Arrangement("16 x 1 threads, --worker-connections 1", (16,),
                f"{GUNICORN_THREADS} --workers 16 --server-args '{GTHREAD} --worker-connections 1'"),
)  # fmt: skip
VARIANTS = tuple(Variant(one.name, f"{LOAD} {one.arguments}", "queues") for one in ARRANGEMENTS)

# ---------------------------------------------------------------- predicted


@functools.cache
def predicted(queues: tuple[int, ...], requests: int) -> Repeats:
    """The p99 in seconds, by following each request of the very schedule that is sent. With several queues, of many
    deals at random: what leaves out 5 % of them on each side, and in between the median.

    >>> print(predicted((16,), 1500).in_ms())
    76.3
    """
    due_s, p99_s = poisson_schedule(RATE, requests, math.inf, SEED), list[float]()
    for deal in range(DEALS if len(queues) > 1 else 1):
        dice = random.Random(deal)
        forecast = predict(due_s, Service(queues), HELD_S, [dice.randrange(len(queues)) for _ in due_s])
        p99_s.append(figures_of(forecast)["p99_s"] or max(forecast.answered_s))
    p99_s.sort()
    cut = len(p99_s) // 20
    return Repeats(enumerate((p99_s[cut], statistics.median(p99_s), p99_s[-1 - cut])))


# ---------------------------------------------------------------- tables


def as_predicted(run: Json, due_s: Repeats) -> Any:
    """One queue: p99 within 15 %. Several: no better than dealt at random, and within 25 % given the split."""
    p99_s, given_s, low_s = look_up(run, P99_S), look_up(run, GIVEN_S), due_s[0]
    if run["measured"]["failed"] or not p99_s:
        return False
    if low_s == due_s[2]:
        return abs(p99_s / low_s - 1) <= TOLERANCE_OF_P99
    return bool(given_s) and p99_s >= low_s and abs(p99_s / given_s - 1) <= TOLERANCE_OF_SPLIT


def tables(document: SweepDocument) -> str:
    requests, rows = int(document.values["m"]), list[Any]()
    for name, queues, _ in ARRANGEMENTS:
        due = predicted(queues, requests)
        rows.append(
            [
                name,
                len(queues),
                document.latency_ms(name, "median"),
                due.in_ms(),
                document.figure(name, GIVEN_S).in_ms() if len(queues) > 1 else "",
                document.latency_ms(name, "p99"),
                tally(as_predicted(run, due) for run in document.runs_of(name).values()),
            ]
        )
    return (
        f"**One queue or four.** {SLOTS} slots of {HELD_S * 1000:g} ms, {RATE:g} requests/s that arrive at random"
        f" (Poisson, seed {SEED}), {RATE * HELD_S / SLOTS:.0%} of what they can serve; {requests} requests, a new"
        " connection each. *Predicted*: of one queue by following each request of that very schedule; of several the"
        f" median of {DEALS} deals at random, in brackets 90 % of them. *Given the split*: once more, given which"
        f" worker took which request. One queue's p99 is as predicted within {TOLERANCE_OF_P99:.0%}. The p99 of several"
        f" is as predicted if it is no better than at random, and within {TOLERANCE_OF_SPLIT:.0%} given the split."
        f" The p99 of four queues is {document.ratio(FOUR.name, ONE.name, P99_S)} times the p99 of one.\n\n"
    ) + table("gunicorn | queues | p50 ms | predicted p99 ms | given the split | measured p99 ms | as predicted", rows)


def headline(document: SweepDocument) -> list[str]:
    one, four, as_one = (document.latency_ms(of.name, "p99") for of in (ONE, FOUR, FOUR_AS_ONE))
    return [
        f"The same {SLOTS} slots at the same load: p99 is {one.typical} ms with one queue (1 x 16 threads), {four} ms"
        f" with gunicorn's 4 x 4 threads, {(four / one).typical} times as long, and {as_one.typical} ms once"
        " --worker-connections equals --threads. A worker accepts connections that it has no thread for, and they wait"
        " there while others have threads free."
    ]


# ---------------------------------------------------------------- picture


def draw_queues(document: SweepDocument, drawing: Drawing) -> None:
    """Median and p99 of each arrangement, and under the p99 what was predicted."""
    rows = {}
    for name, queues, _ in ARRANGEMENTS:
        due, given = predicted(queues, int(document.values["m"])), document.figure(name, GIVEN_S)
        rows[name] = [
            ("p99, predicted", due.in_ms(), 0.1, PREDICTED),
            ("p50, measured", document.latency_ms(name, "median"), -0.2, "oC2"),
            ("p99, measured", document.latency_ms(name, "p99"), 0.1, "oC0"),
        ]
        if len(queues) > 1:
            rows[name].append(("p99, given which worker took which request", given.in_ms(), 0.35, "oC1"))
    share = f"{RATE * HELD_S / SLOTS:.0%} of what they can serve"
    draw_rows(drawing, f"latency, ms (log scale); {SLOTS} slots in all, Poisson arrivals at {share}", rows)
