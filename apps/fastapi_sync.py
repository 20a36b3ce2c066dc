"""Claim: FastAPI runs a `def` handler in a thread, and AnyIO's limiter allows 40 of them at a time in each process.

Serve it by hand:  uvicorn --app-dir apps fastapi_sync:app
"""

import os
import time

from fastapi import FastAPI

TASK_TIME = float(os.environ.get("TASK_TIME", "1"))  # seconds

app = FastAPI()


@app.get("/io")
def io():
    time.sleep(TASK_TIME)  # stands for a query or a call to another service
    return {"task_time": TASK_TIME}
