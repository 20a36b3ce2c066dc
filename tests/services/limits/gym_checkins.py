"""Check-ins at a gym."""

TRUTH = {"options": "--server uvicorn -c 16 -t 3", "path": "/checkin/56", "slots": 4, "waits_on": "a semaphore"}

import asyncio

from fastapi import BackgroundTasks, FastAPI

app = FastAPI()
turnstiles = asyncio.Semaphore(4)


async def reset(member: int):
    try:
        await asyncio.sleep(0.3)  # after
    finally:
        turnstiles.release()


@app.get("/checkin/{member}")
async def checkin(member: int, background: BackgroundTasks):
    await turnstiles.acquire()  # waits
    background.add_task(reset, member)
    await asyncio.sleep(0.1)  # works
    return {"member": member, "open": True}
