"""A middleware that lets ten requests in. FastAPI."""

import asyncio

from fastapi import FastAPI, Request

TRUTH = {"options": "-n 50", "path": "/", "slots": 10, "waits_on": "a semaphore"}
app = FastAPI()
inside = asyncio.Semaphore(10)


@app.middleware("http")
async def gate(request: Request, call_next):
    async with inside:  # waits
        return await call_next(request)


@app.get("/")
async def hall():
    await asyncio.sleep(0.1)  # works
    return "hall"
