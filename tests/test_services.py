"""Services with a hidden limit, each with the truth beside it: the line where requests wait, and how many go on.

TRUTH in a service: the options of the run, its path, the slots (None: no limit among these requests), and what requests
wait for (None: for nothing that others hold). Comments at the end of its lines: `# waits` where requests wait that
others hold up, `# works` where those stand that hold it, `# blocks` what blocks the event loop, `# after` what holds a
slot after the answer.
"""

from __future__ import annotations

import ast
import contextlib
import json
import shlex
from pathlib import Path

import pytest
from commands import ROOT

import bench

FOLDER = ROOT / "tests/services/limits"
SERVICES = sorted(FOLDER.glob("*.py"))


def truth_of(service: Path) -> dict:
    """The literal TRUTH of a service, read without running it."""
    found = (node for node in ast.parse(service.read_text()).body if isinstance(node, ast.Assign))
    return next(ast.literal_eval(node.value) for node in found if node.targets[0].id == "TRUTH")


def lines_of(service: Path, word: str) -> set[str]:
    """The lines that a comment marks with this word."""
    lines = enumerate(service.read_text().splitlines(), 1)
    marked = {number: line.rpartition("#")[2].split() for number, line in lines if "#" in line}
    return {f"{service.name}:{number}" for number, words in marked.items() if word in words and len(words) < 4}


def seen(service: Path, folder: Path) -> dict:
    """The run of a service, as its JSON has it."""
    truth = truth_of(service)
    arguments = ["--app", f"{service.stem}:app", "--path", truth["path"], *shlex.split(truth["options"])]
    with contextlib.redirect_stdout(None):
        bench.main([*arguments, "--logs", f"{folder}", "--json", f"{folder}/run.json", "-q"])
    return json.loads((folder / "run.json").read_text())["runs"][0]


def wrong(service: Path, run: dict) -> list[str]:
    """What of the truth the run does not say, and what it says that is not true."""
    truth, where = truth_of(service), run["inside"]["where"]
    limit = next((one for one in run["verdict"]["limits"] if one["line"] or one["waiting"]), None)
    waits, blocks = lines_of(service, "waits"), lines_of(service, "blocks")
    found = []
    if not where:
        return ["nothing was seen"]
    if (waits or blocks) and not (limit and limit["line"] in waits | blocks):
        found.append(f"line: {limit and limit['line']} of {waits | blocks}")
    if not waits and not blocks and limit and limit["line"]:
        found.append(f"line: {limit['line']}, but none is true")
    for word, state in ("works", "working"), ("after", "answered"), ("blocks", "blocking"):
        lines = lines_of(service, word)
        if lines and not lines & {place["line"] for place in where["places"] if place["state"] == state}:
            found.append(f"{state}: not at {lines}")
    if truth["slots"] and limit and abs(limit["slots"] - truth["slots"]) > 0.5:
        found.append(f"slots: {limit['slots']} of {truth['slots']}")
    if limit and truth["waits_on"] is None and not blocks:
        found.append(f"limit: {limit['resource']}, but there is none")
    return found


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.stem)
def test_the_line_and_the_number_are_true(service, tmp_path, monkeypatch):
    monkeypatch.chdir(service.parent)
    assert wrong(service, seen(service, tmp_path)) == []
