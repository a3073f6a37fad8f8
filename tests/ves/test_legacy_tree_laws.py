"""The legacy stream's trees: whoever knows the leaf count can follow every proof, and no changed one."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from other_rooms import index_bit_walk, promoting_levels, promoting_path, promoting_walk

from ves.legacy_commitments import EntityVersions
from ves.legacy_tree import leads_to_root, promoting_parents, steps, stored_levels
from ves.merkle import SUBTREE_LEAVES, TreeBuilder, build_levels

COUNTS = st.integers(1, 70)


def leaves_of(count: int) -> list[bytes]:
    return [sha256(index.to_bytes(4, "big")).digest() for index in range(count)]


def served(count: int, index: int) -> tuple[bytes, list[bytes], bytes]:
    """Leaf, path and root, as a server reads them from what is stored."""
    stored = stored_levels(build_levels(leaves_of(count), promoting_parents))
    nodes = [stored[at : at + 32] for at in range(0, len(stored), 32)]
    return nodes[index], [nodes[step.position] for step in steps(count, index)], nodes[-1]


@given(count=COUNTS, data=st.data())
def test_every_leaf_leads_to_the_root_by_a_second_implementation_too(count: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, count - 1))
    leaf, path, root = served(count, index)
    levels = promoting_levels(leaves_of(count))
    assert root == levels[-1][0]
    assert path == promoting_path(levels, index)
    assert promoting_walk(leaf, index, path, count) == root
    assert leads_to_root(leaf, index, path, root, count)
    # Without the count it is the original's rule, and right for as many leaves as a power of two.
    by_bits = index_bit_walk(leaf, index, path) == root
    assert leads_to_root(leaf, index, path, root, None) is by_bits
    if count & (count - 1) == 0:
        assert by_bits


@given(count=COUNTS, data=st.data())
def test_a_changed_proof_leads_nowhere(count: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, count - 1))
    leaf, path, root = served(count, index)
    other = bytes(32)
    assert not leads_to_root(other, index, path, root, count)
    assert not leads_to_root(leaf, index, path, other, count)
    assert not leads_to_root(leaf, index, [*path, other], root, count)
    for at in range(len(path)):
        assert not leads_to_root(leaf, index, [*path[:at], other, *path[at + 1 :]], root, count)
        assert not leads_to_root(leaf, index, path[:at] + path[at + 1 :], root, count)
    for wrong in range(count + 2):
        if wrong != index:
            assert not leads_to_root(leaf, wrong, path, root, count)
    assert not leads_to_root(leaf, count, path, root, count)


@given(count=st.integers(3, 70), data=st.data())
def test_an_inner_node_passes_for_no_leaf(count: int, data: st.DataObject) -> None:
    levels = promoting_levels(leaves_of(count))
    inner = {node for level in levels[1:] for node in level} - set(levels[0])
    root = levels[-1][0]
    node = data.draw(st.sampled_from(sorted(inner)))
    index = data.draw(st.integers(0, count - 1))
    for path in (promoting_path(levels, index)[cut:] for cut in range(len(levels))):
        assert not leads_to_root(node, index, path, root, count)


@pytest.mark.parametrize("more", [-1, 0, 1, 2, 3, SUBTREE_LEAVES + 5])
def test_a_tree_built_in_steps_is_the_tree_built_at_once(more: int) -> None:
    leaves = leaves_of(SUBTREE_LEAVES + more)
    builder = TreeBuilder(promoting_parents)
    for start in range(0, len(leaves), SUBTREE_LEAVES):
        builder.add(leaves[start : start + SUBTREE_LEAVES])
    levels, at_once = builder.levels(), promoting_levels(leaves)
    assert [b"".join(pieces) for pieces in levels] == [b"".join(nodes) for nodes in at_once]
    assert (levels[-1], stored_levels(levels)) == (at_once[-1], stored_levels(at_once))


@pytest.mark.parametrize("index", [-1, 3])
def test_there_is_no_way_up_from_beside_the_leaves(index: int) -> None:
    with pytest.raises(IndexError):
        list(steps(3, index))
    assert not leads_to_root(bytes(32), index, [], bytes(32), 3)


def test_paths_of_impossible_length_or_of_short_nodes_lead_nowhere() -> None:
    assert not leads_to_root(bytes(32), 0, [bytes(32)] * 65, bytes(32), None)
    assert not leads_to_root(bytes(32), 0, [bytes(31)], sha256(bytes(63)).digest(), None)
    assert leads_to_root(bytes(32), 0, [bytes(32)], sha256(bytes(64)).digest(), 2)


def test_versions_are_hashed_as_raw_bytes_little_endian() -> None:
    versions = EntityVersions(b"T" * 16, b"S" * 16)
    versions.add("order", "é", 258)
    expected = sha256(b"T" * 16 + b"S" * 16 + "orderé".encode() + b"\x02\x01" + bytes(6)).digest()
    assert versions.state_root() == expected
