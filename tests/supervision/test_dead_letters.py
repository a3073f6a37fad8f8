"""Letters that nobody could handle, and messages that killed: kept, shown, sent once more, not handed on."""

from __future__ import annotations

from typing import ClassVar

import pytest
import trio
from inhabitants import QUICK, BoomAgain, Echo, EchoAgain, Echoer, Hang, address, alive, view
from trio.testing import wait_all_tasks_blocked

from actors.dead_letters import CONTENT_BYTES_MAX, DeadLetters
from actors.errors import DeadlinePassed, NotNow, OutcomeUnknown, Poisoned, Unavailable
from actors.letters import Letter
from actors.mailbox import POISON_S, POISONS_MAX, Inbox, Mailbox, Ref
from actors.messages import Message
from actors.views import NotPossible
from supervisor.overseer import TreeOverseer
from supervisor.supervisor import ChildSpec, Pool, Supervisor


class Moody:
    """Dies of BoomAgain while the times are bad, answers it in good ones."""

    times_are_bad: ClassVar[bool] = True

    async def run(self, inbox: Inbox) -> None:
        while True:
            letter = await inbox.take()
            if isinstance(letter.message, BoomAgain) and Moody.times_are_bad:
                raise RuntimeError("bad times")
            letter.answer(0)


@pytest.fixture
def moody_pool() -> Pool:
    Moody.times_are_bad = True
    return Pool("pool", 2, Moody, 10, pauses=QUICK, intensity=20)


async def test_a_message_that_killed_twice_is_not_handed_out_again_for_a_while(moody_pool, autojump_clock):
    root = Supervisor("house", [moody_pool])
    async with alive(root):
        for _ in range(30):  # a client that resends for as long as it is told to come again
            with pytest.raises(Poisoned) as told:
                await moody_pool.ref.ask(BoomAgain(7), deadline_s=5)
            assert 0 < told.value.retry_after_s <= POISON_S
        await trio.sleep(1)
        assert sum(child.restarts for child in view(root, "house/pool").children) == 2
        assert await moody_pool.ref.ask(EchoAgain(7), deadline_s=5) == 0, "another message is no poison"
        Moody.times_are_bad = False
        with pytest.raises(Poisoned):
            await moody_pool.ref.ask(BoomAgain(7), deadline_s=5)
        await trio.sleep(POISON_S + 1)
        assert await moody_pool.ref.ask(BoomAgain(7), deadline_s=5) == 0


async def test_the_poisons_remembered_are_bounded_and_the_oldest_goes(autojump_clock):
    box = Mailbox("box", letters_max=100)
    for n in range(POISONS_MAX + 1):
        box.poisoned_by(Letter(BoomAgain(n)))
    box.put(Letter(BoomAgain(0)))
    with pytest.raises(Poisoned):
        box.put(Letter(BoomAgain(POISONS_MAX)))


async def test_a_dead_letter_is_shown_without_its_content_sent_once_more_and_gone_when_answered(
    moody_pool, autojump_clock
):
    root = Supervisor("house", [moody_pool])
    overseer = TreeOverseer(root)
    async with alive(root):
        with pytest.raises(Poisoned):
            await moody_pool.ref.ask(BoomAgain(7), deadline_s=5)
        [dead] = overseer.list_dead_letters(after=None, limit=10)
        assert (dead.id, dead.mailbox, dead.message, dead.lives_cost) == (1, "pool", "BoomAgain", 2)
        assert dead.reason == "2 lives of pool ended with it in hand; last: RuntimeError: bad times"
        assert overseer.show_dead_letter(1) == dead
        early = await overseer.resend_dead_letter(1, within_s=5)
        assert not early.answered
        assert (early.why or "").startswith("Poisoned")
        await trio.sleep(POISON_S + 1)
        again = await overseer.resend_dead_letter(1, within_s=5)
        assert not again.answered
        [dead] = overseer.list_dead_letters(after=None, limit=10)
        assert dead.id == 2, "it died once more: one dead letter, newly buried"
        Moody.times_are_bad = False
        await trio.sleep(POISON_S + 1)
        assert (await overseer.resend_dead_letter(2, within_s=5)).answered
        assert overseer.list_dead_letters(after=None, limit=10) == []
        assert root.look().dead_letters_total == 2
        for act in (overseer.show_dead_letter, overseer.drop_dead_letter):
            with pytest.raises(LookupError, match="no dead letter 2"):
                act(2)


async def test_a_dropped_dead_letter_is_gone(moody_pool, autojump_clock):
    root = Supervisor("house", [moody_pool])
    overseer = TreeOverseer(root)
    async with alive(root):
        for n in range(3):
            with pytest.raises(Poisoned):
                await moody_pool.ref.ask(BoomAgain(n), deadline_s=5)
        assert [dead.id for dead in overseer.list_dead_letters(after=None, limit=2)] == [3, 2]
        assert [dead.id for dead in overseer.list_dead_letters(after=2, limit=2)] == [1]
        assert overseer.drop_dead_letter(2).id == 2
        assert [dead.id for dead in overseer.list_dead_letters(after=None, limit=9)] == [3, 1]
        with pytest.raises(LookupError):
            await overseer.resend_dead_letter(2, within_s=1)


class Bulky(Message[int], frozen=True):
    content: bytes


async def test_contents_are_kept_up_to_a_bound_and_the_oldest_are_let_go_first():
    office = DeadLetters(letters_max=6)
    ref = Ref(Mailbox("box", letters_max=1))
    size = CONTENT_BYTES_MAX // 4
    for _ in range(5):
        office.bury(ref, Letter(Bulky(bytes(size))), "test")
    assert [(dead.id, dead.resendable) for dead in office.list()] == [
        (5, True),
        (4, True),
        (3, True),
        (2, False),
        (1, False),
    ]
    for _ in range(3):
        office.bury(ref, Letter(Echo(1)), "test")
    assert [dead.id for dead in office.list()] == [8, 7, 6, 5, 4, 3]
    office.bury(ref, Letter(Bulky(bytes(2 * CONTENT_BYTES_MAX))), "larger than all room")
    assert [dead.resendable for dead in office.list()] == [False] * 6
    assert office.total == 9


async def test_a_letter_whose_content_is_gone_cannot_be_sent_again():
    root = Supervisor("house", [])
    root.dead_letters.bury(Ref(Mailbox("box", letters_max=1)), Letter(Bulky(bytes(CONTENT_BYTES_MAX))), "x")
    with pytest.raises(NotPossible, match="let go to save memory"):
        await TreeOverseer(root).resend_dead_letter(1, within_s=1)


# Deadlines travel with the letters.


class Forwarder:
    """Asks the next one and would wait an hour."""

    def __init__(self, next_one: Ref, waited: list[float]) -> None:
        self.next_one = next_one
        self.waited = waited

    async def run(self, inbox: Inbox) -> None:
        while True:
            letters = await inbox.take_group(letters_max=5)
            began = trio.current_time()
            try:
                answer = await self.next_one.ask(Hang(), deadline_s=3600)
            except NotNow:
                self.waited.append(trio.current_time() - began)
            else:
                for letter in letters:
                    letter.answer(answer)


def forwarding(waited: list[float]) -> tuple[Supervisor, Ref]:
    end_box, end = address("end")
    first_box, first = address("first")
    root = Supervisor(
        "house",
        [
            ChildSpec(name="end", factory=Echoer, mailbox=end_box),
            ChildSpec(name="first", factory=lambda: Forwarder(end, waited), mailbox=first_box),
        ],
        pauses=QUICK,
    )
    return root, first


async def test_an_ask_inside_a_letter_ends_with_the_last_deadline_of_the_letters_in_hand(autojump_clock):
    waited: list[float] = []
    root, first = forwarding(waited)

    async def ask(deadline_s: float) -> None:
        with pytest.raises(DeadlinePassed):
            await first.ask(Echo(1), deadline_s=deadline_s)

    async with alive(root):
        root.suspend("house/first")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 7)
            nursery.start_soon(ask, 20)
            await wait_all_tasks_blocked(0)
            root.resume("house/first")
        await trio.sleep(1)
        assert waited == [pytest.approx(20)]


async def test_what_was_told_has_no_deadline_to_hand_on(autojump_clock):
    waited: list[float] = []
    root, first = forwarding(waited)
    async with trio.open_nursery() as nursery:
        await nursery.start(root.run)
        first.tell(Echo(1))
        await trio.sleep(4000)
        assert waited == [pytest.approx(3600)]
        root.stop()


async def test_a_letter_that_is_not_repeatable_dies_with_unknown_outcome_and_is_no_poison(autojump_clock):
    box, ref = address("echo")
    root = Supervisor("house", [ChildSpec(name="echo", factory=Echoer, mailbox=box)], pauses=QUICK)
    async with alive(root):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_is_unknown, ref)
            await wait_all_tasks_blocked(0)
            root.kill("house/echo")
        assert await ref.ask(Echo(1), deadline_s=5) == 1
        assert root.look().dead_letters_total == 0


async def _is_unknown(ref: Ref) -> None:
    with pytest.raises(OutcomeUnknown):
        await ref.ask(Hang(), deadline_s=5)


async def test_a_dead_letter_that_cannot_be_measured_takes_nobody_else_along(autojump_clock):
    boxes = {name: Mailbox(name, letters_max=5) for name in ("moody", "sibling")}
    specs = [ChildSpec(name=name, factory=Moody, mailbox=box) for name, box in boxes.items()]
    root = Supervisor("house", specs, pauses=QUICK)
    Moody.times_are_bad = True
    async with alive(root):
        Ref(boxes["moody"]).tell(BoomAgain(2**70))
        await trio.sleep(1)
        assert [dead.content_bytes > 0 for dead in root.look().dead_letters] == [True]
        assert view(root, "house/sibling").incarnation == 1
        assert await Ref(boxes["sibling"]).ask(EchoAgain(1), deadline_s=5) == 0


class Dependent:
    """Waits for ever on EchoAgain(1) and ends on EchoAgain(2), while what it depends on is away."""

    away: ClassVar[bool] = True

    async def run(self, inbox: Inbox) -> None:
        while True:
            letter = await inbox.take()
            if Dependent.away and letter.message == EchoAgain(1):
                await trio.sleep_forever()
            if Dependent.away and letter.message == EchoAgain(2):
                raise Unavailable("the database is away")
            letter.answer(letter.message.n)


@pytest.mark.parametrize("n", [1, 2])
async def test_a_message_is_no_poison_for_having_been_in_the_hands_of_the_killed_or_the_forsaken(
    n: int, autojump_clock
):
    box, ref = address("dependent")
    root = Supervisor("house", [ChildSpec(name="dependent", factory=Dependent, mailbox=box)], pauses=QUICK)
    heard: list[str] = []

    async def ask() -> None:
        with pytest.raises(Unavailable, match="2 lives of dependent ended with it in hand"):
            await ref.ask(EchoAgain(n), deadline_s=60)
        heard.append("Unavailable")

    Dependent.away = True
    async with alive(root), trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        for _ in range(2 if n == 1 else 0):
            await trio.sleep(1)
            root.kill("house/dependent", "drill")
        await trio.sleep(1)
        assert heard == ["Unavailable"]
        Dependent.away = False
        assert await ref.ask(EchoAgain(n), deadline_s=5) == n, "the same message, a moment later"
        assert root.look().dead_letters_total == 0
