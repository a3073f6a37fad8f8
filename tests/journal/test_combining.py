"""Who goes together, in virtual time and without a database."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from journal.combining import LaneLimits, Lanes, NoTurn
from journal.port import JournalOutcomeUnknown

LIMITS = LaneLimits(lanes=1, members_max=4, weight_max=10, patience_s=15.0)


class Door:
    """Lets combinations through when told to, and notes who was in them."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.open = trio.Semaphore(0)
        self.fails: BaseException | None = None

    async def act(self, requests: Sequence[int]) -> list[int]:
        self.seen.append(list(requests))
        await self.open.acquire()
        if self.fails is not None:
            raise self.fails
        return [-request for request in requests]


def lanes(door: Door, limits: LaneLimits = LIMITS) -> Lanes[int, int]:
    """A request weighs what it is modulo 100."""
    return Lanes(door.act, limits=limits, weigh=lambda n: n % 100)


async def asking(
    nursery: trio.Nursery, asked: Lanes[int, int], requests: Sequence[int], answers: dict[int, object]
) -> None:
    async def one(request: int) -> None:
        try:
            answers[request] = await asked.ask(request)
        except (NoTurn, JournalOutcomeUnknown, ZeroDivisionError) as error:
            answers[request] = error

    for request in requests:
        nursery.start_soon(one, request)
        await wait_all_tasks_blocked()


async def test_what_gathers_while_the_lane_is_busy_goes_together_in_its_order() -> None:
    door, answers = Door(), dict[int, object]()
    async with trio.open_nursery() as nursery:
        await asking(nursery, lanes(door), [1, 2, 3], answers)
        assert door.seen == [[1]]
        door.open.release()
        await wait_all_tasks_blocked()
        assert door.seen == [[1], [2, 3]]
        assert answers == {1: -1}
        door.open.release()
    assert answers == {1: -1, 2: -2, 3: -3}


@pytest.mark.parametrize(
    ("requests", "together"),
    [
        ([1, 2, 3, 4, 5, 6], [[1], [2, 3, 4], [5], [6]]),  # by weight
        ([1, 101, 201, 301, 401, 501], [[1], [101, 201, 301, 401], [501]]),  # by number
        ([1, 50, 2], [[1], [50], [2]]),  # one that is heavier than a combination
    ],
)
async def test_a_combination_has_its_limits(requests: list[int], together: list[list[int]]) -> None:
    door, answers = Door(), dict[int, object]()
    async with trio.open_nursery() as nursery:
        await asking(nursery, lanes(door), requests, answers)
        for _ in together:
            door.open.release()
    assert door.seen == together
    assert answers == {request: -request for request in requests}


async def test_two_of_a_kind_never_go_together_and_keep_their_order() -> None:
    door, answers = Door(), dict[int, object]()
    async with trio.open_nursery() as nursery:
        asked = Lanes[int, int](door.act, limits=LIMITS, weigh=lambda n: 0, apart=lambda n: n // 10)
        await asking(nursery, asked, [11, 12, 13, 21], answers)
        for _ in range(3):
            door.open.release()
    assert door.seen == [[11], [12, 21], [13]]


async def test_a_second_lane_is_used_before_anybody_waits() -> None:
    door, answers = Door(), dict[int, object]()
    async with trio.open_nursery() as nursery:
        await asking(nursery, lanes(door, replace(LIMITS, lanes=2)), [1, 2, 3, 4], answers)
        assert door.seen == [[1], [2]]
        for _ in range(3):
            door.open.release()
    assert door.seen == [[1], [2], [3, 4]]


async def test_who_is_cancelled_while_waiting_has_begun_nothing_and_who_was_taken_is_told() -> None:
    door, told = Door(), list[int]()
    asked = lanes(door)
    scopes = {request: trio.CancelScope() for request in (1, 2, 3, 4)}

    async def one(request: int) -> None:
        with scopes[request]:
            told.append(await asked.ask(request))

    async with trio.open_nursery() as nursery:
        for request in scopes:
            nursery.start_soon(one, request)
            await wait_all_tasks_blocked()
        scopes[2].cancel()
        await wait_all_tasks_blocked()
        door.open.release()
        await wait_all_tasks_blocked()
        assert door.seen == [[1], [3, 4]]
        for scope in scopes.values():
            scope.cancel()
        await wait_all_tasks_blocked()
        assert told == [-1]
        door.open.release()
    assert sorted(told) == [-4, -3, -1]


async def test_who_gets_no_turn_in_time_is_told_and_leaves_no_trace(autojump_clock: MockClock) -> None:
    door, answers = Door(), dict[int, object]()
    async with trio.open_nursery() as nursery:
        await asking(nursery, lanes(door), [1, 2], answers)
        await trio.sleep(LIMITS.patience_s + 1)
        assert isinstance(answers[2], NoTurn)
        door.open.release()
    assert door.seen == [[1]]


@pytest.mark.parametrize("error", [JournalOutcomeUnknown("no answer"), ZeroDivisionError()])
async def test_an_outcome_that_nobody_knows_is_everybodys_and_the_next_go_on(error: Exception) -> None:
    door, answers = Door(), dict[int, object]()
    async with trio.open_nursery() as nursery:
        await asking(nursery, lanes(door), [1, 2, 3], answers)
        door.open.release()
        await wait_all_tasks_blocked()
        door.fails = error
        door.open.release()
        await wait_all_tasks_blocked()
    assert answers[1] == -1
    assert answers[2] is error
    assert isinstance(answers[3], JournalOutcomeUnknown)
    if isinstance(error, JournalOutcomeUnknown):
        assert str(answers[3]) == "no answer"


async def test_two_lanes_that_end_in_the_same_moment_are_two_lanes_afterwards() -> None:
    door, answers = Door(), dict[int, object]()
    asked = lanes(door, replace(LIMITS, lanes=2))
    async with trio.open_nursery() as nursery:
        await asking(nursery, asked, [1, 2, 10, 110, 210], answers)
        assert door.seen == [[1], [2]]
        for _ in range(2):
            door.open.release()  # both end in the next turn
        await wait_all_tasks_blocked()
        assert sorted(door.seen[2:]) == [[10], [110]]
        for _ in range(3):
            door.open.release()
        await wait_all_tasks_blocked()
        assert door.seen[4:] == [[210]]
        await asking(nursery, asked, [3, 4], answers)
        assert door.seen[5:] == [[3], [4]], "neither lane was lost"
        for _ in range(2):
            door.open.release()
    assert answers == {request: -request for request in (1, 2, 3, 4, 10, 110, 210)}


class Asked:
    """A request that can be watched."""


async def test_nothing_holds_a_request_once_it_is_told() -> None:
    async def act(requests: Sequence[Asked]) -> list[int]:
        await trio.lowlevel.checkpoint()
        return [7] * len(requests)

    asked = Lanes[Asked, int](act, limits=LIMITS, weigh=lambda _: 1)
    gc.disable()  # who leads takes himself along: that must not become a circle for the collector
    try:
        request = Asked()
        watched = weakref.ref(request)
        assert await asked.ask(request) == 7
        del request
        assert watched() is None
    finally:
        gc.enable()


# While many are on their way.

GATHERING = replace(LIMITS, gathering_s=600)


class Crowd:
    """So much is said to be worth waiting for, to all who come or to each."""

    def __init__(self, wanted: int | dict[int, int]) -> None:
        self.wanted = wanted

    def wanted_by(self, request: int) -> int:
        return self.wanted if isinstance(self.wanted, int) else self.wanted[request]

    def lanes(self, door: Door, limits: LaneLimits = GATHERING) -> Lanes[int, int]:
        return Lanes(door.act, limits=limits, weigh=lambda n: n % 100, wanted=self.wanted_by)


async def test_a_leader_waits_until_as_much_has_come_as_is_wanted() -> None:
    door, answers = Door(), dict[int, object]()
    asked = Crowd(6).lanes(door)
    async with trio.open_nursery() as nursery:
        await asking(nursery, asked, [1, 2], answers)
        assert door.seen == []
        await asking(nursery, asked, [3], answers)
        assert door.seen == [[1, 2, 3]]
        await asking(nursery, asked, [4, 101], answers)
        door.open.release()
        await wait_all_tasks_blocked()
        assert door.seen == [[1, 2, 3]], "the next leader waits too"
        await asking(nursery, asked, [201], answers)
        assert door.seen == [[1, 2, 3], [4, 101, 201]]
        door.open.release()
    assert answers == {request: -request for request in (1, 2, 3, 4, 101, 201)}


async def test_nobody_waits_for_more_than_is_worth_it_to_himself() -> None:
    door, answers = Door(), dict[int, object]()
    asked = Crowd({1: 9, 2: 9, 101: 4, 7: 7}).lanes(door)
    async with trio.open_nursery() as nursery:
        await asking(nursery, asked, [1, 2], answers)
        assert door.seen == []
        await asking(nursery, asked, [101], answers)
        assert door.seen == [[1, 2, 101]], "whoever came last takes the others along"
        door.open.release()
        await wait_all_tasks_blocked()
        await asking(nursery, asked, [7], answers)
        assert door.seen[1:] == [[7]], "it brings enough itself"
        door.open.release()


@pytest.mark.parametrize(
    ("requests", "together"),
    [
        ([1, 9, 2], [[1, 9]]),  # by weight
        ([101, 201, 301, 401, 501], [[101, 201, 301, 401]]),  # by number
        ([50, 1], [[50]]),  # one that is heavier than a combination
    ],
)
async def test_nobody_waits_for_more_than_a_combination_takes(
    requests: list[int], together: list[list[int]]
) -> None:
    door, answers = Door(), dict[int, object]()
    async with trio.open_nursery() as nursery:
        await asking(nursery, Crowd(64).lanes(door), requests, answers)
        assert door.seen == together
        nursery.cancel_scope.cancel()
        door.open.release()
        door.open.release()


async def test_who_does_not_come_is_not_waited_for_long(autojump_clock: MockClock) -> None:
    door, answers = Door(), dict[int, object]()
    asked = Crowd(3).lanes(door, replace(LIMITS, gathering_s=0.02))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asking, nursery, asked, [1], answers)
        await trio.sleep(0.019)
        assert door.seen == []
        await trio.sleep(0.002)
        assert door.seen == [[1]]
        door.open.release()
    assert answers == {1: -1}


async def test_a_crowd_that_is_gone_is_waited_for_no_more() -> None:
    door, answers, crowd = Door(), dict[int, object](), Crowd(3)
    asked = crowd.lanes(door)
    async with trio.open_nursery() as nursery:
        await asking(nursery, asked, [1], answers)
        crowd.wanted = 0
        await asking(nursery, asked, [2], answers)
        assert door.seen == [[1, 2]]
        door.open.release()
        await wait_all_tasks_blocked()
        await asking(nursery, asked, [3], answers)
        assert door.seen == [[1, 2], [3]]
        door.open.release()


async def test_a_leader_does_not_wait_for_a_crowd_that_went_while_it_waited_for_a_lane() -> None:
    door, answers, crowd = Door(), dict[int, object](), Crowd(1)
    asked = crowd.lanes(door)
    async with trio.open_nursery() as nursery:
        await asking(nursery, asked, [1], answers)
        crowd.wanted = 9
        await asking(nursery, asked, [2], answers)
        crowd.wanted = 2
        door.open.release()
        await wait_all_tasks_blocked()
        assert door.seen == [[1], [2]]
        door.open.release()


async def test_a_leader_who_is_cancelled_while_it_gathers_has_begun_nothing_and_another_one_leads() -> None:
    door, answers = Door(), dict[int, object]()
    asked = Crowd(3).lanes(door)
    leader = trio.CancelScope()

    async def lead() -> None:
        with leader:
            await asked.ask(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lead)
        await wait_all_tasks_blocked()
        await asking(nursery, asked, [101], answers)
        leader.cancel()
        await wait_all_tasks_blocked()
        assert door.seen == []
        await asking(nursery, asked, [201, 301], answers)
        assert door.seen == [[101, 201, 301]]
        door.open.release()
    assert answers == {101: -101, 201: -201, 301: -301}
    async with trio.open_nursery() as nursery:  # and the last of all who is cancelled leaves the lane free
        with trio.CancelScope() as scope:
            scope.cancel()
            await asked.ask(5)
        await asking(nursery, asked, [401, 501, 601], answers)
        assert door.seen[1:] == [[401, 501, 601]]
        door.open.release()


async def test_a_lane_that_becomes_free_while_another_leader_gathers_is_not_lost() -> None:
    door, answers, crowd = Door(), dict[int, object](), Crowd(1)
    asked = crowd.lanes(door, replace(GATHERING, lanes=2))
    async with trio.open_nursery() as nursery:
        await asking(nursery, asked, [1], answers)
        crowd.wanted = 10
        await asking(nursery, asked, [8, 3], answers)
        assert door.seen == [[1], [8]], "enough by weight; who came last was too much"
        crowd.wanted = 5
        await asking(nursery, asked, [101], answers)
        door.open.release()
        door.open.release()
        await wait_all_tasks_blocked()
        assert door.seen == [[1], [8]], "one of those left gathers; the other lane is free meanwhile"
        await asking(nursery, asked, [201], answers)
        assert door.seen[2:] == [[3, 101, 201]]
        crowd.wanted = 1
        await asking(nursery, asked, [4], answers)
        assert door.seen[3:] == [[4]]
        for _ in range(2):
            door.open.release()
    assert answers == {request: -request for request in (1, 8, 3, 101, 201, 4)}


async def test_who_is_left_over_when_a_leader_has_gathered_gets_the_lane_that_became_free() -> None:
    door, answers, crowd = Door(), dict[int, object](), Crowd(1)
    asked = crowd.lanes(door, replace(GATHERING, lanes=2))
    async with trio.open_nursery() as nursery:
        await asking(nursery, asked, [1], answers)
        crowd.wanted = 10
        await asking(nursery, asked, [2], answers)  # gathers
        door.open.release()
        await wait_all_tasks_blocked()  # 1 is over, its lane free
        await asking(nursery, asked, [9], answers)
        assert door.seen == [[1], [2]], "together too heavy; 9 has the free lane, and gathers"
        await asking(nursery, asked, [101], answers)
        assert door.seen == [[1], [2], [9, 101]]
        for _ in range(2):
            door.open.release()
    assert answers == {request: -request for request in (1, 2, 9, 101)}
