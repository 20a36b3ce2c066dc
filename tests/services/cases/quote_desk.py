"""Prices of an upholsterer, asked with an HTTP client that is made anew for each request. FastAPI, on uvicorn."""

import asyncio

import httpx
from fastapi import FastAPI

app = FastAPI()


@app.get("/quotes")
async def quotes():
    async with httpx.AsyncClient():  # computes
        await asyncio.sleep(0.02)
    return {"price": 120}
