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
its sending, stands beside it, and so does the lag: how late this client was. A
ramp is a closed loop whose number of users changes. --think makes a user wait
between an answer and the next request. --processes deals a load to several.

Exactly n requests are sent. Answers with a status other than 2xx, and requests
without a whole answer, are failures, counted by name and in no percentile; the
line "at least" has them as slower than any answer. A percentile is a measured
value (nearest rank); none is given that the sample is too small for. Each run
audits itself: what is off becomes a warning.

How it works: all sockets sit in one private epoll, whose own descriptor is the
only thing asyncio watches; one callback drains all that is ready. Parsing never
touches a socket, pacing never reads a clock. Exit code: 0 all answered (2xx),
1 some failed, 2 wrong usage, 129, 130, 143 interrupted (with what was measured).
Linux and macOS, Python 3.10 or newer; this file works alone, but --processes
needs load_processes.py beside it. The keys of the JSON: class Summary, below.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
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
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, NoReturn, TextIO, TypedDict

MAX_HEAD_BYTES = 64 * 1024  # head of a response, its chunk lines, its trailers: more is an attack or a mistake
MAX_BODY_BYTES = 64 * 1024 * 1024  # bodies are counted, not kept; an endless one must end
NO_BODY = (204, 304)
READ_BYTES = 65536
FIRST_READ_BYTES = 479  # Python allocates the buffer of each read, up to 512 bytes with its header from a pool
EVENTS = 64  # handled at a time: with more, the first sockets have left the CPU's caches before they are read
SYN_RETRY_S = 0.9  # Linux sends a lost SYN again after 1 s, then 2 and 4 s later (TCP_TIMEOUT_INIT)
DELAYED_ACK_S = (0.035, 0.1)  # Linux holds back an ACK for 40 ms (TCP_DELACK_MIN), and timers come late
SOCK_NONBLOCK = getattr(socket, "SOCK_NONBLOCK", 0)  # Linux: one system call less for each connection
SPIN_S = 0.0002  # stop sleeping so long before a request is due: sleepers wake up some 0.1 ms late; costs CPU, stated
TIMEOUT_S = 40.0  # pools and gunicorn's workers give up after 30 s: their word for it is better than our time-out
QUIET_S = 5.0  # without any answer for so long, say a word

# ---------------------------------------------------------------- what to send, and when


class Problem(Exception):  # something the user can mend: printed as one line
    exit_code = 2


class Pace(NamedTuple):
    """When requests may be sent. Reads no clock and sees no socket: a table of cases tests it."""

    requests: float = math.inf
    concurrency: float = math.inf
    rate: float | None = None  # requests/s
    stages: tuple[tuple[float, int], ...] = ()  # seconds, and the virtual users at their end, as in k6
    time_limit_s: float = math.inf
    think_s: float = 0.0  # of a user, between an answer and the next request
    schedule: Sequence[float] = ()  # when each request of an open loop is due; empty: every 1 / rate
    seed: int | None = None  # what the schedule was drawn with
    share: tuple[int, int] = (0, 1)  # (k, N): client process k of N gets every N-th request and user

    @property
    def mode(self) -> str:
        return "open" if self.rate else "ramp" if self.stages else "closed" if self.concurrency < math.inf else "burst"

    @property
    def most_under_way(self) -> float:
        return min(self.requests, max((users for _, users in self.stages), default=self.concurrency))

    def dealt(self, total: float) -> float:
        """How many of `total` requests or users are this process's.

        >>> [Pace(share=(k, 3)).dealt(7) for k in range(3)]
        [3, 2, 2]
        """
        return total if total == math.inf else math.ceil((total - self.share[0]) / self.share[1])

    def due_s(self, index: int) -> float:
        """When this process's request `index` of an open loop is due, in seconds since the run began."""
        number = index * self.share[1] + self.share[0]
        return self.schedule[number] if self.schedule else number / (self.rate or math.nan)

    @property
    def due_in_all(self) -> int:
        """How many requests an open loop should send: all that are due before its time limit."""
        if self.schedule:
            return bisect.bisect_left(self.schedule, self.time_limit_s)
        due = self.time_limit_s * (self.rate or 0.0)
        return int(min(self.requests, due if due == math.inf else math.ceil(round(due, 6))))

    def limits(self, elapsed_s: float) -> tuple[float, float]:
        """How many requests may have been sent in all by now, and how many may be under way at once."""
        if self.schedule:
            return self.dealt(bisect.bisect_right(self.schedule, elapsed_s)), math.inf
        if self.rate:
            return self.dealt(min(self.requests, int(elapsed_s * self.rate) + 1)), math.inf
        begin_s, users = 0.0, 0 if self.stages else self.concurrency
        for stage_s, next_users in self.stages:
            if elapsed_s < begin_s + stage_s:
                users = math.ceil(users + (next_users - users) * (elapsed_s - begin_s) / stage_s)
                break
            begin_s, users = begin_s + stage_s, next_users
        return self.dealt(self.requests), self.dealt(users)

    def next_change_s(self, elapsed_s: float) -> float:
        """When to ask for the limits again."""
        next_s = elapsed_s + 0.02 if self.stages else math.inf
        if self.rate and (released := self.limits(elapsed_s)[0]) < self.dealt(self.requests):
            next_s = self.due_s(int(released))
        return min(next_s, self.time_limit_s)


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
class Traffic:  # what to send, where to, and at what pace
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
    processes: int = 1  # of the client

    def message(self, method: str, path: str, body: bytes) -> tuple[bytes, bytes]:
        """A request up to where its number belongs, and the rest."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines, names = [f"{method} {path} HTTP/1.1", *self.headers], [name.partition(":")[0] for name in self.headers]
        lines += [] if "host" in map(str.lower, names) else [f"Host: {host}:{self.port}"]
        lines += [] if self.keep_alive else ["Connection: close"]
        lines += [f"Content-Length: {len(body)}"] if body or method in ("POST", "PUT", "PATCH") else []
        return "\r\n".join([*lines, ""]).encode("latin-1"), b"\r\n" + body

    def messages(self, numbered: bool) -> Iterator[bytes]:
        """The bytes of the requests, in order; numbered ones carry what a server's access log is matched by."""
        if self.kinds:
            return self._mixed_messages(numbered)
        head, tail = self.message(self.method, self.path, self.body)
        if not numbered:
            return itertools.repeat(head + tail)
        return (b"%bX-Request-Id: %d\r\n%b" % (head, index, tail) for index in itertools.count())

    def _mixed_messages(self, numbered: bool) -> Iterator[bytes]:
        """The same in every run, since the dice have a fixed seed; unnumbered ones differ from numbered ones."""
        dice, shares = random.Random(f"{self.kinds} {numbered}"), [kind.share for kind in self.kinds]
        for index in itertools.count():
            (kind,) = dice.choices(self.kinds, shares)
            path = kind.path.replace("{id}", str(dice.randint(1, self.ids)))
            body = kind.body.replace("{n}", f"{index}" if numbered else f"warm-up-{index}")
            head, tail = self.message(kind.method, path, body.encode())
            yield b"%bX-Request-Id: %d\r\n%b" % (head, index, tail) if numbered else head + tail


# ---------------------------------------------------------------- raw times

ERRORS = (
    "", "refused", "reset", "closed", "timed out", "malformed", "truncated", "too large", "no local port",
    "too many open files", "connect failed", "interrupted", "given up", "client died",
)  # fmt: skip
ERRNO_NAMES = {
    errno.ECONNREFUSED: "refused", errno.ECONNRESET: "reset", errno.EPIPE: "reset", errno.ETIMEDOUT: "timed out",
    errno.EADDRNOTAVAIL: "no local port", errno.EMFILE: "too many open files", errno.ENFILE: "too many open files",
}  # fmt: skip


class Exchanges:
    """Every request's raw times in columns (class Columns), request i at index i; perf_counter seconds, 0.0: never."""

    COLUMNS = ("started_s", "sent_s", "first_byte_s", "answered_s", "body_bytes", "status", "error")
    BLOCK = 4096  # rows to grow by

    def __init__(self) -> None:
        self.started_s, self.sent_s, self.first_byte_s, self.answered_s = (array("d") for _ in range(4))
        self.body_bytes, self.status, self.error = array("L"), array("H"), array("B")

    def grow(self, rows: int = BLOCK) -> None:
        for column in vars(self).values():
            column.frombytes(bytes(column.itemsize * rows))

    def finish(self, rows: int) -> None:
        """Cut what was not used, and write down the two moments that a run leaves out because they are known."""
        for column in vars(self).values():
            del column[rows:]
        for i in range(rows):
            if not self.error[i]:
                self.sent_s[i] = self.sent_s[i] or self.started_s[i]  # on a kept connection
                self.first_byte_s[i] = self.first_byte_s[i] or self.answered_s[i]  # the answer came in one piece


class Measured(NamedTuple):  # what a run leaves, before any sum is made of it
    exchanges: Exchanges
    begun_s: float
    client_cpu_s: float  # of all client processes
    sockets_opened: int
    kernel: dict[str, int] = {}  # noqa: RUF012  counters during the run
    warm_up: Exchanges = Exchanges()
    stopped: str = ""  # why the sending ended early: a signal's name, or what happened
    server_cpu_s: float | None = None  # known to whoever started the server
    spun_s: float = 0.0  # of client_cpu_s: spent in waiting for the next due moment
    numbers: Sequence[int] = ()  # each row's X-Request-Id; empty: the row's own number


# ---------------------------------------------------------------- read HTTP, without any I/O


class HTTPError(Exception):
    """A response that cannot be understood."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind  # one of ERRORS


class Head(NamedTuple):  # what a response's head says: how its body ends, and whether the connection stays
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
    """Parse bytes that begin with a response head and hold its blank line. Raises HTTPError("malformed")."""
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
    total = -1 if length is None or codings or status < 200 or status in NO_BODY else end.end() + length
    return Head(end.end(), status, length, bool(codings), keep_alive, total)


class ResponseParser:
    """Reads one response, however its bytes are split; bodies are counted, not kept.

    feed() takes what arrived and is True once the response is complete; eof() says that no more will come. Both raise
    HTTPError, and neither touches a socket. A complete response may be followed by the next, after HEAD with reset().
    """

    __slots__ = ("body_bytes", "data", "fresh", "is_head_request", "keep_alive", "status", "steps", "until_close")

    def __init__(self, is_head_request: bool = False) -> None:
        self.reset(is_head_request)

    def reset(self, is_head_request: bool) -> None:
        self.is_head_request = is_head_request
        self.fresh = not is_head_request  # nothing fed yet
        self.steps: Generator[None, bytes, None] | None = None  # of a response that does not come in one piece
        self.data = b""  # fed, and not used yet
        self.status = self.body_bytes = 0
        self.keep_alive = self.until_close = False

    def feed(self, data: bytes) -> bool:
        if self.fresh and (end := data.find(b"\r\n\r\n") + 4) > 3:
            size, self.status, _, _, self.keep_alive, total = parse_head(data[:end])
            if total == len(data):  # a whole response in one piece: the steps below would come to the same, slower
                self.body_bytes = total - size
                return True
        if not self.steps:
            self.reset(self.is_head_request)  # what the answers before it left behind
            self.fresh, self.steps = False, self._read()
            next(self.steps)
        try:
            self.steps.send(data)
        except StopIteration:
            return True
        return False

    def eof(self) -> bool:
        if not (self.steps and (self.data or self.status)):
            raise HTTPError("closed", "the connection was closed without an answer")
        if not self.until_close:
            raise HTTPError("truncated", "the connection was closed in the middle of the response")
        return True

    def _read(self) -> Generator[None, bytes, None]:
        """One response, step by step; each yield waits for more bytes. Which body follows which head: RFC 9112, 6.3."""
        self.data = yield
        while self.status < 200:  # any 1xx: no body, and the real head follows
            while not (end := HEAD_END.search(self.data)):
                yield from self._more("head")
            if end.end() > MAX_HEAD_BYTES:
                raise HTTPError("too large", f"a head of {end.end()} bytes")
            size, self.status, length, chunked, self.keep_alive, _ = parse_head(self.data[: end.end()])
            self.data = self.data[size:]
            if self.status == 101:
                raise HTTPError("malformed", "101 Switching Protocols, which was not asked for")
        if self.is_head_request or self.status in NO_BODY:
            pass
        elif chunked:
            yield from self._chunks()
        elif length is None:  # all bytes until the server closes
            self.until_close, self.keep_alive = True, False
            yield from self._count(math.inf)
        else:
            yield from self._count(length)
        if self.data:  # nothing more was asked for
            raise HTTPError("malformed", f"bytes after the response: {self.data[:60]!r}")

    def _chunks(self) -> Generator[None, bytes, None]:
        size, left = 1, MAX_HEAD_BYTES  # what the trailers may take
        while size:
            if not (match := CHUNK_LINE.fullmatch(line := (yield from self._line()))):
                raise HTTPError("malformed", f"no chunk size: {line[:60]!r}")
            size = int(match[1], 16)
            yield from self._count(size)
            if size and (line := (yield from self._line())):
                raise HTTPError("malformed", f"a chunk goes on past its size: {line[:60]!r}")
        while line := (yield from self._line()):
            left -= len(line)
            if left < 0 or not HEADER_LINE.fullmatch(line):
                raise HTTPError("malformed", f"no trailer line: {line[:60]!r}")

    def _line(self) -> Generator[None, bytes, bytes]:
        while b"\n" not in self.data:
            yield from self._more("line")
        line, _, self.data = self.data.partition(b"\n")
        return line[:-1] if line.endswith(b"\r") else line

    def _more(self, what: str) -> Generator[None, bytes, None]:
        if len(self.data) > MAX_HEAD_BYTES:
            raise HTTPError("too large", f"a {what} of more than {MAX_HEAD_BYTES} bytes")
        self.data += yield

    def _count(self, size: float) -> Generator[None, bytes, None]:
        """So many bytes of the body."""
        if size < math.inf and self.body_bytes + size > MAX_BODY_BYTES:
            raise HTTPError("too large", f"a body of {self.body_bytes + size} bytes")
        while size:
            taken = int(min(size, len(self.data)))
            self.data = self.data[taken:]
            self.body_bytes += taken
            size -= taken
            if self.body_bytes > MAX_BODY_BYTES:
                raise HTTPError("too large", f"a body of more than {MAX_BODY_BYTES} bytes")
            if size:
                self.data = yield


# ---------------------------------------------------------------- send


class Poller:
    """One private epoll for all sockets of a run; where there is none (macOS), what the selectors module finds."""

    def __init__(self) -> None:
        if hasattr(select, "epoll"):
            epoll = select.epoll()
            # EPOLLRDHUP: the server has closed, which is known with its answer, without another recv
            self.closed, self.read, self.write = select.EPOLLRDHUP, select.EPOLLIN | select.EPOLLRDHUP, select.EPOLLOUT
            self.fileno, self.register, self.modify = epoll.fileno, epoll.register, epoll.modify
            self.poll: Callable[[], list[tuple[int, int]]] = functools.partial(epoll.poll, 0, EVENTS)
            self.forget: Callable[[int], object] | None = None  # closing a socket takes it out of its epoll
            self.close: Callable[[], None] = epoll.close
        else:
            selector = selectors.DefaultSelector()
            self.closed, self.read, self.write = 0, selectors.EVENT_READ, selectors.EVENT_WRITE
            self.fileno = selector.fileno
            self.register, self.modify = selector.register, selector.modify  # type: ignore[assignment]
            self.poll = lambda: [(key.fd, events) for key, events in selector.select(0)]
            self.forget, self.close = selector.unregister, selector.close


class Connection:
    """A socket and what it works on. Used again, with its parser, for the next socket: making one takes time."""

    __slots__ = ("fd", "index", "parser", "recv", "send", "sock", "unsent", "watched")
    sock: socket.SocketType
    fd: int
    recv: Callable[[int], bytes]  # of the socket, looked up once
    send: Callable[[bytes], int]

    def __init__(self) -> None:
        self.parser = ResponseParser()
        self.index = -1  # of the request it works on; -1: none
        self.unsent = b""  # what the kernel has not taken yet
        self.watched = 0  # the events that the poller reports


class Load:
    """Sends requests on raw sockets as a pace allows, and records every exchange.

    asyncio watches nothing but the poller: its own work is done once for many answers, not once for each. Most answers
    of a run are equal, byte for byte, while the second in their Date lasts: one like the last is not parsed again.
    """

    def __init__(self, address: tuple[Any, ...], messages: Iterator[bytes], pace: Pace, timeout_s: float,
                 keep_alive: bool = False, progress: Callable[[float, int, int], None] = lambda *_: None,
                 begun_s: float = 0.0) -> None:  # fmt: skip
        """progress is told begun_s, sent and under way; begun_s: when to begin, if not at once."""
        self.address, self.messages, self.pace, self.timeout_s = address, messages, pace, timeout_s
        self.family = socket.AF_INET6 if len(address) == 4 else socket.AF_INET
        self.keep_alive, self.progress, self.begun_s = keep_alive, progress, begun_s
        self.think_s, self.total = pace.think_s, pace.dealt(pace.requests)
        self.exchanges = all_ = Exchanges()
        self.started_s, self.sent_s, self.first_byte_s = all_.started_s, all_.sent_s, all_.first_byte_s
        self.answered_s, self.body_bytes, self.status = all_.answered_s, all_.body_bytes, all_.status
        self.capacity = self.sent = self.in_flight = self.sockets_opened = self.failures = 0
        self.released = self.users = 0.0  # the pace's limits, as last asked for
        self.cpu_s = self.spun_s = 0.0
        self.ended = self.fill_is_due = self.wake_is_due = False  # ended: nothing more will be sent
        self.stopped = ""  # why it ended before its time
        self.thinking: deque[float] = deque()  # when each user that thinks will have done so, in order
        self.connections: dict[int, Connection] = {}
        self.idle: dict[Connection, None] = {}  # kept connections with nothing to do, the last used at the end
        self.spare: list[Connection] = []  # without a socket
        self.last_answer, self.last_result = b"none yet", (0, 0, False)  # status, bytes of body, connection stays
        self.first_read_bytes = FIRST_READ_BYTES
        self.poller = Poller()
        # select counts in microseconds, where asyncio's usual epoll rounds up to the next millisecond
        self.loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
        self.finished: asyncio.Future[None] = self.loop.create_future()

    async def run(self) -> Exchanges:
        """Send everything, wait for every answer or its time-out, and return what happened."""
        self.loop.add_reader(self.poller.fileno(), self._drain)
        gc.disable()  # nothing here makes cycles, and a collection in the middle of a run shows as latency
        try:
            await asyncio.sleep(self.begun_s - perf_counter())
            self.begun_s, begun_cpu_s = self.begun_s or perf_counter(), time.process_time()
            self.quiet_since_s = self.begun_s
            self._follow_pace()
            self._watch_deadlines()
            await self.finished
            self.cpu_s = time.process_time() - begun_cpu_s
            self.spun_s = min(self.spun_s, self.cpu_s)  # measured by the clock, which runs on while others have the CPU
        finally:
            gc.enable()
            self.loop.remove_reader(self.poller.fileno())
            self._abandon("interrupted")  # nothing is left of them, but for an exception
            self.poller.close()
            self.exchanges.finish(self.sent)
        return self.exchanges

    def stop(self, why: str, error: str = "interrupted") -> None:
        """Send nothing more, wait for nothing more; what is under way counts as failed, under that name."""
        if not self.stopped and not self.finished.done():
            self.stopped = why
            self._abandon(error)
            self.finished.set_result(None)

    def _abandon(self, error: str) -> None:
        self.ended, self.released, self.users = True, self.sent, 0
        for conn in list(self.connections.values()):
            self._fail(conn, error)

    def _follow_pace(self) -> None:
        """Send what may leave by now, and come back when that changes; in an open loop a little before its next
        request is due, to spin: whoever sleeps wakes up late."""
        turn_ends_s = perf_counter() + 0.02  # then the other timers and Ctrl-C have theirs
        while not self.ended:
            elapsed_s = perf_counter() - self.begun_s
            self.ended = elapsed_s >= self.pace.time_limit_s
            self.released, self.users = (self.sent, 0) if self.ended else self.pace.limits(elapsed_s)
            self._fill()
            next_s = self.begun_s + self.pace.next_change_s(elapsed_s)
            if self.ended or next_s == math.inf:
                return
            sleep_s = next_s - perf_counter() - (SPIN_S if self.pace.rate else 0.0)
            if sleep_s > 0 or not self.pace.rate or perf_counter() > turn_ends_s:
                self.loop.call_later(max(0.0, sleep_s), self._follow_pace)
                return
            spinning_since_s = perf_counter()
            while (now_s := perf_counter()) < next_s:
                if events := self.poller.poll():
                    self.spun_s += now_s - spinning_since_s
                    self._handle(events)
                    spinning_since_s = perf_counter()
            self.spun_s += now_s - spinning_since_s

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
        if not self.in_flight and (self.ended or self.sent >= self.total) and not self.finished.done():
            self.finished.set_result(None)

    def _wake(self) -> None:
        self.wake_is_due = False
        self._fill()

    def _fill_soon(self) -> None:
        """Once in each round of the loop, however many requests fail in it: its timers must have their turn."""
        if not self.fill_is_due:
            self.fill_is_due = True
            self.loop.call_soon(self._fill)

    def _start(self) -> None:
        """Send the next request: on an idle connection, or on a new one."""
        index = self.sent
        if index == self.capacity:
            self.exchanges.grow()
            self.capacity += Exchanges.BLOCK
        self.sent = index + 1
        self.in_flight += 1
        message = next(self.messages)
        self.started_s[index] = perf_counter()
        conn = self.idle.popitem()[0] if self.idle else self._connect(index)
        if not conn:
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
        conn = self.spare.pop() if self.spare else Connection()
        conn.sock, conn.fd, conn.recv, conn.send = sock, sock.fileno(), sock.recv, sock.send
        self.connections[conn.fd] = conn
        code = sock.connect_ex(self.address)
        if code == errno.EINPROGRESS or not code:
            return conn
        self._close(conn)
        self._record_failure(index, ERRNO_NAMES.get(code, "connect failed"))
        return None

    def _send(self, conn: Connection, unsent: bytes) -> bool:
        """Hand the kernel what it takes, have the poller report what comes next. False: the connection is lost."""
        try:
            taken = conn.send(unsent)
        except (BlockingIOError, InterruptedError):
            taken = 0
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # macOS: still connecting
                self._fail(conn, ERRNO_NAMES.get(error.errno or 0, "connect failed"))
                return False
            taken = 0
        poller = self.poller
        if taken == len(unsent) and conn.watched == poller.read:  # nearly all of a run on kept connections
            return True
        conn.unsent = unsent[taken:]
        events = poller.read | poller.write if conn.unsent else poller.read
        if events != conn.watched:
            if taken and not self.sent_s[conn.index]:
                self.sent_s[conn.index] = perf_counter()
            watch = poller.modify if conn.watched else poller.register
            watch(conn.fd, events)
            conn.watched = events
        return True

    def _drain(self) -> None:
        """Handle all that is ready; back to the loop after 20 ms at most, for its timers and for Ctrl-C."""
        until_s = min(perf_counter() + 0.02, self.begun_s + self.pace.time_limit_s)
        while events := self.poller.poll():
            self._handle(events)
            if perf_counter() > until_s:
                break

    def _handle(self, ready: list[tuple[int, int]]) -> None:
        """Take what has come; where an answer is whole, send the next request in its place."""
        connections, answered_s, statuses, sizes = self.connections, self.answered_s, self.status, self.body_bytes
        thinking, messages, started_s = self.thinking, self.messages, self.started_s
        keep_alive, think_s, read, first_bytes = self.keep_alive, self.think_s, self.poller.read, self.first_read_bytes
        # A user who neither thinks nor goes sends at once: all before this number, on the connection that is free.
        at_once = (
            min(self.released, self.capacity) if keep_alive and not think_s and self.in_flight <= self.users else 0
        )
        for fd, events in ready:
            # A descriptor closed earlier in this batch may be in use again: its new socket has nothing to read.
            conn = connections.get(fd)
            if not conn or ((unsent := conn.unsent) and not self._send(conn, unsent)):
                continue
            index = conn.index
            if index < 0:  # answered already: the server closes, or says more than it was asked
                self.idle.pop(conn, None)
                self._close(conn)
                continue
            fresh = conn.parser.fresh
            try:
                data = conn.recv(first_bytes if fresh else READ_BYTES)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError as error:
                self._fail(conn, ERRNO_NAMES.get(error.errno or 0, "reset"))
                continue
            now_s = perf_counter()
            if fresh and data == self.last_answer:
                statuses[index], sizes[index], stays = self.last_result
            elif result := self._parse(conn, data, now_s):
                statuses[index], sizes[index], stays = result
                fresh = False
            else:
                continue
            answered_s[index] = now_s
            index = self.sent
            if index < at_once and stays and not unsent:  # nearly all of a run on kept connections: as _start
                self.sent, conn.index, message = index + 1, index, next(messages)
                started_s[index] = now_s
                if message[0] == 72 or not fresh:  # 72: an H, as in HEAD
                    conn.parser.reset(message.startswith(b"HEAD "))
                try:
                    taken = conn.send(message)
                except OSError:
                    taken = 0  # once more, where the error is looked at
                if taken < len(message) or conn.watched != read:
                    self._send(conn, message[taken:])
                continue
            if think_s:
                thinking.append(now_s + think_s)
            conn.index = -1
            self.in_flight -= 1
            if stays and keep_alive and not conn.unsent:
                self.idle[conn] = None
            elif events & self.poller.closed:
                self._close(conn)
            # else: let the server close first, which is this connection's next event: the port is then free again
            if self.sent < self.released and not thinking and self.in_flight < self.users:  # one for one
                self._start()
            else:
                self._fill()

    def _parse(self, conn: Connection, data: bytes, now_s: float) -> tuple[int, int, bool] | None:
        """Status, bytes of the body and whether the connection stays, once the answer is whole."""
        parser, fresh = conn.parser, conn.parser.fresh
        try:
            complete = parser.feed(data) if data else parser.eof()
        except HTTPError as error:
            self._fail(conn, error.kind)
            return None
        if not complete:
            if fresh and len(data) >= self.first_read_bytes:  # the usual answer is larger
                self.first_read_bytes = min(8 * self.first_read_bytes, READ_BYTES)
            self.first_byte_s[conn.index] = self.first_byte_s[conn.index] or now_s
            return None
        result = parser.status, parser.body_bytes, parser.keep_alive
        if fresh:
            self.last_answer, self.last_result = data, result
        return result

    def _fail(self, conn: Connection, kind: str) -> None:
        index = conn.index
        self._close(conn)
        if index >= 0:
            self._record_failure(index, kind)

    def _record_failure(self, index: int, kind: str) -> None:
        self.answered_s[index] = perf_counter()
        self.exchanges.error[index] = ERRORS.index(kind)
        self.in_flight -= 1
        self.failures += 1
        if self.think_s:
            self.thinking.append(perf_counter() + self.think_s)
        if self.failures >= max(10, self.users) and self.nothing_answered:
            self.stop(f"the first {self.failures} requests all failed ({kind})", "given up")
        self._fill_soon()

    @property
    def nothing_answered(self) -> bool:
        return self.failures == self.sent - self.in_flight

    def _close(self, conn: Connection) -> None:
        if conn.watched and self.poller.forget:
            self.poller.forget(conn.fd)
        self.connections.pop(conn.fd, None)
        conn.sock.close()
        conn.index, conn.unsent, conn.watched = -1, b"", 0
        self.spare.append(conn)

    def _watch_deadlines(self) -> None:
        now_s = perf_counter()
        for conn in list(self.connections.values()):
            if conn.index >= 0 and self.started_s[conn.index] < now_s - self.timeout_s:
                self._fail(conn, "timed out")
        if self.failures and self.nothing_answered and now_s - self.begun_s >= self.timeout_s:
            self.stop(f"no answer at all within the time-out of {self.timeout_s:g} s (-s)", "given up")
        self.progress(self.begun_s, self.sent, self.in_flight)
        if self.finished.done():
            return
        is_quiet = self.in_flight and self.nothing_answered and now_s - self.quiet_since_s >= QUIET_S
        if is_quiet and not self.pace.share[0]:  # one word is enough of several processes
            say(f"{self.sent} sent, no answer for {now_s - self.begun_s:.0f} s; each has {self.timeout_s:g} s (-s)")
            self.quiet_since_s = math.inf
        self.loop.call_later(min(0.1, self.timeout_s / 4), self._watch_deadlines)


# ---------------------------------------------------------------- signals


class Interrupted(BaseException):
    """A signal that asks the program to end, outside of a run."""


class Signals:
    """SIGINT, SIGTERM and SIGHUP: raised as Interrupted, or held back while there is something to bring home. A load
    that is under way stops (stop_load) and its figures are reported; a second signal is raised all the same."""

    NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
    received = 0
    is_held = False
    stop_load: Callable[[str], object] | None = None

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
        self.received, before = 0, {}
        with contextlib.suppress(ValueError):  # only the main thread may set handlers: elsewhere they stay as they are
            before = {name: signal.signal(getattr(signal, name), self.handle) for name in self.NAMES}
        try:
            yield
        finally:
            self.is_held = False
            for name, handler in before.items():
                signal.signal(getattr(signal, name), handler)


signals = Signals()  # as a process has only one set of them

# ---------------------------------------------------------------- one run


def measure(traffic: Traffic, address: tuple[Any, ...], numbered: bool = False,
            server_cpu_s: Callable[[], float | None] = lambda: None) -> Measured:  # fmt: skip
    """Send the warm-up, then the load (from as many processes as were asked for, but from none that would have no
    request or user), and read every counter just before and after the load."""
    warm_up, progress = Exchanges(), Progress(traffic.pace)
    if traffic.warm_up:
        pace = Pace(traffic.warm_up, min(traffic.pace.most_under_way, traffic.warm_up))
        warm_up, _ = run_load(Load(address, traffic.messages(False), pace, traffic.timeout_s, traffic.keep_alive))
    kernel, cpu_s = kernel_counters(), server_cpu_s()
    processes = int(min(traffic.processes, traffic.pace.most_under_way))
    try:
        send = process_client().send if processes > 1 else send_share
        measured = send(traffic, address, numbered, progress.show, (0, processes))
    finally:
        progress.write("")
    kernel = {name: count - kernel.get(name, 0) for name, count in kernel_counters().items()}
    after_s = server_cpu_s() or 0.0  # less than before: some of it has ended, and nobody knows
    used_s = None if cpu_s is None or after_s < cpu_s else round(after_s - cpu_s, 6)
    return measured._replace(kernel=kernel, warm_up=warm_up, server_cpu_s=used_s)


def process_client() -> Any:
    """The module that sends from several processes. Raises Problem where it is not beside this file."""
    try:
        import load_processes
    except ImportError as error:
        raise Problem(f"--processes needs load_processes.py beside load.py: {error}") from None
    return load_processes


def send_share(traffic: Traffic, address: tuple[Any, ...], numbered: bool, progress: Callable[[float, int, int], None],
               share: tuple[int, int], begun_s: float = 0.0) -> Measured:  # fmt: skip
    """Send what one client process of a load has to."""
    messages = traffic.messages(numbered)
    messages = messages if share[1] == 1 else itertools.islice(messages, share[0], None, share[1])
    pace = traffic.pace._replace(share=share)
    load = Load(address, messages, pace, traffic.timeout_s, traffic.keep_alive, progress, begun_s)
    exchanges, stopped = run_load(load)
    return Measured(exchanges, load.begun_s, load.cpu_s, load.sockets_opened, stopped=stopped, spun_s=load.spun_s)


def run_load(load: Load) -> tuple[Exchanges, str]:
    """Run it in a loop of its own, a signal stopping it in an orderly way: what happened, and why it stopped early."""
    signals.stop_load = lambda name: load.loop.call_soon_threadsafe(load.stop, name)
    if signals.received:  # before there was anything to stop
        load.stop(signal.Signals(signals.received).name)
    try:
        return load.loop.run_until_complete(load.run()), load.stopped
    finally:
        signals.stop_load = None
        load.loop.close()


class Progress:
    """A line on a terminal that says how far a load is: rate, and about how long it still takes."""

    def __init__(self, pace: Pace) -> None:
        self.pace, self.is_shown = pace, bool(sys.stderr and sys.stderr.isatty())

    def show(self, begun_s: float, sent: int, in_flight: int) -> None:
        elapsed_s, done = perf_counter() - begun_s, sent - in_flight
        if self.is_shown and elapsed_s > 0:
            share = max(elapsed_s / self.pace.time_limit_s, done / self.pace.requests)
            left = f", {max(0.0, elapsed_s / share - elapsed_s):.0f} s left" if share > 0.01 else ""
            self.write(f"{elapsed_s:6.1f} s  {sent} sent, {in_flight} under way, {done / elapsed_s:.0f}/s{left}")

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            print(f"\r\033[K{text}" * self.is_shown, end="", file=sys.stderr, flush=True)


def kernel_counters() -> dict[str, int]:
    """What TCP had to drop or send again since boot, in this network namespace; empty where not Linux."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/net/netstat").read_text().splitlines()
        names, values = (line.split() for line in lines if line.startswith("TcpExt:"))
        return {name: int(values[names.index(name)]) for name in ("ListenOverflows", "TCPSynRetrans")}
    return {}


# ---------------------------------------------------------------- summarise: the keys of the JSON


class Statistics(TypedDict):
    """Seconds; a percentile is null where the sample is too small for it: p99 needs 100 values, p999 (99.9 %) 1000."""

    min: float
    mean: float
    sd: float
    median: float
    p90: float | None
    p95: float | None
    p99: float | None
    p999: float | None
    max: float
    intervals: dict[str, tuple[float, float | None]]  # of median, p90, ...: 95 % sure; null: above all values


class Second(TypedDict):
    second: int
    answered: int
    failed: int
    mean_latency_s: float


class Level(TypedDict):  # a stage of a ramp
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


class Described(TypedDict):  # what is known of a load before its first request
    method: str
    path: str
    mode: str  # burst, closed, open or ramp
    requests: int | None
    concurrency: int | None
    rate_rps: float | None
    arrivals: str | None  # constant or poisson, of an open loop
    seed: int | None  # of poisson
    stages: Sequence[tuple[float, int]]
    think_s: float
    time_limit_s: float | None
    keep_alive: bool
    timeout_s: float
    processes: int  # of the client


class Columns(TypedDict, total=False):
    """Every request's raw times, in columns of equal length: seconds since the run began, null for "never"."""

    started_s: Sequence[float | None]  # its connect began; on a kept connection: it was sent
    sent_s: Sequence[float | None]  # connected, and handed to the kernel
    first_byte_s: Sequence[float | None]
    answered_s: Sequence[float | None]  # or when it failed
    status: Sequence[int | None]
    error: Sequence[str | None]
    body_bytes: Sequence[int]


class Summary(Described):  # what a run's raw times come to; all times in seconds, those of events since the run began
    stopped: str | None  # why the sending ended early: SIGINT, ..., or what happened
    sent: int
    answered: int  # with a status of 2xx
    failed: int
    errors: dict[str, int]
    due: int | None  # of an open loop: how many should have been sent by its end
    measured_s: float  # until the last answer
    window_s: float  # in which throughput counts
    finished_after_limit: int
    throughput_rps: float  # answers within the window, per second of it
    latency_s: Statistics | None
    at_least_s: Statistics | None  # latency, failed requests counted as slower than any answer; null: none failed
    phases_s: dict[str, Statistics | None]  # connect; from sent: waiting (to the first byte), processing; total
    lag_s: Statistics | None  # of an open loop: how long after it was due a request left
    histogram: list[tuple[float, int]]  # (upper bound, count)
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
    client_cpu_s: float  # of all client processes
    client_spun_s: float  # of it: in waiting for the next due moment
    server_cpu_s: float | None
    kernel: dict[str, int]


class LoadRun(Summary):  # one run of load.py, as its JSON has it
    when: str
    target: str
    warnings: list[Warned]
    exchanges: Columns


class Machine(TypedDict):
    system: str
    cpus: int
    cpu: str  # the model, as far as the system tells
    kernel: str


class Document(TypedDict):  # what --json writes; complete is false until everything that was asked for has ended
    when: str
    command: str
    machine: Machine
    versions: dict[str, str]
    complete: bool
    runs: list[Any]


def describe(traffic: Traffic) -> Described:
    pace = traffic.pace
    return {
        "method": traffic.method, "path": traffic.path, "mode": pace.mode, "requests": finite(pace.requests),
        "concurrency": finite(pace.concurrency), "rate_rps": pace.rate, "seed": pace.seed,
        "arrivals": None if not pace.rate else "poisson" if pace.schedule else "constant", "stages": pace.stages,
        "think_s": pace.think_s, "time_limit_s": None if pace.time_limit_s == math.inf else pace.time_limit_s,
        "keep_alive": traffic.keep_alive, "timeout_s": traffic.timeout_s, "processes": traffic.processes,
    }  # fmt: skip


def finite(number: float | None) -> int | None:
    return None if number is None or number == math.inf else int(number)


def is_success(status: int, error: int) -> bool:
    return not error and 200 <= status < 300


def summarise(traffic: Traffic, measured: Measured) -> Summary:
    """Statistics are of successes only (2xx): a refused or timed-out request says nothing about how long an answer
    takes, and is counted by name instead.

    Throughput counts until the last answer, or the time limit if that was sooner; and of an open loop not before its
    schedule ends, or ten requests at 1/s would be answered at ten in nine seconds."""
    columns, begun_s, pace, warm_up = measured.exchanges, measured.begun_s, traffic.pace, measured.warm_up
    started_s, sent_s, first_byte_s, answered_s = (getattr(columns, name) for name in Exchanges.COLUMNS[:4])
    sent, good, errors = len(columns.status), array("L"), Counter[str]()
    for i, (status, error) in enumerate(zip(columns.status, columns.error, strict=True)):
        if is_success(status, error):
            good.append(i)
        else:
            errors[ERRORS[error] or f"HTTP {status}"] += 1
    numbers = measured.numbers or range(sent)
    due_s = array("d", (begun_s + pace.due_s(i) for i in numbers)) if pace.rate else started_s
    measured_s = max(answered_s, default=begun_s) - begun_s
    scheduled_s = 0.0 if measured.stopped or not pace.rate else pace.requests / pace.rate
    window_s = min(max(measured_s, scheduled_s), pace.time_limit_s)
    in_window = sum(answered_s[i] - begun_s <= window_s for i in good)
    end_s = begun_s + window_s
    lives = zip(started_s, answered_s, strict=True)
    under_way_s = sum(min(end, end_s) - start for start, end in lives if start < end_s)

    def spans(begin: Sequence[float], end: Sequence[float]) -> Statistics | None:
        return statistics_of([end[i] - begin[i] for i in good])

    total = spans(started_s, answered_s)
    return {
        **describe(traffic), "stopped": measured.stopped or None,
        "sent": sent, "answered": len(good), "failed": sent - len(good), "errors": dict(errors),
        "due": None if not pace.rate else sent if measured.stopped else pace.due_in_all,
        "measured_s": round(measured_s, 6), "window_s": round(window_s, 6),
        "finished_after_limit": len(good) - in_window,
        "throughput_rps": in_window / window_s if good and window_s else 0.0,
        "latency_s": spans(due_s, answered_s) if pace.rate else total,
        "at_least_s": at_least(columns, due_s) if errors else None,
        "phases_s": {"connect": spans(started_s, sent_s), "waiting": spans(sent_s, first_byte_s),
                     "processing": spans(sent_s, answered_s), "total": total},
        "lag_s": spans(due_s, started_s) if pace.rate else None,
        "histogram": histogram([answered_s[i] - due_s[i] for i in good]),
        "per_second": per_second(columns, begun_s, due_s), "levels": levels(columns, begun_s, pace.stages),
        "warmed_up": len(warm_up.status), "created": columns.status.count(201) + warm_up.status.count(201),
        "mean_in_flight": under_way_s / (window_s or math.nan),
        "slow_connects": sum(sent_s[i] - started_s[i] > SYN_RETRY_S for i in good),
        "slow_waits": slow_waits(columns, good),
        "late_bodies": sum(DELAYED_ACK_S[0] < answered_s[i] - first_byte_s[i] < DELAYED_ACK_S[1] for i in good),
        "body_bytes": sum(columns.body_bytes[i] for i in good), "sockets_opened": measured.sockets_opened,
        "client_cpu_s": round(measured.client_cpu_s, 6), "client_spun_s": round(measured.spun_s, 6),
        "server_cpu_s": measured.server_cpu_s, "kernel": measured.kernel,
    }  # fmt: skip


def at_least(columns: Exchanges, due_s: Sequence[float]) -> Statistics | None:
    """Latency with the failed requests in it: each took at least as long as it was waited for, and is slower than any
    that was answered. To leave them out flatters an overloaded server: the slowest are those that timed out."""
    spans_s = [end - due for due, end in zip(due_s, columns.answered_s, strict=True)]
    good = bytes(map(is_success, columns.status, columns.error))
    slowest_s = max(itertools.compress(spans_s, good), default=0.0)
    for i, span_s in enumerate(spans_s):
        spans_s[i] = span_s if good[i] else max(span_s, slowest_s)
    return statistics_of(spans_s)


def slow_waits(columns: Exchanges, good: Sequence[int]) -> int:
    """How many first requests of a connection took longer than the fastest by more than TCP's first retry: where the
    listen queue had no room, the client's connect often succeeds, and the wait shows before the first byte."""
    waits_s = [columns.first_byte_s[i] - columns.sent_s[i] for i in good if columns.sent_s[i] > columns.started_s[i]]
    fastest_s = min(waits_s, default=0.0)
    return sum(wait_s > fastest_s + SYN_RETRY_S for wait_s in waits_s)


class Since(Sequence[float | None]):
    """A column of times as seconds since the run began, null for "never"; a view, since a run can have millions."""

    def __init__(self, times_s: array[float], begun_s: float) -> None:
        self.times_s, self.begun_s = times_s, begun_s

    def __len__(self) -> int:
        return len(self.times_s)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [round(at - self.begun_s, 6) if at else None for at in self.times_s[i]]
        return round(self.times_s[i] - self.begun_s, 6) if self.times_s[i] else None


def columns_of(measured: Measured) -> Columns:
    exchanges, begun_s = measured.exchanges, measured.begun_s
    return {
        "started_s": Since(exchanges.started_s, begun_s), "sent_s": Since(exchanges.sent_s, begun_s),
        "first_byte_s": Since(exchanges.first_byte_s, begun_s), "answered_s": Since(exchanges.answered_s, begun_s),
        "status": [status or None for status in exchanges.status], "body_bytes": exchanges.body_bytes,
        "error": [ERRORS[code] or None for code in exchanges.error],
    }  # fmt: skip


def nearest_rank(ordered: Sequence[float], per_cent: float) -> float | None:
    """The percentile by nearest rank (number ceil(p / 100 x n)), so that it is a measured value; None where it says no
    more than the maximum, as no value lies above it: n < 100 / (100 - p).

    >>> nearest_rank(range(1, 101), 99), nearest_rank(range(1, 100), 99)
    (99, None)
    """
    n = len(ordered)
    return None if n * (100 - per_cent) < 100 - 1e-9 else ordered[max(1, math.ceil(round(per_cent * n / 100, 6))) - 1]


@functools.lru_cache(256)
def interval_ranks(n: int, per_cent: float) -> tuple[int, int]:
    """The two ranks of n values (0: below all, n + 1: above all) between which the true percentile lies in 95 of 100
    samples, whatever the distribution: how many values lie below it is binomial (David and Nagaraja, Order Statistics,
    section 7.1). It takes the values for independent; those of one run hang together, so that the doubt is larger.

    >>> interval_ranks(100, 50), interval_ranks(100, 99)
    ((40, 61), (97, 101))
    """
    p = per_cent / 100
    k = max(0, int(n * p - 10 * math.sqrt(n * p * (1 - p)) - 10))  # what lies further out adds nothing
    log_chance = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    chance = math.exp(log_chance + k * math.log(p) + (n - k) * math.log1p(-p))  # of exactly k values below it
    below, low = chance, 0
    while below < 0.975:
        if below <= 0.025:
            low = k + 1
        chance *= (n - k) / (k + 1) * p / (1 - p)
        k += 1
        below += chance
    return low, k + 1


PERCENTILES = {"median": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9}


PERCENTILES = {"median": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9}


def statistics_of(values: list[float]) -> Statistics | None:
    """min, mean, sd, median, percentiles and max of some seconds; None of none. Sorts the list that it is given."""
    if not values:
        return None
    values.sort()
    n, mean = len(values), math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1) if n > 1 else 0.0
    found = {name: nearest_rank(values, per_cent) for name, per_cent in PERCENTILES.items()}
    found["median"] = (values[(n - 1) // 2] + values[n // 2]) / 2
    intervals: dict[str, tuple[float, float | None]] = {}
    for name, value in found.items():
        if value is not None:
            low, high = interval_ranks(n, PERCENTILES[name])
            intervals[name] = round(values[max(low, 1) - 1], 6), round(values[high - 1], 6) if high <= n else None
    median, p90, p95, p99, p999 = (None if value is None else round(value, 6) for value in found.values())
    return {"min": round(values[0], 6), "mean": round(mean, 6), "sd": round(math.sqrt(variance), 6),
            "median": median or 0.0, "p90": p90, "p95": p95, "p99": p99, "p999": p999, "max": round(values[-1], 6),
            "intervals": intervals}  # fmt: skip


BOUNDS_S = [round(step * 10.0**power, 4) for power in range(-4, 4) for step in (1, 2, 5)]


def histogram(latencies_s: Sequence[float]) -> list[tuple[float, int]]:
    """(upper bound in seconds, count) in steps of 1, 2, 5: a tail of seconds beside a bulk of milliseconds shows."""
    counts = Counter(min(bisect.bisect_left(BOUNDS_S, latency), len(BOUNDS_S) - 1) for latency in latencies_s)
    return [(BOUNDS_S[i], counts[i]) for i in range(min(counts), max(counts) + 1)] if counts else []


def per_second(columns: Exchanges, begun_s: float, due_s: Sequence[float]) -> list[Second]:
    """For each second of the run: answers, failures, and the mean latency (in an open loop: from due) of the answers
    in it. A second in which nothing ended is there too: that is what a stall looks like."""
    rows = range(int(max(columns.answered_s, default=begun_s - 1) - begun_s) + 1)
    found: list[Second] = [{"second": i, "answered": 0, "failed": 0, "mean_latency_s": 0.0} for i in rows]
    for answered_s, due, status, error in zip(columns.answered_s, due_s, columns.status, columns.error, strict=True):
        row = found[int(answered_s - begun_s)]
        if is_success(status, error):
            row["answered"] += 1
            row["mean_latency_s"] += answered_s - due
        else:
            row["failed"] += 1
    for row in found:
        row["mean_latency_s"] = round(row["mean_latency_s"] / (row["answered"] or 1), 6)
    return found


def levels(columns: Exchanges, begun_s: float, stages: Sequence[tuple[float, int]]) -> list[Level]:
    """For each stage of a ramp, of what was answered during it (the last one: or after it): counts, rate, latency."""
    found: list[Level] = []
    end_s = begun_s
    for number, (stage_s, users) in enumerate(stages, 1):
        begin_s, end_s = end_s, end_s + stage_s
        last_s = end_s if number < len(stages) else math.inf
        of_stage = [i for i, at in enumerate(columns.answered_s) if begin_s <= at < last_s]
        good = [i for i in of_stage if is_success(columns.status[i], columns.error[i])]
        rate_rps = sum(columns.answered_s[i] < end_s for i in good) / stage_s
        latency_s = statistics_of([columns.answered_s[i] - columns.started_s[i] for i in good])
        found.append({"users": users, "answered": len(good), "failed": len(of_stage) - len(good),
                      "throughput_rps": rate_rps, "latency_s": latency_s})  # fmt: skip
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
    "client died": ("a client process (--processes) ended before its time", "see what killed it; memory?"),
    "HTTP": ("the server answered with an error", "read its log"),
}
BROKEN = ("what came is not a whole HTTP/1.1 answer", "look at one with curl -v")


def audit(run: Summary) -> list[Warned]:
    """Everything in a run that its reader must know before believing it: symptom, likely cause, next step."""
    warnings: list[Warned] = []

    def warn(identifier: str, symptom: str, cause: str, next_step: str) -> None:
        warnings.append({"id": identifier, "symptom": symptom, "cause": cause, "next": next_step})

    sent, measured_s, kernel, errors = run["sent"], run["measured_s"], run["kernel"], run["errors"]
    clients = run["processes"]
    more_cpus = f"add --processes {2 * clients}" if clients < (os.cpu_count() or 1) else "use more CPUs"
    if run["failed"]:
        most = max(errors, key=lambda name: errors[name])
        counts = ", ".join(f"{count} {name}" for name, count in sorted(errors.items()))
        warn("failed-requests", f"{run['failed']} of {sent} requests failed: {counts}. They are in no percentile",
             *CAUSES.get("HTTP" if most.startswith("HTTP") else most, BROKEN))  # fmt: skip
    if died := errors.get("client died"):
        warn("client-died", f"a client process died, and {died} requests with it", *CAUSES["client died"])
    if run["due"] is not None and run["due"] > sent:
        warn("never-left", f"{run['due']} requests were due, {sent} left: {run['due'] - sent} never did",
             "this client cannot send as fast as that: overloaded", f"lower --rate, {more_cpus}")  # fmt: skip
    overflows, slow_waits = kernel.get("ListenOverflows", 0), run["slow_waits"]
    # As many overflows as late answers at the least, and those the smaller part: rounds of a second are late, too.
    retried = 0 < slow_waits <= min(overflows, run["answered"] / 2)
    if run["slow_connects"] or retried:
        warn("backlog-overflow",
             f"{plural(max(run['slow_connects'], slow_waits), 'connection')} took a second or more longer than others;"
             f" the kernel counted {overflows} listen-queue overflows and {kernel.get('TCPSynRetrans', 0)} SYN"
             " retransmissions (on the whole machine)",
             "the server's listen backlog was full, and TCP tried again after about 1, 3 and 7 s",
             "raise the server's backlog (and net.core.somaxconn), or accept faster")  # fmt: skip
    if (busy_s := (run["client_cpu_s"] - run["client_spun_s"]) / clients) > 0.8 * measured_s > 0.4:
        warn("client-limit", f"the client used {busy_s / measured_s:.0%} of a CPU{' each' * (clients > 1)}",
             "this client, not the server, may be what limits the throughput",
             f"read the throughput as a lower bound; {more_cpus}, with CPUs of their own")  # fmt: skip
    if run["lag_s"] and run["latency_s"]:
        lag_s, latency_s = (of["p99"] or of["max"] for of in (run["lag_s"], run["latency_s"]))
        if lag_s > 0.01 or lag_s > max(0.0005, 0.1 * latency_s):
            warn("late-sends", f"requests left up to {milliseconds(lag_s, 1)} ms after they were due (p99):"
                 f" {lag_s / latency_s:.0%} of the latency's {milliseconds(latency_s, 1)} ms may be this client's",
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
    asked, under_way = run["concurrency"] if run["mode"] == "closed" else None, run["mean_in_flight"]
    if asked and sent > 10 * asked and not run["failed"] and not run["think_s"] and under_way < 0.9 * asked:
        warn("little", f"{under_way:.1f} requests under way on average, {asked} asked for",
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
    n, limit_s = run["requests"], run["time_limit_s"]
    until = f"for {seconds(limit_s or 0)}"
    if n is not None:
        until = plural(n, "request") + (f" or {seconds(limit_s)}" if limit_s else "")
    seed = "" if run["seed"] is None else f", seed {run['seed']}"
    text = {
        "burst": f"{until} at once",
        "closed": f"closed loop, {until}, {run['concurrency']} users",
        "open": f"open loop, {until}, {run['rate_rps'] or 0:g} a second ({run['arrivals']} arrivals{seed}) whatever the"
        " server does",
        "ramp": "ramp of users, " + ", ".join(f"{seconds(stage_s)} to {users}" for stage_s, users in run["stages"]),
    }[run["mode"]]
    text += f", {seconds(run['think_s'])} of thought before the next request" if run["think_s"] else ""
    if run["mode"] != "burst":
        text += ", connections kept" if run["keep_alive"] else ", a new connection each"
    return text + (f", {run['processes']} client processes" if run["processes"] > 1 else "")


def render_phases(run: Summary) -> str:
    """ApacheBench's phases in milliseconds; phases that say the same share a line."""
    found, latency, last = run["phases_s"], run["latency_s"], "total"
    if run["mode"] == "open":
        found = {"connect": found["connect"], "waiting": found["waiting"], "service": found["total"],
                 "latency": latency, "lag": run["lag_s"]}  # fmt: skip
        last = "latency"
    names = ["min", "mean", "sd", "median", "p90", "p95", "p99", "max"]
    if latency and latency["p999"] is not None:
        names = ["min", "mean", "sd", "median", "p95", "p99", "p999", "max"]
    lines: dict[str, list[str]] = {}
    for phase, of_phase in {**found, "at least": run["at_least_s"]}.items():
        cells = "".join(milliseconds(of_phase[name]) for name in names) if of_phase else ""  # type: ignore[literal-required]
        if cells.replace("0", "").strip(" "):
            lines.setdefault(cells, []).append(phase)
    rows = [f"{'ms':12}" + "".join(f"{name.replace('p999', 'p99.9'):>8}" for name in names)]
    rows += [f"{phases[-1]:12}{cells}" for cells, phases in lines.items()]
    notes = [" = ".join(reversed(phases)) for phases in lines.values() if len(phases) > 1]
    wide = []  # where a percentile is known only roughly, between what it lies
    for percentile, (low_s, high_s) in latency["intervals"].items() if latency and run["mode"] != "burst" else ():
        if high_s is None or high_s - low_s > 0.25 * low_s:
            upper = f"to {milliseconds(high_s, 1)} ms" if high_s else "ms or more"
            wide.append(f"{percentile.replace('p999', 'p99.9')} {milliseconds(low_s, 1)} {upper}")
    notes += [f"{last} is 95 % sure to be: {', '.join(wide)}"] if wide else []
    return "\n".join([*rows, *([section("", "; ".join(notes))] if notes else [])])


def render_evidence(run: Summary) -> list[str]:
    """Phases, stages and histogram, with the figures to check them by; phases only where something was answered."""
    parts = [render_phases(run), ""] if run["answered"] else []
    if run["levels"]:
        rows = [f"{'stages':12}{'answers':>10}{'failed':>10}{'per s':>10}{'median ms':>12}{'p95 ms':>12}"]
        for level in run["levels"]:
            latency = level["latency_s"]
            cells = "".join(milliseconds(value, 12) for value in (latency["median"], latency["p95"])) if latency else ""
            counts = f"{level['answered']:10}{level['failed']:10}{level['throughput_rps']:10.1f}"
            rows.append(f"to {level['users']:<9}{counts}{cells}")
        parts += [*rows, ""]
    most = max((count for _, count in run["histogram"]), default=0)
    for bound_s, count in run["histogram"]:
        lower_s = max((bound for bound in BOUNDS_S if bound < bound_s), default=0.0)
        bar = "#" * math.ceil(count / most * 40)
        parts.append(f"{lower_s * 1000:>9g} - {bound_s * 1000:<7g} ms{count:>9}  |{bar}")
    return [*parts, ""] if run["histogram"] else parts


def render_counts(run: Summary) -> str:
    counts = f"{run['sent']} sent = {run['answered']} answered + {run['failed']} failed"
    if run["finished_after_limit"]:
        counts += f"; {run['finished_after_limit']} of the answers came after the time limit"
    if run["due"] is not None and run["due"] > run["sent"]:
        counts = f"{run['due']} due = {run['sent']} sent + {run['due'] - run['sent']} never left; {counts}"
    return counts


def render_audit(run: Summary) -> list[str]:
    """The figures by which a reader can check the throughput: Little's law (it holds where as many begin as end; what a
    window's edges cut evens out in the mean of both), sockets, CPU."""
    measured_s, under_way = run["measured_s"] or math.nan, run["mean_in_flight"]
    throughput = f"{run['throughput_rps']:.1f} answers/s (2xx only), {run['body_bytes']} body bytes"
    throughput += f"; {run['rate_rps']:g}/s offered" if run["rate_rps"] else ""
    turnover_rps = (run["sent"] + run["answered"] - run["finished_after_limit"]) / 2 / (run["window_s"] or math.nan)
    latency_s = (run["phases_s"]["total"] or {"mean": 0.0})["mean"]
    product = turnover_rps * latency_s
    little = f"{turnover_rps:.1f}/s (mean of sent and answered) x {latency_s * 1000:.4g} ms = {product:.1f}; under way"
    little += f" on average, counted: {under_way:.1f}: "
    little += "agrees" if abs(product - under_way) <= 0.1 * under_way + 0.1 else "does not agree"
    expected, spun_s = sockets_expected(run), run["client_spun_s"]
    cpu = f"client {run['client_cpu_s'] / measured_s:.0%} of a CPU"
    cpu += f" ({spun_s / measured_s:.0%} in waiting for the next due moment)" if spun_s > 0.005 * measured_s else ""
    cpu += "" if run["server_cpu_s"] is None else f", server {run['server_cpu_s'] / measured_s:.0%}"
    return [
        section("throughput", throughput),
        section("Little", little + " (failed requests are under way, too)" * bool(run["failed"])),
        section("sockets", f"{run['sockets_opened']} used" + (f" (expected {expected})" if expected else "")),
        section("CPU", cpu),
    ]


def render_warnings(warnings: Sequence[Warned]) -> list[str]:
    return [section("warning", f"{w['symptom']}. Likely: {w['cause']}. Next: {w['next']}.") for w in warnings]


def render_verdict(run: Summary) -> str:
    text = f"{plural(run['answered'], 'answer')} in {run['measured_s']:.2f} s, {run['throughput_rps']:.1f}/s"
    if latency := run["latency_s"]:
        text += f"; latency: median {milliseconds(latency['median'], 1)} ms"
        text += "" if latency["p99"] is None else f", p99 {milliseconds(latency['p99'], 1)} ms"
        text += f", most {milliseconds(latency['max'], 1)} ms"
    text += f"; {run['failed']} FAILED" if run["failed"] else ""
    return text + (f"; stopped: {run['stopped']}" if run["stopped"] else "")


def render_result(run: LoadRun) -> str:
    parts = [section("verdict", render_verdict(run)), *render_warnings(run["warnings"]), "", *render_evidence(run)]
    return "\n".join([*parts, section("counts", render_counts(run)), *render_audit(run)])


# ---------------------------------------------------------------- JSON and other output


@functools.cache
def about_machine() -> Machine:
    cpu = platform.processor()
    with contextlib.suppress(OSError):  # Linux
        models = re.findall(r"(?m)^model name\s*:\s*(\S.*)$", Path("/proc/cpuinfo").read_text())
        cpu = models[0] if models else cpu
    system = f"{platform.system()} {platform.machine()}"
    return {"system": system, "cpus": os.cpu_count() or 1, "cpu": cpu, "kernel": platform.release()}


def render_machine(machine: Machine) -> str:
    """Older documents have neither the CPU's model nor the kernel."""
    more = ", ".join(filter(None, (machine.get("cpu"), machine.get("kernel"))))
    return f"{machine['system']}, {plural(machine['cpus'], 'CPU')}{f' ({more})' if more else ''}"


def new_document(command: Sequence[str], versions: dict[str, str] | None = None) -> Document:
    versions = {"Python": platform.python_version()} | (versions or {})
    return {"when": datetime.now().isoformat(" ", "seconds"), "command": shlex.join(command),
            "machine": about_machine(), "versions": versions, "complete": False, "runs": []}  # fmt: skip


def json_pieces(value: object) -> Iterator[str]:
    """A document's JSON, a piece at a time: a million requests are never one text, nor one list of objects."""
    if isinstance(value, dict):
        yield "{"
        for i, (key, inner) in enumerate(value.items()):
            yield f"{', ' if i else ''}{json.dumps(key)}: "
            yield from json_pieces(inner)
        yield "}"
    elif isinstance(value, (Since, array)) or (isinstance(value, list) and len(value) > 1000):
        for i in range(0, len(value), 1000):
            yield (", " if i else "[") + json.dumps(list(value[i : i + 1000]))[1:-1]
        yield "]" if len(value) else "[]"
    elif isinstance(value, list) and value and isinstance(value[0], dict):  # runs
        for i, inner in enumerate(value):
            yield ", " if i else "["
            yield from json_pieces(inner)
        yield "]"
    else:
        yield json.dumps(value)


STDOUT = ("-", "/dev/stdout")


class JsonFile:
    """Where --json goes. A file is replaced as a whole after each run, so that no end of the program loses one; a
    pipe, and standard output (-), are opened once and get the document when all has ended."""

    def __init__(self, path: str | None) -> None:
        """Raises Problem if it cannot be written, before anything is run."""
        self.path, self.stream = path, sys.stdout if path in STDOUT else None
        is_special = path and (path.startswith("/dev/") or (Path(path).exists() and not Path(path).is_file()))
        if path and is_special and not self.stream:
            with writing(path):
                self.stream = os.fdopen(os.open(path, os.O_WRONLY | os.O_NONBLOCK), "w")
                os.set_blocking(self.stream.fileno(), True)

    def write(self, document: Document, is_last: bool = False) -> None:
        """Raises Problem; what was there before is then still there."""
        if not self.path or (self.stream and not is_last):
            return
        part = Path(f"{self.path}.part")
        with writing(self.path, self.stream), contextlib.ExitStack() as clean_up:
            if not self.stream:
                clean_up.callback(part.unlink, missing_ok=True)
            with contextlib.nullcontext(self.stream) if self.stream else part.open("w") as out:
                out.writelines(itertools.chain(json_pieces(document), "\n"))
                out.flush()
            if not self.stream:
                os.replace(part, self.path)


@contextlib.contextmanager
def writing(what: str, stream: TextIO | None = None) -> Iterator[None]:
    """A Problem where it fails, but for a pipe whose reader has seen enough."""
    try:
        yield
    except OSError as error:
        with contextlib.suppress(
            AttributeError, OSError, ValueError
        ):  # the interpreter's last flush must not fail, too
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # type: ignore[union-attr]
        if not isinstance(error, BrokenPipeError):
            raise Problem(f"cannot write {what}: {error.strerror}") from None


class Printer:
    """Prints a report: in colour on a terminal, to stderr where stdout takes JSON, to nowhere once nobody reads it."""

    def __init__(self, json_path: str | None) -> None:
        self.out = sys.stderr if json_path in STDOUT else sys.stdout
        if self.out and hasattr(self.out, "reconfigure"):
            self.out.reconfigure(errors="backslashreplace")
        self.in_colour = bool(self.out and self.out.isatty() and "NO_COLOR" not in os.environ)

    def show(self, text: str = "") -> None:
        """Raises Problem if the output is full, or closed before the first line."""
        with writing("the report", self.out):
            if self.out:  # pythonw, or python >&-, has none
                print(in_colour(text) if self.in_colour else text, file=self.out, flush=True)


def tell(text: str) -> None:
    """On stdout, whoever reads it."""
    Printer(None).show(text)


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


def write_ab_files(percentiles: str | None, rows: str | None, measured: Measured) -> None:
    """What ab writes with -e (percentiles) and -g (every answer, the quickest first); milliseconds. Raises Problem."""
    of, epoch_s, cells = measured.exchanges, time.time() - perf_counter(), "{:.3f}\t{:.3f}\t{:.3f}\t{:.3f}\n".format
    good = [i for i, status in enumerate(of.status) if is_success(status, of.error[i])]
    found = [(of.answered_s[i], of.started_s[i], of.sent_s[i], of.first_byte_s[i]) for i in good]
    found.sort(key=lambda row: row[0] - row[1])
    if percentiles:
        lines = ["Percentage served,Time in ms\n"]
        for p in range(100) if found else ():
            end, start, _, _ = found[max(0, math.ceil(p * len(found) / 100) - 1)]
            lines.append(f"{p},{(end - start) * 1000:.3f}\n")
        with writing(percentiles):
            Path(percentiles).write_text("".join(lines))
    if rows:
        with writing(rows), open(rows, "w") as out:
            out.write("starttime\tseconds\tctime\tdtime\tttime\twait\n")
            for end, start, sent, first in found:
                times = ((sent - start) * 1000, (end - sent) * 1000, (end - start) * 1000, (first - sent) * 1000)
                out.write(f"{time.ctime(start + epoch_s)}\t{start + epoch_s:.0f}\t{cells(*times)}")


# ---------------------------------------------------------------- options


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Problem(message)

    def _print_message(self, message: str, file: Any = None) -> None:  # argparse's own hook, for --help
        tell(message.rstrip("\n"))


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


class NotHere(argparse.Action):
    """A letter of ab's that this client does not take."""

    def __call__(self, *_: Any) -> NoReturn:
        raise argparse.ArgumentError(self, f"ab's, not here: {NOT_HERE[self.option_strings[0]]}")


TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
PATH = r"/[!-~]*"
STAGE = r"\d+(\.\d+)?s:\d{1,9}"
TEXT = r"[\t\x20-\x7e\xa0-\xff]*"
CPUS = pattern(r"\d{1,5}(,\d{1,5})*", "CPU numbers, as in 0,1", lambda text: {int(cpu) for cpu in text.split(",")})
HTTPS = "measure the http port behind the TLS, or TLS is what you measure"
NOT_HERE = {  # ab's other letters
    "-u": "-m PUT -p FILE", "-b": "the kernel sizes its buffers", "-B": "the route decides the address",
    "-d": "percentiles are always shown", "-S": "percentiles are always shown", "-w": "--json FILE",
    "-x": "--json FILE", "-y": "--json FILE", "-z": "--json FILE", "-V": "see the output of --json for versions",
    "-X": "give the proxy's own URL", "-P": "-H 'Proxy-Authorization: Basic ...'",
    "-f": HTTPS, "-Z": HTTPS, "-E": HTTPS, "-I": HTTPS,
}  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """How to send, and what to do with the result: the same options for load.py and for bench.py."""
    value = pattern(TEXT, "one line of text")
    add = parser.add_argument_group("how to send").add_argument
    add("-n", "--requests", type=number(int, 1, 100_000_000), metavar="N", help="requests in all (burst: 16)")
    add("-c", "--concurrency", type=number(int, 1, 100_000), metavar="N", help="closed loop: this many under way")
    add("--rate", type=number(float, 0.001, 1e6), metavar="R", help="open loop: requests a second")
    add("--arrivals", choices=("constant", "poisson"), help="of --rate: evenly spaced (default), or at random")
    add("--seed", type=number(int, 0, 2**31), metavar="N", help="of --arrivals poisson (default: drawn, and printed)")
    add("--ramp", type=pattern(f"{STAGE}(,{STAGE})*", "stages like 15s:50,20s:200", stages), default=(),
        help="stages of users, as 15s:50,20s:200")  # fmt: skip
    add("--think", type=number(float, 0, 3600), default=0.0, metavar="S", help="pause of a user between two requests")
    add("-t", "--time-limit", type=number(float, 0.01, 86400), metavar="S", help="stop sending then (10, without -n)")
    add("--warmup", type=number(int, 0, 1_000_000), metavar="N", help="requests to send before, uncounted")
    add("-k", "--keep-alive", action="store_true", help="keep connections for the next request")
    add("-m", "--method", type=pattern(TOKEN, "an HTTP method"), help="GET, or POST if there is a body")
    add("-i", "--head", action="store_true", help="-m HEAD")
    add("-H", "--header", action="append", default=[], metavar="'NAME: VALUE'", help="several times",
        type=pattern(f"{TOKEN}:{TEXT}", "one header line, 'Name: value'"))  # fmt: skip
    add("-T", "--content-type", type=value, metavar="TYPE", help="-H 'Content-Type: TYPE'")
    add("-A", "--auth", type=value, metavar="USER:PASSWORD", help="basic authentication")
    add("-C", "--cookie", type=value, action="append", default=[], metavar="NAME=VALUE", help="several times")
    add("-p", "--body-file", type=Path, metavar="FILE", help="the body to send")
    add("--data", help="the body to send, as text")
    add("-s", "--timeout", type=number(float, 0.001, 86400), metavar="S", help="for each request (from the prediction,"
        f" or {TIMEOUT_S:g})")  # fmt: skip
    add("--processes", type=number(int, 1, 256), default=1, metavar="N", help="deal the load to N client processes")
    add("--client-cpus", type=CPUS, default=set(), metavar="0,1", help="pin the client (Linux)")
    add("-l", "-r", dest="as_ab", action="store_true", help="as ab, but always so: lengths may vary, errors do not end")
    for letter in NOT_HERE:
        add(letter, action=NotHere, nargs="?", help=argparse.SUPPRESS)
    add = parser.add_argument_group("what to show and to keep").add_argument
    add("-v", "--verbose", action="store_true", help="show each of several runs in full")
    add("-q", "--quiet", action="store_true", help="show verdicts only")
    add("--json", metavar="FILE", help="write everything, raw times included; - for standard output")


def check_options(options: argparse.Namespace) -> None:
    """What argparse cannot say: which options go together. Fills in the defaults that depend on others."""
    own_headers = ("content-length", "transfer-encoding", "connection")
    wrong = {  # where true
        "-c, --rate and --ramp exclude each other":
            bool(options.concurrency) + bool(options.rate) + bool(options.ramp) > 1,
        "--arrivals and --seed go with --rate": (options.arrivals or options.seed is not None) and not options.rate,
        "--think goes with -c or --ramp: its users think": options.think and not (options.concurrency or options.ramp),
        "-p and --data exclude each other": options.body_file and options.data is not None,
        "-i is -m HEAD: without another method": options.head and options.method,
        "-t needs -n, -c, --rate or --ramp: a burst without a number never ends": options.time_limit
            and not (options.requests or options.concurrency or options.rate or options.ramp),
    } | {
        f"-H {header!r}: set by this client itself (-k keeps connections)": header.split(":")[0].lower() in own_headers
        for header in options.header
    }  # fmt: skip
    for message, is_wrong in wrong.items():
        if is_wrong:
            raise Problem(message)
    options.header += [f"Content-Type: {options.content_type}"] if options.content_type else []
    options.header += [f"Cookie: {'; '.join(options.cookie)}"] if options.cookie else []
    if options.auth:
        options.header.append(f"Authorization: Basic {base64.b64encode(os.fsencode(options.auth)).decode()}")
    try:
        options.body = options.body_file.read_bytes() if options.body_file else os.fsencode(options.data or "")
    except OSError as error:
        raise Problem(f"cannot read {options.body_file}: {error.strerror}") from None
    options.method = "HEAD" if options.head else options.method or ("POST" if options.body else "GET")
    if options.ramp:
        options.time_limit = min(sum(stage_s for stage_s, _ in options.ramp), options.time_limit or math.inf)
    elif not options.requests and (options.concurrency or options.rate):
        options.time_limit = options.time_limit or 10.0
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
    pace = Pace(requests, options.concurrency or math.inf, options.rate, options.ramp, limit_s, options.think, schedule,
                options.seed if schedule else None)  # fmt: skip
    return Traffic(
        host=host, port=port, path=path, method=options.method, headers=tuple(options.header), body=options.body,
        keep_alive=options.keep_alive, timeout_s=options.timeout or TIMEOUT_S, warm_up=options.warmup or 0, pace=pace,
        processes=int(min(options.processes, pace.most_under_way)),
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
        raise Problem(f"https:// is not supported: {HTTPS}")
    if parts.scheme != "http" or not parts.hostname or parts.username is not None or not port:
        raise Problem(f"{url!r} is not of the form http://host:port/path")
    if not re.fullmatch(PATH, path) or not re.fullmatch(r"[0-9A-Za-z.:_-]+", parts.hostname):
        raise Problem(f"{url!r}: only printable ASCII, other characters percent-encoded")
    return parts.hostname, port, path


def resolve(host: str, port: int) -> tuple[Any, ...]:
    """The address to ask: of several (localhost is 127.0.0.1 and ::1) the first that somebody listens on. Raises
    Problem for an unknown name, and where every address refuses."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Problem(f"cannot resolve {host!r}: {getattr(error, 'strerror', error)}") from None
    found.sort(key=lambda info: info[0] != socket.AF_INET)  # that is where servers on `localhost` listen
    codes = []
    for family, kind, _, _, address in found:
        with socket.socket(family, kind) as sock:
            sock.settimeout(2)
            codes.append(sock.connect_ex(address))
        if not codes[-1]:
            return address
    if set(codes) == {errno.ECONNREFUSED}:
        raise Problem(f"nothing listens on {host}:{port}")
    return found[0][4]


def check_file_limit(pace: Pace) -> None:
    """Raise the soft limit of open files as far as a load needs it (an open loop: as far as is allowed), or Problem."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    sockets, is_bounded = pace.most_under_way, hard != resource.RLIM_INFINITY
    needed = sockets + 64
    if pace.rate or sockets == math.inf:
        needed = min(needed, max(soft, min(hard, 1_048_576) if is_bounded else 65_536))
    elif is_bounded and hard < needed:
        raise Problem(f"{sockets} requests at once need {needed} open files; the limit is {hard} (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(needed), hard))


def pin_client(cpus: set[int]) -> None:
    """Keep this process on some CPUs. Linux only: elsewhere the user is told."""
    try:
        os.sched_setaffinity(0, cpus)
    except (AttributeError, OSError) as error:
        raise Problem(f"cannot pin to CPUs {sorted(cpus)} on this system: {error}") from None


def prepare(options: argparse.Namespace, paces: Sequence[Pace]) -> None:
    """Raises Problem if this machine cannot send such loads."""
    for pace in paces:
        check_file_limit(pace)
    if options.client_cpus:
        pin_client(options.client_cpus)
    if options.processes > 1:
        process_client()


# ---------------------------------------------------------------- main


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = Parser("load.py", None, __doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("url", type=pattern(r"\S+", "a URL without white space"), help="http only")
    add_options(parser)
    parser.add_argument("-e", metavar="FILE", help="percentiles as CSV, as ab writes them")
    parser.add_argument("-g", metavar="FILE", help="every answer as tab-separated values, as ab writes them")
    with signals.handled():
        try:
            if not argv:
                tell(__doc__)
                return 0
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
    document, output, printer = new_document(command), JsonFile(options.json), Printer(options.json)
    output.write(document)
    address = resolve(host, port)
    prepare(options, [traffic.pace])
    if not options.quiet:
        printer.show(f"{options.url}\n\n{section('load', render_load(describe(traffic)))}\n")
    signals.is_held = True  # from here on a signal ends the load, not the report
    when, measured = datetime.now().isoformat(" ", "seconds"), measure(traffic, address)
    summary = summarise(traffic, measured)
    run: LoadRun = {**summary, "when": when, "target": options.url, "warnings": audit(summary),
                    "exchanges": columns_of(measured)}  # fmt: skip
    document["runs"].append(run)
    document["complete"] = not signals.received
    output.write(document, is_last=True)
    write_ab_files(options.e, options.g, measured)
    printer.show(section("verdict", render_verdict(run)) if options.quiet else render_result(run))
    return signals.exit_code or (1 if run["failed"] else 0)


if __name__ == "__main__":
    sys.modules["load"] = sys.modules["__main__"]  # load_processes.py imports load: this one, not a second
    sys.exit(main())
