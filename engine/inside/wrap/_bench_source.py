"""What the source of the app tells of an object that requests wait for: where it is made, and how far it is held.

Standard library only, for the process of the server. No code of the app is called.
"""

import ast
import functools
import linecache
import sys

from _bench_resources import fields_of, slot_of

MOST_LOOKED_AT = 4000


def held_by(owner, modules):
    """[file, name] of a module and its global that is the object, or has it in reach; None: not found.

    The module that defines it, not one that imports it: the file must assign a call to that name.
    """
    if made := getattr(owner, "_bench_made", None):
        return made
    for module in modules:
        for name, value in list(vars(module).items()):
            if holds(value, owner) and (line := assigned_at(module.__file__, name)):
                return [module.__file__, line]
    return None


def holds(value, owner):
    """Whether an object is the owner, or has it within three attributes."""
    level, seen = [value], 0
    for _ in range(4):
        if any(one is owner for one in level):
            return True
        seen += len(level)
        if seen > MOST_LOOKED_AT:
            return False
        level = [inner for one in level for inner in inner_of(one)]
    return False


def inner_of(value):
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, (type, type(sys), str, int, float, bytes)):
        return []
    slots = [name for kind in type(value).__mro__ for name in vars(kind).get("__slots__", ()) if type(name) is str]
    return [*fields_of(value).values(), *(slot_of(value, name) for name in slots)]


def assigned_at(file, name):
    """The line of the module's last assignment of a call to a global of this name; None: no such line."""
    line = None
    for node in ast.walk(parsed(file)):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(getattr(node, "value", None), ast.Call) and name in [getattr(one, "id", "") for one in targets]:
            line = node.lineno
    return line


def held_to(resource, file, line):
    """The last line of what a function of the app does while it has a semaphore that it takes at a line."""
    return last_held_line(file, line) if resource.name.startswith("a semaphore") else None


@functools.lru_cache(200)
def last_held_line(file, line):
    """The end of the with statement that begins there, or the next release() of what acquire() takes; else None."""
    held = None
    for node in ast.walk(parsed(file)):  # outermost first
        if not getattr(node, "lineno", line + 1) <= line <= (getattr(node, "end_lineno", None) or line):
            continue
        if isinstance(node, (ast.With, ast.AsyncWith)) and line <= node.items[-1].context_expr.end_lineno:
            return node.end_lineno
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            function = node
        elif name := called_on(node, "acquire"):
            given_back = (one.lineno for one in ast.walk(function) if called_on(one, "release") == name)
            held = min((one for one in given_back if one > line), default=None)
    return held


def called_on(node, method):
    """The text of the object whose method a node calls; None: it does not."""
    is_call = isinstance(node, ast.Call) and getattr(node.func, "attr", "") == method
    return ast.dump(node.func.value) if is_call else None


@functools.lru_cache(50)
def parsed(file):
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return ast.parse("")
