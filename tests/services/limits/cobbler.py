"""Shoes that are ready to be collected from a cobbler."""

TRUTH = {"options": "--server gunicorn-gevent -n 40", "path": "/shoes/18", "slots": None, "waits_on": None}

import queue
import time

from flask import Flask, jsonify

app = Flask(__name__)
tickets = queue.Queue()
for _ in range(60):
    tickets.put(object())


def ready(number):
    ticket = tickets.get()
    time.sleep(0.2)
    tickets.put(ticket)
    return number % 2 == 0


@app.get("/shoes/<int:number>")
def shoes(number):
    return jsonify(shoes=number, ready=ready(number))
