"""Who has little under way goes first: for whom a large group waits, how long, and how it is sealed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from actors.asking import ASKED_AT_ONCE_MAX
from actors.messages import Append, AppendedLegacy, AppendLegacy, Seal, SealAtRest, Sealed
from actors.right_of_way import (
    GATHERED_BYTES,
    GATHERED_SHARE,
    LARGE_EVENTS,
    LATELY_S,
    LITTLE_BYTES,
    MUCH_BYTES,
    PATIENCE_S,
    Passage,
    RightOfWay,
)
from actors.sequencer import GATHERING_S, SEALED_AT_ONCE_MAX
from journal.memory import MemoryJournal
from journal.port import Away, Group, Moved, Passing, Stored
from tests.house.test_sealing_in_parts import appended_in_parts, many, numbers, sealed, stored
from tests.http.doubles import AGENT, STORE, TENANT
from tests.journal.journal_builders import an_event, decided
from ves.legacy import LegacyBatch, LegacyEvent
from ves.records import Facts, Question

LARGE, LITTLE, THIRD = b"1" * 16, b"2" * 16, b"3" * 16
PATIENT_S = LARGE_EVENTS * PATIENCE_S
"""So long does the smallest of the large groups wait."""
WHILE_S = PATIENT_S / 4


@asynccontextmanager
async def under_way(
    way: RightOfWay, tenant_id: bytes | None, seconds: float, size: int = 1
) -> AsyncIterator[None]:
    """A request that has begun, and ends by itself."""

    async def be(task_status: trio.TaskStatus[None]) -> None:
        with way.request(tenant_id, size):
            task_status.started()
            await trio.sleep(seconds)

    async with trio.open_nursery() as nursery:
        await nursery.start(be)
        yield
        nursery.cancel_scope.cancel()


async def seconds_of_a_step(passage: Passage) -> float:
    began = trio.current_time()
    await passage.step()
    return trio.current_time() - began


async def test_a_large_group_lets_pass_who_has_little_under_way(autojump_clock: MockClock) -> None:
    way = RightOfWay()
    with way.group(LARGE, LARGE_EVENTS) as passage:
        assert await seconds_of_a_step(passage) == 0
        async with under_way(way, LITTLE, WHILE_S), under_way(way, THIRD, 2 * WHILE_S):
            assert await seconds_of_a_step(passage) == pytest.approx(2 * WHILE_S)
        assert await seconds_of_a_step(passage) == 0
    assert way.waited_s == pytest.approx(2 * WHILE_S)
    assert way.tenants == 0, "nobody is remembered"


async def test_its_patience_is_for_the_whole_group(autojump_clock: MockClock) -> None:
    way = RightOfWay()
    for _ in range(2):
        with way.group(LARGE, LARGE_EVENTS) as passage:
            async with under_way(way, LITTLE, WHILE_S):
                assert await seconds_of_a_step(passage) == pytest.approx(WHILE_S)
            async with under_way(way, LITTLE, 9):
                assert await seconds_of_a_step(passage) == pytest.approx(PATIENT_S - WHILE_S)
                assert await seconds_of_a_step(passage) == 0
    assert way.waited_s == pytest.approx(2 * PATIENT_S)


async def test_it_goes_on_when_those_it_waits_for_have_more_under_way(autojump_clock: MockClock) -> None:
    way = RightOfWay()
    with way.group(LARGE, LARGE_EVENTS) as passage:
        async with under_way(way, LITTLE, 9), trio.open_nursery() as nursery:

            async def bring_more() -> None:
                await trio.sleep(WHILE_S)
                async with under_way(way, LITTLE, 9, LITTLE_BYTES):
                    await trio.sleep(9)

            nursery.start_soon(bring_more)
            assert await seconds_of_a_step(passage) == pytest.approx(WHILE_S)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("tenant_id", "size"), [(LITTLE, LITTLE_BYTES), (LARGE, 1), (None, 1)], ids=["much", "its own", "whose?"]
)
async def test_for_these_it_does_not_wait(
    tenant_id: bytes | None, size: int, autojump_clock: MockClock
) -> None:
    way = RightOfWay()
    with way.group(LARGE, LARGE_EVENTS) as passage:
        async with under_way(way, tenant_id, 9, size):
            assert await seconds_of_a_step(passage) == 0
            assert not passage.is_large_beside_others


async def test_the_more_events_the_more_patience(autojump_clock: MockClock) -> None:
    way = RightOfWay()
    async with under_way(way, LITTLE, 9):
        with way.group(LARGE, 3 * LARGE_EVENTS) as passage:
            assert await seconds_of_a_step(passage) == pytest.approx(3 * PATIENT_S)


async def test_who_must_hurry_or_is_nearly_done_waits_for_nobody(autojump_clock: MockClock) -> None:
    way = RightOfWay()
    async with under_way(way, LITTLE, 9):
        with way.group(LARGE, LARGE_EVENTS) as passage:
            began = trio.current_time()
            await passage.turn()
            assert trio.current_time() == began
            assert passage.is_large_beside_others
            passage.hurry()
            assert await seconds_of_a_step(passage) == 0
            assert not passage.is_large_beside_others


async def test_those_who_waited_go_on_one_after_the_other(autojump_clock: MockClock) -> None:
    """Or whoever comes in the same moment would have all their steps before him."""
    way = RightOfWay()
    order: list[str] = []

    async def large(name: str, tenant_id: bytes) -> None:
        with way.group(tenant_id, LARGE_EVENTS) as passage:
            await passage.step()
            order.append(name)
            if name == "first":  # in the same turn somebody else has come
                nursery.start_soon(little)
                with way.request(THIRD, 1):
                    await trio.sleep(WHILE_S)
                    order.append("little")

    async def little() -> None:
        with way.request(LITTLE, 1):
            await trio.sleep(WHILE_S / 2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(little)
        await trio.testing.wait_all_tasks_blocked()
        for number, name in enumerate(("first", "second", "last")):
            nursery.start_soon(large, name, bytes([number]) * 16)
            await trio.testing.wait_all_tasks_blocked()
    assert order[:2] == ["first", "little"]
    assert sorted(order[2:]) == ["last", "second"]
    assert way.tenants == 0


async def test_two_large_groups_do_not_wait_for_each_other(autojump_clock: MockClock) -> None:
    way = RightOfWay()
    async with under_way(way, LARGE, 9), under_way(way, LITTLE, 9):
        with way.group(LARGE, LARGE_EVENTS) as one, way.group(LITTLE, LARGE_EVENTS) as other:
            assert await seconds_of_a_step(one) == 0
            assert await seconds_of_a_step(other) == 0
        with way.group(LARGE, LARGE_EVENTS) as one:
            assert await seconds_of_a_step(one) == pytest.approx(PATIENT_S), "the other one is little again"


async def test_a_small_group_waits_for_nobody(autojump_clock: MockClock) -> None:
    way = RightOfWay()
    with way.group(LARGE, LARGE_EVENTS - 1) as passage:
        async with under_way(way, LITTLE, 9):
            assert await seconds_of_a_step(passage) == 0
            assert not passage.is_large_beside_others


async def test_a_wait_is_never_cancelled(autojump_clock: MockClock) -> None:
    way = RightOfWay()
    with way.group(LARGE, LARGE_EVENTS) as passage:
        async with under_way(way, LITTLE, WHILE_S):
            with trio.CancelScope() as scope:
                scope.cancel()
                assert await seconds_of_a_step(passage) == pytest.approx(WHILE_S)


async def test_it_works_in_short_steps_only_while_others_come(autojump_clock: MockClock) -> None:
    way = RightOfWay()
    with way.group(LARGE, LARGE_EVENTS) as passage:
        assert not passage.is_large_beside_others, "nobody came yet"
        with way.request(LITTLE, 1):
            pass
        with way.request(LARGE, 1), way.request(THIRD, LITTLE_BYTES):
            pass
        await trio.sleep(LATELY_S / 2)
        assert passage.is_large_beside_others
        await trio.sleep(LATELY_S / 2)
        assert not passage.is_large_beside_others
        with way.request(THIRD, 1):
            assert passage.is_large_beside_others


async def test_who_came_before_its_own_tenant_is_not_forgotten(autojump_clock: MockClock) -> None:
    way = RightOfWay()
    with way.request(LITTLE, 1):
        pass
    await trio.sleep(LATELY_S / 2)
    for _ in range(2):
        with way.request(LARGE, 1):
            pass
    with way.group(LARGE, LARGE_EVENTS) as passage:
        assert passage.is_large_beside_others
        await trio.sleep(LATELY_S / 2)
        assert not passage.is_large_beside_others


async def sizes_sealed(events: int, way: RightOfWay, versions: list[int]) -> list[int]:
    """By four encryptors."""
    sizes: list[int] = []
    under_way_now = most_at_once = 0

    async def seal(message: Seal) -> Sealed:
        nonlocal under_way_now, most_at_once
        sizes.append(len(message.events))
        under_way_now += 1
        most_at_once = max(most_at_once, under_way_now)
        await trio.sleep(0.001)
        under_way_now -= 1
        return sealed(message, versions.pop(0) if versions else 1)

    async with appended_in_parts(seal, 4, way) as (sequencer, database):
        answer = await sequencer.ask(many(events), deadline_s=10)
    assert numbers(answer) == [(n, n) for n in range(1, events + 1)]
    assert stored(database) == events
    assert way.tenants == 0
    assert most_at_once == (4 if len(set(sizes)) == 1 else 3), "beside others one encryptor is left to them"
    return sorted(sizes)


async def test_beside_others_a_large_group_is_sealed_in_short_steps_and_is_one_group_all_the_same(
    autojump_clock: MockClock,
) -> None:
    way = RightOfWay()
    assert await sizes_sealed(260, way, []) == [65, 65, 65, 65], "alone: by all encryptors at once"
    async with under_way(way, LITTLE, WHILE_S):
        assert await sizes_sealed(260, way, []) == [4, *[SEALED_AT_ONCE_MAX] * 4]
    assert way.waited_s == pytest.approx(WHILE_S)
    with way.request(LITTLE, 1):
        pass
    assert await sizes_sealed(260, way, [1, 1, 2, 2, 2]) == [4, *[SEALED_AT_ONCE_MAX] * 4, 260]


def unsigned_event(number: int) -> LegacyEvent:
    return LegacyEvent(
        event_id=number.to_bytes(16, "big"),
        source_agent=AGENT.bytes,
        entity_type="order",
        entity_id=str(number),
        event_type="order.created",
        created_at_us=1,
        payload=b"{}",
        payload_hash=bytes(32),
        signature=None,
        command_id=None,
        base_version=None,
    )


async def seal(message: Seal | SealAtRest) -> Sealed | list[bytes]:
    return sealed(message) if isinstance(message, Seal) else [value.content for value in message.values]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many event ids each question for facts had."""
    sizes: list[int] = []
    read = MemoryJournal.read_facts

    async def read_facts(journal: MemoryJournal, question: Question) -> Facts:
        sizes.append(len(question.event_ids))
        return await read(journal, question)

    monkeypatch.setattr(MemoryJournal, "read_facts", read_facts)
    return sizes


@pytest.mark.parametrize(("events", "waits_s"), [(LARGE_EVENTS, PATIENT_S), (LARGE_EVENTS - 1, 0)])
async def test_a_large_legacy_group_lets_pass_too(
    events: int, waits_s: float, autojump_clock: MockClock
) -> None:
    way = RightOfWay()
    unsigned = [unsigned_event(n) for n in range(events)]
    letter = AppendLegacy(LegacyBatch(TENANT.bytes, STORE.bytes, AGENT.bytes, [*unsigned]), None)
    async with appended_in_parts(seal, 4, way) as (sequencer, _), under_way(way, LITTLE, 9):
        answer: AppendedLegacy = await sequencer.ask(letter, deadline_s=10)
    assert (answer.events_accepted, answer.sequence_end) == (events, events)
    assert way.waited_s == pytest.approx(waits_s)


async def test_a_group_that_is_decided_anew_does_not_wait_anew(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = RightOfWay()
    outcomes: list[Moved] = [Moved("another was first")] * 3
    append = MemoryJournal.append

    async def moved_at_first(
        journal: MemoryJournal, group: Group, passing: Passing | None
    ) -> Stored | Moved | Away:
        assert passing is None, "it has waited enough"
        return outcomes.pop() if outcomes else await append(journal, group)

    monkeypatch.setattr(MemoryJournal, "append", moved_at_first)
    async with appended_in_parts(seal, 1, way) as (sequencer, database), under_way(way, LITTLE, 9):
        await sequencer.ask(many(LARGE_EVENTS), deadline_s=10)
    assert stored(database) == LARGE_EVENTS
    assert not outcomes
    assert way.waited_s == pytest.approx(PATIENT_S)


async def test_beside_others_facts_are_asked_in_parts(asked: list[int], autojump_clock: MockClock) -> None:
    way = RightOfWay()
    async with appended_in_parts(seal, 1, way) as (sequencer, database):
        await sequencer.ask(many(2 * ASKED_AT_ONCE_MAX + 1), deadline_s=10)
        with way.request(LITTLE, 1):
            pass
        await sequencer.ask(many(LARGE_EVENTS - 1), deadline_s=10)
        batch = many(2 * ASKED_AT_ONCE_MAX + 1)
        answer = await sequencer.ask(batch, deadline_s=10)
        again = await sequencer.ask(batch, deadline_s=10)
    whole = 2 * ASKED_AT_ONCE_MAX + 1
    assert asked == [whole, LARGE_EVENTS - 1, *[whole // 3] * 6]
    assert stored(database) == 2 * whole + LARGE_EVENTS - 1
    assert answer.events_accepted == again.events_replayed == whole
    assert numbers(again) == numbers(answer), "every one of them was found"


async def test_an_append_between_two_parts_of_the_facts_is_seen(
    asked: list[int], autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = MemoryJournal.read_facts

    async def read_facts(journal: MemoryJournal, question: Question) -> Facts:
        facts = await read(journal, question)
        if len(asked) == 1:  # another node
            event = an_event(agent=AGENT.bytes)
            assert await journal.append(await decided(journal, TENANT.bytes, STORE.bytes, event)) == Stored()
        return facts

    monkeypatch.setattr(MemoryJournal, "read_facts", read_facts)
    way = RightOfWay()
    async with appended_in_parts(seal, 1, way) as (sequencer, database), under_way(way, LITTLE, WHILE_S):
        answer = await sequencer.ask(many(2 * ASKED_AT_ONCE_MAX), deadline_s=10)
    assert asked == [ASKED_AT_ONCE_MAX, 1, ASKED_AT_ONCE_MAX, 2 * ASKED_AT_ONCE_MAX], "anew, in one statement"
    assert [number for number, _ in numbers(answer)] == list(range(2, 2 * ASKED_AT_ONCE_MAX + 2))
    assert stored(database) == 2 * ASKED_AT_ONCE_MAX + 1


@pytest.mark.parametrize("signed", [True, False])
async def test_beside_others_the_journal_is_told_how_to_let_pass(
    signed: bool, asked: list[int], autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Passing | None] = []
    name = "append" if signed else "append_legacy"
    append = getattr(MemoryJournal, name)

    async def watched(journal: MemoryJournal, group: Group, passing: Passing | None) -> Stored | Moved | Away:
        told.append(passing)
        outcome: Stored | Moved | Away = await append(journal, group, passing)
        return outcome

    monkeypatch.setattr(MemoryJournal, name, watched)

    def letter(first: int) -> Append | AppendLegacy:
        if signed:
            return many(LARGE_EVENTS)
        unsigned = [unsigned_event(n) for n in range(first, first + LARGE_EVENTS)]
        return AppendLegacy(LegacyBatch(TENANT.bytes, STORE.bytes, AGENT.bytes, [*unsigned]), None)

    way = RightOfWay()
    async with appended_in_parts(seal, 1, way) as (sequencer, _):
        await sequencer.ask(letter(0), deadline_s=10)
        with way.request(LITTLE, 1):
            pass
        await sequencer.ask(letter(LARGE_EVENTS), deadline_s=10)
    assert [passing is None for passing in told] == [True, False]
    assert asked == [LARGE_EVENTS, LARGE_EVENTS // 2, LARGE_EVENTS // 2]


async def test_in_a_transaction_only_one_group_waits(autojump_clock: MockClock) -> None:
    way = RightOfWay()
    with way.group(LARGE, LARGE_EVENTS) as one, way.group(THIRD, LARGE_EVENTS) as other:
        assert one.in_transaction is None, "nobody else is there"
        async with under_way(way, LITTLE, WHILE_S):
            first, second = one.in_transaction, other.in_transaction
            assert first
            assert second
            assert first.is_due
            assert second.is_due
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first.step)
                await trio.testing.wait_all_tasks_blocked()
                assert not second.is_due
                began = trio.current_time()
                await second.step()  # it was due when it was asked
                assert trio.current_time() == began
                assert not second.is_due, "the first one still waits"
            assert way.waited_s == pytest.approx(WHILE_S)
            assert not second.is_due, "who was let pass is gone"
        async with under_way(way, LITTLE, 9):
            assert second.is_due
            await first.step()
            assert way.waited_s == pytest.approx(PATIENT_S), "of the whole group"
            assert not first.is_due
            assert second.is_due
            other.hurry()
            assert not second.is_due
            assert one.in_transaction is other.in_transaction is None
            with way.group(b"4" * 16, LARGE_EVENTS - 1) as small:
                assert small.in_transaction is None


@pytest.mark.parametrize(
    ("requests", "size", "wanted"),
    [
        (0, 1, 1),
        (64, MUCH_BYTES // 64 - 1, 1),  # little altogether
        (64, MUCH_BYTES // 64, 64 // GATHERED_SHARE),
        (8, MUCH_BYTES // 4, 8 // GATHERED_SHARE),
        (64, GATHERED_BYTES // 10, 10),  # so many make a large group
        (64, GATHERED_BYTES, 1),
        (64, 4 * GATHERED_BYTES, 0),
        (3, GATHERED_BYTES, 0),
    ],
)
async def test_of_much_that_is_under_way_a_share_is_worth_waiting_for(
    requests: int, size: int, wanted: int
) -> None:
    way = RightOfWay()
    with ExitStack() as stack:
        for _ in range(requests):
            stack.enter_context(way.request(LARGE, size))
        stack.enter_context(way.request(LITTLE, 1))
        assert way.worth_waiting_for(LARGE) == wanted
        assert way.worth_waiting_for(LITTLE) == way.worth_waiting_for(THIRD) == 1


async def test_a_sequencer_waits_for_more_of_its_tenants_requests_while_much_is_under_way(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    append = MemoryJournal.append

    async def watched(journal: MemoryJournal, group: Group, passing: Passing | None) -> Stored | Moved | Away:
        groups.append(len(group.numbered))
        return await append(journal, group, passing)

    monkeypatch.setattr(MemoryJournal, "append", watched)
    way = RightOfWay()
    began = trio.current_time()
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(way.request(TENANT.bytes, MUCH_BYTES // 8))
        async with (
            appended_in_parts(seal, 1, way, letters_max=9) as (sequencer, _),
            trio.open_nursery() as nursery,
        ):
            for _ in range(4):
                nursery.start_soon(lambda: sequencer.ask(many(10), deadline_s=10))
                await trio.testing.wait_all_tasks_blocked()
            assert groups == [20, 20], "a quarter of eight"
            assert trio.current_time() == began
            await sequencer.ask(many(10), deadline_s=10)
            assert trio.current_time() == pytest.approx(began + GATHERING_S), "no other one came"
            assert groups == [20, 20, 10]


async def test_a_group_stays_large_until_it_is_over_whatever_becomes_of_it() -> None:
    way = RightOfWay()
    scope = trio.CancelScope()
    with scope, way.group(LARGE, LARGE_EVENTS), way.request(LITTLE, 1):
        assert way.tenants == 2
        scope.cancel()
        await trio.sleep_forever()
    assert way.tenants == 0
