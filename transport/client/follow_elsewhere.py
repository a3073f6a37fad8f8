"""Does another address of the service show the same history? Where not, who signed what.

A fork is found where it begins, because state roots are chained: whoever differs once differs from there on.
Being behind is no lie: a replica may be. Convicting are two receipts for one number, both of keys we believe.
"""

from __future__ import annotations

from transport.client.follow_keys import Keys
from transport.client.follow_view import EVENTS, PAGE, Look, Shown, View, told
from transport.client.sequencer import SequencerClient
from transport.client.wire import Envelope, decode
from ves.following import Contradiction, name_of


class Elsewhere:
    """The same stream at ``other``."""

    def __init__(self, view: View, keys: Keys, other: SequencerClient) -> None:
        self._view = view
        self._keys = keys
        self._other = other

    async def look(self, found: Look) -> None:
        """The last verified commitment and a random one are the same there, as far as it goes."""
        count = self._view.memory.seen.count
        for index in {count - 1, self._view.chance(count)} if count else set():
            if await self._is_same(index):
                continue
            first = await self._first_difference(index)
            shown = await self._shown(first)
            if shown is not None and not await self._is_same(first):
                raise await self._split(first, shown)
            behind = f"{self._other.origin} is behind: it shows {first} of {count} commitments"
            if shown is None and behind not in found.notices:
                found.notices.append(behind)

    async def _shown(self, index: int) -> Shown | None:
        kept = self._view.memory.at(index)
        return await self._view.commitment_at(kept.commitment.sequence_start, self._other)

    async def _is_same(self, index: int) -> bool:
        shown = await self._shown(index)
        return shown is not None and shown.commitment == self._view.memory.at(index).commitment

    async def _first_difference(self, index: int) -> int:
        low, high = 0, index
        while low < high:
            middle = (low + high) // 2
            if await self._is_same(middle):
                low = middle + 1
            else:
                high = middle
        return low

    async def _split(self, index: int, shown: Shown) -> Exception:
        kept, other = self._view.memory.at(index), self._other.origin
        first, last = kept.commitment.sequence_start, kept.commitment.sequence_end
        text = f"{other} shows another history than {self._view.client.origin}: {name_of(kept.commitment)}"
        ours, theirs = told(kept), shown.raw
        both = await self._signed_differently(first, last)
        if both is None:
            text += " is not the same there"
        else:
            ours, theirs = both
            first = last = decode(ours, Envelope, EVENTS).sequence_number or 0
            text += f" is not the same there, and two receipts give number {first} to two events"
        return self._view.contradicted(
            Contradiction("split_view", text, first, last), ours, theirs, url=other
        )

    async def _signed_differently(self, start: int, end: int) -> tuple[bytes, bytes] | None:
        """The first event that differs, here and there, if receipts that we believe stand behind both."""
        while start <= end:
            limit = min(PAGE, end - start + 1)
            here = await self._view.raw_events(start, limit)
            there = await self._view.raw_events(start, limit, self._other)
            for one, another in zip(here, there, strict=False):
                mine, theirs = decode(one, Envelope, EVENTS), decode(another, Envelope, EVENTS)
                if mine.sequence_number != theirs.sequence_number:
                    return None
                if mine.event_signing_hash != theirs.event_signing_hash:
                    convicting = not (await self._problems(mine) or await self._problems(theirs))
                    return (one, another) if convicting else None
            if not here or not there:
                return None
            start += min(len(here), len(there))
        return None

    async def _problems(self, envelope: Envelope) -> bool:
        return bool(await self._keys.problems_of(envelope))
