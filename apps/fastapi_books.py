"""Claim: with an async database driver the connection pool is the limit: a process has POOL_SIZE slots.

A Books API: a request is one SQL statement on one of POOL_SIZE connections. Same as flask_books.py, but a request that
waits holds no thread. It needs a Postgres with a table `books` like the one in engine/inside/books.sql.

Serve it by hand:  DATABASE_URL=... POOL_SIZE=4 uvicorn --app-dir apps --workers 4 fastapi_books:app
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import NoReturn

import psycopg
from fastapi import FastAPI, Request, Response
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

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
pool = AsyncConnectionPool(URL, min_size=SIZE, kwargs=EACH, reconnect_timeout=0.2, open=False)
# Requests queue here. One that passes finds a connection free in the pool. If not, the database is
# away, and the next requests wait less for it until it is back.
slots, patience_s = asyncio.Semaphore(SIZE), 2.0


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with pool:
        yield


app = FastAPI(lifespan=lifespan, openapi_url=None, redirect_slashes=False)


async def query(sql: str, **values: object) -> list[dict[str, object]]:
    global patience_s
    try:
        async with slots, pool.connection(patience_s) as connection:
            cursor = await connection.cursor(row_factory=dict_row).execute(sql, values)
            rows = await cursor.fetchall()
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


async def fields(request: Request) -> dict[str, object]:
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_MAX:
                abort(413)
    except ClientDisconnect:  # uvicorn says this of a body that is not proper HTTP, too
        abort(400)
    try:
        book = json.loads(body.decode())
    except (ValueError, RecursionError):
        abort(422)
    if type(book) is not dict or not book or any(type(book[k]) is not TYPES.get(k) for k in book):
        abort(422)
    return dict.fromkeys(TYPES) | book


def abort(status: int) -> NoReturn:
    raise HTTPException(status)


@app.exception_handler(HTTPException)
async def refuse(_: Request, error: HTTPException) -> Response:
    return reply(error.status_code, {"error": error.status_code})


def reply(status: int, value: object) -> Response:
    text = json.dumps(value, separators=(",", ":"), default=datetime.isoformat)
    return Response(text, status, media_type="application/json")


@app.api_route("/health", methods=["GET", "HEAD"])
async def health() -> Response:
    return reply(200, (await query("SELECT 'ok' AS database"))[0])


@app.api_route("/v1/books/{book_id}", methods=["GET", "HEAD"])
async def read(book_id: str) -> Response:
    return reply(200, (await query(READ, id=whole([book_id], 2**31 - 1)) or abort(404))[0])


@app.api_route("/v1/books", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    limit = whole(request.query_params.getlist("limit") or ["20"], 100)
    offset = whole(request.query_params.getlist("offset") or ["0"], 2**31 - 1)
    return reply(200, await query(LIST, limit=limit, offset=offset))


@app.post("/v1/books")
async def create(request: Request) -> Response:
    return reply(201, (await query(CREATE, **await fields(request)))[0])


@app.patch("/v1/books/{book_id}")
async def change(book_id: str, request: Request) -> Response:
    key = whole([book_id], 2**31 - 1)
    book = await fields(request)
    return reply(200, (await query(CHANGE, id=key, **book) or abort(404))[0])


@app.api_route("/v1/sleep", methods=["GET", "HEAD"])
async def sleep(request: Request) -> Response:
    ms = whole(request.query_params.getlist("ms") or ["50"], 60_000)
    await query("SELECT pg_sleep(%(seconds)s)", seconds=ms / 1000)
    return reply(200, {"slept_ms": ms})
