"""Where a parcel is: the shop asks the carrier's API."""

TRUTH = {
    "options": "--server gunicorn-threads --threads 16 -n 32",
    "path": "/parcels/81",
    "slots": 4,
    "waits_on": "a connection of httpx's pool",
}

import asyncio
import threading

import httpx
from flask import Flask, jsonify

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{"at": "Vienna"}'


class Carrier(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        loop.call_later(0.2, self.transport.write, ANSWER)


loop = asyncio.new_event_loop()
carrier = loop.run_until_complete(loop.create_server(Carrier, "127.0.0.1", 0))
threading.Thread(target=loop.run_forever, daemon=True).start()
port = carrier.sockets[0].getsockname()[1]
client = httpx.Client(base_url=f"http://127.0.0.1:{port}", limits=httpx.Limits(max_connections=4))
app = Flask(__name__)


@app.get("/parcels/<int:number>")
def parcel(number):
    answer = client.get(f"/parcels/{number}")  # waits works
    return jsonify(number=number, **answer.json())
