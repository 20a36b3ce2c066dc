"""Requests by themselves, one after the other, before a run: whether the service is warm, and when to stop.

The first request after a start often takes longer: it opens a connection, fills a cache, imports a module. A run is
predicted from the requests after it. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

LONE_S = 0.5  # requests that are alike end after so long
MOST, MOST_S = 12, 5.0  # and requests that are not alike end with so many, or after so long
FAR, FAR_S = 2.0, 0.05  # so many times as long as those after it, and so much more: a cold request
ALIKE, ALIKE_S = 0.25, 0.01  # how much two may differ

Times = Sequence[float]  # seconds, of one request each, in order


@dataclass(frozen=True)
class First:
    """The very first request, before a server is warmed up."""

    time_s: float
    line: str | None = None  # of code, where it stood for most of that time, as seen inside; None: not known


@dataclass(frozen=True)
class Alone:
    """The requests by themselves before a run, of one kind."""

    asked: str  # "GET /items"
    requests: int
    cold: int  # of them: the first ones, each far longer than those after it
    first_s: float
    usual_s: float  # the median of the others; of all, where none is cold
    least_s: float  # of those that the median is of
    most_s: float
    are_alike: bool  # the last of them
    first_line: str | None = None  # where a cold first one stood for most of its time, as seen inside; None: not known


def cold_requests(times_s: Times) -> int:
    """How many requests at the beginning took far longer than those after them.

    >>> cold_requests([0.842, 0.3, 0.054, 0.055]), cold_requests([0.054, 0.842, 0.055])
    (2, 0)
    """
    cold = 0
    while cold < len(times_s) - 1 and is_far(times_s[cold], median(times_s[cold + 1 :])):
        cold += 1
    return cold


def is_far(time_s: float, usual_s: float) -> bool:
    return time_s > FAR * usual_s + FAR_S


def are_alike(times_s: Times, processes: int = 1) -> bool:
    """Whether the last requests took nearly the same time: two; three where each of several processes can be cold."""
    least = 2 if processes < 2 else 3
    last = sorted(times_s[-least:])
    return len(last) == least and last[-1] - last[0] <= ALIKE * last[0] + ALIKE_S


def asks_again(times_s: Times, usual: int, processes: int = 1, most_s: float = MOST_S) -> bool:
    """Whether one more request by itself is needed after these. usual: how many there are where all are alike. most_s:
    what they may take.

    One request alone cannot be compared: a second one shows whether the first was cold.
    """
    if usual < 2 or not times_s:
        return len(times_s) < usual
    if len(times_s) >= max(usual, MOST) or (len(times_s) > 1 and sum(times_s) > most_s):
        return False
    warm_s = times_s[cold_requests(times_s) :]
    if not are_alike(warm_s, processes):
        return True
    return len(times_s) < usual and sum(warm_s) <= LONE_S


def alone_of(asked: str, times_s: Times, first: First | None = None, processes: int = 1) -> Alone | None:
    """What the requests by themselves show; None where there is no second one. first: before a warm-up."""
    all_s = [first.time_s, *times_s] if first else [*times_s]
    if len(all_s) < 2:
        return None
    cold = cold_requests(all_s)
    warm_s = all_s[cold:]
    return Alone(
        asked, len(all_s), cold, all_s[0], median(warm_s), min(warm_s), max(warm_s), are_alike(warm_s, processes),
        first.line if first and cold else None,
    )  # fmt: skip
