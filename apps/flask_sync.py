"""Claim: a sync Flask view holds its worker for the whole of its I/O, so W sync workers serve W requests at a time.

Serve it by hand:  gunicorn --workers 4 --chdir apps flask_sync:app
"""

import os
import time

from flask import Flask

TASK_TIME = float(os.environ.get("TASK_TIME", "1"))  # seconds

app = Flask(__name__)


@app.get("/io")
def io():
    time.sleep(TASK_TIME)  # stands for a query or a call to another service
    return {"task_time": TASK_TIME}
