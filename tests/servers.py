"""What the tests of the servers share: options, the user's folder, a running server, processes that end."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.launch import Launch, launch_app
from engine.server import RunningServer, start_server, stop_server
from engine.targets import TaskTime

# The smallest WSGI app, as text of a module: app = answer("text").
ANSWER = """
def answer(text):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [str(text).encode()]
    return app
"""


def options(**given: Any) -> argparse.Namespace:
    """The options that start a server, as the parser leaves them."""
    unset = dict.fromkeys(("app", "server", "workers", "threads", "task_time", "cpu_time", "pool_size"))
    given["server_args"] = given.get("server_args", "").split()
    return argparse.Namespace(**unset | {"factory": False, "subtasks": 2, "access_log": False} | given)


def launch_of(server: str | None, app: str = "main:app", **given: Any) -> Launch:
    return launch_app(options(app=app, server=server, **given))


def write_files(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@contextlib.contextmanager
def running(launch: Launch, folder: Path, database_url: str = "") -> Iterator[RunningServer]:
    (folder / "logs").mkdir(exist_ok=True)
    server = start_server(launch, folder / "logs", set(), database_url)
    try:
        yield server
    finally:
        stop_server(server)


@contextlib.contextmanager
def started(folder: Path, server: str, app: str = "main:app", **given: Any) -> Iterator[RunningServer]:
    """A user's app on its real server, from the present folder."""
    with running(launch_of(server, app, **given), folder) as it:
        yield it


def ask(port: int, path: str = "/", method: str = "GET", body: bytes = b"", number: int | str = 0) -> tuple[int, str]:
    """One request on a new connection: status and body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        headers = {"X-Request-Id": str(number), "Content-Type": "application/json"}
        connection.request(method, path, body or None, headers)
        response = connection.getresponse()
        return response.status, response.read().decode()


def task_time(seconds: float, distribution: str = "constant") -> TaskTime:
    time_s = TaskTime(seconds)
    time_s.distribution = distribution
    return time_s


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    stat = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(stat) and not stat.startswith("Z")


def wait_until(condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout_s} s")
