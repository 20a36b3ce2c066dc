"""The four kinds of load. Each knows what may leave now, its forecast, its formula, and the figures it is judged by.

Little else asks which kind a load is: the client asks `limits`, the prediction asks `forecast`, the verdict asks
`judged_by`. A new kind of load is a class here, its words in report_words.py, its option in options.py, and a line in
load_of() of plans.py, which makes it from the options.
A load reads no clock and sees no socket, so a table of cases tests it. Times are seconds since the run began.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import ClassVar

from engine import model
from engine.model import Forecast, Service, Stages, Wait
from engine.words import Problem, duration


class Figure(str, Enum):
    """A figure of a run that is compared with its prediction."""

    LAST_ANSWER = "makespan_s"
    MEAN = "mean_s"
    THROUGHPUT = "throughput_rps"
    P95 = "p95_s"
    P99 = "p99_s"


@dataclass(frozen=True)
class Load:
    """When requests are sent. requests: in all. time_limit_s: no request is sent from then on.

    What a kind of load does not say otherwise is here as for a burst: all requests leave at once.
    """

    kind: ClassVar[str]
    is_scheduled: ClassVar[bool] = False  # a request leaves when it is due, whatever the server does
    is_steady: ClassVar[bool] = True  # small overheads add up, as every request queues behind others
    judged_by: ClassVar[tuple[Figure, ...]]

    requests: float = math.inf
    time_limit_s: float = math.inf
    think_s: float = 0.0  # the pause of a user between an answer and the next request

    @property
    def most_under_way(self) -> float:
        """The most requests that can be under way at once."""
        return self.requests

    @property
    def steady_count(self) -> int | None:
        """How many requests wait side by side throughout, as far as slots can be read from the answers; else None."""
        return None

    @property
    def most_requests(self) -> float:
        """The most requests that the load can send."""
        return self.requests

    def goes_on_s(self, last_s: float, sent: int) -> float:
        """How long it goes on at least, if so many requests are sent and the last answer comes at last_s."""
        return last_s

    @property
    def due_in_all(self) -> int | None:
        """How many requests a schedule sends; None without a schedule."""
        return int(self.most_requests) if self.is_scheduled else None

    def limits(self, elapsed_s: float) -> tuple[float, float]:
        """How many requests may have been sent in all by now, and how many may be under way at once."""
        return self.requests, math.inf

    def next_change_s(self, elapsed_s: float) -> float:
        """When to ask for the limits again. Of a schedule see Part."""
        return self.time_limit_s

    def due_s(self, number: int) -> float:
        """When a request leaves that waits for no answer."""
        return 0.0

    def served(self, connections: float) -> Load:
        """What is left of it where the server serves only so many connections at a time, and users keep theirs."""
        return self

    def forecast(self, service: Service, wait_s: Wait, process_of: Sequence[int] = (), keeps: bool = False) -> Forecast:
        """The times of every request.

        process_of: which process takes request i, as far as that is known; the others go to each in turn. keeps: users
        keep their connections, so it is which process has user i.
        """
        model.check_count(self.most_requests)
        numbers = range(int(self.most_requests))
        deal = [*process_of, *(i % len(service.slots) for i in numbers[len(process_of) :])]
        return model.predict([self.due_s(i) for i in numbers], service, wait_s, deal)

    def of_process(self, share: int) -> Load:
        """The load of a process that gets that much of a split."""
        return replace(self, requests=share)

    def first(self, requests: int) -> Load:
        """So many requests of it."""
        return replace(self, requests=requests)

    def formula(self, slots: float, wait_s: float) -> str:
        """The closed form with its numbers."""
        raise NotImplementedError

    def last_answer_s(self, slots: float, wait_s: float) -> float | None:
        """The closed form of the last answer's time, for loads too large for a forecast; None: there is none."""
        if self.steady_count is None or self.requests == math.inf:
            return None
        return model.rounds(int(self.requests), min(slots, self.most_under_way)) * wait_s

    def once_under_way(self, slots: float, wait_s: float) -> tuple[float, float] | None:
        """Requests/s and mean latency of users by the closed form; None where there are no users."""
        return None

    def spread_s(self, slots: float, wait_s: float) -> float | None:
        """The latency that all requests approach as users drift out of step; None where users do not wait in step."""
        return None

    def offered_load(self, slots: float, wait_s: float) -> float | None:
        """rate x t / S of a schedule; None where users wait for answers."""
        return None


@dataclass(frozen=True)
class Burst(Load):
    """All requests at once."""

    kind = "burst"
    is_steady = False
    judged_by = (Figure.LAST_ANSWER,)
    requests: float = 16

    @property
    def steady_count(self) -> int:
        return int(self.requests)

    def formula(self, slots: float, wait_s: float) -> str:
        last = duration(self.last_answer_s(slots, wait_s))
        if slots == math.inf:
            return f"t = {last}"
        return f"ceil(n / S) x t = ceil({self.requests:g} / {slots:g}) x {duration(wait_s)} = {last}"


class Users(Load):
    """Users that send, wait for the answer, think, and send again."""

    @property
    def users(self) -> Stages:
        """Stages of (seconds, users at their end), as in k6; a constant number is one stage of 0 s."""
        raise NotImplementedError

    @property
    def most_users(self) -> int:
        return max(users for _, users in self.users)

    @property
    def most_under_way(self) -> float:
        return min(self.requests, self.most_users)

    def goes_on_s(self, last_s: float, sent: int) -> float:
        return last_s + self.think_s if sent < self.requests else last_s  # users pause when the time is over

    def forecast(self, service: Service, wait_s: Wait, process_of: Sequence[int] = (), keeps: bool = False) -> Forecast:
        return model.predict_users(
            self.users, service, wait_s, self.requests, self.time_limit_s, self.think_s, process_of, keeps
        )

    def once_under_way(self, slots: float, wait_s: float) -> tuple[float, float]:
        return model.closed_loop(int(self.most_under_way), slots, wait_s, self.think_s)

    def formula(self, slots: float, wait_s: float) -> str:
        users, think_s = int(self.most_under_way), self.think_s
        rps, mean_s = self.once_under_way(slots, wait_s)
        t, think = duration(wait_s), duration(think_s)
        if mean_s == wait_s:
            form = f"c / (t + think) = {users} / ({t} + {think})" if think_s else f"c / t = {users} / {t}"
            return f"{form} = {rps:.4g} requests/s, mean latency t = {t}"
        less, minus = (" - think", f" - {think}") if think_s else ("", "")
        latency = f"c t / S{less} = {users} x {t} / {slots:g}{minus} = {duration(mean_s)}"
        return f"S / t = {slots:g} / {t} = {rps:.4g} requests/s, mean latency {latency}"


@dataclass(frozen=True)
class Closed(Users):
    """A closed loop: a number of users that stays the same."""

    kind = "closed"
    judged_by = (Figure.MEAN, Figure.THROUGHPUT, Figure.P95)
    concurrency: int = 1

    @property
    def users(self) -> Stages:
        return ((0.0, self.concurrency),)

    @property
    def steady_count(self) -> int:
        return self.concurrency

    def served(self, connections: float) -> Load:
        return self.of_process(int(min(self.concurrency, connections)))

    def of_process(self, share: int) -> Load:
        return replace(self, concurrency=share)

    def limits(self, elapsed_s: float) -> tuple[float, float]:
        return self.requests, self.concurrency

    def last_answer_s(self, slots: float, wait_s: float) -> float | None:
        found_s = super().last_answer_s(slots, wait_s)
        if found_s is None or not self.think_s:
            return found_s
        users = int(self.most_under_way)
        rps, _ = self.once_under_way(slots, wait_s)
        # The pause after the last answer is not waited for; where the slots limit, they are busy to the end.
        idle_s = wait_s + self.think_s - model.rounds(users, min(slots, users)) * wait_s
        return self.requests / rps - max(0.0, idle_s)

    def spread_s(self, slots: float, wait_s: float) -> float:
        return self.once_under_way(slots, wait_s)[1]


@dataclass(frozen=True)
class Ramp(Users):
    """A closed loop whose number of users changes: stages of (seconds, users at their end), as in k6."""

    kind = "ramp"
    judged_by = (Figure.MEAN, Figure.THROUGHPUT)
    stages: Stages = ()

    @property
    def users(self) -> Stages:
        return self.stages

    def limits(self, elapsed_s: float) -> tuple[float, float]:
        begin_s, users = 0.0, 0.0
        for stage_s, next_users in self.stages:
            if elapsed_s < begin_s + stage_s:
                return self.requests, math.ceil(users + (next_users - users) * (elapsed_s - begin_s) / stage_s)
            begin_s, users = begin_s + stage_s, next_users
        return self.requests, users

    def next_change_s(self, elapsed_s: float) -> float:
        return min(elapsed_s + 0.02, self.time_limit_s)


@dataclass(frozen=True)
class Open(Load):
    """An open loop: a request leaves when it is due, whatever the server does.

    schedule_s: when each request is due; empty: every 1 / rate_rps seconds.
    """

    kind = "open"
    is_scheduled = True
    judged_by = (Figure.MEAN, Figure.P99)
    rate_rps: float = 1.0
    arrivals: str = "constant"  # or poisson
    seed: int | None = None
    schedule_s: Sequence[float] = field(default=(), repr=False, metadata={"json": False})
    asked: float = field(
        default=math.inf, compare=False, metadata={"json": False}
    )  # requests of a random schedule, at most

    @classmethod
    def poisson(cls, rate_rps: float, requests: float, time_limit_s: float, seed: int) -> Open:
        if min(requests, time_limit_s * rate_rps) > 10_000_000:
            raise Problem("--arrivals poisson: at most 10 million requests")
        schedule_s = model.poisson_schedule(rate_rps, requests, time_limit_s, seed)
        return cls(len(schedule_s), time_limit_s, 0.0, rate_rps, "poisson", seed, tuple(schedule_s), requests)

    @property
    def most_requests(self) -> float:
        if self.schedule_s:
            return bisect.bisect_left(self.schedule_s, self.time_limit_s)
        due = self.time_limit_s * self.rate_rps
        return min(self.requests, due if due == math.inf else math.ceil(round(due, 6)))

    def goes_on_s(self, last_s: float, sent: int) -> float:
        return max(last_s, self.requests / self.rate_rps)

    def limits(self, elapsed_s: float) -> tuple[float, float]:
        if self.schedule_s:
            return bisect.bisect_right(self.schedule_s, elapsed_s), math.inf
        return min(self.requests, int(elapsed_s * self.rate_rps) + 1), math.inf

    def due_s(self, number: int) -> float:
        return self.schedule_s[number] if self.schedule_s else number / self.rate_rps

    def first(self, requests: int) -> Load:
        return replace(self, requests=requests, schedule_s=self.schedule_s[:requests])

    def formula(self, slots: float, wait_s: float) -> str:
        load = f"{self.offered_load(slots, wait_s):.3g}"
        if slots == math.inf:
            return f"there is a slot for each request, which takes t = {duration(wait_s)}"
        return f"load = rate x t / S = {self.rate_rps:g} x {duration(wait_s)} / {slots:g} = {load}"

    def offered_load(self, slots: float, wait_s: float) -> float:
        return self.rate_rps * wait_s / slots


@dataclass(frozen=True)
class Part:
    """What client process k of N has to send of a load: every N-th request, and its share of the users."""

    load: Load
    k: int = 0
    processes: int = 1

    def dealt(self, total: float) -> float:
        """How many of `total` requests or users belong to this process.

        >>> [Part(Burst(), k, 3).dealt(7) for k in range(3)]
        [3, 2, 2]
        """
        return total if total == math.inf else math.ceil((total - self.k) / self.processes)

    @property
    def requests(self) -> float:
        return self.dealt(self.load.requests)

    def limits(self, elapsed_s: float) -> tuple[float, float]:
        released, users = self.load.limits(elapsed_s)
        return self.dealt(released), self.dealt(users)

    def next_change_s(self, elapsed_s: float) -> float:
        """As the load's own; of a schedule, when the next request of this process is due."""
        if not self.load.is_scheduled:
            return self.load.next_change_s(elapsed_s)
        released, _ = self.limits(elapsed_s)
        number = int(released) * self.processes + self.k
        next_s = self.load.due_s(number) if released < self.requests else math.inf
        return min(next_s, self.load.time_limit_s)
