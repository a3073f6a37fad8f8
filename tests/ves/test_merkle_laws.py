"""Trees, paths and commitments: a proof verifies, and any change of it does not."""

from __future__ import annotations

from hashlib import sha256, sha512

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ves.commitments import next_commitment
from ves.constants import ZERO_HASH
from ves.events import EventHeader, event_signing_hash, payload_plain_hash
from ves.merkle import (
    PAD_NODES,
    SUBTREE_LEAVES,
    TreeBuilder,
    build_levels,
    inclusion_path,
    leaf_hash,
    leaf_hashes,
    leaf_numbers,
    merkle_root,
    node_hash,
    padded_leaf_count,
    sibling_positions,
    stored_levels,
    tree_depth,
)
from ves.proofs import (
    InclusionProof,
    SequencedEvent,
    path_leads_to_root,
    verify_commitment,
    verify_event,
    verify_inclusion,
    verify_receipt,
)
from ves.receipts import receipt_hash
from ves.records import Commitment, Receipt
from ves.signatures import Signer

AGENT, SEQUENCER = Signer(bytes(range(32))), Signer(bytes(range(32, 64)))
TENANT, STORE, BATCH = b"T" * 16, b"S" * 16, b"B" * 16


def _leaf(index: int) -> bytes:
    return sha256(index.to_bytes(4, "big")).digest()


def _naive_root(leaves: list[bytes]) -> bytes:
    """The definition, with the padding written out."""
    level = leaves + [PAD_NODES[0]] * (padded_leaf_count(len(leaves)) - len(leaves))
    while len(level) > 1:
        level = [node_hash(level[i], level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]


@given(st.integers(1, 70))
def test_the_root_is_that_of_the_padded_tree_and_every_path_leads_to_it(count: int) -> None:
    leaves = [_leaf(index) for index in range(count)]
    levels = build_levels(leaves)
    assert levels[-1] == [_naive_root(leaves)] == [merkle_root(leaves)]
    assert len(levels) == tree_depth(count) + 1
    for index in range(count):
        path = inclusion_path(levels, index)
        assert len(path) == tree_depth(count)
        assert path_leads_to_root(leaves[index], index, path, levels[-1][0])
    for outside in (-1, count):
        with pytest.raises(IndexError):
            inclusion_path(levels, outside)


@pytest.mark.parametrize("count", [0, 1, 3, 1023, 1024, 1025, 1027, 2048, 2049, 3000, 4096, 5121])
def test_the_tree_built_in_steps_is_the_tree_built_at_once(count: int) -> None:
    leaves = [_leaf(index) for index in range(count)]
    builder = TreeBuilder()
    for start in range(0, count, SUBTREE_LEAVES):
        builder.add(leaves[start : start + SUBTREE_LEAVES])
    levels, at_once = builder.levels(), build_levels(leaves)
    assert [b"".join(pieces) for pieces in levels] == [b"".join(nodes) for nodes in at_once]
    assert (levels[-1], stored_levels(levels)) == (at_once[-1], stored_levels(at_once))


def test_a_chunk_after_a_short_one_and_an_overlong_one_are_mistakes() -> None:
    builder = TreeBuilder()
    builder.add([_leaf(0)])
    with pytest.raises(ValueError, match="every chunk but the last"):
        builder.add([_leaf(1)])
    with pytest.raises(ValueError, match="every chunk but the last"):
        TreeBuilder().add([_leaf(0)] * (SUBTREE_LEAVES + 1))


@given(st.integers(2, 40), st.data())
def test_any_flipped_bit_of_a_proof_makes_it_false(count: int, data: st.DataObject) -> None:
    leaves = [_leaf(index) for index in range(count)]
    levels = build_levels(leaves)
    index = data.draw(st.integers(0, count - 1))
    path = inclusion_path(levels, index)
    parts = [leaves[index], *path, levels[-1][0]]
    which = data.draw(st.integers(0, len(parts) - 1))
    bit = data.draw(st.integers(0, 255))
    flipped = bytearray(parts[which])
    flipped[bit // 8] ^= 1 << bit % 8
    parts[which] = bytes(flipped)
    assert not path_leads_to_root(parts[0], index, parts[1:-1], parts[-1])
    assert not path_leads_to_root(leaves[index], index ^ (1 << bit % len(path)), path, levels[-1][0])


def test_a_path_that_is_too_long_or_not_of_hashes_is_false() -> None:
    leaf = _leaf(0)
    root, path = leaf, []
    for _ in range(65):
        path.append(root)
        root = node_hash(root, root)
    assert not path_leads_to_root(leaf, 0, path, root)
    left, right = _leaf(1), _leaf(2)
    shifted = node_hash(left, right)
    assert not path_leads_to_root(left[:-1], 0, [left[-1:] + right], shifted)
    assert not path_leads_to_root(leaf, -1, [], leaf)


class Story:
    """One stream of honest events with everything a third party would hold."""

    def __init__(self, count: int, start: int = 1) -> None:
        self.events = [self._event(start + index) for index in range(count)]
        leaves = [
            leaf_hash(TENANT, STORE, event.sequence_number, event.signing_hash(), event.agent_signature)
            for event in self.events
        ]
        self.levels = build_levels(leaves)
        self.commitment = next_commitment(
            batch_id=BATCH,
            tenant_id=TENANT,
            store_id=STORE,
            merkle_root=self.levels[-1][0],
            prev_state_root=ZERO_HASH if start == 1 else _leaf(0),
            sequence_start=start,
            sequence_end=start + count - 1,
            committed_at_us=0,
        )

    def _event(self, number: int) -> SequencedEvent:
        header = EventHeader(
            TENANT,
            STORE,
            number.to_bytes(16, "big"),
            b"A" * 16,
            1,
            "order",
            f"O-{number}",
            "order.created",
            "2026-01-01T00:00:00Z",
        )
        payload = b'{"n":%d}' % number
        plain = payload_plain_hash(payload)
        signature = AGENT.sign(event_signing_hash(header.encoded(), 0, plain, ZERO_HASH))
        return SequencedEvent(header, 0, payload, plain, ZERO_HASH, signature, number)

    def receipt(self, index: int) -> Receipt:
        event = self.events[index]
        digest = receipt_hash(
            TENANT, STORE, event.header.event_id, event.sequence_number, event.signing_hash()
        )
        return Receipt(
            event.header.event_id, event.sequence_number, 0, digest, b"Q" * 16, 1, SEQUENCER.sign(digest)
        )

    def proof(self, index: int) -> InclusionProof:
        return InclusionProof(
            BATCH,
            self.events[index].sequence_number,
            self.commitment.merkle_root,
            self.levels[0][index],
            index,
            inclusion_path(self.levels, index),
        )


@settings(max_examples=25)
@given(st.integers(1, 20), st.integers(1, 1000))
def test_what_an_honest_sequencer_says_has_no_problems(count: int, start: int) -> None:
    story = Story(count, start)
    assert verify_commitment(story.commitment) == []
    for index, event in enumerate(story.events):
        receipt = story.receipt(index)
        assert verify_event(event, AGENT.public_key) == []
        assert verify_receipt(event, receipt, SEQUENCER.public_key) == []
        assert verify_inclusion(event, receipt, story.commitment, story.proof(index)) == []


EVENT_LIES = {
    "payload": b'{"n":4}',
    "payload_plain_hash": _leaf(9),
    "payload_cipher_hash": _leaf(9),
    "agent_signature": bytes(64),
    "sequence_number": 2,
    "payload_kind": 1,
}
HEADER_LIES = {
    "tenant_id": b"t" * 16,
    "store_id": b"s" * 16,
    "event_id": b"e" * 16,
    "source_agent_id": b"a" * 16,
    "agent_key_id": 2,
    "entity_type": "orders",
    "entity_id": "O-4",
    "event_type": "order.paid",
    "created_at": "2026-01-01T00:00:00+00:00",
}
COMMITMENT_LIES = {
    "batch_id": b"b" * 16,
    "tenant_id": b"t" * 16,
    "store_id": b"s" * 16,
    "ves_version": 2,
    "tree_depth": 2,
    "leaf_count": 6,
    "padded_leaf_count": 16,
    "merkle_root": _leaf(9),
    "prev_state_root": _leaf(9),
    "new_state_root": _leaf(9),
    "sequence_start": 2,
    "sequence_end": 6,
}
PROOF_LIES = {
    "batch_id": b"b" * 16,
    "sequence_number": 4,
    "merkle_root": _leaf(9),
    "leaf_hash": _leaf(9),
    "leaf_index": 10,  # 2 + 8: the same bits under a path of three steps
}
RECEIPT_LIES = {"event_id": b"e" * 16, "sequence_number": 4, "receipt_hash": _leaf(9)}


def _changed(value: msgspec.Struct, **lies: object) -> msgspec.Struct:
    return msgspec.structs.replace(value, **lies)


@pytest.mark.parametrize("name", EVENT_LIES)
def test_an_event_changed_in_any_field_is_not_included(name: str) -> None:
    story = Story(5)
    lie = _changed(story.events[2], **{name: EVENT_LIES[name]})
    assert isinstance(lie, SequencedEvent)
    assert verify_inclusion(lie, story.receipt(2), story.commitment, story.proof(2))


@pytest.mark.parametrize("name", HEADER_LIES)
def test_an_event_changed_in_any_signed_name_is_not_included_nor_signed(name: str) -> None:
    story = Story(5)
    header = _changed(story.events[2].header, **{name: HEADER_LIES[name]})
    lie = _changed(story.events[2], header=header)
    assert isinstance(lie, SequencedEvent)
    assert verify_inclusion(lie, story.receipt(2), story.commitment, story.proof(2))
    assert "agent_signature" in {problem.name for problem in verify_event(lie, AGENT.public_key)}


@pytest.mark.parametrize("name", COMMITMENT_LIES)
def test_a_commitment_changed_in_any_field_is_noticed(name: str) -> None:
    story = Story(5)
    lie = _changed(story.commitment, **{name: COMMITMENT_LIES[name]})
    assert isinstance(lie, Commitment)
    assert verify_inclusion(story.events[2], story.receipt(2), lie, story.proof(2))


@pytest.mark.parametrize("name", PROOF_LIES)
def test_a_proof_changed_in_any_field_is_noticed(name: str) -> None:
    story = Story(5)
    lie = _changed(story.proof(2), **{name: PROOF_LIES[name]})
    assert isinstance(lie, InclusionProof)
    assert verify_inclusion(story.events[2], story.receipt(2), story.commitment, lie)


def test_a_proof_one_step_shorter_or_longer_is_noticed_by_name() -> None:
    story = Story(5)
    honest = story.proof(2)
    for path in (honest.proof_path[:-1], [*honest.proof_path, _leaf(9)], []):
        lie = msgspec.structs.replace(honest, proof_path=path)
        problems = verify_inclusion(story.events[2], story.receipt(2), story.commitment, lie)
        assert [problem.name for problem in problems] == ["path_length"]


@pytest.mark.parametrize("name", RECEIPT_LIES)
def test_a_receipt_changed_in_any_covered_field_is_noticed(name: str) -> None:
    story = Story(5)
    lie = _changed(story.receipt(2), **{name: RECEIPT_LIES[name]})
    assert isinstance(lie, Receipt)
    assert verify_receipt(story.events[2], lie, SEQUENCER.public_key)
    assert verify_inclusion(story.events[2], lie, story.commitment, story.proof(2))


def test_a_receipt_signed_by_another_key_or_for_another_event_is_noticed() -> None:
    story = Story(5)
    assert [p.name for p in verify_receipt(story.events[2], story.receipt(2), AGENT.public_key)] == [
        "sequencer_signature"
    ]
    problems = {p.name for p in verify_receipt(story.events[2], story.receipt(3), SEQUENCER.public_key)}
    assert problems == {"event_id", "sequence_number", "receipt_hash"}


def test_fields_shifted_into_each_other_share_a_preimage_and_are_refused_by_their_lengths() -> None:
    story = Story(5)
    honest = story.events[2]
    shifted = msgspec.structs.replace(
        honest,
        header=msgspec.structs.replace(honest.header, tenant_id=TENANT + STORE[:1], store_id=STORE[1:]),
    )
    assert shifted.signing_hash() == honest.signing_hash()
    for problems in (
        verify_event(shifted, AGENT.public_key),
        verify_receipt(shifted, story.receipt(2), SEQUENCER.public_key),
        verify_inclusion(shifted, story.receipt(2), story.commitment, story.proof(2)),
    ):
        assert [problem.name for problem in problems] == ["length"]


@pytest.mark.parametrize(
    ("name", "lie"),
    [("sequence_number", 0), ("sequence_number", -1), ("sequence_number", 2**70), ("agent_key_id", 2**40)],
)
def test_numbers_beyond_their_range_are_problems_and_no_exceptions(name: str, lie: int) -> None:
    story = Story(5)
    event = story.events[2]
    if name == "agent_key_id":
        event = msgspec.structs.replace(event, header=msgspec.structs.replace(event.header, agent_key_id=lie))
    else:
        event = msgspec.structs.replace(event, sequence_number=lie)
    problems = verify_inclusion(event, story.receipt(2), story.commitment, story.proof(2))
    assert [problem.name for problem in problems] == [name]


@pytest.mark.parametrize("end", [0, 2**63, 2**70])
def test_a_commitment_over_an_impossible_range_is_a_problem_and_no_exception(end: int) -> None:
    lie = msgspec.structs.replace(Story(5).commitment, sequence_end=end)
    assert [problem.name for problem in verify_commitment(lie)] == ["range"]


def test_a_range_that_is_none_has_no_commitment() -> None:
    for start, end in ((0, 3), (4, 3), (-1, -1)):
        with pytest.raises(ValueError, match="no range of events"):
            next_commitment(
                batch_id=BATCH,
                tenant_id=TENANT,
                store_id=STORE,
                merkle_root=ZERO_HASH,
                prev_state_root=ZERO_HASH,
                sequence_start=start,
                sequence_end=end,
                committed_at_us=0,
            )


def test_the_stored_levels_hold_every_path_at_its_computed_place() -> None:
    for count in range(1, 40):
        levels = build_levels([sha256(b"%d" % n).digest() for n in range(count)])
        stored = stored_levels(levels)
        assert len(stored) == 32 * (2 * padded_leaf_count(count) - 1)
        for index in range(count):
            path = [stored[32 * at : 32 * at + 32] for at in sibling_positions(count, index)]
            assert path == inclusion_path(levels, index)


def test_leaves_made_in_one_go_are_those_made_one_by_one() -> None:
    parts = [(n, sha256(b"%d" % n).digest(), sha512(b"%d" % n).digest()) for n in (7, 8, 9)]
    sources = b"".join(n.to_bytes(8, "big") + hashed + signature for n, hashed, signature in parts)
    assert leaf_numbers(sources) == (7, 8, 9)
    assert leaf_hashes(TENANT, STORE, sources) == [leaf_hash(TENANT, STORE, *one) for one in parts]
    assert (leaf_numbers(b""), leaf_hashes(TENANT, STORE, b"")) == ((), [])
    with pytest.raises(ValueError, match="cut off"):
        leaf_numbers(sources[:-1])
