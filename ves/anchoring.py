"""How commitments stand on a chain: one leaf per commitment, a tree over many of them, a chain of trees.

    leaf   = H("VES_ANCHOR_LEAF_V1" || U64(chain_id) || contract[20] || UUID(batch_id) || UUID(tenant_id)
               || UUID(store_id) || U64(sequence_start) || U64(sequence_end) || U32(leaf_count)
               || merkle_root || new_state_root)
    node   = H("VES_ANCHOR_NODE_V1" || left || right)
    padding = H("VES_ANCHOR_PAD_LEAF_V1"), up to the next power of two
    head_n = H("VES_ANCHOR_HEAD_V1" || head_(n-1) || root_n || U64(first_index_n) || U32(count_n))

H is SHA-256: contracts have it as a precompile. An aggregate is the tree over the commitments that one
transaction anchors; ``first_index`` counts all leaves of the aggregates before it, and before the first head
stand 32 zero bytes. A leaf names its chain and contract, so that no proof passes for another one's. It alone
hashes any of this; what a contract is called with is in ``ves.anchor_calls``.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from ves.constants import ANCHOR_HEAD, ANCHOR_LEAF, ANCHOR_NODE, ANCHOR_NODE_ID, ANCHOR_PAD_LEAF
from ves.encoding import u32, u64
from ves.merkle import Levels, build_levels, directions, inclusion_path, pad_nodes, padded, tree_depth
from ves.records import Commitment, Uuid

AGGREGATE_LEAVES_MAX = 4096
"""Commitments of one transaction: their tree is hashed in some milliseconds."""


def anchor_leaf(chain_id: int, contract: bytes, commitment: Commitment) -> bytes:
    """``contract``: the 20 bytes of its address."""
    if len(contract) != 20:
        raise ValueError("a contract's address has 20 bytes")
    preimage = (
        ANCHOR_LEAF
        + u64(chain_id)
        + contract
        + commitment.batch_id
        + commitment.tenant_id
        + commitment.store_id
        + u64(commitment.sequence_start)
        + u64(commitment.sequence_end)
        + u32(commitment.leaf_count)
        + commitment.merkle_root
        + commitment.new_state_root
    )
    return sha256(preimage).digest()


def anchor_node(left: bytes, right: bytes) -> bytes:
    return sha256(ANCHOR_NODE + left + right).digest()


PAD_NODES = pad_nodes(ANCHOR_PAD_LEAF, ANCHOR_NODE)
_parents = padded(ANCHOR_NODE, PAD_NODES)


def aggregate_levels(leaves: Sequence[bytes]) -> Levels:
    """Bottom-up; the last level is the root alone. ValueError for none or too many."""
    if not 0 < len(leaves) <= AGGREGATE_LEAVES_MAX:
        raise ValueError(f"an aggregate has 1 to {AGGREGATE_LEAVES_MAX} leaves")
    return build_levels(leaves, _parents)


def aggregate_root(leaves: Sequence[bytes]) -> bytes:
    return aggregate_levels(leaves)[-1][0]


def aggregate_path(levels: Levels, position: int) -> list[bytes]:
    """Siblings from leaf to root, as many as the tree is deep. IndexError beyond the leaves."""
    return inclusion_path(levels, position, PAD_NODES)


def verify_in_aggregate(leaf: bytes, path: Sequence[bytes], position: int, count: int, root: bytes) -> bool:
    """The leaf stands at ``position`` of the ``count`` leaves under ``root``: what the contract's
    ``verifyIncluded`` says, too."""
    if not 0 <= position < count <= AGGREGATE_LEAVES_MAX or len(path) != tree_depth(count):
        return False
    running = leaf
    for sibling, is_left in zip(path, directions(position, len(path)), strict=True):
        running = anchor_node(running, sibling) if is_left else anchor_node(sibling, running)
    return running == root


def aggregate_head(previous: bytes, root: bytes, first_index: int, count: int) -> bytes:
    return sha256(ANCHOR_HEAD + previous + root + u64(first_index) + u32(count)).digest()


def uuid_word(raw: Uuid) -> bytes:
    """A UUID as the contract's bytes32: its 16 bytes, then 16 zero bytes (VES 8.2)."""
    return raw + bytes(16)


def anchor_node_id(sequencer_id: Uuid) -> Uuid:
    """The anchor of a node, in its lease and as the owner of an audit chain of its own."""
    return sha256(ANCHOR_NODE_ID + sequencer_id).digest()[:16]
