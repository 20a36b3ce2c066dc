"""ab - "Architecture Flask vs FastAPI": a line of JSON from seven servers, ApacheBench's way.

What the post saw: Flask's p50 is 136 ms and its p99 27.8 s at 500 connections. Why: the listen queue of its development
server holds 128 connections, and TCP asks again after 1, 3, 7 s.
"""

from __future__ import annotations

from suites.common import (
    BLUE,
    ORANGE,
    RED,
    RPS,
    Drawing,
    Ratio,
    Suite,
    SweepDocument,
    Variant,
    label_log,
    legend,
    mark,
    name_rows,
    short,
    table,
)

# ---------------------------------------------------------------- published, and run again


POST = '"Architecture Flask vs FastAPI" (Stack Overflow)'
DEVELOPMENT, WAITRESS = "Flask, development server", "Flask, waitress"
FASTEST = "FastAPI, gunicorn, 4 uvicorn workers"
BASE = {1: DEVELOPMENT, 500: DEVELOPMENT, 1000: WAITRESS}  # concurrency -> what the published ratios are to
HELLO_TARGETS = {
    DEVELOPMENT: "flask-hello-dev",
    WAITRESS: "flask-hello-waitress",
    "Flask, gunicorn, 4 sync workers": "flask-hello-gunicorn",
    "FastAPI, uvicorn": "fastapi-hello-uvicorn",
    "FastAPI, uvicorn, 4 workers": "fastapi-hello-uvicorn-workers",
    FASTEST: "fastapi-hello-gunicorn",
    "FastAPI, gunicorn, 4 asgi workers": "fastapi-hello-gunicorn-asgi",
}
PUBLISHED = {  # requests/s; p50 / p99 / max in ms
    (DEVELOPMENT, 1): (902.36, ""),
    (DEVELOPMENT, 500): (179.68, "136 / 27765 / 27819"),
    (WAITRESS, 1000): (1469.47, "660 / 750 / 754"),
    ("FastAPI, uvicorn", 1): (1864.98, ""),
    ("FastAPI, uvicorn", 500): (3200.62, "150 / 199 / 203"),
    ("FastAPI, uvicorn, 4 workers", 1000): (4359.68, "184 / 514 / 533"),
    (FASTEST, 1): (3095.98, ""),
    (FASTEST, 500): (8665.48, "53 / 116 / 127"),
    (FASTEST, 1000): (7891.28, "116 / 230 / 243"),
}
OVERFLOWS, RETRIES = "measured.kernel.ListenOverflows", "measured.kernel.TCPSynRetrans"


# ---------------------------------------------------------------- tables


def server_ratio(document: SweepDocument, name: str, c: int) -> tuple[float | None, Ratio]:
    """Of requests/s to those of the base: published and measured."""
    stated, base = PUBLISHED.get((name, c)), PUBLISHED[BASE[c], c]
    return stated and stated[0] / base[0], document.figure(name, RPS, c) / document.figure(BASE[c], RPS, c)


def latencies_ms(document: SweepDocument, name: str, c: int) -> list[str]:
    """p50, p99 and max, medians of the repeats."""
    return [document.figure(name, f"measured.latency_s.{key}", c).in_ms().typical for key in ("median", "p99", "max")]


def server_row(document: SweepDocument, name: str, c: int) -> list[object]:
    stated, measured = server_ratio(document, name, c)
    return [
        name,
        stated or "",
        1 if name == BASE[c] else measured,
        document.figure(name, RPS, c),
        PUBLISHED[name, c][1] if stated else "",
        " / ".join(latencies_ms(document, name, c)),
        document.figure(name, OVERFLOWS, c),
        document.figure(name, RETRIES, c),
    ]


def tables(document: SweepDocument) -> str:
    header = ["server", "published ratio", "measured ratio", "requests/s", "published p50 / p99 / max ms",
              "measured p50 / p99 / max ms", "listen overflows", "SYN again"]  # fmt: skip
    parts = list[str]()
    for c, base in BASE.items():
        parts.append(f"c = {c}; ratios of requests/s to {base}")
        parts.append(table(header, [server_row(document, name, c) for name in HELLO_TARGETS]))
    parts.append("A tail of seconds beside a median of milliseconds, where the listen queue overflowed, is TCP: it asks"
                 " again after about 1, 3 and 7 s. It is not the framework that computes.")  # fmt: skip
    return "\n\n".join(parts)


def headline(document: SweepDocument) -> list[str]:
    """The published ratio beside the measured one, and what the slow server's tail is."""
    stated, measured = server_ratio(document, FASTEST, 500)
    text = [
        "FastAPI (gunicorn, 4 uvicorn workers) against Flask's development server at c = 500: published"
        f" {short(stated or 0)} times the requests/s, measured {measured.typical}."
    ]
    p50, p99, _ = latencies_ms(document, DEVELOPMENT, 500)
    overflows, again = (document.figure(DEVELOPMENT, path, 500) for path in (OVERFLOWS, RETRIES))
    if any(overflows.values()):
        text.append(
            f"Flask's p50 is {p50} ms and its p99 {p99} ms. That tail is not Flask: the listen queue overflowed"
            f" {overflows.typical} times, and TCP asked again {again.typical} times."
        )
    return text


# ---------------------------------------------------------------- pictures


LOOKS = {"median": ("o", BLUE), "p99": ("s", ORANGE), "max": ("^", RED)}


def draw_latency(document: SweepDocument, drawing: Drawing) -> None:
    """Median, p99 and max at c = 500, on a log axis: the tail is another story than the middle."""
    panel, names = drawing.subplots(), list(HELLO_TARGETS)[::-1]
    for y, name in enumerate(names):
        for up, (key, (marker, colour)) in zip((0.2, 0, -0.2), LOOKS.items(), strict=True):
            figure = document.figure(name, f"measured.latency_s.{key}", 500).in_ms()
            mark(panel, figure, y + up, fmt=marker, color=colour, label=key)
    name_rows(panel, [name.replace(", ", ",\n", 1) for name in names])
    label_log(panel.xaxis)
    panel.set_xlabel("latency at c = 500, ms (log scale); line: least to most of the repeats")
    legend(panel)


SUITE = Suite(
    title="one line of JSON, ApacheBench's way: a new connection for each request",
    takes="63 runs, about 8 min; --quick 21 runs, 3 min",
    source=f"Published: {POST}, 5000 requests. Ratios are of requests/s, to the server that was published at that c.",
    variants=tuple(
        Variant(name, f"--target {target} -n {{n}} -c {{c}} --warmup 200 --timeout 100", "hello", tuple(BASE))
        for name, target in HELLO_TARGETS.items()
    ),
    full={"n": "5000"},
    quick={"n": "1000"},
    tables=tables,
    headline=headline,
    pictures=(("latency", 4.4, draw_latency),),
)
