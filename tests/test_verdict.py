"""Tests of the verdict on the run of samples.py: 16 requests at once on four sync workers, four rounds of a second."""

from __future__ import annotations

import dataclasses

import pytest
from samples import (
    BAND,
    LAUNCH,
    LOADS,
    sample_estimate,
    sample_facts,
    sample_prediction,
    sample_statistics,
    sample_where,
)

from engine.audit import cpu_busy, warnings_of_client, warnings_of_database
from engine.loads import Closed
from engine.places import Limit, Resource, Spot, State
from engine.run import Database, Prediction
from engine.verdict import explain, judge, limits_of, slots_of_log

NOTHING_KNOWN = Prediction()


def each_of(cases):
    """Cases grouped by what they lead to, one by one."""
    return [(result, case) for result, group in cases.items() for case in group]


SPLIT = {"split_prediction": sample_prediction(makespan_s=5.0)}
LATE = {"measured_s": 6.0}


@pytest.mark.parametrize(
    "explained, changes",
    each_of({
        "prediction": [{"inside": None}],
        None: [{"failed": 1}, {"stopped": "SIGINT"}, {"prediction": NOTHING_KNOWN},
               {"load": LOADS["closed"], "prediction": Prediction(makespan_s=4.0)}],  # nothing to compare
        "other-slots": [{"slots_held": 3}],  # although the figures fit
        "cpu": [{"measured_s": 4.34}],
        "split": [SPLIT | {"measured_s": 5.4}],  # with its CPU time
        "backlog-overflow": [LATE | {"slow_connects": 1}],
        "nothing": [LATE | {"lone_s": 1.11}],
        "sooner": [{"measured_s": 3.0, "server_cpu_s": 6.0}],  # CPU time makes nothing faster
    }),
)  # fmt: skip
def test_what_explains_a_run(explained, changes):
    facts = sample_facts(**changes)
    assert explain(facts, None, BAND) == explained
    if "measured_s" in changes and (warnings := judge(facts, None, 0.002).warnings):
        ids = {"split": "uneven-split", "nothing": "unexplained"}
        assert warnings[-1].id == ids.get(explained, explained)
        assert warnings[-1].facts.get("off") in (None, [["makespan_s", changes["measured_s"], 4.0]])


@pytest.mark.parametrize("at_work, doubt", [(3.0, None), (20.0, "all-at-work")])
def test_slots_that_more_requests_than_that_were_seen_in_are_not_certain(at_work, doubt):
    """A rate limiter in which all requests sleep is answered as one slot would be."""
    where = sample_where(places=(Spot(at_work, State.WORKING, "app.py:7"),))
    found = judge(sample_facts(where=where, slots_known=False, slots=None), sample_estimate(1), 0.002)
    assert (found.estimate.doubt, found.estimate.is_certain) == (doubt, doubt is None)
    assert any(one.from_answers for one in found.limits) == (doubt is None)


def test_only_a_certain_estimate_of_other_slots_explains_a_run():
    late, three = sample_facts(**LATE), sample_estimate(3)
    # As many as predicted with; three or more; three or fewer, as waits that differ look, too.
    vague = [sample_estimate(4), sample_estimate(3, high=None), sample_estimate(3, low=2)]
    assert [explain(late, one, BAND) for one in (three, *vague)] == ["other-slots", *["nothing"] * 3]
    assert explain(sample_facts(), three, BAND) == "prediction"


@pytest.mark.parametrize(
    "held, seen, server, predicted, changes, shown",
    [
        (3, 4, 4, 4, {}, "held"),
        (None, 5, 4, 4, {}, "seen-more"),
        (None, 3, 4, 4, {}, "never-more"),
        (None, 3, 4, 4, {"load": LOADS["closed"]}, None),
        (None, 3, 4, 4, {"requests_of_workers": {"a": 3}}, None),
        (None, 3, 4, 4, {"server_cpu_s": 1.99}, "never-more"),  # the fourth could begin
        (None, 3, 4, 4, {"server_cpu_s": 2.01}, None),
        # No limit on what enters: stated slots, or a pool, are behind it.
        (40, 40, 40, 15, {}, None),
        (None, 10, 40, 15, {}, "never-more"),
        (40, 40, None, 15, {}, None),
        (14, 14, None, 15, {}, "held"),
        (40, 40, None, None, {}, "held"),
        (4, 4, None, 8, {"requests_of_workers": {"a": 8, "b": 8}}, None),
    ],
)
def test_the_log_shows_whether_the_slots_are_others(held, seen, server, predicted, changes, shown):
    base = {"server_cpu_s": 0.1, "requests_of_workers": {"a": 16}} | changes
    facts = sample_facts(slots_held=held, slots_seen=seen, server_slots=server, slots_per_worker=predicted, **base)
    found = slots_of_log(facts)
    assert (found and found[:3]) == (shown and (shown, held or seen, predicted))


@pytest.mark.parametrize("seen, each, kind", [(8, 3, "inside"), (3, 3, "answers"), (8, 6, "inside")])
def test_answers_that_contradict_the_settings_say_so(seen, each, kind):
    facts = sample_facts(slots_held=None, slots_seen=seen, slots=8, slots_per_worker=8, server_slots=8, **LATE)
    found = judge(facts, sample_estimate(12, each=each), 0.002)
    (warned,) = (one.facts for one in found.warnings if one.id == "other-slots")
    assert [warned[name] for name in ("kind", "slots", "of", "predicted")] == [kind, 12, seen, 8]
    (limit,) = (one for one in found.limits if one.resource is Resource.SLOTS)
    assert (limit.from_answers, limit.ceiling_rps, limit.slots) == (True, 12, 12)


# ---------------------------------------------------------------- limits

IDLE = {"handler_s": 8.0, "mean_in_flight": 2}


@pytest.mark.parametrize(
    "first, changes",
    each_of({
        "slots": [{}, {"load": LOADS["closed"]}, {"kernel": {"ListenOverflows": 3}}],  # another program's
        "backlog": [{"slow_connects": 3}],
        "arrivals": [IDLE | {"load": LOADS["closed"], "latency_s": sample_statistics(mean=1.1)}],
        "none": [{"slots": None, "wait_s": None}, {"answered": 0}, IDLE | {"load": LOADS["closed"]},
                 IDLE | {"load": LOADS["open"], "throughput_rps": 3.5}],
    }),
)  # fmt: skip
def test_what_limited_a_run(first, changes):
    assert limits_of(sample_facts(**changes), None, None)[0].resource.value == first


def test_the_figures_of_the_limits():
    found = {one.resource: (one.busy, one.ceiling_rps) for one in limits_of(sample_facts(), None, None)}
    assert found == {Resource.SLOTS: (1.0, 4.0), Resource.CPU: (0.05, 80.0), Resource.CLIENT: (0.025, 160.0)}
    assert cpu_busy(sample_facts(server_cpu_s=2.0, workers=1)) == 0.5
    assert judge(sample_facts(failed=1, errors={"reset": 1}), None, 0.002).limits == ()
    unknown = sample_facts(slots_known=False, slots=None, slots_per_worker=None, prediction=NOTHING_KNOWN)
    of_answers = [limits_of(unknown, sample_estimate(4, high=high), None)[0] for high in (4, None)]
    assert [(one.resource.value, one.ceiling_rps) for one in of_answers] == [("slots", 4.0), ("none", None)]


@pytest.mark.parametrize(
    "pool, threads, handler_s, first",
    [(0, 1, 8.0, ("slots", 0.5)), (0, 1, None, ("slots", 1)), (1, 1, 8.0, ("slots", 0.5)), (1, 4, 8.0, ("pool", 1))],
)
def test_slots_are_as_busy_as_the_handlers_say_or_as_the_waits_come_to(pool, threads, handler_s, first):
    launch = dataclasses.replace(LAUNCH, pool=pool, threads=threads)
    found = limits_of(sample_facts(launch=launch, handler_s=handler_s), None, None)[0]
    assert (found.resource.value, found.busy) == first


# ---------------------------------------------------------------- warnings

USERS = {"load": Closed(1000, concurrency=10), "sent": 1000, "answered": 1000, "measured_s": 10.0}


@pytest.mark.parametrize(
    "identifier, base, field, at, beyond",
    [
        ("failed-requests", {"errors": {"reset": 1}}, "failed", 0, 1),
        ("backlog-overflow", {}, "slow_connects", 0, 1),
        (
            "backlog-overflow",
            {"sockets_resent": 3},
            "body",
            bytes(16_385),
            b"",
        ),  # of uploads, a full receiver is no backlog
        ("client-stalled", {}, "client_stalled_s", 0.4, 0.41),
        ("client-stalled", {"latency_s": sample_statistics(max=0.2)}, "client_stalled_s", 0.1, 0.11),
        ("client-limit", {}, "client_cpu_s", 8.0, 8.1),
        ("client-limit", {"client_cpu_s": 8.5}, "client_spun_s", 0.6, 0.4),
        ("client-limit", {"client_cpu_s": 0.5}, "measured_s", 0.5, 0.51),
        ("no-keep-alive", {"keep_alive": True}, "sockets_opened", 12, 13),
        ("no-keep-alive", {"sockets_opened": 13}, "keep_alive", False, True),
        ("no-keep-alive", {"keep_alive": True, "sockets_opened": 6}, "sent", 5, 4),
        ("little", {"mean_in_flight": 5.0}, "sent", 100, 101),
        ("late-sends", {}, "lag_s", sample_statistics(max=0.01), sample_statistics(max=0.011)),
    ],
)
def test_a_warning_of_the_client_begins_where_it_says(identifier, base, field, at, beyond):
    facts = [sample_facts(**USERS | base | {field: value}) for value in (at, beyond)]
    assert [identifier in {warned.id for warned in warnings_of_client(one)} for one in facts] == [False, True]


def test_a_run_that_ended_before_anything_was_sent_is_judged():
    nothing = {"sent": 0, "answered": 0, "measured_s": 0.0, "stopped": "SIGINT", "latency_s": None, "log_lines": 0}
    found = judge(sample_facts(**nothing, client_cpu_s=0.01, server_cpu_s=0.01), None, 0.002)
    assert (found.explained_by, found.warnings) == (None, ()) and found.limits[0].resource is Resource.NONE


def test_a_client_with_cpus_left_can_have_more_processes():
    for processes, more in ((1, 2), (2, 0)):
        (warned,) = warnings_of_client(sample_facts(**USERS, client_cpu_s=18.0, processes=processes))
        assert warned.facts["more_processes"] == more


def test_a_run_as_predicted_has_no_warning():
    assert judge(sample_facts(other_cpu_s=0.1), None, 0.002).warnings == ()


def test_where_the_server_ended_that_is_the_one_warning_of_failed_requests():
    found = judge(sample_facts(failed=1, errors={"reset": 1}, server_ended=True), None, 0.002)
    assert [one.id for one in found.warnings] == ["server-ended"]


def test_the_database_is_counted_against_the_requests_where_it_counted_and_all_were_answered():
    for database, changes in (
        (Database(10_000, 16), {}),
        (Database(error="gone"), {}),
        (Database(1, 17), {"failed": 1}),
    ):
        assert not list(warnings_of_database(sample_facts(database=database, **changes)))


@pytest.mark.parametrize("server_cpu_s, is_cpu", [(0.64, False), (3.6, True)])
def test_where_others_take_the_cpus_the_server_is_out_of_cpu_time_only_by_its_own(server_cpu_s, is_cpu):
    """Others take 80 % of two CPUs for four seconds, and the requests wait for a lock."""
    seen = sample_where(limit=Limit("a lock", 1.0, slots=1.0, line="app.py:3"))
    one = {"workers": 1, "other_cpu_s": 6.4, "server_cpu_s": server_cpu_s, "where": seen}
    assert (judge(sample_facts(**one), None, 0.002).limits[0].resource == Resource.CPU) == is_cpu
