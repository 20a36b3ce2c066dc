"""Claim: with an async database driver the connection pool is the limit: a process has POOL_SIZE slots.

A Books API: a request is one SQL statement on one of POOL_SIZE connections. Same as flask_books.py, but a request that
waits holds no thread. It needs a Postgres with a table `books` like the one in engine/inside/books.sql.

Serve it by hand:  DATABASE_URL=... POOL_SIZE=4 uvicorn --app-dir apps --workers 4 fastapi_books:app
"""

import os
from contextlib import asynccontextmanager

import psycopg
from fastapi import FastAPI, HTTPException, Response
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel, TypeAdapter

URL, SIZE = os.environ["DATABASE_URL"], int(os.environ.get("POOL_SIZE", "4"))
# A request is one transaction and one round trip: no BEGIN and COMMIT, no PREPARE.
EACH = {"autocommit": True, "prepare_threshold": None, "row_factory": dict_row}
pool = AsyncConnectionPool(URL, min_size=SIZE, kwargs=EACH, open=False)
as_json = TypeAdapter(object).dump_json


class Book(BaseModel):
    title: str | None = None
    author: str | None = None
    year: int | None = None
    isbn: str | None = None
    status: str | None = None


@asynccontextmanager
async def lifespan(_):
    async with pool:
        yield


app = FastAPI(lifespan=lifespan)


async def query(sql, status=200, /, **values):
    """The first row that a statement returns, as an answer."""
    try:
        async with pool.connection() as connection:
            row = await (await connection.execute(sql, values)).fetchone()
    except psycopg.errors.UniqueViolation:
        raise HTTPException(409) from None
    except (psycopg.DataError, psycopg.errors.NotNullViolation):
        raise HTTPException(422) from None
    except psycopg.OperationalError:
        raise HTTPException(503) from None
    if row is None:
        raise HTTPException(404)
    return Response(as_json(row), status, media_type="application/json")


@app.get("/v1/books/{book_id}")
async def read(book_id: int):
    return await query("SELECT * FROM books WHERE id = %(id)s", id=book_id)


@app.post("/v1/books")
async def create(book: Book):
    sql = """INSERT INTO books (title, author, year, isbn) VALUES (%(title)s, %(author)s, %(year)s, %(isbn)s)
        RETURNING *"""
    return await query(sql, 201, **book.model_dump())


@app.patch("/v1/books/{book_id}")
async def change(book_id: int, book: Book):
    sql = """UPDATE books SET title = coalesce(%(title)s, title), author = coalesce(%(author)s, author),
        year = coalesce(%(year)s, year), isbn = coalesce(%(isbn)s, isbn), status = coalesce(%(status)s, status),
        updated_at = now() WHERE id = %(id)s RETURNING *"""
    return await query(sql, id=book_id, **book.model_dump())


@app.get("/v1/sleep")
async def sleep(ms: int = 50):
    return await query("SELECT %(ms)s::int AS slept_ms, pg_sleep(%(ms)s / 1000.0)::text AS done", ms=ms)
