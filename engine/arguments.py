"""The types of arguments: each makes a value of a text, or says in one line what it has to be."""

import argparse
import contextlib
import re
import shlex
from collections.abc import Callable
from typing import Any

from engine.model import DISTRIBUTIONS
from engine.objectives import ASKED_S, UNITS
from engine.targets import TaskTime

TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
PATH = r"/[!-~]*"
TEXT = r"[\t\x20-\x7e\xa0-\xff]*"
STAGE = r"\d+(\.\d+)?m?s:\d{1,9}"
Convert = Callable[[str], Any]  # what argparse calls the type of an argument


def number(kind: type, least: float, most: float) -> Convert:
    """A number within bounds (so never nan), or one line that says what is allowed."""

    def convert(text: str) -> Any:
        with contextlib.suppress(ValueError):
            if least <= (value := kind(text)) <= most:
                return value
        kinds = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"{text!r} is not {kinds} from {least:.10g} to {most:.10g}")

    return convert


def seconds(least: float, most: float, is_short: bool = False) -> Convert:
    """A time: "300ms", "0.3s" or "0.3". is_short: what is usual is below 10 s, so that a bare 300 may mean ms."""

    def convert(text: str) -> float:
        bare = text.removesuffix("s").removesuffix("m") if text.endswith("s") else text
        with contextlib.suppress(ValueError):
            value_s = float(bare) / (1000 if text.endswith("ms") else 1)
            if is_short and bare == text and value_s >= ASKED_S:
                raise argparse.ArgumentTypeError(f"{text} seconds? write {text}ms or {text}s")
            if least <= value_s <= most:
                return value_s
        allowed = f"from {least:.10g} to {most:.10g} s, like 300ms, 0.3s or 0.3"
        raise argparse.ArgumentTypeError(f"{text!r} is not a time {allowed}")

    return convert


def pattern(regex: str, meaning: str, convert: Convert = str) -> Convert:
    """A text of one form. What goes into a request must not smuggle in a second one."""

    def check(text: str) -> Any:
        if not re.fullmatch(regex, text):
            raise argparse.ArgumentTypeError(f"{text!r} is not {meaning}")
        return convert(text)

    return check


def stages(text: str) -> tuple[tuple[float, int], ...]:
    """ "5s:50,10s:200" -> ((5.0, 50), (10.0, 200))"""
    parts = re.findall(r"([\d.]+)(m?s):(\d+)", text)
    found = tuple((float(time) * UNITS[unit], int(users)) for time, unit, users in parts)
    durations_s, users = zip(*found, strict=True)
    if not 0 < min(durations_s) <= max(durations_s) <= 86400 or not 0 < max(users) <= 100_000:
        says = "a stage takes up to 86400 s and has up to 100000 users, and one of them has some"
        raise argparse.ArgumentTypeError(f"{text!r}: {says}")
    return found


def task_time(text: str) -> TaskTime:
    """ "0.2", "50ms", "50ms:exp": seconds, and how they are drawn for each request."""
    match = re.fullmatch(rf"(\d+\.?\d*|\.\d+)(ms|s)?(?::({'|'.join(DISTRIBUTIONS)}))?", text)
    if match:
        seconds = TaskTime(float(match[1]) / (1000 if match[2] == "ms" else 1))
        seconds.distribution = match[3] or "constant"
        if 0.0001 <= seconds <= 3600:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a time from 0.0001 to 3600 s, like 0.2, 50ms or 50ms:exp")


def app_name(text: str) -> str:
    """ "main:app", or with a function that makes it "shop.web:create_app()"."""
    if re.search(r"\.py(:|$)", text):
        file, _, name = text.partition(":")
        module = file.removeprefix("./").removesuffix(".py").replace("/", ".")
        raise argparse.ArgumentTypeError(f"{text!r} names a file: write module:app, here {module}:{name or 'app'}")
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(\([^()]*\))?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form module:app or module:create_app()")
    return text


def command_line(text: str) -> str:
    """Words as a shell splits them."""
    try:
        shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
    return text


CPUS = pattern(r"\d{1,5}(,\d{1,5})*", "CPU numbers, as in 0,1", lambda text: {*map(int, text.split(","))})
SPLIT = pattern(
    r"\d{1,7}(,\d{1,7})*", "numbers of requests, as in 41,44,11,4", lambda text: [*map(int, text.split(","))]
)
RAMP = pattern(f"{STAGE}(,{STAGE})*", "stages like 15s:50,20s:200", stages)
HEADER = pattern(
    f"(?!(?i:content-length|transfer-encoding|connection):){TOKEN}:{TEXT}",
    "one header line, 'Name: value'; Content-Length, Transfer-Encoding and Connection are set by this client itself"
    " (-k keeps connections)",
)
LINE = pattern(TEXT, "one line of text")
FILE_NAME = pattern(r"(?s).+", "a file name")
URL_PATH = pattern(PATH, "a path: / and ASCII without white space (write ë as %C3%AB)")
FEW, COUNT, MANY = number(int, 1, 1000), number(int, 1, 100_000), number(int, 1, 100_000_000)
SECONDS, SHORT = seconds(0.0001, 1e6), seconds(0.0001, 1e6, is_short=True)
