"""What an auditor remembers of a stream between two looks, on disk, so that being killed costs work only.

    FILE           JSON: how far the stream was verified, whose keys are believed, what was found wrong;
                   replaced as a whole
    FILE.history   one record of ``ves.following`` for each verified commitment, appended; FILE says how many
                   count and which hash they have, what is behind them is a dead run's and cut off

Records are durable before FILE counts them. Alone owns both files; a file of another format, stream, address
or one that is damaged is refused and left as it is. Decides nothing about what was shown.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Self

import msgspec

from config.files import open_private, sync_folder, write_whole
from transport.client.errors import ClientError
from transport.client.wire import UNREADABLE, ReceiptKey, ReceiptKeys, Stream, TrustedAgentKey, WellKnown
from ves.constants import ZERO_HASH
from ves.encoding import hex_bytes, prefixed_hex, uuid_bytes, uuid_text
from ves.following import (
    RECORD_BYTES,
    AnchorSeen,
    Contradiction,
    Seen,
    Verified,
    advance,
    history_after,
    record_of,
    verified_of,
)
from ves.records import KeyName

FORMAT = "ves-audit-follow-1"
CONTRADICTIONS_MAX = 100
EVIDENCE_BYTES_MAX = 256 * 1024
AGENT_KEYS_MAX = 10_000
"""So many agents' keys are pinned; what comes after them is believed anew each time."""
_READ_RECORDS = 4096


class StateRefused(ClientError):
    """The state file cannot be used, or not so; nothing was changed. The text says what to do."""


class Finding(msgspec.Struct, frozen=True):
    """A contradiction as it was found, with both versions."""

    kind: str
    text: str
    found_at: str
    url: str
    first: int | None = None
    last: int | None = None
    verified: msgspec.Raw = msgspec.Raw(b"null")
    """What was shown and verified before."""
    shown: msgspec.Raw = msgspec.Raw(b"null")
    """What came now, as fetched."""
    acknowledged: bool = False


class AnchorKept(AnchorSeen, frozen=True, omit_defaults=True, kw_only=True):
    """Of a commitment whose anchor is not final yet."""

    since_s: int
    """Seconds since 1970 from which on it counts as waiting: our clock, or ``committed_at`` if earlier."""

    def seen(self) -> AnchorSeen:
        return AnchorSeen(self.state, self.tx_hash, self.block_number, self.block_hash)


class State(msgspec.Struct):
    """FILE. ``finalized_through``: the first so many commitments were all seen finalized."""

    format: str
    origin: str
    tenant_id: str
    store_id: str
    begun_at: str
    trusted: str
    """What the receipt keys came from: ``first use``, or ``trust file``."""
    receipt_keys: list[ReceiptKey]
    agent_keys: list[TrustedAgentKey] = []
    agents_from_outside: bool = False
    """The agents' keys are the trust file's; others are not believed."""
    count: int = 0
    history: str = prefixed_hex(ZERO_HASH)
    sequence_end: int = 0
    state_root: str = prefixed_hex(ZERO_HASH)
    head_sequence: int = 0
    voided: list[tuple[int, int]] = []
    finalized_through: int = 0
    anchors: dict[str, AnchorKept] = {}
    """By batch id: of those behind ``finalized_through`` that were looked at."""
    verified_at: str = ""
    """When a look last ended with nothing against the stream."""
    events_sampled: bool = False
    """Not every signature was verified."""
    findings: list[Finding] = []

    def keys(self) -> ReceiptKeys:
        return WellKnown("", self.receipt_keys).keys()

    def agents(self) -> dict[KeyName, bytes]:
        return {
            KeyName(uuid_bytes(k.tenant_id), uuid_bytes(k.agent_id), k.key_id): hex_bytes(k.public_key, 32)
            for k in self.agent_keys
        }

    def seen(self) -> Seen:
        return Seen(
            tenant_id=uuid_bytes(self.tenant_id),
            store_id=uuid_bytes(self.store_id),
            count=self.count,
            history=hex_bytes(self.history, 32),
            sequence_end=self.sequence_end,
            state_root=hex_bytes(self.state_root, 32),
            head_sequence=self.head_sequence,
            voided=tuple(self.voided),
        )

    def last_look(self) -> datetime:
        """The last that ended with nothing against the stream; before the first, when it was begun."""
        return datetime.fromisoformat(self.verified_at or self.begun_at)

    def open_findings(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.acknowledged]


def listed_keys(keys: ReceiptKeys) -> list[ReceiptKey]:
    return [
        ReceiptKey(name.key_version, "ed25519", prefixed_hex(key), uuid_text(name.sequencer_id))
        for name, key in sorted(keys.items())
    ]


def listed_agents(keys: dict[KeyName, bytes]) -> list[TrustedAgentKey]:
    return [
        TrustedAgentKey(uuid_text(n.tenant_id), uuid_text(n.agent_id), n.key_id, prefixed_hex(key))
        for n, key in keys.items()
    ]


def read_state(path: Path) -> State:
    """StateRefused when there is none, or it is not one of ours."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise StateRefused(f"{path}: {error.strerror}") from error
    try:
        named = msgspec.json.decode(raw, type=dict[str, msgspec.Raw]).get("format", msgspec.Raw(b'""'))
        form = msgspec.json.decode(named, type=str)
        if form != FORMAT:
            raise StateRefused(
                f"{path} has the format {form!r}, this program reads {FORMAT}: use the program that wrote "
                "it, or another --state"
            )
        state = msgspec.json.decode(raw, type=State)
        state.keys(), state.agents(), state.seen(), state.last_look()
    except (*UNREADABLE, ValueError) as wrong:
        raise StateRefused(f"{path} is no state of audit follow, or is damaged: {wrong}") from wrong
    return state


def records_of(path: Path, seen: Seen) -> Iterator[Verified]:
    """The verified commitments of a state, in order. StateRefused unless they are exactly those it counts."""
    history, root, done = ZERO_HASH, ZERO_HASH, 0
    try:
        with history_path(path).open("rb") as file:
            while done < seen.count:
                chunk = file.read(min(_READ_RECORDS, seen.count - done) * RECORD_BYTES)
                if not chunk or len(chunk) % RECORD_BYTES:
                    raise ValueError(f"it ends after {done} commitments, {seen.count} were verified")
                for place in range(0, len(chunk), RECORD_BYTES):
                    record = chunk[place : place + RECORD_BYTES]
                    history = history_after(history, record)
                    verified = verified_of(record, seen.tenant_id, seen.store_id, root)
                    root, done = verified.commitment.new_state_root, done + 1
                    yield verified
    except OSError as error:
        raise StateRefused(f"{history_path(path)}: {error.strerror}") from error
    except ValueError as wrong:
        raise StateRefused(f"{history_path(path)} is damaged: {wrong}") from wrong
    if history != seen.history:
        raise StateRefused(f"{history_path(path)} is not the one that {path} was written with")


def history_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.history")


class Memory:
    """The state of one stream, open for one follower. ``seen`` runs ahead of the files until ``save``."""

    def __init__(self, path: Path, state: State, history: int) -> None:
        self.path = path
        self.state = state
        self.seen = state.seen()
        self._history = history
        self._unsaved: list[Verified] = []
        self._batches = sqlite3.connect("", isolation_level=None)  # in a temporary file, once it grows
        self._batches.execute("CREATE TABLE batches (id BLOB PRIMARY KEY) WITHOUT ROWID")
        self._last: Verified | None = None

    @classmethod
    def open(cls, path: Path, stream: Stream, origin: str, *, moved: bool = False) -> Self | None:
        """What was kept; None when there is nothing yet. ``moved``: the address may be another now."""
        if not path.exists():
            if history_path(path).exists() and history_path(path).stat().st_size:
                raise StateRefused(
                    f"{history_path(path)} is there and {path} is not: bring it back, or name a new one"
                )
            return None
        state = read_state(path)
        kept = state.seen()
        if (kept.tenant_id, kept.store_id) != (stream.tenant_id, stream.store_id):
            raise StateRefused(
                f"{path} is of the stream {state.tenant_id}/{state.store_id}, not of {stream}: "
                "name another --state"
            )
        if state.origin != origin and not moved:
            raise StateRefused(
                f"{path} follows {state.origin}, not {origin}: if the service moved there, say --moved; keys "
                "and history must still be the same"
            )
        state.origin = origin
        memory = cls(path, state, _locked(path))
        try:
            memory._read()
        except BaseException:
            memory.close()
            raise
        return memory

    @classmethod
    def begin(cls, path: Path, state: State) -> Self:
        """Durable before anything is verified: what was believed at first use stays on record."""
        memory = cls(path, state, _locked(path))
        memory.save()
        return memory

    def _read(self) -> None:
        for verified in records_of(self.path, self.seen):
            self._remember(verified)
        os.ftruncate(self._history, self.seen.count * RECORD_BYTES)

    def _remember(self, verified: Verified) -> None:
        self._batches.execute("INSERT OR IGNORE INTO batches VALUES (?)", (verified.commitment.batch_id,))
        self._last = verified

    def close(self) -> None:
        self._batches.close()
        os.close(self._history)

    def knows_batch(self, batch_id: bytes) -> bool:
        return self._batches.execute("SELECT 1 FROM batches WHERE id = ?", (batch_id,)).fetchone() is not None

    def add(self, verified: Verified) -> None:
        self._remember(verified)
        self._unsaved.append(verified)
        self.seen = advance(self.seen, verified)

    def last(self) -> Verified | None:
        return self._last

    def at(self, index: int) -> Verified:
        """The verified commitment number ``index``, from 0. IndexError beyond them."""
        if not 0 <= index < self.seen.count:
            raise IndexError(index)
        saved = self.seen.count - len(self._unsaved)
        if index >= saved:
            return self._unsaved[index - saved]
        before, record = ZERO_HASH, self._record(index)
        if index:
            previous = verified_of(
                self._record(index - 1), self.seen.tenant_id, self.seen.store_id, ZERO_HASH
            )
            before = previous.commitment.new_state_root
        return verified_of(record, self.seen.tenant_id, self.seen.store_id, before)

    def _record(self, index: int) -> bytes:
        return os.pread(self._history, RECORD_BYTES, index * RECORD_BYTES)

    def find(self, finding: Finding) -> None:
        """On record and durable, beside the earlier ones; the same one twice only once."""
        known = [(f.kind, f.text) for f in self.state.open_findings()]
        if (finding.kind, finding.text) not in known and len(self.state.findings) < CONTRADICTIONS_MAX:
            self.state.findings.append(finding)
        self.save()

    def acknowledge(self) -> int:
        """Somebody has taken note of what was found; it stays on record. How many these were."""
        waiting = self.state.open_findings()
        self.state.findings = [msgspec.structs.replace(f, acknowledged=True) for f in self.state.findings]
        self.save()
        return len(waiting)

    def save(self) -> None:
        """Everything added so far is durable, and counted only then."""
        try:
            if self._unsaved:
                records = b"".join(record_of(one) for one in self._unsaved)
                at = (self.seen.count - len(self._unsaved)) * RECORD_BYTES
                written = 0
                while written < len(records):
                    written += os.pwrite(self._history, records[written:], at + written)
                os.fsync(self._history)
                self._unsaved = []
            state, seen = self.state, self.seen
            state.count, state.sequence_end = seen.count, seen.sequence_end
            state.history, state.state_root = prefixed_hex(seen.history), prefixed_hex(seen.state_root)
            state.head_sequence, state.voided = seen.head_sequence, list(seen.voided)
            # The durable point: what is counted here was verified, and is never verified again.
            write_whole(self.path, msgspec.json.format(msgspec.json.encode(state), indent=1) + b"\n")
        except OSError as error:
            raise StateRefused(f"{self.path} cannot be written: {error.strerror}") from error


def _locked(path: Path) -> int:
    """The history, open and ours alone."""
    try:
        with open_private(history_path(path), "ab"):
            pass  # made, if it is not there, for its owner alone
        sync_folder(path.parent)
        history = os.open(history_path(path), os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise StateRefused(f"{history_path(path)}: {error.strerror}") from error
    try:
        fcntl.flock(history, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(history)
        raise StateRefused(f"another audit follow works on {path}") from None
    return history


def finding_of(
    wrong: Contradiction, found_at: str, url: str, verified: bytes | None, shown: bytes | None
) -> Finding:
    """With both versions, as far as they are of a size that can be kept."""
    return Finding(
        wrong.kind, wrong.text, found_at, url, wrong.first, wrong.last, _kept(verified), _kept(shown)
    )


def _kept(raw: bytes | None) -> msgspec.Raw:
    if raw is None:
        return msgspec.Raw(b"null")
    if len(raw) > EVIDENCE_BYTES_MAX:
        return msgspec.Raw(msgspec.json.encode(f"{len(raw)} bytes: too many to keep"))
    return msgspec.Raw(raw)
