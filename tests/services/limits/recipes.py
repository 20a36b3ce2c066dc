"""Recipes from a slow model that takes four requests at a time. FastAPI."""

import asyncio

from fastapi import Depends, FastAPI

TRUTH = {"options": "-n 40", "path": "/recipes/soup", "slots": 4, "waits_on": "a semaphore"}
app = FastAPI()
model = asyncio.Semaphore(4)


async def model_slot():
    async with model:  # waits
        yield


async def generate(dish: str):
    await asyncio.sleep(0.1)  # works
    return f"Boil {dish}."


@app.get("/recipes/{dish}", dependencies=[Depends(model_slot)])
async def recipe(dish: str):
    return await generate(dish)
