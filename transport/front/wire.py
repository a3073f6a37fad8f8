"""What a front-end process and the core say to each other over its pipes.

    frame = U32 length of the rest || MessagePack

Alone owns the layout; moves no bytes itself. The core speaks first: ``Become``. After that both sides speak
when they have something to say, about many requests at a time; a request's number belongs to its process.
"""

from __future__ import annotations

import struct
from typing import Generic, TypeVar

import msgspec

F = TypeVar("F")

EAGER_BYTES = 64 * 1024
"""A body of at most so many bytes that has come with its head goes to the core with it."""
CHUNK_BYTES = 256 * 1024
"""Of a body the core asked for, at most so much in one frame."""
LARGE_ANSWER_BYTES = 64 * 1024
"""The core waits until the peer has taken a larger answer: so long its bytes count as in flight."""
FRAME_BYTES_MAX = 64 * 1024 * 1024
"""Above the largest answer, a page of PAGE_BYTES_MAX; below what hurts."""
_LENGTH = struct.Struct(">I")


class Frame(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


class Become(Frame, frozen=True, tag=0):
    """First frame. ``pem``: certificate chain and key, the one secret here; empty: plain HTTP is spoken."""

    listeners: list[int]
    """Descriptors of bound sockets, inherited."""
    connections_max: int
    connections_per_address_max: int
    write_stall_s: float
    tls_by_proxy: bool
    pem: bytes

    def __repr__(self) -> str:
        return "Become(…)"


class NewCertificate(Frame, frozen=True, tag=1):
    """For handshakes from now on."""

    pem: bytes

    def __repr__(self) -> str:
        return "NewCertificate(…)"


class Answer(Frame, frozen=True, tag=2):
    request: int
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class More(Frame, frozen=True, tag=3):
    """Send so many bytes more of the body; the next ``Chunk`` frames bring them."""

    request: int
    bytes_max: int


class TurnAway(Frame, frozen=True, tag=4):
    """That connection is one too many, all front-ends together."""

    connection: int


class Drain(Frame, frozen=True, tag=5):
    """Accept nothing more; end when the last answer is sent."""


class Ping(Frame, frozen=True, tag=6):
    pass


ToFront = Become | NewCertificate | Answer | More | TurnAway | Drain | Ping


class Arrived(Frame, frozen=True, tag=0):
    """A connection; its requests come after it."""

    connection: int
    peer: str


class Left(Frame, frozen=True, tag=1):
    connection: int


class Request(Frame, frozen=True, tag=2):
    request: int
    connection: int
    method: str
    target: bytes
    lines: list[tuple[bytes, bytes]]
    body: bytes | None
    """The whole of it; None: it has to be asked for."""


class Chunk(Frame, frozen=True, tag=3):
    request: int
    body: bytes
    is_last: bool


class Sent(Frame, frozen=True, tag=4):
    """The peer has taken the whole of a large answer, or will never take it."""

    request: int


class Gone(Frame, frozen=True, tag=5):
    """Nobody waits for the answer any more."""

    request: int


class HandshakeFailed(Frame, frozen=True, tag=6):
    peer: str
    reason: str


class Failed(Frame, frozen=True, tag=7):
    """A connection died of a mistake of ours. ``trace``: where, without values."""

    trace: str


class Pong(Frame, frozen=True, tag=8):
    pass


ToCore = Arrived | Left | Request | Chunk | Sent | Gone | HandshakeFailed | Failed | Pong

NONSENSE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading raises for what nobody of ours has written."""


class FrameTooLong(ValueError):
    pass


class Outbox:
    """Frames that wait to be sent together."""

    __slots__ = ("_encoder", "waiting")

    def __init__(self) -> None:
        self.waiting = bytearray()
        self._encoder = msgspec.msgpack.Encoder()

    def put(self, frame: Frame) -> None:
        waiting = self.waiting
        begin = len(waiting)
        waiting += b"\0\0\0\0"
        self._encoder.encode_into(frame, waiting, begin + 4)
        _LENGTH.pack_into(waiting, begin, len(waiting) - begin - 4)

    def take(self) -> bytearray:
        taken, self.waiting = self.waiting, bytearray()
        return taken


class Frames(Generic[F]):
    """Whole frames out of bytes as they come."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[F]) -> None:
        self._decoder = decoder
        self._unread = bytearray()

    def feed(self, data: bytes | bytearray) -> list[F]:
        """Those that are complete now. Raises FrameTooLong, and ``NONSENSE``."""
        unread = self._unread
        unread += data
        found, at, end = [], 0, len(unread)
        with memoryview(unread) as view:
            while end - at >= 4:
                (length,) = _LENGTH.unpack_from(view, at)
                if length > FRAME_BYTES_MAX:
                    raise FrameTooLong(f"a frame of {length} bytes; the limit is {FRAME_BYTES_MAX}")
                if end - at - 4 < length:
                    break
                with view[at + 4 : at + 4 + length] as body:
                    found.append(self._decoder.decode(body))
                at += 4 + length
        del unread[:at]
        return found


def to_front() -> Frames[ToFront]:
    return Frames(msgspec.msgpack.Decoder(ToFront))


def to_core() -> Frames[ToCore]:
    return Frames(msgspec.msgpack.Decoder(ToCore))
