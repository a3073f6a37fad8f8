"""Archived ranges as files: one per range, durable before a row leaves its table, listed in a manifest.

    FOLDER/TABLE-TENANT-STORE-START-END.jsonl    {"kind": "range", "table", "commitment"}, one {"kind":
                                                 "event", "row"} per number, {"kind": "end", "events"}
    FOLDER/manifest.jsonl                        {"file", "sha256", "bytes", "events"}, one line per file

Rows are as stored: hashes and signatures verify, payloads stay sealed under the at-rest key. A file appears
complete or not at all; one that the manifest does not name was begun by a run that died and is written anew.
Alone knows the names and the form. Never overwrites a file of the manifest: one that differs is refused.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from config.files import open_private, sync_folder
from journal.archive import DueRange, EventTable, StreamName
from journal.units import Checkpoint
from ves.encoding import uuid_text

MANIFEST = "manifest.jsonl"
DRAFT = ".draft"


class ArchiveFolderError(Exception):
    """The folder cannot take the files: nothing that was to be in them has been moved."""


class _Listed(msgspec.Struct):
    file: str
    sha256: str
    bytes: int
    events: int


class ArchiveFolder:
    """One folder of archive files. Raises ArchiveFolderError."""

    def __init__(self, path: Path, checkpoint: Checkpoint) -> None:
        self._path = path
        self._checkpoint = checkpoint
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)  # until the process ends
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for draft in path.glob(f"*events-*-*{DRAFT}"):  # of a run that died
                draft.unlink()
            self._listed = self._read_manifest()
        except BlockingIOError:
            raise ArchiveFolderError(f"{path}: another run writes into this folder") from None
        except OSError as error:
            raise _folder_error(path, error) from error

    async def write(
        self, table: EventTable, stream: StreamName, due: DueRange, commitment: str, rows: AsyncIterator[str]
    ) -> Path:
        """The range is in its file and in the manifest, durably; already there, it is only checked."""
        path = self._path / (
            f"{table.name}-{uuid_text(stream.tenant_id)}-{uuid_text(stream.store_id)}-"
            f"{due.sequence_start}-{due.sequence_end}.jsonl"
        )
        try:
            listed = self._listed.get(path.name)
            if listed is not None:
                self._check(path, listed)
                return path
            entry = await self._write_file(path, table, due, commitment, rows)
            self._checkpoint("archive_file.named")
            self._append(entry)
            self._checkpoint("archive_file.listed")
        except OSError as error:
            raise _folder_error(self._path, error) from error
        return path

    async def _write_file(
        self, path: Path, table: EventTable, due: DueRange, commitment: str, rows: AsyncIterator[str]
    ) -> _Listed:
        digest, size, events = hashlib.sha256(), 0, 0
        draft = path.with_suffix(DRAFT)
        try:
            with open_private(draft, "wb") as file:

                def put(line: str) -> None:
                    nonlocal size
                    raw = line.encode() + b"\n"
                    file.write(raw)
                    digest.update(raw)
                    size += len(raw)

                put(f'{{"kind":"range","table":"{table.name}","commitment":{commitment}}}')
                async for row in rows:
                    put(f'{{"kind":"event","row":{row}}}')
                    events += 1
                if events != due.sequence_end - due.sequence_start + 1:
                    raise ArchiveFolderError(
                        f"range {due.sequence_start} to {due.sequence_end} has {events} rows: it is not moved"
                    )
                put(f'{{"kind":"end","events":{events}}}')
                file.flush()
                os.fsync(file.fileno())
            self._checkpoint("archive_file.written")
            draft.replace(path)
            sync_folder(self._path)
        finally:
            draft.unlink(missing_ok=True)
        return _Listed(path.name, digest.hexdigest(), size, events)

    def _append(self, entry: _Listed) -> None:
        """Durable: only then are rows moved."""
        with open_private(self._path / MANIFEST, "ab") as file:
            file.write(msgspec.json.encode(entry) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self._path)
        self._listed[entry.file] = entry

    def _read_manifest(self) -> dict[str, _Listed]:
        """Without a last line that was cut off by a crash: its file is written and listed anew."""
        path = self._path / MANIFEST
        raw = path.read_bytes() if path.exists() else b""
        whole, _, rest = raw.rpartition(b"\n")
        if rest:
            os.truncate(path, len(raw) - len(rest))
        try:
            entries = [msgspec.json.decode(line, type=_Listed) for line in whole.splitlines()]
        except msgspec.DecodeError as wrong:
            raise ArchiveFolderError(f"{path} is damaged: {wrong}; use another --to folder") from None
        return {entry.file: entry for entry in entries}

    def _check(self, path: Path, listed: _Listed) -> None:
        with path.open("rb") as file:
            as_listed = hmac.compare_digest(hashlib.file_digest(file, "sha256").hexdigest(), listed.sha256)
        if not as_listed:
            raise ArchiveFolderError(
                f"{path} is not what {MANIFEST} says: use another --to folder and keep this as evidence"
            )


def _folder_error(path: Path, error: OSError) -> ArchiveFolderError:
    return ArchiveFolderError(f"{error.filename or path}: {error.strerror or error}")
