"""The process: from an empty environment to an open door, and back in order.

Alone owns the order of start and stop, the signals, and what is said to the person at the terminal. A start
that would be insecure or could not work is refused with one readable line and exit code 1; a house that
gave up ends with code 1 and its last error, once.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import structlog
import trio
from pydantic import ValidationError

from actors.audit_commitments import ChainBroken, commit_chain
from actors.certificates import Certificates
from actors.errors import Unavailable
from actors.faults import arm_from_environment, checkpoint
from actors.security_events import SecurityEvents
from actors.token_keys import KeySet, read_token_keys
from config.certificates import CertificateError
from config.certificates import load as load_certificate
from config.exposure import Exposed, admin_address, files_of_listeners, refuse_clear_text
from config.logs import configure_logs
from config.own_keys import ReceiptSeeds
from config.secret_sources import SecretsError, forget
from config.secrets import Formats, Secrets, load_receipt_seeds, load_secrets, prepare_data_dir
from config.settings import Settings, database_address
from journal.aio import open_loop
from journal.connections import Limits
from journal.embedded import EmbeddedPostgres, embedded_dsn
from journal.embedded_cluster import APP_LOGIN, DataDirInUse, DataDirLock, EmbeddedPostgresError
from journal.migrate import migrate, migrations
from journal.port import (
    AtRestKeyMissing,
    AuditEntry,
    Journal,
    JournalAway,
    JournalError,
    JournalOutcomeUnknown,
    ReceiptKey,
    ReceiptKeyDiffers,
)
from journal.postgres import open_journal
from supervisor import receipt_keys
from supervisor.announcement import Door, announced, door_of
from supervisor.branch import GaveUp
from supervisor.telemetry import TelemetryMissing, exporting
from supervisor.tree import Built, build
from transport.cli.app import build_app
from transport.house import House
from transport.http.app import create_apps
from transport.http.serve import serve as serve_http
from ves.at_rest import key_id, parse_key
from ves.encoding import prefixed_hex, uuid_text
from ves.records import Uuid
from ves.signatures import Signer

START_PATIENCE_S = 60.0
"""How long everybody together may take to start."""
BACKLOG = 256
"""Connections that the kernel keeps until we accept them. When more come, their clients try again by
themselves; a longer queue would only be full of those who have given up."""
COLLECT_AFTER = (10_000, 20, 20)
"""Objects more than before, and younger collections, between two collections of each generation."""
JOURNAL_PATIENCE_S = 60.0
"""How long a start waits for a database that does not answer yet."""

STDOUT, STDERR = 1, 2
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
    app_login: str | None


def main() -> None:
    """The ``sequencer`` command."""
    build_app(serve=serve, migrate=migrate_command, rotate=rotate_command)()


def serve() -> int:
    """Serve until SIGTERM or SIGINT; SIGHUP reads the certificates anew. Answers the exit code."""
    return readably(_serve)


def migrate_command() -> int:
    """Bring the schema of DATABASE_ADMIN_URL (or DATABASE_URL) up to date."""
    return readably(_migrate)


def rotate_command(compromised: bool, reason: str) -> int:
    """Make, sign and record the next receipt key, whether a server runs on DATA_DIR or not."""
    return readably(partial(_rotate, compromised, reason))


def _serve() -> None:
    settings = read_settings()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no memory of ours, or of our children, reaches a disk
    refuse_clear_text(settings)
    for files in files_of_listeners(settings).values():
        load_certificate(files)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # means reload, and nothing can be reloaded yet
    arm_from_environment(os.environ)
    prepare_data_dir(settings.data_dir)
    token_keys = read_token_keys(settings)
    with exporting(os.environ), database(settings) as where:
        secrets = load_secrets(settings, settings.data_dir, FORMATS, checkpoint=checkpoint)
        receipt_keys.note_source(secrets.keys.receipt_seeds, settings.data_dir)
        fingerprint = settings.fingerprint()
        settings = settings.without_secrets()
        trio.run(run_house, settings, secrets, where, token_keys, fingerprint)


def _rotate(compromised: bool, reason: str) -> None:
    settings = read_settings()
    arm_from_environment(os.environ)
    sequencer_id, seeds = load_receipt_seeds(settings, settings.data_dir, FORMATS)
    receipt_keys.may_rotate(seeds, settings.data_dir)
    with database_beside(settings) as dsn:
        new = trio.run(run_rotation, settings, dsn, sequencer_id, seeds, compromised, reason)
    SecurityEvents().happened(
        "receipt_key_rotated", key_version=new.key_version, compromised=int(compromised)
    )
    print(f"receipt key version {new.key_version} of sequencer {uuid_text(sequencer_id)}: ", end="")
    print(f"{prefixed_hex(new.public_key)}, signed by version {new.key_version - 1}")
    print("a running server signs with it from its next start on, or now:")
    print('  sequencer actors restart house/encryptors --reason "receipt key rotated"')
    if compromised:
        print(receipt_keys.COMPROMISED)


def _migrate() -> None:
    settings = read_settings()
    dsn = settings.database_admin_url or settings.database_url
    if dsn is None:
        raise StartRefused(
            "nothing to migrate: the embedded database migrates itself at start. "
            "Set DATABASE_ADMIN_URL to the owner's connection string of an external one."
        )
    trio.run(run_migrations, database_address(dsn), None)


EXPECTED = (
    StartRefused,
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
            admin = settings.database_admin_url
            where = Database(
                database_address(settings.database_url),
                None if admin is None else database_address(admin),
                None,
            )
            del settings, admin  # this frame lives as long as the server, and it would keep all secrets
            yield where
        finally:
            lock.release()
        return
    # Before the event loop: blocking, and it lives longer than the loop.
    postgres = EmbeddedPostgres(settings.data_dir, pg_bin=settings.pg_bin, checkpoint=checkpoint)
    del settings
    postgres.start()
    try:
        yield Database(postgres.app_dsn, postgres.owner_dsn, APP_LOGIN)
    finally:
        postgres.stop()


@contextmanager
def database_beside(settings: Settings) -> Iterator[str]:
    """The same database for a command: that of the server which runs on DATA_DIR, or started for a moment."""
    if settings.database_url is not None:
        yield database_address(settings.database_url)
        return
    if not (settings.data_dir / "postgres" / "data").exists():
        raise StartRefused("no embedded database in DATA_DIR: set DATABASE_URL as the server has it")
    postgres = EmbeddedPostgres(settings.data_dir, pg_bin=settings.pg_bin)
    try:
        postgres.start()
    except DataDirInUse:
        yield embedded_dsn(settings.data_dir, settings.pg_bin)
        return
    try:
        yield postgres.app_dsn
    finally:
        postgres.stop()


async def run_rotation(
    settings: Settings, dsn: str, sequencer_id: Uuid, seeds: ReceiptSeeds, compromised: bool, reason: str
) -> ReceiptKey:
    async with open_loop(), AsyncExitStack() as stack:
        where = Database(dsn, None, None)
        journal = await patiently(partial(enter_journal, stack, settings, sequencer_id, where))
        old = await patiently(partial(receipt_keys.current, journal, sequencer_id))
        public_key = receipt_keys.make_seed(seeds, old, checkpoint)
        act = partial(
            receipt_keys.rotate, journal, seeds, old, public_key, compromised=compromised, reason=reason
        )
        return await patiently(act)


async def run_migrations(dsn: str, app_login: str | None) -> None:
    async with open_loop():
        await patiently(partial(migrate, dsn, app_login))


async def run_house(
    settings: Settings, secrets: Secrets, where: Database, token_keys: KeySet, fingerprint: str
) -> None:
    """The whole life inside the event loop; returns after an orderly stop. ``fingerprint``: of all settings,
    also of the secrets that are gone from these."""
    async with open_loop() as strays:
        if where.admin_dsn is not None:
            await patiently(partial(migrate, where.admin_dsn, where.app_login, checkpoint=checkpoint))
        async with AsyncExitStack() as stack:
            node_id = secrets.sequencer_id
            journal = await patiently(partial(enter_journal, stack, settings, node_id, where))
            claimed = await patiently(partial(claim_keys, journal, secrets))
            built = build(
                settings,
                secrets,
                journal,
                receipt_key=claimed.key,
                token_keys=token_keys,
                strays=lambda: strays.count,
            )
            if claimed.rotated:
                version = claimed.key.key_version
                built.house.security.happened("receipt_key_rotated", key_version=version)
            await audit_start(built.house, fingerprint, claimed.key.key_version)
            await live(settings, secrets, built)
            await audit_stop(built.house)


async def enter_journal(stack: AsyncExitStack, settings: Settings, node_id: Uuid, where: Database) -> Journal:
    limits = Limits(
        connections_max=settings.db_connections_max,
        unit_deadline_s=settings.db_unit_deadline_s,
        statement_timeout_s=settings.db_statement_timeout_s,
        lock_timeout_s=settings.db_lock_timeout_s,
        idle_in_transaction_timeout_s=settings.db_idle_in_transaction_timeout_s,
    )
    journal: Journal = await stack.enter_async_context(
        open_journal(where.app_dsn, node_id=node_id, limits=limits, checkpoint=checkpoint)
    )
    return journal


async def claim_keys(journal: Journal, secrets: Secrets) -> receipt_keys.Claimed:
    """Our keys are those that the journal knows, or the first it sees: answers the receipt key to sign with.
    Key files made just now and in vain are removed."""
    try:
        await journal.claim_at_rest_keys(secrets.keys.at_rest_key_ids)
        return await receipt_keys.claim(journal, secrets.sequencer_id, secrets.keys.receipt_seeds)
    except (AtRestKeyMissing, ReceiptKeyDiffers):
        for path in secrets.created:
            path.unlink(missing_ok=True)
        raise


async def audit_start(house: House, fingerprint: str, key_version: int) -> None:
    details: dict[str, str | int | None] = {
        "version": version("ves-sequencer"),
        "configuration": fingerprint,
        "schema_version": len(migrations()),
        "receipt_key_version": key_version,
        "host": socket.gethostname(),
    }
    await audit_life(house, "server.start", details, away=False)


async def audit_stop(house: House) -> None:
    """The last entry of this life, and the chain committed through it; while the database is away the entry
    waits in the spool for the next one. A start without a stop before it was preceded by a crash."""
    away = "database" in house.readiness.parts
    await audit_life(house, "server.stop", {}, away=away)
    if away:
        return
    try:
        for chain in await house.journal.read_audit_chains(only=house.sequencer_id, limit=1):
            await commit_chain(house.journal, chain, lambda: time.time_ns() // 1000)
    except (JournalError, ChainBroken) as error:
        log.warning("the audit chain is not committed through the stop", reason=str(error))


async def audit_life(house: House, action: str, details: dict[str, str | int | None], *, away: bool) -> None:
    """In the chain, else in the spool. A node whose disk is full as well still serves what it can."""
    entry = AuditEntry("system", action, uuid_text(house.sequencer_id), None, {**details, "outcome": "done"})
    try:
        await house.audit_spool.write(entry, journal_away=away)
    except Unavailable as error:
        log.error("no audit entry could be written", action=action, reason=str(error))


async def patiently(unit: Callable[[], Awaitable[T]]) -> T:
    """What ``unit`` answers; while the database is away, tried again each second for a minute. So is a unit
    whose outcome is unknown: everything done at a start finds its own work when it is done twice."""
    give_up_at = trio.current_time() + JOURNAL_PATIENCE_S
    while True:
        try:
            return await unit()
        except (JournalAway, JournalOutcomeUnknown) as error:
            if trio.current_time() >= give_up_at:
                text = f"the database did not answer within {JOURNAL_PATIENCE_S:.0f} s: {error}"
                raise StartRefused(text) from None
            log.warning("waiting for the database", reason=str(error))
        await trio.sleep(1)


async def live(settings: Settings, secrets: Secrets, built: Built) -> None:
    """The tree and the doors, from open to closed."""
    public, admin = create_apps(built.house)
    closing = trio.Event()
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(START_PATIENCE_S) as patience:
            await nursery.start(built.root.run)
        if patience.cancelled_caught:
            raise StartRefused(f"not everybody started within {START_PATIENCE_S:.0f} s; the log says why")
        public_listeners = await listen(settings.host, settings.port, "HOST and PORT")
        admin_listeners = await listen(*admin_address(settings), "ADMIN_BIND")
        certificates = built.house.certificates
        async with trio.open_nursery() as doors:
            for app, listeners, tls in (
                (public, public_listeners, certificates.context_of("public")),
                (admin, admin_listeners, certificates.context_of("admin")),
            ):
                await doors.start(partial(serve_http, app, listeners, settings, shutdown=closing, tls=tls))
            spare_the_collector()
            public_door = door_of(public_listeners, certificates.files_of("public"))
            admin_door = door_of(admin_listeners, certificates.files_of("admin"))
            with announced(settings.data_dir, public_door, admin_door):
                introduce(settings, secrets, public_door, admin_door)
                await asked_to_stop(certificates)
                built.house.readiness.wait_for("shutdown", "the server is shutting down")
                await trio.sleep(settings.shutdown_pause_secs)
            closing.set()
        built.root.stop()


def spare_the_collector() -> None:
    """What is there now stays: no collection need look at it again. And they need not come so often: requests
    leave no circles behind, and a full one holds up everybody while it looks at every tenant."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


async def listen(host: str, port: int, variable: str) -> list[trio.SocketListener]:
    try:
        return list(await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG))
    except OSError as error:
        raise StartRefused(
            f"cannot listen on {host}:{port} ({variable}): {error.strerror or error}"
        ) from None


def introduce(settings: Settings, secrets: Secrets, public: Door, admin: Door) -> None:
    for created in secrets.created:
        print(f"created {created} (keep a copy in a safe place)", flush=True)
    print(
        f"sequencer {version('ves-sequencer')} serves {public.bound}, admin {admin.bound},"
        f" data {settings.data_dir}",
        flush=True,
    )


async def asked_to_stop(certificates: Certificates) -> None:
    """Returns at SIGTERM or SIGINT. SIGHUP reads the certificates anew, unless it says that our terminal was
    closed: then nobody is left to stop us."""
    on_terminal = os.isatty(STDOUT)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for received in signals:
            if on_terminal and not os.isatty(STDOUT):
                speak_to_nobody()
            elif received == signal.SIGHUP:
                log.info("reading the certificates anew")
                certificates.reload()
                continue
            log.info("stopping", signal=signal.Signals(received).name)
            return


def speak_to_nobody() -> None:
    """Writing to a terminal that is gone is an error, and would turn an orderly stop into a crash."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (STDOUT, STDERR):
        os.dup2(nowhere, descriptor)


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
    main()
