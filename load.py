#!/usr/bin/env python3
"""load.py - ApacheBench in Python: send requests to any HTTP server, keep every request's times.

    python load.py http://127.0.0.1:8000/ -n 5000 -c 500 -k    closed loop: 500 under way
    python load.py http://127.0.0.1:8000/ -n 100               burst: all at once
    python load.py http://127.0.0.1:8000/ --rate 100 -t 10     open loop: on schedule
    python load.py http://127.0.0.1:8000/ --rate 100 -t 10 --arrivals poisson
    python load.py http://127.0.0.1:8000/ --ramp 5s:50,10s:200 users that change
    python load.py http://127.0.0.1:8000/ -n 100 --json - | jq .runs[0].latency_s

The letters are ApacheBench's, but no -c means all at once. A closed loop sends
the next request when one is answered: a stall of the server stops the sending
too, and few requests meet it. An open loop sends when a request is due, whatever
the server does, and counts latency from when it was *due*; service time, from
its sending, stands beside it. A ramp is a closed loop whose number of users
changes. --think makes a user wait between an answer and the next request.

Exactly n requests are sent. Answers with a status other than 2xx, and requests
without a whole answer, are failures, counted by name and in no percentile. A
percentile is a measured value (nearest rank); none is given that the sample is
too small for. Each run audits itself: what is off becomes a warning.

How it works: all sockets sit in one private epoll, whose own descriptor is the
only thing asyncio watches; one callback drains all that is ready. Parsing never
touches a socket, pacing never reads a clock. Exit code: 0 all answered (2xx),
1 some failed, 2 wrong usage, 130 and 143 interrupted (with what was measured).
Linux and macOS, Python 3.10 or newer, nothing else: this file works alone.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import contextlib
import errno
import functools
import gc
import itertools
import json
import math
import os
import platform
import random
import re
import resource
import select
import selectors
import shlex
import signal
import socket
import sys
import textwrap
import time
import urllib.parse
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, NoReturn, TextIO, TypedDict

MAX_HEAD_BYTES = 64 * 1024  # head of a response, its chunk lines, its trailers: more is an attack or a mistake
MAX_BODY_BYTES = 64 * 1024 * 1024  # bodies are counted, not kept; an endless one must end
NO_BODY = (204, 304)
READ_BYTES = 64 * 1024
SYN_RETRY_S = 0.9  # Linux sends a lost SYN again after 1 s, then 2 and 4 s later (TCP_TIMEOUT_INIT)
DELAYED_ACK_S = (0.035, 0.1)  # Linux holds back an ACK for 40 ms (TCP_DELACK_MIN), and timers come late
SOCK_NONBLOCK = getattr(socket, "SOCK_NONBLOCK", 0)  # Linux: one system call less for each connection
TIMEOUT_S = 30.0
QUIET_S = 5.0  # without any answer for so long, say a word

# ---------------------------------------------------------------- what to send, and when


class Problem(Exception):
    """Something the user can mend: printed as one line. exit_code as in the manual above."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Pace(NamedTuple):
    """When requests may be sent. Reads no clock and sees no socket: a table of cases tests it."""

    requests: float = math.inf
    concurrency: float = math.inf
    rate: float | None = None  # requests/s
    stages: tuple[tuple[float, int], ...] = ()  # seconds, and the virtual users at their end, as in k6
    time_limit_s: float = math.inf
    think_s: float = 0.0  # of a user, between an answer and the next request
    schedule: Sequence[float] = ()  # when each request of an open loop is due; empty: every 1 / rate

    @property
    def mode(self) -> str:
        return "open" if self.rate else "ramp" if self.stages else "closed" if self.concurrency < math.inf else "burst"

    @property
    def most_under_way(self) -> float:
        return min(self.requests, max((users for _, users in self.stages), default=self.concurrency))

    def due_s(self, index: int) -> float:
        """When request `index` of an open loop is due, in seconds since the run began."""
        return self.schedule[index] if self.schedule else index / (self.rate or math.nan)

    @property
    def due_in_all(self) -> int:
        """How many requests an open loop should send: all that are due before its time limit.

        >>> Pace(rate=50_000.0, time_limit_s=2.0).due_in_all, Pace(7, rate=1.0).due_in_all
        (100000, 7)
        """
        if self.schedule:
            return bisect.bisect_left(self.schedule, self.time_limit_s)
        return int(min(self.requests, math.ceil(round(self.time_limit_s * (self.rate or 0.0), 6))
                       if self.time_limit_s < math.inf else math.inf))  # fmt: skip

    def limits(self, elapsed_s: float) -> tuple[float, float]:
        """How many requests may have been sent in all by now, and how many may be under way at once."""
        if self.schedule:
            return bisect.bisect_right(self.schedule, elapsed_s), math.inf
        if self.rate:
            return min(self.requests, int(elapsed_s * self.rate) + 1), math.inf
        if not self.stages:
            return self.requests, self.concurrency
        begin_s, users = 0.0, 0
        for stage_s, next_users in self.stages:
            if elapsed_s < begin_s + stage_s:
                return self.requests, math.ceil(users + (next_users - users) * (elapsed_s - begin_s) / stage_s)
            begin_s, users = begin_s + stage_s, next_users
        return self.requests, users

    def next_change_s(self, elapsed_s: float) -> float:
        """When to ask for the limits again."""
        if self.schedule:
            i = bisect.bisect_right(self.schedule, elapsed_s)
            return min(self.schedule[i] if i < len(self.schedule) else math.inf, self.time_limit_s)
        if self.rate:
            return min((int(elapsed_s * self.rate) + 1) / self.rate, self.time_limit_s)
        return min(elapsed_s + 0.02, self.time_limit_s) if self.stages else self.time_limit_s


BURST = Pace(16)


def poisson_schedule(rate: float, requests: float, time_limit_s: float, seed: int) -> array[float]:
    """Arrival times of a Poisson process from time 0 on: `requests` of them, or those before the time limit."""
    draw, due_s, now_s = random.Random(seed).expovariate, array("d"), 0.0
    while len(due_s) < requests and now_s < time_limit_s:
        due_s.append(now_s)
        now_s += draw(rate)
    return due_s


class Kind(NamedTuple):
    """One kind of request in a mix; {id} is a number from 1 to Traffic.ids, {n} the number of the request."""

    share: float
    method: str
    path: str
    body: str = ""


@dataclass(frozen=True)
class Traffic:
    """What to send, where to, and at what pace."""

    host: str = "127.0.0.1"
    port: int = 80
    method: str = "GET"
    path: str = "/"
    headers: tuple[str, ...] = ()
    body: bytes = b""
    pace: Pace = BURST
    keep_alive: bool = False
    timeout_s: float = TIMEOUT_S
    kinds: tuple[Kind, ...] = ()  # a mix of requests instead of method, path and body
    ids: int = 0
    warm_up: int = 0  # requests to send before, in no figure

    def message(self, method: str, path: str, body: bytes) -> tuple[bytes, bytes]:
        """A request up to where its number belongs, and the rest."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        names = [header.partition(":")[0].lower() for header in self.headers]
        lines = [f"{method} {path} HTTP/1.1", *self.headers]
        lines += [f"Host: {host}:{self.port}"] if "host" not in names else []
        lines += [] if self.keep_alive else ["Connection: close"]
        lines += [f"Content-Length: {len(body)}"] if body or method in ("POST", "PUT", "PATCH") else []
        return "\r\n".join([*lines, ""]).encode("latin-1"), b"\r\n" + body

    def messages(self, numbered: bool) -> Iterator[bytes]:
        """The bytes of the requests, in order; numbered ones carry what a server's access log is matched by.

        A mix is the same in every run, since its dice have a fixed seed; unnumbered ones differ from numbered ones.
        """
        if self.kinds:
            return self._mixed_messages(numbered)
        head, tail = self.message(self.method, self.path, self.body)
        if not numbered:
            return itertools.repeat(head + tail)
        return (b"%bX-Request-Id: %d\r\n%b" % (head, index, tail) for index in itertools.count())

    def _mixed_messages(self, numbered: bool) -> Iterator[bytes]:
        dice, shares = random.Random(f"{self.kinds} {numbered}"), [kind.share for kind in self.kinds]
        for index in itertools.count():
            (kind,) = dice.choices(self.kinds, shares)
            path = kind.path.replace("{id}", str(dice.randint(1, self.ids)))
            body = kind.body.replace("{n}", f"{index}" if numbered else f"warm-up-{index}")
            head, tail = self.message(kind.method, path, body.encode())
            yield b"%bX-Request-Id: %d\r\n%b" % (head, index, tail) if numbered else head + tail


# ---------------------------------------------------------------- raw times

ERRORS = (
    "", "refused", "reset", "closed", "timed out", "malformed", "truncated", "too large",
    "no local port", "too many open files", "connect failed", "interrupted", "given up",
)  # fmt: skip
ERRNO_NAMES = {
    errno.ECONNREFUSED: "refused", errno.ECONNRESET: "reset", errno.EPIPE: "reset", errno.ETIMEDOUT: "timed out",
    errno.EADDRNOTAVAIL: "no local port", errno.EMFILE: "too many open files", errno.ENFILE: "too many open files",
}  # fmt: skip


class Exchanges:
    """Every request's raw times in columns, request i at index i; perf_counter seconds, 0.0 for "never".

    started_s: its connect began (or, on a kept connection, it was sent); sent_s: connected and handed to the kernel;
    first_byte_s and answered_s: of the answer; a failed request's answered_s is when it failed.
    """

    COLUMNS = ("started_s", "sent_s", "first_byte_s", "answered_s", "body_bytes", "status", "error")
    BLOCK = 4096  # rows to grow by

    def __init__(self) -> None:
        self.started_s, self.sent_s, self.first_byte_s, self.answered_s = (array("d") for _ in range(4))
        self.body_bytes = array("L")
        self.status = array("H")
        self.error = array("B")

    def grow(self) -> None:
        for column in vars(self).values():
            column.frombytes(bytes(column.itemsize * self.BLOCK))

    def finish(self, rows: int) -> None:
        """Cut what was not used, and write down the two moments that a run leaves out because they are known."""
        for column in vars(self).values():
            del column[rows:]
        for i in range(rows):
            if not self.error[i]:
                self.sent_s[i] = self.sent_s[i] or self.started_s[i]  # on a kept connection
                self.first_byte_s[i] = self.first_byte_s[i] or self.answered_s[i]  # the answer came in one piece


class Measured(NamedTuple):
    """What a run leaves, before any sum is made of it."""

    exchanges: Exchanges
    begun_s: float
    client_cpu_s: float
    sockets_opened: int
    kernel: dict[str, int]  # counters during the run
    warm_up: Exchanges
    stopped: str = ""  # why the sending ended early: a signal's name, or what happened
    server_cpu_s: float | None = None  # known to whoever started the server


# ---------------------------------------------------------------- read HTTP, without any I/O


class HTTPError(Exception):
    """A response that cannot be understood; kind is one of ERRORS."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Head(NamedTuple):
    """What a response's head says: how its body ends, and whether the connection stays."""

    size: int  # of the head itself, its blank line included
    status: int
    length: int | None  # of the body; None: not told
    chunked: bool
    keep_alive: bool
    total: int  # bytes of the whole response where the head alone tells; else -1


# RFC 9112: a status line, then `name: value` lines. As section 2.2 allows, a bare LF ends a line too.
HEAD_END = re.compile(rb"\n\r?\n")
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [\t \x21-\x7e\x80-\xff]*)?")
HEADER_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00\r\n]*?)[ \t]*")
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")


@functools.lru_cache(256)  # a server sends the same head many times within a second
def parse_head(data: bytes) -> Head:
    """Parse bytes that begin with a response head and hold its blank line. Raises HTTPError("malformed").

    >>> parse_head(b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\n")
    Head(size=38, status=200, length=5, chunked=False, keep_alive=True, total=43)
    """
    end = HEAD_END.search(data)
    assert end
    head = re.sub(rb"\r?\n[ \t]+", b" ", data[: end.end()])  # section 5.2: a folded line is one line
    lines = re.split(rb"\r?\n", head)
    if not (match := STATUS_LINE.fullmatch(lines[0])):
        raise HTTPError("malformed", f"no HTTP/1 status line: {lines[0][:60]!r}")
    keep_alive, status = match[1] == b"1", int(match[2])
    lengths, codings = set(), []
    for line in lines[1:-2]:
        if not (header := HEADER_LINE.fullmatch(line)):
            raise HTTPError("malformed", f"no header line: {line[:60]!r}")
        name, value = header[1].lower(), header[2].lower()
        if name == b"content-length":
            lengths |= {part.strip(b" \t") for part in value.split(b",")}
        elif name == b"transfer-encoding":
            codings.append(value)
        elif name == b"connection":
            options = {part.strip(b" \t") for part in value.split(b",")}
            keep_alive = (keep_alive or b"keep-alive" in options) and b"close" not in options
    if codings not in ([], [b"chunked"]):
        raise HTTPError("malformed", f"transfer-encoding {codings}")
    if len(lengths) > 1 or not all(re.fullmatch(rb"[0-9]{1,19}", length) for length in lengths):
        raise HTTPError("malformed", f"content-length {lengths}")
    length = int(lengths.pop()) if lengths else None
    told = length is not None and not codings and status >= 200 and status not in NO_BODY
    total = end.end() + length if told and length is not None else -1
    return Head(end.end(), status, length, bool(codings), keep_alive, total)


class ResponseParser:
    """Reads one response, however its bytes are split; bodies are counted, not kept.

    feed() takes what arrived and is True once the response is complete; eof() says that no more will come. Both raise
    HTTPError, and neither touches a socket. Which body follows which head is RFC 9112, section 6.3:

        any 1xx                     no body, and the real head follows (101 is not asked for: malformed)
        204, 304, answer to HEAD    no body
        Transfer-Encoding: chunked  chunks, then trailers up to a blank line
        Content-Length: n           n bytes
        none of these               all bytes until the server closes

    What the table does not say: bytes after a complete response are malformed, since nothing more was asked.
    """

    __slots__ = ("body_bytes", "fresh", "is_head_request", "keep_alive", "left", "pending", "state", "status")

    def __init__(self, is_head_request: bool = False) -> None:
        self.reset(is_head_request)

    def reset(self, is_head_request: bool) -> None:
        self.is_head_request = is_head_request
        self.fresh = not is_head_request  # nothing fed yet
        self.state = "head"  # head, body, close, chunk line, chunk, chunk end, trailers, done
        self.pending = b""  # bytes of an unfinished line or head
        self.status = self.body_bytes = self.left = 0
        self.keep_alive = False

    def feed(self, data: bytes) -> bool:
        if self.fresh and (end := data.find(b"\r\n\r\n") + 4) > 3:
            size, self.status, _, _, self.keep_alive, total = parse_head(data[:end])
            if total == len(data):  # a whole response in one piece: the steps below would come to the same, slower
                self.body_bytes = total - size
                return True
        self.fresh = False
        if self.pending:
            data = self.pending + data
            self.pending = b""
        while data:
            data = self._step(data)
            if self.state == "done":
                if data:
                    raise HTTPError("malformed", f"bytes after the response: {data[:60]!r}")
                return True
        return False

    def eof(self) -> bool:
        if self.state == "close":
            return True
        if self.state == "head" and not self.pending and not self.status:
            raise HTTPError("closed", "the connection was closed without an answer")
        raise HTTPError("truncated", f"the connection was closed in the middle of the response ({self.state})")

    def _step(self, data: bytes) -> bytes:
        """Consume what the present state can; b"" when it needs more."""
        if self.state == "head":
            return self._head(data)
        if self.state in ("body", "chunk"):
            taken = min(self.left, len(data))
            self._count(taken)
            self.left -= taken
            if not self.left:
                self.state = "done" if self.state == "body" else "chunk end"
            return data[taken:]
        if self.state == "close":
            self._count(len(data))
            return b""
        return self._line(data)

    def _head(self, data: bytes) -> bytes:
        end = data.find(b"\r\n\r\n") + 4
        if end == 3:
            match = HEAD_END.search(data)  # a server that ends its lines with a bare LF
            end = match.end() if match else 0
        if end > MAX_HEAD_BYTES or (not end and len(data) > MAX_HEAD_BYTES):
            raise HTTPError("too large", f"a head of more than {MAX_HEAD_BYTES} bytes")
        if not end:
            self.pending = data
            return b""
        size, self.status, length, chunked, self.keep_alive, _ = parse_head(data[:end])
        if 100 <= self.status < 200:  # the real head is still to come
            if self.status == 101:
                raise HTTPError("malformed", "101 Switching Protocols, which was not asked for")
        elif self.is_head_request or self.status in NO_BODY:
            self.state = "done"
        elif chunked:
            self.state = "chunk line"
        elif length is None:
            self.state, self.keep_alive = "close", False
        else:
            if length > MAX_BODY_BYTES:
                raise HTTPError("too large", f"a body of {length} bytes")
            self.state, self.left = ("body", length) if length else ("done", 0)
        return data[size:]

    def _line(self, data: bytes) -> bytes:
        """The lines of a chunked body: sizes, the empty one after each chunk, trailers."""
        end = data.find(b"\n") + 1
        if not end:
            if len(data) > MAX_HEAD_BYTES:
                raise HTTPError("too large", f"a line of more than {MAX_HEAD_BYTES} bytes")
            self.pending = data
            return b""
        line = data[: end - 2] if data[end - 2 : end] == b"\r\n" else data[: end - 1]
        if self.state == "chunk line":
            if not (match := CHUNK_LINE.fullmatch(line)):
                raise HTTPError("malformed", f"no chunk size: {line[:60]!r}")
            self.left = int(match[1], 16)
            self.state = "chunk" if self.left else "trailers"
            if not self.left:
                self.left = MAX_HEAD_BYTES  # what trailers may take
        elif self.state == "chunk end":
            if line:
                raise HTTPError("malformed", f"a chunk goes on past its size: {line[:60]!r}")
            self.state = "chunk line"
        elif not line:
            self.state = "done"
        else:
            self.left -= end
            if self.left < 0 or not HEADER_LINE.fullmatch(line):
                raise HTTPError("malformed", f"no trailer line: {line[:60]!r}")
        return data[end:]

    def _count(self, taken: int) -> None:
        self.body_bytes += taken
        if self.body_bytes > MAX_BODY_BYTES:
            raise HTTPError("too large", f"a body of more than {MAX_BODY_BYTES} bytes")


# ---------------------------------------------------------------- send


class EpollPoller:
    """One private epoll for all sockets of a run: the asyncio loop watches only the epoll's own descriptor."""

    READ, WRITE = 1, 4  # EPOLLIN, EPOLLOUT

    def __init__(self) -> None:
        epoll = select.epoll()
        self.fileno, self.register, self.modify, self.close = epoll.fileno, epoll.register, epoll.modify, epoll.close
        self.poll = functools.partial(epoll.poll, 0, 256)

    def forget(self, fd: int) -> None:
        """Nothing to do: closing a socket takes it out of its epoll."""


class SelectorPoller:
    """The same for systems without epoll (macOS), on what the selectors module finds there."""

    READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.fileno: Callable[[], int] = self.selector.fileno
        self.register, self.modify = self.selector.register, self.selector.modify
        self.close, self.forget = self.selector.close, self.selector.unregister

    def poll(self) -> list[tuple[int, int]]:
        return [(key.fd, events) for key, events in self.selector.select(0)]


class Connection:
    __slots__ = ("index", "parser", "recv", "send", "sock", "unsent", "watched")

    def __init__(self, sock: socket.SocketType) -> None:
        self.sock = sock
        self.recv, self.send = sock.recv, sock.send
        self.parser = ResponseParser()
        self.index = -1  # of the request it works on; -1: none
        self.unsent = b""  # what the kernel has not taken yet
        self.watched = 0  # the events that the poller reports


class Load:
    """Sends requests on raw sockets as a pace allows, and records every exchange.

    All sockets sit in one private poller whose own descriptor is the only thing asyncio watches; one callback drains
    all that is ready: asyncio's own work is done once for many answers, not once for each.
    """

    __slots__ = (
        *Exchanges.COLUMNS, "address", "begun_cpu_s", "begun_s", "capacity", "connections", "cpu_s", "ended",
        "exchanges", "failures", "family", "fill_is_due", "finished", "idle", "in_flight", "keep_alive", "loop",
        "messages", "pace", "poller", "progress", "quiet_since_s", "released", "sent", "sockets_opened", "stopped",
        "thinking", "timeout_s", "users", "wake_is_due",
    )  # fmt: skip

    started_s: array[float]
    sent_s: array[float]
    first_byte_s: array[float]
    answered_s: array[float]
    body_bytes: array[int]
    status: array[int]
    error: array[int]

    def __init__(
        self,
        address: tuple[Any, ...],
        messages: Iterator[bytes],
        pace: Pace,
        timeout_s: float,
        keep_alive: bool = False,
        progress: Callable[[Load], None] | None = None,
    ) -> None:
        self.address, self.messages, self.pace, self.timeout_s = address, messages, pace, timeout_s
        self.family = socket.AF_INET6 if len(address) == 4 else socket.AF_INET
        self.keep_alive, self.progress = keep_alive, progress
        self.exchanges = Exchanges()
        for column in Exchanges.COLUMNS:  # for short, and for speed: self.started_s and so on
            setattr(self, column, getattr(self.exchanges, column))
        self.capacity = self.sent = self.in_flight = self.sockets_opened = self.failures = 0
        self.released = self.users = 0.0  # the pace's limits, as last asked for
        self.ended = self.fill_is_due = self.wake_is_due = False  # ended: nothing more will be sent
        self.stopped = ""  # why it ended before its time
        self.thinking: deque[float] = deque()  # when each user that thinks will have done so, in order
        self.connections: dict[int, Connection] = {}
        self.idle: list[Connection] = []
        self.poller = EpollPoller() if hasattr(select, "epoll") else SelectorPoller()
        self.finished: asyncio.Future[None]

    async def run(self) -> Exchanges:
        """Send everything, wait for every answer or its time-out, and return what happened."""
        self.loop = asyncio.get_running_loop()
        self.finished = self.loop.create_future()
        self.loop.add_reader(self.poller.fileno(), self._drain)
        gc.disable()  # nothing here makes cycles, and a collection in the middle of a run shows as latency
        self.begun_s, self.begun_cpu_s = perf_counter(), time.process_time()
        self.quiet_since_s = self.begun_s
        try:
            self._follow_pace()
            self._watch_deadlines()
            await self.finished
        finally:
            self.cpu_s = time.process_time() - self.begun_cpu_s
            gc.enable()
            self.loop.remove_reader(self.poller.fileno())
            self._abandon("interrupted")  # nothing is left of them, but for an exception
            self.poller.close()
            self.exchanges.finish(self.sent)
        return self.exchanges

    def stop(self, why: str, error: str = "interrupted") -> None:
        """Send nothing more and wait for nothing more; what is under way counts as failed, under that name."""
        if not self.stopped and not self.finished.done():
            self.stopped = why
            self._abandon(error)
            self.finished.set_result(None)

    def _abandon(self, error: str) -> None:
        self.ended, self.released, self.users = True, self.sent, 0
        for conn in list(self.connections.values()):
            self._fail(conn, error)

    def _follow_pace(self) -> None:
        if self.ended:
            return
        elapsed_s = perf_counter() - self.begun_s
        self.ended = elapsed_s >= self.pace.time_limit_s
        self.released, self.users = (self.sent, 0) if self.ended else self.pace.limits(elapsed_s)
        self._fill()
        if not self.ended and (next_s := self.pace.next_change_s(elapsed_s)) < math.inf:
            self.loop.call_later(max(0.0, next_s - elapsed_s), self._follow_pace)

    def _fill(self) -> None:
        """Start what the pace allows, a hundred at most, so that answers are read in between."""
        self.fill_is_due, budget, thinking = False, 100, self.thinking
        if thinking:
            now_s = perf_counter()
            while thinking and thinking[0] <= now_s:
                thinking.popleft()
        while self.sent < self.released and self.in_flight + len(thinking) < self.users:
            self._start()
            budget -= 1
            if not budget:
                self._fill_soon()
                return
        if thinking and not self.ended and not self.wake_is_due:
            self.wake_is_due = True
            self.loop.call_later(thinking[0] - perf_counter(), self._wake)
        if not self.in_flight and (self.ended or self.sent >= self.pace.requests) and not self.finished.done():
            self.finished.set_result(None)

    def _wake(self) -> None:
        self.wake_is_due = False
        self._fill()

    def _fill_soon(self) -> None:
        """Once in each round of the loop, however many requests fail in it: its timers must have their turn."""
        if not self.fill_is_due:
            self.fill_is_due = True
            self.loop.call_soon(self._fill)

    def _start(self, conn: Connection | None = None, now_s: float | None = None) -> None:
        """Send the next request: on this connection, or on an idle one, or on a new one."""
        index = self.sent
        if index == self.capacity:
            self.exchanges.grow()
            self.capacity += Exchanges.BLOCK
        self.sent = index + 1
        self.in_flight += 1
        message = next(self.messages)
        self.started_s[index] = now_s or perf_counter()
        while not conn and self.idle:
            idle = self.idle.pop()
            conn = idle if idle.watched else None  # not watched: the server has closed it meanwhile
        if not (conn := conn or self._connect(index)):
            return
        conn.index = index
        if message[0] == 72 or not conn.parser.fresh:  # 72: an H, as in HEAD
            conn.parser.reset(message.startswith(b"HEAD "))
        # On loopback the handshake is over by now, so that the request usually leaves with no wait for an event.
        self._send(conn, message)

    def _connect(self, index: int) -> Connection | None:
        try:
            # The type below socket.socket: it opens and closes without that class's Python layer.
            sock = socket.SocketType(self.family, socket.SOCK_STREAM | SOCK_NONBLOCK)
        except OSError as error:
            self._record_failure(index, ERRNO_NAMES.get(error.errno or 0, "connect failed"))
            return None
        if not SOCK_NONBLOCK:
            sock.setblocking(False)
        self.sockets_opened += 1
        conn = self.connections[sock.fileno()] = Connection(sock)
        code = sock.connect_ex(self.address)
        if code in (0, errno.EINPROGRESS):
            return conn
        self._close(conn)
        self._record_failure(index, ERRNO_NAMES.get(code, "connect failed"))
        return None

    def _send(self, conn: Connection, unsent: bytes) -> None:
        """Hand the kernel what it takes, and have the poller report what comes next."""
        try:
            taken = conn.send(unsent)
        except (BlockingIOError, InterruptedError):
            taken = 0
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # macOS: still connecting
                self._fail(conn, ERRNO_NAMES.get(error.errno or 0, "connect failed"))
                return
            taken = 0
        poller = self.poller
        if taken == len(unsent):
            conn.unsent, events = b"", poller.READ
        else:
            conn.unsent, events = unsent[taken:], poller.READ | poller.WRITE
        if events != conn.watched:
            if taken and not self.sent_s[conn.index]:
                self.sent_s[conn.index] = perf_counter()
            watch = poller.modify if conn.watched else poller.register
            watch(conn.sock.fileno(), events)
            conn.watched = events

    def _drain(self) -> None:
        """Handle all that is ready; back to the loop after 20 ms at most, for its timers and for Ctrl-C."""
        connections, read = self.connections, self._read
        until_s = min(perf_counter() + 0.02, self.begun_s + self.pace.time_limit_s)
        while events := self.poller.poll():
            for fd, _ in events:
                # A descriptor closed earlier in this batch may be in use again: its new socket has nothing to read.
                if conn := connections.get(fd):
                    if conn.unsent:
                        self._send(conn, conn.unsent)
                        if not conn.watched:
                            continue
                    read(conn)
            if perf_counter() > until_s:
                break

    def _read(self, conn: Connection) -> None:
        try:
            data = conn.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(conn, ERRNO_NAMES.get(error.errno or 0, "reset"))
            return
        now_s, index, parser = perf_counter(), conn.index, conn.parser
        if index < 0:  # answered already: the server closes, or says more than it was asked
            self._close(conn)
            return
        try:
            complete = parser.feed(data) if data else parser.eof()
        except HTTPError as error:
            self._fail(conn, error.kind)
            return
        if not complete:
            self.first_byte_s[index] = self.first_byte_s[index] or now_s
            return
        self.answered_s[index] = now_s
        self.status[index] = parser.status
        self.body_bytes[index] = parser.body_bytes
        conn.index = -1
        self.in_flight -= 1
        if self.pace.think_s:
            self.thinking.append(now_s + self.pace.think_s)
        if self.keep_alive and parser.keep_alive and not conn.unsent:
            if self.sent < self.released and self.in_flight + len(self.thinking) < self.users:
                self._start(conn, now_s)
                return
            self.idle.append(conn)
        else:
            self._read(conn)  # let the server close first, which it may have done: the port is then free for another
        self._fill()

    def _fail(self, conn: Connection, kind: str) -> None:
        self._close(conn)
        if conn.index >= 0:
            self._record_failure(conn.index, kind)

    def _record_failure(self, index: int, kind: str) -> None:
        self.answered_s[index] = perf_counter()
        self.error[index] = ERRORS.index(kind)
        self.in_flight -= 1
        self.failures += 1
        if self.pace.think_s:
            self.thinking.append(perf_counter() + self.pace.think_s)
        if self.failures >= max(10, self.users) and self.nothing_answered:
            self.stop(f"the first {self.failures} requests all failed ({kind})", "given up")
        self._fill_soon()

    @property
    def nothing_answered(self) -> bool:
        return self.failures == self.sent - self.in_flight

    def _close(self, conn: Connection) -> None:
        fd = conn.sock.fileno()
        if conn.watched:
            self.poller.forget(fd)
            conn.watched = 0
        self.connections.pop(fd, None)
        conn.sock.close()

    def _watch_deadlines(self) -> None:
        now_s = perf_counter()
        for conn in list(self.connections.values()):
            if conn.index >= 0 and self.started_s[conn.index] < now_s - self.timeout_s:
                self._fail(conn, "timed out")
        if self.failures and self.nothing_answered and now_s - self.begun_s >= self.timeout_s:
            self.stop(f"no answer at all within the time-out of {self.timeout_s:g} s (-s)", "given up")
        if self.finished.done():
            return
        if self.progress:
            self.progress(self)
        if self.in_flight and self.nothing_answered and now_s - self.quiet_since_s >= QUIET_S:
            say(f"{self.sent} sent, no answer for {now_s - self.begun_s:.0f} s; each has {self.timeout_s:g} s (-s)")
            self.quiet_since_s = math.inf
        self.loop.call_later(min(0.1, self.timeout_s / 4), self._watch_deadlines)


# ---------------------------------------------------------------- signals


class Interrupted(BaseException):
    """A signal that asks the program to end, outside of a run."""


class Signals:
    """SIGINT, SIGTERM and SIGHUP: raised as Interrupted, or held back while there is something to bring home.

    A load that is under way stops (stop_load) and its figures are reported; a second signal is raised all the same.
    """

    NAMES = ("SIGINT", "SIGTERM", "SIGHUP")

    def __init__(self) -> None:
        self.received = 0
        self.is_held = False
        self.stop_load: Callable[[str], object] | None = None

    @property
    def exit_code(self) -> int:
        return 128 + self.received if self.received else 0

    def handle(self, number: int, _: object) -> None:
        again, self.received = self.received, number
        if again or not self.is_held:
            raise Interrupted
        if self.stop_load:
            self.stop_load(signal.Signals(number).name)

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Only the main thread may set handlers; elsewhere (in a test) they stay as they are."""
        self.received, before = 0, {}
        with contextlib.suppress(ValueError):
            before = {name: signal.signal(getattr(signal, name), self.handle) for name in self.NAMES}
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(getattr(signal, name), handler)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        self.is_held = True
        try:
            yield
        finally:
            self.is_held = False


signals = Signals()  # as a process has only one set of them


# ---------------------------------------------------------------- one run


def measure(
    traffic: Traffic,
    address: tuple[Any, ...],
    numbered: bool = False,
    server_cpu_s: Callable[[], float | None] = lambda: None,
) -> Measured:
    """Send the warm-up, then the load, and read every counter just before and after the load."""
    progress = show_progress if sys.stderr and sys.stderr.isatty() else None
    warm_up = Exchanges()
    if traffic.warm_up:
        pace = Pace(traffic.warm_up, min(traffic.pace.most_under_way, traffic.warm_up))
        warm_up, _ = run_load(Load(address, traffic.messages(False), pace, traffic.timeout_s, traffic.keep_alive))
    load = Load(address, traffic.messages(numbered), traffic.pace, traffic.timeout_s, traffic.keep_alive, progress)
    kernel, cpu_s = kernel_counters(), server_cpu_s()
    exchanges, stopped = run_load(load)
    if progress:
        print("\r\033[K", end="", file=sys.stderr)
    kernel = {name: count - kernel.get(name, 0) for name, count in kernel_counters().items()}
    used_s = None if cpu_s is None else round((server_cpu_s() or 0.0) - cpu_s, 2)
    return Measured(exchanges, load.begun_s, load.cpu_s, load.sockets_opened, kernel, warm_up, stopped, used_s)


def run_load(load: Load) -> tuple[Exchanges, str]:
    """Run it in a loop of its own, a signal stopping it in an orderly way: what happened, and why it stopped early."""

    async def run() -> Exchanges:
        loop = asyncio.get_running_loop()
        signals.stop_load = lambda name: loop.call_soon_threadsafe(load.stop, name)
        if signals.received:  # before there was anything to stop
            loop.call_soon(load.stop, signal.Signals(signals.received).name)
        return await load.run()

    try:
        return asyncio.run(run()), load.stopped
    finally:
        signals.stop_load = None


def show_progress(load: Load) -> None:
    elapsed_s = perf_counter() - load.begun_s
    rate = (load.sent - load.in_flight) / elapsed_s
    shares = [elapsed_s / load.pace.time_limit_s, (load.sent - load.in_flight) / load.pace.requests]
    left = f", {elapsed_s / max(shares) - elapsed_s:.0f} s left" if max(shares) > 0.01 else ""
    text = f"{elapsed_s:6.1f} s  {load.sent} sent, {load.in_flight} under way, {rate:.0f}/s{left}"
    print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def kernel_counters() -> dict[str, int]:
    """What TCP had to drop or send again since boot, in this network namespace; empty where not Linux."""
    with contextlib.suppress(OSError):
        names, values = (
            line.split() for line in Path("/proc/net/netstat").read_text().splitlines() if line.startswith("TcpExt:")
        )
        return {name: int(values[names.index(name)]) for name in ("ListenOverflows", "TCPSynRetrans")}
    return {}


# ---------------------------------------------------------------- summarise


class Statistics(TypedDict):
    """Seconds; a percentile is null where the sample is too small for it."""

    min: float
    mean: float
    sd: float
    median: float
    p90: float | None
    p95: float | None
    p99: float | None
    max: float


class Phases(TypedDict):
    connect: Statistics | None
    waiting: Statistics | None  # from sent to the first byte
    processing: Statistics | None  # from sent to the last
    total: Statistics | None


class Second(TypedDict):
    second: int
    answered: int
    failed: int
    mean_latency_s: float


class Level(TypedDict):
    """A stage of a ramp."""

    users: int
    answered: int
    failed: int
    throughput_rps: float
    latency_s: Statistics | None


class Warned(TypedDict):
    id: str
    symptom: str
    cause: str
    next: str


class Described(TypedDict):
    """What is known of a load before its first request."""

    method: str
    path: str
    mode: str  # burst, closed, open or ramp
    requests: int | None
    concurrency: int | None
    rate_rps: float | None
    arrivals: str | None  # constant or poisson, of an open loop
    stages: Sequence[tuple[float, int]]
    think_s: float
    time_limit_s: float | None
    keep_alive: bool
    timeout_s: float


class Columns(TypedDict, total=False):
    """Every request's raw times, in columns of equal length: seconds since the run began, null for "never"."""

    started_s: Sequence[float | None]
    sent_s: Sequence[float | None]
    first_byte_s: Sequence[float | None]
    answered_s: Sequence[float | None]
    status: Sequence[int | None]
    error: Sequence[str | None]
    body_bytes: Sequence[int]


class Summary(Described):
    """What a run's raw times come to; all times in seconds, those of events since the run began."""

    stopped: str | None  # why the sending ended early: SIGINT, ..., or what happened
    sent: int
    answered: int  # with a status of 2xx
    failed: int
    errors: dict[str, int]
    due: int | None  # of an open loop: how many should have been sent by its end
    measured_s: float  # until the last answer
    finished_after_limit: int
    throughput_rps: float  # answers within the window, per second of it
    latency_s: Statistics | None
    phases_s: Phases
    lag_s: Statistics | None  # of an open loop: how long after it was due a request left
    histogram: list[tuple[float, int]]
    per_second: list[Second]
    levels: list[Level]
    warmed_up: int
    created: int  # answers with 201, of the warm-up too
    mean_in_flight: float
    slow_connects: int
    slow_waits: int  # on new connections, as after a SYN that was sent again
    late_bodies: int
    body_bytes: int
    sockets_opened: int
    client_cpu_s: float
    server_cpu_s: float | None
    kernel: dict[str, int]


def describe(traffic: Traffic) -> Described:
    pace = traffic.pace
    return {
        "method": traffic.method,
        "path": traffic.path,
        "mode": pace.mode,
        "requests": finite(pace.requests),
        "concurrency": finite(pace.concurrency),
        "rate_rps": pace.rate,
        "arrivals": None if not pace.rate else "poisson" if pace.schedule else "constant",
        "stages": pace.stages,
        "think_s": pace.think_s,
        "time_limit_s": None if pace.time_limit_s == math.inf else pace.time_limit_s,
        "keep_alive": traffic.keep_alive,
        "timeout_s": traffic.timeout_s,
    }


def finite(number: float | None) -> int | None:
    return None if number is None or number == math.inf else int(number)


def is_success(status: int, error: int) -> bool:
    return not error and 200 <= status < 300


def summarise(traffic: Traffic, measured: Measured) -> Summary:
    """Statistics are of successes only (2xx): a refused or timed-out request says nothing about how long an answer
    takes, and is counted by name instead.

    The window, in which throughput counts, ends with the last answer; with the time limit, if that was sooner; and of
    an open loop not before its schedule does, or ten requests at 1/s would be answered at ten in nine seconds.
    """
    columns, begun_s, warm_up, pace = measured.exchanges, measured.begun_s, measured.warm_up, traffic.pace
    sent, rate = len(columns.status), pace.rate
    good = array("L", (i for i in range(sent) if is_success(columns.status[i], columns.error[i])))
    outcomes = Counter(
        ERRORS[error] or f"HTTP {status}"
        for status, error in zip(columns.status, columns.error, strict=True)
        if not is_success(status, error)
    )
    measured_s = max(columns.answered_s, default=begun_s) - begun_s
    due_s = array("d", (begun_s + pace.due_s(i) for i in range(sent))) if rate else columns.started_s
    due = None if not rate else sent if measured.stopped else pace.due_in_all
    window_s = measured_s
    if rate and not measured.stopped:
        window_s = max(measured_s, min(pace.requests / rate, pace.time_limit_s))
    window_s = min(window_s, pace.time_limit_s)
    in_window = sum(1 for i in good if columns.answered_s[i] - begun_s <= window_s)
    end_s = begun_s + window_s
    under_way_s = sum(
        min(end, end_s) - start
        for start, end in zip(columns.started_s, columns.answered_s, strict=True)
        if start < end_s
    )

    def spans(begin: Sequence[float], end: Sequence[float]) -> Statistics | None:
        return statistics_of([end[i] - begin[i] for i in good])

    total = spans(columns.started_s, columns.answered_s)
    return {
        **describe(traffic),
        "stopped": measured.stopped or None,
        "sent": sent,
        "answered": len(good),
        "failed": sum(outcomes.values()),
        "errors": dict(outcomes),
        "due": due,
        "measured_s": round(measured_s, 6),
        "finished_after_limit": len(good) - in_window,
        "throughput_rps": in_window / window_s if good and window_s else 0.0,
        "latency_s": spans(due_s, columns.answered_s) if rate else total,
        "phases_s": {
            "connect": spans(columns.started_s, columns.sent_s),
            "waiting": spans(columns.sent_s, columns.first_byte_s),
            "processing": spans(columns.sent_s, columns.answered_s),
            "total": total,
        },
        "lag_s": spans(due_s, columns.started_s) if rate else None,
        "histogram": histogram([columns.answered_s[i] - due_s[i] for i in good]),
        "per_second": per_second(columns, begun_s, due_s),
        "levels": levels(columns, begun_s, pace.stages),
        "warmed_up": len(warm_up.status),
        "created": columns.status.count(201) + warm_up.status.count(201),
        "mean_in_flight": under_way_s / (window_s or math.nan),
        "slow_connects": sum(1 for i in good if columns.sent_s[i] - columns.started_s[i] > SYN_RETRY_S),
        "slow_waits": slow_waits(columns, good),
        "late_bodies": sum(
            1 for i in good if DELAYED_ACK_S[0] < columns.answered_s[i] - columns.first_byte_s[i] < DELAYED_ACK_S[1]
        ),
        "body_bytes": sum(columns.body_bytes[i] for i in good),
        "sockets_opened": measured.sockets_opened,
        "client_cpu_s": round(measured.client_cpu_s, 6),
        "server_cpu_s": measured.server_cpu_s,
        "kernel": measured.kernel,
    }


def slow_waits(columns: Exchanges, good: Sequence[int]) -> int:
    """How many first requests of a connection took longer than the fastest by more than TCP's first retry.

    Of a connection that the listen queue had no room for, the client's connect often succeeds: the wait for the
    server's retry then shows before the first byte.
    """
    waits_s = [columns.first_byte_s[i] - columns.sent_s[i] for i in good if columns.sent_s[i] > columns.started_s[i]]
    fastest_s = min(waits_s, default=0.0)
    return sum(1 for wait_s in waits_s if wait_s > fastest_s + SYN_RETRY_S)


class Since(Sequence[float | None]):
    """A column of times as seconds since the run began, null for "never"; a view, since a run can have millions."""

    def __init__(self, times_s: array[float], begun_s: float) -> None:
        self.times_s, self.begun_s = times_s, begun_s

    def __len__(self) -> int:
        return len(self.times_s)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [round(at - self.begun_s, 6) if at else None for at in self.times_s[i]]
        at = self.times_s[i]
        return round(at - self.begun_s, 6) if at else None


def columns_of(measured: Measured) -> Columns:
    exchanges, begun_s = measured.exchanges, measured.begun_s
    return {
        "started_s": Since(exchanges.started_s, begun_s),
        "sent_s": Since(exchanges.sent_s, begun_s),
        "first_byte_s": Since(exchanges.first_byte_s, begun_s),
        "answered_s": Since(exchanges.answered_s, begun_s),
        "status": [status or None for status in exchanges.status],
        "error": [ERRORS[code] or None for code in exchanges.error],
        "body_bytes": exchanges.body_bytes,
    }


def nearest_rank(ordered: Sequence[float], per_cent: float) -> float | None:
    """The percentile by nearest rank, so that it is a measured value; None where the sample is too small for it.

    Of n values the p-th percentile is number ceil(p / 100 x n). It says something that the maximum does not only if
    at least one value lies above it: n >= 100 / (100 - p).

    >>> nearest_rank(range(1, 101), 99), nearest_rank(range(1, 100), 99)
    (99, None)
    """
    n = len(ordered)
    if n * (100 - per_cent) < 100 - 1e-9:
        return None
    return ordered[max(1, math.ceil(per_cent * n / 100)) - 1]


def statistics_of(values: list[float]) -> Statistics | None:
    """min, mean, sd, median, percentiles and max of some seconds; None of none. Sorts the list that it is given."""
    if not values:
        return None
    values.sort()
    n, mean = len(values), math.fsum(values) / len(values)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else 0.0
    p90, p95, p99 = (nearest_rank(values, per_cent) for per_cent in (90, 95, 99))
    return {
        "min": round(values[0], 6),
        "mean": round(mean, 6),
        "sd": round(sd, 6),
        "median": round((values[(n - 1) // 2] + values[n // 2]) / 2, 6),
        "p90": None if p90 is None else round(p90, 6),
        "p95": None if p95 is None else round(p95, 6),
        "p99": None if p99 is None else round(p99, 6),
        "max": round(values[-1], 6),
    }


def histogram(latencies_s: Sequence[float]) -> list[tuple[float, int]]:
    """(upper bound in seconds, count) in steps of 1, 2, 5: a tail of seconds beside a bulk of milliseconds shows."""
    counts = Counter(bisect.bisect_left(BOUNDS_S, latency) for latency in latencies_s)
    if not counts:
        return []
    return [(BOUNDS_S[min(i, len(BOUNDS_S) - 1)], counts[i]) for i in range(min(counts), max(counts) + 1)]


BOUNDS_S = [round(step * 10.0**power, 4) for power in range(-4, 4) for step in (1, 2, 5)]


def per_second(columns: Exchanges, begun_s: float, due_s: Sequence[float]) -> list[Second]:
    """For each second of the run: answers, failures, and the mean latency (in an open loop: from due) of the answers
    in it. A second in which nothing ended is there too: that is what a stall looks like."""
    last = int(max(columns.answered_s, default=begun_s - 1) - begun_s)
    good, bad, total_s = ([0] * (last + 1), [0] * (last + 1), [0.0] * (last + 1))
    for i, answered_s in enumerate(columns.answered_s):
        second = int(answered_s - begun_s)
        if is_success(columns.status[i], columns.error[i]):
            good[second] += 1
            total_s[second] += answered_s - due_s[i]
        else:
            bad[second] += 1
    return [
        {
            "second": second,
            "answered": good[second],
            "failed": bad[second],
            "mean_latency_s": round(total_s[second] / good[second], 6) if good[second] else 0.0,
        }
        for second in range(last + 1)
    ]


def levels(columns: Exchanges, begun_s: float, stages: Sequence[tuple[float, int]]) -> list[Level]:
    """For each stage of a ramp, of what was answered during it (the last one: or after it): counts, rate, latency."""
    found: list[Level] = []
    begin_s = begun_s
    for number, (stage_s, users) in enumerate(stages, 1):
        end_s = begin_s + stage_s
        last_s = end_s if number < len(stages) else math.inf
        of_stage = [i for i, at in enumerate(columns.answered_s) if begin_s <= at < last_s]
        good = [i for i in of_stage if is_success(columns.status[i], columns.error[i])]
        found.append(
            {
                "users": users,
                "answered": len(good),
                "failed": len(of_stage) - len(good),
                "throughput_rps": sum(1 for i in good if columns.answered_s[i] < end_s) / stage_s,
                "latency_s": statistics_of([columns.answered_s[i] - columns.started_s[i] for i in good]),
            }
        )
        begin_s = end_s
    return found


# ---------------------------------------------------------------- audit


CAUSES = {  # of a failure that this client names: likely cause, next step
    "refused": ("nothing listens there", "start the server, or check host and port"),
    "reset": ("the server broke the connection", "look for a crash or a limit in the server's log"),
    "closed": ("the server closed the connection without an answer", "look for a crash or a limit in its log"),
    "timed out": ("the server did not answer in time", "raise the time-out (-s), or send less at a time"),
    "too many open files": ("this client's own limit of open files", "raise it: ulimit -n"),
    "no local port": ("this client has used up its local ports", "keep connections (-k)"),
    "interrupted": ("the run was interrupted", "let it run to its end"),
    "given up": ("no request had been answered, so that nothing more was waited for", "see whether it answers one"),
}
BROKEN = ("what came is not a whole HTTP/1.1 answer", "look at one with curl -v")


def audit(run: Summary) -> list[Warned]:
    """Everything in a run that its reader must know before believing it: symptom, likely cause, next step."""
    warnings: list[Warned] = []

    def warn(identifier: str, symptom: str, cause: str, next_step: str) -> None:
        warnings.append({"id": identifier, "symptom": symptom, "cause": cause, "next": next_step})

    sent, measured_s, kernel = run["sent"], run["measured_s"], run["kernel"]
    if run["failed"]:
        most = max(run["errors"], key=lambda name: run["errors"][name])
        answered_badly = ("the server answered with an error", "read its log") if most[:4] == "HTTP" else BROKEN
        counts = ", ".join(f"{count} {name}" for name, count in sorted(run["errors"].items()))
        warn("failed-requests", f"{run['failed']} of {sent} requests failed: {counts}. They are in no percentile",
             *CAUSES.get(most, answered_badly))  # fmt: skip
    if run["due"] is not None and run["due"] > sent:
        warn("never-left", f"{run['due']} requests were due, {sent} left: {run['due'] - sent} never did",
             "this client cannot send as fast as that: overloaded", "lower --rate")  # fmt: skip
    overflows = kernel.get("ListenOverflows", 0)
    if run["slow_connects"] or (overflows and run["slow_waits"]):
        warn("backlog-overflow",
             f"{plural(max(run['slow_connects'], run['slow_waits']), 'connection')} took a second or more longer than"
             f" others; the kernel counted {overflows} listen-queue overflows and {kernel.get('TCPSynRetrans', 0)} SYN"
             " retransmissions (on the whole machine)",
             "the server's listen backlog was full, and TCP tried again after about 1, 3 and 7 s",
             "raise the server's backlog (and net.core.somaxconn), or accept faster")  # fmt: skip
    if run["client_cpu_s"] > 0.8 * measured_s and measured_s > 0.5:
        warn("client-limit", f"the client used {run['client_cpu_s'] / measured_s:.0%} of a CPU",
             "this client, not the server, may be what limits the throughput",
             "read the throughput as a lower bound; give the client a CPU of its own (--client-cpus)")  # fmt: skip
    if run["lag_s"] and (worst := run["lag_s"]["p99"] or run["lag_s"]["max"]) > 0.01:
        warn("late-sends", f"requests left up to {worst * 1000:.0f} ms after they were due (p99)",
             "the client had no CPU time for its schedule", "lower --rate, or --client-cpus")  # fmt: skip
    expected = sockets_expected(run)
    if run["keep_alive"] and expected and run["sockets_opened"] > 1.1 * expected + 1:
        warn("no-keep-alive", f"{run['sockets_opened']} sockets for {sent} requests; {expected} would do",
             "the server closes connections that it was asked to keep (gunicorn's sync worker always does)",
             "compare without -k, or use a server that keeps connections")  # fmt: skip
    if run["late_bodies"] > 0.1 * sent:
        warn("delayed-ack", f"{run['late_bodies']} answers had their last byte some 40 ms after their first",
             "the server writes head and body apart and without TCP_NODELAY (uvicorn --workers N does, its issue 3149),"
             " so that the body waits for the client's delayed ACK",
             "compare without -k, or with one worker")  # fmt: skip
    asked = run["concurrency"]
    if (run["mode"] == "closed" and asked and sent > 10 * asked and not run["failed"] and not run["think_s"]
            and run["mean_in_flight"] < 0.9 * asked):  # fmt: skip
        warn("little", f"{run['mean_in_flight']:.1f} requests under way on average, {asked} asked for",
             "the client could not keep all users busy, or the tail of the run was long",
             "send more requests, and look at the CPU share of the client")  # fmt: skip
    return warnings


def sockets_expected(run: Summary) -> int | None:
    """How many sockets a run opens if nothing goes wrong; None for an open loop, which opens what it needs."""
    if not run["keep_alive"]:
        return run["sent"]
    users = [users for _, users in run["stages"]] or [run["concurrency"] or 0]
    return min(max(users), run["sent"]) if run["mode"] in ("closed", "ramp") else None


# ---------------------------------------------------------------- render


def seconds(value: float) -> str:
    """A time given by the user, as short as it is.  1.0 -> "1 s", 0.25 -> "0.25 s" """
    return f"{value:g} s"


def plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def milliseconds(value_s: float | None, width: int = 8) -> str:
    """Four digits, more only before the point: a column keeps its width from microseconds to hours.

    >>> milliseconds(0.0123456), milliseconds(27.8194), milliseconds(None)
    ('   12.35', '   27819', '       -')
    """
    if value_s is None:
        return f"{'-':>{width}}"
    ms = value_s * 1000
    return f"{ms:{width}.0f}" if ms >= 1000 else f"{ms:{width}.4g}"


def section(name: str, text: str) -> str:
    """A paragraph with its name in the margin, at most 79 columns wide."""
    lines = textwrap.wrap(text, 67, break_long_words=False, break_on_hyphens=False) or [""]
    return "\n".join(f"{name if not i else '':12}{line}" for i, line in enumerate(lines))


def render_load(run: Described) -> str:
    """What will be sent, in a sentence."""
    n, until = run["requests"], f"for {seconds(run['time_limit_s'] or 0)}"
    if n is not None:
        until = plural(n, "request") + (f" or {seconds(run['time_limit_s'])}" if run["time_limit_s"] else "")
    kept = "connections kept" if run["keep_alive"] else "a new connection each"
    thinking = f", {seconds(run['think_s'])} of thought before the next request" if run["think_s"] else ""
    text = {
        "burst": f"{until} at once",
        "closed": f"closed loop, {until}, {run['concurrency']} users{thinking}, {kept}",
        "open": f"open loop, {until}, {run['rate_rps'] or 0:g} a second ({run['arrivals']} arrivals) whatever the"
        f" server does, {kept}",
        "ramp": "ramp of users, "
        + ", ".join(f"{seconds(stage_s)} to {users}" for stage_s, users in run["stages"])
        + f"{thinking}, {kept}",
    }
    return text[run["mode"]]


def render_phases(run: Summary) -> str:
    """ApacheBench's phases in milliseconds, then how many answers took how long."""
    found: dict[str, Statistics | None] = {**run["phases_s"]}  # type: ignore[dict-item]
    if run["mode"] == "open":
        found = {"connect": found["connect"], "waiting": found["waiting"], "service": found["total"],
                 "latency": run["latency_s"], "lag": run["lag_s"]}  # fmt: skip
    rows = [
        f"{'ms':12}" + "".join(f"{name:>8}" for name in ("min", "mean", "sd", "median", "p90", "p95", "p99", "max"))
    ]
    lines: dict[str, list[str]] = {}  # phases that say the same share a line
    for phase, of_phase in found.items():
        if of_phase:
            values = (of_phase["min"], of_phase["mean"], of_phase["sd"], of_phase["median"], of_phase["p90"],
                      of_phase["p95"], of_phase["p99"], of_phase["max"])  # fmt: skip
            cells = "".join(map(milliseconds, values))
            if cells.replace("0", "").strip(" "):
                lines.setdefault(cells, []).append(phase)
    rows += [f"{names[-1]:12}{cells}" for cells, names in lines.items()]
    same = [" = ".join(reversed(names)) for names in lines.values() if len(names) > 1]
    rows += [f"{'':12}{', '.join(same)}"] if same else []
    return "\n".join(rows)


def render_levels(run: Summary) -> str:
    rows = [f"{'stages':12}{'answers':>10}{'failed':>10}{'per s':>10}{'median ms':>12}{'p95 ms':>12}"]
    for level in run["levels"]:
        latency = level["latency_s"]
        cells = "".join(milliseconds(value, 12) for value in (latency["median"], latency["p95"])) if latency else ""
        counts = f"{level['answered']:10}{level['failed']:10}{level['throughput_rps']:10.1f}"
        rows.append(f"to {level['users']:<9}{counts}{cells}")
    return "\n".join(rows)


def render_histogram(run: Summary) -> str:
    most, rows = max(count for _, count in run["histogram"]), []
    for bound_s, count in run["histogram"]:
        lower_s = max((bound for bound in BOUNDS_S if bound < bound_s), default=0.0)
        bar = "#" * math.ceil(count / most * 40) if count else ""
        rows.append(f"{lower_s * 1000:>9g} - {bound_s * 1000:<7g} ms{count:>9}  |{bar}")
    return "\n".join(rows)


def render_counts(run: Summary) -> str:
    counts = f"{run['sent']} sent = {run['answered']} answered + {run['failed']} failed"
    if run["finished_after_limit"]:
        counts += f"; {run['finished_after_limit']} of the answers came after the time limit"
    if run["due"] is not None and run["due"] > run["sent"]:
        counts = f"{run['due']} due = {run['sent']} sent + {run['due'] - run['sent']} never left; {counts}"
    return counts


def render_audit(run: Summary) -> list[str]:
    """The figures by which a reader can check the throughput: Little's law, sockets, CPU."""
    rps, latency_s = run["throughput_rps"], (run["phases_s"]["total"] or {"mean": 0.0})["mean"]
    expected, cpu = (
        sockets_expected(run),
        f"client {run['client_cpu_s'] / (run['measured_s'] or math.nan):.0%} of a CPU",
    )
    if run["server_cpu_s"] is not None:
        cpu += f", server {run['server_cpu_s'] / (run['measured_s'] or math.nan):.0%}"
    throughput = f"{rps:.1f} answers/s (2xx only), {run['body_bytes']} body bytes"
    if run["rate_rps"]:
        throughput += f"; {run['rate_rps']:g}/s offered"
    under_way, product = run["mean_in_flight"], rps * latency_s
    agrees = "agrees" if abs(product - under_way) <= 0.1 * under_way + 0.1 else "does not agree"
    why = " (failed requests are under way, too)" if run["failed"] else ""
    return [
        section("throughput", throughput),
        section("Little", f"{rps:.1f}/s x {latency_s * 1000:.4g} ms = {product:.1f}; under way on average, counted:"
                f" {under_way:.1f}: {agrees}{why}"),
        section("sockets", f"{run['sockets_opened']} used" + (f" (expected {expected})" if expected else "")),
        section("CPU", cpu),
    ]  # fmt: skip


def render_evidence(run: Summary) -> list[str]:
    """Phases, stages and histogram, with the figures to check them by; nothing where nothing was answered."""
    parts = [render_phases(run), ""] if run["answered"] else []
    if run["levels"]:
        parts += [render_levels(run), ""]
    return [*parts, render_histogram(run), ""] if run["answered"] else parts


def render_warnings(warnings: Sequence[Warned]) -> list[str]:
    return [
        section("warning", f"{warned['symptom']}. Likely: {warned['cause']}. Next: {warned['next']}.")
        for warned in warnings
    ]


def render_verdict(run: Summary) -> str:
    """The run in a sentence."""
    latency = run["latency_s"]
    text = f"{plural(run['answered'], 'answer')} in {run['measured_s']:.2f} s, {run['throughput_rps']:.1f}/s"
    if latency:
        text += f"; latency: median {milliseconds(latency['median'], 1)} ms"
        text += "" if latency["p99"] is None else f", p99 {milliseconds(latency['p99'], 1)} ms"
        text += f", most {milliseconds(latency['max'], 1)} ms"
    if run["failed"]:
        text += f"; {run['failed']} FAILED"
    return text + (f"; stopped: {run['stopped']}" if run["stopped"] else "")


def render_result(run: LoadRun) -> str:
    parts = [section("verdict", render_verdict(run)), *render_warnings(run["warnings"]), "", *render_evidence(run)]
    return "\n".join([*parts, section("counts", render_counts(run)), *render_audit(run)])


# ---------------------------------------------------------------- JSON and other output


class LoadRun(Summary):
    """One run of load.py, as its JSON has it."""

    when: str
    target: str
    warnings: list[Warned]
    exchanges: Columns


class Machine(TypedDict):
    system: str
    cpus: int


class Document(TypedDict):
    """What --json writes. complete is false until everything that was asked for has ended."""

    when: str
    command: str
    machine: Machine
    versions: dict[str, str]
    complete: bool
    runs: list[Any]


def about_machine() -> Machine:
    return {"system": f"{platform.system()} {platform.machine()}", "cpus": os.cpu_count() or 1}


def new_document(command: Sequence[str], versions: dict[str, str] | None = None) -> Document:
    return {
        "when": datetime.now().isoformat(" ", "seconds"),
        "command": shlex.join(command),
        "machine": about_machine(),
        "versions": {"Python": platform.python_version()} | (versions or {}),
        "complete": False,
        "runs": [],
    }


def json_pieces(value: object) -> Iterator[str]:
    """A document's JSON, a piece at a time: a million requests are never one text, nor one list of objects."""
    if isinstance(value, dict):
        yield "{"
        for i, (key, inner) in enumerate(value.items()):
            yield f"{', ' if i else ''}{json.dumps(key)}: "
            yield from json_pieces(inner)
        yield "}"
    elif isinstance(value, (Since, array)) or (isinstance(value, list) and len(value) > 1000):
        yield "["
        for i in range(0, len(value), 1000):
            yield (", " if i else "") + json.dumps(list(value[i : i + 1000]))[1:-1]
        yield "]"
    elif isinstance(value, (list, tuple)):
        yield "["
        for i, inner in enumerate(value):
            yield ", " if i else ""
            yield from json_pieces(inner)
        yield "]"
    else:
        yield json.dumps(value)


class JsonFile:
    """Where --json goes. A file is replaced as a whole after each run, so that no end of the program loses one; a
    pipe, and standard output (-), are opened once and get the document when all has ended."""

    def __init__(self, path: str | None) -> None:
        """Raises Problem if it cannot be written, before anything is run."""
        self.path, self.stream = path, None
        try:
            if path == "-":
                self.stream = sys.stdout
            elif path and Path(path).exists() and not Path(path).is_file():
                self.stream = os.fdopen(os.open(path, os.O_WRONLY | os.O_NONBLOCK), "w")
                os.set_blocking(self.stream.fileno(), True)
        except OSError as error:
            raise Problem(f"cannot write {path}: {error.strerror}") from None

    def write(self, document: Document, last: bool = False) -> None:
        """Raises Problem; what was there before is then still there. last: nothing more will come."""
        if not self.path or (self.stream and not last):
            return
        part = Path(f"{self.path}.part")
        try:
            if self.stream:
                self.stream.writelines(itertools.chain(json_pieces(document), "\n"))
                self.stream.flush()
                return
            with part.open("w") as out:
                out.writelines(itertools.chain(json_pieces(document), "\n"))
            os.replace(part, self.path)
        except BrokenPipeError:
            pass  # whoever read it has seen enough
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink()
            raise Problem(f"cannot write {self.path}: {error.strerror}") from None


class Printer:
    """Prints a report: in colour on a terminal, to stderr where stdout takes JSON, to nowhere once nobody reads it."""

    def __init__(self, json_path: str | None) -> None:
        self.out: TextIO | None = sys.stderr if json_path == "-" else sys.stdout
        if self.out and hasattr(self.out, "reconfigure"):
            self.out.reconfigure(errors="backslashreplace")
        self.in_colour = bool(self.out and self.out.isatty() and "NO_COLOR" not in os.environ)

    def show(self, text: str = "") -> None:
        """Raises Problem if the output is full, or closed before the first line."""
        if not self.out:
            return
        try:
            print(in_colour(text) if self.in_colour else text, file=self.out, flush=True)
        except BrokenPipeError:
            self.give_up()
        except OSError as error:
            self.give_up()
            raise Problem(f"cannot write the report: {error.strerror}") from None

    def give_up(self) -> None:
        """Let the interpreter's last flush of standard output go to nowhere, too."""
        if self.out:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.out.fileno())
        self.out = None


def in_colour(text: str) -> str:
    """Paint a report for a terminal: waiting pale, service green, what needs attention yellow."""
    bars = re.compile(r"\|(\.*)(#*)( *)\|$", re.MULTILINE)
    text = bars.sub(lambda m: f"|\033[2m{m[1]}\033[0;32m{m[2]}\033[0m{m[3]}|", text)
    text = re.sub(r"^(\w[\w ]{0,11}) (?=\S| )", lambda m: f"\033[1m{m[1]}\033[0m ", text, flags=re.MULTILINE)
    return re.sub(r"^\033\[1mwarning", "\033[1;33mwarning", text, flags=re.MULTILINE)


def say(text: str) -> None:
    """A line to whoever watches; the report is elsewhere."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def shown(path: Path) -> str:
    """A path as the user would type it."""
    with contextlib.suppress(ValueError):
        return str(path.resolve().relative_to(Path.cwd()))
    return str(path)


# ---------------------------------------------------------------- options


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for every other mistake."""
        raise Problem(message)


def number(kind: type, least: float, most: float) -> Callable[[str], Any]:
    """An argparse type: a number within bounds, or one line that says what is allowed."""

    def convert(text: str) -> Any:
        with contextlib.suppress(ValueError):
            if least <= (value := kind(text)) <= most:
                return value
        kinds = {int: "a whole number", float: "a number"}
        raise argparse.ArgumentTypeError(f"{text!r} is not {kinds[kind]} from {least:g} to {most:g}")

    return convert


def pattern(regex: str, meaning: str, convert: Callable[[str], Any] = str) -> Callable[[str], Any]:
    """An argparse type: a text of one form. What goes into a request must not be able to smuggle a second one."""

    def check(text: str) -> Any:
        if not re.fullmatch(regex, text):
            raise argparse.ArgumentTypeError(f"{text!r} is not {meaning}")
        return convert(text)

    return check


def stages(text: str) -> tuple[tuple[float, int], ...]:
    found = tuple((float(stage_s), int(users)) for stage_s, users in re.findall(r"([\d.]+)s:(\d+)", text))
    if not all(0 < stage_s <= 86400 and users <= 100_000 for stage_s, users in found):
        raise argparse.ArgumentTypeError(f"{text!r}: a stage takes up to 86400 s, and has up to 100000 users")
    if not any(users for _, users in found):
        raise argparse.ArgumentTypeError(f"{text!r}: no stage has any users")
    return found


def cpu_set(text: str) -> set[int]:
    return {int(cpu) for cpu in text.split(",")}


TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
PATH = r"/[!-~]*"
STAGE = r"\d+(\.\d+)?s:\d{1,9}"
CPUS = pattern(r"\d{1,5}(,\d{1,5})*", "CPU numbers, as in 0,1", cpu_set)


def add_options(parser: argparse.ArgumentParser) -> None:
    """How to send, and what to do with the result: the same options for load.py and for bench.py."""
    add = parser.add_argument_group("how to send").add_argument
    add("-n", "--requests", type=number(int, 1, 100_000_000), metavar="N", help="requests in all (burst: 16)")
    add("-c", "--concurrency", type=number(int, 1, 100_000), metavar="N", help="closed loop: this many under way")
    add("--rate", type=number(float, 0.001, 1e6), metavar="R", help="open loop: requests a second")
    add("--arrivals", choices=("constant", "poisson"), help="of --rate: evenly spaced (default), or at random")
    add("--seed", type=number(int, 0, 2**31), metavar="N", help="of --arrivals poisson (default: drawn, and printed)")
    add("--ramp", type=pattern(f"{STAGE}(,{STAGE})*", "stages like 15s:50,20s:200", stages),
        help="stages of users, as 15s:50,20s:200", default=())  # fmt: skip
    add(
        "--think", type=number(float, 0, 3600), default=0.0, metavar="S", help="pause of a user before its next request"
    )
    add("-t", "--time-limit", type=number(float, 0.01, 86400), metavar="S", help="stop sending then (10, without -n)")
    add("--warmup", type=number(int, 0, 1_000_000), metavar="N", help="requests to send before, uncounted")
    add("-k", "--keep-alive", action="store_true", help="keep connections for the next request")
    add("-m", "--method", type=pattern(TOKEN, "an HTTP method"), help="GET, or POST if there is a body")
    add("-H", "--header", action="append", default=[], metavar="'NAME: VALUE'", help="several times",
        type=pattern(TOKEN + r":[ \t]*[\t\x20-\x7e\xa0-\xff]*", "one header line, 'Name: value'"))  # fmt: skip
    add("-p", "--body-file", type=Path, metavar="FILE", help="the body to send")
    add("--data", help="the body to send, as text")
    add("-s", "--timeout", type=number(float, 0.001, 86400), metavar="S", help="for each request (from the prediction,"
        f" or {TIMEOUT_S:g})")  # fmt: skip
    add("--client-cpus", type=CPUS, default=set(), metavar="0,1", help="pin the client (Linux)")
    add = parser.add_argument_group("what to show and to keep").add_argument
    add("-v", "--verbose", action="store_true", help="show each of several runs in full")
    add("-q", "--quiet", action="store_true", help="show verdicts only")
    add("--json", metavar="FILE", help="write everything, raw times included; - for standard output")


def check_options(options: argparse.Namespace) -> None:
    """What argparse cannot say: which options go together. Fills in the defaults that depend on others."""
    if sum(map(bool, (options.concurrency, options.rate, options.ramp))) > 1:
        raise Problem("-c, --rate and --ramp exclude each other")
    if (options.arrivals or options.seed is not None) and not options.rate:
        raise Problem("--arrivals and --seed go with --rate")
    if options.think and not (options.concurrency or options.ramp):
        raise Problem("--think goes with -c or --ramp: its users think")
    for header in options.header:
        if header.partition(":")[0].lower() in ("content-length", "transfer-encoding", "connection"):
            raise Problem(f"-H {header!r}: set by this client itself (-k keeps connections)")
    if options.body_file and options.data is not None:
        raise Problem("-p and --data exclude each other")
    try:
        options.body = options.body_file.read_bytes() if options.body_file else os.fsencode(options.data or "")
    except OSError as error:
        raise Problem(f"cannot read {options.body_file}: {error.strerror}") from None
    options.method = options.method or ("POST" if options.body else "GET")
    if options.ramp:
        ramp_s = sum(stage_s for stage_s, _ in options.ramp)
        options.time_limit = min(ramp_s, options.time_limit or math.inf)
    elif not options.requests and (options.concurrency or options.rate):
        options.time_limit = options.time_limit or 10.0
    if not (options.requests or options.concurrency or options.rate or options.ramp) and options.time_limit:
        raise Problem("-t needs -n, -c, --rate or --ramp: a burst without a number never ends")
    if options.arrivals == "poisson" and options.seed is None:
        options.seed = random.randrange(10_000)


def traffic_of(options: argparse.Namespace, host: str = "127.0.0.1", port: int = 80, path: str = "/") -> Traffic:
    """What the options (after check_options) ask for."""
    requests = options.requests or (math.inf if options.time_limit else 16)
    limit_s = options.time_limit or math.inf
    schedule: Sequence[float] = ()
    if options.arrivals == "poisson":
        if min(requests, limit_s * options.rate) > 10_000_000:
            raise Problem("--arrivals poisson: at most 10 million requests")
        schedule = poisson_schedule(options.rate, requests, limit_s, options.seed)
        requests = len(schedule)
    return Traffic(
        host=host, port=port, path=path, method=options.method, headers=tuple(options.header), body=options.body,
        keep_alive=options.keep_alive, timeout_s=options.timeout or TIMEOUT_S, warm_up=options.warmup or 0,
        pace=Pace(requests, options.concurrency or math.inf, options.rate, options.ramp, limit_s, options.think,
                  schedule),
    )  # fmt: skip


def split_url(url: str) -> tuple[str, int, str]:
    """Host, port and path of an http URL; Problem if it is none that can be asked."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = 80 if parts.port is None else parts.port
    except ValueError as error:
        raise Problem(f"{url!r}: {error}") from None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme == "https":
        raise Problem("https:// is not supported: measure the http port behind the TLS, or TLS is what you measure")
    if parts.scheme != "http" or not parts.hostname or parts.username is not None or not port:
        raise Problem(f"{url!r} is not of the form http://host:port/path")
    if not re.fullmatch(PATH, path) or not re.fullmatch(r"[0-9A-Za-z.:_-]+", parts.hostname):
        raise Problem(f"{url!r}: only printable ASCII, other characters percent-encoded")
    return parts.hostname, port, path


def resolve(host: str, port: int) -> tuple[Any, ...]:
    """The address to ask: of several (localhost is 127.0.0.1 and ::1) the first that somebody listens on.

    Raises Problem for an unknown name, and where every address refuses: then there is nothing to measure.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Problem(f"cannot resolve {host!r}: {getattr(error, 'strerror', error)}") from None
    found.sort(key=lambda info: info[0] != socket.AF_INET)  # that is where servers on `localhost` listen
    refused = 0
    for family, kind, _, _, address in found:
        with socket.socket(family, kind) as sock:
            sock.settimeout(2)
            code = sock.connect_ex(address)
        if not code:
            return address
        refused += code == errno.ECONNREFUSED
    if refused == len(found):
        raise Problem(f"nothing listens on {host}:{port}")
    return found[0][4]


def check_file_limit(pace: Pace) -> None:
    """Raise the soft limit of open files as far as a load needs it; Problem if that is not allowed.

    An open loop opens what it needs: it gets all that is allowed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    sockets = pace.most_under_way
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited:
        return
    if pace.rate or sockets == math.inf:
        wanted = max(soft, min(hard, 1_048_576) if hard != unlimited else 65_536)
        needed = min(wanted, int(min(sockets, wanted)) + 64)
    else:
        needed = int(sockets) + 64
        if hard != unlimited and hard < needed:
            raise Problem(f"{int(sockets)} requests at once need {needed} open files; the limit is {hard} (ulimit -Hn)")
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def pin_client(cpus: set[int]) -> None:
    """Keep this process on some CPUs. Linux only: elsewhere the user is told."""
    try:
        os.sched_setaffinity(0, cpus)
    except (AttributeError, OSError) as error:
        raise Problem(f"cannot pin to CPUs {sorted(cpus)} on this system: {error}") from None


def prepare(options: argparse.Namespace, paces: Sequence[Pace]) -> None:
    for pace in paces:
        check_file_limit(pace)
    if options.client_cpus:
        pin_client(options.client_cpus)


# ---------------------------------------------------------------- main


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(
        prog="load.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("url", type=pattern(r"\S+", "a URL without white space"), help="http only")
    add_options(parser)
    if not argv:
        print(__doc__)
        return 0
    with signals.handled():
        try:
            options = parser.parse_args(argv)
            check_options(options)
            return run_once(options, ["load.py", *argv])
        except Problem as problem:
            say(f"load.py: {problem}")
            return problem.exit_code
        except Interrupted:
            say("load.py: interrupted")
            return signals.exit_code


def run_once(options: argparse.Namespace, command: Sequence[str]) -> int:
    host, port, path = split_url(options.url)
    traffic = traffic_of(options, host, port, path)
    address = resolve(host, port)
    prepare(options, [traffic.pace])
    document, output, printer = new_document(command), JsonFile(options.json), Printer(options.json)
    output.write(document)
    if not options.quiet:
        printer.show(f"{options.url}\n\n{section('load', render_load(describe(traffic)))}\n")
    with signals.held():
        when, measured = datetime.now().isoformat(" ", "seconds"), measure(traffic, address)
        summary = summarise(traffic, measured)
        run: LoadRun = {
            **summary,
            "when": when,
            "target": options.url,
            "warnings": audit(summary),
            "exchanges": columns_of(measured),
        }
        document["runs"].append(run)
        document["complete"] = not measured.stopped
        output.write(document, last=True)
        printer.show(section("verdict", render_verdict(run)) if options.quiet else render_result(run))
    return signals.exit_code or (1 if run["failed"] else 0)


if __name__ == "__main__":
    sys.exit(main())
