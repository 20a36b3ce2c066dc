"""Twenty requests a second to a partner, by a bucket that sleeps under its lock. Flask."""

import threading
import time

from flask import Flask

TRUTH = {"options": "--server gunicorn-threads --threads 10 -n 20", "path": "/", "slots": 1, "waits_on": "a lock"}
app = Flask(__name__)


class Bucket:
    def __init__(self, rate):
        self.pause, self.mutex = 1 / rate, threading.Lock()

    def take(self):
        self.mutex.acquire()  # waits
        time.sleep(self.pause)  # works
        self.mutex.release()


bucket = Bucket(20)


@app.get("/")
def partner():
    bucket.take()
    time.sleep(0.1)
    return "ok"
