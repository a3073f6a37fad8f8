"""What every supervisor is, static or dynamic: a place in the tree, a task of its own, and its news.

A branch's task alone starts lives and decides about ends; everybody else leaves news for it. So an actor
inherits nothing from the request that needed it, and two decisions never interleave.
"""

from __future__ import annotations

import math
import traceback
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog
import trio

from actors.dead_letters import DeadLetters
from actors.errors import NotNow, Stopping
from actors.letters import Letter
from actors.mailbox import Inbox, Mailbox, Ref
from actors.monitors import Down, Monitor, Monitors
from actors.views import CHILDREN_MAX, ActorView, NoSuchActor, TreeView
from supervisor.incarnation import Ended, Incarnation
from supervisor.place import Place
from supervisor.policy import Pauses, Restart

log = structlog.get_logger()

News = Callable[[], Awaitable[None]]

DEAD_LETTERS_SHOWN = 20  # with the tree; the office has more
NEWS_AT_ONCE = 64  # then everybody else has a turn


class GaveUp(Exception):
    """A supervisor's children died more often than its intensity allows. Its parent decides; out of the root
    it ends the process. ``__cause__`` is the last child's error, if it died of one."""


class Branch(ABC):
    """``name`` is unique among its siblings and has no "/"."""

    def __init__(self, name: str, *, pauses: Pauses, restart: Restart) -> None:
        if not name or "/" in name:
            raise ValueError(f"{name!r} cannot be a name in the tree")
        self.name = name
        self.restart: Restart = restart
        self.pauses = pauses
        self._parent: Branch | None = None
        self._own_dead_letters = DeadLetters()
        self._own_monitors = Monitors()
        self._news: trio.MemorySendChannel[News] | None = None
        self._to_hear: trio.MemoryReceiveChannel[News] | None = None
        self._stop: bool | None = None  # asked to stop; True: with drain
        self._abandoned = False  # nobody below comes back, until the next life
        self._born: float | None = None
        self._lives = 0

    # As the root of the tree.

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Live as the root: ``started`` when everybody is ready, returns after ``stop``, raises GaveUp when
        the intensity was exceeded. Afterwards every letter is refused: nobody is left hanging."""
        told = trio.Event()

        def tell_once() -> None:
            if not told.is_set():
                told.set()
                task_status.started()

        try:
            await self.live(Inbox(Mailbox(self.name, letters_max=0), on_ready=tell_once))
            tell_once()  # stopped before everybody was ready: the starter need not wait either
        finally:
            self.abandon(Stopping, "the house has closed")

    def stop(self) -> None:
        """Close the house in order: mailboxes close, accepted letters are handled within each child's
        ``shutdown_s``, children end in reverse start order; then ``run`` returns. From any task."""
        self.ask_to_stop(True)

    def look(
        self, path: str | None = None, *, children_max: int = CHILDREN_MAX, after: str | None = None
    ) -> TreeView:
        """The tree now, or the part of it at ``path``, and the newest dead letters of the whole house. Of
        dynamic children, ordered by name, at most ``children_max`` behind ``after``. Raises NoSuchActor."""
        if path is None or path == self.name:
            found = self.view(children_max, after)
        else:
            branch, name = self.locate(path)
            found = branch.view_child(name, children_max, after)
        dead = self.dead_letters
        return TreeView(found, dead.list(limit=DEAD_LETTERS_SHOWN), dead.total)

    def kill(self, path: str, reason: str = "killed by an operator") -> None:
        """Cancel the life at ``path``, a letter in hand or not; it counts as a death. Raises NoSuchActor, and
        NotPossible when nobody is alive there."""
        branch, name = self.locate(path)
        branch.place_of(name).must_live(path).kill(reason)

    def restart_child_at(self, path: str) -> None:
        """End the life at ``path`` between letters and start the next one; counts as nothing, also revives
        one that had ended or was drained. Raises NoSuchActor, and NotPossible when its supervisor is away for
        good."""
        branch, name = self.locate(path)
        branch.restart_child(name)

    def drain(self, path: str) -> None:
        """Whoever lives at ``path`` finishes the letters that wait and ends; nothing new is accepted until
        ``restart_child_at``. Raises NoSuchActor."""
        branch, name = self.locate(path)
        branch.drain_child(name)

    def suspend(self, path: str) -> None:
        """Whoever lives at ``path`` now or later takes no letter until ``resume``; a letter in hand is
        finished, others wait within the mailbox's bound. Raises NoSuchActor, and NotPossible for one that
        takes none."""
        branch, name = self.locate(path)
        branch.suspend_child(name, True)

    def resume(self, path: str) -> None:
        branch, name = self.locate(path)
        branch.suspend_child(name, False)

    def monitor(self, path: str, watcher: Mailbox | None = None) -> Monitor:
        """Be told once when the present life at ``path`` ends, and why: by ``Monitor.wait``, and with a
        ``watcher`` by a ``Down`` letter that no full mailbox refuses. Told at once when nobody is alive
        there. Raises NoSuchActor."""
        branch, name = self.locate(path)
        place = branch.place_of(name)
        monitor = self.monitors.monitor(path, watcher)
        if place.alive is None:
            self.monitors.tell(Down(path, place.generation, "not_alive", f"nobody is alive at {path}"))
        return monitor

    # As a part of the tree.

    @property
    def path(self) -> str:
        return self.name if self._parent is None else f"{self._parent.path}/{self.name}"

    @property
    def dead_letters(self) -> DeadLetters:
        """One office for the whole house: the root's."""
        return self._own_dead_letters if self._parent is None else self._parent.dead_letters

    @property
    def monitors(self) -> Monitors:
        """One office for the whole house: the root's."""
        return self._own_monitors if self._parent is None else self._parent.monitors

    def adopt(self, parent: Branch) -> None:
        if self._parent is not None:
            raise ValueError(f"{self.name} already belongs to {self._parent.name}")
        self._parent = parent

    def expect_life(self) -> None:
        """The parent is about to start ``live``; a stop asked from now on is meant for that life."""
        self._stop = None

    def ask_to_stop(self, drain: bool) -> None:
        """End this life of the branch, children in reverse; ``drain``: for good."""
        self._stop = bool(self._stop) or drain
        self._post(nothing)

    @abstractmethod
    async def live(self, inbox: Inbox) -> None:
        """One life of the branch."""

    @abstractmethod
    def abandon(self, error: type[NotNow], text: str) -> None:
        """Nobody below comes back: every waiting and every later letter is refused."""

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Everybody below that is expected to live does, and is ready."""

    @abstractmethod
    def held_back(self) -> list[str]:
        """Paths below that an operator drained or suspended (of static children, and of dynamic ones only all
        together): this house does not do all of its work."""

    @abstractmethod
    def view(self, children_max: int, after: str | None = None) -> ActorView: ...

    @abstractmethod
    def view_child(self, name: str, children_max: int, after: str | None = None) -> ActorView: ...

    @abstractmethod
    def place_of(self, name: str) -> Place:
        """Raises NoSuchActor."""

    @abstractmethod
    def restart_child(self, name: str) -> None: ...

    @abstractmethod
    def drain_child(self, name: str) -> None: ...

    @abstractmethod
    def suspend_child(self, name: str, suspended: bool) -> None: ...

    @abstractmethod
    def suspend_all(self, suspended: bool) -> None:
        """Everybody below, also those who come later."""

    def child_branches(self) -> dict[str, Branch]:
        """The branches among the children."""
        return {}

    def locate(self, path: str) -> tuple[Branch, str]:
        """The supervisor of the one at ``path``, and its name there. Raises NoSuchActor."""
        root, *names = path.split("/")
        if root != self.name or not names:
            raise NoSuchActor(f"{path} is not below {self.name}")
        branch: Branch = self
        for name in names[:-1]:
            below = branch.child_branches().get(name)
            if below is None:
                raise NoSuchActor(f"{branch.path} has no branch {name}")
            branch = below
        return branch, names[-1]

    async def caught_up(self) -> None:
        """Until this branch has acted on everything it was told before. Give it a deadline: a branch that is
        not alive does not."""
        heard = trio.Event()

        async def hear() -> None:
            heard.set()

        self._post(hear)
        await heard.wait()

    # News.

    def _begin_life(self) -> None:
        """The queue is unbounded, but each sender has few things to say: an end, a readiness, a start."""
        self._born = trio.current_time()
        self._abandoned = False
        self._lives += 1
        self._news, self._to_hear = trio.open_memory_channel[News](math.inf)

    def _post(self, news: News) -> None:
        """Leave news for the branch's own task. Lost between two lives: the next one looks for itself."""
        if self._news is not None:
            self._news.send_nowait(news)

    async def _hear(self, *, until: float) -> None:
        """Wait for news, at most until ``until``, and act on it."""
        assert self._to_hear is not None
        news: News = nothing
        with trio.move_on_at(until):
            news = await self._to_hear.receive()
        await news()

    async def _hear_what_gathered(self) -> None:
        """Act on the news there is, without waiting for more, and not on so much that others wait for us."""
        assert self._to_hear is not None
        with suppress(trio.WouldBlock):
            for _ in range(NEWS_AT_ONCE):
                await self._to_hear.receive_nowait()()

    # In the task of a life that ends: note it; the rest is left to the branch's own task.

    def _account(self, place: Place, life: Incarnation, to: Ref) -> None:
        place.handled += life.inbox.handled
        self._bury(to, life.dead_letters)
        if len(self.monitors) and life.ended is not None:
            path = f"{self.path}/{place.name}"
            self.monitors.tell(Down(path, life.generation, life.ended.kind, life.ended.text))

    def _bury(self, to: Ref, letters: list[tuple[Letter[Any], str]]) -> None:
        for letter, reason in letters:
            self.dead_letters.bury(to, letter, reason)
            log.error("dead letter", actor=to.name, message=type(letter.message).__name__, reason=reason)


async def nothing() -> None:
    """News that only make the branch look around."""


def log_end(path: str, incarnation: Incarnation, ended: Ended) -> None:
    """Say once how a life ended; only a surprise shows its traceback, and a GaveUp's was shown below."""
    if ended.quiet:  # every tenant's, again and again
        log.debug("actor finished", actor=path, incarnation=incarnation.generation, why=ended.text)
        return
    said = log.bind(actor=path, incarnation=incarnation.generation, why=ended.text)
    if ended.kind == "crashed":
        if ended.error is None or isinstance(ended.error, GaveUp):
            said.error("actor died")
        else:
            # Formatted here, not by the log's own formatters: some of them show local values, and an
            # actor's locals are customers' payloads and keys.
            said.error("actor died", exception="".join(traceback.format_exception(ended.error)))
    else:
        said.warning("actor ended", how=ended.kind)
