"""Scores of a handball league while the games go on."""

TRUTH = {
    "options": "--server uvicorn -n 20",
    "path": "/scores/stream",
    "slots": 5,
    "waits_on": "a connection of its own pool (an asyncio queue)",
}

import asyncio
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

feeds: asyncio.Queue[str] = asyncio.Queue()
for name in "abcde":
    feeds.put_nowait(name)
app = FastAPI()


@asynccontextmanager
async def feed():
    one = await feeds.get()  # waits
    try:
        yield one
    finally:
        await feeds.put(one)


async def scores():
    async with feed() as name:
        for minute in range(4):
            await asyncio.sleep(0.08)  # works
            yield f"data: {name} {minute}:0\n\n"


@app.get("/scores/stream")
async def stream():
    return StreamingResponse(scores(), media_type="text/event-stream")
