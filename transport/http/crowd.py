"""How many are connected, together and from each address. Alone counts them, and tells those who are too
many, at a pace, so that they cost little."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import trio

from transport.http.errors import ApiError, Code
from transport.http.limits import Pace
from transport.http.line import GONE, Line
from transport.http.patience import TURN_AWAY_S, TURNED_AWAY_MAX, TURNED_AWAY_PER_S


class Crowd:
    def __init__(self, connections_max: int, per_address_max: int) -> None:
        self.connections = 0
        self._connections_max = connections_max
        self._per_address_max = per_address_max
        self._of_address: Counter[str] = Counter()

    def has_room(self, address: str) -> bool:
        """``address``: of a subscriber, as ``rates.network`` has it."""
        return self.connections < self._connections_max and self._of_address[address] < self._per_address_max

    def came(self, address: str) -> None:
        self.connections += 1
        self._of_address[address] += 1

    def left(self, address: str) -> None:
        self.connections -= 1
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]


def one_too_many() -> ApiError:
    return ApiError(Code.SERVICE_UNAVAILABLE, "too many connections; nothing was done", retry_after_s=1.0)


class TurnedAway:
    """Those who are told that they are too many: so many at a time, the others wait to be accepted."""

    def __init__(self, answer: Callable[[ApiError], bytes]) -> None:
        """``answer``: the whole HTTP answer that says it."""
        self._answer = answer
        self._count = 0
        self._pace = Pace(per_s=TURNED_AWAY_PER_S)
        self._one_less = trio.Event()

    async def tell(self, line: Line) -> None:
        """Closes the line, told or not."""
        self._count += 1
        try:
            await self._pace.turn(patience_s=TURN_AWAY_S)
            with trio.move_on_after(TURN_AWAY_S):
                if await line.shake_hands() is None:
                    await line.send_all(self._answer(one_too_many()))
                await line.end_sending()
                await line.discard()
        except GONE:
            pass
        finally:
            self._count -= 1
            self._one_less.set()
            line.close()

    async def may_accept(self) -> None:
        """Returns when another one can be received, or be told why not."""
        while self._count >= TURNED_AWAY_MAX:
            self._one_less = trio.Event()
            await self._one_less.wait()
