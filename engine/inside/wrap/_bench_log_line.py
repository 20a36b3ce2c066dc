"""The lines of the access log: the server's process writes them, the benchmark reads them, both with what stands here.

    [2026-11-20 17:04:15.123] [pid-4711] GET /io 200 1.0012s #7 @5123.456789
    [2026-11-20 17:04:15.123] [pid-4711] GET /csv 200 1.0012s #7 @5123.456789 in 11 parts
    [2026-11-20 17:04:15.123] [pid-4711] starts GET /io #7
    [2026-11-20 17:04:15.123] [pid-4711] ready

A request line has the status, the duration, and what matches it to a client's record: the request's X-Request-Id (or
-) and the handler's start on the system's monotonic clock, in seconds. The stamp is the *start* of the handler: a
server's own log stamps the end, which hides the wait for a slot. `starts` is written at that start, where a log is
shown live. The line with the duration can only be written at the end. `in 11 parts`: a `def` generator made the body,
each part in one of AnyIO's threads.
"""

import os
import re
import time
from datetime import datetime
from urllib.parse import quote

ZONE = datetime.now().astimezone().tzinfo  # as it is before the app is loaded: Django changes it
REQUEST_LINE = re.compile(  # stamp, pid, method, path, status, duration, request, start, parts
    r"\[([^\]]+)\] \[pid-(\d+)\] (?:starts )?(\S+) (\S*)(?: (\S+) ([\d.]+)s)? #(\d+|-)"
    r"(?: @([\d.]+))?(?: in (\d+) parts)?"
)
WORD_LINE = re.compile(  # pid, word, the number that follows it
    r"^\[[^\]]+\] \[pid-(\d+)\] (ready|forks|threads) ?(\d*)$", re.MULTILINE
)


def log_line(text: str, wall_s: float | None = None) -> bytes:
    """A line of this process; wall_s: the time.time() of its stamp, else now."""
    stamp = datetime.fromtimestamp(wall_s or time.time(), ZONE).replace(tzinfo=None)
    return f"[{stamp.isoformat(' ', 'milliseconds')}] [pid-{os.getpid()}] {text}\n".encode()


def quoted(method: str, target: str, request: str) -> tuple[str, str]:
    """A request's method and target as one text, and its number, so that nothing that a client sends breaks a line."""
    return f"{quote(method)} {quote(target, safe='/?&=%:,+;@')[:2000]}", quote(request)[:100]
