"""Other forms of a document: a page, a trace. Checked before the first run, written when the work has ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine import page, trace
from engine.access_log import AccessLog
from engine.files import STDOUT, replace_file, writing
from engine.launch import APPS
from engine.page import Shown, Source
from engine.run import Run
from engine.words import Problem

AROUND = 2  # lines of source before and after a place
MOST_SOURCE_BYTES = 1_000_000  # of a file that is read for its lines

Make = Callable[[Mapping[str, Any], Sequence[Shown], bool, Sequence[str]], str]


class Views:
    """What --html and --trace write, of every run of a document."""

    def __init__(self, html: str | None, trace_path: str | None, other_paths: Sequence[str | None] = ()) -> None:
        """other_paths: what else is written. Raises Problem if a path cannot be written, before anything is run."""
        makers: list[tuple[str | None, Make]] = [(html, page.page), (trace_path, trace.trace)]
        # sweep.py goes to the folder of its file
        self.asked = [(path if path in STDOUT else os.path.abspath(path), make) for path, make in makers if path]
        self.kept: dict[int, Shown] = {}  # by the id of the run
        self.notes: list[str] = []  # what several runs show together
        paths = [*(path for path, _ in self.asked), *filter(None, other_paths)]
        if sum(path in STDOUT for path in paths) > 1:
            raise Problem("only one of --json, --html and --trace can be -: standard output takes one document")
        if len({*map(os.path.abspath, paths)}) < len(paths):
            raise Problem("--json, --html and --trace need a file each: two of them are the same")
        for path, _ in self.asked:
            check_writable(path)

    @property
    def are_asked(self) -> bool:
        return bool(self.asked)

    @property
    def runs(self) -> list[Run]:
        """The runs that were kept."""
        return [shown.run for shown in self.kept.values()]

    def keep(self, run: Run, log: AccessLog | None, name: str = "", is_part: bool = False) -> None:
        """A run with its access log, which its record does not have. name: to show; empty: its target and path."""
        if self.asked:
            self.kept[id(run)] = Shown(run, log, {}, name, is_part)

    def write(self, head: Mapping[str, Any], runs: Sequence[Run], is_complete: bool) -> None:
        """All of them, of the runs that have ended. Raises Problem."""
        kept = [self.kept.get(id(run), Shown(run)) for run in runs] if self.asked else []
        all_shown = [replace(shown, sources=sources_of(shown.run)) for shown in kept]
        for path, make in self.asked:
            text = make(head, all_shown, is_complete, self.notes)
            if path in STDOUT:
                with writing(path, sys.stdout):
                    print(text, flush=True)
            else:
                save(Path(path), text)


def save(path: Path, text: str) -> None:
    replace_file(path, lambda out: out.write(text))


def check_writable(path: str) -> None:
    """Raises Problem where a file cannot be written; leaves one that is there as it is."""
    if path in STDOUT:
        if not sys.stdout:
            raise Problem(f"cannot write {path}: standard output is closed")
        return
    place = Path(path)
    if place.exists() and not place.is_file():
        raise Problem(f"cannot write {path}: it is no file")
    part = place.with_name(f"{place.name}.{os.getpid()}.part")
    with writing(path):
        part.touch()
        part.unlink()


def sources_of(run: Run) -> dict[str, Source]:
    """The lines around each place where requests stood, from the files of the app."""
    found, launch = run.inside and run.inside.where, run.plan.launch
    if not found or not launch:
        return {}
    folder = Path(APPS if launch.is_target else Path.cwd()).resolve()
    places = {spot.line for spot in found.places if spot.line}
    return {place: lines for place in places if (lines := lines_around(folder, place))}


def lines_around(folder: Path, place: str) -> Source:
    """The numbered lines around "app/db.py:12"; empty where there is no such file in the folder."""
    name, _, number = place.rpartition(":")
    try:
        path = (folder / name).resolve()
        if not number.isdigit() or not path.is_relative_to(folder) or path.stat().st_size > MOST_SOURCE_BYTES:
            return []
        lines = path.read_text(errors="replace").splitlines()
    except (OSError, ValueError):
        return []
    first = max(0, int(number) - 1 - AROUND)
    return [(k + 1, lines[k]) for k in range(first, min(len(lines), int(number) + AROUND))]
