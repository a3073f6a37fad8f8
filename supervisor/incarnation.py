"""One life of one actor (or of a branch of the tree), from its first step to the account of its end.

It alone catches what ``run`` raises: whatever that is, it ends this life and nothing else; ``Cancelled``
passes. It never decides what happens next; it reports its end, once, and its supervisor decides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import structlog
import trio

from actors.errors import NotNow
from actors.letters import Letter
from actors.mailbox import EndOfLife, Inbox, current_inbox
from supervisor.policy import Kind

log = structlog.get_logger()

ERROR_TEXT_MAX = 500  # characters of an error kept for the operator; an error may quote a whole request
HELD_UP_S = 5.0  # a cancelled actor should be gone by then; trio cannot end one that shields itself


class Ended:
    """How a life ended; ``error`` is what ``run`` raised, unwrapped when it was one error in a group."""

    __slots__ = ("error", "kind", "text")

    def __init__(self, kind: Kind, text: str, error: Exception | None = None) -> None:
        self.kind = kind
        self.text = text
        self.error = error

    @property
    def quiet(self) -> bool:
        return self.kind in ("finished", "asked")

    @property
    def by_itself(self) -> bool:
        """Perhaps of what it had in hand; not of somebody's will, nor of something away."""
        return self.kind in ("finished", "crashed")


def judge(error: Exception) -> Ended:
    """What an exception out of ``run`` means. A group (from a nursery inside ``run``) is what its worst
    member is: a surprise before a NotNow before the end of life."""
    leaves = [*_leaves(error)]
    surprises = [leaf for leaf in leaves if not isinstance(leaf, (EndOfLife, NotNow))]
    if surprises:
        single = surprises[0] if len(leaves) == 1 else error
        return Ended("crashed", _text(surprises[0]), single)
    reasons = [leaf for leaf in leaves if isinstance(leaf, NotNow)]
    if reasons:
        return Ended("not_now", _text(reasons[0]), reasons[0])
    return Ended("asked", "ended between letters")


class Incarnation:
    """``generation`` counts the lives at one address, from 1. ``stop`` and ``kill`` may be called from any
    task; ``live`` runs in a task that the supervisor started from its own."""

    __slots__ = (
        "_ask_to_stop",
        "_body",
        "_done",
        "_on_born",
        "_on_end",
        "_scope",
        "_why_killed",
        "born",
        "dead_letters",
        "ended",
        "generation",
        "inbox",
        "name",
        "on_request",
        "ready",
        "stop_asked",
    )

    def __init__(
        self,
        name: str,
        generation: int,
        inbox: Inbox,
        body: Callable[[Inbox], Awaitable[None]],
        *,
        on_born: Callable[[Incarnation], None],
        on_end: Callable[[Incarnation], None],
        ask_to_stop: Callable[[bool], None] | None = None,
    ) -> None:
        self.name = name
        self.generation = generation
        self.inbox = inbox
        self.born = trio.current_time()
        self.ready = False
        self.stop_asked = False
        self.on_request = False  # an operator wants the next life; no death
        self.ended: Ended | None = None
        self.dead_letters: list[tuple[Letter[Any], str]] = []
        self._body = body
        self._on_born = on_born
        self._on_end = on_end
        self._ask_to_stop = ask_to_stop
        self._scope = trio.CancelScope()
        self._why_killed = "cancelled with its supervisor"
        self._done: trio.Event | None = None

    async def live(self) -> None:
        current_inbox.set(self.inbox)
        ended: Ended | None = None
        try:
            with self._scope:
                self._on_born(self)
                await self._body(self.inbox)
            if self._scope.cancelled_caught:
                ended = Ended("killed", self._why_killed)
            else:
                ended = Ended("finished", "returned")
        except Exception as error:  # broad on purpose: any surprise ends this life, and only it
            ended = judge(error)
        except BaseExceptionGroup as group:
            # It failed while it was cancelled with its supervisor: the errors end here, Cancelled passes.
            errors, rest = group.split(Exception)
            ended = None if errors is None else judge(errors)
            assert rest is not None  # or it had been an Exception
            raise rest from None
        finally:
            self._finish(ended or Ended("killed", self._why_killed))

    def stop(self, *, drain: bool, within_s: float) -> None:
        """Ask to end between letters (with ``drain``: after the last one); cancelled after ``within_s``."""
        if not self.stop_asked:
            self._why_killed = f"did not stop within {within_s:g} s"
        self.stop_asked = True
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + within_s)
        if self._ask_to_stop is not None:
            self._ask_to_stop(drain)
        else:
            self.inbox.request_stop(drain=drain)

    def kill(self, reason: str) -> None:
        """Cancel it now, a letter in hand or not."""
        self._why_killed = reason
        self._scope.deadline = trio.current_time()
        self._scope.cancel(reason=reason)

    async def wait_end(self) -> None:
        """Until the task is over. Without a deadline: trio cannot end a task that shields itself from being
        cancelled or never gives way; the log then names it."""
        if self.ended is not None:
            return
        if self._done is None:
            self._done = trio.Event()
        while not self._done.is_set():
            with trio.move_on_at(max(self._scope.deadline, trio.current_time()) + HELD_UP_S):
                await self._done.wait()
                return
            log.error("actor does not end", actor=self.name, why=self._why_killed)

    def _finish(self, ended: Ended) -> None:
        self.ended = ended
        self.dead_letters = self.inbox.end(ended.text, by_itself=ended.by_itself)
        self._on_end(self)
        if self._done is not None:
            self._done.set()


def _leaves(error: Exception) -> Iterator[Exception]:
    if isinstance(error, ExceptionGroup):
        for member in error.exceptions:
            yield from _leaves(member)
    else:
        yield error


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:ERROR_TEXT_MAX]
