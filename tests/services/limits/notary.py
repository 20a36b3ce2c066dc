"""Deeds at a notary's office."""

TRUTH = {
    "options": "--server uvicorn -n 16",
    "path": "/deeds/1902",
    "slots": 1,
    "waits_on": "asgiref's one thread (sync_to_async)",
}

import time

from asgiref.sync import sync_to_async
from fastapi import FastAPI

app = FastAPI()


def read_deed(number: int) -> str:
    time.sleep(0.1)  # works
    return f"deed {number}"


@app.get("/deeds/{number}")
async def deed(number: int):
    text = await sync_to_async(read_deed)(number)  # waits works
    return {"deed": text}
