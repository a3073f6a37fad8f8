"""The fault proxy: a TCP path to PostgreSQL that does harm when told to, and says when it has.

Alone owns the sockets between server and database. Weather (``refusing``, ``latency_s``, ``blackhole``)
holds for everything that passes; a ``Strike`` waits for one moment of one transaction, by the client's own
messages, and happens once. Nothing is done by chance here: whoever calls has drawn the lots.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import trio

from tests.chaos.wire import ClientMessages, NotPostgres, Point

How = Literal["cut", "unheard", "late", "silent", "swallowed", "held"]
"""What happens to the message waited for, from the client's and the server's view:

``cut``      it is not delivered, both sides are cut: certainly not done
``unheard``  it is delivered and done; its answer is dropped and both sides are cut
``late``     the client is cut, the server's side stays open and gets the message ``LATE_S`` later
``silent``   it is delivered; the answer never comes and nobody is told
``swallowed``  it is not delivered, nor anything after it, and nobody is told
``held``     it and all after it wait until ``release``; the server sits inside the transaction
"""

LATE_S = 1.5
_CHUNK = 65536
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


@dataclass
class Strike:
    point: Point
    how: How
    hit: trio.Event = field(default_factory=trio.Event)


class Proxy:
    def __init__(self, upstream: tuple[str, int]) -> None:
        self._upstream = upstream
        self._links: set[_Link] = set()
        self._strike: Strike | None = None
        self._clear_sky = trio.Event()
        self._clear_sky.set()
        self._released = trio.Event()
        self.refusing = False
        self.latency_s = 0.0
        self.hits: Counter[str] = Counter()
        """How often each strike happened, by ``point/how``."""
        self.port = 0

    async def run(self, task_status: trio.TaskStatus[Proxy] = trio.TASK_STATUS_IGNORED) -> None:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self._welcome, [listener])
            task_status.started(self)

    # Harm, and its end.

    def reset(self) -> int:
        """Every link is cut with a TCP reset on both sides; answers how many."""
        links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    def blackhole(self, *, on: bool) -> None:
        """On: bytes arrive and go nowhere, connects included. Off: what was held goes its way."""
        if on:
            self._clear_sky = trio.Event()
        else:
            self._clear_sky.set()

    def strike(self, point: Point, how: How) -> Strike:
        """At the next ``point``; one at a time. Wait for its ``hit``."""
        self._strike = Strike(point, how)
        if how == "held":
            self._released = trio.Event()
        return self._strike

    def release(self) -> None:
        """What a ``held`` strike holds goes on."""
        self._released.set()

    def heal(self) -> None:
        """Fair weather, no strike waiting."""
        self.refusing, self.latency_s, self._strike = False, 0.0, None
        self.blackhole(on=False)
        self.release()

    # One link.

    async def _welcome(self, client: trio.SocketStream) -> None:
        if self.refusing:
            return _reset(client)
        await self._clear_sky.wait()
        try:
            server = await trio.open_tcp_stream(*self._upstream)
        except OSError:
            return _reset(client)
        link = _Link(self, client, server)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)

    async def weather(self) -> None:
        if self.latency_s:
            await trio.sleep(self.latency_s)
        await self._clear_sky.wait()

    def struck(self, point: Point | None) -> How | None:
        """Whether this message is the one waited for."""
        strike = self._strike
        if strike is None or point != strike.point:
            return None
        self._strike = None
        self.hits[f"{strike.point}/{strike.how}"] += 1
        strike.hit.set()
        return strike.how

    async def released(self) -> None:
        await self._released.wait()


class _Link:
    def __init__(self, proxy: Proxy, client: trio.SocketStream, server: trio.SocketStream) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._scope = trio.CancelScope()
        self._deaf = False
        """The server's next answer ends the link unheard."""
        self._mute = False
        """The server's answers go nowhere."""
        self._last_word: bytes | None = None
        """Sent to the server after the client was cut."""

    async def run(self) -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._upstream)
                    nursery.start_soon(self._downstream)
            _reset(self._client)
            if self._last_word is not None:
                await self._say_late(self._last_word)
        finally:
            _reset(self._client)
            _reset(self._server)

    def reset(self) -> None:
        self._scope.cancel()

    async def _upstream(self) -> None:
        messages = ClientMessages()
        with suppress(*_BROKEN, NotPostgres):
            while data := await self._client.receive_some(_CHUNK):
                await self._proxy.weather()
                for message in messages.feed(bytes(data)):
                    how = self._proxy.struck(message.point)
                    if how is not None and not await self._harm(how, message.raw):
                        self._scope.cancel()
                        return
                    await self._server.send_all(message.raw)
        self._scope.cancel()

    async def _harm(self, how: How, raw: bytes) -> bool:
        """Whether the message is still to be delivered."""
        if how == "held":
            await self._proxy.released()
        if how == "swallowed":
            while await self._client.receive_some(_CHUNK):
                pass
            return False
        self._deaf = how == "unheard"
        self._mute = how == "silent"
        if how in ("cut", "late"):
            self._last_word = raw if how == "late" else None
            return False
        return True

    async def _downstream(self) -> None:
        with suppress(*_BROKEN):
            while data := await self._server.receive_some(_CHUNK):
                if self._deaf:
                    break
                await self._proxy.weather()
                if not self._mute:
                    await self._client.send_all(data)
        self._scope.cancel()

    async def _say_late(self, raw: bytes) -> None:
        """The server does not know that its client is gone, and hears of it only now."""
        await trio.sleep(LATE_S)
        with suppress(*_BROKEN), trio.move_on_after(LATE_S):
            await self._server.send_all(raw)
            await self._server.receive_some(_CHUNK)


def _reset(stream: trio.SocketStream) -> None:
    """Closed at once, with a TCP reset; harmless when it is closed."""
    with suppress(OSError):
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()
