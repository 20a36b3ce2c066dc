"""The command line of bench.py: its options, and which of them go together. Ends with a checked namespace.

plans.py turns that into plans; nothing below knows options.
"""

from __future__ import annotations

import argparse
import base64
import math
import os
import random
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from engine import objectives
from engine.files import LOGS, tell
from engine.model import DISTRIBUTIONS
from engine.targets import SERVERS, WORKLOADS, TaskTime
from engine.words import Problem

PROBE_REQUESTS, PROBE_S = 2000, 60.0  # what a probe may spend, unless you say otherwise
SEARCH_S = 10.0  # of each run of --find-rate
PERCENTILES = (50, 95, 99)

TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
PATH = r"/[!-~]*"
TEXT = r"[\t\x20-\x7e\xa0-\xff]*"
STAGE = r"\d+(\.\d+)?s:\d{1,9}"


# ---------------------------------------------------------------- types of arguments


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for every other mistake."""
        raise Problem(" ".join(message.split()))

    def _print_message(self, message: str, file: Any = None) -> None:
        """argparse's own hook, for --help."""
        tell(message.rstrip("\n"))


def number(kind: type, least: float, most: float) -> Callable[[str], Any]:
    """An argparse type: a number within bounds (so never nan), or one line that says what is allowed."""

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if least <= value <= most:
            return value
        kinds = {int: "a whole number", float: "a number"}
        raise argparse.ArgumentTypeError(f"{text!r} is not {kinds[kind]} from {least:.10g} to {most:.10g}")

    return convert


def pattern(regex: str, meaning: str, convert: Callable[[str], Any] = str) -> Callable[[str], Any]:
    """An argparse type: a text of one form. What goes into a request must not smuggle in a second one."""

    def check(text: str) -> Any:
        if not re.fullmatch(regex, text):
            raise argparse.ArgumentTypeError(f"{text!r} is not {meaning}")
        return convert(text)

    return check


def stages(text: str) -> tuple[tuple[float, int], ...]:
    """ "5s:50,10s:200" -> ((5.0, 50), (10.0, 200))"""
    found = tuple((float(stage_s), int(users)) for stage_s, users in re.findall(r"([\d.]+)s:(\d+)", text))
    if not all(0 < stage_s <= 86400 and users <= 100_000 for stage_s, users in found):
        raise argparse.ArgumentTypeError(f"{text!r}: a stage takes up to 86400 s, and has up to 100000 users")
    if not any(users for _, users in found):
        raise argparse.ArgumentTypeError(f"{text!r}: no stage has any users")
    return found


def task_time(text: str) -> TaskTime:
    """ "0.2", "50ms", "50ms:exp": seconds, and how they are drawn for each request."""
    match = re.fullmatch(rf"(\d+\.?\d*|\.\d+)(ms|s)?(?::({'|'.join(DISTRIBUTIONS)}))?", text)
    seconds = TaskTime(float(match[1]) / (1000 if match[2] == "ms" else 1)) if match else TaskTime(0)
    if not match or not 0.0001 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time from 0.0001 to 3600 s, like 0.2, 50ms or 50ms:exp")
    seconds.distribution = match[3] or "constant"
    return seconds


def whole_numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


CPUS = pattern(r"\d{1,5}(,\d{1,5})*", "CPU numbers, as in 0,1", lambda text: set(whole_numbers(text)))
SPLIT = pattern(r"\d{1,7}(,\d{1,7})*", "numbers of requests, as in 41,44,11,4", whole_numbers)
RAMP = pattern(f"{STAGE}(,{STAGE})*", "stages like 15s:50,20s:200", stages)
LINE = pattern(TEXT, "one line of text")
FEW, COUNT, MANY = number(int, 1, 1000), number(int, 1, 100_000), number(int, 1, 100_000_000)
SECONDS = number(float, 0.0001, 1e6)
DEFAULTS = {"passes": 1, "subtasks": 2, "processes": 1, "logs": LOGS}  # of options that are never empty


# ---------------------------------------------------------------- the options


class Section:
    """A group of options in --help."""

    def __init__(self, parser: Parser, title: str) -> None:
        self.add = parser.add_argument_group(title).add_argument

    def switch(self, says: str, *names: str) -> None:
        self.add(*names, action="store_true", help=says)

    def value(self, kind: Callable[[str], Any], shape: str, says: str, *names: str, default: Any = None) -> None:
        self.add(*names, type=kind, metavar=shape, help=says, default=default)

    def values(self, kind: Callable[[str], Any], shape: str, says: str, *names: str) -> None:
        """An option that may be given several times."""
        self.add(*names, type=kind, metavar=shape, help=says, default=[], action="append")


def parser_for(manual: str) -> Parser:
    parser = Parser("bench.py", None, manual, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add_server(Section(parser, "what to start"))
    add_request(Section(parser, "what a request does"))
    add_load(Section(parser, "how to send"))
    add_questions(Section(parser, "questions and objectives"))
    show = Section(parser, "what to show and to keep")
    show.switch("show each of several runs in full", "-v", "--verbose")
    show.switch("show verdicts only", "-q", "--quiet")
    show.value(str, "FILE", "write every run with its raw times; - for standard output", "--json")
    show.value(Path, "DIR", "where runs leave their folders (logs/)", "--logs", default=LOGS)
    return parser


def add_server(group: Section) -> None:
    group.values(str, "NAME", "one of --list; several times, or `all`", "--target")
    app = pattern(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(\([^()]*\))?", "of the form module:app or module:create_app()")
    group.value(app, "MODULE:APP", "your own app; also module:create_app(), and dotted names", "--app")
    group.value(
        pattern(r".*\{port\}.*", "a command with {port} in it"),
        "'COMMAND {port}'",
        "start your service with a command of your own; it listens on 127.0.0.1:{port}",
        "--run",
    )
    group.value(pattern(r"\S+", "a URL without white space"), "URL", "a server that runs already, http only", "--url")
    group.switch("show the targets with their slots and command lines", "--list")
    group.switch("start the server and leave it running until Ctrl-C; send nothing", "--serve")
    group.values(pattern(PATH, "a path: / and no white space"), "PATH", "several times", "--path")
    group.switch("--app names a function that makes the app", "--factory")
    group.add("--server", choices=SERVERS, metavar="KIND", help="what serves --app (WSGI: gunicorn, ASGI: uvicorn)")
    group.value(FEW, "N", "server processes", "--workers")
    group.value(FEW, "N", "threads of each process", "--threads")
    group.value(shlex.split, "ARGS", "more options for the server's command line", "--server-args", default="")
    group.value(FEW, "N", "database connections of each process (Books API)", "--pool-size")
    group.value(str, "URL", "a real Postgres (default: DATABASE_URL, or an embedded one)", "--database-url")
    group.value(CPUS, "0,1", "pin the server (Linux)", "--server-cpus", default=())
    group.switch("log the hello targets, too (it costs them throughput)", "--access-log")


def add_request(group: Section) -> None:
    group.value(task_time, "S", "of a target: what a request waits, as 1, 50ms, 50ms:exp (1)", "--task-time")
    group.value(number(float, 0.0, 60), "S", "what a request computes besides (0)", "--cpu-time")
    group.value(FEW, "N", "parts of a -multi request's task (2)", "--subtasks", default=2)
    group.value(COUNT, "N", "you know the slots: of --app and --url in all, on paper of each process", "--slots")
    group.value(task_time, "S", "of --app, --url and on paper: how long a request waits", "--wait")
    group.value(SPLIT, "N,N", "on paper: requests of each process (of -c: users)", "--split", default=())
    group.switch("on paper: the processes accept only when they are idle", "--one-queue")
    group.value(number(int, 1, 9), "N", "on paper: how often a request takes a slot (1)", "--passes", default=1)
    group.value(FEW, "N", "on paper, with an objective: CPUs of the server (one a worker)", "--cpus")


def add_load(group: Section) -> None:
    group.value(MANY, "N", "requests in all (burst: 16)", "-n", "--requests")
    group.value(COUNT, "N", "closed loop: this many requests under way", "-c", "--concurrency")
    group.value(number(float, 0.001, 1e6), "R", "open loop: requests a second", "--rate")
    group.value(RAMP, "STAGES", "closed loop with stages of users, as 15s:50,20s:200", "--ramp", default=())
    group.add("--arrivals", choices=("constant", "poisson"), help="of --rate: evenly spaced (default), or at random")
    group.value(number(int, 0, 2**31), "N", "of --arrivals poisson (default: drawn, and printed)", "--seed")
    group.value(number(float, 0, 3600), "S", "pause of a user between two requests", "--think", default=0.0)
    group.add("--workload", choices=WORKLOADS, help="mixed requests of the Books API, with their ramp")
    group.value(number(float, 0.001, 100), "X", "make the workload's stages X times as long", "--scale")
    group.value(SECONDS, "S", "stop sending then (10, without -n)", "-t", "--time-limit")
    group.value(number(int, 0, 1_000_000), "N", "requests to send before, not counted", "--warmup")
    group.switch("keep connections for the next request", "-k", "--keep-alive")
    group.value(pattern(TOKEN, "an HTTP method"), "M", "GET, or POST if there is a body", "-m", "--method")
    group.switch("-m HEAD", "-i", "--head")
    header = pattern(f"{TOKEN}:{TEXT}", "one header line, 'Name: value'")
    group.values(header, "'NAME: VALUE'", "several times", "-H", "--header")
    group.value(LINE, "TYPE", "-H 'Content-Type: TYPE'", "-T", "--content-type")
    group.value(LINE, "USER:PASSWORD", "basic authentication", "-A", "--auth")
    group.values(LINE, "NAME=VALUE", "several times", "-C", "--cookie")
    group.value(Path, "FILE", "the body to send", "-p", "--body-file")
    group.value(str, "TEXT", "the body to send, as text", "--data")
    group.value(SECONDS, "S", "for each request (40, or more where the prediction says so)", "-s", "--timeout")
    group.switch("as with ab: go on after errors (always so)", "-r")
    group.value(number(int, 1, 256), "N", "deal the load to N client processes", "--processes", default=1)
    group.value(CPUS, "0,1", "pin the client (Linux)", "--client-cpus", default=())


def add_questions(group: Section) -> None:
    bound = f"-n and -t bound it ({PROBE_REQUESTS} requests, {PROBE_S:g} s)"
    group.switch(f"double the burst until the answers show how many at a time; {bound}", "--probe")
    for percentile in PERCENTILES:
        says = f"{percentile} %% of the requests within S: with --rate, the slots that needs"
        group.value(SECONDS, "S", says, f"--p{percentile}")
    group.switch("the highest rate of random arrivals that keeps the objective", "--find-rate")
    condition = objectives.parse_condition
    group.values(condition, "'p99>0.1'", "exit code 1 then; also failed>0, throughput<200; several times", "--fail-if")


def join_values(argv: Sequence[str]) -> list[str]:
    """argparse takes `--server-args '-k gthread'` for two options; joined by = it is one."""
    joined = list(argv)
    for i in reversed(range(len(joined) - 1)):
        if joined[i] == "--server-args":
            joined[i : i + 2] = [f"--server-args={joined[i + 1]}"]
    return joined


# ---------------------------------------------------------------- which go together

PAPER = ("split", "one_queue", "passes", "cpus")  # of a prediction on paper only
SENDS_ITS_OWN = ("concurrency", "rate", "ramp", "workload")
NEEDS = {  # option -> it goes with one of these
    "arrivals": ("rate",),
    "seed": ("rate",),
    "think": ("concurrency", "ramp", "workload"),
    "scale": ("workload",),
    "server": ("app",),
    "factory": ("app",),
    "workload": ("target",),
    "find_rate": ("p99", "p95", "p50"),
    "p50": ("rate", "find_rate"),
    "p95": ("rate", "find_rate"),
    "p99": ("rate", "find_rate"),
    "time_limit": ("requests", "concurrency", "rate", "ramp", "workload", "probe", "find_rate"),
}
EXCLUDES = {  # option -> it goes with none of these
    "target": ("app", "run", "url", "slots", "wait", *PAPER),
    "run": ("app", "url", "pool_size", "database_url", "workers", "threads", "server_args", *PAPER),
    "app": ("url", "pool_size", "database_url", *PAPER),
    "url": ("path", "workers", "threads", "server_args", "pool_size", "database_url", "server_cpus", "access_log",
            "cpu_time", *PAPER),
    "probe": SENDS_ITS_OWN,
    "find_rate": ("requests", "probe", *SENDS_ITS_OWN),
    "workload": ("path", "method", "data", "body_file"),
    "serve": ("url", "requests", "probe", *SENDS_ITS_OWN),
    "is_paper": ("threads", "server_args", "pool_size", "database_url", "server_cpus", "access_log", "server", "path",
                 "probe", "find_rate", "serve", "workload", "keep_alive"),
    "split": ("rate", "ramp", "one_queue"),
    "concurrency": ("rate", "ramp"),
    "rate": ("ramp",),
    "method": ("head",),
    "body_file": ("data",),
    "p50": ("p95", "p99"),
    "p95": ("p99",),
}  # fmt: skip
WHY = {  # option -> why it stands alone, where that is not plain
    "target": "what a target does is known",
    "url": "that server runs already, and the URL has the path",
    "app": "your app has settings of its own",
    "run": "the command has settings of its own",
    "probe": "it sends bursts of its own",
    "find_rate": "it sends runs of its own",
    "is_paper": "it needs a server: --target, --app, --run or --url",
}


def parse(argv: Sequence[str], manual: str = "") -> argparse.Namespace:
    """The checked options, with the defaults that depend on others filled in. Raises Problem."""
    options = parser_for(manual).parse_args(join_values(argv))
    has_server = options.target or options.app or options.run or options.url
    options.is_paper = not has_server and bool(options.slots or options.wait or options.split)
    asked = [(objective_s, p) for p in PERCENTILES if (objective_s := getattr(options, f"p{p}"))]
    options.objective = asked[0] if asked else None
    check(options)
    if options.is_paper:
        check_paper(options)
    fill_in_load(options)
    fill_in_request(options)
    return options


def flag(name: str) -> str:
    return "a prediction on paper" if name == "is_paper" else f"--{name.replace('_', '-')}"


def check(options: argparse.Namespace) -> None:
    """Which options go together. Raises Problem."""
    given = {name for name, value in vars(options).items() if value and value != DEFAULTS.get(name)}
    for name, needed in NEEDS.items():
        if name in given and given.isdisjoint(needed):
            raise Problem(f"{flag(name)} goes with {' or '.join(map(flag, needed))}")
    for name, excluded in EXCLUDES.items():
        if name in given and (wrong := [other for other in excluded if other in given]):
            why = f": {WHY[name]}" if name in WHY else ""
            raise Problem(f"{flag(wrong[0])} does not go with {flag(name)}{why}")
    for header in options.header:
        if header.partition(":")[0].lower() in ("content-length", "transfer-encoding", "connection"):
            raise Problem(f"-H {header!r}: set by this client itself (-k keeps connections)")


def check_paper(options: argparse.Namespace) -> None:
    """What a prediction without a server needs. Raises Problem."""
    split, options.workers = options.split, options.workers or max(1, len(options.split))
    loads = (options.requests, options.concurrency, options.ramp, options.rate)
    if split:
        asked = options.concurrency or options.requests or sum(split)
        if len(split) != options.workers:
            raise Problem("--split has a number for each of the --workers")
        if sum(split) != asked:
            raise Problem(f"--split shares out {sum(split)}, which is not what -c or -n says")
        options.requests = options.requests if options.concurrency else sum(split)
    if options.objective:
        others = (options.slots, options.passes > 1, options.one_queue, options.requests, not options.wait)
        if any(others):
            raise Problem("an objective on paper asks how many slots: with --rate and --wait, and --cpu-time, --cpus,"
                          " --workers")  # fmt: skip
    elif any((options.cpus, options.cpu_time)):
        raise Problem("--cpus and --cpu-time go with an objective on paper: --p99, --p95 or --p50")
    elif not any((*loads, split)):
        raise Problem("which load? -n for a burst, -c for users, --ramp for users over time, --rate for a schedule")


def scaled(stages: Sequence[tuple[float, int]], scale: float) -> tuple[tuple[float, int], ...]:
    return tuple((stage_s * scale, users) for stage_s, users in stages)


def fill_in_load(options: argparse.Namespace) -> None:
    """When requests are sent: the defaults that depend on other options."""
    if options.find_rate:
        options.run_s, options.time_limit = min(options.time_limit or SEARCH_S, 60.0), None
    if options.probe:
        options.budget = options.requests or PROBE_REQUESTS, options.time_limit or PROBE_S
        options.requests, options.time_limit = PROBE_REQUESTS, None
    if options.workload:
        options.keep_alive = True
        if not any((options.requests, options.concurrency, options.rate, options.ramp)):
            options.ramp = scaled(WORKLOADS[options.workload].stages, options.scale or 1.0)
    limit_s = options.time_limit
    if options.ramp:
        options.time_limit = min(sum(stage_s for stage_s, _ in options.ramp), limit_s or math.inf)
    elif not options.requests and any((options.concurrency, options.rate)):
        options.time_limit = limit_s or 10.0


def fill_in_request(options: argparse.Namespace) -> None:
    """Headers, body and method as they are sent. Raises Problem."""
    if options.arrivals == "poisson" and options.seed is None:
        options.seed = random.randrange(10_000)
    options.header += [f"Content-Type: {options.content_type}"] if options.content_type else []
    options.header += [f"Cookie: {'; '.join(options.cookie)}"] if options.cookie else []
    if options.auth:
        options.header.append(f"Authorization: Basic {base64.b64encode(os.fsencode(options.auth)).decode()}")
    try:
        options.body = options.body_file.read_bytes() if options.body_file else os.fsencode(options.data or "")
    except OSError as error:
        raise Problem(f"cannot read {options.body_file}: {error.strerror}") from None
    options.method = "HEAD" if options.head else options.method or ("POST" if options.body else "GET")
