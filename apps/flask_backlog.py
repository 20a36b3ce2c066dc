"""Claim: the development server's long tail is its listen backlog of 128. Same as flask_hello.py, with one of 4096.

Serve it by hand:  flask --app apps/flask_backlog run
"""

from flask import Flask
from werkzeug.serving import BaseWSGIServer

BaseWSGIServer.request_queue_size = 4096  # the kernel caps it at net.core.somaxconn

app = Flask(__name__)


@app.get("/")
def hello():
    return {"message": "hello"}
