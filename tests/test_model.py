"""The model against worked numbers, published figures, and a simulation of another construction."""

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import model
from engine.model import Forecast, Service, predict, predict_users
from engine.stats import figures_of, nearest_rank
from engine.words import Problem

ONE_QUEUE = Service((16,))  # of the worked numbers: 16 slots, a wait of 50 ms


def latencies_ms(forecast: Forecast) -> list[float]:
    spans = zip(forecast.arrived_s, forecast.answered_s, strict=True)
    return [round((answered_s - arrived_s) * 1000, 3) for arrived_s, answered_s in spans]


# ---------------------------------------------------------------- a burst


@pytest.mark.parametrize(
    ("requests", "workers", "slots_each", "wait_s", "last_s"),
    [
        (5, 4, 1, 1.0, 2.0),
        (16, 4, 1, 1.0, 4.0),  # post A: /io and /async-io in 4 s
        (16, 4, 1, 0.5, 2.0),  # post A: /async-io-multi in 2 s
        (100, 1, 40, 1.0, 3.0),
        (6, 1, 1, 10.0, 60.0),  # post B: time.sleep(10) in `async def`
        (6, 1, math.inf, 10.0, 10.0),  # post B: its asyncio.sleep fix
    ],
)
@pytest.mark.parametrize("shared", [False, True])
def test_a_burst_takes_the_rounded_up_number_of_rounds(requests, workers, slots_each, wait_s, last_s, shared):
    forecast = predict([0.0] * requests, Service((slots_each,) * workers, shared), wait_s)
    assert len(forecast.answered_s) == requests
    assert figures_of(forecast)["makespan_s"] == last_s
    assert model.rounds(requests, workers * slots_each) * wait_s == last_s


def test_post_a_and_its_split_of_41_44_11_4():
    """Published: 48.3 requests/s of FastAPI's /io, since the split of the requests made it two rounds."""
    four, split = Service((40,) * 4), [41, 44, 11, 4]
    assert max(predict([0.0] * 100, four, 1.0).answered_s) == 1.0
    figures = figures_of(predict([0.0] * 100, four, 1.0, model.spread_evenly(split)))
    assert figures["throughput_rps"] == pytest.approx(48.3, rel=0.05)
    assert figures["makespan_s"] == 2.0


def test_a_request_that_queues_twice_queues_behind_all_others():
    """With a response model no request is answered before the whole queue has run; a dependency that waits is free."""
    for passes, answered in (((1, 0), {0.9: 120}), ((0, 1), {0.3: 40, 0.6: 40, 0.9: 40})):
        forecast = predict([0.0] * 120, Service((40,), passes=passes), 0.3)
        assert Counter(round(answered_s, 6) for answered_s in forecast.answered_s) == answered


# ---------------------------------------------------------------- users and schedules


@pytest.mark.parametrize(
    ("users", "mean_ms", "shares"), [(20, 62.5, {50: 0.75, 100: 0.25}), (200, 625.0, {600: 0.5, 650: 0.5})]
)
def test_users_in_step_wait_for_a_whole_number_of_rounds(users, mean_ms, shares):
    later = latencies_ms(predict_users(users, ONE_QUEUE, 0.05, requests=users * 81))[users:]
    assert math.fsum(later) / len(later) == pytest.approx(mean_ms, rel=1e-6)
    assert {latency: count / len(later) for latency, count in Counter(later).items()} == pytest.approx(shares)
    assert model.closed_loop(users, 16, 0.05) == pytest.approx((min(users, 16) / 0.05, mean_ms / 1000))


def test_post_c_and_its_process_that_held_half_of_the_users():
    """Flask's fan-out: 4 x 4 threads, 500 users, a p95 of some 3 s instead of c t / S = 1.56 s. FastAPI: 60 slots."""
    held = [252, 83, 83, 82]
    forecast = predict_users(
        500, Service((4,) * 4), 0.05, time_limit_s=60, process_of=model.spread_evenly(held), keeps=True
    )
    figures = figures_of(forecast, 60)
    assert figures["p95_s"] == pytest.approx(3.15, rel=0.01) == model.closed_loop(252, 4, 0.05)[1]
    assert figures["throughput_rps"] == pytest.approx(320, rel=0.01)
    assert model.closed_loop(500, 60, 0.05)[0] / 320 == pytest.approx(992 / 265, rel=0.05)


def test_users_who_think_send_less():
    rps, mean_s = model.closed_loop(64, 16, 0.05, 0.35)
    assert (rps, mean_s) == pytest.approx((160, 0.05))
    forecast = predict_users(64, ONE_QUEUE, 0.05, time_limit_s=30, think_s=0.35)
    assert figures_of(forecast, 30)["throughput_rps"] == pytest.approx(rps, rel=0.02)


def test_sending_stops_at_the_time_limit_and_what_is_under_way_is_answered():
    forecast = predict_users(3, Service((2,)), 1.0, time_limit_s=2.0)
    assert forecast.arrived_s == [0, 0, 0, 1, 1] and forecast.answered_s == [1, 1, 2, 2, 3]
    assert figures_of(forecast, 2.0)["throughput_rps"] == 2.0


@pytest.mark.parametrize("limits", [{}, {"time_limit_s": 1.0, "wait_s": 0.0}, {"requests": 1001}])
def test_a_loop_that_does_not_end_or_ends_too_late_is_refused(limits, monkeypatch):
    monkeypatch.setattr(model, "MOST_REQUESTS", 1000)
    with pytest.raises(Problem):
        predict_users(3, Service((2,)), **{"wait_s": 1.0, **limits})
    with pytest.raises(Problem):
        predict([0.0] * 1001, Service((2,)), 1.0)


def test_an_overloaded_schedule_builds_a_queue_and_another_does_not():
    """D/D/c, rho = 1.2 for 10 s: the last waits 1.99 s, half of them 0.99 s, and all is answered after 12.04 s."""
    forecast = predict([k / 384 for k in range(3840)], ONE_QUEUE, 0.05)
    waited_s = [start_s - due_s for due_s, start_s in zip(forecast.arrived_s, forecast.started_s, strict=True)]
    assert waited_s == pytest.approx([k // 16 * 0.05 * (1 - 1 / 1.2) for k in range(3840)], abs=1e-9)
    assert (round(waited_s[-1], 2), round(nearest_rank(sorted(waited_s), 50), 2)) == (1.99, 0.99)
    assert round(forecast.answered_s[-1], 2) == 12.04
    assert set(latencies_ms(predict([k / 320 for k in range(5000)], ONE_QUEUE, 0.05))) == {50.0}


def test_a_schedule_ends_at_its_time_and_a_seed_makes_it_the_same():
    due_s = model.poisson_schedule(256, math.inf, 100, seed=1)
    assert len(due_s) == pytest.approx(25_600, rel=0.03) and due_s == sorted(due_s) and due_s[-1] < 100
    assert model.poisson_schedule(256, 10, math.inf, seed=1) == due_s[:10]


@pytest.mark.parametrize("distribution", model.DISTRIBUTIONS)
def test_drawn_waits_have_the_mean_that_was_asked_for(distribution):
    drawn_s = [model.drawn_wait_s(0.05, distribution, number) for number in range(20_000)]
    assert math.fsum(drawn_s) / len(drawn_s) == pytest.approx(0.05, rel=0.03)


# ---------------------------------------------------------------- an independent simulation


def simulate(service, wait_of, arrivals_s, queue_of):
    """One event after the other, with counters: slots that are free, requests that queue, events that will come."""
    free, handler = list(service.queues), service.passes.index(max(service.passes))
    queued: list[list] = [[] for _ in free]
    times = [[now_s, now_s, now_s] for now_s in arrivals_s]
    events = [(now_s, True, number, 0) for number, now_s in enumerate(arrivals_s)]  # behind what ends at that moment
    while events:
        events.sort()
        now_s, arrives, number, turn = events.pop(0)
        queue = queue_of(number)
        free[queue] += not arrives
        if turn < len(service.passes):
            queued[queue].append((number, turn))
        else:
            times[number][2] = now_s
        while free[queue] and queued[queue]:
            number, turn = queued[queue].pop(0)
            free[queue] -= 1
            if turn == handler:
                times[number][1] = now_s
            events.append((now_s + wait_of(number) * service.passes[turn], False, number, turn + 1))
    return [list(column) for column in zip(*times, strict=True)] or [[], [], []]


SIZES = st.lists(st.sampled_from([1, 2, 3, 5, math.inf]), min_size=1, max_size=4)
PASSES = st.sampled_from([(1.0,), (1.0, 0.0), (0.0, 1.0), (0.5, 1.0, 0.25), (0.0, 0.0, 1.0)])
TICKS = st.integers(0, 40).map(lambda ticks: ticks / 16)  # so that many things happen at the same moment, exactly
DICE = st.randoms(use_true_random=False)


@settings(max_examples=300, deadline=None)
@given(st.lists(TICKS, max_size=40).map(sorted), SIZES, PASSES, st.booleans(), st.booleans(), DICE)
def test_an_open_loop_is_what_an_independent_simulation_gives(arrivals_s, sizes, passes, shared, one_wait, dice):
    waits_s = [0.3125 if one_wait else dice.uniform(0.01, 1) for _ in arrivals_s]
    process_of = [dice.randrange(len(sizes)) for _ in arrivals_s]
    service = Service(tuple(sizes), shared, passes)
    simulated = simulate(service, waits_s.__getitem__, arrivals_s, lambda i: 0 if shared else process_of[i])
    wait_s = 0.3125 if one_wait else waits_s.__getitem__
    assert [*predict(arrivals_s, service, wait_s, process_of)] == simulated


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 12), st.integers(1, 80), SIZES, PASSES, st.sampled_from([0.0, 0.37]), DICE)
def test_a_closed_loop_is_an_open_loop_that_its_own_answers_make(users, requests, sizes, passes, think_s, dice):
    waits_s = [dice.uniform(0.01, 1) for _ in range(requests)]
    service, first = Service(tuple(sizes), passes=passes), min(users, requests)
    forecast = predict_users(users, service, waits_s.__getitem__, requests=requests, think_s=think_s)
    again_s = sorted(answered_s + think_s for answered_s in forecast.answered_s)
    assert forecast.arrived_s == [0.0] * first + again_s[: requests - first]
    assert forecast == predict(forecast.arrived_s, service, waits_s.__getitem__)
