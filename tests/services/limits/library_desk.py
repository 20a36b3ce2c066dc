"""The desk of a public library: who has borrowed a book."""

TRUTH = {
    "options": "--server gunicorn --workers 3 -n 24",
    "path": "/loans",
    "slots": 3,
    "waits_on": "a process of the server",
}

import json
import time

LOANS = [{"book": "Moby Dick", "reader": 17}, {"book": "Emma", "reader": 4}]


class Catalogue:
    def loans(self):
        time.sleep(0.15)  # works
        return LOANS


catalogue = Catalogue()


def app(environ, start_response):
    if environ["PATH_INFO"] != "/loans":
        start_response("404 Not Found", [("Content-Length", "0")])
        return [b""]
    body = json.dumps(catalogue.loans()).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
