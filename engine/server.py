"""Start a server, know when it is ready, say why it ended, and stop it whatever happens.

The server listens on a free port of 127.0.0.1, in a process group of its own, under engine/inside/guard.py. The guard's
lifeline is a pipe: however this process ends, the kernel closes the pipe and the guard ends the group. If the guard
itself is killed, this process ends the group. The app is wrapped by engine/inside/wrap/_bench_wrapper.py.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from engine import hints
from engine.access_log import ready_workers, text_of
from engine.inside.guard import STOP_GRACE_S
from engine.launch import APPS, BIN, INSIDE, Launch, installed_versions
from engine.listeners import cpu_s_of, cpu_s_of_one
from engine.machine import AT_START, allowed_cpus, pin
from engine.samples import Samples
from engine.words import Problem


@dataclass(frozen=True)
class RunningServer:
    """A server under its guard."""

    guard: subprocess.Popen[bytes]  # its pid is the process group of the server
    port: int
    access_log: Path | None  # None: the app is not wrapped
    server_log: Path  # what the server prints
    samples: Samples | None = None  # of its processes; None: they cannot be looked into
    code: str = ""  # the folder of the app

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self.guard.poll() is not None

    def ends_within(self, patience_s: float) -> bool:
        """The same a moment later: its connections break before its guard has noticed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.guard.wait(patience_s)
        return self.ended


# ---------------------------------------------------------------- start


def start_server(
    launch: Launch, folder: Path, cpus: set[int], database_url: str = "", live: bool = False
) -> RunningServer:
    """Start it on a free port and return when every worker is ready; Problem (3) if it does not start.

    folder: gets access.log and server.log. cpus: to pin the server to; empty: all, wherever the client is. live: the
    log also says when a handler starts.
    A user's app keeps its environment and its folder; ours run in apps/, with what they read in theirs.
    """
    port, access_log, server_log = free_port(), folder.absolute() / "access.log", folder.absolute() / "server.log"
    access_log.touch()
    samples = Samples.prepared(folder.absolute()) if launch.wrap else None
    command = launch.command(port, "_bench_wrapper:app")
    if command[0] == "gunicorn" and installed_versions().get("gunicorn", "") >= "25.1":
        # It opens a control socket in the home folder, one for all: leave that to the user's own gunicorn.
        command.insert(1, "--no-control-socket")
    env = environment_for(launch, access_log, database_url, live, samples) | {"BENCH_PORT": f"{port}"}
    code = f"{APPS}" if launch.is_target else os.getcwd()
    python = [] if launch.run else [sys.executable, "-m"]
    guard = guarded([*python, *command], server_log, env, APPS if launch.is_target else None)
    server = RunningServer(guard, port, access_log if launch.wrap else None, server_log, samples, code)
    try:
        if (wanted := cpus or AT_START) != allowed_cpus():
            pin(guard.pid, wanted)
        wait_until_ready(server, access_log, launch)
    except BaseException:
        stop_server(server)
        raise
    return server


def environment_for(
    launch: Launch, access_log: Path, database_url: str = "", live: bool = False, samples: Samples | None = None
) -> dict[str, str]:
    """What the server's process finds in its environment; the wrapper is found through PYTHONPATH."""
    given = os.environ | dict(launch.env)
    places = [
        f"{INSIDE}/run" * bool(launch.run),
        f"{INSIDE}/wrap",
        "" if launch.is_target else os.getcwd(),
        given.get("PYTHONPATH", ""),
    ]
    env = given | {
        "BENCH_APP": launch.app,
        "BENCH_WRAP": launch.kind.wrapper if launch.wrap else "bare",
        "BENCH_LOG": f"{access_log}",
        "BENCH_LIVE": "1" * live,
        "BENCH_SAMPLES": f"{samples.file if samples else ''}",
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "PYTHONUNBUFFERED": "1",
    }
    if launch.pool:
        env |= {"DATABASE_URL": database_url, "POOL_SIZE": f"{launch.pool}"}
    if launch.run:
        env["PATH"] = f"{BIN}{os.pathsep}{env.get('PATH', '')}"
    elif env.get("UVICORN_LIFESPAN") == "off":
        env["UVICORN_LIFESPAN"] = "auto"  # the lifespan is where an ASGI app says that it is ready
    return env


def guarded(command: list[str], output: Path, env: dict[str, str], cwd: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a command under the guard; its output goes to a file, since a pipe that is not read stalls a server."""
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, f"{INSIDE}/guard.py", *command],
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=sink,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )

    def end_the_group_of_a_dead_guard() -> None:
        process.wait()
        end_group(process.pid)

    threading.Thread(target=end_the_group_of_a_dead_guard, daemon=True).start()
    return process


def free_port() -> int:
    """A free port of 127.0.0.1. Raises Problem on a machine that cannot talk to itself."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = int(sock.getsockname()[1])
            socket.create_connection(("127.0.0.1", port), 2).close()
            return port
    except OSError as error:
        raise Problem(f"cannot connect to 127.0.0.1: {error}; is the loopback interface up?") from None


def accepts(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


WORKER_DIED = re.compile(r"Worker \(pid:\d+\) (?:was sent|exited)|Child process \[\d+\] died")


def wait_until_ready(server: RunningServer, access_log: Path, launch: Launch) -> None:
    """A port that accepts is no sign that every worker has imported its app: each writes `ready` when it has.

    A worker that says it failed, or that died, ends the waiting: some servers would start it again and again.
    """
    workers = 0 if launch.run else launch.workers
    deadline_s, log, ready = time.perf_counter() + launch.start_timeout_s, server.server_log, 0
    while time.perf_counter() < deadline_s:
        ended, text = server.ended, text_of(access_log)  # in this order: a last word counts
        check_loaded(text, log, launch)
        if ended or WORKER_DIED.search(text_of(log)):
            raise Problem(f"the server did not start: {why_it_ended(log)}", 3)
        ready = len(ready_workers(text))
        if ready >= workers and accepts(server.port):
            return
        time.sleep(0.02)
    waited = f"the server was not ready after {launch.start_timeout_s:g} s (--start-timeout)"
    state = f"{ready} of {workers} workers are ready"
    if launch.run:
        state = f"nothing accepts connections on 127.0.0.1:{server.port}, the command's {{port}}"
    raise Problem(f"{waited}; {state}; {why_it_ended(log)}", 3)


def check_loaded(text: str, log: Path, launch: Launch) -> None:
    """Raises Problem where a worker wrote into its access log that it has not loaded its app. log: of the server."""
    if failed := re.search(r"\] failed (.*)", text):
        hint = "" if launch.is_target or launch.run else hints.why_not_loaded(launch.app, failed[1])
        raise Problem(f"the app did not load: {failed[1]} (see {log}){hint}", 3)


# ---------------------------------------------------------------- stop


def stop_server(server: RunningServer) -> None:
    """Close the guard's stdin, which makes it end the server's process group, and wait until that is done."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.guard.communicate(timeout=STOP_GRACE_S + 3)
    end_group(server.guard.pid)
    server.guard.wait()
    if server.samples:
        server.samples.pipe.unlink(missing_ok=True)


def end_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


# ---------------------------------------------------------------- what it says and uses

LINE = re.compile(
    r"(?P<traceback>.*Traceback \(most recent call last\).*\n(?:(?:\s.*)?\n)*)?"  # what leads to the line that names it
    # The prefix of gunicorn, Flask, uvicorn, and logging.basicConfig with or without a time.
    r"(?:(?:\[?\d{4}-\d\d-\d\d[ T][\d:.,]+(?: [+-]\d{4})?\]? *|\[\d+\] *)*"
    r"\[?(?:(?P<error>ERROR|CRITICAL|FATAL)|[A-Z]{4,8})\b\]?(?::[\w.]+:|:? +in \w+:|[ :-]) *)?(?P<said>.*)"
)
ERROR = re.compile(  # an exception by its name, and words that name a cause in whatever line they stand
    r"^(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception|Timeout|Exhausted|NotFound)(?:: .*)?$"
    r"|WORKER TIMEOUT|was sent SIG(?!TERM)|[Aa]ddress already in use|Connection in use|QueuePool limit"
    r"|couldn't get a connection|[Tt]oo many (?:clients|connections|open files)|[Oo]ut of memory|MemoryError"
    r"|remaining connection slots|Cannot allocate memory|No space left on device|database is locked"
)
NOISE = re.compile(  # what a stop, an impatient client, or the frame around a traceback leaves: never the cause
    r"(?:[\w.]+\.)?(?:CancelledError|SSLEOFError|GeneratorExit|SystemExit|KeyboardInterrupt|BrokenPipeError|ClientDisconnect"
    r"|ConnectionResetError|(?:Base)?ExceptionGroup)\b.*|Error handling request.*|Exception (?:on|in|while) .*"
    r"|Worker \(pid:\d+\) exited.*|Application (?:startup|shutdown) failed.*|Shutting down.*|Reason: .*|"
)


def telling_lines(log: Path) -> tuple[str, ...]:
    """The last errors that a server's log names, at most three, the last one at the end.

    They are the end of each traceback, messages of the level ERROR, and what ERROR finds; without NOISE. Lines that
    differ in numbers are the same. SQLAlchemy's message of a full pool is always among them.
    """
    lines: dict[str, str] = {}
    text = re.sub(r"(?m)^(?: *\| )+", "", text_of(log))  # the margin that an exception group draws
    for line in LINE.finditer(text):
        said = line["said"].strip()
        if (line["traceback"] or line["error"] or ERROR.search(said)) and not NOISE.fullmatch(said):
            key = re.sub(r"\d+", "0", said)
            lines.pop(key, None)  # so that it moves to the end
            lines[key] = said[:300]
    return tuple(sorted(lines.values(), key=lambda line: "QueuePool limit" in line)[-3:])


def last_words(log: Path) -> tuple[str, ...]:
    """Of a server that has ended: the errors that its log names, else the last line; then how it ended."""
    lines = [line["said"].strip() for line in LINE.finditer(text_of(log))]
    by_guard = [line for line in lines if re.match("the server (ended with|was ended by)", line)]
    own = [line for line in lines if line and line not in by_guard]
    return (*(telling_lines(log) or own[-1:]), *by_guard[-1:])


def why_it_ended(log: Path) -> str:
    """In a line: the last error that its log names, else the last that it said; and where to read on."""
    return f"{'; '.join(last_words(log)[-2:]) or 'it said nothing'} (see {log})"


def group_cpu_s(group: int) -> float | None:
    """CPU seconds of a group's processes; None if there are none, or no /proc (it is Linux's)."""
    return cpu_s_of(members_of(group)) or None


def members_of(group: int) -> list[int]:
    """The processes of a group; empty where there is no /proc."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[2]) == group:
                members.append(int(stat.parent.name))
    return members


def cpu_by_process(group: int) -> dict[int, tuple[float, float]]:
    """CPU seconds so far of each of a group's processes, and of its children that have ended."""
    return {pid: cpu_s_of_one(pid) for pid in members_of(group)}
