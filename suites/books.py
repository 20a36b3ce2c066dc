"""books - "Async FastAPI, Measured": a Books API on Postgres, and what its 3.7 x is.

The post compares FastAPI with 4 x 15 database connections to Flask with 4 x 4: 60 slots to 16, a ratio of 3.75. With
the same slots the ratio is gone.
"""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from engine.loads import Ramp
from engine.targets import SEEDED_BOOKS
from suites.common import (
    PINNED,
    PREDICTED,
    RPS,
    Drawing,
    Repeats,
    Suite,
    SweepDocument,
    Variant,
    draw_rows,
    look_up,
    table,
    was_pinned,
)

# ---------------------------------------------------------------- published, and run again

POST = '"Async FastAPI, Measured" (bilouro, 2026)'


class Row(NamedTuple):
    """A workload on one of the two apps. fan_out: its settings, in words. published: requests/s, p50 and p95 in ms."""

    name: str
    workload: str
    target: str
    settings: str = ""
    fan_out: str = ""
    published: tuple[float, ...] = ()


FLASK_BOOKS, FASTAPI_BOOKS = "flask-books", "fastapi-books"
POSTED = (
    Row("read, Flask", "read", FLASK_BOOKS, published=(1476, 276, 789)),
    Row("read, FastAPI", "read", FASTAPI_BOOKS, published=(1692, 165, 938)),
    Row("mixed, Flask", "mixed", FLASK_BOOKS, published=(1326, 232, 422)),
    Row("mixed, FastAPI", "mixed", FASTAPI_BOOKS, published=(1413, 171, 593)),
    Row("fanout, Flask", "fanout", FLASK_BOOKS, "", "4 workers x 4 threads, pool 4*", (265, 905, 2615)),
    Row("fanout, FastAPI", "fanout", FASTAPI_BOOKS, "", "4 workers, pool 15*", (992, 226, 733)),
)
FAN_OUT = (  # the same again with other slots
    *POSTED[4:],
    Row("fanout, FastAPI with 16", "fanout", FASTAPI_BOOKS, "--pool-size 4", "4 workers, pool 4"),
    Row("fanout, Flask with 60", "fanout", FLASK_BOOKS, "--workers 4 --threads 15 --pool-size 15",
        "4 workers x 15 threads, pool 15"),
    Row("fanout, Flask, one process", "fanout", FLASK_BOOKS, "--workers 1 --threads 60 --pool-size 60",
        "1 worker x 60 threads, pool 60"),
    Row("fanout, FastAPI, one process", "fanout", FASTAPI_BOOKS, "--workers 1 --pool-size 60", "1 worker, pool 60"),
)  # fmt: skip
FAN_OUT_RATIOS = {
    ("fanout, FastAPI", "fanout, Flask"): "60 slots to 16, as published: 3.74",
    ("fanout, FastAPI with 16", "fanout, Flask"): "16 slots each",
    ("fanout, FastAPI", "fanout, Flask with 60"): "60 slots each",
    ("fanout, FastAPI, one process", "fanout, Flask, one process"): "60 slots each, in one process",
}
# Postgres and the client share one CPU, the app has the other: the same budget for both frameworks.
VARIANTS = tuple(
    Variant(row.name, f"--target {row.target} {row.settings} --workload {row.workload} --scale {{scale}} --warmup 200"
            f" {PINNED}", row.workload)
    for row in dict.fromkeys((*POSTED, *FAN_OUT))
)  # fmt: skip


def ramp_rps(stages: Sequence[tuple[float, int]], slots: float, wait_s: float) -> float:
    """Predicted answers/s over a whole ramp: at each moment min(users, slots) / t.

    >>> round(ramp_rps([(10, 40)], 16, 0.05))  # 0 to 40 users in 10 s: the 16 slots are full after 4 s
    260
    """
    ramp, step_s = Ramp(stages=tuple(stages)), sum(stage_s for stage_s, _ in stages) / 10_000
    return statistics.fmean(min(ramp.limits((step + 0.5) * step_s)[1], slots) for step in range(10_000)) / wait_s


def slots_of(document: SweepDocument, name: str) -> tuple[int, float, float]:
    """Slots, what they allow when all are full, and what they allow over the whole ramp, in answers/s."""
    plan = next(iter(document.runs_of(name).values()))["plan"]
    slots, wait_s = plan["slots"], plan["wait_s"]
    return slots, slots / wait_s, ramp_rps(plan["load"]["stages"], slots, wait_s)


# ---------------------------------------------------------------- tables


def counted(document: SweepDocument) -> str:
    """What Postgres counted in all runs, beside what was sent."""
    runs = [entry["run"] for entry in document.runs]

    def total(path: str) -> int:
        return sum(look_up(run, path) or 0 for run in runs)

    requests = total("measured.sent") + total("measured.warmed_up")
    more_rows = total("inside.database.rows") - SEEDED_BOOKS * len(runs)
    return (
        f"The database's own count, over {len(runs)} runs: {total('inside.database.statements')} SQL statements for"
        f" {requests} requests; {more_rows} rows more for {total('measured.created')} POSTs answered 201."
    )


def tables(document: SweepDocument) -> str:
    figure = document.figure
    pinned = "The app on CPU 0; Postgres and the client on CPU 1: the same budget for both."
    where = pinned if was_pinned(document) else "Nothing was pinned to a CPU."
    workloads, fan_outs, ratios = list[Any](), list[Any](), list[Any]()
    for row in POSTED:
        latencies = (document.latency_ms(row.name, key) for key in ("median", "p95"))
        workloads.append([row.name, *row.published, figure(row.name, RPS), *latencies])
    slots = {row.name: slots_of(document, row.name) for row in FAN_OUT if document.runs_of(row.name)}
    for row in FAN_OUT:
        if row.name in slots:
            of_slots, most_rps, ramp = slots[row.name]
            last = figure(row.name, "measured.levels.3.throughput_rps")
            fan_outs.append([row.name, row.fan_out, of_slots, ramp, figure(row.name, RPS), most_rps, last])
    for (a, b), says in FAN_OUT_RATIOS.items():
        if {a, b} <= slots.keys():
            ratios.append([f"{a} : {b}", says, slots[a][0] / slots[b][0], document.ratio(a, b, RPS)])
    return "\n\n".join([
        f"{where} Requests/s are of whole ramps, answers (2xx) only; kept connections, after a warm-up.",
        table("workload | published requests/s | p50 ms | p95 ms | measured requests/s | p50 ms | p95 ms", workloads),
        "What the ratio of the fan-out is: a request waits 50 ms in Postgres, so throughput is slots / 50 ms. *Ramp*:"
        " predicted as min(users, slots) / t at each moment. *Last stage*: at 500 users, where all slots are full."
        " With a *: as published.",
        table("fan-out | setting | slots | ramp, predicted | measured | S / t | last stage, measured", fan_outs),
        table("ratio of requests/s |  | of the slots | measured", ratios),
        counted(document),
    ])  # fmt: skip


def headline(document: SweepDocument) -> list[str]:
    """What the ratio of the fan-out is: published, of the slots, measured; and with equal slots."""
    measured, of_16, of_60, _ = (document.ratio(a, b, RPS).typical for a, b in FAN_OUT_RATIOS)
    return [
        "Each request waits 50 ms in the database. FastAPI against Flask: published 3.74 times the requests/s; their"
        f" slots, 60 to 16, are {60 / 16} to 1; measured {measured}.",
        f"With equal slots the ratio is {of_16} (16 each) and {of_60} (60 each).",
    ]


# ---------------------------------------------------------------- picture


def slots_picture(document: SweepDocument, drawing: Drawing) -> None:
    """The fan-out with other slots: measured, and what the slots allow over the whole ramp."""
    rows = {}
    for row in FAN_OUT:
        if document.runs_of(row.name):
            due = Repeats({0: slots_of(document, row.name)[2]})
            rows[row.fan_out] = [
                ("predicted from the slots", due, 0.0, PREDICTED),
                (row.target, document.figure(row.name, RPS), 0.0, "oC1" if row.target == FLASK_BOOKS else "oC0"),
            ]
    draw_rows(drawing, "answers/s over the whole ramp; * as published", rows, is_log=False)


SUITE = Suite(
    "a Books API on Postgres, with k6's ramps of virtual users",
    "30 runs, about 45 min; with --scale 0.1 6 min; --quick 10 runs, 40 s",
    f"Published: {POST}; its Flask figure of `mixed` counts each redirected POST twice.",
    tables,
    headline,
    variants=VARIANTS,
    full={"scale": "1"},
    quick={"scale": "0.02"},
    pictures=(("slots", 3.2, slots_picture),),
)
