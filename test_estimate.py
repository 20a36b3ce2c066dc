"""Tests of the estimate: servers made of a queue and a heap, whose slots are known, probed as a real one would be."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

import pytest

from limits import (
    LIMITS,
    Burst,
    Estimate,
    conclude,
    estimate,
    fit,
    holds,
    next_burst,
    of_each_process,
    suspects,
    two_pools,
    work,
)

# ---------------------------------------------------------------- servers that are not there


class Answers(NamedTuple):
    sent_s: list[float]
    answered_s: list[float]
    failed_after_s: list[float]


class Stub(NamedTuple):
    """A server: what it does with `count` requests at once, or from `users` in a closed loop."""

    slots: tuple[int, ...]  # of each process; 0: no limit
    wait_s: float = 0.1
    jitter: float = 0.0  # standard deviation, or half the width of a uniform spread, over the wait
    uniform: bool = False
    shares: tuple[float, ...] = ()  # of the requests, by process; none: dealt in turn
    order: str = "fifo"
    passes: tuple[float, ...] = (1.0,)  # parts of the wait, each in a slot of its own
    cpu_s: float = 0.0  # of one request, one after the other in a process, before it gets its slot
    extra_s: tuple[float, float] = (0.0002, 0.002)  # what each pass costs beside the wait
    noise_s: float = 0.0005  # of the client's clock
    accept_s: float = 0.00005  # between two requests
    timeout_s: float = float("inf")  # in the queue

    def hold_s(self, dice: random.Random) -> float:
        spread = dice.uniform(-1, 1) if self.uniform else dice.gauss(0, 1)
        return self.wait_s * max(0.05, 1 + self.jitter * spread)

    def lone(self, dice: random.Random, times: int = 5) -> list[float]:
        extra = len(self.passes)
        return [
            self.cpu_s + self.hold_s(dice) * sum(self.passes) + sum(dice.uniform(*self.extra_s) for _ in range(extra))
            for _ in range(times)
        ]

    def serve(self, count: int, dice: random.Random, users: int = 0) -> Answers:
        processes = range(len(self.slots))
        free, cpu_free = [slots or 10**9 for slots in self.slots], [0.0 for _ in processes]
        queues: list[list[tuple[int, int, float]]] = [[] for _ in processes]
        dealt = [p for p, share in enumerate(self.shares) for _ in range(round(share * count / sum(self.shares)))]
        dice.shuffle(dealt)
        dealt += [dice.choice(processes) for _ in range(count - len(dealt))] if self.shares else []
        sent, answered, failed = [0.0] * count, [0.0] * count, {}
        events: list[tuple[float, int, int, int, bool]] = []  # when, a serial number, request, pass, it ends
        serial, following = itertools.count(), itertools.count()

        def send(at_s: float) -> None:
            if (i := next(following)) >= count:
                return
            sent[i], p = at_s, dealt[i] if dealt else i % len(free)
            cpu_free[p] = max(cpu_free[p], at_s) + self.cpu_s
            heapq.heappush(events, (cpu_free[p], next(serial), i, 0, False))

        for k in range(min(count, users or count)):
            send(k * self.accept_s)
        while events:
            now_s, _, i, stage, ends = heapq.heappop(events)
            p = dealt[i] if dealt else i % len(free)
            if ends:
                free[p] += 1
                stage += 1
                if stage == len(self.passes):
                    answered[i] = now_s + abs(dice.gauss(0, self.noise_s))
                    if users:
                        send(answered[i])
            if stage < len(self.passes):
                queues[p].append((i, stage, now_s))
            while free[p] and queues[p]:
                place = {"fifo": 0, "lifo": -1}.get(self.order, dice.randrange(len(queues[p])))
                j, part, since_s = queues[p].pop(place)
                if now_s - since_s > self.timeout_s:
                    failed[j] = self.timeout_s + dice.uniform(0, 0.01)
                    continue
                free[p] -= 1
                end_s = now_s + self.hold_s(dice) * self.passes[part] + dice.uniform(*self.extra_s)
                heapq.heappush(events, (end_s, next(serial), j, part, True))
        good = [i for i in range(count) if i not in failed]
        return Answers([sent[i] for i in good], [answered[i] for i in good], sorted(failed.values()))


def share_cpus(count: int, threads: int, cpu_s: float, cpus: int, dice: random.Random) -> Answers:
    """Requests that only compute: at most `threads` at a time share the CPUs, all of them equally fast."""
    waiting, left, now_s = deque(range(count)), dict[int, float](), 0.0
    answered = [0.0] * count
    while waiting or left:
        while waiting and len(left) < threads:
            left[waiting.popleft()] = cpu_s * dice.uniform(0.98, 1.02)
        first, speed = min(left, key=lambda i: left[i]), min(1.0, cpus / len(left))
        step_s = left.pop(first) / speed
        now_s += step_s
        left = {i: rest - step_s * speed for i, rest in left.items()}
        answered[first] = now_s + dice.uniform(0.0002, 0.001)
    return Answers([i * 0.00005 for i in range(count)], answered, [])


def two_pools_by_hand(requests: int, threads: int, connections: int, wait_s: float, timeout_s: float) -> Answers:
    """thread, connection, wait, thread given back, thread again to give the connection back: event by event."""
    queue: deque[tuple[int, bool]] = deque((i, False) for i in range(requests))  # request, it only gives back
    idle, free, holding = threads, connections, deque[tuple[int, float]]()  # holding a thread, waiting since
    events: list[tuple[float, int, int]] = []  # when, kind 0: handler ends, 1: connection wait times out; request
    answered, failed, now_s = dict[int, float](), dict[int, float](), 0.0
    while True:
        progress = True
        while progress:
            progress = False
            while idle and queue:
                progress, (i, gives_back) = True, queue.popleft()
                if gives_back:
                    free, answered[i] = free + 1, now_s
                else:
                    idle -= 1
                    holding.append((i, now_s))
                    heapq.heappush(events, (now_s + timeout_s, 1, i))
            while free and holding:
                progress, (i, _) = True, holding.popleft()
                free -= 1
                heapq.heappush(events, (now_s + wait_s, 0, i))
        if not events:
            return Answers([0.0] * len(answered), sorted(answered.values()), sorted(failed.values()))
        now_s = events[0][0]
        while events and events[0][0] < now_s + 1e-9:  # what happens at one moment, happens before its consequences
            _, kind, i = heapq.heappop(events)
            if kind == 0:
                idle += 1
                queue.append((i, True))
            elif any(j == i for j, _ in holding):
                holding = deque(pair for pair in holding if pair[0] != i)
                idle, failed[i] = idle + 1, now_s


def probe(stub: Stub, seed: int, processes: int | None = None, cpu_s: float | None = None) -> list[Burst]:
    dice, done = random.Random(seed), list[Burst]()
    lone = stub.lone(dice)
    while True:
        requests, _ = next_burst(done, wait_s=fmean(lone))
        if requests is None:
            return done
        sent, answered, failed = stub.serve(requests, dice)
        found = estimate(
            "burst", requests, sent, answered, lone_s=lone, failed_after_s=failed, processes=processes, cpu_s=cpu_s
        )
        done.append(Burst(requests, len(failed), max(answered, default=0.0), found))


def burst(
    stub: Stub, requests: int, seed: int = 0, processes: int | None = None, cpu_s: float | None = None
) -> Estimate:
    dice = random.Random(seed)
    sent, answered, failed = stub.serve(requests, dice)
    return estimate(
        "burst",
        requests,
        sent,
        answered,
        lone_s=stub.lone(dice),
        failed_after_s=failed,
        processes=processes,
        cpu_s=cpu_s,
    )


def closed(stub: Stub, users: int, requests: int, seed: int = 0) -> Estimate:
    dice = random.Random(seed)
    sent, answered, _ = stub.serve(requests, dice, users)
    return estimate("closed", users, sent, answered, lone_s=stub.lone(dice))


def certain(found: Estimate) -> bool:
    return found["slots"] is not None and found["low"] == found["high"] == found["slots"]


def contains(found: Estimate, slots: int) -> bool:
    return found["low"] <= slots <= (found["high"] or 10**9)


# ---------------------------------------------------------------- the number

SLOTS = (1, 2, 3, 4, 6, 7, 10, 15, 16, 40, 60, 100)
WAITS_S = (0.02, 0.05, 0.1, 0.3, 1.0)


def probed(slots: int, jitter: float, seed: int) -> list[Burst]:
    dice = random.Random(f"{slots} {jitter} {seed}")
    counts = [1, *(count for count in (2, 4) if slots % count == 0 and slots > count)]
    processes = dice.choice(counts)
    stub = Stub((slots // processes,) * processes, dice.choice(WAITS_S), jitter, dice.random() < 0.5)
    return probe(stub, seed, dice.choice([None, processes]))


@pytest.mark.parametrize("jitter", (0.0, 0.1))
@pytest.mark.parametrize("slots", SLOTS)
def test_a_probe_finds_the_exact_number_when_waits_vary_by_a_tenth(slots: int, jitter: float) -> None:
    runs = [probed(slots, jitter, seed) for seed in range(20 if jitter else 5)]
    assert sum(conclude(done)["slots"] == slots for done in runs) >= 0.95 * len(runs)
    assert all(burst.found["slots"] == slots for done in runs for burst in done if certain(burst.found))
    assert all(sum(burst.requests for burst in done) <= 2000 for done in runs)
    if jitter == 0:
        assert all(certain(conclude(done)) for done in runs)


@pytest.mark.parametrize("slots", SLOTS)
def test_when_waits_vary_by_a_third_the_range_contains_the_number(slots: int) -> None:
    runs = [probed(slots, 0.3, seed) for seed in range(10)]
    found = [conclude(done) for done in runs]
    near = [abs((one["slots"] or 0) - slots) <= 0.1 * slots or contains(one, slots) for one in found]
    assert sum(near) >= 9
    assert all(burst.found["slots"] == slots for done in runs for burst in done if certain(burst.found))


@pytest.mark.parametrize(
    ("slots", "users", "jitter"),
    [(1, 5, 0), (4, 20, 0.1), (14, 50, 0), (14, 50, 0.1), (15, 60, 0), (16, 64, 0.1), (40, 130, 0), (40, 400, 0)],
)
def test_a_closed_loop_shows_the_number_too(slots: int, users: int, jitter: float) -> None:
    found = [closed(Stub((slots,), jitter=jitter), users, max(200, 5 * users), seed) for seed in range(10)]
    assert sum(one["slots"] == slots for one in found) >= 9
    assert all(one["slots"] == slots for one in found if certain(one))


def test_throughput_times_service_time_is_said_with_its_numbers() -> None:
    dice = random.Random(1)
    sent, answered, _ = Stub((14,), 0.103, extra_s=(0, 0)).serve(1400, dice, users=50)
    found = estimate("closed", 50, sent, answered, lone_s=[0.103, 0.103])
    assert (found["slots"], found["low"], found["high"]) == (14, 14, 14)
    assert any("136/s x 0.103 s = 14 slots" in text for text in found["evidence"])


def test_at_any_other_number_some_would_have_held_a_slot_for_no_time_or_twice() -> None:
    answered = [1.0] * 15 + [2.0] * 15 + [3.0] * 15
    sent = [0.0] * 45
    assert set(holds(sent, answered, 15, 45)) == {1.0}
    assert Counter(holds(sent, answered, 14, 45)) == {1.0: 42, 0.0: 3}
    assert Counter(holds(sent, answered, 16, 45)) == {1.0: 43, 2.0: 2}
    found = fit(sent, answered, 22)
    assert found and (found.slots, found.low, found.high, found.held_s, found.spread) == (15, 15, 15, 1.0, 0.0)


@pytest.mark.parametrize("slots", (1, 2, 7, 40))
@pytest.mark.parametrize("requests", (50, 97))
def test_throughput_times_service_time_has_no_error_at_the_edges(slots: int, requests: int) -> None:
    answered = [(k // slots + 1) * 0.25 for k in range(requests)]
    assert work([0.0] * requests, answered, 0.25) == pytest.approx(slots)


# ---------------------------------------------------------------- what is no number

UNEVEN = (  # the first measured here, the others published: five workers, a hundred requests
    (41, 31, 28, 0), (21, 34, 0, 20, 25), (3, 1, 86, 4, 4), (96, 4, 0, 0, 0), (20, 19, 20, 21, 20), (3, 23, 23, 24, 27),
)  # fmt: skip


@pytest.mark.parametrize("shares", UNEVEN)
@pytest.mark.parametrize("known", (True, False))
@pytest.mark.parametrize("requests", (100, 500))
def test_uneven_shares_give_a_lower_bound_and_never_a_wrong_number(
    shares: tuple[int, ...], known: bool, requests: int
) -> None:
    stub, slots = Stub((40,) * len(shares), shares=shares), 40 * len(shares)
    found = burst(stub, requests, processes=len(shares) if known else None)
    if certain(found):  # every process had more than it could hold for three rounds
        assert requests == 500 and found["slots"] == slots
    assert found["low"] <= slots


def test_the_busiest_process_shows_its_slots_and_the_split_is_named() -> None:
    found = burst(Stub((4,) * 4, shares=(62, 1, 1, 0)), 64)
    assert (found["slots"], found["low"], found["high"], found["each"]) == (None, 6, None, 4)
    assert "uneven shares: the busiest process does 4 at a time" in found["evidence"]


def test_a_process_that_works_on_alone_shows_its_slots_from_then_on() -> None:
    answered = [0.1] * 10 + [0.2] * 4 + [0.3] * 4 + [0.4] * 4 + [0.5] * 2
    found = estimate("burst", 24, [0.0] * 24, answered, lone_s=[0.1, 0.1])
    assert (found["slots"], found["low"], found["high"], found["each"]) == (None, 10, None, 4)


@pytest.mark.parametrize(
    ("sizes", "slots"),
    [
        ([[3, 3, 3, 1], [3, 3]], 6),
        ([[3, 3, 3, 3], []], 6),  # one got none
        ([[3, 3, 3, 3]], None),  # there is only one
        ([[3, 3], [3, 3]], None),  # nobody shows three rounds
        ([[3, 3, 3, 3], [2, 2, 2, 2]], None),  # they contradict each other
        ([[3, 3, 3, 3], [9]], None),
    ],
)
def test_each_process_may_show_its_slots_where_all_together_do_not(sizes: list[list[int]], slots: int | None) -> None:
    own = [[0.1 * (k + 1) for k, size in enumerate(rounds) for _ in range(size)] for rounds in sizes]
    everything = sorted(itertools.chain(*own))
    together = estimate("burst", len(everything), [0.0] * len(everything), everything, lone_s=[0.1, 0.1])
    found = of_each_process(own, together, [0.1, 0.1])
    assert (found and (found["slots"], found["low"], found["high"])) == (slots and (slots, slots, slots))
    if found:
        assert (found["each"], found["processes"], found["kind"]) == (3, 2, "slots")
        assert "of one process alone: 3, 3, 3" in found["evidence"][1]


@pytest.mark.parametrize("shares", UNEVEN)
@pytest.mark.parametrize("jitter", (0.0, 0.1, 0.3))
@pytest.mark.parametrize("slots", (2, 6, 15))
def test_what_one_process_shows_of_a_pool_in_each_is_never_wrong(
    shares: tuple[int, ...], jitter: float, slots: int
) -> None:
    """The answers of each process as its own server gives them, many of them at random."""
    dice, stub = random.Random(f"{shares} {jitter} {slots}"), Stub((slots,), jitter=jitter)
    for requests in (60, 200):
        own = [stub.serve(round(share * requests / 100), dice).answered_s for share in shares]
        everything = sorted(itertools.chain(*own))
        lone_s = stub.lone(dice)
        together = estimate("burst", len(everything), [0.0] * len(everything), everything, lone_s=lone_s)
        found = of_each_process(own, together, lone_s)
        assert found is None or found["each"] == slots
        if jitter == 0 and max(map(len, own)) >= 3 * slots:
            assert found and found["slots"] == slots * len(shares)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("processes", "each"), ((4, 6), (4, 40), (2, 15)))
def test_shares_dealt_at_random_never_end_in_a_wrong_number(processes: int, each: int, seed: int) -> None:
    dice = random.Random(seed)
    shares = [dice.expovariate(1) for _ in range(processes)]
    for count in (None, processes):
        for one in probe(Stub((each,) * processes, shares=tuple(shares)), seed, count):
            assert not certain(one.found) or one.found["slots"] == processes * each
            assert one.found["high"] is None or one.found["high"] >= processes * each or one.found["kind"] == "smeared"


@pytest.mark.parametrize("jitter", (0.0, 0.1, 0.3))
@pytest.mark.parametrize("requests", (10, 40, 160, 640))
def test_no_limit_is_said_so_up_to_what_was_under_way(requests: int, jitter: float) -> None:
    found = [burst(Stub((0,), jitter=jitter), requests, seed) for seed in range(10)]
    assert all(one["slots"] is None and one["low"] <= requests and one["high"] is None for one in found)
    assert sum(one["kind"] == "none" for one in found) >= (10 if jitter == 0 else 9 if jitter == 0.1 else 7)
    if jitter == 0:
        assert all(one["low"] == requests for one in found)


@pytest.mark.parametrize("slots", (1, 4, 15, 40))
@pytest.mark.parametrize("over", (0, 1, 3))
def test_a_limit_is_never_the_number_that_was_sent_at_once(slots: int, over: int) -> None:
    for seed in range(5):
        for jitter in (0.0, 0.1, 0.3):
            requests = max(1, slots - over)
            one, other = (
                burst(Stub((slots,), jitter=jitter), requests, seed),
                closed(Stub((slots,), jitter=jitter), requests, 8 * requests, seed),
            )
            assert one["slots"] != requests and other["slots"] != requests
            assert not certain(one) and not (certain(other) and other["slots"] != slots)


@pytest.mark.parametrize("requests", (1, 2, 3))
def test_two_answers_prove_nothing(requests: int) -> None:
    found = burst(Stub((1,)), requests)
    assert (found["kind"], found["slots"], found["low"], found["high"]) == ("unknown", None, 1, None)


@pytest.mark.parametrize("rounds", (1, 1.5, 2, 2.5))
@pytest.mark.parametrize("slots", (4, 40))
def test_fewer_than_three_full_rounds_are_never_certain(slots: int, rounds: float) -> None:
    assert not certain(burst(Stub((slots,)), int(slots * rounds)))


def test_without_a_lone_request_nothing_is_certain() -> None:
    for stub in (Stub((15,)), Stub((0,)), Stub((40,), passes=(1, 0))):
        sent, answered, _ = stub.serve(120, random.Random(1))
        assert not certain(estimate("burst", 120, sent, answered))


# ---------------------------------------------------------------- what looks like a number and is none


@pytest.mark.parametrize(("threads", "cpus"), ((1000, 1), (40, 1), (4, 2), (16, 4), (1000, 4)))
@pytest.mark.parametrize("known", (True, False))
def test_requests_that_compute_are_limited_by_cpu(threads: int, cpus: int, known: bool) -> None:
    for requests in (20, 80, 320):
        sent, answered, _ = share_cpus(requests, threads, 0.02, cpus, random.Random(requests))
        found = estimate(
            "burst", requests, sent, answered, lone_s=[0.0205, 0.0206, 0.0209], cpu_s=0.02 if known else None
        )
        assert found["kind"] == "cpu" and found["slots"] is None


@pytest.mark.parametrize("cpu_s", (0.001, 0.002, 0.005))
@pytest.mark.parametrize("slots", (0, 400))
@pytest.mark.parametrize("known", (True, False))
def test_a_wait_with_some_cpu_flows_without_rounds(cpu_s: float, slots: int, known: bool) -> None:
    found = burst(Stub((slots,), cpu_s=cpu_s), 640, cpu_s=cpu_s if known else None)
    assert found["kind"] == "cpu" and found["slots"] is None


def test_one_at_a_time_is_cpu_only_if_the_cpu_time_is_known() -> None:
    assert burst(Stub((1,), 0.05), 40)["slots"] == 1
    found = burst(Stub((1,), 0.05), 40, cpu_s=0.05)
    assert (found["kind"], found["slots"]) == ("cpu", None)


def test_cpu_below_the_knee_does_not_hide_the_slots() -> None:
    for known in (None, 0.001):
        found = burst(Stub((40,), cpu_s=0.001), 320, cpu_s=known)
        assert found["kind"] == "slots" and found["slots"] == 40


@pytest.mark.parametrize("held_back", (True, False))
def test_a_blocked_event_loop_is_one_at_a_time_however_it_sends(held_back: bool) -> None:
    answered = [0.1] + [2.0] * 19 if held_back else [0.1 * k for k in range(1, 21)]
    for cpu_s in (None, 0.001):
        found = estimate("burst", 20, [0.0] * 20, answered, lone_s=[0.1, 0.1], cpu_s=cpu_s)
        assert certain(found) and found["slots"] == 1
    late = estimate("burst", 20, [0.0] * 20, [2.0] * 20, lone_s=[0.1, 0.1], cpu_s=0.001)
    assert certain(late) and late["slots"] == 1 and "blocked event loop" in late["evidence"][-1]


@pytest.mark.parametrize("slots", (10, 15, 40))
def test_two_passes_are_recognised_and_counted_by_a_round_that_is_not_full(slots: int) -> None:
    typed = Stub((slots,), passes=(1, 0), extra_s=(0.0001, 0.0003))
    for rounds in (3, 4, 8):
        found = burst(typed, rounds * slots, cpu_s=0.0005)
        assert (
            found["kind"] == "two-pass" and contains(found, slots) and not (certain(found) and found["slots"] != slots)
        )
    found = burst(typed, int(3.5 * slots), cpu_s=0.0005)
    assert (found["kind"], found["slots"], found["low"], found["high"]) == ("two-pass", slots, slots, slots)
    done = probe(typed, 1, cpu_s=0.0005)
    assert conclude(done)["kind"] == "two-pass" and conclude(done)["slots"] == slots


@pytest.mark.parametrize("slots", (10, 40))
def test_two_passes_with_varying_waits_give_a_range_that_contains_the_number(slots: int) -> None:
    typed = Stub((slots,), jitter=0.1, passes=(1, 0), extra_s=(0.0001, 0.0003))
    found = [burst(typed, rounds * slots, seed, cpu_s=0.0005) for rounds in (4, 5, 8) for seed in range(10)]
    assert sum(one["kind"] == "two-pass" and contains(one, slots) for one in found) >= 27
    assert all(one["slots"] == slots for one in found if certain(one))


@pytest.mark.parametrize("order", ("random", "lifo"))
@pytest.mark.parametrize("passes", ((1.0,), (0.5, 0.5)))
def test_a_pool_that_is_not_first_come_first_served_is_said_to_smear(order: str, passes: tuple[float, ...]) -> None:
    for seed in range(10):
        found = burst(Stub((15,), order=order, passes=passes), 120, seed)
        assert found["kind"] in ("smeared", "two-pass") and contains(found, 15)
        assert passes != (1.0,) or (found["kind"] == "smeared" and found["slots"] == 15)


@pytest.mark.parametrize("part", (0.5, 0.7, 0.8, 0.95))
def test_a_pool_held_for_a_part_of_the_request_gives_both_numbers(part: float) -> None:
    free, answered, sent = [0.0] * 15, [], [k * 0.00005 for k in range(100)]
    for at_s in sent:
        start_s = max(at_s + 0.1 * (1 - part), heapq.heappop(free))
        heapq.heappush(free, start_s + 0.1 * part)
        answered.append(start_s + 0.1 * part + 0.001)
    found = estimate("burst", 100, sent, answered, lone_s=[0.101, 0.101])
    assert found["slots"] == 15 and found["low"] == 15
    assert (found["high"] or 0) >= 15 / part - 2 and (part > 0.9 or "inside the handler" in found["evidence"][-1])


def test_a_rate_limit_is_no_slot() -> None:
    answered = [0.1 * k for k in range(1, 41)]
    found = estimate("burst", 40, [0.0] * 40, answered, lone_s=[0.01, 0.0101])
    assert found["slots"] is None and found["kind"] == "unknown"


def test_lone_requests_twice_as_slow_as_the_rest_make_a_range() -> None:
    sent, answered, _ = Stub((15,)).serve(120, random.Random(1))
    found = estimate("burst", 120, sent, answered, lone_s=[0.2, 0.201])
    assert found["slots"] == 15 and not certain(found) and contains(found, 30)


def test_two_very_different_waits_never_give_a_certain_number() -> None:
    for seed in range(20):
        dice = random.Random(seed)
        waits = [0.5 if dice.random() < 0.2 else 0.01 for _ in range(200)]
        free, answered = [0.0] * 8, []
        for wait_s in waits:
            answered.append(heapq.heappop(free) + wait_s)
            heapq.heappush(free, answered[-1])
        found = estimate("burst", 200, [0.0] * 200, answered, lone_s=[0.01, 0.0101, 0.01, 0.0102])
        assert not certain(found)


@pytest.mark.parametrize("stall_s", (0.1, 0.3, 1.0))
def test_a_stall_in_the_middle_does_not_make_a_wrong_number(stall_s: float) -> None:
    sent, answered, _ = Stub((15,)).serve(120, random.Random(1))
    stalled = [at + stall_s * (at > 0.35) for at in answered]
    found = estimate("burst", 120, sent, stalled, lone_s=[0.101, 0.102])
    assert not (certain(found) and found["slots"] != 15)


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize("failed", ([0.01] * 20, [0.01, 3.0, 0.5], [0.2] * 3))
def test_a_service_that_answers_errors_gets_the_observation_and_no_verdict(failed: list[float]) -> None:
    sent, answered, _ = Stub((15,)).serve(80, random.Random(1))
    found = estimate("burst", 80, sent, answered, lone_s=[0.101, 0.102], failed_after_s=failed)
    assert found["kind"] == "unknown" and found["slots"] is None
    assert f"{len(failed)} of {80 + len(failed)} failed" in found["evidence"][0]
    assert next_burst([Burst(80, len(failed), 1.0, found)])[0] is None


def test_twelve_on_a_pool_of_two_with_a_timeout_of_five_seconds() -> None:
    """A published report: three pairs start, the rest fails; the fourth round would have begun at 6 s."""
    found = burst(Stub((2,), 2.0, timeout_s=5.0, extra_s=(0, 0.001)), 12)
    assert (found["slots"], found["low"], found["high"]) == (2, 2, 2)
    assert "6 of 12 failed, 5" in found["evidence"][-1]


def test_a_hundred_connections_and_failures_after_five_seconds_are_named_httpx() -> None:
    stub = Stub((100,), 1.5, timeout_s=5.0)
    dice = random.Random(1)
    sent, answered, failed = stub.serve(1000, dice)
    found = estimate("burst", 1000, sent, answered, lone_s=stub.lone(dice), failed_after_s=failed)
    assert found["slots"] == 100
    assert "httpx" in suspects(found, 1000, 1.5, 2, failed_after_s=failed)[0]["what"]


# ---------------------------------------------------------------- the probe


def test_a_probe_doubles_until_two_bursts_agree() -> None:
    done = probe(Stub((15,)), 1)
    assert [one.requests for one in done] == [10, 20, 40, 80, 160]
    assert next_burst(done) == (None, "two bursts say 15")


def test_a_probe_stays_within_its_budget_and_says_which() -> None:
    done = probe(Stub((0,)), 1)
    assert sum(one.requests for one in done) <= 2000 and conclude(done)["kind"] == "none"
    assert conclude(done)["low"] == done[-1].requests
    assert next_burst(done) == (None, "1280 more requests would exceed the budget of 2000")
    slow = [Burst(10, 0, 10.0, burst(Stub((2,), 5.0), 10))]
    assert next_burst(slow, budget_s=25) == (None, "20 more requests would take longer than the budget of time allows")
    assert next_burst([], wait_s=30.0) == (None, "one request takes 30 s")
    assert next_burst([], wait_s=10.0) == (6, "a first look")


# ---------------------------------------------------------------- names


def an_estimate(slots: int | None = None, **more: object) -> Estimate:
    found = Estimate(
        slots=slots, low=slots or 1, high=slots, processes=None, each=None, kind="slots", evidence=[], suspects=[]
    )
    found.update(more)  # type: ignore[typeddict-item]
    return found


@pytest.mark.parametrize(
    ("slots", "processes", "cpus", "server", "handler", "installed", "first"),
    [
        (15, None, 2, "", "", None, "SQLAlchemy's pool (5 + 10)"),
        (60, 4, 2, "", "", None, "SQLAlchemy's pool (5 + 10) x 4"),
        (160, None, 2, "uvicorn", "def", None, "AnyIO threads (40) x 4"),
        (40, 1, 2, "uvicorn", "def", {"anyio", "fastapi"}, "AnyIO threads (40)"),
        (6, 1, 2, "uvicorn", "async", {"anyio", "fastapi"}, "asyncio.to_thread"),
        (12, 1, 8, "uvicorn", "async", {"anyio", "fastapi"}, "asyncio.to_thread"),
        (1, 1, 2, "uvicorn", "async", {"anyio", "fastapi"}, "blocked event loop"),
        (4, 1, 2, "waitress", "def", {"waitress", "psycopg-pool"}, "waitress's threads"),
        (4, 1, 2, "uvicorn", "async", {"psycopg-pool"}, "psycopg's pool"),
        (4, 4, 2, "gunicorn", "def", {"gunicorn"}, "gunicorn's sync worker (1) x 4"),
        (10, 1, 2, "uvicorn", "async", {"asyncpg"}, "asyncpg's pool"),
        (100, 1, 2, "uvicorn", "async", {"aiohttp"}, "aiohttp's connections"),
        (20, 8, 2, "", "", set(), "PgBouncer's pool"),
    ],
)
def test_the_likeliest_limit_comes_first(
    slots: int, processes: int | None, cpus: int, server: str, handler: str, installed: set[str] | None, first: str
) -> None:
    each = slots // processes if processes and slots % processes == 0 else None
    found = suspects(
        an_estimate(slots, processes=processes, each=each), 200, 0.2, cpus,
        installed=installed, server=server, handler=handler,
    )  # fmt: skip
    assert 1 <= len(found) <= 3 and first in found[0]["what"]


def test_the_effect_of_the_change_is_computed() -> None:
    (first, *_) = suspects(an_estimate(15), 100, 0.2, 2)
    assert first["predicted_effect"] == (
        "with pool_size + max_overflow raised to 40 in each process, and nothing else in the way, "
        "a burst of 100 would take 0.6 s, not 1.4"
    )
    (executor, *_) = suspects(an_estimate(6, processes=1), 100, 0.3, 2, server="uvicorn", handler="async")
    assert "not 5.1" in executor["predicted_effect"] and executor["how_to_tell"].startswith("it is 8 on 4 CPUs")


def test_what_is_not_installed_is_not_suspected_and_what_fails_at_once_does_not_queue() -> None:
    assert suspects(an_estimate(15), 100, 0.2, 2, installed={"flask", "requests"}) == []
    assert not any("redis 8" in one["what"] for one in suspects(an_estimate(100), 300, 0.2, 2))
    refused = suspects(an_estimate(kind="unknown"), 120, 0.2, 2, failed_after_s=[0.01] * 20)
    assert "redis 8" in refused[0]["what"]
    assert suspects(an_estimate(kind="none"), 100, 0.2, 2) == []


@pytest.mark.parametrize(
    ("slots", "after_s", "first"),
    [(100, 5.1, "httpx"), (100, 60.2, "neo4j"), (100, 301.0, "aiohttp"), (10, 20.1, "tornado"), (10, 60.0, "aiopg")],
)
def test_of_limits_with_the_same_number_the_time_out_tells_which(slots: int, after_s: float, first: str) -> None:
    found = suspects(an_estimate(slots, processes=1), 3 * slots, 1.0, 2, failed_after_s=[after_s] * 5)
    assert found[0]["what"].split(": ")[-1].startswith(first)


def test_a_number_that_is_nobodys_default_may_have_been_set_and_then_the_settings_bound_the_effect() -> None:
    there, found = {"sqlalchemy", "httpx", "gunicorn", "anyio", "flask"}, an_estimate(7, processes=1, each=7)
    pool, client = suspects(found, 40, 0.1, 2, installed=there, server="gunicorn", handler="def", settings_allow=8)
    assert pool["what"] == "7 at a time: SQLAlchemy's pool, if it was set to 7 (5 + 10 by default)"
    assert client["what"] == "7 at a time: httpx's connections, if it was set to 7 (100 by default)"
    assert pool["predicted_effect"] == (
        "with pool_size + max_overflow raised to 40 in each process, and the 8 that the settings allow, "
        "a burst of 40 would take 0.5 s, not 0.6"
    )
    assert suspects(found, 40, 0.1, 2, installed=there, settings_allow=7) == []  # that are the settings' own
    for own in (an_estimate(4, processes=1), an_estimate(40, processes=1), an_estimate(15, processes=1)):
        settings = own["slots"] or 0  # what the settings say, and show: a change of them is bound by nothing
        (first, *_) = suspects(own, 120, 0.1, 2, settings_allow=settings)
        assert "and nothing else in the way" in first["predicted_effect"]
    assert suspects(found, 40, 0.1, 2) == []  # nothing is known of what is there
    for uncertain in (
        an_estimate(9, low=8),
        an_estimate(9, high=None),
        an_estimate(9, kind="two-pass"),
        an_estimate(1),
    ):
        assert not any("if it was set" in one["what"] for one in suspects(uncertain, 40, 0.1, 2, installed=there))
    twice = suspects(an_estimate(14, processes=2, each=7), 40, 0.1, 2, installed=there)[0]
    assert twice["what"].startswith("14 at a time: SQLAlchemy's pool, if it was set to 7")
    double = suspects(an_estimate(30, processes=1, each=30), 40, 0.1, 2, installed=there)[0]
    assert double["what"] == "30 at a time: SQLAlchemy's pool, if it was set to 30 (5 + 10 by default)"


def test_before_python_3_8_the_default_executor_had_five_threads_for_each_cpu() -> None:
    (executor,) = [limit for limit in LIMITS if limit.default == "min(32, cpus + 4)"]
    assert [executor.number(cpus, (3, 11)) for cpus in (1, 2, 4, 8, 16, 28, 64)] == [5, 6, 8, 12, 20, 32, 32]
    assert (executor.number(4, (3, 7)), executor.number(4, (3, 8))) == (20, 8)


def test_every_limit_has_a_number_a_setting_and_a_source() -> None:
    assert len(LIMITS) >= 35
    for limit in LIMITS:
        assert limit.number(2, (3, 11)) >= 1 and limit.what and limit.setting and limit.source
        assert not limit.after_s or float(limit.after_s) >= 0


# ---------------------------------------------------------------- two pools, one stall


@pytest.mark.parametrize(
    ("threads", "connections", "requests", "failed"),
    [
        (40, 15, 54, 0), (40, 15, 55, 25), (40, 15, 60, 25), (40, 15, 70, 25), (40, 15, 100, 65),
        (15, 15, 29, 0), (15, 15, 30, 15), (40, 30, 69, 0), (40, 30, 70, 10), (10, 20, 29, 0), (10, 20, 30, 10),
    ],
)  # fmt: skip
def test_two_pools_stall_from_threads_plus_connections_on(
    threads: int, connections: int, requests: int, failed: int
) -> None:
    assert two_pools(requests, threads, connections) == failed
    by_hand = two_pools_by_hand(requests, threads, connections, 0.1, 2.0)
    assert len(by_hand.failed_after_s) == failed
    assert (max(by_hand.answered_s) >= 2.0) == (failed > 0)


@pytest.mark.parametrize("threads", (5, 10, 16, 40))
@pytest.mark.parametrize("connections", (1, 4, 5, 15, 20))
def test_two_pools_agree_with_the_events_one_by_one(threads: int, connections: int) -> None:
    for requests in range(1, 4 * (threads + connections), 3):
        by_hand = two_pools_by_hand(requests, threads, connections, 0.1, 60.0)
        assert two_pools(requests, threads, connections) == len(by_hand.failed_after_s)


# ---------------------------------------------------------------- published cases


@pytest.mark.parametrize(("slots", "published_s"), ((12, 256.2), (40, 78.6)))
def test_a_thousand_requests_by_fifty_users_of_three_seconds(slots: int, published_s: float) -> None:
    dice = random.Random(1)
    stub = Stub((slots,), 3.0, 0.005, extra_s=(0.01, 0.05))
    sent, answered, _ = stub.serve(1000, dice, users=50)
    found = estimate("closed", 50, sent, answered, lone_s=stub.lone(dice))
    assert found["slots"] == slots and max(answered) == pytest.approx(published_s, rel=0.06)
    handler = "def" if slots == 40 else "async"
    (first, *_) = suspects(found, 1000, 3.0, 8, server="uvicorn", handler=handler)
    assert ("AnyIO" if slots == 40 else "asyncio.to_thread") in first["what"]


@pytest.mark.parametrize(("processes", "answered_in_a_minute"), ((1, 200), (4, 500)))
def test_threads_that_do_nothing(processes: int, answered_in_a_minute: int) -> None:
    """wrk -c100 -d60s on a `def` handler of 10 s: 200 answers with --threads 1 and with 4; 500 with 4 workers."""
    dice = random.Random(1)
    stub = Stub((40,) * processes, 10.0, extra_s=(0, 0.002))
    sent, answered, _ = stub.serve(700, dice, users=100)
    within = sorted(range(700), key=lambda i: answered[i])[:answered_in_a_minute]
    assert sum(at < 60 for at in answered) == answered_in_a_minute
    found = estimate("closed", 100, [sent[i] for i in within], [answered[i] for i in within], lone_s=stub.lone(dice))
    assert (found["slots"], found["kind"]) == ((40, "slots") if processes == 1 else (None, "none"))
    assert found["low"] == (40 if processes == 1 else 100)


def serial(answered_s: Sequence[float]) -> Callable[[], Estimate]:
    return lambda: estimate("burst", len(answered_s), [0.0] * len(answered_s), answered_s, lone_s=[5.0, 5.0])


@pytest.mark.parametrize(
    ("answers", "kind", "slots"),
    [
        (serial([5.0 * (k // 40 + 1) for k in range(1000)]), "slots", 40),  # `def` with a sleep of 5 s
        (serial([5.0] * 1000), "none", None),  # `async def`
        (serial([5.0 * (k + 1) for k in range(10)]), "slots", 1),  # a sleep that blocks
    ],
)
def test_a_thousand_calls_of_five_seconds(answers: Callable[[], Estimate], kind: str, slots: int | None) -> None:
    assert (answers()["kind"], answers()["slots"]) == (kind, slots)


def test_rounds_whose_first_is_late_are_not_taken_for_cpu_that_flows() -> None:
    """As 40 threads answered 320 at once: one that finds the loop idle, the others once all 320 have been begun."""
    answered = sorted(
        [0.303 * (k + 1) for k in range(8)] + [0.45 + 0.308 * k + 0.0005 * i for k in range(8) for i in range(39)]
    )
    found = estimate("burst", 320, [0.0] * 320, answered, lone_s=[0.303, 0.3035, 0.304])
    assert (found["kind"], contains(found, 40)) == ("smeared", True)


def test_answers_a_third_later_than_alone_are_not_no_limit_and_single_ones_no_rounds() -> None:
    assert estimate("burst", 10, [0.0] * 10, [0.13] * 10, lone_s=[0.1, 0.1])["kind"] == "unknown"
    singles = estimate("burst", 30, [0.0] * 30, [0.1 + 0.05 * k for k in range(30)], lone_s=[0.1, 0.1])
    pairs = estimate("burst", 30, [0.0] * 30, [0.1 + 0.05 * (k // 2) for k in range(30)], lone_s=[0.1, 0.1])
    assert (singles["kind"], pairs["kind"], pairs["slots"]) == ("smeared", "slots", 2)
    assert "a limit inside the handler" in " ".join(pairs["evidence"])


def test_users_that_could_not_fill_three_rounds_leave_room_for_processes() -> None:
    sent, answered, _ = Stub((14,), 0.1).serve(300, random.Random(1), users=30)
    known, unknown = (
        estimate("closed", 30, sent, answered, lone_s=[0.1, 0.1], processes=processes) for processes in (1, None)
    )
    assert certain(known) and known["slots"] == unknown["slots"] == 14
    assert unknown["high"] is None and "fewer than three full rounds" in " ".join(unknown["evidence"])
