"""common - what a suite is, and what suites share: figures of several repeats, tables, pictures.

A suite is a file here that ends with its SUITE; sweep.py does the rest: order, resume, run, report. Tables and pictures
are made from the document of a sweep alone. Rows hold values: `table` turns them into text, last of all.

How a figure is shown: the median of the repeats, in brackets the least and the most. A ratio is the median of the
ratios within each repeat, so that what changes on the machine between two repeats is in none of them.
"""

from __future__ import annotations

import os
import re
import statistics
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from engine.machine import allowed_cpus
from engine.run import Columns

Json = dict[str, Any]
Values = dict[str, str]  # what {n}, {t} and others in the arguments of variants stand for
Drawing = Any  # matplotlib.figure.Figure, of a package that need not be there; so are its panels and axes
Cell = tuple[str, int, int]  # variant, concurrency, repeat: one run

# ---------------------------------------------------------------- figures of the repeats

RPS, TIME_S, P99_S = "measured.throughput_rps", "measured.measured_s", "measured.latency_s.p99"
LAST_ANSWER_S = "measured.last_answer_s"  # where requests failed TIME_S may be a time-out

FITS_WITHIN, FITS_WITHIN_S = 0.05, 0.1  # a time fits its prediction within 5 % + 100 ms


def fits(measured_s: float, predicted_s: float) -> bool:
    return abs(measured_s - predicted_s) <= predicted_s * FITS_WITHIN + FITS_WITHIN_S


def look_up(run: Any, path: str) -> Any:
    """A figure of a run, as "measured.latency_s.p99" or "measured.levels.0.users"; None where there is none."""
    for name in path.split("."):
        try:
            run = run[int(name) if isinstance(run, list) else name]
        except (LookupError, TypeError):
            return None
    return run


def if_even_s(run: Json) -> Any:
    """When the last answer is due with equal shares for the workers: what the slots give."""
    return run["prediction"].get("if_even", {}).get("makespan_s") or run["prediction"]["makespan_s"]


def short(value: float) -> str:
    """Three significant digits, no exponent.

    >>> short(1234.6), short(25.04), short(1.0), short(0.08312), short(46)
    ('1235', '25.0', '1.00', '0.0831', '46')
    """
    if abs(value) >= 100 or value == 0 or isinstance(value, int):
        return f"{value:.0f}"
    return f"{value:#.3g}".rstrip(".")


class Repeats(dict[int, float]):
    """A figure of every repeat that has it.

    >>> str(Repeats({1: 2.04, 2: 2.02, 3: 2.03})), str(Repeats({1: 2.0})), str(Repeats({1: 0, 2: 0})), str(Repeats())
    ('2.03 (2.02-2.04)', '2.00', '0', '-')
    """

    note = ""

    @property
    def typical(self) -> str:
        """The median alone."""
        values = list(self.values())
        return short(type(values[0])(statistics.median(values))) if values else "-"

    def __str__(self) -> str:
        low, high = min(self.values(), default=0), max(self.values(), default=0)
        return self.typical + self.note if low == high else f"{self.typical} ({short(low)}-{short(high)}){self.note}"

    def __truediv__(self, other: Repeats) -> Repeats:
        """The ratio within each repeat that has both."""
        return Repeats({repeat: value / other[repeat] for repeat, value in self.items() if other.get(repeat)})

    def against(self, other: Repeats) -> Repeats:
        """The ratio; where the spreads of the two overlap, it cannot be told from 1, and says so.

        >>> str(Repeats({1: 2.0, 2: 2.2}).against(Repeats({1: 1.0, 2: 1.0})))
        '2.10 (2.00-2.20)'
        >>> str(Repeats({1: 2.0, 2: 1.0}).against(Repeats({1: 1.0, 2: 1.5})))
        '1.33 (0.667-2.00), too noisy to tell'
        >>> str(Repeats({1: 1.0, 2: 1.01}).against(Repeats({1: 1.01, 2: 1.0})))
        '1.00 (0.990-1.01), the same'
        """
        ratio = self / other
        if len(ratio) > 1 and min(self.values()) <= max(other.values()) and min(other.values()) <= max(self.values()):
            is_same = all(abs(value - 1) <= FITS_WITHIN for value in ratio.values())
            ratio.note = ", the same" if is_same else ", too noisy to tell"
        return ratio

    def in_ms(self) -> Repeats:
        return Repeats({repeat: value * 1000 for repeat, value in self.items()})


def tally(good: Iterable[Any]) -> str:
    """
    >>> tally([True, 0, True])
    '2 of 3'
    """
    went_well = [bool(one) for one in good]
    return f"{sum(went_well)} of {len(went_well)}"


def table(header: str, rows: Iterable[Sequence[object]]) -> str:
    """Markdown, of "a | b | c" and rows of three. Figures stand to the right; None is a dash."""
    lines = [f"| {header} |", "| --- |" + " ---: |" * header.count("|")]
    for row in rows:
        cells = ("-" if one is None else short(one) if isinstance(one, float) else str(one) for one in row)
        cells = (cell.replace("|", "\\|") for cell in cells)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def as_text(name: str) -> str:
    """A name that Markdown shows as it is: no tag, no emphasis, no formula.

    >>> print(as_text("<b> & f_1 *x* $y$"))
    \\<b> \\& f_1 \\*x\\* \\$y\\$
    """
    return re.sub(r"[\\`*<&$\[\]]|(?<!\w)_|_(?!\w)", r"\\\g<0>", name)


# ---------------------------------------------------------------- the document of a sweep


@dataclass
class SweepDocument:
    """What the JSON file of a sweep holds."""

    suite: str
    when: str
    command: str
    machine: Json
    versions: dict[str, str]
    seed: int
    quick: bool
    values: Values
    order: list[Cell]
    predictions: dict[str, float | None]  # made before anything is run: seconds of each variant; None: not known
    runs: list[Json]  # in the order in which they ended: variant, concurrency, repeat, and run (as bench.py has it)
    asked: Any  # what the suite is made of, where you say it: the file of own.py

    def runs_of(self, variant: str, concurrency: int = 0) -> dict[int, Json]:
        """By their repeats."""
        return {one["repeat"]: one["run"] for one in self.runs
                if (one["variant"], one["concurrency"]) == (variant, concurrency)}  # fmt: skip

    def figure(self, variant: str, path: str, concurrency: int = 0) -> Repeats:
        found = ((repeat, look_up(run, path)) for repeat, run in self.runs_of(variant, concurrency).items())
        return Repeats((repeat, value) for repeat, value in found if value is not None)

    def latency_ms(self, variant: str, key: str, concurrency: int = 0) -> Repeats:
        return self.figure(variant, f"measured.latency_s.{key}", concurrency).in_ms()

    def ratio(self, a: str, b: str, path: str, concurrency: int = 0) -> Repeats:
        return self.figure(a, path, concurrency).against(self.figure(b, path, concurrency))

    def median_run(self, variant: str) -> Json | None:
        """The run whose time is the median of the repeats (of an even number, the lower)."""
        ordered = sorted(self.runs_of(variant).values(), key=lambda run: run["measured"]["measured_s"])
        return ordered[(len(ordered) - 1) // 2] if ordered else None


def was_pinned(document: SweepDocument) -> bool:
    """Whether server and client had a CPU each, as the runs of bench.py say."""
    return any(look_up(one["run"], "plan.shared_cpus") == 0 for one in document.runs)


# ---------------------------------------------------------------- what a suite is


class Variant(NamedTuple):
    """What is run and compared."""

    name: str
    arguments: str  # of bench.py; {n} {c} {t} and other values are filled in
    group: str = ""  # variants of one group are compared, so they run next to each other
    concurrency: tuple[int, ...] = (0,)  # 0: as the arguments say
    env: tuple[tuple[str, str], ...] = ()  # for the app, past bench.py's options: then nothing is predicted
    may_fail: bool = False  # failed requests are foretold
    program: str = ""  # what runs instead of bench.py


class Suite(NamedTuple):
    """A post or a question."""

    title: str
    takes: str  # how many runs, and how long
    source: str
    tables: Callable[[SweepDocument], str]
    headline: Callable[[SweepDocument], list[str]]  # the findings: a sentence or two, with figures of the tables
    variants: tuple[Variant, ...]
    full: Values
    quick: Values
    pictures: tuple[tuple[str, float, Callable[[SweepDocument, Drawing], None]], ...] = ()  # name, height in inches
    repeats: int = 3
    programs: Callable[[], dict[str, str]] = dict  # the versions of those that are installed
    run_program: Callable[[SweepDocument, Variant, int, Path], Json] | None = None  # at a concurrency, in a folder


# Whether the server can have CPU 0 and the client CPU 1, each for itself.
CAN_PIN = allowed_cpus() >= {0, 1} and hasattr(os, "sched_setaffinity")
PINNED = "--server-cpus 0 --client-cpus 1" if CAN_PIN else ""

# ---------------------------------------------------------------- pictures

# Colours are C0 to C4: blue, orange, green, red, and a pale blue (sweep.py has them).

Mark = tuple[str, Repeats, float, str]  # label, figure, how far below the middle of its row, and matplotlib's format
PREDICTED = "k|"


def label_log(axis: Any) -> None:
    """A log scale with plain numbers at 1, 2 and 5 of each decade."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.get_major_locator().set_params(subs=(1, 2, 5))
    axis.set_major_formatter("{x:g}")
    axis.set_ticks([], minor=True)


def draw_rows(drawing: Drawing, xlabel: str, rows: dict[str, list[Mark]], is_log: bool = True) -> None:
    """From above a row for each name. A mark is the median of a figure, on a line from the least to the most."""
    panel = drawing.subplots()
    for y, marks in enumerate(rows.values()):
        for label, figure, down, fmt in marks:
            if figure:
                values, look = figure.values(), {"markersize": 14, "ecolor": "C4", "elinewidth": 9}
                middle = statistics.median(values)
                spread = [[middle - min(values)], [max(values) - middle]]
                panel.errorbar(middle, y + down, None, spread, fmt, label=label, **look if fmt == PREDICTED else {})
    panel.set_yticks(range(len(rows)), [name.replace(", ", ",\n", 1) for name in rows])
    panel.invert_yaxis()
    panel.set_xlabel(xlabel)
    if is_log:
        label_log(panel.xaxis)
    else:
        panel.set_xlim(left=0)
    legend(panel)


def legend(panel: Any) -> None:
    """Each label once."""
    handles = dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    labels = [textwrap.fill(label, LEGEND_CHARACTERS - 10) for label in handles]
    columns = legend_columns(handles)
    panel.figure.legend(handles.values(), labels, loc="outside upper center", ncols=columns)


LEGEND_CHARACTERS, LEGEND_ROW_IN = 84, 0.2  # that fit side by side in 7 inches; the height of a row


def legend_columns(labels: Iterable[str]) -> int:
    """How many labels stand side by side, so that none is cut.

    >>> legend_columns(["short", "name"]), legend_columns(["x" * 30]), legend_columns(["x" * 60])
    (3, 2, 1)
    """
    longest = max(map(len, labels), default=1)
    return max(1, min(3, LEGEND_CHARACTERS // (longest + 6)))


def answers_of(exchanges: Columns) -> list[float]:
    """When each request was answered, in order; without those that failed."""
    ends = zip(exchanges.answered_s, exchanges.error, strict=True)
    return sorted(round(at_s, 4) for at_s, error in ends if at_s is not None and not error)
