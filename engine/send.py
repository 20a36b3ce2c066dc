"""Sends the load of a plan, from one client process or several, with every counter read just before and after.

A run calls `resolve`, `warm_up` and `measure`, in this order.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import operator
import random
import socket
import sys
from collections.abc import Callable, Iterator
from time import perf_counter

from engine.client import Address, Client, Exchanges, Outcome, run_client
from engine.loads import Closed, Part
from engine.machine import cpu_seconds, kernel_counters
from engine.processes import send_from
from engine.run import Plan
from engine.words import Problem

QUIET_S = 5.0  # without any answer for so long, say a word
CLEAR = "\r\033[K"  # a terminal's line


def message(plan: Plan, port: int, method: str, path: str, body: bytes) -> tuple[bytes, bytes]:
    """A request up to where its number belongs, and the rest."""
    host = f"[{plan.host}]" if ":" in plan.host else plan.host
    lines = [f"{method} {path} HTTP/1.1", *plan.headers]
    if not any(header.lower().startswith("host:") for header in plan.headers):
        lines.append(f"Host: {host}:{port}")
    if not plan.keep_alive:
        lines.append("Connection: close")
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, ""]).encode("latin-1"), b"\r\n" + body


def messages(plan: Plan, port: int, numbered: bool) -> Iterator[bytes]:
    """The bytes of the requests, in order and without an end.

    numbered: each has an X-Request-Id, by which it is found in the access log. A mix is the same in every run, since
    its dice have a fixed seed; what is not numbered (the warm-up) differs from what is.
    """
    pairs = mixed(plan, port, numbered)
    if not plan.kinds:
        pairs = itertools.repeat(message(plan, port, plan.method, plan.path, plan.body))
        if not numbered:
            return itertools.repeat(b"".join(next(pairs)))
    return (
        b"%bX-Request-Id: %d\r\n%b" % (head, number, tail) if numbered else head + tail
        for number, (head, tail) in enumerate(pairs)
    )


def mixed(plan: Plan, port: int, numbered: bool) -> Iterator[tuple[bytes, bytes]]:
    dice, shares = random.Random(f"{plan.kinds} {numbered}"), [kind.share for kind in plan.kinds]
    for number in itertools.count():
        (kind,) = dice.choices(plan.kinds, shares)
        path = kind.path.replace("{id}", str(dice.randint(1, plan.ids)))
        body = kind.body.replace("{n}", f"{number}" if numbered else f"warm-up-{number}")
        yield message(plan, port, kind.method, path, body.encode())


def warm_up(plan: Plan, address: Address) -> Exchanges:
    """Send `plan.warm_up` requests that are in no figure, as many at a time as the load has under way."""
    load = Closed(plan.warm_up, concurrency=int(min(plan.warm_up, plan.load.most_under_way)))
    return send_part(plan, address, False, Part(load), lambda *_: None).exchanges


def measure(
    plan: Plan, address: Address, *, numbered: bool = False, server_cpu_s: Callable[[], float | None] = lambda: None
) -> Outcome:
    """Send the load, from as many processes as the plan says, but from none that would have no request or user.

    server_cpu_s: tells the CPU seconds of the server so far; None: not known, and then the CPU seconds of other
    programs are not known either. Raises Problem if the client processes cannot be started.
    """
    progress, processes = Progress(plan), int(min(plan.processes, plan.load.most_under_way))
    send = functools.partial(send_part, plan, address, numbered)
    if processes > 1:
        send = functools.partial(send_from, send)
    kernel, before = kernel_counters(), cpu_seconds(server_cpu_s())
    try:
        outcome = send(Part(plan.load, 0, processes), progress.show)
    finally:
        progress.write(CLEAR)
    server_s, other_s = map(operator.sub, cpu_seconds(server_cpu_s()), before)
    outcome = outcome._replace(kernel={name: count - kernel[name] for name, count in kernel_counters().items()})
    if not server_s >= 0:  # not known; or less than before, because some of its processes have ended
        return outcome
    return outcome._replace(server_cpu_s=round(server_s, 6), other_cpu_s=round(max(0.0, other_s), 2))


def send_part(
    plan: Plan, address: Address, numbered: bool, part: Part, progress: Callable[..., object], begun_s: float = 0.0
) -> Outcome:
    """Send what one client process of a load has to."""
    requests = itertools.islice(messages(plan, address[1], numbered), part.k, None, part.processes)
    client = Client(address, requests, part, plan.timeout_s, plan.keep_alive, progress, begun_s)
    exchanges, why = run_client(client)
    return Outcome(exchanges, client.begun_s, client.cpu_s, client.sockets_opened, {}, why, spun_s=client.spun_s)


def resolve(host: str, port: int) -> Address:
    """The address to ask: of several (localhost is 127.0.0.1 and ::1) the first that accepts a connection.

    Raises Problem for an unknown name, and where no address accepts one.
    """
    try:
        with socket.create_connection((host, port), 2) as sock:
            address: Address = sock.getpeername()
            return address
    except ConnectionRefusedError:
        raise Problem(f"nothing listens on {host}:{port}") from None
    except (OSError, UnicodeError) as error:
        raise Problem(f"cannot connect to {host}:{port}: {error}") from None


class Progress:
    """Says on stderr how far a load is: a line on a terminal that is written over, and a word if no answer comes."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.quiet_s = plan, QUIET_S

    def show(self, begun_s: float, sent: int, in_flight: int, failed: int) -> None:
        """Told some ten times a second; begun_s: on the clock perf_counter."""
        elapsed_s, done, load = perf_counter() - begun_s, sent - in_flight, self.plan.load
        if elapsed_s > self.quiet_s and in_flight and done == failed:
            self.quiet_s = math.inf
            self.write(
                f"{sent} sent, no answer for {elapsed_s:.0f} s; the time-out is {self.plan.timeout_s:g} s (-s)\n", True
            )
        share = max(elapsed_s / load.time_limit_s, done / load.requests)
        left = f", {max(0.0, elapsed_s / share - elapsed_s):.0f} s left" if share > 0.01 else ""
        self.write(
            f"{CLEAR}{elapsed_s:6.1f} s  {sent} sent, {in_flight} under way, {done / (elapsed_s or 1):.0f}/s{left}"
        )

    def write(self, text: str, always: bool = False) -> None:
        """always: not only on a terminal."""
        if sys.stderr and (always or sys.stderr.isatty()):
            with contextlib.suppress(OSError, ValueError):
                print(text, end="", file=sys.stderr, flush=True)
