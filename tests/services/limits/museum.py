"""A museum's guide. Flask on waitress, five threads."""

import time

from flask import Flask

TRUTH = {"options": "--server waitress --threads 5 -n 20", "path": "/", "slots": None, "waits_on": None}
app = Flask(__name__)


@app.get("/")
def guide():
    time.sleep(0.1)  # works
    return "left"
