"""The form of an export: which files there are, what stands in them, and what makes it finished.

    export.json                   what was asked for, how far each stream goes; written first, never changed
    progress.jsonl                the files that are complete; only while the export is not finished
    manifest.json                 every file with its SHA-256; written last, it makes the export finished
    sequencer.json                /.well-known/ves-sequencer as shown
    agent-keys.jsonl              every key of every agent that signed an event, with revocation and rotation
    schemas.jsonl                 the tenant's event schemas
    policy.json, audit.jsonl      from the admin listener, if it was named
    streams/STORE/events-N.jsonl  1,000 numbers (``file_events``) from N on, a line each, with receipts
    streams/STORE/commitments.jsonl   every commitment that reaches into it, with all its leaf hashes
    streams/STORE/validity-proofs.jsonl   the proofs that were submitted about these, with their bytes
    streams/STORE/legacy-events-N.jsonl, legacy-commitments.jsonl   the same of the store's unsigned events

Of a store without signed events, or without unsigned ones, there are no files of that kind.

Alone knows these names. A file appears complete or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec

from transport.client.errors import BadAnswer, ClientError
from transport.client.wire import WireCommitment, decode
from ves.constants import INTEGER_MAX
from ves.following import beyond_voided

FORMAT = "ves-export-1"
PLAN, PROGRESS, MANIFEST = "export.json", "progress.jsonl", "manifest.json"
SEQUENCER, AGENT_KEYS, SCHEMAS = "sequencer.json", "agent-keys.jsonl", "schemas.jsonl"
POLICY, AUDIT_ENTRIES = "policy.json", "audit.jsonl"
FILE_EVENTS = 1000
FILES_LACKING_MAX = 1000
"""In the manifest, of those that the plan demands; whoever lacks more has another plan."""
LINE_BYTES_MAX = 64 * 1024 * 1024
_READ_BYTES = 1024 * 1024


Count = Annotated[int, msgspec.Meta(ge=0, le=INTEGER_MAX)]


class Span(msgspec.Struct, frozen=True):
    """``first`` to ``through`` are exported; ``through`` is ``first - 1`` for none."""

    first: Annotated[int, msgspec.Meta(ge=1, le=INTEGER_MAX)]
    through: Count
    head_sequence: Count

    def covers_all(self) -> bool:
        return not self.head_sequence or (self.first, self.through) == (1, self.head_sequence)

    def reaches_over(self, first: int, last: int) -> bool:
        """Whether everything from ``first`` to ``last`` is exported."""
        return self.first <= first and last <= self.through


class PlannedStream(Span, frozen=True, kw_only=True):
    """A store: its signed events, and beside them ``legacy``, its unsigned ones with numbers of their own."""

    store_id: str
    legacy: Span
    voided: list[tuple[Count, Count]] = []
    """Signed numbers, first and last, that were declared void after a restore: nobody's, and no gap."""


class Plan(msgspec.Struct, frozen=True):
    format: str
    tenant_id: str
    origin: str
    begun_at: str
    with_payloads: bool
    with_admin: bool
    """Policy and audit entries too."""
    streams: list[PlannedStream]
    file_events: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = FILE_EVENTS
    """Numbers in one file."""


class ListedFile(msgspec.Struct, frozen=True):
    file: str
    sha256: str
    bytes: int
    lines: int


class Manifest(msgspec.Struct, frozen=True):
    format: str
    tenant_id: str
    finished_at: str
    plan_sha256: str
    files: list[ListedFile]
    not_included: list[str]


class ExportedCommitment(WireCommitment, frozen=True, kw_only=True):
    leaf_hashes: list[str]


class LegacyEnvelope(msgspec.Struct, frozen=True):
    event_id: str
    tenant_id: str
    store_id: str
    entity_type: str
    entity_id: str
    event_type: str
    payload_hash: str
    created_at: str
    sequence_number: int
    source_agent: str
    payload: msgspec.Raw = msgspec.Raw(b"")


class ExportedLegacyEvent(msgspec.Struct, frozen=True):
    envelope: LegacyEnvelope
    sequenced_at: str


class ExportedLegacyCommitment(msgspec.Struct, frozen=True):
    """As listed, with the state roots that the single one has."""

    batch_id: str
    tenant_id: str
    store_id: str
    events_root: str
    event_count: int
    sequence_start: int
    sequence_end: int
    prev_state_root: str
    new_state_root: str


class ExportedProof(msgspec.Struct, frozen=True):
    proof_id: str
    batch_id: str
    tenant_id: str
    store_id: str
    proof_type: str
    proof_version: int
    proof_hash: str
    public_inputs: dict[str, Any] | None
    proof_b64: str


class ExportedKey(msgspec.Struct, frozen=True, rename="camel"):
    """As the server lists it; its other members are kept in the file."""

    agent_id: str
    key_id: int
    public_key: str
    revoked_at: str | None = None
    retires_at: str | None = None


class DamagedExport(ClientError):
    """The folder is no export, or not what its manifest says."""


def events_file(store_id: str, first: int) -> str:
    return f"streams/{store_id}/events-{first:012d}.jsonl"


def commitments_file(store_id: str) -> str:
    return f"streams/{store_id}/commitments.jsonl"


def proofs_file(store_id: str) -> str:
    return f"streams/{store_id}/validity-proofs.jsonl"


def legacy_events_file(store_id: str, first: int) -> str:
    return f"streams/{store_id}/legacy-events-{first:012d}.jsonl"


def legacy_commitments_file(store_id: str) -> str:
    return f"streams/{store_id}/legacy-commitments.jsonl"


def first_in(name: str) -> int | None:
    """The number from which on a file holds events; None for a file of something else."""
    kind, dash, number = name.rpartition("-")
    return int(number.removesuffix(".jsonl")) if dash and kind.endswith("events") else None


def numbers_due(first: int, last: int, voided: Iterable[tuple[int, int]]) -> Iterator[int]:
    """Those from ``first`` to ``last`` that are somebody's."""
    number = first
    for void_first, void_last in sorted(voided):
        yield from range(number, min(void_first, last + 1))
        number = max(number, void_first, void_last + 1)
    yield from range(number, last + 1)


def event_starts(span: Span, voided: Iterable[tuple[int, int]], file_events: int) -> Iterator[int]:
    """From which numbers on there are files: none of nothing but void numbers."""
    number = beyond_voided(span.first, voided)
    while number <= span.through:
        start = number - (number - span.first) % file_events
        yield start
        number = beyond_voided(start + file_events, voided)


def files_of(plan: Plan) -> list[str]:
    """Every file, in the order in which they are written. The agents of a tenant are known only after its
    events, so their keys come last."""
    found = [SEQUENCER, SCHEMAS]
    if plan.with_admin:
        found += [POLICY, AUDIT_ENTRIES]
    for stream in plan.streams:
        store = stream.store_id
        if stream.head_sequence:
            starts = event_starts(stream, stream.voided, plan.file_events)
            found += [events_file(store, n) for n in starts]
            found += [commitments_file(store), proofs_file(store)]
        if stream.legacy.head_sequence:
            found += [legacy_events_file(store, n) for n in event_starts(stream.legacy, (), plan.file_events)]
            found.append(legacy_commitments_file(store))
    return [*found, AGENT_KEYS]


def count_of_files(plan: Plan) -> int:
    """How many ``files_of`` would name: a plan of a few bytes may demand more than a memory holds."""
    of_events = (-(-(s.through - s.first + 1) // plan.file_events) for s in plan.streams)
    return sum(of_events) + len(plan.streams)


def digest_of(path: Path) -> ListedFile:
    """What a manifest says of this file. OSError if it cannot be read."""
    digest, size, lines = hashlib.sha256(), 0, 0
    with path.open("rb") as file:
        while part := file.read(_READ_BYTES):
            digest.update(part)
            size += len(part)
            lines += part.count(b"\n")
    return ListedFile(path.name, digest.hexdigest(), size, lines)


def read_plan(folder: Path) -> Plan:
    path = folder / PLAN
    plan = decode(_bytes(path), Plan, str(path))
    if plan.format != FORMAT:
        raise DamagedExport(f"{path}: format {plan.format!r} is not {FORMAT}; a newer release may read it")
    return plan


def read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not path.exists():
        raise DamagedExport(f"{path} is missing: the export is not finished (run it again), or was cut")
    return decode(_bytes(path), Manifest, str(path))


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each line. BadAnswer for one that is not whole."""
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LINE_BYTES_MAX), b""), 1):
            if not line.endswith(b"\n"):
                raise BadAnswer(f"{path}:{number}: the line is cut off")
            yield number, line[:-1]


def _bytes(path: Path) -> bytes:
    if path.is_symlink():
        raise DamagedExport(f"{path}: it is a symbolic link, an export has none")
    try:
        return path.read_bytes()
    except OSError as error:
        raise DamagedExport(f"{path}: {error.strerror}") from error
