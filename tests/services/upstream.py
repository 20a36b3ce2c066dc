"""Somebody else's service, as orders.py and parcels.py call it: python upstream.py PORT WAIT_S."""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Upstream(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wait_s = 0.1

    def do_GET(self):
        time.sleep(self.wait_s)
        body = json.dumps({"path": self.path, "price": 12.5, "status": "in transit"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


if __name__ == "__main__":
    Upstream.wait_s = float(sys.argv[2])
    Server(("127.0.0.1", int(sys.argv[1])), Upstream).serve_forever()
