"""Seats of a puppet theatre, for the visitors of a play."""

TRUTH = {"options": "--server granian -n 60", "path": "/plays/faust", "slots": 40, "waits_on": "AnyIO's threads"}

import threading
import time
from typing import Annotated

from fastapi import Depends, FastAPI

app = FastAPI()
doors = threading.Semaphore(45)


def visitor(name: str = "Ida") -> str:
    return name.title()


@app.get("/plays/{play}")
def play(play: str, visitor: Annotated[str, Depends(visitor)]):
    with doors:
        time.sleep(0.3)  # works
    return {"play": play, "visitor": visitor, "seat": len(play)}
