"""The model against worked numbers, published figures, an independent simulation, and the textbooks of queueing."""

from __future__ import annotations

import ast
import bisect
import doctest
import itertools
import math
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import slots
from slots import NO_LIMIT, Service, predict, predict_users

HERE = Path(__file__).parent
ONE_QUEUE = Service((16,))  # of the worked numbers: 16 slots, a wait of 50 ms
PURE = {
    "__future__", "argparse", "bisect", "collections", "collections.abc", "dataclasses", "heapq", "itertools", "math",
    "random", "statistics", "sys", "textwrap", "typing",
}  # fmt: skip


def latencies_ms(forecast: slots.Forecast, first: int = 0) -> list[float]:
    """Of the requests from that number on, rounded to a microsecond."""
    spans = zip(forecast.arrived_s, forecast.answered_s, strict=True)
    return [round((answered_s - arrived_s) * 1000, 3) for arrived_s, answered_s in spans][first:]


# ---------------------------------------------------------------- the script


def test_the_examples_in_the_docstrings_hold():
    result = doctest.testmod(slots)
    assert result.failed == 0 and result.attempted > 10


def test_it_imports_nothing_that_can_do_io_or_read_a_clock():
    tree = ast.parse((HERE / "slots.py").read_text())
    imports = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imports |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imports <= PURE
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"open", "__import__", "exec", "eval", "input"}


def test_random_numbers_are_seeded_only():
    tree = ast.parse((HERE / "slots.py").read_text())
    used = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "random"
    }
    assert used == {"Random"}


def test_it_works_alone_in_an_empty_folder(tmp_path):
    shutil.copy(HERE / "slots.py", tmp_path)
    command = [sys.executable, "-I", "slots.py", "-n", "100", "--slots", "40", "--wait", "1"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "ceil(100 / 40) x 1 s = 3 s" in found.stdout and not found.stderr


# ---------------------------------------------------------------- a burst


@pytest.mark.parametrize(
    ("requests", "workers", "slots_each", "wait_s", "makespan_s"),
    [
        (0, 4, 1, 1.0, None),
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
@pytest.mark.parametrize("shared", [False, True])
def test_a_burst_takes_the_rounded_up_number_of_rounds(requests, workers, slots_each, wait_s, makespan_s, shared):
    forecast = predict([0.0] * requests, Service((slots_each,) * workers, shared), wait_s)
    assert len(forecast.answered_s) == requests
    assert slots.expected(forecast)["makespan_s"] == makespan_s
    assert slots.burst_s(requests, workers * slots_each, wait_s) == (makespan_s or 0.0)


def test_request_n_starts_at_the_floor_and_is_answered_one_task_later():
    forecast = predict([0.0] * 16, Service((1,) * 4, shared=True), 1.0)
    assert forecast.started_s == [n // 4 * 1.0 for n in range(16)]
    assert forecast.answered_s == [(n // 4 + 1) * 1.0 for n in range(16)]


@pytest.mark.parametrize(
    ("path", "slots_in_all", "wait_s", "published_rps"),
    [("/io", 4, 1.0, 4), ("/async-io", 4, 1.0, 4), ("/async-io-multi", 4, 0.5, 8.3)],
)
def test_post_a_published_the_throughput_that_the_slots_give(path, slots_in_all, wait_s, published_rps):
    figures = slots.expected(predict([0.0] * 100, Service((slots_in_all,)), wait_s))
    assert figures["throughput_rps"] == pytest.approx(published_rps, rel=0.05)


def test_post_a_fastapi_io_took_two_rounds_because_of_the_split():
    four, split = Service((40,) * 4), [41, 44, 11, 4]
    assert max(predict([0.0] * 100, four, 1.0).answered_s) == 1.0
    figures = slots.expected(predict([0.0] * 100, four, 1.0, slots.spread_evenly(split)))
    assert figures["throughput_rps"] == pytest.approx(48.3, rel=0.05)
    assert slots.split_burst_s(split, 40, 1.0) == figures["makespan_s"] == 2.0


def test_post_c_published_the_ratio_of_the_slots():
    (flask_rps, _), (fastapi_rps, _) = slots.closed_loop(500, 16, 0.05), slots.closed_loop(500, 60, 0.05)
    assert (flask_rps, fastapi_rps) == (320, 1200)
    assert fastapi_rps / flask_rps == pytest.approx(992 / 265, rel=0.05)


@pytest.mark.parametrize(
    ("split", "slots_each", "rounds"),
    [([], 1, 0), ([16], 4, 4), ([62, 2, 0, 0], 4, 16), ([16, 16, 16, 16], 4, 4), ([1000], math.inf, 1)],
)
def test_the_slowest_worker_decides(split, slots_each, rounds):
    assert slots.split_burst_s(split, slots_each, 0.5) == rounds * 0.5
    if split:
        service = Service((slots_each,) * len(split))
        assert max(predict([0.0] * sum(split), service, 0.5, slots.spread_evenly(split)).answered_s) == rounds * 0.5


@given(st.integers(1, 500), st.integers(1, 8), st.sampled_from([1, 4, 40, math.inf]))
def test_no_split_is_faster_than_the_even_one(requests, workers, slots_each):
    even = [requests // workers + (worker < requests % workers) for worker in range(workers)]
    one_queue_s = slots.burst_s(requests, workers * slots_each, 1.0)
    assert slots.split_burst_s(even, slots_each, 1.0) == one_queue_s
    assert slots.split_burst_s([requests], slots_each, 1.0) >= one_queue_s


# ---------------------------------------------------------------- passes


@pytest.mark.parametrize(
    ("passes", "answered"),
    [
        ((1,), {0.3: 40, 0.6: 40, 0.9: 40}),
        ((1, 0), {0.9: 120}),  # a response model: nobody is answered before the whole queue has run
        ((0, 1), {0.3: 40, 0.6: 40, 0.9: 40}),  # a `def` dependency that waits for nothing
        ((1, 1), {1.2: 40, 1.5: 40, 1.8: 40}),  # the second wait comes after the first of all others
    ],
)
def test_a_request_that_queues_twice_queues_behind_all_others(passes, answered):
    forecast = predict([0.0] * 120, Service((40,), passes=passes), 0.3)
    assert Counter(round(answered_s, 6) for answered_s in forecast.answered_s) == answered


def test_the_start_of_a_request_is_that_of_its_handler():
    forecast = predict([0.0] * 4, Service((2,), passes=(0.5, 1, 0)), 1.0)
    assert forecast.started_s == [1.0, 1.0, 2.0, 2.0] and set(forecast.answered_s) == {3.0}


# ---------------------------------------------------------------- users: closed loop and ramp


@pytest.mark.parametrize(
    ("users", "mean_ms", "shares"),
    [
        (10, 50.0, {50: 1.0}),
        (20, 62.5, {50: 0.75, 100: 0.25}),
        (32, 100.0, {100: 1.0}),
        (200, 625.0, {600: 0.5, 650: 0.5}),
    ],
)
def test_users_in_step_wait_for_a_whole_number_of_rounds(users, mean_ms, shares):
    later = latencies_ms(predict_users(users, ONE_QUEUE, 0.05, requests=users * 81), first=users)
    assert math.fsum(later) / len(later) == pytest.approx(mean_ms, rel=1e-6)
    assert {latency: count / len(later) for latency, count in Counter(later).items()} == pytest.approx(shares)
    assert slots.closed_loop(users, 16, 0.05) == pytest.approx((min(users, 16) / 0.05, mean_ms / 1000))


def test_a_process_that_holds_half_of_the_users_makes_the_p95():
    """Post C's Flask fan-out: 4 x 4 threads, 500 users, a p95 of some 3 s instead of c t / S = 1.56 s."""
    split = [252, 83, 83, 82]
    forecast = predict_users(500, Service((4,) * 4), 0.05, time_limit_s=60, connections_of_process=split)
    figures = slots.expected(forecast, 60)
    assert figures["p95_s"] == pytest.approx(3.15, rel=0.01)
    assert figures["throughput_rps"] == pytest.approx(320, rel=0.01)
    assert slots.closed_loop(252, 4, 0.05)[1] == pytest.approx(3.15)


def test_users_who_think_send_less():
    forecast = predict_users(64, ONE_QUEUE, 0.05, time_limit_s=30, think_s=0.35)
    assert slots.closed_loop(1, 1, 0.5, 0.5) == (1.0, 0.5)
    rps, mean_s = slots.closed_loop(64, 16, 0.05, 0.35)
    assert (rps, mean_s) == pytest.approx((160, 0.05))
    assert slots.expected(forecast, 30)["throughput_rps"] == pytest.approx(rps, rel=0.02)
    assert slots.closed_loop(200, 16, 0.05, 0.35) == pytest.approx((320, 0.275))


def test_sending_stops_at_the_time_limit_and_what_is_under_way_is_answered():
    forecast = predict_users(3, Service((2,)), 1.0, time_limit_s=2.0)
    assert forecast.arrived_s == [0, 0, 0, 1, 1] and forecast.answered_s == [1, 1, 2, 2, 3]
    assert slots.expected(forecast, 2.0)["throughput_rps"] == 2.0


def users_of_k6(stages: list[tuple[float, int]], elapsed_s: float) -> int:
    begin_s, users = 0.0, 0
    for stage_s, target in stages:
        if elapsed_s < begin_s + stage_s:
            return math.ceil(users + (target - users) * (elapsed_s - begin_s) / stage_s)
        begin_s, users = begin_s + stage_s, target
    return users


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 12)), min_size=1, max_size=4))
def test_a_ramp_has_the_users_that_k6_would_allow(stages):
    """Up at once, down as soon as a request of 50 ms is answered."""
    forecast = predict_users(stages, Service((NO_LIMIT,)), 0.05)
    moments_s = [moment * 0.0737 + 0.001 for moment in range(int(sum(stage_s for stage_s, _ in stages) / 0.0737))]
    spans = list(zip(forecast.arrived_s, forecast.answered_s, strict=True))
    for moment_s in moments_s:
        under_way = sum(arrived_s <= moment_s < answered_s for arrived_s, answered_s in spans)
        recent = [users_of_k6(stages, max(0.0, moment_s - back * 0.051 / 50)) for back in range(51)]
        assert users_of_k6(stages, moment_s) <= under_way <= max(recent)


def test_a_ramp_ends_with_its_last_stage():
    forecast = predict_users([(1.0, 4), (1.0, 2)], Service((2,)), 0.1)
    assert max(forecast.arrived_s) < 2.0 and slots.expected(forecast, 2.0)["throughput_rps"] == pytest.approx(
        20, rel=0.1
    )


@pytest.mark.parametrize(
    "limits", [{}, {"time_limit_s": 1.0, "wait_s": 0.0}, {"time_limit_s": 1000.0, "wait_s": lambda i: 0.0}]
)
def test_a_loop_that_nothing_ends_is_refused(limits, monkeypatch):
    monkeypatch.setattr(slots, "MOST_REQUESTS", 1000)
    with pytest.raises(slots.Problem):
        predict_users(3, Service((2,)), **{"wait_s": 1.0, **limits})


# ---------------------------------------------------------------- schedules: open loop


def test_an_overloaded_schedule_builds_a_queue():
    """rho = 1.2 for 10 s: the last waits 1.99 s, half of them 0.99 s, and all is answered after 12.04 s."""
    forecast = predict(slots.constant_schedule(384, duration_s=10), ONE_QUEUE, 0.05)
    waited_s = [start_s - due_s for due_s, start_s in zip(forecast.arrived_s, forecast.started_s, strict=True)]
    assert waited_s == pytest.approx([slots.overload_wait_s(k, 384, 16, 0.05) for k in range(3840)], abs=1e-9)
    assert round(waited_s[-1], 2) == 1.99 and round(slots.nearest_rank(sorted(waited_s), 50), 2) == 0.99
    assert round(forecast.answered_s[-1], 2) == 12.04


@pytest.mark.parametrize("rate", [100, 256, 320])
def test_evenly_spaced_arrivals_wait_for_nothing_below_the_ceiling(rate):
    assert set(latencies_ms(predict(slots.constant_schedule(rate, 5000), ONE_QUEUE, 0.05))) == {50.0}


def test_a_schedule_ends_at_its_number_or_its_time():
    assert slots.constant_schedule(10, 5, 0.35) == [0.0, 0.1, 0.2, 0.3] and len(slots.constant_schedule(10, 3, 9)) == 3
    due_s = slots.poisson_schedule(256, duration_s=100)
    assert len(due_s) == pytest.approx(25_600, rel=0.03) and due_s == sorted(due_s) and due_s[-1] < 100
    assert slots.poisson_schedule(256, 10) == due_s[:10] != slots.poisson_schedule(256, 10, seed=2)


@pytest.mark.parametrize("distribution", slots.DISTRIBUTIONS)
def test_drawn_waits_have_the_mean_that_was_asked_for(distribution):
    drawn_s = [slots.drawn_wait_s(0.05, distribution, number) for number in range(20_000)]
    assert math.fsum(drawn_s) / len(drawn_s) == pytest.approx(0.05, rel=0.03)
    assert slots.drawn_wait_s(0.0, distribution, 1) == 0.0


# ---------------------------------------------------------------- the recursion and an independent simulation


@given(st.lists(st.floats(0, 3), max_size=60), st.sampled_from([1, 2, 3, 7, math.inf]), st.floats(0, 1))
def test_with_one_wait_the_queue_is_the_recursion(arrivals_s, size, wait_s):
    arrivals_s.sort()
    start_s: list[float] = []
    for n, arrival_s in enumerate(arrivals_s):
        start_s.append(max(arrival_s, start_s[n - size] + wait_s) if n >= size else arrival_s)
    assert predict(arrivals_s, Service((size,)), wait_s).started_s == start_s


def simulate(service: Service, waits_s, sends, queue_of, again=lambda now_s, user: None):
    """Event by event, with counters and lists: slots that are busy, who queues, who is done when.

    sends: (when, user) in order; queue_of(request, user); again(now_s, user): when that user sends the next one.
    """
    free = [sum(service.slots)] if service.shared else list(service.slots)
    queued: list[list] = [[] for _ in free]
    upcoming, running, times = sorted(sends), [], []  # running: (end, request, pass, user)
    handler = service.passes.index(max(service.passes))

    def start(queue: int, now_s: float) -> None:
        while free[queue] and queued[queue]:
            request, turn, user = queued[queue].pop(0)
            free[queue] -= 1
            if turn == handler:
                times[request][1] = now_s
            running.append((now_s + waits_s(request) * service.passes[turn], request, turn, user))

    while running or upcoming:
        if running and (not upcoming or min(running)[0] <= upcoming[0][0]):
            now_s, request, turn, user = min(running)
            running.remove(min(running))
            queue = queue_of(request, user)
            free[queue] += 1
            start(queue, now_s)
            if turn + 1 < len(service.passes):
                queued[queue].append((request, turn + 1, user))
            else:
                times[request][2] = now_s
                if (next_s := again(now_s, user)) is not None:
                    bisect.insort(upcoming, (next_s, user))
        else:
            now_s, user = upcoming.pop(0)
            queue = queue_of(len(times), user)
            queued[queue].append((len(times), 0, user))
            times.append([now_s, now_s, now_s])
        start(queue, now_s)
    return tuple(list(column) for column in zip(*times, strict=True)) if times else ([], [], [])


SIZES = st.sampled_from([1, 2, 3, 5, math.inf])
PASSES = st.sampled_from([(1.0,), (1.0, 0.0), (0.0, 1.0), (0.5, 1.0, 0.25), (0.0, 0.0, 1.0)])
TICKS = st.integers(0, 40).map(lambda ticks: ticks / 16)  # so that many things happen at the same moment, exactly


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(TICKS, TICKS, st.integers(0, 3)), max_size=40),
    st.lists(SIZES, min_size=1, max_size=4),
    PASSES,
    st.sampled_from(["shared", "in turn", "as logged"]),
    st.booleans(),
)
def test_an_open_loop_is_what_an_independent_simulation_gives(requests, sizes, passes, how, one_wait):
    arrivals_s = sorted(arrival_s for arrival_s, _, _ in requests)
    # Drawn waits differ a little, all of them: which of two that end at the same moment goes first is not settled.
    waits_s = [0.3125 if one_wait else wait_s + math.sqrt(i + 2) / 1e6 for i, (_, wait_s, _) in enumerate(requests)]
    service = Service(tuple(sizes), how == "shared", passes)
    process_of = [worker % len(sizes) for _, _, worker in requests] if how == "as logged" else []
    count = len(service.queues)
    simulated = simulate(
        service, waits_s.__getitem__, list(zip(arrivals_s, range(len(arrivals_s)), strict=True)),
        lambda i, user: process_of[i] if process_of else i % count,
    )  # fmt: skip
    forecast = predict(arrivals_s, service, 0.3125 if one_wait else waits_s, process_of)
    assert tuple(forecast) == simulated


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 80), st.lists(SIZES, min_size=1, max_size=3), PASSES,
    st.sampled_from(["shared", "in turn", "pinned"]), st.sampled_from([0.0, 0.37]), st.integers(0, 1000),
)  # fmt: skip
def test_a_closed_loop_is_what_an_independent_simulation_gives(users, requests, sizes, passes, how, think_s, seed):
    draw = random.Random(seed)
    waits_s = [draw.uniform(0.01, 1) for _ in range(requests + users)]
    service = Service(tuple(sizes), how == "shared", passes)
    held = [draw.randint(1, 5) for _ in sizes] if how == "pinned" else []
    home = slots.spread_evenly(held)
    sent = users = min(users, requests)

    def again(now_s: float, user: int) -> float | None:
        nonlocal sent
        sent += 1
        return now_s + think_s if sent <= requests else None

    def queue_of(i: int, user: int) -> int:
        return home[user % len(home)] if home and len(sizes) > 1 else i % len(service.queues)

    simulated = simulate(service, waits_s.__getitem__, [(0.0, user) for user in range(users)], queue_of, again)
    forecast = predict_users(users, service, waits_s, requests=requests, think_s=think_s, connections_of_process=held)
    assert tuple(forecast) == simulated


def test_dealing_in_turn_to_equal_queues_is_as_good_as_one_queue():
    due_s = slots.poisson_schedule(256, 5000)
    assert predict(due_s, Service((4,) * 4), 0.05) == predict(due_s, ONE_QUEUE, 0.05)


def test_a_forecast_is_refused_for_requests_out_of_order_or_a_split_of_others():
    for arrivals_s, process_of in (([1.0, 0.0], []), ([0.0, 0.0], [0])):
        with pytest.raises(ValueError):
            predict(arrivals_s, Service((1, 1)), 1.0, process_of)


@pytest.mark.parametrize("sizes", [(), (0,), (4, 0.5)])
def test_a_server_without_slots_is_refused(sizes):
    with pytest.raises(slots.Problem):
        Service(sizes)


@pytest.mark.parametrize("load", ["burst", "rate", "closed", "pinned", "ramp"])
def test_a_hundred_thousand_requests_are_predicted_at_once(load):
    begun_s = time.perf_counter()
    forecast = {
        "burst": lambda: predict([0.0] * 100_000, ONE_QUEUE, 0.05),
        "rate": lambda: predict(slots.poisson_schedule(256, 100_000), Service((4,) * 4), 0.05),
        "closed": lambda: predict_users(200, ONE_QUEUE, 0.05, requests=100_000),
        "pinned": lambda: predict_users(
            500, Service((4,) * 4), 0.05, requests=100_000, connections_of_process=[252, 83, 83, 82]
        ),
        "ramp": lambda: predict_users([(5, 50), (400, 500)], ONE_QUEUE, 0.05, requests=100_000),
    }[load]()
    assert len(forecast.answered_s) == 100_000 and time.perf_counter() - begun_s < 2.0


# ---------------------------------------------------------------- the figures of a forecast


@pytest.mark.parametrize(
    ("n", "per_cent", "value"),
    [(100, 99, 99), (99, 99, None), (10, 90, 9), (9, 90, None), (20, 95, 19), (19, 95, None), (1000, 99.9, 999)],
)
def test_a_percentile_is_one_of_the_values_or_nothing(n, per_cent, value):
    assert slots.nearest_rank(range(1, n + 1), per_cent) == value


def test_the_figures_are_those_of_the_latencies():
    figures = slots.expected(predict([0.0] * 100, Service((40,)), 1.0), spread_s=2.5)
    assert figures == {
        "throughput_rps": pytest.approx(100 / 3), "mean_s": 1.8, "median_s": 2.0, "p95_s": 3.0, "p99_s": 3.0,
        "makespan_s": 3.0, "spread_s": 2.5,
    }  # fmt: skip


def test_nothing_has_no_figures():
    assert set(slots.expected(predict([], ONE_QUEUE, 1.0)).values()) == {None}


# ---------------------------------------------------------------- closed forms


@pytest.mark.parametrize(("size", "rps"), [(16, 314), (40, 784), (51, 1000), (100, 1000)])
def test_threads_beyond_the_knee_buy_nothing(size, rps):
    found_rps, latency_s = slots.two_resources(200, size, 0.05, 0.001, 1)
    assert round(found_rps) == rps and latency_s == pytest.approx(200 / found_rps)
    assert slots.knee_slots(0.05, 0.001, 1) == pytest.approx(51)


def test_without_cpu_time_only_the_slots_limit():
    assert slots.two_resources(200, 16, 0.05, 0.0, 1) == pytest.approx(slots.closed_loop(200, 16, 0.05))
    assert slots.knee_slots(0.05, 0.0, 1) == math.inf


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (slots.burst_form(100, 40, 1.0), ["ceil(100 / 40) x 1 s = 3 s"]),
        (slots.burst_form(100, NO_LIMIT, 1.0), ["no limit", "1 s"]),
        (slots.closed_form(200, 16, 0.05), ["c t / S = 200 x 50 ms / 16 = 625 ms", "320 requests/s", "50% 600 ms"]),
        (slots.closed_form(20, 16, 0.05), ["62.5 ms", "75% 50 ms, 25% 100 ms"]),
        (slots.closed_form(10, 16, 0.05), ["c / t = 10 / 50 ms = 200 requests/s", "nobody waits"]),
        (slots.closed_form(200, 16, 0.05, 0.35), ["= 275 ms", "think"]),
        (slots.open_form(384, 3840, 16, 0.05), ["grows by 0.2 s a second", "the last waits 1.99 s"]),
        (slots.open_form(256, 2560, 16, 0.05), ["= 0.8", "best case"]),
        (slots.open_form(256, 2560, 16, 0.05, poisson=True), ["2.63 ms", "p95 15.7 ms", "p99 27.2 ms"]),
        (slots.open_form(288, 2560, 16, 0.05, poisson=True), ["= 0.9.", "steep here", "2 % longer p99 is 80.6 ms"]),
        (slots.open_form(313.7, 2560, 16, 0.05, poisson=True), ["= 0.98.", "2 % longer p99 is"]),
        (slots.open_form(314, 2560, 16, 0.05, poisson=True), ["= 0.981.", "2 % longer the queue has no end"]),
        (slots.open_form(256, 2560, NO_LIMIT, 0.05, poisson=True), ["nobody waits"]),
    ],
)
def test_a_closed_form_shows_its_numbers(text, says):
    assert all(words in text for words in says), text


# ---------------------------------------------------------------- random arrivals, exactly


@pytest.mark.parametrize(
    ("load", "mean_ms", "quantiles_ms"),
    [(0.8, 2.63, {50: 0.0, 95: 15.7, 99: 27.2}), (0.9, 9.62, {99: 63.2}), (0.95, 24.8, {99: 135})],
)
def test_random_arrivals_wait_as_long_as_queueing_theory_says(load, mean_ms, quantiles_ms):
    rate = load * 320
    assert float(f"{slots.md_c_mean_wait_s(rate, 0.05, 16) * 1000:.3g}") == mean_ms
    for per_cent, wait_ms in quantiles_ms.items():
        found_s = slots.md_c_wait_quantile(rate, 0.05, 16, per_cent)
        assert float(f"{found_s * 1000:.3g}") == wait_ms
        if found_s:
            assert slots.md_c_wait_cdf(rate, 0.05, 16, found_s) == pytest.approx(per_cent / 100)


@pytest.mark.parametrize("load", [0.01, 0.3, 0.8, 0.95, 0.999, 0.9999])
def test_with_one_slot_it_is_the_textbook_formula(load):
    """M/D/1, t = 1. Mean: Pollaczek-Khinchine. Distribution: Erlang 1909, in whole numbers, as its terms alternate."""
    assert slots.md_c_mean_wait_s(load, 1.0, 1) == pytest.approx(load / (2 * (1 - load)), rel=1e-6)
    assert slots.md_c_wait_cdf(load, 1.0, 1, 0.0) == pytest.approx(1 - load, rel=1e-6)
    for waited_s in (0.3, 1.0, 2.5, 7.9):
        terms = [
            math.exp(load * (waited_s - k)) * (load * (k - waited_s)) ** k / math.factorial(k)
            for k in range(int(waited_s) + 1)
        ]
        exact = (1 - load) * math.fsum(terms)
        assert slots.md_c_wait_cdf(load, 1.0, 1, waited_s) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize(("load", "size"), [(0.3, 2), (0.8, 4), (0.9, 7)])
def test_the_queue_length_is_that_of_the_markov_chain(load, size):
    """Seen every t: n' = max(0, n - S) + Poisson(rate t), iterated until it stands still."""
    arrivals = [math.exp(-load * size) * (load * size) ** j / math.factorial(j) for j in range(60)]
    in_system = [1.0] + [0.0] * 299
    for _ in range(400):
        queued = [math.fsum(in_system[: size + 1]), *in_system[size + 1 :]]
        spread = [queued[i] for i in range(len(queued))]
        in_system = [
            math.fsum(spread[i] * arrivals[n - i] for i in range(max(0, n - 59), min(n + 1, len(spread))))
            for n in range(300 if load > 0.85 else 120)
        ]
    exact = slots.RandomArrivals(load * size, 1.0, size)
    for n in (0, 1, 2, 5, 20, 40):
        assert exact.queue_at_most(n) == pytest.approx(math.fsum(in_system[: size + n + 1]), abs=1e-6)


@pytest.mark.parametrize("size", [1, 16, 100, 400])
@pytest.mark.parametrize("load", [0.05, 0.5, 0.9, 0.99, 0.999])
def test_the_queue_is_in_balance_and_its_wait_a_distribution_at_any_load_and_size(load, size):
    queue = slots.RandomArrivals(load * size, 1.0, size)
    most = int(load * size + 12 * math.sqrt(load * size) + 30)
    arrivals = [math.exp(j * math.log(load * size) - load * size - math.lgamma(j + 1)) for j in range(most)]
    for n in (0, 1, 2, 5, 20, 100, 1000):  # M = max(0, M + arrivals - S): what goes in is what comes out
        after = math.fsum(p * queue.queue_at_most(n + size - j) for j, p in enumerate(arrivals))
        assert queue.queue_at_most(n) == pytest.approx(after, abs=1e-9)
    moments_s = [step * queue.wait_quantile_s(99) / 40 for step in range(41)]
    shares = [queue.wait_cdf(moment_s) for moment_s in moments_s]
    assert all(-1e-9 <= share <= 1 + 1e-9 for share in shares)
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(shares))
    heavy_traffic_s = 1 / (2 * size * (1 - load))  # of an M/D/1 queue as fast as all slots together
    assert queue.mean_wait_s <= heavy_traffic_s * load * 1.0001


def random_split_p99_ms(sizes: tuple[int, ...], requests: int = 200_000) -> float:
    due_s, draw = slots.poisson_schedule(256, requests, seed=5), random.Random(6)
    process_of = [draw.randrange(len(sizes)) for _ in due_s] if len(sizes) > 1 else []
    forecast = predict(due_s, Service(sizes), 0.05, process_of)
    waited_s = sorted(start_s - due for due, start_s in zip(due_s, forecast.started_s, strict=True))
    return waited_s[int(requests * 0.99)] * 1000


@pytest.mark.parametrize(("sizes", "p99_ms"), [((16,), 27.2), ((8,) * 2, 58), ((4,) * 4, 123), ((1,) * 16, 518)])
def test_the_same_slots_in_several_queues_cost_a_multiple_of_the_p99(sizes, p99_ms):
    """One queue of 16 slots at 80 % of load, or several with requests dealt at random."""
    exact_s = slots.md_c_wait_quantile(256 / len(sizes), 0.05, sizes[0], 99)
    assert exact_s * 1000 == pytest.approx(p99_ms, rel=0.02)
    assert random_split_p99_ms(sizes) == pytest.approx(exact_s * 1000, rel=0.1)


@pytest.mark.parametrize(
    ("rate", "wait_s", "objective_s", "fewest"),
    [(256, 0.05, 0.1, 15), (256, 0.05, 0.06, 20), (1000, 0.05, 0.06, 59), (100, 0.2, 0.25, 27), (1, 0.05, 0.5, 1)],
)
def test_the_fewest_slots_that_hold_an_objective(rate, wait_s, objective_s, fewest):
    assert slots.slots_for(rate, wait_s, objective_s) == fewest
    p99_s = wait_s + slots.md_c_wait_quantile(rate, wait_s, fewest, 99)
    assert p99_s <= objective_s
    if fewest - 1 > rate * wait_s:
        assert wait_s + slots.md_c_wait_quantile(rate, wait_s, fewest - 1, 99) > objective_s


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((100, 0.05, 0.04), "no request is answered within 40 ms"), ((100, 0.05, 0.1, 99, 0.02, 1), "need 2 CPUs of 1")],
)
def test_an_objective_that_cannot_be_met_is_refused_with_the_reason(arguments, message):
    with pytest.raises(slots.Problem, match=message):
        slots.slots_for(*arguments)


@pytest.mark.parametrize(("rate", "wait_s", "size"), [(320, 0.05, 16), (400, 0.05, 16), (0, 1, 1), (1, 0, 1)])
def test_a_queue_that_has_no_steady_state_is_refused(rate, wait_s, size):
    with pytest.raises(slots.Problem):
        slots.RandomArrivals(rate, wait_s, size)


# ---------------------------------------------------------------- the calculator


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("-n 100 --slots 40 --wait 1", ["= 3 s", "40          0 s          1 s", "20          2 s          3 s"]),
        ("--split 41,44,11,4 --slots 40 --wait 1", ["the fullest process", "= 2 s", "5          1 s          2 s"]),
        ("-n 120 --slots 40 --wait 0.3 --passes 2", ["40       600 ms       900 ms", "p99 900 ms", "one pass"]),
        ("-n 100 --slots 40 --workers 4 --wait 1", ["ceil(100 / 160) x 1 s = 1 s", "100 requests/s"]),
        ("-c 200 --slots 16 --wait 0.05", ["= 625 ms", "p99 650 ms"]),
        ("-c 40 --slots 4 --workers 4 --split 28,4,4,4 --wait 0.05", ["28 x 50 ms / 4 = 350 ms"]),
        ("--rate 384 -t 10 --slots 16 --wait 0.05", ["0.2 s a second", "1.99 s", "after 12.04 s"]),
        ("--rate 256 --arrivals poisson --seed 3 --slots 16 --wait 0.05", ["p99 27.2 ms"]),
        ("--ramp 5s:50,10s:200 --slots 16 --wait 0.05", ["at the most users", "625 ms"]),
        ("-n 20 --slots 4 --workers 2 --one-queue --distribution exp", ["ceil(20 / 8)", "constant wait"]),
        ("-n 5 --wait 0", ["the last answer after 0 s"]),
    ],
)
def test_the_calculator_shows_the_closed_form_and_the_prediction(capsys, arguments, says):
    assert slots.main(arguments.split()) == 0
    out, err = capsys.readouterr()
    assert all(words in out for words in says), out
    assert not err and all(len(line) < 80 for line in out.splitlines())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--slots 4", "which load?"),
        ("-n 0", "from 1 to 5000000"),
        ("-n 5 --wait nan", "'nan' is not a number"),
        ("-n 5 --wait -1", "not a number from 0"),
        ("-n five", "not a whole number"),
        ("-n 5 --slots 2.5", "not a whole number"),
        ("-c 5 --rate 5", "not allowed with"),
        ("-c 5 --wait 0", "a closed loop needs"),
        ("--ramp 5s,10", "is not like 5s:50,10s:200"),
        ("--ramp 5s:0", "no users"),
        ("-n 5 --split 1,x", "not a whole number"),
        ("--split 1,2 --workers 3", "--split has a number for each"),
        ("--split 1,2 -n 5", "--split shares out 3"),
        ("--nonsense", "unrecognized arguments"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(capsys, arguments, message):
    assert slots.main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert not out and message in err and err.startswith("slots.py: ") and err.count("\n") == 1


@pytest.mark.parametrize("arguments", ["--rate 100 -t 11", "-c 10 --wait 0.005 -t 1", "--ramp 1s:1,9s:999 --wait 0.1"])
def test_more_requests_than_memory_holds_are_refused(capsys, monkeypatch, arguments):
    monkeypatch.setattr(slots, "MOST_REQUESTS", 1000)
    assert slots.main(arguments.split()) == 2
    assert "more than 1000 requests are too many" in capsys.readouterr().err


def test_no_arguments_print_the_manual(capsys):
    assert slots.main([]) == 0
    assert capsys.readouterr().out.strip() == slots.__doc__.strip()
    assert all(len(line) < 80 for line in slots.__doc__.splitlines())


@pytest.mark.parametrize("arguments", ["", "-n 100 --slots 1"])
def test_a_reader_that_has_seen_enough_is_no_error(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, HERE / "slots.py", *arguments.split()]
    found = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (found.returncode, found.stderr) == (0, "")
