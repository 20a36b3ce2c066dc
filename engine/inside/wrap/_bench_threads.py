"""The threads of this process, and the requests that they work for. Standard library only, for the process of the
server."""

import threading
from collections import defaultdict

from _bench_calls import greenlets, loops, serving, started, under_way_yet
from _bench_frames import stack_of
from _bench_place import Place, at_hand, globals_of, is_queued, waits_for_join, waits_for_thread, wanted


def background_places(threads):
    """Threads of the app that are not known to work for a request, but may take the CPU from those that do. The main
    one is the server's: it began in a script, be it the app's or gunicorn's, and accepts what others answer."""
    serve = {thread for thread, call in [*serving.items(), *started.items()] if under_way_yet(call)}
    of_greenlets = {thread for _, thread in list(greenlets.values())}
    known = {threading.main_thread().ident, *serve, *loops.values(), *of_greenlets}
    found = [Place(None, stack_of(frame), thread) for thread, frame in threads.items() if thread not in known]
    return [place for place in found if place.app]


def places_of_started(threads):
    """By request, the threads of the app's own that it has started."""
    found = defaultdict(list)
    for thread, call in list(started.items()):
        if thread in threads and under_way_yet(call):
            found[call].append(Place(call, stack_of(threads[thread]), thread))
    return found


def places_of_threads(threads, own_threads):
    """By request, the threads that work for it."""
    found = defaultdict(list)
    for thread, call in list(serving.items()):
        if thread in threads and under_way_yet(call):
            found[call].append(Place(call, stack_of(threads[thread]), thread))
    for call, own in found.items():
        found[call] = those_that_feed(own, own_threads.get(call, ()))
    for own in found.values():
        have_threads_stand_inside(own)
    return found


def have_threads_stand_inside(own):
    """Have threads without code of the app stand where another one of their request waits for them."""
    outer = next((one for one in own if one.app and waits_for_thread(one) and not is_queued(one)), None)
    for one in own if outer else ():
        one.stands_inside(outer.frames_to_app)


def those_that_feed(own, threads):
    """Of the places of a request that wait, in their stead the threads of its own that will set or put what they wait
    for, or that they join."""
    if not threads:
        return own
    of_all = globals_of([*own, *threads])
    hands, wants = [(one, at_hand(one, of_all)) for one in threads], {one: wanted(one) for one in [*own, *threads]}
    found, feeding = set(map(wants.get, own)), []
    while more := [one for one, hand in hands if one not in feeding and not hand.isdisjoint(found)]:
        feeding += more  # each may wait for the next
        found = set(map(wants.get, more))
    done = {one: set().union(*(hand for by, hand in hands if by in feeding and by is not one)) for one in wants}
    return [one for one in [*own, *feeding] if wants[one] not in done[one]] or own


def deepest_threads(own):
    """Of the threads of one request, those that wait for what no thread works on yet; else those that do not wait for
    another one of them."""
    if queued := [one for one in own if is_queued(one)]:
        return queued
    return [one for one in own if len(own) == 1 or not (waits_for_thread(one) or waits_for_join(one))] or own
