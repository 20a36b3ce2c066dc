"""A page that asks for twenty papers at once, each a second of waiting. FastAPI: the server takes all of them."""

import asyncio

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

app = FastAPI()
PAGE = """<!doctype html><title>News</title><script>
for (let paper = 0; paper < 20; paper++) fetch(`/papers/${paper}`)
</script>"""


@app.get("/", response_class=HTMLResponse)
async def page():
    return PAGE


@app.get("/papers/{number}")
async def paper(number: int):
    await asyncio.sleep(1)  # works
    return number
