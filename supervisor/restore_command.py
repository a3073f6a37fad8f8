"""``sequencer restore`` and ``sequencer restore confirm``: from a backup to a server, and when it may write.

A restore works in an empty DATA_DIR that carries a mark until the last step: one that was killed is begun
anew and never served. What it leaves is read-only by a row in the restored database itself. The confirmation
compares what others can show with what is there; what it decides on is ``supervisor.comparison``'s.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import trio

from actors.faults import arm_from_environment, checkpoint
from actors.given_numbers import FILE as GIVEN_NUMBERS
from actors.given_numbers import GivenNumbers
from config.files import open_private, sync_folder
from config.secrets import load_receipt_seeds, prepare_data_dir
from config.settings import Settings
from journal import backup_file, base_backup
from journal.aio import open_loop
from journal.backup_file import Manifest
from journal.embedded import EmbeddedPostgres
from journal.embedded_cluster import EMBEDDED_LOGINS, Cluster, DataDirLock, EmbeddedPostgresError
from journal.migrate import migrate, migrations
from supervisor.backup_command import describe, passphrase_of
from supervisor.comparison import Comparison, Evidence, compare, shown
from supervisor.shell import (
    FORMATS,
    RESTORING,
    Database,
    StartRefused,
    database_beside,
    enter_journal,
    patiently,
    read_settings,
    readably,
)
from transport.cli.backup import Confirmation
from ves.encoding import uuid_bytes, uuid_text
from ves.records import Uuid
from ves.timestamps import parse_rfc3339, utc_text

WHAT_NEXT = """\
The server starts read-only on it. Before it may write again, compare it with what agents and auditors kept:
  sequencer restore confirm --receipts FILE-OR-FOLDER … --heads FILE --reason "…"
and afterwards take a new backup."""


def restore_command(
    file: Path, data_dir: Path | None, wal: Path | None, latest: bool, until: str | None
) -> int:
    """Restore a backup into an empty DATA_DIR; with the kept WAL up to a time, or all there is."""
    return readably(partial(_restore, file, data_dir, wal, latest, until))


def confirm_command(asked: Confirmation) -> int:
    """Compare a restored database with what others kept, and let it write again."""
    return readably(partial(_confirm, asked))


@dataclass(frozen=True)
class _Wish:
    file: Path
    data_dir: Path
    wal: Path | None
    latest: bool
    until: str | None

    def settings(self) -> dict[str, str]:
        return base_backup.recovering(self.wal, self.until, latest=self.latest)

    def told(self) -> str:
        if self.until is not None:
            return f"up to {self.until}"
        return "and all kept WAL" if self.latest else "to the backup's own end"


def _restore(file: Path, data_dir: Path | None, wal: Path | None, latest: bool, until: str | None) -> None:
    settings = read_settings()
    arm_from_environment(os.environ)
    wal = wal or settings.backup_wal_dir
    if (latest or until is not None) and wal is None:
        raise StartRefused("--to-latest and --to-time need --wal: the folder that BACKUP_WAL_DIR named")
    if (latest or until is not None) and wal is not None and not wal.is_dir():
        raise StartRefused(f"--wal: {wal} is no folder")
    passphrase = passphrase_of(settings)
    manifest = backup_file.read_manifest(file, passphrase)
    wish = _Wish(file, data_dir or settings.data_dir, wal, latest, _checked_time(until, manifest))
    if manifest.schema_version > len(migrations()):
        raise StartRefused(
            f"{file} has schema {manifest.schema_version}, this version knows {len(migrations())}: "
            f"restore with sequencer {manifest.version} or newer"
        )
    prepare_data_dir(wish.data_dir)
    lock = DataDirLock(wish.data_dir)
    try:
        with _marked(wish.data_dir):
            cluster = Cluster(wish.data_dir, settings.pg_bin)
            if str(cluster.major) != manifest.postgresql:
                raise StartRefused(
                    f"{file} was made by PostgreSQL {manifest.postgresql}, these binaries are "
                    f"{cluster.major}: set PG_BIN to PostgreSQL {manifest.postgresql}"
                )
            _unpack(wish, passphrase, cluster)
            lock.release()  # PostgreSQL's keeper takes it
            restoration_id = uuid.uuid4().bytes
            head = _replay(settings, wish, manifest, restoration_id)
            lock = DataDirLock(wish.data_dir)
    finally:
        lock.release()
    print(f"restored {file} into {wish.data_dir} {wish.told()}: {head}")
    print(describe(manifest))
    print(WHAT_NEXT)


def _checked_time(until: str | None, manifest: Manifest) -> str | None:
    if until is None:
        return None
    try:
        wanted = parse_rfc3339(until)
    except ValueError as error:
        raise StartRefused(
            f"--to-time {until}: {error} (RFC 3339, for example {manifest.ended_at})"
        ) from None
    if wanted < parse_rfc3339(manifest.ended_at):
        raise StartRefused(
            f"--to-time {until} is before this backup ended ({manifest.ended_at}): take an earlier backup"
        )
    return utc_text(wanted)


@contextmanager
def _marked(data_dir: Path) -> Iterator[None]:
    """The folder is empty at first, or an unfinished restore's, which is removed; marked until the end."""
    mark = data_dir / RESTORING
    if mark.exists():
        _clear(data_dir)
    elif any(found.name != "lock" for found in data_dir.iterdir()):
        raise StartRefused(f"{data_dir} is not empty: restore into a new folder (--data-dir)")
    mark.touch(mode=0o600)
    sync_folder(data_dir)
    checkpoint("restore.marked")
    try:
        yield
    except BaseException:
        _clear(data_dir)  # no keys are left where nobody looks for them
        mark.unlink()
        raise
    checkpoint("restore.recorded")
    mark.unlink()
    sync_folder(data_dir)
    checkpoint("restore.done")


def _clear(data_dir: Path) -> None:
    for left in data_dir.iterdir():
        if left.name in ("lock", RESTORING):
            continue
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def _unpack(wish: _Wish, passphrase: str | None, cluster: Cluster) -> None:
    places = {backup_file.KEYS: wish.data_dir / "keys", backup_file.POSTGRES: cluster.data}
    places[backup_file.KEYS].mkdir(mode=0o700)
    cluster.root.mkdir(mode=0o700)
    cluster.data.mkdir(mode=0o700)

    def place_of(name: str) -> Path | None:
        top, _, rest = name.partition("/")
        return places[top] / rest if top in places and rest else None

    def make(name: str) -> None:
        place = place_of(name)
        if place is not None:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)

    def open_file(name: str) -> BinaryIO | None:
        place = place_of(name)
        if place is None:
            return None
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return open_private(place, "xb")

    backup_file.read(wish.file, passphrase, make, open_file)
    _sync(
        places[backup_file.KEYS]
    )  # PostgreSQL, which finds no clean stop, syncs its own files when it starts
    (cluster.data / "recovery.signal").touch(mode=0o600)
    cluster.hand_over(cluster.root)
    base_backup.verify(cluster, cluster.data)
    (cluster.data / base_backup.MANIFEST).unlink()
    checkpoint("restore.unpacked")


def _replay(settings: Settings, wish: _Wish, manifest: Manifest, restoration_id: Uuid) -> str:
    """PostgreSQL replays, and the row that keeps the next start read-only is written. Answers what is
    there."""
    postgres = EmbeddedPostgres(
        wish.data_dir,
        pg_bin=settings.pg_bin,
        more_settings=wish.settings(),
        ready_deadline_s=base_backup.RECOVERY_DEADLINE_S,
    )
    try:
        postgres.start()
    except EmbeddedPostgresError as error:
        raise StartRefused(
            f"PostgreSQL could not replay {wish.file.name}: {error}{_hint(str(error))}"
        ) from None
    try:
        checkpoint("restore.replayed")
        details = f"backup of {manifest.began_at} {wish.told()}"
        where = Database(postgres.app_dsn, postgres.owner_dsn, EMBEDDED_LOGINS)
        return trio.run(_record, settings, where, manifest, restoration_id, details)
    finally:
        postgres.stop()


def _hint(said: str) -> str:
    if "recovery ended before configured recovery target" in said:
        return "; nothing was written that late, or WAL is missing: use --to-latest"
    return ""


async def _record(
    settings: Settings, where: Database, manifest: Manifest, restoration_id: Uuid, details: str
) -> str:
    assert where.admin_dsn is not None
    async with open_loop(), AsyncExitStack() as stack:
        await patiently(partial(migrate, where.admin_dsn, where.logins, checkpoint=checkpoint))
        node_id = uuid_bytes(manifest.sequencer_id)
        enter = partial(enter_journal, stack, settings, node_id, where, though_restored=True)
        journal = await patiently(enter)
        await patiently(partial(journal.record_restoration, restoration_id, "backup", details))
        return await shown(journal)


def _sync(folder: Path) -> None:
    for file in folder.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    sync_folder(folder)


# ---- confirming -----------------------------------------------------------------------------------------


def _confirm(asked: Confirmation) -> None:
    settings = read_settings()
    arm_from_environment(os.environ)
    node_id, _ = load_receipt_seeds(settings, settings.data_dir, FORMATS)
    own = GivenNumbers(settings.data_dir / GIVEN_NUMBERS)
    evidence = Evidence.read(asked, own.load())
    with database_beside(settings) as dsn:
        result = trio.run(_compare_and_confirm, settings, dsn, node_id, asked, evidence)
    # From here on the server may write: at its next start.
    print(f"confirmed: {result.summary()}")
    for void in result.voids:
        print(
            f"void: store {uuid_text(void.store_id)} numbers {void.first_number} to {void.last_number}, "
            "never given again"
        )
    print("restart the server: it writes again from its next start on; then take a new backup")


async def _compare_and_confirm(
    settings: Settings, dsn: str, node_id: Uuid, asked: Confirmation, evidence: Evidence
) -> Comparison:
    async with open_loop(), AsyncExitStack() as stack:
        where = Database(dsn, None)
        enter = partial(enter_journal, stack, settings, node_id, where, though_restored=True)
        journal = await patiently(enter)
        pending = await patiently(journal.pending_restoration)
        if pending is None:
            raise StartRefused(
                "nothing waits for a confirmation: this database was not restored, or it is done"
            )
        result = await compare(journal, evidence, asked)
        for line in result.lines():
            print(line)
        result.must_allow(asked)
        await journal.confirm_restoration(
            pending.restoration_id,
            asked.reason,
            result.summary(),
            result.voids,
            result.audit(pending.restoration_id, asked.reason),
        )
        return result
