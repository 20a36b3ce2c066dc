"""Temperatures of the hives of a beekeeper, read by sensors."""

TRUTH = {
    "options": "--server uvicorn -n 20",
    "path": "/hives",
    "slots": 2,
    "waits_on": "an AnyIO limiter of its own (each request needs two of its four)",
}

import anyio
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

antennas = anyio.CapacityLimiter(4)


async def read(hive, values):
    async with antennas:  # waits
        await anyio.sleep(0.2)  # works
        values[hive] = 34.5


async def hives(request):
    values = {}
    async with anyio.create_task_group() as group:  # waits works
        for hive in ("north", "south"):
            group.start_soon(read, hive, values)
    return JSONResponse(values)


app = Starlette(routes=[Route("/hives", hives)])
