"""A private key in this process's own memory, from its 64 hex digits: what keystore, raw and vault end in.

Alone judges whether a text is a key at all. Its repr shows nothing.
"""

from __future__ import annotations

import re

from coincurve import PrivateKey

from actors.chain import SignerRefused
from ves.secp256k1 import ORDER, address_of

_KEY = re.compile(r"(?:0x)?([0-9a-fA-F]{64})")
_SMALLEST = 2**160
"""Nobody has drawn a smaller one by chance: it is 1, or a counter, or a word."""


class HeldKey:
    __slots__ = ("_key",)

    def __init__(self, secret: bytes, whence: str) -> None:
        """``whence``: for the error, when the 32 bytes are no key."""
        if not _SMALLEST <= int.from_bytes(secret, "big") < ORDER:
            raise SignerRefused(f"{whence} is out of range: no random key on secp256k1; make a new one")
        self._key = PrivateKey(secret)

    def address(self) -> bytes:
        return address_of(self._key.public_key.format(compressed=False))

    def sign(self, digest: bytes) -> tuple[int, int]:
        signature = self._key.sign_recoverable(digest, hasher=None)
        return int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")

    def __repr__(self) -> str:
        return "HeldKey(…)"


def parse(text: str, whence: str) -> HeldKey:
    """Raises SignerRefused, without the text, when it is no key."""
    found = _KEY.fullmatch(text.strip())
    if found is None:
        raise SignerRefused(f"{whence} is no private key: 64 hex digits, with or without 0x")
    return HeldKey(bytes.fromhex(found[1]), whence)
