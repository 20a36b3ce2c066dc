"""Deals at random with measured shares: what they do to a prediction, and the calibration on a real server."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from collections import Counter
from types import SimpleNamespace

import pytest
from commands import run_bench
from samples import LAUNCH, sample_plan

from engine import before
from engine.calibrate import kept_deal, question_of, starts_for
from engine.deals import WITHIN, is_dealt, random_deals
from engine.loads import Burst, Closed, Open
from engine.plans import prediction_for
from engine.run import Deal

THREADED = dataclasses.replace(LAUNCH, server="gunicorn-threads", threads=4, settings=(("workers", 4), ("threads", 4)))
FOUR_BY_FOUR = {
    "launch": THREADED, "wait_s": 0.05, "workers": 4, "slots_per_worker": 4, "server_slots": 4, "slots": 16,
    "shared_queue": False,
}  # fmt: skip
SHARES = (0.36, 0.29, 0.2, 0.15)
ORDER = tuple(random.Random(1).choices(range(4), SHARES, k=5000))
FAVOURITE = Deal((SHARES,), "2026-11-26", 0.8, 500, (ORDER,))


def test_a_favourite_that_gets_more_than_it_can_serve_is_in_the_range_and_not_in_the_even_deal():
    load = Open.poisson(256.0, 1500, float("inf"), 1)
    plan = sample_plan(**FOUR_BY_FOUR, load=load)
    even, dealt = prediction_for(plan), prediction_for(dataclasses.replace(plan, deal=FAVOURITE))
    assert even.p99_range_s is None and even.if_even == {}
    low, high = dealt.p99_range_s
    assert 0.3 < low < dealt.p99_s < high < 3 and dealt.if_even["p99_s"] == even.p99_s < 0.15
    assert dealt.p95_range_s[0] <= dealt.p95_s and dealt.makespan_range_s[0] <= dealt.makespan_s


def test_a_burst_ends_with_the_process_that_got_most_of_it():
    plan = sample_plan(**FOUR_BY_FOUR | {"wait_s": 1.0}, load=Burst(16))
    deal = Deal(((0.25,) * 4, (0.5, 0.25, 0.25, 0.0), (1.0, 0.0, 0.0, 0.0)), "2026-11-26", 1.0, 16)
    found = prediction_for(dataclasses.replace(plan, deal=deal))
    assert (
        found.makespan_range_s == pytest.approx((1 - WITHIN, 4 * (1 + WITHIN))) and found.if_even["makespan_s"] == 1.0
    )
    assert prediction_for(dataclasses.replace(plan, deal=deal), [0] * 16).makespan_s == 4.0  # the deal is known


def test_deals_have_the_shares_and_are_the_same_in_every_run():
    first, again = (list(random_deals(FAVOURITE, 2000, False)) for _ in range(2))
    assert first == again and len(first) >= 5
    shares = Counter(process for deal in first for process in deal)
    assert [shares[process] / sum(shares.values()) for process in range(4)] == pytest.approx(
        FAVOURITE.shares[0], abs=0.03
    )
    assert all(Counter(deal)[0] == 36 for deal in random_deals(FAVOURITE, 100, True))


@pytest.mark.parametrize("changes, known", [
    ({}, True), ({"shared_queue": True}, False), ({"workers": 1}, False), ({"keep_alive": True}, False),
    ({"slots_known": False}, False), ({"slots_stated": True}, False), ({"wait_s": None}, False),
])  # fmt: skip
def test_the_deal_decides_where_several_processes_accept_for_themselves(changes, known):
    assert is_dealt(sample_plan(**FOUR_BY_FOUR | changes)) == known


def test_what_follows_what_is_kept():
    in_runs = Deal(((0.5, 0.5),), "2026-11-26", 0.8, 500, ((0,) * 200 + (1,) * 200,))
    changes = [sum(a != b for a, b in itertools.pairwise(deal)) for deal in random_deals(in_runs, 1000, False)]
    assert max(changes) < 40  # some 500 if each were drawn by itself


@pytest.mark.parametrize("kept", [None, [], {}, {"shares": 1}, {"shares": [[1.0]], "orders": [[0]]}, "x"])
def test_what_is_no_calibration_is_measured_again(kept):
    assert kept_deal(kept) is None


def test_loads_that_are_nearly_alike_have_one_calibration():
    keys = {question_of(sample_plan(**FOUR_BY_FOUR, load=load)) for load in (
        Closed(concurrency=400), Closed(concurrency=401), Burst(400))}  # fmt: skip
    assert len(keys) == 2


def test_the_deal_is_measured_once_in_another_run_and_kept(tmp_path, monkeypatch):
    kept = tmp_path / "deals.json"
    monkeypatch.setenv("BENCH_DEALS", str(kept))
    how = ["--target", "flask-gunicorn-threads", "--path", "/io", "--workers", "2", "--threads", "4", "-n", "24",
           "--task-time", "0.1"]  # fmt: skip
    (run,) = run_bench(tmp_path, *how)[1]["runs"]
    (deal,) = json.loads(kept.read_text()).values()
    assert run["plan"]["deal"]["shares"] == deal["shares"]
    assert all(len(shares) == 2 and sum(shares) == pytest.approx(1, abs=0.01) for shares in deal["shares"])
    assert deal["orders"] == []  # of a burst only the shares count
    low, high = run["prediction"]["makespan_range_s"]
    # From three rounds of 0.1 s, where both processes get as many, to six.
    assert low * 1.001 >= 0.3 * (1 - WITHIN) and high <= 0.6001 * (1 + WITHIN)
    assert low <= run["prediction"]["makespan_s"] <= high
    starts = len(list((tmp_path / "logs").glob("*-deal*")))
    assert starts == starts_for(2, True)
    again = run_bench(tmp_path, *how)[1]["runs"][-1]
    assert again["plan"]["deal"] == run["plan"]["deal"] and len(list((tmp_path / "logs").glob("*-deal*"))) == starts


def test_more_requests_by_themselves_are_sent_right_before_the_load(monkeypatch):
    monkeypatch.setattr(before, "send_one", lambda plan, site, sent: sent.append(SimpleNamespace(status=[201])))
    found = before.send_again(sample_plan(lone_requests=8), before.Site(("", 0)), before.Before(5, 1, [0.1]))
    assert (found.sent, found.created, found.lone_s) == (13, 9, [0.1])
