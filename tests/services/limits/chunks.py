"""A file sent in parts by a generator that blocks. Starlette."""

import time

from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

TRUTH = {"options": "-n 90", "path": "/", "slots": 40, "waits_on": "AnyIO's threads"}


def parts():
    for _ in range(3):
        time.sleep(0.1)  # works
        yield b"part"


async def download(request):
    return StreamingResponse(parts())


app = Starlette(routes=[Route("/", download)])
