"""Virus scans that a WSGI service hands to two threads, and waits for. Plain WSGI."""

import time
from concurrent.futures import ThreadPoolExecutor

TRUTH = {
    "options": "--server gunicorn-threads --threads 10 -n 20",
    "path": "/",
    "slots": 2,
    "waits_on": "an executor's thread",
}
scanners = ThreadPoolExecutor(2, thread_name_prefix="scan")


def scan(data):
    time.sleep(0.1)  # works
    return b"clean"


def app(environ, start_response):
    result = scanners.submit(scan, b"data").result()  # waits
    start_response("200 OK", [("Content-Length", str(len(result)))])
    return [result]
