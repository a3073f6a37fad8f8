"""Where an endpoint is, and how it is named to people without what its address keeps secret.

Providers put their customer's key into path, query or user part. So an endpoint is "endpoint 1 (host)"
wherever it is named, and what it says itself passes through ``without_secrets``.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import unquote

import httpx

ENDPOINTS_MAX = 8
_SECRET_CHARS_MIN = 6
"""Shorter parts of a path or query ("v2", "rpc") are no keys."""
_TEXT_CHARS_MAX = 200
_HOST = re.compile(r"[A-Za-z0-9._:-]+")


@dataclass(frozen=True)
class Address:
    position: int
    """From 1, as configured."""
    url: httpx.URL = field(repr=False)

    @property
    def name(self) -> str:
        return f"endpoint {self.position} ({self.url.host})"

    @property
    def authorization(self) -> bytes | None:
        """For the user part of the address (RFC 7617)."""
        if not self.url.userinfo:
            return None
        pair = f"{self.url.username}:{self.url.password}".encode()
        return b"Basic " + base64.b64encode(pair)

    def without_secrets(self, text: str) -> str:
        """On one line, bounded, and with nothing of path, query and user part in it."""
        for secret in self._secrets():
            text = text.replace(secret, "…")
        line = "".join(each if each.isprintable() else " " for each in text)
        return line if len(line) <= _TEXT_CHARS_MAX else line[:_TEXT_CHARS_MAX] + "…"

    def _secrets(self) -> list[str]:
        url = self.url
        parts = re.split("[/?&=]", url.raw_path.decode("ascii"))
        parts += [url.userinfo.decode("ascii"), url.username, url.password]
        both = {*parts, *(unquote(each) for each in parts)}
        return sorted((each for each in both if len(each) >= _SECRET_CHARS_MIN), key=len, reverse=True)


def read_addresses(urls: list[str]) -> list[Address]:
    """ValueError names the position and the remedy, never the address."""
    if not urls:
        raise ValueError("L2_RPC_URL names no endpoint: give at least one https:// address")
    if len(urls) > ENDPOINTS_MAX:
        raise ValueError(f"L2_RPC_URL names {len(urls)} endpoints, at most {ENDPOINTS_MAX} are used")
    return [_read(position, text.strip()) for position, text in enumerate(urls, start=1)]


def _read(position: int, text: str) -> Address:
    where = f"L2_RPC_URL, endpoint {position}"
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        # Neither the text nor its cause is shown: both may hold the key.
        raise ValueError(f"{where}: this is no address; write https://host/path") from None
    if url.scheme not in ("https", "http") or not url.host:
        raise ValueError(f"{where}: give an https:// address (websockets and files are not used)")
    if not _HOST.fullmatch(url.host) or not 0 < (url.port or 443) < 65_536:
        raise ValueError(f"{where}: this is no address; write https://host/path")
    if url.scheme == "http" and not is_loopback(url.host):
        raise ValueError(
            f"{where} ({url.host}): plain http:// is used on this machine only, for whoever is between here "
            "and there could change what the chain says. Give https://, or end a tunnel to it on 127.0.0.1"
        )
    return Address(position, url.copy_with(fragment=None))


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
