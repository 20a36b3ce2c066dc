"""why - counter-experiments: one setting is changed, and the prediction is made first.

If an explanation is right, changing only the setting that it names must move the figure, and by as much as it says.
Each experiment says what is believed, what is changed, and what the slots give before and after.
"""

from __future__ import annotations

from suites import ab, queues
from suites.common import BLUE, TIME_S, Drawing, Suite, SweepDocument, label_log, legend, mark, name_rows, table
from suites.experiments import EXPERIMENTS, FIRST_S, VARIANTS, Expects, Experiment, names_of, predicted_of

# ---------------------------------------------------------------- tables


def judge_repeats(document: SweepDocument, experiment: Experiment) -> list[bool]:
    """Whether each repeat went as predicted."""
    before, after = map(document.runs_of, names_of(experiment))
    return [
        not before[i]["measured"]["failed"] + after[i]["measured"]["failed"]
        and experiment.expects.agrees(before[i], after[i], experiment.figure)
        for i in before
        if i in after
    ]


def row(document: SweepDocument, experiment: Experiment) -> list[object]:
    before, after = (document.figure(name, experiment.figure) for name in names_of(experiment))
    good = judge_repeats(document, experiment)
    return [experiment.name, before, after, after / before, f"{sum(good)} of {len(good)}"]


def sentence(document: SweepDocument, experiment: Experiment) -> str:
    """What was believed, changed, predicted; what happened; what that shows."""

    def moved(path: str) -> str:
        return " -> ".join(str(document.figure(name, path)) for name in names_of(experiment))

    happened = f"{moved(experiment.figure)} s"
    if experiment.expects is Expects.TAIL:
        happened = f"p99 {happened}, overflows {moved(ab.OVERFLOWS)}"
    if experiment.expects is Expects.FIRST:
        happened = f"the first answer at {happened}, the last at {moved(TIME_S)} s"
    good = judge_repeats(document, experiment)
    bad = f"**NOT as predicted in {good.count(False)} of {len(good)} repeats**: these runs do not show that"
    shows = f"as predicted in all {len(good)} repeats. So" if all(good) else bad
    return (
        f"- **{experiment.name}.** Believed: {experiment.believed}. Changed: {experiment.changed}. Predicted:"
        f" {predicted_of(document, experiment)}. Happened: "
        + (f"{happened}, {shows} {experiment.explains}." if good else "not run yet.")
    )


def tables(document: SweepDocument) -> str:
    return "\n\n".join([
        table(["experiment", "before, s", "after, s", "after : before", "as predicted"],
              [row(document, one) for one in EXPERIMENTS]),
        "Time until the last answer, as predicted if within 5 % + 100 ms of what the slots give; beyond the knee if the"
        " ratio is within 15 % of the predicted one. Of the response model the time until the *first* answer; of the"
        " listen backlog the 99th percentile of latency.",
        "\n".join(sentence(document, one) for one in EXPERIMENTS),
        queues.tables(document),
    ])  # fmt: skip


def headline(document: SweepDocument) -> list[str]:
    """One queue or four; and the response model."""
    before, after = "response model, before", "response model, after"
    first, then, last = (document.figure(*of).typical for of in ((before, FIRST_S), (after, FIRST_S), (after, TIME_S)))
    return [
        *queues.headline(document),
        f"A return annotation on FastAPI's `def` handler moves the first of 120 answers from {first} s to {then} s, and"
        f" the last comes at {last} s. An answer queues for one of 40 threads a second time, behind every request that"
        " has not run yet.",
    ]


# ---------------------------------------------------------------- pictures


def moves(document: SweepDocument, drawing: Drawing) -> None:
    """Each experiment before and after, and where the slots say that both should be."""
    panel, rows = drawing.subplots(), EXPERIMENTS[::-1]
    for y, experiment in enumerate(rows):
        names, is_first = names_of(experiment), experiment.expects is Expects.FIRST
        for name, label, up, face in zip(names, ("before", "after"), (0.15, -0.15), ("white", BLUE), strict=True):
            figure, due_s = document.figure(name, experiment.figure), document.predictions.get(name)
            mark(panel, figure, y + up, fmt="o", color=BLUE, markerfacecolor=face, label=label)
            if is_first and label == "before":
                due_s = float(document.values["t"])
            if due_s:
                panel.plot([due_s] * 2, [y + up - 0.2, y + up + 0.2], color="black", label="predicted, even split")
    name_rows(panel, [experiment.name for experiment in rows])
    label_log(panel.xaxis)
    panel.set_xlabel(
        "time until the last answer, s (log scale);\nresponse model: the first answer; listen backlog: p99"
    )
    legend(panel)


SUITE = Suite(
    title="counter-experiments: if the explanation is right, changing only that setting must move the figure",
    takes="78 runs, about 10 min; --quick 26 runs, 80 s",
    source="Each was predicted from the slots before it was run.",
    variants=(*VARIANTS.values(), *queues.VARIANTS),
    full={"n": "5000", "t": "0.5", "k": "600", "m": "1500"},
    quick={"n": "1000", "t": "0.2", "k": "200", "m": "200"},
    tables=tables,
    pictures=(("moves", 4.6, moves), ("queues", 4.4, queues.draw_queues)),
    headline=headline,
)
