"""`sweep.py compare`: two documents of sweep.py, or two of bench.py, side by side."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict

import pytest
from sweeps import EXAMPLES, finished, rows_of, write

import sweep
from suites.comparison import b_to_a

(OURS,) = EXAMPLES[0].parent.glob("*-flask-gunicorn-io/run.json")  # of bench.py


@pytest.mark.parametrize(
    ("a", "b", "more_is_better", "verdict"),
    [
        ([1.0, 1.1, 1.2], [2.0, 2.1, 2.2], True, "better"),
        ([1.0, 1.01], [1.01, 1.02], True, "the same"),
        ([1.0], [2.0, 2.1], True, "measured once: no spread is known"),
        ([1.0], [1.0, 1.01], True, "about the same, but measured once"),
    ],
)
def test_a_difference_is_told_only_where_the_spreads_do_not_overlap(a, b, more_is_better, verdict):
    assert b_to_a(a, b, more_is_better)[1] == verdict


@pytest.mark.parametrize(("factor", "code"), [(2.0, 1), (1.0, 0), (0.5, 0)])
def test_a_ci_job_gets_exit_code_1_and_the_reason_only_if_it_is_worse(factor, code, tmp_path, capsys):
    a = asdict(finished("io"))
    for entry in a["runs"]:
        entry["run"]["measured"]["failed"] = 6 * (entry is a["runs"][0])
    b = copy.deepcopy(a)
    for entry in b["runs"]:
        measured = entry["run"]["measured"]
        measured["measured_s"] *= factor
        measured["latency_s"]["p99"] *= factor
    b["machine"]["cpus"] = 64
    b["runs"] = [entry for entry in b["runs"] if entry["variant"] != "FastAPI /io"]
    files = write(tmp_path / "A.json", a), write(tmp_path / "B.json", b)
    assert sweep.main(["compare", *files, "--fail-if-worse"]) == code
    out, err = capsys.readouterr()
    rows = rows_of(out)["Flask /io"]  # the last of its figures
    assert rows[0].startswith("p99") and rows[-1] == {2.0: "worse", 1.0: "the same", 0.5: "better"}[factor]
    assert ("worse: Flask /io" in err) == bool(code)
    assert "Only in A: FastAPI /io." in out and "64 CPUs" in out and "They differ" in out and "in B: 6" in out


def test_two_documents_of_bench_are_compared_by_target_path_and_load(capsys):
    assert sweep.main(["compare", str(OURS), str(OURS)]) == 0
    out = capsys.readouterr().out
    assert "| flask-gunicorn /io " in out and "about the same, but measured once" in out


@pytest.mark.parametrize("other", ["hello", [1], {}, json.loads(EXAMPLES[0].read_text())])
def test_what_cannot_be_compared_is_answered_in_a_line(other, tmp_path, capsys):
    assert sweep.main(["compare", write(tmp_path / "a.json", finished("io")), write(tmp_path / "b.json", other)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
