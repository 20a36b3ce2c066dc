"""Stock that is written to SQLite, one writer at a time. Flask."""

import os
import sqlite3
import tempfile
import time

from flask import Flask

TRUTH = {
    "options": "--server gunicorn-threads --threads 8 -n 16",
    "path": "/",
    "slots": None,
    "waits_on": "SQLite's lock",
}
app = Flask(__name__)
FILE = os.path.join(tempfile.mkdtemp(), "stock.db")
with sqlite3.connect(FILE) as first:
    first.execute("create table stock (n integer)")


@app.get("/")
def write():
    db = sqlite3.connect(FILE, timeout=30, isolation_level=None)
    db.execute("begin immediate")
    db.execute("insert into stock values (1)")
    time.sleep(0.05)  # works
    db.execute("commit")
    db.close()
    return "written"
