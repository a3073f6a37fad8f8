"""Public keys under their names, the least recently used ones forgotten.

A binding never changes once registered, so it may be remembered for ever; that a name has none is never
remembered, because it may be registered a moment later.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from ves.records import KeyName


class Bindings:
    """About 400 bytes each."""

    def __init__(self, bindings_max: int) -> None:
        self._max = bindings_max
        self._keys: OrderedDict[KeyName, bytes] = OrderedDict()

    def get(self, name: KeyName) -> bytes | None:
        """32 bytes, or None when it is not remembered."""
        public_key = self._keys.get(name)
        if public_key is not None:
            self._keys.move_to_end(name)
        return public_key

    def learn(self, found: Iterable[tuple[KeyName, bytes]]) -> None:
        """Remembers these, and forgets what is too much."""
        self._keys.update(found)
        while len(self._keys) > self._max:
            self._keys.popitem(last=False)
