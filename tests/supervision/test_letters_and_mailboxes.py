"""What callers and actors may rely on about letters, mailboxes, refs and inboxes."""

from __future__ import annotations

import sys
from collections.abc import Callable

import inhabitants
import pytest
import trio
import trio.testing
from inhabitants import Boom, Echo, EchoAgain, Echoer, Hang, address, alive, view
from trio.testing import wait_all_tasks_blocked

import supervisor.supervisor
from actors.errors import DeadlinePassed, MailboxFull, OutcomeUnknown, Unavailable
from actors.fair_mailbox import FairMailbox
from actors.letters import Letter
from actors.mailbox import CallCycle, EndOfLife, Inbox, Mailbox, Ref, ask_all
from actors.messages import Message
from supervisor.supervisor import ChildSpec, Supervisor


@pytest.fixture(autouse=True, params=[Mailbox, FairMailbox])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever follows is so of either."""
    for module in (inhabitants, sys.modules[__name__], supervisor.supervisor):
        monkeypatch.setattr(module, "Mailbox", request.param)


async def test_an_ask_is_answered(autojump_clock):
    mailbox, ref = address("echo")
    async with alive(Supervisor("house", [ChildSpec(name="echo", factory=Echoer, mailbox=mailbox)])):
        assert await ref.ask(Echo(7), deadline_s=1) == 7


async def test_a_second_answer_and_a_late_refusal_change_nothing():
    mailbox, ref = address("a")
    answers = []

    async def ask() -> None:
        answers.append(await ref.ask(Echo(1), deadline_s=1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        letter = await Inbox(mailbox).take()
        letter.answer(1)
        letter.answer(2)
        letter.refuse(Unavailable("too late"))
    assert answers == [1]


async def test_what_is_asked_at_the_same_time_is_answered_in_order():
    mailbox, ref = address("a")
    answers = []

    async def ask() -> None:
        answers.append(await ask_all(ref, [Echo(1), Echo(2), Echo(3)], deadline_s=1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        letters = await Inbox(mailbox).take_group(letters_max=3)
        for letter in reversed(letters):
            letter.answer(letter.message.n)
    assert answers == [[1, 2, 3]]


async def test_of_what_is_asked_at_the_same_time_the_first_that_failed_is_heard_when_all_have_ended():
    mailbox, ref = address("a")
    heard = []

    async def ask() -> None:
        with pytest.raises(Unavailable) as caught:
            await ask_all(ref, [Echo(1), Echo(2), Echo(3)], deadline_s=1)
        heard.append(str(caught.value))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        by_value = {one.message.n: one for one in await Inbox(mailbox).take_group(letters_max=3)}
        by_value[3].refuse(Unavailable("third"))
        by_value[2].refuse(Unavailable("second"))
        await wait_all_tasks_blocked()
        assert not heard, "one is under way"
        by_value[1].answer(1)
    assert heard == ["second"]


async def test_an_unanswered_ask_ends_at_its_deadline_and_its_letter_in_hand_is_abandoned(autojump_clock):
    mailbox, ref = address("slow")
    inbox = Inbox(mailbox)
    started = trio.current_time()

    async def ask():
        with pytest.raises(DeadlinePassed):
            await ref.ask(Echo(1), deadline_s=3)
        assert trio.current_time() - started == pytest.approx(3)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        letter = await inbox.take()
        assert not letter.abandoned
    assert letter.abandoned
    assert letter.remaining_s == 0
    letter.answer(1)  # harmless


async def test_a_letter_not_taken_yet_goes_with_its_asker(autojump_clock):
    mailbox, ref = address("slow")
    with trio.move_on_after(1):
        await ref.ask(Echo(1), deadline_s=60)
    with pytest.raises(DeadlinePassed):
        await ref.ask(Echo(1), deadline_s=3)
    assert mailbox.depth == 0
    assert mailbox.dropped == 2


async def test_an_ask_in_a_cancelled_scope_sends_nothing():
    mailbox, ref = address("a")
    with trio.CancelScope() as scope:
        scope.cancel()
        await ref.ask(Echo(1), deadline_s=60)
    assert mailbox.depth == 0


async def test_letters_nobody_waits_for_are_dropped_and_counted_and_what_was_told_stays(autojump_clock):
    mailbox, ref = address("slow")
    for message in (EchoAgain(1), Echo(2), EchoAgain(3)):
        with pytest.raises(DeadlinePassed):
            await ref.ask(message, deadline_s=1)
    ref.tell(EchoAgain(4))
    inbox = Inbox(mailbox)
    group = await inbox.take_group(letters_max=10)
    assert [letter.message for letter in group] == [EchoAgain(4)]
    assert mailbox.dropped == 3


async def test_a_full_mailbox_refuses_visibly_and_accepts_again_after_a_take():
    mailbox, ref = address("small", letters_max=2)
    ref.tell(Echo(1))
    ref.tell(Echo(2))
    with pytest.raises(MailboxFull):
        ref.tell(Echo(3))
    with pytest.raises(MailboxFull):
        await ref.ask(Echo(3), deadline_s=1)
    assert (mailbox.depth, mailbox.peak, mailbox.refused) == (2, 2, 2)
    await Inbox(mailbox).take()
    ref.tell(Echo(3))
    assert mailbox.depth == 2


async def test_a_group_is_what_has_gathered_within_number_and_weight():
    mailbox, ref = address("scale")
    inbox = Inbox(mailbox)

    def weigh(message: Message[object]) -> int:
        assert isinstance(message, Echo)
        return message.n

    for n in (50, 4, 5, 2, 1, 1, 1):
        ref.tell(Echo(n))
    taken = [
        [letter.message.n for letter in await inbox.take_group(letters_max=3, weight_max=10, weigh=weigh)]
        for _ in range(4)
    ]
    assert taken == [[50], [4, 5], [2, 1, 1], [1]]


async def test_a_letter_that_cost_a_life_travels_alone():
    mailbox, ref = address("careful")
    for n in range(4):
        ref.tell(Echo(n))
    first = Inbox(mailbox)
    suspects = [await first.take(), await first.take()]
    for suspect in suspects:
        suspect.lives_cost = 1
    mailbox.give_back(suspects)
    second = Inbox(mailbox)
    groups = [await second.take_group(letters_max=10) for _ in range(3)]
    assert [[letter.message.n for letter in group] for group in groups] == [[0], [1], [2, 3]]


async def test_letters_in_hand_of_a_dead_one_go_back_in_order_or_are_answered_unknown(autojump_clock):
    mailbox, ref = address("a")
    heard = []

    async def ask(message: Message[int]) -> None:
        try:
            heard.append(await ref.ask(message, deadline_s=60))
        except OutcomeUnknown:
            heard.append((message, "unknown"))

    async with trio.open_nursery() as nursery:
        for message in (EchoAgain(1), Echo(2), EchoAgain(3)):
            nursery.start_soon(ask, message)
            await wait_all_tasks_blocked()
        first = Inbox(mailbox)
        await first.take_group(letters_max=3)
        ref.tell(Echo(4))
        assert first.end("KeyError: 1") == []
        group = [mailbox.pop() for _ in range(mailbox.depth)]
        assert [letter.message for letter in group] == [EchoAgain(1), EchoAgain(3), Echo(4)]
        for letter in group:
            letter.answer(letter.message.n)
    assert sorted(heard, key=str) == [(Echo(2), "unknown"), 1, 3]


async def test_a_told_letter_counts_as_done_at_the_next_take_and_as_dead_when_its_taker_dies():
    mailbox, ref = address("a")
    ref.tell(Echo(1))
    ref.tell(Echo(2))
    inbox = Inbox(mailbox)
    await inbox.take()
    await inbox.take()
    assert mailbox.handled == 1
    [(letter, reason)] = inbox.end("KeyError: 1")
    assert letter.message == Echo(2)
    assert "KeyError" in reason


async def test_of_several_readers_each_letter_wakes_one_and_none_is_left_lying(autojump_clock):
    mailbox, ref = address("pool")
    taken = []

    async def read() -> None:
        inbox = Inbox(mailbox)
        taken.append((await inbox.take()).message.n)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(read)
        await wait_all_tasks_blocked()
        for n in range(3):
            ref.tell(Echo(n))
    assert sorted(taken) == [0, 1, 2]


async def test_a_reader_that_is_stopped_in_the_moment_it_is_woken_leaves_the_letter_to_another(
    autojump_clock,
):
    mailbox, ref = address("pool")
    taken: list[str] = []
    inboxes = {name: Inbox(mailbox, name=name) for name in ("first", "second")}

    async def read(name: str) -> None:
        try:
            await inboxes[name].take()
            taken.append(name)
        except EndOfLife:
            taken.append(f"{name} ended")

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, "first")
            await wait_all_tasks_blocked()
            nursery.start_soon(read, "second")
            await wait_all_tasks_blocked()
            ref.tell(Echo(1))  # wakes the first
            inboxes["first"].request_stop(drain=False)
    assert sorted(taken) == ["first ended", "second"]


async def test_a_reader_killed_in_the_moment_it_is_woken_takes_nothing(autojump_clock):
    mailbox, ref = address("a")
    inbox = Inbox(mailbox)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inbox.take)
            await wait_all_tasks_blocked()
            ref.tell(Echo(1))
            scope.cancel()
    assert mailbox.depth == 1


async def test_a_restart_stop_leaves_letters_and_a_drain_finishes_them_first():
    mailbox, ref = address("a")
    ref.tell(Echo(1))
    stopped = Inbox(mailbox)
    stopped.request_stop(drain=False)
    with pytest.raises(EndOfLife):
        await stopped.take()
    assert mailbox.depth == 1
    drained = Inbox(mailbox)
    drained.request_stop(drain=True)
    assert (await drained.take()).message == Echo(1)
    with pytest.raises(EndOfLife):
        await drained.take()


class _Forwarder:
    """Asks the next one in a circle before it answers."""

    def __init__(self, next_one: Ref) -> None:
        self.next_one = next_one

    async def run(self, inbox: Inbox) -> None:
        while True:
            letter = await inbox.take()
            letter.answer(await self.next_one.ask(letter.message, deadline_s=letter.remaining_s))


async def test_a_circle_of_asks_fails_at_once_and_names_itself(autojump_clock):
    boxes = {name: Mailbox(name, letters_max=10) for name in "abc"}
    root = Supervisor(
        "house",
        [
            ChildSpec(
                name=name,
                factory=lambda to=to: _Forwarder(Ref(boxes[to])),
                mailbox=boxes[name],
                restart="temporary",
            )
            for name, to in ("ab", "bc", "ca")
        ],
    )
    async with alive(root):
        started = trio.current_time()
        with pytest.raises(OutcomeUnknown):
            await Ref(boxes["a"]).ask(Echo(1), deadline_s=60)
        assert trio.current_time() == started
        assert view(root, "house/c").last_error == "CallCycle: a asks b asks c asks a"


async def test_a_chain_of_asks_without_a_circle_is_no_cycle(autojump_clock):
    boxes = {name: Mailbox(name, letters_max=10) for name in "abc"}
    root = Supervisor(
        "house",
        [
            ChildSpec(name="a", factory=lambda: _Forwarder(Ref(boxes["b"])), mailbox=boxes["a"]),
            ChildSpec(name="b", factory=lambda: _Forwarder(Ref(boxes["c"])), mailbox=boxes["b"]),
            ChildSpec(name="c", factory=Echoer, mailbox=boxes["c"]),
        ],
    )
    async with alive(root):
        for n in range(3):
            assert await Ref(boxes["a"]).ask(Echo(n), deadline_s=60) == n


async def test_asking_oneself_is_a_cycle():
    mailbox, ref = address("a")
    inbox = Inbox(mailbox)
    assert inbox.chain == ("a",)
    from actors.mailbox import current_inbox

    token = current_inbox.set(inbox)
    try:
        with pytest.raises(CallCycle):
            await ref.ask(Echo(1), deadline_s=1)
    finally:
        current_inbox.reset(token)
    assert mailbox.depth == 0


def test_a_letter_shows_no_content_when_printed():
    assert "secret" not in repr(Letter(Boom("secret")))
    assert "Hang" in repr(Letter(Hang()))


# A group that waits for more.

PATIENCE_S = 0.03


async def gathered(inbox: Inbox, wanted: int | Callable[[], int], into: list[list[int]]) -> None:
    group = await inbox.take_group(
        letters_max=10, wanted=wanted if callable(wanted) else lambda: wanted, gathering_s=PATIENCE_S
    )
    into.append([letter.message.n for letter in group])


async def test_a_group_waits_until_as_many_have_come_as_are_wanted(autojump_clock):
    mailbox, ref = address("patient")
    groups: list[list[int]] = []
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gathered, Inbox(mailbox), 3, groups)
        for n in range(3):
            await trio.testing.wait_all_tasks_blocked()
            assert groups == []
            ref.tell(Echo(n))
    assert groups == [[0, 1, 2]]
    assert trio.current_time() == began


async def test_a_group_waits_no_longer_than_it_may_nor_for_those_who_are_wanted_no_more(autojump_clock):
    mailbox, ref = address("patient")
    groups: list[list[int]] = []
    ref.tell(Echo(1))
    began = trio.current_time()
    await gathered(Inbox(mailbox), 3, groups)
    assert trio.current_time() == pytest.approx(began + PATIENCE_S)
    wanted = [3]
    ref.tell(Echo(2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gathered, Inbox(mailbox), lambda: wanted[0], groups)
        await trio.testing.wait_all_tasks_blocked()
        wanted[0] = 2
        ref.tell(Echo(3))
    assert groups == [[1], [2, 3]]
    assert trio.current_time() == pytest.approx(began + PATIENCE_S)


@pytest.mark.parametrize(
    ("in_the_mailbox", "in_a_group"), [(10, 2), (2, 10)], ids=["in a group", "in the mailbox"]
)
async def test_a_group_waits_for_no_more_than_there_is_room_for(
    autojump_clock, in_the_mailbox: int, in_a_group: int
):
    mailbox = Mailbox("small", letters_max=in_the_mailbox)
    began = trio.current_time()
    for n in range(2):
        Ref(mailbox).tell(Echo(n))
    group = await Inbox(mailbox).take_group(letters_max=in_a_group, wanted=lambda: 99, gathering_s=PATIENCE_S)
    assert len(group) == 2
    assert trio.current_time() == began


async def test_a_letter_that_cost_a_life_waits_for_nobody(autojump_clock):
    mailbox, ref = address("patient")
    ref.tell(Echo(1))
    began = trio.current_time()
    letter = mailbox.peek()
    assert letter is not None
    letter.lives_cost = 1
    groups: list[list[int]] = []
    await gathered(Inbox(mailbox), 3, groups)
    assert groups == [[1]]
    assert trio.current_time() == began


@pytest.mark.parametrize("how", ["stop", "suspend", "close"])
async def test_who_waits_for_more_and_is_not_to_go_on_has_taken_nothing(autojump_clock, how: str):
    mailbox, ref = address("patient")
    inbox = Inbox(mailbox)
    groups: list[list[int]] = []
    ended: list[EndOfLife] = []

    async def be_patient() -> None:
        try:
            await gathered(inbox, 3, groups)
        except EndOfLife as end:
            ended.append(end)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(be_patient)
        ref.tell(Echo(1))
        await wait_all_tasks_blocked()
        if how == "suspend":
            inbox.suspend()
        else:
            inbox.request_stop(drain=how == "close")
        await wait_all_tasks_blocked()
        assert groups == ([[1]] if how == "close" else [])
        if how == "suspend":
            ref.tell(Echo(2))
            await wait_all_tasks_blocked()
            assert mailbox.depth == 2
            inbox.resume()
    assert groups == {"stop": [], "suspend": [[1, 2]], "close": [[1]]}[how]
    assert len(ended) == (how == "stop")
    assert mailbox.depth == (how == "stop"), "it is the next life's"
    assert trio.current_time() == began


@pytest.mark.parametrize("wanted", [9, 2], ids=["before it has come", "together with the last one"])
async def test_who_is_killed_while_it_gathers_has_begun_nothing(autojump_clock, wanted: int):
    mailbox, ref = address("patient")
    answers: list[int] = []

    async def ask() -> None:
        answers.append(await ref.ask(Echo(1), deadline_s=10))

    async with trio.open_nursery() as callers:
        with trio.CancelScope() as life:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(gathered, Inbox(mailbox), wanted, [])
                callers.start_soon(ask)
                await wait_all_tasks_blocked()
                ref.tell(Echo(2))  # wakes the reader, and in the same moment it is killed
                life.cancel()
        assert mailbox.depth == 2
        for letter in await Inbox(mailbox).take_group(letters_max=10):
            letter.answer(letter.message.n)
    assert answers == [1], "nobody was told that the outcome is not known"
