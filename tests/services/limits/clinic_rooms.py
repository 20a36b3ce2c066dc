"""A clinic that books one of seven rooms for each examination. Plain WSGI."""

import threading
import time
from functools import wraps

TRUTH = {
    "options": "--server gunicorn-threads --threads 16 -n 48",
    "path": "/examine",
    "slots": 7,
    "waits_on": "a semaphore",
}


def in_a_room(view):
    rooms = threading.Semaphore(7)

    @wraps(view)
    def limited(environ):
        rooms.acquire()  # waits
        try:
            return view(environ)
        finally:
            rooms.release()

    return limited


@in_a_room
def examine(environ):
    time.sleep(0.1)  # works
    return b"healthy"


def app(environ, start_response):
    body = examine(environ)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
