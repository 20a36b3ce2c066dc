"""Sends a text message when an order can be collected."""

TRUTH = {"options": "--server uvicorn -n 16", "path": "/notify/4711", "slots": 1, "waits_on": "the event loop"}

import time

from fastapi import FastAPI

app = FastAPI()


class Modem:
    def send(self, number: str, text: str) -> int:
        time.sleep(0.1)  # blocks
        return len(text)


modem = Modem()


@app.get("/notify/{order}")
async def notify(order: int) -> dict[str, int]:
    sent = modem.send("+43 1 000", f"Your order {order} is ready")
    return {"order": order, "characters": sent}
