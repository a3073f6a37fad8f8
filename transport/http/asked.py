"""The head of one request, as whoever parsed it hands it to the door: no framework's object, no parsing.

Alone says how header lines are looked up: lower-case names, the first of several lines, latin-1 text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

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


def asked_in(scope: Any) -> Asked:
    """The request of an ASGI scope."""
    peer = scope["client"][0] if scope.get("client") else "unknown"
    path, _ = path_and_query(scope["raw_path"])
    return Asked(scope["method"], path, scope["query_string"], scope["headers"], peer, scope["scheme"])


def scope_of(asked: Asked) -> dict[str, Any]:
    """The ASGI scope of a request that no ASGI server parsed."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.1"},
        "http_version": "1.1",
        "method": asked.method,
        "scheme": asked.scheme,
        "path": unquote(asked.path),
        "raw_path": asked.path.encode("ascii"),
        "query_string": asked.query_string,
        "root_path": "",
        "headers": list(asked.lines),
        "client": (asked.peer, 0),
        "server": None,
        "state": {},
        "extensions": {},
    }
