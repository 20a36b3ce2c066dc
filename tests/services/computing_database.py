"""A stand-in for a database: it computes for each line that it reads, one at a time, and prints its port first."""

import socketserver
import time


class Session(socketserver.StreamRequestHandler):
    def handle(self):
        for _ in self.rfile:
            end = time.thread_time() + 0.01
            while time.thread_time() < end:
                sum(range(200))
            self.wfile.write(b"row\n")


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


if __name__ == "__main__":
    with Server(("127.0.0.1", 0), Session) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()
