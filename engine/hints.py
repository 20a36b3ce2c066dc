"""What was probably meant where an app does not load: other names, and the Python that the service lives in."""

import re
import shlex
import sys
from itertools import islice
from pathlib import Path

MOST_FILES, MOST_BYTES, MOST_APPS = 200, 200_000, 6  # that are looked at, of each, and to name
APP_LINE = re.compile(
    r"^(?P<app>\w+)(?:\s*:[^=\n]+)?\s*=\s*(?:\w+\.)*(?:Flask|FastAPI|Starlette|get_[aw]sgi_application)\("
    r"|^def (?P<factory>create_app|make_app)\(",
    re.MULTILINE,
)


def why_not_loaded(app: str, said: str) -> str:
    """What to do where an app did not load; empty: the error says all. said: the error, in one line."""
    module = app.partition(":")[0]
    missing = re.search(r"ModuleNotFoundError: No module named '([\w.]+)'", said)
    if missing and not f"{module}.".startswith(f"{missing[1]}."):
        return run_it_with(Path.cwd())
    if missing or re.search(r"AttributeError: module '[\w.]+' has no attribute", said):
        return meant_instead(apps_in(Path.cwd()))
    return ""


def meant_instead(found: list[str]) -> str:
    if not found:
        return "; no file here makes an app of Flask or FastAPI: run it in the folder of your service"
    return f"; here are: {', '.join(found)}"


def run_it_with(folder: Path) -> str:
    """The service's own Python, if it is not this one."""
    python = own_python(folder)
    return f"; run it with {shlex.quote(str(python))} {shlex.quote(sys.argv[0])} ..." if python else ""


def own_python(folder: Path) -> Path | None:
    """The Python of a virtual environment in a folder or beside it; None: there is none, or it is this one."""
    for environment in (parent / name for parent in (folder, folder.parent) for name in (".venv", "venv")):
        python = environment / "bin/python"
        if python.exists():
            return python if environment.resolve() != Path(sys.prefix).resolve() else None
    return None


def apps_in(folder: Path) -> list[str]:
    """What could be meant by --app, of the Python files in a folder and the folders in it."""
    found = list[str]()
    for path in islice((*sorted(folder.glob("*.py")), *sorted(folder.glob("[!.]*/*.py"))), MOST_FILES):
        try:
            text = path.read_bytes()[:MOST_BYTES].decode(errors="replace")
        except OSError:
            continue
        module = ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
        found += [f"{module}:{m['app'] or m['factory'] + '()'}" for m in APP_LINE.finditer(text)]
    return found[:MOST_APPS]
