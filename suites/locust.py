"""locust - what apps/locustfile.py measured, from more than one machine, with the prediction beside it.

`python sweep.py report logs/books_stats.csv --slots 16` reads what `locust --csv
logs/books` leaves: _stats.csv, _stats_history.csv, _failures.csv, and the
_run.json of apps/locustfile.py: the stages, the answers of each second, and
which worker was lost. Without that file (any other locustfile) less can be said.

Past one machine the idea stays the same. m machines of p processes with S_p slots
each have m p S_p slots: throughput is at most m p S_p / t, and c users wait
c t / (m p S_p), whoever deals the requests out (Little's law does not ask). What
the balancer decides is the slowest 1 %, since who queues at one process stays
there while others idle: balanced() simulates it.
"""

from __future__ import annotations

import csv
import heapq
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict, cast

import serve
import slots
from slots import Problem, plural
from suites import short, table
from suites.books import ramp_rps

# ---------------------------------------------------------------- past one machine


BALANCERS = ("in turn", "random", "least connections")


def balanced(
    arrivals_s: Sequence[float], machines: int, processes: int, slots_each: int, wait_s: float | Callable[[int], float],
    balancer: str, within: str = "random", seed: int = 1,
) -> list[int]:  # fmt: skip
    """Which process takes each request: process_of for slots.predict(), the processes of a machine side by side.

    balancer chooses the machine, within the process there (random: as the kernel wakes whoever is first); each is one
    of BALANCERS. Least connections: the fewest requests under way, in turn among equals, as HAProxy's leastconn.

    >>> balanced([0.0] * 4, 2, 1, 1, 1.0, "in turn"), balanced([0.0, 0.5, 1.2], 2, 1, 1, 1.0, "least connections")
    ([0, 1, 0, 1], [0, 1, 0])
    """
    dice = random.Random(seed)
    free_s = [[-math.inf] * slots_each for _ in range(machines * processes)]  # a heap each: when its slots are free
    ends_s: list[list[float]] = [[] for _ in free_s]  # a heap each: the answers of what is under way
    turns, chosen_of = Counter[int](), list[int]()

    def choose(how: str, groups: Sequence[Sequence[int]], name: int) -> int:
        turns[name] += 1
        first = (turns[name] - 1) % len(groups)
        if how == "random":
            return dice.randrange(len(groups))
        if how == "in turn":
            return first
        order = [(first + i) % len(groups) for i in range(len(groups))]
        return min(order, key=lambda place: sum(len(ends_s[process]) for process in groups[place]))

    of_machine = [range(k * processes, (k + 1) * processes) for k in range(machines)]
    for number, now_s in enumerate(arrivals_s):
        for ends in ends_s:
            while ends and ends[0] <= now_s:
                heapq.heappop(ends)
        machine = choose(balancer, of_machine, -1)
        process = of_machine[machine][choose(within, [[one] for one in of_machine[machine]], machine)]
        end_s = max(now_s, free_s[process][0]) + (wait_s(number) if callable(wait_s) else wait_s)
        heapq.heapreplace(free_s[process], end_s)
        heapq.heappush(ends_s[process], end_s)
        chosen_of.append(process)
    return chosen_of


# ---------------------------------------------------------------- what Locust leaves


class Row(NamedTuple):
    """A line of _stats.csv. Locust keeps times from 0.1 s on with two digits: 147 ms is 150."""

    name: str
    requests: int
    failures: int
    rps: float  # from the first request to the last answer
    p50_s: float
    p95_s: float
    p99_s: float
    max_s: float


class Failure(NamedTuple):
    name: str
    error: str
    times: int


class Noted(TypedDict):
    """_run.json, as apps/locustfile.py writes it."""

    workload: str
    wait_s: float | None
    stages: list[tuple[float, int]]
    begun: float  # seconds since 1970
    complete: bool  # the stages ran to their end, and the last answers were waited for
    workers: dict[str, float | None]  # when each was found lost, in seconds since the begin; null: it was not
    requests: int
    failures: int
    per_second: list[tuple[int, int]]  # second since 1970, good answers in it


class Results(NamedTuple):
    name: str
    kinds: list[Row]
    total: Row
    users: list[tuple[float, int]]  # seconds since 1970, and how many there were
    failed: list[Failure]
    noted: Noted | None


ENDING = "_stats.csv"


def files_in(path: Path) -> list[Path]:
    """The _stats.csv of each run in a folder, or this one file; none if it is something else."""
    if path.is_dir():
        return sorted(path.glob(f"*{ENDING}"))
    return [path] if path.name.endswith(ENDING) else []


def rows_of(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if rows and not rows[0].keys() >= set(needed):
        raise Problem(f"{path} is not of `locust --csv`: it has no column {sorted(set(needed) - rows[0].keys())[0]!r}")
    return rows


def milliseconds(text: str) -> float:
    """In seconds; nan of what Locust writes where there was no request."""
    return math.nan if text in ("", "N/A") else float(text) / 1000


def row_of(line: Mapping[str, str]) -> Row:
    p50_s, p95_s, p99_s, max_s = (milliseconds(line[per_cent]) for per_cent in ("50%", "95%", "99%", "100%"))
    return Row(f"{line['Type']} {line['Name']}".strip(), int(line["Request Count"]), int(line["Failure Count"]),
               float(line["Requests/s"]), p50_s, p95_s, p99_s, max_s)  # fmt: skip


def read(path: Path) -> Results:
    """One run, by its _stats.csv. Raises Problem."""
    stem = path.name.removesuffix(ENDING)
    beside = {name: path.with_name(f"{stem}_{name}") for name in ("stats_history.csv", "failures.csv", "run.json")}
    try:
        rows = [row_of(line) for line in rows_of(path, ("Type", "Name", "Request Count", "Requests/s", "50%", "99%"))]
        history = rows_of(beside["stats_history.csv"], ("Timestamp", "User Count"))
        failures = rows_of(beside["failures.csv"], ("Method", "Name", "Error", "Occurrences"))
        noted = json.loads(beside["run.json"].read_text()) if beside["run.json"].exists() else None
        if noted is not None and not noted.keys() >= Noted.__required_keys__:
            raise Problem(f"{beside['run.json']} is not of this apps/locustfile.py")
        users = sorted({float(line["Timestamp"]): int(line["User Count"]) for line in history}.items())
        failed = [Failure(f"{line['Method']} {line['Name']}".strip(), line["Error"], int(line["Occurrences"]))
                  for line in failures]  # fmt: skip
    except OSError as error:
        raise Problem(f"cannot read {error.filename}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Problem(f"{path} and what is beside it are not of `locust --csv`: {error}") from None
    if not rows or rows[-1].name != "Aggregated":
        raise Problem(f"{path} has no line Aggregated: was Locust killed before it wrote it?")
    return Results(stem, rows[:-1], rows[-1], users, failed, cast("Noted | None", noted))


# ---------------------------------------------------------------- measured beside predicted


def answers_between(per_second: Sequence[tuple[int, int]], begin_s: float, end_s: float) -> float:
    """Of a second that begins before or ends after, its share.

    >>> answers_between([(7, 100), (8, 40)], 7.0, 8.5), answers_between([(7, 100)], 7.75, 8.0)
    (120.0, 25.0)
    """
    shares = ((max(0.0, min(end_s, at + 1) - max(begin_s, at)), count) for at, count in per_second)
    return sum(share * count for share, count in shares)


class Level(NamedTuple):
    """A stage, or the whole ramp."""

    name: str
    predicted_rps: float | None  # None: the slots are not known
    given_rps: float | None  # of the users that Locust had
    measured_rps: float


def users_between(users: Sequence[tuple[float, int]], begin_s: float, end_s: float) -> list[int]:
    return [count for at_s, count in users if begin_s <= at_s < end_s]


def levels_of(result: Results, slots_in_all: int | None, wait_s: float | None) -> list[Level]:
    """Answers/s of each stage and of the whole ramp: predicted as min(users, slots) / t at each moment, and measured.

    Locust has the next users once a second and may lose some with a worker: "given" counts those that it had.
    """
    noted = result.noted
    if not noted:
        return []
    begin_s, before, found = noted["begun"], 0, list[Level]()
    bounds = [(begin_s, begin_s + sum(stage_s for stage_s, _ in noted["stages"]), "all", noted["stages"])]
    at_s = begin_s
    for number, (stage_s, target) in enumerate(noted["stages"], 1):
        stages: list[tuple[float, int]] = [(0.0, before), (stage_s, target)]
        bounds.append((at_s, at_s + stage_s, f"{number}: {before} to {target} users", stages))
        at_s, before = at_s + stage_s, target
    for since_s, until_s, name, stages in [*bounds[1:], bounds[0]]:
        measured_rps = answers_between(noted["per_second"], since_s, until_s) / (until_s - since_s)
        predicted_rps = given_rps = None
        if slots_in_all and wait_s:
            predicted_rps = ramp_rps(stages, slots_in_all, wait_s)
            had = users_between(result.users, since_s, until_s)
            given_rps = sum(min(count, slots_in_all) for count in had) / len(had) / wait_s if had else None
        found.append(Level(name, predicted_rps, given_rps, measured_rps))
    return found


def degraded(result: Results) -> list[str]:
    """What makes the figures less than they seem, a sentence each."""
    said = list[str]()
    noted = result.noted
    if not noted:
        return ["No _run.json of apps/locustfile.py: whether a worker was lost, nobody knows."]
    lost = sorted((at_s, worker) for worker, at_s in noted["workers"].items() if at_s is not None)
    for at_s, worker in lost:
        said.append(
            f"**Degraded**: worker {worker}, one of {len(noted['workers'])}, was found lost after {at_s:g} s: its users"
            " were gone until they were dealt out again, and what it had not reported (3 s, and 4 s until it was"
            " missed) is in no count."
        )
    if not noted["complete"]:
        said.append("**Unfinished**: it was interrupted; requests that were under way are in no count.")
    return said


def log_line(result: Results, log: serve.AccessLog) -> str:
    """Locust's count beside the server's."""
    lines, counted = len(log.lines), result.noted["requests"] if result.noted else result.total.requests
    pids = Counter(line.pid for line in log.lines)
    same = "the same" if lines == counted else f"{abs(lines - counted)} {'more' if lines > counted else 'fewer'}"
    shares = " + ".join(str(count) for _, count in pids.most_common())
    return f"The server's access log has {plural(lines, 'request')}, {same}; of its processes: {shares or 'none'}."


def percentiles_row(result: Results, slots_in_all: int | None, wait_s: float | None) -> list[list[str]]:
    """p50, p95, p99 of the whole ramp in ms: of one queue, simulated, and as Locust has them."""
    figures: slots.Expected | None = None
    if result.noted and slots_in_all and wait_s:
        stages = [(float(stage_s), int(users)) for stage_s, users in result.noted["stages"]]
        figures = slots.expected(slots.predict_users(stages, slots.Service((slots_in_all,)), wait_s))
    due_s = (figures["median_s"], figures["p95_s"], figures["p99_s"]) if figures else (None, None, None)
    measured_s = (result.total.p50_s, result.total.p95_s, result.total.p99_s)
    return [
        [name, "-" if due is None else digits(due * 1000), digits(at_s * 1000), per_cent_of(due, at_s)]
        for name, due, at_s in zip(("p50, ms", "p95, ms", "p99, ms"), due_s, measured_s, strict=True)
    ]


def digits(value: float) -> str:
    """Three significant digits of a rate or of milliseconds.

    >>> digits(99.99999), digits(3.14159)
    ('100', '3.10')
    """
    return short(round(value, 1))


def per_cent_of(predicted: float | None, measured: float) -> str:
    return f"{measured / predicted:.0%}" if predicted else "-"


def render(result: Results, slots_in_all: int | None, wait_s: float | None, log: serve.AccessLog | None) -> str:
    """One run, as Markdown."""
    noted, total = result.noted, result.total
    wait_s = wait_s or (noted["wait_s"] if noted else None)
    parts = [f"## {result.name}, measured by Locust"]
    if noted:
        most = max(users for _, users in noted["stages"])
        last_s = sum(stage_s for stage_s, _ in noted["stages"])
        parts[0] += f": workload {noted['workload']}, up to {most} users in {last_s:g} s"
        parts[0] += f", {plural(len(noted['workers']), 'worker')}" if noted["workers"] else ""
    parts += degraded(result)
    requests, failures = (noted["requests"], noted["failures"]) if noted else (total.requests, total.failures)
    of_them = " (in Locust's percentiles, too)" if failures else ""
    counts = f"{plural(requests, 'request')}, {failures} failed{of_them}"
    parts.append(f"{counts}; {digits(total.rps)}/s from the first to the last answer, as Locust counts.")
    if log:
        parts.append(log_line(result, log))
    if slots_in_all and wait_s:
        at_most = (
            f"S / t = {slots_in_all} / {slots.seconds(wait_s)} = {digits(slots_in_all / wait_s)} requests/s at most"
        )
        parts.append(f"{at_most}; at each moment min(users, S) / t. *Given the users*: those that Locust had then.")
    else:
        parts.append(
            "Nothing is predicted: --slots says how many slots all processes have, --wait what a request waits."
        )
    if levels := levels_of(result, slots_in_all, wait_s):
        known = [
            ["-" if rps is None else digits(rps) for rps in (level.predicted_rps, level.given_rps)] for level in levels
        ]
        rows = [[level.name, *cells, digits(level.measured_rps), per_cent_of(level.predicted_rps, level.measured_rps)]
                for level, cells in zip(levels, known, strict=True)]  # fmt: skip
        parts.append(table(["stage", "predicted, requests/s", "given the users", "measured", "of predicted"], rows))
    parts.append(table(["all stages", "predicted, one queue", "measured", "of predicted"],
                       percentiles_row(result, slots_in_all, wait_s)))  # fmt: skip
    if len(result.kinds) > 1:
        rows = [[row.name, str(row.requests), f"{row.requests / (total.requests or 1):.1%}", str(row.failures),
                 digits(row.p50_s * 1000), digits(row.p99_s * 1000)] for row in result.kinds]  # fmt: skip
        parts.append(table(["request", "count", "share", "failed", "p50, ms", "p99, ms"], rows))
    parts += [f"Failed, {failure.times} times: {failure.name}: {failure.error}" for failure in result.failed]
    parts.append(
        "Locust keeps times from 0.1 s on with two digits (147 ms is 150), none raw. One queue is the best case:"
        " of several processes that which holds more of the kept connections answers each of them later."
    )
    return "\n\n".join(parts)
