"""A library's catalogue in a database, 4 + 2 connections. FastAPI, SQLAlchemy."""

import time

from fastapi import FastAPI
from sqlalchemy import create_engine, event, text
from sqlalchemy.pool import QueuePool

TRUTH = {"options": "-n 36", "path": "/books/1", "slots": 6, "waits_on": "SQLAlchemy's pool"}
engine = create_engine(
    "sqlite://", poolclass=QueuePool, pool_size=4, max_overflow=2, connect_args={"check_same_thread": False}
)
app = FastAPI()


@event.listens_for(engine, "connect")
def slow_queries(connection, _):
    connection.create_function("slow", 1, sleep)


def sleep(seconds):
    time.sleep(seconds)  # works
    return 1


def find(number: int):
    with engine.connect() as db:  # waits
        return db.execute(text("select slow(0.1)")).scalar()


@app.get("/books/{number}")
def book(number: int):
    return find(number)
