"""Prices of stamps for collectors."""

TRUTH = {
    "options": "--server gunicorn-threads --threads 16 -n 24",
    "path": "/stamps/penny-black",
    "slots": 1,
    "waits_on": "a lock",
}

import threading
import time

from flask import Flask, jsonify


class TokenBucket:
    def __init__(self, rate, size):
        self.rate, self.size, self.tokens = rate, size, size
        self.filled_at, self.lock = time.monotonic(), threading.Lock()

    def take(self):
        with self.lock:  # waits
            now = time.monotonic()
            self.tokens = min(self.size, self.tokens + (now - self.filled_at) * self.rate)
            self.filled_at = now
            if self.tokens < 1:
                time.sleep((1 - self.tokens) / self.rate)  # works
                self.tokens, self.filled_at = 1, time.monotonic()
            self.tokens -= 1


bucket = TokenBucket(rate=10, size=3)
app = Flask(__name__)


@app.get("/stamps/<name>")
def stamp(name):
    bucket.take()
    time.sleep(0.05)
    return jsonify(name=name, price=len(name) * 100)
