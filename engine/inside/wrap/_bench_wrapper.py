"""Write one access-log line a request around any app and without touching it. See _bench_log_line.py for the lines.

Each process writes `ready` once it can take requests, `forks` if it forks before it had any (then it is a master that
has preloaded the app), and `failed` with the reason if the app cannot be loaded. A `def` handler of FastAPI starts
when AnyIO gives it a thread and ends when it returns it: both are caught where AnyIO enters the thread. Other handlers
end with the last byte that they hand to the server.

Serve any app with it by hand; without BENCH_LOG=FILE the lines go to stderr, and with BENCH_LIVE=1 there is also one
when a handler starts:

    export PYTHONPATH=engine/inside/wrap:apps
    BENCH_APP=flask_sync:app BENCH_WRAP=wsgi gunicorn --workers 4 _bench_wrapper:app
    BENCH_APP=fastapi_sync:app BENCH_WRAP=asgi uvicorn _bench_wrapper:app
    BENCH_APP=flask_sync:app BENCH_WRAP=flask_app flask --app _bench_wrapper:app run

_bench_load_app.py says what else BENCH_APP may be. BENCH_WRAP=bare logs no requests.
"""

import asyncio
import contextlib
import os
import re
import sys
import time
from inspect import iscoroutinefunction
from types import SimpleNamespace

import _bench_calls as tracked
import _bench_resources as resources
import _bench_sampler as sampler
from _bench_load_app import load_app
from _bench_log_line import log_line, quoted

# Appended to, in one write a line: lines of many processes and threads never mix.
LOG = open(os.environ.get("BENCH_LOG", "/dev/stderr"), "ab", buffering=0)  # noqa: SIM115
IS_LIVE = bool(os.environ.get("BENCH_LIVE"))  # write a line when a handler starts, too
calls = 0  # of the app, in this process


def write_line(text, wall_s=None):
    LOG.write(log_line(text, wall_s))


def say_ready():
    """This worker, and each that is forked from it; a process that forks before its first request is a master."""
    write_line("ready")
    os.register_at_fork(
        before=lambda: calls or write_line("forks"), after_in_child=lambda: calls or write_line("ready")
    )


class Call:
    """One request in the app: from its call, or from when its handler had a thread, to the last byte handed over."""

    def __init__(self, method, path, query, request, scope):
        global calls
        calls += 1
        self.text, self.request = quoted(method, f"{path}?{query}" if query else path, request)
        self.scope, self.status, self.is_told = scope, "-", not IS_LIVE
        self.wall_s, self.start_s, self.end_s = time.time(), time.perf_counter(), None
        self.is_answered, self.to_itself, self.queued, self.task, self.thread = False, None, {}, None, None
        sampler.start()
        tracked.begins(self)
        self.hold = ()  # of the thread of a `def` handler: how long, the wall_s and start_s of its start
        self.parts = 0  # of the body, that a `def` generator makes in a thread each

    def starts(self, wall_s=None):
        """Say so, once, where the log is shown live. A `def` endpoint starts when it has a thread: at wall_s."""
        endpoint = self.scope.get("endpoint")
        if not self.is_told and (wall_s or endpoint is None or iscoroutinefunction(endpoint)):
            self.is_told = True
            write_line(f"starts {self.text} #{self.request}", wall_s or self.wall_s)

    def log(self):
        tracked.ends(self)
        self.starts(self.wall_s)
        duration_s = (self.end_s or time.perf_counter()) - self.start_s
        if self.hold:
            held_s, wall_s, start_s = self.hold
            # Where threads make the body too, it is over with the last byte.
            duration_s = duration_s - (start_s - self.start_s) if self.parts else held_s
            self.wall_s, self.start_s = wall_s, start_s
        parts = f" in {self.parts} parts" * bool(self.parts)
        write_line(
            f"{self.text} {self.status} {duration_s:.4f}s #{self.request} @{self.start_s:.6f}{parts}", self.wall_s
        )


def wsgi(app):
    def serve(environ, start_response):
        path, query = environ.get("PATH_INFO", ""), environ.get("QUERY_STRING", "")
        number = environ.get("HTTP_X_REQUEST_ID", "-").rpartition(",")[2].strip()  # the client's comes last of several
        call = Call(environ["REQUEST_METHOD"], path, query, number, {})
        call.starts()

        def record_status(line, *rest):
            call.status = line[:3]
            return start_response(line, *rest)

        try:
            body = app(environ, record_status)
        except BaseException:
            call.log()
            raise
        kind = environ.get("wsgi.file_wrapper")
        return told_at_close(body, call) if is_gunicorns(kind) and isinstance(body, kind) else Body(body, call)

    return serve


def is_gunicorns(kind):
    """waitress's is closed by another thread, and when it is sent."""
    return type(kind) is type and kind.__module__ == "gunicorn.http.wsgi"


def told_at_close(body, call):
    """A server's own wrapper of a file, which it sends without reading it: it must stay what it is."""
    around = Body(body, call)
    close, body.close = getattr(body, "close", lambda: None), lambda: around.close()
    around.body = SimpleNamespace(close=close)
    return body


class Body:
    """A response body that logs when the server closes it, as WSGI says it must after the last byte.

    By then the client may have sent its next request: what counts as the end is when that byte was handed over.
    """

    def __init__(self, body, call):
        self.body, self.call = body, call

    def __iter__(self):
        for part in self.body:
            self.call.end_s = time.perf_counter()
            yield part

    def close(self):
        self.call.is_answered = True
        try:
            getattr(self.body, "close", lambda: None)()
        finally:
            self.call.log()


def asgi(app):
    async def serve(scope, receive, send):
        if scope["type"] != "http":
            return await (lifespan if scope["type"] == "lifespan" else app)(scope, receive, send)
        request = dict(scope["headers"]).get(b"x-request-id", b"-").decode("latin-1")
        call = Call(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), request, scope)
        if IS_LIVE:
            with contextlib.suppress(RuntimeError):  # trio
                asyncio.get_running_loop().call_soon(call.starts)  # by then the route is known

        async def record_status(message):
            if message["type"] == "http.response.start":
                call.status = message["status"]
            else:
                call.end_s = time.perf_counter()
            await send(message)
            call.is_answered = message["type"] == "http.response.body" and not message.get("more_body")

        try:
            await app(scope, receive, record_status)
        finally:
            call.log()

    async def lifespan(scope, receive, send):
        is_said = False

        async def announce(message):
            nonlocal is_said
            is_said = is_said or message["type"].startswith("lifespan.startup.")
            if message["type"] == "lifespan.startup.failed":  # its message is the text of a traceback, or a sentence
                said = re.split(r"\n\s.*\n(?=\S)", (message.get("message") or "").strip())[-1]
                write_line(f"failed {' '.join(said.split())[:500] or 'in its startup'}")
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                say_threads()
                say_ready()

        try:
            await app(scope, receive, announce)
        finally:  # an app need not speak lifespan: it may raise an exception, or return
            if not is_said:
                say_ready()

    return serve


def say_threads():
    """AnyIO's limit, as it stands when the app has started, or as it is asked for; nothing where no AnyIO is."""
    with contextlib.suppress(ImportError, RuntimeError, LookupError):
        from anyio import to_thread

        resources.default_limiter = to_thread.current_default_thread_limiter()
        if asked := os.environ.get("BENCH_ANYIO_THREADS"):
            resources.default_limiter.total_tokens = int(asked)
        write_line(f"threads {resources.default_limiter.total_tokens:.0f}")


def stamp_in_thread():
    """Have AnyIO's threads tell the request that they work for how long its `def` handler held one."""
    try:
        from anyio import to_thread
    except ImportError:  # an ASGI app without AnyIO has none of its threads
        return
    run_sync = to_thread.run_sync

    async def stamped_run_sync(func, *args, **kwargs):
        call = tracked.request_call.get()
        if call and "endpoint" not in call.scope:
            call.scope = routed_scope(sys._getframe(1)) or call.scope
        is_handler = call and is_handler_of(call, func)
        if call and getattr(func, "__name__", "") == "_next" and func.__module__ == "starlette.concurrency":
            call.parts += 1

        def stamped(*args):
            wall_s, start_s = time.time(), time.perf_counter()
            if is_handler:
                call.starts(wall_s)
            try:
                with tracked.works_for(call):
                    return func(*args)
            finally:
                if is_handler:
                    call.hold = time.perf_counter() - start_s, wall_s, start_s

        return await run_sync(stamped, *args, **kwargs)

    to_thread.run_sync = stamped_run_sync


FURTHER_OUT = 12  # frames


def routed_scope(frame):
    """The scope that the router has filled, where a middleware has copied it; None: none is filled yet."""
    for _ in range(FURTHER_OUT):
        scope = frame and frame.f_locals.get("scope")
        if type(scope) is dict and "endpoint" in scope:
            return scope
        frame = frame and frame.f_back
    return None


def is_handler_of(call, func):
    """Whether a function that goes to a thread is the request's handler, a method of a class that is, or calls a WSGI
    app."""
    if getattr(func, "__module__", "") == "starlette.middleware.wsgi":
        return True
    # The handler is in a functools.partial; newer versions of FastAPI call it through a `function` of theirs.
    faces = getattr(func, "func", func), getattr(func, "keywords", {}).get("function", func)
    endpoint = call.scope.get("endpoint")
    return endpoint and any(endpoint in (face, type(getattr(face, "__self__", None))) for face in faces)


@contextlib.contextmanager
def failure_is_written():
    """Why the app does not load; some servers would start such a worker again for ever."""
    try:
        yield
    except BaseException as error:  # sys.exit() too
        write_line(f"failed {' '.join(f'{type(error).__name__}: {error}'.split())[:500]}")
        raise


def wrapped(kind):
    if kind != "bare":
        tracked.watch()
    if kind == "asgi":  # before the app takes AnyIO's functions by their names
        stamp_in_thread()
    with failure_is_written():
        app = load_app(os.environ["BENCH_APP"])
    if kind != "bare":
        tracked.watch_imported()
    if kind == "asgi":
        return asgi(app)
    if kind == "flask_app":  # the `flask` command takes only a Flask object
        app.wsgi_app = wsgi(app.wsgi_app)
    elif kind == "wsgi":
        app = wsgi(app)
    if not (kind == "flask_app" and only_reloads()):
        say_ready()
    return app


def only_reloads():
    """Whether this is Flask's process that starts another one anew when a file changes, and serves nothing itself."""
    is_debug = os.environ.get("FLASK_DEBUG", "0").lower() not in ("", "0", "false", "no")  # --debug sets it, too
    reloads = "--reload" in sys.argv or (is_debug and "--no-reload" not in sys.argv)
    return reloads and os.environ.get("WERKZEUG_RUN_MAIN") != "true"


if os.environ.get("BENCH_WRAP", "run") != "run":  # else _bench_hooks.py wraps what the user's own command serves
    app = wrapped(os.environ["BENCH_WRAP"])
