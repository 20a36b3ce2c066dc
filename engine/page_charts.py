"""The pictures of a page, as SVG: predicted under measured, and a row for each worker. Pure: values in, text out.

Every text is escaped here. What there is of every request is written short, in whole tenths of a pixel (TENTHS), so
that 2,000 requests stay below 300 KB.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

from engine.timelines import Timed, lanes_of, sampled
from engine.words import duration

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 640, 56, 16, 22, 42
CHART_HEIGHT = 300
MOST_POINTS = 400  # of a predicted line, or a few more
ROWS_HEIGHT = 560  # of all workers together, where a request has less than a full row
ROW, LABEL = 12.0, 22.0
Points = Sequence[tuple[float, float]]
TENTHS = '<g transform="scale(.1)"'


@dataclass(frozen=True)
class Line:
    """A predicted line. kind: its class in the style."""

    name: str
    kind: str
    rows: Sequence[Timed]


def points_of_line(line: Line, is_burst: bool) -> Points:
    shorten = steps if is_burst else outline
    return shorten(sorted(points_of(line.rows, is_burst)))


def chart(title: str, measured: Sequence[Timed], predicted: Sequence[Line], is_burst: bool, most: int) -> str:
    """A staircase of a burst: how many were answered until when. Of another load the latency over the time.

    most: dots that are drawn. They are left out only after they were counted, so that none stands too low.
    """
    dots = sampled(sorted(points_of([one for one in measured if not one.error], is_burst)), most)
    lines = [(line, points_of_line(line, is_burst)) for line in predicted if line.rows]
    points = [*dots, *itertools.chain(*(found for _, found in lines))]
    if not points:
        return ""
    end_x, end_y = (max(point[axis] for point in points) or 1.0 for axis in (0, 1))
    place = Places(Across(end_x), Up(end_y))
    body = [*x_axis(end_x, CHART_HEIGHT), *y_axis(end_y, count_text if is_burst else duration)]
    body.append(words(LEFT, 14, "requests answered" if is_burst else "latency", "start"))
    body += [drawn_line(line, place.of([*[(0.0, 0.0)] * is_burst, *found]), is_burst) for line, found in lines]
    return picture(title, CHART_HEIGHT, [*body, drawn_dots(place.of(dots))])


def count_text(count: float) -> str:
    return f"{count:g}"


def drawn_line(line: Line, points: Points, is_staircase: bool) -> str:
    path = path_of(points, is_staircase)
    return f'<g><title>{escape(line.name)}</title><path class="{line.kind}" d="{path}"/></g>'


def drawn_dots(points: Points) -> str:
    path = "".join(f"M{10 * x:.0f},{10 * y:.0f}h0" for x, y in points)
    return f'{TENTHS}><title>measured: a dot for each answer</title><path class="m" d="{path}"/></g>' if path else ""


def path_of(points: Points, is_staircase: bool) -> str:
    """From point to point; of a staircase first to the right, then up."""
    (x, y), *others = points
    across, up = ("H", "V") if is_staircase else ("L", ",")
    return f"M{x:.1f},{y:.1f}" + "".join(f"{across}{x:.1f}{up}{y:.1f}" for x, y in others)


def steps(line: Points) -> list[tuple[float, float]]:
    """One point for each moment at which answers came; of very many moments some."""
    points = [*dict(line).items()]
    every = math.ceil(len(points) / MOST_POINTS)
    return points[::-every][::-1] if points else []


def outline(line: Points) -> list[tuple[float, float]]:
    """The points, or of very many the lowest and the highest of each piece of time: a sample could hide a wave."""
    if len(line) <= MOST_POINTS:
        return list(line)
    pieces, end_x = dict[int, list[tuple[float, float]]](), line[-1][0] or 1.0  # 0: users that send only once
    for x, y in line:
        pieces.setdefault(int(x / end_x * MOST_POINTS / 2), []).append((x, y))
    return [
        point
        for piece in pieces.values()
        for point in sorted({min(piece, key=height_of_point), max(piece, key=height_of_point)})
    ]


def height_of_point(point: tuple[float, float]) -> float:
    return point[1]


def points_of(rows: Sequence[Timed], is_burst: bool) -> list[tuple[float, float]]:
    if is_burst:
        return [(at_s, k + 1.0) for k, at_s in enumerate(sorted(one.answered_s for one in rows))]
    begun = [one.sent_s if one.due_s is None else one.due_s for one in rows]
    return [(begun_s, one.answered_s - begun_s) for begun_s, one in zip(begun, rows, strict=True)]


# ---------------------------------------------------------------- a row for each worker


def worker_rows(title: str, rows: Sequence[Timed], most: int) -> str:
    """A band for each worker: each request with its wait pale and its work solid."""
    drawn = sampled(rows, most)
    if not drawn:
        return ""
    bands = bands_of(drawn, Counter(one.worker or "" for one in rows))
    pitch = min(ROW, ROWS_HEIGHT / sum(band.height for band in bands))
    end_s = max(one.answered_s for one in drawn) or 1.0
    body, top = list[str](), 4.0
    for band in bands:
        body += [words(LEFT, top + 14, band.label, "start"), *drawn_band(band, top + LABEL, pitch, Across(end_s))]
        top += LABEL + band.height * pitch + 4
    height = math.ceil(top + BOTTOM)
    return picture(title, height, [*x_axis(end_s, height), *body])


@dataclass(frozen=True)
class Strip:
    """The requests of a worker, and the lane of each."""

    label: str
    requests: Sequence[Timed]
    lanes: Sequence[int]

    @property
    def height(self) -> int:
        return max(self.lanes) + 1


def bands_of(rows: Sequence[Timed], in_all: Counter[str]) -> list[Strip]:
    """Workers in order, last the requests whose worker is not known. in_all: how many each took, drawn or not."""
    of_worker = dict[str, list[Timed]]()
    for one in rows:
        of_worker.setdefault(one.worker or "", []).append(one)
    unknown = "requests" if len(of_worker) == 1 else "requests whose worker is not known"
    order = sorted(of_worker, key=lambda name: (not name, len(name), name))
    return [
        Strip(f"{name or unknown}: {in_all[name]}", found, lanes_of([(one.sent_s, one.answered_s) for one in found]))
        for name in order
        if (found := of_worker[name])
    ]


def drawn_band(band: Strip, top: float, pitch: float, x_of: Across) -> list[str]:
    at_y = [top + (lane + 0.5) * pitch for lane in band.lanes]
    bars = [drawn_request(one, y, x_of) for one, y in zip(band.requests, at_y, strict=True)]
    return [f'{TENTHS} class="r" stroke-width="{max(6, pitch * 8):.1f}">', *bars, "</g>"]


def drawn_request(one: Timed, y: float, x_of: Across) -> str:
    """One request with its times as a title, which a browser shows under the pointer.

    Of two paths in a group the first is pale; a single one is solid, as the style says.
    """
    began_s = one.sent_s if one.started_s is None else one.started_s
    started = "" if one.started_s is None else f", started {one.started_s:.3f}"
    end = f"failed {one.answered_s:.3f} s: {one.error}" if one.error else f"answered {one.answered_s:.3f} s"
    told = f"#{one.number} sent {one.sent_s:.3f}{started}, {end}"
    x, begin, until = (round(10 * x_of(at_s)) for at_s in (one.sent_s, began_s, max(one.ended_s, began_s)))
    waits = f'<path d="M{x},{10 * y:.0f}H{begin}"/>' if begin > x else ""
    kind = ' class="e"' if one.error else ' class="u"' if one.started_s is None else ""
    works = f'<path{kind} d="M{begin},{10 * y:.0f}H{max(until, begin + 8)}"/>'
    return f"<g><title>{escape(told)}</title>{waits}{works}</g>"


# ---------------------------------------------------------------- axes


class Across:
    """Seconds to the place in a picture, from left to right."""

    def __init__(self, end: float) -> None:
        self.factor = (WIDTH - LEFT - RIGHT) / end

    def __call__(self, value: float) -> float:
        return LEFT + value * self.factor


class Up:
    """A value to the place in a chart, from the bottom up."""

    def __init__(self, end: float) -> None:
        self.factor = (CHART_HEIGHT - TOP - BOTTOM) / end

    def __call__(self, value: float) -> float:
        return CHART_HEIGHT - BOTTOM - value * self.factor


class Places(NamedTuple):
    x_of: Across
    y_of: Up

    def of(self, points: Points) -> list[tuple[float, float]]:
        return [(self.x_of(x), self.y_of(y)) for x, y in points]


def ticks(end: float) -> list[float]:
    """Round numbers from 0 to the end, four to nine of them.

    >>> ticks(4.02), ticks(100)
    ([0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 20.0, 40.0, 60.0, 80.0, 100.0])
    """
    power = 10.0 ** math.floor(math.log10(end))
    step = next(power * part for part in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if end / (power * part) <= 8)
    return [round(k * step, 12) for k in range(int(end / step + 1e-9) + 1)]


def x_axis(end_s: float, height: int) -> list[str]:
    x_of, body = Across(end_s), list[str]()
    for at_s in ticks(end_s):
        x = x_of(at_s)
        body.append(f'<path class="g" d="M{x:.1f},{TOP}V{height - BOTTOM}"/>')
        shown = duration(at_s)
        anchor = "end" if x + 4 * len(shown) > WIDTH else "middle"
        body.append(words(x, height - BOTTOM + 17, shown, anchor))
    body.append(words(LEFT, height - 6, "time since the run began", "start"))
    return body


def y_axis(end: float, shown: Callable[[float], str]) -> list[str]:
    y_of, body = Up(end), list[str]()
    for value in ticks(end):
        y = y_of(value)
        body.append(f'<path class="g" d="M{LEFT},{y:.1f}H{WIDTH - RIGHT}"/>')
        body.append(words(LEFT - 6, y + 5, shown(value), "end"))
    return body


def words(x: float, y: float, said: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def picture(title: str, height: int, body: Sequence[str]) -> str:
    """A picture that a screen reader announces by its title; its figures stand in tables."""
    head = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
    return "".join([head, *body, "</svg>"])
