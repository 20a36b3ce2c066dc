"""why - counter-experiments: one setting is changed, and the prediction is made first.

If an explanation is right, changing only the setting that it names must move the
figure, and by as much as it says. Each experiment says what is believed, what is
changed, and what the slots give before and after.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from explain import Run
from suites import (
    BLUE,
    Document,
    Figure,
    Picture,
    Programs,
    Suite,
    Variant,
    experiments,
    figures,
    fits,
    label_log,
    look_up,
    paired,
    proxy,
    queues,
    runs_of,
    spread,
    spread_of,
    table,
    typical,
)
from suites.experiments import NAMES, Experiment, asked, group_of, key_of, names_of, predicted_s, prediction_of, verdict


def seconds(variant: Variant, _: int, values: Mapping[str, str]) -> float:
    """Of what the slots do not predict: a schedule, and the hello apps."""
    return int(values["m"]) / queues.RATE if "{m}" in variant.arguments else int(values["n"]) / 1000


def foretell(document: Document) -> list[str]:
    return experiments.foretell(document) + queues.foretell(document)


# ---------------------------------------------------------------- tables


TOLERANCE_OF_RATIO = 0.15  # the server's own CPU time a request is in no prediction


def as_predicted(expects: str, before: Run, after: Run) -> bool:
    """Whether one repeat of an experiment went as predicted.

    slots: both took what their slots give. split: only the second did; the first is explained by its uneven split.
    first: both did, and the first answer came after one wait before, with the last after. ratio: the second took as
    much less as its slots and CPUs say, within 15 %. tail: the listen queue overflowed only before, and p99 fell to
    less than half.
    """
    if before["failed"] or after["failed"]:
        return False
    if expects == "tail":
        overflows = [run["kernel"].get("ListenOverflows", 0) for run in (before, after)]
        p99_s = [look_up(run, "latency_s.p99") or look_up(run, "latency_s.max") or 0.0 for run in (before, after)]
        return overflows[0] > 0 == overflows[1] and p99_s[1] < p99_s[0] / 2
    expected_s = [run["predicted_s"] or 0.0 for run in (before, after)]
    if expects == "ratio":
        moved, due = after["measured_s"] / before["measured_s"], expected_s[1] / expected_s[0]
        return abs(moved / due - 1) <= TOLERANCE_OF_RATIO
    if not fits(after["measured_s"], expected_s[1]):
        return False
    fits_before = fits(before["measured_s"], expected_s[0])
    if expects == "split":
        return not fits_before and fits(before["measured_s"], before["split_predicted_s"] or 0.0)
    if expects == "first":
        first_s = [look_up(run, "latency_s.min") or 0.0 for run in (before, after)]
        return fits_before and fits(first_s[0], before["wait_s"] or 0.0) and fits(first_s[1], expected_s[1])
    return fits_before


def experiment_line(document: Document, experiment: Experiment) -> tuple[str, list[str]]:
    """One experiment: its sentence, and its row in the table."""
    names = names_of(experiment)
    before, after = (runs_of(document, name) for name in names)
    repeats = sorted(before.keys() & after.keys())
    good = sum(as_predicted(experiment.expects, before[repeat], after[repeat]) for repeat in repeats)
    key = key_of(experiment)
    cells = [spread_of(document, name, key, unit=" s") for name in names]
    happened = " -> ".join(cells)
    if experiment.expects == "tail":
        counts = [spread_of(document, name, "kernel.ListenOverflows") for name in names]
        happened = f"p99 {happened}, overflows {' -> '.join(counts)}"
    if experiment.expects == "first":
        last = [spread_of(document, name, "measured_s", unit=" s") for name in names]
        happened = f"the first answer at {happened}, the last at {' -> '.join(last)}"
    sentence = (
        f"**{experiment.name}.** Believed: {experiment.believed}. Changed: {experiment.changed}."
        f" Predicted: {prediction_of(document, experiment)}."
        f" Happened: {happened}, {verdict(good, len(repeats), experiment.explains)}"
    )
    ratios = paired(*(figures(document, name, key) for name in reversed(names)))
    return sentence, [experiment.name, *cells, spread(ratios), f"{good} of {len(repeats)}"]


def tables(document: Document) -> str:
    lines = [experiment_line(document, experiment) for experiment in asked(document)]
    rows = [row for _, row in lines]
    head = table(["experiment", "before", "after", "after : before", "as predicted"], rows)
    note = ("Time until the last answer, as predicted if within 5 % + 100 ms of what the slots give; beyond the knee if"
            " the ratio is within 15 % of the predicted one. Of the response model the time until the *first* answer;"
            " of the listen backlog the 99th percentile of latency.")  # fmt: skip
    sentences = "\n".join(f"- {sentence}" for sentence, _ in lines)
    return "\n\n".join(filter(None, [head, note, sentences, queues.tables(document), proxy.tables(document)]))


def headline(document: Document) -> list[str]:
    """One queue or four; and the response model."""
    names = "response model, before", "response model, after"
    first, last = ([spread_of(document, name, key, unit=" s") for name in names]
                   for key in ("latency_s.min", "measured_s"))  # fmt: skip
    if "-" in first:
        return queues.headline(document)
    return [
        *queues.headline(document),
        f"A return annotation on FastAPI's `def` handler moves the first of 120 answers from {typical(first[0])} to"
        f" {typical(first[1])}, and the last comes at {typical(last[1])}: an answer queues for one of 40 threads a"
        " second time, behind everybody who has not run yet.",
    ]


# ---------------------------------------------------------------- pictures


def moves(document: Document, figure: Figure) -> None:
    """Each experiment before and after, and where the slots say that both should be."""
    panel = figure.subplots()
    rows = asked(document)[::-1]
    for row, experiment in enumerate(rows):
        key = key_of(experiment)
        spots: list[tuple[float, float]] = []
        looks = (("white", "before"), (BLUE, "after"))
        due_s = predicted_s(document, experiment)
        for name, (face, label), at_s in zip(names_of(experiment), looks, due_s, strict=True):
            y = row + (0.12 if label == "before" else -0.12)
            values = list(figures(document, name, key).values())
            if at_s:
                panel.plot([at_s] * 2, [y - 0.2, y + 0.2], color="black", linewidth=2, zorder=1,
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
    panel.set_xlabel("time until the last answer, s (log scale); response model: the first answer; listen backlog: p99")
    handles = dict(zip(*panel.get_legend_handles_labels()[::-1], strict=True))
    labels = [label for label in ("before", "after", "predicted from the slots") if label in handles]
    figure.legend([handles[label] for label in labels], labels, loc="outside upper center", ncols=3)


EXPERIMENT_VARIANTS = tuple(Variant(name, arguments, group_of(name)) for arguments, name in NAMES.items())
SUITE = Suite(
    title="counter-experiments: if the explanation is right, changing only that setting must move the figure",
    source="Each was predicted from the slots before it was run.",
    variants=EXPERIMENT_VARIANTS + queues.VARIANTS + proxy.VARIANTS,
    full={"n": "5000", "t": "0.5", "k": "600", "m": "1500"},
    quick={"n": "1000", "t": "0.2", "k": "200", "m": "200"},
    bodies={
        "/": {"message": "hello"},
        "/io": {"task_time": 0.01},
        "/async-io": {"task_time": 0.01},
        "/async-io-multi": {"task_time": 0.01, "subtasks": 2},
    },
    tables=tables,
    pictures=(Picture("moves", 4.6, moves), Picture("queues", 4.4, queues.draw)),
    seconds=seconds,
    foretell=foretell,
    headline=headline,
    programs=Programs(proxy.is_there, proxy.run, proxy.versions_of_nginx),
)
