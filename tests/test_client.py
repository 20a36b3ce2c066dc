"""The client against servers that misbehave: counts, order and names. Times are never asserted tightly."""

from __future__ import annotations

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
from stubs import (
    GET,
    HEAD,
    OK,
    answer,
    free_port,
    in_turn,
    keep_answering,
    reset,
    said,
    slowly_answering,
    stall,
    stub,
)  # fmt: skip
from test_http1 import read_with_h11, responses

from engine import client
from engine.client import Client, Exchanges
from engine.loads import Burst, Closed, Load, Open, Part, Ramp
from engine.signals import signals


def send(address, load: Load, keep_alive=False, timeout_s=5.0, messages=None, is_head=False) -> Client:
    """A client that has sent this load."""
    sender = Client(
        address, messages or itertools.repeat(GET), Part(load), timeout_s, is_head, keep_alive, lambda *_: None
    )
    sender.outcome = sender.run()
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
        for name, value in (("READ", selectors.EVENT_READ), ("WRITE", selectors.EVENT_WRITE)):
            monkeypatch.setattr(client, name, value)
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
    with stub(behaviour, answer(OK)) as address:
        sent = send(address, Burst(4), timeout_s=1.0 if outcome == "timed out" else 10.0)
    assert said(sent.exchanges) == [outcome, 200, outcome, 200]


# ---------------------------------------------------------------- loads


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize(("requests", "users"), [(1, 1), (103, 10), (7, 50), (5000, 3)])
def test_a_closed_loop_sends_exactly_what_was_asked(poller, requests, users, keep_alive):
    with stub(keep_answering) as address:
        sent = send(address, Closed(requests, concurrency=users), keep_alive)
    assert said(sent.exchanges) == [200] * requests
    assert sent.sockets_opened == (min(requests, users) if keep_alive else requests)
    assert list(sent.exchanges.started_s) == sorted(sent.exchanges.started_s)
    assert all(map(float.__le__, sent.exchanges.sent_s, sent.exchanges.answered_s))


def test_two_thousand_connections_at_once_are_all_answered():
    with stub(keep_answering) as address:
        assert said(send(address, Burst(2000), timeout_s=30).exchanges) == [200] * 2000


def test_requests_leave_in_order_each_on_a_connection_of_its_own():
    seen = []
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:

        def accept_one_after_another():
            for _ in range(300):
                sock, _ = listener.accept()
                with sock:
                    seen.append(int(re.search(rb"X-Request-Id: (\d+)", sock.recv(65536))[1]))
                    sock.sendall(OK)

        server = threading.Thread(target=accept_one_after_another)
        server.start()
        messages = (b"GET / HTTP/1.1\r\nX-Request-Id: %d\r\n\r\n" % i for i in itertools.count())
        sent = send(listener.getsockname(), Burst(300), timeout_s=10, messages=messages)
        server.join()
    assert (seen, said(sent.exchanges)) == (list(range(300)), [200] * 300)


def test_a_server_that_closes_costs_a_socket_for_each_request():
    with stub(answer(HEAD + b"Connection: close\r\nContent-Length: 0\r\n\r\n")) as address:
        sent = send(address, Closed(50, concurrency=5), keep_alive=True)
    assert (said(sent.exchanges), sent.sockets_opened) == ([200] * 50, 50)


def test_requests_under_way_at_the_time_limit_are_finished():
    with stub(functools.partial(keep_answering, wait_s=0.5)) as address:
        sent = send(address, Closed(time_limit_s=0.95, concurrency=4))
    assert said(sent.exchanges) == [200] * 8


def test_a_ramp_adds_users_over_time():
    with stub(keep_answering) as address:
        sent = send(address, Ramp(time_limit_s=1.0, stages=((0.3, 4), (0.3, 8), (0.4, 8))), keep_alive=True)
    assert set(said(sent.exchanges)) == {200} and sent.sockets_opened == 8
    starts_s = [at - sent.begun_s for at in sent.exchanges.started_s]
    assert 0.9 < max(starts_s) < 1.2


def test_a_user_thinks_before_the_next_request():
    with stub(keep_answering) as address:
        sent = send(address, Closed(12, concurrency=3, think_s=0.1), keep_alive=True)
    assert (said(sent.exchanges), sent.sockets_opened) == ([200] * 12, 3)
    assert max(sent.exchanges.answered_s) - sent.begun_s >= 0.3


@pytest.mark.parametrize("load", [Open(100, rate_rps=200.0), Open.poisson(200.0, 100, 9.0, seed=3)])
def test_no_request_of_a_schedule_leaves_before_it_is_due(load):
    with stub(keep_answering) as address:
        sent = send(address, load, keep_alive=True)
    lags_s = [at - sent.begun_s - load.due_s(i) for i, at in enumerate(sent.exchanges.started_s)]
    assert said(sent.exchanges) == [200] * 100
    assert min(lags_s) >= 0 and sorted(lags_s)[50] < 0.005
    assert 0 < sent.outcome.spun_s <= sent.outcome.client_cpu_s


def frozen(freeze_s: float):
    """A behaviour: answers at once, but for one freeze of all its connections, at the 50th request."""
    lock, count = threading.Lock(), itertools.count(1)

    def behave(sock):
        while sock.recv(65536):
            with lock:
                if next(count) == 50:
                    time.sleep(freeze_s)
            sock.sendall(OK)

    return behave


def test_an_open_loop_shows_a_freeze_that_a_closed_loop_hides():
    shares = []
    for load in (Open(150, rate_rps=100.0), Closed(2000, concurrency=1)):
        with stub(frozen(0.6)) as address:
            rows = send(address, load, keep_alive=True).exchanges
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

    with stub(count) as address:
        sent = send(address, Burst(3), timeout_s=20, messages=itertools.repeat(b"x" * size))
    assert said(sent.exchanges) == [200] * 3


def test_large_answers_are_read_whole():
    large = HEAD + b"Content-Length: 300000\r\n\r\n" + b"x" * 300_000
    with stub(in_turn(*[(large, False)] * 5)) as address:
        sent = send(address, Closed(5, concurrency=1), True)
    assert (said(sent.exchanges), set(sent.exchanges.body_bytes)) == ([200] * 5, {300_000})


def test_a_kept_request_takes_less_than_a_hundred_bytes():
    exchanges = Exchanges()
    exchanges.grow()
    assert sum(column.itemsize for column in vars(exchanges).values()) < 100
    assert len({len(column) for column in vars(exchanges).values()}) == 1


# ---------------------------------------------------------------- servers that do not answer, and endings


def test_a_refused_connection_is_a_counted_failure_not_a_hang():
    assert said(send(("127.0.0.1", free_port()), Burst(250)).exchanges) == ["refused"] * 250


def test_a_server_that_refuses_everything_does_not_outlast_the_time_limit():
    begun_s = time.monotonic()
    sent = send(("127.0.0.1", free_port()), Ramp(time_limit_s=0.3, stages=((0.3, 5),)))
    assert time.monotonic() - begun_s < 5 and set(said(sent.exchanges)) == {"refused"}


def test_a_client_out_of_files_names_its_own_limit(monkeypatch):
    class Limited(client.Connection):
        def __init__(self, *arguments) -> None:
            if next(count) >= 20:
                raise OSError(errno.EMFILE, "Too many open files")
            super().__init__(*arguments)

    count = itertools.count()
    monkeypatch.setattr(client, "Connection", Limited)
    with stub(keep_answering) as address:
        assert said(send(address, Burst(50)).exchanges) == [200] * 20 + ["too many open files"] * 30


@pytest.mark.parametrize(
    ("load", "timeout_s", "behaviour", "stopped"),
    [
        (Closed(100_000, concurrency=20), 5.0, reset, r"none of \d+ requests was answered"),
        (Closed(1000, concurrency=100), 0.4, stall, r"none of \d+ requests was answered"),
        (Open(time_limit_s=60, rate_rps=20.0), 0.5, stall, r"none of \d+ requests was answered"),
    ],
)
def test_a_service_that_never_answers_is_not_asked_for_ever(load, timeout_s, behaviour, stopped):
    begun_s = time.monotonic()
    with stub(behaviour) as address:
        sent = send(address, load, timeout_s=timeout_s)
    assert time.monotonic() - begun_s < 8 and re.match(stopped, sent.stopped)
    assert sent.failures == sent.sent == len(sent.exchanges.status) and not any(sent.exchanges.status)


def test_a_server_whose_first_answers_fail_is_still_asked_when_others_come():
    with stub(*[reset] * 9, keep_answering) as address:
        sent = send(address, Closed(40, concurrency=1))
    assert (said(sent.exchanges).count(200), sent.sent, sent.stopped) == (4, 40, "")


@pytest.mark.parametrize(
    "load", [Burst(60), Closed(time_limit_s=60, concurrency=5), Open(time_limit_s=60, rate_rps=100.0),
             Ramp(time_limit_s=120, stages=((60, 20), (60, 20)))],
)  # fmt: skip
def test_the_first_signal_ends_a_load_with_its_figures(monkeypatch, load):
    monkeypatch.setattr(signals, "received", 0)  # and so again when this test is over
    behaviours = [keep_answering, stall] if isinstance(load, Burst) else [slowly_answering]
    with stub(*behaviours) as address, signals.handled():
        signals.is_held = True
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        sent = send(address, load, keep_alive=not isinstance(load, Burst))
        assert (sent.stopped, signals.exit_code) == ("SIGTERM", 143)
    kinds = said(sent.exchanges)
    assert len(kinds) == sent.sent and 200 in kinds and set(kinds) <= {200, "interrupted"}


def test_progress_is_told_what_is_sent_and_under_way():
    told = []
    with stub(stall, answer(OK)) as address:
        part = Part(Burst(2))
        Client(address, itertools.repeat(GET), part, 0.3, False, False, lambda *numbers: told.append(numbers)).run()
    assert [numbers[1] for numbers in told] == [2] * len(told)
    assert (2, 1) in {numbers[1:] for numbers in told} and told[-1][1:] == (2, 0)


# ---------------------------------------------------------------- answers remembered: odd ones after usual ones

CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def longer(head: bytes) -> bytes:
    return HEAD + head + b"Content-Length: 2\r\n\r\n"


ODD = {
    "a head split in its middle": (b"HTTP/1.1 200 O|K\r\nContent-Length: 2\r\n\r\nok", 200),
    "a body apart from its head": (OK[:-2] + b"|ok", 200),
    "lines that end with a bare LF": (OK.replace(b"\r\n", b"\n"), 200),
    "a folded header line": (longer(b"X: a\r\n  b\r\n") + b"ok", 200),
    "no body": (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
    "304 with a length but no body": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", 304),
    "103 in a piece of its own": (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n|" + OK, 200),
    "chunks": (CHUNKED + b"1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n", 200),
    "chunks and trailers": (CHUNKED + b"2\r\nok\r\n0\r\nX: y\r\n\r\n", 200),
    "chunks win over a length": (CHUNKED[:-2] + b"Content-Length: 1\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200),
    "an error of the server": (b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nok", 500),
    "one byte more than usual": (HEAD + b"Content-Length: 3\r\n\r\nok!", 200),
    "a body until the connection closes": (HEAD + b"\r\nok", 200, True),
    "an answer that closes": (longer(b"Connection: close\r\n") + b"ok", 200, True),
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
    with stub(in_turn(*[(OK, False)] * 3, (data, bool(closes)), *[(OK, False)] * 3)) as address:
        rows = send(address, Closed(7, concurrency=1), keep_alive, timeout_s=3.0).exchanges
    assert said(rows) == [200, 200, 200, outcome, 200, 200, 200]
    assert [rows.body_bytes[i] for i in (0, 1, 2, 4, 5, 6)] == [2] * 6
    if outcome == 200:
        assert rows.body_bytes[3] == (3 if "more than" in odd else 2)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(responses(), st.integers(1, 3)), min_size=1, max_size=4))
def test_answer_after_answer_on_one_connection_is_what_h11_reads(drawn):
    is_head = drawn[0][0][1] == b"HEAD"
    answers = [one for one, times in drawn for _ in range(times) if (one[1] == b"HEAD") is is_head]
    expected = [read_with_h11(data, method) for data, method, _ in answers]
    closes = [not stays for _, _, stays in expected]
    turns = in_turn(*((data.replace(b"|", b"_"), close) for (data, _, _), close in zip(answers, closes, strict=True)))
    requests = (method + b" / HTTP/1.1\r\nHost: x\r\n\r\n" for _, method, _ in answers)
    with stub(turns) as address:
        sent = send(address, Closed(len(answers), concurrency=1), True, messages=requests, is_head=is_head)
    assert said(sent.exchanges) == [status for status, _, _ in expected]
    assert list(sent.exchanges.body_bytes) == [size for _, size, _ in expected]
    assert sent.sockets_opened == 1 + sum(closes[:-1])
