"""THE IDEA: when will each request start, and when will it be answered?  Start reading here.

A server has S slots: requests that it works on at the same moment. A request that waits t (for a database, another
service, a disk) holds its slot for all of t. A request that finds no slot free queues, first come, first served:

    start[n] = max(arrival[n], start[n - S] + t)        answer[n] = start[n] + t

That is all. It holds for every kind of load, and gives each request its times before the first one is sent. Beside it
stands the closed form, where there is one: a burst of n takes ceil(n / S) x t, throughput is at most S / t, and c
users that ask again at once wait c t / S.

Everything here is pure: it reads no clock and opens nothing. Requests are numbered from 0; times are seconds since the
run began; `math.inf` slots are "no limit".
"""

import heapq
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engine.words import Problem

NO_LIMIT = math.inf
NEVER = (math.inf, 0, 0)  # the last event on a heap
MOST_REQUESTS = 5_000_000  # that are predicted one by one: some seconds, some hundred megabytes

Wait = float | Callable[[int], float]  # seconds: of every request, or of request i
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

    @property
    def queues(self) -> tuple[float, ...]:
        """The slots behind each queue."""
        return (sum(self.slots),) if self.shared else self.slots


class Forecast(NamedTuple):
    """The times of every request in columns, in the order of sending; seconds since the run began."""

    arrived_s: list[float]
    started_s: list[float]  # of the pass that waits longest: the handler
    answered_s: list[float]


def wait_behind(forecast: Forecast, slots: float, at_s: float) -> float:
    """How long one more request would wait for a slot, behind all that have arrived: seconds.

    >>> wait_behind(predict([0.0] * 5, Service((2,)), 1.0), 2, 0.25)  # after the third round has begun
    1.75
    """
    ends_s = sorted(
        end_s for came_s, end_s in zip(forecast.arrived_s, forecast.answered_s, strict=True) if came_s <= at_s < end_s
    )
    ahead = len(ends_s) - slots  # requests that leave a slot before this one can have it, less one
    return max(0.0, ends_s[int(ahead)] - at_s) if ahead >= 0 else 0.0


# ---------------------------------------------------------------- every request, one by one


def predict(arrivals_s: Sequence[float], service: Service, wait_s: Wait, process_of: Sequence[int] = ()) -> Forecast:
    """Requests that arrive at given times, in this order, whatever the server does: a burst, or a schedule.

    process_of: which process takes request i; (): each process in turn, the even split.

    >>> predict([0.0] * 5, Service((2,)), 1.0).answered_s
    [1.0, 1.0, 2.0, 2.0, 3.0]
    >>> set(predict([0.0] * 6, Service((2,), passes=(1, 0)), 1.0).answered_s)  # the first waits as long as the last
    {3.0}
    """
    walk = Walk(service, wait_s, process_of, len(arrivals_s))
    for i, arrival_s in enumerate(arrivals_s):
        while walk.next_s <= arrival_s:
            walk.step()
        walk.enter(arrival_s, i)
    while walk.next_s < math.inf:
        walk.step()
    return walk.forecast


def predict_users(
    users: int | Stages,
    service: Service,
    wait_s: Wait,
    requests: float = math.inf,
    time_limit_s: float = math.inf,
    think_s: float = 0.0,
    process_of: Sequence[int] = (),
    keeps: bool = False,
) -> Forecast:
    """Users that send, wait for the answer, think, and send again: a closed loop, or a ramp of stages.

    It ends after so many requests or seconds (a ramp with its last stage); requests under way then are answered.
    process_of: which process takes request i (and so on from its start); (): each process in turn. keeps: users keep
    their connections, so it is which process takes user i. Raises Problem if it does not end.

    >>> predict_users(3, Service((2,)), 1.0, requests=5).answered_s
    [1.0, 1.0, 2.0, 2.0, 3.0]
    """
    stages = ((0.0, users),) if isinstance(users, int) else users
    time_limit_s = min(time_limit_s, sum(stage_s for stage_s, _ in stages) or math.inf)
    changes, active, allowed = [(math.inf, 0), *reversed([*changes_of_users(stages)])], 0, 0
    walk = Walk(service, wait_s, process_of, len(changes))  # there are no more users than changes
    user_of: list[int] = []  # each request's
    ready = [NEVER]  # a heap of users that have thought: when, a tie-breaker, which one

    def send(user: int) -> bool:
        """Send a user's next request, unless it is too late for one."""
        number = len(user_of)
        if number >= requests or now_s >= time_limit_s:
            return False
        user_of.append(user)
        walk.enter(now_s, user if keeps else number)
        return True

    while (now_s := min(walk.next_s, changes[-1][0], ready[0][0])) < math.inf:
        if now_s == walk.next_s:
            if (done := walk.step()) is not None:
                heapq.heappush(ready, (now_s + think_s, done, user_of[done]))
        elif now_s == changes[-1][0]:
            _, allowed = changes.pop()
            active += active < allowed and send(active)
        elif active > allowed:  # a falling ramp sends this user away
            heapq.heappop(ready)
            active -= 1
        else:
            send(heapq.heappop(ready)[2])
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
        self.passing = [NEVER]  # a heap: when a pass ends, of which request, its next pass

    @property
    def next_s(self) -> float:
        """When the next pass ends."""
        return self.passing[0][0]

    def enter(self, now_s: float, place: int) -> None:
        """A request arrives; place: in the deal, its number or that of the kept connection that it comes on."""
        number = len(self.queue_of)
        check_count(number + 1)
        self.queue_of.append(self.free_s[self.deal[place % len(self.deal)]])
        for column in self.forecast:
            column.append(now_s)
        heapq.heappush(self.passing, (now_s, number, 0))
        self.step()

    def step(self) -> int | None:
        """The next pass ends: the request takes its next slot, or is answered; then its number is returned."""
        now_s, number, turn = self.passing[0]
        if turn == len(self.passes):
            heapq.heappop(self.passing)
            self.forecast.answered_s[number] = now_s
            return number
        free_s = self.queue_of[number]
        start_s = max(now_s, free_s[0])
        wait_s = self.wait_s(number) if callable(self.wait_s) else self.wait_s
        end_s = start_s + wait_s * self.passes[turn]
        heapq.heapreplace(free_s, end_s)
        if turn == self.handler:
            self.forecast.started_s[number] = start_s
        heapq.heapreplace(self.passing, (end_s, number, turn + 1))
        return None


def check_count(requests: float) -> None:
    if requests > MOST_REQUESTS:
        raise Problem(f"more than {MOST_REQUESTS} requests are too many to predict one by one")


def changes_of_users(stages: Stages) -> Iterator[tuple[float, int]]:
    """When the number of users changes, and to what: linear from stage to stage and rounded up, as in k6.

    >>> list(changes_of_users([(4.0, 2), (0.0, 3), (3.0, 2)]))
    [(0.0, 1), (2.0, 2), (4.0, 3), (7.0, 2)]
    """
    begin_s, before = 0.0, 0
    for stage_s, target in stages:
        steps, falls = abs(target - before), target < before
        for k in range(steps):
            yield begin_s + stage_s / steps * (k + falls), before + (-k - 1 if falls else k + 1)
        begin_s, before = begin_s + stage_s, target


def spread_evenly(counts: Sequence[int]) -> list[int]:
    """So many of each process, in an order in which any first part has about the same proportions.

    >>> spread_evenly([2, 4])
    [1, 0, 1, 1, 0, 1]
    """
    places = [((j + 0.5) / count, process) for process, count in enumerate(counts) for j in range(count)]
    return [process for _, process in sorted(places)]


# ---------------------------------------------------------------- closed forms


def rounds(requests: int, slots: float) -> int:
    """ceil(n / S): how many times a burst fills the slots; one round if there is no limit.

    Request n (from 0) starts at floor(n / S) x t; the last is answered at ceil(n / S) x t.
    """
    return max(1, math.ceil(requests / slots)) if requests else 0


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
    """When to send, at random: gaps are independent and exponential, as of many users that know nothing of each other.

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
    if distribution == "exp":
        return random.Random(number).expovariate(1 / mean_s)
    if distribution == "lognormal":
        return random.Random(number).lognormvariate(math.log(mean_s) - 0.5, 1.0)
    return mean_s
