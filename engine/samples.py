"""Have the processes of a server sample where their requests stand, and read what they wrote.

engine/inside/wrap/_bench_sampler.py samples as long as the pipe is open here: however this process ends, it stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAST_WORD_S = 0.3  # for what a sampler says at the end


@dataclass(frozen=True)
class Samples:
    """The file that the samplers of one server write."""

    file: Path

    @property
    def pipe(self) -> Path:
        return self.file.with_name(f"{self.file.name}.pipe")

    @classmethod
    def prepared(cls, folder: Path) -> Samples | None:
        """In the folder of a run; None where the file system has no named pipes."""
        found = cls(folder / "samples.jsonl")
        try:
            os.mkfifo(found.pipe)
        except OSError:
            return None
        found.file.touch()
        return found

    @contextlib.contextmanager
    def into(self, lines: list[Mapping[str, Any]]) -> Iterator[None]:
        """Take samples until the block ends; then the list has all that was written meanwhile."""
        try:
            file, pipe = self.file.open("rb"), os.open(self.pipe, os.O_RDWR)  # which does not wait for a reader
        except OSError:  # the folder has been deleted
            yield
            return
        begins = file.seek(0, os.SEEK_END)
        try:
            yield
        finally:
            os.close(pipe)
        deadline_s = time.perf_counter() + LAST_WORD_S
        while not lines or (has_more(lines) and time.perf_counter() < deadline_s):
            time.sleep(0.01)
            file.seek(begins)
            lines[:] = written(file.read())
            if not lines:
                break
        file.close()


def written(text: bytes) -> list[Mapping[str, Any]]:
    """Samples, and a last word of each process. A line that is not complete is left out."""
    found = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def has_more(lines: list[Mapping[str, Any]]) -> bool:
    """Whether a process has not said its last word."""
    return len({one["pid"] for one in lines if "made" in one}) < len({one["pid"] for one in lines})
