"""A proxy for a weather service that gives us eight connections. FastAPI, httpx."""

import asyncio
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

TRUTH = {"options": "-n 48", "path": "/weather", "slots": 8, "waits_on": "httpx's connections"}


async def upstream(reader, writer):
    while await reader.readline():
        while (await reader.readline()).strip():
            pass
        await asyncio.sleep(0.2)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsnow")
    writer.close()


@asynccontextmanager
async def lifespan(app):
    server = await asyncio.start_server(upstream, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    limits = httpx.Limits(max_connections=8)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=30) as client:
        app.state.client = client
        yield
    server.close()


app = FastAPI(lifespan=lifespan)


async def fetch(path: str) -> str:
    answer = await app.state.client.get(path)  # waits works
    return answer.text


@app.get("/weather")
async def weather():
    return await fetch("/now")
