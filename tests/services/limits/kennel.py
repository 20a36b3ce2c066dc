"""Dogs that stay at a kennel, in a database."""

TRUTH = {"options": "--server uvicorn -n 16", "path": "/dogs/2", "slots": 1, "waits_on": "the event loop"}

import time

from fastapi import Depends, FastAPI
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

engine = create_engine("sqlite://", poolclass=QueuePool, pool_size=5, connect_args={"check_same_thread": False})
app = FastAPI()


@event.listens_for(engine, "connect")
def add_slow_function(connection, _):
    connection.create_function("slow", 1, time.sleep)


def database():
    with Session(engine) as session:
        yield session


@app.get("/dogs/{number}")
async def dog(number: int, db: Session = Depends(database)):
    name = db.scalar(  # blocks
        text("select 'Rex' where slow(:seconds) is null"), {"seconds": 0.1}
    )
    return {"number": number, "name": name}
