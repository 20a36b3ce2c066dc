"""Where one thread, task or greenlet stands that works for a request, and what it waits for there. Standard library
only, for the process of the server."""

import asyncio
from collections import deque
from types import BuiltinMethodType, MethodType

import _bench_pools as pools
import _bench_resources as resources
import _bench_source as source
from _bench_calls import loops
from _bench_frames import (
    LOOPS,
    behind_shield,
    carries_on,
    chain_of,
    enclosed_by,
    frame_as_list,
    futures_behind,
    has_sent_to_thread,
    innermost_of_app,
    is_app,
    is_signal,
    sets,
    waits_for_client,
)
from _bench_pools import attribute, fields_of


class Place:
    """A thread, task or greenlet at work for a request; call None: for no request."""

    def __init__(self, call, frames, thread=None, on_loop=False, task=None):
        self.call, self.thread, self.on_loop, self.task = call, thread, on_loop, task
        self.weight = 1.0  # requests that it stands for
        self.is_outer = False  # a library's task or thread, told by the line of the app that waits for it
        self.stands_at(frames)

    def stands_at(self, frames):
        innermost = innermost_of_app(tuple([frame.f_code for frame in frames]))
        self.app = None if innermost is None else frames[innermost]
        self.frames = frames
        self.below = frames if innermost is None else frames[innermost + 1 :]

    def stands_inside(self, frames):
        """Have it stand where other code waits for it, if it is without code of the app."""
        if not self.app:
            self.is_outer = True
            self.stands_at([*frames, *self.below])

    @property
    def is_own(self):
        """Whether it is the task or thread that the server has for the request, or a task in which the framework goes
        on with it, and not one that these made."""
        if not self.call or not self.task:
            return bool(self.call and self.thread and self.thread == self.call.thread)
        carries = not self.is_outer and any(carries_on(frame.f_code) for frame in self.frames)
        return self.task is self.call.task or carries

    @property
    def goes_on(self):
        """Whether it waits for nothing that other tasks or threads of its request might give."""
        if self.task:
            return not is_signal(self.frames)
        runs_loop = any(frame.f_code.co_filename.endswith(LOOPS) for frame in self.below)
        waits = any(map(is_threading, self.frames[-1:])) or self.resource()
        return not (runs_loop or waits or waits_for_thread(self))

    @property
    def frames_to_app(self):
        return self.frames[: len(self.frames) - len(self.below)]

    @property
    def app_frames(self):
        """The frames of the app's code, each with the next one, whatever that is of."""
        pairs = zip(self.frames, [*self.frames[1:], None], strict=False)
        return [(one, after) for one, after in pairs if is_app(one.f_code)]

    def resource(self):
        """What it waits for that other requests hold; None: no such thing is known."""
        task, call = self.task, self.call
        self.seen_at = self.frames[-1].f_lasti if self.frames else None
        if task and task._fut_waiter is None:  # it could go on
            return pools.Resource("the event loop", loops, 1, 1)
        if call and self.waits_for_itself():
            return pools.Resource("an answer of this very server", None)
        if pool := pool_with_no_thread(self.below):
            return resources.executor(pool)
        for future, executor in list(call.queued.items()) if call else ():
            if not resources.has_turn(future, executor) and self.waits_for(future):
                return resources.executor(executor)
        found = self.resource_in_frames()
        if task and call and not found:
            return pools.Resource("a future of several requests", behind_shield(task._fut_waiter), is_shared=True)
        return found

    def stands_still(self, resource):
        """Whether it is where it was when its resource was read: others go on when the sampler gives way. A task that
        has its turn meanwhile has waited for the event loop."""
        is_there = not self.frames or self.frames[-1].f_lasti == self.seen_at
        return is_there or bool(resource and resource.owner is loops)

    def resource_in_frames(self):
        frames = [*reversed(self.below), *([self.app] if self.app else [])]
        found = resources.resource_of(frames, not self.task) if frames else None
        is_timed = self.task and found and self.app and source.is_timed(*frame_as_list(self.app)[:2])
        return found._replace(setting=resources.TIMED) if is_timed and not found.setting else found

    def awaits_a_result(self):
        """Whether its task awaits, in the code of the app itself, a future or an event that something of no request
        sets. Of a queue or a condition others may have what the one that waits will get."""
        waiter = self.task and self.task._fut_waiter
        is_event_only = all(type(frame.f_locals.get("self")) is asyncio.Event for frame in self.below)
        if not self.call or not waiter or not is_event_only or isinstance(waiter, asyncio.Task):
            return False
        return len(futures_behind(waiter)) == 1 and not any(map(self.waits_for, list(self.call.queued)))

    def waits_for(self, future):
        """Whether it waits for an executor's future: a thread in one of that one's methods, a task by asyncio's future
        that is chained to it."""
        if not self.task:
            if not waits_for_thread(self) or result_of_pool(self.below):
                return False
            known, executors = awaited(self.below), set(map(id, list(self.call.queued.values())))
            return known is future or (known is None and len(executors) == 1)
        behind = futures_behind(self.task._fut_waiter)
        cells = [one for done in future._done_callbacks for one in enclosed_by(done)]
        return any(sets(cell, behind) for cell in cells)

    def waits_for_itself(self):
        """Whether it is in the code of an HTTP client that has a connection to this very server."""
        opened = self.call.to_itself and self.call.to_itself()
        is_client = any(frame.f_code.co_filename.endswith(CLIENTS) for frame in self.below)
        return opened is not None and opened.fileno() >= 0 and is_client


CLIENTS = ("http/client.py", "httpcore/_sync/connection.py", "httpcore/_async/connection.py", "aiohttp/client.py")


def waits_for_thread(place):
    """Whether a thread waits for what it has sent to an executor or a pool of threads, or asgiref to one."""
    files = [frame.f_code.co_filename for frame in place.below[-4:]]
    return any(part in file for file in files for part in SENT_IN)


SENT_IN = "concurrent/futures/", "multiprocessing/pool.py", "asgiref/current_thread_executor"


def waits_for_join(place):
    """Whether a thread waits for the end of another one."""
    return any(frame.f_code.co_name == "join" and is_threading(frame) for frame in place.below[-2:])


JOIN = "the end of a thread"


def wanted(place):
    """What a place waits for that a thread of its request may do: JOIN, or the id of a signal that no other request
    waits for; None: nothing of that kind."""
    if waits_for_join(place):
        return JOIN
    signal = signal_of(place)
    return None if signal is None or waiters(signal) > 1 else id(signal)


def waiters(signal):
    """How many wait for a signal, as far as it says; asyncio's and threading's."""
    found = [attribute(signal, *names) for names in WAITERS]
    return max(len(one) if isinstance(one, (deque, list, set)) else 0 for one in found)


WAITERS = (
    ("_getters",),
    ("_putters",),
    ("_waiters",),
    ("_cond", "_waiters"),
    ("not_empty", "_waiters"),
    ("not_full", "_waiters"),
)


def signal_of(place):
    """The event, queue or future that a place waits for; None: something else."""
    found = place.resource_in_frames()
    if found:
        return found.owner if found.is_shared else None
    return place.task._fut_waiter if place.task and is_signal(place.frames) else None


def at_hand(thread, of_all):
    """What a thread may set or put something into, by id: its variables, the objects of methods, and what objects have
    that are not for all requests."""
    found = {JOIN}
    for value in [one for frame in thread.frames for one in list(frame.f_locals.values())]:
        found |= {id(value), id(value.__self__) if type(value) in METHODS else None}
        found |= set(map(id, list(fields_of(value).values()))) if id(value) not in of_all else set()
    return found - {None}


def globals_of(places):
    """The ids of what all requests have in the modules of the app in which some places are."""
    modules = {id(frame.f_globals): frame.f_globals for one in places for frame, _ in one.app_frames}
    return {id(value) for one in modules.values() for value in list(one.values())}


METHODS = (MethodType, BuiltinMethodType)


def is_threading(frame):
    return frame.f_code.co_filename.endswith("/threading.py")


def may_wait_for_thread(call, task):
    """Whether a task waits for what a thread of its request may give: its result, or a signal."""
    place = Place(call, chain_of(task.get_coro()), task=task)
    if has_sent_to_thread(place.frames):
        return True
    at = [(frame.f_code.co_filename, frame.f_code.co_name) for frame in place.frames[-3:]]
    if any(file.endswith("anyio/streams/memory.py") for file, _ in at) or waits_for_client(place.frames):
        return False  # a middleware's, for the task of the handler
    is_any = any(file.endswith("asyncio/tasks.py") and name != "sleep" for file, name in at)  # wait() and the like
    if is_any or any(map(place.waits_for, list(place.call.queued))):
        return True
    resource = place.resource()
    return is_signal(place.frames) and (not resource or resource.is_shared)


def result_of_pool(frames):
    """The result of multiprocessing's pools for which a thread waits; None: it waits for something else."""
    found = (frame for frame in frames[:-5:-1] if frame.f_code.co_filename.endswith(POOLS))
    frame = next(found, None)
    return frame and frame.f_locals.get("self")


POOLS = "multiprocessing/pool.py"


def pool_with_no_thread(frames):
    """The pool of threads that has not begun any of what a thread waits for; None: it has, or that is not known."""
    result = result_of_pool(frames)
    return attribute(result, "_pool") if attribute(result, "_bench_begun") == [] else None


def awaited(frames):
    """The future in whose result() a thread waits; None: it waits in another way, as for several."""
    codes = [(frame, frame.f_code) for frame in frames[-4:]]
    own = ("result", "exception")
    found = (frame for frame, code in codes if code.co_name in own and "concurrent/futures/" in code.co_filename)
    frame = next(found, None)
    return frame and frame.f_locals.get("self")


def is_queued(place):
    """Whether a thread waits for the result of what an executor, or a pool of threads, has not begun."""
    if pool_with_no_thread(place.below):
        return True
    future = awaited(place.below)
    return future in place.call.queued and not future.running() and not future.done()
