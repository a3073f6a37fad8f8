"""The adversary: carries out the schedule, writes each act into the history and counts what was hit.

Three tasks: one ends the server's lives, one strikes on the wire, one does everything else. An act is a hit
only when the harm was seen to be done: the signal delivered, the armed point reached, the message met on the
wire, the actor's end answered by 200. What was not hit in time is put off and tried again, never counted.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import httpx
import trio

from tests.chaos.database import PsqlFailed
from tests.chaos.history import History
from tests.chaos.house import House, signalled
from tests.chaos.schedule import KINDS, SLOW, Act, lives, rest, wire

CRASH_PATIENCE_S = 6.0
"""For an armed crash point to be reached; then the life is ended from outside and the point comes again."""
HIT_PATIENCE_S = 6.0
PASSES_MAX = 6
"""An armed crash point strikes at one of its first so many passes."""
LIFE_S = 1.5
"""The longest life that nothing but a signal ends."""
RIPE_S = 4.5
"""Longer than a database unit's deadline, and than a worker may hang unnoticed."""
UNDER_WAY = 0.8
"""The share of harm that waits until a server is up."""
CRASHED = -signal.SIGKILL

BACKENDS = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
    "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name <> 'psql'"
)


class ServerGaveUp(Exception):
    """The server ended by itself: no act of the adversary explains it."""


class ActorsUnreachable(Exception):
    """The admin listener has no way to kill an actor by name."""


class Adversary:
    def __init__(
        self, house: House, history: History, seed: int, *, without: frozenset[str], tenants: list[str]
    ) -> None:
        self.hits: Counter[str] = Counter()
        self.tried: Counter[str] = Counter()
        self._house = house
        self._history = history
        self._seed = seed
        self._without = without
        self._tenants = tenants
        self._up = trio.Event()
        """Whether there is a server that nobody is ending at the moment."""
        self._alone = trio.Event()
        self._alone.set()
        """Not set while something ripens that wants to be left alone."""
        self._busy = 0
        """Acts under way that do not ripen."""

    def never_hit(self) -> list[str]:
        return [kind for kind in KINDS if kind not in self._without and not self.hits[kind]]

    async def end_lives(self, stop: trio.Event) -> None:
        """There is a life already. Each new one is started for the end that it will have, or for something
        that takes time."""
        acts = lives(self._seed, without=self._without)
        put_off: list[Act] = []
        while not stop.is_set():
            act = put_off.pop() if put_off else next(acts, None)
            if act is None:
                return
            self._up = trio.Event()
            await self._house.kill_server(group=True)  # what is left of the life before
            await self._house.start_server(crash_at=_crash_at(act))
            self._up.set()
            hit = await (self._let_ripen(act) if act.kind in SLOW else self._end_life(act, stop))
            self._note(act, hit=hit)
            if not hit:
                put_off.insert(0, act)

    async def _let_ripen(self, act: Act) -> bool:
        """While nothing else is done. The hang or the silence is still there when its deadline passes."""
        self._alone = trio.Event()
        try:
            with trio.move_on_after(HIT_PATIENCE_S):
                while self._busy:  # noqa: ASYNC110 - a matter of milliseconds, mostly
                    await trio.sleep(0.02)
            hit = False
            with trio.move_on_after(HIT_PATIENCE_S):
                hit = await self._deed(act)()
            if hit:
                await trio.sleep(RIPE_S)
            self._check_alive()
            return hit
        finally:
            self._alone.set()

    async def _end_life(self, act: Act, stop: trio.Event) -> bool:
        if _crash_at(act) is None:
            await trio.sleep(LIFE_S * act.draw)
            self._check_alive()
            await self._house.kill_server(group=act.kind == "kill-server-group")
            return True
        with trio.move_on_after(CRASH_PATIENCE_S):
            while self._house.server_code() is None and not stop.is_set():  # noqa: ASYNC110 - no bell
                await trio.sleep(0.02)
        self._check_alive(crash_expected=True)
        return self._house.server_code() is not None

    def _check_alive(self, *, crash_expected: bool = False) -> None:
        code = self._house.server_code()
        if code is not None and not (crash_expected and code == CRASHED):
            raise ServerGaveUp(f"it ended by itself with {code}:\n{self._house.server.tail()}")

    # Everything else.

    async def strike(self, stop: trio.Event) -> None:
        await self._carry_out(wire(self._seed, without=self._without), stop)

    async def harm(self, stop: trio.Event) -> None:
        await self._carry_out(rest(self._seed, without=self._without), stop)

    async def _carry_out(self, acts: Iterator[Act], stop: trio.Event) -> None:
        """Most of it while there is a server; some while one is starting."""
        put_off: list[Act] = []
        while not stop.is_set():
            act = put_off.pop() if put_off else next(acts, None)
            if act is None:
                return
            await trio.sleep(act.pause_s)
            if act.draw < UNDER_WAY:
                await self._up.wait()
            await self._alone.wait()
            hit = False
            self._busy += 1
            with trio.move_on_after(HIT_PATIENCE_S):
                hit = await self._deed(act)()
            self._busy -= 1
            self._note(act, hit=hit)
            if not hit:
                put_off.insert(0, act)

    def _deed(self, act: Act) -> Callable[[], Awaitable[bool]]:
        name, _, detail = act.kind.partition(":")
        match name:
            case "kill-worker":
                return partial(self._signal_worker, signal.SIGKILL, act.draw)
            case "stop-worker":
                return partial(self._signal_worker, signal.SIGSTOP, act.draw)
            case "terminate-backend":
                return self._terminate_backends
            case "stop-postgres":
                return partial(self._restart_postgres, signal.SIGQUIT, act.draw)
            case "kill-postgres":
                return partial(self._restart_postgres, signal.SIGKILL, act.draw)
            case "net-refuse" | "net-latency" | "net-blackhole" | "net-reset":
                return partial(self._weather, name, act.draw)
            case "wire":
                return partial(self._strike, detail)
            case "kill-actor":
                return partial(self._kill_actor, detail, act.draw)
        raise AssertionError(act.kind)

    async def _signal_worker(self, kind: signal.Signals, draw: float) -> bool:
        await self._up.wait()
        while not (workers := self._house.workers()):  # noqa: ASYNC110 - they ring no bell
            await trio.sleep(0.05)
        return signalled(workers[int(draw * len(workers))], kind)

    async def _terminate_backends(self) -> bool:
        while True:
            try:
                [count] = await self._house.sql(BACKENDS)
            except PsqlFailed:
                count = "0"
            if int(count):
                return True
            await trio.sleep(0.05)

    async def _restart_postgres(self, kind: signal.Signals, draw: float) -> bool:
        with trio.CancelScope(shield=True):  # a database that is not brought back would be no act but the end
            await self._house.restart_postgres(kind, away_s=1.5 * draw)
        return True

    async def _weather(self, name: str, draw: float) -> bool:
        proxy = self._house.proxy
        try:
            if name == "net-reset":
                while not proxy.reset():  # noqa: ASYNC110 - until there is something to cut
                    await trio.sleep(0.05)
            elif name == "net-refuse":
                proxy.refusing = True
                proxy.reset()
                await trio.sleep(0.3 + 1.5 * draw)
            elif name == "net-latency":
                proxy.latency_s = 0.02 + 0.2 * draw
                await trio.sleep(1 + draw)
            else:
                proxy.blackhole(on=True)
                await trio.sleep(RIPE_S * (0.8 + 0.4 * draw))
                if draw > 0.5:
                    proxy.reset()
            return True
        finally:
            proxy.refusing, proxy.latency_s = False, 0.0
            proxy.blackhole(on=False)

    async def _strike(self, detail: str) -> bool:
        point, _, how = detail.partition("/")
        await self._house.proxy.strike(point, how).hit.wait()  # type: ignore[arg-type]
        return True

    async def _kill_actor(self, name: str, draw: float) -> bool:
        path = f"house/{name}"
        if name == "sequencers":
            path += f"/{self._tenants[int(draw * len(self._tenants))]}"
        elif name in ("verifiers", "encryptors"):
            path += "/0"
        while True:
            await self._up.wait()
            try:
                status = await self._house.kill_actor(path)
            except httpx.HTTPError:
                status = 0
            if status == 200:
                return True
            if status in (401, 403, 405) or (status == 404 and name != "sequencers"):
                raise ActorsUnreachable(f"POST /api/v1/admin/actors/kill of {path} answers {status}")
            await trio.sleep(0.1)

    def _note(self, act: Act, *, hit: bool, **detail: object) -> None:
        self.tried[act.kind] += 1
        self.hits[act.kind] += hit
        self._history.act(act.kind, hit=hit, **detail)


def _crash_at(act: Act) -> str | None:
    """Which point this act arms, and at which of its passes."""
    name, _, point = act.kind.partition(":")
    if name != "crash-at":
        return None
    passes_max = 2 if point.startswith("committer") else PASSES_MAX
    return f"{point}:{1 + int(act.draw * passes_max)}"
