"""One TCP connection speaking HTTP/1.1: Hypercorn's protocol, our limits on time and sending.

It alone touches Hypercorn's insides, which ``tests/http/test_hypercorn_canary.py`` guards. What it changes:
no HTTP/2 and no WebSocket upgrades; sending has a deadline, so that a client who does not read cannot hold
us; handshakes, idle connections and slow request heads end; a connection with an unread body is closed
gently, so that the answer arrives; malformed requests get our JSON error too. Whether there is TLS below is
the line's business.
"""

from __future__ import annotations

import secrets
from itertools import chain
from typing import Any, cast

import h11
import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, EndBody, Request, Response
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from transport.http.errors import ApiError, Code
from transport.http.headers import ALWAYS, Headers
from transport.http.line import GONE, PEER_WENT_AWAY, Line
from transport.http.patience import HANDSHAKE_S, HEAD_S, KEEP_ALIVE_S, LINGER_S, SEND_CHUNK_BYTES

log = structlog.get_logger("http")


class TcpConnection(TCPServer):
    """One accepted connection; ``run`` returns when it is over."""

    def __init__(
        self,
        app: Any,
        config: Config,
        context: WorkerContext,
        line: Line,
        *,
        write_stall_s: float,
        headers: Headers,
    ) -> None:
        """``headers``: of answers that are not the application's."""
        super().__init__(app, config, context, {}, cast(Any, line))
        self._line = line
        self._write_stall_s = write_stall_s
        self._headers = headers
        self._reading = trio.CancelScope()
        self._idle = True
        self._over = False
        """Nothing more is sent or handled; what still arrives is thrown away."""
        self._lingers = False

    async def run(self) -> None:
        socket = self._line.socket
        try:
            client = parse_socket_addr(socket.family, socket.getpeername())
            server = parse_socket_addr(socket.family, socket.getsockname())
            async with TaskGroup() as task_group:
                self.http = Http11(
                    self.app,
                    self.config,
                    self.context,
                    task_group,
                    ConnectionState({}),
                    self._line.is_tls,
                    client,
                    server,
                    self.protocol_send,
                )
                self.http.security_headers = self._headers
                await self._read()
        except OSError:
            pass  # the peer was gone before we asked who it is
        finally:
            self.close_now()

    def finish_when_idle(self) -> None:
        """The house is closing: an idle connection ends now, a busy one after its answer."""
        if self._idle:
            self._reading.cancel("the server is stopping")

    def close_now(self) -> None:
        """The socket is closed, whoever is reading from or sending to it."""
        self._over = True
        self._line.close()

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, RawData):
            if event.data:
                await self._send(event.data)
        elif isinstance(event, Closed):
            self._end()
            await self.http.handle(Closed())
        elif isinstance(event, Updated):
            self._set_idle(event.idle)

    async def _send(self, data: bytes) -> None:
        async with self.send_lock:
            if self._over:
                return
            try:
                for start in range(0, len(data), SEND_CHUNK_BYTES):
                    deadline = trio.current_time() + self._write_stall_s
                    # Shielded, because half an answer must not be followed by another one; but not for ever.
                    with trio.CancelScope(deadline=deadline, shield=True) as sending:
                        await self._line.send_all(data[start : start + SEND_CHUNK_BYTES])
                    if sending.cancelled_caught:
                        break
                else:
                    return
            except GONE:
                pass
            self.close_now()
        await self.http.handle(Closed())

    async def _read(self) -> None:
        self._reading.deadline = trio.current_time() + HANDSHAKE_S
        with self._reading:
            if await self._shook_hands():
                await self._read_requests()
        if self._reading.cancel_called or self._lingers:
            await self._take_leave()
        self._over = True
        await self.http.handle(Closed())

    async def _shook_hands(self) -> bool:
        reason = await self._line.shake_hands()
        if reason is None:
            return True
        if reason != PEER_WENT_AWAY:
            log.info("handshake failed", address=self.http.client and self.http.client[0], reason=reason)
        if reason == "HTTP_REQUEST":
            error = ApiError(Code.MALFORMED_REQUEST, "this port speaks TLS only: use https://")
            await self._line.send_in_clear(raw_answer(error, self.config, ALWAYS))
        self._lingers = True
        return False

    async def _read_requests(self) -> None:
        self._reading.deadline = trio.current_time() + HEAD_S
        while (data := await self._line.receive_some(MAX_RECV)) and not self._over:
            if self._idle and not self.http.head_begun:
                self._reading.deadline = trio.current_time() + HEAD_S
            await self.http.handle(RawData(data))

    async def _take_leave(self) -> None:
        """Shielded but not for long: also a house that stops wants its last answers to arrive whole."""
        with trio.CancelScope(deadline=trio.current_time() + LINGER_S, shield=True):
            await self._line.end_sending()
            if self._lingers:
                await self._line.discard()

    def _set_idle(self, idle: bool) -> None:
        self._idle = idle
        if not idle:
            self._reading.deadline = float("inf")
        elif self.context.terminated.is_set():
            self._reading.cancel("the server is stopping")
        else:
            self._reading.deadline = trio.current_time() + KEEP_ALIVE_S

    def _end(self) -> None:
        """No more requests here. The reader takes leave, and drops what comes of a body nobody wanted.

        Not async: by now the request's task may be cancelled, and its connection must end all the same.
        """
        if not self._over:
            self._over = True
            self._lingers = self.http.body_unread
            self._reading.cancel("the last answer is sent")


class Ambiguous(Exception):
    """A request that two readers could take for two different ones, which is how another request is smuggled
    past a proxy (RFC 9112 section 6.1): refused, and the connection ends."""


class Http11(H11Protocol):
    """HTTP/1.1 and nothing else."""

    connection: h11.Connection
    security_headers: Headers = ALWAYS
    _head: bytes | None = None
    """The head of the answer, held back to leave together with its body."""

    @property
    def head_begun(self) -> bool:
        """Part of a request's head has arrived."""
        return bool(self.connection.trailing_data[0])

    @property
    def body_unread(self) -> bool:
        """The peer may still be sending a request that was answered already."""
        return self.connection.their_state in (h11.SEND_BODY, h11.ERROR)

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, Response) and event.status_code >= 200:
            headers = list(chain(event.headers, self.config.response_headers("h11")))
            if self._is_last:
                headers.append((b"connection", b"close"))
            self._head = self._encoded(h11.Response(headers=headers, status_code=event.status_code))
        elif isinstance(event, Body):
            data = self._encoded(h11.Data(data=event.data))
            await self._flush(data)
        elif isinstance(event, EndBody):
            await self._flush(self._encoded(h11.EndOfMessage()))
        else:
            await super().stream_send(event)

    @property
    def _is_last(self) -> bool:
        return (
            self.keep_alive_requests >= self.config.keep_alive_max_requests
            or self.context.terminated.is_set()
            or self.body_unread
        )

    def _encoded(self, event: Any) -> bytes:
        """Bytes of an event; none when the peer has broken the protocol meanwhile."""
        try:
            return self.connection.send(event) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state is h11.ERROR:
                return b""
            raise

    async def _flush(self, data: bytes) -> None:
        head, self._head = self._head or b"", None
        await self.send(RawData(head + data))

    async def handle(self, event: Event) -> None:
        try:
            await super().handle(event)
        except Ambiguous:
            await self._send_error_response(400)
            await self.send(Closed())

    async def _check_protocol(self, event: h11.Request) -> None:
        """Upgrades are not offered, so none is taken (RFC 9110 section 7.8). Raises Ambiguous."""
        names = [name for name, _ in event.headers]
        if b"transfer-encoding" in names and b"content-length" in names:
            raise Ambiguous
        if names.count(b"authorization") > 1 or names.count(b"x-api-key") > 1:
            raise Ambiguous

    async def _create_stream(self, request: h11.Request) -> None:
        self.stream = HTTPStream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1

    async def _send_error_response(self, status_code: int) -> None:
        """For requests that are no HTTP: there is no route, no log line and no caller's request id."""
        error = ApiError(
            Code.MALFORMED_REQUEST, _MALFORMED.get(status_code, "not HTTP/1.1"), status=status_code
        )
        await self.send(RawData(raw_answer(error, self.config, self.security_headers, self.connection)))


_MALFORMED = {
    431: "the request's head is too large",
    501: "this transfer coding is not implemented",
}


def raw_answer(
    error: ApiError, config: Config, security_headers: Headers, connection: h11.Connection | None = None
) -> bytes:
    """A whole closing HTTP answer, for where there is no request to route."""
    request_id = secrets.token_hex(16)
    body = error.body(request_id)
    headers = [
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("connection", "close"),
        ("x-request-id", request_id),
        *error.headers(),
    ]
    encoded = [(name.encode(), value.encode()) for name, value in headers]
    encoded += security_headers
    encoded += config.response_headers("h11")
    speaker = connection or h11.Connection(h11.SERVER)
    events = (
        h11.Response(headers=encoded, status_code=error.status),
        h11.Data(data=body),
        h11.EndOfMessage(),
    )
    return b"".join(speaker.send(event) or b"" for event in events)
