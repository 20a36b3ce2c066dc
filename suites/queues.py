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

from engine.deals import WITHIN, mean_shares
from engine.model import Service, poisson_schedule, predict
from engine.stats import figures_of
from engine.words import per_cent
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
MOST_SHOWN = 4  # shares in a sentence
DEALS = 200  # simulated ways to deal the requests out at random
LOAD = f"--path /io --rate {RATE:g} --arrivals poisson --seed {SEED} -n {{m}} --task-time {HELD_S} --warmup 32"
GUNICORN_THREADS = "--target flask-gunicorn-threads"
TOLERANCE_OF_P99 = 0.15  # of a figure that few requests decide
PREFERS = 1.1  # a worker is preferred that takes so many times its even share
LOAD_SHARE = per_cent(RATE * HELD_S / SLOTS)
GIVEN_S, RANGE_S = "split_prediction.p99_s", "prediction.p99_range_s"


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
REUSE_PORT = Arrangement("4 x 4 threads, --reuse-port", (4,) * 4, f"{FOUR.arguments} --server-args '--reuse-port'")
ARRANGEMENTS = (
    Arrangement("16 sync workers", (16,), "--target flask-gunicorn --workers 16"),
    ONE,
    Arrangement("2 x 8 threads", (8, 8), f"{GUNICORN_THREADS} --workers 2 --threads 8"),
    FOUR,
    REUSE_PORT,
    Arrangement("16 x 1 threads", (1,) * 16, f"{GUNICORN_THREADS} --workers 16 --server-args '{GTHREAD}'"),
    FOUR_AS_ONE,
    Arrangement("16 x 1 threads, --worker-connections 1", (16,),
                f"{GUNICORN_THREADS} --workers 16 --server-args '{GTHREAD} --worker-connections 1'"),
)  # fmt: skip
VARIANTS = tuple(Variant(one.name, f"{LOAD} {one.arguments}", "queues") for one in ARRANGEMENTS)

# ---------------------------------------------------------------- predicted


@functools.cache
def if_even(queues: tuple[int, ...], requests: int) -> Repeats:
    """The p99 in seconds, by following each request of the very schedule that is sent. With several queues, of many
    deals at random where each worker is as likely as any other: what leaves out 5 % of them on each side, and in
    between the median.

    >>> print(if_even((16,), 1500).in_ms())
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


def predicted(document: SweepDocument, name: str, queues: tuple[int, ...]) -> Repeats:
    """The same with the shares that this machine's kernel gives the workers: they were measured before the runs, in
    another one. Of one queue the shares do not matter. Empty: they were not measured."""
    if len(queues) == 1:
        return if_even(queues, int(document.values["m"]))
    ranges_s = [look_up(run, RANGE_S) for run in document.runs_of(name).values()]
    middle_s = document.figure(name, "prediction.p99_s")
    if not ranges_s or not all(ranges_s):
        return Repeats()
    lows_s, highs_s = zip(*ranges_s, strict=True)
    return Repeats(enumerate((statistics.median(lows_s), statistics.median(middle_s.values()),
                              statistics.median(highs_s))))  # fmt: skip


# ---------------------------------------------------------------- tables


def as_predicted(run: Json, due_s: Repeats) -> bool:
    """One queue: p99 within 15 %. Several: in the range that was predicted for this run."""
    p99_s = look_up(run, P99_S)
    if run["measured"]["failed"] or not p99_s or not due_s:
        return False
    low_s, _, high_s = due_s.values()
    if low_s == high_s:
        return bool(abs(p99_s / low_s - 1) <= TOLERANCE_OF_P99)
    low_s, high_s = look_up(run, RANGE_S)
    return bool(low_s <= p99_s <= high_s)


def tables(document: SweepDocument) -> str:
    requests, rows = int(document.values["m"]), list[Any]()
    for name, queues, _ in ARRANGEMENTS:
        due = predicted(document, name, queues)
        rows.append(
            [
                name,
                len(queues),
                document.latency_ms(name, "median"),
                if_even(queues, requests).in_ms(),
                due.in_ms(),
                document.figure(name, GIVEN_S).in_ms() if len(queues) > 1 else "",
                document.latency_ms(name, "p99"),
                tally(as_predicted(run, due) for run in document.runs_of(name).values()),
            ]
        )
    return (
        f"**One queue or four.** {SLOTS} slots of {HELD_S * 1000:g} ms, {RATE:g} requests/s that arrive at random"
        f" (Poisson, seed {SEED}), {LOAD_SHARE} of what they can serve; {requests} requests, a new"
        " connection each. *If even*: of one queue by following each request of that very schedule; of several the"
        f" median of {DEALS} deals at random where each worker is as likely as any other, in brackets 90 % of them."
        " *Predicted*: such a median with the shares that the kernel gave the workers of a small app in other, earlier"
        f" runs: {shares_text(document)}. Its brackets hold 90 % of the deals, and {per_cent(WITHIN)} more at each end."
        " *Given the split*: once more, given which worker took which request. One queue's p99 is as predicted within"
        f" {per_cent(TOLERANCE_OF_P99)}, the p99 of several if it lies in the range. The p99 of four queues is"
        f" {document.ratio(FOUR.name, ONE.name, P99_S)} times the p99 of one.\n\n"
    ) + table(
        "gunicorn | queues | p50 ms | p99 ms if even | predicted | given the split | measured | as predicted", rows
    )


def whole_per_cent(share: float) -> str:
    return per_cent(round(share, 2))


def shares_text(document: SweepDocument) -> str:
    """Which part of the requests each worker took when that was measured; of several starts the mean."""
    texts = []
    for name, queues, _ in ARRANGEMENTS:
        deals = [run["plan"]["deal"] for run in document.runs_of(name).values() if run["plan"].get("deal")]
        if 1 < len(queues) <= MOST_SHOWN and deals:
            shares = mean_shares(deals[0]["shares"])
            texts.append(f"{' + '.join(map(whole_per_cent, shares))} for {name}")
    return "; ".join(texts) or "not measured"


def headline(document: SweepDocument) -> list[str]:
    one, four, as_one, hashed = (document.latency_ms(of.name, "p99") for of in (ONE, FOUR, FOUR_AS_ONE, REUSE_PORT))
    due = predicted(document, FOUR.name, FOUR.queues).in_ms()
    taken = [run["inside"]["requests_of_workers"].values() for run in document.runs_of(FOUR.name).values()]
    share = statistics.median(max(of_run) / sum(of_run) for of_run in taken)
    even = if_even(FOUR.queues, int(document.values["m"])).in_ms()
    found = [
        f"The same {SLOTS} slots at the same load, {LOAD_SHARE} of what they can serve. With one queue (1 x 16 threads)"
        f" the p99 is {one.typical} ms. With gunicorn's 4 x 4 threads it is {four} ms, {(four / one).typical} times as"
        " long."
    ]
    if min((four / one).values(), default=0) > 1:
        found.append(
            "A worker accepts connections that it has no thread for. They wait there while other workers have threads"
            " free."
        )
    if share > PREFERS / len(FOUR.queues):
        found.append(
            f"And the kernel prefers some workers: one of the four took {whole_per_cent(share)} of the connections, so"
            f" it is full at {whole_per_cent(1 / (len(FOUR.queues) * share))} of what all {SLOTS} slots can serve."
        )
    predicts = f"From the shares of earlier runs {due} ms were predicted; equal" if due else "Equal"
    return [
        *found,
        f"{predicts} shares would give {even} ms.",
        f"With --worker-connections equal to --threads there is one queue again: {as_one.typical} ms. With --reuse-port"
        f" each worker has a listen queue of its own, and the kernel deals by a hash: {hashed} ms.",
    ]


# ---------------------------------------------------------------- picture


def draw_queues(document: SweepDocument, drawing: Drawing) -> None:
    """Median and p99 of each arrangement, and under the p99 what was predicted."""
    rows = {}
    for name, queues, _ in ARRANGEMENTS:
        due, given = predicted(document, name, queues), document.figure(name, GIVEN_S)
        rows[name] = [
            ("p99, predicted", due.in_ms(), 0.1, PREDICTED),
            ("p50, measured", document.latency_ms(name, "median"), -0.2, "oC2"),
            ("p99, measured", document.latency_ms(name, "p99"), 0.1, "oC0"),
        ]
        if len(queues) > 1:
            rows[name].append(("p99, given which worker took which request", given.in_ms(), 0.35, "oC1"))
    load = f"{SLOTS} slots in all, Poisson arrivals at {LOAD_SHARE} of what they can serve"
    draw_rows(drawing, f"latency, ms (log scale); {load}", rows)
