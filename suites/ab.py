"""ab - "Architecture Flask vs FastAPI": a line of JSON from seven servers, ApacheBench's way.

What the post saw: Flask's p50 is 136 ms and its p99 27.8 s at 500 connections. Why: the listen queue of its development
server holds 128 connections, and TCP asks again after 1, 3, 7 s.
"""

from suites.common import RPS, Drawing, Suite, SweepDocument, Variant, draw_rows, short, table

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
LOOKS = {"median": (-0.2, "oC0"), "p99": (0.0, "sC1"), "max": (0.2, "^C3")}  # in the picture
TCP_AGAIN_MS = 1000  # after so long TCP asks for a connection again for the first time
OVERFLOWS, RETRIES = "measured.kernel.ListenOverflows", "measured.kernel.TCPSynRetrans"


# ---------------------------------------------------------------- tables


def published_ratio(name: str, c: int) -> float | None:
    """Of requests/s to those of the base."""
    return PUBLISHED[name, c][0] / PUBLISHED[BASE[c], c][0] if (name, c) in PUBLISHED else None


def tables(document: SweepDocument) -> str:
    header = ("server | published ratio | measured ratio | requests/s | published p50 / p99 / max ms"
              " | measured p50 / p99 / max ms | listen overflows | SYN again")  # fmt: skip
    parts = []
    for c, base in BASE.items():
        rows = [
            [
                name,
                published_ratio(name, c) or "",
                1 if name == base else document.ratio(name, base, RPS, c),
                document.figure(name, RPS, c),
                PUBLISHED.get((name, c), ("", ""))[1],
                " / ".join(document.latency_ms(name, key, c).typical for key in LOOKS),
                document.figure(name, OVERFLOWS, c),
                document.figure(name, RETRIES, c),
            ]
            for name in HELLO_TARGETS
        ]
        parts += [f"c = {c}; ratios of requests/s to {base}", table(header, rows)]
    parts.append("A tail of seconds beside a median of milliseconds, where the listen queue overflowed, is TCP: it asks"
                 " again after about 1, 3 and 7 s. It is not the framework that computes. The listen queue of the"
                 " development server has room for 128 connections, and that of gunicorn's asgi workers for asyncio's"
                 " 100. Of 1000 that come at once the others have to ask again.")  # fmt: skip
    failed = document.figure(DEVELOPMENT, "measured.failed", 1000)
    if any(failed.values()):
        parts.append(f"With 1000 users, {failed} of the development server's requests had no answer within 100 s.")
    return "\n\n".join(parts)


def headline(document: SweepDocument) -> list[str]:
    """The published ratio beside the measured one, and what the slow server's tail is."""
    measured = document.ratio(FASTEST, DEVELOPMENT, RPS, 500).typical
    text = [
        "FastAPI (gunicorn, 4 uvicorn workers) against Flask's development server with 500 users: published"
        f" {short(published_ratio(FASTEST, 500) or 0)} times the requests/s, measured {measured}."
    ]
    overflows, again = (document.figure(DEVELOPMENT, path, 500) for path in (OVERFLOWS, RETRIES))
    p50, p99 = (document.latency_ms(DEVELOPMENT, key, 500) for key in ("median", "p99"))
    if min(overflows.values(), default=0) > 0 and min(p99.values(), default=0) >= TCP_AGAIN_MS:
        text.append(
            f"Flask's p50 is {p50.typical} ms and its p99 {p99.typical} ms. That tail is not Flask: the listen queue"
            f" overflowed {overflows.typical} times, and TCP tried again {again.typical} times."
        )
    return text


# ---------------------------------------------------------------- picture


def draw_latency(document: SweepDocument, drawing: Drawing) -> None:
    """Median, p99 and max at c = 500, on a log axis: the tail is another story than the middle."""
    rows = {
        name: [(key, document.latency_ms(name, key, 500), down, fmt) for key, (down, fmt) in LOOKS.items()]
        for name in HELLO_TARGETS
    }
    draw_rows(drawing, "latency at c = 500, ms (log scale); line: least to most of the repeats", rows)


SUITE = Suite(
    "one line of JSON, ApacheBench's way: a new connection for each request",
    "63 runs, about 8 min; --quick 21 runs, 3 min",
    f"Published: {POST}, 5000 requests. Ratios are of requests/s, to the server that was published at that c.",
    tables,
    headline,
    variants=tuple(
        Variant(
            name,
            f"--target {target} -n {{n}} -c {{c}} --warmup 200 --timeout 100",
            "hello",
            tuple(BASE),
            may_fail=name == DEVELOPMENT,  # some get no connection within that time
        )
        for name, target in HELLO_TARGETS.items()
    ),
    full={"n": "5000"},
    quick={"n": "1000"},
    pictures=(("latency", 4.4, draw_latency),),
)
