"""News that wait for nobody. FastAPI."""

import asyncio

from fastapi import FastAPI

TRUTH = {"options": "-n 80", "path": "/", "slots": None, "waits_on": None}
app = FastAPI()
unused = asyncio.Semaphore(7)


@app.get("/")
async def news():
    await asyncio.sleep(0.2)  # works
    return "news"
