#!/usr/bin/env python3
"""slots.py - when will each request start, and when will it be answered?

A server has S slots: requests it works on at the same moment. A request that
waits t (for a database, another service, a disk) holds its slot for all of t.
Those that find no slot free queue, first come, first served:

    start[n] = max(arrival[n], start[n - S] + t)       answer[n] = start[n] + t

That is all. It holds for every kind of load, and gives each request its times
before the first one is sent. Beside it stands the closed form, where there is
one: a burst of n takes ceil(n / S) x t, throughput is at most S / t, c users
who ask again at once wait c t / S.

    python slots.py -n 100 --slots 40 --wait 1            100 requests at once
    python slots.py -c 200 --slots 16 --wait 0.05        200 users, closed loop
    python slots.py --ramp 5s:50,10s:200 --slots 16 --wait 0.05
    python slots.py --rate 384 -t 10 --slots 16 --wait 0.05           open loop
    python slots.py --rate 256 --arrivals poisson --slots 16 --wait 0.05
    python slots.py --rate 256 --wait 0.05 --p99 0.1      how many slots, then?

    --workers 4         four processes, a queue each, every request to the next
                        one: an even split
    --split 41,44,11,4  the split that really happened (with -c: of the users)
    --one-queue         processes that accept only when idle share one queue
    --passes 2          a request takes a slot twice, as FastAPI's `def`
                        handlers with a response model do

It is a library too: predict() for arrivals at given times, predict_users() for
users who wait for answers, and the exact theory of random arrivals (M/D/c). It
reads no clock and opens nothing: the same arguments give the same figures.
Exit code: 0, or 2 for wrong usage. Python 3.10 or newer, nothing else.
"""

from __future__ import annotations

import argparse
import bisect
import heapq
import itertools
import math
import random
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, TypedDict

NO_LIMIT = math.inf
ANYIO_THREADS = 40  # anyio: to_thread.current_default_thread_limiter() is CapacityLimiter(40) in each process
MOST_REQUESTS = 5_000_000  # predicted one by one: some seconds, some hundred megabytes
MOST_SLOTS = 10_000  # in the exact formula for random arrivals: half a second

HANDLERS = {  # slots of one ASGI process, by what the handler does, and why
    "def": (ANYIO_THREADS, "AnyIO runs `def` handlers in at most 40 threads"),
    "def with a response model": (
        ANYIO_THREADS,
        "AnyIO runs `def` handlers in at most 40 threads, and serialises a typed answer in one of them again",
    ),
    "async": (NO_LIMIT, "an `async def` that awaits holds nothing while it waits"),
    "blocking": (1, "a blocking call in `async def` stops the event loop"),
    "def in 100 threads": (100, "the app has raised AnyIO's limit to 100 threads"),
}
PASSES = {"def with a response model": (1.0, 0.0)}  # of a request through the slots: its share of the wait in each


# ---------------------------------------------------------------- words and arguments


class Problem(Exception):
    """Something the user can mend: printed as one line. exit_code as in the manual of the script that prints it."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for every other mistake."""
        raise Problem(" ".join(message.split()))

    def _print_message(self, message: str, file: Any = None) -> None:
        """argparse's own hook, for --help: it fails here, not at the interpreter's end."""
        print(message, end="", file=file, flush=True)


def number(kind: type, least: float, most: float) -> Callable[[str], Any]:
    """An argparse type: a number within bounds (so never nan), or one line that says what is allowed."""

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if least <= value <= most:
            return value
        kinds = {int: "a whole number", float: "a number"}
        raise argparse.ArgumentTypeError(f"{text!r} is not {kinds[kind]} from {least:.10g} to {most:.10g}")

    return convert


def stages(text: str) -> tuple[tuple[float, int], ...]:
    """An argparse type: the stages of a ramp.  "5s:50,10s:200" -> ((5.0, 50), (10.0, 200))"""
    duration_s, users = number(float, 0.001, 1e6), number(int, 0, 100_000)
    try:
        pairs = [stage.split("s:") for stage in text.split(",")]
        return tuple((duration_s(stage), users(target)) for stage, target in pairs)
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 5s:50,10s:200, seconds and users") from None


def counts(text: str) -> tuple[int, ...]:
    """An argparse type: how many each process gets.  "41,44,11,4" -> (41, 44, 11, 4)"""
    return tuple(number(int, 0, MOST_REQUESTS)(part) for part in text.split(","))


def plural(count: float, word: str) -> str:
    return f"{count:.10g} {word}" if count == 1 else f"{count:.10g} {word}s"


def seconds(value: float) -> str:
    """A time to be read: three digits below a second, hundredths above.

    >>> [seconds(value) for value in (0.0625, 0.625, 1.0, 12.039, 0)]
    ['62.5 ms', '625 ms', '1 s', '12.04 s', '0 s']
    """
    if 0 < value < 0.9995:
        return f"{value * 1000:.3g} ms"
    return f"{value:.2f}".rstrip("0").rstrip(".") + " s"


def section(name: str, text: str) -> str:
    """A paragraph with its name in the margin, at most 79 columns wide."""
    lines = textwrap.wrap(text, 67, break_long_words=False, break_on_hyphens=False) or [""]
    return "\n".join(f"{name if not i else '':12}{line}" for i, line in enumerate(lines))


# ---------------------------------------------------------------- the model: start and answer of every request

Wait = float | Sequence[float] | Callable[[int], float]  # the wait in seconds: of all, or of request i
Stages = Sequence[tuple[float, int]]  # seconds, and the users at their end; the first stage begins with none
Event = tuple[float, int, int, int, int]  # when, 0 queues again or 1 is sent, number, pass, user
NOBODY = -1  # sends yet: a stage lets one user more in


@dataclass(frozen=True)
class Service:
    """The processes of a server, and how a request passes through their slots.

    shared: one queue for all processes, as they accept only when idle (gunicorn's sync workers); else each has its
    own (gthread, uvicorn --workers: they accept eagerly, or connections are kept), and who queues there stays there.
    passes: the share of the request's wait in each pass. (1,): once. (1, 0): FastAPI's `def` handler with a response
    model, which queues a second time, in the same first-come queue, for a thread that serialises. (0, 1): a `def`
    dependency before the handler. Source: fastapi/routing.py serialize_response(), anyio CapacityLimiter.
    """

    slots: tuple[float, ...]  # of each process; NO_LIMIT is allowed
    shared: bool = False
    passes: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.slots or not self.passes or min(self.slots) < 1:
            raise Problem("a server needs a process, and each process a slot")

    @property
    def queues(self) -> tuple[float, ...]:
        """The slots behind each queue."""
        return (sum(self.slots),) if self.shared else self.slots


class Forecast(NamedTuple):
    """Every request's times in columns, in the order of sending; seconds since the run began."""

    arrived_s: list[float]
    started_s: list[float]  # of the pass that waits longest: the handler
    answered_s: list[float]


def predict(arrivals_s: Sequence[float], service: Service, wait_s: Wait, process_of: Sequence[int] = ()) -> Forecast:
    """Requests that arrive at given times, whatever the server does: a burst, a schedule, or what was measured.

    process_of: which process takes request i; (): each the next one in turn, the even split. Requests are numbered
    in the order of arrival, and queue in it. Raises ValueError for another order or number of them.

    >>> predict([0.0] * 5, Service((2,)), 1.0).answered_s
    [1.0, 1.0, 2.0, 2.0, 3.0]
    >>> set(predict([0.0] * 6, Service((2,), passes=(1, 0)), 1.0).answered_s)  # the first waits as long as the last
    {3.0}
    """
    if any(later_s < earlier_s for earlier_s, later_s in itertools.pairwise(arrivals_s)):
        raise ValueError("requests are not numbered in the order of arrival")
    if process_of and len(process_of) != len(arrivals_s):
        raise ValueError("process_of does not name a process for each request")
    sends: list[Event] = [(arrival_s, 1, i, 0, i) for i, arrival_s in enumerate(arrivals_s)]
    return _follow(sends, service, wait_s, process_of)


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

    It ends after so many requests or so many seconds (a ramp with its last stage); what is under way then is answered.
    connections_of_process: users keep their connections, and each process holds so many of them. Otherwise request i
    goes to process_of[i] (and so on from its start), or to each process in turn. Raises Problem if nothing ends it.

    >>> predict_users(3, Service((2,)), 1.0, requests=5).answered_s
    [1.0, 1.0, 2.0, 2.0, 3.0]
    """
    if not isinstance(users, int):
        time_limit_s = min(time_limit_s, sum(stage_s for stage_s, _ in users))
    if requests == math.inf and (time_limit_s == math.inf or wait_s == think_s == 0):
        raise Problem("a closed loop needs a number of requests, or a time limit and a wait")
    sent = active = allowed = 0

    def admit(now_s: float, user: int, level: int) -> int:
        """The user who sends now; NOBODY if there is nothing more to send, or there are users enough."""
        nonlocal sent, active, allowed
        if sent >= requests or now_s >= time_limit_s:
            return NOBODY
        if user == NOBODY:
            allowed = level
            if active >= level:
                return NOBODY
            user, active = active, active + 1
        elif active > allowed:  # a falling ramp sends this one away
            active -= 1
            return NOBODY
        sent += 1
        return user

    sends: list[Event] = [(change_s, 1, level, 0, NOBODY) for change_s, level in changes_of_users(users)]
    home = spread_evenly(connections_of_process)
    return _follow(sends, service, wait_s, home or process_of, bool(home), admit, think_s)


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


def spread_evenly(counts: Sequence[int]) -> list[int]:
    """So many of each process, in an order in which any first part has about the same proportions.

    >>> spread_evenly([2, 4])
    [1, 0, 1, 1, 0, 1]
    """
    places = [((j + 0.5) / count, process) for process, count in enumerate(counts) for j in range(count)]
    return [process for _, process in sorted(places)]


def _follow(
    sends: list[Event],
    service: Service,
    wait_s: Wait,
    process_of: Sequence[int],
    by_user: bool = False,
    admit: Callable[[float, int, int], int] | None = None,
    think_s: float = 0.0,
) -> Forecast:
    """Every load: first come, first served, with a heap of the times at which the slots of each queue become free.

    Source: Kiefer and Wolfowitz, "On the theory of queues with many servers", 1955. With one wait for all and one
    pass, slots become free in the order in which they were taken: that is the recursion in the manual above.
    At one moment, who queues again comes before who is sent. admit: users send again, if it lets them.
    """
    constant_s, wait_of = 0.0, None
    if isinstance(wait_s, (int, float)):
        constant_s = wait_s
    else:
        wait_of = wait_s if callable(wait_s) else wait_s.__getitem__
    passes, last, handler = service.passes, len(service.passes) - 1, service.passes.index(max(service.passes))
    free_of = [[-math.inf] * int(min(slots, len(sends))) for slots in service.queues]
    deal = process_of if process_of and len(free_of) > 1 else range(len(free_of))
    forecast = Forecast([], [], [])
    joined: list[list[float]] = []  # the heap of the queue that each request has joined
    upcoming, events = sends[::-1], list[Event]()  # events: a heap of what comes of them
    while upcoming or events:
        soon = upcoming and (not events or upcoming[-1] < events[0])
        now_s, is_sent, i, turn, user = upcoming.pop() if soon else heapq.heappop(events)
        if is_sent:
            if admit and (user := admit(now_s, user, i)) == NOBODY:
                continue
            if max(i := len(joined), len(sends) - 1) >= MOST_REQUESTS:
                raise Problem(f"more than {MOST_REQUESTS} requests are too many to predict one by one")
            joined.append(free_of[deal[(user if by_user else i) % len(deal)]])
            for column in forecast:
                column.append(now_s)
        free_s = joined[i]
        start_s = now_s if now_s > free_s[0] else free_s[0]
        end_s = start_s + (wait_of(i) if wait_of else constant_s) * passes[turn]
        heapq.heapreplace(free_s, end_s)
        if turn == handler:
            forecast.started_s[i] = start_s
        if turn < last:
            heapq.heappush(events, (end_s, 0, i, turn + 1, user))
        else:
            forecast.answered_s[i] = end_s
            if admit:
                heapq.heappush(events, (end_s + think_s, 1, i, 0, user))
    return forecast


# ---------------------------------------------------------------- the figures of a forecast


class Expected(TypedDict):
    """What a client will measure. None: no answer, or a percentile that says nothing that the maximum does not."""

    throughput_rps: float | None
    mean_s: float | None
    median_s: float | None
    p95_s: float | None
    p99_s: float | None
    makespan_s: float | None  # the last answer, since the run began
    spread_s: float | None  # closed loop: what every latency tends to as noise spreads the users' phases


def expected(forecast: Forecast, time_limit_s: float = math.inf, spread_s: float | None = None) -> Expected:
    """The figures of a forecast. A run with a time limit counts the answers within it; spread_s is of closed_loop()."""
    latencies_s = sorted(b - a for a, b in zip(forecast.arrived_s, forecast.answered_s, strict=True))
    n, makespan_s = len(latencies_s), max(forecast.answered_s, default=0.0)
    window_s = min(makespan_s, time_limit_s)
    in_time = sum(answered_s <= window_s for answered_s in forecast.answered_s)
    return {
        "throughput_rps": in_time / window_s if window_s else None,
        "mean_s": math.fsum(latencies_s) / n if n else None,
        "median_s": (latencies_s[(n - 1) // 2] + latencies_s[n // 2]) / 2 if n else None,
        "p95_s": nearest_rank(latencies_s, 95),
        "p99_s": nearest_rank(latencies_s, 99),
        "makespan_s": makespan_s if n else None,
        "spread_s": spread_s,
    }


def nearest_rank(ordered: Sequence[float], per_cent: float) -> float | None:
    """The percentile by nearest rank, number ceil(p / 100 x n) of n values; None if no value can lie above it.

    >>> nearest_rank(range(1, 101), 99), nearest_rank(range(1, 100), 99)
    (99, None)
    """
    n = len(ordered)
    if n * (100 - per_cent) < 100 - 1e-9:
        return None
    return ordered[max(1, math.ceil(per_cent * n / 100)) - 1]


# ---------------------------------------------------------------- closed forms


def rounds(requests: int, slots: float) -> int:
    """ceil(n / S): how many times the slots are filled; one round if there is no limit."""
    return max(1, math.ceil(requests / slots)) if requests else 0


def burst_s(requests: int, slots: float, wait_s: float) -> float:
    """A burst: request n (from 0) starts at floor(n / S) x t; the last is answered at ceil(n / S) x t."""
    return rounds(requests, slots) * wait_s


def split_burst_s(requests_of_workers: Sequence[int], slots_per_worker: float, wait_s: float) -> float:
    """The same burst, given how many requests each worker took: ceil(n_p / S_p) x t, and the slowest decides.

    >>> burst_s(100, 160, 1.0), split_burst_s([41, 44, 11, 4], 40, 1.0)
    (1.0, 2.0)
    """
    return max((burst_s(n, slots_per_worker, wait_s) for n in requests_of_workers), default=0.0)


def closed_loop(users: int, slots: float, wait_s: float, think_s: float = 0.0) -> tuple[float, float]:
    """Requests/s and mean latency of users: X = min(c / (t + z), S / t), latency c / X - z = max(t, c t / S - z).

    Once under way; exact if z = 0. Sources: Little, "A proof for the queuing formula L = lambda W", 1961; Denning and
    Buzen, "The operational analysis of queueing network models", 1978.

    >>> closed_loop(20, 16, 0.05), closed_loop(200, 16, 0.05)
    ((320.0, 0.0625), (320.0, 0.625))
    >>> [round(figure, 3) for figure in closed_loop(200, 16, 0.05, think_s=0.35)]
    [320.0, 0.275]
    """
    mean_s = max(wait_s, users * wait_s / slots - think_s)
    return users / (mean_s + think_s) if mean_s + think_s else math.inf, mean_s


def overload_wait_s(number: int, rate: float, slots: float, wait_s: float) -> float:
    """Evenly spaced arrivals (D/D/c): request k waits floor(k / S) t (1 - 1 / rho), rho = rate t / S; 0 if rho <= 1.

    >>> round(overload_wait_s(3839, 384, 16, 0.05), 2)
    1.99
    """
    load = rate * wait_s / slots
    return number // slots * wait_s * (1 - 1 / load) if load > 1 else 0.0


def two_resources(users: float, slots: float, wait_s: float, cpu_s: float, cpus: float) -> tuple[float, float]:
    """If each request also takes cpu_s of so many CPUs: the most requests/s, the least mean latency.

    X <= min(min(c, S) / (t + s), P / s), latency >= max(t + s, c s / P, c (t + s) / S). Denning and Buzen again.

    >>> [round(two_resources(200, slots, 0.05, 0.001, 1)[0]) for slots in (16, 40, 51, 100)]
    [314, 784, 1000, 1000]
    """
    held_s, cpu_rps = wait_s + cpu_s, cpus / cpu_s if cpu_s else math.inf
    slots_rps = min(users, slots) / held_s if held_s else math.inf
    return min(slots_rps, cpu_rps), max(held_s, users / cpu_rps, users * held_s / slots)


def knee_slots(wait_s: float, cpu_s: float, cpus: float) -> float:
    """P (t + s) / s: more slots than this buy nothing, as the CPUs are busy.  50 ms, 1 ms, 1 CPU -> 51"""
    return cpus * (wait_s + cpu_s) / cpu_s if cpu_s else math.inf


def burst_form(requests: int, slots: float, wait_s: float) -> str:
    """The closed form of a burst, with its numbers."""
    t, last = seconds(wait_s), seconds(burst_s(requests, slots, wait_s))
    if slots == NO_LIMIT:
        return f"no limit from slots: all {requests} wait side by side, {t}."
    form = f"ceil(n / S) x t = ceil({requests} / {slots:g}) x {t} = {last}."
    return f"{form} Request n, from 0, starts at floor(n / {slots:g}) x {t} and is answered {t} after that."


def closed_form(users: int, slots: float, wait_s: float, think_s: float = 0.0) -> str:
    """The closed form of a closed loop, with its numbers."""
    rps, mean_s = closed_loop(users, slots, wait_s, think_s)
    t, think = seconds(wait_s), f" - {seconds(think_s)}" if think_s else ""
    if mean_s == wait_s:
        form = f"c / (t + think) = {users} / ({t} + {seconds(think_s)})" if think_s else f"c / t = {users} / {t}"
        return f"{form} = {rps:.4g} requests/s; nobody waits for a slot: latency t = {t}."
    form = f"c t / S{' - think' * bool(think_s)} = {users} x {t} / {slots:g}{think} = {seconds(mean_s)}."
    text = f"S / t = {slots:g} / {t} = {rps:.4g} requests/s; mean latency {form}"
    share = users % slots / slots
    if not share or think_s:
        return text
    low, high = seconds(users // slots * wait_s), seconds((users // slots + 1) * wait_s)
    return (
        f"{text} Users in step: {1 - share:.0%} {low}, {share:.0%} {high}; as noise spreads them, all tend to the mean."
    )


STEEP_LOAD = 0.9  # of S / t, from where on two per cent more of it are a quarter more of p99, and soon half


def open_form(rate: float, requests: int, slots: float, wait_s: float, poisson: bool = False) -> str:
    """The closed form of an open loop, with its numbers: overload, nobody waits, or what random arrivals cost."""
    load = rate * wait_s / slots
    text = f"load = rate x t / S = {rate:g} x {seconds(wait_s)} / {slots:g} = {load:.3g}"
    if load > 1:
        last = seconds(overload_wait_s(requests - 1, rate, slots, wait_s))
        return f"{text}: the queue grows by {load - 1:.3g} s a second; the last waits {'about ' * poisson}{last}."
    if not poisson or not 0 < load < 1 or slots > MOST_SLOTS:
        return f"{text}: nobody waits for a slot{' if arrivals are evenly spaced, the best case' * (load > 0)}."
    queue = RandomArrivals(rate, wait_s, int(slots))
    mean, p95, p99 = map(seconds, (queue.mean_wait_s, queue.wait_quantile_s(95), queue.wait_quantile_s(99)))
    text += f". Random arrivals wait {mean} for a slot in the long run, p95 {p95}, p99 {p99} (M/D/c)."
    if load < STEEP_LOAD:
        return text
    if load * 1.02 >= 1:
        return f"{text} It is steep here: with a t that is 2 % longer the queue has no end."
    longer_s = RandomArrivals(rate, 1.02 * wait_s, int(slots)).wait_quantile_s(99)
    return f"{text} It is steep here: with a t that is 2 % longer p99 is {seconds(longer_s)}."


# ---------------------------------------------------------------- random arrivals and waits


def constant_schedule(rate: float, requests: float = math.inf, duration_s: float = math.inf) -> list[float]:
    """When to send so many requests, or those of so many seconds, evenly spaced: k / rate.

    >>> constant_schedule(4, 3), len(constant_schedule(384, duration_s=10))
    ([0.0, 0.25, 0.5], 3840)
    """
    count = math.ceil(round(min(requests, rate * duration_s, MOST_REQUESTS + 1), 6))
    return [k / rate for k in range(count)]


def poisson_schedule(
    rate: float, requests: float = math.inf, duration_s: float = math.inf, seed: int = 1
) -> list[float]:
    """The same at random: gaps are independent and exponential, as of many users who know nothing of each other.

    >>> [round(due_s, 3) for due_s in poisson_schedule(10, 3)]
    [0.014, 0.202, 0.347]
    """
    draw = random.Random(seed)
    times_s = itertools.accumulate(draw.expovariate(rate) for _ in range(int(min(requests, MOST_REQUESTS + 1))))
    return list(itertools.takewhile(lambda time_s: time_s < duration_s, times_s))


DISTRIBUTIONS = ("constant", "exp", "lognormal")


def drawn_wait_s(mean_s: float, distribution: str, number: int) -> float:
    """The wait of request `number`, drawn by that number, so that a server that knows it draws the same.

    exp: random.Random(number).expovariate(1 / mean_s). lognormal: sigma = 1, and mu = ln(mean_s) - 1/2 gives the mean
    mean_s: random.Random(number).lognormvariate(math.log(mean_s) - 0.5, 1.0). A server needs no more than that.

    >>> round(drawn_wait_s(0.05, "exp", 7), 6), drawn_wait_s(0.05, "constant", 7)
    (0.019566, 0.05)
    """
    if distribution == "exp" and mean_s:
        return random.Random(number).expovariate(1 / mean_s)
    if distribution == "lognormal" and mean_s:
        return random.Random(number).lognormvariate(math.log(mean_s) - 0.5, 1.0)
    return mean_s


# ---------------------------------------------------------------- random arrivals, exactly: M/D/c


class RandomArrivals:
    """M/D/c: Poisson arrivals at a rate, each holding one of so many slots for wait_s, in one queue.

    Seen every t, the number in the queue is a random walk that stops at 0: M' = max(0, M + arrivals in t - S)
    (Crommelin, "Delay probability formulae when the holding times are constant", 1932). So log E[z^M] is the sum over
    j > 0 of b_j (z^j - 1), b_j the coefficients of -log(1 - f), f(z) = exp(rate t (z - 1)) / z^S (Spitzer, "A
    combinatorial lemma and its application to probability theory", 1956). They are read off a circle |z| = r between 1
    and tau > 1, the two real zeros of 1 - f. These two are first divided out, as all other zeros are far away:
    1 - f(z) = (1 - 1/z) (1 - z/tau) g(z). The queue in the end decays as P(M > n + 1) = P(M > n) / tau.
    Raises Problem where the load is not below 1: no queue is stable there.
    """

    def __init__(self, rate: float, wait_s: float, slots: int) -> None:
        self.rate, self.wait_s, self.slots, offered = rate, wait_s, slots, rate * wait_s
        if not 0 < offered < slots <= MOST_SLOTS:
            raise Problem(f"random arrivals: rate x wait = {offered:g} is not above 0 and below {slots:g} slots")
        beyond = _least(lambda x: math.log1p(x) <= offered / slots * x, 1.0)
        self.decay, radius = 1 + beyond, math.sqrt(1 + beyond)
        half = 32 + 8 * math.isqrt(slots)  # values on half of the circle; the other half mirrors them
        values = []  # of -log g
        for m in range(half):
            angle = math.pi * (m + 0.5) / half
            z = radius * complex(math.cos(angle), math.sin(angle))
            size = math.exp(offered * (z.real - 1) - slots * math.log(radius))
            f = size * complex(math.cos(offered * z.imag - slots * angle), math.sin(offered * z.imag - slots * angle))
            g = (1 - f) / (1 - 1 / z) / (1 - z / self.decay)
            values.append((-math.log(abs(g)), -math.atan2(g.imag, g.real)))
        circle = [math.cos(math.pi * k / (2 * half)) for k in range(4 * half)]
        weights = [0.0]  # j times coefficient j of -log g
        for j in range(1, half):
            turns = [j * (2 * m + 1) % (4 * half) for m in range(half)]
            total = sum(a * circle[k] + b * circle[k - half] for (a, b), k in zip(values, turns, strict=True))
            weights.append(j * total / half * radius**-j)
        self.mean_wait_s = max(0.0, 1 / beyond + sum(weights)) / rate  # Little: E[M] = rate x wait
        series = [math.exp(-sum(weights[j] / j for j in range(1, half)))]  # of 1 / g, scaled to the sum 1
        for n in range(1, half):
            series.append(sum(weights[j] * series[n - j] for j in range(1, n + 1)) / n)
        shares = itertools.accumulate(series, lambda share, term: share / self.decay + term)
        self.at_most = list(itertools.accumulate(share * beyond / self.decay for share in shares))  # P(M <= n)

    def queue_at_most(self, n: int) -> float:
        """P(M <= n)"""
        known = len(self.at_most)
        if n < known:
            return self.at_most[n] if n >= 0 else 0.0
        return 1 - (1 - self.at_most[-1]) * self.decay ** (known - 1 - n)

    def wait_cdf(self, waited_s: float) -> float:
        """P(a request waits at most waited_s for its slot) = P(M + arrivals in k t - waited_s < k S).

        k t is the first multiple of t beyond waited_s. Source: Franx, "A simple solution for the M/D/c waiting time
        distribution", Operations Research Letters 29, 2001: no term is negative, so it is stable.
        """
        k = math.floor(waited_s / self.wait_s) + 1
        mean = self.rate * (k * self.wait_s - waited_s)
        if mean <= 0:  # waited_s / t was rounded up
            return self.queue_at_most(k * self.slots - 1)
        width = 9 * math.sqrt(mean) + 20
        some = range(max(0, int(mean - width)), int(mean + width))
        arrivals = (math.exp(j * math.log(mean) - mean - math.lgamma(j + 1)) for j in some)
        return sum(p * self.queue_at_most(k * self.slots - 1 - j) for j, p in zip(some, arrivals, strict=True))

    def wait_quantile_s(self, per_cent: float) -> float:
        """The wait for a slot that so many per cent of the requests do not exceed; add wait_s for their latency."""
        if self.wait_cdf(0.0) >= per_cent / 100:
            return 0.0
        return _least(lambda waited_s: self.wait_cdf(waited_s) >= per_cent / 100, self.wait_s)


def _least(holds: Callable[[float], bool], guess: float) -> float:
    """The least x > 0 for which it holds, to twelve digits, if it holds for all greater ones."""
    low, high = 0.0, guess
    while not holds(high):
        low, high = high, high * 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def md_c_mean_wait_s(rate: float, wait_s: float, slots: int) -> float:
    return RandomArrivals(rate, wait_s, slots).mean_wait_s


def md_c_wait_cdf(rate: float, wait_s: float, slots: int, waited_s: float) -> float:
    return RandomArrivals(rate, wait_s, slots).wait_cdf(waited_s)


def md_c_wait_quantile(rate: float, wait_s: float, slots: int, per_cent: float) -> float:
    """
    >>> [round(md_c_wait_quantile(256, 0.05, 16, p) * 1000, 1) for p in (50, 95, 99)]
    [0.0, 15.7, 27.2]
    """
    return RandomArrivals(rate, wait_s, slots).wait_quantile_s(per_cent)


def slots_for(
    rate: float, wait_s: float, objective_s: float, percentile: float = 99, cpu_s: float = 0.0, cpus: float = 1
) -> int:
    """The fewest slots in one queue with which that percentile of the latency is within the objective.

    For random arrivals; a request holds its slot for wait_s + cpu_s. Raises Problem, with the reason, where no number
    of slots is enough. (Rule of thumb: rate t + beta sqrt(rate t), beta from 0.6 to 2; Halfin and Whitt 1981.)

    >>> slots_for(256, 0.05, 0.1), slots_for(256, 0.05, 0.06), slots_for(100, 0.2, 0.25)
    (15, 20, 27)
    """
    held_s = wait_s + cpu_s
    if objective_s < held_s:
        raise Problem(f"no request is answered within {seconds(objective_s)}: each takes {seconds(held_s)} by itself")
    if rate * cpu_s >= cpus:
        raise Problem(f"{rate:g} requests/s need {rate * cpu_s:g} CPUs of {cpus:g}: no number of slots helps")

    def enough(slots: int) -> bool:
        return md_c_wait_cdf(rate, held_s, slots, objective_s - held_s) >= percentile / 100

    low = high = int(rate * held_s) + 1  # the fewest that are stable
    while not enough(high):
        low, high = high + 1, 2 * high - low + 4
    return bisect.bisect_left(range(high), True, low, key=enough)


# ---------------------------------------------------------------- sizing: how many slots, and whose settings


class AtSize(NamedTuple):
    """What random arrivals at a rate get from so many slots in one queue, in the long run."""

    slots: float
    rate: float
    load: float  # rate x (t + s) / S
    latency_s: dict[float, float]  # p50, p95, p99, and the percentile of the objective; {}: the queue only grows
    holds: bool


class Size(NamedTuple):
    rate: float
    wait_s: float
    cpu_s: float
    cpus: float
    percentile: float
    objective_s: float
    below: AtSize  # one slot fewer: does not hold
    fits: AtSize  # the fewest slots that hold
    above: AtSize
    more_traffic: AtSize  # the same slots at 1.2 x the rate
    slots_for_more: int | None  # what that would need; None: nothing is enough
    longest_s: float  # the size holds until a request takes so long by itself
    cpu_busy: float  # the share of the CPUs


def at_size(
    rate: float, wait_s: float, slots: float, objective_s: float, percentile: float, cpu_s: float, cpus: float
) -> AtSize:
    """Two queues: for a slot (M/D/S, held t + s), for a CPU (M/D/P, held s). Each is exact. The longer wait counts,
    as only one of them is long unless both are nearly full."""
    held_s = wait_s + cpu_s
    stations = [(held_s, slots), (cpu_s, max(1, int(cpus)))][slots == NO_LIMIT :]
    stations = [(each_s, servers) for each_s, servers in stations if rate * each_s]
    found = dict[float, float]()
    if all(rate * each_s < servers for each_s, servers in stations):
        queues = [RandomArrivals(rate, each_s, int(servers)) for each_s, servers in stations]
        found = {p: held_s + max([0.0, *(q.wait_quantile_s(p) for q in queues)]) for p in (50, 95, 99, percentile)}
    holds = found.get(percentile, math.inf) <= objective_s * (1 + 1e-9)  # as wait_quantile_s() has twelve digits
    return AtSize(slots, rate, rate * held_s / slots, found, holds)


def size(
    rate: float, wait_s: float, objective_s: float, percentile: float = 99, cpu_s: float = 0.0, cpus: float = 1
) -> Size:
    """The fewest slots for an objective, what they give, and what is near. Raises Problem, with the reason.

    >>> [size(*asked).fits.slots for asked in ((256, 0.05, 0.1), (256, 0.05, 0.06), (1000, 0.05, 0.06))]
    [15, 20, 59]
    """
    held_s = wait_s + cpu_s
    if rate <= 0 or held_s <= 0:
        raise Problem("nothing needs a slot: without requests, or if they neither wait (--wait) nor compute (--cpu)")
    if rate * held_s > 0.9 * MOST_SLOTS:
        raise Problem(f"{rate * held_s:g} requests at a time: no more than {MOST_SLOTS} slots can be computed")
    slots = slots_for(rate, wait_s, objective_s, percentile, cpu_s, cpus)
    of_cpu = at_size(rate, wait_s, NO_LIMIT, objective_s, percentile, cpu_s, cpus)
    if not of_cpu.holds:
        of, reached = plural(cpus, "CPU"), seconds(of_cpu.latency_s.get(percentile, math.inf))
        raise Problem(f"{rate:g} requests/s keep {of} {rate * cpu_s / cpus:.0%} busy, and the wait for a CPU alone"
                      f" brings p{percentile:g} to {reached}: no number of slots helps")  # fmt: skip

    def at(slots: int, factor: float = 1.0) -> AtSize:
        return at_size(rate * factor, wait_s, slots, objective_s, percentile, cpu_s, cpus)

    try:
        slots_for_more = slots_for(1.2 * rate, wait_s, objective_s, percentile, cpu_s, cpus)
    except Problem:
        slots_for_more = None
    longest_s, most_s = held_s, min(objective_s, slots / rate)
    while most_s - longest_s > 1e-6 * most_s:
        middle_s = (longest_s + most_s) / 2
        holds = at_size(rate, middle_s, slots, objective_s, percentile, 0.0, 1).holds
        longest_s, most_s = (middle_s, most_s) if holds else (longest_s, middle_s)
    return Size(rate, wait_s, cpu_s, cpus, percentile, objective_s, at(max(1, slots - 1)), at(slots), at(slots + 1),
                at(slots, 1.2), slots_for_more, longest_s, rate * cpu_s / cpus)  # fmt: skip


def highest_rate(
    slots: float, wait_s: float, objective_s: float, percentile: float = 99, cpu_s: float = 0.0, cpus: float = 1
) -> float:
    """The most requests/s of random arrivals at which that percentile is within the objective; to four digits.

    wait_s = 0 with a cpu_s: the CPUs are what queues (M/D/1 for one). Raises Problem where no rate holds.

    >>> round(highest_rate(16, 0.05, 0.1)), round(highest_rate(4, 0, 0.005, cpu_s=0.001))
    (281, 561)
    """
    held_s = wait_s + cpu_s
    if held_s <= 0 or objective_s < held_s:
        raise Problem(f"no request is answered within {seconds(objective_s)}: each takes {seconds(held_s)} by itself")
    slots = min(slots, MOST_SLOTS)
    low, high = 0.0, min(slots / held_s, cpus / cpu_s if cpu_s else math.inf)
    while high - low > 1e-4 * high:
        rate = (low + high) / 2
        holds = at_size(rate, wait_s, slots, objective_s, percentile, cpu_s, cpus).holds
        low, high = (rate, high) if holds else (low, rate)
    return low


POSTGRES_CONNECTIONS = 97  # max_connections 100, less superuser_reserved_connections 3


class Setting(NamedTuple):
    server: str
    settings: str
    queue: str  # shared: all slots behind one; split: one for each process, and who joins a long one stays there
    note: str


def settings_for_slots(slots: int, processes: int = 1, each_if_split: int | None = None) -> list[Setting]:
    """So many slots in each server's own words; of several processes each gets its part, rounded up.

    each_if_split: slots of a process that has a queue of its own; more, since nobody can change the queue.
    Sources: gunicorn issues 908 and 3433 (worker_connections); anyio CapacityLimiter; waitress connection_limit.
    """
    each = math.ceil(slots / processes)
    alone, queue = (each, "shared") if processes == 1 else (each_if_split or each, "split")
    gthread, one_queue = f"gunicorn -k gthread --workers {processes} --threads {each}", "one process, one queue"
    if processes > 1:
        gthread += f" --worker-connections {each}"
        one_queue = "the last flag joins the queues; no connection is kept"
    limit = f" --connection-limit {4 * slots}" if slots >= 50 else ""  # 100 by default, kept ones included
    total = f", {processes * alone} in all" if processes > 1 else ""
    limiter = f"anyio.to_thread.current_default_thread_limiter().total_tokens = {alone}"
    pool = f"create_engine(pool_size={alone}, max_overflow=0) or ConnectionPool(max_size={alone})"
    return [
        Setting("gunicorn threads", gthread, "shared", one_queue),
        Setting("gunicorn sync", f"gunicorn --workers {slots}", "shared", "accepts when idle; no connection is kept"),
        Setting("waitress", f"waitress-serve --threads {slots}{limit}", "shared", "one process, one queue, one CPU"),
        Setting("uvicorn, def", limiter, queue, f"--workers {processes}{total}; in the lifespan, 40 by default"),
        Setting("uvicorn, async", pool, queue, f"--workers {processes}{total}; the pool is the limit"),
    ]


def pools_for(slots: int, processes: int = 1) -> str:
    """What must go along, if a request holds a database connection while it waits."""
    each = math.ceil(slots / processes)
    enough = "of" if each * processes <= POSTGRES_CONNECTIONS else "more than"
    return (
        "if a request holds a database connection while it waits, each process needs as many as it has slots, here"
        f" {each}: SQLAlchemy pool_size + max_overflow, psycopg_pool max_size. In all {each * processes}, {enough} the"
        f" {POSTGRES_CONNECTIONS} (100 - 3) that Postgres has by default."
    )


def render_size(asked: Size, processes: int = 1) -> str:
    """The report: how many, what they give, what is near, then the settings of each kind of server."""
    need, goal = int(asked.fits.slots), f"p{asked.percentile:g} <= {seconds(asked.objective_s)}"
    held, computes = asked.rate * (asked.wait_s + asked.cpu_s), f" and computes {seconds(asked.cpu_s)}"
    what = f"{asked.rate:g} requests/s at random, each waits {seconds(asked.wait_s)}{computes * bool(asked.cpu_s)}"
    rows = [f"{'':11}{'slots':>6}{'load':>7}{'p50':>9}{'p95':>9}{'p99':>9}  {goal}"]
    more = f"{asked.slots_for_more} do" if asked.slots_for_more else "no number does"
    near = {"one fewer": asked.below, "the size": asked.fits, "one more": asked.above, "+20 % load": asked.more_traffic}
    for name, found in near.items():
        times = "".join(f"{seconds(found.latency_s[p]) if found.latency_s else '-':>9}" for p in (50, 95, 99))
        said = "holds" if found.holds else "does not hold" if found.latency_s else "the queue grows"
        said += f"; {more}" if name.startswith("+") and not found.holds else ""
        rows.append(f"{name:11}{found.slots:>6g}{found.load:>7.0%}{times}  {said}")
    room = f"{need} hold until a request takes {seconds(asked.longest_s)} by itself, with all that your server adds"
    cpu = f"{asked.cpu_busy:.0%} of {plural(asked.cpus, 'CPU')} busy. " if asked.cpu_s else ""
    each = slots_for(asked.rate / processes, asked.wait_s, asked.objective_s, asked.percentile, asked.cpu_s)
    kinds = settings_for_slots(need, processes, each)
    settings = [f"{kind.server}, {kind.queue}: {kind.note}\n    {kind.settings}" for kind in kinds]
    return "\n".join([
        section("asked", f"{what}; {goal}"), section("slots", f"{need} in one queue; {held:g} are busy on average"),
        section("room", f"{cpu}{room} (1 ms is usual: --cpu 0.001)"), "", *rows, "", *settings, "",
        section("pools", pools_for(need, processes)),
    ])  # fmt: skip


# ---------------------------------------------------------------- the calculator


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="slots.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    few, many, time_s = number(int, 1, 100_000), number(int, 1, MOST_REQUESTS), number(float, 0, 1e6)
    add("--slots", type=few, metavar="S", default=NO_LIMIT, help="slots of a process (default: no limit)")
    add("--workers", type=number(int, 1, 1000), metavar="W", help="processes (default: 1)")
    add("--wait", type=time_s, metavar="SECONDS", default=1.0, help="how long a request holds its slot (default: 1)")
    add("--distribution", choices=DISTRIBUTIONS, default="constant", help="of the waits around that mean")
    add("--passes", type=number(int, 1, 9), default=1, help="how often a request takes a slot; it waits in the first")
    add("--one-queue", action="store_true", help="the processes accept only when idle")
    add("--split", type=counts, default=(), metavar="N,N", help="requests of each process; with -c its users")
    add("-n", "--requests", type=many, metavar="N", help="requests; without -c, --ramp, --rate all at once")
    add("-t", "--time-limit", type=number(float, 0.001, 1e6), metavar="SECONDS", help="how long requests are sent")
    load = parser.add_mutually_exclusive_group()
    load.add_argument("-c", "--concurrency", type=few, metavar="C", help="closed loop: so many users")
    load.add_argument("--ramp", "--users", type=stages, metavar="STAGES", help="users over time: 5s:50,10s:200")
    load.add_argument("--rate", type=number(float, 1e-3, 1e6), metavar="R", help="open loop: requests/s, on schedule")
    add("--think", type=time_s, metavar="SECONDS", default=0.0, help="of a user, between answer and next request")
    add("--arrivals", choices=("constant", "poisson"), default="constant", help="with --rate")
    add("--seed", type=number(int, 0, 2**63), default=1, help="of the Poisson arrivals (default: 1)")
    objective = parser.add_mutually_exclusive_group()
    for name in OBJECTIVES:
        objective.add_argument(name, type=number(float, 1e-6, 1e6), metavar="SECONDS", help="how many slots for it?")
    add("--cpu", type=time_s, metavar="SECONDS", default=0.0, help="what a request computes besides (with --p99)")
    add("--cpus", type=few, metavar="P", help="of the server (with --p99; default: one a worker)")
    options = parser.parse_args(argv)
    options.workers = options.workers or len(options.split) or 1
    if objective_of(options):
        return options
    if options.cpu or options.cpus:
        raise Problem("--cpu and --cpus go with an objective: --p99, --p95 or --p50")
    if options.split and (options.rate or options.one_queue or len(options.split) != options.workers):
        raise Problem("--split has a number for each of the --workers, and goes with neither --rate nor --one-queue")
    if options.split and sum(options.split) != (options.concurrency or options.requests or sum(options.split)):
        raise Problem(f"--split shares out {sum(options.split)}, which is not what -c or -n says")
    if options.ramp and not any(users for _, users in options.ramp):
        raise Problem("--ramp has no users at all")
    if not (options.requests or options.split or options.concurrency or options.ramp or options.rate):
        raise Problem("which load? -n for a burst, -c for users, --ramp for users over time, --rate for a schedule")
    if (options.concurrency or options.rate) and not (options.requests or options.time_limit):
        options.time_limit = 10.0
    return options


OBJECTIVES = {"--p50": 50, "--p95": 95, "--p99": 99}


def objective_of(options: argparse.Namespace) -> tuple[float, int] | None:
    """Seconds and percentile of the objective that is asked for, if one is; a Problem if something else is, too."""
    asked = [(value, p) for p in OBJECTIVES.values() if (value := getattr(options, f"p{p}")) is not None]
    if not asked:
        return None
    others = (options.slots != NO_LIMIT, options.distribution != "constant", options.passes > 1, options.one_queue,
              options.split, options.requests, options.time_limit, options.think)  # fmt: skip
    if not options.rate or any(others):
        raise Problem(f"--p{asked[0][1]} asks how many slots: with --rate and --wait, and --cpu, --cpus, --workers")
    return asked[0]


def forecast_of(options: argparse.Namespace) -> tuple[Forecast, str]:
    """The forecast that the arguments ask for, and the closed form beside it."""
    service = Service((options.slots,) * options.workers, options.one_queue, (1,) + (0,) * (options.passes - 1))
    t, split, users = options.wait, options.split, options.concurrency or options.ramp
    wait_s: Wait = t if options.distribution == "constant" else lambda i: drawn_wait_s(t, options.distribution, i)
    most, limit_s = options.requests or math.inf, options.time_limit or math.inf
    slots = options.slots if split else sum(service.slots)
    where = "the fullest process: " if split else "at the most users: " if options.ramp else ""
    if options.rate:
        poisson = options.arrivals == "poisson"
        due_s = constant_schedule(options.rate, most, limit_s)
        if poisson:
            due_s = poisson_schedule(options.rate, most, limit_s, options.seed)
        forecast, form = predict(due_s, service, wait_s), open_form(options.rate, len(due_s), slots, t, poisson)
    elif users:
        limits = {"requests": most, "time_limit_s": limit_s, "think_s": options.think}
        forecast = predict_users(users, service, wait_s, **limits, connections_of_process=split)
        most_users = options.concurrency or max(target for _, target in users)
        form = closed_form(max(split, default=most_users), slots, t, options.think)
    else:
        requests = options.requests or sum(split)
        forecast = predict([0.0] * requests, service, wait_s, spread_evenly(split))
        form = burst_form(max(split, default=requests), slots, t)
    if options.passes > 1 or options.distribution != "constant":
        form += " That is for one pass and a constant wait; what follows is for yours."
    return forecast, where + form


def render_figures(figures: Expected) -> str:
    shown = {"mean": figures["mean_s"], "median": figures["median_s"], "p95": figures["p95_s"], "p99": figures["p99_s"]}
    latencies = ", ".join(f"{name} {seconds(value)}" for name, value in shown.items() if value is not None)
    rate = "" if figures["throughput_rps"] is None else f"{figures['throughput_rps']:.4g} requests/s; "
    return f"{rate}latency {latencies}; the last answer after {seconds(figures['makespan_s'] or 0.0)}."


def render_table(forecast: Forecast) -> str:
    """The rounds of a burst; otherwise a line for each tenth of the requests, in order of sending."""
    times_s = [(round(a, 6), round(b, 6)) for a, b in zip(forecast.started_s, forecast.answered_s, strict=True)]
    rows: list[tuple[str, ...]] = [("requests", "started", "answered")]
    if not any(forecast.arrived_s) and len(set(times_s)) <= 24:
        rows += [(str(n), seconds(a), seconds(b)) for (a, b), n in sorted(Counter(times_s).items())]
    else:
        rows = [("request", "sent", "started", "answered", "mean latency", "longest")]
        firsts = sorted({len(times_s) * tenth // 10 for tenth in range(11)})
        for begin, end in itertools.pairwise(firsts):
            latencies_s = [forecast.answered_s[i] - forecast.arrived_s[i] for i in range(begin, end)]
            first_s = [column[begin] for column in forecast]
            figures_s = [*first_s, math.fsum(latencies_s) / len(latencies_s), max(latencies_s)]
            rows.append((str(begin), *map(seconds, figures_s)))
    return "\n".join("".join(f"{cell:>13}" for cell in row) for row in rows)


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    try:
        if not argv:
            print(__doc__, flush=True)
            return 0
        options = parse_arguments(argv)
        if objective := objective_of(options):
            found = size(options.rate, options.wait, *objective, options.cpu, options.cpus or options.workers)
            print(render_size(found, options.workers), flush=True)
            return 0
        forecast, form = forecast_of(options)
        figures = render_figures(expected(forecast, options.time_limit or math.inf))
        print(
            section("closed form", form), section("expected", figures), "", render_table(forecast), sep="\n", flush=True
        )
    except Problem as problem:
        print(f"slots.py: {problem}", file=sys.stderr)
        return problem.exit_code
    except OSError as error:  # of what is printed
        sys.stdout = None  # or the interpreter's last flush would say it again
        if not isinstance(error, BrokenPipeError):  # else whoever read it has seen enough
            print(f"slots.py: cannot write the output: {error.strerror}", file=sys.stderr)
        return 0 if isinstance(error, BrokenPipeError) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
