"""Claim: a blocking call in `async def` stops the event loop, so a whole process serves one request at a time.

Serve it by hand:  uvicorn --app-dir apps fastapi_blocking:app
"""

import os
import time

from fastapi import FastAPI

TASK_TIME = float(os.environ.get("TASK_TIME", "1"))  # seconds

app = FastAPI()


@app.get("/sleep")
async def sleep():
    time.sleep(TASK_TIME)
    return {"task_time": TASK_TIME}
