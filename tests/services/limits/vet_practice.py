"""Records of a vet's patients."""

TRUTH = {
    "options": "--server waitress --threads 14 -n 28",
    "path": "/patients/rex",
    "slots": 4,
    "waits_on": "a condition (own pool of connections)",
}

import threading
import time


class Connections:
    def __init__(self, limit):
        self.idle = [object() for _ in range(limit)]
        self.returned = threading.Condition()

    def take(self):
        with self.returned:
            while not self.idle:
                self.returned.wait()  # waits
            return self.idle.pop()

    def give_back(self, connection):
        with self.returned:
            self.idle.append(connection)
            self.returned.notify()


connections = Connections(4)


def app(environ, start_response):
    connection = connections.take()
    try:
        time.sleep(0.15)  # works
        body = b"patient " + environ["PATH_INFO"].rsplit("/", 1)[-1].encode()
    finally:
        connections.give_back(connection)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
