"""load_processes.py - the client of load.py as several processes, for a load that one CPU cannot send (--processes N).

load.py imports this file when the option is used, and works without it otherwise. Requests, users and schedule are
dealt in turn: request i of process k of N is number i x N + k of the load. The processes are forked; they share one
clock (perf_counter is the whole system's) and begin at one moment; each sends its raw times back through a pipe.
Nothing is averaged: the one result holds every request, and those of a process that died as failures.
"""

from __future__ import annotations

import contextlib
import functools
import math
import mmap
import os
import pickle
import select
import signal
from array import array
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import load
from load import ERRORS, Exchanges, Measured, Traffic, signals

ENDING = {signal.SIGUSR1, *(getattr(signal, name) for name in load.Signals.NAMES)}


def send(traffic: Traffic, address: tuple[Any, ...], numbered: bool, progress: Callable[[float, int, int], None],
         share: tuple[int, int]) -> Measured:  # fmt: skip
    """Send a load from share[1] processes, as load.send_share() does from one."""
    processes, stopped = share[1], ""
    counts = memoryview(mmap.mmap(-1, 16 * processes)).cast("Q")  # sent and under way, as last told, of each
    begun_s = perf_counter() + 0.05 + 0.01 * processes  # when all of them have been forked
    pids: list[int] = []
    pipes: dict[int, bytearray] = {}  # what each has sent back
    part = functools.partial(load.send_share, traffic, address, numbered)

    def stop(why: str) -> None:
        nonlocal stopped
        stopped = why
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)

    # A signal between a fork and its child's handlers would kill the child, and one between two forks miss the second.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        for number in range(processes):
            reader, writer = os.pipe()
            if not (pid := os.fork()):
                for inherited in (reader, *pipes):  # or a write to a pipe whose reader is gone would wait for ever
                    os.close(inherited)
                os._exit(child(part, (number, processes), begun_s, counts[2 * number : 2 * number + 2], writer, before))
            os.close(writer)
            pids.append(pid)
            pipes[reader] = bytearray()
        signals.stop_load = stop
    except OSError as error:  # no more processes or files allowed
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise load.Problem(f"cannot start {processes} client processes: {error.strerror}; see ulimit -u") from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    read_to_the_end(pipes, lambda: progress(begun_s, sum(counts[::2]), sum(counts[1::2])))
    signals.stop_load = None
    parts = []
    for number, (pid, data) in enumerate(zip(pids, pipes.values(), strict=True)):
        died = os.waitpid(pid, 0)[1] != 0
        pace = traffic.pace._replace(share=(number, processes))
        asked = pace.dealt(pace.due_in_all if pace.rate else pace.requests)
        sent = max(counts[2 * number], 0 if stopped or asked == math.inf else int(asked))
        parts.append(lost(sent, begun_s) if died else pickle.loads(data))
        data.clear()
    return merged(parts, begun_s, stopped)


def child(send_part: Callable[..., Measured], share: tuple[int, int], begun_s: float, counts: memoryview, writer: int,
          signals_before: set[Any]) -> int:  # fmt: skip
    """Exit code 0 once the result is in the pipe. Ctrl-C reaches children, too: their parent tells them to stop."""
    parent = os.getppid()

    def tell(_: float, sent: int, in_flight: int) -> None:
        counts[0], counts[1] = sent, in_flight
        if os.getppid() != parent:
            os._exit(1)  # nobody would read the result

    try:
        for name in signals.NAMES:
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        signals.is_held = True
        signal.signal(signal.SIGUSR1, signals.handle)
        signal.pthread_sigmask(signal.SIG_SETMASK, signals_before)
        measured = send_part(tell, share, begun_s)
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(measured, pipe, pickle.HIGHEST_PROTOCOL)
        return 0
    except BrokenPipeError:  # nobody would read the result
        return 1
    except BaseException as error:  # whatever it is, the child must not run on into its parent's code
        load.say(f"client process {share[0]}: {error!r}")
        return 1


def read_to_the_end(pipes: dict[int, bytearray], progress: Callable[[], None]) -> None:
    """Fill each pipe's bytes, until its writer has closed it or is dead."""
    still_open = list(pipes)
    while still_open:
        for pipe in select.select(still_open, [], [], 0.1)[0]:
            if data := os.read(pipe, 1 << 20):
                pipes[pipe] += data
            else:
                still_open.remove(pipe)
                os.close(pipe)
        progress()


def lost(requests: int, begun_s: float) -> Measured:
    """The result of a process that died: its requests as failures."""
    exchanges = Exchanges()
    exchanges.grow(requests)
    exchanges.started_s = exchanges.answered_s = array("d", [perf_counter()]) * requests
    exchanges.error = array("B", [ERRORS.index("client died")]) * requests
    return Measured(exchanges, begun_s, 0.0, 0)


def merged(parts: Sequence[Measured], begun_s: float, stopped: str) -> Measured:
    """One result of several processes', in the order of the requests' numbers; every raw time is kept."""
    n = len(parts)
    numbers = array("L", sorted(i * n + k for k, part in enumerate(parts) for i in range(len(part.exchanges.status))))
    exchanges = Exchanges()
    for name in Exchanges.COLUMNS:
        columns = [getattr(part.exchanges, name) for part in parts]
        setattr(exchanges, name, array(columns[0].typecode, (columns[i % n][i // n] for i in numbers)))
    cpu_s, spun_s = sum(part.client_cpu_s for part in parts), sum(part.spun_s for part in parts)
    sockets, why = sum(part.sockets_opened for part in parts), stopped or max(part.stopped for part in parts)
    return Measured(exchanges, begun_s, cpu_s, sockets, stopped=why, spun_s=spun_s, numbers=numbers)
