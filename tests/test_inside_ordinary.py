"""Ordinary ways to write a handler, of which a look inside told the wrong line, resource or number: wrapped, given a
time-out, shielded, in a thread of its own class, or with more to do once it has given back what others wait for."""

from __future__ import annotations

import pytest
from commands import run_bench
from servers import lines_of, write_files
from starlette.responses import JSONResponse
from starlette.routing import Router

from engine.inside.wrap._bench_frames import phase_of

FASTAPI = """
import asyncio, functools, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fastapi import FastAPI

jobs = asyncio.Queue()

async def model():
    while True:
        job = await jobs.get()
        await asyncio.sleep(0.05)
        job.done.set()

@asynccontextmanager
async def lifespan(app):
    task = asyncio.create_task(model())
    yield
    task.cancel()

app = FastAPI(lifespan=lifespan)
app.state.lock = asyncio.Lock()

@dataclass
class Farm:
    renderers: list = field(default_factory=list)

renderers = ThreadPoolExecutor(4)  # made

@app.get("/invoice")
async def with_a_time_out():
    await asyncio.wait_for(in_thread(), 30)  # waits

def in_thread():
    return asyncio.get_running_loop().run_in_executor(renderers, time.sleep, 0.1)

@app.get("/any")
async def the_first_of_several():
    await asyncio.wait([in_thread()])  # waits

pool = asyncio.Queue()
for name in "abcd":
    pool.put_nowait(name)

@app.get("/orders")
async def more_to_do_afterwards():
    one = await pool.get()  # waits
    try:
        await asyncio.sleep(0.1)
    finally:
        pool.put_nowait(one)
    await asyncio.sleep(0.1)

@app.get("/state")
async def a_lock_of_the_app():
    async with app.state.lock:  # waits
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)

def timed(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper

def tried_again(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper

@app.get("/rooms")  # wrapped
@timed
@tried_again
def rooms():
    time.sleep(0.2)

@dataclass
class Job:
    done: asyncio.Event = field(default_factory=asyncio.Event)

@app.get("/embed")
async def embed():
    job = Job()
    await jobs.put(job)
    await job.done.wait()  # waits

flights = {}

async def ask_exchange():
    await asyncio.sleep(0.3)  # works

@app.get("/prices")
async def price():
    if "gold" not in flights:
        flights["gold"] = asyncio.create_task(ask_exchange())
        flights["gold"].add_done_callback(lambda _: flights.pop("gold"))
    await asyncio.shield(flights["gold"])  # waits

sys.path.insert(0, "lib-packages")
from events import EventResponse

models = asyncio.Semaphore(4)

async def tokens():
    async with models:  # waits
        for number in range(5):
            await asyncio.sleep(0.05)
            yield b"word "

@app.get("/chat")
async def chat():
    return EventResponse(tokens())
"""
EVENTS = """
import anyio
from starlette.responses import Response

class EventResponse(Response):
    def __init__(self, content):
        self.body_iterator, self.status_code, self.background = content, 200, None
        self.init_headers({"content-type": "text/event-stream"})

    async def _ping(self):
        while True:
            await anyio.sleep(15)

    async def _until_the_client_leaves(self, receive):
        while (await receive())["type"] != "http.disconnect":
            pass

    async def _stream(self, send):
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for part in self.body_iterator:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def __call__(self, scope, receive, send):
        async with anyio.create_task_group() as group:
            async def until(function, *arguments):
                await function(*arguments)
                group.cancel_scope.cancel()

            group.start_soon(until, self._ping)
            group.start_soon(until, self._until_the_client_leaves, receive)
            await until(self._stream, send)
"""
FLASK = """
import contextvars, functools, threading, time
from flask import Flask, copy_current_request_context

app, press = Flask(__name__), threading.Semaphore(4)

class Stock:
    _lock = threading.Lock()

    def reserve(self):
        with self._lock:  # class
            time.sleep(0.02)
        time.sleep(0.06)

    @classmethod
    def counts(cls):
        with cls._lock:  # class
            time.sleep(0.02)
        time.sleep(0.06)

stock = Stock()

@app.get("/stock")
def reserves():
    stock.reserve()
    return ""

@app.get("/counts")
def counts():
    Stock.counts()
    return ""

locks = {}

@app.get("/keyed")
def keyed():
    with locks.setdefault("a", threading.Lock()):  # unnamed
        time.sleep(0.02)
    time.sleep(0.06)
    return ""

def prints():
    with press:  # prints
        time.sleep(0.1)

class Printer(threading.Thread):
    def run(self):
        prints()

def joined(*threads):
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return ""

@app.get("/class")
def of_a_class():
    return joined(Printer(), Printer())

@app.get("/partial")
def of_a_partial():
    return joined(*[threading.Thread(target=functools.partial(prints)) for _ in range(2)])

@app.get("/copied")
def with_the_request():
    return joined(*[threading.Thread(target=copy_current_request_context(prints)) for _ in range(2)])

@app.get("/context")
def in_its_context():
    return joined(*[threading.Thread(target=contextvars.copy_context().run, args=(prints,)) for _ in range(2)])
"""


FILES = {
    "ordinary.py": (FASTAPI, "ordinary"),
    "lib-packages/events.py": (EVENTS, ""),
    "ordinary_flask.py": (FLASK, "ordinary_flask"),
}


@pytest.fixture
def looked_into(tmp_path, monkeypatch):
    """What a look inside tells of a path of an app: the places, the first limit, and the run."""
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, {name: text for name, (text, _) in FILES.items()})

    def look(app, path, *how):
        (run,) = run_bench(tmp_path, "--app", f"{app}:app", "--path", path, *how)[1]["runs"]
        limit = next((one for one in run["verdict"]["limits"] if one["line"] or one["waiting"]), {})
        return run["inside"]["where"]["places"], limit, run

    return look


def fastapi(looked_into, path, *how):
    return looked_into("ordinary", path, *how)


def flask(looked_into, path, *how):
    return looked_into("ordinary_flask", path, "--server", "gunicorn-threads", "--threads", "20", *how)


def requests_at(places, lines, **having):
    return sum(
        one["requests"]
        for one in places
        if one["line"] in lines and all(one[name] == value for name, value in having.items())
    )


@pytest.mark.parametrize("path", ["/invoice", "/any"])
def test_who_waits_for_an_executor_with_a_time_out_waits_for_it(looked_into, path):
    places, limit, _ = fastapi(looked_into, path, "-n", "40")
    assert limit["slots"] == 4 and "thread" in limit["resource"]
    assert limit["size_line"] in lines_of(FASTAPI, "ordinary", "made")  # and not the field of that name
    assert not requests_at(places, lines_of(FASTAPI, "ordinary", "waits"), state="working", resource=None) > 8


def test_the_body_of_an_answer_is_made_after_the_handler():
    routed = Router.app.__code__
    made = JSONResponse.__init__.__code__, JSONResponse.render.__code__
    assert phase_of((routed, *made)) == "after the handler"
    assert phase_of((routed,)) == "before the handler"


@pytest.mark.parametrize("path, slots, held_s", [("/orders", 4, 0.1), ("/state", 1, 0.02)])
def test_who_has_given_it_back_does_not_have_it(looked_into, path, slots, held_s):
    _, limit, _ = fastapi(looked_into, path, "-c", "40", "-t", "3")
    assert limit["slots"] == slots and limit["line"] in lines_of(FASTAPI, "ordinary", "waits")
    assert limit["held_s"] is None or limit["held_s"] == pytest.approx(held_s, rel=0.4)


def test_the_handler_is_what_all_decorators_wrap(looked_into):
    places, _, _ = fastapi(looked_into, "/rooms", "-n", "90")
    (line,) = lines_of(FASTAPI, "ordinary", "wrapped")
    waiting = [one["handler"] for one in places if one["handler"]]
    assert waiting and set(waiting) == {line}


def test_who_waits_for_an_event_of_its_own_is_not_worked_on(looked_into):
    places, _, _ = fastapi(looked_into, "/embed", "-n", "40")
    assert requests_at(places, lines_of(FASTAPI, "ordinary", "waits"), resource="a result") > 10


def test_who_waits_behind_a_shield_waits_for_the_other_request(looked_into):
    places, _, _ = fastapi(looked_into, "/prices", "-c", "30", "-t", "2")
    waits, works = (lines_of(FASTAPI, "ordinary", word) for word in ("waits", "works"))
    assert requests_at(places, waits, resource="a future of several requests") > 20
    assert requests_at(places, waits | works, state="working") < 5


def test_a_library_that_pings_and_listens_beside_a_stream_does_not_work_for_it(looked_into):
    places, limit, _ = fastapi(looked_into, "/chat", "-n", "30")
    lines = lines_of(FASTAPI, "ordinary", "waits")
    assert limit["slots"] == 4 and limit["line"] in lines
    assert requests_at(places, lines, resource=None) < 3


@pytest.mark.parametrize("path", ["/stock", "/counts", "/keyed"])
def test_one_at_a_time_has_a_lock_whatever_it_does_afterwards(looked_into, path):
    _, limit, _ = flask(looked_into, path, "-c", "16", "-t", "3")
    assert limit["slots"] == 1 and "lock" in limit["resource"]
    assert limit["line"] in lines_of(FLASK, "ordinary_flask", "unnamed" if path == "/keyed" else "class")


@pytest.mark.parametrize("path", ["/class", "/partial", "/copied", "/context"])
def test_however_a_thread_is_started_its_wait_is_that_of_the_request(looked_into, path):
    _, limit, _ = flask(looked_into, path, "-n", "20")
    assert "emaphore" in limit["resource"] and limit["line"] in lines_of(FLASK, "ordinary_flask", "prints")
