"""Departures at a bus stop, fetched from the transport authority."""

TRUTH = {
    "options": "--server waitress --threads 12 -n 24",
    "path": "/stops/7",
    "slots": 3,
    "waits_on": "a connection of urllib3's pool",
}

import asyncio
import threading

import urllib3


class Authority(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12:40"
        asyncio.get_running_loop().call_later(0.15, self.transport.write, answer)


loop = asyncio.new_event_loop()
authority = loop.run_until_complete(loop.create_server(Authority, "127.0.0.1", 0))
threading.Thread(target=loop.run_forever, daemon=True).start()
url = "http://127.0.0.1:%d" % authority.sockets[0].getsockname()[1]
http = urllib3.PoolManager(maxsize=3, block=True)


def departures(stop):
    return http.request("GET", f"{url}/{stop}").data  # waits works


def app(environ, start_response):
    stop = environ["PATH_INFO"].rpartition("/")[2]
    body = stop.encode() + b": " + departures(stop)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
