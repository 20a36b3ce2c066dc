"""Tickets for a ferry; each sale is confirmed by the harbour office."""

TRUTH = {"options": "--server uvicorn -n 40", "path": "/tickets/sell", "slots": 5, "waits_on": "a semaphore"}

import asyncio

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

harbour = asyncio.Semaphore(5)
sold = 0


async def confirm(number):
    await asyncio.sleep(0.2)  # works
    return {"ticket": number, "confirmed": True}


async def sell(request):
    global sold
    sold += 1
    number = sold
    async with harbour:  # waits
        answer = await confirm(number)
    return JSONResponse(answer)


app = Starlette(routes=[Route("/tickets/sell", sell)])
