"""What the tests of the command line share: bench.py here and as a process of its own, and its options."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema

import bench
from engine import options
from tests.schema import schema

ROOT = Path(bench.__file__).parent
BENCH = [sys.executable, str(ROOT / "bench.py")]
FITTING = [
    "1", "3", "0.2", "50ms:exp", "0.1s:2", "0,1", "/io", "/v1/sleep?ms=5", "X: y", "GET", "p99>0.1", "flask-gunicorn",
    "fastapi-books", "all", "main:app", "http://127.0.0.1:9/", "-k gthread", "postgres://x", "out.json", "logs",
]  # fmt: skip


def actions() -> dict[str, argparse.Action]:
    """Every option of bench.py, by its long name with underscores."""
    return {one.option_strings[-1].lstrip("-").replace("-", "_"): one for one in options.parser_for("")._actions}


def fits(action: argparse.Action, text: str) -> bool:
    try:
        action.type(text) if callable(action.type) else text
    except Exception:
        return False
    return not action.choices or text in action.choices


def run_bench(folder: Path, *arguments: str) -> tuple[int, Any]:
    """bench.main in this process, its logs and JSON in the folder; the exit code and the document."""
    code = bench.main([*arguments, "--logs", str(folder / "logs"), "--json", str(folder / "out.json")])
    document = json.loads((folder / "out.json").read_text())
    jsonschema.validate(document, schema())
    return code, document


def command(*words: str, **how: Any) -> subprocess.CompletedProcess[str]:
    """A process of its own, as [*BENCH, "--list"], with an end to its time."""
    return subprocess.run(words, **{"capture_output": True, "text": True, "timeout": 120} | how)
