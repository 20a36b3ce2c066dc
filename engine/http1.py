"""HTTP/1.1 responses, read without any I/O: which body follows which head, and whether the connection stays.

`ResponseParser` is fed bytes as they arrive, however they are split. It raises HTTPError and nothing else, touches no
socket and reads no clock. Rules are those of RFC 9112. Bodies are counted, not kept.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Generator, Iterator

MAX_HEAD_BYTES = 64 * 1024  # head of a response, its chunk lines, its trailers: more is an attack or a mistake

# A status line, then `name: value` lines. As section 2.2 allows, a bare LF ends a line too.
LINE_END, HEAD_END = re.compile(rb"\n"), re.compile(rb"\n\r?\n")
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [\t \x21-\x7e\x80-\xff]*)?\r?\n")
HEADER_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00\r\n]*?)[ \t]*\r?\n")
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
NO_LINE, ANYTHING = re.compile(rb"\r?\n"), re.compile(rb"(?s).*")


class HTTPError(Exception):
    """A response that cannot be understood. Its text: closed (no answer at all), truncated, malformed, or too large,
    which is its head. A body may have any length: where it has no end, the client's time-out ends it."""


@functools.lru_cache(256)  # a server sends the same head many times within a second
def parse_head(data: bytes) -> tuple[int, int | None, bool, bool]:
    """What a response head says that ends with its blank line: status, bytes of the body, whether that comes in chunks,
    whether the connection stays. Raises HTTPError("malformed").

    None bytes: the body is in chunks, or lasts until the server closes, or the real head follows (1xx).
    """
    unfolded = re.sub(rb"\r?\n[ \t]+", b" ", data)  # section 5.2: a folded line is one line
    first = STATUS_LINE.match(unfolded)
    if not first or not NO_LINE.fullmatch(HEADER_LINE.sub(b"", unfolded[first.end() :])):
        raise HTTPError("malformed")
    fields = defaultdict[bytes, list[bytes]](list)
    for name, value in HEADER_LINE.findall(unfolded.lower(), first.end()):
        fields[name] += re.split(rb"[ \t]*,[ \t]*", value)
    connection, codings, lengths = fields[b"connection"], fields[b"transfer-encoding"], {*fields[b"content-length"]}
    stays = (first[1] == b"1" or b"keep-alive" in connection) and b"close" not in connection
    # The length: section 6.3.
    if codings not in ([], [b"chunked"]) or (lengths and not re.fullmatch(rb"[0-9]{1,19}", b" ".join(lengths))):
        raise HTTPError("malformed")  # also where two lengths differ
    status = int(first[2])
    if status in (204, 304):
        return status, 0, False, stays
    length = int(lengths.pop()) if lengths and not codings and status >= 200 else None
    return status, length, bool(codings), stays


class ResponseParser:
    """Reads one response after another, however their bytes are split.

    feed() takes what arrived and is True once the response is complete; b"" says that no more will come. It raises
    HTTPError. A complete response may be followed by the next one.
    """

    status = body_bytes = 0
    keep_alive = until_close = False
    data = b""  # fed, and not used yet

    def __init__(self, is_head: bool = False, first_byte: bool = False) -> None:
        """is_head: the requests are HEAD, so that no response has a body. first_byte: a response is complete with the
        first byte of its body; what follows is not read, so that the connection cannot stay."""
        self.is_head, self.first_byte = is_head, first_byte
        self.steps: Iterator[None] | None = None  # of a response that does not come in one piece

    def feed(self, data: bytes) -> bool:
        if not data:
            if self.until_close:
                return True
            raise HTTPError("truncated" if self.steps and (self.data or self.status) else "closed")
        if not self.steps:
            if (end := HEAD_END.search(data)) and not self.is_head:
                self.status, length, _, self.keep_alive = parse_head(data[: end.end()])
                if length == len(data) - end.end():  # a whole response: the steps would come to the same, slower
                    self.body_bytes = length
                    return True
            self.data, self.status, self.body_bytes, self.until_close = b"", 0, 0, False
            self.steps = self._read()
        self.data += data
        for _ in self.steps:  # as far as these bytes allow
            if self.first_byte and self.body_bytes:
                self.keep_alive = False
                break
            return False
        self.steps = None
        return True

    def _read(self) -> Iterator[None]:
        """One response, step by step; each yield waits for more bytes. Which body follows which head: section 6.3."""
        while self.status < 200:  # any 1xx: no body, and the real head follows
            head = yield from self._until(HEAD_END)
            self.status, length, is_chunked, self.keep_alive = parse_head(head)
            if self.status == 101:  # switching protocols was not asked for
                raise HTTPError("malformed")
        if self.is_head:
            pass
        elif is_chunked:
            while size := int((yield from self._until(LINE_END, CHUNK_LINE)).partition(b";")[0], 16):
                yield from self._count(size)
                yield from self._until(LINE_END, NO_LINE)  # else the chunk goes on past its size
            self.data = b"\n" + self.data  # so that a blank line ends the trailers, also where there are none
            yield from self._until(HEAD_END)
        elif length is not None:
            yield from self._count(length)
        else:
            self.until_close, self.keep_alive = True, False
            while True:
                yield from self._count(len(self.data))
                yield
        if self.data:  # more than was asked for
            raise HTTPError("malformed")

    def _until(self, end: re.Pattern[bytes], shape: re.Pattern[bytes] = ANYTHING) -> Generator[None, None, bytes]:
        """The bytes up to the end of a head or a line, with that end. They must have this shape."""
        while not (match := end.search(self.data, 0, MAX_HEAD_BYTES)):
            if len(self.data) >= MAX_HEAD_BYTES:
                raise HTTPError("too large")
            yield
        taken, self.data = self.data[: match.end()], self.data[match.end() :]
        if not shape.fullmatch(taken):
            raise HTTPError("malformed")
        return taken

    def _count(self, size: int) -> Iterator[None]:
        """So many bytes of the body."""
        while len(self.data) < size:
            size -= len(self.data)
            self.body_bytes += len(self.data)
            self.data = b""
            yield
        self.body_bytes += size
        self.data = self.data[size:]
