"""The sentences about where the requests stood, and what limited them there. Values come in, text goes out."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Callable

from engine.audit import only_some_take_longer
from engine.limit import ALSO_BLOCKS, CONDITION, FREES_ALL, ITSELF, LOOP, TIMED, blocking_place, is_lock, requests_in
from engine.places import Limit, Resource, Spot, State, Where
from engine.report_verdict import next_limit
from engine.report_words import requests_s, said, stacked, told
from engine.run import Run
from engine.standstill import name_among
from engine.unseen import is_not_known, slower_than_alone_s
from engine.words import duration, per_cent, plural

MOST_ROWS = 8
MOST_COMPUTING, LEAST_COMPUTING = 3, 0.1
LEAST_SEEN = 0.5  # of the CPU time used: less, and its lines are not known
LEAST_SAMPLES = 5  # that tell which lines compute
WIDTH, COLUMN = 79, 34

STATES = {
    State.WAITING: "wait",
    State.WORKING: "are worked on",
    State.BLOCKING: "blocks the event loop",
    State.ANSWERED: "are answered already",
    State.QUEUED: "have not begun",
    State.BESIDE: "are of no request",
}
THINGS = {  # a word in the name of a resource -> what a request waits for; the first that fits
    "semaphore": "a semaphore",
    "thread": "a thread",
    "process": "a process",
    "pool": "a connection",
    "connection": "a connection",
    "Limiter": "a CapacityLimiter",
    LOOP: LOOP,
    "future": "another request",
    "a result": "a result",
    "Queue": "a queue",
    "Condition": "a condition",
    "server": "this very server",
}


def where(run: Run) -> str:
    """Where the requests of a run stood, and what limited it; empty where the server was not looked into."""
    found = run.inside and run.inside.where
    if not found:
        return ""
    table = where_table(found, run.plan.load.is_steady, others_in(run, found))
    return stacked(table, limit(run, found), computing(run, found))


def others_in(run: Run, found: Where) -> str:
    """What requests a table has beside those that are under way."""
    if run.victim:
        return ", and those of the victim"
    inside = requests_in(found.places, State.WAITING, State.WORKING, State.BLOCKING)
    return ", and those that the client has given up" if run.measured.failed and inside > found.requests + 0.5 else ""


def where_table(found: Where, is_steady: bool = False, beside: str = "") -> str:
    """How many requests stood where, and what they did there, in the samples with the most requests."""
    fullest = ", at the fullest" * is_steady
    costs = f"({plural(found.samples, 'sample')}, {cost_text(found.cost)}):"
    head = f"of {found.requests:.3g} requests under way{fullest}{beside} {costs}"
    rows = [row(spot) for spot in found.places if spot.requests >= 0.5 or spot.state is State.BLOCKING][:MOST_ROWS]
    return stacked(told("where", head), *rows) if rows else ""


def table_now(found: Where, takes_more: bool) -> str:
    """The same while another program sends. takes_more: the server would work on more requests at once."""
    table = where_table(found)
    nothing_waits = all(spot.state in (State.WORKING, State.BESIDE) for spot in found.places)
    return stacked(table, ALL_ARE_WORKED_ON if table and nothing_waits and takes_more else "")


ALL_ARE_WORKED_ON = (
    "None of these was seen to wait for another one, and the server would take more. If more\n"
    "should be under way, look at what sends them: a browser opens 6 connections to an address."
)


def cost_text(cost: float) -> str:
    return f"{100 * cost:.1f} % of a CPU"


def row(spot: Spot) -> str:
    """One place; what belongs to it stands below where the line gets too long."""
    many = f"{max(1.0, spot.requests):.0f}" if spot.requests else "-"
    at = spot.line or stands(spot)
    text = (
        f"{many:>5}  {doing(spot):{COLUMN - 8}} {at if len(at) <= WIDTH - COLUMN else f'...{at[COLUMN + 3 - WIDTH :]}'}"
    )
    detail = resource_text(spot) if spot.resource else working_text(spot)
    if len(wide := f"{text:{COLUMN + 24}}  {detail}") <= WIDTH:
        return wide.rstrip()
    return "\n".join([text, *(" " * COLUMN + part for part in textwrap.wrap(detail, WIDTH - COLUMN))])


def doing(spot: Spot) -> str:
    name = spot.resource or ""
    thing = "a lock" if is_lock(name) else next((thing for word, thing in THINGS.items() if word in name), "")
    if spot.state is State.BLOCKING:
        return "blocks the event loop"
    if spot.state is State.WAITING or spot.resource:
        return f"wait for {thing or 'something'}" if spot.state is State.WAITING else "answered, but wait"
    return "wait" if working_text(spot) == FOR_EVENT else STATES[spot.state]


def stands(spot: Spot) -> str:
    """Where those stand that are not in the code of the app."""
    if spot.state is State.QUEUED:
        return "in a queue of the server or the kernel"
    if spot.state is State.ANSWERED:
        return "after the answer"
    if spot.phase:
        return f"{spot.phase} {spot.handler or ''}".strip()
    return spot.below[-1].rpartition(" ")[0] if spot.below else "in no code of Python"


def resource_text(spot: Spot) -> str:
    """The resource with its use."""
    if spot.made_size is not None:
        return f"{spot.resource}, made with {spot.made_size:g}, but more have it: it is released more often than taken"
    if spot.size is None or spot.resource == LOOP:
        return spot.resource or ""
    if is_lock(spot.resource or ""):  # of several each has one
        return spot.resource or ""
    is_whole = spot.size == round(spot.size)  # else of processes that were there for a part of the time
    used = "" if spot.used is None or not is_whole else f", {min(spot.used, spot.size):.3g} of {spot.size:.3g} in use"
    return f"{spot.resource}{used}{in_each(spot)}" if spot.size > 1 else spot.resource or ""


def in_each(of: Spot | Limit) -> str:
    """The size in one process, where several have one each."""
    return f" ({of.size_of_each:g} in each process)" if of.size_of_each else ""


CLIENTS = {  # packages in the frames below the app's line -> what they wait for
    "psycopg": "psycopg waits for the database",
    "asyncpg": "asyncpg waits for the database",
    "httpcore": "httpx waits for an answer",
    "urllib3": "requests waits for an answer",
    "aiohttp": "aiohttp waits for an answer",
    "redis": "redis waits for an answer",
}
FOR_EVENT = "for an Event or a Condition"
WAITS = re.compile(r"wait|read|recv|select|poll|get_frame|start_tls|connect")


def working_text(spot: Spot) -> str:
    """What a library does there; of those that wait for another program, that."""
    if not spot.below or not spot.line:
        return ""
    if spot.state is State.BLOCKING:
        return f"in {spot.below[-1].rpartition(' ')[0]}"
    if re.search(r"threading.py:\d+ (Event|Condition).wait$", spot.below[-1]):
        return FOR_EVENT
    waits = WAITS.search(spot.below[-1].rpartition(".")[2])
    packages = [re.split(r"[/:]", frame)[0] for frame in reversed(spot.below)] if waits else []
    return next((CLIENTS[one] for one in packages if one in CLIENTS), "")


def limit(run: Run, found: Where) -> str:
    """What limits, and what more of it would give; or what stands still."""
    if found.circle:
        return told("standstill", standstill(found))
    of = found.limit
    if not of:
        return told("besides", blocks_at_times(found))
    alone_s, limits = slower_than_alone_s(run), run.verdict.limits
    if alone_s and is_not_known(run):
        return told("limit", unknown_limit(run, of, alone_s))
    if limits and limits[0] != of:  # one is the limit, and stands with the verdict
        return told("besides", seen_limit_text(of))
    is_last = limits and not others_wait(found, of)  # else what they wait for may well come next
    return told("limit", seen_limit_text(of), slower_text(alone_s), more(run, of), is_last and next_limit(run))


def blocks_at_times(found: Where) -> str:
    """The line that blocks the event loop now and then, where nothing limits."""
    most = blocking_place(found.blocks)
    if not most or most.share < ALSO_BLOCKS:
        return ""
    seen = f"In {per_cent(most.share)} of the samples of the whole run"
    return f"{seen} the event loop was at {most.line}, and whatever came meanwhile had to wait."


def others_wait(found: Where, of: Limit) -> bool:
    """Whether requests wait for something else than what limits."""
    waiting = [spot for spot in found.places if spot.state is State.WAITING and spot.requests >= 0.5]
    return any((spot.resource, spot.line) != (of.resource, of.line) for spot in waiting)


def unknown_limit(run: Run, of: Limit, alone_s: float) -> str:
    """Slots that are taken only because something else keeps the requests."""
    times = run.inside.handlers if run.inside and only_some_take_longer(run) else None
    if times:
        return (
            f"Not known. All of the server's slots ({of.slots:g}) are taken. Half of the requests were in their"
            f" handlers for {duration(times.median)} or less, and on average it was {duration(times.mean)}. Whether the"
            " slow ones take so long by themselves was not seen: if they wait for each other, more slots are no cure."
        )
    return (
        f"Not known. All of the server's slots ({of.slots:g}) are taken. By itself a request takes {duration(alone_s)},"
        " and here they keep their slots longer. Either some take longer than others, or they wait for something that"
        " was not seen: then more slots may only let more of them wait for it."
    )


def slower_text(alone_s: float | None) -> str:
    """That a request keeps what limits longer than it takes by itself."""
    if not alone_s:
        return ""
    return (
        f"By itself a request takes {duration(alone_s)}. Either some take longer than others, or something unseen in"
        " the handlers slows them under this load, and raising the limit may not help."
    )


def computing(run: Run, found: Where) -> str:
    """Where CPU time is the limit: the lines that compute."""
    limits, of = run.verdict.limits, found.computing
    if not limits or limits[0].resource != Resource.CPU or not of or of.samples < LEAST_SAMPLES:
        return ""
    seen_s = sum(spot.cpu_s for spot in of.places)
    if seen_s < LEAST_SEEN * of.cpu_s:
        return told(
            "computes",
            f"Mostly at lines not known: {per_cent(1 - seen_s / of.cpu_s)} of the CPU time was used by threads that had"
            " ended or gone on when a sample was taken, or that are not Python's.",
        )
    lines = [
        f"{per_cent(spot.cpu_s / seen_s)} {computing_at(spot)}"
        for spot in of.places[:MOST_COMPUTING]
        if spot.cpu_s >= LEAST_COMPUTING * seen_s
    ]
    # Python lets another thread look only where one gives way: at the end of a long call, or just behind it.
    told_by = f"as {of.samples} samples tell"
    return told("computes", f"CPU time was used here, or just before, {told_by}: {'; '.join(lines)}.")


def computing_at(spot: Spot) -> str:
    """The line, with the function of a library that it is in; or that it is of no request."""
    at = f"{'' if spot.phase and not spot.line else 'at '}{spot.line or stands(spot)}"
    if spot.state is State.BESIDE:
        return f"{at} (in a thread or task of its own)"
    return f"{at} (in {spot.below[-1]})" if spot.line and spot.below else at


def seen_limit_text(of: Limit) -> str:
    name, held, at = capital(of.resource), duration(of.held_s), f" at {of.line}" * bool(of.line)
    if of.resource == LOOP:
        more = f" and {plural(of.more_lines, 'other line')}" * bool(of.more_lines)
        return f"The event loop is blocked{at}{more}{f', for {held} per request on average' if of.held_s else ''}."
    if of.resource == Resource.SLOTS:
        return said(
            f"The server's slots: it works on {plural(of.slots or 0, 'request')} at a time; the others have not begun.",
            holding_text(of),
        )
    waiting = plural(round(of.waiting or 0), "request")
    if of.slots is None:
        return f"{name}: {waiting} wait for it{at}{how_it_ends(of)}"
    if of.slots <= 1 and CONDITION.match(of.resource):
        return f"{name}{at}: {waiting} wait for it, while one goes on."
    if of.slots <= 1 and not of.size and of.objects == 1 and of.parts == 1:
        return said(f"{name}{at}: one at a time has it.", of.held_s and f"A request has it for {held} on average.")
    return said(shared_text(of, f"{name}{f' ({of.setting})' * bool(of.setting)}", at), holding_text(of))


NO_LONGER = "but no longer than some time"


def how_it_ends(of: Limit) -> str:
    """How the wait ends for what has no number of slots."""
    if of.setting == TIMED:
        return f", {NO_LONGER}."
    if is_lock(of.resource) and of.is_sized:
        return ", and then pass it at once."
    is_event = FREES_ALL.match(of.resource)
    return ". One event ends the wait for all of them." if is_event else ", and no request was seen to have it."


def shared_text(of: Limit, name: str, at: str) -> str:
    """How many requests have a resource, where it is more than one."""
    if of.size:
        goes = "goes" if of.slots == 1 else "go"
        at_once = f"only {plural(of.slots, 'request')} {goes} on at a time" if of.slots else "no request goes on"
        return (
            f"{name}{at}: its size is {of.size:g}, but {at_once}. The rest may be lost, as it was not given back, or"
            " be held by something else, or by requests that wait for a second one."
        )
    if of.objects > 1:
        go_on = f"{plural(of.slots or 0, 'request')} {'goes' if of.slots == 1 else 'go'} on at a time"
        return f"{name}{at}: requests wait for {of.objects} such objects there, and {go_on}."
    made = f", made at {of.size_line}" * bool(of.size_line)
    have = f"have it{in_each(of)}" if of.is_sized else "are seen to go on" if of.held_s else "at most are seen to go on"
    many = f"{plural(of.slots or 0, 'request')} at a time"
    if of.parts > 1:
        many = f"{plural(float(f'{of.slots or 0:.3g}'), 'request')} at a time"
        have = f"{'has' if of.slots == 1 else 'have'} it, each {of.parts:.2g} of its {(of.slots or 0) * of.parts:.3g}"
    return f"{name}{made}: {many} {have}, and others wait{at}."


def holding_text(of: Limit) -> str:
    if not of.held_s:
        return ""
    # It may take it several times, or some not at all.
    who = "If the rest is lost, a" if of.size else "A"
    held = f"{who} request has it for {duration(of.held_s)} on average"
    if of.resource == Resource.SLOTS:
        held = f"Each holds one for {duration(of.held_s)}"
    return f"{held}: at most {requests_s(of.ceiling_rps)}."


def seen_in_short(run: Run) -> str:
    """The limit in a line; empty where none was seen."""
    of = run.inside and run.inside.where and run.inside.where.limit
    if not of or is_not_known(run):
        return ""
    at = f" at {of.line}" * bool(of.line)
    if of.resource == LOOP:
        return f"The event loop is blocked{at}."
    name = "the server's slots" if of.resource == Resource.SLOTS else of.resource
    number = seen_slots(of)
    if number:
        return f"{round(number, 2):g} at a time: {name}{at}."
    if of.setting == TIMED:
        return f"Requests wait for {name}{at}, {NO_LONGER}."
    return f"Requests wait for {name}{at}.{' One at a time has it.' * bool(of.slots)}"


def seen_slots(of: Limit) -> float | None:
    """How many requests go on at a time because of a limit; None: not known, as of a lock that they may have for no
    time."""
    return None if is_lock(of.resource) and not of.held_s else of.slots


def more(run: Run, of: Limit) -> str:
    """What the next limit would give, where that is known; of a burst."""
    is_shared = (of.slots or 0) > 1 and of.parts == 1 and not slower_than_alone_s(run)
    if not is_shared or not of.next_slots or not of.held_s or run.plan.load.is_steady:
        return ""
    now_s, last_s = run.measured.measured_s, last_with(run, of.next_slots, of.held_s)
    if not last_s or last_s[1] >= now_s:
        return ""
    with_next = f"With {of.next_slots:g} at a time, these {run.measured.sent} requests would take about"
    return f"{with_next} {' to '.join(dict.fromkeys(map(duration, last_s)))}, not {duration(now_s)}."


def last_with(run: Run, slots: float, held_s: float) -> tuple[float, float] | None:
    """The last answer of a burst with as many slots of the next kind, which are held for as long as those that limit,
    or for as long as a request takes; None: there is no closed form."""
    plan, alone_s = run.plan, max(held_s, run.plan.wait_s or 0.0)
    least_s, most_s = (plan.load.last_answer_s(slots, one_s) for one_s in (held_s, alone_s))
    if not least_s or not most_s:
        return None
    # The server's are held as long as a request takes.
    is_servers = slots in (plan.slots, plan.server_slots)
    return most_s if is_servers else least_s + alone_s - held_s, most_s


def lines_waiting(found: Where, name: str) -> str:
    """The lines at which requests wait for a resource of a standstill."""
    lines = {spot.line or spot.handler for spot in found.places if name_among(found.places, spot) == name}
    return " and ".join(sorted(filter(None, lines)))


def standstill(found: Where) -> str:
    """Which requests wait for which, from how many requests on, at which lines, and what helps."""
    lines = [f"for {one} at {at}" for one in found.circle if (at := lines_waiting(found, one))]
    text, cure = next((text, cure) for is_it, text, cure in CIRCLES if is_it(found.circle))
    return said(
        text.format(*found.circle, all=", ".join(found.circle)),
        lines and f"They wait {', and '.join(lines)}.",
        found.circle_at and f"{found.circle_at:g} requests at a time may be enough.",
        cure,
    )


def is_of(*words: str) -> Callable[[tuple[str, ...]], bool]:
    """Whether a circle is of as many resources, with these words in their names, in whatever order."""
    return lambda circle: any(
        len(words) == len(circle) and all(word in one for word, one in zip(words, order, strict=True))
        for order in itertools.permutations(circle)
    )


THREADS = "AnyIO's threads"
TWICE = "Requests that hold {0} wait for it a second time, and all of it is held."
CIRCLES = (  # which resources, which wait for which, and what helps: each tried in tests/test_standstill.py
    (is_of(ITSELF), "Every slot has a request that waits for an answer of this very server, which has no slot for it.",
     "Call the function instead of the URL."),
    (is_of(LOOP, "pool"), "The event loop's own thread waits for {1}. All of it is held by requests that wait for the"
     " event loop.", "Make the handler a `def`."),
    (is_of(LOOP, "a lock"), "The event loop's own thread waits for {1}. The request that has it waits for the event"
     " loop.", "Use an asyncio.Lock."),
    (is_of("pool"), TWICE,
     "Use one connection for the whole request, or more of them than requests can be in the handlers."),
    (is_of("a lock", THREADS), "The request that has the lock waits for one of AnyIO's threads. All of these are held"
     " by requests that wait for the lock.", "Take the lock inside the handler."),
    (is_of("SQLAlchemy's pool", THREADS),
     "Requests that hold {0} wait for {1}, and requests that hold {1} wait for {0}.",
     "Give each `def` dependency and the handler its own session, closed before the next one."),
    (lambda circle: len(circle) == 1, TWICE, ""),
    (lambda circle: len(circle) == 2, "Requests that hold {0} wait for {1}, and the other way round.", ""),
    (lambda _: True, "Requests that hold one of these wait for another: {all}.", ""),
)  # fmt: skip


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]
