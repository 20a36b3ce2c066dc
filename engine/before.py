"""What is sent before the load: requests that warm up the server, and requests by themselves, to see what one costs.

None of them is in a figure of the run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from engine import access_log, plans, report_before, send, victim, where, workload
from engine.alone import LONE_S, MOST_S, Alone, First, alone_of, asks_again, cold_requests
from engine.client import ERRORS, Exchanges, is_success
from engine.kinds import Kind
from engine.loads import Burst
from engine.report_words import UNENDED
from engine.run import Plan
from engine.server import RunningServer, check_loaded, telling_lines
from engine.signals import Interrupted, signals
from engine.words import Problem


@dataclass(frozen=True)
class Site:
    """A server that runs: ours, or one that ran before."""

    address: tuple[Any, ...]
    server: RunningServer | None = None

    @property
    def log(self) -> Path | None:
        return self.server.access_log if self.server else None


@dataclass(frozen=True)
class Before:
    """What was sent before the run, in no figure."""

    sent: int = 0
    created: int = 0  # answers with 201
    lone_s: Sequence[float] = ()
    victim_s: float | None = None  # a lone request to the victim
    alone: Sequence[Alone] = ()  # of each kind


def send_before(plan: Plan, site: Site) -> tuple[Plan, Before]:
    """Warm up, then send lone requests: the plan with what they and the server's process show.

    Lone requests end when they are alike, and with the first that fails. Raises Interrupted, and Problem where the
    service answers with an error.
    """
    plan = with_login(with_anyio_threads(plan, site), site)
    sent, single = list[Exchanges](), workload.plans_of_kinds(plan) if plan.kinds else [plan]
    firsts = warmed_up(plan, single, site, sent)
    if signals.received:  # there is nothing to report yet
        raise Interrupted
    found = [send_alone(one, site, sent, first, len(single)) for one, first in zip(single, firsts, strict=True)]
    of_kinds = [shown for _, shown in found if shown]
    warm_others(plan, site, of_kinds, sent)
    lone_s = () if plan.kinds else found[0][0]
    before = before_of(sent, lone_s, lone_victim_s(plan, site), of_kinds)
    plan = with_kind_waits(plan, [times_s for times_s, _ in found])
    if site.log:
        plan = with_body(plan, access_log.parts_of_body(site.log), sent)
    return plans.with_lone_requests(plan, lone_s), before


def send_again(plan: Plan, site: Site, before: Before) -> Before:
    """More requests by themselves, right before the load.

    A client that has just computed a prediction changes which process gets most of the next connections: of two
    processes, the favourite gets 57 % of them and not 64 %. After some requests it is as before.
    """
    sent, end_s = list[Exchanges](), perf_counter() + LONE_S
    while len(sent) < plan.lone_requests and perf_counter() < end_s and not signals.received:
        send_one(plan, site, sent)
    more = before_of(sent, (), None, ())
    return dataclasses.replace(before, sent=before.sent + more.sent, created=before.created + more.created)


def warm_others(plan: Plan, site: Site, of_kinds: Sequence[Alone], sent: list[Exchanges]) -> None:
    """Where the first request found its worker cold, the other workers may be, too."""
    if plan.warm_up_if_cold and any(one.cold for one in of_kinds):
        sent.append(send.warm_up(dataclasses.replace(plan, warm_up=plan.warm_up_if_cold), site.address))


def with_body(plan: Plan, parts: int, sent: Sequence[Exchanges]) -> Plan:
    """The plan with what sends the body. parts: in how many one of AnyIO's threads made the last one."""
    if parts:
        return plans.with_parts(plan, parts)
    last = sent[-1] if sent else Exchanges()
    took_s = [end_s - begin_s for begin_s, end_s in zip(last.started_s, last.answered_s, strict=True)]
    body_s = [end_s - first_s for first_s, end_s in zip(last.first_byte_s, last.answered_s, strict=True)]
    # Of a request that failed it is not known when its answer began.
    is_stream = not plan.kinds and not any(last.error) and sum(body_s) > 0.5 * sum(took_s)
    return plans.with_body_outside(plan) if is_stream else plan


def before_of(
    sent: Sequence[Exchanges], lone_s: Sequence[float], victim_s: float | None, of_kinds: Sequence[Alone]
) -> Before:
    status = [code for one in sent for code in one.status]
    return Before(len(status), status.count(201), lone_s, victim_s, of_kinds)


def warmed_up(plan: Plan, single: Sequence[Plan], site: Site, sent: list[Exchanges]) -> list[First | None]:
    """Warm up the server, if the plan says so: a request of each kind by itself, and then the others together. What the
    first of each kind shows."""
    if not plan.warm_up:
        return [None] * len(single)
    firsts = [send_first(one, site, sent) for one in single]
    if (left := plan.warm_up - len(sent)) > 0:
        sent.append(send.warm_up(dataclasses.replace(plan, warm_up=left), site.address))
        check_end(plan, sent[-1])
    return firsts


def with_kind_waits(plan: Plan, times_of_kinds: Sequence[Sequence[float]]) -> Plan:
    """The plan with what each of its kinds takes by itself, where that is known of all that were timed; with
    --any-status, of one of them. Each of the others is assumed to take as long as these on average. What the user
    states stays as it is."""
    is_stated = plan.wait_s is not None and not plan.is_target
    is_known = any if plan.any_status else all
    if not plan.kinds or not is_known(times_of_kinds) or is_stated:
        return plan
    waits_s = {kind: round(median(times), 6) for kind, times in zip(plan.kinds, times_of_kinds, strict=False) if times}
    usual_s = plans.mean_wait_s([*waits_s], [*waits_s.values()])
    return dataclasses.replace(plan, kind_waits_s=tuple(waits_s.get(kind, usual_s) for kind in plan.kinds))


def with_anyio_threads(plan: Plan, site: Site) -> Plan:
    """The plan with AnyIO's threads as a worker of the user's app found them."""
    if not plan.launch or plan.is_target or not site.log or plan.slots_stated:
        return plan
    return plans.with_launch(plan, dataclasses.replace(plan.launch, anyio_threads=access_log.anyio_threads(site.log)))


def send_first(plan: Plan, site: Site, sent: list[Exchanges]) -> First | None:
    """The first request of a kind: how long it takes, and the line of code where it stands for most of that time. None
    where that is of no use, or it fails."""
    if plan.lone_requests < 2 or plan.is_target:
        return None
    server, samples = site.server, list[Mapping[str, Any]]()
    with server.samples.into(samples) if server and server.samples else contextlib.nullcontext():
        found = send_one(plan, site, sent)
    if not found.status or not all(map(is_success, found.status, found.error)):
        return None
    return First(latency_s(found, plan), first_line_of(samples, found, server.code) if server and samples else None)


def first_line_of(samples: Sequence[Mapping[str, Any]], one: Exchanges, code: str) -> str | None:
    """Where a request stood for most of its time."""
    seen = where.where_of(samples, one.started_s, one.answered_s, code, True)
    place = seen.places[0] if seen and seen.places else None
    return place.line if place and place.requests > 0.5 else None


def send_one(plan: Plan, site: Site, sent: list[Exchanges]) -> Exchanges:
    """One more request by itself."""
    number = send.WARM_UP_NUMBER // 2 + plan.first_number + len(sent)
    one = dataclasses.replace(lone_plan(plan), first_number=number)
    sent.append(send.measure(one, site.address).exchanges)
    check_end(plan, sent[-1])
    if plan.launch and site.server and site.log and not any(sent[-1].status):
        check_loaded(access_log.text_of(site.log), site.server.server_log, plan.launch)
    return sent[-1]


def latency_s(one: Exchanges, plan: Plan) -> float:
    """Of a request by itself. Where the load keeps its connections, without what a new one costs."""
    keeps = plan.keep_alive and plan.load.is_steady and not plan.first_byte
    begins_s = one.sent_s if keeps else one.started_s
    return one.answered_s[0] - begins_s[0]


def send_alone(
    plan: Plan, site: Site, sent: list[Exchanges], first: First | None, kinds: int
) -> tuple[list[float], Alone | None]:
    """How long requests take that are sent one after the other, seconds, without those at the beginning that were cold;
    and what all of them show. They end when they are alike, and with the first that fails.

    first: a request before the warm-up. kinds: that share the time. Raises Interrupted, and Problem where the service
    answers with an error.
    """
    times_s = list[float]()
    while asks_again(times_s, plan.lone_requests, plan.workers, MOST_S / kinds):
        found = send_one(plan, site, sent)
        if signals.received:
            raise Interrupted
        check_answer(plan, site, found.status[0])
        if not all(map(is_success, found.status, found.error)):
            break
        times_s.append(latency_s(found, plan))
    asked = plan.kinds[0].name if plan.kinds else f"{plan.method} {plan.path}"
    shown = alone_of(asked, times_s, first, plan.workers)
    return times_s[cold_requests(times_s) :], shown


def with_login(plan: Plan, site: Site) -> Plan:
    """The plan with what its login gives; as it is without one. Raises Problem."""
    login = plan.login
    if not login:
        return plan
    headers = named_headers([*plan.headers, *login.headers])
    try:
        with contextlib.closing(send.connection_to(plan, site.address)) as connection:
            connection.request(login.method, login.path, login.body.encode() or None, headers)
            answer = connection.getresponse()
            body, cookies = answer.read(), answer.headers.get_all("Set-Cookie", [])
    except (OSError, http.client.HTTPException) as error:
        raise Problem(f"the login, {login.method} {login.path}, has no answer: {error}") from None
    return dataclasses.replace(plan, session=workload.session_of(login, answer.status, body, cookies))


def named_headers(lines: Sequence[str]) -> dict[str, str]:
    """By name. Without Accept-Encoding: these answers are read here, and are not to be compressed."""
    pairs = [line.split(":", 1) for line in send.with_one_cookie(lines)]
    return {name: value.strip() for name, value in pairs if name.lower() != "accept-encoding"}


def check_end(plan: Plan, found: Exchanges) -> None:
    """Raises Problem where no answer has ended, but they have begun."""
    has_begun = [
        at_s > 0 and ERRORS[error] == "timed out" for at_s, error in zip(found.first_byte_s, found.error, strict=True)
    ]
    if has_begun and all(has_begun):
        asked = f"workload {plan.workload}" if len(plan.kinds) > 1 else f"{plan.method} {plan.path}"
        raise Problem(f"{asked}: the answer begins, and does not end within {plan.timeout_s:g} s. {UNENDED}")


def check_answer(plan: Plan, site: Site, status: int) -> None:
    """Raises Problem where a request by itself is answered with an error: what it says, and what may be wrong."""
    if status >= 400 and not plan.is_target and not plan.any_status:
        refuse(plan, site, status)


def check_victim(alone: Plan, site: Site, statuses: Sequence[int]) -> None:
    """Raises Problem where it would be refused all the time; of a target, too."""
    if min(statuses, default=0) >= 400 and not alone.any_status:
        refuse(alone, site, statuses[0])


def refuse(plan: Plan, site: Site, status: int) -> None:
    """Raises Problem."""
    again, body = status, ""
    with contextlib.suppress(OSError, http.client.HTTPException):
        again, body = asked_once(plan, site)
    server, launch = site.server, plan.launch
    said = telling_lines(server.server_log) if server and status >= 500 else ()
    routes = launch.routes if launch and status in (404, 405) else ()
    raise Problem(report_before.refused_text(plan, status, again, body, said, routes))


def asked_once(plan: Plan, site: Site) -> tuple[int, str]:
    """Status and beginning of the body of one answer."""
    kind = next(workload.asked_for(plan)) if plan.kinds else Kind(1.0, plan.method, plan.path)
    cookie = [f"Cookie: {plan.session.cookie}"] if plan.session and plan.session.cookie else []
    headers = named_headers([*plan.headers, *kind.headers, *cookie])
    with contextlib.closing(send.connection_to(plan, site.address)) as connection:
        connection.request(kind.method, kind.path, kind.body.encode() or plan.body or None, headers)
        answer = connection.getresponse()
        return answer.status, " ".join(answer.read(2000).decode(errors="replace").split())[:200]


def lone_victim_s(plan: Plan, site: Site) -> float | None:
    """How long the victim takes by itself: the median of three requests; None: there is none, or one failed."""
    if not plan.victim:
        return None
    alone = lone_plan(victim.victim_plan(plan))
    found = [send.measure(alone, site.address).exchanges for _ in range(3)]
    check_victim(alone, site, [code for one in found for code in one.status])
    if not all(one.status and is_success(one.status[0], one.error[0]) for one in found):
        return None
    return median(latency_s(one, alone) for one in found)


def lone_plan(plan: Plan) -> Plan:
    """One request by itself."""
    return dataclasses.replace(plan, load=Burst(1), keep_alive=False, processes=1)
