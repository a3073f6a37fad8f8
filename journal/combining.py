"""Those who ask at the same time go together: whoever finds a free lane takes along all that wait.

No task of its own: while one combination is under way the next one gathers, and when it is over the first of
those who wait leads it. While others are on their way, a leader waits until as much has come as any of those
who wait finds worth it. First come, first taken, within the limits of one combination. Decides who goes
together and tells each his answer; what is done with them is not its business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

from journal.port import JournalOutcomeUnknown

A = TypeVar("A")
B = TypeVar("B")


class NoTurn(Exception):
    """Waited as long as one may and was not taken: nothing was done."""


@dataclass(frozen=True)
class LaneLimits:
    lanes: int
    """Combinations under way at the same time."""
    members_max: int
    weight_max: int
    """Of a combination; one that weighs more by itself goes by itself."""
    patience_s: float
    """For a turn."""
    gathering_s: float = 0.0
    """At most, of a leader for others."""


class Lanes(Generic[A, B]):
    """Answers each request with what ``act`` answers for it, among those it was taken with."""

    def __init__(
        self,
        act: Callable[[Sequence[A]], Awaitable[Sequence[B]]],
        *,
        limits: LaneLimits,
        weigh: Callable[[A], int],
        apart: Callable[[A], Hashable] | None = None,
        wanted: Callable[[A], int] = lambda _: 0,
    ) -> None:
        """``apart``: two requests of which it says the same never go together. ``wanted``: a
        combination that weighs so much is worth waiting for, to this one, when it comes."""
        self._act = act
        self._limits = limits
        self._weigh = weigh
        self._apart = apart
        self._wanted = wanted
        self._waiting: deque[_Member[A, B]] = deque()
        self._busy = 0
        self._leader: _Member[A, B] | None = None
        """Has a lane, and takes all that wait when it is time, itself the first of them. While there is none,
        those who wait find every lane busy."""
        self._enough = trio.Event()

    async def ask(self, request: A) -> B:
        """Raises NoTurn, or what ``act`` raised; whoever was only taken along hears JournalOutcomeUnknown of
        that. A caller that is cancelled while it waits has begun nothing; once taken, it is told."""
        await trio.lowlevel.checkpoint_if_cancelled()
        member = _Member[A, B](request, self._weigh(request), self._wanted(request))
        self._waiting.append(member)
        self._call_leader()
        if self._leader is not member:
            if self._leader is not None and self._is_enough():
                self._enough.set()
            await self._wait(member)
        if self._leader is member:
            taken = await self._gather(member)
            with trio.CancelScope(shield=True):
                await self._lead(taken)
        return member.told()

    def _is_enough(self) -> bool:
        """Waiting for more would bring nothing, or not enough to one of them."""
        if len(self._waiting) >= self._limits.members_max:
            return True
        wanted = min(member.wanted for member in self._waiting)
        return sum(member.weight for member in self._waiting) >= min(wanted, self._limits.weight_max)

    async def _gather(self, leader: _Member[A, B]) -> list[_Member[A, B]]:
        """Those who go together. A leader who is cancelled meanwhile has begun nothing."""
        if not self._is_enough():
            for member in self._waiting:  # what was worth it when it came may have gone since
                member.wanted = min(member.wanted, self._wanted(member.request))
        if not self._is_enough():
            self._enough = trio.Event()
            try:
                with trio.move_on_after(self._limits.gathering_s):
                    await self._enough.wait()
            except trio.Cancelled:
                self._waiting.remove(leader)
                self._leader = None
                self._pass_on()
                raise
        self._leader = None
        taken = self._take()
        self._call_leader()  # a lane may have become free meanwhile
        return taken

    async def _wait(self, member: _Member[A, B]) -> None:
        """Until it was told, or has to lead."""

        def give_up(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            if member not in self._waiting:
                return trio.lowlevel.Abort.FAILED
            self._waiting.remove(member)
            return trio.lowlevel.Abort.SUCCEEDED

        member.task = trio.lowlevel.current_task()
        with trio.move_on_after(self._limits.patience_s) as patience:
            await trio.lowlevel.wait_task_rescheduled(give_up)
        if patience.cancelled_caught:
            raise NoTurn(f"no turn within {self._limits.patience_s:g} s")

    async def _lead(self, taken: list[_Member[A, B]]) -> None:
        try:
            answers = await self._act([member.request for member in taken])
            for member, answer in zip(taken, answers, strict=True):
                member.answers = [answer]
        except JournalOutcomeUnknown as error:
            for member in taken:
                member.why = str(error)
            raise
        finally:
            for member in taken:
                member.wake()
            self._pass_on()

    def _pass_on(self) -> None:
        self._busy -= 1
        self._call_leader()

    def _call_leader(self) -> None:
        """A free lane to the first who waits; one after the other, when several end in the same moment."""
        if self._leader is None and self._waiting and self._busy < self._limits.lanes:
            self._busy += 1
            self._leader = self._waiting[0]
            self._leader.wake()

    def _take(self) -> list[_Member[A, B]]:
        """From the front, always the first; those passed over keep their places."""
        taken: list[_Member[A, B]] = []
        passed: list[_Member[A, B]] = []
        kinds: set[Hashable] = set()
        weight = 0
        while self._waiting and len(taken) < self._limits.members_max:
            member = self._waiting[0]
            weight += member.weight
            if taken and weight > self._limits.weight_max:
                break
            self._waiting.popleft()
            kind = member if self._apart is None else self._apart(member.request)
            if kind in kinds:
                weight -= member.weight
                passed.append(member)
            else:
                kinds.add(kind)
                taken.append(member)
        self._waiting.extendleft(reversed(passed))
        return taken


class _Member(Generic[A, B]):
    __slots__ = ("answers", "request", "task", "wanted", "weight", "why")

    def __init__(self, request: A, weight: int, wanted: int) -> None:
        self.request = request
        self.weight = weight
        self.wanted = wanted
        self.task: trio.lowlevel.Task | None = None
        self.answers: list[B] = []
        """One, once it was told."""
        self.why = "whoever led this one too has failed"

    def wake(self) -> None:
        if self.task is not None:
            trio.lowlevel.reschedule(self.task)
            self.task = None

    def told(self) -> B:
        if not self.answers:
            raise JournalOutcomeUnknown(self.why)
        return self.answers[0]
