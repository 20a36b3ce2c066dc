"""Records as JSON has them."""

from __future__ import annotations

import dataclasses
import math
from array import array
from collections.abc import Mapping
from enum import Enum
from typing import Any

from engine.loads import Load


def to_json(value: Any) -> Any:
    """A record as JSON has it: fields by name, enums by value, times to a microsecond, null for inf, nan and None.

    A load is its fields and its `kind`. Fields marked json=False (bodies, schedules) are left out.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown = [one for one in dataclasses.fields(value) if one.metadata.get("json", True)]
        kind = {"kind": value.kind} if isinstance(value, Load) else {}
        return kind | {one.name: to_json(getattr(value, one.name)) for one in shown}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float):
        return round(value, 9) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): to_json(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, array, frozenset, set)):
        return [to_json(inner) for inner in value]
    return value
