"""Whose request this is, when a proxy of ours stands between: the address to count, limit and audit by.

Pure, and the only reader of ``X-Forwarded-For``. Anybody can write that header, so it is believed only as far
as each machine on the way is a configured proxy, from the right, where the last of them wrote; never more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network

from config.networks import Address, Networks, holds, parse_address

FORWARDED_FOR = b"x-forwarded-for"
IPV6_PREFIX = 64
"""What one subscriber usually gets: addresses inside of it cost nothing."""


def client_address(peer: str, headers: Iterable[tuple[bytes, bytes]], proxies: Networks) -> str:
    """The peer, unless it is a proxy: then the right-most forwarded address that is none.

    ``headers``: lower-case names. When what the proxies say is malformed or missing, or names only proxies,
    it is the peer: who cannot be told apart shares one address."""
    try:
        at = parse_address(peer.partition("%")[0])
    except ValueError:
        return peer  # no IP socket
    if not proxies or not holds(proxies, at):
        return str(at)
    return str(_forwarded(_entries(headers), proxies) or at)


@lru_cache(maxsize=10_000)
def network(address: str) -> str:
    """An IPv4 address itself, also one mapped into IPv6; of an IPv6 address its /64."""
    if ":" not in address:
        return address
    try:
        parsed = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((int(parsed), IPV6_PREFIX), strict=False))


def is_allowed(address: str, networks: Networks) -> bool:
    """``address`` as ``client_address`` answers it; what is no IP address is in no network."""
    try:
        return holds(networks, parse_address(address))
    except ValueError:
        return False


def _entries(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """All lines of the header are one list, in the order they came (RFC 9110 section 5.3)."""
    return [part for name, value in headers if name == FORWARDED_FOR for part in value.split(b",")]


def _forwarded(entries: Sequence[bytes], proxies: Networks) -> Address | None:
    for entry in reversed(entries):
        try:
            address = _address(entry.decode("ascii").strip())
        except ValueError:
            return None
        if not holds(proxies, address):
            return address
    return None


def _address(entry: str) -> Address:
    """``192.0.2.1``, ``192.0.2.1:1234``, ``2001:db8::1``, ``[2001:db8::1]`` or ``[2001:db8::1]:1234``."""
    if entry.startswith("["):
        inside, bracket, rest = entry[1:].partition("]")
        if not bracket or ":" not in inside or not (rest == "" or _is_port(rest)):
            raise ValueError("no address")
        return parse_address(inside)
    if entry.count(":") == 1:
        host, _, port = entry.partition(":")
        if not _is_port(f":{port}") or "." not in host:
            raise ValueError("no address")
        return parse_address(host)
    return parse_address(entry)


def _is_port(text: str) -> bool:
    digits = text[1:]
    return text.startswith(":") and 0 < len(digits) <= 5 and digits.isascii() and digits.isdigit()
