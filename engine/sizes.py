"""How many slots for an objective, and the highest rate of so many slots. Pure.

Random (Poisson) arrivals in one queue, each request holding its slot for a constant time: M/D/c. 600,000 arrivals of
fixed seeds go through the recursion of model.py; the same arrivals for every question, only closer together, so that
more slots or fewer requests/s never look worse. What chance leaves is some 1 % of a wait.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
import random
from dataclasses import dataclass
from typing import NamedTuple

from engine.model import NO_LIMIT
from engine.words import Problem, duration, per_cent, plural

MOST_SLOTS = 10_000
ARRIVALS, SEEDS = 200_000, 3  # of each simulation
POSTGRES_CONNECTIONS = 97  # max_connections 100, less superuser_reserved_connections 3


@functools.cache
def unit_arrivals(seed: int) -> list[float]:
    """When requests arrive at one a second."""
    dice = random.Random(seed)
    return list(itertools.accumulate(dice.expovariate(1.0) for _ in range(ARRIVALS)))


@functools.lru_cache(1024)
def wait_quantiles_s(rate_rps: float, held_s: float, slots: int, per_cents: tuple[float, ...]) -> tuple[float, ...]:
    """The waits for a slot that so many per cent of the requests do not exceed.

    The recursion start[n] = max(arrival[n], start[n - S] + t), S requests at a time.

    >>> [round(wait_s * 1000) for wait_s in wait_quantiles_s(256, 0.05, 16, (50, 95, 99))]
    [0, 16, 27]
    """
    waits_s: list[float] = []  # of those that waited
    for seed in range(SEEDS):
        arrivals = unit_arrivals(seed)
        starts_s = [-math.inf] * slots
        for first in range(0, ARRIVALS, slots):
            due_s = [unit_s / rate_rps for unit_s in arrivals[first : first + slots]]
            starts_s = [max(now_s, before_s + held_s) for now_s, before_s in zip(due_s, starts_s, strict=False)]
            waits_s += [start_s - now_s for start_s, now_s in zip(starts_s, due_s, strict=True) if start_s > now_s]
    waits_s.sort()
    at_once = SEEDS * ARRIVALS - len(waits_s)  # began at once
    ranks = [math.ceil(SEEDS * ARRIVALS * share / 100) - 1 - at_once for share in per_cents]
    return tuple(waits_s[rank] if rank >= 0 else 0.0 for rank in ranks)


@dataclass(frozen=True)
class AtSize:
    """What random arrivals at a rate get from so many slots in one queue, in the long run."""

    slots: float
    rate_rps: float
    load: float  # rate x held / S
    latency_s: dict[float, float]  # p50, p95, p99, and the percentile of the objective; {}: the queue only grows
    holds: bool


@dataclass(frozen=True)
class Size:
    rate_rps: float
    wait_s: float
    cpu_s: float
    cpus: float
    percentile: float
    objective_s: float
    below: AtSize  # one slot fewer: does not hold
    fits: AtSize  # the fewest slots that hold
    above: AtSize
    more_traffic: AtSize  # the same slots at 1.2 times the rate
    slots_for_more: int | None  # what that would need; None: no number is enough
    longest_s: float  # the size holds until a request takes so long by itself
    cpu_busy: float  # the share of the CPUs


@dataclass(frozen=True)
class Asked:
    """A rate, what a request takes, and the objective: that percentile of the latency within objective_s."""

    rate_rps: float
    wait_s: float
    objective_s: float
    percentile: float = 99
    cpu_s: float = 0.0  # what a request computes besides its wait
    cpus: float = 1

    @property
    def held_s(self) -> float:
        return self.wait_s + self.cpu_s

    def at(self, slots: float, factor: float = 1.0) -> AtSize:
        """What so many slots give at `factor` times the rate.

        Two queues: for a slot (held t + s), for a CPU (held s). The longer wait counts, as only one of them is long
        unless both are nearly full.
        """
        rate_rps = self.rate_rps * factor
        stations = [(self.cpu_s, max(1, int(self.cpus)))] if self.cpu_s else []
        if slots < NO_LIMIT:
            stations.append((self.held_s, int(slots)))
        latency_s: dict[float, float] = {}
        if all(rate_rps * each_s < servers for each_s, servers in stations):
            wanted = (50.0, 95.0, 99.0, self.percentile)
            of_stations = [wait_quantiles_s(rate_rps, each_s, n, wanted) for each_s, n in stations] or [(0.0,) * 4]
            longest_s = map(max, zip(*of_stations, strict=True))
            latency_s = {p: self.held_s + wait_s for p, wait_s in zip(wanted, longest_s, strict=True)}
        holds = latency_s.get(self.percentile, math.inf) <= self.objective_s * (1 + 1e-9)
        return AtSize(slots, rate_rps, rate_rps * self.held_s / slots, latency_s, holds)

    def slots(self, factor: float = 1.0) -> int:
        """The fewest slots that hold. Raises Problem, with the reason, where no number is enough."""
        rate_rps = self.rate_rps * factor
        if self.objective_s < self.held_s:
            raise Problem(
                f"no request is answered within {duration(self.objective_s)}: each takes {duration(self.held_s)} by"
                " itself"
            )
        of_cpu = self.at(NO_LIMIT, factor)
        if not of_cpu.holds:
            raise Problem(
                f"{rate_rps:g} requests/s keep {plural(self.cpus, 'CPU')} {per_cent(rate_rps * self.cpu_s / self.cpus)}"
                f" busy, and p{self.percentile:g} would be {duration(of_cpu.latency_s.get(self.percentile, math.inf))}:"
                " no number of slots helps"
            )
        low = high = int(rate_rps * self.held_s) + 1  # the fewest that are stable
        while not self.at(high, factor).holds:
            low, high = high + 1, 2 * high - low + 4
        return bisect.bisect_left(range(high), True, low, key=lambda slots: self.at(slots, factor).holds)


def size(asked: Asked) -> Size:
    """The fewest slots for an objective, what they give, and what is near. Raises Problem, with the reason.

    >>> [size(Asked(*one)).fits.slots for one in ((256, 0.05, 0.1), (256, 0.05, 0.06), (100, 0.2, 0.25))]
    [15, 20, 27]
    """
    if asked.rate_rps <= 0 or asked.held_s <= 0:
        raise Problem("no request needs a slot: say how many there are (--rate), and how long each waits (--wait)")
    if asked.rate_rps * asked.held_s > 0.9 * MOST_SLOTS:
        raise Problem(f"{asked.rate_rps * asked.held_s:g} requests at a time: at most {MOST_SLOTS} slots are computed")
    slots = asked.slots()
    try:
        slots_for_more = asked.slots(1.2)
    except Problem:
        slots_for_more = None
    return Size(
        asked.rate_rps, asked.wait_s, asked.cpu_s, asked.cpus, asked.percentile, asked.objective_s,
        below=asked.at(max(1, slots - 1)), fits=asked.at(slots), above=asked.at(slots + 1),
        more_traffic=asked.at(slots, 1.2), slots_for_more=slots_for_more, longest_s=longest_s(asked, slots),
        cpu_busy=asked.rate_rps * asked.cpu_s / asked.cpus,
    )  # fmt: skip


def longest_s(asked: Asked, slots: int) -> float:
    """How long a request may take by itself until so many slots no longer hold; to 1 %."""
    low_s, high_s = asked.held_s, min(asked.objective_s, slots / asked.rate_rps)
    while high_s - low_s > 0.01 * high_s:
        middle_s = (low_s + high_s) / 2
        holds = Asked(asked.rate_rps, middle_s, asked.objective_s, asked.percentile).at(slots).holds
        low_s, high_s = (middle_s, high_s) if holds else (low_s, middle_s)
    return low_s


def highest_rate(slots: float, wait_s: float, objective_s: float, percentile: float = 99) -> float:
    """The most requests/s of random arrivals at which that percentile is within the objective; to 0.5 %.

    >>> round(highest_rate(16, 0.05, 0.1), -1)
    280.0
    """
    if wait_s <= 0 or objective_s < wait_s:
        raise Problem(f"no request is answered within {duration(objective_s)}: each takes {duration(wait_s)} by itself")
    slots = min(slots, MOST_SLOTS)
    low, high = 0.0, slots / wait_s
    while high - low > 0.005 * high:
        middle = (low + high) / 2
        holds = Asked(middle, wait_s, objective_s, percentile).at(slots).holds
        low, high = (middle, high) if holds else (low, middle)
    return low


class Setting(NamedTuple):
    """So many slots in the words of one kind of server."""

    server: str
    settings: str
    is_shared: bool  # all slots are behind one queue; else each process has a queue of its own
    note: str


def settings_for(slots: int, processes: int = 1, each_if_split: int | None = None) -> list[Setting]:
    """So many slots in each server's own settings; of several processes each gets its part, rounded up.

    each_if_split: slots of a process that has a queue of its own: more, since a request cannot change the queue.
    Sources: gunicorn issues 908 and 3433 (worker_connections); anyio CapacityLimiter; waitress connection_limit.
    """
    each = math.ceil(slots / processes)
    is_shared = processes == 1
    alone = each if is_shared else each_if_split or each
    gthread = f"gunicorn -k gthread --workers {processes} --threads {each}"
    gthread_note = "one process, one queue"
    if processes > 1:
        gthread += f" --worker-connections {each}"
        gthread_note = "the last option joins the queues, and no connection is kept"
    connections = f" --connection-limit {4 * slots}" if slots >= 50 else ""  # 100 by default, kept ones included
    uvicorn = f"--workers {processes}" + (f", {processes * alone} in all" if processes > 1 else "")
    limiter = f"anyio.to_thread.current_default_thread_limiter().total_tokens = {alone}"
    pool = f"create_engine(pool_size={alone}, max_overflow=0) or ConnectionPool(max_size={alone})"
    return [
        Setting("gunicorn threads", gthread, True, gthread_note),
        Setting("gunicorn sync", f"gunicorn --workers {slots}", True, "one queue, and no connection is kept"),
        Setting("waitress", f"waitress-serve --threads {slots}{connections}", True, "one process, one queue, one CPU"),
        Setting("uvicorn, def", limiter, is_shared, f"{uvicorn}; set it in the lifespan, 40 is the default"),
        Setting("uvicorn, async def", pool, is_shared, f"{uvicorn}; the pool is the limit"),
    ]
