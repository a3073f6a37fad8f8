"""Judging an export, offline: is everything there, unchanged, and does it prove what it says?

Link by link: the manifest holds every file by hash; receipt keys follow from each other (and from those that
are trusted); each event was signed by its agent's key and has a receipt; numbers have no gap and ids no
double; the leaves recomputed from the events are those of the commitments, whose roots and state roots are
recomputed. Unsigned events and validity proofs have checks of their own beside this one. Memory holds one
commitment, however large the export is; ids wait in a temporary file. Believes no name in the folder: what is
to be there follows from the plan.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from hmac import compare_digest
from pathlib import Path

import msgspec

from transport.client.checks import AgentKeyring, leaf_of, verify_shown
from transport.client.errors import BadAnswer
from transport.client.export_form import (
    AGENT_KEYS,
    AUDIT_ENTRIES,
    FILES_LACKING_MAX,
    MANIFEST,
    PLAN,
    POLICY,
    SCHEMAS,
    SEQUENCER,
    DamagedExport,
    ExportedCommitment,
    ExportedKey,
    ListedFile,
    Plan,
    PlannedStream,
    commitments_file,
    count_of_files,
    digest_of,
    event_starts,
    events_file,
    files_of,
    numbers_due,
    read_manifest,
    read_plan,
)
from transport.client.export_legacy_check import LegacyStreamCheck
from transport.client.export_proof_check import check_proofs
from transport.client.export_report import ExportReport, lines_in
from transport.client.trust import followed
from transport.client.wire import Envelope, ReceiptKeys, WellKnown, decode
from ves.constants import ZERO_HASH
from ves.encoding import hex_bytes, prefixed_hex, uuid_bytes, uuid_text
from ves.following import beyond_voided
from ves.merkle import build_levels
from ves.proofs import verify_commitment
from ves.receipt_keys import BrokenChain, follow
from ves.records import Commitment, KeyName


def check_export(folder: Path, believed: ReceiptKeys, agents: AgentKeyring | None) -> ExportReport:
    """``believed``: receipt keys from outside of the export. ``agents``: agents' keys from outside, if any.
    DamagedExport when there is no plan or no manifest to begin with."""
    plan, report = read_plan(folder), ExportReport()
    report.tenant_id = plan.tenant_id
    try:
        names = [uuid_bytes(one) for one in (plan.tenant_id, *(s.store_id for s in plan.streams))]
    except ValueError as wrong:
        raise DamagedExport(f"{folder / PLAN}: {wrong}") from None
    if len(set(names[1:])) != len(plan.streams):
        raise DamagedExport(f"{folder / PLAN}: a store is named twice")
    _check_voided(plan, report)
    there = set(_check_files(folder, plan, report))
    keys = _receipt_keys(folder, there, believed, report)
    ring = _agent_keys(folder, plan, there, agents, report)
    for stream in plan.streams:
        report.streams += 1
        _Stream(folder, plan, stream, there, keys, ring, report).check()
        check_proofs(folder, stream, there, report)
        LegacyStreamCheck(folder, plan, stream, there, report).check()
    for name in (SCHEMAS, POLICY, AUDIT_ENTRIES):
        if name in there:
            _is_json(folder, name, report)
    _summary(plan, agents, report)
    return report


def _check_voided(plan: Plan, report: ExportReport) -> None:
    """Ranges in order that the stream reaches. That they are void is the server's word."""
    for stream in plan.streams:
        after = 0
        for first, last in stream.voided:
            if not after < first <= last <= stream.head_sequence:
                report.say(PLAN, f"store {stream.store_id}: no range of void numbers: {first} to {last}")
            report.void += max(0, min(last, stream.through) - max(first, stream.first) + 1)
            report.not_verified.append(
                f"store {stream.store_id}: that the numbers {first} to {last} are nobody's, as was declared "
                "after a restore: whoever has a receipt for one can object"
            )
            after = max(after, last)


def _check_files(folder: Path, plan: Plan, report: ExportReport) -> Iterator[str]:
    """The files that are there, whether changed or not."""
    manifest = read_manifest(folder)
    if (manifest.format, manifest.tenant_id) != (plan.format, plan.tenant_id):
        report.say(MANIFEST, f"it is of another export than {PLAN}")
    if not compare_digest(digest_of(folder / PLAN).sha256, manifest.plan_sha256):
        report.say(PLAN, f"it is not the one that {MANIFEST} was made for")
    listed = {entry.file: entry for entry in manifest.files}
    if (count := count_of_files(plan)) > len(listed) + FILES_LACKING_MAX:
        raise DamagedExport(f"{folder / PLAN}: it demands {count} files, {MANIFEST} lists {len(listed)}")
    due = files_of(plan)
    for name in sorted(set(listed) - set(due)):
        report.say(MANIFEST, f"it lists {name!r}, which has no place in this export")
    if len(listed) != len(manifest.files):
        report.say(MANIFEST, "it lists a file twice")
    for name in due:
        if name not in listed:
            report.say(MANIFEST, f"{name} is not listed")
        yield from _check_file(folder, name, listed.get(name), report)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name not in {*due, PLAN, MANIFEST}:
            report.say(name, "it does not belong to the export")
    report.not_verified += [f"not in the export: {what}" for what in manifest.not_included]


def _check_file(folder: Path, name: str, entry: ListedFile | None, report: ExportReport) -> Iterator[str]:
    path = folder / name
    if path.is_symlink() or not path.is_file():
        report.say(name, "the file is missing")
        return
    found = digest_of(path)
    if entry is not None and not compare_digest(found.sha256, entry.sha256):
        cut = f": {found.bytes} bytes instead of {entry.bytes}" if found.bytes != entry.bytes else ""
        report.say(name, f"it was changed: its SHA-256 is not the manifest's{cut}")
    yield name


def _receipt_keys(folder: Path, there: set[str], believed: ReceiptKeys, report: ExportReport) -> ReceiptKeys:
    """All that are shown, if they follow from each other; what none of the believed leads to is untrusted."""
    if SEQUENCER not in there:
        return believed
    try:
        shown = decode((folder / SEQUENCER).read_bytes(), WellKnown, SEQUENCER)
        keys = shown.keys()
        for sequencer_id, links in shown.links().items():
            follow({}, sequencer_id, links)
        spoken_of = {name.sequencer_id for name in keys}
        trusted = followed({n: k for n, k in believed.items() if n.sequencer_id in spoken_of}, shown)
    except BrokenChain as broken:
        report.say(SEQUENCER, f"the receipt keys do not follow from each other or from the trusted: {broken}")
        return believed
    except (BadAnswer, ValueError) as wrong:
        report.say(SEQUENCER, str(wrong))
        return believed
    for name in sorted(keys.keys() - trusted.keys()):
        report.trusted = False
        report.not_verified.append(
            f"receipt key version {name.key_version} of sequencer {uuid_text(name.sequencer_id)}: nobody "
            "outside of the export vouches for it"
        )
    return keys | trusted


def _agent_keys(
    folder: Path, plan: Plan, there: set[str], agents: AgentKeyring | None, report: ExportReport
) -> dict[KeyName, bytes]:
    ring: dict[KeyName, bytes] = {}
    if AGENT_KEYS not in there:
        return ring
    tenant_id = uuid_bytes(plan.tenant_id)
    for place, line in lines_in(folder, AGENT_KEYS, report):
        try:
            entry = decode(line, ExportedKey, place)
            name = KeyName(tenant_id, uuid_bytes(entry.agent_id), entry.key_id)
            key = hex_bytes(entry.public_key, 32)
        except (BadAnswer, ValueError) as wrong:
            report.say(place, str(wrong))
            continue
        if ring.setdefault(name, key) != key:
            report.say(place, "this key id is listed with another key before")
        if agents is not None and agents.get(name, key) != key:
            report.say(place, "the trust file has another key under this name")
    return ring


class _Stream:
    """One stream, from its first event to its last commitment."""

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        stream: PlannedStream,
        there: set[str],
        keys: ReceiptKeys,
        ring: AgentKeyring,
        report: ExportReport,
    ) -> None:
        self._folder = folder
        self._plan = plan
        self._stream = stream
        self._there = there
        self._keys = keys
        self._ring = ring
        self._report = report
        self._names = uuid_bytes(plan.tenant_id), uuid_bytes(stream.store_id)
        self._last_us = 0
        self._next_start: int | None = None
        self._state_root = ZERO_HASH
        self._commitments = self._read_commitments()
        self._commitment: tuple[str, Commitment, list[bytes]] | None = None

    def check(self) -> None:
        self._next_commitment()
        with closing(sqlite3.connect("")) as seen:  # in a temporary file, once it grows
            seen.execute("CREATE TABLE ids (id BLOB PRIMARY KEY) WITHOUT ROWID")
            for first in event_starts(self._stream, self._stream.voided, self._plan.file_events):
                name = events_file(self._stream.store_id, first)
                last = min(first + self._plan.file_events - 1, self._stream.through)
                if name in self._there:
                    self._events(name, first, last, seen)
        while self._commitment is not None:
            self._next_commitment()
        if self._next_start is not None:
            self._report.state_roots[self._stream.store_id] = prefixed_hex(self._state_root)

    def _events(self, name: str, first: int, last: int, seen: sqlite3.Connection) -> None:
        numbers, held = numbers_due(first, last, self._stream.voided), 0
        for place, line in lines_in(self._folder, name, self._report):
            held += 1
            number = next(numbers, None)
            if number is None:
                self._report.say(place, f"no event is due here: the file ends at {last}")
                continue
            try:
                envelope = decode(line, Envelope, place)
                self._event(place, envelope, number, seen)
            except (BadAnswer, ValueError) as wrong:
                self._report.say(place, str(wrong))
        if (missing := sum(1 for _ in numbers)) > 0:
            self._report.say(name, f"it holds {held} events, {held + missing} are due: a gap")

    def _event(self, place: str, envelope: Envelope, expected: int, seen: sqlite3.Connection) -> None:
        self._report.events += 1
        before = self._report.problems_found
        if envelope.sequence_number != expected:
            self._report.say(place, f"number {expected} is due here, it has {envelope.sequence_number}")
        stream = envelope.stream()
        if (stream.tenant_id, stream.store_id) != self._names:
            self._report.say(place, "the event belongs to another stream")
        problems = verify_shown(envelope, self._keys, self._ring, with_payload=self._plan.with_payloads)
        for problem in problems:
            self._report.say(place, problem.text)
        event = envelope.sequenced(envelope.sequence_number or 0)
        if not seen.execute("INSERT OR IGNORE INTO ids VALUES (?)", (event.header.event_id,)).rowcount:
            self._report.say(place, "its event_id occurred before")
        receipt = envelope.receipt.receipt() if envelope.receipt else None
        if receipt is not None:
            if receipt.sequenced_at_us < self._last_us:
                self._report.say(place, "it was sequenced before its predecessor")
            self._last_us = max(self._last_us, receipt.sequenced_at_us)
        self._report.receipts += before == self._report.problems_found
        self._included(place, expected, leaf_of(event))

    def _included(self, place: str, number: int, leaf: bytes) -> None:
        """Its leaf, made of the event alone, is the one the commitment has for this number."""
        while self._commitment is not None and self._commitment[1].sequence_end < number:
            self._next_commitment()
        if self._commitment is None:
            self._report.uncommitted += 1
            return
        _, commitment, leaves = self._commitment
        index = number - commitment.sequence_start
        if index < 0:
            self._report.say(place, "no commitment covers it, though a later one exists")
        elif index >= len(leaves) or leaves[index] != leaf:
            self._report.say(place, f"the commitment {uuid_text(commitment.batch_id)} holds another event")
        else:
            self._report.committed += 1

    def _next_commitment(self) -> None:
        self._commitment = next(self._commitments, None)

    def _read_commitments(self) -> Iterator[tuple[str, Commitment, list[bytes]]]:
        """Each that is well formed, after what can be said of it alone was said."""
        name = commitments_file(self._stream.store_id)
        if name not in self._there:
            return
        for place, line in lines_in(self._folder, name, self._report):
            self._report.commitments += 1
            try:
                shown = decode(line, ExportedCommitment, place)
                commitment = shown.commitment()
                leaves = [hex_bytes(leaf, 32) for leaf in shown.leaf_hashes]
            except (BadAnswer, ValueError) as wrong:
                self._report.say(place, str(wrong))
                continue
            self._judge(place, commitment, leaves)
            yield place, commitment, leaves

    def _judge(self, place: str, commitment: Commitment, leaves: list[bytes]) -> None:
        say = self._report.say
        for problem in verify_commitment(commitment):
            say(place, problem.text)
        if commitment.sequence_end > self._stream.head_sequence:
            say(place, f"it reaches beyond the head, {self._stream.head_sequence}: events are missing")
        if (commitment.tenant_id, commitment.store_id) != self._names:
            say(place, "the commitment belongs to another stream")
        for first, last in self._stream.voided:
            if first <= commitment.sequence_end and commitment.sequence_start <= last:
                say(place, f"it holds numbers that are said to be void: {first} to {last}")
        if len(leaves) != commitment.leaf_count or not leaves:
            say(place, f"it has {len(leaves)} leaf hashes, {commitment.leaf_count} are due")
        elif build_levels(leaves)[-1][0] != commitment.merkle_root:
            say(place, "its root is not that of its leaves")
        voided = self._stream.voided
        if self._next_start is None and commitment.sequence_start == beyond_voided(1, voided):
            self._next_start = commitment.sequence_start
        if self._next_start is None:
            if commitment.sequence_start > beyond_voided(self._stream.first, voided):
                say(place, f"it starts at {commitment.sequence_start}: one before it is missing")
        else:
            if commitment.sequence_start != self._next_start:
                say(place, f"it starts at {commitment.sequence_start}, not at {self._next_start}")
            if commitment.prev_state_root != self._state_root:
                say(place, "it does not follow from the commitment before it")
        self._next_start = beyond_voided(commitment.sequence_end + 1, voided)
        self._state_root = commitment.new_state_root


def _is_json(folder: Path, name: str, report: ExportReport) -> None:
    for place, line in lines_in(folder, name, report):
        try:
            msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
            report.say(place, str(wrong))


def _summary(plan: Plan, agents: AgentKeyring | None, report: ExportReport) -> None:
    payloads = "payloads, " if plan.with_payloads else ""
    gap = f"numbers without gap but for {report.void} void ones" if report.void else "numbers without gap"
    report.verified += (
        [
            "every file is there and is the one of the manifest",
            f"{report.events} events: {payloads}agents' signatures, {gap}, ids without double",
            f"{report.receipts} receipts: signed for exactly this event at this number",
            f"{report.commitments} commitments over {report.committed} events: leaves, roots and state roots",
            "receipt keys: each signed by the one before",
        ]
        if report.ok
        else []
    )
    _summary_of_proofs(report)
    _summary_of_legacy(plan, report)
    if agents is None:
        report.not_verified.append("agents' keys: believed as the sequencer listed them (no trust file)")
    for stream in plan.streams:
        if stream.first > 1:
            report.not_verified.append(f"store {stream.store_id}: the state root before {stream.first}")
    if report.uncommitted:
        report.not_verified.append(f"{report.uncommitted} events: not committed when the export was begun")
    report.not_verified.append(
        "that a stream goes no further than the export, and that nobody was shown another: compare state "
        "roots and receipts that others kept"
    )
    if plan.with_admin:
        report.not_verified.append("audit entries: single ones; `sequencer audit verify` checks whole chains")


def _summary_of_proofs(report: ExportReport) -> None:
    if not report.validity_proofs:
        return
    if report.ok:
        report.verified.append(
            f"{report.validity_proofs} validity proofs: whole, and those that name public inputs name their "
            "commitment's"
        )
    report.not_verified.append("validity proofs: what they prove; it takes the verifier of each one's system")
    if report.proofs_without_inputs:
        report.not_verified.append(
            f"{report.proofs_without_inputs} validity proofs: whether they are about a commitment; they came "
            "without public inputs"
        )


def _summary_of_legacy(plan: Plan, report: ExportReport) -> None:
    if not report.legacy_events:
        return
    if report.ok:
        payloads = "payload hashes, " if plan.with_payloads else ""
        report.verified += [
            f"{report.legacy_events} unsigned events: {payloads}numbers without gap, ids without double",
            f"{report.legacy_commitments} commitments over {report.legacy_committed} unsigned events: roots "
            "over number, payload hash and entity of each",
        ]
    report.not_verified.append(
        "unsigned events: who sent them, and their ids, types and times; nobody signed, and no commitment "
        "holds these: it is the operator's word"
    )
    if report.legacy_commitments:
        report.not_verified.append(
            "state roots of commitments over unsigned events: made of all entities' versions, of both kinds, "
            "at one moment that no copy shows; only that each names the one before"
        )
    if report.legacy_uncommitted:
        report.not_verified.append(
            f"{report.legacy_uncommitted} unsigned events: not committed when the export was begun"
        )
