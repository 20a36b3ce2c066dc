"""Six seats in each of two processes. FastAPI."""

import asyncio

from fastapi import FastAPI

TRUTH = {"options": "--server uvicorn --workers 2 -n 60", "path": "/", "slots": 12, "waits_on": "a semaphore"}
app = FastAPI()
seats = asyncio.Semaphore(6)


@app.get("/")
async def sit():
    async with seats:  # waits
        await asyncio.sleep(0.2)  # works
    return "sat"
