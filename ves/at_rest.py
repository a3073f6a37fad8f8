"""Encryption at rest (VES 5): the ``SSE1`` frame, what binds a frame to its row, and key texts.

    "SSE1" || nonce[12] || AES-256-GCM ciphertext || tag[16]

It alone seals and opens frames. Nonces come in as arguments. A frame moved to another row, stream or number
does not open. No error text ever holds key material.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ves.constants import (
    ATREST_COMPLIANCE_PROOF,
    ATREST_KEY_ID,
    ATREST_MAGIC,
    ATREST_PAYLOAD,
    ATREST_VALIDITY_PROOF,
    ATREST_VES_PAYLOAD,
)
from ves.encoding import base64url_bytes, string, u32, u64
from ves.records import Uuid

KEY_BYTES = 32
NONCE_BYTES = 12
_HEADER_BYTES = len(ATREST_MAGIC) + NONCE_BYTES
FRAME_BYTES_MIN = _HEADER_BYTES + 16


class FrameNotOpened(Exception):
    """No key of the ring opens this frame for this row: another key, another row, or changed bytes."""


class RingKey:
    """One 32-byte key of the ring, ready for use, with the fingerprint it may be named by."""

    __slots__ = ("_cipher", "key_id")

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise ValueError("an at-rest key has 32 bytes")
        self._cipher = AESGCM(raw)
        self.key_id = key_id(raw)

    def seal(self, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """An ``SSE1`` frame. The 12-byte nonce must never repeat under one key."""
        if len(nonce) != NONCE_BYTES:
            raise ValueError("a nonce has 12 bytes")
        return ATREST_MAGIC + nonce + self._cipher.encrypt(nonce, plaintext, aad)

    def open(self, frame: bytes, aad: bytes) -> bytes:
        """The plaintext of a frame sealed by this key with this AAD; FrameNotOpened otherwise."""
        if len(frame) < FRAME_BYTES_MIN or not frame.startswith(ATREST_MAGIC):
            raise FrameNotOpened("not an SSE1 frame")
        try:
            return self._cipher.decrypt(frame[len(ATREST_MAGIC) : _HEADER_BYTES], frame[_HEADER_BYTES:], aad)
        except InvalidTag:
            raise FrameNotOpened("wrong key, wrong row or changed bytes") from None

    def __repr__(self) -> str:
        return f"RingKey({self.key_id.hex()})"


def open_frame(ring: Sequence[RingKey], frame: bytes, aad: bytes) -> bytes:
    """The plaintext under whichever key of the ring opens it, tried in order; FrameNotOpened when none."""
    for key in ring:
        try:
            return key.open(frame, aad)
        except FrameNotOpened:
            continue
    raise FrameNotOpened("no key of the ring opens this frame for this row")


# What binds a frame to its row: 32-byte hashes given as AAD.


def ves_payload_aad(
    tenant_id: Uuid, store_id: Uuid, event_id: Uuid, sequence_number: int, event_signing_hash: bytes
) -> bytes:
    """For ``ves_events.payload_sealed``; through the signing hash it covers all that the agent signed."""
    place = tenant_id + store_id + event_id + u64(sequence_number)
    return sha256(ATREST_VES_PAYLOAD + place + event_signing_hash).digest()


def legacy_payload_aad(
    tenant_id: Uuid,
    store_id: Uuid,
    event_id: Uuid,
    sequence_number: int,
    entity_type: str,
    entity_id: str,
    event_type: str,
) -> bytes:
    """For rows of the legacy stream (VES 5.1)."""
    place = tenant_id + store_id + event_id + u64(sequence_number)
    names = string(entity_type) + string(entity_id) + string(event_type)
    return sha256(ATREST_PAYLOAD + place + names).digest()


def validity_proof_aad(
    tenant_id: Uuid,
    store_id: Uuid,
    batch_id: Uuid,
    proof_id: Uuid,
    proof_version: int,
    proof_type: str,
    proof_hash: bytes,
) -> bytes:
    """For rows of validity proofs (VES 5.1)."""
    place = tenant_id + store_id + batch_id + proof_id
    return sha256(
        ATREST_VALIDITY_PROOF + place + u32(proof_version) + string(proof_type) + proof_hash
    ).digest()


def compliance_proof_aad(
    tenant_id: Uuid,
    store_id: Uuid,
    event_id: Uuid,
    proof_id: Uuid,
    policy_hash: bytes,
    proof_version: int,
    proof_type: str,
    proof_hash: bytes,
) -> bytes:
    """For rows of compliance proofs (VES 5.1)."""
    place = tenant_id + store_id + event_id + proof_id + policy_hash
    return sha256(
        ATREST_COMPLIANCE_PROOF + place + u32(proof_version) + string(proof_type) + proof_hash
    ).digest()


# Keys.


def key_id(raw: bytes) -> bytes:
    """The 8-byte fingerprint of a ring key: safe to print, store and compare."""
    return sha256(ATREST_KEY_ID + raw).digest()[:8]


_HEX_KEY = re.compile(r"(?:0x)?[0-9a-fA-F]{64}")


def parse_key(text: str) -> bytes:
    """32 bytes from 64 hex digits (``0x`` optional), base64 or base64url (VES 1.5); ValueError otherwise."""
    text = text.strip()
    if _HEX_KEY.fullmatch(text):
        return bytes.fromhex(text[-64:])
    try:
        raw = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except ValueError:  # binascii.Error and UnicodeEncodeError are both ValueErrors
        try:
            raw = base64url_bytes(text)
        except ValueError:
            raise ValueError(
                "an at-rest key must be 64 hex digits, base64 or base64url of 32 bytes"
            ) from None
    if len(raw) != KEY_BYTES:
        raise ValueError(f"an at-rest key must have 32 bytes, this one decodes to {len(raw)}")
    return raw


def parse_ring(text: str) -> list[RingKey]:
    """A comma-separated ring, current key first. ValueError when empty, malformed, or when two keys share a
    fingerprint (the same key twice, or a collision nobody could tell apart later)."""
    if not text.strip():
        raise ValueError("the list of at-rest keys is empty; leave it unset or give at least one key")
    ring = []
    for position, part in enumerate(text.split(","), 1):
        try:
            ring.append(RingKey(parse_key(part)))
        except ValueError as wrong:
            raise ValueError(f"key {position} of the list: {wrong}") from None
    fingerprints = [key.key_id for key in ring]
    for fingerprint in fingerprints:
        if fingerprints.count(fingerprint) > 1:
            raise ValueError(f"two at-rest keys have the fingerprint {fingerprint.hex()}")
    return ring
