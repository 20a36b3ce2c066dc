"""What requests have others do for them: threads that feed a queue, pools of threads, pools behind a context manager, a
mounted WSGI app, and what is made long after its global."""

from __future__ import annotations

import pytest
from commands import run_bench
from servers import lines_of, write_files

FASTAPI = """
import asyncio, queue, threading, time
from contextlib import asynccontextmanager
from fastapi import Depends, FastAPI
from fastapi.middleware.wsgi import WSGIMiddleware
from fastapi.responses import StreamingResponse
from sqlalchemy import create_engine
from sqlalchemy.pool import QueuePool
from db import db, state
import helpers_flask

@asynccontextmanager
async def lifespan(app):
    db.connect()
    state.engine = create_engine(  # made
        "sqlite:///shop.db", poolclass=QueuePool, pool_size=2, max_overflow=0)
    yield

app, model, pool = FastAPI(lifespan=lifespan), threading.Lock(), asyncio.Queue()
app.mount("/old", WSGIMiddleware(helpers_flask.app))
for name in "abcd":
    pool.put_nowait(name)

def generate(loop, tokens):
    with model:  # feeds
        for n in range(5):
            time.sleep(0.01)
            loop.call_soon_threadsafe(tokens.put_nowait, f"word{n} ")
    loop.call_soon_threadsafe(tokens.put_nowait, None)

async def body(tokens):
    while (token := await tokens.get()) is not None:
        yield token

@app.get("/chat")
async def chat():
    tokens = asyncio.Queue()
    threading.Thread(target=generate, args=(asyncio.get_running_loop(), tokens)).start()
    return StreamingResponse(body(tokens))

def mails(number):
    time.sleep(0.3)

permits = asyncio.Semaphore(60)

async def has_a_permit():
    async with permits:
        yield

@app.get("/dependency", dependencies=[Depends(has_a_permit)])
def behind_a_dependency():
    time.sleep(0.2)

@app.get("/mail")
async def mails_beside():
    event = asyncio.Event()
    threading.Thread(target=mails, args=(1,)).start()
    asyncio.get_running_loop().call_later(0.2, event.set)
    await event.wait()  # waits

@asynccontextmanager
async def connection():
    one = await pool.get()  # takes
    try:
        yield one
    finally:
        pool.put_nowait(one)

@app.get("/orders")
async def orders():
    await asyncio.sleep(0.05)
    async with connection():
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.1)

@app.get("/items")
def items():
    with db.engine.connect():
        time.sleep(0.1)

@app.get("/state")
def asks():
    with state.engine.connect():
        time.sleep(0.1)
"""
DB = """
from types import SimpleNamespace
from sqlalchemy import create_engine
from sqlalchemy.pool import QueuePool

class Database:
    engine = None

    def connect(self):
        self.engine = create_engine(  # made
            "sqlite:///shop.db", poolclass=QueuePool, pool_size=3, max_overflow=0)

db = Database()
state = SimpleNamespace()
"""
FLASK = """
import queue, random, threading, time
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool
from flask import Flask, g

app, helpers, model, pool = Flask(__name__), ThreadPool(4), threading.Lock(), queue.Queue()
for name in "abcd":
    pool.put(name)

@app.get("/report")
def report():
    time.sleep(0.3)
    return "ok"

def part(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:  # computes
        pass

@app.get("/apply")
def applies():
    helpers.apply(time.sleep, (0.1,))  # waits
    return ""

@app.get("/keyword")
def by_its_name():
    return helpers.apply_async(func=time.sleep, args=(0.1,)).get() or ""  # waits

class Helpers(ThreadPool):
    pass

own, mails = Helpers(4), ThreadPool(1)

@app.get("/own")
def beside_mails():
    mails.apply_async(time.sleep, (0.2,))
    own.apply(time.sleep, (0.1,))  # waits
    return ""

@app.get("/imap")
def of_an_iterator():
    mails.apply_async(time.sleep, (0.2,))
    list(helpers.imap(time.sleep, [0.1]))  # waits
    return ""

@app.get("/parts")
def many_parts():
    for one in [helpers.apply_async(time.sleep, (0.01,)) for _ in range(40)]:
        one.get()
    return ""

@app.get("/map")
def maps():
    helpers.map(part, [0.005] * 4)
    return ""

def generate(tokens):
    with model:  # feeds
        for n in range(5):
            time.sleep(0.01)
            tokens.put(f"word{n} ")
    tokens.put(None)

@app.get("/chat")
def chat():
    tokens = queue.Queue()
    threading.Thread(target=generate, args=(tokens,)).start()
    def body():
        while (token := tokens.get()) is not None:
            yield token
    return body()

def reads(source):
    with model:  # feeds
        time.sleep(0.05)
        source.put(None)

def transforms(source, out):
    out.put(source.get())

@app.get("/pipeline")
def of_two_threads():
    source, out = queue.Queue(), queue.Queue()
    threading.Thread(target=reads, args=(source,)).start()
    threading.Thread(target=transforms, args=(source, out)).start()
    out.get()
    return ""

class Shop:
    pool = None

    def opens(self):
        self.pool = queue.Queue()

    def opens_again(self):
        self.pool = queue.Queue()
        for name in "abcd":
            self.pool.put(name)

    def audits(self):
        time.sleep(0.5)

    def orders(self):
        threading.Thread(target=self.audits).start()
        one = self.pool.get()  # shop
        time.sleep(0.1)
        self.pool.put(one)

shop = Shop()  # made
shop.opens_again()

@app.get("/shop")
def with_an_audit_that_it_does_not_wait_for():
    shop.orders()
    return ""

def part_of_request():
    if "db" not in g:
        g.db = pool.get()  # until the end
    return connection_of(g.db)

@contextmanager
def connection_of(db):
    yield db

@app.teardown_appcontext
def closes(error):
    if "db" in g:
        pool.put(g.db)

@app.get("/whole")
def has_it_until_its_end():
    with part_of_request():
        time.sleep(random.uniform(0.01, 0.03))
    time.sleep(random.uniform(0.05, 0.25))
    return ""

@app.get("/loop")
def takes_it_in_a_loop():
    for _ in range(4):
        price()
        part_of_request()
        time.sleep(0.003)
    return ""

def price():
    time.sleep(random.uniform(0.03, 0.1))

@contextmanager
def connection():
    one = pool.get()  # takes
    try:
        yield one
    finally:
        pool.put(one)

@app.get("/orders")
def orders():
    time.sleep(0.02)
    with connection():
        time.sleep(0.1)
    time.sleep(0.05)
    return ""

class Bucket:
    def __init__(self, per_s):
        self.lock, self.pause_s, self.next_s = threading.Lock(), 1 / per_s, 0.0

    def acquire(self):
        with self.lock:
            now = time.monotonic()
            self.next_s = max(now, self.next_s + self.pause_s)
            return self.next_s - now

bucket = Bucket(40)

@app.get("/paced")
def paced():
    time.sleep(bucket.acquire())  # sleeps
    return ""
"""
FLASK_ON = "--server", "gunicorn-threads", "--threads", "20"


@pytest.fixture
def look(tmp_path, monkeypatch):
    """What a look inside tells of a path of an app: the run, and its first limit that was seen."""
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, {"helpers.py": FASTAPI, "db.py": DB, "helpers_flask.py": FLASK})

    def look_at(app, path, *how):
        (run,) = run_bench(tmp_path, "--app", f"{app}:app", "--path", path, *how)[1]["runs"]
        return run, next((one for one in run["verdict"]["limits"] if one["line"] or one["waiting"]), {})

    return look_at


@pytest.mark.parametrize("how", [("helpers",), ("helpers_flask", *FLASK_ON)], ids=["fastapi", "flask"])
def test_a_thread_that_feeds_a_queue_works_for_the_request_that_reads_it(look, how):
    app, *on = how
    _, limit = look(app, "/chat", *on, "-n", "20")
    text = FASTAPI if app == "helpers" else FLASK
    assert "lock" in limit["resource"] and limit["slots"] == 1 and limit["line"] in lines_of(text, app, "feeds")
    assert limit["held_s"] == pytest.approx(0.05, rel=0.5)


def test_a_thread_that_knows_nothing_of_an_event_does_not_set_it(look):
    run, _ = look("helpers", "/mail", "-n", "10")
    at = {one["line"]: one["requests"] for one in run["inside"]["where"]["places"]}
    (line,) = lines_of(FASTAPI, "helpers", "waits")
    assert at.get(line, 0.0) > 5


@pytest.mark.parametrize("how", [("helpers", "-c", "40"), ("helpers_flask", *FLASK_ON, "-c", "20")])
def test_who_is_outside_of_the_with_statement_does_not_have_what_its_manager_took(look, how):
    app, *on = how
    _, limit = look(app, "/orders", *on, "-t", "3")
    assert limit["slots"] == 4 and limit["held_s"] == pytest.approx(0.1, rel=0.3)
    assert limit["line"] in lines_of(FASTAPI if app == "helpers" else FLASK, app, "takes")


def test_a_pool_of_threads_has_a_size_and_computes_for_its_requests(look):
    _, limit = look("helpers_flask", "/apply", *FLASK_ON, "-n", "20")
    assert (limit["resource"], limit["slots"]) == ("a thread of a ThreadPool", 4)
    assert limit["held_s"] == pytest.approx(0.1, rel=0.3) and limit["line"] in lines_of(FLASK, "helpers_flask", "waits")
    run, _ = look("helpers_flask", "/map", *FLASK_ON, "-c", "20", "-t", "2")
    (cpu,) = (one for one in run["verdict"]["limits"] if one["resource"] == "cpu")
    assert cpu["held_s"] == pytest.approx(0.02, rel=0.5)  # of requests


@pytest.mark.parametrize("path", ["/keyword", "/own", "/imap"])
def test_which_pool_of_threads_is_waited_for_is_seen_however_it_is_called(look, path):
    _, limit = look("helpers_flask", path, *FLASK_ON, "-n", "20")
    assert limit["resource"].startswith("a thread of a") and limit["slots"] == 4
    assert limit["line"] in lines_of(FLASK, "helpers_flask", "waits") and limit["held_s"] == pytest.approx(0.1, rel=0.3)


def test_a_request_that_has_all_threads_is_one_request_at_a_time(look):
    run, limit = look("helpers_flask", "/parts", *FLASK_ON, "-n", "8")
    assert (limit["slots"], limit["parts"]) == (1, 4)
    assert run["inside"]["where"]["cost"] < 0.1


def test_a_pipeline_of_threads_is_followed_to_its_begin(look):
    _, limit = look("helpers_flask", "/pipeline", *FLASK_ON, "-n", "20")
    assert "lock" in limit["resource"] and limit["line"] in lines_of(FLASK, "helpers_flask", "feeds")


def test_a_thread_that_has_what_others_wait_for_too_does_not_feed_it(look):
    _, limit = look("helpers_flask", "/shop", *FLASK_ON, "-c", "20", "-t", "2")
    assert (limit["slots"], limit["line"]) == (4, *lines_of(FLASK, "helpers_flask", "shop"))
    assert limit["size_line"] in lines_of(FLASK, "helpers_flask", "made")  # which of two methods made it is not known


@pytest.mark.parametrize("path", ["/whole", "/loop"])
def test_what_is_had_to_the_end_of_a_request_is_not_given_back_by_another_statement(look, path):
    _, limit = look("helpers_flask", path, *FLASK_ON, "-c", "20", "-t", "3")
    assert limit["line"] in lines_of(FLASK, "helpers_flask", "until the end") and limit["slots"] >= 4


def test_who_waits_for_a_thread_may_have_what_a_dependency_took(look):
    _, limit = look("helpers", "/dependency", "-c", "100", "-t", "3")
    assert (limit["resource"], limit["slots"]) == ("AnyIO's threads", 40)


def test_of_a_mounted_wsgi_app_a_request_begins_with_its_thread(look):
    run, limit = look("helpers", "/old/report", "-n", "60")
    assert run["inside"]["slots_seen"] == 40 and limit["slots"] == 40
    assert run["inside"]["handler_s"] < 60 * 0.3 * 1.3


@pytest.mark.parametrize("path, module, text", [("/items", "db", DB), ("/state", "helpers", FASTAPI)])
def test_what_is_made_after_its_global_is_made_where_the_call_is(look, path, module, text):
    _, limit = look("helpers", path, "-n", "40")
    assert limit["size_line"] in lines_of(text, module, "made")


def test_who_sleeps_as_long_as_a_bucket_says_waits_for_no_lock(look):
    run, limit = look("helpers_flask", "/paced", *FLASK_ON, "-c", "20", "-t", "2")
    assert limit == {} or "lock" not in limit["resource"]
    lines = lines_of(FLASK, "helpers_flask", "sleeps")
    sleeping = [one for one in run["inside"]["where"]["places"] if one["line"] in lines and not one["resource"]]
    assert sum(one["requests"] for one in sleeping) > 15
