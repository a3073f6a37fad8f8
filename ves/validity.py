"""Validity proofs of commitments (VES 7): what a proof has to be about, and the names of both by hash.

It alone builds the public inputs of a batch. It cannot tell whether a proof proves anything: for that one
needs the verifier of the proof's own system, and there is none here.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from ves.canonical import jcs
from ves.constants import VALIDITY_PROOF_HASH, ZERO_HASH
from ves.encoding import uuid_text
from ves.records import Commitment

PROOF_BYTES_MAX = 2 * 1024 * 1024  # VES 7.3
PROOF_TYPE_BYTES_MAX = 32  # VES 7.3
STARK_PROOF_VERSION = 2  # VES 7.3
"""The only version of proofs whose type begins with ``stark``."""


def public_inputs(commitment: Commitment) -> dict[str, Any]:
    """What every proof about this batch is a proof of (VES 7.1), as its JSON members."""
    return {
        "batchId": uuid_text(commitment.batch_id),
        "tenantId": uuid_text(commitment.tenant_id),
        "storeId": uuid_text(commitment.store_id),
        "vesVersion": commitment.ves_version,
        "treeDepth": commitment.tree_depth,
        "leafCount": commitment.leaf_count,
        "paddedLeafCount": commitment.padded_leaf_count,
        "merkleRoot": commitment.merkle_root.hex(),
        "prevStateRoot": commitment.prev_state_root.hex(),
        "newStateRoot": commitment.new_state_root.hex(),
        "sequenceStart": commitment.sequence_start,
        "sequenceEnd": commitment.sequence_end,
        "allCompliant": True,
        "policyHash": ZERO_HASH.hex(),
        "policyLimit": 0,
    }


def canonical_inputs(inputs: dict[str, Any]) -> str:
    """Their one JSON text: RFC 8785's, and the original's too (VES 3.10), with ASCII and integers only."""
    return jcs(inputs).decode()


def public_inputs_hash(canonical: str) -> bytes:
    """Of the canonical text; no domain."""
    return sha256(canonical.encode()).digest()


def proof_hash(proof: bytes) -> bytes:
    """The name of a proof's bytes (VES 7.2)."""
    return sha256(VALIDITY_PROOF_HASH + proof).digest()


def is_stark(proof_type: str) -> bool:
    """Whether the type claims a STARK, whatever follows and however it is spelled."""
    return proof_type.lower().startswith("stark")
