"""The tests of suite why's newer parts, of headlines, of files changed by hand, and of the pictures of single runs.

No server is started: documents and runs are made up, as if they had gone as predicted.
"""

from __future__ import annotations

import copy
import doctest
import itertools
import json
import math
import random
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bench
import explain
import load
import slots
import sweep
from suites import experiments, pictures_of_runs, proxy, queues, why
from test_sweep import EXAMPLES, change, fake_run, finished, rows_of, write

HERE = Path(__file__).parent
WHY = sweep.SUITES["why"]


@pytest.mark.parametrize("module", [experiments, pictures_of_runs, proxy, queues])
def test_the_examples_in_the_docstrings_hold(module):
    assert doctest.testmod(module).failed == 0


# ---------------------------------------------------------------- response model, and beyond the knee


def timed(measured_s: float, predicted_s: float, first_s: float = 0.0, failed: int = 0) -> dict:
    return {"measured_s": measured_s, "predicted_s": predicted_s, "wait_s": 0.5, "latency_s": {"min": first_s},
            "failed": failed}  # fmt: skip


@pytest.mark.parametrize(
    ("expects", "before", "after", "good"),
    [
        ("first", timed(1.52, 1.5, 0.52), timed(1.53, 1.5, 1.52), True),
        ("first", timed(1.52, 1.5, 0.52), timed(1.53, 1.5, 0.52), False),  # the annotation changed nothing
        ("first", timed(1.52, 1.5, 1.52), timed(1.53, 1.5, 1.52), False),  # it was so before
        ("first", timed(1.52, 1.5, 0.52), timed(3.0, 1.5, 1.52), False),  # the last is later than predicted
        ("first", timed(1.52, 1.5, 0.52), timed(1.53, 1.5, 1.52, failed=1), False),
        ("ratio", timed(4.0, 3.0), timed(4.2, 3.0), True),  # slower than predicted, but both by as much
        ("ratio", timed(4.0, 3.0), timed(2.1, 1.5), True),
        ("ratio", timed(4.0, 3.0), timed(2.0, 3.0), False),  # twice the threads bought something
        ("ratio", timed(4.0, 3.0), timed(3.0, 1.5), False),  # two processes bought too little
    ],
)
def test_the_newer_experiments_count_only_if_they_went_as_predicted(expects, before, after, good):
    assert why.as_predicted(expects, before, after) is good


def test_what_the_settings_predict_of_the_newer_experiments_is_what_the_closed_forms_say():
    document = sweep.new_document("why", False, 1, 1, "")
    due = {one.name: experiments.predicted_s(document, one) for one in experiments.asked(document)}
    t, k, rate_of_one_cpu = float(WHY.full["t"]), int(WHY.full["k"]), 1 / 0.005
    assert due["response model"] == pytest.approx((t, 3 * t))
    assert due["threads beyond the knee"] == pytest.approx((k / rate_of_one_cpu,) * 2, rel=0.05)
    ratio = due["processes beyond the knee"][0] / due["processes beyond the knee"][1]
    assert ratio == pytest.approx(2, rel=0.05)
    assert slots.knee_slots(0.05, 0.005, 1) == pytest.approx(11)


def test_two_experiments_that_share_a_setting_share_its_run():
    names = [name for one in experiments.EXPERIMENTS for name in experiments.names_of(one)]
    assert len(set(names)) == len(names) - 1
    assert len({variant.name for variant in WHY.variants}) == len(WHY.variants)


def test_the_report_tells_the_first_answer_and_the_last_of_the_response_model():
    document = finished("why")
    change(document, "response model, before", latency_s={"min": 0.21})
    change(document, "response model, after", latency_s={"min": 0.61})
    report = sweep.render(document)
    assert rows_of(report)["response model"][-1] == "2 of 2"
    assert "Predicted: the first answer at 0.2 s -> 0.6 s, the last at 0.6 s -> 0.6 s." in report
    assert "Happened: the first answer at 0.210 s (0.210-0.210) -> 0.610 s (0.610-0.610), the last at 0.600 s" in report


# ---------------------------------------------------------------- one queue or four


def loaded(p99_s: float | None, given_split_s: float | None = None, failed: int = 0) -> dict:
    return {"latency_s": {"p99": p99_s}, "split_prediction": {"p99_s": given_split_s}, "failed": failed}


ONE_QUEUE = queues.Predicted(0.05, 0.080, 0.080, 0.080)
SEVERAL = queues.Predicted(0.05, 0.150, 0.120, 0.200)


@pytest.mark.parametrize(
    ("run", "predicted", "good"),
    [
        (loaded(0.084), ONE_QUEUE, True),
        (loaded(0.093), ONE_QUEUE, False),
        (loaded(0.067), ONE_QUEUE, False),
        (loaded(0.080, failed=1), ONE_QUEUE, False),
        (loaded(None), ONE_QUEUE, False),
        (loaded(0.150, 0.140), SEVERAL, True),
        (loaded(1.003, 0.950), SEVERAL, True),  # worse than at random, and the split says why
        (loaded(1.003, 0.400), SEVERAL, False),
        (loaded(0.080, 0.080), SEVERAL, False),  # several queues as good as one: it did not lose what it should
        (loaded(0.150), SEVERAL, False),  # nobody knows the split
    ],
)
def test_an_arrangement_counts_only_if_it_went_as_predicted(run, predicted, good):
    assert queues.as_predicted(run, predicted) is good


def test_one_queue_is_predicted_on_the_very_schedule_that_bench_sends():
    document = sweep.new_document("why", False, 1, 1, "")
    for arrangement in queues.ARRANGEMENTS:
        variant = sweep.variant_named(document, arrangement.name)
        plan, _ = sweep.plan_of(document, variant, 0)
        described = explain.describe(plan)
        assert described["slots"] == queues.SLOTS and described["mode"] == "open"
        assert list(plan.traffic.pace.schedule) == list(load.poisson_schedule(256, 1500, math.inf, 1))
        if arrangement.name in ("16 sync workers", queues.ONE):
            assert queues.predicted(arrangement.queues, 1500).p99_s == described["prediction"]["p99_s"]


def test_the_more_queues_the_worse_and_the_same_each_time():
    found = [queues.predicted(of, 1500) for of in ((16,), (8,) * 2, (4,) * 4, (1,) * 16)]
    assert all(a.p99_s < b.p99_s for a, b in itertools.pairwise(found))
    assert all(one.low_s <= one.p99_s <= one.high_s for one in found)
    queues.predicted.cache_clear()
    assert queues.predicted((4,) * 4, 1500) == found[2]


def measured_queues() -> dict:
    """A document in which each arrangement did what is predicted for it."""
    document = finished("why")
    for arrangement in queues.ARRANGEMENTS:
        p99_s = queues.predicted(arrangement.queues, int(document["values"]["m"])).p99_s
        change(document, arrangement.name, latency_s={"median": 0.05, "p99": p99_s}, split_prediction={"p99_s": p99_s})
    return document


def test_the_report_puts_predicted_and_measured_p99_of_each_arrangement_side_by_side():
    document = measured_queues()
    report = sweep.render(document)
    rows = rows_of(report)
    for arrangement in queues.ARRANGEMENTS:
        found = queues.predicted(arrangement.queues, int(document["values"]["m"]))
        count, p50, predicted_ms, given_split, measured, good = rows[arrangement.name]
        assert (count, p50, good) == (str(len(arrangement.queues)), "50.0 (50.0-50.0)", "2 of 2")
        assert predicted_ms.split()[0] == measured.split()[0] == f"{found.p99_s * 1000:#.3g}".rstrip(".")
        assert bool(given_split) == ("(" in predicted_ms) == (len(arrangement.queues) > 1)
    assert report.count("as predicted in all 2 repeats. So who is in a long queue stays there") == 1
    assert "rest in the kernel's one queue" in report


def test_the_price_of_the_flag_is_counted_in_connections_opened():
    document = measured_queues()
    change(document, f"{queues.FOUR}, kept", sockets_opened=20, requests=200)
    change(document, f"{queues.FOUR_AS_ONE}, behind nginx", connections=200, requests=200, latency_s={"p99": 0.09})
    rows = rows_of(sweep.render(document))
    assert rows[f"{queues.FOUR}, kept"][:2] == ["20", "0.100 (0.100-0.100)"]
    assert rows[f"{queues.FOUR_AS_ONE}, behind nginx"] == ["200", "1.00 (1.00-1.00)", "90.0 (90.0-90.0)"]


def test_without_nginx_its_rows_say_so_and_all_else_is_run(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    document = finished("why")
    names = {name for name, _, _ in document["order"]}
    assert names == {variant.name for variant in WHY.variants if not variant.program}
    rows = rows_of(sweep.render(document))
    assert [rows[variant.name][0] for variant in proxy.BEHIND] == ["nginx not installed"] * 2


def test_before_a_run_every_experiment_and_arrangement_is_predicted():
    lines = WHY.foretell(sweep.new_document("why", True, 1, 1, ""))
    names = [one.name for one in (*experiments.EXPERIMENTS, *queues.ARRANGEMENTS)]
    assert [line.partition(": ")[0] for line in lines] == [f"predicted  {name}" for name in names]
    assert all(re.search(r"\d", line.partition(": ")[2]) or "overflows" in line for line in lines)


def test_an_older_file_without_the_newer_experiments_is_reported_as_it_was():
    document = finished("why")
    newer = {variant.name for variant in (*queues.VARIANTS, *proxy.VARIANTS)} | {"response model, before"}
    document["order"] = [cell for cell in document["order"] if cell[0] not in newer]
    document["runs"] = [entry for entry in document["runs"] if entry["variant"] not in newer]
    document["predictions"] = {name: s for name, s in document["predictions"].items() if name not in newer}
    document["values"] = {name: value for name, value in document["values"].items() if name != "m"}
    report = sweep.render(document)
    assert "workers" in rows_of(report) and not {"response model", queues.FOUR} & rows_of(report).keys()
    assert WHY.foretell(document)


# ---------------------------------------------------------------- headlines


def figures_in(text: str) -> set[str]:
    return set(re.findall(r"\d+(?:\.\d+)?", text))


SETTINGS = {"4", "16", "40", "60", "100", "120", "500"}  # of what was asked, not measured


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_a_headline_of_a_committed_sweep_holds_only_figures_of_its_tables(file):
    document = sweep.read(file)
    suite = sweep.suite_of(document)
    assert figures_in(" ".join(suite.headline(document))) - SETTINGS <= figures_in(suite.tables(document))


@pytest.mark.parametrize("name", ["io", "ab", "books", "client", "why"])
def test_a_headline_stands_under_the_title_and_holds_only_figures_of_the_tables(name):
    document = measured_queues() if name == "why" else finished(name)
    change(document, "Flask, development server", kernel={"ListenOverflows": 7, "TCPSynRetrans": 5})
    change(document, "response model, before", latency_s={"min": 0.21})
    change(document, "response model, after", latency_s={"min": 0.61})
    suite = sweep.SUITES[name]
    headline = " ".join(suite.headline(document))
    found = figures_in(headline) - SETTINGS
    assert len(found) >= 3 and found <= figures_in(suite.tables(document))
    assert sweep.render(document).split("\n\n")[1] == headline


@pytest.mark.parametrize("name", ["io", "ab", "books", "client", "why"])
def test_a_sweep_that_has_just_begun_has_no_headline(name):
    document = finished(name)
    assert sweep.SUITES[name].headline(document | {"runs": []}) == []


def test_a_full_sweep_is_not_said_to_be_shortened_because_its_suite_has_grown():
    document = finished("io") | {"quick": False, "values": {"n": "100"}}
    assert "shortened" not in sweep.render(document)


# ---------------------------------------------------------------- files changed by hand

ODD = (None, "x", -1, 0, [], {}, math.nan, [None], True)


def places(value: object, path: tuple = ()) -> list[tuple]:
    """The path of everything in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, inner in items for place in places(inner, (*path, key))]


def changed_by_hand(document: dict, dice: random.Random) -> dict:
    """One thing deleted, or replaced by something odd."""
    document = copy.deepcopy(document)
    *way, last = dice.choice(places(document))
    inner = document
    for key in way:
        inner = inner[key]
    if dice.random() < 0.5:
        del inner[last]
    else:
        inner[last] = dice.choice(ODD)
    return document


@pytest.mark.parametrize("name", sweep.SUITES)
def test_a_report_on_a_file_changed_by_hand_is_a_report_or_one_line(name, tmp_path, capsys):
    document, dice = json.loads(json.dumps(finished(name, 1))), random.Random(name)
    for entry in document["runs"][3:]:  # what deep changes hit is in the first ones
        entry["run"]["answered_s"] = []
    codes = set()
    for _ in range(25):
        file = write(tmp_path / "a.json", changed_by_hand(document, dice))
        code = sweep.main(["report", file, "--csv", str(tmp_path / "a.csv")])
        out, err = capsys.readouterr()
        assert code in (0, 2) and "Traceback" not in err
        assert (code == 0) == out.startswith("## Suite") == (err == "")
        assert code == 0 or (err.startswith("sweep.py: ") and err.count("\n") == 1)
        codes.add(code)
    assert 2 in codes


def test_the_line_names_the_file_and_what_is_missing(tmp_path, capsys):
    document = finished("io")
    del document["runs"][0]["run"]["split_predicted_s"]
    file = write(tmp_path / "by_hand.json", document)
    assert sweep.main(["report", file]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "by_hand.json is not a file of this sweep.py" in err and "KeyError" in err


# ---------------------------------------------------------------- pictures of single runs

LOADS = {
    "closed": "-c 32 -n 300",
    "with think time": "-c 20 -n 300 --think 0.1",
    "constant": "--rate 384 -t 1",
    "poisson": "--rate 256 --arrivals poisson --seed 3 -n 300",
    "ramp": "--ramp 1s:30,1s:5",
}


def run_as_predicted(arguments: str, target: str = "flask-waitress --threads 16", **changes) -> dict:
    """A run with its raw times, each request answered as predicted."""
    line = f"--target {target} --path /io --task-time 0.05 {arguments}"
    plan = bench.make_plans(bench.parse_arguments(line.split()))[0]
    forecast = explain.forecast_of(plan)
    sent = len(forecast.arrived_s)
    exchanges = {
        "started_s": list(forecast.arrived_s), "answered_s": list(forecast.answered_s), "status": [200] * sent,
        "error": [None] * sent, "worker": ["worker0"] * sent, "handler_started_s": list(forecast.started_s),
        "sent_s": list(forecast.arrived_s), "predicted_answered_s": list(forecast.answered_s),
    }  # fmt: skip
    run = fake_run(
        plan, max(forecast.answered_s), sent=sent, exchanges=exchanges, requests_of_workers={"worker0": sent}
    )
    return run | changes


@pytest.mark.parametrize("arguments", LOADS.values(), ids=LOADS)
def test_a_run_that_went_as_predicted_has_its_dots_on_its_prediction(arguments):
    run = run_as_predicted(arguments)
    good, failed = pictures_of_runs.measured(run)
    assert failed == [] and len(good) == run["sent"] > 100
    assert sum(pictures_of_runs.predicted(run), ()) == pytest.approx(sum(good, ()))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.1, 2), st.integers(0, 12)), min_size=1, max_size=4),
    st.integers(1, 5), st.floats(0.01, 0.3), st.sampled_from([0.0, 0.07]),
)  # fmt: skip
def test_when_users_send_can_be_told_from_when_they_are_answered(stages, each, wait_s, think_s):
    forecast = slots.predict_users(stages, slots.Service((each,)), wait_s, think_s=think_s)
    run = {"server": "waitress", "keep_alive": False, "stages": stages, "concurrency": None, "think_s": think_s,
           "time_limit_s": None}  # fmt: skip
    assert pictures_of_runs.sent_by_users(forecast.answered_s, run) == pytest.approx(forecast.arrived_s)


def test_kept_connections_that_the_server_does_not_serve_send_nothing():
    run = run_as_predicted("-c 160 -n 400 -k")
    sent = pictures_of_runs.sent_by_users(run["exchanges"]["predicted_answered_s"], run)
    assert sent.count(0.0) == 100 and sent == pytest.approx(run["exchanges"]["started_s"])


@pytest.mark.parametrize(
    ("run", "points"),
    [
        ({"rate_rps": None, "exchanges": {"started_s": [0.0, 1.0], "answered_s": [0.5, 1.5], "status": [200, 200],
                                          "error": [None, None]}}, ([(0.0, 0.5), (1.0, 0.5)], [])),
        ({"rate_rps": 2.0, "arrivals": "constant",  # what left late counts from when it was due
          "exchanges": {"started_s": [0.0, 0.9], "answered_s": [0.5, 1.5], "status": [200, 200],
                        "error": [None, None]}}, ([(0.0, 0.5), (0.5, 1.0)], [])),
        ({"rate_rps": None, "exchanges": {"started_s": [0.0, 1.0, 2.0], "answered_s": [0.5, 1.5, None],
                                          "status": [503, 0, 0], "error": [None, "timed out", "interrupted"]}},
         ([], [(0.0, 0.5), (1.0, 0.5)])),
    ],
)  # fmt: skip
def test_a_dot_is_a_request_from_when_it_was_due_and_failed_ones_are_apart(run, points):
    assert pictures_of_runs.measured(run) == points


def drawn(tmp_path: Path, *runs: dict) -> dict[str, str]:
    """The SVG files of a document of bench.py --json with these runs, by their names."""
    pytest.importorskip("matplotlib")
    file = write(tmp_path / "run.json", {"runs": runs})
    assert sweep.main(["picture", file, "--pictures", str(tmp_path / "out")]) == 0
    return {path.stem: path.read_text() for path in (tmp_path / "out").glob("*.svg")}


@pytest.mark.parametrize(
    ("arguments", "caption"),
    [
        (LOADS["closed"], "32 users, closed loop; 300 requests; 16 slots of 50 ms"),
        (LOADS["constant"], "384 requests/s, constant arrivals; 384 requests; 16 slots of 50 ms"),
        (LOADS["poisson"], "256 requests/s, Poisson arrivals; 300 requests; 16 slots of 50 ms"),
        (LOADS["ramp"], "users to 30 in 1 s, 5 in 1 s; "),
    ],
)
def test_the_picture_of_a_load_says_which_and_has_predicted_and_measured(arguments, caption, tmp_path):
    ((name, svg),) = drawn(tmp_path, run_as_predicted(arguments)).items()
    assert name == "run-flask-waitress-io-latencies"
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert any(caption in text for text in texts) and {"predicted", "measured"} <= set(texts)


def test_a_run_without_a_prediction_has_dots_only(tmp_path):
    run = run_as_predicted(LOADS["closed"])
    del run["exchanges"]["predicted_answered_s"], run["exchanges"]["worker"], run["slots"], run["wait_s"]
    (svg,) = drawn(tmp_path, run).values()
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert "measured" in texts and "predicted" not in texts


def test_failed_requests_are_marked_and_a_tail_gets_a_log_scale(tmp_path):
    run = run_as_predicted(LOADS["closed"])
    run["exchanges"]["status"][7], run["exchanges"]["answered_s"][9] = 503, 7.0
    (svg,) = drawn(tmp_path, run).values()
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert "failed" in texts and "latency, ms (log scale)" in texts


def test_a_burst_keeps_its_waterfall_and_each_run_has_its_picture(tmp_path):
    burst, ramp = run_as_predicted("-n 32"), run_as_predicted(LOADS["ramp"], target="flask-gunicorn")
    assert set(drawn(tmp_path, burst, ramp)) == {"run-flask-waitress-io-waterfall", "run-flask-gunicorn-io-latencies"}


def test_a_hundred_thousand_requests_make_a_small_file(tmp_path):
    (svg,) = drawn(tmp_path, run_as_predicted("-c 40 -n 100000")).values()
    assert 10_000 < len(svg) < 1_000_000


def test_a_damaged_run_is_answered_in_one_line(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    run = run_as_predicted(LOADS["closed"])
    del run["mode"]
    file = write(tmp_path / "run.json", {"runs": [run]})
    assert sweep.main(["picture", file, "--pictures", str(tmp_path)]) == 2
    run |= {"mode": "closed", "concurrency": "many"}
    assert sweep.main(["picture", write(tmp_path / "run.json", {"runs": [run]}), "--pictures", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 2
