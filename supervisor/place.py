"""A child's place at its supervisor: what stays the same from life to life, and the present life.

It starts nobody and decides nothing; it only knows what state it is in and shows itself to the operator.
"""

from __future__ import annotations

from typing import Any, Literal

import trio

from actors.mailbox import Mailbox
from actors.views import ActorView, NotPossible, State, view_of_mailbox
from supervisor.incarnation import Incarnation


class Place:
    """``deaths`` are counted in a row. ``drained`` and ``suspended`` are the operator's wishes; they outlive
    the present life and, for a static child, its supervisor's."""

    __slots__ = (
        "deaths",
        "drained",
        "generation",
        "handled",
        "incarnation",
        "last_error",
        "mailbox",
        "name",
        "suspended",
    )

    def __init__(self, name: str, mailbox: Mailbox) -> None:
        self.name = name
        self.mailbox = mailbox
        self.generation = 0
        self.incarnation: Incarnation | None = None
        self.deaths = 0
        self.handled = 0  # by the lives that are over
        self.last_error: str | None = None
        self.drained = False
        self.suspended = False

    @property
    def alive(self) -> Incarnation | None:
        """The present life, unless it is over and only waits to be noted."""
        life = self.incarnation
        return None if life is None or life.ended is not None else life

    @property
    def restarts(self) -> int:
        """Lives after the first."""
        return max(0, self.generation - 1)

    @property
    def handled_ever(self) -> int:
        life = self.alive
        return self.handled + (0 if life is None else life.inbox.handled)

    @property
    def born(self) -> float:
        """Of the present life, ``trio.current_time`` seconds; before all times without one."""
        life = self.alive
        return -1.0 if life is None else life.born

    @property
    def state(self) -> State:
        life = self.alive
        if life is None:
            return "drained" if self.drained else self.state_between_lives
        if life.stop_asked:
            return "stopping"
        if self.suspended:
            return "suspended"
        return "running" if life.ready else "starting"

    @property
    def state_between_lives(self) -> State:
        raise NotImplementedError

    def hold(self, suspended: bool) -> None:
        """Whoever lives here, now or later, takes no letter until this is undone."""
        self.suspended = suspended
        life = self.alive
        if life is not None:
            life.inbox.suspend() if suspended else life.inbox.resume()

    def must_live(self, path: str) -> Incarnation:
        """The present life. Raises NotPossible without one."""
        life = self.alive
        if life is None:
            raise NotPossible(f"{path} is not alive now ({self.state})")
        return life

    def view(
        self,
        path: str,
        *,
        kind: Literal["actor", "supervisor", "dynamic"] = "actor",
        has_address: bool = True,
        **more: Any,
    ) -> ActorView:
        """``more``: members that a branch in this place knows better."""
        life = self.alive
        members: dict[str, Any] = {
            "handled": self.handled_ever,
            "restarts": self.restarts,
            "mailbox": view_of_mailbox(self.mailbox) if has_address else None,
            "children": [],
        }
        return ActorView(
            path=path,
            name=self.name,
            kind=kind,
            state=self.state,
            incarnation=self.generation,
            uptime_s=None if life is None else trio.current_time() - life.born,
            last_error=self.last_error,
            **(members | more),
        )
