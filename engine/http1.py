"""HTTP/1.1 responses, read without any I/O: which body follows which head, and whether the connection stays.

`ResponseParser` is fed bytes as they arrive, however they are split. It raises HTTPError and nothing else, touches no
socket and reads no clock. Rules are those of RFC 9112. Bodies are counted, not kept.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Generator
from typing import NamedTuple

MAX_HEAD_BYTES = 64 * 1024  # head of a response, its chunk lines, its trailers: more is an attack or a mistake
MAX_BODY_BYTES = 64 * 1024 * 1024  # an endless body must end
NO_BODY = (204, 304)

# A status line, then `name: value` lines. As section 2.2 allows, a bare LF ends a line too.
LINE_END, HEAD_END = re.compile(rb"\n"), re.compile(rb"\n\r?\n")
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [\t \x21-\x7e\x80-\xff]*)?\r?\n")
HEADER_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00\r\n]*?)[ \t]*\r?\n")
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
NO_LINE = (b"\n", b"\r\n")


class HTTPError(Exception):
    """A response that cannot be understood. kind: closed (no answer at all), truncated, malformed or too large."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Head(NamedTuple):
    """What the head of a response says."""

    status: int
    length: int | None  # bytes of the body; None: chunks, or until the server closes, or the real head follows (1xx)
    chunked: bool
    keep_alive: bool  # the connection stays


@functools.lru_cache(256)  # a server sends the same head many times within a second
def parse_head(data: bytes) -> Head:
    """Parse a response head that ends with its blank line. Raises HTTPError("malformed")."""
    unfolded = re.sub(rb"\r?\n[ \t]+", b" ", data)  # section 5.2: a folded line is one line
    first, *lines, _ = re.findall(rb"[^\n]*\n", unfolded)
    if not (match := STATUS_LINE.fullmatch(first)):
        raise HTTPError("malformed")
    keep_alive, status = match[1] == b"1", int(match[2])
    lengths, codings = set[bytes](), list[bytes]()
    for line in lines:
        if not (header := HEADER_LINE.fullmatch(line)):
            raise HTTPError("malformed")
        name, value = header[1].lower(), header[2].lower()
        parts = {part.strip(b" \t") for part in value.split(b",")}
        if name == b"content-length":
            lengths |= parts
        elif name == b"transfer-encoding":
            codings.append(value)
        elif name == b"connection":
            keep_alive = (keep_alive or b"keep-alive" in parts) and b"close" not in parts
    return Head(status, *framing(status, lengths, codings), keep_alive)


def framing(status: int, lengths: set[bytes], codings: list[bytes]) -> tuple[int | None, bool]:
    """Head.length and Head.chunked: section 6.3."""
    if codings not in ([], [b"chunked"]) or (lengths and not re.fullmatch(rb"[0-9]{1,19}", b" ".join(lengths))):
        raise HTTPError("malformed")  # also where two lengths differ
    if status in NO_BODY:
        return 0, False
    return int(lengths.pop()) if lengths and not codings and status >= 200 else None, bool(codings)


class ResponseParser:
    """Reads one response after another, however their bytes are split.

    feed() takes what arrived and is True once the response is complete; b"" says that no more will come. It raises
    HTTPError. A complete response may be followed by the next one. Around one that answers HEAD, call reset().
    """

    def __init__(self, is_head_request: bool = False) -> None:
        self.reset(is_head_request)

    def reset(self, is_head_request: bool) -> None:
        self.is_head_request = is_head_request
        self.fresh = not is_head_request  # nothing fed yet
        self.steps: Generator[None, bytes, None] | None = None  # of a response that does not come in one piece
        self.data = b""  # fed, and not used yet
        self.status = self.body_bytes = 0
        self.keep_alive = self.until_close = False

    def feed(self, data: bytes) -> bool:
        if not data:
            if not (self.steps and (self.data or self.status)):
                raise HTTPError("closed")
            if not self.until_close:
                raise HTTPError("truncated")
            return True
        if self.fresh and (end := HEAD_END.search(data)):
            self.status, length, _, self.keep_alive = parse_head(data[: end.end()])
            if (
                length == len(data) - end.end()
            ):  # a whole response in one piece: the steps would come to the same, slower
                self.body_bytes = length
                return True
        if not self.steps:
            self.reset(self.is_head_request)  # what the answers before it left behind
            self.fresh, self.steps = False, self._read()
            next(self.steps)
        try:
            self.steps.send(data)
        except StopIteration:
            return True
        return False

    def _read(self) -> Generator[None, bytes, None]:
        """One response, step by step; each yield waits for more bytes. Which body follows which head: section 6.3."""
        self.data = yield
        while self.status < 200:  # any 1xx: no body, and the real head follows
            head = yield from self._until(HEAD_END)
            self.status, length, chunked, self.keep_alive = parse_head(head)
            if self.status == 101:  # switching protocols was not asked for
                raise HTTPError("malformed")
        if self.is_head_request:
            pass
        elif chunked:
            yield from self._chunks()
        elif length is not None:
            yield from self._count(length)
        else:  # all bytes until the server closes
            self.until_close, self.keep_alive = True, False
            yield from self._count(MAX_BODY_BYTES)
            if not self.data:
                yield
            raise HTTPError("too large")
        if self.data:  # more than was asked for
            raise HTTPError("malformed")

    def _chunks(self) -> Generator[None, bytes, None]:
        size, left = 1, MAX_HEAD_BYTES  # that the trailers may take
        while size:
            if not (match := CHUNK_LINE.fullmatch((yield from self._until(LINE_END)))):
                raise HTTPError("malformed")
            size = int(match[1], 16)
            yield from self._count(size)
            if size and (yield from self._until(LINE_END)) not in NO_LINE:  # the chunk goes on past its size
                raise HTTPError("malformed")
        while (line := (yield from self._until(LINE_END))) not in NO_LINE:
            left -= len(line)
            if left < 0 or not HEADER_LINE.fullmatch(line):
                raise HTTPError("malformed")

    def _until(self, end: re.Pattern[bytes]) -> Generator[None, bytes, bytes]:
        """The bytes up to the end of a head or a line, with that end."""
        while not (match := end.search(self.data)):
            if len(self.data) > MAX_HEAD_BYTES:
                raise HTTPError("too large")
            self.data += yield
        taken, self.data = self.data[: match.end()], self.data[match.end() :]
        if len(taken) > MAX_HEAD_BYTES:
            raise HTTPError("too large")
        return taken

    def _count(self, size: int) -> Generator[None, bytes, None]:
        """So many bytes of the body."""
        end = self.body_bytes + size
        if end > MAX_BODY_BYTES:
            raise HTTPError("too large")
        while True:
            taken = min(end - self.body_bytes, len(self.data))
            self.data = self.data[taken:]
            self.body_bytes += taken
            if self.body_bytes == end:
                return
            self.data = yield
