"""The newest number this node has given in each stream, kept in a file beside the database, not in it.

So that a start finds out when its database was brought back from an older copy: what was acknowledged would
be gone, and its numbers given a second time. ``GivenNumbers`` is told by the sequencers, ``NumbersKeeper`` is
the actor that writes them down every two seconds; a request never waits for it. What was given in the last
two seconds before a crash, or in a stream that was not among the last thousand, is not in the file.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import msgspec
import structlog
import trio

from actors.mailbox import Inbox
from config.files import write_whole
from journal.restorations import GIVEN_MAX, Given
from ves.encoding import uuid_bytes, uuid_text
from ves.records import Uuid

EVERY_S = 2.0
STREAMS_MAX = GIVEN_MAX
FILE = "given-numbers.json"

log = structlog.get_logger(__name__)


class Unreadable(Exception):
    """The file is there and is not what we write."""


class _Line(msgspec.Struct, frozen=True):
    tenant_id: str
    store_id: str
    sequence_number: int
    event_id: str


class GivenNumbers:
    """By stream, the one given last at the end. ``path``: the file, mode 0600, replaced as a whole; None: a
    simulation's, which no disk outlives."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._newest: OrderedDict[tuple[Uuid, Uuid], Given] = OrderedDict()
        self._changed = False

    def gave(self, given: Given) -> None:
        """Durable in the journal."""
        self._newest[given.stream] = given
        self._newest.move_to_end(given.stream)
        if len(self._newest) > STREAMS_MAX:
            self._newest.popitem(last=False)
        self._changed = True

    def load(self) -> list[Given]:
        """What an earlier life has left; from now on ours too. Raises Unreadable."""
        if self._path is None:
            return []
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Unreadable(f"{self._path} cannot be read: {error.strerror}") from error
        try:
            lines = msgspec.json.decode(raw, type=list[_Line])
            found = [
                Given(
                    uuid_bytes(a.tenant_id), uuid_bytes(a.store_id), a.sequence_number, uuid_bytes(a.event_id)
                )
                for a in lines[-STREAMS_MAX:]
            ]
        except (msgspec.DecodeError, ValueError) as error:
            raise Unreadable(
                f"{self._path} is not what a server writes ({error}): if nobody restored the database, "
                "remove the file"
            ) from None
        self._newest = OrderedDict((one.stream, one) for one in found)
        return found

    async def write_down(self) -> None:
        """The file says what is known now. Raises OSError."""
        if self._path is None or not self._changed:
            return
        self._changed = False
        lines = [
            _Line(uuid_text(a.tenant_id), uuid_text(a.store_id), a.sequence_number, uuid_text(a.event_id))
            for a in self._newest.values()
        ]
        try:
            await trio.to_thread.run_sync(write_whole, self._path, msgspec.json.encode(lines))
        except OSError:
            self._changed = True
            raise


class NumbersKeeper:
    """Writes them down while the node lives, and once more when it is told to stop."""

    def __init__(self, given: GivenNumbers) -> None:
        self._given = given

    async def run(self, inbox: Inbox) -> None:
        try:
            while True:
                await self._write_down()
                await inbox.pause(EVERY_S)
        finally:
            with trio.CancelScope(shield=True):
                await self._write_down()

    async def _write_down(self) -> None:
        try:
            await self._given.write_down()
        except OSError as error:
            log.warning("the numbers given last cannot be written down", reason=str(error))
