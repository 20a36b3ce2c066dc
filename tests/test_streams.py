"""Answers that come in parts: their first and last byte, those without an end, and bodies that AnyIO's threads make."""

from __future__ import annotations

import pytest
from commands import run_bench
from servers import write_files

import bench

APP = """
import asyncio, itertools, time
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

app = FastAPI()

@app.get("/events")
async def without_an_end():
    async def events():
        for number in itertools.count():
            await asyncio.sleep(0.1)
            yield f"data: {number}\\n\\n"
    return StreamingResponse(events(), media_type="text/event-stream")

@app.get("/drips")
async def drips():
    async def parts():
        yield "first"
        for _ in range(4):
            await asyncio.sleep(0.05)
            yield "more"
    return StreamingResponse(parts())

@app.get("/def")
def in_threads():
    def parts():
        for _ in range(5):
            time.sleep(0.04)
            yield "part"
    return StreamingResponse(parts())

@app.get("/async-def")
async def also_in_threads():
    return in_threads()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write_files(tmp_path, {"main.py": APP})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def only_run(folder, *arguments):
    code, document = run_bench(folder, "--app", "main:app", "--path", *arguments)
    assert code == 0
    return document["runs"][0]


def test_a_stream_without_an_end_is_measured_by_its_first_byte(folder):
    run = only_run(folder, "/events", "-n", "30", "-c", "6", "--first-byte")
    assert run["measured"]["answered"] == 30 == run["inside"]["log_lines"]  # the server has seen each of them end
    assert 0.09 < run["measured"]["latency_s"]["median"] < 0.5


def test_without_that_it_is_said_what_to_add(folder, capsys):
    assert bench.main(["--app", "main:app", "--path", "/events", "-n", "5", "-s", "0.5", "--logs", "logs"]) == 2
    error = capsys.readouterr().err
    assert "--first-byte" in error and error.count("\n") == 1


def test_first_and_last_byte_are_apart(folder, capsys):
    phases = only_run(folder, "/drips", "-n", "10", "-c", "2")["measured"]["phases_s"]
    assert phases["processing"]["median"] - phases["waiting"]["median"] > 0.15
    assert "The first byte came after" in capsys.readouterr().out


@pytest.mark.parametrize("path", ["/def", "/async-def"])
def test_a_body_that_threads_make_has_their_slots(folder, path):
    run = only_run(folder, path, "-n", "60")
    assert run["plan"]["launch"]["body_parts"] == 6 and run["plan"]["slots"] == 40
    # 60 x 0.2 s in 40 threads: shared part by part, so that it is less than two rounds.
    assert 0.29 < run["prediction"]["makespan_s"] < 0.39
    # Beside other programs it takes longer, and waits for these threads.
    assert run["inside"]["slots_seen"] is None and run["verdict"]["explained_by"] in ("prediction", "cpu", "inside")
