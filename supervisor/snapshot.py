"""What an operator sees of the tree: plain data, taken in one moment. It never holds anything alive."""

from __future__ import annotations

from typing import Literal

import msgspec

from actors.letters import DeadLetter
from actors.mailbox import Mailbox

State = Literal["waiting", "starting", "running", "stopping", "pausing", "resting", "dormant", "ended"]


class MailboxView(msgspec.Struct, frozen=True):
    """``depth`` letters wait now, ``peak`` was the most ever, ``letters_max`` is the bound."""

    depth: int
    peak: int
    letters_max: int
    handled: int
    refused: int
    dropped: int


class ActorView(msgspec.Struct, frozen=True):
    """One inhabitant. ``path`` is what ``kill`` and ``restart`` take; ``incarnation`` counts its lives from 1
    (0: never started); ``uptime_s`` is of the present life; ``restarts`` counts lives after the first."""

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


class TreeView(msgspec.Struct, frozen=True):
    tree: ActorView
    dead_letters: list[DeadLetter]
    dead_letters_total: int


def view_of_mailbox(mailbox: Mailbox) -> MailboxView:
    return MailboxView(
        depth=mailbox.depth,
        peak=mailbox.peak,
        letters_max=mailbox.letters_max,
        handled=mailbox.handled,
        refused=mailbox.refused,
        dropped=mailbox.dropped,
    )
