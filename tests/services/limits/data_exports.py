"""Exports a beekeeper's measurements as CSV."""

TRUTH = {"options": "--server uvicorn -n 80", "path": "/export.csv", "slots": 40, "waits_on": "AnyIO's threads"}

import time

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

app = FastAPI()
HIVES = {"north": 31.2, "south": 33.8, "orchard": 30.1}


def rows():
    yield "hive,weight\n"
    for name, weight in HIVES.items():
        time.sleep(0.1)  # works
        yield f"{name},{weight}\n"


@app.get("/export.csv")
async def export():
    return StreamingResponse(rows(), media_type="text/csv")
