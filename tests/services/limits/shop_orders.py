"""Orders in a database, its session by a dependency. FastAPI, SQLAlchemy."""

import time
from typing import Annotated

from fastapi import Depends, FastAPI
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import QueuePool

TRUTH = {"options": "-n 40", "path": "/orders", "slots": 15, "waits_on": "SQLAlchemy's pool"}
engine = create_engine("sqlite://", poolclass=QueuePool, connect_args={"check_same_thread": False})
sessions = sessionmaker(engine)
app = FastAPI()


@event.listens_for(engine, "connect")
def slow_queries(connection, _):
    connection.create_function("slow", 1, lambda seconds: time.sleep(seconds) or 1)  # works


def get_db():
    with sessions() as db:
        yield db


@app.get("/orders")
def orders(db: Annotated[Session, Depends(get_db)]):
    query = text("select slow(0.15)")
    return db.execute(query).scalar()  # waits
