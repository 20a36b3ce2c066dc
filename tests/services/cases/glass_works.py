"""Orders of a glass works, whose workers are started anew after some requests. Flask, on gunicorn.

To start takes a while, as an app does that imports much.
"""

import time

from flask import Flask

time.sleep(0.3)
app = Flask(__name__)


@app.get("/orders")
def orders():
    time.sleep(0.05)
    return "a vase"
