"""What the source of the app tells of an object that requests wait for: where it is made, and how far it is held.

Standard library only, for the process of the server. No code of the app is called.
"""

import ast
import functools
import linecache
import sys

from _bench_pools import fields_of, slot_of

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


def held_to(resource, frame):
    """The last line of what a function of the app does while it has a semaphore that it takes where its frame stands;
    None: not known, as for one that is not a global, of which there may be many."""
    if not resource.name.startswith("a semaphore"):
        return None
    name, last = held_lines(frame.f_code.co_filename, frame.f_lineno)
    is_global = name in frame.f_globals and name not in frame.f_locals
    return last if is_global and frame.f_globals[name] is resource.owner else None


@functools.lru_cache(200)
def held_lines(file, line):
    """The name of what is taken at a line, and the end of the with statement that begins there, or the next release()
    of what acquire() takes; else None, None."""
    found, function = (None, None), None
    for node in ast.walk(parsed(file)):  # outermost first
        if not getattr(node, "lineno", line + 1) <= line <= (getattr(node, "end_lineno", None) or line):
            continue
        if isinstance(node, (ast.With, ast.AsyncWith)) and line <= node.items[-1].context_expr.end_lineno:
            taken = next((one.context_expr for one in node.items if one.context_expr.end_lineno >= line), None)
            return getattr(taken, "id", None), node.end_lineno
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            function = node
        elif function and (name := called_on(node, "acquire")):
            found = name, given_back_at(function, name, line)
    return found


BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try)


def given_back_at(function, name, line):
    """The line of the next release(); None: there is none, or it is not in the branch or loop in which it is taken, so
    that not all requests have it that come by there."""
    lines = [one.lineno for one in ast.walk(function) if called_on(one, "release") == name and one.lineno > line]
    branches = [one for one in ast.walk(function) if isinstance(one, BRANCHES) and one.body[0].lineno <= line]
    ends = [one.end_lineno for one in branches if line <= one.end_lineno]
    return min(lines) if lines and min(lines) <= min(ends, default=min(lines)) else None


def called_on(node, method):
    """The name of the object whose method a node calls; None: it does not, or what has no name."""
    is_call = isinstance(node, ast.Call) and getattr(node.func, "attr", "") == method
    return getattr(node.func.value, "id", None) if is_call else None


@functools.lru_cache(50)
def parsed(file):
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return ast.parse("")
