"""``anchorMany`` and ``verifyIncluded`` say what ``ves.anchoring`` says, of every leaf and of every lie."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contracts.on_chain import OnChain, digest, history
from ves import anchor_calls as calls
from ves.anchoring import (
    aggregate_head,
    aggregate_levels,
    aggregate_path,
    aggregate_root,
    anchor_leaf,
    verify_in_aggregate,
)
from ves.merkle import Levels

COUNTS = (1, 2, 3, 4, 5, 7, 8, 9, 100, 1000, 4096)
CHAIN_ID = 84_532_001


def _levels(count: int) -> Levels:
    return aggregate_levels([digest(f"leaf {n} of {count}") for n in range(count)])


def _anchored(contract: OnChain, counts: tuple[int, ...] = COUNTS) -> dict[int, Levels]:
    trees, first = {count: _levels(count) for count in counts}, 0
    for count, levels in trees.items():
        contract.send(calls.anchor_many(levels[-1][0], count, first))
        first += count
    return trees


def test_aggregates_are_chained_to_each_other_and_kept_under_their_roots(contract: OnChain) -> None:
    head, first = bytes(32), 0
    for count in (3, 1, 4096):
        root = digest(f"root of {count}")
        mined = contract.send(calls.anchor_many(root, count, first))
        before, head = head, aggregate_head(head, root, first, count)
        (event,) = mined.events
        assert isinstance(event, calls.AggregateAnchored)
        said = (event.root, event.first_index, event.count, event.previous_head, event.head)
        assert said == (root, first, count, before, head)
        kept = calls.read_aggregate(contract.ask(calls.aggregates(root)))
        assert kept == calls.Aggregate(first, count, event.timestamp_s, contract.owner, head)
        first += count
        assert calls.read_number(contract.ask(calls.AGGREGATED_COUNT), bits=64) == first
        assert calls.read_hash(contract.ask(calls.AGGREGATE_HEAD)) == head
    assert calls.read_aggregate(contract.ask(calls.aggregates(digest("unknown")))) is None


def test_commitments_of_many_tenants_are_proven_one_by_one(contract: OnChain) -> None:
    commitments = [one for stream in ("a", "b", "c") for one in history(stream, 4, 2)]
    leaves = [anchor_leaf(CHAIN_ID, contract.address, one) for one in commitments]
    levels = aggregate_levels(leaves)
    root = levels[-1][0]
    contract.send(calls.anchor_many(root, len(leaves), 0))
    for position, leaf in enumerate(leaves):
        path = aggregate_path(levels, position)
        assert calls.read_bool(contract.ask(calls.verify_included(root, leaf, path, position)))
    elsewhere = anchor_leaf(CHAIN_ID + 1, contract.address, commitments[0])
    assert not calls.read_bool(
        contract.ask(calls.verify_included(root, elsewhere, aggregate_path(levels, 0), 0))
    )


def test_first_and_last_leaf_of_every_size_are_included_and_the_padding_is_not(contract: OnChain) -> None:
    for count, levels in _anchored(contract).items():
        root = levels[-1][0]
        for position in {0, count // 2, count - 1}:
            path = aggregate_path(levels, position)
            asked = calls.verify_included(root, levels[0][position], path, position)
            assert calls.read_bool(contract.ask(asked)), (count, position)
            for beyond in (count, position + (1 << len(path)), 2**32 - 1):
                asked = calls.verify_included(root, levels[0][position], path, beyond)
                assert not calls.read_bool(contract.ask(asked)), (count, beyond)


def test_the_contract_and_the_library_agree_on_every_proof(contract: OnChain) -> None:
    trees = _anchored(contract)

    @settings(max_examples=150, deadline=None, database=None)
    @given(data=st.data())
    def agree(data: st.DataObject) -> None:
        count = data.draw(st.sampled_from(COUNTS))
        levels = trees[count]
        position = data.draw(st.integers(0, count - 1))
        leaf, path, root = levels[0][position], aggregate_path(levels, position), levels[-1][0]
        lie = data.draw(
            st.sampled_from(["", "leaf", "node", "step", "short", "long", "index", "root", "inner"])
        )
        if lie == "leaf":
            leaf = digest("another leaf")
        elif lie == "node" and path:
            place = data.draw(st.integers(0, len(path) - 1))
            path[place] = digest("another node")
        elif lie == "step" and len(path) > 1:
            path = path[::-1]
        elif lie == "short":
            path = path[:-1]
        elif lie == "long":
            path = [*path, digest("more")]
        elif lie == "index":
            position = data.draw(st.integers(0, 2**32 - 1))
        elif lie == "root":
            root = trees[data.draw(st.sampled_from(COUNTS))][-1][0]
        elif lie == "inner" and path:
            leaf, path, position = levels[1][position >> 1], path[1:], position >> 1
        counts = {levels[-1][0]: count for count, levels in trees.items()}
        ours = verify_in_aggregate(leaf, path, position, counts[root], root)
        assert calls.read_bool(contract.ask(calls.verify_included(root, leaf, path, position))) == ours
        assert ours or lie
        assert not ours or lie not in ("leaf", "long")

    agree()


def test_an_unknown_root_includes_nothing(contract: OnChain) -> None:
    leaf = digest("leaf")
    assert verify_in_aggregate(leaf, [], 0, 1, aggregate_root([leaf]))
    assert not calls.read_bool(contract.ask(calls.verify_included(leaf, leaf, [], 0)))


@pytest.mark.parametrize("first", [0, 1, 3, 2**64 - 1])
def test_an_aggregate_is_anchored_at_its_own_place_only(contract: OnChain, first: int) -> None:
    """A transaction that was sent twice, or by two who did not know of each other, has one effect."""
    contract.send(calls.anchor_many(digest("a"), 2, 0))
    assert contract.refusal(calls.anchor_many(digest("b"), 1, first)) == "Wrong first index"
    contract.send(calls.anchor_many(digest("b"), 1, 2))
