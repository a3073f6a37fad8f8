"""How many are connected, together and from each address. Alone counts them, and says what one too many
hears."""

from __future__ import annotations

from collections import Counter

from transport.http.errors import ApiError, Code


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
