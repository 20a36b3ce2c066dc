#!/usr/bin/env python3
"""serve.py - the servers: start one, know when it is ready, read its log, stop it whatever happens.

    python serve.py flask-gunicorn --workers 8        a target, in the foreground
    python serve.py fastapi-uvicorn --path /io --task-time 0.2
    python serve.py --app main:app --server uvicorn   your own app, from its folder
    python serve.py --list                            the targets, slots, command lines

It prints the URL once every worker is ready, then the access log as it grows,
until Ctrl-C: for whoever wants to point wrk or a browser at a server.

How it works: the server listens on a free port of 127.0.0.1, in a process group
of its own, under a guard whose lifeline is a pipe: however this process ends,
kill -9 included, the kernel closes the pipe and the guard ends the group; if the
guard itself is killed, this process does. The app is wrapped by
apps/access_log.py, which stamps the *start* of each handler and says `ready` for
each worker. Exit code: 0 stopped, 1 the server ended by itself, 2 wrong usage or
a missing package, 3 the server did not start.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib.metadata
import importlib.util
import itertools
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import IO, Any, NamedTuple, TypedDict

from slots import ANYIO_THREADS, HANDLERS, NO_LIMIT, Parser, Problem, number, plural

HERE = Path(__file__).resolve().parent
APPS = HERE / "apps"
WRAPPER = "_bench_access_log"  # apps/access_log.py by a name that nobody's own module has
START_TIMEOUT_S = 30.0
STOP_GRACE_S = 1.5  # what a server gets between SIGTERM and SIGKILL

# ---------------------------------------------------------------- servers and targets

THREADS = -1  # as many slots as threads
CONNECTIONS = -2  # as many as worker_connections
BY_HANDLER = -3  # ASGI: the kind of handler decides


class Server(NamedTuple):
    """A kind of server: how to start it, and how many requests one process of it works on at a time.

    command is run as `python -m ...`; {port} is filled in, then options for what is set, the user's own, the app.
    """

    command: str
    options: dict[str, str]  # setting (workers, threads) -> its option
    wrapper: str  # the name in apps/access_log.py that this server takes
    packages: str  # distributions, as pip names them
    slots: float
    why: str  # why it has that many slots, for the reader of the report
    threads: int = 1  # if nobody sets them
    shared_queue: bool = False  # its processes accept only when idle, so that all requests wait in one queue
    open_connections: int = 0  # that it serves at a time, kept ones too; 0: more than anybody opens


ONE_BY_ONE = "--without-threads"  # an option of Flask's development server
GUNICORN = "gunicorn --bind 127.0.0.1:{port}"
WORKERS = {"workers": "--workers"}
SERVERS = {
    "flask-dev": Server(
        "flask --app {app} run --host 127.0.0.1 --port {port}", {},
        "flask_app", "flask", NO_LIMIT, "the development server starts a thread for each request",
    ),
    "waitress": Server(
        "waitress --listen 127.0.0.1:{port}", {"threads": "--threads"},
        "wsgi", "waitress", THREADS, "one process with {threads} threads", 4, open_connections=100,
    ),
    "gunicorn": Server(
        GUNICORN, WORKERS, "wsgi", "gunicorn", 1, "a sync worker holds one request until it is answered",
        shared_queue=True,
    ),
    "gunicorn-threads": Server(
        GUNICORN, WORKERS | {"threads": "--threads"},
        "wsgi", "gunicorn", THREADS, "a worker holds one request in each of its {threads} threads", 4,
    ),
    "gunicorn-gevent": Server(
        GUNICORN + " --worker-class gevent", WORKERS,
        "wsgi", "gunicorn gevent", CONNECTIONS, "a greenlet for each of {connections} worker connections",
    ),
    "gunicorn-uvicorn": Server(
        GUNICORN + " --worker-class uvicorn_worker.UvicornWorker", WORKERS,
        "asgi", "gunicorn uvicorn-worker uvicorn", BY_HANDLER, "",
    ),
    "gunicorn-asgi": Server(GUNICORN + " --worker-class asgi", WORKERS, "asgi", "gunicorn", BY_HANDLER, ""),
    "uvicorn": Server("uvicorn --host 127.0.0.1 --port {port}", WORKERS, "asgi", "uvicorn", BY_HANDLER, ""),
    "hypercorn": Server("hypercorn --bind 127.0.0.1:{port}", WORKERS, "asgi", "hypercorn", BY_HANDLER, ""),
    "granian": Server(
        "granian --interface asgi --host 127.0.0.1 --port {port}", WORKERS, "asgi", "granian", BY_HANDLER, "",
    ),
}  # fmt: skip
GUNICORN_CLASSES = {  # the last part of gunicorn's worker_class, as it is in force -> the row above
    "sync": "gunicorn", "gthread": "gunicorn-threads", "gevent": "gunicorn-gevent", "asgi": "gunicorn-asgi",
    "SyncWorker": "gunicorn", "ThreadWorker": "gunicorn-threads", "GeventWorker": "gunicorn-gevent",
    "ASGIWorker": "gunicorn-asgi", "UvicornWorker": "gunicorn-uvicorn", "UvicornH11Worker": "gunicorn-uvicorn",
}  # fmt: skip
NOT_FOR_US = {  # options of --server-args that would take the server out of our hands
    "--port": "the server gets a free port", "--host": "the server listens on 127.0.0.1",
    "--uds": "the server gets a free port", "--fd": "the server gets a free port",
    "--factory": "write --app module:create_app() instead", "--daemon": "the server must end with the run",
}  # fmt: skip


class Route(NamedTuple):
    path: str
    app: str  # module:attribute in apps/
    handler: str  # a key of HANDLERS
    waits: str = "task"  # how long: the task time, a subtask's share of it, `?ms=`, nothing, or ? (not known)
    draws: bool = False  # takes --cpu-time, and draws its wait as --task-time says


class Target(NamedTuple):
    server: str
    routes: tuple[Route, ...]
    workers: int
    pool: int = 0  # database connections of each process; 0: it uses no database


HANDLERS = HANDLERS | {  # what depends on the machine, and on an app's own pool
    "async in asyncio's threads": (
        min(32, (getattr(os, "process_cpu_count", os.cpu_count)() or 1) + 4),  # Python 3.13 has the former
        "asyncio.to_thread has a thread pool of its own, of min(32, CPUs + 4)",
    ),
    "async in AnyIO's threads": (ANYIO_THREADS, "run_in_threadpool takes one of AnyIO's 40 threads"),
    "def in a thread of its own": (NO_LIMIT, "Django gives each request to a synchronous view a thread of its own"),
    "def with a connection": (15, "SQLAlchemy's pool has 5 + 10 connections, fewer than AnyIO has threads"),
}
THREADS_OF_OTHERS = {  # what runs a `def` of an ASGI framework that does not use AnyIO's threads
    "django": "def in a thread of its own",  # asgiref's ThreadSensitiveContext, one for each request
    "quart": "async in asyncio's threads",
}
ENTER = {  # how many can be in such a handler at a time, where what limits them is inside it
    "async in asyncio's threads": NO_LIMIT,
    "async in AnyIO's threads": NO_LIMIT,
    "def with a connection": ANYIO_THREADS,
}
FLASK_SYNC = Route("/io", "flask_sync:app", "def", draws=True)
FLASK = (
    FLASK_SYNC,
    Route("/async-io", "flask_async:app", "async"),
    Route("/async-io-multi", "flask_async:app", "async", "subtask"),
)
FASTAPI = (
    Route("/io", "fastapi_sync:app", "def", draws=True),
    Route("/async-io", "fastapi_async:app", "async", draws=True),
    Route("/async-io-multi", "fastapi_async:app", "async", "subtask"),
)
FASTAPI_TYPED = (Route("/io", "fastapi_typed:app", "def with a response model"),)
FLASK_BOOKS = (Route("/v1/sleep", "flask_books:app", "def", "ms"), Route("/v1/books/1", "flask_books:app", "def", "?"))
FASTAPI_BOOKS = (
    Route("/v1/sleep", "fastapi_books:app", "async", "ms"),
    Route("/v1/books/1", "fastapi_books:app", "async", "?"),
)
LIMITS_HANDLERS = (
    Route("/async", "limits_handlers:app", "async"),
    Route("/def", "limits_handlers:app", "def"),
    Route("/executor", "limits_handlers:app", "async in asyncio's threads"),
    Route("/threadpool", "limits_handlers:app", "async in AnyIO's threads"),
    Route("/blocking", "limits_handlers:app", "blocking"),
)
LIMITS_POOLS = tuple(
    Route(path, "limits_pools:app", "def with a connection") for path in ("/depends", "/untyped", "/with")
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
    "fastapi-typed": Target("uvicorn", FASTAPI_TYPED, 1),
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
    "limits-handlers": Target("uvicorn", LIMITS_HANDLERS, 1),
    "limits-pools": Target("uvicorn", LIMITS_POOLS, 1),
}


# ---------------------------------------------------------------- what to start


@dataclass(frozen=True)
class Launch:
    """One server to start, with one app: a target's, or anybody's."""

    name: str  # to show, and to call the logs by
    server: str  # a key of SERVERS: how it serves
    app: str  # module:attribute
    is_target: bool = True  # the app is one of apps/, and runs there; else it is the user's, in the present folder
    handler: str | None = None  # a key of HANDLERS; None: not known
    handlers: tuple[str, ...] = ()  # those that it may be, if something is known of it
    passes: tuple[float, ...] = ()  # of a request through the slots, as the app says; (): as the handler has them
    anyio_threads: int = ANYIO_THREADS  # AnyIO's limit, as it stands in the app's process
    imported: tuple[str, ...] | None = None  # distributions that bring a limit, of those that the app has imported
    holds_while_queueing: bool = False  # a request keeps what a dependency opened while it waits for a second thread
    workers: int = 1
    threads: int = 1
    connections: int = 1000  # gunicorn: worker_connections
    settings: tuple[tuple[str, int], ...] = ()  # what goes into the command line: workers and threads that are set
    server_args: tuple[str, ...] = ()  # more options of the user's
    wrap: bool = True  # write an access log; the hello targets do without, since it costs more than they do
    env: tuple[tuple[str, str], ...] = ()  # what our own apps read
    pool: int = 0  # database connections of each process; 0: it uses no database
    notes: tuple[str, ...] = ()  # what overrules what, for the report
    started_as: str = ""  # a key of SERVERS: whose command line, if the user's settings then make it another

    @property
    def slots_per_worker(self) -> float | None:
        """min(server, handler, database pool) of one process; None: not known."""
        if self.server_slots is None:
            return None
        inside = HANDLERS[self.handler][0] if self.handler in ENTER else NO_LIMIT
        return min(self.server_slots, self.pool or NO_LIMIT, inside)

    @property
    def server_slots(self) -> float | None:
        """How many requests can be in the handlers of one process: min(server, handler)."""
        if self.server == "flask-dev" and ONE_BY_ONE in self.server_args:
            return 1
        slots = SERVERS[self.server].slots
        if slots == BY_HANDLER:
            if not self.handler:
                return None
            slots = ENTER.get(self.handler, HANDLERS[self.handler][0])
            slots = self.anyio_threads if slots == ANYIO_THREADS else slots
        by_setting = {THREADS: min(self.threads, self.connections), CONNECTIONS: self.connections}
        return by_setting.get(int(slots), slots) if slots < 0 else slots

    @property
    def shared_queue(self) -> bool:
        """One queue for all processes: sync workers accept only when idle, and so does gthread if it may hold no more
        connections than it has threads."""
        return SERVERS[self.server].shared_queue or (
            self.server == "gunicorn-threads" and self.connections <= self.threads
        )

    @property
    def why_slots(self) -> str:
        server = SERVERS[self.server]
        if self.pool:
            threads = f"{self.threads} threads and " if server.slots == THREADS else ""
            return f"a process has {threads}a pool of {plural(self.pool, 'database connection')}"
        if self.server == "flask-dev" and ONE_BY_ONE in self.server_args:
            return f"the development server takes one request at a time, as {ONE_BY_ONE} says"
        if server.slots != BY_HANDLER:
            return server.why.format(threads=self.threads, connections=self.connections)
        if self.handler:
            return HANDLERS[self.handler][1]
        return (
            f"{ANYIO_THREADS} if the handler is a `def`, no limit if it is an `async def` that awaits, 1 if that blocks"
        )

    def command(self, port: int | str, app: str) -> list[str]:
        """The server's command line, behind `python -m`."""
        server = SERVERS[self.started_as or self.server]
        head = [part.format(port=port, app=app) for part in server.command.split()]
        options = [text for setting, value in self.settings for text in (server.options[setting], str(value))]
        return [*head, *options, *self.server_args, *([] if "{app}" in server.command else [app])]

    @property
    def open_connections(self) -> int:
        """How many it serves at a time, kept ones too; 0: more than anybody opens."""
        stated = dict(option_values(self.server_args)).get("--connection-limit", "")
        ours = SERVERS[self.server].open_connections
        return int(stated) if ours and stated.isdigit() else ours

    @property
    def packages(self) -> list[str]:
        """Distributions that it needs, as far as we know: of a user's app only the server's."""
        known = {"fastapi": "fastapi", "flask": "flask asgiref", "limits": "fastapi sqlalchemy"}
        ours = known.get(self.app.partition("_")[0], "")
        own = f"{ours} " if self.is_target else ""
        return (own + SERVERS[self.server].packages + (" psycopg psycopg-pool" if self.pool else "")).split()


def add_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """How to start a server: the same options for serve.py and for bench.py."""
    group = parser.add_argument_group("what to start")
    add = group.add_argument
    add("--list", action="store_true", help="show the targets with their slots and command lines")
    add("--app", metavar="MODULE:APP", help="your own app; also module:create_app(), and dotted names")
    add("--factory", action="store_true", help="--app names a function that makes the app")
    add("--server", choices=SERVERS, help="what serves --app (WSGI: gunicorn, ASGI: uvicorn)")
    add("--workers", type=number(int, 1, 256), metavar="N", help="server processes")
    add("--threads", type=number(int, 1, 1000), metavar="N", help="threads of each process")
    add("--server-args", default="", metavar="ARGS", help="more options for the server's command line")
    add("--task-time", type=task_time, metavar="S", help="what a request waits: 1, 50ms, 50ms:exp, 0.2:lognormal (1)")
    add("--cpu-time", type=number(float, 0.0, 60), metavar="S", help="what a request computes besides (0)")
    add("--subtasks", type=number(int, 1, 1000), default=2, metavar="N", help="parts of a -multi request's task (2)")
    add("--pool-size", type=number(int, 1, 1000), metavar="N", help="database connections of each process")
    add("--database-url", help="a real Postgres (default: DATABASE_URL, or an embedded one)")
    add("--server-cpus", type=cpu_set, default=set(), metavar="0,1", help="pin the server (Linux)")
    add("--access-log", action="store_true", help="log the hello targets, too (it costs them throughput)")
    add("--logs", type=Path, default=HERE / "logs", metavar="DIR", help="where runs leave their logs (logs/)")
    return group


class TaskTime(float):
    """Seconds, and how they are drawn for each request."""

    distribution = "constant"


def task_time(text: str) -> TaskTime:
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)(ms|s)?(?::(constant|exp|lognormal))?", text)
    seconds = TaskTime(float(match[1]) / (1000 if match[2] == "ms" else 1)) if match else TaskTime(0)
    if not match or not 0.001 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time from 0.001 to 3600 s, like 0.2, 50ms or 50ms:exp")
    seconds.distribution = match[3] or "constant"
    return seconds


def cpu_set(text: str) -> set[int]:
    if not re.fullmatch(r"\d{1,5}(,\d{1,5})*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not CPU numbers, as in 0,1")
    return {int(cpu) for cpu in text.split(",")}


def join_values(argv: Sequence[str]) -> list[str]:
    """argparse takes `--server-args '-k gthread'` for two options; joined by = it is one."""
    joined = list(argv)
    for i in reversed(range(len(joined) - 1)):
        if joined[i] == "--server-args":
            joined[i : i + 2] = [f"--server-args={joined[i + 1]}"]
    return joined


def split_arguments(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise Problem(f"--server-args {text!r}: {error}") from None


def settings_for(
    server: str, own: dict[str, int], options: argparse.Namespace, name: str, strict: bool = True
) -> dict[str, int]:
    """workers and threads that go into the command line: as given, else our own, as far as the server has them."""
    found: dict[str, int] = {}
    for setting in ("workers", "threads"):
        given: int | None = getattr(options, setting)
        if setting in SERVERS[server].options:
            if chosen := given or own.get(setting):
                found[setting] = chosen
        elif given and strict:
            raise Problem(f"{name} has no --{setting}: its server takes no such setting")
    return found


def launch_target(name: str, route: Route, options: argparse.Namespace, strict: bool = True) -> Launch:
    """A target's server. strict: an option that this target does not have is a Problem."""
    target = TARGETS[name]
    if options.pool_size and not target.pool and strict:
        raise Problem(f"{name} has no --pool-size: it uses no database")
    drawn = options.cpu_time or (options.task_time and options.task_time.distribution != "constant")
    if drawn and not route.draws and strict:
        raise Problem(f"{name} {route.path} waits a constant time and computes nothing: --cpu-time and :exp go with /io"
                      " of Flask and FastAPI, and with /async-io of FastAPI")  # fmt: skip
    own = {"workers": target.workers, "threads": SERVERS[target.server].threads}
    settings = settings_for(target.server, own, options, name, strict)
    pool = target.pool and (options.pool_size or target.pool)
    task_time = options.task_time or TaskTime(1)
    env = {"TASK_TIME": str(float(task_time)), "SUBTASKS": str(options.subtasks)}
    env |= {"TASK_DISTRIBUTION": task_time.distribution, "CPU_TIME": str(options.cpu_time or 0.0)}
    return in_force(
        Launch(
            name, target.server, route.app, True, route.handler, settings=tuple(settings.items()),
            server_args=split_arguments(options.server_args), env=tuple(env.items()), pool=pool,
            wrap=route.waits != "nothing" or options.access_log,
        )
    )  # fmt: skip


class AppSays(TypedDict):
    """What apps/about_app.py finds out; null: not known. There is more, which nobody needs here."""

    kind: str | None  # wsgi or asgi
    framework: str | None
    factory: bool
    versions: dict[str, str]
    handler: str | None  # def or async
    response_model: bool | None
    thread_passes: list[str] | None  # before, handler, after
    yield_dependencies: int | None
    packages: list[str]
    error: str | None


def ask_app(app: str, method: str, path: str) -> AppSays:
    """Load the app in a process of its own, as a server would, and hear what it says of itself at that path.

    Raises Problem (3) with the app's own error if it does not load.
    """
    command = [sys.executable, str(APPS / "about_app.py"), app, method, path]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
        says: AppSays = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        raise Problem(f"{app} did not load within 60 s", 3) from None
    except (ValueError, IndexError):
        said = done.stderr.strip().splitlines()
        raise Problem(f"{app} does not load: {said[-1] if said else 'it ends without a word'}", 3) from None
    if says["error"]:
        raise Problem(f"{app} does not load: {says['error']}", 3)
    return says


def launch_app(options: argparse.Namespace, method: str = "GET", path: str = "/") -> Launch:
    """The user's own app: nothing of it is set, in its environment or on its command line, that was not asked for."""
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(\([^()]*\))?", options.app):
        raise Problem(f"--app {options.app!r} is not of the form module:app, module:ns.app or module:create_app()")
    app = options.app + ("()" if options.factory and not options.app.endswith(")") else "")
    says: AppSays | None = None
    try:
        says = ask_app(app, method, path)
    except Problem:
        if not options.server:
            raise  # else its server may find it elsewhere (--chdir, --app-dir), or says what is wrong
    app += "()" if says and says["factory"] and not app.endswith(")") else ""
    server = options.server or {"wsgi": "gunicorn", "asgi": "uvicorn"}.get((says and says["kind"]) or "", "")
    if server == "gunicorn" and options.threads:
        server = "gunicorn-threads"
    if not server:
        raise Problem(f"--app {app}: neither WSGI nor ASGI, as far as can be told; say --server, one of:"
                      f" {', '.join(SERVERS)}")  # fmt: skip
    settings, arguments = settings_for(server, {}, options, app), split_arguments(options.server_args)
    launch = Launch(app, server, app, False, settings=tuple(settings.items()), server_args=arguments)
    return in_force(as_it_says(launch, says) if says else launch)


def as_it_says(launch: Launch, says: AppSays) -> Launch:
    """With the kind of handler, and the passes of a request through AnyIO's threads, where the app knows them."""
    own = {"anyio"} if says["kind"] == "asgi" else set()
    imported = (
        own | {name.replace("_", "-") for name in says["packages"]} | set(SERVERS[launch.server].packages.split())
    )
    launch = dataclasses.replace(launch, imported=tuple(sorted(imported)))
    turns = says["thread_passes"] or []
    if says["handler"] == "def" and says["kind"] == "asgi" and says["framework"] in THREADS_OF_OTHERS:
        return dataclasses.replace(launch, handler=THREADS_OF_OTHERS[says["framework"]])
    if says["handler"] == "async":
        return dataclasses.replace(launch, handlers=("async", "blocking"))
    if says["handler"] != "def":
        return launch
    passes = tuple({"handler": 1.0}.get(turn, 0.0) for turn in turns)
    holds = bool(says["yield_dependencies"]) and len(turns) > 1
    return dataclasses.replace(
        launch, handler="def", passes=passes if 1.0 in passes else (), holds_while_queueing=holds
    )


# ---------------------------------------------------------------- the settings in force

ASK_GUNICORN = """
import json, os
from gunicorn.app.wsgiapp import WSGIApplication
names = ["workers", "threads", "worker_class", "worker_connections", "preload_app", "bind", "daemon"]
file = {}
class Asked(WSGIApplication):
    def load_config_from_file(self, filename):
        said = super().load_config_from_file(filename)
        file.update({name: said[name] for name in names if name in said}, name=os.path.basename(filename))
        return said
cfg = Asked().cfg
found = {name: cfg.settings[name].get() for name in names} | {"worker_class": cfg.worker_class_str, "file": file}
print(json.dumps(found, default=str))
"""


def in_force(launch: Launch) -> Launch:
    """The launch as its server will understand it: command line, environment and configuration file together."""
    known, given = dict(launch.settings), dict(option_values(launch.server_args))
    for option in given.keys() & NOT_FOR_US.keys():
        raise Problem(f"--server-args {option}: {NOT_FOR_US[option]}")
    if given.get("--lifespan") == "off":
        raise Problem("--server-args --lifespan off: it is where an ASGI app says that it is ready")
    threads = known.get("threads", SERVERS[launch.server].threads)
    launch = dataclasses.replace(launch, workers=known.get("workers", 1), threads=threads)
    if launch.server.startswith("gunicorn"):
        ours = launch.is_target and not launch.server_args and not os.environ.get("GUNICORN_CMD_ARGS")
        return launch if ours else gunicorn_in_force(launch)  # in apps/, where no configuration file is
    if launch.server == "uvicorn":
        of_environment = os.environ.get("UVICORN_WORKERS") or os.environ.get("WEB_CONCURRENCY")
        workers = given.get("--workers") or known.get("workers") or of_environment or 1
        return dataclasses.replace(launch, workers=whole(workers, "uvicorn's workers"))
    if launch.server == "waitress" and "--threads" in given:
        return dataclasses.replace(launch, threads=whole(given["--threads"], "waitress's threads"))
    if launch.server in ("hypercorn", "granian") and "--workers" in given:
        return dataclasses.replace(launch, workers=whole(given["--workers"], f"{launch.server}'s workers"))
    return launch


def option_values(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """["--a", "1", "--b=2"] -> ("--a", "1"), ("--b", "2")"""
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            yield name, value if equals else following


def whole(text: str | int, what: str) -> int:
    try:
        return max(1, int(text))
    except ValueError:
        raise Problem(f"{what}: {text!r} is not a whole number") from None


class GunicornSettings(TypedDict):
    workers: int
    threads: int
    worker_class: str
    worker_connections: int
    preload_app: bool
    bind: object
    daemon: bool
    file: dict[str, object]  # what its configuration file says of these, and the file's name


@functools.lru_cache(64)  # a sweep asks the same of many runs
def run_quietly(command: tuple[str, ...], cwd: str, _: tuple[str | None, ...]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, stdin=subprocess.DEVNULL)


def ask_gunicorn(launch: Launch) -> GunicornSettings:
    """Ask gunicorn itself: its options, its configuration file and its environment variables overrule each other."""
    command = (sys.executable, "-c", ASK_GUNICORN, *launch.command(0, launch.app)[1:])
    known = tuple(os.environ.get(name) for name in ("GUNICORN_CMD_ARGS", "WEB_CONCURRENCY"))
    done = run_quietly(command, str(APPS) if launch.is_target else os.getcwd(), known)
    try:
        found: GunicornSettings = json.loads(done.stdout.splitlines()[-1])
        return found
    except (ValueError, IndexError):
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise Problem(f"gunicorn does not take these settings: {said[-1] if said else 'no message'}") from None


def gunicorn_in_force(launch: Launch) -> Launch:
    """What it is told by all of them together; where nobody says how many threads a gunicorn-threads has, we do."""
    if importlib.util.find_spec("gunicorn") is None:
        return launch  # the missing package is reported with all others
    found = ask_gunicorn(launch)
    if launch.server == "gunicorn-threads" and found["threads"] == 1 and "threads" not in dict(launch.settings):
        launch = dataclasses.replace(launch, settings=(*launch.settings, ("threads", SERVERS[launch.server].threads)))
        found = ask_gunicorn(launch)
    if found["daemon"]:
        raise Problem("gunicorn is told to be a daemon: the server must end with the run")
    row = GUNICORN_CLASSES.get(found["worker_class"].rpartition(".")[2])
    if not row:
        raise Problem(f"gunicorn's worker class {found['worker_class']!r} is not one that we know the slots of;"
                      " --server gunicorn-... overrules a configuration file")  # fmt: skip
    notes, file_name = [], found["file"].pop("name", "")
    for name, value in found["file"].items():
        text = f"{file_name} says {name} = {value!r}"
        if name == "bind":
            text += ", overruled: it listens on a free port of 127.0.0.1"
        elif str(found[name]) != str(value):  # type: ignore[literal-required]
            text += f", overruled: {found[name]!r} is in force"  # type: ignore[literal-required]
        notes.append(text)
    return dataclasses.replace(
        launch, server=row, started_as=launch.server, workers=found["workers"], threads=found["threads"],
        connections=found["worker_connections"], notes=tuple(notes),
    )  # fmt: skip


def quiet_gunicorn() -> list[str]:
    """gunicorn 27 opens a control socket in the home folder, one for all: leave it to the user's own gunicorn."""
    spec = importlib.util.find_spec("gunicorn")
    places = spec.submodule_search_locations if spec else None
    config = Path(places[0]) / "config.py" if places else None
    with contextlib.suppress(OSError):
        if config and "--no-control-socket" in config.read_text():
            return ["--no-control-socket"]
    return []


def check_packages(launches: Sequence[Launch]) -> None:
    """Problem if a package is missing, with the command that brings it into this very Python."""
    wanted = dict.fromkeys(package for launch in launches for package in launch.packages)
    missing = [package for package in wanted if importlib.util.find_spec(package.replace("-", "_")) is None]
    if missing:
        ours = all(launch.is_target for launch in launches)
        install = "-r requirements-all.txt" if ours else " ".join(missing)
        elsewhere = "" if ours else "; or run this script with the Python that your service lives in"
        raise Problem(
            f"missing {plural(len(missing), 'package')}: {', '.join(missing)};"
            f" install with: {sys.executable} -m pip install {install}{elsewhere}"
        )


def versions_of(launches: Sequence[Launch]) -> dict[str, str]:
    versions = {}
    for package in dict.fromkeys(package for launch in launches for package in launch.packages):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def render_targets() -> str:
    """What --list prints: each target's command line, and the slots that it gives each path."""
    options = Parser()
    add_options(options)
    defaults, rows = options.parse_args([]), []
    for name, target in TARGETS.items():
        launches = [launch_target(name, route, defaults) for route in target.routes]
        command = textwrap.wrap(shlex.join(launches[0].command("PORT", "APP")), 75, break_on_hyphens=False)
        rows += [f"{name}  ({plural(target.workers, 'worker')})", *(f"    {line}" for line in command)]
        for route, launch in zip(target.routes, launches, strict=True):
            slots = (launch.slots_per_worker or 0) * launch.workers
            total = "no limit" if slots == NO_LIMIT else plural(int(slots), "slot")
            rows.append(f"    {route.path:16}{total:11}{launch.why_slots}")
    return "\n".join(rows)


# ---------------------------------------------------------------- start and stop the server


def guard(command: list[str]) -> int:
    """Run a server until stdin closes, then end its whole process group: SIGTERM, and after a grace SIGKILL.

    serve.py runs itself as this guard, in a group of its own together with the server. However the parent ends, also
    by kill -9, the kernel closes the pipe that is the guard's stdin. Never returns: the last kill ends the guard too.
    """
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # its own SIGTERM must not end it; the server's is
        signal.signal(name, lambda *_: None)  # not ignored: a handler is set back to the default by exec

    def stop_when_the_parent_is_gone() -> None:
        os.read(0, 1)
        os.killpg(0, signal.SIGTERM)
        time.sleep(STOP_GRACE_S)
        os.killpg(0, signal.SIGKILL)

    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=stop_when_the_parent_is_gone, daemon=True).start()
    code = server.wait()
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    print(f"the server {how}", flush=True)
    os.killpg(0, signal.SIGKILL)  # workers that outlived their master
    return 0


@dataclass
class RunningServer:
    guard: subprocess.Popen[bytes]  # its pid is the process group of the server
    port: int
    output: Path
    access_log: Path | None

    @property
    def ended(self) -> bool:
        """Whether it is gone, though nobody stopped it."""
        return self.guard.poll() is not None

    def ends_within(self, patience_s: float) -> bool:
        """The same a moment later: its connections break before its guard has noticed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.guard.wait(patience_s)
        return self.ended


def guarded(command: list[str], output: Path, env: dict[str, str], cwd: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a command under the guard; its output goes to a file, since a pipe that nobody reads stalls a server."""
    try:
        with output.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).resolve()), "--guard", *command],
                stdin=subprocess.PIPE, stdout=sink, stderr=sink, env=env, cwd=cwd, start_new_session=True,
            )  # fmt: skip
    except OSError as error:
        raise Problem(f"cannot start {command[0]}: {error}") from None

    def end_the_group_of_a_dead_guard() -> None:
        process.wait()
        end_group(process.pid)

    threading.Thread(target=end_the_group_of_a_dead_guard, daemon=True).start()
    return process


def end_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def new_log_files(logs: Path, name: str, when: datetime, ending: str = ".access.log") -> tuple[Path, Path]:
    """Create logs/<time>-<name>.access.log, never an existing file; and the name of the .server.log beside it."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:80]
    for suffix in itertools.chain([""], (f"-{i}" for i in itertools.count(2))):
        access_log = logs.absolute() / f"{when:%Y%m%d-%H%M%S}-{name}{suffix}{ending}"
        try:
            logs.mkdir(parents=True, exist_ok=True)
            access_log.touch(exist_ok=False)
        except FileExistsError:
            if not logs.is_dir():
                raise Problem(f"--logs {logs} is not a folder") from None
            continue
        except OSError as error:
            raise Problem(f"cannot write logs to {logs}: {error.strerror}") from None
        return access_log, access_log.with_name(access_log.name.replace(ending, ".server.log"))
    raise AssertionError("unreachable")


def start_server(
    launch: Launch, access_log: Path, output: Path, cpus: set[int], database_url: str = ""
) -> RunningServer:
    """Start it on a free port and return when every worker is ready; Problem (3) if it does not start.

    A user's app keeps its environment and its folder; ours run in apps/, with what they read in theirs.
    """
    port = free_port()
    places = [str(APPS / "wrap"), *([] if launch.is_target else [os.getcwd()]), os.environ.get("PYTHONPATH")]
    env = os.environ | {
        "BENCH_APP": launch.app,
        "BENCH_LOG": str(access_log),
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "PYTHONUNBUFFERED": "1",
    }
    if launch.server == "hypercorn":
        env["BENCH_WRAP"] = SERVERS[launch.server].wrapper
    env |= dict(launch.env)
    if launch.pool:
        env |= {"DATABASE_URL": database_url, "POOL_SIZE": str(launch.pool)}
    app = f"{WRAPPER}:{SERVERS[launch.server].wrapper if launch.wrap else 'bare'}"
    command = [sys.executable, "-m", *launch.command(port, app)]
    if launch.server.startswith("gunicorn"):
        command[3:3] = quiet_gunicorn()
    process = guarded(command, output, env, APPS if launch.is_target else None)
    server = RunningServer(process, port, output, access_log if launch.wrap else None)
    try:
        if cpus:
            pin(process.pid, cpus)
        wait_until_ready(server, access_log, launch.workers)
    except BaseException:
        stop_server(server)
        raise
    return server


def wait_until_ready(server: RunningServer, access_log: Path, workers: int) -> None:
    """A port that accepts is no sign that every worker has imported its app: each writes `ready` when it has.

    A worker that says it failed, or that died, ends the waiting: some servers would start it again and again.
    """
    deadline, ready = perf_counter() + START_TIMEOUT_S, 0
    while perf_counter() < deadline:
        ended, text = server.ended, access_log.read_text(errors="replace")  # in this order: a last word counts
        if failed := FAILED.search(text):
            raise Problem(f"the app did not load: {failed[1]} (see {server.output})", 3)
        if ended or WORKER_DIED.search(server.output.read_text(errors="replace")):
            raise Problem(f"the server did not start: {why_it_ended(server.output)}", 3)
        ready = len(ready_workers(text))
        if ready >= workers and accepts(server.port):
            return
        time.sleep(0.02)
    raise Problem(
        f"the server was not ready after {START_TIMEOUT_S:.0f} s (workers ready: {ready} of {workers}):"
        f" {why_it_ended(server.output)}", 3
    )  # fmt: skip


FAILED = re.compile(r"\] failed (.*)$", re.MULTILINE)
WORKER_DIED = re.compile(r"Worker \(pid:\d+\) (?:was sent|exited)|Child process \[\d+\] died")
LOG_PREFIX = re.compile(  # of gunicorn, Flask, uvicorn, and logging.basicConfig with or without a time
    r"(?:\[?\d{4}-\d\d-\d\d[ T][\d:.,]+(?: [+-]\d{4})?\]? *|\[\d+\] *)*\[?(?P<level>[A-Z]{4,8})\b\]?"
    r"(?::[\w.]+:|:? +in \w+:|[ :-]) *"
)
TELLING = re.compile(  # words that name a cause, in whatever line they stand
    r"WORKER TIMEOUT|was sent SIG(?!TERM)|[Aa]ddress already in use|Connection in use|QueuePool limit"
    r"|couldn't get a connection|[Tt]oo many (?:clients|connections|open files)|[Oo]ut of memory|MemoryError"
    r"|remaining connection slots|Cannot allocate memory|No space left on device|database is locked"
)
ERROR_LINE = re.compile(r"(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception|Timeout|Exhausted|NotFound)(?:: .*)?")
NOISE = re.compile(  # what a stop, an impatient client, or the frame around a traceback leaves: never the cause
    r"(?:[\w.]+\.)?(?:CancelledError|GeneratorExit|SystemExit|KeyboardInterrupt|BrokenPipeError|ClientDisconnect"
    r"|ConnectionResetError|(?:Base)?ExceptionGroup)\b.*|Error handling request.*|Exception (?:on|in|while) .*"
    r"|Worker \(pid:\d+\) exited.*|Application (?:startup|shutdown) failed.*|Shutting down.*|Reason: .*"
)


def telling_line(log: Path) -> str | None:
    """The line of a server's log that names the cause: of those that say most the most frequent, the last of these.

    Lines that differ in numbers are the same; of a chain of exceptions the last is what the app raised.
    """
    counts: Counter[tuple[int, str]] = Counter()
    first: dict[tuple[int, str], str] = {}
    with contextlib.suppress(OSError):
        for rank, line in error_lines(log.read_text(errors="replace")):
            key = rank, re.sub(r"\d+", "0", line)
            counts[key] += 1
            first.setdefault(key, line)
    if not counts:
        return None
    rank = max(rank for rank, _ in counts)
    return first[max((key for key in reversed(counts) if key[0] == rank), key=counts.__getitem__)][:300]


def error_lines(text: str) -> Iterator[tuple[int, str]]:
    """What tells of an error: 3 a line with TELLING words, 2 the end of a traceback, 1 a message, 0 NOISE.

    >>> list(error_lines("Traceback (most recent call last):\\n  File\\nKeyError: 7\\nERROR:root:no\\nfine"))
    [(2, 'KeyError: 7'), (1, 'no')]
    """
    in_traceback = False
    for raw in text.splitlines():
        line = re.sub(r"^(?: *\| )+", "", raw)  # the margin that an exception group draws
        if "Traceback (most recent call last)" in line:
            in_traceback = True
            continue
        if in_traceback and (not line.strip() or line[0].isspace()):
            continue
        prefix = LOG_PREFIX.match(line)
        said, is_error = line[prefix.end() if prefix else 0 :].strip(), prefix and prefix["level"] not in UNALARMED
        if NOISE.fullmatch(said):
            rank = 0 if in_traceback or is_error else -1
        elif TELLING.search(said):
            rank = 3
        elif in_traceback or ERROR_LINE.fullmatch(said):
            rank = 2
        else:
            rank = 1 if is_error and said else -1
        in_traceback = False
        if rank >= 0:
            yield rank, said


UNALARMED = ("INFO", "DEBUG", "WARN", "WARNING", "NOTICE", "TRACE")


def why_it_ended(output: Path) -> str:
    """In a line: the error that its log names, else the last that it said; and where to read on."""
    with contextlib.suppress(OSError):
        lines = [line for line in output.read_text(errors="replace").splitlines() if line.strip()]
        said = [line for line in lines if not re.match("the server (ended with|was ended by)", line)]
        last = LOG_PREFIX.sub("", (said or lines or ["it said nothing"])[-1], count=1).strip()
        return f"{telling_line(output) or last} (see {output})"
    return f"see {output}"


def pin(pid: int, cpus: set[int]) -> None:
    """Keep a process and its children on some CPUs. Linux only: elsewhere the user is told."""
    try:
        os.sched_setaffinity(pid, cpus)
    except (AttributeError, OSError) as error:
        raise Problem(f"cannot pin to CPUs {sorted(cpus)} on this system: {error}") from None


def group_cpu_s(group: int) -> float | None:
    """CPU seconds of a group's processes, and of their children that have ended (cutime and cstime in proc(5)); None
    if there are none, or no /proc (it is Linux's).

    Of the living the kernel's clock tells nanoseconds (clock_getcpuclockid(3) makes its number of a process's), where
    /proc counts in hundredths of a second.
    """
    ticks, used_s, found = 0, 0.0, False
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                used_s += time.clock_gettime(~int(stat.parent.name) << 3 | 2)
                ticks, found = ticks + sum(map(int, fields[13:15])), True
    return used_s + ticks / os.sysconf("SC_CLK_TCK") if found else None


def machine_cpu_s() -> float | None:
    """CPU seconds that all programs have used since boot; None without /proc."""
    with contextlib.suppress(OSError):
        user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
        return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return None


def accepts(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def stop_server(server: RunningServer) -> None:
    """Close the guard's stdin, which makes it end the server's process group, and wait until that is done."""
    assert server.guard.stdin
    with contextlib.suppress(OSError):
        server.guard.stdin.close()
    try:
        server.guard.wait(STOP_GRACE_S + 3)
    except subprocess.TimeoutExpired:
        server.guard.kill()
        server.guard.wait()
    end_group(server.guard.pid)


# ---------------------------------------------------------------- a database for the Books API

SEEDED_BOOKS = 10_000  # rows that apps/books.sql puts into the table


class DatabaseAnswer(TypedDict, total=False):
    """What apps/postgres.py answers, one or the other part of it."""

    error: str
    ok: bool
    database_url: str
    max_connections: int
    connections_in_use: int
    version: str
    rows: int
    connections: int
    statements: int | None
    rolled_back: int | None
    updated: int | None


class Database:
    """apps/postgres.py as a process: it ends, and takes its Postgres along, when its stdin closes."""

    def __init__(self, url: str | None, log: Path, cpus: set[int]) -> None:
        command = [sys.executable, str(APPS / "postgres.py"), *([url] if url else [])]
        with log.open("wb") as sink:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink, start_new_session=True
            )
        assert self.process.stdin and self.process.stdout
        self.stdin: IO[bytes] = self.process.stdin
        self.stdout: IO[bytes] = self.process.stdout
        self.log = log
        try:
            if cpus:
                pin(self.process.pid, cpus)
            self.about = self.read()
        except BaseException:
            self.stop()
            raise

    def ask(self, command: str) -> DatabaseAnswer:
        """One of the commands that apps/postgres.py describes, and its answer."""
        with contextlib.suppress(OSError, ValueError):
            self.stdin.write(f"{command}\n".encode())
            self.stdin.flush()
        return self.read()

    def read(self) -> DatabaseAnswer:
        line = self.stdout.readline()
        if line:
            answer: DatabaseAnswer = json.loads(line)
            return answer
        lines = self.log.read_text(errors="replace").splitlines()
        return {"error": lines[-1] if lines else "the database ended without a word"}

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def database_for(launches: Sequence[Launch], url: str | None, logs: Path, cpus: set[int]) -> Iterator[Database | None]:
    """Start Postgres if a launch needs one, and stop it in the end. Problem (2) if it cannot be."""
    if not any(launch.pool for launch in launches):
        yield None
        return
    log, _ = new_log_files(logs, "postgres", datetime.now(), ".postgres.log")
    database = Database(url or os.environ.get("DATABASE_URL"), log, cpus)
    try:
        about = database.about
        if "error" in about:
            raise Problem(about["error"])
        for launch in launches:
            # Postgres keeps 3 for superusers, and apps/postgres.py takes one for itself.
            needed, free = launch.workers * launch.pool + 4, about["max_connections"] - about["connections_in_use"]
            if needed > free:
                raise Problem(
                    f"{launch.name}: {launch.workers} workers x {launch.pool} connections (and 4 more) are {needed};"
                    f" Postgres has {free} free of max_connections {about['max_connections']}:"
                    " lower --workers or --pool-size, or raise max_connections (embedded: PG_MAX_CONNECTIONS=N)"
                )
        yield database
    finally:
        database.stop()


# ---------------------------------------------------------------- read the access log


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


class AccessLog(NamedTuple):
    lines: list[LogLine]  # of numbered requests, in the order in which their handlers started
    ready: list[int]  # the pids of the workers that said they were ready


LOG_LINE = re.compile(
    r"\[(?P<stamp>[^\]]+)\] \[pid-(?P<pid>\d+)\] (?P<method>\S+) (?P<path>\S*) (?P<status>\S+)"
    r" (?P<duration>[\d.]+)s #(?P<request>\S*) @(?P<started>[\d.]+)"
)


def parse_access_log(text: str) -> AccessLog:
    """Its request lines and its workers; a warm-up, or somebody else's request, has no number and is left out.

    >>> parse_access_log("[2026-11-20 17:04:15.123] [pid-7] GET /io 200 1.0012s #3 @5.5").lines[0].duration_s
    1.0012
    """
    lines = (
        LogLine(m["stamp"], int(m["pid"]), m["method"], m["path"], m["status"], float(m["duration"]), m["request"],
                float(m["started"]))
        for m in map(LOG_LINE.fullmatch, text.splitlines())
        if m and m["request"].isdigit()
    )  # fmt: skip
    return AccessLog(sorted(lines, key=lambda line: line.started_s), ready_workers(text))


def ready_workers(text: str) -> list[int]:
    """The pids that said they were ready, less those that forked afterwards: a master with a preloaded app."""
    said = re.findall(r"\[pid-(\d+)\] (ready|forks)$", text, re.MULTILINE)
    masters = {pid for pid, word in said if word == "forks"}
    return [int(pid) for pid, word in said if word == "ready" and pid not in masters]


def anyio_threads(path: Path) -> int:
    """AnyIO's limit, as the first worker found it when it had started."""
    match = re.search(r"\] threads (\d+)$", path.read_text(errors="replace"), re.MULTILINE)
    return int(match[1]) if match else ANYIO_THREADS


def wait_for_log(path: Path, expected: int, begins: int = 0) -> AccessLog:
    """Read the access log, its requests from byte `begins` on; a line may come a moment after the answer."""
    deadline = perf_counter() + 1.0
    while True:
        text = path.read_bytes()
        log = parse_access_log(text[begins:].decode(errors="replace"))
        log = log._replace(ready=ready_workers(text.decode(errors="replace")))
        if len(log.lines) >= expected or perf_counter() > deadline:
            return log
        time.sleep(0.02)


def name_workers(log: AccessLog) -> dict[int, str]:
    """worker0, worker1, ... in the order in which a reader of the log meets them; last those that took nothing."""
    pids = dict.fromkeys([*(line.pid for line in log.lines), *log.ready])
    return {pid: f"worker{number}" for number, pid in enumerate(pids)}


# ---------------------------------------------------------------- in the foreground


def choose_launch(options: argparse.Namespace) -> Launch:
    if bool(options.target) == bool(options.app):
        raise Problem("say which target, or --app and --server; --list shows the targets")
    if options.app:
        return launch_app(options)
    if options.target not in TARGETS:
        raise Problem(f"unknown target {options.target!r}; the targets are: {', '.join(TARGETS)}")
    routes = TARGETS[options.target].routes
    route = next((route for route in routes if route.path == (options.path or routes[0].path)), None)
    if not route:
        raise Problem(f"{options.target} has no path {options.path!r}; it has: {', '.join(r.path for r in routes)}")
    return launch_target(options.target, route, options)


def serve(options: argparse.Namespace) -> int:
    """Start it, show its log as it grows, until it ends or a signal comes."""
    launch = choose_launch(options)
    check_packages([launch])
    access_log, output = new_log_files(options.logs, launch.name, datetime.now())
    with database_for([launch], options.database_url, options.logs, set()) as database:
        url = database.about["database_url"] if database else ""
        server = start_server(launch, access_log, output, options.server_cpus, url)
        try:
            path = options.path or (TARGETS[launch.name].routes[0].path if launch.is_target else "/")
            slots = launch.slots_per_worker
            each = "slots not known" if slots is None else f"{'no limit' if slots == NO_LIMIT else slots} each"
            print(f"http://127.0.0.1:{server.port}{path}  {plural(launch.workers, 'worker')}, {each}; Ctrl-C stops it",
                  flush=True)  # fmt: skip
            with (access_log if launch.wrap else output).open() as log:
                while not server.ended:
                    print(log.read(), end="", flush=True)
                    time.sleep(0.1)
            print(f"serve.py: the server ended: {why_it_ended(output)}", file=sys.stderr)
            return 1
        finally:
            stop_server(server)


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["--guard"]:
        return guard(argv[1:])
    parser = Parser(
        prog="serve.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("target", nargs="?", help="one of --list")
    add_options(parser).add_argument("--path", help="which of the target's apps, by a path that it has")

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with contextlib.suppress(ValueError):  # not in the main thread
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, stop)
    try:
        options = parser.parse_args(join_values(argv))
        if not argv or options.list:
            print(render_targets() if argv else f"{__doc__}\nTargets: {', '.join(TARGETS)}", flush=True)
            return 0
        return serve(options)
    except Problem as problem:
        print(f"serve.py: {problem}", file=sys.stderr)
        return problem.exit_code
    except KeyboardInterrupt:
        return 0
    except OSError as error:  # of what is printed
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for the interpreter's last flush
        if not isinstance(error, BrokenPipeError):  # else whoever read it has seen enough
            print(f"serve.py: cannot write the output: {error.strerror}", file=sys.stderr)
        return 0 if isinstance(error, BrokenPipeError) else 2


if __name__ == "__main__":
    sys.exit(main())
