"""Claim: `async def` in Flask frees no worker (`/async-io` is as slow as `/io`); only awaiting several tasks
together inside one request gains anything (`/async-io-multi`).

Serve it by hand:  gunicorn --workers 4 --chdir apps flask_async:app
"""

import asyncio
import os

from flask import Flask

TASK_TIME = float(os.environ.get("TASK_TIME", "1"))  # seconds
SUBTASKS = int(os.environ.get("SUBTASKS", "2"))

app = Flask(__name__)


@app.get("/async-io")
async def async_io():
    await asyncio.sleep(TASK_TIME)
    return {"task_time": TASK_TIME}


@app.get("/async-io-multi")
async def async_io_multi():
    await asyncio.gather(*(asyncio.sleep(TASK_TIME / SUBTASKS) for _ in range(SUBTASKS)))
    return {"task_time": TASK_TIME, "subtasks": SUBTASKS}
