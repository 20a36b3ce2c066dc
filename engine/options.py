"""The command line of bench.py: its options, and which of them go together. Ends with a checked namespace.

plans.py turns that into plans; nothing below knows options.
"""

import argparse
import base64
import contextlib
import json
import os
import random
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from engine import objectives, workload
from engine.arguments import (
    COUNT,
    CPUS,
    FEW,
    FILE_NAME,
    HEADER,
    LINE,
    MANY,
    RAMP,
    SECONDS,
    SHORT,
    SPLIT,
    TOKEN,
    URL_PATH,
    app_name,
    command_line,
    number,
    pattern,
    seconds,
    task_time,
)
from engine.files import LOGS, tell
from engine.targets import SERVERS, WORKLOADS
from engine.until import parse_until
from engine.words import Problem
from engine.workload import PLACEHOLDER

LEAST_PROBE = 100  # three bursts, and what goes before them
PROBE_REQUESTS, PROBE_S = 2000, 60.0  # what a probe may spend, unless you say otherwise
SEARCH_S = 10.0  # of each run of --find-rate
UNTIL_S = 60.0  # that --until may take
PERCENTILES = (50, 95, 99)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for every other mistake."""
        raise Problem(" ".join(message.split()))

    def _print_message(self, message: str, file: Any = None) -> None:
        """argparse's own hook, for --help."""
        tell(message.rstrip("\n"))


# ---------------------------------------------------------------- the options

# A switch is its help. Another option is its type or its choices, how --help calls the value, the help, and perhaps a
# default; [] as the default: it may be given several times.
GROUPS: dict[str, dict[str, Any]] = {
    "what to start": {
        "--target": (str, "NAME", "one of --list; several times, or `all`", []),
        "--app": (app_name, "MODULE:APP", "your own app; also module:create_app(), and dotted names"),
        "--run": (
            pattern(r".*\{port\}.*", "a command with {port} in it", command_line),
            "'COMMAND {port}'",
            "start your service with a command of your own; it listens on 127.0.0.1:{port}",
        ),
        "--url": (pattern(r"\S+", "a URL without white space"), "URL", "a server that runs already, http:// or https://"),
        "--list": "show the targets with their slots and command lines",
        "--serve": "start the server and leave it running until Ctrl-C; send nothing",
        "--path": (URL_PATH, "PATH", "several times", []),
        "--factory": "--app names a function that makes the app",
        "--server": (SERVERS, "KIND", "what serves --app (WSGI: gunicorn, ASGI: uvicorn)"),
        "--workers": (FEW, "N", "server processes"),
        "--threads": (FEW, "N", "threads of each process"),
        "--anyio-threads": (FEW, "N", "threads for `def` handlers of FastAPI, in each process (40)"),
        "--env": (pattern(r"(?s)[^=]+=.*", "of the form NAME=VALUE"), "NAME=VALUE", "for the service; several times",
                  []),
        "--server-args": (shlex.split, "ARGS", "more options for the server's command line", ""),
        "--pool-size": (FEW, "N", "database connections of each process (Books API)"),
        "--database-url": (str, "URL", "a real Postgres (default: DATABASE_URL, or an embedded one)"),
        "--start-timeout": (seconds(1, 3600), "S", "how long the service may take to start (30)", 30.0),
        "--server-cpus": (CPUS, "0,1", "pin the server (Linux)", ()),
        "--cert": (Path, "FILE", "serve https with this certificate (uvicorn, gunicorn); the client trusts it"),
        "--key": (Path, "FILE", "its private key"),
        "--access-log": "log the hello targets, too (it costs them throughput); all others have a log anyway",
    },
    "what a request does": {
        "--task-time": (task_time, "S", "what a request to a target waits: 1, 50ms, 50ms:exp (drawn; on average) (1)"),
        "--cpu-time": (seconds(0.0, 60), "S", "what a request computes besides (0)"),
        "--subtasks": (FEW, "N", "parts of a -multi request's task (2)", 2),
        "--slots": (COUNT, "N", "slots of all workers, if you know them; on paper: of one"),
        "--wait": (task_time, "S", "how long a request waits, for --app, --run, --url and on paper"),
        "--split": (SPLIT, "N,N", "on paper: requests (or, with -c, users) of each process", ()),
        "--one-queue": "on paper: all processes share one queue",
        "--passes": (number(int, 1, 9), "N", "on paper: how often a request takes a slot (1)", 1),
        "--cpus": (FEW, "N", "on paper, with an objective: CPUs of the server (one a worker)"),
    },
    "how to send": {
        "-n --requests": (MANY, "N", "requests in all (burst: 16)"),
        "-c --concurrency": (COUNT, "N", "closed loop: this many requests under way"),
        "--rate": (number(float, 0.001, 1e6), "R", "open loop: requests a second"),
        "--ramp": (RAMP, "STAGES", "closed loop with stages of users, as 15s:50,20s:200", ()),
        "--arrivals": (("constant", "poisson"), None, "for --rate: evenly spaced (default), or at random"),
        "--seed": (number(int, 0, 2**31), "N",
                   "for --arrivals poisson and --workload (default: drawn; the JSON has it)"),
        "--think": (seconds(0, 3600), "S", "pause of a user between two requests", 0.0),
        "--workload": (pattern(r"(?s).+", "a name or a file"), "FILE",
                       "a TOML file with kinds of requests, their weights, and a login; of the Books API one of"
                       f" {', '.join(WORKLOADS)}, with its ramp"),
        "--requests-from": (Path, "LOG", "the paths of an access log, in its order, again and again"),
        "--scale": (number(float, 0.001, 100), "X", "make the workload's stages X times as long", 1.0),
        "-t --time-limit": (SECONDS, "S", "stop sending after S (10, without -n)"),
        "--warmup": (number(int, 0, 1_000_000), "N",
                     "requests before the run, not counted (for your app, or a --url that is cold: 4 per worker, 32 at"
                     " most)"),
        "-k --keep-alive": "keep connections for the next request",
        "-m --method": (pattern(TOKEN, "an HTTP method"), "M", "GET, or POST if there is a body"),
        "-i --head": "-m HEAD",
        "-H --header": (HEADER, "'NAME: VALUE'", "several times", []),
        "-T --content-type": (LINE, "TYPE", "-H 'Content-Type: TYPE'"),
        "-A --auth": (LINE, "USER:PASSWORD", "basic authentication"),
        "-C --cookie": (LINE, "NAME=VALUE", "several times", []),
        "-p --body-file": (Path, "FILE", "the body to send"),
        "--data": (str, "TEXT", "the body to send, as text: as curl a form, or JSON if it is JSON", ""),
        "-s --timeout": (SECONDS, "S", "for each request (40, or more where the prediction says so)"),
        "--repeats": (number(int, 2, 100), "N", "run each target N times, in turn; medians, least and most"),
        "--first-byte": "an answer counts as complete with the first byte of its body, for streams without an end",
        "--any-status": "go on where a request by itself is answered with 4xx or 5xx",
        "--cacert": (Path, "FILE", "for an https URL: trust this certificate, besides the CAs of this system"),
        "--insecure": "do not check the server's certificate",
        "-r": "accepted for ab; it changes nothing",
        "--victim": (URL_PATH, "PATH",
                     "ask for it ten times a second beside the load: how long does a cheap request wait?"),
        "--processes": (number(int, 1, 256), "N", "deal the load to N client processes", 1),
        "--client-cpus": (CPUS, "0,1", "pin the client (Linux)", ()),
    },
    "questions and objectives": {
        "--probe": "double the burst until the answers show how many at a time; -n and -t bound it"
        f" ({PROBE_REQUESTS} requests, {PROBE_S:g} s)",
        **{f"--p{p}": (SHORT, "S", f"the objective: {p} %% of the requests within S; for --rate and --find-rate")
           for p in PERCENTILES},
        "--try": (command_line, "'OPTIONS'", "the same load with this changed, as '--threads 8'; several times;"
                  " or auto", []),
        "--find-rate": "the highest rate of random arrivals that keeps the objective",
        "--until": (parse_until, "'p99+-10%'", "for --rate and -c: send until a percentile is known this exactly,"
                    " at most -t (60) seconds; else exit code 1"),
        "--fail-if": (objectives.parse_condition, "'p99>0.1'",
                      "exit code 1 if this is true; also failed>0, throughput<200; several times", []),
    },
    "what to show and to keep": {
        "-v --verbose": "show each of several runs in full",
        "-q --quiet": "show verdicts only",
        "--json": (FILE_NAME, "FILE", "write every run with its raw times; - for standard output"),
        "--html": (FILE_NAME, "FILE", "write every run as one page; - for standard output"),
        "--trace": (FILE_NAME, "FILE",
                    "write the times of every request as a trace for Perfetto; - for standard output"),
        "--logs": (Path, "DIR", "where runs leave their folders (logs/ beside bench.py)", LOGS),
        "--clean-logs": "remove the folders of runs that are older than a week",
    },
}  # fmt: skip


def parser_for(manual: str) -> Parser:
    parser = Parser("bench.py", None, manual, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    for title, rows in GROUPS.items():
        group = parser.add_argument_group(title)
        for names, row in rows.items():
            if isinstance(row, str):
                how: dict[str, Any] = {"action": "store_true", "help": row}
            else:
                how = dict(zip(("type", "metavar", "help", "default"), row, strict=False))
                if not callable(how["type"]):
                    how["choices"] = how.pop("type")
                if how.get("default") == []:
                    how["action"] = "append"
            group.add_argument(*names.split(), **how)
    return parser


def with_address(argv: Sequence[str], parser: Parser) -> list[str]:
    """A URL that stands alone is that of --url."""
    takes_value = {name for action in parser._actions if action.nargs is None for name in action.option_strings}
    pairs = zip(["", *argv], argv, strict=False)
    return [
        f"--url={text}" if re.match("https?://", text) and before not in takes_value else text for before, text in pairs
    ]


def join_values(argv: Sequence[str]) -> list[str]:
    """argparse takes `--server-args '-k gthread'` for two options; joined by = it is one."""
    joined: list[str] = []
    for text in argv:
        if joined[-1:] in (["--server-args"], ["--try"]):
            joined[-1] += f"={text}"
        else:
            joined.append(text)
    return joined


# ---------------------------------------------------------------- which go together

PAPER = "split one_queue passes cpus"  # of a prediction on paper only
SENDS_ITS_OWN = "concurrency rate ramp workload requests_from"
NEEDS = {  # option -> it goes with one of these
    "arrivals": "rate",
    "seed": "rate workload",
    "think": "concurrency ramp workload",
    "scale": "workload",
    "server": "app",
    "try": "target app run",
    "victim": "target app run",
    "env": "target app run",
    "anyio_threads": "target app",
    "factory": "app",
    "cert": "key",
    "key": "cert",
    "cacert": "url",
    "insecure": "url cert",
    "workload": "target app run url",
    "requests_from": "target app run url",
    "find_rate": "p99 p95 p50",
    "until": "rate concurrency",
    "p50": "rate find_rate",
    "p95": "rate find_rate",
    "p99": "rate find_rate",
    "time_limit": "requests concurrency rate ramp workload probe find_rate",
}
EXCLUDES = {  # option -> it goes with none of these
    "target": f"app run url slots wait {PAPER}",
    "run": f"app url pool_size cpu_time subtasks database_url workers threads server_args cert {PAPER}",
    "app": f"url pool_size database_url cpu_time subtasks {PAPER}",
    "url": "path workers threads server_args pool_size database_url server_cpus start_timeout cert"
    f" access_log cpu_time subtasks {PAPER}",
    "until": "processes probe find_rate requests",
    "repeats": "probe find_rate try serve list is_paper",
    "probe": f"victim {SENDS_ITS_OWN}",
    "find_rate": f"try victim requests probe fail_if {SENDS_ITS_OWN}",
    "workload": "path method head data body_file requests_from",
    "requests_from": "path method head data body_file",
    "serve": f"try url requests probe find_rate victim fail_if json html trace {SENDS_ITS_OWN}",
    "is_paper": "cert threads try env anyio_threads server_args pool_size database_url server_cpus access_log server"
    " path requests_from probe find_rate serve workload keep_alive json html trace fail_if processes client_cpus",
    "split": "rate ramp one_queue",
    "concurrency": "rate ramp",
    "rate": "ramp",
    "scale": "requests concurrency rate ramp",
    "method": "head",
    "body_file": "data",
    "p50": "p95 p99",
    "p95": "p99",
    "clean_logs": "target app run url list is_paper",
}
WHY = {  # option -> why it stands alone, where that is not plain
    "target": "what a target does is known",
    "url": "that server runs already, and the URL has the path",
    "app": "your app has settings of its own",
    "run": "the command has settings of its own",
    "probe": "it sends bursts of its own",
    "find_rate": "it sends runs of its own",
    "is_paper": "it needs a server: --target, --app, --run or --url",
    "serve": "it sends nothing",
    "scale": "it stretches the workload's own ramp",
    "clean_logs": "it sends nothing",
}


def parse(argv: Sequence[str], manual: str = "") -> argparse.Namespace:
    """The checked options, with the defaults that depend on others filled in. Raises Problem."""
    parser = parser_for(manual)
    words = with_address(join_values(argv), parser)
    check_once(words)
    options = parser.parse_args(words)
    given = {name for name in vars(options) if is_given(options, parser, name)}
    options.is_paper = bool(given & {"slots", "wait", "split"}) and not given & {"target", "app", "run", "url"}
    options.tries = getattr(options, "try")  # a word of Python's
    options.objective = next(((getattr(options, f"p{p}"), p) for p in PERCENTILES if f"p{p}" in given), None)
    check(given | {"is_paper"} if options.is_paper else given)
    if options.is_paper:
        check_paper(options)
    fill_in_own_loads(options)
    fill_in_request(options)
    return options


ONCE = "--app", "--run", "--url", "--workload", "--victim"


def check_once(words: Sequence[str]) -> None:
    """Raises Problem where one of them would go unused."""
    names = [word.partition("=")[0] for word in words]
    if twice := [name for name in ONCE if names.count(name) > 1]:
        raise Problem(
            f"{twice[0]} only once: run each by itself (sweep.py compare takes the --json of two services), or name"
            " several as variants of a .toml (sweep.py)"
        )


def is_given(options: argparse.Namespace, parser: argparse.ArgumentParser, name: str) -> bool:
    value = getattr(options, name)
    return bool(value) and value != parser.get_default(name)


def flag(name: str) -> str:
    return "a prediction on paper" if name == "is_paper" else f"--{name.replace('_', '-')}"


def check(given: set[str]) -> None:
    """Which options go together. Raises Problem."""
    for name, needed in NEEDS.items():
        if name in given and given.isdisjoint(needed.split()):
            raise Problem(f"{flag(name)} goes with {' or '.join(map(flag, needed.split()))}")
    for name, excluded in EXCLUDES.items():
        if name in given and (wrong := [other for other in excluded.split() if other in given]):
            why = f": {WHY[name]}" if name in WHY else ""
            raise Problem(f"{flag(wrong[0])} does not go with {flag(name)}{why}")


def check_paper(options: argparse.Namespace) -> None:
    """What a prediction without a server needs. Raises Problem."""
    options.workers = options.workers or max(1, len(options.split))
    if options.split:
        check_split(options, sum(options.split))
    if options.objective:
        others = (options.slots, options.passes > 1, options.one_queue, options.requests, not options.wait)
        if any(others):
            raise Problem("an objective on paper asks how many slots: with --rate and --wait, and --cpu-time, --cpus,"
                          " --workers")  # fmt: skip
    elif options.cpus or options.cpu_time:
        raise Problem("--cpus and --cpu-time go with an objective on paper: --p99, --p95 or --p50")
    elif not any((options.requests, options.concurrency, options.ramp, options.rate)):
        raise Problem("which load? -n for a burst, -c for users, --ramp for users over time, --rate for a schedule")


def check_split(options: argparse.Namespace, total: int) -> None:
    if len(options.split) != options.workers:
        raise Problem("--split has a number for each of the --workers")
    if not options.concurrency:
        options.requests = options.requests or total
    if total != (options.concurrency or options.requests):
        raise Problem(f"--split shares out {total}, which is not what -c or -n says")


def fill_in_own_loads(options: argparse.Namespace) -> None:
    """What --find-rate, --probe and --workload send of their own."""
    if options.find_rate:
        options.run_s, options.time_limit = min(options.time_limit or SEARCH_S, 60.0), None
    if options.probe:
        fill_in_probe(options)
    if options.until:
        options.time_limit = options.time_limit or UNTIL_S
    options.mix = mix_of(options)
    if options.workload and not options.mix:
        fill_in_workload(options)


def fill_in_probe(options: argparse.Namespace) -> None:
    """What bounds a probe. Raises Problem."""
    if (options.requests or LEAST_PROBE) < LEAST_PROBE:
        raise Problem(f"a probe needs {LEAST_PROBE} requests or more (-n)")
    options.budget = options.requests or PROBE_REQUESTS, options.time_limit or PROBE_S
    options.requests, options.time_limit = PROBE_REQUESTS, None


def fill_in_workload(options: argparse.Namespace) -> None:
    """What one of our own workloads sends, and its ramp where no other load is asked for."""
    kinds, found, _ = WORKLOADS[options.workload]
    options.keep_alive, options.path = True, [PLACEHOLDER.sub("1", kinds[0][2])]
    options.content_type = options.content_type or "application/json"
    if not any((options.requests, options.concurrency, options.rate, options.ramp)):
        options.ramp = tuple((stage_s * options.scale, users) for stage_s, users in found)


def mix_of(options: argparse.Namespace) -> workload.Mix | None:
    """What a file of the user's has to be sent; None: no such file. Raises Problem."""
    if options.requests_from:
        mix = workload.read_log(options.requests_from)
    elif not options.workload or (options.workload in WORKLOADS and options.target):
        return None
    elif options.target:
        raise Problem(f"--workload with --target: one of {', '.join(WORKLOADS)}")
    else:
        mix = workload.read_workload(Path(options.workload))
    if options.scale != 1.0:
        raise Problem("--scale goes with a workload of the Books API: a file has no stages")
    if options.url and not re.fullmatch(r"\w+://[^/]+/?", options.url):
        raise Problem(f"--url without a path: {mix.name} has the paths")
    options.path = [PLACEHOLDER.sub("1", mix.kinds[0].path)] if not options.url else []
    options.method = mix.kinds[0].method
    return mix


def fill_in_request(options: argparse.Namespace) -> None:
    """Headers, body and method as they are sent. Raises Problem."""
    if options.seed is None:
        options.seed = random.randrange(10_000)
    if options.data and not has_content_type(options.header):
        options.content_type = options.content_type or content_type_of(options.data)
    options.header = [*options.header, *own_headers(options)]
    options.body = body_of(options)
    options.method = "HEAD" if options.head else options.method or ("POST" if options.body else "GET")


def body_of(options: argparse.Namespace) -> bytes:
    """Raises Problem."""
    if options.data.startswith("@"):
        raise Problem(f"--data is the text itself; {options.data[1:]} as a file: -p {options.data[1:]}")
    try:
        return options.body_file.read_bytes() if options.body_file else os.fsencode(options.data)
    except OSError as error:
        raise Problem(f"cannot read {options.body_file}: {error.strerror}") from None


def has_content_type(headers: Sequence[str]) -> bool:
    return any(header.lower().startswith("content-type:") for header in headers)


def own_headers(options: argparse.Namespace) -> list[str]:
    """Those that have an option of their own."""
    values = {
        "Content-Type": options.content_type,
        "Cookie": "; ".join(options.cookie),
        "Authorization": options.auth and f"Basic {base64.b64encode(os.fsencode(options.auth)).decode()}",
    }
    return [f"{name}: {value}" for name, value in values.items() if value]


def content_type_of(text: str) -> str:
    """
    >>> content_type_of("a=1&b=2"), content_type_of('{"a": 1}')
    ('application/x-www-form-urlencoded', 'application/json')
    """
    with contextlib.suppress(ValueError):
        if isinstance(json.loads(text), dict | list):
            return "application/json"
    return "application/x-www-form-urlencoded"
