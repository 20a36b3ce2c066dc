"""Twelve threads, of which five may search and three of those may read the disk. Flask."""

import threading
import time

from flask import Flask

TRUTH = {
    "options": "--server gunicorn-threads --threads 12 -n 36",
    "path": "/search",
    "slots": 3,
    "waits_on": "a semaphore",
}
app = Flask(__name__)
searches, disks = threading.BoundedSemaphore(5), threading.BoundedSemaphore(3)


def read():
    with disks:  # waits
        time.sleep(0.1)  # works


@app.get("/search")
def search():
    with searches:
        read()
    return "found"
