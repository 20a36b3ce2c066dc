"""What the one flag of suite why costs: --worker-connections equal to --threads ends keep-alive.

Measured with clients that keep their connections, and behind an nginx that keeps
its own: there gunicorn itself writes the port at the other end of each request's
connection into its access log, and as many ports are as many connections.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
import shutil
import tempfile
from datetime import datetime
from pathlib import Path

import bench
import load
import serve
from suites import Document, ToolRun, Variant, entries_of, look_up, spread, table
from suites.client import started, versions
from suites.queues import FOUR, FOUR_AS_ONE, LOAD, OF_NAME, p99_ms

KEPT = tuple(Variant(f"{name}, kept", f"{LOAD} -k {OF_NAME[name].arguments}", "kept") for name in (FOUR, FOUR_AS_ONE))
BEHIND = tuple(
    Variant(f"{name}, behind nginx", f"{LOAD} -k {OF_NAME[name].arguments}", "behind", program="nginx")
    for name in (FOUR, FOUR_AS_ONE)
)
VARIANTS = (*KEPT, *BEHIND)

NGINX = """worker_processes 1; pid nginx.pid; error_log stderr; daemon off;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000;
client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t; uwsgi_temp_path t; scgi_temp_path t;
upstream app {{ server 127.0.0.1:{app_port}; keepalive 64; keepalive_requests 1000000000; }}
server {{ listen 127.0.0.1:{port} backlog=4096;
location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }} }} }}
"""

# ---------------------------------------------------------------- a run


class ProxyRun(ToolRun):
    """A run through the proxy."""

    latency_s: load.Statistics | None
    connections: int  # that the proxy opened to gunicorn


def is_there(program: str) -> bool:
    return shutil.which(program) is not None


def versions_of_nginx() -> dict[str, str]:
    return {name: version for name, version in versions().items() if name == "nginx"}


def run(document: Document, variant: Variant, concurrency: int, logs: Path) -> ProxyRun:
    """The variant's server behind nginx, and its load from there on."""
    options = bench.parse_arguments(shlex.split(variant.arguments.format(c=concurrency, **document["values"])))
    plan = bench.make_plans(options)[0]
    assert plan.launch
    logs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=logs) as name:
        directory = Path(name).absolute()
        ports, when = directory / "ports", datetime.now()
        told = ("--access-logfile", str(ports), "--access-logformat", "%({REMOTE_PORT}e)s")
        launch = dataclasses.replace(plan.launch, server_args=(*plan.launch.server_args, *told), wrap=False)
        app = serve.start_server(launch, *serve.new_log_files(directory, variant.name, when), set())
        try:
            port = serve.free_port()
            (directory / "nginx.conf").write_text(NGINX.format(port=port, app_port=app.port))
            nginx = started(["nginx", "-p", f"{directory}/", "-c", "nginx.conf"], port, directory / "nginx.log", set())
            try:
                traffic = dataclasses.replace(plan.traffic, port=port)
                found = load.summarise(traffic, load.measure(traffic, ("127.0.0.1", port)))
            finally:
                serve.stop_server(nginx)
        finally:
            serve.stop_server(app)
        opened = set(ports.read_text().split()[found["warmed_up"] :])
    return {
        "throughput_rps": found["throughput_rps"], "requests": found["sent"], "failed": found["failed"],
        "client_cpu_s": found["client_cpu_s"], "measured_s": found["measured_s"], "pinned": False,
        "latency_s": found["latency_s"], "connections": len(opened),
    }  # fmt: skip


# ---------------------------------------------------------------- table


def price_row(document: Document, variant: Variant) -> list[str]:
    """Connections that somebody had to open, in all and for each request."""
    entries = entries_of(document, variant.name)
    if variant.program and variant.name not in {name for name, _, _ in document["order"]}:
        return [variant.name, f"{variant.program} not installed", "", ""]
    opened = [look_up(entry["run"], "connections" if variant.program else "sockets_opened") or 0 for entry in entries]
    sent = [look_up(entry["run"], "requests") or math.nan for entry in entries]
    each = [count / of_all for count, of_all in zip(opened, sent, strict=True)]
    return [variant.name, spread(opened), spread(each), p99_ms(document, variant.name)]


def tables(document: Document) -> str:
    if KEPT[0].name not in {name for name, _, _ in document["order"]}:
        return ""  # an older file
    return "\n\n".join([
        "What that flag costs: gunicorn keeps at most worker_connections - threads idle connections, so then none."
        " First clients that keep theirs, then an nginx that keeps its own to gunicorn:",
        table(["gunicorn, connections kept", "opened", "for each request", "p99 ms"],
              [price_row(document, variant) for variant in VARIANTS]),
    ])  # fmt: skip
