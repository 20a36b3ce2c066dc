"""Where requests stand, and what limits them there: the records of it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

# ---------------------------------------------------------------- what limits


class Resource(str, Enum):
    """What a server can run out of."""

    SLOTS = "slots"
    POOL = "pool"
    CPU = "cpu"
    CLIENT = "client"
    MACHINE = "machine"  # the CPUs that client and server share
    BACKLOG = "backlog"
    ARRIVALS = "arrivals"  # nothing ran out: all that was offered was served
    NONE = "none"  # nothing that we can see ran out


@dataclass(frozen=True)
class Limit:
    """A resource, how busy it was, and the requests/s at which it would be full."""

    resource: str  # a Resource, or what the requests wait for by its name, where they were seen to wait
    busy: float  # 0 to 1
    ceiling_rps: float | None = None
    slots: float | None = None  # how many requests can have it at a time
    held_s: float | None = None  # by each request: a slot, or a CPU
    cpus: int | None = None  # of CPU: that the server's processes can use; of MACHINE: that both can
    from_answers: bool = False  # the slots were read from the answers, not from settings
    line: str | None = None  # where the requests were seen to wait
    waiting: float | None = None  # how many, the mean
    setting: str | None = None
    size_line: str | None = None
    is_sized: bool = True  # the slots are the size of the live object, not what was seen to go on
    size: float | None = None  # of the live object, where requests do not have all of it; None: they have, or not known
    parts: float = 1.0  # of the live object that each request has at a time
    objects: int = 1  # that requests wait for at this line, in one process: how they share the slots was not seen
    size_of_each: float | None = None  # where each of several processes has one of its own
    more_lines: int = 0  # that block the event loop, besides the one that does so most
    next_slots: float | None = None  # what would be the limit with more of it: the next resource in use

    @property
    def is_used_beside(self) -> bool:
        """CPU time of which a good part was used by no request, so that it allows no rate that is known."""
        return self.resource == Resource.CPU and self.held_s is None


# ---------------------------------------------------------------- where requests stand


@dataclass(frozen=True)
class Opening:
    """Connections that a pool opens again and again, as it does not keep all that it may have."""

    pool: str  # its name
    kept: int
    most: int | None  # None: without a limit
    requests: float  # that open one at a time, the mean
    line: str | None  # of the app, where they do so


class State(str, Enum):
    """What the requests at a place do."""

    WAITING = "waiting"  # for something that other requests hold
    WORKING = "working"  # they are worked on, and hold what they have
    BLOCKING = "blocking"  # they run on the event loop's thread, and no other request can
    ANSWERED = "answered"  # the client has its answer, and they still hold what they have
    QUEUED = "queued"  # no process has seen them yet
    BESIDE = "beside"  # no requests: a thread or task of its own, which takes CPU time


@dataclass(frozen=True)
class Spot:
    """A place in the code, and what stands there."""

    requests: float  # the mean
    state: State
    line: str | None = None  # "app/db.py:12", of the app's innermost frame; None: no code of the app
    function: str | None = None
    below: tuple[str, ...] = ()  # frames inside of that line; without a line, the innermost of all
    phase: str | None = None  # without a line: before or after the handler, where that is known
    handler: str | None = None  # without a line: the function that handles these requests, where that is known
    resource: str | None = None  # what they wait for
    setting: str | None = None  # what sets its size
    size: float | None = None
    used: float | None = None
    size_line: str | None = None  # where the object was made
    share: float = 1.0  # of the samples that have this place
    cpu_s: float = 0.0  # computed there; Linux
    processes: int = 1
    objects: int = 1  # of what they wait for, in one process
    through: tuple[str, ...] = ()  # functions of the app on the way there, outermost first
    most: float = 0.0  # requests at a time
    parts: float = 1.0  # tasks or threads for each time that a request has what others wait for, the mean
    is_after: bool = False  # its requests are answered already
    size_of_each: float | None = None  # of one of several objects, one in each process, that are counted together here
    made_size: float | None = None  # of a semaphore that has been released more often than taken, so that more have it
    held_to: int | None = field(default=None, metadata={"json": False})  # last line of the function that has it
    tasks: float = field(default=0.0, metadata={"json": False})  # or threads of all requests there, the mean
    owners: frozenset[int] = field(default=frozenset(), metadata={"json": False})  # the objects that are waited for
    there: float = field(default=0.0, metadata={"json": False})  # requests with any part of theirs, the mean
    # Of each function of `through`, the line there, and the end of the with statement that begins there; (): not all
    # came the same way.
    calls: tuple[tuple[int, int | None], ...] = field(default=(), metadata={"json": False})
    is_given_up: bool = field(default=False, metadata={"json": False})  # some go on without what they wait for
    has_nothing: bool = field(default=False, metadata={"json": False})  # no code of the app has run for its requests


class Computing(NamedTuple):
    """What used the CPU, over the whole run."""

    samples: int
    cpu_s: float  # of the processes
    places: tuple[Spot, ...]  # where that was seen; most first


@dataclass(frozen=True)
class Where:
    """Where the requests stood while the load was fullest."""

    samples: int
    cost: float  # of a CPU, 0 to 1
    requests: float  # under way, the mean
    places: tuple[Spot, ...]  # most requests first
    persistent: tuple[str, ...] = ()  # resources that requests waited for as long as the load was at least half full
    blocked: float = 0.0  # how often the event loop, of the process where that is most, was busy: 0 to 1
    circle: tuple[str, ...] = ()  # resources whose holders wait for each other, so that nothing goes on
    circle_at: float | None = None  # as many requests make such a standstill
    opening: Opening | None = None
    blocks: tuple[Spot, ...] = ()  # what the event loop runs, over the whole of a load that goes on
    computing: Computing | None = field(default=None, metadata={"json": False})
    limit: Limit | None = field(default=None, metadata={"json": False})  # stands in the verdict


def line_of(frame: Sequence[Any] | None, folder: str) -> str | None:
    """File, line and function as "app/db.py:12"."""
    return f"{named(frame[0], folder)}:{frame[1]}" if frame else None


def named(file: str, folder: str) -> str:
    """A file as a reader knows it: from the app's folder, or from where packages are."""
    if file.startswith(os.path.join(folder, "")) and "-packages/" not in file:
        return os.path.relpath(file, folder)
    return re.sub(r".*(?:-packages|/python3\.\d+)/", "", file)
