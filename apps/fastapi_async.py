"""Claim: an `async def` handler that awaits its I/O holds nothing while it waits, so one process serves any number.

Serve it by hand:  uvicorn --app-dir apps fastapi_async:app
"""

import asyncio
import os

from fastapi import FastAPI

TASK_TIME = float(os.environ.get("TASK_TIME", "1"))  # seconds
SUBTASKS = int(os.environ.get("SUBTASKS", "2"))

app = FastAPI()


@app.get("/async-io")
async def async_io():
    await asyncio.sleep(TASK_TIME)
    return {"task_time": TASK_TIME}


@app.get("/async-io-multi")
async def async_io_multi():
    await asyncio.gather(*(asyncio.sleep(TASK_TIME / SUBTASKS) for _ in range(SUBTASKS)))
    return {"task_time": TASK_TIME, "subtasks": SUBTASKS}
