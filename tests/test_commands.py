"""Ordinary commands that ended in the wrong way, or gave advice that does not work: compare, sweeps, --until."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest
from commands import run_bench
from samples import BAND, sample_measured, sample_plan, sample_run, sample_statistics
from servers import write_files
from sweeps import write

import sweep
from engine import before, report, report_before
from engine.json_form import to_json
from engine.kinds import Kind
from engine.loads import Closed
from engine.run import Explanation, Verdict
from engine.until import Until
from engine.words import Problem
from engine.workload import read_log

HAS_TOML = any(map(find_spec, ("tomllib", "tomli")))
needs_toml = pytest.mark.skipif(not HAS_TOML, reason="Python 3.10 has no tomllib, and tomli is not installed")

# ---------------------------------------------------------------- sweep.py compare


def document_of(*runs):
    """As bench.py writes it."""
    return {
        "command": "bench.py", "when": "2026-11-28 12:00:00", "machine": {"cpus": 2}, "versions": {}, "complete": True,
        "runs": [to_json(run) for run in runs],
    }  # fmt: skip


def runs_of_app(target, repeats=2, **changes):
    return [sample_run(**{"target": target, "path": "/", "load": Closed(40, concurrency=4)} | changes)] * repeats


@pytest.mark.parametrize("old, new", [("old:app", "new:app"), ("http://127.0.0.1:8000/", "http://127.0.0.1:8001/")])
def test_two_services_are_compared_where_each_document_has_one(tmp_path, capsys, old, new):
    slow = runs_of_app(new, throughput_rps=2.0, failed=1)
    files = write(tmp_path / "a.json", document_of(*runs_of_app(old))), write(tmp_path / "b.json", document_of(*slow))
    assert sweep.main(["compare", *files, "--fail-if-worse"]) == 1
    out, err = capsys.readouterr()
    assert (
        f"A is `{old}`, B is `{new}`" in out and "requests/s is 0.500 times" in err and "of the requests failed" in err
    )
    assert sweep.main(["compare", files[0], files[0]]) == 0
    assert "Two services" not in capsys.readouterr().out


@pytest.mark.parametrize("others", [runs_of_app("a") + runs_of_app("b"), runs_of_app("a", path="/other")])
def test_services_are_not_compared_where_it_is_not_known_which_or_the_path_is_another(tmp_path, capsys, others):
    files = write(tmp_path / "a.json", document_of(*runs_of_app("c"))), write(tmp_path / "b.json", document_of(*others))
    assert sweep.main(["compare", *files]) == 2
    assert "no run in common" in capsys.readouterr().err


@pytest.mark.parametrize("repeats_of_a, says", [(1, "measured once in A;"), (6, "")])
def test_a_figure_that_was_measured_once_is_said_to_be_and_where(tmp_path, capsys, repeats_of_a, says):
    a, b = document_of(*runs_of_app("a", repeats_of_a)), document_of(*runs_of_app("a", 6))
    files = write(tmp_path / "a.json", a), write(tmp_path / "b.json", b)
    assert sweep.main(["compare", *files, "--fail-if-worse"]) == bool(says)
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("with_p99, is_compared", [(1, False), (5, False), (6, True)])
def test_a_p99_that_some_repeats_lack_is_not_compared(tmp_path, capsys, with_p99, is_compared):
    known, unknown = (runs_of_app("a", 1, latency_s=sample_statistics(p99=p99)) for p99 in (4.0, None))
    b = document_of(*known * with_p99, *unknown * (6 - with_p99))
    files = write(tmp_path / "a.json", document_of(*known * 6)), write(tmp_path / "b.json", b)
    assert sweep.main(["compare", *files, "--fail-if-worse"]) == 0
    out, err = capsys.readouterr()
    assert ("| p99, ms |" in out) == is_compared and not err and "| p50, ms |" in out


def test_a_repeat_in_which_nothing_was_answered_leaves_the_others_to_compare(tmp_path, capsys):
    silent = runs_of_app("a", 1, latency_s=None, throughput_rps=0.0, answered=0, failed=16)
    files = [
        write(tmp_path / f"{name}.json", document_of(*runs_of_app("a", 3), *more))
        for name, more in (("a", []), ("b", silent))
    ]
    assert sweep.main(["compare", *files]) == 0
    assert "| p50, ms |" in capsys.readouterr().out


# ---------------------------------------------------------------- bench.py: why its exit code is 1

SLEEPS = """
import time
from flask import Flask

app = Flask(__name__)

@app.get("/<float:wait_s>")
def index(wait_s):
    time.sleep(wait_s)
    return ""
"""


@pytest.mark.parametrize("shown", [report.row, report.verdict_of_target])
def test_what_came_of_until_is_shown_with_a_row_and_with_quiet_too(shown):
    fits = {"verdict": Verdict(Explanation.PREDICTION, (), None, BAND, ())}
    known, unknown = (
        sample_run(measured=sample_measured(until=until), **fits)
        for until in (Until("p50", 0.05, True, (0.98, 1.02), 400), Until("p99", 0.05, False, None, 200, "too-few"))
    )
    text = " ".join(shown(known).split())
    assert "p50 known to 5 %" in text and "between 980 ms and 1.02 s" in text and "NOT" not in text
    assert "NOT reached" in shown(unknown)
    assert "until" not in shown(sample_run(**fits))


def test_which_of_several_runs_has_met_fail_if_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, {"waits.py": SLEEPS})
    how = ["--app", "waits:app", "--server", "gunicorn-threads", "--threads", "4", "-n", "8"]
    paths = ["--path", "/0.01", "--path", "/0.3"]
    assert run_bench(tmp_path, *how, *paths, "--fail-if", "last>0.3")[0] == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bench.py: run 2, waits:app /0.3, ") and line.endswith("(last>0.3)")
    one = ["--path", "/0.1", "--try", "--threads 1"]
    assert run_bench(tmp_path, *how, *one, "--fail-if", "last>0.6")[0] == 0  # the change is worse, not the service


# ---------------------------------------------------------------- workloads, one run after the other

TAKEN = """
from flask import Flask, request

app = Flask(__name__)

@app.post("/users")
def new_user():
    try:
        open(f"names/{request.json['name']}", "x").close()  # stands for a table that outlives us
    except FileExistsError:
        return "name is taken", 409
    return {}, 201
"""
USERS = """
[[kinds]]
path = "/users"
body = '{"name": "user{n}"}'
"""


@needs_toml
@pytest.mark.parametrize("how", [["--repeats", "3"], ["--try", "--threads 2"]], ids=" ".join)
def test_no_two_runs_of_a_command_send_the_same_numbers(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, {"users.py": TAKEN, "w.toml": USERS})
    (tmp_path / "names").mkdir()
    code, document = run_bench(
        tmp_path,
        "--app",
        "users:app",
        "--workload",
        "w.toml",
        "-c",
        "4",
        "-n",
        "40",
        "--warmup",
        "8",
        "--seed",
        "1",
        *how,
    )
    assert (code, {run["measured"]["answered"] for run in document["runs"]}) == (0, {40})
    seeds = [run["plan"]["mix_seed"] for run in document["runs"]]
    assert seeds == ([1, 2, 3] if "--repeats" in how else [1, 1])  # a change gets the same kinds in the same order


ACCESS_LOG = """\
INFO:     127.0.0.1:51234 - "GET /0.05 HTTP/1.1" 200 OK
INFO:     127.0.0.1:51234 - "GET /favicon.ico HTTP/1.1" 404 Not Found
INFO:     127.0.0.1:51240 - "GET /0.05?page=2 HTTP/1.1" 304 Not Modified
127.0.0.1 - - [26/Nov/2026:10:00:01 +0000] "GET /wp-login.php HTTP/1.1" 403 153 "-" "curl"
"""
PERHAPS = """
[[kinds]]
path = "/0.05"
[[kinds]]
path = "/none"
"""


def test_what_an_access_log_says_was_not_there_is_not_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, {"waits.py": SLEEPS, "access.log": ACCESS_LOG, "bad.log": ACCESS_LOG.splitlines()[1]})
    code, document = run_bench(tmp_path, "--app", "waits:app", "--requests-from", "access.log", "-n", "8")
    (run,) = document["runs"]
    assert code == 0 and [kind["name"] for kind in run["measured"]["kinds"]] == ["GET /0.05", "GET /0.05?page=2"]
    assert "2 of 4 lines" in run["plan"]["mix_note"]
    with pytest.raises(Problem, match="no line of a GET request that was answered with 2xx"):
        read_log(tmp_path / "bad.log")


@needs_toml
def test_a_kind_that_is_refused_is_to_be_looked_at_in_its_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, {"waits.py": SLEEPS, "w.toml": PERHAPS})
    how = ["--app", "waits:app", "--workload", "w.toml", "-n", "8", "-c", "2"]
    assert run_bench(tmp_path, *how)[0] == 2
    text = capsys.readouterr().err
    assert "GET /none is answered with HTTP 404" in text and "Look at it in w.toml." in text and "--path" not in text
    code, document = run_bench(tmp_path, *how, "--any-status")
    (run,) = document["runs"]
    at_0_05, none = run["plan"]["kind_waits_s"]
    assert code == 1 and at_0_05 == none > 0.04 and run["prediction"]["mean_s"]
    assert "answered with an error is assumed" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("any_status, waits", [(True, (0.2, 0.2)), (False, ())])
def test_a_kind_without_a_time_is_assumed_to_take_as_long_as_the_others_where_that_is_said(any_status, waits):
    kinds = Kind(1, "GET", "/a"), Kind(1, "GET", "/b")
    plan = sample_plan(launch=None, kinds=kinds, any_status=any_status, wait_s=None, lone_requests=1)
    assert before.with_kind_waits(plan, [[0.2], []]).kind_waits_s == waits
    assert ("is assumed" in report_before.lone_text(plan)) == any_status


def test_workloads_of_other_kinds_have_no_run_in_common(tmp_path, capsys):
    for name, weights in (("a", (9, 1)), ("b", (1, 9)), ("again", (9, 1))):
        kinds = tuple(Kind(weight, "GET", f"/{weight}") for weight in weights)
        runs = runs_of_app("main:app", kinds=kinds, workload=f"{name}.toml")
        (tmp_path / f"{name}.json").write_text(json.dumps(document_of(*runs)))
        assert f"workload {name}.toml" in report.row(runs[0])
    a, b, again = (f"{tmp_path}/{name}.json" for name in ("a", "b", "again"))
    assert sweep.main(["compare", a, b]) == 2 and "no run in common" in capsys.readouterr().err
    assert sweep.main(["compare", a, again]) == 0
