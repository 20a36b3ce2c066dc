"""Documents signed by a library that blocks. FastAPI."""

import time

from fastapi import FastAPI

TRUTH = {"options": "-n 12", "path": "/sign", "slots": 1, "waits_on": "the event loop"}
app = FastAPI()


class Signer:
    def sign(self, text):
        time.sleep(0.1)  # blocks
        return text[::-1]


@app.get("/sign")
async def sign():
    return Signer().sign("text")
