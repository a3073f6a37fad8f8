"""What a restored database is held against before it may write: receipts, commitments and audit heads that
others kept, and this node's own note of the numbers it gave.

Alone decides whether a restoration may be confirmed, and which numbers are void. The rule: a number that was
given to an event belongs to this event or to nobody. So a number that stands with another event forbids the
confirmation; one whose event is lost must come back (point-in-time recovery) or be declared void, which moves
the stream past it. Anchors of a later version belong here too: an anchored batch is a kept commitment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import msgspec

from journal.port import AuditEntry, Voided
from journal.postgres import PostgresJournal
from journal.restorations import GIVEN_MAX, Given
from supervisor.restored import lacking
from supervisor.shell import StartRefused
from transport.cli.backup import Confirmation
from transport.client.audit_trail import KeptHeads
from transport.client.checks import UNTRUSTED, verify_acknowledged
from transport.client.wire import Acknowledgement, ReceiptKeyName, ReceiptKeys
from ves.audit_check import ChainHead
from ves.encoding import uuid_bytes, uuid_text
from ves.records import Uuid

LINE_BYTES_MAX = 16 * 1024 * 1024
MISSING_MAX = 1_000_000
VOID_MAX = 10_000_000_000
"""Numbers of one stream. Whoever forges a receipt by an unknown key, or a commitment, for the last number
there is would else end the stream."""
PAGE = 1000

Stream = tuple[Uuid, Uuid]


@dataclass(frozen=True)
class Shown:
    """A number that was given, and who says so."""

    given: Given
    source: str
    acknowledgement: Acknowledgement | None = None


class KeptCommitment(msgspec.Struct, frozen=True):
    """What counts of a commitment that somebody kept; other members are not looked at."""

    batch_id: str
    tenant_id: str
    store_id: str
    sequence_end: int

    @property
    def stream(self) -> Stream:
        return uuid_bytes(self.tenant_id), uuid_bytes(self.store_id)


class _Kept(msgspec.Struct, frozen=True):
    """A page of commitments, a proof file, or (neither) a commitment itself."""

    commitments: list[KeptCommitment] | None = None
    commitment: KeptCommitment | None = None


@dataclass(frozen=True)
class Evidence:
    own: list[Given]
    receipts: list[Path]
    commitments: list[KeptCommitment]
    heads: list[ChainHead]

    @classmethod
    def read(cls, asked: Confirmation, own: list[Given]) -> Evidence:
        """Receipts are read later, one by one. Raises StartRefused naming the file."""
        files = list(_files(asked.receipts))
        commitments = [one for path in _files(asked.commitments) for one in _commitments(path)]
        return cls(own, files, commitments, _heads(asked.heads))

    def shown(self) -> Iterator[Shown]:
        for given in self.own:
            yield Shown(given, "this node's own note")
        for path in self.receipts:
            yield from _receipts(path)


@dataclass
class Comparison:
    receipts: int = 0
    commitments: int = 0
    heads: int = 0
    missing: list[Shown] = field(default_factory=list)
    """Given, and no event stands there."""
    unverified: set[Given] = field(default_factory=set)
    """Of those, receipts signed by a key this database does not know: rotated after the copy, or not ours."""
    given_again: list[tuple[Shown, Uuid]] = field(default_factory=list)
    """Another event stands there."""
    damaged: list[Shown] = field(default_factory=list)
    """No event stands there, although the head is beyond it."""
    forged: list[str] = field(default_factory=list)
    lost_commitments: list[KeptCommitment] = field(default_factory=list)
    lost_heads: list[ChainHead] = field(default_factory=list)
    voids: list[Voided] = field(default_factory=list)

    @property
    def voided_count(self) -> int:
        return sum(void.last_number - void.first_number + 1 for void in self.voids)

    def lines(self) -> Iterator[str]:
        """Every finding, one a line."""
        for one, event_id in self.given_again:
            yield f"GIVEN AGAIN: {_named(one.given)} is now event {uuid_text(event_id)} ({self._source(one)})"
        for one in self.damaged:
            yield f"DAMAGED: {_named(one.given)} is gone below the head ({self._source(one)})"
        for one in self.missing:
            yield f"MISSING: {_named(one.given)} ({self._source(one)})"
        for batch in self.lost_commitments:
            yield (
                f"MISSING: commitment {batch.batch_id} of store {batch.store_id} through "
                f"{batch.sequence_end}; its numbers will be committed anew, under another root"
            )
        for head in self.lost_heads:
            yield (
                f"MISSING: audit entry {head.entry_number} of node {uuid_text(head.node_id)}; the chain goes "
                "on from before it, and kept heads will show that"
            )
        yield from (f"NOT COUNTED: {text}" for text in self.forged)

    def _source(self, one: Shown) -> str:
        unverified = ", by a key this database does not know" if one.given in self.unverified else ""
        return one.source + unverified

    def summary(self) -> str:
        return (
            f"{self.receipts} numbers, {self.commitments} commitments and {self.heads} audit heads compared; "
            f"{len(self.missing)} numbers, {len(self.lost_commitments)} commitments and "
            f"{len(self.lost_heads)} heads missing; {self.voided_count} numbers void"
        )

    def must_allow(self, asked: Confirmation) -> None:
        """Raises StartRefused: nothing is confirmed."""
        if self.given_again or self.damaged:
            raise StartRefused(
                f"{len(self.given_again)} numbers stand with other events than those they were given to and "
                f"{len(self.damaged)} are gone below the head: this database must not go on. Restore another "
                "copy, with all WAL there is"
            )
        compared = self.receipts + self.commitments + self.heads
        if not compared and not asked.without_evidence:
            raise StartRefused(
                "nothing was compared: name what agents and auditors kept (--receipts, --commitments, "
                "--heads), or say --without-evidence when you know by other means that nothing was given "
                "after this copy"
            )
        if (self.missing or self.lost_commitments or self.lost_heads) and not asked.void_missing:
            raise StartRefused(
                f"not confirmed: {self.summary()}. Bring them back with point-in-time recovery (restore "
                "--to-latest --wal …), or give them up with --void-missing: their numbers are then never "
                "given again"
            )

    def audit(self, restoration_id: Uuid, reason: str) -> AuditEntry:
        details: dict[str, str | int | None] = {
            "reason": reason,
            "compared": self.summary(),
            "numbers_missing": len(self.missing),
            "numbers_voided": self.voided_count,
            "outcome": "done",
        }
        return AuditEntry("cli", "restoration.confirm", uuid_text(restoration_id), None, details)


async def compare(journal: PostgresJournal, evidence: Evidence, asked: Confirmation) -> Comparison:
    """Reads only. Raises StartRefused when there is more missing than can be listed."""
    found = Comparison(commitments=len(evidence.commitments), heads=len(evidence.heads))
    heads = await _all_heads(journal)
    keys = {
        ReceiptKeyName(key.sequencer_id, key.key_version): key.public_key
        for key in await journal.receipt_keys()
    }
    shown = evidence.shown()
    while chunk := list(islice(shown, GIVEN_MAX)):
        found.receipts += len(chunk)
        by_given = {one.given: one for one in chunk}
        for given in await lacking(journal, list(by_given)):
            await _judge(journal, by_given[given], heads, keys, found)
        if len(found.missing) > MISSING_MAX:
            raise StartRefused(f"more than {MISSING_MAX} numbers are missing: this is not the right copy")
    await _judge_commitments(journal, evidence.commitments, found)
    for head in evidence.heads:
        if not await journal.holds_audit_entry(head.node_id, head.entry_number, head.entry_hash):
            found.lost_heads.append(head)
    if asked.void_missing:
        found.voids = list(_voids(found, heads, asked.margin))
    return found


async def _judge(
    journal: PostgresJournal, one: Shown, heads: dict[Stream, int], keys: ReceiptKeys, found: Comparison
) -> None:
    if one.acknowledgement is not None:
        problems = verify_acknowledged(one.acknowledgement.event, one.acknowledgement.receipt, keys, None)
        wrong = [problem.text for problem in problems if problem.name != UNTRUSTED]
        if wrong:
            found.forged.append(f"{_named(one.given)} ({one.source}): {wrong[0]}")
            return
        if problems:
            found.unverified.add(one.given)
    [standing] = await journal.standing_at([one.given])
    if standing is not None:
        found.given_again.append((one, standing))
    elif one.given.sequence_number <= heads.get(one.given.stream, 0):
        found.damaged.append(one)
    else:
        found.missing.append(one)


async def _judge_commitments(journal: PostgresJournal, kept: list[KeptCommitment], found: Comparison) -> None:
    for start in range(0, len(kept), PAGE):
        some = kept[start : start + PAGE]
        absent = set(await journal.absent_commitments([uuid_bytes(one.batch_id) for one in some]))
        found.lost_commitments += [one for one in some if uuid_bytes(one.batch_id) in absent]


def _voids(found: Comparison, heads: dict[Stream, int], margin: int) -> Iterator[Voided]:
    """Per stream everything after its head, up to the greatest number known to be given, and a margin for
    those nobody could show. The margin is every stream's: which ones went on after the copy, nobody knows."""
    reached = dict(heads) if margin else {}
    ends: Iterable[tuple[Stream, int, str]] = [
        *((one.given.stream, one.given.sequence_number, one.source) for one in found.missing),
        *((one.stream, one.sequence_end, f"commitment {one.batch_id}") for one in found.lost_commitments),
    ]
    for stream, number, source in ends:
        if number > heads.get(stream, 0) + VOID_MAX:
            raise StartRefused(
                f"{source}: number {number} of store {uuid_text(stream[1])}, whose head is "
                f"{heads.get(stream, 0)}, would void more than {VOID_MAX} numbers: nobody gave so many; "
                "leave it out"
            )
        reached[stream] = max(reached.get(stream, 0), number)
    for stream, number in sorted(reached.items()):
        head = heads.get(stream, 0)
        last = max(number, head) + margin
        if last > head:
            yield Voided(*stream, head + 1, last)


async def _all_heads(journal: PostgresJournal) -> dict[Stream, int]:
    heads: dict[Stream, int] = {}
    after: Stream | None = None
    while True:
        page = await journal.stream_heads(after=after, limit=PAGE)
        heads |= {(head.tenant_id, head.store_id): head.head_sequence for head in page}
        if len(page) < PAGE:
            return heads
        after = (page[-1].tenant_id, page[-1].store_id)


async def shown(journal: PostgresJournal) -> str:
    heads = await _all_heads(journal)
    return f"{len(heads)} streams, heads add up to {sum(heads.values())}"


# ---- files ----------------------------------------------------------------------------------------------


def _files(named: Iterable[Path]) -> Iterator[Path]:
    """A folder stands for the files in it."""
    for path in named:
        if path.is_dir():
            yield from sorted(file for file in path.iterdir() if file.is_file() and file.name[0] != ".")
        elif path.is_file():
            yield path
        else:
            raise StartRefused(f"{path}: there is no such file or folder")


def _receipts(path: Path) -> Iterator[Shown]:
    for number, line in _lines(path):
        try:
            kept = msgspec.json.decode(line, type=Acknowledgement)
            given = Given(
                uuid_bytes(kept.event.tenant_id),
                uuid_bytes(kept.event.store_id),
                kept.receipt.sequence_number,
                uuid_bytes(kept.receipt.event_id),
            )
        except (msgspec.DecodeError, ValueError) as error:
            raise StartRefused(
                f"{path}, line {number}: no kept receipt ({error}); one "
                '{"event": …, "receipt": …} a line, as `agent post --receipts` writes them'
            ) from None
        if not 1 <= given.sequence_number < 1 << 53:
            raise StartRefused(f"{path}, line {number}: sequenceNumber {given.sequence_number} is no number")
        yield Shown(given, f"{path}:{number}", kept)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(LINE_BYTES_MAX + 1):
                number += 1
                if len(line) > LINE_BYTES_MAX:
                    raise StartRefused(f"{path}, line {number}: longer than {LINE_BYTES_MAX} bytes")
                if line.strip():
                    yield number, line
    except OSError as error:
        raise StartRefused(f"{path}: {error.strerror}") from error


def _commitments(path: Path) -> Iterator[KeptCommitment]:
    """A page as the API lists them, proof files, or single ones, one a line."""
    for number, line in _lines(path):
        kept = _decoded(line)
        if kept is None:
            raise StartRefused(
                f"{path}, line {number}: no kept commitment; a commitment, a page of them as the API "
                "gives it, or a proof file, one JSON object a line"
            )
        yield from kept


def _decoded(line: bytes) -> list[KeptCommitment] | None:
    """None: it is nothing of the kind."""
    try:
        found = msgspec.json.decode(line, type=_Kept)
        if found.commitments is not None:
            kept = found.commitments
        elif found.commitment is not None:
            kept = [found.commitment]
        else:
            kept = [msgspec.json.decode(line, type=KeptCommitment)]
        for one in kept:
            uuid_bytes(one.batch_id), one.stream
    except (msgspec.DecodeError, ValueError):
        return None
    return kept


def _heads(path: Path | None) -> list[ChainHead]:
    if path is None:
        return []
    try:
        return list(msgspec.json.decode(path.read_bytes(), type=KeptHeads).by_node().values())
    except OSError as error:
        raise StartRefused(f"{path}: {error.strerror}") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise StartRefused(f"{path} holds no kept heads: {error} (`audit heads --out`)") from None


def _named(given: Given) -> str:
    return (
        f"number {given.sequence_number} of tenant {uuid_text(given.tenant_id)} store "
        f"{uuid_text(given.store_id)}, event {uuid_text(given.event_id)}"
    )
