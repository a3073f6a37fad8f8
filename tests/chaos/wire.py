"""What a PostgreSQL client says, cut into messages: enough of the protocol to know a COMMIT when it passes.

Pure (bytes in, messages out), after "Message Formats" in PostgreSQL's manual. Knows only the client's half,
and no TLS: a chaos run speaks plain TCP on loopback. Never changes a byte.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Point = Literal["begin", "advance", "copy", "copied", "commit", "commit-other"]
"""Moments of an append as the wire shows them, in order: BEGIN (of any transaction), the compare-and-set,
COPY asked for, the rows' end, COMMIT (of a small append: the one statement that it is); and the COMMIT of any
other transaction."""

_REQUESTS_WITHOUT_SESSION = {80877103, 80877104}  # SSLRequest, GSSENCRequest: one byte answers, then again
_LENGTH = struct.Struct(">I")
_ADVANCE = b"record.ves_advance_groups("
_AT_ONCE = b"record.ves_append_groups("
MESSAGE_BYTES_MAX = 64 * 1024 * 1024


class NotPostgres(Exception):
    """Bytes that no PostgreSQL client sends."""


@dataclass(frozen=True)
class Message:
    """``raw`` is all of it, ``point`` the moment of an append that it is, if it is one."""

    raw: bytes
    point: Point | None


class ClientMessages:
    """Feed what came, iterate what is complete."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._in_session = False
        self._advances: set[bytes] = set()
        """Names of prepared statements that do the compare-and-set."""
        self._at_once: set[bytes] = set()
        """Names of prepared statements that are an append."""
        self._held_back = b""
        """Of such a statement what came of Bind, Execute and Sync: one message to whoever reads."""
        self._appending = False

    def feed(self, data: bytes) -> Iterator[Message]:
        self._unread += data
        while (message := self._next()) is not None:
            yield message

    def _next(self) -> Message | None:
        start = 1 if self._in_session else 0
        if len(self._unread) < start + 4:
            return None
        (length,) = _LENGTH.unpack_from(self._unread, start)
        if not 4 <= length <= MESSAGE_BYTES_MAX:
            raise NotPostgres(f"a message of {length} bytes")
        if len(self._unread) < start + length:
            return None
        raw = bytes(self._unread[: start + length])
        del self._unread[: start + length]
        if not self._in_session:
            self._in_session = _LENGTH.unpack_from(raw, 4)[0] not in _REQUESTS_WITHOUT_SESSION
        kind, body = raw[:start], raw[start + 4 :]
        if self._held_back or (kind == b"B" and body.split(b"\x00", 2)[1] in self._at_once):
            self._held_back += raw
            if kind != b"S":
                return self._next()
            raw, self._held_back = self._held_back, b""
            return Message(raw, "commit")
        return Message(raw, self._point(kind, body))

    def _point(self, kind: bytes, body: bytes) -> Point | None:
        """``kind`` is the type byte, empty for the messages that open a session."""
        if kind == b"Q":
            if body.startswith(b"BEGIN"):
                self._appending = False
                return "begin"
            if body == b"COMMIT\x00":
                return "commit" if self._appending else "commit-other"
            return "copy" if body.startswith(b"COPY ") else None
        if kind == b"P" and _ADVANCE in body:
            self._advances.add(body.split(b"\x00", 1)[0])
        if kind == b"P" and _AT_ONCE in body:
            self._at_once.add(body.split(b"\x00", 1)[0])
        if kind == b"B" and body.split(b"\x00", 2)[1] in self._advances:
            self._appending = True
            return "advance"
        return "copied" if kind == b"c" else None
