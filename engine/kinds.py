"""Kinds of requests in a mix: the records of it."""

from __future__ import annotations

from dataclasses import dataclass

from engine.stats import Statistics


@dataclass(frozen=True)
class Kind:
    """One kind of request in a mix, with placeholders: workload.py says which."""

    weight: float
    method: str
    path: str
    body: str = ""
    name: str = ""
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Login:
    """The request that is sent once, before all others."""

    method: str
    path: str
    body: str = ""
    headers: tuple[str, ...] = ()
    token: str = ""  # a field of its JSON answer; empty: cookies only


@dataclass(frozen=True)
class Session:
    """What the answer to a login gave. No document has it."""

    token: str
    cookie: str


@dataclass(frozen=True)
class KindMeasured:
    """The requests of one kind in a mix."""

    name: str
    sent: int
    answered: int
    failed: int
    latency_s: Statistics | None
