"""What requests wait for and then pass at once, give up or pass by: its size is no number of requests at a time."""

from __future__ import annotations

import pytest
from commands import run_bench
from servers import lines_of, write_files

APP = """
import asyncio, threading, time
from fastapi import FastAPI, HTTPException

app, fresh_until_s, number = FastAPI(), {"loop": 0.0, "thread": 0.0}, 0
on_loop, in_thread, tried, held = asyncio.Lock(), threading.Lock(), asyncio.Lock(), threading.Lock()
few, some, of_threads = asyncio.Semaphore(3), asyncio.Semaphore(4), threading.Lock()

@app.get("/cache/async")
async def fills_a_cache():
    if time.monotonic() > fresh_until_s["loop"]:
        async with on_loop:  # cache
            if time.monotonic() > fresh_until_s["loop"]:
                await asyncio.sleep(0.3)
                fresh_until_s["loop"] = time.monotonic() + 0.05
    await asyncio.sleep(0.01)

@app.get("/cache/def")
def fills_a_cache_in_a_thread():
    if time.monotonic() > fresh_until_s["thread"]:
        with in_thread:  # cache
            if time.monotonic() > fresh_until_s["thread"]:
                time.sleep(0.3)
                fresh_until_s["thread"] = time.monotonic() + 0.05
    time.sleep(0.01)

def flushes():
    while True:
        with held:
            time.sleep(0.3)
        time.sleep(0.02)

threading.Thread(target=flushes, daemon=True).start()

@app.get("/flushed")
def waits_for_a_thread_of_the_service():
    with held:  # cache
        pass
    time.sleep(0.02)

@app.get("/held")
async def is_held_by_each():
    async with on_loop:  # cache
        await asyncio.sleep(0.02)

async def tries(lock):
    try:
        await asyncio.wait_for(lock.acquire(), 0.1)  # tries
    except TimeoutError:
        await asyncio.sleep(0.05)
        return
    await asyncio.sleep(0.05)
    lock.release()

@app.get("/tried")
async def goes_on_without_a_lock():
    await tries(tried)

@app.get("/tried/few")
async def goes_on_without_a_permit():
    await tries(few)

@app.get("/tried/def")
def goes_on_without_a_lock_in_a_thread():
    has = of_threads.acquire(timeout=0.1)
    try:
        time.sleep(0.05)
    finally:
        if has:
            of_threads.release()

of_some = threading.Semaphore(4)

@app.get("/refused")
def refuses_and_goes_on_afterwards():
    if not of_some.acquire(timeout=5):  # refuses
        raise HTTPException(503)
    try:
        time.sleep(0.05)
    finally:
        of_some.release()
    time.sleep(0.2)

@app.get("/half")
async def every_second_needs_none():
    global number
    number += 1
    if number % 2:
        async with some:
            await asyncio.sleep(0.1)
"""


@pytest.fixture
def look(tmp_path, monkeypatch):
    """What a look inside tells of a path: the first limit that was seen, and all of the document."""
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, {"passed.py": APP})

    def look_at(path, *how):
        document = run_bench(tmp_path, "--app", "passed:app", "--path", path, *how)[1]
        return next((one for one in document["runs"][-1]["verdict"]["limits"] if one["line"] or one["waiting"]), {})

    return look_at


@pytest.mark.parametrize("path", ["/cache/async", "/cache/def", "/flushed"])
def test_a_lock_that_all_pass_at_once_has_no_number(look, path, capsys):
    limit = look(path, "-n", "20")  # {}: it takes as long by itself, so that it is no limit
    assert not limit or ("lock" in limit["resource"] and limit["slots"] is None)
    assert not limit or limit["line"] in lines_of(APP, "passed", "cache")
    look(path, "--probe")
    said = capsys.readouterr().out
    assert "1 at a time" not in said and "do NOT agree" not in said


def test_a_lock_that_each_has_for_a_time_has_one(look):
    limit = look("/held", "-n", "20")
    assert limit["slots"] == 1 and limit["held_s"] == pytest.approx(0.02, rel=0.4)


@pytest.mark.parametrize("path", ["/tried", "/tried/few", "/tried/def"])
def test_of_what_is_waited_for_no_longer_than_a_time_more_go_on_than_it_has(look, path):
    limit = look(path, "-c", "30", "-t", "2")
    assert (limit["setting"], limit["slots"]) == ("with a time limit", None)


def test_what_is_waited_for_with_a_time_limit_has_a_number_if_none_goes_on_without_it(look):
    limit = look("/refused", "-c", "30", "-t", "3")
    assert limit["slots"] == 4 and limit["line"] in lines_of(APP, "passed", "refuses")


def test_what_a_part_of_a_burst_passes_by_has_no_time(look):
    limit = look("/half", "-n", "20")
    assert (limit["slots"], limit["held_s"], limit["ceiling_rps"]) == (4, None, None)
