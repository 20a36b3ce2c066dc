"""A cheap request beside the load: how long it waits behind the slow ones (--victim PATH).

While the load runs, a process of its own asks for the path ten times a second. The prediction is made before: a request
that shares the slots of the others waits until all that came before it have one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from engine import model
from engine.client import ERRORS, Outcome, is_success
from engine.loads import Open, Part
from engine.plans import forecast_of
from engine.processes import ENDING, Sender
from engine.run import Plan, Victim, VictimPrediction
from engine.stats import statistics_of

RATE_RPS, LONGEST_S = 10.0, 86_400.0


def victim_plan(plan: Plan) -> Plan:
    """What is sent beside a load."""
    load = Open(time_limit_s=LONGEST_S, rate_rps=RATE_RPS)
    return dataclasses.replace(
        plan, path=plan.victim, method="GET", body=b"", kinds=(), load=load, keep_alive=False, processes=1
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
    """Its own figures; what was under way when the load ended counts for nothing."""
    if not outcome:
        return None
    rows = outcome.exchanges
    ended = [i for i, error in enumerate(rows.error) if ERRORS[error] != "interrupted"]
    good = [i for i in ended if is_success(rows.status[i], rows.error[i])]
    latencies_s = [rows.answered_s[i] - outcome.begun_s - i / RATE_RPS for i in good]
    found = statistics_of(latencies_s)
    return Victim(plan.victim, len(good), len(ended) - len(good), found, alone_s, predicted_victim(plan, alone_s))


# ---------------------------------------------------------------- the prediction


def shares_slots(plan: Plan) -> bool | None:
    """Whether it needs one of the slots that the load needs; None: not known."""
    launch, victim = plan.launch, plan.victim_handler
    if not launch or launch.kind.slots != "handler":
        return plan.slots_known or None
    if launch.handler == "blocking":
        return True
    if not launch.handler or not victim:
        return None
    return launch.handler.startswith("def") and victim.startswith("def")


def predicted_victim(plan: Plan, alone_s: float | None) -> VictimPrediction | None:
    """The median of its latency; of several processes with queues of their own, of each. None: not known."""
    is_shared, forecast = shares_slots(plan), forecast_of(plan)
    if is_shared is None or alone_s is None or not forecast:
        return None
    return behind(plan, forecast, alone_s) if is_shared else VictimPrediction(alone_s, (alone_s,), False)


def behind(plan: Plan, forecast: model.Forecast, alone_s: float) -> VictimPrediction:
    """Of a victim that waits for the slots of the load."""
    queues = plan.service.queues
    each = [waits_of_queue(forecast, slots, k, len(queues)) for k, slots in enumerate(queues)]
    medians = [alone_s + statistics.median(waits_s or [0.0]) for waits_s in each]
    every = [wait_s for waits_s in each for wait_s in waits_s]
    return VictimPrediction(alone_s + statistics.median(every or [0.0]), tuple(medians), True)


def waits_of_queue(forecast: model.Forecast, slots: float, number: int, queues: int) -> Sequence[float]:
    """How long a request waits for a slot of one queue, at each moment at which one is sent during the load."""
    own: list[Any] = [column[number::queues] for column in forecast]
    of_queue = model.Forecast(*own)
    last_s = max(of_queue.answered_s, default=0.0)
    return [model.wait_behind(of_queue, slots, k / RATE_RPS) for k in range(int(last_s * RATE_RPS))]
