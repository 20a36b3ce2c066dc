"""The parser of responses against h11, wherever the bytes are split; and each kind of bad response."""

from __future__ import annotations

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stubs import HEAD

from engine.client import ERRORS
from engine.http1 import MAX_BODY_BYTES, MAX_HEAD_BYTES, HTTPError, ResponseParser

NAMES = st.sampled_from([b"Server", b"x-y", b"DATE", b"Set-Cookie", b"X-" + b"a" * 50])
VALUES = st.text("abcXYZ019 ,;=\t\x80\xff", max_size=20).map(lambda text: text.strip().encode("latin-1"))
SOME = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def responses(draw):
    """Bytes of a valid response, its request method, and whether the server closes after it."""
    eol = draw(st.sampled_from([b"\r\n", b"\r\n", b"\n"]))
    method = draw(st.sampled_from([b"GET", b"GET", b"POST", b"HEAD"]))
    status = draw(st.sampled_from([200, 201, 204, 302, 304, 404, 500, 503]))
    body = draw(st.binary(max_size=60))
    headers = draw(st.lists(st.tuples(NAMES, VALUES), max_size=3))
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    has_body = method != b"HEAD" and status not in (204, 304)
    out = (b"HTTP/1.1 100 Continue" + eol + eol) * draw(st.integers(0, 2))
    if framing == "length":
        case = draw(st.sampled_from([b"Content-Length", b"content-length", b"CONTENT-LENGTH"]))
        headers.append((case, b"%d" % len(body)))
    elif framing == "chunked":
        headers.append((b"transfer-Encoding", draw(st.sampled_from([b"chunked", b"Chunked"]))))
    if draw(st.booleans()):
        headers.append((b"Connection", draw(st.sampled_from([b"close", b"Close", b"x, close"]))))
    version, reason = (
        draw(st.sampled_from([b"1.1", b"1.1", b"1.0"])),
        draw(st.sampled_from([b" OK", b" ", b"", b" No"])),
    )
    out += b"HTTP/%s %d%s" % (version, status, reason) + eol
    for name, value in draw(st.permutations(headers)):
        out += name + b":" + draw(st.sampled_from([b"", b" ", b"\t "])) + value + eol
    out += eol
    if has_body and framing == "chunked":
        while body:
            size = draw(st.integers(1, len(body)))
            out += b"%x%b\r\n%b\r\n" % (size, draw(st.sampled_from([b"", b";a=b"])), body[:size])
            body = body[size:]
        out += b"0\r\n" + draw(st.sampled_from([b"", b"X-Trailer: 1\r\n"])) + b"\r\n"
    elif has_body:
        out += body
    return out, method, has_body and framing == "close"


def read_with_h11(data: bytes, method: bytes) -> tuple[int, int, bool]:
    """The oracle: status, bytes of the body, whether the connection may be used again."""
    connection = h11.Connection(h11.CLIENT)
    length = [("content-length", "0")] if method == b"POST" else []
    connection.send(h11.Request(method=method, target="/", headers=[("host", "x"), *length]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    status, size, closed = 0, 0, False
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            assert not closed, "h11 wants more"
            connection.receive_data(b"")
            closed = True
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            size += len(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return status, size, connection.their_state is h11.DONE and not closed


def read_with_ours(pieces: list[bytes], method: bytes) -> tuple[int, int, bool]:
    parser = ResponseParser(method == b"HEAD")
    complete = [parser.feed(piece) for piece in pieces if piece]
    assert not any(complete[:-1])
    assert complete[-1] or parser.feed(b"")
    return parser.status, parser.body_bytes, parser.keep_alive


@SOME
@given(responses())
def test_the_parser_agrees_with_h11_wherever_the_bytes_are_split(response):
    data, method, _ = response
    expected = read_with_h11(data, method)
    for cut in range(len(data)):
        assert read_with_ours([data[:cut], data[cut:]], method) == expected
    assert read_with_ours([data[i : i + 1] for i in range(len(data))], method) == expected


@SOME
@given(responses(), st.data())
def test_a_cut_response_is_never_taken_for_a_complete_one(response, data):
    raw, method, closes = response
    cut = data.draw(st.integers(0, len(raw) - 1))
    parser = ResponseParser(method == b"HEAD")
    assert not (cut and parser.feed(raw[:cut]))
    if closes and parser.until_close:
        assert parser.feed(b"")
    else:
        with pytest.raises(HTTPError) as error:
            parser.feed(b"")
        assert str(error.value) == ("truncated" if cut else "closed")


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


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "closed"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "truncated"),
        (HEAD + b"Content-Length: 5\r\n\r\nabc", "truncated"),
        (CHUNKED + b"\r\n3\r\nabc", "truncated"),
        (b"hello\r\n\r\n", "malformed"),
        (b"\n\n", "malformed"),
        (b"HTTP/2 200 OK\r\n\r\n", "malformed"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "malformed"),
        (HEAD + b"no colon\r\n\r\n", "malformed"),
        (HEAD + b"bad name: x\r\n\r\n", "malformed"),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "malformed"),
        (HEAD + b"Content-Length: -5\r\n\r\n", "malformed"),
        (HEAD + b"Content-Length: 1_0\r\n\r\n", "malformed"),
        (HEAD + b"Content-Length:\r\n\r\n", "malformed"),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", "malformed"),
        (CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n", "malformed"),
        (CHUNKED + b"\r\nxyz\r\n", "malformed"),
        (CHUNKED + b"\r\n3\r\nabcd\r\n", "malformed"),
        (HEAD + b"Content-Length: 1\r\n\r\nab", "malformed"),
        (b"HTTP/1.1 200 OK\nContent-Length: 0\n\nxx\r\n\r\n", "malformed"),  # the head ends at the first blank line
        (b"HTTP/1.1 204 No Content\r\n\r\nx", "malformed"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "malformed"),
        (HEAD + b"X: " + b"a" * MAX_HEAD_BYTES, "too large"),
        (HEAD + b"Content-Length: 9999999999999\r\n\r\n", "too large"),
        (CHUNKED + b"\r\n" + b"1" * MAX_HEAD_BYTES * 2, "too large"),
        (HEAD + b"\r\n" + b"x" * (MAX_BODY_BYTES + 1), "too large"),
    ],
)
def test_a_bad_response_has_a_named_error(data, kind):
    parser = ResponseParser()
    with pytest.raises(HTTPError) as error:
        assert not parser.feed(data)
        parser.feed(b"")
    assert str(error.value) == kind


def test_one_parser_reads_one_response_after_another():
    parser = ResponseParser()
    for pieces, size in (([b"0\r\n\r\n"], 0), ([b"3\r\n\r\n", b"abc"], 3), ([b"2\r\n\r\nab"], 2)):
        assert [parser.feed(HEAD + b"Content-Length: " + pieces[0]), *map(parser.feed, pieces[1:])][-1]
        assert (parser.status, parser.body_bytes, parser.keep_alive) == (200, size, True)


@pytest.mark.parametrize(("bytes_more", "is_too_large"), [(0, False), (1, True)])
def test_heads_and_trailers_have_room_up_to_their_limit(bytes_more, is_too_large):
    start, room = HEAD + b"Content-Length: 0\r\nX: ", MAX_HEAD_BYTES + bytes_more
    head = start + b"x" * (room - len(start) - 4) + b"\r\n\r\n"
    trailer = b"X: " + b"x" * (room - 8) + b"\r\n\r\n"
    for pieces in ([head[:9], head[9:]], [CHUNKED + b"\r\n0\r\n", trailer]):
        parser = ResponseParser()
        if is_too_large:
            with pytest.raises(HTTPError):
                [parser.feed(piece) for piece in pieces]
        else:
            assert [parser.feed(piece) for piece in pieces] == [False, True]
