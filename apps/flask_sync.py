"""Claim: a sync Flask view holds its worker for the whole of its I/O, so W sync workers serve W requests at a time.

Serve it by hand:  gunicorn --workers 4 --chdir apps flask_sync:app
"""

import math
import os
import random
import time

from flask import Flask, request

TASK_TIME = float(os.environ.get("TASK_TIME", "1"))  # seconds; their mean, if they are drawn
DISTRIBUTION = os.environ.get("TASK_DISTRIBUTION", "constant")  # or exp, or lognormal
CPU_TIME = float(os.environ.get("CPU_TIME", "0"))  # seconds of computing besides

app = Flask(__name__)


@app.get("/io")
def io():
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
