"""Sealing stored values anew (VES 5.5): what a value is now, and what takes its place.

It alone judges a stored value: under which key it is, whether it is what its row's hash says, whether it has
to be sealed anew. Nothing that does not match its hash is ever given a new seal, which would make it look
sound. Pure: rings and nonces come in, nothing is stored here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ves.at_rest import AtRest, FrameNotOpened, RingKey, Row, frame_key_id, is_frame
from ves.constants import ENCRYPTED, PLAINTEXT
from ves.events import EventHeader, payload_aad, payload_plain_hash
from ves.payload_encryption import EncryptedPayloadRefused, cipher_hash, parse_payload_encrypted

PLAIN = "plaintext"
UNREADABLE = "unreadable"

Belongs = Callable[[bytes], bool]
"""Whether a plaintext is the one whose hash its row holds."""


class Look(NamedTuple):
    """What a stored value was found to be."""

    kind: str
    """``SSE2 KEY_ID``, ``SSE1 under KEY_ID``, ``plaintext`` or ``unreadable``."""
    plaintext: bytes | None
    """What is to be sealed anew; None when nothing is to be done, or nothing can be."""
    reason: str | None = None
    """Why it is unreadable."""
    framed: bool = True


def look(at_rest: AtRest, row: Row, stored: bytes, belongs: Belongs) -> Look:
    """Modes do not matter here: what is no frame is taken as plaintext."""
    ring = at_rest.ring_of(row.tenant_id)
    framed = is_frame(stored)
    key: RingKey | None = None
    plaintext = stored
    if framed:
        try:
            plaintext, key = ring.open_and_tell(row, stored)
        except FrameNotOpened as error:
            return Look(UNREADABLE, None, str(error))
    if not plaintext:
        return Look(UNREADABLE, None, "it is empty", framed)
    if not belongs(plaintext):
        return Look(UNREADABLE, None, "its content is not what its hash says", framed)
    if key is None:
        return Look(PLAIN, plaintext, framed=False)
    if frame_key_id(stored) is None:
        return Look(f"SSE1 under {key.key_id.hex()}", plaintext)
    kind = sealed_under(key)
    return Look(kind, None if key is ring.current else plaintext)


def sealed_under(key: RingKey) -> str:
    """The kind of what this key seals."""
    return f"SSE2 {key.key_id.hex()}"


def is_under(at_rest: AtRest, row: Row, stored: bytes, key_id: bytes) -> bool | None:
    """Whether a frame is sealed under the key; None for one that names no key and that no key opens."""
    named = stored[4:12] if stored.startswith(b"SSE2") else None
    if named is not None or not is_frame(stored):
        return named == key_id
    try:
        return at_rest.ring_of(row.tenant_id).open_and_tell(row, stored)[1].key_id == key_id
    except FrameNotOpened:
        return None


def is_the_payload(
    header: EventHeader, payload_kind: int, payload: bytes, plain_hash: bytes, its_cipher_hash: bytes
) -> bool:
    """Whether these are the bytes that a VES event's hashes were made of (VES 3.1)."""
    if payload_kind == PLAINTEXT:
        return payload_plain_hash(payload) == plain_hash
    if payload_kind != ENCRYPTED:
        return False
    try:
        sealed = parse_payload_encrypted(payload)
    except EncryptedPayloadRefused:
        return False
    return cipher_hash(sealed, payload_aad(header.encoded(), plain_hash)) == its_cipher_hash
