"""A run as a trace for Perfetto or chrome://tracing: lanes of requests, predicted under measured. Pure.

Format: "Trace Event Format" of Chrome, an object with traceEvents; complete events ("X"), times in microseconds. A
lane is a thread (tid); its events follow each other, as viewers lose events that overlap without nesting.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from engine.page import Shown, numbered
from engine.timelines import Timed, lanes_of, measured_of, predicted_of, sampled

MOST_TRACED = 50_000  # requests of a run, measured and predicted each

Event = dict[str, Any]
Span = tuple[str, int, int, Timed]  # the name of its lanes, begin and end in microseconds


def trace(
    head: Mapping[str, Any], all_shown: Sequence[Shown], is_complete: bool = True, notes: Sequence[str] = ()
) -> str:
    """The whole trace as JSON. head: of a document, as files.heading() makes it. notes: they have no place in it."""
    events, left_out, names = list[Event](), 0, numbered([shown.title for shown in all_shown])
    for number, (name, shown) in enumerate(zip(names, all_shown, strict=True)):
        run, rows = shown.run, measured_of(shown.run, shown.log)
        left_out += max(0, len(rows) - MOST_TRACED)
        events += process(2 * number + 1, f"measured: {name}", sampled(rows, MOST_TRACED), measured_spans)
        # What is predicted for a part, as a change that is tried, comes from the run before it.
        predicted = [] if shown.is_part else sampled(predicted_of(run), MOST_TRACED)
        events += process(2 * number + 2, f"predicted: {name}", predicted, predicted_spans)
    about = {**head, "complete": is_complete, "requests_left_out": left_out}
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": about})


def process(pid: int, name: str, rows: Sequence[Timed], spans: Callable[[Timed], Iterator[Span]]) -> list[Event]:
    """The lanes of a run, measured or predicted; none if there are no requests."""
    if not rows:
        return []
    of_group = dict[str, list[Span]]()
    for one in rows:
        for span in spans(one):
            of_group.setdefault(span[0], []).append(span)
    events, tid = [label("process_name", pid, 0, name=name), label("process_sort_index", pid, 0, sort_index=pid)], 0
    for group in sorted(of_group, key=lambda group: (group.startswith("queue"), len(group), group)):
        found = of_group[group]
        lanes = lanes_of([(begin, end) for _, begin, end, _ in found])
        for lane in range(max(lanes) + 1):
            events.append(label("thread_name", pid, tid + lane + 1, name=f"{group} {lane + 1}"))
            events.append(label("thread_sort_index", pid, tid + lane + 1, sort_index=tid + lane + 1))
        events += [event(pid, tid + lane + 1, span) for span, lane in zip(found, lanes, strict=True)]
        tid += max(lanes) + 1
    return events


def measured_spans(one: Timed) -> Iterator[Span]:
    """Waiting and in its handler; or as a whole, where its handler's start is not known."""
    if one.started_s is None:
        yield "request", micro(one.sent_s), micro(one.answered_s), one
        return
    yield "queue", micro(one.sent_s), micro(one.started_s), one
    yield f"{one.worker or 'worker'} slot", micro(one.started_s), micro(one.ended_s), one


def predicted_spans(one: Timed) -> Iterator[Span]:
    assert one.started_s is not None
    yield "queue", micro(one.sent_s), micro(one.started_s), one
    yield "slot", micro(one.started_s), micro(one.ended_s), one


def micro(at_s: float) -> int:
    return round(at_s * 1e6)


def event(pid: int, tid: int, span: Span) -> Event:
    group, begin, end, one = span
    times = {"sent_s": one.sent_s, "started_s": one.started_s, "answered_s": one.answered_s, "error": one.error}
    shown = {name: value for name, value in times.items() if value is not None}
    what = "waits" if group == "queue" else "failed" if one.error else "request"
    name = f"#{one.number} {what}"
    return {
        "ph": "X",
        "pid": pid,
        "tid": tid,
        "ts": begin,
        "dur": end - begin,
        "name": name,
        "cat": what,
        "args": shown,
    }


def label(what: str, pid: int, tid: int, **args: Any) -> Event:
    return {"ph": "M", "pid": pid, "tid": tid, "name": what, "args": args}
