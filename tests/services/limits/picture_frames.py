"""Picture frames cut to size."""

TRUTH = {
    "options": "--server hypercorn -n 20",
    "path": "/cut?width=40&height=30",
    "slots": 4,
    "waits_on": "a semaphore",
}

import asyncio
import sys

from fastapi import FastAPI

app = FastAPI()
saws = asyncio.BoundedSemaphore(4)


async def saw(width: int, height: int) -> str:
    process = await asyncio.create_subprocess_exec("sleep", "0.3", stdout=asyncio.subprocess.PIPE)
    await process.communicate()  # works
    return f"{width}x{height}"


@app.get("/cut")
async def cut(width: int, height: int):
    async with saws:  # waits
        frame = await saw(width, height)
    return {"frame": frame, "python": sys.version_info[1]}
