"""A railway's lost property office: things that were found are written into a book."""

TRUTH = {"options": "--server hypercorn -n 24", "path": "/found/umbrella", "slots": 1, "waits_on": "a lock"}

import asyncio

book, book_lock = [], asyncio.Lock()


async def describe(thing):
    await asyncio.sleep(0.15)
    return f"a {thing}"


async def enter(thing):
    description = await describe(thing)
    async with book_lock:  # waits
        await asyncio.sleep(0.07)  # works
        book.append(description)
        return len(book)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    number = await enter(scope["path"].rsplit("/", 1)[-1])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"entry %d" % number})
