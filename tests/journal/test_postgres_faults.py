"""What only a real PostgreSQL can do to us: silent networks, standbys, crashes, cancelled callers."""

from __future__ import annotations

import asyncio
import copy
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
import trio
from journal_builders import AUDIT, a_group, an_agent_key, an_event, decided, question, uuid
from journal_worlds import LIMITS, PostgresWorld, postgres_world, sql
from legacy_builders import a_legacy_event, legacy_decided

from journal.aio import cross, open_loop
from journal.embedded import EmbeddedPostgres
from journal.locks import tenant_lock
from journal.port import Away, JournalAway, JournalOutcomeUnknown, Moved, Stored
from journal.postgres import open_journal
from journal.units import Contended


async def head(world: PostgresWorld, tenant: bytes, store: bytes) -> int:
    return await world.other.read_head(tenant, store)


@asynccontextmanager
async def a_standby_that_never_answers(world: PostgresWorld) -> AsyncIterator[None]:
    """Every COMMIT is durable here and waits for ever for a copy elsewhere."""
    await _standby_names(world, "nobody")
    try:
        yield
    finally:
        await _standby_names(world, "")


async def _standby_names(world: PostgresWorld, names: str) -> None:
    await sql(
        world.owner_dsn,
        f"ALTER SYSTEM SET synchronous_standby_names = '{names}'",
        "SELECT pg_reload_conf()",
    )
    with trio.fail_after(5):
        while (await sql(world.owner_dsn, "SHOW synchronous_standby_names"))[0][0] != names:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def eventually(what: Callable[[], Any]) -> Any:
    with trio.fail_after(10):
        while not (answer := await what()):  # noqa: ASYNC110  PostgreSQL rings no bell
            await trio.sleep(0.02)
    return answer


async def sessions(world: PostgresWorld, condition: str) -> list[Any]:
    return await sql(
        world.owner_dsn,
        f"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND {condition}",
    )


@pytest.mark.slow
async def test_a_commit_that_is_not_answered_in_time_is_unknown_and_never_cancelled(
    postgres: PostgresWorld,
) -> None:
    tenant, store = uuid(), uuid()
    group = await decided(postgres.journal, tenant, store, an_event())
    async with a_standby_that_never_answers(postgres):
        started = trio.current_time()
        with pytest.raises(JournalOutcomeUnknown):
            await postgres.journal.append(group)
        assert LIMITS.unit_deadline_s <= trio.current_time() - started < LIMITS.unit_deadline_s + 2
        assert await head(postgres, tenant, store) == 0
    # It was on its way all the time: the successor waits for it and then sees it.
    await postgres.journal.settle(tenant)
    assert await head(postgres, tenant, store) == 1


async def test_a_commit_answered_with_a_warning_is_unknown(postgres: PostgresWorld) -> None:
    tenant, store = uuid(), uuid()
    group = await decided(postgres.journal, tenant, store, an_event())
    raised: list[BaseException] = []

    async def append() -> None:
        try:
            await postgres.journal.append(group)
        except JournalOutcomeUnknown as error:
            raised.append(error)

    async with a_standby_that_never_answers(postgres), trio.open_nursery() as nursery:
        nursery.start_soon(append)
        [[pid]] = await eventually(lambda: sessions(postgres, "wait_event = 'SyncRep'"))
        await sql(postgres.owner_dsn, f"SELECT pg_cancel_backend({pid})")
    assert len(raised) == 1
    assert await head(postgres, tenant, store) == 1


async def test_a_session_ended_at_commit_is_unknown(postgres: PostgresWorld) -> None:
    tenant, store = uuid(), uuid()
    group = await decided(postgres.journal, tenant, store, an_event())
    raised: list[BaseException] = []

    async def append() -> None:
        try:
            await postgres.journal.append(group)
        except JournalOutcomeUnknown as error:
            raised.append(error)

    async with a_standby_that_never_answers(postgres), trio.open_nursery() as nursery:
        nursery.start_soon(append)
        [[pid]] = await eventually(lambda: sessions(postgres, "wait_event = 'SyncRep'"))
        await sql(postgres.owner_dsn, f"SELECT pg_terminate_backend({pid})")
    assert len(raised) == 1
    await eventually(lambda: head(postgres, tenant, store))


@pytest.mark.slow
@pytest.mark.parametrize("large", [False, True])
async def test_a_silent_network_is_noticed_within_the_deadline(
    postgres: PostgresWorld, request: pytest.FixtureRequest, large: bool
) -> None:
    """Before COMMIT it is away. A small group's append is its COMMIT."""
    tenant, store = uuid(), uuid()
    group = await decided(postgres.journal, tenant, store, an_event())
    postgres.proxy.freeze()
    started = trio.current_time()
    if large:
        request.getfixturevalue("as_if_large")
        assert isinstance(await postgres.journal.append(group), Away)
    else:
        with pytest.raises(JournalOutcomeUnknown, match="not answered in time"):
            await postgres.journal.append(group)
    with pytest.raises(JournalAway):
        await postgres.journal.ping()
    assert trio.current_time() - started < 2 * (LIMITS.unit_deadline_s + 2)
    postgres.proxy.thawed.set()
    await postgres.journal.settle(tenant)
    assert await head(postgres, tenant, store) == 0
    assert isinstance(await postgres.journal.append(group), Stored)


async def test_who_asks_whether_a_silent_database_is_there_is_not_kept_waiting(
    postgres: PostgresWorld,
) -> None:
    patient = type(LIMITS)(unit_deadline_s=600)
    async with open_journal(postgres.proxy.dsn, node_id=uuid(), limits=patient) as journal:
        await journal.ping()
        postgres.proxy.freeze()
        with trio.fail_after(30), pytest.raises(JournalAway):
            await journal.ping()
        postgres.proxy.thawed.set()


async def test_units_that_find_no_free_connection_in_time_are_away(server: EmbeddedPostgres) -> None:
    limits = type(LIMITS)(connections_max=1, unit_deadline_s=0.5)
    async with open_loop(), open_journal(server.app_dsn, node_id=uuid(), limits=limits) as journal:
        patient = copy.copy(journal._units)
        patient.deadline_s = 5
        async with trio.open_nursery() as nursery:
            asked = "SELECT pg_sleep(1)"
            nursery.start_soon(cross, lambda: patient.write(lambda c: c.fetch(asked), named="t"))
            await trio.sleep(0.2)
            with pytest.raises(JournalAway, match="deadline"):
                await journal.ping()
        await journal.ping()


async def test_waiting_too_long_for_a_lock_is_moved_for_an_append_and_contended_for_others(
    server: EmbeddedPostgres,
) -> None:
    limits = type(LIMITS)(connections_max=2, lock_timeout_s=0.2)
    async with open_loop(), open_journal(server.app_dsn, node_id=uuid(), limits=limits) as journal:
        tenant, store = uuid(), uuid()
        group = await decided(journal, tenant, store, an_event())
        async with trio.open_nursery() as nursery:
            lock = f"SELECT pg_advisory_xact_lock({tenant_lock(tenant)}), pg_sleep(1.2)"
            nursery.start_soon(sql, server.app_dsn, lock)
            await trio.sleep(0.3)
            assert isinstance(await journal.append(group), Moved)
            with pytest.raises(Contended):
                await journal.settle(tenant)
        assert isinstance(await journal.append(group), Stored)


async def test_an_append_that_waited_for_the_key_lock_sees_the_epoch_committed_meanwhile(
    postgres: PostgresWorld,
) -> None:
    tenant, store = uuid(), uuid()
    group = await decided(postgres.journal, tenant, store, an_event())
    outcome: list[object] = []

    async def append() -> None:
        outcome.append(await postgres.journal.append(group))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            sql,
            postgres.dsn,
            f"BEGIN; SELECT pg_advisory_xact_lock({tenant_lock(tenant)})",
            f"INSERT INTO record.tenant_epochs VALUES ('{tenant.hex()}', 1, 0)",
            "SELECT pg_sleep(0.4)",
            "COMMIT",
        )
        await trio.sleep(0.2)
        nursery.start_soon(append)
        await trio.sleep(0.05)
        assert not outcome
    assert outcome == [Moved("a key or a credential")]


async def test_each_statement_of_the_advance_has_a_snapshot_of_its_own(postgres: PostgresWorld) -> None:
    """It waits inside, at the first stream's counter; what was committed meanwhile about the second, which
    it only looks at, is seen by the statement after."""
    tenant, (first, second) = uuid(), sorted((uuid(), uuid()))
    events = [an_event(), an_event()]
    facts = await postgres.journal.read_facts(question(tenant, [first, second], events))
    await postgres.journal.append(a_group(facts, [(first, events[0]), (second, events[1])]))
    event = an_event()
    facts = await postgres.journal.read_facts(question(tenant, [first, second], [event]))
    group = a_group(facts, [(first, event)])
    outcome: list[object] = []

    async def append() -> None:
        outcome.append(await postgres.journal.append(group))

    where = f"tenant_id = '{tenant.hex()}' AND store_id ="
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            sql,
            postgres.dsn,
            "BEGIN",
            f"SELECT FROM record.ves_sequence_counters WHERE {where} '{first.hex()}' FOR UPDATE",
            f"UPDATE record.ves_sequence_counters SET current_sequence = 2 WHERE {where} '{second.hex()}'",
            "SELECT pg_sleep(0.4)",
            "COMMIT",
        )
        await trio.sleep(0.2)
        nursery.start_soon(append)
    assert outcome == [Moved("a stream")]


@pytest.mark.parametrize("counters", ["ves_sequence_counters", "sequence_counters"])
async def test_settling_waits_for_a_writer_that_came_without_the_key_lock(
    postgres: PostgresWorld, counters: str
) -> None:
    tenant, store = uuid(), uuid()
    await postgres.journal.append(await decided(postgres.journal, tenant, store, an_event()))
    await postgres.journal.append_legacy(
        await legacy_decided(postgres.journal, tenant, store, a_legacy_event())
    )
    released = False

    async def write() -> None:
        nonlocal released
        connection = await asyncpg.connect(postgres.dsn)
        try:
            await connection.execute("BEGIN")
            await connection.execute(
                f"SELECT FROM record.{counters} WHERE tenant_id = '{tenant.hex()}' FOR UPDATE"
            )
            await connection.execute("SELECT pg_sleep(0.6)")
            released = True  # before the lock is free: whoever waited for it may hear of that first
        finally:
            await connection.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cross, write)
        await trio.sleep(0.3)
        await postgres.other.settle(tenant)
        assert released


async def test_a_storm_of_cancelled_callers_leaks_no_connection_and_no_transaction(
    postgres: PostgresWorld,
) -> None:
    tenant, store = uuid(), uuid()
    stored = 0

    async def one(number: int) -> None:
        nonlocal stored
        event = an_event()
        with trio.move_on_after(0.0005 * (number % 13)):
            facts = await postgres.journal.read_facts(question(tenant, [store], [event]))
            await trio.lowlevel.checkpoint()
            await postgres.journal.append(a_group(facts, [(store, event)]))
            await postgres.journal.settle(tenant)

    async with trio.open_nursery() as nursery:
        for number in range(120):
            nursery.start_soon(one, number)

    sizes = [pool.get_size() for pool in postgres.pools]
    assert postgres.journal.vitals().connections_in_use == 0
    assert sizes[0] <= LIMITS.connections_max
    assert sizes[1] <= LIMITS.writers_max
    through = "application_name = 'through proxy'"
    assert await sessions(postgres, f"{through} AND state <> 'idle'") == []
    assert len(await sessions(postgres, through)) == sum(sizes)
    page = await postgres.other.read_events(tenant, store, from_sequence=1, limit=1000, bytes_max=1 << 20)
    assert len(page.events) == page.head_sequence
    async with trio.open_nursery() as nursery:
        for _ in range(2 * LIMITS.connections_max):
            nursery.start_soon(postgres.journal.ping)


@pytest.mark.parametrize("large", [False, True])
async def test_a_crash_at_any_point_before_commit_stores_nothing_and_after_it_everything(
    server: EmbeddedPostgres, request: pytest.FixtureRequest, large: bool
) -> None:
    points = ["append.begin", "append.commit_sent_before"]
    if large:
        request.getfixturevalue("as_if_large")
        points += ["append.fenced", "append.copied"]

    class Crash(Exception):
        pass

    crash_at = ""

    def checkpoint(name: str) -> None:
        if name == crash_at:
            raise Crash(name)

    async with (
        open_loop(),
        open_journal(server.app_dsn, node_id=uuid(), limits=LIMITS, checkpoint=checkpoint) as journal,
    ):
        tenant, store = uuid(), uuid()
        for crash_at in points:  # noqa: B007  read by the checkpoint
            group = await decided(journal, tenant, store, an_event())
            with pytest.raises(Crash):
                await journal.append(group)
            assert await journal.read_head(tenant, store) == 0
        crash_at = "append.committed"
        with pytest.raises(Crash):
            await journal.append(group)
        assert await journal.read_head(tenant, store) == 1


async def test_a_mistake_of_our_own_surfaces_and_is_not_called_away(postgres: PostgresWorld) -> None:
    tenant, store = uuid(), uuid()
    for wrong in (an_event(entity_id="a\x00b"), an_event(entity_id="x" * 513), an_event(entity_id="\ud800")):
        facts = await postgres.journal.read_facts(question(tenant, [store]))
        group = a_group(facts, [(store, wrong)])
        with pytest.raises(asyncpg.PostgresError) as caught:
            await postgres.journal.append(group)
        assert "Failing row" not in str(caught.value)
    assert await head(postgres, tenant, store) == 0


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGQUIT])
async def test_a_database_that_is_killed_and_comes_back_is_used_again(
    server: EmbeddedPostgres, kill: signal.Signals
) -> None:
    async with postgres_world(server.app_dsn, server.owner_dsn, strays_max=2) as world:
        tenant, store = uuid(), uuid()
        await world.journal.append(await decided(world.journal, tenant, store, an_event()))
        pid = server.pid
        assert pid is not None
        os.kill(pid, kill)
        away = 0
        with trio.fail_after(20):
            while True:
                try:
                    group = await decided(world.journal, tenant, store, an_event())
                    # The first one may still be served: the postmaster passes the signal on.
                    if isinstance(await world.journal.append(group), Stored) and away:
                        break
                except (JournalAway, JournalOutcomeUnknown):
                    away += 1
                await trio.sleep(0.05)
        assert await head(world, tenant, store) >= 2


@pytest.mark.slow
async def test_a_copy_whose_sender_has_stopped_is_ended_by_whoever_else_looks(
    postgres: PostgresWorld,
) -> None:
    """No timeout of PostgreSQL's holds there: its own node is stopped and sends nothing any more."""
    tenant, store = uuid(), uuid()
    await postgres.journal.append(await decided(postgres.journal, tenant, store, an_event()))
    continued = asyncio.Event()

    async def stopped_inside_a_copy() -> None:
        async def rows() -> AsyncIterator[bytes]:
            await continued.wait()
            yield b""

        connection = await asyncpg.connect(postgres.dsn)
        try:
            await connection.execute(f"BEGIN; {COUNTERS_LOCKED.format(tenant.hex())}")
            with pytest.raises(asyncpg.ConnectionDoesNotExistError, match="administrator command"):
                await connection.copy_to_table("ves_events", schema_name="record", source=rows())
        finally:
            connection.terminate()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cross, stopped_inside_a_copy)
        await eventually(lambda: sessions(postgres, WAITS_FOR_ROWS))
        group = await decided(postgres.other, tenant, store, an_event())
        await postgres.other.ping()
        assert await sessions(postgres, WAITS_FOR_ROWS), "not at once: it may only be slow"

        async def looked_after() -> bool:
            await postgres.other.ping()
            return not await sessions(postgres, WAITS_FOR_ROWS)

        try:
            await eventually(looked_after)
        finally:
            continued.set()
        assert isinstance(await postgres.other.append(group), Stored)


WAITS_FOR_ROWS = "query LIKE 'COPY%' AND wait_event = 'ClientRead'"
COUNTERS_LOCKED = "SELECT FROM record.ves_sequence_counters WHERE tenant_id = '{}' FOR UPDATE"


DISK_FULL = "DO 'BEGIN RAISE EXCEPTION USING ERRCODE = ''disk_full''; END'"


async def test_after_a_write_without_space_the_database_is_away_until_there_is_room(
    postgres: PostgresWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write(connection: Any) -> None:
        await connection.execute(DISK_FULL)

    await postgres.journal.ping()
    with pytest.raises(JournalAway):
        await cross(lambda: postgres.units.write(write, named="test"))
    with monkeypatch.context() as still_full:
        still_full.setattr("journal.postgres._ROOM", DISK_FULL)
        for _ in range(2):
            with pytest.raises(JournalAway):
                await postgres.journal.ping()
    await postgres.journal.ping()
    assert postgres.units.condition.disk_full is None


async def test_a_read_only_database_is_away(postgres: PostgresWorld) -> None:
    tenant, store = uuid(), uuid()
    group = await decided(postgres.journal, tenant, store, an_event())

    async def read_only(connection: Any) -> None:
        await connection.execute("SET default_transaction_read_only = on")

    await postgres.journal.ping()
    for units, pool in zip((postgres.units, postgres.appending), postgres.pools, strict=True):
        assert pool.get_size() == 1  # so this is the session that will be used
        await cross(lambda units=units: units.read(read_only))
    assert isinstance(await postgres.journal.append(group), Away)
    await cross(lambda: postgres.units.read(read_only))  # that session was not kept; this is the next one
    with pytest.raises(JournalAway):
        await postgres.journal.register_agent_key(an_agent_key(tenant), AUDIT)
    assert await head(postgres, tenant, store) == 0


async def test_a_journal_that_is_left_by_cancellation_leaves_no_session_behind(
    server: EmbeddedPostgres,
) -> None:
    name = f"left {uuid().hex()}"
    async with open_loop():
        with trio.CancelScope() as scope:
            async with open_journal(server.app_dsn, node_id=uuid(), application_name=name) as journal:
                pool = journal._units._pool
                await journal.ping()
                scope.cancel()
                await trio.sleep_forever()
        assert pool._closed
        question_text = f"SELECT FROM pg_stat_activity WHERE application_name = '{name}'"

        async def gone() -> bool:
            return not await sql(server.owner_dsn, question_text)

        assert await eventually(gone)
