"""Wrap whatever app a Python process serves, however it was started: where frameworks and servers are imported.

The framework's own entry is wrapped, and, for an app without one, what a server loads. A request that passes several of
them counts once.
"""

import functools
import importlib.util
import sys
from inspect import iscoroutinefunction

import _bench_calls as tracked
import _bench_wrapper as wrapper


def once(wrap, method):
    """A class's __call__, wrapped, unless the request has been met further out."""

    @functools.wraps(method)
    def call(self, *args):
        found = tracked.current_call()  # a bridge to WSGI may run it in a thread without the context
        if found and tracked.under_way.get(id(found)) is found:
            return method(self, *args)
        return wrap(functools.partial(method, self))(*args)

    @functools.wraps(method)
    async def awaited(self, scope, receive, send):  # uvicorn and hypercorn know an ASGI app by its `async def`
        await call(self, scope, receive, send)

    return awaited if iscoroutinefunction(method) else call


def wraps_class(wrap, name):
    def hook(module):
        kind = getattr(module, name)
        kind.__call__ = once(wrap, kind.__call__)

    return hook


def outermost(wrap, app):
    """An app that a server has loaded, wrapped in the same way."""

    class Served:
        def __call__(self, *args):
            return app(*args)

    Served.__call__ = once(wrap, Served.__call__)
    return Served()


def hook_uvicorn(module):
    load = module.Config.load

    def loaded(self):
        load(self)
        self.loaded_app = outermost(wrapper.asgi, self.loaded_app)

    module.Config.load = loaded


def hook_gunicorn(module):
    load = module.Worker.load_wsgi

    def loaded(self):
        with wrapper.failure_is_written():
            load(self)
        is_asgi = "asgi" in type(self).__module__.lower() or "uvicorn" in type(self).__module__
        self.wsgi = self.wsgi if is_asgi else outermost(wrapper.wsgi, self.wsgi)

    module.Worker.load_wsgi = loaded


def hook_waitress(module):
    create = module.create_server

    def created(application, *args, **kwargs):
        return create(outermost(wrapper.wsgi, application), *args, **kwargs)

    module.create_server = created


HOOKS = {  # module -> what is done once it is imported
    "starlette.applications": wraps_class(wrapper.asgi, "Starlette"),
    "django.core.handlers.asgi": wraps_class(wrapper.asgi, "ASGIHandler"),
    "django.core.handlers.wsgi": wraps_class(wrapper.wsgi, "WSGIHandler"),
    "flask.app": wraps_class(wrapper.wsgi, "Flask"),
    "uvicorn.config": hook_uvicorn,
    "gunicorn.workers.base": hook_gunicorn,
    "waitress.server": hook_waitress,
    **tracked.WATCHED_LATER,
    "anyio.to_thread": lambda _: wrapper.stamp_in_thread(),
}


class Finder:
    """Finds these modules as the others would, and has them wrapped once they are executed."""

    def __init__(self):
        self.met = set()

    def find_spec(self, name, path=None, target=None):
        if name not in HOOKS or name in self.met:
            return None
        self.met.add(name)
        spec = importlib.util.find_spec(name)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def execute_and_hook(module):
                execute(module)
                HOOKS[name](module)

            spec.loader.exec_module = execute_and_hook
        return spec


def install():
    tracked.watch()
    sys.meta_path.insert(0, Finder())
