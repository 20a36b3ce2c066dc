"""The README shows what there is: its code blocks are files, its findings are headlines of committed JSON."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import ROOT

import sweep
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


def test_every_file_and_target_that_is_named_is_there():
    links = re.findall(r"\]\(([\w./-]+)\)", README)
    assert links and all((ROOT / link).exists() for link in links)
    assert {*re.findall(r"--target ([\w-]+)", README)} <= {*TARGETS, "all"}
    assert all(Path(ROOT / "examples" / name).exists() for name in ("idea.py", "shop.py", "blog.toml"))
