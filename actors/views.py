"""What an operator sees of the house and may do to its inhabitants: plain data, taken in one moment.

It never holds anything alive. The supervisors fill it in, the doors pass it on.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from actors.dead_letters import DeadLetter
from actors.mailbox import Mailbox

State = Literal[
    "waiting",
    "starting",
    "running",
    "suspended",
    "stopping",
    "pausing",
    "resting",
    "dormant",
    "drained",
    "ended",
]
"""``pausing``: between two lives. ``resting``: died too often, is tried again later. ``dormant``: nobody
lives there, the next letter starts a life. ``drained``: finished on request, accepts nothing until restarted.
``suspended``: takes no letter until resumed. ``ended``: over, and not expected back."""

Action = Literal["kill", "restart", "drain", "suspend", "resume"]
Order = Literal["depth", "handled", "recent"]

CHILDREN_MAX = 50
"""Dynamic children shown when nobody says how many."""


class MailboxView(msgspec.Struct, frozen=True):
    """``depth`` letters wait now, ``peak`` was the most ever, ``letters_max`` is the bound."""

    depth: int
    peak: int
    letters_max: int
    handled: int
    refused: int
    dropped: int


class ActorView(msgspec.Struct, frozen=True):
    """One inhabitant. ``path`` is its name for every action; ``incarnation`` counts its lives from 1 (0:
    never started); ``uptime_s`` is of the present life; ``restarts`` counts lives after the first. Of a
    dynamic supervisor ``handled``, ``children_restarts`` and ``mailbox`` sum up all children (``peak``: the
    highest one), and ``children`` shows only some of its ``children_total``. A pool shows its readers' common
    mailbox."""

    path: str
    name: str
    kind: Literal["actor", "supervisor", "dynamic"]
    state: State
    incarnation: int
    uptime_s: float | None
    handled: int
    restarts: int
    last_error: str | None
    mailbox: MailboxView | None
    children: list[ActorView]
    children_total: int = 0
    children_restarts: int = 0


class TreeView(msgspec.Struct, frozen=True):
    tree: ActorView
    dead_letters: list[DeadLetter]
    """The newest few."""
    dead_letters_total: int
    """All that ever were, since the node started."""


class EndView(msgspec.Struct, frozen=True):
    """How a life ended: ``finished`` by itself, ``asked`` between letters, ``crashed``, ``not_now``
    (something it depends on is away), ``killed``; ``why`` is for the operator."""

    incarnation: int
    how: str
    why: str


class Acted(msgspec.Struct, frozen=True):
    """What an action found and left: ``ended`` is the life that it ended, None if none or not yet;
    ``state`` and ``incarnation`` are those right after."""

    path: str
    action: Action
    state: State
    incarnation: int
    ended: EndView | None


class Resent(msgspec.Struct, frozen=True):
    """``answered``: done, and no dead letter any more. Otherwise ``why`` it was not, or not for certain."""

    id: int
    answered: bool
    why: str | None


class NoSuchActor(LookupError):
    """Nobody of that path; the text names the part that is not there."""


class NotPossible(LookupError):
    """The path is somebody's, but nobody is there for this action now; nothing was done."""


class Overseer(Protocol):
    """What the operator's doors may ask of the living tree. ``path``: names joined by "/", the root first."""

    def look(
        self, path: str | None = None, *, children_max: int = CHILDREN_MAX, after: str | None = None
    ) -> TreeView:
        """The tree, or the part of it at ``path``. Of dynamic children, ordered by name, at most
        ``children_max`` behind ``after``. Raises NoSuchActor."""
        ...

    def busiest(self, *, order: Order, limit: int) -> list[ActorView]:
        """Of all dynamic children (the tenants) those with the most letters waiting, the most handled, or
        the newest lives."""
        ...

    async def act(self, action: Action, path: str, reason: str, *, within_s: float) -> Acted:
        """Waits at most ``within_s`` for the end that the action brings. Raises NoSuchActor, NotPossible."""
        ...

    def list_dead_letters(self, *, after: int | None, limit: int) -> list[DeadLetter]:
        """Newest first; ``after``: older than the one with this id."""
        ...

    def show_dead_letter(self, dead_letter_id: int) -> DeadLetter:
        """Raises LookupError."""
        ...

    def drop_dead_letter(self, dead_letter_id: int) -> DeadLetter:
        """Raises LookupError."""
        ...

    async def resend_dead_letter(self, dead_letter_id: int, *, within_s: float) -> Resent:
        """Asks its address once more. Raises LookupError; NotPossible when its content is gone."""
        ...


def view_of_mailbox(mailbox: Mailbox) -> MailboxView:
    return MailboxView(
        depth=mailbox.depth,
        peak=mailbox.peak,
        letters_max=mailbox.letters_max,
        handled=mailbox.handled,
        refused=mailbox.refused,
        dropped=mailbox.dropped,
    )
