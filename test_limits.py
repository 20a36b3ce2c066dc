"""The tests of limits that nobody set: what an app says of itself, the apps that show a limit, and suite limits.

What about_app.py says of FastAPI is compared with how often AnyIO's threads are really taken.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import importlib.util
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import bench
import explain
import load
import serve
import sweep
from suites import limits
from test_sweep import change, finished, rows_of

HERE = Path(__file__).parent
ABOUT = HERE / "apps/about_app.py"
SERVICES = HERE / "tests/services"


def import_file(path: Path, name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


about_app = import_file(ABOUT, "about_app_under_test")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    """The user's own folder, which is the present one, and from which apps are imported; forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def asked_as_a_child(name: str, method: str = "GET", path: str = "/", cwd: Path | None = None) -> dict[str, Any]:
    """As it is used: the answer is the one line on stdout."""
    command = [sys.executable, str(ABOUT), name, method, path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60)
    assert done.returncode == 0 and done.stdout.count("\n") == 1, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def picked(answer: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    return {key: answer[key] for key in expected}


# ---------------------------------------------------------------- FastAPI: the threads that a request takes

SHAPES = """
import functools
from contextlib import asynccontextmanager
from typing import Annotated
from fastapi import APIRouter, Depends, FastAPI, Response, Security
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.security import APIKeyHeader
from pydantic import BaseModel
from starlette.middleware.base import BaseHTTPMiddleware

log = []
ran = functools.partial(log.append, "handler")

class Item(BaseModel):
    x: int = 1

def plain(): return 1
def held(): yield 1
async def awaited(): return 1
async def held_awaited(): yield 1
def on_plain(x=Depends(plain)): return x
class Pages:
    def __init__(self, page: int = 1): self.page = page
class Checker:
    def __call__(self): return 1
class AsyncChecker:
    async def __call__(self): return 1
def logged(func):
    @functools.wraps(func)
    def wrapper(*args, **kwargs): return func(*args, **kwargs)
    return wrapper
def logged_async(func):
    @functools.wraps(func)
    async def wrapper(*args, **kwargs): return func(*args, **kwargs)
    return wrapper

app = FastAPI()

@app.get("/untyped")
def untyped(): ran(); return {"x": 1}

@app.get("/typed")
def typed() -> Item: ran(); return Item()

@app.get("/model", response_model=Item)
def model(): ran(); return {"x": 1}

@app.get("/no-model", response_model=None)
def no_model() -> Item: ran(); return Item()

@app.get("/annotated-response")
def annotated_response() -> Response: ran(); return JSONResponse({})

@app.get("/html", response_class=HTMLResponse)
def html() -> str: ran(); return "x"

@app.get("/async")
async def awaits() -> Item: ran(); return Item()

@app.get("/one-dependency", response_model=Item)
def one(db=Depends(held)): ran(); return {"x": db}

@app.get("/async-with-two")
async def two(a=Depends(plain), b=Depends(held), c=Depends(awaited)): ran(); return {}

@app.get("/shared")
def shared(a=Depends(plain), b=Depends(on_plain)): ran(); return {}

@app.get("/not-cached")
def not_cached(a=Depends(plain), b=Depends(plain, use_cache=False)): ran(); return {}

@app.get("/async-dependencies")
def only_async(a=Depends(awaited), b=Depends(held_awaited), c=Depends(AsyncChecker())): ran(); return {}

@app.get("/class")
def by_class(pages: Annotated[Pages, Depends()], ok=Depends(Checker())): ran(); return {}

@app.get("/security")
def secured(key=Security(APIKeyHeader(name="x", auto_error=False))) -> dict: ran(); return {}

@app.get("/partial")
def by_partial(x=Depends(functools.partial(plain))): ran(); return {}

@app.get("/wrapped")
@logged
def wrapped() -> dict: ran(); return {}

@app.get("/wrapped-async")
@logged_async
def wrapped_async() -> dict: ran(); return {}

@app.get("/items/{item_id}/parts/{part:path}")
def part(item_id: int, part: str) -> dict: ran(); return {}

inner = APIRouter(prefix="/inner", dependencies=[Depends(plain)])

@inner.get("/{name}")
def in_router(name: str) -> dict: ran(); return {}

outer = APIRouter(prefix="/outer")
outer.include_router(inner, dependencies=[Depends(held)])
app.include_router(outer, prefix="/v1")

sub = FastAPI(dependencies=[Depends(plain)])

@sub.get("/typed")
async def sub_typed() -> Item: ran(); return Item()

@sub.get("/deep", response_model=Item)
def deep(): ran(); return Item()

class Timing(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next): return await call_next(request)

sub.add_middleware(Timing)
app.mount("/sub", sub)
"""
BEFORE, HANDLER, AFTER = "before", "handler", "after"
SHAPES_EXPECTED = [  # path, thread passes, dependencies: in threads, awaited, with yield
    ("/untyped", [HANDLER], (0, 0, 0)),
    ("/typed", [HANDLER, AFTER], (0, 0, 0)),
    ("/model", [HANDLER, AFTER], (0, 0, 0)),
    ("/no-model", [HANDLER], (0, 0, 0)),
    ("/annotated-response", [HANDLER], (0, 0, 0)),
    ("/html", [HANDLER, AFTER], (0, 0, 0)),
    ("/async", [], (0, 0, 0)),
    ("/one-dependency", [BEFORE, HANDLER, AFTER], (1, 0, 1)),
    ("/async-with-two", [BEFORE, BEFORE], (2, 1, 1)),
    ("/shared", [BEFORE, BEFORE, HANDLER], (2, 0, 0)),
    ("/not-cached", [BEFORE, BEFORE, HANDLER], (2, 0, 0)),
    ("/async-dependencies", [HANDLER], (0, 3, 1)),
    ("/class", [BEFORE, BEFORE, HANDLER], (2, 0, 0)),
    ("/security", [HANDLER, AFTER], (0, 1, 0)),
    ("/partial", [BEFORE, HANDLER], (1, 0, 0)),
    ("/wrapped", [HANDLER, AFTER], (0, 0, 0)),
    ("/wrapped-async", [], (0, 0, 0)),
    ("/items/7/parts/a/b", [HANDLER, AFTER], (0, 0, 0)),
    ("/v1/outer/inner/x", [BEFORE, BEFORE, HANDLER, AFTER], (2, 0, 1)),
    ("/sub/typed", [BEFORE], (1, 0, 0)),
    ("/sub/deep", [BEFORE, HANDLER, AFTER], (1, 0, 0)),
]


async def passes_of_a_request(app: Callable, log: list[str], path: str, monkeypatch) -> list[str]:
    """Which of AnyIO's 40 threads a request really takes, and when."""
    from anyio import to_thread

    run_sync, passes, status = to_thread.run_sync, [], []

    async def counting(func, *args, limiter=None, **options):
        had_run = len(log)
        try:
            return await run_sync(func, *args, limiter=limiter, **options)
        finally:
            if limiter is None:  # else it is not one of the 40
                passes.append(HANDLER if len(log) > had_run else AFTER if log else BEFORE)

    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive():
        return messages.pop() if messages else await asyncio.Event().wait()  # nobody hangs up

    async def send(message):
        status.append(message.get("status"))

    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
             "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"", "headers": [],
             "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "state": {}}  # fmt: skip
    monkeypatch.setattr(to_thread, "run_sync", counting)
    await app(scope, receive, send)
    assert status[0] == 200
    return passes


@pytest.mark.parametrize(("path", "passes", "counts"), SHAPES_EXPECTED, ids=[row[0] for row in SHAPES_EXPECTED])
def test_what_fastapi_does_in_threads_is_what_the_app_is_said_to_do(folder, monkeypatch, path, passes, counts):
    (folder / "shapes_app.py").write_text(SHAPES)
    said = about_app.about("shapes_app:app", "GET", path)
    module = sys.modules["shapes_app"]
    assert asyncio.run(passes_of_a_request(module.app, module.log, path, monkeypatch)) == passes
    assert said["error"] is None and said["kind"] == "asgi" and said["framework"] == "fastapi"
    assert said["thread_passes"] == passes
    assert (said["def_dependencies"], said["async_dependencies"], said["yield_dependencies"]) == counts


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/typed", {"route": "/typed", "handler": "def", "response_model": True, "middleware": []}),
        ("/async", {"route": "/async", "handler": "async", "response_model": True}),
        ("/untyped", {"response_model": False, "factory": False, "base_http_middleware": 0}),
        ("/items/7/parts/a/b", {"route": "/items/{item_id}/parts/{part}"}),
        ("/v1/outer/inner/x", {"route": "/v1/outer/inner/{name}"}),
        ("/sub/deep", {"route": "/sub/deep", "middleware": ["Timing"], "base_http_middleware": 1}),
        ("/nope", {"route": None, "handler": None, "thread_passes": None, "response_model": None, "error": None}),
        ("/openapi.json", {"route": "/openapi.json", "handler": "async", "thread_passes": []}),
    ],
)
def test_the_route_of_a_path_is_found_through_routers_and_mounts(folder, path, expected):
    (folder / "shapes_app.py").write_text(SHAPES)
    said = about_app.about("shapes_app:app", "GET", path)
    assert picked(said, expected) == expected
    assert {"/untyped", "/v1/outer/inner/{name}", "/sub"} <= {*said["routes"], "/v1/outer/inner/{name}", "/sub"}
    assert said["versions"].keys() >= {"python", "fastapi", "starlette", "anyio"}


def test_what_another_version_calls_otherwise_is_not_known_and_no_error(folder, monkeypatch, capsys):
    (folder / "shapes_app.py").write_text(SHAPES)
    monkeypatch.setattr(about_app, "solved", lambda *_: 1 / 0)
    said = about_app.about("shapes_app:app", "GET", "/typed")
    assert (said["kind"], said["framework"], said["thread_passes"], said["error"]) == ("asgi", "fastapi", None, None)
    assert "fastapi is not as expected: ZeroDivisionError" in capsys.readouterr().err


# ---------------------------------------------------------------- other apps, as people have them

FLASK = """
from flask import Flask
from flask.views import MethodView
from werkzeug.middleware.proxy_fix import ProxyFix

class Things(MethodView):
    def get(self, thing): return "x"
    async def post(self, thing): return "x"

def create_app(name="development"):
    made = Flask(__name__)
    made.wsgi_app = ProxyFix(made.wsgi_app)
    made.add_url_rule("/things/<int:thing>", view_func=Things.as_view("things"))
    made.get("/")(lambda: name)
    async def later(): return name
    made.get("/later")(later)
    return made

def needs(config): return create_app(config)

class Holder:
    app = create_app("held")

app = create_app()
"""
CALLABLES = """
import functools
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

def wsgi(environ, start_response): return [b""]
async def asgi(scope, receive, send): pass
class Wsgi:
    def __call__(self, environ, start_response): return [b""]
class Asgi:
    async def __call__(self, scope, receive, send): pass
class Wrap:
    def __init__(self, app): self.app = app
    async def __call__(self, scope, receive, send): await self.app(scope, receive, send)
wsgi_object, asgi_object = Wsgi(), Asgi()
bound = Asgi().__call__
anything = lambda *args: None
number = 7
def in_thread(request): return PlainTextResponse("x")
async def in_loop(request): return PlainTextResponse("x")
class Both(HTTPEndpoint):
    def get(self, request): return PlainTextResponse("x")
    async def post(self, request): return PlainTextResponse("x")
star = Starlette(routes=[Route("/def", in_thread), Route("/async/{id:int}", in_loop), Route("/both", Both),
                         Mount("/m", routes=[Route("/def", in_thread)]), Mount("/raw", app=asgi)])
wrapped = Wrap(star)
"""
OTHERS = [
    ("flask_shop:app", "GET", "/", {"kind": "wsgi", "framework": "flask", "factory": False, "handler": "def"}),
    ("flask_shop:create_app", "GET", "/", {"kind": "wsgi", "framework": "flask", "factory": True, "route": "/"}),
    ("flask_shop:create_app()", "GET", "/", {"kind": "wsgi", "factory": False, "middleware": ["ProxyFix"]}),
    ("flask_shop:create_app('production')", "GET", "/later", {"handler": "async", "thread_passes": [], "error": None}),
    ("flask_shop:create_app(name='x')", "GET", "/things/7", {"route": "/things/<int:thing>", "handler": "def"}),
    ("flask_shop:Holder.app", "POST", "/things/7", {"framework": "flask", "handler": "async"}),
    ("flask_shop:app", "GET", "/nope", {"route": None, "routes": ["/things/<int:thing>", "/", "/later"]}),
    ("flask_shop:needs", "GET", "/", {"kind": None, "error": "TypeError: flask_shop:needs needs 1 argument:"
                                                             " if it makes the app, write the call"}),
    ("callables:wsgi", "GET", "/", {"kind": "wsgi", "framework": None, "thread_passes": [], "handler": None}),
    ("callables:asgi", "GET", "/", {"kind": "asgi", "framework": None, "thread_passes": None, "factory": False}),
    ("callables:wsgi_object", "GET", "/", {"kind": "wsgi", "error": None}),
    ("callables:asgi_object", "GET", "/", {"kind": "asgi", "error": None}),
    ("callables:bound", "GET", "/", {"kind": "asgi", "factory": False}),
    ("callables:anything", "GET", "/", {"kind": None, "factory": False, "error": None}),
    ("callables:number", "GET", "/", {"kind": None, "error": "TypeError: callables:number is no app but int"}),
    ("callables:star", "GET", "/def", {"framework": "starlette", "handler": "def", "thread_passes": [HANDLER]}),
    ("callables:star", "GET", "/async/3", {"route": "/async/{id}", "handler": "async", "thread_passes": []}),
    ("callables:star", "GET", "/both", {"handler": "def", "thread_passes": [HANDLER], "response_model": False}),
    ("callables:star", "POST", "/both", {"handler": "async", "thread_passes": []}),
    ("callables:star", "GET", "/m/def", {"route": "/m/def", "thread_passes": [HANDLER]}),
    ("callables:star", "GET", "/raw/x", {"route": "/raw", "handler": None, "thread_passes": None}),
    ("callables:wrapped", "GET", "/def", {"kind": "asgi", "framework": "starlette", "middleware": ["Wrap"]}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "method", "path", "expected"), OTHERS)
def test_an_app_is_recognised_as_people_write_it(folder, name, method, path, expected):
    (folder / "flask_shop.py").write_text(FLASK)
    (folder / "callables.py").write_text(CALLABLES)
    assert picked(about_app.about(name, method, path), expected) == expected


ERRORS = [
    ("broken_a:app", "import os\nimport no_such_module\n",
     "ModuleNotFoundError: No module named 'no_such_module' (broken_a.py, line 2)"),
    ("broken_b:app", "x = 1\ny = (\n", "SyntaxError: '(' was never closed (broken_b.py, line 2)"),
    ("broken_c:app", "import os\n\nkey = os.environ['NO_SUCH_KEY']\n", "KeyError: 'NO_SUCH_KEY' (broken_c.py, line 3)"),
    ("broken_d:create_app", "def create_app():\n    raise ValueError('no\\n  database')\n",
     "ValueError: no database (broken_d.py, line 2)"),
    ("broken_e:app", "import sys\nsys.exit('usage: no')\n", "SystemExit: usage: no (broken_e.py, line 2)"),
    ("broken_f:nope", "app = 1\n", "AttributeError: module 'broken_f' has no attribute 'nope'"),
    ("no_such_file:app", "", "ModuleNotFoundError: No module named 'no_such_file'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "error"), ERRORS)
def test_an_app_that_does_not_load_shows_its_own_error_and_line(folder, name, text, error):
    if text:
        (folder / f"{name.partition(':')[0]}.py").write_text(text)
    said = about_app.about(name, "GET", "/")
    assert (said["error"], said["kind"], said["thread_passes"]) == (error, None, None)
    assert said.keys() == about_app.NOTHING.keys()


# ---------------------------------------------------------------- as a child


def test_nothing_that_an_app_prints_starts_or_names_gets_between_us_and_the_answer(tmp_path):
    (tmp_path / "access_log.py").write_text("name = 'mine'\n")  # a name that our own folder of apps has, too
    (tmp_path / "noisy.py").write_text(
        "import os, threading, time\nimport access_log\nprint('hello')\nos.system('echo from a child')\n"
        "os.write(1, b'raw')\nthreading.Thread(target=time.sleep, args=(60,)).start()\n"
        "def app(environ, start_response): return [access_log.name.encode()]\n"
    )
    said = asked_as_a_child("noisy:app", cwd=tmp_path)
    assert (said["kind"], said["error"], said["packages"]) == ("wsgi", None, [])


def test_an_app_that_never_finishes_loading_is_given_up_at_its_line(tmp_path):
    (tmp_path / "stuck.py").write_text("import time\ntime.sleep(60)\n")
    source = ABOUT.read_text().replace("LOAD_TIMEOUT_S = 30", "LOAD_TIMEOUT_S = 1")
    (tmp_path / "about.py").write_text(source)
    done = subprocess.run([sys.executable, "about.py", "stuck:app", "GET", "/"], capture_output=True, cwd=tmp_path)
    assert json.loads(done.stdout)["error"] == "TimeoutError: not loaded after 1 s (stuck.py, line 2)"


def test_a_django_project_is_recognised_both_ways(tmp_path):
    pytest.importorskip("django")
    for name, text in {
        "site/__init__.py": "",
        "site/settings.py": "SECRET_KEY = 'x'\nROOT_URLCONF = 'shop.site.urls'\nALLOWED_HOSTS = ['*']\n"
        "MIDDLEWARE = ['django.middleware.common.CommonMiddleware']\n",
        "site/urls.py": "from django.http import HttpResponse\nfrom django.urls import path\n"
        "def item(request, pk): return HttpResponse('x')\n"
        "async def later(request): return HttpResponse('x')\n"
        "urlpatterns = [path('items/<int:pk>/', item), path('later/', later)]\n",
        "site/wsgi.py": "import os\nfrom django.core.wsgi import get_wsgi_application\n"
        "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.site.settings')\napplication = get_wsgi_application()\n",
        "site/asgi.py": "import os\nfrom django.core.asgi import get_asgi_application\n"
        "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.site.settings')\napplication = get_asgi_application()\n",
    }.items():
        (tmp_path / "shop" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "shop" / name).write_text(text)
    said = asked_as_a_child("shop.site.wsgi:application", "GET", "/items/7/", tmp_path)
    expected = {"kind": "wsgi", "framework": "django", "route": "/items/<int:pk>/", "handler": "def",
                "middleware": ["CommonMiddleware"], "error": None}  # fmt: skip
    assert picked(said, expected) == expected
    said = asked_as_a_child("shop.site.asgi", "GET", "/later/", tmp_path)
    assert (said["kind"], said["framework"], said["handler"]) == ("asgi", "django", "async")


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        ("orders:create_app", "/orders/7", {
            "kind": "asgi", "factory": True, "handler": "def", "thread_passes": [BEFORE, HANDLER, AFTER],
            "yield_dependencies": 1, "async_dependencies": 1, "packages": ["sqlalchemy", "httpx"], "error": None}),
        ("parcels:create_app('production')", "/parcels/7", {
            "kind": "wsgi", "factory": False, "handler": "def", "route": "/parcels/<int:parcel_id>",
            "packages": ["sqlalchemy", "requests", "urllib3"], "error": None}),
    ],
)  # fmt: skip
def test_a_service_as_one_finds_it_says_what_it_is(name, path, expected):
    for package in ("sqlalchemy", "httpx", "requests"):
        pytest.importorskip(package)
    said = asked_as_a_child(name, "GET", path, SERVICES)
    assert picked(said, expected) | {"packages": [p for p in said["packages"] if p in expected["packages"]]} == expected


def test_wrong_usage_is_answered_in_one_line():
    done = subprocess.run([sys.executable, str(ABOUT), "main:app"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == "usage: python about_app.py MODULE:APP METHOD PATH\n"


# ---------------------------------------------------------------- the apps that show a limit, on a real server


def run_target(logs: Path, target: str, path: str, n: int, task_time: str) -> explain.Run:
    document = logs / "out.json"
    arguments = ["--target", target, "--path", path, "-n", str(n), "--task-time", task_time, "--warmup", "4"]
    bench.main([*arguments, "--logs", str(logs), "--json", str(document), "--quiet"])
    run: explain.Run = json.loads(document.read_text())["runs"][0]
    return run


def rounds_of(run: explain.Run, wait_s: float) -> list[int]:
    """How many were answered together: who has to wait for a slot cannot be answered before another wait has passed."""
    sizes, first_s = [], -wait_s
    for at_s in sorted(at_s for at_s in run["exchanges"]["answered_s"] if at_s is not None):
        if at_s > first_s + 0.9 * wait_s:
            first_s = at_s
            sizes.append(0)
        sizes[-1] += 1
    return sizes


@pytest.mark.parametrize(("path", "n", "sizes"), [("/executor", 7, [3, 3, 1]), ("/threadpool", 41, [40, 1])])
def test_each_kind_of_thread_has_a_limit_of_its_own(tmp_path, monkeypatch, path, n, sizes):
    pytest.importorskip("sqlalchemy")
    monkeypatch.setenv("EXECUTOR_THREADS", "3")
    run = run_target(tmp_path, "limits-handlers", path, n, "0.8")
    assert run["answered"] == n
    assert rounds_of(run, 0.8) == sizes


@pytest.fixture(scope="module")
def small_pools(tmp_path_factory) -> Iterator[tuple[load.Traffic, serve.RunningServer]]:
    """limits_pools.py with 4 threads and 3 connections."""
    pytest.importorskip("sqlalchemy")
    options = bench.parse_arguments(["--target", "limits-pools", "--path", "/depends", "--task-time", "0.2"])
    plan = bench.make_plans(options)[0]
    settings = {"THREADS": "4", "POOL_SIZE": "3", "MAX_OVERFLOW": "0", "POOL_TIMEOUT": "3"}
    with limits.environment(settings):
        files = serve.new_log_files(tmp_path_factory.mktemp("pools"), "pools", datetime.now())
        server = serve.start_server(plan.launch, *files, set())
    try:
        yield dataclasses.replace(plan.traffic, port=server.port, warm_up=2), server
    finally:
        serve.stop_server(server)


POOLS = [("/depends", 6, False), ("/depends", 7, True), ("/untyped", 14, False), ("/with", 14, False)]


@pytest.mark.parametrize(("path", "n", "stalls"), POOLS)
def test_two_pools_stall_at_threads_plus_connections_and_both_cures_help(small_pools, path, n, stalls):
    traffic, server = small_pools
    traffic = dataclasses.replace(traffic, path=path, pace=load.Pace(n))
    found = load.measure(traffic, ("127.0.0.1", server.port)).exchanges
    latency_s = max(end - begin for begin, end in zip(found.started_s, found.answered_s, strict=True))
    if stalls:
        assert set(found.status) == {200, 500} and latency_s >= 3
        assert "QueuePool limit of size 3 overflow 0 reached" in (serve.telling_line(server.output) or "")
    else:
        assert set(found.status) == {200} and latency_s < 3


def test_a_probe_recognises_the_stall_of_two_pools_with_its_threshold_and_cures(tmp_path):
    sizes = {"THREADS": "8", "POOL_SIZE": "2", "MAX_OVERFLOW": "2", "POOL_TIMEOUT": "2", "TMPDIR": str(tmp_path)}
    command = [sys.executable, str(HERE / "bench.py"), "--app", "limits_pools:app", "--path", "/depends", "--probe"]
    done = subprocess.run(
        [*command, "--logs", str(tmp_path), "--json", str(tmp_path / "out.json")],
        cwd=ABOUT.parent, env=os.environ | sizes, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    last = json.loads((tmp_path / "out.json").read_text())["runs"][-1]
    assert (done.returncode, last["sent"], last["failed"] > 0) == (1, 20, True), done.stdout + done.stderr
    (suspect,) = last["estimate"]["suspects"]
    assert "two pools, one stall" in suspect["what"] and "8 threads + 4 connections = 12 at once" in suspect["what"]
    assert "ceil(20 / 4) rounds" in suspect["predicted_effect"]
    assert "two pools, one stall" in " ".join(done.stdout.split())


def test_a_pool_that_somebody_set_is_found_behind_the_threads_and_named(tmp_path):
    command = [sys.executable, str(HERE / "bench.py"), "--app", 'parcels:create_app("production")', "--threads", "8"]
    done = subprocess.run(
        [*command, "--path", "/parcels/1", "--probe", "--logs", str(tmp_path), "--json", str(tmp_path / "out.json")],
        cwd=SERVICES, env=os.environ | {"QUERY_TIME": "0.2"}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    last = json.loads((tmp_path / "out.json").read_text())["runs"][-1]
    found = last["estimate"]
    assert done.returncode == 0 and found["low"] <= 5 <= (found["high"] or 99), done.stdout + done.stderr
    if explain.is_certain(found) and found["suspects"]:  # a busy machine may leave a range
        assert found["suspects"][0]["what"].startswith("5 at a time: SQLAlchemy's pool, if it was set to 5")
        assert last["explained_by"] == "other-slots" and last["slots_seen"] == 8
        assert "a limit inside the handler, of 5" in " ".join(done.stdout.split())


# ---------------------------------------------------------------- suite limits


@functools.cache
def finished_once() -> str:
    return json.dumps(finished("limits"))


def with_pool_runs(**changes) -> dict:
    """A sweep whose runs of the two pools went as predicted, or else as changed."""
    document: dict = json.loads(finished_once())
    for pools in limits.POOLS:
        stalled = {"measured_s": 1.1, "timed_out": 25, "said": "TimeoutError: QueuePool limit (Background on it)"}
        run = stalled if pools.stalls else {"measured_s": 0.4, "timed_out": 0, "said": None}
        change(document, pools.variant, **(run | {"requests": pools.n, "failed": 0} | changes))
    return document


def test_the_rule_of_two_pools_holds_in_the_report_only_if_the_runs_say_so():
    report = sweep.render(with_pool_runs())
    rows = rows_of(report)
    assert rows["40 + 15, n = 54"] == ["all answered", "0.400 s (0.400-0.400)", "0", "2 of 2"]
    assert rows["40 + 15, n = 55"] == ["stalls for 1 s, some fail", "1.10 s (1.10-1.10)", "25", "2 of 2"]
    assert "The server's log says: `TimeoutError: QueuePool limit`." in report
    for changes in ({"measured_s": 0.4, "timed_out": 0}, {"failed": 3}, {"measured_s": 0.4, "timed_out": 7}):
        rows = rows_of(sweep.render(with_pool_runs(**changes)))
        assert rows["40 + 15, n = 55"][-1] == "0 of 2", changes
    rows = rows_of(sweep.render(with_pool_runs(measured_s=1.1, timed_out=25)))
    assert rows["15 + 15, n = 29"][-1] == rows["40 + 15, n = 100, no response model"][-1] == "0 of 2"


def test_the_published_figures_are_what_the_slots_of_that_machine_give():
    rows = rows_of(sweep.render(json.loads(finished_once())))
    published = {name: rows[name][:2] for name in ("/async", "/def", "/executor, 12 threads")}
    assert published == {"/async": ["63.5 s", "60 s"], "/def": ["78.6 s", "75 s"],
                         "/executor, 12 threads": ["256.2 s", "252 s"]}  # fmt: skip
    for row in limits.WORKERS:
        told, slots_give = rows[row.variant.removeprefix("C ")][:2]
        assert told in ("-", slots_give)
    assert rows["1 worker x 4 threads : 1 worker x 1 thread"][0] == "1.00"
    assert rows["`def` with time.sleep, 100 users"][:2] == ["100 t", "3.00 t"]
    assert rows["`async def` with time.sleep, 100 users"][:2] == ["-", "100 t"]


def test_what_limits_is_named_from_the_answers_of_each_run():
    document = json.loads(finished_once())
    named = {"what": "6 at a time: asyncio.to_thread"}
    found = {"slots": 6, "low": 6, "high": 6, "processes": 1, "each": 6, "kind": "slots",
             "suspects": [named, {"what": "another"}]}  # fmt: skip
    change(document, "A /executor", estimate=found)
    row = rows_of(sweep.render(document))["A /executor"]
    assert row == ["6 at a time", named["what"], "asyncio's own threads, min(32, CPUs + 4)"]
    assert rows_of(sweep.render(document))["A /def"][:2] == ["-", "-"]


def test_every_prediction_is_printed_before_the_first_run():
    document = json.loads(finished_once())
    lines = limits.SUITE.foretell(document | {"runs": []})
    assert len(lines) == len(limits.SUITE.variants)
    assert "predicted  B 40 + 15, n = 55: stalls for 1 s" in lines
    assert "predicted  A /executor, 12 threads: 0.900 s" in lines
    assert all(variant.name in " ".join(lines) for variant in limits.SUITE.variants)


def test_a_run_with_settings_gives_them_to_the_server_and_leaves_none_behind(tmp_path):
    pytest.importorskip("sqlalchemy")
    document = sweep.new_document("limits", True, 1, 1, "")
    variant = sweep.variant_named(document, "B 10 + 20, n = 29")
    small = variant._replace(arguments=variant.arguments.replace("-n 29", "-n 3"))
    before = dict(os.environ)
    run = limits.run_with_settings(document, small, 0, tmp_path)
    load.signals.is_held = False
    assert (run["requests"], run["answered"], run["failed"], run["timed_out"]) == (3, 3, 0, 0)
    assert dict(os.environ) == before and list(tmp_path.iterdir()) == []
