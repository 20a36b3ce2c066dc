"""A record office, whose database takes three clients and refuses more. Flask, on threads of gunicorn."""

import threading
import time

from flask import Flask

app = Flask(__name__)
clients = threading.Semaphore(3)


class OperationalError(Exception):
    pass


def connect():
    if not clients.acquire(blocking=False):
        raise OperationalError(
            'connection to server at "127.0.0.1", port 5432 failed: FATAL:  sorry, too many clients already'
        )
    return clients


@app.get("/records")
def records():
    connection = connect()
    time.sleep(0.2)
    connection.release()
    return "1902"
