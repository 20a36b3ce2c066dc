"""The tables of what can be started hold together."""

import json
import re

from engine.launch import APPS, INSIDE
from engine.targets import GUNICORN_CLASSES, HANDLERS, SEEDED_BOOKS, SERVERS, TARGETS, WORKLOADS


def test_every_target_has_a_server_and_its_routes_stand_in_their_apps():
    for name, target in TARGETS.items():
        assert target.server in SERVERS and target.workers >= 1, name
        assert target.workers == 1 or "workers" in SERVERS[target.server].settings, name
        for route in target.routes:
            text = (APPS / f"{route.app.removesuffix(':app')}.py").read_text()
            path = re.sub(r"/\d+$", "/", route.path)
            assert f'("{path}' in text and route.handler in HANDLERS, (name, route)
            assert not route.draws or "TASK_DISTRIBUTION" in text, (name, route)
            assert route.waits == "unknown" or (route.waits in ("task", "subtask")) == ("TASK_TIME" in text), route


def test_every_app_is_some_targets():
    apps = {route.app for target in TARGETS.values() for route in target.routes}
    assert {f"{path.stem}:app" for path in APPS.glob("*.py")} == apps


def test_every_server_says_how_many_requests_it_works_on_and_why():
    for name, server in SERVERS.items():
        assert any("{port}" in part for part in server.command), name
        assert server.wrapper == "asgi" if server.slots == "handler" else server.why, name
    assert set(GUNICORN_CLASSES.values()) == {name for name in SERVERS if name.startswith("gunicorn")}


def test_the_requests_of_each_workload_are_whole():
    for workload in WORKLOADS.values():
        assert abs(sum(share for share, *_ in workload.kinds) - 1) < 1e-9
        assert all(json.loads(body or "{}") is not None for *_, body in workload.kinds)


def test_as_many_books_are_seeded_as_the_load_asks_for():
    assert f"generate_series(1, {SEEDED_BOOKS})" in (INSIDE / "books.sql").read_text()
