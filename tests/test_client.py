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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stubs import GET, HEAD, OK, answer, free_port, in_turn, keep_answering, reset, said, slowly_answering, stall, stub
from test_http1 import read_with_h11, responses

from engine import client
from engine.client import Client, Exchanges
from engine.loads import Burst, Closed, Load, Open, Part, Ramp
from engine.signals import signals

IDLE = {"timeout_s": 5.0, "is_head": False, "keep_alive": False, "progress": lambda *_: None}


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
        (answer(OK), 200),
        (answer(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"), 500),
        (answer(HEAD + b"\r\nuntil close"), 200),
        (answer(b""), "closed"),
        (answer(HEAD + b"Content-Length: 9\r\n\r\nok"), "truncated"),
        (answer(b"220 smtp.example ready\r\n\r\n"), "malformed"),
        (reset, "reset"),
        (stall, "timed out"),
        (endless, "too large"),
    ],
)
def test_each_failure_is_counted_under_its_name(poller, behaviour, outcome):
    sent = send(Burst(4), behaviour, answer(OK), timeout_s=1.0 if outcome == "timed out" else 10.0)
    assert sent.said == [outcome, 200, outcome, 200]


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
    ("load", "behaviour", "requests", "sockets", "last_start_s"),
    [
        (Closed(50, concurrency=5), answer(HEAD + b"Connection: close\r\nContent-Length: 0\r\n\r\n"), 50, 50, 0),
        # Requests under way at the time limit are finished.
        (Closed(time_limit_s=0.95, concurrency=4), functools.partial(keep_answering, wait_s=0.5), 8, 4, 0.5),
        (RAMP, keep_answering, None, 8, 0.9),
        (Closed(12, concurrency=3, think_s=0.1), keep_answering, 12, 3, 0.3),
        (Closed(5, concurrency=1), in_turn(*[(LARGE, False)] * 5), 5, 1, 0),
    ],
)
def test_a_load_on_kept_connections(load, behaviour, requests, sockets, last_start_s):
    sent = send(load, behaviour, keep_alive=True, timeout_s=30)
    assert (sent.said, sent.sockets_opened) == ([200] * (requests or sent.sent), sockets)
    assert last_start_s <= max(sent.exchanges.started_s) - sent.begun_s < load.time_limit_s + 0.2
    assert set(sent.exchanges.body_bytes) <= {0, 2, 300_000}


def test_two_thousand_connections_at_once_are_all_answered():
    assert send(Burst(2000), keep_answering, timeout_s=30).said == [200] * 2000


def test_requests_leave_in_order_each_on_a_connection_of_its_own():
    seen = []

    def accept_one_after_another():
        for _ in range(300):
            sock, _ = listener.accept()
            with sock:
                seen.append(int(re.search(rb"X-Request-Id: (\d+)", sock.recv(65536))[1]))
                sock.sendall(OK)

    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        server = threading.Thread(target=accept_one_after_another)
        server.start()
        messages = (b"GET / HTTP/1.1\r\nX-Request-Id: %d\r\n\r\n" % i for i in itertools.count())
        sent = send(Burst(300), address=listener.getsockname(), messages=messages, timeout_s=10)
        server.join()
    assert (seen, sent.said) == (list(range(300)), [200] * 300)


@pytest.mark.parametrize("load", [Open(100, rate_rps=200.0), Open.poisson(200.0, 100, 9.0, seed=3)])
def test_no_request_of_a_schedule_leaves_before_it_is_due(load):
    sent = send(load, keep_answering, keep_alive=True)
    lags_s = [at - sent.begun_s - load.due_s(i) for i, at in enumerate(sent.exchanges.started_s)]
    assert sent.said == [200] * 100 and min(lags_s) >= 0 and sorted(lags_s)[50] < 0.005
    assert 0 < sent.outcome.spun_s <= sent.outcome.client_cpu_s


def test_an_open_loop_shows_a_freeze_that_a_closed_loop_hides():
    shares, lock = [], threading.Lock()

    def behave(sock):
        """Answers at once, but for one freeze of all its connections, at the 50th request."""
        while sock.recv(65536):
            with lock:
                time.sleep(0.6 * (next(count) == 50))
            sock.sendall(OK)

    for load in (Open(150, rate_rps=100.0), Closed(2000, concurrency=1)):
        count = itertools.count(1)
        rows = send(load, behave, keep_alive=True).exchanges
        latencies_s = [end - start for start, end in zip(rows.started_s, rows.answered_s, strict=True)]
        assert len(latencies_s) == load.requests and max(latencies_s) > 0.5
        shares.append(sum(latency_s > 0.2 for latency_s in latencies_s) / len(latencies_s))
    assert shares[0] > 0.15 and shares[1] < 0.01


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
    assert len({len(column) for column in vars(exchanges).values()}) == 1


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
    ("load", "timeout_s", "behaviour"),
    [
        (Closed(100_000, concurrency=20), 5.0, reset),
        (Closed(1000, concurrency=100), 0.4, stall),
        (Open(time_limit_s=60, rate_rps=20.0), 0.5, stall),
    ],
)
def test_a_service_that_never_answers_is_not_asked_for_ever(load, timeout_s, behaviour):
    begun_s = time.monotonic()
    sent = send(load, behaviour, timeout_s=timeout_s)
    assert time.monotonic() - begun_s < 8 and re.match(r"none of \d+ requests was answered", sent.stopped)
    assert sent.failures == sent.sent == len(sent.said) and not any(sent.exchanges.status)


def test_a_server_whose_first_answers_fail_is_still_asked_when_others_come():
    sent = send(Closed(40, concurrency=1), *[reset] * 9, keep_answering)
    assert (sent.said.count(200), sent.sent, sent.stopped) == (4, 40, "")


@pytest.mark.parametrize(
    "load", [Burst(60), Closed(time_limit_s=60, concurrency=5), Open(time_limit_s=60, rate_rps=100.0),
             Ramp(time_limit_s=120, stages=((60, 20), (60, 20)))],
)  # fmt: skip
def test_the_first_signal_ends_a_load_with_its_figures(monkeypatch, load):
    monkeypatch.setattr(signals, "received", 0)  # and so again when this test is over
    is_burst = isinstance(load, Burst)
    with signals.handled():
        signals.is_held = True
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        sent = send(load, *[keep_answering, stall] if is_burst else [slowly_answering], keep_alive=not is_burst)
        assert (sent.stopped, signals.exit_code) == ("SIGTERM", 143)
    assert len(sent.said) == sent.sent and {200} < {*sent.said, "interrupted"} == {200, "interrupted"}


def test_progress_is_told_what_is_sent_and_under_way():
    told = []
    send(Burst(2), stall, answer(OK), timeout_s=0.3, progress=lambda *numbers: told.append(numbers[1:]))
    assert {sent for sent, _ in told} == {2} and (2, 1) in told and told[-1] == (2, 0)


# ---------------------------------------------------------------- answers remembered: odd ones after usual ones

CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LONGER = HEAD + b"%bContent-Length: 2\r\n\r\nok"
ODD = {  # what it is: the answer, what it counts as, whether the server closes then
    "a head split in its middle": (b"HTTP/1.1 200 O|K\r\nContent-Length: 2\r\n\r\nok", 200),
    "a body apart from its head": (OK[:-2] + b"|ok", 200),
    "lines that end with a bare LF": (OK.replace(b"\r\n", b"\n"), 200),
    "a folded header line": (LONGER % b"X: a\r\n  b\r\n", 200),
    "no body": (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
    "304 with a length but no body": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", 304),
    "103 in a piece of its own": (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n|" + OK, 200),
    "chunks": (CHUNKED + b"1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n", 200),
    "chunks and trailers": (CHUNKED + b"2\r\nok\r\n0\r\nX: y\r\n\r\n", 200),
    "chunks win over a length": (CHUNKED[:-2] + b"Content-Length: 1\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200),
    "an error of the server": (b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nok", 500),
    "one byte more than usual": (HEAD + b"Content-Length: 3\r\n\r\nok!", 200),
    "a body until the connection closes": (HEAD + b"\r\nok", 200, True),
    "an answer that closes": (LONGER % b"Connection: close\r\n", 200, True),
    "HTTP/1.0, which closes": (OK.replace(b"1.1", b"1.0"), 200, True),
    "a close without an answer": (b"", "closed", True),
    "a close in the head": (OK[:20], "truncated", True),
    "a byte too many": (OK + b"!", "malformed", True),
    "two answers in one piece": (OK + OK, "malformed", True),
    "a chunk that goes on": (CHUNKED + b"1\r\nok\r\n0\r\n\r\n", "malformed", True),
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


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(responses(), st.integers(1, 3)), min_size=1, max_size=4))
def test_answer_after_answer_on_one_connection_is_what_h11_reads(drawn):
    is_head = drawn[0][0][1] == b"HEAD"
    answers = [one for one, times in drawn for _ in range(times) if (one[1] == b"HEAD") is is_head]
    expected = [read_with_h11(data, method) for data, method, _ in answers]
    turns = [(data.replace(b"|", b"_"), not stays) for (data, _, _), (*_, stays) in zip(answers, expected, strict=True)]
    messages = (method + b" / HTTP/1.1\r\nHost: x\r\n\r\n" for _, method, _ in answers)
    load = Closed(len(answers), concurrency=1)
    sent = send(load, in_turn(*turns), messages=messages, is_head=is_head, keep_alive=True)
    assert list(zip(sent.said, sent.exchanges.body_bytes, strict=True)) == [one[:2] for one in expected]
    assert sent.sockets_opened == 1 + sum(closes for _, closes in turns[:-1])
