"""The Postgres of the Books API comes and goes, counts, and leaves nothing."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from servers import wait_until

from engine.database import BooksDatabase, books_seen, database_for
from engine.launch import Launch
from engine.run import Database
from engine.targets import SEEDED_BOOKS
from engine.words import Problem

BOOKS = Launch("books", "uvicorn", "fastapi_books:app", workers=2, pool=4)


@contextlib.contextmanager
def database(folder: Path, url: str | None = None) -> Iterator[BooksDatabase]:
    (folder / "logs").mkdir(exist_ok=True)
    it = BooksDatabase(url, folder / "logs" / "postgres.log", set())
    try:
        yield it
    finally:
        it.stop()


ENDINGS = {
    "end of input": BooksDatabase.stop,
    "SIGTERM": lambda it: it.process.terminate(),
    "SIGKILL": lambda it: it.process.kill(),
    "SIGKILL to the group": lambda it: os.killpg(it.process.pid, signal.SIGKILL),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_postgres_ends_however_its_process_ends_and_leaves_no_folder_unless_it_is_killed(tmp_path, ending):
    with database(tmp_path) as it:
        # a client that stays connected must not hold it up
        with psycopg.connect(it.url, autocommit=True) as connection:
            folder = Path(connection.execute("SHOW data_directory").fetchall()[0][0]).parent
            postgres = int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])
            ENDINGS[ending](it)
            it.process.wait(10)
        if sys.platform == "linux" or "KILL" not in ending:
            wait_until(lambda: not Path(f"/proc/{postgres}").exists())
        if "KILL" in ending:
            subprocess.run(["rm", "-r", str(folder)], check=True)
        assert not folder.exists()


def test_the_books_are_counted_and_put_back(tmp_path):
    with database(tmp_path) as it:
        with psycopg.connect(it.url, autocommit=True) as connection:
            connection.execute("DELETE FROM books WHERE id <= 10")
            for _ in range(4):
                connection.execute("SELECT 1")
            connection.execute("SELECT pg_stat_force_next_flush()")
        seen = books_seen(it)
        assert seen == Database(SEEDED_BOOKS - 10, 6, 0, it.about["version"])
        assert books_seen(it) == seen  # what it asks itself does not count
        assert it.ask("reset") == {"ok": True}
        assert books_seen(it) == Database(SEEDED_BOOKS, 0, 0, it.about["version"])


def test_a_given_server_is_used_but_not_a_table_that_is_not_ours(tmp_path):
    with database(tmp_path) as ours, database(tmp_path, ours.url) as given:
        assert given.url == ours.url and given.ask("stats")["rows"] == SEEDED_BOOKS
        with psycopg.connect(ours.url) as connection:
            connection.execute("COMMENT ON TABLE books IS 'ten years of work'")
        assert "not ours" in given.ask("reset")["error"]


@pytest.mark.parametrize("url", ["postgresql://books@127.0.0.1:1/x", "nonsense"])
def test_a_server_that_cannot_be_reached_is_a_problem_in_one_line(tmp_path, url):
    with pytest.raises(Problem, match="DATABASE_URL") as caught, database_for([BOOKS], url, tmp_path, set()):
        pass
    assert "\n" not in str(caught.value)


def test_only_a_launch_with_a_pool_gets_a_database(tmp_path):
    with database_for([Launch("x", "gunicorn", "x:app")], None, tmp_path, set()) as it:
        assert it is None


def test_a_database_with_too_few_connections_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("PG_MAX_CONNECTIONS", "11")  # 2 x 4 + 4 are needed
    with pytest.raises(Problem, match="needs 2 workers x 4"), database_for([BOOKS], None, tmp_path, set()):
        pass
    monkeypatch.setenv("PG_MAX_CONNECTIONS", "12")
    with database_for([BOOKS], None, tmp_path, set()) as it:
        assert it.about["max_connections"] == 12
