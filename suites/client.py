"""client - what measuring costs: bench.py's client beside ab, wrk, hey and Locust; and the access log.

The load generators load nginx with one process, or a stub in Python where there
is no nginx; those that are not installed are left out. The access log that
apps/access_log.py wraps around an app is measured on apps that do next to nothing.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple, cast

import serve
from slots import Problem
from suites import (
    Document,
    Programs,
    Suite,
    ToolRun,
    Variant,
    can_pin,
    compare,
    entries_of,
    figures,
    runs_of,
    spread,
    table,
    typical,
)

# ---------------------------------------------------------------- the tools


class Tool(NamedTuple):
    """A load generator: its command line, what it takes to keep connections or not, and its output, a regex each."""

    command: str
    kept: str
    new: str
    rps: str
    requests: str
    failed: str


TOOLS = {
    "ab": Tool("ab -q -t {t} -n 1000000 -c {c} {kind} {url}", "-k", "", r"Requests per second: +([\d.]+)",
               r"Complete requests: +(\d+)", r"(?:Failed requests|Non-2xx responses): +(\d+)"),
    "bench.py": Tool("{python} {bench} --url {url} -t {t} -c {c} {kind} --json {json}", "-k", "", "", "", ""),
    "wrk": Tool("wrk -t1 -d {t}s -c {c} {kind} {url}", "", "-H 'Connection: close'", r"Requests/sec: +([\d.]+)",
                r"(\d+) requests in", r"(?:Non-2xx or 3xx responses: |connect |read |write |timeout )(\d+)"),
    "hey": Tool("hey -z {t}s -c {c} {kind} {url}", "", "-disable-keepalive", r"Requests/sec:\s+([\d.]+)",
                r"\[200\]\s+(\d+) responses", r"\[[1345]\d\d\]\s+(\d+) responses|\[(\d+)\]\s+Get "),
    "locust": Tool("locust -f {locustfile} --headless --only-summary -u {c} -r {c} -t {t}s --host {host} {kind}",
                   "--tags kept", "--tags new",
                   r"Aggregated.*?\|.*?\| +([\d.]+)", r"Aggregated +(\d+)", r"Aggregated +\d+ +(\d+)\("),
}  # fmt: skip
VERSION_FLAGS = {"nginx": "-v", "ab": "-V", "wrk": "-v", "locust": "-V"}
KINDS = {"kept": "Connections kept", "new": "A new connection for each request"}
CLIENTS = tuple(Variant(f"{name}, {kind}", "", kind, (50, 500), program=name) for kind in KINDS for name in TOOLS)
PINNED = "--server-cpus 0 --client-cpus 1" if can_pin() else ""
HELLO = {"Flask, gunicorn, 4 sync workers": "flask-hello-gunicorn", "FastAPI, uvicorn": "fastapi-hello-uvicorn"}
LOGGED = tuple(
    Variant(f"{name}, {log}", f"--target {target} -c 50 -t {{t}} --warmup 200 {option} {PINNED}", name)
    for name, target in HELLO.items()
    for log, option in (("no log", ""), ("access log", "--access-log"))
)


def is_there(program: str) -> bool:
    return program == "bench.py" or shutil.which(program) is not None


def versions() -> dict[str, str]:
    found = {}
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


def start_stub(directory: Path) -> serve.RunningServer:
    """nginx with one worker, else a stub in Python."""
    port = serve.free_port()
    (directory / "nginx.conf").write_text(NGINX.format(port=port))
    (directory / "stub.py").write_text(STUB.format(port=port))
    nginx = shutil.which("nginx")
    command = [nginx, "-p", f"{directory}/", "-c", "nginx.conf"] if nginx else [sys.executable, f"{directory}/stub.py"]
    return started(command, port, directory / "server.log", {0} if can_pin() else set())


def started(command: list[str], port: int, output: Path, cpus: set[int]) -> serve.RunningServer:
    """Any server, under serve.py's guard: it dies with this process."""
    server = serve.RunningServer(serve.guarded(command, output, dict(os.environ)), port, output, None)
    try:
        if cpus:
            serve.pin(server.guard.pid, cpus)
        deadline = time.monotonic() + 10
        while not serve.accepts(port):
            if server.ended or time.monotonic() > deadline:
                raise Problem(f"the server did not start: {output.read_text()[-500:]}", 3)
            time.sleep(0.02)
    except BaseException:
        serve.stop_server(server)
        raise
    return server


# ---------------------------------------------------------------- a run


def run_tool(document: Document, variant: Variant, concurrency: int, logs: Path) -> ToolRun:
    """One load generator against nginx: what it reports, and the CPU time that it used."""
    tool = TOOLS[variant.program]
    logs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=logs) as name:
        directory = Path(name)
        (directory / "locustfile.py").write_text(LOCUSTFILE)
        server = start_stub(directory)
        host = f"http://127.0.0.1:{server.port}"
        try:
            command = tool.command.format(
                c=concurrency, t=document["values"]["t"],
                kind=tool.kept if variant.group == "kept" else tool.new,
                url=f"{host}/", host=host, python=shlex.quote(sys.executable),
                bench=shlex.quote(str(serve.HERE / "bench.py")), json=shlex.quote(str(directory / "run.json")),
                locustfile=shlex.quote(str(directory / "locustfile.py")),
            )  # fmt: skip
            begun_s = time.perf_counter()
            output, cpu_s = run_child(shlex.split(command), directory / "out")
            wall_s = time.perf_counter() - begun_s
        finally:
            serve.stop_server(server)
        if variant.program == "bench.py":
            return own_run(directory / "run.json", output, command)
    rps, requests, failed = parse_tool(tool, output, command)
    return {"throughput_rps": rps, "requests": requests, "failed": failed, "client_cpu_s": cpu_s, "measured_s": wall_s,
            "pinned": can_pin()}  # fmt: skip


def own_run(file: Path, output: str, command: str) -> ToolRun:
    """bench.py says itself what it used while it sent."""
    try:
        run = json.loads(file.read_text())["runs"][0]
    except (OSError, ValueError, IndexError):
        raise cannot_read(output, command) from None
    return {"throughput_rps": run["throughput_rps"], "requests": run["sent"], "failed": run["failed"],
            "client_cpu_s": run["client_cpu_s"], "measured_s": run["measured_s"], "pinned": can_pin()}  # fmt: skip


def parse_tool(tool: Tool, output: str, command: str = "") -> tuple[float, int, int]:
    """What a load generator printed: requests/s, how many requests, how many of them failed."""
    rps, requests = re.search(tool.rps, output), re.search(tool.requests, output)
    if not rps or not requests or requests[1] == "0":
        raise cannot_read(output, command)
    failed = sum(int(count) for found in re.finditer(tool.failed, output) for count in found.groups() if count)
    return float(rps[1]), int(requests[1]), failed


def cannot_read(output: str, command: str) -> Problem:
    last = (output.strip().splitlines() or ["nothing"])[-1]
    return Problem(f"cannot read the output of `{command}`; it ends with: {last[:200]}", 1)


def run_child(command: list[str], output: Path) -> tuple[str, float]:
    """Run a program on CPU 1; what it printed, and the CPU seconds that it used."""
    pin = functools.partial(os.sched_setaffinity, 0, {1}) if can_pin() else None
    with output.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL, preexec_fn=pin)
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    return output.read_text(errors="replace"), usage.ru_utime + usage.ru_stime


# ---------------------------------------------------------------- tables


def tool_runs(document: Document, variant: str, concurrency: int) -> list[ToolRun]:
    return [cast(ToolRun, entry["run"]) for entry in entries_of(document, variant, concurrency)]


def variant_of(program: str, kind: str) -> Variant:
    return next(variant for variant in CLIENTS if (variant.program, variant.group) == (program, kind))


def tool_row(document: Document, variant: Variant, c: int) -> list[str]:
    runs, ab = tool_runs(document, variant.name, c), f"ab, {variant.group}"
    rps, ab_rps = (figures(document, name, "throughput_rps", c) for name in (variant.name, ab))
    return [
        str(c),
        variant.program,
        spread(list(rps.values())),
        "1" if variant.name == ab else compare(rps, ab_rps),
        spread([run["client_cpu_s"] / (run["requests"] or 1) * 1e6 for run in runs]),
        str(sum(run["failed"] for run in runs)),
    ]


def log_row(document: Document, name: str) -> list[str]:
    """With the access log and without it."""
    cells, rps = [], []
    for variant in (f"{name}, no log", f"{name}, access log"):
        rps.append(figures(document, variant, "throughput_rps"))
        runs = runs_of(document, variant).values()
        cpu_us = [(run["server_cpu_s"] or 0.0) / (run["answered"] or 1) * 1e6 for run in runs]
        cells += [spread(list(rps[-1].values())), spread(cpu_us)]
    return [name, *cells, compare(rps[1], rps[0])]


def log_tables(document: Document) -> list[str]:
    return [
        "What the access log costs the smallest apps there are, at c = 50 with a new connection for each request. A"
        " request that waits or computes loses a smaller share; the hello targets run without it.",
        table(["server", "requests/s, no log", "CPU us a request", "requests/s, log", "CPU us a request", "ratio"],
              [log_row(document, name) for name in HELLO]),
    ]  # fmt: skip


def tables(document: Document) -> str:
    asked = {name for name, _, _ in document["order"]}
    server = "nginx" if "nginx" in document["versions"] else "a stub in Python, which is slower than most clients"
    pinned = any(cast(ToolRun, entry["run"]).get("pinned") for entry in document["runs"])
    where = "the server on CPU 0, the client on CPU 1" if pinned else "nothing was pinned to a CPU"
    parts = [f"Against {server}, one process, 19 bytes of JSON; {where}."]
    for kind, title in KINDS.items():
        variants = [variant for variant in CLIENTS if variant.group == kind and variant.name in asked]
        rows = [tool_row(document, variant, c) for variant in variants for c in variant.concurrency]
        rows.sort(key=lambda row: int(row[0]))
        parts += [f"{title}:", table(["c", "client", "requests/s", "ratio to ab", "CPU us a request", "failed"],
                                     rows, 2)]  # fmt: skip
    parts += log_tables(document) if asked & {variant.name for variant in LOGGED} else []
    return "\n\n".join(parts)


def headline(document: Document) -> list[str]:
    """bench.py's client beside ab: throughput and CPU time a request."""
    found = {kind: tool_row(document, variant_of("bench.py", kind), 50) for kind in KINDS}
    ab = {kind: tool_row(document, variant_of("ab", kind), 50) for kind in KINDS}
    if any(row[2] == "-" for row in (*found.values(), *ab.values())):
        return []
    ratio, cpu_us, ab_us = (
        {kind: typical(row[place]) for kind, row in rows.items()} for rows, place in ((found, 3), (found, 4), (ab, 4))
    )
    return [
        f"One bench.py client sends {ratio['kept']} of ab's requests/s on 50 kept connections and {ratio['new']} on new"
        f" ones: a request costs it {cpu_us['kept']} and {cpu_us['new']} us of CPU, ab {ab_us['kept']} and"
        f" {ab_us['new']} us."
    ]


SUITE = Suite(
    title="what measuring costs, in load generators and in the access log",
    source="CPU a request: of the whole process, its start included; of bench.py while it sends, as its own JSON says.",
    variants=CLIENTS + LOGGED,
    full={"t": "3"},
    quick={"t": "1"},
    bodies={"/": {"message": "hello"}},
    tables=tables,
    headline=headline,
    repeats=5,
    programs=Programs(is_there, run_tool, versions),
)
