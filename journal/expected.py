"""Whose events are on their way to the journal: told by who receives them, asked by who could wait for them.

A hint and nothing else: what it says changes how many small groups go together, never what is stored.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType

from ves.records import Uuid


class Expected:
    """Tenants, each counted once, however many requests it has under way."""

    def __init__(self) -> None:
        self._requests: dict[Uuid | None, int] = {}

    def __len__(self) -> int:
        return len(self._requests)

    def of(self, tenant_id: Uuid | None) -> AbstractContextManager[None]:
        """For the time of one request. None: whose events they are stands in its body only."""
        return _Request(self._requests, tenant_id)


class _Request:
    __slots__ = ("_requests", "_tenant_id")

    def __init__(self, requests: dict[Uuid | None, int], tenant_id: Uuid | None) -> None:
        self._requests = requests
        self._tenant_id = tenant_id

    def __enter__(self) -> None:
        self._requests[self._tenant_id] = self._requests.get(self._tenant_id, 0) + 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = self._requests[self._tenant_id] - 1
        if left:
            self._requests[self._tenant_id] = left
        else:
            del self._requests[self._tenant_id]
