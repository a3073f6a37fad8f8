"""Tenants whose last sequencer in this process ended between two groups: nothing of theirs is under way here.

The next life of such a tenant needs not settle first (ADR 39): it begins where the one before it would have
gone on, and the fence guards against other nodes and processes as it did then. Every life takes its tenant
out when it begins and only a clean end puts it back, so whatever else ends a life, at whatever line, leaves
nothing here. It alone remembers this, in memory: a new process settles every tenant anew. Never asks the
journal.
"""

from __future__ import annotations

from collections import OrderedDict

from ves.records import Uuid

TENANTS_MAX = 50_000
"""About 150 bytes each. Of more, those away longest are forgotten and settle again."""


class SettledTenants:
    def __init__(self, tenants_max: int = TENANTS_MAX) -> None:
        self._max = tenants_max
        self._tenants: OrderedDict[Uuid, None] = OrderedDict()

    def take(self, tenant_id: Uuid) -> bool:
        """A life begins. Whether the one before it left the tenant settled; told once."""
        if tenant_id not in self._tenants:
            return False
        del self._tenants[tenant_id]
        return True

    def leave(self, tenant_id: Uuid) -> None:
        """A life ends that had settled the tenant, and every answer of the journal to it was heard."""
        self._tenants[tenant_id] = None
        if len(self._tenants) > self._max:
            self._tenants.popitem(last=False)
