"""Commitments that wait for an anchor, for the tests of both of its ports."""

from __future__ import annotations

import msgspec
from journal_builders import a_commitment, an_event, decided, uuid
from journal_worlds import World

from journal.port import Stored
from ves.records import Commitment, Uuid


async def commitments(
    world: World, count: int, *, stream: tuple[Uuid, Uuid] | None = None, from_second: int = 0
) -> list[Commitment]:
    """The next ones of a stream, two events each, committed a second apart."""
    tenant, store = stream or (uuid(), uuid())
    head = await world.journal.read_head(tenant, store)
    events = [an_event() for _ in range(2 * count)]
    assert isinstance(
        await world.journal.append(await decided(world.journal, tenant, store, *events)), Stored
    )
    made = []
    for n in range(count):
        commitment, levels, believed = await a_commitment(world.journal, tenant, store, head + 2 * n + 2)
        at = commitment.committed_at_us + 1_000_000 * (from_second + n)
        commitment = msgspec.structs.replace(commitment, committed_at_us=at)
        stored = await world.journal.commit(commitment, levels=levels, believed_through=believed)
        assert isinstance(stored, Stored)
        made.append(commitment)
    return made
