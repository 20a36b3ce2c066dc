"""The tests of sizing: slots for an objective, conditions for CI, the highest rate, and the suite that proves a size.

The servers here are slots.predict() on random arrivals, as exact as the theory; a CPU-bound one is a single slot.
"""

from __future__ import annotations

import doctest
import json
import re

import pytest

import load
import objectives
import slots
import suites.size
import sweep
from slots import highest_rate, pools_for, settings_for_slots, size
from test_sweep import fake_run, rows_of

# ---------------------------------------------------------------- the size


@pytest.mark.parametrize("module", [objectives, suites.size])
def test_the_examples_in_the_docstrings_hold(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("rate", "wait_s", "objective_s", "need"),
    [(256, 0.05, 0.1, 15), (256, 0.05, 0.06, 20), (1000, 0.05, 0.06, 59), (100, 0.2, 0.25, 27)],
)
def test_a_size_holds_its_objective_and_one_slot_fewer_does_not(rate, wait_s, objective_s, need):
    found = size(rate, wait_s, objective_s)
    assert (found.below.slots, found.fits.slots, found.above.slots) == (need - 1, need, need + 1)
    assert (found.below.holds, found.fits.holds, found.above.holds) == (False, True, True)
    assert found.fits.latency_s[99] <= objective_s < found.below.latency_s[99]
    exact_s = wait_s + slots.md_c_wait_quantile(rate, wait_s, need, 99)
    assert found.fits.latency_s[99] == pytest.approx(exact_s)


def simulated_s(rate: float, wait_s: float, slot_count: int, seed: int, percentile: float = 99) -> float:
    forecast = slots.predict(slots.poisson_schedule(rate, 20_000, seed=seed), slots.Service((slot_count,)), wait_s)
    latencies_s = sorted(b - a for a, b in zip(forecast.arrived_s, forecast.answered_s, strict=True))
    return slots.nearest_rank(latencies_s, percentile)


def test_what_a_size_promises_is_what_random_arrivals_get():
    found = size(256, 0.05, 0.1)
    for at in (found.fits, found.above):
        measured_s = sorted(simulated_s(256, 0.05, int(at.slots), seed) for seed in range(1, 6))
        assert measured_s[2] == pytest.approx(at.latency_s[99], rel=0.12)


def test_a_fifth_more_traffic_is_told_with_the_slots_that_it_needs():
    found = size(256, 0.05, 0.1)
    assert not found.more_traffic.holds and found.more_traffic.latency_s == {}  # 15.36 are busy, of 15
    assert found.slots_for_more == size(1.2 * 256, 0.05, 0.1).fits.slots == 18


def test_the_room_is_how_long_a_request_may_take_until_the_size_breaks():
    found = size(256, 0.05, 0.1)
    assert slots.slots_for(256, found.longest_s - 1e-5, 0.1) == 15
    assert slots.slots_for(256, found.longest_s + 1e-5, 0.1) == 16


def test_cpu_time_holds_the_slot_too_and_its_own_queue_counts():
    assert size(256, 0.05, 0.1, cpu_s=0.001, cpus=4).fits.slots == 16
    busy = size(900, 0.05, 0.1, cpu_s=0.001)
    assert busy.cpu_busy == pytest.approx(0.9)
    queue = slots.RandomArrivals(900, 0.001, 1)
    assert busy.fits.latency_s[99] >= 0.051 + queue.wait_quantile_s(99)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ((256, 0.05, 0.04), "no request is answered within 40 ms: each takes 50 ms by itself"),
        ((2000, 0.05, 0.1, 99, 0.001), "2000 requests/s need 2 CPUs of 1: no number of slots helps"),
        ((980, 0.05, 0.1, 99, 0.001), "the wait for a CPU alone brings p99 to"),
        ((0, 0.05, 0.1), "nothing needs a slot"),
        ((256, 0, 0.1), "nothing needs a slot"),
        ((1e6, 5, 6), "no more than 10000 slots can be computed"),
    ],
)
def test_what_is_impossible_is_said_with_the_reason(asked, why):
    with pytest.raises(slots.Problem, match=re.escape(why)):
        size(*asked)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("--rate 256 --wait 0.05 --p99 0.04", "each takes 50 ms by itself"),
        ("--rate 2000 --wait 0.05 --p99 0.1 --cpu 0.001", "need 2 CPUs of 1"),
        ("--rate 0 --wait 0.05 --p99 0.1", "argument --rate: '0' is not a number from 0.001"),
        ("--rate many --wait 0.05 --p99 0.1", "argument --rate: 'many' is not a number"),
        ("--rate 256 --wait 0.05 --p99 fast", "argument --p99: 'fast' is not a number"),
        ("--rate 256 --wait 0.05 --p99 0.1 --p95 0.1", "not allowed with argument --p99"),
        ("-n 100 --wait 0.05 --p99 0.1", "--p99 asks how many slots: with --rate"),
        ("--rate 256 --wait 0.05 --p99 0.1 --slots 16", "--p99 asks how many slots: with --rate"),
        ("--rate 256 --wait 0.05 --cpu 0.1", "--cpu and --cpus go with an objective"),
    ],
)
def test_the_command_answers_a_mistake_in_one_line(arguments, why, capsys):
    assert slots.main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("slots.py: ") and error.count("\n") == 1 and why in error


@pytest.mark.parametrize(
    "arguments", ["--rate 256 --wait 0.05 --p99 0.1", "--rate 1000 --wait 0.05 --p95 0.06 --cpu 0.001 --workers 4"]
)
def test_the_report_is_under_80_columns_and_names_every_kind_of_server(arguments, capsys):
    assert slots.main(arguments.split()) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) < 80
    for words in ("gunicorn -k gthread", "waitress-serve --threads", "total_tokens", "pool_size", "shared", "holds"):
        assert words in out


def test_settings_are_each_servers_own_words_and_say_which_queue_is_shared():
    one = {setting.server: setting for setting in settings_for_slots(15)}
    assert {setting.queue for setting in one.values()} == {"shared"}
    assert one["gunicorn threads"].settings == "gunicorn -k gthread --workers 1 --threads 15"
    four = {setting.server: setting for setting in settings_for_slots(15, 4, each_if_split=6)}
    assert four["gunicorn threads"].settings.endswith("--workers 4 --threads 4 --worker-connections 4")
    assert four["uvicorn, def"].queue == "split" and "total_tokens = 6" in four["uvicorn, def"].settings
    assert "no connection is kept" in four["gunicorn threads"].note
    of_waitress = {n: [s.settings for s in settings_for_slots(n) if s.server == "waitress"] for n in (49, 50)}
    assert "--connection-limit" not in of_waitress[49][0] and "--connection-limit 200" in of_waitress[50][0]


@pytest.mark.parametrize(
    ("slot_count", "words"), [(15, "In all 15, of the 97"), (97, "In all 97, of the 97"), (98, "more than the 97")]
)
def test_the_connections_to_postgres_are_counted_against_its_default(slot_count, words):
    assert words in pools_for(slot_count)


# ---------------------------------------------------------------- the highest rate


@pytest.mark.parametrize(
    ("slot_count", "wait_s", "objective_s", "cpu_s"),
    [(16, 0.05, 0.1, 0.0), (40, 0.05, 0.06, 0.0), (16, 0.05, 0.1, 0.002)],
)
def test_the_highest_rate_holds_and_a_hundredth_more_does_not(slot_count, wait_s, objective_s, cpu_s):
    rate = highest_rate(slot_count, wait_s, objective_s, cpu_s=cpu_s, cpus=2)
    for factor, holds in ((0.999, True), (1.01, False)):
        held_s = wait_s + cpu_s
        reached_s = held_s + slots.md_c_wait_quantile(factor * rate, held_s, slot_count, 99)
        assert (reached_s <= objective_s) is holds


def test_where_cpu_decides_the_highest_rate_is_that_of_one_server_queue():
    rate = highest_rate(4, 0.0, 0.005, cpu_s=0.001)
    assert 0.001 + slots.md_c_wait_quantile(rate, 0.001, 1, 99) == pytest.approx(0.005, rel=0.01)
    assert highest_rate(slots.NO_LIMIT, 0.0, 0.005, cpu_s=0.001) == pytest.approx(rate, rel=0.001)


def tried_by(rate: float, slot_count: int, wait_s: float, seed: int, duration_s: float = 10) -> objectives.Tried:
    """A run of a simulated server."""
    due_s = slots.poisson_schedule(rate, 20_000, duration_s, seed)
    forecast = slots.predict(due_s, slots.Service((slot_count,)), wait_s)
    latencies_s = sorted(b - a for a, b in zip(forecast.arrived_s, forecast.answered_s, strict=True))
    percentile_s = slots.nearest_rank(latencies_s, 99) or latencies_s[-1]
    return objectives.Tried(rate, percentile_s, len(latencies_s) / max(duration_s, *forecast.answered_s))


@pytest.mark.parametrize(
    ("slot_count", "wait_s", "objective_s", "guess", "within"),
    [
        (16, 0.05, 0.1, 1.0, 0.05),  # as predicted
        (16, 0.05, 0.1, 2.0, 0.05),  # predicted twice what it is
        (16, 0.05, 0.1, 0.7, 0.05),
        (1, 0.001, 0.005, 1.0, 0.1),  # CPU-bound
        (1, 0.001, 0.005, 1.3, 0.1),
    ],
)
def test_a_few_runs_close_in_on_the_highest_rate(slot_count, wait_s, objective_s, guess, within):
    true_rate, far = highest_rate(slot_count, wait_s, objective_s), 0
    for seed in range(10):
        tried: list[objectives.Tried] = []
        while not isinstance(found := objectives.next_rate(guess * true_rate, objective_s, tried), objectives.Found):
            tried.append(tried_by(found, slot_count, wait_s, 100 * seed + len(tried)))
        assert len(tried) == found.runs <= objectives.MOST_RUNS
        assert found.low <= found.rate <= found.high
        far += abs(found.rate / true_rate - 1) > within
    assert far <= 1  # the p99 of 10 s scatters, too


def test_a_rate_that_nothing_holds_or_everything_holds_has_an_end():
    for latency_s, rate in ((9.0, 0.0), (0.01, None)):
        tried: list[objectives.Tried] = []
        while not isinstance(found := objectives.next_rate(100, 0.1, tried), objectives.Found):
            tried.append(objectives.Tried(found, latency_s, found))
        assert len(tried) == objectives.MOST_RUNS
        assert found.rate == (rate if rate is not None else max(run.rate for run in tried))


def test_failed_requests_break_an_objective_however_fast_they_fail():
    assert not objectives.Tried(100, 0.001, 100, failed=1).holds(0.1)


# ---------------------------------------------------------------- conditions

RUN = {
    "latency_s": {"median": 0.05, "p90": 0.07, "p95": 0.08, "p99": 0.123, "p999": None, "mean": 0.06, "min": 0.05,
                  "max": 0.2},
    "measured_s": 10.0, "throughput_rps": 199.5, "sent": 2000, "answered": 1990, "failed": 10,
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("p99>0.1", "p99 is 123 ms, more than 100 ms (p99>0.1)"),
        ("p99 > 100ms", "p99 is 123 ms, more than 100 ms (p99 > 100ms)"),
        ("p99>0.2s", None),
        ("p50>=50ms", "p50 is 50 ms, not below 50 ms (p50>=50ms)"),
        ("failed>0", "failed is 10, more than 0 (failed>0)"),
        ("failed-share>1%", None),
        ("failed-share>0.1%", "failed-share is 0.50%, more than 0.10% (failed-share>0.1%)"),
        ("throughput<200", "throughput is 199.5, less than 200 (throughput<200)"),
        ("throughput<199", None),
        ("answered<2000", "answered is 1990, less than 2000 (answered<2000)"),
        ("p99.9>0.2", None),  # not known, but the longest of all is within it
        ("p99.9>0.15", "p99.9 is not known: 1990 answers are too few for it (p99.9>0.15)"),
        ("last>9", "last is 10 s, more than 9 s (last>9)"),
    ],
)
def test_a_condition_that_is_met_is_a_reason_with_the_figure(text, reason):
    assert objectives.failing(RUN, [objectives.parse_condition(text)]) == ([reason] if reason else [])


def test_several_conditions_give_a_line_each_in_their_order():
    lines = objectives.failing(RUN, [objectives.parse_condition(text) for text in ("failed>0", "p50>1", "p99>0.1")])
    assert [line.split()[0] for line in lines] == ["failed", "p99"]


def test_a_run_without_answers_holds_no_objective():
    run = RUN | {"latency_s": None, "answered": 0}
    assert objectives.failing(run, [objectives.parse_condition("p99>0.1")]) == [
        "p99 is not known: 0 answers are too few for it (p99>0.1)"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p99", "is no condition like p99>0.1"),
        ("p99>fast", "is no condition like"),
        ("p98>1", "'p98' is no figure of a run; there are p50,"),
        ("p99>5%", "p99 is not measured in %"),
        ("throughput<200ms", "throughput is not measured in ms"),
        ("", "is no condition like"),
    ],
)
def test_a_condition_that_is_none_is_answered_in_a_line(text, message):
    with pytest.raises(slots.Problem, match=re.escape(message)):
        objectives.parse_condition(text)


# ---------------------------------------------------------------- the suite

ASKED = {"rate": 256.0, "wait_s": 0.05, "objective_s": 0.1, "percentile": 99, "cpu_s": 0.0}


def proven(p99_of: dict[int, float], repeats: int = 5) -> dict:
    """A document of suite size whose runs measured that, by slots."""
    document = sweep.new_document("size", False, repeats, 1, "sweep.py size", asked=ASKED)
    for name, c, repeat in document["order"]:
        variant = sweep.variant_named(document, name)
        p99_s = p99_of[int(name.split()[-2])]
        latency = {"median": 0.05, "p95": 0.09, "p99": p99_s, "max": 2 * p99_s}
        plan, _ = sweep.plan_of(document, variant, c, repeat)
        run = fake_run(plan, latency_s=latency)
        document["runs"].append({"variant": name, "concurrency": c, "repeat": repeat, "wall_s": 1.0, "run": run})
    return document


def test_each_server_is_proven_below_at_and_above_the_size_on_its_own_schedules():
    document = sweep.new_document("size", False, 5, 1, "", asked=ASKED)
    plans = {name: sweep.plan_of(document, sweep.variant_named(document, name), c, repeat)[0]
             for name, c, repeat in document["order"]}  # fmt: skip
    assert len(plans) == 9 and len(document["order"]) == 45
    for name, plan in plans.items():
        slot_count = int(name.split()[-2])
        assert slot_count in (10, 16, 22) and plan.traffic.pace.rate == 256 and plan.wait_s == 0.05
        if name.startswith("uvicorn"):
            assert ("THREADS", str(slot_count)) in plan.launch.env
        else:
            assert plan.slots == slot_count
    variant = sweep.variant_named(document, "waitress, 16 slots")
    schedules = {repeat: sweep.plan_of(document, variant, 0, repeat)[0].traffic.pace.schedule for repeat in (1, 2)}
    assert schedules[1] != schedules[2]
    assert list(schedules[2]) == list(load.poisson_schedule(256, float("inf"), 10, 2))


def test_the_report_of_size_puts_predicted_and_measured_side_by_side():
    document = proven({10: 2.0, 16: 0.085, 22: 0.06})
    rows = [row for row in sweep.render(document).splitlines() if row.startswith("| waitress")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[1] for row in cells] == ["10 (a third fewer)", "16 (the size)", "22 (a third more)"]
    assert [row[-1] for row in cells] == ["0 of 5", "5 of 5", "5 of 5"]
    assert cells[0][2] == "grows" and float(cells[1][2]) < 100
    assert all("(" in row[3] for row in cells)  # each repeat has its own prediction
    assert rows_of(sweep.render(document))["gunicorn, threads"]


def test_a_size_that_breaks_or_fails_is_not_counted_as_holding():
    document = proven({10: 2.0, 16: 0.11, 22: 0.06})
    for entry in document["runs"]:
        entry["run"]["failed"] = int(entry["variant"] == "waitress, 22 slots")
    (line,) = suites.size.headline(document)
    assert "10 slots (a third fewer) held in 0 of 15 runs" in line
    assert "16 slots (the size) held in 0 of 15" in line and "22 slots (a third more) held in 10 of 15" in line


def test_the_picture_of_size_has_the_objective_as_a_line(tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "a.json"
    sweep.save(proven({10: 2.0, 16: 0.085, 22: 0.06}), file)
    assert sweep.main(["report", str(file), "--pictures", str(tmp_path)]) == 0
    svg = (tmp_path / "a-slots.svg").read_text()
    assert "objective 100 ms" in svg and "predicted, in the long run" in svg


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("size --rate 256 --wait 0.05", "size needs --rate, --wait and one of --p99, --p95, --p50"),
        ("size --rate 256 --wait 0.05 --p99 0.1 --p50 0.1", "size needs --rate, --wait and one of"),
        ("size --rate 256 --wait 0.05 --p99 0.04", "each takes 52 ms by itself"),
        ("size --rate 0 --wait 0.05 --p99 0.1", "argument --rate: '0' is not a number"),
        ("size --rate 400 --wait 0.05 --p99 0.1 --cpu 0.003", "need 2 CPUs of 1"),
    ],
)
def test_a_size_that_cannot_be_proven_is_answered_in_a_line(arguments, message, capsys):
    assert sweep.main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("sweep.py: ") and error.count("\n") == 1 and message in error


def test_a_document_of_size_reads_back_as_it_was(tmp_path):
    document = proven({10: 2.0, 16: 0.085, 22: 0.06}, 2)
    sweep.save(document, tmp_path / "a.json")
    assert sweep.read(tmp_path / "a.json") == json.loads(json.dumps(document)) | {"order": document["order"]}
