"""What the tests of the servers share: options, the user's folder, a running server, processes that end."""

from __future__ import annotations

import contextlib
import http.client
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.launch import Launch, launch_app, launch_target
from engine.options import parse
from engine.server import RunningServer, start_server, stop_server
from engine.targets import TARGETS

# The smallest WSGI app, as text of a module: app = answer("text").
ANSWER = """
def answer(text):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [str(text).encode()]
    return app
"""


def launch_of(line: str = "", app: str = "main:app", path: str = "/") -> Launch:
    """The user's app, with these options."""
    return launch_app(parse(["--app", app, *shlex.split(line)]), "GET", path)


def target_of(name: str, line: str = "", path: str = "", strict: bool = True) -> Launch:
    """A target with its first route, or the one with the path."""
    route = next(route for route in TARGETS[name].routes if route.path.startswith(path))
    return launch_target(name, route, parse(["--target", name, *shlex.split(line)]), strict)


def write_files(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def lines_of(text: str, name: str, word: str) -> set[str]:
    """The lines of an app that end with a mark, as a report names them."""
    return {f"{name}.py:{number}" for number, line in enumerate(text.splitlines(), 1) if line.endswith(f"# {word}")}


@contextlib.contextmanager
def running(launch: Launch, folder: Path, database_url: str = "", live: bool = False) -> Iterator[RunningServer]:
    (folder / "logs").mkdir(exist_ok=True)
    server = start_server(launch, folder / "logs", set(), database_url, live)
    try:
        yield server
    finally:
        stop_server(server)


def ask(port: int, path: str = "/", method: str = "GET", body: bytes = b"", number: int | str = 0) -> tuple[int, str]:
    """One request on a new connection: status and body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        headers = {"X-Request-Id": str(number), "Content-Type": "application/json"}
        connection.request(method, path, body or None, headers)
        response = connection.getresponse()
        return response.status, response.read().decode()


def ps(column: str, pid: int) -> str:
    return subprocess.run(["ps", "-o", f"{column}=", "-p", f"{pid}"], capture_output=True, text=True).stdout


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    return ps("stat", pid).strip()[:1] not in ("", "Z")


def wait_until(condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if result := condition():
            return result
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout_s} s")
