"""The parser of responses against h11, wherever the bytes are split; and each kind of bad response."""

from __future__ import annotations

import contextlib

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stubs import HEAD

from engine.client import ERRORS
from engine.http1 import MAX_HEAD_BYTES, HTTPError, ResponseParser

NAMES = st.sampled_from([b"Server", b"x-y", b"DATE", b"Set-Cookie", b"X-" + b"a" * 50])
VALUES = st.text("abcXYZ019 ,;=\t\x80\xff", max_size=20).map(lambda text: text.strip().encode("latin-1"))
SOME = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def responses(draw):
    """Bytes of a valid response, its request method, and whether the server closes after it."""

    def one_of(*values):
        return draw(st.sampled_from(values))

    eol, body = one_of(b"\r\n", b"\r\n", b"\n"), draw(st.binary(max_size=60))
    method, status = one_of(b"GET", b"GET", b"POST", b"HEAD"), one_of(200, 201, 204, 302, 304, 404, 500, 503)
    framing = one_of("length", "chunked", "close")
    has_body = method != b"HEAD" and status not in (204, 304)
    headers = draw(st.lists(st.tuples(NAMES, VALUES), max_size=3))
    if framing == "length":
        headers.append((one_of(b"Content-Length", b"content-length", b"CONTENT-LENGTH"), b"%d" % len(body)))
    elif framing == "chunked":
        headers.append((b"transfer-Encoding", one_of(b"chunked", b"Chunked")))
    if one_of(True, False):
        headers.append((b"Connection", one_of(b"close", b"Close", b"x, close")))
    out = (b"HTTP/1.1 100 Continue" + eol + eol) * one_of(0, 1, 2)
    out += b"HTTP/%b %d%b%b" % (one_of(b"1.1", b"1.1", b"1.0"), status, one_of(b" OK", b" ", b"", b" No"), eol)
    for name, value in draw(st.permutations(headers)):
        out += name + b":" + one_of(b"", b" ", b"\t ") + value + eol
    out += eol
    if has_body and framing == "chunked":
        while body:
            size = draw(st.integers(1, len(body)))
            out += b"%x%b\r\n%b\r\n" % (size, one_of(b"", b";a=b"), body[:size])
            body = body[size:]
        body = b"0\r\n" + one_of(b"", b"X-Trailer: 1\r\n") + b"\r\n"
    return out + body * has_body, method, has_body and framing == "close"


def read_with_h11(data: bytes, method: bytes) -> tuple[int, int, bool]:
    """The oracle: status, bytes of the body, whether the connection may be used again."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("host", "x"), ("content-length", "0")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    status, size, closed = 0, 0, False
    for event in iter(connection.next_event, None):
        if event is h11.NEED_DATA:
            assert not closed, "h11 wants more"
            connection.receive_data(b"")
            closed = True
        elif isinstance(event, h11.EndOfMessage):
            break
        elif isinstance(event, h11.Data):
            size += len(event.data)
        else:
            status = event.status_code
    return status, size, connection.their_state is h11.DONE and not closed


@SOME
@given(responses())
def test_the_parser_agrees_with_h11_wherever_the_bytes_are_split(response):
    data, method, closes = response
    expected = read_with_h11(data, method)
    for cut in range(len(data)):  # a cut response is never taken for a complete one
        parser = ResponseParser(method == b"HEAD")
        if not (cut and parser.feed(data[:cut])) and not (closes and parser.until_close):
            with pytest.raises(HTTPError, match="truncated" if cut else "closed"):
                parser.feed(b"")
    for pieces in *([data[:cut], data[cut:]] for cut in range(len(data))), [data[i : i + 1] for i in range(len(data))]:
        if closes or parser.steps:  # else one parser reads one response after another
            parser = ResponseParser(method == b"HEAD")
        *early, complete = [parser.feed(piece) for piece in pieces if piece]
        assert not any(early) and (complete or parser.feed(b""))
        assert (parser.status, parser.body_bytes, parser.keep_alive) == expected


ODD_PIECES = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 ", b"\r\n", b"\n", b"\r", b"Content-Length: ", b"5", b"-1", b" ", b": ",
    b"Transfer-Encoding: chunked\r\n\r\n", b"ffffffffffffffffffff\r\n", b"0\r\n", b"\x00", b"\xff",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(st.binary(min_size=1, max_size=30), st.sampled_from(ODD_PIECES)), max_size=12))
def test_whatever_arrives_the_parser_ends_or_raises_its_own_error(pieces):
    parser = ResponseParser()
    try:
        for piece in pieces:
            if parser.feed(piece):
                return
        parser.feed(b"")
    except HTTPError as error:
        assert str(error) in ERRORS


CHUNKED, LENGTH = HEAD + b"Transfer-Encoding: chunked\r\n", HEAD + b"Content-Length: "
BAD = {
    "closed": [b""],
    "truncated": [b"HTTP/1.1 100 Continue\r\n\r\n", LENGTH + b"5\r\n\r\nabc", CHUNKED + b"\r\n3\r\nabc"],
    "malformed": [
        b"hello\r\n\r\n",
        b"\n\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        HEAD + b"no colon\r\n\r\n",
        HEAD + b"bad name: x\r\n\r\n",
        LENGTH + b"5\r\nContent-Length: 6\r\n\r\n",
        LENGTH + b"-5\r\n\r\n",
        LENGTH + b"1_0\r\n\r\n",
        LENGTH + b"\r\n\r\n",
        HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
        CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n",
        CHUNKED + b"\r\nxyz\r\n",
        CHUNKED + b"\r\n3\r\nabcd\r\n",
        LENGTH + b"1\r\n\r\nab",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\nxx\r\n\r\n",  # the head ends at the first blank line
        b"HTTP/1.1 204 No Content\r\n\r\nx",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
    "too large": [HEAD + b"X: " + b"a" * MAX_HEAD_BYTES, CHUNKED + b"\r\n" + b"1" * MAX_HEAD_BYTES * 2],
}


@pytest.mark.parametrize(("kind", "data"), [(kind, data) for kind, datas in BAD.items() for data in datas])
def test_a_bad_response_has_a_named_error(kind, data):
    parser = ResponseParser()
    with pytest.raises(HTTPError, match=kind):
        assert not parser.feed(data)
        parser.feed(b"")


@pytest.mark.parametrize("more", [0, 1])
def test_heads_and_trailers_have_room_up_to_their_limit(more):
    room = MAX_HEAD_BYTES - 4 + more
    for data in ((LENGTH + b"0\r\nX: ").ljust(room, b"x"), CHUNKED + b"\r\n0\r\n" + b"X: ".ljust(room - 1, b"x")):
        parser = ResponseParser()
        with pytest.raises(HTTPError) if more else contextlib.nullcontext():
            assert [parser.feed(piece) for piece in (data[:9], data[9:], b"\r\n\r\n")] == [False, False, True]


@pytest.mark.parametrize("size", (1, 3, 1000))
@pytest.mark.parametrize(
    "head", [b"Content-Length: 9\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n9\r\n", b"Connection: close\r\n\r\n"]
)
def test_with_the_first_byte_a_response_can_be_complete(head, size):
    text, parser = b"HTTP/1.1 200 OK\r\n" + head + b"a", ResponseParser(first_byte=True)
    said = [parser.feed(text[i : i + size]) for i in range(0, len(text), size)]
    assert said == [False] * (len(said) - 1) + [True]
    assert (parser.status, parser.body_bytes, parser.keep_alive) == (200, 1, False)
