"""The head of one request, as whoever parsed it hands it to the door: no framework's object, no parsing.

Alone says how header lines are looked up: lower-case names, the first of several lines, latin-1 text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Lines = Sequence[tuple[bytes, bytes]]
"""(lower-case name, value), in the order they came."""


class Asked(NamedTuple):
    method: str
    path: str
    """As sent, percent-encoded; of an absolute target only its path."""
    query_string: bytes
    lines: Lines
    peer: str
    """The IP address at the other end of the connection, which may be a proxy's."""
    scheme: str

    def get(self, name: str, default: str | None = None) -> str | None:
        """The value of the first line of this lower-case name."""
        wanted = name.encode()
        for line, value in self.lines:
            if line == wanted:
                return value.decode("latin-1")
        return default

    @property
    def content_length(self) -> int | None:
        """None: the body comes in chunks, or there is none."""
        length = self.get("content-length")
        return None if length is None else int(length)


def path_and_query(target: bytes) -> tuple[str, bytes]:
    """Of a request target, also of an absolute one (RFC 9112 section 3.2.2)."""
    raw_path, _, query_string = target.partition(b"?")
    path = raw_path.decode("ascii")
    if path.startswith(("http://", "https://")):
        path = "/" + path.split("/", 3)[3] if path.count("/") > 2 else "/"
    return (path if path.startswith("/") else "/" + path), query_string
