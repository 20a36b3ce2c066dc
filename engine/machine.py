"""What this machine is and allows: CPUs, timer, open files, and the kernel's counters. Linux tells most of it."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import platform
import re
import resource
import time
from dataclasses import dataclass
from pathlib import Path

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
    with contextlib.suppress(OSError):
        models = re.findall(r"(?m)^model name\s*:\s*(\S.*)$", Path("/proc/cpuinfo").read_text())
        cpu = models[0] if models else cpu
    return Machine(f"{platform.system()} {platform.machine()}", os.cpu_count() or 1, cpu, platform.release())


def kernel_counters() -> dict[str, int]:
    """What TCP had to drop or send again since boot, in this network namespace; empty where the system is not Linux."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/net/netstat").read_text().splitlines()
        names, values = (line.split() for line in lines if line.startswith("TcpExt:"))
        return {name: int(values[names.index(name)]) for name in ("ListenOverflows", "TCPSynRetrans")}
    return {}


def machine_cpu_s() -> float | None:
    """CPU seconds that all programs have used since boot, in steps of 10 ms; None without /proc."""
    with contextlib.suppress(OSError):
        ticks = [int(word) for word in Path("/proc/stat").read_text().split()[1:9]]
        return (sum(ticks) - sum(ticks[3:5])) / os.sysconf("SC_CLK_TCK")  # the fourth and fifth are idle and iowait
    return None


def cpu_seconds(server_s: float | None) -> tuple[float, float]:
    """CPU seconds so far: of the server (as it is given), and of all programs but the server, this process and its
    children that have ended. NaN: not known."""
    all_s = machine_cpu_s()
    if server_s is None or all_s is None:
        return math.nan, math.nan
    return server_s, all_s - server_s - sum(os.times()[:4])


def timer_s() -> float:
    """How many seconds late a process wakes that sleeps for a millisecond: the worst of ten."""
    late_s = 0.0
    for _ in range(10):
        begun_s = time.perf_counter()
        time.sleep(0.001)
        late_s = max(late_s, time.perf_counter() - begun_s - 0.001)
    return late_s


def allowed_cpus() -> set[int]:
    """The CPUs that this process may use."""
    return set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


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
    is_bounded = hard != resource.RLIM_INFINITY
    needed = most_under_way + 64
    if is_scheduled or most_under_way == math.inf:
        needed = min(needed, max(soft, min(hard, 1_048_576) if is_bounded else 65_536))
    elif is_bounded and hard < needed:
        raise Problem(
            f"{most_under_way:.10g} requests at once need {needed:.10g} open files; {hard} are allowed (ulimit -Hn)"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(needed), hard))
