"""Judging the unsigned events of an exported store (VES 3.10), and the commitments made of them.

Nobody signed these events: what can be shown is that payloads have their hashes, that numbers have no gap,
and that the commitments' roots are made of exactly these numbers, payload hashes and entities. The state root
of such a commitment is made of all entities' versions of one moment, of both kinds of events; no copy shows
that moment, so only that each names the one before it is looked at. Memory holds one commitment's leaves.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from hmac import compare_digest
from pathlib import Path

from transport.client.errors import BadAnswer
from transport.client.export_form import (
    ExportedLegacyCommitment,
    ExportedLegacyEvent,
    Plan,
    PlannedStream,
    event_starts,
    legacy_commitments_file,
    legacy_events_file,
)
from transport.client.export_report import ExportReport, lines_in
from transport.client.wire import decode
from ves.constants import ZERO_HASH
from ves.encoding import hex_bytes, uuid_bytes
from ves.legacy import leaf_hash, payload_hash
from ves.legacy_text import legacy_text
from ves.legacy_tree import promoting_parents
from ves.merkle import build_levels
from ves.timestamps import parse_rfc3339


class LegacyStreamCheck:
    """One store's unsigned events, from the first to the last commitment."""

    def __init__(
        self, folder: Path, plan: Plan, stream: PlannedStream, there: set[str], report: ExportReport
    ) -> None:
        self._folder = folder
        self._plan = plan
        self._store = stream.store_id
        self._span = stream.legacy
        self._there = there
        self._report = report
        self._names = uuid_bytes(plan.tenant_id), uuid_bytes(stream.store_id)
        self._last_us = 0
        self._next_start: int | None = None
        self._state_root = ZERO_HASH
        self._commitments = self._read_commitments()
        self._commitment: tuple[str, ExportedLegacyCommitment] | None = None
        self._leaves: list[bytes] = []

    def check(self) -> None:
        self._next_commitment()
        with closing(sqlite3.connect("")) as seen:  # in a temporary file, once it grows
            seen.execute("CREATE TABLE ids (id BLOB PRIMARY KEY) WITHOUT ROWID")
            for first in event_starts(self._span, (), self._plan.file_events):
                name = legacy_events_file(self._store, first)
                last = min(first + self._plan.file_events - 1, self._span.through)
                if name in self._there:
                    self._events(name, first, last, seen)
        while self._commitment is not None:
            self._close()
            self._next_commitment()

    def _events(self, name: str, first: int, last: int, seen: sqlite3.Connection) -> None:
        expected = first
        for place, line in lines_in(self._folder, name, self._report):
            self._report.legacy_events += 1
            try:
                self._event(place, decode(line, ExportedLegacyEvent, place), expected, seen)
            except (BadAnswer, ValueError) as wrong:
                self._report.say(place, str(wrong))
            expected += 1
        if expected != last + 1:
            self._report.say(name, f"it holds {expected - first} events, {last - first + 1} are due: a gap")

    def _event(self, place: str, event: ExportedLegacyEvent, expected: int, seen: sqlite3.Connection) -> None:
        envelope, say = event.envelope, self._report.say
        if envelope.sequence_number != expected:
            say(place, f"number {expected} is due here, it has {envelope.sequence_number}")
        if (uuid_bytes(envelope.tenant_id), uuid_bytes(envelope.store_id)) != self._names:
            say(place, "the event belongs to another stream")
        hashed = hex_bytes(envelope.payload_hash, 32)
        payload = bytes(envelope.payload)
        if self._plan.with_payloads and not payload:
            say(place, "its payload is missing")
        elif payload and not compare_digest(payload_hash(legacy_text(payload)), hashed):
            say(place, "its payload_hash is not that of its payload")
        event_id = uuid_bytes(envelope.event_id)
        if not seen.execute("INSERT OR IGNORE INTO ids VALUES (?)", (event_id,)).rowcount:
            say(place, "its event_id occurred before")
        sequenced_at_us = parse_rfc3339(event.sequenced_at)
        if sequenced_at_us < self._last_us:
            say(place, "it was sequenced before its predecessor")
        self._last_us = max(self._last_us, sequenced_at_us)
        leaf = leaf_hash(*self._names, expected, hashed, envelope.entity_type, envelope.entity_id)
        self._included(place, expected, leaf)

    def _included(self, place: str, number: int, leaf: bytes) -> None:
        while self._commitment is not None and self._commitment[1].sequence_end < number:
            self._close()
            self._next_commitment()
        if self._commitment is None:
            self._report.legacy_uncommitted += 1
        elif number < self._commitment[1].sequence_start:
            self._report.say(place, "no commitment covers it, though a later one exists")
        else:
            self._leaves.append(leaf)

    def _close(self) -> None:
        """All events of the commitment that are here have been seen."""
        assert self._commitment is not None
        place, shown = self._commitment
        span = f"{shown.sequence_start} to {shown.sequence_end}"
        if not self._span.reaches_over(shown.sequence_start, shown.sequence_end):
            self._report.not_verified.append(
                f"store {self._store}: the commitment over the unsigned events {span}, of which only a part "
                "is exported"
            )
        elif len(self._leaves) != shown.event_count:
            self._report.say(place, f"{len(self._leaves)} events are here for it, {shown.event_count} due")
        elif build_levels(self._leaves, promoting_parents)[-1][0] != hex_bytes(shown.events_root, 32):
            self._report.say(place, f"its root is not that of the events {span}")
        else:
            self._report.legacy_committed += len(self._leaves)
        self._leaves = []

    def _next_commitment(self) -> None:
        self._commitment = next(self._commitments, None)

    def _read_commitments(self) -> Iterator[tuple[str, ExportedLegacyCommitment]]:
        name = legacy_commitments_file(self._store)
        if name not in self._there:
            return
        for place, line in lines_in(self._folder, name, self._report):
            self._report.legacy_commitments += 1
            try:
                shown = decode(line, ExportedLegacyCommitment, place)
                hex_bytes(shown.events_root, 32)
                self._judge(place, shown)
            except (BadAnswer, ValueError) as wrong:
                self._report.say(place, str(wrong))
                continue
            yield place, shown

    def _judge(self, place: str, shown: ExportedLegacyCommitment) -> None:
        say, start = self._report.say, shown.sequence_start
        if (uuid_bytes(shown.tenant_id), uuid_bytes(shown.store_id)) != self._names:
            say(place, "the commitment belongs to another stream")
        if shown.event_count < 1 or shown.event_count != shown.sequence_end - start + 1:
            say(place, f"event_count {shown.event_count} is not the length of its range")
        if shown.sequence_end > self._span.head_sequence:
            say(place, f"it reaches beyond the head, {self._span.head_sequence}: events are missing")
        if self._next_start is None and start == 1:
            self._next_start = 1
        if self._next_start is None:
            if start > self._span.first:
                say(place, f"it starts at {start}: one before it is missing")
        else:
            if start != self._next_start:
                say(place, f"it starts at {start}, not at {self._next_start}")
            if hex_bytes(shown.prev_state_root, 32) != self._state_root:
                say(place, "its prev_state_root is not the state root of the commitment before it")
        self._next_start, self._state_root = shown.sequence_end + 1, hex_bytes(shown.new_state_root, 32)
