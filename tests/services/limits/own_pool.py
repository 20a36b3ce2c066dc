"""A hand-made pool of database connections on a queue. Plain WSGI."""

import queue
import time
from contextlib import contextmanager

TRUTH = {"options": "--server gunicorn-threads --threads 16 -n 40", "path": "/", "slots": 5, "waits_on": "a queue"}


class Connection:
    def query(self, text):
        time.sleep(0.1)  # works
        return [text]


class Pool:
    def __init__(self, size):
        self.free = queue.LifoQueue()
        for _ in range(size):
            self.free.put(Connection())

    @contextmanager
    def connection(self):
        found = self.free.get()  # waits
        try:
            yield found
        finally:
            self.free.put(found)


pool = Pool(5)


def app(environ, start_response):
    with pool.connection() as connection:
        rows = connection.query("select 1")
    start_response("200 OK", [("Content-Length", str(len(rows)))])
    return [b"1"]
