"""size - "how many workers and threads do I need?", proven: below, at and above the size that the slots give.

The size is that of `slots.py --rate R --wait T --p99 S`. Three kinds of server are
started with so many slots, with a third fewer and with a third more; each gets
random arrivals at that rate, on another schedule in each repeat. Predicted is the
p99 of the very schedule that is sent, so that chance is in both.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TypedDict, cast

import load
import slots
from explain import Run
from suites import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    Document,
    Figure,
    Picture,
    Suite,
    Variant,
    figures,
    label_log,
    runs_of,
    short,
    spread_ms,
    table,
)

SERVER_S = 0.002  # what a server adds to the time that a request holds its slot: 1 to 2 ms, here


class Asked(TypedDict):
    """What is to be proven: the document has it, as its variants are made of it."""

    rate: float
    wait_s: float
    objective_s: float
    percentile: int  # 50, 95 or 99
    cpu_s: float  # what a request computes


KEYS = {50: "latency_s.median", 95: "latency_s.p95", 99: "latency_s.p99"}
SERVERS = {  # name -> bench.py's arguments for {S} slots in one process
    "gunicorn, threads": "--target flask-gunicorn-threads --path /io --workers 1 --threads {S}",
    "waitress": "--target flask-waitress --path /io --threads {S} --server-args='--connection-limit {most}'",
    "uvicorn, def": "--target fastapi-threads --path /io --workers 1",  # and {S} in its environment
}
LOOKS = dict(zip(SERVERS, (("o", BLUE), ("s", ORANGE), ("^", GREEN)), strict=True))


# ---------------------------------------------------------------- the size, and what runs


def held_s(asked: Asked) -> float:
    """How long a request holds its slot."""
    return asked["wait_s"] + asked["cpu_s"] + SERVER_S


@functools.lru_cache(64)
def needed(rate: float, wait_s: float, objective_s: float, percentile: int, cpu_s: float) -> int:
    return slots.slots_for(rate, wait_s, objective_s, percentile, cpu_s)


def sizes(asked: Asked) -> dict[int, str]:
    """Slots, fewest first, and what each size is for. Raises slots.Problem where no number of slots is enough.

    >>> sizes({"rate": 256, "wait_s": 0.05, "objective_s": 0.1, "percentile": 99, "cpu_s": 0.0})
    {10: 'a third fewer', 16: 'the size', 22: 'a third more'}
    """
    own_s = asked["cpu_s"] + SERVER_S
    need = needed(asked["rate"], asked["wait_s"], asked["objective_s"], asked["percentile"], own_s)
    third = math.ceil(need / 3)
    found = {need - third: "a third fewer", need: "the size", need + third: "a third more"}
    return {size: name for size, name in found.items() if size}


def variant_name(server: str, size: int) -> str:
    return f"{server}, {size} slots"


def variants(asked: Asked) -> tuple[Variant, ...]:
    load_is = f"--rate {asked['rate']:g} --arrivals poisson --seed {{repeat}} -t {{t}} --task-time {asked['wait_s']:g}"
    computes = f" --cpu-time {asked['cpu_s']:g}" if asked["cpu_s"] else ""
    return tuple(
        Variant(
            variant_name(server, size),
            f"{arguments.format(S=size, most=max(100, 100 * size))} {load_is}{computes} --warmup 8",
            group=server,
            env=(("THREADS", str(size)),),
        )
        for server, arguments in SERVERS.items()
        if not (computes and server.startswith("uvicorn"))  # that app computes nothing
        for size in sizes(asked)
    )


def predicted_s(asked: Asked, size: int, duration_s: float, repeat: int) -> float:
    """That percentile of the schedule that this repeat sends; of few requests the longest of all."""
    due_s = load.poisson_schedule(asked["rate"], math.inf, duration_s, repeat)
    forecast = slots.predict(due_s, slots.Service((size,)), held_s(asked))
    latencies_s = sorted(b - a for a, b in zip(forecast.arrived_s, forecast.answered_s, strict=True))
    return slots.nearest_rank(latencies_s, asked["percentile"]) or latencies_s[-1]


def in_the_long_run_s(asked: Asked, size: int) -> float | None:
    """M/D/c; None: the queue only grows."""
    if asked["rate"] * held_s(asked) >= size:
        return None
    waited_s = slots.md_c_wait_quantile(asked["rate"], held_s(asked), size, asked["percentile"])
    return held_s(asked) + waited_s


# ---------------------------------------------------------------- tables


def holds(asked: Asked, run: Run) -> bool:
    """A run with failed requests does not; of too few requests for the percentile the longest must."""
    latency = cast("dict[str, float | None]", run["latency_s"] or {})
    value_s = latency.get(KEYS[asked["percentile"]].split(".")[1]) or latency.get("max")
    return not run["failed"] and value_s is not None and value_s <= asked["objective_s"]


def row(document: Document, server: str, size: int, name: str) -> list[str]:
    asked: Asked = document["asked"]
    variant, duration_s = variant_name(server, size), float(document["values"]["t"])
    runs, long_s = runs_of(document, variant), in_the_long_run_s(asked, size)
    predicted = [predicted_s(asked, size, duration_s, repeat) for repeat in runs]
    measured = figures(document, variant, KEYS[asked["percentile"]])
    return [
        server,
        f"{size} ({name})",
        "grows" if long_s is None else short(long_s * 1000),
        spread_ms(predicted),
        spread_ms(list(measured.values())),
        f"{sum(at_s <= asked['objective_s'] for at_s in predicted)} of {len(runs)}",
        f"{sum(holds(asked, run) for run in runs.values())} of {len(runs)}",
    ]


def servers_of(document: Document) -> list[str]:
    return [server for server in SERVERS if any(name.startswith(server) for name, _, _ in document["order"])]


def tables(document: Document) -> str:
    asked: Asked = document["asked"]
    goal, p = f"p{asked['percentile']} <= {slots.seconds(asked['objective_s'])}", f"p{asked['percentile']}, ms"
    computes = f", computes {slots.seconds(asked['cpu_s'])}" if asked["cpu_s"] else ""
    need = next(size for size, name in sizes(asked).items() if name == "the size")
    return "\n\n".join([
        f"{asked['rate']:g} requests/s at random, each waits {slots.seconds(asked['wait_s'])}{computes}, and holds its"
        f" slot {slots.seconds(SERVER_S)} longer for what the server does; {goal}: **{need} slots**. *Long run*: M/D/c,"
        " exact. *Predicted*: request by request, for the schedule that each repeat sends.",
        table(["server", "slots", f"long run {p}", f"predicted {p}", f"measured {p}", "should hold", "holds"],
              [row(document, server, size, name) for server in servers_of(document)
               for size, name in sizes(asked).items()], 2),
    ])  # fmt: skip


def headline(document: Document) -> list[str]:
    """In how many runs the size held, and a third fewer did not."""
    asked: Asked = document["asked"]
    parts = []
    for size, name in sizes(asked).items():
        names = [variant_name(server, size) for server in servers_of(document)]
        runs = [run for variant in names for run in runs_of(document, variant).values()]
        parts.append(f"{size} slots ({name}) held in {sum(holds(asked, run) for run in runs)} of {len(runs)} runs")
    return [f"p{asked['percentile']} <= {slots.seconds(asked['objective_s'])}: {', '.join(parts)}."]


# ---------------------------------------------------------------- picture


def curve(asked: Asked, least: int, most: int) -> tuple[Sequence[int], Sequence[float]]:
    """The percentile in the long run over the slots, where there is one; in milliseconds."""
    points = [(size, in_the_long_run_s(asked, size)) for size in range(least, most + 1)]
    stable = [(size, at_s * 1000) for size, at_s in points if at_s is not None]
    return [size for size, _ in stable], [at_ms for _, at_ms in stable]


def over_slots(document: Document, figure: Figure) -> None:
    """The percentile over the slots: M/D/c as a line, each run a mark, and the objective."""
    asked: Asked = document["asked"]
    panel, known = figure.subplots(), list(sizes(asked))
    panel.plot(*curve(asked, known[0], known[-1] + 1), color="black", linewidth=0.9, label="predicted, in the long run")
    for place, server in enumerate(servers_of(document)):
        marker, colour = LOOKS[server]
        for size in known:
            measured = figures(document, variant_name(server, size), KEYS[asked["percentile"]])
            panel.plot([size + (place - 1) * 0.15] * len(measured), [at_s * 1000 for at_s in measured.values()],
                       linestyle="", marker=marker, markersize=5, color=colour, markerfacecolor="none",
                       label=server if size == known[-1] else None)  # fmt: skip
    panel.axhline(asked["objective_s"] * 1000, color=RED, linestyle="--", linewidth=1)
    panel.text(0.99, asked["objective_s"] * 1000, f"objective {slots.seconds(asked['objective_s'])}", color=RED,
               ha="right", va="bottom", transform=panel.get_yaxis_transform())  # fmt: skip
    label_log(panel.yaxis)
    panel.set_xticks(known)
    panel.set_xlabel(f"slots; {asked['rate']:g} requests/s at random, each waits {slots.seconds(asked['wait_s'])}")
    panel.set_ylabel(f"p{asked['percentile']}, ms (log scale); each mark a run")
    figure.legend(loc="outside upper center", ncols=4)


# ---------------------------------------------------------------- the suite


def suite(asked: Asked) -> Suite:
    """Made of what is asked. Each run is long enough for 2000 requests, within 10 to 60 s."""
    return Suite(
        title="how many slots an objective needs, on real servers",
        source="The size of slots.py.",
        variants=variants(asked),
        full={"t": f"{min(60.0, max(10.0, 2000 / asked['rate'])):.3g}"},
        quick={"t": "4"},
        bodies={"/io": {"task_time": 0.01}},
        tables=tables,
        headline=headline,
        pictures=(Picture("slots", 3.8, over_slots),),
        repeats=5,
    )
