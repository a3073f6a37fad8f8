"""Holding a node's audit chain against its formulas, and against a head that somebody kept earlier.

``ChainCheck`` is fed entries by number, each commitment right after its last entry, and at the end the head.
It yields what does not hold, as sentences, and goes on: every further finding counts. Memory is bounded by
one commitment's leaves. A whole chain that was rewritten from some entry on is consistent with itself; only
a kept head shows it. Pure; reading the trail is somebody else's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from ves.audit import (
    COMMITTED_ENTRIES_MAX,
    AuditCommitment,
    AuditRecord,
    entry_hash,
    leaf_hash,
    merkle_root,
    state_root,
)
from ves.constants import ZERO_HASH
from ves.encoding import uuid_text
from ves.records import Uuid


class ChainHead(msgspec.Struct, frozen=True):
    """Where a chain and its commitments stood when somebody looked."""

    node_id: Uuid
    entry_number: int
    entry_hash: bytes
    committed_through: int
    state_root: bytes


def entry_faults(record: AuditRecord, *, number: int, prev_hash: bytes) -> Iterator[str]:
    """What is wrong with an entry that should be this number, after an entry with this hash."""
    if record.entry_number != number:
        missing = (
            f"{number}" if record.entry_number == number + 1 else f"{number} to {record.entry_number - 1}"
        )
        yield f"{missing} is missing" if record.entry_number > number else "it comes again, or out of order"
    elif record.prev_hash != prev_hash:
        yield "it does not follow the entry before it"
    if entry_hash(record.prev_hash, record.text) != record.entry_hash:
        yield "its hash is not the hash of its text"
    yield from _column_faults(record)


def _column_faults(record: AuditRecord) -> Iterator[str]:
    try:
        told = json.loads(record.text)
        if not isinstance(told, dict):
            raise TypeError
    except (ValueError, TypeError, RecursionError):
        yield "its text is no JSON object"
        return
    for name, value in _columns(record).items():
        if told.get(name) != value:
            yield f"its {name} is not the one in its text"


def _columns(record: AuditRecord) -> dict[str, Any]:
    return {
        "node_id": uuid_text(record.node_id),
        "number": record.entry_number,
        "recorded_at_us": record.recorded_at_us,
        "tenant_id": None if record.tenant_id is None else uuid_text(record.tenant_id),
        "actor": record.actor,
        "action": record.action,
        "subject": record.subject,
    }


class ChainCheck:
    """One node's chain, from its first entry to its head."""

    def __init__(self, node_id: Uuid, kept: ChainHead | None) -> None:
        self._node_id = node_id
        self._kept = kept
        self._hash = ZERO_HASH
        self._number = 0
        self._committed = 0
        self._state_root = ZERO_HASH
        self._leaves: list[bytes] = []
        """Of the entries after the last commitment; no more than a commitment can hold."""

    @property
    def head(self) -> ChainHead:
        """As far as was fed."""
        return ChainHead(self._node_id, self._number, self._hash, self._committed, self._state_root)

    def entry(self, record: AuditRecord) -> Iterator[str]:
        for fault in entry_faults(record, number=self._number + 1, prev_hash=self._hash):
            yield f"entry {record.entry_number}: {fault}"
        self._number, self._hash = record.entry_number, record.entry_hash
        if len(self._leaves) < COMMITTED_ENTRIES_MAX:
            self._leaves.append(leaf_hash(self._node_id, record.entry_number, record.entry_hash))
        kept = self._kept
        if kept is not None and kept.entry_number == self._number and kept.entry_hash != self._hash:
            yield f"entry {self._number}: it is another one than was kept: the chain was rewritten"

    def commitment(self, commitment: AuditCommitment) -> Iterator[str]:
        name = f"commitment {commitment.entry_start} to {commitment.entry_end}"
        for fault in self._commitment_faults(commitment):
            yield f"{name}: {fault}"
        self._committed, self._state_root = commitment.entry_end, commitment.new_state_root
        self._leaves = self._leaves[max(0, commitment.leaf_count) :]
        kept = self._kept
        if kept is None or kept.committed_through != self._committed:
            return
        if kept.state_root != self._state_root:
            yield f"{name}: its state root is another one than was kept: it was rewritten"

    def _commitment_faults(self, commitment: AuditCommitment) -> Iterator[str]:
        if commitment.entry_start != self._committed + 1:
            yield f"the next to commit was {self._committed + 1}"
        if commitment.prev_state_root != self._state_root:
            yield "it does not follow the commitment before it"
        if not 0 < commitment.leaf_count <= COMMITTED_ENTRIES_MAX:
            yield "it has no such range"
            return
        leaves = self._leaves[: commitment.leaf_count]
        if commitment.entry_end != self._number or len(leaves) != commitment.leaf_count:
            yield "it covers entries that are not there"
        elif merkle_root(leaves) != commitment.merkle_root:
            yield "its merkle_root is not the root of its entries"
        if state_root(commitment) != commitment.new_state_root:
            yield "its new_state_root does not chain its roots and its range"

    def end(self, claimed: ChainHead | None) -> Iterator[str]:
        """``claimed``: the head as the server or the file tells it; None when it tells none."""
        if claimed is None:
            yield "its head is not told"
        else:
            yield from self._differs_from(claimed)
        kept = self._kept
        if kept is None:
            return
        if kept.entry_number > self._number:
            yield f"it ends at {self._number}, but {kept.entry_number} was there when it was kept: cut off"
        if kept.committed_through > self._committed:
            yield f"commitments end at {self._committed}, but {kept.committed_through} was kept: cut off"

    def _differs_from(self, claimed: ChainHead) -> Iterator[str]:
        found = self.head
        if (claimed.entry_number, claimed.entry_hash) != (found.entry_number, found.entry_hash):
            yield f"its head is told to be {claimed.entry_number}, its entries end at {found.entry_number}"
        if (claimed.committed_through, claimed.state_root) != (found.committed_through, found.state_root):
            yield f"it is told to be committed through {claimed.committed_through}, and is {self._committed}"
