"""The core's conversation with one front-end process: its requests become visits, their replies go back.

Alone speaks with that process, and owns the visits of its requests: they end with it. It decides nothing
about a request; the public application does, the same as for Hypercorn. Nonsense ends the conversation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import structlog
import trio

from transport.front.wire import (
    LARGE_ANSWER_BYTES,
    NONSENSE,
    Answer,
    Arrived,
    Chunk,
    Drain,
    Failed,
    Frame,
    Frames,
    FrameTooLong,
    Gone,
    HandshakeFailed,
    Left,
    More,
    Outbox,
    Ping,
    Pong,
    Request,
    Sent,
    ToCore,
    TurnAway,
    to_core,
)
from transport.http.asked import Asked, path_and_query
from transport.http.client_address import network

if TYPE_CHECKING:
    from transport.front.hall import Hall

READ_BYTES = 256 * 1024
CREDIT_BYTES = 256 * 1024
"""Of a body the front-end may send ahead of the handler that reads it."""
PING_S = 2.0
PONG_S = 10.0
"""A front-end that says nothing for so long hangs."""

STOP_S = 3.0
"""For the answers of a front-end that is asked to stop, while the house goes on."""

log = structlog.get_logger("http")

Send = Callable[[bytes | bytearray], Awaitable[None]]
Receive = Callable[[int], Awaitable[bytes | bytearray]]


class FrontEndDied(Exception):
    """The process ended, hangs or talks nonsense. Its connections are lost; what their requests asked for
    goes its way."""


class _Asking:
    """A request under way: what its handler receives, and the scope that ends when the client goes away."""

    __slots__ = ("_channel", "_credit", "_gone", "_parts", "_whole", "_word", "frame", "scope", "sent")

    def __init__(self, channel: Channel, frame: Request) -> None:
        self.frame = frame
        self.scope = trio.CancelScope()
        self.sent: trio.Event | None = None
        self._channel = channel
        self._parts: list[bytes] = [] if frame.body is None else [frame.body]
        self._whole = frame.body is not None
        self._gone = False
        self._credit = 0
        self._word: trio.Event | None = None

    async def receive(self) -> dict[str, Any]:
        """As ASGI has it."""
        while not self._parts and not self._whole and not self._gone:
            self._ask_for_more()
            await self._next_word()
        if self._gone:
            return {"type": "http.disconnect"}
        if self._parts:
            part = self._parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(self._parts) or not self._whole}
        while not self._gone:
            await self._next_word()
        return {"type": "http.disconnect"}

    def _ask_for_more(self) -> None:
        if self._credit <= 0:
            self._credit = CREDIT_BYTES
            self._channel.say(More(self.frame.request, CREDIT_BYTES))

    async def _next_word(self) -> None:
        self._word = trio.Event()
        await self._word.wait()

    def chunk(self, frame: Chunk) -> None:
        self._credit -= len(frame.body)
        self._parts.append(frame.body)
        self._whole = frame.is_last
        self._wake()

    def gone(self) -> None:
        self._gone = True
        self._wake()
        if self.sent is not None:
            self.sent.set()
        self.scope.cancel("the client went away")

    def _wake(self) -> None:
        if self._word is not None:
            self._word.set()
            self._word = None


class Channel:
    """One life. ``send`` and ``receive``: to and from the process."""

    def __init__(self, hall: Hall, send: Send, receive: Receive) -> None:
        self.number = 0
        """Of the front-end, among those that live."""
        self.connections: dict[int, tuple[str, bool]] = {}
        """Their peers, and whether they are welcome."""
        self._hall = hall
        self._send = send
        self._receive = receive
        self._frames: Frames[ToCore] = to_core()
        self._outbox = Outbox()
        self._something_to_say = trio.Event()
        self._asking: dict[int, _Asking] = {}
        self._heard = True
        self._draining = False

    @property
    def requests(self) -> int:
        return len(self._asking)

    def say(self, frame: Frame) -> None:
        self._outbox.put(frame)
        self._something_to_say.set()

    async def run(self, *, until_stop: Callable[[], Awaitable[None]]) -> None:
        """Until the process closes its side; raises FrontEndDied, unless it was told to drain."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._speak)
                nursery.start_soon(self._ping)
                nursery.start_soon(self._stop, until_stop, nursery.cancel_scope)
                await self._listen(nursery)
                nursery.cancel_scope.cancel("the front-end has ended")
        except BaseExceptionGroup as group:
            if len(group.exceptions) == 1:  # ours, about the process
                raise group.exceptions[0] from None
            raise
        finally:
            for peer, welcome in self.connections.values():
                if welcome:
                    self._hall.crowd.left(network(peer))
        if not self._draining:
            raise FrontEndDied("it has ended")

    def drain(self) -> None:
        self._draining = True
        self.say(Drain())

    async def _stop(self, until_stop: Callable[[], Awaitable[None]], life: trio.CancelScope) -> None:
        await until_stop()
        self.drain()
        await trio.sleep(STOP_S)
        life.cancel("it does not end")

    async def _speak(self) -> None:
        """All that was said since the last time leaves together."""
        while True:
            await self._something_to_say.wait()
            self._something_to_say = trio.Event()
            try:
                await self._send(self._outbox.take())
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                await trio.sleep_forever()  # who listens hears the end

    async def _listen(self, visits: trio.Nursery) -> None:
        try:
            while data := await self._receive(READ_BYTES):
                self._heard = True
                for frame in self._frames.feed(data):
                    self._hear(frame, visits)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        except (*NONSENSE, FrameTooLong, KeyError) as error:
            raise FrontEndDied(f"it talks nonsense: {error!r}") from None

    async def _ping(self) -> None:
        while True:
            await trio.sleep(PING_S)
            self._heard = False
            self.say(Ping())
            due = trio.current_time() + PONG_S
            await trio.sleep_until(due)
            we_were_late = trio.current_time() > due + PING_S  # then it may have been stopped too
            if not self._heard and not we_were_late:
                raise FrontEndDied(f"it hangs: it said nothing for {PONG_S:g} s")

    def _hear(self, frame: ToCore, visits: trio.Nursery) -> None:
        """Raises KeyError for a connection that is none."""
        if isinstance(frame, Request):
            peer, welcome = self.connections[frame.connection]
            if welcome:
                asking = self._asking[frame.request] = _Asking(self, frame)
                visits.start_soon(self._serve, asking, peer)
        elif isinstance(frame, Chunk | Sent | Gone):
            self._hear_about(frame)
        elif isinstance(frame, Arrived):
            self._arrived(frame)
        elif isinstance(frame, Left):
            peer, welcome = self.connections.pop(frame.connection)
            if welcome:
                self._hall.crowd.left(network(peer))
        elif isinstance(frame, HandshakeFailed):
            log.info("handshake failed", address=frame.peer, reason=frame.reason)
        elif isinstance(frame, Failed):
            log.error("a connection failed", front_end=self.number, trace=frame.trace)
        else:
            assert isinstance(frame, Pong)

    def _hear_about(self, frame: Chunk | Sent | Gone) -> None:
        asking = self._asking.get(frame.request)
        if asking is None:
            return  # it is answered, or was not welcome
        if isinstance(frame, Chunk):
            asking.chunk(frame)
        elif isinstance(frame, Gone):
            asking.gone()
        elif asking.sent is not None:
            asking.sent.set()

    def _arrived(self, frame: Arrived) -> None:
        address = network(frame.peer)
        welcome = self._hall.crowd.has_room(address)
        self.connections[frame.connection] = frame.peer, welcome
        if welcome:
            self._hall.crowd.came(address)
        else:
            self.say(TurnAway(frame.connection))

    async def _serve(self, asking: _Asking, peer: str) -> None:
        frame, scheme = asking.frame, self._hall.scheme
        path, query_string = path_and_query(frame.target)
        asked = Asked(frame.method, path, query_string, frame.lines, peer, scheme)

        async def send(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
            if len(body) > LARGE_ANSWER_BYTES:
                asking.sent = trio.Event()
            self.say(Answer(frame.request, status, headers, body))
            if asking.sent is not None:
                await asking.sent.wait()

        try:
            await self._hall.app.serve(asked, asking.receive, send, frame.body, asking.scope)
        finally:
            del self._asking[frame.request]
