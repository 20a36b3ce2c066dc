"""A bookbinder's offer: leather, paper and work are each asked from the workshop."""

TRUTH = {
    "options": "--server uvicorn -n 20",
    "path": "/offer/atlas",
    "slots": 2,
    "waits_on": "a semaphore (each request needs three of its six)",
}

import asyncio

from fastapi import FastAPI

app = FastAPI()
workshop = asyncio.Semaphore(6)


async def ask(part: str, book: str) -> dict[str, object]:
    async with workshop:  # waits
        await asyncio.sleep(0.2)  # works
    return {"part": part, "price": len(part) * len(book)}


@app.get("/offer/{book}")
async def offer(book: str):
    async def total(*parts):
        prices = await asyncio.gather(*(ask(part, book) for part in parts))  # waits works
        return sum(each["price"] for each in prices)

    return {"book": book, "price": await total("leather", "paper", "work")}
