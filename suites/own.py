"""own - your own variants, out of a TOML file: `python sweep.py blog.toml`.

    title = "8 workers, 0.2 s, 200 requests"
    repeats = 5                                     # 3 if nothing is said

    [[variants]]
    name = "FastAPI"
    arguments = "--app service:app --server uvicorn --path / -n 200"    # of bench.py
    compared_with = "Flask"                                             # another one's name

Apps are looked for in the file's folder. Random arrivals, and the order of a workload's kinds, are the same for all
variants of a repeat, and others in the next, so that a ratio is that of the services. Everything else is as with any
other suite: interleaved order, JSON first, resume, table, ratios, picture. Needs Python 3.11, which reads TOML, or the
package tomli.
"""

import math
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from engine import options
from engine.plans import plans_of
from engine.report_words import EXPLANATIONS
from engine.words import Problem
from engine.workload import read_toml
from suites.common import (
    LAST_ANSWER_S,
    LEGEND_ROW_IN,
    P99_S,
    RPS,
    Drawing,
    Json,
    Suite,
    SweepDocument,
    Variant,
    as_text,
    legend_columns,
    look_up,
    table,
)
from suites.io import draw_bursts

KEYS = {"name", "arguments", "compared_with"}
NOT_HERE = (  # sweep.py writes, prints and repeats; a variant is one run
    "json", "html", "trace", "list", "serve", "find_rate", "probe", "fail_if", "repeats", "try", "is_paper",
    "p50", "p95", "p99", "until", "database_url",
)  # fmt: skip

# ---------------------------------------------------------------- the file


def read_variants(path: Path) -> Json:
    """The file's variants: title, repeats, variants. Moves into its folder, where its apps are, and asks bench.py about
    each. Raises Problem that names the variant."""
    asked = {"title": path.name, "repeats": 3, "variants": [], **read_toml(path)}
    title, repeats, variants, *more = asked.values()
    is_right = (
        isinstance(title, str)
        and type(repeats) is int
        and 1 <= repeats <= 100
        and isinstance(variants, list)
        and not more
    )
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
    if not {"name", "arguments"} <= variant.keys() <= KEYS or {*map(type, variant.values())} != {str}:
        raise Problem(f"a variant has {', '.join(sorted(KEYS))}, each text in quotes; only the second may be missing")
    if names.count(variant["name"]) > 1:
        raise Problem("there are two of that name")
    if variant.get("compared_with", variant["name"]) not in names:
        raise Problem(f"compared_with is no other variant; there are {', '.join(map(str, names))}")
    found = options.parse(shlex.split(variant["arguments"]))
    if refused := [name for name in NOT_HERE if getattr(found, name)]:
        raise Problem(f"{options.flag(refused[0])} does not go with a variant")
    if not any((found.target, found.app, found.run, found.url)):
        raise Problem("which service? add --target, --app, --run or --url")
    if (count := len(plans_of(found))) != 1:
        raise Problem(f"that is {count} runs, not one: say one --target (or --app, --url) and one --path")


# ---------------------------------------------------------------- tables


def verdict_of(run: Json) -> str:
    explained = look_up(run, "verdict.explained_by")
    return EXPLANATIONS[explained].rstrip(".") if explained else "-"


def tables(document: SweepDocument) -> str:
    figure, variants = document.figure, document.asked["variants"]
    rows = []
    ratios = []
    for one in variants:
        name = one["name"]
        verdicts = Counter(verdict_of(run) for run in document.runs_of(name).values())
        rows.append(
            [
                as_text(name),
                *(figure(name, path) for path in ("prediction.makespan_s", "split_prediction.makespan_s")),
                *(figure(name, path) for path in (LAST_ANSWER_S, RPS)),
                *(document.latency_ms(name, key) for key in ("median", "p99", "max")),
                sum(figure(name, "measured.failed").values()),
                ", ".join(f"{verdict} ({count})" for verdict, count in verdicts.items()),
            ]
        )
        if other := one.get("compared_with"):
            pair = f"{as_text(name)} : {as_text(other)}"
            for path, due, what in ((RPS, "throughput_rps", "requests/s"), (P99_S, "p99_s", "p99")):
                predicted = figure(name, f"prediction.{due}") / figure(other, f"prediction.{due}")
                ratios.append([f"{pair}, {what}", predicted, document.ratio(name, other, path)])
    return "\n\n".join([
        "*Predicted*: when the last answer is due, where slots and wait are known; *given the split*: the same, given"
        " which worker took which request. *p99*: - of fewer than 100 answers.",
        table("variant | predicted, s | given the split | last answer, s | requests/s | p50, ms | p99, ms | max, ms"
              " | failed | verdict (runs)", rows),
        table("ratio | predicted | measured", ratios),
        "\n".join(f"- {as_text(one['name'])}: `bench.py {one['arguments']}`" for one in variants),
    ])  # fmt: skip


def own_staircase(document: SweepDocument, drawing: Drawing) -> None:
    draw_bursts(document, drawing, {"": {one["name"]: one["name"] for one in document.asked["variants"]}})


def suite(asked: Json) -> Suite:
    names = [one["name"] for one in asked["variants"]]
    return Suite(
        asked["title"],
        "",
        "",
        tables,
        lambda _: [],
        variants=tuple(Variant(one["name"], one["arguments"]) for one in asked["variants"]),
        full={},
        quick={},
        pictures=(("staircase", 3.2 + LEGEND_ROW_IN * math.ceil(len(names) / legend_columns(names)), own_staircase),),
        repeats=asked["repeats"],
    )
