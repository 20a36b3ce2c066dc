"""The client as several processes, for a load that one CPU cannot send (--processes N).

Requests, users and schedule are dealt in turn: request i of process k of N is number i x N + k of the load. The
processes are forked, so that they share one clock (perf_counter is the whole system's), and begin at one moment; each
sends its raw times back through a pipe. Nothing is averaged: the one result holds every request, and the requests of a
process that died are in it as failures.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
from array import array
from collections.abc import Callable, Sequence
from multiprocessing import connection
from time import perf_counter
from typing import Any

from engine.client import ERRORS, Exchanges, Outcome
from engine.loads import Part
from engine.signals import signals
from engine.words import Problem

TOLD = 3  # numbers that a process tells: sent, under way, failed


def send_from(send_part: Callable[..., Outcome], first: Part, progress: Callable[..., object]) -> Outcome:
    """Send a load from as many processes as its first part says; each calls send_part(part, progress, begun_s).

    Raises Problem where the system does not allow so many processes or files.
    """
    fork, load, processes = multiprocessing.get_context("fork"), first.load, first.processes
    parts = [Part(load, k, processes) for k in range(processes)]
    told = fork.RawArray("Q", TOLD * processes)
    begun_s = perf_counter() + 0.05 + 0.01 * processes  # when all of them have been forked
    started: dict[Any, Any] = {}  # the pipe that a process writes to -> the process
    results: dict[Any, Outcome] = {}
    stopped = ""

    def stop(why: str) -> None:
        nonlocal stopped
        stopped = why
        for process in started.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGUSR1)

    with contextlib.ExitStack() as at_the_end:
        # A signal between a fork and its child's handlers would kill the child, and one between two forks miss a child.
        ending = {signal.SIGUSR1, *(getattr(signal, name) for name in signals.NAMES)}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
        try:
            for part in parts:
                pipe, writer = fork.Pipe(duplex=False)
                work = part, send_part, begun_s, told, [*started, pipe], writer, before
                process = fork.Process(target=child, args=work)
                process.start()
                started[pipe] = process
                at_the_end.callback(process.join)
                at_the_end.callback(process.kill)  # before that
                writer.close()
            signals.stop_load = stop
            if signals.received:  # in another thread, which the mask does not hold
                stop(signals.name)
        except OSError as error:  # no more processes or files allowed
            raise Problem(f"cannot start {processes} client processes: {error.strerror}; see ulimit -u") from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        open_pipes = list(started)
        while open_pipes:
            for ready in list[Any](connection.wait(open_pipes, 0.1)):
                open_pipes.remove(ready)
                with contextlib.suppress(EOFError, OSError):  # the process is dead
                    results[ready] = ready.recv()
            progress(begun_s, *(sum(told[i::TOLD]) for i in range(TOLD)))
    signals.stop_load = None
    asked = 0 if stopped or load.most_requests == math.inf else load.most_requests
    outcomes = [
        results.get(pipe) or lost(max(told[TOLD * part.k], int(part.dealt(asked))), begun_s)
        for part, pipe in zip(parts, started, strict=True)
    ]
    return merged(outcomes, begun_s, stopped)


def child(
    part: Part, send_part: Callable[..., Outcome], begun_s: float, told: Any, readers: Sequence[Any], writer: Any,
    before: set[Any],
) -> None:  # fmt: skip
    """What a process does. before: the signals that were blocked before the forks."""
    parent = os.getppid()

    def tell(_: float, *numbers: int) -> None:
        told[TOLD * part.k : TOLD * (part.k + 1)] = numbers
        if os.getppid() != parent:
            os._exit(1)  # nothing would read the result

    for reader in readers:  # or a write to a pipe whose reader is gone would wait for ever
        reader.close()
    for name in signals.NAMES:  # Ctrl-C reaches children, too: their parent tells them to stop
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    signals.is_held = True
    signal.signal(signal.SIGUSR1, signals.handle)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    outcome = send_part(part, tell, begun_s)
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        writer.send(outcome)


def lost(requests: int, begun_s: float) -> Outcome:
    """The result of a process that died: its requests as failures."""
    exchanges = Exchanges()
    exchanges.grow(requests)
    exchanges.started_s = exchanges.answered_s = array("d", [perf_counter()]) * requests
    exchanges.error = array("B", [ERRORS.index("client died")]) * requests
    return Outcome(exchanges, begun_s, 0.0, 0)


def merged(outcomes: Sequence[Outcome], begun_s: float, stopped: str) -> Outcome:
    """One result of several processes', in the order of the requests' numbers; every raw time is kept."""
    n = len(outcomes)
    sizes = [len(outcome.exchanges.status) for outcome in outcomes]
    numbers = array("L", sorted(i * n + k for k, size in enumerate(sizes) for i in range(size)))
    exchanges = Exchanges()
    for name, column in vars(exchanges).items():
        columns = [getattr(outcome.exchanges, name) for outcome in outcomes]
        column.extend(columns[number % n][number // n] for number in numbers)
    cpu_s, spun_s = sum(outcome.client_cpu_s for outcome in outcomes), sum(outcome.spun_s for outcome in outcomes)
    sockets = sum(outcome.sockets_opened for outcome in outcomes)
    why = stopped or max(outcome.stopped or "" for outcome in outcomes) or None
    return Outcome(exchanges, begun_s, cpu_s, sockets, stopped=why, spun_s=spun_s, numbers=numbers)
