"""Accounts, each with a lock of its own. Flask on waitress."""

import threading
import time
from collections import defaultdict

from flask import Flask

TRUTH = {"options": "--server waitress --threads 8 -n 16", "path": "/accounts/7", "slots": 1, "waits_on": "a lock"}
app = Flask(__name__)
locks = defaultdict(threading.RLock)


@app.get("/accounts/<int:number>")
def transfer(number):
    lock = locks[number]
    with lock:  # waits
        time.sleep(0.1)  # works
    return "done"
