"""A front-end: accepts connections within limits, and carries their requests to the core and answers back.

It owns every connection it accepted and one stream to the core. It has no keys but the one of TLS, no
database, no settings and no routes; when it dies, only its connections do. It ends when the core closes the
stream.
"""

from __future__ import annotations

import itertools
import socket
import traceback
from collections.abc import Awaitable, Callable

import trio

from config.tls_context import server_context
from transport.front.connection import Connection, own_answer
from transport.front.wire import (
    Answer,
    Arrived,
    Become,
    Drain,
    Failed,
    Frame,
    Frames,
    Left,
    More,
    NewCertificate,
    Outbox,
    Ping,
    Pong,
    ToFront,
    TurnAway,
    to_front,
)
from transport.http.client_address import network
from transport.http.crowd import Crowd, TurnedAway, one_too_many
from transport.http.headers import security_headers
from transport.http.line import Line

READ_BYTES = 256 * 1024
ACCEPT_PAUSE_S = 0.1
"""After an error of accepting that may pass: no descriptors left."""

Send = Callable[[bytes | bytearray], Awaitable[None]]
Receive = Callable[[int], Awaitable[bytes | bytearray]]


class Front:
    """One life. ``send`` and ``receive``: to and from the core."""

    def __init__(self, send: Send, receive: Receive) -> None:
        self.is_closing = False
        self.descriptor_of: Callable[[int], int] = int
        """Of a listener the core names: in a process of its own the same."""
        self._send = send
        self._receive = receive
        self._frames: Frames[ToFront] = to_front()
        self._outbox = Outbox()
        self._something_to_say = trio.Event()
        self._numbers = itertools.count(1)
        self._connections: dict[int, Connection] = {}
        self._asking: dict[int, Connection] = {}
        """Whose request a number is."""
        self._accepting = trio.CancelScope()

    async def run(self) -> None:
        """Until the core closes the stream, or all is drained."""
        early = await self._become()
        async with trio.open_nursery() as nursery:
            self._life = nursery.cancel_scope
            nursery.start_soon(self._speak)
            nursery.start_soon(self._accept_all, nursery)
            for frame in early:
                self._hear(frame)
            try:
                await self._listen()
            finally:
                # Closing, not only cancelling: sending is shielded, and a closed socket ends it.
                for connection in [*self._connections.values()]:
                    connection.close_now()
            nursery.cancel_scope.cancel("the core has closed")

    async def _become(self) -> list[ToFront]:
        frames: list[ToFront] = []
        while not frames:
            data = await self._receive(READ_BYTES)
            if not data:
                raise EOFError("the core said nothing")
            frames = self._frames.feed(data)
        become, *early = frames
        assert isinstance(become, Become)
        self._listeners = [_listener(self.descriptor_of(descriptor)) for descriptor in become.listeners]
        self._crowd = Crowd(become.connections_max, become.connections_per_address_max)
        self._write_stall_s = become.write_stall_s
        self._tls = server_context(become.pem) if become.pem else None
        self._headers = security_headers(over_tls=self._tls is not None or become.tls_by_proxy)
        self._turned_away = TurnedAway(lambda error: own_answer(error, self._headers))
        return early

    # To and from the core.

    def open(self, connection: Connection) -> int:
        number = next(self._numbers)
        self._asking[number] = connection
        return number

    def close(self, request: int) -> None:
        self._asking.pop(request, None)

    def say(self, frame: Frame) -> None:
        self._outbox.put(frame)
        self._something_to_say.set()

    async def _speak(self) -> None:
        """All that was said since the last time leaves together."""
        while True:
            await self._something_to_say.wait()
            self._something_to_say = trio.Event()
            await self._send(self._outbox.take())

    async def _listen(self) -> None:
        while data := await self._receive(READ_BYTES):
            for frame in self._frames.feed(data):
                self._hear(frame)

    def _hear(self, frame: ToFront) -> None:
        if isinstance(frame, Answer | More):
            self._hear_about(frame)
        elif isinstance(frame, TurnAway):
            connection = self._connections.get(frame.connection)
            if connection is not None:
                connection.turn_away(own_answer(one_too_many(), self._headers))
        elif isinstance(frame, Ping):
            self.say(Pong())
        elif isinstance(frame, NewCertificate):
            self._tls = server_context(frame.pem)
        elif isinstance(frame, Drain):
            self._drain()

    def _hear_about(self, frame: Answer | More) -> None:
        connection = self._asking.get(frame.request)
        if connection is None:
            return  # it is gone, and the core will know soon
        try:
            if isinstance(frame, Answer):
                connection.answer(frame)
            else:
                connection.more(frame.bytes_max)
        except Exception as error:  # whatever one connection dies of, the others live
            self._tell(error)
            connection.close_now()

    def _tell(self, error: BaseException) -> None:
        self.say(Failed("".join(traceback.format_tb(error.__traceback__)) + type(error).__name__))

    def _drain(self) -> None:
        self.is_closing = True
        self._accepting.cancel("draining")
        for connection in [*self._connections.values()]:
            connection.finish_when_idle()
        self._end_when_drained()

    def _end_when_drained(self) -> None:
        if self.is_closing and not self._connections:
            self._life.cancel("drained")

    # Connections.

    async def _accept_all(self, connections: trio.Nursery) -> None:
        try:
            with self._accepting:
                async with trio.open_nursery() as nursery:
                    for listener in self._listeners:
                        nursery.start_soon(self._accept, listener, connections)
        finally:
            for listener in self._listeners:
                listener.close()

    async def _accept(self, listener: socket.socket, connections: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            await self._turned_away.may_accept()
            try:
                accepted, _ = listener.accept()
            except (BlockingIOError, ConnectionError):
                continue  # another front-end was faster, or the peer has left
            except OSError:
                await trio.sleep(ACCEPT_PAUSE_S)
                continue
            connections.start_soon(self._welcome, accepted)

    async def _welcome(self, accepted: socket.socket) -> None:
        """The whole life of one accepted connection."""
        try:
            peer = str(accepted.getpeername()[0])
        except OSError:
            peer = ""
        if not peer or self.is_closing:
            accepted.close()
            return
        accepted.setblocking(False)
        line = Line(trio.SocketStream(trio.socket.from_stdlib_socket(accepted)), self._tls)
        address = network(peer)
        if not self._crowd.has_room(address):
            await self._turned_away.tell(line)
            return
        number = next(self._numbers)
        connection = Connection(
            self, line, number=number, peer=peer, write_stall_s=self._write_stall_s, headers=self._headers
        )
        self._connections[number] = connection
        self._crowd.came(address)
        self.say(Arrived(number, peer))
        try:
            await connection.run()
        except* Exception as error:  # whatever one connection dies of, the others live
            self._tell(error.exceptions[0])
        finally:
            self._crowd.left(address)
            del self._connections[number]
            self.say(Left(number))
            self._end_when_drained()


def _listener(descriptor: int) -> socket.socket:
    listener = socket.socket(fileno=descriptor)
    listener.setblocking(False)
    return listener
