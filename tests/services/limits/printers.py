"""Three printers for all, greenlets for each request. Plain WSGI on gevent."""

import time

from gevent.lock import BoundedSemaphore

TRUTH = {"options": "--server gunicorn-gevent -n 24", "path": "/", "slots": 3, "waits_on": "a semaphore"}
printers = BoundedSemaphore(3)


def print_page():
    with printers:  # waits
        time.sleep(0.1)  # works


def app(environ, start_response):
    print_page()
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
