"""Thumbnails by blocking code in AnyIO's threads, with a limiter of its own. Starlette."""

import time

import anyio
from anyio import to_thread
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

TRUTH = {"options": "-n 30", "path": "/thumbnail", "slots": 5, "waits_on": "a capacity limiter"}
limiter = anyio.CapacityLimiter(5)


def shrink():
    time.sleep(0.1)  # works


async def thumbnail(request):
    await to_thread.run_sync(shrink, limiter=limiter)  # waits
    return PlainTextResponse("small")


app = Starlette(routes=[Route("/thumbnail", thumbnail)])
