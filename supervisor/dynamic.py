"""A supervisor of children by key, started by their first letter and retired when idle: one per tenant.

It alone makes and frees their mailboxes. However many ask at once, there is one incarnation per key, and a
letter is never lost between two lives: the mailbox goes only after its actor's task has ended and while it
is empty, in one step without an await. One child's deaths never reach its siblings or the parent: a child
that dies too often *rests*, for growing periods in which its askers hear ``Unavailable``, and then is tried
again. Nobody is kept alive for nothing: after a death only a waiting letter starts the next life.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Hashable
from functools import partial
from itertools import count
from operator import attrgetter, itemgetter
from typing import Generic, TypeVar

import structlog
import trio

from actors.errors import NotNow, Stopping, TooManyChildren, Unavailable
from actors.mailbox import Actor, Inbox, Mailbox, Ref
from actors.views import CHILDREN_MAX, ActorView, MailboxView, NoSuchActor, State
from supervisor.branch import Branch, log_end
from supervisor.incarnation import Ended, Incarnation
from supervisor.place import Place
from supervisor.policy import Intensity, Pauses, Restart, counts, reachable

log = structlog.get_logger()

K = TypeVar("K", bound=Hashable)

PAUSES = Pauses()
RESTS = Pauses(first_s=5.0, max_s=300.0, healthy_s=600.0)
INTENSITY = 5
PERIOD_S = 30.0
IDLE_MAX = 2000  # each costs about ten kilobytes and a place in every garbage collection
CROWDED_SWEEP_S = 1.0  # how often the longest idle are looked for while there are more
ROOM_EVERY_S = 1.0  # at the bound the idle ones are sent away at most this often
SWEEPS_PER_IDLE = 4  # idle children are looked for this often per idle_s: one loop, no timer per child


class _Child(Place, Generic[K]):
    """What is known at one key. ``rests`` are counted in a row, like deaths."""

    __slots__ = (
        "intensity",
        "key",
        "not_before",
        "on_its_way",
        "resting",
        "rests",
    )

    def __init__(self, key: K, name: str, mailbox: Mailbox) -> None:
        super().__init__(name, mailbox)
        self.key = key
        self.rests = 0
        self.intensity: Intensity | None = None  # made at the first death: most never need one
        self.not_before = -math.inf  # of the next life
        self.resting = False
        self.on_its_way = False  # the supervisor will look at it: in its news or at a set time

    @property
    def remembered(self) -> bool:
        """There is more to it than a mailbox."""
        return bool(self.deaths or self.rests or self.drained or self.suspended)

    @property
    def state_between_lives(self) -> State:
        if trio.current_time() < self.not_before:
            return "resting" if self.resting else "pausing"
        return "waiting" if self.mailbox.depth else "dormant"


class DynamicSupervisor(Branch, Generic[K]):
    """At most ``children_max`` children, each with a mailbox of ``letters_max``, made by ``factory(key)``.
    A child idle for ``idle_s`` (up to a quarter more) is retired; of more than ``idle_max`` idle ones, those
    that have been longest. ``name_of`` gives the name in the tree."""

    def __init__(
        self,
        name: str,
        factory: Callable[[K], Actor],
        *,
        children_max: int,
        letters_max: int,
        idle_s: float,
        idle_max: int = IDLE_MAX,
        shutdown_s: float = 5.0,
        intensity: int = INTENSITY,
        period_s: float = PERIOD_S,
        pauses: Pauses = PAUSES,
        rests: Pauses = RESTS,
        name_of: Callable[[K], str] = str,
        restart: Restart = "permanent",
    ) -> None:
        super().__init__(name, pauses=pauses, restart=restart)
        if not reachable(intensity, period_s, pauses):
            raise ValueError(f"{name}: with these pauses the intensity can never be exceeded")
        self.children_max = children_max
        self.letters_max = letters_max
        self.idle_s = idle_s
        self.idle_max = idle_max
        self.shutdown_s = shutdown_s
        self.intensity = intensity
        self.period_s = period_s
        self.rests = rests
        self._factory = factory
        self._name_of = name_of
        self._children: dict[K, _Child[K]] = {}
        self._timers: list[tuple[float, int, _Child[K]]] = []
        self._tie = count()
        self._closed: tuple[type[NotNow], str] | None = None
        self._nursery: trio.Nursery | None = None
        self._next_sweep = math.inf
        self._restarts = 0
        self._handled_before = 0  # by children that are forgotten
        self._suspended = False
        self._room_asked_at = -math.inf

    def ref(self, key: K) -> Ref:
        """The address of ``key``. Costs nothing: whoever lives there is started by the first letter, and a
        ref stays good when he was retired meanwhile. ``ask`` and ``tell`` may raise TooManyChildren."""
        return Ref.to_whoever_lives_at(f"{self.name}/{self._name_of(key)}", partial(self._mailbox_for, key))

    def __len__(self) -> int:
        return len(self._children)

    # From any task, without await: between this and the letter being put nothing else can happen.

    def _mailbox_for(self, key: K) -> Mailbox:
        child = self._children.get(key)
        if child is None:
            child = self._make(key)
        if child.incarnation is None and not child.on_its_way:
            child.on_its_way = True
            self._post(partial(self._look_at, child))
        return child.mailbox

    def _make(self, key: K) -> _Child[K]:
        if self._closed is not None:
            error, text = self._closed
            raise error(text)
        if len(self._children) >= self.children_max:
            self._ask_for_room()
            raise TooManyChildren(f"{self.name} has its {self.children_max} children")
        name = self._name_of(key)
        child = _Child(key, name, Mailbox(f"{self.name}/{name}", letters_max=self.letters_max))
        child.suspended = self._suspended
        self._children[key] = child
        return child

    def _ask_for_room(self) -> None:
        """Looking at everybody costs something: not for every letter that finds no place."""
        now = trio.current_time()
        if now >= self._room_asked_at + ROOM_EVERY_S:
            self._room_asked_at = now
            self._post(self._make_room)

    # One life.

    async def live(self, inbox: Inbox) -> None:
        self._begin_life()
        self._closed = None
        self._timers = []
        self._next_sweep = math.inf
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for child in [*self._children.values()]:
                child.incarnation = None
                await self._look_at(child)
            inbox.ready()
            while self._stop is None:
                await self._hear(until=self._next_moment())
                await self._hear_what_gathered()
                self._after_pauses()
                self._sweep()
            await self._stop_children(drain=self._stop)

    def _next_moment(self) -> float:
        now = trio.current_time()
        if self._children and self._next_sweep == math.inf:
            self._next_sweep = now + self.idle_s / SWEEPS_PER_IDLE
        if len(self._children) > self.idle_max:
            self._next_sweep = min(self._next_sweep, now + CROWDED_SWEEP_S)
        return min(self._next_sweep, self._timers[0][0] if self._timers else math.inf)

    async def _look_at(self, child: _Child[K]) -> None:
        child.on_its_way = False
        self._start_or_wait(child)

    def _start_or_wait(self, child: _Child[K]) -> None:
        """Start the next life if a letter waits and the pause is over; free the mailbox if none waits and
        there is nothing to remember."""
        if child.incarnation is not None or self._children.get(child.key) is not child:
            return
        if child.drained:
            self._refuse_letters(child, Unavailable, f"{child.mailbox.name} was drained by an operator")
        elif not child.mailbox.depth:
            if not child.remembered:
                self._forget(child)
        elif trio.current_time() < child.not_before:
            child.on_its_way = True
            heapq.heappush(self._timers, (child.not_before, next(self._tie), child))
        else:
            self._start(child)

    def _forget(self, child: _Child[K]) -> None:
        """The mailbox goes: it is empty, and its actor's task has ended."""
        self._handled_before += child.handled
        del self._children[child.key]

    def _after_pauses(self) -> None:
        now = trio.current_time()
        while self._timers and self._timers[0][0] <= now:
            child = heapq.heappop(self._timers)[2]
            child.on_its_way = False
            self._start_or_wait(child)

    def _start(self, child: _Child[K]) -> None:
        child.generation += 1
        if child.generation > 1:
            self._restarts += 1
        child.resting = False
        inbox = Inbox(child.mailbox)
        life = Incarnation(
            child.mailbox.name,
            child.generation,
            inbox,
            partial(self._body, child.key),
            on_born=_be_ready,
            on_end=partial(self._on_end, child),
        )
        child.incarnation = life
        if child.suspended:
            inbox.suspend()
        assert self._nursery is not None
        self._nursery.start_soon(life.live, name=life.name)

    async def _body(self, key: K, inbox: Inbox) -> None:
        await self._factory(key).run(inbox)

    # An end.

    def _on_end(self, child: _Child[K], life: Incarnation) -> None:
        """In the ending task: note it and leave the rest to the supervisor's task."""
        self._account(child, life, self.ref(child.key))
        self._post(partial(self._after_end, child, life))

    async def _after_end(self, child: _Child[K], life: Incarnation) -> None:
        if child.incarnation is not life or life.ended is None:
            return
        child.incarnation = None
        log_end(life.name, life, life.ended)
        now = trio.current_time()
        if now - life.born >= self.pauses.healthy_s:
            child.deaths = 0
        if now - life.born >= self.rests.healthy_s:
            child.rests = 0
        if life.ended.kind != "asked" and not life.stop_asked:
            self._count_death(child, life.ended, now)
        self._start_or_wait(child)

    def _count_death(self, child: _Child[K], ended: Ended, now: float) -> None:
        """Also of one that returned although nobody asked him to: he would be started for ever."""
        child.last_error = ended.text
        child.deaths += 1
        child.not_before = now + self.pauses.after(child.deaths)
        if not counts(ended.kind):
            return
        if child.intensity is None:
            child.intensity = Intensity(self.intensity, self.period_s)
        if child.intensity.exceeded_by_death_at(now):
            self._put_to_rest(child, ended, now)

    def _put_to_rest(self, child: _Child[K], ended: Ended, now: float) -> None:
        child.rests += 1
        child.intensity = None
        child.resting = True
        rest_s = self.rests.after(child.rests)
        child.not_before = now + rest_s
        log.error("actor rests", actor=child.mailbox.name, rest_s=rest_s, why=ended.text)
        text = f"{child.mailbox.name} died too often and rests"
        self._refuse_letters(child, Unavailable, text, until=child.not_before)

    # Retirement.

    def _sweep(self) -> None:
        """Ask the idle ones to end unless a letter comes first, and forget the troubles of the dormant."""
        now = trio.current_time()
        if now < self._next_sweep:
            return
        self._next_sweep = math.inf
        self._forget_troubles(now)
        self._retire(idle_since=now - self.idle_s)

    async def _make_room(self) -> None:
        """At the bound nobody stays alive who has nothing to do."""
        self._retire(idle_since=trio.current_time())

    def _forget_troubles(self, now: float) -> None:
        for child in [*self._children.values()]:
            if child.incarnation is None and not (child.drained or child.suspended or child.mailbox.depth):
                memory_s = (self.rests if child.rests else self.pauses).healthy_s
                if now >= child.not_before + memory_s:
                    self._forget(child)

    def _retire(self, *, idle_since: float) -> None:
        """Those idle since then, and of the others the longest idle as far as there are too many."""
        idle: list[tuple[float, Inbox]] = []
        for child in self._children.values():
            if child.incarnation is not None and not child.mailbox.depth:
                since = child.incarnation.inbox.idle_since
                if since is not None:
                    idle.append((since, child.incarnation.inbox))
        idle.sort(key=itemgetter(0))
        too_many = len(idle) - self.idle_max
        for place, (since, inbox) in enumerate(idle):
            if since > idle_since and place >= too_many:
                return
            inbox.request_end_when_empty()

    # Stopping.

    async def _stop_children(self, *, drain: bool) -> None:
        """All at once, they depend on nothing of each other."""
        if drain:
            self._closed = (Stopping, f"{self.name} is stopping")
        living = []
        for child in self._children.values():
            if child.incarnation is not None:
                living.append((child, child.incarnation))
                child.incarnation.stop(drain=drain, within_s=self.shutdown_s)
            elif drain:
                self._refuse_letters(child, Stopping, f"{self.name} is stopping")
        for child, life in living:
            await life.wait_end()
            child.incarnation = None
            if life.ended is not None and not life.ended.quiet:
                log_end(life.name, life, life.ended)
        if drain:
            self.abandon(Stopping, f"{self.name} has stopped")

    def abandon(self, error: type[NotNow], text: str) -> None:
        self._closed = (error, text)
        for child in self._children.values():
            self._refuse_letters(child, error, text)
        self._children = {}

    def _refuse_letters(
        self, child: _Child[K], error: type[NotNow], text: str, *, until: float = math.inf
    ) -> None:
        self._bury(self.ref(child.key), child.mailbox.turn_away(error, text, until=until))

    # Seen and handled from outside.

    @property
    def ready(self) -> bool:
        return self._closed is None and self._born is not None

    def held_back(self) -> list[str]:
        return [self.path] if self._suspended else []

    def place_of(self, name: str) -> Place:
        return self._child(name)

    def restart_child(self, name: str) -> None:
        """The present life ends; the next one starts with the next letter, whatever pause or rest was due."""
        child = self._child(name)
        child.deaths = child.rests = 0
        child.drained = False
        child.not_before = -math.inf
        child.mailbox.open()
        if child.incarnation is not None:
            child.incarnation.stop(drain=False, within_s=self.shutdown_s)
        else:
            self._post(partial(self._look_at, child))

    def drain_child(self, name: str) -> None:
        child = self._child(name)
        child.drained = True
        if child.alive is None:
            self._post(partial(self._look_at, child))
        else:
            child.alive.stop(drain=True, within_s=self.shutdown_s)

    def suspend_child(self, name: str, suspended: bool) -> None:
        self._child(name).hold(suspended)

    def suspend_all(self, suspended: bool) -> None:
        self._suspended = suspended
        for child in self._children.values():
            child.hold(suspended)

    def _child(self, name: str) -> _Child[K]:
        for child in self._children.values():
            if child.name == name:
                return child
        raise NoSuchActor(f"{self.path} has no child {name} now: children come with their first letter")

    def places(self) -> Collection[Place]:
        """Everybody's, now."""
        return self._children.values()

    def view(self, children_max: int = CHILDREN_MAX, after: str | None = None) -> ActorView:
        places = self._children.values()
        behind = [place for place in places if after is None or place.name > after]
        shown = heapq.nsmallest(children_max, behind, key=attrgetter("name"))
        return ActorView(
            path=self.path,
            name=self.name,
            kind="dynamic",
            state="running" if self.ready else "waiting",
            incarnation=self._lives,
            uptime_s=None if self._born is None else trio.current_time() - self._born,
            handled=self._handled_before + sum(place.handled_ever for place in places),
            restarts=max(0, self._lives - 1),
            last_error=None,
            mailbox=self._all_mailboxes(),
            children=[place.view(f"{self.path}/{place.name}") for place in shown],
            children_total=len(self._children),
            children_restarts=self._restarts,
        )

    def view_child(self, name: str, children_max: int, after: str | None = None) -> ActorView:
        return self._child(name).view(f"{self.path}/{name}")

    def _all_mailboxes(self) -> MailboxView:
        boxes = [place.mailbox for place in self._children.values()]
        return MailboxView(
            depth=sum(box.depth for box in boxes),
            peak=max((box.peak for box in boxes), default=0),
            letters_max=self.letters_max,
            handled=sum(box.handled for box in boxes),
            refused=sum(box.refused for box in boxes),
            dropped=sum(box.dropped for box in boxes),
        )


def _be_ready(life: Incarnation) -> None:
    life.ready = True
