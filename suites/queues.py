"""One queue or four: the same 16 slots at the same load, and what each arrangement of them does to the slowest 1 %.

gunicorn's sync workers accept a connection only when they are idle: all requests
wait in one queue, the kernel's. Its threaded workers accept whatever arrives: each
has a queue of its own, and who is in a long one stays there while other workers
idle. --worker-connections equal to --threads gives the one queue back. Part of
suite why, which runs it and says that it was predicted first.
"""

from __future__ import annotations

import functools
import math
import random
import statistics
from typing import NamedTuple

import load
import slots
from explain import Run
from suites import (
    BLUE,
    GREEN,
    ORANGE,
    PALE,
    Document,
    Figure,
    Variant,
    figures,
    label_log,
    look_up,
    paired,
    runs_of,
    short,
    spread,
    spread_ms,
    table,
    typical,
)
from suites.experiments import verdict

# ---------------------------------------------------------------- arrangements

SLOTS, WAIT_S, RATE, SEED = 16, 0.05, 256.0, 1  # 80 % of S / t
DEALS = 200  # simulated ways to deal the requests out at random
LOAD = f"--path /io --rate {RATE:g} --arrivals poisson --seed {SEED} -n {{m}} --task-time {WAIT_S} --warmup 32"
THREADS = "--target flask-gunicorn-threads"
TOLERANCE, TOLERANCE_OF_SPLIT = 0.15, 0.25  # of p99, a figure that few requests decide


class Arrangement(NamedTuple):
    """queues: the slots behind each queue."""

    name: str
    arguments: str
    queues: tuple[int, ...]


ONE, FOUR = "1 x 16 threads", "4 x 4 threads"
FOUR_AS_ONE = "4 x 4 threads, --worker-connections 4"
ARRANGEMENTS = (
    Arrangement("16 sync workers", "--target flask-gunicorn --workers 16", (16,)),
    Arrangement(ONE, f"{THREADS} --workers 1 --threads 16", (16,)),
    Arrangement("2 x 8 threads", f"{THREADS} --workers 2 --threads 8", (8, 8)),
    Arrangement(FOUR, f"{THREADS} --workers 4 --threads 4", (4,) * 4),
    # Of one thread gunicorn makes a sync worker, unless it is told otherwise.
    Arrangement("16 x 1 threads", f"{THREADS} --workers 16 --server-args '-k gthread --threads 1'", (1,) * 16),
    Arrangement(FOUR_AS_ONE, f"{THREADS} --workers 4 --threads 4 --server-args '--worker-connections 4'", (16,)),
    Arrangement("16 x 1 threads, --worker-connections 1",
                f"{THREADS} --workers 16 --server-args '-k gthread --threads 1 --worker-connections 1'", (16,)),
)  # fmt: skip
OF_NAME = {arrangement.name: arrangement for arrangement in ARRANGEMENTS}
VARIANTS = tuple(Variant(one.name, f"{LOAD} {one.arguments}", "queues") for one in ARRANGEMENTS)
# ---------------------------------------------------------------- predicted


class Predicted(NamedTuple):
    """Latencies. With several queues the median of many deals at random; low and high leave out 5 % on each side."""

    median_s: float
    p99_s: float
    low_s: float
    high_s: float


@functools.cache
def predicted(queues: tuple[int, ...], requests: int) -> Predicted:
    """The recursion on the very schedule that is sent.

    >>> print(*(f"{one * 1000:.1f}" for one in predicted((16,), 1500)[:2]))
    50.0 76.3
    """
    due_s, service, found = load.poisson_schedule(RATE, requests, math.inf, SEED), slots.Service(queues), []
    for deal in range(DEALS if len(queues) > 1 else 1):
        dice = random.Random(deal)
        process_of = [dice.randrange(len(queues)) for _ in due_s]
        forecast = slots.expected(slots.predict(due_s, service, WAIT_S, process_of))
        found.append((forecast["p99_s"] or forecast["makespan_s"] or 0.0, forecast["median_s"] or 0.0))
    p99_s = sorted(p99 for p99, _ in found)
    cut = len(found) // 20
    return Predicted(statistics.median(median for _, median in found), statistics.median(p99_s), p99_s[cut],
                     p99_s[-1 - cut])  # fmt: skip


def shown(found: Predicted) -> str:
    """Its p99, and of several queues the deals' spread."""
    return spread_ms([found.p99_s]) if found.low_s == found.high_s else spread_ms(found[1:])


def requests_of(document: Document) -> int:
    return int(document["values"]["m"])


def is_asked(document: Document) -> bool:
    """An older file does not know this experiment."""
    return FOUR in {name for name, _, _ in document["order"]}


def foretell(document: Document) -> list[str]:
    """The p99 of each arrangement, before anything is run."""
    if not is_asked(document):
        return []
    return [
        f"predicted  {one.name}: p99 {shown(predicted(one.queues, requests_of(document)))} ms"
        for one in ARRANGEMENTS
    ]  # fmt: skip


# ---------------------------------------------------------------- tables


def as_predicted(run: Run, found: Predicted) -> bool:
    """One queue: p99 within 15 %. Several: no better than dealt at random, and within 25 % given who took which."""
    p99_s, given_split_s = look_up(run, "latency_s.p99"), look_up(run, "split_prediction.p99_s")
    if run["failed"] or p99_s is None:
        return False
    if found.low_s == found.high_s:
        return abs(p99_s / found.p99_s - 1) <= TOLERANCE
    return p99_s >= found.low_s and given_split_s is not None and abs(p99_s / given_split_s - 1) <= TOLERANCE_OF_SPLIT


def in_ms(document: Document, name: str, key: str) -> str:
    return spread_ms(list(figures(document, name, key).values()))


def p99_ms(document: Document, name: str) -> str:
    return in_ms(document, name, "latency_s.p99")


def row(document: Document, one: Arrangement) -> list[str]:
    found, runs = predicted(one.queues, requests_of(document)), runs_of(document, one.name).values()
    several = len(one.queues) > 1
    return [
        one.name,
        str(len(one.queues)),
        in_ms(document, one.name, "latency_s.median"),
        shown(found),
        in_ms(document, one.name, "split_prediction.p99_s") if several else "",
        p99_ms(document, one.name),
        f"{sum(as_predicted(run, found) for run in runs)} of {len(runs)}",
    ]


def sentence(document: Document, believed: str, happened: str, names: tuple[str, ...], explains: str) -> str:
    """An experiment in the words of the others; good is a repeat in which all these arrangements went as predicted."""
    runs = {name: runs_of(document, name) for name in names}
    repeats = set.intersection(*(set(of_name) for of_name in runs.values()))
    good = sum(
        all(as_predicted(runs[name][repeat], predicted(OF_NAME[name].queues, requests_of(document))) for name in names)
        for repeat in repeats
    )  # fmt: skip
    return f"- {believed} Happened: {happened}, {verdict(good, len(repeats), explains)}"


def about(requests: int) -> str:
    """What was run, and how it is predicted and judged."""
    exact_ms = short((slots.md_c_wait_quantile(RATE, WAIT_S, SLOTS, 99) + WAIT_S) * 1000)
    return (
        f"**One queue or four.** {SLOTS} slots of {WAIT_S * 1000:g} ms, {RATE:g} requests/s that arrive at random"
        f" (Poisson, seed {SEED}), {RATE * WAIT_S / SLOTS:.0%} of what they can serve; {requests} requests, a new"
        " connection each. *Predicted*: of one queue the recursion on the very schedule (in the long run, M/D/c:"
        f" {exact_ms} ms); of several the median of {DEALS} deals at random, in brackets 90 % of them. *Given the"
        " split*: the recursion once more, knowing which worker took which request. As predicted is one queue's p99"
        f" within {TOLERANCE:.0%}; that of several if no better than at random, and within {TOLERANCE_OF_SPLIT:.0%}"
        " given the split."
    )


def times(document: Document) -> str:
    """The p99 of four queues in that of one, within each repeat."""
    return spread(paired(*(figures(document, name, "latency_s.p99") for name in (FOUR, ONE))))


def sentences(document: Document) -> str:
    ones, fours = (shown(predicted(queues, requests_of(document))) for queues in ((SLOTS,), (4,) * 4))
    one, four, as_one = (p99_ms(document, name) for name in (ONE, FOUR, FOUR_AS_ONE))
    return "\n".join([
        sentence(document, "**one queue or four.** Believed: 16 slots are 16 slots. Changed: the queues before them,"
                 f" 1 x 16 threads -> 4 x 4. Predicted: p99 {ones} ms -> {fours} ms.",
                 f"{one} ms -> {four} ms, {times(document)} times as long", (ONE, FOUR),
                 "who is in a long queue stays there while other workers have threads free"),
        sentence(document, "**--worker-connections.** Believed: gunicorn's default of 1000 is a limit that nobody"
                 f" meets. Changed: --worker-connections of the 4 x 4 threads, 1000 -> 4. Predicted: p99 {fours} ms ->"
                 f" {ones} ms.",
                 f"{four} ms -> {as_one} ms", (FOUR, FOUR_AS_ONE),
                 "a worker that accepts no more than it has threads for leaves the rest in the kernel's one queue"),
    ])  # fmt: skip


def tables(document: Document) -> str:
    if not is_asked(document):
        return ""
    header = ["gunicorn", "queues", "p50 ms", "predicted p99 ms", "given the split", "measured p99 ms", "as predicted"]
    rows = [row(document, arrangement) for arrangement in ARRANGEMENTS]
    return "\n\n".join([about(requests_of(document)), table(header, rows), sentences(document)])


def headline(document: Document) -> list[str]:
    one, four, as_one = (p99_ms(document, name) for name in (ONE, FOUR, FOUR_AS_ONE))
    if not is_asked(document) or "-" in (one, four, as_one):
        return []
    return [
        f"The same {SLOTS} slots at the same load: p99 is {typical(one)} ms with one queue (1 x 16 threads), {four} ms"
        f" with gunicorn's 4 x 4 threads, {typical(times(document))} times as long, and {typical(as_one)} ms once"
        " --worker-connections equals --threads: a worker accepts connections that it has no thread for, and they wait"
        " there while others have threads free."
    ]


# ---------------------------------------------------------------- picture


def draw(document: Document, figure: Figure) -> None:
    """Median and p99 of each arrangement, and under them what was predicted."""
    panel, rows = figure.subplots(), ARRANGEMENTS[::-1] if is_asked(document) else ()
    for y, one in enumerate(rows):
        found, names = predicted(one.queues, requests_of(document)), y == 0
        panel.plot([found.low_s * 1000, found.high_s * 1000], [y - 0.09] * 2, color=PALE, linewidth=9, zorder=1,
                   solid_capstyle="butt", label="90 % of deals at random" if one.name == FOUR else None)  # fmt: skip
        for place, predicted_s in ((0.19, found.median_s), (-0.09, found.p99_s)):
            panel.plot([predicted_s * 1000] * 2, [y + place - 0.17, y + place + 0.17], color="black", linewidth=2,
                       zorder=2, label="predicted before the run" if names and place > 0 else None)  # fmt: skip
        looks = (("latency_s.median", 0.19, "p50, measured", GREEN), ("latency_s.p99", -0.09, "p99, measured", BLUE),
                 ("split_prediction.p99_s", -0.36, "p99, given who took which", ORANGE))  # fmt: skip
        for key, place, label, colour in looks[: 3 if len(one.queues) > 1 else 2]:
            values_ms = [value_s * 1000 for value_s in figures(document, one.name, key).values()]
            if values_ms:
                panel.plot([min(values_ms), max(values_ms)], [y + place] * 2, color=colour, linewidth=1.2, zorder=3)
                panel.plot(values_ms, [y + place] * len(values_ms), marker="o", markersize=5, color=colour, zorder=4,
                           linestyle="", markeredgecolor="black", markeredgewidth=0.4,
                           label=label if names or one.name == FOUR else None)  # fmt: skip
    panel.set_yticks(range(len(rows)), [one.name.replace(", ", ",\n") for one in rows])
    panel.set_ylim(-0.7, len(rows) - 0.4)
    panel.grid(axis="y", visible=False)
    label_log(panel.xaxis)
    panel.set_xlabel(f"latency, ms (log scale); {SLOTS} slots in all, Poisson arrivals at"
                     f" {RATE * WAIT_S / SLOTS:.0%} of what they can serve")  # fmt: skip
    handles = dict(zip(*panel.get_legend_handles_labels()[::-1], strict=True))
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3)
