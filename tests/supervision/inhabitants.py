"""Messages and actors that the supervision tests put into the house, and the tools to watch them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from actors.mailbox import Inbox, Mailbox, Ref
from actors.messages import Message
from actors.views import ActorView
from supervisor.branch import Branch
from supervisor.policy import Pauses

QUICK = Pauses(first_s=0.01, max_s=0.05)


class Echo(Message[int], frozen=True):
    """Answered with ``n``."""

    n: int


class EchoAgain(Message[int], frozen=True):
    """As Echo, but may be handed to a second incarnation."""

    repeatable = True
    n: int


class Boom(Message[int], frozen=True):
    """Whoever takes it dies."""

    error: str = "boom"


class BoomAgain(Message[int], frozen=True):
    repeatable = True
    n: int = 0


class Hang(Message[int], frozen=True):
    """Never answered; whoever takes it waits for ever."""


class Echoer:
    """Answers Echo after ``work_s`` seconds; ``seen`` is a diary shared by all lives."""

    def __init__(self, seen: list[object] | None = None, *, work_s: float = 0.0) -> None:
        self.seen = seen if seen is not None else []
        self.work_s = work_s

    async def run(self, inbox: Inbox) -> None:
        while True:
            letter = await inbox.take()
            self.seen.append(letter.message)
            if self.work_s:
                await trio.sleep(self.work_s)
            match letter.message:
                case Echo(n) | EchoAgain(n):
                    letter.answer(n)
                case Boom(error):
                    raise RuntimeError(error)
                case BoomAgain():
                    raise RuntimeError("boom again")
                case Hang():
                    await trio.sleep_forever()


class Diarist:
    """Writes into the diary when it is born and when it ends, and does what its ``act`` says between."""

    def __init__(self, name: str, diary: list[str], act: Callable[[Inbox], object] | None = None) -> None:
        self.name = name
        self.diary = diary

    async def run(self, inbox: Inbox) -> None:
        self.diary.append(f"+{self.name}")
        try:
            while True:
                letter = await inbox.take()
                match letter.message:
                    case Echo(n) if n < 0:
                        return
                    case Echo(n):
                        letter.answer(n)
                    case Boom(error):
                        raise RuntimeError(error)
                    case Hang():
                        await trio.sleep_forever()
        finally:
            self.diary.append(f"-{self.name}")


@asynccontextmanager
async def alive(root: Branch) -> AsyncIterator[Branch]:
    """The tree running; closed in order at the end, within a minute."""
    async with trio.open_nursery() as nursery:
        await nursery.start(root.run)
        with trio.fail_after(3600):
            yield root
        root.stop()


def view(root: Branch, path: str) -> ActorView:
    """The inhabitant at ``path``."""
    found = root.look().tree
    for name in path.split("/")[1:]:
        found = next(child for child in found.children if child.name == name)
    return found


def address(name: str, letters_max: int = 100) -> tuple[Mailbox, Ref]:
    mailbox = Mailbox(name, letters_max=letters_max)
    return mailbox, Ref(mailbox)
