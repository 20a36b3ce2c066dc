"""What an app says of itself before a server runs it: one JSON line about MODULE:APP at METHOD PATH, in SECONDS.

    python engine/inside/about_app.py main:app GET /items/7 30
    python engine/inside/about_app.py 'shop.web:create_app("production")' GET / 30

Run it in the folder of the app, with the Python that has its packages; it needs none itself. The app is loaded as a
server would load it, but not started: no lifespan, no request. If it does not load, the last line of stderr says why,
as "ImportError: ... (main.py, line 3)". In the JSON, which fills a Launch of engine/launch.py:

    app        its name; MODULE:APP() if that was a function that makes the app
    server     what has to serve it: gunicorn (WSGI), uvicorn (ASGI), or null if neither
    routes     paths that it has
    imported   distributions that the app has imported, of those that are known to bring a limit
    handler    the kind of handler that METHOD PATH meets, a key of HANDLERS; left out where it is not known
    handlers   those that it may be: an `async def` may block, or wait in a `def` dependency
    passes     how a request goes through AnyIO's threads: 0 for each `def` dependency, 1 for the handler, 0 for the
               response model of a `def`, or its return annotation, by which FastAPI serialises. Not in it: background
               tasks, files, and what the handler itself sends into threads
    goes_first whether no code of the app runs before a handler: no dependency, and no middleware
"""

import contextlib
import functools
import inspect
import json
import os
import re
import signal
import sys
import traceback

OWN_ROUTES = ("", "/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc", "/static/<path:filename>")
MOST_ROUTES = 20
WRAPPED = ("app", "application", "wsgi_application", "wsgi_app", "_app")  # where a wrapper keeps what it wraps
SUSPECTS = (  # modules of packages that are known to bring a limit, see engine/limits.py
    "aiohttp", "anyio", "asgiref", "asyncpg", "httpx", "psycopg_pool", "redis", "sqlalchemy",
)  # fmt: skip


def about(name, method, path):
    """The whole answer, see the manual above."""
    app, said = load_app(name), {}
    if not name.endswith(")") and inspect.isroutine(app) and needed_arguments(app) == 0:
        app, name = app(), f"{name}()"
    inner, inner_server, ask = unwrap(app)
    server = inner_server
    if callable(app):  # WSGI or ASGI, by what it takes when it is called: 2 arguments, or 3 and awaited
        server = "uvicorn" if is_awaited(app) else {2: "gunicorn", 3: "uvicorn"}.get(needed_arguments(app), server)
    if server == inner_server:  # else an adapter between WSGI and ASGI is around it, with threads of its own
        with contextlib.suppress(Exception):  # no such path, or another version of the framework: not known
            said = ask(inner, method, path.partition("?")[0])
    if inner is not app:  # what is around it may have code of its own
        said["goes_first"] = False
    with contextlib.suppress(Exception):
        said = said | {"routes": routes_of(inner)}
    imported = [module.replace("_", "-") for module in SUSPECTS if module in sys.modules]
    return {"app": name, "server": server, "imported": imported} | said


def routes_of(app):
    """The paths of a FastAPI, Starlette or Flask app."""
    found = [str(rule) for rule in app.url_map.iter_rules()] if hasattr(app, "url_map") else [
        getattr(one, "path", "") for one in app.routes
    ]  # fmt: skip
    return [path for path in found if path not in OWN_ROUTES][:MOST_ROUTES]


def needed_arguments(call):
    """How many arguments a callable cannot do without, any number counted as one."""
    parameters = inspect.signature(call).parameters.values()
    return sum(one.default is one.empty and one.kind <= one.VAR_POSITIONAL for one in parameters)


def unwrap(app):
    """The framework's app inside, what has to serve that, and how to ask it: all None if there is none."""
    for _ in range(20):
        for cls in type(app).__mro__:
            if found := FRAMEWORKS.get(f"{cls.__module__}.{cls.__name__}"):
                return app, *found
        app = next((getattr(app, name) for name in WRAPPED if hasattr(app, name)), None)
    return None, None, None


def one_line(error):
    """The error, and the user's own line that it came from; a SyntaxError names it itself."""
    said = " ".join(f"{type(error).__name__}: {error}".split())[:400]
    for file, line, *_ in reversed(traceback.extract_tb(error.__traceback__)):
        is_own = file.startswith(os.getcwd()) and not re.search("site-packages|_bench_", file)
        if is_own and not isinstance(error, SyntaxError):
            return f"{said} ({os.path.relpath(file)}, line {line})"
    return said


# ---------------------------------------------------------------- its route, by framework


def handled(call, handler="def", unwraps=True, **more):
    """What an answer says of a handler: `handler` unless it is an `async def`."""
    return {"handlers": ["async", "blocking"]} if is_awaited(call, unwraps) else {"handler": handler} | more


def about_starlette(app, method, path):
    """FastAPI and Starlette: whatever their own routes say that they match, mounted apps included."""
    scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
    endpoint, apps = None, []
    while endpoint is None:
        apps.append(app)
        # Newer versions of FastAPI keep included routers apart.
        routes = getattr(sys.modules.get("fastapi.routing"), "iter_route_contexts", list)(app.routes)
        route, more = next((one, found[1]) for one in routes if (found := one.matches(scope))[0].name == "FULL")
        scope |= more
        endpoint = getattr(route, "endpoint", None)
        app = endpoint or unwrap(route.app)[0]  # static files have no routes
    if inspect.isclass(endpoint):  # starlette.endpoints.HTTPEndpoint
        endpoint = getattr(endpoint, method.lower())
    dependencies = [*solved(getattr(route, "dependant", None), set())]
    passes = [0.0 for awaited in dependencies if not awaited] + [1.0]
    said = handled(
        endpoint,
        unwraps=hasattr(route, "dependant"),
        passes=passes + [0.0] * bool(getattr(route, "response_field", None)),
        goes_first=not dependencies and not any(map(has_middleware, apps)),
    )
    if "handlers" in said and len(passes) > 1:  # a `def` dependency runs in a thread, and may be what waits
        said["handlers"] = ["async", "def", "blocking"]
    return said


def has_middleware(app):
    """Whether an app has other middleware than Starlette's own; or that is not known."""
    return bool(getattr(app, "user_middleware", True))


def solved(dependant, known):
    """Whether each dependency is awaited, in the order in which FastAPI solves them, each once for a request.

    Source: fastapi/dependencies/utils.py solve_dependencies().
    """
    for part in getattr(dependant, "dependencies", ()):
        yield from solved(part, known)
        key = getattr(part, "cache_key", None) or part.call  # until FastAPI made a function of it
        if not (part.use_cache and key in known):
            yield is_awaited(part.call)
        known.add(key)


def is_awaited(call, unwraps=True):
    """Whether FastAPI and Starlette await a callable; else it runs in a thread.

    As fastapi/dependencies/models.py asks it: through functools.partial and functools.wraps, and of an object its
    __call__. A class is called in a thread. unwraps: Starlette's own routes do not look behind functools.wraps.
    """
    while isinstance(call, functools.partial):
        call = call.func
    behind = inspect.unwrap if unwraps else lambda face: face
    faces = [call, behind(call)]
    if not inspect.isclass(faces[1]):
        faces += [behind(face.__call__) for face in faces]
    return any(inspect.iscoroutinefunction(face) or inspect.isasyncgenfunction(face) for face in faces)


def about_flask(app, method, path):
    endpoint, _ = app.url_map.bind("127.0.0.1").match(path, method)
    view = app.view_functions[endpoint]
    return handled(getattr(getattr(view, "view_class", None), method.lower(), view))


def about_django(app, method, path):
    from django.urls import resolve

    return handled(resolve(path).func, "def in a thread of its own")


FRAMEWORKS = {  # the class of an app -> what has to serve it, and how to ask it
    "flask.app.Flask": ("gunicorn", about_flask),
    "starlette.applications.Starlette": ("uvicorn", about_starlette),
    "starlette.routing.Router": ("uvicorn", about_starlette),
    "django.core.handlers.asgi.ASGIHandler": ("uvicorn", about_django),
    "django.core.handlers.wsgi.WSGIHandler": ("gunicorn", about_django),
}


if __name__ == "__main__":
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "wrap"))
    from _bench_load_app import load_app

    answer = os.dup(1)
    os.dup2(2, 1)  # whatever the app prints, in Python or in C, is not the answer
    sys.path[0] = os.getcwd()  # not the folder of this file
    *asked, timeout_s = sys.argv[1:]  # of a module that starts a server when it is imported, say
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"not loaded after {timeout_s} s (--start-timeout)"))
    signal.alarm(int(timeout_s))
    try:
        os.write(answer, json.dumps(about(*asked)).encode())
    except BaseException as error:  # sys.exit() too
        os.write(2, f"\n{one_line(error)}\n".encode())
    os._exit(0)  # threads that the app has started would hold it
