"""The access log as it grows: a line on the terminal when a handler starts; and a line that comes from there."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

from engine.access_log import request_lines
from engine.progress import CLEAR
from engine.tables import live_line

MOST_LINES = 60  # then the terminal has seen enough; the file has all


class LiveLog:
    """Shows the requests of a log that start from now on, in a thread of its own, until stop().

    out: where; None: on standard output.
    """

    def __init__(self, path: Path, out: TextIO | None = None) -> None:
        self.path, self.begins, self.out = path, path.stat().st_size, out
        self.workers: dict[int, str] = {}
        self.shown = 0
        self.has_ended = threading.Event()
        self.thread = threading.Thread(target=self.follow, daemon=True)
        self.thread.start()

    def follow(self) -> None:
        with self.path.open("rb") as log:
            log.seek(self.begins)
            rest = b""
            while True:
                is_last = self.has_ended.wait(0.05)
                *lines, rest = (rest + log.read()).split(b"\n")
                self.show(b"\n".join(lines).decode(errors="replace"))
                if is_last:
                    return

    def show(self, text: str) -> None:
        for line in request_lines(text, starts=True):
            name = self.workers.setdefault(line.pid, f"worker{len(self.workers)}")
            self.shown += 1
            if self.shown <= MOST_LINES:
                self.print(live_line(line, name))
            elif self.shown == MOST_LINES + 1:
                self.print(f"  ... more in {self.path}")

    def print(self, line: str) -> None:
        """In place of the line that moves, which is drawn again below it."""
        print(f"{CLEAR}{line}", file=self.out, flush=True)

    def stop(self) -> None:
        self.has_ended.set()
        self.thread.join(2)


def has_line(timeout_s: float) -> bool:
    """Whether a line has come on standard input; waits so long for it."""
    if not sys.stdin or sys.stdin.closed or is_in_background():
        time.sleep(timeout_s)
        return False
    with contextlib.suppress(OSError, ValueError):  # nohup gives a standard input that cannot be read
        if not select.select([sys.stdin], [], [], timeout_s)[0]:
            return False
        if sys.stdin.readline():
            return True
    with contextlib.suppress(OSError):
        sys.stdin.close()  # its end
    return False


def is_in_background() -> bool:
    """Whether standard input is a terminal that another job reads: to read from it would stop this one."""
    with contextlib.suppress(OSError, ValueError):
        return os.isatty(sys.stdin.fileno()) and os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp()
    return False
