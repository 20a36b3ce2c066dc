"""The tests of apps/locustfile.py and suites/locust.py. Only the last one needs Locust; the others make its files."""

from __future__ import annotations

import csv
import doctest
import json
import math
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import load
import slots
import sweep
from suites import locust

HERE = Path(__file__).parent


def test_the_examples_in_the_docstrings_hold():
    found = doctest.testmod(locust)
    assert found.attempted and not found.failed


# ---------------------------------------------------------------- the files of a run, without Locust

STATS = ("Type", "Name", "Request Count", "Failure Count", "Median Response Time", "Average Response Time",
         "Min Response Time", "Max Response Time", "Average Content Size", "Requests/s", "Failures/s", "50%", "66%",
         "75%", "80%", "90%", "95%", "98%", "99%", "99.9%", "99.99%", "100%")  # fmt: skip
BEGUN = 1_000.0
STAGES = [[4.0, 32], [4.0, 32]]  # 16 slots: full from 2 s on


def line(kind: str, name: str, count: int, failures: int, times_ms: tuple[object, ...]) -> list[object]:
    p50, p95, p99, most = times_ms
    return [
        kind,
        name,
        count,
        failures,
        p50,
        0,
        0,
        most,
        15,
        count / 8,
        0,
        p50,
        *[p50] * 4,
        p95,
        p95,
        p99,
        p99,
        p99,
        most,
    ]


def write_csv(path: Path, *rows) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def run_in(folder: Path, name: str = "books", lost: float | None = None, noted: bool = True, **changes) -> Path:
    """What Locust leaves of a run in which all went as predicted: 320/s when the slots are full."""
    stats, times_ms = folder / f"{name}_stats.csv", (100, 110, 150, 210)
    rates = [40, 240, 320, 320, 320, 320, 320, 320]  # answers of each second, as the users rise from 0 to 32
    total = sum(rates)
    write_csv(
        stats, STATS, line("GET", "/v1/sleep?ms=50", total, 0, times_ms), line("", "Aggregated", total, 0, times_ms)
    )
    users = [[BEGUN + second, min(32, 8 * second), "", "Aggregated"] for second in range(9)]
    write_csv(folder / f"{name}_stats_history.csv", ("Timestamp", "User Count", "Type", "Name"), *users)
    write_csv(folder / f"{name}_failures.csv", ("Method", "Name", "Error", "Occurrences", "First Seen", "Last Seen"))
    run = {"workload": "fanout", "wait_s": 0.05, "stages": STAGES, "begun": BEGUN, "complete": True, "requests": total,
           "workers": {"a": None, "b": lost}, "failures": 0,
           "per_second": [[int(BEGUN) + i, rate] for i, rate in enumerate(rates)]}  # fmt: skip
    if noted:
        (folder / f"{name}_run.json").write_text(json.dumps(run | changes))
    return stats


def report(capsys, *arguments: object) -> str:
    assert sweep.main(["report", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def rows_of(markdown: str) -> dict[str, list[str]]:
    rows = (line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| "))
    return {row[0]: [cell.strip() for cell in row[1:]] for row in rows}


def test_a_report_has_the_prediction_beside_what_locust_measured(tmp_path, capsys):
    rows = rows_of(report(capsys, run_in(tmp_path), "--slots", 16))
    # 0 to 32 users in 4 s: 16 slots are full after 2 s, so 240 on average, and 5 more as users are whole; then S / t.
    # Locust's own history has 0, 8, 16 and 24 users: 0, 160, 320 and 320 requests/s.
    assert rows["1: 0 to 32 users"] == ["245", "200", "230", "94%"]
    assert rows["2: 32 to 32 users"] == ["320", "320", "320", "100%"]
    assert rows["all"] == ["282", "260", "275", "97%"]
    assert rows["p50, ms"] == ["100", "100", "100%"]  # 32 users, 16 slots: c t / S


def test_the_wait_of_a_workload_can_be_said_and_without_slots_nothing_is_predicted(tmp_path, capsys):
    stats = run_in(tmp_path, wait_s=None)
    assert "Nothing is predicted" in report(capsys, stats, "--slots", 16)
    said = report(capsys, stats, "--slots", 16, "--wait", "0.1")
    assert "S / t = 16 / 100 ms = 160 requests/s" in said and rows_of(said)["2: 32 to 32 users"][-1] == "200%"


def test_a_lost_worker_makes_the_run_degraded(tmp_path, capsys):
    assert "Degraded" not in report(capsys, run_in(tmp_path))
    said = report(capsys, run_in(tmp_path, lost=6.5))
    assert "**Degraded**: worker b, one of 2, was found lost after 6.5 s" in said


def test_users_who_went_with_a_worker_are_missing_in_what_is_given(tmp_path, capsys):
    stats = run_in(tmp_path, lost=5.0)
    users = [[BEGUN + second, 8, "", "Aggregated"] for second in range(9)]  # never 16: slots stay empty
    write_csv(tmp_path / "books_stats_history.csv", ("Timestamp", "User Count", "Type", "Name"), *users)
    assert rows_of(report(capsys, stats, "--slots", 16))["2: 32 to 32 users"][:2] == ["320", "160"]


def test_an_interrupted_run_and_one_of_another_locustfile_say_so(tmp_path, capsys):
    assert "**Unfinished**" in report(capsys, run_in(tmp_path, complete=False))
    (tmp_path / "books_run.json").unlink()
    said = report(capsys, run_in(tmp_path, noted=False), "--slots", 16, "--wait", 0.05)
    assert "nobody knows" in said and "2200 requests, 0 failed" in said


def test_counts_are_compared_with_the_servers_log(tmp_path, capsys):
    stats, log = run_in(tmp_path), tmp_path / "access.log"
    lines = [
        f"[2026-11-21 10:00:00.000] [pid-{i % 2}] GET /v1/sleep?ms=50 200 0.0500s #{i} @{i}.5" for i in range(2200)
    ]
    log.write_text("\n".join([*lines, "[2026-11-21 10:00:00.000] [pid-0] GET /health 200 0.0010s #- @1.5"]))
    assert "has 2200 requests, the same; of its processes: 1100 + 1100" in report(capsys, stats, "--access-log", log)
    log.write_text("\n".join(lines[:-3]))
    assert "has 2197 requests, 3 fewer" in report(capsys, stats, "--access-log", log)


def test_failures_are_named_and_kinds_have_their_shares(tmp_path, capsys):
    stats, times_ms = run_in(tmp_path, requests=200, failures=7), (100, 110, 150, 210)
    write_csv(stats, STATS, line("GET", "/v1/books/{id}", 140, 0, times_ms), line("POST", "/v1/books", 60, 7, times_ms),
              line("", "Aggregated", 200, 7, times_ms))  # fmt: skip
    write_csv(tmp_path / "books_failures.csv", ("Method", "Name", "Error", "Occurrences", "First Seen", "Last Seen"),
              ("POST", "/v1/books", "HTTPError('503')", 7, "", ""))  # fmt: skip
    said = report(capsys, stats)
    assert "200 requests, 7 failed" in said and "Failed, 7 times: POST /v1/books: HTTPError('503')" in said
    assert rows_of(said)["POST /v1/books"][:3] == ["60", "30.0%", "7"]


def test_a_folder_is_all_the_runs_in_it_and_stands_beside_other_files(tmp_path, capsys):
    run_in(tmp_path, "first"), run_in(tmp_path, "second")
    example = sorted((HERE / "logs/example").glob("sweep-*.json"))[0]
    said = report(capsys, tmp_path, example, "--csv", tmp_path / "runs.txt")
    assert said.index("## first") < said.index("## second") < said.index("## Suite")
    assert (tmp_path / "runs.txt").read_text().count("\n") > 1


def test_a_run_without_one_answer_can_be_reported(tmp_path, capsys):
    stats = run_in(tmp_path, per_second=[])
    write_csv(stats, STATS, line("", "Aggregated", 0, 0, ("N/A", "N/A", "N/A", "N/A")))
    assert rows_of(report(capsys, stats, "--slots", 16))["all"] == ["282", "260", "0", "0%"]


@pytest.mark.parametrize(
    "spoil, says",
    [
        (lambda f: (f / "books_stats.csv").unlink(), "cannot read .*books_stats.csv: No such file"),
        (lambda f: (f / "books_failures.csv").unlink(), "cannot read .*books_failures.csv: No such file"),
        (
            lambda f: (f / "books_stats.csv").write_text("a,b\n1,2\n"),
            "is not of `locust --csv`: it has no column '50%'",
        ),
        (lambda f: (f / "books_stats.csv").write_text(""), "has no line Aggregated"),
        (lambda f: (f / "books_stats.csv").write_bytes(b"\xff\x00"), "not of `locust --csv`"),
        (lambda f: (f / "books_run.json").write_text("{"), "not of `locust --csv`"),
        (lambda f: (f / "books_run.json").write_text('{"stages": []}'), "is not of this apps/locustfile.py"),
        (lambda f: run_in(f, stages=[]), "or was changed by hand"),
        (lambda f: run_in(f, workers=7), "or was changed by hand"),
        (lambda f: write_csv(f / "books_stats_history.csv", ("Timestamp", "User Count"), ("x", "y")), "not of `locust"),
    ],
)
def test_files_that_are_not_of_locust_are_refused_in_one_line(tmp_path, capsys, spoil, says):
    stats = run_in(tmp_path)
    spoil(tmp_path)
    assert sweep.main(["report", str(stats), "--slots", "16"]) == 2
    said = capsys.readouterr().err
    assert re.search(says, said) and said.count("\n") == 1


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["{example}", "--slots", "16"], "--slots, --wait and --access-log go with the _stats.csv"),
        (["{folder}", "--access-log", "x"], "--access-log is of one run of Locust; here are 2"),
        (["{stats}", "--access-log", "{folder}/none"], "cannot read .*none: No such file"),
        (["{stats}", "--slots", "0"], "'0' is not a whole number"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path, capsys, arguments, says):
    stats, _ = run_in(tmp_path), run_in(tmp_path, "other")
    example = sorted((HERE / "logs/example").glob("sweep-*.json"))[0]
    arguments = [text.format(folder=tmp_path, stats=stats, example=example) for text in arguments]
    assert sweep.main(["report", *arguments]) == 2
    assert re.search(says, capsys.readouterr().err)


# ---------------------------------------------------------------- past one machine, simulated

MACHINES, PROCESSES, EACH, WAIT_S = 2, 4, 4, 0.05
SLOTS = MACHINES * PROCESSES * EACH
RATE = 0.8 * SLOTS / WAIT_S
DUE_S = list(load.poisson_schedule(RATE, 20_000, math.inf, 1))


def waits_s(distribution: str) -> list[float]:
    return [slots.drawn_wait_s(WAIT_S, distribution, i) for i in range(len(DUE_S))]


def p99_wait_s(distribution: str, balancer: str = "", within: str = "random") -> float:
    """How long 99 % wait for a slot at most; without a balancer all slots are behind one queue."""
    held_s = waits_s(distribution)
    service, process_of = slots.Service((SLOTS,)), list[int]()
    if balancer:
        service = slots.Service((EACH,) * (MACHINES * PROCESSES))
        process_of = locust.balanced(DUE_S, MACHINES, PROCESSES, EACH, held_s.__getitem__, balancer, within)
    forecast = slots.predict(DUE_S, service, held_s, process_of)
    waited_s = [start_s - due_s for due_s, start_s in zip(forecast.arrived_s, forecast.started_s, strict=True)]
    return sorted(waited_s)[int(0.99 * len(waited_s))]


def test_the_slots_of_all_machines_add_up_whoever_deals():
    held_s = slots.predict([0.0] * (10 * SLOTS), slots.Service((SLOTS,)), WAIT_S)
    assert held_s.answered_s[-1] == pytest.approx(10 * WAIT_S)
    for balancer in ("in turn", "least connections"):
        chosen = locust.balanced([0.0] * (10 * SLOTS), MACHINES, PROCESSES, EACH, WAIT_S, balancer, "in turn")
        service = slots.Service((EACH,) * (MACHINES * PROCESSES))
        answered_s = slots.predict([0.0] * (10 * SLOTS), service, WAIT_S, chosen).answered_s
        assert max(answered_s) == pytest.approx(10 * WAIT_S)


@pytest.mark.parametrize("users", [64, 200])
def test_littles_law_holds_over_all_machines_however_uneven_the_users_are(users):
    """c users on full processes: m p S_p / t answers a second, c t / (m p S_p) each on average."""
    share = users // (MACHINES * PROCESSES)
    shares = [share + 3 * (-1) ** i for i in range(MACHINES * PROCESSES)]
    service = slots.Service((EACH,) * (MACHINES * PROCESSES))
    forecast = slots.predict_users(users, service, WAIT_S, time_limit_s=40.0, connections_of_process=shares)
    figures = slots.expected(forecast, 40.0)
    assert figures["throughput_rps"] == pytest.approx(SLOTS / WAIT_S, rel=0.01)
    assert figures["mean_s"] == pytest.approx(users * WAIT_S / SLOTS, rel=0.02)


def test_random_dealing_is_that_many_separate_queues():
    """Each process sees random arrivals of its own, which have an exact formula: M/D/S_p at rate / (m p)."""
    exact_s = slots.md_c_wait_quantile(RATE / MACHINES / PROCESSES, WAIT_S, EACH, 99)
    one_queue_s = slots.md_c_wait_quantile(RATE, WAIT_S, SLOTS, 99)
    assert p99_wait_s("constant", "random", "random") == pytest.approx(exact_s, rel=0.15)
    assert p99_wait_s("constant") == pytest.approx(one_queue_s, rel=0.15)
    assert exact_s > 8 * one_queue_s


@pytest.mark.parametrize("balancer", ["in turn", "least connections"])
def test_with_a_constant_wait_dealing_in_turn_is_one_queue(balancer):
    """Slots become free in the order in which they were taken: the next in turn is the one that is free first."""
    assert p99_wait_s("constant", balancer, "in turn") == pytest.approx(p99_wait_s("constant"), abs=1e-9)


def test_with_waits_that_vary_only_least_connections_comes_near_one_queue():
    one, least = p99_wait_s("exp"), p99_wait_s("exp", "least connections", "least connections")
    turn, dice = p99_wait_s("exp", "in turn", "in turn"), p99_wait_s("exp", "random", "random")
    assert one < least < 2.5 * one < turn < dice


def test_a_balancer_of_machines_leaves_the_queues_within_them():
    across = p99_wait_s("exp", "least connections", "random")  # each machine's kernel deals at random
    assert across > 3 * p99_wait_s("exp", "least connections", "least connections")
    assert across < p99_wait_s("exp", "random", "random")


def test_the_table_of_balancers_is_what_the_simulation_gives():
    rows = re.findall(r"^\| (.+?) \| (\d+) ms \| (\d+) ms \|$", (HERE / "more-machines.md").read_text(), re.MULTILINE)
    dealt = [(), ("least connections",) * 2, ("in turn",) * 2, ("least connections", "random"), ("in turn", "random"),
             ("random", "random")]  # fmt: skip
    assert len(rows) == len(dealt)
    for (name, *stated), how in zip(rows, dealt, strict=True):
        found = [p99_wait_s(distribution, *how) * 1000 for distribution in ("constant", "exp")]
        assert found == pytest.approx(list(map(float, stated)), rel=0.05), name


# ---------------------------------------------------------------- the locustfile, with Locust


def test_the_locustfile_repeats_no_stage_and_no_path_of_a_workload():
    code = (HERE / "apps/locustfile.py").read_text().split('"""', 2)[2]
    assert "bench.WORKLOADS" in code
    assert not re.search(r"/v1/books\"|/v1/sleep\"|\d+, \d+\), \(\d+", code.partition("def wanted")[0])


LOCUST = shutil.which("locust")
needs_locust = pytest.mark.skipif(not LOCUST, reason="Locust is not installed")


class Books(ThreadingHTTPServer):
    """As the Books API answers, with 16 slots and no database; it counts."""

    daemon_threads, request_queue_size = True, 512

    def __init__(self, answers: int | None = None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.counts, self.ids, self.slots, self.lock = (
            Counter[str](),
            Counter[str](),
            threading.Semaphore(16),
            threading.Lock(),
        )
        self.answers = answers  # what /v1/sleep says that it slept, if that is wrong
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm, wbufsize = "HTTP/1.1", True, -1

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        slept = self.path.startswith("/v1/sleep")
        with self.server.slots:
            time.sleep(0.05 if slept else 0.002)
        value = {"slept_ms": self.server.answers or 50} if slept else json.loads(body or "{}")
        if re.search(r"/[0-9]+$", self.path):
            value["id"] = int(self.path.rpartition("/")[2])
        with self.server.lock:
            self.server.counts[self.command] += 1
            self.server.ids[self.headers["X-Request-Id"]] += 1
        text = json.dumps(value).encode()
        self.send_response(201 if self.command == "POST" else 200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PATCH = answer

    def log_message(self, *_):
        pass


def start(folder: Path, *options: str, **env: str) -> subprocess.Popen[str]:
    command = [LOCUST, "-f", str(HERE / "apps/locustfile.py"), *options]
    return subprocess.Popen(command, cwd=folder, env=os.environ | env, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)  # fmt: skip


def distributed(folder: Path, url: str, kill_after_s: float = 0.0, **env: str) -> dict:
    """A master and two workers; one of them is killed, if so asked. What the master notes."""
    port = ["--master-port", str(free_port())]
    headless = ["--headless", "--only-summary", "--csv", "books", "--host", url]
    master = start(folder, "--master", "--master-bind-port", port[1], "--expect-workers", "2", *headless, **env)
    workers = [start(folder, "--worker", *port, **env) for _ in range(2)]
    try:
        if kill_after_s:
            deadline = time.monotonic() + 30
            while not (folder / "books_stats.csv").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(kill_after_s)
            workers[0].kill()
        said, _ = master.communicate(timeout=90)
        assert master.returncode == 0, said
        workers[1].wait(10)
    finally:
        for process in (master, *workers):
            process.kill()
            process.communicate()
    return json.loads((folder / "books_run.json").read_text())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@needs_locust
def test_a_master_and_two_workers_count_what_the_server_counts(tmp_path, capsys):
    books = Books()
    noted = distributed(tmp_path, books.url, SCALE="0.05")
    assert noted["complete"] and list(noted["workers"].values()) == [None, None] and noted["failures"] == 0
    assert noted["requests"] == books.counts["GET"] == sum(answers for _, answers in noted["per_second"])
    assert max(books.ids.values()) == 1  # no two workers share a number
    said = report(capsys, tmp_path, "--slots", "16")
    assert "Degraded" not in said and f"{noted['requests']} requests, 0 failed" in said
    assert 30 < float(rows_of(said)["all"][-1].rstrip("%")) < 115


@needs_locust
def test_a_worker_killed_in_the_middle_is_reported(tmp_path, capsys):
    books = Books()
    noted = distributed(tmp_path, books.url, kill_after_s=3.0, SCALE="0.1")
    lost = [at_s for at_s in noted["workers"].values() if at_s is not None]
    assert len(lost) == 1 and len(noted["workers"]) == 2
    assert noted["complete"] and noted["requests"] < books.counts["GET"]
    assert "**Degraded**" in report(capsys, tmp_path, "--slots", "16")


@needs_locust
def test_a_mix_has_its_shares_to_the_request(tmp_path):
    books = Books()
    alone = start(tmp_path, "--headless", "--only-summary", "--csv", "books", "--host", books.url, WORKLOAD="mixed",
                  SCALE="0.02")  # fmt: skip
    said, _ = alone.communicate(timeout=90)
    assert alone.returncode == 0, said
    noted, count = json.loads((tmp_path / "books_run.json").read_text()), books.counts.total()
    assert noted["requests"] == count > 100 and noted["failures"] == 0 and noted["workers"] == {}
    for method, share in (("GET", 0.7), ("POST", 0.25), ("PATCH", 0.05)):
        assert abs(books.counts[method] - share * count) <= 1


@needs_locust
def test_a_wrong_answer_is_a_failure(tmp_path, capsys):
    books = Books(answers=49)
    alone = start(tmp_path, "--headless", "--only-summary", "--csv", "books", "--host", books.url, SCALE="0.01")
    said, _ = alone.communicate(timeout=90)
    assert alone.returncode == 1, said
    said = report(capsys, tmp_path)
    assert "something else than what was asked for" in said and f"{books.counts['GET']} failed" in said


@needs_locust
@pytest.mark.parametrize("env", [{"WORKLOAD": "writes"}, {"SCALE": "0"}, {"SCALE": "fast"}])
def test_a_setting_that_is_wrong_is_refused(tmp_path, env):
    alone = start(tmp_path, "--headless", "--host", "http://127.0.0.1:9", **env)
    said, _ = alone.communicate(timeout=60)
    assert alone.returncode == 2 and "WORKLOAD is one of read, mixed, fanout, SCALE a number" in said
