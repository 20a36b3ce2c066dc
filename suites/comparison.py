"""comparison - two documents side by side, of bench.py or of sweep.py; and a document of bench.py as a report.

`python sweep.py compare A.json B.json`: for each run that both have, the ratio B / A with its spread, and "too noisy to
tell" where their spreads overlap. It is no suite: it runs nothing. The two were measured at different times, so repeats
cannot be paired as within a sweep: the least ratio is B's least to A's most.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from engine.words import Problem, plural, slots_text
from suites.common import P99_S, RPS, TIME_S, TOLERANCE, Json, Repeats, look_up, short, table

# ---------------------------------------------------------------- reading


def load_of(run: Json) -> str:
    """The load in bench.py's words.

    >>> load_of({"plan": {"load": {"kind": "burst", "requests": 16}}})
    '-n 16'
    """
    load = run["plan"]["load"]
    texts = {
        "burst": "-n {requests:g}",
        "closed": "-c {concurrency}",
        "open": "--rate {rate_rps:g} --arrivals {arrivals}",
        "ramp": "--ramp {stages}",
    }
    return texts[load["kind"]].format(**load)


def runs_of(document: Json) -> dict[str, list[Json]]:
    """What a document of either kind measured: each run's name, and its repeats."""
    runs: dict[str, list[Json]] = {}
    for entry in document["runs"]:
        if "suite" in document:
            c = entry["concurrency"]
            name, run = f"{entry['variant']}{f', c = {c}' if c else ''}", entry["run"]
        else:
            name, run = f"{entry['plan']['target']} {entry['plan']['path']} {load_of(entry)}", entry
        runs.setdefault(name, []).append(run)
    return runs


def machine_text(machine: Json) -> str:
    """Older documents have neither the CPU's model nor the kernel."""
    more = ", ".join(filter(None, (machine.get("cpu"), machine.get("kernel"))))
    return f"{machine['system']}, {plural(machine['cpus'], 'CPU')}{f' ({more})' if more else ''}"


def about(document: Json) -> str:
    return f"`{document['command']}`, {document['when']}; {machine_text(document['machine'])}"


# ---------------------------------------------------------------- one figure of both


class Compared(NamedTuple):
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

        >>> Compared("x", "p99", [1.0, 1.1, 1.2], [2.0, 2.1, 2.2]).verdict
        'worse'
        >>> Compared("x", "p99", [1.0, 1.1, 1.2], [1.1, 1.4, 1.5]).verdict
        'too noisy to tell'
        """
        low, middle, high = self.ratio.values()
        if min(len(self.a), len(self.b)) == 1:
            near = abs(middle - 1) <= TOLERANCE
            return "about the same, but once each" if near else "measured once: no spread is known"
        if max(1 - low, high - 1) <= TOLERANCE:
            return "the same"
        if low <= 1 <= high:
            return "too noisy to tell"
        return "better" if (middle > 1) is self.more_is_better else "worse"


FIGURES = {"requests/s": RPS, "last answer, s": TIME_S, "p50, ms": "measured.latency_s.median", "p99, ms": P99_S}
BURST_HAS_NOT, OTHERS_HAVE_NOT = "requests/s", "last answer, s"


def compared(a: Json, b: Json) -> list[Compared]:
    """Every figure of every run that both have. A burst by its last answer, all else by throughput; both by latency.

    Raises Problem where the two cannot be compared.
    """
    if ("suite" in a) != ("suite" in b):
        raise Problem("one of them is of bench.py, the other of sweep.py: compare two of a kind")
    of_a, of_b, lines = runs_of(a), runs_of(b), list[Compared]()
    for name in [name for name in of_a if name in of_b]:
        is_burst = look_up(of_a[name][0], "plan.load.kind") == "burst"
        for figure, path in FIGURES.items():
            if figure == (BURST_HAS_NOT if is_burst else OTHERS_HAVE_NOT):
                continue
            factor = 1000 if "ms" in figure else 1
            values = [[value * factor for run in runs[name] if (value := look_up(run, path))] for runs in (of_a, of_b)]
            if all(values):
                lines.append(Compared(name, figure, *values, figure == "requests/s"))
    if not lines:
        raise Problem(f"they have no run in common: {', '.join(list(of_a)[:3])}; {', '.join(list(of_b)[:3])}")
    return lines


# ---------------------------------------------------------------- what it can and cannot show


def by_chance(of_a: int, of_b: int) -> int:
    """Once in so many times all of B lie on one side of all of A, if nothing differs: C(a + b, a) / 2 orders.

    The exact two-sided rank test (Wilcoxon 1945; Mann and Whitney 1947) at its extreme.

    >>> by_chance(3, 3), by_chance(5, 5)
    (10, 126)
    """
    return max(1, math.comb(of_a + of_b, of_a) // 2)


def what_it_shows(lines: Sequence[Compared]) -> str:
    """What so many repeats can and cannot show, in words."""
    of_a, of_b = min(len(line.a) for line in lines), min(len(line.b) for line in lines)
    cannot = "No number of repeats shows what changed between the two times at which they were measured."
    if min(of_a, of_b) == 1:
        return f"One run on a side has no spread: a difference can be chance alone. {cannot}"
    once = by_chance(of_a, of_b)
    return (
        f"{of_a} runs against {of_b}: even if nothing differs, all of one lie above all of the other 1 time in {once}."
        f" Of {plural(len(lines), 'line')} here that happens to {len(lines) / once:.2g} by chance. A difference that is"
        f" smaller than the spread cannot be shown by so few. {cannot}"
    )


def differences(a: Json, b: Json) -> list[str]:
    """What else differs: machine and versions."""
    found = []
    for part in ("machine", "versions"):
        for name in {**a[part], **b[part]}:
            x, y = (document[part].get(name, "not told") for document in (a, b))
            if x != y:
                found.append(f"{name} {x} / {y}")
    return found


# ---------------------------------------------------------------- render


def render(a: Json, b: Json, lines: Sequence[Compared]) -> str:
    """The comparison, as Markdown."""
    parts = [f"## B against A\n\nA: {about(a)}.\n\nB: {about(b)}."]
    if differ := differences(a, b):
        parts.append(f"**They differ in more than what is compared** (A / B): {'; '.join(differ)}.")
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
    parts += [table(["run", "figure", "A", "B", "B : A", "B is"], rows), what_it_shows(lines)]
    return "\n\n".join(parts)


def worse(lines: Sequence[Compared]) -> list[str]:
    """A line for each figure of B that is worse than A's beyond all spread."""
    return [f"{line.run}: {line.figure} is {line.ratio} times what it was" for line in lines if line.verdict == "worse"]


def render_bench(document: Json, name: str) -> str:
    """A document of bench.py as Markdown: a line a run."""
    header = ["run", "slots", "predicted, s", "last answer, s", "requests/s", "p50 ms", "p99 ms", "max ms", "failed",
              "explained by"]  # fmt: skip
    rows = []
    for label, runs in runs_of(document).items():
        for run in runs:
            plan = run["plan"]
            slots = slots_text(math.inf if plan["slots_known"] and plan["slots"] is None else plan["slots"])
            times_ms = (look_up(run, f"measured.latency_s.{key}") for key in ("median", "p99", "max"))
            rows.append([
                label, slots, look_up(run, "prediction.makespan_s"), look_up(run, TIME_S), look_up(run, RPS),
                *(at_s and at_s * 1000 for at_s in times_ms), run["measured"]["failed"], run["verdict"]["explained_by"],
            ])  # fmt: skip
    unfinished = "" if document["complete"] else " **Unfinished**: it was interrupted."
    return f"## {name}\n\n{about(document)}.{unfinished}\n\n{table(header, rows)}"
