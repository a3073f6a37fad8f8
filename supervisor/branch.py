"""What every supervisor is, static or dynamic: a place in the tree, a task of its own, and its news.

A branch's task alone starts lives and decides about ends; everybody else leaves news for it. So an actor
inherits nothing from the request that needed it, and two decisions never interleave.
"""

from __future__ import annotations

import math
import traceback
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
import trio

from actors.errors import NotNow, Stopping
from actors.letters import DeadLetters, Letter
from actors.mailbox import Inbox, Mailbox
from supervisor.incarnation import Ended, Incarnation
from supervisor.policy import Pauses, Restart
from supervisor.snapshot import ActorView, TreeView

log = structlog.get_logger()

News = Callable[[], Awaitable[None]]


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
        self._news: trio.MemorySendChannel[News] | None = None
        self._to_hear: trio.MemoryReceiveChannel[News] | None = None
        self._stop: bool | None = None  # asked to stop; True: with drain
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

    def look(self) -> TreeView:
        """The tree below, now, and the last dead letters of the whole house."""
        dead = self.dead_letters
        return TreeView(tree=self.snapshot(), dead_letters=dead.list(), dead_letters_total=dead.total)

    def kill(self, path: str, reason: str = "killed by an operator") -> None:
        """Cancel the life at ``path``, a letter in hand or not; it counts as a death. LookupError if there is
        nobody of that name, or nobody alive."""
        branch, name = self._locate(path)
        branch.kill_child(name, reason)

    def restart_child_at(self, path: str) -> None:
        """End the life at ``path`` between letters and start the next one; counts as nothing, also revives
        one that had ended. LookupError if there is nobody of that name."""
        branch, name = self._locate(path)
        branch.restart_child(name)

    # As a part of the tree.

    @property
    def path(self) -> str:
        return self.name if self._parent is None else f"{self._parent.path}/{self.name}"

    @property
    def dead_letters(self) -> DeadLetters:
        """One office for the whole house: the root's."""
        return self._own_dead_letters if self._parent is None else self._parent.dead_letters

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

    @abstractmethod
    def snapshot(self) -> ActorView: ...

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Everybody below that is expected to live does, and is ready."""

    @abstractmethod
    def kill_child(self, name: str, reason: str) -> None: ...

    @abstractmethod
    def restart_child(self, name: str) -> None: ...

    def child_branch(self, name: str) -> Branch | None:
        """The branch of that name among the children, if there is one."""
        return None

    # News.

    def _begin_life(self) -> None:
        """The queue is unbounded, but each sender has few things to say: an end, a readiness, a start."""
        self._born = trio.current_time()
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

    def _bury(self, mailbox: Mailbox, letters: list[tuple[Letter[Any], str]]) -> None:
        for letter, reason in letters:
            self.dead_letters.bury(mailbox.name, letter, reason)
            log.error("dead letter", actor=mailbox.name, message=type(letter.message).__name__, reason=reason)

    def _locate(self, path: str) -> tuple[Branch, str]:
        root, *names = path.split("/")
        if root != self.name or not names:
            raise LookupError(f"{path} is not below {self.name}")
        branch: Branch = self
        for name in names[:-1]:
            below = branch.child_branch(name)
            if below is None:
                raise LookupError(f"{branch.path} has no branch {name}")
            branch = below
        return branch, names[-1]


async def nothing() -> None:
    """News that only make the branch look around."""


def log_end(path: str, incarnation: Incarnation, ended: Ended) -> None:
    """Say once how a life ended; only a surprise shows its traceback, and a GaveUp's was shown below."""
    said = log.bind(actor=path, incarnation=incarnation.generation, why=ended.text)
    if ended.kind == "crashed":
        if ended.error is None or isinstance(ended.error, GaveUp):
            said.error("actor died")
        else:
            # Formatted here, not by the log's own formatters: some of them show local values, and an
            # actor's locals are customers' payloads and keys.
            said.error("actor died", exception="".join(traceback.format_exception(ended.error)))
    elif ended.quiet:
        said.debug("actor finished")
    else:
        said.warning("actor ended", how=ended.kind)
