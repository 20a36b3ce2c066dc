"""Songs that listeners of a small radio station wish for."""

TRUTH = {"options": "--server hypercorn -n 24", "path": "/wishes/yesterday", "slots": 3, "waits_on": "a semaphore"}

import asyncio

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

players = asyncio.Semaphore(3)
played = []


async def play(song):
    async with players:  # waits
        await asyncio.sleep(0.15)  # works
        played.append(song)
    return len(played)


async def wish(request):
    song = request.path_params["song"]
    number = await asyncio.shield(asyncio.create_task(play(song)))  # waits works
    return JSONResponse({"song": song, "number": number})


app = Starlette(routes=[Route("/wishes/{song}", wish)])
