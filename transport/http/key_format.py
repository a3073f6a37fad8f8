"""What an API key looks like: ``sk_live_`` or ``sk_test_``, 32 random characters, a checksum of 6.

Alone knows the format. Pure but for the dice. A checksum proves nothing: it tells a slip of the fingers, and
a scanner's false alarm, from a key, before anybody is asked. Keys that begin with ``ss_`` are older and have
none.
"""

from __future__ import annotations

import re
import secrets
from binascii import crc32
from typing import Final, Literal

Kind = Literal["live", "test"]

PREFIX: Final = "sk_"
SCANNER: Final = r"\bsk_(?:live|test)_[0-9A-Za-z]{38}\b"
"""Published in SECURITY.md, for those who look for keys where they do not belong."""

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_CHARACTERS = 32  # 190 bits
_CHECKSUM_CHARACTERS = 6  # enough for 32 bits
_SHAPE = re.compile(r"sk_(?P<kind>live|test)_[0-9A-Za-z]{38}")
_SHOWN_CHARACTERS = len("sk_live_") + 4
"""Of the random ones 28 stay unknown: 166 bits."""


def new_key(kind: Kind) -> str:
    random = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_CHARACTERS))
    body = f"{PREFIX}{kind}_{random}"
    return body + checksum(body)


def shown(key: str) -> str:
    """The beginning by which people recognise a key, useless to guess it."""
    return key[:_SHOWN_CHARACTERS]


def checksum(body: str) -> str:
    """CRC-32 of everything before it, in base 62."""
    number = crc32(body.encode())
    digits = ""
    for _ in range(_CHECKSUM_CHARACTERS):
        number, digit = divmod(number, 62)
        digits = _ALPHABET[digit] + digits
    return digits


def trouble(key: str, kind: Kind) -> str | None:
    """Why a key that begins with ``sk_`` cannot be one of ours, on a node of this kind; or None."""
    match = _SHAPE.fullmatch(key)
    if match is None or checksum(key[:-_CHECKSUM_CHARACTERS]) != key[-_CHECKSUM_CHARACTERS:]:
        return "it is mistyped or cut short (its checksum does not fit); copy it again"
    if match["kind"] != kind:
        return f"it is a {match['kind']} key, and this server takes {kind} keys only"
    return None
