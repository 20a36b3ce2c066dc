"""Command lines at random, odd values among them, with every server faked: never a traceback, the documented exit
codes, and one line on stderr when something is wrong."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bench
import load
import serve
import slots
import suites.queues
import sweep

ODD = [
    "", " ", "0", "-1", "1", "2", "7", "0.5", "1e3", "1e999", "nan", "inf", "-inf", "1_0", "\uff11", "²", "9" * 30, "x",
    "é", "\udcff", "-", "--", "-k", "=", "{}", "{port}", "%s", "%(x)s", "'", '"', "a b", "\n", "..", "/", "/x?y=1",
    "/é", "a-file", "a-folder", "a-file/x", "no/such", "/dev/null", "/dev/full", "/proc/x", "0,1", "0,,1", "5s:50",
    "1s:0", "0s:3", "1s:2,1s:0", "X: y", ":", "X: a\r\nY: b", "GET", "1000000", "run.json", "list.json",
]  # fmt: skip
COUNTS = ["1", "3", "16", "50"]
LOAD = {
    "-n": COUNTS, "-c": COUNTS, "--rate": ["5", "100"], "--arrivals": ["constant", "poisson"], "--seed": ["1"],
    "--ramp": ["0.1s:2", "1s:5,1s:2"], "--think": ["0.1"], "-t": ["0.2", "3"], "--warmup": ["0", "5"], "-k": None,
    "-m": ["GET", "HEAD"], "-H": ["X: y", "Host: z"], "-p": ["a-file", "nothing"], "--data": ["x", "é"], "-s": ["0.5"],
    "--client-cpus": ["0", "0,1"], "-v": None, "-q": None, "--json": ["-", "out.json", "a-folder"], "-h": None,
    "--processes": ["1", "2"],
}  # fmt: skip
START = {
    "--list": None, "--workers": ["2"], "--threads": ["3"], "--server-args": ["--preload", "-k gthread", "--x '"],
    "--task-time": ["0.2", "50ms", "50ms:exp"], "--cpu-time": ["0.01"], "--subtasks": ["3"], "--pool-size": ["2"],
    "--database-url": ["postgres://x"], "--server-cpus": ["0"], "--access-log": None, "--logs": ["logs", "a-file"],
    "--app": ["main:app", "main:create_app('x')", "a.b:c.d"], "--server": list(serve.SERVERS),
}  # fmt: skip
URLS = ["http://127.0.0.1:CLOSED/", "http://127.0.0.1:9/", "http://[::1]:9/x?y", "https://x/", "http://127.0.0.1:0/"]
PATHS = ["/io", "/async-io", "/async-io-multi", "/v1/sleep?ms=5", "/v1/books/1", "/sleep", "/nope"]
BENCH = LOAD | START | {
    "--target": [*serve.TARGETS, "all"], "--url": URLS, "--path": PATHS, "--scale": ["0.1"],
    "--workload": list(bench.WORKLOADS),
}  # fmt: skip
SLOTS = {
    "--slots": ["1", "40"], "--workers": ["1", "4"], "--wait": ["0", "0.05"], "--distribution": ["constant", "exp"],
    "--passes": ["1", "2"], "--one-queue": None, "--split": ["3,2", "0,0", "5"], "-n": COUNTS, "-t": ["0.5"],
    "-c": COUNTS, "--ramp": ["0.1s:2", "1s:5,1s:2"], "--rate": ["5", "100"], "--think": ["0.1"],
    "--arrivals": ["constant", "poisson"], "--seed": ["1"], "-h": None,
}  # fmt: skip
SWEEP = {
    "--quick": None, "--repeats": ["1"], "--scale": ["0.1"], "--seed": ["1"], "--resume": ["run.json", "list.json"],
    "--logs": ["logs"], "--csv": ["x.csv"], "--pictures": ["logs"], "--list": None, "-h": None,
}  # fmt: skip


@st.composite
def command_lines(draw, options: dict[str, list[str] | None], first: Sequence[Sequence[str]] = ((),)) -> list[str]:
    """Some options, each with a fitting or an odd value or none at all, and what usually comes first."""
    words = list(draw(st.sampled_from(first)))
    for name in draw(st.lists(st.sampled_from([*options, "--bogus"]), max_size=5)):
        values = options.get(name)
        words.append(name)
        if values and draw(st.integers(0, 20)):
            words.append(draw(st.sampled_from(ODD)) if draw(st.integers(0, 4)) == 0 else draw(st.sampled_from(values)))
    return words


class FakeGuard:
    pid = 0
    ended = False

    def poll(self) -> int | None:
        return 1 if self.ended else None

    def wait(self, timeout: float | None = None) -> int:
        if not self.ended:
            raise subprocess.TimeoutExpired("fake", timeout or 0)
        return 1


def fake_measure(traffic: load.Traffic, *_: Any) -> load.Measured:
    """A run of up to 20 requests that was answered as a server of no limits would, every seventh not."""
    exchanges, begun_s = load.Exchanges(), perf_counter()
    rows = int(min(20, traffic.pace.requests))
    exchanges.grow()
    for i in range(rows):
        exchanges.started_s[i], exchanges.answered_s[i] = begun_s + i / 100, begun_s + i / 100 + 0.2
        exchanges.status[i], exchanges.error[i] = (0, 4) if i % 7 == 6 else (200, 0)
    exchanges.finish(rows)
    return load.Measured(exchanges, begun_s, 0.01, rows, {}, load.Exchanges(), "SIGINT" if rows == 3 else "")


@contextlib.contextmanager
def no_database(*_: Any) -> Iterator[None]:
    yield None


@pytest.fixture(scope="module")
def fakes(tmp_path_factory) -> Iterator[int]:
    """Nothing is started and nothing is sent; a closed port, and a folder with files that may be named."""
    folder, closed = tmp_path_factory.mktemp("fuzz"), serve.free_port()
    (folder / "a-folder").mkdir()
    (folder / "a-file").write_text("x")
    (folder / "list.json").write_text("[1]")
    (folder / "run.json").write_text(json.dumps({"runs": [{"target": "x"}]}))
    real_resolve = load.resolve

    def start_server(launch: serve.Launch, access_log: Path, output: Path, *_: Any) -> serve.RunningServer:
        output.write_text("RuntimeError: no\n")
        if launch.workers == 2:
            raise serve.Problem("the server did not start: it is a fake", 3)
        return serve.RunningServer(FakeGuard(), closed, output, access_log)  # type: ignore[arg-type]

    def resolve(host: str, port: int) -> tuple[Any, ...]:
        return (host, port) if port == 9 else real_resolve(host, port)

    settings_of_gunicorn = {"workers": 2, "threads": 3, "worker_class": "gthread", "worker_connections": 10,
                            "preload_app": False, "bind": [], "daemon": False, "file": {}}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("DATABASE_URL", "WEB_CONCURRENCY", "GUNICORN_CMD_ARGS"):
            patch.delenv(name, raising=False)
        patch.setattr(serve, "start_server", start_server)
        patch.setattr(serve, "stop_server", lambda _: None)
        patch.setattr(serve, "database_for", no_database)
        says = {
            "kind": "asgi",
            "factory": False,
            "handler": "async",
            "thread_passes": [],
            "packages": [],
            "yield_dependencies": 0,
        }
        patch.setattr(serve, "ask_app", lambda *_: says)
        patch.setattr(serve, "ask_gunicorn", lambda _: settings_of_gunicorn | {"file": {}})
        patch.setattr(serve, "wait_for_log", lambda *_: serve.AccessLog([], []))
        patch.setattr(serve, "HERE", folder)
        patch.setattr(load, "measure", fake_measure)
        patch.setattr(load, "resolve", resolve)
        patch.setattr(load, "pin_client", lambda _: None)
        patch.setattr(load, "poisson_schedule", lambda *_: array("d", [0.0, 0.1]))
        patch.setattr(sweep, "sweep", lambda *_: None)
        patch.setattr(sweep, "draw_all", lambda *_: None)
        yield closed
    for cached in (suites.queues.predicted, sweep.planned):  # with what was faked here
        cached.cache_clear()


def run_main(main: Callable[[Sequence[str]], int], argv: list[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr, with the encodings that a terminal has."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="surrogateescape")
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(argv)
        except SystemExit as end:  # -h
            code = int(end.code or 0)
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode(errors="replace"))  # type: ignore[attr-defined]
    return code, texts[0], texts[1]


def check(main: Callable[[Sequence[str]], int], argv: list[str], closed: int) -> None:
    code, _, err = run_main(main, [word.replace("CLOSED", str(closed)) for word in argv])
    assert code in (0, 1, 2, 3, 130, 143)
    assert code not in (2, 3) or (err.count("\n") == 1 and err.strip()), err
    assert "Traceback" not in err
    assert not load.signals.is_held or code not in (0, 1)


SOME = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
TARGETS_FIRST = [["--target", name] for name in serve.TARGETS]
APP = ["--app", "main:app", "--server"]
FIRST = [
    [], *TARGETS_FIRST, [*APP, "uvicorn"], [*APP, "gunicorn"], ["--url", "http://127.0.0.1:9/"],
    ["--url", "http://127.0.0.1:CLOSED/"],
]  # fmt: skip


@SOME
@given(argv=command_lines(BENCH, FIRST))
def test_bench_takes_any_command_line(fakes, argv):
    check(bench.main, argv, fakes)


@SOME
@given(argv=command_lines(LOAD, [[], *([url] for url in URLS * 3)]))
def test_load_takes_any_command_line(fakes, argv):
    check(load.main, argv, fakes)


@SOME
@given(argv=command_lines(SLOTS, [[], ["-n", "10"], ["-c", "3"], ["--rate", "5"], ["--ramp", "0.5s:3"]]))
def test_slots_takes_any_command_line(fakes, argv):
    check(slots.main, argv, fakes)


@SOME
@given(argv=command_lines(START | {"--path": PATHS}, [[], *([name] for name in serve.TARGETS)]))
def test_serve_takes_any_command_line(fakes, argv):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeGuard, "ended", True)  # or it would wait for a signal
        check(serve.main, argv, fakes)


@SOME
@given(argv=command_lines(SWEEP, [[], *([name] for name in sweep.SUITES), ["report"], ["report", "run.json"],
                                  ["report", "list.json"], ["report", "a-folder"], ["picture", "run.json"],
                                  ["picture", "a-file"]]))  # fmt: skip
def test_sweep_takes_any_command_line(fakes, argv):
    check(sweep.main, argv, fakes)


def test_the_fakes_let_a_run_come_to_its_report(fakes):
    code, out, err = run_main(bench.main, ["--target", "flask-gunicorn", "--path", "/io", "-n", "10"])
    assert (code, err) == (1, "") and "10 sent = 9 answered + 1 failed" in out
    code, out, _ = run_main(bench.main, ["--url", "http://127.0.0.1:9/", "-n", "3"])
    assert code in (0, 130) and "3 sent" in out
