"""Every verdict, limit and warning that a report has words for: a run of which it is true and is said, beside one of
which it is almost true and is not said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from samples import (
    LAUNCH,
    LOADS,
    sample_estimate,
    sample_facts,
    sample_prediction,
    sample_run,
    sample_statistics,
    sample_where,
)

from engine import report, report_changes, report_verdict, report_where, report_words
from engine.advice import advice_for
from engine.alone import alone_of
from engine.changes import expected_s
from engine.limit import LOOP, as_known
from engine.loads import Closed, Open
from engine.neighbours import Neighbour
from engine.places import Computing, Limit, Opening, Resource, Spot, State
from engine.run import Database, Explanation, Prediction, Run, Verdict, Victim, VictimPrediction
from engine.unseen import slower_than_alone_s
from engine.until import Drift
from engine.verdict import judge

LATE, SOON = {"measured_s": 6.0}, {"measured_s": 3.0}
USERS = {"load": Closed(1000, concurrency=10), "sent": 1000, "answered": 1000, "measured_s": 10.0, "log_lines": 1000}
SERVED = {"handler_s": 8.0, "mean_in_flight": 2}
FAILED = {"failed": 1, "errors": {"reset": 1}, "answered": 15}
SLOTS = Limit(Resource.SLOTS.value, 1.0, 4.0, 4, 1.0)
AFTER = Spot(4.0, State.ANSWERED, "app.py:3")
KEPT = {"where": sample_where(limit=SLOTS, places=(AFTER,))}
OPENING = Opening("SQLAlchemy's pool", 5, 15, 3.2, "app.py:3")
SLOW = {"load": LOADS["closed"], "latency_s": sample_statistics(mean=3.5)}
LOCK = Limit("a lock", 1.0, slots=1, line="app.py:3")
LONG = {"handler_s": 16 * 1.4, "server_cpu_s": 0.04}
SOME, MOST = ({"handlers": sample_statistics(median=times_s)} for times_s in (1.0, 1.4))
BEHIND, IDLE = ({"neighbours": (Neighbour("db", cpus, True),)} for cpus in (0.9, 0.7))
UNKNOWN = {"slots_known": False, "slots": None, "slots_per_worker": None, "prediction": Prediction()}
HELD = {"slots_held": None, "slots": 8, "slots_per_worker": 8, "server_slots": 8}
ONE = {"requests_of_workers": {"a": 16}, "slots_held": None, "slots_per_worker": 4, "server_slots": 4}


def alone(*times_s: float) -> Any:
    return alone_of("GET /", times_s)


Case = dict[str, Any]
EXPLANATIONS: dict[str, tuple[Case, Case]] = {
    "prediction": ({"measured_s": 4.2}, {"measured_s": 4.4}),
    "split": ({"split_prediction": sample_prediction(makespan_s=6.0)} | LATE,
              {"split_prediction": sample_prediction(makespan_s=8.0)} | LATE),
    "cpu": (LATE | {"server_cpu_s": 10.0}, LATE | {"server_cpu_s": 1.0}),
    "inside": (LATE | {"where": sample_where(limit=LOCK)}, LATE | {"where": sample_where(limit=SLOTS)}),
    "sooner": (SOON, {"measured_s": 3.9}),
    "other-slots": (LATE | {"slots_held": 3}, LATE | {"slots_held": None}),
    "opened-anew": (SLOW | {"where": sample_where(opening=OPENING)},
                    SLOW | {"where": sample_where(opening=replace(OPENING, requests=0.3))}),
    "restarts": (LATE | {"restarts": 1}, {"restarts": 1}),
    "connected": (LATE | BEHIND, LATE | IDLE),
    "after-answer": (LATE | KEPT, LATE | {"where": sample_where(limit=SLOTS, places=())}),
    # A handler that is longer by the CPU time of all that are at work has nothing to explain.
    "longer-handlers": (LATE | LONG, LATE | LONG | {"server_cpu_s": 0.4}),
    "different-times": (LATE | LONG | SOME, LATE | LONG | MOST),
    "busy-machine": (LATE | {"other_cpu_s": 5.0}, LATE | {"other_cpu_s": 3.0}),
    "longer-wait": (LATE | {"lone_s": 1.2}, LATE | {"lone_s": 1.11}),
    "backlog-overflow": (LATE | {"sockets_resent": 1}, LATE | {"kernel": {"ListenOverflows": 3}}),
    "delayed-ack": (LATE | {"late_bodies": 2}, LATE | {"late_bodies": 1}),
    "client-limit": ({"measured_s": 30.0, "client_cpu_s": 25.0}, {"measured_s": 30.0, "client_cpu_s": 23.0}),
    "client-stalled": (LATE | {"client_stalled_s": 1.5}, LATE | {"client_stalled_s": 0.3}),
    "late-sends": (LATE | {"lag_s": sample_statistics()}, LATE | {"lag_s": sample_statistics(max=0.009, p99=0.009)}),
    "nothing": (LATE, LATE | {"lone_s": 1.2}),
}  # fmt: skip
LIMITS: dict[str, tuple[Case, Case]] = {  # named as the first
    "slots": ({}, {"load": Open(16, rate_rps=2.0), "throughput_rps": 2.0} | SERVED),
    "pool": ({"launch": LAUNCH.__class__(**{**vars(LAUNCH), "pool": 1, "threads": 4})}, {}),
    "cpu": ({"server_cpu_s": 7.0}, {"server_cpu_s": 6.0}),
    "client": ({"client_cpu_s": 3.5}, {"client_cpu_s": 3.0}),
    "machine": ({"shared_cpus": 2, "server_cpu_s": 6.0, "client_cpu_s": 1.5},
                {"shared_cpus": 2, "server_cpu_s": 4.5, "client_cpu_s": 1.5}),
    "backlog": ({"sockets_resent": 3}, {"kernel": {"ListenOverflows": 3}}),
    "arrivals": ({"load": Open(16, rate_rps=4.0)} | SERVED, {"load": Open(16, rate_rps=5.0)} | SERVED),
    "none": ({"load": Open(16, rate_rps=5.0)} | SERVED, {"load": Open(16, rate_rps=4.0)} | SERVED),
}  # fmt: skip
WARNINGS: dict[str, tuple[Case, Case]] = {
    "failed-requests": (FAILED, {}),
    "redirects": ({"redirected": 1}, {}),
    "starved": ({"keep_alive": True, "never_answered": 13} | FAILED,
                {"keep_alive": True, "never_answered": 12} | FAILED),
    "never-left": (USERS | {"due": 1001}, USERS | {"due": 1000}),
    "backlog-overflow": ({"sockets_resent": 1}, {"kernel": {"ListenOverflows": 3}}),
    "client-limit": (USERS | {"client_cpu_s": 8.1}, USERS | {"client_cpu_s": 8.1, "client_spun_s": 1.0}),
    "late-sends": ({"lag_s": sample_statistics()}, {"lag_s": sample_statistics(max=0.009, p99=0.009)}),
    "no-keep-alive": ({"keep_alive": True, "load": LOADS["closed"]},
                      {"keep_alive": True, "load": LOADS["closed"], "sockets_opened": 4}),
    "delayed-ack": (USERS | {"late_bodies": 101}, USERS | {"late_bodies": 100}),
    "client-stalled": ({"client_stalled_s": 0.5}, {"client_stalled_s": 0.3}),
    "little": (USERS | {"mean_in_flight": 8.9}, USERS | {"mean_in_flight": 9.0}),
    "server-ended": (FAILED | {"server_ended": True}, FAILED),
    "log-lines": ({"log_lines": 15}, {"log_lines": 15} | FAILED),
    "uneven-split": ({"split_prediction": sample_prediction(makespan_s=6.0)} | LATE,
                     {"split_prediction": sample_prediction(makespan_s=6.0)}),
    "unexplained": (LATE, LATE | {"slots_held": 3}),
    "longer-wait": (LATE | {"lone_s": 1.2}, {"lone_s": 1.2}),
    "longer-handlers": (LATE | LONG, LONG),
    "different-times": (LATE | LONG | SOME, LATE | LONG | MOST),
    "busy-machine": ({"other_cpu_s": 1.3}, {"other_cpu_s": 1.1}),
    "drift": ({"drift": Drift(0.1, 0.3)}, {"drift": None}),
    "throttled": ({"kernel": {"throttled_us": 100_000}}, {"kernel": {"throttled_us": 70_000}}),
    "restarts": ({"restarts": 1}, {"restarts": 0}),
    "connected": (LATE | BEHIND, LATE | IDLE),
    "opened-anew": ({"where": sample_where(opening=OPENING)}, {"where": sample_where()}),
    "sooner": (SOON, {"measured_s": 3.9}),
    "cold": ({"alone": [alone(0.842, 0.054, 0.055)]}, {"alone": [alone(0.15, 0.054, 0.055)]}),
    "unlike-alone": ({"alone": [alone(0.05, 0.2, 0.05, 0.3)], "wait_is_measured": True},
                     {"alone": [alone(0.05, 0.3, 0.05, 0.052)], "wait_is_measured": True}),
    "rows": ({"database": Database(10_001, 16)}, {"database": Database(10_001, 16), "created": 1}),
    "statements": ({"database": Database(10_000, 17)}, {"database": Database(10_000, 17, connections=1)}),
    "other-slots held": (LATE | {"slots_held": 3}, LATE | {"slots_held": None}),
    "other-slots seen-more": (LATE | ONE | {"slots_seen": 5}, LATE | ONE | {"slots_seen": 4}),
    "other-slots never-more": (LATE | ONE | {"slots_seen": 3, "server_cpu_s": 0.1},
                               LATE | ONE | {"slots_seen": 3, "server_cpu_s": 3.0}),  # CPU time kept them apart
    "other-slots answers": (LATE | HELD | {"slots_seen": 3, "estimate": sample_estimate(12, each=3)},
                            LATE | HELD | {"slots_seen": 3, "estimate": sample_estimate(12, each=3, high=None)}),
    "other-slots inside": (LATE | HELD | {"slots_seen": 8, "estimate": sample_estimate(12, each=3)},
                           LATE | HELD | {"slots_seen": 3, "estimate": sample_estimate(12, each=3)}),
}  # fmt: skip


def judged(case: Case) -> Any:
    changes = dict(case)
    estimate = changes.pop("estimate", None)
    return judge(sample_facts(**changes), estimate, 0.002)


def is_said(kind: str, name: str, case: Case) -> bool:
    found = judged(case)
    if kind == "explanation":
        return bool(found.explained_by == name)
    if kind == "limit":
        return bool(found.limits[0].resource == name)
    return name in {f"{one.id} {one.facts.get('kind', '')}".strip() for one in found.warnings}


TABLES = {"explanation": EXPLANATIONS, "limit": LIMITS, "warning": WARNINGS}


@pytest.mark.parametrize("kind, name", [(kind, name) for kind, table in TABLES.items() for name in table])
def test_it_is_said_where_it_is_true_and_not_where_it_is_almost_true(kind, name):
    true, almost = TABLES[kind][name]
    assert (is_said(kind, name, true), is_said(kind, name, almost)) == (True, False)


def test_every_sentence_has_its_two_runs():
    assert {*EXPLANATIONS} == {one.value for one in Explanation} == {*report_words.EXPLANATIONS}
    assert {*LIMITS} == {one.value for one in Resource} == {*report_words.RESOURCES}
    assert {*WARNINGS} == {*report_words.WARNINGS}


# ---------------------------------------------------------------- what was seen, and what is advised


def seen_run(limit: Limit | None = None, first: Limit | None = None, **changes: Any) -> Run:
    """A run whose requests were seen to wait for something; first: what limits instead of it."""
    limits = tuple(filter(None, (first, limit)))
    verdict = Verdict(Explanation.INSIDE, limits, None, None, ())
    return sample_run(verdict=verdict, where=sample_where(limit=limit, **changes.pop("seen", {})), **changes)


def victim_of(median_s: float) -> Victim:
    latency_s, due = sample_statistics(median=median_s), VictimPrediction(0.5, (0.5,), True)
    return Victim("/health", 16, 0, latency_s, 0.002, due)


def at_line(line: int, requests: float) -> Spot:
    return Spot(requests, State.WORKING, f"app.py:{line}")


POOL = Limit("SQLAlchemy's pool", 1.0, 15.0, 15, 1.0, line="app.py:3")
IN_POOL = Spot(20.0, State.WAITING, "app.py:3", resource="SQLAlchemy's pool", size=15)
SLOTS_OF_4 = Limit(Resource.SLOTS, 1.0, slots=4)
IN_SEMAPHORE = Spot(20.0, State.WAITING, "app.py:3", resource="a semaphore (asyncio.Semaphore)", size=3, held_to=5)
AT_WORK = Spot(15.0, State.WORKING, "app.py:4", cpu_s=0.3)
CPU_FULL = Limit(Resource.CPU, 1.0, 40.0, held_s=0.025, cpus=1)
TWO_LOCKS = (IN_POOL, Spot(2.0, State.WAITING, "app.py:9", resource="a lock (b)"), AT_WORK)
LOCK = Limit("a lock (b)", 1.0, slots=1, line="app.py:3", waiting=9.0, held_s=0.1)
GIVEN_UP = replace(POOL, resource="a semaphore (b)", setting="with a time limit", slots=None, is_sized=False)
NOTHING, ALL_CPUS = Limit(Resource.NONE, 0.0), Limit(Resource.MACHINE, 1.0, cpus=2)


def failed_text(run: Run) -> str:
    return report_verdict.warnings(replace(run, verdict=judge(run, None, 0.0)))


def kept_longer(**changes: Any) -> Run:
    """Of four slots, that requests keep three times as long as by themselves."""
    return seen_run(SLOTS_OF_4, **{"slots": 4, "handler_s": 16 * 3.0, "seen": {"places": (AT_WORK,)}} | changes)


SEEN: dict[str, tuple[Callable[[Run], Any], Run, Run]] = {  # is it said?, a run of which it is true, and almost
    "slower than by itself": (slower_than_alone_s, seen_run(replace(POOL, held_s=1.6), seen={"places": ()}),
                              seen_run(replace(POOL, held_s=1.4), seen={"places": ()})),
    "slower, but not in fewer parts at a time": (slower_than_alone_s,
        seen_run(replace(POOL, held_s=1.6), seen={"places": ()}),
        seen_run(replace(POOL, held_s=1.6, parts=2.0), seen={"places": ()})),
    "what all slots wait for is not known": (lambda run: "Not known" in report_where.limit(run, run.inside.where),
                                             kept_longer(),
                                             kept_longer(handler_s=16 * 1.1)),
    "what all slots wait for is seen": (lambda run: "Not known" not in report_where.limit(run, run.inside.where),
                                        kept_longer(seen={"places": (IN_POOL, AT_WORK)}),
                                        kept_longer(seen={"places": (replace(IN_POOL, requests=1.0), AT_WORK)})),
    "that some take longer by themselves is possible": (
        lambda run: "Whether the slow" in " ".join(report_where.limit(run, run.inside.where).split()),
        kept_longer(handlers=sample_statistics(median=1.0)),
        kept_longer(handlers=sample_statistics(median=3.0))),
    "what is no limit stands besides": (lambda run: report_where.limit(run, run.inside.where).startswith("besides"),
                                        seen_run(POOL, CPU_FULL, seen={"places": ()}),
                                        seen_run(POOL, seen={"places": ()})),
    "more have a semaphore than it was made for": (lambda run: as_known(run.inside.where.places, 2)[0].made_size,
                                                   seen_run(seen={"places": (IN_SEMAPHORE, at_line(5, 5.0))}),
                                                   seen_run(seen={"places": (IN_SEMAPHORE, at_line(6, 5.0))})),
    "a lock may be had for no time": (lambda run: "One at a time has it" in report_where.seen_in_short(run),
                                      seen_run(replace(LOCK, held_s=None)), seen_run(LOCK)),
    "a lock is passed at once": (lambda run: "pass it at once" in report_where.seen_limit_text(run.verdict.limits[0]),
                                 seen_run(replace(LOCK, slots=None)), seen_run(LOCK)),
    "the rest may be lost": (lambda run: "If the rest is lost" in report_where.holding_text(run.verdict.limits[0]),
                             seen_run(replace(POOL, size=20.0)), seen_run(POOL)),
    "some do not wait for as long": (lambda run: "no longer than" in " ".join(report_where.limit(
                                         run, run.inside.where).split()),
                                     seen_run(GIVEN_UP), seen_run(replace(GIVEN_UP, slots=15))),
    "some do not wait for as long, in short": (lambda run: "no longer than" in report_where.seen_in_short(run),
                                               seen_run(GIVEN_UP), seen_run(replace(GIVEN_UP, slots=15))),
    "a probe has no number": (lambda run: report.probed_slots(run) is None,
                              seen_run(replace(LOCK, held_s=None)), seen_run(LOCK)),
    "requests wait, so that something was full": (
        lambda run: "Not known" in report_verdict.bottleneck(run),
        seen_run(first=NOTHING, seen={"places": (Spot(1.0, State.QUEUED), AT_WORK)}),
        seen_run(first=NOTHING, seen={"places": (Spot(1.0, State.WAITING, resource=LOOP), AT_WORK)})),
    "all CPUs were used": (lambda run: "other programs used" in " ".join(report_verdict.bottleneck(run).split()),
                           seen_run(first=NOTHING, server_cpu_s=4.4, other_cpu_s=3.0),
                           seen_run(first=NOTHING, server_cpu_s=4.4, other_cpu_s=2.0)),
    "what comes next to all CPUs": (lambda run: "next known" in report_verdict.next_limit(run),
                                    seen_run(CPU_FULL, SLOTS_OF_4), seen_run(CPU_FULL, ALL_CPUS)),
    "some were given up": (lambda run: "given up" in report_where.where(run),
                           seen_run(failed=1, seen={"places": (AT_WORK,), "requests": 14.0}),
                           seen_run(failed=1, seen={"places": (AT_WORK,)})),
    "only those that have ended are in the log": (lambda run: "that have ended" in report.counts(run),
                                                  seen_run(log_lines=15), seen_run(log_lines=16)),
    "a time-out in a standstill": (lambda run: "standstill" in failed_text(run),
                                   seen_run(failed=1, errors={"timed out": 1}, seen={"circle": ("a", "b")}),
                                   seen_run(failed=1, errors={"timed out": 1})),
    "what the next limit would give": (lambda run: report_where.more(run, run.verdict.limits[0]),
                                       seen_run(replace(POOL, slots=4, next_slots=8)),
                                       seen_run(replace(POOL, slots=4, next_slots=8), load=LOADS["closed"])),
    "the next limit is not known": (lambda run: report_where.others_wait(run.inside.where, POOL),
                                    seen_run(POOL, seen={"places": TWO_LOCKS}),
                                    seen_run(POOL, seen={"places": (IN_POOL, AT_WORK)})),
    "how long it is held": (lambda run: report_where.holding_text(run.verdict.limits[0]),
                            seen_run(POOL), seen_run(replace(POOL, held_s=None, ceiling_rps=None))),
    "which lines compute": (lambda run: report_where.computing(run, run.inside.where),
                            seen_run(POOL, CPU_FULL, seen={"computing": Computing(9, 0.4, (AT_WORK,))}),
                            seen_run(POOL, CPU_FULL, seen={"computing": Computing(4, 0.4, (AT_WORK,))})),
    "most lines that compute are not known": (lambda run: "not known" in report_where.computing(run, run.inside.where),
                            seen_run(POOL, CPU_FULL, seen={"computing": Computing(9, 0.7, (AT_WORK,))}),
                            seen_run(POOL, CPU_FULL, seen={"computing": Computing(9, 0.5, (AT_WORK,))})),
    "the server would take more": (lambda run: report_where.ALL_ARE_WORKED_ON in report_where.table_now(
                                       run.inside.where, True),
                                   seen_run(seen={"places": (AT_WORK,)}),
                                   seen_run(seen={"places": (AT_WORK, Spot(1.0, State.QUEUED))})),
    "a victim is not as predicted": (lambda run: "NOT" in report_changes.victim_text(run),
                                     replace(seen_run(), victim=victim_of(0.65)),
                                     replace(seen_run(), victim=victim_of(0.6))),
    "more victims were under way": (lambda run: "at least" in " ".join(report_changes.victim_text(run).split()),
                                    replace(seen_run(), victim=replace(victim_of(0.65), median_of_all_s=(0.5, None))),
                                    replace(seen_run(), victim=victim_of(0.65))),
    "a victim that is cut waited longer than predicted": (lambda run: "NOT" in report_changes.victim_text(run),
                                    replace(seen_run(), victim=replace(victim_of(0.1), median_of_all_s=(0.65, None))),
                                    replace(seen_run(), victim=replace(victim_of(0.1), median_of_all_s=(0.4, None)))),
    "one victim that is cut changes little": (lambda run: "NOT" in report_changes.victim_text(run),
                                    replace(seen_run(), victim=replace(victim_of(0.1), median_of_all_s=(0.1, 0.1))),
                                    replace(seen_run(), victim=replace(victim_of(0.1), median_of_all_s=(0.1, None)))),
    "why a victim is not": (lambda run: "not as predicted either" in report_changes.why_not(run),
                            seen_run(POOL), replace(seen_run(POOL), verdict=sample_run().verdict)),
    "a size": (lambda run: advice_for(run, (3.0, 99)).need,
               seen_run(replace(POOL, slots=2), load=Open(16, rate_rps=4.0), slots=40),
               seen_run(replace(POOL, slots=2, parts=2.0), load=Open(16, rate_rps=4.0), slots=40)),
    "what a change will give": (lambda run: expected_s(run.plan, "--threads 8", run),
                                seen_run(replace(POOL, slots=4), measured_s=5.5),  # where it explains the run itself
                                seen_run(replace(POOL, slots=4), measured_s=5.7)),
}  # fmt: skip


@pytest.mark.parametrize("name", SEEN)
def test_what_was_seen_and_what_is_advised_is_said_where_it_is_true(name):
    is_said, true, almost = SEEN[name]
    assert (bool(is_said(true)), bool(is_said(almost))) == (True, False)
