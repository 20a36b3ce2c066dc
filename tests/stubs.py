"""Scripted servers: each connection is treated as its behaviour says, on a free port of this machine."""

from __future__ import annotations

import contextlib
import functools
import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from engine.client import ERRORS, Exchanges

HEAD = b"HTTP/1.1 200 OK\r\n"
OK = HEAD + b"Content-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"

Behaviour = Callable[[socket.socket], object]


def answer(data: bytes) -> Behaviour:
    """Reads one request, answers these bytes, and closes."""

    def behave(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(data)

    return behave


def keep_answering(sock: socket.socket, wait_s: float = 0.0) -> None:
    while sock.recv(65536):
        time.sleep(wait_s)
        sock.sendall(OK)


slowly_answering = functools.partial(keep_answering, wait_s=0.02)


def reset(sock: socket.socket) -> None:
    sock.recv(65536)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def stall(sock: socket.socket) -> None:
    sock.recv(65536)
    time.sleep(3.0)


def in_turn(*answers: tuple[bytes, bool]) -> Behaviour:
    """Answers request i of the run with answers[i], piece by piece at each '|', then maybe closes."""
    turns = iter(answers)

    def behave(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while sock.recv(65536):
            data, closes = next(turns, (b"", True))
            for i, piece in enumerate(data.split(b"|")):
                time.sleep(0.01 * bool(i))
                sock.sendall(piece)
            if closes:
                return

    return behave


@contextlib.contextmanager
def stub(*behaviours: Behaviour, host: str = "127.0.0.1") -> Iterator[tuple[Any, ...]]:
    """The address of a server that treats connection i with behaviour i (then from the start again)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET

    def serve(sock: socket.socket, behave: Behaviour) -> None:
        with contextlib.suppress(OSError), sock:
            behave(sock)

    def accept() -> None:
        for behave in itertools.cycle(behaviours):
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(sock, behave), daemon=True).start()

    with socket.create_server((host, 0), family=family, backlog=4096) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def said(exchanges: Exchanges) -> list[str | int]:
    """The status of each request, or the name of its failure."""
    return [ERRORS[code] or status for status, code in zip(exchanges.status, exchanges.error, strict=True)]
