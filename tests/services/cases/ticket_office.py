"""Tickets of a funicular: AnyIO's 40 threads, and behind them 8 connections, for the last part. FastAPI, on uvicorn."""

import os
import queue
import time

from fastapi import BackgroundTasks, FastAPI

app = FastAPI()
lines = queue.Queue()
for number in range(int(os.environ.get("CONNECTIONS", "8"))):
    lines.put(number)


@app.get("/tickets")
def tickets():
    time.sleep(0.05)
    line = lines.get()  # waits
    time.sleep(0.05)  # works
    lines.put(line)
    return {"line": line}


@app.get("/receipts")
def receipts(background: BackgroundTasks):
    background.add_task(time.sleep, 0.25)
    return {"sent": True}
