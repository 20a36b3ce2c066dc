"""Feeding times in an aquarium, from the keepers' radio."""

TRUTH = {"options": "--server uvicorn -n 32", "path": "/tanks/4/feed", "slots": 4, "waits_on": "a semaphore"}

import asyncio

from fastapi import FastAPI, HTTPException

app = FastAPI()
keepers = asyncio.Semaphore(4)


async def feed(tank):
    await asyncio.sleep(0.2)  # works
    return {"tank": tank, "fed": True}


@app.get("/tanks/{tank}/feed")
async def feed_tank(tank: int):
    try:
        await asyncio.wait_for(keepers.acquire(), timeout=10)  # waits
    except TimeoutError:
        raise HTTPException(503, "no keeper is free") from None
    try:
        return await feed(tank)
    finally:
        keepers.release()
