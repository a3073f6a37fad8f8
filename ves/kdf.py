"""Keys from keys: HKDF-SHA256 (RFC 5869) with one named context per purpose.

    info = "stateset-sequencer-v1-encryption" || 0x00 || S(purpose) || UUID(tenant_id)
    key  = HKDF-SHA256(ikm = master key, salt = empty, info, 32 bytes)

The only place where a key is made from another; ``Purpose`` is the register of what for. Two purposes, or two
tenants, never share a key, and none of them tells anything about the master key. Keeps and shows no key.
"""

from __future__ import annotations

from enum import Enum

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ves.constants import KDF_CONTEXT
from ves.encoding import string
from ves.records import Uuid

DERIVED_KEY_BYTES = 32
MASTER_KEY_BYTES = 32


class Purpose(Enum):
    """What a derived key is for: its name is part of the key. A name, once used, is never used for anything
    else."""

    VES_EVENTS = "ves_events"
    EVENTS = "events"
    VALIDITY_PROOFS = "validity_proofs"


def hkdf_sha256(key_material: bytes, *, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, extract and expand. ValueError for more than 255 * 32 bytes."""
    return HKDF(algorithm=SHA256(), length=length, salt=salt or None, info=info).derive(key_material)


def context(purpose: Purpose, tenant_id: Uuid) -> bytes:
    """The ``info`` that separates this purpose and tenant from every other."""
    if len(tenant_id) != 16:
        raise ValueError("a tenant id has 16 bytes")
    return KDF_CONTEXT + b"\x00" + string(purpose.value) + tenant_id


def derive_key(master_key: bytes, purpose: Purpose, tenant_id: Uuid) -> bytes:
    """The tenant's 32-byte key for one purpose. ValueError for a master key that has not 32 bytes."""
    if len(master_key) != MASTER_KEY_BYTES:
        raise ValueError("a master key has 32 bytes")
    return hkdf_sha256(master_key, salt=b"", info=context(purpose, tenant_id), length=DERIVED_KEY_BYTES)
