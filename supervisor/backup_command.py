"""``sequencer backup`` and ``backup verify``: a copy of the embedded database and the keys, in one file.

The order is what makes it whole: heads are read first, so everything acknowledged before is in the copy; keys
are taken last, so that every key the copy speaks of is there. Works beside a running server or without one.
A backup that was killed leaves no file under its name.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

import msgspec
import trio
from pydantic import SecretStr

from actors.faults import arm_from_environment, checkpoint
from config.files import open_private, write_whole
from config.own_keys import parsed_key
from config.secrets import load_receipt_seeds
from config.settings import Settings
from config.tenant_rings import parse_rings
from journal import backup_file, base_backup
from journal.aio import open_loop
from journal.backup_file import GivenKey, Manifest, PublishedKey, Written
from journal.embedded_cluster import Cluster
from journal.migrate import migrations
from journal.postgres import PostgresJournal
from journal.restorations import KnownHead
from supervisor.shell import (
    FORMATS,
    Database,
    StartRefused,
    database_beside,
    enter_journal,
    patiently,
    read_settings,
    readably,
)
from ves.encoding import prefixed_hex, uuid_text
from ves.records import Uuid
from ves.timestamps import utc_text

LAST_BACKUP = "last-backup.json"
"""Under DATA_DIR: what the last good one was, for whoever checks its age."""
HEADS_PAGE = 1000
PASSPHRASE_CHARACTERS_MIN = 16
NO_PASSPHRASE = (
    "a backup holds keys, so it is encrypted: set BACKUP_PASSPHRASE_FILE to a file (chmod 600) with at least "
    f"{PASSPHRASE_CHARACTERS_MIN} characters (openssl rand -base64 32), or BACKUP_PASSPHRASE_COMMAND. "
    "--unencrypted, for a place that is encrypted by other means"
)


class LastBackup(msgspec.Struct, frozen=True):
    file: str
    began_at: str
    ended_at: str
    bytes: int
    sha256: str
    encrypted: bool
    streams: int
    events: int


def backup_command(to: Path, unencrypted: bool) -> int:
    """Copy the embedded database and the keys into one encrypted file."""
    return readably(partial(_backup, to, unencrypted))


def verify_backup_command(file: Path) -> int:
    """Read a backup to its last byte and hold every file in it against its manifest."""
    return readably(partial(_verify, file))


def passphrase_of(settings: Settings) -> str | None:
    """Raises SecretsError when its file or command gives none."""
    given = settings.backup_passphrase
    return None if given is None else given.get_secret_value().strip()


def describe(manifest: Manifest) -> str:
    lines = [
        f"sequencer {manifest.sequencer_id}, {manifest.streams} streams, {manifest.events} events "
        f"acknowledged before {manifest.began_at}; ended {manifest.ended_at}",
        f"PostgreSQL {manifest.postgresql}, schema {manifest.schema_version}, made by {manifest.version}",
    ]
    lines += [
        f"not in it: {key.setting} ({key.fingerprint}) comes from elsewhere; keep it apart"
        for key in manifest.keys_not_included
    ]
    return "\n".join(lines)


def _backup(to: Path, unencrypted: bool) -> None:
    settings = read_settings()
    arm_from_environment(os.environ)
    if settings.database_url is not None:
        raise StartRefused(
            "backup is for the embedded database; DATABASE_URL names a server of your own, whose backups are "
            "described in docs/backup.md"
        )
    passphrase = None if unencrypted else _good_passphrase(settings)
    with _only_one(settings.data_dir), database_beside(settings) as dsn:
        path = _named(to, encrypted=not unencrypted)
        written, manifest = _write(settings, dsn, path, passphrase)
    _note(settings.data_dir, written, manifest, encrypted=not unencrypted)
    print(f"backup {written.path}: {written.bytes} bytes, sha256 {written.sha256}")
    print(describe(manifest))


def _good_passphrase(settings: Settings) -> str:
    passphrase = passphrase_of(settings)
    if passphrase is None or len(passphrase) < PASSPHRASE_CHARACTERS_MIN:
        raise StartRefused(NO_PASSPHRASE)
    return passphrase


def _named(to: Path, *, encrypted: bool) -> Path:
    if not to.is_dir():
        if not to.parent.is_dir():
            raise StartRefused(f"--to {to}: there is no folder {to.parent}")
        if to.exists():
            raise StartRefused(f"--to {to} is there already: choose another name, or name a folder")
        return to.absolute()
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return (to / f"sequencer-{stamp}.tar.gz{'.age' if encrypted else ''}").absolute()


def _write(settings: Settings, dsn: str, path: Path, passphrase: str | None) -> tuple[Written, Manifest]:
    cluster = Cluster(settings.data_dir, settings.pg_bin)
    heads = settings.data_dir / ".backup-heads.tmp"
    try:
        began_at = utc_text(time.time_ns() // 1000)
        node_id, _ = load_receipt_seeds(settings, settings.data_dir, FORMATS)
        known = trio.run(_look, settings, dsn, node_id, heads)
        checkpoint("backup.begun")
        copy = base_backup.take(cluster)
        checkpoint("backup.copied")
        manifest = Manifest(
            format=backup_file.FORMAT,
            version=version("ves-sequencer"),
            sequencer_id=uuid_text(node_id),
            began_at=began_at,
            ended_at=utc_text(time.time_ns() // 1000),
            postgresql=str(cluster.major),
            schema_version=len(migrations()),
            timeline=copy.timeline,
            start_lsn=copy.start_lsn,
            streams=known.streams,
            events=known.events,
            receipt_keys=known.receipt_keys,
            at_rest_key_ids=known.at_rest_key_ids,
            keys_not_included=list(given_keys(settings)),
        )
        written = backup_file.write(
            path,
            manifest,
            heads,
            settings.data_dir / "keys",
            copy.folder,
            passphrase,
            checkpoint=checkpoint,
        )
    finally:
        heads.unlink(missing_ok=True)
        shutil.rmtree(cluster.root / "backup.tmp", ignore_errors=True)
    return written, manifest


class _Known(msgspec.Struct):
    """What the database says before the snapshot begins."""

    streams: int
    events: int
    receipt_keys: list[PublishedKey]
    at_rest_key_ids: list[str]


async def _look(settings: Settings, dsn: str, node_id: Uuid, heads: Path) -> _Known:
    async with open_loop(), AsyncExitStack() as stack:
        journal = await patiently(partial(enter_journal, stack, settings, node_id, Database(dsn, None)))
        known = _Known(
            0,
            0,
            [
                PublishedKey(uuid_text(key.sequencer_id), key.key_version, prefixed_hex(key.public_key))
                for key in await journal.receipt_keys()
            ],
            [key_id.hex() for key_id in await journal.at_rest_key_ids()],
        )
        with open_private(heads, "wb") as lines:
            await _write_heads(journal, lines, known)
        return known


async def _write_heads(journal: PostgresJournal, lines: BinaryIO, known: _Known) -> None:
    after: tuple[Uuid, Uuid] | None = None
    while True:
        page = await journal.stream_heads(after=after, limit=HEADS_PAGE)
        for head in page:
            lines.write(msgspec.json.encode(_head_line(head)) + b"\n")
        known.streams += len(page)
        known.events += sum(head.head_sequence for head in page)
        if len(page) < HEADS_PAGE:
            return
        after = (page[-1].tenant_id, page[-1].store_id)


def _head_line(head: KnownHead) -> dict[str, str | int]:
    return {
        "tenant_id": uuid_text(head.tenant_id),
        "store_id": uuid_text(head.store_id),
        "head_sequence": head.head_sequence,
        "committed_through": head.committed_through,
        "state_root": prefixed_hex(head.state_root),
    }


def given_keys(settings: Settings) -> Iterator[GivenKey]:
    """Secrets that lie elsewhere than in DATA_DIR/keys, by what can be said of them without telling them."""
    for name in ("bootstrap_admin_api_key", "jwt_secret"):
        random: SecretStr | None = getattr(settings, name)
        if random is not None:
            digest = hashlib.sha256(random.get_secret_value().strip().encode()).hexdigest()
            yield GivenKey(name.upper(), f"sha256 {digest[:16]}")
    for name in ("ves_sequencer_signing_key", "ves_sequencer_signing_key_previous"):
        signing: SecretStr | None = getattr(settings, name)
        if signing is not None:
            public = FORMATS.public_key_of(_key(signing))
            yield GivenKey(name.upper(), f"public key {prefixed_hex(public)}")
    for name in ("payload_encryption_keys", "payload_encryption_key"):
        given: SecretStr | None = getattr(settings, name)
        if given is not None:
            words = given.get_secret_value().replace(",", " ").split()
            yield GivenKey(name.upper(), _told(_key_ids(words, name.upper())))
    by_tenant, name = settings.payload_encryption_keys_by_tenant, "PAYLOAD_ENCRYPTION_KEYS_BY_TENANT"
    if by_tenant is not None:
        rings = parse_rings(by_tenant.get_secret_value().strip(), name, _key_ids)
        for tenant_id, ids in rings.items():
            yield GivenKey(name, f"tenant {uuid_text(tenant_id)}: {_told(ids)}")


def _key_ids(words: list[str], what: str) -> tuple[bytes, ...]:
    return tuple(FORMATS.key_id(parsed_key(word, what, FORMATS.parse_key)) for word in words)


def _told(ids: tuple[bytes, ...]) -> str:
    return f"key ids {', '.join(one.hex() for one in ids)}"


def _key(secret: SecretStr) -> bytes:
    return FORMATS.parse_key(secret.get_secret_value().strip())


@contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    """One backup of a DATA_DIR at a time; the kernel lets go when we end, however we end."""
    if not data_dir.is_dir():
        raise StartRefused(f"there is no DATA_DIR {data_dir}: set it as the server has it")
    descriptor = os.open(data_dir / "backup.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise StartRefused(f"another backup of {data_dir} is at work") from None
    finally:
        os.close(descriptor)


def _note(data_dir: Path, written: Written, manifest: Manifest, *, encrypted: bool) -> None:
    last = LastBackup(
        str(written.path),
        manifest.began_at,
        manifest.ended_at,
        written.bytes,
        written.sha256,
        encrypted,
        manifest.streams,
        manifest.events,
    )
    write_whole(data_dir / LAST_BACKUP, msgspec.json.encode(last) + b"\n")


def _verify(file: Path) -> None:
    settings = read_settings()
    counted = 0

    def count(name: str) -> None:
        nonlocal counted
        counted += 1

    manifest = backup_file.read(file, passphrase_of(settings), lambda name: None, count)
    print(f"{file} is whole: {counted} files hold against their manifest")
    print(describe(manifest))
