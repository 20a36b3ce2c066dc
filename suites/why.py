"""why - counter-experiments: one setting is changed, and the prediction is made first.

If an explanation is right, changing only the setting that it names must move the figure, and by as much as it says.
Each experiment says what is believed, what is changed, and what the slots give before and after.
"""

from enum import Enum
from typing import Any, NamedTuple

from suites import ab, io, queues
from suites.common import (
    P99_S,
    PREDICTED,
    TIME_S,
    Drawing,
    Json,
    Mark,
    Repeats,
    Suite,
    SweepDocument,
    Variant,
    draw_rows,
    fits,
    if_even_s,
    look_up,
    table,
    tally,
)

# ---------------------------------------------------------------- how a repeat is judged

FIRST_S = "measured.latency_s.min"
TOLERANCE_OF_RATIO = 0.15  # the server's own CPU time per request is in no prediction


class Expects(Enum):
    """What must come of an experiment."""

    SLOTS = "both take what their slots give"
    SPLIT = "only the second takes what its slots give; the first is explained by its uneven split"
    FIRST = "as SLOTS, and the first answer comes after one wait before, and with the last after"
    RATIO = "the second takes as much less as its slots and CPUs say, within 15 %"
    TAIL = "the listen queue overflows only before, and the p99 falls to less than half"

    def agrees(self, before: Json, after: Json, figure: str) -> Any:
        """Whether a repeat went as predicted, by the figure that must move; not if requests failed."""
        was, now = look_up(before, figure), look_up(after, figure)
        if self is Expects.TAIL:
            overflows = [look_up(run, ab.OVERFLOWS) for run in (before, after)]
            return (None in overflows or overflows[0] > 0 == overflows[1]) and now < was / 2  # Linux counts them
        due, now_due = (if_even_s(run) for run in (before, after))
        if self is Expects.RATIO:
            return abs(now / was / (now_due / due) - 1) <= TOLERANCE_OF_RATIO
        as_slots = [fits(look_up(before, TIME_S), due), fits(look_up(after, TIME_S), now_due)]
        if self is Expects.SPLIT:
            return as_slots == [False, True] and fits(was, before["split_prediction"]["makespan_s"])
        if self is Expects.FIRST:
            return all(as_slots) and fits(was, before["plan"]["wait_s"]) and fits(now, now_due)
        return all(as_slots)


# ---------------------------------------------------------------- experiments


class Experiment(NamedTuple):
    """One changed setting."""

    name: str
    believed: str
    changed: str
    before: str
    after: str
    predicts: str  # {before} and {after}: what the slots give with an even split, in seconds; {t}: one wait
    expects: Expects
    explains: str
    figure: str = TIME_S  # that must move
    group: str = ""  # of experiments that share a variant


# A closed loop that fills every thread; a run with the same requests takes as long as its throughput is low.
KNEE = "--target flask-gunicorn-threads --path /io -c 88 -n {k} --task-time 0.2 --cpu-time 0.02 --warmup 8"
EXPERIMENTS = (
    Experiment(
        "AnyIO's limit",
        f"`async def` makes FastAPI twice as fast as `def`, as in {io.POST}",
        "AnyIO's limit of threads for `def` handlers, 40 -> 100",
        "--target fastapi-uvicorn-workers --path /io -n 150 --task-time {t} --warmup 8",
        "--target fastapi-threads --path /io -n 150 --task-time {t} --warmup 8",
        "more than {before:g} s, as some worker takes more than 40 -> {after:g} s",
        Expects.SPLIT,
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
        Expects.SPLIT,
        "a worker accepts connections that it has no thread for, and they wait there while others have threads free",
    ),
    Experiment(
        "listen backlog",
        f"Flask itself is slow for 1 % of the requests, as in {ab.POST}, p50 136 ms and p99 27.8 s",
        "the development server's listen backlog, 128 -> 4096",
        "--target flask-hello-dev -n {n} -c 500 --warmup 200 --timeout 100",
        "--target flask-hello-dev-backlog -n {n} -c 500 --warmup 200 --timeout 100",
        "overflows of the listen queue -> none, and the p99 less than half",
        Expects.TAIL,
        "the tail is TCP asking again after about 1, 3 and 7 s because the listen queue was full",
        P99_S,
        PREDICTED,
    ),
    Experiment(
        "workers",
        "a sync framework is slow at concurrent I/O",
        "gunicorn's --workers, 1 -> 8",
        "--target flask-gunicorn --path /io -n 16 --workers 1 --task-time {t}",
        "--target flask-gunicorn --path /io -n 16 --workers 8 --task-time {t}",
        "{before:g} s -> {after:g} s",
        Expects.SLOTS,
        "the time is ceil(n / slots) x t, and a sync worker is one slot",
    ),
    Experiment(
        "subtasks",
        "`async def` makes a Flask view faster",
        "the subtasks that the same `async def` view awaits together, 1 -> 8",
        "--target flask-gunicorn --path /async-io-multi -n 16 --subtasks 1 --task-time {t} --warmup 8",
        "--target flask-gunicorn --path /async-io-multi -n 16 --subtasks 8 --task-time {t} --warmup 8",
        "{before:g} s -> {after:g} s",
        Expects.SLOTS,
        "a view gains time only if it awaits several things within one request; it holds its worker either way",
    ),
    Experiment(
        "threads, not async",
        "only an event loop can wait for 100 requests at the same time",
        "FastAPI's `async def` on one uvicorn -> Flask's `def` on one gunicorn worker with 100 threads",
        "--target fastapi-uvicorn --path /async-io -n 100 --task-time {t} --warmup 8",
        "--target flask-gunicorn-threads --path /io -n 100 --workers 1 --threads 100 --task-time {t} --warmup 8",
        "{before:g} s -> {after:g} s, no change",
        Expects.SLOTS,
        "100 slots are 100 slots, whether they are threads or coroutines",
    ),
    Experiment(
        "the same 40 slots",
        "FastAPI serves the same blocking `def` handler faster than Flask",
        "FastAPI with AnyIO's 40 threads -> Flask on one gunicorn worker with 40 threads",
        "--target fastapi-uvicorn --path /io -n 80 --task-time {t} --warmup 8",
        "--target flask-gunicorn-threads --path /io -n 80 --workers 1 --threads 40 --task-time {t} --warmup 8",
        "{before:g} s -> {after:g} s, no change",
        Expects.SLOTS,
        "the framework does not matter to a wait: the same slots take the same time",
    ),
    Experiment(
        "response model",
        "a return annotation on a FastAPI handler costs no more than the check of the answer",
        "the return annotation of FastAPI's `def` handler, none -> `dict[str, float]`",
        "--target fastapi-uvicorn --path /io -n 120 --task-time {t} --warmup 8",
        "--target fastapi-typed --path /io -n 120 --task-time {t} --warmup 8",
        "the first answer at {t:g} s -> {after:g} s, the last at {before:g} s -> {after:g} s",
        Expects.FIRST,
        "a typed `def` handler takes one of 40 threads twice, in one first-come queue: no request is answered before"
        " all have run, and the first of 120 waits as long as the last",
        FIRST_S,
    ),
    Experiment(
        "threads beyond the knee",
        "more threads serve more requests",
        "gunicorn's --threads in one process, 11 -> 22, where a request waits 200 ms and computes 20 ms",
        f"{KNEE} --workers 1 --threads 11",
        f"{KNEE} --workers 1 --threads 22",
        "{before:.3g} s -> {after:.3g} s, no change",
        Expects.RATIO,
        "one process computes on one CPU, and 11 threads of 200 + 20 ms fill it: 11 x 20 ms = 220 ms",
        group="knee",
    ),
    Experiment(
        "processes beyond the knee",
        "22 threads are 22 threads, in one process or in two",
        "the same 22 threads, 1 process x 22 -> 2 processes x 11, which share evenly (--worker-connections 11)",
        f"{KNEE} --workers 1 --threads 22",
        f"{KNEE} --workers 2 --threads 11 --server-args='--worker-connections 11'",
        "{before:.3g} s -> {after:.3g} s, as two processes compute on two CPUs",
        Expects.RATIO,
        "beyond the knee only another CPU serves more, and only another process uses it",
        group="knee",
    ),
)
VARIANTS: dict[str, Variant] = {}  # by their arguments: what two experiments share is run once
for one in EXPERIMENTS:
    for when, arguments in (("before", one.before), ("after", one.after)):
        VARIANTS.setdefault(arguments, Variant(f"{one.name}, {when}", arguments, one.group or one.name))


def names_of(experiment: Experiment) -> tuple[str, str]:
    """Its two variants."""
    return VARIANTS[experiment.before].name, VARIANTS[experiment.after].name


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


def sentence(document: SweepDocument, experiment: Experiment) -> str:
    """What was believed, changed, predicted; what happened; what that shows."""
    names, good = names_of(experiment), judge_repeats(document, experiment)
    before_s, after_s = (document.predictions.get(name) or 0.0 for name in names)
    predicts = experiment.predicts.format(before=before_s, after=after_s, t=float(document.values["t"]))

    def moved(path: str) -> str:
        return " -> ".join(str(document.figure(name, path)) for name in names)

    happened = f"{moved(experiment.figure)} s"
    if experiment.expects is Expects.TAIL:
        happened = f"p99 {happened}, overflows {moved(ab.OVERFLOWS)}"
    if experiment.expects is Expects.FIRST:
        happened = f"the first answer at {happened}, the last at {moved(TIME_S)} s"
    bad = f"**NOT as predicted in {good.count(False)} of {len(good)} repeats**: these runs do not show that"
    shows = f"as predicted in all {len(good)} repeats. So" if all(good) else bad
    return (
        f"- **{experiment.name}.** Believed: {experiment.believed}. Changed: {experiment.changed}. Predicted:"
        f" {predicts}. Happened: {f'{happened}, {shows} {experiment.explains}' if good else 'not run yet'}."
    )


def tables(document: SweepDocument) -> str:
    rows = []
    for one in EXPERIMENTS:
        before, after = names_of(one)
        figures = (document.figure(name, one.figure) for name in (before, after))
        good = tally(judge_repeats(document, one))
        rows.append([one.name, *figures, document.ratio(after, before, one.figure), good])
    return "\n\n".join([
        table("experiment | before, s | after, s | after : before | as predicted", rows),
        "Time until the last answer. A repeat is as predicted if both times are within 5 % + 100 ms of what the slots"
        " give. Of AnyIO's limit and gthread's accept that holds for the time after. The time before is longer, and"
        " within 5 % + 100 ms of what the uneven split gives. Beyond the knee the ratio is within 15 % of the predicted"
        " one. Of the response model the times are those of the *first* answer. Of the listen backlog they are the 99th"
        " percentile of latency.",
        "\n".join(sentence(document, one) for one in EXPERIMENTS),
        queues.tables(document),
    ])  # fmt: skip


def headline(document: SweepDocument) -> list[str]:
    """One queue or four; and the response model, if it went as predicted."""
    found, experiment = queues.headline(document), next(one for one in EXPERIMENTS if one.expects is Expects.FIRST)
    if not all(judge_repeats(document, experiment)):
        return found
    before, after = names_of(experiment)
    first, then, last = (document.figure(*of).typical for of in ((before, FIRST_S), (after, FIRST_S), (after, TIME_S)))
    return [
        *found,
        f"A return annotation on FastAPI's `def` handler moves the first of 120 answers from {first} s to {then} s, and"
        f" the last comes at {last} s. A request queues for one of 40 threads a second time, for its answer, behind"
        " every request that has not run yet.",
    ]


# ---------------------------------------------------------------- picture


LOOKS = ("before", -0.15, "oC4"), ("after", 0.15, "oC0")


def moves(document: SweepDocument, drawing: Drawing) -> None:
    """Each experiment before and after, and where the slots say that both should be."""
    rows = dict[str, list[Mark]]()
    due_s = document.predictions | {"response model, before": float(document.values["t"])}  # of the first answer
    for one in EXPERIMENTS:
        rows[one.name] = []
        for name, (when, down, fmt) in zip(names_of(one), LOOKS, strict=True):
            due = Repeats({0: known_s} if (known_s := due_s[name]) else {})
            rows[one.name].append(("predicted, even split", due, down, PREDICTED))
            rows[one.name].append((when, document.figure(name, one.figure), down, fmt))
    draw_rows(
        drawing,
        "time until the last answer, s (log scale);\nresponse model: the first answer; listen backlog: p99",
        rows,
    )


SUITE = Suite(
    "counter-experiments: if the explanation is right, changing only that setting must move the figure",
    "81 runs, about 11 min; --quick 27 runs, 80 s",
    "Each was predicted from the slots before it was run.",
    tables,
    headline,
    variants=(*VARIANTS.values(), *queues.VARIANTS),
    full={"n": "5000", "t": "0.5", "k": "300", "m": "1500"},
    quick={"n": "1000", "t": "0.2", "k": "100", "m": "200"},
    pictures=(("moves", 4.6, moves), ("queues", 4.4, queues.draw_queues)),
)
