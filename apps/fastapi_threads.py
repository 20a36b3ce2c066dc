"""Claim: 40 slots for `def` handlers are only AnyIO's default. Same as fastapi_sync.py, but with 100 threads.

Serve it by hand:  uvicorn --app-dir apps fastapi_threads:app
"""

import os
import time
from contextlib import asynccontextmanager

from anyio import to_thread
from fastapi import FastAPI

TASK_TIME = float(os.environ.get("TASK_TIME", "1"))  # seconds
THREADS = int(os.environ.get("THREADS", "100"))


@asynccontextmanager
async def lifespan(app):
    to_thread.current_default_thread_limiter().total_tokens = THREADS
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/io")
def io():
    time.sleep(TASK_TIME)
    return {"task_time": TASK_TIME}
