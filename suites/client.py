"""client - what measuring costs: bench.py's client beside ab, wrk, hey and Locust; and the access log.

The load generators load nginx with one process, or a stub in Python where there is no nginx; those that are not
installed are left out. The access log is measured on apps that do next to nothing.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from engine.machine import pin
from engine.server import RunningServer, accepts, free_port, guarded, stop_server
from engine.words import Problem
from suites.common import RPS, Document, Json, Repeats, Suite, Variant, can_pin, table

# ---------------------------------------------------------------- the tools


class Tool(NamedTuple):
    """A load generator: its command line, what it takes to keep connections or not, and its output, a regex each."""

    command: str
    kept: str
    new: str
    rps: str = ""
    requests: str = ""
    failed: str = ""


OURS, AB = "bench.py", "ab"
TOOLS = {
    AB: Tool("ab -q -t {t} -n 1000000 -c {c} {kind} {url}", "-k", "", r"Requests per second: +([\d.]+)",
             r"Complete requests: +(\d+)", r"(?:Failed requests|Non-2xx responses): +(\d+)"),
    OURS: Tool("{python} {bench} --url {url} -t {t} -c {c} {kind} --json run.json", "-k", ""),
    "wrk": Tool("wrk -t1 -d {t}s -c {c} {kind} {url}", "", "-H 'Connection: close'", r"Requests/sec: +([\d.]+)",
                r"(\d+) requests in", r"(?:Non-2xx or 3xx responses: |connect |read |write |timeout )(\d+)"),
    "hey": Tool("hey -z {t}s -c {c} {kind} {url}", "", "-disable-keepalive", r"Requests/sec:\s+([\d.]+)",
                r"\[200\]\s+(\d+) responses", r"\[[1345]\d\d\]\s+(\d+) responses|\[(\d+)\]\s+Get "),
    "locust": Tool("{python} -m locust --headless --only-summary -u {c} -r {c} -t {t}s --host {url} {kind}",
                   "--tags kept", "--tags new",
                   r"Aggregated.*?\|.*?\| +([\d.]+)", r"Aggregated +(\d+)", r"Aggregated +\d+ +(\d+)\("),
}  # fmt: skip
VERSION_FLAGS = {"nginx": "-v", AB: "-V", "wrk": "-v", "hey": "-h"}
KINDS = {"kept": "Connections kept", "new": "A new connection for each request"}
CLIENTS = tuple(Variant(f"{tool}, {kind}", "", kind, (50, 500), program=tool) for kind in KINDS for tool in TOOLS)
PINNED = "--server-cpus 0 --client-cpus 1" if can_pin() else ""
HELLO = {"Flask, gunicorn, 4 sync workers": "flask-hello-gunicorn", "FastAPI, uvicorn": "fastapi-hello-uvicorn"}
LOGS = {"no log": "", "access log": "--access-log"}
LOGGED = tuple(
    Variant(f"{name}, {log}", f"--target {target} -c 50 -t {{t}} --warmup 200 {option} {PINNED}", name)
    for name, target in HELLO.items()
    for log, option in LOGS.items()
)


def versions() -> dict[str, str]:
    """Of the programs that are installed. Locust is the one of this very Python."""
    found = {OURS: "this one"}
    if importlib.util.find_spec("locust"):
        found["locust"] = importlib.metadata.version("locust")
    for name, flag in VERSION_FLAGS.items():
        if shutil.which(name):
            said = subprocess.run([name, flag], capture_output=True, text=True)
            match = re.search(r"\d+\.\d[\w.]*", said.stdout + said.stderr)
            found[name] = match[0] if match else "?"
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
    def kept(self): self.client.get("/")
    @tag("new")
    @task
    def new(self): self.client.get("/", headers={"Connection": "close"})
"""


def start_stub(folder: Path) -> RunningServer:
    """nginx with one worker, else a stub in Python, on CPU 0. Raises Problem."""
    port, output = free_port(), folder / "server.log"
    (folder / "nginx.conf").write_text(NGINX.format(port=port))
    (folder / "stub.py").write_text(STUB.format(port=port))
    nginx = shutil.which("nginx")
    command = [nginx, "-p", f"{folder}/", "-c", "nginx.conf"] if nginx else [sys.executable, f"{folder}/stub.py"]
    server = RunningServer(guarded(command, output, dict(os.environ)), port, None, output)
    deadline_s = time.monotonic() + 10
    while not accepts(port):
        if server.ended or time.monotonic() > deadline_s:
            stop_server(server)
            raise Problem(f"the server did not start: {output.read_text()[-500:]}", 3)
        time.sleep(0.02)
    if can_pin():
        pin(server.guard.pid, {0})
    return server


# ---------------------------------------------------------------- a run


def run_tool(document: Document, variant: Variant, concurrency: int, folder: Path) -> Json:
    """One load generator against nginx: what it reports, and the CPU time that it used."""
    tool = TOOLS[variant.program]
    (folder / "locustfile.py").write_text(LOCUSTFILE)
    server = start_stub(folder)
    try:
        command = tool.command.format(
            c=concurrency, t=document.values["t"], kind=tool.kept if variant.group == "kept" else tool.new,
            url=f"http://127.0.0.1:{server.port}/", python=shlex.quote(sys.executable),
            bench=shlex.quote(str(Path(__file__).resolve().parent.parent / "bench.py")),
        )  # fmt: skip
        begun_s = time.perf_counter()
        output, cpu_s = run_child(shlex.split(command), folder)
        wall_s = time.perf_counter() - begun_s
    finally:
        stop_server(server)
    if variant.program == OURS:
        return own_run(folder / "run.json", output)
    rps, requests, failed = parse_output(tool, output)
    measured = {"throughput_rps": rps, "sent": requests, "failed": failed, "client_cpu_s": cpu_s, "measured_s": wall_s}
    return {"measured": measured, "pinned": can_pin()}


def own_run(file: Path, output: str) -> Json:
    """bench.py itself says what it used while it sent."""
    try:
        measured = json.loads(file.read_text())["runs"][0]["measured"]
    except (OSError, ValueError, LookupError):
        raise cannot_read(output) from None
    return {"measured": measured, "pinned": can_pin()}


def parse_output(tool: Tool, output: str) -> tuple[float, int, int]:
    """What a load generator printed: requests/s, how many requests, how many of them failed. Raises Problem."""
    rps, requests = re.search(tool.rps, output), re.search(tool.requests, output)
    if not rps or not requests or requests[1] == "0":
        raise cannot_read(output)
    failed = sum(int(count) for found in re.finditer(tool.failed, output) for count in found.groups() if count)
    return float(rps[1]), int(requests[1]), failed


def cannot_read(output: str) -> Problem:
    return Problem(f"cannot read the output of a load generator, which ends with: {output.strip()[-200:]}", 1)


def run_child(command: list[str], folder: Path) -> tuple[str, float]:
    """Run a program in that folder, on CPU 1: what it printed, and the CPU seconds that it used."""
    move = functools.partial(os.sched_setaffinity, 0, {1}) if can_pin() else None
    with (folder / "output").open("w+", errors="replace") as out:
        process = subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=out, stdin=subprocess.DEVNULL, preexec_fn=move
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        return out.read(), usage.ru_utime + usage.ru_stime


# ---------------------------------------------------------------- tables


def cpu_us(document: Document, variant: str, whose: str, c: int = 0) -> Repeats:
    """Microseconds of CPU time per request."""
    cpu_s, requests = (document.figure(variant, f"measured.{name}", c) for name in (whose, "sent"))
    return Repeats({repeat: ratio * 1e6 for repeat, ratio in (cpu_s / requests).items()})


def tool_row(document: Document, tool: str, kind: str, c: int) -> list[object]:
    name, base = f"{tool}, {kind}", f"{AB}, {kind}"
    rps, base_rps = document.figure(name, RPS, c), document.figure(base, RPS, c)
    failed = sum(document.figure(name, "measured.failed", c).values())
    return [c, tool, rps, 1 if tool == AB else rps / base_rps, cpu_us(document, name, "client_cpu_s", c), failed]


def log_row(document: Document, name: str) -> list[object]:
    """Without the access log and with it."""
    without, logged = (document.figure(f"{name}, {log}", RPS) for log in LOGS)
    cpu = [cpu_us(document, f"{name}, {log}", "server_cpu_s") for log in LOGS]
    return [name, without, cpu[0], logged, cpu[1], logged / without]


def tables(document: Document) -> str:
    server = "nginx" if "nginx" in document.versions else "a stub in Python, which is slower than most clients"
    is_pinned = any(entry["run"].get("pinned") for entry in document.runs)
    where = "the server on CPU 0, the client on CPU 1" if is_pinned else "nothing was pinned to a CPU"
    parts = [f"Against {server}, one process, 19 bytes of JSON; {where}."]
    asked = {name for name, _, _ in document.order}
    for kind, title in KINDS.items():
        rows = [tool_row(document, tool, kind, c) for c in (50, 500) for tool in TOOLS if f"{tool}, {kind}" in asked]
        parts.append(f"{title}:")
        parts.append(table(["c", "client", "requests/s", "ratio to ab", "CPU us a request", "failed"], rows))
    parts.append("What the access log costs the smallest apps there are, at c = 50 with a new connection for each"
                 " request. A request that waits or computes loses a smaller share; the hello targets run without"
                 " it.")  # fmt: skip
    header = ["server", "requests/s, no log", "CPU us a request", "requests/s, log", "CPU us a request", "ratio"]
    return "\n\n".join([*parts, table(header, [log_row(document, name) for name in HELLO])])


def headline(document: Document) -> list[str]:
    """bench.py's client beside ab: throughput and CPU time per request."""
    rps, ours, abs_ = [], [], []
    for kind in KINDS:
        a, b = f"{OURS}, {kind}", f"{AB}, {kind}"
        rps.append((document.figure(a, RPS, 50) / document.figure(b, RPS, 50)).typical)
        ours.append(cpu_us(document, a, "client_cpu_s", 50).typical)
        abs_.append(cpu_us(document, b, "client_cpu_s", 50).typical)
    if "-" in rps:
        return []
    return [
        f"One bench.py client sends {rps[0]} times as many requests/s as ab on 50 kept connections, and {rps[1]} times"
        f" as many on new ones. A request costs it {ours[0]} and {ours[1]} us of CPU, ab {abs_[0]} and {abs_[1]} us."
    ]


SUITE = Suite(
    title="what measuring costs, in load generators and in the access log",
    source="CPU per request: of the whole process, its start included; of bench.py while it sends, as its JSON says.",
    variants=CLIENTS + LOGGED,
    full={"t": "3"},
    quick={"t": "1"},
    bodies={"/": {"message": "hello"}},
    tables=tables,
    headline=headline,
    repeats=5,
    programs=versions,
    run_program=run_tool,
)
