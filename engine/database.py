"""A Postgres for the Books API: engine/inside/postgres.py as a process, and what it counted in a run."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.launch import INSIDE, Launch
from engine.machine import pin
from engine.run import Database
from engine.words import Problem

RESERVED = 4  # connections: Postgres keeps 3 for superusers, and postgres.py takes one for itself


class BooksDatabase:
    """It ends, and takes its Postgres along, when its stdin closes.

    about: its first answer; url: where the books are. Raises Problem if it does not start.
    """

    def __init__(self, url: str | None, log: Path, cpus: set[int]) -> None:
        command = [sys.executable, f"{INSIDE}/postgres.py", url or ""]
        with log.open("wb") as sink:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink, start_new_session=True, text=True
            )
        try:
            if cpus:
                pin(self.process.pid, cpus)
            self.about = self.read()
            if "error" in self.about:
                raise Problem(f"{self.about['error']} (see {log})")
        except BaseException:
            self.stop()
            raise
        self.url: str = self.about["database_url"]

    def ask(self, command: str) -> Any:
        """One of the commands that postgres.py describes, and its answer: {"error": ...} if that fails."""
        with contextlib.suppress(OSError):
            print(command, file=self.process.stdin, flush=True)
        return self.read()

    def read(self) -> Any:
        return json.loads(next(self.process.stdout or iter(()), '{"error": "the database has ended"}'))

    def stop(self) -> None:
        try:
            self.process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def database_for(
    launches: Sequence[Launch], url: str | None, folder: Path, cpus: set[int]
) -> Iterator[BooksDatabase | None]:
    """Start Postgres if a launch needs one, and stop it in the end; its log is folder/postgres.log.

    url: of a server to use (else DATABASE_URL, else an embedded one). Problem if it cannot be, or has too few
    connections for the pools.
    """
    if not any(launch.pool for launch in launches):
        yield None
        return
    database = BooksDatabase(url, folder / "postgres.log", cpus)
    try:
        most = database.about["max_connections"]
        free = most - database.about["connections_in_use"] - RESERVED
        for launch in launches:
            if launch.workers * launch.pool > free:
                raise Problem(
                    f"{launch.name} needs {launch.workers} workers x {launch.pool} connections; of Postgres' {most}"
                    f" (max_connections) {free} are free. Lower --workers or --pool-size, or raise max_connections"
                    " (embedded: PG_MAX_CONNECTIONS=N)"
                )
        yield database
    finally:
        database.stop()


def books_seen(database: BooksDatabase) -> Database:
    """What Postgres counted since the last reset."""
    return Database(**database.ask("stats"), version=database.about["version"])
