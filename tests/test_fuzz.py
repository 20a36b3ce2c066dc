"""Command lines at random, odd values among them, with every server faked: never a traceback, always a documented exit
code, and one line on stderr when something is wrong."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from typing import Any

import pytest
from commands import FITTING, actions, fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_summary import short

import bench
from engine import launch, options, plans, report_before, send
from engine.before import Before, Site
from engine.execute import Sent, judged
from engine.signals import signals
from engine.targets import TARGETS

ODD = [
    "", " ", "0", "-1", "1", "7", "0.5", "1e999", "nan", "-inf", "1_0", "\uff11", "²", "9" * 30, "x", "é", "\udcff",
    "-", "--", "-k", "=", "{}", "{port}", "%s", "'", '"', "a b", "\n", "..", "/", "/x?y=1", "/é", "a-file", "a-folder",
    "a-file/x", "no/such", "/dev/null", "/dev/full", "0,,1", "1s:0", "0s:3", "X: a\r\nY: b", ":", "1000000",
]  # fmt: skip
ERRORS = ("strict", "backslashreplace")
FIRST = [
    "",
    *(f"--target {name}" for name in TARGETS),
    "--app main:app",
    "--url http://127.0.0.1:9/",
    "--slots 4",
    "-n 5 --wait 1",
]
SAYS = {  # an app of itself, and gunicorn of its settings
    "app": "main:app", "server": "uvicorn", "handler": "def", "imported": (), "passes": (1.0, 0.0),
}  # fmt: skip
ASKED = {"workers": 2, "threads": 3, "worker_class": "gthread", "connections": 10, "notes": ()}


def fake_answer(arguments, *_, **__):
    return dict(ASKED if arguments[0] == "-c" else SAYS)


@st.composite
def command_lines(draw: Any, first: Sequence[str] = ("",)) -> list[str]:
    """Some options, each with a fitting or an odd value or none at all, behind what usually comes first."""
    words, known = draw(st.sampled_from(first)).split(), actions()
    for name in draw(st.lists(st.sampled_from([*known]), max_size=5)):
        action = known[name]
        words.append(action.option_strings[draw(st.integers(0, len(action.option_strings) - 1))])
        if action.nargs != 0 and draw(st.integers(0, 20)):
            good = [*(action.choices or [text for text in FITTING if fits(action, text)])]
            words.append(draw(st.sampled_from(good if good and draw(st.integers(0, 3)) else ODD)))
    return words


def fake_execute(plan, place, show, keep_exchanges):
    """Up to 20 requests, answered as by a server without limits, but for every seventh."""
    prediction = plans.prediction_for(plan)
    show(report_before.what_is_sent(plan) + report_before.what_is_predicted(plan, prediction))
    count = int(min(20, plan.load.most_requests))
    sent = [plan.load.due_s(i) if plan.load.is_scheduled else i / 100 for i in range(count)]
    rows = [(at_s, at_s + 0.2, 200 if i % 7 < 6 else 0) for i, at_s in enumerate(sent)]
    run = judged(plan, prediction, Site(("", 0)), Sent(short(*rows), None, False), Before(), "", None, keep_exchanges)
    return run, None


@pytest.fixture(scope="module")
def fakes(tmp_path_factory):
    """Nothing is started and nothing is sent; files that may be named."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "a-folder").mkdir()
    (folder / "a-file").write_text("x")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(launch, "last_line_of", fake_answer)
        patch.setattr(bench, "clean_logs", lambda _: 0)
        patch.setattr(send, "resolve", lambda plan: (plan.host, plan.port))
        patch.setattr(bench, "execute", fake_execute)
        patch.setattr(options, "LOGS", folder / "logs")
        patch.setattr(bench, "database_for", lambda *_: contextlib.nullcontext())
        for owner, name in ((bench, "serve"), (bench, "pin"), (bench.search, "probe"), (bench.search, "find_rate")):
            patch.setattr(owner, name, lambda *_: 0)
        yield


def run_main(argv: list[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr, with the encodings that a terminal has."""
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", errors, write_through=True) for errors in ERRORS]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        try:
            code = bench.main(argv)
        except SystemExit as end:  # -h
            code = end.code
    return code, *(stream.buffer.getvalue().decode() for stream in streams)


@settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", "400")), deadline=None,
          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
@given(command_lines(FIRST))
def test_bench_takes_any_command_line(fakes, argv):
    code, _, err = run_main(argv)
    assert code in (0, 1, 2, 3) and "Traceback" not in err and not signals.is_held
    assert code not in (2, 3) or (err.count("\n") == 1 and err.strip()), err
