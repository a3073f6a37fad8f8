"""A sequencer's life settles first, unless the one before it, in this process, ended between two groups."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from actors.errors import DeadlinePassed, NotNow, OutcomeUnknown, Unavailable
from actors.messages import Append, Seal, Sealed
from actors.right_of_way import RightOfWay
from actors.sequencer import GroupLimits, Sequencer, Tally
from actors.settled_tenants import SettledTenants
from journal.memory import MemoryDatabase, MemoryJournal
from journal.port import AuditEntry
from supervisor.dynamic import DynamicSupervisor
from supervisor.policy import Pauses
from supervisor.supervisor import Supervisor
from tests.http.doubles import AGENT, TENANT, CardboardRef, batch, verified
from tests.journal.journal_builders import an_agent_key
from ves.encoding import uuid_text
from ves.records import SealedEvent, Uuid

IDLE_S = 60.0
PATH = "house/sequencers/" + str(TENANT)


class Journal(MemoryJournal):
    """Counts settlings."""

    settled = 0

    async def settle(self, tenant_id: Uuid) -> None:
        await super().settle(tenant_id)
        self.settled += 1


class Town:
    """One tenant, its sequencer's lives, and encryptors that may be made to fail it."""

    def __init__(self, settled_tenants: SettledTenants | None = None) -> None:
        self.database = MemoryDatabase(now_us=lambda: 1_000_000)
        self.journal = Journal(self.database, node_id=bytes(16))
        self.settled_tenants = settled_tenants or SettledTenants()
        self.sealing: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self.sequencers = DynamicSupervisor(
            "sequencers",
            self._sequencer,
            children_max=2,
            letters_max=8,
            idle_s=IDLE_S,
            pauses=Pauses(first_s=0.01, max_s=0.02),
            name_of=uuid_text,
        )
        self.root = Supervisor("house", [self.sequencers])

    def _sequencer(self, tenant_id: Uuid) -> Sequencer:
        return Sequencer(
            tenant_id=tenant_id,
            journal=self.journal,
            encryptors=CardboardRef("encryptors", self._seal),  # type: ignore[arg-type]
            sequencer_id=bytes(16),
            limits=GroupLimits(letters_max=1, events_max=10, bytes_max=10_000),
            chance=random.Random(1),
            tally=Tally(),
            settled_tenants=self.settled_tenants,
            right_of_way=RightOfWay(),
        )

    async def _seal(self, message: Seal) -> Sealed:
        await self.sealing()
        return Sealed(1, [SealedEvent(b"x", bytes(32), bytes(64)) for _ in message.events])

    async def post(self, *, deadline_s: float = 50.0) -> None:
        letter = Append(batch(verified()), None)
        await self.sequencers.ref(TENANT.bytes).ask(letter, deadline_s=deadline_s)

    async def retired(self) -> None:
        await trio.sleep(2 * IDLE_S)
        assert len(self.sequencers) == 0

    def stored(self) -> list[int]:
        return [event.receipt.sequence_number for rows in self.database.events.values() for event in rows]


@asynccontextmanager
async def a_town() -> AsyncIterator[Town]:
    town = Town()
    key = an_agent_key(TENANT.bytes, agent=AGENT.bytes)
    await town.journal.register_agent_key(key, AuditEntry("test", "agent_key.register", "", None))
    async with trio.open_nursery() as nursery:
        await nursery.start(town.root.run)
        await town.post()
        assert town.journal.settled == 1
        yield town
        town.root.stop()


async def retired(town: Town) -> None:
    await town.retired()


async def restarted_by_an_operator(town: Town) -> None:
    town.root.restart_child_at(PATH)
    await trio.sleep(1)


async def killed_while_idle(town: Town) -> None:
    town.root.kill(PATH)
    await trio.sleep(1)


async def killed_with_a_group_in_hand(town: Town) -> None:
    town.sealing = trio.sleep_forever
    with pytest.raises(DeadlinePassed):
        await town.post(deadline_s=1)
    town.sealing = trio.lowlevel.checkpoint
    await killed_while_idle(town)


async def surprised(town: Town) -> None:
    async def surprise() -> None:
        town.sealing = trio.lowlevel.checkpoint
        raise RuntimeError("told to")

    town.sealing = surprise
    with suppress(NotNow):  # the next life may have answered it
        await town.post()


async def left_with_an_unknown_outcome(town: Town) -> None:
    town.journal.fail_next("append", "unheard")
    with suppress(OutcomeUnknown):
        await town.post()


@pytest.mark.parametrize("ending", [retired, restarted_by_an_operator])
async def test_after_an_end_between_two_groups_the_next_life_goes_on(
    ending: Callable[[Town], Awaitable[None]], autojump_clock: trio.abc.Clock
) -> None:
    async with a_town() as town:
        for _ in range(2):
            await ending(town)
            await town.post()
        assert town.journal.settled == 1
    assert town.stored() == [1, 2, 3]


@pytest.mark.parametrize(
    "ending", [killed_while_idle, killed_with_a_group_in_hand, surprised, left_with_an_unknown_outcome]
)
async def test_after_any_other_end_the_next_life_settles(
    ending: Callable[[Town], Awaitable[None]], autojump_clock: trio.abc.Clock
) -> None:
    async with a_town() as town:
        await town.retired()
        await town.post()
        assert town.journal.settled == 1
        await ending(town)
        await town.post()
        assert town.journal.settled == 2
        await town.retired()
        await town.post()
        assert town.journal.settled == 2
    stored = town.stored()
    assert stored == [*range(1, len(stored) + 1)]


async def test_a_life_that_could_not_settle_leaves_it_to_the_next(autojump_clock: trio.abc.Clock) -> None:
    async with a_town() as town:
        town.root.kill(PATH)
        town.database.reachable = False
        with pytest.raises(Unavailable):
            await town.post()
        await town.retired()
        town.database.reachable = True
        await town.post()
        assert town.journal.settled == 2


def test_those_away_longest_are_forgotten_first_and_each_is_told_once() -> None:
    tenants = SettledTenants(tenants_max=2)
    for tenant in (b"a", b"b", b"c"):
        tenants.leave(tenant)
    assert [tenants.take(tenant) for tenant in (b"a", b"b", b"c", b"c")] == [False, True, True, False]
