"""Which other programs compute on this machine, by process, and which work for the service.

Linux tells it; elsewhere no program is named.

Two readings, before a load and after it. Our own processes do not count: this one, what it has started, and the
processes of a server that ran before.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from engine.listeners import LISTENS, sockets_in

PROC = Path("/proc")
LEAST = 0.03  # of a CPU: a process that uses less is not named
MOST_NAMED = 4
KERNEL, PF_KTHREAD = "kernel threads", 0x00200000  # a flag in /proc/*/stat: linux/sched.h
ESTABLISHED = "01"  # the state in /proc/net/tcp


@dataclass(frozen=True)
class Neighbour:
    """Programs of one name that are not ours."""

    name: str
    cpus: float  # how many CPUs they used, the mean
    is_connected: bool  # one of them has a connection from the service


class Usage(NamedTuple):
    """Of a process."""

    name: str
    parent: int
    cpu_s: float


def usage() -> dict[int, Usage]:
    """Of every process, by its pid."""
    found = {}
    ticks = os.sysconf("SC_CLK_TCK")
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended
            name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
            fields = rest.split()
            name = KERNEL if int(fields[6]) & PF_KTHREAD else name  # their own names say what they do this moment
            found[int(folder.name)] = Usage(name, int(fields[1]), sum(map(int, fields[11:13])) / ticks)
    return found


def neighbours(
    before: Mapping[int, Usage], after: Mapping[int, Usage], took_s: float, own: Iterable[int]
) -> tuple[Neighbour, ...]:
    """Processes that computed between two readings, most first.

    own: processes that are ours, with all that they have started.
    """
    ours = family(after, own)
    used_s, pids = defaultdict[str, float](float), defaultdict[str, set[int]](set)
    for pid, now in after.items():
        if pid not in ours:
            begun_s = before[pid].cpu_s if pid in before else 0.0  # by whatever name: kernel threads change theirs
            used_s[now.name] += now.cpu_s - (begun_s if begun_s <= now.cpu_s else 0.0)  # its pid is of another by now
            pids[now.name].add(pid)
    most = sorted((cpu_s / took_s, name) for name, cpu_s in used_s.items() if cpu_s >= LEAST * took_s)[::-1]
    peers = peers_of(ours) if most else set()
    return tuple(
        Neighbour(name, cpus, any(has_socket(pid, peers) for pid in pids[name])) for cpus, name in most[:MOST_NAMED]
    )


def family(processes: Mapping[int, Usage], roots: Iterable[int]) -> set[int]:
    """Processes with all that they have started."""
    children = defaultdict[int, list[int]](list)
    for pid, one in processes.items():
        children[one.parent].append(pid)
    found, left = set[int](), list(roots)
    while left:
        pid = left.pop()
        if pid not in found:
            found.add(pid)
            left += children[pid]
    return found


def peers_of(pids: Collection[int]) -> set[str]:
    """The other ends, on this machine, of the connections that processes have opened: inodes, as "socket:[7]"."""
    rows = sockets_in(ESTABLISHED)
    inode_at = {(row[1], row[2]): f"socket:[{row[9]}]" for row in rows}
    own = {name for pid in pids for name in sockets_of(pid)}
    listening = {row[1].rpartition(":")[2] for row in sockets_in(LISTENS)}  # what comes in there is a client's
    opened = [row for row in rows if f"socket:[{row[9]}]" in own and row[1].rpartition(":")[2] not in listening]
    ends = [inode_at.get((row[2], row[1])) for row in opened]
    return {end for end in ends if end} - own


def sockets_of(pid: int) -> set[str]:
    """What a process has open, as far as it may be seen."""
    found = set()
    with contextlib.suppress(OSError):
        for one in (PROC / f"{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(os.readlink(one))
    return {name for name in found if name.startswith("socket:")}


def has_socket(pid: int, inodes: Collection[str]) -> bool:
    return bool(inodes) and not sockets_of(pid).isdisjoint(inodes)
