"""Tests of the verdict on the run of samples.py: 16 requests at once on four sync workers, four rounds of a second."""

from __future__ import annotations

import dataclasses

import pytest

from engine.audit import has_overflowed, warnings_of_client, warnings_of_database
from engine.loads import Closed, Figure
from engine.run import Band, Database, Explanation, Prediction, Resource
from engine.verdict import band_of, compared, cpu_busy, explain, judge, limits_of, slots_of_log
from tests.samples import LAUNCH, LOADS, sample_estimate, sample_facts, sample_prediction, sample_statistics

BAND = Band(overhead_s=0.01, timer_s=0.002, cpu_s=0.005, cpus=2, makespan_s=0.3, latency_s=0.1)
PREDICTED = Prediction(10.0, 0.4, 0.4, 0.5, 0.6, 4.0, spread_s=0.45)


def test_the_band_is_what_this_machine_adds():
    band = band_of(sample_facts(lone_s=1.01, latency_s=sample_statistics(min=1.02)), 0.001)
    assert band and dataclasses.astuple(band) == pytest.approx(
        (0.01, 0.001, 0.3 / 16, 2, 0.001 + 4 * 0.01 + 0.3, 0.001 + 2.5 * 0.01 + 4 * 0.3 / 16)
    )
    assert band_of(sample_facts(wait_s=None), 0.001) is None is band_of(sample_facts(answered=0), 0.001)


@pytest.mark.parametrize(
    ("shares", "cpus"), [({"a": 10, "b": 6}, 1.6), ({"a": 16, "b": 0}, 1), ({"a": 8, "b": 8}, 2), ({}, 2)]
)
def test_a_process_computes_on_one_cpu(shares, cpus):
    band = band_of(sample_facts(requests_of_workers=shares), 0.001)
    assert band and (band.cpus, band.cpu_s) == pytest.approx((cpus, (0.4 / cpus + 0.1) / 16))


def test_a_drawn_wait_costs_no_overhead():
    band = band_of(sample_facts(distribution="exp", lone_s=1.5), 0.001)
    assert band and band.overhead_s == 0.0


@pytest.mark.parametrize(
    ("kind", "with_cpu", "expected"),
    [
        ("burst", False, {Figure.LAST_ANSWER: (4 - 0.2 - 0.002, 4 + 0.2 + 0.3 - 0.005 * 16)}),
        ("burst", True, {Figure.LAST_ANSWER: (4 - 0.2 - 0.002, 4 + 0.2 + 0.3)}),
        ("closed", False, {Figure.MEAN: (0.378, 0.5), Figure.THROUGHPUT: (9.5 * 0.4 / 0.48, 10.5),
                           Figure.P95: (0.45 * 0.95 - 0.08, 0.5 * 1.1 + 0.08)}),
        ("ramp", True, {Figure.MEAN: (0.378, 0.52), Figure.THROUGHPUT: (9.5 * 0.4 / 0.5, 10.5)}),
        ("open", True, {Figure.MEAN: (0.378, 0.52), Figure.P99: (0.6 - 0.03 - 0.002, 0.6 + 0.03 + 0.1 + 0.06)}),
    ],
)  # fmt: skip
def test_the_room_that_a_prediction_has(kind, with_cpu, expected):
    facts = sample_facts(load=LOADS[kind], latency_s=sample_statistics(p95=0.5, p99=0.6))
    found = compared(facts, PREDICTED, BAND, with_cpu)
    assert {one.figure: (one.least, one.most) for one in found} == {
        figure: pytest.approx(room) for figure, room in expected.items()
    }
    assert all(one.measured == facts.measured.of(one.figure) for one in found)


SPLIT = sample_prediction(makespan_s=5.0)


@pytest.mark.parametrize(
    ("changes", "explained"),
    [
        ({}, "prediction"),
        ({"failed": 1}, None),
        ({"server_ended": True}, None),
        ({"prediction": Prediction()}, None),
        ({"load": LOADS["closed"], "prediction": Prediction(makespan_s=4.0)}, None),  # nothing to compare
        ({"slots_held": 3}, "other-slots"),
        ({"inside": None}, "prediction"),
        ({"measured_s": 4.47}, "cpu"),
        ({"measured_s": 3.0}, "nothing"),
        ({"measured_s": 5.0, "split_prediction": SPLIT}, "split"),
        ({"measured_s": 5.5, "split_prediction": SPLIT}, "split"),  # with its CPU time
        ({"measured_s": 6.0, "server_cpu_s": 10.0}, "cpu"),
        ({"measured_s": 6.0, "other_cpu_s": 5.0}, "busy-machine"),
        ({"measured_s": 6.0, "slow_connects": 1}, "backlog-overflow"),
        ({"measured_s": 6.0, "late_bodies": 2}, "delayed-ack"),
        ({"measured_s": 6.0, "client_cpu_s": 5.0}, "client-limit"),
        ({"measured_s": 6.0, "lag_s": sample_statistics()}, "late-sends"),
        ({"measured_s": 6.0, "lone_s": 1.2}, "longer-wait"),
        ({"measured_s": 6.0, "lone_s": 1.11}, "nothing"),
    ],
)
def test_what_explains_a_run(changes, explained):
    facts = sample_facts(**changes)
    assert explain(facts, None, BAND, slots_of_log(facts)) == (explained and Explanation(explained))
    if "measured_s" in changes and (warnings := judge(facts, None, 0.002).warnings):
        last = {"split": "uneven-split", "nothing": "unexplained"}.get(explained, explained)
        assert warnings[-1].id == last
        assert warnings[-1].facts.get("off") in (None, [["makespan_s", changes["measured_s"], 4.0]])


@pytest.mark.parametrize(
    ("estimate", "measured_s", "explained"),
    [
        (sample_estimate(3), 6.0, "other-slots"),
        (sample_estimate(4), 6.0, "nothing"),  # as many as predicted with
        (sample_estimate(3, high=None), 6.0, "nothing"),  # or more
        (sample_estimate(3, low=2), 6.0, "nothing"),  # or fewer: waits that differ look so too
        (sample_estimate(3), 4.0, "prediction"),
    ],
)
def test_only_a_certain_estimate_explains_a_run(estimate, measured_s, explained):
    assert explain(sample_facts(measured_s=measured_s), estimate, BAND, None) == explained


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"slots_held": 3}, ("held", 3)),
        ({"slots_seen": 5}, ("seen-more", 5)),
        ({"slots_seen": 3}, ("never-more", 3)),
        ({"slots_seen": 3, "load": LOADS["closed"]}, None),
        ({"slots_seen": 3, "requests_of_workers": {"worker0": 3}}, None),
        ({"slots_seen": 3, "server_cpu_s": 1.99}, ("never-more", 3)),  # the fourth could begin
        ({"slots_seen": 3, "server_cpu_s": 2.01}, None),
        # No limit on what enters: stated slots, or a pool, are behind it.
        ({"slots_held": 40, "slots_seen": 40, "server_slots": 40, "slots_per_worker": 15}, None),
        ({"slots_seen": 10, "server_slots": 40, "slots_per_worker": 15}, ("never-more", 10)),
        ({"slots_held": 40, "slots_seen": 40, "server_slots": None, "slots_per_worker": 15}, None),
        ({"slots_held": 14, "server_slots": None, "slots_per_worker": 15}, ("held", 14)),
        ({"slots_held": 40, "server_slots": None, "slots_per_worker": None}, ("held", 40)),
        ({"slots_held": 4, "server_slots": None, "slots_per_worker": 8, "requests_of_workers": {"a": 8, "b": 8}}, None),
    ],
)
def test_the_log_shows_whether_the_slots_are_others(changes, shown):
    base = {"slots_held": None, "slots_seen": 4, "server_slots": 4, "slots_per_worker": 4, "server_cpu_s": 0.1,
            "requests_of_workers": {"worker0": 16}}  # fmt: skip
    found = slots_of_log(sample_facts(**base | changes))
    assert (found and found[:2]) == shown


@pytest.mark.parametrize(
    ("estimate", "changes", "facts"),
    [
        (sample_estimate(3), {}, ("inside", 3, 8)),
        (sample_estimate(3), {"slots_seen": 3}, ("answers", 3, None)),
        (sample_estimate(12, each=6, processes=2), {"workers": 2}, ("inside", 12, 8)),
    ],
)
def test_answers_that_contradict_the_settings_say_so(estimate, changes, facts):
    base = {"slots_held": None, "slots_seen": 8, "slots": 8, "slots_per_worker": 8, "server_slots": 8, "workers": 1,
            "measured_s": 6.0}  # fmt: skip
    found = judge(sample_facts(**base | changes), estimate, 0.002)
    (warned,) = (one.facts for one in found.warnings if one.id == "other-slots")
    assert (warned["kind"], warned["slots"], warned["of"], warned["predicted"]) == (*facts, 8)
    (limit,) = (one for one in found.limits if one.resource is Resource.SLOTS)
    assert (limit.from_answers, limit.ceiling_rps, limit.slots) == (True, estimate.slots, estimate.slots)


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({}, "slots"),
        ({"slow_connects": 3}, "backlog"),
        ({"slow_waits": 3, "kernel": {"ListenOverflows": 3}}, "backlog"),
        ({"slow_waits": 3, "kernel": {"ListenOverflows": 1}}, "slots"),  # another program's, and rounds of a second
        ({"server_cpu_s": 7.0}, "cpu"),
        ({"client_cpu_s": 3.5}, "client"),
        ({"client_on_server_cpus": True, "server_cpu_s": 3.5}, "client"),
        ({"slots": None, "wait_s": None}, "none"),
        ({"answered": 0}, "none"),
        ({"load": LOADS["open"], "handler_s": 8.0, "mean_in_flight": 2}, "arrivals"),
        ({"load": LOADS["open"], "handler_s": 8.0, "mean_in_flight": 2, "throughput_rps": 3.5}, "none"),
        ({"load": LOADS["closed"], "handler_s": 8.0, "mean_in_flight": 2}, "arrivals"),
    ],
)
def test_what_limited_a_run(changes, first):
    assert limits_of(sample_facts(**changes), None, None, None)[0].resource.value == first


def test_the_figures_of_the_limits():
    found = {one.resource: (one.busy, one.ceiling_rps) for one in limits_of(sample_facts(), None, None, None)}
    assert found == {Resource.SLOTS: (1.0, 4.0), Resource.CPU: (0.05, 80.0), Resource.CLIENT: (0.025, 160.0)}
    assert cpu_busy(sample_facts(server_cpu_s=2.0, workers=1)) == 0.5
    assert judge(sample_facts(failed=1, errors={"reset": 1}), None, 0.002).limits == ()


@pytest.mark.parametrize(
    ("pool", "threads", "handler_s", "first"),
    [
        (0, 1, 8.0, ("slots", 0.5)),
        (0, 1, None, ("slots", 1.0)),
        (1, 1, 8.0, ("slots", 0.5)),
        (1, 4, 8.0, ("pool", 1.0)),
    ],
)
def test_slots_are_as_busy_as_the_handlers_say_or_as_the_waits_come_to(pool, threads, handler_s, first):
    launch = dataclasses.replace(LAUNCH, pool=pool, threads=threads)
    found = limits_of(sample_facts(launch=launch, handler_s=handler_s), None, None, None)[0]
    assert (found.resource.value, found.busy) == first


def test_where_nothing_was_known_the_slots_of_the_answers_are_the_limit():
    facts = sample_facts(slots_known=False, slots=None, slots_per_worker=None, prediction=Prediction())
    assert limits_of(facts, sample_estimate(4), None, None)[0].ceiling_rps == 4.0
    assert limits_of(facts, sample_estimate(4, high=None), None, None)[0].resource is Resource.NONE


# ---------------------------------------------------------------- warnings

USERS = {"load": Closed(1000, concurrency=10), "sent": 1000, "answered": 1000, "measured_s": 10.0}


@pytest.mark.parametrize(
    ("identifier", "at", "beyond"),
    [
        ("failed-requests", {}, {"failed": 1, "errors": {"reset": 1}}),
        ("client-died", {"errors": {"reset": 1}}, {"errors": {"client died": 1}}),
        ("never-left", {"due": 1000}, {"due": 1001}),
        ("backlog-overflow", {"kernel": {"ListenOverflows": 1}}, {"kernel": {"ListenOverflows": 1}, "slow_waits": 1}),
        ("backlog-overflow", {"slow_waits": 1}, {"slow_connects": 1}),
        ("client-limit", {"client_cpu_s": 8.0}, {"client_cpu_s": 8.1}),
        ("client-limit", {"client_cpu_s": 8.5, "client_spun_s": 0.6}, {"client_cpu_s": 8.5, "client_spun_s": 0.4}),
        ("client-limit", {"client_cpu_s": 0.49, "measured_s": 0.5}, {"client_cpu_s": 0.5, "measured_s": 0.51}),
        ("no-keep-alive", {"keep_alive": True, "sockets_opened": 12}, {"keep_alive": True, "sockets_opened": 13}),
        ("no-keep-alive", {"sockets_opened": 13}, {"keep_alive": True, "sockets_opened": 6, "sent": 4}),
        ("delayed-ack", {"late_bodies": 100}, {"late_bodies": 101}),
        ("little", {"mean_in_flight": 9.0}, {"mean_in_flight": 8.9}),
        ("little", {"mean_in_flight": 5.0, "sent": 100}, {"mean_in_flight": 5.0, "sent": 101}),
    ],
)
def test_a_warning_of_the_client_begins_where_it_says(identifier, at, beyond):
    warned = [{one.id for one in warnings_of_client(sample_facts(**USERS | changes))} for changes in (at, beyond)]
    assert [identifier in one for one in warned] == [False, True]


def test_a_client_with_cpus_left_can_have_more_processes():
    for processes, more in ((1, 2), (2, 0)):
        (warned,) = warnings_of_client(sample_facts(**USERS, client_cpu_s=18.0, processes=processes))
        assert warned.facts["more_processes"] == more
    assert not has_overflowed(sample_facts())


@pytest.mark.parametrize(
    ("changes", "ids"),
    [
        ({}, set()),
        ({"failed": 1, "errors": {"reset": 1}, "server_ended": True}, {"server-ended"}),
        ({"failed": 1, "errors": {"reset": 1}}, {"failed-requests"}),
        ({"log_lines": 15}, {"log-lines"}),
        ({"other_cpu_s": 1.3}, {"busy-machine"}),
        ({"other_cpu_s": -1.0}, set()),
        ({"throughput_rps": 4.2}, set()),
        ({"throughput_rps": 4.3}, {"above-ceiling"}),
    ],
)
def test_what_else_is_warned_of(changes, ids):
    assert {one.id for one in judge(sample_facts(**changes), None, 0.002).warnings} == ids


def test_the_share_of_other_programs_is_a_share():
    for other_cpu_s in (7.0, 70.0):
        (warned,) = judge(sample_facts(other_cpu_s=other_cpu_s), None, 0.002).warnings
        assert 0.8 < warned.facts["share"] <= 1


@pytest.mark.parametrize(
    ("database", "ids"),
    [
        (Database(10_000, 16), []),
        (Database(10_001, 16), ["rows"]),
        (Database(10_000, 17), ["statements"]),
        (Database(10_000, 17, connections=1), []),  # a connection that is still there has not reported all
        (Database(error="gone"), []),
    ],
)
def test_the_database_is_counted_against_the_requests(database, ids):
    assert [one.id for one in warnings_of_database(sample_facts(database=database))] == ids
    assert not list(warnings_of_database(sample_facts(database=dataclasses.replace(database, rows=1), failed=1)))
