"""The tests of sweep.py and of the suites: statistics and tables by tables of cases, order, interruption, pictures.

Two real sweeps of two tiny variants are run; all else works on documents whose runs went as predicted.
"""

from __future__ import annotations

import csv
import doctest
import importlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import pytest

import bench
import explain
import load
import serve
import suites
import sweep
from suites import ab, books, client, experiments, io, why

HERE = Path(__file__).parent
EXAMPLES = sorted((HERE / "logs/example").glob("sweep-*.json"))


# ---------------------------------------------------------------- documents without one run


def fake_run(plan: explain.Plan, measured_s: float = 0.0, **changes) -> dict:
    """A run as bench.execute() gives it, with the even split and the predicted time, as if measured."""
    described = explain.describe(plan)
    requests, workers = described["requests"] or 100, described["workers"]
    measured_s = measured_s or described["predicted_s"] or 0.5
    shares = [requests // workers + (i < requests % workers) for i in range(workers)]
    run = described | {
        "sent": requests, "answered": requests, "failed": 0, "errors": {}, "measured_s": measured_s,
        "throughput_rps": requests / measured_s, "requests_of_workers": {f"worker{i}": n for i, n in enumerate(shares)},
        "split_predicted_s": described["predicted_s"], "answered_s": [measured_s] * requests, "warnings": [],
        "latency_s": {"median": 0.1, "p99": 0.2, "max": 0.3}, "client_cpu_s": 0.01, "server_cpu_s": 0.02,
        "kernel": {"ListenOverflows": 0, "TCPSynRetrans": 0}, "warmed_up": 0, "created": 5,
        "database": {"rows": serve.SEEDED_BOOKS + 5, "statements": requests},
        "levels": [{"users": users, "throughput_rps": 7.0, "latency_s": {"median": 0.1, "p95": 0.2}}
                   for _, users in described["stages"]],
    }  # fmt: skip
    return run | changes


def finished(suite: str, repeats: int = 2) -> dict:
    """A document of a suite whose runs all went as predicted, without one run."""
    document = sweep.new_document(suite, True, repeats, 1, f"sweep.py {suite} --quick")
    for name, c, repeat in document["order"]:
        variant = sweep.variant_named(document, name)
        if variant.program:
            run = {"throughput_rps": 1000.0, "requests": 1000, "client_cpu_s": 0.01, "measured_s": 1.0, "failed": 0}
        else:
            run = fake_run(sweep.plan_of(document, variant, c)[0])
        document["runs"].append({"variant": name, "concurrency": c, "repeat": repeat, "wall_s": 1.0, "run": run})
    return document


def change(document: dict, variant: str, **changes) -> None:
    for entry in document["runs"]:
        if entry["variant"] == variant:
            entry["run"] |= changes


def rows_of(markdown: str) -> dict[str, list[str]]:
    """The table rows of a report, by their first cell."""
    rows = (line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| "))
    return {row[0]: [cell.strip() for cell in row[1:]] for row in rows}


# ---------------------------------------------------------------- statistics and tables


@pytest.mark.parametrize("module", [sweep, suites, io, ab, why, books, client])
def test_the_examples_in_the_docstrings_hold(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        ({1: 4.0}, {1: 2.0}, "2.00"),  # one repeat has no spread
        ({1: 4.0, 2: 4.2}, {1: 2.0, 2: 2.0}, "2.05 (2.00-2.10)"),
        ({1: 1.0, 2: 3.0}, {1: 2.0, 2: 2.0}, "1.00 (0.500-1.50), too noisy to tell"),
        ({1: 1.00, 2: 1.02}, {1: 1.01, 2: 1.00}, "1.01 (0.990-1.02), the same"),
        ({1: 4.0, 3: 6.0}, {2: 2.0, 3: 2.0}, "3.00"),  # only repeat 3 has both
        ({}, {1: 1.0}, "-"),
        ({1: 1.0}, {1: 0.0}, "-"),
    ],
)
def test_a_ratio_is_paired_by_repeat_and_says_when_the_spreads_overlap(a, b, text):
    assert suites.compare(a, b) == text


def timed(measured_s: float, predicted_s: float, split_s: float | None = None, failed: int = 0) -> dict:
    return {"measured_s": measured_s, "predicted_s": predicted_s, "split_predicted_s": split_s or predicted_s,
            "failed": failed}  # fmt: skip


def hello(p99_s: float | None, overflows: int) -> dict:
    return {"latency_s": {"p99": p99_s, "max": 9.0}, "kernel": {"ListenOverflows": overflows}, "failed": 0}


@pytest.mark.parametrize(
    ("expects", "before", "after", "good"),
    [
        ("slots", timed(16.0, 16), timed(2.05, 2), True),
        ("slots", timed(16.0, 16), timed(2.5, 2), False),
        ("slots", timed(18.0, 16), timed(2.0, 2), False),
        ("slots", timed(16.0, 16), timed(2.0, 2, failed=1), False),
        ("slots", timed(16.0, 16, failed=1), timed(2.0, 2), False),
        ("split", timed(2.03, 1, 2), timed(1.04, 1), True),
        ("split", timed(1.03, 1), timed(1.04, 1), False),  # it did not need a second round before
        ("split", timed(2.6, 1, 2), timed(1.04, 1), False),  # the split does not explain it
        ("split", timed(2.03, 1, 2), timed(2.0, 1), False),  # nothing moved
        ("tail", hello(7.9, 2716), hello(0.4, 0), True),
        ("tail", hello(7.9, 2716), hello(6.0, 0), False),
        ("tail", hello(7.9, 2716), hello(0.4, 3), False),
        ("tail", hello(0.4, 0), hello(0.1, 0), False),  # there was no overflow to explain
        ("tail", hello(None, 5), hello(0.1, 0), True),  # too few for a p99: the maximum
    ],
)
def test_an_experiment_counts_only_if_it_went_as_predicted(expects, before, after, good):
    assert why.as_predicted(expects, before, after) is good


def test_the_report_of_io_puts_published_predicted_and_measured_side_by_side():
    document = finished("io")
    plan, _ = sweep.plan_of(document, sweep.variant_named(document, "FastAPI /io"), 0)
    wait_s = plan.wait_s
    shares = {"worker0": 50, "worker1": 48, "worker2": 1, "worker3": 1}
    change(document, "FastAPI /io", requests_of_workers=shares, measured_s=2 * wait_s, split_predicted_s=2 * wait_s,
           throughput_rps=50 / wait_s)  # fmt: skip
    report = sweep.render(document)
    rows = rows_of(report)
    assert rows["Flask /io"][0] == "4.00" and rows["Flask /io"][-1] == "2 of 2"
    assert rows["FastAPI /io"] == ["48.3", "500", "250 (250-250)", "250 (250-250)", "2 of 2"]
    assert rows["Flask /async-io : Flask /io, requests/s"][0] == "1.00 (no gain)"
    assert rows["Flask /async-io : Flask /io, requests/s"][-1].endswith("the same")
    assert rows["FastAPI /async-io : FastAPI /io, requests/s"][1:] == ["1.00", "2.00 (2.00-2.00)", "2.00 (2.00-2.00)"]
    assert rows["1"] == ["50 + 48 + 1 + 1", "2", f"{2 * wait_s:.3g} s".replace("0.4 s", "0.400 s")]
    assert "in 2 of 2 repeats" in report
    assert "A quick look" in report and "Unfinished" not in report and "Failed" not in report


def test_the_report_of_ab_explains_a_tail_by_the_listen_queue():
    document = finished("ab")
    assert "A tail of seconds" not in sweep.render(document)
    change(document, "Flask, development server", kernel={"ListenOverflows": 7, "TCPSynRetrans": 5})
    report = sweep.render(document)
    assert "A tail of seconds" in report and "7 overflows and 5 repeated SYNs; 100 / 200 / 300 ms" in report
    assert "17.8" in report  # 3200.62 / 179.68, as published


def test_the_report_of_why_says_plainly_what_did_not_go_as_predicted():
    document = finished("why")
    report = sweep.render(document)
    rows = rows_of(report)
    assert rows["workers"][-1] == "2 of 2" and "as predicted in all 2 repeats. So the time is ceil(n / slots)" in report
    assert rows["AnyIO's limit"][-1] == "0 of 2"  # the fake before needed no second round
    assert "**NOT as predicted in 2 of 2 repeats**: these runs do not show that the second round" in report
    document["runs"] = []
    assert sweep.render(document).count("not run yet") == len(experiments.EXPERIMENTS) + 2  # and of queues


@pytest.mark.parametrize("suite", sweep.SUITES)
@pytest.mark.parametrize("done", [0, 1, 5])
def test_an_unfinished_sweep_is_reported_as_such(suite, done):
    document = finished(suite)
    document["runs"] = document["runs"][:done]
    assert f"**Unfinished**: {done} of {len(document['order'])} runs." in sweep.render(document)


def test_the_report_of_books_compares_equal_slots_and_counts_in_the_database():
    report = sweep.render(finished("books"))
    rows = rows_of(report)
    assert "| read, Flask | 1476 | 200 (200-200) |" in report
    assert "| fanout, FastAPI | 4 workers, pool 15 (as published) | 60 |" in report
    assert rows["fanout, FastAPI : fanout, Flask"][1:3] == ["3.74", "3.75"]
    assert rows["fanout, FastAPI with 16 : fanout, Flask"][2] == "1.00"
    assert "2000 SQL statements for 2000 requests; 100 rows more for 100 POSTs answered 201" in report


def test_failed_requests_are_named_in_the_report():
    document = finished("io")
    document["runs"][0]["run"]["failed"] = 3
    assert "**Failed requests** in: " in sweep.render(document)


def test_the_csv_has_a_line_a_run():
    rows = list(csv.DictReader(StringIO(sweep.render_csv([finished("io")]))))
    assert len(rows) == 12
    assert {row["requests_of_workers"] for row in rows} == {"25+25+25+25"}
    assert all(float(row["measured_s"]) > 0 and row["failed"] == "0" for row in rows)


# ---------------------------------------------------------------- suite client: other programs


@pytest.mark.parametrize(
    ("name", "output", "parsed"),
    [
        ("ab", "Complete requests:      5000\nFailed requests:        2\nNon-2xx responses:      3\n"
               "Requests per second:    179.68 [#/sec] (mean)\n", (179.68, 5000, 5)),
        ("wrk", "  1 threads and 50 connections\n  248611 requests in 2.00s, 40MB read\n"
                "  Socket errors: connect 1, read 0, write 0, timeout 2\nRequests/sec: 124305.60\n",
         (124305.60, 248611, 3)),
        ("hey", "  Requests/sec:\t37000.5\nStatus code distribution:\n  [200]\t74001 responses\n  [503]\t4 responses\n"
                "Error distribution:\n  [2]\tGet \"http://x\": EOF\n", (37000.5, 74001, 6)),
        ("locust", "         Aggregated      15431   1(0.01%) |      4       0      53      4 | 7709.66        0.50\n",
         (7709.66, 15431, 1)),
    ],
)  # fmt: skip
def test_the_output_of_other_load_generators_is_read(name, output, parsed):
    assert client.parse_tool(client.TOOLS[name], output) == parsed
    with pytest.raises(bench.PROBLEMS, match="cannot read the output of `x`; it ends with: killed"):
        client.parse_tool(client.TOOLS[name], "killed", "x")


def test_the_report_of_client_says_what_a_request_and_the_access_log_cost():
    document = finished("client")
    assert rows_of(sweep.render(document))["FastAPI, uvicorn"][-1] == "1.00 (1.00-1.00), the same"
    change(document, "FastAPI, uvicorn, access log", throughput_rps=150.0, server_cpu_s=0.03)
    rows = rows_of(sweep.render(document))
    assert rows["FastAPI, uvicorn"] == ["200 (200-200)", "200 (200-200)", "150 (150-150)", "300 (300-300)",
                                        "0.750 (0.750-0.750)"]  # fmt: skip
    assert "| 50 | bench.py | 1000 (1000-1000) | - | 10.0 (10.0-10.0) | 0 |" in sweep.render(document).replace(
        "1.00 (1.00-1.00), the same", "-"
    )
    document["order"] = [cell for cell in document["order"] if not cell[0].startswith("F")]
    document["runs"] = [entry for entry in document["runs"] if not entry["variant"].startswith("F")]
    assert "access log" not in sweep.render(document).split("\n\n", 1)[1]  # of an older file


@pytest.mark.parametrize("kind", ["kept", "new"])
def test_our_own_client_loads_the_server_of_suite_client(kind, tmp_path):
    document = sweep.new_document("client", True, 1, 1, "", scale="0.2")
    run = client.run_tool(document, sweep.variant_named(document, f"bench.py, {kind}"), 5, tmp_path)
    assert run["requests"] > 5 and run["failed"] == 0
    assert run["throughput_rps"] > 0 and run["client_cpu_s"] > 0 and run["measured_s"] > 0.1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("log", ["no log", "access log"])
def test_a_variant_with_and_without_its_access_log_leaves_no_file_and_no_pinning(log, tmp_path):
    before = os.sched_getaffinity(0) if suites.can_pin() else None
    document = sweep.new_document("client", True, 1, 1, "", scale="0.2")
    variant = sweep.variant_named(document, f"FastAPI, uvicorn, {log}")
    run = sweep.run_target(document, variant, 0, tmp_path, None)
    load.signals.is_held = False
    assert run["answered"] > 50 and run["failed"] == 0
    assert run["log_lines"] == (run["sent"] if log == "access log" else None)
    assert list(tmp_path.iterdir()) == []
    assert before is None or os.sched_getaffinity(0) == before


def test_a_client_that_leaves_no_result_is_named_with_its_last_words(tmp_path):
    with pytest.raises(bench.PROBLEMS, match=r"cannot read the output of `bench\.py x`; it ends with: no such host"):
        client.own_run(tmp_path / "missing.json", "trying\nno such host\n", "bench.py x")


# ---------------------------------------------------------------- suites, order, seed, time


@pytest.mark.parametrize("suite", sweep.SUITES)
def test_the_order_is_shuffled_by_its_seed_and_keeps_what_is_compared_together(suite):
    variants = sweep.SUITES[suite].variants
    order = sweep.order_of(variants, 3, 7)
    assert order == sweep.order_of(variants, 3, 7) != sweep.order_of(variants, 3, 8)
    cells = {(variant.name, c) for variant in variants for c in variant.concurrency}
    assert len(order) == len(set(order)) == 3 * len(cells)
    assert [repeat for _, _, repeat in order] == [1 + i // len(cells) for i in range(len(order))]
    group = {variant.name: variant.group for variant in variants}
    changes = sum((group[a[0]], a[1:]) != (group[b[0]], b[1:]) for a, b in itertools.pairwise(order))
    assert changes == 3 * len({(group[name], c) for name, c in cells}) - 1


def test_every_variant_is_one_plan_of_bench_and_its_app_has_a_known_answer():
    planned = 0
    for name, suite in sweep.SUITES.items():
        for quick in (True, False):
            for plan in sweep.plans_of(sweep.new_document(name, quick, None, 1, "")):
                assert plan.traffic.path in suite.bodies
                planned += 1
    assert planned == 2 * sum(
        len(variant.concurrency) for suite in sweep.SUITES.values() for variant in suite.variants if not variant.program
    )


def test_the_time_left_is_predicted_first_and_then_measured():
    document = sweep.new_document("why", True, 2, 1, "")
    first_s = sweep.time_left_s(document)
    assert first_s > sum(document["predictions"].get(name) or 0 for name, _, _ in document["order"])
    for name, c, repeat in document["order"][: len(document["order"]) // 2]:
        document["runs"].append({"variant": name, "concurrency": c, "repeat": repeat, "wall_s": 100.0, "run": {}})
    assert sweep.time_left_s(document) == len(document["order"]) / 2 * (100.0 + sweep.COOL_DOWN_S)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_the_first_estimate_is_near_the_time_that_the_committed_sweeps_took(file):
    document = sweep.read(file)
    took_s = sum(entry["wall_s"] + sweep.COOL_DOWN_S for entry in document["runs"])
    estimate_s = sweep.time_left_s(document | {"runs": []})
    assert took_s / 1.5 < estimate_s < 1.5 * took_s


def test_the_list_names_each_suite_with_its_title_runs_and_times(monkeypatch, capsys):
    def forbidden(*_, **__):
        raise AssertionError("a list must not start a server")

    monkeypatch.setattr(serve, "guarded", forbidden)
    assert sweep.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < 80
    names = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert names == list(sweep.SUITES)
    text = " ".join(" ".join(lines).split())
    for suite in sweep.SUITES.values():
        assert suite.title in text
    assert "io six endpoints with 4 workers each, a burst of 100 requests 18 runs, about 4 min; --quick: 6 runs" in text
    times = re.findall(r"(\d+) runs, about (\d+) (s|min); --quick: (\d+) runs, about (\d+) (s|min)", text)
    assert len(times) == len(sweep.SUITES)
    for runs, full, full_unit, quick_runs, quick, quick_unit in times:
        assert int(runs) > int(quick_runs) > 0
        assert int(full) * (60 if full_unit == "min" else 1) > int(quick) * (60 if quick_unit == "min" else 1) > 0


# ---------------------------------------------------------------- run: interruption, contract

TINY = """
import sys, sweep
sweep.COOL_DOWN_S = 0
io = sweep.SUITES["io"]
sweep.SUITES["io"] = io._replace(variants=io.variants[:2], quick={"n": "4", "t": "0.02"}, pictures=(),
                                 tables=lambda document: "tables")
sys.exit(sweep.main(sys.argv[1:]))
"""


def tiny_sweep(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-c", TINY, "io", *arguments]
    return subprocess.Popen(command, cwd=HERE, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def processes_with(text: str) -> list[str]:
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if text.encode() in environ.read_bytes():
                found.append(environ.parent.name)
        except OSError:
            continue
    return found


def wait_for_runs(process: subprocess.Popen, logs: Path, count: int) -> Path:
    """The file of a sweep under way, once it holds so many runs."""
    deadline = time.monotonic() + 30
    while not (files := list(logs.glob("*.json"))) or len(json.loads(files[0].read_text())["runs"]) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return files[0]


def wait_until_nothing_is_left(logs: Path) -> None:
    if sys.platform == "linux":
        deadline = time.monotonic() + 10
        while (left := processes_with(str(logs))) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert left == []


@pytest.mark.parametrize(("name", "code", "repeats"), [("SIGKILL", -9, 3), ("SIGINT", 130, 2), ("SIGTERM", 143, 2)])
def test_a_sweep_ended_in_the_middle_goes_on_without_losing_or_doubling_a_run(name, code, repeats, tmp_path):
    process = tiny_sweep("--quick", "--repeats", str(repeats), "--seed", "11", "--logs", str(tmp_path))
    file = wait_for_runs(process, tmp_path, repeats - 1)
    process.send_signal(getattr(signal, name))
    _, err = process.communicate()
    assert process.returncode == code, err
    partial = json.loads(file.read_text())
    assert repeats - 1 <= len(partial["runs"]) < 2 * repeats
    wait_until_nothing_is_left(tmp_path)

    resumed = tiny_sweep("--resume", str(file))
    out, err = resumed.communicate(timeout=60)
    assert resumed.returncode == 0, err
    document = json.loads(file.read_text())
    ran = [(entry["variant"], entry["concurrency"], entry["repeat"]) for entry in document["runs"]]
    assert ran == [tuple(cell) for cell in document["order"]] == sweep.order_of(io.SUITE.variants[:2], repeats, 11)
    assert document["runs"][: len(partial["runs"])] == partial["runs"]
    assert document | {"runs": []} == partial | {"runs": []}
    assert not any(entry["run"]["stopped"] or entry["run"]["failed"] for entry in document["runs"])
    assert "Unfinished" not in out and out.startswith("## Suite io")
    wait_until_nothing_is_left(tmp_path)


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(serve, "start_server", interrupt)
    assert sweep.main(["io", "--quick", "--logs", str(tmp_path)]) == 130
    file = next(tmp_path.glob("*.json"))
    assert f"python sweep.py io --resume {load.shown(file)}" in capsys.readouterr().err
    assert sweep.read(file)["runs"] == []


def test_a_run_that_a_signal_cut_short_is_not_kept(tmp_path, monkeypatch, capsys):
    def execute(plan, options, database):
        load.signals.is_held = True
        runs.append(plan)
        if len(runs) == 2:
            load.signals.handle(signal.SIGTERM, None)
        return fake_run(plan, access_log=None, server_log=None), None

    runs: list[explain.Plan] = []
    monkeypatch.setattr(bench, "execute", execute)
    monkeypatch.setattr(sweep, "check_contract", lambda *_: None)
    monkeypatch.setattr(sweep, "COOL_DOWN_S", 0)
    assert sweep.main(["io", "--quick", "--logs", str(tmp_path)]) == 143
    document = sweep.read(next(tmp_path.glob("*.json")))
    assert len(runs) == 2 and len(document["runs"]) == 1
    assert "go on with: python sweep.py io --resume " in capsys.readouterr().err
    assert not load.signals.is_held


def test_an_app_with_another_answer_is_not_timed(tmp_path, monkeypatch, capsys):
    wrong = io.SUITE._replace(variants=io.SUITE.variants[:1], bodies={"/io": {"task_time": "something else"}})
    monkeypatch.setitem(sweep.SUITES, "io", wrong)
    assert sweep.main(["io", "--quick", "--logs", str(tmp_path)]) == 1
    assert 'flask-gunicorn /io answered 200 b\'{"task_time":0.01}' in capsys.readouterr().err


# ---------------------------------------------------------------- files, wrong input


def test_a_saved_document_reads_back_as_it_was(tmp_path):
    document = finished("why")
    sweep.save(document, tmp_path / "a.json")
    assert sweep.read(tmp_path / "a.json") == json.loads(json.dumps(document)) | {"order": document["order"]}
    assert list(tmp_path.iterdir()) == [tmp_path / "a.json"]


def write(path: Path, document: object) -> str:
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["io", "--repeats", "0"], "argument --repeats: '0' is not a whole number from 1 to 100"),
        (["io", "--seed", "x"], "argument --seed: 'x' is not a whole number"),
        (["io", "--pictures", "x"], "unrecognized arguments: --pictures x"),
        (["io", "--scale", "0.1"], "unrecognized arguments: --scale 0.1"),
        (["books", "--scale", "0"], "argument --scale: '0' is not a positive number"),
        (["nothing"], "invalid choice: 'nothing'"),
        (["report"], "the following arguments are required: FILE"),
        (["report", "missing.json"], "cannot read missing.json: No such file"),
        (["report", "{good}", "missing.json"], "cannot read missing.json: No such file"),
        (["report", "{text}"], "is not a file of sweep.py"),
        (["report", "{list}"], "is not a file of sweep.py"),
        (["report", "{run}"], "is not a file of sweep.py"),
        (["report", "{other}"], "does not fit suite io"),
        (["report", "{doubled}"], "does not fit suite io"),
        (["report", "{good}", "--csv", "/nowhere/x.csv"], "cannot write /nowhere/x.csv: No such file"),
        (["io", "--resume", "{good}", "--quick"], "--resume goes on as the sweep was begun"),
        (["ab", "--resume", "{good}"], "is of suite io, not ab"),
        (["io", "--resume", "{elsewhere}"], "is from another machine or other versions"),
        (["picture", "{good}"], "holds no run of bench.py --json"),
        (["picture", "{text}"], "holds no run of bench.py --json"),
        (["picture", "{run}"], "holds no run of bench.py --json"),
    ],
)
def test_wrong_input_is_answered_in_one_line(arguments, message, tmp_path, capsys):
    document = finished("io")
    files = {
        "good": write(tmp_path / "good.json", document),
        "text": write(tmp_path / "text.json", "hello"),
        "list": write(tmp_path / "list.json", [1]),
        "run": write(tmp_path / "run.json", {"runs": []}),
        "other": write(tmp_path / "other.json", document | {"order": [["Django /io", 0, 1]], "runs": []}),
        "doubled": write(tmp_path / "doubled.json", document | {"runs": document["runs"][:1] * 2}),
        "elsewhere": write(tmp_path / "elsewhere.json", document | {"machine": {"system": "Plan 9", "cpus": 1}}),
    }
    assert sweep.main([argument.format(**files) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sweep.py: ") and error.count("\n") == 1 and message in error


# ---------------------------------------------------------------- report and pictures


def test_a_report_runs_nothing(tmp_path, monkeypatch, capsys):
    def forbidden(*_, **__):
        raise AssertionError("a report must not start anything")

    file = write(tmp_path / "a.json", finished("ab"))
    for owner, name in ((bench, "execute"), (serve, "start_server"), (subprocess, "Popen"), (os, "replace")):
        monkeypatch.setattr(owner, name, forbidden)
    assert sweep.main(["report", file, "--csv", str(tmp_path / "a.csv")]) == 0
    assert capsys.readouterr().out.startswith("## Suite ab")
    assert (tmp_path / "a.csv").read_text().startswith("suite,variant,")


def test_a_report_of_several_files_has_them_one_after_the_other(tmp_path, capsys):
    documents = [finished("io"), finished("client")]
    files = [write(tmp_path / f"{i}.json", document) for i, document in enumerate(documents)]
    assert sweep.main(["report", *files, "--csv", str(tmp_path / "all.csv")]) == 0
    first, second = map(sweep.render, documents)
    assert capsys.readouterr().out == f"{first}\n\n{second}\n"
    rows = list(csv.DictReader((tmp_path / "all.csv").open()))
    assert [row["suite"] for row in rows] == [d["suite"] for d in documents for _ in d["runs"]]


def test_the_committed_report_is_what_the_committed_sweeps_say(capsys):
    assert {sweep.read(file)["suite"] for file in EXAMPLES} == set(sweep.SUITES)
    assert sweep.main(["report", *map(str, EXAMPLES)]) == 0
    assert capsys.readouterr().out == (HERE / "logs/example/report.md").read_text()


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_the_committed_sweeps_are_whole_and_without_failed_requests(file):
    document = sweep.read(file)
    assert not sweep.remaining(document) and not document["quick"]
    assert document["suite"] == "client" or not any(entry["run"]["failed"] for entry in document["runs"])


def test_without_matplotlib_everything_but_the_pictures_works_and_says_so(tmp_path, monkeypatch, capsys):
    file = write(tmp_path / "a.json", finished("io"))
    import_module = importlib.import_module

    def without(name: str):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return import_module(name)

    monkeypatch.setattr(importlib, "import_module", without)
    assert sweep.main(["report", file, "--pictures", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert "FastAPI /async-io-multi" in out and "-m pip install matplotlib" in err


@pytest.mark.parametrize(
    ("suite", "texts"),
    [
        ("io", {"staircase": ["/async-io-multi", "response time, s (log scale)", "Flask, 4 gunicorn workers"],
                "split": ["40 threads", "has to wait for a thread", "repeat 2"]}),
        ("ab", {"latency": ["p99", "gunicorn, 4 uvicorn workers", "development server"]}),
        ("why", {"moves": ["listen backlog", "predicted from the slots", "before"],
                 "queues": ["16 sync workers", "p99, measured", "90 % of deals at random"]}),
        ("books", {"slots": ["Flask, 4 workers x 4 threads, pool 4*", "predicted from the slots"]}),
    ],
)  # fmt: skip
def test_pictures_have_their_text_as_text_and_are_the_same_each_time(suite, texts, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    file = write(tmp_path / "a.json", finished(suite))
    assert sweep.main(["report", file, "--pictures", str(tmp_path / "one")]) == 0
    assert sweep.main(["report", file, "--pictures", str(tmp_path / "two")]) == 0
    assert len(list((tmp_path / "one").iterdir())) == 2 * len(texts)
    for name, expected in texts.items():
        svg, again = ((tmp_path / folder / f"a-{name}.svg").read_text() for folder in ("one", "two"))
        assert svg == again
        assert set(expected) <= set(re.findall(r"<text[^>]*>([^<]*)</text>", svg))
        assert (tmp_path / "one" / f"a-{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("suite", [name for name, suite in sweep.SUITES.items() if suite.pictures])
def test_a_sweep_without_runs_still_has_its_pictures(suite, tmp_path):
    pytest.importorskip("matplotlib")
    file = write(tmp_path / "a.json", finished(suite) | {"runs": []})
    assert sweep.main(["report", file, "--pictures", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 2 * len(sweep.SUITES[suite].pictures)


def test_the_committed_example_has_a_waterfall(tmp_path):
    pytest.importorskip("matplotlib")
    assert sweep.main(["picture", str(HERE / "logs/example/run.json"), "--pictures", str(tmp_path)]) == 0
    svg = next(tmp_path.glob("*-waterfall.svg")).read_text()
    assert "worker3: 4" in svg and "waiting for a slot" in svg
