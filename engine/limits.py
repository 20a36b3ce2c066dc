"""Known limits that a Flask, FastAPI or Django service meets without setting them, and which of them fits a number.

A name found here is a guess by its number: report.py says it as one. Each row has its source, as the packages had it
in autumn 2026. Pure.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from enum import Enum
from typing import NamedTuple

from engine.run import Estimate, Seen, Suspect
from engine.targets import SERVERS

ASYNCIO_THREADS = "min(32, cpus + 4)"  # asyncio.to_thread, and run_in_executor(None, ...)
SQLALCHEMY_POOL = "5 + 10"
MOST_SUSPECTS = 3


class Scope(Enum):
    """What has the limit, and so where its setting is."""

    PROCESS = "process"  # each process of the service
    POOL = "pool"  # the same, of connections: the service's own code sets it, often to another number
    SERVER = "server"  # each process; known of a server that was started here
    WHOLE = "whole"  # all processes together


class Known(NamedTuple):
    default: int | str  # how many requests at a time: a number, or one of the two formulas above
    name: str
    setting: str
    source: str  # package file:line
    package: str = ""  # the distribution that must be there; empty: none
    scope: Scope = Scope.PROCESS
    fails_after_s: float | None = None  # a request beyond the limit then fails. 0: at once. None: it waits
    needs: tuple[str, ...] = ()  # a server (a key of SERVERS) or an interface (asgi), and a kind of handler

    def number(self, cpus: int) -> int:
        formulas = {ASYNCIO_THREADS: min(32, cpus + 4), SQLALCHEMY_POOL: 15}
        return self.default if isinstance(self.default, int) else formulas[self.default]

    def suspect(self, number: int, processes: int, set_to: int | None = None) -> Suspect:
        total, default = number * processes, str(self.default)
        return Suspect(self.name, self.setting, default, self.source, total, processes, set_to, self.fails_after_s)


POOL, SERVER, WHOLE = Scope.POOL, Scope.SERVER, Scope.WHOLE
ASYNC, ASGI_DEF, ASGI_ASYNC = ("async",), ("asgi", "def"), ("asgi", "async")
# fmt: off
KNOWN = (  # most likely first
    Known(40, "AnyIO threads", "to_thread limiter's total_tokens", "anyio/_backends/_asyncio.py:3257",
          "anyio", needs=ASGI_DEF),
    Known(SQLALCHEMY_POOL, "SQLAlchemy's pool", "pool_size + max_overflow", "sqlalchemy/pool/impl.py:75",
          "sqlalchemy", POOL, 30),
    Known(ASYNCIO_THREADS, "asyncio.to_thread", "ThreadPoolExecutor(n)", "CPython concurrent/futures/thread.py:142",
          needs=ASGI_ASYNC),
    Known(1, "a blocked event loop", "use `def` or await", "CPython asyncio/base_events.py:1922", needs=ASGI_ASYNC),
    Known(1, "gunicorn's sync worker", "--threads", "gunicorn/config.py:762", "gunicorn", SERVER, needs=("gunicorn",)),
    Known(4, "waitress's threads", "--threads", "waitress/adjustments.py:149", "waitress", SERVER, needs=("waitress",)),
    Known(4, "psycopg's pool (also Django's)", "max_size", "psycopg_pool/pool.py:49", "psycopg-pool", POOL, 30),
    Known(10, "asyncpg's pool", "max_size", "asyncpg/pool.py:1204", "asyncpg", POOL, needs=ASYNC),
    Known(100, "httpx's connections", "Limits(max_connections)", "httpx/_config.py:247", "httpx", POOL, 5),
    Known(100, "aiohttp's connections", "TCPConnector(limit)", "aiohttp/connector.py:287", "aiohttp", POOL, 300, ASYNC),
    Known(1, "asgiref's sync_to_async", "use thread_sensitive=False", "asgiref/sync.py:453",
          "asgiref", needs=ASGI_ASYNC),
    Known(1, "asgiref's WsgiToAsgi", "use a2wsgi", "asgiref/wsgi.py:149", "asgiref", needs=ASGI_DEF),
    Known(10, "a2wsgi's threads", "workers", "a2wsgi/wsgi.py:154", "a2wsgi", needs=ASGI_DEF),
    Known(10, "aiomysql's pool", "maxsize", "aiomysql/pool.py:13", "aiomysql", POOL, needs=ASYNC),
    Known(10, "asyncmy's pool", "maxsize", "aiomysql/pool.py:13", "asyncmy", POOL, needs=ASYNC),
    Known(20, "peewee's pool", "max_connections", "playhouse/pool.py:36", "peewee", POOL, 0),
    Known(100, "pymongo's pool (also motor's)", "maxPoolSize", "pymongo/common.py:99", "pymongo", POOL),
    Known(100, "redis 8's pool", "max_connections", "redis/connection.py:2975", "redis", POOL, 0),
    Known(50, "redis's BlockingConnectionPool", "max_connections", "redis/connection.py:3522", "redis", POOL, 20),
    Known(10, "httpcore's connections", "max_connections", "httpcore/_async/connection_pool.py:52", "httpcore", POOL),
    Known(100, "waitress's connections", "--connection-limit", "waitress/adjustments.py:231",
          "waitress", SERVER, needs=("waitress",)),
    Known(1000, "gunicorn's connections", "--worker-connections", "gunicorn/config.py:843",
          "gunicorn", SERVER, needs=("gunicorn-gevent",)),
    Known(20, "PgBouncer's pool", "default_pool_size", "pgbouncer src/main.c:286", "", WHOLE, 120),
    Known(97, "PostgreSQL (100 connections, 3 reserved)", "max_connections", "postgresql.conf.sample:65", "", WHOLE, 0),
)
# fmt: on


def suspects(
    estimate: Estimate,
    requests: int,
    alone_s: float,
    cpus: int,
    *,
    installed: Collection[str] | None = None,
    server: str = "",
    handler: str = "",
    failed_after_s: Sequence[float] = (),
    settings_allow: float = math.inf,
) -> tuple[Suspect, ...]:
    """The three likeliest limits behind an estimate from `requests` sent at once, tried as S and S / processes.

    alone_s: what a lone request takes. cpus: of the service's machine. installed: the distributions there; None: not
    known. server: a key of SERVERS, or empty. handler: def, async or blocking, or empty. failed_after_s: how long
    after sending each of the others failed; that is a second fingerprint, often sharper than the number.
    settings_allow: slots that the settings give. Where a certain number is no known default, the pools that are
    there may have been set to it.
    """
    after_s = min(failed_after_s, default=math.inf)
    if max(failed_after_s, default=math.inf) < max(0.3, alone_s / 2):
        after_s, served = 0.0, requests - len(failed_after_s)
        seen = Seen.SLOTS if served else Seen.UNKNOWN
        estimate = dataclasses.replace(estimate, seen=seen, slots=served, low=served, high=served)
    if estimate.seen is not Seen.SLOTS:
        return ()
    there = possible(installed, server, handler, after_s == 0)
    ranked = []
    for rank, limit in enumerate(there):
        number = limit.number(cpus)
        if fits := fits_of(limit, number, estimate, cpus, settings_allow):
            odd, processes = min(fits)
            # A limit would have let requests fail after its own time, or never.
            other_time = 0 < after_s < math.inf and abs((limit.fails_after_s or 0) / after_s - 1) > 0.15
            ranked.append((odd + 3 * other_time, rank, limit.suspect(number, processes)))
    found = [one for _, _, one in sorted(ranked)]
    if not found and installed and after_s:
        found = pools_set_to(there, estimate, settings_allow)
    return tuple(found[:MOST_SUSPECTS])


def possible(installed: Collection[str] | None, server: str, handler: str, fails_at_once: bool) -> list[Known]:
    """The limits that such a service can meet, as far as it is known."""
    kinds = {server, SERVERS[server].wrapper} if server else {*SERVERS, "asgi"}
    kinds |= {handler.replace("blocking", "async")} if handler else {"def", "async"}
    there = [
        one for one in KNOWN if kinds.issuperset(one.needs) and (installed is None or one.package in ("", *installed))
    ]
    return [one for one in there if (one.fails_after_s == 0) == fails_at_once]


def pools_set_to(there: Sequence[Known], estimate: Estimate, settings_allow: float) -> list[Suspect]:
    """The pools that would explain a certain number, if they were set to it."""
    best = estimate.slots or 0
    if not estimate.is_certain or not 1 < best < settings_allow:
        return []
    each = estimate.each or best
    return [one.suspect(each, best // each, each) for one in there if one.scope is POOL]


def fits_of(limit: Known, number: int, estimate: Estimate, cpus: int, settings_allow: float) -> list[tuple[float, int]]:
    """(how odd it would be, processes) for each way in which the limit, a number in each process, can be the reason."""
    best, low, high = estimate.slots or estimate.low, estimate.low, estimate.high or estimate.slots or 0
    counts = (estimate.processes,) if estimate.processes else (1, 2, 4, cpus, 2 * cpus + 1)  # the usual ones
    fits = []
    for processes in (1,) if limit.scope is WHOLE else counts:
        total = number * processes
        is_set = limit.scope is SERVER and settings_allow not in (math.inf, total)  # to another number
        if low <= total <= high and not is_set:
            guess = 2 * (processes > 1) if not estimate.processes else 0
            fits.append((5 * abs(total - best) / best + guess, processes))
    return fits
