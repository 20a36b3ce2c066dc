"""Membership dues of a sports club, kept in an SQLite file."""

TRUTH = {
    "options": "--server gunicorn-threads --threads 8 -n 16",
    "path": "/dues/31/pay",
    "slots": 1,
    "waits_on": "SQLite's write lock",
}

import os
import sqlite3
import tempfile
import time
from contextlib import closing

from flask import Flask, jsonify

app = Flask(__name__)
path = os.path.join(tempfile.mkdtemp(prefix="dues"), "club.db")


def connect():
    return sqlite3.connect(path, timeout=20, isolation_level=None)


with closing(connect()) as db:
    db.execute("create table dues (member integer primary key, paid integer not null)")


@app.get("/dues/<int:member>/pay")
def pay(member):
    with closing(connect()) as db:
        db.execute("begin immediate")  # waits
        db.execute("insert into dues values (?, 10) on conflict do update set paid = paid + 10", (member,))
        time.sleep(0.1)  # works
        (paid,) = db.execute("select paid from dues where member = ?", (member,)).fetchone()
        db.execute("commit")
    return jsonify(member=member, paid=paid)
