"""Water levels of a harbour, sent line by line, while a session of the database stays open. FastAPI, on uvicorn.

A dependency that yields ends after the whole answer was sent: so many streams at a time as the pool has connections.
"""

import asyncio

from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

engine = create_engine("sqlite://", poolclass=QueuePool, connect_args={"check_same_thread": False})  # 5 + 10
app = FastAPI()


def session():
    with Session(engine) as opened:
        opened.execute(text("select 1"))  # waits
        yield opened


async def levels():
    for hour in range(5):
        await asyncio.sleep(0.1)  # works
        yield f"{hour}:00 {2 + hour / 10} m\n"


@app.get("/levels")
def stream(_: Session = Depends(session)):  # noqa: B008
    return StreamingResponse(levels(), media_type="text/plain")


@app.get("/levels/short")
def stream_with_a_short_session():
    with Session(engine) as opened:
        opened.execute(text("select 1"))
    return StreamingResponse(levels(), media_type="text/plain")
