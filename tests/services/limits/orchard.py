"""Picking apples in an orchard; the ladders are shared by all processes."""

TRUTH = {
    "options": "--server gunicorn --workers 2 --threads 30 --server-args='--preload' -n 30",
    "path": "/rows/7/pick",
    "slots": 6,
    "waits_on": "a semaphore",
}

import multiprocessing
import time

from flask import Blueprint, Flask, jsonify

rows = Blueprint("rows", __name__, url_prefix="/rows")
ladders = multiprocessing.get_context("fork").BoundedSemaphore(6)


class Picker:
    def __init__(self, row):
        self.row = row

    def __enter__(self):
        ladders.acquire()  # waits
        return self

    def __exit__(self, *exc):
        ladders.release()

    def fill(self, baskets):
        for _ in range(baskets):
            time.sleep(0.1)  # works
        return baskets


@rows.get("/<int:row>/pick")
def pick(row):
    with Picker(row) as picker:
        return jsonify(baskets=picker.fill(3))


app = Flask(__name__)
app.register_blueprint(rows)
