"""What is a request and what is none: every way of telling two readers different things is refused."""

from __future__ import annotations

import random

import h11
import pytest

from transport.front.http1 import NotHttp, Reader, answer

POST = b"POST /a?b HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def read(data: bytes, *, pieces: list[int] | None = None) -> list[tuple[str, bytes, bytes, bool]]:
    """(method, target, body, is_last) of all whole requests; ``pieces``: sizes in which it comes."""
    reader, found, at = Reader(), [], 0
    head, body = None, b""
    for size in pieces or [len(data)]:
        reader.feed(data[at : at + size])
        at += size
        while True:
            if head is None:
                head = reader.next_head()
                if head is None:
                    break
            while part := reader.body(7):
                body += part
            if not reader.body_ended:
                break
            found.append((head.method, head.target, body, head.is_last))
            head, body = None, b""
    return found


WHOLE = [
    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", ("GET", b"/", b"", False)),
    (b"GET / HTTP/1.0\r\n\r\n", ("GET", b"/", b"", True)),
    (b"get http://y/z HTTP/1.1\r\nhost:x\r\n\r\n", ("GET", b"http://y/z", b"", False)),
    (POST + b"Content-Length: 3\r\n\r\nabc", ("POST", b"/a?b", b"abc", False)),
    (POST + b"Content-Length:\t003 \r\nConnection: x, Close\r\n\r\nabc", ("POST", b"/a?b", b"abc", True)),
    (
        CHUNKED + b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n00\r\nT: u\r\n\r\n",
        ("POST", b"/a?b", b"abc0123456789", False),
    ),
    (CHUNKED + b"0\r\n\r\n", ("POST", b"/a?b", b"", False)),
    (
        POST + b"Upgrade: h2c\r\nConnection: Upgrade\r\nX: \xff\r\nEmpty:\r\n\r\n",
        ("POST", b"/a?b", b"", False),
    ),
]


@pytest.mark.parametrize(("data", "request_"), WHOLE, ids=range(len(WHOLE)))
def test_a_request_is_the_same_however_its_bytes_come(data: bytes, request_: tuple[object, ...]) -> None:
    assert read(data * 2) == [request_] * 2
    assert read(data, pieces=[1] * len(data)) == [request_]
    assert read(data[:-1]) == []


REFUSED = [
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
    (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nNo colon\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\n: empty\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nN\xc3\xa4me: y\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\x00\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nA: \x7f\r\n\r\n", 400),
    (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n", 400),
    (b"GET /\xe9 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 400),
    (b"GET / http/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /\r\nHost: x\r\n\r\n", 400),
    (b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"\x16\x03\x01", 400),
    (POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na", 400),
    (POST + b"Content-Length: 1, 1\r\n\r\na", 400),
    (POST + b"Content-Length: +1\r\n\r\na", 400),
    (POST + b"Content-Length: 0x1\r\n\r\na", 400),
    (POST + b"Content-Length: \xb2\r\n\r\na", 400),
    (POST + b"Content-Length: " + b"9" * 19 + b"\r\n\r\na", 400),
    (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    (POST + b"Transfer-Encoding: identity\r\n\r\n", 501),
    (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    (POST + b"Transfer-Encoding: xchunked\r\n\r\n", 501),
    (b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (POST + b"Authorization: a\r\nauthorization: b\r\n\r\n", 400),
    (POST + b"X-Api-Key: a\r\nx-api-key: a\r\n\r\n", 400),
    (CHUNKED + b"x\r\n", 400),
    (CHUNKED + b"-1\r\n", 400),
    (CHUNKED + b"0x1\r\n", 400),
    (CHUNKED + b" 1\r\na", 400),
    (CHUNKED + b"1 \r\na\r\n", 400),
    (CHUNKED + b"1\na", 400),
    (CHUNKED + b"1\r\nab", 400),
    (CHUNKED + b"1\r\na\n0\r\n\r\n", 400),
    (CHUNKED + b"1;" + b"x" * 300, 400),
    (CHUNKED + b"1" * 16 + b"\r\n", 400),
    (CHUNKED + b"0\r\nBad trailer\r\n\r\n", 400),
    (CHUNKED + b"0\r\nA: b\n\r\n", 400),
    (CHUNKED + b"0\r\nA: " + b"b" * 20_000, 431),
    (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 16_384 + b"\r\n\r\n", 431),
    (b"G" * 16_385, 431),
]


@pytest.mark.parametrize(("data", "status"), REFUSED, ids=range(len(REFUSED)))
def test_what_two_readers_could_take_differently_is_no_request(data: bytes, status: int) -> None:
    for pieces in ([len(data)], [1] * len(data) if len(data) < 1000 else [100] * (len(data) // 100 + 1)):
        with pytest.raises(NotHttp) as refused:
            read(data, pieces=pieces)
        assert refused.value.status == status


def test_what_is_hopeless_is_told_before_the_head_has_ended() -> None:
    for hopeless in (b"\x00", b"GET /\x00", b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\r\nA: b\rc"):
        with pytest.raises(NotHttp):
            read(hopeless, pieces=[1] * len(hopeless))


@pytest.mark.parametrize("seed", range(8))
def test_what_passes_here_reads_the_same_in_h11(seed: int) -> None:
    """Requests made of good and bad parts. ``make fuzz`` goes on from here."""
    from tests.fuzz.of_requests import same_in_h11

    chance = random.Random(seed)
    for _ in range(50):
        lines = [chance.choice(LINES) for _ in range(chance.randrange(5))]
        head = b"".join([chance.choice(FIRST), b"Host: x\r\n", *lines, chance.choice(ENDS)])
        data = bytearray(head + chance.choice(BODIES))
        for _ in range(chance.choice((0, 0, 1, 2))):
            data[chance.randrange(len(data))] = chance.choice(b"\r\n\t :;,\x00aA0")
        same_in_h11(bytes(data))


FIRST = [
    b"GET / HTTP/1.1\r\n",
    b"POST /a HTTP/1.1\r\n",
    b"POST http://a/b?c HTTP/1.0\r\n",
    b"HEAD * HTTP/1.1\r\n",
]
LINES = [
    b"Content-Length: 3\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: Chunked\r\n",
    b"Connection: close\r\n",
    b"A:  b \t\r\n",
    b"A: \xff\r\n",
    b"X-Api-Key: k\r\n",
    b"Expect: 100-continue\r\n",
]
ENDS = [b"\r\n", b"\r\n", b"\n", b""]
BODIES = [
    b"abc",
    b"3\r\nabc\r\n0\r\n\r\n",
    b"3;a=b\r\nabc\r\n0\r\nT: u\r\n\r\n",
    b"",
    b"abcGET / HTTP/1.1\r\nHost: x\r\n\r\n",
]


def test_an_answer_is_one_that_h11_reads() -> None:
    for status, body, is_last, to_head in (
        (200, b"ab", False, False),
        (404, b"", True, False),
        (200, b"ab", False, True),
    ):
        raw = answer(status, [(b"content-length", b"%d" % len(body))], body, is_last=is_last, to_head=to_head)
        peer = h11.Connection(h11.CLIENT)
        peer.send(h11.Request(method="HEAD" if to_head else "GET", target="/", headers=[("host", "x")]))
        peer.send(h11.EndOfMessage())
        peer.receive_data(raw)
        response = peer.next_event()
        assert isinstance(response, h11.Response)
        assert response.status_code == status
        assert dict(response.headers)[b"date"].endswith(b"GMT")
        data = peer.next_event()
        if body and not to_head:
            assert isinstance(data, h11.Data)
            assert data.data == body
            data = peer.next_event()
        assert isinstance(data, h11.EndOfMessage)
        assert (peer.their_state is h11.MUST_CLOSE) is is_last
