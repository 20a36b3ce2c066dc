"""Seeds of a seed bank: one at a time writes into the book, for a part of the time. Flask, on threads of gunicorn."""

import threading
import time

from flask import Flask

app = Flask(__name__)
book = threading.Lock()


@app.get("/seeds")
def seeds():
    time.sleep(0.05)
    with book:  # waits
        time.sleep(0.04)  # works
    time.sleep(0.02)
    return "a bag"
