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

import importlib
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine import options
from engine.plans import plans_of
from engine.words import Problem
from suites.common import (
    P99_S,
    RPS,
    TIME_S,
    Drawing,
    Json,
    Repeats,
    Suite,
    SweepDocument,
    Variant,
    legend,
    look_up,
    table,
)
from suites.io import draw_burst

KEYS = {"name", "arguments", "compared_with"}
NOT_HERE = ("json", "list", "serve", "find_rate", "probe", "fail_if", "is_paper")  # sweep.py writes and prints

# ---------------------------------------------------------------- the file


def read_variants(path: Path) -> Json:
    """The file's variants: title, repeats, variants. Moves into its folder, where its apps are, and asks bench.py about
    each. Raises Problem that names the variant."""
    try:
        tomllib: Any = importlib.import_module("tomllib")
        asked = {"title": path.name, "repeats": 3, "variants": [], **tomllib.loads(path.read_text(encoding="utf-8"))}
    except ImportError:
        raise Problem(f"{path.name}: a file of variants is TOML, which needs Python 3.11 or newer") from None
    except (OSError, ValueError) as error:
        raise Problem(f"{path.name}: {getattr(error, 'strerror', None) or error}") from None
    title, repeats, variants, *more = asked.values()
    is_right = isinstance(title, str) and repeats in range(1, 101) and isinstance(variants, list) and not more
    if not is_right or {*map(type, variants)} != {dict}:
        raise Problem(f"{path.name} has a title, repeats (1 to 100) and [[variants]], and nothing else")
    os.chdir(path.parent)
    names = [variant.get("name") for variant in variants]
    for number, variant in enumerate(variants, 1):
        try:
            check_variant(variant, names)
        except (Problem, ValueError) as problem:
            raise Problem(f"{path.name}, variant {number} ({variant.get('name')}): {problem}") from None
    return asked


def check_variant(variant: Json, names: Sequence[str]) -> None:
    """Raises Problem or ValueError."""
    if not {"name", "arguments"} <= variant.keys() <= KEYS or not all(
        isinstance(text, str) for text in variant.values()
    ):
        raise Problem(f"a variant has {', '.join(sorted(KEYS))}, each text in quotes; only the second may be missing")
    if names.count(variant["name"]) > 1:
        raise Problem("there are two of that name")
    if variant.get("compared_with", variant["name"]) not in names:
        raise Problem(f"compared_with is no other variant; there are {', '.join(names)}")
    found = options.parse(shlex.split(variant["arguments"]))
    if refused := [name for name in NOT_HERE if getattr(found, name)]:
        raise Problem(f"--{refused[0].replace('_', '-')} does not go with a variant")
    if (count := len(plans_of(found))) != 1:
        raise Problem(f"that is {count} runs, not one: say one --target (or --app, --url) and one --path")


# ---------------------------------------------------------------- tables


def row(document: SweepDocument, name: str) -> list[object]:
    reasons = Counter(look_up(run, "verdict.explained_by") or "-" for run in document.runs_of(name).values())
    paths = "prediction.makespan_s", "split_prediction.makespan_s", TIME_S, RPS
    return [
        name,
        *(document.figure(name, path) for path in paths),
        *(document.figure(name, f"measured.latency_s.{key}").in_ms() for key in ("median", "p99", "max")),
        sum(document.figure(name, "measured.failed").values()),
        ", ".join(f"{reason} {count}" for reason, count in reasons.items()),
    ]


def ratio_row(document: SweepDocument, a: str, b: str, path: str, due: str) -> list[object]:
    """Predicted and measured."""
    predicted, measured = (document.figure(a, of) / document.figure(b, of) for of in (f"prediction.{due}", path))
    return [f"{a} : {b}, {due}", Repeats(predicted), measured]


def tables(document: SweepDocument) -> str:
    variants = document.asked["variants"]
    header = ["variant", "predicted, s", "given the split", "last answer, s", "requests/s", "p50, ms", "p99, ms",
              "max, ms", "failed", "explained by"]  # fmt: skip
    pairs = [(one["name"], one["compared_with"]) for one in variants if "compared_with" in one]
    figures = ((RPS, "throughput_rps"), (P99_S, "p99_s"))
    return "\n\n".join([
        "*Predicted*: when the last answer is due, where slots and wait are known; *given the split*: the same, given"
        " which worker took which request. *p99*: - of fewer than 100 answers.",
        table(header, [row(document, one["name"]) for one in variants]),
        table(["ratio", "predicted", "measured"],
              [ratio_row(document, *pair, *figure) for pair in pairs for figure in figures]),
        "\n".join(f"- `{one['name']}`: `bench.py {one['arguments']}`" for one in variants),
    ])  # fmt: skip


# ---------------------------------------------------------------- pictures


def own_staircase(document: SweepDocument, drawing: Drawing) -> None:
    """When request n of a burst was answered, predicted as a thin line."""
    panel = drawing.subplots()
    for place, variant in enumerate(document.asked["variants"]):
        run = document.median_run(variant["name"])
        if run and "answered_s" in run:
            draw_burst(panel, run, variant["name"], place)
    panel.set(xlabel="request n of the burst, in the order of answers", ylabel="response time, s")
    legend(panel)


def suite(asked: Json) -> Suite:
    return Suite(
        title=asked["title"],
        takes="",
        source="",
        variants=tuple(Variant(one["name"], one["arguments"]) for one in asked["variants"]),
        full={},
        quick={},
        tables=tables,
        pictures=(("staircase", 3.6, own_staircase),),
        repeats=asked["repeats"],
    )
