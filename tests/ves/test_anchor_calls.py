"""Calldata, answers and logs of the anchor contract, word by word; ``tests/contracts`` asks the contract."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from other_rooms import keccak256

from ves import anchor_calls

HASH = bytes(range(32))
BATCH = bytes(range(16))
ADDRESS = b"\xee" * 20
SIGNATURES = {
    "CommitmentAnchored(bytes32,bytes32,bytes32,bytes32,bytes32,uint64,uint64,uint32,uint256)": (
        anchor_calls.COMMITMENT_ANCHORED
    ),
    "BatchAnchored(bytes32,uint256,uint256)": anchor_calls.BATCH_ANCHORED,
    "AggregateAnchored(bytes32,uint64,uint32,bytes32,bytes32,uint256)": anchor_calls.AGGREGATE_ANCHORED,
}


def _words(*numbers: int | bytes) -> bytes:
    return b"".join(n.rjust(32, b"\0") if isinstance(n, bytes) else n.to_bytes(32, "big") for n in numbers)


def test_selectors_and_topics_are_the_keccak_of_the_signatures_beside_them() -> None:
    for signature, selector in anchor_calls.SELECTORS.items():
        assert selector == keccak256(signature.encode())[:4], signature
    assert keccak256(b"Error(string)")[:4] == anchor_calls.ERROR
    for signature, topic in SIGNATURES.items():
        assert topic == keccak256(signature.encode()), signature


def test_an_aggregates_call_is_three_words() -> None:
    called = anchor_calls.anchor_many(HASH, 7, 300)
    assert called == bytes.fromhex("a63a4ae3") + _words(HASH, 7, 300)


def test_a_path_stands_behind_the_words_it_is_announced_in() -> None:
    called = anchor_calls.verify_included(HASH, HASH[::-1], [b"\1" * 32, b"\2" * 32], 5)
    assert called[4:] == _words(HASH, HASH[::-1], 128, 5, 2, b"\1" * 32, b"\2" * 32)
    assert anchor_calls.verify_included(HASH, HASH, [], 0)[4:] == _words(HASH, HASH, 128, 0, 0)


def test_hashes_and_addresses_of_another_length_are_not_sent() -> None:
    for call in (
        lambda: anchor_calls.anchor_many(HASH[1:], 1, 0),
        lambda: anchor_calls.verify_included(HASH, HASH, [HASH + b"\0"], 0),
        lambda: anchor_calls.is_sequencer(HASH),
    ):
        with pytest.raises(ValueError, match="bytes"):
            call()


def test_a_deployment_ends_with_the_constructors_word() -> None:
    assert anchor_calls.deployment(b"\x60", permissionless=False) == b"\x60" + _words(0)
    assert anchor_calls.deployment(b"\x60", permissionless=True) == b"\x60" + _words(1)


def test_one_word_answers_are_read_strictly() -> None:
    assert anchor_calls.read_bool(_words(1)) is True
    assert anchor_calls.read_bool(_words(0)) is False
    assert anchor_calls.read_number(_words(2**64 - 1), bits=64) == 2**64 - 1
    assert anchor_calls.read_hash(HASH) == HASH
    assert anchor_calls.read_address(_words(ADDRESS)) == ADDRESS
    readers = {
        "a bool": (anchor_calls.read_bool, _words(2)),
        "64 bits": (lambda answer: anchor_calls.read_number(answer, bits=64), _words(2**64)),
        "an address": (anchor_calls.read_address, HASH),
        "no contract": (anchor_calls.read_hash, b""),
        "more": (anchor_calls.read_bool, _words(1, 0)),
    }
    for name, (read, answer) in readers.items():
        with pytest.raises(ValueError, match="expected"):
            pytest.fail(f"{name}: {read(answer)!r}")


def test_an_unknown_root_has_no_aggregate_and_half_a_one_is_refused() -> None:
    assert anchor_calls.read_aggregate(bytes(160)) is None
    known = anchor_calls.read_aggregate(_words(3, 4, 5, ADDRESS, HASH))
    assert known == anchor_calls.Aggregate(3, 4, 5, ADDRESS, HASH)
    for half in (_words(3, 0, 5, ADDRESS, HASH), _words(3, 4, 5, ADDRESS, 0)):
        with pytest.raises(ValueError, match="without leaves or head"):
            anchor_calls.read_aggregate(half)


def test_a_log_is_read_by_its_first_topic_and_refused_when_it_is_not_whole() -> None:
    topics, data = [anchor_calls.AGGREGATE_ANCHORED, HASH, _words(9)], _words(2, HASH, HASH[::-1], 77)
    read = anchor_calls.read_event(topics, data)
    assert read == anchor_calls.AggregateAnchored(HASH, 9, 2, HASH, HASH[::-1], 77)
    assert anchor_calls.read_event([HASH], data) is None
    assert anchor_calls.read_event([], b"") is None
    for broken in (topics[:2], [*topics, HASH], [topics[0], HASH[1:], topics[2]]):
        with pytest.raises(ValueError, match="topics"):
            anchor_calls.read_event(broken, data)
    with pytest.raises(ValueError, match="expected 4 words"):
        anchor_calls.read_event(topics, data[:-1])
    uuid_with_a_tail = [anchor_calls.COMMITMENT_ANCHORED, HASH, bytes(32)]
    with pytest.raises(ValueError, match="UUID"):
        anchor_calls.read_event(uuid_with_a_tail, bytes(7 * 32))


def test_a_reason_is_its_text_and_anything_else_is_hex() -> None:
    told = anchor_calls.ERROR + _words(32, 6) + b"Paused" + bytes(26)
    assert anchor_calls.revert_reason(told) == "Paused"
    panic = bytes.fromhex("4e487b71") + _words(0x11)
    assert anchor_calls.revert_reason(panic) == f"0x{panic.hex()}"
    assert anchor_calls.revert_reason(b"") == "0x"
    forged = anchor_calls.ERROR + _words(32, 8) + b"a\nb\x1b[2J\xff".ljust(32, b"\0")
    assert anchor_calls.revert_reason(forged) == "a\ufffdb\ufffd[2J\ufffd"
    assert len(anchor_calls.revert_reason(bytes(5000))) == 200


@given(text=st.text(min_size=1, max_size=150), cut=st.integers(1, 40))
def test_every_printable_text_comes_back_and_none_of_a_cut_one(text: str, cut: int) -> None:
    raw = text.encode(errors="replace")
    told = anchor_calls.ERROR + _words(32, len(raw)) + raw + bytes(-len(raw) % 32)
    if raw.decode().isprintable():
        assert anchor_calls.revert_reason(told) == raw.decode()
    assert anchor_calls.revert_reason(told[:-cut]).startswith("0x")
