"""What the front-ends of a node share: the public listener, who is connected, and the one application behind.

Alone opens and closes the public door when front-ends keep it. It exists before the door is open, because the
tree is built first: until then no front-end is started.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import structlog
import trio

from actors.mailbox import Inbox
from actors.worker_spawn import OwnProcess
from transport.front.channel import Channel
from transport.front.wire import Become, NewCertificate
from transport.house import FrontEndView
from transport.http.crowd import Crowd

if TYPE_CHECKING:
    from config.certificates import Certificate, Listener
    from config.settings import Settings
    from transport.http.door import FrontDoor

log = structlog.get_logger("http")

COMMAND = (sys.executable, "-m", "transport.front")


class FrontProcess(Protocol):
    """A process with the program of a front-end. As ``actors.worker_spawn.Process``."""

    pid: int

    async def send_all(self, data: bytes | bytearray) -> None: ...

    async def receive_some(self, bytes_max: int) -> bytes | bytearray: ...

    def kill(self) -> None: ...

    async def reap(self) -> None: ...


class HasDescriptor(Protocol):
    """A bound socket."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...


SpawnFront = Callable[[Sequence[int]], FrontProcess]


def own_front(listeners: Sequence[int]) -> FrontProcess:
    return OwnProcess(COMMAND, inherits=listeners)


class Hall:
    def __init__(self, settings: Settings, *, spawn: SpawnFront = own_front) -> None:
        self.crowd = Crowd(settings.connections_max, settings.connections_per_address_max)
        self.is_closing = False
        self.app: FrontDoor
        self.scheme = "http"
        self.spawn = spawn
        self.channels: dict[int, Channel] = {}
        """By the number of the front-end, of those that live."""
        self.opened = trio.Event()
        self._settings = settings
        self.listeners: Sequence[HasDescriptor] = ()
        self._one_ended = trio.Event()
        self._certificate: Callable[[], Certificate] | None = None

    async def serve(
        self,
        app: FrontDoor,
        listeners: Sequence[HasDescriptor],
        *,
        shutdown: trio.Event,
        certificate: Callable[[], Certificate] | None = None,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Let the front-ends serve until ``shutdown`` is set, and answer what is in flight for at most the
        graceful time. Closes the listeners. ``certificate``: that of the moment; None: plain HTTP."""
        self.app = app
        self.scheme = "http" if certificate is None else "https"
        self.listeners, self._certificate = listeners, certificate
        try:
            self.opened.set()
            task_status.started()
            await shutdown.wait()
        finally:
            self.is_closing = True
            for listener in listeners:
                listener.close()
        for channel in [*self.channels.values()]:
            channel.drain()
        with trio.move_on_after(self._settings.graceful_timeout_secs):
            while self.channels:
                self._one_ended = trio.Event()
                await self._one_ended.wait()

    def look(self) -> list[FrontEndView]:
        return [
            FrontEndView(number, len(channel.connections), channel.requests)
            for number, channel in sorted(self.channels.items())
        ]

    def become(self) -> Become:
        settings = self._settings
        return Become(
            [listener.fileno() for listener in self.listeners],
            settings.connections_max,
            settings.connections_per_address_max,
            settings.write_stall_secs,
            settings.tls_terminated_by_proxy,
            b"" if self._certificate is None else self._certificate().pem,
        )

    def certificate_changed(self, listener: Listener) -> None:
        """Handshakes from now on get the new one."""
        if listener == "public" and self._certificate is not None:
            for channel in self.channels.values():
                channel.say(NewCertificate(self._certificate().pem))

    def enter(self, channel: Channel) -> None:
        channel.number = next(n for n in range(len(self.channels) + 1) if n not in self.channels)
        self.channels[channel.number] = channel

    def leave(self, channel: Channel) -> None:
        del self.channels[channel.number]
        self._one_ended.set()


class FrontEnd:
    """Keeps one front-end process; nobody writes to it. Asked to stop, it lets the process answer what it has
    in flight, for a moment."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall

    async def run(self, inbox: Inbox) -> None:
        hall = self._hall
        await _first_of(hall.opened.wait, inbox.until_stop)
        if hall.opened.is_set() and not hall.is_closing:
            await self._keep_one(inbox)
        await inbox.until_stop()

    async def _keep_one(self, inbox: Inbox) -> None:
        hall = self._hall
        process = hall.spawn([listener.fileno() for listener in hall.listeners])
        channel = Channel(hall, process.send_all, process.receive_some)
        hall.enter(channel)
        try:
            channel.say(hall.become())
            log.info("front_end_started", number=channel.number, pid=process.pid)
            await channel.run(until_stop=inbox.until_stop)
        finally:
            hall.leave(channel)
            process.kill()
            await process.reap()


async def _first_of(*waits: Callable[[], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:

        async def wait(one: Callable[[], Awaitable[None]]) -> None:
            await one()
            nursery.cancel_scope.cancel("one has come")

        for one in waits:
            nursery.start_soon(wait, one)
