"""A mailbox that many tenants share, where one who writes much keeps nobody else waiting.

Each letter waits in the lane of whoever it is for (``Message.lane``), in order. Lanes are served in
proportion to the work they bring (``Message.weight``), by self-clocked fair queueing (Golestani, 1994): a
letter is due at the virtual time at which its lane, given its share, would be done with it, and the first due
is the next. So a small letter of a quiet lane passes all but the one or two that were nearly due, and a lane
that was away has saved nothing up.

No order helps a small letter while all readers are at large ones. So as long as small letters come from
other lanes than large ones do, a large one is not handed to the last reader that is free: ``KEPT_S`` after
the last such small letter, and at most ``KEPT_S`` long while no large one is taken at all. It alone knows the
lanes; who reads, dies and gives back it leaves to ``Mailbox``.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import Any

import trio

from actors.letters import Letter
from actors.mailbox import LIVES_MAX, Inbox, Mailbox
from actors.messages import Message
from ves.records import Uuid

LANE_SHARE = 4
"""So many times the free places may a lane hold: alone four fifths of them, of a crowd each less."""
NEWCOMERS_SHARE = 16
"""One in so many places is kept for lanes in which nothing waits."""
LEFT_PLACES_MAX = 32
"""Askers who left do not pile up: with so many of them the order is made anew."""
SMALL = 1_000
"""The weight up to which a letter is small: some ten events."""
KEPT_S = 1.0
FRONT = -1
"""Due before every virtual time there is: what comes back from a life that ended."""


@dataclass(slots=True)
class _Lane:
    letters: int = 0
    due: int = 0
    """When its last letter is."""


@dataclass(slots=True)
class _Place:
    """In the order of what is due; ``turn`` keeps those due together in order."""

    due: int
    turn: int
    letter: Letter[Any] | None
    """None: its asker has left."""

    def __lt__(self, other: _Place) -> bool:
        return (self.due, self.turn) < (other.due, other.turn)


class FairMailbox(Mailbox):
    """O(log n) for a letter, whatever the number of lanes; a lane that is empty is not remembered."""

    __slots__ = (
        *("_front_turn", "_kept_until", "_lanes", "_large_lane", "_large_taken_at", "_now", "_order"),
        *("_places", "_readers_max", "_small", "_turn"),
    )

    def __init__(
        self, name: str, *, letters_max: int, lives_max: int = LIVES_MAX, readers_max: int = 1
    ) -> None:
        """``readers_max``: those it is meant for; one alone takes everything."""
        super().__init__(name, letters_max=letters_max, lives_max=lives_max)
        self._readers_max = readers_max
        self._small: list[_Place] = []  # of _order, those with small letters, in the same order
        self._large_lane: Uuid | None = None  # of the last large letter
        self._kept_until = 0.0  # by Trio's clock: a reader is kept for small letters
        self._large_taken_at = 0.0
        self._lanes: dict[Uuid | None, _Lane] = {}
        self._places: dict[Letter[Any], _Place] = {}
        self._order: list[_Place] = []  # a heap; places that were left stay until they are due or too many
        self._now = 0  # virtual: when the last one taken was due
        self._turn = 0
        self._front_turn = 0

    @property
    def depth(self) -> int:
        return len(self._places)

    def _no_room(self, message: Message[Any]) -> str | None:
        free = self.letters_max - self.depth
        if free <= 0:
            return ""
        lane = self._lanes.get(message.lane)
        if lane is not None and lane.letters >= LANE_SHARE * (free - self.letters_max // NEWCOMERS_SHARE):
            return f" for this tenant: {lane.letters} letters are its own"
        return None

    def _line_up(self, letter: Letter[Any]) -> None:
        lane = self._lanes.setdefault(letter.message.lane, _Lane())
        lane.due = max(lane.due, self._now) + letter.message.weight
        self._turn += 1
        self._put(letter, lane, lane.due, self._turn)
        if self._readers_max == 1:
            return
        if letter.message.weight > SMALL:
            self._large_lane = letter.message.lane
        elif letter.message.lane != self._large_lane:
            self._kept_until = trio.current_time() + KEPT_S

    def _to_the_front(self, letters: list[Letter[Any]]) -> None:
        for letter in reversed(letters):
            self._front_turn -= 1
            lane = self._lanes.setdefault(letter.message.lane, _Lane())
            self._put(letter, lane, FRONT, self._front_turn)

    def _put(self, letter: Letter[Any], lane: _Lane, due: int, turn: int) -> None:
        lane.letters += 1
        place = self._places[letter] = _Place(due, turn, letter)
        heapq.heappush(self._order, place)
        if self._readers_max > 1 and letter.message.weight <= SMALL:
            heapq.heappush(self._small, place)

    def _first(self) -> Letter[Any] | None:
        return self._first_with(len(self._readers))

    def _first_with(self, others_free: int) -> Letter[Any] | None:
        """For a reader beside whom so many are free."""
        first = _head(self._order)
        if first is None or others_free or first.message.weight <= SMALL or not self._keeps_a_reader():
            return first
        return _head(self._small)

    def _keeps_a_reader(self) -> bool:
        if self._readers_max == 1 or self.closed:
            return False
        now = trio.current_time()
        return now < self._kept_until and now < self._large_taken_at + KEPT_S

    def wake_reader(self) -> None:
        if self._readers and self._first_with(len(self._readers) - 1) is not None:
            super().wake_reader()

    async def wait(self, inbox: Inbox) -> None:
        """Not for ever while large letters are passed over."""
        with trio.move_on_after(KEPT_S if self.depth else math.inf):
            await super().wait(inbox)

    def pop(self) -> Letter[Any]:
        first = _head(self._order)
        letter = super().pop()
        if letter is first:  # else small, and before its time
            self._now = max(self._now, heapq.heappop(self._order).due)
        if self._readers_max > 1 and letter.message.weight > SMALL:
            self._large_taken_at = trio.current_time()
        if not self._places:
            self._order.clear()
            self._small.clear()
            self._now = 0
        self._tidy()
        return letter

    def _leave(self, letter: Letter[Any]) -> None:
        self._places.pop(letter).letter = None
        lane = self._lanes[letter.message.lane]
        lane.letters -= 1
        if not lane.letters:
            del self._lanes[letter.message.lane]

    def _forget(self, letter: Letter[Any]) -> None:
        super()._forget(letter)
        self._tidy()

    def _tidy(self) -> None:
        for order in (self._order, self._small):
            if len(order) > 2 * (len(self._places) + LEFT_PLACES_MAX):
                order[:] = [place for place in order if place.letter is not None]
                heapq.heapify(order)


def _head(order: list[_Place]) -> Letter[Any] | None:
    """The first in it that has not left."""
    while order and order[0].letter is None:
        heapq.heappop(order)
    return order[0].letter if order else None
