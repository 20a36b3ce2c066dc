"""Orders of flour at a mill."""

TRUTH = {
    "options": "--server gunicorn --workers 4 -n 20",
    "path": "/order?kg=5",
    "slots": 1,
    "waits_on": "a lock on a file (of all processes)",
}

import fcntl
import os
import tempfile
import time

from flask import Flask, jsonify, request

app = Flask(__name__)
path = os.path.join(tempfile.gettempdir(), f"mill-{os.getppid()}.number")


def next_number():
    with open(path, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # waits
        file.seek(0)
        number = int(file.read() or 0) + 1
        time.sleep(0.1)  # works
        file.truncate(0)
        file.write(str(number))
        return number


@app.get("/order")
def order():
    return jsonify(number=next_number(), kg=request.args.get("kg"))
