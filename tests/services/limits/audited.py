"""Every order is logged to a slow disk. Flask."""

import logging
import time

from flask import Flask

TRUTH = {
    "options": "--server gunicorn-threads --threads 16 -n 40",
    "path": "/order",
    "slots": 1,
    "waits_on": "a log handler's lock",
}
app = Flask(__name__)


class SlowDisk(logging.Handler):
    def emit(self, record):
        time.sleep(0.03)  # works


audit = logging.getLogger("audit")
audit.addHandler(SlowDisk())
audit.setLevel(logging.INFO)
audit.propagate = False


@app.get("/order")
def order():
    time.sleep(0.05)
    audit.info("ordered")  # waits
    return "ok"
