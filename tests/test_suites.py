"""The suites: figures of repeats, how an experiment is judged, tables of made-up runs, and a few real ones."""

from __future__ import annotations

import itertools
import math
import os
import re
from pathlib import Path

import pytest
from sweeps import EXAMPLES, begun, change, finished, rows_of

import sweep
from engine.model import poisson_schedule
from engine.plans import prediction_for
from engine.server import environment_for
from engine.words import Problem
from suites import ab, client, io, limits, queues, users, why
from suites.common import Repeats
from suites.why import FIRST_S, P99_S, TIME_S, Expects

# ---------------------------------------------------------------- why: experiments


def timed(measured_s: float, predicted_s: float, split_s: float = 0.0, first_s: float = 0.0) -> dict:
    return {
        "plan": {"wait_s": 0.5}, "prediction": {"makespan_s": predicted_s},
        "split_prediction": {"makespan_s": split_s or predicted_s},
        "measured": {"measured_s": measured_s, "latency_s": {"min": first_s}},
    }  # fmt: skip


def hello(p99_s: float, overflows: int | None) -> dict:
    """overflows: None where no kernel counts them."""
    run = timed(1.0, 0.0)
    kernel = {} if overflows is None else {"ListenOverflows": overflows}
    run["measured"] |= {"latency_s": {"p99": p99_s}, "kernel": kernel}
    return run


@pytest.mark.parametrize(
    ("expects", "figure", "before", "after", "good"),
    [
        ("SLOTS", TIME_S, timed(16.0, 16), timed(2.05, 2), True),
        ("SLOTS", TIME_S, timed(16.0, 16), timed(2.5, 2), False),
        ("SPLIT", TIME_S, timed(2.03, 1, 2), timed(1.04, 1), True),
        ("SPLIT", TIME_S, timed(1.03, 1), timed(1.04, 1), False),  # it did not need a second round before
        ("TAIL", P99_S, hello(7.9, 2716), hello(0.4, 0), True),
        ("TAIL", P99_S, hello(7.9, 2716), hello(6.0, 0), False),
        ("TAIL", P99_S, hello(7.9, 0), hello(0.4, 0), False),
        ("TAIL", P99_S, hello(7.9, None), hello(0.4, None), True),
        ("TAIL", P99_S, hello(7.9, None), hello(6.0, None), False),
        ("FIRST", FIRST_S, timed(1.52, 1.5, 0, 0.52), timed(1.53, 1.5, 0, 1.52), True),
        ("FIRST", FIRST_S, timed(1.52, 1.5, 0, 0.52), timed(1.53, 1.5, 0, 0.52), False),  # nothing moved
        ("RATIO", TIME_S, timed(4.0, 3.0), timed(4.2, 3.0), True),  # slower than predicted, but both by as much
        ("RATIO", TIME_S, timed(4.0, 3.0), timed(2.0, 3.0), False),  # twice the threads bought something
        ("RATIO", TIME_S, timed(4.0, 3.0), timed(3.0, 1.5), False),  # two processes bought too little
    ],
)
def test_an_experiment_counts_only_if_it_went_as_predicted(expects, figure, before, after, good):
    assert Expects[expects].agrees(before, after, figure) == good


def test_what_the_settings_predict_is_what_the_closed_forms_say():
    due = begun("why").predictions
    assert due["workers, before"] == pytest.approx(16 * 0.2) and due["response model, after"] == pytest.approx(3 * 0.2)
    assert due["threads beyond the knee, after"] == pytest.approx(100 * 0.02, rel=0.15)  # requests on one CPU
    assert due["threads beyond the knee, after"] == pytest.approx(2 * due["processes beyond the knee, after"], rel=0.15)


def test_the_report_of_why_says_plainly_what_did_not_go_as_predicted():
    document = finished("why")
    rows = rows_of(sweep.render(document))
    assert rows["workers"][-1] == "2 of 2"
    assert rows["AnyIO's limit"][-1] == "0 of 2"  # the made-up run before needed no second round
    change(document, "workers, after", measured__failed=1)
    assert rows_of(sweep.render(document))["workers"][-1] == "0 of 2"


def test_the_headline_of_why_explains_only_what_went_as_predicted():
    document = finished("why")
    assert rows_of(sweep.render(document))["response model"][-1] == "0 of 2"  # the made-up first answers are too early
    assert why.headline(document) == queues.headline(document)
    for name, first_s in (("before", 0.2), ("after", 0.6)):
        change(document, f"response model, {name}", measured__latency_s={"min": first_s})
    assert len(why.headline(document)) == len(queues.headline(document)) + 1


# ---------------------------------------------------------------- why: queues


ONE_QUEUE, SEVERAL = Repeats(enumerate((0.08, 0.08, 0.08))), Repeats(enumerate((0.12, 0.15, 0.20)))


@pytest.mark.parametrize(
    ("p99_s", "range_s", "failed", "due_s", "good"),
    [
        (0.084, None, 0, ONE_QUEUE, True),
        (0.080, None, 1, ONE_QUEUE, False),
        (None, None, 0, ONE_QUEUE, False),
        (0.19, [0.12, 0.20], 0, SEVERAL, True),
        (0.19, [0.12, 0.20], 1, SEVERAL, False),
        (1.003, [0.12, 0.20], 0, SEVERAL, False),
        (0.080, [0.12, 0.20], 0, SEVERAL, False),  # several queues as good as one: it did not lose what it should
        (0.150, None, 0, Repeats(), False),  # how the kernel deals was not measured
    ],
)
def test_an_arrangement_counts_only_if_it_went_as_predicted(p99_s, range_s, failed, due_s, good):
    run = {"measured": {"failed": failed, "latency_s": {"p99": p99_s}}, "prediction": {"p99_range_s": range_s}}
    assert queues.as_predicted(run, due_s) == good


def test_one_queue_or_four_says_only_what_was_measured():
    document = finished("why")  # with even shares, no deal, and one p99 for all
    for said, changes in (
        ("prefers", {"inside__requests_of_workers": {"a": 76, "b": 52, "c": 42, "d": 30}}),
        ("no thread", {"measured__latency_s": {"median": 0.1, "p99": 0.9}}),
        ("earlier runs", {"prediction__p99_range_s": [0.1, 0.5]}),
    ):
        assert said not in " ".join(queues.headline(document))
        change(document, queues.FOUR.name, **changes)
        assert said in " ".join(queues.headline(document))
        assert not re.search(r" - m?s\b", " ".join(queues.headline(document)))


def test_one_queue_is_predicted_on_the_very_schedule_that_is_sent_and_several_are_worse():
    plan, _ = sweep.plan_for(queues.VARIANTS[0], why.SUITE.full, 0)
    assert plan.slots == queues.SLOTS and list(plan.load.schedule_s) == poisson_schedule(256, 1500, math.inf, 1)
    found = [queues.if_even(of, 1500) for of in ((16,), (8,) * 2, (4,) * 4, (1,) * 16)]
    assert found[0][1] == prediction_for(plan).p99_s
    assert all(a[1] < b[1] for a, b in itertools.pairwise(found)) and all(one[0] <= one[1] <= one[2] for one in found)


# ---------------------------------------------------------------- io, ab, books, limits: tables


def test_the_report_of_io_explains_a_second_round_by_the_split_and_only_where_there_is_one():
    document = finished("io")
    assert len(io.headline(document)) == 1
    shares = {"worker0": 50, "worker1": 48, "worker2": 1, "worker3": 1}
    change(document, "FastAPI /io", inside__requests_of_workers=shares, measured__measured_s=0.4,
           split_prediction={"makespan_s": 0.4}, measured__throughput_rps=250.0)  # fmt: skip
    rows = rows_of(sweep.render(document))
    assert rows["FastAPI /io"] == ["48.3", "500", "250", "250", "2 of 2"]
    assert rows["FastAPI /async-io : FastAPI /io"][1:] == ["1.00", "2.00", "2.00"]
    assert len(io.headline(document)) == 2 and "50 + 48 + 1 + 1" in sweep.render(document)
    change(document, "FastAPI /io", measured__measured_s=1.0)
    assert len(io.headline(document)) == 1  # the split does not explain that


def test_even_is_an_even_split_where_the_prediction_is_for_the_shares_of_the_kernel():
    document = finished("io")
    change(document, "FastAPI /io", prediction={"makespan_s": 0.4, "if_even": {"makespan_s": 0.2}})
    assert rows_of(sweep.render(document))["FastAPI /io"][1] == "500"


@pytest.mark.parametrize("name", ["books", "client"])
def test_what_was_pinned_is_what_the_runs_say(name):
    document = finished(name)
    document.machine["cpus"] = 8
    for shared, is_pinned in ((0, True), (8, False)):
        for entry in document.runs:
            entry["run"].setdefault("plan", {})["shared_cpus"] = shared
        assert bool(re.search("othing (was )?pinned", sweep.render(document))) != is_pinned


def test_the_published_figures_of_users_follow_from_their_slots():
    """Of what the post says alone: its users, requests, workers and wait."""
    plan, _ = sweep.plan_for(users.SUITE.variants[2], users.SUITE.full, 0)
    mean_s, published_s = prediction_for(plan).mean_s, users.PUBLISHED_DEF[1]
    assert plan.slots == 640 and mean_s == pytest.approx(published_s, rel=0.01)
    due = users.due_in(users.SUITE.full)
    assert due == pytest.approx(users.PUBLISHED_ANSWERED, rel=0.001)
    for workers in (1, 8, 32):
        assert users.due_before(60, 1, workers, 10_000) != pytest.approx(users.PUBLISHED_ANSWERED, rel=0.4)


def test_a_first_look_does_not_compare_other_users_with_the_post():
    document = finished("users")
    assert users.headline(document) == []
    document.values = users.SUITE.full
    assert users.headline(document)


def test_the_report_of_users_counts_a_blocked_loop_as_predicted_only_within_5_percent():
    document = finished("users")
    due = users.due_in(document.values)
    for answered, good in ((due, "2 of 2"), (0.93 * due, "0 of 2")):
        change(document, users.BLOCKED.name, measured__answered=answered)
        assert rows_of(sweep.render(document))[users.BLOCKED.name][3] == good


def test_a_tail_is_explained_by_the_listen_queue_only_where_it_overflowed():
    document = finished("ab")
    assert len(ab.headline(document)) == 1
    change(document, ab.DEVELOPMENT, measured__kernel={"ListenOverflows": 7, "TCPSynRetrans": 5})
    assert len(ab.headline(document)) == 1  # there is no tail
    change(document, ab.DEVELOPMENT, measured__latency_s={"median": 0.1, "p99": 7.0, "max": 7.5})
    assert len(ab.headline(document)) == 2
    assert rows_of(sweep.render(document))[ab.DEVELOPMENT][-2:] == ["7", "5"]
    first = next(iter(document.runs_of(ab.DEVELOPMENT, 500).values()))
    first["measured"]["kernel"] = {"ListenOverflows": 0}
    assert len(ab.headline(document)) == 1  # a repeat has the tail without an overflow


def test_the_report_of_books_compares_equal_slots_and_counts_in_the_database():
    report = sweep.render(finished("books"))
    rows = rows_of(report)
    assert rows["fanout, FastAPI"][1] == "60" and rows["fanout, FastAPI : fanout, Flask"][1:2] == ["3.75"]
    assert rows["fanout, FastAPI with 16 : fanout, Flask"][1] == "1.00"
    assert "2000 SQL statements for 2000 requests; 100 rows more for 100 POSTs" in report


@pytest.mark.parametrize(
    ("name", "changes", "good"),
    [
        ("B 40 + 15, n = 54", {"measured_s": 0.4}, True),
        ("B 40 + 15, n = 70", {"measured_s": 1.1, "failed": 25, "errors": {"HTTP 500": 25}}, True),
        ("B 40 + 15, n = 70", {"measured_s": 0.4, "failed": 25, "errors": {"HTTP 500": 25}}, False),
        ("B 40 + 15, n = 70", {"measured_s": 1.1, "failed": 28, "errors": {"HTTP 500": 25, "reset": 3}}, False),
        ("A /executor, 12 threads", {"measured_s": 0.92}, True),  # 9 rounds of 12 at a time
        ("A /executor, 12 threads", {"measured_s": 1.3}, False),
    ],
)
def test_a_limit_is_as_predicted_only_if_the_run_says_so(name, changes, good):
    document = finished("limits")
    change(document, name, **{f"measured__{key}": value for key, value in changes.items()})
    assert rows_of(sweep.render(document))[name][4] == ("2 of 2" if good else "0 of 2")


@pytest.mark.parametrize(
    ("case", "said"), [(limits.A_DEF, "at a time in a `def` handler"), (limits.C_4, "--threads does nothing")]
)
def test_the_headline_of_limits_says_only_what_went_as_predicted(case, said):
    document = finished("limits")
    assert said in " ".join(limits.headline(document))
    change(document, case.name, measured__measured_s=9.0)
    assert said not in " ".join(limits.headline(document))


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("io", "1.94 1.03 1.95 41 22 19 18 2.00"),
        ("ab", "48.2 8.22 103 7826 2825 649"),
        ("books", "3.74 3.75 3.45 1.16 0.870"),
        ("books-full", "3.74 3.75 3.23 1.12 0.821"),
        ("why", "82.7 634 7.79 83.4 34 74 465 149 157 0.502 1.50 1.56"),
        ("users", "13.1 13.6 518 767 4.89 2214 1.78 16.0 1904 1891"),
        ("limits", "40 6 0.443 2.31 5.08 5.09 1.02"),
        ("client", "1.01 4.03 4.37 0.866 27.6 24.5"),
    ],
)
def test_the_headline_figures_of_the_committed_sweeps(name, figures):
    document = sweep.read(EXAMPLES[0].with_name(f"sweep-{name}.json"))
    assert set(figures.split()) <= set(
        re.findall(r"[\d.]*\d", " ".join(sweep.SUITES[document.suite].headline(document)))
    )


# ---------------------------------------------------------------- client: other programs


@pytest.mark.parametrize(
    ("name", "output", "parsed"),
    [
        ("ab", "Complete requests:      5000\nFailed requests:        2\nNon-2xx responses:      3\n"
               "Requests per second:    179.68 [#/sec] (mean)\n", (179.68, 5000, 5)),
        ("wrk", "  1 threads and 50 connections\n  248611 requests in 2.00s, 40MB read\n"
                "  Socket errors: connect 1, read 0, write 0, timeout 2\nRequests/sec: 124305.60\n",
         (124305.60, 248611, 3)),
        ("locust", "         Aggregated      15431   1(0.01%) |      4       0      53      4 | 7709.66        0.50\n",
         (7709.66, 15431, 1)),
    ],
)  # fmt: skip
def test_the_output_of_other_load_generators_is_read(name, output, parsed):
    assert client.parse_output(client.TOOLS[name], output) == parsed
    for tool in (client.TOOLS[name], client.TOOLS["bench.py"]):
        with pytest.raises(Problem, match="killed"):
            client.parse_output(tool, "trying\nkilled\n")


@pytest.mark.parametrize("tool", ["bench.py", "locust"])
@pytest.mark.parametrize("kind", ["kept", "new"])
def test_a_client_of_this_python_loads_the_server_of_suite_client(tool, kind, tmp_path):
    if tool not in client.versions():
        pytest.skip(f"{tool} is not installed")
    document = begun("client")
    measured = client.run_tool(document, sweep.variants_of(document)[f"{tool}, {kind}"], 5, tmp_path)["measured"]
    assert measured["sent"] > 5 and measured["failed"] == 0
    assert measured["throughput_rps"] > 0 and measured["client_cpu_s"] > 0


def test_the_report_of_client_says_what_a_request_and_the_access_log_cost():
    document = finished("client")
    change(document, "FastAPI, uvicorn, access log", measured__throughput_rps=150.0, measured__server_cpu_s=0.03)
    rows = rows_of(sweep.render(document))
    assert rows["FastAPI, uvicorn"] == ["200", "200", "150", "300", "0.750"]
    assert rows["500"][:2] == ["locust" if "locust" in client.versions() else "bench.py", "1000"]


@pytest.mark.parametrize(("there", "sentences"), [(("bench.py",), 0), (("ab", "bench.py"), 2)])
def test_a_client_is_compared_with_ab_only_where_ab_is_installed(there, sentences, monkeypatch):
    suite = client.SUITE._replace(programs=lambda: dict.fromkeys(there, "1.0"))
    monkeypatch.setitem(sweep.SUITES, "client", suite)
    assert len(client.headline(finished("client"))) == sentences


def test_settings_reach_the_server_and_no_other_process():
    before, variant = dict(os.environ), sweep.variants_of(begun("limits"))["B 10 + 20, n = 29"]
    plan, _ = sweep.plan_for(variant, limits.SUITE.quick, 0)
    env = environment_for(plan.launch, Path("access.log"))
    assert (env["THREADS"], env["POOL_SIZE"], env["POOL_TIMEOUT"]) == ("10", "20", "1") and dict(os.environ) == before
