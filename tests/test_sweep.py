"""sweep.py: order, files, interruption, reports and pictures. Four small sweeps are run; all else is made up."""

from __future__ import annotations

import copy
import itertools
import json
import math
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from sweeps import EXAMPLES, begun, change, finished, write

import sweep
from engine.signals import signals
from engine.views import Views
from suites import io

SUITES = list(sweep.SUITES)
DRAWN = [name for name, suite in sweep.SUITES.items() if suite.pictures]


@pytest.mark.parametrize("name", SUITES)
def test_the_order_is_shuffled_by_its_seed_and_keeps_what_is_compared_together(name):
    variants = sweep.SUITES[name].variants
    order = sweep.order_of(variants, 3, 7)
    assert order == sweep.order_of(variants, 3, 7)
    cells = sum(len(variant.concurrency) for variant in variants)
    assert len(order) == len(set(order)) == 3 * cells
    assert sweep.SUITES[name].takes.startswith(f"{sweep.SUITES[name].repeats * cells} runs")
    group = {variant.name: variant.group for variant in variants}
    groups = [key for key, _ in itertools.groupby(order, lambda cell: (group[cell[0]], *cell[1:]))]
    assert len(groups) == len(set(groups))  # each in one piece


# ---------------------------------------------------------------- reports


@pytest.mark.parametrize("name", SUITES)
@pytest.mark.parametrize("done", [0, 1, 5])
def test_an_unfinished_sweep_is_reported_as_such_and_has_no_headline(name, done):
    document = finished(name)
    document.runs = document.runs[:done]
    parts = sweep.render(document).split("\n\n")
    assert parts[1] == f"**Unfinished**: {done} of {len(document.order)} runs."


def test_what_is_not_as_in_a_whole_sweep_is_named():
    assert "**Not a whole sweep**: scale = 2 instead of 1." in sweep.render(finished("books", "--scale", "2"))
    assert "**Not a whole sweep**" not in sweep.render(finished("books", "--scale", "1"))


def test_failed_requests_are_named_unless_they_were_foretold():
    document = finished("limits")
    change(document, "B 40 + 15, n = 70", measured__failed=25)
    assert sweep.failed_in(document) == []
    change(document, "A /def", measured__failed=3)
    assert len(sweep.failed_in(document)) == 2 and "A /def (repeat 1: 3)" in sweep.render(document)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_the_committed_sweeps_are_whole_and_without_failed_requests(file):
    document = sweep.read(file)
    assert len(document.runs) == len(document.order) and not document.quick
    assert document.suite == "client" or not sweep.failed_in(document)


def test_the_committed_report_is_what_the_committed_sweeps_say(capsys):
    assert {sweep.read(file).suite for file in EXAMPLES} == set(SUITES)
    assert sweep.main(["report", *map(str, EXAMPLES)]) == 0
    assert capsys.readouterr().out == (EXAMPLES[0].parent / "report.md").read_text()


ODD = (None, "x", -1, 0, [], {}, math.nan, [None], True)


def changed_by_hand(document: dict, dice: random.Random) -> dict:
    """One thing deleted, or replaced by something odd."""
    inner = document = copy.deepcopy(document)
    while True:
        key = dice.choice([*inner] if isinstance(inner, dict) else range(len(inner)))
        if not (isinstance(inner[key], (dict, list)) and inner[key]) or dice.random() < 0.3:
            break
        inner = inner[key]
    if dice.random() < 0.5:
        del inner[key]
    else:
        inner[key] = dice.choice(ODD)
    return document


@pytest.mark.parametrize("name", SUITES)
def test_a_report_on_a_file_changed_by_hand_is_a_report_or_one_line(name, tmp_path, capsys):
    document, dice = json.loads(json.dumps(asdict(finished(name)))), random.Random(name)
    codes = set()
    for _ in range(25):
        code = sweep.main(["report", write(tmp_path / "a.json", changed_by_hand(document, dice))])
        out, err = capsys.readouterr()
        assert (code == 0) == out.startswith("## Suite") == (err == "") and code in (0, 2)
        assert code == 0 or (err.startswith("sweep.py: ") and err.count("\n") == 1)
        codes.add(code)
    assert 2 in codes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("io --repeats 0", "--repeats"),
        ("nothing", "unknown suite 'nothing'"),
        ("io --scale 2", "--scale goes with suite books"),
        ("report", "report takes a file"),
        ("report missing.json", "cannot read missing.json"),
        ("report text.json", "text.json is no such file"),
        ("report other.json", "KeyError 'Django /io'"),
        ("compare good.json", "two files"),
        ("ab --resume good.json", "begun with another suite"),
        ("io --resume elsewhere.json", "begun with another machine"),
    ],
)
def test_wrong_input_is_answered_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    document = begun("io")
    write(Path("good.json"), document)
    write(Path("text.json"), "hello")
    write(Path("other.json"), replace(document, order=[("Django /io", 0, 1)]))
    write(Path("elsewhere.json"), replace(document, machine={}))
    assert sweep.main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("sweep.py: ") and error.count("\n") == 1 and message in error


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("name", DRAWN)
def test_pictures_have_their_text_as_text_and_are_the_same_each_time(name, tmp_path):
    pytest.importorskip("matplotlib")
    files = [write(tmp_path / f"{i}.json", document) for i, document in enumerate((begun(name), finished(name)))]
    for folder in ("one", "two"):
        assert sweep.main(["report", *files, "--pictures", str(tmp_path / folder)]) == 0
    for picture, *_ in sweep.SUITES[name].pictures:
        svg, again = ((tmp_path / folder / f"1-{picture}.svg").read_text() for folder in ("one", "two"))
        assert svg == again and len(re.findall(r"<text", svg)) > 5
        assert (tmp_path / "one" / f"1-{picture}.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_everything_but_the_pictures_works(tmp_path, monkeypatch, capsys):
    file = write(tmp_path / "a.json", finished("io"))
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    assert sweep.main(["report", file]) == 0
    assert sweep.main(["report", file, "--pictures", str(tmp_path)]) == 2
    assert "-m pip install matplotlib" in capsys.readouterr().err


# ---------------------------------------------------------------- runs


def test_a_run_leaves_its_figures_and_no_pinning(tmp_path):
    pytest.importorskip("waitress")
    before = sweep.allowed_cpus()
    variant = io.VARIANTS[0]._replace(
        arguments="--target flask-waitress --path /io -n 4 --task-time {t} --client-cpus 0"
    )
    document = replace(begun("io"), values={"t": "0.02"})
    run = sweep.run_target(document, variant, 0, 1, tmp_path, None, Views(None, None))
    signals.is_held = False
    assert run["measured"]["answered"] == len(run["answered_s"]) == 4 and run["exchanges"] is None
    assert run["split_prediction"] == run["prediction"]  # with one queue there is no other
    assert sweep.allowed_cpus() == before


TINY = """
import sys, sweep
from dataclasses import replace
sweep.COOL_DOWN_S = 0
io = sweep.SUITES["io"]
sweep.SUITES["io"] = io._replace(variants=io.variants[:2], quick={"n": "4", "t": "0.02"}, pictures=(),
                                 headline=lambda _: [], tables=lambda _: "tables")
sys.exit(sweep.main(sys.argv[1:]))
"""


def tiny_sweep(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-c", TINY, "io", *arguments]
    return subprocess.Popen(command, cwd=Path(sweep.__file__).parent, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)  # fmt: skip


def file_with(process: subprocess.Popen, logs: Path, count: int) -> Path:
    """The file of a sweep under way, once it holds so many runs."""
    deadline_s = time.monotonic() + 60
    while not (files := list(logs.glob("*/sweep-*.json"))) or len(json.loads(files[0].read_text())["runs"]) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    return files[0]


def processes_with(text: str) -> list[str]:
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            found += [environ.parent.name] * (text.encode() in environ.read_bytes())
        except OSError:
            continue
    return found


@pytest.mark.parametrize(("name", "code"), [("SIGKILL", -9), ("SIGINT", 130), ("SIGTERM", 143)])
def test_a_sweep_ended_in_the_middle_goes_on_without_losing_or_doubling_a_run(name, code, tmp_path):
    process = tiny_sweep("--quick", "--repeats", "2", "--seed", "11", "--logs", str(tmp_path))
    file = file_with(process, tmp_path, 1)
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    partial = json.loads(file.read_text())
    assert 1 <= len(partial["runs"]) < 4
    deadline_s = time.monotonic() + 20
    while (left := processes_with(str(tmp_path))) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert left == []

    resumed = tiny_sweep("--quick", "--repeats", "2", "--seed", "11", "--resume", str(file))
    out, err = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, err
    document = json.loads(file.read_text())
    ran = [[entry["variant"], entry["concurrency"], entry["repeat"]] for entry in document["runs"]]
    assert ran == document["order"]
    assert document["runs"][: len(partial["runs"])] == partial["runs"]
    assert document | {"runs": []} == partial | {"runs": []}
    assert not any(
        entry["run"]["measured"]["stopped"] or entry["run"]["measured"]["failed"] for entry in document["runs"]
    )
    assert "Unfinished" not in out and out.startswith("## Suite io")
