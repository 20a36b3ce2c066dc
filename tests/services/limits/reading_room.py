"""Desks in a reading room, to be reserved."""

TRUTH = {
    "options": "--server uvicorn -n 20",
    "path": "/rooms/12/reserve",
    "slots": 1,
    "waits_on": "a lock (of the room with this id)",
}

import threading
import time
from collections import defaultdict

from fastapi import FastAPI

app = FastAPI()
locks = defaultdict(threading.RLock)
plans: dict[int, int] = defaultdict(int)


def save(room: int) -> int:
    time.sleep(0.1)  # works
    plans[room] += 1
    return plans[room]


@app.get("/rooms/{room}/reserve")
def reserve(room: int) -> dict[str, int]:
    with locks[room]:  # waits
        desk = save(room)
    return {"room": room, "desk": desk}
