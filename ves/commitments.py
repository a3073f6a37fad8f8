"""Commitments (VES 3.9): a range of a stream under one root, chained to the range before it.

It alone computes stream ids and state roots and builds ``Commitment`` values. Which range to commit, when,
and where it is remembered is decided elsewhere.
"""

from __future__ import annotations

from hashlib import sha256

from ves.constants import STATE_ROOT, STREAM, VES_VERSION
from ves.encoding import u32, u64
from ves.merkle import padded_leaf_count, tree_depth
from ves.records import Commitment, Uuid


def stream_id(tenant_id: Uuid, store_id: Uuid) -> bytes:
    """The 32-byte name of the stream of one store of one tenant."""
    return sha256(STREAM + tenant_id + store_id).digest()


def state_root(
    stream_id: bytes,
    prev_state_root: bytes,
    merkle_root: bytes,
    sequence_start: int,
    sequence_end: int,
    leaf_count: int,
) -> bytes:
    """The new state root; the first commitment of a stream follows 32 zero bytes. Preimage 133 bytes."""
    span = u64(sequence_start) + u64(sequence_end) + u32(leaf_count)
    return sha256(STATE_ROOT + stream_id + prev_state_root + merkle_root + span).digest()


def next_commitment(
    *,
    batch_id: Uuid,
    tenant_id: Uuid,
    store_id: Uuid,
    merkle_root: bytes,
    prev_state_root: bytes,
    sequence_start: int,
    sequence_end: int,
    committed_at_us: int,
) -> Commitment:
    """The commitment over sequence_start..sequence_end, both ends included, whose leaves gave merkle_root.

    ValueError for a range that is empty or starts below 1.
    """
    leaf_count = sequence_end - sequence_start + 1
    if sequence_start < 1 or leaf_count < 1:
        raise ValueError(f"no range of events: {sequence_start}..{sequence_end}")
    stream = stream_id(tenant_id, store_id)
    return Commitment(
        batch_id=batch_id,
        tenant_id=tenant_id,
        store_id=store_id,
        ves_version=VES_VERSION,
        tree_depth=tree_depth(leaf_count),
        leaf_count=leaf_count,
        padded_leaf_count=padded_leaf_count(leaf_count),
        merkle_root=merkle_root,
        prev_state_root=prev_state_root,
        new_state_root=state_root(
            stream, prev_state_root, merkle_root, sequence_start, sequence_end, leaf_count
        ),
        sequence_start=sequence_start,
        sequence_end=sequence_end,
        committed_at_us=committed_at_us,
    )
