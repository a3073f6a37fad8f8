"""The legacy stream's Merkle tree (VES 3.10): no domains, and a lone right-most node moves up unchanged.

A path has no step where a node moved up, so it can be followed only by whoever knows how many leaves there
are. The original follows the bits of the index instead, which fails for such leaves; both are here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import chain
from typing import NamedTuple

from ves.constants import PROOF_PATH_MAX
from ves.merkle import Levels

_HASH_BYTES = 32


def promoting_parents(below: list[bytes], height: int) -> list[bytes]:
    """The level above: for ``ves.merkle.build_levels`` and ``TreeBuilder``."""
    above = [_node(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)]
    return above + below[len(above) * 2 :]


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(left + right).digest()


def stored_levels(levels: Levels) -> bytes:
    """All nodes in one run of bytes, 32 each, from the leaves up to the root. The levels may be in pieces."""
    return b"".join(chain.from_iterable(levels))


class Step(NamedTuple):
    """One sibling on the way up."""

    position: int
    """In ``stored_levels``, counted in nodes."""
    running_is_left: bool


def steps(leaf_count: int, leaf_index: int) -> Iterator[Step]:
    """The siblings of a leaf, bottom-up; none where its node moves up. IndexError beyond the leaves."""
    if not 0 <= leaf_index < leaf_count:
        raise IndexError(f"leaf {leaf_index} of {leaf_count}")
    start, width, index = 0, leaf_count, leaf_index
    while width > 1:
        if index ^ 1 < width:
            yield Step(start + (index ^ 1), not index & 1)
        start, width, index = start + width, (width + 1) // 2, index // 2


def leads_to_root(
    leaf: bytes, leaf_index: int, proof_path: Sequence[bytes], events_root: bytes, leaf_count: int | None
) -> bool:
    """Whether the path leads from the leaf to the root, by the leaf count, or without one by the original's
    rule: bit k of the index tells the side of step k."""
    if len(proof_path) > PROOF_PATH_MAX or any(len(node) != _HASH_BYTES for node in proof_path):
        return False
    if leaf_count is None:
        sides = [not leaf_index >> height & 1 for height in range(len(proof_path))]
    elif 0 <= leaf_index < leaf_count:
        sides = [step.running_is_left for step in steps(leaf_count, leaf_index)]
    else:
        return False
    if len(sides) != len(proof_path):
        return False
    running = leaf
    for is_left, sibling in zip(sides, proof_path, strict=True):
        running = _node(running, sibling) if is_left else _node(sibling, running)
    return running == events_root
