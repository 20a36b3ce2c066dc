"""io - "Flask Sync vs. Async": six endpoints with 4 workers each, a burst of 100 requests.

What the post saw: Flask gains nothing by `async def`, FastAPI almost twice. Why:
its FastAPI `def` handlers had 160 threads for 100 requests, but the kernel deals
a burst out unevenly, and of more than 40 requests in one worker some wait for a
second round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slots
from explain import Run, unlimited
from slots import ANYIO_THREADS, plural
from suites import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    Document,
    Figure,
    Picture,
    Published,
    Suite,
    Variant,
    compare,
    figures,
    fits,
    label_log,
    median_run,
    runs_of,
    short,
    spread,
    table,
    typical,
)

# ---------------------------------------------------------------- published, and run again

POST = '"Flask Sync vs. Async" (belinhacbr, 2024)'
PATHS = ("/io", "/async-io", "/async-io-multi")
PUBLISHED_RPS = {"Flask": (4.0, 4.0, 8.3), "FastAPI": (48.3, 93.5, 175.4)}
TARGETS = {"Flask": "flask-gunicorn", "FastAPI": "fastapi-uvicorn-workers"}
VARIANTS = {
    f"{framework} {path}": Variant(
        f"{framework} {path}",
        f"--target {target} --path {path} -n {{n}} --task-time {{t}} --warmup 8",
        published=(Published(0, rps),),
    )
    for framework, target in TARGETS.items()
    for path, rps in zip(PATHS, PUBLISHED_RPS[framework], strict=True)
}
RATIOS = (  # of requests/s or of time; what the post says of it
    ("Flask /async-io", "Flask /io", "throughput_rps", "no gain"),
    ("Flask /async-io-multi", "Flask /io", "throughput_rps", "twice"),
    ("FastAPI /async-io", "FastAPI /io", "throughput_rps", "almost twice"),
    ("FastAPI /io", "Flask /io", "measured_s", "under 10 % of the time"),
)


# ---------------------------------------------------------------- tables


def even(run: Run) -> float:
    """What a burst should take if every worker took the same share."""
    return run["predicted_s"] or 0.0


def by_split(run: Run) -> float:
    """What it should take given the shares of the workers; without a log nobody knows them: an even split."""
    return run["split_predicted_s"] or even(run)


def answers_of(run: Run) -> int:
    return run["requests"] or 0


def shares_of(run: Run) -> list[int]:
    return sorted(run["requests_of_workers"].values(), reverse=True)


def endpoint_row(document: Document, variant: Variant) -> list[str]:
    runs = list(runs_of(document, variant.name).values())
    fitting = sum(not run["failed"] and fits(run["measured_s"], by_split(run)) for run in runs)
    return [
        variant.name,
        short(variant.published[0].rps),
        spread([answers_of(run) / even(run) for run in runs[:1]]),
        spread([answers_of(run) / by_split(run) for run in runs]),
        spread([run["throughput_rps"] for run in runs]),
        f"{fitting} of {len(runs)}",
    ]


def ratio_row(document: Document, a: str, b: str, key: str, says: str) -> list[str]:
    in_time = key == "measured_s"
    stated_a, stated_b = (VARIANTS[name].published[0].rps for name in (a, b))
    runs_a, runs_b = runs_of(document, a), runs_of(document, b)
    pairs = [(runs_a[repeat], runs_b[repeat]) for repeat in sorted(runs_a.keys() & runs_b.keys())]
    by_even = [even(x) / even(y) for x, y in pairs[:1]]
    by_shares = [by_split(x) / by_split(y) for x, y in pairs]
    return [
        f"{a} : {b}, {'time' if in_time else 'requests/s'}",
        f"{short(stated_b / stated_a if in_time else stated_a / stated_b)} ({says})",
        *(spread(ratios if in_time else [1 / ratio for ratio in ratios]) for ratios in (by_even, by_shares)),
        compare(figures(document, a, key), figures(document, b, key)),
    ]


def split_row(repeat: int, run: Run) -> list[str]:
    shares = shares_of(run)
    rounds = slots.rounds(shares[0], ANYIO_THREADS) if shares else 0
    return [str(repeat), " + ".join(map(str, shares)), str(rounds), f"{short(run['measured_s'])} s"]


def tables(document: Document) -> str:
    threaded = runs_of(document, "FastAPI /io")
    above = sum(shares_of(run)[:1] > [ANYIO_THREADS] for run in threaded.values())
    return "\n\n".join([
        "Requests/s of 100 at once, until the last answer. *Even*: predicted if every worker took the same share."
        " *Split*: predicted from the shares that they took. *Fits*: runs within 5 % + 100 ms of that.",
        table(["endpoint", "published", "even", "split", "measured", "fits"],
              [endpoint_row(document, variant) for variant in VARIANTS.values()]),
        table(["ratio", "published", "even", "split", "measured"], [ratio_row(document, *row) for row in RATIOS]),
        f"FastAPI `/io` has {4 * ANYIO_THREADS} threads in its 4 workers, enough for 100 requests. But the kernel hands"
        f" the burst out unevenly, and of more than {ANYIO_THREADS} in one worker some wait for a second round: so in"
        f" {above} of {plural(len(threaded), 'repeat')}.",
        table(["repeat", "FastAPI `/io`: requests of each worker", "rounds", "measured"],
              [split_row(repeat, run) for repeat, run in threaded.items()], 2),
    ])  # fmt: skip


def headline(document: Document) -> list[str]:
    """FastAPI's `async def` against its `def`, as published and as measured, and the split that makes the ratio."""
    _, published, even, by_shares, measured = ratio_row(document, *RATIOS[2])
    run = median_run(runs_of(document, "FastAPI /io"))
    if not run or not run["requests_of_workers"] or "-" in (by_shares, measured):
        return []
    shares = " + ".join(map(str, shares_of(run)))
    return [
        f"FastAPI's `async def` against its `def`: published {typical(published)} times the requests/s, measured"
        f" {typical(measured)}.",
        f"It is the split of the burst, {shares} requests for the 4 workers: of more than {ANYIO_THREADS} in one some"
        f" wait for a second round, which makes {typical(by_shares)}; with an even split it would be {even}.",
    ]


# ---------------------------------------------------------------- pictures


def burst_answers(shares: Sequence[int], slots_of_worker: float, wait_s: float) -> list[float]:
    """When a burst is answered, given how many requests each worker took; sorted.

    >>> burst_answers([3, 1], 2, 1.0)
    [1.0, 1.0, 1.0, 2.0]
    """
    worker = slots.Service((slots_of_worker,))
    return sorted(at_s for n in shares for at_s in slots.predict([0.0] * n, worker, wait_s).answered_s)


def draw_staircase(panel: Any, run: Run, path: str, look: tuple[str, str, float, str], place: int) -> None:
    """One endpoint: predicted as a thin line, measured on it."""
    marker, colour, size, face = look
    n, wait_s, shares = answers_of(run), run["wait_s"] or 0.0, shares_of(run)
    each = unlimited(run["slots_per_worker"])
    by_even = burst_answers([n], unlimited(run["slots"]), wait_s)
    by_shares = burst_answers(shares, each, wait_s)
    panel.plot(range(1, n + 1), by_even, drawstyle="steps-mid", color="black", linewidth=0.8, zorder=3)
    if by_shares and by_shares[-1] > 1.5 * by_even[-1]:
        panel.plot(range(1, len(by_shares) + 1), by_shares, drawstyle="steps-mid", color="black", linestyle=":",
                   linewidth=1.4, zorder=3)  # fmt: skip
        panel.annotate(f"{path}: the workers took {' + '.join(map(str, shares))},\n"
                       f"and more than {each} in one need another round",
                       (by_shares.count(wait_s), by_shares[-1]),
                       (0.98, 0.72), textcoords="axes fraction", ha="right",
                       arrowprops={"arrowstyle": "->", "color": "#555555"})  # fmt: skip
    shown = slice(place, None, 3)
    panel.plot(list(range(1, n + 1))[shown], run["answered_s"][shown], linestyle="", marker=marker, markersize=size,
               color=colour, markerfacecolor=face, label=path)  # fmt: skip


def staircase(document: Document, figure: Figure) -> None:
    """Response time of request n of a burst: predicted as a thin line, measured on it."""
    looks = (("o", BLUE, 6.5, "none"), ("x", RED, 4, RED), ("s", GREEN, 3, GREEN))
    panels = figure.subplots(1, 2, sharey=True)
    for panel, title in zip(panels, ("Flask, 4 gunicorn workers", "FastAPI, 4 uvicorn workers"), strict=True):
        for place, (path, look) in enumerate(zip(PATHS, looks, strict=True)):
            run = median_run(runs_of(document, f"{title.split(',')[0]} {path}"))
            if run:
                draw_staircase(panel, run, path, look, place)
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("request n of the burst, in the order of answers")
        panel.plot([], [], color="black", linewidth=0.8, label="predicted, even split")
        panel.plot([], [], color="black", linestyle=":", linewidth=1.2, label="predicted, actual split")
    label_log(panels[0].yaxis)
    panels[0].set_ylabel("response time, s (log scale)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, handletextpad=0.4, columnspacing=1.2)


def split(document: Document, figure: Figure) -> None:
    """Why FastAPI /io needs a second round: how many requests each worker took, and the line of 40 threads."""
    panel, limit = figure.subplots(), ANYIO_THREADS
    waiting: dict[str, Any] = {"color": ORANGE, "hatch": "////", "edgecolor": "black", "linewidth": 0.5}
    ticks = []
    for group, (repeat, run) in enumerate(runs_of(document, "FastAPI /io").items()):
        shares = shares_of(run)
        for i, share in enumerate(shares):
            x = group * (len(shares) + 1) + i
            panel.bar(x, min(share, limit), color=BLUE, width=0.85)
            if share > limit:
                panel.bar(x, share - limit, bottom=limit, width=0.85, **waiting)
            panel.text(x, share + 1, str(share), ha="center", va="bottom")
        ticks.append((group * (len(shares) + 1) + (len(shares) - 1) / 2, f"repeat {repeat}\n{run['measured_s']:.2f} s"))
    panel.axhline(limit, color="black", linestyle="--", linewidth=1)
    panel.text(1, limit + 1, f"{limit} threads", ha="right", va="bottom", transform=panel.get_yaxis_transform())
    if ticks:
        panel.set_xlim(-0.8, panel.dataLim.xmax * 1.12 + 0.3)  # with room for that label
    panel.set_xticks([x for x, _ in ticks], [label for _, label in ticks])
    panel.grid(axis="x", visible=False)
    panel.set_ylim(0, 1.15 * max(50, panel.dataLim.ymax))
    panel.set_ylabel("requests that a worker took")
    panel.set_xlabel("each bar a worker; below: time until the last of the 100 answers")
    panel.bar(0, 0, color=BLUE, label="first round")
    panel.bar(0, 0, label="has to wait for a thread", **waiting)
    figure.legend(loc="outside upper center", ncols=2)


SUITE = Suite(
    title="six endpoints with 4 workers each, a burst of 100 requests",
    source=f"Published: {POST}, with a task of 1 s.",
    variants=tuple(VARIANTS.values()),
    full={"n": "100", "t": "1"},
    quick={"n": "100", "t": "0.2"},
    bodies={
        "/io": {"task_time": 0.01},
        "/async-io": {"task_time": 0.01},
        "/async-io-multi": {"task_time": 0.01, "subtasks": 2},
    },
    tables=tables,
    headline=headline,
    pictures=(Picture("staircase", 4.0, staircase), Picture("split", 3.4, split)),
)
