"""What this machine is and allows: CPUs, timer, open files, and the kernel's counters. Linux tells most of it."""

import contextlib
import functools
import math
import os
import platform
import re
import resource
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.words import Problem


@dataclass(frozen=True)
class Machine:
    """The machine that measured, as the JSON names it."""

    system: str
    cpus: int
    cpu: str  # the model, as far as the system tells
    kernel: str


@functools.cache
def about_machine() -> Machine:
    cpu = platform.processor()
    with contextlib.suppress(OSError, IndexError):
        cpu = re.findall(r"(?m)^model name\s*:\s*(\S.*)$", Path("/proc/cpuinfo").read_text())[0]
    return Machine(f"{platform.system()} {platform.machine()}", os.cpu_count() or 1, cpu, platform.release())


CGROUPS = Path("/sys/fs/cgroup")


def cgroup_folders() -> list[Path]:
    """Of this process's control group (cgroup v2) and those around it, as far as they limit CPU time."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        inner = CGROUPS / next(line[3:] for line in lines if line.startswith("0::")).lstrip("/")
        return [one for one in (inner, *inner.parents) if (one / "cpu.max").exists()]
    return []


def cpu_limit() -> float:
    """How many CPUs the control group of this process may use, as a container has it; inf: no limit."""
    limits = [math.inf]
    for folder in cgroup_folders():
        quota, period = (folder / "cpu.max").read_text().split()
        limits += [] if quota == "max" else [int(quota) / int(period)]
    return min(limits)


def throttled_us() -> int:
    """For how long the control group had to wait, as it had used its CPU time: microseconds since it began."""
    texts = [(folder / "cpu.stat").read_text() for folder in cgroup_folders() if (folder / "cpu.stat").exists()]
    return max((int(us) for text in texts for us in re.findall(r"throttled_usec (\d+)", text)), default=0)


def counters(server_s: float | None) -> dict[str, Any]:
    """What counts up since boot, as far as the system tells; a run compares two readings.

    ListenOverflows, TCPSynRetrans: what TCP had to drop or send again, in this network namespace. throttled_us: see
    throttled_us(). server and others: CPU seconds of the server, as they are given, and of all programs but the server,
    this process and its children that have ended, in steps of 10 ms.
    """
    found: dict[str, Any] = {}
    with contextlib.suppress(OSError):  # it is Linux that has these files
        lines = Path("/proc/net/netstat").read_text().splitlines()
        names, values = (line.split() for line in lines if line.startswith("TcpExt:"))
        found = {name: int(values[names.index(name)]) for name in ("ListenOverflows", "TCPSynRetrans")}
        found["throttled_us"] = throttled_us()
        if server_s is not None:
            user, nice, system, _idle, _waiting, *others = map(int, Path("/proc/stat").read_text().split()[1:9])
            all_s = (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")
            found |= {"server": server_s, "others": all_s - server_s - sum(os.times()[:4])}
    return found


def had_to_resend(sock: socket.SocketType) -> bool:
    """Whether TCP sent something again on this connection, as Linux counts it (tcp_info.tcpi_total_retrans)."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    except (AttributeError, OSError):  # it is Linux that has it
        return False
    return int.from_bytes(info[100:104], sys.byteorder) > 0


def timer_s() -> float:
    """How many seconds late a process wakes that sleeps for a millisecond: the worst of ten."""
    slept_s = []
    for _ in range(10):
        begun_s = time.perf_counter()
        time.sleep(0.001)
        slept_s.append(time.perf_counter() - begun_s)
    return max(slept_s) - 0.001


def allowed_cpus() -> set[int]:
    """The CPUs that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


AT_START = allowed_cpus()  # before this process is pinned, as the client


def pin(pid: int, cpus: set[int]) -> None:
    """Keep a process (0: this one) and its children on some CPUs. Raises Problem where that is not possible."""
    try:
        os.sched_setaffinity(pid, cpus)
    except (AttributeError, OSError) as error:
        raise Problem(f"cannot pin to CPUs {sorted(cpus)} on this system: {error}") from None


def check_file_limit(most_under_way: float, is_scheduled: bool) -> None:
    """Raise the soft limit of open files as far as a load needs it; for a schedule or no limit, as far as is allowed.

    Raises Problem if so many requests at once are more than the hard limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 1_048_576)
    if most < most_under_way + 64 < math.inf and not is_scheduled:
        raise Problem(f"{most_under_way:.10g} requests at once need more open files than {most} (ulimit -Hn)")
    needed = int(min(most_under_way + 64, most))
    if 0 <= soft < needed:  # -1: no limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
