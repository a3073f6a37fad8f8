"""Where letters end that nobody could handle: the house's one office of dead letters.

It alone keeps them, the last few with their content, so that an operator can look, throw away, or have one
delivered once more. It never shows a content (it may be a customer's payload) and never resends by itself.
Nothing here is durable, and nothing here was ever acknowledged to anybody.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from actors.letters import Letter
from actors.mailbox import Ref
from actors.messages import Message

LETTERS_MAX = 256
CONTENT_BYTES_MAX = 64 * 1024 * 1024
"""Of all contents together; the oldest are let go first, their letters stay listed."""

_encoder = msgspec.msgpack.Encoder(enc_hook=repr)


class DeadLetter(msgspec.Struct, frozen=True):
    """A letter that is not tried again. ``buried_at`` in Unix seconds; ``content_bytes`` is its message's
    size; ``resendable``: the content is still there."""

    id: int
    """Counts from 1 since the node started."""
    mailbox: str
    message: str
    """The name of the message's type."""
    reason: str
    lives_cost: int
    buried_at: float
    content_bytes: int
    trace_id: str | None
    """Of the request that it came from, if that was traced."""
    resendable: bool = True


class Content(NamedTuple):
    """What a resend needs."""

    message: Message[Any]
    to: Ref


class DeadLetters:
    """The last ``letters_max`` dead letters and the count of all. It never refuses one: the oldest goes."""

    def __init__(self, *, letters_max: int = LETTERS_MAX, now: Callable[[], float] = time.time) -> None:
        self.total = 0
        self._letters_max = letters_max
        self._now = now
        self._letters: dict[int, DeadLetter] = {}
        self._contents: dict[int, Content] = {}
        self._content_bytes = 0

    def bury(self, to: Ref, letter: Letter[Any], reason: str) -> None:
        self._forget_earlier(letter.message)
        self.total += 1
        size = _size(letter.message)
        self._letters[self.total] = DeadLetter(
            self.total,
            to.name,
            type(letter.message).__name__,
            reason,
            letter.lives_cost,
            self._now(),
            size,
            letter.trace_id,
        )
        self._contents[self.total] = Content(letter.message, to)
        self._content_bytes += size
        if len(self._letters) > self._letters_max:
            self.drop(next(iter(self._letters)))
        while self._content_bytes > CONTENT_BYTES_MAX:
            self._let_content_go(next(iter(self._contents)))

    def list(self, *, after: int | None = None, limit: int = LETTERS_MAX) -> list[DeadLetter]:
        """Newest first; ``after``: older than the one with this id."""
        older = [one for one in reversed(self._letters.values()) if after is None or one.id < after]
        return older[:limit]

    def show(self, dead_letter_id: int) -> DeadLetter:
        """Raises LookupError."""
        try:
            return self._letters[dead_letter_id]
        except KeyError:
            raise LookupError(f"there is no dead letter {dead_letter_id}") from None

    def content(self, dead_letter_id: int) -> Content | None:
        """None when it was let go to save memory."""
        return self._contents.get(dead_letter_id)

    def drop(self, dead_letter_id: int) -> DeadLetter:
        """Forget it. Raises LookupError."""
        gone = self.show(dead_letter_id)
        del self._letters[dead_letter_id]
        if dead_letter_id in self._contents:
            del self._contents[dead_letter_id]
            self._content_bytes -= gone.content_bytes
        return gone

    def _forget_earlier(self, message: Message[Any]) -> None:
        """A letter that was sent once more and died once more is one dead letter."""
        for dead_letter_id, content in self._contents.items():
            if content.message is message:
                self.drop(dead_letter_id)
                return

    def _let_content_go(self, dead_letter_id: int) -> None:
        poorer = msgspec.structs.replace(self._letters[dead_letter_id], resendable=False)
        self._letters[dead_letter_id] = poorer
        del self._contents[dead_letter_id]
        self._content_bytes -= poorer.content_bytes


def _size(message: Message[Any]) -> int:
    """In bytes. Called while a life ends: no message may make that fail."""
    try:
        return len(_encoder.encode(message))
    except Exception:  # what MessagePack cannot say, for example an integer of more than 64 bits
        return len(repr(message))
