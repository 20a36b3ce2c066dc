"""One run as the tests see it: 16 requests at once on four sync workers, answered in four rounds of a second.

Every builder takes changes by the name of the field: sample_facts(measured_s=6.0, slots_held=3) changes the record
that has that field. A field of a prediction is changed by sample_facts(prediction=sample_prediction(...)).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from engine.launch import Launch
from engine.loads import Burst, Closed, Load, Open, Ramp
from engine.places import Spot, State, Where
from engine.run import (
    Band,
    Columns,
    Estimate,
    Explanation,
    Facts,
    Inside,
    Measured,
    Plan,
    Prediction,
    Run,
    Seen,
    Verdict,
)
from engine.stats import Statistics, histogram, statistics_of

BAND = Band(overhead_s=0.01, timer_s=0.002, cpu_s=0.005, cpus=2, in_turn=16, makespan_s=0.17, latency_s=0.1)
LAUNCH = Launch("flask-gunicorn", "gunicorn", "flask_sync:app", handler="def", workers=4, settings=(("workers", 4),))
LOADS: dict[str, Load] = {
    "burst": Burst(16),
    "closed": Closed(16, concurrency=4),
    "open": Open(16, rate_rps=4.0),
    "ramp": Ramp(16, stages=((1.0, 2), (2.0, 4))),
}


def sample_plan(**changes: Any) -> Plan:
    plan = Plan(
        "flask-gunicorn", LAUNCH, path="/io", load=LOADS["burst"], wait_s=1.0, workers=4, slots_per_worker=1,
        server_slots=1, slots=4, slots_known=True, shared_queue=True, cpus=2, all_cpus=2,
    )  # fmt: skip
    return dataclasses.replace(plan, **changes)


def sample_prediction(**changes: Any) -> Prediction:
    prediction = Prediction(
        throughput_rps=4.0, mean_s=2.5, median_s=2.5, makespan_s=4.0, ceiling_rps=4.0, form="ceil(16 / 4) x 1 s = 4 s"
    )  # fmt: skip
    return dataclasses.replace(prediction, **changes)


def sample_statistics(**changes: Any) -> Statistics:
    """The latencies of the 16 requests."""
    found = statistics_of([i // 4 + 1.0 for i in range(16)])
    assert found
    return dataclasses.replace(found, **changes)


def sample_measured(**changes: Any) -> Measured:
    measured = Measured(
        sent=16, answered=16, failed=0, errors={}, due=None, measured_s=4.0, window_s=4.0, finished_after_limit=0,
        throughput_rps=4.0, latency_s=sample_statistics(), at_least_s=None,
        phases_s={"connect": None, "waiting": None, "processing": None, "total": sample_statistics()}, lag_s=None,
        histogram=histogram([i // 4 + 1.0 for i in range(16)]), per_second=[], levels=[], kinds=[], mean_in_flight=10.0,
        slow_connects=0, late_bodies=0, sockets_resent=0, client_stalled_s=0.0, created=0, redirected=0, unended=0,
        never_answered=0, body_bytes=32, sockets_opened=16, client_cpu_s=0.1, last_answer_s=4.0,
        client_spun_s=0.0, kernel={}, server_cpu_s=0.4,
    )  # fmt: skip
    return dataclasses.replace(measured, **changes)


def sample_where(**changes: Any) -> Where:
    """Of 100 requests 60 wait for a thread, 25 for a connection, 15 are worked on."""
    waiting = Spot(
        25.0, State.WAITING, "app/deps.py:41", "get_db", ("sqlalchemy/pool/impl.py:3 _do_get",), None, None,
        "SQLAlchemy's pool", "pool_size 5 + max_overflow 10", 15, 15, "app/db.py:12",
    )  # fmt: skip
    places = (
        Spot(60.0, State.WAITING, handler="app/main.py:9", resource="AnyIO's threads", size=40, used=40),
        waiting,
        Spot(15.0, State.WORKING, "app/deps.py:41", "get_db", ("psycopg/connection.py:5 wait",)),
    )
    names = tuple(one.resource for one in changes.get("places", places) if one.resource)
    return dataclasses.replace(Where(9, 0.004, 100.0, places, names), **changes)


def sample_inside(**changes: Any) -> Inside:
    inside = Inside(
        "logs/run/access.log", "logs/run/server.log", False, (), log_lines=16,
        requests_of_workers={f"worker{i}": 4 for i in range(4)}, slots_seen=1, slots_held=1, handler_s=16.0,
    )  # fmt: skip
    return dataclasses.replace(inside, **changes)


def sample_facts(**changes: Any) -> Facts:
    parts: dict[str, Any] = {
        "plan": sample_plan(), "prediction": sample_prediction(), "split_prediction": None,
        "measured": sample_measured(), "inside": sample_inside(),
    }  # fmt: skip
    parts |= {name: changes.pop(name) for name in parts.keys() & changes.keys()}
    if "measured_s" in changes:
        changes.setdefault("last_answer_s", changes["measured_s"])
    for part in ("plan", "measured", "inside"):
        if (record := parts[part]) is not None:
            mine = vars(record).keys() & changes.keys()
            parts[part] = dataclasses.replace(record, **{name: changes.pop(name) for name in mine})
    assert not changes, f"no record has the fields {sorted(changes)}"
    return Facts(**parts)


def sample_columns(answered_s: list[float] | None = None, **changes: Any) -> Columns:
    """All sent at 0, answered at these times with 200."""
    ends = [i // 4 + 1.0 for i in range(16)] if answered_s is None else answered_s
    n = len(ends)
    columns = Columns([0.0] * n, [0.0] * n, ends, ends, [200] * n, [None] * n, [2] * n)
    return dataclasses.replace(columns, **changes)


def sample_estimate(slots: int | None, **changes: Any) -> Estimate:
    """A certain one, but for the changes; unknown if slots is None."""
    seen = Seen.SLOTS if slots else Seen.UNKNOWN
    return dataclasses.replace(Estimate(seen, slots, slots or 1, slots, processes=1, each=slots), **changes)


def sample_run(**changes: Any) -> Run:
    """verdict, exchanges and when are taken as they are; every other change as in sample_facts()."""
    kept = {
        "verdict": Verdict(Explanation.PREDICTION, (), None, None, ()), "exchanges": sample_columns(),
        "when": "2026-11-26 07:30:00",
    }  # fmt: skip
    kept |= {name: changes.pop(name) for name in kept.keys() & changes.keys()}
    return Run(**vars(sample_facts(**changes)), **kept)
