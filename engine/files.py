"""Where results go: the folder of a run, the JSON document, the terminal.

A document is replaced as a whole after each run, so that no end of the program loses one. A pipe and standard output
get the document once, when everything has ended. Problems are found before the first request where that is possible.
"""

import contextlib
import json
import os
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

from engine.json_form import to_json
from engine.machine import about_machine
from engine.run import Run
from engine.tables import in_colour
from engine.words import Problem

LOGS = Path(__file__).resolve().parent.parent / "logs"
NO_MANUAL = "The manual is left out by python -OO; run it without."
STDOUT = ("-", "/dev/stdout")


def shown(path: Path) -> str:
    """A path as you would type it."""
    with contextlib.suppress(ValueError, OSError):  # the working directory may be gone by now
        return str(path.resolve().relative_to(Path.cwd()))
    return str(path)


def run_folder(logs: Path, name: str) -> Path:
    """Create logs/<time>-<name>/, never one that is there already. Raises Problem where it cannot be written."""
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-" + re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:80]
    number = 1
    while True:
        try:
            folder = logs.absolute() / (f"{stem}-{number}" if number > 1 else stem)
            folder.mkdir(parents=True)
            return folder
        except OSError as error:
            if not (isinstance(error, FileExistsError) and logs.is_dir()):
                raise Problem(f"cannot write logs to {logs}: {error.strerror}") from None
            number += 1


RUN_FOLDER = re.compile(r"(\d{8}-\d{6})-.+")
KEPT_DAYS = 7


def clean_logs(logs: Path) -> int:
    """Remove the folders of runs that are older than a week, by the time in their names; how many these were. Nothing
    else is touched. Raises Problem."""
    if logs.resolve().is_relative_to(LOGS / "example"):
        raise Problem(f"{shown(logs)} is kept: its runs are examples")
    before, removed = datetime.now() - timedelta(days=KEPT_DAYS), 0
    try:
        for folder in sorted(logs.iterdir()) if logs.is_dir() else []:
            if was_run_before(before, folder.name) and folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder)
                removed += 1
    except OSError as error:
        raise Problem(f"cannot remove {error.filename}: {error.strerror}") from None
    return removed


def was_run_before(moment: datetime, name: str) -> bool:
    """Whether a name is that of a run's folder, made before this moment."""
    match = RUN_FOLDER.fullmatch(name)
    with contextlib.suppress(ValueError):  # digits that are no time
        return match is not None and datetime.strptime(match[1], "%Y%m%d-%H%M%S") < moment
    return False


def write_json(path: Path, document: Any) -> None:
    """Replace the file in one step: a program that is killed in between leaves the one before it. Raises Problem."""
    replace_file(path, lambda out: json.dump(document, out))


def replace_file(path: Path, write: Callable[[TextIO], object]) -> None:
    """Replace a file of UTF-8 in one step by what `write` writes and a newline. Raises Problem."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with writing(str(path)):
        try:
            with part.open("w", encoding="utf-8", errors="backslashreplace") as out:
                write(out)
                out.write("\n")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def heading(command: str, versions: dict[str, str]) -> dict[str, Any]:
    """What every document begins with."""
    return {
        "when": datetime.now().isoformat(" ", "seconds"),
        "command": command,
        "machine": asdict(about_machine()),
        "versions": {"Python": platform.python_version()} | versions,
    }


class Document:
    """What --json writes: machine, versions, and every run. complete is false until all that was asked for has run."""

    def __init__(self, command: Sequence[str], versions: dict[str, str], path: str | None) -> None:
        """Raises Problem if the path cannot be written, before anything is run."""
        self.runs: list[Run] = []
        self.is_complete = False
        self.head = heading(shlex.join(command), versions)
        self.path = path
        self.stream = sys.stdout if path in STDOUT else None
        if path in STDOUT and not self.stream:
            raise Problem(f"cannot write {path}: standard output is closed")
        is_pipe = path and (path.startswith("/dev/") or (Path(path).exists() and not Path(path).is_file()))
        if path and is_pipe and not self.stream:
            with writing(path):
                self.stream = os.fdopen(os.open(path, os.O_WRONLY | os.O_NONBLOCK), "w")
                os.set_blocking(self.stream.fileno(), True)
        self.write()

    def as_json(self, runs: Sequence[Run]) -> dict[str, Any]:
        return self.head | {"complete": self.is_complete, "runs": [to_json(run) for run in runs]}

    def save(self) -> None:
        """Write it in the middle of the work: what cannot be written then must not cost a run."""
        try:
            self.write()
        except Problem as problem:
            say(f"bench.py: {problem}")

    def write(self, is_last: bool = False) -> None:
        """Raises Problem; the file that was there before is then still there."""
        if self.path and not self.stream:
            write_json(Path(self.path), self.as_json(self.runs))
        elif self.path and is_last:
            with writing(self.path, self.stream):
                print(json.dumps(self.as_json(self.runs)), file=self.stream, flush=True)


@contextlib.contextmanager
def writing(what: str, stream: TextIO | None = None) -> Iterator[None]:
    """A Problem where writing fails, but not for a pipe whose reader has seen enough."""
    try:
        yield
    except OSError as error:
        if stream:
            with contextlib.suppress(AttributeError, OSError, ValueError):  # the last flush must not fail, too
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not isinstance(error, BrokenPipeError):
            raise Problem(f"cannot write {what}: {error.strerror}") from None


class Printer:
    """Prints a report: in colour on a terminal, on stderr where stdout takes JSON."""

    def __init__(self, json_path: str | None = None) -> None:
        self.out: TextIO | None = sys.stderr if json_path in STDOUT else sys.stdout
        if self.out and hasattr(self.out, "reconfigure"):
            self.out.reconfigure(errors="backslashreplace")
        self.is_terminal = bool(self.out and self.out.isatty())
        self.has_colour = self.is_terminal and "NO_COLOR" not in os.environ

    def show(self, text: str = "") -> None:
        """Raises Problem if the output is full, or closed before the first line."""
        with writing("the report", self.out):
            if self.out:  # `python >&-` has none
                print(in_colour(text) if self.has_colour else text, file=self.out, flush=True)


def check_folder() -> None:
    """Raises Problem where the working directory is gone: nothing could be started in it."""
    try:
        os.getcwd()
    except OSError:
        raise Problem("the working directory is gone; change to another one") from None


def tell(text: str) -> None:
    """On standard output, as --help and --list."""
    Printer().show(text)


def say(text: str) -> None:
    """A line on stderr; the report is elsewhere."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)
