"""What is almost true and is not said: an app, a load or an input for which a sentence of the report would be false."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from commands import BENCH, run_bench
from samples import LAUNCH, LOADS, sample_facts, sample_plan, sample_run, sample_statistics, sample_where
from servers import write_files

import bench
import sweep
from engine import before, listeners, report, report_changes, report_sizes, report_verdict
from engine.access_log import LogLine, slots_seen
from engine.advice import Cure, advice_for, asked_of, is_one_at_a_time
from engine.changes import Change, expected_s
from engine.client import Exchanges, Outcome
from engine.launch import Launch, in_force
from engine.limit import LOOP, Answers, is_lock, limit_of
from engine.listeners import Listener, slots_by_command
from engine.loads import Closed, Figure, Open
from engine.objectives import Found, Tried
from engine.places import Computing, Limit, Resource, Spot, State
from engine.plans import with_launch
from engine.processes import stopped_all
from engine.repeats import other_arrivals
from engine.report_before import conditions
from engine.report_where import doing, resource_text, seen_limit_text
from engine.report_words import WARNINGS
from engine.run import Explanation, Prediction, Verdict
from engine.sizes import Asked, size
from engine.standstill import circle_of
from engine.summary import levels
from engine.tables import compared_figures
from engine.until import Wanted, until_of
from engine.verdict import judge, limit_of_slots, limits_of
from engine.victim import shares_slots
from engine.words import Problem
from engine.workload import read_log
from suites.comparison import comparison_report, failed_share, runs_of

# ---------------------------------------------------------------- what is known before a run


@pytest.mark.parametrize(
    "command_line, more, each",
    [
        ("python -m gunicorn -w 2 main:app", "", 1),
        ("/venv/bin/python /venv/bin/gunicorn --threads 8 main:app", "", 8),
        ("python -m gunicorn -c conf.py main:app", "", None),
        ("python -m gunicorn main:app", "gunicorn.conf.py", None),
        ("python -m gunicorn main:app", "GUNICORN_CMD_ARGS=--threads=8", None),
        ("gunicorn: master [main:app]", "", None),
        ("/srv/gunicorn/venv/bin/uvicorn main:app", "", None),
        ("/venv/bin/waitress-serve --threads=6 main:app", "", 6),
    ],
)
def test_slots_are_the_command_lines_only_where_nothing_else_sets_them(tmp_path, monkeypatch, command_line, more, each):
    folder = tmp_path / "7"
    (folder / "cwd").mkdir(parents=True)
    (folder / "environ").write_text(f"HOME=/\0{more if '=' in more else ''}")
    if more.endswith(".py"):
        (folder / "cwd" / more).touch()
    monkeypatch.setattr(listeners, "PROC", tmp_path)
    words = [command_line] if "[" in command_line else command_line.split()
    found = slots_by_command([Listener(7, 1, 1, tuple(words))])
    assert (found and found.each) == each


@pytest.mark.parametrize("requests, is_said", [(3, False), (300, True)])
def test_a_queue_grows_only_where_there_are_more_requests_than_slots(requests, is_said):
    plan = sample_plan(load=Open(requests, rate_rps=10.0), slots=5, wait_s=1.0)
    assert ("the queue grows" in conditions(plan, sample_facts().prediction, 5.0)) == is_said


@pytest.mark.parametrize(
    "changes, shares", [({}, True), ({"slots_stated": True}, None), ({"victim_handler": "async"}, True)]
)
def test_a_victim_shares_no_slots_that_may_be_those_of_a_pool(changes, shares):
    assert shares_slots(sample_plan(**changes)) is shares


# ---------------------------------------------------------------- what is said of failed requests

REFUSED = Tried(60.0, 0.025, 50.0, 60.0, failed=12)


def test_requests_that_were_refused_were_not_too_slow():
    assert "slow" not in report.tried_line(REFUSED, 0.5, 99) and "12 failed" in report.tried_line(REFUSED, 0.5, 99)
    for found in (Found(0.0, 60.0, 3), Found(52.0, 60.0, 3, varies_from=55.0)):
        text = report.found_rate(found, sample_run(), 0.5, 99)
        assert "longer" not in text and "p99 was" not in text
        assert "60/s did not" in text or "No rate held" in text


def test_an_objective_is_not_missed_by_slow_requests_where_there_were_none():
    run = sample_run(load=LOADS["open"], failed=3, answered=13, errors={"HTTP 429": 3})
    found = advice_for(run, (10.0, 99))
    text = report_sizes.advice_text(found, run)
    assert not found.is_kept and "3 of 16 requests failed" in text and "slow" not in text


def test_a_change_that_lets_requests_fail_is_no_cure():
    rows = [Change("as it is", 1.0, 1.0), Change("--limit", None, 0.05, failed=45)]
    *_, last = report_changes.changes_table(rows, Figure.LAST_ANSWER).splitlines()
    assert "45 failed" in last and "0.05" not in last and "50 ms" not in last


def test_the_last_answer_is_not_when_the_last_request_was_given_up():
    run = sample_run(measured_s=40.0, last_answer_s=0.06, failed=2, answered=14, errors={"timed out": 2})
    assert run.measured.of(Figure.LAST_ANSWER) == 0.06
    text = report_verdict.answers_text(run)
    assert "14 answers in 60 ms" in text and "a run of 40 s" in text
    assert "in 60 ms" in report.probe_line(run)
    none = sample_run(last_answer_s=None, failed=16, answered=0, errors={"timed out": 16}, latency_s=None)
    assert "0 answers, in a run of 4 s" in report_verdict.answers_text(none)
    assert "0 answered." in report.probe_line(none)


def test_a_run_ended_early_only_if_all_its_clients_ended_early():
    outcomes = [
        dataclasses.replace(one) if dataclasses.is_dataclass(one) else one for one in (stopped(), stopped(None))
    ]
    assert stopped_all(outcomes, 20) is None and stopped_all(outcomes[:1], 10) == "none was answered"
    assert "20" in stopped_all(outcomes[:1] * 2, 20)


def stopped(why="none was answered"):
    return Outcome._make([None] * len(Outcome._fields))._replace(stopped=why)


# ---------------------------------------------------------------- what is said of figures


def test_a_stage_that_was_cut_is_shorter_and_one_that_did_not_begin_has_no_line():
    ends = [(0.1 * k, 0.1 * k - 0.05, True) for k in range(1, 31)]
    found = levels(ends, 0.0, 3.0, ((1.0, 8), (10.0, 10), (5.0, 20)))
    assert [round(one.throughput_rps) for one in found] == [9, 10]


def test_what_a_signal_ended_was_not_ended_by_the_time():
    latencies_s = [0.1 + k * k % 977 / 1000 for k in range(5000)]
    wanted = Wanted(50, 0.0001)
    assert until_of(wanted, latencies_s, False, False, True).reason == "stopped"
    assert until_of(wanted, latencies_s, False, False, False).reason == "time"


def test_connections_that_the_client_closes_itself_are_not_the_servers():
    asked = {"load": LOADS["closed"], "keep_alive": True, "sockets_opened": 40, "sent": 40, "answered": 40}
    ids = [{one.id for one in judge(sample_facts(**asked, first_byte=cut), None, 0.002).warnings} for cut in (0, 1)]
    assert ["no-keep-alive" in one for one in ids] == [True, False]


def test_one_slow_request_is_no_limit_of_connections():
    asked = {"load": LOADS["closed"], "keep_alive": True, "failed": 1, "answered": 99, "sent": 100, "sockets_opened": 4}
    asked |= {"errors": {"timed out": 1}}
    ids = [{one.id for one in judge(sample_facts(**asked, never_answered=n), None, 0.002).warnings} for n in (1, 2)]
    assert ["starved" in one for one in ids] == [False, True]


def test_latency_that_falls_does_not_grow():
    words = [WARNINGS["drift"](Drifted(*times)) for times in ((0.1, 0.3), (0.3, 0.1))]
    assert ["grows" in one for one in words] == [True, False]


@dataclasses.dataclass
class Drifted:
    first_s: float
    last_s: float


def test_a_queue_that_grows_to_the_end_was_not_all_served():
    asked = {"load": Open(344, rate_rps=43.0), "throughput_rps": 40.0, "inside": None, "slots_known": False}
    facts = sample_facts(**asked, slots=None, slots_per_worker=None, wait_s=0.1, prediction=sample_facts().prediction)
    grows = dataclasses.replace(facts, measured=dataclasses.replace(facts.measured, drift=Drifted(0.1, 0.7)))
    assert [judge(one, None, 0.002).limits[0].resource for one in (facts, grows)] == ["arrivals", "none"]


def test_a_change_is_no_repeat_of_the_run_before_it():
    plan = {"target": "x", "path": "/", "load": {"kind": "burst", "requests": 16}}
    runs = [{"plan": plan | {"tried": tried}} for tried in ("", "--threads 8")]
    assert len(runs_of({"runs": runs})) == 2


def test_colours_in_a_log_hide_no_request(tmp_path):
    (tmp_path / "log").write_text('1 - "\x1b[36mGET /a HTTP/1.1\x1b[0m" 304 -\n1 - "GET /b HTTP/1.1" 200 -\n')
    found = read_log(tmp_path / "log")
    assert [one.path for one in found.kinds] == ["/a", "/b"] and not found.note


# ---------------------------------------------------------------- what is said of resources


@pytest.mark.parametrize(
    "name, is_it",
    [
        ("a lock (futures_lock)", True), ("the lock of a log handler (EventHandler)", True),
        ("a thread of a BlockingThreadPoolExecutor", False), ("a semaphore (app.BlockingSemaphore)", False),
    ],
)  # fmt: skip
def test_a_lock_is_told_by_the_beginning_of_its_name(name, is_it):
    assert is_lock(name) == is_one_at_a_time(Limit(name, 1.0)) == is_it
    assert (doing(Spot(5.0, State.WAITING, resource=name)) == "wait for a lock") == is_it
    assert "all of them" not in seen_limit_text(Limit(name, 1.0, slots=1, held_s=0.1))


LOCK = Spot(44.0, State.WAITING, "a.py:1", resource="a lock (asyncio.Lock)", size=1)
WORKS = Spot(1.0, State.WORKING, "a.py:5")


@pytest.mark.parametrize(
    "spots", [(LOCK, dataclasses.replace(LOCK, line="a.py:9")), (LOCK, dataclasses.replace(LOCK, line="a.py:9"), WORKS)]
)
def test_requests_that_wait_for_a_lock_at_two_lines_may_go_on_by_themselves(spots):
    assert circle_of(spots) == {}


@pytest.mark.parametrize(
    "shares, requests, line, is_timed",
    [
        ((0.95,), 1.0, "a.py:1", True),
        ((0.7,), 1.0, "a.py:1", False),
        ((0.25,), 1.0, None, True),
        ((0.9,), 0.0, "a.py:1", False),
    ],
)
def test_a_line_blocks_the_loop_for_the_time_that_it_has(shares, requests, line, is_timed):
    """Of other lines, in libraries, and of tasks of no request the rate of answers tells nothing."""
    blocks = [Spot(requests, State.BLOCKING, f"a.py:{k + 1}", share=share) for k, share in enumerate(shares)]
    blocks.append(Spot(1.0, State.BLOCKING, share=1.0 - sum(shares), below=("json/encoder.py:9 encode",)))
    where = sample_where(places=(WORKS,), blocked=1.0)
    found = limit_of(where, blocks, Answers([0.1 * k for k in range(100)], True))
    assert (found.resource, found.line, found.held_s is not None) == (LOOP, line, is_timed)


APP = """
import asyncio, hashlib, itertools, os, threading, time
import anyio.from_thread
from fastapi import BackgroundTasks, FastAPI

app, number = FastAPI(), itertools.count()
tills, cutters, binders = asyncio.Semaphore(5), asyncio.Semaphore(6), asyncio.BoundedSemaphore(4)
experts, lock = asyncio.Semaphore(2), asyncio.Lock()

def builds_an_index():
    while True:
        hashlib.pbkdf2_hmac("sha256", b"shop", b"index", 100_000)  # without Python's lock
        time.sleep(0.006)

if "INDEX" in os.environ:
    threading.Thread(target=builds_an_index, daemon=True).start()

@app.get("/tills")
async def has_a_till():
    async with tills:
        await asyncio.sleep(0.1)

@app.get("/books")
async def cut_then_bound():
    async with cutters:
        await asyncio.sleep(0.1)
    async with binders:
        await asyncio.sleep(0.1)

@app.get("/claims")
async def some_need_an_expert():
    is_large = next(number) % 2 == 0
    if is_large:
        await experts.acquire()
    try:
        await asyncio.sleep(0.2)
    finally:
        if is_large:
            experts.release()

class Bays:
    def __init__(self, size):
        self.free = asyncio.Semaphore(size)

bays = Bays(2)
for _ in range(3):
    bays.free.release()

@app.get("/wash")
async def in_one_of_five_bays():
    async with bays.free:
        await asyncio.sleep(0.2)

free, given_back = ["red", "green", "blue"], asyncio.Event()

@app.get("/print")
async def on_one_of_three_printers():
    while not free:
        given_back.clear()
        await given_back.wait()
    name = free.pop()
    await asyncio.sleep(0.2)
    free.append(name)
    given_back.set()

kept, good_until = {}, 0.0

async def load():
    global good_until
    await asyncio.sleep(1.2)
    good_until = time.monotonic() + 2

async def price():
    async with lock:
        if time.monotonic() > good_until:
            await load()

async def stock():
    async with lock:
        if time.monotonic() > good_until:
            await load()

@app.get("/goods")
async def goods():
    await asyncio.sleep(0.05)
    await (price() if next(number) % 2 else stock())

def waits(value):
    time.sleep(0.2 if next(number) < 10 else 0.4)

@app.get("/steady")
def steady():
    time.sleep(0.2)

@app.get("/slower")
def slower():
    waits(1)

three, four, two, seven = (asyncio.Semaphore(size) for size in (3, 4, 2, 7))

async def briefly(semaphore):
    async with semaphore:
        await asyncio.sleep(0.03)

@app.get("/fans-out")
async def fans_out():
    async with three:
        await asyncio.gather(*(briefly(four) for _ in range(4)))

async def has_one_of_two():
    async with two:
        await asyncio.sleep(0.05)

async def has_one_of_seven():
    async with seven:
        await asyncio.sleep(0.05)

@app.get("/both")
async def both_at_once():
    await asyncio.gather(has_one_of_two(), has_one_of_seven())

book, cashiers, desk = asyncio.Semaphore(1), asyncio.Semaphore(8), asyncio.Semaphore(1)

async def writes_it_in_the_book():
    async with book:
        await asyncio.sleep(0.008)

async def pays_a_cashier():
    async with cashiers:
        await asyncio.sleep(0.1)

@app.get("/book-and-cashier")
async def a_lock_beside_what_is_slower():
    await asyncio.gather(writes_it_in_the_book(), pays_a_cashier())

async def audits():
    async with desk:
        await asyncio.sleep(0.02)

@app.get("/audits")
async def starts_an_audit_and_does_not_wait_for_it():
    mails.add(asyncio.create_task(audits()))
    await asyncio.sleep(0.3)

async def has_one_of_three():
    async with three:
        await asyncio.sleep(0.05)

@app.get("/from-thread")
def sends_a_task_to_the_loop():
    anyio.from_thread.run(has_one_of_three)

@app.get("/threadsafe")
def sends_a_task_by_hand():
    asyncio.run_coroutine_threadsafe(has_one_of_three(), workers[0].get_loop()).result()

tries = asyncio.Semaphore(3)

@app.get("/retries")
async def tries_again():
    while True:
        try:
            await asyncio.wait_for(tries.acquire(), 0.02)
            break
        except asyncio.TimeoutError:
            await asyncio.sleep(0.03)
    await asyncio.sleep(0.05)
    tries.release()

both_free = asyncio.Semaphore(2)

@app.get("/gives-up")
async def gives_up():
    try:
        await asyncio.wait_for(both_free.acquire(), 0.04)
    except asyncio.TimeoutError:
        return
    await asyncio.sleep(0.05)
    both_free.release()

@app.get("/timeout")
async def gives_up_in_a_with_statement():
    try:
        async with asyncio.timeout(0.04):
            await both_free.acquire()
    except TimeoutError:
        return
    await asyncio.sleep(0.05)
    both_free.release()

six = asyncio.Semaphore(6)

@app.get("/asks-four")
async def asks_four_services_at_once():
    async with six:
        await asyncio.gather(*(asyncio.sleep(0.1) for _ in range(4)))

mails = set()

@app.get("/mails")
async def sends_a_mail_later():
    async with six:
        await asyncio.sleep(0.1)
    mails.add(asyncio.create_task(asyncio.sleep(1.5)))

jobs = asyncio.Queue()

async def works_on_jobs():
    while True:
        result = await jobs.get()
        await asyncio.sleep(0.1)
        result.set_result(1)

class Copies:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app({**scope}, receive, send)

app.add_middleware(Copies)

workers = []

@app.on_event("startup")
async def starts_workers():
    workers.extend(asyncio.create_task(works_on_jobs()) for _ in range(4))

@app.get("/jobs")
async def awaits_the_result_of_a_job():
    result = asyncio.get_running_loop().create_future()
    jobs.put_nowait(result)
    return await result

seats, printers = asyncio.Semaphore(8), asyncio.BoundedSemaphore(2)

@app.get("/closed")
async def gives_its_seat_back_early_if_it_is_closed():
    await seats.acquire()
    if len(mails) > 10**6:
        seats.release()
        return
    await asyncio.sleep(0.01)
    async with printers:
        await asyncio.sleep(0.05)
    seats.release()

class Alike:
    def __eq__(self, other):
        raise ValueError("compares its elements")

@app.get("/closure")
async def has_what_cannot_be_compared():
    alike, future = Alike(), asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda _: alike)
    asyncio.get_running_loop().call_later(0.2, future.set_result, 1)
    await future

@app.get("/later")
def works_after_the_answer(tasks: BackgroundTasks):
    time.sleep(0.05)
    tasks.add_task(time.sleep, 0.2)
"""
FLASK = """
import contextlib, fcntl, itertools, os, tempfile, threading, time
from flask import Flask, send_file

app, number, locks = Flask(__name__), itertools.count(), {}
page, is_loading, loads = threading.Condition(), False, 0
folder = tempfile.mkdtemp(dir=".")

@app.get("/rates")
def one_loads_for_all():
    global is_loading, loads
    with page:
        if is_loading:
            before = loads
            page.wait_for(lambda: loads > before)
            return ""
        is_loading = True
    time.sleep(0.1)
    with page:
        is_loading, loads = False, loads + 1
        page.notify_all()
    return ""

@app.get("/invoice")
def a_lock_file_each():
    with open(os.path.join(folder, f"{next(number) % 4}.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        time.sleep(0.2)
    return ""

number_lock, ovens = threading.Lock(), threading.BoundedSemaphore(2)

@app.get("/order")
def a_number_and_then_an_oven():
    with number_lock:
        time.sleep(0.015)
    with ovens:
        time.sleep(0.05)
    return ""

def lock_of(currency):
    return locks.setdefault(currency, threading.Lock())

@app.get("/walrus")
def takes_a_lock_as_it_names_it():
    (lock := lock_of("pound")).acquire()
    time.sleep(0.05)
    lock.release()
    return ""

@app.get("/stack")
def enters_a_lock_by_a_stack():
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock_of("yen"))
        time.sleep(0.05)
    return ""

@app.get("/file")
def sends_a_file():
    return send_file(__file__)

@app.get("/short")
def short():
    time.sleep(0.02)
    return ""

class Boats:
    def __init__(self):
        self.counter, self.free = threading.Lock(), threading.Semaphore(2)

    def get(self):
        with self.counter:
            self.free.acquire()

boats = Boats()

@app.get("/boat")
def waits_for_a_boat_at_the_counter():
    boats.get()
    time.sleep(0.1)
    boats.free.release()
    return ""

part = threading.Lock()

@app.get("/or-not")
def a_lock_if_it_is_free_soon():
    if part.acquire(timeout=0.03):
        time.sleep(0.05)
        part.release()
    else:
        time.sleep(0.02)
    return ""

@app.get("/change")
def a_lock_that_a_function_gives():
    with lock_of("euro"):
        time.sleep(0.1)
    return ""
"""
THREADS = ("--app", "shop:app", "--server", "gunicorn-threads", "--threads", "24")


def reported(tmp_path, monkeypatch, capsys, *words):
    """The only run, where its requests stood, and the report."""
    write_files(tmp_path, {"main.py": APP, "shop.py": FLASK})
    monkeypatch.chdir(tmp_path)
    app = () if "--app" in words else ("--app", "main:app")
    (run,) = run_bench(tmp_path, *app, *words)[1]["runs"]
    return run, run["inside"]["where"], " ".join(capsys.readouterr().out.split())


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    return lambda *words: reported(tmp_path, monkeypatch, capsys, *words)


def limit_in(run):
    return next((one for one in run["verdict"]["limits"] if one["line"]), None)


def test_threads_that_were_predicted_are_not_inside_the_handlers(told):
    run, *_ = told("--path", "/slower", "-n", "80")
    assert run["verdict"]["explained_by"] not in ("inside", "prediction")


def test_a_handler_starts_when_it_has_a_thread_though_a_middleware_copies_the_scope(told):
    run, *_ = told("--path", "/steady", "-n", "90")
    assert run["inside"]["slots_seen"] <= 40 and run["inside"]["handler_s"] < 90 * 0.3


@pytest.mark.skipif(sys.platform != "linux", reason="CPU time of each thread")
def test_cpu_time_of_no_request_explains_no_latency(told):
    run, _, text = told("--path", "/tills", "-n", "60", "--env", "INDEX=1")
    assert run["verdict"]["explained_by"] in (None, "inside") and run["verdict"]["limits"][0]["slots"] == 5
    assert "CPU time adds" not in text and "limit is CPU" not in text


def test_of_two_in_turn_a_burst_shows_the_later_one(told):
    limit = limit_in(told("--path", "/books", "-n", "60")[0])
    assert (limit["slots"] == 4 and limit["held_s"] < 0.15) or limit["held_s"] is None


def test_a_request_that_needs_no_expert_has_none(told):
    *_, text = told("--path", "/claims", "-n", "40")
    assert "released more often" not in text


def test_a_semaphore_that_was_enlarged_has_its_size_now(told):
    run, _, text = told("--path", "/wash", "-n", "30")
    assert limit_in(run)["slots"] == 5 and "2 of 2" not in text


def test_of_an_event_that_many_wait_for_again_and_again_it_is_not_said_that_all_go_on(told):
    *_, text = told("--path", "/print", "-n", "24")
    assert "go on together" not in text and "one at a time" not in text
    assert "One event ends the wait for all" in text


def test_where_one_request_loads_nothing_stands_still(told):
    _, where, text = told("--path", "/goods", "-c", "80", "-t", "4")
    assert not where["circle"] and "standstill" not in text


def test_a_condition_that_frees_all_is_not_had_by_one_at_a_time(told):
    run, _, text = told(*THREADS, "--path", "/rates", "-c", "16", "-t", "2")
    assert "one at a time has it" not in text and not (limit_in(run) or {}).get("ceiling_rps")


def test_several_lock_files_are_not_one(told):
    run, _, text = told(*THREADS, "--path", "/invoice", "-n", "24")
    assert "one at a time" not in text and (limit_in(run)["slots"], limit_in(run)["objects"]) == (4, 4)


def test_a_lock_before_a_pool_that_is_slower_is_not_the_limit(told):
    run, *_ = told(*THREADS[:-1], "60", "--path", "/order", "-n", "60")
    assert limit_in(run)["slots"] == 2


def test_requests_that_wait_for_a_lock_of_a_call_are_not_worked_on(told):
    _, where, _ = told(*THREADS, "--path", "/change", "-n", "16")
    assert sum(one["requests"] for one in where["places"] if one["state"] == "waiting") > 10


def test_of_a_semaphore_that_a_request_takes_in_several_parts_it_is_said(told):
    """Three requests have the outer one; inside, one request after the other has all four of the inner one."""
    run, _, text = told("--path", "/fans-out", "-n", "40")
    limit = limit_in(run)
    assert limit["slots"] * limit["parts"] == pytest.approx(4, abs=1) and "one at a time has it" not in text


def test_parts_that_wait_for_two_things_have_one_of_each(told):
    limit = limit_in(told("--path", "/both", "-n", "40")[0])
    assert (limit["slots"], limit["parts"]) == (2, 1)


@pytest.mark.parametrize("load", [("-n", "80"), ("-c", "60", "-t", "3")], ids=["burst", "closed"])
def test_of_parts_that_wait_for_two_things_the_slower_one_limits(told, load):
    assert limit_in(told("--path", "/book-and-cashier", *load)[0])["slots"] == 8


@pytest.mark.parametrize("path", ["/from-thread", "/threadsafe"])
def test_a_thread_waits_where_its_task_on_the_loop_does(told, path):
    assert limit_in(told("--path", path, "-n", "30")[0])["slots"] == 3


def test_a_request_does_not_wait_for_a_task_that_it_only_starts(told):
    _, where, text = told("--path", "/audits", "-n", "20")
    assert not [one for one in where["places"] if "emaphore" in (one["resource"] or "")] and "emaphore" not in text


def test_slots_do_not_come_next_where_the_event_loop_does():
    def text(share):
        where = sample_where(places=(), blocks=(Spot(1.0, State.BLOCKING, "app.py:6", share=share),))
        limits = (Limit("arrivals", 1.0), Limit("slots", 0.1, 500.0))
        verdict = Verdict(Explanation.PREDICTION, limits, None, None, ())
        return report_verdict.next_limit(sample_run(verdict=verdict, where=where, throughput_rps=40.0))

    assert "500" in text(0.05) and "500" in text(0.0) and "500" not in text(0.5)


def test_a_request_that_tries_again_has_nothing_meanwhile(told):
    run, _, text = told("--path", "/retries", "-n", "40")
    assert (limit_in(run) or {"slots": 3})["slots"] in (3, None) and "more often than taken" not in text


def test_two_places_that_wait_for_one_thing_are_no_two_things(told):
    run, _, text = told("--path", "/later", "-c", "60", "-t", "2")
    assert "such objects" not in text and "has 37 slots" not in text
    assert run["verdict"]["limits"][0]["objects"] == 1


def test_what_cost_no_time_that_was_not_predicted_is_no_limit(told):
    """One of the 20 threads has the lock; the others do not wait for long."""
    run, *_ = told(*THREADS[:-1], "20", "--path", "/or-not", "-c", "60", "-t", "3")
    assert run["verdict"]["explained_by"] != "prediction" or run["verdict"]["limits"][0]["slots"] == 20


# ---------------------------------------------------------------- what is said of what was interrupted, and on paper


def test_a_search_that_is_interrupted_shows_no_rate_that_was_cut_off(tmp_path):
    write_files(tmp_path, {"shop.py": FLASK})
    options = ["--threads", "4", "--path", "/short", "--find-rate", "--p99", "0.2", "-t", "3", "--logs", "logs"]
    with subprocess.Popen(
        [*BENCH, "--app", "shop:app", *options], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as search:
        lines = []
        for line in search.stdout:
            lines.append(line)
            if " due," in line and not any(" due," in one for one in lines[:-1]):
                time.sleep(1)
                search.send_signal(signal.SIGINT)
    assert search.returncode == 130 and sum(" due," in one for one in lines) == 1
    assert "interrupted" in "".join(lines[-4:])


def test_a_first_request_that_was_never_sent_has_no_time(monkeypatch):
    monkeypatch.setattr(before, "send_one", lambda *_: Exchanges())
    plan = sample_plan(launch=dataclasses.replace(LAUNCH, is_target=False), lone_requests=3)
    assert not plan.is_target and before.send_first(plan, SimpleNamespace(server=None), []) is None


def test_a_slot_is_needed_as_often_as_was_asked():
    text = conditions(sample_plan(passes=(1.0, 0.0, 0.0)), sample_facts().prediction, 4.0)
    assert "3 times" in text and "twice" not in text


def test_what_has_no_answers_is_in_common_all_the_same():
    run = {
        "plan": {"target": "x", "path": "/", "load": {"kind": "burst"}},
        "measured": {"failed": 9, "latency_s": None},
    }
    document = {"runs": [run], "command": "bench.py", "when": "2026-11-28", "machine": {}}
    with pytest.raises(Problem, match="no request was answered"):
        comparison_report(document, document)


def test_requests_that_come_evenly_are_all_counted():
    lines = [LogLine("", 7, "GET", "/", "200", 0.1, f"{k}", 1.0 + k / 35) for k in range(20)]
    assert slots_seen(lines) == 4


def test_after_a_first_byte_a_handler_may_go_on():
    asked = {"first_byte": True, "handler_s": 16 * 4.0, "measured_s": 9.0, "wait_s": 1.0}
    assert judge(sample_facts(**asked), None, 0.002).explained_by != "longer-handlers"
    assert judge(sample_facts(**(asked | {"first_byte": False})), None, 0.002).explained_by == "longer-handlers"


def test_waits_with_a_time_limit_do_not_tell_how_long_something_is_held(told):
    run, *_ = told("--path", "/gives-up", "-c", "20", "-t", "2")
    limit = limit_in(run)
    assert not limit or (limit["slots"], limit["held_s"], limit["ceiling_rps"]) == (2, None, None)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout()")
def test_nor_do_those_in_a_with_statement_that_ends_them(told):
    limit = limit_in(told("--path", "/timeout", "-c", "20", "-t", "2")[0])
    assert not limit or (limit["slots"], limit["held_s"], limit["ceiling_rps"]) == (2, None, None)


def test_what_a_request_has_once_it_has_not_for_each_of_its_tasks(told):
    limit = limit_in(told("--path", "/asks-four", "-n", "40")[0])
    assert (limit["slots"], limit["parts"]) == (6, 1)


def test_a_task_that_outlives_its_request_is_no_request(told):
    _, where, text = told("--path", "/mails", "-c", "30", "-t", "3")
    assert sum(one["requests"] for one in where["places"] if one["state"] == "answered") < 2
    assert "after the answer" not in text


def test_a_request_that_awaits_what_something_else_does_is_not_worked_on(told):
    _, where, _ = told("--path", "/jobs", "-n", "40")
    assert sum(one["requests"] for one in where["places"] if one["state"] == "working") < 5


@pytest.mark.parametrize("path", ["/walrus", "/stack"])
def test_a_lock_without_a_name_is_a_lock(told, path):
    _, where, _ = told(*THREADS, "--path", path, "-n", "20")
    assert sum(one["requests"] for one in where["places"] if one["state"] == "waiting") > 10


def test_what_is_given_back_early_by_some_is_held_by_the_others(told):
    assert limit_in(told("--path", "/closed", "-c", "40", "-t", "2")[0])["slots"] == 2


def test_what_cannot_be_compared_loses_no_sample(told):
    _, where, _ = told("--path", "/closure", "-n", "20")
    assert sum(one["requests"] for one in where["places"]) == pytest.approx(20, abs=2)


@pytest.mark.parametrize("load", [("-n", "40"), ("-c", "30", "-t", "4")], ids=["burst", "closed"])
def test_a_lock_whose_holder_waits_for_another_resource_does_not_limit(told, load):
    limit = limit_in(told(*THREADS, "--path", "/boat", *load)[0])
    assert (limit["slots"], limit["held_s"]) == (2, pytest.approx(0.1, rel=0.2))


def test_a_file_is_sent_and_logged(told):
    """gunicorn sends its own wrapper of a file without reading it; the log has the request all the same."""
    run, *_ = told(*THREADS, "--path", "/file", "-n", "9")
    assert (run["measured"]["answered"], run["inside"]["log_lines"]) == (9, 9)


STARLETTE = """
import asyncio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def index(request):
    await asyncio.sleep(0.05)
    return PlainTextResponse("ok")

app = Starlette(routes=[Route("/", index)])
"""


def test_an_app_of_starlette_itself_stays_one(tmp_path, monkeypatch):
    """Servers tell an ASGI app by its `async def`, which looking inside must not change."""
    write_files(tmp_path, {"plain.py": STARLETTE})
    monkeypatch.chdir(tmp_path)
    code, document = run_bench(tmp_path, "--run", f"{sys.executable} -m uvicorn plain:app --port {{port}}", "-n", "20")
    (run,) = document["runs"]
    assert code == 0 and run["measured"]["answered"] == 20 == run["inside"]["log_lines"]


# ---------------------------------------------------------------- settings, tables and files


@pytest.mark.parametrize(
    "command_line, slots",
    [
        ("waitress-serve --threads 20 --connection-limit 10 main:app", (1, 8, False)),
        ("gunicorn --threads 8 --worker-connections 4 main:app", (1, 4, True)),
        ("gunicorn --threads 4 --worker-connections 1000 main:app", (1, 4, False)),
        ("gunicorn --threads 1 main:app", (1, 1, True)),
        ("gunicorn -kgevent main:app", None),
        ("gunicorn -k gthread --threads 2 main:app", (1, 2, False)),
    ],
)
def test_a_command_line_says_all_that_decides(monkeypatch, command_line, slots):
    monkeypatch.setattr(listeners, "is_set_elsewhere", lambda _: False)
    assert slots_by_command([Listener(7, 1, 1, tuple(command_line.split()))]) == slots


def test_each_worker_of_gevent_has_connections_of_its_own():
    launch = Launch("x", "gunicorn-gevent", "main:app", connections=9, workers=4)
    assert with_launch(sample_plan(), launch).most_connections == 36


@pytest.mark.parametrize("args, workers", [("-w 4", 4), ("--workers 3", 3)])
def test_a_short_option_is_one(args, workers):
    launch = Launch("x", "hypercorn", "main:app", server_args=tuple(args.split()))
    assert in_force(launch).workers == workers


def test_one_process_computes_on_one_cpu():
    run = sample_run(load=Open(600, rate_rps=60.0), workers=1, cpus=2, server_cpu_s=6.6, answered=600, sent=600)
    assert asked_of(run, (0.1, 99)).cpus == 1


def test_a_size_is_said_where_separate_queues_have_none():
    text = report_sizes.size_text(size(Asked(60, 0.05, 0.08, 99, 0.011, 2)), 2)
    assert "8 slots in one queue are enough" in " ".join(text.split())


def test_there_is_no_fewer_than_one():
    text = report_sizes.size_text(size(Asked(1, 0.05, 0.2, 99)), 1)
    assert "1 slot in one queue is enough" in text and "one fewer" not in text


@pytest.mark.parametrize("words", ["--target flask-waitress", "--path /async-io", "--requests 32"])
def test_another_load_is_no_change(words, capsys):
    how = ["--target", "flask-gunicorn", "--path", "/io", "--task-time", "0.01", "-n", "4", "--try", words]
    assert bench.main(how) == 2 and "another load" in capsys.readouterr().err


def test_what_a_change_of_the_work_does_is_not_known_beforehand():
    assert expected_s(sample_plan(), "--task-time 0.5", sample_run()) is None


def test_every_repeat_has_as_many_requests_at_most():
    load = Open.poisson(20.0, 10, 60.0, 1)
    assert [other_arrivals(load, k).requests for k in range(3)] == [10, 10, 10]


def test_figures_of_a_page_need_no_prediction():
    assert [*compared_figures(sample_run(prediction=Prediction()))] == ["measured"]


def test_a_broken_file_is_the_one_that_is_named(tmp_path, capsys):
    (tmp_path / "b.json").write_text("{")
    (tmp_path / "a.json").write_text('{"runs": []}')
    assert sweep.main(["compare", f"{tmp_path}/a.json", f"{tmp_path}/b.json"]) == 2
    assert "b.json" in capsys.readouterr().err


def test_requests_that_fail_are_worse():
    plan = {"target": "x", "path": "/", "load": {"kind": "burst"}}
    runs = [{"plan": plan, "measured": {"failed": failed, "sent": 10}} for failed in (0, 4)]
    documents = [{"runs": [run]} for run in runs]
    assert [failed_share(one, documents[0]) for one in documents] == [0, 0.4]


def test_a_search_for_a_rate_and_a_condition_on_its_runs_do_not_go_together(capsys):
    how = ["--target", "flask-gunicorn", "--path", "/io", "--find-rate", "--p99", "0.1", "--fail-if", "p99>0.1"]
    assert bench.main(how) == 2 and "--fail-if" in capsys.readouterr().err


# ---------------------------------------------------------------- what limits, or does not


def computing(beside_s):
    own, others = Spot(1.0, State.WORKING, "a.py:5", cpu_s=1.0 - beside_s), Spot(0.0, State.BESIDE, cpu_s=beside_s)
    return sample_where(computing=Computing(9, 1.0, (own, others)))


@pytest.mark.parametrize("beside_s, is_known", [(0.9, False), (0.3, False), (0.02, True)])
def test_cpu_time_of_no_request_allows_no_rate(beside_s, is_known):
    run = sample_run(where=computing(beside_s), workers=1, cpus=1, server_cpu_s=3.9)
    limits = judge(run, None, 0.002).limits
    assert limits[0].resource == "cpu" and (limits[0].ceiling_rps is not None) == is_known
    text = report_verdict.limit_text(limits[0])
    assert ("of no request" in text) != is_known and ("requests/s" in text) == is_known


def test_processes_are_no_cure_for_cpu_time_of_no_request():
    limit = Limit(Resource.CPU, 1.0, cpus=1)
    verdict = Verdict(Explanation.CPU, (limit,), None, None, ())
    run = sample_run(verdict=verdict, load=Open(16, rate_rps=4.0), latency_s=sample_statistics(p99=0.5, max=0.6))
    found = advice_for(run, (0.3, 99))
    assert found.cure is Cure.UNKNOWN and "CPU time" in found.why
    assert expected_s(run.plan, "--workers 8", run) is None


@pytest.mark.parametrize("users, are_it", [(4, False), (9, True)])
def test_slots_that_no_user_has_to_wait_for_limit_nothing(users, are_it):
    """Something else keeps the requests."""
    how = {"slots": 4, "slots_per_worker": 4, "workers": 1, "handler_s": 16 * 3.0}
    facts = sample_facts(load=Closed(16, concurrency=users), **how)
    assert bool(limit_of_slots(facts)) == are_it


@pytest.mark.parametrize("explained, resource", [(Explanation.PREDICTION, "arrivals"), (Explanation.NOTHING, "none")])
def test_a_load_that_got_less_than_predicted_was_not_served_as_it_asked(explained, resource):
    idle = {"handler_s": 8.0, "mean_in_flight": 2}
    facts = sample_facts(load=LOADS["closed"], latency_s=sample_statistics(mean=1.1), **idle)
    assert limits_of(facts, None, None, explained)[0].resource == resource


def test_several_locks_are_no_resource_of_several():
    spot = Spot(3.0, State.WAITING, "a.py:5", resource="a lock (anyio.Lock)", size=7.0, used=7.0)
    assert resource_text(spot) == "a lock (anyio.Lock)"
    assert "7 of 7" in resource_text(dataclasses.replace(spot, resource="a pool"))


def test_what_ended_far_after_the_time_limit_is_no_miscount():
    late = {"finished_after_limit": 4, "answered": 400, "load": LOADS["closed"]}
    short, long = (sample_run(**late, latency_s=sample_statistics(max=max_s)) for max_s in (0.01, 5.0))
    assert report.has_one_rate(short) and not report.has_one_rate(long)
