"""Pictures of one run of bench.py --json: the waterfall of a burst; of any other load the latency of every request.

Drawn from the run's record alone. Measured are dots; under them stands what was
predicted, request by request, where the record has it.
"""

from __future__ import annotations

import heapq
import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import load
import serve
import slots
from explain import Run
from slots import plural
from suites import BLUE, ORANGE, PALE, RED, Figure, label_log

Point = tuple[float, float]  # when a request was sent (was due, in an open loop), how long it took; seconds
DRAWN_ONE_BY_ONE = 2000  # more dots than that are drawn as pixels, or the file would have megabytes


# ---------------------------------------------------------------- the waterfall of a burst


def waterfall(run: Run, figure: Figure) -> None:
    """One row a worker, one bar a request: waiting for a slot pale, in its handler solid."""
    panel, columns = figure.subplots(), run["exchanges"]
    by_worker: dict[str, list[tuple[float, float, float]]] = {}
    for worker, sent_s, started_s, answered_s in zip(
        columns["worker"], columns["started_s"], columns["handler_started_s"], columns["answered_s"], strict=True
    ):
        if worker is not None and sent_s is not None and started_s is not None and answered_s is not None:
            by_worker.setdefault(worker, []).append((started_s, sent_s, answered_s))
    y, ticks = 0.0, []
    gap = max(1.5, 0.02 * len(columns["worker"]))  # no lane is lower than its label
    for worker, bars in sorted(by_worker.items(), key=lambda item: (len(item[0]), item[0])):
        ticks.append((y + (len(bars) - 1) / 2, f"{worker}: {len(bars)}"))
        for started_s, sent_s, answered_s in sorted(bars):
            panel.barh(y, started_s - sent_s, left=sent_s, color=PALE, height=0.8, linewidth=0)
            panel.barh(y, answered_s - started_s, left=started_s, color=BLUE, height=0.8, linewidth=0)
            y += 1
        y += gap
    panel.set_ylim(y - gap, -1)
    panel.set_xlim(0, run["measured_s"] * 1.02)
    panel.set_yticks([at for at, _ in ticks], [label for _, label in ticks])
    panel.grid(axis="y", visible=False)
    panel.set_xlabel("time since the burst was sent, s; beside each worker: how many requests it took")
    panel.set_title(f"{run['target']} {run['path']}: {run['requests']} requests at once", fontsize=9, loc="left")
    panel.barh(0, 0, color=PALE, label="waiting for a slot")
    panel.barh(0, 0, color=BLUE, label="in its handler")
    figure.legend(loc="outside lower center", ncols=2)


# ---------------------------------------------------------------- the latency of every request


def sent_at(run: Run) -> list[float | None]:
    """When each request was sent; in an open loop when it was due, since what it waited in the client counts."""
    started_s, rate = run["exchanges"]["started_s"], run["rate_rps"]
    if not rate:
        return list(started_s)
    if run["arrivals"] == "poisson":
        limit_s = run["time_limit_s"] or math.inf
        return list(load.poisson_schedule(rate, len(started_s), limit_s, run["seed"] or 0))
    return [i / rate for i in range(len(started_s))]


def measured(run: Run) -> tuple[list[Point], list[Point]]:
    """Of every request that was answered well (2xx), and of those that failed."""
    good, failed = list[Point](), list[Point]()
    columns = run["exchanges"]
    for sent_s, ended_s, status, error in zip(
        sent_at(run), columns["answered_s"], columns["status"], columns["error"], strict=False
    ):
        if sent_s is not None and ended_s is not None:
            is_good = not error and status is not None and 200 <= status < 300
            (good if is_good else failed).append((sent_s, ended_s - sent_s))
    return good, failed


def predicted(run: Run) -> list[Point]:
    """Of every request that has a prediction, at its predicted time of sending."""
    answered_s = [at_s for at_s in run["exchanges"].get("predicted_answered_s", ()) if at_s is not None]
    if run["rate_rps"]:
        arrived_s = [at_s for at_s in sent_at(run) if at_s is not None]
    else:
        arrived_s = sent_by_users(answered_s, run)
    return [(sent_s, end_s - sent_s) for sent_s, end_s in zip(arrived_s, answered_s, strict=False)]


def sent_by_users(answered_s: Sequence[float], run: Run) -> list[float]:
    """When users send, given when they are answered: at once as they come, and each time that they have thought.

    A falling ramp sends users away as they are answered, as slots.predict_users() has it.
    """
    server = serve.SERVERS.get(run["server"] or "")
    served = server.open_connections if server and run["keep_alive"] and server.open_connections else math.inf
    users: int | slots.Stages = run["stages"] or int(min(run["concurrency"] or 1, served))
    limit_s = min(run["time_limit_s"] or math.inf, sum(stage_s for stage_s, _ in run["stages"]) or math.inf)
    again = [(at_s + run["think_s"], -1) for at_s in sorted(answered_s)]
    arrived_s, active, allowed = list[float](), 0, 0
    for now_s, level in heapq.merge(slots.changes_of_users(users), again):
        if now_s >= limit_s or len(arrived_s) == len(answered_s):
            break
        if level >= 0:
            allowed = level
            if active >= allowed:
                continue
            active += 1
        elif active > allowed:
            active -= 1
            continue
        arrived_s.append(now_s)
    return arrived_s


def caption(run: Run) -> str:
    """Which load it was."""
    ramp = ", ".join(f"{users} in {stage_s:g} s" for stage_s, users in run["stages"])
    arrivals = {"poisson": "Poisson"}.get(run["arrivals"] or "", run["arrivals"])
    load_of = {
        "open": f"{run['rate_rps'] or 0:g} requests/s, {arrivals} arrivals",
        "closed": f"{plural(run['concurrency'] or 0, 'user')}, closed loop",
        "ramp": f"users to {ramp}",
    }[run["mode"]]
    each, wait_s = run.get("slots"), run.get("wait_s")  # load.py knows neither
    behind = f"; {plural(each, 'slot')}" + (f" of {slots.seconds(wait_s)}" if wait_s else "") if each else ""
    return textwrap.fill(f"{run['target']} {run['path']}: {load_of}; {plural(run['sent'], 'request')}{behind}", 100)


def latencies(run: Run, figure: Figure) -> None:
    """Each request a dot, at the time at which it was sent; under them those predicted."""
    panel = figure.subplots()
    good, failed = measured(run)
    due, pixels = predicted(run), len(good) > DRAWN_ONE_BY_ONE
    of_split = due and run["workers"] > 1 and not run["shared_queue"] and run["requests_of_workers"]
    small = 2.6 if len(good) <= DRAWN_ONE_BY_ONE else 1.6
    for points, colour, size, marker, label, place in (
        (due, ORANGE, small + 2, "o", "predicted, given who took which" if of_split else "predicted", 2),
        (good, BLUE, small, "o", "measured", 3),
        (failed, RED, 5, "x", "failed", 4),
    ):
        if points:
            at_s, took_s = zip(*points, strict=True)
            panel.plot(at_s, [s * 1000 for s in took_s], linestyle="", color=colour, marker=marker, zorder=place,
                       markersize=size, markeredgewidth=int(marker == "x"), rasterized=pixels)  # fmt: skip
            panel.plot([], [], linestyle="", marker=marker, color=colour, markersize=5, label=label)
    times_s = sorted(took_s for _, took_s in good)
    if times_s and times_s[-1] > 20 * times_s[len(times_s) // 2] > 0:
        label_log(panel.yaxis)
    else:
        panel.set_ylim(bottom=0)
    panel.set_xlim(left=-0.01 * run["measured_s"])
    panel.set_ylabel("latency, ms" + (" (log scale)" if panel.get_yscale() == "log" else ""))
    panel.set_xlabel(f"time at which the request was {'due' if run['rate_rps'] else 'sent'}, s")
    panel.set_title(caption(run), fontsize=9, loc="left")
    if panel.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=3)


# ---------------------------------------------------------------- which picture, and how high


def picture_of(run: Run) -> tuple[str, float, Callable[[Run, Any], None]] | None:
    """Its name, its height in inches, and who draws it; None of a run without raw times, a burst without a log too."""
    columns = run["exchanges"]
    workers = [worker for worker in columns.get("worker", ()) if worker is not None]
    if run["mode"] != "burst":
        return ("latencies", 3.4, latencies) if columns["answered_s"] else None
    height_in = min(12.0, 1.5 + 0.09 * len(columns["answered_s"]) + 0.15 * len(set(workers)))
    return ("waterfall", height_in, waterfall) if workers else None
