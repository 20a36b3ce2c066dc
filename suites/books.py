"""books - "Async FastAPI, Measured": a Books API on Postgres, and what its 3.7 x is.

The post compares FastAPI with 4 x 15 database connections to Flask with 4 x 4: 60 slots to 16, a ratio of 3.75. With
the same slots the ratio is gone.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from engine.loads import Ramp
from engine.targets import SEEDED_BOOKS
from suites.common import (
    BLUE,
    PALE,
    PINNED,
    RED,
    RPS,
    Drawing,
    Ratio,
    Suite,
    SweepDocument,
    Variant,
    legend,
    look_up,
    mark,
    name_rows,
    short,
    table,
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
    Variant(row.name, f"--target {row.target} {row.settings} --workload {row.workload} --scale {{t}} --warmup 200"
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
    """Slots, wait in seconds, and the answers/s that these allow over the whole ramp."""
    plan = next(iter(document.runs_of(name).values()))["plan"]
    slots, wait_s = plan["slots"], plan["wait_s"]
    return slots, wait_s, ramp_rps(plan["load"]["stages"], slots, wait_s)


# ---------------------------------------------------------------- tables


def workload_row(document: SweepDocument, row: Row) -> list[object]:
    measured = (document.figure(row.name, f"measured.latency_s.{key}").in_ms() for key in ("median", "p95"))
    return [row.name, *row.published, document.figure(row.name, RPS), *measured]


def slots_row(document: SweepDocument, row: Row) -> list[object]:
    slots, wait_s, predicted_rps = slots_of(document, row.name)
    last = document.figure(row.name, "measured.levels.3.throughput_rps")
    return [row.name, row.fan_out, slots, predicted_rps, document.figure(row.name, RPS), slots / wait_s, last]


def fan_out_ratio(document: SweepDocument, a: str, b: str) -> tuple[float, Ratio]:
    """Of the slots, and of the measured requests/s."""
    return slots_of(document, a)[0] / slots_of(document, b)[0], document.figure(a, RPS) / document.figure(b, RPS)


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
    done = [row for row in FAN_OUT if document.runs_of(row.name)]
    known = [pair for pair in FAN_OUT_RATIOS if {*pair} <= {row.name for row in done}]
    pinned = "The app on CPU 0; Postgres and the client on CPU 1: the same budget for both."
    where = pinned if document.machine["cpus"] > 1 else "Nothing was pinned to a CPU."
    return "\n\n".join([
        f"{where} Requests/s are of whole ramps, answers (2xx) only; kept connections, after a warm-up.",
        table(["workload", "published requests/s", "p50 ms", "p95 ms", "measured requests/s", "p50 ms", "p95 ms"],
              [workload_row(document, row) for row in POSTED]),
        "What the ratio of the fan-out is: a request waits 50 ms in Postgres, so throughput is slots / 50 ms. *Ramp*:"
        " predicted as min(users, slots) / t at each moment. *Last stage*: at 500 users, where all slots are full."
        " With a *: as published.",
        table(["fan-out", "setting", "slots", "ramp, predicted", "measured", "S / t", "last stage, measured"],
              [slots_row(document, row) for row in done]),
        table(["ratio of requests/s", "", "of the slots", "measured"],
              [[f"{a} : {b}", FAN_OUT_RATIOS[a, b], *fan_out_ratio(document, a, b)] for a, b in known]),
        counted(document),
    ])  # fmt: skip


def headline(document: SweepDocument) -> list[str]:
    """What the ratio of the fan-out is: published, of the slots, measured; and with equal slots."""
    if not all(document.runs_of(row.name) for row in FAN_OUT):
        return []
    (of_slots, measured), (_, of_16), (_, of_60), _ = (fan_out_ratio(document, *pair) for pair in FAN_OUT_RATIOS)
    return [
        "The fan-out, FastAPI against Flask: published 3.74 times the requests/s; their slots, 60 to 16, are"
        f" {short(of_slots)} to 1; measured {measured.typical}.",
        f"With equal slots it is {of_16.typical} (16 each) and {of_60.typical} (60 each).",
    ]


# ---------------------------------------------------------------- pictures


def slots_picture(document: SweepDocument, drawing: Drawing) -> None:
    """The fan-out with other slots: measured as bars, what the slots allow over the whole ramp as a line."""
    panel = drawing.subplots()
    rows = [row for row in FAN_OUT[::-1] if document.runs_of(row.name)]
    for y, row in enumerate(rows):
        rps, (*_, predicted_rps) = document.figure(row.name, RPS), slots_of(document, row.name)
        is_flask = row.target == FLASK_BOOKS
        panel.barh(y, statistics.median(rps.values()), color=PALE if is_flask else BLUE, label=row.target)
        mark(panel, rps, y, color="black")
        panel.plot([predicted_rps] * 2, [y - 0.42, y + 0.42], color=RED, linewidth=2, label="predicted from the slots")
    name_rows(panel, [row.fan_out for row in rows])
    panel.set_xlabel("answers/s over the whole ramp; * as published")
    legend(panel)


SUITE = Suite(
    title="a Books API on Postgres, with k6's ramps of virtual users",
    takes="30 runs, about 45 min; with --scale 0.1 6 min; --quick 10 runs, 40 s",
    source=f"Published: {POST}; its Flask figure of `mixed` counts each redirected POST twice.",
    variants=VARIANTS,
    full={"t": "1"},
    quick={"t": "0.02"},
    tables=tables,
    headline=headline,
    pictures=(("slots", 3.2, slots_picture),),
)
