"""One file that holds a whole backup: a gzipped tar, encrypted as age v1. First it says what is in it.

    manifest.json                what, when, by which versions, which keys; SHA-256 of the members up to …
    heads.jsonl                  every stream's head as it was before the snapshot began
    keys/…                       DATA_DIR/keys
    postgres/backup_manifest     … this one, PostgreSQL's own, which has the SHA-256 of all that follow
    postgres/…                   the copied cluster

Alone knows this layout. A file appears under its name whole, synced and 0600, or not at all; reading it finds
every change and every cut. Never talks to a database.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol, Self, cast

import msgspec

from config.files import open_private, sync_folder
from journal.age import VERSION_LINE, AgeError, OpeningReader, SealingWriter
from journal.units import Checkpoint

FORMAT = 1
MANIFEST, HEADS, KEYS, POSTGRES = "manifest.json", "heads.jsonl", "keys", "postgres"
PG_MANIFEST = f"{POSTGRES}/backup_manifest"
MANIFEST_BYTES_MAX = 4 * 1024 * 1024
PG_MANIFEST_BYTES_MAX = 512 * 1024 * 1024
HEADER_BYTES_MAX = 64 * 1024
_GZIP = b"\x1f\x8b"
_READ_BYTES = 1024 * 1024
_NOT_IN_PG_MANIFEST = ("pg_wal/",)
"""Checked by pg_verifybackup, which reads the WAL itself."""


class BackupError(Exception):
    """The backup cannot be written, or is not what was written; the text says where and what helps."""


class PublishedKey(msgspec.Struct, frozen=True):
    sequencer_id: str
    key_version: int
    public_key: str


class GivenKey(msgspec.Struct, frozen=True):
    """A secret that came from a setting and is not in the backup."""

    setting: str
    fingerprint: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    version: str
    """Of the sequencer that made it."""
    sequencer_id: str
    began_at: str
    """Everything acknowledged before is in it."""
    ended_at: str
    """The earliest time it can be restored to."""
    postgresql: str
    schema_version: int
    timeline: int
    start_lsn: str
    streams: int
    events: int
    """Sum of the heads, as they were before it began."""
    receipt_keys: list[PublishedKey]
    at_rest_key_ids: list[str]
    keys_not_included: list[GivenKey]
    sha256: dict[str, str] = msgspec.field(default_factory=dict)
    """Of the members up to PostgreSQL's own manifest."""


@dataclass(frozen=True)
class Written:
    path: Path
    bytes: int
    sha256: str


class _PgFile(msgspec.Struct, frozen=True):
    size: int = msgspec.field(name="Size")
    path: str = msgspec.field(name="Path", default="")
    checksum: str = msgspec.field(name="Checksum", default="")
    algorithm: str = msgspec.field(name="Checksum-Algorithm", default="")


class _PgManifest(msgspec.Struct, frozen=True):
    files: list[_PgFile] = msgspec.field(name="Files")


# ---- writing --------------------------------------------------------------------------------------------


def write(
    path: Path,
    manifest: Manifest,
    heads: Path,
    keys: Path,
    cluster: Path,
    passphrase: str | None,
    *,
    checkpoint: Checkpoint,
) -> Written:
    """``path`` is whole and durable afterwards. ``passphrase`` None: not encrypted. Raises BackupError."""
    draft = path.with_name(f".{path.name}.part")
    small = {HEADS: heads} | {f"{KEYS}/{file.name}": file for file in _key_files(keys)}
    small[PG_MANIFEST] = cluster / "backup_manifest"
    manifest = msgspec.structs.replace(
        manifest, sha256={name: _digest_of(file) for name, file in small.items()}
    )
    try:
        draft.unlink(missing_ok=True)  # of a backup that was killed; nobody else writes under our lock
        with open_private(draft, "xb") as raw:
            out = _Hashing(raw)
            _pack(cast(BinaryIO, out), manifest, small, cluster, passphrase)
            raw.flush()
            os.fsync(raw.fileno())
        checkpoint("backup.written")
        os.link(draft, path)  # the name appears once, and never over another backup
        draft.unlink()
        sync_folder(path.parent)
    except FileExistsError:
        draft.unlink(missing_ok=True)
        raise BackupError(f"{path} is there already: choose another name") from None
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise BackupError(f"{path} cannot be written: {error.strerror or error}") from error
    checkpoint("backup.named")
    return Written(path, out.size, out.digest.hexdigest())


def _pack(
    out: BinaryIO, manifest: Manifest, small: dict[str, Path], cluster: Path, passphrase: str | None
) -> None:
    sealing = None if passphrase is None else SealingWriter(out, passphrase)
    packed = cast(BinaryIO, out if sealing is None else sealing)
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, compresslevel=1, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        _add_bytes(tar, MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1))
        for name, file in small.items():
            _add(tar, name, file)
        for file in sorted(cluster.rglob("*")):
            name = f"{POSTGRES}/{file.relative_to(cluster).as_posix()}"
            if name not in small:
                _add(tar, name, file)
    if sealing is not None:
        sealing.finish()


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o600
    tar.addfile(member, io.BytesIO(content))


def _add(tar: tarfile.TarFile, name: str, file: Path) -> None:
    """Plain files and folders only: the embedded cluster has nothing else."""
    member = tarfile.TarInfo(name)
    if file.is_symlink():
        raise BackupError(f"{file} is a symbolic link: table spaces elsewhere cannot be backed up so")
    if file.is_dir():
        member.type, member.mode = tarfile.DIRTYPE, 0o700
        tar.addfile(member)
        return
    with file.open("rb") as content:
        member.size, member.mode = os.fstat(content.fileno()).st_size, 0o600
        tar.addfile(member, content)


def _key_files(keys: Path) -> list[Path]:
    """Hidden ones are drafts that a crash has left."""
    found = keys.iterdir() if keys.is_dir() else ()
    return sorted(file for file in found if file.is_file() and not file.name.startswith("."))


class _Hashing:
    """What is written, counted and hashed on its way."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._out.write(data)

    def flush(self) -> None:
        self._out.flush()


# ---- reading --------------------------------------------------------------------------------------------


class Sink(Protocol):
    """Where members go: told each one's name, answers a file to write into (None: it is only checked)."""

    def __call__(self, name: str, /) -> BinaryIO | None: ...


@dataclass
class _Expected:
    """What is known of members before they come."""

    sha256: dict[str, str]
    missing: set[str] = field(default_factory=set)


def is_encrypted(path: Path) -> bool:
    with _opened(path) as source:
        start = source.read(len(VERSION_LINE))
    if start != VERSION_LINE and not start.startswith(_GZIP):
        raise BackupError(f"{path} is no backup: neither an age file nor a gzipped one")
    return start == VERSION_LINE


def read_manifest(path: Path, passphrase: str | None) -> Manifest:
    """Its first member. Says nothing about the rest."""
    with _members(path, passphrase) as members:
        return _first(path, members)


def read(path: Path, passphrase: str | None, folder_of: Callable[[str], None], sink: Sink) -> Manifest:
    """Every member checked, in order, to the last byte. ``folder_of`` hears the folders, ``sink`` the files.
    Raises BackupError naming the place; what was handed out before is to be thrown away then."""
    with _members(path, passphrase) as members:
        manifest = _first(path, members)
        expected = _Expected(dict(manifest.sha256))
        expected.missing = set(expected.sha256)
        for member in members:
            if member.is_folder:
                folder_of(member.name)
            else:
                _take(member, expected, sink(member.name))
    if expected.missing:
        raise BackupError(f"{path}: {min(expected.missing)} is missing")
    return manifest


def _first(path: Path, members: Iterator[_Member]) -> Manifest:
    member = next(members, None)
    if member is None:
        raise BackupError(f"{path} is no backup: it is empty")
    return member.manifest


@dataclass(frozen=True)
class _Member:
    path: Path
    name: str
    size: int
    is_folder: bool
    content: BinaryIO | None

    @property
    def manifest(self) -> Manifest:
        if self.name != MANIFEST or self.content is None or self.size > MANIFEST_BYTES_MAX:
            raise BackupError(f"{self.path} is no backup: it does not begin with {MANIFEST}")
        try:
            found = msgspec.json.decode(self.content.read(), type=Manifest)
        except msgspec.DecodeError as error:
            raise BackupError(f"{self.path}: {MANIFEST}: {error}") from None
        if found.format != FORMAT:
            raise BackupError(f"{self.path} has format {found.format}; this version reads {FORMAT}")
        return found


def _take(member: _Member, expected: _Expected, target: BinaryIO | None) -> None:
    assert member.content is not None
    digest, kept = hashlib.sha256(), bytearray()
    is_pg_manifest = member.name == PG_MANIFEST
    if is_pg_manifest and member.size > PG_MANIFEST_BYTES_MAX:
        raise BackupError(f"{member.path}: {member.name} is too large to be one")
    while piece := member.content.read(_READ_BYTES):
        digest.update(piece)
        if is_pg_manifest:
            kept += piece
        if target is not None:
            target.write(piece)
    if target is not None:
        target.close()
    wanted = expected.sha256.get(member.name)
    if wanted is None and not _only_postgres_checks(member.name):
        raise BackupError(f"{member.path}: {member.name} is in no manifest")
    if wanted is not None and wanted != digest.hexdigest():
        raise BackupError(f"{member.path}: {member.name} is not what its manifest says")
    expected.missing.discard(member.name)
    if is_pg_manifest:
        files = _of_postgres(member, bytes(kept))
        expected.sha256 |= files
        expected.missing |= set(files)


def _of_postgres(member: _Member, text: bytes) -> dict[str, str]:
    try:
        found = msgspec.json.decode(text, type=_PgManifest)
    except msgspec.DecodeError as error:
        raise BackupError(f"{member.path}: {member.name}: {error}") from None
    if any(file.algorithm != "SHA256" or not file.path for file in found.files):
        raise BackupError(f"{member.path}: {member.name} names files without a SHA-256")
    return {f"{POSTGRES}/{file.path}": file.checksum for file in found.files}


def _only_postgres_checks(name: str) -> bool:
    return name.startswith(tuple(f"{POSTGRES}/{start}" for start in _NOT_IN_PG_MANIFEST))


@contextmanager
def _members(path: Path, passphrase: str | None) -> Iterator[Iterator[_Member]]:
    encrypted = is_encrypted(path)
    if encrypted and passphrase is None:
        raise BackupError(
            f"{path} is encrypted: set BACKUP_PASSPHRASE_FILE (or …_COMMAND) to what it was made with"
        )
    with _opened(path) as raw, _plainly(path):
        opening = OpeningReader(raw, passphrase) if encrypted and passphrase is not None else raw
        with gzip.GzipFile(fileobj=cast(BinaryIO, opening), mode="rb") as zipped:
            yield _walk(path, cast(BinaryIO, zipped))


class _BoundedInfo(tarfile.TarInfo):
    """Headers before a member (long names, pax records) are read into memory whole: not a stranger's."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if not (info.isreg() or info.isdir()) and info.size > HEADER_BYTES_MAX:
            raise tarfile.ReadError(f"a header of {info.size} bytes")
        return info


def _walk(path: Path, zipped: BinaryIO) -> Iterator[_Member]:
    with tarfile.open(fileobj=zipped, mode="r|", tarinfo=_BoundedInfo) as tar:
        for info in tar:
            name = PurePosixPath(info.name)
            leads_outside = name.is_absolute() or ".." in name.parts
            # One spelling only: what follows "keys/" in "keys//etc/x" would be an absolute path.
            if leads_outside or str(name) != info.name or not (info.isreg() or info.isdir()):
                raise BackupError(f"{path}: {info.name!r} may not be in a backup")
            content = cast(BinaryIO, tar.extractfile(info)) if info.isreg() else None
            yield _Member(path, info.name, info.size, info.isdir(), content)
    while zipped.read(_READ_BYTES):  # to the last byte, or a cut would not be seen
        pass


@contextmanager
def _plainly(path: Path) -> Iterator[None]:
    try:
        yield
    except AgeError as error:
        raise BackupError(f"{path}: {error}") from None
    except (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError) as error:
        raise BackupError(f"{path} was changed or cut: {error}") from None


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as source:
            yield source
    except OSError as error:
        raise BackupError(f"{path}: {error.strerror or error}") from error


def _digest_of(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
