"""The README shows what there is: its code blocks are files, its findings are headlines of committed JSON."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import ROOT

import sweep
from engine.options import parse
from engine.plans import plans_of
from engine.targets import TARGETS

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_two_reports_are_those_of_runs_in_the_example_folder():
    kept = [path.read_text().strip() for path in (ROOT / "logs/example").glob("*/report.txt")]
    shown = [text.partition("probe\n")[2] if text.startswith("$") else text for kind, text in BLOCKS if kind == "text"]
    assert len(shown) == 2 and all(text.strip() in kept for text in shown)


@pytest.mark.parametrize("name", sweep.SUITES)
def test_each_finding_is_a_headline_of_a_committed_sweep(name):
    document = sweep.read(ROOT / f"logs/example/sweep-{name}.json")
    found = sweep.SUITES[name].headline(document)
    assert found and all(words(sentence) in words(README) for sentence in found)


def test_the_figures_of_the_full_length_are_those_of_its_file():
    document = sweep.read(ROOT / "logs/example/sweep-books-full.json")
    first, second = sweep.SUITES["books"].headline(document)
    shown = words(README).partition("at full length, run once: ")[2].partition("`")[0]
    measured, equal = re.findall(r"\d\.\d+", first)[-1:], re.findall(r"\d\.\d+", second)
    assert re.findall(r"\d\.\d+", shown) == [*measured, *equal]


@pytest.mark.parametrize("name", sorted({*re.findall(r"python sweep\.py (\w+)", README)} & {*sweep.SUITES}))
def test_the_command_beside_a_finding_is_the_one_that_found_it(name):
    command = sweep.read(ROOT / f"logs/example/sweep-{name}.json").command
    shown = {one.strip() for one in re.findall(rf"python (sweep\.py {name}\b[^`#\n]*)", README)}
    assert shown and shown <= {re.sub(r" --(repeats|seed) \d+", "", command), f"sweep.py {name} --quick"}


def test_the_sweeps_of_the_posts_take_as_long_as_it_says():
    posts = README.partition("Four posts")[2].partition("Each of these sweeps")[0]
    takes = []
    for name, option in re.findall(r"python sweep\.py (\w+)(.*?)`", posts):
        known = re.search(rf"{option.strip() or 'about'} (\d+) min", sweep.SUITES[name].takes)
        takes.append(int(known[1]))
    assert f"takes from {min(takes)} to {max(takes)} minutes" in README and len(takes) == 4


def test_the_targets_that_need_more_packages_are_those_that_it_names():
    (named,) = re.findall(r"The targets with ([\w, ]+) need `requirements-all.txt`", words(README))
    packages = {"FastAPI": "fastapi", "waitress": "waitress", "gevent": "gevent", "a database": "psycopg"}
    few = {line.partition("=")[0].partition("[")[0].lower() for line in (ROOT / "requirements.txt").open()}
    launches = [plan.launch for plan in plans_of(parse(["--target", "all"]))]
    assert {launch.name for launch in launches} == {*TARGETS}
    for launch in launches:
        more = {*launch.packages} - few - {"asgiref"}
        assert bool(more) == any(packages[one] in more for one in re.split(", | or ", named)), launch.name


def test_every_file_and_target_that_is_named_is_there():
    links = re.findall(r"\]\(([\w./-]+)\)", README)
    assert links and all((ROOT / link).exists() for link in links)
    assert {*re.findall(r"--target ([\w-]+)", README)} <= {*TARGETS, "all"}
    assert all(Path(ROOT / "examples" / name).exists() for name in ("idea.py", "shop.py", "blog.toml"))
