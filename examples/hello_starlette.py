"""An app of your own: Starlette, and a wait of 0.2 s that blocks no other request. Nothing in it knows of bench.py."""

import asyncio

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


async def wait(request):
    await asyncio.sleep(0.2)
    return JSONResponse({"waited": 0.2})


app = Starlette(routes=[Route("/wait", wait)])
