"""The frames of a thread, a suspended coroutine or a greenlet, and which of them are in the code of the app."""

import asyncio
import bisect
import contextlib
import functools
import gc
import operator
import os
import sysconfig
from types import AsyncGeneratorType, CoroutineType, GeneratorType

HERE = os.path.dirname(__file__)
OURS = {os.path.join(HERE, f"_bench_{name}.py") for name in ("wrapper", "calls", "hooks")}
PATHS = sysconfig.get_paths()
MOST_REMEMBERED = 5000
NOT_APP = tuple(
    os.path.join(os.path.realpath(path), "")
    for path in (HERE, *(PATHS[name] for name in ("stdlib", "platstdlib", "purelib", "platlib", "scripts")))
)


def chain_of(awaitable):
    """The frames of a suspended coroutine, outermost first, through all that it awaits."""
    frames = []
    while awaitable is not None:
        kind = type(awaitable)
        if kind is CoroutineType:
            frame, inner = awaitable.cr_frame, awaitable.cr_await
        elif kind is GeneratorType:
            frame, inner = awaitable.gi_frame, awaitable.gi_yieldfrom
        elif kind is AsyncGeneratorType:
            frame, inner = awaitable.ag_frame, awaitable.ag_await
        elif hidden := inside_of(awaitable):
            frame, inner = None, hidden
        else:
            break
        if frame and frame.f_code.co_filename not in OURS:
            frames.append(frame)
            if frame.f_code.co_name == "greenlet_spawn":  # SQLAlchemy's asyncio: its synchronous half is a greenlet
                frames += stack_of(getattr(frame.f_locals.get("context"), "gr_frame", None))
        awaitable = inner
    return frames


def inside_of(awaitable):
    """The generator or coroutine behind what `async for` and __await__() make; None: something else."""
    if not type(awaitable).__name__.startswith(("async_generator_a", "coroutine_wrapper", "anext_awaitable")):
        return None
    kinds = (AsyncGeneratorType, CoroutineType)
    return next((one for one in gc.get_referents(awaitable) if isinstance(one, kinds) or inside_of(one)), None)


def futures_behind(waiter):
    """What a task awaits, with those that asyncio.gather() and shield() have put in between."""
    found = [waiter, *getattr(waiter, "_children", ())]
    for done, *_ in getattr(waiter, "_callbacks", None) or ():
        found += enclosed_by(done)
    return found


def behind_shield(waiter):
    """The future that asyncio.shield() waits for; of another one itself."""
    for done, *_ in getattr(waiter, "_callbacks", None) or ():
        if getattr(done, "__qualname__", "") == "shield.<locals>._outer_done_callback":
            return next(filter(asyncio.isfuture, enclosed_by(done)), waiter)
    return waiter


def sets(future, awaited):
    """Whether a future is one of those that a task awaits, or its end sets the first of them: in asyncio.wait(), and in
    wait_for() before Python 3.12."""
    if any(future is one for one in awaited):
        return True
    callbacks = (asyncio.isfuture(future) and getattr(future, "_callbacks", None)) or ()
    set_by_it = [one for done, *_ in callbacks for one in (*getattr(done, "args", ()), *enclosed_by(done))]
    return any(one is awaited[0] for one in set_by_it)


def enclosed_by(function):
    """What a function has from around it."""
    found = []
    for cell in getattr(function, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # it is empty
            found.append(cell.cell_contents)
    return found


def stack_of(frame):
    """The frames of a running thread or a waiting greenlet, outermost first, from our wrapper on."""
    frames = []
    if frame and frame.f_code.co_filename in OURS and frame.f_code.co_name == "watched":
        frame = frame.f_back  # it waits in C in a method that is watched: in connect()
    for one in outwards(frame) if frame else ():
        if one.f_code.co_filename in OURS:
            break
        frames.append(one)
    return frames[::-1]


def outwards(frame):
    """A frame and those that called it, read in one call of C: between two of Python's own, its thread may go on, and
    Python 3.11 would then follow a pointer to what is no frame any more."""
    was_enabled = gc.isenabled()
    gc.disable()  # what is collected may run code, so that others go on
    try:
        depth = bisect.bisect_left(range(1, MOST_FRAMES), True, key=lambda n: not has_back(frame, n))
        return frame, *callers(depth)(frame)
    except AttributeError:  # it has gone on
        return (frame,)
    finally:
        if was_enabled:
            gc.enable()


MOST_FRAMES = 400


def has_back(frame, n):
    try:
        return getter(n)(frame) is not None
    except AttributeError:
        return False


@functools.lru_cache(None)
def getter(n):
    return operator.attrgetter(".".join(["f_back"] * n))


@functools.lru_cache(None)
def callers(depth):
    """What gets so many frames further out, as a tuple."""
    if depth < 2:
        return lambda frame: (frame.f_back,) * depth
    return operator.attrgetter(*(".".join(["f_back"] * n) for n in range(1, depth + 1)))


def frame_as_list(frame):
    code = frame.f_code
    return [code.co_filename, line_in_file(frame), getattr(code, "co_qualname", code.co_name)]  # Python 3.11 has it


def line_in_file(frame):
    """The line; of a template of Jinja's, which is Python made from it, the template's."""
    template = frame.f_globals.get("__jinja_template__")
    lines = template and vars(template).get("_debug_info")  # "1=5&2=13": line of the template, and of what is made
    if not isinstance(lines, str):
        return frame.f_lineno
    pairs = [map(int, one.split("=")) for one in lines.split("&") if one]
    return max(((made, line) for line, made in pairs if made <= frame.f_lineno), default=(0, 1))[1]


LOOPS = ("asyncio/events.py", "asyncio/base_events.py", "asyncio/runners.py", "uvloop/__init__.py")


def above_loop(frames):
    """What an event loop runs just now: the frames inside of the loop's own; none if it waits."""
    own = [i for i, frame in enumerate(frames) if frame.f_code.co_filename.endswith(LOOPS)]
    return frames[own[-1] + 1 :] if own else []


def has_sent_to_thread(frames):
    """Whether a task waits for a thread of AnyIO's or asgiref's."""
    codes = [frame.f_code for frame in frames]
    return any("asgiref/" in one.co_filename or one.co_name == "run_sync_in_worker_thread" for one in codes)


def waits_for_client(frames):
    """Whether a task waits for what its client may send yet, or for its end."""
    if any(frame.f_code.co_name in ("listen_for_disconnect", "receive_or_disconnect") for frame in frames):
        return True
    return waits_in(SERVER, frames, "receive") and not is_of_app(frames)


def sleeps_in_library(frames):
    """Whether a task sleeps in the code of a library, as one does that keeps a connection alive."""
    last = frames[-1].f_code if frames else None
    is_asleep = last and last.co_name == "sleep" and last.co_filename.endswith("asyncio/tasks.py")
    return bool(is_asleep) and not is_of_app(frames)


SERVER = "http/h11_impl.py", "http/httptools_impl.py"  # of uvicorn
NETWORK = "anyio/_backends/_asyncio.py", "http/flow_control.py", *SERVER  # AnyIO's sockets, too


def is_signal(frames):
    """Whether a task waits for what another one may set: an event, a queue, or a future in the code of the app."""
    if any(frame.f_code.co_filename.endswith("psycopg/waiting.py") for frame in frames[-4:]):
        return False
    if waits_in(NETWORK, frames, "receive", "send", "drain"):
        return False
    file = frames[-1].f_code.co_filename if frames else ""
    return file.endswith(SIGNALS) or is_of_app(frames[-1:])


SIGNALS = "asyncio/locks.py", "asyncio/queues.py"


def waits_in(files, frames, *names):
    """Whether a task waits for a signal in one of these functions of these files."""
    by = frames[-2].f_code if frames[1:] else None
    return bool(by) and by.co_filename.endswith(files) and by.co_name in names


def is_of_app(frames):
    return innermost_of_app(tuple([frame.f_code for frame in frames])) is not None


is_app_file = {}  # file -> whether it is the app's code


def is_app(code):
    return is_apps(code.co_filename)


def is_apps(file):
    if file not in is_app_file:
        is_other = file[:1] == "<" or "-packages/" in file or file.startswith(NOT_APP)
        is_app_file[file] = not (is_other or os.path.realpath(file).startswith(NOT_APP))
    return is_app_file[file]


def remembered(function):
    """A function of codes that keeps its results by their ids: to hash a code, Python hashes all that is in it, each
    time."""
    results = {}

    @functools.wraps(function)
    def of_codes(codes):
        key = tuple(map(id, codes))
        if key not in results:
            if len(results) >= MOST_REMEMBERED:
                results.clear()
            results[key] = function(codes), codes  # which stay, so that no others get their ids
        return results[key][0]

    return of_codes


@remembered
def innermost_of_app(codes):
    """The place of the innermost frame of the app's code, of frames by their code; None: there is none, or it is of a
    middleware, which passes the request on to the framework's router."""
    at = next((i for i in reversed(range(len(codes))) if is_app(codes[i])), None)
    return None if at is not None and any(map(routes, codes[at + 1 :])) else at


def routes(code):
    return code.co_name == "app" and code.co_filename.endswith(("starlette/routing.py", "fastapi/routing.py"))


def carries_on(code):
    """Whether Starlette goes on with a request in this function, which it runs in a task of its own."""
    at = code.co_filename, code.co_name
    return routes(code) or any(at[0].endswith(file) and at[1] == name for file, name in CARRY_ON)


CARRY_ON = ("starlette/middleware/base.py", "coro"), ("starlette/responses.py", "stream_response")
BEFORE, AFTER = "before the handler", "after the handler"
PHASES = (  # file and function of FastAPI or Starlette -> where a request stands inside of it; the first that fits
    ("starlette/responses.py", "__call__", AFTER),
    ("starlette/responses.py", "stream_response", AFTER),
    ("starlette/responses.py", "__init__", AFTER),  # of what the handler has returned: it makes the body
    ("starlette/responses.py", "render", AFTER),
    ("fastapi/responses.py", "render", AFTER),
    ("fastapi/routing.py", "serialize_response", AFTER),
    ("fastapi/routing.py", "run_endpoint_function", BEFORE),
    ("fastapi/dependencies/utils.py", "solve_dependencies", BEFORE),
    ("starlette/routing.py", "app", BEFORE),
)


@remembered
def phase_of(codes):
    """Where a request stands by its frames, without code of the app among them; None: not known."""
    at = [(code.co_filename, code.co_name) for code in codes]
    for file, function, phase in PHASES:
        if any(name == function and path.endswith(file) for path, name in at):
            return phase
    return None
