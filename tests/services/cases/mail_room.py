"""Letters of a firm: a slow scan, and two cheap paths that a supervisor asks for. FastAPI, on uvicorn."""

import time

from fastapi import FastAPI

app = FastAPI()


@app.get("/scan")
def scan():
    time.sleep(0.5)
    return {"pages": 3}


@app.get("/alive")
def alive():
    return "yes"


@app.get("/alive/async")
async def alive_async():
    return "yes"
