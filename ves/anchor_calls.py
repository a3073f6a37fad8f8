"""What the anchor contract is asked with, and what it answers and logs: calldata, words and values.

    calldata = selector[4] || words            a word has 32 bytes: numbers and addresses right-aligned,
                                               bytes32 and UUIDs left-aligned
    log      = topics[0..3] || data            topic 0 names the event, indexed members are topics

The functions and events of ``contracts/StateSetAnchor.sol`` in Solidity's ABI, of which only one function
here has a member of variable length. It alone spells a selector or an event's topic; both are the Keccak-256
of the signature beside it, written down so that nothing here needs a hash. Readers raise ValueError for
anything but the exact shape, with non-zero padding refused: who answers so is no contract of ours. What
leaves, trees and heads are is in ``ves.anchoring``; who sends any of this is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ves.anchoring import uuid_word
from ves.constants import ZERO_HASH
from ves.records import Commitment, Uuid

WORD = 32
ADDRESS_BYTES = 20
NO_ADDRESS = bytes(ADDRESS_BYTES)
_REASON_MAX = 200
"""Characters of a refusal's reason: it comes from whoever answers and goes to people."""
_PATH_OFFSET = 4 * WORD
"""Where ``verifyIncluded``'s path begins: after root, leaf, this offset and the index."""

SELECTORS = {
    "anchor(bytes32,bytes32,bytes32,bytes32,bytes32,uint64,uint64,uint32)": bytes.fromhex("012f9824"),
    "anchorBatch(bytes32[],bytes32[],bytes32[],bytes32[],bytes32[],uint64[],uint64[],uint32[])": (
        bytes.fromhex("0c40c209")
    ),
    "anchorMany(bytes32,uint32,uint64)": bytes.fromhex("a63a4ae3"),
    "isAnchored(bytes32)": bytes.fromhex("4f0b5801"),
    "verifyEventsRoot(bytes32,bytes32)": bytes.fromhex("5fb58a3a"),
    "getCommitment(bytes32)": bytes.fromhex("7795820c"),
    "commitments(bytes32)": bytes.fromhex("839df945"),
    "getLatestSequence(bytes32,bytes32)": bytes.fromhex("2acb5530"),
    "latestSequence(bytes32)": bytes.fromhex("8c14b3c1"),
    "getLatestStateRoot(bytes32,bytes32)": bytes.fromhex("5db7a7ec"),
    "getAnchoredCount()": bytes.fromhex("469a4f5b"),
    "anchoredBatches(uint256)": bytes.fromhex("7b1f7a23"),
    "verifyIncluded(bytes32,bytes32,bytes32[],uint32)": bytes.fromhex("ec30b2d9"),
    "aggregates(bytes32)": bytes.fromhex("8aeae92a"),
    "aggregatedCount()": bytes.fromhex("c8c6d9d2"),
    "aggregateHead()": bytes.fromhex("80fd4ad6"),
    "owner()": bytes.fromhex("8da5cb5b"),
    "pendingOwner()": bytes.fromhex("e30c3978"),
    "transferOwnership(address)": bytes.fromhex("f2fde38b"),
    "acceptOwnership()": bytes.fromhex("79ba5097"),
    "isSequencer(address)": bytes.fromhex("6d46e987"),
    "setSequencer(address,bool)": bytes.fromhex("55dba28a"),
    "permissionless()": bytes.fromhex("a1256f9f"),
    "setPermissionless(bool)": bytes.fromhex("75708a59"),
    "paused()": bytes.fromhex("5c975abb"),
    "pause()": bytes.fromhex("8456cb59"),
    "unpause()": bytes.fromhex("3f4ba83a"),
}
"""By signature: every function the contract has."""
ERROR = bytes.fromhex("08c379a0")  # Error(string)

COMMITMENT_ANCHORED = bytes.fromhex("c780e2bc15a6058af6a033362c346780c81f2a531fa72e8fffd0570ecc91e848")
"""``CommitmentAnchored(bytes32 indexed batchId, bytes32 indexed tenantId, bytes32 storeId,
bytes32 eventsRoot, bytes32 stateRoot, uint64 sequenceStart, uint64 sequenceEnd, uint32 eventCount,
uint256 timestamp)``"""
BATCH_ANCHORED = bytes.fromhex("569739a8a132d28586d65d35b6a86902bf0adbce83a4651378ff888d03b70255")
"""``BatchAnchored(bytes32 indexed batchRoot, uint256 count, uint256 timestamp)``"""
AGGREGATE_ANCHORED = bytes.fromhex("92c2718c23b99a94386e15b6cc05eb11aedb39074b03732bb016a70ea56f3b3a")
"""``AggregateAnchored(bytes32 indexed root, uint64 indexed firstIndex, uint32 count, bytes32 previousHead,
bytes32 head, uint256 timestamp)``"""


class AnchoredCommitment(msgspec.Struct, frozen=True):
    """What the contract keeps of a commitment on the single road."""

    tenant_id: Uuid
    store_id: Uuid
    events_root: bytes
    state_root: bytes
    sequence_start: int
    sequence_end: int
    event_count: int
    anchored_at_s: int
    """The block's time, seconds since the Unix epoch."""
    anchored_by: bytes


class Aggregate(msgspec.Struct, frozen=True):
    """What the contract keeps of an aggregate, under its root."""

    first_index: int
    count: int
    anchored_at_s: int
    anchored_by: bytes
    head: bytes
    """The head after it."""


class CommitmentAnchored(msgspec.Struct, frozen=True):
    batch_id: Uuid
    tenant_id: Uuid
    store_id: Uuid
    events_root: bytes
    state_root: bytes
    sequence_start: int
    sequence_end: int
    event_count: int
    timestamp_s: int


class BatchAnchored(msgspec.Struct, frozen=True):
    """One ``anchorBatch``, after the ``CommitmentAnchored`` of each."""

    batch_root: bytes
    """Keccak-256 of the batch ids' words in a row: no Merkle root."""
    count: int
    timestamp_s: int


class AggregateAnchored(msgspec.Struct, frozen=True):
    root: bytes
    first_index: int
    count: int
    previous_head: bytes
    head: bytes
    timestamp_s: int


AnchorEvent = CommitmentAnchored | BatchAnchored | AggregateAnchored


def calldata(signature: str, *words: bytes) -> bytes:
    """KeyError for a function that the contract does not have."""
    return SELECTORS[signature] + b"".join(words)


def deployment(creation_code: bytes, *, permissionless: bool) -> bytes:
    """The data of the transaction that makes the contract; its sender becomes the owner."""
    return creation_code + number_word(permissionless)


def number_word(number: int) -> bytes:
    """Also a bool's."""
    return number.to_bytes(WORD, "big")


def address_word(address: bytes) -> bytes:
    if len(address) != ADDRESS_BYTES:
        raise ValueError("an address has 20 bytes")
    return bytes(WORD - ADDRESS_BYTES) + address


def _hash_word(raw: bytes) -> bytes:
    if len(raw) != WORD:
        raise ValueError("expected 32 bytes")
    return raw


def anchor(commitment: Commitment) -> bytes:
    return calldata(
        "anchor(bytes32,bytes32,bytes32,bytes32,bytes32,uint64,uint64,uint32)",
        uuid_word(commitment.batch_id),
        uuid_word(commitment.tenant_id),
        uuid_word(commitment.store_id),
        _hash_word(commitment.merkle_root),
        _hash_word(commitment.new_state_root),
        number_word(commitment.sequence_start),
        number_word(commitment.sequence_end),
        number_word(commitment.leaf_count),
    )


def anchor_many(root: bytes, count: int, first_index: int) -> bytes:
    words = (_hash_word(root), number_word(count), number_word(first_index))
    return calldata("anchorMany(bytes32,uint32,uint64)", *words)


def is_anchored(batch_id: Uuid) -> bytes:
    """Answered with a bool."""
    return calldata("isAnchored(bytes32)", uuid_word(batch_id))


def verify_events_root(batch_id: Uuid, events_root: bytes) -> bytes:
    """Answered with a bool."""
    return calldata("verifyEventsRoot(bytes32,bytes32)", uuid_word(batch_id), _hash_word(events_root))


def get_commitment(batch_id: Uuid) -> bytes:
    """Answered with an AnchoredCommitment, or refused: "Not anchored"."""
    return calldata("getCommitment(bytes32)", uuid_word(batch_id))


def get_latest_sequence(tenant_id: Uuid, store_id: Uuid) -> bytes:
    """Answered with a number; 0: nothing of the stream is anchored on the single road."""
    return calldata("getLatestSequence(bytes32,bytes32)", uuid_word(tenant_id), uuid_word(store_id))


def get_latest_state_root(tenant_id: Uuid, store_id: Uuid) -> bytes:
    """Answered with a hash, of zero bytes where ``get_latest_sequence`` is 0."""
    return calldata("getLatestStateRoot(bytes32,bytes32)", uuid_word(tenant_id), uuid_word(store_id))


def verify_included(root: bytes, leaf: bytes, path: Sequence[bytes], position: int) -> bytes:
    """Answered with a bool: ``ves.anchoring.verify_in_aggregate``, by the count the contract knows."""
    return calldata(
        "verifyIncluded(bytes32,bytes32,bytes32[],uint32)",
        _hash_word(root),
        _hash_word(leaf),
        number_word(_PATH_OFFSET),
        number_word(position),
        number_word(len(path)),
        *map(_hash_word, path),
    )


def aggregates(root: bytes) -> bytes:
    """Answered with an Aggregate or, for an unknown root, None."""
    return calldata("aggregates(bytes32)", _hash_word(root))


def is_sequencer(address: bytes) -> bytes:
    """Answered with a bool: it may anchor, as the owner or as one whom the owner named."""
    return calldata("isSequencer(address)", address_word(address))


AGGREGATED_COUNT = SELECTORS["aggregatedCount()"]
"""Answered with a number: leaves of all aggregates, the next one's first index."""
AGGREGATE_HEAD = SELECTORS["aggregateHead()"]
"""Answered with a hash."""
ANCHORED_COUNT = SELECTORS["getAnchoredCount()"]
"""Answered with a number: commitments on the single road."""
OWNER = SELECTORS["owner()"]
PENDING_OWNER = SELECTORS["pendingOwner()"]
PAUSED = SELECTORS["paused()"]
PERMISSIONLESS = SELECTORS["permissionless()"]


def read_bool(answer: bytes) -> bool:
    number = _number(*_words(answer, 1), bits=1)
    return number == 1


def read_number(answer: bytes, bits: int = 256) -> int:
    return _number(*_words(answer, 1), bits=bits)


def read_hash(answer: bytes) -> bytes:
    (word,) = _words(answer, 1)
    return word


def read_address(answer: bytes) -> bytes:
    return _address(*_words(answer, 1))


def read_commitment(answer: bytes) -> AnchoredCommitment:
    tenant, store, events_root, state_root, start, end, count, at, by = _words(answer, 9)
    return AnchoredCommitment(
        tenant_id=_uuid(tenant),
        store_id=_uuid(store),
        events_root=events_root,
        state_root=state_root,
        sequence_start=_number(start, bits=64),
        sequence_end=_number(end, bits=64),
        event_count=_number(count, bits=32),
        anchored_at_s=_number(at),
        anchored_by=_address(by),
    )


def read_aggregate(answer: bytes) -> Aggregate | None:
    """None: the contract does not know the root."""
    first, count, at, by, head = _words(answer, 5)
    if not any(answer):
        return None
    aggregate = Aggregate(
        first_index=_number(first, bits=64),
        count=_number(count, bits=32),
        anchored_at_s=_number(at),
        anchored_by=_address(by),
        head=head,
    )
    if not aggregate.count or head == ZERO_HASH:
        raise ValueError("an aggregate without leaves or head")
    return aggregate


def read_event(topics: Sequence[bytes], data: bytes) -> AnchorEvent | None:
    """A log of the contract; None for one of its owner's, about ownership, sequencers and pauses."""
    indexed, read = _EVENTS.get(topics[0] if topics else b"", (0, None))
    if read is None:
        return None
    if len(topics) != 1 + indexed or any(len(topic) != WORD for topic in topics):
        raise ValueError(f"an event of {indexed} indexed members has {len(topics)} topics")
    return read(topics[1:], data)


def _commitment_anchored(topics: Sequence[bytes], data: bytes) -> AnchorEvent:
    store, events_root, state_root, start, end, count, timestamp = _words(data, 7)
    return CommitmentAnchored(
        batch_id=_uuid(topics[0]),
        tenant_id=_uuid(topics[1]),
        store_id=_uuid(store),
        events_root=events_root,
        state_root=state_root,
        sequence_start=_number(start, bits=64),
        sequence_end=_number(end, bits=64),
        event_count=_number(count, bits=32),
        timestamp_s=_number(timestamp),
    )


def _batch_anchored(topics: Sequence[bytes], data: bytes) -> AnchorEvent:
    count, timestamp = _words(data, 2)
    return BatchAnchored(batch_root=topics[0], count=_number(count), timestamp_s=_number(timestamp))


def _aggregate_anchored(topics: Sequence[bytes], data: bytes) -> AnchorEvent:
    count, previous_head, head, timestamp = _words(data, 4)
    return AggregateAnchored(
        root=topics[0],
        first_index=_number(topics[1], bits=64),
        count=_number(count, bits=32),
        previous_head=previous_head,
        head=head,
        timestamp_s=_number(timestamp),
    )


_EVENTS = {
    COMMITMENT_ANCHORED: (2, _commitment_anchored),
    BATCH_ANCHORED: (1, _batch_anchored),
    AGGREGATE_ANCHORED: (2, _aggregate_anchored),
}
"""By topic 0: how many members are indexed, and the reader."""


def revert_reason(data: bytes) -> str:
    """The text of Error(string), for another refusal (or an empty text) the data in hex; printable and
    shortened, as it comes from outside."""
    text = _error_text(data) or f"0x{data.hex()}"
    printable = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
    return printable if len(printable) <= _REASON_MAX else printable[: _REASON_MAX - 1] + "…"


def _error_text(data: bytes) -> str | None:
    head, length_word, body = data[: 4 + WORD], data[4 + WORD : 4 + 2 * WORD], data[4 + 2 * WORD :]
    length = int.from_bytes(length_word, "big")
    padding = body[length:]
    if head != ERROR + number_word(WORD) or len(length_word) != WORD or len(body) % WORD:
        return None
    if length > len(body) or len(padding) >= WORD or any(padding):
        return None
    return body[:length].decode(errors="replace")


def _words(data: bytes, count: int) -> list[bytes]:
    if len(data) != count * WORD:
        raise ValueError(f"expected {count} words of {WORD} bytes, got {len(data)} bytes")
    return [data[place : place + WORD] for place in range(0, len(data), WORD)]


def _number(word: bytes, *, bits: int = 256) -> int:
    number = int.from_bytes(word, "big")
    if number >> bits:
        raise ValueError(f"expected a number of {bits} bits")
    return number


def _address(word: bytes) -> bytes:
    if any(word[: WORD - ADDRESS_BYTES]):
        raise ValueError("expected an address")
    return word[WORD - ADDRESS_BYTES :]


def _uuid(word: bytes) -> Uuid:
    if any(word[16:]):
        raise ValueError("expected a UUID's word")
    return word[:16]
