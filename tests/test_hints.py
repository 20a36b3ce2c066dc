"""An app that does not load, or that its server cannot serve, is one line that says what to do."""

from __future__ import annotations

import sys

import pytest
from servers import write_files

import bench
from engine import hints

FLASK = "from flask import Flask\napp = Flask(__name__)\n"
FASTAPI = "from fastapi import FastAPI\napi: FastAPI = FastAPI()\n"
FACTORY = "def create_app():\n    from flask import Flask\n    return Flask(__name__)\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench.py"])
    return tmp_path


def told(capsys, *arguments: str) -> tuple[int, str]:
    code = bench.main([*arguments, "-n", "2", "--logs", "logs"])
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return code, err


@pytest.mark.parametrize("app", ["main:app", "shop:app", "web.shop:app"])
def test_what_could_be_meant_is_listed(folder, capsys, app):
    write_files(
        folder, {"shop.py": FASTAPI, "web/site.py": FLASK, "make.py": FACTORY, "other.py": "x = 1", ".x/a.py": FLASK}
    )
    code, err = told(capsys, "--app", app)
    assert code == 3 and all(name in err for name in ("shop:api", "web.site:app", "make:create_app()"))
    assert "other" not in err and "x.a" not in err


def test_what_is_listed_can_be_typed(folder):
    write_files(folder, {"shop.py": FASTAPI, "web/site.py": FLASK, "make.py": FACTORY})
    for app in hints.apps_in(folder):
        assert bench.plans.plans_of(bench.parse(["--app", app]))[0].launch.app == app


def test_a_folder_without_an_app_is_said_to_be_one(folder, capsys):
    assert "folder of your service" in told(capsys, "--app", "main:app")[1]


@pytest.mark.parametrize(("place", "is_there"), [(".venv", True), ("venv", True), ("../.venv", True), ("other", False)])
def test_a_package_that_is_missing_leads_to_the_services_own_python(folder, capsys, monkeypatch, place, is_there):
    inner = folder / "service"
    write_files(inner, {"main.py": "import no_such_package\n", f"{place}/bin/python": ""})
    monkeypatch.chdir(inner)
    code, err = told(capsys, "--app", "main:app")
    assert code == 3 and "no_such_package" in err and ("bin/python bench.py" in err) == is_there


def test_the_same_where_the_server_has_to_say_it(folder, capsys):
    write_files(folder, {"main.py": "import no_such_package\n", "venv/bin/python": ""})
    code = bench.main(["--app", "main:app", "--server", "gunicorn", "-n", "2", "--logs", "logs"])
    err = capsys.readouterr().err
    assert code == 3 and err.count("\n") == 1 and "no_such_package" in err and "venv/bin/python bench.py" in err


def test_this_very_environment_is_not_named(folder, monkeypatch):
    write_files(folder, {".venv/bin/python": ""})
    monkeypatch.setattr(sys, "prefix", str(folder / ".venv"))
    assert hints.own_python(folder) is None


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        (FLASK, "--server uvicorn", "gunicorn-threads"),
        (FLASK, "--server gunicorn-uvicorn", "waitress"),
        (FLASK, "--server gunicorn --server-args=--worker-class=asgi", "gunicorn-threads"),
        (FASTAPI.replace("api", "app"), "--server gunicorn", "uvicorn"),
        (FASTAPI.replace("api", "app"), "--server flask-dev", "uvicorn"),
    ],
)
def test_an_app_that_its_server_cannot_call_is_refused(folder, capsys, text, line, named):
    write_files(folder, {"main.py": text.replace("fastapp", "fastapi")})
    code, err = told(capsys, "--app", "main:app", *line.split())
    assert code == 2 and named in err


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (FLASK, "--server waitress"),
        (FASTAPI.replace("api", "app"), "--server gunicorn --server-args=--worker-class=asgi"),
        (FASTAPI.replace("api", "app"), "--server hypercorn"),
        ("import no_such_module", "--server gunicorn"),  # the server says what is wrong
    ],
)
def test_what_can_be_served_is_not_refused(folder, text, line):
    write_files(folder, {"main.py": text.replace("fastapp", "fastapi")})
    assert bench.plans.plans_of(bench.parse(["--app", "main:app", *line.split()]))
