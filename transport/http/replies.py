"""From records to the wire's reply structs: hex, UUID and time texts. Nothing is looked up here."""

from __future__ import annotations

import os
from typing import Any

from journal.port import AgentKey
from transport.http.shapes import (
    AgentKeyReply,
    ReceiptReply,
)
from ves.encoding import prefixed_hex, uuid_text
from ves.records import Commitment, Receipt
from ves.timestamps import utc_text, zulu_text


def fresh_uuid() -> str:
    """Of version 4, like ``uuid.uuid4``, for a name that is only ever text."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return uuid_text(raw)


def receipt_reply(receipt: Receipt) -> ReceiptReply:
    return ReceiptReply(
        uuid_text(receipt.sequencer_id),
        uuid_text(receipt.event_id),
        receipt.sequence_number,
        utc_text(receipt.sequenced_at_us),
        receipt.receipt_hash.hex(),
        "ed25519",
        receipt.sequencer_signature.hex(),
        receipt.sequencer_key_version,
        1,
    )


def commitment_members(commitment: Commitment) -> dict[str, Any]:
    return {
        "batch_id": uuid_text(commitment.batch_id),
        "tenant_id": uuid_text(commitment.tenant_id),
        "store_id": uuid_text(commitment.store_id),
        "ves_version": commitment.ves_version,
        "tree_depth": commitment.tree_depth,
        "leaf_count": commitment.leaf_count,
        "padded_leaf_count": commitment.padded_leaf_count,
        "merkle_root": commitment.merkle_root.hex(),
        "prev_state_root": commitment.prev_state_root.hex(),
        "new_state_root": commitment.new_state_root.hex(),
        "sequence_start": commitment.sequence_start,
        "sequence_end": commitment.sequence_end,
        "committed_at": zulu_text(commitment.committed_at_us),
    }


def agent_key_reply(key: AgentKey) -> AgentKeyReply:
    proven = key.proof_of_possession
    return AgentKeyReply(
        uuid_text(key.name.tenant_id),
        uuid_text(key.name.agent_id),
        key.name.key_id,
        key.key_algorithm,
        prefixed_hex(key.public_key),
        _time(key.valid_from_us),
        _time(key.valid_to_us),
        utc_text(key.registered_at_us),
        1 if proven == 1 else 2 if proven == 2 else None,
        _time(key.revoked_at_us),
        key.revocation_reason,
        _time(key.retires_at_us),
        key.replaced_by,
        None if key.rotation_signature is None else prefixed_hex(key.rotation_signature),
    )


def _time(us: int | None) -> str | None:
    return None if us is None else utc_text(us)
