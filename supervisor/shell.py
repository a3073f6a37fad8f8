"""What every command that is the house itself shares: settings, the database, patience, plain words.

A command is ``readably(work)``: what is expected to go wrong is one line on stderr and exit code 1, anything
else keeps its traceback. Alone knows how a command finds the database of a server that may be running.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import structlog
import trio
from pydantic import ValidationError

from actors.faults import checkpoint
from actors.given_numbers import Unreadable
from config.certificates import CertificateError
from config.database_tls import database_address
from config.exposure import Exposed
from config.logs import configure_logs
from config.secret_sources import SecretsError, forget
from config.secrets import Formats, load_or_make_sequencer_id
from config.settings import Settings
from journal.backup_file import BackupError
from journal.base_backup import archiving
from journal.connections import Limits
from journal.embedded import EmbeddedPostgres, embedded_dsn
from journal.embedded_cluster import EMBEDDED_LOGINS, DataDirInUse, DataDirLock, EmbeddedPostgresError
from journal.migrate import NO_LOGINS, Logins
from journal.port import JournalAway, JournalError, JournalOutcomeUnknown, JournalRefused
from journal.postgres import PostgresJournal, open_journal
from supervisor.branch import GaveUp
from supervisor.telemetry import TelemetryMissing
from ves.at_rest import key_id, parse_key
from ves.records import Uuid
from ves.signatures import Signer

RESTORING = "restoring"
"""Under DATA_DIR while a restore is at work there; whoever finds it finds half a database."""
JOURNAL_PATIENCE_S = 60.0
"""How long a start waits for a database that does not answer yet."""

FORMATS = Formats(parse_key, key_id, lambda seed: Signer(seed).public_key)

T = TypeVar("T")

log = structlog.get_logger(__name__)


class StartRefused(Exception):
    """The text is all that the operator needs to know."""


@dataclass(frozen=True)
class Database:
    """Where the journal is: our own login, and the migrations' (None: they are not ours to run)."""

    app_dsn: str = field(repr=False)
    admin_dsn: str | None = field(repr=False)
    logins: Logins = NO_LOGINS
    """To be made by the migrations."""
    anchor_dsn: str | None = field(default=None, repr=False)
    """The anchor's own login; None: there is none."""


EXPECTED = (
    StartRefused,
    BackupError,
    Unreadable,
    SecretsError,
    Exposed,
    CertificateError,
    EmbeddedPostgresError,
    JournalError,
    ValidationError,
    GaveUp,
    TelemetryMissing,
)
"""What is told in one line. Anything else is a surprise and keeps its traceback."""


def readably(work: Callable[[], None]) -> int:
    """The exit code of ``work``: 0, or 1 after the first expected error was printed."""
    told: list[str] = []
    try:
        work()
    except* EXPECTED as group:
        told += [plainly(error) for error in leaves(group)]
    if told:
        print(f"sequencer: {told[0]}", file=sys.stderr)
    return 1 if told else 0


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error


def plainly(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        problems = (
            f"{'.'.join(map(str, e['loc'])).upper()}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        return "; ".join(problems)
    return str(error)


def read_settings() -> Settings:
    settings = Settings()
    configure_logs(settings.log_level, settings.log_format)
    forget(Settings.secret_names(), os.environ)
    return settings


@contextmanager
def database(settings: Settings) -> Iterator[Database]:
    """The operator's PostgreSQL, or our own as long as we live. One sequencer per DATA_DIR either way."""
    if settings.database_url is not None:
        lock = DataDirLock(settings.data_dir)
        try:
            admin = settings.database_admin_url is not None
            anchor = settings.anchor_database_url is not None and settings.anchoring in ("inside", "dev")
            where = Database(
                database_address(settings, "database_url", os.environ),
                database_address(settings, "database_admin_url", os.environ) if admin else None,
                anchor_dsn=database_address(settings, "anchor_database_url", os.environ) if anchor else None,
            )
            del settings  # this frame lives as long as the server, and it would keep all secrets
            yield where
        finally:
            lock.release()
        return
    # Before the event loop: blocking, and it lives longer than the loop.
    postgres = embedded(settings)
    del settings
    postgres.start()
    try:
        yield Database(postgres.app_dsn, postgres.owner_dsn, EMBEDDED_LOGINS, postgres.anchor_dsn)
    finally:
        postgres.stop()


def embedded(settings: Settings) -> EmbeddedPostgres:
    """Our own on DATA_DIR, not started. Raises StartRefused when a restore into it did not end."""
    refuse_half_restored(settings.data_dir)
    wal = settings.backup_wal_dir
    if wal is not None and not wal.is_dir():
        raise StartRefused(f"BACKUP_WAL_DIR {wal} is no folder: make it, 0700, best on another disk")
    if wal is not None and wal.stat().st_mode & 0o007:
        raise StartRefused(f"BACKUP_WAL_DIR {wal} is open to others: chmod 700 {wal}")
    return EmbeddedPostgres(
        settings.data_dir,
        pg_bin=settings.pg_bin,
        more_settings={} if wal is None else archiving(wal, settings.backup_wal_timeout_secs),
        checkpoint=checkpoint,
    )


def refuse_half_restored(data_dir: Path) -> None:
    if (data_dir / RESTORING).exists():
        raise StartRefused(
            f"a restore into {data_dir} did not end: run it again, it begins anew, or remove the folder"
        )


@contextmanager
def database_beside(settings: Settings, *, admin: bool = False) -> Iterator[str]:
    """The same database for a command: that of the server which runs on DATA_DIR, or started for a moment.
    ``admin``: as a member of sequencer_admin, which DATABASE_ADMIN_URL has to be."""
    if settings.database_url is not None or (admin and settings.database_admin_url is not None):
        if admin and settings.database_admin_url is None:
            raise StartRefused(
                "this needs a login that is a member of sequencer_admin: set DATABASE_ADMIN_URL "
                "(CREATE ROLE … LOGIN IN ROLE sequencer_admin)"
            )
        yield database_address(settings, "database_admin_url" if admin else "database_url", os.environ)
        return
    if not (settings.data_dir / "postgres" / "data").exists():
        raise StartRefused("no embedded database in DATA_DIR: set DATABASE_URL as the server has it")
    postgres = embedded(settings)
    try:
        postgres.start()
    except DataDirInUse:
        yield embedded_dsn(settings.data_dir, settings.pg_bin, admin=admin)
        return
    try:
        yield postgres.admin_dsn if admin else postgres.app_dsn
    finally:
        postgres.stop()


def anchor_address(settings: Settings) -> str:
    """The anchor's own login, for a process beside the server: as given, or that of the embedded database,
    whose server must run on DATA_DIR."""
    if settings.anchor_database_url is not None:
        return database_address(settings, "anchor_database_url", os.environ)
    if not (settings.data_dir / "server.json").exists():
        raise StartRefused(
            "no server runs on DATA_DIR: the anchor's database is the embedded one of a running server, or "
            "that of ANCHOR_DATABASE_URL"
        )
    return embedded_dsn(settings.data_dir, settings.pg_bin, anchor=True)


def own_sequencer_id(settings: Settings) -> Uuid:
    """As the server of this DATA_DIR has it; made where there is none, for an anchor on a machine of its
    own."""
    return load_or_make_sequencer_id(settings, settings.data_dir, FORMATS)


async def enter_journal(
    stack: AsyncExitStack,
    settings: Settings,
    node_id: Uuid,
    where: Database,
    *,
    as_server: bool = False,
    though_restored: bool = False,
) -> PostgresJournal:
    """``as_server``: as the server's own login, which must be one that grants and triggers bind. While a
    restoration waits for its confirmation it only reads, unless ``though_restored``: for those who record it,
    confirm it, or judge it themselves."""
    journal = await stack.enter_async_context(
        open_journal(
            where.app_dsn,
            node_id=node_id,
            limits=limits_of(settings, settings.db_connections_max),
            checkpoint=checkpoint,
            as_server=as_server,
        )
    )
    if not though_restored:
        await journal.rest_until_confirmed()
    return journal


def limits_of(settings: Settings, connections_max: int) -> Limits:
    return Limits(
        connections_max=connections_max,
        unit_deadline_s=settings.db_unit_deadline_s,
        statement_timeout_s=settings.db_statement_timeout_s,
        lock_timeout_s=settings.db_lock_timeout_s,
        idle_in_transaction_timeout_s=settings.db_idle_in_transaction_timeout_s,
    )


async def patiently(unit: Callable[[], Awaitable[T]]) -> T:
    """What ``unit`` answers; while the database is away, tried again each second for a minute. So is a unit
    whose outcome is unknown: everything done at a start finds its own work when it is done twice. Not so a
    database that we will not use."""
    give_up_at = trio.current_time() + JOURNAL_PATIENCE_S
    while True:
        try:
            return await unit()
        except JournalRefused:
            raise  # no waiting helps
        except (JournalAway, JournalOutcomeUnknown) as error:
            if trio.current_time() >= give_up_at:
                text = f"the database did not answer within {JOURNAL_PATIENCE_S:.0f} s: {error}"
                raise StartRefused(text) from None
            log.warning("waiting for the database", reason=str(error))
        await trio.sleep(1)
