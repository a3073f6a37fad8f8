"""The headers that every answer carries, whoever makes it: told to browsers, which should find nothing here.

Alone owns the list. It knows no request; the door and the connection ask it once.
"""

from __future__ import annotations

Headers = tuple[tuple[bytes, bytes], ...]

ALWAYS: Headers = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
HSTS = (b"strict-transport-security", b"max-age=63072000")
"""Two years. Over plain HTTP it means nothing (RFC 6797 section 7.2) and is not sent."""
OVER_TLS: Headers = (*ALWAYS, HSTS)


def security_headers(*, over_tls: bool) -> Headers:
    """``over_tls``: the client's connection is encrypted, by us or by a proxy before us."""
    return OVER_TLS if over_tls else ALWAYS
