"""Appointments at a dentist's, with a reminder for the patient."""

TRUTH = {
    "options": "--server gunicorn-threads --threads 16 -c 16 -t 3",
    "path": "/appointments/41",
    "slots": 5,
    "waits_on": "a connection of its own pool (a queue)",
}

import queue
import time

from flask import Flask, jsonify

app = Flask(__name__)
lines = queue.LifoQueue()
for number in range(5):
    lines.put(number)


def remind(appointment):
    line = lines.get()  # waits
    try:
        time.sleep(0.15)  # works
    finally:
        lines.put(line)
    return f"reminder {appointment}"


def prepare(appointment):
    time.sleep(0.15)
    return {"id": appointment, "room": appointment % 3}


@app.get("/appointments/<int:number>")
def appointment(number):
    found = prepare(number)
    return jsonify(found, remind(number))
