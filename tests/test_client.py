"""The client against servers that misbehave: counts, order and names. Times are never asserted tightly."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import re
import selectors
import signal
import socket
import threading
import time

import pytest
from stubs import GET, HEAD, OK, answer, in_turn, keep_answering, reset, said, stall, stub

from engine import client
from engine.client import Client, Exchanges
from engine.loads import Burst, Closed, Load, Open, Part, Ramp
from engine.server import free_port
from engine.signals import signals

IDLE = {"timeout_s": 5.0, "is_head": False, "keep_alive": False, "first_byte": False, "progress": lambda *_: None}


def send(load: Load, *behaviours, messages=None, address=None, **changes) -> Client:
    """A client that has sent this load to such a server, or to an address."""
    with contextlib.nullcontext(address) if address else stub(*behaviours) as to:
        sender = Client(to, messages or itertools.repeat(GET), Part(load), **IDLE | changes)
        sender.outcome = sender.run()
    sender.said = said(sender.exchanges)
    return sender


def endless(sock: socket.socket) -> None:
    sock.recv(65536)
    sock.sendall(HEAD + b"\r\n")
    while True:
        sock.sendall(b"x" * 65536)


@pytest.fixture(params=["epoll", "selectors"])
def poller(request, monkeypatch):
    """What watches the sockets: an epoll, and what there is on macOS."""
    if request.param == "selectors":
        monkeypatch.setattr(client, "POLLER", client.Selector)
        monkeypatch.setattr(client, "WRITE", selectors.EVENT_WRITE)
    elif not hasattr(client.select, "epoll"):
        pytest.skip("no epoll on this system")


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (answer(HEAD + b"\r\nuntil close"), 200),
        (answer(OK[:-1]), "truncated"),
        (reset, "reset"),
        (stall, "timed out"),
        (endless, "timed out"),
    ],
)
def test_each_failure_is_counted_under_its_name(poller, behaviour, outcome):
    timeout_s = 1.0 if outcome == "timed out" else 10.0
    assert send(Burst(4), behaviour, answer(OK), timeout_s=timeout_s).said == [outcome, 200, outcome, 200]


# ---------------------------------------------------------------- loads


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize(("requests", "users"), [(1, 1), (103, 10), (7, 50), (5000, 3)])
def test_a_closed_loop_sends_exactly_what_was_asked(poller, requests, users, keep_alive):
    sent = send(Closed(requests, concurrency=users), keep_answering, keep_alive=keep_alive)
    assert (sent.said, sent.sockets_opened) == ([200] * requests, min(requests, users) if keep_alive else requests)
    rows = sent.exchanges
    assert list(rows.started_s) == sorted(rows.started_s) and all(map(float.__le__, rows.sent_s, rows.answered_s))


LARGE = HEAD + b"Content-Length: 300000\r\n\r\n" + b"x" * 300_000
RAMP = Ramp(time_limit_s=1.0, stages=((0.3, 4), (0.3, 8), (0.4, 8)))


@pytest.mark.parametrize(
    ("load", "behaviour", "requests", "sockets", "last_start_s", "size"),
    [
        (Closed(50, concurrency=5), answer(OK[:17] + b"Connection: close\r\n" + OK[17:]), 50, 50, 0, 2),
        # Requests under way at the time limit are finished.
        (Closed(time_limit_s=0.95, concurrency=4), functools.partial(keep_answering, wait_s=0.5), 8, 4, 0.5, 2),
        (RAMP, keep_answering, None, 8, 0.9, 2),
        (Closed(12, concurrency=3, think_s=0.1), keep_answering, 12, 3, 0.3, 2),
        (Closed(5, concurrency=1), in_turn(*[(LARGE, False)] * 5), 5, 1, 0, 300_000),
        (Closed(5, concurrency=1), in_turn(*[(OK[:-2], False)] * 5), 5, 1, 0, 0),  # answers to HEAD
    ],
)
def test_a_load_on_kept_connections(load, behaviour, requests, sockets, last_start_s, size):
    sent = send(load, behaviour, keep_alive=True, is_head=not size)
    assert (sent.said, sent.sockets_opened) == ([200] * (requests or sent.sent), sockets)
    assert last_start_s <= max(sent.exchanges.started_s) - sent.begun_s < load.time_limit_s + 0.2
    assert set(sent.exchanges.body_bytes) == {size}


def test_two_thousand_connections_at_once_are_all_answered():
    assert send(Burst(2000), keep_answering, timeout_s=30).said == [200] * 2000


def test_every_answer_belongs_to_its_request():
    def answer_as_long_as_its_number(sock):
        size = int(re.search(rb"\d+", sock.recv(65536))[0])
        sock.sendall(b"%bContent-Length: %d\r\n\r\n%b" % (HEAD, size, b"x" * size))

    messages = (b"GET /%d HTTP/1.1\r\n\r\n" % i for i in itertools.count())
    assert [*send(Burst(300), answer_as_long_as_its_number, messages=messages).exchanges.body_bytes] == [*range(300)]


@pytest.mark.parametrize("load", [Open(100, rate_rps=200.0), Open.poisson(200.0, 100, 9.0, seed=3)])
def test_no_request_of_a_schedule_leaves_before_it_is_due(load):
    sent = send(load, keep_answering, keep_alive=True)
    lags_s = [at - sent.begun_s - load.due_s(i) for i, at in enumerate(sent.exchanges.started_s)]
    assert sent.said == [200] * 100 and min(lags_s) >= 0 and sorted(lags_s)[50] < 0.005
    assert 0 < sent.outcome.spun_s <= sent.outcome.client_cpu_s


def test_a_large_body_goes_out_whole(poller):
    size = 5_000_000

    def count(sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        received = 0
        while received < size:
            received += len(sock.recv(65536))
        sock.sendall(OK if received == size else b"")

    assert send(Burst(3), count, timeout_s=20, messages=itertools.repeat(b"x" * size)).said == [200] * 3


def test_a_kept_request_takes_less_than_a_hundred_bytes():
    exchanges = Exchanges()
    exchanges.grow()
    assert sum(column.itemsize for column in vars(exchanges).values()) < 100


# ---------------------------------------------------------------- servers that do not answer, and endings


@pytest.mark.parametrize("load", [Burst(250), Ramp(time_limit_s=0.3, stages=((0.3, 5),))])
def test_a_refused_connection_is_a_counted_failure_not_a_hang(load):
    begun_s = time.monotonic()
    sent = send(load, address=("127.0.0.1", free_port()))
    assert time.monotonic() - begun_s < 5 and sent.said == ["refused"] * (250 if load.requests == 250 else sent.sent)


def test_a_client_out_of_files_names_its_own_limit(monkeypatch):
    class Limited(client.Connection):
        def __init__(self, *arguments) -> None:
            if next(count) >= 20:
                raise OSError(errno.EMFILE, "Too many open files")
            super().__init__(*arguments)

    count = itertools.count()
    monkeypatch.setattr(client, "Connection", Limited)
    assert send(Burst(50), keep_answering).said == [200] * 20 + ["too many open files"] * 30


@pytest.mark.parametrize(
    ("load", "timeout_s", "behaviour", "at_least"),
    [
        (Closed(100_000, concurrency=20), 5.0, reset, 20),
        (Closed(1000, concurrency=100), 0.4, stall, 100),
        (Open(time_limit_s=60, rate_rps=20.0), 0.5, stall, 8),  # a schedule does not wait for answers
    ],
)
def test_a_service_that_never_answers_is_not_asked_for_ever(load, timeout_s, behaviour, at_least):
    begun_s = time.monotonic()
    sent = send(load, behaviour, timeout_s=timeout_s)
    assert time.monotonic() - begun_s < 8 and sent.stopped == f"none of {sent.sent} requests was answered"
    assert at_least <= sent.failures == sent.sent == len(sent.said) and not any(sent.exchanges.status)


def test_a_server_whose_first_answers_fail_is_still_asked_when_others_come():
    sent = send(Closed(40, concurrency=1), *[reset] * 9, keep_answering)
    assert (sent.said, sent.stopped) == ((["reset"] * 9 + [200]) * 4, "")


@pytest.mark.parametrize(
    "load", [Burst(60), Closed(time_limit_s=60, concurrency=5), Open(time_limit_s=60, rate_rps=100.0),
             Ramp(time_limit_s=120, stages=((60, 20), (60, 20)))],
)  # fmt: skip
def test_the_first_signal_ends_a_load_with_its_figures(monkeypatch, load):
    monkeypatch.setattr(signals, "received", 0)  # and so again when this test is over
    with signals.handled():
        signals.is_held = True
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        sent = send(load, keep_answering, stall)
        assert (sent.stopped, signals.exit_code) == ("SIGTERM", 143)
    assert len(sent.said) == sent.sent and {200} < {*sent.said, "interrupted"} == {200, "interrupted"}


def test_progress_is_told_what_is_sent_and_under_way():
    told = []
    send(Burst(2), stall, answer(OK), timeout_s=0.3, progress=lambda *numbers: told.append(numbers[1:3]))
    assert {sent for sent, _ in told} == {2} and (2, 1) in told and told[-1] == (2, 0)


# ---------------------------------------------------------------- answers remembered: odd ones after usual ones

CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LONGER = HEAD + b"%bContent-Length: 2\r\n\r\nok"
ODD = {  # what it is: the answer, what it counts as, whether the server closes then
    "a head split in its middle": (b"HTTP/1.1 200 O|K\r\nContent-Length: 2\r\n\r\nok", 200),
    "a body apart from its head": (OK[:-2] + b"|ok", 200),
    "a folded header line": (LONGER % b"X: a\r\n  b\r\n", 200),
    "no body": (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
    "103 in a piece of its own": (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n|" + OK, 200),
    "chunks": (CHUNKED + b"1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n", 200),
    "chunks win over a length": (CHUNKED[:-2] + b"Content-Length: 1\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200),
    "one byte more than usual": (HEAD + b"Content-Length: 3\r\n\r\nok!", 200),
    "a body until the connection closes": (HEAD + b"\r\nok", 200, True),
    "an answer that closes": (LONGER % b"Connection: close\r\n", 200, True),
    "HTTP/1.0, which closes": (OK.replace(b"1.1", b"1.0"), 200, True),
    "a close without an answer": (b"", "closed", True),
    "a close in the head": (OK[:20], "truncated", True),
    "another protocol": (b"220 smtp.example ready\r\n\r\n", "malformed", True),
    "a byte too many": (OK + b"!", "malformed", True),
    "two answers in one piece": (OK + OK, "malformed", True),
    "a head without an end": (HEAD + b"X: y\r\n" * 20_000, "too large", True),
}


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_answer_is_counted_right_after_usual_ones(odd, keep_alive):
    data, outcome, *closes = ODD[odd]
    usual = [(OK, False)] * 3
    sent = send(Closed(7, concurrency=1), in_turn(*usual, (data, bool(closes)), *usual), keep_alive=keep_alive)
    assert sent.said == [200, 200, 200, outcome, 200, 200, 200]
    sizes = list(sent.exchanges.body_bytes)
    assert sizes[:3] == sizes[4:] == [2] * 3 and (outcome != 200 or sizes[3] == 2 + ("more than" in odd))
