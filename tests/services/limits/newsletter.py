"""Subscriptions to a seed merchant's newsletter."""

TRUTH = {
    "options": "--server uvicorn -c 60 -t 3",
    "path": "/subscribe?address=ada@example.org",
    "slots": 40,
    "waits_on": "AnyIO's threads",
}

import time

from fastapi import BackgroundTasks, FastAPI

app = FastAPI()
addresses: list[str] = []


def send_welcome(address: str):
    time.sleep(0.4)  # after
    addresses.append(address)


@app.get("/subscribe")
def subscribe(address: str, background: BackgroundTasks):
    background.add_task(send_welcome, address)
    return {"subscribed": address, "number": len(addresses)}
