"""Find an app by its name, as servers do: module:attribute, dotted, or called with literal arguments.

For example main:app, shop.web:site.app, main:create_app(), main:create_app("production", debug=True).
"""

import ast
import functools
import importlib
from typing import Any


def load_app(name: str) -> Any:
    """The app that `name` names. Raises what the import, a missing attribute, or the call raises."""
    module, _, expression = name.partition(":")
    node, arguments, keywords = ast.parse(expression or "app", mode="eval").body, None, {}
    if isinstance(node, ast.Call):
        arguments = [ast.literal_eval(argument) for argument in node.args]
        keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
        node = node.func
    app = functools.reduce(getattr, ast.unparse(node).split("."), importlib.import_module(module))
    return app if arguments is None else app(*arguments, **keywords)
