"""What the pools of libraries tell of themselves: their size and use, and connections that they do not keep.

Standard library only, for the process of the server. No code of the app or of a library is called: attributes are read.
"""

from collections import namedtuple

from _bench_frames import remembered

# owner: the live object; size, used: of it, now; None: not known. setting: what sets the size. is_shared: it is a wait
# for other requests only if several wait for the same object.
Resource = namedtuple("Resource", "name owner size used setting is_shared", defaults=(None, None, "", False))


def attribute(owner, *names):
    """An attribute of an attribute ..., without running the code of a property; None if there is none."""
    for name in names:
        fields = fields_of(owner)
        if type(fields.get("_state")) is dict:  # Starlette's app.state and request.state
            fields = fields["_state"] | fields
        owner = fields[name] if name in fields else slot_of(owner, name)
    return owner


def fields_of(owner):
    """An object's own attributes."""
    found = getattr(type(owner), "__dictoffset__", 0) and getattr(owner, "__dict__", None)
    return found if type(found) is dict else {}


def slot_of(owner, name):
    """What a class has by this name, for the object or for itself; None of what would run code, as a property."""
    kinds = owner.__mro__ if isinstance(owner, type) else type(owner).__mro__
    slot = next((vars(kind)[name] for kind in kinds if name in vars(kind)), None)
    is_field = type(slot).__name__ in ("member_descriptor", "getset_descriptor")
    if isinstance(owner, type) or not is_field:
        return None if any("__get__" in vars(kind) for kind in type(slot).__mro__) else slot
    try:
        return slot.__get__(owner)
    except AttributeError:  # a slot that is not filled
        return None


def length(owner, *names):
    found = attribute(owner, *names)
    return None if found is None else len(found)


def less(size, free):
    return None if size is None or free is None else size - free


# ---------------------------------------------------------------- pools of libraries


def sqlalchemy_pool(pool):
    base, overflow = attribute(pool, "_pool", "maxsize"), attribute(pool, "_max_overflow")
    free = length(pool, "_pool", "queue")
    if base is None:  # of its asyncio
        base, free = attribute(pool, "_pool", "_queue", "_maxsize"), length(pool, "_pool", "_queue", "_queue")
    if base is None or overflow is None:
        return Resource("SQLAlchemy's pool", pool)
    used = less(base + (attribute(pool, "_overflow") or 0), free)
    return Resource("SQLAlchemy's pool", pool, base + overflow, used, f"pool_size {base} + max_overflow {overflow}")


def psycopg_pool(pool):
    used = less(attribute(pool, "_nconns"), length(pool, "_pool"))
    return Resource("psycopg's pool", pool, attribute(pool, "_max_size"), used, "max_size")


def asyncpg_pool(pool):
    size = attribute(pool, "_maxsize")
    return Resource("asyncpg's pool", pool, size, less(size, length(pool, "_queue", "_queue")), "max_size")


def httpcore_pool(pool):
    size = attribute(pool, "_max_connections")
    return Resource("httpx's connections", pool, size, length(pool, "_connections"), "Limits(max_connections)")


def aiohttp_connector(connector):
    of_host = attribute(connector, "_limit_per_host")
    setting = f"TCPConnector({'limit_per_host' if of_host else 'limit'})"
    size = of_host or attribute(connector, "_limit")
    if of_host and (length(connector, "_acquired_per_host") or 0) > 1:  # so many for each host
        return Resource("aiohttp's connections", connector, None, None, setting)
    return Resource("aiohttp's connections", connector, size, length(connector, "_acquired"), setting)


def urllib3_pool(pool):
    size = attribute(pool, "pool", "maxsize")
    used = less(size, length(pool, "pool", "queue"))
    return Resource("urllib3's connections (requests)", pool, size, used, "pool_maxsize, with pool_block")


def redis_pool(pool):
    size, used = attribute(pool, "max_connections"), length(pool, "_in_use_connections")
    free = [one for one in attribute(pool, "pool", "queue") or () if one is not None]
    used = less(length(pool, "_connections"), len(free)) if used is None else used
    return Resource("redis's pool", pool, size, used, "max_connections")


def pymongo_pool(pool):
    size, used = attribute(pool, "max_pool_size"), attribute(pool, "active_sockets")
    return Resource("pymongo's pool", pool, size, used, "maxPoolSize")


def log_handler(handler):
    return Resource(f"the lock of a log handler ({type(handler).__name__})", handler, 1, 1)


OPENS = ("sqlalchemy/pool/base.py", "_create_connection")


def opened_beyond(frames):
    """The pool for which a connection is opened there that it will not keep, as [name, how many it keeps, how many it
    may have]; None: no such thing. frames: outermost first."""
    at = where_opened(tuple([frame.f_code for frame in frames]))
    pool = None if at is None else frames[at].f_locals.get("self")
    if pool is None or type(pool).__name__ == "NullPool":
        return pool and ["SQLAlchemy's NullPool", 0, None]
    kept = attribute(pool, "_pool", "maxsize") or attribute(pool, "_pool", "_queue", "_maxsize")
    opened, beyond = attribute(pool, "_overflow"), attribute(pool, "_max_overflow")
    if not kept or not opened or opened < 1:
        return None
    return ["SQLAlchemy's pool", kept, None if beyond < 0 else kept + beyond]


@remembered
def where_opened(codes):
    """Which of these frames, by their code, opens a connection for a pool; None: there is none."""
    file, function = OPENS
    found = (i for i, code in enumerate(codes) if code.co_name == function and code.co_filename.endswith(file))
    return next(found, None)
