"""What to start: one server with one app, a target's or the user's own, with the settings that will be in force there.

Command line, environment and configuration file overrule each other in each server's own way, so gunicorn is asked
itself. A user's app is loaded once, in a process of its own, and asked what kind of handler a request meets.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine import hints
from engine.listeners import OWN_OF_WAITRESS
from engine.model import NO_LIMIT
from engine.targets import (
    ANYIO_THREADS,
    COMMAND,
    GUNICORN_CLASSES,
    HANDLERS,
    NOT_FOR_US,
    PACKAGES_OF_APPS,
    SERVERS,
    TARGETS,
    Route,
    Server,
    TaskTime,
)
from engine.tls import check_pair
from engine.words import Problem, plural

INSIDE = Path(__file__).resolve().parent / "inside"
APPS = INSIDE.parents[1] / "apps"
BIN = Path(sys.executable).parent  # where the commands of this very Python's packages are


@dataclass(frozen=True)
class Launch:
    """One server to start, with one app: a target's, or the user's own."""

    name: str  # to show
    server: str  # a key of SERVERS: how it serves; "command": started by `run`
    app: str  # module:attribute
    is_target: bool = True  # the app is one of apps/, and runs there; else it is the user's, in the present folder
    handler: str | None = None  # a key of HANDLERS; None: not known
    handlers: tuple[str, ...] = ()  # those that it may be, if something is known of it
    passes: tuple[float, ...] = ()  # of a request through the slots, as the app says; (): as the handler has them
    anyio_threads: int = ANYIO_THREADS  # AnyIO's limit, as it stands in the app's process
    routes: tuple[str, ...] = ()  # paths that the app has, as far as it says
    imported: tuple[str, ...] | None = None  # distributions that bring a limit, of those that the app has imported
    # That a `def` generator makes, each in one of AnyIO's threads, as a request before the run showed.
    body_parts: int = 0
    workers: int = 1
    threads: int = 1
    connections: int = 1000  # gunicorn's worker_connections, waitress' connection_limit
    settings: tuple[tuple[str, int], ...] = ()  # what goes into the command line: workers and threads that are set
    tls_files: tuple[str, ...] = ()  # certificate and key; empty: plain http
    server_args: tuple[str, ...] = ()  # more options of the user's
    wrap: bool = True  # write an access log; the hello targets do without, since it costs more than they do
    env: tuple[tuple[str, str], ...] = field(default=(), metadata={"json": False})  # what our own apps read
    pool: int = 0  # database connections of each process; 0: it uses no database
    notes: tuple[str, ...] = ()  # what overrules what, for the report
    start_timeout_s: float = 30.0
    run: str = ""  # a command of the user's that starts it, with {port}
    started_as: str = ""  # a key of SERVERS: whose command line, if the user's settings then make it another
    reuse_port: bool = False  # gunicorn's: each worker has a listen queue of its own
    goes_first: bool = False  # the app says that no code of it runs before its handler

    @property
    def kind(self) -> Server:
        """How it serves."""
        return SERVERS.get(self.server, COMMAND)

    @property
    def slots_per_worker(self) -> float | None:
        """min(server, handler, database pool) of one process; None: not known."""
        entered, inside = self.server_slots, HANDLERS[self.handler].inside
        inside = self.anyio_threads if inside == ANYIO_THREADS else inside
        return None if entered is None else min(entered, self.pool or NO_LIMIT, inside)

    @property
    def server_slots(self) -> float | None:
        """How many requests can be in the handlers of one process: min(server, handler); None: not known."""
        slots = HANDLERS[self.handler].slots
        if "--without-threads" in self.server_args:
            return 1
        if self.kind.slots == "handler":
            return self.anyio_threads if slots == ANYIO_THREADS else slots
        if self.kind.slots == "threads":
            return int(min(self.threads, self.connections, self.open_connections))
        return self.connections if self.kind.slots == "connections" else self.kind.slots

    @property
    def is_full_before_threads(self) -> bool:
        """Whether it accepts fewer connections than it has threads."""
        return self.kind.slots == "threads" and (self.server_slots or 0) < self.threads

    def takes_more(self, requests: float) -> bool:
        """Whether it works on more than so many requests at once, as far as that is known."""
        if self.kind is COMMAND:
            return False
        if self.kind.slots == "handler":  # what waits for a thread there has been taken already
            return "--limit-concurrency" not in " ".join(self.server_args)
        return self.workers == 1 and requests <= (self.server_slots or 0) - 1

    @property
    def shared_queue(self) -> bool:
        """One queue for all processes: sync workers accept only when idle, and so does gthread if it may hold no more
        connections than it has threads."""
        return not self.reuse_port and (self.kind.shared_queue or self.connections <= self.threads)

    @property
    def why_slots(self) -> str:
        """Why a process has that many slots."""
        if self.run:
            return "not known: your own command starts the server"
        if "--without-threads" in self.server_args:
            return "the development server takes one request at a time, as --without-threads says"
        why = self.kind.why or HANDLERS[self.handler].why
        why = why.format(threads=self.threads, connections=self.connections, anyio_threads=self.anyio_threads)
        if self.is_full_before_threads:
            most = f"{plural(int(self.server_slots or 0), 'connection')} at a time"
            why = f"{why}, but accepts only {most}, as its limit of connections says"
        if self.body_parts:
            why = f"{why}; each of the {self.body_parts} parts of its body takes one again"
        return f"{why}; a process has a pool of {plural(self.pool, 'database connection')}" if self.pool else why

    def command(self, port: int | str, app: str) -> list[str]:
        """The server's command line, behind `python -m` unless it is the user's own."""
        if self.run:
            return [part.replace("{port}", f"{port}") for part in shlex.split(self.run)]
        template = SERVERS[self.started_as or self.server].command
        head = [part.format(port=port, app=app) for part in template]
        settings = [text for name, value in self.settings for text in (f"--{name}", f"{value}")]
        settings += [text for pair in zip(self.kind.tls, self.tls_files, strict=False) for text in pair]
        return [*head, *settings, *self.server_args, *[app] * ("{app}" not in template)]

    @property
    def open_connections(self) -> float:
        """How many it serves at a time, kept ones too; of the others these are more than any client opens."""
        if self.server == "waitress":
            return self.connections - OWN_OF_WAITRESS
        return self.connections if self.kind.slots == "connections" else NO_LIMIT

    @property
    def packages(self) -> list[str]:
        """Distributions that it needs, as far as we know: of a user's app only the server's."""
        module, family = self.app.partition(":")[0], self.app.partition("_")[0]
        own = PACKAGES_OF_APPS.get(module, PACKAGES_OF_APPS.get(family, ())) if self.is_target else ()
        server = SERVERS.get(self.started_as, self.kind)  # a worker class that the user's settings name is his own
        return [*own, *server.packages, *["psycopg", "psycopg-pool"] * bool(self.pool)]


# ---------------------------------------------------------------- from the options to a launch


def launch_target(name: str, route: Route, options: argparse.Namespace, strict: bool = True) -> Launch:
    """A target's server. strict: an option that this target does not have is a Problem."""
    target, task_time = TARGETS[name], options.task_time or TaskTime(1)
    if strict:
        check_target(name, route, options)
    launch = Launch(
        name,
        target.server,
        route.app,
        start_timeout_s=options.start_timeout,
        handler="def" if options.anyio_threads and route.handler == "def in 100 threads" else route.handler,
        workers=target.workers,
        threads=SERVERS[target.server].threads,
        anyio_threads=options.anyio_threads or ANYIO_THREADS,
        env=(
            ("TASK_TIME", f"{float(task_time)}"),
            ("SUBTASKS", f"{options.subtasks}"),
            ("TASK_DISTRIBUTION", task_time.distribution),
            ("CPU_TIME", f"{options.cpu_time or 0.0}"),
            *env_of(options),
        ),
        pool=target.pool and (options.pool_size or target.pool),
        wrap=route.waits != "nothing" or options.access_log,
    )
    return with_settings(launch, options, strict)


def check_target(name: str, route: Route, options: argparse.Namespace) -> None:
    """Raises Problem where an option says what this target does not have."""
    if options.pool_size and not TARGETS[name].pool:
        raise Problem(f"{name} has no --pool-size: it uses no database")
    is_drawn = options.task_time and options.task_time.distribution != "constant"
    if not route.draws and (options.cpu_time or is_drawn):
        raise Problem(
            f"{name} waits a constant time and computes nothing on this path: --cpu-time and :exp go with /io"
            " of Flask and FastAPI, and with /async-io of FastAPI"
        )


def launch_app(options: argparse.Namespace, method: str = "GET", path: str = "/") -> Launch:
    """The user's own app: nothing of it is set, in its environment or on its command line, that was not asked for.

    Raises Problem (3) with the app's own error if it does not load and no server is given. With a server it may load
    all the same, as that server finds it elsewhere (--chdir, --app-dir); else the server says what is wrong.
    """
    app = options.app + "()" * (options.factory and not options.app.endswith(")"))
    says: dict[str, Any] = {"app": app, "server": None}
    try:
        asks = [f"{INSIDE}/about_app.py", app, method, path, f"{options.start_timeout:.0f}"]
        says = last_line_of(asks, Problem(f"{app} does not load", 3), env=dict(env_of(options)))
    except Problem as problem:
        if not options.server:
            raise Problem(f"{problem}{hints.why_not_loaded(app, str(problem))}", problem.exit_code) from None
    kind_of_app = says["server"]
    server = options.server or kind_of_app
    if not server:
        raise Problem(f"--app {app} seems to be neither WSGI nor ASGI; say --server, one of {', '.join(SERVERS)}")
    says["server"] = "gunicorn-threads" if server == "gunicorn" and options.threads else server
    launch = Launch(
        says["app"], is_target=False, start_timeout_s=options.start_timeout, env=env_of(options),
        anyio_threads=options.anyio_threads or ANYIO_THREADS, **says,
    )  # fmt: skip
    launch = with_settings(launch, options)
    check_interface(launch, kind_of_app)
    return launch


def check_interface(launch: Launch, made_for: str | None) -> None:
    """Raises Problem where a server would answer every request with 500, as it calls the app in another way.

    made_for: the server that the app's kind has by default; None: not known.
    """
    if not made_for or launch.kind.wrapper == "run":
        return
    is_asgi = made_for == "uvicorn"
    if is_asgi == (launch.kind.wrapper == "asgi"):
        return
    able = " or ".join(name for name, server in SERVERS.items() if (server.wrapper == "asgi") == is_asgi)
    kind, other = ("an ASGI", "WSGI") if is_asgi else ("a WSGI", "ASGI")
    raise Problem(f"{launch.app} is {kind} app, and {launch.server} serves {other}: leave out --server, or say {able}")


def env_of(options: argparse.Namespace) -> tuple[tuple[str, str], ...]:
    """What the options add to the environment of the service."""
    given = [tuple(text.split("=", 1)) for text in options.env]
    if options.anyio_threads:
        given.append(("BENCH_ANYIO_THREADS", f"{options.anyio_threads}"))
    return tuple((name, value) for name, value in given)


def launch_command(options: argparse.Namespace) -> Launch:
    """A service that a command of the user's starts; Problem if there is no such program."""
    command, program = options.run, shlex.split(options.run)[0]
    if not shutil.which(program, path=f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"):
        if Path(program).is_file():
            raise Problem(f"--run: {program} is no program: chmod +x it and write ./ in front, or name what runs it")
        raise Problem(f"--run: there is no program {program!r}")
    return Launch(Path(program).name, "command", "", is_target=False, start_timeout_s=options.start_timeout,
                  env=env_of(options), run=command)  # fmt: skip


def with_settings(launch: Launch, options: argparse.Namespace, strict: bool = True) -> Launch:
    """With workers and threads as given, else a target's own, as far as the server has them; then all in force."""
    settings = []
    for name in ("workers", "threads"):
        given = getattr(options, name)
        if name in launch.kind.settings:
            settings.append((name, given or (getattr(launch, name) if launch.is_target else 0)))
        elif given and strict:
            raise Problem(f"{launch.name} has no --{name}: its server takes no such setting")
    chosen = tuple((name, value) for name, value in settings if value)
    launch = replace(launch, settings=chosen, server_args=tuple(options.server_args))
    return in_force(with_tls(launch, options) if options.cert else launch)


def with_tls(launch: Launch, options: argparse.Namespace) -> Launch:
    """The launch with certificate and key. Raises Problem where it cannot serve with them."""
    if not launch.kind.tls:
        able = ", ".join(name for name, server in SERVERS.items() if server.tls)
        raise Problem(f"--cert: {launch.server} is started without TLS here; these serve with it: {able}")
    files = os.path.abspath(options.cert), os.path.abspath(options.key)
    check_pair(*files)
    return replace(launch, tls_files=files)


def last_line_of(
    arguments: Sequence[str], failed: Problem, folder: Path | None = None, env: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The JSON in the last line that Python prints with these arguments, lists as tuples; if there is none, the Problem
    with what was said instead. Nothing that it starts is left."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:  # a pipe lasts as long as a child
        # The guard ends what the app has started by being imported; its stdin is its lifeline.
        command = [sys.executable, f"{INSIDE}/guard.py", sys.executable, *arguments]
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            cwd=folder,
            start_new_session=True,
            env=os.environ | dict(env or {}),
        ) as asked:
            asked.wait()
        for file in (out, err):
            file.seek(0)
        try:
            answer = json.loads(out.read().splitlines()[-1])
        except (ValueError, IndexError):
            said = [line for line in err.read().splitlines() if line.strip() and not line.startswith("the server ")]
            raise Problem(f"{failed}: {(said or ['no message'])[-1]}", failed.exit_code) from None
    return {name: tuple(value) if isinstance(value, list) else value for name, value in answer.items()}


# ---------------------------------------------------------------- the settings in force


def given_to_server(launch: Launch) -> dict[str, str]:
    """The options of --server-args with their values. Raises Problem where one takes away what we need."""
    text = " ".join([*launch.server_args, ""])
    if launch.server == "hypercorn":
        text = re.sub(r"(?<!\S)-w[ =]?(?=\d)", "--workers ", text)
        if re.search(r"(?<!\S)(-c|--config)[ =]", text) and "--workers" not in text:
            raise Problem("--server-args -c: the workers in hypercorn's file are not read here; say --workers, too")
    given = dict(re.findall(r"(--[\w-]+)(?=[ =](\S*))", text))
    for option, value in given.items():
        if reason := NOT_FOR_US.get(option) or NOT_FOR_US.get(f"{option} {value}"):
            raise Problem(f"--server-args {option}: {reason}")
    return given


def in_force(launch: Launch) -> Launch:
    """The launch as its server will understand it: command line, environment and configuration file together."""
    kind, env = launch.kind, os.environ | dict(launch.env)
    given = given_to_server(launch)
    names = {"uvicorn": ("UVICORN_WORKERS", "WEB_CONCURRENCY"), "granian": ("GRANIAN_WORKERS",)}
    workers = next((env[name] for name in names.get(launch.server, ()) if env.get(name)), None)
    known: dict[str, Any] = {"workers": workers or 1, "threads": kind.threads, "connections": kind.connections}
    known |= dict(launch.settings)
    for name, option in ("workers", "--workers"), ("threads", "--threads"), ("connections", "--connection-limit"):
        text = str(given.get(option, known[name]))
        if not text.isdigit():
            raise Problem(f"the {name} of {launch.server}: {text!r} is not a whole number")
        known[name] = max(1, int(text))
    launch = replace(launch, **known)
    if launch.open_connections < 1:
        least = OWN_OF_WAITRESS + 1
        raise Problem(f"--connection-limit {launch.connections}: waitress would accept nothing; the least is {least}")
    # A target's gunicorn runs in apps/, where no configuration file is.
    ours = launch.is_target and not launch.server_args and "GUNICORN_CMD_ARGS" not in env
    ours = ours and launch.settings[-1:] != (("threads", 1),)  # with one thread its workers are sync
    # A missing package is reported with all others.
    asks = kind.command[0] == "gunicorn" in installed_versions() and not ours
    return gunicorn_in_force(launch) if asks else launch


ASK_GUNICORN = """
import json, os
from gunicorn.app.wsgiapp import WSGIApplication
notes = []
class Asked(WSGIApplication):
    def load_config_from_file(self, filename):
        self.said, self.file = super().load_config_from_file(filename), os.path.basename(filename)
        return self.said
app = Asked()
found = {name: setting.get() for name, setting in app.cfg.settings.items()} | {"worker_class": app.cfg.worker_class_str}
for name in ["workers", "threads", "worker_class", "worker_connections", "preload_app", "bind", "daemon"]:
    if name not in getattr(app, "said", ()):
        continue
    note = f"{app.file} says {name} = {app.said[name]!r}"
    if name == "bind":
        note += ", overruled: it listens on a free port of 127.0.0.1"
    elif str(found[name]) != str(app.said[name]):
        note += f", overruled: {found[name]!r} is in force"
    notes.append(note)
if found["daemon"]:
    raise SystemExit("it is told to be a daemon, but the server must end with the run")
print(json.dumps({
    "worker_class": found["worker_class"].rpartition(".")[2], "workers": found["workers"],
    "threads": found["threads"], "connections": found["worker_connections"], "notes": notes,
    "reuse_port": bool(found["reuse_port"]),
}))
"""


def gunicorn_in_force(launch: Launch) -> Launch:
    """What gunicorn says itself: its options, its configuration file and its environment variables overrule each other.

    Where nothing says how many threads a gunicorn-threads has, we do. Raises Problem for a daemon, and for a worker
    class whose slots we do not know.
    """
    command = ["-c", ASK_GUNICORN, *launch.command(0, launch.app)[1:]]
    failed = Problem("gunicorn does not take these settings")
    asked = last_line_of(command, failed, APPS if launch.is_target else None, dict(launch.env))
    if launch.server == "gunicorn-threads" and asked["threads"] == 1 and "threads" not in dict(launch.settings):
        return gunicorn_in_force(replace(launch, settings=(*launch.settings, ("threads", launch.kind.threads))))
    worker_class = asked.pop("worker_class")
    if worker_class not in GUNICORN_CLASSES:
        raise Problem(
            f"the slots of gunicorn's worker class {worker_class!r} are not known;"
            " --server gunicorn-... overrules a configuration file"
        )
    return replace(launch, server=GUNICORN_CLASSES[worker_class], started_as=launch.server, **asked)


# ---------------------------------------------------------------- packages


def check_packages(launches: Sequence[Launch]) -> None:
    """Problem if a package is missing, with the command that brings it into this very Python."""
    missing = [name for name, version in versions_of(launches).items() if not version]
    if missing:
        there = hints.run_it_with(Path.cwd()) or "; or run this script with the Python that your service lives in"
        install = f"{' '.join(missing)}{there}"
        if all(launch.is_target for launch in launches):
            install = "-r requirements-all.txt"
        raise Problem(
            f"missing {plural(len(missing), 'package')} {', '.join(missing)};"
            f" install with: {sys.executable} -m pip install {install}"
        )


def versions_of(launches: Sequence[Launch]) -> dict[str, str]:
    """Of the packages that they need; "" for one that is missing."""
    return {name: installed_versions().get(name, "") for launch in launches for name in launch.packages}


@functools.cache
def installed_versions() -> dict[str, str]:
    """The distributions of this Python, which is the server's too, in lower case with dashes."""
    found = importlib.metadata.distributions()
    return {str(one.metadata["Name"]).lower().replace("_", "-"): one.version for one in found}
