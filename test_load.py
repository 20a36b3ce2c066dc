"""The tests of load.py: its parser against h11, its client against servers that misbehave, its figures, its endings.

Times are never asserted tighter than a busy machine can hold: counts, order and ratios are.
"""

from __future__ import annotations

import contextlib
import doctest
import errno
import io
import itertools
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import load

HERE = Path(__file__).parent
LOAD = [sys.executable, str(HERE / "load.py")]


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(load).failed == 0


# ---------------------------------------------------------------- the HTTP parser

NAMES = st.sampled_from([b"Server", b"x-y", b"DATE", b"Set-Cookie", b"X-" + b"a" * 50])
VALUES = st.text("abcXYZ019 ,;=\t\x80\xff", max_size=20).map(lambda text: text.strip().encode("latin-1"))
EOL = b"\r\n"


@st.composite
def responses(draw):
    """Bytes of a valid response, its request method, and whether the server closes after it."""
    eol = draw(st.sampled_from([b"\r\n", b"\r\n", b"\n"]))
    method = draw(st.sampled_from([b"GET", b"GET", b"POST", b"HEAD"]))
    status = draw(st.sampled_from([200, 201, 204, 302, 304, 404, 500, 503]))
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.0"]))
    body = draw(st.binary(max_size=60))
    headers = draw(st.lists(st.tuples(NAMES, VALUES), max_size=3))
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    has_body = method != b"HEAD" and status not in (204, 304)
    out = b""
    for _ in range(draw(st.integers(0, 2))):
        out += b"HTTP/1.1 100 Continue" + eol + eol
    if framing == "length":
        case = draw(st.sampled_from([b"Content-Length", b"content-length", b"CONTENT-LENGTH"]))
        headers.append((case, b"%d" % len(body)))
    elif framing == "chunked":
        headers.append((b"transfer-Encoding", draw(st.sampled_from([b"chunked", b"Chunked"]))))
    if draw(st.booleans()):
        headers.append((b"Connection", draw(st.sampled_from([b"close", b"Close", b"x, close"]))))
    out += b"HTTP/%s %d%s" % (version, status, draw(st.sampled_from([b" OK", b" ", b"", b" Not Found"]))) + eol
    for name, value in draw(st.permutations(headers)):
        out += name + b":" + draw(st.sampled_from([b"", b" ", b"\t "])) + value + eol
    out += eol
    if has_body and framing == "chunked":
        while body:
            size = draw(st.integers(1, len(body)))
            out += b"%x" % size + draw(st.sampled_from([b"", b";a=b"])) + EOL + body[:size] + EOL
            body = body[size:]
        out += b"0" + EOL + draw(st.sampled_from([b"", b"X-Trailer: 1" + EOL])) + EOL
    elif has_body:
        out += body
    return out, method, has_body and framing == "close"


def read_with_h11(data: bytes, method: bytes) -> tuple[int, int, bool]:
    """The oracle: status, bytes of the body, whether the connection may be used again."""
    connection = h11.Connection(h11.CLIENT)
    length = [("content-length", "0")] if method == b"POST" else []
    connection.send(h11.Request(method=method, target="/", headers=[("host", "x"), *length]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    status = size = 0
    closed = False
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if closed:
                raise AssertionError("h11 wants more")
            connection.receive_data(b"")
            closed = True
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            size += len(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return status, size, connection.their_state is h11.DONE and not closed


def read_with_ours(pieces: list[bytes], method: bytes) -> tuple[int, int, bool]:
    parser = load.ResponseParser(is_head_request=method == b"HEAD")
    complete = [parser.feed(piece) for piece in pieces if piece]
    assert not any(complete[:-1])
    assert complete[-1] or parser.eof()
    return parser.status, parser.body_bytes, parser.keep_alive


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(responses())
def test_the_parser_agrees_with_h11_wherever_the_bytes_are_split(response):
    data, method, _ = response
    expected = read_with_h11(data, method)
    for cut in range(len(data)):
        assert read_with_ours([data[:cut], data[cut:]], method) == expected
    assert read_with_ours([data[i : i + 1] for i in range(len(data))], method) == expected


@settings(max_examples=150, deadline=None)
@given(responses(), st.data())
def test_a_cut_response_is_never_taken_for_a_complete_one(response, data):
    raw, method, closes = response
    cut = data.draw(st.integers(0, len(raw) - 1))
    parser = load.ResponseParser(is_head_request=method == b"HEAD")
    head_is_there = parser.feed(raw[:cut]) if cut else False
    assert not head_is_there
    if closes and parser.until_close:
        assert parser.eof()
    else:
        with pytest.raises(load.HTTPError) as error:
            parser.eof()
        assert error.value.kind == ("truncated" if cut else "closed")


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.sampled_from(
                [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 ", b"\r\n", b"\n", b"\r", b"Content-Length: ", b"5", b"-1", b" ",
                 b"Transfer-Encoding: chunked\r\n\r\n", b"ffffffffffffffffffff\r\n", b"0\r\n", b"\x00", b": ", b"\xff"]
            ),
        ),
        max_size=12,
    )
)  # fmt: skip
def test_whatever_arrives_the_parser_ends_or_raises_its_own_error(pieces):
    parser = load.ResponseParser()
    try:
        for piece in pieces:
            if parser.feed(piece):
                return
        parser.eof()
    except load.HTTPError as error:
        assert error.kind in load.ERRORS


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "closed"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "truncated"),
        (HEAD + b"Content-Length: 5\r\n\r\nabc", "truncated"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc", "truncated"),
        (b"hello\r\n\r\n", "malformed"),
        (b"HTTP/2 200 OK\r\n\r\n", "malformed"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "malformed"),
        (HEAD + b"no colon\r\n\r\n", "malformed"),
        (HEAD + b"bad name: x\r\n\r\n", "malformed"),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "malformed"),
        (HEAD + b"Content-Length: -5\r\n\r\n", "malformed"),
        (HEAD + b"Content-Length: 1_0\r\n\r\n", "malformed"),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", "malformed"),
        (HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "malformed"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", "malformed"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", "malformed"),
        (HEAD + b"Content-Length: 1\r\n\r\nab", "malformed"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "malformed"),
        (HEAD + b"X: " + b"a" * load.MAX_HEAD_BYTES, "too large"),
        (HEAD + b"Content-Length: 9999999999999\r\n\r\n", "too large"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * load.MAX_HEAD_BYTES * 2, "too large"),
        (HEAD + b"\r\n" + b"x" * (load.MAX_BODY_BYTES + 1), "too large"),
    ],
)
def test_a_bad_response_has_a_named_error(data, kind):
    parser = load.ResponseParser()
    with pytest.raises(load.HTTPError) as error:
        assert not parser.feed(data)
        parser.eof()
    assert error.value.kind == kind


def test_one_parser_reads_one_response_after_another():
    parser = load.ResponseParser()
    for body in (b"", b"abc"):
        assert parser.feed(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert (parser.status, parser.body_bytes, parser.keep_alive) == (200, len(body), True)
        parser.reset(False)


# ---------------------------------------------------------------- the client against servers that misbehave

OK = HEAD + b"Content-Length: 2\r\n\r\nok"


def answer(sock: socket.socket, data: bytes) -> None:
    sock.recv(65536)
    sock.sendall(data)


def reset(sock: socket.socket) -> None:
    sock.recv(65536)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def stall(sock: socket.socket) -> None:
    sock.recv(65536)
    time.sleep(3.0)


def endless(sock: socket.socket) -> None:
    sock.recv(65536)
    sock.sendall(HEAD + b"\r\n")
    while True:
        sock.sendall(b"x" * 65536)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def stub(*behaviours):
    """A server on a free port that treats connection i with behaviour i (then from the start again)."""
    return serving(socket.create_server(("127.0.0.1", 0), backlog=4096), *behaviours)


@contextlib.contextmanager
def serving(listener: socket.socket, *behaviours):

    def serve(sock, behave):
        with contextlib.suppress(OSError), sock:
            behave(sock)

    def accept():
        for behave in itertools.cycle(behaviours):
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(sock, behave), daemon=True).start()

    with listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def burst(address, requests: int, timeout_s: float = 5.0) -> load.Exchanges:
    messages = itertools.repeat(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    return send(address, load.Pace(requests), timeout_s=timeout_s, messages=messages).exchanges


def outcomes(exchanges: load.Exchanges) -> list:
    return [load.ERRORS[code] or status for status, code in zip(exchanges.status, exchanges.error, strict=True)]


@pytest.mark.parametrize("poller", ["EpollPoller", "SelectorPoller"])
@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (lambda sock: answer(sock, OK), 200),
        (lambda sock: answer(sock, b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"), 500),
        (lambda sock: answer(sock, HEAD + b"\r\nuntil close"), 200),
        (lambda sock: answer(sock, b""), "closed"),
        (lambda sock: answer(sock, HEAD + b"Content-Length: 9\r\n\r\nok"), "truncated"),
        (lambda sock: answer(sock, b"220 smtp.example ready\r\n\r\n"), "malformed"),
        (reset, "reset"),
        (stall, "timed out"),
        (endless, "too large"),
    ],
)
def test_each_failure_is_counted_under_its_name(monkeypatch, poller, behaviour, outcome):
    if poller == "EpollPoller" and not hasattr(load.select, "epoll"):
        pytest.skip("no epoll on this system")
    if poller == "SelectorPoller":
        monkeypatch.delattr(load.select, "epoll", raising=False)
    with stub(behaviour, lambda sock: answer(sock, OK)) as address:
        exchanges = burst(address, 4, timeout_s=1.0 if outcome == "timed out" else 10.0)
    assert outcomes(exchanges) == [outcome, 200, outcome, 200]


def test_a_refused_connection_is_a_counted_failure_not_a_hang():
    assert outcomes(burst(("127.0.0.1", free_port()), 250)) == ["refused"] * 250


def test_a_server_that_refuses_everything_does_not_outlast_the_time_limit():
    begun_s = time.monotonic()
    measured = send(("127.0.0.1", free_port()), load.Pace(stages=((0.3, 5),), time_limit_s=0.3))
    assert time.monotonic() - begun_s < 5
    assert set(outcomes(measured.exchanges)) == {"refused"}


def test_an_answer_may_come_a_byte_at_a_time():
    def slowly(sock):
        sock.recv(65536)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(OK)):
            sock.sendall(OK[i : i + 1])

    with stub(slowly) as address:
        exchanges = burst(address, 3)
    assert outcomes(exchanges) == [200] * 3
    assert list(exchanges.body_bytes) == [2] * 3


def test_requests_leave_in_order_each_on_a_connection_of_its_own():
    seen = []

    def note(sock):
        seen.append(int(re.search(rb"X-Request-Id: (\d+)", sock.recv(65536))[1]))
        sock.sendall(OK)

    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:

        def accept_one_after_another():
            for _ in range(300):
                sock, _ = listener.accept()
                with sock:
                    note(sock)

        server = threading.Thread(target=accept_one_after_another)
        server.start()
        messages = (b"GET / HTTP/1.1\r\nX-Request-Id: %d\r\n\r\n" % i for i in itertools.count())
        exchanges = send(listener.getsockname(), load.Pace(300), timeout_s=10, messages=messages).exchanges
        server.join()
    assert seen == list(range(300))
    assert outcomes(exchanges) == [200] * 300
    assert list(exchanges.started_s) == sorted(exchanges.started_s)


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def keep_answering(sock: socket.socket) -> None:
    while sock.recv(65536):
        sock.sendall(OK)


def send(address, pace: load.Pace, keep_alive: bool = False, timeout_s: float = 5.0, messages=None) -> load.Measured:
    engine = load.Load(address, messages or itertools.repeat(GET), pace, timeout_s, keep_alive)
    exchanges, stopped = load.run_load(engine)
    return load.Measured(
        exchanges, engine.begun_s, engine.cpu_s, engine.sockets_opened, {}, load.Exchanges(), stopped=stopped
    )


@pytest.mark.parametrize(
    ("pace", "elapsed_s", "limits"),
    [
        (load.Pace(16), 0.0, (16, math.inf)),
        (load.Pace(5000, 500), 99.0, (5000, 500)),
        (load.Pace(rate=100.0), 0.0, (1, math.inf)),
        (load.Pace(rate=100.0), 1.005, (101, math.inf)),
        (load.Pace(7, rate=100.0), 1.0, (7, math.inf)),
        (load.Pace(stages=((10, 50), (10, 200))), 0.0, (math.inf, 0)),
        (load.Pace(stages=((10, 50), (10, 200))), 5.0, (math.inf, 25)),
        (load.Pace(stages=((10, 50), (10, 200))), 15.0, (math.inf, 125)),
        (load.Pace(stages=((10, 50), (10, 0))), 15.0, (math.inf, 25)),
        (load.Pace(stages=((10, 50), (10, 0))), 99.0, (math.inf, 0)),
    ],
)
def test_a_pace_says_how_many_may_be_sent_and_under_way(pace, elapsed_s, limits):
    assert pace.limits(elapsed_s) == limits


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize(("requests", "concurrency"), [(1, 1), (103, 10), (7, 50)])
def test_a_closed_loop_sends_exactly_what_was_asked(requests, concurrency, keep_alive):
    with stub(keep_answering) as address:
        measured = send(address, load.Pace(requests, concurrency), keep_alive)
    assert outcomes(measured.exchanges) == [200] * requests
    assert measured.sockets_opened == (min(requests, concurrency) if keep_alive else requests)


def test_a_server_that_closes_costs_a_socket_for_each_request():
    with stub(lambda sock: answer(sock, HEAD + b"Connection: close\r\nContent-Length: 0\r\n\r\n")) as address:
        measured = send(address, load.Pace(50, 5), keep_alive=True)
    assert (outcomes(measured.exchanges), measured.sockets_opened) == ([200] * 50, 50)


def test_every_tenth_reset_is_counted_and_the_others_are_answered():
    with stub(*[keep_answering] * 9, reset) as address:
        measured = send(address, load.Pace(100, 10))
    assert sorted(map(str, outcomes(measured.exchanges))) == ["200"] * 90 + ["reset"] * 10


def test_requests_under_way_at_the_time_limit_are_finished():
    def half_a_second(sock):
        sock.recv(65536)
        time.sleep(0.5)
        sock.sendall(OK)

    with stub(half_a_second) as address:
        measured = send(address, load.Pace(concurrency=4, time_limit_s=0.95))
    assert outcomes(measured.exchanges) == [200] * 8
    run = load.summarise(traffic("-c", "4", "-t", "0.95"), measured)
    assert run["finished_after_limit"] == 4
    assert run["throughput_rps"] == pytest.approx(4 / 0.95)


def test_a_ramp_adds_users_over_time():
    with stub(keep_answering) as address:
        measured = send(address, load.Pace(stages=((0.3, 4), (0.3, 8), (0.4, 8)), time_limit_s=1.0), keep_alive=True)
    assert set(outcomes(measured.exchanges)) == {200}
    assert measured.sockets_opened == 8


def frozen(freeze_s: float):
    """A stub's behaviour: it answers at once, but for one freeze of all its connections, at the 50th request."""
    lock, count = threading.Lock(), itertools.count(1)

    def behave(sock):
        while sock.recv(65536):
            with lock:
                if next(count) == 50:
                    time.sleep(freeze_s)
            sock.sendall(OK)

    return behave


def test_an_open_loop_shows_a_freeze_that_a_closed_loop_hides():
    with stub(frozen(0.6)) as address:
        measured = send(address, load.Pace(150, rate=100.0), keep_alive=True)
    opened = load.summarise(traffic("--rate", "100", "-n", "150"), measured)
    with stub(frozen(0.6)) as address:
        measured = send(address, load.Pace(2000, 1), keep_alive=True)
    closed = load.summarise(traffic("-c", "1", "-n", "2000"), measured)
    assert (opened["answered"], closed["answered"]) == (150, 2000)
    assert opened["latency_s"]["p90"] > 0.3 > closed["latency_s"]["p99"]
    assert opened["latency_s"]["max"] > 0.5 and closed["latency_s"]["max"] > 0.5


def test_requests_may_vary_from_one_to_the_next():
    with stub(keep_answering) as address:
        heads = itertools.cycle([GET, b"POST /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"])
        exchanges = send(address, load.Pace(20, 2), True, messages=heads).exchanges
    assert outcomes(exchanges) == [200] * 20


def test_a_large_body_goes_out_whole():
    size = 5_000_000

    def count(sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        received = 0
        while received < size:
            received += len(sock.recv(65536))
        sock.sendall(OK if received == size else b"")

    message = b"x" * size
    with stub(count) as address:
        exchanges = send(address, load.Pace(3), timeout_s=20, messages=itertools.repeat(message)).exchanges
    assert outcomes(exchanges) == [200] * 3


def test_two_thousand_connections_at_once_are_all_answered():
    with stub(keep_answering) as address:
        assert outcomes(burst(address, 2000, timeout_s=30)) == [200] * 2000


def test_a_kept_request_takes_less_than_a_hundred_bytes():
    exchanges = load.Exchanges()
    exchanges.grow()
    assert sum(column.itemsize for column in vars(exchanges).values()) < 100
    assert {len(column) for column in vars(exchanges).values()} == {load.Exchanges.BLOCK}


# ---------------------------------------------------------------- statistics and audit


def parse(*arguments: str) -> Any:
    """The options as main() has them, after the checks."""
    parser = load.Parser(prog="load.py")
    load.add_options(parser)
    options = parser.parse_args(list(arguments))
    load.check_options(options)
    return options


def traffic(*arguments: str) -> load.Traffic:
    return load.traffic_of(parse(*arguments))


@pytest.mark.parametrize(
    ("n", "per_cent", "value"),
    [(100, 99, 99), (99, 99, None), (10, 90, 9), (9, 90, None), (20, 95, 19), (1000, 99, 990), (1000, 99.9, 999)],
)
def test_a_percentile_is_a_measured_value_or_nothing(n, per_cent, value):
    assert load.nearest_rank(range(1, n + 1), per_cent) == value


@given(st.lists(st.floats(0.0001, 100), min_size=1, max_size=300))
def test_statistics_are_those_of_the_sample(values):
    found = load.statistics_of(list(values))
    assert (found["min"], found["max"]) == (round(min(values), 6), round(max(values), 6))
    assert found["median"] == pytest.approx(statistics.median(values), abs=1e-6)
    assert found["mean"] == pytest.approx(statistics.fmean(values), abs=1e-6)
    if len(values) > 1:
        assert found["sd"] == pytest.approx(statistics.stdev(values), abs=2e-6)
    assert sum(count for _, count in load.histogram(values)) == len(values)


def test_failures_are_in_no_percentile_and_in_every_count():
    with stub(keep_answering, lambda sock: answer(sock, b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")) as address:
        run = load.summarise(traffic("-n", "40", "-c", "4"), send(address, load.Pace(40, 4)))
    assert (run["sent"], run["answered"], run["failed"], run["errors"]) == (40, 20, 20, {"HTTP 500": 20})
    assert sum(count for _, count in run["histogram"]) == 20
    assert sum(row["answered"] for row in run["per_second"]) == 20
    assert sum(row["failed"] for row in run["per_second"]) == 20
    assert run["throughput_rps"] == pytest.approx(20 / run["measured_s"], rel=0.01)


Row = tuple[float, float, int]  # when a request was sent, when it was answered, and its status (0: reset)


def measured(rows: list[Row], **changes: Any) -> load.Measured:
    """What a run would have left that began at 1000 s on the clock."""
    exchanges = load.Exchanges()
    for sent_s, answered_s, status in rows:
        exchanges.started_s.append(1000.0 + sent_s)
        exchanges.answered_s.append(1000.0 + answered_s)
        exchanges.sent_s.append(0.0)
        exchanges.first_byte_s.append(0.0)
        exchanges.body_bytes.append(2)
        exchanges.status.append(status)
        exchanges.error.append(0 if status else load.ERRORS.index("reset"))
    exchanges.finish(len(rows))
    return load.Measured(exchanges, 1000.0, 0.1, len(rows), {}, load.Exchanges())._replace(**changes)


def test_a_second_in_which_nothing_ended_is_in_the_table_of_seconds():
    run = load.summarise(traffic("-n", "3", "-c", "1"), measured([(0, 0.5, 200), (0.5, 3.25, 200), (3.25, 3.5, 0)]))
    assert [(row["second"], row["answered"], row["failed"], row["mean_latency_s"]) for row in run["per_second"]] == [
        (0, 1, 0, 0.5), (1, 0, 0, 0.0), (2, 0, 0, 0.0), (3, 1, 1, 2.75)]  # fmt: skip


def test_the_latency_of_an_open_loop_counts_from_when_a_request_was_due():
    rows = [(0.0, 0.1, 200), (3.0, 3.1, 200)]  # the second was due at 1 s
    run = load.summarise(traffic("-n", "2", "--rate", "1"), measured(rows))
    assert (run["latency_s"]["max"], run["phases_s"]["total"]["max"], run["lag_s"]["max"]) == (2.1, 0.1, 2.0)
    assert run["per_second"][3]["mean_latency_s"] == 2.1


@pytest.mark.parametrize(
    ("arguments", "rows", "throughput_rps"),
    [
        ("-n 4 -c 1", [(i, i + 1, 200) for i in range(4)], 1.0),
        ("-n 4 -c 1", [(i, i + 1, 500 if i == 3 else 200) for i in range(4)], 0.75),
        ("-t 2.5 -c 1", [(i, i + 1, 200) for i in range(3)], 2 / 2.5),  # the third came after the limit
        ("--rate 0.5 -n 2", [(0, 0.1, 200), (2, 2.1, 200)], 0.5),  # not two answers in 2.1 s
        ("--rate 0.5 -t 4", [(0, 0.1, 200), (2, 2.1, 200)], 0.5),
        ("--rate 2 -n 4", [(0, 9, 200)] * 3 + [(1.5, 10, 200)], 0.4),  # a queue that is served late
    ],
)
def test_throughput_counts_the_answers_in_its_window_by_the_length_of_the_window(arguments, rows, throughput_rps):
    assert load.summarise(traffic(*arguments.split()), measured(rows))["throughput_rps"] == pytest.approx(
        throughput_rps
    )


def test_an_open_loop_says_how_many_were_due_and_never_left():
    run = load.summarise(traffic("--rate", "50000", "-t", "2"), measured([(i / 1e4, 2, 200) for i in range(17_664)]))
    assert (run["due"], run["sent"]) == (100_000, 17_664)
    assert "100000 due = 17664 sent + 82336 never left" in load.render_counts(run)
    assert "never-left" in [warning["id"] for warning in load.audit(run)]


def test_little_is_checked_within_one_window():
    """50 users who wait a second each, the time limit in the middle of their third round."""
    rows = [(second, second + 1.0, 200) for second in range(3) for _ in range(50)]
    run = load.summarise(traffic("-c", "50", "-t", "2.5"), measured(rows))
    assert run["mean_in_flight"] == pytest.approx(50)
    assert run["throughput_rps"] == pytest.approx(100 / 2.5)
    (little,) = [line for line in load.render_audit(run) if line.startswith("Little")]
    assert "does not agree" not in " ".join(little.split())


def plain_run(**changes: Any) -> Any:
    """A run that nothing is wrong with, but for the changes."""
    rows = [(0.1 * (i // 10), 0.1 * (i // 10) + 0.1, 200) for i in range(1000)]
    return load.summarise(traffic("-n", "1000", "-c", "10"), measured(rows, client_cpu_s=1.0)) | changes


@pytest.mark.parametrize(
    ("changes", "identifiers"),
    [
        ({}, []),
        ({"failed": 3, "answered": 997, "errors": {"reset": 3}}, ["failed-requests"]),
        ({"due": 1100}, ["never-left"]),
        ({"kernel": {"ListenOverflows": 5, "TCPSynRetrans": 2}}, []),  # of another program: nobody waited here
        ({"kernel": {"ListenOverflows": 5}, "slow_waits": 3}, ["backlog-overflow"]),
        ({"kernel": {"ListenOverflows": 0}, "slow_waits": 3}, []),
        ({"slow_connects": 2}, ["backlog-overflow"]),
        ({"client_cpu_s": 9.0}, ["client-limit"]),
        ({"keep_alive": True}, ["no-keep-alive"]),
        ({"keep_alive": True, "sockets_opened": 10}, []),
        ({"mean_in_flight": 5.0}, ["little"]),
        ({"mean_in_flight": 5.0, "think_s": 1.0}, []),
        ({"late_bodies": 50}, []),
        ({"late_bodies": 150}, ["delayed-ack"]),
    ],
)
def test_the_audit_names_what_is_wrong(changes, identifiers):
    warnings = load.audit(plain_run(**changes))
    assert [warning["id"] for warning in warnings] == identifiers
    assert all(warning["symptom"] and warning["cause"] and warning["next"] for warning in warnings)


def test_a_body_that_waits_for_a_delayed_ack_is_noticed():
    def head_then_body(sock):
        sock.recv(65536)
        sock.sendall(OK[:-2])
        time.sleep(0.045)
        sock.sendall(OK[-2:])

    with stub(head_then_body) as address:
        run = load.summarise(traffic("-n", "20", "-c", "1"), send(address, load.Pace(20, 1)))
    assert "delayed-ack" in {warning["id"] for warning in load.audit(run)}


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ([], [b"GET / HTTP/1.1", b"Host: 127.0.0.1:80", b"Connection: close", b"", b""]),
        (["-k"], [b"GET / HTTP/1.1", b"Host: 127.0.0.1:80", b"", b""]),
        (["-k", "-H", "host: a"], [b"GET / HTTP/1.1", b"host: a", b"", b""]),
        (["-k", "--data", "xyz"],
         [b"POST / HTTP/1.1", b"Host: 127.0.0.1:80", b"Content-Length: 3", b"", b"xyz"]),
        (["-k", "-m", "DELETE"], [b"DELETE / HTTP/1.1", b"Host: 127.0.0.1:80", b"", b""]),
    ],
)  # fmt: skip
def test_a_request_is_what_the_options_say(arguments, lines):
    plan = traffic(*arguments)
    assert next(plan.messages(False)) == b"\r\n".join(lines)
    numbered = list(itertools.islice(plan.messages(True), 3))
    assert [re.search(rb"X-Request-Id: (\d)", message)[1] for message in numbered] == [b"0", b"1", b"2"]


def test_a_mix_is_the_same_in_every_run_and_keeps_its_shares():
    kinds = (load.Kind(0.75, "GET", "/b/{id}"), load.Kind(0.25, "POST", "/b", '{"isbn": "{n}"}'))
    mix = load.Traffic(kinds=kinds, ids=9)
    first, again = ([*itertools.islice(mix.messages(True), 2000)] for _ in range(2))
    assert first == again
    gets = [message for message in first if message.startswith(b"GET ")]
    assert 0.7 < len(gets) / 2000 < 0.8
    assert {int(re.match(rb"GET /b/(\d) ", message)[1]) for message in gets} == set(range(1, 10))
    warm_up = [*itertools.islice(mix.messages(False), 200)]
    assert not set(warm_up) & set(first)


# ---------------------------------------------------------------- the command


def run_main(*arguments: str, json_file: Path) -> tuple[int, Any]:
    code = load.main([*arguments, "--json", str(json_file)])
    return code, json.loads(json_file.read_text())


def command(*arguments: str, **how: Any) -> subprocess.CompletedProcess[str]:
    """load.py as a process of its own."""
    how = {"capture_output": True, "text": True, "timeout": 60} | how
    return subprocess.run([*LOAD, *arguments], **how)


def test_a_url_is_measured_and_its_failures_set_the_exit_code(tmp_path, capsys):
    with stub(keep_answering) as (host, port):
        url = f"http://{host}:{port}/x?y=1"
        code, document = run_main(url, "-n", "200", "-c", "10", "-k", json_file=tmp_path / "1")
    run = document["runs"][0]
    assert (code, run["answered"], run["sockets_opened"], run["path"]) == (0, 200, 10, "/x?y=1")
    assert {len(column) for column in run["exchanges"].values()} == {200}
    assert all(
        sent <= done for sent, done in zip(run["exchanges"]["sent_s"], run["exchanges"]["answered_s"], strict=True)
    )
    out = capsys.readouterr().out
    assert "closed loop" in out and "p99" in out and max(map(len, out.splitlines())) <= 79
    with stub(keep_answering, reset) as (host, port):
        code, document = run_main(f"http://{host}:{port}", "-n", "10", "-c", "1", json_file=tmp_path / "2")
    assert (code, document["runs"][0]["errors"]) == (1, {"reset": 5})


URL = "http://127.0.0.1:1/"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([URL, "-n", "0"], "-n/--requests: '0' is not a whole number from 1"),
        ([URL, "-n", "ten"], "'ten' is not a whole number"),
        ([URL, "--think", "nan"], "'nan' is not a number from"),
        ([URL, "--unknown"], "unrecognized arguments: --unknown"),
        ([URL, "-c", "1", "-n", "1", "-n", "1", "extra"], "unrecognized arguments: extra"),
        (["-n", "1"], "required: url"),
        (["https://127.0.0.1/"], "https:// is not supported"),
        (["ftp://127.0.0.1/"], "is not of the form http://host:port/path"),
        (["http://a:b@127.0.0.1/"], "is not of the form http://host:port/path"),
        (["http://127.0.0.1:0/"], "is not of the form http://host:port/path"),
        (["http://127.0.0.1:99999/"], "Port out of range"),
        (["http://127.0.0.1/a b"], "is not a URL without white space"),
        (["http://127.0.0.1/\r\nX: y"], "is not a URL without white space"),
        (["http://127.0.0.1/\xe9"], "percent-encoded"),
        (["http://[::1/"], "Invalid IPv6 URL"),
        (["http://no.such.host.invalid/"], "cannot resolve"),
        ([URL, "-H", "X: a\r\nY: b"], "is not one header line"),
        ([URL, "-H", "X y: a"], "is not one header line"),
        ([URL, "-H", "Content-Length: 4"], "set by this client itself"),
        ([URL, "-m", "GET /x"], "is not an HTTP method"),
        ([URL, "-c", "1", "--rate", "1"], "exclude each other"),
        ([URL, "-t", "5"], "-t needs -n, -c, --rate or --ramp"),
        ([URL, "--ramp", "5:3"], "is not stages like"),
        ([URL, "--ramp", "0s:3"], "a stage takes"),
        ([URL, "--ramp", "1s:0"], "no stage has any users"),
        ([URL, "--ramp", "1.2.3s:4"], "is not stages like"),
        ([URL, "--ramp", "1s:999999999"], "a stage takes"),
        ([URL, "--ramp", "1s:5,,1s:5"], "is not stages like"),
        ([URL, "--arrivals", "poisson"], "go with --rate"),
        ([URL, "--seed", "0"], "go with --rate"),
        ([URL, "--rate", "1000000", "-t", "86400", "--arrivals", "poisson"], "at most 10 million requests"),
        ([URL, "--think", "1"], "--think goes with -c or --ramp"),
        ([URL, "-p", "/nonexistent"], "cannot read /nonexistent"),
        ([URL, "-p", "/nonexistent", "--data", "x"], "exclude each other"),
        ([URL, "--client-cpus", "x"], "is not CPU numbers"),
        ([URL, "--json", "/nonexistent/x.json"], "cannot write /nonexistent/x.json"),
        ([URL], "nothing listens on 127.0.0.1:1"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(capsys, arguments, message):
    assert load.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err and len(err.splitlines()) == 1


def test_no_arguments_print_the_manual(capsys):
    assert load.main([]) == 0
    assert "python load.py http://127.0.0.1:8000/ -n 5000 -c 500 -k" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["-O", "-OO"])
def test_it_runs_without_assertions_and_docstrings(flag, tmp_path):
    with stub(keep_answering) as (host, port):
        arguments = [f"http://{host}:{port}/", "-n", "20", "-c", "2", "--json", "x.json"]
        done = subprocess.run(
            [sys.executable, flag, *LOAD[1:], *arguments], cwd=tmp_path, capture_output=True, text=True
        )
        manual = subprocess.run([sys.executable, flag, *LOAD[1:]], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "x.json").read_text())["runs"][0]["answered"] == 20
    assert (manual.returncode, manual.stderr) == (0, "")


def test_alone_in_an_empty_folder_it_works(tmp_path):
    (tmp_path / "load.py").write_bytes((HERE / "load.py").read_bytes())
    with stub(keep_answering) as (host, port):
        arguments = [f"http://{host}:{port}/", "-n", "20"]
        done = subprocess.run(
            [sys.executable, "-I", "load.py", *arguments], cwd=tmp_path, capture_output=True, text=True
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert "20 answers" in done.stdout


def test_text_outside_of_ascii_is_sent_as_it_was_typed_in_an_ascii_locale():
    got = []

    def note(sock):
        got.append(sock.recv(65536))
        sock.sendall(OK)

    with stub(note) as (host, port):
        environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        arguments = [f"http://{host}:{port}/", "-n", "1", "--data"]
        done = command(*arguments, "é".encode(), env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    sent = max(got, key=len)  # beside the first look at the address, which says nothing
    assert sent.endswith(b"\r\n\r\n" + "é".encode()) and b"Content-Length: 2\r\n" in sent


def test_localhost_that_listens_on_ipv6_only_is_found(tmp_path, monkeypatch):
    found = [socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0] for host in ("127.0.0.1", "::1")]
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with serving(listener, keep_answering) as address:
        both = [(*info[:4], (info[4][0], address[1], *info[4][2:])) for info in found]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
        code, document = run_main(f"http://localhost:{address[1]}/", "-n", "5", json_file=tmp_path / "x")
        assert (code, document["runs"][0]["answered"]) == (0, 5)
        monkeypatch.undo()
        code, document = run_main(f"http://[::1]:{address[1]}/", "-n", "5", json_file=tmp_path / "x")
        assert (code, document["runs"][0]["answered"]) == (0, 5)


def test_the_seed_of_random_arrivals_is_printed_and_kept(tmp_path, capsys):
    with stub(keep_answering) as (host, port):
        arguments = [f"http://{host}:{port}/", "--rate", "200", "-n", "30", "-k", "--arrivals", "poisson"]
        _, drawn = run_main(*arguments, json_file=tmp_path / "x")
        seed = drawn["runs"][0]["seed"]
        assert f"poisson arrivals, seed {seed})" in " ".join(capsys.readouterr().out.split())
        _, given_it = run_main(*arguments, "--seed", "3", json_file=tmp_path / "y")
    assert given_it["runs"][0]["seed"] == 3
    assert "poisson arrivals, seed 3)" in " ".join(capsys.readouterr().out.split())
    due_s = load.poisson_schedule(200.0, 30, math.inf, 3)
    sent_s = given_it["runs"][0]["exchanges"]["started_s"]
    assert all(sent >= due - 1e-5 for sent, due in zip(sent_s, due_s, strict=True))


# ---------------------------------------------------------------- the limit of open files


@pytest.fixture
def file_limit(monkeypatch):
    """Sets a soft and a hard limit that only load.py sees, and tells what it raised the soft one to."""
    limits = [1024, 4096]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.__setitem__(slice(None), new))
    return limits


@pytest.mark.parametrize(
    ("pace", "soft"),
    [
        (load.Pace(100), 1024),
        (load.Pace(5000, 960), 1024),
        (load.Pace(5000, 961), 1025),
        (load.Pace(2000), 2064),
        (load.Pace(rate=10.0, time_limit_s=9.0), 4096),  # an open loop opens what it needs
        (load.Pace(300, rate=100.0), 1024),
        (load.Pace(50_000, rate=100.0), 4096),
        (load.Pace(stages=((1.0, 2000),)), 2064),
    ],
)
def test_the_soft_limit_of_open_files_is_raised_as_far_as_a_load_needs_it(file_limit, pace, soft):
    load.check_file_limit(pace)
    assert file_limit == [soft, 4096]


def test_an_unlimited_hard_limit_is_no_number_to_ask_for(file_limit):
    file_limit[1] = resource.RLIM_INFINITY
    load.check_file_limit(load.Pace(rate=1.0))
    assert file_limit[0] == 65_536


def test_a_load_beyond_the_hard_limit_is_refused_before_it_begins(file_limit):
    with pytest.raises(load.Problem, match="5000 requests at once need 5064 open files; the limit is 4096"):
        load.check_file_limit(load.Pace(5000))


def test_a_client_out_of_files_names_its_own_limit(tmp_path):
    with stub(stall) as (host, port):
        limited = ["sh", "-c", 'ulimit -n 40; exec "$@"', "sh", *LOAD]
        arguments = [f"http://{host}:{port}/", "--rate", "400", "-n", "100", "-s", "1", "--json", str(tmp_path / "x")]
        done = subprocess.run([*limited, *arguments], capture_output=True, text=True, timeout=30)
    run = json.loads((tmp_path / "x").read_text())["runs"][0]
    assert done.returncode == 1
    assert run["errors"]["too many open files"] > 40
    assert "this client's own limit of open files" in " ".join(done.stdout.split())


# ---------------------------------------------------------------- servers that do not answer


def test_a_closed_port_is_the_whole_story(capsys):
    port = free_port()
    assert load.main([f"http://127.0.0.1:{port}/"]) == 2
    assert capsys.readouterr().err == f"load.py: nothing listens on 127.0.0.1:{port}\n"


@pytest.mark.parametrize(
    ("arguments", "behaviour", "stopped"),
    [
        ("-c 20 -n 100000", reset, r"the first \d+ requests all failed \(reset\)"),
        ("-c 100 -n 1000 -s 0.4", stall, r"the first 100 requests all failed \(timed out\)"),
        (
            "--rate 20 -t 60 -s 0.5",
            stall,
            r"(no answer at all within the time-out of 0.5 s|the first 1\d requests all)",
        ),
    ],
)
def test_a_service_that_answers_nobody_is_not_asked_for_ever(tmp_path, arguments, behaviour, stopped):
    begun_s = time.monotonic()
    with stub(behaviour) as (host, port):
        code, document = run_main(f"http://{host}:{port}/", *arguments.split(), json_file=tmp_path / "x")
    (run,) = document["runs"]
    assert code == 1 and time.monotonic() - begun_s < 8
    assert re.match(stopped, run["stopped"])
    assert (run["answered"], run["failed"]) == (0, run["sent"])


def test_a_server_whose_first_answers_fail_is_still_asked_when_others_come(tmp_path):
    with stub(*[reset] * 9, keep_answering) as (host, port):
        code, document = run_main(f"http://{host}:{port}/", "-n", "40", "-c", "1", json_file=tmp_path / "x")
    (run,) = document["runs"]
    assert (code, run["sent"], run["answered"], run["stopped"]) == (1, 40, 4, None)


def test_silence_is_broken_by_a_word(capsys, monkeypatch):
    monkeypatch.setattr(load, "QUIET_S", 0.3)
    with stub(stall) as address:
        send(address, load.Pace(3), timeout_s=1.0)
    assert re.fullmatch(r"3 sent, no answer for 0 s; each has 1 s \(-s\)\n", capsys.readouterr().err)


# ---------------------------------------------------------------- endings


def slowly_answering(sock: socket.socket) -> None:
    while sock.recv(65536):
        time.sleep(0.02)
        sock.sendall(OK)


SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
LOADS = {
    "burst": "-n 60",
    "closed loop": "-c 5 -t 60 -k",
    "open loop": "--rate 100 -t 60 -k",
    "ramp": "--ramp 60s:20,60s:20 -k",
}


def interrupt(name: str, *arguments: str, begins: str = "load ") -> tuple[int, str, str]:
    """Start load.py, send it a signal some time after the line that its load begins with, and wait for its end."""
    process = subprocess.Popen([*LOAD, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out = ""
    while begins and not out.rpartition("\n\n")[2].startswith(begins):
        out += process.stdout.readline()
    time.sleep(1.0)
    process.send_signal(getattr(signal, name))
    rest, err = process.communicate(timeout=30)
    return process.returncode, out + rest, err


@pytest.mark.parametrize(("name", "code"), SIGNALS.items())
@pytest.mark.parametrize("kind", LOADS)
def test_a_signal_ends_a_load_with_its_figures(tmp_path, kind, name, code):
    behaviours = [keep_answering, stall] if kind == "burst" else [slowly_answering]
    with stub(*behaviours) as (host, port):
        arguments = [f"http://{host}:{port}/", *LOADS[kind].split(), "--json", str(tmp_path / "x")]
        returned, out, err = interrupt(name, *arguments)
    run = json.loads((tmp_path / "x").read_text())["runs"][0]
    assert returned == code and "Traceback" not in err
    assert run["stopped"] == name and f"stopped: {name}" in " ".join(out.split())
    assert run["answered"] > 0
    assert run["sent"] == run["answered"] + run["failed"] == len(run["exchanges"]["status"])
    assert run["errors"] == ({"interrupted": run["failed"]} if run["failed"] else {})
    if kind == "open loop":
        assert run["due"] == run["sent"]  # what was due after the signal was not


def test_a_signal_before_the_load_ends_it_with_a_word():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as stack:
        for _ in range(4):  # nobody accepts: the first look at the address hangs
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        code, out, err = interrupt("SIGTERM", f"http://127.0.0.1:{listener.getsockname()[1]}/", begins="")
    assert (code, out, err) == (143, "", "load.py: interrupted\n")


def test_the_document_is_replaced_as_a_whole_and_says_when_it_is_complete(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    path.write_text("old")
    output, document = load.JsonFile(str(path)), load.new_document(["load.py"])
    assert path.read_text() == "old"
    output.write(document)
    assert json.loads(path.read_text())["complete"] is False
    document["runs"].append({"sent": 1})
    document["complete"] = True
    output.write(document)
    assert json.loads(path.read_text()) == document
    assert list(tmp_path.iterdir()) == [path]

    def full(_: object) -> Iterator[str]:
        yield '{"when": '
        raise OSError(28, "No space left on device")

    before = path.read_text()
    monkeypatch.setattr(load, "json_pieces", full)
    with pytest.raises(load.Problem, match=r"cannot write .*x\.json: No space left on device"):
        output.write(document)
    assert (path.read_text(), list(tmp_path.iterdir())) == (before, [path])


def test_a_pipe_gets_one_document_however_the_run_ends(tmp_path):
    for name, code in (("SIGINT", 130), ("SIGTERM", 143)):
        with stub(keep_answering) as (host, port):
            command = f"{' '.join(LOAD)} http://{host}:{port}/ -c 2 -t 30 --json - & sleep 1; kill -{name} $!; wait $!"
            done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=20)
        document = json.loads(done.stdout)
        assert (done.returncode, document["complete"], len(document["runs"])) == (code, False, 1)


def test_a_folder_for_the_json_that_is_read_only_or_a_folder_is_refused_before_the_run(tmp_path, capsys):
    with stub(keep_answering) as (host, port):
        assert load.main([f"http://{host}:{port}/", "--json", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and f"cannot write {tmp_path}" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "script",
    [
        "mkfifo pipe; cat pipe > got & {load} --json pipe > report; wait",
        "{load} --json /dev/stdout 2> report > got",
        "{load} --json - 2> report > got",
        "{load} --json >(cat > got) > report; sleep 0.3",
        "{load} --json /dev/fd/3 3> got > report",
    ],
)
def test_json_goes_into_pipes(tmp_path, script):
    if not shutil.which("bash"):
        pytest.skip("no bash")
    with stub(keep_answering) as (host, port):
        line = script.format(load=f"{' '.join(LOAD)} http://{host}:{port}/ -n 20")
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
    text = (tmp_path / "got").read_text()
    assert json.loads(text[text.index('{"when"') :])["runs"][0]["answered"] == 20


@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        ("{load} | head -1", 0, ""),
        ("{load} -q | true", 0, ""),
        ("{load} >&-", 0, ""),
        ("{load} > /dev/full", 2, "load.py: cannot write the report: No space left on device\n"),
        ("{load} --json - > /dev/full 2> err; code=$?; tail -1 err >&2; exit $code", 2,
         "load.py: cannot write -: No space left on device\n"),
        ("{load} --json /dev/full > /dev/null", 2, "load.py: cannot write /dev/full: No space left on device\n"),
        ("{load} 2>&-", 0, ""),
    ],
)  # fmt: skip
def test_an_output_that_nobody_reads_is_no_traceback(tmp_path, script, code, says):
    if not (shutil.which("bash") and os.path.exists("/dev/full")):
        pytest.skip("no bash, or no /dev/full")
    with stub(keep_answering) as (host, port):
        line = "set -o pipefail; " + script.format(load=f"{' '.join(LOAD)} http://{host}:{port}/ -n 20")
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (code, says)


# ---------------------------------------------------------------- memory


def test_the_summary_of_a_run_takes_less_memory_than_three_times_its_raw_times(tmp_path):
    rows = 100_000
    assert peak_of_summary(rows, tmp_path / "x.json") < 3
    document = json.loads((tmp_path / "x.json").read_text())
    assert {len(column) for column in document["runs"][0]["exchanges"].values()} == {rows}


def peak_of_summary(rows: int, path: Path) -> float:
    """Memory that the summary and its JSON take at most, as a multiple of the raw times'."""
    dice = random.Random(1)
    spans = ((i / 1000, i / 1000 + dice.expovariate(10), 200) for i in range(rows))
    run = measured([(sent_s, done_s, 0 if dice.random() < 0.01 else status) for sent_s, done_s, status in spans])
    raw_bytes = sum(len(column) * column.itemsize for column in vars(run.exchanges).values())
    tracemalloc.start()
    plan = traffic("--rate", "1000", "-n", str(rows))
    summary = load.summarise(plan, run)
    document = load.new_document([])
    document["runs"].append({**summary, "warnings": load.audit(summary), "exchanges": load.columns_of(run)})
    document["complete"] = True
    load.JsonFile(str(path)).write(document)
    load.render_result(document["runs"][0])
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak_bytes / raw_bytes


# ---------------------------------------------------------------- answers remembered: odd ones after usual ones


def in_turn(*answers: tuple[bytes, bool]):
    """A stub's behaviour: answer request i of the run with answers[i], piece by piece at each '|', then maybe close."""
    turns = iter(answers)

    def behave(sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while sock.recv(65536):
            data, closes = next(turns)
            for i, piece in enumerate(data.split(b"|")):
                time.sleep(0.01 * bool(i))
                sock.sendall(piece)
            if closes:
                return

    return behave


def long(head: bytes) -> bytes:
    return HEAD + head + b"Content-Length: 2\r\n\r\n"


ODD = {
    "a head split in its middle": (b"HTTP/1.1 200 O|K\r\nContent-Length: 2\r\n\r\nok", 200),
    "a head split before its last byte": (OK[:-3] + b"|" + OK[-3:], 200),
    "a body apart from its head": (OK[:-2] + b"|ok", 200),
    "a body in two pieces": (OK[:-1] + b"|k", 200),
    "the last answer's bytes in two pieces": (OK[:10] + b"|" + OK[10:], 200),
    "lines that end with a bare LF": (OK.replace(b"\r\n", b"\n"), 200),
    "a folded header line": (long(b"X: a\r\n  b\r\n") + b"ok", 200),
    "equal lengths given twice": (long(b"Content-Length: 2, 2\r\n") + b"ok", 200),
    "no body": (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
    "304 with a length but no body": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", 304),
    "100 before the answer": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200),
    "103 in a piece of its own before the answer": (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n|" + OK, 200),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n", 200),
    "a chunk split in its size": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0|2\r\nok\r\n0\r\n\r\n", 200),
    "chunks and trailers": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n", 200),
    "chunks win over a length": (
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        200,
    ),
    "an error of the server": (b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nok", 500),
    "a reason that is missing": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", 200),
    "one byte more than usual": (HEAD + b"Content-Length: 3\r\n\r\nok!", 200),
    "a body until the connection closes": (HEAD + b"\r\nok", 200, True),
    "an answer that closes": (long(b"Connection: close\r\n") + b"ok", 200, True),
    "HTTP/1.0, which closes": (OK.replace(b"1.1", b"1.0"), 200, True),
    "a close without an answer": (b"", "closed", True),
    "a close in the head": (OK[:20], "truncated", True),
    "a close in the body": (OK[:-1], "truncated", True),
    "a close in a chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nok", "truncated", True),
    "a byte too many": (OK + b"!", "malformed", True),
    "two answers in one piece": (OK + OK, "malformed", True),
    "a chunk size that is none": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2x\r\nok\r\n0\r\n\r\n", "malformed", True),
    "a chunk that goes on": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nok\r\n0\r\n\r\n", "malformed", True),
    "conflicting lengths": (long(b"Content-Length: 3\r\n") + b"ok", "malformed", True),
    "a negative length": (HEAD + b"Content-Length: -2\r\n\r\nok", "malformed", True),
    "no HTTP at all": (b"hello\r\n\r\n", "malformed", True),
    "101, not asked for": (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "malformed", True),
    "a head without an end": (HEAD + b"X: y\r\n" * 20_000, "too large", True),
    "a body that is announced as endless": (HEAD + b"Content-Length: 99999999999\r\n\r\n", "too large", True),
}


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_answer_is_counted_right_after_usual_ones(odd, keep_alive):
    data, outcome, *closes = ODD[odd]
    answers = [(OK, False)] * 3 + [(data, bool(closes))] + [(OK, False)] * 3
    with stub(in_turn(*answers)) as address, contextlib.suppress(StopIteration):
        found = send(address, load.Pace(7, 1), keep_alive, timeout_s=3.0).exchanges
    assert outcomes(found) == [200, 200, 200, outcome, 200, 200, 200]
    assert [found.body_bytes[i] for i in (0, 1, 2, 4, 5, 6)] == [2] * 6
    if outcome == 200:
        assert found.body_bytes[3] == (3 if "more than" in odd else 2)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(responses(), st.integers(1, 3)), min_size=1, max_size=4))
def test_answer_after_answer_on_one_connection_is_what_h11_reads(drawn):
    answers = [response for response, times in drawn for _ in range(times)]
    expected = [read_with_h11(data, method) for data, method, _ in answers]
    turns = in_turn(
        *((data.replace(b"|", b"_"), not stays) for (data, _, _), (_, _, stays) in zip(answers, expected, strict=True))
    )
    requests = (method + b" / HTTP/1.1\r\nHost: x\r\n\r\n" for _, method, _ in answers)
    with stub(turns) as address:
        found = send(address, load.Pace(len(answers), 1), keep_alive=True, messages=requests)
    assert outcomes(found.exchanges) == [status for status, _, _ in expected]
    assert list(found.exchanges.body_bytes) == [size for _, size, _ in expected]
    assert found.sockets_opened == 1 + sum(not stays for _, _, stays in expected[:-1])


# ---------------------------------------------------------------- an open loop that is punctual


@pytest.mark.parametrize("arrivals", ["constant", "poisson"])
def test_latency_is_service_time_and_lag(tmp_path, arrivals):
    with stub(keep_answering) as (host, port):
        arguments = ["--rate", "200", "-n", "100", "-k", "--arrivals", arrivals]
        code, document = run_main(f"http://{host}:{port}/", *arguments, json_file=tmp_path / "x")
    (run,) = document["runs"]
    assert (code, run["due"], run["sent"]) == (0, 100, 100)
    assert run["lag_s"]["min"] >= 0 and run["lag_s"]["median"] < 0.005
    mean = {name: of["mean"] for name, of in (("latency", run["latency_s"]), ("lag", run["lag_s"]))}
    assert mean["latency"] == pytest.approx(run["phases_s"]["total"]["mean"] + mean["lag"], abs=1e-5)


@pytest.mark.parametrize(
    ("lag_s", "latency_s", "says"),
    [(0.002, 0.1, None), (0.02, 0.1, "20%"), (0.0004, 0.001, None), (0.001, 0.002, "50%"), (0.02, 5.0, "0%")],
)
def test_a_late_client_is_measured_by_the_latency(lag_s, latency_s, says):
    lag, latency = ({"p99": p99, "max": 9.9} for p99 in (lag_s, latency_s))
    warnings = [
        warned for warned in load.audit(plain_run(lag_s=lag, latency_s=latency)) if warned["id"] == "late-sends"
    ]
    assert [says in warned["symptom"] for warned in warnings] == ([] if says is None else [True])


# ---------------------------------------------------------------- percentiles to be trusted


@pytest.mark.parametrize("n", [1, 7, 10, 100, 367, 1000])
@pytest.mark.parametrize("per_cent", [50.0, 90.0, 99.0, 99.9])
def test_an_interval_covers_the_percentile_in_95_of_100_samples_and_no_narrower_one_does(n, per_cent):
    chances = [math.comb(n, k) * (per_cent / 100) ** k * (1 - per_cent / 100) ** (n - k) for k in range(n + 1)]
    low, high = load.interval_ranks(n, per_cent)
    assert sum(chances[:low]) <= 0.025 < sum(chances[: low + 1])
    assert sum(chances[high:]) <= 0.025 and (high == 1 or sum(chances[high - 1 :]) > 0.025)


def test_the_interval_of_a_percentile_has_its_measured_values_for_ends():
    found = load.statistics_of([i / 1000 for i in range(1, 1001)])
    assert found["p999"] == 0.999 and load.statistics_of([0.1] * 999)["p999"] is None
    assert found["intervals"]["median"] == [0.469, 0.532] or found["intervals"]["median"] == (0.469, 0.532)
    assert found["intervals"]["p99"] == (0.983, 0.997)
    assert found["intervals"]["p999"] == (0.997, None)  # a thousand values do not bound it


def test_failed_requests_are_slower_than_any_answer_in_the_line_at_least():
    rows = [(0.0, 0.1, 200)] * 80 + [(0.0, 0.001, 0)] * 10 + [(0.0, 2.0, 0)] * 10  # 10 refused at once, 10 timed out
    run = load.summarise(traffic("-n", "100"), measured(rows))
    assert (run["latency_s"]["p95"], run["latency_s"]["max"]) == (0.1, 0.1)
    assert (run["at_least_s"]["median"], run["at_least_s"]["p95"], run["at_least_s"]["max"]) == (0.1, 2.0, 2.0)
    assert re.search(r"^at least +100 ", load.render_phases(run), re.MULTILINE)
    assert load.summarise(traffic("-n", "100"), measured(rows[:80]))["at_least_s"] is None


# ---------------------------------------------------------------- several client processes


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [("-n 101 -c 10 -k", 101), ("-n 7", 7), ("-n 2 -c 2 --processes 4", 2), ("--rate 100 -n 51 -k", 51),
     ("--rate 100 -t 0.5 --arrivals poisson --seed 1", None), ("-c 5 -t 0.4 -k", None),
     ("--ramp 0.2s:6,0.3s:6 -k", None)],
)  # fmt: skip
def test_a_load_dealt_to_processes_is_the_same_load(tmp_path, arguments, sent):
    ids: Counter[bytes] = Counter()

    def note(sock):
        while data := sock.recv(65536):
            ids.update(re.findall(rb"X-Request-Id: (\d+)", data))
            time.sleep(0.002)
            sock.sendall(OK)

    options = parse(*["--processes", "3", *arguments.split()])
    with stub(note) as address:
        plan = load.traffic_of(options)
        found = load.measure(plan, address, numbered=True)
    run, columns = load.summarise(plan, found), found.exchanges
    assert run["answered"] == run["sent"] == len(columns.status) == sum(ids.values())
    assert sent is None or run["sent"] == sent
    assert {int(number) for number in ids} == set(found.numbers or range(run["sent"])) and max(ids.values()) == 1
    if run["mode"] == "open":  # what is due at the very end may not leave in time on a busy machine
        assert run["due"] - 3 <= run["sent"] <= run["due"] and set(found.numbers) <= set(range(run["due"]))
        assert all(start - found.begun_s >= plan.pace.due_s(i) - 1e-6 for i, start in enumerate(columns.started_s))
    elif run["mode"] == "burst" or sent:
        assert list(found.numbers) == list(range(run["sent"]))
    if run["concurrency"] and "-k" in arguments:
        assert run["sockets_opened"] == run["concurrency"]
    totals = [end - start for start, end in zip(columns.started_s, columns.answered_s, strict=True)]
    assert run["phases_s"]["total"] == load.statistics_of(totals)


def children_of(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(child) for child in found.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="ps --ppid")
@pytest.mark.parametrize(("arguments", "asked"), [("-n 4000 -c 8 -k", 4000), ("-c 8 -t 2 -k", None)])
def test_a_client_process_that_dies_is_reported_and_its_requests_are_failures(tmp_path, arguments, asked):
    with stub(slowly_answering) as (host, port):
        line = [*LOAD, f"http://{host}:{port}/", *arguments.split(), "--processes", "4", "--json", str(tmp_path / "x")]
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while len(children := children_of(process.pid)) < 4:
            time.sleep(0.05)
        time.sleep(1.0)
        os.kill(children[1], signal.SIGKILL)
        out, err = process.communicate(timeout=60)
    (run,) = json.loads((tmp_path / "x").read_text())["runs"]
    assert (process.returncode, err) == (1, "")
    assert asked is None or run["sent"] == asked
    assert run["sent"] == run["answered"] + run["failed"] == len(run["exchanges"]["status"])
    assert run["errors"] == {"client died": run["failed"]}
    assert run["failed"] == asked // 4 if asked else run["failed"] > 0
    assert "client-died" in [warned["id"] for warned in run["warnings"]]
    assert "a client process died" in " ".join(out.split())


def test_a_signal_to_several_processes_ends_them_with_their_figures(tmp_path):
    with stub(slowly_answering) as (host, port):
        arguments = [
            f"http://{host}:{port}/",
            "-c",
            "6",
            "-t",
            "60",
            "-k",
            "--processes",
            "2",
            "--json",
            tmp_path / "x",
        ]
        code, _, err = interrupt("SIGINT", *map(str, arguments))
    (run,) = json.loads((tmp_path / "x").read_text())["runs"]
    assert (code, err, run["stopped"]) == (130, "", "SIGINT")
    assert run["answered"] > 0 and run["sent"] == run["answered"] + run["failed"]


SIGNAL_WHILE_CHILDREN_BEGIN = """
import os, signal, sys, time
import load
fork, forked = os.fork, []

def slow_fork():
    pid = fork()
    forked.append(pid)
    if not pid:
        time.sleep(0.5)
    elif len(forked) == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    return pid

os.fork = slow_fork
sys.exit(load.main(sys.argv[1:]))
"""


def test_a_signal_just_after_a_fork_kills_no_client_process(tmp_path):
    with stub(slowly_answering) as (host, port):
        line = [f"http://{host}:{port}/", "-c", "4", "-t", "60", "--processes", "2", "--json", str(tmp_path / "x")]
        done = subprocess.run([sys.executable, "-c", SIGNAL_WHILE_CHILDREN_BEGIN, *line], cwd=HERE, timeout=30)
    (run,) = json.loads((tmp_path / "x").read_text())["runs"]
    assert (done.returncode, run["stopped"]) == (143, "SIGTERM")
    assert not run["errors"].keys() - {"interrupted"}


def test_a_system_without_room_for_the_client_processes_is_one_line(monkeypatch, capsys):
    real, pids = os.fork, []

    def fork():
        if len(pids) == 2:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        pids.append(real())
        return pids[-1]

    monkeypatch.setattr(os, "fork", fork)
    with stub(keep_answering) as (host, port):
        assert load.main([f"http://{host}:{port}/", "-n", "20", "--processes", "3"]) == 2
    assert "cannot start 3 client processes: Resource temporarily unavailable" in capsys.readouterr().err
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="ps --ppid")
def test_no_client_process_outlives_an_end_without_a_report(tmp_path):
    with stub(keep_answering) as (host, port):
        line = [*LOAD, f"http://{host}:{port}/", "-c", "4", "-t", "60", "-k", "--processes", "2", "-q"]
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while len(children := children_of(process.pid)) < 2:
            time.sleep(0.05)
        time.sleep(2.0)  # until a result is more than a pipe holds
        os.kill(process.pid, signal.SIGSTOP)  # so that both signals are there at once
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        os.kill(process.pid, signal.SIGCONT)
        _, err = process.communicate(timeout=30)
    assert process.returncode in (130, 143) and err == "load.py: interrupted\n"
    ends_s = time.monotonic() + 5
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < ends_s:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_alone_in_an_empty_folder_several_processes_are_refused_in_a_line(tmp_path):
    (tmp_path / "load.py").write_bytes((HERE / "load.py").read_bytes())
    with stub(keep_answering) as (host, port):
        line = [sys.executable, "load.py", f"http://{host}:{port}/", "-n", "20", "--processes", "2"]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"load\.py: --processes needs load_processes\.py beside load\.py: .*\n", done.stderr)


# ---------------------------------------------------------------- ApacheBench's letters


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["-T", "text/plain", "--data", "x"], [b"POST / HTTP/1.1", b"Content-Type: text/plain"]),
        (["-A", "user:pass"], [b"Authorization: Basic dXNlcjpwYXNz"]),
        (["-C", "a=b", "-C", "c=d"], [b"Cookie: a=b; c=d"]),
        (["-i"], [b"HEAD / HTTP/1.1"]),
        (["-l", "-r"], [b"GET / HTTP/1.1"]),
    ],
)
def test_the_letters_of_ab_do_what_they_do_there(arguments, lines):
    message = next(traffic(*arguments).messages(False))
    assert set(lines) <= set(message.split(b"\r\n"))


@pytest.mark.parametrize("letter", load.NOT_HERE)
@pytest.mark.parametrize("value", [[], ["x"]])
def test_the_other_letters_of_ab_are_refused_with_what_to_use_instead(capsys, letter, value):
    assert load.main([URL, letter, *value]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"load.py: argument {letter}: ab's, not here: {load.NOT_HERE[letter]}\n")


def test_no_letter_of_ab_is_forgotten():
    parser = load.Parser(prog="load.py")
    load.add_options(parser)
    known = {letter for action in parser._actions for letter in action.option_strings} | {"-e", "-g"}
    assert {f"-{letter}" for letter in "nctsbBpuTvwixyzCAPXVkdSqlgerhHmIfZE"} <= known


def test_percentiles_and_answers_go_into_files_as_ab_writes_them(tmp_path):
    with stub(keep_answering, reset) as (host, port):
        arguments = [
            f"http://{host}:{port}/",
            "-n",
            "50",
            "-c",
            "1",
            "-e",
            str(tmp_path / "e"),
            "-g",
            str(tmp_path / "g"),
        ]
        _, document = run_main(*arguments, json_file=tmp_path / "x")
    answered = document["runs"][0]["answered"]
    head, *lines = (tmp_path / "e").read_text().splitlines()
    assert head == "Percentage served,Time in ms" and [int(line.split(",")[0]) for line in lines] == list(range(100))
    total = document["runs"][0]["phases_s"]["total"]
    assert float(lines[90].split(",")[1]) == pytest.approx(total["p90"] * 1000, abs=0.002)
    head, *lines = (tmp_path / "g").read_text().splitlines()
    assert head == "starttime\tseconds\tctime\tdtime\tttime\twait" and len(lines) == answered == 25
    times = [[float(cell) for cell in line.split("\t")[2:]] for line in lines]
    assert [row[2] for row in times] == sorted(row[2] for row in times)
    assert all(connect + wait == pytest.approx(whole, abs=0.01) for connect, wait, whole, _ in times)


def test_the_progress_line_shows_rate_and_time_left(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    progress = load.Progress(load.Pace(1000, 10))
    progress.show(time.perf_counter() - 2.0, 510, 10)
    progress.write("")
    line, end = sys.stderr.getvalue().split("\r\033[K")[1:]
    assert re.fullmatch(r" +2\.0 s  510 sent, 10 under way, 250/s, 2 s left", line) and end == ""
