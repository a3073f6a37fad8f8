"""Comparing payloads with their schemas inside a verifier's process, within a budget of processor time.

A schema was tried before it was registered; this is for the payloads that nobody thought of. What takes too
long is a mismatch with the keyword ``time``, and what the engine does not come back from ends the process,
whose owner then knows whom to hold back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from actors.schema_engine import Shelf, mismatch
from ves.policy import TOO_SLOW, Mismatch, SchemaName
from ves.records import Uuid

EVENT_CPU_S = 1.0
BODY_CPU_S = 4.0
"""Of one body's payloads together; a usual one takes some microseconds."""


class Comparing:
    """Callable as ``ves.policy.Compare``."""

    def __init__(
        self,
        limit_cpu: Callable[[float], None],
        *,
        cpu_s: float,
        cpu_time: Callable[[], float] = time.process_time,
    ) -> None:
        self._limit_cpu = limit_cpu
        self._cpu_s = cpu_s
        self._cpu_time = cpu_time
        self._shelf = Shelf()
        self._armed = False
        self._spent_s = 0.0

    def lacks(self, names: list[SchemaName]) -> list[Uuid]:
        """Those not at hand; the others will be until ``tidy``."""
        return [name.schema_id for name in names if not self._shelf.has(name.schema_id)]

    @contextmanager
    def of_one_body(self, schemas: list[tuple[Uuid, str]]) -> Iterator[None]:
        """While a body is worked on, of which nothing was compared yet; ``schemas`` are put at hand."""
        self._spent_s = 0.0
        try:
            for schema_id, text in schemas:
                self._arm()
                self._shelf.put(schema_id, text)
            yield
        finally:
            if self._armed:
                self._limit_cpu(0)
                self._armed = False

    def tidy(self) -> None:
        """When a body is done: one that waits for its keys needs all of its schemas."""
        self._shelf.tidy()

    def __call__(self, name: SchemaName, payload: bytes) -> Mismatch | None:
        if self._spent_s > BODY_CPU_S:
            return _LATE
        self._arm()
        started = self._cpu_time()
        found = mismatch(self._shelf.get(name.schema_id), payload)
        took = self._cpu_time() - started
        self._spent_s += took
        return _LATE if took > EVENT_CPU_S else found

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            self._limit_cpu(self._cpu_s)


_LATE = Mismatch("", TOO_SLOW, "")
