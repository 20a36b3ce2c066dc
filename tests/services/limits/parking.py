"""A car park with six places, by a condition. Flask."""

import threading
import time

from flask import Flask

TRUTH = {
    "options": "--server gunicorn-threads --threads 14 -n 28",
    "path": "/park",
    "slots": 6,
    "waits_on": "a condition",
}
app = Flask(__name__)
changed = threading.Condition()
free = 6


@app.get("/park")
def park():
    global free
    with changed:
        changed.wait_for(lambda: free > 0)  # waits
        free -= 1
    time.sleep(0.1)  # works
    with changed:
        free += 1
        changed.notify()
    return "parked"
