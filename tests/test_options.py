"""The command line: what goes together, what is refused in one line, and what an option means."""

import contextlib

import pytest
from commands import FITTING, ROOT, actions, fits

import bench
from engine import arguments, options
from engine.options import parse

ACTIONS, URL = actions(), "--url http://127.0.0.1:9/ "
PREFERRED = {"target": "flask-gunicorn", "app": "main:app", "run": "true {port}", "url": "http://127.0.0.1:9/",
             "passes": "3", "scale": "3", "body_file": __file__, "workload": "read", "until": "p99+-10%",
             "processes": "3", "requests_from": f"{ROOT}/tests/services/orders.log"}  # fmt: skip


def words_of(name: str) -> list[str]:
    """The option with a value that fits."""
    if name == "is_paper":
        return ["--slots", "3", "-n", "1"]
    action = ACTIONS[name]
    if action.nargs == 0:
        return [action.option_strings[-1]]
    values = [PREFERRED.get(name, ""), *(action.choices or FITTING)]
    return [action.option_strings[-1], next(text for text in values if text and fits(action, text))]


def given_with_needs(name: str, known: tuple[str, ...] = ()) -> list[str]:
    needed = options.NEEDS.get(name, "").split()
    more = [] if set(needed) & set(known) or not needed else given_with_needs(needed[0], (*known, name))
    return words_of(name) + more


def refused(capsys, line: str | list[str]) -> str:
    assert bench.main(line.split(" ") if isinstance(line, str) else line) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("bench.py: ") and err.count("\n") == 1
    return err


@pytest.mark.parametrize("name", ACTIONS)
def test_every_option_is_accepted_with_what_it_needs(name, monkeypatch):
    monkeypatch.setattr(options, "tell", lambda _: None)
    with contextlib.suppress(SystemExit):  # --help
        parse(given_with_needs(name) + ["-n", "1"] * (name in ("slots", "wait")))


@pytest.mark.parametrize("name", options.NEEDS)
def test_an_option_without_what_it_needs_is_refused(name, capsys):
    err = refused(capsys, words_of(name))
    assert all(options.flag(other) in err for other in (name, *options.NEEDS[name].split()))


@pytest.mark.parametrize(("name", "other"), [(a, b) for a, others in options.EXCLUDES.items() for b in others.split()])
def test_options_that_exclude_each_other_are_refused(name, other, capsys):
    line = words_of(other) if name == "is_paper" else given_with_needs(other, (name,))
    assert options.flag(other) in refused(capsys, given_with_needs(name, (other,)) + line)


@pytest.mark.parametrize(
    "line",
    [  # and what the message must name
        "--target nginx > nginx", "--target flask-gunicorn --path /nope > /nope",
        "--target all --path /nope > /nope",
        "--target flask-dev --workers 2 > workers",
        "--target flask-gunicorn --threads 2 > threads", "--target flask-gunicorn --workload read > flask-gunicorn",
        "--target flask-gunicorn -n 0 > --requests", "--target flask-gunicorn -n ten > 'ten'", "--bogus > --bogus",
        "--target flask-gunicorn --task-time nan > 'nan'", "--target flask-gunicorn --path / /b > /b",
        "--target flask-dev -n 9999999 > ulimit", "--app main --server uvicorn > main", "--target x --url y > --url",
        "--url https://127.0.0.1:1/ > 127.0.0.1:1", "--url http://127.0.0.1/ --insecure > https",
        "--url ftp://127.0.0.1/ > ftp", "--url http://a:b@127.0.0.1/ > a:b@",
        "--url http://127.0.0.1:0/ > :0", "--url http://127.0.0.1:99999/ > :99999", "--url http://[::1/ > [::1",
        "--url http://127.0.0.1/\r\nX:y > X:y", "--url http://127.0.0.1/\xe9 > ASCII",
        "--url http://no.such.host.invalid/ > no.such.host", "--url http://127.0.0.1:1/ > 127.0.0.1:1",
        URL + "-H X:a\r\nY:b > --header", URL + "-H Xy > 'Xy'", URL + "-H Content-Length:4 > Content-Length",
        URL + "-m GET\t/x > --method", URL + "-c 1 --rate 1 > --rate", URL + "--ramp 5:3 > '5:3'",
        URL + "--ramp 0s:3 > '0s:3'", URL + "--ramp 1s:0 > '1s:0'", URL + "--ramp 1s:5,,1s:5 > ,,",
        URL + "--rate 1000000 -t 86400 --arrivals poisson > --arrivals", URL + "-p /no/file > /no/file",
        URL + "--rate 5 --p99 300 > write 300ms or 300s", URL + "--fail-if p99>300 > write 300ms or 300s",
        "--app main.py:app > main:app", "--app ./a/b.py > a.b:app",
        "--app main > module:app", "--serve > --target", "--probe > --app", "-n 5 > --url", "-v > --run",
        "--clean-logs --target flask-dev > --clean-logs",
        URL + "-p x --data x > --data", URL + "--client-cpus x > --client-cpus", URL + "--fail-if p98>1 > p98",
        "--slots 4 > -n", "-n 5 --wait -1 > --wait", "-n 5 --slots 2.5 > --slots", "--split 1,x > --split",
        "--split 1,2 --workers 3 > --split", "--split 1,2 -n 5 > 3", "--ramp 1s:0 --wait 1 > users",
        "--rate 256 --wait 0.05 --p99 0.04 > 40 ms", "--rate 2000 --wait 0.05 --p99 0.1 --cpu-time 0.001 > CPU",
        "--rate 256 --wait 0.05 --p99 0.1 --p95 0.1 > --p99", "--rate 256 --wait 0.05 --p99 0.1 --slots 16 > objective",
        f"--app main:app --workload {ROOT}/examples/workload.toml --scale 3 > --scale",
        "--rate 256 --wait 0.05 --cpu-time 0.1 > --cpu-time", "-n 5 --wait 1 --cpus 2 > --cpus",
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_that_names_it(line, capsys):
    line, _, named = line.partition(" > ")
    assert named in refused(capsys, line)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-c 5 -t 3", {"time_limit": 3.0, "requests": None}),
        ("--ramp 2s:3,3s:5", {"ramp": ((2.0, 3), (3.0, 5)), "time_limit": None}),
        ("--data é", {"method": "POST", "body": "é".encode()}),
        ("-i", {"method": "HEAD"}),
        ("--data a=1 -H X:y", {"header": ["X:y", "Content-Type: application/x-www-form-urlencoded"]}),
        ("--data [1] -T x/y", {"header": ["Content-Type: x/y"]}),
        ("--data [1] -H content-type:z", {"header": ["content-type:z"]}),
        ('--data {"a":1}', {"header": ["Content-Type: application/json"], "method": "POST"}),
        ("http://127.0.0.1:9/x -n 5", {"url": "http://127.0.0.1:9/x", "requests": 5}),
        ("-k https://127.0.0.1/", {"url": "https://127.0.0.1/", "keep_alive": True}),
        ("--app a:b --data http://x/ --env U=1", {"url": None, "data": "http://x/"}),
        ("-t 500ms -s 2s --think 20ms -c 2", {"time_limit": 0.5, "timeout": 2.0, "think": 0.02}),
        ("-A a:b -T x/y -C a=b -C c=d",
         {"header": ["Content-Type: x/y", "Cookie: a=b; c=d", "Authorization: Basic YTpi"], "method": "GET"}),
        ("--server-cpus 0,3,3", {"server_cpus": {0, 3}}),
        ("--probe -n 100 -t 9", {"budget": (100, 9.0), "time_limit": None}),
        ("--probe", {"budget": (options.PROBE_REQUESTS, options.PROBE_S)}),
        ("--find-rate --p95 0.2 -t 90", {"run_s": 60.0, "objective": (0.2, 95), "time_limit": None}),
        ("--target fastapi-books --workload fanout --scale 0.1",
         {"keep_alive": True, "path": ["/v1/sleep?ms=50"], "ramp": ((1.5, 50), (2.0, 200), (2.5, 500), (2.0, 500))}),
    ],
)  # fmt: skip
def test_what_options_mean(line, expected):
    asked = parse(line.split(" "))
    assert {name: getattr(asked, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("convert", "good", "bad"),
    [
        (arguments.number(int, 1, 3), {"1": 1, "3": 3}, ["0", "4", "1.5", "x", "nan"]),
        (arguments.number(float, 0.5, 2), {"0.5": 0.5, "2": 2}, ["0.49", "2.01", "nan", "inf"]),
        (arguments.task_time, {"1": 1, "50ms": 0.05, "2s": 2, ".5": 0.5, "3600": 3600, "1ms:exp": 0.001},
         ["0", "0.00009", "3601", "-1", "1m", "x", "1:uniform", ""]),
        (arguments.seconds(0.01, 400), {"300ms": 0.3, "0.3s": 0.3, "0.3": 0.3, "300": 300, "1e-1": 0.1},
         ["300m", "1ms", "401s", "s", "ms", "nan", "infs", "0.3 min", "-1s"]),
        (arguments.seconds(0.01, 400, is_short=True), {"300ms": 0.3, "300s": 300, "9": 9}, ["300", "10"]),
        (arguments.stages, {"86400s:100000": ((86400.0, 100000),), "500ms:2,1.5s:3": ((0.5, 2), (1.5, 3))},
         ["86401s:1", "1s:100001"]),
    ],
)  # fmt: skip
def test_a_number_has_bounds_that_belong_to_it(convert, good, bad):
    assert {text: convert(text) for text in good} == good
    for text in bad:
        with pytest.raises(options.argparse.ArgumentTypeError):
            convert(text)
    assert arguments.task_time("50ms:lognormal").distribution == "lognormal"


def test_without_a_word_there_is_help(capsys):
    assert bench.main([]) == 0
    assert "--target" in capsys.readouterr().out


@pytest.mark.parametrize(("more", "is_said"), [([], True), (["--wait", "1s"], False)])
def test_a_wait_that_is_not_stated_is_said_to_be_assumed(capsys, more, is_said):
    assert bench.main(["-n", "100", "--slots", "40", *more]) == 0
    assert ("--wait" in capsys.readouterr().out) == is_said


def test_sizes_are_not_said_for_a_wait_that_is_drawn(capsys):
    assert bench.main(["--rate", "80", "--wait", "50ms:exp", "--p99", "0.3"]) == 2
    assert "always the same" in capsys.readouterr().err
