"""Write one access-log line a request around any app and without touching it. See _bench_log_line.py for the lines.

Each process writes `ready` once it can take requests, `forks` if it forks before it had any (then it is a master that
has preloaded the app), and `failed` with the reason if the app cannot be loaded. A `def` handler of FastAPI starts
when AnyIO gives it a thread and ends when it returns it: both are caught where AnyIO enters the thread. Other handlers
end with the last byte that they hand to the server.

Serve any app with it by hand; without BENCH_LOG=FILE the lines go to stderr:

    export PYTHONPATH=engine/inside/wrap:apps
    BENCH_APP=flask_sync:app gunicorn --workers 4 _bench_wrapper:wsgi
    BENCH_APP=fastapi_sync:app uvicorn _bench_wrapper:asgi
    BENCH_APP=flask_sync:app flask --app _bench_wrapper:flask_app run

_bench_load_app.py says what else BENCH_APP may be.
"""

import asyncio
import contextlib
import contextvars
import functools
import os
import sys
import time
import traceback
from inspect import iscoroutinefunction

from _bench_load_app import load_app
from _bench_log_line import log_line, request_text, start_text

# O_APPEND and one write a line: lines of many processes and threads never mix.
LOG_FD = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) if (path := os.environ.get("BENCH_LOG")) else 2
IS_LIVE = "BENCH_LIVE" in os.environ  # write a line when a handler starts, too
request_call = contextvars.ContextVar("request_call")
calls = 0  # of the app, in this process


def write_line(text, wall_s=None):
    os.write(LOG_FD, log_line(text, wall_s))


def say_ready():
    """This worker, and each that is forked from it; a process that forks before its first request is a master."""
    write_line("ready")
    os.register_at_fork(
        before=lambda: None if calls else write_line("forks"), after_in_child=lambda: calls or write_line("ready")
    )


class Call:
    """One request in the app: from its call, or from when its handler had a thread, to the last byte handed over."""

    def __init__(self, method, path, query, request, scope=None):
        global calls
        calls += 1
        self.method, self.target, self.request = method, f"{path}?{query}" if query else path, request
        self.scope, self.held_s, self.end_s, self.status = scope or {}, 0.0, None, "-"
        self.wall_s, self.start_s, self.is_told = time.time(), time.perf_counter(), not IS_LIVE

    def starts(self, wall_s=None):
        """Say so, once, where the log is shown live."""
        if not self.is_told:
            self.is_told = True
            write_line(start_text(self.method, self.target, self.request), wall_s or self.wall_s)

    def starts_unless_in_thread(self):
        """By now the route is known: a `def` endpoint starts when it has a thread."""
        endpoint = self.scope.get("endpoint")
        if endpoint is None or iscoroutinefunction(endpoint):
            self.starts()

    def ends(self):
        self.end_s = time.perf_counter()

    def held(self, func, wall_s, start_s):
        """A thread was held from start_s until now: the handler's own hold counts, else the longest."""
        held_s = time.perf_counter() - start_s
        if getattr(func, "func", func) is self.scope.get("endpoint"):
            held_s += 1e6  # nothing is longer
        if held_s > self.held_s:
            self.held_s, self.wall_s, self.start_s = held_s, wall_s, start_s

    def log(self):
        self.starts()
        duration_s = self.held_s % 1e6 or (self.end_s or time.perf_counter()) - self.start_s
        text = request_text(self.method, self.target, self.status, duration_s, self.request, self.start_s)
        write_line(text, self.wall_s)


class WSGI:
    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        request = environ.get("HTTP_X_REQUEST_ID", "-")
        path, query = environ.get("PATH_INFO", ""), environ.get("QUERY_STRING", "")
        call = Call(environ["REQUEST_METHOD"], path, query, request)
        call.starts()

        def record_status(line, headers, exc_info=None):
            call.status = line[:3]
            return start_response(line, headers, exc_info)

        try:
            return Body(self.app(environ, record_status), call)
        except BaseException:
            call.log()
            raise


class Body:
    """A response body that logs when the server closes it, as WSGI says it must after the last byte.

    By then the client may have sent its next request: what counts as the end is when that byte was handed over.
    """

    def __init__(self, body, call):
        self.body, self.call = body, call

    def __iter__(self):
        for part in self.body:
            self.call.ends()
            yield part

    def close(self):
        try:
            getattr(self.body, "close", lambda: None)()
        finally:
            self.call.log()


class ASGI:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await (self.lifespan if scope["type"] == "lifespan" else self.app)(scope, receive, send)
        request = dict(scope["headers"]).get(b"x-request-id", b"-").decode("latin-1")
        call = Call(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), request, scope)
        request_call.set(call)
        if IS_LIVE:
            asyncio.get_running_loop().call_soon(call.starts)  # by then the route is known

        async def record_status(message):
            if message["type"] == "http.response.start":
                call.status = message["status"]
            else:
                call.ends()
            await send(message)

        try:
            await self.app(scope, receive, record_status)
        except Exception:
            if "gunicorn.workers.gasgi" in sys.modules:  # it says nothing of an app that raises after its answer
                traceback.print_exc()
            raise
        finally:
            call.log()

    async def lifespan(self, scope, receive, send):
        has_answered = False

        async def announce(message):
            nonlocal has_answered
            has_answered = True
            if message["type"] == "lifespan.startup.failed":  # its message is the text of a traceback, or a sentence
                said = (message.get("message") or "").strip() or "in its startup"
                write_line(f"failed {said.splitlines()[-1][:500]}")
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                say_threads()
                say_ready()

        try:
            await self.app(scope, receive, announce)
        except Exception:  # an app need not speak lifespan; servers take the exception for that answer
            if not has_answered:
                say_ready()
            raise


def say_threads():
    """AnyIO's limit, as it stands when the app has started; nothing where no AnyIO is."""
    with contextlib.suppress(ImportError, RuntimeError, LookupError):
        from anyio import to_thread

        write_line(f"threads {to_thread.current_default_thread_limiter().total_tokens:.0f}")


def stamp_in_thread():
    """Have AnyIO's threads tell the request that they work for how long they were held.

    The handler's own hold counts, else the longest.
    """
    try:
        from anyio import to_thread
    except ImportError:  # an ASGI app without AnyIO has none of its threads
        return
    run_sync = to_thread.run_sync

    async def stamped_run_sync(func, *args, **kwargs):
        call = request_call.get(None)

        def stamped(*args):
            wall_s, start_s = time.time(), time.perf_counter()
            if call and getattr(func, "func", func) is call.scope.get("endpoint"):
                call.starts(wall_s)
            try:
                return func(*args)
            finally:
                if call:
                    call.held(func, wall_s, start_s)

        return await run_sync(stamped, *args, **kwargs)

    to_thread.run_sync = stamped_run_sync


@functools.cache
def wrapped(kind):
    try:
        app = load_app(os.environ["BENCH_APP"])
    except BaseException as error:  # sys.exit() too; some servers would start such a worker again for ever
        write_line(f"failed {' '.join(f'{type(error).__name__}: {error}'.split())[:500]}")
        raise
    if kind == "asgi":
        stamp_in_thread()
        return ASGI(app)
    if kind == "flask_app":  # the `flask` command takes only a Flask object
        app.wsgi_app = WSGI(app.wsgi_app)
    elif kind == "wsgi":
        app = WSGI(app)
    say_ready()
    return app


def __getattr__(name):
    """The app that BENCH_APP names, loaded only when a server asks for one of these; `bare` logs no requests."""
    if name not in ("wsgi", "asgi", "flask_app", "bare"):
        raise AttributeError(name)
    return wrapped(name)


if kind := os.environ.get("BENCH_WRAP"):  # for a server that looks for the name without asking for it (hypercorn)
    globals()[kind] = wrapped(kind)
