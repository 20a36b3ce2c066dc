"""One run, step by step: what is sent before it, when the prediction is shown, and what its log tells."""

from __future__ import annotations

import time

import pytest
from samples import sample_plan, sample_prediction
from servers import wait_until
from stubs import keep_answering, reset, stub
from test_summary import short

from engine.access_log import AccessLog, LogLine
from engine.before import Before, Site, send_before
from engine.execute import Place, Sent, execute, judged
from engine.inside.wrap._bench_log_line import log_line
from engine.live import LiveLog
from engine.loads import Burst
from engine.options import parse
from engine.plans import plans_of


@pytest.mark.parametrize(
    ("is_shared", "pids", "last_s"),
    [
        (False, [7, 7, 7, 8], 3.0),
        (True, [7, 7, 7, 8], None),
        (False, [7, 0, 7, 8], None),  # a request without a line: the split is not known
        (False, [7, 8, 9, 7], None),  # another worker has taken over
    ],
)
def test_a_run_is_predicted_once_more_where_its_split_is_known(is_shared, pids, last_s):
    plan = sample_plan(workers=2, slots=2, shared_queue=is_shared, load=Burst(4))
    lines = [LogLine("", pid, "GET", "/", "200", 1.0, str(i), float(i)) for i, pid in enumerate(pids) if pid]
    sent = Sent(short(*[(0.0, 1.0 + i, 200) for i in range(4)]), AccessLog(lines, [7, 8]), False)
    run = judged(plan, sample_prediction(), Site(("", 0)), sent, Before(), "")
    assert (run.split_prediction and run.split_prediction.makespan_s) == last_s
    assert [name is None for name in run.exchanges.worker] == [not pid for pid in pids]


def plan_of(address, line: str):
    (plan,) = plans_of(parse(f"--url http://{address[0]}:{address[1]}/ {line}".split()))
    return plan


def test_what_is_sent_before_a_run_shows_its_wait_and_ends_with_the_first_failure():
    with stub(lambda sock: keep_answering(sock, 0.05)) as address:
        plan, before = send_before(plan_of(address, "-c 2 --warmup 3"), Site(address))
    assert before.sent == 3 + len(before.lone_s) and plan.wait_is_measured
    assert 0.05 <= min(before.lone_s) <= plan.wait_s <= max(before.lone_s)
    with stub(keep_answering, reset) as address:
        _, before = send_before(plan_of(address, "-c 2"), Site(address))
    assert (before.sent, len(before.lone_s)) == (2, 1)


def test_the_prediction_is_shown_before_the_first_request():
    requests, shown = [], []

    def note(sock):
        if sock.recv(65536):
            requests.append(time.perf_counter())
            keep_answering(sock)

    with stub(note) as address:
        plan = plan_of(address, "-n 8 --slots 2 --wait 0.1 -s 0.5")
        run, _ = execute(plan, Place(), lambda _: shown.append(time.perf_counter()))
    assert shown and max(shown) < min(requests)
    assert (run.prediction.makespan_s, run.measured.sent, run.inside) == (pytest.approx(0.4), 8, None)


def test_a_live_log_shows_each_start_once_and_only_from_now_on(tmp_path, capsys):
    path = tmp_path / "access.log"
    path.write_bytes(log_line("starts GET /before #0"))
    live = LiveLog(path)
    with path.open("ab", buffering=0) as log:
        for i in range(3):
            text = log_line(f"starts GET /new{i} #1")
            log.write(text[:20])
            log.write(text[20:])
    wait_until(lambda: live.shown == 3)
    live.stop()
    out = capsys.readouterr().out
    assert [out.count(f"/new{i}") for i in range(3)] == [1, 1, 1] and "/before" not in out
