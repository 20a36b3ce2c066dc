"""The words for every value that a report can show, and the texts of its warnings. The report modules make the
sentences.

Each enum and each id of a record has its words here, and a test looks for one that is missing. A name in braces is a
fact of the warning, or a value of the record, as text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from engine.loads import Figure, Load
from engine.run import Run
from engine.until import Until
from engine.words import difference, duration, per_cent, plural, rate, section, slots_text


def said(*sentences: object) -> str:
    """Sentences in a row, without those that are empty, None or False."""
    return " ".join(str(one) for one in sentences if one)


def told(name: str, *sentences: object) -> str:
    """The same as a paragraph with its name in the margin; empty if there is no sentence."""
    text = said(*sentences)
    return text and section(name, text)


def stacked(*blocks: object, between: str = "\n") -> str:
    """Blocks one below the other, without those that are empty."""
    return between.join(str(one) for one in blocks if one)


def requests_s(value_rps: float | None) -> str:
    """
    >>> requests_s(837.3)
    '837 requests/s'
    """
    return rate(value_rps or 0.0).replace("/", " requests/")


# ---------------------------------------------------------------- the loads

LOADS: dict[str, Callable[[Any], str]] = {  # what the client sends, in a sentence or two
    "burst": lambda load: f"{plural(load.requests, 'request')} at once.",
    "closed": lambda load: f"{plural(load.concurrency, 'user')}, until {end_of(load)}. {next_request(load)}",
    "open": lambda load: (
        f"{load.due_in_all} requests, {load.rate_rps:g}/s"
        f" {'evenly spaced' if load.seed is None else f'at random moments (seed {load.seed})'}."
        " Each request is sent when it is due, even if the server is slow."
    ),
    "ramp": lambda load: (
        "A changing number of users: "
        f"{', then '.join(f'to {users} in {duration(time_s)}' for time_s, users in load.stages)}. {next_request(load)}"
    ),
}
LETTERS = {  # of the closed form
    "burst": "n requests, S slots and a wait of t",
    "closed": "c users, S slots and a wait of t",
    "open": "S slots and a wait of t",
    "ramp": "c users, S slots and a wait of t",
}


def end_of(load: Load) -> str:
    ends = [f"{load.requests:g} requests are sent"] * (load.requests < math.inf)
    ends += [f"{duration(load.time_limit_s)} have passed"] * (load.time_limit_s < math.inf)
    return " or ".join(ends)


def next_request(load: Load) -> str:
    pause = f", pauses for {duration(load.think_s)}," * bool(load.think_s)
    return f"Each user waits for the answer{pause} and sends again."


# ---------------------------------------------------------------- prediction and verdict

HANDLER_WORDS = {  # of an ASGI app that does not say
    "def": "a `def` handler or dependency",
    "async": "an `async def` handler that awaits",
    "blocking": "an `async def` handler that blocks",
}
EXPLANATIONS = {
    "prediction": "As predicted.",
    "split": "Explained: the workers took unequal numbers of requests.",
    "cpu": "Explained: CPU time adds to the wait.",
    "inside": "NOT as predicted: requests wait inside the handlers.",
    "sooner": "NOT as predicted: answers came sooner than slots and wait allow.",
    "other-slots": "NOT as predicted: the server works on another number of requests at a time.",
    "opened-anew": "NOT as predicted: requests opened connections, which the pool does not keep.",
    "restarts": "NOT as predicted: worker processes were started during the run.",
    "connected": "NOT as predicted: a program that the service is connected to was busy.",
    "after-answer": "NOT as predicted: requests keep their slots after the answer.",
    "longer-handlers": "NOT as predicted: under this load the handlers took longer.",
    "different-times": "NOT as predicted: requests take different times in their handlers.",
    "busy-machine": "NOT as predicted, and other programs used the CPUs.",
    "longer-wait": "NOT as predicted: a request takes longer than stated.",
    "backlog-overflow": "NOT as predicted: the server's listen queue was full.",
    "delayed-ack": "NOT as predicted: answers came in two parts, some 40 ms apart.",
    "client-limit": "NOT as predicted: the client was too slow.",
    "client-stalled": "NOT as predicted: the client stood still for some time.",
    "late-sends": "NOT as predicted: the client sent requests late.",
    "nothing": "NOT as predicted, and not explained.",
}
FIGURES = {
    "makespan_s": "The last answer came after",
    "mean_s": "The mean latency was",
    "throughput_rps": "The throughput was",
    "p95_s": "The p95 of the latency was",
    "p99_s": "The p99 of the latency was",
}


def compared_words(run: Run, figure: Figure) -> str:
    """Measured and predicted of one figure in a sentence; empty where one of them is not known."""
    measured, predicted = run.measured.of(figure), run.prediction.of(figure)
    if not measured or not predicted:
        return ""
    shown = rate if figure is Figure.THROUGHPUT else duration
    text = f"{FIGURES[figure.value]} {shown(measured)}, predicted {shown(predicted)}"
    return f"{text} ({difference(measured, predicted)})."


RESOURCES = {
    "slots": "slots",
    "pool": "the connection pool",
    "cpu": "CPU",
    "client": "the client",
    "machine": "the CPUs that server and client share",
    "backlog": "connections: TCP had to try again, as it does where a listen queue is full",
    "arrivals": "the server could do all that was asked",
    "none": "nothing that we can see was fully used",
}
SEEN = {  # {many}: "4 requests at a time", or a range
    "slots": "The answers came as if the server worked on {many}.",
    "none": "The answers show no limit up to {low} requests at a time.",
    "unknown": "The answers do not show how many requests the server works on at a time.",
}
DOUBTS = {  # why a number is not certain, or why there is none: Estimate.doubt
    "failures": "Some requests failed.",
    "few-answers": "There are too few answers.",
    "no-lone-request": "There is no time of a request by itself to compare with.",
    "short-wait": "A request by itself takes less than 5 ms. That is too short to tell waiting from CPU time.",
    "unlike-lone-requests": "Requests by themselves took very different times, so they predict nothing.",
    "cpu": "The server's CPUs were busy most of the time, so CPU time may be the limit.",
    "held-back": "Even the first answer came late. A request may need a slot twice, or block the event loop, or wait"
    " for CPU time.",
    "busy-machine": "Other programs used the CPUs, so the times say little.",
    "fewer-than-three-rounds": "The answers make fewer than three rounds, so there may be more slots.",
    "uneven-processes": "The workers may have taken unequal numbers of requests, so there may be more slots.",
    "uneven-rounds": "The last answers came later than in rounds of one size, so the number is not certain.",
    "rounds-and-throughput-disagree": "The rounds and the throughput show different numbers.",
    "all-at-work": "But more requests than that were seen to be worked on at the same time. A rate limit can cause"
    " this. So can another program that they ask, or a lock that each of them takes many times.",
    "no-clear-rounds": "They did not come in rounds of one size.",
}
PROBE_ENDS = {
    "seen": "two bursts show the same limit",  # as estimate.why_over() says
    "stopped": "it was stopped",
    "failures": "requests failed",
    "agree": "two bursts show the same number",
    "cpu": "two bursts show that CPU time is the limit",
    "scatter": "the times vary too much, and more requests would not help",
    "budget": "the next burst would need more requests than it may send",
    "budget-of-time": "the next burst would need more time than it may spend",
}

# ---------------------------------------------------------------- warnings: symptom, likely cause, next step

FAILURES = {  # how most requests failed: likely cause, next step
    "refused": "No server listens there, or no longer. Start it, or check host and port.",
    "reset": "The server broke the connection. Look in its log for a crash or a limit.",
    "closed": "The server closed the connection without an answer. Look in its log for a crash or a limit.",
    "timed out": "The server did not answer in time. Raise the time-out (-s), or send less at a time.",
    "too many open files": "The client may not open more files. Raise the limit (ulimit -n).",
    "connect failed": "The network or this system did not allow the connection: a firewall, or a route.",
    "no local port": "The client has no local port left. Keep connections (-k).",
    "interrupted": "The run was interrupted. Let it run to its end.",
    "given up": "No request was answered, so the client stopped waiting. Check that the server answers a single one.",
    "TLS failed": "A TLS handshake or record failed. Look in the server's log.",
    "client died": "A client process ended too early. The system may have killed it, for example for lack of memory."
    " Send less at a time, or use fewer --processes.",
    "too large": "The head of an answer has more than 64 KiB, which is more than this client reads.",
    "HTTP 401": "The service asks for a login. Send a header (-H 'Authorization: ...', --auth, --cookie).",
    "HTTP 403": "The service does not allow it. Send a header (-H 'Authorization: ...', --auth, --cookie).",
    "HTTP 404": "The service says that there is no such thing. Look at --path or the URL.",
    "HTTP 405": "The path is there, but not for this method. Look at -m.",
    "HTTP 422": "The service does not accept the values. Look at the query, the body (--data) and its -T.",
    "HTTP 429": "The service refused them: they were too many in a time, or too many at a time.",
    "HTTP 4": "The service does not accept the request. Look at one with curl -v.",
    "HTTP 503": "The service said that it is too busy, or not ready.",
    "HTTP": "The service failed. Read the server's log.",
    "": "The answers are not complete HTTP/1.1. Look at one with curl -v.",
}
UNENDED = "If it is a stream without an end, add --first-byte; else raise the time-out (-s)."
OTHER = "Look for the setting that causes this, or state the number (--slots)."
WARNINGS: dict[str, Callable[[Any], str]] = {  # of the facts; "other-slots" is followed by the kind of evidence
    "failed-requests": lambda of:
        f"{of.failed} of {of.sent} requests failed: {', '.join(f'{n} {error}' for error, n in of.errors.items())}."
        f" They are in no percentile. {likely_cause(of)}",
    "redirects": lambda of:
        f"{of.redirected} of {of.sent} requests were answered with a redirect, which is not followed. Ask for the"
        " address that it names (curl -v shows it).",
    "starved": lambda of:
        f"{of.never} of {of.opened} connections never got an answer, and the other {of.opened - of.never} got"
        f" {of.answered}. Either the server has a limit of connections, and users keep theirs (waitress"
        " --connection-limit, of which two are its own; gunicorn --worker-connections), or these requests hang. Raise"
        " that number, or compare without -k.",
    "never-left": lambda of:
        f"{of.due} requests were due, but only {of.sent} were sent. The client cannot send so fast. Lower --rate, or"
        " use more --processes.",
    "backlog-overflow": lambda of:
        f"TCP tried again on {plural(of.late, 'connection')}. On the whole machine the kernel counted"
        f" {plural(of.overflows, 'overflow')} of listen queues. {backlog_text(of)}",
    "client-limit": lambda of:
        f"The client used {per_cent(of.busy)} of a CPU per process. The client, not the server, may limit the"
        " throughput. So the server can do at least this much. To see more,"
        f" {f'add --processes {of.more_processes}' if of.more_processes else 'give the client more CPUs'}.",
    "late-sends": lambda of:
        f"Requests were sent up to {duration(of.lag_s)} after they were due (p99). This is part of the p99 of the"
        f" latency, {duration(of.latency_s)}. The client had too little CPU time. Lower --rate, or give it its own"
        " CPUs (--client-cpus).",
    "no-keep-alive": lambda of:
        f"The client opened {of.sockets} connections for {of.sent} requests; {of.expected:g} would be enough. The"
        " server closes connections that it was asked to keep (gunicorn's sync worker always does). Compare without"
        " -k.",
    "delayed-ack": lambda of:
        f"In {of.late_bodies} answers the last byte came some 40 ms after the first. Either the app sends its answer in"
        " parts, or the server sends head and body separately and the body waits for the client's delayed ACK (uvicorn"
        " --workers does this, issue 3149). Compare without -k, or with one worker.",
    "client-stalled": lambda of:
        f"This client stood still for {duration(of.stalled_s)}: it was stopped, or had no CPU. Answers that came in"
        " that time count as later than they were. Run it again.",
    "little": lambda of:
        f"{of.under_way:.3g} requests were under way on average, but -c is {of.asked}. The client could not"
        " keep all users busy, or the last requests took long. Send more requests, and look at the client's CPU time"
        " below.",
    "server-ended": lambda of:
        f"The server ended during the run, and {of.failed} of {of.sent} requests failed. {server_said(of)}",
    "log-lines": lambda of:
        "The access log has no line, and nothing was seen inside: the server serves no app of Flask, Django,"
        " Starlette or FastAPI, or its Python does not look where PYTHONPATH says (the command sets another, has -E or"
        " -I, or starts it in a container)."
        if not of.lines
        else f"The access log has {of.lines} lines for {of.sent} requests. A request that reached no handler, or was"
        " still worked on when the server was stopped, has no line. A request of a worker that was killed has none,"
        " either: look in the server's log.",
    "uneven-split": lambda of:
        f"The workers took unequal numbers of requests: {', '.join(map(str, of.shares))}. Each worker accepts"
        " connections by itself, even when all its slots are taken and another worker has a free one. With gunicorn"
        " threads, set --worker-connections to the number of --threads. With other servers, use fewer workers with"
        " more slots each.",
    "unexplained": lambda _:
        "Neither the slots, nor the requests of each worker, nor their CPU time explain the difference. Run it again,"
        " and look at the requests that were answered late.",
    "longer-wait": lambda of:
        f"A request by itself takes {duration(of.alone_s)}, but the prediction assumes {duration(of.wait_s)}. The"
        " stated wait is probably too short. State the real one (--task-time or --wait).",
    "longer-handlers": lambda of:
        f"In the log a request is in its handler for {duration(of.handled_s)} on average, and the prediction assumes"
        f" {duration(of.assumed_s)}. The server used {per_cent(of.cpu)} of a CPU, so something else made it longer:"
        " what the handlers wait for, or their own waits.",
    "different-times": lambda of:
        f"Half of the requests were in their handlers for {duration(of.usual_s)} or less, but on average it was"
        f" {duration(of.handled_s)}. The prediction assumes {duration(of.assumed_s)} for each.",
    "busy-machine": lambda of:
        f"Other programs used {per_cent(of.share)} of the CPUs during the run{named_text(of.named)}. They make all"
        " times longer. Run it again on an idle machine.",
    "drift": lambda of:
        f"The latency drifted all through the run: {duration(of.first_s)} in its first quarter,"
        f" {duration(of.last_s)} in its last. A mean or a percentile of such a run says little."
        f" {'Find out what grows' if of.last_s > of.first_s else 'Send more before the run (--warmup)'}, or run it for"
        " longer.",
    "throttled": lambda of:
        f"The container may use {of.cpus:.3g} CPUs, and waited {duration(of.throttled_s)} in all, as they were used up."
        " Client and server share them. Give the container more CPUs, or send less.",
    "connected": lambda of:
        f"Programs that the service is connected to, such as a database, used {per_cent(of.cpus)} of a CPU. What they"
        " compute is a part of each request. More slots do not help where that is the limit.",
    "restarts": lambda of:
        f"{plural(of.restarts, 'worker')} became ready only during the run: started slowly, or in place of another"
        " (gunicorn --max-requests, uvicorn --limit-max-requests, a time-out, a crash). The server's log says which.",
    "opened-anew": lambda of:
        f"{plural(round(of.requests, 1), 'request')} at a time opened a connection{f' at {of.line}' * bool(of.line)}."
        f" {of.pool} {kept_text(of)}",
    "sooner": lambda of:
        f"Even {duration(of.shortest_s)} was enough for an answer, but the handler waits {duration(of.wait_s)}. It did"
        " not run to its end, or it waits for less under this load."
        if (of.shortest_s or math.inf) < 0.9 * of.wait_s
        else f"There may be more than {slots_text(of.slots)} slots, or requests wait for less than"
        f" {duration(of.wait_s)}{', or a part of it in a dependency, which gives its thread back' * (of.passes > 1)}.",
    "cold": lambda of:
        f"{of.asked} took {duration(of.first_s)} the first time"
        f"{f', most of it at {of.line}' if of.line else ''}, then {duration(of.usual_s)}: probably a connection, a"
        f" cache or an import. The prediction is for the later ones.{warmed_text(of)}",
    "unlike-alone": lambda of:
        f"{of.requests} requests by themselves, {of.asked}, took from {duration(of.least_s)} to {duration(of.most_s)}."
        f"{f' The prediction is for {duration(of.wait_s)}.' * bool(of.wait_s)}",
    "rows": lambda of:
        f"The database has {of.rows} rows after {of.created} answers with status 201. A POST was answered but not"
        " stored, or stored but not answered. Read the server's log.",
    "statements": lambda of:
        f"Postgres counted {of.statements} SQL statements for {of.asked} requests. Another program used the database,"
        " or a request was answered without it. Use a database of its own.",
    "other-slots held": lambda of:
        f"Whenever a waiting request started, its worker had {plural(of.slots, 'request')} in its handlers. So a"
        f" worker has {plural(of.slots, 'slot')}, whatever its settings say. The prediction assumes"
        f" {slots_text(of.predicted)}. {OTHER}",
    "other-slots seen-more": lambda of:
        f"A worker had {plural(of.slots, 'request')} in its handlers at the same time. So it has"
        f" {plural(of.slots, 'slot')} or more. The prediction assumes {slots_text(of.predicted)}. {OTHER}",
    "other-slots never-more": lambda of:
        f"A worker took {of.of} requests, but never had more than {of.slots} in its handlers at a time. So it has"
        f" {plural(of.slots, 'slot')}, whatever its settings say. The prediction assumes {slots_text(of.predicted)}."
        f" {OTHER}",
    "other-slots answers": lambda of:
        f"The answers came {of.slots} at a time{f' ({of.each} per worker)' if of.each else ''}. So the server works"
        f" on {of.slots} at a time. The prediction assumes {slots_text(of.predicted)}. {OTHER}",
    "other-slots inside": lambda of:
        f"The answers came {of.slots} at a time{f' ({of.each} per worker)' if of.each else ''}, but a worker had up to"
        f" {of.of} requests in its handlers. So the limit is inside the handler: a connection pool, a lock or a"
        f" semaphore. The prediction assumes {slots_text(of.predicted)}. {OTHER}",
}  # fmt: skip


UNTIL = {  # why a figure is not as exact as asked
    "too-few": "There are too few answers for an interval.",
    "time": "The time (-t) was over.",
    "stopped": "The run ended early.",
    "uneven": "The slowest requests came at a few moments only, which do not tell how often that happens.",
    "drift": "The latency drifted, so there is no single value.",
    "client": "The client was the limit: requests left late.",
}


def until_text(found: Until) -> str:
    """How exactly a figure is known."""
    asked = f"{found.figure} known to {per_cent(found.share)}, after {plural(found.requests, 'answer')}:"
    between = ""
    if found.interval_s:
        low, high = map(duration, found.interval_s)
        between = f"It is between {low} and {high} (95 %)."
    return said(asked, "reached." if found.reached else f"NOT reached. {UNTIL[found.reason]}", between)


def kept_text(of: Any) -> str:
    """How many connections a pool keeps, and how it keeps more."""
    if not of.kept:
        return "keeps none. SQLAlchemy's default pool does."
    more = f"To keep all {of.most}: pool_size={of.most}, max_overflow=0." if of.most else "To keep more: pool_size."
    return f"keeps {of.kept}, and closes the others when they are given back while no request waits. {more}"


def named_text(named: Sequence[tuple[str, float, bool]]) -> str:
    """Which programs computed: of one CPU each."""
    others = [f"{name} {per_cent(cpus)}" for name, cpus, is_connected in named if not is_connected]
    return f" ({', '.join(others)} of a CPU)" if others else ""


def warmed_text(of: Any) -> str:
    warmed = f" {plural(of.warmed, 'request')} (not counted) warmed up the server." if of.warmed else ""
    return warmed + (f" To warm up all {of.warm_up} connections: --warmup {of.warm_up}." if of.warm_up else "")


def backlog_text(of: Any) -> str:
    if not of.overflows:
        return "Packets were lost, or the listen queue of a server on another machine was full."
    return (
        "The server's listen queue was full, and TCP tried again after 0.2 to 7 s. Raise the server's backlog and"
        " net.core.somaxconn."
    )


def likely_cause(of: Any) -> str:
    """Of most of the failures; where the server has said something, that."""
    if of.unended > of.failed / 2:
        return f"{plural(of.unended, 'answer')} of these had begun and did not end. {UNENDED}"
    if getattr(of, "said", ()):
        return server_said(of)
    if getattr(of, "unserved", 0) and of.most == "timed out":
        return (
            f"{plural(of.unserved, 'connection')} got no answer at all: the server has a limit of connections, and the"
            " others were kept. Raise --worker-connections, or compare without -k."
        )
    if getattr(of, "pauses", False) and of.most in ("reset", "closed"):
        return (
            "The server may have closed a kept connection just then, as nothing had come for a while. Pause for less,"
            " or raise that time (uvicorn --timeout-keep-alive, gunicorn --keep-alive). If it did not, look in its log."
        )
    if getattr(of, "stands", False) and of.most == "timed out":
        return "Nothing went on any more: see the standstill."
    return next(text for error, text in FAILURES.items() if of.most.startswith(error))


def server_said(of: Any) -> str:
    return f"The last in the server's log: {'; '.join(of.said) or 'nothing'}. Read {of.log}."
