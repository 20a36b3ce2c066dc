"""The same examples in every run: a test that fails by chance is not believed. FUZZ_EXAMPLES=N looks further.

Every document and every report of a run that a test makes in its own process is checked: numbers are finite, times and
rates are not below 0, shares are not above 1.
"""

import math
import os
import re
import sys

import pytest
from hypothesis import settings

from engine.files import Document, Printer

# Some hundred Pythons are started: each would compile all of it again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ["PYTHONFAULTHANDLER"] = "1"  # a server that crashes says where, in its log
os.environ["BENCH_DEALS"] = ""  # nothing is measured besides what a test asks for; test_deals.py asks
settings.register_profile("steady", derandomize="FUZZ_EXAMPLES" not in os.environ)
settings.load_profile("steady")

collect_ignore = ["services"]  # apps, which only their servers import
LONGEST = ["test_services.py", "test_cases.py", "test_faults.py", "test_bench.py", "test_hostile.py"]


def pytest_collection_modifyitems(items):
    """The files that take longest first, so that no process is left with one of them at the end."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True)
def samplers_do_not_fail(request):
    """A sampler keeps quiet about its own errors in a server that is not its own, but not here."""
    yield
    folder = request.node.funcargs.get("tmp_path")
    for file in folder.rglob("samples.jsonl") if folder else ():
        assert not FAULT.search(file.read_text()), file


FAULT = re.compile(r'"error": "(Type|Attribute|Name|Key|Value|Index)Error.*')
SHARES = {"busy", "share", "cost"}
RUN = re.compile(r"^(verdict|expected|where|limit) ", re.MULTILINE)  # a report of one
IMPOSSIBLE = re.compile(r"\b(nan|inf|None)\b|[ (]-\d[\d.]* m?s\b|\b[1-9]\d{3,} % (?:of|busy)")


def impossible(value, name=""):
    """The names of values in a document that cannot be."""
    if isinstance(value, dict):
        return [found for key, inner in value.items() for found in impossible(inner, key)]
    if isinstance(value, list):
        return [found for inner in value for found in impossible(inner, name)]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return []
    is_below = value < 0 and name.endswith(("_s", "_rps"))
    is_wrong = not math.isfinite(value) or is_below or (name in SHARES and not 0 <= value <= 1)
    return [f"{name} = {value}"] * is_wrong


def checked(as_json, show):
    def checked_json(self, runs):
        document = as_json(self, runs)
        assert impossible(document) == []
        return document

    def checked_show(self, text=""):
        found = IMPOSSIBLE.search(text) if RUN.search(text) else None
        assert not found, text[max(0, found.start() - 60) : found.end() + 20]
        show(self, text)

    return checked_json, checked_show


Document.as_json, Printer.show = checked(Document.as_json, Printer.show)
