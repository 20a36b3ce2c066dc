"""The words for every value that a report can show, and the texts of its warnings. report.py makes the sentences.

Each enum and each id of a record has its words here, and a test looks for one that is missing. A name in braces is a
fact of the warning, or a value of the record, as text.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

from engine.loads import Burst, Closed, Figure, Load, Open, Ramp
from engine.run import Explanation, Resource, Seen
from engine.words import difference, duration, plural, rate


def said(*sentences: object) -> str:
    """Sentences in a row, without those that are empty, None or False."""
    return " ".join(str(one) for one in sentences if one)


def requests_s(value_rps: float | None) -> str:
    """
    >>> requests_s(837.3)
    '837 requests/s'
    """
    return rate(value_rps or 0.0).replace("/", " requests/")


def stacked(*blocks: object, between: str = "\n") -> str:
    """The same, one below the other."""
    return between.join(str(one) for one in blocks if one)


# ---------------------------------------------------------------- the loads: the only place that asks for the kind


@functools.singledispatch
def load_words(load: Load) -> str:
    """What the client sends, in a sentence or two."""
    raise NotImplementedError(load)


@load_words.register
def _(load: Burst) -> str:
    return f"{plural(load.requests, 'request')} at once."


@load_words.register
def _(load: Closed) -> str:
    return f"{plural(load.concurrency, 'user')}, {until(load)}. {next_request(load)}"


@load_words.register
def _(load: Open) -> str:
    spaced = "evenly spaced" if load.seed is None else f"at random moments (seed {load.seed})"
    sent = f"{load.due_in_all} requests, {load.rate_rps:g}/s {spaced}"
    return f"{sent}. Each leaves when it is due, whatever the server does."


@load_words.register
def _(load: Ramp) -> str:
    steps = ", then ".join(f"to {users} in {duration(stage_s)}" for stage_s, users in load.stages)
    return f"a changing number of users: {steps}. {next_request(load)}"


def until(load: Load) -> str:
    limit, requests = f"for {duration(load.time_limit_s)}", f"{load.requests:g} requests in all"
    if load.requests == math.inf:
        return limit
    return requests if load.time_limit_s == math.inf else f"{limit}, but at most {requests}"


def next_request(load: Load) -> str:
    pause = f", pauses for {duration(load.think_s)}," * bool(load.think_s)
    return f"Each user waits for the answer{pause} and sends again."


# ---------------------------------------------------------------- prediction and verdict

LETTERS = {"c": "c users", "n": "n requests", "S": "S slots", "t": "wait t"}
HANDLER_WORDS = {  # of an ASGI app that does not say
    "def": "a `def` handler",
    "async": "an `async def` handler that awaits",
    "blocking": "an `async def` handler that blocks",
}
EXPLANATIONS = {
    Explanation.PREDICTION: "As predicted.",
    Explanation.SPLIT: "Explained: the workers took unequal numbers of requests.",
    Explanation.CPU: "Explained: CPU time adds to the wait.",
    Explanation.OTHER_SLOTS: "NOT as predicted: the server has another number of slots.",
    Explanation.BUSY_MACHINE: "NOT as predicted: other programs used the CPUs.",
    Explanation.LONGER_WAIT: "NOT as predicted: a request takes longer than stated.",
    Explanation.BACKLOG: "NOT as predicted: the server's listen backlog was full.",
    Explanation.DELAYED_ACK: "NOT as predicted: answers waited for a delayed ACK.",
    Explanation.CLIENT: "NOT as predicted: the client was too slow.",
    Explanation.LATE_SENDS: "NOT as predicted: the client sent requests late.",
    Explanation.NOTHING: "NOT as predicted, and not explained.",
}
FIGURES = {
    Figure.LAST_ANSWER: "The last answer came after",
    Figure.MEAN: "The mean latency was",
    Figure.THROUGHPUT: "The throughput was",
    Figure.P95: "The p95 of the latency was",
    Figure.P99: "The p99 of the latency was",
}


def compared_words(figure: Figure, measured: float, predicted: float) -> str:
    """
    >>> compared_words(Figure.LAST_ANSWER, 4.02, 4.0)
    'The last answer came after 4.02 s, predicted 4 s (+0.5 %).'
    """
    shown = rate if figure is Figure.THROUGHPUT else duration
    return f"{FIGURES[figure]} {shown(measured)}, predicted {shown(predicted)} ({difference(measured, predicted)})."


RESOURCES = {
    Resource.SLOTS: "slots",
    Resource.POOL: "the connection pool",
    Resource.CPU: "CPU",
    Resource.CLIENT: "the client",
    Resource.BACKLOG: "the listen backlog: connections waited a second or more until TCP tried again",
    Resource.ARRIVALS: "none: the server could do all that was asked of it",
    Resource.NONE: "none: nothing that we can see ran out",
}
CEILINGS = {  # of those that a request holds for a time; {full}: requests/s
    Resource.SLOTS: "{slots} of {held} {allow} {full}.",
    Resource.POOL: "{connections} of {held} {allow} {full}.",
    Resource.CPU: "{held} per request on {cpus} allow {full}.",
    Resource.CLIENT: "{held} of CPU time per request allow {full}.",
}
SEEN = {  # {many}: a number, or a range
    Seen.SLOTS: "The answers show that the server works on {many} at a time{each}.",
    Seen.NONE: "The answers show no limit up to {low} requests at a time.",
    Seen.UNKNOWN: "The answers do not show how many requests the server works on at a time.",
}
DOUBTS = {  # why a number is not certain, or why there is none: Estimate.doubt
    "failures": "Some requests failed.",
    "few-answers": "There are too few answers.",
    "no-lone-request": "There is no lone request to compare with.",
    "short-wait": "A lone request takes less than 5 ms. That is too short to tell waiting from CPU time.",
    "unlike-lone-requests": "Lone requests took very different times, so they are no measure for the others.",
    "cpu": "The server's CPUs were busy most of the time, so CPU time may be the limit.",
    "held-back": "Even the first answer came late. A request may need a slot twice, or block the event loop, or wait"
    " for CPU time.",
    "flowing": "The answers did not come in rounds. The limit may be CPU time, a lock, or a pool that a request holds"
    " for a part of its time.",
    "less-than-one-slot": "The throughput is lower than a single slot allows. There may be a rate limit, or lone"
    " requests may be faster than others.",
    "busy-machine": "Other programs used the CPUs, so the times say little.",
    "fewer-than-three-rounds": "The answers make fewer than three rounds, so there may be more slots.",
    "uneven-processes": "The workers may have taken unequal numbers of requests, so there may be more slots.",
    "rounds-and-throughput-disagree": "The rounds and the throughput show different numbers.",
    "no-clear-rounds": "The answers came in no clear rounds, so the number is not exact.",
}
PROBE_ENDS = {  # as estimate.why_over() says
    "stopped": "it was stopped",
    "failures": "requests failed",
    "agree": "two bursts show the same number",
    "cpu": "two bursts show that CPU time is the limit",
    "scatter": "the times vary too much, and more requests would not help",
    "budget": "the next burst would need more requests than it may send",
    "budget-of-time": "the next burst would need more time than it may spend",
}

# ---------------------------------------------------------------- warnings: symptom, likely cause, next step

OTHER = " The prediction assumes {predicted}. Look for the setting that causes this, or state the number (--slots)."
WARNINGS = {  # "other-slots" is followed by the kind of evidence
    "failed-requests":
        "{failed} of {sent} requests failed: {errors}. They are in no percentile. {because}",
    "never-left":
        "{due} requests were due, but only {sent} were sent. The client cannot send so fast. Lower --rate, or use more"
        " --processes.",
    "backlog-overflow":
        "{late} of the connections took at least a second longer than others. On the whole machine the kernel counted"
        " {overflows} overflows of listen queues and {retransmissions} repeated SYNs. The server's listen backlog was"
        " full, and TCP tried again after about 1, 3 and 7 s. Raise the server's backlog and net.core.somaxconn.",
    "client-limit":
        "The client used {busy} of a CPU per process. It may limit the throughput, not the server: read"
        " the throughput as a lower bound. To see more, {more_processes}.",
    "late-sends":
        "Requests were sent up to {lag_s} after they were due (p99). This is part of the p99 of the latency,"
        " {latency_s}. The client had too little CPU time. Lower --rate, or give it its own CPUs (--client-cpus).",
    "no-keep-alive":
        "The client opened {sockets} connections for {sent} requests; {expected} would be enough. The server closes"
        " connections that it was asked to keep (gunicorn's sync worker always does). Compare without -k.",
    "delayed-ack":
        "In {late_bodies} answers the last byte came some 40 ms after the first. The server sends head and body"
        " separately, and the body waits for the client's delayed ACK (uvicorn --workers does this, issue 3149)."
        " Compare without -k, or with one worker.",
    "little":
        "{under_way} requests were under way on average, but {asked} were asked for. The client could not keep all"
        " users busy, or the last requests took long. Send more requests, and look at the client's CPU time below.",
    "server-ended":
        "The server ended during the run, and {failed} of {sent} requests failed. {said} Read {log}.",
    "log-lines":
        "The access log has {lines} lines for {sent} requests. A request that reached no handler, or did not end there,"
        " has no line. Look in the server's log for a worker that was killed or restarted.",
    "uneven-split":
        "The workers took unequal numbers of requests: {shares}. Each worker accepts connections by itself, even when"
        " all its slots are taken and another worker has a free one. With gunicorn threads, set --worker-connections to"
        " the number of --threads. With other servers, use fewer workers with more slots each.",
    "unexplained":
        "{off} Neither slots, nor the split, nor CPU time explain this. Run it again, and look at the requests that"
        " were answered late.",
    "longer-wait":
        "A lone request takes {alone_s}, but the prediction assumes {wait_s}. The stated wait is probably too short."
        " State the real one (--task-time or --wait).",
    "busy-machine":
        "Other programs used {share} of the CPUs during the run. They make all times longer. Run it again on an idle"
        " machine.",
    "above-ceiling":
        "The throughput was {throughput_rps}, but the slots allow only {ceiling_rps}. Requests wait less than {wait_s},"
        " or there are more slots than assumed. Compare {wait_s} with the shortest latency.",
    "rows":
        "The database has {rows} rows after {created} answers with status 201. A POST was answered but not stored, or"
        " stored but not answered. Read the server's log.",
    "statements":
        "Postgres counted {statements} SQL statements for {asked} requests. Another program used the database, or a"
        " request was answered without it. Use a database of its own.",
    "other-slots held":
        "Whenever a waiting request started, its worker had {slots} requests in its handlers. So a worker has {slots}"
        " slots, whatever its settings say." + OTHER,
    "other-slots seen-more":
        "A worker had {slots} requests in its handlers at the same time. So it has {slots} slots or more." + OTHER,
    "other-slots never-more":
        "A worker took {of} requests, but never had more than {slots} in its handlers at a time. So it has {slots}"
        " slots, whatever its settings say." + OTHER,
    "other-slots answers":
        "The answers came {slots} at a time{each}. So the server has {slots} slots." + OTHER,
    "other-slots inside":
        "The answers came {slots} at a time{each}, but a worker had up to {of} requests in its handlers. So the limit"
        " is inside the handler: a connection pool, a lock or a semaphore." + OTHER,
}  # fmt: skip
FAILURES = {  # how most requests failed: likely cause, next step
    "refused": "No server listens there. Start it, or check host and port.",
    "reset": "The server broke the connection. Look in its log for a crash or a limit.",
    "closed": "The server closed the connection without an answer. Look in its log for a crash or a limit.",
    "timed out": "The server did not answer in time. Raise the time-out (-s), or send less at a time.",
    "too many open files": "The client may not open more files. Raise the limit (ulimit -n).",
    "no local port": "The client has no local port left. Keep connections (-k).",
    "interrupted": "The run was interrupted. Let it run to its end.",
    "given up": "No request was answered, so the client stopped waiting. Check that the server answers a single one.",
    "client died": "A client process ended too early. The system may have killed it, for example for lack of memory."
    " Send less at a time, or use fewer --processes.",
    "HTTP": "The server answered with an error. Read its log.",
    "": "The answers are not complete HTTP/1.1. Look at one with curl -v.",
}


def numbers(values: Iterable[object]) -> str:
    """
    >>> numbers([50, 27, 15])
    '50, 27 and 15'
    """
    return " and ".join(", ".join(map(str, values)).rsplit(", ", 1))
