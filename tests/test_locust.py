"""suites/locustfile.py, and the report of what it measured. The last seven tests run Locust, if this Python has it."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sweeps import EXAMPLES, rows_of

import sweep
from engine.server import free_port

ROOT = Path(sweep.__file__).parent
STATS = "Type", "Name", "50%", "99%"
STAGES = [[4.0, 32], [4.0, 32]]  # 16 slots: full from 2 s on
RATES = [40, 240, 320, 320, 320, 320, 320, 320]  # answers of each second, as the users rise from 0 to 32


def run_in(folder: Path, **changes: object) -> Path:
    """What Locust leaves of a run in which all went as predicted: 320/s when the slots are full."""
    failed = ["POST", "/v1/books", "503", 7]
    for name, rows in (
        ("stats", [STATS, ("", "Aggregated", 100, 110)]),
        ("failures", [("Method", "Name", "Error", "Occurrences"), failed]),
    ):
        with (folder / f"books_{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    noted = {"workload": "fanout", "wait_s": 0.05, "stages": STAGES, "begun": 1000.0, "complete": True,
             "requests": sum(RATES), "workers": {"a": None, "b": None}, "failures": 0,
             "per_second": [[1000 + i, rate] for i, rate in enumerate(RATES)]}  # fmt: skip
    (folder / "books_run.json").write_text(json.dumps(noted | changes))
    return folder / "books_stats.csv"


def report(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert sweep.main(["report", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_a_report_has_the_prediction_beside_what_locust_measured(tmp_path, capsys):
    said = report(capsys, run_in(tmp_path), EXAMPLES[0], "--slots", 16)
    rows = rows_of(said)
    # 0 to 32 users in 4 s: 16 slots are full after 2 s, so 240 on average, and 5 more as users are whole; then S / t.
    assert rows["1: 0 to 32 users"] == ["245", "230", "93.9 %"]
    assert rows["2: 32 to 32 users"] == ["320", "320", "100 %"]
    assert rows["all"][:2] == ["282", "275"]
    assert "Failed, 7 times: POST /v1/books: 503" in said and "## Suite" in said
    assert rows_of(report(capsys, tmp_path, "--slots", 16, "--wait", "0.1"))["2: 32 to 32 users"][-1] == "200 %"
    assert "Nothing is predicted" in report(capsys, tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"workers": {"a": None, "b": 6.5}}, "**Degraded**: worker b"), ({"complete": False}, "**Unfinished**")],
)
def test_what_makes_the_figures_less_than_they_seem_comes_first(changes, words, tmp_path, capsys):
    assert words in report(capsys, run_in(tmp_path, **changes)).split("\n\n")[1]


@pytest.mark.parametrize(("name", "text"), [("stats.csv", "a,b\n1,2\n"), ("stats.csv", ""), ("run.json", "{}")])
def test_files_that_are_not_of_locust_are_refused_in_one_line(name, text, tmp_path, capsys):
    stats = run_in(tmp_path)
    (tmp_path / f"books_{name}").write_text(text)
    assert sweep.main(["report", str(stats), "--slots", "16"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# ---------------------------------------------------------------- with Locust

needs_locust = pytest.mark.skipif(not importlib.util.find_spec("locust"), reason="this Python has no Locust")


class Books(ThreadingHTTPServer):
    """As the Books API answers, but without a database; it remembers what was asked."""

    daemon_threads, request_queue_size, slept = True, 512, 50

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm, wbufsize = "HTTP/1.1", True, -1

    def answer(self):
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(self.command)
        time.sleep(0.05)
        text = str(self.server.slept if "sleep" in self.path else self.path).encode()
        is_json = not sent or self.headers.get("Content-Type") == "application/json"
        self.send_response(415 if not is_json else 201 if self.command == "POST" else 200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PATCH = answer

    def log_message(self, *_):
        pass


def locust(folder: Path, *options: str, **env: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "suites/locustfile.py"), *options]
    return subprocess.Popen(command, cwd=folder, env=os.environ | env, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)  # fmt: skip


def run(folder: Path, books: Books, code: int = 0, workers: int = 0, kill_after_s: float = 0.0, **env: str) -> dict:
    """Run Locust, with a master if there are workers; kill one of them if so asked. What it notes."""
    port, host = str(free_port()), f"http://127.0.0.1:{books.server_port}"
    master = ["--master", "--master-bind-port", port, "--expect-workers", str(workers)] if workers else []
    options = "--headless", "--only-summary", "--csv", "books", "--host", host
    processes = [locust(folder, *options, *master, **env)]
    processes += [locust(folder, "--worker", "--master-port", port, **env) for _ in range(workers)]
    try:
        deadline_s = time.monotonic() + 60
        while kill_after_s and not books.asked and time.monotonic() < deadline_s:
            time.sleep(0.05)
        if kill_after_s:
            time.sleep(kill_after_s)
            processes[-1].kill()
        said, _ = processes[0].communicate(timeout=120)
        assert processes[0].returncode == code, said
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return json.loads((folder / "books_run.json").read_text())


@needs_locust
def test_a_master_and_two_workers_count_what_the_server_counts(tmp_path, capsys):
    books = Books()
    noted = run(tmp_path, books, workers=2, SCALE="0.05")
    assert noted["complete"] and list(noted["workers"].values()) == [None, None] and noted["failures"] == 0
    assert noted["requests"] == len(books.asked) == sum(answers for _, answers in noted["per_second"])
    assert "Degraded" not in report(capsys, tmp_path, "--slots", "16")


@needs_locust
def test_a_worker_killed_in_the_middle_is_reported(tmp_path, capsys):
    books = Books()
    noted = run(tmp_path, books, workers=2, kill_after_s=2.0, SCALE="0.1")
    assert len(noted["workers"]) == 2 and len([at_s for at_s in noted["workers"].values() if at_s]) == 1
    assert noted["complete"] and noted["requests"] < len(books.asked)
    assert "**Degraded**" in report(capsys, tmp_path, "--slots", "16")


@needs_locust
def test_a_mix_has_its_shares_to_the_request(tmp_path):
    books = Books()
    noted = run(tmp_path, books, WORKLOAD="mixed", SCALE="0.02")
    count = len(books.asked)
    assert noted["requests"] == count > 100 and noted["failures"] == 0 and noted["workers"] == {}
    for method, share in (("GET", 0.7), ("POST", 0.25), ("PATCH", 0.05)):
        assert abs(books.asked.count(method) - share * count) <= 1


@needs_locust
def test_a_wrong_answer_is_a_failure(tmp_path, capsys):
    books = Books()
    books.slept = 49
    assert run(tmp_path, books, code=1, SCALE="0.01")["failures"] == len(books.asked)
    assert "something else than what was asked for" in report(capsys, tmp_path)


@needs_locust
@pytest.mark.parametrize("env", [{"WORKLOAD": "writes"}, {"SCALE": "0"}, {"SCALE": "fast"}])
def test_a_setting_that_is_wrong_is_refused(env, tmp_path):
    alone = locust(tmp_path, "--headless", "--host", "http://127.0.0.1:9", **env)
    said, _ = alone.communicate(timeout=60)
    assert alone.returncode == 2 and "WORKLOAD is one of read, mixed, fanout, SCALE a number" in said
