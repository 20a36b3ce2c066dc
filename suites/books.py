"""books - "Async FastAPI, Measured": a Books API on Postgres, and what its 3.7 x is.

The post compares FastAPI with 4 x 15 database connections to Flask with 4 x 4:
60 slots to 16, a ratio of 3.75. With the same slots the ratio is gone.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import bench
import serve
from explain import Run
from load import Pace
from suites import (
    BLUE,
    PALE,
    RED,
    Document,
    Figure,
    Picture,
    Suite,
    Variant,
    can_pin,
    compare,
    figures,
    look_up,
    runs_of,
    short,
    spread,
    spread_ms,
    spread_of,
    table,
    typical,
)

# ---------------------------------------------------------------- published, and run again

POST = '"Async FastAPI, Measured" (bilouro, 2026)'


class Published(NamedTuple):
    rps: float
    p50_ms: float
    p95_ms: float


PUBLISHED = {
    "read, Flask": Published(1476, 276, 789),
    "read, FastAPI": Published(1692, 165, 938),
    "mixed, Flask": Published(1326, 232, 422),
    "mixed, FastAPI": Published(1413, 171, 593),
    "fanout, Flask": Published(265, 905, 2615),
    "fanout, FastAPI": Published(992, 226, 733),
}
EQUAL_SLOTS = {  # the fan-out again, with other slots; what is said of it
    "fanout, Flask": "4 workers x 4 threads, pool 4 (as published)",
    "fanout, FastAPI": "4 workers, pool 15 (as published)",
    "fanout, FastAPI with 16": "4 workers, pool 4",
    "fanout, Flask with 60": "4 workers x 15 threads, pool 15",
    "fanout, Flask, one process": "1 worker x 60 threads, pool 60",
    "fanout, FastAPI, one process": "1 worker, pool 60",
}
RATIOS = (
    ("fanout, FastAPI", "fanout, Flask", "as published: 60 slots to 16"),
    ("fanout, FastAPI with 16", "fanout, Flask", "16 slots each"),
    ("fanout, FastAPI", "fanout, Flask with 60", "60 slots each"),
    ("fanout, FastAPI, one process", "fanout, Flask, one process", "60 slots each, in one process"),
)
FLASK_60 = "--workers 4 --threads 15 --pool-size 15"
# Postgres and the client share one CPU, the app has the other: the same budget for both frameworks.
PINNED = "--server-cpus 0 --client-cpus 1 --scale {t} --warmup 200" if can_pin() else "--scale {t} --warmup 200"


def workload_of(name: str) -> str:
    return name.partition(",")[0]


VARIANTS = tuple(
    Variant(name, f"--target {target} {settings} --workload {workload_of(name)} {PINNED}", workload_of(name))
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
)


def seconds(variant: Variant, _: int, values: Mapping[str, str]) -> float:
    """A ramp takes as long as its stages."""
    stages = bench.WORKLOADS[workload_of(variant.name)].stages
    return sum(stage_s for stage_s, _ in stages) * float(values["t"])


def ramp_rps(stages: Sequence[tuple[float, int]], slots_in_all: float, wait_s: float) -> float:
    """Predicted answers/s over a whole ramp: at each moment min(users, slots) / t.

    >>> round(ramp_rps([(10, 40)], 16, 0.05))  # 0 to 40 users in 10 s: the 16 slots are full after 4 s
    260
    """
    ramp, total_s, steps = Pace(stages=tuple(stages)), sum(stage_s for stage_s, _ in stages), 10_000
    users = (ramp.limits(total_s * (step + 0.5) / steps)[1] for step in range(steps))
    return sum(min(at_once, slots_in_all) for at_once in users) / steps / wait_s


def ramp_of(run: Run) -> tuple[int, float, float]:
    """Its slots, its wait in seconds, and the answers/s that these allow over the whole ramp."""
    slots_in_all, wait_s = run["slots"] or 1, run["wait_s"] or 1.0
    return slots_in_all, wait_s, ramp_rps(run["stages"], slots_in_all, wait_s)


# ---------------------------------------------------------------- tables


def workload_row(document: Document, name: str, stated: Published) -> list[str]:
    p50_s, p95_s = (list(figures(document, name, f"latency_s.{p}").values()) for p in ("median", "p95"))
    rps = spread_of(document, name, "throughput_rps")
    return [name, short(stated.rps), rps, short(stated.p50_ms), spread_ms(p50_s), short(stated.p95_ms),
            spread_ms(p95_s)]  # fmt: skip


def level_rows(document: Document, name: str) -> list[list[str]]:
    """A row for each stage of the ramp."""
    runs, rows = list(runs_of(document, name).values()), []
    for place, level in enumerate(runs[0]["levels"] if runs else ()):
        at_level = [run["levels"][place] for run in runs]
        seconds_of = [[look_up(one, f"latency_s.{p}") for one in at_level] for p in ("median", "p95")]
        cells = [spread_ms([at_s for at_s in of_p if at_s]) for of_p in seconds_of]
        rows.append([name, str(level["users"]), spread([one["throughput_rps"] for one in at_level]), *cells])
    return rows


def slots_row(document: Document, name: str, setting: str) -> list[str]:
    runs = list(runs_of(document, name).values())
    slots_in_all, wait_s, predicted_rps = ramp_of(runs[0])
    plateau = [run["levels"][-1]["throughput_rps"] for run in runs]
    measured = spread_of(document, name, "throughput_rps")
    at_most = short(slots_in_all / wait_s)
    return [name, setting, str(slots_in_all), short(predicted_rps), measured, at_most, spread(plateau)]


def ratio_row(document: Document, a: str, b: str, says: str) -> list[str]:
    slots_a, slots_b = (ramp_of(next(iter(runs_of(document, name).values())))[0] for name in (a, b))
    published = short(PUBLISHED[a].rps / PUBLISHED[b].rps) if {a, b} <= PUBLISHED.keys() else ""
    measured = compare(figures(document, a, "throughput_rps"), figures(document, b, "throughput_rps"))
    return [f"{a} : {b}", says, published, short(slots_a / slots_b), measured]


def counted(document: Document) -> str:
    """What Postgres counted in all runs, beside what was sent."""
    count = Counter[str]()
    for variant in VARIANTS:
        for run in runs_of(document, variant.name).values():
            seen = run.get("database", {})
            count.update({"runs": 1, "requests": run["sent"] + run["warmed_up"], "created": run["created"],
                          "statements": seen.get("statements") or 0,
                          "more rows": seen.get("rows", serve.SEEDED_BOOKS) - serve.SEEDED_BOOKS})  # fmt: skip
    return (
        f"The database's own count, over {count['runs']} runs: {count['statements']} SQL statements for"
        f" {count['requests']} requests; {count['more rows']} rows more for {count['created']} POSTs answered 201."
    )


def tables(document: Document) -> str:
    done = {variant.name for variant in VARIANTS if runs_of(document, variant.name)}
    pinned = any("--server-cpus" in variant.arguments for variant in VARIANTS)
    return "\n\n".join([
        ("The app on CPU 0; Postgres and the client on CPU 1: the same budget for both." if pinned
         else "Nothing was pinned to a CPU.")
        + " Requests/s are of whole ramps, answers (2xx) only; kept connections, after a warm-up.",
        table(["workload", "published requests/s", "measured", "published p50 ms", "measured", "published p95 ms",
               "measured"], [workload_row(document, name, stated) for name, stated in PUBLISHED.items()]),
        "What the ratio of the fan-out is: a request waits 50 ms in Postgres, so throughput is slots / 50 ms. *Ramp*:"
        " predicted as min(users, slots) / t at each moment. *Last stage*: at 500 users, where all slots are full.",
        table(["fan-out", "setting", "slots", "ramp, predicted", "measured", "S / t", "last stage, measured"],
              [slots_row(document, name, setting) for name, setting in EQUAL_SLOTS.items() if name in done], 2),
        table(["ratio of requests/s", "", "published", "slots", "measured"],
              [ratio_row(document, a, b, says) for a, b, says in RATIOS if {a, b} <= done], 2),
        "Percentiles of a ramp pool all its levels; here they are apart:",
        table(["workload", "to users", "requests/s", "p50 ms", "p95 ms"],
              [row for name in PUBLISHED for row in level_rows(document, name)]),
        counted(document),
    ])  # fmt: skip


def headline(document: Document) -> list[str]:
    """What the ratio of the fan-out is: published, of the slots, measured; and with equal slots."""
    if not all(runs_of(document, name) for a, b, _ in RATIOS[:3] for name in (a, b)):
        return []
    of_slots, of_16, of_60 = (ratio_row(document, *ratio) for ratio in RATIOS[:3])
    _, _, published, due, measured = of_slots
    return [
        f"The fan-out, FastAPI against Flask: published {published} times the requests/s; their slots, 60 to 16, are"
        f" {due} to 1; measured {typical(measured)}.",
        f"With equal slots it is {typical(of_16[-1])} (16 each) and {typical(of_60[-1])} (60 each).",
    ]


# ---------------------------------------------------------------- pictures


def slots_picture(document: Document, figure: Figure) -> None:
    """The fan-out with other slots: measured as bars, what the slots allow over the whole ramp as a line."""
    panel = figure.subplots()
    names = [name for name in EQUAL_SLOTS if runs_of(document, name)][::-1]
    for row, name in enumerate(names):
        rps = list(figures(document, name, "throughput_rps").values())
        _, _, predicted_rps = ramp_of(next(iter(runs_of(document, name).values())))
        colour, hatch = (PALE, "///") if "Flask" in name else (BLUE, "")
        panel.barh(row, statistics.median(rps), color=colour, hatch=hatch, height=0.6, edgecolor="black", linewidth=0.6)
        panel.plot([min(rps), max(rps)], [row, row], color="black", linewidth=1)
        panel.plot([predicted_rps] * 2, [row - 0.42, row + 0.42], color=RED, linewidth=2.5,
                   label="predicted from the slots" if not row else None)  # fmt: skip
    panel.set_yticks(range(len(names)), [f"{'Flask' if 'Flask' in name else 'FastAPI'}, {EQUAL_SLOTS[name]}"
                                         .replace(" (as published)", "*") for name in names])  # fmt: skip
    panel.grid(axis="y", visible=False)
    panel.set_xlabel("answers/s over the whole ramp; * as published")
    figure.legend(loc="outside upper center")


SUITE = Suite(
    title="a Books API on Postgres, with k6's ramps of virtual users",
    source=f"Published: {POST}; its Flask figure of `mixed` counts each redirected POST twice.",
    variants=VARIANTS,
    full={"t": "1"},
    quick={"t": "0.02"},
    bodies={
        "/v1/sleep?ms=50": {"slept_ms": 50},
        "/v1/books/1": {"id": 1, "title": "Book 1", "author": "Author 1", "year": 1901, "isbn": "seed-00000001"},
    },
    tables=tables,
    headline=headline,
    pictures=(Picture("slots", 3.2, slots_picture),),
    seconds=seconds,
    has_scale=True,
)
