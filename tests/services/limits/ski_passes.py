"""Passes for a ski lift, checked at the gate."""

TRUTH = {"options": "--server uvicorn -n 36", "path": "/passes/77", "slots": 6, "waits_on": "a semaphore"}

import asyncio

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse
from starlette.routing import Route


class Gate(BaseHTTPMiddleware):
    def __init__(self, app, lanes):
        super().__init__(app)
        self.lanes = asyncio.Semaphore(lanes)

    async def dispatch(self, request, call_next):
        async with self.lanes:  # waits
            response = await call_next(request)  # works
        response.headers["x-gate"] = "north"
        return response


async def check(request):
    await asyncio.sleep(0.2)  # works
    return JSONResponse({"pass": request.path_params["number"], "valid": True})


app = Starlette(routes=[Route("/passes/{number:int}", check)], middleware=[Middleware(Gate, lanes=6)])
