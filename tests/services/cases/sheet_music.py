"""Sheet music of a brass band. Flask, on greenlets of gunicorn."""

import time

from flask import Flask

app = Flask(__name__)


@app.get("/sheets")
def sheets():
    time.sleep(0.1)
    return "march"
