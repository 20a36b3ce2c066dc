"""Tickets with consecutive numbers: a lock around the counter and the printer. Flask."""

import threading
import time

from flask import Flask

TRUTH = {
    "options": "--server gunicorn-threads --threads 12 -n 36",
    "path": "/tickets",
    "slots": 1,
    "waits_on": "a lock",
}
app = Flask(__name__)


class Counter:
    def __init__(self):
        self._lock = threading.Lock()
        self.last = 0

    def next(self):
        with self._lock:  # waits
            self.last += 1
            time.sleep(0.04)  # works
            return self.last


counter = Counter()


@app.route("/tickets")
def ticket():
    number = counter.next()
    time.sleep(0.12)
    return {"number": number}
