"""What the commands about at-rest keys share: the rings as the server has them, and both logins.

What is sealed anew is written as a member of sequencer_admin; what is told the audit trail is written as the
node whose DATA_DIR it is, into its chain. Refuses a ring that no node has started with: what it sealed
nobody could read.
"""

from __future__ import annotations

import os
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import trio

from actors.faults import arm_from_environment, checkpoint
from config.own_keys import OwnKeys
from config.secrets import load_at_rest_keys
from config.settings import Settings
from journal.aio import open_loop
from journal.connections import Limits
from journal.port import AuditEntry, Journal
from journal.resealing import ResealingJournal, open_resealing
from supervisor.shell import (
    FORMATS,
    Database,
    StartRefused,
    database_beside,
    enter_journal,
    patiently,
    read_settings,
)
from ves.at_rest import AtRest, AtRestMode, Ring, RingKey
from ves.records import Uuid

T = TypeVar("T")
OPERATOR = "operator"


@dataclass(frozen=True)
class AtRestHouse:
    resealing: ResealingJournal
    journal: Journal
    keys: OwnKeys
    at_rest: AtRest
    """Writes frames, whatever the server's mode is."""

    async def audit(self, action: str, subject: str, details: dict[str, str | int | None]) -> None:
        entry = AuditEntry(OPERATOR, action, subject, None, details)
        await patiently(partial(self.journal.audit, entry))


def in_the_house(work: Callable[[AtRestHouse], Awaitable[T]]) -> T:
    """What ``work`` answers, beside a running server or with the embedded database started for a moment."""
    settings = read_settings()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no key of ours reaches a disk
    arm_from_environment(os.environ)
    sequencer_id, keys = load_at_rest_keys(settings, settings.data_dir, FORMATS)
    with database_beside(settings, admin=True) as admin_dsn, database_beside(settings) as dsn:
        return trio.run(_run, work, settings.without_secrets(), admin_dsn, dsn, sequencer_id, keys)


async def _run(
    work: Callable[[AtRestHouse], Awaitable[T]],
    settings: Settings,
    admin_dsn: str,
    dsn: str,
    sequencer_id: Uuid,
    keys: OwnKeys,
) -> T:
    async with open_loop(), _house(settings, admin_dsn, dsn, sequencer_id, keys) as house:
        for key_id in keys.at_rest_current_ids:
            await _check_current(house, key_id)
        return await work(house)


@asynccontextmanager
async def _house(
    settings: Settings, admin_dsn: str, dsn: str, sequencer_id: Uuid, keys: OwnKeys
) -> AsyncIterator[AtRestHouse]:
    limits = Limits(
        connections_max=2,
        unit_deadline_s=settings.db_unit_deadline_s,
        statement_timeout_s=settings.db_statement_timeout_s,
        lock_timeout_s=settings.db_lock_timeout_s,
        idle_in_transaction_timeout_s=settings.db_idle_in_transaction_timeout_s,
    )
    async with AsyncExitStack() as stack:

        async def enter() -> ResealingJournal:
            opening = open_resealing(admin_dsn, limits=limits, checkpoint=checkpoint)
            return await stack.enter_async_context(opening)

        resealing = await patiently(enter)
        where = Database(dsn, None)
        journal = await patiently(partial(enter_journal, stack, settings, sequencer_id, where))
        yield AtRestHouse(resealing, journal, keys, _at_rest(keys))


def _at_rest(keys: OwnKeys) -> AtRest:
    by_tenant = {tenant_id: _ring(ring) for tenant_id, ring in keys.at_rest_rings_by_tenant()}
    return AtRest(AtRestMode.REQUIRED, _ring(keys.at_rest_ring()), by_tenant)


def _ring(raw: tuple[bytes, ...]) -> Ring:
    return Ring([RingKey(key) for key in raw])


async def _check_current(house: AtRestHouse, key_id: bytes) -> None:
    retired = await patiently(partial(house.resealing.is_at_rest_key, key_id))
    if retired is None:
        raise StartRefused(
            f"no node has started with the at-rest key {key_id.hex()} yet, the current one of this ring: "
            "what is sealed under it could not be read. Restart all nodes with this ring first"
        )
    if retired:
        raise StartRefused(
            f"the at-rest key {key_id.hex()}, the current one of this ring, is retired: give this command "
            "the ring that the server has"
        )
