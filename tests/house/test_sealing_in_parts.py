"""A large group is sealed by several encryptors at once, and is one group all the same."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from actors.errors import Unavailable
from actors.mailbox import Inbox, Mailbox, Ref
from actors.messages import Append, Appended, Seal, Sealed
from actors.right_of_way import RightOfWay
from actors.sequencer import SEALED_TOGETHER_MIN, GroupLimits, Sequencer, Tally
from actors.settled_tenants import SettledTenants
from journal.memory import MemoryDatabase, MemoryJournal
from journal.port import AuditEntry
from tests.http.doubles import AGENT, TENANT, CardboardRef, batch, verified
from tests.journal.journal_builders import an_agent_key
from ves.records import Receipt, SealedEvent

Seals = Callable[[Any], Awaitable[Any]]


def sealed(message: Seal, version: int = 1) -> Sealed:
    """Whose signature tells for which number it is."""
    events = [SealedEvent(b"x", bytes(32), n.sequence_number.to_bytes(64, "big")) for n in message.events]
    return Sealed(version, events)


@asynccontextmanager
async def appended_in_parts(
    seal: Seals, parts: int, right_of_way: RightOfWay | None = None, *, letters_max: int = 1
) -> AsyncIterator[tuple[Ref, MemoryDatabase]]:
    database = MemoryDatabase(now_us=lambda: 1_000_000)
    journal = MemoryJournal(database, node_id=bytes(16))
    key = an_agent_key(TENANT.bytes, agent=AGENT.bytes)
    await journal.register_agent_key(key, AuditEntry("test", "agent_key.register", "", None))
    mailbox = Mailbox("sequencer", letters_max=letters_max)
    sequencer = Sequencer(
        tenant_id=TENANT.bytes,
        journal=journal,
        encryptors=CardboardRef("encryptors", seal),  # type: ignore[arg-type]
        sequencer_id=bytes(16),
        limits=GroupLimits(
            letters_max=letters_max, events_max=1000, bytes_max=1_000_000, sealed_at_once=parts
        ),
        chance=random.Random(1),
        tally=Tally(),
        settled_tenants=SettledTenants(),
        right_of_way=right_of_way or RightOfWay(),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sequencer.run, Inbox(mailbox))
        yield Ref(mailbox), database
        nursery.cancel_scope.cancel()


def many(count: int) -> Append:
    return Append(batch(*(verified() for _ in range(count))), None)


def stored(database: MemoryDatabase) -> int:
    return sum(map(len, database.events.values()))


def numbers(answer: Appended) -> list[tuple[int, int]]:
    """Each receipt's number, and the number that its signature is for."""
    receipts = [verdict for verdict in answer.verdicts if isinstance(verdict, Receipt)]
    return [(r.sequence_number, int.from_bytes(r.sequencer_signature, "big")) for r in receipts]


@pytest.mark.parametrize(
    ("events", "parts", "asked"),
    [(200, 3, [67, 67, 66]), (200, 1, [200]), (2 * SEALED_TOGETHER_MIN - 1, 4, [127]), (130, 9, [65, 65])],
)
async def test_a_large_group_is_sealed_in_parts_and_every_event_gets_its_own_receipt(
    events: int, parts: int, asked: list[int]
) -> None:
    sizes: list[int] = []

    async def seal(message: Seal) -> Sealed:
        sizes.append(len(message.events))
        await trio.sleep(0.01 / message.events[0].sequence_number)  # the first part answers last
        return sealed(message)

    async with appended_in_parts(seal, parts) as (sequencer, database):
        answer = await sequencer.ask(many(events), deadline_s=10)
    assert numbers(answer) == [(n, n) for n in range(1, events + 1)]
    assert sorted(sizes, reverse=True) == asked
    assert stored(database) == events


async def test_parts_signed_by_two_receipt_keys_are_signed_anew_by_one() -> None:
    sizes: list[int] = []

    async def seal(message: Seal) -> Sealed:
        sizes.append(len(message.events))
        return sealed(message, version=min(2, len(sizes)))

    async with appended_in_parts(seal, 2) as (sequencer, database):
        answer = await sequencer.ask(many(200), deadline_s=10)
    assert sizes == [100, 100, 200]
    receipts = [verdict for verdict in answer.verdicts if isinstance(verdict, Receipt)]
    assert {receipt.sequencer_key_version for receipt in receipts} == {2}
    assert stored(database) == 200


async def test_when_one_part_cannot_be_sealed_nothing_is_stored() -> None:
    async def seal(message: Seal) -> Sealed:
        if message.events[0].sequence_number > 1:
            raise Unavailable("no encryptor")
        return sealed(message)

    async with appended_in_parts(seal, 2) as (sequencer, database):
        with pytest.raises(Unavailable, match="sealing is not available: no encryptor"):
            await sequencer.ask(many(200), deadline_s=10)
    assert not database.events
