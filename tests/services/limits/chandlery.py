"""Ropes and sails for boats, from a stock database."""

TRUTH = {
    "options": "--server gunicorn-threads --threads 8 -n 32",
    "path": "/ropes?length=20",
    "slots": 8,
    "waits_on": "a thread of the server",
}

import queue
import time

from flask import Flask, jsonify, request

app = Flask(__name__)
connections = queue.Queue()
for _ in range(8):
    connections.put(object())


@app.get("/ropes")
def ropes():
    length = request.args.get("length", 10, type=int)
    connection = connections.get(timeout=5)
    try:
        time.sleep(0.2)  # works
    finally:
        connections.put(connection)
    return jsonify(length=length, price=length * 1.9)
