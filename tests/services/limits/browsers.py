"""Pages rendered by three browsers in a queue. Plain ASGI."""

import asyncio

TRUTH = {"options": "--server uvicorn -n 24", "path": "/", "slots": 3, "waits_on": "a queue"}
browsers = None


class Browser:
    async def render(self, page):
        await asyncio.sleep(0.1)  # works
        return page.encode()


async def rendered(page):
    global browsers
    if browsers is None:
        browsers = asyncio.Queue()
        for _ in range(3):
            browsers.put_nowait(Browser())
    browser = await browsers.get()  # waits
    try:
        return await browser.render(page)
    finally:
        browsers.put_nowait(browser)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        return await send({"type": "lifespan.shutdown.complete"})
    body = await rendered(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
