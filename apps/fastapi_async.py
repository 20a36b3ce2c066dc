"""Claim: an `async def` handler that awaits its I/O holds no thread while it waits, so one process serves
any number of requests at a time.

Serve it by hand:  uvicorn --app-dir apps fastapi_async:app
"""

import asyncio
import math
import os
import random
import time

from fastapi import FastAPI, Request

TASK_TIME = float(os.environ.get("TASK_TIME", "1"))  # seconds; their mean, if they are drawn
SUBTASKS = int(os.environ.get("SUBTASKS", "2"))
DISTRIBUTION = os.environ.get("TASK_DISTRIBUTION", "constant")  # or exp, or lognormal
CPU_TIME = float(os.environ.get("CPU_TIME", "0"))  # seconds of computing besides

app = FastAPI()


@app.get("/async-io")
async def async_io(request: Request):
    compute(CPU_TIME)
    await asyncio.sleep(task_time(request.headers.get("X-Request-Id", "")))
    return {"task_time": TASK_TIME}


@app.get("/async-io-multi")
async def async_io_multi():
    await asyncio.gather(*(asyncio.sleep(TASK_TIME / SUBTASKS) for _ in range(SUBTASKS)))
    return {"task_time": TASK_TIME, "subtasks": SUBTASKS}


def task_time(number):
    """Drawn by the number of the request: the same number always waits the same time."""
    dice = random.Random(int(number) if number.isdigit() else 0)
    if DISTRIBUTION == "exp":
        return dice.expovariate(1 / TASK_TIME)
    return dice.lognormvariate(math.log(TASK_TIME) - 0.5, 1) if DISTRIBUTION == "lognormal" else TASK_TIME


def compute(seconds):
    done = time.thread_time() + seconds
    while time.thread_time() < done:
        pass
