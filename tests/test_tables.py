"""The tables of a report: what is in which row, and never wider than 79 columns."""

import pytest

from engine import tables
from engine.access_log import AccessLog, LogLine
from engine.loads import Burst, Open
from engine.model import Forecast, Service
from engine.run import Level
from engine.stats import histogram, statistics_of
from tests.samples import sample_columns, sample_prediction, sample_run, sample_statistics


def sample_log(rounds: int) -> AccessLog:
    """Four requests a round, a second after the round before."""
    lines = [
        LogLine(f"12:00:{i // 4:02}", 100 + i % 4, "GET", "/io", "200", 1.0, str(i), i // 4 + 0.001 * (i % 4))
        for i in range(4 * rounds)
    ]
    return AccessLog(lines, [])


def test_log_has_a_line_for_each_request_and_a_blank_line_between_batches() -> None:
    rows = tables.log_table(sample_log(3), wait_s=1.0).split("\n")
    assert [bool(row) for row in rows] == [*[True] * 4, False, *[True] * 4, False, *[True] * 4]
    assert rows[0] == "  [12:00:00] [pid-worker0] GET /io" == tables.live_line(sample_log(1).lines[0], "worker0")


def test_long_log_shows_its_first_and_last_lines() -> None:
    shown = tables.log_table(sample_log(100), wait_s=1.0)
    assert shown.count("GET") < 30 and "12:00:00" in shown and "12:00:99" in shown and "382 more" in shown


def test_batches_of_a_burst() -> None:
    found = tables.batches(sample_run())
    assert [(batch.requests, batch.answered_s) for batch in found] == [
        (list(range(4 * k, 4 * k + 4)), k + 1.0) for k in range(4)
    ]
    assert [(batch.started_s, batch.predicted_s) for batch in found] == [(None, k + 1.0) for k in range(4)]
    assert tables.batches(sample_run(wait_s=None))[0].predicted_s is None


def test_batches_know_when_they_started_and_were_due_and_leave_out_failures() -> None:
    columns = sample_columns(
        [1.0, 1.01, 2.0, 2.5], error=[None, None, None, "reset"], handler_started_s=[0.0, 0.01, 1.0, None]
    )
    found = tables.batches(sample_run(exchanges=columns))
    assert found == [tables.Batch([0, 1], 0.0, 1.01, 1.0), tables.Batch([2], 1.0, 2.0, 1.0)]  # 4 slots: all due at 1 s


def test_answers_one_by_one_are_shown_in_tenths() -> None:
    run = sample_run(exchanges=sample_columns([0.1 + 0.1 * i for i in range(100)]), wait_s=0.1)
    assert [len(batch.requests) for batch in tables.batches(run)] == [10] * 10
    few = sample_run(exchanges=sample_columns([0.1 + 0.1 * i for i in range(10)]), wait_s=0.1)
    assert [len(batch.requests) for batch in tables.batches(few)] == [1] * 10


@pytest.mark.parametrize("exchanges", [None, sample_columns([])])
def test_no_answers_make_no_table(exchanges: object) -> None:
    assert tables.batch_table(sample_run(exchanges=exchanges)) == ""


def test_bar_shows_the_wait_and_the_work() -> None:
    columns = sample_columns([1.0, 2.0], handler_started_s=[0.0, 1.0])
    _, first, second = tables.batch_table(sample_run(exchanges=columns)).split("\n")
    assert {len(first), len(second)} == {79}
    assert first.count("#") == second.count(".") == 10 and second.count("#") == 11


def test_figures_predicted_and_measured() -> None:
    head, predicted, measured = tables.figure_table(sample_run(throughput_rps=3.9)).split("\n")
    assert {len(head), len(predicted), len(measured)} == {76}
    assert predicted.split() == ["predicted", "4", "2500", "2500", "-", "-", "4", "s"]
    assert measured.split()[1:4] == ["3.9", "2500", "2500"]
    split = sample_run(split_prediction=sample_prediction(makespan_s=5.0))
    assert "5 s" in tables.figure_table(split).split("\n")[2]
    assert tables.figure_table(sample_run(latency_s=None)) == ""


def test_phases_leave_out_what_takes_no_time() -> None:
    names = [row.split()[0] for row in tables.phase_table(sample_run()).split("\n")]
    assert names == ["ms", "total"]
    lag = statistics_of([0.001] * 1000)
    scheduled = sample_run(load=Open(16, rate_rps=4.0), lag_s=lag, latency_s=lag)
    names = [row.split()[0] for row in tables.phase_table(scheduled).split("\n")]
    assert names == ["ms", "total", "lag", "latency"] and "p99.9" in tables.phase_table(scheduled)


def test_stages_and_histogram() -> None:
    levels = [Level(50, 100, 3, 10.0, sample_statistics()), Level(200, 0, 9, 0.0, None)]
    rows = tables.stage_table(sample_run(levels=levels)).split("\n")
    assert rows[1].split()[:5] == ["to", "50", "100", "3", "10.0"] and len(rows) == 3
    rows = tables.histogram_table(sample_run(histogram=histogram([0.001, 0.002, 0.002]))).split("\n")
    assert [row.count("#") for row in rows] == [20, 40]
    assert tables.histogram_table(sample_run(histogram=[])) == tables.stage_table(sample_run()) == ""


def test_forecast_in_rounds_or_tenths() -> None:
    burst = tables.forecast_table(Burst(100).forecast(Service((40,)), 1.0)).split("\n")
    assert [row.split()[0] for row in burst] == ["requests", "40", "40", "20"]
    scheduled = tables.forecast_table(Open(100, rate_rps=10.0).forecast(Service((40,)), 1.0)).split("\n")
    assert [row.split()[0] for row in scheduled[1:]] == [str(n) for n in range(0, 100, 10)]
    assert len(tables.forecast_table(Forecast([0.0, 1.0], [0.0, 1.0], [1.0, 2.0])).split("\n")) == 3


def test_colour_changes_no_character() -> None:
    text = "verdict     As predicted.\nwarning     x\n         4  0-3 |...###  |"
    painted = tables.in_colour(text)
    assert painted != text and "\033[1;33mwarning" in painted
    plain = "".join(part.partition("m")[2] if i else part for i, part in enumerate(painted.split("\033[")))
    assert plain == text
