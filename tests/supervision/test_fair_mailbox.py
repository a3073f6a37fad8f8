"""What tenants may rely on about a mailbox that they share: nobody waits long because another writes much."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import Any

import pytest
import trio
from inhabitants import Echo
from trio.testing import wait_all_tasks_blocked

from actors.errors import DeadlinePassed, MailboxFull
from actors.fair_mailbox import (
    KEPT_S,
    LANE_SHARE,
    LEFT_PLACES_MAX,
    NEWCOMERS_SHARE,
    SMALL,
    FairMailbox,
)
from actors.letters import Letter
from actors.mailbox import Inbox, Ref
from actors.messages import Commit, Message, Open, Seal, SealAtRest, Verify, VerifyLegacy
from ves.kdf import Purpose
from ves.records import Scope, Uuid

BUSY, QUIET = b"busy".ljust(16), b"quiet".ljust(16)


class Work(Message[int], frozen=True):
    whose: Uuid | None
    n: int
    size: int = 1

    @property
    def lane(self) -> Uuid | None:
        return self.whose

    @property
    def weight(self) -> int:
        return self.size


class Again(Work, frozen=True):
    repeatable = True


def shared(letters_max: int = 1000) -> FairMailbox:
    return FairMailbox("pool", letters_max=letters_max)


def put(mailbox: FairMailbox, *messages: Message[Any]) -> None:
    for message in messages:
        mailbox.put(Letter(message, expects_answer=False))


def next_one(mailbox: FairMailbox) -> Any:
    assert mailbox.peek() is not None
    return mailbox.pop().message


def everything(mailbox: FairMailbox) -> list[Any]:
    return [next_one(mailbox) for _ in range(mailbox.depth)]


def test_a_quiet_tenants_letter_passes_what_a_busy_one_wrote_before() -> None:
    mailbox = shared()
    put(mailbox, *(Work(BUSY, n, 10_000) for n in range(16)))
    first = next_one(mailbox)
    put(mailbox, Work(QUIET, 0, 200), Work(QUIET, 1, 200))
    assert [first.whose, *(work.whose for work in everything(mailbox))] == [BUSY, QUIET, QUIET, *[BUSY] * 15]


def test_two_who_always_have_work_get_the_same_amount_however_they_cut_it() -> None:
    mailbox = shared(letters_max=2000)
    put(mailbox, *(Work(BUSY, n, 700) for n in range(100)))
    put(mailbox, *(Work(QUIET, n, 50) for n in range(900)))
    served: Counter[Uuid] = Counter()
    while min(served.values(), default=0) < 40_000:
        work = next_one(mailbox)
        served[work.whose] += work.size
        assert abs(served[BUSY] - served[QUIET]) <= 700 + 50


def test_who_was_away_has_saved_nothing_up() -> None:
    mailbox = shared()
    put(mailbox, *(Work(BUSY, n, 100) for n in range(200)))
    for _ in range(150):
        next_one(mailbox)
    put(mailbox, *(Work(QUIET, n, 100) for n in range(50)))
    order = [work.whose for work in everything(mailbox)]
    assert order[:40].count(BUSY) in (19, 20, 21)


def test_a_lane_that_was_served_alone_owes_nothing_when_it_comes_back() -> None:
    mailbox = shared()
    put(mailbox, *(Work(BUSY, n, 100) for n in range(50)))
    everything(mailbox)
    put(mailbox, Work(BUSY, 50, 100), Work(QUIET, 0, 100))
    assert [work.whose for work in everything(mailbox)] == [BUSY, QUIET]


def test_what_is_for_nobody_has_a_lane_of_its_own() -> None:
    mailbox = shared()
    put(mailbox, *(Work(None, n, 10) for n in range(3)), Work(QUIET, 0, 1), Echo(7))
    assert [type(one) for one in everything(mailbox)] == [Work, Work, Work, Work, Echo]


def test_a_full_lane_refuses_its_own_letters_and_no_others() -> None:
    mailbox = shared(letters_max=100)
    with pytest.raises(MailboxFull, match="full for this tenant: 76 letters are its own"):
        put(mailbox, *(Work(BUSY, n) for n in range(100)))
    assert mailbox.depth == 76
    put(mailbox, *(Work(QUIET, n) for n in range(10)))
    with pytest.raises(MailboxFull):
        put(mailbox, Work(BUSY, 77))
    assert mailbox.refused == 2
    next_one(mailbox)


def test_however_many_crowd_the_mailbox_the_next_one_finds_a_place_until_it_is_full() -> None:
    mailbox = shared(letters_max=500)
    for tenant in range(20):
        while True:
            try:
                put(mailbox, Work(tenant.to_bytes(16, "big"), 0))
            except MailboxFull:
                break
    kept = 500 - mailbox.depth
    assert kept >= 500 // NEWCOMERS_SHARE - 20  # each of the twenty was new once
    for tenant in range(kept):
        put(mailbox, Work((1000 + tenant).to_bytes(16, "big"), 0))
    with pytest.raises(MailboxFull, match=r"the mailbox of pool is full \(500 letters\)"):
        put(mailbox, Work(QUIET, 0))


def test_alone_a_small_mailbox_is_filled_to_its_last_place() -> None:
    mailbox = shared(letters_max=LANE_SHARE)
    put(mailbox, *(Work(BUSY, n) for n in range(LANE_SHARE)))
    assert mailbox.depth == LANE_SHARE


def test_what_comes_back_from_an_ended_life_is_next_and_in_order() -> None:
    mailbox = shared(letters_max=6)
    put(mailbox, *(Again(BUSY, n, 10) for n in range(4)), Again(QUIET, 0, 1))
    taken = [mailbox.pop() for _ in range(3) if mailbox.peek()]
    put(mailbox, Again(QUIET, 1, 1))
    mailbox.give_back(taken)
    assert everything(mailbox)[:3] == [letter.message for letter in taken]


def test_what_comes_back_later_is_before_what_came_back_earlier() -> None:
    mailbox = shared()
    put(mailbox, *(Again(BUSY, n) for n in range(4)))
    one, two = ([mailbox.pop(), mailbox.pop()] for _ in range(2) if mailbox.peek())
    mailbox.give_back(two)
    mailbox.give_back(one)
    assert [work.n for work in everything(mailbox)] == [0, 1, 2, 3]


async def test_whoever_leaves_takes_the_letter_along_and_his_lane_its_place(autojump_clock) -> None:
    mailbox = shared(letters_max=10)
    ref = Ref(mailbox)
    for n in range(5 * LEFT_PLACES_MAX):
        put(mailbox, Work(QUIET, n))
        with pytest.raises(DeadlinePassed):
            await ref.ask(Again(BUSY, n), deadline_s=1)
        assert mailbox.depth == 1
        assert len(mailbox._order) <= 2 * (LEFT_PLACES_MAX + 2)
        next_one(mailbox)
    assert mailbox.dropped == 5 * LEFT_PLACES_MAX
    assert (mailbox.depth, mailbox._lanes, mailbox._places, mailbox._order) == (0, {}, {}, [])


async def test_a_letter_withdrawn_from_the_front_or_the_middle_is_not_handed_out(autojump_clock) -> None:
    mailbox = shared()
    heard: list[int] = []

    async def ask(n: int, deadline_s: float) -> None:
        with trio.move_on_after(deadline_s):
            heard.append(await Ref(mailbox).ask(Again(BUSY, n), deadline_s=100))

    async with trio.open_nursery() as nursery:
        for n, deadline_s in enumerate([1, 50, 1, 50]):
            nursery.start_soon(ask, n, deadline_s)
            await wait_all_tasks_blocked()
        await trio.sleep(2)
        inbox = Inbox(mailbox)
        for _ in range(2):
            letter = await inbox.take()
            letter.answer(letter.message.n)
    assert heard == [1, 3]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_each_lane_is_in_order_and_nothing_is_lost_or_doubled(seed: int) -> None:
    chance = random.Random(seed)
    mailbox = shared(letters_max=60)
    waiting: dict[Uuid, list[Letter[int]]] = defaultdict(list)
    in_hand: list[Letter[int]] = []
    lanes = [bytes([n]) * 16 for n in range(5)]
    for n in range(2000):
        what = chance.random()
        if what < 0.5:
            whose = chance.choice(lanes)
            letter = Letter(Again(whose, n, chance.choice([1, 10, 1000])), expects_answer=False)
            try:
                mailbox.put(letter)
            except MailboxFull:
                free = 60 - 60 // NEWCOMERS_SHARE - sum(map(len, waiting.values()))
                assert len(waiting[whose]) >= LANE_SHARE * free
            else:
                waiting[whose].append(letter)
        elif what < 0.85 and mailbox.peek() is not None:
            taken = mailbox.pop()
            assert taken is waiting[taken.message.lane].pop(0)
            in_hand.append(taken)
        elif what < 0.9 and in_hand:
            mailbox.give_back(in_hand)
            for letter in reversed(in_hand):
                waiting[letter.message.lane].insert(0, letter)
            in_hand = []
        elif what < 0.95:
            in_hand = []
        elif left := [letter for lane in waiting.values() for letter in lane]:
            gone = chance.choice(left)
            mailbox._forget(gone)
            waiting[gone.message.lane].remove(gone)
        assert mailbox.depth == sum(map(len, waiting.values()))
    assert Counter(m.whose for m in everything(mailbox)) == {w: len(ls) for w, ls in waiting.items() if ls}


def test_letters_to_the_pools_say_whose_they_are_and_what_they_weigh() -> None:
    scope, anybody = Scope(QUIET, None, None), Scope(None, None, None)
    for message in (
        Verify(b"x" * 1200, scope),
        VerifyLegacy(b"x" * 1200, scope),
        Seal(QUIET, []),
        Open(QUIET, []),
        SealAtRest(Purpose.EVENTS, QUIET, []),
        Commit(QUIET, BUSY),
    ):
        assert message.lane == QUIET
        assert message.weight >= 1
    assert Verify(b"", anybody).lane is None
    assert Verify(b"x" * 1200, scope).weight == Verify(b"", scope).weight + 100


LARGE = SMALL + 1


async def take_one(inbox: Inbox, taken: list[Any]) -> None:
    taken.append((await inbox.take()).message)


async def test_a_reader_is_kept_for_small_letters_while_they_come_from_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    mailbox = FairMailbox("pool", letters_max=100, readers_max=2)
    first, second = Inbox(mailbox, name="1"), Inbox(mailbox, name="2")
    put(mailbox, *(Work(BUSY, n, LARGE) for n in range(3)))
    taken: list[Any] = []
    async with trio.open_nursery() as nursery:
        await take_one(first, taken)
        await take_one(second, taken)
        assert [work.n for work in taken] == [0, 1]  # of one lane alone, all readers are at large ones

        put(mailbox, Work(QUIET, 7))
        await take_one(second, taken)
        assert taken.pop().whose == QUIET
        nursery.start_soon(take_one, second, taken)
        await wait_all_tasks_blocked()
        assert len(taken) == 2  # the first is at a large one: the second waits for a small one,

        put(mailbox, Work(QUIET, 8))
        await wait_all_tasks_blocked()
        assert taken.pop().n == 8  # which it gets at once, before the large one that was there first;

        put(mailbox, Work(QUIET, 9), Work(BUSY, 3, LARGE))
        nursery.start_soon(take_one, second, taken)
        await wait_all_tasks_blocked()
        assert taken.pop().n == 9
        nursery.start_soon(take_one, second, taken)
        await wait_all_tasks_blocked()
        await take_one(first, taken)
        assert taken.pop().n == 2  # and the first goes on with the large ones, in order.
        await trio.sleep(KEPT_S / 2)
        assert len(taken) == 2
        await trio.sleep(KEPT_S)
        assert taken.pop().n == 3  # Nothing small came for a while: the second takes a large one too.


async def test_nobody_is_kept_waiting_by_a_reader_that_takes_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    mailbox = FairMailbox("pool", letters_max=100, readers_max=2)
    only = Inbox(mailbox, name="1")  # the other one's next life has not begun
    taken: list[Any] = []
    put(mailbox, Work(BUSY, 0, LARGE), Work(QUIET, 1), Work(BUSY, 2, LARGE))
    with trio.fail_after(2 * KEPT_S + 0.1):
        for _ in range(3):
            await take_one(only, taken)
    assert sorted(work.n for work in taken) == [0, 1, 2]


async def test_what_waits_is_finished_when_a_pool_closes(autojump_clock: trio.testing.MockClock) -> None:
    mailbox = FairMailbox("pool", letters_max=100, readers_max=2)
    put(mailbox, Work(BUSY, 0, LARGE), Work(QUIET, 1), Work(BUSY, 2, LARGE))
    mailbox.close()
    only, taken = Inbox(mailbox), []  # type: ignore[var-annotated]
    for _ in range(3):
        await take_one(only, taken)
    assert [work.n for work in taken] == [1, 0, 2]
    assert mailbox.turn_away(MailboxFull, "over") == []
