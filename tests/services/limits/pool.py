"""A swimming pool's tickets, in a database whose driver is an old one."""

TRUTH = {
    "options": "--server waitress --threads 18 -n 36",
    "path": "/tickets?age=12",
    "slots": 6,
    "waits_on": "a connection of SQLAlchemy's pool",
}

import time

from flask import Flask, jsonify, request
from sqlalchemy.pool import QueuePool

app = Flask(__name__)


class Connection:
    """What the old driver gives us."""

    def price(self, age):
        time.sleep(0.15)  # works
        return 2 if age < 14 else 5

    def rollback(self):
        pass

    def close(self):
        pass


class Pool:
    def __init__(self):
        self.queue = QueuePool(Connection, pool_size=2, max_overflow=4, timeout=20)

    def get(self):
        return self.queue.connect()  # waits


pool = Pool()


@app.get("/tickets")
def tickets():
    connection = pool.get()
    try:
        price = connection.price(request.args.get("age", 30, type=int))
    finally:
        connection.close()
    return jsonify(price=price)
