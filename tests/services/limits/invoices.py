"""Invoice numbers without gaps: one at a time, then the rest. FastAPI."""

import asyncio

from fastapi import FastAPI

TRUTH = {"options": "-n 30", "path": "/invoices", "slots": 1, "waits_on": "a lock"}
app = FastAPI()
numbering = asyncio.Lock()
last = 0


async def next_number():
    global last
    async with numbering:  # waits
        last += 1
        await asyncio.sleep(0.05)  # works
        return last


@app.get("/invoices")
async def invoice():
    number = await next_number()
    await asyncio.sleep(0.2)
    return number
