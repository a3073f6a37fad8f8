"""The audit trail for whoever checks it: read from a server or a file, one record at a time, and checked.

A trail is a run of records: for each node ``chain``, its entries by number with each commitment right after
its last entry, and ``head``; at the very end ``end``. ``over_http`` and ``from_lines`` give one, ``check``
takes one; an export file holds exactly what is checked, one JSON object per line. Memory is bounded by a
page and one commitment. Trusts nothing it can recompute.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from transport.client.errors import BadAnswer
from transport.client.sequencer import SequencerClient
from transport.client.wire import UNREADABLE, decode
from ves.audit import AuditCommitment, AuditRecord
from ves.audit_check import ChainCheck, ChainHead
from ves.encoding import bare_hex_bytes, uuid_bytes, uuid_text
from ves.records import Uuid
from ves.timestamps import parse_rfc3339

T = TypeVar("T", bound=msgspec.Struct)

AUDIT = "/api/v1/admin/audit"
PAGE = 500
CHAINS_MAX = 10_000
"""Nodes of one trail: more are no trail of ours."""


class WireEntry(msgspec.Struct, frozen=True, tag="entry", tag_field="kind"):
    node_id: str
    entry_number: int
    recorded_at: str
    recorded_at_us: int
    tenant_id: str | None
    actor: str
    action: str
    subject: str
    entry: str
    prev_hash: str
    entry_hash: str

    def record(self) -> AuditRecord:
        return AuditRecord(
            uuid_bytes(self.node_id),
            self.entry_number,
            self.recorded_at_us,
            None if self.tenant_id is None else uuid_bytes(self.tenant_id),
            self.actor,
            self.action,
            self.subject,
            self.entry,
            bare_hex_bytes(self.prev_hash, 32),
            bare_hex_bytes(self.entry_hash, 32),
        )


class WireCommitment(msgspec.Struct, frozen=True, tag="commitment", tag_field="kind"):
    node_id: str
    entry_start: int
    entry_end: int
    merkle_root: str
    prev_state_root: str
    new_state_root: str
    committed_at: str

    def commitment(self) -> AuditCommitment:
        return AuditCommitment(
            uuid_bytes(self.node_id),
            self.entry_start,
            self.entry_end,
            bare_hex_bytes(self.merkle_root, 32),
            bare_hex_bytes(self.prev_state_root, 32),
            bare_hex_bytes(self.new_state_root, 32),
            parse_rfc3339(self.committed_at),
        )


class WireHead(msgspec.Struct, frozen=True, tag="head", tag_field="kind"):
    node_id: str
    entry_number: int
    entry_hash: str
    committed_through: int
    state_root: str

    def head(self) -> ChainHead:
        return ChainHead(
            uuid_bytes(self.node_id),
            self.entry_number,
            bare_hex_bytes(self.entry_hash, 32),
            self.committed_through,
            bare_hex_bytes(self.state_root, 32),
        )


class ChainBegins(msgspec.Struct, frozen=True, tag="chain", tag_field="kind"):
    node_id: str


class TrailEnds(msgspec.Struct, frozen=True, tag="end", tag_field="kind"):
    """Without it a file was cut off."""

    chains: int


Record = ChainBegins | WireEntry | WireCommitment | WireHead | TrailEnds


class _Heads(msgspec.Struct, frozen=True):
    heads: list[msgspec.Raw]
    has_more: bool
    next_after: str | None


class _Entries(msgspec.Struct, frozen=True):
    entries: list[msgspec.Raw]
    has_more: bool
    next_from: int


class _Commitments(msgspec.Struct, frozen=True):
    commitments: list[msgspec.Raw]
    has_more: bool
    next_from: int


class KeptHeads(msgspec.Struct, frozen=True):
    """A file of heads somebody kept."""

    heads: list[WireHead]

    def by_node(self) -> dict[Uuid, ChainHead]:
        return {one.node_id: one for one in (head.head() for head in self.heads)}


# Reading.


async def heads_over_http(client: SequencerClient) -> list[WireHead]:
    found: list[WireHead] = []
    query: dict[str, Any] = {"limit": PAGE}
    while True:
        page = decode(await client.ask("GET", f"{AUDIT}/heads", query=query), _Heads, f"{AUDIT}/heads")
        found += [_plain(raw, WireHead, f"{AUDIT}/heads") for raw in page.heads]
        if not page.has_more or page.next_after in (None, query.get("after")):
            return found
        if len(found) > CHAINS_MAX:
            raise BadAnswer(f"more than {CHAINS_MAX} chains")
        query["after"] = page.next_after


async def over_http(client: SequencerClient) -> AsyncIterator[Record]:
    """The whole trail up to the heads as they are now; what is written meanwhile is for the next time."""
    heads = await heads_over_http(client)
    for head in heads:
        yield ChainBegins(head.node_id)
        async for record in _one_chain(client, head):
            yield record
        yield head
    yield TrailEnds(len(heads))


async def _one_chain(client: SequencerClient, head: WireHead) -> AsyncIterator[Record]:
    """Each commitment right after its last entry."""
    start, commitments = 1, _commitments(client, head)
    commitment = await anext(commitments, None)
    while start <= head.entry_number:
        path = f"{AUDIT}/chains/{head.node_id}"
        page = decode(await client.ask("GET", path, query={"from": start, "limit": PAGE}), _Entries, path)
        for raw in page.entries:
            entry = _plain(raw, WireEntry, path)
            if entry.entry_number > head.entry_number:
                break
            yield entry
            while commitment is not None and commitment.entry_end <= entry.entry_number:
                yield commitment
                commitment = await anext(commitments, None)
        if not page.has_more or page.next_from <= start:
            break
        start = page.next_from
    while commitment is not None:  # over entries that are not there: the check says so
        yield commitment
        commitment = await anext(commitments, None)


async def _commitments(client: SequencerClient, head: WireHead) -> AsyncIterator[WireCommitment]:
    path, start = f"{AUDIT}/commitments/{head.node_id}", 1
    while True:
        page = decode(await client.ask("GET", path, query={"from": start, "limit": PAGE}), _Commitments, path)
        for raw in page.commitments:
            commitment = _plain(raw, WireCommitment, path)
            if commitment.entry_start > head.committed_through:
                return
            yield commitment
        if not page.has_more or page.next_from <= start:
            return
        start = page.next_from


def _plain(raw: msgspec.Raw, kind: type[T], what: str) -> T:
    """A member of a page, which has no ``kind``."""
    try:
        members = msgspec.json.decode(raw, type=dict[str, Any])
        return msgspec.convert({**members, "kind": kind.__struct_config__.tag}, kind)
    except UNREADABLE as wrong:
        raise BadAnswer(f"{what}: {wrong}") from wrong


async def from_lines(lines: Iterable[bytes], name: str) -> AsyncIterator[Record]:
    """The records of an export file. BadAnswer for a line that is none."""
    decoder = msgspec.json.Decoder(Record)
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield decoder.decode(line)
            except UNREADABLE as wrong:
                raise BadAnswer(f"{name}:{number}: {wrong}") from wrong


# Checking.


class Verdict:
    """What a check has seen so far. ``kept``: heads of earlier, by node."""

    def __init__(self, kept: Mapping[Uuid, ChainHead] | None) -> None:
        self.chains = 0
        self.entries = 0
        self.commitments = 0
        self.heads: list[WireHead] = []
        self._kept = kept or {}
        self._seen: set[Uuid] = set()
        self._check: ChainCheck | None = None
        self._name = ""
        self._ended = False

    def take(self, record: Record) -> Iterator[str]:
        """What this record shows not to hold."""
        try:
            yield from self._take(record)
        except ValueError as wrong:
            yield f"{self._name}: a record is not formed as it should be: {wrong}"

    def _take(self, record: Record) -> Iterator[str]:
        if self._ended:
            yield "something stands behind the end of the trail"
        if isinstance(record, ChainBegins):
            yield from self._begin(record)
        elif isinstance(record, TrailEnds):
            self._ended = True
            if record.chains != self.chains:
                yield f"the trail is told to have {record.chains} chains and has {self.chains}"
        elif self._check is None or record.node_id != self._name.removeprefix("chain "):
            yield f"a record of node {record.node_id} stands outside of its chain"
        else:
            yield from self._of_the_chain(self._check, record)

    def _begin(self, record: ChainBegins) -> Iterator[str]:
        yield from self._close()
        node_id = uuid_bytes(record.node_id)
        if node_id in self._seen:
            yield f"chain {record.node_id} comes twice"
        self._seen.add(node_id)
        self.chains += 1
        self._name = f"chain {record.node_id}"
        self._check = ChainCheck(node_id, self._kept.get(node_id))

    def _of_the_chain(
        self, check: ChainCheck, record: WireEntry | WireCommitment | WireHead
    ) -> Iterator[str]:
        if isinstance(record, WireEntry):
            self.entries += 1
            faults = check.entry(record.record())
        elif isinstance(record, WireCommitment):
            self.commitments += 1
            faults = check.commitment(record.commitment())
        else:
            self.heads.append(record)
            self._check = None
            faults = check.end(record.head())
        yield from (f"{self._name}: {fault}" for fault in faults)

    def _close(self) -> Iterator[str]:
        """A chain without its head."""
        if self._check is not None:
            yield from (f"{self._name}: {fault}" for fault in self._check.end(None))
            self._check = None

    def finish(self) -> Iterator[str]:
        yield from self._close()
        if not self._ended:
            yield "the trail has no end: it was cut off"
        for node_id, kept in self._kept.items():
            if node_id not in self._seen:
                yield f"chain {uuid_text(node_id)}: {kept.entry_number} entries were kept of it, it is gone"


async def check(trail: AsyncIterator[Record], verdict: Verdict) -> AsyncIterator[str]:
    """Every finding, as a sentence, while the trail goes by."""
    async for record in trail:
        for finding in verdict.take(record):
            yield finding
    for finding in verdict.finish():
        yield finding
