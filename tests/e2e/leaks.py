"""The search for what must not be somewhere: secrets and payloads in every spelling, in files and texts."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path


def spellings(secret: bytes) -> dict[str, bytes]:
    """Raw, in hex (with or without ``0x`` before it), and in base64, also in the midst of a longer text."""
    return {
        "raw": secret,
        "hex": secret.hex().encode(),
        "HEX": secret.hex().upper().encode(),
        **{f"base64 at {n}": _inner(base64.b64encode, secret, n) for n in range(3)},
        **{f"base64url at {n}": _inner(base64.urlsafe_b64encode, secret, n) for n in range(3)},
        "text in base64": base64.b64encode(secret.hex().encode()).rstrip(b"="),
    }


def _inner(encode: Callable[[bytes], bytes], secret: bytes, before: int) -> bytes:
    """The characters that depend on the secret alone, when ``before`` bytes stand before it."""
    first, last = -(-before * 8 // 6), (before + len(secret)) * 8 // 6
    return encode(bytes(before) + secret + bytes(2))[first:last]


def found(needles: dict[str, bytes], haystack: bytes) -> set[str]:
    return {
        f"{name} ({how})"
        for name, raw in needles.items()
        for how, n in spellings(raw).items()
        if n in haystack
    }


def files_below(folder: Path) -> Iterator[Path]:
    yield from (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def leaks_below(needles: dict[str, bytes], *places: Path) -> dict[str, set[str]]:
    """Of each needle the files in which it stands, by their paths. A file that goes while we look is gone."""
    leaks: dict[str, set[str]] = {name: set() for name in needles}
    for place in places:
        for path in [place] if place.is_file() else files_below(place):
            try:
                haystack = path.read_bytes()
            except FileNotFoundError:
                continue
            for name, raw in needles.items():
                if found({name: raw}, haystack):
                    leaks[name].add(str(path))
    return leaks
