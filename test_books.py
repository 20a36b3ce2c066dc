"""The Books API: both apps answer alike, whatever is asked; its Postgres comes and goes, and leaves nothing."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import bench
import serve
from test_serve import alive, run_bench, wait_until

HERE = Path(__file__).parent


# ---------------------------------------------------------------- the Books API: starting, asking, stopping

BOOKS_SERVERS = {
    "flask": "gunicorn -k gthread --threads 4 --log-level warning -b 127.0.0.1:{} flask_books:app",
    "fastapi": "uvicorn --port {} --log-level warning fastapi_books:app",
}
Answer = tuple[int, str, bytes]


def new_database(url: str | None = None) -> serve.Database:
    return serve.Database(url, Path(os.devnull), set())


class App:
    """One of the two apps, on a database of its own."""

    def __init__(self, name: str):
        self.database = new_database()
        self.asked = 0
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        command = [sys.executable, "-m", *BOOKS_SERVERS[name].format(self.port).split()]
        environment = os.environ | {"DATABASE_URL": self.database.about["database_url"], "POOL_SIZE": "4"}
        self.server = subprocess.Popen(command, cwd=HERE / "apps", env=environment)
        wait_until(self.is_up)

    def is_up(self) -> bool:
        try:
            return self.ask("GET", "/health")[0] == 200
        except OSError:
            return False

    def ask(self, method: str, target: str, body: bytes = b"", chunked: bool = False) -> Answer:
        """Send one request on a new connection; return the answer's status, type and body."""
        head = f"{method} {target} HTTP/1.1\r\nHost: books\r\nConnection: close\r\n"
        if chunked:
            head += "Transfer-Encoding: chunked\r\n\r\n"
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        else:
            head += f"Content-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            with contextlib.suppress(ConnectionError):  # it answers before it has read all of a huge body
                connection.sendall(head.encode() + body)
            response = http.client.HTTPResponse(connection, method=method)
            response.begin()
            self.asked += 1
            return response.status, response.headers["Content-Type"], response.read()

    def stop(self):
        self.server.terminate()
        self.server.wait(10)
        self.database.stop()


@pytest.fixture(scope="module")
def apps():
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(App, BOOKS_SERVERS))
        yield both
        list(pool.map(App.stop, both))


def ask_both(apps, *request: Any) -> tuple[int, Any]:
    """Both apps' answer: equal in every byte, except for the times that now() wrote."""
    answers = []
    for app in apps:
        status, kind, body = app.ask(*request)
        answers.append((status, kind, re.sub(rb'(_at":")20(?!26-01-0)[^"]+', rb"\1now", body)))
    assert answers[0] == answers[1]
    assert status < 500 and kind == "application/json"
    return status, json.loads(body or b"null")


# ---------------------------------------------------------------- the Books API: the contract

BOOK = {"title": "Momo", "author": "Ende", "year": 1973, "isbn": "new-1"}


def book(**changes: Any) -> bytes:
    return json.dumps(BOOK | changes).encode()


CASES = [
    (200, "GET", "/health"),
    (200, "GET", "/v1/books/1"),
    (200, "HEAD", "/v1/books/1"),
    (404, "GET", "/v1/books/0"),
    (404, "GET", "/v1/books/2147483647"),
    (200, "GET", "/v1/books"),
    (200, "GET", "/v1/books?limit=100&offset=9990"),
    (200, "GET", "/v1/sleep?ms=5"),
    (201, "POST", "/v1/books", book()),
    (409, "POST", "/v1/books", book()),
    (201, "POST", "/v1/books", book(isbn="new-2", status="lent"), True),  # True: chunked
    (201, "POST", "/v1/books", book(isbn="x" * 32, title="\U0001f4d6" * 255, year=-(2**31))),
    (200, "PATCH", "/v1/books/10001", b'{"year":1974}'),
    (200, "PATCH", "/v1/books/10001", b'{"title":"a","author":"b","isbn":"c","status":"d"}'),
    (409, "PATCH", "/v1/books/1", b'{"isbn":"new-2"}'),
    (404, "PATCH", "/v1/books/2147483647", b'{"year":1}'),
    # not here, or not this way; nothing redirects
    *((404, "GET", path) for path in ("/", "/docs", "/openapi.json", "/v1/books/", "/v1/books/1/")),
    (404, "GET", "/v1/books/1%2F"),
    (404, "POST", "/v1/books/"),
    *((405, method, "/v1/books") for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")),
    *((405, method, "/v1/books/1") for method in ("POST", "PUT", "DELETE", "OPTIONS")),
    # numbers that are none, or out of range, or given twice
    *(
        (422, "GET", f"/v1/books/{key}")
        for key in ("2147483648", "+1", "-1", "%201", "1%0A", "1_0", "0x1", "1.0", "%EF%BC%91", "%00")
    ),
    *((422, "GET", f"/v1/books/{key}") for key in ("1;DROP%20TABLE%20books", "%FF%FE", "9" * 3000)),
    *((422, "GET", f"/v1/books?limit={n}") for n in ("", "-1", "101", "1&limit=2", "NaN", "%zz")),
    *((422, "GET", f"/v1/sleep?ms={n}") for n in ("", "-1", "60001", "5&ms=5", "5.0", "+5", "1e3")),
    (422, "PATCH", "/v1/books/x", b'{"year":1}'),
    # bodies
    *((422, "POST", "/v1/books", b) for b in (b"", b"{", b"[]", b"{}", b"null", b"1", b"\xff", b"NaN")),
    *((422, "POST", "/v1/books", deep * 9000) for deep in (b"[", b'{"a":')),
    (422, "POST", "/v1/books", json.dumps(BOOK).encode("utf-16")),
    *((422, "POST", "/v1/books", book(title=value)) for value in (None, 1, [1], {"a": 1}, True, "x" * 256)),
    *((422, "POST", "/v1/books", book(isbn=text)) for text in ("x" * 33, "\0", "a\0b", "\ud800")),
    *((422, "POST", "/v1/books", book(year=year)) for year in (True, None, "1", 1.0, 2**31, 10**999)),
    *((422, "POST", "/v1/books", book(year=float(year))) for year in ("nan", "inf", "-inf")),
    (422, "POST", "/v1/books", b'{"year":' + b"9" * 5000 + b"}"),
    (422, "POST", "/v1/books", book(unknown="x")),
    *((422, "PATCH", "/v1/books/1", body) for body in (b"{}", b'{"id":2}', b'{"year":null}', b"[]")),
    *((422, "POST", "/v1/books", b" " * 65536, chunked) for chunked in (False, True)),
    *((413, "POST", "/v1/books", b" " * 65537, chunked) for chunked in (False, True)),
    *((413, "PATCH", "/v1/books/1", b" " * 5_000_000, chunked) for chunked in (False, True)),
]


def test_both_apps_answer_every_case_alike(apps):
    got = [(ask_both(apps, *request)[0], *request) for _, *request in CASES]
    assert got == CASES


def test_a_book_is_what_the_sql_file_says_and_a_new_one_gets_the_next_id(apps):
    status, first = ask_both(apps, "GET", "/v1/books/1")
    assert (status, first["isbn"]) == (200, "seed-00000001")
    assert [app.database.ask("reset") for app in apps] == [{"ok": True}] * 2
    status, new = ask_both(apps, "POST", "/v1/books", book())
    now = new["created_at"]
    assert new == BOOK | {"id": serve.SEEDED_BOOKS + 1, "status": "active", "created_at": now, "updated_at": now}
    status, changed = ask_both(apps, "PATCH", f"/v1/books/{new['id']}", b'{"year":1}')
    assert changed == new | {"year": 1, "updated_at": changed["updated_at"]}
    assert changed["updated_at"] > now


# ---------------------------------------------------------------- the Books API: bad input

INJECTIONS = st.sampled_from(
    ["1 OR 1=1", "1; DROP TABLE books", "'; DROP TABLE books; --", "%(id)s", "$1", "{}", "%s%n", "\\"]
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=300), INJECTIONS)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
NEARLY_BOOKS = st.fixed_dictionaries(
    {},
    optional={
        "title": st.text(min_size=1, max_size=255) | JSON,
        "author": INJECTIONS | JSON,
        "year": st.integers(-(2**31), 2**31) | JSON,
        "isbn": st.text(st.characters(exclude_categories=[]), max_size=33) | JSON,
        "status": INJECTIONS | JSON,
        "id": JSON,
    },
)
BODIES = st.one_of(
    NEARLY_BOOKS.map(lambda value: json.dumps(value).encode()),
    st.builds(lambda isbn, changes: book(**({"isbn": isbn} | changes)), st.text(), NEARLY_BOOKS),
    JSON.map(lambda value: json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")),
    st.binary(max_size=100),
)
TARGETS = st.builds(
    lambda target, junk: target.format(quote(junk)),
    # ms is given twice, so that no junk makes a server sleep
    st.sampled_from(["/{}", "/v1/books/{}", "/v1/books?limit={}", "/v1/books?{}", "/v1/sleep?ms=1&ms={}"]),
    st.binary(max_size=30) | INJECTIONS | st.integers().map(str),
)
few = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


@few
@given(target=TARGETS, method=st.sampled_from(["GET", "HEAD", "POST", "PATCH"]))
def test_no_target_makes_a_500(apps, target: str, method: str):
    assert ask_both(apps, method, target)[0] in (200, 404, 405, 422)


def test_no_body_makes_a_500_and_only_a_201_makes_a_row(apps):
    [app.database.ask("reset") for app in apps]
    statuses = []

    @few
    @example(body=book(), where="/v1/books", chunked=False)
    @given(body=BODIES, where=st.sampled_from(["/v1/books", "/v1/books/7"]), chunked=st.booleans())
    def check(body: bytes, where: str, chunked: bool):
        method = "POST" if where == "/v1/books" else "PATCH"
        statuses.append(ask_both(apps, method, where, body, chunked)[0])
        assert statuses[-1] in ((201, 409, 422) if method == "POST" else (200, 409, 422))

    check()
    assert 201 in statuses
    for app in apps:
        assert app.database.ask("stats")["rows"] == serve.SEEDED_BOOKS + statuses.count(201)


# ---------------------------------------------------------------- the Books API: the database goes and comes


@pytest.mark.parametrize("which", [0, 1], ids=list(BOOKS_SERVERS))
def test_a_killed_postgres_is_a_503_and_is_found_again(apps, which: int):
    app = apps[which]

    def sleepers(number: int) -> set[int]:
        with ThreadPoolExecutor(number) as pool:
            return set(pool.map(lambda _: app.ask("GET", "/v1/sleep?ms=300")[0], range(number)))

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(sleepers, 12)
        time.sleep(0.15)
        assert app.database.ask("kill") == {"ok": True}
        assert running.result(5) == {503}  # those that ran and those that queued
    began = time.monotonic()
    assert app.ask("GET", "/v1/books/1") == (503, "application/json", b'{"error":503}')
    assert time.monotonic() - began < 0.5  # nobody waits again for what is known to be away
    assert app.database.ask("start") == {"ok": True}
    wait_until(lambda: app.ask("GET", "/v1/books/1")[0] == 200, 2)
    assert sleepers(12) == {200}


@pytest.mark.parametrize("name", BOOKS_SERVERS)
def test_postgres_counts_one_statement_a_request(name: str):
    app = App(name)
    for n in range(10):
        assert app.ask("GET", f"/v1/books/{n}")[0] == (200 if n else 404)
        assert app.ask("POST", "/v1/books", book(isbn=f"{n // 2}"))[0] == (409 if n % 2 else 201)
    app.server.terminate()
    app.server.wait(10)
    stats = app.database.ask("stats")
    app.stop()
    exact = {"statements": app.asked, "rolled_back": 5, "updated": 0, "connections": 0}
    assert stats == exact | {"rows": serve.SEEDED_BOOKS + 5}


ENDINGS: dict[str, Callable[[serve.Database], object]] = {
    "end of input": lambda database: database.stdin.close(),
    "SIGTERM": lambda database: database.process.terminate(),
    "SIGINT to the group": lambda database: os.killpg(database.process.pid, signal.SIGINT),
    "SIGTERM to the group": lambda database: os.killpg(database.process.pid, signal.SIGTERM),
    "SIGKILL": lambda database: database.process.kill(),
    "SIGKILL to the group": lambda database: os.killpg(database.process.pid, signal.SIGKILL),
}


def leaves_nothing(ending: Callable[[serve.Database], object]) -> bool:
    database = new_database()
    # a client that stays connected must not hold it up
    with psycopg.connect(database.about["database_url"], autocommit=True) as connection:
        data = Path(connection.execute("SHOW data_directory").fetchall()[0][0])
        segment = (data / "postmaster.pid").read_text().splitlines()[6].split()[1]
        ending(database)
        wait_until(lambda: not data.parent.exists(), 4)
    database.process.wait(5)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(database.about["database_url"])
    segments = Path("/proc/sysvipc/shm")  # on Linux; elsewhere only a tool could tell
    return not segments.exists() or segment not in segments.read_text().split()


def test_no_process_folder_or_shared_memory_stays_however_it_ends():
    with ThreadPoolExecutor() as pool:
        clean = dict(zip(ENDINGS, pool.map(leaves_nothing, ENDINGS.values()), strict=True))
    assert clean == dict.fromkeys(ENDINGS, True)


def test_what_cannot_start_says_so_in_one_line():
    for arguments, hint in (
        (["-S", "postgres.py"], "pip install -r requirements-all.txt"),
        (["postgres.py", "postgresql://nobody@127.0.0.1:1/x"], "DATABASE_URL"),
        (["postgres.py", "nonsense"], "DATABASE_URL"),
    ):
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=HERE / "apps", capture_output=True, text=True, timeout=10)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert hint in done.stderr


def test_a_given_server_is_used_but_not_a_table_that_is_not_ours():
    ours = new_database()
    given_it = new_database(ours.about["database_url"])
    assert (given_it.about["database_url"], given_it.ask("stats")["rows"]) == (
        ours.about["database_url"],
        serve.SEEDED_BOOKS,
    )
    assert "error" in given_it.ask("kill")
    with psycopg.connect(ours.about["database_url"]) as connection:
        connection.execute("COMMENT ON TABLE books IS 'ten years of work'")
    assert "not ours" in given_it.ask("reset")["error"]
    for database in (given_it, ours):
        database.stdin.close()
        assert database.process.wait(5) == 0


def test_the_books_targets_run_with_no_database_installed(tmp_path, capsys):
    arguments = ["--target", "flask-books", "--target", "fastapi-books", "--path", "/v1/sleep?ms=100", "-k", "-v"]
    code, document = run_bench(tmp_path, *arguments, "-c", "100", "-n", "300", "--warmup", "50")
    flask, fastapi = document["runs"]
    assert code == 0
    assert (flask["slots"], fastapi["slots"]) == (16, 60)
    for run in document["runs"]:
        assert (run["answered"], run["failed"], run["database"]["rows"]) == (300, 0, serve.SEEDED_BOOKS)
        assert 51 <= run["warmed_up"] <= 53  # three of them alone, on a busy machine fewer
        assert run["database"]["statements"] == 300 + run["warmed_up"]
        assert run["throughput_rps"] < run["ceiling_rps"] * 1.05
        assert not {"rows", "statements"} & {warning["id"] for warning in run["warnings"]}
    assert fastapi["throughput_rps"] > 1.5 * flask["throughput_rps"]
    assert f"{300 + fastapi['warmed_up']} SQL statements" in capsys.readouterr().out


@pytest.mark.parametrize("target", ["flask-books", "fastapi-books"])
def test_a_mixed_workload_loses_no_row(tmp_path, target):
    code, document = run_bench(tmp_path, "--target", target, "--workload", "mixed", "--scale", "0.02")
    (run,) = document["runs"]
    assert (code, run["failed"], run["mode"]) == (0, 0, "ramp")
    statuses = run["exchanges"]["status"]
    assert run["database"]["rows"] == serve.SEEDED_BOOKS + statuses.count(201) > serve.SEEDED_BOOKS
    assert 0.15 < statuses.count(201) / len(statuses) < 0.35
    assert run["database"]["statements"] == len(statuses)
    assert [level["users"] for level in run["levels"]] == [100, 300, 500, 500]
    assert sum(level["answered"] for level in run["levels"]) == run["answered"]


def test_a_postgres_that_dies_in_a_run_is_counted_and_the_app_recovers(tmp_path):
    database = new_database()
    arguments = ["--target", "fastapi-books", "--workers", "1", "--database-url", database.about["database_url"]]
    arguments += ["--path", "/v1/sleep?ms=20", "-c", "10", "-t", "4", "-k"]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_bench, tmp_path, *arguments)
        wait_until(lambda: any("/v1/sleep" in log.read_text() for log in tmp_path.glob("*.access.log")))
        time.sleep(0.5)
        assert database.ask("kill") == {"ok": True}
        time.sleep(0.5)
        assert database.ask("start") == {"ok": True}
        code, document = running.result(60)
    database.stop()
    (run,) = document["runs"]
    assert code == 1
    assert set(run["errors"]) == {"HTTP 503"}
    columns = run["exchanges"]
    last_failure_s = max(
        at for at, status in zip(columns["answered_s"], columns["status"], strict=True) if status == 503
    )
    assert sum(at > last_failure_s for at in columns["answered_s"]) > 10


def test_too_many_connections_are_refused_before_the_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PG_MAX_CONNECTIONS", "30")
    assert bench.main(["--target", "fastapi-books", "--path", "/v1/books/1", "--logs", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "4 workers x 15 connections" in err and "max_connections 30" in err and len(err.splitlines()) == 1


def test_a_killed_bench_leaves_no_postgres(tmp_path):
    command = [sys.executable, str(HERE / "bench.py"), "--target", "flask-books", "--logs", str(tmp_path)]
    process = subprocess.Popen([*command, "--path", "/v1/sleep?ms=60000"], stdout=subprocess.DEVNULL)
    before = set(Path(tempfile.gettempdir()).glob("books-postgres-*"))
    wait_until(lambda: any("ready" in log.read_text() for log in tmp_path.glob("*.access.log")))
    (folder,) = set(Path(tempfile.gettempdir()).glob("books-postgres-*")) - before or before
    postmaster = int((folder / "data" / "postmaster.pid").read_text().split()[0])
    process.kill()
    process.wait()
    wait_until(lambda: not alive(postmaster) and not folder.exists(), 5.0)
