"""One letter in its envelope, and the place where letters end that nobody could handle.

A letter alone owns the moment of its answer: it is answered or refused once, whoever comes first, and the
asker hears exactly that. It never decides whether it is worth doing: its actor does, seeing ``abandoned``.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
import outcome
import trio

from actors.errors import DeadlinePassed, NotNow
from actors.messages import Message

A = TypeVar("A")


class Letter(Generic[A]):
    """A message with its deadline (``trio.current_time`` seconds), the addresses whose asks led to it, and
    the number of incarnations that died with it in hand."""

    __slots__ = (
        "_asker",
        "_forget",
        "_gone",
        "deadline",
        "expects_answer",
        "lives_cost",
        "message",
        "sender_chain",
        "settled",
    )

    def __init__(
        self,
        message: Message[A],
        *,
        deadline: float = math.inf,
        sender_chain: tuple[str, ...] = (),
        expects_answer: bool = True,
    ) -> None:
        self.message = message
        self.deadline = deadline
        self.sender_chain = sender_chain
        self.lives_cost = 0
        self.expects_answer = expects_answer
        self.settled = False
        self._asker: trio.lowlevel.Task | None = None
        self._gone = False
        self._forget: Callable[[Letter[A]], None] | None = None

    def __repr__(self) -> str:
        return f"<Letter {type(self.message).__name__} lives_cost={self.lives_cost}>"

    def answer(self, value: A) -> None:
        """The asker gets ``value``. Without effect when the letter was answered or refused before."""
        self._settle(outcome.Value(value))

    def refuse(self, reason: NotNow) -> None:
        """The asker's ``ask`` raises ``reason``. Without effect when answered or refused before."""
        self._settle(outcome.Error(reason))

    @property
    def abandoned(self) -> bool:
        """Nobody waits for the answer any more: the asker went away or the deadline passed.
        Never true for a letter that was told."""
        return self.expects_answer and (self._gone or trio.current_time() >= self.deadline)

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline, at least 0; what a further ``ask`` for this letter may take."""
        return max(0.0, self.deadline - trio.current_time())

    @property
    def under_way(self) -> bool:
        """Somebody may still be waiting for what the actor is doing with it."""
        return self.expects_answer and not self.settled and trio.current_time() < self.deadline

    async def wait_answer(self) -> A:
        """Wait for the answer. Raises what the letter was refused with, or DeadlinePassed."""
        with trio.CancelScope(deadline=self.deadline):
            self._asker = trio.lowlevel.current_task()
            answer: A = await trio.lowlevel.wait_task_rescheduled(self._leave)
            return answer
        raise DeadlinePassed(f"no answer to {type(self.message).__name__} within the deadline")

    def waits_in(self, forget: Callable[[Letter[A]], None] | None) -> None:
        """Not taken yet (None: taken). Whoever leaves an untaken letter behind takes it along: nothing was
        done with it, and what nobody waits for must not keep its place or its memory."""
        self._forget = forget

    def _leave(self, _raise_cancel: Any) -> trio.lowlevel.Abort:
        self._asker = None
        self._gone = True
        if self._forget is not None:
            self._forget(self)
        return trio.lowlevel.Abort.SUCCEEDED

    def _settle(self, how: outcome.Value[A] | outcome.Error) -> None:
        if self.settled:
            return
        self.settled = True
        if self._asker is not None:
            trio.lowlevel.reschedule(self._asker, how)
            self._asker = None


class DeadLetter(msgspec.Struct, frozen=True):
    """A letter that will not be tried again. ``buried_at`` in Unix seconds."""

    mailbox: str
    message: str
    """The name of the message's type; its content may be a customer's and is not kept."""
    reason: str
    lives_cost: int
    buried_at: float


class DeadLetters:
    """The last ``letters_max`` dead letters and the count of all. It never refuses one: the oldest goes."""

    def __init__(self, *, letters_max: int = 256, now: Callable[[], float] = time.time) -> None:
        self.total = 0
        self._ring: deque[DeadLetter] = deque(maxlen=letters_max)
        self._now = now

    def bury(self, mailbox: str, letter: Letter[Any], reason: str) -> None:
        self.total += 1
        name = type(letter.message).__name__
        self._ring.append(DeadLetter(mailbox, name, reason, letter.lives_cost, self._now()))

    def list(self) -> list[DeadLetter]:
        """Oldest first."""
        return [*self._ring]
