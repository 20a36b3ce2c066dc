"""Inputs for which something would be lost, or said of a request that is not so: headers, workloads, pages, streams."""

from __future__ import annotations

import os
import socket

import pytest
from commands import run_bench
from samples import sample_plan
from servers import write_files

import bench
from engine import before, neighbours, page_charts, report, send, server, workload
from engine.client import Exchanges
from engine.kinds import Kind
from engine.launch import Launch
from engine.views import Views
from engine.words import Problem
from suites import own

APP = """
import time
from flask import Flask, request
from fastapi import FastAPI
from fastapi.middleware.gzip import GZipMiddleware

app = Flask(__name__)

@app.get("/")
def index():
    time.sleep(0.02)
    return request.cookies.get("lang", "") + request.cookies.get("session", "")

api = FastAPI()
api.add_middleware(GZipMiddleware, minimum_size=100)

@api.post("/login")
def login():
    return {"access_token": "t" * 700}

@api.get("/items/{number}")
def item(number: int):
    return {}

@api.post("/orders")
def order(body: dict):
    return {}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    write_files(tmp_path, {"kept_app.py": APP})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_request_by_itself_that_fails_does_not_make_a_handler_a_stream():
    launch = Launch("x", "uvicorn", "x:app", is_target=False, handler="def")
    plan = sample_plan(launch=launch, target="x:app")
    failed = Exchanges()
    for column, value in {"started_s": 1000.0, "answered_s": 1001.0, "first_byte_s": 0.0, "error": 1}.items():
        getattr(failed, column).append(value)
    assert before.with_body(plan, 0, [failed]).launch.handler == "def"


@pytest.mark.parametrize("kind", ["gunicorn-threads", "waitress", "flask-dev"])
def test_a_request_is_found_in_the_log_beside_a_number_of_the_users(here, kind):
    (run,) = run_bench(here, "--app", "kept_app:app", "--server", kind, "-n", "9", "-H", "X-Request-Id: abc")[1]["runs"]
    assert run["inside"]["log_lines"] == 9 and sum(run["inside"]["requests_of_workers"].values()) == 9


def test_the_path_that_is_refused_is_the_one_that_was_asked(here, capsys):
    kinds = '[[kinds]]\npath = "/items/{random:1:9}"\n[[kinds]]\nmethod = "POST"\npath = "/orders"\nbody = "[1, 2]"\n'
    (here / "w.toml").write_text(kinds)
    assert bench.main(["--app", "kept_app:api", "--workload", "w.toml", "-n", "9", "--logs", f"{here}"]) == 2
    said = capsys.readouterr().err
    assert "POST /orders is answered with HTTP 422" in said and "/items" not in said.partition("422")[0]


def test_a_line_of_users_that_send_only_once_is_drawn():
    assert page_charts.outline([(0.0, float(k)) for k in range(1000)])


def test_a_client_sends_one_header_of_cookies():
    lines = send.with_one_cookie(["Cookie: lang=de", "Accept: */*", "cookie: session=7"])
    assert lines == ["Accept: */*", "Cookie: lang=de; session=7"]
    assert before.named_headers(["Accept-Encoding: gzip", "Cookie: a=1", "Cookie: b=2"]) == {"Cookie": "a=1; b=2"}
    head, _ = send.message(sample_plan(headers=("Cookie: a=1", "Cookie: b=2")), 80, Kind(1.0, "GET", "/"), b"")
    assert head.count(b"ookie:") == 1


def test_a_login_is_read_though_its_answer_would_be_compressed(here):
    (here / "w.toml").write_text(
        '[login]\npath = "/login"\ntoken = "access_token"\n'
        '[[kinds]]\npath = "/items/1"\nheaders = ["Authorization: Bearer {token}"]\n'
    )
    how = ["--app", "kept_app:api", "--workload", "w.toml", "-n", "9", "-H", "Accept-Encoding: gzip"]
    assert run_bench(here, *how)[1]["runs"][0]["measured"]["answered"] == 9


def test_a_page_goes_where_it_was_asked_for(here, monkeypatch):
    views = Views("page.html", None)
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    views.write({"command": "", "when": "", "machine": {}, "versions": {}}, [], True)
    assert (here / "page.html").exists() and not (here / "elsewhere" / "page.html").exists()


def test_a_gunicorn_that_is_not_in_this_python_is_started_all_the_same(monkeypatch, here):
    monkeypatch.setattr(server, "installed_versions", dict)
    (run,) = run_bench(here, "--run", "gunicorn --threads 4 --bind 127.0.0.1:{port} kept_app:app", "-n", "9")[1]["runs"]
    assert run["measured"]["answered"] == 9


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="Linux")
def test_a_client_of_the_service_is_no_program_that_it_asks(monkeypatch):
    """Both ends are in this process: the client's is the peer of the server's, and the other way round."""
    peers = []
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as client,
        listening.accept()[0] as accepted,
    ):
        ends = [f"socket:[{os.fstat(one.fileno()).st_ino}]" for one in (client, accepted)]
        for end in ends:
            monkeypatch.setattr(neighbours, "sockets_of", lambda pid, end=end: {end})
            peers.append(neighbours.peers_of([1]))
    assert peers == [{ends[1]}, set()]


def test_a_variant_has_no_database_of_its_own():
    arguments = "--target fastapi-books -n 9 --path /v1/books/1 --database-url postgresql://x/y"
    variant = {"name": "x", "arguments": arguments}
    with pytest.raises(Problem, match="--database-url"):
        own.check_variant(variant, ["x"])


@pytest.mark.parametrize("header", ["Connection: close", "Content-Length: 3", "transfer-encoding: chunked"])
def test_a_workload_has_no_header_that_this_client_sets(header):
    with pytest.raises(Problem, match="this client"):
        workload.check_request({"path": "/", "headers": [header]}, "w.toml")
    workload.check_request({"path": "/", "headers": ["Connections: 3"]}, "w.toml")


def test_the_more_repeats_the_surer_is_their_interval():
    assert report.in_cases(6) == pytest.approx(96.9, abs=0.1) and 99 < report.in_cases(9) < report.in_cases(30) < 100
