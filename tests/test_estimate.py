"""Tests of the estimate: servers whose slots are known, by the model or event by event, read as a real one would be."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from engine.estimate import DOUBTS, Probed, conclude, estimate, estimate_of, fitting, holds, next_burst, with_suspects
from engine.loads import Burst, Closed, Open
from engine.model import Service, predict, predict_users
from engine.run import Estimate, Seen
from tests.samples import LAUNCH, sample_columns, sample_estimate, sample_facts

T = 0.1  # the wait


def waits(jitter: float, seed: object, count: int = 2000) -> list[float]:
    dice = random.Random(f"{jitter} {seed}")
    return [T * max(0.05, 1 + jitter * dice.gauss(0, 1)) + dice.uniform(0.0002, 0.002) for _ in range(count)]


def lone(jitter: float, seed: object) -> list[float]:
    return waits(jitter, f"lone {seed}", 5)


def burst(
    service: Service, requests: int, jitter: float = 0.0, seed: object = 0, deal: Sequence[int] = (),
    processes: int | None = None, cpu_s: float | None = None,
) -> Estimate:  # fmt: skip
    sent = [i * 0.00005 for i in range(requests)]
    answered = predict(sent, service, waits(jitter, seed), deal).answered_s
    found = estimate(requests, sent, answered, lone_s=lone(jitter, seed), processes=processes, cpu_s=cpu_s)
    assert found.doubt is None or found.doubt in DOUBTS
    assert found.is_certain == (found.doubt is None and found.seen is Seen.SLOTS)
    return found


def of_answers(answered: Sequence[float], lone_s: Sequence[float] = (T, T), **more: object) -> Estimate:
    return estimate(len(answered), [0.0] * len(answered), answered, lone_s=lone_s, **more)  # type: ignore[arg-type]


def rounds(*sizes: int) -> list[float]:
    """The answers of rounds of these sizes."""
    return [T * (k + 1) for k, size in enumerate(sizes) for _ in range(size)]


ONE_BY_ONE = rounds(*[1] * 40)


def contains(found: Estimate, slots: int) -> bool:
    return found.low <= slots <= (found.high or 10**9)


# ---------------------------------------------------------------- the number

SLOTS = (1, 2, 3, 4, 7, 10, 15, 16, 40, 100)


@pytest.mark.parametrize("jitter", (0.0, 0.1, 0.3))
@pytest.mark.parametrize("slots", SLOTS)
def test_a_certain_number_is_exact(slots: int, jitter: float) -> None:
    counts = [count for count in (1, 2, 4) if slots % count == 0]
    found = [
        burst(Service((slots // count,) * count), rounds * slots + 1, jitter, seed, processes=known)
        for rounds, seed in itertools.product((1, 2, 3, 5, 8), range(3))
        for count in counts
        for known in (None, count)
    ]
    assert {one.slots for one in found if one.is_certain} <= {slots}
    if not jitter:
        assert any(one.is_certain for one in found)
    if counts == [1]:
        assert sum(contains(one, slots) for one in found) >= 0.9 * len(found)


@pytest.mark.parametrize(("slots", "users", "jitter"), [(1, 5, 0), (4, 20, 0.1), (14, 50, 0), (40, 400, 0)])
def test_a_closed_loop_shows_the_number_too(slots: int, users: int, jitter: float) -> None:
    forecast = predict_users(users, Service((slots,)), waits(jitter, slots, 3000), requests=5 * users)
    one, several = (
        estimate(users, forecast.arrived_s, forecast.answered_s, lone_s=lone(jitter, 1), processes=processes)
        for processes in (1, None)
    )
    assert contains(one, slots) and not several.is_certain and (one.slots == slots or not one.is_certain)
    if not jitter:
        assert one.is_certain
        assert one.by_throughput == pytest.approx(slots, rel=0.03)


def test_at_any_other_number_some_would_have_held_a_slot_for_no_time_or_twice() -> None:
    answered, sent = [1.0] * 15 + [2.0] * 15 + [3.0] * 15, [0.0] * 45
    held = {slots: Counter(holds(sent, answered, slots, 45)) for slots in (14, 15, 16)}
    assert held == {15: {1.0: 45}, 14: {1.0: 42, 0.0: 3}, 16: {1.0: 43, 2.0: 2}}
    assert fitting(sent, answered, 22) == (15, 1.0, 0.0, True)


def test_the_rounds_are_counted() -> None:
    found = of_answers(rounds(3, 3, 3, 1))
    assert (found.slots, found.is_certain, found.held_s, found.alone_s) == (3, True, pytest.approx(0.1), T)
    assert [count for count, _ in found.rounds] == [3, 3, 3, 1]


# ---------------------------------------------------------------- what is no number

UNEVEN = ((41, 31, 28, 0), (21, 34, 0, 20, 25), (3, 1, 86, 4, 4), (96, 4, 0, 0, 0), (20, 19, 20, 21, 20))


@pytest.mark.parametrize("shares", UNEVEN)
@pytest.mark.parametrize("each", (4, 15, 40))
@pytest.mark.parametrize("jitter", (0.0, 0.1, 0.3))
def test_uneven_shares_give_a_lower_bound_and_never_a_wrong_number(
    shares: tuple[int, ...], each: int, jitter: float
) -> None:
    for times, known in itertools.product((1, 5), (None, len(shares))):
        deal = [process for process, share in enumerate(shares) for _ in range(share * times)]
        random.Random(1).shuffle(deal)
        found = burst(Service((each,) * len(shares)), len(deal), jitter, times, deal, known)
        assert not found.is_certain or found.slots == each * len(shares)
        assert found.low <= each * len(shares)


@pytest.mark.parametrize("jitter", (0.0, 0.1, 0.3))
@pytest.mark.parametrize("requests", (10, 160, 640))
def test_no_limit_is_said_so_up_to_what_was_under_way(requests: int, jitter: float) -> None:
    found = [burst(Service((10**6,)), requests, jitter, seed) for seed in range(10)]
    assert all(one.slots is None and one.low <= requests and one.high is None for one in found)
    assert sum(one.seen is Seen.NONE for one in found) >= 7
    assert jitter or all(one.low == requests for one in found)


@pytest.mark.parametrize(
    ("found", "doubt"),
    [
        (of_answers(rounds(2, 1)), "few-answers"),
        (of_answers(ONE_BY_ONE, []), "no-lone-request"),
        (of_answers(ONE_BY_ONE, [0.001]), "short-wait"),
        (of_answers(ONE_BY_ONE, [0.03, 0.5, 0.03, 0.52]), "unlike-lone-requests"),
        (of_answers(ONE_BY_ONE, cpu_s=0.09), "cpu"),
        (of_answers(rounds(0, 0, 20)), "held-back"),
        (of_answers(rounds(1, *[0, 1] * 20)), "less-than-one-slot"),
        (of_answers([T + 0.002 * k for k in range(300)]), "flowing"),
        (of_answers(rounds(5, 5, 4)), "fewer-than-three-rounds"),
        (of_answers(rounds(5, 5, 5), processes=2), "uneven-processes"),
        (of_answers(rounds(6, 6, 6, 5, 1)), "uneven-processes"),
        (of_answers(rounds(5, 5, 5), failed_after_s=[0.01]), "failures"),
    ],
)
def test_a_doubt_has_its_reason(found: Estimate, doubt: str) -> None:
    assert (found.doubt, found.is_certain) == (doubt, False)


def test_a_blocked_event_loop_is_one_at_a_time() -> None:
    for processes, cpu_s in itertools.product((1, None), (None, 0.001)):
        found = of_answers(ONE_BY_ONE, processes=processes, cpu_s=cpu_s)
        assert found.is_certain and found.slots == 1


@pytest.mark.parametrize("slots", (10, 15, 40))
@pytest.mark.parametrize("jitter", (0.0, 0.1, 0.3))
def test_two_passes_never_end_in_a_wrong_number(slots: int, jitter: float) -> None:
    for rounds, passes in itertools.product((2, 3, 3.5, 8), ((1.0, 0.0), (0.0, 1.0), (0.5, 0.5))):
        found = burst(Service((slots,), passes=passes), int(rounds * slots), jitter)
        assert not found.is_certain or found.slots == slots
    forecast = predict_users(4 * slots, Service((slots,), passes=(1.0, 0.0)), waits(jitter, 0), requests=1000)
    found = estimate(4 * slots, forecast.arrived_s, forecast.answered_s, lone_s=lone(jitter, 0), processes=1)
    assert not found.is_certain or found.slots == slots


def share_cpus(count: int, threads: int, cpu_s: float, cpus: int) -> list[float]:
    """Requests that only compute: at most `threads` at a time share the CPUs, all of them equally fast."""
    dice, now_s, answered = random.Random(count), 0.0, list[float]()
    waiting = [cpu_s * dice.uniform(0.98, 1.02) for _ in range(count)]
    while waiting:
        left = sorted(waiting[:threads])
        step_s, speed = left[0], min(1.0, cpus / len(left))
        now_s += step_s / speed
        waiting[:threads] = [rest - step_s for rest in left[1:]]
        answered.append(now_s)
    return answered


@pytest.mark.parametrize(("threads", "cpus"), ((1000, 1), (40, 1), (4, 2), (16, 4), (1000, 4)))
def test_requests_that_compute_show_no_slots(threads: int, cpus: int) -> None:
    for requests, cpu_s in itertools.product((20, 80, 320), (None, 0.02)):
        answered = share_cpus(requests, threads, 0.02, cpus)
        found = of_answers(answered, [0.0205, 0.0206, 0.0209], cpu_s=cpu_s)
        assert not found.is_certain and (found.slots is None or cpu_s is None)


def test_waits_that_differ_and_a_stall_give_no_wrong_number() -> None:
    for seed in range(20):
        dice, free, answered = random.Random(seed), [0.0] * 8, []
        for _ in range(200):
            answered.append(heapq.heappop(free) + (0.5 if dice.random() < 0.2 else 0.01))
            heapq.heappush(free, answered[-1])
        assert not of_answers(answered, [0.01, 0.0101, 0.01, 0.0102]).is_certain
    regular = rounds(*[15] * 8)
    for stall_s in (0.1, 0.3, 1.0):
        found = of_answers([at + stall_s * (at > 0.35) for at in regular])
        assert not found.is_certain or found.slots == 15
    assert not of_answers(regular, [0.2, 0.201]).is_certain


# ---------------------------------------------------------------- failures and stalls


def test_failures_forbid_a_verdict_unless_one_time_out_explains_them() -> None:
    def of_twelve(*failed_after_s: float) -> Estimate:
        """A published report: a pool of two with a time-out of 2.5 waits."""
        return estimate(12, [0.0] * 6, rounds(2, 2, 2), lone_s=[T, T], failed_after_s=failed_after_s)

    assert of_twelve(*[0.25] * 6).is_certain and of_twelve(*[0.25] * 6).slots == 2
    for failed in ([0.0005] * 6, [0.25, 0.45], [0.15] * 6):
        assert of_twelve(*failed).doubt == "failures"


SAYS = "sqlalchemy.exc.TimeoutError: QueuePool limit of size 5 overflow 10 reached, connection timed out, timeout 2.00"


@pytest.mark.parametrize(
    ("ends", "stall"),
    [
        ([(0.1, 200)] * 5 + [(2.0, 500)] * 3 + [(2.1, 200)] * 2, (0.1, 2.0)),
        ([(2.0, 500)] * 5 + [(2.1, 200)] * 5, (0.0, 2.0)),
        ([(0.1, 200), (0.5, 200), (1.0, 200), (1.5, 200), (2.0, 500)], None),  # others are served all the time
        ([(0.1, 500)] * 10, None),  # it fails at once
        ([(0.1, 500)] + [(1.2, 200)] * 9, None),  # before the silence, not at its end
        ([(2.0, 200)] * 5 + [(2.1, 500)] * 5, (0.0, 2.0)),  # a request that was freed first may be answered first
        ([(0.1, 200)] * 5 + [(1.05, 500)] * 5, None),  # less than ten times what a lone one takes
        ([(2.0, 200)] * 5 + [(2.5, 500)] * 5, None),  # it was slow, and failed for its own reasons
    ],
)
@pytest.mark.parametrize("holds_connection", (True, False))
def test_a_stall_is_a_silence_that_a_failure_ends(ends, stall, holds_connection) -> None:
    launch, n = replace(LAUNCH, holds_while_queueing=holds_connection), len(ends)
    facts = sample_facts(launch=launch, sent=n, load=Burst(n), failed=1, lone_s=T, server_said=[SAYS], anyio_threads=8)
    columns = sample_columns([at for at, _ in ends], status=[status for _, status in ends])
    found = estimate_of(facts, columns, [T, T])
    assert found and (found.stall and (found.stall.from_s, found.stall.until_s)) == (stall and pytest.approx(stall))
    if found.stall:
        sizes = (found.stall.threads, found.stall.connections, found.stall.pool_timeout_s)
        assert sizes == ((8, 15, 2.0) if holds_connection else (None, None, None))


# ---------------------------------------------------------------- of a run


@pytest.mark.parametrize(
    ("changes", "slots"),
    [
        ({}, 4),
        ({"load": Closed(16, concurrency=4)}, None),
        ({"load": Open(16)}, None),
        ({"stopped": "SIGINT"}, None),
        ({"sent": 0}, None),
        ({"sent": 20_001}, None),
    ],
)
def test_slots_are_estimated_of_bursts_and_users(changes, slots) -> None:
    found = estimate_of(sample_facts(**changes), sample_columns(), [1.0, 1.0])
    assert (found and found.slots) == slots
    assert (found is None) == ((slots is None and "load" not in changes) or changes.get("load") == Open(16))


def test_nothing_is_certain_or_suspected_where_other_programs_had_the_cpus() -> None:
    there, facts = frozenset({"gunicorn"}), sample_facts(lone_s=1.0)
    found = estimate_of(facts, sample_columns(), [1.0, 1.0], there)
    assert found and [one.setting for one in found.suspects] == ["--threads"]
    busy = estimate_of(sample_facts(lone_s=1.0, other_cpu_s=0.31 * 2 * 4), sample_columns(), [1.0, 1.0], there)
    assert busy and (busy.doubt, busy.is_certain, busy.suspects) == ("busy-machine", False, ())
    assert with_suspects(busy, facts, there).suspects == ()


# ---------------------------------------------------------------- the probe


def probe(slots: int) -> list[Probed]:
    done: list[Probed] = []
    while size := next_burst(done, wait_s=T)[0]:
        found = burst(Service((slots,)), size)
        done.append(Probed(size, 0, T * size / slots, found))
    return done


def test_a_probe_doubles_until_two_bursts_agree() -> None:
    done = probe(15)
    assert [one.requests for one in done] == [10, 20, 40, 80, 160]
    assert next_burst(done) == (None, "agree") and conclude(done).slots == 15


def test_a_probe_stays_within_its_budget_and_says_which() -> None:
    done = probe(10**6)
    assert sum(one.requests for one in done) <= 2000 and next_burst(done) == (None, "budget")
    assert (conclude(done).seen, conclude(done).low) == (Seen.NONE, done[-1].requests)
    vague = sample_estimate(4, high=5)
    assert next_burst([Probed(10, 0, 10.0, vague)], budget_s=25) == (None, "budget-of-time")
    assert next_burst([Probed(80, 3, 10.0, vague)]) == (None, "failures")
    assert next_burst([Probed(80, 0, 1.0, vague)]) == (None, "scatter")
    assert next_burst([Probed(10, 0, 1.0, sample_estimate(None, doubt="cpu"))] * 2) == (None, "cpu")
    assert next_burst([], wait_s=30.0) == (None, "lone-too-long")
    assert next_burst([], wait_s=10.0) == (6, "first")
    assert next_burst([Probed(10, 0, 1.0, vague)]) == (20, "not-enough")


def test_of_a_probe_the_certain_burst_counts_unless_the_last_contradicts_it() -> None:
    sure = sample_estimate(15)
    for last, slots in ((sample_estimate(14, low=13, high=16), 15), (sample_estimate(9, low=8, high=10), 9)):
        assert conclude([Probed(80, 0, 1.0, sure), Probed(160, 0, 1.0, last)]).slots == slots
