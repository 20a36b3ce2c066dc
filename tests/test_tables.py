"""The tables of a report: what is in which row, and never wider than 79 columns."""

import pytest

from engine import tables
from engine.access_log import AccessLog, LogLine
from engine.loads import Burst, Open
from engine.model import Service
from engine.run import Level
from engine.stats import statistics_of
from tests.samples import sample_columns, sample_prediction, sample_run

BURST = Burst(100).forecast(Service((40,)), 1.0)
MANY = statistics_of([0.001] * 1000)


def sample_log(rounds, slots=4):
    """A round a second, of so many requests."""
    starts_s = [i // slots for i in range(slots * rounds)]
    return AccessLog([LogLine(f"12:00:{at_s:02}", 7, "GET", "/io", "200", 1.0, "0", at_s) for at_s in starts_s], [])


@pytest.mark.parametrize(
    "rounds, slots, shown",
    [(0, 4, [0]), (3, 4, [4, 4, 4]), (1, 100, [10]), (3, 40, [10, 14]), (100, 1, [1] * 15), (2, 13, [10, 13])],
)
def test_log_shows_the_begin_of_two_batches_and_the_end(rounds, slots, shown):
    text = tables.log_table(sample_log(rounds, slots), wait_s=1.0)
    assert [block.count("[pid-worker0] GET /io") for block in text.split("\n\n")] == shown


@pytest.mark.parametrize(
    "answered_s, sizes", [([1.0, 1.01, 2.0, 2.1], [2, 1]), (range(1, 101), [9, *[10] * 9]), ([1], [])]
)
def test_batches_come_in_tenths_if_they_are_single_answers_and_never_with_a_failure(answered_s, sizes):
    failed = [None] * len(answered_s[1:]) + ["reset"]
    run = sample_run(exchanges=sample_columns(answered_s, error=failed))
    assert [len(batch) for batch in tables.batches(run)] == sizes


@pytest.mark.parametrize(
    "forecast, changes, rows",
    [
        (BURST, {"handler_started_s": [0.1, 1.0] * 2}, ["2 100 ms 1 s 1 s 10 1", "2 1 s 2 s 1 s 11 11"]),
        (None, {}, ["2 - 1 s - 0 0", "2 - 2 s - 0 0"]),
    ],
)
def test_batch_table_has_work_and_wait_and_the_prediction_before_the_run(forecast, changes, rows):
    run = sample_run(exchanges=sample_columns([1.0, 2.0] * 2, **changes))
    found = [line.split("|") for line in tables.batch_table(run, forecast).split("\n")[1:]]
    assert [" ".join([*row.split(), str(bar.count("#")), str(bar.count("."))]) for row, bar, _ in found] == rows


@pytest.mark.parametrize("changes", [{"exchanges": None}, {"latency_s": None}])
def test_without_answers_there_is_no_table(changes):
    run = sample_run(**changes, histogram=[])
    assert tables.batch_table(run, BURST) + tables.histogram_table(run) + tables.stage_table(run) == ""


@pytest.mark.parametrize(
    "table, of, column, expected",
    [
        (tables.figure_table, sample_run(split_prediction=sample_prediction(makespan_s=5.0)), -2, "last 4 5 4"),
        (tables.phase_table, sample_run(load=Open(16), lag_s=MANY, latency_s=MANY), 0, "ms total lag latency"),
        (
            tables.stage_table,
            sample_run(levels=[Level(50, 9, 3, 10.0, MANY), Level(9, 0, 9, 0.0, None)]),
            2,
            "failed 9 0",
        ),
        (tables.histogram_table, sample_run(histogram=[(0.001, 1), (0.002, 20)]), -1, f"|## |{'#' * 40}"),
        (tables.forecast_table, BURST, 0, "requests 40 40 20"),
        (tables.forecast_table, Open(50).forecast(Service((40,)), 1.0), 0, "request 0 5 10 15 20 25 30 35 40 45"),
    ],
)
def test_rows_of_a_table(table, of, column, expected):
    rows = table(of).split("\n")
    assert " ".join(row.split()[column] for row in rows) == expected and max(map(len, rows)) <= 79


def test_colour_changes_no_character():
    text = "verdict     As predicted.\nwarning     x\n         4  |...###  |"
    painted = tables.in_colour(text)
    assert "\033[1;33mwarning" in painted
    assert "".join(part.partition("m")[2] if i else part for i, part in enumerate(painted.split("\033["))) == text
