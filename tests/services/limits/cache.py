"""A cache that one request fills while the others wait for it. FastAPI."""

import asyncio

from fastapi import FastAPI

TRUTH = {"options": "-n 30", "path": "/", "slots": None, "waits_on": "a future"}
app = FastAPI()
filling = None


async def compute():
    await asyncio.sleep(0.5)  # works
    return 42


@app.get("/")
async def value():
    global filling
    if filling is None or filling.done():
        filling = asyncio.get_running_loop().create_future()
        filling.set_result(await compute())
        return 42
    return await filling  # waits
