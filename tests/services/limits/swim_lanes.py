"""Lanes of a swimming pool, to be reserved by the hour."""

TRUTH = {
    "options": "--server gunicorn-threads --workers 2 --threads 16 -n 60",
    "path": "/lanes/3",
    "slots": 6,
    "waits_on": "a semaphore (one in each process)",
}

import threading
import time

from flask import Flask, jsonify

app = Flask(__name__)
attendants = threading.Semaphore(value=3)


def reserve(lane):
    with attendants:  # waits
        time.sleep(0.2)  # works
        return f"lane {lane} at 10"


@app.get("/lanes/<int:lane>")
def lanes(lane):
    return jsonify(reserved=reserve(lane))
