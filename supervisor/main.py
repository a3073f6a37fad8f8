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
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import structlog
import trio

from actors import freed_memory
from actors.anchor_vitals import Anchoring
from actors.audit_commitments import ChainBroken, commit_chain
from actors.certificates import Certificates
from actors.errors import Unavailable
from actors.faults import arm_from_environment, checkpoint
from actors.given_numbers import FILE as GIVEN_NUMBERS
from actors.given_numbers import GivenNumbers
from actors.token_keys import KeySet, read_token_keys
from config.certificates import load as load_certificate
from config.database_tls import database_address
from config.exposure import admin_address, files_of_listeners, refuse_clear_text
from config.secrets import Secrets, load_secrets, prepare_data_dir
from config.settings import Settings
from journal.aio import open_loop
from journal.migrate import migrate, migrations
from journal.port import (
    AtRestKeyMissing,
    AuditEntry,
    Journal,
    JournalError,
    ReceiptKeyDiffers,
)
from supervisor import receipt_keys
from supervisor.anchor_parts import AnchorParts
from supervisor.announcement import Door, announced, door_of
from supervisor.restored import read_only_because
from supervisor.shell import (
    FORMATS,
    Database,
    StartRefused,
    database,
    enter_journal,
    patiently,
    read_settings,
    readably,
)
from supervisor.telemetry import exporting
from supervisor.tree import Built, build
from transport.house import House
from transport.http.app import create_apps
from transport.http.serve import serve as serve_http
from ves.at_rest import AtRestMode
from ves.encoding import prefixed_hex, uuid_text
from ves.records import Uuid

if TYPE_CHECKING:
    from supervisor.anchor_house import AnchorWish

START_PATIENCE_S = 60.0
"""How long everybody together may take to start."""
BACKLOG = 256
"""Connections that the kernel keeps until we accept them. When more come, their clients try again by
themselves; a longer queue would only be full of those who have given up."""
COLLECT_AFTER = (10_000, 20, 20)
"""Objects more than before, and younger collections, between two collections of each generation."""
STDOUT, STDERR = 1, 2
log = structlog.get_logger(__name__)


def main() -> None:
    """The ``sequencer`` command. A server that starts has no use for the command line's forty others."""
    if sys.argv[1:] == ["serve"]:
        raise SystemExit(serve())
    from supervisor.commands import command_line

    command_line(serve=serve, migrate=migrate_command)()


def serve() -> int:
    """Serve until SIGTERM or SIGINT; SIGHUP reads the certificates anew. Answers the exit code."""
    return readably(_serve)


def migrate_command() -> int:
    """Bring the schema of DATABASE_ADMIN_URL (or DATABASE_URL) up to date."""
    return readably(_migrate)


def _serve() -> None:
    settings = read_settings()
    freed_memory.keep_some()
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
        with anchoring(settings, where) as wish:
            settings = settings.without_secrets()
            trio.run(run_house, settings, secrets, where, token_keys, fingerprint, wish)


def _migrate() -> None:
    settings = read_settings()
    if settings.database_admin_url is None and settings.database_url is None:
        raise StartRefused(
            "nothing to migrate: the embedded database migrates itself at start. "
            "Set DATABASE_ADMIN_URL to the owner's connection string of an external one."
        )
    given: Literal["database_admin_url", "database_url"] = (
        "database_url" if settings.database_admin_url is None else "database_admin_url"
    )
    trio.run(run_migrations, database_address(settings, given, os.environ))


async def run_migrations(dsn: str) -> None:
    async with open_loop():
        await patiently(partial(migrate, dsn))


@contextmanager
def anchoring(settings: Settings, where: Database) -> Iterator[AnchorWish | None]:
    """Who anchors does so as long as we are inside; a house that anchors nothing imports nothing of it."""
    if settings.anchoring == "off":
        yield None
        return
    from supervisor.anchor_house import development_chain, wish_of

    with development_chain(settings, wish_of(settings, where.anchor_dsn)) as wish:
        yield wish


async def run_house(
    settings: Settings,
    secrets: Secrets,
    where: Database,
    token_keys: KeySet,
    fingerprint: str,
    anchor: AnchorWish | None,
) -> None:
    """The whole life inside the event loop; returns after an orderly stop. ``fingerprint``: of all settings,
    also of the secrets that are gone from these."""
    async with open_loop() as strays:
        if where.admin_dsn is not None:
            await patiently(partial(migrate, where.admin_dsn, where.logins, checkpoint=checkpoint))
        async with AsyncExitStack() as stack:
            node_id = secrets.sequencer_id
            enter = partial(enter_journal, as_server=True, though_restored=True)
            journal = await patiently(partial(enter, stack, settings, node_id, where))
            await patiently(partial(refuse_to_forget_pins, settings, journal))
            claimed = await patiently(partial(claim_keys, journal, secrets))
            given = GivenNumbers(settings.data_dir / GIVEN_NUMBERS)
            read_only = await patiently(partial(read_only_because, journal, given))
            if read_only is not None:
                journal.rest_from_writing(read_only)
            built = build(
                settings,
                secrets,
                journal,
                anchor=await anchor_parts(stack, settings, node_id, anchor),
                receipt_key=claimed.key,
                token_keys=token_keys,
                strays=lambda: strays.count,
                given=given,
                read_only=read_only,
            )
            if claimed.rotated:
                version = claimed.key.key_version
                built.house.security.happened("receipt_key_rotated", key_version=version)
            await audit_start(built.house, fingerprint, claimed.key.key_version)
            await live(settings, secrets, built)
            await audit_stop(built.house)


async def anchor_parts(
    stack: AsyncExitStack, settings: Settings, node_id: Uuid, wish: AnchorWish | None
) -> AnchorParts | None:
    if wish is None:
        return None
    from supervisor.anchor_house import enter_anchoring

    return await enter_anchoring(stack, settings, node_id, wish)


async def refuse_to_forget_pins(settings: Settings, journal: Journal) -> None:
    if settings.region is None and await journal.list_pinned(after=None, limit=1):
        raise StartRefused("tenants are pinned to regions in this database: set REGION to where this node is")


async def claim_keys(journal: Journal, secrets: Secrets) -> receipt_keys.Claimed:
    """Our keys are those that the journal knows, or the first it sees: answers the receipt key to sign with.
    Key files made just now and in vain are removed."""
    try:
        await journal.claim_at_rest_keys(
            secrets.keys.at_rest_key_ids,
            secrets.keys.at_rest_key_ids_by_tenant,
            current=secrets.keys.at_rest_current_ids,
            required=secrets.keys.at_rest_mode == AtRestMode.REQUIRED.value,
        )
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
        "payload_encryption_mode": house.at_rest.mode,
        "at_rest_key": house.at_rest.current_key,
        "tenants_with_own_ring": house.at_rest.tenants_with_own_ring,
        "host": socket.gethostname(),
    }
    await audit_life(house, "server.start", details, away=house.read_only is not None)


async def audit_stop(house: House) -> None:
    """The last entry of this life, and the chain committed through it; while the database is away the entry
    waits in the spool for the next one. A start without a stop before it was preceded by a crash."""
    away = house.read_only is not None or "database" in house.readiness.parts
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
            here = partial(serve_http, settings=settings, shutdown=closing)
            if built.hall is None:
                await doors.start(
                    partial(here, public, public_listeners, tls=certificates.context_of("public"))
                )
            else:
                certificate = certificates.certificate_of("public")
                keep = partial(built.hall.serve, shutdown=closing, certificate=certificate)
                await doors.start(keep, public, [listener.socket for listener in public_listeners])
                certificates.tell(built.hall.certificate_changed)
            await doors.start(partial(here, admin, admin_listeners, tls=certificates.context_of("admin")))
            spare_the_collector()
            public_door = door_of(public_listeners, certificates.files_of("public"))
            admin_door = door_of(admin_listeners, certificates.files_of("admin"))
            dev_url = None if built.house.anchoring is None else built.house.anchoring.development_url
            with announced(settings.data_dir, public_door, admin_door, development_chain=dev_url):
                introduce(settings, secrets, public_door, admin_door)
                introduce_chain(built.house.anchoring)
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
        f" data {settings.data_dir}, encryption at rest {settings.payload_encryption_mode}",
        flush=True,
    )


def introduce_chain(anchoring: Anchoring | None) -> None:
    if anchoring is None:
        return
    where = f"chain {anchoring.chain.chain_id}, contract {prefixed_hex(anchoring.contract)}"
    if anchoring.development:
        print(
            f"anchors on a development chain at {anchoring.development_url} ({where}): it is on this "
            "machine, and nobody else witnesses it",
            flush=True,
        )
    else:
        role = anchoring.vitals.role
        who = "sequencer anchor run anchors" if role == "apart" else "anchors"
        print(f"{who} on {where}; sequencer anchor status tells how it goes", flush=True)


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
