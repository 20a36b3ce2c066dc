"""The sentences about a cheap request beside the load, and about changes that are tried."""

from __future__ import annotations

from collections.abc import Sequence

from engine.changes import Change
from engine.limit import LOOP
from engine.loads import Figure
from engine.places import Resource
from engine.report_words import told
from engine.run import Plan, Run, VictimPrediction
from engine.verdict import AS_PREDICTED
from engine.victim import is_not_as_predicted
from engine.words import duration, plural


def victim_expected(plan: Plan, found: VictimPrediction | None) -> str:
    """How long a cheap request beside the load will wait."""
    path, is_dealt = plan.victim, plan.workers > 1 and not plan.shared_queue
    if not found:
        return told("victim", f"{path}: not predicted. What it waits for is not known.") + "\n"
    if_even = " if the workers get equal shares" * (is_dealt and found.shares_slots and not found.range_s)
    why = "It needs the same slots." if found.shares_slots else "It is assumed to need none of the load's slots."
    each = ", ".join(duration(median_s) for median_s in sorted(set(found.of_processes_s)))
    processes = f"By process: {each}." if len(set(found.of_processes_s)) > 1 else ""
    if found.range_s and processes:
        processes += " Most of its requests go to one process, and which one is not known."
    median = predicted_median(found)
    return told("victim", f"{path}: a median of {median} is predicted{if_even}. {why} {processes}") + "\n"


def predicted_median(found: VictimPrediction) -> str:
    """One value; of several processes a range."""
    if not found.range_s or found.range_s[0] == found.range_s[1]:
        return duration(found.median_s)
    return " to ".join(map(duration, found.range_s))


def victim_text(run: Run) -> str:
    """How long a cheap request has waited beside the load."""
    found = run.victim
    if not found:
        return ""
    latency, predicted, of_all_s = found.latency_s, found.prediction, found.median_of_all_s
    return told(
        "victim",
        f"{found.path}: {plural(found.answered, 'answer')}{f', {found.failed} failed' if found.failed else ''}.",
        latency and f"Latency: median {duration(latency.median)}, longest {duration(latency.max)}.",
        of_all_s and f"With those that were under way when the load ended, the median is {at_least(*of_all_s)}.",
        predicted and f"Predicted was a median of {predicted_median(predicted)}.",
        is_not_as_predicted(found) and why_not(run),
        found.alone_s and f"By itself it takes {duration(found.alone_s)}.",
    )


def at_least(least_s: float, most_s: float | None) -> str:
    return f"{'at least ' * (least_s != most_s)}{duration(least_s)}"


WHY_NOT = {  # what limited the load -> why the median of a victim is not as predicted
    Resource.CPU: "the load used up the server's CPU, for which it waited, too",
    Resource.MACHINE: "the load used up the CPUs that client and server share",
    LOOP: "the load blocked the event loop, for which it waited, too",
}


def why_not(run: Run) -> str:
    limits = run.verdict.limits
    why = WHY_NOT.get(limits[0].resource) if limits else None
    if not why and run.verdict.explained_by and run.verdict.explained_by not in AS_PREDICTED:
        why = "the load was not as predicted either"
    return f"NOT as predicted: {why or 'the reason was not seen'}."


NO_CHANGE = "\n" + told("try", "No change from outside is known that would help.")


def change_text(options: str, due_s: float | None, plan: Plan) -> str:
    """A change, before it is tried."""
    if_even = ", if the workers get equal shares" * (plan.workers > 1 and not plan.shared_queue and not plan.deal)
    due = f"{duration(due_s)} is predicted{if_even}." if due_s else "What it does cannot be known beforehand."
    return "\n" + told("try", f"{options}: {due}")


def changes_table(rows: Sequence[Change], figure: Figure) -> str:
    """What each change was predicted to do, and did."""
    what = "the last answer" if figure is Figure.LAST_ANSWER else "the mean latency"
    lines = [f"\n{f'change (figures: {what})':38}{'predicted':>12}{'measured':>12}{'share of before':>17}"]
    for one in rows:
        measured = f"{one.failed} failed" if one.failed else duration(one.measured_s)
        share = "-" if one.failed or rows[0].failed else share_text(one.measured_s, rows[0].measured_s)
        lines.append(f"{one.options:38}{duration(one.predicted_s):>12}{measured:>12}{share:>17}")
    return "\n".join(lines)


def share_text(value_s: float | None, of_s: float | None) -> str:
    return f"{value_s / of_s:.2f}" if value_s and of_s else "-"
