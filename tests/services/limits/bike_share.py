"""Bicycles to rent at stations of a small town."""

TRUTH = {
    "options": "--server gunicorn-gevent -n 30",
    "path": "/stations/market",
    "slots": 5,
    "waits_on": "a greenlet of gevent's pool",
}

import json

import gevent
from gevent.pool import Pool

radios = Pool(5)


def ask_station(name):
    gevent.sleep(0.2)  # works
    return {"station": name, "bikes": len(name)}


def app(environ, start_response):
    name = environ["PATH_INFO"].split("/")[-1]
    asked = radios.spawn(ask_station, name)  # waits
    body = json.dumps(asked.get()).encode()  # works
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
