"""Exchange rates from a bank, over a session with four connections. Flask, requests."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests
from flask import Flask
from requests.adapters import HTTPAdapter

TRUTH = {
    "options": "--server gunicorn-threads --threads 12 -n 36",
    "path": "/rates",
    "slots": 4,
    "waits_on": "urllib3's pool",
}


class Bank(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        time.sleep(0.1)
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"1.07")

    def log_message(self, *_):
        pass


bank = ThreadingHTTPServer(("127.0.0.1", 0), Bank)
threading.Thread(target=bank.serve_forever, daemon=True).start()
session = requests.Session()
session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=4, pool_block=True))
app = Flask(__name__)


@app.get("/rates")
def rates():
    return session.get(f"http://127.0.0.1:{bank.server_port}/").text  # waits works
