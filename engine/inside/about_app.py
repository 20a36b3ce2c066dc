"""What an app says of itself before a server runs it: one JSON line about MODULE:APP at METHOD PATH.

    python engine/inside/about_app.py main:app GET /items/7
    python engine/inside/about_app.py 'shop.web:create_app("production")' GET /

Run it in the folder of the app, with the Python that has its packages; it needs none itself. The app is loaded as a
server would load it, but not started: no lifespan, no request. null is "not known" throughout.

    kind                wsgi or asgi: what a server has to speak
    framework           flask, fastapi, starlette or django; of the app inside, if others are wrapped around it
    factory             the object is a function that makes the app, and was called
    handler             whether METHOD PATH is run by a `def` or an `async def`
    thread_passes       how often, and in which order, a request takes one of AnyIO's threads: a "before" for each
                        `def` dependency, "handler", and "after" for the response model of a `def`, or its return
                        annotation, by which FastAPI serialises. [] is never. Not in it: background tasks, files, and
                        what the handler itself sends into threads
    yield_dependencies  those that hold what they opened until the answer is made
    packages            imported by the app, of those that are known to bring a limit
    error               the app's own error if it did not load: "ImportError: ... (main.py, line 3)"
"""

import asyncio
import functools
import inspect
import json
import os
import signal
import sys
import traceback

INSIDE = os.path.dirname(os.path.abspath(__file__))
LOAD_TIMEOUT_S = 30  # of a module that starts a server when it is imported, say
KINDS = {  # class of a framework's app -> its kind
    "Flask": "wsgi", "FastAPI": "asgi", "Starlette": "asgi", "Router": "asgi", "ASGIHandler": "asgi",
    "WSGIHandler": "wsgi",
}  # fmt: skip
WRAPPED = ("app", "application", "wsgi_application", "wsgi_app", "_app")  # where a wrapper keeps what it wraps
SUSPECTS = (  # modules of packages that are known to bring a limit, see engine/limits.py
    "sqlalchemy", "psycopg_pool", "asyncpg", "aiomysql", "asyncmy", "peewee", "pymongo", "redis", "httpx", "httpcore",
    "aiohttp", "asgiref", "a2wsgi",
)  # fmt: skip
iscoroutinefunction = inspect.iscoroutinefunction if sys.version_info >= (3, 12) else asyncio.iscoroutinefunction


def about(name, method, path):
    """The whole answer, see the manual above."""
    said = dict.fromkeys(("kind", "framework", "handler", "thread_passes", "yield_dependencies"))
    try:
        app = load_app(name)
        is_factory = not name.endswith(")") and inspect.isroutine(app) and needed_arguments(app) == 0
        if is_factory:
            app = app()
        inner, framework, inner_kind = unwrap(app)
        kind = inner_kind if inner is app else kind_of(app) or inner_kind
    except BaseException as error:  # sys.exit() too
        return said | {"factory": False, "packages": [], "error": one_line(error)}
    if kind == inner_kind:  # else an adapter between WSGI and ASGI is around it, with threads of its own
        said |= ask(inner, framework, method, path)
    packages = [module for module in SUSPECTS if module in sys.modules]
    return said | {
        "kind": kind, "framework": framework, "factory": is_factory, "packages": packages, "error": None
    }  # fmt: skip


def needed_arguments(call):
    """How many arguments a callable cannot do without; None: any number, or it does not say."""
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    return sum(p.kind <= p.POSITIONAL_OR_KEYWORD and p.default is p.empty for p in parameters)


def unwrap(app):
    """The framework's app inside, its framework and kind: all None if there is none."""
    inner = app
    for _ in range(20):
        for cls in type(inner).__mro__:
            framework = cls.__module__.partition(".")[0]
            if framework in ASK and cls.__name__ in KINDS:
                return inner, framework, KINDS[cls.__name__]
        inner = next((vars(inner)[name] for name in WRAPPED if name in getattr(inner, "__dict__", {})), None)
    return None, None, None


def kind_of(app):
    """wsgi or asgi, by what it takes when it is called: 2 arguments, or 3 and awaited."""
    if not callable(app):
        return None
    return "asgi" if runs(app)[0] else {2: "wsgi", 3: "asgi"}.get(needed_arguments(app))


def one_line(error):
    """The error, and the user's own line that it came from; a SyntaxError names it itself."""
    said = " ".join(f"{type(error).__name__}: {error}".split())[:400]
    here = os.getcwd() + os.sep
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = os.path.abspath(frame.filename)
        is_own = file.startswith(here) and not file.startswith(INSIDE) and "site-packages" not in file
        if is_own and not isinstance(error, SyntaxError):
            return f"{said} ({os.path.relpath(file)}, line {frame.lineno})"
    return said


# ---------------------------------------------------------------- its route, by framework


def ask(app, framework, method, path):
    """What its framework knows. What another version of it calls otherwise is not known, and no error of the app."""
    try:
        return ASK[framework](app, method, path)
    except Exception as error:  # of a path that it does not have, too
        print(f"about_app: {one_line(error)}", file=sys.stderr)
        return {}


def about_starlette(app, method, path):
    """FastAPI and Starlette: whatever their own routes say that they match, mounted apps included."""
    scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": [(b"host", b"127.0.0.1")]}
    while True:
        routes, routing = app.routes, sys.modules.get("fastapi.routing")
        if hasattr(routing, "iter_route_contexts"):  # newer versions of FastAPI keep included routers apart
            routes = routing.iter_route_contexts(routes)
        matches = ((route, *route.matches(scope)) for route in routes)
        route, more = next((route, more) for route, matched, more in matches if matched.name == "FULL")
        scope |= more
        if getattr(route, "endpoint", None) is not None:
            return about_endpoint(route, method)
        app = unwrap(getattr(route, "_base_app", None) or route.app)[0]  # static files have no routes


def about_endpoint(route, method):
    endpoint, dependant = route.endpoint, getattr(route, "dependant", None)
    if inspect.isclass(endpoint):  # starlette.endpoints.HTTPEndpoint
        endpoint = getattr(endpoint, method.lower(), None) or endpoint.get
    awaited, has_model = runs(endpoint)[0], getattr(route, "response_field", None)
    dependencies = solved(dependant, set()) if dependant else []
    passes = ["before" for is_async, _ in dependencies if not is_async]
    if not awaited:
        passes += ["handler", "after"] if has_model else ["handler"]
    return {
        "handler": "async" if awaited else "def",
        "yield_dependencies": sum(has_yield for _, has_yield in dependencies),
        "thread_passes": passes,
    }


def solved(dependant, known):
    """(awaited, with yield) of each dependency, in the order in which FastAPI solves them, each once for a request.

    Source: fastapi/dependencies/utils.py solve_dependencies(); what holds a yield is left in a thread that is not of
    the 40 (fastapi/concurrency.py contextmanager_in_threadpool()).
    """
    found = []
    for part in dependant.dependencies:
        found += solved(part, known)
        key = getattr(part, "cache_key", None) or part.call  # until FastAPI made a function of it
        if not (part.use_cache and key in known):
            found.append(runs(part.call))
        known.add(key)
    return found


def runs(call):
    """How FastAPI and Starlette run a callable: (awaited, not in a thread; with yield).

    As fastapi/dependencies/models.py asks it: through functools.partial and functools.wraps, and of an object its
    __call__. A class is called in a thread.
    """
    faces = [bare(call), inspect.unwrap(bare(call))]
    if not inspect.isclass(faces[1]):
        faces += [bare(face.__call__) for face in faces if hasattr(face, "__call__")]  # noqa: B004
    faces += [inspect.unwrap(face) for face in faces]
    awaited = any(iscoroutinefunction(face) or inspect.isasyncgenfunction(face) for face in faces)
    return awaited, any(inspect.isgeneratorfunction(face) or inspect.isasyncgenfunction(face) for face in faces)


def bare(call):
    while isinstance(call, functools.partial):
        call = call.func
    return call


def about_flask(app, method, path):
    rule, _ = app.url_map.bind("127.0.0.1").match(path, method, return_rule=True)
    view = app.view_functions[rule.endpoint]
    view_class = getattr(view, "view_class", None)
    by_method = getattr(view_class, method.lower(), None) or getattr(view_class, "dispatch_request", None)
    return {"handler": "async" if runs(by_method or view)[0] else "def", "thread_passes": []}


def about_django(app, method, path):
    from django.urls import resolve

    return {"handler": "async" if runs(resolve(path).func)[0] else "def", "thread_passes": []}


ASK = {"fastapi": about_starlette, "starlette": about_starlette, "flask": about_flask, "django": about_django}


def too_long(*_):
    raise TimeoutError(f"not loaded after {LOAD_TIMEOUT_S} s")


if __name__ == "__main__":
    sys.path[0] = os.path.join(INSIDE, "wrap")
    from _bench_load_app import load_app

    name, method, path = sys.argv[1:]
    answer = os.dup(1)
    os.dup2(2, 1)  # whatever the app prints, in Python or in C, is not the answer
    sys.path[0] = os.getcwd()  # not the folder of this file
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LOAD_TIMEOUT_S)
    said = about(name, method.upper(), path.partition("?")[0])
    os.write(answer, (json.dumps(said) + "\n").encode())
    sys.stdout.flush()
    os._exit(0)  # threads that the app has started would hold it
