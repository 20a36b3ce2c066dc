"""Sends the load of a plan, from one client process or several, with every counter read just before and after.

A run calls `resolve`, `warm_up` and `measure`, in this order.
"""

from __future__ import annotations

import dataclasses
import functools
import http.client
import math
import socket
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, repeat, takewhile
from time import perf_counter

from engine import tls, workload
from engine.client import Address, Client, Exchanges, Outcome
from engine.kinds import Kind
from engine.loads import Closed, Part
from engine.machine import counters
from engine.processes import send_from
from engine.progress import MovingLine, terminal
from engine.run import Plan
from engine.until import Watch
from engine.words import Problem

WARM_UP_NUMBER = 1_000_000_000  # {n} of requests that are not counted, so that none is of a counted one, too
STEP_S = 0.01  # in which the system counts CPU time, on each CPU


def message(plan: Plan, port: int, kind: Kind, body: bytes) -> tuple[bytes, bytes]:
    """A request up to where its number belongs, and the rest."""
    host = f"[{plan.host}]" if ":" in plan.host else plan.host
    cookie = [f"Cookie: {plan.session.cookie}"] if plan.session and plan.session.cookie else []
    lines = with_one_cookie([*plan.headers, *kind.headers, *cookie])
    head = "\r\n".join([f"{kind.method} {kind.path} HTTP/1.1", *lines, ""])
    if "\nhost:" not in head.lower():
        head += f"Host: {host}{f':{port}' * (port != usual_port(plan))}\r\n"
    if not plan.keep_alive:
        head += "Connection: close\r\n"
    if body or kind.method in ("POST", "PUT", "PATCH"):
        head += f"Content-Length: {len(body)}\r\n"
    return head.encode("latin-1", "replace"), b"\r\n" + body


def usual_port(plan: Plan) -> int:
    """That a Host header leaves out (RFC 9112, 3.2: it is the authority of the URL)."""
    return 443 if plan.tls else 80


def with_one_cookie(lines: Sequence[str]) -> list[str]:
    """Header lines. A client sends one Cookie header (RFC 6265, 5.4): WSGI servers join several by a comma."""
    cookies = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("cookie:")]
    others = [line for line in lines if not line.lower().startswith("cookie:")]
    return [*others, *[f"Cookie: {'; '.join(cookies)}"] * bool(cookies)]


def messages(plan: Plan, port: int, numbered: bool) -> Iterator[bytes]:
    """The bytes of the requests, in order and without an end.

    numbered: each has an X-Request-Id, by which it is found in the access log.
    """
    one = message(plan, port, Kind(1.0, plan.method, plan.path), plan.body)
    if not plan.kinds and not numbered:
        return repeat(b"".join(one))
    mixed = (message(plan, port, kind, kind.body.encode()) for kind in workload.asked_for(plan))
    pairs: Iterator[tuple[bytes, bytes]] = mixed if plan.kinds else repeat(one)
    return (
        b"%bX-Request-Id: %d\r\n%b" % (head, number, tail) if numbered else head + tail
        for number, (head, tail) in enumerate(pairs)
    )


def warm_up(plan: Plan, address: Address) -> Exchanges:
    """Send `plan.warm_up` requests that are in no figure, as many at a time as the load has under way."""
    load = Closed(plan.warm_up, concurrency=int(min(plan.warm_up, plan.load.most_under_way)))
    number = WARM_UP_NUMBER + plan.first_number
    first = dataclasses.replace(plan, load=load, processes=1, first_number=number)
    return measure(first, address).exchanges


def measure(
    plan: Plan, address: Address, *, numbered: bool = False, server_cpu_s: Callable[[], float | None] = lambda: None
) -> Outcome:
    """Send the load, from as many processes as the plan says, but from none that would have no request or user.

    server_cpu_s: tells the CPU seconds of the server so far; None: not known, and then the CPU seconds of other
    programs are not known either. Raises Problem if the client processes cannot be started.
    """
    send_part = sender_of(plan, address, numbered)
    before, processes = counters(server_cpu_s()), int(min(plan.processes, plan.load.most_under_way))
    begun_s = perf_counter()
    try:
        outcome = send_from(send_part, Part(plan.load, 0, processes), MovingLine(plan.load).show)
    finally:
        terminal.clear()
    used = {name: count - before.get(name, math.nan) for name, count in counters(server_cpu_s()).items()}
    server_s, other_s = used.pop("server", math.nan), used.pop("others", 0.0)
    outcome = outcome._replace(kernel=used, counted_s=perf_counter() - begun_s)
    if not server_s >= 0:  # not known; or less than before, because some of its processes have ended
        return outcome
    return outcome._replace(server_cpu_s=server_s, other_cpu_s=max(0.0, other_s - STEP_S * plan.all_cpus))


def sender_of(plan: Plan, address: Address, numbered: bool = False) -> Callable[..., Outcome]:
    """What sends a part of a plan's load."""

    def send_part(part: Part, progress: Callable[..., object], begun_s: float = 0.0) -> Outcome:
        requests = islice(messages(plan, address[1], numbered), part.k, None, part.processes)
        how = plan.timeout_s, plan.method == "HEAD", plan.keep_alive, plan.first_byte
        enough = functools.partial(is_enough, Watch(plan.until)) if plan.until else lambda _: False
        return Client(address, requests, part, *how, progress, begun_s, enough, plan.tls, plan.host).run()

    return send_part


def is_enough(watch: Watch, client: Client) -> bool:
    """Whether the answers so far show a figure as exactly as it is wanted."""
    done = client.sent - client.in_flight
    if done < watch.next:
        return False
    rows, load, begun_s = client.exchanges, client.part.load, client.begun_s
    # Up to the first that is still under way: to leave it out would leave out the slow ones.
    answered_s = list(takewhile(bool, rows.answered_s[: client.sent]))
    latencies_s = [
        end_s - (begun_s + load.due_s(i) if load.is_scheduled else rows.started_s[i])
        for i, end_s in enumerate(answered_s)
        if not rows.error[i]
    ]
    return watch.is_over(latencies_s)


def resolve(plan: Plan) -> Address:
    """The address to ask: of several (localhost is 127.0.0.1 and ::1) the first that accepts a connection.

    Raises Problem for an unknown name, where no address accepts one, and for a certificate that is not to be trusted.
    """
    host, port = plan.host, plan.port
    try:
        with socket.create_connection((host, port), 2) as sock:
            address = tuple(sock.getpeername())
            if plan.tls:
                tls.secured(sock, plan.tls, host).close()
            return address
    except (OSError, UnicodeError) as error:
        raise Problem(f"cannot connect to {host}:{port}: {error}") from None


def connection_to(plan: Plan, address: Address) -> http.client.HTTPConnection:
    """A connection for one request outside of a load. Raises OSError, and Problem as resolve() does."""
    connection = http.client.HTTPConnection(plan.host, address[1], timeout=plan.timeout_s)
    connection.default_port = usual_port(plan)
    sock = socket.create_connection(address[:2], plan.timeout_s)
    connection.sock = tls.secured(sock, plan.tls, plan.host) if plan.tls else sock
    return connection
