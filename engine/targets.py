"""The only tables of what can be started: servers, handlers, our own apps, and the workloads of the Books API.

A new server, app or target is a row here. Nothing here computes; launch.py reads the rows.
"""

import os
from typing import Literal, NamedTuple

from engine.model import NO_LIMIT

ANYIO_THREADS = 40  # anyio: to_thread.current_default_thread_limiter() is CapacityLimiter(40) in each process
CONNECTIONS_OF_WAITRESS = 100  # by default (waitress/adjustments.py, connection_limit)
SEEDED_BOOKS = 10_000  # rows that engine/inside/books.sql puts into the table

# ---------------------------------------------------------------- servers


class Server(NamedTuple):
    """A kind of server: how to start it, and how many requests one process of it works on at a time.

    slots: a number, else what decides: the setting `threads` or `connections`, or (ASGI) the handler.
    """

    command: list[str]  # behind `python -m`; {port} and {app} are filled in; without {app} the app comes last
    wrapper: str  # the name in engine/inside/wrap/_bench_wrapper.py that this server takes: wsgi, asgi or flask_app
    packages: tuple[str, ...]  # distributions, as pip names them
    slots: float | Literal["threads", "connections", "handler"] = "handler"
    why: str = ""  # why it has that many slots; the names in braces are filled in
    settings: tuple[str, ...] = ("workers",)  # those of workers and threads that its command line takes, as --workers
    threads: int = 1  # unless they are set
    connections: int = 1000  # gunicorn's worker_connections, waitress' connection_limit, unless they are set
    tls: tuple[str, ...] = ()  # its options for certificate and key; empty: we start it without TLS
    shared_queue: bool = False  # its processes accept only when idle, so that all requests wait in one queue


parts = str.split  # of a command line
GUNICORN = "gunicorn --bind 127.0.0.1:{port}"
GUNICORN_TLS, UVICORN_TLS = ("--certfile", "--keyfile"), ("--ssl-certfile", "--ssl-keyfile")
SERVERS = {
    "flask-dev": Server(
        parts("flask --app {app} run --host 127.0.0.1 --port {port} --with-threads"), "flask_app", ("flask",), NO_LIMIT,
        "the development server starts a thread for each request", settings=(),
    ),
    "waitress": Server(
        parts("waitress --listen 127.0.0.1:{port}"), "wsgi", ("waitress",), "threads",
        "one process with {threads} threads", settings=("threads",), threads=4, connections=CONNECTIONS_OF_WAITRESS,
    ),
    "gunicorn": Server(
        parts(GUNICORN), "wsgi", ("gunicorn",), 1, "a sync worker holds one request until it is answered",
        tls=GUNICORN_TLS, shared_queue=True,
    ),
    "gunicorn-threads": Server(
        parts(GUNICORN), "wsgi", ("gunicorn",), "threads",
        "a worker holds one request in each of its {threads} threads", settings=("workers", "threads"), threads=4,
        tls=GUNICORN_TLS,
    ),
    "gunicorn-gevent": Server(
        parts(f"{GUNICORN} --worker-class gevent"), "wsgi", ("gunicorn", "gevent"), "connections",
        "a greenlet for each of {connections} worker connections", tls=GUNICORN_TLS,
    ),
    "gunicorn-uvicorn": Server(
        parts(f"{GUNICORN} --worker-class uvicorn_worker.UvicornWorker"), "asgi",
        ("gunicorn", "uvicorn-worker", "uvicorn"), tls=GUNICORN_TLS,
    ),
    "gunicorn-asgi": Server(parts(f"{GUNICORN} --worker-class asgi"), "asgi", ("gunicorn",), tls=GUNICORN_TLS),
    "uvicorn": Server(parts("uvicorn --host 127.0.0.1 --port {port}"), "asgi", ("uvicorn",), tls=UVICORN_TLS),
    "hypercorn": Server(parts("hypercorn --bind 127.0.0.1:{port}"), "asgi", ("hypercorn",)),
    "granian": Server(parts("granian --interface asgi --host 127.0.0.1 --port {port}"), "asgi", ("granian",)),
}  # fmt: skip

COMMAND = Server([], "run", ())  # whatever a command of the user's starts: see Launch.run

GUNICORN_CLASSES = {  # the last part of gunicorn's worker_class, as it is in force -> its row above
    "sync": "gunicorn", "gthread": "gunicorn-threads", "gevent": "gunicorn-gevent", "asgi": "gunicorn-asgi",
    "SyncWorker": "gunicorn", "ThreadWorker": "gunicorn-threads", "GeventWorker": "gunicorn-gevent",
    "ASGIWorker": "gunicorn-asgi", "UvicornWorker": "gunicorn-uvicorn", "UvicornH11Worker": "gunicorn-uvicorn",
}  # fmt: skip
NOT_FOR_US = {  # options of --server-args that would take the server out of our hands
    "--port": "the server gets a free port",
    "--host": "the server listens on 127.0.0.1",
    "--uds": "the server gets a free port",
    "--fd": "the server gets a free port",
    "--factory": "write --app module:create_app() instead",
    **dict.fromkeys(("--ssl-certfile", "--ssl-keyfile", "--certfile", "--keyfile"), "write --cert and --key instead"),
    "--env-file": "write --env NAME=VALUE instead",
    "--daemon": "the server must end with the run",
    "--interface": "the app is served by the interface that it has; another one can be measured with --run or --url",
    "--lifespan off": "the lifespan is where an ASGI app says that it is ready",
}
PACKAGES_OF_APPS = {  # what our own apps import, by their names, or the first word of these
    "flask": ("flask", "asgiref"),
    "fastapi": ("fastapi",),
    "limits": ("fastapi",),
    "limits_pools": ("fastapi", "sqlalchemy"),
}

# ---------------------------------------------------------------- handlers


class Handler(NamedTuple):
    """A kind of handler: how many requests can be in it at a time in one ASGI process, and why."""

    slots: float | None
    why: str
    passes: tuple[float, ...] = (1.0,)  # of a request through the slots, see model.Service
    inside: float = NO_LIMIT  # how many of those in it it works on, if there is a limit inside


HANDLERS = {
    None: Handler(None, "40 if the handler is a `def`, no limit if it is an `async def` that awaits, 1 if that blocks"),
    "def": Handler(ANYIO_THREADS, "AnyIO runs `def` handlers in at most {anyio_threads} threads"),
    "def with a response model": Handler(
        ANYIO_THREADS,
        "AnyIO runs `def` handlers in at most {anyio_threads} threads, and serialises a typed answer in one of them"
        " again",
        (1.0, 0.0),
    ),
    "async": Handler(NO_LIMIT, "an `async def` that awaits holds nothing while it waits"),
    "async body of a def": Handler(
        NO_LIMIT, "the handler is a `def` that ends before its answer does; its body is assumed to need no thread"
    ),
    "blocking": Handler(1, "a blocking call in `async def` stops the event loop"),
    "def in 100 threads": Handler(100, "the app has raised AnyIO's limit to 100 threads"),
    "async in asyncio's threads": Handler(
        NO_LIMIT,
        "asyncio.to_thread has a thread pool of its own, of min(32, CPUs + 4)",
        inside=min(32, (getattr(os, "process_cpu_count", os.cpu_count)() or 1) + 4),  # Python 3.13 has the former
    ),
    "async in AnyIO's threads": Handler(
        NO_LIMIT, "run_in_threadpool takes one of AnyIO's {anyio_threads} threads", inside=ANYIO_THREADS
    ),
    # asgiref's ThreadSensitiveContext, one for each request
    "def in a thread of its own": Handler(NO_LIMIT, "Django runs each request's synchronous view in its own thread"),
    "def with a connection": Handler(
        ANYIO_THREADS, "AnyIO has {anyio_threads} threads, and SQLAlchemy's pool 5 + 10 connections", inside=15
    ),
}

# ---------------------------------------------------------------- targets


class Route(NamedTuple):
    path: str
    app: str  # module:attribute in apps/
    handler: str | None  # a key of HANDLERS
    # How long a request waits: the task time, a subtask's share of it, as ?ms= says, or as long as its database takes.
    waits: Literal["task", "subtask", "ms", "nothing", "unknown"] = "task"
    draws: bool = False  # takes --cpu-time, and draws its wait as --task-time says


class Target(NamedTuple):
    """One of our apps behind a server."""

    server: str  # a key of SERVERS
    routes: tuple[Route, ...]
    workers: int = 1
    pool: int = 0  # database connections of each process; 0: it uses no database


FLASK_SYNC = Route("/io", "flask_sync:app", "def", draws=True)
FLASK = (
    FLASK_SYNC,
    Route("/async-io", "flask_async:app", "async"),
    Route("/async-io-multi", "flask_async:app", "async", "subtask"),
)
FASTAPI = (
    Route("/io", "fastapi_sync:app", "def", draws=True),
    Route("/async-io", "fastapi_async:app", "async", draws=True),
    Route("/async-io-multi", "fastapi_async:app", "async", "subtask"),
)
LIMITS_HANDLERS = (
    Route("/async", "limits_handlers:app", "async"),
    Route("/def", "limits_handlers:app", "def"),
    Route("/executor", "limits_handlers:app", "async in asyncio's threads"),
    Route("/threadpool", "limits_handlers:app", "async in AnyIO's threads"),
    Route("/blocking", "limits_handlers:app", "blocking"),
    Route("/half-blocking", "limits_handlers:app", None, "unknown"),
)
LIMITS_POOLS = tuple(
    Route(path, "limits_pools:app", "def with a connection") for path in ("/depends", "/untyped", "/with")
)
FLASK_HELLO = (Route("/", "flask_hello:app", "def", "nothing"),)
FASTAPI_HELLO = (Route("/", "fastapi_hello:app", "async", "nothing"),)


def books(app: str, handler: str) -> tuple[Route, ...]:
    return Route("/v1/sleep", app, handler, "ms"), Route("/v1/books/1", app, handler, "unknown")


TARGETS = {
    "flask-dev": Target("flask-dev", FLASK),
    "flask-waitress": Target("waitress", FLASK),
    "flask-gunicorn": Target("gunicorn", FLASK, 4),
    "flask-gunicorn-threads": Target("gunicorn-threads", FLASK, 4),
    "flask-gunicorn-gevent": Target("gunicorn-gevent", (FLASK_SYNC,)),
    "fastapi-uvicorn": Target("uvicorn", FASTAPI),
    "fastapi-uvicorn-workers": Target("uvicorn", FASTAPI, 4),
    "fastapi-gunicorn": Target("gunicorn-uvicorn", FASTAPI, 4),
    "fastapi-gunicorn-asgi": Target("gunicorn-asgi", FASTAPI, 4),
    "fastapi-blocking": Target("uvicorn", (Route("/sleep", "fastapi_blocking:app", "blocking"),)),
    "fastapi-fixed": Target("uvicorn", (Route("/sleep", "fastapi_fixed:app", "async"),)),
    "fastapi-typed": Target("uvicorn", (Route("/io", "fastapi_typed:app", "def with a response model"),)),
    "fastapi-threads": Target("uvicorn", (Route("/io", "fastapi_threads:app", "def in 100 threads"),), 4),
    "flask-hello-dev": Target("flask-dev", FLASK_HELLO),
    "flask-hello-dev-backlog": Target("flask-dev", (Route("/", "flask_backlog:app", "def", "nothing"),)),
    "flask-hello-waitress": Target("waitress", FLASK_HELLO),
    "flask-hello-gunicorn": Target("gunicorn", FLASK_HELLO, 4),
    "fastapi-hello-uvicorn": Target("uvicorn", FASTAPI_HELLO),
    "fastapi-hello-uvicorn-workers": Target("uvicorn", FASTAPI_HELLO, 4),
    "fastapi-hello-gunicorn": Target("gunicorn-uvicorn", FASTAPI_HELLO, 4),
    "fastapi-hello-gunicorn-asgi": Target("gunicorn-asgi", FASTAPI_HELLO, 4),
    "flask-books": Target("gunicorn-threads", books("flask_books:app", "def"), 4, pool=4),
    "fastapi-books": Target("uvicorn", books("fastapi_books:app", "async"), 4, pool=15),
    "limits-handlers": Target("uvicorn", LIMITS_HANDLERS),
    "limits-pools": Target("uvicorn", LIMITS_POOLS),
}


class TaskTime(float):
    """What a request waits, in seconds, and how it is drawn for each request: one of model.DISTRIBUTIONS."""

    distribution = "constant"


# ---------------------------------------------------------------- workloads of the Books API


class Workload(NamedTuple):
    kinds: tuple[tuple[float, str, str, str], ...]  # share, method, path, body; see run.Kind
    stages: tuple[tuple[float, int], ...]  # seconds, and the users at their end
    wait_s: float | None = None  # None: not known


BOOK = f"/v1/books/{{random:1:{SEEDED_BOOKS}}}"
WORKLOADS = {  # of "Async FastAPI, Measured" (bilouro, 2026), as its k6 scripts have them
    "read": Workload(((1.0, "GET", BOOK, ""),), ((15, 50), (15, 200), (20, 500), (20, 1000), (20, 1000))),
    "mixed": Workload(
        (
            (0.70, "GET", BOOK, ""),
            (0.25, "POST", "/v1/books", '{"title":"New","author":"Bench","year":2026,"isbn":"bench-{n}"}'),
            (0.05, "PATCH", BOOK, '{"year":1999}'),
        ),
        ((15, 100), (20, 300), (25, 500), (20, 500)),
    ),
    "fanout": Workload(((1.0, "GET", "/v1/sleep?ms=50", ""),), ((15, 50), (20, 200), (25, 500), (20, 500)), 0.05),
}
