"""The audit trail's formulas: one hash chain of entries per node, its ranges committed under chained roots.

    entry_hash_n   = H("VES_AUDIT_ENTRY_V1" || entry_hash_(n-1) || JCS(entry))
    leaf           = H("VES_AUDIT_LEAF_V1" || UUID(node) || U64(n) || entry_hash_n)
    node           = H("VES_AUDIT_NODE_V1" || left || right)
    padding        = H("VES_AUDIT_PAD_LEAF_V1"), up to the next power of two
    chain_id       = H("VES_AUDIT_CHAIN_V1" || UUID(node))
    new_state_root = H("VES_AUDIT_STATE_ROOT_V1" || chain_id || prev_state_root || merkle_root
                       || U64(entry_start) || U64(entry_end) || U32(leaf_count))

Before the first entry and before the first commitment stand 32 zero bytes. It alone hashes anything of the
audit trail. What an entry says, when it is written and where the chains are kept is decided elsewhere;
holding a chain against these formulas is in ``ves.audit_check``.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import msgspec

from ves.constants import (
    AUDIT_CHAIN,
    AUDIT_ENTRY,
    AUDIT_LEAF,
    AUDIT_NODE,
    AUDIT_PAD_LEAF,
    AUDIT_STATE_ROOT,
)
from ves.encoding import u32, u64
from ves.merkle import padded_leaf_count
from ves.records import Uuid

COMMITTED_ENTRIES_MAX = 1024
"""Of one commitment: its tree is computed in a millisecond, whenever somebody asks for a proof."""


class AuditRecord(msgspec.Struct, frozen=True):
    """One stored entry. ``text`` is what was hashed; the other columns repeat parts of it for queries."""

    node_id: Uuid
    entry_number: int
    recorded_at_us: int
    tenant_id: Uuid | None
    actor: str
    action: str
    subject: str
    text: str
    prev_hash: bytes
    entry_hash: bytes


class AuditCommitment(msgspec.Struct, frozen=True):
    """Entries entry_start..entry_end of a node's chain, both ends included, under one root."""

    node_id: Uuid
    entry_start: int
    entry_end: int
    merkle_root: bytes
    prev_state_root: bytes
    new_state_root: bytes
    committed_at_us: int
    """When, as its maker says: not part of any hash."""

    @property
    def leaf_count(self) -> int:
        return self.entry_end - self.entry_start + 1


def entry_hash(prev_hash: bytes, text: str) -> bytes:
    """``text``: the entry as canonical JSON, exactly as it is stored."""
    return sha256(AUDIT_ENTRY + prev_hash + text.encode()).digest()


def leaf_hash(node_id: Uuid, entry_number: int, hash_of_entry: bytes) -> bytes:
    return sha256(AUDIT_LEAF + node_id + u64(entry_number) + hash_of_entry).digest()


def chain_id(node_id: Uuid) -> bytes:
    """The 32-byte name of a node's chain."""
    return sha256(AUDIT_CHAIN + node_id).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """ValueError for none."""
    return _levels(leaves)[-1][0]


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Siblings of leaf ``index`` from the bottom up. IndexError beyond the leaves."""
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of {len(leaves)}")
    return [level[(index >> height) ^ 1] for height, level in enumerate(_levels(leaves)[:-1])]


def climb(leaf: bytes, index: int, path: Sequence[bytes]) -> bytes:
    """The root to which a path leads from this leaf at this index."""
    running = leaf
    for height, sibling in enumerate(path):
        pair = sibling + running if index >> height & 1 else running + sibling
        running = sha256(AUDIT_NODE + pair).digest()
    return running


def is_included(
    commitment: AuditCommitment, entry_number: int, hash_of_entry: bytes, path: Sequence[bytes]
) -> bool:
    """Whether the commitment holds this entry at this number. Sound for a commitment whose roots were
    checked: the leaf is computed here, and the path must be exactly as long as the tree is deep."""
    index = entry_number - commitment.entry_start
    if not 0 <= index < commitment.leaf_count:
        return False
    if 1 << len(path) != padded_leaf_count(commitment.leaf_count):
        return False
    leaf = leaf_hash(commitment.node_id, entry_number, hash_of_entry)
    return climb(leaf, index, path) == commitment.merkle_root


def state_root(commitment: AuditCommitment) -> bytes:
    """What its new_state_root must be."""
    span = u64(commitment.entry_start) + u64(commitment.entry_end) + u32(commitment.leaf_count)
    roots = commitment.prev_state_root + commitment.merkle_root
    return sha256(AUDIT_STATE_ROOT + chain_id(commitment.node_id) + roots + span).digest()


def next_audit_commitment(
    node_id: Uuid,
    *,
    entry_start: int,
    entry_hashes: Sequence[bytes],
    prev_state_root: bytes,
    committed_at_us: int,
) -> AuditCommitment:
    """The commitment over as many entries from entry_start on as there are hashes: 1 to
    COMMITTED_ENTRIES_MAX, else ValueError."""
    if entry_start < 1 or not 0 < len(entry_hashes) <= COMMITTED_ENTRIES_MAX:
        raise ValueError(f"no range of entries: {len(entry_hashes)} from {entry_start}")
    leaves = [leaf_hash(node_id, n, one) for n, one in enumerate(entry_hashes, entry_start)]
    unchained = AuditCommitment(
        node_id=node_id,
        entry_start=entry_start,
        entry_end=entry_start + len(entry_hashes) - 1,
        merkle_root=merkle_root(leaves),
        prev_state_root=prev_state_root,
        new_state_root=b"",
        committed_at_us=committed_at_us,
    )
    return msgspec.structs.replace(unchained, new_state_root=state_root(unchained))


def _levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """Bottom-up, the padding in it."""
    if not leaves:
        raise ValueError("a tree has leaves")
    padding = sha256(AUDIT_PAD_LEAF).digest()
    levels = [[*leaves, *[padding] * (padded_leaf_count(len(leaves)) - len(leaves))]]
    while len(levels[-1]) > 1:
        pairs = iter(levels[-1])
        levels.append([sha256(AUDIT_NODE + a + b).digest() for a, b in zip(pairs, pairs, strict=True)])
    return levels
