"""Ropes of a rope maker: each is computed, and then waited for. Flask, on threads of gunicorn."""

import time

from flask import Flask

app = Flask(__name__)


def twist(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:  # computes
        sum(range(200))


@app.get("/ropes")
def ropes():
    twist(0.05)
    time.sleep(0.05)
    return "20 m"
