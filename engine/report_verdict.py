"""The sentences about what a run shows: verdict, warnings, bottleneck, estimate. Values come in, text goes out.

Words for single values are in report_words.py. Read a new sentence aloud: one thought each, and the number in it.
"""

from __future__ import annotations

from typing import Any

from engine.loads import Figure
from engine.report_words import (
    CEILINGS,
    DOUBTS,
    EXPLANATIONS,
    FAILURES,
    HANDLER_WORDS,
    RESOURCES,
    SEEN,
    WARNINGS,
    compared_words,
    numbers,
    requests_s,
    said,
    stacked,
)
from engine.run import Estimate, Explanation, Limit, Resource, Run, Stall, Suspect, Warned
from engine.verdict import at_once
from engine.words import difference, duration, per_cent, plural, rate, section, slots_text

EXPLAINED = (Explanation.PREDICTION, Explanation.SPLIT, Explanation.CPU)

# ---------------------------------------------------------------- the verdict


def verdict(run: Run) -> str:
    """What happened, in a few sentences: the first thing to read."""
    explained, judged_by, split = run.verdict.explained_by, run.plan.load.judged_by[:2], run.split_prediction
    if not explained:
        return said(answers_text(run), not run.measured.failed and not run.prediction.is_known and seen_text(run))
    figures = [(one, run.measured.of(one), run.prediction.of(one)) for one in judged_by]
    text = [compared_words(one, value, due) for one, value, due in figures if value and due]
    if explained is Explanation.SPLIT and split and (due := split.of(judged_by[0])):
        more = difference(figures[0][1] or due, due)
        text.append(f"With the numbers that they took, {duration(due)} is predicted ({more}).")
    is_compared = explained in (*EXPLAINED, Explanation.NOTHING)
    return said(EXPLANATIONS[explained], *text, is_compared and allowed(run))


def allowed(run: Run) -> str:
    """The difference that this machine's own costs explain, and what they are."""
    band, is_steady = run.verdict.band, run.plan.load.is_steady
    if not band:
        return ""
    many, room_s = (at_once(run), band.latency_s) if is_steady else (run.measured.answered, band.makespan_s)
    cpu_s = band.cpu_s * many
    if run.verdict.explained_by is Explanation.CPU:
        return f"The CPU time of {many:g} requests is {duration(cpu_s)} ({duration(band.cpu_s)} each)."
    costs = f"{duration(band.overhead_s)} of overhead per round, {duration(band.timer_s)} timer"
    return f"5 % and {duration(max(0.0, room_s - cpu_s))} are allowed ({costs})."


def answers_text(run: Run) -> str:
    """How many answers, and how fast."""
    measured, latency = run.measured, run.measured.latency_s
    p99 = f"p99 {duration(latency.p99)}, " if latency and latency.p99 else ""
    return said(
        measured.failed and f"{measured.failed} of {measured.sent} requests FAILED.",
        measured.stopped and f"The run ended early: {measured.stopped}.",
        f"{plural(measured.answered, 'answer')} in {duration(measured.measured_s)}, {rate(measured.throughput_rps)}.",
        latency and f"Latency: median {duration(latency.median)}, {p99}longest {duration(latency.max)}.",
    )  # fmt: skip


def seen_text(run: Run) -> str:
    """What the answers show, where nothing was predicted for certain: the kind of handler, the slots."""
    may_be, measured, found = run.prediction.possibilities, run.measured, run.verdict.estimate
    handler = min(may_be, key=lambda one: abs(may_be[one] - measured.measured_s), default="")
    due_s = may_be.get(handler, 0.0)
    less_s = 0.15 * due_s + measured.client_cpu_s
    more_s = max(less_s, 0.05 * due_s + (measured.server_cpu_s or 0.0))
    fits = due_s - less_s <= measured.measured_s <= due_s + more_s
    return said(
        handler and f"This fits {HANDLER_WORDS[handler] if fits else 'none of the predictions'}.",
        found and run.plan.wait_s != 0 and slots_seen_text(found),
    )  # fmt: skip


# ---------------------------------------------------------------- warnings


def warnings(run: Run) -> str:
    """Symptom, likely cause and next step of each; empty if there are none."""
    return stacked(*(section("warning", warning_text(one)) for one in run.verdict.warnings))


def warning_text(warned: Warned) -> str:
    facts = {name: fact_text(name, value) for name, value in warned.facts.items()}
    most, each = facts.get("most", ""), warned.facts.get("each")
    facts["because"] = next(text for error, text in FAILURES.items() if most.startswith(error))
    if warned.facts.get("said"):
        facts["because"] = f"{facts['said']} Read {facts['log']}."
    facts["each"] = f", {each} in each worker" if each and each != warned.facts["slots"] else ""
    return WARNINGS[f"{warned.id} {facts.get('kind', '')}".strip()].format_map(facts)


def fact_text(name: str, value: Any) -> str:
    """A number of a warning as text; its name tells the unit."""
    if name == "off":
        return said(*(compared_words(Figure(figure), measured, due) for figure, measured, due in value))
    if name == "more_processes":
        return f"add --processes {value}" if value else "give the client more CPUs"
    if name == "said":
        return f"The server said: {'; '.join(value)}." if value else "The server did not say why."
    if isinstance(value, dict):
        return numbers(f"{count} {error}" for error, count in value.items())
    if isinstance(value, (list, tuple)):
        return numbers(value)
    units = {"s": duration, "rps": rate, "share": per_cent, "busy": per_cent, "way": "{:.3g}".format}
    return value if isinstance(value, str) else units.get(name.rpartition("_")[2], slots_text)(value)


# ---------------------------------------------------------------- bottleneck and estimate


def bottleneck(run: Run) -> str:
    """What ran out first, and what would be next; empty if that cannot be said."""
    limits = run.verdict.limits
    if not limits:
        return ""
    later = [f"{RESOURCES[one.resource]}, at {requests_s(one.ceiling_rps)}" for one in limits[1:] if one.ceiling_rps]
    first = "first" if limits[0].resource in (Resource.ARRIVALS, Resource.NONE) else "next"
    return said(limit_text(limits[0]), later and f"The {first} one would be {later[0]}.")


def limit_text(limit: Limit) -> str:
    if limit.held_s is None:
        return f"{RESOURCES[limit.resource]}."
    slots, full = limit.slots or 0, requests_s(limit.ceiling_rps)
    ceiling = CEILINGS[limit.resource].format(
        held=duration(limit.held_s), full=full, cpus=plural(limit.cpus or 1, "CPU"), slots=plural(slots, "slot"),
        connections=plural(slots, "connection"), allow="allows" if slots == 1 else "allow",
    )  # fmt: skip
    return said(
        f"{RESOURCES[limit.resource]}, {per_cent(limit.busy)} busy.",
        limit.ceiling_rps and ceiling,
        limit.from_answers and "The number of slots is read from the answers.",
        limit.shares_cpus and "It shares its CPUs with the server.",
    )  # fmt: skip


def slots_seen_text(found: Estimate) -> str:
    """The number, a range, or why there is none, in a sentence."""
    many = f"{found.low} to {found.high} requests" if found.high else f"at least {plural(found.low, 'request')}"
    each = ""
    if found.is_certain:
        many = plural(found.low, "request")
        each = f", {found.each} in each of {found.processes} workers" * ((found.each or found.low) != found.low)
    return SEEN[found.seen].format(many=many, each=each, low=found.low)


def estimate(run: Run, always: bool = False) -> str:
    """What the answers show, with the known limits that may be behind it. Of a run that is as predicted with slots that
    are known, only if it is asked for."""
    found, is_clear = run.verdict.estimate, run.verdict.explained_by in EXPLAINED and run.plan.slots_known
    if not found or run.plan.wait_s == 0 or (is_clear and not always):
        return ""
    suspects = (section("suspect", suspect_text(run, one)) for one in found.suspects)
    return stacked(section("estimate", estimate_text(found)), *suspects)


def estimate_text(found: Estimate) -> str:
    rounds = ", ".join(f"{n} at {duration(at_s)}" for n, at_s in found.rounds)
    return said(
        stall_text(found.stall) if found.stall else slots_seen_text(found),
        found.doubt and not found.stall and DOUBTS[found.doubt],
        rounds and f"The answers came in rounds: {rounds}.",
        found.held_s and f"A request held its slot for {duration(found.held_s)}.",
        found.alone_s and f"A lone request takes {duration(found.alone_s)}.",
        found.by_throughput and f"Throughput x wait gives {found.by_throughput:.3g} slots.",
    )  # fmt: skip


def stall_text(stall: Stall) -> str:
    """Two pools whose holders wait for each other, as far as they are known."""
    threads, connections = stall.threads or 0, stall.connections or 0
    return said(
        f"A stall: no answer came from {duration(stall.from_s)} to {duration(stall.until_s)}, then requests failed.",
        "Some requests hold a connection and wait for a thread, others hold a thread and wait for a connection.",
        threads and f"It begins at {threads} threads + {connections} connections = {threads + connections} requests.",
        "To cure it, open the session inside the handler (`with`), or remove the response model.",
    )  # fmt: skip


def suspect_text(run: Run, suspect: Suspect) -> str:
    """A known limit that would explain the number: its setting, how to make sure, what a higher limit would give."""
    found, each = run.verdict.estimate, f", in each of {suspect.processes} workers" * (suspect.processes > 1)
    is_set = f", if it is set to {suspect.set_to}" * bool(suspect.set_to)
    alone_s = (found and found.alone_s) or 0.0
    last_s, then_s = (run.plan.load.last_answer_s(suspect.slots * k, alone_s) for k in (1, 2))
    after = f"after {duration(suspect.fails_after_s)}" if suspect.fails_after_s else "at once"
    return said(
        f"This may be {suspect.name}{is_set} ({suspect.default} by default{each}). Setting: {suspect.setting}.",
        "To confirm: change it; the size of the batches must change with it.",
        last_s and f"With twice as many, the last answer comes after {duration(then_s)} instead of {duration(last_s)}.",
        suspect.fails_after_s is not None and f"Requests above the limit fail {after}.",
        f"Source: {suspect.source}.",
    )  # fmt: skip
