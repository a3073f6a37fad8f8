"""HTTP/1.1 as bytes: requests out of what a connection brought, answers into what it is sent. No I/O.

Alone decides what is a request. It is strict where RFC 9112 lets a reader be lenient, because what two
readers take for two different requests is how one is smuggled past the other: lines end with CRLF, names are
tokens and touch their colon, nothing is folded, a request has one Host, at most one credential of a kind and
one way to tell its length. ``make fuzz`` holds it against h11: whatever passes here reads the same there. It
knows no route and reads no header's meaning but those of the connection.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from email.utils import formatdate
from functools import lru_cache
from typing import NamedTuple

from transport.http.patience import HEAD_BYTES_MAX

CHUNK_LINE_BYTES_MAX = 256
"""Size and extensions of a chunk; nobody sends extensions."""

CR = 13
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.([01])")
_NAME = re.compile(_TOKEN)
_FIRST = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]")
_NO_TEXT = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""Where no CRLF is: controls, and a CR or LF alone."""
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_ONCE = (b"host", b"content-length", b"transfer-encoding", b"authorization", b"x-api-key")
_WITHOUT_BODY = frozenset({204, 304})


class NotHttp(Exception):
    """What came is no request that we take; nothing after it on this connection can be believed."""

    def __init__(self, text: str = "not HTTP/1.1", status: int = 400) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


class Head(NamedTuple):
    method: str
    target: bytes
    lines: list[tuple[bytes, bytes]]
    """Lower-case names."""
    length: int | None
    """Of the body; None: it comes in chunks."""
    is_last: bool
    """The peer wants no further answer on this connection."""
    waits_for_continue: bool


class Reader:
    """The requests of one connection, one after the other: a head, then its whole body, then the next."""

    __slots__ = ("_buffer", "_chunk_left", "_chunked", "_left", "_looked", "body_ended")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._looked = 0
        """So far the buffer holds no end of a head, and nothing that a head must not have."""
        self.body_ended = True
        self._left = 0
        self._chunked = False
        self._chunk_left: int | None = None
        """Of the chunk that has begun, with its CRLF; None: a chunk's line comes next."""

    def feed(self, data: bytes) -> None:
        self._buffer += data

    @property
    def unread(self) -> int:
        """Bytes that nobody has taken yet."""
        return len(self._buffer)

    def next_head(self) -> Head | None:
        """None while it is not complete. Raises NotHttp. Only after the end of the body before."""
        buffer = self._buffer
        if not buffer:
            return None
        end = buffer.find(b"\r\n\r\n", max(0, self._looked - 3))
        if end < 0:
            self._look_at_a_part(buffer)
            return None
        if end > HEAD_BYTES_MAX:
            raise NotHttp("the request's head is too large", 431)
        head = _head(bytes(buffer[:end]))
        del buffer[: end + 4]
        self._looked = 0
        self._chunked = head.length is None
        self._left = head.length or 0
        self._chunk_left = None
        self.body_ended = head.length == 0
        return head

    def _look_at_a_part(self, buffer: bytearray) -> None:
        """What can no more become a head is told at once, not when the patience for it has ended."""
        # A CR at the end of the last look may have got its LF.
        begin = self._looked - (self._looked > 0 and buffer[self._looked - 1] == CR)
        if not _FIRST.match(buffer) or _is_no_text(buffer[begin:]):
            raise NotHttp
        if len(buffer) > HEAD_BYTES_MAX:
            raise NotHttp("the request's head is too large", 431)
        self._looked = len(buffer)

    def body(self, bytes_max: int) -> bytes:
        """The next part of the body, as far as it is here: empty when nothing is, or ``body_ended``. Raises
        NotHttp."""
        if self._chunked:
            return self._of_chunks(bytes_max)
        part = bytes(self._buffer[: min(self._left, bytes_max)])
        del self._buffer[: len(part)]
        self._left -= len(part)
        self.body_ended = not self._left
        return part

    def _of_chunks(self, bytes_max: int) -> bytes:
        parts: list[bytes] = []
        at, room, buffer = 0, bytes_max, self._buffer
        while room > 0 and not self.body_ended:
            if self._chunk_left is None:
                line_end = self._chunk_begins(at)
                if line_end is None:
                    break
                at = line_end
            elif self._chunk_left > 2:
                part = bytes(buffer[at : at + min(self._chunk_left - 2, room)])
                if not part:
                    break
                parts.append(part)
                at, room, self._chunk_left = at + len(part), room - len(part), self._chunk_left - len(part)
            else:
                if len(buffer) < at + 2:
                    break
                if buffer[at : at + 2] != b"\r\n":
                    raise NotHttp("a chunk is longer than it says")
                at, self._chunk_left = at + 2, None
        del buffer[:at]
        return b"".join(parts)

    def _chunk_begins(self, at: int) -> int | None:
        """Where its data begin; None when its line is not complete."""
        buffer = self._buffer
        end = buffer.find(b"\r\n", at, at + CHUNK_LINE_BYTES_MAX)
        if end < 0:
            if len(buffer) - at >= CHUNK_LINE_BYTES_MAX or b"\n" in buffer[at:]:
                raise NotHttp("a chunk begins with no size")
            return None
        line = _CHUNK_LINE.fullmatch(buffer, at, end)
        if line is None:
            raise NotHttp("a chunk begins with no size")
        size = int(line[1], 16)
        if size:
            self._chunk_left = size + 2
            return end + 2
        return self._trailers_end(end)

    def _trailers_end(self, at: int) -> int | None:
        """``at``: the CRLF of the last chunk's line. Trailers are read like a head, and thrown away."""
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n", at, at + HEAD_BYTES_MAX)
        if end < 0:
            if len(buffer) - at >= HEAD_BYTES_MAX:
                raise NotHttp("the trailers are too large", 431)
            if _is_no_text(buffer[at:]):
                raise NotHttp
            return None
        _lines(bytes(buffer[at + 2 : end]))
        self.body_ended = True
        return end + 4


def _head(raw: bytes) -> Head:
    first, _, rest = raw.partition(b"\r\n")
    request = _REQUEST_LINE.fullmatch(first)
    if request is None:
        raise NotHttp
    lines = _lines(rest)
    method, target, is_1_0 = request[1].decode().upper(), request[2], request[3] == b"0"
    found: dict[bytes, bytes] = {}
    for name, value in lines:
        if name in _ONCE and name in found:
            raise NotHttp(f"{name.decode()} is given twice")
        found.setdefault(name, value)
    if b"host" not in found and not is_1_0:
        raise NotHttp("HTTP/1.1 needs a Host")
    return Head(
        method,
        target,
        lines,
        _length(found, is_1_0),
        is_1_0 or _says_close(lines),
        not is_1_0 and found.get(b"expect", b"").lower() == b"100-continue",
    )


def _is_no_text(part: bytes | bytearray) -> bool:
    """It has controls, or a CR or LF without the other. A CR at its end may get its LF yet."""
    return _NO_TEXT.search(part.removesuffix(b"\r").replace(b"\r\n", b"")) is not None


def _lines(raw: bytes) -> list[tuple[bytes, bytes]]:
    lines = []
    for line in raw.split(b"\r\n") if raw else ():
        name, colon, value = line.partition(b":")
        if not colon or _NO_TEXT.search(value):
            raise NotHttp
        lines.append((_name(name) if len(name) <= 64 else _name.__wrapped__(name), value.strip(b" \t")))
    return lines


@lru_cache(maxsize=512)
def _name(raw: bytes) -> bytes:
    """Few names come again and again. Raises NotHttp."""
    if not _NAME.fullmatch(raw):
        raise NotHttp
    return raw.lower()


def _length(found: dict[bytes, bytes], is_1_0: bool) -> int | None:
    coding, length = found.get(b"transfer-encoding"), found.get(b"content-length")
    if coding is None:
        if length is None:
            return 0
        if not _LENGTH.fullmatch(length):
            raise NotHttp("Content-Length is no number")
        return int(length)
    if length is not None or is_1_0:
        raise NotHttp("Transfer-Encoding beside Content-Length, or in HTTP/1.0")
    if coding.lower() != b"chunked":
        raise NotHttp("this transfer coding is not implemented", 501)
    return None


def _says_close(lines: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(
        option.strip().lower() == b"close"
        for name, value in lines
        if name == b"connection"
        for option in value.split(b",")
    )


CONTINUE = b"HTTP/1.1 100 \r\n\r\n"


def answer(
    status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes, *, is_last: bool, to_head: bool = False
) -> bytes:
    """A whole answer. ``headers`` tell the body's length; ``to_head``: the request was HEAD."""
    head = [b"HTTP/1.1 %d \r\n" % status]
    head += [b"%b: %b\r\n" % line for line in headers]
    head.append(_date(int(time.time())))
    head.append(b"connection: close\r\n\r\n" if is_last else b"\r\n")
    if not to_head and status not in _WITHOUT_BODY:
        head.append(body)
    return b"".join(head)


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return b"date: %b\r\n" % formatdate(second, usegmt=True).encode()
