"""Visits of patients to a clinic, by day."""

TRUTH = {"options": "--server uvicorn -n 60", "path": "/visits/monday", "slots": 40, "waits_on": "AnyIO's threads"}

import time

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel


class Visit(BaseModel):
    patient: str
    hour: int


VISITS = {"monday": [Visit(patient="Ada", hour=9), Visit(patient="Ben", hour=11)]}
app = FastAPI()


def read_calendar(day: str) -> list[Visit]:
    time.sleep(0.3)  # works
    return VISITS.get(day, [])


@app.get("/visits/{day}")
def visits(day: str) -> list[Visit]:
    found = read_calendar(day)
    if not found:
        raise HTTPException(404, "no visits")
    return found
