"""A service whose first request opens what all others use; each one takes 50 ms."""

import time

from fastapi import FastAPI

app = FastAPI()
opened: list[str] = []


def connect() -> None:
    time.sleep(0.6)  # first
    opened.append("database")


@app.get("/items")
def items() -> dict[str, int]:
    if not opened:
        connect()
    time.sleep(0.05)
    return {}
