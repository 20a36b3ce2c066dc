"""Courses of a dance school, kept in PostgreSQL."""

TRUTH = {
    "options": "--server gunicorn-threads --threads 14 -n 28",
    "path": "/courses/tango",
    "slots": 4,
    "waits_on": "a connection of psycopg_pool",
}

import time
from types import SimpleNamespace

from flask import Flask, jsonify
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool


class Connection:
    closed = False

    def __init__(self):
        self.pgconn = SimpleNamespace(transaction_status=TransactionStatus.IDLE)

    @classmethod
    def connect(cls, conninfo, **kwargs):
        return cls()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def execute(self, query, name):
        time.sleep(0.15)  # works
        return [{"course": name, "day": "friday"}]

    def close(self):
        self.closed = True


pool = ConnectionPool("dbname=school", connection_class=Connection, min_size=4, open=True)
app = Flask(__name__)


@app.get("/courses/<name>")
def courses(name):
    with pool.connection() as db:  # waits
        rows = db.execute("select course, day from courses where course = %s", name)
    return jsonify(rows)
