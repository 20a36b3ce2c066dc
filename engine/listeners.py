"""What listens on a port of this machine, as /proc tells it (Linux): processes, command line, threads, CPU time.

Of servers whose command line decides how many requests they work on, that number, too.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from engine.targets import CONNECTIONS_OF_WAITRESS

PROC = Path("/proc")
LISTENS = "0A"  # the state in /proc/net/tcp
OWN_OF_WAITRESS = 2  # sockets that it counts, too: its listener and its trigger (waitress/server.py, readable)


@dataclass(frozen=True, order=True)
class Listener:
    """A process that has the listening socket, with its parent if that has it, too."""

    pid: int
    parent: int
    threads: int
    command: tuple[str, ...]


class Slots(NamedTuple):
    """How many requests each of so many processes works on at a time, as the command line says."""

    workers: int
    each: int
    one_queue: bool


PROXIES = {"apache2", "caddy", "docker-proxy", "envoy", "haproxy", "httpd", "nginx", "nginx:", "rootlessport",
           "traefik", "varnishd"}  # fmt: skip


def passes_on(one: Listener) -> bool:
    """Whether it is a program that passes requests on to others.

    >>> passes_on(Listener(1, 0, 1, ("nginx: master process",))), passes_on(Listener(1, 0, 1, ("/bin/python3", "a.py")))
    (True, False)
    """
    return Path(one.command[0].partition(" ")[0]).name in PROXIES


def all_run_apps(found: Sequence[Listener]) -> bool:
    """Whether these processes are known, and none is a proxy's."""
    return bool(found) and not any(map(passes_on, found))


def listeners(address: str, port: int) -> tuple[Listener, ...]:
    """The processes that listen on an address and port; empty where that cannot be seen."""
    sockets = {f"socket:[{inode}]" for inode in inodes_of(address, port)}
    found = []
    for folder in PROC.glob("[0-9]*") if sockets else ():
        with contextlib.suppress(OSError):  # it ended, or belongs to another user
            if any(os.readlink(one) in sockets for one in (folder / "fd").iterdir()):
                found.append(listener_at(folder))
    return tuple(sorted(found))


def sockets_in(state: str) -> list[list[str]]:
    """The fields of each TCP socket of this machine that is in a state: proc(5), /proc/net/tcp."""
    rows: list[list[str]] = []
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            rows += [line.split() for line in (PROC / "net" / table).read_text().splitlines()[1:]]
    return [row for row in rows if len(row) > 9 and row[3] == state]


def inodes_of(address: str, port: int) -> list[str]:
    """Of the sockets that listen on a port of an address, or of any."""
    any_of_ipv4 = [] if ":" in address else ["0" * 8]
    wanted = {f"{one}:{port:04X}" for one in (*in_hex(address), *any_of_ipv4, "0" * 32)}
    return [row[9] for row in sockets_in(LISTENS) if row[1] in wanted]


def address_of(host: str, port: int) -> str:
    """The address that a client will ask: localhost may be 127.0.0.1 or ::1."""
    if host == "localhost":
        with contextlib.suppress(OSError), socket.create_connection((host, port), 2) as sock:
            return str(sock.getpeername()[0])
    return host


def in_hex(address: str) -> list[str]:
    """An address as /proc/net/tcp and tcp6 have it: in words of the machine's own byte order; [] of a name."""
    for family, before in (socket.AF_INET, "0000000000000000FFFF0000"), (socket.AF_INET6, ""):
        with contextlib.suppress(OSError):
            packed = socket.inet_pton(family, address)
            words = [int.from_bytes(packed[k : k + 4], sys.byteorder) for k in range(0, len(packed), 4)]
            text = "".join(f"{word:08X}" for word in words)
            return [text, before + text]
    return []


def listener_at(folder: Path) -> Listener:
    command = (folder / "cmdline").read_bytes().decode(errors="replace").strip("\0").split("\0")
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return Listener(int(folder.name), int(fields[1]), int(fields[17]), tuple(command))


def cpu_s_of(pids: Iterable[int]) -> float:
    """CPU seconds of processes, and of their children that have ended (cutime and cstime in proc(5)).

    Of the living the kernel's clock tells nanoseconds (clock_getcpuclockid(3) makes its number of a process's), where
    /proc counts in hundredths of a second.
    """
    return sum(sum(both) for both in map(cpu_s_of_one, pids))


def cpu_s_of_one(pid: int) -> tuple[float, float]:
    """CPU seconds of a process, and of its children that have ended; zeros where there is none."""
    with contextlib.suppress(OSError):
        fields = (PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
        return time.clock_gettime(~pid << 3 | 2), sum(map(int, fields[13:15])) / os.sysconf("SC_CLK_TCK")
    return 0.0, 0.0


def workers_among(processes: Sequence[Listener]) -> Sequence[Listener]:
    """Those that have no children which listen, too."""
    parents = {one.parent for one in processes}
    return [one for one in processes if one.pid not in parents] or processes


def slots_by_command(found: Iterable[Listener]) -> Slots | None:
    """The slots that the command line of a known server gives; None: another server, its handlers decide, or settings
    from elsewhere may."""
    processes = list(found)
    if not processes:
        return None
    workers, first = workers_among(processes), processes[0]
    program, text = program_of(first.command), " ".join(first.command)
    threads, most = number_after("--threads", text), number_after("--(?:worker-connections|connection-limit)", text)
    if program in ("waitress", "waitress-serve"):
        return Slots(len(workers), min(threads or 4, (most or CONNECTIONS_OF_WAITRESS) - OWN_OF_WAITRESS), False)
    is_other = re.search(r"( -k[ =]?| --worker-cl[a-z]*[ =])(?!gthread|sync)[a-z]", text)
    if program != "gunicorn" or is_other or is_set_elsewhere(first):
        return None
    each = threads or 1
    is_threaded = each > 1 or "gthread" in text
    holds_more = is_threaded and each < (most or math.inf)
    is_one_queue = not holds_more and "--reuse-port" not in text
    return Slots(len(workers), int(min(each, most or math.inf)) if is_threaded else each, is_one_queue)


def number_after(option: str, text: str) -> int | None:
    """The value of an option in a command line; None: it has none."""
    found = re.search(rf"{option}[ =](\d+)", text)
    return int(found[1]) if found else None


def program_of(command: Sequence[str]) -> str:
    """The name of what is run, also by Python.

    >>> program_of(["/venv/bin/python", "-m", "gunicorn", "main:app"])
    'gunicorn'
    """
    names = [Path(word).name for word in command if not word.startswith("-")] or [""]
    return names[1] if names[0].startswith("python") and len(names) > 1 else names[0]


def is_set_elsewhere(gunicorn: Listener) -> bool:
    """Whether gunicorn may have settings from elsewhere than its command line."""
    folder = PROC / str(gunicorn.pid)
    if re.search(r" (-c|--(config|chdir|paste)\b)", " ".join(gunicorn.command)):
        return True
    with contextlib.suppress(OSError):
        is_in_environment = b"GUNICORN_CMD_ARGS=" in (folder / "environ").read_bytes()
        return is_in_environment or (folder / "cwd" / "gunicorn.conf.py").exists()
    return True
