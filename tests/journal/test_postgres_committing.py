"""Commitments of many streams in one transaction, where PostgreSQL's locks and its refusals matter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import trio
from journal_builders import a_commitment, an_event, decided, uuid
from journal_worlds import PostgresWorld, sql

from actors.committer import Committer
from actors.mailbox import Inbox, Mailbox, Ref
from actors.messages import Commit, CommitAlone, Committed, CommitTogether
from journal.aio import cross
from journal.port import MadeCommitment, Moved, Stored
from ves.records import Uuid


async def streams_of(world: PostgresWorld, count: int) -> list[tuple[Uuid, Uuid]]:
    """Each of a tenant of its own, with two events."""
    streams = [(uuid(), uuid()) for _ in range(count)]
    for stream in streams:
        outcome = await world.journal.append(await decided(world.journal, *stream, an_event(), an_event()))
        assert isinstance(outcome, Stored)
    return streams


async def made(world: PostgresWorld, streams: list[tuple[Uuid, Uuid]], through: int) -> list[MadeCommitment]:
    return [MadeCommitment(*(await a_commitment(world.journal, *s, through))[:2]) for s in streams]


async def kinds(world: PostgresWorld, some: list[MadeCommitment]) -> list[type]:
    outcomes = await world.journal.commit_together(some)
    assert isinstance(outcomes, list)
    return [type(outcome) for outcome in outcomes]


@asynccontextmanager
async def under_way(world: PostgresWorld, statement: str, *arguments: object) -> AsyncIterator[None]:
    """Another session has done this, in a transaction that is undone in the end."""
    connection = await cross(lambda: asyncpg.connect(world.dsn))
    try:
        await cross(lambda: connection.execute("BEGIN"))
        await cross(lambda: connection.execute(statement, *arguments))
        yield
    finally:
        await cross(connection.close)


async def test_a_counter_that_somebody_holds_costs_only_its_own_stream(postgres: PostgresWorld) -> None:
    streams = await streams_of(postgres, 3)
    assert await kinds(postgres, await made(postgres, streams, 1)) == [Stored] * 3
    some = await made(postgres, streams, 2)
    who = "SELECT FROM record.ves_commitment_counters WHERE store_id = $1::text::uuid FOR UPDATE"
    async with under_way(postgres, who, streams[1][1].hex()):
        assert await kinds(postgres, some) == [Stored, Moved, Stored]
    assert await kinds(postgres, some) == [Moved, Stored, Moved]


async def test_a_first_commitment_under_way_elsewhere_is_not_waited_for_long(postgres: PostgresWorld) -> None:
    streams = await streams_of(postgres, 2)
    some = await made(postgres, streams, 2)
    theirs = (
        "INSERT INTO record.ves_commitment_counters VALUES "
        "($1::text::uuid, $2::text::uuid, 2, decode(repeat('77', 32), 'hex'))"
    )
    async with under_way(postgres, theirs, *(part.hex() for part in streams[0])):
        assert await kinds(postgres, some) == [Moved, Moved]
        for stream in streams:
            assert (await postgres.other.read_commitment_counter(*stream)).committed_through == 0
    assert await kinds(postgres, some) == [Stored, Stored]


async def test_a_stream_whose_record_contradicts_itself_keeps_nobody_from_being_committed(
    postgres: PostgresWorld,
) -> None:
    streams = await streams_of(postgres, 3)
    stray, levels, _ = await a_commitment(postgres.journal, *streams[1], 1)
    await sql(  # a commitment that the counter knows nothing of
        postgres.dsn,
        "INSERT INTO record.ves_commitments SELECT $1, $2, $3, 1, 1, now(), 1, 0, 1, 1, $4, $4, $4, $5",
        arguments=(stray.batch_id, *streams[1], bytes(32), levels),
    )
    committer = Committer(journal=postgres.journal, new_batch_id=uuid, now_us=lambda: 7)
    mailbox = Mailbox("committer", letters_max=10)
    wanted = tuple(Commit(*stream, 1, 2) for stream in streams)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(committer.run, Inbox(mailbox, name="committer"))
        together = await Ref(mailbox).ask(CommitTogether(wanted), deadline_s=20)
        assert together == [CommitAlone()] * 3
        alone = [await Ref(mailbox).ask(wanted[n], deadline_s=20) for n in (0, 2)]
        nursery.cancel_scope.cancel()
    assert all(isinstance(answer, Committed) for answer in alone)
