"""The JSON schema of what bench.py --json writes, generated from the records of run.py.

python tests/schema.py > logs/example/schema.json
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from engine.loads import Burst, Closed, Load, Open, Ramp
from engine.machine import Machine
from engine.run import Run

PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null", object: None}
LOADS = (Burst, Closed, Open, Ramp)


def schema_of(kind: Any) -> dict[str, Any]:
    """The schema of one type. A number may be null, as inf and nan are in JSON."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [schema_of(part) for part in parts]}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": schema_of(parts[1])}
    if origin is tuple and parts[-1] is not Ellipsis:
        return {"type": "array", "prefixItems": [schema_of(part) for part in parts]}
    if origin in (list, tuple, Sequence):
        return {"type": "array", "items": schema_of(parts[0])}
    if kind is Any:
        return {}
    if kind is float:
        return {"type": ["number", "null"]}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [one.value for one in kind]}
    if kind is Load:
        return {"anyOf": [{"$ref": f"#/$defs/{one.__name__}"} for one in LOADS]}
    if dataclasses.is_dataclass(kind):
        return {"$ref": f"#/$defs/{kind.__name__}"}
    return {"type": PLAIN[kind]}


def definitions() -> dict[str, Any]:
    """Every record that a run is made of, by name."""
    found: dict[str, Any] = {}
    todo: list[Any] = [Run, Machine, *LOADS]
    while todo:
        record = todo.pop()
        if record.__name__ in found:
            continue
        hints = typing.get_type_hints(record)
        fields = [one for one in dataclasses.fields(record) if one.metadata.get("json", True)]
        properties = {one.name: schema_of(hints[one.name]) for one in fields}
        required = list(properties)
        if issubclass(record, Load) and record is not Load:
            properties["kind"] = {"const": record.kind}
        found[record.__name__] = {"type": "object", "properties": properties, "required": required}
        todo += [inner for one in fields for inner in records_in(hints[one.name])]
    return dict(sorted(found.items()))


def records_in(kind: Any) -> list[Any]:
    """The records that a type mentions."""
    if dataclasses.is_dataclass(kind):
        return [kind]
    return [inner for part in typing.get_args(kind) for inner in records_in(part)]


def schema() -> dict[str, Any]:
    properties = {
        "when": {"type": "string"},
        "command": {"type": "string"},
        "machine": schema_of(Machine),
        "versions": {"type": "object", "additionalProperties": {"type": "string"}},
        "complete": {"type": "boolean"},
        "runs": {"type": "array", "items": schema_of(Run)},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "what bench.py --json writes",
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "$defs": {name: one for name, one in definitions().items() if name != "Load"},
    }


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1))
