"""What to start: one server with one app, a target's or the user's own, with the settings that will be in force there.

Command line, environment and configuration file overrule each other in each server's own way, so gunicorn is asked
itself. A user's app is loaded once, in a process of its own, and asked what kind of handler a request meets.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import importlib.util
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.model import NO_LIMIT
from engine.targets import (
    ANYIO_THREADS,
    GUNICORN_CLASSES,
    HANDLERS,
    NOT_FOR_US,
    PACKAGES_OF_APPS,
    SERVERS,
    TARGETS,
    THREADS_OF_OTHERS,
    Route,
    Server,
    Slots,
    TaskTime,
)
from engine.words import Problem, plural

INSIDE = Path(__file__).resolve().parent / "inside"
APPS = INSIDE.parents[1] / "apps"


@dataclass(frozen=True)
class Launch:
    """One server to start, with one app: a target's, or the user's own."""

    name: str  # to show
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
    env: tuple[tuple[str, str], ...] = field(default=(), metadata={"json": False})  # what our own apps read
    pool: int = 0  # database connections of each process; 0: it uses no database
    notes: tuple[str, ...] = ()  # what overrules what, for the report
    started_as: str = ""  # a key of SERVERS: whose command line, if the user's settings then make it another

    @property
    def kind(self) -> Server:
        """How it serves."""
        return SERVERS[self.server]

    @property
    def slots_per_worker(self) -> float | None:
        """min(server, handler, database pool) of one process; None: not known."""
        if self.server_slots is None:
            return None
        handler = HANDLERS.get(self.handler or "")
        inside = handler.slots if handler and handler.enter else NO_LIMIT
        return min(self.server_slots, self.pool or NO_LIMIT, inside)

    @property
    def server_slots(self) -> float | None:
        """How many requests can be in the handlers of one process: min(server, handler); None: not known."""
        handler, slots = HANDLERS.get(self.handler or ""), self.kind.slots
        if slots is Slots.BY_HANDLER:
            most = handler and (handler.enter or handler.slots)
            return self.anyio_threads if most == ANYIO_THREADS else most
        if slots is Slots.THREADS:
            return min(self.threads, self.connections)
        if slots is Slots.CONNECTIONS:
            return self.connections
        return 1 if "--without-threads" in self.server_args else slots

    @property
    def shared_queue(self) -> bool:
        """One queue for all processes: sync workers accept only when idle, and so does gthread if it may hold no more
        connections than it has threads."""
        return self.kind.shared_queue or (self.server == "gunicorn-threads" and self.connections <= self.threads)

    @property
    def why_slots(self) -> str:
        """Why a process has that many slots."""
        if self.pool:
            threads = f"{self.threads} threads and " if self.kind.slots is Slots.THREADS else ""
            return f"a process has {threads}a pool of {plural(self.pool, 'database connection')}"
        if "--without-threads" in self.server_args:
            return "the development server takes one request at a time, as --without-threads says"
        if self.kind.slots is not Slots.BY_HANDLER:
            return self.kind.why.format(threads=self.threads, connections=self.connections)
        if self.handler:
            return HANDLERS[self.handler].why
        return (
            f"{ANYIO_THREADS} if the handler is a `def`, no limit if it is an `async def` that awaits, 1 if that blocks"
        )

    def command(self, port: int | str, app: str) -> list[str]:
        """The server's command line, behind `python -m`."""
        server = SERVERS[self.started_as or self.server]
        head = [part.format(port=port, app=app) for part in server.command]
        options = [text for setting, value in self.settings for text in (server.options[setting], str(value))]
        return [*head, *options, *self.server_args, *([] if "{app}" in server.command else [app])]

    @property
    def open_connections(self) -> int:
        """How many it serves at a time, kept ones too; 0: more than any client opens."""
        stated = dict(option_values(self.server_args)).get("--connection-limit", "")
        ours = self.kind.open_connections
        return int(stated) if ours and stated.isdigit() else ours

    @property
    def packages(self) -> list[str]:
        """Distributions that it needs, as far as we know: of a user's app only the server's."""
        own = PACKAGES_OF_APPS.get(self.app.partition("_")[0], ()) if self.is_target else ()
        return [*own, *self.kind.packages, *(("psycopg", "psycopg-pool") if self.pool else ())]


# ---------------------------------------------------------------- from the options to a launch


def launch_target(name: str, route: Route, options: argparse.Namespace, strict: bool = True) -> Launch:
    """A target's server. strict: an option that this target does not have is a Problem."""
    target, task_time = TARGETS[name], options.task_time or TaskTime(1)
    if strict:
        draws = options.cpu_time or task_time.distribution != "constant"
        check_target(name, options.pool_size and not target.pool, draws and not route.draws)
    own = {"workers": target.workers, "threads": SERVERS[target.server].threads}
    env = {"TASK_TIME": float(task_time), "SUBTASKS": options.subtasks}
    env |= {"TASK_DISTRIBUTION": task_time.distribution, "CPU_TIME": options.cpu_time or 0.0}
    launch = Launch(
        name,
        target.server,
        route.app,
        handler=route.handler,
        settings=settings_for(target.server, own, options, name, strict),
        server_args=split_arguments(options.server_args),
        env=tuple((variable, str(value)) for variable, value in env.items()),
        pool=target.pool and (options.pool_size or target.pool),
        wrap=route.waits != "nothing" or options.access_log,
    )
    return in_force(launch)


def check_target(name: str, wants_pool: bool, wants_draws: bool) -> None:
    if wants_pool:
        raise Problem(f"{name} has no --pool-size: it uses no database")
    if wants_draws:
        raise Problem(
            f"{name} waits a constant time and computes nothing on this path: --cpu-time and :exp go with /io"
            " of Flask and FastAPI, and with /async-io of FastAPI"
        )


def launch_app(options: argparse.Namespace, method: str = "GET", path: str = "/") -> Launch:
    """The user's own app: nothing of it is set, in its environment or on its command line, that was not asked for."""
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(\([^()]*\))?", options.app):
        raise Problem(f"--app {options.app!r} is not of the form module:app, module:ns.app or module:create_app()")
    app, says = options.app + "()" * (options.factory and not options.app.endswith(")")), None
    try:
        says = ask_app(app, method, path)
    except Problem:
        if not options.server:
            raise  # else its server may find it elsewhere (--chdir, --app-dir), or says what is wrong
    app += "()" * bool(says and says["factory"])
    server = server_for(says, options)
    if not server:
        raise Problem(f"--app {app} seems to be neither WSGI nor ASGI; say --server, one of {', '.join(SERVERS)}")
    settings, arguments = settings_for(server, {}, options, app), split_arguments(options.server_args)
    launch = Launch(app, server, app, is_target=False, settings=settings, server_args=arguments)
    return in_force(as_it_says(launch, says) if says else launch)


def server_for(says: dict[str, Any] | None, options: argparse.Namespace) -> str | None:
    """As given, else by the kind of app; gunicorn with threads has a name of its own."""
    server: str | None = options.server
    if says and not server:
        server = {"wsgi": "gunicorn", "asgi": "uvicorn"}.get(says["kind"])
    return "gunicorn-threads" if server == "gunicorn" and options.threads else server


def settings_for(
    server: str, own: dict[str, int], options: argparse.Namespace, name: str, strict: bool = True
) -> tuple[tuple[str, int], ...]:
    """workers and threads that go into the command line: as given, else our own, as far as the server has them."""
    settings: dict[str, int] = {}
    for setting in ("workers", "threads"):
        given: int | None = getattr(options, setting)
        if setting in SERVERS[server].options:
            if chosen := given or own.get(setting):
                settings[setting] = chosen
        elif given and strict:
            raise Problem(f"{name} has no --{setting}: its server takes no such setting")
    return tuple(settings.items())


def split_arguments(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise Problem(f"--server-args {text!r}: {error}") from None


# ---------------------------------------------------------------- what an app says of itself


def ask_app(app: str, method: str, path: str) -> dict[str, Any]:
    """What the app says of itself at that path, see engine/inside/about_app.py; None in it is "not known".

    Raises Problem (3) with the app's own error if it does not load.
    """
    command = [sys.executable, str(INSIDE / "about_app.py"), app, method, path]
    says = last_line_of(command, None, Problem(f"{app} does not load", 3))
    if says["error"]:
        raise Problem(f"{app} does not load: {says['error']}", 3)
    return says


def last_line_of(command: Sequence[str], folder: Path | None, failed: Problem) -> dict[str, Any]:
    """The JSON in the last line that a command prints; the Problem with what it said instead, if there is none."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, stdin=subprocess.DEVNULL)
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer
    except (ValueError, IndexError):
        said = (done.stderr + done.stdout).strip() or "no message"
        raise Problem(f"{failed}: {said.splitlines()[-1]}", failed.exit_code) from None


def as_it_says(launch: Launch, says: dict[str, Any]) -> Launch:
    """With the kind of handler, and the passes of a request through AnyIO's threads, where the app knows them."""
    imported = {*says["packages"], *launch.kind.packages, *(["anyio"] if says["kind"] == "asgi" else [])}
    launch = replace(launch, imported=tuple(sorted(name.replace("_", "-") for name in imported)))
    if says["handler"] == "async":
        return replace(launch, handlers=("async", "blocking"))
    if says["handler"] != "def":
        return launch
    turns = says["thread_passes"] or []
    return replace(
        launch,
        handler=THREADS_OF_OTHERS.get((says["kind"], says["framework"]), "def"),
        passes=tuple(float(turn == "handler") for turn in turns) if "handler" in turns else (),
        holds_while_queueing=bool(says["yield_dependencies"]) and len(turns) > 1,
    )


# ---------------------------------------------------------------- the settings in force


def in_force(launch: Launch) -> Launch:
    """The launch as its server will understand it: command line, environment and configuration file together."""
    known: dict[str, Any] = dict(launch.settings)
    given = dict(option_values(launch.server_args))
    for option in given.keys() & NOT_FOR_US.keys():
        raise Problem(f"--server-args {option}: {NOT_FOR_US[option]}")
    if given.get("--lifespan") == "off":
        raise Problem("--server-args --lifespan off: it is where an ASGI app says that it is ready")
    known.setdefault("threads", launch.kind.threads)
    if launch.server == "uvicorn":
        known.setdefault("workers", os.environ.get("UVICORN_WORKERS") or os.environ.get("WEB_CONCURRENCY") or 1)
    for setting in ("workers", "threads"):
        text = given.get(f"--{setting}", known.get(setting, 1))
        if not str(text).isdigit():
            raise Problem(f"the {setting} of {launch.server}: {text!r} is not a whole number")
        known[setting] = max(1, int(text))
    launch = replace(launch, **known)
    # A target's gunicorn runs in apps/, where no configuration file is.
    ours = launch.is_target and not launch.server_args and not os.environ.get("GUNICORN_CMD_ARGS")
    return gunicorn_in_force(launch) if launch.server.startswith("gunicorn") and not ours else launch


def option_values(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """
    >>> list(option_values(["--a", "1", "--b=2"]))
    [('--a', '1'), ('--b', '2')]
    """
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            yield name, value if equals else following


ASK_GUNICORN = """
import json, os
from gunicorn.app.wsgiapp import WSGIApplication
names = ["workers", "threads", "worker_class", "worker_connections", "preload_app", "bind", "daemon"]
notes = []
class Asked(WSGIApplication):
    def load_config_from_file(self, filename):
        self.said, self.file = super().load_config_from_file(filename), os.path.basename(filename)
        return self.said
app = Asked()
found = {name: app.cfg.settings[name].get() for name in names} | {"worker_class": app.cfg.worker_class_str}
for name in [name for name in names if name in getattr(app, "said", ())]:
    note = f"{app.file} says {name} = {app.said[name]!r}"
    if name == "bind":
        note += ", overruled: it listens on a free port of 127.0.0.1"
    elif str(found[name]) != str(app.said[name]):
        note += f", overruled: {found[name]!r} is in force"
    notes.append(note)
print(json.dumps(found | {"notes": notes}, default=str))
"""


def gunicorn_in_force(launch: Launch) -> Launch:
    """What gunicorn is told by all of them together; where nothing says how many threads a gunicorn-threads has, we do.

    Raises Problem for a daemon, and for a worker class whose slots we do not know.
    """
    if importlib.util.find_spec("gunicorn") is None:
        return launch  # the missing package is reported with all others
    place = os.getcwd(), os.environ.get("GUNICORN_CMD_ARGS"), os.environ.get("WEB_CONCURRENCY")
    asked = ask_gunicorn(launch, *place)
    if launch.server == "gunicorn-threads" and asked["threads"] == 1 and "threads" not in dict(launch.settings):
        launch = replace(launch, settings=(*launch.settings, ("threads", launch.kind.threads)))
        asked = ask_gunicorn(launch, *place)
    if asked["daemon"]:
        raise Problem("gunicorn is told to be a daemon: the server must end with the run")
    row = GUNICORN_CLASSES.get(asked["worker_class"].rpartition(".")[2])
    if not row:
        raise Problem(
            f"the slots of gunicorn's worker class {asked['worker_class']!r} are not known;"
            " --server gunicorn-... overrules a configuration file"
        )
    return replace(
        launch,
        server=row,
        started_as=launch.server,
        workers=asked["workers"],
        threads=asked["threads"],
        connections=asked["worker_connections"],
        notes=tuple(asked["notes"]),
    )


@functools.lru_cache(64)  # a sweep asks the same of many runs
def ask_gunicorn(launch: Launch, *_: str | None) -> dict[str, Any]:
    """Ask gunicorn itself: its options, its configuration file and its environment variables overrule each other.

    The answer depends on the folder and the environment too, so the caller names them for the cache.
    """
    command = [sys.executable, "-c", ASK_GUNICORN, *launch.command(0, launch.app)[1:]]
    return last_line_of(command, APPS if launch.is_target else None, Problem("gunicorn does not take these settings"))


# ---------------------------------------------------------------- packages


def check_packages(launches: Sequence[Launch]) -> None:
    """Problem if a package is missing, with the command that brings it into this very Python."""
    wanted = dict.fromkeys(name for launch in launches for name in launch.packages)
    missing = [name for name in wanted if importlib.util.find_spec(name.replace("-", "_")) is None]
    if missing:
        ours = all(launch.is_target for launch in launches)
        install = "-r requirements-all.txt" if ours else " ".join(missing)
        elsewhere = "" if ours else "; or run this script with the Python that your service lives in"
        raise Problem(
            f"missing {plural(len(missing), 'package')} {', '.join(missing)};"
            f" install with: {sys.executable} -m pip install {install}{elsewhere}"
        )


def versions_of(launches: Sequence[Launch]) -> dict[str, str]:
    """Of the packages that they need."""
    wanted = {name for launch in launches for name in launch.packages}
    return {name: version for name, version in installed_versions().items() if name in wanted}


def installed_packages() -> frozenset[str]:
    """The distributions of this Python, which is the server's too, in lower case with dashes."""
    return frozenset(installed_versions())


@functools.cache
def installed_versions() -> dict[str, str]:
    names = {found.metadata["Name"]: found.version for found in importlib.metadata.distributions()}
    return {name.lower().replace("_", "-"): version for name, version in names.items() if name}
