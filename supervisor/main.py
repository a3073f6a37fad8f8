"""The process: from an empty environment to an open door, and back in order.

Alone owns the order of start and stop, the signals, and what is said to the person at the terminal. A start
that would be insecure or could not work is refused with one readable line and exit code 1; a house that
gave up ends with code 1 and its last error, once.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import structlog
import trio
from pydantic import ValidationError

from actors.faults import arm_from_environment, checkpoint
from actors.token_keys import KeySet, read_token_keys
from config.logs import configure_logs
from config.secrets import Secrets, SecretsError, load_secrets, prepare_data_dir
from config.settings import Settings
from journal.aio import open_loop
from journal.connections import Limits
from journal.embedded import EmbeddedPostgres
from journal.embedded_cluster import APP_LOGIN, DataDirLock, EmbeddedPostgresError
from journal.migrate import migrate
from journal.port import (
    AtRestKeyMissing,
    Journal,
    JournalAway,
    JournalError,
    JournalOutcomeUnknown,
    ReceiptKeyDiffers,
)
from journal.postgres import open_journal
from supervisor.branch import GaveUp
from supervisor.telemetry import TelemetryMissing, exporting
from supervisor.tree import Built, build
from transport.cli.app import build_app
from transport.http.app import create_apps
from transport.http.serve import serve as serve_http
from ves.at_rest import key_id, parse_key
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

T = TypeVar("T")

log = structlog.get_logger(__name__)


class StartRefused(Exception):
    """The text is all that the operator needs to know."""


@dataclass(frozen=True)
class Database:
    """Where the journal is: our own login, and the migrations' (None: they are not ours to run)."""

    app_dsn: str
    admin_dsn: str | None
    app_login: str | None


def main() -> None:
    """The ``sequencer`` command."""
    build_app(serve=serve, migrate=migrate_command)()


def serve() -> int:
    """Serve until SIGTERM or SIGINT. Answers the exit code."""
    return readably(_serve)


def migrate_command() -> int:
    """Bring the schema of DATABASE_ADMIN_URL (or DATABASE_URL) up to date."""
    return readably(_migrate)


def _serve() -> None:
    settings = read_settings()
    arm_from_environment(os.environ)
    prepare_data_dir(settings.data_dir)
    token_keys = read_token_keys(settings)
    with exporting(os.environ), database(settings) as where:
        secrets = load_secrets(
            settings, settings.data_dir, parse_key=parse_key, key_id=key_id, checkpoint=checkpoint
        )
        trio.run(run_house, settings, secrets, where, token_keys)


def _migrate() -> None:
    settings = read_settings()
    dsn = settings.database_admin_url or settings.database_url
    if dsn is None:
        raise StartRefused(
            "nothing to migrate: the embedded database migrates itself at start. "
            "Set DATABASE_ADMIN_URL to the owner's connection string of an external one."
        )
    trio.run(run_migrations, dsn.get_secret_value(), None)


EXPECTED = (
    StartRefused,
    SecretsError,
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
        problems = (f"{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        return "; ".join(problems)
    return str(error)


def read_settings() -> Settings:
    settings = Settings()
    configure_logs(settings.log_level, settings.log_format)
    return settings


@contextmanager
def database(settings: Settings) -> Iterator[Database]:
    """The operator's PostgreSQL, or our own as long as we live. One sequencer per DATA_DIR either way."""
    if settings.database_url is not None:
        lock = DataDirLock(settings.data_dir)
        try:
            admin = settings.database_admin_url
            yield Database(
                settings.database_url.get_secret_value(),
                None if admin is None else admin.get_secret_value(),
                None,
            )
        finally:
            lock.release()
        return
    # Before the event loop: blocking, and it lives longer than the loop.
    postgres = EmbeddedPostgres(settings.data_dir, pg_bin=settings.pg_bin, checkpoint=checkpoint)
    postgres.start()
    try:
        yield Database(postgres.app_dsn, postgres.owner_dsn, APP_LOGIN)
    finally:
        postgres.stop()


async def run_migrations(dsn: str, app_login: str | None) -> None:
    async with open_loop():
        await patiently(partial(migrate, dsn, app_login))


async def run_house(settings: Settings, secrets: Secrets, where: Database, token_keys: KeySet) -> None:
    """The whole life inside the event loop; returns after an orderly stop."""
    async with open_loop() as strays:
        if where.admin_dsn is not None:
            await patiently(partial(migrate, where.admin_dsn, where.app_login, checkpoint=checkpoint))
        async with AsyncExitStack() as stack:
            journal = await patiently(partial(enter_journal, stack, settings, secrets, where))
            key_version = await patiently(partial(claim_keys, journal, secrets))
            built = build(
                settings,
                secrets,
                journal,
                key_version=key_version,
                token_keys=token_keys,
                strays=lambda: strays.count,
            )
            await live(settings, secrets, built)


async def enter_journal(
    stack: AsyncExitStack, settings: Settings, secrets: Secrets, where: Database
) -> Journal:
    limits = Limits(
        connections_max=settings.db_connections_max,
        unit_deadline_s=settings.db_unit_deadline_s,
        statement_timeout_s=settings.db_statement_timeout_s,
        lock_timeout_s=settings.db_lock_timeout_s,
        idle_in_transaction_timeout_s=settings.db_idle_in_transaction_timeout_s,
    )
    journal: Journal = await stack.enter_async_context(
        open_journal(where.app_dsn, node_id=secrets.sequencer_id, limits=limits, checkpoint=checkpoint)
    )
    return journal


async def claim_keys(journal: Journal, secrets: Secrets) -> int:
    """Our keys are those that the journal knows, or the first it sees: answers the receipt key's version.
    Key files made just now and in vain are removed."""
    try:
        await journal.claim_at_rest_keys([key_id(key) for key in secrets.at_rest_ring])
        public_key = Signer(secrets.receipt_signing_seed).public_key
        return await journal.claim_receipt_key(secrets.sequencer_id, public_key)
    except (AtRestKeyMissing, ReceiptKeyDiffers):
        for path in secrets.created:
            path.unlink(missing_ok=True)
        raise


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
        admin_host, admin_port = admin_address(settings)
        admin_listeners = await listen(admin_host, admin_port, "ADMIN_BIND")
        async with trio.open_nursery() as doors:
            for app, listeners in ((public, public_listeners), (admin, admin_listeners)):
                await doors.start(partial(serve_http, app, listeners, settings, shutdown=closing))
            spare_the_collector()
            with announced(settings, secrets, url_of(public_listeners), url_of(admin_listeners)):
                await asked_to_stop()
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


def admin_address(settings: Settings) -> tuple[str, int]:
    if settings.admin_bind is None:
        return "127.0.0.1", settings.port + 2 if settings.port else 0
    host, colon, port = settings.admin_bind.rpartition(":")
    if not colon or not port.isdigit():
        raise StartRefused("ADMIN_BIND: give host:port, for example 127.0.0.1:8082")
    return host.strip("[]"), int(port)


def url_of(listeners: list[trio.SocketListener]) -> str:
    host, port = listeners[0].socket.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def announced(settings: Settings, secrets: Secrets, url: str, admin_url: str) -> Iterator[None]:
    """``DATA_DIR/server.json`` tells tools on this machine where we are, while we are."""
    path = settings.data_dir / "server.json"
    told = {"url": url, "admin_url": admin_url, "pid": os.getpid(), "version": version("ves-sequencer")}
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(told))
    draft.replace(path)
    for created in secrets.created:
        print(f"created {created} (keep a copy in a safe place)", flush=True)
    print(
        f"sequencer {told['version']} serves {url}, admin {admin_url}, data {settings.data_dir}", flush=True
    )
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


async def asked_to_stop() -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for received in signals:
            log.info("stopping", signal=signal.Signals(received).name)
            return


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
    main()
