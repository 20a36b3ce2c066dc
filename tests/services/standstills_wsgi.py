"""The same for a WSGI app, on threads of gunicorn. See standstills.py."""

import itertools
import time
import urllib.request

from sqlalchemy import create_engine, event, text
from sqlalchemy.pool import QueuePool

ARGUMENTS = {
    "poolclass": QueuePool,
    "max_overflow": 0,
    "pool_timeout": 2.5,
    "connect_args": {"check_same_thread": False},
}
engine, larger = (create_engine("sqlite://", pool_size=size, **ARGUMENTS) for size in (5, 17))
orders = create_engine("sqlite://", pool_size=3, **ARGUMENTS)
stocks = create_engine("sqlite://", pool_size=4, **ARGUMENTS)
turns = itertools.cycle([(orders, stocks), (stocks, orders)])


@event.listens_for(QueuePool, "connect")
def add_slow_function(connection, _):
    connection.create_function("slow", 1, lambda seconds: time.sleep(seconds) or 1)


def two_connections(pool):
    with pool.connect() as db:  # connections
        db.execute(text("select slow(0.1)"))
        with pool.connect() as other:  # connections
            other.execute(text("select slow(0.05)"))


def in_either_order():
    first, second = next(turns)
    with first.connect() as db:  # either-order
        db.execute(text("select slow(0.1)"))
        with second.connect() as other:  # either-order
            other.execute(text("select slow(0.05)"))


def one_connection(pool):
    with pool.connect() as db:
        db.execute(text("select slow(0.1)"))
        db.execute(text("select slow(0.05)"))


def price():
    time.sleep(0.05)


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/connections":
        two_connections(engine)
    elif path == "/connections/cured":
        one_connection(engine)
    elif path == "/connections/larger":
        two_connections(larger)
    elif path == "/either-order":
        in_either_order()
    elif path == "/itself":
        time.sleep(0.1)  # until all slots are taken
        urllib.request.urlopen(f"http://{environ['HTTP_HOST']}/price", timeout=1.2).read()  # itself
    else:
        price()
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
