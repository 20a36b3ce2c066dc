"""Small pictures of the paintings of a gallery."""

TRUTH = {
    "options": "--server uvicorn -n 24",
    "path": "/thumbnails/9",
    "slots": 3,
    "waits_on": "a thread of an executor",
}

import asyncio
import functools
import time
from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI, Response

app = FastAPI()
painters = ThreadPoolExecutor(max_workers=3)


def shrink(number: int, width: int) -> bytes:
    time.sleep(0.15)  # works
    return bytes(width) + bytes([number])


async def in_painters(function, *args, **kwargs):
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(painters, functools.partial(function, *args, **kwargs))  # waits works


@app.get("/thumbnails/{number}")
async def thumbnail(number: int):
    return Response(await in_painters(shrink, number, width=64), media_type="image/png")
