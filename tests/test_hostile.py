"""What went wrong once in a hostile trial, each kind with a command that shows it: false figures, lost results,
processes that were left."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from commands import BENCH, ROOT, command, run_bench
from servers import alive, wait_until, write_files

APP = """
import time
from fastapi import FastAPI
from fastapi.responses import Response, StreamingResponse

app = FastAPI()

@app.get("/")
def waits():
    time.sleep(0.1)

@app.get("/fast")
async def fast():
    return {}

@app.get("/parts")
def in_parts():
    def parts():
        yield b"a"
        time.sleep(0.06)
        yield b"b"
    return StreamingResponse(parts())

@app.get("/moved")
def moved():
    return Response(status_code=307, headers={"Location": "/"})

@app.get("/refuses")
def refuses(wanted: int):
    pass

@app.get("/fails")
def fails():
    return 1 / 0

@app.get("/large")
def large():
    return Response(bytes(80_000_000))
"""
ODD = """
import asyncio, itertools, os, threading, time
from fastapi import BackgroundTasks, FastAPI
from fastapi.concurrency import run_in_threadpool

app = FastAPI()
half_lost, threads_of_app = asyncio.Semaphore(10), itertools.count()

@app.on_event("startup")
async def loses_some():
    for _ in range(7):
        await half_lost.acquire()

leaking = asyncio.Semaphore(3)

@app.get("/leaks")
async def gives_back_too_often():
    async with leaking:
        await asyncio.sleep(0.2)
    if not leaking.locked() and leaking._value < 8:
        leaking.release()

rooms, visits = [asyncio.Semaphore(3) for _ in range(3)], itertools.count()

@app.get("/rooms")
async def most_go_to_one_room():
    visit = next(visits) % 20
    async with rooms[visit if visit < 3 else 0]:
        await asyncio.sleep(0.3)

outer, inner = asyncio.Semaphore(5), asyncio.Semaphore(4)

@app.get("/nested")
async def has_one_and_takes_another():
    async with outer:
        async with inner:
            await asyncio.sleep(0.15)

@app.get("/early")
async def gives_back_before_it_waits():
    await leaking.acquire()
    leaking.release()
    await asyncio.sleep(0.1)
    async with leaking:
        await asyncio.sleep(0.02)

lanes = itertools.cycle([asyncio.Semaphore(2), asyncio.Semaphore(8)])

@app.get("/lanes")
async def has_its_lane():
    async with next(lanes):
        await asyncio.sleep(0.3)

def burns():
    while True:
        sum(range(1000))  # computes

if "BUSY" in os.environ:
    threading.Thread(target=burns, daemon=True).start()

@app.get("/joins")
def has_a_thread_of_its_own():
    thread = threading.Thread(target=time.sleep, args=(0.3,))
    thread.start()
    thread.join()

@app.get("/beside")
async def beside():
    await asyncio.sleep(0.02)

@app.get("/lost-permits")
async def waits_for_permits():
    async with half_lost:
        await asyncio.sleep(0.1)

@app.get("/late-thread")
async def goes_to_a_thread_late(tasks: BackgroundTasks):
    await asyncio.sleep(0.2)
    await run_in_threadpool(time.sleep, 0.05)
    tasks.add_task(time.sleep, 0.05)

def first():
    time.sleep(0.06)

def second():
    time.sleep(0.04)

@app.get("/two-lines")
async def blocks_at_two_lines():
    first()
    second()

many = itertools.count(1)

@app.get("/at-times")
async def blocks_now_and_then():
    await asyncio.sleep(0.05)
    if next(many) % 40 == 0:
        first()

async def later():
    time.sleep(0.1)

tasks = set()

@app.get("/after")
async def blocks_after_the_answer():
    tasks.add(asyncio.create_task(later()))
"""
POLLS = """
import itertools, threading, time
from flask import Flask

app = Flask(__name__)
is_taken, guard, count, locks = False, threading.Lock(), itertools.count(), [threading.Lock(), threading.Lock()]
patience_s = 3.0

@app.get("/polls")
def polls():
    global is_taken
    while True:
        with guard:
            if not is_taken:
                is_taken = True
                break
        time.sleep(0.005)
    time.sleep(0.05)
    is_taken = False
    return ""

@app.get("/slower")
def gets_slower():
    time.sleep(0.05 if next(count) < 20 else 0.3)
    return ""

@app.get("/closes")
def works_while_it_closes():
    class Body:
        def __iter__(self):
            yield b"done"
        def close(self):
            time.sleep(0.1)
    return app.response_class(Body())

@app.get("/crossed")
def takes_locks_in_both_orders():
    global patience_s
    one, other = locks if next(count) % 2 else locks[::-1]
    with one:
        time.sleep(0.05)
        if other.acquire(timeout=patience_s):
            other.release()
            return ""
    patience_s = 0.2
    return "", 500
"""
TAKES = """
import itertools, os, queue, threading, time
from flask import Flask

app = Flask(__name__)
count, keyed, condition = itertools.count(), [threading.Lock() for _ in range(3)], threading.Condition()
five, four, tokens, jobs = threading.Semaphore(5), threading.Semaphore(4), os.pipe(), queue.Queue()
buckets, barrier = threading.Semaphore(0), threading.Barrier(10)
os.write(tokens[1], b"...")

@app.get("/keyed")
def takes_a_lock_of_a_list():
    k = next(count) % 3
    with keyed[k]:
        time.sleep(0.1)
    return ""

@app.get("/condition")
def has_the_lock_of_a_condition():
    with condition:
        time.sleep(0.05)
    return ""

@app.get("/in-turn")
def takes_one_after_the_other():
    with five:
        time.sleep(0.1)
    with four:
        time.sleep(0.07)
    return ""

@app.get("/token")
def takes_a_byte_out_of_a_pipe():
    byte = os.read(tokens[0], 1)
    time.sleep(0.1)
    os.write(tokens[1], byte)
    return ""

def works():
    while True:
        done = jobs.get()
        time.sleep(0.05)
        done.set()

@app.get("/job")
def waits_for_its_job():
    done = threading.Event()
    jobs.put(done)
    done.wait()
    return ""

def drips():
    while True:
        time.sleep(0.05)
        buckets.release()

@app.get("/bucket")
def takes_and_gives_nothing_back():
    buckets.acquire()
    time.sleep(0.1)
    return ""

@app.get("/barrier")
def waits_for_nine_others():
    try:
        barrier.wait(0.4)
    except threading.BrokenBarrierError:
        barrier.reset()
    return ""

threading.Thread(target=works, daemon=True).start()
threading.Thread(target=drips, daemon=True).start()
"""
ENDS = """
import os
from fastapi import FastAPI
app = FastAPI()
@app.get("/")
def ends():
    print("bye")
    os._exit(7)
"""
HAS_CHILDREN = """
import pathlib, subprocess
from flask import Flask
for is_session in (False, True):
    child = subprocess.Popen(["sleep", "300"], start_new_session=is_session)
    with pathlib.Path("children").open("a") as file:
        print(child.pid, file=file)
app = Flask(__name__)
app.get("/")(lambda: "hello")
"""
HAS_NO_SETTINGS = """
from contextlib import asynccontextmanager
from fastapi import FastAPI
@asynccontextmanager
async def lifespan(app):
    raise RuntimeError("no settings:\\nset DATABASE_URL")
    yield
app = FastAPI(lifespan=lifespan)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write_files(
        tmp_path,
        {
            "main.py": APP,
            "ends.py": ENDS,
            "children.py": HAS_CHILDREN,
            "settings.py": HAS_NO_SETTINGS,
            "odd.py": ODD,
            "polls.py": POLLS,
            "takes.py": TAKES,
        },
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def only_run(folder, *arguments):
    _, document = run_bench(folder, *arguments, "-q")
    return document["runs"][0]


def warned(run):
    return {one["id"] for one in run["verdict"]["warnings"]}


# ---------------------------------------------------------------- false figures


def test_an_answer_that_needs_no_handler_is_sooner_and_no_slots_are_full(folder):
    run = only_run(folder, "--target", "flask-gunicorn", "--path", "/io", "-n", "100", "-c", "4", "-m", "OPTIONS")
    assert run["verdict"]["explained_by"] == "sooner"
    assert "slots" not in {one["resource"] for one in run["verdict"]["limits"]}


def test_stated_slots_are_contradicted_by_what_is_measured(folder):
    how = ["--app", "main:app", "--path", "/fast", "-n", "400", "-c", "4", "--slots", "2", "--wait", "0.1"]
    run = only_run(folder, *how)
    assert run["verdict"]["explained_by"] == "sooner"
    assert "slots" not in {one["resource"] for one in run["verdict"]["limits"]}


def test_cpu_that_is_not_busy_limits_nothing(folder):
    how = ["--target", "flask-gunicorn", "--path", "/io", "-n", "60", "-c", "3", "--task-time", "30ms:exp"]
    for limit in only_run(folder, *how)["verdict"]["limits"]:
        assert limit["resource"] != "cpu" or limit["busy"] < 0.8
        break


def test_a_probe_of_drawn_waits_has_the_servers_slots(folder):
    document = run_bench(
        folder, *["--target", "flask-gunicorn", "--path", "/io", "--task-time", "20ms:exp", "--probe"]
    )[1]
    limit = document["runs"][-1]["verdict"]["limits"][0]
    assert (limit["resource"], limit["slots"]) == ("slots", 4)


def test_a_stream_has_no_delayed_ack_and_its_log_shows_no_slots(folder):
    run = only_run(folder, *["--app", "main:app", "--path", "/parts", "-n", "60", "-c", "4", "-k"])
    assert not warned(run) & {"delayed-ack", "other-slots"} and run["inside"]["slots_held"] is None


# ---------------------------------------------------------------- what was said of requests and was not so


def test_what_requests_do_not_have_is_not_said_to_be_theirs(folder):
    limit = only_run(folder, "--app", "odd:app", "--path", "/lost-permits", "-n", "30")["verdict"]["limits"][0]
    assert (limit["slots"], limit["size"], limit["is_sized"]) == (3, 10, False)
    assert limit["held_s"] == pytest.approx(0.1, rel=0.3)


def test_a_handler_starts_where_it_starts_not_with_a_thread_that_it_needs_later(folder):
    run = only_run(folder, "--app", "odd:app", "--path", "/late-thread", "-n", "10")
    waited_s = [start_s - sent_s for start_s, sent_s in zip(*(run["exchanges"][name] for name in (
        "handler_started_s", "sent_s")), strict=True)]  # fmt: skip
    assert max(waited_s) < 0.15 and run["inside"]["slots_seen"] == 10


def test_of_two_lines_that_block_none_has_the_time_of_both_alone(folder):
    limit = only_run(folder, "--app", "odd:app", "--path", "/two-lines", "-n", "12")["verdict"]["limits"][0]
    assert (limit["resource"], limit["more_lines"]) == ("the event loop", 1)


def test_what_blocks_the_loop_after_the_answer_is_the_limit(folder):
    run = only_run(folder, "--app", "odd:app", "--path", "/after", "-n", "20")
    assert run["verdict"]["limits"][0]["resource"] == "the event loop"


def test_cpu_time_of_a_thread_that_serves_no_request_is_not_that_of_requests(folder):
    run = only_run(folder, "--app", "odd:app", "--path", "/beside", "-c", "8", "-t", "2", "--env", "BUSY=1")
    places = run["inside"]["where"]["places"]
    all_s, beside = sum(place["cpu_s"] for place in places), [one for one in places if one["state"] == "beside"]
    (line,) = (number for number, text in enumerate(ODD.splitlines(), 1) if text.endswith("# computes"))
    if sys.platform == "linux":
        assert sum(one["cpu_s"] for one in beside if one["line"] == f"odd.py:{line}") > 0.5 * all_s > 0


def test_the_end_of_its_own_thread_is_nothing_that_others_hold(folder):
    run = only_run(folder, "--app", "odd:app", "--path", "/joins", "-n", "10")
    assert {(place["state"], place["resource"]) for place in run["inside"]["where"]["places"]} == {("working", None)}


def test_more_have_a_semaphore_than_it_was_made_for(folder):
    run = only_run(folder, "--app", "odd:app", "--path", "/leaks", "-n", "60")
    (size,) = {place["made_size"] for place in run["inside"]["where"]["places"] if place["state"] == "waiting"}
    assert (size, run["verdict"]["limits"][0]["slots"]) == (3, 8)


def test_other_semaphores_of_a_list_are_not_taken_for_more_permits_of_one(folder):
    run = only_run(folder, "--app", "odd:app", "--path", "/rooms", "-n", "40")
    assert {place["made_size"] for place in run["inside"]["where"]["places"]} == {None}


def test_of_nested_semaphores_the_smaller_one_is_the_limit_though_few_can_wait_for_it(folder):
    run = only_run(folder, "--app", "odd:app", "--path", "/nested", "-n", "60")
    assert run["verdict"]["limits"][0]["slots"] == 4


def test_what_blocks_the_event_loop_at_times_is_said_though_it_is_not_the_limit(folder):
    run = only_run(folder, "--app", "odd:app", "--path", "/at-times", "-c", "10", "-t", "8")
    shares = {place["line"]: place["share"] for place in run["inside"]["where"]["blocks"] if place["line"]}
    line = ODD[: ODD.index("def first")].count("\n") + 2
    assert 0.1 < shares[f"odd.py:{line}"] < 0.6 and run["verdict"]["limits"][0]["resource"] != "the event loop"


def test_semaphores_of_one_line_are_several(folder):
    limit = only_run(folder, "--app", "odd:app", "--path", "/lanes", "-n", "40")["verdict"]["limits"][0]
    assert (limit["slots"], limit["objects"], limit["held_s"]) == (10, 2, None)


@pytest.mark.parametrize("path, how", [("/polls", ["-n", "24"]), ("/slower", ["-n", "40", "-c", "8"])])
def test_a_handler_that_gets_slower_is_said_to_and_more_threads_are_no_cure(folder, path, how):
    where = ["--app", "polls:app", "--path", path, "--threads", "8"]
    _, document = run_bench(folder, *where, *how, "-q", "--try", "auto")
    (run,) = document["runs"]  # nothing is tried
    assert run["verdict"]["explained_by"] in ("longer-handlers", "different-times")
    assert run["verdict"]["limits"][0]["resource"] != "slots"


TAKEN = {  # path -> what is waited for there, how many have it, and how many in each process
    "/keyed": ("a lock (keyed[k])", 3, None),
    "/condition": ("the lock of a Condition", 1, None),
    "/in-turn": ("a semaphore (threading.Semaphore)", 5, None),  # then one of four, which is held for a shorter time
    "/bucket": ("a semaphore (threading.Semaphore)", None, None),  # a thread gives it
    "/barrier": ("a Barrier", None, None),
}


@pytest.mark.parametrize("path", TAKEN)
def test_what_others_have_is_named_where_they_have_it(folder, path):
    users = "9" if path == "/barrier" else "14"  # one less than go on together
    how = ["--app", "takes:app", "--path", path, "--threads", "16", "-c", users, "-t", "3"]
    run = only_run(folder, *how)
    limit = run["verdict"]["limits"][0]
    if path == "/barrier":  # where a request by itself waits as long
        assert TAKEN[path][0] in {one["resource"] for one in run["inside"]["where"]["places"]}
    else:
        assert (limit["resource"], limit["slots"], limit["size_of_each"]) == TAKEN[path]


def test_each_of_several_processes_has_its_own(folder):
    how = ["--app", "takes:app", "--path", "/in-turn", "--workers", "2", "--threads", "12", "-c", "40", "-t", "3"]
    limit = only_run(folder, *how)["verdict"]["limits"][0]
    assert limit["slots"] == 2 * limit["size_of_each"]


@pytest.mark.parametrize("path", ["/token", "/job"])
def test_slots_that_are_taken_by_what_waits_unseen_are_not_the_limit(folder, path):
    how = ["--app", "takes:app", "--path", path, "--threads", "16", "-n", "24", "--try", "auto"]
    run = only_run(folder, *how)  # nothing is tried
    assert (run["verdict"]["explained_by"], run["verdict"]["limits"][0]["resource"]) == ("longer-handlers", "none")


def test_slots_that_are_kept_after_the_answer_are_seen(folder):
    how = ["--app", "polls:app", "--path", "/closes", "-n", "72", "-c", "8", "-k", "--threads", "2"]
    run = only_run(folder, *how)
    limit = run["verdict"]["limits"][0]
    assert (limit["resource"], limit["slots"]) == ("slots", 2)
    assert limit["held_s"] == pytest.approx(0.1, rel=0.4)
    assert "answered" in {one["state"] for one in run["inside"]["where"]["places"]}


def test_a_standstill_that_time_outs_end_is_one(folder):
    how = ["--app", "polls:app", "--path", "/crossed", "-n", "4", "--threads", "4", "--any-status", "--warmup", "0"]
    assert run_bench(folder, *how)[1]["runs"][0]["inside"]["where"]["circle"]


@pytest.mark.parametrize("name, text, workers, threads", [
    ("WEB_CONCURRENCY", "3", 3, 1), ("GUNICORN_CMD_ARGS", "--threads 3", 1, 3)
])  # fmt: skip
def test_the_environment_that_is_given_is_in_force(folder, name, text, workers, threads):
    run = only_run(folder, *["--app", "polls:app", "--path", "/slower", "-n", "6", "--env", f"{name}={text}"])
    launch = run["plan"]["launch"]
    assert (launch["workers"], launch["threads"], run["plan"]["slots"]) == (workers, threads, 3)


def test_a_large_body_is_a_whole_answer(folder):
    run = only_run(folder, *["--app", "main:app", "--path", "/large", "-n", "2", "-c", "1"])
    assert run["measured"]["answered"] == 2 and run["measured"]["body_bytes"] == 160_000_000


def test_an_answer_in_the_middle_of_an_upload_is_the_answer(folder):
    (folder / "body").write_bytes(bytes(20_000_000))

    def refuse(sock):
        while True:
            connection, _ = sock.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as sock:
        threading.Thread(target=refuse, args=(sock,), daemon=True).start()
        run = only_run(folder, "--url", f"http://127.0.0.1:{sock.getsockname()[1]}/", "-p", "body", "-n", "4",
                       "--any-status")  # fmt: skip
    assert run["measured"]["errors"] == {"HTTP 413": 4}


def test_the_servers_own_end_is_told_as_its_log_has_it(folder):
    run = only_run(folder, *["--app", "ends:app", "-n", "8"])
    assert warned(run) == {"server-ended"}
    assert [("bye" in line, "exit code 7" in line) for line in run["inside"]["server_said"]] == [(1, 0), (0, 1)]


def test_a_client_that_stood_still_says_so(folder):
    words = [
        "--target",
        "fastapi-uvicorn",
        "--path",
        "/io",
        "-n",
        "60",
        "--task-time",
        "1",
        "--json",
        "out.json",
        "--logs",
        "logs",
    ]
    bench = subprocess.Popen([*BENCH, *words], stdout=subprocess.DEVNULL)
    wait_until(lambda: any("/io" in log.read_text() for log in folder.glob("logs/*/access.log")))  # the lone request
    time.sleep(0.5)
    bench.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    bench.send_signal(signal.SIGCONT)
    assert bench.wait(60) == 0
    (run,) = json.loads((folder / "out.json").read_text())["runs"]
    assert "client-stalled" in warned(run) and run["measured"]["client_stalled_s"] > 1


@pytest.mark.parametrize("more, says", [
    (["--path", "/nope"], ("404", "/parts")), (["-m", "DELETE"], ("405", "-m")),
    (["--path", "/refuses"], ("422", "--data", "wanted")), (["--path", "/fails"], ("500", "ZeroDivisionError")),
])  # fmt: skip
def test_a_run_does_not_start_where_a_request_by_itself_is_an_error(folder, more, says):
    done = command(*BENCH, *["--app", "main:app", "-n", "8", "--logs", "logs", *more])
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "verdict" not in done.stdout
    assert [word for word in says if word not in done.stderr] == []
    assert only_run(folder, "--app", "main:app", "-n", "8", "--any-status", *more)["measured"]["failed"] == 8


def test_a_redirect_is_an_answer_and_said_to_be_one(folder):
    run = only_run(folder, "--app", "main:app", "--path", "/moved", "-n", "8")
    assert (run["measured"]["answered"], run["measured"]["redirected"]) == (8, 8) and "redirects" in warned(run)


# ---------------------------------------------------------------- lost, or left


def test_a_probe_whose_first_burst_fails_has_its_run_and_a_verdict(folder, capsys):
    code, document = run_bench(folder, *["--app", "ends:app", "--probe"])
    assert (code, len(document["runs"])) == (1, 1) and "\nverdict" in capsys.readouterr().out


@pytest.mark.parametrize("deleted", ["logs", "results"])
def test_results_survive_that_a_folder_is_deleted(folder, deleted):
    (folder / "results").mkdir()
    words = [
        "--target",
        "fastapi-uvicorn",
        "--path",
        "/io",
        "-n",
        "60",
        "--task-time",
        "1",
        "--json",
        "results/out.json",
        "--logs",
        "logs",
    ]
    bench = subprocess.Popen([*BENCH, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: any("/io" in log.read_text() for log in folder.glob("logs/*/access.log")))
    command("rm", "-rf", deleted)
    out, err = bench.communicate(timeout=60)
    assert "\nverdict" in out and "Traceback" not in err and deleted in err
    assert bench.returncode == (0 if deleted == "logs" else 2)
    if deleted == "logs":
        assert json.loads((folder / "results/out.json").read_text())["runs"][0]["measured"]["answered"] == 60


def test_an_interrupted_warm_up_has_no_run_and_its_json_is_json(folder):
    words = ["--app", "main:app", "-n", "10", "-c", "2", "--warmup", "1000", "--json", "out.json", "--logs", "logs"]
    bench = subprocess.Popen([*BENCH, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: any("GET" in log.read_text() for log in folder.glob("logs/*/access.log")))
    bench.send_signal(signal.SIGINT)
    assert "Traceback" not in bench.communicate(timeout=60)[1] and bench.returncode == 130
    assert json.loads((folder / "out.json").read_text())["runs"] == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can adopt processes")
def test_what_an_app_starts_is_ended_even_in_a_session_of_its_own(folder):
    assert only_run(folder, *["--app", "children:app", "-n", "4"])["measured"]["answered"] == 4
    children = [int(pid) for pid in (folder / "children").read_text().split()]
    assert len(children) >= 4 and not any(map(alive, children))  # of the question, and of the server


def test_an_error_of_several_lines_is_shown_whole(folder):
    done = command(*BENCH, *["--app", "settings:app", "-n", "4", "--logs", "logs"])
    assert done.returncode == 3 and "RuntimeError: no settings: set DATABASE_URL" in done.stderr


PAPER = ["-n", "8", "--slots", "2", "--wait", "1"]


@pytest.mark.parametrize("python", [["-P"] if sys.version_info >= (3, 11) else ["-I"], ["-I"], ["-OO"]])
def test_python_may_be_told_to_leave_things_out(python):
    done = command(sys.executable, *python, str(ROOT / "bench.py"), *PAPER)
    assert (done.returncode, done.stderr) == (0, "") and "4 s" in done.stdout


@pytest.mark.parametrize(
    "shell, says",
    [
        ('"$@" --json - >&-', "standard output is closed"),
        ('"$@" --json ""', "''"),
        ('cd gone && rmdir ../gone && "$@"', "working directory is gone"),
        ('"$@" --probe -n 4', "requests"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(folder, shell, says):
    (folder / "gone").mkdir()
    target = ["--target", "fastapi-uvicorn", "--path", "/io"]
    done = command("bash", "-c", shell, "bash", *BENCH, *target, env=os.environ | {"PWD": str(folder)})
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1
