"""Reports by three threads of an executor. FastAPI."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI

TRUTH = {"options": "-n 24", "path": "/reports/4", "slots": 3, "waits_on": "an executor's thread"}
app = FastAPI()
writers = ThreadPoolExecutor(max_workers=3)


def write_report(number):
    time.sleep(0.1)  # works
    return f"report {number}"


@app.get("/reports/{number}")
async def report(number: int):
    return await asyncio.get_running_loop().run_in_executor(writers, write_report, number)  # waits
