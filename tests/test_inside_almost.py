"""Apps of which a look inside would tell a line, a resource or a number that is not so."""

from __future__ import annotations

import re

import pytest
from commands import run_bench
from servers import write_files

FASTAPI = """
import asyncio, threading, time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
import anyio
from anyio.to_thread import run_sync
from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool

jobs, lock, rows = asyncio.Queue(maxsize=2), threading.Lock(), []

async def works():
    while True:
        done = await jobs.get()
        await asyncio.sleep(1.2)
        done.set_result(1)

@asynccontextmanager
async def lifespan(app):
    app.state.limiter = anyio.CapacityLimiter(3)
    tasks = [asyncio.create_task(works()) for _ in range(4)]
    yield

app = FastAPI(lifespan=lifespan)

@app.middleware("http")
async def timing(request, call_next):
    return await call_next(request)  # passes it on

@app.get("/thread")
async def in_a_thread():
    await run_in_threadpool(time.sleep, 0.3)  # waits

@app.get("/gather")
async def asks_two():
    await asyncio.gather(asyncio.sleep(0.3), asyncio.sleep(0.3))  # waits

async def fetch():
    time.sleep(0.2)  # waits

@app.get("/own-loop")
def has_a_loop_of_its_own():
    asyncio.run(fetch())

def part(i):
    time.sleep(0.3)

@app.get("/executor")
def fans_out():
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(part, range(4)))

@app.get("/executor-of-c")
def fans_out_to_c():
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(time.sleep, [0.3] * 4))  # waits

shared = ThreadPoolExecutor(4)

@app.get("/shared")
def waits_for_a_shared_executor():
    shared.submit(time.sleep, 0.3).result()  # waits

def saves():
    with lock:
        time.sleep(0.6)

@app.get("/saves")
async def takes_a_lock_that_a_thread_has():
    with lock:
        rows.append(1)
    await asyncio.to_thread(saves)

@app.get("/queue")
async def asks_workers():
    done = asyncio.get_running_loop().create_future()
    await jobs.put(done)
    return await done

@app.get("/kept")
async def takes_what_the_app_keeps(request: Request):
    async with request.app.state.limiter:
        await asyncio.sleep(0.2)

def computes():
    ends = time.thread_time() + 0.05
    while time.thread_time() < ends:
        pass

@app.get("/computes")
async def computes_in_a_thread():
    await run_sync(computes)
"""
MORE = """
import asyncio
from contextlib import asynccontextmanager
from fastapi import FastAPI

jobs, four, six = asyncio.Queue(), asyncio.Semaphore(4), asyncio.Semaphore(6)

async def works():
    while True:
        done = await jobs.get()
        await asyncio.sleep(0.05)
        done.set_result(1)

@asynccontextmanager
async def lifespan(app):
    tasks = [asyncio.create_task(works()) for _ in range(4)]
    yield

class RequestId:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)  # passes it on

app = FastAPI(lifespan=lifespan)
app.add_middleware(RequestId)

async def fetches():
    await asyncio.sleep(0.1)

@app.get("/predict")
async def asks_after_it_has_fetched():
    await fetches()
    done = asyncio.get_running_loop().create_future()
    jobs.put_nowait(done)
    return await done

@app.get("/rows")
async def many_rows():
    return [{"id": i, "name": "x" * 20, "tags": ["a", "b"]} for i in range(3000)]

@app.get("/report")
async def needs_one_of_four():
    async with four:
        await asyncio.sleep(0.1)

@app.get("/feed")
async def needs_none():
    await asyncio.sleep(0.3)

async def asks():
    async with four:
        await asyncio.sleep(0.05)

@app.get("/three-parts")
async def asks_three():
    await asyncio.gather(*(asks() for _ in range(3)))
"""
INSTALLED = """
import asyncio
from fastapi import FastAPI

app = FastAPI()

@app.get("/")
async def index():
    await asyncio.sleep(0.5)
"""
KINDS = """
[[kinds]]
path = "/report"
[[kinds]]
path = "/feed"
"""
FLASK = """
import functools, sqlite3, threading, time
from concurrent.futures import ThreadPoolExecutor, wait
from flask import Flask, render_template
from jobs.queue import JobQueue

app, queue, lock, gateway = Flask(__name__), JobQueue(), threading.Lock(), threading.Semaphore(6)

@app.get("/async")
async def blocks_its_own_loop():
    time.sleep(0.2)  # waits
    return ""

@app.get("/page")
def renders():
    return render_template("page.html", report=functools.partial(time.sleep, 0.2))

@app.get("/put")
def puts():
    queue.put("mail")
    return ""

audits = ThreadPoolExecutor(2)
pages = ThreadPoolExecutor(6)

@app.get("/two-executors")
def waits_for_one_of_two_executors():
    audits.submit(time.sleep, 0.4)
    pages.submit(time.sleep, 0.2).result()
    return ""

audits_of_many = ThreadPoolExecutor(30)

@app.get("/audit-beside")
def waits_while_another_thread_of_it_works():
    audits_of_many.submit(time.sleep, 1)
    pages.submit(time.sleep, 0.2).result()
    return ""

@app.get("/wait-for-pages")
def waits_for_several_of_one_of_two_executors():
    audits.submit(time.sleep, 0.4)
    wait([pages.submit(time.sleep, 0.2), pages.submit(time.sleep, 0.2)])
    return ""

@app.get("/parts")
def has_it_once_for_all_its_threads():
    with gateway:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(time.sleep, [0.2] * 4))
    return ""

class Pool:
    def __init__(self):
        self.items, self.free = [], threading.Semaphore(0)

    def put(self, item):
        self.items.append(item)
        self.free.release()

    def get(self):
        self.free.acquire()
        return self.items.pop()

pool = Pool()
for name in "abcd":
    pool.put(name)

@app.get("/pool")
def has_one_of_a_pool():
    item = pool.get()
    time.sleep(0.2)
    pool.put(item)
    return ""

def number():
    with lock:
        time.sleep(0.008)

def pays():
    with gateway:
        time.sleep(0.1)

@app.get("/order")
def orders():
    number()
    pays()
    return ""

@app.get("/memory")
def has_a_database_of_its_own():
    db = sqlite3.connect(":memory:")
    db.execute("create table sales (shop, amount)")
    db.executemany("insert into sales values (?, ?)", [(i % 50, i) for i in range(100_000)])
    return f"{db.execute('select sum(amount * amount) from sales').fetchone()}"
"""
QUEUE = """
import time

class JobQueue:
    def put(self, job):
        time.sleep(0.1)
"""
FILES = {
    "main.py": FASTAPI, "shop.py": FLASK, "more.py": MORE, "my-packages/installed.py": INSTALLED, "kinds.toml": KINDS,
    "jobs/__init__.py": "", "jobs/queue.py": QUEUE,
    "templates/page.html": "<html>\n{% block body %}\n{{ report() or '' }}\n{% endblock %}\n{{ 1 }}\n",
}  # fmt: skip
THREADS = ("--app", "shop:app", "--server", "gunicorn-threads", "--threads")


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    """The run, where its requests stood, and the report."""
    write_files(tmp_path, FILES)
    monkeypatch.chdir(tmp_path)

    def tell(*words):
        app = () if "--app" in words else ("--app", "main:app")
        (run,) = run_bench(tmp_path, *app, *words)[1]["runs"]
        return run, run["inside"]["where"], " ".join(capsys.readouterr().out.split())

    return tell


def lines_with(where, *states):
    return {one["line"] for one in where["places"] if not states or one["state"] in states}


def line_of(text, comment, after=""):
    lines = text.splitlines()
    begins = next((i for i, line in enumerate(lines) if after in line), 0)
    return 1 + next(i for i, line in enumerate(lines) if i >= begins and comment in line)


@pytest.mark.parametrize("path, function", [("/thread", "in_a_thread"), ("/gather", "asks_two")])
def test_a_request_does_not_stand_at_the_line_of_a_middleware(told, path, function):
    _, where, _ = told("--path", path, "-n", "30")
    passed_on = [one for one in where["places"] if one["line"] == f"main.py:{line_of(FASTAPI, '# passes it on')}"]
    assert sum(one["requests"] for one in passed_on) < 2
    assert f"main.py:{line_of(FASTAPI, '# waits', function)}" in lines_with(where)


def test_more_threads_than_are_followed_stand_in_their_handlers(told):
    _, where, _ = told("--path", "/thread", "-n", "300", "--anyio-threads", "200")
    at_work = {one["line"]: one["requests"] for one in where["places"] if one["state"] == "working"}
    assert at_work[f"main.py:{line_of(FASTAPI, '# waits', 'in_a_thread')}"] > 0.9 * sum(at_work.values())


@pytest.mark.parametrize(
    "words",
    [("--path", "/own-loop", "-n", "80"), (*THREADS, "16", "--path", "/async", "-n", "64")],
    ids=["run", "flask"],
)
def test_an_event_loop_of_one_request_blocks_no_other(told, words):
    _, where, text = told(*words)
    assert not lines_with(where, "blocking") and "event loop is blocked" not in text
    assert sum(one["requests"] for one in where["places"] if one["state"] == "working") > 14


def test_an_executors_threads_are_not_anyios(told):
    run, *_ = told("--path", "/executor", "-n", "80")
    assert run["verdict"]["limits"]
    assert {one["slots"] for one in run["verdict"]["limits"] if "AnyIO" in one["resource"]} <= {40}
    assert not any(one["parts"] > 1.5 for one in run["verdict"]["limits"])


def test_what_an_executor_does_in_c_is_in_the_handler(told):
    _, where, _ = told("--path", "/executor-of-c", "-n", "30")
    at_work = [one for one in where["places"] if one["state"] == "working"]
    here = f"main.py:{line_of(FASTAPI, '# waits', 'fans_out_to_c')}"
    assert sum(one["requests"] for one in at_work if one["line"] == here) > 0.7 * sum(
        one["requests"] for one in at_work
    )


def test_behind_a_middleware_requests_wait_for_an_executor_all_the_same(told):
    run, where, _ = told("--path", "/shared", "-n", "30")
    limit = run["verdict"]["limits"][0]
    assert (limit["slots"], limit["line"]) == (4, f"main.py:{line_of(FASTAPI, '# waits', 'shared_executor')}")
    passed_on = [one for one in where["places"] if one["line"] == f"main.py:{line_of(FASTAPI, '# passes it on')}"]
    assert sum(one["requests"] for one in passed_on) < 2


@pytest.mark.parametrize("path, n", [("/saves", 6), ("/queue", 24)])
def test_what_goes_on_by_itself_is_no_standstill(told, path, n):
    run, where, text = told("--path", path, "-n", str(n))
    assert run["measured"]["answered"] == n and not where["circle"] and "standstill" not in text


def test_what_the_app_keeps_is_not_made_where_the_app_is(told):
    limit = told("--path", "/kept", "-n", "30")[0]["verdict"]["limits"][0]
    assert (limit["slots"], limit["size_line"]) == (3, None)


def test_cpu_time_in_a_function_that_was_imported_by_its_name_is_the_requests(told):
    _, where, text = told("--path", "/computes", "-n", "60")
    assert not [one for one in where["places"] if one["state"] == "beside"] and "task of its own" not in text
    assert [one for one in where["places"] if one["function"] == "computes"]


def test_the_line_of_a_template_is_the_templates(told):
    _, where, _ = told(*THREADS, "8", "--path", "/page", "-n", "32")
    assert "templates/page.html:3" in lines_with(where)


def test_a_module_of_the_app_is_no_library(told):
    _, where, _ = told(*THREADS, "16", "--path", "/put", "-n", "64")
    assert not [one for one in where["places"] if one["resource"]]


def test_of_a_burst_what_is_waited_for_to_the_end_limits(told):
    limit = told(*THREADS, "64", "--path", "/order", "-n", "64")[0]["verdict"]["limits"][0]
    assert (limit["slots"], limit["held_s"]) == (6, pytest.approx(0.1, rel=0.3))


def test_a_database_in_memory_has_no_lock_of_others(told):
    _, where, text = told(*THREADS, "8", "--path", "/memory", "-n", "40")
    assert "SQLite" not in text and not [one for one in where["places"] if one["state"] == "waiting"]


THREADS_30 = (*THREADS, "30")


def test_what_waits_for_several_futures_names_no_other_executor(told):
    run, *_ = told(*THREADS_30, "--path", "/wait-for-pages", "-n", "30")
    assert 2 not in [one["slots"] for one in run["verdict"]["limits"]]


def test_a_request_waits_though_another_thread_of_it_works(told):
    limit = told(*THREADS_30, "--path", "/audit-beside", "-n", "30")[0]["verdict"]["limits"][0]
    assert limit["slots"] * limit["parts"] == pytest.approx(6)
    assert limit["size_line"] == f"shop.py:{line_of(FLASK, 'pages =')}"


def test_a_request_that_works_in_several_threads_has_it_once(told):
    limit = told(*THREADS_30, "--path", "/parts", "-n", "30")[0]["verdict"]["limits"][0]
    assert (limit["slots"], limit["parts"]) == (6, 1)


def test_the_executor_that_is_waited_for_is_named(told):
    limit = told(*THREADS_30, "--path", "/two-executors", "-n", "30")[0]["verdict"]["limits"][0]
    assert (limit["slots"], limit["size_line"]) == (6, f"shop.py:{line_of(FLASK, 'pages =')}")


def test_a_semaphore_that_is_filled_later_is_had(told):
    limit = told(*THREADS_30, "--path", "/pool", "-n", "48")[0]["verdict"]["limits"][0]
    assert limit["slots"] == 4 and limit["line"] == f"shop.py:{line_of(FLASK, 'self.free.acquire()')}"


def test_what_something_of_no_request_gives_is_had_by_none(told):
    run, _, text = told("--app", "more:app", "--path", "/predict", "-c", "40", "-t", "3")
    assert not [one for one in run["verdict"]["limits"] if one["resource"] == "a result" and one["slots"]]
    assert "no request was seen to have it" in text


def test_a_handler_that_is_installed_is_no_library_before_it(told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "my-packages")
    _, where, text = told("--app", "installed:app", "-n", "20")
    assert "before the handler" not in text and sum(one["requests"] for one in where["places"]) > 15


def test_what_blocks_behind_a_middleware_is_not_at_its_line(told):
    _, where, text = told("--app", "more:app", "--path", "/rows", "-c", "8", "-t", "2")
    assert f"more.py:{line_of(MORE, '# passes it on')}" not in lines_with(where) and "is blocked at more.py" not in text


def test_what_only_some_kinds_need_has_no_holding_time_by_the_rate_of_all(told):
    run, *_ = told("--app", "more:app", "--workload", "kinds.toml", "-c", "40", "-t", "4", "--seed", "1")
    limit = run["verdict"]["limits"][0]
    assert (limit["slots"], limit["held_s"], limit["ceiling_rps"]) == (4, None, None)


def test_of_a_size_that_parts_do_not_divide_no_other_is_said(told):
    run, _, text = told("--app", "more:app", "--path", "/three-parts", "-n", "40")
    limit = run["verdict"]["limits"][0]
    assert limit["parts"] > 2.5 and limit["slots"] * limit["parts"] == pytest.approx(4)
    assert not re.search(r"\d\.\d{3,} (requests )?at a time", text)
