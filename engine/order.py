"""Which of two places comes first in the code of the app, and whether what is waited for is had there. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from engine.places import Spot


def where_in_file(spot: Spot) -> tuple[str, tuple[str, ...]]:
    """The file and the function of the app."""
    return (spot.line or "").rpartition(":")[0], spot.through[-1:]


def is_in(waiting: Spot, spot: Spot, last: int) -> bool:
    """Whether a place is below the line at which others wait, in the same function, up to a last line."""
    return is_same_function(spot, waiting) and number_of(waiting) < number_of(spot) <= last


def number_of(spot: Spot) -> int:
    return int((spot.line or "0").rpartition(":")[2])


def is_outside_of(spot: Spot, waiting: Spot) -> bool:
    """Whether by the source of the app a request does not have yet, or no longer, what others wait for."""
    return is_before(spot, waiting) or has_given_back(spot, waiting)


def is_before(spot: Spot, waiting: Spot) -> bool:
    """Whether a request has not come to the line yet at which others wait: it is above, in a function that both are
    in."""
    line, others, _ = lines_in_common(spot, waiting)
    return bool(line and others and line < others)


def has_given_back(spot: Spot, waiting: Spot) -> bool:
    """Whether a request has given back what others wait for, by the source of the app: it is below, in a function that
    both are in."""
    line, _, last = lines_in_common(spot, waiting)
    return bool(line and last and line > last)


def lines_in_common(spot: Spot, waiting: Spot) -> tuple[int | None, int | None, int | None]:
    """In the innermost function of the app that both are in: their lines, and the last line that has what the second
    waits for. None: not known, there is no such function, or it is not that function which gives it back: in a loop
    what is above may come later."""
    own, others = lines_by_function(spot), lines_by_function(waiting)
    name = next((name for name in reversed(waiting.through) if name in own), "")
    line, last = others.get(name, (None, None))
    is_known = last is not None or name in waiting.through[-1:]
    return (own[name][0], line, last) if name and is_known else (None, None, None)


def lines_by_function(spot: Spot) -> Mapping[str, tuple[int | None, int | None]]:
    """Of each function of the app on the way to a place, the line, and the last one that has what is waited for."""
    outer = zip(spot.through[:-1], spot.calls[:-1], strict=False)
    return dict(outer) | {name: (number_of(spot), spot.held_to) for name in spot.through[-1:]}


def is_same_function(one: Spot, other: Spot) -> bool:
    return bool(one.line) and where_in_file(one) == where_in_file(other)
