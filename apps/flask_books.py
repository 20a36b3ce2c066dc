"""Claim: with threads the smaller of two limits counts: a process has min(threads, POOL_SIZE) slots.

A Books API: a request is one SQL statement on one of POOL_SIZE connections. Same as fastapi_books.py, but a request
that waits holds a thread. It needs a Postgres with a table `books` like the one in engine/inside/books.sql.

Serve it by hand:  DATABASE_URL=... POOL_SIZE=4 gunicorn -w 4 -k gthread --threads 4 --chdir apps flask_books:app
"""

import atexit
import os

import psycopg
from flask import Flask, abort, jsonify, request
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

URL, SIZE = os.environ["DATABASE_URL"], int(os.environ.get("POOL_SIZE", "4"))
FIELDS = ("title", "author", "year", "isbn", "status")
# A request is one transaction and one round trip: no BEGIN and COMMIT, no PREPARE.
EACH = {"autocommit": True, "prepare_threshold": None, "row_factory": dict_row}
pool = ConnectionPool(URL, min_size=SIZE, kwargs=EACH, open=True)
atexit.register(pool.close)  # or its threads hold up the end of a worker, 5 s and more
app = Flask(__name__)


def query(sql, status=200, /, **values):
    """The first row that a statement returns, as an answer."""
    try:
        with pool.connection() as connection:
            row = connection.execute(sql, values).fetchone()
    except psycopg.errors.UniqueViolation:
        abort(409)
    except (psycopg.DataError, psycopg.errors.NotNullViolation):
        abort(422)
    except psycopg.OperationalError:
        abort(503)
    return (jsonify(row), status) if row else abort(404)


def book():
    """The fields of a book in the request's body."""
    sent = request.get_json()
    return {name: sent.get(name) for name in FIELDS}


@app.get("/v1/books/<int:book_id>")
def read(book_id):
    return query("SELECT * FROM books WHERE id = %(id)s", id=book_id)


@app.post("/v1/books")
def create():
    sql = """INSERT INTO books (title, author, year, isbn) VALUES (%(title)s, %(author)s, %(year)s, %(isbn)s)
        RETURNING *"""
    return query(sql, 201, **book())


@app.patch("/v1/books/<int:book_id>")
def change(book_id):
    sql = """UPDATE books SET title = coalesce(%(title)s, title), author = coalesce(%(author)s, author),
        year = coalesce(%(year)s, year), isbn = coalesce(%(isbn)s, isbn), status = coalesce(%(status)s, status),
        updated_at = now() WHERE id = %(id)s RETURNING *"""
    return query(sql, id=book_id, **book())


@app.get("/v1/sleep")
def sleep():
    ms = request.args.get("ms", 50, type=int)
    return query("SELECT %(ms)s::int AS slept_ms, pg_sleep(%(ms)s / 1000.0)::text AS done", ms=ms)
