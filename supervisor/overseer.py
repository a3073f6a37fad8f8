"""The operator's hands on the living tree: looks at it, ends and holds lives, and cares for dead letters.

Every act goes through the supervisors and leaves decisions about restarts to them; it only waits, within a
deadline, to tell what came of it. It decides about nobody's rights: the doors do.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import structlog
import trio

from actors.dead_letters import DeadLetter, DeadLetters
from actors.errors import NotNow
from actors.views import (
    CHILDREN_MAX,
    Acted,
    Action,
    ActorView,
    EndView,
    NotPossible,
    Order,
    Resent,
    TreeView,
)
from supervisor.branch import Branch
from supervisor.dynamic import DynamicSupervisor
from supervisor.place import Place

log = structlog.get_logger()

_BUSY: dict[Order, Callable[[Place], Any]] = {
    "depth": lambda place: (place.mailbox.depth, place.handled_ever),
    "handled": lambda place: place.handled_ever,
    "recent": lambda place: place.born,
}


class TreeOverseer:
    """Implements ``actors.views.Overseer`` on the tree under ``root``."""

    def __init__(self, root: Branch) -> None:
        self._root = root

    def look(
        self, path: str | None = None, *, children_max: int = CHILDREN_MAX, after: str | None = None
    ) -> TreeView:
        return self._root.look(path, children_max=children_max, after=after)

    def busiest(self, *, order: Order, limit: int) -> list[ActorView]:
        weigh = _BUSY[order]
        everybody = ((branch, place) for branch in _dynamic_below(self._root) for place in branch.places())
        chosen = heapq.nlargest(limit, everybody, key=lambda found: weigh(found[1]))
        return [place.view(f"{branch.path}/{place.name}") for branch, place in chosen]

    async def act(self, action: Action, path: str, reason: str, *, within_s: float) -> Acted:
        branch, name = self._root.locate(path)
        place = branch.place_of(name)
        log.warning("operator acts", action=action, path=path, reason=reason, state=place.state)
        ended: EndView | None = None
        if action == "suspend" or action == "resume":
            branch.suspend_child(name, action == "suspend")
        else:
            with trio.move_on_after(within_s):
                ended = await self._end(action, path, reason)
                # Its supervisor has noted the end and started whoever is to live now.
                await branch.caught_up()
        return Acted(path, action, place.state, place.generation, ended)

    async def _end(self, action: Action, path: str, reason: str) -> EndView | None:
        with self._root.monitor(path) as monitor:
            if action == "kill":
                self._root.kill(path, reason)
            elif action == "drain":
                self._root.drain(path)
            else:
                self._root.restart_child_at(path)
            down = await monitor.wait()
        return None if down.how == "not_alive" else EndView(down.incarnation, down.how, down.why)

    # Dead letters.

    @property
    def _office(self) -> DeadLetters:
        return self._root.dead_letters

    def list_dead_letters(self, *, after: int | None, limit: int) -> list[DeadLetter]:
        return self._office.list(after=after, limit=limit)

    def show_dead_letter(self, dead_letter_id: int) -> DeadLetter:
        return self._office.show(dead_letter_id)

    def drop_dead_letter(self, dead_letter_id: int) -> DeadLetter:
        return self._office.drop(dead_letter_id)

    async def resend_dead_letter(self, dead_letter_id: int, *, within_s: float) -> Resent:
        """Whoever answers it makes it a dead letter no more; whatever else happens, it stays one."""
        self._office.show(dead_letter_id)
        content = self._office.content(dead_letter_id)
        if content is None:
            raise NotPossible(f"the content of dead letter {dead_letter_id} was let go to save memory")
        try:
            await content.to.ask(content.message, deadline_s=within_s)
        except NotNow as error:
            return Resent(dead_letter_id, answered=False, why=f"{type(error).__name__}: {error}")
        with suppress(LookupError):  # dropped meanwhile
            self._office.drop(dead_letter_id)
        return Resent(dead_letter_id, answered=True, why=None)


def _dynamic_below(branch: Branch) -> Iterator[DynamicSupervisor[Any]]:
    if isinstance(branch, DynamicSupervisor):
        yield branch
    for below in branch.child_branches().values():
        yield from _dynamic_below(below)
