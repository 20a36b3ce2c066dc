"""comparison - two documents side by side, of bench.py or of sweep.py.

`python sweep.py compare A.json B.json`: for each run that both have, the ratio B / A with its spread, and "too noisy to
tell" where their spreads overlap. It is no suite: it runs nothing. The two were measured at different times, so repeats
cannot be paired as within a sweep: the least ratio is B's least to A's most.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from engine.words import Problem
from suites.common import FITS_WITHIN, P99_S, RPS, TIME_S, Json, Repeats, look_up, table

# ---------------------------------------------------------------- reading


def runs_of(document: Json) -> dict[str, list[Json]]:
    """What a document of either kind measured: each run's name, and its repeats. Raises LookupError or TypeError."""
    runs: dict[str, list[Json]] = {}
    for entry in document["runs"]:
        if "suite" in document:
            name, run = f"{entry['variant']}, c = {entry['concurrency']}", entry["run"]
        else:
            load = {name: value for name, value in entry["plan"]["load"].items() if value}
            name, run = f"{entry['plan']['target']} {entry['plan']['path']} {load}", entry
        runs.setdefault(name.removesuffix(", c = 0"), []).append(run)
    return runs


def about(document: Json) -> str:
    """Where it is from. Older documents have neither the CPU's model nor the kernel."""
    machine = ", ".join(f"{value}{' CPUs' * (name == 'cpus')}" for name, value in document["machine"].items())
    return f"`{document['command']}`, {document['when']}; {machine}"


# ---------------------------------------------------------------- one figure of both


class Line(NamedTuple):
    """One figure of a run that both documents have."""

    run: str
    figure: str
    a: list[float]
    b: list[float]
    more_is_better: bool = False

    @property
    def ratio(self) -> Repeats:
        """The least that it can be, B's median to A's, and the most."""
        middle = statistics.median(self.b) / statistics.median(self.a)
        return Repeats(enumerate((min(self.b) / max(self.a), middle, max(self.b) / min(self.a))))

    @property
    def verdict(self) -> str:
        """Whether B is better or worse, the same, or too noisy to tell.

        >>> Line("x", "p99", [1.0, 1.1, 1.2], [2.0, 2.1, 2.2]).verdict
        'worse'
        >>> Line("x", "p99", [1.0, 1.1, 1.2], [1.1, 1.4, 1.5]).verdict
        'too noisy to tell'
        """
        low, middle, high = self.ratio.values()
        if min(len(self.a), len(self.b)) == 1:
            near = abs(middle - 1) <= FITS_WITHIN
            return "about the same, but once each" if near else "measured once: no spread is known"
        if max(1 - low, high - 1) <= FITS_WITHIN:
            return "the same"
        if low <= 1 <= high:
            return "too noisy to tell"
        return "better" if (middle > 1) is self.more_is_better else "worse"


COMPARED_FIGURES = {  # of a burst the first line says as much as the second, of other loads the second nothing
    "requests/s": RPS, "last answer, s": TIME_S, "p50, ms": "measured.latency_s.median", "p99, ms": P99_S,
}  # fmt: skip


def lines_of(a: Json, b: Json) -> list[Line]:
    """Every figure of every run that both have. Raises Problem if that is none."""
    of_a, of_b, lines = runs_of(a), runs_of(b), list[Line]()
    for name in [name for name in of_a if name in of_b]:
        is_burst = look_up(of_a[name][0], "plan.load.kind") == "burst"
        for figure, path in COMPARED_FIGURES.items():
            factor = 1000 if figure.endswith("ms") else 1
            values = [[value * factor for run in runs[name] if (value := look_up(run, path))] for runs in (of_a, of_b)]
            if all(values) and path != (RPS if is_burst else TIME_S):
                lines.append(Line(name, figure, values[0], values[1], path == RPS))
    if not lines:
        raise Problem(f"they have no run in common: {', '.join(list(of_a)[:3])}; {', '.join(list(of_b)[:3])}")
    return lines


# ---------------------------------------------------------------- render

CANNOT = (
    "Few repeats cannot show a difference that is smaller than their spread: of 3 runs against 3, all of one lie above"
    " all of the other 1 time in 10 even if nothing differs. No number of repeats shows what changed between the two"
    " times."
)


def comparison_report(a: Json, b: Json, lines: Sequence[Line]) -> str:
    """The comparison, as Markdown."""
    parts = [f"## B against A\n\nA: {about(a)}.\n\nB: {about(b)}."]
    if a["machine"] != b["machine"] or a["versions"] != b["versions"]:
        parts.append(f"**They differ in more than what is compared**: A has {a['versions']}, B has {b['versions']}.")
    of_a, of_b = runs_of(a), runs_of(b)
    for side, runs, others in (("A", of_a, of_b), ("B", of_b, of_a)):
        if only := [name for name in runs if name not in others]:
            parts.append(f"Only in {side}: {', '.join(only)}.")
        if failed := sum(look_up(run, "measured.failed") for repeats in runs.values() for run in repeats):
            parts.append(f"**Failed requests** in {side}: {failed}.")
    rows = [
        [line.run, line.figure, *(Repeats(enumerate(values)) for values in (line.a, line.b)), line.ratio, line.verdict]
        for line in lines
    ]
    parts += [table(["run", "figure", "A", "B", "B : A", "B is"], rows), CANNOT]
    return "\n\n".join(parts)


def worse(lines: Sequence[Line]) -> list[str]:
    """A line for each figure of B that is worse than A's beyond all spread."""
    return [f"{line.run}: {line.figure} is {line.ratio} times what it was" for line in lines if line.verdict == "worse"]
