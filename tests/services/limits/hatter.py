"""Sizes of hats that are in the shop."""

TRUTH = {"options": "--server uvicorn -n 30", "path": "/hats/58", "slots": 5, "waits_on": "a thread of an executor"}

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

shelf = ThreadPoolExecutor(5)
in_shop = lambda size: time.sleep(0.2) or size in (56, 58, 60)  # works


async def hats(request):
    size = request.path_params["size"]
    futures = [asyncio.wrap_future(shelf.submit(lambda: in_shop(size)))]
    (found,) = await asyncio.gather(*futures)  # waits works
    return JSONResponse({"size": size, "in_shop": found})


app = Starlette(routes=[Route("/hats/{size:int}", hats)])
