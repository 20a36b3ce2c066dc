"""Run a server until our standard input closes, then end all its processes: python guard.py COMMAND...

The benchmark starts this file in a process group of its own, which the server joins. However the benchmark ends, also
by kill -9, the kernel closes the pipe that is the guard's stdin. Then the guard sends SIGTERM, and SIGKILL after a
grace. The last SIGKILL ends the guard too. If the server ends first, the guard says how. On Linux, processes that have
left the group are ended as well: those whose parents have gone become children of the guard.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

STOP_GRACE_S = 1.5  # what a server gets between SIGTERM and SIGKILL
ADOPT = 36  # PR_SET_CHILD_SUBREAPER of Linux's prctl.h
MOST_ROUNDS = 50  # of killing, for processes that start others meanwhile


def guard(command: list[str]) -> None:
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # its own SIGTERM must not end it; the server's is
        signal.signal(name, lambda *_: None)  # not ignored: a handler is set back to the default by exec
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(ADOPT, 1, 0, 0, 0)
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=stop_when_the_parent_is_gone, daemon=True).start()
    pid = 0
    while pid != server.pid:  # adopted processes end, too
        pid, status = os.waitpid(-1, 0)
    code = os.waitstatus_to_exitcode(status)
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    print(f"the server {how}", file=sys.stderr, flush=True)
    end_all()


def stop_when_the_parent_is_gone() -> None:
    os.read(0, 1)
    os.killpg(0, signal.SIGTERM)
    time.sleep(STOP_GRACE_S)
    end_all()


def end_all() -> None:
    """Everything that is left: descendants in whatever group, then the group, with this process in it."""
    for _ in range(MOST_ROUNDS):
        found = descendants()
        if not found:
            break
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    os.killpg(0, signal.SIGKILL)


def descendants() -> set[int]:
    """Of this process, without those that have ended; none where there is no /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(stat.parent.name)] = int(parent)
    found, more = set[int](), {os.getpid()}
    while more:
        more = {pid for pid, parent in parents.items() if parent in more}
        found |= more
    return found


if __name__ == "__main__":
    guard(sys.argv[1:])
