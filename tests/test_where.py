"""Samples into places, places into a limit or a standstill: the pure part of looking inside."""

from __future__ import annotations

from dataclasses import replace

import pytest
from samples import sample_where

from engine.in_use import constant_inside, left_over
from engine.limit import ITSELF, LOOP, Answers, as_known, holding_time_s, limit_of
from engine.places import Spot, State
from engine.standstill import circle_of
from engine.where import where_now, where_of

APP = ["/shop/app/db.py", 12, "get"]
LIBRARY = ["/lib/site-packages/sqlalchemy/pool/impl.py", 3, "_do_get"]
POOL = ["a pool", 7, 15, 15, "pool_size"]
READY = [LOOP, 1, 1, 1, ""]


def row(n, app=APP, resource=None, **changes):
    fields = {
        "below": [LIBRARY],
        "handler": None,
        "phase": None,
        "through": [],
        "parts": n,
        "calls": n,
        "there": n,
        "answered": False,
        "on_loop": False,
        "opens": None,
        "held_to": None,
        "cpu_s": 0.0,
    }
    return {"n": n, "app": app, "resource": resource} | fields | changes


def sample(at_s, *rows, pid=1):
    inside = sum(one["n"] for one in rows if not one["answered"])
    return {"pid": pid, "at": at_s, "cost": 0.001, "cpu": 0.0, "inside": inside, "rows": list(rows)}


def seen(*lines, n=40, until_s=2.0, good_s=None):
    """What n requests, all sent at 0 and answered at the end, were seen to do. good_s: if some failed."""
    return where_of(lines, [0.001] * n, [until_s] * n, "/shop", True, good_s=good_s)


def test_each_request_is_at_one_place_and_the_rest_has_been_seen_by_no_process():
    found = seen(*(sample(at_s, row(15), row(20, resource=POOL)) for at_s in (0.1, 0.2, 0.3)))
    assert [(one.requests, one.state, one.line) for one in found.places] == [
        (20, State.WAITING, "app/db.py:12"), (15, State.WORKING, "app/db.py:12"), (5, State.QUEUED, None)
    ]  # fmt: skip
    waiting = found.places[0]
    assert (waiting.resource, waiting.size, waiting.used, waiting.setting) == ("a pool", 15, 15, "pool_size")
    assert waiting.below == ("sqlalchemy/pool/impl.py:3 _do_get",) and waiting.function == "get"
    assert (found.samples, found.requests) == (3, 40) and 0 < found.cost < 0.1


def test_samples_of_a_load_that_is_not_full_or_not_settled_do_not_count():
    lines = [
        sample(0.01, row(3)),
        *(sample(at_s, row(40)) for at_s in (0.1, 0.2, 0.3)),
        sample(0.4, row(40, resource=READY)),
    ]
    found = seen(*lines, sample(3.0, row(40)))
    assert found.samples == 3 and [one.requests for one in found.places] == [40]
    assert seen() is None and seen(sample(3.0, row(1))) is None


def test_processes_are_added_up_each_with_what_it_has_of_its_own():
    lines = [sample(at_s, row(9), row(10, resource=POOL), pid=pid) for at_s in (0.1, 0.2, 0.3) for pid in (1, 2)]
    made = [{"pid": pid, "made": {"7": ["/shop/app/pools.py", 4]}} for pid in (1, 2)]
    waiting, working = seen(*lines, *made, n=38).places
    assert (waiting.requests, waiting.size, waiting.used, waiting.processes) == (20, 30, 30, 2)
    assert waiting.size_line == "app/pools.py:4" and working.requests == 18


def test_an_event_loop_that_runs_one_line_in_most_samples_is_blocked_by_it():
    blocks = row(1, on_loop=True)
    found = seen(*(sample(at_s, blocks, row(39, app=None)) for at_s in (0.1, 0.2, 0.3)))
    assert (found.blocked, found.limit.resource, found.limit.line) == (1.0, LOOP, "app/db.py:12")
    now_and_then = seen(*(sample(0.1 * k, *[blocks] * (k == 1), row(39)) for k in range(1, 6)))
    assert now_and_then.limit is None and State.BLOCKING not in {one.state for one in now_and_then.places}


@pytest.mark.parametrize("on_loop, slots", [(False, 1), (True, None)])
def test_one_request_on_an_event_loop_is_no_slot(on_loop, slots):
    lines = [sample(0.1 * k, row(1, on_loop=on_loop)) for k in range(1, 12)]
    assert constant_inside(lines) == slots


def test_what_other_clients_send_is_seen_too():
    found = where_now([sample(at_s, row(15), row(25, resource=POOL)) for at_s in (1.0, 1.1, 1.2)], "/shop")
    assert [one.requests for one in found.places] == [25, 15] and where_now([], "/shop") is None


# ---------------------------------------------------------------- the limit


def waits(requests, resource="a pool", size=None, state=State.WAITING, **changes):
    return Spot(requests, state, resource=resource, size=size, **changes)


WORKS = Spot(7.0, State.WORKING, "app.py:5")
WAITS_FOR_ITS_FIRST = waits(20.0, "AnyIO's threads", 40, has_nothing=True)


@pytest.mark.parametrize(
    "places, limit",
    [
        ((waits(60.0, "AnyIO's threads", 40), waits(25.0, size=15), WORKS), ("a pool", 15, 40)),  # one inside another
        ((waits(60.0, "AnyIO's threads", 40), replace(WORKS, requests=39.0)), ("AnyIO's threads", 40, None)),
        ((waits(60.0, size=20), WORKS), ("a pool", 7, None)),  # something else has the rest
        ((waits(60.0, size=20, parts=2.0), replace(WORKS, requests=10.0, parts=2.0, tasks=20.0)), ("a pool", 10, None)),
        ((waits(60.0, size=20),), ("a pool", 0, None)),  # all is lost: no request goes on
        ((waits(30.0, "a semaphore"), WORKS), ("a semaphore", 7, None)),  # its size is what goes on
        ((waits(0.3, size=15), WORKS), None),  # hardly ever
        ((waits(30.0, LOOP, 1), WORKS), None),
        ((WORKS,), None),
    ],
)
def test_the_limit_is_what_the_fewest_hold_of_all_that_is_waited_for(places, limit):
    found = limit_of(sample_where(places=places), [], Answers([1.0, 2.0], True))
    assert (found and (found.resource, found.slots, found.next_slots)) == limit


@pytest.mark.parametrize("under_way, limit", [(4.0, None), (4.9, "slots")])
def test_of_no_more_requests_than_slots_none_waits_for_a_slot(under_way, limit):
    """The samples of several processes are not of one moment: one that is on its way is queued here, at work there."""
    places = (Spot(3.0, State.WORKING), Spot(1.0, State.ANSWERED), waits(1.0, None, state=State.QUEUED))
    found = limit_of(replace(sample_where(places=places), requests=under_way), [], Answers([], False), 4)
    assert (found and found.resource) == limit


@pytest.mark.parametrize(
    "slots, answered_s, is_burst, held_s",
    [
        (15, [0.2 * (1 + k // 15) for k in range(100)], True, 0.2),
        (1, [0.1 + 0.03 * k for k in range(50)], True, 0.03),  # a section that one request at a time is in
        (40, [0.0] * 50 + [0.5 * (1 + k // 40) for k in range(400)], False, 0.5),  # answered before it is given back
        (40, [0.6 * (1 + k // 80) for k in range(400)], False, 0.3),  # two rounds are answered together
        (15, [0.2] * 20, True, None),  # too few to tell
        (15, [], False, None),
    ],
)
def test_a_slot_is_held_for_the_slots_over_the_rate_of_answers(slots, answered_s, is_burst, held_s):
    assert holding_time_s(slots, Answers(answered_s, is_burst)) == (held_s and pytest.approx(held_s, rel=0.02))


def test_what_takes_a_slot_twice_or_is_dealt_unevenly_has_no_wrong_holding_time():
    twice = Answers([1.5 + 0.001 * k for k in range(120)], True)  # FastAPI's `def` with a response model
    early, late = (twice._replace(since_s={"AnyIO's threads": at_s}) for at_s in (0.01, 1.49))
    assert holding_time_s(40, early, "AnyIO's threads") is None
    assert holding_time_s(1, late, "AnyIO's threads") == pytest.approx(0.001)
    short, long = [0.1 * k for k in range(1, 9)], [0.1 * k for k in range(1, 33)]
    uneven = sorted(short + long)  # a lock of each of two processes, of which one has nothing left to do after 0.8 s
    assert holding_time_s(2, Answers(uneven, True, processes=2, until_s={"a lock": 0.84}), "a lock") == pytest.approx(
        0.1, rel=0.05
    )


def test_until_when_a_burst_is_everywhere_is_seen_in_the_samples():
    def sample(pid, at_s, inside):
        return {"pid": pid, "at": at_s, "rows": [{"n": inside, "resource": ["a lock", 1, 1, 1, ""], "on_loop": False}]}

    samples = [sample(1, 0.1, 4), sample(2, 0.1, 4), sample(1, 0.3, 2), sample(1, 0.5, 1), sample(2, 0.3, 4)]
    assert left_over(samples, None) == {"a lock": pytest.approx(0.35)}
    assert left_over(samples, 4.0) == {"a lock": pytest.approx(0.35), "slots": pytest.approx(0.35)}
    assert left_over(samples[:1], 4.0) == {"a lock": pytest.approx(0.15), "slots": pytest.approx(0.15)}


def test_of_a_burst_with_work_after_the_answers_the_holding_time_is_not_known():
    after = waits(40.0, None, state=State.ANSWERED)
    found = limit_of(
        sample_where(places=(waits(60.0, size=40), after)), [], Answers([0.1 * k for k in range(100)], True)
    )
    assert (found.slots, found.held_s, found.ceiling_rps) == (40, None, None)


def test_of_what_blocks_after_the_answers_their_rate_does_not_tell_the_time():
    block = Spot(1.0, State.BLOCKING, "app.py:9", share=1.0)
    where, answers = sample_where(places=(WORKS,), blocked=1.0), Answers([0.1 * k for k in range(100)], True)
    held_s = [limit_of(where, [replace(block, is_after=is_after)], answers).held_s for is_after in (False, True)]
    assert held_s == [pytest.approx(0.1), None]


@pytest.mark.parametrize("fast, held_s", [(1, 0.1), (4, None)])
def test_where_many_requests_pass_by_the_rate_does_not_tell_the_time(fast, held_s):
    """Of ten requests so many are answered from a cache; the others wait for a lock."""
    began_s = [0.1 * k for k in range(100)]
    ended_s = [began_s[k] + (0.001 if k % 10 < fast else 2.0) for k in range(100)]
    lines = [sample(0.5 * k, row(1), row(19, resource=["a lock", 8, 1, 1, ""])) for k in range(1, 18)]
    found = where_of(lines, began_s, ended_s, "/shop", False).limit
    assert found.resource == "a lock" and (found.held_s and round(found.held_s, 1)) == held_s


# ---------------------------------------------------------------- a standstill


@pytest.mark.parametrize(
    "spots, circle",
    [
        ([waits(60.0, "AnyIO's threads", 40), waits(40.0, size=15)], {"AnyIO's threads": 40, "a pool": 15}),
        ([waits(5.0, size=5, line="a.py:1"), waits(11.0, size=5, line="a.py:2")], {"a pool": 5}),
        (
            [replace(waits(float(size), size=size), size_line=f"db.py:{size}") for size in (5, 3)],
            {"a pool made at db.py:5": 5, "a pool made at db.py:3": 3},  # two pools of one kind
        ),
        ([waits(1.0, "a lock", 1, State.BLOCKING), WORKS], {LOOP: 1, "a lock": 1}),  # whatever works, the loop does not
        ([waits(8.0, ITSELF), Spot(4.0, State.QUEUED)], {ITSELF: 8}),
        ([waits(5.0, ITSELF), waits(35.0, size=5)], {ITSELF: 5}),  # the others wait behind these
        (  # what waits for its first thread has nothing
            [waits(5.0, size=5, line="a.py:1"), waits(35.0, size=5, line="a.py:2"), WAITS_FOR_ITS_FIRST],
            {"a pool": 5},
        ),
        ([waits(40.0, size=5), WAITS_FOR_ITS_FIRST], {}),
        ([replace(waits(9.0, size=10, line=f"a.py:{n}"), size_of_each=5) for n in (1, 2)], {"a pool": 5}),
        ([waits(60.0, size=40), WORKS], {}),  # something goes on
        ([waits(60.0, size=40)], {}),  # what holds it is not seen
        ([], {}),
    ],
)
def test_a_standstill_is_a_circle_of_what_is_waited_for(spots, circle):
    assert circle_of(spots) == circle


def test_a_standstill_needs_a_silence_and_requests_that_failed():
    lines = [
        sample(at_s, row(20, resource=POOL), row(20, resource=["a lock", 8, 1, 1, ""])) for at_s in (0.6, 0.7, 0.8)
    ]
    found = seen(*lines, good_s=[])
    assert (found.circle, found.circle_at, seen(*lines).circle) == (("a pool", "a lock"), 16, ())
    assert seen(*lines, until_s=0.9, good_s=[]).circle
    ended_s = [0.05 * k + 0.9 for k in range(40)]
    answered_all_the_time = where_of(lines, [0.001] * 40, ended_s, "/shop", True, good_s=[])
    assert answered_all_the_time.circle == ()
    few = [sample(at_s, row(8, resource=POOL), row(2, resource=["a lock", 8, 1, 1, ""])) for at_s in (0.6, 0.7, 0.8)]
    assert seen(*few, n=10, good_s=[]).circle_at is None  # 16 would be needed, and there were 10


@pytest.mark.parametrize(
    "times_s, is_anew",
    [((0.1, 0.2, 0.3), False), ((1.0, 1.1), False), ((1.0, 1.2, 1.4), True)],
    ids=["first", "twice", "later"],
)
def test_connections_count_as_opened_anew_where_that_goes_on(times_s, is_anew):
    """Those of the first third of a load have to be opened once; two moments may be one connection."""
    opens = ["SQLAlchemy's pool", 5, 15]
    lines = [
        sample(at_s, row(10), row(2, opens=opens if at_s in times_s else None))
        for at_s in (round(0.1 * k, 1) for k in range(1, 16))
    ]
    began_s, ended_s = [0.01 * k for k in range(150)], [0.01 * k + 0.1 for k in range(150)]
    found = where_of(lines, began_s, ended_s, "/shop", False)
    assert bool(found.opening) == is_anew
    if found.opening:
        assert (found.opening.kept, found.opening.most, found.opening.line) == (5, 15, "app/db.py:12")


@pytest.mark.parametrize("sizes", [(2, 8), (5, 5)])
def test_the_objects_of_one_line_are_not_taken_for_one(sizes):
    """What the requests of each have is not seen: no holding time, and no size."""
    waiting = [row(10, resource=["a semaphore", number, size, size, ""]) for number, size in enumerate(sizes)]
    found = seen(*(sample(0.1 * k, row(10, app=[*APP[:1], 13, "get"]), *waiting) for k in range(1, 12)), n=30)
    assert (found.limit.slots, found.limit.objects, found.limit.held_s) == (10, 2, None)


def test_requests_whose_answer_is_on_its_way_are_in_no_queue():
    lines = [sample(at_s, row(1)) for at_s in (0.3, 0.4, 0.5)]
    began_s, ended_s = [0.001] * 20, [2.0] * 20
    queued = [
        sum(one.requests for one in found.places if one.state is State.QUEUED)
        for first_s in (2.0, 0.2)
        if (found := where_of(lines, began_s, ended_s, "/shop", True, first_byte_s=[first_s] * 20))
    ]
    assert queued == [19, 0]


def test_a_size_of_one_process_of_several_is_that_of_one():
    """The other one has no more requests than can go on."""
    resource = ["a semaphore", 7, 5, 5, ""]
    lines = [
        sample(0.1 * k, row(5, app=[*APP[:1], 13, "get"]), *[row(30, resource=resource)] * (pid == 1), pid=pid)
        for k in range(1, 12)
        for pid in (1, 2)
    ]
    limit = where_of(lines, [0.001] * 40, [0.1 * (1 + k // 10) for k in range(40)], "/shop", True).limit
    assert (limit.slots, limit.size_of_each, limit.held_s) == (5, 5, None)


def test_requests_that_the_app_has_are_in_no_queue_though_not_each_has_a_place():
    """As greenlets or tasks that share a thread and are not told apart."""
    lines = [{**sample(at_s, row(1)), "inside": 40} for at_s in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)]
    found = seen(*lines)
    assert not [one for one in found.places if one.state is State.QUEUED] and found.limit is None


def test_what_other_processes_have_is_not_more_than_a_size():
    waiting = waits(2.0, "a semaphore (asyncio.Semaphore)", 3, held_to=14, line="app.py:12")
    inside = Spot(6.0, State.WORKING, "app.py:13", processes=2)
    assert as_known([waiting, inside], 9)[0].made_size is None
    assert as_known([waiting, replace(inside, processes=1)], 9)[0].made_size == 3


def test_a_loop_that_was_busy_for_a_short_time_was_not_blocked_for_the_rest():
    """However many samples that time has."""
    busy = [sample(at_s, row(20, on_loop=True)) for at_s in (0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.22, 0.24)]
    free = [sample(at_s, row(20)) for at_s in (0.3, 0.8)]
    assert seen(*busy, *free, n=20).blocked < 0.5 < 0.8 <= seen(*busy, *free[:1], n=20).blocked


def test_what_only_work_of_no_request_waits_for_is_not_passed_at_once():
    lines = [sample(at_s, row(20), row(0, resource=["a lock", 8, 1, 1, ""])) for at_s in (0.1, 0.2, 0.3)]
    assert seen(*lines, n=20).limit is None
