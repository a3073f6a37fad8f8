"""Where letters wait, who may send them, and how an actor reads them.

A ``Mailbox`` belongs to an address and outlives its actors; it alone owns the letters that wait, and it is
bounded. A ``Ref`` is what callers hold, an ``Inbox`` what one incarnation reads. Nothing here starts or
restarts anybody: the supervisor does, and ``Inbox.take`` is the only place where it interrupts an actor.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol, TypeVar

import outcome
import trio

from actors.errors import MailboxFull, NotNow, OutcomeUnknown, Poisoned, Stopping, Unavailable
from actors.letters import Letter
from actors.messages import Message
from actors.tracing import work_in_nothing

__all__ = ["Actor", "CallCycle", "EndOfLife", "Inbox", "Letter", "Mailbox", "Ref", "ask_all", "current_inbox"]

A = TypeVar("A")

LIVES_MAX = 2  # one death may be an accident; the second one with the same letter in hand is the letter
POISON_S = 30.0  # so long the same message is refused unread: an asker that resends must not kill on and on
POISONS_MAX = 8  # messages remembered per address; each may be a whole request


class EndOfLife(Exception):
    """Raised by ``take`` when this incarnation is to end between letters. ``run`` lets it pass."""


class CallCycle(RuntimeError):
    """An actor asked somebody who is, through others, waiting for it: both would wait for ever."""


class Actor(Protocol):
    """Somebody who lives here. One object is one incarnation; its state is local to ``run``."""

    async def run(self, inbox: Inbox) -> None: ...


class _Away(NamedTuple):
    error: type[NotNow]
    text: str
    until: float


class _Poison(NamedTuple):
    message: Message[Any]
    until: float


class Mailbox:
    """At most ``letters_max`` letters waiting for the readers of one address.

    ``peak`` is the greatest depth ever, ``handled`` counts letters done with, ``refused`` those not accepted,
    ``dropped`` those thrown away because nobody waited for them any more.
    """

    __slots__ = (
        "_away",
        "_letters",
        "_poisons",
        "_readers",
        "dropped",
        "handled",
        "letters_max",
        "lives_max",
        "name",
        "peak",
        "refused",
    )

    def __init__(self, name: str, *, letters_max: int, lives_max: int = LIVES_MAX) -> None:
        self.name = name
        self.letters_max = letters_max
        self.lives_max = lives_max
        self.peak = 0
        self.handled = 0
        self.refused = 0
        self.dropped = 0
        # A list: an empty deque takes 600 bytes, and there are thousands of mailboxes; taking the first of a
        # thousand letters moves a few kilobytes.
        self._letters: list[Letter[Any]] = []
        self._readers: dict[Inbox, trio.lowlevel.Task] = {}
        self._away: _Away | None = None
        self._poisons: deque[_Poison] | None = None  # made when needed: there are thousands of mailboxes

    @property
    def depth(self) -> int:
        return len(self._letters)

    # The order of what waits, and who may wait: a mailbox of another order says so anew.

    def _no_room(self, message: Message[Any]) -> str | None:
        """Why it may not wait here now; None: it may."""
        return "" if len(self._letters) >= self.letters_max else None

    def _line_up(self, letter: Letter[Any]) -> None:
        self._letters.append(letter)

    def _to_the_front(self, letters: list[Letter[Any]]) -> None:
        self._letters[:0] = letters

    def _first(self) -> Letter[Any] | None:
        return self._letters[0] if self._letters else None

    def _leave(self, letter: Letter[Any]) -> None:
        """It waits no more; called for the first one, and for any whose asker has left."""
        self._letters.remove(letter)

    # What waits.

    @property
    def closed(self) -> bool:
        """Nothing new is accepted, for good or until ``open``."""
        return self._away is not None

    def put(self, letter: Letter[Any]) -> None:
        """The letter waits for a reader. Raises MailboxFull, Stopping, Unavailable or Poisoned: nothing was
        done."""
        if self._away is not None:
            self._refuse_while_away(self._away)
        if self._poisons:
            self._refuse_poison(self._poisons, letter.message)
        no_room = self._no_room(letter.message)
        if no_room is not None:
            self.refused += 1
            raise MailboxFull(f"the mailbox of {self.name} is full{no_room} ({self.letters_max} letters)")
        self._accept(letter)

    def notify(self, message: Message[Any]) -> None:
        """For what must be heard (a monitored life ended): bound and closure do not count; there are only as
        many as monitors were set. Lost when nobody will ever read here again."""
        if self._away is None or self._away.error is not Stopping:
            self._accept(Letter(message, expects_answer=False))

    def _accept(self, letter: Letter[Any]) -> None:
        self._line_up(letter)
        letter.waits_in(self._forget)
        self.peak = max(self.peak, self.depth)
        self.wake_reader()

    def open(self) -> None:
        self._away = None

    def close(self) -> None:
        """For a drain: accept nothing new; readers finish what waits and then reach the end of their life."""
        self._away = _Away(Stopping, f"{self.name} is stopping", math.inf)
        for inbox in [*self._readers]:
            self.wake(inbox)

    def turn_away(
        self, error: type[NotNow], text: str, *, until: float = math.inf
    ) -> list[tuple[Letter[Any], str]]:
        """Accept nothing before ``until`` and refuse what waits; returns the letters nobody waits for and why
        they end here. Those that were in a dead actor's hand before are refused with OutcomeUnknown."""
        self._away = _Away(error, text, until)
        unheard = []
        while self.depth:
            letter = self.pop()
            refusal = OutcomeUnknown if letter.lives_cost else error
            letter.refuse(refusal(text, retry_after_s=self._retry_after_s(self._away)))
            self.refused += 1
            if not letter.expects_answer:
                unheard.append((letter, text))
        return unheard

    def poisoned_by(self, letter: Letter[Any]) -> None:
        """Lives ended with it in hand: the same message is not handed out again for a while."""
        if self._poisons is None:
            self._poisons = deque(maxlen=POISONS_MAX)
        self._poisons.append(_Poison(letter.message, trio.current_time() + POISON_S))

    def _refuse_poison(self, poisons: deque[_Poison], message: Message[Any]) -> None:
        now = trio.current_time()
        while poisons and poisons[0].until <= now:
            poisons.popleft()
        for poison in poisons:
            if type(poison.message) is type(message) and poison.message == message:
                self.refused += 1
                text = f"{self.name} died of the same message before"
                raise Poisoned(text, retry_after_s=poison.until - now)

    def give_back(self, letters: list[Letter[Any]]) -> None:
        """To the front, in order; the bound does not count for them, they had their place before."""
        self._to_the_front(letters)
        for letter in letters:
            letter.waits_in(self._forget)
        for _ in letters:
            self.wake_reader()

    def peek(self) -> Letter[Any] | None:
        """The first letter; repeatable ones that nobody waits for any more are dropped on the way."""
        while (letter := self._first()) is not None:
            if not (letter.message.repeatable and letter.abandoned):
                return letter
            self.pop()
            self.dropped += 1
        return None

    def pop(self) -> Letter[Any]:
        """The letter that ``peek`` showed, taken out."""
        letter = self._first()
        assert letter is not None, "peek showed one"
        self._leave(letter)
        letter.waits_in(None)
        return letter

    def _forget(self, letter: Letter[Any]) -> None:
        """Its asker has left."""
        self._leave(letter)
        letter.waits_in(None)
        self.dropped += 1

    def wake_reader(self) -> None:
        """The reader waiting longest looks again."""
        if self._readers and self.depth:
            self.wake(next(iter(self._readers)))

    def wake(self, inbox: Inbox) -> None:
        task = self._readers.pop(inbox, None)
        if task is not None:
            trio.lowlevel.reschedule(task)

    async def wait(self, inbox: Inbox) -> None:
        """Until ``inbox`` is woken; there need not be a letter then."""

        def leave(_raise_cancel: Any) -> trio.lowlevel.Abort:
            self._readers.pop(inbox, None)
            return trio.lowlevel.Abort.SUCCEEDED

        self._readers[inbox] = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(leave)

    def _refuse_while_away(self, away: _Away) -> None:
        if trio.current_time() >= away.until:
            self._away = None
            return
        self.refused += 1
        raise away.error(away.text, retry_after_s=self._retry_after_s(away))

    @staticmethod
    def _retry_after_s(away: _Away) -> float:
        if away.until == math.inf:
            return 1.0
        return max(0.1, away.until - trio.current_time())


class Inbox:
    """What one incarnation reads. Not shared: a pool's readers have one each, on the same mailbox."""

    __slots__ = (
        "_chain",
        "_ends_when_empty",
        "_in_hand",
        "_mailbox",
        "_resumed",
        "_stop",
        "_stop_heard",
        "_waiting_since",
        "handled",
        "name",
        "on_ready",
    )

    def __init__(
        self, mailbox: Mailbox, *, name: str | None = None, on_ready: Callable[[], None] | None = None
    ) -> None:
        self.name = name or mailbox.name
        self.handled = 0
        self._waiting_since: float | None = None
        self._mailbox = mailbox
        self.on_ready = on_ready
        self._in_hand: list[Letter[Any]] = []
        self._chain: tuple[str, ...] = (mailbox.name,)
        self._stop = False
        self._ends_when_empty = False
        self._stop_heard: trio.Event | None = None
        self._resumed: trio.Event | None = None  # not None: suspended

    async def take(self) -> Letter[Any]:
        """The next letter. What was told before counts as done now; what was asked stays in hand until it is
        answered. Raises EndOfLife when this incarnation is to end: let it pass."""
        return await self._take_when(lambda: 1, 1, 0.0)

    async def take_group(
        self,
        *,
        letters_max: int,
        weight_max: int = sys.maxsize,
        weigh: Callable[[Message[Any]], int] = lambda _message: 0,
        wanted: Callable[[], int] = lambda: 1,
        gathering_s: float = 0.0,
    ) -> list[Letter[Any]]:
        """The next letter and whatever has gathered behind it, in order: at most ``letters_max``, together at
        most ``weight_max`` heavy (the first one always comes). Waits for the first; then, ``gathering_s`` at
        most, until there are as many as are ``wanted`` at each moment, or as a group or the mailbox may hold,
        whatever they weigh. None is in hand while it waits.

        A letter that cost a life comes alone, so that no neighbour pays for it a second time.
        """
        first = await self._take_when(wanted, letters_max, gathering_s)
        group = [first]
        if first.lives_cost:
            return group
        weight = weigh(first.message)
        while len(group) < letters_max and (candidate := self._mailbox.peek()) is not None:
            weight += weigh(candidate.message)
            if weight > weight_max or candidate.lives_cost:
                break
            group.append(self._pick_up(self._mailbox.pop()))
        return group

    async def _take_when(
        self, wanted: Callable[[], int], letters_max: int, gathering_s: float
    ) -> Letter[Any]:
        self._lay_down()
        mailbox = self._mailbox
        if mailbox.depth:
            await trio.lowlevel.checkpoint()
        try:
            first = await self._until_letter()
            if gathering_s and not first.lives_cost:
                room = min(letters_max, mailbox.letters_max)

                def too_few() -> bool:
                    return min(wanted(), room) > mailbox.depth

                if too_few():
                    await self._gather(too_few, gathering_s)
                    await self._until_letter()  # it may be somebody else's by now
            return self._pick_up(mailbox.pop())
        finally:
            # Whoever leaves without the letter it was woken for passes the call on to the next reader.
            self._waiting_since = None
            mailbox.wake_reader()

    async def _until_letter(self) -> Letter[Any]:
        """The next one, still in the mailbox. Raises EndOfLife."""
        mailbox = self._mailbox
        while True:
            if self._stop:
                raise EndOfLife("asked to stop")
            if self._resumed is not None:
                mailbox.wake_reader()
                await self._resumed.wait()
                continue
            if (letter := mailbox.peek()) is not None:
                self._ends_when_empty = False
                return letter
            if mailbox.closed or self._ends_when_empty:
                raise EndOfLife("nothing left to do")
            self._waiting_since = trio.current_time()
            await mailbox.wait(self)
            self._waiting_since = None
            # A kill that comes together with a letter must find the letter in the mailbox, not in hand.
            await trio.lowlevel.checkpoint_if_cancelled()

    async def _gather(self, too_few: Callable[[], bool], seconds: float) -> None:
        """Returns when they are not too few any more, or it is no use to wait any longer."""
        mailbox = self._mailbox
        with trio.move_on_after(seconds):
            while too_few():
                if mailbox.closed or self._stop or self._resumed is not None:
                    return
                await mailbox.wait(self)
                await trio.lowlevel.checkpoint_if_cancelled()

    async def pause(self, seconds: float) -> None:
        """Between two rounds of those who work by the clock: returns after ``seconds``, or when resumed if
        suspended meanwhile. Raises EndOfLife like ``take``."""
        with trio.move_on_after(seconds):
            await self.take()
        while self._resumed is not None:
            await self._resumed.wait()
        if self._stop:
            raise EndOfLife("asked to stop")

    async def until_stop(self) -> None:
        """Returns when this incarnation is asked to stop: for those who serve something else than letters."""
        if self._stop_heard is None:
            self._stop_heard = trio.Event()
            if self._stop:
                self._stop_heard.set()
        await self._stop_heard.wait()

    def ready(self) -> None:
        """Declare that those who start after this one may start (for children that declare readiness)."""
        if self.on_ready is not None:
            self.on_ready()

    # What the supervisor does with it.

    @property
    def chain(self) -> tuple[str, ...]:
        """The addresses waiting for this incarnation's letters in hand, and its own at the end."""
        return self._chain

    @property
    def deadline(self) -> float:
        """When the last asker of the letters in hand stops waiting; infinity if nobody asked."""
        asked = [letter.deadline for letter in self._in_hand if letter.expects_answer]
        return max(asked) if asked and len(asked) == len(self._in_hand) else math.inf

    @property
    def suspended(self) -> bool:
        """It takes no letter until resumed; one already in hand is finished."""
        return self._resumed is not None

    def suspend(self) -> None:
        """Take no further letter; they wait, within the mailbox's bound. Harmless when suspended, without
        effect when asked to stop."""
        if self._resumed is None and not self._asked_to_stop:
            self._resumed = trio.Event()
            self._mailbox.wake(self)

    @property
    def _asked_to_stop(self) -> bool:
        return self._stop_heard is not None and self._stop_heard.is_set()

    def resume(self) -> None:
        """Undo ``suspend``; every stop does."""
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    @property
    def idle_since(self) -> float | None:
        """Since when it waits for a letter with nothing in hand that somebody waits for; None: it is busy, or
        suspended."""
        if self._in_hand and any(letter.under_way for letter in self._in_hand):
            return None
        return self._waiting_since

    def request_stop(self, *, drain: bool) -> None:
        """End this life: before the next letter, or with ``drain`` after the last, nothing new coming in."""
        if drain:
            self._mailbox.close()
        else:
            self._stop = True
            self._mailbox.wake(self)
        self.resume()
        if self._stop_heard is None:
            self._stop_heard = trio.Event()
        self._stop_heard.set()

    def request_end_when_empty(self) -> None:
        """End this life unless a letter comes first; the mailbox stays open."""
        self._ends_when_empty = True
        self._mailbox.wake(self)

    def end(self, how: str, *, by_itself: bool = True) -> list[tuple[Letter[Any], str]]:
        """The incarnation is over. Repeatable letters in hand go back to the front; the other askers hear
        OutcomeUnknown. Returns the letters that will not be tried again, each with the reason.

        Not ``by_itself``: killed, or for want of something it depends on; its letters are not to blame.
        """
        dead, back = [], []
        lives_max = self._mailbox.lives_max
        for letter in self._in_hand:
            if letter.settled:
                self._count_handled(1)
                continue
            letter.done_with("life ended")
            letter.lives_cost += 1
            if letter.lives_cost >= lives_max:
                reason = (
                    f"{letter.lives_cost} lives of {self._mailbox.name} ended with it in hand; last: {how}"
                )
                if letter.message.repeatable and letter.expects_answer and not by_itself:
                    letter.refuse(Unavailable(reason))
                    continue
                dead.append((letter, reason))
                if letter.message.repeatable and by_itself:
                    self._mailbox.poisoned_by(letter)
                    letter.refuse(Poisoned(reason, retry_after_s=POISON_S))
                else:
                    letter.refuse(OutcomeUnknown(reason))
            elif letter.message.repeatable:
                back.append(letter)
            else:
                reason = f"{self._mailbox.name} died with the letter in hand"
                letter.refuse(OutcomeUnknown(reason))
                if not letter.expects_answer:
                    dead.append((letter, f"{reason}: {how}"))
        self._in_hand = []
        self._mailbox.give_back(back)
        return dead

    def _pick_up(self, letter: Letter[Any]) -> Letter[Any]:
        letter.taken_at(self._mailbox.name, alone=not self._in_hand)
        self._in_hand.append(letter)
        if letter.sender_chain:
            self._chain = tuple(dict.fromkeys((*letter.sender_chain, *self._chain)))
        return letter

    def _lay_down(self) -> None:
        if not self._in_hand:
            return
        kept = []
        for letter in self._in_hand:
            if letter.under_way:
                kept.append(letter)
            else:
                letter.done_with()
        work_in_nothing()
        self._count_handled(len(self._in_hand) - len(kept))
        self._in_hand = kept
        chain: dict[str, None] = {}
        for letter in kept:
            chain.update(dict.fromkeys(letter.sender_chain))
        self._chain = (*chain, self._mailbox.name)

    def _count_handled(self, letters: int) -> None:
        self.handled += letters
        self._mailbox.handled += letters


current_inbox: ContextVar[Inbox | None] = ContextVar("current_inbox", default=None)
"""The incarnation on whose behalf this task runs; set by the supervisor around ``run``."""


class Ref:
    """An address to write to. It stays good whatever happens to the actor behind it."""

    __slots__ = ("_box", "name")

    def __init__(self, mailbox: Mailbox) -> None:
        self.name = mailbox.name
        self._box: Callable[[], Mailbox] = lambda: mailbox

    @classmethod
    def to_whoever_lives_at(cls, name: str, find: Callable[[], Mailbox]) -> Ref:
        """For addresses whose mailbox comes and goes: it is looked up for each letter. ``find`` may raise
        the NotNow family; nothing was done then."""
        ref = cls.__new__(cls)
        ref.name = name
        ref._box = find
        return ref

    async def ask(self, message: Message[A], *, deadline_s: float) -> A:
        """The answer, within ``deadline_s`` and, for an actor, while somebody still waits for the letters in
        its hand. Raises MailboxFull, Stopping, Unavailable, TooManyChildren, Poisoned: nothing was done;
        OutcomeUnknown, DeadlinePassed: perhaps it was. CallCycle is a mistake in the house."""
        await trio.lowlevel.checkpoint_if_cancelled()
        inbox = current_inbox.get()
        latest = math.inf if inbox is None else inbox.deadline
        deadline = min(trio.current_time() + deadline_s, latest)
        letter = Letter(message, deadline=deadline, sender_chain=self._chain_to_here(inbox))
        self._box().put(letter)
        return await letter.wait_answer()

    def tell(self, message: Message[Any]) -> None:
        """The message waits in the mailbox; nobody answers. Raises MailboxFull, Stopping, Unavailable or
        TooManyChildren: nothing was done."""
        self._box().put(Letter(message, expects_answer=False))

    def _chain_to_here(self, inbox: Inbox | None) -> tuple[str, ...]:
        if inbox is None:
            return ()
        if self.name in inbox.chain:
            raise CallCycle(" asks ".join((*inbox.chain, self.name)))
        return inbox.chain


async def ask_all(ref: Ref, messages: Sequence[Message[A]], *, deadline_s: float) -> list[A]:
    """``ref.ask`` for each at the same time: their answers in order, or what the first of them that failed
    raised; all have ended by then."""
    if len(messages) == 1:
        return [await ref.ask(messages[0], deadline_s=deadline_s)]
    outcomes: dict[int, outcome.Value[A] | outcome.Error] = {}

    async def ask(place: int) -> None:
        try:
            outcomes[place] = outcome.Value(await ref.ask(messages[place], deadline_s=deadline_s))
        except NotNow as reason:
            outcomes[place] = outcome.Error(reason)

    async with trio.open_nursery() as nursery:
        for place in range(len(messages)):
            nursery.start_soon(ask, place)
    return [outcomes[place].unwrap() for place in range(len(messages))]
