"""Start a server, know when it is ready, say why it ended, and stop it whatever happens.

The server listens on a free port of 127.0.0.1, in a process group of its own, under engine/inside/guard.py. The guard's
lifeline is a pipe: however this process ends, the kernel closes the pipe and the guard ends the group. If the guard
itself is killed, this process ends the group. The app is wrapped by engine/inside/wrap/_bench_wrapper.py.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.access_log import ready_workers
from engine.inside.guard import STOP_GRACE_S
from engine.inside.wrap._bench_log_line import WORD_LINE
from engine.launch import APPS, INSIDE, Launch
from engine.machine import pin
from engine.words import Problem

START_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class RunningServer:
    """A server under its guard."""

    guard: subprocess.Popen[bytes]  # its pid is the process group of the server
    port: int
    access_log: Path | None  # None: the app is not wrapped
    server_log: Path  # what the server prints

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

    folder: gets access.log and server.log. cpus: to pin the server to; empty: any. live: the log
    also says when a handler starts.
    A user's app keeps its environment and its folder; ours run in apps/, with what they read in theirs.
    """
    port, access_log, server_log = free_port(), folder.absolute() / "access.log", folder.absolute() / "server.log"
    access_log.touch()
    env = environment_for(launch, access_log)
    env |= {"BENCH_LIVE": "1"} if live else {}
    if launch.pool:
        env |= {"DATABASE_URL": database_url, "POOL_SIZE": str(launch.pool)}
    command = launch.command(port, f"_bench_wrapper:{launch.kind.wrapper if launch.wrap else 'bare'}")
    quiet = quiet_gunicorn() if command[0] == "gunicorn" else []
    command = [sys.executable, "-m", command[0], *quiet, *command[1:]]
    guard = guarded(command, server_log, env, APPS if launch.is_target else None)
    server = RunningServer(guard, port, access_log if launch.wrap else None, server_log)
    try:
        if cpus:
            pin(guard.pid, cpus)
        wait_until_ready(server, access_log, launch.workers)
    except BaseException:
        stop_server(server)
        raise
    return server


def environment_for(launch: Launch, access_log: Path) -> dict[str, str]:
    """What the server's process finds in its environment; the wrapper is found through PYTHONPATH."""
    places = [str(INSIDE / "wrap"), *([] if launch.is_target else [os.getcwd()]), os.environ.get("PYTHONPATH", "")]
    env = {"BENCH_APP": launch.app, "BENCH_LOG": str(access_log), "PYTHONUNBUFFERED": "1"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    if launch.server == "hypercorn":
        env["BENCH_WRAP"] = launch.kind.wrapper
    return os.environ | env | dict(launch.env)


def quiet_gunicorn() -> list[str]:
    """Newer versions open a control socket in the home folder, one for all: leave it to the user's own gunicorn."""
    spec = importlib.util.find_spec("gunicorn.config")
    with contextlib.suppress(OSError):
        if spec and spec.origin and "--no-control-socket" in Path(spec.origin).read_text():
            return ["--no-control-socket"]
    return []


def guarded(command: list[str], output: Path, env: dict[str, str], cwd: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a command under the guard; its output goes to a file, since a pipe that is not read stalls a server."""
    try:
        with output.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, str(INSIDE / "guard.py"), *command],
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=sink,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
    except OSError as error:
        raise Problem(f"cannot start {command[0]}: {error}") from None

    def end_the_group_of_a_dead_guard() -> None:
        process.wait()
        end_group(process.pid)

    threading.Thread(target=end_the_group_of_a_dead_guard, daemon=True).start()
    return process


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def accepts(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


WORKER_DIED = re.compile(r"Worker \(pid:\d+\) (?:was sent|exited)|Child process \[\d+\] died")


def wait_until_ready(server: RunningServer, access_log: Path, workers: int) -> None:
    """A port that accepts is no sign that every worker has imported its app: each writes `ready` when it has.

    A worker that says it failed, or that died, ends the waiting: some servers would start it again and again.
    """
    deadline_s, ready = time.perf_counter() + START_TIMEOUT_S, 0
    while time.perf_counter() < deadline_s:
        ended, text = server.ended, access_log.read_text(errors="replace")  # in this order: a last word counts
        for _, word, reason in WORD_LINE.findall(text):
            if word == "failed":
                raise Problem(f"the app did not load: {reason} (see {server.server_log})", 3)
        if ended or WORKER_DIED.search(server.server_log.read_text(errors="replace")):
            raise Problem(f"the server did not start: {why_it_ended(server.server_log)}", 3)
        ready = len(ready_workers(text))
        if ready >= workers and accepts(server.port):
            return
        time.sleep(0.02)
    raise Problem(
        f"the server was not ready after {START_TIMEOUT_S:.0f} s; {ready} of {workers} workers are ready;"
        f" {why_it_ended(server.server_log)}",
        3,
    )


# ---------------------------------------------------------------- stop


def stop_server(server: RunningServer) -> None:
    """Close the guard's stdin, which makes it end the server's process group, and wait until that is done."""
    assert server.guard.stdin
    with contextlib.suppress(OSError):
        server.guard.stdin.close()
    if not server.ends_within(STOP_GRACE_S + 3):
        server.guard.kill()
        server.guard.wait()
    end_group(server.guard.pid)


def end_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


# ---------------------------------------------------------------- what it says and uses

LOG_PREFIX = re.compile(  # of gunicorn, Flask, uvicorn, and logging.basicConfig with or without a time
    r"(?:\[?\d{4}-\d\d-\d\d[ T][\d:.,]+(?: [+-]\d{4})?\]? *|\[\d+\] *)*\[?(?P<level>[A-Z]{4,8})\b\]?"
    r"(?::[\w.]+:|:? +in \w+:|[ :-]) *"
)
ERROR_LINE = re.compile(  # an exception by its name, and words that name a cause in whatever line they stand
    r"^(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception|Timeout|Exhausted|NotFound)(?:: .*)?$"
    r"|WORKER TIMEOUT|was sent SIG(?!TERM)|[Aa]ddress already in use|Connection in use|QueuePool limit"
    r"|couldn't get a connection|[Tt]oo many (?:clients|connections|open files)|[Oo]ut of memory|MemoryError"
    r"|remaining connection slots|Cannot allocate memory|No space left on device|database is locked"
)
NOISE = re.compile(  # what a stop, an impatient client, or the frame around a traceback leaves: never the cause
    r"(?:[\w.]+\.)?(?:CancelledError|GeneratorExit|SystemExit|KeyboardInterrupt|BrokenPipeError|ClientDisconnect"
    r"|ConnectionResetError|(?:Base)?ExceptionGroup)\b.*|Error handling request.*|Exception (?:on|in|while) .*"
    r"|Worker \(pid:\d+\) exited.*|Application (?:startup|shutdown) failed.*|Shutting down.*|Reason: .*"
)


def telling_lines(log: Path) -> tuple[str, ...]:
    """The last errors that a server's log names, at most three, the last one at the end.

    Lines that differ in numbers are the same. SQLAlchemy's message of a full pool is always among them.
    """
    lines: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in error_lines(log.read_text(errors="replace")):
            key = re.sub(r"\d+", "0", line)
            lines.pop(key, None)  # so that it moves to the end
            lines[key] = line[:300]
    return tuple(sorted(lines.values(), key=lambda line: "QueuePool limit" in line)[-3:])


def error_lines(text: str) -> Iterator[str]:
    """The end of each traceback, messages of the level ERROR, and what ERROR_LINE finds; without NOISE.

    >>> list(error_lines("Traceback (most recent call last):\\n  File\\nKeyError: 7\\nERROR:root:no\\nfine"))
    ['KeyError: 7', 'no']
    """
    in_traceback = False
    for raw in text.splitlines():
        line = re.sub(r"^(?: *\| )+", "", raw)  # the margin that an exception group draws
        if "Traceback (most recent call last)" in line:
            in_traceback = True
        elif not in_traceback or line[:1].strip():
            prefix = LOG_PREFIX.match(line)
            said = line[prefix.end() if prefix else 0 :].strip()
            is_error = in_traceback or (prefix and prefix["level"] in ("ERROR", "CRITICAL", "FATAL"))
            if said and (is_error or ERROR_LINE.search(said)) and not NOISE.fullmatch(said):
                yield said
            in_traceback = False


def why_it_ended(log: Path) -> str:
    """In a line: the last error that its log names, else the last that it said; and where to read on."""
    with contextlib.suppress(OSError):
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        said = [line for line in lines if not re.match("the server (ended with|was ended by)", line)]
        last = LOG_PREFIX.sub("", (said or lines or ["it said nothing"])[-1], count=1).strip()
        return f"{[last, *telling_lines(log)][-1]} (see {log})"
    return f"see {log}"


def group_cpu_s(group: int) -> float | None:
    """CPU seconds of a group's processes, and of their children that have ended (cutime and cstime in proc(5)); None
    if there are none, or no /proc (it is Linux's).

    Of the living the kernel's clock tells nanoseconds (clock_getcpuclockid(3) makes its number of a process's), where
    /proc counts in hundredths of a second.
    """
    used_s, ticks, found = 0.0, 0, False
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                used_s += time.clock_gettime(~int(stat.parent.name) << 3 | 2)
                ticks, found = ticks + sum(map(int, fields[13:15])), True
    return used_s + ticks / os.sysconf("SC_CLK_TCK") if found else None
