"""What an app says of itself: its kind, and how a request to a path is run."""

from typing import Any

import pytest
from servers import write_files

from engine.launch import APPS, INSIDE, last_line_of
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
async def page(request): return PlainTextResponse("")
@functools.wraps(page)
def synced(request): return asyncio.run(page(request))
star = Starlette(routes=[
    Route("/wrapped", synced), Route("/def", lambda request: PlainTextResponse("")), Route("/end", End),
    Mount("/api", api),
])
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
WHOLE = (0, 0, 0, 1, 0)  # two `def` dependencies, one of them nested, and its session
CASES = [  # app, path -> server, kind of handler, passes
    ("main:api", "/def", "uvicorn", "def", (1,)),
    ("main:api", "/model", "uvicorn", "def", (1, 0)),
    ("main:api", "/async", "uvicorn", "async", None),
    ("main:api", "/r/7", "uvicorn", "def", WHOLE),
    ("main:api", "/object", "uvicorn", "async", None),
    ("main:api", "/partial", "uvicorn", "async", None),
    ("main:api", "/nowhere", "uvicorn", None, None),
    ("main:create()", "/def", "uvicorn", "def", (1,)),
    ("main:create", "/def", "uvicorn", "def", (1,)),
    ("main:star", "/def", "uvicorn", "def", (1,)),
    ("main:star", "/wrapped", "uvicorn", "def", (1,)),
    ("main:star", "/end", "uvicorn", "async", None),
    ("main:star", "/api/model", "uvicorn", "def", (1, 0)),
    ("main:around", "/end", "uvicorn", "async", None),
    ("main:web", "/def/1", "gunicorn", "def", None),
    ("main:web", "/async", "gunicorn", "async", None),
    ("main:web", "/view", "gunicorn", "async", None),
    ("main:web", "/def/x", "gunicorn", None, None),
    ("main:adapted", "/def/1", "uvicorn", None, None),  # the adapter's threads are its own
    ("dj:asgi", "/async", "uvicorn", "async", None),
    ("dj:asgi", "/def", "uvicorn", "def in a thread of its own", None),
    ("dj:wsgi", "/nowhere", "gunicorn", None, None),
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    write_files(tmp_path, {"main.py": MAIN, "dj.py": DJANGO})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask_app(app: str, path: str, method: str = "GET") -> dict[str, Any]:
    return last_line_of([str(INSIDE / "about_app.py"), app, method, path, "30"], Problem(app, 3))


def test_an_app_says_how_a_request_is_run():
    said = [(app, path, ask_app(app, path)) for app, path, *_ in CASES]
    kinds = [says.get("handler", says.get("handlers", (None,))[0]) for _, _, says in said]
    assert [
        (app, path, says["server"], kind, says.get("passes"))
        for (app, path, says), kind in zip(said, kinds, strict=True)
    ] == CASES


def test_the_method_and_the_dependencies_count():
    assert ask_app("main:api", "/r/7?x=1", "POST")["handlers"] == ("async", "def", "blocking")
    says = ask_app("main:api", "/r/7")
    assert says["imported"] == ("anyio", "asgiref")
    assert ask_app("main:create", "/")["app"] == "main:create()"


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
        ask_app("bad:app", "/")
    assert caught.value.exit_code == 3


def test_our_own_apps_say_what_the_table_of_targets_says(monkeypatch):
    monkeypatch.chdir(APPS)
    says = ask_app("limits_pools:app", "/depends")
    assert says["passes"] == (0, 1, 0) and "sqlalchemy" in says["imported"]
