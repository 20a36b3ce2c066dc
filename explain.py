"""explain.py - one run, explained: its record, its prediction, and what may be said of it.

bench.py runs; here stands what is computed before a run (from settings alone) and
after it (from what was measured), and how a report says it. Nothing here starts,
sends, reads or writes anything, so that every sentence can be tried without a
server. Before: describe() and forecast_of(). After: summarise_log(), judge(),
limits_of(), audit(). The rest is the report.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import limits
import load
import serve
import slots
from load import Traffic, Warned, milliseconds, plural, seconds, section
from serve import LogLine
from slots import NO_LIMIT, Expected

TOLERANCE = 0.05  # of a prediction, beside the band
MOST_PREDICTED = 300_000  # requests that are predicted one by one: a second
LONE_REQUESTS = 3  # sent one after the other before a run; one alone where a request takes long
LONG_WAIT_S = 0.3
LEARNING_REQUESTS = 5  # the same where the wait is not known: up to half a second

# ---------------------------------------------------------------- records


@dataclass(frozen=True)
class Plan:
    """One run, before it: what to start, what to send, and how long a request waits."""

    target: str  # the name to show
    traffic: Traffic
    launch: serve.Launch | None = None  # None: it runs already
    task_time_s: float = 1.0
    subtasks: int = 2
    wait_s: float | None = None  # what one request waits: the task time, a subtask's share of it; None: not known
    wait_is_measured: bool = False  # by requests alone, before the run
    held_s: float = 0.0  # how long a request holds its slot, as those alone show it; not for bursts, nor at first
    stated_slots: int | None = None  # of all processes, by somebody who knows
    cpu_time_s: float = 0.0  # what it computes besides
    distribution: str = "constant"  # of the waits
    workload: str | None = None
    cpus: int = 1  # that the server may use
    client_on_server_cpus: bool = False  # and has to share with the client, as there are no others

    @property
    def slots_per_worker(self) -> float | None:
        if self.stated_slots:
            return self.stated_slots
        return self.launch.slots_per_worker if self.launch else None

    @property
    def workers(self) -> int:
        if self.stated_slots:  # are taken for one queue
            return 1
        return self.launch.workers if self.launch else 1

    @property
    def slots(self) -> float | None:
        """Of all processes together; None: not known."""
        each = self.slots_per_worker
        return None if each is None else each * self.workers

    @property
    def why_slots(self) -> str:
        if self.stated_slots:
            return "as you say (--slots)"
        return self.launch.why_slots if self.launch else "not known for a server that was not started here"


class RunPlan(load.Described):
    """What is known before the first request is sent: the plan and the prediction."""

    target: str
    server: str | None
    server_command: str
    handler: str | None
    workers: int
    threads: int
    slots_known: bool
    slots_per_worker: int | None  # null: no limit, or not known
    slots: int | None
    server_slots: int | None  # requests that can be in the handlers of one process; null: any number, or not known
    why_slots: str
    shared_queue: bool  # one queue for all processes
    notes: list[str]  # what overrules what in the server's settings
    task_time_s: float
    subtasks: int
    distribution: str
    cpu_time_s: float
    cpus: int
    client_on_server_cpus: bool
    all_cpus: int  # of the machine
    pool: int
    workload: str | None
    wait_s: float | None
    wait_is_measured: bool
    held_s: float | None  # how long a request holds its slot, as those alone show it; null: taken from the settings
    warm_up: int  # requests before the run, at once
    lone_requests: int  # and one after the other
    predicted_s: float | None  # how long everything should take; null: not known
    ceiling_rps: float | None  # what throughput cannot exceed: S / t
    prediction: Expected | None
    possibilities: dict[str, float]  # where the handler is not known: what it may be, and how long all would take then
    form: str  # the closed form with its numbers, or why there is no prediction


class LogSummary(TypedDict):
    """What only the server's side knows; null and empty without a log."""

    log_lines: int | None
    requests_of_workers: dict[str, int]
    split_predicted_s: float | None  # as predicted_s, given who took how many
    split_prediction: Expected | None  # the prediction once more, request by request, given who took which
    slots_seen: int | None  # the most that one worker had in its handlers at a time
    slots_held: int | None  # how many it had whenever a request began that had waited: its slots; null: nobody waited
    handler_s: float | None  # the time that all handlers together were busy or waiting


class Band(TypedDict):
    """What this machine adds to a prediction, measured: a figure fits within 5 % and this."""

    overhead_s: float  # of a lone request, or of the fastest: its latency less the wait
    timer_s: float  # how late a sleeping process wakes
    cpu_s: float  # CPU seconds a request, of server and client, and longer if others took the CPUs meanwhile
    cpus: float  # to share them, as far as the split over the processes lets it
    makespan_s: float  # what all that can add to the time until the last answer
    latency_s: float  # and to the latency of one request


class Limit(TypedDict):
    resource: str  # slots, cpu, pool, backlog, client, arrivals or none
    busy: float  # the share of the time
    ceiling_rps: float | None  # requests/s at which it would be full
    evidence: str


class RunColumns(load.Columns, total=False):
    worker: Sequence[str | None]
    handler_started_s: Sequence[float | None]
    predicted_answered_s: Sequence[float | None]


class BooksSeen(TypedDict, total=False):
    """What Postgres counted in the run, or why it cannot say."""

    rows: int
    statements: int | None
    connections: int
    version: str
    error: str


class Finding(RunPlan, load.Summary, LogSummary):
    """All that every run has; all times in seconds, those of events since the run began."""

    when: str
    access_log: str | None
    server_log: str | None
    server_said: str | None  # the line of the server's log that tells most, where requests failed
    server_ended: bool  # by itself, in the run
    lone_s: float | None  # the least latency of a request alone, before the run
    other_cpu_s: float | None  # CPU seconds that neither server nor client used: of other programs
    band: Band | None
    limits: list[Limit]  # most binding first
    estimate: limits.Estimate | None  # the slots from the answers alone, of a burst or a closed loop
    explained_by: str | None  # prediction, split, cpu, a warning's id, or nothing; null: nothing was predicted
    warnings: list[Warned]


class Run(Finding, total=False):
    """One run, as JSON has it."""

    database: BooksSeen
    exchanges: RunColumns  # every request's raw times; of a burst, and where JSON is asked for
    answered_s: list[float]  # what sweep.py keeps of them: the answers' times, sorted


# ---------------------------------------------------------------- before the run


def forecast_of(plan: Plan, process_of: Sequence[int] = ()) -> slots.Forecast | None:
    """Start and answer of every request; None where slots or wait are not known, or there are too many to predict.

    process_of: which process takes request i, where that is known afterwards; else each the next one in turn.
    """
    pace, launch, each, wait_s = plan.traffic.pace, plan.launch, plan.slots_per_worker, plan.wait_s
    if each is None or not wait_s:
        return None
    held_s = held_for(plan, each, wait_s)
    most = pace.due_in_all if pace.rate else pace.requests
    if min(most, pace.time_limit_s / held_s * min(each * plan.workers, pace.most_under_way)) > MOST_PREDICTED:
        return None
    shared = bool(launch and launch.shared_queue)
    passes = passes_of(launch) if launch else (1.0,)
    service = slots.Service((each,) * plan.workers, shared, passes)
    held: slots.Wait = held_s
    if plan.distribution != "constant":
        held = lambda i: slots.drawn_wait_s(wait_s, plan.distribution, i) + held_s - wait_s  # noqa: E731
    if pace.mode == "burst" or pace.rate:
        due_s = [pace.due_s(i) for i in range(pace.due_in_all)] if pace.rate else [0.0] * int(pace.requests)
        if process_of:  # the last may have failed before a process took them
            process_of = [*process_of, *(i % plan.workers for i in range(len(process_of), len(due_s)))]
        return slots.predict(due_s, service, held, process_of)
    users: int | slots.Stages = pace.stages or int(min(pace.concurrency, served_connections(plan)))
    return slots.predict_users(
        users, service, held, requests=pace.requests, time_limit_s=pace.time_limit_s, think_s=pace.think_s,
        process_of=process_of,
    )  # fmt: skip


def passes_of(launch: serve.Launch) -> tuple[float, ...]:
    return launch.passes or slots.PASSES.get(launch.handler or "", (1.0,))


def held_for(plan: Plan, each: float, wait_s: float) -> float:
    """How long a request holds its slot: t + s, or as measured; but at least its share of the CPUs, S s / P.

    That is the second resource in one number: X = S / max(t + s, S s / P) = min(S / (t + s), P / s).
    """
    at_once = min(each * plan.workers, plan.traffic.pace.most_under_way)
    processors = min(plan.workers, plan.cpus)  # a Python process computes on one at a time
    share_s = at_once * plan.cpu_time_s / processors if plan.cpu_time_s else 0.0
    return max(wait_s + plan.cpu_time_s, plan.held_s, share_s)


def in_form_s(plan: Plan, each: float, wait_s: float) -> float:
    """The t of the closed forms: as held_for(), from the settings alone."""
    return held_for(dataclasses.replace(plan, held_s=0.0), each, wait_s)


def with_overhead(plan: Plan, lone_s: Sequence[float]) -> Plan:
    """A slot that is held a millisecond longer is a longer queue for all who come later: the plan with the time it is.

    That is between t + s, which the handler takes, and the latency of a request alone, of which the connection and
    the parsing need no slot: the middle, which is at most half of that overhead off. Nothing where a request alone
    takes so long that its wait must be another one.
    """
    alone_s, wait_s = min(lone_s, default=0.0), plan.wait_s
    if not wait_s or plan.distribution != "constant":
        return plan
    least_s = wait_s + plan.cpu_time_s
    if not least_s < alone_s <= least_s + most_overhead_s(wait_s):
        return plan
    return dataclasses.replace(plan, held_s=round((least_s + alone_s) / 2, 6))


def served_connections(plan: Plan) -> float:
    """How many kept connections a server serves; the others wait until one of them closes."""
    limit = plan.launch.open_connections if plan.launch else None
    return limit if limit and plan.traffic.keep_alive else math.inf


def describe(plan: Plan) -> RunPlan:
    """The plan and its prediction, ready for JSON."""
    pace, wait_s, launch = plan.traffic.pace, plan.wait_s, plan.launch
    each, total = plan.slots_per_worker, plan.slots
    predicted_s = ceiling_rps = None
    if total is not None and wait_s:
        busy, held_s = min(total, pace.most_under_way), in_form_s(plan, each or 1, wait_s)  # slots that this can fill
        if pace.mode in ("burst", "closed") and pace.requests < math.inf:
            predicted_s = slots.burst_s(int(pace.requests), busy if busy < pace.requests else total, held_s)
        if busy < math.inf:
            ceiling_rps = busy / held_s
    forecast, spread_s = forecast_of(plan), None
    if pace.mode == "closed" and total and wait_s:
        spread_s = slots.closed_loop(int(pace.concurrency), total, wait_s + plan.cpu_time_s, pace.think_s)[1]
    return {
        **load.describe(plan.traffic),
        "target": plan.target,
        "server": launch.server if launch else None,
        "server_command": " ".join(launch.command("PORT", launch.app)) if launch else "",
        "handler": launch.handler if launch else None,
        "workers": plan.workers,
        "threads": launch.threads if launch else 1,
        "slots_known": each is not None,
        "slots_per_worker": load.finite(each),
        "slots": load.finite(total),
        "server_slots": load.finite(launch.server_slots if launch else None),
        "why_slots": plan.why_slots,
        "shared_queue": bool(launch and launch.shared_queue),
        "notes": list(launch.notes) if launch else [],
        "task_time_s": plan.task_time_s,
        "subtasks": plan.subtasks,
        "distribution": plan.distribution,
        "cpu_time_s": plan.cpu_time_s,
        "cpus": plan.cpus,
        "client_on_server_cpus": plan.client_on_server_cpus,
        "all_cpus": load.about_machine()["cpus"],
        "pool": launch.pool if launch else 0,
        "workload": plan.workload,
        "wait_s": wait_s,
        "wait_is_measured": plan.wait_is_measured,
        "held_s": plan.held_s or None,
        "warm_up": plan.traffic.warm_up,
        "lone_requests": lone_requests(plan),
        "predicted_s": predicted_s,
        "ceiling_rps": ceiling_rps,
        "prediction": slots.expected(forecast, pace.time_limit_s, spread_s) if forecast else None,
        "possibilities": possibilities(plan),
        "form": form_of(plan),
    }


HANDLERS_MAY_BE = {  # of an ASGI app that does not say
    "a `def` handler": "def",
    "an `async def` that awaits": "async",
    "one that blocks": "blocking",
}


def possibilities(plan: Plan) -> dict[str, float]:
    """How long everything would take, for each kind of handler that it can be; empty where that is known."""
    launch, pace = plan.launch, plan.traffic.pace
    if not launch or plan.slots is not None or not plan.wait_s or pace.mode not in ("burst", "closed"):
        return {}
    found = {}
    for words, handler in HANDLERS_MAY_BE.items():
        if launch.handlers and handler not in launch.handlers:
            continue
        forecast = forecast_of(dataclasses.replace(plan, launch=dataclasses.replace(launch, handler=handler)))
        if forecast and forecast.answered_s:
            found[words] = round(max(forecast.answered_s), 6)
    return found


def lone_requests(plan: Plan) -> int:
    """How many requests are sent alone, one after the other, to learn what a request costs here besides its wait."""
    if plan.wait_s is None and not (plan.launch and plan.launch.is_target):
        return LEARNING_REQUESTS
    if not plan.launch or not plan.wait_s:
        return 0
    return LONE_REQUESTS if plan.wait_s + plan.cpu_time_s <= LONG_WAIT_S else 1


def form_of(plan: Plan) -> str:
    """The closed form with its numbers, or why there is no prediction."""
    pace, total, wait_s = plan.traffic.pace, plan.slots, plan.wait_s
    if wait_s == 0:
        return "none: the handler waits for nothing, so that CPU time decides, not slots."
    if may_be := possibilities(plan):
        each = ", ".join(f"{words}: {time_of(found_s)}" for words, found_s in may_be.items())
        return f"what the handler is decides; the run will tell. {each[0].upper()}{each[1:]}."
    if total is None or not wait_s:
        return "none: it needs the slots and the wait of a request."
    held_s = in_form_s(plan, plan.slots_per_worker or 1, wait_s)
    if pace.mode == "burst":
        text = slots.burst_form(int(pace.requests), total, held_s)
    elif pace.rate:
        text = slots.open_form(pace.rate, pace.due_in_all, total, held_s, bool(pace.schedule))
    elif pace.stages:
        most = max(users for _, users in pace.stages)
        text = f"at {most} users: {slots.closed_form(most, total, held_s, pace.think_s)}"
    else:
        text = slots.closed_form(int(pace.concurrency), total, held_s, pace.think_s)
    if held_s > wait_s + plan.cpu_time_s:
        text += f" CPU decides here: {seconds(plan.cpu_time_s)} of it a request."
    if (served := served_connections(plan)) < pace.most_under_way:
        text += (
            f" But the server serves at most {served:g} kept connections at a time (its --connection-limit): the"
            " others wait until one of them closes."
        )
    if plan.launch and plan.launch.handler == "blocking":
        text += " But an answer leaves only when the event loop is free: any may come as late as the last."
    if plan.launch and passes_of(plan.launch)[-1] < max(passes_of(plan.launch)):
        text += " But a request passes twice, in one queue: nobody is answered before all have run."
    return text


def predicted_answers(plan: Plan, process_of: Sequence[int]) -> list[float | None]:
    """When each request should have been answered, given who took which where the log tells it."""
    several = plan.workers > 1 and plan.launch and not plan.launch.shared_queue
    forecast = forecast_of(plan, process_of if several else ())
    return [] if forecast is None else list(forecast.answered_s)


def unlimited(number: int | None) -> float:
    return NO_LIMIT if number is None else number


# ---------------------------------------------------------------- after the run: log and batches


def summarise_log(
    plan: Plan, run: RunPlan, log: serve.AccessLog | None, sent_s: Sequence[float]
) -> tuple[LogSummary, list[int]]:
    """What the log tells; and which process took each request, in the order of sending."""
    if log is None:
        return {"log_lines": None, "requests_of_workers": {}, "split_predicted_s": None, "split_prediction": None,
                "slots_seen": None, "slots_held": None, "handler_s": None}, []  # fmt: skip
    workers, counts = serve.name_workers(log), Counter(line.pid for line in log.lines)
    number_of = {pid: number for number, pid in enumerate(workers)}
    by_request = {int(line.request): number_of[line.pid] for line in log.lines}
    process_of = [by_request.get(i, i % run["workers"]) for i in range(max(by_request, default=-1) + 1)]
    split_s, split_prediction = run["predicted_s"], run["prediction"]
    is_known = len(by_request) >= 0.95 * len(sent_s)  # the others failed before a process took them
    if run["predicted_s"] is not None and run["wait_s"] and is_known:
        each = unlimited(run["slots_per_worker"])
        split_s = slots.split_burst_s(list(counts.values()), each, run["wait_s"] + run["cpu_time_s"])
        if run["mode"] != "burst":
            split_s = run["predicted_s"]
    several = run["workers"] > 1 and not run["shared_queue"]
    if run["prediction"] and several and is_known and len(workers) <= run["workers"]:
        forecast = forecast_of(plan, process_of)
        if forecast:
            spread_s = run["prediction"]["spread_s"]
            split_prediction = slots.expected(forecast, run["time_limit_s"] or math.inf, spread_s)
            split_s = split_prediction["makespan_s"] if run["mode"] in ("burst", "closed") else split_s
    return {
        "log_lines": len(log.lines),
        "requests_of_workers": {worker: counts[pid] for pid, worker in workers.items()},
        "split_predicted_s": split_s,
        "split_prediction": split_prediction,
        "slots_seen": slots_seen(log.lines),
        "slots_held": slots_held(log.lines, sent_s),
        "handler_s": sum(line.duration_s for line in log.lines),
    }, process_of  # fmt: skip


def slots_seen(lines: Sequence[LogLine]) -> int | None:
    """The most requests that one worker had in its handlers at the same moment; None without any.

    Counted at the middle of each request, where the few milliseconds in which one ends and the next begins do not
    count both.
    """
    most = 0
    under_way: Counter[int] = Counter()
    events = []
    for line in lines:
        events.append((line.started_s, 0, line.pid))
        events.append((line.started_s + line.duration_s / 2, 1, line.pid))
        events.append((line.started_s + line.duration_s, 2, line.pid))
    for _, kind, pid in sorted(events):
        under_way[pid] += (1, 0, -1)[kind]
        most = max(most, under_way[pid] if kind == 1 else 0)
    return most or None


def columns_of(
    measured: load.Measured, log: serve.AccessLog | None, predicted_answered_s: Sequence[float | None]
) -> RunColumns:
    workers = serve.name_workers(log) if log else {}
    by_request = {int(line.request): line for line in log.lines} if log else {}
    sent = len(measured.exchanges.status)
    logged = [by_request.get(i) for i in range(sent)]
    predicted = [round(at, 6) if at is not None else None for at in predicted_answered_s[:sent]]
    return {
        **load.columns_of(measured),
        "worker": [workers[line.pid] if line else None for line in logged],
        "handler_started_s": [round(line.started_s - measured.begun_s, 6) if line else None for line in logged],
        "predicted_answered_s": [*predicted, *[None] * (sent - len(predicted))],
    }


def slots_held(lines: Sequence[LogLine], sent_s: Sequence[float]) -> int | None:
    """How many requests a worker had in its handlers whenever one began that had waited; None if that varies.

    sent_s: when each request left, on the clock of the log. A request that waited for a slot begins as another one
    ends, so that all slots are taken; one that waited for CPU time begins at any number of others.
    """
    starts: dict[int, list[float]] = {}
    ends: dict[int, list[float]] = {}
    for line in lines:
        starts.setdefault(line.pid, []).append(line.started_s)
        ends.setdefault(line.pid, []).append(line.started_s + line.duration_s)
    for times in [*starts.values(), *ends.values()]:
        times.sort()
    held = Counter(
        bisect.bisect_right(starts[line.pid], line.started_s) - bisect.bisect_right(ends[line.pid], line.started_s)
        for line in lines
        if int(line.request) < len(sent_s) and line.started_s - sent_s[int(line.request)] > line.duration_s / 2
    )
    ((most, count),) = held.most_common(1) or [(0, 0)]
    return most if count >= 3 and count >= 0.8 * sum(held.values()) else None


class Batch(NamedTuple):
    """Requests answered together; times in seconds since the burst began; NaN: not known."""

    requests: list[int]
    started_s: float
    answered_s: float
    predicted_s: float


def batches(run: Run) -> list[Batch]:
    """Group a burst's answers: a gap of a quarter of the wait (or of the fastest answer) begins a new batch."""
    columns = run["exchanges"]
    answered = sorted(
        (at, i)
        for i, (at, error) in enumerate(zip(columns["answered_s"], columns["error"], strict=True))
        if at is not None and not error
    )
    gap_s = (run["wait_s"] or (answered[0][0] if answered else 0.0)) / 4
    groups: list[list[tuple[float, int]]] = []
    for at, i in answered:
        if not groups or at - groups[-1][-1][0] > gap_s:
            groups.append([])
        groups[-1].append((at, i))
    predicted = [math.nan] * len(answered)
    if run["predicted_s"] is not None and run["wait_s"]:
        predicted = [(i // unlimited(run["slots"]) + 1) * run["wait_s"] for i in range(len(answered))]
    found, position = [], 0
    for group in groups:
        position += len(group)
        started = [columns["handler_started_s"][i] for _, i in group]
        first_s = min((s for s in started if s is not None), default=math.nan)
        found.append(Batch(sorted(i for _, i in group), first_s, group[-1][0], predicted[position - 1]))
    return found


# ---------------------------------------------------------------- after the run: does it fit, and what limited it


def band_of(run: Finding, timer_s: float) -> Band | None:
    """What this machine adds to a prediction: the overhead of each round, CPU time, the timer."""
    wait_s, answered = run["wait_s"], run["answered"]
    if not wait_s or not answered or not run["latency_s"]:
        return None
    alone_s = run["latency_s"]["min"] if run["lone_s"] is None else min(run["lone_s"], run["latency_s"]["min"])
    least_s = wait_s + run["cpu_time_s"] if run["distribution"] == "constant" else alone_s
    overhead_s = min(max(0.0, alone_s - least_s), most_overhead_s(wait_s))
    most = max(run["requests_of_workers"].values(), default=0)  # of one process, which computes on one CPU at a time
    processors = max(1.0, min(run["workers"], run["cpus"], answered / most if most else math.inf))
    cpu_all_s = ((run["server_cpu_s"] or 0.0) / processors + run["client_cpu_s"]) / (1 - min(0.5, taken_by_others(run)))
    cpu_s = cpu_all_s / answered
    at_once = min(unlimited(run["slots"]), run["concurrency"] or run["sent"], run["sent"])
    due_s = (run["prediction"] or {"mean_s": None})["mean_s"] or wait_s
    in_a_row = max(1.0, due_s / (wait_s + run["cpu_time_s"]))  # rounds of an average request
    count = slots.rounds(run["sent"], unlimited(run["slots"]))
    return {
        "overhead_s": round(overhead_s, 6),
        "timer_s": round(timer_s, 6),
        "cpu_s": round(cpu_s, 6),
        "cpus": round(processors, 2),
        "makespan_s": round(timer_s + count * overhead_s + cpu_all_s, 6),
        "latency_s": round(timer_s + in_a_row * overhead_s + at_once * cpu_s, 6),
    }


def most_overhead_s(wait_s: float) -> float:
    """What this machine may add to a wait; more is a longer wait, not an overhead."""
    return 0.2 * wait_s + 0.005


def taken_by_others(run: Finding) -> float:
    """The share of all CPUs that other programs used during the run; 0 where nobody can tell."""
    return (run["other_cpu_s"] or 0.0) / (run["all_cpus"] * run["measured_s"] or math.inf)


class Compared(NamedTuple):
    """One figure of a run beside its prediction; it fits between least and most."""

    name: str
    measured: float
    predicted: float
    least: float
    most: float

    @property
    def fits(self) -> bool:
        return self.least <= self.measured <= self.most


def compared(run: Finding, prediction: Expected, band: Band, with_cpu: bool) -> list[Compared]:
    """The figures that a load is judged by: a burst by its last answer, users by throughput, mean and p95, a schedule
    by mean and p99. with_cpu: the band with the CPU time in it, or without."""
    latency = run["latency_s"]
    assert latency
    cpu_s = 0.0 if with_cpu else band["cpu_s"]
    last_s = band["makespan_s"] - cpu_s * run["answered"]
    at_once = min(unlimited(run["slots"]), run["concurrency"] or run["sent"], run["sent"])
    more_s = max(0.0, band["latency_s"] - cpu_s * at_once)

    def figure(name: str, measured: float, predicted: float | None, room: float) -> list[Compared]:
        if predicted is None:
            return []
        slack = TOLERANCE * predicted
        least = predicted - slack - band["timer_s"]  # no cost makes anything faster
        return [Compared(name, measured, predicted, least, predicted + slack + room)]

    if run["mode"] == "burst":
        return figure("last answer", run["measured_s"], prediction["makespan_s"], last_s)
    found = figure("mean", latency["mean"], prediction["mean_s"], more_s)
    if run["mode"] != "open" and prediction["throughput_rps"] and prediction["mean_s"]:
        rps = prediction["throughput_rps"]
        slower_rps = rps * (1 - TOLERANCE) * prediction["mean_s"] / (prediction["mean_s"] + more_s)
        found.append(Compared("requests/s", run["throughput_rps"], rps, slower_rps, rps * (1 + TOLERANCE)))
    spread_s, in_step_s = prediction["spread_s"], prediction["p95_s"]
    if run["mode"] == "closed" and latency["p95"] and spread_s and in_step_s:  # users in step, or phases spread
        low_s, high_s = sorted((spread_s * (1 - TOLERANCE), in_step_s * (1 + 2 * TOLERANCE)))
        found.append(Compared("p95", latency["p95"], in_step_s, low_s - more_s, high_s + more_s))
    if run["mode"] == "open" and latency["p99"]:
        found += figure("p99", latency["p99"], prediction["p99_s"], more_s + 0.1 * (prediction["p99_s"] or 0.0))
    return found


def judge(run: Finding) -> None:
    """Fill in what explains the run, what limited it and the warnings, given its figures and its estimate."""
    run["explained_by"] = explained_by(run)
    run["limits"] = [] if run["failed"] else limits_of(run)  # of failures the rates say nothing
    run["warnings"] = audit(run)


def explained_by(run: Finding) -> str | None:
    """What the measured figures agree with: the prediction; the same given the split; one of them with the CPU time
    that was used; else a warning that names a reason; else nothing."""
    band, prediction = run["band"], run["prediction"]
    if not prediction or not band or run["failed"] or run["stopped"] or run["server_ended"]:
        return None
    if slots_of_log(run):
        return "other-slots"
    tries = {"prediction": prediction, "split": run["split_prediction"] or prediction}
    for with_cpu in (False, True):
        for name, figures in tries.items():
            if all(figure.fits for figure in compared(run, figures, band, with_cpu)):
                return "cpu" if with_cpu and figures == prediction else name
    if cpu_busy(run) >= 0.8:
        return "cpu"
    if taken_by_others(run) > 0.3:
        return "busy-machine"
    if slots_of_answers(run):
        return "other-slots"
    reasons = ("backlog-overflow", "delayed-ack", "client-limit", "late-sends")
    named = next((warned["id"] for warned in load.audit(run) if warned["id"] in reasons), None)
    waits_longer = run["lone_s"] and run["wait_s"] and run["lone_s"] > 1.1 * run["wait_s"] + run["cpu_time_s"] + 0.02
    return named or ("longer-wait" if waits_longer else "nothing")


def contradiction(run: Finding) -> tuple[int, str, str]:
    return slots_of_log(run) or slots_of_answers(run) or (0, "", "")


def slots_of_log(run: Finding) -> tuple[int, str, str] | None:
    """Where the log shows other slots than the prediction has: how many, what shows it, and what may be said; None: no
    such thing.

    What the log counts is who is in a handler. A limit inside of it does not show there, so that more of them than
    slots are no contradiction where slots were stated, or are those of a pool.
    """
    each, held, seen = unlimited(run["server_slots"]), run["slots_held"], run["slots_seen"] or 0
    one_process = len(run["requests_of_workers"]) == 1
    behind = unlimited(run["slots_per_worker"] if one_process else None)  # a pool's, or stated, which is for all
    is_behind = each == math.inf and run["slots_per_worker"] is not None
    if held is not None and (one_process and held < behind if is_behind else held != each):
        evidence = f"a worker had {plural(held, 'request')} in its handlers whenever one began that had waited"
        return held, evidence, f"its slots are {held}, whatever the settings say"
    if seen > each:
        evidence = f"a worker had {plural(seen, 'request')} in its handlers at a time"
        return seen, evidence, f"its slots are {seen} or more, or there is no limit"
    most = max(run["requests_of_workers"].values(), default=0)
    due = min(each, behind)
    cpu_s = (run["server_cpu_s"] or math.inf) / max(1, run["answered"])
    all_could_begin = due < math.inf and due * cpu_s < 0.5 * (run["wait_s"] or 0.0)  # before the first had ended
    if run["mode"] == "burst" and 0 < seen < due <= most and all_could_begin:
        evidence = f"a worker never had more than {plural(seen, 'request')} in its handlers, of {most} sent to it"
        return seen, evidence, f"its slots are {seen}, whatever the settings say"
    return None


def slots_of_answers(run: Finding) -> tuple[int, str, str] | None:
    """As slots_of_log(), of all processes together, where the answers contradict the settings: they show a limit inside
    the handlers too, of which the settings know nothing."""
    found, total = run["estimate"], unlimited(run["slots"])
    if not found or not found["slots"] or not found["high"] or found["low"] <= total <= found["high"]:
        return None
    if run["workers"] > 1 and not is_certain(found):  # uneven shares look like fewer slots
        return None
    many, each = how_many(found), in_each(found)
    evidence, likely = f"the answers came {many} at a time{each},", f"its slots are {many}{each}"
    if inside := held_inside(run, found):
        evidence += f" while {inside}"
        likely = f"a limit inside the handler, of {many}{each}"
    return found["slots"], evidence.removesuffix(","), likely


def held_inside(run: Finding, found: limits.Estimate) -> str:
    """Where more requests were in the handlers than were worked on, in words; else empty."""
    each = found["high"] and (found["high"] if run["workers"] == 1 else found["each"])
    if not each or (run["slots_seen"] or 0) <= each:
        return ""
    return f"a worker had up to {plural(run['slots_seen'] or 0, 'request')} in its handlers"


MOST_ESTIMATED = 20_000  # answers that are looked at: some seconds


def estimate_of(
    run: Finding, exchanges: load.Exchanges, begun_s: float, lone_s: Sequence[float], installed: frozenset[str] | None,
    python: tuple[int, int], holds: bool = False, threads: int = slots.ANYIO_THREADS, process_of: Sequence[int] = (),
) -> limits.Estimate | None:  # fmt: skip
    """The slots from the answers alone, and what may be behind them; None for other loads than bursts and users.

    process_of: which process took each request, as the log tells it: each may show its slots where all together do not.
    """
    count = run["sent"] if run["mode"] == "burst" else run["concurrency"]
    if run["mode"] not in ("burst", "closed") or not count or run["sent"] > MOST_ESTIMATED or run["stopped"]:
        return None
    good = [i for i in range(run["sent"]) if load.is_success(exchanges.status[i], exchanges.error[i])]
    failed_after_s = sorted(
        exchanges.answered_s[i] - exchanges.started_s[i] for i in set(range(run["sent"])) - set(good)
    )
    found = limits.estimate(
        "burst" if run["mode"] == "burst" else "closed", count,
        [exchanges.started_s[i] - begun_s for i in good], [exchanges.answered_s[i] - begun_s for i in good],
        lone_s=lone_s, failed_after_s=failed_after_s,
        processes=run["workers"] if run["server"] else None,
        cpu_s=None if run["server_cpu_s"] is None else run["server_cpu_s"] / max(1, run["answered"]),
    )  # fmt: skip
    if not failed_after_s and run["mode"] == "burst" and not is_certain(found):
        own = [[exchanges.answered_s[i] - begun_s for i in range(len(process_of)) if process_of[i] == process]
               for process in range(run["workers"])]  # fmt: skip
        found = limits.of_each_process(own, found, lone_s) or found
    if (others := taken_by_others(run)) > 0.3:
        why = f"other programs used {others:.0%} of the CPUs: these times say little"
        found = {**found, "low": 1, "high": None, "evidence": [*found["evidence"], why]}
    if inside := held_inside(run, found):
        found = {**found, "evidence": [*found["evidence"], f"meanwhile {inside}: the limit is inside the handler"]}
    found = with_suspects(found, run, installed, python, failed_after_s)
    if stall := stall_of(run, exchanges, begun_s):
        evidence, suspect = two_pools(run, stall, threads, holds)
        found = {**found, "evidence": [evidence, *found["evidence"]], "suspects": [suspect]}
    return found


POOL_SAYS = re.compile(r"QueuePool limit of size (\d+) overflow (\d+) reached.*timeout ([\d.]+)")


def stall_of(run: Finding, exchanges: load.Exchanges, begun_s: float) -> tuple[float, float] | None:
    """From when to when nothing was answered although requests waited, until some of them failed; None: no such time.

    A pool that serves others while some wait in vain has answers all the time; two pools that wait for each other
    have none, until a time-out frees one.
    """
    if run["mode"] != "burst" or not run["failed"] or not run["lone_s"]:
        return None
    ends = sorted((at - begun_s, status) for at, status in zip(exchanges.answered_s, exchanges.status, strict=True))
    times = [0.0, *(at for at, _ in ends)]
    gap_s, began_s = max((after - before, before) for before, after in itertools.pairwise(times))
    until_s = began_s + gap_s
    freed = any(until_s - 0.001 <= at <= until_s * 1.1 and not 200 <= status < 300 for at, status in ends)
    return (began_s, until_s) if freed and gap_s > max(10 * run["lone_s"], 0.5) else None


def two_pools(run: Finding, stall: tuple[float, float], threads: int, holds: bool) -> tuple[str, limits.Suspect]:
    """The stall in a sentence, and what it looks like: two pools whose holders wait for each other."""
    says = POOL_SAYS.search(run["server_said"] or "")
    length_s = stall[1] - stall[0]
    evidence = f"nothing was answered from {time_of(stall[0])} to {time_of(stall[1])}, then requests failed: a stall"
    effect = "with either cure there is no stall: then the pool alone decides"
    threshold = "it begins at threads + connections at once"
    if says:
        connections = int(says[1]) + int(says[2])
        alone_s = math.ceil(run["sent"] / connections) * (run["lone_s"] or 0.0)
        threshold = f"it begins at {threads} threads + {connections} connections = {threads + connections} at once"
        effect = (
            f"with either cure the {run['sent']} take ceil({run['sent']} / {connections}) rounds, {time_of(alone_s)}"
        )
    likely = "the app says so: " if holds else ""
    what = (
        f"two pools, one stall: {likely}requests hold a connection and wait for a thread, others hold a thread and wait"
        f" for a connection; {threshold}"
    )
    return evidence, {
        "what": what,
        "setting": "open the session inside the handler (`with`), or drop the response model",
        "default": f"pool time-out {time_of(float(says[3]))}" if says else f"a time-out of {time_of(length_s)}",
        "source": "fastapi/routing.py serialize_response(), sqlalchemy/pool/impl.py:75",
        "predicted_effect": effect,
        "how_to_tell": "one request less than the threshold, and nothing stalls",
    }


def with_suspects(
    found: limits.Estimate, run: Finding, installed: frozenset[str] | None, python: tuple[int, int],
    failed_after_s: Sequence[float] = (),
) -> limits.Estimate:  # fmt: skip
    """The estimate with the limits that may be behind it; none where other programs have blurred the times."""
    if taken_by_others(run) > 0.3:
        return {**found, "suspects": []}
    server = {"gunicorn-uvicorn": "uvicorn", "gunicorn-asgi": "uvicorn"}.get(run["server"] or "", run["server"] or "")
    handler = (run["handler"] or "").partition(" ")[0]
    if run["possibilities"] and "a `def` handler" not in run["possibilities"]:
        handler = "async"  # it may block as well, and would then be one at a time
    likely = limits.suspects(
        found, run["sent"], run["lone_s"] or run["wait_s"] or 0.0, run["all_cpus"], python,
        installed if run["server"] else None, server, handler, failed_after_s,
        settings_allow=unlimited(run["slots"]) if run["slots_known"] else math.inf,
    )  # fmt: skip
    return {**found, "suspects": likely}


def is_certain(found: limits.Estimate | None) -> bool:
    return bool(found and found["slots"] and found["low"] == found["slots"] == found["high"])


def cpu_busy(run: Finding) -> float:
    """The share of the CPU time that the server's processes could have, less what other programs took, and used."""
    processors = max(1, min(run["workers"], run["cpus"])) * (1 - min(0.8, taken_by_others(run)))
    return (run["server_cpu_s"] or 0.0) / (processors * run["measured_s"] or math.nan)


def limits_of(run: Finding) -> list[Limit]:
    """What limited the run, and what would be next; each with its evidence. Most binding first."""
    time_s, answered = run["measured_s"] or math.nan, run["answered"]
    total, wait_s, binding = run["slots"], run["wait_s"], []
    found: list[Limit] = []

    def add(resource: str, busy: float, ceiling_rps: float | None, evidence: str, binds: bool) -> None:
        found.append({"resource": resource, "busy": round(min(1.0, busy), 3), "evidence": evidence,
                      "ceiling_rps": None if ceiling_rps is None else round(ceiling_rps, 1)})  # fmt: skip
        if binds:
            binding.append(resource)

    if any(warned["id"] == "backlog-overflow" for warned in load.audit(run)):
        late = max(run["slow_connects"], run["slow_waits"])
        add("backlog", 1.0, None, f"{plural(late, 'connection')} waited a second or more for TCP to try again", True)
    by_answers = run["explained_by"] == "other-slots" and not slots_of_log(run)
    if (by_answers or not run["slots_known"]) and wait_s and run["estimate"]:
        if is_certain(run["estimate"]) and (shown := run["estimate"]["slots"]):
            evidence = f"{shown} / {time_of(wait_s)}, as the answers show"
            most = max(run["requests_of_workers"].values(), default=answered)
            busy = max(answered / shown, most / (run["estimate"]["each"] or shown)) * wait_s / time_s
            add("slots", busy, shown / wait_s, evidence, True)
    elif total and wait_s and answered:
        pool = bool(run["pool"] and run["pool"] == run["slots_per_worker"] and run["pool"] != run["threads"])
        held_s = answered * (wait_s + run["cpu_time_s"]) if pool or run["handler_s"] is None else run["handler_s"]
        busy = held_s / (total * time_s)
        shares = list(run["requests_of_workers"].values()) if not run["shared_queue"] else []
        waited = run["sent"] > total or max(shares, default=0) > unlimited(run["slots_per_worker"])
        each_s = wait_s + run["cpu_time_s"]
        evidence = f"{total} / {time_of(each_s)}"
        binds = waited if run["mode"] == "burst" else busy >= 0.85 or run["mean_in_flight"] > 1.05 * total
        add("pool" if pool else "slots", busy, total / each_s, evidence, binds)
    if run["server_cpu_s"] is not None and answered:
        each_s = run["server_cpu_s"] / answered
        processors = max(1, min(run["workers"], run["cpus"]))
        evidence = f"{each_s * 1000:.3g} ms a request on {plural(processors, 'CPU')}"
        add("cpu", cpu_busy(run), processors / each_s if each_s else None, evidence,
            cpu_busy(run) >= 0.8 or run["explained_by"] == "cpu")  # fmt: skip
    if answered:
        busy, ceiling_rps = run["client_cpu_s"] / time_s, run["sent"] / (run["client_cpu_s"] or math.inf) or None
        evidence, full = f"{busy:.0%} of a CPU", 0.85 * (1 - taken_by_others(run))
        if run["client_on_server_cpus"] and busy + (run["server_cpu_s"] or 0.0) / time_s > full:
            busy, ceiling_rps, evidence = 1.0, None, f"{evidence}, which it shares with the server"
        add("client", busy, ceiling_rps, evidence, busy >= 0.8)
    if not binding:
        found.append(offered(run))
        binding.append(found[-1]["resource"])

    def rank(limit: Limit) -> tuple[int, float]:
        if limit["resource"] not in binding:
            return 4, -limit["busy"]
        # A backlog shows in the tail, whatever else is busy; and who waits for a CPU holds a slot meanwhile.
        first = ("backlog", "client", "cpu" if cpu_busy(run) >= 0.8 else "")
        return first.index(limit["resource"]) if limit["resource"] in first else 3, -limit["busy"]

    return sorted(found, key=rank)


def offered(run: Finding) -> Limit:
    """Where no resource was full: what was offered was the limit, or there was none."""
    if run["mode"] == "open" and run["throughput_rps"] >= 0.9 * (run["rate_rps"] or 0.0):
        evidence = f"{run['rate_rps']:g} requests/s were offered, and served"
        return {"resource": "arrivals", "busy": 1.0, "ceiling_rps": run["rate_rps"], "evidence": evidence}
    if run["mode"] in ("closed", "ramp") and run["wait_s"]:
        evidence = f"{run['mean_in_flight']:.0f} requests under way on average fill no resource"
        return {"resource": "arrivals", "busy": 1.0, "ceiling_rps": None, "evidence": evidence}
    return {"resource": "none", "busy": 0.0, "ceiling_rps": None, "evidence": "no resource that we can see was full"}


def audit(run: Finding) -> list[Warned]:
    """What load.py's audit finds, and what only shows beside the prediction and the server's log."""
    warnings = [] if run["server_ended"] else load.audit(run)

    def warn(identifier: str, symptom: str, cause: str, next_step: str) -> None:
        warnings.append({"id": identifier, "symptom": symptom, "cause": cause, "next": next_step})

    sent, measured_s = run["sent"], run["measured_s"]
    if run["server_ended"]:
        warn("server-ended", f"the server ended in the run; {run['failed']} of {sent} requests failed",
             run["server_said"] or "somebody stopped or killed it", f"read {run['server_log']}")  # fmt: skip
    elif run["failed"]:
        for warned in warnings:
            if warned["id"] == "failed-requests" and run["server_log"]:
                warned["next"] = f"read {run['server_log']}"
                warned["cause"] = f"the server says: {run['server_said']}" if run["server_said"] else warned["cause"]
    if run["log_lines"] is not None and run["log_lines"] != sent:
        warn("log-lines", f"{run['log_lines']} access-log lines for {sent} requests",
             "a handler that did not end, or a request that reached none, writes no line",
             "look for a killed or restarted worker in the server log")  # fmt: skip
    if run["explained_by"] == "split":
        warn("uneven-split", f"{figures_off(run)}", f"the workers took uneven shares: {shares(run)}",
             "for gunicorn threads, --worker-connections equal to --threads; else more slots in fewer processes",
        )  # fmt: skip
    elif run["explained_by"] == "nothing":
        warn("unexplained", figures_off(run), "not known: neither slots, split nor CPU explain it",
             "repeat it, and look at the requests that were answered late")  # fmt: skip
    elif run["explained_by"] == "other-slots":
        of_log = slots_of_log(run)
        settings, (_, evidence, likely) = run["slots_per_worker" if of_log else "slots"], contradiction(run)
        warn("other-slots", f"{evidence}; predicted with {'no limit' if settings is None else settings}", likely,
             "look for the setting that says so, and predict with that")  # fmt: skip
    elif run["explained_by"] == "longer-wait":
        warn("longer-wait", figures_off(run), f"a request alone takes {seconds(round(run['lone_s'] or 0.0, 3))}, not"
             f" {seconds(run['wait_s'] or 0.0)}", "state the real wait (--task-time)")  # fmt: skip
    if taken_by_others(run) > 0.15:
        warn("busy-machine", f"other programs used {taken_by_others(run):.0%} of the CPUs during the run",
             "whatever else runs here", "repeat it on an idle machine")  # fmt: skip
    if run["ceiling_rps"] and run["throughput_rps"] > run["ceiling_rps"] * (1 + TOLERANCE) and measured_s > 1:
        warn("above-ceiling", f"{run['throughput_rps']:.1f} requests/s, above S / t = {run['ceiling_rps']:.1f}",
             "requests wait less than the task time says, or there are more slots than assumed",
             "check --task-time against the minimum of the total time")  # fmt: skip
    return warnings


def audit_books(run: Run) -> list[Warned]:
    """The requests against what Postgres counted."""
    database, warnings, asked = run.get("database"), list[Warned](), run["sent"] + run["warmed_up"]
    if not database or "error" in database or run["failed"]:
        return []
    if database["rows"] != serve.SEEDED_BOOKS + run["created"]:
        symptom = f"{database['rows']} rows for {serve.SEEDED_BOOKS} seeded and {run['created']} created"
        warnings.append({"id": "rows", "symptom": symptom, "cause": "a POST was answered 201 and not kept, or kept and"
                         " not answered", "next": "read the server log"})  # fmt: skip
    if not database["connections"] and database["statements"] not in (None, asked):
        symptom = f"{database['statements']} SQL statements for {asked} requests"
        warnings.append({"id": "statements", "symptom": symptom, "cause": "somebody else used the database, or a"
                         " request was answered without it", "next": "use a database of its own"})  # fmt: skip
    return warnings


def shares(run: Finding) -> str:
    return " + ".join(str(count) for count in run["requests_of_workers"].values())


def time_of(value_s: float | None) -> str:
    """1.0 -> "1.00 s", 0.0625 -> "62.5 ms" """
    return "-" if value_s is None else f"{value_s:.2f} s" if value_s >= 0.9995 else f"{value_s * 1000:.3g} ms"


def shown_figure(name: str, value: float) -> str:
    return f"{value:.4g}/s" if name == "requests/s" else time_of(value)


def figures_off(run: Finding) -> str:
    """The figures that do not fit the prediction, as measured and as predicted."""
    band, prediction = run["band"], run["prediction"]
    if not band or not prediction:
        return ""
    off = [figure for figure in compared(run, prediction, band, False) if not figure.fits]
    return ", ".join(
        f"{'' if len(off) == 1 and f.name == 'last answer' else f.name + ' '}{shown_figure(f.name, f.measured)} instead"
        f" of {shown_figure(f.name, f.predicted)}"
        for f in off
    )


# ---------------------------------------------------------------- render

LOG_SHOWN = 24  # lines of the access log, and batches, that a report shows at most


def render_header(document: load.Document) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    return section("machine", f"{load.render_machine(document['machine'])}; {versions}")


def render_load(run: RunPlan) -> str:
    text = load.render_load(run)
    if run["wait_s"]:
        drawn = "" if run["distribution"] == "constant" else f" on average ({run['distribution']}, drawn by its number)"
        text += f"; each waits {seconds(run['wait_s'])}{drawn}"
        if run["cpu_time_s"]:
            text += f" and computes {seconds(run['cpu_time_s'])}"
        if run["subtasks"] > 1 and run["wait_s"] * run["subtasks"] == run["task_time_s"]:
            text += f" ({run['subtasks']} subtasks of a {seconds(run['task_time_s'])} task, awaited together)"
    return text


def render_prediction(run: RunPlan) -> str:
    """What is printed before the first request is sent."""
    return f"{render_what_is_sent(run)}\n{render_what_is_predicted(run)}"


def render_what_is_sent(run: RunPlan) -> str:
    what = f"workload {run['workload']}" if run["workload"] else f"{run['method']} {run['path']}"
    before = [plural(run["warm_up"], "request") + " to warm up"] if run["warm_up"] else []
    if run["lone_requests"]:
        learn = "" if run["wait_s"] is not None else ", to learn how long one takes"
        before.append(f"{'up to ' if learn else ''}{plural(run['lone_requests'], 'request')} alone{learn}")
    told = f"; before it {' and '.join(before)}, not counted" if before else ""
    parts = ["", f"{run['target']}  {what}", "", section("load", render_load(run) + told)]
    if run["server"]:
        parts.append(section("server", run["server_command"]))
    return "\n".join([*parts, *(section("note", note) for note in run["notes"])])


def render_what_is_predicted(run: RunPlan) -> str:
    why, parts = run["why_slots"], []
    if run["wait_is_measured"]:
        parts.append(section("alone", f"a request takes {time_of(run['wait_s'])}: taken for its wait"))
    if run["slots_known"]:
        each = "no limit" if run["slots_per_worker"] is None else str(run["slots_per_worker"])
        total = "no limit" if run["slots"] is None else str(run["slots"])
        why = f"{plural(run['workers'], 'worker')} x {each} = {total}: {why}"
    parts += [section("slots", why), section("prediction", run["form"])]
    return "\n".join([*parts, render_what_is_expected(run)])


def render_what_is_expected(run: RunPlan) -> str:
    """The figures, with the time that a slot is held where requests alone have shown it."""
    parts = []
    if run["held_s"]:
        least_s = (run["wait_s"] or 0.0) + run["cpu_time_s"]
        alone, held = (time_of(round(some_s, 5)) for some_s in (2 * run["held_s"] - least_s, run["held_s"]))
        text = f"a request takes {alone}: it holds its slot for {time_of(least_s)} to that, {held} taken"
        parts.append(section("alone", text))
    if run["prediction"]:
        parts.append(section("expected", slots.render_figures(run["prediction"])))
    return "\n".join([*parts, ""])


def render_log(log: serve.AccessLog, wait_s: float) -> str:
    """The access log as a reader wants it: in the order of starting, workers by name, a blank line between batches."""
    workers = serve.name_workers(log)
    shown_lines, previous_s = [], None
    for line in log.lines:
        if previous_s is not None and line.started_s - previous_s > wait_s / 4:
            shown_lines.append("")
        previous_s = line.started_s
        shown_lines.append(f"  [{line.stamp}] [pid-{workers[line.pid]}] {line.method} {line.path}")
    if len(shown_lines) > LOG_SHOWN:
        left_out = sum(map(bool, shown_lines[LOG_SHOWN - 6 : -4]))
        shown_lines[LOG_SHOWN - 6 : -4] = [f"  ... {plural(left_out, 'more line')}"]
    return "\n".join(shown_lines)


def ranges(numbers: Sequence[int], width: int) -> str:
    """[0, 1, 2, 5] -> "0-2,5", cut at width."""
    parts = []
    for _, group in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        members = [number for _, number in group]
        parts.append(str(members[0]) if len(members) == 1 else f"{members[0]}-{members[-1]}")
    text = ",".join(parts)
    return text if len(text) <= width else text[: width - 2] + ".."


def render_batches(run: Run) -> str:
    found = batches(run)
    end_s = max([run["measured_s"], *(batch.predicted_s for batch in found if batch.predicted_s == batch.predicted_s)])
    width = 21

    def column(at_s: float) -> int:
        return round(at_s / end_s * width) if at_s == at_s else 0

    def cell(at_s: float) -> str:
        return f"{at_s:8.2f} s" if at_s == at_s else f"{'-':>10}"

    rows = [
        f"{'batches':12}{'requests':13}{'started':>10}{'answered':>10}{'predicted':>10}  0 s{end_s:>{width - 5}.2f} s"
    ]
    for batch in found:
        start = column(batch.started_s)
        bar = ("." * start + "#" * (column(batch.answered_s) - start)).ljust(width)
        cells = cell(batch.started_s) + cell(batch.answered_s) + cell(batch.predicted_s)
        rows.append(f"{len(batch.requests):10}  {ranges(batch.requests, 13):13}{cells} |{bar}|")
    if len(rows) > LOG_SHOWN:
        rows[LOG_SHOWN - 6 : -4] = [f"{'':12}... {len(rows) - LOG_SHOWN + 2} more batches"]
    return "\n".join(rows)


def render_figures(run: Finding) -> str:
    """Predicted and measured, a line each."""
    latency, prediction, split = run["latency_s"], run["prediction"], run["split_prediction"]
    if not latency or not prediction:
        return ""

    def row(name: str, rps: float | None, *times_s: float | None) -> str:
        last = "-" if times_s[-1] is None else f"{times_s[-1]:.2f} s"
        return f"{name:18}{rps or 0.0:9.4g}{''.join(milliseconds(time_s, 9) for time_s in times_s[:-1])}{last:>13}"

    def of(name: str, found: Expected) -> str:
        return row(name, found["throughput_rps"], found["mean_s"], found["median_s"], found["p95_s"], found["p99_s"],
                   found["makespan_s"])  # fmt: skip

    rows = [f"{'ms':18}{'req/s':>9}{'mean':>9}{'median':>9}{'p95':>9}{'p99':>9}{'last answer':>13}"]
    rows.append(of("predicted", prediction))
    if split and split != prediction:
        rows.append(of("given the split", split))
    rows.append(row("measured", run["throughput_rps"], latency["mean"], latency["median"], latency["p95"],
                    latency["p99"], run["measured_s"]))  # fmt: skip
    if spread_s := prediction["spread_s"]:
        rows.append(f"predicted for users in step; as noise spreads them, all tend to {milliseconds(spread_s, 1)} ms")
    return "\n".join(rows)


def difference(measured: float, predicted: float | None) -> str:
    return f"{(measured / predicted - 1) * 100:+.1f} %" if predicted else "?"


def render_verdict(run: Run) -> str:
    """The run in a sentence or two: as predicted or not, and why."""
    band, prediction, because = run["band"], run["prediction"], run["explained_by"]
    if run["failed"] or run["stopped"] or run["server_ended"] or not prediction or not band:
        return load.render_verdict(run) + ("" if run["failed"] or run["prediction"] else seen_in_the_answers(run))
    split = run["split_prediction"] or prediction
    if run["mode"] == "burst":
        text = verdict_figure("", run["measured_s"], prediction["makespan_s"])
    else:
        latency = run["latency_s"]
        text = verdict_figure("mean ", latency["mean"] if latency else 0.0, prediction["mean_s"])
        text += f"; {run['throughput_rps']:.4g} requests/s of {prediction['throughput_rps'] or 0.0:.4g}"
    if because == "prediction":
        return f"{text}: as predicted, within {render_band(run, band, False)}"
    if because == "split":
        last_s = split["makespan_s"] or 0.0
        return (
            f"{text}: the split explains it. The workers took {shares(run)}; given who took which, the last answer is"
            f" due at {time_of(last_s)} ({difference(run['measured_s'], last_s)})"
        )
    if because == "cpu":
        return f"{text}: CPU explains it. {figures_off(run)}; {render_band(run, band, True)}"
    if because == "nothing":
        return f"{text}: NOT explained. {figures_off(run)}; beyond {render_band(run, band, True)}"
    if because == "other-slots":
        return f"{text}: {contradiction(run)[2]}; see the warning"
    return f"{text}: {figures_off(run)}; see the warning ({because})"


def verdict_figure(name: str, measured: float, predicted: float | None) -> str:
    return f"predicted {name}{time_of(predicted)}, measured {time_of(measured)} ({difference(measured, predicted)})"


def render_band(run: Finding, band: Band, with_cpu: bool) -> str:
    """The room that this machine's own costs leave, with what makes it up."""
    more = band["makespan_s"] if run["mode"] == "burst" else band["latency_s"]
    at_once = run["answered"] if run["mode"] == "burst" else min(
        unlimited(run["slots"]), run["concurrency"] or run["sent"], run["sent"])  # fmt: skip
    cpu_s = band["cpu_s"] * at_once
    room = max(0.0, more - (0.0 if with_cpu else cpu_s))
    text = f"5 % + {room * 1000:.3g} ms ({band['overhead_s'] * 1000:.2g} ms of overhead a round"
    if with_cpu:
        text += f", {cpu_s * 1000:.3g} ms of CPU for {at_once:g} requests at {band['cpu_s'] * 1000:.2g} ms"
        if band["cpus"] < min(run["workers"], run["cpus"]):
            text += f", as one worker took {max(run['requests_of_workers'].values())} of them"
    return f"{text}, timer {band['timer_s'] * 1000:.2g} ms)"


def seen_in_the_answers(run: Run) -> str:
    """What the answers alone show, where nothing certain was predicted."""
    text, found = "", run["estimate"]
    if run["possibilities"]:
        words, predicted_s = min(run["possibilities"].items(), key=lambda item: abs(item[1] - run["measured_s"]))
        near = abs(predicted_s - run["measured_s"]) <= 0.15 * predicted_s + run["client_cpu_s"]
        near = near or predicted_s <= run["measured_s"] <= predicted_s * 1.05 + (run["server_cpu_s"] or 0.0)
        text = f"; as of {words}" if near else "; as of none of the possibilities"
    return text + (f"; {words_of(found)}" if found and run["wait_s"] != 0 else "")


def how_many(found: limits.Estimate) -> str:
    if is_certain(found):
        return f"{found['slots']}"
    return f"{found['low']} to {found['high']}" if found["high"] else f"at least {found['low']}"


def in_each(found: limits.Estimate) -> str:
    shared = is_certain(found) and found["each"] and found["each"] != found["slots"]
    return f", {found['each']} in each of {found['processes']} processes" if shared else ""


def words_of(found: limits.Estimate) -> str:
    """An estimate in a few words: the number, a range, or why there is none."""
    many = how_many(found)
    return {
        "none": f"no limit up to {found['low']} at a time",
        "unknown": "how many at a time is not known",
        "cpu": "what they share, CPU or the like, is the limit, not slots",
        "two-pass": f"{many} at a time, in two passes: nobody is answered before all have run once",
        "smeared": f"{many} at a time, not first come, first served",
        "slots": f"{many} at a time{in_each(found)}",
    }[found["kind"]]


def render_estimate(run: Finding, always: bool = False) -> list[str]:
    """The estimate with its evidence and the limits that it may be; of servers whose slots are known only if that is
    not what the answers show."""
    found = run["estimate"]
    fine = run["explained_by"] in ("prediction", "split", "cpu") and run["slots_known"]
    if not found or run["wait_s"] == 0 or (fine and not always):
        return []
    evidence = [words_of(found), *found["evidence"]]
    rows = [section("estimate", " ".join(f"{sentence[:1].upper()}{sentence[1:]}." for sentence in evidence))]
    rows += [
        section("suspect", f"{suspect['what']}. Setting: {suspect['setting']}. {suspect['predicted_effect'][0].upper()}"
                f"{suspect['predicted_effect'][1:]}. To tell: {suspect['how_to_tell']}. Source: {suspect['source']}.")
        for suspect in found["suspects"]
    ]  # fmt: skip
    return rows


def render_search(run: RunPlan, what: str) -> str:
    """What several loads on one server are for."""
    server = [section("server", run["server_command"])] if run["server"] else []
    return "\n".join(["", f"{run['target']}  {run['method']} {run['path']}", "", section("load", what), *server, ""])


def render_burst(run: Run) -> str:
    """One burst of a probe."""
    found = run["estimate"]
    words = words_of(found) if found and not run["failed"] else f"{run['failed']} failed"
    return f"{run['sent']:6} at once{run['answered']:7} answered in {time_of(run['measured_s']):>8}  {words}"


def render_found(run: Run, why: str) -> str:
    """What a probe has found."""
    found = run["estimate"]
    verdict = f"{words_of(found) if found else 'nothing is known'}; ended as {why}"
    if run["failed"]:
        verdict = f"{load.render_verdict(run)}; ended as {why}"
    if found and is_certain(found) and run["slots_known"]:
        said = "no limit" if run["slots"] is None else run["slots"]
        verdict += f"; the settings say {said}" + ("" if found["slots"] == run["slots"] else ": NOT the same")
    rows = render_estimate(run, always=True)
    return "\n".join(["", section("verdict", verdict), *load.render_warnings(run["warnings"]), *rows])


def render_first_rate(
    plan: Plan, rate: float, objective_s: float, per_cent: int, most_runs: int, run_s: float
) -> str:  # fmt: skip
    why = "no slots or no wait is known: seven tenths of what eight users get"
    if plan.slots and plan.wait_s:
        why = f"{plan.slots:g} slots, {time_of(plan.wait_s)} each, random arrivals"
    return "\n".join([
        section("prediction", f"p{per_cent} is {time_of(objective_s)} at {rate:.4g} requests/s ({why})."),
        section("search", f"from there on, at most {most_runs} runs of {seconds(run_s)}."), "",
    ])  # fmt: skip


def render_tried(run: Run, rate: float, per_cent: int, latency_s: float, holds: bool) -> str:
    failed = f", {run['failed']} failed" if run["failed"] else ""
    return (
        f"{rate:10.4g}/s offered {run['throughput_rps']:10.4g}/s served  p{per_cent} {time_of(latency_s):>8}"
        f"  {'holds' if holds else 'does not hold'}{failed}"
    )


def render_found_rate(
    rate: float, low: float, high: float, runs: int, last: Run, objective_s: float, per_cent: int, used: int
) -> str:
    between = f"between {low:.4g} and {high:.4g}" if high < math.inf else f"at least {low:.4g}"
    verdict = f"p{per_cent} <= {time_of(objective_s)} up to {rate:.4g} requests/s, {between} ({runs} runs)"
    return "\n".join(["", section("verdict", verdict), section("limit", f"there: {render_limits(last)}")])


def render_limits(run: Finding) -> str:
    """What limited the run, and what would be next."""
    words = []
    for limit in run["limits"][:3]:
        resource, ceiling_rps = limit["resource"], limit["ceiling_rps"]
        text = resource + ("" if resource in ("none", "arrivals") else f", {limit['busy'] * 100:.0f} % busy")
        if ceiling_rps is not None and resource != "arrivals":
            text += f", full at {ceiling_rps:.4g}/s"
        words.append(f"{text} ({limit['evidence']})")
    return "; next: ".join(words[:2]) + (f"; then: {words[2]}" if len(words) > 2 else "")


def render_result(run: Run, log: serve.AccessLog | None) -> str:
    """What is printed after the last answer: the verdict first, then the evidence."""
    parts = [section("verdict", render_verdict(run)), *load.render_warnings(run["warnings"])]
    parts += render_estimate(run)
    if run["limits"]:
        parts.append(section("limit", render_limits(run)))
    parts.append("")
    if run["mode"] == "burst" and run["answered"]:
        if log and log.lines:
            parts += [section("access log", f"{run['access_log']}  (stamped when the handler starts)"),
                      render_log(log, run["wait_s"] or 0.1), ""]  # fmt: skip
        parts += [render_batches(run), ""]
    if figures := render_figures(run):
        parts += [figures, ""]
    if run["mode"] != "burst" or not run["predicted_s"]:
        parts += load.render_evidence(run)
    if run["requests_of_workers"]:
        took = ", ".join(f"{worker} {count}" for worker, count in run["requests_of_workers"].items())
        seen = f" (at most {run['slots_seen']} at a time in one worker)" if run["slots_seen"] else ""
        parts.append(section("workers", f"{took}{seen}"))
    lines = "" if run["log_lines"] is None else f"; {run['log_lines']} log lines"
    parts.append(section("counts", load.render_counts(run) + lines))
    database = run.get("database")
    if database and "error" in database:
        parts.append(section("database", database["error"]))
    elif database:
        text = (
            f"{database['rows']} rows = {serve.SEEDED_BOOKS} seeded + {database['rows'] - serve.SEEDED_BOOKS} created"
        )
        parts.append(
            section("database", f"{text}; {database['statements']} SQL statements; Postgres {database['version']}")
        )
    if run["mode"] != "burst":
        parts += load.render_audit(run)
    return "\n".join(parts)


def render_start_of_line(run: RunPlan) -> str:
    """One run of many, before it."""
    total = ("no limit" if run["slots"] is None else str(run["slots"])) if run["slots_known"] else "?"
    return f"{run['target'][:30]:31}{run['path'][:15]:16}{total:>8}{time_of(run['predicted_s']):>10}"


def render_end_of_line(run: Run) -> str:
    """And after it."""
    because = run["explained_by"] or ", ".join(warned["id"] for warned in run["warnings"])
    said = {"prediction": "as predicted", "nothing": "NOT explained"}.get(because, because)
    return f"{time_of(run['measured_s']):>9}  {said}".rstrip()


def render_comparison(runs: Sequence[Run]) -> str:
    """One line a run, for everything that was asked for in one command."""
    rows = [f"{'target':31}{'path':16}{'slots':>8} predicted{'measured':>9}{'per s':>7}"]
    for run in runs:
        known = run if run["split_predicted_s"] is None else {**run, "predicted_s": run["split_predicted_s"]}
        failed = f"  {run['failed']} failed" if run["failed"] else ""
        rows.append(f"{render_start_of_line(known)}{time_of(run['measured_s']):>9}{run['throughput_rps']:7.0f}{failed}")
    if any(run["split_predicted_s"] is not None for run in runs):
        rows.append("predicted: given how the connections were split over the workers")
    return "\n".join(rows)
