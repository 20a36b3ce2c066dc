"""Claim: a thread pool and a connection pool in one service stop each other once enough requests are under way.

A request of /depends takes a thread, and then a connection that it holds until its answer is made. To make the answer
it needs a thread again. From as many requests on as there are threads and connections together, all threads may be
taken by requests that wait for a connection. The requests that have a connection then wait for a thread, until the
pool's time-out fails some of the others. With threads + twice the connections that was so in every run of suite limits.
With the session inside the handler, or without a response model, no request waits for the one while it holds the other.
The database is a SQLite file: the handler is what waits.

Serve it by hand:  uvicorn --app-dir apps limits_pools:app
"""

import os
import tempfile
import time
from contextlib import asynccontextmanager

from anyio import to_thread
from fastapi import Depends, FastAPI
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

TASK_TIME = float(os.environ.get("TASK_TIME", "0.1"))  # seconds
THREADS = int(os.environ.get("THREADS", "40"))  # AnyIO's default, and SQLAlchemy's below
engine = create_engine(
    f"sqlite:///{os.path.join(tempfile.gettempdir(), 'limits-pools.db')}",
    pool_size=int(os.environ.get("POOL_SIZE", "5")),
    max_overflow=int(os.environ.get("MAX_OVERFLOW", "10")),
    pool_timeout=float(os.environ.get("POOL_TIMEOUT", "30")),
    connect_args={"check_same_thread": False},
)


@asynccontextmanager
async def lifespan(app):
    to_thread.current_default_thread_limiter().total_tokens = THREADS
    yield


app = FastAPI(lifespan=lifespan)


def get_db():
    with Session(engine) as db:
        yield db


def work(db):
    one = db.execute(text("select 1")).scalar()
    time.sleep(TASK_TIME)
    return {"one": one}


@app.get("/depends", response_model=dict)
def depends(db=Depends(get_db)):  # noqa: B008
    return work(db)


@app.get("/untyped")  # the first cure
def untyped(db=Depends(get_db)):  # noqa: B008
    return work(db)


@app.get("/with", response_model=dict)  # the second
def inside():
    with Session(engine) as db:
        return work(db)
