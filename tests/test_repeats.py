"""Repeats: medians with least and most, targets in turn, and documents that were measured once."""

from __future__ import annotations

import json

import pytest
from commands import run_bench
from samples import sample_plan, sample_run, sample_statistics

import sweep
from engine.json_form import to_json
from engine.loads import Figure, Open
from engine.repeats import repeated, rows_of_repeats
from engine.report import repeats_table
from suites.comparison import runs_of


def test_each_figure_has_its_median_with_least_and_most():
    runs = [sample_run(measured_s=at_s, latency_s=sample_statistics(p99=None)) for at_s in (4.2, 4.0, 4.6)]
    (row,) = rows_of_repeats(runs)
    assert (row.figure, row.median, row.least, row.most) == (Figure.LAST_ANSWER, 4.2, 4.0, 4.6)
    assert (row.repeats, row.predicted) == (3, 4.0)


def test_a_run_that_was_interrupted_or_not_answered_is_no_repeat():
    whole, cut, silent = sample_run(measured_s=4.2), sample_run(stopped="SIGINT"), sample_run(answered=0)
    assert {row.repeats for row in rows_of_repeats([whole, cut, silent])} == {1}
    assert rows_of_repeats([cut, silent]) == [] and not repeats_table([])


def test_random_arrivals_are_others_in_each_repeat():
    plan = sample_plan(load=Open.poisson(100.0, 50, float("inf"), 3))
    first, second, again = (repeated(plan, number).load.schedule_s for number in (0, 1, 1))
    assert first != second == again and len(first) == len(second) == 50


def test_repeats_of_random_arrivals_are_one_run_in_a_comparison():
    """In a given time each has another number of requests."""
    loads = [Open.poisson(100.0, float("inf"), 2.0, seed) for seed in (1, 2, 3)]
    document = {"runs": [to_json(sample_run(load=load)) for load in loads]}
    assert len({load.requests for load in loads}) > 1 and len(runs_of(document)) == 1
    other_rate = to_json(sample_run(load=Open.poisson(50.0, float("inf"), 2.0, 1)))
    assert len(runs_of({"runs": [*document["runs"], other_rate]})) == 2


def test_targets_take_turns_and_have_one_table(tmp_path, capsys):
    how = ["--target", "flask-waitress", "--target", "flask-gunicorn", "--path", "/io", "--task-time", "20ms"]
    code, document = run_bench(tmp_path, *how, "-n", "8", "--repeats", "2")
    assert code == 0 and document["complete"]
    assert [run["plan"]["target"] for run in document["runs"]] == ["flask-waitress", "flask-gunicorn"] * 2
    text = capsys.readouterr().out
    assert "least to most" in text and "2 repeats" in text


@pytest.mark.parametrize("repeats, code", [(1, 1), (2, 0)])
def test_documents_that_were_measured_once_cannot_be_told_apart(tmp_path, capsys, repeats, code):
    _, document = run_bench(tmp_path, "--target", "flask-waitress", "--path", "/io", "-n", "8", "--task-time", "20ms")
    other = json.loads(json.dumps(document))
    for one in (document, other):
        one["runs"] *= repeats
    for run in other["runs"]:
        run["measured"]["measured_s"] *= 1.2 if repeats == 1 else 1.0
    for name, one in (("a", document), ("b", other)):
        (tmp_path / f"{name}.json").write_text(json.dumps(one))
    files = [str(tmp_path / f"{name}.json") for name in "ab"]
    assert sweep.main(["compare", *files, "--fail-if-worse"]) == code
    out, err = capsys.readouterr()
    assert ("cannot tell" in err) == ("--repeats 6" in out) == (code == 1)
