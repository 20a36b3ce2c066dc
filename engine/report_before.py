"""Every sentence before a run: where it is measured, what is sent, what is predicted. Values come in, text goes out."""

from __future__ import annotations

from collections.abc import Sequence

from engine.alone import MOST
from engine.deals import mean_shares
from engine.estimate import first_true
from engine.listeners import all_run_apps
from engine.machine import Machine
from engine.plans import held_for, held_share
from engine.report_words import FAILURES, HANDLER_WORDS, LETTERS, LOADS, requests_s, said, stacked, told
from engine.run import Plan, Prediction
from engine.tls import Tls
from engine.words import duration, path_or_workload, per_cent, plural, slots_text
from engine.workload import MOST_TIMED


def header(machine: Machine, versions: dict[str, str]) -> str:
    """Where all this is measured."""
    packages = ", ".join(map(" ".join, versions.items()))
    cpu = f"{plural(machine.cpus, 'CPU')} ({machine.cpu or 'model not known'}, {machine.kernel})"
    return told("machine", f"{machine.system}, {cpu}; {packages}")


def search(plan: Plan, *what: object) -> str:
    """The target, what is sent, and our server's command line with what overrules what in it."""
    launch = plan.launch
    asked = path_or_workload(f"{plan.method} {plan.path}", plan.workload)
    lines = [f"\n{plan.target}  {asked}\n", told("load", *what)]
    if launch:
        lines += told("server", *launch.command("PORT", launch.app)), *(told("note", one) for one in launch.notes)
    if plan.listeners:
        lines.append(told("server", listeners_text(plan)))
    return "\n".join(lines)


def listeners_text(plan: Plan) -> str:
    """The processes of a server that runs already."""
    found = plan.listeners
    pids, threads = ", ".join(str(one.pid) for one in found), sum(one.threads for one in found)
    many = f"{'processes' if found[1:] else 'process'} {pids}, {plural(threads, 'thread')}"
    passes_on = "" if all_run_apps(found) else " What it passes requests on to is not seen."
    return f"{' '.join(found[0].command)[:200]}: {many}.{passes_on}"


def handler_text(plan: Plan) -> str:
    drawn = f" on average (distribution: {plan.distribution})" * is_drawn(plan)
    computes = f" and computes for {duration(plan.cpu_time_s)}" * bool(plan.cpu_time_s)
    return f"Each request waits {duration(plan.wait_s)}{drawn}{computes}." if plan.wait_s else ""


def what_is_sent(plan: Plan) -> str:
    """The target, the load, and the server's command line."""
    load, keeps = plan.load, plan.keep_alive and not plan.first_byte
    in_parts = plan.is_target and plan.wait_s == plan.task_time_s / plan.subtasks < plan.task_time_s
    return search(
        plan,
        LOADS[load.kind](load),
        plan.tls and tls_text(plan.tls),
        load.is_steady and f"{'Connections are kept' if keeps else 'Each request opens a connection'}.",
        plan.processes > 1 and f"{plan.processes} client processes send them.",
        handler_text(plan),
        in_parts and f"({plan.subtasks} subtasks of a task of {duration(plan.task_time_s)}, awaited together.)",
        plan.mix_note,
        is_one_user(plan)
        and "All have the same path and the same cookie or token, so they read the same rows and caches."
        " Real users do not. --workload varies them.",
        plan.login and f"First of all comes the login, {plan.login.method} {plan.login.path}.",
        plan.warm_up and f"Before the run, {plural(warm_ups(plan), 'request')} (not counted) warm up the server.",
        lone_text(plan),
    )


def tls_text(tls: Tls) -> str:
    return "Over TLS." if tls.is_checked else "Over TLS; the server's certificate is not checked (--insecure)."


def lone_text(plan: Plan) -> str:
    if not plan.lone_requests:
        return ""
    often = "once" if plan.lone_requests < 2 else f"up to {MOST} times, until it takes the same time again"
    each = " of each kind" * bool(plan.kinds)
    others = len(plan.kinds) - MOST_TIMED
    if others > 0:
        each = f" of each of the first {MOST_TIMED} kinds"
    return said(
        f"Before the run, a single request{each} is timed {often} (not counted).",
        others > 0 and plan.wait_s is None and f"The {others} others are assumed to take as long as these on average.",
        plan.kinds
        and plan.any_status
        and plan.wait_s is None
        and "A kind that is answered with an error is assumed to take as long as the others on average.",
    )


def warm_ups(plan: Plan) -> int:
    """How many requests warm up the server: at least one of each kind that is timed."""
    return max(plan.warm_up, min(len(plan.kinds), MOST_TIMED) if plan.lone_requests > 1 else 0)


def is_one_user(plan: Plan) -> bool:
    """Whether every request is that of one user of a service that knows its users."""
    named = any(header.lower().startswith(("cookie:", "authorization:")) for header in plan.headers)
    return named and not plan.kinds and not plan.is_target


def what_is_predicted(plan: Plan, prediction: Prediction) -> str:
    """Slots, closed form, and the expected figures; or what would have to be known."""
    why = plan.launch.why_slots if plan.launch else "not known; the answers may show them"
    if plan.slots_known:
        slots = slots_text(plan.slots)
        if not plan.slots_stated:
            slots = f"{plural(plan.workers, 'worker')} x {slots_text(plan.slots_per_worker)} = {slots}"
        if plan.slots_stated or plan.listeners:
            why = "as stated" if plan.slots_stated else "as its command line says"
        why = f"{slots}: {why}"
    return (
        stacked(
            told("slots", f"{why}."),
            told(
                "prediction",
                prediction_text(plan, prediction),
                plan.wait_is_measured and "The wait is the time that a request by itself took.",
            ),
            what_is_expected(plan, prediction),
        ).rstrip()
        + "\n"
    )


AS_THE_FORM = 0.02  # of a figure: it is the one of the closed form


def prediction_text(plan: Plan, prediction: Prediction) -> str:
    """The closed form in a sentence, and where it does not hold."""
    each = ", ".join(f"{duration(at_s)} for {HANDLER_WORDS[one]}" for one, at_s in prediction.possibilities.items())
    if each:
        return f"The kind of handler is not known. The last answer comes after {each}."
    if plan.wait_s == 0:
        return "None: the handler waits for nothing, so CPU time decides, not slots."
    if not prediction.form or plan.slots is None:
        return "None. " + said(
            plan.slots is None and "It needs the number of slots (--slots).",
            plan.wait_s is None
            and "It needs the wait of a request: --wait, or a single request that takes 5 ms or more.",
        )
    return said(f"{prediction.form}, with {LETTERS[plan.load.kind]}.", conditions(plan, prediction, plan.slots))


def is_drawn(plan: Plan) -> bool:
    """Whether requests wait for different times, as far as that is known."""
    return plan.distribution not in ("constant", "mix") or bool(plan.kind_waits_s)


def unless(plan: Plan) -> str:
    """FastAPI serialises an answer in a slot of its own, but for a Response."""
    return " (unless its handler makes the response itself)" * bool(plan.launch and not plan.is_target)


def conditions(plan: Plan, prediction: Prediction, slots: float) -> str:
    """What the closed form means for each request, or why it is not all."""
    load, t = plan.load, duration(plan.busy_s)
    offered, longer_s = load.offered_load(slots, plan.busy_s) or 0.0, prediction.p99_if_longer_s
    by_kind = {
        f"CPU time decides here: {duration(plan.cpu_time_s)} per request.": held_for(plan, False) > plan.busy_s,
        f"But a request needs a slot {len(plan.passes)} times{unless(plan)}, each time behind all that wait by then.":
            plan.passes[-1] < max(plan.passes) and not (plan.launch and plan.launch.body_parts),
        "But a request gives its slot back after each part of its body, so that no slot is idle in the last round.":
            plan.launch and plan.launch.body_parts,
        "An answer leaves only when the event loop is free, so any answer may come as late as the last one.":
            plan.launch and plan.launch.handler == "blocking",
        "There is a slot for each request.":
            slots >= min(load.most_under_way, load.most_requests) and (offered or not load.is_steady),
        f"On average {per_cent(offered)} of the slots are busy, once requests are answered as fast as they come.":
            0 < offered <= 1,
        "More is sent than the slots allow: the queue grows until the end.": offered > 1,
        "It is not known how much of the wait is in a `def` dependency. That queues for a slot of its own, so that the"
        " first answers may come as late as the last.": len(plan.passes) > 1 and not load.is_steady,
        f"Counted from 0, request k starts after floor(k / {slots:g}) x {t} and is answered {t} later.":
            not load.is_steady and not is_drawn(plan),
    }  # fmt: skip
    first = first_true(by_kind)
    return said(
        first,
        is_drawn(plan)
        and "Here t is a mean: requests wait for different times, and the expected figures are those of these times.",
        first is None
        and is_far_from_form(plan, prediction, slots)
        and "This holds for a load that goes on, with so many users. This one does not for long, so that the expected"
        " figures differ.",
        longer_s and f"This is near the limit: with a 2 % longer wait the p99 is {duration(longer_s)}.",
        has_few_connections(plan)
        and f"The server serves at most {plan.most_connections:g} kept connections at a time; the others wait.",
    )


def has_few_connections(plan: Plan) -> bool:
    return plan.keep_alive and plan.most_connections < plan.load.most_under_way


def is_far_from_form(plan: Plan, prediction: Prediction, slots: float) -> bool:
    """Whether the figures of users are not those of the closed form: they are too few, or send for too short a time."""
    is_other = is_drawn(plan) or has_few_connections(plan)
    steady = None if is_other else plan.load.once_under_way(slots, held_for(plan))
    even = prediction.if_even or vars(prediction)
    expected = even["throughput_rps"], even["mean_s"]
    pairs = zip(steady or (), expected, strict=False)
    return any(value and abs(value / due - 1) > AS_THE_FORM for due, value in pairs)


def what_is_expected(plan: Plan, prediction: Prediction) -> str:
    """The figures, and the time that a slot is held where lone requests have shown it; ends with an empty line."""
    of, busy_s, held_s = prediction, plan.busy_s, plan.held_s or 0.0
    alone = (
        f"A request by itself takes {duration(busy_s + (held_s - busy_s) / held_share(plan))}; {duration(busy_s)} of"
        f" this in its handler. The prediction assumes that it holds its slot for {duration(held_s)}."
    )
    latency = (
        f"{requests_s(of.throughput_rps)}; latency mean {duration(of.mean_s)}, median {duration(of.median_s)}"
        f"{f', p95 {duration(of.p95_s)}' if of.p95_s else ''}{f', p99 {duration(of.p99_s)}' if of.p99_s else ''};"
    )
    last = of.is_known and f"the last answer after {duration(of.makespan_s)}."
    last = last and said(last, ranges_text(plan, of))
    return stacked(told("alone", held_s and alone), told("expected", of.mean_s and latency, last)) + "\n"


def ranges_text(plan: Plan, of: Prediction) -> str:
    """What the deal does to them."""
    deal = plan.deal
    if not deal or not of.makespan_range_s:
        return ""
    shares = " / ".join(f"{100 * share:.0f}" for share in mean_shares(deal.shares))
    name, figure = (
        ("p99", of.p99_range_s) if of.p99_range_s and plan.load.is_steady else ("last answer", of.makespan_range_s)
    )
    even = of.if_even.get("p99_s" if name == "p99" else "makespan_s")
    if held_again(plan):
        low, high = map(duration, figure)
        return f"With uneven shares the {name} is from {low} to {high}; with equal shares {duration(even)}."
    return (
        f"Each worker accepts by itself, and the kernel prefers some: in a run of a small app of ours ({deal.when})"
        f" the shares were {shares} %. With such shares the {name} is from {duration(figure[0])} to"
        f" {duration(figure[1])}; with equal ones it would be {duration(even)}."
    )


def held_again(plan: Plan) -> bool:
    """Whether the prediction has been shown already, before lone requests told more exactly how long a slot is held."""
    return bool(plan.held_s and plan.is_target)


NAMES_OPTIONS = 404, 405, 422  # what is said of them


def refused_text(
    plan: Plan, status: int, again: int, body: str, said_lines: Sequence[str], routes: Sequence[str]
) -> str:
    """Why a run does not start: a request by itself is answered with an error. again, body: asked once more."""
    hint = FAILURES[next(name for name in FAILURES if f"HTTP {status}".startswith(name))]
    if plan.kinds and status in NAMES_OPTIONS:  # that do not go with a file
        hint = f"Look at it in {plan.workload}."
    return said(
        f"{plan.method} {plan.path} is answered with HTTP {status}{f': {body}' if body and again >= 400 else ''}.",
        again < 400 and f"Asked once more, it is answered with {again}: the answers vary.",
        hint,
        routes and f"The app has {', '.join(dict.fromkeys(routes))}.",
        said_lines and f"The server said: {'; '.join(said_lines)}.",
        "To send anyway: --any-status.",
    )
