"""The tests: pure parts by tables, the HTTP parser against h11, every target on its real server, faults, README.

Times are never asserted tighter than a busy machine can hold: counts, order, batches and ratios are.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import doctest
import http.client
import importlib
import importlib.util
import io
import itertools
import json
import math
import os
import re
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import h11
import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import bench
import sweep

HERE = Path(__file__).parent
QUICK = ["--task-time", "0.2"]


def run_bench(tmp_path: Path, *arguments: str) -> tuple[int, dict]:
    """bench.main in this process, its logs and JSON under tmp_path; the exit code and the document."""
    document = tmp_path / "out.json"
    code = bench.main([*arguments, "--logs", str(tmp_path), "--json", str(document)])
    return code, json.loads(document.read_text())


# ---------------------------------------------------------------- predict


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(bench).failed == 0


@pytest.mark.parametrize(
    ("requests", "workers", "slots", "wait_s", "makespan_s"),
    [
        (0, 4, 1, 1.0, 0.0),
        (1, 4, 1, 1.0, 1.0),
        (4, 4, 1, 1.0, 1.0),
        (5, 4, 1, 1.0, 2.0),
        (16, 4, 1, 1.0, 4.0),  # post A: /io and /async-io in 4 s
        (16, 4, 1, 0.5, 2.0),  # post A: /async-io-multi in 2 s
        (100, 1, 40, 1.0, 3.0),
        (64, 4, 4, 1.0, 4.0),
        (10_000, 1, math.inf, 1.0, 1.0),
        (6, 1, 1, 10.0, 60.0),  # post B: time.sleep(10) in `async def`
        (6, 1, math.inf, 10.0, 10.0),  # post B: its asyncio.sleep fix
    ],
)
def test_a_burst_takes_the_rounded_up_number_of_rounds(requests, workers, slots, wait_s, makespan_s):
    prediction = bench.predict(requests, workers, slots, wait_s)
    assert prediction.makespan_s == makespan_s
    assert len(prediction.answered_s) == requests
    assert max(prediction.answered_s, default=0.0) == pytest.approx(makespan_s)


def test_request_n_starts_at_the_floor_and_is_answered_one_task_later():
    prediction = bench.predict(16, 4, 1, 1.0)
    assert prediction.started_s == [n // 4 * 1.0 for n in range(16)]
    assert prediction.answered_s == [(n // 4 + 1) * 1.0 for n in range(16)]


@pytest.mark.parametrize(
    ("path", "slots", "wait_s", "published_rps"),
    [("/io", 4, 1.0, 4), ("/async-io", 4, 1.0, 4), ("/async-io-multi", 4, 0.5, 8.3)],
)
def test_post_a_published_the_throughput_that_the_slots_give(path, slots, wait_s, published_rps):
    predicted_rps = 100 / bench.predict(100, slots, 1, wait_s).makespan_s
    assert predicted_rps == pytest.approx(published_rps, rel=0.05)


def test_post_a_fastapi_io_took_two_rounds_because_of_the_split():
    assert bench.predict(100, 4, 40, 1.0).makespan_s == 1.0
    assert 100 / bench.predict_split([41, 44, 11, 4], 40, 1.0) == pytest.approx(48.3, rel=0.05)


def test_post_c_published_the_ratio_of_the_slots():
    flask_rps, fastapi_rps = 16 / 0.05, 60 / 0.05
    assert fastapi_rps / flask_rps == pytest.approx(992 / 265, rel=0.05)


@pytest.mark.parametrize(
    ("split", "slots", "rounds"),
    [([], 1, 0), ([16], 4, 4), ([62, 2, 0, 0], 4, 16), ([16, 16, 16, 16], 4, 4), ([1000], math.inf, 1)],
)
def test_the_slowest_worker_decides(split, slots, rounds):
    assert bench.predict_split(split, slots, 0.5) == rounds * 0.5


@given(st.integers(1, 500), st.integers(1, 8), st.sampled_from([1, 4, 40, math.inf]))
def test_no_split_is_faster_than_the_even_one(requests, workers, slots):
    even = [requests // workers + (worker < requests % workers) for worker in range(workers)]
    assert bench.predict_split(even, slots, 1.0) == bench.predict(requests, workers, slots, 1.0).makespan_s
    assert bench.predict_split([requests], slots, 1.0) >= bench.predict(requests, workers, slots, 1.0).makespan_s


# ---------------------------------------------------------------- the access log and what is read out of it


def log_line(request: int, pid: int, started_s: float, duration_s: float = 1.0) -> bench.LogLine:
    return bench.LogLine("stamp", pid, "GET", "/io", "200", duration_s, str(request), started_s)


@pytest.mark.parametrize(
    ("line", "request_id"),
    [
        ("[2026-11-20 17:04:15.123] [pid-4711] GET /io 200 1.0012s #7 @5123.456789", "7"),
        ("[2026-11-20 17:04:15.123] [pid-1] POST /v1/x?a=%20b - 0.0s #- @1", None),
        ("[2026-11-20 17:04:15.123] [pid-1] GET  404 0.0s # @1.5", None),
        ("[2026-11-20 17:04:15.123] [pid-4711] ready", None),
        ("[2026-11-20 17:04:15.123] [pid-4711] GET /io 200 1.00", None),
    ],
)
def test_a_log_line_is_read_whole_or_not_at_all(line, request_id):
    assert [found.request for found in bench.parse_access_log(line)] == ([] if request_id is None else [request_id])


def test_the_log_is_put_in_the_order_of_starting():
    text = "\n".join(f"[s] [pid-1] GET /io 200 1.0s #{i} @{at}" for i, at in enumerate([3.0, 1.0, 2.0]))
    assert [line.request for line in bench.parse_access_log(text)] == ["1", "2", "0"]


@pytest.mark.parametrize(
    ("lines", "seen"),
    [
        ([], None),
        ([log_line(0, 1, 0.0), log_line(1, 1, 0.999)], 1),  # the end of one and the start of the next overlap a bit
        ([log_line(0, 1, 0.0), log_line(1, 2, 0.0)], 1),
        ([log_line(i, 1, i // 40 * 1.0) for i in range(100)], 40),
    ],
)
def test_slots_seen_is_the_most_that_one_worker_held_at_a_time(lines, seen):
    assert bench.slots_seen(lines) == seen


@pytest.mark.parametrize(
    ("numbers", "text"), [([0, 1, 2, 5], "0-2,5"), ([7], "7"), ([], ""), (range(0, 40, 2), "0,2,4,6,8..")]
)
def test_request_numbers_are_shortened(numbers, text):
    assert bench.ranges(numbers, 11) == text


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
    parser = bench.ResponseParser(is_head_request=method == b"HEAD")
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
    parser = bench.ResponseParser(is_head_request=method == b"HEAD")
    head_is_there = parser.feed(raw[:cut]) if cut else False
    assert not head_is_there
    if closes and parser.state == "close":
        assert parser.eof()
    else:
        with pytest.raises(bench.HTTPError) as error:
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
    parser = bench.ResponseParser()
    try:
        for piece in pieces:
            if parser.feed(piece):
                return
        parser.eof()
    except bench.HTTPError as error:
        assert error.kind in bench.ERRORS


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
        (HEAD + b"X: " + b"a" * bench.MAX_HEAD_BYTES, "too large"),
        (HEAD + b"Content-Length: 9999999999999\r\n\r\n", "too large"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * bench.MAX_HEAD_BYTES * 2, "too large"),
        (HEAD + b"\r\n" + b"x" * (bench.MAX_BODY_BYTES + 1), "too large"),
    ],
)
def test_a_bad_response_has_a_named_error(data, kind):
    parser = bench.ResponseParser()
    with pytest.raises(bench.HTTPError) as error:
        assert not parser.feed(data)
        parser.eof()
    assert error.value.kind == kind


def test_one_parser_reads_one_response_after_another():
    parser = bench.ResponseParser()
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


@contextlib.contextmanager
def stub(*behaviours):
    """A server on a free port that treats connection i with behaviour i (then from the start again)."""

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

    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def burst(address, requests: int, timeout_s: float = 5.0) -> bench.Exchanges:
    messages = itertools.repeat(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    return asyncio.run(bench.Load(address, messages, bench.Pace(requests), timeout_s).run())


def outcomes(exchanges: bench.Exchanges) -> list:
    return [bench.ERRORS[code] or status for status, code in zip(exchanges.status, exchanges.error, strict=True)]


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
    if poller == "EpollPoller" and not hasattr(bench.select, "epoll"):
        pytest.skip("no epoll on this system")
    if poller == "SelectorPoller":
        monkeypatch.delattr(bench.select, "epoll", raising=False)
    with stub(behaviour, lambda sock: answer(sock, OK)) as address:
        exchanges = burst(address, 4, timeout_s=1.0 if outcome == "timed out" else 10.0)
    assert outcomes(exchanges) == [outcome, 200, outcome, 200]


def test_a_refused_connection_is_a_counted_failure_not_a_hang():
    assert outcomes(burst(("127.0.0.1", bench.free_port()), 250)) == ["refused"] * 250


def test_a_server_that_refuses_everything_does_not_outlast_the_time_limit():
    begun_s = time.monotonic()
    measured = load(("127.0.0.1", bench.free_port()), bench.Pace(stages=((0.3, 5),), time_limit_s=0.3))
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
        exchanges = asyncio.run(bench.Load(listener.getsockname(), messages, bench.Pace(300), 10).run())
        server.join()
    assert seen == list(range(300))
    assert outcomes(exchanges) == [200] * 300
    assert list(exchanges.started_s) == sorted(exchanges.started_s)


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def keep_answering(sock: socket.socket) -> None:
    while sock.recv(65536):
        sock.sendall(OK)


def load(address, pace: bench.Pace, keep_alive: bool = False, timeout_s: float = 5.0) -> bench.Measured:
    engine = bench.Load(address, itertools.repeat(GET), pace, timeout_s, keep_alive)
    exchanges = asyncio.run(engine.run())
    return bench.Measured(exchanges, engine.begun_s, engine.cpu_s, engine.sockets_opened)


@pytest.mark.parametrize(
    ("pace", "elapsed_s", "limits"),
    [
        (bench.Pace(16), 0.0, (16, math.inf)),
        (bench.Pace(5000, 500), 99.0, (5000, 500)),
        (bench.Pace(rate=100.0), 0.0, (1, math.inf)),
        (bench.Pace(rate=100.0), 1.005, (101, math.inf)),
        (bench.Pace(7, rate=100.0), 1.0, (7, math.inf)),
        (bench.Pace(stages=((10, 50), (10, 200))), 0.0, (math.inf, 0)),
        (bench.Pace(stages=((10, 50), (10, 200))), 5.0, (math.inf, 25)),
        (bench.Pace(stages=((10, 50), (10, 200))), 15.0, (math.inf, 125)),
        (bench.Pace(stages=((10, 50), (10, 0))), 15.0, (math.inf, 25)),
        (bench.Pace(stages=((10, 50), (10, 0))), 99.0, (math.inf, 0)),
    ],
)
def test_a_pace_says_how_many_may_be_sent_and_under_way(pace, elapsed_s, limits):
    assert pace.limits(elapsed_s) == limits


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize(("requests", "concurrency"), [(1, 1), (103, 10), (7, 50)])
def test_a_closed_loop_sends_exactly_what_was_asked(requests, concurrency, keep_alive):
    with stub(keep_answering) as address:
        measured = load(address, bench.Pace(requests, concurrency), keep_alive)
    assert outcomes(measured.exchanges) == [200] * requests
    assert measured.sockets_opened == (min(requests, concurrency) if keep_alive else requests)


def test_a_server_that_closes_costs_a_socket_for_each_request():
    with stub(lambda sock: answer(sock, HEAD + b"Connection: close\r\nContent-Length: 0\r\n\r\n")) as address:
        measured = load(address, bench.Pace(50, 5), keep_alive=True)
    assert (outcomes(measured.exchanges), measured.sockets_opened) == ([200] * 50, 50)


def test_every_tenth_reset_is_counted_and_the_others_are_answered():
    with stub(*[keep_answering] * 9, reset) as address:
        measured = load(address, bench.Pace(100, 10))
    assert sorted(map(str, outcomes(measured.exchanges))) == ["200"] * 90 + ["reset"] * 10


def test_requests_under_way_at_the_time_limit_are_finished():
    def half_a_second(sock):
        sock.recv(65536)
        time.sleep(0.5)
        sock.sendall(OK)

    with stub(half_a_second) as address:
        measured = load(address, bench.Pace(concurrency=4, time_limit_s=0.95))
    assert outcomes(measured.exchanges) == [200] * 8
    run = bench.summarise(describe_url("-c", "4", "-t", "0.95"), measured)
    assert run["finished_after_limit"] == 4
    assert run["throughput_rps"] == pytest.approx(4 / 0.95)


def test_a_ramp_adds_users_over_time():
    with stub(keep_answering) as address:
        measured = load(address, bench.Pace(stages=((0.3, 4), (0.3, 8), (0.4, 8)), time_limit_s=1.0), keep_alive=True)
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
        measured = load(address, bench.Pace(150, rate=100.0), keep_alive=True)
    opened = bench.summarise(describe_url("--rate", "100", "-n", "150"), measured)
    with stub(frozen(0.6)) as address:
        measured = load(address, bench.Pace(2000, 1), keep_alive=True)
    closed = bench.summarise(describe_url("-c", "1", "-n", "2000"), measured)
    assert (opened["answered"], closed["answered"]) == (150, 2000)
    assert opened["latency_s"]["p90"] > 0.3 > closed["latency_s"]["p99"]
    assert opened["latency_s"]["max"] > 0.5 and closed["latency_s"]["max"] > 0.5


def test_requests_may_vary_from_one_to_the_next():
    with stub(keep_answering) as address:
        heads = itertools.cycle([GET, b"POST /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"])
        exchanges = asyncio.run(bench.Load(address, heads, bench.Pace(20, 2), 5, True).run())
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
        exchanges = asyncio.run(bench.Load(address, itertools.repeat(message), bench.Pace(3), 20).run())
    assert outcomes(exchanges) == [200] * 3


def test_two_thousand_connections_at_once_are_all_answered():
    with stub(keep_answering) as address:
        assert outcomes(burst(address, 2000, timeout_s=30)) == [200] * 2000


def test_a_kept_request_takes_less_than_a_hundred_bytes():
    exchanges = bench.Exchanges()
    exchanges.grow()
    assert sum(column.itemsize for column in vars(exchanges).values()) < 100
    assert {len(column) for column in vars(exchanges).values()} == {bench.Exchanges.BLOCK}


# ---------------------------------------------------------------- statistics and audit


def describe_url(*arguments: str) -> dict:
    (plan,) = bench.make_plans(bench.parse_arguments(["--url", "http://127.0.0.1/", *arguments]))
    return bench.describe(plan)


@pytest.mark.parametrize(
    ("n", "per_cent", "value"),
    [(100, 99, 99), (99, 99, None), (10, 90, 9), (9, 90, None), (20, 95, 19), (1000, 99, 990), (1000, 99.9, 999)],
)
def test_a_percentile_is_a_measured_value_or_nothing(n, per_cent, value):
    assert bench.nearest_rank(range(1, n + 1), per_cent) == value


@given(st.lists(st.floats(0.0001, 100), min_size=1, max_size=300))
def test_statistics_are_those_of_the_sample(values):
    found = bench.statistics_of(list(values))
    assert (found["min"], found["max"]) == (round(min(values), 6), round(max(values), 6))
    assert found["median"] == pytest.approx(statistics.median(values), abs=1e-6)
    assert found["mean"] == pytest.approx(statistics.fmean(values), abs=1e-6)
    if len(values) > 1:
        assert found["sd"] == pytest.approx(statistics.stdev(values), abs=2e-6)
    assert sum(count for _, count in bench.histogram(values)) == len(values)


def test_failures_are_in_no_percentile_and_in_every_count():
    with stub(keep_answering, lambda sock: answer(sock, b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")) as address:
        run = bench.summarise(describe_url("-n", "40", "-c", "4"), load(address, bench.Pace(40, 4)))
    assert (run["sent"], run["answered"], run["failed"], run["errors"]) == (40, 20, 20, {"HTTP 500": 20})
    assert sum(count for _, count in run["histogram"]) == 20
    assert sum(row["answered"] for row in run["per_second"]) == 20
    assert sum(row["failed"] for row in run["per_second"]) == 20
    assert run["throughput_rps"] == pytest.approx(20 / run["measured_s"], rel=0.01)


def plain_run(**changes) -> dict:
    """A run that nothing is wrong with, but for the changes."""
    run = describe_url("-n", "1000", "-c", "10") | {
        "sent": 1000, "answered": 1000, "failed": 0, "errors": {}, "log_lines": 1000, "measured_s": 10.0,
        "split_predicted_s": None, "throughput_rps": 100.0, "kernel": {}, "slow_connects": 0, "client_cpu_s": 1.0,
        "lag_s": None, "late_bodies": 0, "sockets_opened": 1000,
        "mean_in_flight": 9.9, "requests_of_workers": {"worker0": 1000},
    }  # fmt: skip
    return run | changes


@pytest.mark.parametrize(
    ("changes", "identifiers"),
    [
        ({}, []),
        ({"failed": 3, "answered": 997, "errors": {"reset": 3}}, ["failed-requests"]),
        ({"log_lines": 998}, ["log-lines"]),
        ({"log_lines": None}, []),
        ({"predicted_s": 10.0}, []),
        ({"predicted_s": 5.0}, ["unexplained"]),
        ({"predicted_s": 5.0, "split_predicted_s": 10.0}, ["uneven-split"]),
        ({"predicted_s": 5.0, "split_predicted_s": 7.0}, ["unexplained"]),
        ({"ceiling_rps": 80.0}, ["above-ceiling"]),
        ({"ceiling_rps": 100.0}, []),
        ({"kernel": {"ListenOverflows": 5, "TCPSynRetrans": 2}}, ["backlog-overflow"]),
        ({"kernel": {"ListenOverflows": 0, "TCPSynRetrans": 2}}, []),
        ({"slow_connects": 2}, ["backlog-overflow"]),
        ({"client_cpu_s": 9.0}, ["client-limit"]),
        ({"lag_s": {"p99": 0.002, "max": 0.4}}, []),
        ({"lag_s": {"p99": 0.02, "max": 0.4}}, ["late-sends"]),
        ({"keep_alive": True}, ["no-keep-alive"]),
        ({"keep_alive": True, "sockets_opened": 10}, []),
        ({"mean_in_flight": 5.0}, ["little"]),
        ({"late_bodies": 50}, []),
        ({"late_bodies": 150}, ["delayed-ack"]),
    ],
)
def test_the_audit_names_what_is_wrong(changes, identifiers):
    warnings = bench.audit(plain_run(**changes))
    assert [warning["id"] for warning in warnings] == identifiers
    assert all(warning["symptom"] and warning["cause"] and warning["next"] for warning in warnings)


@pytest.mark.parametrize(
    ("batches", "size"),
    [
        ([(40, 0.37), (40, 0.67), (20, 0.97)], 40),
        ([(1, 1.0), (1, 2.0), (1, 3.01)], 1),
        ([(4, 1.0), (4, 1.2)], None),
        ([(4, 1.0), (9, 2.0)], None),
        ([(3, 1.0), (4, 2.0), (4, 3.0)], None),
    ],
)
def test_slots_are_read_from_regular_batches_only(batches, size):
    found = [bench.Batch(list(range(count)), math.nan, answered_s, math.nan) for count, answered_s in batches]
    assert bench.size_of_rounds(found) == size


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
    (plan,) = bench.make_plans(bench.parse_arguments(["--url", "http://127.0.0.1", *arguments]))
    assert next(bench.messages_for(plan, 80, numbered=False)) == b"\r\n".join(lines)
    numbered = list(itertools.islice(bench.messages_for(plan, 80, numbered=True), 3))
    assert [re.search(rb"X-Request-Id: (\d)", message)[1] for message in numbered] == [b"0", b"1", b"2"]


# ---------------------------------------------------------------- any server


def test_a_body_that_waits_for_a_delayed_ack_is_noticed():
    def head_then_body(sock):
        sock.recv(65536)
        sock.sendall(OK[:-2])
        time.sleep(0.045)
        sock.sendall(OK[-2:])

    with stub(head_then_body) as address:
        run = bench.summarise(describe_url("-n", "20", "-c", "1"), load(address, bench.Pace(20, 1)))
    assert "delayed-ack" in {warning["id"] for warning in run["warnings"]}


def test_a_url_is_measured_and_its_failures_set_the_exit_code(tmp_path, capsys):
    with stub(keep_answering) as (host, port):
        code, document = run_bench(tmp_path, "--url", f"http://{host}:{port}/x?y=1", "-n", "200", "-c", "10", "-k")
    run = document["runs"][0]
    assert (code, run["answered"], run["sockets_opened"], run["path"]) == (0, 200, 10, "/x?y=1")
    assert run["predicted_s"] is None and run["slots_known"] is False
    assert {"latency_s", "throughput_rps", "client_cpu_s", "per_second"} <= set(run)
    out = capsys.readouterr().out
    assert "closed loop" in out and "p99" in out
    with stub(keep_answering, reset) as (host, port):
        code, document = run_bench(tmp_path, "--url", f"http://{host}:{port}", "-n", "10", "-c", "1")
    assert (code, document["runs"][0]["errors"]) == (1, {"reset": 5})


OWN_APP = """
import time
def app(environ, start_response):
    time.sleep(0.2)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def test_bench_dropped_alone_beside_an_app_measures_it_and_says_what_it_cannot_show(tmp_path):
    (tmp_path / "bench.py").write_bytes((HERE / "bench.py").read_bytes())
    (tmp_path / "main.py").write_text(OWN_APP)
    arguments = ["--app", "main:app", "--server", "waitress", "-n", "12", "--json", "out.json"]
    done = subprocess.run([sys.executable, "bench.py", *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "access log  none" in done.stdout
    assert "they came four at a time: waitress" in " ".join(done.stdout.split())
    run = json.loads((tmp_path / "out.json").read_text())["runs"][0]
    assert [len(batch.requests) for batch in bench.batches(run)] == [4, 4, 4]


def test_a_load_on_a_target_is_compared_with_its_ceiling(tmp_path, capsys):
    arguments = ["--path", "/io", "-c", "8", "-n", "24", "--warmup", "8", *QUICK]
    code, document = run_bench(tmp_path, "--target", "flask-gunicorn", *arguments)
    run = document["runs"][0]
    assert (code, run["answered"], run["log_lines"]) == (0, 24, 24)  # the warm-up is in no count
    assert run["ceiling_rps"] == pytest.approx(20.0)
    assert run["predicted_s"] == pytest.approx(1.2)
    assert run["throughput_rps"] < 21
    assert "at most S / t = 4 / 0.2 s = 20 requests/s" in " ".join(capsys.readouterr().out.split())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="pinning is Linux only")
def test_the_server_can_be_pinned(tmp_path):
    arguments = ["--path", "/io", "-n", "4", "--server-cpus", "0", *QUICK]
    code, _ = run_bench(tmp_path, "--target", "flask-gunicorn", *arguments)
    assert code == 0


# ---------------------------------------------------------------- every target on its real server

PATHS = [(name, route.path) for name, target in bench.TARGETS.items() for route in target.routes]


@pytest.mark.parametrize(("target", "path"), PATHS)
def test_every_target_answers_all_and_logs_each_request_once(tmp_path, capsys, target, path):
    code, document = run_bench(tmp_path, "--target", target, "--path", path, "-n", "13", *QUICK)
    (run,) = document["runs"]
    columns = run["exchanges"]
    assert (code, run["answered"], run["failed"], run["errors"]) == (0, 13, 0, {})
    assert {len(column) for column in columns.values()} == {13}
    lines = bench.parse_access_log(Path(run["access_log"]).read_text())
    assert sorted(int(line.request) for line in lines) == list(range(13))
    assert sum(run["requests_of_workers"].values()) == 13
    assert len(run["requests_of_workers"]) == run["workers"]
    if run["slots_per_worker"] is not None:
        assert run["slots_seen"] <= run["slots_per_worker"]
    for i in range(13):  # a handler cannot start before its request is begun, nor end after the answer
        assert columns["started_s"][i] - 0.001 <= columns["handler_started_s"][i]
        assert columns["handler_started_s"][i] + (run["wait_s"] or 0.0) * 0.99 <= columns["answered_s"][i]
    assert run["measured_s"] >= (run["split_predicted_s"] or 0.0) * 0.99
    output = capsys.readouterr().out
    assert max(len(line) for line in output.splitlines() if str(tmp_path) not in line) <= 79
    assert "\033" not in output


def test_flask_gunicorn_answers_four_at_a_time(tmp_path, capsys):
    _, document = run_bench(tmp_path, "--target", "flask-gunicorn", *QUICK)
    io, async_io, multi = document["runs"]
    for run in (io, async_io, multi):
        assert run["requests_of_workers"] == {f"worker{i}": 4 for i in range(4)}
        assert [batch.requests for batch in bench.batches(run)] == [
            [0, 1, 2, 3],
            [4, 5, 6, 7],
            [8, 9, 10, 11],
            [12, 13, 14, 15],
        ]
    assert 0.7 < async_io["measured_s"] / io["measured_s"] < 1.4
    assert 0.4 < multi["measured_s"] / io["measured_s"] < 0.75


@pytest.mark.parametrize(
    ("target", "path", "requests", "sizes"),
    [
        ("fastapi-uvicorn", "/io", 100, [40, 40, 20]),
        ("fastapi-uvicorn", "/async-io", 200, [200]),
        ("flask-gunicorn-gevent", "/io", 100, [100]),
        ("flask-waitress", "/io", 16, [4, 4, 4, 4]),
    ],
)
def test_the_batches_have_the_size_of_the_slots(tmp_path, target, path, requests, sizes):
    arguments = ["--target", target, "--path", path, "-n", str(requests), "--task-time", "1"]
    _, document = run_bench(tmp_path, *arguments)
    assert [len(batch.requests) for batch in bench.batches(document["runs"][0])] == sizes


def test_a_blocked_loop_serves_one_at_a_time_and_its_fix_all_at_once(tmp_path, capsys):
    arguments = ["--target", "fastapi-blocking", "--target", "fastapi-fixed", "-n", "6", *QUICK]
    _, document = run_bench(tmp_path, *arguments)
    blocking, fixed = document["runs"]
    assert (blocking["slots_seen"], fixed["slots_seen"]) == (1, 6)
    assert blocking["measured_s"] / fixed["measured_s"] > 3
    comparison = capsys.readouterr().out.rpartition("target ")[2]
    assert "fastapi-blocking" in comparison and "fastapi-fixed" in comparison


def test_workers_threads_and_subtasks_change_the_server(tmp_path):
    arguments = ["--workers", "2", "--threads", "3", "--path", "/io", "-n", "6", *QUICK]
    _, document = run_bench(tmp_path, "--target", "flask-gunicorn-threads", *arguments)
    assert document["runs"][0]["slots"] == 6
    arguments = ["--workers", "1", "--subtasks", "4", "--path", "/async-io-multi", "-n", "2", *QUICK]
    _, document = run_bench(tmp_path, "--target", "flask-gunicorn", *arguments)
    assert document["runs"][0]["predicted_s"] == pytest.approx(0.1)


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "nginx"], "unknown target 'nginx'"),
        (["--target", "flask-gunicorn", "--path", "/nope"], "no path '/nope'; it has: /io,"),
        (["--target", "flask-gunicorn", "-n", "0"], "-n/--requests: '0' is not a whole number from 1"),
        (["--target", "flask-gunicorn", "-n", "ten"], "'ten' is not a whole number"),
        (["--target", "flask-gunicorn", "--task-time", "nan"], "'nan' is not a number from"),
        (["--target", "flask-gunicorn", "--workers", "-1"], "'-1' is not a whole number"),
        (["--target", "flask-dev", "--workers", "2"], "has no --workers"),
        (["--target", "flask-gunicorn", "--threads", "2"], "has no --threads"),
        (["--unknown"], "unrecognized arguments: --unknown"),
        (["--target", "flask-dev", "-n", "9999999"], "ulimit -Hn"),
        (["--url", "https://127.0.0.1/"], "https:// is not supported"),
        (["--url", "ftp://127.0.0.1/"], "is not of the form http://host:port/path"),
        (["--url", "http://a:b@127.0.0.1/"], "is not of the form http://host:port/path"),
        (["--url", "http://127.0.0.1:99999/"], "Port out of range"),
        (["--url", "http://127.0.0.1/a b"], "is not a URL without white space"),
        (["--url", "http://127.0.0.1/\r\nX: y"], "is not a URL without white space"),
        (["--url", "http://127.0.0.1/\xe9"], "percent-encoded"),
        (["--url", "http://no.such.host.invalid/"], "cannot resolve"),
        (["--url", "http://127.0.0.1/", "-H", "X: a\r\nY: b"], "is not one header line"),
        (["--url", "http://127.0.0.1/", "-H", "X y: a"], "is not one header line"),
        (["--url", "http://127.0.0.1/", "-H", "Content-Length: 4"], "bench.py sets this one itself"),
        (["--url", "http://127.0.0.1/", "-m", "GET /x"], "is not an HTTP method"),
        (["--url", "http://127.0.0.1/", "-c", "1", "--rate", "1"], "exclude each other"),
        (["--url", "http://127.0.0.1/", "--target", "flask-dev"], "exclude each other"),
        (["--url", "http://127.0.0.1/", "-t", "5"], "-t needs -n, -c, --rate or --ramp"),
        (["--url", "http://127.0.0.1/", "--ramp", "5:3"], "is not stages like"),
        (["--url", "http://127.0.0.1/", "--ramp", "0s:3"], "must take some time"),
        (["--url", "http://127.0.0.1/", "-p", "/nonexistent"], "cannot read /nonexistent"),
        (["--url", "http://127.0.0.1/", "--client-cpus", "x"], "is not CPU numbers"),
        (["--app", "main:app"], "--app needs --server"),
        (["--app", "main", "--server", "uvicorn"], "is not module:attribute"),
        (["--target", "flask-dev", "--server", "uvicorn"], "--server goes with --app"),
        (["--target", "flask-dev", "--path", "/a b"], "is not a path"),
        (["--target", "flask-dev", "--json", "/nonexistent/x.json"], "/nonexistent/x.json"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(capsys, arguments, message):
    assert bench.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err and len(err.splitlines()) == 1


def test_a_missing_package_is_named_with_the_pip_command(capsys, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gevent" else find_spec(name))
    assert bench.main(["--target", "flask-gunicorn-gevent"]) == 2
    err = capsys.readouterr().err
    assert "gevent" in err and "-m pip install -r requirements-all.txt" in err


def test_a_server_that_cannot_start_shows_the_end_of_its_log(tmp_path, capsys, monkeypatch):
    (tmp_path / "access_log.py").write_bytes((bench.APPS / "access_log.py").read_bytes())
    monkeypatch.setattr(bench, "APPS", tmp_path)  # no app there
    code = bench.main(["--target", "flask-gunicorn", "--path", "/io", "--logs", str(tmp_path)])
    err = capsys.readouterr().err
    assert code == 3
    assert "ModuleNotFoundError" in err and "exit code" in err
    assert list(tmp_path.glob("*.server.log"))


def test_no_arguments_print_the_manual_and_the_targets(capsys):
    assert bench.main([]) == 0
    out = capsys.readouterr().out
    assert "S slots" in out and "flask-gunicorn" in out
    assert bench.main(["--list"]) == 0
    assert "gunicorn --bind 127.0.0.1:PORT --workers 4" in capsys.readouterr().out


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody has reaped yet does not."""
    stat = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(stat) and not stat.startswith("Z")


def wait_until(condition, timeout_s: float = 10.0):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout_s} s")


@contextlib.contextmanager
def bench_process(tmp_path, *arguments):
    """bench.py as a process of its own, and the pids of the four ready workers of its flask-gunicorn."""
    command = [
        sys.executable,
        str(HERE / "bench.py"),
        "--target",
        "flask-gunicorn",
        "--path",
        "/io",
        "--logs",
        tmp_path,
    ]
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def four_ready():
        pids = [pid for log in tmp_path.glob("*.access.log") for pid in bench.ready_workers(log.read_text())]
        return pids if len(pids) == 4 else None

    try:
        yield process, wait_until(four_ready)
    finally:
        process.kill()
        process.wait()


def test_a_killed_worker_fails_its_requests_and_no_others(tmp_path):
    document = tmp_path / "out.json"
    with bench_process(tmp_path, "--task-time", "1", "--json", str(document)) as (process, workers):
        time.sleep(0.6)
        os.kill(workers[0], signal.SIGKILL)
        process.communicate(timeout=30)
    run = json.loads(document.read_text())["runs"][0]
    assert process.returncode == 1
    assert run["failed"] >= 1 and run["answered"] + run["failed"] == 16
    assert run["answered"] >= 12 and set(run["errors"]) <= {"reset", "closed"}
    assert run["log_lines"] == run["answered"]
    assert {"failed-requests", "log-lines"} <= {warning["id"] for warning in run["warnings"]}


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGKILL", -9)])
def test_however_bench_ends_no_server_is_left(tmp_path, name, code):
    with bench_process(tmp_path, "--task-time", "20") as (process, workers):
        time.sleep(0.3)
        process.send_signal(getattr(signal, name))
        _, err = process.communicate(timeout=10)
    assert process.returncode == code
    assert "Traceback" not in err
    wait_until(lambda: not any(map(alive, workers)), 5.0)
    assert list(tmp_path.glob("*.access.log"))


# ---------------------------------------------------------------- the Books API: starting, asking, stopping

BOOKS_SERVERS = {
    "flask": "gunicorn -k gthread --threads 4 --log-level warning -b 127.0.0.1:{} flask_books:app",
    "fastapi": "uvicorn --port {} --log-level warning fastapi_books:app",
}
Answer = tuple[int, str, bytes]


def new_database(url: str | None = None) -> bench.Database:
    return bench.Database(url, Path(os.devnull), set())


class App:
    """One of the two apps, on a database of its own."""

    def __init__(self, name: str):
        self.database = new_database()
        self.asked = 0
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        command = [sys.executable, "-m", *BOOKS_SERVERS[name].format(self.port).split()]
        environment = os.environ | {"DATABASE_URL": self.database.about["database_url"], "POOL_SIZE": "4"}
        self.server = subprocess.Popen(command, cwd=HERE / "apps", env=environment)
        wait_until(self.is_up)

    def is_up(self) -> bool:
        try:
            return self.ask("GET", "/health")[0] == 200
        except OSError:
            return False

    def ask(self, method: str, target: str, body: bytes = b"", chunked: bool = False) -> Answer:
        """Send one request on a new connection; return the answer's status, type and body."""
        head = f"{method} {target} HTTP/1.1\r\nHost: books\r\nConnection: close\r\n"
        if chunked:
            head += "Transfer-Encoding: chunked\r\n\r\n"
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        else:
            head += f"Content-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            with contextlib.suppress(ConnectionError):  # it answers before it has read all of a huge body
                connection.sendall(head.encode() + body)
            response = http.client.HTTPResponse(connection, method=method)
            response.begin()
            self.asked += 1
            return response.status, response.headers["Content-Type"], response.read()

    def stop(self):
        self.server.terminate()
        self.server.wait(10)
        self.database.stop()


@pytest.fixture(scope="module")
def apps():
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(App, BOOKS_SERVERS))
        yield both
        list(pool.map(App.stop, both))


def ask_both(apps, *request: Any) -> tuple[int, Any]:
    """Both apps' answer: equal in every byte, except for the times that now() wrote."""
    answers = []
    for app in apps:
        status, kind, body = app.ask(*request)
        answers.append((status, kind, re.sub(rb'(_at":")20(?!26-01-0)[^"]+', rb"\1now", body)))
    assert answers[0] == answers[1]
    assert status < 500 and kind == "application/json"
    return status, json.loads(body or b"null")


# ---------------------------------------------------------------- the Books API: the contract

BOOK = {"title": "Momo", "author": "Ende", "year": 1973, "isbn": "new-1"}


def book(**changes: Any) -> bytes:
    return json.dumps(BOOK | changes).encode()


CASES = [
    (200, "GET", "/health"),
    (200, "GET", "/v1/books/1"),
    (200, "HEAD", "/v1/books/1"),
    (404, "GET", "/v1/books/0"),
    (404, "GET", "/v1/books/2147483647"),
    (200, "GET", "/v1/books"),
    (200, "GET", "/v1/books?limit=100&offset=9990"),
    (200, "GET", "/v1/sleep?ms=5"),
    (201, "POST", "/v1/books", book()),
    (409, "POST", "/v1/books", book()),
    (201, "POST", "/v1/books", book(isbn="new-2", status="lent"), True),  # True: chunked
    (201, "POST", "/v1/books", book(isbn="x" * 32, title="\U0001f4d6" * 255, year=-(2**31))),
    (200, "PATCH", "/v1/books/10001", b'{"year":1974}'),
    (200, "PATCH", "/v1/books/10001", b'{"title":"a","author":"b","isbn":"c","status":"d"}'),
    (409, "PATCH", "/v1/books/1", b'{"isbn":"new-2"}'),
    (404, "PATCH", "/v1/books/2147483647", b'{"year":1}'),
    # not here, or not this way; nothing redirects
    *((404, "GET", path) for path in ("/", "/docs", "/openapi.json", "/v1/books/", "/v1/books/1/")),
    (404, "GET", "/v1/books/1%2F"),
    (404, "POST", "/v1/books/"),
    *((405, method, "/v1/books") for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")),
    *((405, method, "/v1/books/1") for method in ("POST", "PUT", "DELETE", "OPTIONS")),
    # numbers that are none, or out of range, or given twice
    *(
        (422, "GET", f"/v1/books/{key}")
        for key in ("2147483648", "+1", "-1", "%201", "1%0A", "1_0", "0x1", "1.0", "%EF%BC%91", "%00")
    ),
    *((422, "GET", f"/v1/books/{key}") for key in ("1;DROP%20TABLE%20books", "%FF%FE", "9" * 3000)),
    *((422, "GET", f"/v1/books?limit={n}") for n in ("", "-1", "101", "1&limit=2", "NaN", "%zz")),
    *((422, "GET", f"/v1/sleep?ms={n}") for n in ("", "-1", "60001", "5&ms=5", "5.0", "+5", "1e3")),
    (422, "PATCH", "/v1/books/x", b'{"year":1}'),
    # bodies
    *((422, "POST", "/v1/books", b) for b in (b"", b"{", b"[]", b"{}", b"null", b"1", b"\xff", b"NaN")),
    *((422, "POST", "/v1/books", deep * 9000) for deep in (b"[", b'{"a":')),
    (422, "POST", "/v1/books", json.dumps(BOOK).encode("utf-16")),
    *((422, "POST", "/v1/books", book(title=value)) for value in (None, 1, [1], {"a": 1}, True, "x" * 256)),
    *((422, "POST", "/v1/books", book(isbn=text)) for text in ("x" * 33, "\0", "a\0b", "\ud800")),
    *((422, "POST", "/v1/books", book(year=year)) for year in (True, None, "1", 1.0, 2**31, 10**999)),
    *((422, "POST", "/v1/books", book(year=float(year))) for year in ("nan", "inf", "-inf")),
    (422, "POST", "/v1/books", b'{"year":' + b"9" * 5000 + b"}"),
    (422, "POST", "/v1/books", book(unknown="x")),
    *((422, "PATCH", "/v1/books/1", body) for body in (b"{}", b'{"id":2}', b'{"year":null}', b"[]")),
    *((422, "POST", "/v1/books", b" " * 65536, chunked) for chunked in (False, True)),
    *((413, "POST", "/v1/books", b" " * 65537, chunked) for chunked in (False, True)),
    *((413, "PATCH", "/v1/books/1", b" " * 5_000_000, chunked) for chunked in (False, True)),
]


def test_both_apps_answer_every_case_alike(apps):
    got = [(ask_both(apps, *request)[0], *request) for _, *request in CASES]
    assert got == CASES


def test_a_book_is_what_the_sql_file_says_and_a_new_one_gets_the_next_id(apps):
    status, first = ask_both(apps, "GET", "/v1/books/1")
    assert (status, first["isbn"]) == (200, "seed-00000001")
    assert [app.database.ask("reset") for app in apps] == [{"ok": True}] * 2
    status, new = ask_both(apps, "POST", "/v1/books", book())
    now = new["created_at"]
    assert new == BOOK | {"id": bench.SEEDED_BOOKS + 1, "status": "active", "created_at": now, "updated_at": now}
    status, changed = ask_both(apps, "PATCH", f"/v1/books/{new['id']}", b'{"year":1}')
    assert changed == new | {"year": 1, "updated_at": changed["updated_at"]}
    assert changed["updated_at"] > now


# ---------------------------------------------------------------- the Books API: bad input

INJECTIONS = st.sampled_from(
    ["1 OR 1=1", "1; DROP TABLE books", "'; DROP TABLE books; --", "%(id)s", "$1", "{}", "%s%n", "\\"]
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=300), INJECTIONS)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
NEARLY_BOOKS = st.fixed_dictionaries(
    {},
    optional={
        "title": st.text(min_size=1, max_size=255) | JSON,
        "author": INJECTIONS | JSON,
        "year": st.integers(-(2**31), 2**31) | JSON,
        "isbn": st.text(st.characters(exclude_categories=[]), max_size=33) | JSON,
        "status": INJECTIONS | JSON,
        "id": JSON,
    },
)
BODIES = st.one_of(
    NEARLY_BOOKS.map(lambda value: json.dumps(value).encode()),
    st.builds(lambda isbn, changes: book(**({"isbn": isbn} | changes)), st.text(), NEARLY_BOOKS),
    JSON.map(lambda value: json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")),
    st.binary(max_size=100),
)
TARGETS = st.builds(
    lambda target, junk: target.format(quote(junk)),
    # ms is given twice, so that no junk makes a server sleep
    st.sampled_from(["/{}", "/v1/books/{}", "/v1/books?limit={}", "/v1/books?{}", "/v1/sleep?ms=1&ms={}"]),
    st.binary(max_size=30) | INJECTIONS | st.integers().map(str),
)
few = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


@few
@given(target=TARGETS, method=st.sampled_from(["GET", "HEAD", "POST", "PATCH"]))
def test_no_target_makes_a_500(apps, target: str, method: str):
    assert ask_both(apps, method, target)[0] in (200, 404, 405, 422)


def test_no_body_makes_a_500_and_only_a_201_makes_a_row(apps):
    [app.database.ask("reset") for app in apps]
    statuses = []

    @few
    @example(body=book(), where="/v1/books", chunked=False)
    @given(body=BODIES, where=st.sampled_from(["/v1/books", "/v1/books/7"]), chunked=st.booleans())
    def check(body: bytes, where: str, chunked: bool):
        method = "POST" if where == "/v1/books" else "PATCH"
        statuses.append(ask_both(apps, method, where, body, chunked)[0])
        assert statuses[-1] in ((201, 409, 422) if method == "POST" else (200, 409, 422))

    check()
    assert 201 in statuses
    for app in apps:
        assert app.database.ask("stats")["rows"] == bench.SEEDED_BOOKS + statuses.count(201)


# ---------------------------------------------------------------- the Books API: the database goes and comes


@pytest.mark.parametrize("which", [0, 1], ids=list(BOOKS_SERVERS))
def test_a_killed_postgres_is_a_503_and_is_found_again(apps, which: int):
    app = apps[which]

    def sleepers(number: int) -> set[int]:
        with ThreadPoolExecutor(number) as pool:
            return set(pool.map(lambda _: app.ask("GET", "/v1/sleep?ms=300")[0], range(number)))

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(sleepers, 12)
        time.sleep(0.15)
        assert app.database.ask("kill") == {"ok": True}
        assert running.result(5) == {503}  # those that ran and those that queued
    began = time.monotonic()
    assert app.ask("GET", "/v1/books/1") == (503, "application/json", b'{"error":503}')
    assert time.monotonic() - began < 0.5  # nobody waits again for what is known to be away
    assert app.database.ask("start") == {"ok": True}
    wait_until(lambda: app.ask("GET", "/v1/books/1")[0] == 200, 2)
    assert sleepers(12) == {200}


@pytest.mark.parametrize("name", BOOKS_SERVERS)
def test_postgres_counts_one_statement_a_request(name: str):
    app = App(name)
    for n in range(10):
        assert app.ask("GET", f"/v1/books/{n}")[0] == (200 if n else 404)
        assert app.ask("POST", "/v1/books", book(isbn=f"{n // 2}"))[0] == (409 if n % 2 else 201)
    app.server.terminate()
    app.server.wait(10)
    stats = app.database.ask("stats")
    app.stop()
    exact = {"statements": app.asked, "rolled_back": 5, "updated": 0, "connections": 0}
    assert stats == exact | {"rows": bench.SEEDED_BOOKS + 5}


ENDINGS: dict[str, Callable[[bench.Database], object]] = {
    "end of input": lambda database: database.stdin.close(),
    "SIGTERM": lambda database: database.process.terminate(),
    "SIGINT to the group": lambda database: os.killpg(database.process.pid, signal.SIGINT),
    "SIGTERM to the group": lambda database: os.killpg(database.process.pid, signal.SIGTERM),
    "SIGKILL": lambda database: database.process.kill(),
    "SIGKILL to the group": lambda database: os.killpg(database.process.pid, signal.SIGKILL),
}


def leaves_nothing(ending: Callable[[bench.Database], object]) -> bool:
    database = new_database()
    # a client that stays connected must not hold it up
    with psycopg.connect(database.about["database_url"], autocommit=True) as connection:
        data = Path(connection.execute("SHOW data_directory").fetchall()[0][0])
        segment = (data / "postmaster.pid").read_text().splitlines()[6].split()[1]
        ending(database)
        wait_until(lambda: not data.parent.exists(), 4)
    database.process.wait(5)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(database.about["database_url"])
    segments = Path("/proc/sysvipc/shm")  # on Linux; elsewhere only a tool could tell
    return not segments.exists() or segment not in segments.read_text().split()


def test_no_process_folder_or_shared_memory_stays_however_it_ends():
    with ThreadPoolExecutor() as pool:
        clean = dict(zip(ENDINGS, pool.map(leaves_nothing, ENDINGS.values()), strict=True))
    assert clean == dict.fromkeys(ENDINGS, True)


def test_what_cannot_start_says_so_in_one_line():
    for arguments, hint in (
        (["-S", "postgres.py"], "pip install -r requirements-all.txt"),
        (["postgres.py", "postgresql://nobody@127.0.0.1:1/x"], "DATABASE_URL"),
        (["postgres.py", "nonsense"], "DATABASE_URL"),
    ):
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=HERE / "apps", capture_output=True, text=True, timeout=10)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert hint in done.stderr


def test_a_given_server_is_used_but_not_a_table_that_is_not_ours():
    ours = new_database()
    given_it = new_database(ours.about["database_url"])
    assert (given_it.about["database_url"], given_it.ask("stats")["rows"]) == (
        ours.about["database_url"],
        bench.SEEDED_BOOKS,
    )
    assert "error" in given_it.ask("kill")
    with psycopg.connect(ours.about["database_url"]) as connection:
        connection.execute("COMMENT ON TABLE books IS 'ten years of work'")
    assert "not ours" in given_it.ask("reset")["error"]
    for database in (given_it, ours):
        database.stdin.close()
        assert database.process.wait(5) == 0


def test_the_books_targets_run_with_no_database_installed(tmp_path, capsys):
    arguments = ["--target", "flask-books", "--target", "fastapi-books", "--path", "/v1/sleep?ms=100", "-k"]
    code, document = run_bench(tmp_path, *arguments, "-c", "100", "-n", "300", "--warmup", "50")
    flask, fastapi = document["runs"]
    assert code == 0
    assert (flask["slots"], fastapi["slots"]) == (16, 60)
    for run in document["runs"]:
        assert (run["answered"], run["failed"], run["database"]["rows"]) == (300, 0, bench.SEEDED_BOOKS)
        assert run["database"]["statements"] == 350  # the warm-up's too
        assert run["throughput_rps"] < run["ceiling_rps"] * 1.05
        assert not {"rows", "statements"} & {warning["id"] for warning in run["warnings"]}
    assert fastapi["throughput_rps"] > 1.5 * flask["throughput_rps"]
    assert "350 SQL statements" in capsys.readouterr().out


@pytest.mark.parametrize("target", ["flask-books", "fastapi-books"])
def test_a_mixed_workload_loses_no_row(tmp_path, target):
    code, document = run_bench(tmp_path, "--target", target, "--workload", "mixed", "--scale", "0.02")
    (run,) = document["runs"]
    assert (code, run["failed"], run["mode"]) == (0, 0, "ramp")
    statuses = run["exchanges"]["status"]
    assert run["database"]["rows"] == bench.SEEDED_BOOKS + statuses.count(201) > bench.SEEDED_BOOKS
    assert 0.15 < statuses.count(201) / len(statuses) < 0.35
    assert run["database"]["statements"] == len(statuses)
    assert [level["users"] for level in run["levels"]] == [100, 300, 500, 500]
    assert sum(level["answered"] for level in run["levels"]) == run["answered"]


def test_a_postgres_that_dies_in_a_run_is_counted_and_the_app_recovers(tmp_path):
    database = new_database()
    arguments = ["--target", "fastapi-books", "--workers", "1", "--database-url", database.about["database_url"]]
    arguments += ["--path", "/v1/sleep?ms=20", "-c", "10", "-t", "4", "-k"]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_bench, tmp_path, *arguments)
        wait_until(lambda: any("/v1/sleep" in log.read_text() for log in tmp_path.glob("*.access.log")))
        time.sleep(0.5)
        assert database.ask("kill") == {"ok": True}
        time.sleep(0.5)
        assert database.ask("start") == {"ok": True}
        code, document = running.result(60)
    database.stop()
    (run,) = document["runs"]
    assert code == 1
    assert set(run["errors"]) == {"HTTP 503"}
    columns = run["exchanges"]
    last_failure_s = max(
        at for at, status in zip(columns["answered_s"], columns["status"], strict=True) if status == 503
    )
    assert sum(at > last_failure_s for at in columns["answered_s"]) > 10


def test_too_many_connections_are_refused_before_the_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PG_MAX_CONNECTIONS", "30")
    assert bench.main(["--target", "fastapi-books", "--path", "/v1/books/1", "--logs", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "4 workers x 15 connections" in err and "max_connections 30" in err and len(err.splitlines()) == 1


def test_a_killed_bench_leaves_no_postgres(tmp_path):
    command = [sys.executable, str(HERE / "bench.py"), "--target", "flask-books", "--logs", str(tmp_path)]
    process = subprocess.Popen([*command, "--path", "/v1/sleep?ms=60000"], stdout=subprocess.DEVNULL)
    before = set(Path(tempfile.gettempdir()).glob("books-postgres-*"))
    wait_until(lambda: any("ready" in log.read_text() for log in tmp_path.glob("*.access.log")))
    (folder,) = set(Path(tempfile.gettempdir()).glob("books-postgres-*")) - before or before
    postmaster = int((folder / "data" / "postmaster.pid").read_text().split()[0])
    process.kill()
    process.wait()
    wait_until(lambda: not alive(postmaster) and not folder.exists(), 5.0)


def fake_run(plan: bench.Plan, measured_s: float = 0.0, **changes) -> dict:
    """A run as bench.execute() gives it, with the even split and the predicted time, as if measured."""
    described = bench.describe(plan)
    requests = described["requests"] or 100
    measured_s = measured_s or described["predicted_s"] or 0.5
    shares = [requests // plan.workers + (i < requests % plan.workers) for i in range(plan.workers)]
    run = described | {
        "sent": requests, "answered": requests, "failed": 0, "errors": {}, "measured_s": measured_s,
        "throughput_rps": requests / measured_s, "requests_of_workers": {f"worker{i}": n for i, n in enumerate(shares)},
        "split_predicted_s": described["predicted_s"], "answered_s": [measured_s] * requests, "warnings": [],
        "latency_s": {"median": 0.1, "p99": 0.2, "max": 0.3}, "client_cpu_s": 0.01, "server_cpu_s": 0.02,
        "kernel": {"ListenOverflows": 0, "TCPSynRetrans": 0}, "warmed_up": 0, "created": 5,
        "database": {"rows": bench.SEEDED_BOOKS + 5, "statements": requests},
        "levels": [{"users": users, "throughput_rps": 7.0, "latency_s": {"median": 0.1, "p95": 0.2}}
                   for _, users in described["stages"]],
    }  # fmt: skip
    return run | changes


def finished(suite: str, repeats: int = 2) -> dict:
    """A document of a suite whose runs all went as predicted, without one run."""
    document = sweep.new_document(suite, True, repeats, 1, f"sweep.py {suite} --quick")
    for name, c, repeat in document["order"]:
        variant = sweep.variant_named(document, name)
        if suite == "client":
            run = {"throughput_rps": 1000.0, "requests": 1000, "client_cpu_s": 0.01, "measured_s": 1.0, "failed": 0}
        else:
            run = fake_run(sweep.plan_of(document, variant, c)[0])
        document["runs"].append({"variant": name, "concurrency": c, "repeat": repeat, "wall_s": 1.0, "run": run})
    return document


def change(document: dict, variant: str, **changes) -> None:
    for entry in document["runs"]:
        if entry["variant"] == variant:
            entry["run"] |= changes


def rows_of(markdown: str) -> dict[str, list[str]]:
    """The table rows of a report, by their first cell."""
    rows = (line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| "))
    return {row[0]: [cell.strip() for cell in row[1:]] for row in rows}


# ---------------------------------------------------------------- sweep.py: statistics and tables


def test_the_examples_in_sweeps_docstrings_hold():
    assert doctest.testmod(sweep).failed == 0


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        ({1: 4.0}, {1: 2.0}, "2.00"),  # one repeat has no spread
        ({1: 4.0, 2: 4.2}, {1: 2.0, 2: 2.0}, "2.05 (2.00-2.10)"),
        ({1: 1.0, 2: 3.0}, {1: 2.0, 2: 2.0}, "1.00 (0.500-1.50), too noisy to tell"),
        ({1: 1.00, 2: 1.02}, {1: 1.01, 2: 1.00}, "1.01 (0.990-1.02), the same"),
        ({1: 4.0, 3: 6.0}, {2: 2.0, 3: 2.0}, "3.00"),  # only repeat 3 has both
        ({}, {1: 1.0}, "-"),
        ({1: 1.0}, {1: 0.0}, "-"),
    ],
)
def test_a_ratio_is_paired_by_repeat_and_says_when_the_spreads_overlap(a, b, text):
    assert sweep.compare(a, b) == text


def timed(measured_s: float, predicted_s: float, split_s: float | None = None, failed: int = 0) -> dict:
    return {"measured_s": measured_s, "predicted_s": predicted_s, "split_predicted_s": split_s or predicted_s,
            "failed": failed}  # fmt: skip


def hello(p99_s: float | None, overflows: int) -> dict:
    return {"latency_s": {"p99": p99_s, "max": 9.0}, "kernel": {"ListenOverflows": overflows}, "failed": 0}


@pytest.mark.parametrize(
    ("expects", "before", "after", "good"),
    [
        ("slots", timed(16.0, 16), timed(2.05, 2), True),
        ("slots", timed(16.0, 16), timed(2.5, 2), False),
        ("slots", timed(18.0, 16), timed(2.0, 2), False),
        ("slots", timed(16.0, 16), timed(2.0, 2, failed=1), False),
        ("split", timed(2.03, 1, 2), timed(1.04, 1), True),
        ("split", timed(1.03, 1), timed(1.04, 1), False),  # it did not need a second round before
        ("split", timed(2.6, 1, 2), timed(1.04, 1), False),  # the split does not explain it
        ("split", timed(2.03, 1, 2), timed(2.0, 1), False),  # nothing moved
        ("tail", hello(7.9, 2716), hello(0.4, 0), True),
        ("tail", hello(7.9, 2716), hello(6.0, 0), False),
        ("tail", hello(7.9, 2716), hello(0.4, 3), False),
        ("tail", hello(0.4, 0), hello(0.1, 0), False),  # there was no overflow to explain
        ("tail", hello(None, 5), hello(0.1, 0), True),  # too few for a p99: the maximum
    ],
)
def test_an_experiment_counts_only_if_it_went_as_predicted(expects, before, after, good):
    assert sweep.as_predicted(expects, before, after) is good


def test_the_report_of_io_puts_published_predicted_and_measured_side_by_side():
    document = finished("io")
    plan, _ = sweep.plan_of(document, sweep.variant_named(document, "FastAPI /io"), 0)
    wait_s = plan.wait_s
    shares = {"worker0": 50, "worker1": 48, "worker2": 1, "worker3": 1}
    change(document, "FastAPI /io", requests_of_workers=shares, measured_s=2 * wait_s, split_predicted_s=2 * wait_s,
           throughput_rps=50 / wait_s)  # fmt: skip
    report = sweep.render(document)
    rows = rows_of(report)
    assert rows["Flask /io"][0] == "4.00" and rows["Flask /io"][-1] == "2 of 2"
    assert rows["FastAPI /io"] == ["48.3", "500", "250 (250-250)", "250 (250-250)", "2 of 2"]
    assert rows["Flask /async-io : Flask /io, requests/s"][0] == "1.00 (no gain)"
    assert rows["Flask /async-io : Flask /io, requests/s"][-1].endswith("the same")
    assert rows["FastAPI /async-io : FastAPI /io, requests/s"][1:] == ["1.00", "2.00 (2.00-2.00)", "2.00 (2.00-2.00)"]
    assert rows["1"] == ["50 + 48 + 1 + 1", "2", f"{2 * wait_s:.3g} s".replace("0.4 s", "0.400 s")]
    assert "in 2 of 2 repeats" in report
    assert "A quick look" in report and "Unfinished" not in report and "Failed" not in report


def test_the_report_of_ab_explains_a_tail_by_the_listen_queue():
    document = finished("ab")
    assert "A tail of seconds" not in sweep.render(document)
    change(document, "Flask, development server", kernel={"ListenOverflows": 7, "TCPSynRetrans": 5})
    report = sweep.render(document)
    assert "A tail of seconds" in report and "7 overflows and 5 repeated SYNs; 100 / 200 / 300 ms" in report
    assert "17.8" in report  # 3200.62 / 179.68, as published


def test_the_report_of_why_says_plainly_what_did_not_go_as_predicted():
    document = finished("why")
    report = sweep.render(document)
    rows = rows_of(report)
    assert rows["workers"][-1] == "2 of 2" and "as predicted in all 2 repeats. So the time is ceil(n / slots)" in report
    assert rows["AnyIO's limit"][-1] == "0 of 2"  # the fake before needed no second round
    assert "**NOT as predicted in 2 of 2 repeats**: these runs do not show that the second round" in report
    document["runs"] = []
    assert sweep.render(document).count("not run yet") == len(sweep.EXPERIMENTS)


@pytest.mark.parametrize("suite", ["io", "ab", "why", "client"])
@pytest.mark.parametrize("done", [0, 1, 5])
def test_an_unfinished_sweep_is_reported_as_such(suite, done):
    document = finished(suite)
    document["runs"] = document["runs"][:done]
    assert f"**Unfinished**: {done} of {len(document['order'])} runs." in sweep.render(document)


def test_the_report_of_books_compares_equal_slots_and_counts_in_the_database():
    report = sweep.render(finished("books"))
    rows = rows_of(report)
    assert "| read, Flask | 1476 | 200 (200-200) |" in report
    assert "| fanout, FastAPI | 4 workers, pool 15 (as published) | 60 |" in report
    assert rows["fanout, FastAPI : fanout, Flask"][1:3] == ["3.74", "3.75"]
    assert rows["fanout, FastAPI with 16 : fanout, Flask"][2] == "1.00"
    assert "2000 SQL statements for 2000 requests; 100 rows more for 100 POSTs answered 201" in report


def test_failed_requests_are_named_in_the_report():
    document = finished("io")
    document["runs"][0]["run"]["failed"] = 3
    assert "**Failed requests** in: " in sweep.render(document)


@pytest.mark.parametrize(
    ("name", "output", "parsed"),
    [
        ("ab", "Complete requests:      5000\nFailed requests:        2\nNon-2xx responses:      3\n"
               "Requests per second:    179.68 [#/sec] (mean)\n", (179.68, 5000, 5)),
        ("wrk", "  1 threads and 50 connections\n  248611 requests in 2.00s, 40MB read\n"
                "  Socket errors: connect 1, read 0, write 0, timeout 2\nRequests/sec: 124305.60\n",
         (124305.60, 248611, 3)),
        ("hey", "  Requests/sec:\t37000.5\nStatus code distribution:\n  [200]\t74001 responses\n  [503]\t4 responses\n"
                "Error distribution:\n  [2]\tGet \"http://x\": EOF\n", (37000.5, 74001, 6)),
        ("locust", "         Aggregated      15431   1(0.01%) |      4       0      53      4 | 7709.66        0.50\n",
         (7709.66, 15431, 1)),
    ],
)  # fmt: skip
def test_the_output_of_other_load_generators_is_read(name, output, parsed):
    run = sweep.parse_tool(sweep.TOOLS[name], output)
    assert (run["throughput_rps"], run["requests"], run["failed"]) == parsed
    with pytest.raises(bench.Problem, match="cannot read the output of `x`; it ends with: killed"):
        sweep.parse_tool(sweep.TOOLS[name], "killed", "x")


def test_the_csv_has_a_line_a_run():
    rows = list(csv.DictReader(io.StringIO(sweep.render_csv(finished("io")))))
    assert len(rows) == 12
    assert {row["requests_of_workers"] for row in rows} == {"25+25+25+25"}
    assert all(float(row["measured_s"]) > 0 and row["failed"] == "0" for row in rows)


# ---------------------------------------------------------------- sweep.py: order, seed, resume


@pytest.mark.parametrize("suite", ["io", "ab", "why", "client"])
def test_the_order_is_shuffled_by_its_seed_and_keeps_what_is_compared_together(suite):
    variants = sweep.SUITES[suite].variants
    order = sweep.order_of(variants, 3, 7)
    assert order == sweep.order_of(variants, 3, 7) != sweep.order_of(variants, 3, 8)
    cells = {(variant.name, c) for variant in variants for c in variant.concurrency}
    assert len(order) == len(set(order)) == 3 * len(cells)
    assert [repeat for _, _, repeat in order] == [1 + i // len(cells) for i in range(len(order))]
    group = {variant.name: variant.group for variant in variants}
    changes = sum((group[a[0]], a[1:]) != (group[b[0]], b[1:]) for a, b in itertools.pairwise(order))
    assert changes == 3 * len({(group[name], c) for name, c in cells}) - 1


def test_every_variant_is_one_plan_of_bench_and_its_app_has_a_known_answer():
    for name in ("io", "ab", "why", "books"):
        for quick in (True, False):
            for plan in sweep.plans_of(sweep.new_document(name, quick, None, 1, "")):
                assert plan.path in sweep.BODIES


def test_the_time_left_is_predicted_first_and_then_measured():
    document = sweep.new_document("why", True, 2, 1, "")
    first_s = sweep.time_left_s(document)
    assert first_s > sum(document["predictions"][name] or 0 for name, _, _ in document["order"])
    for name, c, repeat in document["order"][: len(document["order"]) // 2]:
        document["runs"].append({"variant": name, "concurrency": c, "repeat": repeat, "wall_s": 100.0, "run": {}})
    assert sweep.time_left_s(document) == len(document["order"]) / 2 * (100.0 + sweep.COOL_DOWN_S)


TINY = """
import sys, sweep
sweep.COOL_DOWN_S = 0
sweep.SUITES["io"] = sweep.IO._replace(variants=sweep.IO.variants[:2], quick={"n": "4", "t": "0.02"})
sweep.TABLES["io"] = lambda document: "tables"
sweep.PICTURES["io"] = ()
sys.exit(sweep.main(sys.argv[1:]))
"""


def tiny_sweep(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-c", TINY, "io", *arguments]
    return subprocess.Popen(command, cwd=HERE, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def processes_with(text: str) -> list[str]:
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if text.encode() in environ.read_bytes():
                found.append(environ.parent.name)
        except OSError:
            continue
    return found


def test_a_sweep_killed_in_the_middle_goes_on_without_losing_or_doubling_a_run(tmp_path):
    process = tiny_sweep("--quick", "--repeats", "3", "--seed", "11", "--logs", str(tmp_path))
    deadline = time.monotonic() + 30
    while not (files := list(tmp_path.glob("*.json"))) or len(json.loads(files[0].read_text())["runs"]) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    file = files[0]
    partial = json.loads(file.read_text())
    assert 2 <= len(partial["runs"]) < 6

    resumed = tiny_sweep("--resume", str(file))
    out, err = resumed.communicate(timeout=60)
    assert resumed.returncode == 0, err
    document = json.loads(file.read_text())
    ran = [(entry["variant"], entry["concurrency"], entry["repeat"]) for entry in document["runs"]]
    assert ran == [tuple(cell) for cell in document["order"]] == sweep.order_of(sweep.IO.variants[:2], 3, 11)
    assert document["runs"][: len(partial["runs"])] == partial["runs"]
    assert document | {"runs": []} == partial | {"runs": []}
    assert "Unfinished" not in out and out.startswith("## Suite io")
    if sys.platform == "linux":
        deadline = time.monotonic() + 10
        while (left := processes_with(str(tmp_path))) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert left == []


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "start_server", interrupt)
    assert sweep.main(["io", "--quick", "--logs", str(tmp_path)]) == 130
    file = next(tmp_path.glob("*.json"))
    assert f"python sweep.py io --resume {bench.shown(file)}" in capsys.readouterr().err
    assert sweep.load(file)["runs"] == []


def test_an_app_with_another_answer_is_not_timed(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sweep.BODIES, "/io", {"task_time": "something else"})
    monkeypatch.setitem(sweep.SUITES, "io", sweep.IO._replace(variants=sweep.IO.variants[:1]))
    assert sweep.main(["io", "--quick", "--logs", str(tmp_path)]) == 1
    assert 'flask-gunicorn /io answered 200 b\'{"task_time":0.01}' in capsys.readouterr().err


# ---------------------------------------------------------------- sweep.py: files, wrong input, pictures


def test_a_saved_document_reads_back_as_it_was(tmp_path):
    document = finished("why")
    sweep.save(document, tmp_path / "a.json")
    assert sweep.load(tmp_path / "a.json") == json.loads(json.dumps(document))
    assert list(tmp_path.iterdir()) == [tmp_path / "a.json"]


def write(path: Path, document: object) -> str:
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["io", "--repeats", "0"], "argument --repeats: '0' is not a whole number from 1 to 100"),
        (["io", "--seed", "x"], "argument --seed: 'x' is not a whole number"),
        (["io", "--pictures", "x"], "unrecognized arguments: --pictures x"),
        (["nothing"], "invalid choice: 'nothing'"),
        (["report"], "the following arguments are required: FILE"),
        (["report", "missing.json"], "cannot read missing.json: No such file"),
        (["report", "{text}"], "is not a file of sweep.py"),
        (["report", "{list}"], "is not a file of sweep.py"),
        (["report", "{run}"], "is not a file of sweep.py"),
        (["report", "{other}"], "does not fit suite io"),
        (["report", "{doubled}"], "does not fit suite io"),
        (["report", "{good}", "--csv", "/nowhere/x.csv"], "cannot write /nowhere/x.csv: No such file"),
        (["io", "--resume", "{good}", "--quick"], "--resume goes on as the sweep was begun"),
        (["ab", "--resume", "{good}"], "is of suite io, not ab"),
        (["io", "--resume", "{elsewhere}"], "is from another machine or other versions"),
        (["picture", "{good}"], "holds no burst of bench.py --json"),
        (["picture", "{text}"], "holds no burst of bench.py --json"),
    ],
)
def test_wrong_input_is_answered_in_one_line(arguments, message, tmp_path, capsys):
    document = finished("io")
    files = {
        "good": write(tmp_path / "good.json", document),
        "text": write(tmp_path / "text.json", "hello"),
        "list": write(tmp_path / "list.json", [1]),
        "run": write(tmp_path / "run.json", {"runs": []}),
        "other": write(tmp_path / "other.json", document | {"order": [["Django /io", 0, 1]], "runs": []}),
        "doubled": write(tmp_path / "doubled.json", document | {"runs": document["runs"][:1] * 2}),
        "elsewhere": write(tmp_path / "elsewhere.json", document | {"machine": {"system": "Plan 9", "cpus": 1}}),
    }
    assert sweep.main([argument.format(**files) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sweep.py: ") and error.count("\n") == 1 and message in error


def test_a_report_runs_nothing(tmp_path, monkeypatch, capsys):
    def forbidden(*_, **__):
        raise AssertionError("a report must not start anything")

    file = write(tmp_path / "a.json", finished("ab"))
    for owner, name in ((bench, "execute"), (bench, "start_server"), (subprocess, "Popen"), (os, "replace")):
        monkeypatch.setattr(owner, name, forbidden)
    assert sweep.main(["report", file, "--csv", str(tmp_path / "a.csv")]) == 0
    assert capsys.readouterr().out.startswith("## Suite ab")
    assert (tmp_path / "a.csv").read_text().startswith("suite,variant,")


def test_without_matplotlib_everything_but_the_pictures_works_and_says_so(tmp_path, monkeypatch, capsys):
    file = write(tmp_path / "a.json", finished("io"))
    import_module = importlib.import_module

    def without(name: str):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return import_module(name)

    monkeypatch.setattr(importlib, "import_module", without)
    assert sweep.main(["report", file, "--pictures", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert "FastAPI /async-io-multi" in out and "-m pip install matplotlib" in err


@pytest.mark.parametrize(
    ("suite", "texts"),
    [
        ("io", {"staircase": ["/async-io-multi", "response time, s (log scale)", "Flask, 4 gunicorn workers"],
                "split": ["40 threads", "has to wait for a thread", "repeat 2"]}),
        ("ab", {"latency": ["p99", "gunicorn, 4 uvicorn workers", "development server"]}),
        ("why", {"moves": ["listen backlog", "predicted from the slots", "before"]}),
        ("books", {"slots": ["Flask, 4 workers x 4 threads, pool 4*", "predicted from the slots"]}),
    ],
)  # fmt: skip
def test_pictures_have_their_text_as_text_and_are_the_same_each_time(suite, texts, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    file = write(tmp_path / "a.json", finished(suite))
    assert sweep.main(["report", file, "--pictures", str(tmp_path / "one")]) == 0
    assert sweep.main(["report", file, "--pictures", str(tmp_path / "two")]) == 0
    assert len(list((tmp_path / "one").iterdir())) == 2 * len(texts)
    for name, expected in texts.items():
        svg, again = ((tmp_path / folder / f"a-{name}.svg").read_text() for folder in ("one", "two"))
        assert svg == again
        assert set(expected) <= set(re.findall(r"<text[^>]*>([^<]*)</text>", svg))
        assert (tmp_path / "one" / f"a-{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_committed_example_has_a_waterfall(tmp_path):
    pytest.importorskip("matplotlib")
    assert sweep.main(["picture", str(HERE / "logs/example/run.json"), "--pictures", str(tmp_path)]) == 0
    svg = next(tmp_path.glob("*-waterfall.svg")).read_text()
    assert "worker3: 4" in svg and "waiting for a slot" in svg


# ---------------------------------------------------------------- README

README = (HERE / "README.md").read_text()


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_report_in_the_readme_is_the_committed_run():
    document = json.loads((HERE / "logs/example/run.json").read_text())
    (run,) = document["runs"]
    lines = bench.parse_access_log((HERE / run["access_log"]).read_text())
    report = [bench.render_header(document), "", bench.render_prediction(run), "", bench.render_result(run, lines)]
    assert "\n".join(report) + "\n" in code_blocks("text")
    assert run["log_lines"] == len(lines) == 16


def test_the_lines_that_the_readme_walks_through_are_in_the_committed_log():
    (log,) = (HERE / "logs/example").glob("*.access.log")
    assert code_blocks("log")[0] in log.read_text()


def test_the_code_that_the_readme_shows_is_in_the_apps():
    for block in code_blocks("python"):
        assert any(block in app.read_text() for app in (HERE / "apps").glob("*.py"))


RESULTS = sorted((HERE / "logs/example").glob("sweep-*.json"))


def test_no_figure_of_the_readmes_results_is_from_anywhere_but_the_committed_sweeps():
    reported = "\n".join(sweep.render(sweep.load(file)) for file in RESULTS).splitlines()
    results = README[README.index("## Three posts, measured again") : README.index("## Limits")]
    results = re.sub(r"^```.*?^```$", "", results, flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in results.splitlines() if re.search(r"\d", line) and not line.startswith(("!", "#"))]
    assert len(RESULTS) == len(sweep.SUITES)
    assert len(lines) > 30
    assert [line for line in lines if line not in reported] == []


def test_the_committed_sweeps_are_whole_and_without_failed_requests():
    for file in RESULTS:
        document = sweep.load(file)
        assert not sweep.remaining(document) and not document["quick"]
        assert document["suite"] == "client" or not any(entry["run"]["failed"] for entry in document["runs"])


def test_every_picture_of_the_readme_is_there():
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert pictures
    for picture in pictures:
        assert (HERE / picture).read_text().startswith("<?xml")


def test_the_readme_lists_every_target():
    for name in bench.TARGETS:
        assert f"`{name}`" in README
