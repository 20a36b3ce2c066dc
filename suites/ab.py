"""ab - "Architecture Flask vs FastAPI": a line of JSON from seven servers, ApacheBench's way.

What the post saw: Flask's p50 is 136 ms and its p99 27.8 s at 500 connections.
Why: the listen queue of its development server holds 128, and TCP asks again
after 1, 3, 7 s. The question behind it, time.sleep in an `async def`, comes last.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from suites import (
    BLUE,
    ORANGE,
    RED,
    Document,
    Figure,
    Picture,
    Published,
    Suite,
    Variant,
    compare,
    figures,
    label_log,
    median_run,
    runs_of,
    short,
    spread,
    spread_of,
    table,
    typical,
)

# ---------------------------------------------------------------- published, and run again

POST = '"Architecture Flask vs FastAPI" (Stack Overflow)'
CONCURRENCY = (1, 500, 1000)
DEVELOPMENT = "Flask, development server"
BASE = {1: DEVELOPMENT, 500: DEVELOPMENT, 1000: "Flask, waitress"}  # of the ratios, as published
PUBLISHED = {
    DEVELOPMENT: (Published(1, 5000 / 5.541), Published(500, 179.68, "136 / 27765 / 27819")),
    "Flask, waitress": (Published(1000, 1469.47, "660 / 750 / 754"),),
    "FastAPI, uvicorn": (Published(1, 5000 / 2.681), Published(500, 3200.62, "150 / 199 / 203")),
    "FastAPI, uvicorn, 4 workers": (Published(1000, 4359.68, "184 / 514 / 533"),),
    "FastAPI, gunicorn, 4 uvicorn workers": (
        Published(1, 5000 / 1.615), Published(500, 8665.48, "53 / 116 / 127"),
        Published(1000, 7891.28, "116 / 230 / 243"),
    ),
}  # fmt: skip
HELLO = tuple(
    Variant(name, f"--target {target} -n {{n}} -c {{c}} --warmup 200 --timeout 100", "hello", CONCURRENCY,
            PUBLISHED.get(name, ()))
    for name, target in (
        (DEVELOPMENT, "flask-hello-dev"),
        ("Flask, waitress", "flask-hello-waitress"),
        ("Flask, gunicorn, 4 sync workers", "flask-hello-gunicorn"),
        ("FastAPI, uvicorn", "fastapi-hello-uvicorn"),
        ("FastAPI, uvicorn, 4 workers", "fastapi-hello-uvicorn-workers"),
        ("FastAPI, gunicorn, 4 uvicorn workers", "fastapi-hello-gunicorn"),
        ("FastAPI, gunicorn, 4 asgi workers", "fastapi-hello-gunicorn-asgi"),
    )
)  # fmt: skip
SLEEP = (
    Variant("time.sleep in async def", "--target fastapi-blocking -n 6 --task-time {t} --warmup 1", "sleep"),
    Variant("await asyncio.sleep", "--target fastapi-fixed -n 6 --task-time {t} --warmup 1", "sleep"),
)
TAIL_S = {500: 7.0, 1000: 27.0}  # of the development server: TCP asks again after 1, 3, 7, 15 and 31 s


def seconds(variant: Variant, concurrency: int, values: Mapping[str, str]) -> float:
    return int(values["n"]) / 2000 + (TAIL_S.get(concurrency, 0.0) if variant.name == DEVELOPMENT else 0.0)


# ---------------------------------------------------------------- tables


def milliseconds(document: Document, variant: str, c: int) -> str:
    """p50 / p99 / max, medians of the repeats."""
    cells = []
    for key in ("median", "p99", "max"):
        values = figures(document, variant, f"latency_s.{key}", c).values()
        cells.append(short(statistics.median(values) * 1000) if values else "-")
    return " / ".join(cells)


def server_row(document: Document, variant: Variant, c: int) -> list[str]:
    name, base = variant.name, BASE[c]
    stated, stated_base = (
        next((p for p in PUBLISHED.get(server, ()) if p.concurrency == c), None) for server in (name, base)
    )
    rps, base_rps = (figures(document, server, "throughput_rps", c) for server in (name, base))
    return [
        name,
        short(stated.rps / stated_base.rps) if stated and stated_base else "",
        "1" if name == base else compare(rps, base_rps),
        spread(list(rps.values())),
        stated.latency_ms if stated else "",
        milliseconds(document, name, c),
        spread_of(document, name, "kernel.ListenOverflows", c),
        spread_of(document, name, "kernel.TCPSynRetrans", c),
    ]


def sleep_row(document: Document, variant: Variant) -> list[str]:
    typical, predicted_s = median_run(runs_of(document, variant.name)), document["predictions"][variant.name]
    return [
        f"`{variant.name}`",
        f"{predicted_s:g} s",
        spread_of(document, variant.name, "measured_s", unit=" s"),
        ", ".join(f"{at_s:.2f}" for at_s in typical["answered_s"]) if typical else "-",
    ]


def tables(document: Document) -> str:
    parts, tails = [], []
    header = ["server", "published ratio", "measured ratio", "requests/s", "published p50 / p99 / max ms",
              "measured p50 / p99 / max ms", "listen overflows", "SYN again"]  # fmt: skip
    for c, base in BASE.items():
        rows = [server_row(document, variant, c) for variant in HELLO]
        parts += [f"c = {c}; ratios of requests/s to {base}", table(header, rows)]
        tails += [
            f"- {name}, c = {c}: {overflows} overflows and {retries} repeated SYNs; {latency} ms."
            for name, *_, latency, overflows, retries in rows
            if overflows not in ("0", "-")
        ]
    if tails:
        parts.append("A tail of seconds beside a median of milliseconds is TCP trying again, after about 1, 3 and"
                     " 7 s, because the listen queue was full; it is not the framework computing:")  # fmt: skip
        parts.append("\n".join(tails))
    parts.append("The question behind the post: six requests to one worker of FastAPI.")
    rows = [sleep_row(document, variant) for variant in SLEEP]
    return "\n\n".join([*parts, table(["handler", "predicted", "measured", "answered at, s"], rows)])


def headline(document: Document) -> list[str]:
    """The published ratio beside the measured one, and what the slow server's tail is."""
    fastest = next(variant for variant in HELLO if variant.name == "FastAPI, gunicorn, 4 uvicorn workers")
    slowest = next(variant for variant in HELLO if variant.name == DEVELOPMENT)
    _, published, measured, *_ = server_row(document, fastest, 500)
    *_, latency_ms, overflows, again = server_row(document, slowest, 500)
    if "-" in (measured, overflows):
        return []
    p50, p99, _ = latency_ms.split(" / ")
    text = [
        "FastAPI (gunicorn, 4 uvicorn workers) against Flask's development server at c = 500: published"
        f" {published} times the requests/s, measured {typical(measured)}."
    ]
    if overflows != "0":
        text.append(
            f"Flask's p50 is {p50} ms and its p99 {p99} ms: that tail is not Flask, it is TCP trying again after"
            f" {typical(overflows)} overflows of the listen queue ({typical(again)} repeated SYNs)."
        )
    return text


# ---------------------------------------------------------------- pictures


def latency(document: Document, figure: Figure) -> None:
    """p50, p99 and max of each server at c = 500, on a log axis: the tail is another story than the middle."""
    panel = figure.subplots()
    names = [variant.name for variant in HELLO][::-1]
    looks = (("median", "p50", "o", BLUE), ("p99", "p99", "s", ORANGE), ("max", "max", "^", RED))
    for place, (key, label, marker, colour) in enumerate(looks):
        for row, name in enumerate(names):
            values_ms = [value * 1000 for value in figures(document, name, f"latency_s.{key}", 500).values()]
            if values_ms:
                y = row + (1 - place) * 0.2
                panel.plot([min(values_ms), max(values_ms)], [y, y], color=colour, linewidth=1.2)
                panel.plot(statistics.median(values_ms), y, marker=marker, color=colour, markersize=6, linestyle="",
                           markeredgecolor="black", markeredgewidth=0.5, label=label if row == 0 else None)  # fmt: skip
    for row, name in enumerate(names):
        overflows = list(figures(document, name, "kernel.ListenOverflows", 500).values())
        if max(overflows, default=0):
            panel.text(0.01, row - 0.38, f"{short(statistics.median(overflows))} listen-queue overflows",
                       transform=panel.get_yaxis_transform(), fontsize=8)  # fmt: skip
    panel.set_yticks(range(len(names)), [name.replace(", ", ",\n", 1) for name in names])
    panel.set_ylim(-0.6, len(names) - 0.4)
    label_log(panel.xaxis)
    panel.set_xlabel("latency at c = 500, ms (log scale); line: least to most of the repeats")
    figure.legend(loc="outside upper center", ncols=3)


SUITE = Suite(
    title="one line of JSON, ApacheBench's way: a new connection for each request",
    source=f"Published: {POST}, 5000 requests. Ratios are of requests/s, to the server that was published at that c.",
    variants=(*HELLO, *SLEEP),
    full={"n": "5000", "t": "1"},
    quick={"n": "1000", "t": "0.2"},
    bodies={"/": {"message": "hello"}, "/sleep": {"task_time": 0.01}},
    tables=tables,
    headline=headline,
    pictures=(Picture("latency", 4.4, latency),),
    seconds=seconds,
)
