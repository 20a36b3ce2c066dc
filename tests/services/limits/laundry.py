"""Washing machines in the cellar of a student home."""

TRUTH = {
    "options": "--server gunicorn-gevent -n 24",
    "path": "/wash",
    "slots": 3,
    "waits_on": "an item of gevent's queue (own pool)",
}

from contextlib import contextmanager

import gevent
from flask import Flask
from flask.views import MethodView
from gevent.queue import Queue

machines = Queue(items=["left", "middle", "right"])
app = Flask(__name__)


@contextmanager
def machine():
    name = machines.get()  # waits
    try:
        yield name
    finally:
        machines.put(name)


class Wash(MethodView):
    def get(self):
        with machine() as name:
            gevent.sleep(0.15)  # works
            return {"machine": name, "minutes": 40}


app.add_url_rule("/wash", view_func=Wash.as_view("wash"))
