"""Tests of the estimate: servers whose slots are known, by the model or event by event, read as a real one would be."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from dataclasses import astuple

import pytest
from samples import sample_columns, sample_estimate, sample_facts

from engine.estimate import Probed, conclude, estimate_of, estimate_slots, fitting, holds, why_over
from engine.loads import Closed, Open
from engine.model import Service, predict, predict_users
from engine.report_words import DOUBTS
from engine.run import Seen

T = 0.1  # the wait
JITTERS = 0.0, 0.1, 0.3  # standard deviation of the waits over their mean


def waits(jitter, seed, count=2000):
    dice = random.Random(f"{jitter} {seed}")
    return [T * max(0.05, 1 + jitter * dice.gauss(0, 1)) + dice.uniform(0.0002, 0.002) for _ in range(count)]


def seen_of(at_once, sent, answered, jitter=0.0, seed=0, **more):
    """The estimate, after five lone requests; what is certain has no doubt."""
    lone_s = waits(jitter, f"lone {seed}", 5)
    found = estimate_slots(at_once, list(zip(sent, answered, strict=True)), lone_s=lone_s, **more)
    assert found.is_certain == (found.doubt is None and found.seen is Seen.SLOTS)
    return found


def burst(service, requests, jitter=0.0, seed=0, deal=(), processes=None):
    sent = [i * 0.00005 for i in range(requests)]
    answered = predict(sent, service, waits(jitter, seed).__getitem__, deal).answered_s
    return seen_of(requests, sent, answered, jitter, seed, processes=processes)


def users(count, service, requests, jitter, processes):
    forecast = predict_users(count, service, waits(jitter, 0).__getitem__, requests=requests)
    return seen_of(count, forecast.arrived_s, forecast.answered_s, jitter, processes=processes)


def of_answers(answered, lone_s=(T, T), failed_after_s=(), **more):
    return estimate_slots(len(answered), [(0.0, at) for at in answered], failed_after_s, lone_s=lone_s, **more)


def rounds(*sizes):
    """The answers of rounds of these sizes."""
    return [T * (k + 1) for k, size in enumerate(sizes) for _ in range(size)]


ONE_BY_ONE = rounds(*[1] * 40)


def is_not_wrong(found, slots):
    """Neither as a certain number nor as a bound."""
    return found.low <= slots and (not found.is_certain or found.slots == slots)


# ---------------------------------------------------------------- the number


@pytest.mark.parametrize("jitter", JITTERS)
@pytest.mark.parametrize("slots", (1, 2, 3, 4, 7, 10, 15, 16, 40, 100))
def test_nothing_certain_is_ever_wrong(slots, jitter):
    counts = [count for count in (1, 2, 4) if slots % count == 0]
    found = [
        burst(Service((slots // count,) * count), int(times * slots) + 1, jitter, seed, processes=known)
        for times, seed in itertools.product((1, 1.05, 2, 3, 5, 8), range(3))
        for count in counts
        for known in (None, count)
    ]
    assert all(is_not_wrong(one, slots) for one in found)
    assert jitter or any(one.is_certain for one in found)
    assert len(counts) > 1 or sum(slots <= (one.high or slots) for one in found) >= 0.9 * len(found)


@pytest.mark.parametrize("slots, count, jitter", [(1, 5, 0), (4, 20, 0.1), (14, 50, 0), (40, 400, 0)])
def test_a_closed_loop_shows_the_number_too(slots, count, jitter):
    one, several = (users(count, Service((slots,)), 5 * count, jitter, processes) for processes in (1, None))
    assert is_not_wrong(one, slots) and not several.is_certain
    assert jitter or (one.is_certain and one.by_throughput == pytest.approx(slots, rel=0.03))


def test_at_any_other_number_some_would_have_held_a_slot_for_no_time_or_twice():
    answered, sent = [1.0] * 15 + [2.0] * 15 + [3.0] * 15, [0.0] * 45
    held = {slots: Counter(holds(sent, answered, slots, 45)) for slots in (14, 15, 16)}
    assert held == {15: {1.0: 45}, 14: {1.0: 42, 0.0: 3}, 16: {1.0: 43, 2.0: 2}}
    assert fitting(sent, answered, 22) == (0.0, 15, 1.0)


def test_the_rounds_are_counted():
    found = of_answers(rounds(3, 3, 3, 1))
    assert (found.slots, found.is_certain, found.held_s, found.alone_s) == (3, True, pytest.approx(0.1), T)
    assert [count for count, _ in found.rounds] == [3, 3, 3, 1]


# ---------------------------------------------------------------- what is no number


@pytest.mark.parametrize(
    "shares", ((41, 31, 28, 0), (21, 34, 0, 20, 25), (3, 1, 86, 4, 4), (96, 4, 0, 0, 0), (20, 19, 20, 21, 20))
)
@pytest.mark.parametrize("each", (4, 15, 40))
def test_uneven_shares_give_a_lower_bound_and_never_a_wrong_number(shares, each):
    for jitter, times, known in itertools.product(JITTERS, (1, 5), (None, len(shares))):
        deal = [process for process, share in enumerate(shares) for _ in range(share * times)]
        random.Random(1).shuffle(deal)
        found = burst(Service((each,) * len(shares)), len(deal), jitter, times, deal, known)
        assert is_not_wrong(found, each * len(shares))


@pytest.mark.parametrize("jitter", JITTERS)
@pytest.mark.parametrize("requests", (10, 160, 640))
def test_no_limit_is_said_so_up_to_what_was_under_way(requests, jitter):
    found = [burst(Service((10**6,)), requests, jitter, seed) for seed in range(10)]
    assert all(one.slots is None and one.low <= requests and one.high is None for one in found)
    assert sum(one.seen is Seen.NONE for one in found) >= 7
    assert jitter or all(one.low == requests for one in found)


@pytest.mark.parametrize("jitter", (0.1, 0.2))
def test_a_limit_that_few_requests_met_is_not_denied(jitter):
    for slots, more, seed in itertools.product((3, 10, 40, 100), (1, 1.05, 1.2), range(10)):
        assert burst(Service((slots,)), int(more * slots) + 1, jitter, seed).low <= slots


DOUBTFUL = {
    "few-answers": of_answers(rounds(2, 1)),
    "no-lone-request": of_answers(ONE_BY_ONE, []),
    "short-wait": of_answers(ONE_BY_ONE, [0.001]),
    "unlike-lone-requests": of_answers(ONE_BY_ONE, [0.03, 0.5, 0.03, 0.52]),
    "cpu": of_answers(ONE_BY_ONE, cpu_s=3.6),
    "held-back": of_answers(rounds(0, 0, 20)),
    "fewer-than-three-rounds": of_answers(rounds(5, 5, 4)),
    "uneven-processes": of_answers(rounds(5, 5, 5), processes=2),
    "uneven-rounds": of_answers(rounds(*[5] * 9, 0, 5), processes=1),
    "rounds-and-throughput-disagree": of_answers(rounds(*[15] * 8), [0.075, 0.075]),
    "no-clear-rounds": burst(Service((10,)), 80, 0.2, processes=1),
    "failures": of_answers(rounds(5, 5, 5), failed_after_s=[0.01]),
    "busy-machine": estimate_of(sample_facts(other_cpu_s=0.31 * 2 * 4), sample_columns(), [1.0, 1.0]),
}


def test_every_doubt_has_a_case_and_words():
    assert {doubt: found.doubt for doubt, found in DOUBTFUL.items()} == {
        doubt: doubt for doubt in DOUBTS if doubt != "all-at-work"
    }  # that one needs a look inside: tests/test_verdict.py
    assert not any(found.is_certain for found in [*DOUBTFUL.values(), of_answers(rounds(6, 6, 6, 5, 1))])


def test_a_blocked_event_loop_is_one_at_a_time():
    for processes, cpu_s in itertools.product((1, None), (0.0, 0.04)):
        found = of_answers(ONE_BY_ONE, processes=processes, cpu_s=cpu_s)
        assert found.is_certain and found.slots == 1


@pytest.mark.parametrize("slots", (10, 15, 40))
@pytest.mark.parametrize("jitter", JITTERS)
def test_two_passes_never_end_in_a_wrong_number(slots, jitter):
    for times, passes in itertools.product((2, 3, 3.5, 8), ((1.0, 0.0), (0.0, 1.0), (0.5, 0.5))):
        assert is_not_wrong(burst(Service((slots,), passes=passes), int(times * slots), jitter), slots)
    assert is_not_wrong(users(4 * slots, Service((slots,), passes=(1.0, 0.0)), 1000, jitter, 1), slots)


@pytest.mark.parametrize("threads, cpus", ((1000, 1), (40, 1), (4, 2), (16, 4), (1000, 4)))
def test_requests_that_compute_show_no_slots(threads, cpus):
    """At most `threads` at a time share the CPUs, all of them equally fast."""
    for requests, cpu_s in itertools.product((20, 80, 320), (0.0, 0.02)):
        dice, now_s, answered = random.Random(requests), 0.0, []
        waiting = [0.02 * dice.uniform(0.98, 1.02) for _ in range(requests)]
        while waiting:
            first, *others = sorted(waiting[:threads])
            now_s += first * max(1, len([first, *others]) / cpus)
            waiting[:threads] = [rest - first for rest in others]
            answered.append(now_s)
        found = of_answers(answered, [0.0205, 0.0206, 0.0209], cpu_s=cpu_s * requests)
        assert not found.is_certain and (found.slots is None or not cpu_s)


def test_waits_that_differ_and_a_stall_give_no_wrong_number():
    for seed in range(20):
        dice, free, answered = random.Random(seed), [0.0] * 8, []
        for _ in range(200):
            answered.append(heapq.heappop(free) + (0.5 if dice.random() < 0.2 else 0.01))
            heapq.heappush(free, answered[-1])
        assert not of_answers(answered, [0.01, 0.0101, 0.01, 0.0102]).is_certain
    regular = rounds(*[15] * 8)
    assert all(is_not_wrong(of_answers([at + s * (at > 0.35) for at in regular]), 15) for s in (0.1, 0.3, 1.0))


# ---------------------------------------------------------------- failures and stalls


@pytest.mark.parametrize(
    "failed_after_s, doubt", [([0.25] * 6, None), *(([*at], "failures") for at in ([0.0005], [0.25, 0.45], [0.15]))]
)
def test_failures_forbid_a_verdict_unless_one_time_out_explains_them(failed_after_s, doubt):
    """A published report: a pool of two with a time-out of 2.5 waits."""
    found = of_answers(rounds(2, 2, 2), failed_after_s=failed_after_s)
    assert (found.doubt, found.slots) == (doubt, None if doubt else 2)


@pytest.mark.parametrize(
    "good_s, failed_s, stall",
    [
        ([0.1, 2.1], [2.0], (0.1, 2.0)),
        ([2.1], [2.0], (0.0, 2.0)),
        ([0.1, 0.5, 1.0, 1.5], [2.0], None),  # others are served all the time
        ([], [0.1], None),  # it fails at once
        ([1.2], [0.1], None),  # before the silence, not at its end
        ([2.0], [2.1], (0.0, 2.0)),  # a request that was freed first may be answered first
        ([0.1], [1.05], None),  # less than ten times what a lone one takes
        ([2.0], [2.5], None),  # it was slow, and failed for its own reasons
    ],
)
def test_a_stall_is_a_silence_that_a_failure_ends(good_s, failed_s, stall):
    facts = sample_facts(failed=1, lone_s=T)
    columns = sample_columns(good_s + failed_s, status=[200] * len(good_s) + [500] * len(failed_s))
    found = estimate_of(facts, columns, [T, T]).stall
    assert (found and astuple(found)) == (stall and pytest.approx(stall))


# ---------------------------------------------------------------- of a run


@pytest.mark.parametrize(
    "changes, slots",
    [
        ({}, 4),
        ({"load": Closed(16, concurrency=4)}, None),
        *((none, "no estimate") for none in ({"load": Open(16)}, {"stopped": "SIGINT"}, {"sent": 0}, {"sent": 20_001})),
    ],
)
def test_slots_are_estimated_of_bursts_and_users(changes, slots):
    found = estimate_of(sample_facts(**changes), sample_columns(), [1.0, 1.0])
    assert (found.slots if found else "no estimate") == slots


def test_nothing_is_suspected_where_other_programs_had_the_cpus():
    found = estimate_of(sample_facts(lone_s=1.0), sample_columns(), [1.0, 1.0], {"gunicorn"})
    assert [one.setting for one in found.suspects] == ["--threads"]
    assert DOUBTFUL["busy-machine"].suspects == ()


# ---------------------------------------------------------------- the probe


def probe(slots):
    done, left, why = [], 2000, None
    while not why:
        size = 10 * 2 ** len(done)
        done.append(Probed(size, 0, T * size / slots, burst(Service((slots,)), size)))
        left -= size
        why = why_over(done, left, 60.0)
    return done, why


def test_a_probe_doubles_until_two_bursts_agree_or_its_budget_is_spent():
    done, why = probe(15)
    assert (len(done), why, conclude(done).slots) == (5, "agree", 15)
    done, why = probe(10**6)
    assert (why, conclude(done).seen, conclude(done).low) == ("budget", Seen.NONE, done[-1].requests)


VAGUE, CPU = sample_estimate(4, high=5), sample_estimate(None, doubt="cpu")


@pytest.mark.parametrize(
    "why, done",
    [
        (None, [Probed(10, 0, 1.0, VAGUE)]),
        ("failures", [Probed(80, 3, 10.0, VAGUE)]),
        ("cpu", [Probed(10, 0, 1.0, CPU), Probed(20, 0, 1.0, CPU)]),
        ("scatter", [Probed(80, 0, 1.0, VAGUE)]),
        ("budget", [Probed(40, 0, 1.0, VAGUE)]),
        ("budget-of-time", [Probed(10, 0, 10.0, VAGUE)]),
    ],
)
def test_a_probe_says_why_it_ends(why, done):
    assert why_over(done, 79, 15.0) == why


@pytest.mark.parametrize("last, low, high, slots", [(14, 13, 16, 15), (9, 8, 10, 9)])
def test_of_a_probe_the_certain_burst_counts_unless_the_last_contradicts_it(last, low, high, slots):
    done = sample_estimate(15), sample_estimate(last, low=low, high=high)
    assert conclude([Probed(80, 0, 1.0, found) for found in done]).slots == slots
