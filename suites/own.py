"""own - your own variants, out of a TOML file: `python sweep.py blog.toml`.

    title = "8 workers, 0.2 s, 200 requests"
    repeats = 5                                     # 3 if nothing is said

    [[variants]]
    name = "FastAPI"
    arguments = "--app service:app --server uvicorn --path / -n 200"    # of bench.py
    compared_with = "Flask"                                             # another one's name

Apps are looked for in the file's folder. Everything else is as with any other suite: interleaved order, JSON first,
resume, table, ratios, picture. Needs Python 3.11, which reads TOML.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from engine import options
from engine.plans import plans_of
from engine.words import Problem
from suites.common import (
    BLUE,
    P99_S,
    RPS,
    TIME_S,
    Document,
    Drawing,
    Json,
    Picture,
    Repeats,
    Suite,
    Variant,
    label_log,
    legend,
    look_up,
    name_rows,
    table,
)
from suites.io import draw_burst


@dataclass(frozen=True)
class OwnVariant:
    name: str
    arguments: str
    compared_with: str = ""  # with none


# ---------------------------------------------------------------- the file


def read(path: Path) -> Json:
    """The file's variants: title, repeats, variants. Raises Problem that names the variant. Asks bench.py about each."""
    try:
        tomllib: Any = importlib.import_module("tomllib")
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except ImportError:
        raise Problem(f"{path.name}: a file of variants is TOML, which needs Python 3.11 or newer") from None
    except (OSError, ValueError) as error:
        raise Problem(f"{path.name}: {getattr(error, 'strerror', '') or error}") from None
    title, repeats, rows = data.pop("title", path.name), data.pop("repeats", 3), data.pop("variants", None)
    if data or not isinstance(title, str) or type(repeats) is not int or not 1 <= repeats <= 100:
        raise Problem(f"{path.name} has a title, repeats (1 to 100) and [[variants]], and nothing else")
    if not rows or not isinstance(rows, list):
        raise Problem(f"{path.name}: there are no variants: [[variants]] with a name and arguments")
    variants = [variant_of(row, number, path.name) for number, row in enumerate(rows, 1)]
    names = [variant.name for variant in variants]
    for variant in variants:
        where = f"{path.name}, variant {variant.name!r}"
        if names.count(variant.name) > 1:
            raise Problem(f"{where}: there are two of that name")
        if variant.compared_with not in {"", *names} - {variant.name}:
            raise Problem(f"{where}: compared_with {variant.compared_with!r} is no other variant; there are {names}")
        with working_in(path.resolve().parent):
            check_arguments(variant.arguments, where)
    return {"title": title, "repeats": repeats, "variants": [asdict(variant) for variant in variants]}


def variant_of(row: Any, number: int, file: str) -> OwnVariant:
    """Raises Problem."""
    known = [one.name for one in fields(OwnVariant)]
    if not isinstance(row, dict) or not all(isinstance(row.get(key, ""), str) for key in known):
        raise Problem(f"{file}, variant {number}: {', '.join(known)} are text in quotes")
    if unknown := [key for key in row if key not in known]:
        raise Problem(f"{file}, variant {number}: {unknown[0]!r} is not known; there are {', '.join(known)}")
    if not row.get("name") or not row.get("arguments"):
        raise Problem(f"{file}, variant {number}: it needs a name and arguments")
    return OwnVariant(**row)


NOT_HERE = ("json", "list", "serve", "find_rate", "probe", "fail_if")  # sweep.py writes and prints


def check_arguments(arguments: str, where: str) -> None:
    """What bench.py says to them: each variant is one run. Raises Problem."""
    try:
        found = options.parse(shlex.split(arguments))
        plans = plans_of(found)
    except (Problem, ValueError) as problem:
        raise Problem(f"{where}: {problem}") from None
    if refused := [name for name in NOT_HERE if getattr(found, name, None)]:
        raise Problem(f"{where}: --{refused[0].replace('_', '-')} does not go with a variant")
    if len(plans) != 1 or found.is_paper:
        raise Problem(f"{where}: that is {len(plans)} runs, not one: say one --target (or --app, --url) and one --path")


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Where your app is looked for."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def group_of(variants: list[OwnVariant], name: str) -> str:
    """The end of the chain of what it is compared with: those run next to each other."""
    others, seen = {variant.name: variant.compared_with for variant in variants}, {""}
    while others[name] not in seen:
        seen.add(name)
        name = others[name]
    return name


def variants_of(asked: Json) -> list[OwnVariant]:
    return [OwnVariant(**variant) for variant in asked["variants"]]


# ---------------------------------------------------------------- tables


def row(document: Document, name: str) -> list[object]:
    runs = document.runs_of(name).values()
    reasons = Counter(look_up(run, "verdict.explained_by") or "-" for run in runs)
    return [
        name,
        *(document.figure(name, f"{path}.makespan_s") for path in ("prediction", "split_prediction")),
        *(document.figure(name, path) for path in (TIME_S, RPS)),
        *(document.figure(name, f"measured.latency_s.{key}").in_ms() for key in ("median", "p99", "max")),
        sum(document.figure(name, "measured.failed").values()),
        ", ".join(f"{reason} {count}" if len(reasons) > 1 else reason for reason, count in reasons.most_common()),
    ]


def ratio_rows(document: Document, variant: OwnVariant) -> list[list[object]]:
    a, b, rows = variant.name, variant.compared_with, list[list[object]]()
    for name, due, path in (("requests/s", "throughput_rps", RPS), ("p99", "p99_s", P99_S)):
        if measured := document.figure(a, path) / document.figure(b, path):
            predicted = document.figure(a, f"prediction.{due}") / document.figure(b, f"prediction.{due}")
            rows.append([f"{a} : {b}, {name}", Repeats(predicted), measured])
    return rows


def tables(document: Document) -> str:
    variants = variants_of(document.asked)
    header = ["variant", "predicted, s", "given the split", "last answer, s", "requests/s", "p50, ms", "p99, ms",
              "max, ms", "failed", "explained by"]  # fmt: skip
    parts = [
        "*Predicted*: when the last answer is due, where slots and wait are known; *given the split*: the same, given"
        " which worker took which request. *p99*: - of fewer than 100 answers.",
        table(header, [row(document, variant.name) for variant in variants]),
    ]
    pairs = [variant for variant in variants if variant.compared_with]
    if ratios := [line for variant in pairs for line in ratio_rows(document, variant)]:
        parts.append(table(["ratio", "predicted", "measured"], ratios))
    return "\n\n".join([*parts, "\n".join(f"- `{one.name}`: `bench.py {one.arguments}`" for one in variants)])


# ---------------------------------------------------------------- picture


def staircase(document: Document, drawing: Drawing) -> None:
    """Bursts: when request n was answered, predicted as a thin line. Other loads: p50, p99 and max of each variant."""
    runs = {variant.name: document.median_run(variant.name) for variant in variants_of(document.asked)}
    bursts = {name: run for name, run in runs.items() if run and run.get("answered_s")}
    others = {name: run for name, run in runs.items() if run and name not in bursts}
    panels = drawing.subplots(1, bool(bursts) + bool(others) or 1, squeeze=False)[0]
    for place, (name, run) in enumerate(bursts.items()):
        draw_burst(panels[0], run, name, place)
        panels[0].set(xlabel="request n of the burst, in the order of answers", ylabel="response time, s")
    if others:
        draw_latencies(panels[-1], others)
    legend(panels[0], "outside lower center", 4)


def draw_latencies(panel: Any, runs: dict[str, Json]) -> None:
    for y, run in enumerate(runs.values()):
        for key, marker in (("median", "o"), ("p99", "s"), ("max", "^")):
            if at_s := look_up(run, f"measured.latency_s.{key}"):
                panel.plot(at_s * 1000, y, marker, color=BLUE, fillstyle="none", label=key)
    name_rows(panel, list(runs))
    label_log(panel.xaxis)
    panel.set_xlabel("latency, ms (log scale): o median, square p99, triangle max")


# ---------------------------------------------------------------- the suite


def suite(asked: Json) -> Suite:
    variants = variants_of(asked)
    braces = str.maketrans({"{": "{{", "}": "}}"})  # nothing is filled in
    return Suite(
        title=asked["title"],
        source="",
        variants=tuple(
            Variant(one.name, one.arguments.translate(braces), group_of(variants, one.name)) for one in variants
        ),
        full={},
        quick={},
        bodies={},
        tables=tables,
        pictures=(Picture("staircase", 3.6, staircase),),
        seconds=lambda *_: 5.0,
        repeats=asked["repeats"],
    )
