"""Keys of an office building: who took which one is written to a log."""

TRUTH = {
    "options": "--server gunicorn-threads --threads 16 -n 24",
    "path": "/keys/4/take",
    "slots": 1,
    "waits_on": "the lock of a logging handler",
}

import logging
import time

from flask import Flask, jsonify

log = logging.getLogger("keys")
log.setLevel(logging.INFO)
log.propagate = False


class Register(logging.Handler):
    """Sends each line to the register at the porter's."""

    def emit(self, record):
        self.format(record)
        time.sleep(0.06)  # works


log.addHandler(Register())
app = Flask(__name__)


def door_is_free(number):
    time.sleep(0.04)
    return number > 0


@app.get("/keys/<int:number>/take")
def take(number):
    free = door_is_free(number)
    log.info("key %s taken: %s", number, free)  # waits
    return jsonify(key=number, taken=free)
