"""Points on the loyalty cards of a coffee bar."""

TRUTH = {"options": "--server uvicorn -n 50", "path": "/cards/8", "slots": 1, "waits_on": "the event loop"}

import asyncio
import time

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


def write_journal(line):
    time.sleep(0.02)  # blocks
    return len(line)


async def points(card):
    await asyncio.sleep(0.2)
    return card * 10


async def card(request):
    number = request.path_params["number"]
    write_journal(f"card {number} read")
    return JSONResponse({"card": number, "points": await points(number)})


app = Starlette(routes=[Route("/cards/{number:int}", card)])
