"""io - "Flask Sync vs. Async": six endpoints with 4 workers each, a burst of 100 requests.

What the post saw: Flask gains nothing by `async def`, FastAPI almost twice. Why: its FastAPI `def` handlers had 160
threads for 100 requests, but the kernel deals a burst out unevenly. A worker has 40 threads, so in a worker with more
requests some wait for a second round.
"""

from __future__ import annotations

import math
from typing import Any

from engine.targets import ANYIO_THREADS
from suites.common import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    RPS,
    Drawing,
    Json,
    Ratio,
    Repeats,
    Suite,
    SweepDocument,
    Variant,
    fits,
    label_log,
    legend,
    plus,
    shares_taken,
    short,
    table,
)

# ---------------------------------------------------------------- published, and run again

POST = '"Flask Sync vs. Async" (belinhacbr, 2024)'
PATHS = "/io", "/async-io", "/async-io-multi"
FRAMEWORKS = {"Flask": "flask-gunicorn", "FastAPI": "fastapi-uvicorn-workers"}
PUBLISHED_RPS = {
    "Flask /io": 4.0, "Flask /async-io": 4.0, "Flask /async-io-multi": 8.3,
    "FastAPI /io": 48.3, "FastAPI /async-io": 93.5, "FastAPI /async-io-multi": 175.4,
}  # fmt: skip
VARIANTS = tuple(
    Variant(f"{framework} {path}", f"--target {target} --path {path} -n {{n}} --task-time {{t}} --warmup 8")
    for framework, target in FRAMEWORKS.items()
    for path in PATHS
)
ASYNC_TO_DEF = ("FastAPI /async-io", "FastAPI /io")
IO_RATIOS = {  # of requests/s; what the post says of it
    ("Flask /async-io", "Flask /io"): "no gain",
    ("Flask /async-io-multi", "Flask /io"): "twice",
    ASYNC_TO_DEF: "almost twice",
    ("FastAPI /io", "Flask /io"): "under 10 % of the time",
}

# ---------------------------------------------------------------- tables


def rates(document: SweepDocument, variant: str) -> tuple[Repeats, Repeats, Repeats]:
    """Requests/s: predicted with an even split, predicted given the shares of the workers, measured."""
    answers = document.figure(variant, "measured.sent")
    even, by_split = (
        Repeats(answers / document.figure(variant, f"{name}.makespan_s")) for name in ("prediction", "split_prediction")
    )
    return even, by_split, document.figure(variant, RPS)


def endpoint_row(document: SweepDocument, variant: str) -> list[object]:
    good = [
        not run["measured"]["failed"] and fits(run["measured"]["measured_s"], run["split_prediction"]["makespan_s"])
        for run in document.runs_of(variant).values()
    ]
    return [variant, PUBLISHED_RPS[variant], *rates(document, variant), f"{sum(good)} of {len(good)}"]


def ratios(document: SweepDocument, a: str, b: str) -> tuple[Repeats, Repeats, Ratio]:
    """As rates()."""
    even, by_split, measured = (x / y for x, y in zip(rates(document, a), rates(document, b), strict=True))
    return Repeats(even), Repeats(by_split), measured


def tables(document: SweepDocument) -> str:
    deals = [shares_taken(run) for run in document.runs_of("FastAPI /io").values()]
    return "\n\n".join([
        "Requests/s of 100 at once, until the last answer. *Even*: predicted if each worker takes the same share."
        " *Split*: predicted from the shares that the workers took. *Fits*: runs within 5 % + 100 ms of that.",
        table(["endpoint", "published", "even", "split", "measured", "fits"],
              [endpoint_row(document, variant) for variant in PUBLISHED_RPS]),
        table(["ratio of requests/s", "published", "even", "split", "measured"],
              [[f"{a} : {b}", f"{short(PUBLISHED_RPS[a] / PUBLISHED_RPS[b])} ({says})", *ratios(document, a, b)]
               for (a, b), says in IO_RATIOS.items()]),
        f"FastAPI `/io` has {4 * ANYIO_THREADS} threads in its 4 workers, enough for 100 requests. But the kernel deals"
        f" the burst out unevenly, and in a worker with more than {ANYIO_THREADS} requests some wait for a second"
        f" round. The workers took, in each repeat: {'; '.join(map(plus, deals))}.",
    ])  # fmt: skip


def headline(document: SweepDocument) -> list[str]:
    """FastAPI's `async def` against its `def`: as published, as measured, and the split that makes the ratio."""
    even, by_split, measured = ratios(document, *ASYNC_TO_DEF)
    a, b = (PUBLISHED_RPS[variant] for variant in ASYNC_TO_DEF)
    text = [
        f"FastAPI's `async def` against its `def`: published {short(a / b)} times the requests/s, measured"
        f" {measured.typical}."
    ]
    run = document.median_run("FastAPI /io")
    if run and max(shares_taken(run)) > ANYIO_THREADS:
        text.append(
            f"The cause is not `async`. The kernel gave the 4 workers {plus(shares_taken(run))} requests. A worker has"
            f" {ANYIO_THREADS} threads, so the requests beyond them waited for a second round: that makes"
            f" {by_split.typical}. With an even split the ratio would be {even.typical}."
        )
    return text


# ---------------------------------------------------------------- pictures


def burst_answers(shares: list[int], slots: float, wait_s: float) -> list[float]:
    """When a burst is answered, given how many requests each worker took, and the slots of a worker; sorted.

    >>> burst_answers([3, 1], 2, 1.0)
    [1.0, 1.0, 1.0, 2.0]
    """
    return sorted((n // slots + 1) * wait_s for share in shares for n in range(share))


BURST_LOOKS = ("o", BLUE), ("x", RED), ("s", GREEN), ("^", ORANGE)


def draw_burst(panel: Any, run: Json, name: str, place: int) -> None:
    """A burst: predicted as a thin line, measured on it; of several in one panel each has its place."""
    plan, shares, answered_s = run["plan"], shares_taken(run), run["answered_s"]
    numbers, (marker, colour) = range(1, len(answered_s) + 1), BURST_LOOKS[place % 4]
    panel.plot(numbers[place::3], answered_s[place::3], marker, color=colour, fillstyle="none", label=name)
    if not plan["slots_known"] or not plan["wait_s"]:
        return
    each, slots = (plan[key] or math.inf for key in ("slots_per_worker", "slots"))
    even, dealt = burst_answers([len(answered_s)], slots, plan["wait_s"]), burst_answers(shares, each, plan["wait_s"])
    panel.step(numbers, even, "k", where="mid", linewidth=0.8, zorder=3, label="predicted, even split")
    if dealt and dealt[-1] > 1.5 * even[-1]:
        panel.step(numbers[: len(dealt)], dealt, "k:", where="mid", zorder=3, label="predicted, actual split")
        panel.annotate(f"{name}: the workers took {plus(shares)},\nand more than {each} in one need another round",
                       (dealt.count(dealt[0]), dealt[-1]), (0.98, 0.72), textcoords="axes fraction", ha="right",
                       arrowprops={"arrowstyle": "->"})  # fmt: skip


def staircase(document: SweepDocument, drawing: Drawing) -> None:
    """Response time of request n of a burst: predicted as a thin line, measured on it."""
    panels = drawing.subplots(1, 2, sharey=True)
    for panel, framework in zip(panels, FRAMEWORKS, strict=True):
        for place, path in enumerate(PATHS):
            if run := document.median_run(f"{framework} {path}"):
                draw_burst(panel, run, path, place)
        panel.set_title(f"{framework}, 4 workers")
        panel.set_xlabel("request n of the burst, in the order of answers")
    label_log(panels[0].yaxis)
    panels[0].set_ylabel("response time, s (log scale)")
    legend(panels[1])


def split(document: SweepDocument, drawing: Drawing) -> None:
    """Why FastAPI /io needs a second round: how many requests each worker took, and the line of 40 threads."""
    panel, limit, runs = drawing.subplots(), ANYIO_THREADS, document.runs_of("FastAPI /io")
    for group, run in enumerate(runs.values()):
        shares = shares_taken(run)
        places = range(5 * group, 5 * group + len(shares))
        served, waiting = ([min(share, limit) for share in shares], [max(0, share - limit) for share in shares])
        panel.bar(places, served, color=BLUE, label="first round")
        bars = panel.bar(places, waiting, bottom=served, color=ORANGE, hatch="//", label="has to wait for a thread")
        panel.bar_label(bars, shares)
    panel.axhline(limit, color="black", linestyle="--", label=f"{limit} threads")
    names = [f"repeat {repeat}\n{run['measured']['measured_s']:.2f} s" for repeat, run in runs.items()]
    panel.set_xticks([5 * group + 1.5 for group in range(len(names))], names)
    panel.set(xlabel="each bar a worker; below: time until the last of the 100 answers", ylabel="requests of a worker")
    legend(panel)


SUITE = Suite(
    title="six endpoints with 4 workers each, a burst of 100 requests",
    takes="18 runs, about 4 min; --quick 6 runs, 50 s",
    source=f"Published: {POST}, with a task of 1 s.",
    variants=VARIANTS,
    full={"n": "100", "t": "1"},
    quick={"n": "100", "t": "0.2"},
    tables=tables,
    headline=headline,
    pictures=(("staircase", 4.0, staircase), ("split", 3.4, split)),
)
