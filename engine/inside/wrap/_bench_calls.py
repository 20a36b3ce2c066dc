"""Which requests the app has, and which thread, task or greenlet works for each: what the wrapper tells the sampler.

A request is a `call`: any object with `is_answered`, `scope` (of ASGI, else empty), `to_itself`, `queued`, `task` (that
the server has for it, on an event loop) and `thread` (in which it began, without one).
"""

import asyncio
import contextlib
import contextvars
import functools
import gc
import os
import socket
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import FunctionType, MethodType

from _bench_frames import is_app
from _bench_pools import fields_of


def original(module, name):
    """A function as it was before gevent replaced it: a sampler in a greenlet would see nothing while others run."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey.get_original(module, name) if monkey else getattr(sys.modules[module], name)


get_ident = original("_thread", "get_ident")
PORT = os.environ.get("BENCH_PORT")
request_call = contextvars.ContextVar("request_call", default=None)
under_way = {}  # id -> call: of the app, not yet ended
serving = {}  # thread -> call that it works for
started = {}  # thread of the app's own -> call that has started it
greenlets = {}  # id of a call -> its greenlet, and that one's thread
loops = {}  # event loop -> its thread
begun = []  # empty until the first request


# ---------------------------------------------------------------- what the wrapper says


def current_call():
    """The request that the running code works for; None: of no request, or of one that has ended."""
    return under_way_yet(serving.get(get_ident())) or under_way_yet(request_call.get())


def call_of(task):
    """The request whose context a task has; None: it is over, and the task holds nothing of the server's."""
    context = getattr(task, "get_context", lambda: None)()
    if context is None:  # before Python 3.12
        context = next((one for one in gc.get_referents(task) if isinstance(one, contextvars.Context)), {})
    return under_way_yet(context.get(request_call))


def under_way_yet(call):
    return call if call and under_way.get(id(call)) is call else None


def begins(call):
    """A request has reached the app, in this thread, task or greenlet."""
    under_way[id(call)] = call
    if not begun:
        begun.append(True)
    request_call.set(call)
    with contextlib.suppress(RuntimeError):
        loops[asyncio.get_running_loop()] = get_ident()
        call.task = asyncio.current_task()
        return
    if "gevent.monkey" in sys.modules and sys.modules["gevent.monkey"].saved:
        greenlets[id(call)] = sys.modules["greenlet"].getcurrent(), get_ident()
    else:
        call.thread = get_ident()
        serving[call.thread] = call


def ends(call):
    under_way.pop(id(call), None)
    call.task = None
    greenlets.pop(id(call), None)
    if serving.get(get_ident()) is call:
        del serving[get_ident()]


@contextlib.contextmanager
def works_for(call):
    """This thread works for a request, until the block ends; None: for no request."""
    if not call or id(call) in greenlets:  # whose threads are greenlets, too, all of one thread
        yield
        return
    before, serving[get_ident()] = serving.get(get_ident()), call
    try:
        yield
    finally:
        if before:
            serving[get_ident()] = before
        else:
            serving.pop(get_ident(), None)


def watch():
    """Have executors, connections and semaphores tell what cannot be seen of them later."""
    ThreadPoolExecutor.submit = watched_submit(ThreadPoolExecutor.submit, works_for_call)
    threading.Thread.start = watched_start(threading.Thread.start)
    socket.socket.connect = watched_connect(socket.socket.connect)
    for kind in (threading.Semaphore, asyncio.Semaphore):
        kind.__init__ = watched_init(kind.__init__)
        kind.release = watched_release(kind.release)


def watch_processes(module):
    """The same of executors of processes, where an app imports them."""
    module.ProcessPoolExecutor.submit = watched_submit(module.ProcessPoolExecutor.submit, lambda _, function: function)


def watch_thread_pools(module):
    """The same of multiprocessing's pools of threads."""
    for name in ("apply_async", "_map_async", "imap", "imap_unordered"):
        setattr(module.ThreadPool, name, watched_pool(getattr(module.ThreadPool, name)))


WATCHED_LATER = {  # module -> what is done once it is imported
    "concurrent.futures.process": watch_processes,
    "multiprocessing.pool": watch_thread_pools,
}


def watch_imported():
    for module, watch_it in WATCHED_LATER.items():
        if module in sys.modules:
            watch_it(sys.modules[module])


def watched_pool(send):
    """What is sent to a pool of threads is known to work for its request; its result tells whether it has begun."""

    @functools.wraps(send)
    def watched(self, func, *args, **kwargs):
        call, begun = current_call(), []
        if not call:
            return send(self, func, *args, **kwargs)

        def run(*args, **kwargs):
            begun[:] = [True]
            with works_for(call):
                return func(*args, **kwargs)

        result = send(self, run, *args, **kwargs)
        with contextlib.suppress(AttributeError):  # a generator, of imap() in chunks
            result._bench_begun = begun
        return result

    return watched


def works_for_call(call, function):
    """The function, with its thread known to work for the request."""

    def run(*args, **kwargs):
        with works_for(call):
            return function(*args, **kwargs)

    return run


def watched_submit(submit, wrap):
    """Which request waits for a thread or process of an executor; what is sent there is wrapped."""

    @functools.wraps(submit)
    def watched(self, function, /, *args, **kwargs):
        call = current_call()
        if not call:
            return submit(self, function, *args, **kwargs)
        future = submit(self, wrap(call, function), *args, **kwargs)
        call.queued[future] = self
        future.add_done_callback(lambda done: call.queued.pop(done, None))
        return future

    return watched


def watched_start(start):
    """Which request has started a thread that runs a function of the app."""

    @functools.wraps(start)
    def watched(self):
        call = current_call()
        if call and id(call) not in greenlets and runs_app(self):
            self.run = is_started_by(call, self)
        return start(self)

    return watched


def runs_app(thread):
    """Whether a thread, not begun yet, will run a function of the app: its own, its target, or what that is given."""
    target, arguments = getattr(thread, "_target", None), getattr(thread, "_args", None) or ()
    functions = type(thread).run, target, *arguments[:1]
    return any(is_app(code) for function in functions for code in codes_behind(function))


def codes_behind(function):
    """The code of a function, of what it wraps, and so on. No code is run for it, be it any object."""
    found = []
    for _ in range(MOST_WRAPPED):
        if type(function) is MethodType:
            function = function.__func__
        if type(function) is FunctionType:
            found.append(function.__code__)
        function = function.func if type(function) is functools.partial else fields_of(function).get("__wrapped__")
        if function is None:
            break
    return found


MOST_WRAPPED = 9


def is_started_by(call, thread):
    function = thread.run

    def run():
        started[get_ident()] = call
        vars(thread).pop("run", None)  # which has the thread in it
        try:
            function()
        finally:
            started.pop(get_ident(), None)

    return run


def watched_connect(connect):
    """Which request has opened a connection to this very server."""

    @functools.wraps(connect)
    def watched(self, address):
        call = current_call()
        if call and isinstance(address, tuple) and str(address[1]) == PORT:
            call.to_itself = weakref.ref(self)
        return connect(self, address)

    return watched


def watched_release(release):
    """How many a semaphore has that was enlarged before the first request. Later a release may be of a bucket of
    tokens, or one too many."""

    @functools.wraps(release)
    def watched(self, *args, **kwargs):
        release(self, *args, **kwargs)
        if not begun and 0 < getattr(self, "_bench_size", 0) < self._value:
            self._bench_most = self._value
        elif begun and getattr(self, "_bench_size", 1) == 0:
            # By requests: of a pool that is filled later. By none, or a task of one of them: of a bucket of tokens.
            begun_s = getattr(current_call(), "start_s", None)
            first_s = begun_s and self.__dict__.setdefault("_bench_first_s", begun_s)
            self._bench_is_returned = getattr(self, "_bench_is_returned", False) or begun_s != first_s

    return watched


def frame_that_makes(frame):
    """The frame of the app that makes what is made here, through a subclass, a dataclass or a library; of a module that
    is imported meanwhile its own, be it installed. None: not known."""
    installed = None
    while frame and not is_app(frame.f_code):
        file = frame.f_code.co_filename
        if file.startswith("<frozen importlib"):
            return installed
        installed = installed or (frame if "-packages/" in file else None)
        frame = frame.f_back
    return frame or installed


def watched_init(init):
    """With how many a semaphore begins, and where it was made; Python does not keep that."""

    @functools.wraps(init)
    def watched(self, value=1, *args, **kwargs):
        init(self, value, *args, **kwargs)
        self._bench_size = value
        if frame := frame_that_makes(sys._getframe(1)):
            self._bench_made = [frame.f_code.co_filename, frame.f_lineno]

    return watched
