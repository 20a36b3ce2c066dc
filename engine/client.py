"""The client: sends requests on raw sockets as a load allows, and records the times of each.

All sockets sit in one private epoll. Its own descriptor is the only thing that asyncio watches, and one callback
drains all that is ready, so that asyncio's work is done once for many answers. Most answers of a run are equal, byte
for byte, while the second in their Date lasts: an answer equal to the last one is not parsed again. Where an answer is
whole, the next request leaves in its place. Times are perf_counter seconds.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import select
import selectors
import socket
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter, process_time, sleep
from typing import Any, NamedTuple

from engine.http1 import HTTPError, ResponseParser
from engine.loads import Part
from engine.machine import had_to_resend
from engine.progress import sample_of
from engine.signals import signals
from engine.tls import Channel, Tls

READ_BYTES = 65536
EVENTS = 64  # handled at a time: with more, the first sockets have left the CPU's caches before they are read
SPIN_S = 0.0002  # stop sleeping so long before a request is due: a sleeper wakes some 0.1 ms late; costs CPU, stated
TURN_S = 0.02  # then timers and Ctrl-C have their turn
RESEND_S = 0.19  # TCP sends again after 0.2 s at the earliest (Linux: TCP_RTO_MIN)

Address = tuple[Any, ...]  # of a socket: IPv4, or IPv6 where it has four parts

# ---------------------------------------------------------------- raw times

ERRORS = (
    "", "refused", "reset", "closed", "timed out", "malformed", "truncated", "too large", "no local port",
    "too many open files", "connect failed", "interrupted", "given up", "client died", "TLS failed",
)  # fmt: skip
ERRNO_NAMES: dict[int | None, str] = defaultdict(lambda: "connect failed", {
    errno.ECONNREFUSED: "refused", errno.ECONNRESET: "reset", errno.EPIPE: "reset",
    errno.EADDRNOTAVAIL: "no local port", errno.EMFILE: "too many open files", errno.EPROTO: "TLS failed",
    0: "", errno.EAGAIN: "", errno.EINPROGRESS: "", errno.ENOTCONN: "",  # not yet; the last one on macOS
})  # fmt: skip


class Exchanges:
    """The raw times of every request in columns, request i at index i; perf_counter seconds, 0.0 for never.

    What each column says stands in run.Columns. error is an index into ERRORS.
    """

    def __init__(self) -> None:
        self.started_s, self.sent_s, self.first_byte_s, self.answered_s = (array("d") for _ in range(4))
        self.body_bytes, self.status, self.error = array("L"), array("H"), array("B")
        self.connected_s = array("d")  # over TLS, of a new connection: when its handshake began

    def grow(self, rows: int = 4096) -> None:
        for column in vars(self).values():
            column.frombytes(bytes(column.itemsize * rows))

    def finish(self, rows: int) -> None:
        """Cut what was not used, and fill in the two moments that a run leaves out because they are known."""
        for column in vars(self).values():
            del column[rows:]
        for i, error in enumerate(self.error):
            if not error:
                self.sent_s[i] = self.sent_s[i] or self.started_s[i]  # on a kept connection
                self.first_byte_s[i] = self.first_byte_s[i] or self.answered_s[i]  # the answer came in one piece


class Outcome(NamedTuple):
    """What a load leaves, before any sum is made of it."""

    exchanges: Exchanges
    begun_s: float
    client_cpu_s: float  # of all client processes
    sockets_opened: int
    kernel: dict[str, int] = {}  # noqa: RUF012  machine.kernel_counters(), during the load
    stopped: str | None = None  # why the sending ended early: a signal's name, or what happened
    server_cpu_s: float | None = None
    spun_s: float = 0.0  # of client_cpu_s: spent in waiting for the next due moment
    numbers: Sequence[int] = ()  # the X-Request-Id of each row; empty: the row's own number
    other_cpu_s: float | None = None  # of other programs, in counted_s
    counted_s: float = 0.0  # between the readings of the counters
    sockets_resent: int = 0  # that had to send something again: the server's listen queue was full, or a packet lost
    stalled_s: float = 0.0  # the longest time in which the client itself stood still
    is_cut: bool = False  # nothing more was sent, as what was asked for was known

    @property
    def is_short(self) -> bool:
        """Whether it ended before the load was sent."""
        return bool(self.stopped or self.is_cut)


def is_success(status: int, error_code: int) -> bool:
    """A whole answer with a status of 2xx, or a redirect, which is not followed."""
    return not error_code and 200 <= status < 400


# ---------------------------------------------------------------- connections


class Selector(selectors.DefaultSelector):
    """What the selectors module has, with the interface of an epoll."""

    def poll(self, *_: float) -> Any:
        return [(key.fd, events) for key, events in self.select(0)]


POLLER: Callable[[], Any] = getattr(select, "epoll", Selector)  # there is none on macOS
READ, WRITE = selectors.EVENT_READ, getattr(select, "EPOLLOUT", selectors.EVENT_WRITE)  # EPOLLIN is 1, too


class Connection:
    """A new socket that is connected, or soon will be, and what it works on. Raises OSError."""

    def __init__(self, address: Address, is_head: bool, first_byte: bool, tls: Tls | None, host: str) -> None:
        family = socket.AF_INET6 if len(address) == 4 else socket.AF_INET
        # The type below socket.socket: it opens and closes without that class's Python layer.
        self.sock = sock = socket.SocketType(family)
        sock.setblocking(False)
        self.fd = sock.fileno()
        self.recv: Callable[[int], bytes] = sock.recv  # both looked up once
        self.send: Callable[[bytes], int] = sock.send
        self.opened_s = perf_counter()
        self.parser = ResponseParser(is_head, first_byte)
        self.index = -1  # of the request; -1: none
        self.unsent = b""  # what the kernel has not taken yet
        self.watched = 0  # the events that the poller reports
        self.channel: Channel | None = None
        code = sock.connect_ex(address)
        if ERRNO_NAMES[code]:
            sock.close()
            raise OSError(code, "connect")
        if tls:
            self.channel = channel = Channel(sock, tls, host)
            self.recv, self.send = channel.recv, channel.send

    @property
    def events(self) -> int:
        """What to wait for: over TLS there may be nothing to write before something was read."""
        is_full = self.channel.unsent if self.channel else self.unsent
        return READ | WRITE if self.unsent and is_full else READ


# ---------------------------------------------------------------- sending


@dataclass(eq=False)
class Client:
    """Sends one part of a load, as fast as the part allows, and records every exchange."""

    address: Address
    messages: Iterator[bytes]
    part: Part
    timeout_s: float
    is_head: bool  # the requests are HEAD
    keep_alive: bool
    first_byte: bool  # an answer is complete with the first byte of its body, and then ended
    progress: Callable[..., object]  # is told begun_s, how many are sent and under way, and what takes a sample
    begun_s: float = 0.0  # when to begin; 0: at once
    is_enough: Callable[[Client], bool] = lambda _: False  # asked now and then; True: send nothing more
    tls: Tls | None = None  # None: plain http
    host: str = ""  # whose certificate it must be

    sent = in_flight = sockets_opened = sockets_resent = failures = 0
    thinking = 0  # users between two requests
    released = users = spun_s = stalled_s = 0.0  # released and users: the limits of the part, as last asked for
    ended = fill_is_due = False  # ended: nothing more will be sent
    is_cut = False  # before the end of the load, as that was enough
    stopped, left_as = "", "interrupted"  # why it ended before its time; what the requests under way then count as

    def __post_init__(self) -> None:
        # What each answer needs is set here, and not in the class, where Python would find it later.
        self.think_s = self.part.load.think_s
        self.read_bytes = 479  # Python allocates the buffer of each read, up to 512 bytes with its header from a pool
        self.last_answer, self.last_result = b"none yet", (0, 0, False)  # status, bytes of body, connection stays
        self.exchanges = Exchanges()
        self.connections: dict[int, Connection] = {}
        self.idle: dict[Connection, None] = {}  # kept connections with nothing to do, the last used at the end
        self.poller = POLLER()
        # select counts in microseconds, where asyncio's usual epoll rounds up to the next millisecond
        self.loop = asyncio.SelectorEventLoop(selectors.SelectSelector())

    def run(self) -> Outcome:
        """Send everything, and wait for every answer or its time-out. The first signal stops it in order."""
        signals.stop_load = lambda name: self.loop.call_soon_threadsafe(self.stop, name)
        if signals.received:  # before there was anything to stop
            self.stop(signals.name)
        gc.disable()  # nothing here makes cycles, and a collection in the middle of a run shows as latency
        try:
            sleep(max(0.0, self.begun_s - perf_counter()))
            self.begun_s, begun_cpu_s = self.begun_s or perf_counter(), process_time()
            self.loop.add_reader(self.poller.fileno(), self._drain)
            self._follow()
            self._watch_deadlines(perf_counter())
            self.loop.run_forever()
            cpu_s = process_time() - begun_cpu_s
        finally:
            gc.enable()
            signals.stop_load = None
            for conn in list(self.connections.values()):
                self._fail(conn, self.left_as)
            self.loop.close()
            self.poller.close()
        self.exchanges.finish(self.sent)
        spun_s = min(self.spun_s, cpu_s)  # measured by the clock, which runs on while others have the CPU
        return Outcome(
            self.exchanges, self.begun_s, cpu_s, self.sockets_opened, stopped=self.stopped or None, spun_s=spun_s,
            sockets_resent=self.sockets_resent, stalled_s=self.stalled_s, is_cut=self.is_cut,
        )  # fmt: skip

    def stop(self, why: str, left_as: str = "interrupted") -> None:
        """Send nothing more, wait for nothing more; what is under way counts as failed, under that name. why: what cut
        the load short; empty: it is over."""
        self.stopped, self.left_as = self.stopped or why, left_as
        self.ended, self.released = True, self.sent
        self.loop.stop()

    def _follow(self) -> None:
        """Send what may leave by now, and come back when that changes: a little before, and then wait awake, because a
        sleeper wakes late."""
        turn_ends_s = perf_counter() + TURN_S
        while not self.ended:
            elapsed_s = perf_counter() - self.begun_s
            self.released, self.users = self.part.limits(elapsed_s)
            if elapsed_s >= self.part.load.time_limit_s:
                self.ended, self.released = True, self.sent
            self._fill()
            next_s = self.begun_s + self.part.next_change_s(elapsed_s)
            sleep_s = next_s - perf_counter() - SPIN_S
            if sleep_s > 0 or perf_counter() > turn_ends_s:
                self.loop.call_later(sleep_s, self._follow)
                return
            while (now_s := perf_counter()) < next_s:
                if events := self.poller.poll(0, EVENTS):
                    self._handle(events)
                else:
                    self.spun_s += perf_counter() - now_s

    def _fill(self) -> None:
        """Start what the load allows, a hundred at most, so that answers are read in between."""
        self.fill_is_due = False
        for _ in range(100):
            if self.sent >= self.released or self.in_flight + self.thinking >= self.users:
                break
            self._start()
        else:
            self._fill_soon()
        if not self.in_flight and (self.ended or self.sent >= self.part.requests):
            self.stop("")

    def _fill_soon(self) -> None:
        """Once in each round of the loop, however many requests fail in it: its timers must have their turn."""
        if not self.fill_is_due:
            self.fill_is_due = True
            self.loop.call_soon(self._fill)

    def _free_user(self) -> None:
        """A request has ended: its user may send the next one, after thinking if the load says so."""
        self.in_flight -= 1
        if self.think_s:
            self.thinking += 1
            self.loop.call_later(self.think_s, self._send_again)

    def _send_again(self) -> None:
        self.thinking -= 1
        self._fill()

    def _start(self) -> None:
        """Send the next request, on an idle connection or on a new one."""
        index, rows = self.sent, self.exchanges
        if index == len(rows.status):
            rows.grow()
        self.sent = index + 1
        self.in_flight += 1
        message = next(self.messages)
        rows.started_s[index] = perf_counter()
        try:
            if self.idle:
                conn, _ = self.idle.popitem()
            else:
                self.sockets_opened += 1
                conn = Connection(self.address, self.is_head, self.first_byte, self.tls, self.host)
                self.connections[conn.fd] = conn
        except OSError as error:
            self._record_failure(index, ERRNO_NAMES[error.errno])
            return
        conn.index = index
        # On loopback the handshake is over by now, so that the request usually leaves with no wait for an event.
        self._send(conn, message)

    def _send(self, conn: Connection, unsent: bytes) -> bool:
        """Hand the kernel what it takes, have the poller report what comes next. False: the connection is lost."""
        taken = 0
        try:
            taken = conn.send(unsent)
        except OSError as error:
            if kind := ERRNO_NAMES[error.errno]:
                self._read_last_words(conn)
                self._fail(conn, kind)
                return False
        if taken == len(unsent) and conn.watched == READ and not conn.unsent:  # nearly all of a run on kept connections
            return True
        sent_s = self.exchanges.sent_s
        if taken and not sent_s[conn.index]:
            sent_s[conn.index] = perf_counter()
            if channel := conn.channel:
                self.exchanges.connected_s[conn.index], channel.connected_s = channel.connected_s, 0.0
        conn.unsent = unsent[taken:]
        watch = self.poller.modify if conn.watched else self.poller.register
        conn.watched = conn.events
        watch(conn.fd, conn.watched)
        return True

    def _read_last_words(self, conn: Connection) -> None:
        """The server may have answered before it broke the connection: 413, in the middle of an upload."""
        parser, rows = conn.parser, self.exchanges
        try:
            while not parser.feed(conn.recv(READ_BYTES)):
                pass
        except (OSError, HTTPError):
            return
        index, conn.index = conn.index, -1
        rows.status[index] = parser.status
        rows.body_bytes[index] = parser.body_bytes
        rows.answered_s[index] = perf_counter()
        self._free_user()
        self._fill_soon()

    def _drain(self) -> None:
        """Handle all that is ready; back to the loop after 20 ms at most, for its timers and for Ctrl-C."""
        until_s = min(perf_counter() + TURN_S, self.begun_s + self.part.load.time_limit_s)
        while events := self.poller.poll(0, EVENTS):
            self._handle(events)
            if perf_counter() > until_s:
                break

    def _handle(self, ready: list[tuple[int, int]]) -> None:
        """Take what has come; where an answer is whole, send the next request in its place."""
        rows, connections, messages = self.exchanges, self.connections, self.messages
        started_s, answered_s, statuses, sizes = rows.started_s, rows.answered_s, rows.status, rows.body_bytes
        # A user that neither thinks nor goes sends at once: every request before this number.
        at_once = 0 if self.think_s or self.in_flight > self.users else min(self.released, len(statuses))
        for fd, _ in ready:
            # A descriptor closed earlier in this batch may be in use again: its new socket has nothing to read.
            conn = connections.get(fd)
            if not conn or ((unsent := conn.unsent) and not self._send(conn, unsent)):
                continue
            index, parser = conn.index, conn.parser
            if index < 0:  # answered already: the server closes, or says more than it was asked
                self.idle.pop(conn, None)
                self._close(conn)
                continue
            try:
                data = conn.recv(self.read_bytes)
            except OSError as error:
                self._fail(conn, ERRNO_NAMES[error.errno])
                continue
            now_s = perf_counter()
            is_known = not parser.steps and data == self.last_answer
            if not (result := self.last_result if is_known else self._parse(conn, data, now_s)):
                continue
            statuses[index], sizes[index], stays = result
            answered_s[index] = now_s
            if stays and not unsent and (index := self.sent) < at_once:  # nearly all of a run on kept connections
                conn.index, self.sent = index, index + 1
                started_s[index] = now_s
                self._send(conn, next(messages))
                continue
            self._release(conn, stays)

    def _release(self, conn: Connection, stays: bool) -> None:
        conn.index = -1
        if stays and not conn.unsent:
            self.idle[conn] = None
        elif self.first_byte:
            self._close(conn)
        # else: let the server close first, which is this connection's next event: the port is then free again
        self._free_user()
        self._fill()

    def _parse(self, conn: Connection, data: bytes, now_s: float) -> tuple[int, int, bool] | None:
        """Status, bytes of the body and whether the connection stays, once the answer is whole."""
        parser, fresh, first_byte_s = conn.parser, not conn.parser.steps, self.exchanges.first_byte_s
        try:
            complete = parser.feed(data)
        except HTTPError as error:
            self._fail(conn, str(error))
            return None
        if not complete:
            self.read_bytes = READ_BYTES  # the usual answer may be larger
            first_byte_s[conn.index] = first_byte_s[conn.index] or now_s
            return None
        result = parser.status, parser.body_bytes, parser.keep_alive and self.keep_alive
        if fresh:
            self.last_answer, self.last_result = data, result
        return result

    def _fail(self, conn: Connection, kind: str) -> None:
        """Give up a connection, and its request under that name; an empty one: it was only too early."""
        if kind:
            self._close(conn)
            if conn.index >= 0:
                self._record_failure(conn.index, kind)

    def _record_failure(self, index: int, kind: str) -> None:
        self.exchanges.answered_s[index] = perf_counter()
        self.exchanges.error[index] = ERRORS.index(kind)
        self._free_user()
        self.failures += 1
        self._fill_soon()

    def _close(self, conn: Connection) -> None:
        if conn.watched and POLLER is Selector:  # closing a socket takes it out of its epoll
            self.poller.unregister(conn.fd)
        self.sockets_resent += perf_counter() - conn.opened_s > RESEND_S and had_to_resend(conn.sock)
        del self.connections[conn.fd]
        conn.sock.close()

    def _watch_deadlines(self, due_s: float) -> None:
        """Ten times a second: time-outs, and an end of it all if not one of many requests was answered."""
        now_s = perf_counter()
        self.stalled_s = max(self.stalled_s, now_s - due_s)
        late_s = now_s - self.timeout_s
        for conn in list(self.connections.values()):
            if conn.index >= 0 and self.exchanges.started_s[conn.index] < late_s:
                self._fail(conn, "timed out")
        is_many = self.failures >= max(10, self.users) or (self.failures and self.begun_s <= late_s)
        if is_many and self.failures == self.sent - self.in_flight:
            self.stop(f"none of {self.sent} requests was answered", "given up")
        self.progress(
            self.begun_s,
            self.sent,
            self.in_flight,
            partial(sample_of, self.exchanges, self.sent, self.part, self.begun_s),
        )
        if not self.ended and self.is_enough(self):
            self.ended, self.released, self.is_cut = True, self.sent, True
            self._fill_soon()
        self.loop.call_later(0.1, self._watch_deadlines, now_s + 0.1)
