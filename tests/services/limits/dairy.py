"""Cheese of a dairy, salted thoroughly."""

TRUTH = {"options": "--server granian -n 20", "path": "/cheeses/gouda/salt", "slots": 1, "waits_on": None}

import asyncio
import hashlib

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

tubs = asyncio.Semaphore(3)


def layers(cheese, count):
    salt = cheese.encode()
    for layer in range(count):
        salt = hashlib.pbkdf2_hmac("sha256", salt, b"sea%d" % layer, 200_000)  # blocks
        yield salt.hex()


async def salt(request):
    async with tubs:
        *_, crust = layers(request.path_params["cheese"], 3)
    return JSONResponse({"crust": crust})


app = Starlette(routes=[Route("/cheeses/{cheese}/salt", salt)])
