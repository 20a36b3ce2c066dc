"""Settings, commands and services that are less common, for which something false was said, or a result was lost."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from types import SimpleNamespace

import pytest
from commands import run_bench
from samples import LOADS, sample_estimate, sample_facts, sample_plan, sample_run, sample_statistics, sample_where
from servers import launch_of, target_of, write_files

import bench
import sweep
from engine import (
    audit,
    before,
    changes,
    listeners,
    page,
    plans,
    repeats,
    report,
    report_before,
    report_changes,
    report_sizes,
    report_verdict,
    search,
    send,
)
from engine.advice import Cure, advice_for
from engine.before import Before, latency_s
from engine.client import ERRORS, Exchanges
from engine.estimate import estimate_of
from engine.kinds import Kind
from engine.launch import Launch
from engine.listeners import Listener, inodes_of
from engine.loads import Burst, Open
from engine.objectives import Found
from engine.options import parse
from engine.places import Limit, Resource
from engine.report_words import FAILURES, likely_cause
from engine.run import Database, Explanation, Verdict
from engine.server import environment_for
from engine.sizes import Asked, size
from engine.targets import SEEDED_BOOKS
from engine.unseen import is_not_known
from engine.until import Wanted
from engine.victim import shares_slots, victim_plan
from engine.words import Problem
from engine.workload import session_of
from suites.comparison import comparison_report

CPU = Limit(Resource.CPU, 0.98, 20.0, held_s=0.05, cpus=1)
SLOTS = Limit(Resource.SLOTS.value, 1.0, 20.0, 16.0, 0.8, line="app.py:5", waiting=24.0)
FLASK = "from flask import Flask\n\napp = Flask(__name__)\n\n@app.get('/')\ndef index():\n    return ''\n"
MODE = """
import os
from fastapi import FastAPI

app = FastAPI()

if os.environ["MODE"] == "async":
    @app.get("/")
    async def index():
        return {}
else:
    @app.get("/")
    def index():
        return {}
"""
RAW = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
TYPED = """
from fastapi import FastAPI

app = FastAPI()

@app.get("/typed")
def typed() -> dict:
    return {}

@app.get("/plain")
def plain():
    return {}
"""
CPUS = """
import os
from flask import Flask

app = Flask(__name__)

@app.get("/")
def index():
    return "", 200 if len(os.sched_getaffinity(0)) == int(os.environ["CPUS"]) else 500
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def with_app(name, text):
        write_files(tmp_path, {f"{name}.py": text})
        return tmp_path

    return with_app


def plan_of(*words):
    (plan,) = plans.plans_of(parse([*words]))
    return plan


# ---------------------------------------------------------------- how the server is started


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux pins")
def test_a_server_has_all_cpus_where_only_the_client_is_pinned(here, monkeypatch):
    folder, cpus = here("pinned", CPUS), os.sched_getaffinity(0)
    if len(cpus) < 2:
        pytest.skip("one CPU")
    how = ["--app", "pinned:app", "--client-cpus", f"{min(cpus)}", "--env", f"CPUS={len(cpus)}", "-n", "4"]
    try:
        code, document = run_bench(folder, *how)
    finally:
        os.sched_setaffinity(0, cpus)
    assert code == 0 and document["runs"][0]["measured"]["answered"] == 4


@pytest.mark.parametrize("mode, handler", [("async", "async"), ("other", "def")])
def test_an_app_is_asked_with_the_environment_that_it_will_have(here, mode, handler):
    here(f"mode_{mode}", MODE)
    launch = launch_of(f"--env MODE={mode}", f"mode_{mode}:app")
    assert (launch.handler or launch.handlers[0]).startswith(handler)


@pytest.mark.parametrize("lifespan", ["", "off"])
def test_an_app_need_not_speak_lifespan(here, monkeypatch, lifespan):
    folder = here("raw", RAW)
    if lifespan:
        monkeypatch.setenv("UVICORN_LIFESPAN", lifespan)
    code, document = run_bench(folder, "--app", "raw:app", "-n", "4", "--start-timeout", "15")
    assert code == 0 and document["runs"][0]["measured"]["answered"] == 4


@pytest.mark.parametrize("server", ["uvicorn", "granian"])
def test_another_interface_than_the_apps_is_refused(here, server):
    here("flat", FLASK)
    with pytest.raises(Problem, match="--run"):
        launch_of(f"--server {server} --server-args='--interface wsgi'", "flat:app")


def test_a_pythonpath_of_the_users_is_kept_beside_ours(tmp_path):
    launch = Launch("x", "command", "", run="x", is_target=False, env=(("PYTHONPATH", "src"),))
    places = environment_for(launch, tmp_path)["PYTHONPATH"].split(os.pathsep)
    assert places[-1] == "src" and any(place.endswith("wrap") for place in places)


@pytest.mark.parametrize("text, workers", [("-w4", 4), ("-w 4", 4), ("--workers 3", 3), ("", 1)])
def test_hypercorns_workers_are_read(here, text, workers):
    here("mode_async", MODE)
    words = f"--server hypercorn --env MODE=async --server-args='{text}'"
    assert launch_of(words, "mode_async:app").workers == workers


def test_what_sets_flasks_threads_elsewhere_is_overruled():
    command = target_of("flask-dev").command(1, "a:app")
    assert "--with-threads" in command


@pytest.mark.parametrize("words, is_said", [("--worker-connections 2", True), ("--worker-connections 9", False)])
def test_the_reason_of_the_slots_is_what_gives_the_number(here, words, is_said):
    here("flat", FLASK)
    launch = launch_of(f"--server gunicorn-threads --threads 8 --server-args='{words}'", "flat:app")
    assert launch.slots_per_worker == (2 if is_said else 8)
    assert ("only 2 connections" in launch.why_slots) == is_said
    slots = Limit(Resource.SLOTS.value, 1.0, 10.0, launch.slots_per_worker, 0.2)
    run = sample_run(launch=launch, where=sample_where(limit=slots), wait_s=0.2,
                     verdict=Verdict(Explanation.PREDICTION, (slots,), None, None, ()))  # fmt: skip
    assert ("--threads" in (changes.advised(run) or "")) != is_said


# ---------------------------------------------------------------- what runs already

ROWS = "  sl  local_address\n" + "".join(
    f"   {number}: {address}:1F40 00000000:0000 0A 0:0 0:0 0 0 0 {inode} 1\n"
    for number, (address, inode) in enumerate([("0100007F", 11), ("0200007F", 22), ("00000000", 33)])
)


@pytest.mark.skipif(sys.byteorder != "little", reason="written for it")
@pytest.mark.parametrize("address, found", [("127.0.0.1", {"11", "33"}), ("127.0.0.2", {"22", "33"}), ("::1", set())])
def test_a_server_is_what_listens_on_the_address_that_is_asked(tmp_path, monkeypatch, address, found):
    write_files(tmp_path, {"net/tcp": ROWS})
    monkeypatch.setattr(listeners, "PROC", tmp_path)
    assert set(inodes_of(address, 8000)) == found and not inodes_of(address, 8001)


@pytest.mark.parametrize("program, workers", [("nginx: worker process", 1), ("/venv/bin/python", 4)])
def test_the_processes_of_a_proxy_are_not_those_of_the_service(monkeypatch, program, workers):
    found = (Listener(7, 1, 1, (program,)), *(Listener(n, 7, 1, (program,)) for n in range(8, 12)))
    monkeypatch.setattr(plans, "listeners", lambda *_: found)
    plan = plan_of("--url", "http://127.0.0.1:1/", "-n", "16")
    assert plan.workers == workers
    assert ("not seen" in report_before.listeners_text(plan)) == (workers == 1)
    facts = dataclasses.replace(sample_facts(), plan=plan, inside=None)
    shown = estimate_of(facts, sample_run().exchanges, [1.0])
    assert (shown.processes or 1) == workers


# ---------------------------------------------------------------- how requests are sent


@pytest.mark.parametrize("load, keeps, first_byte, took_s", [
    ("closed", False, False, 0.05), ("closed", True, False, 0.02), ("closed", True, True, 0.05),
    ("burst", True, False, 0.05),
])  # fmt: skip
def test_a_request_by_itself_costs_a_connection_only_where_those_of_the_load_do(load, keeps, first_byte, took_s):
    one = Exchanges()
    one.grow(1)
    one.started_s[0], one.sent_s[0], one.answered_s[0] = 1.0, 1.03, 1.05
    plan = sample_plan(load=LOADS[load], keep_alive=keeps, first_byte=first_byte)
    assert latency_s(one, plan) == pytest.approx(took_s)


@pytest.mark.parametrize("port, tls, host", [(80, None, "a"), (8080, None, "a:8080"), (443, None, "a:443")])
def test_a_host_header_leaves_out_the_usual_port(port, tls, host):
    head, _ = send.message(sample_plan(host="a", tls=tls), port, Kind(1.0, "GET", "/"), b"")
    assert f"Host: {host}\r\n" in head.decode()


def test_a_cookie_that_a_login_deletes_and_sets_is_sent_once():
    plan_login = SimpleNamespace(method="POST", path="/login", token="")
    found = session_of(plan_login, 200, b"", ["token=; Max-Age=0; Path=/", "token=abc; Path=/", "old=; Max-Age=0"])
    assert found.cookie == "token=abc"


@pytest.mark.parametrize("think_s, is_said", [(5.0, True), (0.05, False), (0.0, False)])
def test_a_kept_connection_may_be_closed_while_nothing_comes(think_s, is_said):
    load = dataclasses.replace(LOADS["closed"], think_s=think_s)
    facts = sample_facts(load=load, keep_alive=True, failed=3, answered=13, errors={"closed": 3}, inside=None)
    (warned,) = [one for one in audit.warnings_of_client(facts) if one.id == "failed-requests"]
    assert ("keep-alive" in report_verdict.warning_text(warned)) == is_said


@pytest.mark.parametrize("error", [one for one in ERRORS if one not in ("", "malformed", "truncated")])
def test_each_error_has_a_cause_of_its_own(error):
    assert likely_cause(SimpleNamespace(unended=0, failed=3, most=error)) != FAILURES[""]


# ---------------------------------------------------------------- kinds of requests


def test_kinds_with_other_passes_have_none_in_common(here):
    folder = here("typed", TYPED)
    for first, other in ("/typed", "/plain"), ("/plain", "/typed"):
        text = "".join(f'[[kinds]]\npath = "{path}"\n' for path in (first, other))
        write_files(folder, {"w.toml": text})
        plan = plan_of("--app", "typed:app", "--workload", "w.toml", "-n", "120")
        assert plan.passes == (1.0,) and plan.slots == 40
    assert plan_of("--app", "typed:app", "--path", "/typed").passes != (1.0,)


def test_of_many_kinds_the_first_are_timed_and_the_others_assumed_to_take_as_long():
    kinds = tuple(Kind(1.0, "GET", f"/{n}") for n in range(30))
    plan = sample_plan(launch=launch(), kinds=kinds, wait_s=None, lone_requests=8, warm_up=4)
    found = before.with_kind_waits(plan, [[0.05]] * 20)
    assert found.kind_waits_s == (0.05,) * 30
    assert plans.with_lone_requests(found, ()).wait_s == 0.05
    text = " ".join(report_before.what_is_sent(plan).split())
    assert "first 20 kinds" in text and "10 others" in text and "20 requests (not counted) warm up" in text


def launch():
    return Launch("x", "uvicorn", "x:app", is_target=False, handler="def")


def test_a_wait_that_is_stated_stays_where_kinds_are_timed():
    kinds = (Kind(1.0, "GET", "/a"), Kind(1.0, "GET", "/b"))
    plan = sample_plan(launch=launch(), kinds=kinds, wait_s=0.2)
    found = plans.with_lone_requests(before.with_kind_waits(plan, [[0.02], [0.06]]), ())
    assert found.wait_s == 0.2 and not found.kind_waits_s


# ---------------------------------------------------------------- probes and searches


def test_a_probe_that_has_no_time_left_for_a_burst_says_so():
    with pytest.raises(Problem, match="-t"):
        search.check_time_left(5.0, Before(5, lone_s=[3.0, 3.1]), 10.0)
    search.check_time_left(7.0, Before(5, lone_s=[3.0, 3.1]), 10.0)
    search.check_time_left(-60.0, Before(5), 60.0)  # of what hangs the burst shows it


def test_a_probe_ends_by_failures_where_nobody_stopped_it():
    run = sample_run(stopped="none of 10 requests was answered", failed=16, answered=0, errors={"timed out": 16})
    assert search.why_probe_ends([run], 100, 100.0) == "failures"


def kept_longer(**more):
    """All slots are taken by requests that take 0.8 s here, and 0.1 s by themselves."""
    where = sample_where(limit=SLOTS, places=())
    return sample_run(load=Burst(40), sent=40, answered=40, wait_s=0.1, slots=16.0, where=where, **more)


def test_a_probe_goes_on_where_the_limit_is_not_known():
    seen = Verdict(Explanation.INSIDE, (SLOTS,), sample_estimate(None, low=40), None, ())
    runs = [kept_longer(verdict=seen)] * 2
    assert is_not_known(runs[0]) and search.why_probe_ends(runs, 1000, 100.0) is None


def test_a_rate_that_held_once_is_not_one_that_did_not():
    text = report.found_rate(Found(0.0, 203.0, 9, varies_from=20.0), sample_run(), 0.1, 99)
    assert "203" not in text and "20/s" in text
    assert "203" in report.found_rate(Found(0.0, 203.0, 9), sample_run(), 0.1, 99)


# ---------------------------------------------------------------- where CPU time limits


@pytest.mark.parametrize("limits, is_known", [((CPU, SLOTS), True), ((SLOTS,), False)])
def test_where_cpu_time_limits_it_is_known_why_requests_keep_their_slots(limits, is_known):
    run = kept_longer(verdict=Verdict(Explanation.CPU, limits, None, None, ()), launch=launch(), workers=1)
    assert is_not_known(run) != is_known
    assert ("CPU" in report_verdict.bottleneck(run)) == is_known
    assert ("not known" in page.lead(run)) != is_known
    if is_known:
        assert "CPU" in page.lead(run) and changes.advised(run) == "--workers 2"


# ---------------------------------------------------------------- runs that end early, and several of them


def test_a_change_that_does_not_start_leaves_what_was_tried(here, capsys):
    folder = here("flat", FLASK)
    how = [
        "--app",
        "flat:app",
        "--server",
        "gunicorn",
        "-n",
        "8",
        "--try",
        "--workers 2",
        "--try",
        "--server-args --nosuch",
    ]
    code = bench.main([*how, "--json", "out.json", "--logs", "logs"])
    out, _ = capsys.readouterr()
    rows = [line.split() for line in out.splitlines() if line.startswith(("as it is", "--workers 2"))]
    assert code == 2 and len(rows) == 2 and all("ms" in row for row in rows)
    document = json.loads((folder / "out.json").read_text())
    assert not document["complete"] and len(document["runs"]) == 2


def test_repeats_that_end_by_a_problem_have_their_table(here, capsys, monkeypatch):
    here("flat", FLASK)
    once, calls = bench.Bench.once, []

    def fails_at_last(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise Problem("the third does not start", 3)
        return once(self, *arguments)

    monkeypatch.setattr(bench.Bench, "once", fails_at_last)
    assert bench.main(["--app", "flat:app", "-n", "8", "--repeats", "6", "--json", "out.json", "--logs", "logs"]) == 3
    assert "2 repeats" in capsys.readouterr().out


def test_repeats_in_which_a_figure_is_missing_are_no_fewer():
    def repeat(p99_s):
        run = sample_run(load=LOADS["open"])
        latency = dataclasses.replace(run.measured.latency_s, p99=p99_s)
        return dataclasses.replace(run, measured=dataclasses.replace(run.measured, latency_s=latency))

    rows = repeats.rows_of_repeats([repeat(at_s) for at_s in (2.0, None, 2.1, None, 2.2, None)])
    text = report.repeats_table(rows)
    assert "6 repeats: the true" in text and "(of 3)" in text


def test_a_run_that_was_cut_is_judged_by_what_was_sent(here):
    how = [
        "--target",
        "flask-gunicorn",
        "--path",
        "/io",
        "--task-time",
        "50ms",
        "--rate",
        "60",
        "--arrivals",
        "poisson",
    ]
    _, document = run_bench(here("flat", FLASK), *how, "--seed", "1", "-t", "60", "--until", "p50+-50%")
    (run,) = document["runs"]
    assert run["measured"]["measured_s"] < 30
    assert run["prediction"]["makespan_s"] < 2 * run["measured"]["measured_s"]


def test_what_was_interrupted_is_no_repeat_and_its_time_outs_are_no_answers():
    def document(*runs):
        return {"command": "bench.py", "when": "", "machine": {}, "runs": [run_of(**one) for one in runs]}

    def run_of(**measured):
        run = dataclasses.asdict(sample_run(**{"failed": 0} | measured))
        run["plan"]["load"] = {"kind": "burst", "requests": 16}
        return run

    a = document(*[{}] * 6)
    cut = {"stopped": "SIGINT", "measured_s": 1.5, "failed": 12, "errors": {"interrupted": 12}}
    _, rows = comparison_report(a, document(*[{"measured_s": 8.0}] * 5, cut) | {"complete": False})
    assert rows[0][-1] == "worse"
    text, rows = comparison_report(
        a, document({"measured_s": 40.0, "last_answer_s": 4.0, "failed": 1}) | {"complete": False}
    )
    assert "40" not in f"{rows[0]}" and "not complete" in text


# ---------------------------------------------------------------- sizes and victims

OBJECTIVE = (0.3, 99)


def too_slow(limit, **more):
    latency = sample_statistics(p99=4.8)
    verdict = Verdict(None, (limit,), None, None, ())
    how = {"load": Open(1000, rate_rps=130.0), "wait_s": 0.05, "slots": 16, "latency_s": latency, "server_cpu_s": 0.016}
    return sample_run(**how | more, where=sample_where(limit=limit), verdict=verdict)


@pytest.mark.parametrize("distribution, cure", [("constant", Cure.SLOTS), ("exp", Cure.UNKNOWN), ("mix", Cure.UNKNOWN)])
def test_of_waits_that_differ_no_number_is_said_to_be_enough(distribution, cure):
    waits_s = (0.01, 2.0) if distribution == "mix" else ()
    limit = Limit(Resource.SLOTS.value, 1.0, 80.0, 4.0, 0.05)
    run = too_slow(limit, distribution=distribution, kind_waits_s=waits_s, slots=4)
    assert advice_for(run, OBJECTIVE).cure is cure


def test_of_what_each_process_has_one_it_is_said_how_many_one_needs():
    limit = Limit("a semaphore (threading.Semaphore)", 1.0, 120.0, 6.0, 0.05, size_line="shop.py:4", size_of_each=3.0)
    found = advice_for(run := too_slow(limit, workers=2), OBJECTIVE)
    alone = int(size(Asked(65.0, 0.05, 0.3)).fits.slots)
    assert found.need == 2 * alone
    assert f"has 3 in each process; {alone} are" in report_sizes.cure_text(found, run)


@pytest.mark.parametrize("workers, is_said", [(4, False), (1, True)])
def test_one_process_is_offered_only_where_one_cpu_is_enough(workers, is_said):
    rate_rps = 300.0 if workers > 1 else 100.0
    found = size(Asked(rate_rps, 0.05, 0.2, cpu_s=0.005, cpus=workers))
    assert ("waitress" in report_sizes.size_text(found, workers)) == is_said


@pytest.mark.parametrize("victim, counts", [("", True), ("/x", False)])
def test_what_a_victim_asked_of_a_database_is_no_other_programs(victim, counts):
    database = Database(rows=SEEDED_BOOKS, statements=40)
    facts = sample_facts(victim=victim, database=database)
    assert ("statements" in {one.id for one in audit.warnings_of_database(facts)}) == counts


def test_a_load_that_was_not_judged_is_no_reason_for_its_victim():
    run = sample_run(verdict=Verdict(None, (), None, None, ()))
    assert "load was not" not in report_changes.why_not(run)
    assert "load was not" in report_changes.why_not(
        dataclasses.replace(run, verdict=Verdict(Explanation.NOTHING, (), None, None, ()))
    )


def test_a_victim_that_is_refused_ends_the_run_before_it_begins(here, capsys):
    here("flat", FLASK)
    assert bench.main(["--app", "flat:app", "-n", "4", "--victim", "/helth", "--logs", "logs"]) == 2
    out, err = capsys.readouterr()
    assert "/helth" in err and "404" in err and "sends" not in out


def test_a_victim_is_asked_until_the_load_ends():
    plan = sample_plan(victim="/x", until=Wanted(50.0, 0.1))
    assert victim_plan(plan).until is None


@pytest.mark.parametrize("load, victim", [("async in AnyIO's threads", "def"), ("def", "async in AnyIO's threads")])
def test_what_takes_one_of_anyios_threads_shares_them(load, victim):
    launch = Launch("x", "uvicorn", "x:app", handler=load)
    assert shares_slots(sample_plan(launch=launch, victim_handler=victim, slots_stated=False))


# ---------------------------------------------------------------- variants of your own


@pytest.mark.skipif(sys.version_info < (3, 11), reason="no tomllib")
@pytest.mark.parametrize(
    "arguments, named",
    [
        ("-n 100", "which service"),
        ("--path /io -n 100", "which service"),
        ("--target flask-waitress --path /io --rate 9 --until p50+-9%", "--until"),
    ],
)
def test_a_variant_that_cannot_be_is_named(here, capsys, arguments, named):
    folder = here("flat", FLASK)
    write_files(folder, {"v.toml": f'[[variants]]\nname = "a"\narguments = "{arguments}"\n'})
    assert sweep.main([str(folder / "v.toml")]) == 2
    err = capsys.readouterr().err
    assert named in err and err.count("\n") == 1


@pytest.mark.skipif(sys.version_info < (3, 11), reason="no tomllib")
def test_a_time_out_is_no_answer_of_a_variant(here, capsys):
    arguments = "--target flask-gunicorn --path /io -n 16 --task-time 0.3 -s 0.8"
    folder = here("flat", FLASK)
    write_files(folder, {"v.toml": f'[[variants]]\nname = "a"\narguments = "{arguments}"\n'})
    sweep.main([str(folder / "v.toml"), "--repeats", "1", "--logs", str(folder / "l")])
    (entry,) = json.loads(next((folder / "l").rglob("sweep-v.json")).read_text())["runs"]
    assert 0 < entry["run"]["measured"]["failed"] == 16 - len(entry["run"]["answered_s"])


@pytest.mark.parametrize("server_cpu_s, is_cpu", [(16 * 0.048, True), (16 * 0.01, False)])
def test_what_takes_as_long_as_by_itself_may_still_be_cpu_time(server_cpu_s, is_cpu):
    limit = Limit(Resource.SLOTS.value, 1.0, 20.0, 1.0, 0.05)
    facts = sample_facts(
        wait_s=0.05, server_cpu_s=server_cpu_s, measured_s=0.8, where=sample_where(limit=limit), workers=1, slots=1
    )
    assert audit.goes_as_alone(facts) != is_cpu


@pytest.mark.parametrize("slots, ends", [((1.53, 1.52), True), ((4.0, 8.0), False)])
def test_a_probe_ends_where_two_bursts_show_nearly_the_same(slots, ends):
    assert search.are_same([("a semaphore", one) for one in slots]) == ends
    assert not search.are_same([("a semaphore", slots[0]), None])


@pytest.mark.parametrize("places, is_said", [(None, False), ((), True)])
def test_a_first_limit_is_not_named_where_requests_wait_for_others_at_times(places, is_said):
    none, cpu = Limit(Resource.NONE, 0.0), Limit(Resource.CPU, 0.1, 997.0, held_s=0.001, cpus=1)
    where = sample_where() if places is None else sample_where(places=places)
    run = sample_run(verdict=Verdict(None, (none, cpu), None, None, ()), where=where)
    assert ("997" in report_verdict.bottleneck(run)) == is_said
