"""suites - a file for each published post or question: its figures, its variants, its tables, its pictures.

This file says what a suite is, and has what their tables and pictures share: how
figures of several repeats are put in a line and compared. A new post is a file
here that ends with its SUITE, and its name in SUITES of sweep.py, which does the
rest: order, resume, run, report. Nothing here runs anything or opens a file
(client excepted, which compares programs, and proxy, which puts one in between).

How a figure is shown: the median of the repeats, in brackets the least and the
most. A ratio is the median of the ratios within each repeat. Where the spreads
of the two overlap, it says "too noisy to tell".
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, cast

from explain import Run
from load import Machine

Figure = Any  # matplotlib.figure.Figure, of a package that need not be there; so are its panels and axes

# ---------------------------------------------------------------- the document of a sweep

Cell = tuple[str, int, int]  # variant, concurrency, repeat: one run


class ToolRun(TypedDict):
    """A run of a program: what it reports, and the CPU time that it used."""

    throughput_rps: float
    requests: int
    failed: int
    client_cpu_s: float
    measured_s: float
    pinned: bool


class Entry(TypedDict):
    """A finished run."""

    variant: str
    concurrency: int
    repeat: int
    wall_s: float  # with the start and the stop of the server
    run: Run | ToolRun  # of a Run without the keys that sweep.py calls bulky


class Always(TypedDict):
    suite: str
    when: str
    command: str
    machine: Machine
    versions: dict[str, str]
    seed: int
    quick: bool
    values: dict[str, str]  # what {n}, {t} and others in the variants stand for
    order: list[Cell]
    predictions: dict[str, float | None]  # made before anything is run: seconds of each variant; null: not known
    runs: list[Entry]  # in the order in which they ended


class Document(Always, total=False):
    """What the JSON file of a sweep holds."""

    asked: Any  # what the suite is made of, where the user says it: size.Asked, own.Asked


# ---------------------------------------------------------------- what a suite is


class Published(NamedTuple):
    """What a post states about a variant; concurrency 0 is a burst."""

    concurrency: int
    rps: float
    latency_ms: str = ""  # p50 / p99 / max


class Variant(NamedTuple):
    name: str
    arguments: str  # of bench.py; {n} {c} {t} {repeat} are filled in
    group: str = ""  # variants of one group are compared, so they run next to each other
    concurrency: tuple[int, ...] = (0,)
    published: tuple[Published, ...] = ()
    program: str = ""  # what runs instead of bench.py
    env: tuple[tuple[str, str], ...] = ()  # what the app reads besides


class Picture(NamedTuple):
    name: str
    height_in: float
    draw: Callable[[Document, Figure], None]


class Programs(NamedTuple):
    """How to run the variants that name a program."""

    is_there: Callable[[str], bool]
    run: Callable[[Document, Variant, int, Path], ToolRun]  # at a concurrency, with a folder for temporary files
    versions: Callable[[], dict[str, str]]


def task_time(_: Variant, __: int, values: Mapping[str, str]) -> float:
    return float(values["t"])


def nothing_to_say(_: Document) -> list[str]:
    return []


class Suite(NamedTuple):
    """A post or a question. Its tables and pictures are made from the document alone."""

    title: str
    source: str
    variants: tuple[Variant, ...]
    full: dict[str, str]  # what {n}, {t} and others stand for
    quick: dict[str, str]
    bodies: dict[str, dict[str, object]]  # what an app must answer, by path, before it is timed
    tables: Callable[[Document], str]
    pictures: tuple[Picture, ...] = ()
    seconds: Callable[[Variant, int, Mapping[str, str]], float] = task_time  # of a run at c, if nothing predicts them
    foretell: Callable[[Document], list[str]] = nothing_to_say  # lines to print before the first run
    headline: Callable[[Document], list[str]] = nothing_to_say  # what it comes to: a sentence or two, figures of tables
    repeats: int = 3
    has_scale: bool = False  # {t} is a scale that the user may choose
    programs: Programs | None = None


def can_pin() -> bool:
    """Whether the server can have CPU 0 and the client CPU 1, each for itself."""
    return hasattr(os, "sched_getaffinity") and {0, 1} <= os.sched_getaffinity(0)


# ---------------------------------------------------------------- figures of the repeats


def look_up(run: Mapping[str, object], key: str) -> float | None:
    """A figure of a run, by its path: "latency_s.p99"."""
    value: Any = run
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return cast("float | None", value)


def entries_of(document: Document, variant: str, concurrency: int = 0) -> list[Entry]:
    """In the order of their repeats."""
    found = [entry for entry in document["runs"] if (entry["variant"], entry["concurrency"]) == (variant, concurrency)]
    return sorted(found, key=lambda entry: entry["repeat"])


def runs_of(document: Document, variant: str, concurrency: int = 0) -> dict[int, Run]:
    """The runs of bench.py by their repeats."""
    return {entry["repeat"]: cast(Run, entry["run"]) for entry in entries_of(document, variant, concurrency)}


def figures(document: Document, variant: str, key: str, concurrency: int = 0) -> dict[int, float]:
    """The figure of every repeat that has it."""
    found = {entry["repeat"]: look_up(entry["run"], key) for entry in entries_of(document, variant, concurrency)}
    return {repeat: value for repeat, value in found.items() if value is not None}


def median_run(runs: dict[int, Run]) -> Run | None:
    """The run whose time is the median of the repeats (of an even number, the lower)."""
    ordered = sorted(runs.values(), key=lambda run: run["measured_s"])
    return ordered[(len(ordered) - 1) // 2] if ordered else None


def short(value: float) -> str:
    """Three significant digits, no exponent.

    >>> short(1234.6), short(25.04), short(1.0), short(0.08312), short(46)
    ('1235', '25.0', '1.00', '0.0831', '46')
    """
    if abs(value) >= 100 or value == 0 or isinstance(value, int):
        return f"{value:.0f}"
    return f"{value:#.3g}".rstrip(".")


def spread(values: Sequence[float], unit: str = "") -> str:
    """The median, and the least and the most.

    >>> spread([2.04, 2.02, 2.03], " s"), spread([2.0]), spread([0, 0]), spread([])
    ('2.03 s (2.02-2.04)', '2.00', '0', '-')
    """
    if not values:
        return "-"
    counts = all(isinstance(value, int) for value in values)
    middle = statistics.median(values)
    median = short(round(middle) if counts else middle) + unit
    if len(values) == 1 or (counts and min(values) == max(values)):
        return median
    return f"{median} ({short(min(values))}-{short(max(values))})"


def spread_of(document: Document, variant: str, key: str, concurrency: int = 0, unit: str = "") -> str:
    return spread(list(figures(document, variant, key, concurrency).values()), unit)


def spread_ms(values_s: Sequence[float]) -> str:
    return spread([value_s * 1000 for value_s in values_s])


TOLERANCE, TOLERANCE_S = 0.05, 0.1  # a time fits its prediction within 5 % + 100 ms


def fits(measured_s: float, predicted_s: float) -> bool:
    return abs(measured_s - predicted_s) <= predicted_s * TOLERANCE + TOLERANCE_S


def paired(a: dict[int, float], b: dict[int, float]) -> list[float]:
    """a / b within each repeat that has both: what changed between the repeats is in neither.

    >>> paired({1: 4.0, 2: 6.0, 3: 1.0}, {1: 2.0, 2: 3.0})
    [2.0, 2.0]
    """
    return [a[repeat] / b[repeat] for repeat in sorted(a.keys() & b.keys()) if b[repeat]]


def compare(a: dict[int, float], b: dict[int, float]) -> str:
    """The ratio a / b with its spread, and what cannot be said of it because the spreads of a and b overlap.

    >>> compare({1: 2.0, 2: 2.2}, {1: 1.0, 2: 1.0})
    '2.10 (2.00-2.20)'
    >>> compare({1: 2.0, 2: 1.0}, {1: 1.0, 2: 1.5})
    '1.33 (0.667-2.00), too noisy to tell'
    >>> compare({1: 1.0, 2: 1.01}, {1: 1.01, 2: 1.0})
    '1.00 (0.990-1.01), the same'
    """
    ratios = paired(a, b)
    text = spread(ratios)
    if len(ratios) > 1 and min(a.values()) <= max(b.values()) and min(b.values()) <= max(a.values()):
        same = all(abs(ratio - 1) <= TOLERANCE for ratio in ratios)
        text += ", the same" if same else ", too noisy to tell"
    return text


def typical(text: str) -> str:
    """The median out of what spread() or compare() say.

    >>> typical("2.03 s (2.02-2.04)"), typical("0.868 (0.867-0.880), the same")
    ('2.03 s', '0.868')
    """
    return text.partition(" (")[0].partition(",")[0]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Markdown; the first columns to the left, figures to the right."""
    rule = ["---" if i < left else "---:" for i in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])


# ---------------------------------------------------------------- pictures

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"  # Okabe and Ito: for the colour-blind too
PALE = "#c6dcec"


def label_log(axis: Any) -> None:
    """A log scale with plain numbers at 1, 2 and 5 of each decade in view; at 1 alone if it shows many decades."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = axis.get_view_interval()
    ticks = [step * 10.0**power for power in range(-4, 6) for step in ((1, 2, 5) if high < 200 * low else (1,))]
    ticks = [tick for tick in ticks if low <= tick <= high]
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_ticks([], minor=True)
