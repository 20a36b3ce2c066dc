"""Write one access-log line a request, stamped when its handler *started*, around any app and without touching it.

    [2026-11-20 17:04:15.123] [pid-4711] GET /io 200 1.0012s #7 @5123.456789

Status, duration, then what matches the line to a client's record: the request's X-Request-Id (or -) and the handler's
start on the system's monotonic clock. Servers' own logs stamp the end of a request, which hides who had to wait.
Each process writes `ready` once it can take requests, `forks` if it forks before it had any (then it is a master that
has preloaded the app), and `failed` with the reason if the app cannot be loaded. A `def` handler of FastAPI starts
when AnyIO gives it a thread and ends when it returns it: both are caught where AnyIO enters the thread. Other handlers
end with the last byte that they hand to the server.

Serve any app with it by hand; without BENCH_LOG=FILE the lines go to stderr:

    BENCH_APP=flask_sync:app gunicorn --workers 4 --chdir apps access_log:wsgi
    BENCH_APP=fastapi_sync:app uvicorn --app-dir apps access_log:asgi
    BENCH_APP=flask_sync:app flask --app apps/access_log:flask_app run

BENCH_APP may also be called or dotted: module:create_app(), module:create_app("production"), package.mod:object.app.
"""

import ast
import contextlib
import contextvars
import functools
import importlib
import os
import sys
import time
import traceback
from datetime import datetime
from urllib.parse import quote

# O_APPEND and one write a line: lines of many processes and threads never mix.
LOG_FD = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) if (path := os.environ.get("BENCH_LOG")) else 2
ZONE = datetime.now().astimezone().tzinfo  # as it is before the app is loaded: Django changes it
request_call = contextvars.ContextVar("request_call")
calls = 0  # of the app, in this process


def write_line(text, wall_s=None):
    stamp = datetime.fromtimestamp(time.time() if wall_s is None else wall_s, ZONE).replace(tzinfo=None)
    os.write(LOG_FD, f"[{stamp.isoformat(' ', 'milliseconds')}] [pid-{os.getpid()}] {text}\n".encode())


def say_ready():
    """This worker, and each that is forked from it; a process that forks before its first request is a master."""
    write_line("ready")
    os.register_at_fork(
        before=lambda: None if calls else write_line("forks"), after_in_child=lambda: calls or write_line("ready")
    )


def say_failed(error):
    """In one line, whatever it was: an import that raises, a sys.exit(), a startup that ends in a traceback."""
    write_line(f"failed {' '.join(f'{type(error).__name__}: {error}'.split())[:500]}")


class Call:
    """One request in the app: from its call, or from when its handler had a thread, to the last byte handed over."""

    def __init__(self, scope=None):
        global calls
        calls += 1
        self.scope, self.held_s, self.end_s = scope or {}, 0.0, None
        self.wall_s, self.start_s = time.time(), time.perf_counter()

    def ends(self):
        self.end_s = time.perf_counter()

    def held(self, func, wall_s, start_s):
        """A thread was held from start_s until now: the handler's own hold counts, else the longest."""
        held_s = time.perf_counter() - start_s
        if getattr(func, "func", func) is self.scope.get("endpoint"):
            held_s += 1e6  # nothing is longer
        if held_s > self.held_s:
            self.held_s, self.wall_s, self.start_s = held_s, wall_s, start_s

    def log(self, method, path, query, status, request_id):
        target = quote(f"{path}?{query}" if query else path, safe="/?&=%:,+;@")[:2000]
        duration_s = self.held_s % 1e6 or (self.end_s or time.perf_counter()) - self.start_s
        request_id = quote(request_id)[:100]
        write_line(
            f"{quote(method)} {target} {status} {duration_s:.4f}s #{request_id} @{self.start_s:.6f}", self.wall_s
        )


class WSGI:
    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        call, status = Call(), ["-"]

        def record_status(line, headers, exc_info=None):
            status[0] = line[:3]
            return start_response(line, headers, exc_info)

        def log():
            request_id = environ.get("HTTP_X_REQUEST_ID", "-")
            query = environ.get("QUERY_STRING", "")
            call.log(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""), query, status[0], request_id)

        try:
            return Body(self.app(environ, record_status), call, log)
        except BaseException:
            log()
            raise


class Body:
    """A response body that logs when the server closes it, as WSGI says it must after the last byte.

    By then the client may have sent its next request: what counts as the end is when that byte was handed over.
    """

    def __init__(self, body, call, log):
        self.body, self.call, self.log = body, call, log

    def __iter__(self):
        for part in self.body:
            self.call.ends()
            yield part

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
        call, status = Call(scope), ["-"]
        request_call.set(call)

        async def record_status(message):
            if message["type"] == "http.response.start":
                status[0] = message["status"]
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
            request_id = dict(scope["headers"]).get(b"x-request-id", b"-").decode("latin-1")
            query = scope["query_string"].decode("latin-1")
            call.log(scope["method"], scope["path"], query, status[0], request_id)

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
    """Have AnyIO's threads tell the request that they work for how long they were held."""
    try:
        from anyio import to_thread
    except ImportError:  # an ASGI app without AnyIO has none of its threads
        return
    run_sync = to_thread.run_sync

    async def stamped_run_sync(func, *args, **kwargs):
        call = request_call.get(None)

        def stamped(*args):
            wall_s, start_s = time.time(), time.perf_counter()
            try:
                return func(*args)
            finally:
                if call:
                    call.held(func, wall_s, start_s)

        return await run_sync(stamped, *args, **kwargs)

    to_thread.run_sync = stamped_run_sync


def load_app(name):
    """The object that "module:attribute" names; the attribute may be dotted, or called with literal arguments."""
    module, _, expression = name.partition(":")
    node, arguments, keywords = ast.parse(expression or "app", mode="eval").body, None, {}
    if isinstance(node, ast.Call):
        arguments = [ast.literal_eval(argument) for argument in node.args]
        keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
        node = node.func
    app = functools.reduce(getattr, ast.unparse(node).split("."), importlib.import_module(module))
    return app if arguments is None else app(*arguments, **keywords)


@functools.cache
def wrapped(kind):
    try:
        app = load_app(os.environ["BENCH_APP"])
    except BaseException as error:  # sys.exit() too; some servers would start such a worker again for ever
        say_failed(error)
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
    """Load the app that APP names only when a server asks for one of these; `bare` says ready, and logs nothing."""
    if name not in ("wsgi", "asgi", "flask_app", "bare"):
        raise AttributeError(name)
    return wrapped(name)


if "BENCH_WRAP" in os.environ:  # for a server that looks for the name without asking for it (hypercorn)
    globals()[os.environ["BENCH_WRAP"]] = wrapped(os.environ["BENCH_WRAP"])
