"""What the source of the app tells of an object that requests wait for: where it is made, and how far it is held.

Standard library only, for the process of the server. No code of the app is called.
"""

import ast
import functools
import linecache
import re
import sys
import time

from _bench_frames import is_apps
from _bench_pools import attribute, fields_of, slot_of

MOST_LOOKED_AT = 4000


def held_by(owner, modules, until_s):
    """[file, line] of the global of a module that is the object, or has it in the fewest attributes; None: not found,
    there are several, or the CPU time is over.

    The module that defines it, not one that imports it: the file must assign a call to that name.
    """
    if made := getattr(owner, "_bench_made", None):
        return made
    for attributes in range(MOST_ATTRIBUTES + 1):
        found = set()
        for module in modules:
            if time.thread_time() > until_s:
                return None
            found |= lines_with(module, owner, attributes, modules)
        if found:
            return min(found) if len(found) == 1 else None
    return None


def lines_with(module, owner, attributes, modules):
    """Where a module assigns a call to a global that has the object in so many attributes; or later to the first of
    these."""
    file, found = module.__file__, set()
    for name, value in list(vars(module).items()):
        if not keeps_all(value) and holds(value, owner, attributes) and (line := assigned_at(file, name)):
            later = filled_at(modules, name, value, owner, attributes) if attributes else set()
            found |= later if len(later) == 1 else {(file, line)}
    return found


def filled_at(modules, name, value, owner, attributes):
    """Where a call is assigned to the attribute of a global that has the object: by the global's name in a module, or
    by a method of its class but __init__(); empty: nowhere."""
    fields = [field for field, one in list(fields_of(value).items()) if holds(one, owner, attributes - 1)]
    files = [one.__file__ for one in modules if vars(one).get(name) is value]
    bodies = [(file, parsed(file), name) for file in files]
    bodies += [(file, body, "self") for file, body in classes_of(value)]
    return {(at, line) for at, body, of in bodies for field in fields for line in calls_assigned(body, f"{of}.{field}")}


def classes_of(value):
    """The classes of the app that an object is of, as (file, their source)."""
    for kind in type(value).__mro__:
        file = getattr(sys.modules.get(kind.__module__), "__file__", None) or "<"
        for node in ast.walk(parsed(file)) if is_apps(file) else ():
            if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
                yield file, node


def calls_assigned(node, name):
    """The lines below a node, without functions that make an object, that assign a call to a name."""
    below = [node]
    while below:
        one = below.pop()
        if assigns_call(one, name):
            yield one.lineno
        if getattr(one, "name", "") not in ("__init__", "__post_init__"):
            below += ast.iter_child_nodes(one)


def keeps_all(value):
    """Whether it is the app of a framework, in which anything may be kept that was made elsewhere."""
    kinds = {kind.__module__.partition(".")[0] for kind in type(value).__mro__}
    return not kinds.isdisjoint({"fastapi", "starlette", "flask", "django", "quart"})


MOST_MADE_S = 0.1  # of CPU time
MOST_ATTRIBUTES = 3


def made(owners):
    """Where the objects were made that requests have waited for: [file, line] by id."""
    modules = [one for one in list(sys.modules.values()) if is_apps(getattr(one, "__file__", None) or "<")]
    found, until_s = {}, time.thread_time() + MOST_MADE_S
    for key, owner in owners.items():
        if owner is not None and time.thread_time() < until_s and (at := held_by(owner, modules, until_s)):
            found[key] = at
    return found


def holds(value, owner, attributes):
    """Whether an object is the owner (0), or has it in so many attributes of attributes."""
    level, seen = [value], 0
    for further in range(attributes + 1):
        if further == attributes:
            return any(one is owner for one in level)
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
    lines = [one.lineno for one in at_module_level(parsed(file), name) if assigns_call(one, name)]
    return lines[-1] if lines else None


def assigns_call(node, name):
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return isinstance(getattr(node, "value", None), ast.Call) and name in map(name_of, targets)


def at_module_level(node, name):
    """All that is below a node, without functions, but for those that say the name is a global's, and classes."""
    for one in ast.iter_child_nodes(node):
        is_function = isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef))
        has_own_names = isinstance(one, (ast.ClassDef, ast.Lambda)) or (is_function and not says_global(one, name))
        if not has_own_names:
            yield one
            yield from at_module_level(one, name)


def says_global(function, name):
    return any(isinstance(one, ast.Global) and name in one.names for one in ast.walk(function))


def held_to(resource, frame, after):
    """The last line of what a function of the app does while it has a lock, semaphore or item of a queue that it takes
    where its frame stands; None: not known, as for a semaphore that is not a global, of which there may be many.

    after: the frame inside of it, if any.
    """
    if not HELD.match(resource.name):
        return None
    name, last = held_lines(frame.f_code.co_filename, frame.f_lineno)
    if resource.owner is None:  # one that is not known by its name is had as long
        return last
    is_told = not resource.name.startswith("a semaphore")
    if not name:  # which lock a with statement enters, the lock itself says
        return last if is_told and after and after.f_locals.get("self") is resource.owner else None
    first, *names = name.split(".")
    here = frame.f_locals
    is_global = not names and name not in here
    value = attribute((here if first in here else frame.f_globals).get(first), *names)
    return last if (is_told or is_global) and value is resource.owner else None


HELD = re.compile(r"a lock|a semaphore|an? \w*Queue$")


@functools.lru_cache(200)
def held_lines(file, line):
    """The name of what is taken at a line, and the end of the with statement that begins there, or where that which
    acquire() or get() takes is given back next; else None, None."""
    found, function = (None, None), None
    for node in ast.walk(parsed(file)):  # outermost first
        if not getattr(node, "lineno", line + 1) <= line <= (getattr(node, "end_lineno", None) or line):
            continue
        if isinstance(node, (ast.With, ast.AsyncWith)) and begins_at(node, line):
            taken = next((one.context_expr for one in node.items if one.context_expr.end_lineno >= line), None)
            return name_of(taken), node.end_lineno
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            function = node
        elif function and (name := called_on(node, "acquire")):
            found = name, given_back_at(function, name, line, "release")
        elif function and (name := called_on(node, "get")):
            found = name, given_back_at(function, name, line, "put", "put_nowait")
    return found


def entered_to(frame, after):
    """The end of the with statement that a frame enters, as the frame after it says; None: it does not."""
    enters = after and after.f_code.co_name in ("__enter__", "__aenter__")
    return with_to(frame.f_code.co_filename, frame.f_lineno) if enters else None


@functools.lru_cache(200)
def with_to(file, line):
    for node in ast.walk(parsed(file)):
        if isinstance(node, (ast.With, ast.AsyncWith)) and begins_at(node, line):
            return node.end_lineno
    return None


def begins_at(node, line):
    return node.lineno <= line <= node.items[-1].context_expr.end_lineno


BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try)


def given_back_at(function, name, line, *methods):
    """The line of the next call of such a method; None: there is none, or not in the branch or loop in which it is
    taken, so that not all requests have it that come by there."""
    branches = [one for one in ast.walk(function) if isinstance(one, BRANCHES) and not is_passed_by_all(one, line)]
    calls = [one for one in ast.walk(function) if any(called_on(one, method) == name for method in methods)]
    found = [one.lineno for one in calls if one.lineno > line]
    # A release in a branch that begins later gives it back for the requests only that come by there.
    lines = [at for at in found if branches_at(at, branches) <= branches_at(line, branches)]
    ends = [one.end_lineno for one in branches if one.body[0].lineno <= line <= one.end_lineno]
    return min(lines) if lines and min(lines) <= min(ends, default=min(lines)) else None


def is_passed_by_all(branch, line):
    """Whether only those go on that have taken it: in an `if` that takes it, or behind handlers that all leave."""
    if isinstance(branch, ast.If):
        return branch.test.lineno <= line <= branch.test.end_lineno
    handlers = getattr(branch, "handlers", ())
    return bool(handlers) and all(isinstance(one.body[-1], (ast.Raise, ast.Return)) for one in handlers)


def branches_at(line, branches):
    """The branches and loops that a line is in; what `finally` has is always run."""
    ends = {one: getattr(one, "finalbody", [])[:1] for one in branches}
    return {
        one
        for one, after in ends.items()
        if one.body[0].lineno <= line <= (after[0].lineno - 1 if after else one.end_lineno)
    }


def called_on(node, method):
    """The name of the object whose method a node calls; None: it does not, or what has no name."""
    is_call = isinstance(node, ast.Call) and getattr(node.func, "attr", "") == method
    return name_of(node.func.value) if is_call else None


def name_of(node):
    """The name, or the attributes of a name, that an expression is; None: something else."""
    if isinstance(node, ast.Attribute):
        of = name_of(node.value)
        return of and f"{of}.{node.attr}"
    return getattr(node, "id", None)


TIME_LIMITS = ("timeout", "timeout_at", "move_on_after", "move_on_at", "fail_after", "fail_at")  # asyncio, AnyIO


@functools.lru_cache(200)
def is_timed(file, line):
    """Whether a line is in a with statement that ends it after some time."""
    around = [
        one
        for one in ast.walk(parsed(file))
        if isinstance(one, (ast.With, ast.AsyncWith)) and one.lineno <= line <= one.end_lineno
    ]
    calls = [getattr(item.context_expr, "func", None) for one in around for item in one.items]
    return any(getattr(one, "attr", getattr(one, "id", "")) in TIME_LIMITS for one in calls)


@functools.lru_cache(50)
def parsed(file):
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return ast.parse("")
