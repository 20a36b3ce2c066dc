"""https: counts, phases, what is wrong with a certificate, servers that break TLS, servers of ours that speak it."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator

import pytest
from commands import run_bench
from servers import write_files
from stubs import GET, HEAD, OK, answer, keep_answering, said, stall, stub

import bench
from engine import client
from engine.client import Client
from engine.loads import Burst, Closed, Part
from engine.tls import Tls

NAMES = {"good": "DNS:localhost,IP:127.0.0.1", "other": "DNS:example.test", "expired": "DNS:localhost,IP:127.0.0.1"}
LARGE = 3_000_000


def openssl(folder, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A folder with NAME.pem and NAME.key; all are self-signed."""
    if not shutil.which("openssl"):
        pytest.skip("the command openssl, which makes the certificates, is not there")
    folder = tmp_path_factory.mktemp("certificates")
    for name, alternatives in NAMES.items():
        (folder / "names").write_text(f"subjectAltName={alternatives}\n")
        openssl(folder, "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
                "-subj", "/CN=test")  # fmt: skip
        days = "-1" if name == "expired" else "30"
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-signkey", f"{name}.key", "-days", days, "-extfile",
                "names", "-out", f"{name}.pem")  # fmt: skip
    return folder


def over_tls(behaviour, folder, name="good"):
    """The behaviour of a stub, behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")

    def behave(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as secure:
            behaviour(secure)

    return behave


@contextlib.contextmanager
def secure_stub(behaviour, folder, name="good") -> Iterator[str]:
    """The URL of a stub that speaks https."""
    with stub(over_tls(behaviour, folder, name)) as (_, port, *_):
        yield f"https://127.0.0.1:{port}/"


def send(load, folder, *behaviours, message=GET, **changes) -> Client:
    how = {"timeout_s": 5.0, "is_head": False, "keep_alive": False, "first_byte": False, "progress": lambda *_: None}
    with stub(*behaviours) as address:
        tls = Tls(str(folder / "good.pem"))
        sender = Client(address, itertools.repeat(message), Part(load), **how | changes, tls=tls, host="127.0.0.1")
        sender.run()
    return sender


# ---------------------------------------------------------------- the client


@pytest.fixture(params=["epoll", "selectors"])
def poller(request, monkeypatch):
    if request.param == "selectors":
        monkeypatch.setattr(client, "POLLER", client.Selector)
        monkeypatch.setattr(client, "WRITE", client.selectors.EVENT_WRITE)


@pytest.mark.parametrize("keep_alive", [True, False])
def test_counts_are_exact(poller, certificates, keep_alive):
    sent = send(
        Closed(203, concurrency=10), certificates, over_tls(keep_answering, certificates), keep_alive=keep_alive
    )
    assert said(sent.exchanges) == [200] * 203
    assert sent.sockets_opened == (10 if keep_alive else 203) and not sent.failures
    rows = sent.exchanges
    assert sum(at_s > 0 for at_s in rows.connected_s) == sent.sockets_opened
    for began_s, connected_s, sent_s, answered_s in zip(
        rows.started_s, rows.connected_s, rows.sent_s, rows.answered_s, strict=True
    ):
        assert began_s <= (connected_s or sent_s) <= sent_s <= answered_s


def test_large_bodies_go_both_ways(certificates):
    received = []

    def behave(sock: ssl.SSLSocket) -> None:
        got = 0
        while got < LARGE:
            got += len(sock.recv(65536))
        received.append(got)
        sock.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % LARGE + b"x" * LARGE)

    message = GET + b"y" * (LARGE - len(GET))
    sent = send(Burst(3), certificates, over_tls(behave, certificates), message=message, timeout_s=20.0)
    assert said(sent.exchanges) == [200] * 3 and list(sent.exchanges.body_bytes) == [LARGE] * 3
    assert received == [LARGE] * 3


def says_goodbye(sock: ssl.SSLSocket) -> None:
    """Ends its answer as asyncio's servers do: it waits for the client's goodbye before it closes."""
    sock.recv(65536)
    sock.sendall(HEAD + b"\r\nuntil the end")
    sock.settimeout(5)
    sock.unwrap()


@pytest.mark.parametrize(
    ("behaviour", "is_secure", "outcome"),
    [
        (says_goodbye, True, 200),
        (answer(HEAD + b"\r\nuntil close"), True, 200),
        (answer(OK[:-1]), True, "truncated"),
        (answer(b"HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"), True, 301),
        (answer(b"no HTTP\r\n\r\n"), True, "malformed"),
        (stall, True, "timed out"),
        (answer(b"HTTP/1.1 400 this is plain http\r\n\r\n"), False, "TLS failed"),
        (answer(b""), False, "reset"),
        (stall, False, "timed out"),
    ],
)
def test_each_answer_and_each_failure_has_its_name(poller, certificates, behaviour, is_secure, outcome):
    behave = over_tls(behaviour, certificates) if is_secure else behaviour
    timeout_s = 1.0 if outcome == "timed out" else 10.0
    assert said(send(Burst(2), certificates, behave, timeout_s=timeout_s).exchanges) == [outcome] * 2


@pytest.mark.parametrize("piece", [1, 7, 1000, LARGE])
def test_records_may_come_in_any_pieces(poller, certificates, piece):
    """An answer of three records and a goodbye, with its bytes cut anywhere."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "good.pem", certificates / "good.key")

    def behave(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secure = context.wrap_bio(incoming, outgoing, server_side=True)

        def until_done(step):
            while True:
                with contextlib.suppress(ssl.SSLWantReadError):
                    return step()
                put()
                incoming.write(sock.recv(65536))

        def put():
            data = outgoing.read()
            for i in range(0, len(data), piece):
                sock.sendall(data[i : i + piece])

        until_done(secure.do_handshake)
        until_done(lambda: secure.read(65536))
        for part in (HEAD + b"Content-Length: 600\r\n\r\n", b"x" * 300, b"x" * 300):
            secure.write(part)
        with contextlib.suppress(ssl.SSLWantReadError):
            secure.unwrap()
        put()
        sock.recv(65536)  # the client's goodbye, or its end

    sent = send(Burst(3), certificates, behave)
    assert said(sent.exchanges) == [200] * 3 and list(sent.exchanges.body_bytes) == [600] * 3


# ---------------------------------------------------------------- certificates


@pytest.mark.parametrize(
    ("name", "is_trusted", "told"),
    [("good", False, "self-signed"), ("other", True, "not for"), ("expired", True, "expired")],
)
def test_a_bad_certificate_is_one_line_before_the_run(certificates, capsys, tmp_path, name, is_trusted, told):
    with secure_stub(keep_answering, certificates, name) as url:
        trusted = ["--cacert", str(certificates / f"{name}.pem")] * is_trusted
        assert bench.main(["--url", url, "-n", "3", "--logs", str(tmp_path), *trusted]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and told in err and "--insecure" in err


def test_so_is_that_of_a_server_of_ours(certificates, capsys, tmp_path):
    own = ["--cert", str(certificates / "expired.pem"), "--key", str(certificates / "expired.key")]
    how = ["--target", "fastapi-uvicorn", "--path", "/async-io", "-n", "3", "--task-time", "50ms"]
    assert bench.main([*how, *own, "--logs", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "expired" in err


@pytest.mark.parametrize("name", NAMES)
def test_insecure_goes_on_and_says_so(certificates, capsys, tmp_path, name):
    with secure_stub(keep_answering, certificates, name) as url:
        code, document = run_bench(tmp_path, "--url", url, "-n", "3", "--insecure")
    assert code == 0 and document["runs"][0]["measured"]["answered"] == 3
    assert "not checked" in " ".join(capsys.readouterr().out.split())
    assert document["runs"][0]["plan"]["tls"]["is_checked"] is False


def test_plain_http_behind_an_https_url_is_said(capsys, tmp_path):
    with stub(answer(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as (_, port, *_):
        assert bench.main(["--url", f"https://127.0.0.1:{port}/", "-n", "3", "--logs", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "TLS" in err


# ---------------------------------------------------------------- a run


@pytest.mark.parametrize("more", [["-c", "4", "-k"], ["--processes", "2"]])
def test_the_handshake_is_a_phase_of_its_own(certificates, tmp_path, more):
    with secure_stub(keep_answering, certificates) as url:
        trusted = ["--cacert", str(certificates / "good.pem")]
        code, document = run_bench(tmp_path, "--url", url, "-n", "40", *trusted, *more)
    measured = document["runs"][0]["measured"]
    phases = {name: phase["mean"] for name, phase in measured["phases_s"].items()}
    assert (code, measured["answered"], measured["failed"]) == (0, 40, 0)
    assert phases["tls"] > 0
    parts = sum(phases[name] for name in ("connect", "tls", "waiting", "receiving"))
    assert parts == pytest.approx(phases["total"], rel=0.01)


def test_plain_http_has_no_such_phase(tmp_path):
    with stub(keep_answering) as (_, port, *_):
        _, document = run_bench(tmp_path, "--url", f"http://127.0.0.1:{port}/", "-n", "3")
    run = document["runs"][0]
    assert run["measured"]["phases_s"]["tls"] is None and run["plan"]["tls"] is None


@pytest.mark.parametrize("target", ["flask-gunicorn", "flask-gunicorn-threads", "fastapi-uvicorn", "fastapi-gunicorn"])
def test_servers_of_ours_serve_with_a_certificate(certificates, tmp_path, target):
    files = ["--cert", str(certificates / "other.pem"), "--key", str(certificates / "other.key")]
    code, document = run_bench(tmp_path, "--target", target, "--path", "/io", "-n", "8", "--task-time", "50ms", *files)
    run = document["runs"][0]
    assert (code, run["measured"]["answered"], run["inside"]["log_lines"]) == (0, 8, 8)
    assert run["measured"]["phases_s"]["tls"]["mean"] > 0


@pytest.mark.parametrize(
    ("target", "certificate", "key"),
    [("flask-dev", "good.pem", "good.key"), ("flask-gunicorn", "good.pem", "other.key"),
     ("flask-gunicorn", "nope.pem", "good.key"), ("fastapi-uvicorn", "good.key", "good.pem")],
)  # fmt: skip
def test_files_that_a_server_cannot_use_are_one_line(certificates, capsys, target, certificate, key):
    files = ["--cert", str(certificates / certificate), "--key", str(certificates / key)]
    assert bench.main(["--target", target, "-n", "3", *files]) == 2
    assert capsys.readouterr().err.count("\n") == 1


SERVICE = """
from fastapi import FastAPI, Header, HTTPException

app = FastAPI()

@app.post("/login")
async def login():
    return {"token": "abc"}

@app.get("/me")
async def me(authorization: str = Header("")):
    if authorization != "Bearer abc":
        raise HTTPException(401)
"""
WORKLOAD = """
[login]
path = "/login"
token = "token"

[[kinds]]
path = "/me"
headers = ["Authorization: Bearer {token}"]
"""


@pytest.fixture
def service(certificates, tmp_path, monkeypatch):
    """The options of an app that is served with a certificate."""
    write_files(tmp_path, {"main.py": SERVICE, "load.toml": WORKLOAD})
    monkeypatch.chdir(tmp_path)
    return ["--app", "main:app", "--cert", str(certificates / "good.pem"), "--key", str(certificates / "good.key")]


def test_a_login_and_its_token_go_over_tls(service, tmp_path):
    code, document = run_bench(tmp_path, *service, "--workload", "load.toml", "-c", "3", "-n", "30", "-k")
    assert code == 0 and document["runs"][0]["measured"]["answered"] == 30


def test_a_refused_request_is_shown_as_with_http(service, capsys, tmp_path):
    assert bench.main([*service, "--path", "/nope", "-n", "3", "--logs", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "404" in err and "/me" in err
