"""Suggests moves to the members of a chess club."""

TRUTH = {
    "options": "--server uvicorn -n 16",
    "path": "/moves?position=e4e5",
    "slots": 2,
    "waits_on": "a process of an executor",
}

import asyncio
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


def best_move(position):
    time.sleep(0.2)  # works
    return "Nf3" if position.startswith("e4") else "d4"


@asynccontextmanager
async def lifespan(app):
    with ProcessPoolExecutor(2) as app.state.engines:
        yield


async def moves(request):
    loop = asyncio.get_running_loop()
    engines, position = request.app.state.engines, request.query_params["position"]
    move = await loop.run_in_executor(engines, best_move, position)  # waits works
    return JSONResponse({"move": move})


app = Starlette(routes=[Route("/moves", moves)], lifespan=lifespan)
