"""Requests by themselves before a run: when they end, which of them were cold, and a service whose first one is."""

from __future__ import annotations

import itertools
import time

import pytest
from commands import ROOT, run_bench
from stubs import OK, answer, stub

from engine.alone import MOST, MOST_S, First, alone_of, asks_again, cold_requests

SERVICE = ROOT / "tests" / "services" / "cold_shop.py"


def sent(times_s, usual=5, processes=1):
    """The requests by themselves of a service that takes these times."""
    done = []
    for time_s in times_s:
        if not asks_again(done, usual, processes):
            break
        done.append(time_s)
    return done


@pytest.mark.parametrize(
    "times_s, cold",
    [
        ([0.05] * 5, 0),
        ([0.842, 0.054, 0.055], 1),
        ([0.9, 0.4, 0.054, 0.055], 2),  # each is far from those after it
        ([0.12, 0.05, 0.05], 0),  # 70 ms more, but not far enough
        ([0.04, 0.002, 0.002], 0),  # twenty times as long, and too short to be seen in a run
        ([0.05, 0.9, 0.05], 0),  # not at the beginning
        ([0.9], 0),
        ([], 0),
    ],
)
def test_the_first_requests_are_cold_where_they_are_far_from_the_next(times_s, cold):
    assert cold_requests(times_s) == cold


@pytest.mark.parametrize(
    "times_s, usual, processes, count",
    [
        ([0.05] * 99, 5, 1, 5),
        ([0.2] * 99, 5, 1, 3),  # half a second is enough
        ([2.0] * 99, 5, 1, 2),  # one by itself cannot be compared
        ([2.0] * 99, 1, 1, 1),  # the wait is known
        ([2.0] * 99, 0, 1, 0),
        ([0.842, *[0.3] * 99], 5, 1, 3),
        ([0.842, 0.842, *[0.3] * 99], 5, 2, 5),  # two workers, each cold once
        (itertools.cycle([0.01, 0.1]), 5, 1, MOST),  # never alike
        (itertools.cycle([0.4, 1.6]), 5, 1, 6),  # and slow: 5 s and a request
    ],
)
def test_they_end_where_they_are_alike_or_at_a_bound(times_s, usual, processes, count):
    found = sent(times_s, usual, processes)
    assert len(found) == count and sum(found[:-1]) <= MOST_S


def test_what_they_show_leaves_the_cold_ones_out():
    found = alone_of("GET /", [0.05, 0.06, 0.052], First(0.9, "app.py:3"))
    assert (found.requests, found.cold, found.first_s, found.usual_s) == (4, 1, 0.9, 0.052)
    assert (found.least_s, found.most_s, found.are_alike, found.first_line) == (0.05, 0.06, True, "app.py:3")
    assert alone_of("GET /", [0.05, 0.05], First(0.051, "app.py:3")).first_line is None  # nothing was cold
    assert alone_of("GET /", [0.9]) is None


def test_a_cold_first_request_is_named_with_its_line_and_not_predicted_with(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(SERVICE.parent)
    code, document = run_bench(tmp_path, "--app", "cold_shop:app", "--path", "/items", "-n", "60")
    (run,) = document["runs"]
    (alone,) = run["measured"]["alone"]
    line = next(i for i, text in enumerate(SERVICE.read_text().splitlines(), 1) if "# first" in text)
    assert code == 0 and alone["cold"] == 1 and alone["first_line"] == f"cold_shop.py:{line}"
    assert alone["first_s"] > 0.6 > 4 * run["plan"]["wait_s"] > 0.2
    assert [one["id"] for one in run["verdict"]["warnings"]].count("cold") == 1
    assert f"cold_shop.py:{line}" in capsys.readouterr().out


def test_a_cold_service_that_runs_already_is_predicted_warm(tmp_path):
    first = iter([True])

    def behave(sock):
        while sock.recv(65536):
            time.sleep(0.6 if next(first, False) else 0.05)
            sock.sendall(OK)

    with stub(behave) as address:
        url = f"http://127.0.0.1:{address[1]}/"
        (run,) = run_bench(tmp_path, "--url", url, "-n", "20", "--slots", "10")[1]["runs"]
        assert run["measured"]["alone"][0]["cold"] == 1 and run["plan"]["wait_s"] < 0.3
        (run,) = run_bench(tmp_path, "--url", url, "-n", "20", "--slots", "10")[1]["runs"]
        assert run["measured"]["alone"][0]["cold"] == 0
    with stub(answer(OK)) as address:  # a wait that is stated is not measured
        url = f"http://127.0.0.1:{address[1]}/"
        (run,) = run_bench(tmp_path, "--url", url, "-n", "4", "--slots", "2", "--wait", "0.1")[1]["runs"]
        assert run["measured"]["alone"] == []


def test_of_several_workers_that_run_already_each_is_warm_before_the_load(tmp_path):
    """Two workers, each cold once, and a queue of their own for each connection in turn."""
    opened = set()

    def worker(number):
        def behave(sock):
            while sock.recv(65536):
                time.sleep(0.05 if number in opened else 0.6)
                opened.add(number)
                sock.sendall(OK)

        return behave

    with stub(worker(1), worker(1), worker(1), worker(1), worker(1), worker(1), worker(2)) as address:
        url = f"http://127.0.0.1:{address[1]}/"
        (run,) = run_bench(tmp_path, "--url", url, "-n", "30", "--slots", "30")[1]["runs"]
    assert opened == {1, 2} and run["measured"]["warmed_up"] == run["measured"]["alone"][0]["requests"] + 4
    assert run["measured"]["latency_s"]["max"] < 0.6
    with stub(worker(3)) as address:  # or not, as you say
        url = f"http://127.0.0.1:{address[1]}/"
        (run,) = run_bench(tmp_path, "--url", url, "-n", "4", "--slots", "2", "--warmup", "0")[1]["runs"]
    assert run["measured"]["alone"][0]["cold"] == 1
    assert run["measured"]["warmed_up"] == run["measured"]["alone"][0]["requests"]
