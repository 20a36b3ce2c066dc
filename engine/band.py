"""What a machine adds to a prediction, and which figures of a run fit the prediction with it. Pure.

A figure fits within 5 % and a band: the overhead of each round, CPU time, the machine's timer, all measured.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from engine import model
from engine.estimate import processes_of, taken_by_others
from engine.loads import Figure
from engine.run import Band, Facts, Plan, Prediction

TOLERANCE = 0.05  # of a prediction, beside the band


def band_of(facts: Facts, timer_s: float) -> Band | None:
    """What this machine adds to a prediction; None where the wait is not known, or nothing was answered."""
    plan, measured, latency = facts.plan, facts.measured, facts.measured.latency_s
    answered = measured.answered
    if not (plan.wait_s and answered and latency):
        return None
    overhead_s = overhead_of(plan, min(measured.lone_s or math.inf, latency.min))
    processes = processes_of(facts)  # each computes on one CPU at a time
    cpus = max(1.0, min(processes, plan.cpus, answered / most_of_one(facts)))
    free = 1 - min(0.5, taken_by_others(facts))
    cpu_all_s = ((measured.server_cpu_s or 0.0) / cpus + measured.client_cpu_s) / free
    cpu_s = cpu_all_s / answered
    in_a_row = max(1.0, (facts.prediction.mean_s or plan.wait_s) / plan.busy_s)  # rounds of an average request
    rounds = model.rounds(measured.sent, plan.slots or math.inf)
    in_turn = at_once(facts) + rounds
    if cpu_all_s > (facts.prediction.makespan_s or math.inf):  # there is no time for waits between them
        in_turn = max(in_turn, answered)
    makespan_s = timer_s + rounds * overhead_s + in_turn * cpu_s
    latency_s = timer_s + in_a_row * overhead_s + at_once(facts) * cpu_s
    return Band(overhead_s, timer_s, cpu_s, cpus, in_turn, makespan_s, latency_s)


def overhead_of(plan: Plan, alone_s: float) -> float:
    """What the machine adds to a constant wait, in seconds; not more than it may add: that is a longer wait."""
    if plan.distribution != "constant":
        return 0.0
    return min(max(0.0, alone_s - plan.busy_s), most_overhead_s(plan.wait_s or 0.0))


def most_overhead_s(wait_s: float) -> float:
    """What a machine may add to a wait."""
    return 0.2 * wait_s + 0.005


def much_longer_s(usual_s: float) -> float:
    """From when on a request takes much longer than that."""
    return 1.5 * usual_s + 0.02


def at_once(facts: Facts) -> float:
    """How many requests shared the CPUs; of a load that goes on not many more than were under way on average."""
    most = min(facts.plan.slots or math.inf, facts.plan.load.most_under_way, facts.measured.sent)
    return min(most, 2 * facts.measured.mean_in_flight + 1) if facts.plan.load.is_steady else most


def shares_of(facts: Facts) -> list[int]:
    """How many requests each worker took; empty: not known."""
    return list(facts.inside.requests_of_workers.values()) if facts.inside else []


def most_of_one(facts: Facts) -> int:
    """The most requests that one worker took; 1: not known."""
    return max([1, *shares_of(facts)])


class Compared(NamedTuple):
    """One figure of a run beside its prediction; it fits between least and most."""

    figure: Figure
    measured: float
    predicted: float
    least: float
    most: float

    @property
    def fits(self) -> bool:
        return self.least <= self.measured <= self.most


def compared(facts: Facts, prediction: Prediction, band: Band, with_cpu: bool) -> list[Compared]:
    """The figures that the load is judged by. with_cpu: the band with the CPU time in it, or without."""
    cpu_s = 0.0 if with_cpu else band.cpu_s
    last_s = band.makespan_s - cpu_s * band.in_turn
    more_s = max(0.0, band.latency_s - cpu_s * at_once(facts))
    found = []
    for figure in facts.plan.load.judged_by:
        measured, predicted = facts.measured.of(figure), prediction.of(figure)
        if measured is None or not predicted:
            continue
        slack = {Figure.P95: 2, Figure.P99: 3}.get(figure, 1) * TOLERANCE * predicted
        low, high = prediction.range_of(figure) or (predicted, predicted)
        least, most = low * (1 - TOLERANCE), high + slack
        if figure is Figure.THROUGHPUT:
            room = least / (1 + more_s / (prediction.mean_s or math.inf)), most
        elif figure is Figure.P95:  # between users in step and users that have drifted apart
            room = min(prediction.spread_s or predicted, predicted) * (1 - TOLERANCE) - more_s, most + more_s
        else:  # no cost makes anything faster
            room = least - band.timer_s, most + (last_s if figure is Figure.LAST_ANSWER else more_s)
        found.append(Compared(figure, measured, predicted, *room))
    return found
