"""own - somebody's own variants, out of a TOML or JSON file: `python sweep.py blog.toml`.

    title = "8 workers, 0.2 s, 200 requests"
    repeats = 5                                     # 3 if nothing is said

    [[variants]]
    name = "FastAPI"
    arguments = "--app service:app --server uvicorn --path / -n 200"    # of bench.py
    compared_with = "Flask"                                             # another one's name

Apps are looked for in the file's folder. Everything else is as with any other
suite: interleaved order, JSON first, resume, table, ratios, picture. A mistake is
named with its line. TOML needs Python 3.11, JSON does not.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

import bench
from explain import Run
from slots import Problem
from suites import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    Document,
    Figure,
    Picture,
    Suite,
    Variant,
    compare,
    figures,
    label_log,
    look_up,
    median_run,
    runs_of,
    short,
    spread,
    spread_ms,
    table,
)


class OwnVariant(TypedDict):
    name: str
    arguments: str
    compared_with: str  # "": with none


class Asked(TypedDict):
    """A variants file, checked: the document has it."""

    title: str
    repeats: int
    variants: list[OwnVariant]


# ---------------------------------------------------------------- the file, and where a mistake is


def toml_loads(text: str, name: str) -> Any:
    try:
        tomllib = importlib.import_module("tomllib")
    except ImportError:
        raise Problem(f"{name}: TOML needs Python 3.11 or newer; the same in JSON works with any") from None
    try:
        return tomllib.loads(text)
    except ValueError as error:
        where = re.search(r"\(at line (\d+), column \d+\)|\(at end of document\)", str(error))
        line = int(where[1]) if where and where[1] else len(text.splitlines())
        raise Problem(f"{name}, line {line}: {str(error).partition(' (at ')[0]}") from None


def json_loads(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise Problem(f"{name}, line {error.lineno}: {error.msg}") from None


def places_of_variants(text: str, is_toml: bool) -> list[int]:
    """Where in the text each variant begins.

    >>> places_of_variants('{"variants": [{"name": "a"}, {"name": "b"}]}', False)
    [14, 29]
    """
    if is_toml:
        return [match.start() for match in re.finditer(r"(?m)^[ \t]*\[\[[ \t]*variants[ \t]*\]\]", text)]
    begin, places = re.search(r'"variants"\s*:\s*\[\s*', text), list[int]()
    at = begin.end() if begin else len(text)
    with contextlib.suppress(ValueError):  # the end of the list
        while at < len(text):
            _, end = json.JSONDecoder().raw_decode(text, at)
            places.append(at)
            comma = re.compile(r"\s*,\s*").match(text, end)
            at = comma.end() if comma else len(text)
    return places


class Source:
    """The text of a variants file, to say where in it something is wrong."""

    def __init__(self, name: str, text: str, is_toml: bool) -> None:
        self.name, self.text, self.places = name, text, places_of_variants(text, is_toml)
        self.sign = "=" if is_toml else ":"

    def wrong(self, what: str, key: str = "", number: int | None = None) -> Problem:
        """A mistake at a key: of a variant, or of the file; without it where the variant begins."""
        bounds = [*self.places, len(self.text)]
        known = number is not None and number < len(self.places)
        begin, end = (bounds[number], bounds[number + 1]) if known and number is not None else (0, len(self.text))
        pattern = re.compile(rf"""(?m)(?:^|[\s{{,])["']?{re.escape(key)}["']?\s*{self.sign}""")
        match = pattern.search(self.text, begin, end) if key else None
        at = match.end() if match else begin
        return Problem(f"{self.name}, line {self.text.count(chr(10), 0, at) + 1}: {what}")


KEYS_OF_FILE = {"title": str, "repeats": int, "variants": list}
KEYS_OF_VARIANT = {"name": str, "arguments": str, "compared_with": str}
TYPES = {str: "text in quotes", int: "a whole number", list: "a list of variants"}
NOT_HERE = ("json", "list", "find_rate", "probe", "fail_if")  # sweep.py writes and prints


def read(path: Path) -> Asked:
    """The file's variants, or a Problem that names the line of the first mistake. Asks bench.py about each."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(f"cannot read {path}: {getattr(error, 'strerror', 'it is not text in UTF-8')}") from None
    is_toml = path.suffix == ".toml"
    data = (toml_loads if is_toml else json_loads)(text, path.name)
    source = Source(path.name, text, is_toml)
    asked = checked(data, source)
    with working_in(path.resolve().parent):
        for number, variant in enumerate(asked["variants"]):
            check_arguments(variant["arguments"], source, number)
    return asked


def check_keys(data: Any, keys: Mapping[str, type], source: Source, number: int | None = None) -> None:
    for key, value in data.items():
        if key not in keys:
            raise source.wrong(f"{key!r} is not known; there are {', '.join(keys)}", key, number)
        if type(value) is not keys[key]:
            raise source.wrong(f"{key} is not {TYPES[keys[key]]}", key, number)


def checked(data: Any, source: Source) -> Asked:
    """What can be said of the file without bench.py. Raises Problem."""
    if not isinstance(data, dict) or "runs" in data:
        is_result = "; that is the result of a run: sweep.py report" if isinstance(data, dict) else ""
        raise Problem(f"{source.name} is not a file of variants{is_result}")
    check_keys(data, KEYS_OF_FILE, source)
    if not 1 <= data.get("repeats", 3) <= 100:
        raise source.wrong("repeats is not a whole number from 1 to 100", "repeats")
    if not data.get("variants"):
        raise source.wrong("there are no variants: [[variants]] with a name and arguments", "variants")
    known = list[str]()
    for number, variant in enumerate(data["variants"]):
        if not isinstance(variant, dict):
            raise source.wrong("a variant has a name and arguments", "variants")
        check_keys(variant, KEYS_OF_VARIANT, source, number)
        for key in ("name", "arguments"):
            if not variant.get(key):
                raise source.wrong(f"a variant without {key}", "", number)
        if variant["name"] in known:
            raise source.wrong(f"there are two variants {variant['name']!r}", "name", number)
        known.append(variant["name"])
    for number, variant in enumerate(data["variants"]):
        if variant.get("compared_with", "") not in {"", *known} - {variant["name"]}:
            what = f"compared_with: no other variant is {variant['compared_with']!r}; there are {', '.join(known)}"
            raise source.wrong(what, "compared_with", number)
    variants: list[OwnVariant] = [
        {"name": found["name"], "arguments": found["arguments"], "compared_with": found.get("compared_with", "")}
        for found in data["variants"]
    ]
    return {"title": data.get("title", source.name), "repeats": data.get("repeats", 3), "variants": variants}


def check_arguments(arguments: str, source: Source, number: int) -> None:
    """What bench.py says to them: each variant is one run."""
    try:
        options = bench.parse_arguments(shlex.split(arguments))
        plans = bench.make_plans(options)
    except (*bench.PROBLEMS, ValueError) as problem:
        raise source.wrong(f"arguments: {problem}", "arguments", number) from None
    if refused := [name for name in NOT_HERE if getattr(options, name, None)]:
        what = f"arguments: --{refused[0].replace('_', '-')} does not go with a variant"
        raise source.wrong(what, "arguments", number)
    if len(plans) != 1 or not (options.target or options.app or options.url):
        what = f"arguments: that is {len(plans)} runs, not one: say one --target (or --app, --url) and one --path"
        raise source.wrong(what, "arguments", number)


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Where somebody's app is looked for."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def group_of(variants: list[OwnVariant], name: str) -> str:
    """The end of the chain of what it is compared with: those run next to each other."""
    others, seen = {variant["name"]: variant["compared_with"] for variant in variants}, {""}
    while others[name] not in seen:
        seen.add(name)
        name = others[name]
    return name


# ---------------------------------------------------------------- tables


def row(document: Document, name: str) -> list[str]:
    runs = runs_of(document, name)
    predicted_s = next((run["prediction"]["makespan_s"] for run in runs.values() if run["prediction"]), None)
    reasons = Counter(run["explained_by"] or "-" for run in runs.values())
    latencies = (list(figures(document, name, f"latency_s.{key}").values()) for key in ("median", "p99", "max"))
    return [
        name,
        "-" if predicted_s is None else f"{predicted_s:.2f} s",
        spread(list(figures(document, name, "split_prediction.makespan_s").values()), " s"),
        spread(list(figures(document, name, "measured_s").values()), " s"),
        spread(list(figures(document, name, "throughput_rps").values())),
        *map(spread_ms, latencies),
        str(sum(run["failed"] for run in runs.values())),
        ", ".join(f"{reason} {count}" if len(reasons) > 1 else reason for reason, count in reasons.most_common()),
    ]


def predicted_ratio(a: dict[int, Run], b: dict[int, Run], key: str) -> str:
    for repeat in sorted(a.keys() & b.keys()):
        expected = [look_up(cast("Mapping[str, object]", runs[repeat]), f"prediction.{key}") for runs in (a, b)]
        if expected[0] and expected[1]:
            return short(expected[0] / expected[1])
    return "-"


def ratio_rows(document: Document, variant: OwnVariant) -> list[list[str]]:
    a, b = variant["name"], variant["compared_with"]
    runs = runs_of(document, a), runs_of(document, b)
    rows = []
    for name, key, path in (("requests/s", "throughput_rps", "throughput_rps"), ("p99", "p99_s", "latency_s.p99")):
        ratio = compare(figures(document, a, path), figures(document, b, path))
        if ratio != "-":
            rows.append([f"{a} : {b}, {name}", predicted_ratio(*runs, key), ratio])
    return rows


def tables(document: Document) -> str:
    asked: Asked = document["asked"]
    header = ["variant", "predicted", "given the split", "last answer", "requests/s", "p50, ms", "p99, ms", "max, ms"]
    parts = [
        "*Predicted*: when the last answer is due, where slots and wait are known; *given the split*: the same, knowing"
        " which worker took which request. *p99*: - of fewer than 100 answers.",
        table([*header, "failed", "explained by"], [row(document, variant["name"]) for variant in asked["variants"]]),
    ]
    pairs = [variant for variant in asked["variants"] if variant["compared_with"]]
    if ratios := [line for variant in pairs for line in ratio_rows(document, variant)]:
        parts.append(table(["ratio", "predicted", "measured"], ratios))
    told = [f"- `{variant['name']}`: `bench.py {variant['arguments']}`" for variant in asked["variants"]]
    return "\n\n".join([*parts, "\n".join(told)])


# ---------------------------------------------------------------- picture

MARKS = (("o", BLUE), ("x", RED), ("s", GREEN), ("^", ORANGE), ("+", "#CC79A7"), ("D", "#56B4E9"))


def staircase(document: Document, figure: Figure) -> None:
    """Bursts: when request n was answered, predicted as a thin line. Other loads: p50, p99 and max of each variant."""
    asked: Asked = document["asked"]
    found = {variant["name"]: median_run(runs_of(document, variant["name"])) for variant in asked["variants"]}
    bursts = {name: run for name, run in found.items() if run and run["mode"] == "burst" and run.get("answered_s")}
    others = {name: run for name, run in found.items() if run and run["mode"] != "burst"}
    panels = figure.subplots(1, max(1, bool(bursts) + bool(others)), squeeze=False)[0]
    if bursts:
        draw_bursts(panels[0], bursts)
    if others:
        draw_latencies(panels[-1], others)
    figure.legend(loc="outside lower center", ncols=4)


def draw_bursts(panel: Any, bursts: dict[str, Run]) -> None:
    every = len(bursts)
    for place, (name, run) in enumerate(bursts.items()):
        marker, colour = MARKS[place % len(MARKS)]
        answered_s = run["answered_s"]
        numbers = list(range(1, len(answered_s) + 1))
        panel.plot(numbers[place::every], answered_s[place::every], linestyle="", marker=marker, markersize=4,
                   color=colour, markerfacecolor="none", label=name)  # fmt: skip
        if run["slots"] and run["wait_s"]:
            due_s = [(n // run["slots"] + 1) * run["wait_s"] for n in range(len(answered_s))]
            panel.plot(numbers, due_s, drawstyle="steps-mid", color="black", linewidth=0.8, zorder=3)
    panel.plot([], [], color="black", linewidth=0.8, label="predicted, even split")
    panel.set_ylim(bottom=0)
    panel.set_xlabel("request n of the burst, in the order of answers")
    panel.set_ylabel("response time, s")


def draw_latencies(panel: Any, runs: dict[str, Run]) -> None:
    keys = (("median", "p50", "o"), ("p99", "p99", "s"), ("max", "max", "^"))
    for at, run in enumerate(runs.values()):
        latency: Any = run["latency_s"] or {}
        for key, label, marker in keys:
            if latency.get(key):
                panel.plot(latency[key] * 1000, -at, marker=marker, color=BLUE, linestyle="", markerfacecolor="none",
                           label=label if not at else None)  # fmt: skip
    panel.set_yticks([-at for at in range(len(runs))], list(runs))
    label_log(panel.xaxis)
    panel.set_xlabel("latency, ms (log scale)")


# ---------------------------------------------------------------- the suite


def suite(asked: Asked) -> Suite:
    variants = tuple(
        Variant(
            variant["name"],
            variant["arguments"].replace("{", "{{").replace("}", "}}"),  # nothing is filled in
            group=group_of(asked["variants"], variant["name"]),
        )
        for variant in asked["variants"]
    )
    return Suite(
        title=asked["title"],
        source="",
        variants=variants,
        full={},
        quick={},
        bodies={},
        tables=tables,
        pictures=(Picture("staircase", 3.6, staircase),),
        seconds=lambda *_: 5.0,
        repeats=asked["repeats"],
    )
