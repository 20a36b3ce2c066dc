"""Apps of which a look inside told the line, the resource or the number of something that their requests do not wait
for: what they only start, or take one after the other, or have in parts."""

from __future__ import annotations

import sys

import pytest
from commands import run_bench
from servers import lines_of, write_files

FASTAPI = """
import asyncio, threading, time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

app, running = FastAPI(), set()
reports = asyncio.Semaphore(10)  # limits
printers = asyncio.Semaphore(2)

async def query():
    async with reports:
        await asyncio.sleep(0.3)

async def render():
    async with printers:
        await asyncio.sleep(0.03)

@app.get("/turns")
async def in_turn():
    await query()
    await render()

mailers, smtp = ThreadPoolExecutor(64), threading.Semaphore(2)
db = asyncio.Semaphore(5)  # limits

def mail():
    with smtp:
        time.sleep(0.05)

@app.get("/mail")
async def sends_a_mail_beside():
    asyncio.get_running_loop().run_in_executor(mailers, mail)
    async with db:  # waits
        await asyncio.sleep(0.2)

desk = asyncio.Semaphore(2)

async def audit():
    async with desk:
        await asyncio.sleep(0.05)

def begins(coroutine):
    task = asyncio.create_task(coroutine)
    running.add(task)
    task.add_done_callback(running.discard)
    return task

@app.get("/audits")
async def starts_an_audit():
    begins(audit())
    await asyncio.sleep(0.3)  # waits

models = asyncio.Queue()  # limits
for name in "abcd":
    models.put_nowait(name)

async def produce(tokens):
    model = await models.get()  # waits
    try:
        for _ in range(5):
            await asyncio.sleep(0.02)
            tokens.put_nowait("word ")
    finally:
        models.put_nowait(model)
        tokens.put_nowait(None)

async def body(tokens):
    while (word := await tokens.get()) is not None:  # signal
        yield word

@app.get("/chat")
async def streams_what_a_task_makes():
    tokens = asyncio.Queue()
    begins(produce(tokens))
    return StreamingResponse(body(tokens))

async def weather():
    model = await models.get()
    await asyncio.sleep(0.2)
    models.put_nowait(model)

@app.get("/both")
async def asks_for_news_beside():
    await asyncio.gather(weather(), asyncio.sleep(0.3))

class Rate:
    def __init__(self, per_s):
        self.tokens, self.pause_s, self.task = asyncio.Semaphore(0), 1 / per_s, None

    async def take(self):
        if self.task is None:
            self.task = asyncio.create_task(self.drip())
        await self.tokens.acquire()

    async def drip(self):
        while True:
            await asyncio.sleep(self.pause_s)
            self.tokens.release()

rate = Rate(20)

@app.get("/rate")
async def takes_a_token():
    await rate.take()
    await asyncio.sleep(0.25)

@dataclass
class Gateway:
    slots: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, 3))

gateway = Gateway()  # limits

@app.get("/gateway")
async def has_one_of_a_dataclass():
    async with gateway.slots:
        await asyncio.sleep(0.1)
"""
BEHIND = (
    FASTAPI
    + """
@app.middleware("http")
async def timing(request, call_next):
    return await call_next(request)
"""
)
FLASK = """
import asyncio, threading, time
from concurrent.futures import ThreadPoolExecutor
from flask import Flask

app, loop, gateway = Flask(__name__), asyncio.new_event_loop(), asyncio.Semaphore(3)  # limits
threading.Thread(target=loop.run_forever, daemon=True).start()
mailers, smtp = ThreadPoolExecutor(50), threading.Semaphore(2)
press = threading.Semaphore(4)  # limits

def mail():
    with smtp:
        time.sleep(0.05)

@app.get("/mails")
def sends_a_mail_beside():
    mailers.submit(mail)
    time.sleep(0.3)  # waits
    return ""

def part(n):
    end = time.thread_time() + n
    while time.thread_time() < end:
        pass

def in_threads(target, *arguments):
    threads = [threading.Thread(target=target, args=arguments) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return ""

@app.get("/parts")
def computes_in_threads():
    return in_threads(part, 0.01)

def prints():
    with press:  # waits
        time.sleep(0.1)

@app.get("/prints")
def prints_in_threads():
    return in_threads(prints)

async def ask():
    async with gateway:  # waits
        await asyncio.sleep(0.1)

@app.get("/portal")
def asks_a_loop():
    asyncio.run_coroutine_threadsafe(ask(), loop).result()
    return ""
"""
POOLED = """
import asyncio, hashlib, subprocess, sys, time
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from fastapi import FastAPI

def computes(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass

@asynccontextmanager
async def lifespan(app):
    with ProcessPoolExecutor(2) as app.state.pool:
        yield

app = FastAPI(lifespan=lifespan)

@app.get("/pool")
async def in_other_processes():
    await asyncio.get_running_loop().run_in_executor(app.state.pool, computes, 0.1)

@app.get("/started")
def in_a_process_of_its_own():
    subprocess.run([sys.executable, "-S", "-c", "sum(range(3_000_000))"])

@app.get("/hash")
def without_pythons_lock():
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 150_000)

@app.get("/here")
def in_this_process():
    computes(0.02)
"""
SHOP = {
    "driver.py": "class Connection:\n    def rollback(self): ...\n    close = commit = rollback\n",
    "db.py": "from driver import Connection\nfrom sqlalchemy.pool import QueuePool\n\n"
    "pool = QueuePool(Connection, pool_size=3, max_overflow=0)\n",
    "orders.py": "import time\n\n\nclass Orders:\n    def __init__(self, pool):\n        self.pool = pool\n\n"
    "    def all(self):\n        connection = self.pool.connect()\n        time.sleep(0.1)\n"
    "        connection.close()\n        return '[]'\n",
    "further_shop.py": "from db import pool\nfrom flask import Flask\nfrom orders import Orders\n\n"
    "app = Flask(__name__)\norders = Orders(pool)\n\n\n@app.get('/')\ndef index():\n    return orders.all()\n",
}


@pytest.fixture
def looked_into(tmp_path, monkeypatch):
    """What a look inside tells of a path of an app: the places and the first limit."""
    monkeypatch.chdir(tmp_path)

    def look(app, path, *how, files=None):
        write_files(tmp_path, files or {})
        (run,) = run_bench(tmp_path, "--app", f"{app}:app", "--path", path, *how)[1]["runs"]
        limit = next((one for one in run["verdict"]["limits"] if one["line"] or one["waiting"]), {})
        return run["inside"]["where"]["places"], limit, run

    return look


def fastapi(looked_into, path, *how):
    places, limit, run = looked_into("further", path, *how, files={"further.py": FASTAPI})
    return places, limit, lines_of(FASTAPI, "further", "limits"), run


def flask(looked_into, path, *how):
    how = ("--server", "gunicorn-threads", "--threads", "20", *how)
    return looked_into("further_flask", path, *how, files={"further_flask.py": FLASK})


def test_of_two_in_different_functions_the_one_with_the_queue_limits(looked_into):
    _, limit, made, _ = fastapi(looked_into, "/turns", "-c", "40", "-t", "3")
    assert limit["size_line"] in made and limit["slots"] == 10
    assert limit["held_s"] is None or limit["held_s"] == pytest.approx(0.3, rel=0.2)


def test_what_is_sent_to_an_executor_and_not_waited_for_holds_nobody_up(looked_into):
    places, limit, made, _ = fastapi(looked_into, "/mail", "-n", "40")
    assert limit["size_line"] in made and limit["slots"] == 5
    assert not [one for one in places if "threading" in (one["resource"] or "")]


def test_nor_does_it_where_a_thread_serves_the_request(looked_into):
    places, limit, _ = flask(looked_into, "/mails", "-n", "20")
    assert "emaphore" not in f"{limit.get('resource')}{places}"


@pytest.mark.parametrize("text", [FASTAPI, BEHIND], ids=["plain", "middleware"])
def test_a_task_that_is_only_started_holds_nobody_up_behind_a_middleware_either(looked_into, text):
    places, limit, _ = looked_into("behind", "/audits", "-c", "20", "-t", "2", files={"behind.py": text})
    waiting = [one["requests"] for one in places if "emaphore" in (one["resource"] or "")]
    assert "emaphore" not in f"{limit.get('resource')}" and sum(waiting) < 1


@pytest.mark.parametrize("path, held_s", [("/chat", 0.1), ("/both", 0.2)])
def test_who_has_one_of_a_pool_has_it_whole_beside_what_else_it_does(looked_into, path, held_s):
    places, limit, made, _ = fastapi(looked_into, path, "-c", "40", "-t", "3")
    assert limit["size_line"] in made and limit["slots"] == 4
    assert limit["held_s"] is None or limit["held_s"] == pytest.approx(held_s, rel=0.25)
    assert not lines_of(FASTAPI, "further", "signal") & {one["line"] for one in places}


def test_a_bucket_that_the_first_request_fills_is_one(looked_into):
    _, limit, _, _ = fastapi(looked_into, "/rate", "-c", "30", "-t", "3")
    assert limit["slots"] is None and limit["held_s"] is None


def test_a_dataclass_makes_it_where_the_app_calls_it(looked_into):
    _, limit, made, _ = fastapi(looked_into, "/gateway", "-n", "30")
    assert limit["size_line"] in made and limit["slots"] == 3


def test_a_pool_is_made_where_it_is_assigned_and_not_where_it_is_given(looked_into):
    how = ("--server", "gunicorn-threads", "--threads", "12", "-n", "36")
    _, limit, _ = looked_into("further_shop", "/", *how, files=SHOP)
    assert limit["size_line"] == "db.py:4" and limit["slots"] == 3


def test_threads_that_a_request_starts_and_waits_for_compute_for_it(looked_into):
    places, _, run = flask(looked_into, "/parts", "-c", "8", "-t", "2")
    all_s, beside_s = (sum(one["cpu_s"] for one in some) for some in (
        places, [one for one in places if one["state"] == "beside"]))  # fmt: skip
    assert beside_s <= 0.2 * all_s
    assert run["verdict"]["limits"][0]["resource"] == "cpu"


def test_what_they_wait_for_is_what_the_request_waits_for(looked_into):
    _, limit, _ = flask(looked_into, "/prints", "-n", "20")
    made = lines_of(FLASK, "further_flask", "limits")
    assert limit["size_line"] in made and limit["line"] in lines_of(FLASK, "further_flask", "waits")


def test_a_thread_that_waits_for_a_task_waits_for_what_that_waits_for(looked_into):
    _, limit, _ = flask(looked_into, "/portal", "-n", "40")
    made = lines_of(FLASK, "further_flask", "limits")
    assert limit["size_line"] in made and limit["slots"] == 3 and "emaphore" in limit["resource"]


@pytest.mark.skipif(sys.platform != "linux", reason="the CPU time of a process is Linux's")
@pytest.mark.parametrize("path, is_one", [("/pool", False), ("/started", False), ("/hash", False), ("/here", True)])
def test_what_computes_elsewhere_has_more_than_one_cpu(looked_into, path, is_one):
    _, _, run = looked_into("pooled", path, "-c", "2", "-t", "2", files={"pooled.py": POOLED})
    if run["plan"]["cpus"] < 2:
        pytest.skip("one CPU")
    if not is_one and run["measured"]["server_cpu_s"] < 1.2 * run["measured"]["measured_s"]:
        pytest.skip("other programs have the CPUs")
    (cpus,) = {one["cpus"] for one in run["verdict"]["limits"] if one["resource"] == "cpu"}
    assert (cpus == 1) == is_one and (run["inside"]["cpus"] <= 1) == is_one
