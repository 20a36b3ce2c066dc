"""Claim: with threads the smaller of two limits counts: a process has min(threads, POOL_SIZE) slots.

A Books API: a request is one SQL statement on one of POOL_SIZE connections. Same as fastapi_books.py, but a request
that waits holds a thread. It needs a Postgres with a table `books` like the one in engine/inside/books.sql.

Serve it by hand:  DATABASE_URL=... POOL_SIZE=4 gunicorn -w 4 -k gthread --threads 4 --chdir apps flask_books:app
"""

import atexit
import json
import os
import re
import threading
from datetime import datetime

import psycopg
from flask import Flask, Response, abort, request
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool
from werkzeug.exceptions import HTTPException

FIELDS = "id, title, author, year, isbn, status, created_at, updated_at"
READ = f"SELECT {FIELDS} FROM books WHERE id = %(id)s"
LIST = f"SELECT {FIELDS} FROM books ORDER BY id LIMIT %(limit)s OFFSET %(offset)s"
CREATE = f"""INSERT INTO books (title, author, year, isbn, status) VALUES (%(title)s, %(author)s,
    %(year)s, %(isbn)s, coalesce(%(status)s, 'active')) RETURNING {FIELDS}"""
CHANGE = f"""UPDATE books SET title = coalesce(%(title)s, title), author = coalesce(%(author)s,
    author), year = coalesce(%(year)s, year), isbn = coalesce(%(isbn)s, isbn), status = coalesce(
    %(status)s, status), updated_at = now() WHERE id = %(id)s RETURNING {FIELDS}"""
TYPES = {"title": str, "author": str, "year": int, "isbn": str, "status": str}
BODY_MAX = 64 * 1024

URL, SIZE = os.environ["DATABASE_URL"], int(os.environ.get("POOL_SIZE", "4"))
# A request is one transaction and one round trip: no BEGIN and COMMIT, no PREPARE.
EACH = {"autocommit": True, "prepare_threshold": None, "connect_timeout": 5}
pool = ConnectionPool(URL, min_size=SIZE, kwargs=EACH, reconnect_timeout=0.2, open=True)
atexit.register(pool.close)  # or its threads hold up the end of a worker, 5 s and more
# Requests queue here. One that passes finds a connection free in the pool. If not, the database is
# away, and the next requests wait less for it until it is back.
slots, patience_s = threading.Semaphore(SIZE), 2.0
app = Flask(__name__)
app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False


def query(sql: str, **values: object) -> list[dict[str, object]]:
    global patience_s
    try:
        with slots, pool.connection(patience_s) as connection:
            rows = connection.cursor(row_factory=dict_row).execute(sql, values).fetchall()
        patience_s = 2.0
        return rows
    except psycopg.errors.UniqueViolation:
        abort(409)
    except (psycopg.DataError, psycopg.errors.NotNullViolation, UnicodeEncodeError):
        abort(422)  # too long, out of range, missing, a NUL character, half a surrogate pair
    except psycopg.OperationalError:
        patience_s = 0.02
        abort(503)


def whole(texts: list[str], most: int) -> int:
    # int() alone would take "+1", " 1", "1_0" and the digits of other scripts as well.
    if len(texts) == 1 and re.fullmatch("[0-9]{1,10}", texts[0]) and int(texts[0]) <= most:
        return int(texts[0])
    abort(422)


def fields() -> dict[str, object]:
    try:
        body = request.stream.read(BODY_MAX + 1)
    except Exception:  # each server has errors of its own for a body that is not proper HTTP
        abort(400)
    if len(body) > BODY_MAX:
        abort(413)
    try:
        book = json.loads(body.decode())
    except (ValueError, RecursionError):
        abort(422)
    if type(book) is not dict or not book or any(type(book[k]) is not TYPES.get(k) for k in book):
        abort(422)
    return dict.fromkeys(TYPES) | book


@app.errorhandler(HTTPException)
def refuse(error: HTTPException) -> Response:
    return reply(error.code or 500, {"error": error.code})


def reply(status: int, value: object) -> Response:
    text = json.dumps(value, separators=(",", ":"), default=datetime.isoformat)
    return Response(text, status, mimetype="application/json")


@app.get("/health")
def health() -> Response:
    return reply(200, query("SELECT 'ok' AS database")[0])


@app.get("/v1/books/<book_id>")
def read(book_id: str) -> Response:
    return reply(200, (query(READ, id=whole([book_id], 2**31 - 1)) or abort(404))[0])


@app.get("/v1/books")
def page() -> Response:
    limit = whole(request.args.getlist("limit") or ["20"], 100)
    offset = whole(request.args.getlist("offset") or ["0"], 2**31 - 1)
    return reply(200, query(LIST, limit=limit, offset=offset))


@app.post("/v1/books")
def create() -> Response:
    return reply(201, query(CREATE, **fields())[0])


@app.patch("/v1/books/<book_id>")
def change(book_id: str) -> Response:
    key = whole([book_id], 2**31 - 1)
    book = fields()
    return reply(200, (query(CHANGE, id=key, **book) or abort(404))[0])


@app.get("/v1/sleep")
def sleep() -> Response:
    ms = whole(request.args.getlist("ms") or ["50"], 60_000)
    query("SELECT pg_sleep(%(seconds)s)", seconds=ms / 1000)
    return reply(200, {"slept_ms": ms})
