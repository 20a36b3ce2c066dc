"""What slowed services down that are public, as services of our own (tests/services/cases), with what is true of them.

A number is compared with what follows from the service; a change that is advised is tried in the same run.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading

import pytest
from commands import BENCH, ROOT, run_bench

from engine import neighbours

FOLDER = ROOT / "tests/services/cases"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HEADLESS = (
    CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--dump-dom",
    "--virtual-time-budget=20000",
)  # fmt: skip
THREADS = ("--server", "gunicorn-threads", "--threads")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """The runs of a command on a service, and its report as one line."""
    monkeypatch.chdir(FOLDER)

    def run_service(service, path, *options):
        _, document = run_bench(tmp_path, "--app", f"{service}:app", "--path", path, *options)
        return document["runs"], " ".join(capsys.readouterr().out.split())

    return run_service


def line_of(service: str, word: str) -> str:
    """The line of a service that ends with this comment."""
    lines = (FOLDER / f"{service}.py").read_text().splitlines()
    return next(f"{service}.py:{number}" for number, line in enumerate(lines, 1) if line.endswith(f"# {word}"))


def limit_of(run: dict) -> dict | None:
    """What the requests were seen to wait for."""
    return next((one for one in run["verdict"]["limits"] if one["waiting"]), None)


def at(run: dict, line: str) -> float:
    """How many requests stood at a line."""
    return sum(place["requests"] for place in run["inside"]["where"]["places"] if place["line"] == line)


def mean_s(run: dict) -> float:
    return run["measured"]["latency_s"]["mean"]


def predicted_s(text: str) -> list[float]:
    """What was predicted of each change, seconds."""
    said = re.findall(r"try \S+ [^:]*: ([\d.]+) (ms|s) is predicted", text)
    return [float(number) * (0.001 if unit == "ms" else 1.0) for number, unit in said]


# ---------------------------------------------------------------- what is held for how long


def test_a_stream_keeps_its_session_to_its_end(run):
    (found,), _ = run("tide_tables", "/levels", "-n", "60")
    limit = limit_of(found)
    assert (limit["resource"], limit["slots"]) == ("SQLAlchemy's pool", 15)
    # As long as a round of the run: half a second, or more beside other programs.
    assert limit["line"] == line_of("tide_tables", "waits") and limit["held_s"] > 0.45
    assert limit["held_s"] == pytest.approx(found["measured"]["measured_s"] / 4, rel=0.3)


def test_a_stream_of_a_def_handler_holds_no_thread(run):
    """60 of them, where AnyIO has 40 threads."""
    (found,), _ = run("tide_tables", "/levels/short", "-n", "60")
    assert found["prediction"]["makespan_s"] == pytest.approx(0.5, rel=0.1)
    assert not limit_of(found) and 0.9 < found["measured"]["measured_s"] / 0.5 < 1.6


def test_a_hanger_is_held_longer_than_an_answer_takes(run):
    (found,), _ = run("coat_check", "/coats", "-c", "30", "-t", "2")
    limit = limit_of(found)
    assert (limit["slots"], limit["line"]) == (10, line_of("coat_check", "waits"))
    assert 1.5 * found["measured"]["lone_s"] < limit["held_s"]
    assert 0.08 < limit["held_s"] == pytest.approx(10 / found["measured"]["throughput_rps"], rel=0.2)
    assert at(found, line_of("coat_check", "after")) > 2


def test_a_size_is_not_taken_from_the_time_of_an_answer(run):
    """60 requests/s of 50 ms keep 3 hangers, and of 100 ms 6: 4 of them are too few, and 5 as well."""
    options = ("--rate", "60", "--arrivals", "poisson", "--seed", "3", "-t", "2", "--p99", "0.4")
    runs, text = run("coat_check", "/coats", *options, "--env", "HANGERS=4", "--try", "--env HANGERS=10")
    (need,) = map(int, re.findall(r"it has 4; (\d+) are enough", text))
    assert 7 <= need <= 10
    assert runs[0]["measured"]["latency_s"]["max"] > 0.4 > runs[1]["measured"]["latency_s"]["max"]
    _, kept = run("coat_check", "/coats", *options, "--env", "HANGERS=10")
    assert ": kept." in kept and "slots, if each" not in kept


def test_one_at_a_time_for_a_part_of_the_request(run):
    tries = ("--try", "--threads 32", "--try", "--workers 2")
    runs, text = run("seed_bank", "/seeds", *THREADS, "16", "-n", "24", *tries)
    limit, (same_s, half_s) = limit_of(runs[0]), predicted_s(text)
    assert (limit["resource"], limit["slots"]) == ("a lock (book)", 1)
    assert limit["line"] == line_of("seed_bank", "waits") and limit["held_s"] == pytest.approx(0.04, rel=0.25)
    took_s = [one["measured"]["measured_s"] for one in runs]
    assert same_s == pytest.approx(took_s[0], rel=0.15) and took_s[1] == pytest.approx(same_s, rel=0.2)
    # 12 x 40 ms each, and 70 ms of work outside of the lock: with equal shares
    assert half_s == pytest.approx(0.55, rel=0.2) and 0.9 * half_s < took_s[2] < took_s[0]


def test_no_thread_is_advised_for_a_lock(run):
    """35 requests/s x 40 ms are more than one at a time."""
    options = ("--rate", "35", "--arrivals", "poisson", "--seed", "3", "-t", "3", "--p99", "0.3")
    tries = ("--try", "--threads 32", "--try", "--workers 3")
    runs, text = run("seed_bank", "/seeds", *THREADS, "16", *options, *tries)
    assert re.search("Each process has one of its own, so [23] processes are needed", text)
    assert not re.search(r"to keep it \d+ slots", text)
    same_s, better_s = predicted_s(text)
    assert same_s == pytest.approx(mean_s(runs[0]), rel=0.25) and mean_s(runs[1]) == pytest.approx(same_s, rel=0.3)
    assert better_s > 0.11 and mean_s(runs[2]) < 0.9 * mean_s(runs[0])  # no request is faster than by itself: 110 ms


@pytest.mark.parametrize("path", ["/receipts", "/tickets"])
def test_a_search_for_a_rate_finds_what_holds(run, path):
    """40 threads x 250 ms after the answer; 8 connections x 50 ms behind 40 threads: both allow 160 requests/s."""
    _, text = run("ticket_office", path, "--find-rate", "--p99", "0.4", "-t", "1")
    low, high = map(float, re.search(r"([\d.]+)/s held, with .*? ms\. ([\d.]+)/s did not", text).groups())
    assert 115 < low < 180 and high < 210


def test_what_waits_behind_other_work_in_one_function_has_nothing_yet(run):
    (found,), _ = run("ticket_office", "/tickets", "-c", "40", "-t", "2")
    limit = limit_of(found)
    assert limit["line"] == line_of("ticket_office", "waits") and 8 <= limit["slots"] <= 9
    assert limit["held_s"] == pytest.approx(0.055, rel=0.2)


# ---------------------------------------------------------------- settings


def test_a_setting_of_another_pool_changes_nothing(run):
    runs, text = run("print_shop", "/posters", "-n", "240", "--try", "--anyio-threads 60")
    limit = limit_of(runs[0])
    assert (limit["resource"], limit["slots"]) == ("AnyIO's threads", 40)
    assert predicted_s(text) == pytest.approx([1.6], rel=0.1)
    assert runs[1]["measured"]["measured_s"] < 0.9 * runs[0]["measured"]["measured_s"]
    (found,), _ = run("print_shop", "/posters/thread", "-n", "6")
    limit = limit_of(found)
    assert (limit["slots"], limit["line"]) == (1, line_of("print_shop", "waits works"))
    assert limit["held_s"] == pytest.approx(0.4, rel=0.2)


def test_a_server_that_refuses_is_not_said_to_let_wait(run):
    options = ("--server-args", "--limit-concurrency 10", "-k", "-c", "10", "-t", "1")
    (found,), text = run("front_desk", "/rooms", *options)
    assert set(found["measured"]["errors"]) == {"HTTP 503"} and found["measured"]["answered"] >= 9
    assert round(at(found, line_of("front_desk", "works"))) in (8, 9) and "The server's slots" not in text


def test_kept_connections_beyond_those_of_a_server_get_no_answer(run):
    arguments = "--worker-connections 3 --keep-alive 10"
    options = ("--server", "gunicorn-gevent", "--server-args", arguments, "-k", "-c", "15", "-t", "1", "-s", "2")
    (found,), text = run("sheet_music", "/sheets", *options)
    assert "at most 3 kept connections" in text and "12 connections got no answer at all" in text
    assert found["measured"]["errors"] == {"timed out": 12}
    assert mean_s(found) == pytest.approx(found["prediction"]["mean_s"], rel=0.3)


def test_workers_that_are_started_anew_are_seen(run):
    options = ("--workers", "2", "--server-args", "--max-requests 10", "-c", "4", "-t", "2")
    (found,), _ = run("glass_works", "/orders", *options)
    assert found["inside"]["restarts"] > 1 and "restarts" in {one["id"] for one in found["verdict"]["warnings"]}
    assert found["measured"]["failed"] == 0 and mean_s(found) > 1.2 * found["prediction"]["mean_s"]
    assert found["verdict"]["limits"][0]["resource"] not in ("slots", "machine")


def test_a_database_that_refuses_is_named_by_its_own_words(run):
    (found,), text = run("record_office", "/records", *THREADS, "16", "-n", "10")
    assert found["measured"]["failed"] == 7 and "sorry, too many clients already" in text


# ---------------------------------------------------------------- CPU time


def test_computing_is_not_taken_for_waiting(run):
    runs, text = run("rope_walk", "/ropes", *THREADS, "16", "-n", "20", "--try", "--workers 2")
    limit = runs[0]["verdict"]["limits"][0]
    assert (limit["resource"], limit["cpus"]) == ("cpu", 1) and limit["held_s"] == pytest.approx(0.051, rel=0.2)
    assert predicted_s(text) == pytest.approx([0.05 * 20 / 2 + 0.05], rel=0.25)
    assert line_of("rope_walk", "computes").partition(":")[0] in text.partition(" computes ")[2][:160]


def test_a_client_that_is_made_anew_costs_cpu_time(run):
    (found,), _ = run("quote_desk", "/quotes", "-c", "10", "-t", "2")
    assert limit_of(found)["line"] == line_of("quote_desk", "computes")
    assert found["measured"]["throughput_rps"] < 120  # 10 users who wait 20 ms would get 500


def test_connections_that_are_opened_anew_are_seen(run):
    options = (*THREADS, "40", "-c", "12", "--think", "0.03", "-t", "2")
    runs, _ = run("ice_rink", "/hours", *options, "--try", "--env SIZE=15")
    opens = line_of("ice_rink", "opens")
    assert at(runs[0], opens) > 1
    opening = runs[0]["inside"]["where"]["opening"]
    assert (opening["kept"], opening["most"], opening["line"]) == (5, 15, opens) and opening["requests"] > 1
    assert runs[1]["inside"]["where"]["opening"] is None
    assert mean_s(runs[1]) < 0.9 * mean_s(runs[0])


@pytest.fixture
def database(monkeypatch):
    """The port of a program that computes 10 ms for each line, on one CPU; it is not ours, but a neighbour."""
    command, family = [sys.executable, str(FOLDER.parent / "computing_database.py")], neighbours.family
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        monkeypatch.setattr(neighbours, "family", lambda *of: family(*of) - {process.pid})
        yield int(process.stdout.readline())
        process.kill()


def test_a_database_on_the_same_machine_is_a_part_of_the_service(run, database):
    (found,), _ = run("map_room", "/maps", *THREADS, "8", "-c", "8", "-t", "2", "--env", f"DATABASE={database}")
    connected = [one["cpus"] for one in found["measured"]["neighbours"] if one["is_connected"]]
    assert sys.platform != "linux" or sum(connected) > 0.4
    assert found["verdict"]["explained_by"] == "connected" or sum(connected) < 0.8
    assert at(found, line_of("map_room", "works")) > 6
    limit = found["verdict"]["limits"][0]
    if limit["resource"] == "slots":  # as long as a request had one, not as long as it takes by itself
        assert limit["ceiling_rps"] < 2 * found["measured"]["throughput_rps"]


# ---------------------------------------------------------------- beside the load, and other addresses


def test_a_cheap_request_behind_two_processes_waits_in_one_of_them(run):
    options = ("--workers", "2", "-c", "6", "-t", "3", "--victim", "/alive")
    (found,), text = run("signal_box", "/trains", *THREADS, "4", *options)
    assert "is predicted if the workers get equal shares" in text
    assert sum(place["requests"] for place in found["inside"]["where"]["places"]) < 7.5
    assert found["victim"]["failed"] == 0 and found["victim"]["latency_s"]["min"] < 0.2


@pytest.mark.parametrize("path, slots", [("/rooms/7/reserve", 1), ("/rooms/{n}/reserve", None)])
def test_a_lock_for_each_address_shows_only_where_all_ask_for_one(tmp_path, monkeypatch, path, slots):
    monkeypatch.chdir(ROOT / "tests/services/limits")
    (tmp_path / "rooms.toml").write_text(f'[[kinds]]\nname = "room"\npath = "{path}"\n')
    words = ("--app", "reading_room:app", "--workload", f"{tmp_path}/rooms.toml", "-c", "12", "-t", "2")
    _, document = run_bench(tmp_path, *words)
    limit = limit_of(document["runs"][0])
    assert (limit and limit["slots"]) == slots


@pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")
def test_six_at_a_time_is_the_browser(run, tmp_path):
    """The page asks for twenty at once, and so does bench.py: of those the server works on twenty."""
    (found,), _ = run("news_stand", "/papers/1", "-n", "20")
    assert limit_of(found) is None and found["inside"]["slots_seen"] == 20
    words = (*BENCH, "--app", "news_stand:app", "--serve", "--logs", str(tmp_path / "serve"))
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        late = threading.Timer(30, server.kill)
        late.start()
        page = server.stdout.readline().split()[0]
        command = [*HEADLESS, f"--user-data-dir={tmp_path}/profile", page]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        line_with(server, "/papers/")
        server.stdin.write("\n")
        server.stdin.flush()
        many, *_ = line_with(server, "news_stand.py").split()
        assert int(many) <= 6 and "would take more" in server.stdout.readline()
        browser.kill()
        late.cancel()
        server.terminate()


def line_with(process, word):
    while word not in (line := process.stdout.readline()):
        assert line
    return line
