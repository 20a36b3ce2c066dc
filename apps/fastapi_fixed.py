"""Claim: awaiting the same wait gives the event loop back, so the requests wait side by side.

Serve it by hand:  uvicorn --app-dir apps fastapi_fixed:app
"""

import asyncio
import os

from fastapi import FastAPI

TASK_TIME = float(os.environ.get("TASK_TIME", "1"))  # seconds

app = FastAPI()


@app.get("/sleep")
async def sleep():
    await asyncio.sleep(TASK_TIME)
    return {"task_time": TASK_TIME}
