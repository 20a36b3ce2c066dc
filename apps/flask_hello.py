"""Claim: with nothing to wait for, the server in front of Flask decides how fast this is, not Flask.

Serve it by hand:  gunicorn --workers 4 --chdir apps flask_hello:app
"""

from flask import Flask

app = Flask(__name__)


@app.get("/")
def hello():
    return {"message": "hello"}
