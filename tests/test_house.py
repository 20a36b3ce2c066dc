"""The plan of the house: what imports what, how large a module and a function may be, and which names there are."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from commands import ROOT
from radon.complexity import cc_visit

OF_EVERY_SUITE = {"tables", "headline", "row"}
INSIDE = ROOT / "engine/inside"  # stands alone: it runs in the server's own process
ROOMS = [ROOT / "bench.py", ROOT / "sweep.py", *(ROOT / "engine").rglob("*.py"), *(ROOT / "suites").glob("*.py")]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imported_by(path: Path) -> frozenset[str]:
    """The modules that a file imports anywhere in it, as engine.model or json."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            name = node.module or ""
            found |= {f"{name}.{alias.name}" for alias in node.names} if name in ("engine", "suites") else {name}
    return frozenset(found)


def test_imports_run_downwards():
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOMS}
    used = {name: imported_by(path) & {*names.values()} for path, name in names.items()}
    [*TopologicalSorter(used).static_order()]  # raises CycleError
    order = {"engine": 0, "bench": 1, "suites": 2, "sweep": 3}
    for name, below in used.items():
        assert all(order[one.partition(".")[0]] <= order[name.partition(".")[0]] for one in below), name


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_is_small_and_needs_only_python(path):
    assert len(path.read_text().splitlines()) <= 450
    assert [f"{one.name} {one.complexity}" for one in cc_visit(path.read_text()) if one.complexity > 15] == []
    if INSIDE not in path.parents and path.stem != "locustfile":
        others = {name.partition(".")[0] for name in imported_by(path)} - set(sys.stdlib_module_names)
        assert others <= {"bench", "engine", "suites"}


def test_few_functions_have_many_branches():
    blocks = [block for path in ROOMS for block in cc_visit(path.read_text()) if not hasattr(block, "methods")]
    assert sum(block.complexity > 10 for block in blocks) <= len(blocks) / 18  # the aim is 2 in 100


def test_a_public_name_is_defined_in_one_module():
    """But for what every suite has, since sweep.py asks for it by that name."""
    places = Counter[str]()
    for path in [*(ROOT / "engine").glob("*.py"), *(ROOT / "suites").glob("*.py")]:
        names = {node.name for node in tree(path).body if hasattr(node, "name") and not node.name.startswith("_")}
        places.update(names - OF_EVERY_SUITE)
    assert [name for name, count in places.items() if count > 1] == []


def test_the_model_can_neither_read_a_clock_nor_open_anything():
    allowed = {"__future__", "heapq", "itertools", "math", "random", "collections.abc", "dataclasses", "typing"}
    assert imported_by(ROOT / "engine/model.py") <= allowed | {"engine.words"}
