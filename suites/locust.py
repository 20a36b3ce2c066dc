"""locust - what suites/locustfile.py measured, from more than one machine, with the prediction beside it.

`python sweep.py report logs/books_stats.csv --slots 16` reads what `locust --csv logs/books` leaves: _stats.csv,
_stats_history.csv, _failures.csv, and the _run.json of suites/locustfile.py: the stages, the answers of each second,
and which worker was lost. Past one machine the idea stays the same, see more-machines.md.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from engine.access_log import AccessLog
from engine.model import Service, predict_users
from engine.stats import figures_of
from engine.words import Problem, duration, per_cent
from suites.books import ramp_rps
from suites.common import Json, short, table

# ---------------------------------------------------------------- what Locust leaves

ENDING = "_stats.csv"


class Results(NamedTuple):
    """rows: of _stats.csv, one for each kind of request. Locust keeps times from 0.1 s on with two digits: 147 ms is
    150. users: seconds since 1970, and how many there were. noted: _run.json."""

    name: str
    rows: list[Json]
    total: Json
    users: list[tuple[float, int]]
    failed: list[Json]
    noted: Json


def files_in(path: Path) -> list[Path]:
    """The _stats.csv of each run in a folder, or this one file; none if it is something else."""
    if path.is_dir():
        return sorted(path.glob(f"*{ENDING}"))
    return [path] if path.name.endswith(ENDING) else []


def read(path: Path) -> Results:
    """One run, by its _stats.csv. Raises OSError, or a Problem or an error of a file that is not of Locust."""
    stem = path.name.removesuffix(ENDING)

    def rows_of(name: str) -> list[Json]:
        with path.with_name(f"{stem}_{name}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    *rows, total = rows_of("stats")
    if total["Name"] != "Aggregated":
        raise Problem(f"{path} has no line Aggregated: was Locust killed before it wrote it?")
    noted = json.loads(path.with_name(f"{stem}_run.json").read_text())
    users = {float(line["Timestamp"]): int(line["User Count"]) for line in rows_of("stats_history")}
    return Results(stem, rows, total, sorted(users.items()), rows_of("failures"), noted)


# ---------------------------------------------------------------- measured beside predicted


def answers_between(per_second: list[tuple[int, int]], begin_s: float, end_s: float) -> float:
    """Of a second that begins before or ends after, its share.

    >>> answers_between([(7, 100), (8, 40)], 7.0, 8.5), answers_between([(7, 100)], 7.75, 8.0)
    (120.0, 25.0)
    """
    return sum(max(0.0, min(end_s, at + 1) - max(begin_s, at)) * count for at, count in per_second)


class Level(NamedTuple):
    """Answers/s of a stage, or of the whole ramp. predicted: min(users, slots) / t at each moment. given: the same, of
    the users that Locust had: it has the next ones once a second, and may lose some with a worker."""

    name: str
    predicted: float | None
    given: float | None
    measured: float


def level(result: Results, name: str, stages: list[tuple[float, int]], at_s: float, slots: float, wait_s: float) -> Level:
    """stages: (seconds, users at their end) from at_s on; slots 0: not known."""
    end_s = at_s + sum(stage_s for stage_s, _ in stages)
    measured = answers_between(result.noted["per_second"], at_s, end_s) / (end_s - at_s)
    if not slots:
        return Level(name, None, None, measured)
    had = [min(users, slots) for moment_s, users in result.users if at_s <= moment_s < end_s]
    given = sum(had) / len(had) / wait_s if had else None
    return Level(name, ramp_rps(stages, slots, wait_s), given, measured)


def levels_of(result: Results, slots: float, wait_s: float) -> list[Level]:
    """Each stage, then the whole ramp."""
    stages = [(float(stage_s), int(users)) for stage_s, users in result.noted["stages"]]
    begun_s, before, found = result.noted["begun"], 0, list[Level]()
    at_s = begun_s
    for number, (stage_s, users) in enumerate(stages, 1):
        name = f"{number}: {before} to {users} users"
        found.append(level(result, name, [(0.0, before), (stage_s, users)], at_s, slots, wait_s))
        at_s, before = at_s + stage_s, users
    return [*found, level(result, "all", stages, begun_s, slots, wait_s)]


def percentile_rows(result: Results, slots: float, wait_s: float) -> list[list[object]]:
    """p50, p95 and p99 of the whole ramp in ms: of one queue, predicted, and as Locust has them."""
    stages = [(float(stage_s), int(users)) for stage_s, users in result.noted["stages"]]
    figures = figures_of(predict_users(stages, Service((slots,)), wait_s)) if slots else {}
    rows: list[list[object]] = []
    for key, column in (("median_s", "50%"), ("p95_s", "95%"), ("p99_s", "99%")):
        due_s, text = figures.get(key), result.total[column]
        measured_ms = None if text in ("", "N/A") else float(text)
        rows.append([column, due_s and due_s * 1000, measured_ms])
    return rows


# ---------------------------------------------------------------- render


def degraded(noted: Json) -> list[str]:
    """What makes the figures less than they seem, a sentence each."""
    said = [
        f"**Degraded**: worker {worker}, one of {len(noted['workers'])}, was found lost after {at_s:g} s. Its users were"
        " gone until they were dealt out again, and what it had not reported is in no count."
        for worker, at_s in noted["workers"].items()
        if at_s is not None
    ]
    if not noted["complete"]:
        said.append("**Unfinished**: it was interrupted; requests that were under way are in no count.")
    return said


def log_line(noted: Json, log: AccessLog) -> str:
    """Locust's count beside the server's."""
    lines, shares = len(log.lines), Counter(line.pid for line in log.lines).most_common()
    more = lines - noted["requests"]
    same = "the same" if not more else f"{abs(more)} {'more' if more > 0 else 'fewer'}"
    return f"The server's access log has {lines} requests, {same}; of its processes: {' + '.join(str(n) for _, n in shares)}."


def render(result: Results, slots: int | None, wait_s: float | None, log: AccessLog | None) -> str:
    """One run, as Markdown."""
    noted = result.noted
    wait_s = wait_s or noted["wait_s"]
    known, t = (slots or 0) if wait_s else 0, wait_s or math.nan
    users = max(users for _, users in noted["stages"])
    parts = [f"## {result.name}, measured by Locust: workload {noted['workload']}, up to {users} users,"
             f" {len(noted['workers'])} workers", *degraded(noted)]  # fmt: skip
    failures = f"{noted['failures']} failed" + " (in Locust's percentiles, too)" * bool(noted["failures"])
    parts.append(f"{noted['requests']} requests, {failures}.")
    parts += [log_line(noted, log)] if log else []
    if known:
        parts.append(f"S / t = {slots} / {duration(t)} = {short(known / t)} requests/s at most; at each moment"
                     " min(users, S) / t. *Given the users*: those that Locust had then.")  # fmt: skip
    else:
        parts.append("Nothing is predicted: --slots says how many slots all processes have, --wait what a request waits.")
    rows = [[*one, per_cent(one.measured / one.predicted) if one.predicted else None] for one in levels_of(result, known, t)]
    parts.append(table(["stage", "predicted, requests/s", "given the users", "measured", "of predicted"], rows))
    parts.append(table(["percentile of all stages, ms", "predicted, one queue", "measured"],
                       percentile_rows(result, known, t)))  # fmt: skip
    if len(result.rows) > 1:
        columns = ("Name", "Request Count", "Failure Count", "50%", "99%")
        parts.append(table(["request", "count", "failed", "p50, ms", "p99, ms"],
                           [[f"{row['Type']} {row['Name']}", *(row[key] for key in columns[1:])] for row in result.rows]))  # fmt: skip
    parts += [f"Failed, {one['Occurrences']} times: {one['Method']} {one['Name']}: {one['Error']}" for one in result.failed]
    parts.append("Locust keeps times from 0.1 s on with two digits (147 ms is 150), none raw. One queue is the best"
                 " case: of several processes the one with more of the kept connections answers each of them"
                 " later.")  # fmt: skip
    return "\n\n".join(parts)
