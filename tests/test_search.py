"""Several loads on one server that is simulated: the bursts of a probe, the rates of a search."""

import contextlib
import itertools
import math

import pytest
from samples import sample_columns, sample_estimate, sample_plan, sample_run, sample_statistics

from engine import search
from engine.before import Before, Site
from engine.execute import Place
from engine.run import Verdict
from engine.signals import signals


@pytest.fixture
def server(monkeypatch):
    """Replaces the server by a function from a load to its run; gives the runs that were brought home."""
    monkeypatch.setattr(search, "site_for", lambda *_: contextlib.nullcontext(Site(("", 0))))
    monkeypatch.setattr(search, "settle", lambda *_: None)
    monkeypatch.setattr(search, "send_before", lambda plan, site: (plan, Before(5)))

    def use(answer):
        monkeypatch.setattr(search, "one_run", lambda plan, load, *_: answer(load))

    return use


def probe(*budget):
    home, shown = [], []
    search.probe(sample_plan(), Place(), home.append, shown.append, budget)
    assert all(shown)
    return home


def of_slots(slots):
    """Answers with an estimate that is certain as soon as requests have waited."""

    def answer(load):
        n = int(load.requests)
        estimate = sample_estimate(slots) if n > slots else sample_estimate(None, low=n)
        return sample_run(load=load, sent=n, answered=n, verdict=Verdict(None, (), estimate, None, ()))

    return answer


def test_a_probe_doubles_its_bursts_until_the_slots_show_and_keeps_to_its_budget(server, monkeypatch):
    server(of_slots(20))
    runs = probe(2000, 60.0)
    sent = [run.measured.sent for run in runs]
    assert sent[-1] > 20 and all(later == 2 * before for before, later in itertools.pairwise(sent))
    assert runs[-1].verdict.estimate.slots == 20
    server(of_slots(10_000))
    for budget in (8, 300):
        assert budget / 2 < sum(run.measured.sent for run in probe(budget, 60.0)) + 5 <= budget
    monkeypatch.setattr(signals, "received", 15)
    assert probe(2000, 60.0) == []


@pytest.mark.parametrize("percentile", [50, 95, 99])
def test_a_search_closes_in_on_the_highest_rate(server, percentile):
    """A queue whose latency is 50 ms / (1 - load), full at 100/s: 0.2 s at 75/s."""

    def answer(load):
        rate_rps = getattr(load, "rate_rps", 100)
        latency_s = 0.05 / max(0.01, 1 - rate_rps / 100)
        found = sample_statistics(median=latency_s, p95=latency_s, p99=latency_s)
        return sample_run(
            load=load, latency_s=found, throughput_rps=min(100, rate_rps), due=16, exchanges=sample_columns([])
        )

    server(answer)
    home, plan = [], sample_plan(slots=5, wait_s=0.05)
    assert search.find_rate(plan, Place(), home.append, lambda _: None, (0.2, percentile), 10.0)
    rates = [run.plan.load.rate_rps for run in home]
    assert max(one for one in rates if one <= 75) > 68
    assert len({run.plan.load.seed for run in home}) == len(rates)


def test_a_percentile_of_too_few_answers_is_the_longest_of_all():
    run = sample_run(latency_s=sample_statistics(p95=None, p99=3.9))
    assert [search.latency_at(run, percentile) for percentile in (50, 95, 99)] == [2.5, 4.0, 3.9]
    assert search.latency_at(sample_run(latency_s=None), 50) == math.inf
