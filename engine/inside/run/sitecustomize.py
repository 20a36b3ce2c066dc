"""Python imports this at its start, as its folder is on PYTHONPATH; then comes the user's own of this name."""

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

import _bench_hooks

_bench_hooks.install()
others = [path for path in sys.path if os.path.realpath(path) != os.path.dirname(os.path.realpath(__file__))]
if spec := PathFinder.find_spec("sitecustomize", others):
    module = sys.modules["sitecustomize"] = module_from_spec(spec)
    spec.loader.exec_module(module)
