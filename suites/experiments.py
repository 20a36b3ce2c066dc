"""The counter-experiments of suite why: what is believed, the one setting that is changed, what must come of it."""

from __future__ import annotations

from typing import NamedTuple

from suites import Document
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
    predicts: str  # {before} and {after}: what the slots give with an even split, in seconds; {t}: one wait
    expects: str
    explains: str


# A closed loop that fills every thread; a run with the same requests takes as long as its throughput is low.
KNEE = "--target flask-gunicorn-threads --path /io -c 88 -n {k} --task-time 0.05 --cpu-time 0.005 --warmup 8"
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
    Experiment(
        "response model",
        "a return annotation on a FastAPI handler costs no more than the check of the answer",
        "the return annotation of FastAPI's `def` handler, none -> `dict[str, float]`",
        "--target fastapi-uvicorn --path /io -n 120 --task-time {t} --warmup 8",
        "--target fastapi-typed --path /io -n 120 --task-time {t} --warmup 8",
        "the first answer at {t:g} s -> {after:g} s, the last at {before:g} s -> {after:g} s",
        "first",
        "a typed `def` handler takes one of 40 threads twice, in one first-come queue: nobody is answered before all"
        " have run, and the first of 120 waits as long as the last",
    ),
    Experiment(
        "threads beyond the knee",
        "more threads serve more requests",
        "gunicorn's --threads in one process, 11 -> 22, where a request waits 50 ms and computes 5 ms",
        f"{KNEE} --workers 1 --threads 11",
        f"{KNEE} --workers 1 --threads 22",
        "{before:.3g} s -> {after:.3g} s, no change",
        "ratio",
        "one process computes on one CPU, which P (t + s) / s = 1 x 55 / 5 = 11 threads fill",
    ),
    Experiment(
        "processes beyond the knee",
        "22 threads are 22 threads, in one process or in two",
        "the same 22 threads, 1 process x 22 -> 2 processes x 11",
        f"{KNEE} --workers 1 --threads 22",
        f"{KNEE} --workers 2 --threads 11",
        "{before:.3g} s -> {after:.3g} s, as two processes compute on two CPUs",
        "ratio",
        "beyond the knee only another CPU serves more, and only another process uses it",
    ),
)


NAMES: dict[str, str] = {}  # of the variants, by their arguments: what two experiments share is run once
for each in EXPERIMENTS:
    NAMES.setdefault(each.before, f"{each.name}, before")
    NAMES.setdefault(each.after, f"{each.name}, after")


def names_of(experiment: Experiment) -> tuple[str, str]:
    """Its two variants."""
    return NAMES[experiment.before], NAMES[experiment.after]


def group_of(name: str) -> str:
    """Variants to run next to each other: those of one experiment; the two beyond the knee share one."""
    return name.partition(",")[0].replace("processes", "threads")


def asked(document: Document) -> list[Experiment]:
    """Those that the document has: an older file knows fewer."""
    known = {name for name, _, _ in document["order"]}
    return [experiment for experiment in EXPERIMENTS if known.issuperset(names_of(experiment))]


def key_of(experiment: Experiment) -> str:
    """The figure of a run that must move."""
    return {"tail": "latency_s.p99", "first": "latency_s.min"}.get(experiment.expects, "measured_s")


def predicted_s(document: Document, experiment: Experiment) -> tuple[float | None, float | None]:
    """That figure, before and after, from the slots; None where it is not a number."""
    before_s, after_s = (document["predictions"][name] for name in names_of(experiment))
    if experiment.expects == "first":
        return float(document["values"]["t"]), after_s
    return None if experiment.expects == "split" else before_s, after_s


def prediction_of(document: Document, experiment: Experiment) -> str:
    before_s, after_s = (document["predictions"][name] for name in names_of(experiment))
    return experiment.predicts.format(before=before_s, after=after_s, t=float(document["values"]["t"]))


def foretell(document: Document) -> list[str]:
    return [f"predicted  {experiment.name}: {prediction_of(document, experiment)}" for experiment in asked(document)]


def verdict(good: int, repeats: int, explains: str) -> str:
    if not repeats:
        return "not run yet."
    if good == repeats:
        times = "the one repeat" if good == 1 else f"all {good} repeats"
        return f"as predicted in {times}. So {explains}."
    return f"**NOT as predicted in {repeats - good} of {repeats} repeats**: these runs do not show that {explains}."
