"""A queue of people at a town hall: the next number, printed by one of the ticket printers."""

TRUTH = {"options": "--server uvicorn -n 32", "path": "/next", "slots": 4, "waits_on": "an item of a queue (own pool)"}

import asyncio
import itertools
from contextlib import asynccontextmanager

from fastapi import FastAPI

numbers = itertools.count(1)


class Queue:
    """The people who stand in line."""

    async def get(self, printers):
        printer = await printers.get()  # waits
        try:
            await asyncio.sleep(0.2)  # works
            return next(numbers)
        finally:
            printers.put_nowait(printer)


@asynccontextmanager
async def lifespan(app):
    app.state.printers = asyncio.Queue()
    for name in ("door", "hall", "stairs", "cellar"):
        app.state.printers.put_nowait(name)
    yield


app = FastAPI(lifespan=lifespan)
line = Queue()


@app.get("/next")
async def next_number():
    return {"number": await line.get(app.state.printers)}
