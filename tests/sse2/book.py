"""``SSE2`` frames by docs/encryption-at-rest.md alone: nothing here comes from the product."""

from __future__ import annotations

import hashlib
import hmac
import struct
import uuid
from typing import Any

from tests.sse2 import gcm_siv

MAGIC = b"SSE2"
HEADER_BYTES = 24


def key_id(ring_key: bytes) -> bytes:
    return hashlib.sha256(b"STATESET_ATREST_KEYID_V1" + ring_key).digest()[:8]


def derived_key(ring_key: bytes, purpose: str, tenant_id: str) -> bytes:
    """HKDF-SHA256 (RFC 5869) with an empty salt, one block."""
    info = b"stateset-sequencer-v1-encryption" + b"\0" + _text(purpose) + uuid.UUID(tenant_id).bytes
    extracted = hmac.digest(bytes(32), ring_key, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def row_hash(purpose: str, row: dict[str, Any]) -> bytes:
    """Of the table that belongs to the purpose."""
    start = _ids(row, "tenant_id", "store_id")
    if purpose == "ves_events":
        domain = b"STATESET_VES_PAYLOAD_ATREST_AAD_V1"
        rest = _ids(row, "event_id") + struct.pack(">Q", row["sequence_number"])
        rest += bytes.fromhex(row["event_signing_hash"])
    elif purpose == "events":
        domain = b"STATESET_PAYLOAD_ATREST_AAD_V1"
        rest = _ids(row, "event_id") + struct.pack(">Q", row["sequence_number"])
        rest += _text(row["entity_type"]) + _text(row["entity_id"]) + _text(row["event_type"])
    else:
        domain = b"STATESET_VES_VALIDITY_PROOF_ATREST_AAD_V1"
        rest = _ids(row, "batch_id", "proof_id") + struct.pack(">I", row["proof_version"])
        rest += _text(row["proof_type"]) + bytes.fromhex(row["proof_hash"])
    return hashlib.sha256(domain + start + rest).digest()


def seal(ring_key: bytes, purpose: str, row: dict[str, Any], nonce: bytes, plaintext: bytes) -> bytes:
    header = MAGIC + key_id(ring_key) + nonce
    key = derived_key(ring_key, purpose, row["tenant_id"])
    return header + gcm_siv.seal(key, nonce, plaintext, header + row_hash(purpose, row))


def open_(ring_key: bytes, purpose: str, row: dict[str, Any], frame: bytes) -> bytes:
    """Raises gcm_siv.Forged."""
    header = frame[:HEADER_BYTES]
    key = derived_key(ring_key, purpose, row["tenant_id"])
    return gcm_siv.open_(key, header[12:], frame[HEADER_BYTES:], header + row_hash(purpose, row))


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack(">I", len(raw)) + raw


def _ids(row: dict[str, Any], *names: str) -> bytes:
    return b"".join(uuid.UUID(row[name]).bytes for name in names)
