"""Bids at an auction house."""

TRUTH = {
    "options": "--server gunicorn-gevent -n 32",
    "path": "/lots/7/bid?amount=120",
    "slots": 4,
    "waits_on": "a semaphore of gevent",
}

import time

from flask import Flask, jsonify, request
from gevent.lock import BoundedSemaphore

app = Flask(__name__)
clerks = BoundedSemaphore(4)
highest = {}


def write_down(lot, amount):
    time.sleep(0.2)  # works
    highest[lot] = max(amount, highest.get(lot, 0))
    return highest[lot]


@app.get("/lots/<int:lot>/bid")
def bid(lot):
    amount = request.args.get("amount", 0, type=int)
    with clerks:  # waits
        best = write_down(lot, amount)
    return jsonify(lot=lot, highest=best)
