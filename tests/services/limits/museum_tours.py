"""Guided tours of a museum, with the places that are left."""

TRUTH = {"options": "--server hypercorn -n 28", "path": "/tours/egypt", "slots": 4, "waits_on": "a semaphore"}

import anyio
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.responses import JSONResponse
from starlette.routing import Route

guides = anyio.Semaphore(4)


class Tour(HTTPEndpoint):
    async def places_left(self, name):
        async with guides:  # waits
            await anyio.sleep(0.25)  # works
            return 20 - len(name)

    async def get(self, request):
        name = request.path_params["name"]
        return JSONResponse({"tour": name, "left": await self.places_left(name)})


app = Starlette(routes=[Route("/tours/{name}", Tour)])
