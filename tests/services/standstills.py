"""Handlers that come to a standstill under a burst, and the same ones cured. FastAPI, on uvicorn.

A comment at the end of a line names the path whose requests wait there.
"""

import asyncio
import itertools
import threading
import time

from fastapi import Depends, FastAPI
from pydantic import BaseModel
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

engine = create_engine(
    "sqlite://", poolclass=QueuePool, pool_size=5, max_overflow=10, pool_timeout=4,
    connect_args={"check_same_thread": False},
)  # fmt: skip
lock, loop_lock = threading.Lock(), asyncio.Lock()
permits, numbers = threading.Semaphore(5), itertools.count()
app = FastAPI()


@event.listens_for(engine, "connect")
def add_slow_function(connection, _):
    connection.create_function("slow", 1, lambda seconds: time.sleep(seconds) or 1)


class User(BaseModel):
    id: int


def session():
    with Session(engine) as opened:
        yield opened


def user_of(db):
    return User(id=db.execute(text("select slow(0.05)")).scalar())  # two-pools


def current_user(db: Session = Depends(session)):  # noqa: B008
    return user_of(db)


@app.get("/two-pools")
def orders(user: User = Depends(current_user), db: Session = Depends(session)) -> User:  # noqa: B008
    db.execute(text("select slow(0.1)"))
    return user


def current_user_with_its_own_session():
    with Session(engine) as db:
        return user_of(db)


@app.get("/two-pools/cured")
def orders_cured(user: User = Depends(current_user_with_its_own_session)) -> User:  # noqa: B008
    with Session(engine) as db:
        db.execute(text("select slow(0.1)"))
    return user


def exclusive():
    lock.acquire()  # lock
    try:
        yield
    finally:
        lock.release()


@app.get("/lock", dependencies=[Depends(exclusive)])
def stock():
    time.sleep(0.02)


@app.get("/lock/cured")
def stock_cured():
    with lock:
        time.sleep(0.02)


@app.get("/twice")
def twice():
    with engine.connect() as db:  # twice
        db.execute(text("select slow(0.1)"))
        with engine.connect() as other:  # twice
            other.execute(text("select slow(0.05)"))


@app.get("/lost")
def forgets_to_release():
    permits.acquire()
    if next(numbers) % 10 == 9:
        return
    time.sleep(0.05)
    permits.release()


@app.get("/await")
async def price():
    with lock:  # await
        await asyncio.sleep(0.1)


@app.get("/await/cured")
async def price_cured():
    async with loop_lock:
        await asyncio.sleep(0.1)


@app.get("/session")
async def items():
    with Session(engine) as db:
        db.execute(text("select 1"))  # session
        await asyncio.sleep(0.1)


@app.get("/session/cured")
def items_cured():
    with Session(engine) as db:
        db.execute(text("select slow(0.1)"))
