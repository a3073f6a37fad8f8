"""One accepted socket, plain or under TLS, for whoever speaks HTTP on it.

Alone knows TLS on the server's side: the handshake, why it failed, and a polite end. It has no deadlines and
no limits; whoever holds the line brings them. Closing it ends whatever waits on it.
"""

from __future__ import annotations

import os
import ssl
from contextlib import suppress

import trio

GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


class Line:
    def __init__(self, stream: trio.SocketStream, context: ssl.SSLContext | None) -> None:
        """``context`` None: plain TCP."""
        self.socket = stream.socket
        self.is_tls = context is not None
        self._raw = stream
        self._tls = (
            None if context is None else trio.SSLStream(_NotClosing(stream), context, server_side=True)
        )
        self._stream: trio.abc.Stream = self._tls or stream
        self._open = self._tls is None

    async def shake_hands(self) -> str | None:
        """None when data can be sent and received; else why not, and the peer was told."""
        if self._tls is None:
            return None
        try:
            await self._tls.do_handshake()
        except GONE as error:
            await self._send_what_lies_there(self._tls)
            return _reason(error)
        self._open = True
        return None

    async def _send_what_lies_there(self, tls: trio.SSLStream[_NotClosing]) -> None:
        """OpenSSL wrote an alert or a close_notify and then failed: Trio leaves it unsent.
        ``test_tls_1_2_is_refused_with_a_word`` sees when Trio's insides change."""
        with suppress(*GONE):
            await self._raw.send_all(tls._outgoing.read())

    async def send_in_clear(self, data: bytes) -> None:
        """For a peer that spoke plain HTTP where TLS is spoken."""
        with suppress(*GONE):
            await self._raw.send_all(data)

    def send_at_once(self, data: bytes) -> int:
        """How many bytes the kernel took without waiting; none under TLS. Raises OSError when the peer is
        gone."""
        if self._tls is not None:
            return 0
        try:
            return os.write(self.socket.fileno(), data)
        except BlockingIOError:
            return 0

    async def send_all(self, data: bytes) -> None:
        """Raises what a stream raises; cancelled, the line is good for nothing more."""
        await self._stream.send_all(data)

    async def receive_some(self, bytes_max: int) -> bytes:
        """Empty at the end, also at an impolite one."""
        try:
            return bytes(await self._stream.receive_some(bytes_max))
        except GONE:
            return b""

    async def end_sending(self) -> None:
        """The peer knows that it has everything: close_notify under TLS, and no more bytes of ours."""
        if self._tls is not None and self._open:
            with suppress(*GONE):
                await self._tls.aclose()
            await self._send_what_lies_there(self._tls)  # when data came that nobody read
        with suppress(OSError):  # the peer is gone, or we are
            self.socket.shutdown(trio.socket.SHUT_WR)

    async def discard(self) -> None:
        """Throw away what still comes, without decrypting it, until the peer has closed. Closing a socket
        with something unread destroys what the peer has not read yet."""
        with suppress(*GONE):
            while await self._raw.receive_some():
                pass

    def close(self) -> None:
        self.socket.close()


class _NotClosing(trio.abc.Stream):
    """Under TLS: its end is not the end of the socket, so that the last answer can be read in peace."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


PEER_WENT_AWAY = "the peer went away"


def _reason(error: BaseException) -> str:
    """OpenSSL's word for it, unless the peer just left, as health checks do."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLEOFError) or not isinstance(cause, ssl.SSLError):
        return PEER_WENT_AWAY
    return cause.reason or PEER_WENT_AWAY
