"""What is advised for an objective, by what a run measured and where its requests were seen to wait."""

from __future__ import annotations

import pytest
from samples import sample_run, sample_statistics, sample_where

from engine.advice import Cure, advice_for
from engine.loads import Open
from engine.places import Limit, Resource
from engine.run import Verdict

LOAD = Open(1000, rate_rps=100.0)
OBJECTIVE = (0.1, 99)


def run_that(p99_s, limit=None, first=None, **changes):
    limits = tuple(filter(None, (first, limit)))
    return sample_run(
        **{"load": LOAD, "wait_s": 0.05, "slots": 4, "latency_s": sample_statistics(p99=p99_s), "server_cpu_s": 0.016}
        | changes, where=sample_where(limit=limit), verdict=Verdict(None, limits, None, None, ()),
    )  # fmt: skip


def limit_of(resource, slots, held_s):
    return Limit(resource, 1.0, slots / held_s, slots, held_s)


@pytest.mark.parametrize(
    "cure, need, run",
    [
        (Cure.SLOTS, 8, run_that(4.8)),
        (Cure.SLOTS, 8, run_that(4.8, limit_of(Resource.SLOTS.value, 4, 0.049))),
        (Cure.SLOTS, 8, run_that(4.8, limit_of("AnyIO's threads", 4, 0.049), slots=4)),
        (Cure.RESOURCE, 8, run_that(4.8, limit_of("SQLAlchemy's pool", 4, 0.049), slots=40)),
        # One at a time in each process: no thread helps.
        (Cure.PROCESSES, 38, run_that(4.8, limit_of("a lock (lock)", 1, 0.05), workers=1)),
        (
            Cure.PROCESSES,
            2,
            run_that(4.8, first=Limit(Resource.CPU, 1.0, held_s=0.012), server_cpu_s=16 * 0.012, workers=1),
        ),
        (Cure.NOTHING, None, run_that(4.8, first=Limit(Resource.CPU, 1.0, held_s=0.05), server_cpu_s=16 * 0.05)),
        (Cure.NOTHING, None, run_that(4.8, limit_of("SQLite's write lock", 1, 0.05))),
        (Cure.NOTHING, None, run_that(4.8, limit_of("AnyIO's threads", 40, 0.2), wait_s=0.2)),  # too long
        # It does not take so long by itself: what slows it was not seen.
        (Cure.UNKNOWN, None, run_that(4.8, limit_of("AnyIO's threads", 40, 0.2))),
        (Cure.UNKNOWN, None, run_that(4.8, limit_of(Resource.SLOTS.value, 4, 0.5))),
        (Cure.UNKNOWN, None, run_that(4.8, Limit("a lock (lock)", 1.0, slots=1.0))),  # held for some time
        # What was just measured not to hold is not advised.
        (Cure.UNKNOWN, None, run_that(4.8, slots=40)),
        (Cure.UNKNOWN, None, run_that(4.8, limit_of("SQLAlchemy's pool", 15, 0.01))),
        (Cure.UNKNOWN, None, run_that(4.8, wait_s=None)),
    ],
)
def test_what_has_to_grow(cure, need, run):
    found = advice_for(run, OBJECTIVE)
    assert (found.cure, found.is_kept) == (cure, False)
    assert need is None is found.need or abs(found.need - need) <= 1


def test_fewer_than_what_kept_it_are_not_advised():
    kept = run_that(0.09, limit_of("SQLAlchemy's pool", 15, 0.05), slots=40)
    assert advice_for(kept, OBJECTIVE).cure is Cure.NONE and advice_for(kept, OBJECTIVE).size is None


def test_of_what_a_request_has_several_of_no_number_is_advised():
    several = Limit("a semaphore", 1.0, 4 / 0.05, 4, 0.05, parts=4.0)
    assert advice_for(run_that(4.8, several, slots=40), OBJECTIVE).cure is Cure.UNKNOWN


def test_what_is_measured_decides_whether_it_was_kept():
    kept = [advice_for(run_that(p99_s, **more), OBJECTIVE).is_kept for p99_s, more in (
        (0.1, {}), (0.11, {}), (None, {}), (0.05, {"failed": 1}),
    )]  # fmt: skip
    assert kept == [True, False, False, False]
    few = run_that(None, latency_s=sample_statistics(p99=None, max=0.09))
    assert advice_for(few, OBJECTIVE).is_kept
