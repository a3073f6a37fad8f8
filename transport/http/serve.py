"""The serving loop: accepts connections within limits, and stops by answering what is in flight.

It runs inside the caller's nursery and owns every connection. It knows nothing of routes. A connection that
fails is the end of that connection only.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext

from config.settings import Settings
from transport.http.client_address import network
from transport.http.connection import TcpConnection, raw_answer
from transport.http.crowd import Crowd, TurnedAway
from transport.http.headers import security_headers
from transport.http.line import Line
from transport.http.patience import (
    HEAD_BYTES_MAX,
    REQUESTS_PER_CONNECTION_MAX,
)

UNREAD_MESSAGES_MAX = 1
"""Chunks of a body in memory that no handler has asked for yet."""

TlsOfTheMoment = Callable[[], ssl.SSLContext]

log = structlog.get_logger("http")


class HypercornLog:
    """What Hypercorn wants to say, in our log; its access log is ours already."""

    def __init__(self, config: Config) -> None:
        self.access_logger = None

    async def access(self, request: Any, response: Any, request_time: float) -> None:
        pass

    async def exception(self, message: str, *args: Any, **kwargs: Any) -> None:
        log.error(message, exc_info=sys.exc_info())


def _config() -> Config:
    config = Config()
    config.logger_class = HypercornLog  # type: ignore[assignment]
    config.include_server_header = False
    config.h11_max_incomplete_size = HEAD_BYTES_MAX
    config.keep_alive_max_requests = REQUESTS_PER_CONNECTION_MAX
    config.max_app_queue_size = UNREAD_MESSAGES_MAX
    return config


class Reception:
    """Who is connected to one application."""

    def __init__(self, app: Any, settings: Settings, tls: TlsOfTheMoment | None) -> None:
        self._app = ASGIWrapper(app)
        self._settings = settings
        self._tls = tls
        self._headers = security_headers(over_tls=tls is not None or settings.tls_terminated_by_proxy)
        self._config = _config()
        self._context = WorkerContext(None)
        self._connections: set[TcpConnection] = set()
        self._crowd = Crowd(settings.connections_max, settings.connections_per_address_max)
        self.turned_away = TurnedAway(lambda error: raw_answer(error, self._config, self._headers))
        self._empty = trio.Event()

    async def welcome(self, stream: Any) -> None:
        """The whole life of one accepted connection."""
        try:
            address = network(str(stream.socket.getpeername()[0]))
        except OSError:
            return await trio.aclose_forcefully(stream)
        line = Line(stream, self._tls and self._tls())
        if not self._crowd.has_room(address):
            return await self.turned_away.tell(line)
        connection = TcpConnection(
            self._app,
            self._config,
            self._context,
            line,
            write_stall_s=self._settings.write_stall_secs,
            headers=self._headers,
        )
        self._connections.add(connection)
        self._crowd.came(address)
        try:
            await connection.run()
        except* Exception:  # the door: whatever one connection dies of, the others live
            log.exception("a connection failed")
        finally:
            self._connections.discard(connection)
            self._crowd.left(address)
            if not self._connections:
                self._empty.set()

    async def see_out(self) -> None:
        """Idle connections end at once, busy ones after their answer; after the graceful time all do."""
        await self._context.terminated.set()
        for connection in [*self._connections]:
            connection.finish_when_idle()
        with trio.move_on_after(self._settings.graceful_timeout_secs):
            while self._connections:
                self._empty = trio.Event()
                await self._empty.wait()

    def close(self) -> None:
        for connection in [*self._connections]:
            connection.close_now()


class PatientListener(trio.abc.Listener[Any]):
    """Accepts only when the reception has time for one more: the others wait in the kernel's queue."""

    def __init__(self, listener: trio.abc.Listener[Any], reception: Reception) -> None:
        self._listener = listener
        self._reception = reception

    async def accept(self) -> Any:
        await self._reception.turned_away.may_accept()
        return await self._listener.accept()

    async def aclose(self) -> None:
        await self._listener.aclose()


async def serve(
    app: Any,
    listeners: Sequence[trio.abc.Listener[Any]],
    settings: Settings,
    *,
    shutdown: trio.Event,
    tls: TlsOfTheMoment | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until ``shutdown`` is set, then answer what is in flight for at most
    ``settings.graceful_timeout_secs``, close every socket and return. Closes the listeners. With ``tls`` only
    TLS is spoken, each handshake with the context that it answers then."""
    reception = Reception(app, settings, tls)
    async with trio.open_nursery() as connections:
        try:
            async with trio.open_nursery() as accepting:
                accept = partial(trio.serve_listeners, handler_nursery=connections)
                patient = [PatientListener(listener, reception) for listener in listeners]
                accepting.start_soon(accept, reception.welcome, patient)
                task_status.started()
                await shutdown.wait()
                accepting.cancel_scope.cancel("stopping")
            await reception.see_out()
        finally:
            # Closing, not only cancelling: sending is shielded, and a closed socket ends it.
            reception.close()
            connections.cancel_scope.cancel("stopped")
