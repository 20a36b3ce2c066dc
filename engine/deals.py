"""How the kernel deals connections to processes that accept by themselves, and what that does to a prediction. Pure.

All idle processes wake for a connection, and the fastest takes it. That is neither even nor a fair lottery: under a
steady load on Linux the process that began to wait at the socket first mostly gets the most, and the last one the
least. (Processes that do nothing but accept have the same favourites, in reverse where they register in reverse, and on
one CPU too. A process that is kept awake gets less, not more. At few connections/s, and in a burst, the order decides
less.) Why the kernel runs the first of them first is not known here.

Nor is a deal a row of independent draws. Threads of gunicorn get connections in runs, as a process that was just
awake is fast; uvicorn's processes take turns more evenly than chance would have it.

engine/calibrate.py measures on a small app of ours, in another run than the one that is predicted, which process takes
each request. A prediction is then made for many deals that are put together at random from pieces of that order (a
block bootstrap: it keeps the shares, and what follows what).
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from statistics import fmean, median
from typing import Any

from engine.run import Deal, Plan, Prediction, range_name

DEALS = 400  # that a prediction is made for: of 100 the ends of a range differ by a tenth
MOST_DEALT = 20_000  # requests of one deal; it begins again then
MOST_STEPS = 600_000  # requests in all of them
BLOCK = 100  # requests of a piece
OF_ONE_START = 1 / 3  # of the pieces
WITHIN = 0.08  # of a figure: so exact is the prediction where the deal is known
LOW, HIGH = 0.05, 0.95  # of these deals the range leaves out so many at each end


def is_dealt(plan: Plan) -> bool:
    """Whether the deal decides: several processes of a known server, each with a queue of its own, for connections that
    are new for each request."""
    is_known = plan.launch and not plan.launch.run and plan.slots_known and not plan.slots_stated and plan.wait_s
    can_be_full = (plan.slots_per_worker or 0) < plan.load.most_under_way  # else all deals give the same
    return bool(
        is_known
        and can_be_full
        and plan.workers > 1
        and not plan.shared_queue
        and not plan.keep_alive
        and not plan.kinds
    )


def as_shares(counts: Sequence[int]) -> tuple[float, ...]:
    """
    >>> as_shares([10, 70, 20])
    (0.7, 0.2, 0.1)
    """
    return tuple(sorted((round(count / sum(counts), 4) for count in counts), reverse=True))


def mean_shares(shares: Sequence[Sequence[float]]) -> list[float]:
    """Of several calibrations.

    >>> mean_shares([[0.75, 0.25], [0.5, 0.5]])
    [0.625, 0.375]
    """
    return [fmean(of_process) for of_process in zip(*shares, strict=True)]


def random_deals(deal: Deal, requests: int, is_burst: bool) -> Iterator[list[int]]:
    """Which process takes each request, in many deals; the same in every run.

    Of a burst the shares are those that one measured burst had. Of another load it is put together from pieces of what
    was measured. A third of the pieces are from one start of the server, as shares vary from start to start; the others
    are from any, as a good part of that is chance, which the choice of pieces has once more.
    """
    for seed in range(max(5, min(DEALS, MOST_STEPS // max(1, requests)))):
        dice = random.Random(seed)
        if is_burst:
            shares = dice.choice(deal.shares)
            counts = [round(share * requests) for share in shares]
            deck = [process for process, count in enumerate(counts) for _ in range(count)]
            yield (deck + [0] * requests)[:requests]
        else:
            yield in_pieces(deal.orders, requests, dice)


def in_pieces(orders: Sequence[Sequence[int]], requests: int, dice: random.Random) -> list[int]:
    """
    >>> in_pieces([[0, 0, 1]], 7, random.Random(1))
    [0, 1, 0, 0, 1, 0, 0]
    """
    one, dealt = dice.choice(orders), list[int]()
    while len(dealt) < requests:
        order = one if dice.random() < OF_ONE_START else dice.choice(orders)
        begins = dice.randrange(len(order))
        dealt += [*order[begins:], *order[:begins]][:BLOCK]
    return dealt[:requests]


def as_order(processes: Sequence[Hashable]) -> tuple[int, ...]:
    """The process of each request by its place in the shares.

    >>> as_order(["b", "a", "a", "b", "a"])
    (1, 0, 0, 1, 0)
    """
    place = {process: number for number, (process, _) in enumerate(Counter(processes).most_common())}
    return tuple(place[process] for process in processes)


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
    """From 5 to 95 % of the deals, and what a prediction may be off where the deal is known."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    low, high = known[int(LOW * len(known))], known[min(len(known) - 1, int(HIGH * len(known)))]
    return low * (1 - WITHIN), high * (1 + WITHIN)
