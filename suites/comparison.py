"""comparison - two documents side by side, of bench.py or of sweep.py; and a document of bench.py as a report.

`python sweep.py compare A.json B.json`: for each run that both have, the ratio B / A
with its spread, and "too noisy to tell" where their spreads overlap. It is no suite:
it runs nothing. The two were measured at different times, so that repeats cannot be
paired as within a sweep: the least ratio is B's least to A's most.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from load import Machine, render_machine
from slots import Problem, plural
from suites import TOLERANCE, Document, look_up, short, spread, spread_ms, table

Run = Mapping[str, Any]  # of either: bench.py's Run, or what sweep.py keeps of it


class Found(NamedTuple):
    """A document of either kind."""

    name: str  # of the file
    kind: str  # bench.py or sweep.py
    when: str
    command: str
    machine: Machine
    versions: dict[str, str]
    runs: dict[str, list[Run]]  # what it measured -> its repeats


# ---------------------------------------------------------------- reading


def load_of(run: Run) -> str:
    """The load in bench.py's words.

    >>> load_of({"mode": "burst", "requests": 16}), load_of({"mode": "open", "rate_rps": 256.0, "arrivals": "poisson"})
    ('-n 16', '--rate 256 --arrivals poisson')
    """
    if run["mode"] == "burst":
        return f"-n {run['requests']}"
    if run["mode"] == "open":
        return f"--rate {run['rate_rps']:g}" + (" --arrivals poisson" if run["arrivals"] == "poisson" else "")
    if run["mode"] == "ramp":
        return "--ramp " + ",".join(f"{stage_s:g}s:{users}" for stage_s, users in run["stages"])
    return f"-c {run['concurrency']}" + (" -k" if run["keep_alive"] else "")


def found_in(document: Any, name: str) -> Found:
    """Raises Problem if it is neither kind of document."""
    runs: dict[str, list[Run]] = {}
    try:
        kind = "sweep.py" if "suite" in document else "bench.py"
        for entry in document["runs"]:
            if kind == "sweep.py":
                run, c = entry["run"], entry["concurrency"]
                label = entry["variant"] + (f", c = {c}" if c else "")
            else:
                run = entry
                label = f"{run['target']} {run['path']} {load_of(run)}"
            look_up(run, "latency_s.p99"), run["throughput_rps"], run["measured_s"]
            runs.setdefault(label, []).append(run)
        return Found(name, kind, document["when"], document["command"], document["machine"], document["versions"], runs)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Problem(f"{name} is neither of bench.py nor of sweep.py") from None


def read(path: Path) -> Found:
    try:
        return found_in(json.loads(path.read_text()), path.name)
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise Problem(f"{path} is neither of bench.py nor of sweep.py") from None


BENCH = "bench"  # the suite that a document of bench.py counts as, in a table of runs


def bench_document(path: Path) -> dict[str, Any] | None:
    """A document of bench.py; None if it is something else, or nothing."""
    try:
        document = json.loads(path.read_text())
        is_one = "suite" not in document and document["runs"] and document["machine"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return document if is_one else None


def as_sweep(document: Mapping[str, Any]) -> Document:
    """Its runs, as a table of runs wants them: each a variant."""
    entries = [
        {"variant": f"{run['target']} {run['path']}", "concurrency": run["concurrency"] or 0, "repeat": 1, "run": run}
        for run in document["runs"]
    ]
    return cast(Document, {"suite": BENCH, "runs": entries})


# ---------------------------------------------------------------- one figure of both


class Compared(NamedTuple):
    """One figure of a run that both documents have."""

    run: str
    figure: str
    a: list[float]
    b: list[float]
    more_is_better: bool

    @property
    def ratio(self) -> float:
        return statistics.median(self.b) / statistics.median(self.a)

    @property
    def bounds(self) -> tuple[float, float]:
        return min(self.b) / max(self.a), max(self.b) / min(self.a)

    @property
    def verdict(self) -> str:
        """Whether B is better or worse, the same, or nobody can tell.

        >>> Compared("x", "p99", [1.0, 1.1, 1.2], [2.0, 2.1, 2.2], False).verdict
        'worse'
        >>> Compared("x", "p99", [1.0, 1.1, 1.2], [1.1, 1.4, 1.5], False).verdict
        'too noisy to tell'
        """
        near = abs(self.ratio - 1) <= TOLERANCE
        if min(len(self.a), len(self.b)) == 1:
            return "about the same, but once each" if near else "measured once: no spread is known"
        low, high = self.bounds
        if max(1 - low, high - 1) <= TOLERANCE:
            return "the same"
        if low <= 1 <= high:
            return "too noisy to tell"
        return "better" if (self.ratio > 1) is self.more_is_better else "worse"


FIGURES = (  # name, where, unit, whether more is better
    ("requests/s", "throughput_rps", "", True),
    ("last answer", "measured_s", "s", False),
    ("p50", "latency_s.median", "ms", False),
    ("p99", "latency_s.p99", "ms", False),
)


def compared(a: Found, b: Found) -> list[Compared]:
    """Every figure of every run that both have. A burst by its last answer, all else by throughput; both by latency."""
    if a.kind != b.kind:
        raise Problem(f"{a.name} is of {a.kind}, {b.name} of {b.kind}: compare two of a kind")
    lines = []
    for label in [label for label in a.runs if label in b.runs]:
        is_burst = a.runs[label][0].get("mode") == "burst"
        for name, path, _, more_is_better in FIGURES:
            values_a, values_b = ([look_up(run, path) for run in found.runs[label]] for found in (a, b))
            known_a, known_b = ([value for value in values if value] for values in (values_a, values_b))
            if known_a and known_b and name != ("requests/s" if is_burst else "last answer"):
                lines.append(Compared(label, name, known_a, known_b, more_is_better))
    if not lines:
        raise Problem(f"{a.name} and {b.name} have no run in common: {listed(a.runs)}; {listed(b.runs)}")
    return lines


def listed(runs: Mapping[str, object]) -> str:
    return ", ".join(list(runs)[:3]) + (", ..." if len(runs) > 3 else "") or "none"


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
        return f"One run a side has no spread: a difference can be chance alone. {cannot}"
    once, pairs = by_chance(of_a, of_b), 2 ** (min(of_a, of_b) - 1)
    return (
        f"{of_a} runs against {of_b}: even if nothing differs, all of one lie above all of the other 1 time in {once}"
        f" ({min(of_a, of_b)} pairs within a sweep all in one direction: 1 time in {pairs}); of"
        f" {plural(len(lines), 'line')} here that is {len(lines) / once:.2g} by chance. A difference smaller than the"
        f" spread cannot be shown by so few. {cannot}"
    )


def differences(a: Found, b: Found) -> list[str]:
    """What else differs: machine, versions. What one of them does not tell is not compared."""
    found = []
    for name in ("system", "cpus", "cpu", "kernel"):
        x, y = a.machine.get(name), b.machine.get(name)
        if x and y and x != y:
            found.append(f"{name} {x} / {y}")
        elif bool(x) != bool(y):
            found.append(f"{name}: only {(a if x else b).name} tells")
    for name in dict.fromkeys([*a.versions, *b.versions]):
        x, y = (versions.get(name, "none") for versions in (a.versions, b.versions))
        if x != y:
            found.append(f"{name} {x} / {y}")
    return found


# ---------------------------------------------------------------- render


def shown(values: Sequence[float], figure: str) -> str:
    unit = next(unit for name, _, unit, _ in FIGURES if name == figure)
    return f"{spread_ms(values)} ms" if unit == "ms" else spread(values, f" {unit}" if unit else "")


def ratio_of(line: Compared) -> str:
    low, high = line.bounds
    return short(line.ratio) + ("" if low == high else f" ({short(low)}-{short(high)})")


def render(a: Found, b: Found, lines: Sequence[Compared]) -> str:
    """The comparison, as Markdown."""
    parts = [
        f"## B against A\n\nA: {a.name}, `{a.command}`, {a.when}; {render_machine(a.machine)}.\n\n"
        f"B: {b.name}, `{b.command}`, {b.when}; {render_machine(b.machine)}."
    ]
    if differ := differences(a, b):
        parts.append(f"**They differ in more than what is compared** (A / B): {'; '.join(differ)}.")
    for one, other in ((a, b), (b, a)):
        if only := [label for label in one.runs if label not in other.runs]:
            parts.append(f"Only in {one.name}: {', '.join(only)}.")
    failed = {found.name: sum(run["failed"] for runs in found.runs.values() for run in runs) for found in (a, b)}
    if any(failed.values()):
        parts.append(f"**Failed requests**: {', '.join(f'{count} in {name}' for name, count in failed.items())}.")
    rows = [
        [line.run, line.figure, shown(line.a, line.figure), shown(line.b, line.figure), ratio_of(line), line.verdict]
        for line in lines
    ]
    parts += [table(["run", "figure", "A", "B", "B : A", "B is"], rows, 2), what_it_shows(lines)]
    return "\n\n".join(parts)


def worse(lines: Sequence[Compared]) -> list[str]:
    """A line for each figure of B that is worse than A's beyond all spread."""
    bad = [line for line in lines if line.verdict == "worse"]
    return [f"{line.run}: {line.figure} is {ratio_of(line)} x what it was" for line in bad]


def render_bench(document: Mapping[str, Any], name: str) -> str:
    """A document of bench.py as Markdown: a line a run."""
    found = found_in(document, name)
    versions = ", ".join(f"{package} {version}" for package, version in found.versions.items())
    header = ["run", "slots", "predicted", "last answer", "requests/s", "p50 ms", "p99 ms", "max ms", "failed"]
    rows = []
    for label, runs in found.runs.items():
        for run in runs:
            predicted_s = look_up(run, "prediction.makespan_s") or look_up(run, "predicted_s")
            slots = run.get("slots")
            known = "no limit" if run.get("slots_known") and slots is None else "?" if slots is None else str(slots)
            latencies = (look_up(run, f"latency_s.{key}") for key in ("median", "p99", "max"))
            rows.append([
                label, known, "-" if predicted_s is None else f"{predicted_s:.2f} s", f"{run['measured_s']:.2f} s",
                short(run["throughput_rps"]), *("-" if at_s is None else short(at_s * 1000) for at_s in latencies),
                str(run["failed"]), run.get("explained_by") or "-",
            ])  # fmt: skip
    unfinished = [] if document.get("complete", True) else ["**Unfinished**: it was interrupted."]
    about = f"`{found.command}`, {found.when}; {render_machine(found.machine)}; {versions}."
    return "\n\n".join([f"## {name}", about, *unfinished, table([*header, "explained by"], rows)])
