"""locust - what suites/locustfile.py measured, from more than one machine, with the prediction beside it.

`python sweep.py report logs/books_stats.csv --slots 16` reads what `locust --csv logs/books` leaves: _stats.csv,
_failures.csv, and the _run.json of suites/locustfile.py: the stages, the answers of each second, and which worker was
lost. Past one machine the idea stays the same, see more-machines.md.
"""

import csv
import json
from pathlib import Path

from engine.model import Service, predict_users
from engine.stats import figures_of
from engine.words import Problem, duration, per_cent, plural
from suites.books import ramp_rps
from suites.common import Json, short, table

ENDING = "_stats.csv"


def files_in(path: Path) -> list[Path]:
    """The _stats.csv of each run in a folder, or this one file; none if it is something else."""
    if path.is_dir():
        return sorted(path.glob(f"*{ENDING}"))
    return [path] if path.name.endswith(ENDING) else []


def answers_between(per_second: list[tuple[int, int]], begin_s: float, end_s: float) -> float:
    """Of a second that begins before or ends after, its share.

    >>> answers_between([(7, 100), (8, 40)], 7.0, 8.5), answers_between([(7, 100)], 7.75, 8.0)
    (120.0, 25.0)
    """
    return sum(max(0.0, min(end_s, at + 1) - max(begin_s, at)) * count for at, count in per_second)


def stage_rows(noted: Json, slots: int | None, wait_s: float) -> list[list[object]]:
    """Answers/s of each stage and of the whole ramp: predicted as min(users, slots) / t at each moment, measured, and
    the one in parts of the other."""
    at_s, before, rows = noted["begun"], 0, list[list[object]]()

    def add(name: str, since_s: float, stages: list[tuple[float, int]]) -> float:
        until_s = since_s + sum(stage_s for stage_s, _ in stages)
        measured = answers_between(noted["per_second"], since_s, until_s) / (until_s - since_s)
        predicted = ramp_rps(stages, slots, wait_s) if slots else None
        rows.append([name, predicted, measured, predicted and per_cent(measured / predicted)])
        return until_s

    for number, (stage_s, users) in enumerate(noted["stages"], 1):
        at_s = add(f"{number}: {before} to {users} users", at_s, [(0.0, before), (stage_s, users)])
        before = users
    add("all", noted["begun"], noted["stages"])
    return rows


def degraded(noted: Json) -> list[str]:
    """What makes the figures less than they seem, a sentence each."""
    said = [
        f"**Degraded**: worker {worker}, one of {len(noted['workers'])}, was found lost after {at_s:g} s. Its users"
        " were gone until they were dealt out again, and what it had not reported is in no count."
        for worker, at_s in noted["workers"].items()
        if at_s is not None
    ]
    return said + ["**Unfinished**: requests that were under way are in no count."] * (not noted["complete"])


def locust_report(path: Path, slots: int | None, wait_s: float | None) -> str:
    """One run, by its _stats.csv, as Markdown. Raises Problem, OSError, or what a file of another kind makes."""
    name = path.name.removesuffix(ENDING)
    stats, failures = (
        list(csv.DictReader(path.with_name(f"{name}_{of}.csv").read_text().splitlines()))
        for of in ("stats", "failures")
    )
    noted = json.loads(path.with_name(f"{name}_run.json").read_text())
    if not stats or stats[-1]["Name"] != "Aggregated":
        raise Problem(f"{path} has no line Aggregated: was Locust killed before it wrote it?")
    t = wait_s or noted["wait_s"]
    known = slots if t else None
    workload = f"workload {noted['workload']}, {plural(len(noted['workers']), 'worker')}"
    percentiles = f"measured p50 {stats[-1]['50%']} ms, p99 {stats[-1]['99%']} ms"
    allowed = "Nothing is predicted: --slots says how many slots all processes have, --wait what a request waits."
    if known:
        due = figures_of(predict_users(noted["stages"], Service((known,)), t))
        percentiles += f"; predicted for one queue p50 {duration(due['median_s'])}, p99 {duration(due['p99_s'])}"
        most = short(known / t)
        allowed = f"S / t = {known} / {duration(t)} = {most} requests/s at most; at each moment min(users, S) / t."
    return "\n\n".join(
        [
            f"## {name}, measured by Locust: {workload}",
            *degraded(noted),
            f"{noted['requests']} requests, {noted['failures']} failed. Locust counts failures in its percentiles, and"
            " keeps times from 0.1 s on with two digits (147 ms is 150), none raw.",
            allowed,
            table("stage | predicted, requests/s | measured | of predicted", stage_rows(noted, known, t)),
            f"All stages: {percentiles}.",
            *(f"Failed, {one['Occurrences']} times: {one['Method']} {one['Name']}: {one['Error']}" for one in failures),
        ]
    )
