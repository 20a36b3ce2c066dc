"""Trains that pass a signal box, and a cheap path beside them. Flask, on threads of gunicorn."""

import time

from flask import Flask

app = Flask(__name__)


@app.get("/trains")
def trains():
    time.sleep(1)
    return "passed"


@app.get("/alive")
def alive():
    return "yes"
