"""What will be started, and with which settings: command line, environment, configuration file, and the app."""

from __future__ import annotations

import math

import pytest
from servers import ANSWER, launch_of, target_of, write_files

from engine import launch as launch_module
from engine.json_form import to_json
from engine.launch import Launch, check_packages, last_line_of, versions_of
from engine.words import Problem


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The user's own folder, which is the present one; no setting of a server in the environment."""
    for name in ("WEB_CONCURRENCY", "GUNICORN_CMD_ARGS", "UVICORN_WORKERS", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fields(launch: Launch, names: dict[str, object]) -> dict[str, object]:
    return {name: getattr(launch, name) for name in names}


@pytest.mark.parametrize(
    ("server", "handler", "changes", "slots_each", "in_handlers"),
    [
        ("flask-dev", None, {}, math.inf, math.inf),
        ("gunicorn", None, {"threads": 4}, 1, 1),
        ("gunicorn-threads", None, {"threads": 7, "connections": 5}, 5, 5),
        ("gunicorn-gevent", None, {"connections": 50}, 50, 50),
        ("uvicorn", None, {}, None, None),
        ("uvicorn", "def", {}, 40, 40),
        ("uvicorn", "def", {"anyio_threads": 12}, 12, 12),
        ("uvicorn", "blocking", {}, 1, 1),
        ("uvicorn", "async", {"pool": 15}, 15, math.inf),
        ("uvicorn", "def in 100 threads", {"anyio_threads": 12}, 100, 100),
        ("uvicorn", "def with a connection", {}, 15, 40),
        ("uvicorn", "async in AnyIO's threads", {}, 40, math.inf),
        ("uvicorn", "def in a thread of its own", {}, math.inf, math.inf),
        ("gunicorn-threads", "def", {"threads": 4, "pool": 15}, 4, 4),
    ],
)
def test_a_process_has_the_slots_of_its_server_its_handler_or_its_pool(
    server, handler, changes, slots_each, in_handlers
):
    launch = Launch("x", server, "x:app", handler=handler, **changes)
    assert (launch.slots_per_worker, launch.server_slots) == (slots_each, in_handlers)
    assert launch.why_slots and "{" not in launch.why_slots


def test_processes_that_accept_only_when_idle_share_one_queue():
    shared = [Launch("x", server, "x:app").shared_queue for server in ("gunicorn", "uvicorn")]
    gthread = [Launch("x", "gunicorn-threads", "x:app", threads=4, connections=most).shared_queue for most in (4, 5)]
    assert shared == gthread == [True, False]


# ---------------------------------------------------------------- targets


def test_a_target_gets_its_own_settings_unless_others_are_given():
    launch = target_of("flask-gunicorn-threads", "--workers 2 --task-time 0.2:exp --cpu-time 0.1")
    assert (launch.workers, launch.threads, launch.slots_per_worker) == (2, 4, 4)
    assert " ".join(launch.command(80, "a:b")) == "gunicorn --bind 127.0.0.1:80 --workers 2 --threads 4 a:b"
    env = {"TASK_TIME": "0.2", "SUBTASKS": "2", "TASK_DISTRIBUTION": "exp", "CPU_TIME": "0.1"}
    assert dict(launch.env) == env and "env" not in to_json(launch)
    assert target_of("flask-dev").command(80, "a:b")[:3] == ["flask", "--app", "a:b"]
    assert [target_of("flask-books", line).pool for line in ("", "--pool-size 9")] == [4, 9]
    assert [target_of("flask-hello-waitress", line).wrap for line in ("", "--access-log")] == [False, True]


def test_a_target_does_not_read_the_users_configuration_file_but_the_environment(folder, monkeypatch):
    (folder / "gunicorn.conf.py").write_text("workers = 3")
    assert (target_of("flask-gunicorn").workers, target_of("flask-gunicorn").notes) == (4, ())
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--threads 3")
    assert target_of("flask-gunicorn").slots_per_worker == 3
    assert target_of("flask-gunicorn", "--server-args '--threads 5'").slots_per_worker == 5


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("flask-gunicorn", "--pool-size 2", "no --pool-size"),
        ("flask-waitress", "--workers 2", "no --workers"),
        ("fastapi-uvicorn", "--threads 2", "no --threads"),
        ("fastapi-typed", "--task-time 0.1:exp", "constant time"),
    ],
)
def test_an_option_that_a_target_does_not_have_is_a_problem_unless_all_are_asked_for(name, line, message):
    with pytest.raises(Problem, match=message):
        target_of(name, line)
    assert target_of(name, line, strict=False).name == name


@pytest.mark.parametrize(
    ("app", "is_target", "server", "pool", "packages"),
    [
        ("flask_sync:app", True, "gunicorn", 0, "flask asgiref gunicorn"),
        ("fastapi_books:app", True, "uvicorn", 15, "fastapi uvicorn psycopg psycopg-pool"),
        ("limits_pools:app", True, "uvicorn", 0, "fastapi sqlalchemy uvicorn"),
        ("limits_handlers:app", True, "uvicorn", 0, "fastapi uvicorn"),
        ("flask_sync:app", False, "gunicorn", 0, "gunicorn"),  # a user's module may be called so
        ("fastapi_main:app", False, "gunicorn-uvicorn", 0, "gunicorn uvicorn-worker uvicorn"),
    ],
)
def test_the_packages_are_those_of_the_server_and_of_our_own_apps(app, is_target, server, pool, packages):
    launch = Launch("x", server, app, is_target, pool=pool)
    assert " ".join(versions_of([launch])) == packages and all(versions_of([launch]).values())
    check_packages([launch])


def test_a_missing_package_is_named_with_the_pip_command(monkeypatch):
    monkeypatch.setattr(launch_module, "installed_versions", lambda: {"flask": "3.1", "asgiref": "3", "gunicorn": "27"})
    with pytest.raises(Problem, match=r"missing 1 package gevent.*-m pip install -r requirements-all.txt"):
        check_packages([target_of("flask-gunicorn-gevent")])
    with pytest.raises(Problem, match=r"pip install gevent; or run"):
        check_packages([Launch("x", "gunicorn-gevent", "x:app", is_target=False)])


# ---------------------------------------------------------------- the user's settings

NOTE = "gunicorn.conf.py says "
CASES = [  # options, environment, configuration file -> what is in force
    ("gunicorn", "", "", {"server": "gunicorn", "slots_per_worker": 1, "workers": 1, "threads": 1}),
    ("gunicorn --server-args '-k gthread --threads 3'", "", "",
     {"workers": 1, "threads": 3, "server": "gunicorn-threads", "slots_per_worker": 3}),
    ("gunicorn --workers 2 --server-args '-w 3'", "", "", {"workers": 3}),
    ("gunicorn --threads 3", "", "", {"server": "gunicorn-threads", "threads": 3}),
    ("gunicorn --server-args '-k gevent --worker-connections 7'", "", "",
     {"server": "gunicorn-gevent", "slots_per_worker": 7}),
    ("gunicorn-threads", "", "", {"workers": 1, "threads": 4}),
    ("gunicorn-threads --threads 2", "", "threads = 8",
     {"threads": 2, "notes": (f"{NOTE}threads = 8, overruled: 2 is in force",)}),
    ("gunicorn-threads --server-args '--worker-connections 2'", "", "", {"slots_per_worker": 2}),
    ("gunicorn", "", "workers = 3\nworker_class = 'gthread'\nthreads = 5",
     {"server": "gunicorn-threads", "workers": 3, "threads": 5, "slots_per_worker": 5}),
    ("gunicorn", "", "worker_class = 'gunicorn.workers.gthread.ThreadWorker'\nthreads = 5",
     {"server": "gunicorn-threads", "threads": 5}),
    ("gunicorn", "", "worker_class = 'uvicorn_worker.UvicornWorker'", {"server": "gunicorn-uvicorn"}),
    ("gunicorn", "", "bind = '0.0.0.0:8000'\npreload_app = True",
     {"notes": (f"{NOTE}preload_app = True",
                f"{NOTE}bind = '0.0.0.0:8000', overruled: it listens on a free port of 127.0.0.1")}),
    ("gunicorn", "WEB_CONCURRENCY 3", "", {"workers": 3}),
    ("gunicorn", "GUNICORN_CMD_ARGS --workers 4 --threads 2", "",
     {"workers": 4, "threads": 2, "server": "gunicorn-threads"}),
    ("uvicorn", "", "", {"workers": 1, "slots_per_worker": None}),
    ("uvicorn --workers 3 --server-args --workers=5", "", "", {"workers": 5}),
    ("uvicorn --workers 3", "WEB_CONCURRENCY 2", "", {"workers": 3}),
    ("uvicorn", "WEB_CONCURRENCY 2", "", {"workers": 2}),
    ("uvicorn", "UVICORN_WORKERS 3", "", {"workers": 3}),
    ("waitress --threads 6", "", "", {"threads": 6, "open_connections": 98}),
    ("waitress --server-args '--connection-limit 7'", "", "", {"threads": 4, "open_connections": 5}),
    ("waitress --server-args '--connection-limit 4'", "", "", {"open_connections": 2, "slots_per_worker": 2}),
    ("waitress --server-args --threads=9", "", "", {"threads": 9, "slots_per_worker": 9}),
    ("waitress", "WEB_CONCURRENCY 3", "workers = 7", {"workers": 1, "slots_per_worker": 4}),
    ("flask-dev --server-args --without-threads", "", "", {"slots_per_worker": 1, "workers": 1}),
    ("hypercorn --server-args '--workers 3 --debug'", "", "", {"workers": 3}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "environment", "config", "expected"), CASES)
def test_every_setting_of_the_user_is_in_force(folder, monkeypatch, line, environment, config, expected):
    name, _, value = environment.partition(" ")
    if name:
        monkeypatch.setenv(name, value)
    if config:
        (folder / "gunicorn.conf.py").write_text(config)
    launch = launch_of(f"--server {line}")
    assert fields(launch, expected) == expected
    assert line.startswith(launch.command(80, "a:b")[0])


def test_a_configuration_file_is_read_where_the_user_says_it_is(folder):
    write_files(folder, {"conf/prod.py": "workers = 3", "gunicorn.conf.py": "workers = 2", "sub/gunicorn.conf.py": "x"})
    launch = launch_of("--server gunicorn --server-args '-c conf/prod.py'")
    assert (launch.workers, launch.notes) == (3, ("prod.py says workers = 3",))
    launch = launch_of("--server gunicorn --server-args '--chdir sub'")
    assert (launch.workers, launch.notes) == (2, (f"{NOTE}workers = 2",))  # gunicorn reads it first


@pytest.mark.parametrize(
    ("line", "config", "message"),
    [
        ("gunicorn --server-args --bogus", "", "unrecognized arguments: --bogus"),
        ('gunicorn --server-args "it\'s"', "", "--server-args"),
        ("gunicorn --server-args --daemon", "", "must end with the run"),
        ("gunicorn", "daemon = True", "told to be a daemon"),
        ("gunicorn", "worker_class = 'tornado'", "'tornado' are not known|does not take"),
        ("uvicorn --server-args '--port 8000'", "", "--port: the server gets a free port"),
        ("uvicorn --server-args --lifespan=off", "", "--lifespan: the lifespan"),
        ("uvicorn --server-args '--workers many'", "", "'many' is not a whole number"),
        ("waitress --server-args --threads", "", "'' is not a whole number"),
        ("waitress --workers 2", "", "has no --workers"),
        ("waitress --server-args '--connection-limit 2'", "", "would accept nothing"),
    ],
)
def test_a_setting_that_cannot_be_is_a_problem(folder, line, config, message):
    (folder / "gunicorn.conf.py").write_text(config)
    with pytest.raises(Problem, match=message) as caught:
        launch_of(f"--server {line}")
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


# ---------------------------------------------------------------- the user's app

API = "from fastapi import FastAPI\napp = FastAPI()\n@app.get('/{name}')\n"


@pytest.mark.parametrize(
    ("main", "line", "expected"),
    [
        (f"{ANSWER}\napp = answer('x')", "", {"server": "gunicorn", "app": "main:app", "handler": None}),
        (f"{ANSWER}\ndef app(): return answer('x')", "", {"name": "main:app()", "app": "main:app()"}),
        (f"{ANSWER}\ndef app(): return answer('x')", "--factory", {"app": "main:app()"}),
        (API + "def index(name): pass", "", {"server": "uvicorn", "handler": "def", "passes": (1.0,)}),
        (API + "def index(name) -> str: pass", "", {"handler": "def", "passes": (1.0, 0.0), "slots_per_worker": 40}),
        (API + "async def index(name): pass", "",
         {"handler": None, "handlers": ("async", "blocking"), "slots_per_worker": None}),
        ("import sqlalchemy\n" + API + "async def index(name): pass", "", {"imported": ("anyio", "sqlalchemy")}),
        ("import no_such_module", "--server gunicorn", {"handler": None, "imported": None}),
    ],
)  # fmt: skip
def test_what_the_app_says_of_itself_decides_what_is_not_given(folder, main, line, expected):
    (folder / "main.py").write_text(main)
    assert fields(launch_of(line, path="/x?y=1"), expected) == expected


@pytest.mark.parametrize(
    ("main", "message", "exit_code"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'", 3),
        ("import os; os._exit(4)", "does not load: no message", 3),
        ("app = object()", "neither WSGI nor ASGI", 2),
    ],
)
def test_without_a_server_to_ask_an_app_that_does_not_load_says_why_itself(folder, main, message, exit_code):
    (folder / "main.py").write_text(main)
    with pytest.raises(Problem, match=message) as caught:
        launch_of()
    assert caught.value.exit_code == exit_code


def test_the_last_line_of_a_command_is_its_answer_else_what_it_said_is_the_problem():
    failed = Problem("it failed", 3)
    assert last_line_of(["-c", "print('x')\nprint('{\"a\": [1]}')"], failed) == {"a": (1,)}
    with pytest.raises(Problem, match="it failed: no"):
        last_line_of(["-c", "raise SystemExit('why\\nno')"], failed)
