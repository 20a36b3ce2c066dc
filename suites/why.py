"""why - counter-experiments: one setting is changed, and the prediction is made first.

If an explanation is right, changing only the setting that it names must move the
figure, and by as much as it says. Each experiment says what is believed, what is
changed, and what the slots give before and after.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import NamedTuple

from explain import Run
from suites import (
    BLUE,
    Document,
    Figure,
    Picture,
    Suite,
    Variant,
    figures,
    fits,
    label_log,
    look_up,
    paired,
    runs_of,
    spread,
    spread_of,
    table,
)
from suites.ab import POST as POST_AB
from suites.io import POST as POST_IO

# ---------------------------------------------------------------- experiments


class Experiment(NamedTuple):
    """One changed setting. expects: how a repeat is judged, see as_predicted()."""

    name: str
    believed: str
    changed: str
    before: str
    after: str
    predicts: str  # {before} and {after}: what the slots give with an even split, in seconds
    expects: str
    explains: str


EXPERIMENTS = (
    Experiment(
        "AnyIO's limit",
        f"`async def` makes FastAPI twice as fast as `def`, as in {POST_IO}",
        "AnyIO's limit of threads for `def` handlers, 40 -> 100",
        "--target fastapi-uvicorn-workers --path /io -n 100 --task-time {t} --warmup 8",
        "--target fastapi-threads --path /io -n 100 --task-time {t} --warmup 8",
        "more than {before:g} s, as some worker takes more than 40 -> {after:g} s",
        "split",
        "the second round is the limit of 40 threads met by an uneven split, not the price of `def`",
    ),
    Experiment(
        "gthread's accept",
        "4 workers with 4 threads each serve 16 requests at a time, whatever arrives",
        "gunicorn's --worker-connections, 1000 -> 4",
        "--target flask-gunicorn-threads --path /io -n 64 --task-time {t} --warmup 8",
        "--target flask-gunicorn-threads --path /io -n 64 --task-time {t} --warmup 8"
        " --server-args='--worker-connections 4'",
        "more than {before:g} s, as some worker takes more than 16 -> {after:g} s",
        "split",
        "a worker accepts connections that it has no thread for, and they wait there while others have threads free",
    ),
    Experiment(
        "listen backlog",
        f"Flask itself is slow for 1 % of the requests, as in {POST_AB}, p50 136 ms and p99 27.8 s",
        "the development server's listen backlog, 128 -> 4096",
        "--target flask-hello-dev -n {n} -c 500 --warmup 200 --timeout 100",
        "--target flask-hello-dev-backlog -n {n} -c 500 --warmup 200 --timeout 100",
        "overflows of the listen queue -> none, and p99 less than half",
        "tail",
        "the tail is TCP trying again after about 1, 3 and 7 s because the listen queue was full",
    ),
    Experiment(
        "workers",
        "a sync framework is slow at concurrent I/O",
        "gunicorn's --workers, 1 -> 8",
        "--target flask-gunicorn --path /io -n 16 --workers 1 --task-time {t}",
        "--target flask-gunicorn --path /io -n 16 --workers 8 --task-time {t}",
        "{before:g} s -> {after:g} s",
        "slots",
        "the time is ceil(n / slots) x t, and a sync worker is one slot",
    ),
    Experiment(
        "subtasks",
        "`async def` makes a Flask view faster",
        "the subtasks that the same `async def` view awaits together, 1 -> 8",
        "--target flask-gunicorn --path /async-io-multi -n 16 --subtasks 1 --task-time {t} --warmup 8",
        "--target flask-gunicorn --path /async-io-multi -n 16 --subtasks 8 --task-time {t} --warmup 8",
        "{before:g} s -> {after:g} s",
        "slots",
        "only awaiting several things within one request gains time; the view holds its worker either way",
    ),
    Experiment(
        "threads, not async",
        "only an event loop can wait for 100 requests at the same time",
        "FastAPI's `async def` on one uvicorn -> Flask's `def` on one gunicorn worker with 100 threads",
        "--target fastapi-uvicorn --path /async-io -n 100 --task-time {t} --warmup 8",
        "--target flask-gunicorn-threads --path /io -n 100 --workers 1 --threads 100 --task-time {t} --warmup 8",
        "{before:g} s -> {after:g} s, no change",
        "slots",
        "100 slots are 100 slots, whether they are threads or coroutines",
    ),
    Experiment(
        "the same 40 slots",
        "FastAPI serves the same blocking `def` handler faster than Flask",
        "FastAPI with AnyIO's 40 threads -> Flask on one gunicorn worker with 40 threads",
        "--target fastapi-uvicorn --path /io -n 80 --task-time {t} --warmup 8",
        "--target flask-gunicorn-threads --path /io -n 80 --workers 1 --threads 40 --task-time {t} --warmup 8",
        "{before:g} s -> {after:g} s, no change",
        "slots",
        "the framework does not matter to a wait: the same slots take the same time",
    ),
)


def names_of(experiment: Experiment) -> tuple[str, str]:
    """Its two variants."""
    return f"{experiment.name}, before", f"{experiment.name}, after"


def prediction_of(document: Document, experiment: Experiment) -> str:
    before, after = (document["predictions"][name] for name in names_of(experiment))
    return experiment.predicts.format(before=before, after=after)


def foretell(document: Document) -> list[str]:
    return [f"predicted  {experiment.name}: {prediction_of(document, experiment)}" for experiment in EXPERIMENTS]


def seconds(_: Variant, __: int, values: Mapping[str, str]) -> float:
    return int(values["n"]) / 1000  # only the hello apps' are not predicted


# ---------------------------------------------------------------- tables


def as_predicted(expects: str, before: Run, after: Run) -> bool:
    """Whether one repeat of an experiment went as predicted.

    slots: both took what their slots give. split: only the second did; the first is explained by its uneven split.
    tail: the listen queue overflowed only before, and p99 fell to less than half.
    """
    if before["failed"] or after["failed"]:
        return False
    if expects == "tail":
        overflows = [run["kernel"].get("ListenOverflows", 0) for run in (before, after)]
        p99_s = [look_up(run, "latency_s.p99") or look_up(run, "latency_s.max") or 0.0 for run in (before, after)]
        return overflows[0] > 0 == overflows[1] and p99_s[1] < p99_s[0] / 2
    if not fits(after["measured_s"], after["predicted_s"] or 0.0):
        return False
    fits_before = fits(before["measured_s"], before["predicted_s"] or 0.0)
    if expects == "split":
        return not fits_before and fits(before["measured_s"], before["split_predicted_s"] or 0.0)
    return fits_before


def experiment_line(document: Document, experiment: Experiment) -> tuple[str, list[str]]:
    """One experiment: its sentence, and its row in the table."""
    names = names_of(experiment)
    before, after = (runs_of(document, name) for name in names)
    repeats = sorted(before.keys() & after.keys())
    good = sum(as_predicted(experiment.expects, before[repeat], after[repeat]) for repeat in repeats)
    key = "latency_s.p99" if experiment.expects == "tail" else "measured_s"
    cells = [spread_of(document, name, key, unit=" s") for name in names]
    happened = " -> ".join(cells)
    if experiment.expects == "tail":
        counts = [spread_of(document, name, "kernel.ListenOverflows") for name in names]
        happened = f"p99 {happened}, overflows {' -> '.join(counts)}"
    sentence = (
        f"**{experiment.name}.** Believed: {experiment.believed}. Changed: {experiment.changed}."
        f" Predicted: {prediction_of(document, experiment)}."
        f" Happened: {happened}, {verdict(good, len(repeats), experiment.explains)}"
    )
    ratios = paired(*(figures(document, name, key) for name in reversed(names)))
    return sentence, [experiment.name, *cells, spread(ratios), f"{good} of {len(repeats)}"]


def verdict(good: int, repeats: int, explains: str) -> str:
    if not repeats:
        return "not run yet."
    if good == repeats:
        times = "the one repeat" if good == 1 else f"all {good} repeats"
        return f"as predicted in {times}. So {explains}."
    return f"**NOT as predicted in {repeats - good} of {repeats} repeats**: these runs do not show that {explains}."


def tables(document: Document) -> str:
    lines = [experiment_line(document, experiment) for experiment in EXPERIMENTS]
    rows = [row for _, row in lines]
    head = table(["experiment", "before", "after", "after : before", "as predicted"], rows)
    note = ("Time until the last answer, as predicted if within 5 % + 100 ms of what the slots give; for the listen"
            " backlog, the 99th percentile of latency.")  # fmt: skip
    return "\n\n".join([head, note, "\n".join(f"- {sentence}" for sentence, _ in lines)])


# ---------------------------------------------------------------- pictures


def moves(document: Document, figure: Figure) -> None:
    """Each experiment before and after, and where the slots say that both should be."""
    panel = figure.subplots()
    rows = EXPERIMENTS[::-1]
    for row, experiment in enumerate(rows):
        key = "latency_s.p99" if experiment.expects == "tail" else "measured_s"
        spots: list[tuple[float, float]] = []
        looks = (("white", "before"), (BLUE, "after"))
        for name, (face, label) in zip(names_of(experiment), looks, strict=True):
            y = row + (0.12 if label == "before" else -0.12)
            values, predicted_s = list(figures(document, name, key).values()), document["predictions"][name]
            if predicted_s and not (experiment.expects == "split" and label == "before"):
                panel.plot([predicted_s] * 2, [y - 0.2, y + 0.2], color="black", linewidth=2, zorder=1,
                           label="predicted from the slots" if row == 0 and label == "after" else None)  # fmt: skip
            if values:
                spots.append((statistics.median(values), y))
                panel.plot([min(values), max(values)], [y, y], color=BLUE, linewidth=1.2)
                panel.plot(*spots[-1], marker="o", markersize=7, color=BLUE, markerfacecolor=face, linestyle="",
                           label=label if row == 0 else None, zorder=2)  # fmt: skip
        if len(spots) == 2 and abs(spots[0][0] / spots[1][0] - 1) > 0.1:
            panel.annotate("", xy=spots[1], xytext=spots[0], zorder=0,
                           arrowprops={"arrowstyle": "->", "color": "#777777", "shrinkA": 4, "shrinkB": 4})  # fmt: skip
    panel.set_yticks(range(len(rows)), [experiment.name for experiment in rows])
    panel.set_ylim(-0.6, len(rows) - 0.4)
    panel.grid(axis="y", visible=False)
    label_log(panel.xaxis)
    panel.set_xlabel("time until the last answer, s (log scale); listen backlog: p99 of latency")
    handles = dict(zip(*panel.get_legend_handles_labels()[::-1], strict=True))
    labels = [label for label in ("before", "after", "predicted from the slots") if label in handles]
    figure.legend([handles[label] for label in labels], labels, loc="outside upper center", ncols=3)


SUITE = Suite(
    title="counter-experiments: if the explanation is right, changing only that setting must move the figure",
    source="Each was predicted from the slots before it was run.",
    variants=tuple(
        Variant(name, arguments, experiment.name)
        for experiment in EXPERIMENTS
        for name, arguments in zip(names_of(experiment), (experiment.before, experiment.after), strict=True)
    ),
    full={"n": "5000", "t": "1"},
    quick={"n": "2000", "t": "0.2"},
    bodies={
        "/": {"message": "hello"},
        "/io": {"task_time": 0.01},
        "/async-io": {"task_time": 0.01},
        "/async-io-multi": {"task_time": 0.01, "subtasks": 2},
    },
    tables=tables,
    pictures=(Picture("moves", 3.8, moves),),
    seconds=seconds,
    foretell=foretell,
)
