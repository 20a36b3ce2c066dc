"""Coats of a theatre's visitors: a hanger is put back after the answer. FastAPI, on uvicorn.

A request is answered after 50 ms, and has a hanger for 100 ms.
"""

import asyncio
import os

from fastapi import Depends, FastAPI

app = FastAPI()
hangers = asyncio.Semaphore(int(os.environ.get("HANGERS", "10")))


async def hanger():
    await hangers.acquire()  # waits
    try:
        yield
    finally:  # after the answer
        await asyncio.sleep(0.05)  # after
        hangers.release()


@app.get("/coats", dependencies=[Depends(hanger)])
async def coats():
    await asyncio.sleep(0.05)  # works
    return {"number": 17}
