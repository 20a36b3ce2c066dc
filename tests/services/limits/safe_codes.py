"""Opens the lockers of a swimming pool by a code."""

TRUTH = {
    "options": "--server gunicorn-gevent -n 24",
    "path": "/lockers/9/2468",
    "slots": 1,
    "waits_on": "the event loop (gevent's hub)",
}

import hashlib
import time

from flask import Flask, jsonify

app = Flask(__name__)


def digest(code):
    return hashlib.pbkdf2_hmac("sha256", code.encode(), b"locker", 100_000).hex()  # blocks


KNOWN = {digest("2468"): 9}


@app.get("/lockers/<int:number>/<code>")
def locker(number, code):
    time.sleep(0.1)
    return jsonify(locker=number, opens=KNOWN.get(digest(code)) == number)
