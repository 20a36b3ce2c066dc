"""Claim: a return annotation makes a request queue for a thread twice. Same as fastapi_sync.py, but with one.

FastAPI checks and serialises what a typed `def` handler returns in a thread as well. That takes its turn behind all
handlers that queue for a thread, so no request is answered before the whole queue has run.

Serve it by hand:  uvicorn --app-dir apps fastapi_typed:app
"""

import os
import time

from fastapi import FastAPI

TASK_TIME = float(os.environ.get("TASK_TIME", "1"))  # seconds

app = FastAPI()


@app.get("/io")
def io() -> dict[str, float]:
    time.sleep(TASK_TIME)  # stands for a query or a call to another service
    return {"task_time": TASK_TIME}
