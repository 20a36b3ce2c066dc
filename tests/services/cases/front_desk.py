"""The front desk of a small hotel. FastAPI, on uvicorn."""

import asyncio

from fastapi import FastAPI

app = FastAPI()


@app.get("/rooms")
async def rooms():
    await asyncio.sleep(0.1)  # works
    return {"free": 7}
