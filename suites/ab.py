"""ab - "Architecture Flask vs FastAPI": a line of JSON from seven servers, ApacheBench's way.

What the post saw: Flask's p50 is 136 ms and its p99 27.8 s at 500 connections. Why: the listen queue of its development
server holds 128 connections, and TCP asks again after 1, 3, 7 s. The question behind it, time.sleep in an `async def`,
comes last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from suites.common import (
    BLUE,
    ORANGE,
    RED,
    RPS,
    Document,
    Drawing,
    Picture,
    Ratio,
    Suite,
    Variant,
    label_log,
    legend,
    mark,
    name_rows,
    short,
    table,
)

# ---------------------------------------------------------------- published, and run again


class Published(NamedTuple):
    rps: float
    latency_ms: str = ""  # p50 / p99 / max


POST = '"Architecture Flask vs FastAPI" (Stack Overflow)'
DEVELOPMENT, WAITRESS = "Flask, development server", "Flask, waitress"
FASTEST = "FastAPI, gunicorn, 4 uvicorn workers"
BASE = {1: DEVELOPMENT, 500: DEVELOPMENT, 1000: WAITRESS}  # concurrency -> what the published ratios are to
TARGETS = {
    DEVELOPMENT: "flask-hello-dev",
    WAITRESS: "flask-hello-waitress",
    "Flask, gunicorn, 4 sync workers": "flask-hello-gunicorn",
    "FastAPI, uvicorn": "fastapi-hello-uvicorn",
    "FastAPI, uvicorn, 4 workers": "fastapi-hello-uvicorn-workers",
    FASTEST: "fastapi-hello-gunicorn",
    "FastAPI, gunicorn, 4 asgi workers": "fastapi-hello-gunicorn-asgi",
}
PUBLISHED = {
    (DEVELOPMENT, 1): Published(902.36),
    (DEVELOPMENT, 500): Published(179.68, "136 / 27765 / 27819"),
    (WAITRESS, 1000): Published(1469.47, "660 / 750 / 754"),
    ("FastAPI, uvicorn", 1): Published(1864.98),
    ("FastAPI, uvicorn", 500): Published(3200.62, "150 / 199 / 203"),
    ("FastAPI, uvicorn, 4 workers", 1000): Published(4359.68, "184 / 514 / 533"),
    (FASTEST, 1): Published(3095.98),
    (FASTEST, 500): Published(8665.48, "53 / 116 / 127"),
    (FASTEST, 1000): Published(7891.28, "116 / 230 / 243"),
}
SLEEP = {"time.sleep in async def": "fastapi-blocking", "await asyncio.sleep": "fastapi-fixed"}
OVERFLOWS, RETRIES = "measured.kernel.ListenOverflows", "measured.kernel.TCPSynRetrans"


# ---------------------------------------------------------------- tables


def ratio(document: Document, name: str, c: int) -> tuple[float | None, Ratio]:
    """Of requests/s to those of the base: published and measured."""
    stated, base = PUBLISHED.get((name, c)), PUBLISHED[BASE[c], c]
    return stated and stated.rps / base.rps, document.figure(name, RPS, c) / document.figure(BASE[c], RPS, c)


def milliseconds(document: Document, name: str, c: int) -> list[str]:
    """p50, p99 and max, medians of the repeats."""
    return [document.figure(name, f"measured.latency_s.{key}", c).in_ms().typical for key in ("median", "p99", "max")]


def server_row(document: Document, name: str, c: int) -> list[object]:
    stated, measured = ratio(document, name, c)
    return [
        name,
        stated or "",
        1 if name == BASE[c] else measured,
        document.figure(name, RPS, c),
        PUBLISHED[name, c].latency_ms if stated else "",
        " / ".join(milliseconds(document, name, c)),
        document.figure(name, OVERFLOWS, c),
        document.figure(name, RETRIES, c),
    ]


def sleep_row(document: Document, name: str) -> list[object]:
    run = document.median_run(name)
    answers = ", ".join(f"{at_s:.2f}" for at_s in run["answered_s"]) if run else "-"
    return [f"`{name}`", document.predictions[name], document.figure(name, "measured.measured_s"), answers]


def tables(document: Document) -> str:
    header = ["server", "published ratio", "measured ratio", "requests/s", "published p50 / p99 / max ms",
              "measured p50 / p99 / max ms", "listen overflows", "SYN again"]  # fmt: skip
    parts = list[str]()
    for c, base in BASE.items():
        parts.append(f"c = {c}; ratios of requests/s to {base}")
        parts.append(table(header, [server_row(document, name, c) for name in TARGETS]))
    parts.append("A tail of seconds beside a median of milliseconds, where the listen queue overflowed, is TCP: it asks"
                 " again after about 1, 3 and 7 s. It is not the framework that computes.")  # fmt: skip
    parts.append("The question behind the post: six requests to one worker of FastAPI.")
    parts.append(table(["handler", "predicted, s", "measured, s", "answered at, s"],
                       [sleep_row(document, name) for name in SLEEP]))  # fmt: skip
    return "\n\n".join(parts)


def headline(document: Document) -> list[str]:
    """The published ratio beside the measured one, and what the slow server's tail is."""
    stated, measured = ratio(document, FASTEST, 500)
    if not measured or not stated:
        return []
    p50, p99, _ = milliseconds(document, DEVELOPMENT, 500)
    overflows, again = (document.figure(DEVELOPMENT, path, 500).typical for path in (OVERFLOWS, RETRIES))
    return [
        "FastAPI (gunicorn, 4 uvicorn workers) against Flask's development server at c = 500: published"
        f" {short(stated)} times the requests/s, measured {measured.typical}.",
        f"Flask's p50 is {p50} ms and its p99 {p99} ms. That tail is not Flask: the listen queue overflowed {overflows}"
        f" times, and TCP asked again {again} times.",
    ]


# ---------------------------------------------------------------- pictures


LOOKS = {"median": ("o", BLUE), "p99": ("s", ORANGE), "max": ("^", RED)}


def draw_latencies(panel: Any, document: Document, names: Sequence[str], c: int = 0) -> None:
    """Median, p99 and max of each variant, from above, on a log axis."""
    for y, name in enumerate(names[::-1]):
        for up, (key, (marker, colour)) in zip((0.2, 0, -0.2), LOOKS.items(), strict=True):
            figure = document.figure(name, f"measured.latency_s.{key}", c).in_ms()
            mark(panel, figure, y + up, fmt=marker, color=colour, label=key)
    name_rows(panel, [name.replace(", ", ",\n", 1) for name in names[::-1]])
    label_log(panel.xaxis)
    panel.set_xlabel("latency, ms (log scale); line: least to most of the repeats")
    legend(panel)


def latency(document: Document, drawing: Drawing) -> None:
    """At c = 500: the tail is another story than the middle."""
    draw_latencies(drawing.subplots(), document, list(TARGETS), 500)


SUITE = Suite(
    title="one line of JSON, ApacheBench's way: a new connection for each request",
    takes="69 runs, about 8 min; --quick 23 runs, 3 min",
    source=f"Published: {POST}, 5000 requests. Ratios are of requests/s, to the server that was published at that c.",
    variants=(
        *(
            Variant(name, f"--target {target} -n {{n}} -c {{c}} --warmup 200 --timeout 100", "hello", tuple(BASE))
            for name, target in TARGETS.items()
        ),
        *(
            Variant(name, f"--target {target} -n 6 --task-time {{t}} --warmup 1", "sleep")
            for name, target in SLEEP.items()
        ),
    ),
    full={"n": "5000", "t": "1"},
    quick={"n": "1000", "t": "0.2"},
    tables=tables,
    headline=headline,
    pictures=(Picture("latency", 4.4, latency),),
)
