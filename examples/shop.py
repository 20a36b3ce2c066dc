"""A shop whose handlers share five connections to a slow database: at most five requests are worked on at a time.

python ../bench.py --app shop:app --path /orders --probe
"""

import asyncio
from contextlib import asynccontextmanager

from fastapi import FastAPI

connections = asyncio.Semaphore(5)


@asynccontextmanager
async def connection():
    async with connections:
        yield


app = FastAPI()


@app.get("/orders")
async def orders():
    async with connection():
        await asyncio.sleep(0.1)  # the query
    return {"orders": 3}
