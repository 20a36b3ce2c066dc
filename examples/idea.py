"""The whole idea in one file: start a server, predict, send sixteen requests, see four batches.

    pip install gunicorn && python examples/idea.py

gunicorn has 4 sync workers, so the server has 4 slots. Each request waits 1 s. Counted from 0, request n starts after
floor(n / 4) x 1 s and is answered 1 s later.
"""

import asyncio
import socket
import subprocess
import sys
import time
from pathlib import Path

REQUESTS, SLOTS, WAIT_S = 16, 4, 1.0


def app(environ, start_response):
    """The server's side: a request that waits, as for a database."""
    time.sleep(WAIT_S)
    start_response("200 OK", [("Content-Length", "5")])
    return [b"done\n"]


async def ask(port, begun_s):
    """The client's side: one request on a connection of its own; when its answer was complete."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    await reader.read()
    writer.close()
    return time.perf_counter() - begun_s


async def burst(port):
    """All requests at once; when each was answered, the first answer first."""
    begun_s = time.perf_counter()
    return sorted(await asyncio.gather(*(ask(port, begun_s) for _ in range(REQUESTS))))


def main():
    predicted_s = [(n // SLOTS + 1) * WAIT_S for n in range(REQUESTS)]
    print(f"predicted: ceil({REQUESTS} / {SLOTS}) x {WAIT_S:g} s = {predicted_s[-1]:g} s until the last answer")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "--workers", str(SLOTS), "--bind", f"127.0.0.1:{port}", "idea:app"]
    with subprocess.Popen(command, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL) as server:
        try:
            time.sleep(2)  # until every worker has loaded the app
            answered_s = asyncio.run(burst(port))
        finally:
            server.terminate()
    for n, (due_s, answer_s) in enumerate(zip(predicted_s, answered_s, strict=True)):
        print("\n" * (n % SLOTS == 0) + f"request {n:2}  predicted {due_s:.2f} s  answered {answer_s:.2f} s")
    print(f"\nmeasured: {answered_s[-1]:.2f} s until the last answer")


if __name__ == "__main__":
    main()
