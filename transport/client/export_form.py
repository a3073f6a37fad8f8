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

Alone knows these names. A file appears complete or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from transport.client.errors import BadAnswer, ClientError
from transport.client.wire import WireCommitment, decode

FORMAT = "ves-export-1"
PLAN, PROGRESS, MANIFEST = "export.json", "progress.jsonl", "manifest.json"
SEQUENCER, AGENT_KEYS, SCHEMAS = "sequencer.json", "agent-keys.jsonl", "schemas.jsonl"
POLICY, AUDIT_ENTRIES = "policy.json", "audit.jsonl"
FILE_EVENTS = 1000
FILES_LACKING_MAX = 1000
"""In the manifest, of those that the plan demands; whoever lacks more has another plan."""
LINE_BYTES_MAX = 64 * 1024 * 1024
_READ_BYTES = 1024 * 1024


class PlannedStream(msgspec.Struct, frozen=True):
    """``first`` to ``through`` are exported; ``through`` is ``first - 1`` for none."""

    store_id: str
    first: Annotated[int, msgspec.Meta(ge=1)]
    through: int
    head_sequence: int


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


def files_of(plan: Plan) -> list[str]:
    """Every file, in the order in which they are written. The agents of a tenant are known only after its
    events, so their keys come last."""
    found = [SEQUENCER, SCHEMAS]
    if plan.with_admin:
        found += [POLICY, AUDIT_ENTRIES]
    for stream in plan.streams:
        found += [
            events_file(stream.store_id, n) for n in range(stream.first, stream.through + 1, plan.file_events)
        ]
        found.append(commitments_file(stream.store_id))
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
