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

The same engine measures any server, with ApacheBench's letters:

    python bench.py --app main:app --server uvicorn --path /items -n 100
    python bench.py --url http://127.0.0.1:8000/ -n 5000 -c 500 -k
    python bench.py --url http://127.0.0.1:8000/ --rate 100 -t 10
    python bench.py --target fastapi-hello-uvicorn --ramp 5s:50,10s:200

No -c sends all requests at once (the burst); -c N keeps N under way, each next
one waiting for an answer (closed loop); --rate sends on schedule whatever the
server does (open loop), and counts latency from when a request was due; --ramp
changes the number of virtual users over time.

How it works: the server runs on a free port of 127.0.0.1, in a process group
of its own that dies with bench.py, its app wrapped by apps/access_log.py, which
stamps the *start* of each handler. Each request goes out on a raw socket as soon
as that is connected. Everything a run leaves is in logs/; --json writes all of
it. Exit code: 0 all answered (2xx), 1 some requests failed, 2 wrong usage or a
missing package, 3 the server did not start. Python 3.10 or newer, nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
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
import random
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
import urllib.parse
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import perf_counter
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
    "def in 100 threads": (100, "the app has raised AnyIO's limit to 100 threads"),
}


class Route(NamedTuple):
    path: str
    app: str  # module:attribute in apps/
    handler: str  # a key of HANDLERS
    waits: str = "task"  # how long: the task time, a subtask's share of it, `?ms=`, nothing, or ? (not known)


class Target(NamedTuple):
    server: str
    routes: tuple[Route, ...]
    workers: int
    pool: int = 0  # database connections of each process; 0: it uses no database


class Kind(NamedTuple):
    """One kind of request in a workload; {id} is a random book, {n} the number of the request."""

    share: float
    method: str
    path: str
    body: str = ""


class Workload(NamedTuple):
    kinds: tuple[Kind, ...]
    stages: tuple[tuple[float, int], ...]  # seconds, virtual users at their end
    wait_s: float | None = None


# The three workloads of "Async FastAPI, Measured" (bilouro, 2026), as its k6 scripts have them.
READ_BOOK = Kind(0.70, "GET", "/v1/books/{id}")
WORKLOADS = {
    "read": Workload((READ_BOOK,), ((15, 50), (15, 200), (20, 500), (20, 1000), (20, 1000))),
    "mixed": Workload(
        (
            READ_BOOK,
            Kind(0.25, "POST", "/v1/books", '{"title":"New","author":"Bench","year":2026,"isbn":"bench-{n}"}'),
            Kind(0.05, "PATCH", "/v1/books/{id}", '{"year":1999}'),
        ),
        ((15, 100), (20, 300), (25, 500), (20, 500)),
    ),
    "fanout": Workload((Kind(1.0, "GET", "/v1/sleep?ms=50"),), ((15, 50), (20, 200), (25, 500), (20, 500)), 0.05),
}
SEEDED_BOOKS = 10_000  # rows that apps/books.sql puts into the table


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
FLASK_BOOKS = (Route("/v1/sleep", "flask_books:app", "def", "ms"), Route("/v1/books/1", "flask_books:app", "def", "?"))
FASTAPI_BOOKS = (
    Route("/v1/sleep", "fastapi_books:app", "async", "ms"),
    Route("/v1/books/1", "fastapi_books:app", "async", "?"),
)
FLASK_HELLO = (Route("/", "flask_hello:app", "def", "nothing"),)
FASTAPI_HELLO = (Route("/", "fastapi_hello:app", "async", "nothing"),)
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
    "fastapi-threads": Target("uvicorn", (Route("/io", "fastapi_threads:app", "def in 100 threads"),), 4),
    "flask-hello-dev": Target("flask-dev", FLASK_HELLO, 1),
    "flask-hello-dev-backlog": Target("flask-dev", (Route("/", "flask_backlog:app", "def", "nothing"),), 1),
    "flask-hello-waitress": Target("waitress", FLASK_HELLO, 1),
    "flask-hello-gunicorn": Target("gunicorn", FLASK_HELLO, 4),
    "fastapi-hello-uvicorn": Target("uvicorn", FASTAPI_HELLO, 1),
    "fastapi-hello-uvicorn-workers": Target("uvicorn", FASTAPI_HELLO, 4),
    "fastapi-hello-gunicorn": Target("gunicorn-uvicorn", FASTAPI_HELLO, 4),
    "fastapi-hello-gunicorn-asgi": Target("gunicorn-asgi", FASTAPI_HELLO, 4),
    "flask-books": Target("gunicorn-threads", FLASK_BOOKS, 4, pool=4),
    "fastapi-books": Target("uvicorn", FASTAPI_BOOKS, 4, pool=15),
}

MAX_HEAD_BYTES = 64 * 1024  # head of a response, its chunk lines, its trailers: more is an attack or a mistake
MAX_BODY_BYTES = 64 * 1024 * 1024  # bodies are counted, not kept; an endless one must end
NO_BODY = (204, 304)
READ_BYTES = 64 * 1024
SYN_RETRY_S = 0.9  # Linux sends a lost SYN again after 1 s, then 2 and 4 s later (TCP_TIMEOUT_INIT)
DELAYED_ACK_S = (0.035, 0.1)  # Linux holds back an ACK for 40 ms (TCP_DELACK_MIN), and timers come late
SOCK_NONBLOCK = getattr(socket, "SOCK_NONBLOCK", 0)  # Linux: one system call less for each connection
START_TIMEOUT_S = 30.0
STOP_GRACE_S = 2.0  # what a server gets between SIGTERM and SIGKILL
TOLERANCE, TOLERANCE_S = 0.05, 0.1  # a prediction fits within 5 % + 100 ms


# ---------------------------------------------------------------- records


class Pace(NamedTuple):
    """When requests may be sent. Reads no clock and sees no socket: a table of cases tests it."""

    requests: float = math.inf
    concurrency: float = math.inf
    rate: float | None = None  # requests/s
    stages: tuple[tuple[float, int], ...] = ()  # seconds, and the virtual users at their end, as in k6
    time_limit_s: float = math.inf

    @property
    def mode(self) -> str:
        return "open" if self.rate else "ramp" if self.stages else "closed" if self.concurrency < math.inf else "burst"

    @property
    def most_under_way(self) -> float:
        return min(self.requests, max((users for _, users in self.stages), default=self.concurrency))

    def limits(self, elapsed_s: float) -> tuple[float, float]:
        """How many requests may have been sent in all by now, and how many may be under way at once."""
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
        if self.rate:
            return min((int(elapsed_s * self.rate) + 1) / self.rate, self.time_limit_s)
        return min(elapsed_s + 0.02, self.time_limit_s) if self.stages else self.time_limit_s


@dataclass(frozen=True)
class Plan:
    """One run, before it: what to start, what to send, and how long a request waits."""

    target: str  # the name to show
    path: str
    pace: Pace
    server: str | None = None  # a key of SERVERS; None: it runs already, at url_host and url_port
    app: str = ""  # module:attribute
    handler: str | None = None  # None: not known
    workers: int = 1
    threads: int = 1
    task_time_s: float = 1.0
    subtasks: int = 2
    wait_s: float | None = None  # what one request waits: the task time, a subtask's share of it; None: not known
    timeout_s: float = 30.0
    server_args: str = ""  # more options for the server's command line
    pool: int = 0  # database connections of each process; 0: it uses no database
    workload: str | None = None
    method: str = "GET"
    headers: tuple[str, ...] = ()
    body: bytes = b""
    keep_alive: bool = False
    url_host: str = "127.0.0.1"
    url_port: int = 0

    @property
    def slots_per_worker(self) -> float | None:
        """min(server, handler, database pool) of one process; None: not known."""
        slots = SERVERS[self.server].slots if self.server else BY_HANDLER
        if slots == BY_HANDLER:
            if not self.handler:
                return None
            slots = HANDLERS[self.handler][0]
        return min(self.threads if slots == THREADS else slots, self.pool or NO_LIMIT)

    @property
    def why_slots(self) -> str:
        if not self.server:
            return "not known for a server that was not started here"
        server = SERVERS[self.server]
        if self.pool:
            threads = f"{self.threads} threads and " if server.slots == THREADS else ""
            return f"a process has {threads}a pool of {plural(self.pool, 'database connection')}"
        if server.slots != BY_HANDLER:
            return server.why.format(threads=self.threads)
        if self.handler:
            return HANDLERS[self.handler][1]
        return "40 if the handler is a `def`, no limit if it is an `async def` that awaits, 1 if that blocks"

    def command(self, port: int | str, app: str) -> list[str]:
        command = SERVERS[self.server].command if self.server else ""
        command = command.replace("{app}", f"{self.server_args} {app}")
        return shlex.split(command.format(port=port, workers=self.workers, threads=self.threads))


ERRORS = (
    "", "refused", "reset", "closed", "timed out", "malformed", "truncated", "too large",
    "no local port", "too many open files", "connect failed", "interrupted",
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
    guard: subprocess.Popen[bytes]  # its pid is the process group of the server
    port: int
    output: Path
    access_log: Path | None


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def new_log_files(logs: Path, name: str, when: datetime, ending: str = ".access.log") -> tuple[Path, Path]:
    """Create logs/<time>-<name>.access.log, never an existing file; and the name of the .server.log beside it."""
    logs.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")
    for suffix in itertools.chain([""], (f"-{i}" for i in itertools.count(2))):
        access_log = logs / f"{when:%Y%m%d-%H%M%S}-{name}{suffix}{ending}"
        try:
            access_log.touch(exist_ok=False)
        except FileExistsError:
            continue
        return access_log, access_log.with_name(access_log.name.replace(ending, ".server.log"))
    raise AssertionError("unreachable")


def start_server(
    plan: Plan, access_log: Path | None, output: Path, cpus: set[int], database_url: str = ""
) -> RunningServer:
    """Start the plan's server on a free port and return when every worker is ready; Problem (3) if it does not.

    Without an access log the app runs as it is, and nobody can tell when the last worker is ready.
    """
    assert plan.server
    port = free_port()
    env = os.environ | {
        "APP": plan.app,
        "ACCESS_LOG": str(access_log or ""),
        "TASK_TIME": str(plan.task_time_s),
        "SUBTASKS": str(plan.subtasks),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(APPS), os.getcwd(), os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
        "DATABASE_URL": database_url,
        "POOL_SIZE": str(plan.pool),
    }
    app = f"access_log:{SERVERS[plan.server].wrapper}" if access_log else plan.app
    command = [sys.executable, "-m", *plan.command(port, app)]
    with output.open("wb") as sink:  # a file, not a pipe: a server whose output nobody reads stalls
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--guard", *command],
            stdin=subprocess.PIPE, stdout=sink, stderr=sink, env=env, start_new_session=True,
        )  # fmt: skip
    server = RunningServer(process, port, output, access_log)
    if cpus:
        pin(process.pid, cpus)
    try:
        wait_until_ready(server, plan.workers)
    except BaseException:
        stop_server(server)
        raise
    return server


def wait_until_ready(server: RunningServer, workers: int) -> None:
    """A port that accepts is no sign that every worker has imported its app: each writes `ready` when it has."""
    deadline = perf_counter() + START_TIMEOUT_S
    while perf_counter() < deadline:
        if server.guard.poll() is not None:
            output = server.output.read_text(errors="replace").splitlines()
            causes = dict.fromkeys(line for line in output if re.match(r"[\w.]+(Error|Exception): ", line))
            tail = "\n  ".join([*causes, *output[-8:]])
            raise Problem(f"the server did not start; the end of {shown(server.output)}:\n  {tail}", 3)
        ready = ready_workers(server.access_log.read_text(errors="replace")) if server.access_log else []
        if (len(ready) >= workers or not server.access_log) and accepts(server.port):
            if server.access_log:
                return
            time.sleep(1)  # an unwrapped app does not say when its last worker has loaded it
            if server.guard.poll() is None:
                return
        time.sleep(0.02)
    raise Problem(
        f"the server was not ready after {START_TIMEOUT_S:.0f} s (workers ready: {len(ready)} of {workers});"
        f" see {shown(server.output)}", 3
    )  # fmt: skip


def pin(pid: int, cpus: set[int]) -> None:
    """Keep a process and its children on some CPUs. Linux only: elsewhere the user is told."""
    try:
        os.sched_setaffinity(pid, cpus)
    except (AttributeError, OSError) as error:
        raise Problem(f"cannot pin to CPUs {sorted(cpus)} on this system: {error}") from None


def group_cpu_s(group: int) -> float | None:
    """CPU seconds that the living processes of a group have used; None without /proc (it is Linux's)."""
    ticks, found = 0, False
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                ticks, found = ticks + int(fields[11]) + int(fields[12]), True
    return ticks / os.sysconf("SC_CLK_TCK") if found else None


def kernel_counters() -> dict[str, int]:
    """What TCP had to drop or send again since boot, in this network namespace; empty where not Linux."""
    with contextlib.suppress(OSError):
        names, values = (
            line.split() for line in Path("/proc/net/netstat").read_text().splitlines() if line.startswith("TcpExt:")
        )
        return {name: int(values[names.index(name)]) for name in ("ListenOverflows", "TCPSynRetrans")}
    return {}


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


class Database:
    """apps/postgres.py as a process: it ends, and takes its Postgres along, when its stdin closes."""

    def __init__(self, url: str | None, log: Path, cpus: set[int]) -> None:
        command = [sys.executable, str(APPS / "postgres.py"), *([url] if url else [])]
        with log.open("wb") as sink:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink, start_new_session=True
            )
        if cpus:
            pin(self.process.pid, cpus)
        assert self.process.stdin and self.process.stdout
        self.stdin, self.stdout, self.log = self.process.stdin, self.process.stdout, log
        self.about = self.read()

    def ask(self, command: str) -> dict[str, Any]:
        """One of the commands that apps/postgres.py describes, and its answer."""
        with contextlib.suppress(BrokenPipeError):
            self.stdin.write(f"{command}\n".encode())
            self.stdin.flush()
        return self.read()

    def read(self) -> dict[str, Any]:
        line = self.stdout.readline()
        lines = [] if line else self.log.read_text(errors="replace").splitlines() or ["no message"]
        return json.loads(line) if line else {"error": lines[-1]}

    def stop(self) -> None:
        self.stdin.close()
        self.process.wait()


@contextlib.contextmanager
def database_for(plans: Sequence[Plan], options: argparse.Namespace) -> Iterator[None]:
    """Start Postgres if a plan needs one (options.database), and stop it in the end. Problem (2) if it cannot be."""
    options.database = None
    if not any(plan.pool for plan in plans):
        yield
        return
    log, _ = new_log_files(options.logs, "postgres", datetime.now(), ".postgres.log")
    options.database = database = Database(
        options.database_url or os.environ.get("DATABASE_URL"), log, options.client_cpus
    )
    try:
        about = database.about
        if "error" in about:
            raise Problem(about["error"])
        for plan in plans:
            # Postgres keeps 3 for superusers, and apps/postgres.py takes one for itself.
            needed, free = plan.workers * plan.pool + 4, about["max_connections"] - about["connections_in_use"]
            if needed > free:
                raise Problem(
                    f"{plan.target}: {plan.workers} workers x {plan.pool} connections (and 4 more) are {needed};"
                    f" Postgres has {free} free of max_connections {about['max_connections']}:"
                    " lower --workers or --pool-size, or raise max_connections (embedded: PG_MAX_CONNECTIONS=N)"
                )
        yield
    finally:
        database.stop()


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
        "exchanges", "family", "fill_is_due", "finished", "idle", "in_flight", "keep_alive", "loop", "messages", "pace",
        "poller", "progress", "released", "sent", "sockets_opened", "timeout_s", "users",
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
        self.capacity = self.sent = self.in_flight = self.sockets_opened = 0
        self.released = self.users = 0.0  # the pace's limits, as last asked for
        self.ended = self.fill_is_due = False  # ended: nothing more will be sent
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
        try:
            self._follow_pace()
            self._watch_deadlines()
            await self.finished
        finally:
            self.cpu_s = time.process_time() - self.begun_cpu_s
            gc.enable()
            self.loop.remove_reader(self.poller.fileno())
            for conn in list(self.connections.values()):
                self._fail(conn, "interrupted")
            self.poller.close()
            self.exchanges.finish(self.sent)
        return self.exchanges

    def _follow_pace(self) -> None:
        elapsed_s = perf_counter() - self.begun_s
        self.ended = elapsed_s >= self.pace.time_limit_s
        self.released, self.users = (self.sent, 0) if self.ended else self.pace.limits(elapsed_s)
        self._fill()
        if not self.ended and (next_s := self.pace.next_change_s(elapsed_s)) < math.inf:
            self.loop.call_later(max(0.0, next_s - elapsed_s), self._follow_pace)

    def _fill(self) -> None:
        """Start what the pace allows, a hundred at most, so that answers are read in between."""
        self.fill_is_due, budget = False, 100
        while self.sent < self.released and self.in_flight < self.users:
            self._start()
            budget -= 1
            if not budget:
                self._fill_soon()
                return
        if not self.in_flight and (self.ended or self.sent >= self.pace.requests) and not self.finished.done():
            self.finished.set_result(None)

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
        if self.keep_alive and parser.keep_alive and not conn.unsent:
            if self.sent < self.released and self.in_flight < self.users:
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
        self._fill_soon()

    def _close(self, conn: Connection) -> None:
        fd = conn.sock.fileno()
        if conn.watched:
            self.poller.forget(fd)
            conn.watched = 0
        self.connections.pop(fd, None)
        conn.sock.close()

    def _watch_deadlines(self) -> None:
        if self.finished.done():
            return
        oldest_s = perf_counter() - self.timeout_s
        for conn in list(self.connections.values()):
            if conn.index >= 0 and self.started_s[conn.index] < oldest_s:
                self._fail(conn, "timed out")
        if self.progress:
            self.progress(self)
        self.loop.call_later(min(0.1, self.timeout_s / 4), self._watch_deadlines)


# ---------------------------------------------------------------- read the log

LOG_LINE = re.compile(
    r"\[(?P<stamp>[^\]]+)\] \[pid-(?P<pid>\d+)\] (?P<method>\S+) (?P<path>\S*) (?P<status>\S+)"
    r" (?P<duration>[\d.]+)s #(?P<request>\S*) @(?P<started>[\d.]+)"
)


def parse_access_log(text: str) -> list[LogLine]:
    """The request lines of an access log, in the order in which their handlers started.

    Only of numbered requests: a warm-up, or somebody else's request, has no number.


    >>> parse_access_log("[2026-11-20 17:04:15.123] [pid-7] GET /io 200 1.0012s #3 @5.5")[0].duration_s
    1.0012
    """
    lines = (
        LogLine(m["stamp"], int(m["pid"]), m["method"], m["path"], m["status"], float(m["duration"]), m["request"],
                float(m["started"]))
        for m in map(LOG_LINE.fullmatch, text.splitlines())
        if m and m["request"].isdigit()
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
    """What is known before the first request is sent: the plan and the prediction, ready for JSON.

    `slots` is null where there is no limit, and also where the slots are not known: `slots_known` tells which.
    `predicted_s` is how long everything should take, `ceiling_rps` what throughput cannot exceed; null: not known.
    """
    pace, slots, wait_s = plan.pace, plan.slots_per_worker, plan.wait_s
    total = None if slots is None else slots * plan.workers
    predicted_s = ceiling_rps = None
    if total is not None and wait_s:
        busy = min(total, pace.most_under_way)  # slots that this load can fill
        if pace.mode in ("burst", "closed") and pace.requests < math.inf:
            predicted_s = predict(int(pace.requests), 1, busy if busy < pace.requests else total, wait_s).makespan_s
        if busy < math.inf:
            ceiling_rps = busy / wait_s
    return {
        "target": plan.target,
        "server": plan.server,
        "server_command": shlex.join(plan.command("PORT", plan.app)),
        "method": plan.method,
        "path": plan.path,
        "handler": plan.handler,
        "workers": plan.workers,
        "threads": plan.threads,
        "slots_known": slots is not None,
        "slots_per_worker": finite(slots),
        "slots": finite(total),
        "why_slots": plan.why_slots,
        "task_time_s": plan.task_time_s,
        "subtasks": plan.subtasks,
        "pool": plan.pool,
        "workload": plan.workload,
        "wait_s": wait_s,
        "mode": pace.mode,
        "requests": finite(pace.requests),
        "concurrency": finite(pace.concurrency),
        "rate_rps": pace.rate,
        "stages": pace.stages,
        "time_limit_s": None if pace.time_limit_s == math.inf else pace.time_limit_s,
        "keep_alive": plan.keep_alive,
        "timeout_s": plan.timeout_s,
        "predicted_s": predicted_s,
        "ceiling_rps": ceiling_rps,
    }


def finite(number: float | None) -> int | None:
    return None if number is None or number == math.inf else int(number)


def unlimited(slots: int | None) -> float:
    return NO_LIMIT if slots is None else slots


class Measured(NamedTuple):
    """What a run leaves, before any sum is made of it."""

    exchanges: Exchanges
    begun_s: float
    client_cpu_s: float
    sockets_opened: int
    server_cpu_s: float | None = None
    kernel: dict[str, int] | None = None  # counters during the run
    warm_up: Exchanges | None = None  # what was sent before
    log: str | None = None  # the access log's text; None: the server wrote none that we can read


def is_success(status: int, error: int) -> bool:
    return not error and 200 <= status < 300


def summarise(run: dict[str, Any], measured: Measured) -> dict[str, Any]:
    """Add to what describe() knew what was measured; all times in seconds, those of events since the run began.

    Statistics are of successes only (2xx): a refused or timed-out request says nothing about how long an answer takes,
    and is counted by name instead.
    """
    columns, begun_s, warm_up = measured.exchanges, measured.begun_s, measured.warm_up or Exchanges()
    sent = len(columns.status)
    good = array("L", (i for i in range(sent) if is_success(columns.status[i], columns.error[i])))
    outcomes = Counter(
        ERRORS[error] or f"HTTP {status}"
        for status, error in zip(columns.status, columns.error, strict=True)
        if not is_success(status, error)
    )
    measured_s = max(columns.answered_s, default=begun_s) - begun_s
    window_s = min(measured_s, run["time_limit_s"] or math.inf) or math.nan
    in_window = sum(1 for i in good if columns.answered_s[i] - begun_s <= window_s)
    rate = run["rate_rps"]
    due_s = [begun_s + i / rate for i in range(sent)] if rate else columns.started_s

    def spans(begin: Sequence[float], end: Sequence[float]) -> dict[str, float] | None:
        return statistics_of([end[i] - begin[i] for i in good])

    phases = {
        "connect": spans(columns.started_s, columns.sent_s),
        "waiting": spans(columns.sent_s, columns.first_byte_s),
        "processing": spans(columns.sent_s, columns.answered_s),
        "total": spans(columns.started_s, columns.answered_s),
    }
    run = run | {
        "sent": sent,
        "answered": len(good),
        "failed": sum(outcomes.values()),
        "errors": dict(outcomes),
        "measured_s": round(measured_s, 6),
        "finished_after_limit": len(good) - in_window,
        "throughput_rps": in_window / window_s if good else 0.0,
        "latency_s": spans(due_s, columns.answered_s) if rate else phases["total"],
        "phases_s": phases,
        "lag_s": spans(due_s, columns.started_s) if rate else None,
        "histogram": histogram([columns.answered_s[i] - due_s[i] for i in good]),
        "per_second": per_second(columns, begun_s),
        "levels": levels(columns, begun_s, run["stages"]),
        "warmed_up": len(warm_up.status),
        "created": columns.status.count(201) + warm_up.status.count(201),
        "mean_in_flight": sum(columns.answered_s[i] - columns.started_s[i] for i in range(sent))
        / (measured_s or math.nan),
        "slow_connects": sum(1 for i in good if columns.sent_s[i] - columns.started_s[i] > SYN_RETRY_S),
        "late_bodies": sum(
            1 for i in good if DELAYED_ACK_S[0] < columns.answered_s[i] - columns.first_byte_s[i] < DELAYED_ACK_S[1]
        ),
        "body_bytes": sum(columns.body_bytes[i] for i in good),
        "sockets_opened": measured.sockets_opened,
        "client_cpu_s": round(measured.client_cpu_s, 6),
        "server_cpu_s": measured.server_cpu_s,
        "kernel": measured.kernel or {},
    }
    run |= summarise_log(run, measured.log)
    return run | {"warnings": audit(run)}


def summarise_log(run: dict[str, Any], log: str | None) -> dict[str, Any]:
    """What only the server's side knows: who took how many, and how many at a time."""
    if log is None:
        return {"log_lines": None, "requests_of_workers": {}, "split_predicted_s": None, "slots_seen": None}
    lines = parse_access_log(log)
    workers, counts = name_workers(lines, ready_workers(log)), Counter(line.pid for line in lines)
    split_predicted_s = None
    if run["predicted_s"] is not None:
        split_predicted_s = predict_split(list(counts.values()), unlimited(run["slots_per_worker"]), run["wait_s"])
    return {
        "log_lines": len(lines),
        "requests_of_workers": {worker: counts[pid] for pid, worker in workers.items()},
        "split_predicted_s": split_predicted_s,
        "slots_seen": slots_seen(lines),
    }


def columns_for_json(measured: Measured) -> dict[str, list[Any]]:
    """Every request's raw times as lists of equal length: seconds since the run began, null for "never"."""
    exchanges, begun_s = measured.exchanges, measured.begun_s
    lines = parse_access_log(measured.log or "")
    workers = name_workers(lines)
    by_request = {int(line.request): line for line in lines}
    logged = [by_request.get(i) for i in range(len(exchanges.status))]

    def since_begun(times_s: array[float]) -> list[float | None]:
        return [round(t - begun_s, 6) if t else None for t in times_s]

    return {
        "started_s": since_begun(exchanges.started_s),
        "sent_s": since_begun(exchanges.sent_s),
        "first_byte_s": since_begun(exchanges.first_byte_s),
        "answered_s": since_begun(exchanges.answered_s),
        "status": [status or None for status in exchanges.status],
        "error": [ERRORS[code] or None for code in exchanges.error],
        "body_bytes": exchanges.body_bytes.tolist(),
        "worker": [line and workers[line.pid] for line in logged],
        "handler_started_s": [line and round(line.started_s - begun_s, 6) for line in logged],
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


def statistics_of(values: list[float]) -> dict[str, Any] | None:
    """min, mean, sd, median, percentiles and max of some seconds; None of none. Sorts the list that it is given."""
    if not values:
        return None
    values.sort()
    n, mean = len(values), math.fsum(values) / len(values)
    middle = (values[(n - 1) // 2] + values[n // 2]) / 2
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else 0.0
    percentiles = {f"p{p}": nearest_rank(values, p) for p in (90, 95, 99)}
    found = {"min": values[0], "mean": mean, "sd": sd, "median": middle, **percentiles, "max": values[-1]}
    return {name: None if value is None else round(value, 6) for name, value in found.items()}


def histogram(latencies_s: Sequence[float]) -> list[tuple[float, int]]:
    """(upper bound in seconds, count) in steps of 1, 2, 5: a tail of seconds beside a bulk of milliseconds shows."""
    bounds = [step * 10.0**power for power in range(-4, 4) for step in (1, 2, 5)]
    counts = Counter(bisect.bisect_left(bounds, latency) for latency in latencies_s)
    if not counts:
        return []
    return [(round(bounds[min(i, len(bounds) - 1)], 4), counts[i]) for i in range(min(counts), max(counts) + 1)]


def per_second(columns: Exchanges, begun_s: float) -> list[dict[str, float]]:
    """For each second of the run: answers, failures, and the mean latency of the answers in it."""
    seconds: dict[int, list[float]] = {}
    for i, answered_s in enumerate(columns.answered_s):
        row = seconds.setdefault(int(answered_s - begun_s), [0, 0, 0.0])
        if is_success(columns.status[i], columns.error[i]):
            row[0] += 1
            row[2] += answered_s - columns.started_s[i]
        else:
            row[1] += 1
    return [
        {"second": second, "answered": good, "failed": bad, "mean_latency_s": round(total / good, 6) if good else 0.0}
        for second, (good, bad, total) in sorted(seconds.items())
    ]


def levels(columns: Exchanges, begun_s: float, stages: Sequence[tuple[float, int]]) -> list[dict[str, Any]]:
    """For each stage of a ramp, of what was answered during it (the last one: or after it): counts, rate, latency."""
    found, begin_s = [], begun_s
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


SLOTS_MEAN = {
    1: "one at a time: a sync worker, or an event loop that a blocking call stops",
    4: "four at a time: waitress's default of 4 threads, or --threads 4",
    ANYIO_THREADS: "40 at a time: AnyIO's limit for `def` handlers and dependencies (FastAPI, Starlette)",
}


def audit(run: dict[str, Any]) -> list[dict[str, str]]:
    """Everything in a run that its reader must know before believing it: symptom, likely cause, next step."""
    warnings = []

    def warn(identifier: str, symptom: str, cause: str, next_step: str) -> None:
        warnings.append({"id": identifier, "symptom": symptom, "cause": cause, "next": next_step})

    sent, measured_s, predicted_s, split_s = (
        run["sent"],
        run["measured_s"],
        run["predicted_s"],
        run["split_predicted_s"],
    )
    if run["failed"]:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(run["errors"].items()))
        warn("failed-requests", f"{run['failed']} of {sent} requests failed: {counts}. They are in no percentile",
             "the server refused, broke or outwaited them", "read the end of the server log")  # fmt: skip
    if run["log_lines"] is not None and run["log_lines"] != sent:
        warn("log-lines", f"{run['log_lines']} access-log lines for {sent} requests",
             "a handler that did not end, or a request that reached none, writes no line",
             "look for a killed or restarted worker in the server log")  # fmt: skip
    if not run["failed"] and predicted_s is not None and not fits(measured_s, predicted_s):
        symptom = f"{measured_s:.2f} s instead of {predicted_s:.2f} s"
        if split_s is not None and fits(measured_s, split_s):
            warn("uneven-split", symptom, f"the workers took uneven shares: {shares(run)}",
                 "for gunicorn threads, --worker-connections equal to --threads; else more slots in fewer processes",
            )  # fmt: skip
        else:
            warn("unexplained", symptom, "CPU time, uneven shares of the connections, or another limit",
                 "repeat on an idle machine, with a longer --task-time")  # fmt: skip
    if run["ceiling_rps"] and run["throughput_rps"] > run["ceiling_rps"] * (1 + TOLERANCE) and measured_s > 1:
        warn("above-ceiling", f"{run['throughput_rps']:.1f} requests/s, above S / t = {run['ceiling_rps']:.1f}",
             "requests wait less than the task time says, or there are more slots than assumed",
             "check --task-time against the minimum of the total time")  # fmt: skip
    database = run.get("database", {})
    if "rows" in database and not run["failed"]:
        if database["rows"] != SEEDED_BOOKS + run["created"]:
            warn("rows", f"{database['rows']} rows for {SEEDED_BOOKS} seeded and {run['created']} created",
                 "a POST was answered 201 and not kept, or kept and not answered", "read the server log")  # fmt: skip
        if not database["connections"] and database["statements"] not in (None, sent + run["warmed_up"]):
            warn("statements", f"{database['statements']} SQL statements for {sent + run['warmed_up']} requests",
                 "somebody else used the database, or a request was answered without it",
                 "use a database of its own")  # fmt: skip
    overflows = run["kernel"].get("ListenOverflows", 0)
    if overflows or run["slow_connects"]:
        retries = run["kernel"].get("TCPSynRetrans", 0)
        warn("backlog-overflow",
             f"{plural(run['slow_connects'], 'connect')} took a second or more; the kernel counted {overflows}"
             f" listen-queue overflows and {retries} SYN retransmissions (on the whole machine)",
             "the server's listen backlog was full, and TCP tried again after about 1, 3 and 7 s",
             "raise the server's backlog (and net.core.somaxconn), or accept faster")  # fmt: skip
    if run["client_cpu_s"] > 0.8 * measured_s and measured_s > 0.5:
        warn("client-limit", f"the client used {run['client_cpu_s'] / measured_s:.0%} of a CPU",
             "this client, not the server, may be what limits the throughput",
             "read the throughput as a lower bound; give the client a CPU of its own (--client-cpus)")  # fmt: skip
    if run["lag_s"] and (run["lag_s"]["p99"] or run["lag_s"]["max"]) > 0.01:
        worst = run["lag_s"]["p99"] or run["lag_s"]["max"]
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
    if run["mode"] == "closed" and sent > 10 * asked and not run["failed"] and run["mean_in_flight"] < 0.9 * asked:
        warn("little", f"{run['mean_in_flight']:.1f} requests under way on average, {asked} asked for",
             "the client could not keep all users busy, or the tail of the run was long",
             "send more requests, and look at the CPU share of the client")  # fmt: skip
    return warnings


def sockets_expected(run: dict[str, Any]) -> int | None:
    """How many sockets a run opens if nothing goes wrong; None for an open loop, which opens what it needs."""
    if not run["keep_alive"]:
        return run["sent"]
    users = [users for _, users in run["stages"]] or [run["concurrency"]]
    return min(max(users), run["sent"]) if run["mode"] in ("closed", "ramp") else None


def shares(run: dict[str, Any]) -> str:
    return " + ".join(str(count) for count in run["requests_of_workers"].values())


class Batch(NamedTuple):
    """Requests answered together; times in seconds since the burst began; NaN: not known."""

    requests: list[int]
    started_s: float
    answered_s: float
    predicted_s: float


def batches(run: dict[str, Any]) -> list[Batch]:
    """Group a burst's answers: a gap of a quarter of the wait (or of the fastest answer) begins a new batch."""
    columns = run["exchanges"]
    answered = sorted(
        (at, i) for i, (at, error) in enumerate(zip(columns["answered_s"], columns["error"], strict=True)) if not error
    )
    gap_s = (run["wait_s"] or (answered[0][0] if answered else 0.0)) / 4
    groups: list[list[tuple[float, int]]] = []
    for at, i in answered:
        if not groups or at - groups[-1][-1][0] > gap_s:
            groups.append([])
        groups[-1].append((at, i))
    predicted = [math.nan] * len(answered)
    if run["predicted_s"] is not None:
        predicted = predict(len(answered), 1, unlimited(run["slots"]), run["wait_s"]).answered_s
    found, position = [], 0
    for group in groups:
        position += len(group)
        started = [columns["handler_started_s"][i] for _, i in group]
        first_s = min((s for s in started if s is not None), default=math.nan)
        found.append(Batch(sorted(i for _, i in group), first_s, group[-1][0], predicted[position - 1]))
    return found


def size_of_rounds(found: Sequence[Batch]) -> int | None:
    """The slots that a burst's batches show: of one size but for the last, and one wait apart; None if they do not.

    A server that is busy computing answers in batches too, but neither their sizes nor their times are regular.
    """
    sizes, ends_s = [len(batch.requests) for batch in found], [batch.answered_s for batch in found]
    regular = len(set(sizes[:-1])) == 1 and sizes[-1] <= sizes[0]
    return (
        sizes[0] if regular and all(0.8 < ends_s[k] / ends_s[0] / (k + 1) < 1.25 for k in range(len(ends_s))) else None
    )


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


def render_load(run: dict[str, Any]) -> str:
    """What will be sent, in a sentence."""
    n, until = run["requests"], f"for {seconds(run['time_limit_s'] or 0)}"
    if n is not None:
        until = plural(n, "request") + (f" or {seconds(run['time_limit_s'])}" if run["time_limit_s"] else "")
    kept = "connections kept" if run["keep_alive"] else "a new connection each"
    text = {
        "burst": f"{until} at once",
        "closed": f"closed loop, {until}, {run['concurrency']} under way at a time, {kept}",
        "open": f"open loop, {until}, {run['rate_rps'] or 0:g} a second whatever the server does, {kept}",
        "ramp": "ramp of virtual users, "
        + ", ".join(f"{seconds(stage_s)} to {users}" for stage_s, users in run["stages"])
        + f", {kept}",
    }[run["mode"]]
    if run["wait_s"]:
        text += f"; each waits {seconds(run['wait_s'])}"
        if run["subtasks"] > 1 and run["wait_s"] * run["subtasks"] == run["task_time_s"]:
            text += f" ({run['subtasks']} subtasks of a {seconds(run['task_time_s'])} task, awaited together)"
    return text


def render_formula(run: dict[str, Any]) -> str:
    """The prediction with its numbers, or why there is none."""
    slots, n = run["slots"], run["requests"]
    if run["wait_s"] == 0:
        return "none: the handler waits for nothing, so that CPU time decides, not slots."
    if not run["slots_known"] or not run["wait_s"]:
        return "none: it needs the slots and the task time."
    wait = seconds(run["wait_s"])
    if run["mode"] == "burst":
        if slots is None:
            text = f"all {n} wait side by side: {wait}."
        else:
            text = (
                f"ceil({n} / {slots}) x {wait} = {seconds(run['predicted_s'])}. Request n, counted from 0,"
                f" starts at floor(n / {slots}) x {wait} and is answered {wait} after that."
            )
    elif run["ceiling_rps"] is None:
        text = f"no limit from slots: every request waits {wait}, however many there are."
    else:
        busy = run["ceiling_rps"] * run["wait_s"]
        text = f"throughput is at most S / t = {busy:g} / {wait} = {run['ceiling_rps']:g} requests/s."
        if run["concurrency"] is not None and busy < (slots or math.inf):
            text += f" ({run['concurrency']} under way fill no more slots.)"
        if run["predicted_s"] is not None:
            text += f" All {n} take ceil({n} / {busy:g}) x {wait} = {seconds(run['predicted_s'])}."
        if run["rate_rps"] and run["rate_rps"] > run["ceiling_rps"]:
            text += f" {run['rate_rps']:g} a second are due: the queue grows without end."
    if run["handler"] == "blocking":
        text += " But an answer leaves only when the event loop is free: any may come as late as the last."
    return text


def render_prediction(run: dict[str, Any]) -> str:
    """What is printed before the first request is sent."""
    slots = run["why_slots"]
    if run["slots_known"]:
        each = "no limit" if run["slots_per_worker"] is None else str(run["slots_per_worker"])
        total = "no limit" if run["slots"] is None else str(run["slots"])
        slots = f"{plural(run['workers'], 'worker')} x {each} = {total}: {slots}"
    what = f"workload {run['workload']}" if run["workload"] else f"{run['method']} {run['path']}"
    parts = [f"{run['target']}  {what}", "", section("load", render_load(run))]
    if run["server"]:
        parts.append(section("server", run["server_command"]))
    return "\n".join([*parts, section("slots", slots), section("prediction", render_formula(run))])


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


def render_batches(run: dict[str, Any]) -> str:
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


def render_phases(run: dict[str, Any]) -> str:
    """ApacheBench's phases in milliseconds, then how many answers took how long."""
    phases = dict(run["phases_s"])
    if run["mode"] == "open":
        phases = {"connect": phases["connect"], "waiting": phases["waiting"], "service": phases["total"],
                  "latency": run["latency_s"]}  # fmt: skip
    names = ("min", "mean", "sd", "median", "p90", "p95", "p99", "max")
    rows = [f"{'ms':12}" + "".join(f"{name:>8}" for name in names)]
    for phase, found in phases.items():
        cells = (f"{'-':>8}" if found[name] is None else f"{found[name] * 1000:8.4g}" for name in names)
        rows.append(f"{phase:12}" + "".join(cells))
    if run["mode"] == "open":
        rows.append(f"{'':12}service: from its sending; latency: from when it was due")
    most = max(count for _, count in run["histogram"])
    if run["levels"]:
        rows += ["", f"{'stages':12}{'answers':>10}{'failed':>10}{'per s':>10}{'median ms':>12}{'p95 ms':>12}"]
    for level in run["levels"]:
        latency = level["latency_s"] or {}
        cells = (f"{'-':>12}" if latency.get(p) is None else f"{latency[p] * 1000:12.1f}" for p in ("median", "p95"))
        counts = f"{level['answered']:10}{level['failed']:10}{level['throughput_rps']:10.1f}"
        rows.append(f"to {level['users']:<9}{counts}{''.join(cells)}")
    rows.append("")
    for bound_s, count in run["histogram"]:
        rows.append(
            f"{'':4}to {bound_s * 1000:>7g} ms{count:>9}  |{'#' * math.ceil(count / most * 50) if count else ''}"
        )
    return "\n".join(rows)


def difference(measured_s: float, predicted_s: float) -> str:
    return f"{(measured_s / predicted_s - 1) * 100:+.1f} %"


def render_verdict(run: dict[str, Any]) -> str:
    measured_s, predicted_s, split_s = run["measured_s"], run["predicted_s"], run["split_predicted_s"]
    warned = {warning["id"] for warning in run["warnings"]}
    verdict = f"{plural(run['answered'], 'answer')} in {measured_s:.2f} s"
    if predicted_s is not None:
        verdict = (
            f"predicted {predicted_s:.2f} s, measured {measured_s:.2f} s ({difference(measured_s, predicted_s)}): "
        )
        if run["failed"]:
            verdict += "some requests failed, see below"
        elif "uneven-split" in warned:
            verdict += (
                f"the split explains it. The workers took {shares(run)}; given that, the slowest needs"
                f" {split_s:.2f} s ({difference(measured_s, split_s)})"
            )
        else:
            verdict += "not explained, see below" if "unexplained" in warned else "as predicted"
    elif run["ceiling_rps"]:
        verdict += f"; throughput is {run['throughput_rps'] / run['ceiling_rps']:.0%} of its ceiling S / t"
    elif run["mode"] == "burst" and run["wait_s"] != 0:
        found = batches(run)
        if run["slots_seen"]:
            verdict += "; one worker had " + SLOTS_MEAN.get(run["slots_seen"], f"{run['slots_seen']} at a time")
        elif len(found) == 1:
            verdict += "; they came all at once: no limit was met"
        elif size := size_of_rounds(found):
            verdict += "; they came " + SLOTS_MEAN.get(size, f"{size} at a time")
    return verdict


def render_result(run: dict[str, Any], lines: Sequence[LogLine]) -> str:
    """What is printed after the last answer."""
    parts = []
    if run["mode"] == "burst":
        if lines:
            parts += [section("access log", f"{run['access_log']}  (stamped when the handler starts)"),
                      render_log(lines, run["wait_s"] or 0.1), ""]  # fmt: skip
        elif run["server"]:
            cannot = "say when a handler started, which worker took it, or when the last worker was ready"
            parts += [
                section("access log", f"none: without apps/access_log.py beside bench.py nobody can {cannot}"),
                "",
            ]
        parts += [render_batches(run), ""]
    if run["answered"] and (run["mode"] != "burst" or not run["predicted_s"]):
        parts += [render_phases(run), ""]
    if run["requests_of_workers"]:
        took = ", ".join(f"{worker} {count}" for worker, count in run["requests_of_workers"].items())
        seen = f" (at most {run['slots_seen']} at a time in one worker)" if run["slots_seen"] else ""
        parts.append(section("workers", f"{took}{seen}"))
    counts = f"{run['sent']} sent = {run['answered']} answered + {run['failed']} failed"
    if run["log_lines"] is not None:
        counts += f"; {run['log_lines']} log lines"
    if run["finished_after_limit"]:
        counts += f"; {run['finished_after_limit']} of the answers came after the time limit"
    parts.append(section("counts", counts))
    database = run.get("database", {})
    if "error" in database:
        parts.append(section("database", database["error"]))
    elif database:
        text = f"{database['rows']} rows = {SEEDED_BOOKS} seeded + {database['rows'] - SEEDED_BOOKS} created"
        parts.append(
            section("database", f"{text}; {database['statements']} SQL statements; Postgres {database['version']}")
        )
    if run["mode"] != "burst":
        parts += render_audit(run)
    parts.append(section("verdict", render_verdict(run)))
    for warning in run["warnings"]:
        parts.append(section("warning", f"{warning['symptom']}. Likely: {warning['cause']}. Next: {warning['next']}."))
    return "\n".join(parts)


def render_audit(run: dict[str, Any]) -> list[str]:
    """The figures by which a reader can check the throughput: Little's law, sockets, CPU."""
    rps, latency_s = run["throughput_rps"], (run["phases_s"]["total"] or {}).get("mean", 0.0)
    expected, cpu = sockets_expected(run), f"client {run['client_cpu_s'] / run['measured_s']:.0%} of a CPU"
    if run["server_cpu_s"] is not None:
        cpu += f", server {run['server_cpu_s'] / run['measured_s']:.0%}"
    little = f"{rps:.1f}/s x {latency_s * 1000:.4g} ms = {rps * latency_s:.1f} under way on average"
    if run["mode"] == "closed":
        little += f" ({run['concurrency']} asked for)"
    if run["mode"] == "closed":
        loop = "closed: a stall of the server stops the sending too, so that few requests meet it"
    elif run["mode"] == "open":
        loop = "open: requests are sent when due, so that a stall of the server shows in full"
    else:
        loop = "ramp: a closed loop whose number of users changes"
    return [
        section("throughput", f"{rps:.1f} answers/s (2xx only), {run['body_bytes']} body bytes"),
        section("Little", little),
        section("sockets", f"{run['sockets_opened']} used" + (f" (expected {expected})" if expected else "")),
        section("CPU", cpu),
        section("loop", loop),
    ]


def render_comparison(runs: Sequence[dict[str, Any]]) -> str:
    """One line a run, for everything that was asked for in one command."""
    rows = [f"{'target':31}{'path':16}{'slots':>8} predicted{'measured':>9}{'per s':>7}"]

    def time_of(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f} s"

    for run in runs:
        slots = "no limit" if run["slots"] is None else str(run["slots"])
        predicted = run["predicted_s"] if run["split_predicted_s"] is None else run["split_predicted_s"]
        failed = f"  {run['failed']} failed" if run["failed"] else ""
        rows.append(
            f"{run['target'][:30]:31}{run['path'][:15]:16}{slots if run['slots_known'] else '?':>8}"
            f"{time_of(predicted):>10}{time_of(run['measured_s']):>9}{run['throughput_rps']:7.0f}{failed}"
        )
    if any(run["split_predicted_s"] is not None for run in runs):
        rows.append("predicted: given how the connections were split over the workers")
    return "\n".join(rows)


def render_targets() -> str:
    """What --list prints: each target's command line, and the slots that it gives each path."""
    rows = []
    for name, target in TARGETS.items():
        plans = make_plans(parse_arguments(["--target", name]))
        command = textwrap.wrap(shlex.join(plans[0].command("PORT", "APP")), 75, break_on_hyphens=False)
        rows += [f"{name}  ({plural(target.workers, 'worker')})", *(f"    {line}" for line in command)]
        for plan in plans:
            slots = finite((plan.slots_per_worker or 0) * plan.workers)
            total = "no limit" if slots is None else plural(slots, "slot")
            rows.append(f"    {plan.path:16}{total:11}{plan.why_slots}")
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


def pattern(regex: str, meaning: str, convert: Callable[[str], Any] = str) -> Callable[[str], Any]:
    """An argparse type: a text of one form. What goes into a request must not be able to smuggle a second one."""

    def check(text: str) -> Any:
        if not re.fullmatch(regex, text):
            raise argparse.ArgumentTypeError(f"{text!r} is not {meaning}")
        return convert(text)

    return check


def stages(text: str) -> tuple[tuple[float, int], ...]:
    return tuple((float(stage_s), int(users)) for stage_s, users in re.findall(r"([\d.]+)s:(\d+)", text))


def cpu_set(text: str) -> set[int]:
    return {int(cpu) for cpu in text.split(",")}


TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
PATH = r"/[!-~]*"


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="bench.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument_group("what to send to").add_argument
    add("--target", action="append", default=[], metavar="NAME", help="what to start; several times, or `all`")
    add("--list", action="store_true", help="show the targets with their slots and command lines")
    add("--app", type=pattern(r"[\w.]+:[\w.]+", "module:attribute"), help="your own app, as module:attribute")
    add("--server", choices=SERVERS, help="what serves --app")
    add("--url", type=pattern(r"\S*", "a URL without white space"), help="a server that runs already, http only")
    add("--path", action="append", default=[], type=pattern(PATH, "a path: / and no white space"), help="several times")
    add("--workers", type=number(int, 1, 256), metavar="N", help="server processes")
    add("--threads", type=number(int, 1, 1000), metavar="N", help="threads of each process")
    add("--server-args", default="", metavar="ARGS", help="more options for the server's command line")
    add("--task-time", type=number(float, 0.001, 3600), metavar="S", help="what a request waits (1)")
    add("--subtasks", type=number(int, 1, 1000), default=2, metavar="N", help="parts of a -multi request's task (2)")
    add("--pool-size", type=number(int, 1, 1000), metavar="N", help="database connections of each process")
    add("--database-url", help="a real Postgres (default: DATABASE_URL, or an embedded one)")
    cpus = pattern(r"\d+(,\d+)*", "CPU numbers, as in 0,1", cpu_set)
    add("--server-cpus", type=cpus, default=set(), metavar="0,1", help="pin the server (Linux)")
    add = parser.add_argument_group("how to send").add_argument
    add("-n", "--requests", type=number(int, 1, 100_000_000), metavar="N", help="requests in all (burst: 16)")
    add("-c", "--concurrency", type=number(int, 1, 100_000), metavar="N", help="closed loop: this many under way")
    add("--rate", type=number(float, 0.001, 1e6), metavar="R", help="open loop: requests a second")
    add("--ramp", type=pattern(r"[\d.]+s:\d+(,[\d.]+s:\d+)*", "stages like 15s:50,20s:200", stages),
        help="stages of virtual users, as 15s:50,20s:200", default=())  # fmt: skip
    add("--workload", choices=WORKLOADS, help="requests of the Books API that vary, with their ramp, kept connections")
    add(
        "--scale", type=number(float, 0.001, 100), default=1.0, metavar="X", help="make the workload's stages X as long"
    )
    add("-t", "--time-limit", type=number(float, 0.01, 86400), metavar="S", help="stop sending then (10, without -n)")
    add("--warmup", type=number(int, 0, 1_000_000), default=0, metavar="N", help="requests to send before, uncounted")
    add("-k", "--keep-alive", action="store_true", help="keep connections for the next request")
    add("-m", "--method", type=pattern(TOKEN, "an HTTP method"), help="GET, or POST if there is a body")
    add("-H", "--header", action="append", default=[], metavar="'NAME: VALUE'", help="several times",
        type=pattern(TOKEN + r":[ \t]*[\t\x20-\x7e\xa0-\xff]*", "one header line, 'Name: value'"))  # fmt: skip
    add("-p", "--body-file", type=Path, metavar="FILE", help="the body to send")
    add("--data", help="the body to send, as text")
    add("-s", "--timeout", type=number(float, 0.001, 86400), metavar="S", help="(default: from the prediction, or 30)")
    add("--client-cpus", type=cpus, default=set(), metavar="0,1", help="pin the client (Linux)")
    add("--json", metavar="FILE", help="write everything, raw times included; - for standard output")
    add("--logs", type=Path, default=HERE / "logs", metavar="DIR", help="where runs leave their logs (logs/)")
    return check_arguments(parser.parse_args(argv))


def check_arguments(options: argparse.Namespace) -> argparse.Namespace:
    """What argparse cannot say: which options go together. Fills in the defaults that depend on others."""
    if sum(map(bool, (options.target, options.app, options.url))) > 1:
        raise Problem("--target, --app and --url exclude each other")
    if options.app and not options.server:
        raise Problem(f"--app needs --server, one of: {', '.join(SERVERS)}")
    if options.server and not options.app:
        raise Problem("--server goes with --app; a target has its own")
    if sum(map(bool, (options.concurrency, options.rate, options.ramp))) > 1:
        raise Problem("-c, --rate and --ramp exclude each other")
    if options.ramp and min(stage_s for stage_s, _ in options.ramp) <= 0:
        raise Problem("--ramp: a stage must take some time")
    for header in options.header:
        if header.partition(":")[0].lower() in ("content-length", "transfer-encoding", "connection"):
            raise Problem(f"-H {header!r}: bench.py sets this one itself (-k keeps connections)")
    if options.body_file and options.data is not None:
        raise Problem("-p and --data exclude each other")
    try:
        options.body = options.body_file.read_bytes() if options.body_file else (options.data or "").encode()
    except OSError as error:
        raise Problem(f"cannot read {options.body_file}: {error.strerror}") from None
    if options.workload:
        if not options.target or options.path or options.data is not None or options.body_file or options.method:
            raise Problem("--workload goes with a --target, and without --path, -m, -p and --data")
        options.keep_alive = True
        if not (options.requests or options.concurrency or options.rate or options.ramp):
            stages = WORKLOADS[options.workload].stages
            options.ramp = tuple((stage_s * options.scale, users) for stage_s, users in stages)
    options.method = options.method or ("POST" if options.body else "GET")
    options.task_time_given = options.task_time is not None
    options.task_time = options.task_time or 1.0
    if options.ramp:
        ramp_s = sum(stage_s for stage_s, _ in options.ramp)
        options.time_limit = min(ramp_s, options.time_limit or math.inf)
    elif not options.requests and (options.concurrency or options.rate):
        options.time_limit = options.time_limit or 10.0
    return options


def make_plans(options: argparse.Namespace) -> list[Plan]:
    """One plan for each target and path, or a Problem that says which name or number is wrong."""
    pace = Pace(
        requests=options.requests or (math.inf if options.time_limit else 16),
        concurrency=options.concurrency or math.inf,
        rate=options.rate,
        stages=options.ramp,
        time_limit_s=options.time_limit or math.inf,
    )
    if pace.mode == "burst" and pace.requests == math.inf:
        raise Problem("-t needs -n, -c, --rate or --ramp: a burst without a number never ends")
    common = Plan(
        target="", path="/", pace=pace, method=options.method, headers=tuple(options.header), body=options.body,
        keep_alive=options.keep_alive, server_args=options.server_args,
        task_time_s=options.task_time, subtasks=options.subtasks,
        wait_s=options.task_time if options.task_time_given else None,
    )  # fmt: skip
    if options.url:
        plans = [plan_url(options.url, common)]
    elif options.app:
        own = dataclasses.replace(common, target=options.app, app=options.app)
        plans = [plan_server(options.server, 1, options, dataclasses.replace(own, path=path))
                 for path in options.path or ["/"]]  # fmt: skip
    else:
        plans = plan_targets(options, common)
    return [dataclasses.replace(plan, timeout_s=options.timeout or default_timeout_s(plan)) for plan in plans]


def default_timeout_s(plan: Plan) -> float:
    """Twice the time in which one worker alone would serve all that can be under way, and 10 s; 30 s if not known."""
    slots, waiting = plan.slots_per_worker, plan.pace.most_under_way
    if slots is None or not plan.wait_s or waiting == math.inf:
        return 30.0
    return max(30.0, 10 + 2 * rounds(int(waiting), slots) * plan.wait_s)


def plan_url(url: str, common: Plan) -> Plan:
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise Problem(f"--url {url!r}: {error}") from None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme == "https":
        raise Problem("https:// is not supported: measure the http port behind the TLS, or TLS is what you measure")
    if parts.scheme != "http" or not parts.hostname or parts.username is not None:
        raise Problem(f"--url {url!r} is not of the form http://host:port/path")
    if not re.fullmatch(PATH, path) or not re.fullmatch(r"[0-9A-Za-z.:_-]+", parts.hostname):
        raise Problem(f"--url {url!r}: only printable ASCII, other characters percent-encoded")
    return dataclasses.replace(common, target=url, path=path, url_host=parts.hostname, url_port=port)


def plan_server(server: str, workers: int, options: argparse.Namespace, plan: Plan) -> Plan:
    """The plan with its server, and with --workers and --threads where that server takes them."""
    settings = {"workers": workers, "threads": SERVERS[server].threads}
    for setting in settings:
        if given := getattr(options, setting):
            if f"{{{setting}}}" in SERVERS[server].command:
                settings[setting] = given
            elif "all" not in options.target:
                raise Problem(f"{plan.target} has no --{setting}: its server takes no such setting")
    return dataclasses.replace(plan, server=server, workers=settings["workers"], threads=settings["threads"])


def plan_targets(options: argparse.Namespace, common: Plan) -> list[Plan]:
    plans = []
    for name in TARGETS if "all" in options.target else options.target:
        if name not in TARGETS:
            raise Problem(f"unknown target {name!r}; the targets are: all, {', '.join(TARGETS)}")
        target = TARGETS[name]
        if options.pool_size and not target.pool and "all" not in options.target:
            raise Problem(f"{name} has no --pool-size: it uses no database")
        if options.workload:
            if not target.pool:
                raise Problem(f"{name} has no workloads: they are of the Books API (flask-books, fastapi-books)")
            paths = [WORKLOADS[options.workload].kinds[0].path.replace("{id}", "1")]
        else:
            paths = options.path or [route.path for route in target.routes]
        for path in paths:
            of_any_book = re.sub(r"/\d+$", "/1", path.partition("?")[0])
            route = next((route for route in target.routes if route.path == of_any_book), None)
            if route:
                plan = dataclasses.replace(
                    common, target=name, app=route.app, path=path, handler=route.handler,
                    wait_s=wait_of(route, path, options), workload=options.workload,
                    pool=target.pool and (options.pool_size or target.pool),
                )  # fmt: skip
                plans.append(plan_server(target.server, target.workers, options, plan))
            elif "all" not in options.target:
                known = ", ".join(route.path for route in target.routes)
                raise Problem(f"{name} has no path {path!r}; it has: {known}")
    if not plans:
        raise Problem(f"no target has the path {options.path[0]!r}; see --list")
    return plans


def wait_of(route: Route, path: str, options: argparse.Namespace) -> float | None:
    """What a request to this route waits, in seconds; None: not known beforehand."""
    if route.waits == "ms":
        ms = re.search(r"[?&]ms=(\d+)", path)
        return int(ms[1]) / 1000 if ms else 0.05
    share = {"task": 1, "subtask": 1 / options.subtasks, "nothing": 0}.get(route.waits)
    return None if share is None else share * options.task_time


def packages_of(plan: Plan) -> list[str]:
    framework = {"fas": "fastapi ", "fla": "flask asgiref "}.get(plan.app[:3], "")
    database = " psycopg psycopg-pool" if plan.pool else ""
    return (framework + SERVERS[plan.server].packages + database).split() if plan.server else []


def check_packages(plans: Sequence[Plan]) -> None:
    wanted = dict.fromkeys(package for plan in plans for package in packages_of(plan))
    missing = [package for package in wanted if importlib.util.find_spec(package.replace("-", "_")) is None]
    if missing:
        raise Problem(
            f"missing {plural(len(missing), 'package')}: {', '.join(missing)};"
            f" install with: {sys.executable} -m pip install -r requirements-all.txt"
        )


def check_file_limit(sockets: float) -> None:
    """Raise the soft limit of open files as far as it is needed; Problem if that is not allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = int(sockets) + 64 if sockets < math.inf else soft
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
    for package in dict.fromkeys(package for plan in plans for package in packages_of(plan)):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def message_for(plan: Plan, port: int, method: str, path: str, body: bytes) -> tuple[bytes, bytes]:
    """A request up to where its number belongs, and the rest."""
    host = f"[{plan.url_host}]" if ":" in plan.url_host else plan.url_host
    names = [header.partition(":")[0].lower() for header in plan.headers]
    lines = [f"{method} {path} HTTP/1.1", *plan.headers]
    lines += [f"Host: {host}:{port}"] if "host" not in names else []
    lines += [] if plan.keep_alive else ["Connection: close"]
    lines += [f"Content-Length: {len(body)}"] if body or method in ("POST", "PUT", "PATCH") else []
    return "\r\n".join([*lines, ""]).encode("latin-1"), b"\r\n" + body


def messages_for(plan: Plan, port: int, numbered: bool) -> Iterator[bytes]:
    """The bytes of the requests, in order; numbered ones carry what the access log is matched by."""
    if plan.workload:
        return workload_messages(plan, WORKLOADS[plan.workload].kinds, port, numbered)
    head, tail = message_for(plan, port, plan.method, plan.path, plan.body)
    if not numbered:
        return itertools.repeat(head + tail)
    return (b"%bX-Request-Id: %d\r\n%b" % (head, index, tail) for index in itertools.count())


def workload_messages(plan: Plan, kinds: Sequence[Kind], port: int, numbered: bool) -> Iterator[bytes]:
    """A workload's requests: the same ones in every run, since the dice have a fixed seed; unnumbered ones differ."""
    dice = random.Random(f"{plan.workload} {numbered}")
    for index in itertools.count():
        (kind,) = dice.choices(kinds, [kind.share for kind in kinds])
        path = kind.path.replace("{id}", str(dice.randint(1, SEEDED_BOOKS)))
        body = kind.body.replace("{n}", f"{index}" if numbered else f"warm-up-{index}")
        head, tail = message_for(plan, port, kind.method, path, body.encode())
        yield b"%bX-Request-Id: %d\r\n%b" % (head, index, tail) if numbered else head + tail


def resolve(host: str, port: int) -> tuple[Any, ...]:
    """A host's address, IPv4 first: that is where servers on `localhost` listen."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Problem(f"cannot resolve {host!r}: {error.strerror}") from None
    return min(found, key=lambda info: info[0] != socket.AF_INET)[4]


def show_progress(load: Load) -> None:
    elapsed_s = perf_counter() - load.begun_s
    print(f"\r{elapsed_s:6.1f} s  {load.sent} sent, {load.in_flight} under way ", end="", file=sys.stderr, flush=True)


def wait_for_log(path: Path, expected: int) -> str:
    """Read the access log; a handler may write its line a moment after its client has the answer."""
    deadline = perf_counter() + 1.0
    while True:
        text = path.read_text(errors="replace")
        if len(parse_access_log(text)) >= expected or perf_counter() > deadline:
            return text
        time.sleep(0.02)


def execute(plan: Plan, options: argparse.Namespace) -> tuple[dict[str, Any], list[LogLine]]:
    """Start the server if it is ours, send, stop the server; the run's record and its access log."""
    run: dict[str, Any] = {"when": datetime.now().isoformat(" ", "seconds"), "access_log": None} | describe(plan)
    if not plan.server:
        measured = measure(plan, resolve(plan.url_host, plan.url_port), options, None)
    else:
        access_log, output = new_log_files(options.logs, f"{plan.target}{plan.path}", datetime.now())
        wrapped = (APPS / "access_log.py").exists()
        run |= {"access_log": shown(access_log) if wrapped else None, "server_log": shown(output)}
        url = ""
        if plan.pool:
            if "error" in (answer := options.database.ask("reset")):  # every run starts from the same rows
                raise Problem(f"the database: {answer['error']}")
            url = options.database.about["database_url"]
        server = start_server(plan, access_log if wrapped else None, output, options.server_cpus, url)
        try:
            measured = measure(plan, ("127.0.0.1", server.port), options, server)
        finally:
            stop_server(server)
        if plan.pool:  # only now, when the app has given back its connections, are the counters exact
            run["database"] = options.database.ask("stats") | {"version": options.database.about["version"]}
    run = summarise(run, measured)
    if plan.pace.mode == "burst" or options.json:
        run["exchanges"] = columns_for_json(measured)
    return run, parse_access_log(measured.log or "")


def measure(
    plan: Plan, address: tuple[Any, ...], options: argparse.Namespace, server: RunningServer | None
) -> Measured:
    """Send the warm-up, then the load, and read every counter just before and after the load."""
    numbered = bool(server and server.access_log)
    progress = show_progress if sys.stderr.isatty() else None
    warm_up = None
    if options.warmup:
        pace = Pace(options.warmup, min(plan.pace.most_under_way, options.warmup))
        messages = messages_for(plan, address[1], False)
        warm_up = asyncio.run(Load(address, messages, pace, plan.timeout_s, plan.keep_alive).run())
    load = Load(address, messages_for(plan, address[1], numbered), plan.pace, plan.timeout_s, plan.keep_alive, progress)
    kernel = kernel_counters()
    server_cpu_s = group_cpu_s(server.guard.pid) if server else None
    exchanges = asyncio.run(load.run())
    if progress:
        print("\r\033[K", end="", file=sys.stderr)
    kernel = {name: count - kernel.get(name, 0) for name, count in kernel_counters().items()}
    if server and server_cpu_s is not None:
        server_cpu_s = round((group_cpu_s(server.guard.pid) or 0.0) - server_cpu_s, 2)
    log = None
    if server and server.access_log:
        log = wait_for_log(server.access_log, sum(1 for status in exchanges.status if status))
    return Measured(exchanges, load.begun_s, load.cpu_s, load.sockets_opened, server_cpu_s, kernel, warm_up, log)


def shown(path: Path) -> str:
    """A path as the user would type it."""
    with contextlib.suppress(ValueError):
        return str(path.resolve().relative_to(Path.cwd()))
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
        if not (options.target or options.app or options.url):
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
    for plan in plans:
        resolve(plan.url_host, plan.url_port)
    check_file_limit(max(plan.pace.most_under_way for plan in plans))
    if options.json not in (None, "-"):
        check_writable(Path(options.json))
    if options.client_cpus:
        pin(0, options.client_cpus)
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
    with database_for(plans, options):
        for plan in plans:
            show("\n" + render_prediction(describe(plan)) + "\n")
            run, lines = execute(plan, options)
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
