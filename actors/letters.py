"""One letter in its envelope.

A letter alone owns the moment of its answer: it is answered or refused once, whoever comes first, and the
asker hears exactly that. It never decides whether it is worth doing: its actor does, seeing ``abandoned``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import outcome
import trio
from opentelemetry.trace import Span

from actors.errors import DeadlinePassed, NotNow
from actors.messages import Message
from actors.tracing import begin_handling, current_trace, end_handling, trace_id_of, work_in

A = TypeVar("A")


class Letter(Generic[A]):
    """A message with its deadline (``trio.current_time`` seconds), the addresses whose asks led to it, the
    trace it belongs to, and the number of incarnations that died with it in hand."""

    __slots__ = (
        "_asker",
        "_forget",
        "_gone",
        "_span",
        "_trace",
        "_written_at",
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
        self._trace = current_trace()
        self._written_at = trio.current_time() if self._trace is not None else 0.0
        self._span: Span | None = None

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
        """Wait for the answer. Raises what the letter was refused with, or DeadlinePassed; neither when a
        scope around the asker ends first."""
        if trio.current_effective_deadline() <= self.deadline:
            return await self._answer()
        with trio.CancelScope(deadline=self.deadline):
            return await self._answer()
        raise DeadlinePassed(f"no answer to {type(self.message).__name__} within the deadline")

    async def _answer(self) -> A:
        self._asker = trio.lowlevel.current_task()
        answer: A = await trio.lowlevel.wait_task_rescheduled(self._leave)
        return answer

    def waits_in(self, forget: Callable[[Letter[A]], None] | None) -> None:
        """Not taken yet (None: taken). Whoever leaves an untaken letter behind takes it along: nothing was
        done with it, and what nobody waits for must not keep its place or its memory."""
        self._forget = forget

    # Its trace.

    @property
    def trace_id(self) -> str | None:
        return trace_id_of(self._trace)

    def taken_at(self, address: str, *, alone: bool) -> None:
        """An incarnation has it in hand from now on; ``alone``: what this task does is done for it."""
        if self._trace is None:
            return
        waited_s = trio.current_time() - self._written_at
        self._span = begin_handling(self._trace, type(self.message).__name__, address, waited_s)
        if alone:
            work_in(self._trace, self._span)

    def done_with(self, trouble: str | None = None) -> None:
        """The incarnation has it in hand no more."""
        if self._span is not None:
            end_handling(self._span, trouble)
            self._span = None

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
        if self._span is not None:
            self.done_with(type(how.error).__name__ if isinstance(how, outcome.Error) else None)
        if self._asker is not None:
            trio.lowlevel.reschedule(self._asker, how)
            self._asker = None
