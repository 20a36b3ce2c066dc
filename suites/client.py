"""client - what measuring costs: bench.py's client beside ab, wrk and Locust; and the access log.

The load generators load nginx with one process, or a stub in Python where there is no nginx; those that are not
installed are left out. The access log is measured on apps that do next to nothing.
"""

import functools
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from engine.machine import pin
from engine.server import RunningServer, accepts, free_port, guarded, stop_server
from engine.words import Problem
from suites.common import CAN_PIN, PINNED, RPS, Json, Repeats, Suite, SweepDocument, Variant, table, was_pinned

# ---------------------------------------------------------------- the tools


class Tool(NamedTuple):
    """A load generator: its command line, what it takes to keep connections or not, and its output, a regex each."""

    command: str
    kept: str
    new: str
    rps: str = r"\d+ never printed"
    requests: str = ""
    failed: str = ""


OURS, AB, BENCH = "bench.py", "ab", Path(__file__).resolve().parent.parent / "bench.py"
TOOLS = {
    AB: Tool("ab -q -t {t} -n 1000000 -c {c} {kind} {url}", "-k", "",
             r"Requests per second: +([\d.]+)", r"Complete requests: +(\d+)",
             r"(?:Failed requests|Non-2xx responses): +(\d+)"),
    OURS: Tool("{python} {bench} --url {url} -t {t} -c {c} {kind} --json run.json", "-k", ""),
    "wrk": Tool("wrk -t1 -d {t}s -c {c} {kind} {url}", "", "-H 'Connection: close'",
                r"Requests/sec: +([\d.]+)", r"(\d+) requests in",
                r"(?:Non-2xx or 3xx responses: |connect |read |write |timeout )(\d+)"),
    "locust": Tool("{python} -m locust --headless --only-summary -u {c} -r {c} -t {t}s --host {url} --tags {kind}",
                   "kept", "new",
                   r"Aggregated.*?\|.*?\| +([\d.]+)", r"Aggregated +(\d+)", r"Aggregated +\d+ +(\d+)\("),
}  # fmt: skip
VERSION_FLAGS = {"nginx": "-v", AB: "-V", "wrk": "-v"}
CONNECTIONS = {"kept": "Connections kept", "new": "A new connection for each request"}
CLIENTS = tuple(Variant(f"{tool}, {kind}", "", kind, (50, 500), program=tool) for kind in CONNECTIONS for tool in TOOLS)
HELLO = {"Flask, gunicorn, 4 sync workers": "flask-hello-gunicorn", "FastAPI, uvicorn": "fastapi-hello-uvicorn"}
LOG_OPTIONS = {"no log": "", "access log": "--access-log"}
LOGGED = tuple(
    Variant(f"{name}, {log}", f"--target {target} -c 50 -t {{t}} --warmup 200 {option} {PINNED}", name)
    for name, target in HELLO.items()
    for log, option in LOG_OPTIONS.items()
)


def versions() -> dict[str, str]:
    """Of the programs that are installed; Locust is the one of this very Python."""
    found = {OURS: "of this folder"}
    with suppress(importlib.metadata.PackageNotFoundError):
        found["locust"] = importlib.metadata.version("locust")
    for name, flag in VERSION_FLAGS.items():
        if shutil.which(name):
            _, said = run_child([name, flag], Path())
            found[name] = "".join(re.findall(r"\d+\.\d[\w.]*", said)[:1])
    return found


# ---------------------------------------------------------------- the server that they load

NGINX = """worker_processes 1; pid nginx.pid; error_log stderr; daemon off;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000; default_type application/json;
client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t; uwsgi_temp_path t; scgi_temp_path t;
server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 200 '{{"message":"hello"}}'; }} }} }}
"""
STUB = """
import asyncio
HEAD = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: 19\\r\\n"
class Stub(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data):
        close = b"connection: close" in data.lower() or b"HTTP/1.0" in data and b"eep-" not in data
        kept = b"Connection: close\\r\\n" if close else b"Connection: keep-alive\\r\\n"
        self.transport.write((HEAD + kept + b'\\r\\n{{"message":"hello"}}') * max(1, data.count(b"\\r\\n\\r\\n")))
        if close: self.transport.close()
async def main(): await (await asyncio.get_running_loop().create_server(
    Stub, "127.0.0.1", {port}, backlog=4096)).serve_forever()
asyncio.run(main())
"""
LOCUSTFILE = """
from locust import FastHttpUser, tag, task
class User(FastHttpUser):
    network_timeout = 10
    @tag("kept")
    @task
    def kept(self): self.client.get("")
    @tag("new")
    @task
    def new(self): self.client.get("", headers={"Connection": "close"})
"""


@contextmanager
def stub_in(folder: Path) -> Iterator[str]:
    """nginx with one worker, else a stub in Python, on CPU 0: its URL. Raises Problem."""
    port, output, nginx = free_port(), folder / "server.log", shutil.which("nginx")
    (folder / "nginx.conf").write_text(NGINX.format(port=port))
    (folder / "stub.py").write_text(STUB.format(port=port))
    command = [nginx, "-p", f"{folder}/", "-c", "nginx.conf"] if nginx else [sys.executable, f"{folder}/stub.py"]
    server = RunningServer(guarded(command, output, dict(os.environ)), port, None, output)
    try:
        if CAN_PIN:
            pin(server.guard.pid, {0})
        for _ in range(500):
            if accepts(port) or server.ends_within(0.02):
                break
        if server.ended:
            raise Problem(f"the server did not start: {output.read_text()[-500:]}", 3)
        yield f"http://127.0.0.1:{port}/"
    finally:
        stop_server(server)


# ---------------------------------------------------------------- a run


def run_child(command: list[str], folder: Path) -> tuple[float, str]:
    """Run a program in that folder, on CPU 1: the CPU seconds that it used, and what it printed."""
    begun_s, move = sum(os.times()[2:4]), functools.partial(pin, 0, {1}) if CAN_PIN else None
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, preexec_fn=move)  # fmt: skip
    return sum(os.times()[2:4]) - begun_s, done.stdout


def run_tool(document: SweepDocument, variant: Variant, concurrency: int, folder: Path) -> Json:
    """One load generator against nginx: what it reports, and the CPU time that it used. Raises Problem."""
    tool = TOOLS[variant.program]
    (folder / "locustfile.py").write_text(LOCUSTFILE)
    with stub_in(folder) as url:
        words = shlex.split(tool.command.replace("{kind}", getattr(tool, variant.group)))
        values = {"c": concurrency, "t": document.values["t"], "url": url, "python": sys.executable, "bench": BENCH}
        cpu_s, output = run_child([word.format(**values) for word in words], folder)
    if variant.program == OURS:  # it says itself what it used while it sent
        with suppress(OSError, LookupError):
            return {"measured": json.loads((folder / "run.json").read_text())["runs"][0]["measured"]}
    rps, requests, failed = parse_output(tool, output)
    return {"measured": {"throughput_rps": rps, "sent": requests, "failed": failed, "client_cpu_s": cpu_s}}


def parse_output(tool: Tool, output: str) -> tuple[float, int, int]:
    """What a load generator printed: requests/s, how many requests, how many of them failed. Raises Problem."""
    rps, requests = re.search(tool.rps, output), re.search(tool.requests, output)
    if not rps or not requests or requests[1] == "0":
        raise Problem(f"cannot read the output of `{tool.command}`, which ends with: {output.strip()[-200:]}", 1)
    return float(rps[1]), int(requests[1]), sum(map(int, re.findall(tool.failed, output)))


# ---------------------------------------------------------------- tables


def cpu_us(document: SweepDocument, variant: str, c: int = 0, whose: str = "client_cpu_s") -> Repeats:
    """Microseconds of CPU time per request."""
    cpu_s, requests = (document.figure(variant, f"measured.{name}", c) for name in (whose, "sent"))
    return (cpu_s / requests).in_ms().in_ms()


def tables(document: SweepDocument) -> str:
    server = "nginx" if "nginx" in document.versions else "a stub in Python, which is slower than most clients"
    where = "the server on CPU 0, the client on CPU 1" if was_pinned(document) else "nothing pinned to a CPU"
    parts, figure = [f"Against {server}, one process, 19 bytes of JSON; {where}."], document.figure
    for kind, title in CONNECTIONS.items():
        rows = [
            [
                c,
                tool,
                figure(name, RPS, c),
                1 if tool == AB else document.ratio(name, f"{AB}, {kind}", RPS, c),
                cpu_us(document, name, c),
                sum(figure(name, "measured.failed", c).values()),
            ]
            for c in (50, 500)
            for tool in TOOLS
            if document.runs_of(name := f"{tool}, {kind}", c)
        ]
        parts += [f"{title}:", table("c | client | requests/s | ratio to ab | CPU us a request | failed", rows)]
    parts.append("What the access log costs the smallest apps there are, at c = 50 with a new connection for each"
                 " request. A request that waits or computes loses a smaller share; the hello targets run without"
                 " it.")  # fmt: skip
    return "\n\n".join([*parts, costs_of_log(document)])


def costs_of_log(document: SweepDocument) -> str:
    costs = []
    for app in HELLO:
        names = [f"{app}, {log}" for log in LOG_OPTIONS]
        figures = [(document.figure(one, RPS), cpu_us(document, one, whose="server_cpu_s")) for one in names]
        costs.append([app, *figures[0], *figures[1], document.ratio(names[1], names[0], RPS)])
    return table("server | requests/s, no log | CPU us a request | requests/s, log | CPU us a request | ratio", costs)


def headline(document: SweepDocument) -> list[str]:
    """bench.py's client beside ab, where that is installed: throughput and CPU time per request."""
    text = []
    for kind, title in CONNECTIONS.items():
        ours, ab = (f"{tool}, {kind}" for tool in (OURS, AB))
        ratio = document.ratio(ours, ab, RPS, 50)
        if not ratio:
            continue
        text.append(
            f"{title}, 50 at a time: one bench.py client sends {ratio.typical} times as many requests/s as"
            f" ab{ratio.note}. A request costs it {cpu_us(document, ours, 50).typical} us of CPU, and ab"
            f" {cpu_us(document, ab, 50).typical} us."
        )
    return text


SUITE = Suite(
    "what measuring costs, in load generators and in the access log",
    "100 runs with all programs, about 8 min; --quick 20 runs, 1 min",
    "CPU per request: of the whole process, its start included; of bench.py while it sends, as its JSON says.",
    tables,
    headline,
    variants=CLIENTS + LOGGED,
    full={"t": "3"},
    quick={"t": "1"},
    repeats=5,
    programs=versions,
    run_program=run_tool,
)
