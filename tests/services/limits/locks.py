"""Locks of a canal: a boat asks to be let through."""

TRUTH = {"options": "--server uvicorn -n 24", "path": "/locks/3/pass", "slots": 2, "waits_on": "a condition"}

import asyncio

from fastapi import FastAPI

app = FastAPI()


class Lock:
    """One of the canal's locks, with room for so many boats."""

    def __init__(self, room):
        self.room, self.changed = room, asyncio.Condition()

    async def acquire(self):
        async with self.changed:
            await self.changed.wait_for(lambda: self.room > 0)  # waits
            self.room -= 1

    async def release(self):
        async with self.changed:
            self.room += 1
            self.changed.notify()


canal = {number: Lock(room=2) for number in range(1, 6)}


@app.get("/locks/{number}/pass")
async def pass_through(number: int):
    await canal[number].acquire()
    await asyncio.sleep(0.15)  # works
    await canal[number].release()
    return {"lock": number, "passed": True}
