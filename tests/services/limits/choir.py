"""Rehearsals of a choir: the four voices of a song, two at a time."""

TRUTH = {"options": "--server gunicorn-uvicorn -n 36", "path": "/songs/ave/rehearse", "slots": None, "waits_on": None}

import asyncio

from fastapi import FastAPI

app = FastAPI()
programme = asyncio.Condition()
rehearsed = []


async def voice(stands, name):
    async with stands:
        await asyncio.sleep(0.2)  # works
        return name


@app.get("/songs/{song}/rehearse")
async def rehearse(song: str):
    stands = asyncio.Semaphore(2)
    names = await asyncio.gather(*(voice(stands, n) for n in "SATB"))
    async with programme:
        rehearsed.append(song)
        programme.notify_all()
    return {"voices": names}
