"""THE IDEA: when will each request start, and when will it be answered?  Start reading here.

A server has S slots: requests that it works on at the same moment. A request that waits t (for a database, another
service, a disk) holds its slot for all of t. A request that finds no slot free queues, first come, first served:

    start[n] = max(arrival[n], start[n - S] + t)        answer[n] = start[n] + t

That is all. It holds for every kind of load, and gives each request its times before the first one is sent. Beside it
stands the closed form, where there is one: a burst of n takes ceil(n / S) x t, throughput is at most S / t, and c
users who ask again at once wait c t / S.

Everything here is pure: it reads no clock and opens nothing. Requests are numbered from 0; times are seconds since the
run began; `math.inf` slots are "no limit".
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engine.words import Problem

NO_LIMIT = math.inf
MOST_REQUESTS = 5_000_000  # that are predicted one by one: some seconds, some hundred megabytes

Wait = float | Sequence[float] | Callable[[int], float]  # seconds: of every request, or of request i
Stages = Sequence[tuple[float, int]]  # seconds, and the users at their end; the first stage begins with no user


@dataclass(frozen=True)
class Service:
    """The processes of a server, and how a request passes through their slots.

    slots: of each process. shared: one queue for all processes, because they accept a connection only when they are
    idle (gunicorn's sync workers). Otherwise each process has a queue of its own, and a request that queues at one
    process stays there.
    passes: the share of the wait in each pass of a request through the slots. (1,): it passes once. (1, 0): FastAPI's
    `def` handler with a response model queues a second time, in the same first-come queue, for a thread that
    serialises the answer. (0, 1): a `def` dependency runs before the handler.
    Source: fastapi/routing.py serialize_response(), anyio CapacityLimiter.
    """

    slots: tuple[float, ...]
    shared: bool = False
    passes: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.slots or not self.passes or min(self.slots) < 1:
            raise Problem("a server needs a process, and each process needs a slot")

    @property
    def queues(self) -> tuple[float, ...]:
        """The slots behind each queue."""
        return (sum(self.slots),) if self.shared else self.slots


class Forecast(NamedTuple):
    """The times of every request in columns, in the order of sending; seconds since the run began."""

    arrived_s: list[float]
    started_s: list[float]  # of the pass that waits longest: the handler
    answered_s: list[float]


# ---------------------------------------------------------------- every request, one by one


def predict(arrivals_s: Sequence[float], service: Service, wait_s: Wait, process_of: Sequence[int] = ()) -> Forecast:
    """Requests that arrive at given times, whatever the server does: a burst, or a schedule.

    process_of: which process takes request i; (): each process in turn, the even split. Raises ValueError where the
    requests are not in the order of arrival, or process_of has another length.

    >>> predict([0.0] * 5, Service((2,)), 1.0).answered_s
    [1.0, 1.0, 2.0, 2.0, 3.0]
    >>> set(predict([0.0] * 6, Service((2,), passes=(1, 0)), 1.0).answered_s)  # the first waits as long as the last
    {3.0}
    """
    if any(later_s < earlier_s for earlier_s, later_s in itertools.pairwise(arrivals_s)):
        raise ValueError("requests are not numbered in the order of arrival")
    if process_of and len(process_of) != len(arrivals_s):
        raise ValueError("process_of does not name a process for each request")
    if len(arrivals_s) > MOST_REQUESTS:
        raise too_many()
    walk = Walk(service, wait_s, process_of, len(arrivals_s))
    coming = [(arrival_s, i) for i, arrival_s in enumerate(arrivals_s)]
    coming.reverse()
    while coming or walk.passing:
        if coming and (not walk.passing or coming[-1][0] < walk.passing[0][0]):
            walk.enter(coming.pop()[0])
        else:
            walk.step()
    return walk.forecast


NEVER = [(math.inf, 0, 0)]


def check_end(requests: float, time_limit_s: float, takes_no_time: bool) -> None:
    """Raises Problem if nothing ends a closed loop."""
    if requests == math.inf and (time_limit_s == math.inf or takes_no_time):
        raise Problem("a closed loop needs a number of requests, or a time limit and a wait")


def predict_users(
    users: int | Stages,
    service: Service,
    wait_s: Wait,
    *,
    requests: float = math.inf,
    time_limit_s: float = math.inf,
    think_s: float = 0.0,
    connections_of_process: Sequence[int] = (),
    process_of: Sequence[int] = (),
) -> Forecast:
    """Users who send, wait for the answer, think, and send again: a closed loop, or a ramp of stages.

    It ends after so many requests or seconds (a ramp with its last stage); requests under way then are answered.
    connections_of_process: users keep their connections, and each process holds so many of them. Otherwise request i
    goes to process_of[i] (and so on from its start), or to each process in turn. Raises Problem if nothing ends it.

    >>> predict_users(3, Service((2,)), 1.0, requests=5).answered_s
    [1.0, 1.0, 2.0, 2.0, 3.0]
    """
    time_limit_s = min(time_limit_s, length_s(users))
    check_end(requests, time_limit_s, wait_s == think_s == 0)
    home = spread_evenly(connections_of_process)
    walk = Walk(service, wait_s, home if home else process_of, max(16, most_users(users)))
    user_of: list[int] = []  # each request's
    ready: list[tuple[float, int, int]] = []  # a heap of users who have thought: when, a tie-breaker, who
    changes, active, allowed = list(changes_of_users(users))[::-1], 0, 0

    def send(now_s: float, user: int) -> bool:
        """Send a user's next request, unless it is too late for one."""
        if len(user_of) >= requests or now_s >= time_limit_s:
            return False
        user_of.append(user)
        walk.enter(now_s, user if home else None)
        return True

    while changes or ready or walk.passing:
        change_s, ready_s = (changes or NEVER)[-1][0], (ready or NEVER)[0][0]
        if (walk.passing or NEVER)[0][0] <= min(change_s, ready_s):
            if (done := walk.step()) is not None:
                heapq.heappush(ready, (walk.forecast.answered_s[done] + think_s, done, user_of[done]))
        elif change_s <= ready_s:
            _, allowed = changes.pop()
            active += active < allowed and send(change_s, active)
        elif active > allowed:  # a falling ramp sends this user away
            heapq.heappop(ready)
            active -= 1
        else:
            send(ready_s, heapq.heappop(ready)[2])
    return walk.forecast


class Walk:
    """Follows requests through the queues of a service.

    Each queue is a heap of the times at which its slots become free. Source: Kiefer and Wolfowitz, "On the theory of
    queues with many servers", 1955. With one wait for all and one pass, slots become free in the order in which they
    were taken: that is the recursion at the top of this file.
    """

    def __init__(self, service: Service, wait_s: Wait, process_of: Sequence[int], most_at_once: int) -> None:
        self.passes, self.handler = service.passes, service.passes.index(max(service.passes))
        self.free_s = [[-math.inf] * int(min(slots, most_at_once)) for slots in service.queues]
        self.deal: Sequence[int] = process_of if process_of and len(self.free_s) > 1 else range(len(self.free_s))
        self.wait_s = wait_s
        self.forecast = Forecast([], [], [])
        self.queue_of: list[list[float]] = []  # the heap that each request has joined
        self.passing: list[tuple[float, int, int]] = []  # a heap: when a pass ends, of which request, its next pass

    def enter(self, now_s: float, connection: int | None = None) -> None:
        """A request arrives; connection: the number of the kept connection that it comes on."""
        number = len(self.queue_of)
        if number >= MOST_REQUESTS:
            raise too_many()
        place = number if connection is None else connection
        self.queue_of.append(self.free_s[self.deal[place % len(self.deal)]])
        for column in self.forecast:
            column.append(now_s)
        self.take_slot(now_s, number, 0)

    def step(self) -> int | None:
        """The next pass ends: the request takes its next slot, or is answered; then its number is returned."""
        now_s, number, turn = heapq.heappop(self.passing)
        if turn == len(self.passes):
            self.forecast.answered_s[number] = now_s
            return number
        self.take_slot(now_s, number, turn)
        return None

    def take_slot(self, now_s: float, number: int, turn: int) -> None:
        free_s = self.queue_of[number]
        start_s = now_s if now_s > free_s[0] else free_s[0]
        end_s = start_s + self.wait_of(number) * self.passes[turn]
        heapq.heapreplace(free_s, end_s)
        if turn == self.handler:
            self.forecast.started_s[number] = start_s
        heapq.heappush(self.passing, (end_s, number, turn + 1))

    def wait_of(self, number: int) -> float:
        if isinstance(self.wait_s, (int, float)):
            return self.wait_s
        return self.wait_s(number) if callable(self.wait_s) else self.wait_s[number]


def too_many() -> Problem:
    return Problem(f"more than {MOST_REQUESTS} requests are too many to predict one by one")


def changes_of_users(users: int | Stages) -> Iterator[tuple[float, int]]:
    """When the number of users changes, and to what: linear from stage to stage and rounded up, as in k6.

    >>> list(changes_of_users([(4.0, 2), (0.0, 3), (3.0, 2)]))
    [(0.0, 1), (2.0, 2), (4.0, 3), (7.0, 2)]
    """
    begin_s, before = 0.0, 0
    for stage_s, target in ((0.0, users),) if isinstance(users, int) else users:
        step_s = stage_s / max(1, abs(target - before))
        yield from ((begin_s + step_s * k, before + k + 1) for k in range(target - before))
        yield from ((begin_s + step_s * (k + 1), before - k - 1) for k in range(before - target))
        begin_s, before = begin_s + stage_s, target


def length_s(users: int | Stages) -> float:
    """Of a ramp; a constant number of users has no end."""
    return math.inf if isinstance(users, int) else sum(stage_s for stage_s, _ in users)


def most_users(users: int | Stages) -> int:
    return users if isinstance(users, int) else max(target for _, target in users)


def spread_evenly(counts: Sequence[int]) -> list[int]:
    """So many of each process, in an order in which any first part has about the same proportions.

    >>> spread_evenly([2, 4])
    [1, 0, 1, 1, 0, 1]
    """
    places = [((j + 0.5) / count, process) for process, count in enumerate(counts) for j in range(count)]
    return [process for _, process in sorted(places)]


# ---------------------------------------------------------------- closed forms


def rounds(requests: int, slots: float) -> int:
    """ceil(n / S): how many times the slots are filled; one round if there is no limit."""
    return max(1, math.ceil(requests / slots)) if requests else 0


def burst_s(requests: int, slots: float, wait_s: float) -> float:
    """A burst: request n (from 0) starts at floor(n / S) x t; the last is answered at ceil(n / S) x t."""
    return rounds(requests, slots) * wait_s


def closed_loop(users: int, slots: float, wait_s: float, think_s: float = 0.0) -> tuple[float, float]:
    """Requests/s and mean latency of users: X = min(c / (t + z), S / t), latency c / X - z = max(t, c t / S - z).

    Once under way; exact if z = 0. Sources: Little, "A proof for the queuing formula L = lambda W", 1961; Denning and
    Buzen, "The operational analysis of queueing network models", 1978.

    >>> closed_loop(20, 16, 0.05), closed_loop(200, 16, 0.05)
    ((320.0, 0.0625), (320.0, 0.625))
    """
    mean_s = max(wait_s, users * wait_s / slots - think_s)
    return users / (mean_s + think_s) if mean_s + think_s else math.inf, mean_s


# ---------------------------------------------------------------- random arrivals and waits


def poisson_schedule(rate: float, requests: float, duration_s: float, seed: int) -> list[float]:
    """When to send, at random: gaps are independent and exponential, as of many users who do not know each other.

    The first request leaves at 0. The same seed gives the same schedule, on paper and in a run.

    >>> [round(due_s, 3) for due_s in poisson_schedule(10, 3, math.inf, seed=1)]
    [0.0, 0.014, 0.202]
    """
    draw, due_s, now_s = random.Random(seed).expovariate, list[float](), 0.0
    while len(due_s) < requests and now_s < duration_s:
        due_s.append(now_s)
        now_s += draw(rate)
    return due_s


DISTRIBUTIONS = ("constant", "exp", "lognormal")


def drawn_wait_s(mean_s: float, distribution: str, number: int) -> float:
    """The wait of request `number`, drawn by that number, so that an app that knows the number draws the same.

    exp: random.Random(number).expovariate(1 / mean_s). lognormal: sigma = 1, and mu = ln(mean_s) - 1/2 gives the mean
    mean_s: random.Random(number).lognormvariate(math.log(mean_s) - 0.5, 1.0).

    >>> round(drawn_wait_s(0.05, "exp", 7), 6), drawn_wait_s(0.05, "constant", 7)
    (0.019566, 0.05)
    """
    if distribution == "exp" and mean_s:
        return random.Random(number).expovariate(1 / mean_s)
    if distribution == "lognormal" and mean_s:
        return random.Random(number).lognormvariate(math.log(mean_s) - 0.5, 1.0)
    return mean_s
