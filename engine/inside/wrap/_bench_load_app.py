"""Find an app by its name, as servers do: module:attribute, dotted, or called with literal arguments.

For example main:app, shop.web:site.app, main:create_app(), main:create_app("production", debug=True).
"""

import importlib
from typing import Any


def load_app(name: str) -> Any:
    """The app that `name` names. Raises what the import, a missing attribute, or the call raises."""
    module, _, expression = name.partition(":")
    return eval(f"module.{expression}", {"module": importlib.import_module(module)})
