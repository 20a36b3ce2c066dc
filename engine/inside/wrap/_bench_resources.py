"""What a request waits for, read from where it stands: the frames of its thread, task or greenlet, and live objects.

Standard library only, for the process of the server. No code of the app or of a library is called: attributes are
read. A row of KNOWN is a file and a function in which requests wait until others give something back, as the packages
had them in autumn 2026.
"""

import _thread
import contextlib
import dis
import functools
import io
import os
import re
import sys
import time
from collections import namedtuple

from _bench_frames import is_app, remembered
from _bench_pools import (
    Resource,
    aiohttp_connector,
    asyncpg_pool,
    attribute,
    httpcore_pool,
    length,
    less,
    log_handler,
    psycopg_pool,
    pymongo_pool,
    redis_pool,
    sqlalchemy_pool,
    urllib3_pool,
)  # fmt: skip

LOCK = Resource("a lock or the like", None)  # of which no more is known
LOCKS = (_thread.LockType, _thread.RLock)


# ---------------------------------------------------------------- primitives


def capacity_limiter(limiter):
    size, used = attribute(limiter, "_total_tokens"), length(limiter, "_borrowers")
    if limiter is default_limiter:
        return Resource("AnyIO's threads", limiter, size, used, "total_tokens of the default limiter")
    return Resource("a CapacityLimiter", limiter, size, used, "total_tokens")


default_limiter = None  # AnyIO's: set by the wrapper


def lock_or_semaphore(found):
    name = f"{type(found).__module__.partition('.')[0].strip('_')}.{type(found).__name__}"
    if "Semaphore" not in name:
        return Resource(f"a lock ({name})", found, 1, 1)
    sizes = (attribute(found, name) for name in ("_bench_size", "_initial_value", "_bound_value", "_max_value"))
    size = next((one for one in sizes if one is not None), None)
    most = attribute(found, "_bench_most")  # it had so many free once
    setting = f"made with {size}, then enlarged" if most else ""
    # Of one that begins with none it is not known how many there are, unless no request gives any.
    size = most or (0 if attribute(found, "_bench_is_returned") is False else size or None)
    free = next((one for one in (attribute(found, "_value"), attribute(found, "counter")) if one is not None), None)
    return Resource(f"a semaphore ({name})", found, size, less(size, free), setting)


def lock_of_condition(found):
    return Resource("the lock of a Condition", attribute(found, "_lock"), 1, 1)


def lock_of_processes(found):
    """A lock or semaphore of multiprocessing. Only a bounded semaphore knows its size."""
    name = type(found).__name__
    size = attribute(found, "_semlock", "maxvalue") if name == "BoundedSemaphore" else 1
    kind = "semaphore" if "Semaphore" in name else "lock"
    return Resource(f"a {kind} of several processes", found, None if name == "Semaphore" else size)


def shared(found):
    return Resource(
        f"{'an' if type(found).__name__[0] in 'AEIO' else 'a'} {type(found).__name__}", found, is_shared=True
    )


def executor(found):
    """Without its use: what it counts are its idle threads, and it counts some of them twice."""
    name = type(found).__name__
    setting = "processes" if type(attribute(found, "_processes")) is int else "max_workers"
    size, kind = attribute(found, f"_{setting}"), "process" if "Process" in name else "thread"
    return Resource(f"a {kind} of a {name}", found, size, None, setting)


def has_turn(future, found):
    """Whether an executor works on what was sent to it; one of processes says so of some that only come next, too."""
    work = getattr(found, "_pending_work_items", None)
    if not future.running() or work is None:
        return future.running()
    running = [one.future for _, one in sorted(work.copy().items()) if one.future.running()]
    return future in running[: found._max_workers]


KNOWN = {  # (end of the file's path, function) -> what tells the resource of `self`, of a frame so much further out
    ("sqlalchemy/pool/impl.py", "_do_get"): (sqlalchemy_pool, 0),
    ("psycopg_pool/pool.py", "getconn"): (psycopg_pool, 0),
    ("psycopg_pool/pool_async.py", "getconn"): (psycopg_pool, 0),
    ("asyncpg/pool.py", "_acquire"): (asyncpg_pool, 0),
    ("httpcore/_sync/connection_pool.py", "wait_for_connection"): (httpcore_pool, 1),
    ("httpcore/_async/connection_pool.py", "wait_for_connection"): (httpcore_pool, 1),
    ("aiohttp/connector.py", "_wait_for_available_connection"): (aiohttp_connector, 0),
    ("urllib3/connectionpool.py", "_get_conn"): (urllib3_pool, 0),
    ("redis/connection.py", "get_connection"): (redis_pool, 0),
    ("redis/asyncio/connection.py", "get_connection"): (redis_pool, 0),
    ("pymongo/synchronous/pool.py", "_get_conn"): (pymongo_pool, 0),
    ("pymongo/asynchronous/pool.py", "_get_conn"): (pymongo_pool, 0),
    ("anyio/_backends/_asyncio.py", "acquire_on_behalf_of"): (capacity_limiter, 0),
    ("logging/__init__.py", "acquire"): (log_handler, 0),
    ("logging/__init__.py", "handle"): (log_handler, 0),
}
PRIMITIVES = {
    ("/threading.py", "wait"): shared,  # of an Event, a Condition or a Barrier
    ("/threading.py", "wait_for"): shared,
    ("/threading.py", "_wait"): shared,  # of a Barrier
    ("/threading.py", "acquire"): lock_or_semaphore,
    ("/threading.py", "__enter__"): lock_of_condition,
    ("gevent/thread.py", "acquire"): lock_or_semaphore,
    ("multiprocessing/synchronize.py", "__enter__"): lock_of_processes,
    ("/queue.py", "get"): shared,
    ("/queue.py", "put"): shared,
    ("asyncio/locks.py", "acquire"): lock_or_semaphore,
    ("asyncio/locks.py", "wait"): shared,
    ("asyncio/locks.py", "wait_for"): shared,
    ("asyncio/locks.py", "_wait"): shared,
    ("asyncio/queues.py", "get"): shared,
    ("asyncio/queues.py", "put"): shared,
    ("anyio/_backends/_asyncio.py", "acquire"): lock_or_semaphore,
    ("anyio/_backends/_asyncio.py", "wait"): shared,
    ("anyio/_core/_synchronization.py", "acquire"): lock_or_semaphore,
    ("anyio/_core/_synchronization.py", "wait"): shared,
}
FURTHER_OUT = 12  # frames


def row_of(code, table):
    """What a table says of a place in the code of a library; None: it has no such place."""
    if is_app(code):
        return None
    for (file, function), found in table.items():
        if code.co_name == function and code.co_filename.endswith(file):
            return found
    return None


@remembered
def rows_of(codes):
    """Of frames by their code, innermost first: (what tells of a primitive, in which frame, how many frames are in
    primitives), and (what tells of a known place, in which frame)."""
    primitive, depth = (None, 0), 0
    for depth, code in enumerate(codes):
        if not (tells := row_of(code, PRIMITIVES)):
            break
        primitive = tells, depth
    for i, code in enumerate(codes[:FURTHER_OUT]):
        tells, out = row_of(code, KNOWN) or (None, 0)
        if tells and i + out < len(codes):
            return *primitive, tells, i, i + out
    return *primitive, None, 0, 0


def resource_of(frames, is_thread):
    """What a request waits for that other requests hold; None: no such thing, as far as is known.

    frames: innermost first, up to the app's innermost, or all where there is none. is_thread: a wait in C, as for a
    lock, has no frame of its own there.
    """
    tells, at, known, known_at, owner_at = rows_of(tuple([frame.f_code for frame in frames]))
    found = wait_in_c(frames[0]) if is_thread and not tells and not joins(frames[0].f_code) else None
    if known and (tells or found or (known_at == 0 and not is_thread)):
        return told_once(known, frames[owner_at].f_locals.get("self"))
    return primitive(tells, frames, at) if tells else found


def primitive(tells, frames, at):
    """What is waited for in such a frame; None: it is a way to sleep."""
    here = frames[at].f_locals
    is_timed = here.get("timeout") is not None or waits_for_a_time(frames, at)
    # An Event that is waited for no longer than some time is often a way to sleep.
    if is_timed and type(here.get("self")).__name__ == "Event":
        return None
    found = told_once(tells, here.get("self"))
    return found._replace(setting=TIMED) if is_timed and not found.setting else found


TIMED = "with a time limit"


def waits_for_a_time(frames, at):
    """Whether asyncio waits there for a primitive no longer than some time."""
    outer = [frame.f_code for frame in frames[at + 1 : at + 3]]
    return any(code.co_name == "wait_for" and code.co_filename.endswith("asyncio/tasks.py") for code in outer)


def joins(code):
    """Whether it waits for the end of a thread, for which Python has a lock: no other request holds that."""
    return code.co_name in ("_wait_for_tstate_lock", "join") and code.co_filename.endswith("/threading.py")


seen = {}  # what was read of an object in this sample


def told_once(tells, owner):
    """What an object says of itself, read once in a sample."""
    key = tells, id(owner)
    if key not in seen:
        seen[key] = tells(owner)
    return seen[key]


# ---------------------------------------------------------------- a lock is taken in C: which, the instructions say

PASSED_OVER = ("CACHE", "PUSH_NULL", "PRECALL", "NOP", "EXTENDED_ARG", "COPY", "KW_NAMES", "LOAD_SPECIAL",
               "SWAP", "ROT_TWO", "GEN_START")  # fmt: skip


@functools.lru_cache(2000)
def instructions_to(code, last):
    """The instructions of a statement up to the offset `last`, in order."""
    found = []
    for one in dis.get_instructions(code):
        if one.offset > last:
            break
        if one.opname.startswith(ENDS):
            found.clear()
            if one.opname == "STORE_FAST_LOAD_FAST":  # of Python 3.13: a statement may begin with its second half
                found.append(one._replace(opname="LOAD_FAST", argval=one.argval[1]))
        elif one.opname not in PASSED_OVER or one.offset == last:  # PRECALL calls by itself, once Python 3.11 is warm
            found.append(one)
    return found


ENDS = ("STORE_", "POP_", "RETURN_", "JUMP_", "FOR_ITER", "RESUME")  # where nothing of a statement is on the stack


def wait_in_c(frame):
    """What the instruction of a frame waits for in C: a lock or semaphore, an item of a queue, SQLite's write lock.

    None: no such thing.
    """
    *before, now = instructions_to(frame.f_code, frame.f_lasti) or [None]
    if now and now.opname in ("BEFORE_WITH", "SETUP_WITH"):
        values = values_of(before, frame)
        # What waits in C to enter something that cannot be told waits for a lock: of which, is not known.
        return lock_among(values) or (None if values and values[-1].value is not None else LOCK)
    if not now or "CALL" not in now.opname:
        return None
    if enters(frame.f_code):
        return lock_among(values_of(before, frame))
    values = values_of(before, frame)
    methods = {one.method for one in values}
    tells = next((tells for names, tells in CALLS if methods & names), None)
    return tells and tells(values)


def enters(code):
    """Whether it is contextlib.ExitStack, which calls the __enter__ of what it is given."""
    return code.co_name == "enter_context" and code.co_filename.endswith("/contextlib.py")


def queue_among(values):
    found = [one.value for one in values if type(one.value).__module__ in QUEUES]
    return shared(found[-1]) if found else None


CALLS = (  # names of methods -> what tells the resource, of the values on the stack
    ({"acquire"}, lambda values: lock_acquired(values)),
    ({"get"}, queue_among),
    ({"flock", "lockf"}, lambda values: lock_of_file(values)),
    ({"execute", "executemany"}, lambda values: sqlite_lock(values)),
)
QUEUES = ("_queue", "gevent._gevent_cqueue", "gevent.queue")
TAKES_LOCK = re.compile(r"\s*begin\s+(immediate|exclusive)", re.IGNORECASE)
WRITES = re.compile(r"\s*(insert|update|delete|replace)\b", re.IGNORECASE)


def lock_acquired(values):
    """A lock; one that is acquired with arguments is tried for a time."""
    found = lock_among(values) or LOCK
    return found._replace(setting=TIMED) if any(type(one.value) in (int, float) for one in values) else found


def lock_among(values):
    for value, name, _ in reversed(values):
        if isinstance(value, LOCKS):
            return Resource(f"a lock ({name})", value, 1, 1)
        if type(value).__module__.startswith("gevent") and hasattr(value, "acquire"):
            return lock_or_semaphore(value)
        if type(value).__module__ == "multiprocessing.synchronize":
            return lock_of_processes(value)
    return None


def lock_of_file(values):
    """Which file it is, is told by its device and number. What is shared has no size."""
    name, numbers = "a lock on a file", [one.value for one in values if type(one.value) is int]
    files = [one.value for one in values if isinstance(one.value, io.IOBase) and not one.value.closed]
    if len(numbers) + len(files) != 2 or numbers[-1] & LOCK_SH:  # with more, it is a part of the file
        return Resource(name, None)
    try:
        found = os.fstat(files[0].fileno() if files else numbers[0])
    except (OSError, ValueError):  # it was closed just then
        return Resource(name, None)
    return Resource(name, known_files.setdefault((found.st_dev, found.st_ino), []), 1, 1)


LOCK_SH = 1  # of fcntl
known_files = {}  # (device, number) -> an object that stands for it


def sqlite_lock(values):
    """The one writer of a database; of a statement that writes only if several requests stand in such statements."""
    is_sqlite = any(type(one.value).__module__ == "sqlite3" for one in values)
    text = next((one.value for one in values if type(one.value) is str), "") if is_sqlite else ""
    if TAKES_LOCK.match(text):
        return Resource("SQLite's write lock", sys.modules["sqlite3"], 1, 1)
    # Of a writing statement it is not known whether it waits or writes; nor to which database, if there are several.
    writes = Resource("SQLite's write lock", sys.modules["sqlite3"], is_shared=True)
    return writes if WRITES.match(text) and databases_open(int(time.monotonic())) in (None, 1) else None


@functools.lru_cache(1)
def databases_open(second):
    """How many databases of SQLite's this process has open, asked once a second, as each file gives up Python's lock;
    None: that cannot be seen (Linux).

    No file is opened for it: to close it would release the locks that SQLite has on it, see fcntl(2).
    """
    try:
        numbers = os.listdir("/proc/self/fd")
    except OSError:  # there is no /proc, or no descriptor is left
        return None
    files = set()
    for number in map(int, numbers):
        with contextlib.suppress(OSError):  # a socket or a pipe, or closed just then
            if os.pread(number, 15, 0) == b"SQLite format 3":
                found = os.fstat(number)
                files.add((found.st_dev, found.st_ino))
    return len(files)


METHODS = ("acquire", "get", "execute", "executemany")
# On the stack; of one of METHODS the object that has it. value: None if it is not known. method: the attribute that it
# is, where it has not been called yet.
Value = namedtuple("Value", "value text method", defaults=(None,))


def result_of(operator, left, right):
    """Of two values on the stack; only the remainder of whole numbers is known."""
    value, by = left.value, right.value
    is_known = operator == "%" and type(value) is type(by) is int and by
    return Value(value % by if is_known else None, f"{left.text} {operator} {right.text}")


def item_of(value, key):
    """value[key], of a plain dict, list or tuple; None: of something else, or not there."""
    if isinstance(value, dict) and type(key) in (str, int):
        return dict.get(value, key)  # which makes no default
    is_there = type(value) in (list, tuple) and type(key) is int and -len(value) <= key < len(value)
    return value[key] if is_there else None


def values_of(instructions, frame):
    """What loads put on the stack; nothing is called for it."""
    stack, here = [], frame.f_locals
    for one in instructions:
        name, argument = one.opname, one.argval
        if name in ("LOAD_GLOBAL", "LOAD_NAME"):
            stack.append(Value(here.get(argument, frame.f_globals.get(argument)), argument))
        elif name.startswith(("LOAD_FAST", "LOAD_DEREF", "LOAD_CLOSURE")):
            names = argument if isinstance(argument, tuple) else (argument,)
            stack += [Value(here.get(each), each) for each in names]
        elif name == "LOAD_CONST":
            stack.append(Value(argument, repr(argument)))
        elif name in ("LOAD_ATTR", "LOAD_METHOD"):
            stack.append(attribute_of(stack.pop() if stack else Value(None, ""), argument))
        elif name.startswith("BINARY_SUBSCR") and len(stack) > 1:
            key, of = stack.pop(), stack.pop()
            stack.append(Value(item_of(of.value, key.value), f"{of.text}[{key.text}]"))
        elif name == "BINARY_OP" and len(stack) > 1:
            right, left = stack.pop(), stack.pop()
            stack.append(result_of(one.argrepr, left, right))
        elif name.startswith("CALL"):
            if name in ("CALL_KW", "CALL_FUNCTION_KW"):
                del stack[-1:]  # the names of its arguments
            called(stack, argument)
    return stack


def attribute_of(of, name):
    if name in METHODS:
        return of._replace(method=name)
    return Value(attribute(of.value, name), f"{of.text}.{name}", name)


def called(stack, arguments):
    """The result of a call in place of what was called and its arguments; it is not known."""
    if type(arguments) is int and len(stack) > arguments:
        stack[-1 - arguments :] = [Value(None, f"{stack[-1 - arguments].text}()")]
