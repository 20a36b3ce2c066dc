"""comparison - two documents side by side, of bench.py or of sweep.py.

`python sweep.py compare A.json B.json`: for each run that both have, the ratio B / A with its spread. Where their
spreads overlap, it says "too noisy to tell"; or "the same" where the whole spread of the ratio is within 5 % of 1. It
is no suite: it runs nothing. The two were measured at different times, so repeats cannot be paired as within a sweep:
the least ratio is B's least to A's most.
"""

import hashlib
import json
import statistics
from collections.abc import Iterator
from typing import Any

from engine.words import Problem
from suites.common import FITS_WITHIN, LAST_ANSWER_S, P99_S, RPS, TIME_S, Json, Repeats, look_up, table

# ---------------------------------------------------------------- reading


def runs_of(document: Json, with_target: bool = True) -> dict[str, list[Json]]:
    """What a document of either kind measured: each run's name, and its repeats. Raises LookupError or TypeError."""
    runs: dict[str, list[Json]] = {}
    for entry in document["runs"]:
        if "suite" in document:
            name, run = f"{entry['variant']}, c = {entry['concurrency']}", entry["run"]
        else:
            plan, tried = entry["plan"], entry["plan"].get("tried")
            name, run = f"{asked_in(plan)} {load_in_common(entry)}{f', {tried}' * bool(tried)}", entry
            name = f"{plan['target']} {name}" if with_target else name
        if not (look_up(run, "measured.stopped") or "").startswith("SIG"):  # one that was interrupted is no repeat
            runs.setdefault(name.removesuffix(", c = 0"), []).append(run)
    return runs


def asked_in(plan: Json) -> str:
    """The path; of a workload its kinds, as a file may have others later."""
    kinds = plan.get("kinds") or ()
    digest = hashlib.sha256(json.dumps(kinds, sort_keys=True).encode()).hexdigest()[:6]
    return f"workload of {len(kinds)} kinds ({digest})" if kinds else plan["path"]


def targets_of(document: Json) -> list[str]:
    return [] if "suite" in document else [*{entry["plan"]["target"]: None for entry in document["runs"]}]


def matched(a: Json, b: Json) -> tuple[dict[str, list[Json]], dict[str, list[Json]]]:
    """The runs of both, by names that they share. Of two services (apps, URLs, commands) these are without a target."""
    of_a, of_b = runs_of(a), runs_of(b)
    if of_a.keys() & of_b.keys() or not len(targets_of(a)) == len(targets_of(b)) == 1:
        return of_a, of_b
    return runs_of(a, with_target=False), runs_of(b, with_target=False)


def load_in_common(run: Json) -> Json:
    """What repeats of a load have in common: random arrivals have another seed, and in a time another number."""
    load = {name: value for name, value in run["plan"]["load"].items() if value and name != "seed"}
    if load.get("arrivals") == "poisson" and load.get("time_limit_s"):
        load.pop("requests", None)
    return load


def about(document: Json) -> str:
    """Where it is from. Older documents have neither the CPU's model nor the kernel."""
    machine = ", ".join(f"{value}{' CPUs' * (name == 'cpus')}" for name, value in document["machine"].items())
    return f"`{document['command']}`, {document['when']}; {machine}"


# ---------------------------------------------------------------- one figure of both


def b_to_a(a: list[float], b: list[float], more_is_better: bool = False) -> tuple[Repeats, str]:
    """B : A, the least that it can be, of the medians, and the most; and whether B is better or worse.

    >>> b_to_a([1.0, 1.1, 1.2], [2.0, 2.1, 2.2])[1]
    'worse'
    >>> b_to_a([1.0, 1.1, 1.2], [1.1, 1.4, 1.5])[1]
    'too noisy to tell'
    """
    low, middle, high = min(b) / max(a), statistics.median(b) / statistics.median(a), max(b) / min(a)
    verdict = "better" if (middle > 1) is more_is_better else "worse"
    if min(len(a), len(b)) == 1:
        near = abs(middle - 1) <= FITS_WITHIN
        verdict = "about the same, but measured once" if near else "measured once: no spread is known"
    elif max(1 - low, high - 1) <= FITS_WITHIN:
        verdict = "the same"
    elif low <= 1 <= high:
        verdict = "too noisy to tell"
    return Repeats(enumerate((low, middle, high))), verdict


def figure_at(run: Json, path: str) -> Any:
    """Older documents have no last answer, but when the last request had ended."""
    is_old = path == LAST_ANSWER_S and "last_answer_s" not in run["measured"]
    return look_up(run, TIME_S if is_old else path)


def rows_of(name: str, a: list[Json], b: list[Json]) -> Iterator[list[Any]]:
    """Of a burst the requests/s say as much as the last answer, of other loads the last answer says nothing. A figure
    that some repeats lack, as a p99 of few answers, would be compared with fewer repeats than there are: it has no
    row."""
    is_burst = look_up(a[0], "plan.load.kind") == "burst"
    first = (LAST_ANSWER_S, "last answer, s") if is_burst else (RPS, "requests/s")
    a, b = ([run for run in runs if figure_at(run, first[0])] for runs in (a, b))  # something was answered
    for path, figure in (first, ("measured.latency_s.median", "p50, ms"), (P99_S, "p99, ms")):
        factor = 1000 if figure.endswith("ms") else 1
        values = [[value * factor for run in runs if (value := figure_at(run, path))] for runs in (a, b)]
        if all(values) and [*map(len, values)] == [len(a), len(b)]:
            spreads = (Repeats(enumerate(of_one)) for of_one in values)
            yield [name, figure, *spreads, *b_to_a(values[0], values[1], path == RPS)]


# ---------------------------------------------------------------- render

CANNOT = (
    "Few repeats cannot show a difference that is smaller than their spread: of 3 runs against 3, all of one lie above"
    " all of the other 1 time in 10 even if nothing differs. No number of repeats shows what changed between the two"
    " times. A p99 stands here where every repeat has one: it needs 100 answers."
)


ONCE = (
    "What differs cannot be told from chance. Measure both with `bench.py ... --repeats 6 --json FILE`, or with"
    " `sweep.py`."
)


def differences(a: Json, b: Json) -> Iterator[str]:
    """Between what was measured, and between where."""
    if not runs_of(a).keys() & runs_of(b).keys():
        yield f"**Two services**: A is `{targets_of(a)[0]}`, B is `{targets_of(b)[0]}`."
    for what in ("machine", "versions", "values"):
        if a.get(what) != b.get(what):
            yield f"**They differ in more than what is compared**: A has {a.get(what)}, B has {b.get(what)}."


def about_side(side: str, runs: dict[str, list[Json]], others: dict[str, list[Json]]) -> Iterator[str]:
    if only := [name for name in runs if name not in others]:
        yield f"Only in {side}: {', '.join(only)}."
    if failed := sum(look_up(run, "measured.failed") for repeats in runs.values() for run in repeats):
        yield f"**Failed requests** in {side}: {failed}."


def failed_share(document: Json, other: Json) -> float:
    """Of all requests of the runs that the other document has, too."""
    mine, others = matched(document, other)
    runs = [run["measured"] for name in mine if name in others for run in mine[name]]
    share: float = sum(run["failed"] for run in runs) / (sum(run["sent"] for run in runs) or 1)
    return share


def comparison_report(a: Json, b: Json) -> tuple[str, list[list[Any]]]:
    """As Markdown, and the rows of its table. Raises Problem if no run is in both."""
    of_a, of_b = matched(a, b)
    rows = [row for name in of_a if name in of_b for row in rows_of(name, of_a[name], of_b[name])]
    if not rows and {*of_a} & {*of_b}:
        raise Problem("in one of them no request was answered, so that there is nothing to compare")
    if not rows:
        raise Problem(f"they have no run in common: {', '.join(list(of_a)[:3])}; {', '.join(list(of_b)[:3])}")
    parts = [f"## B against A\n\nA: {about(a)}.\n\nB: {about(b)}."]
    parts += differences(a, b)
    parts += [
        f"**{side} is not complete**: it ended before all that was asked for had run."
        for side, of in (("A", a), ("B", b))
        if not of.get("complete", True)
    ]
    parts += [*about_side("A", of_a, of_b), *about_side("B", of_b, of_a)]
    if once := [name for name in of_a if name in of_b and min(len(of_a[name]), len(of_b[name])) == 1]:
        parts.append(f"**Measured once**: {', '.join(once)}. {ONCE}")
    return "\n\n".join([*parts, table("run | figure | A | B | B : A | B is", rows), CANNOT]), rows
