"""Claim: the same wait in four handlers meets three limits: none, AnyIO's 40 threads, asyncio's min(32, CPUs + 4).

`asyncio.to_thread` and `run_in_executor(None, ...)` do not use the threads that FastAPI has for `def` handlers, but the
event loop's own, of which there are fewer: 6 on 2 CPUs, 12 on 8. EXECUTOR_THREADS=12 gives it so many instead. The
fifth handler blocks the event loop: 1. So does the sixth, for the second half of its wait.

Serve it by hand:  uvicorn --app-dir apps limits_handlers:app
"""

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool

TASK_TIME = float(os.environ.get("TASK_TIME", "1"))  # seconds
EXECUTOR_THREADS = int(os.environ.get("EXECUTOR_THREADS", "0"))  # 0: as Python has it


@asynccontextmanager
async def lifespan(app):
    if EXECUTOR_THREADS:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(EXECUTOR_THREADS))
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/async")
async def awaits():
    await asyncio.sleep(TASK_TIME)
    return {"task_time": TASK_TIME}


@app.get("/def")
def in_anyios_threads():
    time.sleep(TASK_TIME)
    return {"task_time": TASK_TIME}


@app.get("/executor")
async def in_asyncios_threads():
    await asyncio.to_thread(time.sleep, TASK_TIME)
    return {"task_time": TASK_TIME}


@app.get("/threadpool")
async def in_anyios_threads_again():
    await run_in_threadpool(time.sleep, TASK_TIME)
    return {"task_time": TASK_TIME}


@app.get("/blocking")
async def blocks():
    time.sleep(TASK_TIME)
    return {"task_time": TASK_TIME}


@app.get("/half-blocking")
async def awaits_then_blocks():
    await asyncio.sleep(TASK_TIME / 2)
    time.sleep(TASK_TIME / 2)
    return {"task_time": TASK_TIME}
