"""Tickets for a concert hall, paid by card."""

TRUTH = {
    "options": "--server uvicorn -n 32",
    "path": "/buy?seat=12",
    "slots": 3,
    "waits_on": "a semaphore (the payment's; those before it wait for the semaphore of the box office)",
}

import asyncio

from fastapi import FastAPI

app = FastAPI()
box_office, terminals = asyncio.Semaphore(8), asyncio.BoundedSemaphore(3)


async def pay(price: int) -> str:
    async with terminals:  # waits
        await asyncio.sleep(0.2)  # works
    return f"paid {price}"


@app.get("/buy")
async def buy(seat: int):
    async with box_office:  # waits
        await asyncio.sleep(0.02)
        receipt = await pay(40 + seat)
    return {"seat": seat, "receipt": receipt}
