"""Letters from citizens to a town council."""

TRUTH = {
    "options": "--server gunicorn-threads --threads 16 -c 12 -t 3",
    "path": "/letters/send",
    "slots": None,
    "waits_on": "room in a bounded queue, which one thread empties at 10 a second",
}

import queue
import threading
import time

from flask import Flask, jsonify

box = queue.Queue(maxsize=3)
read = []


def clerk():
    while True:
        letter = box.get()
        time.sleep(0.1)
        read.append(letter)


threading.Thread(target=clerk, daemon=True).start()
app = Flask(__name__)


@app.get("/letters/send")
def send():
    box.put({"at": time.time()})  # waits
    return jsonify(read=len(read))
