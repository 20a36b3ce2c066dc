"""Each visit is sent to a metrics service by a blocking call, then awaits its work. Starlette."""

import asyncio
import time

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

TRUTH = {"options": "-n 40", "path": "/", "slots": 1, "waits_on": "the event loop"}


def count_visit():
    time.sleep(0.03)  # blocks


async def visit(request):
    count_visit()
    await asyncio.sleep(0.2)
    return PlainTextResponse("welcome")


app = Starlette(routes=[Route("/", visit)])
