"""Hours of an ice rink, in a database to which a connection is slow to open. Flask, on threads of gunicorn.

SQLAlchemy closes a connection beyond pool_size when it is given back while no request waits for one.
"""

import os
import time

from flask import Flask
from sqlalchemy.pool import QueuePool

app = Flask(__name__)


class Connection:
    def rollback(self):
        """As a driver has it."""

    close = commit = rollback


def connect():
    time.sleep(0.05)  # opens
    return Connection()


SIZE = int(os.environ.get("SIZE", "5"))
pool = QueuePool(connect, pool_size=SIZE, max_overflow=15 - SIZE)


@app.get("/hours")
def hours():
    connection = pool.connect()  # waits
    time.sleep(0.05)  # works
    connection.close()
    return "9 to 17"
