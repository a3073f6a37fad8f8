"""``anchor`` and ``anchorBatch``: a stream's commitments in their order, each from the last state root."""

from __future__ import annotations

from hashlib import sha256

import msgspec
import pytest

from tests.contracts.on_chain import OnChain, anchor_batch, digest, history, uuid
from ves import anchor_calls as calls
from ves.commitments import next_commitment
from ves.encoding import u32, u64
from ves.records import Commitment

replace = msgspec.structs.replace


def test_a_history_made_by_the_sequencer_is_anchored_and_read_back(contract: OnChain) -> None:
    commitments = history("a", 2, 3, 1, 1000)
    for number, one in enumerate(commitments):
        assert not calls.read_bool(contract.ask(calls.is_anchored(one.batch_id)))
        mined = contract.send(calls.anchor(one))
        (event,) = mined.events
        assert isinstance(event, calls.CommitmentAnchored)
        assert (event.batch_id, event.tenant_id, event.store_id) == (
            *(one.batch_id, one.tenant_id, one.store_id),
        )
        assert (event.events_root, event.state_root) == (one.merkle_root, one.new_state_root)
        assert (event.sequence_start, event.sequence_end) == (one.sequence_start, one.sequence_end)
        assert event.event_count == one.leaf_count
        kept = calls.read_commitment(contract.ask(calls.get_commitment(one.batch_id)))
        assert kept == calls.AnchoredCommitment(
            *(one.tenant_id, one.store_id, one.merkle_root, one.new_state_root),
            *(one.sequence_start, one.sequence_end, one.leaf_count, event.timestamp_s, contract.owner),
        )
        assert event.timestamp_s == int(
            contract.chain.rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16
        )
        assert calls.read_bool(contract.ask(calls.is_anchored(one.batch_id)))
        assert calls.read_bool(contract.ask(calls.verify_events_root(one.batch_id, one.merkle_root)))
        assert not calls.read_bool(contract.ask(calls.verify_events_root(one.batch_id, one.new_state_root)))
        latest = contract.ask(calls.get_latest_sequence(one.tenant_id, one.store_id))
        assert calls.read_number(latest, bits=64) == one.sequence_end
        root = contract.ask(calls.get_latest_state_root(one.tenant_id, one.store_id))
        assert calls.read_hash(root) == one.new_state_root
        assert calls.read_number(contract.ask(calls.ANCHORED_COUNT)) == number + 1


def test_the_originals_getters_say_the_same_as_its_views(contract: OnChain) -> None:
    (one,) = history("a", 4)
    contract.send(calls.anchor(one))
    batch = calls.uuid_word(one.batch_id)
    got = contract.ask(calls.calldata("commitments(bytes32)", batch))
    assert got == contract.ask(calls.get_commitment(one.batch_id))
    assert not any(contract.ask(calls.calldata("commitments(bytes32)", bytes(32))))
    assert contract.ask(calls.calldata("anchoredBatches(uint256)", bytes(32))) == batch
    from eth_hash.auto import keccak

    key = keccak(calls.uuid_word(one.tenant_id) + calls.uuid_word(one.store_id))
    assert calls.read_number(contract.ask(calls.calldata("latestSequence(bytes32)", key))) == 4


def test_nothing_is_anchored_under_a_root_of_zero_bytes(contract: OnChain) -> None:
    assert not calls.read_bool(contract.ask(calls.verify_events_root(uuid("nobody"), bytes(32))))


def test_streams_do_not_touch_each_other(contract: OnChain) -> None:
    a, b = history("a", 2, 2), history("b", 3, 3)
    other_store = [replace(one, store_id=uuid("another"), batch_id=uuid(f"x{i}")) for i, one in enumerate(a)]
    for one in (a[0], b[0], b[1], a[1]):
        contract.send(calls.anchor(one))
    assert contract.refusal(calls.anchor(other_store[0])) == "Wrong state root"
    latest = calls.get_latest_sequence(a[0].tenant_id, other_store[0].store_id)
    assert calls.read_number(contract.ask(latest)) == 0


def _range_one_later(one: Commitment) -> Commitment:
    return replace(one, sequence_start=one.sequence_start + 1, sequence_end=one.sequence_end + 1)


CHANGED = {
    "another batch id is another batch, and nothing else": (lambda c: replace(c, batch_id=uuid("other")), ""),
    "events root": (lambda c: replace(c, merkle_root=digest("other")), "Wrong state root"),
    "state root": (lambda c: replace(c, new_state_root=digest("other")), "Wrong state root"),
    "tenant": (lambda c: replace(c, tenant_id=uuid("other")), "Not contiguous"),
    "store": (lambda c: replace(c, store_id=uuid("other")), "Not contiguous"),
    "range": (_range_one_later, "Not contiguous"),
    "range one longer": (
        lambda c: replace(c, sequence_end=c.sequence_end + 1, leaf_count=c.leaf_count + 1),
        "Wrong state root",
    ),
    "range one earlier": (
        lambda c: replace(c, sequence_start=c.sequence_start - 1, leaf_count=c.leaf_count + 1),
        "Not contiguous",
    ),
    "count": (lambda c: replace(c, leaf_count=c.leaf_count + 1), "Wrong event count"),
    "end and count beyond 32 bits": (
        lambda c: replace(c, sequence_end=c.sequence_end + 2**32),
        "Wrong event count",
    ),
}


@pytest.mark.parametrize("changed", CHANGED)
def test_a_commitment_with_one_thing_changed_is_refused(contract: OnChain, changed: str) -> None:
    first, second = history("a", 2, 3)
    change, reason = CHANGED[changed]
    contract.send(calls.anchor(first))
    assert contract.refusal(calls.anchor(change(second))) == reason
    contract.send(calls.anchor(second))


def test_commitments_out_of_order_or_left_out_are_refused(contract: OnChain) -> None:
    one, two, three = history("a", 2, 3, 4)
    assert contract.refusal(calls.anchor(two)) == "Not contiguous"
    contract.send(calls.anchor(one))
    assert contract.refusal(calls.anchor(three)) == "Not contiguous"
    contract.send(calls.anchor(two))
    assert contract.refusal(calls.anchor(replace(one, batch_id=uuid("again")))) == "Not contiguous"
    contract.send(calls.anchor(three))


def test_a_second_history_of_the_same_ranges_has_no_place(contract: OnChain) -> None:
    """A sequencer that shows two views: the second view's commitments start from another state root."""
    honest, forged = history("a", 2, 3), history("a", 2, 3)
    forged[0] = replace(forged[0], merkle_root=digest("the other view"))
    forged = _rechained(forged)
    contract.send(calls.anchor(honest[0]))
    assert contract.refusal(calls.anchor(replace(forged[0], batch_id=uuid("v2")))) == "Not contiguous"
    assert contract.refusal(calls.anchor(forged[1])) == "Wrong state root"
    contract.send(calls.anchor(honest[1]))


def _rechained(commitments: list[Commitment]) -> list[Commitment]:
    last, made = bytes(32), []
    for one in commitments:
        made.append(
            next_commitment(
                batch_id=one.batch_id,
                tenant_id=one.tenant_id,
                store_id=one.store_id,
                merkle_root=one.merkle_root,
                prev_state_root=last,
                sequence_start=one.sequence_start,
                sequence_end=one.sequence_end,
                committed_at_us=0,
            )
        )
        last = made[-1].new_state_root
    return made


def test_the_last_sequence_number_of_all_does_not_wrap(contract: OnChain) -> None:
    """2**64 - 1 cannot be reached by counts of 32 bits in a test, so the stream's state is put there."""
    (one,) = history("a", 1)
    contract.send(calls.anchor(one))
    end = 2**64 - 1
    _set_latest_sequence(contract, one, end)
    latest = calls.get_latest_sequence(one.tenant_id, one.store_id)
    assert calls.read_number(contract.ask(latest)) == end
    stream = sha256(b"VES_STREAM_V1" + one.tenant_id + one.store_id).digest()
    spans = u64(0) + u64(0) + u32(1)
    state = sha256(b"VES_STATE_ROOT_V1" + stream + one.new_state_root + one.merkle_root + spans).digest()
    wrapped = replace(one, batch_id=uuid("wrapped"), sequence_start=0, sequence_end=0, new_state_root=state)
    assert contract.refusal(calls.anchor(wrapped)) == "Not contiguous"


def _set_latest_sequence(contract: OnChain, one: Commitment, latest: int) -> None:
    from eth_hash.auto import keccak

    key = keccak(calls.uuid_word(one.tenant_id) + calls.uuid_word(one.store_id))
    for place in range(16):
        slot = keccak(key + calls.number_word(place)).hex()
        address = f"0x{contract.address.hex()}"
        found = bytes.fromhex(contract.chain.rpc("eth_getStorageAt", address, f"0x{slot}", "latest")[2:])
        if found.endswith(one.batch_id):
            word = calls.number_word(int.from_bytes(u64(latest) + one.batch_id, "big"))
            contract.chain.rpc("anvil_setStorageAt", address, f"0x{slot}", f"0x{word.hex()}")
            return
    pytest.fail("the stream's slot was not found")


def test_a_batch_of_commitments_is_anchored_whole(contract: OnChain) -> None:
    a, b = history("a", 2, 3), history("b", 5)
    together = [a[0], b[0], a[1]]
    mined = contract.send(anchor_batch(together))
    assert [type(event) for event in mined.events] == [calls.CommitmentAnchored] * 3 + [calls.BatchAnchored]
    last = mined.events[-1]
    assert isinstance(last, calls.BatchAnchored)
    from eth_hash.auto import keccak

    assert last.batch_root == keccak(b"".join(calls.uuid_word(one.batch_id) for one in together))
    assert last.count == 3
    assert calls.read_number(contract.ask(calls.ANCHORED_COUNT)) == 3
    for one in together:
        assert calls.read_bool(contract.ask(calls.verify_events_root(one.batch_id, one.merkle_root)))


def test_a_batch_with_one_wrong_commitment_is_refused_whole(contract: OnChain) -> None:
    a, b = history("a", 2, 3), history("b", 5)
    for order, reason in (([b[0], a[1], a[0]], "Not contiguous"), ([a[0], a[0]], "Already anchored")):
        assert contract.refusal(anchor_batch(order)) == reason
    assert calls.read_number(contract.ask(calls.ANCHORED_COUNT)) == 0
