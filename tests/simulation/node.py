"""One simulated server process: the real tree and the real doors, from start to death, again and again.

Below the socket everything is real: requests come in as ASGI messages and leave as such. Killing a node
cancels everything in it at once, and nothing it says afterwards is heard. It never asks anything of itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from typing import Any, cast

import msgspec
import trio

from actors.faults import checkpoint
from actors.mailbox import Inbox
from actors.views import Action, NoSuchActor, NotPossible
from actors.vitals import LoopLag
from config.settings import Settings
from journal.memory import MemoryDatabase, MemoryJournal
from supervisor.branch import GaveUp
from supervisor.tree import Built, Ports, build
from tests.keyholder import first_receipt_key, secrets_of
from tests.simulation.agents import BOOTSTRAP
from tests.simulation.history import History
from tests.simulation.processes import Machine, SimulatedProcess
from tests.simulation.script import TICK_S
from transport.house import House
from transport.http.app import create_apps
from transport.http.door import Door, FrontDoor

RING = (bytes(range(32)),)
LATENCIES_S = (0.0, 0.0, 0.0, TICK_S, 2 * TICK_S)
PATIENCE_S = 9.0
"""Beyond the request's own deadline: a unit of the journal that has begun is not cut short (15 s at most in
production; here it waits at most 5 s for a lock, and a slow database takes its latency)."""
OPERATOR_PATIENCE_S = 5.0
START_AGAIN_S = 1.0
"""After a house that gave up: what an init system would do."""

NODE: ContextVar[Node | None] = ContextVar("node", default=None)


class Reply(msgspec.Struct, frozen=True):
    """``kind``: an answer with status and body; no server there (nothing done); or nobody knows."""

    kind: str
    """answered, refused (nobody listens), lost (the server died), left (the client did), hung."""
    status: int = 0
    body: bytes = b""

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Node:
    def __init__(
        self,
        number: int,
        *,
        seed: int,
        settings: Settings,
        database: MemoryDatabase,
        machine: Machine,
        history: History,
        now_us: Callable[[], int],
        slow: list[float],
    ) -> None:
        self.number = number
        self.name = f"node {number}"
        self.settings = settings
        self.history = history
        self.machine = machine
        self.seed = bytes([number + 1]) * 32
        self.secrets = secrets_of(BOOTSTRAP, self.seed, bytes([number + 1]) * 16, RING)
        chance = random.Random(f"journal {seed} {number}")
        self.journal = MemoryJournal(
            database,
            node_id=self.secrets.sequencer_id,
            checkpoint=checkpoint,
            latency_s=lambda: max(slow, default=0.0) or chance.choice(LATENCIES_S),
        )
        ids = random.Random(f"ids {seed} {number}")
        self._ports = Ports(
            now_us=now_us,
            new_uuid=lambda: ids.randbytes(16),
            chance=random.Random(f"jitter {seed} {number}"),
            spawn=self._spawn,
            watchdog=_Nobody,
        )
        self.built: Built | None = None
        self.up = trio.Event()
        self.lives = 0
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._apps: tuple[FrontDoor, FrontDoor] | None = None
        self._open = False
        self._down_s = 0.0
        self._over = False
        self._calls: set[_Call] = set()
        self._idle = trio.Event()

    # Its lives.

    async def live(self) -> None:
        NODE.set(self)
        while not self._over:
            self.lives += 1
            self._down_s = 0.0
            try:
                with trio.CancelScope() as self._scope:
                    await self._one_life()
            except* GaveUp as group:
                self.history.hit("house gave up", self.name, str(group.exceptions[0])[:140])
                self._down_s = START_AGAIN_S
            self._end_life()
            await trio.sleep(self._down_s)

    async def _one_life(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            claimed = first_receipt_key(self.seed, self.secrets.sequencer_id)
            self.built = build(
                self.settings, self.secrets, self.journal, receipt_key=claimed, ports=self._ports
            )
            self._apps = _doors(self.number, self.built.house)
            await nursery.start(self.built.root.run)
            self._open = True
            self.up.set()
            self.history.note(self.name, "serves")

    def _end_life(self) -> None:
        self._open = False
        self._nursery = None
        if not self._over:
            self.up = trio.Event()
        for call in self._calls:
            call.done.set()
        self._calls.clear()

    def kill_all(self, *, down_s: float) -> None:
        """As SIGKILL: whatever was being done stays where it is."""
        self._open = False
        for call in self._calls:
            call.heard = False
            call.done.set()
        self._down_s = down_s
        self._scope.cancel("the node is killed")

    async def stop(self, *, down_s: float) -> None:
        """As SIGTERM: no new requests, those in flight are answered, then the house closes in order."""
        if not self._open or self.built is None:
            return
        self._open = False
        with trio.move_on_after(self.settings.graceful_timeout_secs):
            while self._calls:
                self._idle = trio.Event()
                await self._idle.wait()
        self._down_s = down_s
        self.built.root.stop()

    async def close(self) -> None:
        self._over = True
        await self.stop(down_s=0)

    def kill_actor(self, actor: str, reason: str) -> bool:
        """Whether there was somebody to kill. Callable between two steps of the scheduler."""
        if self.built is None or not self._open:
            return False
        try:
            self.built.root.kill(_path_of(actor), reason)
        except LookupError:
            return False
        return True

    async def operate(self, action: Action, actor: str) -> bool:
        """The operator's hand, as the admin routes use it; whether there was somebody to lay it on."""
        if self.built is None or not self._open:
            return False
        try:
            path = _path_of(actor)
            await self.built.house.overseer.act(action, path, "the simulation", within_s=OPERATOR_PATIENCE_S)
        except (NoSuchActor, NotPossible):
            return False
        return True

    def _spawn(self) -> SimulatedProcess:
        assert self._nursery is not None
        return SimulatedProcess(self.machine, self._nursery)

    @property
    def bytes_in_flight(self) -> int:
        return 0 if self._apps is None else self._apps[0].door.in_flight.total

    # Asked from outside.

    async def ask(
        self,
        method: str,
        target: str,
        *,
        key: str,
        body: bytes = b"",
        admin: bool = False,
        leaves_after_s: float | None = None,
    ) -> Reply:
        await trio.lowlevel.checkpoint()
        if not self._open or self._nursery is None or self._apps is None:
            return Reply("refused")
        call = _Call(self._apps[1 if admin else 0], method, target, key, body)
        self._calls.add(call)
        self._nursery.start_soon(self._serve, call, name=f"request {method} {target[:40]}")
        if leaves_after_s is not None:
            with trio.move_on_after(leaves_after_s):
                await call.done.wait()
            if not call.done.is_set():
                self.history.hit("caller left", "client", f"{method} {target[:60]}")
                call.gone.set()
                await self._must_end(call)
                return Reply("left")
        else:
            await self._must_end(call)
        if not call.done.is_set():
            return Reply("hung")
        if call.status and call.complete:
            return Reply("answered", call.status, call.answer)
        return Reply("lost")

    async def _must_end(self, call: _Call) -> None:
        patience_s = self.settings.request_timeout_secs + PATIENCE_S
        with trio.move_on_after(patience_s):
            await call.done.wait()
            return
        self.history.violation(f"{call.method} {call.target[:60]} hung for more than {patience_s} s")

    async def _serve(self, call: _Call) -> None:
        try:
            await cast(Any, call.app)(call.scope(), call.receive, call.send)
        except Exception as error:  # as at the listener: one request's failure is that request's only
            self.history.violation(f"out of the application came {error!r}")
        finally:
            call.done.set()
            self._calls.discard(call)
            if not self._calls:
                self._idle.set()


def _path_of(actor: str) -> str:
    """In the tree, of an actor named like its task."""
    return actor if actor.startswith("house/") else f"house/{actor}"


class _Call:
    """One request in flight, and the ASGI messages of it."""

    def __init__(self, app: FrontDoor, method: str, target: str, key: str, body: bytes) -> None:
        self.app, self.method, self.target, self.key, self.body = app, method, target, key, body
        self.done = trio.Event()
        self.gone = trio.Event()
        self.heard = True
        self.complete = False
        self.status = 0
        self.answer = b""
        self._sent_body = False

    def scope(self) -> dict[str, Any]:
        path, _, query = self.target.partition("?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [
                (b"host", b"simulated"),
                (b"authorization", f"ApiKey {self.key}".encode()),
                (b"content-type", b"application/json"),
                (b"content-length", str(len(self.body)).encode()),
                (b"x-request-id", b"simulated"),
            ],
            "client": ("127.0.0.1", 40000),
            "server": ("127.0.0.1", 8080),
            "extensions": {},
        }

    async def receive(self) -> dict[str, Any]:
        if not self._sent_body:
            await trio.lowlevel.checkpoint()
            self._sent_body = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if not self.heard:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.answer += message["body"]
            self.complete = not message.get("more_body", False)


class _Nobody:
    """In the watchdog's place: it measures the machine's time, and there is none here."""

    def __init__(self, lag: LoopLag) -> None: ...

    async def run(self, inbox: Inbox) -> None:
        await inbox.until_stop()


@cache
def _unhinged(number: int) -> list[tuple[FrontDoor, FrontDoor]]:
    return []


def _doors(number: int, house: House) -> tuple[FrontDoor, FrontDoor]:
    """The two applications. Making them takes longer than a whole run, so each node's are made once per
    process; what they share and remember, the ``Door``, is new in each life."""
    made = _unhinged(number)
    if not made:
        made.append(create_apps(house))
    door = Door(house)
    for app in made[0]:
        app.door = door
    return made[0]
