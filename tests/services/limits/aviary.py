"""Bird songs of an aviary, streamed while a microphone is taken."""

TRUTH = {
    "options": "--server uvicorn -n 28",
    "path": "/birds/wren/song",
    "slots": 4,
    "waits_on": "a semaphore held by the generator of a streamed answer",
}

import asyncio

from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

microphones = asyncio.Semaphore(4)


async def song(bird, bars):
    async with microphones:  # waits
        for bar in range(bars):
            yield f"{bird} {bar}\n"
            await asyncio.sleep(0.07)  # works


async def listen(request):
    return StreamingResponse(song(request.path_params["bird"], 4), media_type="text/plain")


app = Starlette(routes=[Route("/birds/{bird}/song", listen)])
