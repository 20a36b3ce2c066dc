"""Numbers, times and paragraphs as text: one function for each, and the one exception that a user sees.

Nothing else in the engine turns a number into text, so that 50 ms is "50 ms" everywhere.
"""

import math
import textwrap
from collections.abc import Sequence

MARGIN, COLUMNS = 12, 79  # of a report: the width of the names at the left, and of all


class Problem(Exception):
    """Something that the user can mend: printed as one line on stderr, then the program ends with this exit code."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def plural(count: float, noun: str) -> str:
    """
    >>> plural(1, "worker"), plural(4, "worker")
    ('1 worker', '4 workers')
    """
    return f"{count:.10g} {noun}" if count == 1 else f"{count:.10g} {noun}s"


def duration(value_s: float | None) -> str:
    """A time to be read: three digits in milliseconds below a second, hundredths of a second above.

    >>> [duration(value_s) for value_s in (0.05, 0.0625, 1.0, 4.023, 0, None)]
    ['50 ms', '62.5 ms', '1 s', '4.02 s', '0 s', '-']
    """
    if value_s is None or math.isnan(value_s):
        return "-"
    if math.isinf(value_s):
        return "never"
    if 0 < abs(value_s) < 0.9995:
        return f"{value_s * 1000:.3g} ms"
    return f"{value_s:.2f}".rstrip("0").rstrip(".") + " s"


def rate(value_rps: float) -> str:
    """
    >>> rate(3.9812), rate(837.29), rate(15166.4)
    ('3.98/s', '837/s', '15166/s')
    """
    return f"{value_rps:.0f}/s" if value_rps >= 1000 else f"{value_rps:.3g}/s"


def per_cent(share: float) -> str:
    """
    >>> per_cent(0.994), per_cent(0.75), per_cent(0.0012)
    ('99.4 %', '75 %', '0.12 %')
    """
    return f"{share * 100:.3g} %"


def path_or_workload(path: str, workload: str | None) -> str:
    """What the requests of a run ask for."""
    return f"workload {workload}" if workload else path


def slots_text(slots: float | None) -> str:
    """
    >>> slots_text(4), slots_text(math.inf), slots_text(None)
    ('4', 'no limit', 'not known')
    """
    if slots is None:
        return "not known"
    return "no limit" if slots == math.inf else f"{slots:g}"


def difference(measured: float, predicted: float) -> str:
    """
    >>> difference(4.02, 4.0)
    '+0.5 %'
    """
    return f"{(measured / predicted - 1) * 100:+.1f} %"


def milliseconds(value_s: float | None, width: int = 9) -> str:
    """A cell of a table in ms: four digits, more only before the point, so that a column keeps its width.

    >>> milliseconds(0.0123456, 8), milliseconds(27.8194, 8), milliseconds(0.0000012894, 8), milliseconds(None, 8)
    ('   12.35', '   27819', '  0.0013', '       -')
    """
    if value_s is None:
        return f"{'-':>{width}}"
    ms = value_s * 1000
    digits = ".0f" if ms >= 1000 else ".4f" if 0 < ms < 0.01 else ".4g"
    return f"{ms:{width}{digits}}"


def section(name: str, text: str) -> str:
    """A paragraph with its name in the margin, 79 columns wide."""
    lines = textwrap.wrap(text, COLUMNS - MARGIN, break_long_words=False, break_on_hyphens=False) or [""]
    return "\n".join(f"{'' if i else name:{MARGIN}}{line}" for i, line in enumerate(lines))


def shortened(rows: Sequence[str], first: int, last: int, noun: str) -> list[str]:
    """The first and the last rows of a long table, and between them how many are left out.

    >>> shortened(list("abcdef"), 2, 1, "more row")
    ['a', 'b', '            ... 3 more rows', 'f']
    """
    left_out = len(rows) - first - last
    if left_out < 2:
        return list(rows)
    return [*rows[:first], f"{'':{MARGIN}}... {plural(left_out, noun)}", *rows[len(rows) - last :]]
