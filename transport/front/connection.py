"""One connection at a front-end: its requests go to the core one at a time, in order, and their answers back.

Alone knows how far a request of this connection has come, and has its patience: with handshakes, with slow
heads, with idle peers, with peers that do not read. It decides nothing about what is asked, and reads of a
body no more than the core wants. Answers are written by whoever brings them, if the kernel takes them at
once; so an ordinary request wakes this connection's task exactly once.
"""

from __future__ import annotations

import secrets
from typing import Protocol

import trio

from transport.front.http1 import CONTINUE, Head, NotHttp, Reader, answer
from transport.front.wire import (
    CHUNK_BYTES,
    EAGER_BYTES,
    LARGE_ANSWER_BYTES,
    Answer,
    Chunk,
    Frame,
    Gone,
    HandshakeFailed,
    Request,
    Sent,
)
from transport.http.errors import ApiError, Code
from transport.http.headers import ALWAYS, Headers
from transport.http.line import GONE, PEER_WENT_AWAY, Line
from transport.http.patience import (
    HANDSHAKE_S,
    HEAD_S,
    KEEP_ALIVE_S,
    LINGER_S,
    REQUESTS_PER_CONNECTION_MAX,
    SEND_CHUNK_BYTES,
)

RECEIVE_BYTES = 64 * 1024
AHEAD_BYTES_MAX = 64 * 1024
"""What a peer sent before it was asked for, a body or further requests; then it has to wait."""


class Desk(Protocol):
    """Where the requests of all connections of this process go."""

    is_closing: bool

    def open(self, connection: Connection) -> int:
        """A number for its next request, under which the core's frames reach it until ``close``."""
        ...

    def close(self, request: int) -> None: ...

    def say(self, frame: Frame) -> None: ...


class Connection:
    def __init__(
        self, desk: Desk, line: Line, *, number: int, peer: str, write_stall_s: float, headers: Headers
    ) -> None:
        """``headers``: of answers that are not the core's."""
        self.number = number
        self._desk = desk
        self._line = line
        self._peer = peer
        self._write_stall_s = write_stall_s
        self._headers = headers
        self._reader = Reader()
        self._reading = trio.CancelScope()
        self._nursery: trio.Nursery
        self._request: int | None = None
        """The request that is not answered yet."""
        self._head: Head
        self._handed_over = True
        """The core has the whole body of it."""
        self._wanted = 0
        """Bytes of the body that the core asked for."""
        self._continue_due = False
        self._requests = 0
        self._unsent: list[bytes] = []
        self._sending = False
        self._settled: trio.Event | None = None
        """Somebody waits for the next word of the core, or until all is sent."""
        self._over = False
        """Nothing more is sent or asked; what still arrives is thrown away."""
        self._lingers = False
        self._tell_when_sent: int | None = None

    async def run(self) -> None:
        """Its whole life."""
        try:
            async with trio.open_nursery() as self._nursery:
                await self._live()
                self._nursery.cancel_scope.cancel("the connection is over")
        finally:
            self._cut()
            self._tell_sent()

    async def _live(self) -> None:
        self._reading.deadline = trio.current_time() + HANDSHAKE_S
        with self._reading:
            if await self._shook_hands():
                self._reading.deadline = trio.current_time() + HEAD_S
                await self._read()
        self._abandon()
        if self._reading.cancel_called or self._lingers:
            await self._take_leave()
        self._cut()  # who closed its side hears nothing more: it may have gone

    async def _shook_hands(self) -> bool:
        reason = await self._line.shake_hands()
        if reason is None:
            return True
        if reason != PEER_WENT_AWAY:
            self._desk.say(HandshakeFailed(self._peer, reason))
        if reason == "HTTP_REQUEST":
            error = ApiError(Code.MALFORMED_REQUEST, "this port speaks TLS only: use https://")
            await self._line.send_in_clear(own_answer(error, ALWAYS))
        self._lingers = True
        return False

    async def _read(self) -> None:
        try:
            while not self._over:
                if self._must_wait:
                    await self._settle()
                elif data := await self._line.receive_some(RECEIVE_BYTES):
                    if self._request is None and not self._reader.unread:
                        self._reading.deadline = trio.current_time() + HEAD_S
                    self._reader.feed(data)
                    self._go_on()
                else:
                    return
        except NotHttp as wrong:
            self._refuse(wrong)

    @property
    def _must_wait(self) -> bool:
        return self._sending or (self._request is not None and self._reader.unread >= AHEAD_BYTES_MAX)

    async def _settle(self) -> None:
        self._settled = trio.Event()
        await self._settled.wait()

    async def _settle_all(self) -> None:
        while self._sending:
            await self._settle()

    def _go_on(self) -> None:
        """As far as what is here goes. Raises NotHttp."""
        if self._request is None:
            self._begin()
        else:
            self._hand_over()

    def _begin(self) -> None:
        """The next request, if its head is here and the answer before it is sent."""
        if self._over or self._sending:
            return
        head = self._reader.next_head()
        if head is None:
            return
        self._reading.deadline = float("inf")
        self._head = head
        self._requests += 1
        body = b"" if self._reader.body_ended else self._eager(head)
        # Only what is a request so far gets a number: a body that cannot be read here is no request.
        self._request = self._desk.open(self)
        self._handed_over = body is not None
        self._wanted = 0
        self._continue_due = head.waits_for_continue and not self._reader.unread
        self._desk.say(Request(self._request, self.number, head.method, head.target, head.lines, body))

    def _eager(self, head: Head) -> bytes | None:
        """The body, if it is small and already here: nobody has to ask for it."""
        if head.length is None or head.length > min(EAGER_BYTES, self._reader.unread):
            return None
        return self._reader.body(EAGER_BYTES)

    def _hand_over(self) -> None:
        """What the core wants of the body, and what is here of it. Raises NotHttp."""
        while self._wanted and not self._handed_over and self._request is not None:
            part = self._reader.body(min(self._wanted, CHUNK_BYTES))
            self._handed_over = self._reader.body_ended
            if not part and not self._handed_over:
                return
            self._wanted -= min(len(part), self._wanted)
            self._desk.say(Chunk(self._request, part, self._handed_over))

    # What the core says about the request.

    def more(self, bytes_max: int) -> None:
        if self._over:
            return
        self._wanted += bytes_max
        if self._continue_due:
            self._continue_due = False
            self._send(CONTINUE)
        try:
            self._hand_over()
        except NotHttp as wrong:
            self._refuse(wrong)
        self._wake()

    def answer(self, frame: Answer) -> None:
        assert self._request == frame.request
        self._desk.close(self._request)
        self._request = None
        if self._over:
            return
        is_last = (
            self._head.is_last
            or not self._handed_over
            or self._desk.is_closing
            or self._requests >= REQUESTS_PER_CONNECTION_MAX
        )
        if len(frame.body) > LARGE_ANSWER_BYTES:
            self._tell_when_sent = frame.request
        to_head = self._head.method == "HEAD"
        self._send(answer(frame.status, frame.headers, frame.body, is_last=is_last, to_head=to_head))
        if is_last:
            self._end(lingers=not self._handed_over)
        if not self._sending:
            self._all_sent()

    def finish_when_idle(self) -> None:
        """The front-end is closing: an idle connection ends now, a busy one after its answer."""
        if self._request is None and not self._sending:
            self._reading.cancel("the server is stopping")

    def turn_away(self, data: bytes) -> None:
        """The core does not want this connection; nothing of it was done."""
        if not self._over:
            self._abandon()
            self._send(data)
            self._end(lingers=True)

    def close_now(self) -> None:
        """The socket is closed, whoever is reading from or sending to it."""
        self._over = True
        self._line.close()

    # Sending.

    def _send(self, data: bytes) -> None:
        if not self._sending:
            try:
                sent = self._line.send_at_once(data)
            except OSError:
                self._cut()
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._unsent.append(data)
        if not self._sending:
            self._sending = True
            self._nursery.start_soon(self._send_unsent)

    async def _send_unsent(self) -> None:
        # Shielded, because a request's last answer should arrive also when the house stops; but not for ever.
        while self._unsent:
            data = self._unsent.pop(0)
            for start in range(0, len(data), SEND_CHUNK_BYTES):
                deadline = trio.current_time() + self._write_stall_s
                with trio.CancelScope(deadline=deadline, shield=True) as sending:
                    try:
                        await self._line.send_all(data[start : start + SEND_CHUNK_BYTES])
                    except GONE:
                        sending.cancel("the peer is gone")
                if sending.cancel_called:
                    self._cut()
                    break
        self._sending = False
        self._all_sent()

    def _all_sent(self) -> None:
        self._tell_sent()
        if self._request is None and not self._over:
            if self._desk.is_closing:
                self._reading.cancel("the server is stopping")
            elif self._reader.unread:
                self._next_at_once()
            else:
                self._reading.deadline = trio.current_time() + KEEP_ALIVE_S
        self._wake()

    def _tell_sent(self) -> None:
        if self._tell_when_sent is not None:
            self._desk.say(Sent(self._tell_when_sent))
            self._tell_when_sent = None

    def _next_at_once(self) -> None:
        """A pipelined request, or the beginning of one, is here already."""
        self._reading.deadline = trio.current_time() + HEAD_S
        try:
            self._begin()
        except NotHttp as wrong:
            self._refuse(wrong)

    def _wake(self) -> None:
        if self._settled is not None:
            self._settled.set()
            self._settled = None

    # Ends.

    def _refuse(self, wrong: NotHttp) -> None:
        """There is no route, no log line and no caller's request id for what is no HTTP. The answer of a
        request before it, if one is still due, would not be believed: it is cut off."""
        self._abandon()
        error = ApiError(Code.MALFORMED_REQUEST, wrong.text, status=wrong.status)
        self._send(own_answer(error, self._headers))
        self._end(lingers=True)

    def _end(self, *, lingers: bool) -> None:
        """No more requests here. The reader takes leave, and drops what comes of a body nobody wanted."""
        self._over = True
        self._lingers = self._lingers or lingers
        self._reading.cancel("the last answer is under way")

    def _cut(self) -> None:
        """The peer is gone, or does not read."""
        self._unsent.clear()
        self._abandon()
        self.close_now()
        self._wake()

    def _abandon(self) -> None:
        """Nobody waits for an answer on this connection any more."""
        if self._request is not None:
            self._desk.say(Gone(self._request))
            self._desk.close(self._request)
            self._request = None

    async def _take_leave(self) -> None:
        """Shielded but not for long: also a house that stops wants its last answers to arrive whole."""
        with trio.CancelScope(shield=True):
            await self._settle_all()  # bounded by the stall limit
        with trio.CancelScope(deadline=trio.current_time() + LINGER_S, shield=True):
            await self._line.end_sending()
            if self._lingers:
                await self._line.discard()


def own_answer(error: ApiError, security_headers: Headers) -> bytes:
    """A whole closing answer, for where there is no request to hand on."""
    request_id = secrets.token_hex(16)
    body = error.body(request_id)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode()),
        *((name.encode(), value.encode()) for name, value in error.headers()),
        *security_headers,
    ]
    return answer(error.status, headers, body, is_last=True)
