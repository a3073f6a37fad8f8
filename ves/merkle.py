"""The Merkle tree over a batch of events (VES 3.7, 3.8): leaves, padding, levels, root, inclusion paths.

It alone hashes leaves and nodes. Leaves stand in sequence order and are padded to the next power of two;
the padding is never stored, it follows from the number of leaves: ``Levels`` holds only hashes that depend
on events. Checking a proof is in ``ves.proofs``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from struct import unpack

from ves.constants import LEAF, NODE, PAD_LEAF, PROOF_PATH_MAX, ZERO_HASH
from ves.encoding import u64
from ves.records import Uuid

Levels = list[list[bytes]]
"""Bottom-up; level k has ceil(leaf_count / 2**k) hashes, the last level is the root alone."""

Parents = Callable[[list[bytes], int], list[bytes]]
"""The level above the nodes of this height, 0 for leaves: how a tree treats a lone right-most node."""

LEAF_SOURCE_BYTES = 8 + 32 + 64
NODE_BYTES = 32
SUBTREE_LEAVES = 1024
"""Leaves hashed in one go by ``TreeBuilder.add``: about a millisecond of work."""


def leaf_hash(
    tenant_id: Uuid, store_id: Uuid, sequence_number: int, event_signing_hash: bytes, agent_signature: bytes
) -> bytes:
    """The leaf of one sequenced event; the preimage has 147 bytes."""
    preimage = LEAF + tenant_id + store_id + u64(sequence_number) + event_signing_hash + agent_signature
    return sha256(preimage).digest()


def leaf_hashes(tenant_id: Uuid, store_id: Uuid, sources: bytes) -> list[bytes]:
    """``leaf_hash`` of events of one stream; ``sources`` holds U64 number, signing hash and signature of each
    in one run of bytes, as they stand in the preimage."""
    before = LEAF + tenant_id + store_id
    return [
        sha256(before + sources[at : at + LEAF_SOURCE_BYTES]).digest()
        for at in range(0, len(sources), LEAF_SOURCE_BYTES)
    ]


def leaf_numbers(sources: bytes) -> tuple[int, ...]:
    """The sequence numbers in them. ValueError when it is no whole number of sources."""
    count, rest = divmod(len(sources), LEAF_SOURCE_BYTES)
    if rest:
        raise ValueError("leaf sources are cut off")
    return unpack(">" + "Q96x" * count, sources)


def node_hash(left: bytes, right: bytes) -> bytes:
    """An inner node; the preimage has 75 bytes."""
    return sha256(NODE + left + right).digest()


def pad_nodes(pad_leaf: bytes, node: bytes) -> list[bytes]:
    """Element k is the root of 2**k padding leaves in the tree of these two domains."""
    nodes = [sha256(pad_leaf).digest()]
    for _ in range(PROOF_PATH_MAX):
        nodes.append(sha256(node + nodes[-1] + nodes[-1]).digest())
    return nodes


def padded(node: bytes, pads: Sequence[bytes]) -> Parents:
    """A lone right-most node is paired with padding of its height."""

    def parents(below: list[bytes], height: int) -> list[bytes]:
        if len(below) % 2:
            below = [*below, pads[height]]
        pairs = iter(below)
        return [sha256(node + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]

    return parents


PAD_NODES = pad_nodes(PAD_LEAF, NODE)
"""``PAD_NODES[k]`` is the root of 2**k padding leaves; ``PAD_NODES[0]`` is the padding leaf itself."""
padded_parents = padded(NODE, PAD_NODES)
"""The VES tree's."""


def tree_depth(leaf_count: int) -> int:
    """Levels above the leaves: log2 of the padded leaf count. 0 for one leaf."""
    return max(leaf_count - 1, 0).bit_length()


def padded_leaf_count(leaf_count: int) -> int:
    """The next power of two; 1 for none or one."""
    return 1 << tree_depth(leaf_count)


def build_levels(leaves: Sequence[bytes], parents: Parents = padded_parents) -> Levels:
    """All levels over ``leaves``, in one go. Empty input gives the one level ``[32 zero bytes]``."""
    if not leaves:
        return [[ZERO_HASH]]
    levels = [list(leaves)]
    while len(levels[-1]) > 1:
        levels.append(parents(levels[-1], len(levels) - 1))
    return levels


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """The root over ``leaves``; 32 zero bytes for none (VES 3.7)."""
    return build_levels(leaves)[-1][0]


class TreeBuilder:
    """Builds the same levels as ``build_levels`` in short steps, so an event loop can breathe in between. No
    object of a node outlives its step: to join, and then to forget, a hundred thousand takes several.

    builder = TreeBuilder()
    for leaves in chunks:      # each of SUBTREE_LEAVES, the last may be shorter
        builder.add(leaves)
        await checkpoint()
    levels = builder.levels()
    """

    def __init__(self, parents: Parents = padded_parents) -> None:
        self._parents = parents
        self._levels: Levels = [[]]
        """In pieces."""
        self._complete = False

    def add(self, leaves: Sequence[bytes]) -> None:
        """Hash one subtree. ValueError when a short one was added before or this one is too long."""
        if self._complete or not 0 < len(leaves) <= SUBTREE_LEAVES:
            raise ValueError(f"every chunk but the last has {SUBTREE_LEAVES} leaves")
        self._complete = len(leaves) < SUBTREE_LEAVES
        # A full chunk is a whole subtree, so its levels just stand beside those of its neighbours.
        for height, level in enumerate(build_levels(leaves, self._parents)):
            if height == len(self._levels):
                self._levels.append([])
            self._levels[height].append(b"".join(level))

    def levels(self) -> Levels:
        """The finished levels, each in pieces of one or more nodes; the root is the last one's only piece.
        Call it once, after the last chunk."""
        levels = self._levels
        if not levels[0]:
            return [[ZERO_HASH]]
        # Carry a short last chunk up to its neighbours' height, then join the subtrees' roots.
        leaf_count = _node_count(levels[0])
        for height in range(1, len(levels)):
            if _node_count(levels[height]) < -(-leaf_count >> height):
                levels[height] += self._parents([levels[height - 1][-1][-NODE_BYTES:]], height - 1)
        while len(levels[-1]) > 1:  # one subtree's root each
            levels.append(self._parents(levels[-1], len(levels) - 1))
        return levels


def _node_count(pieces: Sequence[bytes]) -> int:
    return sum(map(len, pieces)) // NODE_BYTES


def inclusion_path(levels: Levels, leaf_index: int, pads: Sequence[bytes] = PAD_NODES) -> list[bytes]:
    """Siblings from leaf to root (VES 3.8), as many as the tree is deep. IndexError beyond the leaves."""
    if not 0 <= leaf_index < len(levels[0]):
        raise IndexError(f"leaf {leaf_index} of {len(levels[0])}")
    path = []
    for height, level in enumerate(levels[:-1]):
        sibling = (leaf_index >> height) ^ 1
        path.append(level[sibling] if sibling < len(level) else pads[height])
    return path


def stored_levels(levels: Levels) -> bytes:
    """All nodes in one run of bytes, 32 each: the padded leaves, then level by level up to the root. The
    padding is in it so that a node's place follows from the tree's depth alone (``sibling_positions``).
    The levels may be in pieces."""
    found: list[bytes] = []
    for height, pieces in enumerate(levels):
        width = 1 << (len(levels) - 1 - height)
        found += [*pieces, PAD_NODES[height] * (width - _node_count(pieces))]
    return b"".join(found)


def sibling_positions(leaf_count: int, leaf_index: int) -> list[int]:
    """Where the siblings from leaf to root stand in ``stored_levels``, counted in nodes."""
    positions = []
    start, width, index = 0, padded_leaf_count(leaf_count), leaf_index
    while width > 1:
        positions.append(start + (index ^ 1))
        start, width, index = start + width, width // 2, index // 2
    return positions


def directions(leaf_index: int, path_length: int) -> list[bool]:
    """For each step of a path whether the running hash is the left input: bit k of the index is 0."""
    return [not (leaf_index >> height) & 1 for height in range(path_length)]
