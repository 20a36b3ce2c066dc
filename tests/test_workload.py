"""Requests of several kinds: what a file may say, what is drawn and filled in, and services whose users log in."""

from __future__ import annotations

import itertools
import random
import re
import sys
from collections import Counter
from importlib.util import find_spec

import pytest
from commands import ROOT, run_bench
from samples import sample_plan

import bench
from engine.kinds import Kind, Login
from engine.options import parse
from engine.words import Problem
from engine.workload import drawn, filled, read_log, read_workload, session_of

LOG = ROOT / "tests" / "services" / "orders.log"
EXAMPLE = ROOT / "examples" / "workload.toml"
COOKIE = """
[login]
path = "/login"
body = '{"name": "ann", "password": "secret"}'
[[kinds]]
name = "one order"
weight = 7
path = "/orders/{random:1:1000}"
[[kinds]]
name = "new order"
weight = 2
path = "/orders"
body = '{"item": {n}}'
[[kinds]]
name = "search"
path = "/search?text={n}"
[[kinds]]
name = "cancel"
method = "DELETE"
path = "/orders/{n}"
"""
HAS_TOML = any(map(find_spec, ("tomllib", "tomli")))
pytestmark = pytest.mark.skipif(not HAS_TOML, reason="Python 3.10 has no tomllib, and tomli is not installed")


@pytest.fixture
def shops(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("session_shop", "token_shop"):
        (tmp_path / f"{name}.py").write_text((ROOT / "tests" / "services" / f"{name}.py").read_text())
    (tmp_path / "cookie.toml").write_text(COOKIE)
    (tmp_path / "token.toml").write_text(EXAMPLE.read_text())
    return tmp_path


PATTERNS = {"one order": r"GET /orders/\d+ ", "new order": "POST /orders ", "search": r"GET /search\?text=\S+ ",
            "cancel": r"DELETE /orders/\d+ "}  # fmt: skip


@pytest.mark.parametrize("app, file", [("session_shop:app", "cookie.toml"), ("token_shop:app", "token.toml")])
@pytest.mark.parametrize("how", [["-n", "110", "-c", "6"], ["-n", "66", "--rate", "60"], ["-n", "40"]], ids="".join)
def test_counts_by_kind_are_those_of_the_servers_log(shops, app, file, how):
    code, document = run_bench(shops, "--app", app, "--workload", file, *how, "--seed", "3")
    (run,) = document["runs"]
    kinds = {one["name"]: one for one in run["measured"]["kinds"]}
    numbered = [line for line in (shops / run["inside"]["access_log"]).read_text().splitlines()
                if re.search(r" \d+\.\d+s #\d+ @", line)]  # fmt: skip
    assert code == 0 and len(numbered) == run["measured"]["answered"] == sum(one["sent"] for one in kinds.values())
    for name, pattern in PATTERNS.items():
        assert kinds[name]["sent"] == kinds[name]["answered"] == sum(bool(re.search(pattern, one)) for one in numbered)
    waits_s = dict(zip(kinds, run["plan"]["kind_waits_s"], strict=True))
    assert waits_s["search"] > waits_s["one order"] > waits_s["cancel"]
    assert run["prediction"]["throughput_rps"] and "secret" not in (shops / "out.json").read_text()


def test_the_mix_is_predicted_on_the_slots_that_it_shares(shops):
    how = ["--app", "session_shop:app", "--threads", "3", "--workload", "cookie.toml", "-n", "150", "-c", "9"]
    (run,) = run_bench(shops, *how)[1]["runs"]
    assert run["measured"]["throughput_rps"] == pytest.approx(run["prediction"]["throughput_rps"], rel=0.35)


def test_the_same_seed_draws_the_same_kinds(shops):
    plan = sample_plan(kinds=(Kind(3, "GET", "/a"), Kind(1, "GET", "/b")), mix_seed=7)
    first, again = (list(itertools.islice(drawn(plan), 2000)) for _ in range(2))
    assert first == again and 0.7 < Counter(first)[0] / 2000 < 0.8
    assert filled("{n}/{random:5:5}/{token}/{other}", 3, random.Random(1), "t") == "3/5/t/{other}"


def test_an_access_log_is_replayed_in_its_order(shops):
    mix = read_log(LOG)
    assert [mix.kinds[i].path for i in mix.order] == ["/search?text=a", "/orders/1", "/orders/1"]
    assert "2 of 5" in mix.note
    how = ["--app", "token_shop:app", "--requests-from", f"{LOG}", "-n", "9", "-H", "Authorization: Bearer t-42"]
    (run,) = run_bench(shops, *how)[1]["runs"]
    assert {one["name"]: one["answered"] for one in run["measured"]["kinds"]} == {
        "GET /orders/1": 6, "GET /search?text=a": 3
    }  # fmt: skip


@pytest.mark.parametrize(
    "text, says",
    [
        ("x = 1", "nothing else"),
        ("[[kinds]]\nname = 'a'", "has a path"),
        ("[[kinds]]\npath = '/'\nwait = 1", "nothing else"),
        ("[[kinds]]\npath = '/'\nweight = 0", "above 0"),
        ("[[kinds]]\npath = '/'\nweight = 'x'", "weight"),
        ("[[kinds]]\npath = '/'\nweight = nan", "above 0"),
        ("[[kinds]]\npath = '/'\nweight = inf", "at most"),
        ("[[kinds]]\npath = '/'\nbody = '{random:9:1}'", "no numbers"),
        ("[[kinds]]\npath = '/'\nbody = '{random:x}'", "none of"),
        ("[[kinds]]\npath = '/'\nheaders = ['X: {random:a:b}']", "none of"),
        ("[[kinds]]\npath = '/'\nheaders = ['X: \u6f22']", "header line"),
        ("[login]\n[[kinds]]\npath = '/'", "the login has a path"),
        ("[[kinds]]\npath = 'x'", "begins with /"),
        ("[[kinds]]\npath = '/'\nmethod = 'HEAD'", "method"),
        ("[[kinds]]\npath = '/{random:9:1}'", "no numbers"),
        ("[[kinds]]\npath = '/{random:x}'", "none of"),
        ("[[kinds]]\npath = '/{token}'", "needs a [login]"),
        ("[[kinds]]\npath = '/'\n[[kinds]]\npath = '/'", "2 kinds are called 'GET /': give each a name"),
        ("[[kinds]]\npath = '/search?q=Zo\u00eb'", "%C3%AB"),
        ("[login]\npath = '/{n}'\n[[kinds]]\npath = '/'", "sent once: write a value in the place of {n}"),
        ("[login]\npath = '/'\nbody = '{random:1:9}'\n[[kinds]]\npath = '/'", "in the place of {random:1:9}"),
        ("[login]\npath = '/'\nheaders = ['X: {token}']\n[[kinds]]\npath = '/'", "in the place of {token}"),
        ("[[kinds]]\npath = '/'\nheaders = ['x']", "header line"),
        ("[login]\npath = '/'\nuser = 'x'\n[[kinds]]\npath = '/'", "nothing else"),
        ("[[kinds", "w.toml"),
    ],
)
def test_a_file_that_is_wrong_is_a_line_that_says_where(tmp_path, capsys, text, says):
    (tmp_path / "w.toml").write_text(text)
    assert bench.main(["--url", "http://127.0.0.1:9/", "--workload", str(tmp_path / "w.toml")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and says in error


@pytest.mark.parametrize("words, says", [
    (["--app", "session_shop:app", "--workload", "none.toml"], "No such file"),
    (["--target", "flask-dev", "--workload", "cookie.toml"], "read, mixed, fanout"),
    (["--url", "http://127.0.0.1:9/orders", "--workload", "cookie.toml"], "without a path"),
    (["--app", "session_shop:app", "--workload", "cookie.toml", "-m", "PUT"], "does not go with"),
    (["--app", "session_shop:app", "--requests-from", "cookie.toml"], "no line of a GET"),
])  # fmt: skip
def test_what_does_not_go_together_is_said(shops, capsys, words, says):
    assert bench.main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and says in error


def test_without_a_reader_of_toml_a_line_says_so(shops, monkeypatch, capsys):
    for name in ("tomllib", "tomli"):
        monkeypatch.setitem(sys.modules, name, None)
    assert bench.main(["--app", "session_shop:app", "--workload", "cookie.toml"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "3.11" in error and "tomli" in error


def test_a_login_that_is_refused_ends_the_run_before_it_begins(shops, capsys):
    (shops / "cookie.toml").write_text(COOKIE.replace("secret", "wrong"))
    assert bench.main(["--app", "session_shop:app", "--workload", "cookie.toml", "-n", "5", "-q"]) == 2
    assert "is answered with HTTP 403" in capsys.readouterr().err


@pytest.mark.parametrize("token, body, cookies, found", [
    ("a.b", b'{"a": {"b": "x"}}', [], ("x", "")),
    ("", b"", ["s=1; Path=/", "t=2"], ("", "s=1; t=2")),
    ("a", b'{"a": 7}', ["s=1"], ("7", "s=1")),
    ("a", b"{}", [], None),
    ("a.b", b'{"a": "x"}', [], None),
    ("a", b"<html>", [], None),
    ("a", b'{"a": null}', [], None),
    ("a", b'{"a": true}', [], None),
    ("a", '{"a": "\u6f22"}'.encode(), [], None),
    ("a", b'{"a": "x\\r\\nX: y"}', [], None),
    ("", b"", [], None),
])  # fmt: skip
def test_what_a_login_gives(token, body, cookies, found):
    login = Login("POST", "/login", token=token)
    if found:
        session = session_of(login, 200, body, cookies)
        assert (session.token, session.cookie) == found
    else:
        with pytest.raises(Problem):
            session_of(login, 200, body, cookies)


def test_a_login_may_ask_graphql_for_a_token(tmp_path):
    login = """[login]\npath = "/"\nbody = '{"query": "mutation {login {token}}"}'\ntoken = "data.login.token"\n"""
    (tmp_path / "w.toml").write_text(f"{login}[[kinds]]\npath = '/'")
    assert "{login {token}}" in read_workload(tmp_path / "w.toml").login.body


def test_the_example_is_read():
    assert [kind.name for kind in read_workload(EXAMPLE).kinds] == [*PATTERNS]


def test_a_path_that_is_not_ascii_is_said_how_to_write():
    with pytest.raises(Problem, match="%C3%AB"):
        parse(["--app", "main:app", "--path", "/search?q=Zo\u00eb"])
