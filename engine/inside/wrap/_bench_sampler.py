"""Where the requests of this process stand, sampled by a thread while the benchmark sends its load.

Standard library only. The benchmark opens the pipe BENCH_SAMPLES.pipe for as long as it wants samples; each is a line
of JSON in the file BENCH_SAMPLES, as engine/where.py reads it:

    {"pid": 4711, "at": 5123.45, "cost": 0.0012, "cpu": 0.02, "inside": 40.0, "rows": [...]}

`at` is on the monotonic clock, `cost` in CPU seconds, `cpu` what the process but for the sampler has computed since the
sample before, in CPU seconds, or 0 where that is little, `inside` the requests that the app has and has not answered. A
row is a place, with all that stand there:

    n          how many requests; one that works in several tasks or threads counts in parts. 0: of no request
    parts      how many tasks or threads
    calls      as how many requests these count: a library's tasks and threads count one by one
    there      how many requests have any task or thread there
    through    the frames of the app's code on the way there, outermost first; each with the end of the with statement
               that it enters just then, where they wait for a resource; or null
    app        file, line and function of the app's innermost frame; null: no code of the app is there
    below      the frames inside of that, outermost first; where there is no code of the app, the innermost of all
    handler    file, line and name of the function that handles the request, where the app's framework tells it (ASGI)
    phase      "before the handler" or "after the handler", where there is no code of the app, and that is known
    resource   what they wait for, as [name, id of the object, size, used, setting]; null: nothing
    held_to    of a lock, semaphore or queue, the last line that has it in the app's function, by its source; or null
    opens      a connection that its pool will not keep, as [the pool's name, how many it keeps, and may have]; or null
    answered   the client has its answer already
    on_loop    it runs on the thread of the event loop, so that no other request can
    cpu_s      its part of `cpu`, as what it computed just before the sample is of what all did (Linux)

A request is followed to its deepest place: the thread that works for it, else those of its tasks that do not wait for
another one of its own, nor beside the server's own task for it, which goes on.

The last line of a load says where the objects were made that requests have waited for, and what last went wrong in a
sample, if anything did:

    {"pid": 4711, "made": {"140230": ["app.py", 3]}, "error": ""}
"""

import asyncio
import contextlib
import json
import math
import os
import random
import select  # noqa: F401
import sys
import time
from collections import Counter, defaultdict

import _bench_cpu as cpu
import _bench_pools as pools
import _bench_resources as resources
import _bench_source as source
from _bench_calls import call_of, codes_behind, greenlets, loops, original, serving, under_way, under_way_yet
from _bench_frames import (
    above_loop,
    chain_of,
    frame_as_list,
    futures_behind,
    is_of_app,
    is_signal,
    phase_of,
    sleeps_in_library,
    stack_of,
    waits_for_client,
)
from _bench_place import Place, is_queued, may_wait_for_thread, waits_for_thread
from _bench_threads import background_places, deepest_threads, places_of_started, places_of_threads, those_that_feed

PATH = os.environ.get("BENCH_SAMPLES", "")
sleep, start_thread = original("time", "sleep"), original("_thread", "start_new_thread")
poll = original("select", "poll")  # it looks among the imported modules, so `select` is imported above
PAUSE_S, LATER_S = 0.02, 0.1  # between two samples, at least; after the first FIRST of them
FIRST = 20
IDLE, BUSY = 0.02, 0.006  # of a CPU, that samples may cost where the process has CPU time left, and where it has not:
# there each costs a switch of threads, too, and together less than 2 % of the throughput
CREDIT_S = 0.008  # CPU seconds that they may cost beyond that, so that short runs are seen, too
LEAST_BUSY = 0.2  # of a CPU: less, and it is not asked where that was used
MOST = 120  # requests of an event loop that are followed in a sample, drawn at random, beside the one that runs
SHOWN = 8  # frames of a place

# ---------------------------------------------------------------- requests, their tasks and threads


def find_loops():
    """Event loops that did not begin with a request: asgiref runs one for each `async def` of Flask or Django."""
    every = getattr(asyncio.tasks, "_scheduled_tasks", None) or getattr(asyncio.tasks, "_all_tasks", ())
    with contextlib.suppress(RuntimeError):  # the set has changed meanwhile
        for task in list(every):
            if task._loop not in loops and (thread := getattr(task._loop, "_thread_id", None)):
                loops[task._loop] = thread


def waits_for_loop(own, tasks):
    """Whether the threads of a request wait for a task of its own: by asgiref, or as they have sent it to the loop."""
    if any(frame.f_code.co_filename.endswith("asgiref/sync.py") for place in own for frame in place.below):
        return True
    others = [task for task in tasks if task is not own[0].call.task]
    if not others or not all(waits_for_thread(one) and not is_queued(one) for one in own):
        return False
    # The handler's task waits for the thread, and a middleware's for that task.
    chains = {task: chain_of(task.get_coro()) for task in tasks}
    return not all(waits_for_own(task, chains[task], tasks) or waits_for_client(chains[task]) for task in tasks)


def tasks_of(loop):
    for _ in range(5):
        with contextlib.suppress(RuntimeError):  # the set has changed meanwhile
            return [task for task in asyncio.all_tasks(loop) if not task.done()]
    return []


WAITS_FOR_OWN = (  # an innermost frame in which a task waits for other tasks of the same request
    ("asyncio/tasks.py", ("wait", "_wait", "wait_for", "_wait_for_one")),
    ("asyncio/taskgroups.py", ("__aexit__", "_aexit")),
    ("anyio/_backends/_asyncio.py", ("__aexit__", "run_sync_in_worker_thread")),
    ("anyio/streams/memory.py", ("receive", "send")),
)


def waits_for_own(task, frames, tasks):
    """Whether a task does nothing but wait for others of these."""
    own = set(map(id, tasks))  # what else is in a closure may compare its elements, as an array does
    if any(id(one) in own for one in futures_behind(task._fut_waiter)):
        return True
    if len(tasks) < 2:
        return False
    inner = [(one.f_code.co_filename, one.f_code.co_name) for one in frames[-3:]]
    return any(file.endswith(end) and name in names for file, name in inner for end, names in WAITS_FOR_OWN)


def waits_for_none(call, tasks):
    """Whether a request has sent something to an executor, and its tasks do not wait for that."""
    return call.queued and call.task in tasks and not any(may_wait_for_thread(call, task) for task in tasks)


def places():
    """Every place where a request of this process stands, with those of no request that hold an event loop."""
    threads = sys._current_frames()
    own_threads = places_of_started(threads)
    by_thread = places_of_threads(threads, own_threads)
    find_loops()
    found = []
    for loop, thread in list(loops.items()):
        if loop.is_closed():
            del loops[loop]
        else:
            found += places_of_loop(loop, thread, threads.get(thread), by_thread, own_threads)
    in_tasks = {place.call for place in found if place.task}
    found += [place for call, own in by_thread.items() if call not in in_tasks for place in deepest_threads(own)]
    for key, (greenlet, thread) in list(greenlets.items()):
        runs = greenlet.gr_frame is None  # in its thread, and no other one there can
        frames = stack_of(threads.get(thread) if runs else greenlet.gr_frame)
        if key in under_way:
            found.append(Place(under_way[key], frames, thread if runs else None, on_loop=runs))
    return found


def places_of_loop(loop, thread, frame, by_thread, own_threads):
    """The tasks of an event loop that work for requests, and what holds its thread."""
    running, tasks_of_call, found = asyncio.current_task(loop), tasks_by_call(loop), []
    # asgiref's, or that of asyncio.run() in a handler: it blocks no other request.
    is_of_one = under_way_yet(serving.get(thread))
    weights = followed_calls(tasks_of_call, running, by_thread)
    for call in weights:
        tasks = tasks_of_call[call]
        if running in tasks:
            if not is_of_one:
                found.append(Place(call, stack_of(frame), thread, on_loop=True))
        elif call not in by_thread or waits_for_loop(by_thread[call], tasks) or waits_for_none(call, tasks):
            found += those_that_feed(deepest_tasks(call, tasks), own_threads.get(call, ()))
    have_threads_stand(by_thread, tasks_of_call)
    for place in found:
        place.weight = weights[place.call]
    holds_loop = Place(None, above_loop(stack_of(frame)), thread, on_loop=True)
    if holds_loop.app and not is_of_one and not any(one.on_loop for one in found):
        found.append(holds_loop)
    return found


def tasks_by_call(loop):
    """The tasks of each request."""
    found = defaultdict(list)
    for task in tasks_of(loop):
        if call := call_of(task):
            found[call].append(task)
    return found


def followed_calls(tasks_of_call, running, by_thread):
    """The requests that are followed in a sample, and for how many each stands; the one that runs is always among
    them, and those that have threads."""
    runs = {call for call, tasks in tasks_of_call.items() if running in tasks or call in by_thread}
    others = [call for call in tasks_of_call if call not in runs]
    drawn = others if len(others) <= MOST else random.sample(others, MOST)
    return {call: len(others) / len(drawn) for call in drawn} | dict.fromkeys(runs, 1.0)


def have_threads_stand(by_thread, tasks_of_call):
    """Have threads without code of the app stand where the task waits that has sent them there."""
    for call in by_thread.keys() & tasks_of_call.keys():
        if without := [place for place in by_thread[call] if not place.app]:
            outer = outer_chain([chain_of(task.get_coro()) for task in tasks_of_call[call]])
            for place in without:
                place.stands_inside(outer)


def deepest_tasks(call, tasks):
    """The tasks of a request that do not wait for its others, nor for its client."""
    chains = {task: chain_of(task.get_coro()) for task in tasks}
    own = [task for task in tasks if not waits_for_own(task, chains[task], tasks)] or tasks
    found = [Place(call, chains[task], task=task) for task in those_that_work(own, chains)]
    for place in found if len(tasks) > 1 else ():
        if not place.app and is_of_app(outer := outer_of(place.task, chains)):
            place.stands_inside(outer)
    return found


def those_that_work(tasks, chains):
    """Without those that wait for the client, or only keep its connection alive."""
    busy = [task for task in tasks if not waits_for_client(chains[task])] or tasks
    return [task for task in busy if not sleeps_in_library(chains[task])] or busy


def outer_of(task, chains):
    """The frames of the task in which the app's code waits for a library's; if that is not seen, of another one."""
    waiting = (one for one in chains if any(behind is task for behind in futures_behind(one._fut_waiter)))
    waits = next(waiting, None)
    return chains[waits] if waits and is_of_app(chains[waits]) else outer_chain([*chains.values()])


def outer_chain(chains):
    """The frames of the task that waits for a library's: not a middleware's, which waits for that of the handler."""
    inner = [one for one in chains if all(frame.f_code.co_name != "call_next" for frame in one)] or chains
    return next((one for one in inner if is_of_app(one)), inner[0])


# ---------------------------------------------------------------- a sample


def handler_of(call):
    """The code of the function that handles a request; None: not known."""
    codes = codes_behind(call and call.scope.get("endpoint"))
    return codes[-1] if codes else None


owners = {}  # id -> object that requests have waited for


def resource_as_list(found):
    owners[id(found.owner)] = found.owner
    return [found.name, id(found.owner), found.size, found.used, found.setting]


def sample():
    """The rows of a sample."""
    resources.seen.clear()
    found = without_own(without_beside(waited_for(places())))
    parts, rows, computing, calls, there = Counter(one.call for one, _ in found), {}, [], set(), set()
    for one, resource in ((one, resource if one.stands_still(resource) else None) for one, resource in found):
        key = key_of(one, resource)
        row = rows[key] = rows.get(key) or row_at(one, resource)
        row["n"] += one.weight / parts[one.call] if one.call else 0.0
        row["parts"] += one.weight
        # What the app has there it has once, however many tasks or threads of a library it waits for.
        is_first = (key, one.call) not in calls
        row["calls"] += one.weight * (is_first or (one.is_outer and not resource))
        calls.add((key, one.call))
        at = at_line(one, key, resource)
        row["there"] += one.weight * (at not in there)
        there.add(at)
        if one.thread and not resource:
            computing.append((row, one.thread))
    background = [(row_at(one, None), one.thread) for one in background_places(sys._current_frames())]
    for row, thread in [*computing, *background]:  # last, as other threads go on while a file is read
        row["cpu_s"] += cpu.since_then(thread)
    return [*rows.values(), *(row for row, _ in background if row["cpu_s"])]


def waited_for(found):
    """Each place with its resource; one that is shared counts if several requests wait for it."""
    pairs = [(one, one.resource()) for one in found]
    waiting = waiting_calls(pairs)
    pairs = [
        (one, None if resource and resource.is_shared and len(waiting[id(resource.owner)]) < 2 else resource)
        for one, resource in pairs
    ]
    return [(one, RESULT if not resource and one.awaits_a_result() else resource) for one, resource in pairs]


RESULT = pools.Resource("a result", None)


def waiting_calls(pairs):
    """Which requests wait for an object, by its id."""
    waiting = defaultdict(set)
    for one, resource in pairs:
        if resource:
            waiting[id(resource.owner)].add(one.call)
    return waiting


def without_beside(pairs):
    """Without other tasks, and threads that wait for something, where a request's own goes on and waits for none."""
    go_on = {one.call for one, resource in pairs if one.is_own and not resource and one.goes_on}
    return [
        (one, resource) for one, resource in pairs if one.call not in go_on or one.is_own or not (one.task or resource)
    ]


def without_own(pairs):
    """Without tasks that wait for what other tasks of the same request hold, or will set or put, and no other request
    waits for."""
    waiting, parts = waiting_calls(pairs), Counter(one.call for one, _ in pairs)

    def is_own(one, resource):
        if not resource or resource is RESULT:
            return one.task and is_signal(one.frames)
        return resource.owner is not loops and len(waiting[id(resource.owner)]) < 2

    left = [(one, resource) for one, resource in pairs if parts[one.call] < 2 or not is_own(one, resource)]
    still_there = {one.call for one, _ in left}
    return left + [pair for pair in pairs if pair[0].call not in still_there]


def at_line(place, key, resource):
    """A request at a line of the app, wherever in a library."""
    line = place.app and (id(place.app.f_code), place.app.f_lasti)
    return line or key, resource and id(resource.owner), place.call


def key_of(place, resource):
    """What places have in common that make one row."""
    at = [(id(frame.f_code), frame.f_lasti) for frame in place.below[-SHOWN:]]
    app = place.app and (id(place.app.f_code), place.app.f_lasti)
    of_call = place.call and (place.call.is_answered, id(handler_of(place.call)))
    return (*at, app, place.on_loop, of_call, resource and (resource.name, id(resource.owner)))


def row_at(place, resource):
    call, app, below = place.call, place.app, place.below
    handler, codes = None if app else handler_of(call), tuple([frame.f_code for frame in below])
    is_in_handler = any(code is handler for code in codes)  # which is installed, as a library is
    return {
        "n": 0.0, "parts": 0, "calls": 0, "there": 0, "app": app and frame_as_list(app),
        "below": list(map(frame_as_list, below[-SHOWN:])),
        "through": [[*frame_as_list(at), resource and source.entered_to(at, after)] for at, after in place.app_frames],
        "phase": None if app or is_in_handler else phase_of(codes),
        "handler": handler and [handler.co_filename, handler.co_firstlineno, handler.co_name],
        "resource": resource and resource_as_list(resource), "answered": bool(call and call.is_answered),
        "on_loop": place.on_loop, "cpu_s": 0.0, "opens": pools.opened_beyond(place.frames),
        "held_to": app and resource and source.held_to(resource, app, next(iter(below), None)),
    }  # fmt: skip


# ---------------------------------------------------------------- the thread


started_in = 0  # pid of the process that has a sampler


def start():
    """Start the sampler of this process with its first request; threads do not survive a fork."""
    global started_in
    if PATH and started_in != os.getpid():
        started_in = os.getpid()
        start_thread(run, ())


def run():
    while True:
        pipe = os.open(f"{PATH}.pipe", os.O_RDONLY)  # waits until the benchmark opens it, too
        with open(PATH, "ab", buffering=0) as file:
            sample_while_open(pipe, file)
        os.close(pipe)


class Budget:
    """CPU time that samples may use: a share of the time, which is less while the process computes."""

    def __init__(self):
        self.left_s, self.share = CREDIT_S, BUSY
        self.at_s, self.cpu_s = time.perf_counter(), cpu.other_cpu_s()

    def grows(self):
        passed_s, used_s = time.perf_counter() - self.at_s, cpu.other_cpu_s() - self.cpu_s
        self.at_s, self.cpu_s = self.at_s + passed_s, self.cpu_s + used_s
        self.share = BUSY if used_s > passed_s / 2 else IDLE
        self.left_s += self.share * passed_s


def ends_within(pause_s, ended, budget):
    """Wait so long, and until there is a budget; True if the benchmark has closed its pipe by then."""
    until_s = time.perf_counter() + pause_s
    while True:
        if ended.poll(1000 * min(LATER_S, max(0.0, until_s - time.perf_counter(), -budget.left_s / budget.share))):
            return True
        budget.grows()
        if budget.left_s >= 0 and time.perf_counter() >= until_s:
            return False


def sample_while_open(pipe, file):
    """Sample, and say last where things were made. Whatever goes wrong here must not harm the server."""
    ended, error, before_s, taken, pause_s, budget = poll(), "", math.inf, 0, 0.0, Budget()
    then_s, then_cpu_s, cpu_s = time.perf_counter(), cpu.other_cpu_s(), time.thread_time()
    ended.register(pipe)
    while not ends_within(pause_s * random.uniform(1.0, 1.4), ended, budget):  # not in step with what comes regularly
        cpu.computed_s.clear()
        before_cpu_s, at_s = cpu.other_cpu_s(), time.perf_counter()
        used_s, passed_s = before_cpu_s - then_cpu_s, at_s - then_s
        if used_s > LEAST_BUSY * passed_s:
            cpu.let_compute(sleep)
        at_s = time.perf_counter()
        inside = sum(not call.is_answered for call in list(under_way.values()))
        try:
            rows = sample()
        except Exception as problem:  # something changed while it was read
            rows, error = None, f"{type(problem).__name__}: {problem}"
        cost_s, taken = time.thread_time() - cpu_s, taken + 1  # with what it took to write the one before
        cpu_s += cost_s
        if rows is not None:
            scale = used_s / max(cpu.other_cpu_s() - before_cpu_s, 1e-9)
            for row in rows:
                row["cpu_s"] *= scale
            known_s = used_s if any(cpu.computed_s.values()) else 0.0  # none where no thread has a clock
            write(file, at=at_s, cost=cost_s, cpu=known_s, inside=inside, rows=rows)
        budget.left_s -= min(cost_s, 3 * before_s)  # now and then Python collects its garbage here
        before_s, then_s, then_cpu_s = cost_s, at_s, cpu.other_cpu_s()
        pause_s = max(PAUSE_S if taken < FIRST else LATER_S, 10 * cost_s)
    try:
        write(file, made=source.made(owners), error=error)
    except Exception as problem:
        write(file, made={}, error=f"{type(problem).__name__}: {problem}")
    owners.clear()


def write(file, **said):
    file.write(json.dumps({"pid": os.getpid(), **said}, default=as_number).encode() + b"\n")


def as_number(value):
    """A size may be a number of any kind, or what a library keeps under that name."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
