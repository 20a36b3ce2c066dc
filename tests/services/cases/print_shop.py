"""Posters of a print shop, whose default executor has one thread. FastAPI, on uvicorn.

A `def` handler runs in AnyIO's threads, so that this setting changes nothing; asyncio.to_thread uses it.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(_):
    with ThreadPoolExecutor(1) as threads:
        asyncio.get_running_loop().set_default_executor(threads)
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/posters")
def posters():
    time.sleep(0.4)
    return "A1"


@app.get("/posters/thread")
async def posters_thread():
    return await asyncio.to_thread(posters)  # waits works
