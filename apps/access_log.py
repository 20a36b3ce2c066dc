"""Write one access-log line a request, stamped when its handler *started*, around any app and without touching it.

    [2026-11-20 17:04:15.123] [pid-4711] GET /io 200 1.0012s #7 @5123.456789

Status, duration, then what matches the line to a client's record: the request's X-Request-Id (or -) and the handler's
start on the system's monotonic clock. Servers' own logs stamp the end of a request, which hides who had to wait.
Each process writes `ready` once it can take requests. A `def` handler of FastAPI starts when AnyIO gives it a thread,
not when the request arrives: that moment is caught where AnyIO enters the thread.

Serve any app with it by hand; without ACCESS_LOG=FILE the lines go to stderr:

    APP=flask_sync:app gunicorn --workers 4 --chdir apps access_log:wsgi
    APP=fastapi_sync:app uvicorn --app-dir apps access_log:asgi
    APP=flask_sync:app flask --app apps/access_log:flask_app run
"""

import contextvars
import importlib
import os
import time
from datetime import datetime
from urllib.parse import quote

# O_APPEND and one write a line: lines of many processes and threads never mix.
LOG_FD = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) if (path := os.environ.get("ACCESS_LOG")) else 2
request_start = contextvars.ContextVar("request_start")


def write_line(text, wall_s=None):
    stamp = datetime.fromtimestamp(time.time() if wall_s is None else wall_s).isoformat(" ", "milliseconds")
    os.write(LOG_FD, f"[{stamp}] [pid-{os.getpid()}] {text}\n".encode())


class Start:
    """When a request's handler started: at the latest when the app was called, later if it waited for a thread."""

    def __init__(self):
        self.in_thread = False
        self.now()

    def now(self):
        self.wall_s, self.monotonic_s = time.time(), time.perf_counter()

    def log(self, method, path, query, status, request_id):
        target = quote(f"{path}?{query}" if query else path, safe="/?&=%:,+;@")[:2000]
        duration_s = time.perf_counter() - self.monotonic_s
        request_id = quote(request_id)[:100]
        write_line(
            f"{quote(method)} {target} {status} {duration_s:.4f}s #{request_id} @{self.monotonic_s:.6f}", self.wall_s
        )


class WSGI:
    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        start, status = Start(), ["-"]

        def record_status(line, headers, exc_info=None):
            status[0] = line[:3]
            return start_response(line, headers, exc_info)

        def log():
            request_id = environ.get("HTTP_X_REQUEST_ID", "-")
            query = environ.get("QUERY_STRING", "")
            start.log(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""), query, status[0], request_id)

        try:
            return Body(self.app(environ, record_status), log)
        except BaseException:
            log()
            raise


class Body:
    """A response body that logs when the server closes it, as WSGI says it must after the last byte."""

    def __init__(self, body, log):
        self.body, self.log = body, log

    def __iter__(self):
        return iter(self.body)

    def close(self):
        try:
            getattr(self.body, "close", lambda: None)()
        finally:
            self.log()


class ASGI:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return await self.lifespan(scope, receive, send)
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start, status = Start(), ["-"]
        request_start.set(start)

        async def record_status(message):
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, record_status)
        finally:
            request_id = dict(scope["headers"]).get(b"x-request-id", b"-").decode("latin-1")
            query = scope["query_string"].decode("latin-1")
            start.log(scope["method"], scope["path"], query, status[0], request_id)

    async def lifespan(self, scope, receive, send):
        async def announce(message):
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                write_line("ready")

        try:
            await self.app(scope, receive, announce)
        except Exception:  # an app need not speak lifespan; servers take the exception for that answer
            write_line("ready")
            raise


def stamp_in_thread():
    """Have AnyIO's threads set the start of the request they work for, at the first entry of each request."""
    from anyio import to_thread

    run_sync = to_thread.run_sync

    async def stamped_run_sync(func, *args, **kwargs):
        start = request_start.get(None)

        def stamped(*args):
            if start and not start.in_thread:
                start.in_thread = True
                start.now()
            return func(*args)

        return await run_sync(stamped, *args, **kwargs)

    to_thread.run_sync = stamped_run_sync


def __getattr__(name):
    """Wrap the app named by APP only when a server asks for one of these names."""
    if name not in ("wsgi", "asgi", "flask_app"):
        raise AttributeError(name)
    module, _, attribute = os.environ["APP"].partition(":")
    app = getattr(importlib.import_module(module), attribute or "app")
    if name == "asgi":
        stamp_in_thread()
        return ASGI(app)
    if name == "flask_app":  # the `flask` command takes only a Flask object
        app.wsgi_app = WSGI(app.wsgi_app)
    else:
        app = WSGI(app)
    write_line("ready")
    return app
