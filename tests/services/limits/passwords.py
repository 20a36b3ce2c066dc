"""Passwords are hashed where nothing else can run. Plain WSGI on gevent."""

import hashlib

TRUTH = {"options": "--server gunicorn-gevent -n 40", "path": "/", "slots": 1, "waits_on": "the event loop"}


def check(password):
    return hashlib.pbkdf2_hmac("sha256", password, b"salt", 100_000)  # blocks


def app(environ, start_response):
    check(b"secret")
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
