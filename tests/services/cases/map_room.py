"""Maps of a map room, from a database on the same machine that computes for each. Flask, on threads of gunicorn."""

import os
import socket
import threading

from flask import Flask

app = Flask(__name__)
local = threading.local()


def connection():
    if not hasattr(local, "file"):
        local.file = socket.create_connection(("127.0.0.1", int(os.environ["DATABASE"]))).makefile("rw")
    return local.file


@app.get("/maps")
def maps():
    file = connection()
    file.write("map\n")
    file.flush()
    return file.readline()  # works
