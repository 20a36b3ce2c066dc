"""What is sent, where to, with which counters around it, and what is said meanwhile."""

from __future__ import annotations

import dataclasses
import itertools
import re
import sys
import threading
import time

import pytest
from stubs import keep_answering, said, stub

from engine import send
from engine.kinds import Kind
from engine.loads import Closed
from engine.run import Plan
from engine.server import free_port
from engine.words import Problem


def plan(**changes) -> Plan:
    return Plan("x", **{"port": 80} | changes)


KEPT = {"keep_alive": True}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "GET / HTTP/1.1|Host: 127.0.0.1|Connection: close||"),
        (KEPT, "GET / HTTP/1.1|Host: 127.0.0.1||"),
        (KEPT | {"host": "::1", "path": "/x?y"}, "GET /x?y HTTP/1.1|Host: [::1]||"),
        (KEPT | {"headers": ("host: a", "X: y")}, "GET / HTTP/1.1|host: a|X: y||"),
        (KEPT | {"method": "POST", "body": b"xyz"}, "POST / HTTP/1.1|Host: 127.0.0.1|Content-Length: 3||xyz"),
        (KEPT | {"method": "PUT"}, "PUT / HTTP/1.1|Host: 127.0.0.1|Content-Length: 0||"),
    ],
)
def test_a_request_is_what_the_plan_says(changes, text):
    assert next(send.messages(plan(**changes), 80, False)) == text.replace("|", "\r\n").encode()
    numbered = itertools.islice(send.messages(plan(**changes), 80, True), 3)
    assert [re.search(rb"X-Request-Id: (\d)\r\n", message)[1] for message in numbered] == [b"0", b"1", b"2"]


def test_a_mix_is_the_same_in_every_run_and_keeps_its_shares():
    mix = plan(kinds=(Kind(3, "GET", "/b/{random:1:9}"), Kind(1, "POST", "/b", '{"isbn": "{n}"}')))
    warming = dataclasses.replace(mix, first_number=send.WARM_UP_NUMBER)
    first, again, warm_up = ([*itertools.islice(send.messages(one, 80, True), 2000)] for one in (mix, mix, warming))
    assert first == again
    assert not {one for one in first if one.startswith(b"POST")} & set(warm_up)
    gets = re.findall(rb"GET /b/(\d) ", b"".join(first))
    assert 0.7 < len(gets) / 2000 < 0.8 and set(gets) == {b"%d" % i for i in range(1, 10)}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_an_address_is_one_that_accepts_connections(host):
    try:
        with stub(keep_answering, host="::1" if host == "::1" else "127.0.0.1") as (_, port, *_):
            address = send.resolve(plan(host=host, port=port))
            assert address[1] == port and said(send.measure(plan(), address).exchanges) == [200] * 16
    except OSError:
        pytest.skip("no IPv6 on this machine")


@pytest.mark.parametrize("host", ["127.0.0.1", "no.such.host.invalid", "a..b"])
def test_where_nothing_answers_is_a_problem_before_the_run(host):
    with pytest.raises(Problem):
        send.resolve(plan(host=host, port=free_port()))


def test_the_warm_up_sends_as_many_as_it_says_and_no_more_at_a_time_than_the_load():
    seen, under_way, lock = [], [], threading.Lock()

    def behave(sock):
        while sock.recv(65536):
            with lock:
                under_way.append(sock)
                seen.append(len(under_way))
            time.sleep(0.01)
            with lock:
                under_way.remove(sock)
            sock.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    with stub(behave) as address:
        warm = send.warm_up(plan(load=Closed(50, concurrency=3), warm_up=10), address)
    assert (len(seen), warm.status.count(201)) == (10, 10) and 1 <= max(seen) <= 3


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
@pytest.mark.parametrize(
    ("readings", "used_s"), [([2.0, 3.5], 1.5), ([2.0, 1.0], None), ([None, None], None), ([2.0, None], None)]
)
def test_cpu_seconds_are_those_between_two_readings(readings, used_s):
    """Less than before: some of the server's processes have ended, so that nothing is known."""
    with stub(keep_answering) as address:
        outcome = send.measure(plan(), address, server_cpu_s=iter(readings).__next__)
    assert outcome.server_cpu_s == used_s and (outcome.other_cpu_s is None) == (used_s is None)
    assert (
        set(outcome.kernel) == {"ListenOverflows", "TCPSynRetrans", "throttled_us"}
        and min(outcome.kernel.values()) >= 0
    )
