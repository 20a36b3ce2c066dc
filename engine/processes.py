"""The client as several processes, for a load that one CPU cannot send (--processes N).

Requests, users and schedule are dealt in turn: request i of process k of N is number i x N + k of the load. The
processes are forked, so that they share one clock (perf_counter is the whole system's), and begin at one moment; each
leaves its raw times in a file. Nothing is averaged: the one result holds every request, and the requests of a process
that died are in it as failures.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import multiprocessing
import os
import pickle
import signal
import tempfile
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from time import perf_counter
from typing import Any

from engine.client import ERRORS, Exchanges, Outcome
from engine.loads import Part
from engine.signals import signals
from engine.words import Problem

FORK = multiprocessing.get_context("fork")
ENDING = {signal.SIGUSR1, *(getattr(signal, name) for name in signals.NAMES)}


@dataclass
class Sender:
    """A client process. Raises OSError where the system does not allow so many processes or files."""

    part: Part
    send_part: Callable[..., Outcome]
    begun_s: float

    def __post_init__(self) -> None:
        self.told = FORK.RawArray("Q", 2)  # how many requests are sent and under way
        self.file = tempfile.TemporaryFile()  # noqa: SIM115  its result, pickled
        self.parent = os.getpid()
        self.process: Any = FORK.Process(target=self.send)
        self.process.start()

    def tell(self, _: float, sent: int, under_way: int, *_sample: object) -> None:
        self.told[:] = sent, under_way
        if os.getppid() != self.parent:
            os._exit(1)  # nothing would read the result

    def send(self) -> None:
        """What the process does."""
        for name in signals.NAMES:  # Ctrl-C reaches children, too: their parent tells them to stop, by SIGUSR1
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        signals.is_held = True
        signal.signal(signal.SIGUSR1, signals.handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        pickle.dump(self.send_part(self.part, self.tell, self.begun_s), self.file)
        self.file.flush()

    def result(self, requests: float) -> Outcome:
        """What it left. requests: of the load; so many of them as belong to a process that died count as failures."""
        self.file.seek(0)
        with self.file, contextlib.suppress(EOFError, pickle.UnpicklingError):
            outcome: Outcome = pickle.load(self.file)
            return outcome
        lost, exchanges = max(self.told[0], int(self.part.dealt(requests))), Exchanges()
        exchanges.grow(lost)
        exchanges.started_s = exchanges.answered_s = array("d", [perf_counter()]) * lost
        exchanges.error = array("B", [ERRORS.index("client died")]) * lost
        return Outcome(exchanges, self.begun_s, 0.0, 0)


def wait_for_end(senders: Sequence[Sender]) -> bool:
    """Wait for a tenth of a second, or until one ends. False: all have ended."""
    alive = [sender.process.sentinel for sender in senders if sender.process.is_alive()]
    return bool(connection.wait(alive, 0.1)) or bool(alive)


def send_from(send_part: Callable[..., Outcome], first: Part, progress: Callable[..., object]) -> Outcome:
    """Send a load from as many processes as its first part says; each calls send_part(part, progress, begun_s).

    Raises Problem where the system does not allow so many processes or files.
    """
    if first.processes == 1:
        return send_part(first, progress)
    load, processes, senders = first.load, first.processes, list[Sender]()
    begun_s = perf_counter() + 0.05 + 0.01 * processes  # when all of them have been forked

    def stop(_: str = "") -> None:
        for sender in senders:
            if sender.process.is_alive():
                os.kill(sender.process.pid, signal.SIGUSR1)

    try:
        # A signal between a fork and its child's handlers would kill the child, and one between two forks miss a child.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        for k in range(processes):
            senders.append(Sender(Part(load, k, processes), send_part, begun_s))
        signals.stop_load = stop
        if signals.received:  # in another thread, which the mask does not hold
            stop()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        while wait_for_end(senders):
            told = map(sum, zip(*(sender.told for sender in senders), strict=True))
            progress(begun_s, *told, tuple)  # no latencies: those stay with each process until it ends
    except OSError as error:  # no more processes or files allowed
        raise Problem(f"cannot start {processes} client processes: {error.strerror}; see ulimit -u") from None
    finally:
        signals.stop_load = None
        for sender in senders:
            sender.process.kill()
            sender.process.join()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    asked = 0 if signals.received or load.most_requests == math.inf else load.most_requests
    return merged([sender.result(asked) for sender in senders])


def merged_exchanges(parts: Sequence[Exchanges]) -> tuple[Exchanges, list[int]]:
    """The columns of several processes, and which number each request had in the load."""
    exchanges, numbers = Exchanges(), list[int]()
    for name, column in vars(exchanges).items():
        rounds = itertools.zip_longest(*(getattr(part, name) for part in parts))
        dealt = list(itertools.chain.from_iterable(rounds))  # of request i at index i, None where there was none
        numbers = [number for number, value in enumerate(dealt) if value is not None]
        column.extend(dealt[number] for number in numbers)
    return exchanges, numbers


def stopped_all(outcomes: Sequence[Outcome], sent: int) -> str | None:
    """Why the sending ended early; None: in some process it did not. sent: requests of all processes."""
    if not all(outcome.stopped for outcome in outcomes):
        return None
    return outcomes[0].stopped if len(outcomes) == 1 else f"none of {sent} requests was answered"


def merged(outcomes: Sequence[Outcome]) -> Outcome:
    """One result of several processes', in the order of the requests' numbers; every raw time is kept."""
    exchanges, numbers = merged_exchanges([outcome.exchanges for outcome in outcomes])
    return outcomes[0]._replace(
        exchanges=exchanges,
        client_cpu_s=sum(outcome.client_cpu_s for outcome in outcomes),
        sockets_opened=sum(outcome.sockets_opened for outcome in outcomes),
        stopped=signals.name if signals.received else stopped_all(outcomes, len(numbers)),
        spun_s=sum(outcome.spun_s for outcome in outcomes),
        sockets_resent=sum(outcome.sockets_resent for outcome in outcomes),
        stalled_s=max(outcome.stalled_s for outcome in outcomes),
        numbers=numbers,
    )
