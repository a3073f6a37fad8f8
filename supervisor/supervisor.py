"""A supervisor of named children: starts them in order, restarts by strategy, stops in reverse, gives up.

It alone decides about its children's lives, in its own task. Semantics are OTP's (``supervisor(3)``), with
these differences: there are pauses between lives, a child that fails while starting is restarted like any
other, and a death by NotNow is not held against the intensity. It never waits for a pause, only for a child
that is stopping; and it never escalates without having stopped the others first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
import trio

from actors.errors import NotNow, Stopping, Unavailable
from actors.fair_mailbox import FairMailbox
from actors.mailbox import Actor, Inbox, Mailbox, Ref
from actors.views import CHILDREN_MAX, ActorView, NoSuchActor, NotPossible, State, view_of_mailbox
from supervisor.branch import Branch, GaveUp, log_end, nothing
from supervisor.incarnation import Ended, Incarnation
from supervisor.place import Place
from supervisor.policy import (
    Intensity,
    Pauses,
    Restart,
    Strategy,
    comes_back,
    counts,
    group,
    reachable,
)

log = structlog.get_logger()

PAUSES = Pauses()
INTENSITY = 5  # deaths ...
PERIOD_S = 30.0  # ... in so many seconds: more, and the trouble is not the child's alone


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """``factory`` makes a new actor for each life. Without a ``mailbox`` its inbox never has a letter, but
    still says when to stop; no two specs share one (that is a Pool). ``shutdown_s`` bounds a stop before it
    becomes a cancel. With ``declares_ready`` the next children start only after ``inbox.ready()``, expected
    within ``start_s``. Not ``suspendable``: one that takes no letters and does not ``pause``."""

    name: str
    factory: Callable[[], Actor]
    mailbox: Mailbox | None = None
    restart: Restart = "permanent"
    shutdown_s: float = 5.0
    declares_ready: bool = False
    start_s: float = 60.0
    suspendable: bool = True


class _Child(Place):
    """The place of a static child."""

    def __init__(self, spec: ChildSpec | Branch) -> None:
        self.restart: Restart = spec.restart
        self.branch = spec if isinstance(spec, Branch) else None
        if isinstance(spec, ChildSpec):
            if not spec.name or "/" in spec.name:
                raise ValueError(f"{spec.name!r} cannot be a name in the tree")
            super().__init__(spec.name, spec.mailbox or Mailbox(spec.name, letters_max=0))
            factory = spec.factory
            self.has_address = spec.mailbox is not None
            self.suspendable = spec.suspendable
            self.shutdown_s, self.start_s = spec.shutdown_s, spec.start_s
            self.declares_ready = spec.declares_ready

            async def body(inbox: Inbox) -> None:
                await factory().run(inbox)

            self.body = body
        else:
            # OTP: infinity for supervisors; their children have deadlines, and each has one of its own.
            super().__init__(spec.name, Mailbox(spec.name, letters_max=0))
            self.has_address = False
            self.suspendable = True
            self.shutdown_s = self.start_s = math.inf
            self.declares_ready = True
            self.body = spec.live
        self.starts_at = 0.0
        self.in_order = True  # starts only when those before it are ready
        self.over = False  # ended and not expected back

    @property
    def ready(self) -> bool:
        return self.over or (self.incarnation is not None and self.incarnation.ready)

    def wait_for_start(self, at: float, *, in_order: bool) -> None:
        self.over = self.drained
        self.starts_at = at
        self.in_order = in_order

    @property
    def state_between_lives(self) -> State:
        if self.over:
            return "ended"
        return "pausing" if self.starts_at > trio.current_time() else "waiting"


class Supervisor(Branch):
    """``children`` in start order: specs, or other branches. More than ``intensity`` deaths within
    ``period_s`` end this supervisor with GaveUp. ``restart`` is what its own parent does about it."""

    def __init__(
        self,
        name: str,
        children: Sequence[ChildSpec | Branch],
        *,
        strategy: Strategy = "one_for_one",
        intensity: int = INTENSITY,
        period_s: float = PERIOD_S,
        pauses: Pauses = PAUSES,
        restart: Restart = "permanent",
    ) -> None:
        super().__init__(name, pauses=pauses, restart=restart)
        if len({child.name for child in children}) < len(children):
            raise ValueError(f"two children of {name} have the same name")
        if not reachable(intensity, period_s, pauses):
            raise ValueError(f"{name}: with these pauses the intensity can never be exceeded")
        self.strategy: Strategy = strategy
        self.intensity = intensity
        self.period_s = period_s
        self._children = [_Child(spec) for spec in children]
        for child in self._children:
            if child.branch is not None:
                child.branch.adopt(self)
        self._deaths = Intensity(intensity, period_s)
        self._gave_up: GaveUp | None = None
        self._inbox: Inbox | None = None
        self._announced = False
        self._nursery: trio.Nursery | None = None
        self._stops_together = False
        self._common_mailbox: Mailbox | None = None  # of all children: a pool

    # One life.

    async def live(self, inbox: Inbox) -> None:
        self._begin(inbox)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            while self._stop is None and self._gave_up is None:
                self._start_whoever_may()
                await self._hear(until=self._next_moment())
            await self._stop_children(self._children, drain=bool(self._stop))
        if self._gave_up is not None:
            raise self._gave_up

    def _begin(self, inbox: Inbox) -> None:
        self._begin_life()
        self._gave_up = None
        self._inbox = inbox
        self._announced = False
        self._deaths = Intensity(self.intensity, self.period_s)
        for child in self._children:
            child.incarnation = None
            child.deaths = 0
            child.wait_for_start(trio.current_time(), in_order=True)
        for child in self._children:
            if child.drained:  # perhaps between two lives of ours, when nobody heard it
                self._let_go(child)

    def _start_whoever_may(self) -> None:
        now = trio.current_time()
        earlier_ready = True
        for child in self._children:
            if child.incarnation is not None:
                self._end_a_late_start(child, child.incarnation, now)
            elif self._may_start(child, now, earlier_ready):
                self._start(child)
            earlier_ready = earlier_ready and child.ready
        if earlier_ready and not self._announced and self._inbox is not None:
            self._announced = True
            self._inbox.ready()

    @staticmethod
    def _may_start(child: _Child, now: float, earlier_ready: bool) -> bool:
        """Drained a moment ago: the news that let it go are on their way."""
        expected = not child.over and not child.drained
        return expected and child.starts_at <= now and (earlier_ready or not child.in_order)

    def _next_moment(self) -> float:
        """When something is to be done without news: a pause ends, or a start takes too long."""
        now = trio.current_time()
        moments = [math.inf]
        for child in self._children:
            life = child.incarnation
            if life is None and not child.over and child.starts_at > now:
                moments.append(child.starts_at)
            elif life is not None and not life.ready and not life.stop_asked:
                moments.append(life.born + child.start_s)
        return min(moments)

    def _start(self, child: _Child) -> None:
        child.generation += 1
        child.mailbox.open()
        if child.branch is not None:
            child.branch.expect_life()
        assert self._nursery is not None
        inbox = Inbox(child.mailbox, name=child.name)
        life = Incarnation(
            f"{self.path}/{child.name}",
            child.generation,
            inbox,
            child.body,
            on_born=lambda life: None if child.declares_ready else self._on_ready(child, life),
            on_end=partial(self._on_end, child),
            ask_to_stop=None if child.branch is None else child.branch.ask_to_stop,
        )
        inbox.on_ready = lambda: self._on_ready(child, life)
        if child.suspended:
            inbox.suspend()
        child.incarnation = life
        self._nursery.start_soon(life.live, name=life.name)

    def _end_a_late_start(self, child: _Child, life: Incarnation, now: float) -> None:
        if not life.ready and not life.stop_asked and now >= life.born + child.start_s:
            life.stop_asked = True  # say it once
            life.kill(f"not ready within {child.start_s:g} s")

    # What lives tell, in their own tasks: note it and leave the rest to the supervisor's task.

    def _on_ready(self, child: _Child, life: Incarnation) -> None:
        life.ready = True
        self._post(nothing)

    def _on_end(self, child: _Child, life: Incarnation) -> None:
        self._account(child, life, Ref(child.mailbox))
        self._post(partial(self._after_end, child, life))

    # What the supervisor's task makes of it.

    async def _after_end(self, child: _Child, life: Incarnation) -> None:
        if child.incarnation is not life or life.ended is None:
            return  # stale: that life was stopped on purpose, another one may already be under way
        child.incarnation = None
        ended = life.ended
        self._note(child, life, ended)
        if child.drained:
            self._let_go(child)
            return
        if life.on_request:
            child.deaths = 0
            child.wait_for_start(trio.current_time(), in_order=False)
            return
        if not comes_back(child.restart, ended.kind):
            self._let_go(child)
            return
        now = trio.current_time()
        child.deaths = self.pauses.row(child.deaths, now - life.born)
        if counts(ended.kind) and self._deaths.exceeded_by_death_at(now):
            self._give_up(child, ended)
            return
        await self._restart(child, self.pauses.after(child.deaths))

    async def _restart(self, child: _Child, pause_s: float) -> None:
        index = self._children.index(child)
        indexes = group(self.strategy, index, len(self._children))
        others = [self._children[i] for i in indexes if i != index]
        await self._stop_children(others, drain=False)
        starts_at = trio.current_time() + pause_s
        for sibling in others:
            if sibling.restart == "temporary" or sibling.drained:
                self._let_go(sibling)
            else:
                sibling.wait_for_start(starts_at, in_order=True)
        child.wait_for_start(starts_at, in_order=bool(others))

    async def _stop_children(self, children: Sequence[_Child], *, drain: bool) -> None:
        """In reverse start order, each within its ``shutdown_s``. With ``drain`` also close their mailboxes,
        and refuse what could not be handled in time."""
        if self._stops_together:
            for child in children:
                if child.incarnation is not None:
                    child.incarnation.stop(drain=drain, within_s=child.shutdown_s)
        for child in reversed(children):
            await self._stop_child(child, drain=drain)
            if drain and not self._stops_together:
                self._close_for_good(child)
        if drain and self._stops_together:
            for child in children:
                self._close_for_good(child)

    async def _stop_child(self, child: _Child, *, drain: bool) -> None:
        life = child.incarnation
        if life is None:
            return
        life.stop(drain=drain, within_s=child.shutdown_s)
        await life.wait_end()
        child.incarnation = None
        if life.ended is not None and not life.ended.quiet:
            self._note(child, life, life.ended)

    def _close_for_good(self, child: _Child) -> None:
        child.over = True
        self._refuse_letters(child, Stopping, f"{child.mailbox.name} has stopped")

    def _give_up(self, child: _Child, ended: Ended) -> None:
        self._gave_up = GaveUp(
            f"{self.path} gave up: more than {self.intensity} deaths in {self.period_s:g} s, "
            f"the last of {child.name}: {ended.text}"
        )
        self._gave_up.__cause__ = ended.error
        log.error("supervisor gives up", actor=self.path, child=child.name, why=ended.text)

    def _let_go(self, child: _Child) -> None:
        child.over = True
        if self._common_mailbox is None or all(one.over for one in self._children):
            how = "was drained by an operator" if child.drained else "has ended"
            self._refuse_letters(child, Unavailable, f"{child.mailbox.name} {how}")

    def _refuse_letters(self, child: _Child, error: type[NotNow], text: str) -> None:
        if child.branch is not None:
            child.branch.abandon(error, text)
        else:
            self._bury(Ref(child.mailbox), child.mailbox.turn_away(error, text))

    def _note(self, child: _Child, life: Incarnation, ended: Ended) -> None:
        if not ended.quiet:
            child.last_error = ended.text
        log_end(life.name, life, ended)

    # Seen and handled from outside.

    def abandon(self, error: type[NotNow], text: str) -> None:
        self._abandoned = True
        for child in self._children:
            child.over = True
            self._refuse_letters(child, error, text)

    @property
    def ready(self) -> bool:
        return all(
            child.ready and (child.branch is None or child.branch.ready or child.over)
            for child in self._children
        )

    def held_back(self) -> list[str]:
        found = []
        for child in self._children:
            if child.drained or child.suspended:
                found.append(f"{self.path}/{child.name}")
            elif child.branch is not None:
                found += child.branch.held_back()
        return found

    def child_branches(self) -> dict[str, Branch]:
        return {child.name: child.branch for child in self._children if child.branch is not None}

    def place_of(self, name: str) -> Place:
        return self._child(name)

    def restart_child(self, name: str) -> None:
        child = self._child(name)
        if self._abandoned or self._stop:
            raise NotPossible(f"{self.path} has ended or is stopping: nobody would start {name}")
        child.drained = False
        life = child.incarnation
        if life is None:
            child.deaths = 0
            child.mailbox.open()
            child.wait_for_start(trio.current_time(), in_order=False)
            self._post(nothing)
        else:  # also if it has just ended and that is not noted yet
            life.on_request = True
            life.stop(drain=False, within_s=child.shutdown_s)

    def drain_child(self, name: str) -> None:
        """A pool's reader leaves its letters to the other readers."""
        child = self._child(name)
        child.drained = True
        if child.alive is None:
            self._post(partial(self._after_drain, child))
        else:
            child.alive.stop(drain=self._common_mailbox is None, within_s=child.shutdown_s)

    async def _after_drain(self, child: _Child) -> None:
        if child.incarnation is None and child.drained:
            self._let_go(child)

    def suspend_child(self, name: str, suspended: bool) -> None:
        child = self._child(name)
        if not child.suspendable:
            raise NotPossible(f"{self.path}/{name} takes no letters and cannot be suspended")
        self._suspend(child, suspended)

    def suspend_all(self, suspended: bool) -> None:
        for child in self._children:
            if child.suspendable:
                self._suspend(child, suspended)

    def _suspend(self, child: _Child, suspended: bool) -> None:
        if child.branch is None:
            child.hold(suspended)
        else:
            child.suspended = suspended
            child.branch.suspend_all(suspended)

    def _child(self, name: str) -> _Child:
        for child in self._children:
            if child.name == name:
                return child
        raise NoSuchActor(f"{self.path} has no child {name}")

    def view(self, children_max: int = CHILDREN_MAX, after: str | None = None) -> ActorView:
        common = self._common_mailbox
        return ActorView(
            path=self.path,
            name=self.name,
            kind="supervisor",
            state="running" if self.ready else "starting",
            incarnation=self._lives,
            uptime_s=None if self._born is None else trio.current_time() - self._born,
            handled=0 if common is None else common.handled,
            restarts=max(0, self._lives - 1),
            last_error=None,
            mailbox=None if common is None else view_of_mailbox(common),
            children=[self._view(child, children_max, None) for child in self._children],
            children_total=len(self._children),
        )

    def view_child(self, name: str, children_max: int, after: str | None = None) -> ActorView:
        return self._view(self._child(name), children_max, after)

    def _view(self, child: _Child, children_max: int, after: str | None) -> ActorView:
        path = f"{self.path}/{child.name}"
        if child.branch is None:
            return child.view(path, has_address=child.has_address and self._common_mailbox is None)
        below = child.branch.view(children_max, after)
        return child.view(
            path,
            kind=below.kind,
            children=below.children,
            children_total=below.children_total,
            children_restarts=below.children_restarts,
            mailbox=below.mailbox,
            handled=below.handled,
        )


class Pool(Supervisor):
    """``size`` readers of one mailbox, each restarted alone; ``ref`` is their common address. A repeatable
    letter in a dead one's hand goes to whichever reader is free next. ``fair``: between tenants."""

    def __init__(
        self,
        name: str,
        size: int,
        factory: Callable[[], Actor],
        letters_max: int,
        *,
        shutdown_s: float = 5.0,
        declares_ready: bool = False,
        start_s: float = 60.0,
        intensity: int = INTENSITY,
        period_s: float = PERIOD_S,
        pauses: Pauses = PAUSES,
        restart: Restart = "permanent",
        fair: bool = False,
    ) -> None:
        self.mailbox = (
            FairMailbox(name, letters_max=letters_max, readers_max=size)
            if fair
            else Mailbox(name, letters_max=letters_max)
        )
        self.ref = Ref(self.mailbox)
        readers = [
            ChildSpec(
                name=str(number),
                factory=factory,
                mailbox=self.mailbox,
                shutdown_s=shutdown_s,
                declares_ready=declares_ready,
                start_s=start_s,
            )
            for number in range(size)
        ]
        super().__init__(
            name, readers, intensity=intensity, period_s=period_s, pauses=pauses, restart=restart
        )
        # Closing the mailbox ends them all, so their deadlines run together.
        self._stops_together = True
        self._common_mailbox = self.mailbox
