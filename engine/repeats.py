"""Runs that are repeated: the median of each figure, with the least and the most. Pure.

From six repeats on these two are an interval that has the true median in it in 97 of 100 cases: 1 - 2 / 2^6. Source:
David and Nagaraja, "Order Statistics", 7.1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from engine.loads import Figure, Load, Open
from engine.run import Plan, Run
from engine.words import path_or_workload

APART = 2_000_000  # {n} of the first request of a run, from that of the run before: no two runs send the same number
SURE = 6  # repeats, from which on least and most are an interval of the median, at 97 %


@dataclass(frozen=True)
class Repeated:
    """One figure of a target over its repeats."""

    target: str
    path: str
    figure: Figure
    median: float
    least: float
    most: float
    repeats: int
    predicted: float | None  # the median of the predictions


def in_turn(plans: Sequence[Plan], times: int) -> list[Plan]:
    """All plans so often, one after the other each time."""
    return [repeated(plan, number) for number in range(times) for plan in plans]


def repeated(plan: Plan, number: int) -> Plan:
    """The plan of a repeat: random arrivals, and what is drawn for the requests, are others each time."""
    return replace(
        plan, load=other_arrivals(plan.load, number), mix_seed=plan.mix_seed + number, first_number=number * APART
    )


def other_arrivals(load: Load, number: int) -> Load:
    if not isinstance(load, Open) or load.seed is None or not number:
        return load
    return Open.poisson(load.rate_rps, load.asked, load.time_limit_s, load.seed + number)


def rows_of_repeats(runs: Iterable[Run]) -> list[Repeated]:
    """Each figure that the loads are judged by, and the p99, of runs of the same targets. One that was interrupted, or
    in which nothing was answered, is no repeat."""
    groups = defaultdict[tuple[str, str], list[Run]](list)
    for run in runs:
        if run.measured.stopped or not run.measured.answered:
            continue
        groups[run.plan.target, run.plan.path].append(run)
    return [
        row for own in groups.values() for figure in dict.fromkeys([*own[0].plan.load.judged_by, Figure.P99])
        if (row := row_of(own, figure))
    ]  # fmt: skip


def row_of(runs: Sequence[Run], figure: Figure) -> Repeated | None:
    """One figure of the repeats of one target; None: it is in none of them."""
    plan, values = runs[0].plan, [value for run in runs if (value := run.measured.of(figure)) is not None]
    if not values:
        return None
    middle, least, most = median(values), min(values), max(values)
    return Repeated(
        plan.target,
        path_or_workload(plan.path, plan.workload),
        figure,
        middle,
        least,
        most,
        len(values),
        due(runs, figure),
    )


def due(runs: Sequence[Run], figure: Figure) -> float | None:
    values = [value for run in runs if (value := run.prediction.of(figure)) is not None]
    return median(values) if values else None
