"""Run a server until our standard input closes, then end its whole process group: python guard.py COMMAND...

The benchmark starts this file in a process group of its own, which the server joins. However the benchmark ends, also
by kill -9, the kernel closes the pipe that is the guard's stdin. Then the guard sends SIGTERM, and SIGKILL after a
grace. The last SIGKILL ends the guard too. If the server ends first, the guard says how.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

STOP_GRACE_S = 1.5  # what a server gets between SIGTERM and SIGKILL


def guard(command: list[str]) -> None:
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # its own SIGTERM must not end it; the server's is
        signal.signal(name, lambda *_: None)  # not ignored: a handler is set back to the default by exec
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=stop_when_the_parent_is_gone, daemon=True).start()
    code = server.wait()
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    print(f"the server {how}", flush=True)
    os.killpg(0, signal.SIGKILL)  # workers that outlived their master


def stop_when_the_parent_is_gone() -> None:
    os.read(0, 1)
    os.killpg(0, signal.SIGTERM)
    time.sleep(STOP_GRACE_S)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    guard(sys.argv[1:])
