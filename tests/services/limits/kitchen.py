"""Two dishes at once for each guest, on five stoves. FastAPI."""

import asyncio

from fastapi import FastAPI

TRUTH = {"options": "-n 30", "path": "/menu", "slots": 5, "waits_on": "a semaphore"}
app = FastAPI()
stoves = asyncio.Semaphore(5)


async def cook(dish):
    async with stoves:  # waits
        await asyncio.sleep(0.05)  # works
    return dish


@app.get("/menu")
async def menu():
    return await asyncio.gather(cook("soup"), cook("pie"))
