"""Receipts (VES 3.6): what the sequencer signs when it gives an event its place.

It alone knows the receipt's preimage. The signature covers which event stands at which number of which
stream; it does not cover the time, the sequencer's id or the key's version.
"""

from __future__ import annotations

from hashlib import sha256

from ves.constants import RECEIPT
from ves.encoding import u64
from ves.records import Uuid
from ves.signatures import Signer, verify_signature


def receipt_hash(
    tenant_id: Uuid, store_id: Uuid, event_id: Uuid, sequence_number: int, event_signing_hash: bytes
) -> bytes:
    """The 32 bytes the sequencer signs; the preimage has 102."""
    preimage = RECEIPT + tenant_id + store_id + event_id + u64(sequence_number) + event_signing_hash
    return sha256(preimage).digest()


def sign_receipt(
    signer: Signer,
    tenant_id: Uuid,
    store_id: Uuid,
    event_id: Uuid,
    sequence_number: int,
    event_signing_hash: bytes,
) -> tuple[bytes, bytes]:
    """``(receipt_hash, sequencer_signature)``: a promise, so it must not leave before it is durable."""
    digest = receipt_hash(tenant_id, store_id, event_id, sequence_number, event_signing_hash)
    return digest, signer.sign(digest)


def receipt_signature_holds(public_key: bytes, receipt_hash: bytes, sequencer_signature: bytes) -> bool:
    """Whether the sequencer's key signed this receipt hash. Recompute the hash yourself before asking."""
    return verify_signature(public_key, receipt_hash, sequencer_signature)
