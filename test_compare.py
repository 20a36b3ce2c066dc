"""The tests of `sweep.py compare`, of reports of bench.py's files, and of one's own variants."""

from __future__ import annotations

import copy
import doctest
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import load
import suites.comparison
import suites.own
import sweep
from suites import comparison, own
from test_sweep import change, fake_run, finished, rows_of

HERE = Path(__file__).parent
OURS = HERE / "logs/example/run.json"  # of bench.py


def write(path: Path, document: object) -> str:
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


@pytest.mark.parametrize("module", [suites.comparison, suites.own])
def test_the_examples_in_the_docstrings_hold(module):
    assert doctest.testmod(module).failed == 0


# ---------------------------------------------------------------- one figure of both


@pytest.mark.parametrize(
    ("a", "b", "more_is_better", "verdict"),
    [
        ([1.0, 1.1, 1.2], [2.0, 2.1, 2.2], True, "better"),
        ([1.0, 1.1, 1.2], [2.0, 2.1, 2.2], False, "worse"),
        ([2.0, 2.1], [1.0, 1.1], False, "better"),
        ([1.0, 1.1, 1.2], [1.1, 1.4, 1.5], False, "too noisy to tell"),
        ([1.0, 1.01], [1.01, 1.02], True, "the same"),
        ([1.0, 1.3], [1.0, 1.3], True, "too noisy to tell"),
        ([1.0], [2.0, 2.1], True, "measured once: no spread is known"),
        ([1.0], [1.02], True, "about the same, but once each"),
    ],
)
def test_a_difference_is_told_only_where_the_spreads_do_not_overlap(a, b, more_is_better, verdict):
    assert comparison.Compared("x", "p99", a, b, more_is_better).verdict == verdict


@pytest.mark.parametrize(("of_a", "of_b"), [(1, 1), (2, 2), (3, 3), (3, 4), (5, 5)])
def test_how_often_chance_alone_separates_two_sets_is_counted_right(of_a, of_b):
    orders = set(itertools.combinations(range(of_a + of_b), of_a))  # the ranks of A
    separated = {tuple(range(of_a)), tuple(range(of_b, of_a + of_b))}
    assert comparison.by_chance(of_a, of_b) == max(1, len(orders) // len(separated & orders))


# ---------------------------------------------------------------- two documents


def compare(tmp_path: Path, a: object, b: object, *options: str) -> int:
    return sweep.main(["compare", write(tmp_path / "A.json", a), write(tmp_path / "B.json", b), *options])


def varied(document: dict, factor: float) -> dict:
    """Every run slower by that factor, with a spread of 2 %."""
    other = copy.deepcopy(document)
    for i, entry in enumerate(other["runs"]):
        run, off = entry["run"], factor * (1 + 0.01 * (i % 3))
        run["measured_s"] *= off
        run["throughput_rps"] /= off
        run["latency_s"] = {key: value * off for key, value in run["latency_s"].items()}
    return other


def test_two_sweeps_are_compared_run_by_run_with_ratio_spread_and_verdict(tmp_path, capsys):
    a = finished("io", 3)
    assert compare(tmp_path, a, varied(a, 2.0)) == 0
    out, _ = capsys.readouterr()
    rows = rows_of(out)["Flask /io"]  # the last of its figures
    assert rows[0] == "p99" and rows[-1] == "worse" and rows[-2].startswith("2.0")
    assert "3 runs against 3" in out and "1 time in 10" in out and "all in one direction: 1 time in 4" in out
    assert "differ" not in out.partition("| run")[0]


def test_the_same_document_twice_is_the_same(tmp_path, capsys):
    assert compare(tmp_path, *[finished("io", 3)] * 2, "--fail-if-worse") == 0
    out = capsys.readouterr().out
    assert "| the same |" in out and "worse" not in out and "noisy" not in out


def test_a_ci_job_gets_exit_code_1_and_the_reason_only_if_it_is_worse(tmp_path, capsys):
    a = finished("io", 3)
    assert compare(tmp_path, a, varied(a, 2.0), "--fail-if-worse") == 1
    assert "sweep.py: worse: Flask /io: last answer is 2.0" in capsys.readouterr().err
    assert compare(tmp_path, a, varied(a, 0.5), "--fail-if-worse") == 0
    assert capsys.readouterr().err == ""


def test_other_machines_versions_and_failed_requests_are_told(tmp_path, capsys):
    a = finished("io", 2)
    b = copy.deepcopy(a)
    b["machine"] |= {"cpus": 64, "kernel": "9.9"}
    b["versions"] |= {"flask": "9.0"}
    b["machine"].pop("cpu")
    change(b, "Flask /io", failed=3)
    b["runs"] = [entry for entry in b["runs"] if entry["variant"] != "FastAPI /io"]
    assert compare(tmp_path, a, b) == 0
    out = capsys.readouterr().out
    assert f"cpus {a['machine']['cpus']} / 64" in out and f"flask {a['versions']['flask']} / 9.0" in out
    assert "cpu: only A.json tells" in out and "Only in A.json: FastAPI /io." in out
    assert "0 in A.json, 6 in B.json" in out


def test_two_documents_of_bench_are_compared_by_target_path_and_load(tmp_path, capsys):
    document = json.loads(OURS.read_text())
    assert compare(tmp_path, document, document) == 0
    out = capsys.readouterr().out
    assert "| flask-gunicorn /io -n 16 | last answer |" in out
    assert "about the same, but once each" in out and "One run a side has no spread" in out


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ("sweep", "bench", "compare two of a kind"),
        ("bench", "missing", "cannot read"),
        ("text", "bench", "is neither of bench.py nor of sweep.py"),
        ("list", "bench", "is neither of bench.py nor of sweep.py"),
        ("empty", "empty", "is neither of bench.py nor of sweep.py"),
        ("sweep", "other", "have no run in common"),
    ],
)
def test_what_cannot_be_compared_is_answered_in_a_line(a, b, message, tmp_path, capsys):
    files = {
        "sweep": write(tmp_path / "a.json", finished("io")), "other": write(tmp_path / "b.json", finished("ab")),
        "bench": str(OURS), "text": write(tmp_path / "c.json", "hello"), "list": write(tmp_path / "d.json", [1]),
        "empty": write(tmp_path / "e.json", {}), "missing": str(tmp_path / "f.json"),
    }  # fmt: skip
    assert sweep.main(["compare", files[a], files[b]]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sweep.py: ") and error.count("\n") == 1 and message in error


# ---------------------------------------------------------------- a document of bench.py as a report


def test_a_report_also_takes_a_document_of_bench(tmp_path, capsys):
    sweep_file = write(tmp_path / "a.json", finished("io"))
    assert sweep.main(["report", str(OURS), sweep_file, "--csv", str(tmp_path / "a.csv")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("## run.json") and "## Suite io" in out
    row = rows_of(out)["flask-gunicorn /io -n 16"]
    assert row[0] == "4" and row[7] == "0"
    assert (tmp_path / "a.csv").read_text().splitlines()[1].startswith("bench,flask-gunicorn /io,0,1,16,")


def test_the_machine_line_has_model_and_kernel_where_the_document_has_them():
    machine = load.about_machine()
    assert machine["kernel"] and machine["kernel"] in load.render_machine(machine)
    assert machine["cpu"] in load.render_machine(machine)
    assert load.render_machine({"system": "Linux x86_64", "cpus": 2}) == "Linux x86_64, 2 CPUs"


# ---------------------------------------------------------------- one's own variants: the file

TOML = """\
title = "two apps"
repeats = 2

[[variants]]
name = "WSGI"
arguments = "--app plain:app --server waitress --threads 8 -n 16 --task-time 0.05"

[[variants]]
name = "ASGI"
arguments = "--app other:app --server uvicorn --path /a -n 16 --task-time 0.05"
compared_with = "WSGI"

[[variants]]
name = "ASGI, closed loop"
arguments = "--app other:app --server uvicorn --path /a -c 4 -n 40"
compared_with = "ASGI"
"""
PLAIN = """
import time

def app(environ, start_response):
    time.sleep(0.05)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""
OTHER = """
import asyncio

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await asyncio.sleep(0.05)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})
"""
needs_toml = pytest.mark.skipif(sys.version_info < (3, 11), reason="no tomllib")


def as_json(toml: str) -> str:
    """The same variants in JSON, a key a line."""
    tomllib = pytest.importorskip("tomllib")
    return json.dumps(tomllib.loads(toml), indent=1)


def folder_with(tmp_path: Path, name: str, text: str) -> Path:
    folder = tmp_path / "blog"
    folder.mkdir(exist_ok=True)
    (folder / "plain.py").write_text(PLAIN)
    (folder / "other.py").write_text(OTHER)
    (folder / name).write_text(text)
    return folder / name


@needs_toml
@pytest.mark.parametrize("ending", ["toml", "json"])
def test_toml_and_json_say_the_same(ending, tmp_path):
    here = os.getcwd()
    asked = own.read(folder_with(tmp_path, f"v.{ending}", TOML if ending == "toml" else as_json(TOML)))
    assert (asked["title"], asked["repeats"]) == ("two apps", 2)
    assert [variant["name"] for variant in asked["variants"]] == ["WSGI", "ASGI", "ASGI, closed loop"]
    assert asked["variants"][0]["compared_with"] == "" and asked["variants"][2]["compared_with"] == "ASGI"
    assert os.getcwd() == here
    groups = {variant.group for variant in own.suite(asked).variants}
    assert len(groups) == 1  # what is compared runs next to each other


MISTAKES = [
    # what is replaced, by what, the line in TOML, words
    ("repeats = 2", "repeats = 2 2", 2, "Expected newline"),
    ("repeats = 2", "repeats = 0", 2, "repeats is not a whole number from 1 to 100"),
    ("repeats = 2", 'repeats = "two"', 2, "repeats is not a whole number"),
    ("repeats = 2", "repeat = 2", 2, "'repeat' is not known; there are title, repeats, variants"),
    ('name = "ASGI"', 'name = "WSGI"', 9, "there are two variants 'WSGI'"),
    ('name = "ASGI"', 'nme = "ASGI"', 9, "'nme' is not known; there are name, arguments, compared_with"),
    ('name = "ASGI"\n', "", 8, "a variant without name"),
    ('compared_with = "WSGI"', 'compared_with = "Django"', 11, "no other variant is 'Django'; there are WSGI, ASGI"),
    ('compared_with = "WSGI"', 'compared_with = "ASGI"', 11, "no other variant is 'ASGI'"),
    ('compared_with = "WSGI"', "compared_with = 3", 11, "compared_with is not text in quotes"),
    ("--path /a -n 16", "--path a -n 16", 10, "arguments: argument --path: 'a' is not a path"),
    ("--path /a -n 16", "--path /a -n many", 10, "arguments: argument -n/--requests: 'many'"),
    ("--path /a -n 16", "--path /a -n '16", 10, "arguments: No closing quotation"),
    ("--path /a -n 16", "--path /a --path /b -n 16", 10, "that is 2 runs, not one"),
    ("--path /a -n 16", "--path /a -n 16 --json x", 10, "--json does not go with a variant"),
    ("--app other:app --server uvicorn --path /a -n", "--target flaks -n", 10, "unknown target 'flaks'"),
    ("--threads 8", "--workers 8", 6, "plain:app has no --workers"),
]


@needs_toml
@pytest.mark.parametrize(("good", "bad", "line", "words"), MISTAKES, ids=[mistake[1][:40] for mistake in MISTAKES])
def test_a_mistake_in_a_toml_file_is_named_with_its_line(good, bad, line, words, tmp_path, capsys):
    assert good in TOML
    file = folder_with(tmp_path, "v.toml", TOML.replace(good, bad, 1))
    assert sweep.main([str(file), "--logs", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"sweep.py: v.toml, line {line}: ") and error.count("\n") == 1 and words in error


@needs_toml
@pytest.mark.parametrize(("good", "bad", "words"), [(good, bad, words) for good, bad, _, words in MISTAKES[8:]])
def test_a_mistake_in_a_json_file_is_named_with_its_line(good, bad, words, tmp_path, capsys):
    text = as_json(TOML.replace(good, bad, 1))
    file = folder_with(tmp_path, "v.json", text)
    assert sweep.main([str(file), "--logs", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    named = int(error.partition("line ")[2].partition(":")[0])
    key = "compared_with" if "compared_with" in good else "arguments"
    assert f'"{key}"' in text.splitlines()[named - 1] and error.count("\n") == 1 and words in error


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("v.json", '{"title": "x",\n "variants": [}', "v.json, line 2: Expecting value"),
        ("v.json", "[]", "v.json is not a file of variants"),
        ("v.json", '{"runs": []}', "that is the result of a run: sweep.py report"),
        ("v.json", "{}", "v.json, line 1: there are no variants"),
        ("v.json", '{\n"variants": []}', "v.json, line 2: there are no variants"),
        ("v.json", '{\n"variants": [1]}', "v.json, line 2: a variant has a name and arguments"),
        ("missing.json", None, "cannot read"),
    ],
)
def test_what_is_no_file_of_variants_is_answered_in_a_line(name, text, message, tmp_path, capsys):
    if text is not None:
        (tmp_path / name).write_text(text)
    assert sweep.main([str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sweep.py: ") and error.count("\n") == 1 and message in error


def test_without_tomllib_json_is_offered(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tomllib", None)
    file = folder_with(tmp_path, "v.toml", TOML)
    assert sweep.main([str(file)]) == 2
    assert "v.toml: TOML needs Python 3.11 or newer; the same in JSON" in capsys.readouterr().err


@needs_toml
def test_the_example_is_a_file_of_variants():
    asked = own.read(HERE / "examples/blog.toml")
    assert len(asked["variants"]) == 3 and asked["repeats"] == 5
    assert all("--workers 8" in variant["arguments"] for variant in asked["variants"])


# ---------------------------------------------------------------- one's own variants: run, report, resume


def own_document(tmp_path: Path, repeats: int = 2) -> dict:
    """A document of the variants above, whose runs went as predicted, without one run."""
    asked = own.read(folder_with(tmp_path, "v.json", as_json(TOML)))
    with own.working_in(tmp_path / "blog"):
        document = sweep.new_document("own", False, repeats, 1, "sweep.py v.json", asked=asked)
        for name, c, repeat in document["order"]:
            plan, _ = sweep.plan_of(document, sweep.variant_named(document, name), c, repeat)
            run = fake_run(plan, 0.1, explained_by="prediction", split_prediction=None)
            document["runs"].append({"variant": name, "concurrency": c, "repeat": repeat, "wall_s": 1.0, "run": run})
    return document


@needs_toml
def test_own_variants_have_table_ratios_and_a_staircase(tmp_path, capsys):
    document = own_document(tmp_path)
    change(document, "ASGI", measured_s=0.05, throughput_rps=320.0)
    report = sweep.render(document)
    rows = rows_of(report)
    assert report.startswith("## Suite own: two apps")
    assert rows["WSGI"][0] == "0.10 s" and rows["WSGI"][2].startswith("0.100 s")  # 2 rounds of 8
    assert rows["ASGI : WSGI, requests/s"][-1] == "2.00 (2.00-2.00)"
    assert "`bench.py --app plain:app --server waitress" in report
    pytest.importorskip("matplotlib")
    file = write(tmp_path / "a.json", document)
    assert sweep.main(["report", file, "--pictures", str(tmp_path)]) == 0
    svg = (tmp_path / "a-staircase.svg").read_text()
    assert "request n of the burst" in svg and "ASGI, closed loop" in svg and "latency, ms (log scale)" in svg


def test_braces_in_arguments_are_not_filled_in():
    asked = {"title": "", "repeats": 1, "variants": [{"name": "a", "arguments": "--data {n}", "compared_with": ""}]}
    (variant,) = own.suite(asked).variants
    assert variant.arguments.format(n=5) == "--data {n}"


def run_sweep(*arguments: str, cwd: Path = HERE) -> subprocess.Popen:
    command = [sys.executable, str(HERE / "sweep.py"), *arguments]
    return subprocess.Popen(command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@needs_toml
@pytest.mark.skipif(not shutil.which("true"), reason="POSIX only")
def test_a_strangers_file_runs_from_elsewhere_and_goes_on_after_an_interruption(tmp_path):
    pytest.importorskip("waitress")
    pytest.importorskip("uvicorn")
    file, logs = folder_with(tmp_path, "v.toml", TOML), tmp_path / "logs"
    process = run_sweep(str(file), "--seed", "5", "--logs", str(logs))
    deadline = time.monotonic() + 120
    while not (found := list(logs.glob("*-sweep-v.json"))) or len(json.loads(found[0].read_text())["runs"]) < 2:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "go on with: python sweep.py" in err and "v.toml --resume" in err

    other = tmp_path / "elsewhere"
    other.mkdir()
    resumed = run_sweep(str(file), "--resume", str(found[0]), cwd=other)
    out, err = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, err
    document = json.loads(found[0].read_text())
    assert [[e["variant"], e["concurrency"], e["repeat"]] for e in document["runs"]] == document["order"]
    assert len(document["order"]) == 6 and not any(entry["run"]["failed"] for entry in document["runs"])
    assert "| ASGI : WSGI, requests/s |" in out and "Unfinished" not in out
    assert list(other.iterdir()) == []

    file.write_text(TOML.replace("-n 16", "-n 17"))
    again = run_sweep(str(file), "--resume", str(found[0]))
    _, err = again.communicate(timeout=60)
    assert again.returncode == 2 and "v.toml is another than" in err


@needs_toml
def test_an_app_of_ones_own_that_fails_is_not_timed(tmp_path, capsys):
    pytest.importorskip("waitress")
    folder_with(tmp_path, "v.json", as_json(TOML.partition('[[variants]]\nname = "ASGI"')[0]))
    (tmp_path / "blog/plain.py").write_text(PLAIN.replace("200 OK", "503 Busy"))
    assert sweep.main([str(tmp_path / "blog/v.json"), "--logs", str(tmp_path)]) == 1
    assert "plain:app / answered 503 b'hello', not 200" in capsys.readouterr().err
