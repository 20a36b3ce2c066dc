"""Invoices of a carpenter as files to download."""

TRUTH = {
    "options": "--server uvicorn -n 32",
    "path": "/invoices/2024-17",
    "slots": 4,
    "waits_on": "a thread of asyncio's default executor",
}

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse


@asynccontextmanager
async def lifespan(_):
    with ThreadPoolExecutor(4, "pdf") as threads:
        asyncio.get_running_loop().set_default_executor(threads)
        yield


app = FastAPI(lifespan=lifespan)


def render(number):
    time.sleep(0.2)  # works
    return f"Invoice {number}"


@app.get("/invoices/{number}", response_class=PlainTextResponse)
async def invoice(number: str):
    return await asyncio.to_thread(render, number)  # waits works
