"""Pages by plain `def` handlers. FastAPI."""

import time

from fastapi import FastAPI

TRUTH = {"options": "-n 90", "path": "/", "slots": 40, "waits_on": "AnyIO's threads"}
app = FastAPI()


@app.get("/")
def page():
    time.sleep(0.2)  # works
    return "page"
