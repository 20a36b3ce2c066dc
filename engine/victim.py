"""A cheap request beside the load: how long it waits behind the slow ones (--victim PATH).

While the load runs, a process of its own asks for the path ten times a second. The prediction is made before: a request
that shares the slots of the others waits until all that came before it have one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from engine import deals, model
from engine.client import ERRORS, Outcome, is_success
from engine.loads import Open, Part
from engine.plans import forecast_of
from engine.processes import ENDING, Sender
from engine.run import Plan, Victim, VictimPrediction
from engine.stats import statistics_of

RATE_RPS, LONGEST_S = 10.0, 86_400.0
MOST_DEALS = 25  # of those that are predicted
MOST_MOMENTS = 100  # of the load, at which it is seen how long one more request would wait
SPREAD = 7919  # a prime: the victim is dealt as a request somewhere in the deal, not as the one of the load before it


def victim_plan(plan: Plan) -> Plan:
    """What is sent beside a load."""
    load = Open(time_limit_s=LONGEST_S, rate_rps=RATE_RPS)
    return dataclasses.replace(
        plan, path=plan.victim, method="GET", body=b"", kinds=(), load=load, keep_alive=False, processes=1, until=None
    )


@contextlib.contextmanager
def asked_beside(plan: Plan, sender_of: Callable[[Plan], Callable[..., Outcome]]) -> Iterator[list[Outcome]]:
    """Ask for the victim until the block ends; then the list has the outcome. Nothing where there is no victim."""
    found: list[Outcome] = []
    if not plan.victim:
        yield found
        return
    beside = victim_plan(plan)
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # until the process has its handlers
    sender = Sender(Part(beside.load, 0, 1), sender_of(beside), time.perf_counter() + 0.05)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    try:
        yield found
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(sender.process.pid, signal.SIGUSR1)
        sender.process.join(2)
        sender.process.kill()
        found.append(sender.result(0))


def victim_of(plan: Plan, outcome: Outcome | None, alone_s: float | None) -> Victim | None:
    """Its own figures; and what is known of the median of all, where some were under way when the load ended."""
    if not outcome:
        return None
    rows = outcome.exchanges
    cut = [i for i, error in enumerate(rows.error) if ERRORS[error] == "interrupted"]
    good = [i for i in range(len(rows.error)) if is_success(rows.status[i], rows.error[i])]

    known_s, cut_s = ([rows.answered_s[i] - outcome.begun_s - i / RATE_RPS for i in which] for which in (good, cut))
    failed, predicted = len(rows.error) - len(good) - len(cut), predicted_victim(plan, alone_s)
    of_all_s = median_with(known_s, cut_s) if cut else None
    return Victim(plan.victim, len(good), failed, statistics_of(known_s), alone_s, predicted, of_all_s)


def median_with(known_s: Sequence[float], cut_s: Sequence[float]) -> tuple[float, float | None]:
    """The median of all, where some were cut off after these times: at least, and at most (None: any).

    >>> median_with([1.0, 2.0, 3.0], [0.5]), median_with([1.0], [0.5, 4.0])
    ((1.5, 2.5), (1.0, None))
    """
    most_s = statistics.median([*known_s, *[math.inf] * len(cut_s)])
    return statistics.median([*known_s, *cut_s]), most_s if most_s < math.inf else None


def is_not_as_predicted(found: Victim) -> bool:
    """Whether the median is not within 20 % and 20 ms of what was predicted, whatever those that were cut off did."""
    of, median_s = found.prediction, found.latency_s.median if found.latency_s else None
    least_s, most_s = found.median_of_all_s or (median_s, median_s)
    if not of or not least_s:
        return False
    low_s, high_s = of.range_s or (of.median_s, of.median_s)
    return (most_s or math.inf) < 0.8 * low_s - 0.02 or least_s > 1.2 * high_s + 0.02


# ---------------------------------------------------------------- the prediction


def shares_slots(plan: Plan) -> bool | None:
    """Whether it needs one of the slots that the load needs; None: not known."""
    launch, victim = plan.launch, plan.victim_handler
    if plan.slots_stated:  # they may be those of a pool
        return None
    if not launch or launch.kind.slots != "handler":
        return plan.slots_known or None
    if launch.handler == "blocking":
        return True
    if not launch.handler or not victim:
        return None
    return all(one.startswith("def") or one == "async in AnyIO's threads" for one in (launch.handler, victim))


def predicted_victim(plan: Plan, alone_s: float | None) -> VictimPrediction | None:
    """The median of its latency; of several processes with queues of their own, of each, the one with the largest share
    of the requests first. None: not known."""
    is_shared, forecast = shares_slots(plan), forecast_of(plan)
    if is_shared is None or alone_s is None or not forecast:
        return None
    if not is_shared:
        return VictimPrediction(alone_s, (alone_s,), False)
    found = list(filter(None, (behind(plan, dealt, alone_s) for dealt in deals_of(plan, len(forecast.answered_s)))))
    if not found:
        return None
    each = list(zip(*(one.of_processes_s for one in found), strict=True))
    middle_s = statistics.median(one.median_s for one in found)
    # A request that comes by itself mostly goes to the same process each time, and it is not known to which.
    range_s = deals.range_of(list(itertools.chain(*each))) if plan.deal else None
    return VictimPrediction(middle_s, tuple(map(statistics.median, each)), True, range_s)


def deals_of(plan: Plan, requests: int) -> Sequence[Sequence[int]]:
    """Which process takes each request: in some random deals, where it was measured how the kernel deals; else each in
    turn."""
    if not plan.deal:
        return [range(len(plan.service.queues))]
    every = deals.random_deals(plan.deal, min(requests, deals.MOST_DEALT), plan.load.kind == "burst")
    return list(itertools.islice(every, MOST_DEALS))


def behind(plan: Plan, dealt: Sequence[int], alone_s: float) -> VictimPrediction | None:
    """Of a victim that waits for the slots of the load, and is dealt as the requests of the load are."""
    forecast = forecast_of(plan, dealt)
    if not forecast:
        return None
    queues = plan.service.queues
    last_s = max(forecast.answered_s, default=0.0)
    step_s = max(1 / RATE_RPS, last_s / MOST_MOMENTS)
    sent_s = [k * step_s for k in range(int(last_s / step_s))]
    each = [waits_of_queue(forecast, slots, dealt, process, sent_s) for process, slots in enumerate(queues)]
    medians = [alone_s + statistics.median(waits_s or [0.0]) for waits_s in each]
    every = [each[dealt[k * SPREAD % len(dealt)]][k] for k in range(len(sent_s))]
    return VictimPrediction(alone_s + statistics.median(every or [0.0]), tuple(medians), True)


def waits_of_queue(
    forecast: model.Forecast, slots: float, dealt: Sequence[int], process: int, sent_s: Sequence[float]
) -> Sequence[float]:
    """How long a request waits for a slot of one process, at each of the moments."""
    own = [i for i in range(len(forecast.answered_s)) if dealt[i % len(dealt)] == process]
    columns: list[Any] = [[column[i] for i in own] for column in forecast]
    of_queue = model.Forecast(*columns)
    return [model.wait_behind(of_queue, slots, at_s) for at_s in sent_s]
