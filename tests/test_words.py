"""Numbers and times as text, beyond the examples in the docstrings."""

import math

import pytest

from engine import words


@pytest.mark.parametrize(
    ("value_s", "text"),
    [(0.9994, "999 ms"), (0.9996, "1 s"), (0.0000012, "0.0012 ms"), (59.996, "60 s"), (math.inf, "never"),
     (math.nan, "-"), (-0.05, "-50 ms")],
)  # fmt: skip
def test_a_time_keeps_its_digits_and_changes_its_unit_at_a_second(value_s, text):
    assert words.duration(value_s) == text


@pytest.mark.parametrize("text", ["a b " * 100, "word", "", "x" * 200, "uvicorn-with-a-hyphen " * 9])
def test_a_section_loses_no_word_and_keeps_its_margin(text):
    lines = words.section("name", text).split("\n")
    assert lines[0].startswith("name ") and all(line.startswith(" " * words.MARGIN) for line in lines[1:])
    assert " ".join(line[words.MARGIN :] for line in lines).split() == text.split()
    assert all(len(line) <= words.COLUMNS or len(line.split()[-1]) > 60 for line in lines)
