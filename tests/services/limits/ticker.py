"""A stream that keeps one of six feeds until its end. FastAPI."""

import asyncio

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

TRUTH = {"options": "-n 30", "path": "/ticker", "slots": 6, "waits_on": "a semaphore"}
app = FastAPI()
feeds = asyncio.BoundedSemaphore(6)


async def quotes():
    async with feeds:  # waits
        for _ in range(4):
            await asyncio.sleep(0.05)  # works
            yield "1.07\n"


@app.get("/ticker")
async def ticker():
    return StreamingResponse(quotes())
