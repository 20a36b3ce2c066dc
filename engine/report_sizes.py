"""The sentences about sizes: how many slots an objective needs, whether a run kept it, and what would keep it."""

from __future__ import annotations

import math
from dataclasses import replace

from engine.advice import Advice, Cure, objects_of
from engine.places import Limit, Resource
from engine.report_where import capital, seen_in_short
from engine.report_words import said, stacked, told
from engine.run import Run
from engine.sizes import POSTGRES_CONNECTIONS, Asked, Setting, Size, settings_for
from engine.words import MARGIN, Problem, duration, per_cent, plural, slots_text


def size_text(found: Size, workers: int, instead: str = "") -> str:
    """How many slots: the number, what it gives, what is near, then the settings of each kind of server.

    instead: of what was sent, where that was not at random moments.
    """
    need = int(found.fits.slots)
    each = math.ceil(need / workers)
    computes = f" and computes for {duration(found.cpu_s)}" * bool(found.cpu_s)
    queue = (" (a queue for each process)", "")
    settings, alone = settings_that_hold(found, workers)
    more = plural(found.slots_for_more, "slot") if found.slots_for_more else "more CPUs"
    rows = ["             slots    load      p50      p95      p99"]
    near = {"one fewer": found.below, "the size": found.fits, "one more": found.above, "20 % more": found.more_traffic}
    if need == 1:
        del near["one fewer"]
    for name, at in near.items():
        times = "".join(f"{duration(at.latency_s.get(percentile)):>9}" for percentile in (50, 95, 99))
        rows.append(
            f"{name:{MARGIN}}{at.slots:>6g}{per_cent(at.load):>8}{times}"
            f"  {'fast enough' if at.holds else 'too slow' if at.latency_s else 'the queue grows'}"
        )
    more_alone = f", or {alone * workers} where each process has a queue of its own" * (alone > each)
    return stacked(
        told(
            "asked",
            f"{found.rate_rps:g} requests/s at random moments. Each waits {duration(found.wait_s)}{computes}.",
            f"Wanted: a p{found.percentile:g} of at most {duration(found.objective_s)}.",
            instead,
        ),
        told(
            "slots",
            f"{plural(need, 'slot')} in one queue {'is' if need == 1 else 'are'} enough."
            f" On average {found.rate_rps * found.held_s:.3g} of them are busy.",
            found.cpu_s and f"The CPUs are {per_cent(found.cpu_busy)} busy.",
            f"That is enough until a request takes {duration(found.longest_s)} by itself.",
            f"20 % more requests/s need {more}.",
        )
        + "\n",
        *rows,
        *(f"\n{one.server}{queue[one.is_shared]}\n    {one.settings}\n    {one.note}" for one in settings),
        "\n"
        + told(
            "pools",
            "If a request holds a database connection while it waits, each process needs one for each of its slots:"
            f" {each * workers} in all{more_alone}. Postgres allows {POSTGRES_CONNECTIONS} by default.",
        ),
    )


def settings_that_hold(found: Size, workers: int) -> tuple[list[Setting], int]:
    """The settings of each kind of server, and the slots of a process that has a queue of its own."""
    need = int(found.fits.slots)
    alone = each = math.ceil(need / workers)
    asked = Asked(found.rate_rps / workers, found.wait_s, found.objective_s, found.percentile, found.cpu_s)
    try:
        of_its_own = asked.slots()
        alone, settings = max(each, of_its_own), settings_for(need, workers, of_its_own)
    except Problem:  # no number is enough where each process has a queue of its own
        settings = [one for one in settings_for(need, workers, need) if one.is_shared]
    if not replace(found, cpus=1).at(need).holds:
        settings = [one for one in settings if one.server != "waitress"]  # which is one process
    return settings, alone


def advice_text(found: Advice, run: Run) -> str:
    """Whether the objective was kept, and what would keep it."""
    longest = run.measured.latency_s.max if run.measured.latency_s else None
    measured = f"was {duration(found.measured_s)}"
    if not found.measured_s:
        measured = f"is not known (too few answers), the longest latency was {duration(longest)}"
    kept = "kept" if found.is_kept else "NOT kept"
    if run.measured.failed:
        kept = f"{kept}; {run.measured.failed} of {run.measured.sent} requests failed"
    asked = f"The p{found.percentile} {measured}; at most {duration(found.objective_s)} was asked: {kept}."
    text = stacked(told("objective", asked), told("to keep it", cure_text(found, run)))
    is_table = found.size and found.cure is Cure.SLOTS
    if not is_table or not found.size:
        return text
    evenly = getattr(run.plan.load, "arrivals", "poisson") == "constant"
    return f"{text}\n\n{size_text(found.size, run.plan.workers, EVENLY * evenly)}"


EVENLY = "(This run's were evenly spaced; for such ones fewer slots may do.)"


def cure_text(found: Advice, run: Run) -> str:
    """What has to grow, and to how many."""
    need, limit = found.need or 0, found.limit
    held = f"if each is held for {duration(found.size.held_s if found.size else 0.0)}"
    is_cpu = bool(run.verdict.limits) and run.verdict.limits[0].resource == Resource.CPU
    one_each = f"{seen_in_short(run)} Each process has one of its own, so {need} processes are needed."
    computes = (
        f"CPU time is the limit, and a Python process computes on one CPU at a time: {need} processes are needed."
    )
    texts = {
        Cure.NONE: "What there is was enough. Fewer were not tried.",
        Cure.NOTHING: f"{capital(found.why)}.",
        Cure.UNKNOWN: f"Not known: {found.why}."
        if found.why
        else "Not known: what the slow requests waited for was not seen, or more of it would be no cure.",
        Cure.PROCESSES: computes if is_cpu else one_each,
        Cure.RESOURCE: grown_text(limit, need, held, run.plan.slots or math.inf) if limit else "",
        Cure.SLOTS: f"{plural(need, 'slot')}, {held}.",
    }
    return texts[found.cure]


def grown_text(limit: Limit, need: int, held: str, slots: float) -> str:
    """So many of what the requests wait for inside the handlers, and of the server's slots."""
    made, objects = f", made at {limit.size_line}" * bool(limit.size_line), objects_of(limit)
    now, each, of_each = limit.slots, need, ""
    if objects > 1:
        now, each, of_each = limit.size_of_each, need // objects, " in each process"
    return said(
        f"{capital(limit.resource)}{made}: it has {slots_text(now)}{of_each}; {each} are enough{of_each and ' there'},"
        f" {held}.",
        need > slots and f"The server then needs as many slots; it has {slots:g}.",
    )
