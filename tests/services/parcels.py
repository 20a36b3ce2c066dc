"""A service as one finds it: parcels in a database, their way from another service. Flask, SQLAlchemy, requests.

    gunicorn --threads 8 'parcels:create_app("production")'
    DATABASE_URL, UPSTREAM_URL and QUERY_TIME (seconds that a query takes) are its settings.

GET /parcels/<id>   a query: 5 connections, whatever the threads
GET /track/<id>     requests to the other service, without a limit of its own: the server's slots
GET /health         nothing
"""

import os
import tempfile
import time

import requests
from flask import Blueprint, Flask, abort, current_app, g, jsonify
from requests.adapters import HTTPAdapter
from sqlalchemy import create_engine, event, text
from werkzeug.middleware.proxy_fix import ProxyFix

SETTINGS = {
    "development": {"POOL_SIZE": 2, "LOG_REQUESTS": True},
    "production": {"POOL_SIZE": 5, "LOG_REQUESTS": False},
}
SCHEMA = "create table if not exists parcels (id integer primary key, address text not null, weight_g integer not null)"
api = Blueprint("api", __name__)


# ---------------------------------------------------------------- the database


def make_engine(url, pool_size):
    connect_args = {"check_same_thread": False, "timeout": 30}
    engine = create_engine(url, pool_size=pool_size, max_overflow=0, connect_args=connect_args)

    @event.listens_for(engine, "connect")
    def add_slow_function(connection, _):
        connection.create_function("slow", 1, slow)

    return engine


def slow(seconds):
    """Stands for what a query on a real database waits for."""
    time.sleep(seconds)
    return 1


def fill(engine):
    with engine.begin() as db:
        db.execute(text(SCHEMA))
        for i in range(1, 101):
            db.execute(
                text("insert or ignore into parcels values (:id, :address, :weight_g)"),
                {"id": i, "address": f"{i} Main Street", "weight_g": 100 * i},
            )


def database():
    """The connection of this request, opened when it is first needed."""
    if "db" not in g:
        g.db = current_app.extensions["engine"].connect()
    return g.db


def close_database(_error=None):
    if (db := g.pop("db", None)) is not None:
        db.close()


# ---------------------------------------------------------------- routes


@api.get("/parcels/<int:parcel_id>")
def read_parcel(parcel_id):
    query = text("select id, address, weight_g from parcels where id = :id and slow(:seconds) = 1")
    values = {"id": parcel_id, "seconds": current_app.config["QUERY_TIME"]}
    row = database().execute(query, values).mappings().first()
    return jsonify(dict(row)) if row else abort(404)


@api.get("/track/<int:parcel_id>")
def track(parcel_id):
    session = current_app.extensions["upstream"]
    answer = session.get(f"{current_app.config['UPSTREAM_URL']}/track/{parcel_id}", timeout=10)
    answer.raise_for_status()
    return jsonify(id=parcel_id, status=answer.json()["status"])


@api.get("/health")
def health():
    return jsonify(ok=True)


def log_request(response):
    current_app.logger.info("%s %s", response.status, response.content_length)
    return response


def create_app(environment="development"):
    app = Flask(__name__)
    app.config.update(SETTINGS[environment])
    app.config["QUERY_TIME"] = float(os.environ.get("QUERY_TIME", "0.1"))
    app.config["UPSTREAM_URL"] = os.environ.get("UPSTREAM_URL", "http://127.0.0.1:9000")
    default = f"sqlite:///{os.path.join(tempfile.gettempdir(), 'parcels.db')}"
    engine = make_engine(os.environ.get("DATABASE_URL", default), app.config["POOL_SIZE"])
    fill(engine)
    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_maxsize=20))
    app.extensions |= {"engine": engine, "upstream": session}
    app.register_blueprint(api)
    app.teardown_appcontext(close_database)
    if app.config["LOG_REQUESTS"]:
        app.after_request(log_request)
    app.wsgi_app = ProxyFix(app.wsgi_app)
    return app
