"""How the kernel deals connections to processes that accept by themselves, and what that does to a prediction. Pure.

All idle processes wake for a connection, and the fastest takes it. That is neither even nor a fair lottery: under a
steady load on Linux the process that began to wait at the socket first mostly gets the most, and the last one the
least. (Processes that do nothing but accept have the same favourites, in reverse where they register in reverse, and on
one CPU too. A process that is kept awake gets less, not more. At few connections/s, and in a burst, the order decides
less.) Why the kernel runs the first of them first is not known here.

engine/calibrate.py measures the shares on a small app of ours, in another run than the one that is predicted. A
prediction is then made for many deals at random that have these shares.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from engine.run import Deal, Plan, Prediction, range_name

DEALS = 40  # that a prediction is made for
MOST_DEALT = 20_000  # requests of one deal; it begins again then
MOST_STEPS = 300_000  # requests in all of them
LOW, HIGH = 0.05, 0.95  # of these deals the range leaves out so many at each end


@dataclass(frozen=True)
class Question:
    """What a calibration depends on; the file of calibrations is asked by its text."""

    server: str
    workers: int
    threads: int
    arguments: tuple[str, ...]
    load: str
    amount: float  # requests of a burst, users, or requests/s
    wait_s: float

    @property
    def key(self) -> str:
        """Loads that differ by less than a tenth have one."""
        amount, wait_s = f"{self.amount:.2g}", f"{self.wait_s:.1g}" if self.load != "burst" else "-"
        words = [self.server, f"{self.workers} x {self.threads}", *self.arguments, self.load, amount, wait_s]
        return " ".join(words)


def is_dealt(plan: Plan) -> bool:
    """Whether the deal decides: several processes of a known server, each with a queue of its own, for connections that
    are new for each request."""
    is_known = plan.launch and not plan.launch.run and plan.slots_known and not plan.slots_stated and plan.wait_s
    return bool(is_known and plan.workers > 1 and not plan.shared_queue and not plan.keep_alive and not plan.kinds)


def as_shares(counts: Sequence[int]) -> tuple[float, ...]:
    """
    >>> as_shares([10, 70, 20])
    (0.7, 0.2, 0.1)
    """
    return tuple(sorted((round(count / sum(counts), 4) for count in counts), reverse=True))


def random_deals(deal: Deal, requests: int, is_burst: bool) -> Iterator[list[int]]:
    """Which process takes each request, in many deals; the same in every run.

    Of a burst the shares are those that one measured burst had. Of another load they are measured over some time: each
    request is drawn, and the shares themselves vary a little from start to start of a server.
    """
    for seed in range(max(5, min(DEALS, MOST_STEPS // max(1, requests)))):
        dice = random.Random(seed)
        shares = dice.choice(deal.shares)
        if is_burst:
            counts = [round(share * requests) for share in shares]
            deck = [process for process, count in enumerate(counts) for _ in range(count)]
            yield (deck + [0] * requests)[:requests]
        else:
            yield dice.choices(range(len(shares)), varied(shares, dice), k=requests)


def varied(shares: Sequence[float], dice: random.Random) -> list[float]:
    """Shares of another start of the server: a little other ones, and somewhat nearer to each other, as a part of what
    the largest of a short calibration has is chance."""
    to_even = dice.uniform(0.0, 0.2)
    return [(share + to_even * (1 / len(shares) - share)) * dice.uniform(0.9, 1.1) for share in shares]


def with_ranges(even: Prediction, plan: Plan, predict: Callable[[Sequence[int]], Prediction | None]) -> Prediction:
    """The prediction for random deals with the measured shares: the middle of each figure, and the range of some.

    even: each process in turn, as one would hope for. predict: the figures of one deal; None: not known.
    """
    deal, load = plan.deal, plan.load
    if not deal or not even.is_known:
        return even
    deals = random_deals(deal, int(min(load.most_requests, MOST_DEALT)), load.kind == "burst")
    found = list(filter(None, map(predict, deals)))
    if not found:
        return even
    middle: dict[str, Any] = {name: middle_of([getattr(one, name) for one in found]) for name in FIGURES}
    ranges: dict[str, Any] = {range_name(name): range_of([getattr(one, name) for one in found]) for name in RANGED}
    return dataclasses.replace(
        even, **middle, **ranges, p99_if_longer_s=None, if_even={name: getattr(even, name) for name in FIGURES}
    )


RANGED = ("throughput_rps", "mean_s", "p95_s", "p99_s", "makespan_s")
FIGURES = (*RANGED, "median_s")


def middle_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def range_of(values: Sequence[float | None]) -> tuple[float, float] | None:
    """From 5 to 95 % of the deals."""
    known = sorted(value for value in values if value is not None)
    return (known[int(LOW * len(known))], known[min(len(known) - 1, int(HIGH * len(known)))]) if known else None
