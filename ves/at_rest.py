"""Encryption at rest (VES 5): frames, what binds a frame to its row, rings of keys, modes, and key texts.

    "SSE1" || nonce[12] || AES-256-GCM ciphertext || tag[16]                         the original's
    "SSE2" || key_id[8] || nonce[12] || AES-256-GCM-SIV ciphertext || tag[16]        written by us

An ``SSE2`` key is derived from the ring key, for one purpose and one tenant; its AAD is the 24 bytes before
the ciphertext and the row's hash, so that neither the key's name nor the row can be exchanged. An ``SSE1``
key is the ring key itself and the frame names none: each key of the ring is tried. It alone seals and opens
frames. Nonces come in as arguments. A frame moved to another row, stream, number, tenant or table does not
open. No error text ever holds key material.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV

from ves.constants import (
    ATREST_COMPLIANCE_PROOF,
    ATREST_KEY_ID,
    ATREST_MAGIC,
    ATREST_MAGIC_2,
    ATREST_PAYLOAD,
    ATREST_VALIDITY_PROOF,
    ATREST_VES_PAYLOAD,
)
from ves.encoding import base64url_bytes, string, u32, u64
from ves.kdf import Purpose, derive_key
from ves.records import Uuid

KEY_BYTES = 32
KEY_ID_BYTES = 8
NONCE_BYTES = 12
_TAG_BYTES = 16
_HEADER_BYTES = len(ATREST_MAGIC) + NONCE_BYTES
_HEADER_BYTES_2 = len(ATREST_MAGIC_2) + KEY_ID_BYTES + NONCE_BYTES
SSE1_BYTES_MIN = _HEADER_BYTES + _TAG_BYTES
"""So many bytes more than its plaintext has an ``SSE1`` frame …"""
SSE2_BYTES_MIN = _HEADER_BYTES_2 + _TAG_BYTES
"""… and so many an ``SSE2`` frame."""
_SEALERS_MAX = 4096
"""Ready ciphers remembered per ring key, one per purpose and tenant."""


class AtRestMode(Enum):
    """What is written, and what is read (VES 5.4)."""

    REQUIRED = "required"
    """Frames are written; what is no frame does not open."""
    OPTIONAL = "optional"
    """Frames are written; what is no frame is read as it is."""
    DISABLED = "disabled"
    """What is written is no frame, unless it would look like one; both are read."""


class FrameNotOpened(Exception):
    """The stored bytes do not become a plaintext for this row; the text says why, without any of them."""


class Row(NamedTuple):
    """What a stored value belongs to: its table, its tenant, and the 32-byte hash of its place there."""

    purpose: Purpose
    tenant_id: Uuid
    row_hash: bytes


class RowSealer:
    """A ring key's cipher for one purpose and tenant: ``SSE2`` frames of rows with these."""

    __slots__ = ("_cipher", "_start")

    def __init__(self, cipher: AESGCMSIV, key_id: bytes) -> None:
        self._cipher = cipher
        self._start = ATREST_MAGIC_2 + key_id

    def seal(self, row_hash: bytes, nonce: bytes, plaintext: bytes) -> bytes:
        """An ``SSE2`` frame. A repeated 12-byte nonce tells whether two plaintexts of a tenant and purpose,
        in one row, are equal, and nothing else. ValueError for no plaintext at all."""
        _check_nonce(nonce)
        if not plaintext:
            raise ValueError("nothing to seal")
        header = self._start + nonce
        return header + self._cipher.encrypt(nonce, plaintext, header + row_hash)

    def seal_surely(self, row_hash: bytes, nonce: bytes, plaintext: bytes) -> bytes:
        """``seal``, and the frame opened once more: FrameNotOpened when that gives something else."""
        frame = self.seal(row_hash, nonce, plaintext)
        try:
            opened = self.open(row_hash, frame)
        except FrameNotOpened as error:
            raise FrameNotOpened(f"what was sealed does not open again: {error}") from None
        if opened != plaintext:
            raise FrameNotOpened("what was sealed opens to something else")
        return frame

    def open(self, row_hash: bytes, frame: bytes) -> bytes:
        _check_length(frame, SSE2_BYTES_MIN + 1)
        header = frame[:_HEADER_BYTES_2]
        try:
            return self._cipher.decrypt(header[-NONCE_BYTES:], frame[_HEADER_BYTES_2:], header + row_hash)
        except InvalidTag:
            raise FrameNotOpened("another row, or changed bytes") from None


class RingKey:
    """One 32-byte key of a ring, ready for use, with the fingerprint it may be named by."""

    __slots__ = ("_cipher", "key_id", "sealer")

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise ValueError("an at-rest key has 32 bytes")
        self._cipher = AESGCM(raw)
        self.key_id = key_id(raw)

        @lru_cache(_SEALERS_MAX)
        def sealer(purpose: Purpose, tenant_id: Uuid) -> RowSealer:
            return RowSealer(AESGCMSIV(derive_key(raw, purpose, tenant_id)), self.key_id)

        self.sealer = sealer

    def seal(self, row: Row, nonce: bytes, plaintext: bytes) -> bytes:
        """``RowSealer.seal`` for this row's purpose and tenant."""
        return self.sealer(row.purpose, row.tenant_id).seal(row.row_hash, nonce, plaintext)

    def seal_sse1(self, nonce: bytes, plaintext: bytes, row_hash: bytes) -> bytes:
        """An ``SSE1`` frame. The 12-byte nonce must never repeat under one key."""
        _check_nonce(nonce)
        return ATREST_MAGIC + nonce + self._cipher.encrypt(nonce, plaintext, row_hash)

    def open(self, row: Row, frame: bytes) -> bytes:
        """The plaintext of a frame of either kind that this key sealed for this row, else FrameNotOpened."""
        if frame.startswith(ATREST_MAGIC_2):
            return self.sealer(row.purpose, row.tenant_id).open(row.row_hash, frame)
        if not frame.startswith(ATREST_MAGIC):
            raise FrameNotOpened("it is no frame")
        _check_length(frame, SSE1_BYTES_MIN)
        try:
            nonce, sealed = frame[len(ATREST_MAGIC) : _HEADER_BYTES], frame[_HEADER_BYTES:]
            return self._cipher.decrypt(nonce, sealed, row.row_hash)
        except InvalidTag:
            raise FrameNotOpened("another key, another row, or changed bytes") from None

    def __repr__(self) -> str:
        return f"RingKey({self.key_id.hex()})"


class Ring:
    """Keys of which the first seals and all open. ValueError when there is none."""

    __slots__ = ("_by_id", "keys")

    def __init__(self, keys: Sequence[RingKey]) -> None:
        if not keys:
            raise ValueError("a ring has at least one key")
        self.keys = tuple(keys)
        self._by_id = {key.key_id: key for key in keys}

    @property
    def current(self) -> RingKey:
        return self.keys[0]

    def open(self, row: Row, frame: bytes) -> bytes:
        """The plaintext; FrameNotOpened, with the reason, when no key of the ring opens it for this row."""
        return self.open_and_tell(row, frame)[0]

    def open_and_tell(self, row: Row, frame: bytes) -> tuple[bytes, RingKey]:
        """The plaintext, and which key opened it."""
        named = frame_key_id(frame)
        if named is not None:
            key = self._by_id.get(named)
            if key is None:
                raise FrameNotOpened(f"its key {named.hex()} is not in the ring")
            return key.open(row, frame), key
        if not frame.startswith(ATREST_MAGIC):
            raise FrameNotOpened("it is no frame")
        _check_length(frame, SSE1_BYTES_MIN)
        for key in self.keys:
            try:
                return key.open(row, frame), key
            except FrameNotOpened:
                continue
        raise FrameNotOpened(
            "no key of the ring opens it (its key is not there, or it is of another row, or changed bytes)"
        )


class AtRest:
    """How values are stored and read: a mode, the ring of all tenants, and rings of single ones."""

    __slots__ = ("_by_tenant", "_default", "mode")

    def __init__(self, mode: AtRestMode, default: Ring, by_tenant: Mapping[Uuid, Ring] | None = None) -> None:
        """A tenant's own ring takes the place of the default one entirely (VES 5.3)."""
        self.mode = mode
        self._default = default
        self._by_tenant = dict(by_tenant or {})

    def ring_of(self, tenant_id: Uuid) -> Ring:
        return self._by_tenant.get(tenant_id, self._default)

    def store(self, row: Row, nonce: bytes, plaintext: bytes) -> bytes:
        """What is written for this row: opened once more before it leaves, so that nothing is stored that
        could not be read (a fault of memory or of a library is FrameNotOpened here)."""
        return self.storing(row.purpose, row.tenant_id)(row.row_hash, nonce, plaintext)

    def storing(self, purpose: Purpose, tenant_id: Uuid) -> Callable[[bytes, bytes, bytes], bytes]:
        """``store`` for many rows of one purpose and tenant: of a row's hash, a nonce and a plaintext."""
        seal = self.ring_of(tenant_id).current.sealer(purpose, tenant_id).seal_surely
        if self.mode is not AtRestMode.DISABLED:
            return seal
        return lambda row_hash, nonce, plaintext: (
            seal(row_hash, nonce, plaintext) if is_frame(plaintext) else plaintext
        )

    def read(self, row: Row, stored: bytes) -> bytes:
        """The plaintext of what ``store`` wrote, in this mode or an earlier one; FrameNotOpened otherwise."""
        if is_frame(stored):
            return self.ring_of(row.tenant_id).open(row, stored)
        if self.mode is AtRestMode.REQUIRED:
            raise FrameNotOpened("it is no frame, and PAYLOAD_ENCRYPTION_MODE is required")
        return stored


def is_frame(stored: bytes) -> bool:
    """Whether it is to be opened. JSON texts never begin so; a proof that does is sealed in every mode."""
    return stored.startswith((ATREST_MAGIC, ATREST_MAGIC_2))


def frame_key_id(stored: bytes) -> bytes | None:
    """The fingerprint that an ``SSE2`` frame names; None for everything else."""
    if not stored.startswith(ATREST_MAGIC_2):
        return None
    _check_length(stored, SSE2_BYTES_MIN + 1)
    return stored[len(ATREST_MAGIC_2) : len(ATREST_MAGIC_2) + KEY_ID_BYTES]


def _check_nonce(nonce: bytes) -> None:
    if len(nonce) != NONCE_BYTES:
        raise ValueError("a nonce has 12 bytes")


def _check_length(frame: bytes, least: int) -> None:
    if len(frame) < least:
        raise FrameNotOpened(f"a frame has at least {least} bytes, this one has {len(frame)}: it is cut off")


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
