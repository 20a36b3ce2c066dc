"""Requests of several kinds: read from a file or an access log, drawn in an order that is known before the run, filled
in with numbers, and with what a login has given.

    [login]                               # sent once, before everything else; its cookies go with all others
    method = "POST"
    path = "/login"
    body = '{"name": "ann", "password": "secret"}'
    token = "access_token"                # a field of its JSON answer, "user.token" in an object: {token}

    [[kinds]]
    name = "one order"
    weight = 7
    path = "/orders/{random:1:1000}"      # a number from 1 to 1000
    headers = ["Authorization: Bearer {token}"]

    [[kinds]]
    name = "new order"
    method = "POST"
    path = "/orders"
    body = '{"item": {n}}'                # the number of the request

Nothing here sends anything.
"""

from __future__ import annotations

import importlib
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.kinds import Kind, Login, Session
from engine.run import Plan
from engine.words import Problem

PLACEHOLDER = re.compile(r"\{(?:(n)|(token)|random:(\d+):(\d+))\}")
WRONG = re.compile(r"\{(n|token|random)\b[^}]*\}")
WRONG_IN_BODY = re.compile(r"\{random:[^}\s]*\}")  # others may be the body's own
OURS = "content-length|transfer-encoding|connection"  # headers that this client sets
HEADER = rf"(?!(?i:{OURS}):)[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*"  # in latin-1
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")  # an answer to HEAD has no body, which all others have
KEYS = {"name": str, "weight": (int, float), "method": str, "path": str, "headers": list, "body": str}
LOGIN_KEYS = {"method": str, "path": str, "headers": list, "body": str, "token": str}
COLOURS = re.compile(r"\x1b\[[\d;]*m")  # of Flask's development server
LOG_LINE = re.compile(r'"GET (/[!-~]*?)(?: HTTP/[\d.]+)?" [23]\d\d')  # of nginx, Apache, gunicorn, uvicorn
MOST_WEIGHT = 1e9
MOST_TIMED = 20  # kinds whose lone times are measured one by one


@dataclass(frozen=True)
class Mix:
    """What a file says."""

    name: str
    kinds: tuple[Kind, ...]
    login: Login | None = None
    order: tuple[int, ...] = ()  # kinds by number, as they follow each other, again and again; empty: at random
    note: str = ""  # what was left out


# ---------------------------------------------------------------- files


def read_toml(path: Path) -> dict[str, Any]:
    """Raises Problem."""
    for name in ("tomllib", "tomli"):
        try:
            toml: Any = importlib.import_module(name)
        except ImportError:
            continue
        try:
            found: dict[str, Any] = toml.loads(path.read_text(encoding="utf-8"))
            return found
        except (OSError, ValueError) as error:
            raise Problem(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    raise Problem(f"{path.name} is TOML, which needs Python 3.11 or newer, or the package tomli")


def read_workload(path: Path) -> Mix:
    """The kinds and the login of a file. Raises Problem that names what is wrong."""
    asked = read_toml(path)
    kinds, login = asked.pop("kinds", None), asked.pop("login", None)
    try:
        if asked or not isinstance(kinds, list) or not kinds or not isinstance(login, dict | None):
            raise Problem("it has [[kinds]], perhaps a [login], and nothing else")
        mix = Mix(
            path.name,
            tuple(itertools.starmap(kind_of, enumerate(kinds, 1))),
            None if login is None else login_of(login),
        )
        check_mix(mix)
    except Problem as problem:
        raise Problem(f"{path}: {problem}") from None
    return mix


def check_mix(mix: Mix) -> None:
    """Raises Problem where kinds do not go together."""
    name, count = Counter(kind.name for kind in mix.kinds).most_common(1)[0]
    if count > 1:
        raise Problem(f"{count} kinds are called {name!r}: give each a name of its own")
    wants_token = any("{token}" in text for kind in mix.kinds for text in texts_of(kind))
    if wants_token and not (mix.login and mix.login.token):
        raise Problem("{token} needs a [login] with a token")


def kind_of(number: int, asked: Any) -> Kind:
    """A kind as a file has it. Raises Problem."""
    where = f"kind {number}"
    checked(asked, KEYS, where)
    method, weight = asked.get("method", "POST" if asked.get("body") else "GET"), asked.get("weight", 1)
    name = asked.get("name", f"{method} {asked['path']}")
    if not 0 < weight <= MOST_WEIGHT:
        raise Problem(f"{where}: a weight is above 0, and at most {MOST_WEIGHT:g}")
    return Kind(weight, method, asked["path"], asked.get("body", ""), name, headers_of(asked))


def login_of(asked: Any) -> Login:
    """Raises Problem."""
    checked(asked, LOGIN_KEYS, "the login")
    body = asked.get("body", "").replace("{token}", "")  # it may be a field that GraphQL is asked for
    for text in (asked["path"], body, *asked.get("headers", ())):
        if found := PLACEHOLDER.search(text):
            raise Problem(f"the login is sent once: write a value in the place of {found[0]}")
    return Login(
        asked.get("method", "POST"), asked["path"], asked.get("body", ""), headers_of(asked), asked.get("token", "")
    )


def checked(asked: Any, keys: Mapping[str, Any], where: str) -> None:
    """Raises Problem where a table of the file has a wrong key or a wrong value."""
    if not isinstance(asked, dict) or "path" not in asked or asked.keys() - keys.keys():
        raise Problem(f"{where} has a path, perhaps {', '.join(sorted(keys.keys() - {'path'}))}, and nothing else")
    for name, value in asked.items():
        if not isinstance(value, keys[name]) or isinstance(value, bool):
            raise Problem(f"{where}: its {name} is {value!r}")
    check_request(asked, where)


def check_request(asked: Mapping[str, Any], where: str) -> None:
    """Raises Problem where method, path or headers are none."""
    if asked.get("method", "GET") not in METHODS:
        raise Problem(f"{where}: the method is one of {', '.join(METHODS)}")
    if not re.fullmatch(r"/[!-~]*", asked["path"]):
        raise Problem(f"{where}: a path begins with / and is ASCII without white space: write ë as %C3%AB")
    for header in asked.get("headers", ()):
        if not isinstance(header, str) or not re.fullmatch(HEADER, header):
            raise Problem(f"{where}: {header!r} is no header line like 'Name: value', or one that this client sets")
    for text in (asked["path"], *asked.get("headers", ())):
        check_placeholders(text, where)
    check_placeholders(asked.get("body", ""), where, WRONG_IN_BODY)


def check_placeholders(text: str, where: str, wrong: re.Pattern[str] = WRONG) -> None:
    """Raises Problem where a placeholder is none."""
    for low, high in re.findall(r"\{random:(\d+):(\d+)\}", text):
        if int(low) > int(high):
            raise Problem(f"{where}: {{random:{low}:{high}}} has no numbers")
    if found := wrong.search(PLACEHOLDER.sub("", text)):
        raise Problem(f"{where}: {found[0]} is none of {{n}}, {{token}}, {{random:1:1000}}")


def headers_of(asked: Mapping[str, Any]) -> tuple[str, ...]:
    """Its header lines, and the type of its body where that is not among them."""
    headers, body = tuple(asked.get("headers", ())), asked.get("body", "")
    if not body or any(header.lower().startswith("content-type:") for header in headers):
        return headers
    is_json = body.lstrip()[:1] in ("{", "[")
    return *headers, f"Content-Type: application/{'json' if is_json else 'x-www-form-urlencoded'}"


def read_log(path: Path) -> Mix:
    """The paths of an access log, in its order, without those that were answered with an error: a scanner asks for what
    is not there. Raises Problem."""
    try:
        lines = COLOURS.sub("", path.read_text(encoding="utf-8", errors="replace")).splitlines()
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}") from None
    paths = [found[1] for found in map(LOG_LINE.search, lines) if found]
    if not paths:
        raise Problem(
            f"{path} has no line of a GET request that was answered with 2xx or 3xx, as nginx, gunicorn and uvicorn"
            " write them"
        )
    counts = Counter(paths).most_common()
    number = {target: i for i, (target, _) in enumerate(counts)}
    left_out = len(lines) - len(paths)
    note = (
        f"{left_out} of {len(lines)} lines are no GET requests, were not answered with 2xx or 3xx, or are of a form"
        " that is not known, and are left out."
        if left_out
        else ""
    )
    kinds = tuple(Kind(count, "GET", target, name=f"GET {target}") for target, count in counts)
    return Mix(path.name, kinds, None, tuple(number[target] for target in paths), note)


# ---------------------------------------------------------------- what is sent


def texts_of(kind: Kind) -> tuple[str, ...]:
    return kind.path, kind.body, *kind.headers


def filled(text: str, number: int, dice: random.Random, token: str = "") -> str:
    """
    >>> filled('/a/{n}?x={random:3:3}&t={token}', 7, random.Random(0), "abc")
    '/a/7?x=3&t=abc'
    """

    def value(found: re.Match[str]) -> str:
        is_number, is_token, low, high = found.groups()
        return f"{number}" if is_number else token if is_token else f"{dice.randint(int(low), int(high))}"

    return PLACEHOLDER.sub(value, text)


def drawn(plan: Plan) -> Iterator[int]:
    """The kind of each request of a run, by its number in the mix: the same for the same seed."""
    if plan.order:
        return itertools.cycle(plan.order)
    dice, numbers, shares = random.Random(plan.mix_seed), range(len(plan.kinds)), [kind.weight for kind in plan.kinds]
    return (dice.choices(numbers, shares)[0] for _ in itertools.count())


def asked_for(plan: Plan) -> Iterator[Kind]:
    """Every request of a run with its own numbers in it, in order and without an end."""
    dice, token = random.Random(f"{plan.mix_seed} {plan.first_number}"), plan.session.token if plan.session else ""
    for number, kind in enumerate((plan.kinds[i] for i in drawn(plan)), plan.first_number):
        path, body, *headers = (filled(text, number, dice, token) for text in texts_of(kind))
        yield replace(kind, path=path, body=body, headers=tuple(headers))


def plans_of_kinds(plan: Plan) -> list[Plan]:
    """A plan of one request for each kind, as far as these are few."""
    kinds = plan.kinds[:MOST_TIMED]
    return [replace(plan, kinds=(kind,), order=(), method=kind.method, path=kind.path) for kind in kinds]


# ---------------------------------------------------------------- the login


def kept_cookies(lines: Sequence[str]) -> list[str]:
    """What Set-Cookie headers leave: a later one of a name replaces, one that has expired removes (RFC 6265, 5.3).

    >>> kept_cookies(["token=; Max-Age=0; Path=/", "token=abc; Path=/", "seen=1", "seen=; max-age=-1"])
    ['token=abc']
    """
    kept = dict[str, str]()
    for line in lines:
        pair = line.partition(";")[0].strip()
        name = pair.partition("=")[0]
        kept.pop(name, None)
        if not re.search(r"(?i);\s*max-age\s*=\s*(0|-\d+)\s*(;|$)", line):
            kept[name] = pair
    return list(kept.values())


def session_of(login: Login, status: int, body: bytes, cookies: Sequence[str]) -> Session:
    """What the answer to a login gives to all other requests. cookies: its Set-Cookie headers. Raises Problem."""
    asked = f"the login, {login.method} {login.path},"
    if not 200 <= status < 400:
        raise Problem(
            f"{asked} is answered with HTTP {status}: {' '.join(body.decode(errors='replace').split())[:200]}"
        )
    cookie = "; ".join(kept_cookies(cookies))
    if not login.token:
        if not cookie:
            raise Problem(f"{asked} gives no cookie, and the file names no token")
        return Session("", cookie)
    try:
        value: Any = json.loads(body)
        for name in login.token.split("."):
            value = value[name]
    except (ValueError, LookupError, TypeError):
        value = None
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise Problem(f"{asked} has no {login.token!r} in its JSON answer")
    if not re.fullmatch(r"[!-~]+", f"{value}"):
        raise Problem(f"{asked} has a {login.token!r} that no header can carry")
    return Session(f"{value}", cookie)
