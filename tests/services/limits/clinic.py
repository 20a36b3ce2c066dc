"""Appointments in a clinic: a seat in the waiting hall, then a room."""

TRUTH = {
    "options": "--server uvicorn -n 30",
    "path": "/patients/5/visit",
    "slots": 5,
    "waits_on": "a pool of five rooms in an asyncio.Queue, inside a semaphore of eight",
}

import asyncio
from contextlib import asynccontextmanager

from fastapi import FastAPI

rooms: "asyncio.Queue[str]" = asyncio.Queue()
seats = asyncio.Semaphore(8)


@asynccontextmanager
async def lifespan(app):
    for name in ("A1", "A2", "B1", "B2", "C1"):
        rooms.put_nowait(name)
    yield


app = FastAPI(lifespan=lifespan)


@asynccontextmanager
async def room():
    name = await rooms.get()  # waits
    try:
        yield name
    finally:
        rooms.put_nowait(name)


async def examine(patient, name):
    await asyncio.sleep(0.2)  # works
    return {"patient": patient, "room": name}


@app.get("/patients/{patient}/visit")
async def visit(patient: int):
    async with seats, room() as name:  # waits
        return await examine(patient, name)
