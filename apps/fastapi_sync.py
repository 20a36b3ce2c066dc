"""Claim: FastAPI runs a `def` handler in a thread, and AnyIO's limiter allows 40 of them at a time in each process.

Serve it by hand:  uvicorn --app-dir apps fastapi_sync:app
"""

import math
import os
import random
import time

from fastapi import FastAPI, Request

TASK_TIME = float(os.environ.get("TASK_TIME", "1"))  # seconds; their mean, if they are drawn
DISTRIBUTION = os.environ.get("TASK_DISTRIBUTION", "constant")  # or exp, or lognormal
CPU_TIME = float(os.environ.get("CPU_TIME", "0"))  # seconds of computing besides

app = FastAPI()


@app.get("/io")
def io(request: Request):
    compute(CPU_TIME)
    time.sleep(task_time(request.headers.get("X-Request-Id", "")))  # stands for a query or a call to another service
    return {"task_time": TASK_TIME}


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
