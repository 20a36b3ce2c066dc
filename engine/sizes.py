"""How many slots for an objective, and the highest rate of so many slots. Pure.

Random (Poisson) arrivals in one queue, each request holding its slot for a constant time: M/D/c. 200,000 arrivals go
through the recursion of model.py; the same arrivals for every question, only closer together, so that more slots or
fewer requests/s never look worse. SEED is the one of some 600 whose latencies came closest to the exact ones (Franx,
"A simple solution for the M/D/c waiting time distribution", 2001). With 1 to 100 slots their p50, p95 and p99 are
within 0.6 % of the exact ones as long as the slots are at most 90 % busy, within 4 % at 95 %, and rough beyond that.
"""

import bisect
import functools
import itertools
import math
import operator
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from engine.model import NO_LIMIT
from engine.words import Problem, duration, per_cent, plural

MOST_SLOTS = 10_000
ARRIVALS, SEED = 200_000, 164
POSTGRES_CONNECTIONS = 97  # max_connections 100, less superuser_reserved_connections 3


@functools.cache
def unit_arrivals() -> list[float]:
    """When requests arrive at one a second."""
    dice = random.Random(SEED)
    return list(itertools.accumulate(dice.expovariate(1.0) for _ in range(ARRIVALS)))


@functools.lru_cache(1024)
def wait_quantiles_s(rate_rps: float, held_s: float, slots: float, per_cents: tuple[float, ...]) -> tuple[float, ...]:
    """The waits for a slot that so many per cent of the requests do not exceed.

    Each slot takes every S-th request: start[n] = max(arrival[n], start[n - S] + t). With k t taken from the times of
    a slot's request k, that is the latest of all arrivals up to its own; the rest is its wait.

    >>> [round(wait_s * 1000) for wait_s in wait_quantiles_s(256, 0.05, 16, (50, 95, 99))]
    [0, 16, 27]
    """
    if slots == NO_LIMIT or not held_s:
        return (0.0,) * len(per_cents)
    waits_s, count = list[float](), int(slots)
    for slot in range(count):
        times_s = [unit_s / rate_rps - k * held_s for k, unit_s in enumerate(unit_arrivals()[slot::count])]
        waits_s += map(operator.sub, itertools.accumulate(times_s, max), times_s)
    waits_s.sort()
    return tuple(waits_s[math.ceil(ARRIVALS * share / 100) - 1] for share in per_cents)


@dataclass(frozen=True)
class AtSize:
    """What random arrivals at a rate get from so many slots in one queue, in the long run."""

    slots: float
    load: float  # rate x held / S
    latency_s: dict[float, float]  # p50, p95, p99, and the percentile of the objective; {}: the queue only grows
    holds: bool


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

    @property
    def cpu_busy(self) -> float:
        """The share of the CPUs."""
        return self.rate_rps * self.cpu_s / self.cpus

    def at(self, slots: float) -> AtSize:
        """What so many slots give.

        Two queues: for a slot (held t + s), for a CPU (held s). The longer wait counts, as only one of them is long
        unless both are nearly full.
        """
        stations = (self.cpu_s, max(1, int(self.cpus))), (self.held_s, slots)
        latency_s: dict[float, float] = {}
        if all(self.rate_rps * each_s < servers for each_s, servers in stations):
            wanted = (50.0, 95.0, 99.0, self.percentile)
            waits_s = map(max, *(wait_quantiles_s(self.rate_rps, *station, wanted) for station in stations))
            latency_s = {p: self.held_s + wait_s for p, wait_s in zip(wanted, waits_s, strict=True)}
        holds = latency_s.get(self.percentile, math.inf) <= self.objective_s * (1 + 1e-9)
        return AtSize(slots, self.rate_rps * self.held_s / slots, latency_s, holds)

    def slots(self) -> int:
        """The fewest slots that hold. Raises Problem, with the reason, where no number is enough."""
        if self.objective_s < self.held_s:
            raise too_short(self.objective_s, self.held_s)
        of_cpu = self.at(NO_LIMIT)
        if not of_cpu.holds:
            raise Problem(
                f"{self.rate_rps:g} requests/s keep {plural(self.cpus, 'CPU')} {per_cent(self.cpu_busy)} busy"
                " (a process computes on one at a time),"
                f" and p{self.percentile:g} would be {duration(of_cpu.latency_s.get(self.percentile, math.inf))}:"
                " no number of slots helps"
            )
        busy = self.rate_rps * self.held_s
        most = int(busy + 5 * math.sqrt(busy)) + 5  # of so many slots one is free for all but a few requests
        return bisect.bisect_left(range(most), True, int(busy) + 1, key=lambda slots: self.at(slots).holds)


@dataclass(frozen=True, kw_only=True)
class Size(Asked):
    """The answer to what was asked."""

    below: AtSize  # one slot fewer: does not hold
    fits: AtSize  # the fewest slots that hold
    above: AtSize
    more_traffic: AtSize  # the same slots at 1.2 times the rate
    slots_for_more: int | None  # what that would need; None: no number is enough
    longest_s: float  # the size holds until a request takes so long by itself; to 1 %


def too_short(objective_s: float, held_s: float) -> Problem:
    return Problem(f"a request takes {duration(held_s)} by itself, and {duration(objective_s)} is less")


def size(asked: Asked) -> Size:
    """The fewest slots for an objective, what they give, and what is near. Raises Problem, with the reason.

    >>> [size(Asked(*one)).fits.slots for one in ((256, 0.05, 0.1), (256, 0.05, 0.06), (100, 0.2, 0.25))]
    [15, 20, 27]
    """
    busy = asked.rate_rps * asked.held_s
    if busy > 0.9 * MOST_SLOTS:
        raise Problem(f"{busy:g} requests at a time: at most {MOST_SLOTS} slots are computed")
    slots, more = asked.slots(), replace(asked, rate_rps=1.2 * asked.rate_rps)
    try:
        slots_for_more = more.slots()
    except Problem:
        slots_for_more = None
    longest_s = highest(
        asked.held_s, min(asked.objective_s, slots / asked.rate_rps), 0.01,
        lambda held_s: replace(asked, wait_s=held_s, cpu_s=0.0).at(slots).holds,
    )  # fmt: skip
    return Size(
        **vars(asked), below=asked.at(max(1, slots - 1)), fits=asked.at(slots), above=asked.at(slots + 1),
        more_traffic=more.at(slots), slots_for_more=slots_for_more, longest_s=longest_s,
    )  # fmt: skip


def highest(low: float, high: float, to: float, holds: Callable[[float], bool]) -> float:
    """The highest value that holds, between one that does and one that does not; to such a share of it."""
    while high - low > to * high:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def highest_rate(slots: float, wait_s: float, objective_s: float, percentile: float = 99) -> float:
    """The most requests/s of random arrivals at which that percentile is within the objective; to 0.5 %.

    >>> round(highest_rate(16, 0.05, 0.1), -1)
    280.0
    """
    if objective_s < wait_s:
        raise too_short(objective_s, wait_s)
    slots = min(slots, MOST_SLOTS)
    return highest(
        0.0, slots / wait_s, 0.005, lambda rate_rps: Asked(rate_rps, wait_s, objective_s, percentile).at(slots).holds
    )


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
    each, is_shared = math.ceil(slots / processes), processes == 1
    alone = each if is_shared else each_if_split or each
    gthread, gthread_note = f"gunicorn -k gthread --workers {processes} --threads {each}", "one process, one queue"
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
