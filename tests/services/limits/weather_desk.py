"""Weather for a sailing club, from a forecast service."""

TRUTH = {
    "options": "--server uvicorn -n 36",
    "path": "/forecast/kiel",
    "slots": 6,
    "waits_on": "a connection of httpx's pool",
}

import asyncio
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI


class Service(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        answer = b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"wind": 14}'
        asyncio.get_running_loop().call_later(0.2, self.transport.write, answer)


@asynccontextmanager
async def lifespan(app):
    service = await asyncio.get_running_loop().create_server(Service, "127.0.0.1", 0)
    url = "http://127.0.0.1:%d" % service.sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=url, limits=httpx.Limits(max_connections=6)) as app.state.client:
        yield
    service.close()


app = FastAPI(lifespan=lifespan)


@app.get("/forecast/{place}")
async def forecast(place: str):
    response = await app.state.client.get(f"/now/{place}")  # waits works
    return {"place": place} | response.json()
