#!/usr/bin/env python3
"""bench.py - why a Flask or FastAPI service gets slow under concurrent I/O.

A server has S slots: requests it works on at the same moment. A burst of n
requests that each wait t takes ceil(n / S) x t, and throughput is at most S / t.
bench.py starts a real server, prints that prediction, sends the requests, shows
the access log in batches, and says why measured and predicted differ.

    python bench.py --target flask-gunicorn          16 requests to each path
    python bench.py --target all                     every server, one table
    python bench.py --target fastapi-uvicorn --path /io -n 100
    python bench.py --target flask-gunicorn --workers 8 --task-time 0.2
    python bench.py --list                           the targets
    python bench.py --target flask-gunicorn --json out.json

How it works: the server runs on a free port of 127.0.0.1, in a process group
of its own that dies with bench.py, its app wrapped by apps/access_log.py, which
stamps the *start* of each handler. Each request goes out on its own raw socket,
in order, as soon as that is connected. Everything a run leaves is in logs/.
Exit code: 0 all answered, 1 some requests failed, 2 wrong usage or a missing
package, 3 the server did not start. Python 3.10 or newer, nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import errno
import functools
import gc
import importlib.metadata
import importlib.util
import itertools
import json
import math
import os
import platform
import re
import resource
import select
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

HERE = Path(__file__).resolve().parent
APPS = HERE / "apps"

# ---------------------------------------------------------------- servers and targets

NO_LIMIT = math.inf
ANYIO_THREADS = 40  # anyio: to_thread.current_default_thread_limiter() is CapacityLimiter(40) in each process
GEVENT_CONNECTIONS = 1000  # gunicorn: worker_connections
THREADS = -1  # as many slots as --threads
BY_HANDLER = -2  # ASGI: the kind of handler decides


class Server(NamedTuple):
    """A kind of server: how to start it, and how many requests one process of it works on at a time."""

    command: str  # run as `python -m ...`, with {port} {workers} {threads} {app} filled in
    wrapper: str  # the name in access_log.py that this server takes
    packages: str  # distributions, as pip names them
    slots: float
    why: str  # why it has that many slots, for the reader of the report
    threads: int = 1  # the default of --threads


GUNICORN = "gunicorn --bind 127.0.0.1:{port} --workers {workers}"
SERVERS = {
    "flask-dev": Server(
        "flask --app {app} run --host 127.0.0.1 --port {port}",
        "flask_app", "flask", NO_LIMIT, "the development server starts a thread for each request",
    ),
    "waitress": Server(
        "waitress --listen 127.0.0.1:{port} --threads {threads} {app}",
        "wsgi", "waitress", THREADS, "one process with {threads} threads", 4,
    ),
    "gunicorn": Server(
        GUNICORN + " {app}", "wsgi", "gunicorn", 1, "a sync worker holds one request until it is answered"
    ),
    "gunicorn-threads": Server(
        GUNICORN + " --threads {threads} {app}",
        "wsgi", "gunicorn", THREADS, "a worker holds one request in each of its {threads} threads", 4,
    ),
    "gunicorn-gevent": Server(
        GUNICORN + " --worker-class gevent {app}",
        "wsgi", "gunicorn gevent", GEVENT_CONNECTIONS, "a greenlet for each of 1000 worker connections",
    ),
    "gunicorn-uvicorn": Server(
        GUNICORN + " --worker-class uvicorn_worker.UvicornWorker {app}",
        "asgi", "gunicorn uvicorn-worker uvicorn", BY_HANDLER, "",
    ),
    "gunicorn-asgi": Server(GUNICORN + " --worker-class asgi {app}", "asgi", "gunicorn", BY_HANDLER, ""),
    "uvicorn": Server(
        "uvicorn --host 127.0.0.1 --port {port} --workers {workers} {app}", "asgi", "uvicorn", BY_HANDLER, ""
    ),
}  # fmt: skip

HANDLERS = {  # slots of one ASGI process, by what the handler does, and why
    "def": (ANYIO_THREADS, "AnyIO runs `def` handlers in at most 40 threads"),
    "async": (NO_LIMIT, "an `async def` that awaits holds nothing while it waits"),
    "blocking": (1, "a blocking call in `async def` stops the event loop"),
}


class Route(NamedTuple):
    path: str
    app: str  # module:attribute in apps/
    handler: str  # a key of HANDLERS
    waits: str = "task"  # how long one request waits: the task time, or a subtask's share of it


class Target(NamedTuple):
    server: str
    routes: tuple[Route, ...]
    workers: int


FLASK_SYNC = Route("/io", "flask_sync:app", "def")
FLASK = (
    FLASK_SYNC,
    Route("/async-io", "flask_async:app", "async"),
    Route("/async-io-multi", "flask_async:app", "async", "subtask"),
)
FASTAPI = (
    Route("/io", "fastapi_sync:app", "def"),
    Route("/async-io", "fastapi_async:app", "async"),
    Route("/async-io-multi", "fastapi_async:app", "async", "subtask"),
)
TARGETS = {
    "flask-dev": Target("flask-dev", FLASK, 1),
    "flask-waitress": Target("waitress", FLASK, 1),
    "flask-gunicorn": Target("gunicorn", FLASK, 4),
    "flask-gunicorn-threads": Target("gunicorn-threads", FLASK, 4),
    "flask-gunicorn-gevent": Target("gunicorn-gevent", (FLASK_SYNC,), 1),
    "fastapi-uvicorn": Target("uvicorn", FASTAPI, 1),
    "fastapi-uvicorn-workers": Target("uvicorn", FASTAPI, 4),
    "fastapi-gunicorn": Target("gunicorn-uvicorn", FASTAPI, 4),
    "fastapi-gunicorn-asgi": Target("gunicorn-asgi", FASTAPI, 4),
    "fastapi-blocking": Target("uvicorn", (Route("/sleep", "fastapi_blocking:app", "blocking"),), 1),
    "fastapi-fixed": Target("uvicorn", (Route("/sleep", "fastapi_fixed:app", "async"),), 1),
}

MAX_HEAD_BYTES = 64 * 1024  # head of a response, its chunk lines, its trailers: more is an attack or a mistake
MAX_BODY_BYTES = 64 * 1024 * 1024  # bodies are counted, not kept; an endless one must end
READ_BYTES = 64 * 1024
START_TIMEOUT_S = 30.0
STOP_GRACE_S = 2.0  # what a server gets between SIGTERM and SIGKILL
TOLERANCE, TOLERANCE_S = 0.05, 0.1  # a prediction fits within 5 % + 100 ms


# ---------------------------------------------------------------- records


@dataclass(frozen=True)
class Plan:
    """One run, before it: what to start, what to send, and how long a request waits."""

    target: str
    server: str
    app: str  # module:attribute
    path: str
    handler: str
    workers: int
    threads: int
    task_time_s: float
    subtasks: int
    wait_s: float  # what one request waits: the task time, or a subtask's share of it
    requests: int
    timeout_s: float

    @property
    def slots_per_worker(self) -> float:
        slots = SERVERS[self.server].slots
        if slots == BY_HANDLER:
            return HANDLERS[self.handler][0]
        return self.threads if slots == THREADS else slots

    @property
    def why_slots(self) -> str:
        server = SERVERS[self.server]
        return HANDLERS[self.handler][1] if server.slots == BY_HANDLER else server.why.format(threads=self.threads)

    def command(self, port: int | str, app: str) -> list[str]:
        command = SERVERS[self.server].command
        return shlex.split(command.format(port=port, workers=self.workers, threads=self.threads, app=app))


ERRORS = (
    "", "refused", "reset", "closed", "timed out", "malformed", "truncated", "too large",
    "no local port", "too many open files", "connect failed", "interrupted",
)  # fmt: skip
ERROR_CODES = {name: code for code, name in enumerate(ERRORS)}
ERRNO_NAMES = {
    errno.ECONNREFUSED: "refused", errno.ECONNRESET: "reset", errno.EPIPE: "reset", errno.ETIMEDOUT: "timed out",
    errno.EADDRNOTAVAIL: "no local port", errno.EMFILE: "too many open files", errno.ENFILE: "too many open files",
}  # fmt: skip


class Exchanges:
    """Every request's raw times in columns, request i at index i; perf_counter seconds, 0.0 for "never".

    started_s: its connect began (or, on a kept connection, it was sent); sent_s: connected and handed to the kernel;
    first_byte_s and answered_s: of the answer; a failed request's answered_s is when it failed.
    """

    TIMES = ("started_s", "sent_s", "first_byte_s", "answered_s")

    def __init__(self) -> None:
        self.started_s, self.sent_s, self.first_byte_s, self.answered_s = (array("d") for _ in self.TIMES)
        self.body_bytes = array("Q")
        self.status = array("H")
        self.error = array("B")

    def grow(self, rows: int = 4096) -> None:
        for column in vars(self).values():
            column.frombytes(bytes(column.itemsize * rows))

    def truncate(self, rows: int) -> None:
        for column in vars(self).values():
            del column[rows:]


class LogLine(NamedTuple):
    """One line of apps/access_log.py."""

    stamp: str
    pid: int
    method: str
    path: str
    status: str
    duration_s: float
    request: str  # the X-Request-Id that came with it
    started_s: float  # perf_counter of the system, comparable between processes


class Problem(Exception):
    """Something the user can mend: printed as one line. exit_code as in the manual above."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


# ---------------------------------------------------------------- start and stop the server


def guard(command: list[str]) -> int:
    """Run a server until stdin closes, then end its whole process group: SIGTERM, and after a grace SIGKILL.

    bench.py runs itself as this guard, in a group of its own together with the server. However bench.py ends, also by
    kill -9, the kernel closes the pipe that is the guard's stdin. Never returns: the last kill ends the guard too.
    """
    signal.signal(signal.SIGTERM, lambda *_: None)  # its own SIGTERM must not end the guard; the server's is default

    def stop_when_bench_is_gone() -> None:
        os.read(0, 1)
        os.killpg(0, signal.SIGTERM)
        time.sleep(STOP_GRACE_S)
        os.killpg(0, signal.SIGKILL)

    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=stop_when_bench_is_gone, daemon=True).start()
    print(f"the server ended with exit code {server.wait()}", flush=True)
    os.killpg(0, signal.SIGKILL)  # workers that outlived their master
    return 0


@dataclass
class RunningServer:
    guard: subprocess.Popen[bytes]
    port: int
    output: Path
    access_log: Path


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def new_log_files(logs: Path, name: str, when: datetime) -> tuple[Path, Path]:
    """Create logs/<time>-<name>.access.log and .server.log; never an existing file."""
    logs.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")
    for suffix in itertools.chain([""], (f"-{i}" for i in itertools.count(2))):
        access_log = logs / f"{when:%Y%m%d-%H%M%S}-{name}{suffix}.access.log"
        try:
            access_log.touch(exist_ok=False)
        except FileExistsError:
            continue
        return access_log, access_log.with_name(access_log.name.replace(".access.log", ".server.log"))
    raise AssertionError("unreachable")


def start_server(plan: Plan, access_log: Path, output: Path) -> RunningServer:
    """Start the plan's server on a free port and return when every worker is ready; Problem (3) if it does not."""
    port = free_port()
    env = os.environ | {
        "APP": plan.app,
        "ACCESS_LOG": str(access_log),
        "TASK_TIME": str(plan.task_time_s),
        "SUBTASKS": str(plan.subtasks),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(APPS), os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-m", *plan.command(port, f"access_log:{SERVERS[plan.server].wrapper}")]
    with output.open("wb") as sink:  # a file, not a pipe: a server whose output nobody reads stalls
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--guard", *command],
            stdin=subprocess.PIPE, stdout=sink, stderr=sink, env=env, start_new_session=True,
        )  # fmt: skip
    server = RunningServer(process, port, output, access_log)
    try:
        wait_until_ready(server, plan.workers)
    except BaseException:
        stop_server(server)
        raise
    return server


def wait_until_ready(server: RunningServer, workers: int) -> None:
    """A port that accepts is no sign that every worker has imported its app: each writes `ready` when it has."""
    deadline = time.perf_counter() + START_TIMEOUT_S
    while time.perf_counter() < deadline:
        if server.guard.poll() is not None:
            output = server.output.read_text(errors="replace").splitlines()
            causes = dict.fromkeys(line for line in output if re.match(r"[\w.]+(Error|Exception): ", line))
            tail = "\n  ".join([*causes, *output[-8:]])
            raise Problem(f"the server did not start; the end of {shown(server.output)}:\n  {tail}", 3)
        ready = ready_workers(server.access_log.read_text(errors="replace"))
        if len(ready) >= workers and accepts(server.port):
            return
        time.sleep(0.02)
    raise Problem(
        f"the server was not ready after {START_TIMEOUT_S:.0f} s (workers ready: {len(ready)} of {workers});"
        f" see {shown(server.output)}", 3
    )  # fmt: skip


def accepts(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def stop_server(server: RunningServer) -> None:
    """Close the guard's stdin, which makes it end the server's process group, and wait until that is done."""
    assert server.guard.stdin
    server.guard.stdin.close()
    try:
        server.guard.wait(STOP_GRACE_S + 3)
    except subprocess.TimeoutExpired:
        os.killpg(server.guard.pid, signal.SIGKILL)
        server.guard.wait()


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


# RFC 9112: a status line, then `name: value` lines. As section 2.2 allows, a bare LF ends a line too.
HEAD_END = re.compile(rb"\n\r?\n")
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [\t \x21-\x7e\x80-\xff]*)?")
HEADER_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00\r\n]*?)[ \t]*")
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")


@functools.lru_cache(256)  # a server sends the same head many times within a second
def parse_head(data: bytes) -> Head:
    """Parse bytes that begin with a response head and hold its blank line. Raises HTTPError("malformed").

    >>> parse_head(b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\n")
    Head(size=38, status=200, length=5, chunked=False, keep_alive=True)
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
    return Head(end.end(), status, length, bool(codings), keep_alive)


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

    __slots__ = ("body_bytes", "head", "is_head_request", "keep_alive", "left", "pending", "state", "status")

    def __init__(self, is_head_request: bool = False) -> None:
        self.reset(is_head_request)

    def reset(self, is_head_request: bool) -> None:
        self.is_head_request = is_head_request
        self.state = "head"  # head, body, close, chunk line, chunk, chunk end, trailers, done
        self.pending = b""  # bytes of an unfinished line or head
        self.status = self.body_bytes = self.left = 0
        self.keep_alive = False

    def feed(self, data: bytes) -> bool:
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
        size, self.status, length, chunked, self.keep_alive = parse_head(data[:end])
        if 100 <= self.status < 200:  # the real head is still to come
            if self.status == 101:
                raise HTTPError("malformed", "101 Switching Protocols, which was not asked for")
        elif self.is_head_request or self.status in (204, 304):
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


class Pace(NamedTuple):
    """When requests may be sent. Reads no clock and sees no socket: a table of cases tests it."""

    requests: float  # in all

    def limits(self, elapsed_s: float) -> tuple[float, float]:
        """How many requests may have been sent in all by now, and how many may be under way at once."""
        return self.requests, self.requests


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
    __slots__ = ("index", "is_new", "parser", "recv", "sock", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.recv = sock.recv
        self.parser = ResponseParser()
        self.index = -1  # of the request it works on; -1: none
        self.unsent = b""  # what the kernel has not taken yet


class Load:
    """Sends requests on raw sockets as a pace allows, and records every exchange.

    All sockets sit in one private poller whose own descriptor is the only thing asyncio watches; one callback drains
    all that is ready. That costs a third of what asyncio's streams or protocols do per request.
    """

    def __init__(self, address: tuple[str, int], messages: Iterator[bytes], pace: Pace, timeout_s: float) -> None:
        self.address, self.messages, self.pace, self.timeout_s = address, messages, pace, timeout_s
        self.exchanges = Exchanges()
        self.capacity = self.sent = self.in_flight = 0
        self.released, self.users = pace.limits(0.0)
        self.connections: dict[int, Connection] = {}
        self.poller = EpollPoller() if hasattr(select, "epoll") else SelectorPoller()
        self.finished: asyncio.Future[None]

    async def run(self) -> Exchanges:
        """Send everything, wait for every answer or its time-out, and return what happened."""
        self.loop = asyncio.get_running_loop()
        self.finished = self.loop.create_future()
        self.loop.add_reader(self.poller.fileno(), self._drain)
        gc.disable()  # nothing here makes cycles, and a collection in the middle of a run shows as latency
        self.begun_s = self.ended_s = time.perf_counter()
        try:
            self._fill()
            self._watch_deadlines()
            await self.finished
        finally:
            gc.enable()
            self.loop.remove_reader(self.poller.fileno())
            for fd in list(self.connections):
                self._fail(self.connections[fd], "interrupted")
            self.poller.close()
            self.exchanges.truncate(self.sent)
        return self.exchanges

    def _fill(self) -> None:
        """Start what the pace allows, a hundred at most, so that answers are read in between."""
        for _ in range(100):
            if self.sent >= self.released or self.in_flight >= self.users:
                break
            self._start()
        else:
            self.loop.call_soon(self._fill)
        if self.sent >= self.released and not self.in_flight and not self.finished.done():
            self.finished.set_result(None)

    def _start(self) -> None:
        index, exchanges = self.sent, self.exchanges
        if index == self.capacity:
            exchanges.grow()
            self.capacity = len(exchanges.started_s)
        self.sent += 1
        self.in_flight += 1
        message = next(self.messages)
        exchanges.started_s[index] = time.perf_counter()
        try:
            sock = socket.socket()
        except OSError as error:
            self._record_failure(index, ERRNO_NAMES.get(error.errno or 0, "connect failed"))
            return
        sock.setblocking(False)
        conn = self.connections[sock.fileno()] = Connection(sock)
        conn.index, conn.unsent = index, message
        conn.parser.reset(message.startswith(b"HEAD "))
        code = sock.connect_ex(self.address)
        if code not in (0, errno.EINPROGRESS):
            self._fail(conn, ERRNO_NAMES.get(code, "connect failed"))
            return
        # On loopback the handshake is over by now, so that the request usually leaves with no wait for an event.
        self._send(conn, self.poller.register)

    def _send(self, conn: Connection, watch: Callable[[int, int], Any]) -> None:
        """Hand the kernel what it takes; watch (register or modify) the socket for what comes next."""
        try:
            taken = conn.sock.send(conn.unsent)
        except (BlockingIOError, InterruptedError):
            taken = 0
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # macOS: still connecting
                self._fail(conn, ERRNO_NAMES.get(error.errno or 0, "connect failed"))
                return
            taken = 0
        if taken and not self.exchanges.sent_s[conn.index]:
            self.exchanges.sent_s[conn.index] = time.perf_counter()
        conn.unsent = conn.unsent[taken:]
        watch(conn.sock.fileno(), self.poller.READ | (self.poller.WRITE if conn.unsent else 0))

    def _drain(self) -> None:
        """Handle all that is ready; back to the loop after 20 ms at most, for its timers and for Ctrl-C."""
        until_s = time.perf_counter() + 0.02
        while events := self.poller.poll():
            for fd, _ in events:
                # A descriptor closed earlier in this batch may be in use again: its new socket has nothing to read.
                if conn := self.connections.get(fd):
                    if conn.unsent:
                        self._send(conn, self.poller.modify)
                    if conn.sock.fileno() >= 0:
                        self._read(conn)
            if time.perf_counter() > until_s:
                break

    def _read(self, conn: Connection) -> None:
        try:
            data = conn.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(conn, ERRNO_NAMES.get(error.errno or 0, "reset"))
            return
        now_s = time.perf_counter()
        if conn.index < 0:  # answered already: the server closes, or says more than it was asked
            self._close(conn)
            return
        if not self.exchanges.first_byte_s[conn.index]:
            self.exchanges.first_byte_s[conn.index] = now_s
        try:
            complete = conn.parser.feed(data) if data else conn.parser.eof()
        except HTTPError as error:
            self._fail(conn, error.kind)
            return
        if complete:
            self._complete(conn, now_s)

    def _complete(self, conn: Connection, now_s: float) -> None:
        exchanges, index = self.exchanges, conn.index
        exchanges.answered_s[index] = self.ended_s = now_s
        exchanges.status[index] = conn.parser.status
        exchanges.body_bytes[index] = conn.parser.body_bytes
        conn.index = -1
        self.in_flight -= 1
        # The request said Connection: close. Let the server close first: then the port is free for the next connect.
        self._read(conn)
        self._fill()

    def _fail(self, conn: Connection, kind: str) -> None:
        self._close(conn)
        if conn.index >= 0:
            self._record_failure(conn.index, kind)

    def _record_failure(self, index: int, kind: str) -> None:
        self.exchanges.answered_s[index] = self.ended_s = time.perf_counter()
        self.exchanges.error[index] = ERROR_CODES[kind]
        self.in_flight -= 1
        self.loop.call_soon(self._fill)

    def _close(self, conn: Connection) -> None:
        fd = conn.sock.fileno()
        self.connections.pop(fd, None)
        with contextlib.suppress(KeyError, ValueError):
            self.poller.forget(fd)
        conn.sock.close()

    def _watch_deadlines(self) -> None:
        if self.finished.done():
            return
        oldest_s = time.perf_counter() - self.timeout_s
        for conn in list(self.connections.values()):
            if conn.index >= 0 and self.exchanges.started_s[conn.index] < oldest_s:
                self._fail(conn, "timed out")
        self.loop.call_later(min(0.1, self.timeout_s / 4), self._watch_deadlines)


# ---------------------------------------------------------------- read the log

LOG_LINE = re.compile(
    r"\[(?P<stamp>[^\]]+)\] \[pid-(?P<pid>\d+)\] (?P<method>\S+) (?P<path>\S*) (?P<status>\S+)"
    r" (?P<duration>[\d.]+)s #(?P<request>\S*) @(?P<started>[\d.]+)"
)


def parse_access_log(text: str) -> list[LogLine]:
    """The request lines of an access log, in the order in which their handlers started.

    >>> parse_access_log("[2026-11-20 17:04:15.123] [pid-7] GET /io 200 1.0012s #3 @5.5")[0].duration_s
    1.0012
    """
    lines = (
        LogLine(m["stamp"], int(m["pid"]), m["method"], m["path"], m["status"], float(m["duration"]), m["request"],
                float(m["started"]))
        for m in map(LOG_LINE.fullmatch, text.splitlines())
        if m
    )  # fmt: skip
    return sorted(lines, key=lambda line: line.started_s)


def ready_workers(text: str) -> list[int]:
    """The pids of the workers that said they were ready."""
    return [int(pid) for pid in re.findall(r"\[pid-(\d+)\] ready$", text, re.MULTILINE)]


def name_workers(lines: Sequence[LogLine], ready: Sequence[int] = ()) -> dict[int, str]:
    """worker0, worker1, ... in the order in which a reader of the log meets them; last those that took nothing."""
    pids = dict.fromkeys([*(line.pid for line in lines), *ready])
    return {pid: f"worker{number}" for number, pid in enumerate(pids)}


# ---------------------------------------------------------------- predict


class Prediction(NamedTuple):
    """What a burst should take, in seconds after it is sent; slots may be NO_LIMIT."""

    slots: float
    started_s: list[float]
    answered_s: list[float]
    makespan_s: float


def rounds(requests: int, slots: float) -> int:
    """ceil(n / S): how many times the slots are filled; one round if there is no limit."""
    return max(1, math.ceil(requests / slots)) if requests else 0


def predict(requests: int, workers: int, slots_per_worker: float, wait_s: float) -> Prediction:
    """A burst of n requests on S = workers x slots: request n (from 0) starts at floor(n / S) x t, t later its answer.

    >>> predict(16, 4, 1, 1.0).makespan_s
    4.0
    """
    slots = workers * slots_per_worker
    started_s = [i // slots * wait_s for i in range(requests)]
    return Prediction(slots, started_s, [start + wait_s for start in started_s], rounds(requests, slots) * wait_s)


def predict_split(requests_of_workers: Sequence[int], slots_per_worker: float, wait_s: float) -> float:
    """The same burst, given how many requests each worker took: ceil(n_p / S_p) x t, and the slowest decides.

    >>> predict_split([41, 44, 11, 4], 40, 1.0)
    2.0
    """
    return max((rounds(n, slots_per_worker) for n in requests_of_workers), default=0) * wait_s


def fits(measured_s: float, predicted_s: float) -> bool:
    return abs(measured_s - predicted_s) <= predicted_s * TOLERANCE + TOLERANCE_S


# ---------------------------------------------------------------- summarise and audit


def describe(plan: Plan) -> dict[str, Any]:
    """What is known before the first request is sent: the plan and the prediction, ready for JSON."""
    prediction = predict(plan.requests, plan.workers, plan.slots_per_worker, plan.wait_s)
    return {
        "target": plan.target,
        "server": plan.server,
        "server_command": shlex.join(plan.command("PORT", plan.app)),
        "path": plan.path,
        "handler": plan.handler,
        "workers": plan.workers,
        "threads": plan.threads,
        "slots_per_worker": finite(plan.slots_per_worker),
        "slots": finite(prediction.slots),
        "why_slots": plan.why_slots,
        "task_time_s": plan.task_time_s,
        "subtasks": plan.subtasks,
        "wait_s": plan.wait_s,
        "requests": plan.requests,
        "timeout_s": plan.timeout_s,
        "predicted_s": prediction.makespan_s,
    }


def finite(slots: float) -> int | None:
    return None if slots == NO_LIMIT else int(slots)


def unlimited(slots: int | None) -> float:
    return NO_LIMIT if slots is None else slots


def summarise(
    run: dict[str, Any], exchanges: Exchanges, begun_s: float, lines: Sequence[LogLine], ready: Sequence[int]
) -> dict[str, Any]:
    """Add to what describe() knew what was measured; times become seconds since the first request was begun."""
    by_request = {int(line.request): line for line in lines if line.request.isdigit()}
    workers = name_workers(lines, ready)
    logged = [by_request.get(i) for i in range(len(exchanges.status))]

    def since_begun(times_s: array[float]) -> list[float | None]:
        return [round(t - begun_s, 6) if t else None for t in times_s]

    statuses, errors = exchanges.status.tolist(), [ERRORS[code] or None for code in exchanges.error]
    outcomes = Counter(e or f"HTTP {s}" for s, e in zip(statuses, errors, strict=True) if e or not 200 <= s < 300)
    counts = Counter(line.pid for line in lines)
    split = {worker: counts[pid] for pid, worker in workers.items()}
    answered_s = since_begun(exchanges.answered_s)
    measured = {
        "measured_s": max((t for t in answered_s if t is not None), default=0.0),
        "answered": len(statuses) - sum(outcomes.values()),
        "failed": sum(outcomes.values()),
        "errors": dict(outcomes),
        "log_lines": len(lines),
        "requests_of_workers": split,
        "split_predicted_s": predict_split(
            list(split.values()), unlimited(run["slots_per_worker"]), run["wait_s"]
        ) if lines else None,
        "slots_seen": slots_seen(lines),
        "exchanges": {
            "started_s": since_begun(exchanges.started_s),
            "sent_s": since_begun(exchanges.sent_s),
            "first_byte_s": since_begun(exchanges.first_byte_s),
            "answered_s": answered_s,
            "status": [status or None for status in statuses],
            "error": errors,
            "body_bytes": exchanges.body_bytes.tolist(),
            "worker": [line and workers[line.pid] for line in logged],
            "handler_started_s": [line and round(line.started_s - begun_s, 6) for line in logged],
        },
    }  # fmt: skip
    run = run | measured
    return run | {"warnings": audit(run)}


def slots_seen(lines: Sequence[LogLine]) -> int | None:
    """The most requests that one worker had in its handlers at the same moment; None without a log.

    Counted at the middle of each request, where the few milliseconds in which one ends and the next begins do not
    count both.
    """
    most = 0
    by_worker: dict[int, list[LogLine]] = {}
    for line in lines:
        by_worker.setdefault(line.pid, []).append(line)
    for of_worker in by_worker.values():
        events = sorted(
            event
            for line in of_worker
            for event in (
                (line.started_s, 0, 1),
                (line.started_s + line.duration_s / 2, 1, 0),
                (line.started_s + line.duration_s, 2, -1),
            )
        )
        under_way = 0
        for _, kind, change in events:
            under_way += change
            if kind == 1:
                most = max(most, under_way)
    return most or None


def audit(run: dict[str, Any]) -> list[dict[str, str]]:
    """Everything in a run that its reader must know before believing it: symptom, likely cause, next step."""
    warnings = []

    def warn(identifier: str, symptom: str, cause: str, next_step: str) -> None:
        warnings.append({"id": identifier, "symptom": symptom, "cause": cause, "next": next_step})

    requests, log_lines = run["requests"], run["log_lines"]
    if run["failed"]:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(run["errors"].items()))
        warn(
            "failed-requests", f"{run['failed']} of {requests} requests failed: {counts}",
            "the server refused, broke or outwaited them",
            "read the end of the server log",
        )  # fmt: skip
    if log_lines != requests:
        warn(
            "log-lines", f"{log_lines} access-log lines for {requests} requests",
            "a handler that did not end, or a request that reached none, writes no line",
            "look for a killed or restarted worker in the server log",
        )  # fmt: skip
    if not run["failed"] and not fits(run["measured_s"], run["predicted_s"]):
        split = run["split_predicted_s"]
        if split is not None and fits(run["measured_s"], split):
            warn(
                "uneven-split", f"{run['measured_s']:.2f} s instead of {run['predicted_s']:.2f} s",
                f"the workers took uneven shares: {shares(run)}",
                "for gunicorn threads, --worker-connections equal to --threads; else more slots in fewer processes",
            )  # fmt: skip
        else:
            warn(
                "unexplained", f"{run['measured_s']:.2f} s instead of {run['predicted_s']:.2f} s",
                "neither the slots nor the split over the workers explains it: CPU time, or another limit",
                "repeat on an idle machine, with a longer --task-time",
            )  # fmt: skip
    return warnings


def shares(run: dict[str, Any]) -> str:
    return " + ".join(str(count) for count in run["requests_of_workers"].values())


class Batch(NamedTuple):
    """Requests answered together; times in seconds since the burst began."""

    requests: list[int]
    started_s: float
    answered_s: float
    predicted_s: float


def batches(run: dict[str, Any]) -> list[Batch]:
    """Group a burst's answers: a gap of a quarter of the waiting time begins a new batch."""
    columns = run["exchanges"]
    answered = sorted(
        (at, i) for i, (at, error) in enumerate(zip(columns["answered_s"], columns["error"], strict=True)) if not error
    )
    groups: list[list[tuple[float, int]]] = []
    for at, i in answered:
        if not groups or at - groups[-1][-1][0] > run["wait_s"] / 4:
            groups.append([])
        groups[-1].append((at, i))
    predicted = predict(len(answered), 1, unlimited(run["slots"]), run["wait_s"]).answered_s
    found, position = [], 0
    for group in groups:
        position += len(group)
        started = [columns["handler_started_s"][i] for _, i in group]
        found.append(
            Batch(
                sorted(i for _, i in group),
                min((s for s in started if s is not None), default=math.nan),
                group[-1][0],
                predicted[position - 1],
            )
        )
    return found


# ---------------------------------------------------------------- render

LOG_SHOWN = 24  # lines of the access log, and batches, that a report shows at most


def seconds(value: float) -> str:
    """A time given by the user, as short as it is.  1.0 -> "1 s", 0.25 -> "0.25 s" """
    return f"{value:g} s"


def plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def section(name: str, text: str) -> str:
    """A paragraph with its name in the margin, at most 79 columns wide."""
    lines = textwrap.wrap(text, 67, break_long_words=False, break_on_hyphens=False) or [""]
    return "\n".join(f"{name if not i else '':12}{line}" for i, line in enumerate(lines))


def render_header(document: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    machine = document["machine"]
    return section("machine", f"{machine['system']}, {plural(machine['cpus'], 'CPU')}; {versions}")


def render_prediction(run: dict[str, Any]) -> str:
    """What is printed before the first request is sent."""
    n, wait, slots = run["requests"], seconds(run["wait_s"]), run["slots"]
    each = "no limit" if run["slots_per_worker"] is None else str(run["slots_per_worker"])
    total = "no limit" if slots is None else str(slots)
    if slots is None:
        formula = f"all {n} wait side by side: {wait}."
    else:
        formula = (
            f"ceil({n} / {slots}) x {wait} = {seconds(run['predicted_s'])}. Request n, counted from 0,"
            f" starts at floor(n / {slots}) x {wait} and is answered {wait} after that."
        )
    if run["handler"] == "blocking":
        formula += (
            " But an answer leaves only when the event loop is free, so that it may come as late as"
            f" the last, at {seconds(run['predicted_s'])}."
        )
    waits = f"each waits {wait}"
    if run["wait_s"] != run["task_time_s"]:
        waits += f" ({run['subtasks']} subtasks of a {seconds(run['task_time_s'])} task, awaited together)"
    return "\n".join(
        [
            f"{run['target']}  GET {run['path']}",
            "",
            section("load", f"{plural(n, 'request')} at once, {waits}"),
            section("server", run["server_command"]),
            section("slots", f"{plural(run['workers'], 'worker')} x {each} = {total}: {run['why_slots']}"),
            section("prediction", formula),
        ]
    )


def render_log(lines: Sequence[LogLine], wait_s: float) -> str:
    """The access log as a reader wants it: in the order of starting, workers by name, a blank line between batches."""
    workers = name_workers(lines)
    shown_lines, previous_s = [], None
    for line in lines:
        if previous_s is not None and line.started_s - previous_s > wait_s / 4:
            shown_lines.append("")
        previous_s = line.started_s
        shown_lines.append(f"  [{line.stamp}] [pid-{workers[line.pid]}] {line.method} {line.path}")
    if len(shown_lines) > LOG_SHOWN:
        cut = shown_lines[LOG_SHOWN - 6 : -4]
        shown_lines[LOG_SHOWN - 6 : -4] = [f"  ... {plural(sum(map(bool, cut)), 'more line')}"]
    return "\n".join(shown_lines)


def ranges(numbers: Sequence[int], width: int) -> str:
    """[0, 1, 2, 5] -> "0-2,5", cut at width."""
    parts = []
    for _, group in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        members = [number for _, number in group]
        parts.append(str(members[0]) if len(members) == 1 else f"{members[0]}-{members[-1]}")
    text = ",".join(parts)
    return text if len(text) <= width else text[: width - 2] + ".."


def render_batches(run: dict[str, Any]) -> str:
    found = batches(run)
    end_s = max([run["measured_s"], *(batch.predicted_s for batch in found)])
    width = 21

    def column(at_s: float) -> int:
        return round(at_s / end_s * width)

    rows = [
        f"{'batches':12}{'requests':14}{'started':>9}{'answered':>10}{'predicted':>10}  0 s{end_s:>{width - 5}.2f} s"
    ]
    for batch in found:
        start = column(batch.started_s) if batch.started_s == batch.started_s else 0
        bar = ("." * start + "#" * (column(batch.answered_s) - start)).ljust(width)
        rows.append(
            f"{len(batch.requests):10}  {ranges(batch.requests, 13):14}{batch.started_s:7.2f} s"
            f"{batch.answered_s:8.2f} s{batch.predicted_s:8.2f} s |{bar}|"
        )
    if len(rows) > LOG_SHOWN:
        rows[LOG_SHOWN - 6 : -4] = [f"{'':12}... {len(rows) - LOG_SHOWN + 2} more batches"]
    return "\n".join(rows)


def difference(measured_s: float, predicted_s: float) -> str:
    return f"{(measured_s / predicted_s - 1) * 100:+.1f} %"


def render_result(run: dict[str, Any], lines: Sequence[LogLine]) -> str:
    """What is printed after the last answer."""
    measured, predicted, split = run["measured_s"], run["predicted_s"], run["split_predicted_s"]
    verdict = f"predicted {predicted:.2f} s, measured {measured:.2f} s ({difference(measured, predicted)}): "
    warned = {warning["id"] for warning in run["warnings"]}
    if run["failed"]:
        verdict += "some requests failed, see below"
    elif "uneven-split" in warned:
        verdict += (
            f"the split explains it. The workers took {shares(run)}; given that, the slowest needs"
            f" {split:.2f} s ({difference(measured, split)})"
        )
    elif "unexplained" in warned:
        verdict += "not explained, see below"
    else:
        verdict += "as predicted"
    took = ", ".join(f"{worker} {count}" for worker, count in run["requests_of_workers"].items())
    seen = f" (at most {run['slots_seen']} at a time in one worker)" if run["slots_seen"] else ""
    parts = [
        section("access log", f"{run['access_log']}  (stamped when the handler starts)"),
        render_log(lines, run["wait_s"]),
        "",
        render_batches(run),
        "",
        section("workers", f"{took}{seen}"),
        section(
            "counts",
            f"{run['requests']} sent = {run['answered']} answered + {run['failed']} failed;"
            f" {run['log_lines']} log lines",
        ),
        section("verdict", verdict),
    ]
    for warning in run["warnings"]:
        parts.append(section("warning", f"{warning['symptom']}. Likely: {warning['cause']}. Next: {warning['next']}."))
    return "\n".join(parts)


def render_comparison(runs: Sequence[dict[str, Any]]) -> str:
    """One line a run, for everything that was asked for in one command."""
    rows = [f"{'target':24}{'path':16}{'slots':>9}{'predicted':>10}{'by split':>10}{'measured':>10}"]
    for run in runs:
        split = "-" if run["split_predicted_s"] is None else f"{run['split_predicted_s']:.2f} s"
        slots = "no limit" if run["slots"] is None else str(run["slots"])
        failed = f"  {run['failed']} failed" if run["failed"] else ""
        rows.append(
            f"{run['target']:24}{run['path']:16}{slots:>9}{run['predicted_s']:8.2f} s{split:>10}"
            f"{run['measured_s']:8.2f} s{failed}"
        )
    return "\n".join(rows)


def render_targets() -> str:
    """What --list prints: each target's command line, and the slots that it gives each path."""
    rows = []
    for name, target in TARGETS.items():
        options = parse_arguments(["--target", name])
        plans = [make_plan(name, target, route, options) for route in target.routes]
        rows.append(
            f"{name}  ({plural(plans[0].workers, 'worker')})\n    {shlex.join(plans[0].command('PORT', 'APP'))}"
        )
        for plan in plans:
            slots = finite(plan.slots_per_worker * plan.workers)
            rows.append(
                f"    {plan.path:16}{'no limit' if slots is None else plural(slots, 'slot'):11}{plan.why_slots}"
            )
    return "\n".join(rows)


def in_colour(text: str) -> str:
    """Paint a report for a terminal: waiting pale, service green, what needs attention yellow."""
    bars = re.compile(r"\|(\.*)(#*)( *)\|$", re.MULTILINE)
    text = bars.sub(lambda m: f"|\033[2m{m[1]}\033[0;32m{m[2]}\033[0m{m[3]}|", text)
    text = re.sub(r"^(\w[\w ]{0,11}) (?=\S| )", lambda m: f"\033[1m{m[1]}\033[0m ", text, flags=re.MULTILINE)
    return re.sub(r"^\033\[1mwarning", "\033[1;33mwarning", text, flags=re.MULTILINE)


# ---------------------------------------------------------------- main


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


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="bench.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--target", action="append", default=[], metavar="NAME", help="what to start; several times, or `all`")
    add("--list", action="store_true", help="show the targets with their slots and command lines")
    add("--path", action="append", default=[], help="only this path of the target (default: each of its paths)")
    add("-n", "--requests", type=number(int, 1, 10_000_000), default=16, metavar="N", help="requests (16)")
    add("--workers", type=number(int, 1, 256), metavar="N", help="server processes")
    add("--threads", type=number(int, 1, 1000), metavar="N", help="threads of each process")
    add("--task-time", type=number(float, 0.001, 3600), default=1.0, metavar="S", help="what a request waits (1)")
    add("--subtasks", type=number(int, 1, 1000), default=2, metavar="N", help="parts of a -multi request's task (2)")
    add("-s", "--timeout", type=number(float, 0.001, 86400), metavar="S", help="(default: from the prediction)")
    add("--json", metavar="FILE", help="write everything, raw times included; - for standard output")
    add("--logs", type=Path, default=HERE / "logs", metavar="DIR", help="where runs leave their logs (logs/)")
    return parser.parse_args(argv)


def make_plans(options: argparse.Namespace) -> list[Plan]:
    """One plan for each target and path, or a Problem that says which name or number is wrong."""
    names = list(TARGETS) if "all" in options.target else options.target
    plans = []
    for name in names:
        if name not in TARGETS:
            raise Problem(f"unknown target {name!r}; the targets are: all, {', '.join(TARGETS)}")
        target = TARGETS[name]
        server = SERVERS[target.server]
        for setting in ("workers", "threads"):
            if getattr(options, setting) and f"{{{setting}}}" not in server.command and "all" not in options.target:
                raise Problem(f"{name} has no --{setting}: its server takes no such setting")
        routes = [route for route in target.routes if not options.path or route.path in options.path]
        if not routes and "all" not in options.target:
            raise Problem(
                f"{name} has no path {options.path[0]!r}; it has: {', '.join(route.path for route in target.routes)}"
            )
        plans += [make_plan(name, target, route, options) for route in routes]
    if not plans:
        raise Problem(f"no target has the path {options.path[0]!r}; see --list")
    return plans


def make_plan(name: str, target: Target, route: Route, options: argparse.Namespace) -> Plan:
    server = SERVERS[target.server]
    wait_s = options.task_time / options.subtasks if route.waits == "subtask" else options.task_time
    plan = Plan(
        target=name,
        server=target.server,
        app=route.app,
        path=route.path,
        handler=route.handler,
        workers=options.workers if options.workers and "{workers}" in server.command else target.workers,
        threads=options.threads if options.threads and "{threads}" in server.command else server.threads,
        task_time_s=options.task_time,
        subtasks=options.subtasks,
        wait_s=wait_s,
        requests=options.requests,
        timeout_s=0,
    )
    # Had one worker to take every request, the last answer would come this late: twice that is really too long.
    worst_s = rounds(plan.requests, plan.slots_per_worker) * wait_s
    return dataclasses.replace(plan, timeout_s=options.timeout or 10 + 2 * worst_s)


def check_packages(plans: Sequence[Plan]) -> None:
    missing = []
    for plan in plans:
        framework = "fastapi" if plan.app.startswith("fastapi") else "flask asgiref"
        for package in f"{SERVERS[plan.server].packages} {framework}".split():
            if importlib.util.find_spec(package.replace("-", "_")) is None and package not in missing:
                missing.append(package)
    if missing:
        raise Problem(
            f"missing {plural(len(missing), 'package')}: {', '.join(missing)};"
            f" install with: {sys.executable} -m pip install -r requirements-all.txt"
        )


def check_file_limit(sockets: int) -> None:
    """Raise the soft limit of open files as far as it goes; Problem if that is not enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = sockets + 64
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise Problem(f"{sockets} requests at once need {needed} open files; the limit is {hard} (ulimit -Hn)")
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def check_writable(path: Path) -> None:
    """Better to learn that before the run than after it."""
    try:
        path.open("a").close()
    except OSError as error:
        raise Problem(f"cannot write {path}: {error.strerror}") from None


def about_machine() -> dict[str, Any]:
    return {"system": f"{platform.system()} {platform.machine()}", "cpus": os.cpu_count() or 1}


def versions_of(plans: Sequence[Plan]) -> dict[str, str]:
    versions = {"Python": platform.python_version()}
    for plan in plans:
        framework = "fastapi" if plan.app.startswith("fastapi") else "flask"
        for package in f"{framework} {SERVERS[plan.server].packages}".split():
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                versions[package] = importlib.metadata.version(package)
    return versions


def messages_for(plan: Plan, port: int) -> Iterator[bytes]:
    """The requests in order, each with its number, by which the access log is matched."""
    head = f"GET {plan.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nX-Request-Id: ".encode()
    return (head + b"%d\r\n\r\n" % index for index in itertools.count())


def wait_for_log(path: Path, expected: int) -> str:
    """Read the access log; a handler may write its line a moment after its client has the answer."""
    deadline = time.perf_counter() + 1.0
    while True:
        text = path.read_text(errors="replace")
        if len(parse_access_log(text)) >= expected or time.perf_counter() > deadline:
            return text
        time.sleep(0.02)


def execute(plan: Plan, logs: Path) -> tuple[dict[str, Any], list[LogLine]]:
    """Start the server, send the burst, stop the server; the run's record and its access log."""
    when = datetime.now()
    access_log, output = new_log_files(logs, f"{plan.target}{plan.path}", when)
    server = start_server(plan, access_log, output)
    try:
        address = ("127.0.0.1", server.port)
        load = Load(address, messages_for(plan, server.port), Pace(plan.requests), plan.timeout_s)
        exchanges = asyncio.run(load.run())
        answered = sum(1 for status in exchanges.status if status)
        log = wait_for_log(access_log, answered)
    finally:
        stop_server(server)
    run = {"when": when.isoformat(" ", "seconds")} | describe(plan)
    run |= {"access_log": shown(access_log), "server_log": shown(output)}
    lines = parse_access_log(log)
    return summarise(run, exchanges, load.begun_s, lines, ready_workers(log)), lines


def shown(path: Path) -> str:
    """A path as the user would type it."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["--guard"]:
        return guard(list(argv[1:]))
    try:
        options = parse_arguments(argv)
        if options.list:
            print(render_targets())
            return 0
        if not options.target:
            print(f"{__doc__}\nTargets: {', '.join(TARGETS)}")
            return 0
        return bench(options, ["bench.py", *argv])
    except Problem as problem:
        print(f"bench.py: {problem}", file=sys.stderr)
        return problem.exit_code
    except KeyboardInterrupt:
        print("bench.py: interrupted; the server is stopped, what it logged is in logs/", file=sys.stderr)
        return 130


def bench(options: argparse.Namespace, command: list[str]) -> int:
    plans = make_plans(options)
    check_packages(plans)
    check_file_limit(options.requests)
    if options.json not in (None, "-"):
        check_writable(Path(options.json))
    out = sys.stderr if options.json == "-" else sys.stdout
    colour = out.isatty() and "NO_COLOR" not in os.environ

    def show(text: str = "") -> None:
        print(in_colour(text) if colour else text, file=out, flush=True)

    document: dict[str, Any] = {
        "when": datetime.now().isoformat(" ", "seconds"),
        "command": shlex.join(command),
        "machine": about_machine(),
        "versions": versions_of(plans),
        "runs": [],
    }
    show(render_header(document))
    for plan in plans:
        show("\n" + render_prediction(describe(plan)) + "\n")
        run, lines = execute(plan, options.logs)
        show(render_result(run, lines))
        document["runs"].append(run)
    if len(plans) > 1:
        show("\n" + render_comparison(document["runs"]))
    if options.json:
        text = json.dumps(document)
        print(text) if options.json == "-" else Path(options.json).write_text(text + "\n")
    return 1 if any(run["failed"] for run in document["runs"]) else 0


if __name__ == "__main__":
    sys.exit(main())
