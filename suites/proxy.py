"""proxy - gunicorn behind an nginx that keeps its connections: how many does it have to open?

gunicorn itself writes the port at the other end of each request's connection into
its access log: as many ports, as many connections.
"""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import tempfile
from datetime import datetime
from pathlib import Path

import bench
import load
import serve
from suites import Document, ToolRun, Variant
from suites.client import started, versions

NGINX = """worker_processes 1; pid nginx.pid; error_log stderr; daemon off;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000;
client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t; uwsgi_temp_path t; scgi_temp_path t;
upstream app {{ server 127.0.0.1:{app_port}; keepalive 64; keepalive_requests 1000000000; }}
server {{ listen 127.0.0.1:{port} backlog=4096;
location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }} }} }}
"""


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
