"""What an app says of itself before a server runs it: one JSON line about MODULE:APP at METHOD PATH.

    python apps/about_app.py main:app GET /items/7
    python apps/about_app.py 'shop.web:create_app("production")' GET /

Run it in the folder of the app, with the Python that has its packages; it needs none itself. The app is loaded as a
server would load it, but not started: no lifespan, no request. null is "not known" throughout.

    kind                wsgi or asgi: what a server has to speak
    framework           flask, fastapi, starlette, django, ...; of the app inside, if others are wrapped around it
    factory             the object is a function that makes the app, and was called
    versions            of Python, and of the framework and packages below
    route, handler      the path template that METHOD PATH meets, and whether it is run by a `def` or an `async def`
    routes              some of the paths that the app has
    response_model      FastAPI checks and serialises what the handler returns by a model, or a return annotation
    def_dependencies    FastAPI: dependencies that take a thread before the handler; async_dependencies do not
    yield_dependencies  those of both kinds that hold what they opened until the answer is made
    thread_passes       how often, and in which order, a request takes one of AnyIO's threads: a "before" for each
                        `def` dependency, "handler", and "after" for the response model of a `def`. [] is never. Not in
                        it: background tasks, and what the handler itself sends into threads
    middleware          names, the outermost first; base_http_middleware says how many are BaseHTTPMiddleware
    packages            imported by the app, of those that are known to bring a limit
    error               the app's own error if it did not load: "ImportError: ... (main.py, line 3)"
"""

import ast
import asyncio
import contextlib
import functools
import importlib
import importlib.metadata
import inspect
import json
import os
import platform
import signal
import sys
import traceback

LOAD_TIMEOUT_S = 30  # of a module that starts a server when it is imported, say
FRAMEWORKS = {  # package and class of an app -> its kind; None: it needs a server of its own
    ("flask", "Flask"): "wsgi", ("bottle", "Bottle"): "wsgi", ("pyramid", "Router"): "wsgi",
    ("fastapi", "FastAPI"): "asgi", ("starlette", "Starlette"): "asgi", ("starlette", "Router"): "asgi",
    ("quart", "Quart"): "asgi", ("litestar", "Litestar"): "asgi", ("sanic", "Sanic"): "asgi",
    ("blacksheep", "Application"): "asgi", ("connexion", "AsyncApp"): "asgi",
    ("django", "ASGIHandler"): "asgi", ("django", "WSGIHandler"): "wsgi",
    ("falcon.asgi", "App"): "asgi", ("falcon", "App"): "wsgi",
    ("aiohttp", "Application"): None, ("tornado", "Application"): None,
}  # fmt: skip
WRAPPED = ("app", "application", "wsgi_application", "wsgi_app", "_app")  # where a wrapper keeps what it wraps
ADAPTERS = {  # WSGI apps on ASGI servers, and the reverse -> kind, and AnyIO's threads that a request takes
    ("asgiref", "WsgiToAsgi"): ("asgi", []), ("a2wsgi", "WSGIMiddleware"): ("asgi", []),
    ("starlette", "WSGIMiddleware"): ("asgi", ["handler"]), ("a2wsgi", "ASGIMiddleware"): ("wsgi", None),
}  # fmt: skip
SUSPECTS = (  # modules of packages that are known to bring a limit, or to look like one
    "sqlalchemy", "flask_sqlalchemy", "sqlmodel", "psycopg", "psycopg_pool", "psycopg2", "asyncpg", "databases",
    "aiopg", "aiomysql", "asyncmy", "pymysql", "mysql.connector", "oracledb", "peewee", "tortoise", "pymongo", "motor",
    "redis", "neo4j", "elasticsearch", "httpx", "httpcore", "aiohttp", "requests", "urllib3", "boto3", "botocore",
    "aiobotocore", "openai", "anthropic", "grpc", "tornado", "gevent", "eventlet", "asgiref", "a2wsgi", "aiofiles",
)  # fmt: skip
DISTRIBUTIONS = {"mysql.connector": "mysql-connector-python", "psycopg2": "psycopg2-binary", "grpc": "grpcio"}
BESIDE = {  # distributions whose version says how a framework's app is run
    "flask": ["werkzeug", "asgiref"], "fastapi": ["starlette", "anyio"], "starlette": ["anyio"], "django": ["asgiref"],
}  # fmt: skip
iscoroutinefunction = inspect.iscoroutinefunction if sys.version_info >= (3, 12) else asyncio.iscoroutinefunction


# ---------------------------------------------------------------- load it


def load(name):
    """The app that MODULE:APP names, and whether a factory had to be called that was not written as a call."""
    module_name, _, expression = name.partition(":")
    node = ast.parse(expression or "app", mode="eval").body
    arguments, keywords, called = [], {}, isinstance(node, ast.Call)
    if called:
        arguments = [ast.literal_eval(argument) for argument in node.args]
        keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
        node = node.func
    found = importlib.import_module(module_name)
    names = ast.unparse(node).split(".")
    if not expression and not hasattr(found, "app"):
        names = ["application"]  # as gunicorn, and Django's wsgi.py, have it
    found = functools.reduce(getattr, names, found)
    if called:
        return found(*arguments, **keywords), False
    if is_factory(found):
        return found(), True
    return found, False


def is_factory(found):
    """A function that needs no argument is no app: WSGI apps take two, ASGI apps three, and objects are not asked."""
    return (inspect.isfunction(found) or inspect.ismethod(found)) and needed_arguments(found) == 0


def needed_arguments(call):
    """How many arguments a callable cannot do without; None: any number, or it does not say."""
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in by_place and p.default is p.empty for p in parameters)


def one_line(error):
    """The error, and the user's own line that it came from."""
    said = " ".join(f"{type(error).__name__}: {error}".split())[:400]
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        said = f"{type(error).__name__}: {error.msg}"
        frames.append((error.filename, error.lineno))
    here = os.getcwd() + os.sep
    own = [(file, line) for file, line in frames if file.startswith(here) and "site-packages" not in file]
    own = [(file, line) for file, line in own if file != os.path.abspath(__file__)]
    if not own:
        return said
    file, line = own[-1]
    return f"{said} ({os.path.relpath(file)}, line {line})"


# ---------------------------------------------------------------- what it is


def class_of(app, table):
    """The key of the table that one of the object's classes is, or None."""
    for cls in type(app).__mro__:
        parts = cls.__module__.split(".")
        for depth in (2, 1):
            if (key := (".".join(parts[:depth]), cls.__name__)) in table:
                return key
    return None


def unwrap(app):
    """The framework's app inside, and what is wrapped around it, the outermost first."""
    inner, around = app, []
    while inner is not None and not class_of(inner, FRAMEWORKS) and len(around) < 20:
        around.append(inner)
        inner = next((vars(inner)[name] for name in WRAPPED if name in getattr(inner, "__dict__", {})), None)
    return (app, []) if inner is None else (inner, around)


def kind_of(app):
    """wsgi or asgi, by its class, else by what it takes when it is called: 2 arguments, or 3 and awaited."""
    if adapter := class_of(app, ADAPTERS):
        return ADAPTERS[adapter][0]
    if framework := class_of(app, FRAMEWORKS):
        return FRAMEWORKS[framework]
    if not callable(app):
        return None
    needed = needed_arguments(app)
    if runs(app)[0]:
        return "asgi"
    return {2: "wsgi", 3: "asgi"}.get(needed)


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


def kind_of_handler(call):
    return "async" if runs(call)[0] else "def"


# ---------------------------------------------------------------- its route, by framework


def about_starlette(app, method, path):
    """FastAPI and Starlette: whatever their own routes say that they match, mounted apps included."""
    scope = {"type": "http", "method": method, "path": path, "root_path": "", "path_params": {}, "app": app,
             "query_string": b"", "headers": [(b"host", b"127.0.0.1")]}  # fmt: skip
    prefix, around = "", list(names_of_middleware(app))
    while True:
        route, more = match(app, scope)
        if route is None:
            return {"middleware": around}
        scope |= more
        if getattr(route, "endpoint", None) is not None:
            said = about_endpoint(route, method)
            return {**said, "route": prefix + getattr(route, "path_format", route.path), "middleware": around}
        prefix += getattr(route, "path", "")
        mounted = getattr(route, "_base_app", None) or route.app
        app, wrappers = unwrap(mounted)
        adapter = next((key for key in map(class_of, wrappers, [ADAPTERS] * len(wrappers)) if key), None)
        adapter = adapter or class_of(app, ADAPTERS)
        if adapter or not hasattr(app, "routes"):  # static files, or an app of another framework
            passes = ADAPTERS[adapter][1] if adapter else None
            return {"route": prefix or "/", "handler": "def" if adapter else None, "thread_passes": passes,
                    "middleware": around}  # fmt: skip
        around += names_of_middleware(app)


def flat_routes(app):
    """With those of included routers, which newer versions of FastAPI keep apart."""
    routes = app.routes
    routing = sys.modules.get("fastapi.routing")
    return list(routing.iter_route_contexts(routes)) if hasattr(routing, "iter_route_contexts") else routes


def match(app, scope):
    for route in flat_routes(app):
        matched, more = route.matches(scope)
        if matched.name == "FULL":
            return route, more
    return None, {}


def names_of_middleware(app):
    return [middleware.cls for middleware in getattr(app, "user_middleware", [])]


def about_endpoint(route, method):
    endpoint = route.endpoint
    if inspect.isclass(endpoint):  # starlette.endpoints.HTTPEndpoint
        endpoint = getattr(endpoint, method.lower(), None) or endpoint.get
        if not inspect.isfunction(endpoint):
            return {}
    dependant = getattr(route, "dependant", None)
    if dependant is None:  # a route of Starlette
        handler = kind_of_handler(endpoint)
        return {"handler": handler, "thread_passes": ["handler"] if handler == "def" else []}
    awaited, streams = runs(endpoint)
    dependencies = solved(dependant, {})
    in_threads = sum(not is_async for is_async, _ in dependencies)
    has_model = getattr(route, "response_field", None) is not None
    passes = ["before"] * in_threads
    if not awaited:
        passes += ["handler", "after"] if has_model else ["handler"]
    return {
        "handler": "async" if awaited else "def",
        "response_model": has_model,
        "def_dependencies": in_threads,
        "async_dependencies": len(dependencies) - in_threads,
        "yield_dependencies": sum(has_yield for _, has_yield in dependencies),
        "thread_passes": None if sends_a_file(route, endpoint) or (streams and not awaited) else passes,
    }


def solved(dependant, known):
    """(awaited, with yield) of each dependency, in the order in which FastAPI solves them, each once for a request.

    Source: fastapi/dependencies/utils.py solve_dependencies(); what holds a yield is left in a thread that is not of
    the 40 (fastapi/concurrency.py contextmanager_in_threadpool()).
    """
    found = []
    for part in dependant.dependencies:
        found += solved(part, known)
        key = cache_key(part)
        if not (part.use_cache and key in known):
            found.append(runs(part.call))
        known[key] = True
    return found


def cache_key(dependant):
    key = getattr(dependant, "cache_key", None)  # until FastAPI made a function of it
    models = sys.modules.get("fastapi.dependencies.models")
    if key is None and hasattr(models, "_get_cache_key"):
        key = models._get_cache_key(dependant=dependant)
    return dependant.call if key is None else key


def sends_a_file(route, endpoint):
    """FileResponse reads it in AnyIO's threads, piece by piece."""
    returned = inspect.signature(endpoint).return_annotation
    declared = getattr(route, "response_class", None)
    classes = (returned, declared, getattr(declared, "value", None))  # the last is FastAPI's own default
    return "FileResponse" in [getattr(cls, "__name__", cls) for cls in classes]


def about_werkzeug(app, method, path):
    """Flask and Quart."""
    adapter = app.url_map.bind("127.0.0.1")
    inner, around = app.wsgi_app if hasattr(app, "wsgi_app") else app.asgi_app, []
    while not inspect.ismethod(inner) and inner is not None:
        around.append(type(inner))
        inner = next((vars(inner)[name] for name in WRAPPED if name in vars(inner)), None)
    try:
        rule, _ = adapter.match(path, method, return_rule=True)
    except Exception:  # of werkzeug: not found, another method, a redirect
        return {"middleware": around}
    view = app.view_functions[rule.endpoint]
    view_class = getattr(view, "view_class", None)
    by_method = getattr(view_class, method.lower(), None) or getattr(view_class, "dispatch_request", None)
    handler = kind_of_handler(by_method or view)
    return {"route": rule.rule, "handler": handler, "thread_passes": [], "middleware": around}


def about_django(app, method, path):
    from django.conf import settings
    from django.urls import Resolver404, resolve

    around = [name.rpartition(".")[2] for name in settings.MIDDLEWARE]
    try:
        found = resolve(path)
    except Resolver404:
        return {"middleware": around}
    handler = kind_of_handler(found.func)
    return {"route": "/" + found.route, "handler": handler, "thread_passes": [], "middleware": around}


def about_bottle(app, method, path):
    found, _ = app.router.match({"REQUEST_METHOD": method, "PATH_INFO": path})
    return {"route": found.rule, "handler": "def", "thread_passes": []}


def about_falcon(app, method, path):
    found = app._router.find(path)
    handler = kind_of_handler(found[1][method]) if found else None
    return {"route": found[3], "handler": handler, "thread_passes": []} if found else {}


ASK = {
    "fastapi": about_starlette, "starlette": about_starlette, "flask": about_werkzeug, "quart": about_werkzeug,
    "django": about_django, "bottle": about_bottle, "falcon": about_falcon,
}  # fmt: skip


def paths_of(app, framework):
    """Some of its paths, to say which there are if somebody asks for another."""
    if framework in ("flask", "quart"):
        found = [rule.rule for rule in app.url_map.iter_rules() if rule.endpoint != "static"]
    elif framework in ("fastapi", "starlette"):
        own = ("/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc")
        found = [getattr(route, "path_format", None) or getattr(route, "path", "") for route in flat_routes(app)]
        found = [path for path in found if path and path not in own]
    else:
        return []
    return list(dict.fromkeys(found))[:20]


# ---------------------------------------------------------------- all of it


NO_DEPENDENCIES = {"response_model": False, "def_dependencies": 0, "yield_dependencies": 0, "async_dependencies": 0}
NOTHING = {
    "kind": None, "framework": None, "factory": False, "versions": {}, "route": None, "handler": None, "routes": [],
    **dict.fromkeys(NO_DEPENDENCIES), "thread_passes": None, "middleware": [], "base_http_middleware": 0,
    "packages": [], "error": None,
}  # fmt: skip


def about(name, method, path):
    """The whole answer, see the manual above."""
    try:
        app, called = load(name)
    except BaseException as error:  # sys.exit() too
        return NOTHING | {"error": one_line(error), "versions": versions_of(None, [])}
    inner, around = unwrap(app)
    key, kind = class_of(inner, FRAMEWORKS), kind_of(app)
    framework = key[0].partition(".")[0] if key else None
    found = ask(inner, framework, method, path)
    if kind == "wsgi":
        found = {"thread_passes": [], **found}
    if found.get("handler") or kind == "wsgi":
        found = NO_DEPENDENCIES | found
    for adapter in filter(None, (class_of(wrapper, ADAPTERS) for wrapper in around)):
        found["thread_passes"] = ADAPTERS[adapter][1]
    classes = [*map(type, around), *found.pop("middleware", [])]
    packages = [module for module in SUSPECTS if module in sys.modules]
    return NOTHING | found | {
        "kind": kind,
        "framework": framework,
        "factory": called,
        "versions": versions_of(framework, packages),
        "middleware": [cls if isinstance(cls, str) else cls.__name__ for cls in classes],
        "base_http_middleware": sum(map(is_base_http, classes)),
        "packages": packages,
        "error": None if kind or key else not_an_app(app, name),
    }  # fmt: skip


def ask(app, framework, method, path):
    """What its framework knows. What another version of it calls otherwise is not known, and no error of the app."""
    if framework not in ASK:
        return {}
    try:
        return ASK[framework](app, method, path) | {"routes": paths_of(app, framework)}
    except Exception as error:
        print(f"about_app: {framework} is not as expected: {one_line(error)}", file=sys.stderr)
        return {}


def is_base_http(cls):
    return any(base.__name__ == "BaseHTTPMiddleware" for base in getattr(cls, "__mro__", ()))


def not_an_app(app, name):
    needed = needed_arguments(app) if callable(app) else None
    if needed is not None and inspect.isfunction(app):
        return f"TypeError: {name} needs {needed} argument{'s' * (needed != 1)}: if it makes the app, write the call"
    return f"TypeError: {name} is no app but {type(app).__name__}" if not callable(app) else None


def versions_of(framework, packages):
    found = {"python": platform.python_version()}
    for name in [framework, *BESIDE.get(framework, []), *(DISTRIBUTIONS.get(name, name) for name in packages)]:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):
            found[name] = importlib.metadata.version(name or "")
    return found


def too_long(*_):
    raise TimeoutError(f"not loaded after {LOAD_TIMEOUT_S} s")


def main():
    if len(sys.argv) != 4:
        sys.exit("usage: python about_app.py MODULE:APP METHOD PATH")
    name, method, path = sys.argv[1:]
    answer = os.dup(1)
    os.dup2(2, 1)  # whatever the app prints, in Python or in C, is not the answer
    sys.path[0] = os.getcwd()  # not the folder of this file
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, too_long)
        signal.alarm(LOAD_TIMEOUT_S)
    said = about(name, method.upper(), path.partition("?")[0])
    os.write(answer, (json.dumps(said) + "\n").encode())
    sys.stdout.flush()
    os._exit(0)  # threads that the app has started would hold it


if __name__ == "__main__":
    main()
