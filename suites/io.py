"""io - "Flask Sync vs. Async": six endpoints with 4 workers each, a burst of 100 requests.

What the post saw: Flask gains nothing by `async def`, FastAPI almost twice. Why: its FastAPI `def` handlers had 160
threads for 100 requests, but the kernel deals a burst out unevenly. A worker has 40 threads, so in a worker with more
requests some wait for a second round.
"""

import math
from typing import Any

from engine.targets import ANYIO_THREADS
from suites.common import (
    RPS,
    Drawing,
    Json,
    Repeats,
    Suite,
    SweepDocument,
    Variant,
    fits,
    if_even_s,
    label_log,
    legend,
    look_up,
    short,
    table,
    tally,
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


def shares_taken(run: Json) -> list[int]:
    """How many requests each worker took, the largest share first."""
    return sorted((look_up(run, "inside.requests_of_workers") or {}).values(), reverse=True)


def plus(shares: list[int]) -> str:
    """
    >>> plus([50, 48, 2])
    '50 + 48 + 2'
    """
    return " + ".join(map(str, shares))


def rates(document: SweepDocument, variant: str) -> list[Repeats]:
    """Requests/s: predicted with an even split, predicted given the shares of the workers, measured."""
    answers = document.figure(variant, "measured.sent")
    even = Repeats({repeat: if_even_s(run) for repeat, run in document.runs_of(variant).items()})
    split = document.figure(variant, "split_prediction.makespan_s")
    return [answers / even, answers / split, document.figure(variant, RPS)]


def ratios(document: SweepDocument, a: str, b: str) -> list[Repeats]:
    """As rates()."""
    return [x / y for x, y in zip(rates(document, a), rates(document, b), strict=True)]


def fits_split(run: Json) -> bool:
    """Whether a run took as long as is predicted from the shares that its workers took."""
    took_s, due_s = run["measured"]["measured_s"], run["split_prediction"]["makespan_s"]
    return not run["measured"]["failed"] and fits(took_s, due_s)


def tables(document: SweepDocument) -> str:
    deals = [plus(shares_taken(run)) for run in document.runs_of("FastAPI /io").values()]
    return "\n\n".join([
        "Requests/s of 100 at once, until the last answer. *Even*: predicted if each worker takes the same share."
        " *Split*: predicted from the shares that the workers took. *Fits*: runs within 5 % + 100 ms of that.",
        table("endpoint | published | even | split | measured | fits",
              ([name, published, *rates(document, name), tally(map(fits_split, document.runs_of(name).values()))]
               for name, published in PUBLISHED_RPS.items())),
        table("ratio of requests/s | published | even | split | measured",
              ([f"{a} : {b}", f"{short(PUBLISHED_RPS[a] / PUBLISHED_RPS[b])} ({says})", *ratios(document, a, b)[:2],
                document.ratio(a, b, RPS)] for (a, b), says in IO_RATIOS.items())),
        f"FastAPI `/io` has {4 * ANYIO_THREADS} threads in its 4 workers, enough for 100 requests. But the kernel deals"
        f" the burst out unevenly, and in a worker with more than {ANYIO_THREADS} requests some wait for a second"
        f" round. The workers took, in each repeat: {'; '.join(deals)}.",
    ])  # fmt: skip


def headline(document: SweepDocument) -> list[str]:
    """FastAPI's `async def` against its `def`: as published, as measured, and the split that makes the ratio."""
    a, b = ASYNC_TO_DEF
    even, _, measured = ratios(document, a, b)
    runs = document.runs_of(b).values()
    text = [
        f"FastAPI's `async def` against its `def`: published {short(PUBLISHED_RPS[a] / PUBLISHED_RPS[b])} times the"
        f" requests/s, measured {measured}."
    ]
    uneven = [run for run in runs if max(shares_taken(run), default=0) > ANYIO_THREADS and fits_split(run)]
    if uneven:
        worst = max(uneven, key=lambda run: max(shares_taken(run)))
        ratio = worst["split_prediction"]["makespan_s"] / if_even_s(worst)
        text.append(
            f"The cause is not `async`. In {len(uneven)} of {len(runs)} repeats the kernel gave a worker more requests"
            f" than its {ANYIO_THREADS} threads ({plus(shares_taken(worst))}), so that some waited for a second round:"
            f" that predicts {short(ratio)}. With at most {ANYIO_THREADS} in each worker {even.typical} is predicted."
        )
    return text


# ---------------------------------------------------------------- pictures


def burst_answers(shares: list[int], slots: float, wait_s: float) -> list[float]:
    """When a burst is answered, given how many requests each worker took, and the slots of a worker; sorted.

    >>> burst_answers([3, 1], 2, 1.0)
    [1.0, 1.0, 1.0, 2.0]
    """
    return sorted((n // slots + 1) * wait_s for share in shares for n in range(share))


def draw_burst(panel: Any, run: Json, name: str, place: int) -> None:
    """A burst: predicted as a thin line, measured on it; of several in one panel each has its place."""
    plan, shares, answered_s = run["plan"], shares_taken(run), run["answered_s"]
    numbers = range(1, len(answered_s) + 1)
    panel.plot(numbers[place::3], answered_s[place::3], "oxs^"[place % 4], fillstyle="none", label=name)
    is_plain = plan["distribution"] == "constant" and not plan["cpu_time_s"] and plan["passes"] == [1.0]
    if plan["slots_known"] and plan["wait_s"] and is_plain:
        each, slots = (plan[key] or math.inf for key in ("slots_per_worker", "slots"))
        even = burst_answers([len(answered_s)], slots, plan["wait_s"])
        dealt = burst_answers(shares, each, plan["wait_s"])
        panel.step(numbers, even, "k", where="mid", linewidth=0.8, zorder=3, label="predicted, even split")
        if dealt and dealt[-1] > 1.5 * even[-1]:
            label = f"predicted, as the workers took {plus(shares)}"
            panel.step(numbers[: len(dealt)], dealt, "k:", where="mid", zorder=3, label=label)


def draw_bursts(document: SweepDocument, drawing: Drawing, panels: dict[str, dict[str, str]]) -> None:
    """A panel for each title, with some variants by their labels: the response time of request n of a burst."""
    places = drawing.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for panel, (title, variants) in zip(places, panels.items(), strict=True):
        for place, (label, variant) in enumerate(variants.items()):
            run = document.median_run(variant)
            if run and "answered_s" in run:
                draw_burst(panel, run, label, place)
        panel.set(title=title, xlabel="request n of the burst, in the order of answers")
    label_log(places[0].yaxis)
    places[0].set_ylabel("response time, s (log scale)")
    legend(places[-1])


def staircase(document: SweepDocument, drawing: Drawing) -> None:
    panels = {f"{name}, 4 workers": {path: f"{name} {path}" for path in PATHS} for name in FRAMEWORKS}
    draw_bursts(document, drawing, panels)


def split(document: SweepDocument, drawing: Drawing) -> None:
    """Why FastAPI /io needs a second round: how many requests each worker took, and the line of 40 threads."""
    panel, limit, ticks = drawing.subplots(), ANYIO_THREADS, {}
    for repeat, run in document.runs_of("FastAPI /io").items():
        shares = shares_taken(run)
        places = range(5 * repeat, 5 * repeat + len(shares))
        bars = panel.bar(places, shares, color="C1", hatch="//", label="has to wait for a thread")
        panel.bar_label(bars)
        panel.bar(places, [min(share, limit) for share in shares], color="C0", label="first round")
        ticks[5 * repeat + 1.5] = f"repeat {repeat}\n{run['measured']['measured_s']:.2f} s"
    panel.axhline(limit, color="black", linestyle="--", label=f"{limit} threads")
    panel.set_xticks([*ticks], ticks.values())
    panel.set(xlabel="each bar a worker; below: time until the last of the 100 answers", ylabel="requests of a worker")
    legend(panel)


SUITE = Suite(
    "six endpoints with 4 workers each, a burst of 100 requests",
    "18 runs, about 4 min; --quick 6 runs, 50 s",
    f"Published: {POST}, with a task of 1 s.",
    tables,
    headline,
    variants=VARIANTS,
    full={"n": "100", "t": "1"},
    quick={"n": "100", "t": "0.2"},
    pictures=(("staircase", 4.0, staircase), ("split", 3.4, split)),
)
