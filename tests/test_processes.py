"""A load from several client processes: the same load, whatever happens to a process."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import signal
import threading
import time
from collections import Counter

import pytest
from stubs import OK, said, slowly_answering, stub

from engine.loads import Burst, Closed, Load, Open, Ramp
from engine.run import Plan
from engine.send import measure
from engine.signals import Interrupted, signals
from engine.words import Problem

LONG = Closed(time_limit_s=60, concurrency=6)


@pytest.fixture(autouse=True)
def handled(monkeypatch):
    """Signals as in a run, and none left over from one test to the next."""
    monkeypatch.setattr(signals, "received", 0)
    with signals.handled():
        signals.is_held = True
        yield
    assert multiprocessing.active_children() == []


def send(load: Load, processes: int = 3, behaviour=slowly_answering):
    """What the processes left, and the status of each request or the name of its failure."""
    with stub(behaviour) as address:
        outcome = measure(Plan("x", load=load, processes=processes, keep_alive=True), address, numbered=True)
    return outcome, said(outcome.exchanges)


def later(*numbers: int) -> None:
    """Send signals to this process, when the client processes are under way."""
    threading.Timer(0.8, lambda: [os.kill(os.getpid(), number) for number in numbers]).start()


@pytest.mark.parametrize(
    ("load", "sent"),
    [
        (Closed(101, concurrency=10), 101),
        (Burst(7), 7),
        (Closed(2, concurrency=2), 2),  # fewer than processes
        (Open(51, rate_rps=100.0), 51),
        (Open.poisson(100.0, 1000, 0.5, seed=1), None),
        (Closed(time_limit_s=0.4, concurrency=5), None),
        (Ramp(time_limit_s=0.5, stages=((0.2, 6), (0.3, 6))), None),
    ],
)
def test_a_load_dealt_to_processes_is_the_same_load(load, sent):
    ids: Counter[int] = Counter()

    def note(sock):
        while data := sock.recv(65536):
            ids.update(map(int, re.findall(rb"X-Request-Id: (\d+)", data)))
            time.sleep(0.002)
            sock.sendall(OK)

    outcome, kinds = send(load, behaviour=note)
    numbers = list(outcome.numbers or range(len(kinds)))
    assert kinds == [200] * len(numbers) and ids == Counter(numbers) and max(ids.values()) == 1
    assert sent is None or numbers == list(range(sent))
    if isinstance(load, Open):  # what is due at the very end may not leave in time on a busy machine
        assert load.due_in_all - 3 <= len(numbers) <= load.due_in_all
        due_s = [outcome.begun_s + load.due_s(number) for number in numbers]
        assert all(at >= due - 1e-6 for at, due in zip(outcome.exchanges.started_s, due_s, strict=True))
    if isinstance(load, Closed):
        assert outcome.sockets_opened == load.concurrency


@pytest.mark.parametrize("load", [Closed(2000, concurrency=8), Closed(time_limit_s=2, concurrency=8)])
def test_the_requests_of_a_process_that_dies_are_failures(load):
    threading.Timer(0.8, lambda: os.kill(multiprocessing.active_children()[1].pid, signal.SIGKILL)).start()
    kinds = Counter(send(load, 4)[1])
    assert set(kinds) == {200, "client died"}
    if load.requests == 2000:
        assert (kinds[200], kinds["client died"]) == (1500, 500)


def test_a_signal_ends_all_processes_with_their_figures():
    later(signal.SIGINT)
    outcome, kinds = send(LONG, 2)
    assert outcome.stopped == "SIGINT" and set(kinds) == {200, "interrupted"}


def test_a_signal_just_after_a_fork_kills_no_process(monkeypatch):
    fork, forked = os.fork, []

    def slow_fork():
        forked.append(fork())
        if not forked[-1]:
            time.sleep(0.5)
        elif len(forked) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return forked[-1]

    monkeypatch.setattr(os, "fork", slow_fork)
    outcome, kinds = send(LONG, 2)
    assert outcome.stopped == "SIGTERM" and set(kinds) <= {200, "interrupted"} and len(kinds) < 1000  # not for 60 s


def test_no_process_outlives_an_end_without_a_report():
    later(signal.SIGINT, signal.SIGTERM)
    with pytest.raises(Interrupted):
        send(LONG, 2)


def test_a_system_without_room_for_the_processes_is_a_problem(monkeypatch):
    fork, pids = os.fork, []

    def fork_twice():
        if len(pids) == 2:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        pids.append(fork())
        return pids[-1]

    monkeypatch.setattr(os, "fork", fork_twice)
    with pytest.raises(Problem, match="3 client processes"):
        send(Burst(20))
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
