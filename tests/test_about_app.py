"""What an app says of itself: its kind, and how a request to a path is run."""

from __future__ import annotations

import pytest
from servers import write_files

from engine.launch import APPS, ask_app
from engine.words import Problem

MAIN = """
import functools
from fastapi import APIRouter, Depends, FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

def thread(): return 1
async def awaited(): return 1
def session(): yield 1
def nested(one=Depends(session), two=Depends(thread)): pass

api = FastAPI()
router = APIRouter(prefix="/r")
@api.get("/def")
def plain(): pass
@api.get("/model")
def model() -> dict: pass
@api.get("/async")
async def awaits() -> dict: pass
@router.get("/{item}")
def deep(item, a=Depends(nested), b=Depends(session), c=Depends(awaited)) -> dict: pass
@router.post("/{item}")
async def posted(item, a=Depends(thread)): pass
class Callable:
    async def __call__(self): pass
api.get("/object")(Callable())
api.get("/partial")(functools.partial(awaits))
api.include_router(router)

class End(HTTPEndpoint):
    async def get(self, request): pass
star = Starlette(routes=[Route("/def", lambda request: PlainTextResponse("")), Route("/end", End), Mount("/api", api)])
around = CORSMiddleware(star, allow_origins=["*"])
def create(): return api

from asgiref.wsgi import WsgiToAsgi
from flask import Flask
from flask.views import MethodView
web = Flask("web")
@web.get("/def/<int:x>")
def view(x): pass
@web.get("/async")
async def aview(): pass
class View(MethodView):
    async def get(self): pass
web.add_url_rule("/view", view_func=View.as_view("a_class"))
adapted = WsgiToAsgi(web)
"""
DJANGO = """
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.urls import path
async def awaits(request): pass
def view(request): pass
urlpatterns = [path("async", awaits), path("def", view)]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"])
asgi, wsgi = get_asgi_application(), get_wsgi_application()
"""
WHOLE = [
    "before",
    "before",
    "before",
    "handler",
    "after",
]  # two `def` dependencies, one of them nested, and its session
CASES = [  # app, path -> kind, framework, handler, thread_passes
    ("main:api", "/def", "asgi", "fastapi", "def", ["handler"]),
    ("main:api", "/model", "asgi", "fastapi", "def", ["handler", "after"]),
    ("main:api", "/async", "asgi", "fastapi", "async", []),
    ("main:api", "/r/7", "asgi", "fastapi", "def", WHOLE),
    ("main:api", "/object", "asgi", "fastapi", "async", []),
    ("main:api", "/partial", "asgi", "fastapi", "async", []),
    ("main:api", "/nowhere", "asgi", "fastapi", None, None),
    ("main:create()", "/def", "asgi", "fastapi", "def", ["handler"]),
    ("main:create", "/def", "asgi", "fastapi", "def", ["handler"]),
    ("main:star", "/def", "asgi", "starlette", "def", ["handler"]),
    ("main:star", "/end", "asgi", "starlette", "async", []),
    ("main:star", "/api/model", "asgi", "starlette", "def", ["handler", "after"]),
    ("main:around", "/end", "asgi", "starlette", "async", []),
    ("main:web", "/def/1", "wsgi", "flask", "def", []),
    ("main:web", "/async", "wsgi", "flask", "async", []),
    ("main:web", "/view", "wsgi", "flask", "async", []),
    ("main:web", "/def/x", "wsgi", "flask", None, None),
    ("main:adapted", "/def/1", "asgi", "flask", None, None),  # the adapter's threads are its own
    ("dj:asgi", "/async", "asgi", "django", "async", []),
    ("dj:asgi", "/def", "asgi", "django", "def", []),
    ("dj:wsgi", "/def", "wsgi", "django", "def", []),
    ("dj:wsgi", "/nowhere", "wsgi", "django", None, None),
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    write_files(tmp_path, {"main.py": MAIN, "dj.py": DJANGO})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_app_says_how_a_request_is_run():
    said = [(app, path, ask_app(app, "GET", path)) for app, path, *_ in CASES]
    names = ("kind", "framework", "handler", "thread_passes")
    assert [(app, path, *(says[name] for name in names)) for app, path, says in said] == CASES


def test_the_method_and_the_dependencies_count():
    says = ask_app("main:api", "POST", "/r/7?x=1")
    assert (says["handler"], says["thread_passes"], says["yield_dependencies"]) == ("async", ["before"], 0)
    says = ask_app("main:api", "GET", "/r/7")
    assert (says["yield_dependencies"], says["factory"], says["packages"]) == (1, False, ["asgiref"])
    assert ask_app("main:create", "GET", "/")["factory"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import no_such_module", r"ModuleNotFoundError: .*'no_such_module' \(bad.py, line 1\)"),
        ("x = 1", "AttributeError: module 'bad' has no attribute 'app'"),
        ("def app(", r"SyntaxError: '\(' was never closed \(bad.py, line 1\)"),
        ("def app():\n    return {}['key']", r"KeyError: 'key' \(bad.py, line 2\)"),
        ("print('noise')\nraise SystemExit('no SECRET')", "SystemExit: no SECRET"),
    ],
)
def test_an_app_that_does_not_load_says_its_own_error(folder, text, error):
    (folder / "bad.py").write_text(text)
    with pytest.raises(Problem, match=error) as caught:
        ask_app("bad:app", "GET", "/")
    assert caught.value.exit_code == 3


def test_our_own_apps_say_what_the_table_of_targets_says(monkeypatch):
    monkeypatch.chdir(APPS)
    says = ask_app("limits_pools:app", "GET", "/depends")
    assert (says["thread_passes"], says["yield_dependencies"]) == (["before", "handler", "after"], 1)
    assert says["packages"] == ["sqlalchemy"]
