"""Known limits that a Flask, FastAPI or Django service meets without setting them, and which of them fits a number.

A name found here is a guess by its number: report_verdict.py says it as one. Each row has its source, as the packages
had it in autumn 2026. Pure.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

from engine.listeners import all_run_apps
from engine.run import Estimate, Facts, Plan, Suspect

MOST_SUSPECTS = 3
SERVERS_OF_LIMITS = {"gunicorn", "waitress"}


class Known(NamedTuple):
    """A limit that a package, a server or Python has by default."""

    name: str
    setting: str
    default: str  # so many requests at a time; the only one that is no number is asyncio's
    source: str  # package file:line
    package: str = ""  # the distribution that must be there; empty: none
    # What has the limit: each process; a pool of each process, which the service's own code often sets to another
    # number; all processes together.
    of: Literal["process", "pool", "all"] = "process"
    fails_after_s: float | None = None  # a request beyond the limit then fails; None: it waits
    needs: tuple[str, ...] = ()  # a server (a key of SERVERS) or an interface (asgi), and a kind of handler

    def suspect(self, each: int, processes: int, set_to: int | None = None) -> Suspect:
        """The limit as a guess, if it is `each` in so many processes."""
        return Suspect(*self[:4], each * processes, processes, set_to, self.fails_after_s)


ASYNC, ASGI_DEF, ASGI_ASYNC = ("async",), ("asgi", "def"), ("asgi", "async")
# fmt: off
KNOWN = (  # most likely first
    Known("AnyIO threads", "to_thread limiter's total_tokens", "40", "anyio/_backends/_asyncio.py:3257",
          "anyio", needs=ASGI_DEF),
    Known("SQLAlchemy's pool", "pool_size (5) + max_overflow (10)", "15", "sqlalchemy/pool/impl.py:75",
          "sqlalchemy", "pool", 30),
    Known("asyncio.to_thread", "ThreadPoolExecutor(n)", "min(32, CPUs + 4)", "CPython concurrent/futures/thread.py:142",
          needs=ASGI_ASYNC),
    Known("a blocked event loop", "use `def` or await", "1", "CPython asyncio/base_events.py:1922", needs=ASGI_ASYNC),
    Known("gunicorn's sync worker", "--threads", "1", "gunicorn/config.py:762", "gunicorn", needs=("gunicorn",)),
    Known("waitress's threads", "--threads", "4", "waitress/adjustments.py:149", "waitress", needs=("waitress",)),
    Known("psycopg's pool (also Django's)", "max_size", "4", "psycopg_pool/pool.py:49", "psycopg-pool", "pool", 30),
    Known("asyncpg's pool", "max_size", "10", "asyncpg/pool.py:1204", "asyncpg", "pool", needs=ASYNC),
    Known("httpx's connections", "Limits(max_connections)", "100", "httpx/_config.py:247", "httpx", "pool", 5),
    Known("aiohttp's connections", "TCPConnector(limit)", "100", "aiohttp/connector.py:287", "aiohttp", "pool", 300,
          ASYNC),
    Known("asgiref's sync_to_async", "use thread_sensitive=False", "1", "asgiref/sync.py:453", "asgiref",
          needs=ASGI_ASYNC),
    Known("redis's BlockingConnectionPool", "max_connections", "50", "redis/connection.py:3522", "redis", "pool", 20),
    Known("PgBouncer's pool", "default_pool_size", "20", "pgbouncer src/main.c:286", "", "all", 120),
)
# fmt: on


def suspects(
    found: Estimate, facts: Facts, installed: Collection[str] = (), failed_after_s: Sequence[float] = ()
) -> tuple[Suspect, ...]:
    """The three likeliest limits behind an estimate.

    installed: the distributions of the service, if it was started here. failed_after_s: how long after sending each
    request failed, if one did; that is a second fingerprint, often sharper than the number. Where a certain number is
    no known default, the pools that are there may have been set to it.
    """
    plan, slots, after_s = facts.plan, found.slots, min(failed_after_s, default=math.inf)
    if not slots or found.doubt == "rounds-and-throughput-disagree":
        return ()

    def oddness(one: Suspect) -> tuple[bool, bool, int]:
        """A limit fails requests after its own time, or never; and a single process is likelier than several."""
        other_time = abs((one.fails_after_s or 0.0) - after_s) > 0.15 * after_s
        return other_time, one.processes > (found.processes or 1), abs(one.slots - slots)

    there = possible(plan, installed)
    likely = sorted(itertools.chain(*(guesses(one, found, plan.all_cpus) for one in there)), key=oddness)
    if found.is_certain and not likely and installed and slots not in (1, plan.slots):
        each = found.each or slots
        likely = [one.suspect(each, slots // each, each) for one in there if one.of == "pool"]
    return tuple(likely[:MOST_SUSPECTS])


def possible(plan: Plan, installed: Collection[str]) -> Sequence[Known]:
    """The limits that such a service can meet, as far as it is known. A server's own may be set to another number."""
    if not (launch := plan.launch):
        return possible_elsewhere(plan)
    handler = "def" if (launch.handler or "").startswith("def") else "async"
    kinds, packages = {launch.server, launch.kind.wrapper, handler}, {"", *launch.kind.packages, *installed}
    there = [one for one in KNOWN if kinds.issuperset(one.needs) and one.package in packages]
    return [one for one in there if launch.server not in one.needs or plan.slots == int(one.default) * plan.workers]


def possible_elsewhere(plan: Plan) -> Sequence[Known]:
    """Of a server that runs already, as far as its command line is known."""
    command = " ".join(plan.listeners[0].command) if all_run_apps(plan.listeners) else ""
    others = [name for name in SERVERS_OF_LIMITS if command and name not in command]
    return [one for one in KNOWN if set(one.needs).isdisjoint(others)]


def guesses(limit: Known, found: Estimate, cpus: int) -> list[Suspect]:
    """The limit in as many processes as there are, or as there usually are, if that makes the number."""
    each = int(limit.default) if limit.default.isdigit() else min(32, cpus + 4)
    high = found.high or found.slots or 0
    counts = (found.processes,) if found.processes else (1, 2, 4, cpus, 2 * cpus + 1)
    counts = (1,) if limit.of == "all" else counts
    return [limit.suspect(each, n) for n in counts if found.low <= each * n <= high][:1]
