"""The sentences about what a run shows: verdict, warnings, limit, estimate. Values come in, text goes out.

Words for single values are in report_words.py. Read a new sentence aloud: one thought each, and the number in it.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

from engine.audit import is_mostly_beside, share_beside
from engine.band import TOLERANCE, at_once
from engine.estimate import taken_by_others
from engine.limit import ALSO_BLOCKS, LOOP, blocking_place
from engine.loads import Figure
from engine.places import Limit, Resource, State
from engine.report_words import (
    DOUBTS,
    EXPLANATIONS,
    RESOURCES,
    SEEN,
    WARNINGS,
    compared_words,
    requests_s,
    said,
    stacked,
    told,
)
from engine.run import Estimate, Explanation, Run, Stall, Suspect, Warned
from engine.unseen import is_not_known
from engine.verdict import AS_PREDICTED, BESIDE, seen_limit
from engine.words import duration, per_cent, plural, rate

OF_NO_REQUEST = "threads or tasks of no request that was under way"

# ---------------------------------------------------------------- the verdict


def verdict(run: Run) -> str:
    """What happened, in a few sentences: the first thing to read."""
    explained, judged_by = run.verdict.explained_by, run.plan.load.judged_by
    if not explained:
        return said(answers_text(run), not run.measured.failed and not run.prediction.is_known and seen_text(run))
    shown = judged_by[:2] if explained in AS_PREDICTED else judged_by
    split = run.split_prediction if explained is Explanation.SPLIT else None
    return said(
        EXPLANATIONS[explained.value],
        *(compared_words(run, figure) for figure in shown),
        split and f"For this split, {duration(split.of(judged_by[0]))} is predicted.",
        allowed(run),
    )


def allowed(run: Run) -> str:
    """The difference that this machine's own costs explain, and what they are."""
    band, is_steady = run.verdict.band, run.plan.load.is_steady
    assert band  # or nothing is explained
    many, room_s = (at_once(run), band.latency_s) if is_steady else (band.in_turn, band.makespan_s)
    if run.verdict.explained_by is Explanation.CPU and share_beside(run) > BESIDE:
        much = "Most" if is_mostly_beside(run) else "A good part"
        return f"{much} of the CPU time was used by {OF_NO_REQUEST}."
    if run.verdict.explained_by in (Explanation.CPU, Explanation.SPLIT):
        others = " and that of other programs" * (taken_by_others(run) > 0.05)
        each = f"{duration(band.cpu_s)} each, with the client's{others}"
        return f"The CPU time of {many:g} requests in turn is {duration(band.cpu_s * many)} ({each})."
    costs = f"{duration(band.overhead_s)} of overhead per round, {duration(band.timer_s)} for the timer"
    figures = run.plan.load.judged_by
    beyond = " beyond the predicted range" * any(map(run.prediction.range_of, figures))
    others = f", of the p99 {per_cent(3 * TOLERANCE)}," * (Figure.P99 in figures)
    others += f", of the p95 {per_cent(2 * TOLERANCE)}," * (Figure.P95 in figures)
    room = duration(max(0.0, room_s - band.cpu_s * many))
    return f"A difference of 5 %{beyond}{others} plus {room} is allowed ({costs})."


def answers_text(run: Run) -> str:
    """How many answers, and how fast."""
    measured, latency = run.measured, run.measured.latency_s
    p99 = f"p99 {duration(latency.p99)}, " if latency and latency.p99 else ""
    return said(
        measured.failed and f"{measured.failed} of {measured.sent} requests FAILED.",
        measured.stopped and f"The run ended early: {measured.stopped}.",
        f"{plural(measured.answered, 'answer')}{f' in {duration(measured.last_answer_s)}' * bool(measured.answered)}"
        f"{f', in a run of {duration(measured.measured_s)}' * bool(measured.failed)}, {rate(measured.throughput_rps)}.",
        latency and f"Latency: median {duration(latency.median)}, {p99}longest {duration(latency.max)}.",
    )


def is_seen(run: Run) -> bool:
    """Whether a limit was seen inside the server, so that the answers need not tell it."""
    where = run.inside and run.inside.where
    return bool(where and (where.limit or where.circle))


def seen_text(run: Run) -> str:
    """What the answers show of the slots, where nothing was predicted for certain, and no limit was seen."""
    found = run.verdict.estimate
    return slots_seen_text(found) if found and run.plan.wait_s != 0 and not is_seen(run) else ""


# ---------------------------------------------------------------- warnings


def warnings(run: Run) -> str:
    """Symptom, likely cause and next step of each; empty if there are none."""
    return stacked(*(told("warning", warning_text(one)) for one in run.verdict.warnings))


def warning_text(warned: Warned) -> str:
    key = f"{warned.id} {warned.facts.get('kind', '')}".strip()
    return WARNINGS[key](SimpleNamespace(**warned.facts))


# ---------------------------------------------------------------- limit and estimate


def bottleneck(run: Run) -> str:
    """What ran out first, and what would be next, as a paragraph; empty if that cannot be said, or stands elsewhere: as
    what the requests were seen to wait for."""
    limits = run.verdict.limits
    if not limits or limits[0] == seen_limit(run) or is_not_known(run):
        return ""
    return told("limit", first_text(run, limits[0]), next_limit(run))


def first_text(run: Run, first: Limit) -> str:
    """What limited a run; that nothing was full is not said where the CPUs were, or requests were seen to wait."""
    if are_all_used(run, first):
        return f"The CPUs: client, server and other programs used {per_cent(used_by_all(run))} of them."
    if first.resource == Resource.NONE and some_wait(run):
        return "Not known. Requests were seen to wait, but not what limits them."
    return limit_text(first)


def next_limit(run: Run) -> str:
    """What would be full next, at which rate."""
    first, *others = run.verdict.limits
    least_rps = max(first.ceiling_rps or 0.0, run.measured.throughput_rps)  # a lower one is no limit here
    later = sorted(
        (one.ceiling_rps, name_of(one)) for one in others if one.ceiling_rps and one.ceiling_rps >= least_rps
    )
    is_none = first.resource in (Resource.ARRIVALS, Resource.NONE)
    which = "first" if is_none else "next"
    # What is not explained, or is used by no request, or waited for at times, may come before.
    if first.resource == Resource.MACHINE or are_all_used(run, first):  # which is CPU
        return ""
    is_open = run.verdict.explained_by is Explanation.NOTHING or first.is_used_beside or (is_none and some_wait(run))
    if not later or is_open or later[0][0] > loop_full_rps(run):
        return ""
    ceiling_rps, name = later[0]
    return f"The {which} known limit is {name}, at {requests_s(ceiling_rps)}."


def are_all_used(run: Run, first: Limit) -> bool:
    """Whether nothing else was full, but the CPUs, by all programs of this machine."""
    return first.resource == Resource.NONE and run.measured.server_cpu_s is not None and used_by_all(run) > 0.85


def used_by_all(run: Run) -> float:
    """The share of the CPUs that client, server and other programs used: 0 to 1."""
    measured, cpus = run.measured, run.plan.all_cpus
    own = (measured.client_cpu_s + (measured.server_cpu_s or 0.0)) / (cpus * measured.measured_s or math.inf)
    return min(1.0, own + taken_by_others(run))


def some_wait(run: Run) -> bool:
    """Whether requests were seen to wait for what others have, or for the server."""
    where = run.inside and run.inside.where
    waiting = [one for one in where.places if one.resource != LOOP] if where else []
    return any((one.resource or one.state is State.QUEUED) and one.requests >= 0.5 for one in waiting)


def loop_full_rps(run: Run) -> float:
    """About how many requests/s would keep the event loop at a line of the app all the time; infinite: it has none."""
    where = run.inside and run.inside.where
    most = where and blocking_place(where.blocks)
    return run.measured.throughput_rps / most.share if most and most.share >= ALSO_BLOCKS else math.inf


def name_of(limit: Limit) -> str:
    return RESOURCES.get(limit.resource, limit.resource)


def limit_text(limit: Limit) -> str:
    resource, held, slots = limit.resource, duration(limit.held_s), round(limit.slots or 0, 2)
    name = name_of(limit)
    if resource == Resource.MACHINE:
        return f"{name}, {per_cent(limit.busy)} of {plural(limit.cpus or 1, 'CPU')} busy."
    if resource in (Resource.ARRIVALS, Resource.NONE):
        return f"none: {name}."
    if limit.is_used_beside:
        return f"{name}, {per_cent(limit.busy)} busy, a good part of it by {OF_NO_REQUEST}."
    if limit.held_s is None:
        return f"{name}."
    what_allows = {
        "slots": f"{plural(slots, 'slot')}, each held {held},",
        "pool": f"{plural(slots, 'connection')}, each held {held},",
        "cpu": f"{held} per request on {plural(limit.cpus or 1, 'CPU')}",
        "client": f"{held} of CPU time per request",
    }.get(resource, f"{plural(slots, 'request')} at a time, {held} each,")
    return said(
        f"{name}, {per_cent(limit.busy)} busy.",
        limit.ceiling_rps and f"{what_allows} allow{'s' * (slots == 1)} {requests_s(limit.ceiling_rps)}.",
        limit.from_answers and "The number of slots is read from the answers.",
    )


def slots_seen_text(found: Estimate) -> str:
    """The number, a range, or why there is none, in a sentence."""
    many = f"at least {plural(found.low, 'request')} at a time"
    if found.is_certain:
        each = "" if found.each in (None, found.low) else f", {found.each} in each of {found.processes} workers"
        many = f"{plural(found.low, 'request')} at a time{each}"
    elif found.high:
        many = f"{found.low} to {found.high} requests at a time"
    return SEEN[found.seen.value].format(many=many, low=found.low)


def estimate(run: Run, always: bool = False) -> str:
    """What the answers show, with the known limits that may be behind it. Of a run that is as predicted with slots that
    are known, only if it is asked for."""
    found, plan = run.verdict.estimate, run.plan
    is_explained = run.verdict.explained_by in AS_PREDICTED
    is_known = is_seen(run) or (is_explained and plan.slots_known and not always)
    if not found or is_known or plan.wait_s == 0 or found.says_nothing:
        return ""
    is_seen_into = run.inside and run.inside.where  # then nothing is named that was not seen
    return stacked(told("estimate", estimate_text(found)), not is_seen_into and suspects_text(run, found))


def suspects_text(run: Run, found: Estimate) -> str:
    return stacked(*(told("suspect", suspect_text(run, one)) for one in found.suspects))


def estimate_text(found: Estimate) -> str:
    rounds = ", ".join(f"{n} after {duration(at_s)}" for n, at_s in found.rounds)
    return said(
        stall_text(found.stall) if found.stall else slots_seen_text(found),
        found.doubt and not found.stall and DOUBTS[found.doubt],
        rounds and found.slots and f"The answers came in rounds: {rounds}.",
        found.held_s and f"A request held its slot for {duration(found.held_s)}.",
        found.alone_s and f"A request by itself takes {duration(found.alone_s)}.",
        found.by_throughput and f"Throughput x wait gives {found.by_throughput:.3g} slots.",
    )


def stall_text(stall: Stall) -> str:
    return (
        f"A stall: no answer came from {duration(stall.from_s)} to {duration(stall.until_s)}, then requests failed."
        " What they waited for was not seen."
    )


def suspect_text(run: Run, suspect: Suspect) -> str:
    """A known limit that would explain the number: its setting, how to make sure, what a higher limit would give."""
    found, fails_s = run.verdict.estimate, suspect.fails_after_s
    last_s, then_s = (
        run.plan.load.last_answer_s(k * suspect.slots, found.alone_s or 0.0) if found else 0 for k in (1, 2)
    )
    each = f", in each of {suspect.processes} workers" * (suspect.processes > 1)
    is_set = f", if it is set to {suspect.set_to}" * bool(suspect.set_to)
    return said(
        f"This may be {suspect.name}{is_set} ({suspect.default} by default{each}). Setting: {suspect.setting}.",
        "To confirm: change it; the size of the batches must change with it.",
        last_s
        and f"With twice the limit, the last answer comes after {duration(then_s)} instead of {duration(last_s)}.",
        fails_s == 0 and "Any others fail immediately.",
        fails_s and f"Others fail after {duration(fails_s)}.",
        f"Source: {suspect.source}.",
    )
