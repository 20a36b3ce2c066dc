"""Each app keeps its promise on a real server; both Books APIs answer alike, whatever is asked."""

from __future__ import annotations

import json
import runpy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime

import pytest
from servers import ask, running, target_of

from engine.access_log import request_lines, slots_seen, wait_for_log
from engine.database import BooksDatabase, books_seen
from engine.launch import APPS, Launch
from engine.model import DISTRIBUTIONS, drawn_wait_s
from engine.targets import HANDLERS, SEEDED_BOOKS

T = 0.3  # seconds that a request waits
ASYNCIO_THREADS = int(HANDLERS["async in asyncio's threads"].inside)


def launch_of(name: str, path: str) -> Launch:
    return target_of(name, f"--task-time {T} --workers 1", path, strict=False)


def burst(port: int, path: str, requests: int) -> list[tuple[int, str]]:
    with ThreadPoolExecutor(requests) as pool:
        return list(pool.map(lambda number: ask(port, path, number=number), range(requests)))


@pytest.mark.parametrize(
    ("name", "path", "requests", "slots", "rounds"),
    [
        ("flask-gunicorn", "/io", 3, 1, 3),
        ("flask-gunicorn", "/async-io", 3, 1, 3),
        ("fastapi-uvicorn", "/io", 41, 40, 2),
        ("fastapi-uvicorn", "/async-io", 60, 60, 1),
        ("fastapi-blocking", "/sleep", 3, 1, 3),
        ("fastapi-fixed", "/sleep", 60, 60, 1),
        ("fastapi-typed", "/io", 80, 40, 2),
        ("fastapi-threads", "/io", 60, 60, 1),
        ("limits-handlers", "/executor", ASYNCIO_THREADS + 1, ASYNCIO_THREADS + 1, 2),  # all are in their handlers
        ("limits-handlers", "/threadpool", 41, 41, 2),  # likewise: what they wait for is inside
    ],
)
def test_an_app_works_on_as_many_requests_as_it_claims(tmp_path, name, path, requests, slots, rounds):
    with running(launch_of(name, path), tmp_path) as server:
        assert {status for status, _ in burst(server.port, path, requests)} == {200}
        lines = wait_for_log(server.access_log, requests).lines
    ends_s = sorted(line.started_s + line.duration_s - lines[0].started_s for line in lines)
    assert 0.85 * slots <= slots_seen(lines) <= slots  # some of many come late on a busy machine
    assert ends_s[0] > 0.99 * T and ends_s[-1] > 0.99 * rounds * T


@pytest.mark.parametrize(("name", "slots"), [("fastapi-uvicorn", 40), ("flask-gunicorn", 1)])
def test_a_live_log_says_that_a_handler_starts_when_it_has_a_slot(tmp_path, name, slots):
    with running(launch_of(name, "/io"), tmp_path, live=True) as server:
        burst(server.port, "/io", slots + 1)
        text = server.access_log.read_text()
    starts = [datetime.fromisoformat(line.stamp) for line in request_lines(text, starts=True)]
    assert len(starts) == slots + 1
    assert (max(starts) - min(starts)).total_seconds() > 0.99 * T
    assert text.rindex("] starts ") > text.index(" 200 ")  # written then, not before


def test_subtasks_wait_side_by_side(tmp_path):
    for name in ("flask-gunicorn", "fastapi-uvicorn"):
        with running(launch_of(name, "/async-io-multi"), tmp_path) as server:
            assert json.loads(ask(server.port, "/async-io-multi")[1]) == {"task_time": T, "subtasks": 2}
            (line,) = wait_for_log(server.access_log, 1).lines
        assert T / 2 <= line.duration_s + 0.001 < T
        server.access_log.unlink()


@pytest.mark.parametrize(("path", "statuses"), [("/depends", {200, 500}), ("/untyped", {200}), ("/with", {200})])
def test_threads_and_connections_stop_each_other_only_with_a_response_model_around_a_session(tmp_path, path, statuses):
    small = {"THREADS": "4", "POOL_SIZE": "1", "MAX_OVERFLOW": "0", "POOL_TIMEOUT": "2", "TASK_TIME": "0.05"}
    launch = replace(launch_of("limits-pools", path), env=tuple(small.items()))
    with running(launch, tmp_path) as server:
        assert {status for status, _ in burst(server.port, path, 12)} == statuses


@pytest.mark.parametrize("name", ["flask_sync", "fastapi_sync", "fastapi_async"])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_same_number_waits_the_same_time_in_the_app_and_on_paper(monkeypatch, name, distribution):
    monkeypatch.setenv("TASK_TIME", "0.2")
    monkeypatch.setenv("TASK_DISTRIBUTION", distribution)
    app = runpy.run_path(str(APPS / f"{name}.py"))
    waits_s = [drawn_wait_s(0.2, distribution, number) for number in range(20)]
    assert [app["task_time"](str(number)) for number in range(20)] == waits_s
    assert app["task_time"]("-") == waits_s[0]


# ---------------------------------------------------------------- the Books API


@pytest.fixture(scope="module", params=["flask-books", "fastapi-books"])
def books(request, tmp_path_factory):
    """A server of one of the two apps, and its database."""
    folder = tmp_path_factory.mktemp("books")
    database = BooksDatabase(None, folder / "postgres.log", set())
    try:
        with running(launch_of(request.param, "/v1/sleep"), folder, database.url) as server:
            yield server, database
    finally:
        database.stop()


BOOK = {"title": "Momo", "author": "Ende", "year": 1973, "isbn": "new-1"}


def book(**changes) -> bytes:
    return json.dumps(BOOK | changes).encode()


CASES = [
    (200, "GET", "/v1/books/1"),
    (200, "GET", "/v1/sleep?ms=1"),
    *((404, "GET", f"/v1/books/{key}") for key in (0, 2147483647)),
    (201, "POST", "/v1/books", book()),
    (409, "POST", "/v1/books", book()),
    (201, "POST", "/v1/books", book(isbn="x" * 32, title="\U0001f4d6" * 255)),
    *((422, "POST", "/v1/books", book(isbn=text)) for text in ("x" * 33, "a\0b", None)),
    (200, "PATCH", "/v1/books/10001", b'{"year":1974}'),
    (409, "PATCH", "/v1/books/1", b'{"isbn":"new-1"}'),
    (404, "PATCH", "/v1/books/2147483647", b'{"year":1}'),
]


def test_both_apps_answer_every_case_alike(books):
    server, database = books
    got = [ask(server.port, path, method, *body) for _, method, path, *body in CASES]
    assert [(status, *case) for (status, _), (_, *case) in zip(got, CASES, strict=True)] == CASES
    assert json.loads(got[1][1])["slept_ms"] == 1
    assert books_seen(database).rows == SEEDED_BOOKS + 2
    made = json.loads(ask(server.port, "/v1/books/10001")[1])
    assert made.items() >= {**BOOK, "id": 10001, "year": 1974, "status": "active"}.items()
